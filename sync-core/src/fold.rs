//! Folding: from the entries of a record to what people see of it.
//!
//! A node appends the entries that arrive without opening them, and folds them into the projection behind. What
//! is folded is a function of the entries alone, so the projection can be thrown away and made again. An entry
//! whose dependencies are not here yet waits; an entry that cannot be applied is kept and named; neither holds
//! up any other record. When one running machine was copied, two changes of one name can come together: see
//! [`Opened`].

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    change::Entry,
    conflict::{self, Conflict, Policies},
    feed::Seq,
    id::{ChangeHash, Incarnation, RecordId},
    record::{Applied, Record, RecordError},
    store::{Op, Projected, Store, StoreError},
};

/// A new snapshot is kept when so many changes have been applied on top of the last one: a snapshot of 100
/// changes loads almost three times as fast as its changes.
pub const SNAPSHOT_AFTER_CHANGES: usize = 16;
/// A step of folding ends when its resources have so many bytes, so that two hundred large records are never in
/// memory at once.
pub const STEP_MAX_BYTES: usize = 4 << 20;

/// Entries with their rows.
type Rows = Vec<(Seq, Entry)>;

/// Said of an entry that one of two running copies of a machine wrote, when the other's stands.
const SET_ASIDE: &str = "a running copy of the machine that wrote this wrote something else under the same name, and only one \
                         of the two can be read; compare the history, and enter again what is missing";

/// Whether a record was written by one machine under each name, as it must be.
#[derive(PartialEq, Eq)]
enum Branches {
    One,
    Two,
}

/// A record with all entries that the store has of it.
///
/// automerge numbers the changes of an actor, and refuses a second one with the same number. Two running copies of
/// one machine write such changes before the fork is seen. Of them the one with the smaller hash stands; the other is
/// kept with all that was built on it, and named as unreadable.
pub struct Opened {
    /// The record.
    pub record: Record,
    waiting: Vec<Seq>,
    unreadable: Vec<(Seq, String)>,
    lost: usize,
    since_snapshot: usize,
    last: Seq,
}

impl Opened {
    /// Loads a record: its snapshot, then every entry that is not in it.
    pub fn load(store: &impl Store, id: &RecordId) -> Result<Self, StoreError> {
        Self::load_from(store, id, store.projected(id)?)
    }

    fn load_from(store: &impl Store, id: &RecordId, before: Option<Projected>) -> Result<Self, StoreError> {
        let snapshot = before.as_ref().and_then(|before| before.snapshot.as_ref());
        let loaded = snapshot.and_then(|(seq, bytes)| Some((*seq, Record::load(id.clone(), bytes).ok()?)));
        let (from, record) = loaded.unwrap_or_else(|| (0, Record::new(id.clone())));
        let left: BTreeSet<Seq> = before
            .iter()
            .flat_map(|before| before.waiting.iter().chain(before.unreadable.iter().map(|(seq, _)| seq)))
            .copied()
            .collect();
        let rows = store.rows_of(id)?;
        let wanted: Vec<_> = rows.iter().filter(|seq| **seq > from || left.contains(seq)).copied().collect();
        let found = entries(store, &wanted)?;
        let lost = wanted.len() - found.len();
        let mut opened = Self { lost, ..Self::from(record, from) };
        if opened.take(found) == Branches::One {
            return Ok(opened);
        }
        Ok(Self { lost, ..Self::of_two(id, entries(store, &rows)?) })
    }

    /// A record with these entries, in the order of their rows.
    fn of(id: &RecordId, rows: Rows) -> Self {
        let mut opened = Self::from(Record::new(id.clone()), 0);
        if opened.take(rows.clone()) == Branches::One { opened } else { Self::of_two(id, rows) }
    }

    /// A record of which two running copies of a machine have written.
    fn of_two(id: &RecordId, rows: Rows) -> Self {
        let (kept, set_aside) = one_branch(rows);
        let mut opened = Self::from(Record::new(id.clone()), 0);
        opened.take(kept);
        set_aside.iter().for_each(|(_, entry)| opened.record.set_aside(entry.origin()));
        opened.unreadable.extend(set_aside.into_iter().map(|(seq, _)| (seq, SET_ASIDE.to_owned())));
        opened.unreadable.sort();
        opened
    }

