//! Pure sync logic.

pub mod conflict;
pub mod id;
pub mod record;
pub mod time;
