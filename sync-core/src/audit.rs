//! Audit: what two neighbours compare, without saying which entries they hold, and what a check of a store has found.
//!
//! Entries are compared by their hashes. A [`Summary`] has those that a node really holds: each worked out from its row,
//! and none of a row that does not come to its running hash. It answers for a [`Prefix`] of hashes with sixteen digests,
//! one for each next nibble, or with the first eight bytes of each hash when there are few. Whoever asks goes down where
//! the two differ. Not here: when that is done and what follows; see `engine/audit.rs`.

use std::collections::BTreeSet;

use crate::{
    feed::{Digest, Seq},
    id::{ChangeHash, EntryHash, OrgId, RecordId},
};

/// A range with so few entries is answered with their hashes.
pub const LIST_MAX: usize = 16;
/// Longest prefix, in nibbles: one less than a [`Short`] has.
pub const DEPTH_MAX: u8 = 15;

/// What is wrong with a row of the feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// It is not there.
    Gone,
    /// Its entry is not the one that was written.
    Damaged,
    /// Its entry is the one that was written, and what stands beside it is wrong.
    Misfiled,
}

/// A row that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The row.
    pub row: Seq,
    /// What is wrong with it.
    pub harm: Harm,
    /// Its record, if that is known.
    pub record: Option<RecordId>,
    /// The change that it held, if that is known.
    pub change: Option<ChangeHash>,
}

/// What a check of the whole store has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checkup {
    /// The rows that are not as they were written.
    pub damaged: Vec<Damage>,
    /// For each home what its digest counts and no row holds.
    pub missing: Vec<(OrgId, Digest)>,
}

/// The first eight bytes of an entry's hash.
pub type Short = u64;

/// The first nibbles of a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    nibbles: u8,
    /// The nibbles, and zeros behind them.
    bits: Short,
}

impl Prefix {
    /// That of all hashes.
    pub const ALL: Prefix = Prefix { nibbles: 0, bits: 0 };

    /// The first `nibbles` nibbles of these bits; none when there are more of them than there may be, or bits behind
    /// them.
    pub fn new(nibbles: u8, bits: Short) -> Option<Self> {
        let rest = bits.checked_shl(u32::from(nibbles) * 4).unwrap_or(0);
        (nibbles <= DEPTH_MAX && rest == 0).then_some(Self { nibbles, bits })
    }

    /// How many nibbles it has.
    pub fn nibbles(self) -> u8 {
        self.nibbles
    }

    /// The nibbles, and zeros behind them.
    pub fn bits(self) -> Short {
        self.bits
    }

    /// With one more nibble; none when it has as many as it may.
    pub fn child(self, nibble: u8) -> Option<Self> {
        let shift = 60u32.checked_sub(u32::from(self.nibbles) * 4)?;
        Self::new(self.nibbles + 1, self.bits | u64::from(nibble) << shift)
    }

    /// The last hash with this prefix.
    fn last(self) -> Short {
        self.bits | Short::MAX.checked_shr(u32::from(self.nibbles) * 4).unwrap_or(0)
    }
}

/// A digest on the wire: the sum's last eight bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Part {
    /// Number of entries.
    pub count: u64,
    /// Sum of the first sixteen bytes of their hashes, modulo 2^64.
    pub sum: u64,
}

/// What a node says of the entries with a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Range {
    /// For each next nibble a digest.
    Parts(Box<[Part; 16]>),
    /// The hashes, in order.
    Hashes(Vec<Short>),
}

/// The entries that a node really holds, of some homes, with their rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary(Vec<(u128, Seq)>);

impl Summary {
    /// The summary of these entries.
    pub fn new(entries: impl IntoIterator<Item = (EntryHash, Seq)>) -> Self {
        let head = |hash: EntryHash| u128::from_be_bytes(hash.0[..16].try_into().expect("sixteen bytes"));
        let mut all: Vec<_> = entries.into_iter().map(|(hash, row)| (head(hash), row)).collect();
        all.sort_unstable();
        Self(all)
    }

    /// The same without some rows.
    pub fn without(mut self, rows: &BTreeSet<Seq>) -> Self {
        self.0.retain(|(_, row)| !rows.contains(row));
        self
    }

    fn within(&self, prefix: Prefix) -> &[(u128, Seq)] {
        let from = self.0.partition_point(|(hash, _)| short(*hash) < prefix.bits);
        let to = self.0.partition_point(|(hash, _)| short(*hash) <= prefix.last());
        &self.0[from..to]
    }

