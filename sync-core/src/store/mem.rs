//! The reference store: plain maps in memory, cloned to make a backup.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::{
    attachment::Attachment,
    audit::{Checkup, Damage, Harm, Summary},
    feed::{CHAIN_START, extend_chain},
    id::EntryHash,
    scope::grant::{FOREVER, GrantId, opened_at},
};

#[derive(Debug, Clone)]
struct Row {
    lane: Lane,
    record: RecordId,
    /// None on a row that offers the entry of another row.
    entry: Option<Entry>,
    offers: Option<(Seq, Offered)>,
    src: Option<Position>,
    /// None when it is not known.
    chain: Option<Chain>,
    /// What [`MemStore::rot`] has done to it.
    harm: Option<Harm>,
    /// Of a row that was forgotten the running hash is left.
    forgotten: bool,
    /// How secret it was when it was appended.
    degree: Secrecy,
}

#[derive(Debug, Clone, Default)]
struct RecordRow {
    /// With the first row that could know of it.
    homes: Vec<(OrgId, Seq)>,
    rows: Vec<Seq>,
    changes: BTreeMap<ChangeHash, Seq>,
    secrecy: Secrecy,
    /// The highest of the rows that were made here, and of those that came from elsewhere, by their authors.
    here: Secrecy,
    came: BTreeMap<Vec<u8>, Secrecy>,
    /// With the first row that could know of each.
    grants: BTreeMap<(GrantId, OrgId), (Granted, Seq)>,
    attachments: BTreeMap<Attachment, Content>,
    projected: Option<Projected>,
}

/// What is here of an attachment.
#[derive(Debug, Clone, Default)]
struct Content {
    tree: Option<Tree>,
    pieces: BTreeMap<usize, Vec<u8>>,
    kept: Kept,
}

/// A store in memory. Clone it and you have a copy of the disk.
#[derive(Debug, Clone, Default)]
pub struct MemStore {
    rows: Vec<Row>,
    segments: Vec<Segment>,
    records: BTreeMap<RecordId, RecordRow>,
    read: BTreeMap<(Incarnation, Lane), Progress>,
    reads: u64,
    had_read: BTreeMap<(Lane, Position), Cursor>,
    frontiers: BTreeMap<(Frontier, Lane), Seq>,
    marks: Vec<Mark>,
    announcements: BTreeMap<Incarnation, (Announcement, NodeInfo)>,
    nodes: BTreeMap<NodeId, NodeInfo>,
    revocations: Vec<Revocation>,
    orders: Vec<Order>,
    allowed: Profiles,
    gain: Option<Gain>,
    purge: Option<Purge>,
    leaving: BTreeMap<RecordId, Seq>,
    digests: BTreeMap<OrgId, Digest>,
    folded: Seq,
}

impl Content {
    fn held(&self, attachment: Attachment) -> Held {
        Held { attachment, lacking: attachment.pieces() - self.pieces.len(), kept: self.kept }
    }
}

impl MemStore {
    /// Spoils a piece of content, as a disk may; nothing happens to one that is not here.
    pub fn rot_piece(&mut self, name: &Name, nth: usize) {
        let piece = self.content_mut(name).and_then(|content| content.pieces.get_mut(&nth));
        if let Some(byte) = piece.and_then(|piece| piece.first_mut()) {
            *byte ^= 1;
        }
    }

    /// The content of which something is here.
    pub fn held_content(&self) -> impl Iterator<Item = (Name, Held)> {
        self.contents().filter(|(name, held)| held.lacking < name.attachment.pieces())
    }

    /// The pieces that do not fit their chaining values any more.
    pub fn rotten_pieces(&self) -> Vec<(Name, usize)> {
        let mut rotten = Vec::new();
        for (name, _) in self.contents() {
            let content = self.content(&name).expect("it was found");
            let fits =
                |nth: usize, piece: &[u8]| content.tree.as_ref().is_some_and(|tree| tree.fits(nth, piece));
            let of_it = content.pieces.iter().filter(|(nth, piece)| !fits(**nth, piece));
            rotten.extend(of_it.map(|(nth, _)| (name.clone(), *nth)));
        }
        rotten
    }

