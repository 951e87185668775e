//! Folding: from the entries of a record to what people see of it.
//!
//! A node appends the entries that arrive without opening them, and folds them into the projection behind. What
//! is folded is a function of the entries alone, so the projection can be thrown away and made again. An entry
//! whose dependencies are not here yet waits; an entry that cannot be applied is kept and named; neither holds
//! up any other record.

use std::collections::BTreeSet;

use crate::{
    change::Entry,
    conflict::{self, Conflict, Policies},
    feed::Seq,
    id::RecordId,
    record::{Applied, Record, RecordError},
    store::{Op, Projected, Store, StoreError},
};

/// A new snapshot is kept when so many changes have been applied on top of the last one: a snapshot of 100
/// changes loads almost three times as fast as its changes.
pub const SNAPSHOT_AFTER_CHANGES: usize = 16;

/// A record with all entries that the store has of it.
pub struct Opened {
    /// The record.
    pub record: Record,
    waiting: Vec<Seq>,
    unreadable: Vec<(Seq, String)>,
    since_snapshot: usize,
    last: Seq,
}

impl Opened {
    /// Loads a record: its snapshot, then every entry that is not in it.
    pub fn load(store: &impl Store, id: &RecordId) -> Result<Self, StoreError> {
        let before = store.projected(id)?;
        let snapshot = before.as_ref().and_then(|before| before.snapshot.as_ref());
        let loaded = snapshot.and_then(|(seq, bytes)| Some((*seq, Record::load(id.clone(), bytes).ok()?)));
        let (from, record) = loaded.unwrap_or_else(|| (0, Record::new(id.clone())));
        let left: BTreeSet<Seq> = before
            .iter()
            .flat_map(|before| before.waiting.iter().chain(before.unreadable.iter().map(|(seq, _)| seq)))
            .copied()
            .collect();
        let mut opened =
            Self { record, waiting: Vec::new(), unreadable: Vec::new(), since_snapshot: 0, last: from };
        let mut pending = Vec::new();
        for seq in store.rows_of(id)?.into_iter().filter(|seq| *seq > from || left.contains(seq)) {
            let entry = store.entry(seq)?;
            pending.push((seq, entry.ok_or_else(|| StoreError(format!("row {seq} has no entry")))?));
        }
        opened.take(pending);
        Ok(opened)
    }

    /// Applies entries until no more can be: a dependency may stand behind what needs it.
    fn take(&mut self, mut pending: Vec<(Seq, Entry)>) {
        loop {
            let mut left = Vec::new();
            let before = pending.len();
            for (seq, entry) in pending {
                match self.record.apply(entry.change()) {
                    Ok(Applied::Waiting(_)) => left.push((seq, entry)),
                    Ok(Applied::New | Applied::Duplicate) => {
                        self.since_snapshot += 1;
                        self.last = self.last.max(seq);
                    }
                    Err(error) => self.unreadable.push((seq, error.to_string())),
                }
            }
            if left.is_empty() || left.len() == before {
                self.waiting = left.into_iter().map(|(seq, _)| seq).collect();
                return;
            }
            pending = left;
        }
    }

    /// What people see of the record now. `unwritten` changes were made on it and are not in the store yet.
    pub fn project(&self, unwritten: usize) -> Projected {
        let folded = self.record.fold();
        let due = unwritten == 0 && self.since_snapshot >= SNAPSHOT_AFTER_CHANGES;
        let mut projected =
            project(self.record.id(), self.record.version(), folded.resource, &folded.conflicts);
        projected.waiting = self.waiting.clone();
        projected.unreadable = self.unreadable.clone();
        projected.snapshot = due.then(|| (self.last, self.record.save()));
        projected
    }
}

fn project(id: &RecordId, version: String, resource: Option<String>, conflicts: &[Conflict]) -> Projected {
    let open = conflict::open(conflicts).count();
    Projected {
        record: id.clone(),
        resource,
        version,
        conflicts: (open > 0).then(|| serde_json::to_string(conflicts).expect("conflicts are plain data")),
        open_conflicts: u32::try_from(open).unwrap_or(u32::MAX),
        waiting: Vec::new(),
        unreadable: Vec::new(),
        snapshot: None,
    }
}

/// The next step of folding: at most `limit` rows. None when every row is folded.
pub fn next(store: &impl Store, limit: usize) -> Result<Option<Vec<Op>>, StoreError> {
    let after = store.folded()?;
    let tip = store.tip()?;
    if after >= tip {
        return Ok(None);
    }
    let rows = store.unfolded(after, limit)?;
    let last = if rows.len() < limit { tip } else { rows.last().map_or(tip, |(seq, _)| *seq) };
    let mut ops = Vec::new();
    let mut done = BTreeSet::new();
    for (_, record) in rows {
        if done.insert(record.clone()) {
            ops.push(Op::Project(fold_record(store, &record)?));
        }
    }
    ops.push(Op::Folded(last));
    Ok(Some(ops))
}

fn fold_record(store: &impl Store, id: &RecordId) -> Result<Projected, StoreError> {
    if let Some(projected) = fold_new(store, id)? {
        return Ok(projected);
    }
    Ok(Opened::load(store, id)?.project(0))
}

/// A record whose only entry is the one that created it needs no document: most records are never edited.
fn fold_new(store: &impl Store, id: &RecordId) -> Result<Option<Projected>, StoreError> {
    let rows = store.rows_of(id)?;
    let [only] = rows[..] else { return Ok(None) };
    let Some(entry) = store.entry(only)?.filter(|entry| entry.deps().is_empty()) else { return Ok(None) };
    let folded: Result<_, RecordError> = Record::fold_genesis(id, entry.change(), Policies::standard());
    Ok(folded.ok().map(|folded| {
        let version = entry.change_hash().to_string()[..16].to_owned();
        project(id, version, folded.resource, &folded.conflicts)
    }))
}
