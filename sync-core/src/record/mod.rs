//! A record: one FHIR R4 resource as one automerge document, and the only module that knows automerge.
//!
//! The document is one flat map of registers at its root. FHIR's data types are one register each, so that half
//! of one dose never meets the unit of another; the resource, its BackboneElements and `meta` are taken apart, and
//! every such element has a register that says that it is there. Deletion is a value of that register, never an
//! automerge delete, so a deletion on one side and an edit on the other meet and show. `shape` says what becomes a
//! register, `key` and `payload` how it is written, `view` what a register says, `render` what the record says,
//! `diff` what a write changes.
//!
//! Always: the state is a function of the set of changes; a change that fails leaves the document as it was;
//! whatever JSON object goes in comes out again. Not here: entries, storage, the wire, the validity of FHIR.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
};

use automerge::{ActorId, Automerge, AutomergeError, Change, ReadDoc};

use crate::{
    conflict::{Conflict, Policies},
    id::{ChangeHash, Incarnation, RecordId},
    time::Stamp,
};

mod backbone;
mod backbone_table;
mod choice;
mod choice_table;
mod diff;
mod history;
mod key;
mod matching;
mod message;
mod natural;
mod order;
mod payload;
mod render;
mod shape;
mod view;
mod write;

#[cfg(test)]
mod tests;

pub use choice_table::{TABLE as CHOICES, TYPES as CHOICE_TYPES};
pub use history::{HistoryItem, read_change};
pub use write::{Author, Choice, NewChange};

/// JSON, with the digits of numbers as they were written.
pub type Json = serde_json::Value;

/// Hexadecimal digits of each head in a version.
const VERSION_DIGITS: usize = 16;
/// Where a chunk's kind stands, and the kind of an uncompressed change (automerge's storage format).
const CHUNK_KIND: (usize, u8) = (8, 1);

/// Why a record could not be read or written. Never holds a value of the record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A snapshot that cannot be read.
    #[error("the stored snapshot of {0} cannot be read; it has to be rebuilt from the record's changes")]
    Snapshot(RecordId),
    /// A change that cannot be read.
    #[error("a change of {0} is not an uncompressed automerge change and was not applied")]
    Change(RecordId),
    /// Two different changes of one actor with one number.
    #[error(
        "{record}: two different changes claim to be the same one of {incarnation}; a copy of that node has written too"
    )]
    ForkedActor {
        /// The record.
        record: RecordId,
        /// Whose change it is.
        incarnation: Incarnation,
    },
    /// automerge failed.
    #[error("the CRDT engine failed on {0}; the record is as it was before")]
    Engine(RecordId),
    /// The body names another record.
    #[error("the resource's type or id is not that of {0}")]
    WrongRecord(RecordId),
    /// Not a JSON object, or nested too deeply.
    #[error("a resource is a JSON object nested at most {max} levels deep", max = payload::DEPTH_MAX)]
    BadResource,
    /// A version that the record does not have.
    #[error("{0} has no such version here; read it again and repeat the change")]
    UnknownVersion(RecordId),
    /// No conflict there.
    #[error("{0} has no conflict there; somebody may have resolved it already")]
    NoConflict(RecordId),
    /// A choice that the conflict does not offer.
    #[error("that is not one of the answers to choose from")]
    BadChoice,
    /// A value that does not say which form of a choice element it is.
    #[error(
        "the element has a name for each data type; give the value with one of them, as {{\"valueBoolean\": true}} is one of value[x]"
    )]
    BadForm,
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// It is in the record now.
    New,
    /// It was there already.
    Duplicate,
    /// These changes, on which it depends, are not here yet. The record is as it was.
    Waiting(Vec<ChangeHash>),
}

/// A record as it is shown. It is clinical: `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Folded {
    /// The resource's JSON text; none when the record is deleted or empty.
    pub resource: Option<String>,
    /// What has two or more answers, by path.
    pub conflicts: Vec<Conflict>,
    /// Whether the record was deleted.
    pub deleted: bool,
}

impl std::fmt::Debug for Folded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let size = self.resource.as_ref().map(String::len);
        write!(f, "Folded({size:?} bytes, {:?}, deleted: {})", self.conflicts, self.deleted)
    }
}

/// One record, in memory.
#[derive(Clone)]
pub struct Record {
    id: RecordId,
    doc: Automerge,
    /// How many changes of a run are kept out of the document.
    set_aside: BTreeMap<Incarnation, u64>,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Record({}, {:?})", self.id, self.heads())
    }
}

