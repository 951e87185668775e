//! Feeds: the order in which entries became durable at a node, and how far a neighbour has read it.
//!
//! A feed is a list of segments, one for each run of the node's process that wrote something. Inside a node a
//! row of the feed is found by its `Seq`, which counts over all segments; between nodes by a [`Position`], the
//! segment's name and a number from 1. Positions are never used twice, because every process start opens a new
//! segment. That one rule makes a restored copy an ordinary case: its [`Lineage`] shows which part of what a
//! neighbour has read the copy no longer knows, and the neighbour offers exactly that part back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::id::{Chain, EntryHash, Incarnation};

/// A row of this node's own feed, counted from 1 over all segments.
pub type Seq = u64;

/// A place in some node's feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// The segment.
    pub segment: Incarnation,
    /// The row in the segment, from 1; 0 is "before the first".
    pub pos: u64,
}

impl From<(Incarnation, u64)> for Position {
    fn from((segment, pos): (Incarnation, u64)) -> Self {
        Self { segment, pos }
    }
}

/// A place in a feed, with the running hash of the segment up to it where the reader knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The place.
    pub at: Position,
    /// The segment's running hash at that place. None when the reader falls back to an earlier place than the
    /// one it had reached.
    pub chain: Option<Chain>,
}

/// How far a node has read a segment in one lane, and since when. Times are counted in cursors that it had advanced
/// by then, of any segment and lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The most recent place, which need not be the furthest.
    pub cursor: Cursor,
    /// When that was.
    pub at: u64,
    /// When it last came with entries that were new; 0 when it never has.
    pub brought_at: u64,
}

/// One segment of this node's own feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Its name.
    pub incarnation: Incarnation,
    /// The `Seq` before its first row: row `pos` of the segment is `base + pos`.
    pub base: Seq,
    /// The end of the segment before it.
    pub parent: Option<Position>,
}

/// The running hash before the first row of a segment.
pub const CHAIN_START: Chain = Chain([0; 16]);

/// The running hash after one more row: the first 16 bytes of SHA-256 over the hash before and the entry's hash.
pub fn extend_chain(before: Chain, entry: EntryHash) -> Chain {
    let mut hasher = Sha256::new();
    hasher.update(before.0);
    hasher.update(entry.0);
    let digest: [u8; 32] = hasher.finalize().into();
    Chain(digest[..16].try_into().expect("sixteen bytes"))
}

/// Which part of which segments a node still knows to be its own: for each segment the last position, and how
/// many of the segments come before it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lineage(BTreeMap<Incarnation, (u64, usize)>);

impl Lineage {
    /// The lineage that ends at `tip`. `parent` tells the parent of a segment: `None` when the segment is not
    /// known, `Some(None)` when it has no parent. `Err` names the first segment that is not known.
    pub fn walk<E>(
        tip: Option<Position>,
        mut parent: impl FnMut(Incarnation) -> Result<Option<Option<Position>>, E>,
    ) -> Result<Result<Self, Incarnation>, E> {
        let mut path: Vec<Position> = Vec::new();
        let mut next = tip;
        while let Some(at) = next {
            if path.iter().any(|known| known.segment == at.segment) {
                break;
            }
            path.push(at);
            match parent(at.segment)? {
                Some(above) => next = above,
                None => return Ok(Err(at.segment)),
            }
        }
        let oldest_first = path.into_iter().rev().enumerate();
        Ok(Ok(Self(oldest_first.map(|(order, at)| (at.segment, (at.pos, order))).collect())))
    }

    /// Whether the node still knows this place of its feed.
    pub fn covers(&self, at: Position) -> bool {
        self.0.get(&at.segment).is_some_and(|&(last, _)| at.pos <= last)
    }

    /// Of two places of the feed the later is greater.
    pub fn order(&self, at: Position) -> Option<(usize, u64)> {
        self.0.get(&at.segment).map(|&(_, order)| (order, at.pos))
    }

    /// Its segments, in no order.
    pub fn segments(&self) -> impl Iterator<Item = Incarnation> {
        self.0.keys().copied()
    }

    /// The node has written on, up to `at`.
    pub fn extend(&mut self, at: Position) {
        let order = self.0.len();
        let (last, _) = self.0.entry(at.segment).or_insert((0, order));
        *last = (*last).max(at.pos);
    }
}

