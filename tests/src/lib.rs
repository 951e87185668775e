//! Proofs of Tuyến: a simulated world, real processes on the loopback, benchmarks.

pub mod cluster;
pub mod conformance;
pub mod intruder;
pub mod run;
pub mod sim;
