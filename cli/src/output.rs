//! Where a command's words go, and how a command ends. Results go to standard output: text for people, or,
//! with `--json`, exactly one object with `"schema":1`. Everything else (notes, progress, errors) goes to
//! standard error. What always holds: a reader that has gone away (`| head`) ends the command quietly, and
//! progress is shown only on a terminal. Not here: how a result is worded; see `render` and the commands.

use std::{
    fmt::Display,
    io::{self, BufWriter, IsTerminal, Write},
    time::{Duration, Instant},
};

use node::admin::{Failure, FailureKind, Progress};
use serde::Serialize;

use crate::render;

/// The version of every JSON object that the CLI prints. Fields are only ever added.
pub const SCHEMA: u32 = 1;
/// Exit code of a command that Ctrl-C or a termination signal ended.
pub const INTERRUPTED: u8 = 130;
/// How often progress is drawn again.
const REDRAW: Duration = Duration::from_millis(100);

/// How a command that has printed its result ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All is well.
    Ok,
    /// The result is there and says that something failed.
    Failed,
    /// It worked, but a person has to look.
    Attention,
    /// Stored data is not what it should be.
    Integrity,
}

impl Exit {
    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::Failed => FailureKind::Failed.exit_code(),
            Exit::Attention => FailureKind::Attention.exit_code(),
            Exit::Integrity => FailureKind::Integrity.exit_code(),
        }
    }
}

/// Why a command stopped before it had a result.
#[derive(Debug)]
pub enum Stop {
    /// It failed.
    Failed(Failure),
    /// Nobody reads the output any more; what they wanted they have.
    Gone,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Stop::Failed(failure)
    }
}

/// The outcome of a command.
pub type Outcome = Result<Exit, Stop>;

/// A failure of the general kind.
pub fn failed(text: impl Into<String>) -> Stop {
    Failure::new(FailureKind::Failed, text).into()
}

/// A command line that makes no sense.
pub fn usage(text: impl Into<String>) -> Stop {
    Failure::new(FailureKind::Usage, text).into()
}

/// What an error of writing to standard output means.
pub fn output_error(error: io::Error) -> Stop {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Stop::Gone;
    }
    failed(format!("cannot write the output ({error}); check the disk or the program that reads it"))
}

/// Where a command's words go.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// Whether results are printed as JSON.
    pub json: bool,
}

#[derive(Serialize)]
struct Envelope<'a, T> {
    schema: u32,
    #[serde(flatten)]
    body: &'a T,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: &'a Failure,
}

impl Output {
    /// Prints text for people. What other nodes wrote may stand in it, so nothing in it steers the terminal.
    pub fn text(&self, text: impl Display) -> Result<(), Stop> {
        self.verbatim(render::harmless(&text.to_string()))
    }

    /// Prints one line for people.
    pub fn line(&self, text: impl Display) -> Result<(), Stop> {
        self.text(format_args!("{text}\n"))
    }

    /// Prints a resource, of which nothing may be changed.
    pub fn verbatim(&self, text: impl Display) -> Result<(), Stop> {
        let mut out = io::stdout().lock();
        write!(out, "{text}").and_then(|()| out.flush()).map_err(output_error)
    }

    /// Prints the one JSON object of a command.
    pub fn object<T: Serialize>(&self, body: &T) -> Result<(), Stop> {
        let mut out = BufWriter::new(io::stdout().lock());
        serde_json::to_writer(&mut out, &Envelope { schema: SCHEMA, body })
            .map_err(io::Error::from)
            .and_then(|()| out.write_all(b"\n"))
            .and_then(|()| out.flush())
            .map_err(output_error)
    }

    /// Prints a result: `text` for people, `body` as JSON.
    pub fn result<T: Serialize>(&self, text: impl Display, body: &T) -> Result<(), Stop> {
        if self.json { self.object(body) } else { self.text(text) }
    }

    /// Says something beside the result, on standard error.
    pub fn note(&self, text: impl Display) {
        // Nothing can be done for a reader of notes who has gone.
        let _ = writeln!(io::stderr().lock(), "tuyen: {}", render::harmless(&text.to_string()));
    }

    /// Says why a command stopped, and gives its exit code.
    pub fn stopped(&self, stop: Stop) -> u8 {
        let failure = match stop {
            Stop::Gone => return Exit::Ok.code(),
            Stop::Failed(failure) => failure,
        };
        let shown = if self.json {
            self.object(&ErrorBody { error: &failure })
        } else {
            self.note(render::one_line(&failure.text));
            Ok(())
        };
        match shown {
            Ok(()) | Err(Stop::Gone) => failure.kind.exit_code(),
            Err(Stop::Failed(_)) => FailureKind::Failed.exit_code(),
        }
    }
}

/// The exit code as the system wants it.
pub fn exit_code(outcome: Outcome, output: Output) -> u8 {
    match outcome {
        Ok(exit) => exit.code(),
        Err(stop) => output.stopped(stop),
    }
}

/// A line on the terminal that says how far long work has come, and is gone when the work is done.
pub struct Meter {
    terminal: bool,
    drawn: Option<Instant>,
}

impl Meter {
    /// A meter on standard error, if that is a terminal.
    pub fn new() -> Self {
        Self { terminal: io::stderr().is_terminal(), drawn: None }
    }

    /// Shows how far the work has come, though not more often than an eye can follow.
    pub fn show(&mut self, step: &Progress) {
        if !self.terminal || self.drawn.is_some_and(|at| at.elapsed() < REDRAW) {
            return;
        }
        let _ = write!(io::stderr().lock(), "\r\x1b[K{}", render::progress(step));
        self.drawn = Some(Instant::now());
    }

    /// Takes the line away.
    pub fn clear(&mut self) {
        if self.drawn.take().is_some() {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_the_manual() {
        let codes = [Exit::Ok, Exit::Failed, Exit::Attention, Exit::Integrity].map(Exit::code);
        assert_eq!(codes, [0, 1, 5, 6]);
        let kinds = [
            FailureKind::Failed,
            FailureKind::Usage,
            FailureKind::Unreachable,
            FailureKind::Refused,
            FailureKind::Attention,
            FailureKind::Integrity,
        ];
        assert_eq!(kinds.map(FailureKind::exit_code), [1, 2, 3, 4, 5, 6]);
        assert_eq!(Output { json: false }.stopped(Stop::Gone), 0);
    }

    #[test]
    fn an_error_is_one_line_or_one_object() {
        let failure = Failure::new(FailureKind::Unreachable, "nobody answers");
        let body = ErrorBody { error: &failure };
        let text = serde_json::to_string(&Envelope { schema: SCHEMA, body: &body }).unwrap();
        assert_eq!(text, r#"{"schema":1,"error":{"kind":"unreachable","text":"nobody answers"}}"#);
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        assert!(matches!(output_error(io::ErrorKind::BrokenPipe.into()), Stop::Gone));
        assert!(matches!(output_error(io::ErrorKind::StorageFull.into()), Stop::Failed(_)));
    }
}
