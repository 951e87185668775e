//! What a check of the store, and an audit with a neighbour, have found.

use serde::{Deserialize, Serialize};
use sync_core::id::{OrgPath, RecordId};

/// Answer to [`super::Request::Verify`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Verified {
    /// How many rows the feed has, or should have.
    pub rows: u64,
    /// What is not as it was written.
    pub findings: Vec<FindingLine>,
    /// How many findings more there are.
    pub more: u64,
    /// How many of all that was found are put right from what is here; `findings` names them when nobody was compared with.
    #[serde(default)]
    pub mended: u64,
    /// How long it took, in milliseconds.
    pub millis: u64,
    /// What the audit with a neighbour has come to, when there was one.
    pub audit: Option<Audit>,
}

/// What an audit has come to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Audit {
    /// The neighbour's place.
    pub with: OrgPath,
    /// Entries that were compared, as many as this node had of them.
    pub entries: u64,
    /// Entries that were lacking here, and are in place.
    pub here: u64,
    /// Entries that were lacking there, and are in place.
    pub there: u64,
    /// Entries that neither could give.
    pub missed: u64,
    /// How long it took after the check, in milliseconds.
    pub millis: u64,
}

/// Something that is not as it was written.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FindingLine {
    /// Which row of the feed, if it is about one.
    pub row: Option<u64>,
    /// The record that the row is of, if that is known.
    pub record: Option<RecordId>,
    /// What is wrong.
    pub problem: String,
    /// Whether it is put right from what is here, with no neighbour's help.
    #[serde(default)]
    pub mended: bool,
}
