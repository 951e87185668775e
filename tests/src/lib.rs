//! x

pub mod conformance;
