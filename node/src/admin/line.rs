//! What is said of the line to the parent and of what may be used of it.

use serde::{Deserialize, Serialize};
use sync_core::id::OrgPath;

use crate::budget::{Budget, Offset, Why};

/// What may be used of the line to the parent, and what is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Line {
    /// The parent.
    pub parent: OrgPath,
    /// The settings.
    pub budget: Budget,
    /// How much may be used at this hour, in kbit/s; none when all of the line may.
    pub rate_kbits: Option<u32>,
    /// The month of which the use is counted, as in `2026-11`.
    pub month: String,
    /// Bytes used in it, both ways, with the headers of UDP and IP; none when no daemon runs.
    pub month_bytes: Option<u64>,
    /// That bulk waits.
    pub bulk: Option<Waiting>,
}

/// That bulk waits.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Waiting {
    /// How many entries of it are not at the parent.
    pub entries: u64,
    /// How many attachments are not there.
    #[serde(default)]
    pub attachments: u64,
    /// Their bytes.
    #[serde(default)]
    pub attachment_bytes: u64,
    /// Until when, in milliseconds since 1970.
    pub until: i64,
    /// Why.
    pub why: Why,
    /// Local time.
    pub utc_offset: Offset,
}
