//! Pure sync logic.

pub mod id;
pub mod identity;
pub mod time;
