//! Programs that run to their end: what they said, how they ended, and the most memory that they had.

use std::{
    io::{Read, Write},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::cluster::program;

/// How long a program may take.
const TIMEOUT: Duration = Duration::from_secs(300);
/// How often its memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A program that has ended.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
    /// The most memory that it was seen with, in KiB.
    pub peak_kib: u64,
}

impl Ran {
    /// Expects an exit code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// Expects words on standard error.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.err.contains(word), "{word:?} is not said: {self:#?}");
        }
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

/// Runs `tuyen` on a node's folder.
pub fn tuyen(dir: &Path, arguments: &[&str], input: &[u8]) -> Ran {
    let mut command = Command::new(program("tuyen"));
    command.arg("--dir").arg(dir).args(arguments);
    run(command, input)
}

/// Runs `tuyend` on a node's folder where it is expected to end by itself.
pub fn tuyend(dir: &Path) -> Ran {
    let mut command = Command::new(program("tuyend"));
    command.arg("--dir").arg(dir);
    run(command, b"")
}

/// Runs a command to its end.
pub fn run(mut command: Command, input: &[u8]) -> Ran {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("it is piped");
    let (mut stdout, mut stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let read = |stream: &mut dyn Read| {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("a pipe can be read");
        String::from_utf8_lossy(&bytes).into_owned()
    };
    std::thread::scope(|scope| {
        // A program that does not want its input may have gone.
        scope.spawn(move || drop(stdin.write_all(input)));
        let out = scope.spawn(move || read(&mut stdout));
        let err = scope.spawn(move || read(&mut stderr));
        let (began, mut peak_kib) = (Instant::now(), 0);
        let code = loop {
            peak_kib = peak_kib.max(self::peak_kib(child.id()));
            if let Some(status) = child.try_wait().expect("our own child can be waited for") {
                break status.code();
            }
            if began.elapsed() > TIMEOUT {
                child.kill().expect("our own child can be killed");
            }
            std::thread::sleep(LOOK_EVERY);
        };
        let said = "a reader does not panic";
        Ran { code, out: out.join().expect(said), err: err.join().expect(said), peak_kib }
    })
}

/// The most memory that a process has had, in KiB; 0 when it is gone or this is not Linux.
pub fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or(0)
}
