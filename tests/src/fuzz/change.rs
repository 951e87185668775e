//! Changes from outside: whatever the bytes are, nothing escapes, and what is accepted has the hash of its content.

use std::sync::LazyLock;

use serde_json::json;
use sha2::{Digest, Sha256};
use sync_core::{
    change::{CHANGE_MAX_BYTES, ChangeHeader, Entry},
    codec::Reader,
    conflict::Policies,
    id::{ChangeHash, Incarnation, Lane, RecordId},
    record::{Applied, Author, Record, read_change},
};

use crate::bytes::{Choices, chunk};
use crate::conformance::{org, record as named};

/// Bytes before the type of a chunk: the magic and the checksum.
const BEFORE_TYPE: usize = 8;

/// A record, and raw changes that belong to it and to none.
struct Real {
    record: Record,
    changes: Vec<Vec<u8>>,
}

/// Changes of the kinds that there are: a first one, edits that depend on it, a deletion, an answer.
static REAL: LazyLock<Real> = LazyLock::new(|| {
    let author =
        |n: u8, wall| Author { incarnation: Incarnation([n; 16]), wall, by: None, software: "f", why: None };
    let mut record = Record::new(named("Patient/p"));
    let first = json!({"gender": "male", "contact": [{"gender": "female"}], "name": [{"text": "Đặng"}]});
    let mut changes = vec![record.put(&first, None, &author(1, 1)).expect("sound").expect("new").bytes];
    let start = record.clone();
    for (n, text) in [(2, "other"), (3, "unknown")] {
        let mut other = start.clone();
        let edit = json!({"gender": text, "name": [{"text": text}, {"text": "B"}]});
        changes.push(other.put(&edit, None, &author(n, 2)).expect("sound").expect("new").bytes);
    }
    changes.push(start.clone().delete(None, &author(4, 3)).expect("sound").expect("new").bytes);
    for change in &changes[1..] {
        assert_eq!(record.apply(change), Ok(Applied::New));
    }
    let path = record.conflicts()[0].path.clone();
    let take = sync_core::record::Choice::Take(1);
    changes.push(record.clone().resolve(&path, take, &author(5, 4)).expect("sound").bytes);
    Real { record: start, changes }
});

/// The first byte says what the rest is: bytes, the body of a chunk with a right checksum, or how real changes are
/// altered; the checksum is made right again in some.
pub fn change(data: &[u8]) {
    let mut c = Choices::new(data);
    match c.below(4) {
        0 => take(&[c.rest()]),
        1 => take(&[&chunk(1, c.rest())]),
        2 => take(&[&chunk(2, c.rest())]),
        _ => altered(c),
    }
}

fn altered(mut c: Choices<'_>) {
    let mut changes: Vec<Vec<u8>> = Vec::new();
    for real in &REAL.changes {
        let mut bytes = real.clone();
        let mended = !c.one_in(4);
        for _ in 0..c.below(4) {
            let at = BEFORE_TYPE * usize::from(mended) + c.u64() as usize % (bytes.len() - BEFORE_TYPE);
            match c.below(4) {
                0 => bytes[at] = c.byte(),
                1 => bytes[at] ^= 1 << c.below(8),
                2 => bytes.insert(at, c.byte()),
                _ => drop(bytes.drain(at..(at + 1 + c.below(9)).min(bytes.len()))),
            }
        }
        if mended && let Some(body) = body(&bytes) {
            bytes = chunk(bytes[BEFORE_TYPE], body);
        }
        changes.push(bytes);
    }
    let order = c.below(changes.len());
    changes.rotate_left(order);
    take(&changes.iter().map(Vec::as_slice).collect::<Vec<_>>());
}

/// What stands behind the length of a chunk, which may be wrong.
fn body(chunk: &[u8]) -> Option<&[u8]> {
    let mut r = Reader(chunk.get(BEFORE_TYPE + 1..)?);
    r.varint("the length").ok()?;
    Some(r.0)
}

/// The road of a change: its header is read, it becomes an entry, it is folded.
fn take(changes: &[&[u8]]) {
    let id: RecordId = named("Patient/p");
    let (mut fresh, mut known) = (Record::new(id.clone()), REAL.record.clone());
    for bytes in changes {
        let header = ChangeHeader::parse(bytes);
        let entry = Entry::new(id.clone(), org("dv"), Lane::Normal, (*bytes).into());
        assert_eq!(header.is_ok(), entry.is_ok(), "an entry is a change with a sound header");
        // Nobody gives a record what is no entry; it has to survive it all the same.
        let _ = read_change(&id, bytes);
        let _ = Record::load(id.clone(), bytes).map(|record| looks(&record));
        let Ok(entry) = entry else {
            let _ = fresh.clone().apply(bytes).map(|_| ());
            continue;
        };
        let hash = ChangeHash(Sha256::digest(&bytes[BEFORE_TYPE..]).into());
        assert_eq!(entry.change_hash(), hash, "a hash is recomputed");
        assert_eq!(hash.0[..4], bytes[4..BEFORE_TYPE], "and compared with the checksum");
        assert!(
            bytes.len() <= CHANGE_MAX_BYTES && bytes[BEFORE_TYPE] == 1,
            "only plain changes of a limited size"
        );
        if let Ok(folded) = Record::fold_genesis(&id, bytes, Policies::standard()) {
            let mut alone = Record::new(id.clone());
            assert_eq!(alone.apply(bytes), Ok(Applied::New));
            assert!(alone.fold() == folded, "one change shows the same without a document");
        }
        for record in [&mut fresh, &mut known] {
            let before = record.heads();
            match record.apply(bytes) {
                Ok(Applied::New) => {
                    assert!(record.contains(&hash), "what is applied goes by the hash that was recomputed");
                    looks(record);
                }
                Ok(Applied::Duplicate) => assert!(record.contains(&hash)),
                Ok(Applied::Waiting(_)) | Err(_) => {
                    assert_eq!(record.heads(), before, "a change that is not taken leaves no trace");
                }
            }
        }
    }
}

/// Everything that is read of a record can be read.
fn looks(record: &Record) {
    let folded = record.fold();
    if let Some(text) = &folded.resource {
        assert!(serde_json::from_str::<serde_json::Value>(text).is_ok(), "a resource is JSON");
    }
    assert!(!record.history().is_empty() || record.heads().is_empty(), "every change is in the history");
    let _ = (record.version(), record.is_deleted(), record.latest(), record.change(&ChangeHash([0; 32])));
    record.heads().iter().for_each(|head| drop(record.change(head)));
    // Of odd changes a snapshot cannot be read; then the record is made of its changes again.
    if let Ok(again) = Record::load(record.id().clone(), &record.save()) {
        assert!(again.fold() == folded, "a snapshot shows the same");
    }
}
