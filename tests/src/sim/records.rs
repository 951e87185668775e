//! What is written in worlds whose records mean something: FHIR resources, edited, deleted and settled as people do.
//!
//! Values come from small sets, so that two people often say the same and often do not.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use sync_core::{
    change::Entry,
    conflict,
    feed::Seq,
    fold::Opened,
    id::{ChangeHash, Lane, RecordId},
    record::{Author, Choice, NewChange, Record},
    store::{Op, Projected, Store, StoreError},
};

use crate::naive;

use super::{
    oracle::{Failure, Key},
    rng::Rng,
    workload::{Writer, Written},
};

/// Stands in what people write, and must not stand in what operators and logs are told.
pub const CLINICAL: &str = "viêm gan";
/// Rows that are folded in one step.
const FOLD_ROWS: u64 = 9;

/// Somebody does something to a record; nothing when that changes nothing.
pub fn edit(
    writer: &Writer<'_>,
    (record, home): (RecordId, sync_core::id::OrgId),
    store: &impl Store,
    rng: &mut Rng,
) -> Result<Option<Written>, StoreError> {
    let mut opened = Opened::load(store, &record)?;
    let author =
        Author { incarnation: writer.run, wall: writer.wall, by: None, software: "sim 0", why: Some("sim") };
    let Some(change) = act(&mut opened.record, &author, rng) else { return Ok(None) };
    let rows = store.rows_of(&record)?;
    let first = rows.first().map(|row| store.entry(*row)).transpose()?.flatten();
    let lane = first.map_or(Lane::of_resource_type(record.resource_type()), |entry| entry.lane());
    let entry = Entry::new(record, home, lane, change.bytes.into()).expect("a small change is well-formed");
    Ok(Some(Written { entry, projection: Some(Op::Project(opened.project(1))) }))
}

fn act(record: &mut Record, author: &Author<'_>, rng: &mut Rng) -> Option<NewChange> {
    let conflicts = record.conflicts();
    let open: Vec<_> = conflict::open(&conflicts).cloned().collect();
    if !open.is_empty() && rng.one_in(3) {
        let one = rng.pick(&open).expect("there is one");
        let answer = rng.range(1, one.values.len() as u64) as usize;
        return Some(record.resolve(&one.path, Choice::Take(answer), author).expect("an offered answer"));
    }
    // A form that was opened a while ago is sent off.
    let past: Vec<_> = record.history().into_iter().map(|item| item.change).collect();
    let base = if rng.one_in(4) { rng.pick(&past).map(|change| vec![*change]) } else { None };
    if !past.is_empty() && rng.one_in(12) {
        return record.delete(base.as_deref(), author).expect("a version that is there");
    }
    let read = match &base {
        Some(base) => record.resource_at(base).expect("a version that is there"),
        None => record.resource(),
    };
    let mut resource = read.unwrap_or_else(|| fresh(record.id()));
    for _ in 0..rng.range(1, 3) {
        change_something(&mut resource, rng);
    }
    record.put(&resource, base.as_deref(), author).expect("a sound resource")
}

fn fresh(id: &RecordId) -> Value {
    json!({"resourceType": id.resource_type(), "id": id.id()})
}

fn change_something(resource: &mut Value, rng: &mut Rng) {
    let map = resource.as_object_mut().expect("a resource is an object");
    let n = rng.below(3);
    match rng.below(7) {
        0 => map.insert("status".to_owned(), json!((["draft", "active", "final"][n as usize]))),
        1 => map.insert(
            "valueQuantity".to_owned(),
            json!({"value": n + 80, "unit": (["mg", "ml"][rng.below(2) as usize])}),
        ),
        2 => map.insert("birthDate".to_owned(), json!(format!("198{n}-01-01"))),
        3 => map.insert("identifier".to_owned(), json!([{"system": "urn:cccd", "value": format!("00{n}")}])),
        4 => map.remove(["status", "birthDate", "telecom", "contact"][rng.below(4) as usize]),
        5 => change_items(
            map,
            "telecom",
            rng,
            |rng| json!({"system": "phone", "value": format!("09{}", rng.below(5))}),
        ),
        _ => change_items(
            map,
            "contact",
            rng,
            |rng| json!({"gender": (["male", "female"][rng.below(2) as usize]), "name": {"text": format!("{CLINICAL} {}", rng.below(4))}}),
        ),
    };
}

/// One item more, one less, or another place or content for one.
fn change_items(
    map: &mut serde_json::Map<String, Value>,
    name: &str,
    rng: &mut Rng,
    new: impl Fn(&mut Rng) -> Value,
) -> Option<Value> {
    let mut items = map.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    match rng.below(4) {
        0 | 1 => items.push(new(rng)),
        2 if !items.is_empty() => {
            items.remove(rng.below(items.len() as u64) as usize);
        }
        _ if !items.is_empty() => {
            let at = rng.below(items.len() as u64) as usize;
            items[at] = new(rng);
        }
        _ => {}
    }
    if items.is_empty() { map.remove(name) } else { map.insert(name.to_owned(), Value::Array(items)) }
}

