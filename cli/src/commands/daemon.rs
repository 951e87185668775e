//! `tuyen daemon`: the node itself, the same as `tuyend`.

use std::io::Read;

use clap::Args;

use super::Context;
use crate::output::{Exit, Outcome, failed};

/// Run the node, in the foreground; the same as tuyend
///
/// It ends cleanly on SIGTERM or Ctrl-C, and may be killed at any moment without harm.
#[derive(Args)]
#[command(before_help = "Example:\n  tuyen --dir dv daemon")]
pub struct Daemon {
    /// End when standard input is closed: the daemon of a program that may die
    #[arg(long, hide = true)]
    while_stdin: bool,
}

impl Daemon {
    /// Does it.
    pub fn run(self, context: &Context) -> Outcome {
        if self.while_stdin {
            let watch = std::thread::Builder::new().name("stdin".into()).spawn(|| {
                let mut rest = [0; 64];
                let mut input = std::io::stdin().lock();
                while input.read(&mut rest).is_ok_and(|read| read > 0) {}
                // Ending like this is the same as being killed, which the store is made for.
                node::process::end(0);
            });
            watch
                .map_err(|error| failed(format!("cannot start a thread ({error}); is the machine full?")))?;
        }
        node::daemon::run(context.dir()?)?;
        Ok(Exit::Ok)
    }
}
