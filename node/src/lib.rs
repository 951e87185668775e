//! The record node of Tuyến: the shell around the pure engine.
//!
//! `daemon` drives the engine and nothing else does; `store` is the only place with SQL; `transport` is QUIC,
//! `ca` certificates; `fhir` reads and writes resources; `backup` puts a node into one file and back; `courier` seals what goes by stick; `admin` is what
//! the CLI and the daemon say to each other.

pub mod admin;
pub mod backup;
pub mod budget;
pub mod ca;
pub mod clock;
pub mod config;
pub mod courier;
pub mod daemon;
pub mod fhir;
pub mod keys;
pub mod process;
pub mod setup;
pub mod store;
pub mod telemetry;
pub mod transport;
