//! Fuzz targets: functions over bytes that panic when a promise is broken.
//!
//! A target is pure: the same bytes do the same on every machine, so that a file of `tests/corpus/fuzz` that once
//! broke a promise can be replayed on a stable toolchain (`tests/tests/fuzz.rs`). `tests/fuzz` makes a libFuzzer
//! program of each. Not here: searching for bytes.

mod bundle;
mod change;
mod enrolfile;
mod identity;
mod import;
mod merge;
mod resource;
mod session;
mod store;
mod tree;
mod wire;
mod world;

use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Once,
};

pub use bundle::bundle;
pub use change::change;
pub use enrolfile::enrolfile;
pub use identity::identity;
pub use import::import;
pub use merge::{merge, merge_nodes};
pub use resource::{goes_in_and_comes_out, resource};
pub use session::session;
pub use store::store;
pub use wire::wire;
pub use world::world;

/// A target.
pub struct Target {
    /// Its name: that of its folder in `tests/corpus/fuzz` and of its program in `tests/fuzz`.
    pub name: &'static str,
    /// Panics when a promise is broken.
    pub run: fn(&[u8]),
    /// How many mutations of its corpus each run of the tests tries.
    pub tries: u64,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "bundle", run: bundle, tries: 3_000 },
    Target { name: "change", run: change, tries: 4_000 },
    Target { name: "enrolfile", run: enrolfile, tries: 4_000 },
    Target { name: "identity", run: identity, tries: 4_000 },
    Target { name: "import", run: import, tries: 4_000 },
    Target { name: "merge", run: merge, tries: 400 },
    Target { name: "resource", run: resource, tries: 4_000 },
    Target { name: "session", run: session, tries: 600 },
    Target { name: "store", run: store, tries: 60 },
    Target { name: "wire", run: wire, tries: 4_000 },
    Target { name: "world", run: world, tries: 100 },
];

thread_local! {
    static WITHIN: Cell<bool> = const { Cell::new(false) };
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs one target; the error is the message of its panic. A panic that the product itself catches is none.
pub fn check(run: fn(&[u8]), data: &[u8]) -> Result<(), String> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if WITHIN.get() { LAST_PANIC.set(panic.to_string()) } else { loud(panic) }
        }));
    });
    WITHIN.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(|| run(data)));
    WITHIN.set(false);
    outcome.map_err(|_| LAST_PANIC.take())
}

/// For libFuzzer's programs: ends the process when a promise is broken.
pub fn check_or_abort(run: fn(&[u8]), data: &[u8]) {
    if let Err(broken) = check(run, data) {
        eprintln!("{broken}");
        std::process::abort();
    }
}
