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
    session::{Resolved, newest_in, resolve, stands, walk},
    wire::POSITION_MAX,
};

pub use self::{contents::Told, give::Export, take::Imported};

pub(super) use self::take::Import;

mod contents;
mod give;
mod take;

/// From where a bundle goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// From the beginning of the feed.
    Start,
    /// From where the neighbour is known to be: by what it has said in bundles, and by what this node itself knows.
    Acknowledged,
    /// From there, or from where the last bundle for it ended, if that is further.
    Last,
}

/// What a host knows of a neighbour by the bundles that were made for it and taken from it. It keeps what changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// How far it has read this node's feed.
    pub has: Vec<(Lane, Cursor)>,
    /// Where the last bundle for it ended.
    pub last: Vec<(Lane, Cursor)>,
    /// The end of its feed, when it has said that it knows less of it than this node has read.
    pub restored: Option<Option<Position>>,
    /// By that it came back from a backup, and did not only speak before this node has read on.
    pub returned: bool,
    /// It took this node to have read what this node has not. It is told so.
    pub lost: bool,
    /// What it has said of attachments.
    pub told: Told,
    /// Up to which byte it was given each attachment, for a bundle that goes on from there.
    pub given: ContentPlaces,
}

impl Heard {
    /// A bundle of it has been taken that was made after all others.
    pub fn hears(&mut self, imported: &Imported) {
        self.has.clone_from(&imported.cursors);
        self.restored = (imported.older || imported.behind).then_some(imported.tip);
        self.returned = imported.returned;
        self.lost = !imported.gaps.is_empty();
        self.told.clone_from(&imported.told);
    }
}

/// A parent stands directly above; whoever does not is looked at as a child.
fn direction_of(own: &OrgPath, peer: &OrgPath) -> Direction {
    if own.parent().as_ref() == Some(peer) { Direction::Up } else { Direction::Down }
}

/// Where this node stands in the feed of a neighbour that has come back from a backup and ends at `tip`: by lane the newest place
/// that both know, or where it has stood by now, if it has read past that end since. A place beyond any in a run tells the
/// neighbour to give that run another name, because somebody else may have written in it: see [`newest_in`].
fn stands_in(
    read: &[(Lane, Cursor)],
    tip: Option<Position>,
    run: Option<Incarnation>,
    store: &impl Store,
) -> Result<Vec<(Lane, Cursor)>, StoreError> {
    let lineage = walk(tip, store)?.unwrap_or_default();
    let mut stands = newest_in(tip, run, store)?;
    for (lane, cursor) in &mut stands {
        let current = of_lane(read, *lane);
        let known = walk(current.map(|current| current.at), store)?.unwrap_or_default();
        if let Some(current) = current.filter(|_| tip.is_some_and(|tip| known.covers(tip))) {
            *cursor = current;
        } else if !lineage.covers(cursor.at) {
            *cursor = Cursor { at: Position { pos: POSITION_MAX, ..cursor.at }, chain: None };
        }
    }
    Ok(stands)
}

fn of_lane(cursors: &[(Lane, Cursor)], lane: Lane) -> Option<Cursor> {
    cursors.iter().find(|(of, _)| *of == lane).map(|(_, cursor)| *cursor)
}
