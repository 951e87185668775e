//! The record node.

pub mod admin;
pub mod ca;
pub mod config;
pub mod fhir;
pub mod keys;
pub mod transport;