    /// The rows of the entries with a prefix, with their hashes.
    pub fn rows(&self, prefix: Prefix) -> impl Iterator<Item = (Short, Seq)> {
        self.within(prefix).iter().map(|(hash, row)| (short(*hash), *row))
    }

    /// The row of an entry.
    pub fn find(&self, hash: Short) -> Option<Seq> {
        let at = self.0.partition_point(|(known, _)| short(*known) < hash);
        self.0.get(at).filter(|(known, _)| short(*known) == hash).map(|(_, row)| *row)
    }

    /// A digest for each next nibble.
    pub fn parts(&self, prefix: Prefix) -> [Part; 16] {
        let mut parts = [Part::default(); 16];
        let shift = 60 - u32::from(prefix.nibbles) * 4;
        for (hash, _) in self.within(prefix) {
            let part = &mut parts[(short(*hash) >> shift & 15) as usize];
            part.count += 1;
            part.sum = part.sum.wrapping_add(*hash as u64);
        }
        parts
    }

    /// What is answered for a prefix.
    pub fn range(&self, prefix: Prefix) -> Range {
        let few = self.within(prefix).len() <= LIST_MAX || prefix.nibbles == DEPTH_MAX;
        if few {
            let hashes = self.rows(prefix).map(|(hash, _)| hash);
            Range::Hashes(hashes.take(LIST_MAX).collect())
        } else {
            Range::Parts(Box::new(self.parts(prefix)))
        }
    }
}

fn short(hash: u128) -> Short {
    (hash >> 64) as Short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u64) -> EntryHash {
        use sha2::Digest;
        EntryHash(sha2::Sha256::digest(n.to_be_bytes()).into())
    }

    fn summary(entries: impl IntoIterator<Item = u64>) -> Summary {
        Summary::new(entries.into_iter().map(|n| (hash(n), n)))
    }

    #[test]
    fn a_prefix_has_one_form() {
        let deep = Prefix::new(15, 0x1234_5678_9abc_def0).unwrap();
        assert_eq!((deep.child(1), deep.last()), (None, 0x1234_5678_9abc_deff));
        assert_eq!(Prefix::new(15, 1), None);
        assert_eq!(Prefix::new(16, 0), None);
        assert_eq!(Prefix::new(0, 1 << 63), None);
        assert_eq!(Prefix::new(1, 1 << 63), Prefix::ALL.child(8));
        assert_eq!(Prefix::ALL.last(), Short::MAX);
        assert_eq!(Prefix::ALL.child(15).unwrap().child(2).unwrap().bits(), 0xf2 << 56);
    }

    #[test]
    fn parts_are_those_of_the_ranges_below() {
        let all = summary(0..1000);
        for prefix in [Prefix::ALL, Prefix::ALL.child(3).unwrap()] {
            let parts = all.parts(prefix);
            for (nibble, part) in (0..16).zip(parts) {
                let below: Vec<_> = all.rows(prefix.child(nibble).unwrap()).collect();
                assert_eq!(part.count, below.len() as u64);
                assert!(below.iter().all(|(hash, row)| all.find(*hash) == Some(*row)));
                let sum = below.iter().map(|(_, row)| {
                    u64::from_be_bytes(super::tests::hash(*row).0[8..16].try_into().unwrap())
                });
                assert_eq!(part.sum, sum.fold(0, u64::wrapping_add));
            }
            assert_eq!(parts.iter().map(|part| part.count).sum::<u64>(), all.rows(prefix).count() as u64);
        }
        assert_eq!(all.find(5), None);
    }

    #[test]
    fn the_ends_of_a_prefix_are_within_it() {
        let prefix = Prefix::new(1, 0xa << 60).unwrap();
        for (first, within) in [(0x9f, false), (0xa0, true), (0xaf, true), (0xb0, false)] {
            let rest = if first & 15 == 0 { 0 } else { 0xff };
            let mut hash = [rest; 32];
            hash[0] = first;
            let all = Summary::new([(EntryHash(hash), 1)]);
            assert_eq!(all.rows(prefix).count(), usize::from(within), "{first:x}");
        }
    }

    #[test]
    fn few_entries_are_listed() {
        assert_eq!(summary([]).range(Prefix::ALL), Range::Hashes(Vec::new()));
        let Range::Hashes(listed) = summary(0..LIST_MAX as u64).range(Prefix::ALL) else { panic!("listed") };
        assert!(listed.len() == LIST_MAX && listed.is_sorted());
        let more = summary(0..=LIST_MAX as u64);
        assert_eq!(more.range(Prefix::ALL), Range::Parts(Box::new(more.parts(Prefix::ALL))));
    }
}