    /// All records with what the last fold left of them.
    pub fn records(&self) -> impl Iterator<Item = (&RecordId, Option<&Projected>)> {
        self.records.iter().map(|(id, row)| (id, row.projected.as_ref()))
    }

    /// Takes a row away or spoils its entry, as a disk may. Nothing happens to a row that is no more, or holds no entry.
    pub fn rot(&mut self, seq: Seq, harm: Harm) {
        let row = seq.checked_sub(1).and_then(|i| self.rows.get_mut(i as usize));
        if let Some(row) = row.filter(|row| row.harm.is_none() && row.offers.is_none() && !row.forgotten) {
            row.entry = None;
            row.harm = Some(harm);
            if harm == Harm::Gone {
                (row.chain, row.src) = (None, None);
            }
        }
    }

    /// Takes away all that anybody has announced, as a disk may, and who everybody is or not.
    pub fn lose_announcements(&mut self, who_is_who: bool) {
        self.announcements.clear();
        if who_is_who {
            self.nodes.clear();
        }
    }

    /// Whether the entry can be read here.
    pub fn reads(&self, record: &RecordId, change: &ChangeHash) -> bool {
        let row = self.records.get(record).and_then(|record| record.changes.get(change));
        row.and_then(|row| self.row(*row)).is_some_and(|row| row.entry.is_some())
    }

    /// The check of the whole store.
    pub fn check(&self) -> Checkup {
        let (mut damaged, mut missing) = (Vec::new(), self.digests.clone());
        for (row, stored) in self.rows_after(0) {
            if let Some(entry) = &stored.entry {
                let digest = missing.entry(entry.home().clone()).or_default();
                digest.remove(entry.hash());
            }
            if let Some(harm) = stored.harm {
                let changes = &self.records[&stored.record].changes;
                let change = changes.iter().find(|(_, at)| **at == row).map(|(change, _)| *change);
                damaged.push(Damage { row, harm, record: Some(stored.record.clone()), change });
            }
        }
        missing.retain(|_, digest| *digest != Digest::default());
        Checkup { damaged, missing: missing.into_iter().collect() }
    }

    /// The entries of these homes that can be read and are not more secret than that.
    pub fn summary(&self, homes: &[OrgId], allowed: Secrecy) -> Summary {
        let open = self.rows_after(0).filter(|(_, stored)| self.secrecy_of(stored) <= allowed);
        let rows = open.filter_map(|(row, stored)| Some((stored.entry.as_ref()?, row)));
        Summary::new(rows.filter(|(entry, _)| homes.contains(entry.home())).map(|(e, row)| (e.hash(), row)))
    }

    fn open_grants(&self) -> impl Iterator<Item = (&RecordId, &Granted)> {
        let grants =
            self.records.iter().flat_map(|(id, row)| row.grants.values().map(move |(one, _)| (id, one)));
        grants.filter(|(_, one)| one.over.is_none())
    }

    fn secrecy_of(&self, row: &Row) -> Secrecy {
        // A row that was healed may not know any more that it came from elsewhere.
        let here = if row.src.is_some() { Secrecy::None } else { self.records[&row.record].here };
        here.max(row.degree)
    }

    fn chain_before(&self, seq: Seq) -> Option<Chain> {
        let begins = self.segments.iter().any(|segment| segment.base + 1 == seq);
        if begins { Some(CHAIN_START) } else { self.chain_at(seq - 1) }
    }