    /// A record with what has been applied up to a row.
    fn from(record: Record, last: Seq) -> Self {
        Self { record, waiting: Vec::new(), unreadable: Vec::new(), lost: 0, since_snapshot: 0, last }
    }

    /// A run that is to write says so first: what cannot be read any more may have been its own, and its names are not
    /// used again.
    pub fn is_written_by(&mut self, run: Incarnation) {
        (0..std::mem::take(&mut self.lost)).for_each(|_| self.record.set_aside(run));
    }

    /// Applies entries until no more can be: a dependency may stand behind what needs it.
    fn take(&mut self, mut pending: Rows) -> Branches {
        self.unreadable.clear();
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
                    Err(RecordError::ForkedActor { .. }) => return Branches::Two,
                    Err(error) => self.unreadable.push((seq, error.to_string())),
                }
            }
            if left.is_empty() || left.len() == before {
                self.waiting = left.into_iter().map(|(seq, _)| seq).collect();
                return Branches::One;
            }
            pending = left;
        }
    }

    /// What people see of the record now. `unwritten` changes were made on it and are not in the store yet.
    pub fn project(&self, unwritten: usize) -> Projected {
        let due = unwritten == 0 && self.since_snapshot >= SNAPSHOT_AFTER_CHANGES;
        Projected { snapshot: due.then(|| self.snapshot()), ..self.shown() }
    }

    fn shown(&self) -> Projected {
        let folded = self.record.fold();
        let mut projected =
            project(self.record.id(), self.record.version(), folded.resource, &folded.conflicts);
        projected.waiting = self.waiting.clone();
        projected.unreadable = self.unreadable.clone();
        projected
    }

    /// A snapshot, with a row up to which nothing is left to be applied: what waits stands behind it.
    fn snapshot(&self) -> (Seq, Vec<u8>) {
        let upto = self.waiting.first().map_or(self.last, |waits| self.last.min(waits - 1));
        (upto, self.record.save())
    }
}

/// The entries of these rows that can be read.
fn entries<'s>(store: &impl Store, rows: impl IntoIterator<Item = &'s Seq>) -> Result<Rows, StoreError> {
    let entry = |seq: &Seq| Ok(store.entry(*seq)?.map(|entry| (*seq, entry)));
    rows.into_iter().filter_map(|seq| entry(seq).transpose()).collect()
}

