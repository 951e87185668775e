//! A simulated country: a tree of nodes, their disks and the lines between them, in one thread and virtual time.
//!
//! One byte string decides everything: the tree, what is written where, which line fails at which byte, which machine
//! loses power between which two effects of its engine, which is put back to an older copy of its disk, and
//! which is copied and runs twice. It comes from a seed, from a fuzzer or from a file ([`plan`]). Every node is the real
//! engine on the reference store; frames cross the lines as bytes. For a while things go wrong ([`fault`]); then the
//! world is calm, and everything that was promised has to be true within a bounded time. [`oracle`] says what was
//! promised; [`minimise`] makes a failing plan small.
//!
//! In one world of eight records are FHIR resources that people edit, delete and settle, and every disk must come to
//! show the same; in a fourth of the others there is a hostile leaf. [`scenes`] are what seeds do not come upon. Not here:
//! disks that are damaged otherwise than by rows that rot ([`Plan::rot_one_in`]), and two daemons on one folder.

pub mod corpus;
pub mod fault;
pub mod identity;
pub mod minimise;
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
pub use plan::Plan;
pub use trace::Trace;
pub use world::{Report, matrix, scenes};

/// Runs the world of a plan to its end.
pub fn run_plan(plan: Plan, trace: &mut Trace) -> Result<Report, Failure> {
    let outcome = catch_unwind(AssertUnwindSafe(|| world::World::new(plan, trace).run()));
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(Failure::new("no panic", text))
    })
}
