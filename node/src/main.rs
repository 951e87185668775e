//! `tuyend`: the daemon of one node's folder.

use std::{fmt::Display, io::Write, path::PathBuf, process::ExitCode};

const HELP: &str = "\
Example: tuyend --dir /var/lib/tuyen

Runs the node of a folder until SIGTERM. Make the folder with `tuyen init` or `tuyen enrol` first.

  --dir DIR     the node's folder (or TUYEN_DIR)
  --version     the version
  --help        this text

TUYEN_LOG sets what is logged, as in TUYEN_LOG=info,tuyen_node=debug.";

fn main() -> ExitCode {
    let mut dir = std::env::var_os("TUYEN_DIR").map(PathBuf::from);
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--help" | "-h") => {
                println!("{HELP}");
                return ExitCode::SUCCESS;
            }
            Some("--version" | "-V") => {
                println!("tuyend {}", env!("CARGO_PKG_VERSION"));
                return ExitCode::SUCCESS;
            }
            Some("--dir") => dir = arguments.next().map(PathBuf::from),
            _ => {
                say(format_args!("{argument:?} is not an argument; see tuyend --help"));
                return ExitCode::from(2);
            }
        }
    }
    let Some(dir) = dir else {
        say("no folder; give one with --dir DIR or TUYEN_DIR");
        return ExitCode::from(2);
    };
    let code = match tuyen_node::daemon::run(&dir) {
        Ok(()) => 0,
        Err(failure) => {
            say(&failure);
            failure.kind.exit_code()
        }
    };
    tuyen_node::process::end(code)
}

/// Says why it ends. On a full disk nobody may hear it, and the exit code still counts.
fn say(text: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "tuyend: {text}");
}
