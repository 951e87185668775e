//! The log: to standard error, one line an event, levels from `TUYEN_LOG`.
//!
//! Levels, by what they ask of a person: `error` something is broken and somebody has to come; `warn` somebody
//! should look today; `info` what an operator wants to read in the morning; `debug` for whoever hunts a bug. A
//! line names records, nodes and places, never what a record says.

use tracing_subscriber::{EnvFilter, fmt::time::SystemTime};

/// The variable that sets levels, as in `TUYEN_LOG=info,tuyen_node=debug`.
pub const LOG_VARIABLE: &str = "TUYEN_LOG";

/// Starts the log. A second call does nothing.
pub fn start() {
    let filter = EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"));
    // A log on a full disk must not end the process: a line that cannot be written is lost, and nothing else.
    let format = tracing_subscriber::fmt().log_internal_errors(false);
    let format = format.with_env_filter(filter).with_writer(std::io::stderr);
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    // Somebody who has already started one keeps it.
    let _ = format.with_timer(SystemTime).with_ansi(ansi).with_target(false).try_init();
}