    fn heal(&mut self, seq: Seq, entry: &Entry) {
        let chain = self.chain_before(seq).map(|before| extend_chain(before, entry.hash()));
        let record = self.records.get_mut(entry.record()).expect("a record of which a row was is known");
        record.changes.retain(|_, row| *row != seq);
        record.changes.insert(entry.change_hash(), seq);
        for attachment in entry.attachments() {
            record.attachments.entry(attachment).or_default();
        }
        let row = &mut self.rows[seq as usize - 1];
        (row.entry, row.offers, row.harm) = (Some(entry.clone()), None, None);
        (row.lane, row.record, row.chain) = (entry.lane(), entry.record().clone(), chain.or(row.chain));
    }

    fn row(&self, seq: Seq) -> Option<&Row> {
        let row = seq.checked_sub(1).and_then(|i| self.rows.get(i as usize));
        row.filter(|row| !row.forgotten)
    }

    fn chain_at(&self, seq: Seq) -> Option<Chain> {
        let row = seq.checked_sub(1).and_then(|i| self.rows.get(i as usize));
        row.and_then(|row| row.chain)
    }

    fn rows_after(&self, after: Seq) -> impl Iterator<Item = (Seq, &Row)> {
        (1..).zip(&self.rows).skip(after as usize).filter(|(_, row)| !row.forgotten)
    }

