//! Ctrl-C and the termination signal: a command tidies up what it started and ends with exit code 130. What
//! always holds: writes that were acknowledged before stay, since only the daemon keeps data. Not here: the
//! daemon's own signals.

use std::{
    io::{IsTerminal, Write},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::output::INTERRUPTED;

type Tidy = Box<dyn FnOnce() + Send>;

static CAME: AtomicBool = AtomicBool::new(false);
static TIDY: Mutex<Option<Tidy>> = Mutex::new(None);

/// Ends the process with the exit code of an interrupted command when a signal asks for it. Signals that come after
/// this has returned are caught; where the system allows no watch its own way remains: a signal ends the process at
/// once.
pub fn watch() {
    let (stands, wait) = mpsc::channel::<()>();
    let started = thread::Builder::new().name("signals".into()).spawn(move || {
        let Ok(mut signals) = Signals::new([SIGINT, SIGTERM]) else { return };
        drop(stands);
        if signals.forever().next().is_none() {
            return;
        }
        CAME.store(true, Ordering::SeqCst);
        let tidy = TIDY.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(tidy) = tidy {
            tidy();
        }
        let mut err = std::io::stderr().lock();
        let start = if err.is_terminal() { "\r\x1b[K" } else { "" };
        let _ = writeln!(err, "{start}tuyen: interrupted");
        node::process::end(INTERRUPTED);
    });
    // Ends when the other side is dropped: once the watch stands, or cannot.
    let _ = wait.recv();
    drop(started);
}

/// Never returns once a signal has come: the process is about to end, and what fails because of that is no news.
pub fn stand_still_if_it_came() {
    while CAME.load(Ordering::SeqCst) {
        thread::park();
    }
}

/// What is to be done before an interrupted command ends.
pub fn before_the_end(tidy: impl FnOnce() + Send + 'static) {
    *TIDY.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(tidy));
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    /// The signals that this process catches: bit n - 1 for signal n (proc(5), SigCgt).
    fn caught() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    }

    #[test]
    fn a_signal_is_caught_from_the_moment_that_the_watch_stands() {
        let both = 1 << (super::SIGINT - 1) | 1 << (super::SIGTERM - 1);
        assert_eq!(caught() & both, 0);
        super::watch();
        assert_eq!(caught() & both, both, "SIGINT and SIGTERM");
    }
}
