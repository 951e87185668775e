//! Ctrl-C and the termination signal: a command tidies up what it started and ends with exit code 130. What
//! always holds: writes that were acknowledged before stay, since only the daemon keeps data. Not here: the
//! daemon's own signals.

use std::{
    io::{IsTerminal, Write},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use tokio::signal::unix::{SignalKind, signal};

use crate::output::INTERRUPTED;

type Tidy = Box<dyn FnOnce() + Send>;

static CAME: AtomicBool = AtomicBool::new(false);
static TIDY: Mutex<Option<Tidy>> = Mutex::new(None);

/// Ends the process with the exit code of an interrupted command when a signal asks for it.
pub fn watch() {
    let started = thread::Builder::new().name("signals".into()).spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        // Without a watch the system's own way remains: the signal ends the process at once.
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            let (Ok(mut interrupt), Ok(mut terminate)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            else {
                return;
            };
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            CAME.store(true, Ordering::SeqCst);
            let tidy = TIDY.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(tidy) = tidy {
                tidy();
            }
            let mut err = std::io::stderr().lock();
            let start = if err.is_terminal() { "\r\x1b[K" } else { "" };
            let _ = writeln!(err, "{start}tuyen: interrupted");
            std::process::exit(i32::from(INTERRUPTED));
        });
    });
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