/// An additive digest of a set of entries: the sum of their hashes modulo 2^128, with their number. Equal sets
/// have equal digests in any order; unlike XOR, a repeated entry does not cancel itself out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest {
    /// Sum of the first 16 bytes of each entry's hash, big-endian, modulo 2^128.
    pub sum: u128,
    /// Number of entries.
    pub count: u64,
}

impl Digest {
    /// Adds one entry.
    pub fn add(&mut self, entry: EntryHash) {
        let head = u128::from_be_bytes(entry.0[..16].try_into().expect("sixteen bytes"));
        self.sum = self.sum.wrapping_add(head);
        self.count = self.count.wrapping_add(1);
    }

    /// Takes one entry away that it has.
    pub fn remove(&mut self, entry: EntryHash) {
        let mut one = Digest::default();
        one.add(entry);
        *self = self.without(one);
    }

    /// What is left when all entries of another set, which it has, are taken away. Of one that it has not the difference
    /// is as good: what is added to it again is right.
    pub fn without(self, other: Digest) -> Digest {
        Digest { sum: self.sum.wrapping_sub(other.sum), count: self.count.wrapping_sub(other.count) }
    }

    /// Adds all entries of another, disjoint set.
    pub fn merge(&mut self, other: Digest) {
        self.sum = self.sum.wrapping_add(other.sum);
        self.count = self.count.wrapping_add(other.count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(segment: u8, pos: u64) -> Position {
        Position { segment: Incarnation([segment; 16]), pos }
    }

    #[test]
    fn a_restored_copy_no_longer_covers_what_it_lost() {
        let parents = |s: Incarnation| match s.0[0] {
            1 => Ok::<_, ()>(Some(None)),
            2 => Ok(Some(Some(at(1, 9)))),
            3 => Ok(Some(Some(at(2, 30)))),
            _ => Ok(None),
        };
        let lineage = Lineage::walk(Some(at(3, 4)), parents).unwrap().unwrap();
        assert!(lineage.covers(at(2, 30)) && lineage.covers(at(1, 9)) && lineage.covers(at(3, 4)));
        assert!(!lineage.covers(at(2, 31)) && !lineage.covers(at(3, 5)) && !lineage.covers(at(4, 1)));
        assert_eq!(Lineage::walk(Some(at(5, 1)), parents).unwrap(), Err(at(5, 1).segment));
        assert_eq!(Lineage::walk(None, parents).unwrap(), Ok(Lineage::default()));
    }

    #[test]
    fn places_of_a_lineage_have_an_order_and_go_on() {
        let mut lineage = Lineage::default();
        for place in [at(9, 5), at(1, 2), at(1, 7), at(9, 3)] {
            lineage.extend(place);
        }
        assert!(lineage.covers(at(9, 5)) && lineage.covers(at(1, 7)) && !lineage.covers(at(1, 8)));
        let order = |place| lineage.order(place);
        assert!(order(at(9, 5)) < order(at(1, 1)) && order(at(1, 1)) < order(at(1, 2)));
        assert_eq!(order(at(3, 1)), None);
        // A parent that leads back to its child ends the walk.
        let round = |s: Incarnation| Ok::<_, ()>(Some(Some(at(3 - s.0[0], 1))));
        assert!(Lineage::walk(Some(at(1, 4)), round).unwrap().unwrap().covers(at(2, 1)));
    }

    #[test]
    fn digests_of_disjoint_sets_add_up() {
        let entries = [EntryHash([200; 32]), EntryHash([255; 32]), EntryHash([3; 32])];
        let of = |some: &[EntryHash]| {
            let mut digest = Digest::default();
            some.iter().for_each(|entry| digest.add(*entry));
            digest
        };
        let mut sum = of(&entries[..2]);
        sum.merge(of(&entries[2..]));
        assert_eq!((sum, sum.count), (of(&entries), 3));
        assert_eq!(sum.without(of(&entries[..2])), of(&entries[2..]));
        sum.remove(entries[1]);
        assert_eq!(sum, of(&[entries[0], entries[2]]));
        let mut less = Digest::default().without(of(&entries));
        entries.iter().for_each(|entry| less.add(*entry));
        assert_eq!(less, Digest::default());
    }

    #[test]
    fn digests_are_of_sets_and_count() {
        let (a, b) = (EntryHash([200; 32]), EntryHash([255; 32]));
        let mut one = Digest::default();
        one.add(a);
        one.add(b);
        let mut two = Digest::default();
        two.add(b);
        two.add(a);
        assert_eq!(one, two);
        two.add(a);
        two.add(a);
        assert_ne!(one.sum, two.sum);
    }
}
