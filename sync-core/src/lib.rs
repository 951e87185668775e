//! Pure sync logic.

pub mod change;
pub mod codec;
pub mod conflict;
pub mod engine;
pub mod feed;
pub mod fold;
pub mod id;
pub mod identity;
pub mod record;
pub mod scope;
pub mod session;
pub mod store;
pub mod time;
pub mod wire;
