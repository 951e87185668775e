//! Proofs of Tuyến: a simulated world, real processes on the loopback, benchmarks.

pub mod bench;
pub mod cluster;
pub mod conformance;
pub mod fuzz;
pub mod intruder;
pub mod naive;
pub mod proxy;
pub mod run;
pub mod sim;