/// A document without a change. The actor that automerge draws is never used: every write sets its own.
#[expect(clippy::disallowed_methods, reason = "there is no constructor that draws none, and it is replaced")]
fn empty() -> Automerge {
    Automerge::new().with_actor(ActorId::from([0; Incarnation::LEN]))
}

fn to_engine(hash: &ChangeHash) -> automerge::ChangeHash {
    automerge::ChangeHash(hash.0)
}

fn from_engine(hash: &automerge::ChangeHash) -> ChangeHash {
    ChangeHash(hash.0)
}

fn is_uncompressed_change(bytes: &[u8]) -> bool {
    bytes.get(CHUNK_KIND.0) == Some(&CHUNK_KIND.1)
}

/// Keeps a panic of automerge to the record that it is about.
fn isolated<T>(id: &RecordId, work: impl FnOnce() -> Result<T, RecordError>) -> Result<T, RecordError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(RecordError::Engine(id.clone())))
}

impl Record {
    /// A record without a change.
    pub fn new(id: RecordId) -> Self {
        Self { id, doc: empty(), set_aside: BTreeMap::new() }
    }

    /// A record from what `save` gave.
    pub fn load(id: RecordId, snapshot: &[u8]) -> Result<Self, RecordError> {
        let doc = isolated(&id, || Automerge::load(snapshot).map_err(|_| RecordError::Snapshot(id.clone())))?;
        Ok(Self { id, doc, set_aside: BTreeMap::new() })
    }

    /// A snapshot. Equal records may have different snapshots: compare heads, not bytes.
    pub fn save(&self) -> Vec<u8> {
        self.doc.save()
    }

    /// The record's name.
    pub fn id(&self) -> &RecordId {
        &self.id
    }

    /// Says that one more change of this run exists and is kept out of the record. Its name is not used again.
    pub fn set_aside(&mut self, origin: Incarnation) {
        *self.set_aside.entry(origin).or_default() += 1;
    }

    /// Whether the change is in the record.
    pub fn contains(&self, change: &ChangeHash) -> bool {
        self.doc.get_change_meta_by_hash(&to_engine(change)).is_some()
    }

    /// The bytes of a change that is in the record, as they were when it was made; none also for a false one that the
    /// engine cannot put together again.
    pub fn change(&self, change: &ChangeHash) -> Option<Vec<u8>> {
        let found = isolated(&self.id, || Ok(self.doc.get_change_by_hash(&to_engine(change)))).ok().flatten();
        found.map(|change| change.raw_bytes().to_vec())
    }