    fn rows_there(&self, after: Seq) -> impl Iterator<Item = (Seq, &Row)> {
        self.rows_after(after).filter(|(_, row)| row.harm != Some(Harm::Gone))
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::OpenSegment(segment) => {
                assert_eq!(segment.base, self.rows.len() as Seq, "a segment opens at the end of the feed");
                self.segments.push(*segment);
            }
            Op::RenameSegments(renames) => {
                for (old, new) in renames {
                    let segment = self.segments.iter_mut().find(|s| s.incarnation == *old);
                    *segment.expect("a renamed segment is one's own") = *new;
                }
            }
            Op::Announce(announcement, info) => {
                self.nodes.insert(info.node, info.clone());
                self.announcements.insert(announcement.incarnation, (announcement.clone(), info.clone()));
            }
            // When a row became durable is for people who ask the node's own store.
            Op::Append { entry, src, .. } => self.append(entry, *src),
            Op::Offer { of, to } => {
                let Row { lane, record, entry, .. } = self.row(*of).expect("an offered row exists").clone();
                let hash = entry.expect("an offered row holds an entry").hash();
                let (chain, offers) = (self.next_chain(hash), Some((*of, to.clone())));
                let degree = Secrecy::None;
                let row = Row {
                    entry: None,
                    offers,
                    src: None,
                    chain,
                    harm: None,
                    forgotten: false,
                    degree,
                    lane,
                    record,
                };
                self.rows.push(row);
            }
            Op::Heal { row, entry, .. } => self.heal(*row, entry),
            Op::Recount { home, less } => {
                let digest = self.digests.entry(home.clone()).or_default();
                *digest = digest.without(*less);
            }
            Op::AddHome(record, home) => {
                let next = self.rows.len() as Seq + 1;
                let row = self.records.entry(record.clone()).or_default();
                // The first home is that of all rows, a further one of those that follow.
                let since = if row.homes.is_empty() { 0 } else { next };
                if !row.homes.iter().any(|(known, _)| known == home) {
                    row.homes.push((home.clone(), since));
                }
            }
            Op::Grant(record, granted) => {
                let next = self.rows.len() as Seq + 1;
                let name = (granted.grant.id, granted.grant.to.clone());
                let row = self.records.entry(record.clone()).or_default();
                let (known, _) = row.grants.entry(name).or_insert_with(|| (granted.clone(), next));
                known.over = granted.over.or(known.over);
            }
            Op::Leaving(record, Some(row)) => drop(self.leaving.insert(record.clone(), *row)),
            Op::Leaving(record, None) => drop(self.leaving.remove(record)),
            Op::Read { lane, cursor, brought } => {
                self.reads += 1;
                self.had_read.insert((*lane, cursor.at), *cursor);
                let before = self.read.get(&(cursor.at.segment, *lane)).map_or(0, |known| known.brought_at);
                let brought_at = if *brought { self.reads } else { before };
                let progress = Progress { cursor: *cursor, at: self.reads, brought_at };
                self.read.insert((cursor.at.segment, *lane), progress);
            }
            Op::Reach(which, lane, seq) => {
                self.frontiers.insert((*which, *lane), *seq);
            }
            Op::Mark(mark) => {
                if !self.marks.contains(mark) {
                    self.marks.push(*mark);
                }
            }
            Op::Unmark(mark) => self.marks.retain(|m| m != mark),
            Op::Project(projected) => {
                let row = self.records.entry(projected.record.clone()).or_default();
                let kept = row.projected.take().and_then(|p| p.snapshot);
                let mut projected = projected.clone();
                projected.snapshot = projected.snapshot.or(kept);
                row.projected = Some(projected);
            }
            Op::Folded(seq) => self.folded = *seq,
            Op::Revoke(revocation) => {
                if !self.revocations.contains(revocation) {
                    self.revocations.push(revocation.clone());
                }
            }
            Op::Order(order) => {
                if !self.orders.contains(order) {
                    self.orders.push(order.clone());
                }
            }
            Op::Allow(org, way, upto) => drop(self.allowed.allow(org.clone(), *way, *upto)),
            Op::Gain(gain) => self.gain = *gain,
            Op::Purge(purge) => self.purge = purge.clone(),
            Op::Forget(record) => self.forget(record),
            Op::Tree(name, tree) => {
                if let Some(content) = self.content_mut(name) {
                    content.tree = Some(tree.clone());
                }
            }
            Op::Piece { name, nth, bytes } => {
                if let Some(content) = self.content_mut(name) {
                    content.pieces.insert(*nth, bytes.clone());
                }
            }
            Op::Lose(name, nth) => {
                if let Some(content) = self.content_mut(name) {
                    content.pieces.remove(nth);
                }
            }
            Op::Kept(name, kept) => {
                if let Some(content) = self.content_mut(name) {
                    content.kept = *kept;
                }
            }
        }
    }

    fn content(&self, name: &Name) -> Option<&Content> {
        self.records.get(&name.record)?.attachments.get(&name.attachment)
    }

    fn content_mut(&mut self, name: &Name) -> Option<&mut Content> {
        self.records.get_mut(&name.record)?.attachments.get_mut(&name.attachment)
    }

    fn contents(&self) -> impl Iterator<Item = (Name, Held)> {
        self.records.iter().flat_map(|(record, row)| {
            let held = row.attachments.iter().map(|(attachment, content)| content.held(*attachment));
            held.map(|held| (Name { record: record.clone(), attachment: held.attachment }, held))
        })
    }

    fn forget(&mut self, record: &RecordId) {
        self.records.remove(record);
        self.leaving.remove(record);
        for row in self.rows.iter_mut().filter(|row| row.record == *record) {
            if let Some(entry) = row.entry.take() {
                self.digests.entry(entry.home().clone()).or_default().remove(entry.hash());
            }
            (row.offers, row.src, row.harm, row.forgotten) = (None, None, None, true);
        }
    }

    fn next_chain(&self, hash: EntryHash) -> Option<Chain> {
        self.chain_before(self.rows.len() as Seq + 1).map(|before| extend_chain(before, hash))
    }

    fn append(&mut self, entry: &Entry, src: Option<Position>) {
        assert!(!self.segments.is_empty(), "a row belongs to a segment");
        let seq = self.rows.len() as Seq + 1;
        let record = self.records.entry(entry.record().clone()).or_default();
        let before = record.changes.insert(entry.change_hash(), seq);
        assert!(before.is_none(), "an entry is appended once");
        record.rows.push(seq);
        record.secrecy = record.secrecy.max(entry.secrecy());
        for attachment in entry.attachments() {
            record.attachments.entry(attachment).or_default();
        }
        let degree = match src {
            Some(_) => record.came.entry(entry.origin().author().to_vec()).or_default(),
            None => &mut record.here,
        };
        *degree = entry.secrecy().max(*degree);
        let degree = *degree;
        self.digests.entry(entry.home().clone()).or_default().add(entry.hash());
        let chain = self.next_chain(entry.hash());
        self.rows.push(Row {
            lane: entry.lane(),
            record: entry.record().clone(),
            entry: Some(entry.clone()),
            offers: None,
            src,
            chain,
            harm: None,
            forgotten: false,
            degree,
        });
    }
}

