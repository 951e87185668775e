//! x
pub mod fhir;
