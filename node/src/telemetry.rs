//! The log: to standard error, one line an event, levels from `TUYEN_LOG`.
//!
//! Levels, by what they ask of a person: `error` something is broken and somebody has to come; `warn` somebody
//! should look today; `info` what an operator wants to read in the morning; `debug` for whoever hunts a bug. A
//! line names records, nodes and places, never what a record says.

use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    fmt::time::SystemTime,
    prelude::*,
};

/// The variable that sets levels, as in `TUYEN_LOG=info,tuyen_node=debug`.
pub const LOG_VARIABLE: &str = "TUYEN_LOG";

/// Starts the log. A second call does nothing.
pub fn start() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        // The message may quote what was being worked on, which may be a record.
        tracing::error!("a defect of this program showed itself at {place}; please report the place");
    }));
    let wanted = std::env::var(LOG_VARIABLE).ok().filter(|text| !text.is_empty());
    let levels = wanted.as_deref().map(str::parse::<Targets>);
    let (levels, wrong) = match levels {
        Some(Ok(levels)) => (levels, None),
        Some(Err(error)) => (usual(), Some(error)),
        None => (usual(), None),
    };
    // A log on a full disk must not end the process: a line that cannot be written is lost, and nothing else.
    let format = tracing_subscriber::fmt::layer().log_internal_errors(false).with_writer(std::io::stderr);
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let format = format.with_timer(SystemTime).with_ansi(ansi).with_target(false);
    // Somebody who has already started one keeps it.
    let _ = tracing_subscriber::registry().with(format.with_filter(levels)).try_init();
    if let Some(error) = wrong {
        tracing::warn!(
            "{LOG_VARIABLE} is not understood ({error}) and counts as info; write info,tuyen_node=debug"
        );
    }
}

fn usual() -> Targets {
    Targets::new().with_default(LevelFilter::INFO)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    const CANARY: &str = "canary-9f3c";
    const VICTIM: &str = "TUYEN_TEST_PANIC";

    #[test]
    fn victim() {
        if std::env::var_os(VICTIM).is_some() {
            super::start();
            panic!("{CANARY}");
        }
    }

    #[test]
    fn a_panic_is_logged_with_its_place_and_without_its_text() {
        let program = std::env::current_exe().unwrap();
        let arguments = ["--exact", "telemetry::tests::victim", "--nocapture"];
        let output = Command::new(program).args(arguments).env(VICTIM, "1").output().unwrap();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
        assert!(said.contains("telemetry.rs:"), "{said}");
        assert!(!said.contains(CANARY), "{said}");
    }
}