impl Store for MemStore {
    fn tip(&self) -> Result<Seq, StoreError> {
        Ok(self.rows.len() as Seq)
    }

    fn segments(&self) -> Result<Vec<Segment>, StoreError> {
        Ok(self.segments.clone())
    }

    fn chain(&self, at: Seq) -> Result<Option<Chain>, StoreError> {
        Ok(if at == 0 { Some(CHAIN_START) } else { self.chain_at(at) })
    }

    fn heads(&self, lane: Lane, after: Seq, limit: usize) -> Result<Vec<Head>, StoreError> {
        let heads =
            self.rows_there(after).filter(|(_, row)| row.lane == lane).take(limit).map(|(seq, row)| {
                let original = row.offers.as_ref().and_then(|(of, _)| self.row(*of));
                let record = &self.records[&row.record];
                let homes = record.homes.iter().filter(|(_, since)| *since <= seq);
                let grants: Vec<_> = record.grants.values().cloned().collect();
                let holder = original.unwrap_or(row);
                Head {
                    seq,
                    src: holder.src,
                    secrecy: self.secrecy_of(holder),
                    homes: homes.map(|(home, _)| home.clone()).collect(),
                    opened: opened_at(&grants, seq).cloned().collect(),
                    offered_to: row.offers.as_ref().map(|(_, to)| to.clone()),
                    issued: row.record.issuer().is_some(),
                }
            });
        Ok(heads.collect())
    }

    fn entry(&self, seq: Seq) -> Result<Option<Entry>, StoreError> {
        let row = self.row(seq);
        let holder = row.and_then(|r| r.offers.as_ref()).map_or(row, |(of, _)| self.row(*of));
        Ok(holder.and_then(|row| row.entry.clone()))
    }

    fn has(&self, record: &RecordId, change: &ChangeHash) -> Result<bool, StoreError> {
        Ok(self.records.get(record).is_some_and(|row| row.changes.contains_key(change)))
    }

    fn homes(&self, record: &RecordId) -> Result<Vec<OrgId>, StoreError> {
        Ok(self
            .records
            .get(record)
            .map(|row| row.homes.iter().map(|(home, _)| home.clone()).collect())
            .unwrap_or_default())
    }

    fn grants(&self, record: &RecordId) -> Result<Vec<Granted>, StoreError> {
        let grants = self.records.get(record).into_iter().flat_map(|row| row.grants.values());
        Ok(grants.map(|(one, _)| one.clone()).collect())
    }

    fn grants_until(&self, time: i64, limit: usize) -> Result<Vec<(RecordId, Granted)>, StoreError> {
        let due = self.open_grants().filter(|(_, one)| one.grant.until <= time);
        Ok(due.take(limit).map(|(record, one)| (record.clone(), one.clone())).collect())
    }

    fn open_to(&self, org: &OrgId) -> Result<Vec<RecordId>, StoreError> {
        let open: BTreeSet<_> =
            self.open_grants().filter(|(_, one)| one.grant.to == *org).map(|(id, _)| id).collect();
        Ok(open.into_iter().cloned().collect())
    }

    fn grantees(&self) -> Result<Vec<OrgId>, StoreError> {
        let open: BTreeSet<_> = self.open_grants().map(|(_, one)| &one.grant.to).collect();
        Ok(open.into_iter().cloned().collect())
    }

