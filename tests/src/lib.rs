//! Proofs of Tuyến: a simulated world, real processes on the loopback, benchmarks.

#[cfg(feature = "processes")]
pub mod bench;
pub mod bytes;
#[cfg(feature = "processes")]
pub mod cluster;
pub mod conformance;
#[cfg(feature = "processes")]
pub mod disk;
#[cfg(feature = "processes")]
pub mod fuzz;
pub mod hostile;
#[cfg(feature = "processes")]
pub mod intruder;
pub mod naive;
#[cfg(feature = "processes")]
pub mod proxy;
#[cfg(feature = "processes")]
pub mod run;
pub mod sim;