/// Whoever has written reads what they wrote, also at a machine of which a running copy writes too; and nothing that
/// was read there before is gone. `read`: what was, and afterwards what is now.
pub fn reads_its_writes(
    who: &str,
    store: &impl Store,
    written: &[Key],
    read: &mut BTreeMap<RecordId, BTreeSet<ChangeHash>>,
) -> Result<(), Failure> {
    for (id, change) in written {
        let opened = Opened::load(store, id).map_err(|e| Failure::new("the store does not fail", e))?;
        let now: BTreeSet<_> = opened.record.history().into_iter().map(|item| item.change).collect();
        if !now.contains(change) {
            return Err(Failure::new("writers read their writes", format_args!("{who}, {id}, {change:?}")));
        }
        // Of two changes that two running copies of a machine made under one name, one is named and not shown.
        let failed = |e: StoreError| Failure::new("the store does not fail", e);
        let mut set_aside = BTreeSet::new();
        for (row, _) in opened.project(1).unreadable {
            set_aside.extend(store.entry(row).map_err(failed)?.map(|entry| entry.change_hash()));
        }
        let before = read.entry(id.clone()).or_default();
        if let Some(gone) = before.difference(&now).find(|change| !set_aside.contains(change)) {
            return Err(Failure::new("readers do not go back", format_args!("{who}, {id}, {gone:?}")));
        }
        *before = now;
    }
    Ok(())
}

/// The next step of folding.
pub fn fold(store: &impl Store, rng: &mut Rng) -> Result<Option<Vec<Op>>, StoreError> {
    sync_core::fold::next(store, rng.range(1, FOLD_ROWS) as usize)
}

/// What a disk shows of a record, without what is its own: rows are numbered by every node in its own way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    resource: Option<String>,
    version: String,
    conflicts: Option<String>,
    /// The changes that could not be read.
    unreadable: Vec<ChangeHash>,
}

impl Shown {
    /// Whether somebody has to decide something.
    pub fn in_conflict(&self) -> bool {
        self.conflicts.is_some()
    }

    /// Whether there are changes that could not be read.
    pub fn has_unreadable(&self) -> bool {
        !self.unreadable.is_empty()
    }
}

/// Whether a change that was set aside can be read with those that its writer knew, without the others.
fn reads_alone(id: &RecordId, change: ChangeHash, entries: &[(Seq, Entry)]) -> bool {
    let (mut branch, mut left) = (Vec::new(), vec![change]);
    while let Some(one) = left.pop() {
        let Some((_, entry)) = entries.iter().find(|(_, entry)| entry.change_hash() == one) else {
            return false;
        };
        if !branch.contains(&entry) {
            left.extend(entry.deps());
            branch.push(entry);
        }
    }
    let mut record = Record::new(id.clone());
    while !branch.is_empty() {
        let waits =
            |entry: &&Entry| entry.deps().iter().any(|dep| branch.iter().any(|e| e.change_hash() == *dep));
        let Some(next) = branch.iter().position(|entry| !waits(entry)) else { return false };
        if record.apply(branch.swap_remove(next).change()).is_err() {
            return false;
        }
    }
    record.history().iter().any(|item| item.change == change)
}

/// What a disk on which all is folded shows of a record. Checks that this is what its entries say when they are read
/// afresh and in another order, and what a naive model of the registers makes of them.
pub fn shown(who: &str, store: &impl Store, id: &RecordId) -> Result<Shown, Failure> {
    let failed = |error: StoreError| Failure::new("the store does not fail", error);
    let Projected { resource, version, conflicts, waiting, unreadable, .. } = store
        .projected(id)
        .map_err(failed)?
        .ok_or_else(|| Failure::new("all is folded", format_args!("{who} shows nothing of {id}")))?;
    if !waiting.is_empty() {
        return Err(Failure::new("nothing waits for ever", format_args!("{who} has {id} waiting")));
    }
    let mut entries = Vec::new();
    for row in store.rows_of(id).map_err(failed)? {
        entries.push((row, store.entry(row).map_err(failed)?.expect("a row holds an entry")));
    }
    if let Some((row, _)) = unreadable.iter().find(|(_, why)| why.to_string().contains(CLINICAL)) {
        return Err(Failure::new("nothing clinical is told", format_args!("{who} of row {row} of {id}")));
    }
    let of_row = |row| entries.iter().find(|(seq, _)| *seq == row).map(|(_, entry)| entry.change_hash());
    let mut unreadable: Vec<_> = unreadable.iter().filter_map(|(row, _)| of_row(*row)).collect();
    unreadable.sort();
    for change in &unreadable {
        if !reads_alone(id, *change, &entries) {
            let text = format!("{who}, {id}, {change:?}");
            return Err(Failure::new("what is set aside can be read", text));
        }
    }
    entries.retain(|(_, entry)| !unreadable.contains(&entry.change_hash()));
    entries.sort_by_key(|(_, entry)| entry.change_hash());
    let mut afresh = Record::new(id.clone());
    for _ in 0..entries.len() {
        for (_, entry) in &entries {
            afresh
                .apply(entry.change())
                .map_err(|error| Failure::new("what is folded can be read", error))?;
        }
    }
    let folded = afresh.fold();
    naive::compare(id, entries.iter().map(|(_, entry)| entry.change().as_ref()), &folded)
        .map_err(|text| Failure::new("a naive model says the same", format_args!("{who}: {text}")))?;
    let open = conflict::open(&folded.conflicts).count();
    let list =
        (open > 0).then(|| serde_json::to_string(&folded.conflicts).expect("conflicts are plain data"));
    if (folded.resource, afresh.version(), list) != (resource.clone(), version.clone(), conflicts.clone()) {
        return Err(Failure::new("the projection is what the entries say", format_args!("{who} shows {id}")));
    }
    Ok(Shown { resource, version, conflicts, unreadable })
}