    fn next_grant_end(&self) -> Result<Option<i64>, StoreError> {
        Ok(self.open_grants().map(|(_, one)| one.grant.until).filter(|until| *until < FOREVER).min())
    }

    fn leaving(&self) -> Result<Vec<(RecordId, Seq)>, StoreError> {
        Ok(self.leaving.iter().map(|(record, row)| (record.clone(), *row)).collect())
    }

    fn rows_of(&self, record: &RecordId) -> Result<Vec<Seq>, StoreError> {
        Ok(self.records.get(record).map(|row| row.rows.clone()).unwrap_or_default())
    }

    fn attachments(&self, record: &RecordId) -> Result<Vec<Held>, StoreError> {
        let all = self.records.get(record).into_iter().flat_map(|row| &row.attachments);
        Ok(all.map(|(attachment, content)| content.held(*attachment)).collect())
    }

    fn lacking(&self) -> Result<Vec<Name>, StoreError> {
        Ok(self.contents().filter(|(_, held)| !held.is_whole()).map(|(name, _)| name).collect())
    }

    fn unkept(&self, limit: usize) -> Result<Vec<(Name, Kept)>, StoreError> {
        let whole = self.contents().filter(|(name, held)| {
            held.is_whole() && held.kept < Kept::Root && self.records[&name.record].secrecy == Secrecy::None
        });
        let mut all: Vec<_> = whole.map(|(name, held)| (name, held.kept)).collect();
        all.sort_by_key(|(_, kept)| *kept);
        all.truncate(limit);
        Ok(all)
    }

    fn missing(&self, name: &Name) -> Result<Vec<usize>, StoreError> {
        let Some(content) = self.content(name) else { return Ok(Vec::new()) };
        Ok((0..name.attachment.pieces()).filter(|nth| !content.pieces.contains_key(nth)).collect())
    }

    fn tree(&self, name: &Name) -> Result<Option<Tree>, StoreError> {
        Ok(self.content(name).and_then(|content| content.tree.clone()))
    }

