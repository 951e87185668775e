//! What a record's changes tell: its history, and the resource that a first change makes.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use automerge::{
    Automerge, Change, ScalarValue,
    legacy::{Key, ObjectId, OpType},
};

use super::{
    Folded, folded, from_engine, isolated, key,
    message::Message,
    payload::Form,
    view::{Maker, Slot, Source, Value, incarnation},
};
use crate::{
    conflict::Policies,
    id::{ChangeHash, Incarnation, RecordId},
    time::Stamp,
};

/// One change, as people read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryItem {
    /// The change.
    pub change: ChangeHash,
    /// The process that made it.
    pub incarnation: Incarnation,
    /// When it says it was made.
    pub stamp: Stamp,
    /// Who made it.
    pub by: Option<String>,
    /// On which software.
    pub software: Option<String>,
    /// Why.
    pub why: Option<String>,
    /// What it changed, as register keys in order; `#state` when it is about the record as a whole.
    pub paths: Vec<String>,
}

/// The registers that a change writes, with their text, and whether it does nothing else, each of them once
/// and over nothing.
fn registers(change: &Change) -> (BTreeMap<String, Option<String>>, bool) {
    let mut registers = BTreeMap::new();
    let mut plain = true;
    for op in change.decode().operations {
        plain &= op.pred.is_empty();
        let (ObjectId::Root, Key::Map(key), OpType::Put(value)) = (op.obj, op.key, op.action) else {
            plain = false;
            continue;
        };
        let text = match value {
            ScalarValue::Str(text) => Some(text.to_string()),
            ScalarValue::Null => None,
            _ => {
                plain = false;
                continue;
            }
        };
        plain &= registers.insert(key.to_string(), text).is_none();
    }
    (registers, plain)
}

fn item(change: &Change) -> HistoryItem {
    let keys: BTreeSet<String> = registers(change).0.into_keys().collect();
    // The presence of the elements around a change goes with it and tells nothing.
    let around = |key: &str| {
        let inner = |other: &String| other.strip_prefix(key).is_some_and(|rest| rest.starts_with(['.', '[']));
        (key == key::STATE && keys.len() > 1) || keys.iter().any(inner)
    };
    let message = Message::read(change.message());
    HistoryItem {
        change: from_engine(&change.hash()),
        incarnation: incarnation(change.actor_id()),
        stamp: Stamp(change.timestamp()),
        by: message.by,
        software: message.sw,
        why: message.why,
        paths: keys.iter().filter(|key| !around(key)).cloned().collect(),
    }
}

/// What one raw change says of itself, whether or not it is in a record; none when it cannot be read.
pub fn read_change(id: &RecordId, change: &[u8]) -> Option<HistoryItem> {
    isolated(id, || Ok(Change::try_from(change).ok().map(|change| item(&change)))).ok().flatten()
}

/// All changes, causes before effects, otherwise by stamp and hash.
pub(super) fn history(doc: &Automerge) -> Vec<HistoryItem> {
    let changes = doc.get_changes(&[]);
    let mut effects: BTreeMap<ChangeHash, Vec<usize>> = BTreeMap::new();
    let mut waits: Vec<usize> = Vec::with_capacity(changes.len());
    for (i, change) in changes.iter().enumerate() {
        waits.push(change.deps().len());
        for dep in change.deps() {
            effects.entry(from_engine(dep)).or_default().push(i);
        }
    }
    let rank = |i: usize| (changes[i].timestamp(), from_engine(&changes[i].hash()), i);
    let mut ready: BTreeSet<_> = (0..changes.len()).filter(|i| waits[*i] == 0).map(rank).collect();
    let mut items = Vec::with_capacity(changes.len());
    while let Some((_, hash, i)) = ready.pop_first() {
        items.push(item(&changes[i]));
        for effect in effects.remove(&hash).unwrap_or_default() {
            waits[effect] -= 1;
            if waits[effect] == 0 {
                ready.insert(rank(effect));
            }
        }
    }
    items
}

/// All changes without what they wrote, by stamp and hash.
pub(super) fn makers(doc: &Automerge) -> Vec<HistoryItem> {
    let item = |meta: &automerge::ChangeMetadata<'_>| {
        let message = Message::read(meta.message.as_deref());
        HistoryItem {
            change: from_engine(&meta.hash),
            incarnation: incarnation(&meta.actor),
            stamp: Stamp(meta.timestamp),
            by: message.by,
            software: message.sw,
            why: message.why,
            paths: Vec::new(),
        }
    };
    let mut items: Vec<_> = doc.get_changes_meta(&[]).iter().map(item).collect();
    items.sort_by_key(|item| (item.stamp, item.change));
    items
}

/// What a record shows that has only this change; `None` for a change that takes a document to understand.
pub(super) fn fold_single(id: &RecordId, change: &Change, policies: &Policies) -> Option<Folded> {
    let (registers, plain) = registers(change);
    if !plain || !change.deps().is_empty() || change.seq() != 1 {
        return None;
    }
    let source = Source::Genesis(Maker {
        change: from_engine(&change.hash()),
        incarnation: incarnation(change.actor_id()),
        stamp: Stamp(change.timestamp()),
        by: Message::read(change.message()).by,
    });
    let mut root = Slot::new(key::STATE.to_owned(), Form::Record);
    for (key, text) in registers {
        root.insert(&key, vec![Value { text: text.map(Cow::Owned), change: None }]);
    }
    Some(folded(id, &source, &root, policies))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::record::{Author, Record};

    /// What is left to say when the changes of a document cannot be read.
    #[test]
    fn makers_are_the_history_without_what_was_written() {
        let mut record = Record::new("Basic/1".parse().unwrap());
        for (n, code) in [(1, "a"), (2, "b"), (3, "c")] {
            let run = Incarnation([n; 16]);
            let author =
                Author { incarnation: run, wall: n.into(), by: Some(code), software: "test", why: None };
            let resource = json!({"resourceType": "Basic", "id": "1", "code": {"text": code}});
            record.put(&resource, None, &author).unwrap().unwrap();
        }
        let history = record.history();
        assert!(history.iter().all(|item| !item.paths.is_empty()));
        let without = history.into_iter().map(|item| HistoryItem { paths: Vec::new(), ..item });
        assert_eq!(makers(&record.doc), without.collect::<Vec<_>>());
    }
}
