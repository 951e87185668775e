//! A whole simulated country from bytes.

use crate::sim::{
    Trace,
    plan::{Plan, Taste},
    run_plan,
};

/// The world of these bytes keeps every promise; see [`crate::sim`].
pub fn world(data: &[u8]) {
    if let Err(failure) = run_plan(Plan::of_bytes(data, Taste::default()), &mut Trace::off()) {
        panic!("{failure}");
    }
}