    fn piece(&self, name: &Name, nth: usize) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.content(name).and_then(|content| content.pieces.get(&nth).cloned()))
    }

    fn secrecy(&self, record: &RecordId) -> Result<Secrecy, StoreError> {
        Ok(self.records.get(record).map(|row| row.secrecy).unwrap_or_default())
    }

    fn secret_rows(&self) -> Result<Vec<(Seq, Secrecy)>, StoreError> {
        let holds = self.rows_there(0).filter(|(_, row)| row.offers.is_none());
        let degrees = holds.map(|(seq, row)| (seq, self.secrecy_of(row)));
        Ok(degrees.filter(|(_, degree)| *degree != Secrecy::None).collect())
    }

    fn allowed(&self) -> Result<Profiles, StoreError> {
        Ok(self.allowed.clone())
    }

    fn read(&self, lane: Lane, segment: Incarnation) -> Result<Option<Progress>, StoreError> {
        Ok(self.read.get(&(segment, lane)).copied())
    }

    fn read_before(&self, lane: Lane, at: Position) -> Result<Option<Cursor>, StoreError> {
        let from = (lane, Position { pos: 0, ..at });
        Ok(self.had_read.range(from..=(lane, at)).next_back().map(|(_, cursor)| *cursor))
    }

    fn read_of_node(&self, node: NodeId) -> Result<Vec<(Lane, Cursor)>, StoreError> {
        let of_node = |segment: &Incarnation| {
            self.announcements.get(segment).is_some_and(|(_, info)| info.node == node)
        };
        let newest = |lane: Lane| {
            let cursors = self.read.iter().filter(|((segment, l), _)| *l == lane && of_node(segment));
            cursors.max_by_key(|(_, known)| known.at).map(|(_, known)| (lane, known.cursor))
        };
        Ok(Lane::ALL.into_iter().filter_map(newest).collect())
    }

    fn frontier(&self, which: Frontier, lane: Lane) -> Result<Seq, StoreError> {
        Ok(self.frontiers.get(&(which, lane)).copied().unwrap_or(0))
    }

    fn marks(&self) -> Result<Vec<Mark>, StoreError> {
        let mut marks = self.marks.clone();
        marks.sort();
        Ok(marks)
    }

    fn announcement(&self, incarnation: Incarnation) -> Result<Option<(Announcement, NodeInfo)>, StoreError> {
        Ok(self.announcements.get(&incarnation).cloned())
    }

    fn announcement_of(&self, org: &OrgId) -> Result<Option<Announcement>, StoreError> {
        Ok(self
            .announcements
            .values()
            .find(|(_, info)| info.place.org() == org)
            .map(|(found, _)| found.clone()))
    }

    fn nodes(&self) -> Result<Vec<NodeInfo>, StoreError> {
        Ok(self.nodes.values().cloned().collect())
    }

    fn revocations(&self) -> Result<Vec<Revocation>, StoreError> {
        Ok(self.revocations.clone())
    }

    fn orders(&self) -> Result<Vec<Order>, StoreError> {
        Ok(self.orders.clone())
    }

    fn gain(&self) -> Result<Option<Gain>, StoreError> {
        Ok(self.gain)
    }

    fn purge(&self) -> Result<Option<Purge>, StoreError> {
        Ok(self.purge.clone())
    }

    fn digests(&self) -> Result<Vec<(OrgId, Digest)>, StoreError> {
        Ok(self.digests.iter().map(|(home, digest)| (home.clone(), *digest)).collect())
    }

    fn folded(&self) -> Result<Seq, StoreError> {
        Ok(self.folded)
    }

    fn unfolded(&self, after: Seq, limit: usize) -> Result<Vec<(Seq, RecordId)>, StoreError> {
        let held = self.rows_there(after).filter(|(_, row)| row.offers.is_none());
        Ok(held.take(limit).map(|(seq, row)| (seq, row.record.clone())).collect())
    }

    fn projected(&self, record: &RecordId) -> Result<Option<Projected>, StoreError> {
        Ok(self.records.get(record).and_then(|row| row.projected.clone()))
    }
}

impl StoreMut for MemStore {
    fn commit(&mut self, batch: &[Op]) -> Result<(), StoreError> {
        batch.iter().for_each(|op| self.apply(op));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{change::opaque_chunk, id::Incarnation, time::Stamp};

    #[test]
    fn a_row_rots_once_and_what_only_offers_it_with_it() {
        let run = Incarnation([1; 16]);
        let [dv, hg] = ["dv", "hg"].map(|org| OrgId::new(org).unwrap());
        let chunk = opaque_chunk(run, 1, &[], Stamp(1), b"x");
        let entry = Entry::new("Basic/1".parse().unwrap(), dv, Lane::Normal, chunk).unwrap();
        let mut store = MemStore::default();
        let append = Op::Append { entry: entry.clone(), src: None, at: 0 };
        let segment = Segment { incarnation: run, base: 0, parent: None };
        store
            .commit(&[Op::OpenSegment(segment), append, Op::Offer { of: 1, to: Offered::Home(hg) }])
            .unwrap();
        let reads = |store: &MemStore| store.reads(entry.record(), &entry.change_hash());
        let harm = |store: &MemStore| {
            store.check().damaged.iter().map(|one| (one.row, one.harm)).collect::<Vec<_>>()
        };
        store.rot(2, Harm::Damaged);
        assert_eq!((harm(&store), reads(&store)), (vec![], true));
        store.rot(1, Harm::Damaged);
        assert_eq!((harm(&store), reads(&store)), (vec![(1, Harm::Damaged)], false));
        assert_eq!(store.entry(2).unwrap(), None);
        store.rot(1, Harm::Gone);
        assert_eq!(harm(&store), [(1, Harm::Damaged)]);
    }
}
