//! What is said of attachments.

use serde::{Deserialize, Serialize};
use sync_core::id::{ContentHash, RecordId};

/// Answer to [`super::Request::Attachments`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attachments {
    /// By record.
    pub attachments: Vec<AttachmentLine>,
    /// The last record looked at; none when there are no more.
    pub next: Option<RecordId>,
}

/// One attachment of a record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AttachmentLine {
    /// The record.
    pub record: RecordId,
    /// BLAKE3 of the content.
    pub hash: ContentHash,
    /// How many bytes it has.
    pub bytes: u64,
    /// How many of them are here.
    pub here: u64,
    /// Where all of it is known to be: `away` (not here), `local`, `hub`, `root`, or `secret` (only here, because no link may
    /// carry it).
    pub safe: String,
}

/// A part of an attachment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AttachmentPart {
    /// Base64.
    pub bytes: String,
    /// How many bytes the attachment has.
    pub size: u64,
}

/// How much of attachments is here, is not known to be at the root, and is not here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// Attachments that are whole here.
    pub here: u64,
    /// Their bytes.
    pub here_bytes: u64,
    /// Those of them that are not known to be at the parent.
    #[serde(default)]
    pub not_at_hub: u64,
    /// Their bytes.
    #[serde(default)]
    pub not_at_hub_bytes: u64,
    /// Those that are not known to be at the root.
    pub not_at_root: u64,
    /// Their bytes.
    pub not_at_root_bytes: u64,
    /// Attachments of which something is not here.
    pub away: u64,
    /// Their bytes.
    pub away_bytes: u64,
}
