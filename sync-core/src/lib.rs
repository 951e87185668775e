//! Pure sync logic.

pub mod id;
pub mod time;