/// Takes from the entries of a record, of which some are of two running copies of one machine, what can stand
/// together, and what cannot. Every node that has the same entries comes to the same: of two changes with one name
/// the one with the smaller hash stays, the other goes with all that was built on it, and the smallest name is
/// decided first.
fn one_branch(mut entries: Rows) -> (Rows, Rows) {
    let mut set_aside = Vec::new();
    loop {
        let mut named: BTreeMap<_, BTreeSet<ChangeHash>> = BTreeMap::new();
        for (_, entry) in &entries {
            let (branch, number) = entry.place();
            named.entry((number, entry.origin(), branch)).or_default().insert(entry.change_hash());
        }
        let Some(rivals) = named.into_values().find(|rivals| rivals.len() > 1) else {
            return (entries, set_aside);
        };
        let mut gone: BTreeSet<ChangeHash> = rivals.into_iter().skip(1).collect();
        loop {
            let falls = |entry: &Entry| {
                gone.contains(&entry.change_hash()) || entry.deps().iter().any(|dep| gone.contains(dep))
            };
            let (fallen, kept): (Vec<_>, Vec<_>) = entries.into_iter().partition(|(_, entry)| falls(entry));
            entries = kept;
            if fallen.is_empty() {
                break;
            }
            gone.extend(fallen.iter().map(|(_, entry)| entry.change_hash()));
            set_aside.extend(fallen);
        }
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

/// The next step of folding: at most `limit` rows, and fewer when their resources are large. None when every row is folded.
pub fn next(store: &impl Store, limit: usize) -> Result<Option<Vec<Op>>, StoreError> {
    let after = store.folded()?;
    let tip = store.tip()?;
    if after >= tip {
        return Ok(None);
    }
    let rows = store.unfolded(after, limit)?;
    let mut last = if rows.len() < limit { tip } else { rows.last().map_or(tip, |(seq, _)| *seq) };
    let mut ops = Vec::new();
    let mut done = BTreeSet::new();
    let mut bytes = 0;
    for (seq, record) in rows {
        if done.insert(record.clone()) {
            let projected = fold_record(store, &record)?;
            bytes += projected.resource.as_ref().map_or(0, String::len);
            ops.push(Op::Project(projected));
        }
        if bytes >= STEP_MAX_BYTES {
            last = seq;
            break;
        }
    }
    ops.push(Op::Folded(last));
    Ok(Some(ops))
}

/// Folds a record from all its entries, because one that stands before others has come back to its row.
pub fn anew(store: &impl Store, id: &RecordId) -> Result<Op, StoreError> {
    let opened = Opened::load_from(store, id, None)?;
    Ok(Op::Project(Projected { snapshot: Some(opened.snapshot()), ..opened.project(0) }))
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
    Ok(store.entry(only)?.and_then(|entry| shown_by_one(id, &entry)))
}

fn shown_by_one(id: &RecordId, entry: &Entry) -> Option<Projected> {
    let is_first = entry.deps().is_empty();
    let folded = is_first.then(|| Record::fold_genesis(id, entry.change(), Policies::standard()))?.ok()?;
    let version = entry.change_hash().to_string()[..16].to_owned();
    Some(project(id, version, folded.resource, &folded.conflicts))
}

/// What a record shows of which a store has these entries, in the order of their rows: that to which all folding of it has to
/// come, whatever had been folded before. Without a snapshot.
pub fn shown(id: &RecordId, rows: &[(Seq, Entry)]) -> Projected {
    let by_one = if let [(_, only)] = rows { shown_by_one(id, only) } else { None };
    by_one.unwrap_or_else(|| Opened::of(id, rows.to_vec()).shown())
}

/// Whether a snapshot is of these entries: it holds all up to its row that can be read, and nothing else than some of them.
/// `shown` is what [`shown`] gives for them.
pub fn is_snapshot_of(snapshot: &(Seq, Vec<u8>), rows: &[(Seq, Entry)], shown: &Projected) -> bool {
    let (upto, bytes) = snapshot;
    let Ok(record) = Record::load(shown.record.clone(), bytes) else { return false };
    let is_left = |seq: &Seq| {
        shown.waiting.contains(seq) || shown.unreadable.iter().any(|(unreadable, _)| unreadable == seq)
    };
    let is_whole =
        rows.iter().all(|(seq, entry)| seq > upto || is_left(seq) || record.contains(&entry.change_hash()));
    let known: BTreeSet<_> = rows.iter().map(|(_, entry)| entry.change_hash()).collect();
    is_whole && record.heads().iter().all(|head| known.contains(head))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        audit::Harm,
        feed::Segment,
        id::{Lane, OrgId},
        record::{Author, Json},
        store::{MemStore, StoreMut},
    };

    const RUN: Incarnation = Incarnation([7; 16]);

    fn id() -> RecordId {
        "Patient/p".parse().unwrap()
    }

    fn patient(status: &str, phone: &str) -> Json {
        json!({"resourceType": "Patient", "id": "p", "status": status, "telecom": [{"system": "phone", "value": phone}]})
    }

    /// A write on what a record holds, as an entry that is not in any store yet.
    fn written(record: &mut Record, resource: &Json, wall: i64) -> Entry {
        let author = Author { incarnation: RUN, wall, by: None, software: "test", why: None };
        let change = record.put(resource, None, &author).unwrap().expect("it changes something");
        let home = OrgId::new("dong-van").unwrap();
        Entry::new(id(), home, Lane::Normal, change.bytes.into()).unwrap()
    }

    fn append(store: &mut MemStore, entry: &Entry) {
        store.commit(&[Op::Append { entry: entry.clone(), src: None, at: 0 }]).unwrap();
        while let Some(ops) = next(store, 1).unwrap() {
            store.commit(&ops).unwrap();
        }
    }

    /// What is shown of the record, and which of the entries cannot be read.
    fn shown(store: &MemStore) -> (Option<String>, String, BTreeSet<ChangeHash>) {
        let Projected { resource, version, unreadable, waiting, .. } =
            store.projected(&id()).unwrap().unwrap();
        assert!(waiting.is_empty());
        let hash = |(row, _): &(Seq, String)| store.entry(*row).unwrap().unwrap().change_hash();
        (resource, version, unreadable.iter().map(hash).collect())
    }

    #[test]
    fn what_two_running_copies_wrote_is_read_alike_in_every_order() {
        let mut one = Record::new(id());
        let start = written(&mut one, &patient("draft", "1"), 1);
        let mut two = one.clone();
        let of_one =
            [written(&mut one, &patient("active", "1"), 2), written(&mut one, &patient("active", "2"), 3)];
        let of_two =
            [written(&mut two, &patient("final", "1"), 2), written(&mut two, &patient("final", "3"), 3)];
        let orders = [
            [&start, &of_one[0], &of_one[1], &of_two[0], &of_two[1]],
            [&start, &of_two[0], &of_two[1], &of_one[0], &of_one[1]],
            [&of_two[1], &of_one[1], &of_one[0], &of_two[0], &start],
        ];
        let mut stores = orders.map(|order| {
            let mut store = MemStore::default();
            store.commit(&[Op::OpenSegment(Segment { incarnation: RUN, base: 0, parent: None })]).unwrap();
            order.into_iter().for_each(|entry| append(&mut store, entry));
            store
        });
        let seen = stores.each_ref().map(shown);
        assert_eq!(seen[0], seen[1]);
        assert_eq!(seen[0], seen[2]);
        let lost: BTreeSet<_> =
            if of_one[0].change_hash() < of_two[0].change_hash() { &of_two } else { &of_one }
                .iter()
                .map(Entry::change_hash)
                .collect();
        assert_eq!(seen[0].2, lost);

        // Whoever goes on under that name is read.
        for store in &mut stores {
            let mut record = Opened::load(store, &id()).unwrap().record;
            for phone in ["4", "5"] {
                let entry = written(&mut record, &patient("active", phone), 9);
                append(store, &entry);
                let (resource, _, unreadable) = shown(store);
                assert!(resource.unwrap().contains(&format!("\"value\":\"{phone}\"")));
                assert_eq!(unreadable, lost);
                record = Opened::load(store, &id()).unwrap().record;
            }
        }
    }

    /// What waits while a snapshot is kept is not lost when what it waits for has come.
    #[test]
    fn what_waits_beside_a_snapshot_is_read_when_it_can_be() {
        let mut one = Record::new(id());
        let start = written(&mut one, &patient("draft", "1"), 1);
        let mut two = one.clone();
        let of_one =
            [written(&mut one, &patient("active", "1"), 2), written(&mut one, &patient("final", "1"), 3)];
        let other = Incarnation([8; 16]);
        let mut of_two = (0..2 * SNAPSHOT_AFTER_CHANGES).map(|n| {
            let author = Author { incarnation: other, wall: 9, by: None, software: "test", why: None };
            let change = two.put(&patient("draft", &n.to_string()), None, &author).unwrap().unwrap();
            Entry::new(id(), OrgId::new("meo-vac").unwrap(), Lane::Normal, change.bytes.into()).unwrap()
        });
        let mut store = MemStore::default();
        store.commit(&[Op::OpenSegment(Segment { incarnation: RUN, base: 0, parent: None })]).unwrap();
        let early: Vec<_> = of_two.by_ref().take(SNAPSHOT_AFTER_CHANGES + 1).collect();
        [&start, &of_one[1]].into_iter().chain(&early).for_each(|entry| append(&mut store, entry));
        let waits = store.projected(&id()).unwrap().unwrap();
        assert!(waits.waiting == [2] && waits.snapshot.is_some(), "{waits:?}");
        append(&mut store, &of_one[0]);
        let late: Vec<_> = of_two.collect();
        for entry in &late {
            append(&mut store, entry);
            let whole = Opened::of(&id(), entries(&store, &store.rows_of(&id()).unwrap()).unwrap());
            assert_eq!(shown(&store).1, whole.record.version());
        }
    }

    /// A form that was opened before somebody else saved is written under a name of its own, which is counted; what was
    /// set aside counts as well, or the new change would meet an old one under its name and could lose to it.
    #[test]
    fn a_run_of_which_changes_are_set_aside_does_not_use_their_names_again() {
        let stale = |record: &mut Record, base: &Entry, phone: &str| {
            let author = Author { incarnation: RUN, wall: 9, by: None, software: "test", why: None };
            let resource = patient("draft", phone);
            let change = record.put(&resource, Some(&[base.change_hash()]), &author).unwrap().unwrap();
            Entry::new(id(), OrgId::new("dong-van").unwrap(), Lane::Normal, change.bytes.into()).unwrap()
        };
        let mut one = Record::new(id());
        let start = written(&mut one, &patient("draft", "1"), 1);
        let mut two = one.clone();
        let mut first =
            [written(&mut one, &patient("active", "1"), 2), written(&mut two, &patient("final", "1"), 2)];
        if first[0].change_hash() > first[1].change_hash() {
            first.swap(0, 1);
            std::mem::swap(&mut one, &mut two);
        }
        let (kept, lost) =
            (written(&mut one, &patient("active", "2"), 3), written(&mut two, &patient("final", "3"), 3));
        let late = stale(&mut two, &first[1], "4");
        let mut store = MemStore::default();
        store.commit(&[Op::OpenSegment(Segment { incarnation: RUN, base: 0, parent: None })]).unwrap();
        [&start, &first[0], &first[1], &kept, &lost, &late]
            .into_iter()
            .for_each(|entry| append(&mut store, entry));
        assert_eq!(shown(&store).2.len(), 3);
        for phone in 10..26 {
            let mut store = store.clone();
            let mut record = Opened::load(&store, &id()).unwrap().record;
            let entry = stale(&mut record, &start, &phone.to_string());
            append(&mut store, &entry);
            assert_eq!(shown(&store).2.len(), 3, "the new change is read");
        }
    }

    fn store_of(entries: &[Entry]) -> MemStore {
        let mut store = MemStore::default();
        store.commit(&[Op::OpenSegment(Segment { incarnation: RUN, base: 0, parent: None })]).unwrap();
        entries.iter().for_each(|entry| kept(&mut store, entry));
        store
    }

    fn kept(store: &mut MemStore, entry: &Entry) {
        store.commit(&[Op::Append { entry: entry.clone(), src: None, at: 0 }]).unwrap();
    }

    fn folded(store: &mut MemStore, limit: usize) -> Option<Vec<Op>> {
        let ops = next(store, limit).unwrap();
        store.commit(ops.as_deref().unwrap_or_default()).unwrap();
        ops
    }

    #[test]
    fn a_snapshot_is_kept_after_so_many_changes_and_is_read_again() {
        let (mut store, mut record) = (store_of(&[]), Record::new(id()));
        for n in 1..=2 * SNAPSHOT_AFTER_CHANGES as u64 + 1 {
            kept(&mut store, &written(&mut record, &patient("draft", &n.to_string()), n as i64));
            folded(&mut store, 10).unwrap();
            let snapshot = store.projected(&id()).unwrap().unwrap().snapshot.map(|(seq, _)| seq);
            let due = n - n % SNAPSHOT_AFTER_CHANGES as u64;
            assert_eq!(snapshot, (due > 0).then_some(due), "{n}");
        }
        let opened = Opened::load(&store, &id()).unwrap();
        assert_eq!((opened.record.heads(), opened.since_snapshot), (record.heads(), 1));
        assert_eq!(opened.project(1).snapshot, None);
        // Of a record on which something was written that is not in the store yet there is none.
        let changes: Vec<_> = store.rows_of(&id()).unwrap()[..SNAPSHOT_AFTER_CHANGES].to_vec();
        let store = store_of(
            &entries(&store, &changes).unwrap().into_iter().map(|(_, entry)| entry).collect::<Vec<_>>(),
        );
        let opened = Opened::load(&store, &id()).unwrap();
        assert_eq!([0, 1].map(|unwritten| opened.project(unwritten).snapshot.is_some()), [true, false]);
    }

    /// An entry that stood before the snapshot is healed: a fold of what is new would not come by it.
    #[test]
    fn what_has_come_back_is_folded_and_stays() {
        let (mut store, mut record) = (store_of(&[]), Record::new(id()));
        let two = |n: i64| written(&mut record, &patient("draft", &n.to_string()), n);
        let entries: Vec<_> = (1..=SNAPSHOT_AFTER_CHANGES as i64 + 1).map(two).collect();
        for entry in &entries {
            kept(&mut store, entry);
        }
        // The last one cannot be read when the snapshot is made.
        let last = entries.len() as Seq;
        let whole = store.clone();
        store.rot(last, Harm::Damaged);
        folded(&mut store, 100).unwrap();
        let before = store.projected(&id()).unwrap().unwrap();
        assert_eq!(before.snapshot.map(|(seq, _)| seq), Some(last - 1));
        store.rot(1, Harm::Damaged);
        let entry = |row| whole.entry(row).unwrap().unwrap();
        let heal = |row| Op::Heal { row, entry: entry(row), at: 0 };
        store.commit(&[heal(1), heal(last)]).unwrap();
        let op = anew(&store, &id()).unwrap();
        store.commit(&[op]).unwrap();
        let after = store.projected(&id()).unwrap().unwrap();
        assert_eq!(after.snapshot.as_ref().map(|(seq, _)| *seq), Some(last));
        assert_eq!(after.version, Opened::load(&whole, &id()).unwrap().project(0).version);
        // What is still lacking is not taken from a snapshot of better days: all nodes fold what they can read.
        store.rot(1, Harm::Damaged);
        store.rot(2, Harm::Damaged);
        store.commit(&[heal(1)]).unwrap();
        let op = anew(&store, &id()).unwrap();
        store.commit(&[op]).unwrap();
        let opened = Opened::load(&store, &id()).unwrap();
        assert_eq!(opened.record.heads(), [entry(1).change_hash()]);
    }

    /// What cannot be read may have been this run's own, so its names are passed over; others are not.
    #[test]
    fn a_run_passes_over_the_names_that_were_lost() {
        let mut record = Record::new(id());
        let entries: Vec<_> =
            (1..=3).map(|n| written(&mut record, &patient("draft", &n.to_string()), n)).collect();
        for lost in 0..3 {
            let mut store = store_of(&entries);
            (0..lost).for_each(|row| store.rot(row + 2, Harm::Damaged));
            let mut opened = Opened::load(&store, &id()).unwrap();
            assert_eq!(opened.lost, lost as usize);
            opened.is_written_by(RUN);
            assert_eq!(opened.lost, 0);
            let next = written(&mut opened.record, &patient("draft", "9"), 9);
            // Counted are the one that is applied and those that are lost; the third waits for the second.
            assert_eq!(next.place().0, Some(1 + lost as u32).filter(|_| lost > 0), "{lost} are lost");
        }
    }

    #[test]
    fn debug_shows_nothing_clinical() {
        let entry = written(&mut Record::new(id()), &patient("draft", "5550"), 1);
        let mut store = store_of(&[entry]);
        folded(&mut store, 1).unwrap();
        let shown = format!("{:?}", store.projected(&id()).unwrap().unwrap());
        assert!(shown.starts_with("Projected(Patient/p at ") && !shown.contains("5550"), "{shown}");
    }

    #[test]
    fn a_step_of_folding_ends_at_its_limits() {
        assert_eq!(STEP_MAX_BYTES, 4_194_304);
        let of = |n: u64, bytes: usize| {
            let id = RecordId::new("Patient", &n.to_string()).unwrap();
            let mut record = Record::new(id.clone());
            let author = Author { incarnation: RUN, wall: 1, by: None, software: "test", why: None };
            let resource = serde_json::json!({"resourceType": "Patient", "id": n.to_string(), "text": "a".repeat(bytes)});
            let change = record.put(&resource, None, &author).unwrap().unwrap();
            Entry::new(id, OrgId::new("dong-van").unwrap(), Lane::Normal, change.bytes.into()).unwrap()
        };
        let large: Vec<_> = (0..7).map(|n| of(n, STEP_MAX_BYTES / 5)).collect();
        let mut store = store_of(&large);
        for last in [5, 7] {
            let ops = folded(&mut store, 100).unwrap();
            assert!(matches!(ops.last(), Some(Op::Folded(seq)) if *seq == last), "{last}");
        }
        assert!(folded(&mut store, 100).is_none());
        let small: Vec<_> = (0..3).map(|n| of(n, 1)).collect();
        let mut store = store_of(&small);
        store
            .commit(&[Op::Offer { of: 1, to: crate::store::Offered::Home(OrgId::new("meo-vac").unwrap()) }])
            .unwrap();
        for (limit, projected, last) in [(2, 2, 2), (2, 1, 4)] {
            let ops = folded(&mut store, limit).unwrap();
            assert_eq!(ops.len(), projected + 1);
            assert!(matches!(ops.last(), Some(Op::Folded(seq)) if *seq == last), "{last}");
        }
        assert!(folded(&mut store, 2).is_none());
    }
}
