//! A simulated country: a tree of nodes, their disks and the lines between them, in one thread and virtual time.
//!
//! A seed decides everything: the tree, what is written where, which line fails at which byte, which machine
//! loses power between which two effects of its engine, which is put back to an older copy of its disk, and
//! which is copied and runs twice. Every node is the real engine on the reference store; frames cross the lines
//! as bytes. For a while things go wrong; then the world is calm, and everything that was promised has to be
//! true within a bounded time. [`oracle`] says what was promised.
//!
//! In one world of eight records are FHIR resources that people edit, delete and settle, and every disk must come to
//! show the same. Not here: hostile neighbours, revocation and damaged disks.

pub mod identity;
pub mod net;
pub mod oracle;
pub mod plan;
mod records;
pub mod rng;
pub mod trace;
pub mod workload;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use oracle::Failure;
pub use trace::Trace;
pub use world::Report;

/// Runs the world of a seed to its end.
pub fn run(seed: u64, trace: &mut Trace) -> Result<Report, Failure> {
    let outcome = catch_unwind(AssertUnwindSafe(|| world::World::new(seed, trace).run()));
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(Failure::new("no panic", text))
    })
}
