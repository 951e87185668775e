//! `tuyen`, the command line of Tuyến: it sets nodes up, talks to the daemon of a node's folder, runs that
//! daemon, and shows a whole small country on one machine. What always holds: a result goes to standard
//! output and everything else to standard error; `--json` prints one object with `"schema":1`; the exit
//! codes are those of docs/OPERATIONS.md. Not here: any data. Only the daemon writes records, and only it and the check
//! of a backup read them.

mod chunk;
mod commands;
mod date;
mod duration;
mod interrupt;
mod output;
mod render;
mod whole;

use std::{ffi::OsStr, io::Write, path::PathBuf};

use clap::{Parser, error::ErrorKind};
use node::admin::FailureKind;

use crate::{
    commands::{Command, Context},
    output::{Output, exit_code, usage},
};

/// The heading of what every command takes.
const GLOBAL_HEADING: &str = "Options of every command";

/// Records for clinics with thin links: write offline, sync when there is a line, settle what disagrees.
#[derive(Parser)]
#[command(
    name = "tuyen",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    before_help = "Example:\n  tuyen demo                          a small country on this machine, in a minute\n  \
                   tuyen --dir dv status               is everything safe?\n  \
                   tuyen --dir dv records import FILE",
    after_help = "Exit codes: 0 ok, 1 failure, 2 usage, 3 daemon unreachable, 4 not enrolled or refused,\n\
                  5 attention needed, 6 integrity failure, 130 interrupted."
)]
struct Cli {
    /// The node's folder
    #[arg(
        long,
        global = true,
        env = "TUYEN_DIR",
        hide_env_values = true,
        value_name = "DIR",
        help_heading = GLOBAL_HEADING
    )]
    dir: Option<PathBuf>,
    /// Print one JSON object, for programs
    #[arg(long, global = true, help_heading = GLOBAL_HEADING)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

fn main() -> ! {
    let code = run();
    // Rust's own exit would have written what is left; when nobody reads any more there is nobody to tell.
    let _ = std::io::stdout().flush();
    node::process::end(code)
}

fn run() -> u8 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refused(&error),
    };
    let context = Context { dir: cli.dir, output: Output { json: cli.json } };
    if !matches!(cli.command, Command::Daemon(_)) {
        interrupt::watch();
    }
    let outcome = cli.command.run(&context);
    interrupt::stand_still_if_it_came();
    exit_code(outcome, context.output)
}

/// What the command line parser says: help and version are results, anything else is a usage failure.
fn refused(error: &clap::Error) -> u8 {
    let help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let json =
        std::env::args_os().skip(1).take_while(|arg| arg != "--").any(|arg| arg == OsStr::new("--json"));
    let output = Output { json };
    if help {
        return exit_code(output.text(error.render()).map(|()| output::Exit::Ok), output);
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand && !json {
        // Nobody is left to tell when standard error is gone.
        let _ = std::io::stderr().lock().write_all(error.render().to_string().as_bytes());
        return FailureKind::Usage.exit_code();
    }
    exit_code(Err(usage(one_sentence(&error.render().to_string()))), output)
}

/// The parser's message in one line: what is wrong, its tips, and how the command is used.
fn one_sentence(message: &str) -> String {
    let paragraphs = message.split("\n\n").map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
    let kept = paragraphs.filter(|text| !text.is_empty() && !text.starts_with("For more information"));
    let parts: Vec<String> = kept
        .map(|text| match text.split_once(": ") {
            Some(("error" | "tip", rest)) => rest.to_owned(),
            Some(("Usage", rest)) => format!("usage: {rest}"),
            _ => text,
        })
        .collect();
    parts.join("; ")
}

#[cfg(test)]
mod tests;