    /// Those of `changes` that are not in the record.
    pub fn missing<'c>(&self, changes: impl IntoIterator<Item = &'c ChangeHash>) -> Vec<ChangeHash> {
        changes.into_iter().filter(|change| !self.contains(change)).copied().collect()
    }

    /// Takes one raw change.
    pub fn apply(&mut self, change: &[u8]) -> Result<Applied, RecordError> {
        let wrong = || RecordError::Change(self.id.clone());
        if !is_uncompressed_change(change) {
            return Err(wrong());
        }
        let change = isolated(&self.id, || Change::try_from(change).map_err(|_| wrong()))?;
        if self.contains(&from_engine(&change.hash())) {
            return Ok(Applied::Duplicate);
        }
        let deps: Vec<_> = change.deps().iter().map(from_engine).collect();
        let missing = self.missing(&deps);
        if !missing.is_empty() {
            return Ok(Applied::Waiting(missing));
        }
        self.doc = isolated(&self.id, || self.applied(change))?;
        Ok(Applied::New)
    }

    fn applied(&self, change: Change) -> Result<Automerge, RecordError> {
        let incarnation = view::incarnation(change.actor_id());
        let hash = change.hash();
        let mut doc = self.doc.clone();
        doc.apply_changes([change]).map_err(|error| match error {
            AutomergeError::DuplicateSeqNumber(..) => {
                RecordError::ForkedActor { record: self.id.clone(), incarnation }
            }
            _ => RecordError::Engine(self.id.clone()),
        })?;
        // The engine keeps what it cannot apply yet (a gap in an actor's numbers) and says nothing.
        match doc.get_change_meta_by_hash(&hash) {
            Some(_) => Ok(doc),
            None => Err(RecordError::Engine(self.id.clone())),
        }
    }

    /// The changes on which no other depends, in order of their hashes.
    pub fn heads(&self) -> Vec<ChangeHash> {
        let mut heads: Vec<_> = self.doc.get_heads().iter().map(from_engine).collect();
        heads.sort();
        heads
    }

    /// The version, for an ETag: each head's first digits. Empty for a record without a change.
    pub fn version(&self) -> String {
        let heads = self.heads();
        let short: Vec<_> = heads.iter().map(|head| head.to_string()[..VERSION_DIGITS].to_owned()).collect();
        short.join("-")
    }

    /// The heads that a version of this record names.
    pub fn at_version(&self, version: &str) -> Result<Vec<ChangeHash>, RecordError> {
        if version == self.version() {
            return Ok(self.heads());
        }
        let unknown = || RecordError::UnknownVersion(self.id.clone());
        if version.is_empty() {
            return Ok(Vec::new());
        }
        let changes: BTreeSet<_> =
            self.doc.get_changes_meta(&[]).iter().map(|meta| from_engine(&meta.hash)).collect();
        let named = |short: &str| {
            let of_length = Some(short).filter(|s| s.len() == VERSION_DIGITS);
            let mut found =
                changes.iter().filter(|change| of_length.is_some_and(|s| change.to_string().starts_with(s)));
            found.next().copied().filter(|_| found.next().is_none()).ok_or_else(unknown)
        };
        let mut heads = version.split('-').map(named).collect::<Result<Vec<_>, _>>()?;
        heads.sort();
        heads.dedup();
        Ok(heads)
    }

    fn source(&self) -> view::Source<'_> {
        view::Source::Document(&self.doc, None)
    }

    /// The resource, its conflicts, and whether it is deleted, in one pass over the document.
    pub fn fold(&self) -> Folded {
        self.fold_with(Policies::standard())
    }

    /// `fold` with another policy table.
    pub fn fold_with(&self, policies: &Policies) -> Folded {
        folded(&self.id, &self.source(), &self.source().tree(), policies)
    }

    /// `fold` of a record that has only this change, without making a document of it. For hubs that take in many
    /// new records. A change that depends on another is refused.
    pub fn fold_genesis(id: &RecordId, change: &[u8], policies: &Policies) -> Result<Folded, RecordError> {
        let wrong = || RecordError::Change(id.clone());
        if !is_uncompressed_change(change) {
            return Err(wrong());
        }
        let quick = isolated(id, || {
            let change = Change::try_from(change).map_err(|_| wrong())?;
            Ok(history::fold_single(id, &change, policies))
        })?;
        if let Some(folded) = quick {
            return Ok(folded);
        }
        let mut record = Self::new(id.clone());
        match record.apply(change)? {
            Applied::Waiting(_) => Err(wrong()),
            Applied::New | Applied::Duplicate => Ok(record.fold_with(policies)),
        }
    }

    /// The resource as it is now, with its type and id first; none when it is deleted or was never there.
    pub fn resource(&self) -> Option<Json> {
        view::read_json(&self.fold().resource?)
    }

    /// The resource as it was at these heads.
    pub fn resource_at(&self, heads: &[ChangeHash]) -> Result<Option<Json>, RecordError> {
        if !self.missing(heads).is_empty() {
            return Err(RecordError::UnknownVersion(self.id.clone()));
        }
        let heads: Vec<_> = heads.iter().map(to_engine).collect();
        let source = view::Source::Document(&self.doc, Some(&heads));
        let folded = folded(&self.id, &source, &source.tree(), Policies::standard());
        Ok(folded.resource.and_then(|text| view::read_json(&text)))
    }

    /// Whether the record was deleted and nobody says otherwise.
    pub fn is_deleted(&self) -> bool {
        let source = self.source();
        let root = source.tree();
        !root.values.is_empty() && root.judge(&source).shown().is_none()
    }

    /// What has two or more answers, by path, with all policies.
    pub fn conflicts(&self) -> Vec<Conflict> {
        self.fold().conflicts
    }

    /// Who changed what and when: causes before effects, otherwise by stamp and hash. When a false change keeps the
    /// engine from putting the changes together again, it says of each who made it and when, by stamp and hash.
    pub fn history(&self) -> Vec<HistoryItem> {
        isolated(&self.id, || Ok(history::history(&self.doc))).unwrap_or_else(|_| history::makers(&self.doc))
    }

    /// The latest stamp of any change.
    pub fn latest(&self) -> Option<Stamp> {
        self.doc.get_changes_meta(&[]).iter().map(|meta| Stamp(meta.timestamp)).max()
    }
}

fn folded(id: &RecordId, source: &view::Source<'_>, root: &view::Slot<'_>, policies: &Policies) -> Folded {
    let (resource, conflicts) = render::Renderer::new(id, source, policies).fold(root);
    let deleted = resource.is_none() && !root.values.is_empty();
    Folded { resource, conflicts, deleted }
}
