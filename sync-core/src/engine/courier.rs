//! Courier bundles: what this node writes into one for a neighbour, and what it takes of one.
//!
//! A bundle is one direction of a session: orders, revocations, announcements, HELLO, receipts, batches, attachments. Whoever writes one
//! changes nothing of the engine ([`Engine::export`]); whoever takes one answers nobody. An acknowledgement in a bundle is the HELLO of
//! a reader, whose cursors are durable. Not here: how a bundle is written, sealed and signed.

use super::*;
use crate::{
    bundle::ContentPlaces,
    feed::{CHAIN_START, Lineage},
    scope,
    session::{Resolved, resolve},
};

pub use self::{contents::Told, give::Export, take::Imported};

pub(super) use self::take::Import;

mod contents;
mod give;
mod take;

/// From where a bundle goes on.
#[derive(Debug, Clone, Copy)]
pub enum Since<'a> {
    /// From the beginning of the feed.
    Start,
    /// From the furthest of these places and of what this node itself knows the neighbour to have; without any, from the
    /// beginning.
    Known(&'a [Vec<(Lane, Cursor)>]),
}

/// What a host knows of a neighbour by the bundles that were made for it and taken from it.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    /// Where the last one for it ended.
    pub last: Vec<(Lane, Cursor)>,
    /// The end of its feed, when it has said that it knows less of it than this node has read.
    pub restored: Option<Option<Position>>,
    /// What it has said of attachments.
    pub told: Told,
    /// Up to which byte it was given each attachment, for a bundle that goes on from there.
    pub given: ContentPlaces,
}

/// A parent stands directly above; whoever does not is looked at as a child.
fn direction_of(own: &OrgPath, peer: &OrgPath) -> Direction {
    if own.parent().as_ref() == Some(peer) { Direction::Up } else { Direction::Down }
}

/// The lineage that ends at this place; none when not all of it is announced here.
fn walk(tip: Option<Position>, store: &impl Store) -> Result<Option<Lineage>, StoreError> {
    let parent =
        |segment| Ok(store.announcement(segment)?.map(|(known, _)| known.parent.map(Position::from)));
    Ok(Lineage::walk::<StoreError>(tip, parent)?.ok())
}
