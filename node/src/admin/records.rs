//! What is said of records that are written, read and listed, and of their histories and conflicts.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sync_core::id::{ChangeHash, Incarnation, NodeId, OrgId, OrgPath, RecordId};

/// Answer to writes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Written {
    /// Records that were written, in the order of the request.
    pub written: Vec<WrittenRecord>,
    /// Records that were already so.
    pub unchanged: u64,
    /// Records that were refused; the others are written all the same.
    pub rejected: Vec<RejectedRecord>,
}

/// One record that was written.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WrittenRecord {
    /// The record.
    pub record: RecordId,
    /// Its new version.
    pub version: String,
    /// Paths whose open conflict this write has overwritten with a new value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub superseded: Vec<String>,
    /// Of a new record: the patients whom it is about, and who are not at this node. So it belongs to whoever wrote it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub patients_not_here: Vec<RecordId>,
}

/// One record that was not written.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RejectedRecord {
    /// Its number in the request, from 0.
    pub index: u64,
    /// Its name, if it has one.
    pub record: Option<String>,
    /// What, why, what to do.
    pub problem: String,
}

/// Answer to [`super::Request::Get`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Resource {
    /// The record.
    pub record: RecordId,
    /// Its version.
    pub version: String,
    /// The resource itself.
    pub resource: Box<RawValue>,
    /// How many conflicts are open.
    pub conflicts: u32,
}

/// Answer to [`super::Request::List`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Listing {
    /// In the order of names.
    pub records: Vec<ListedRecord>,
    /// Whether there are more.
    pub more: bool,
}

/// One record of a list.
#[derive(Debug, Serialize, Deserialize)]
pub struct ListedRecord {
    /// The record.
    pub record: RecordId,
    /// Its version; empty while nothing of it can be read.
    pub version: String,
    /// Its homes.
    pub homes: Vec<OrgId>,
    /// How many conflicts are open.
    pub conflicts: u32,
    /// Whether it is deleted.
    pub deleted: bool,
    /// How safe its newest entry is, as of a change.
    pub safe: String,
}

/// Answer to [`super::Request::Export`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Page {
    /// Live resources, in the order of names.
    pub resources: Vec<Box<RawValue>>,
    /// How many of them are secret. Each says so in `meta.security`.
    #[serde(default)]
    pub secret: u64,
    /// The last record looked at; none when there are no more.
    pub next: Option<RecordId>,
}

/// Answer to [`super::Request::History`].
#[derive(Debug, Serialize, Deserialize)]
pub struct History {
    /// The record.
    pub record: RecordId,
    /// Oldest first.
    pub changes: Vec<HistoryLine>,
}

/// One change of a record.
#[derive(Debug, Serialize, Deserialize)]
pub struct HistoryLine {
    /// The change.
    pub change: ChangeHash,
    /// When its writer says that it was made, in milliseconds since 1970.
    pub at: i64,
    /// The run that made it.
    pub run: Incarnation,
    /// The node of that run, if it is known.
    pub node: Option<NodeId>,
    /// The node's place.
    pub place: Option<OrgPath>,
    /// Who.
    pub by: Option<String>,
    /// On which software.
    pub software: Option<String>,
    /// Why.
    pub why: Option<String>,
    /// What it touched.
    pub paths: Vec<String>,
    /// How safe it is: `local`, `hub`, `root`, `damaged`, `secret` or `marked_later`.
    pub safe: String,
    /// Why the record does not show it; none when it does.
    #[serde(default)]
    pub problem: Option<String>,
}

/// Answer to [`super::Request::Conflicts`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Conflicts {
    /// By record, then by path.
    pub conflicts: Vec<ConflictLine>,
    /// The last record looked at; none when there are no more.
    pub next: Option<RecordId>,
}

/// One conflict.
#[derive(Debug, Serialize, Deserialize)]
pub struct ConflictLine {
    /// The record.
    pub record: RecordId,
    /// Which element.
    pub path: String,
    /// `value` or `deletion`.
    pub kind: String,
    /// `open`, or `settled` by policy.
    pub state: String,
    /// The values, numbered from 1 in this order.
    pub values: Vec<ConflictValue>,
    /// The number of the value that the record shows meanwhile, from 1.
    pub shown: usize,
}

/// One of a conflict's values.
#[derive(Debug, Serialize, Deserialize)]
pub struct ConflictValue {
    /// Which form of a choice element it is (`valueString` of `value[x]`); none in other conflicts.
    #[serde(default)]
    pub form: Option<String>,
    /// The value; none when deleted.
    pub value: Option<Box<RawValue>>,
    /// The node that wrote it, if it is known.
    pub node: Option<NodeId>,
    /// Its organization.
    pub org: Option<OrgId>,
    /// Who.
    pub by: Option<String>,
    /// When its writer says that it was written, in milliseconds since 1970.
    pub at: i64,
}
