//! Pure sync logic.

pub mod change;
pub mod codec;
pub mod feed;
pub mod id;
pub mod identity;
pub mod scope;
pub mod store;
pub mod time;
