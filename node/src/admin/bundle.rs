//! What is said of courier bundles.

use serde::{Deserialize, Serialize};
use sync_core::{
    feed::Position,
    id::{Lane, NodeId, OrgPath},
};

/// From where a bundle goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BundleSince {
    /// From what the neighbour is known to have.
    Acknowledged,
    /// From where the last bundle for it ended.
    Last,
    /// From the beginning.
    Start,
}

/// A place of the sender's feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundlePlace {
    /// In which lane.
    pub lane: Lane,
    /// Which.
    pub at: Position,
}

/// Answer to [`super::Request::BundleExport`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BundleExported {
    /// The node that it is for.
    pub node: NodeId,
    /// Its place.
    pub to: OrgPath,
    /// When it was made, in milliseconds since 1970.
    pub made_at: i64,
    /// Entries, by lane: urgent, normal, bulk.
    pub entries: [u64; 3],
    /// Attachments of which something is in it.
    pub attachments: u64,
    /// Their bytes in it.
    pub attachment_bytes: u64,
    /// From where it goes on; a lane that is missing begins at the beginning.
    pub from: Vec<BundlePlace>,
    /// Secret records that stay here.
    pub kept_back: u64,
    /// More is waiting than fitted.
    pub more: bool,
}

/// Answer to [`super::Request::BundleInspect`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BundleInspected {
    /// The node that has made it.
    pub node: NodeId,
    /// Its place.
    pub sender: OrgPath,
    /// Its software.
    pub software: String,
    /// The node that it is for: this one.
    pub recipient: OrgPath,
    /// When it was made, in milliseconds since 1970 by the sender's clock.
    pub made_at: i64,
    /// Entries, by lane: urgent, normal, bulk.
    pub entries: [u64; 3],
    /// Attachments of which something is in it.
    pub attachments: u64,
    /// Their bytes in it.
    pub attachment_bytes: u64,
    /// From where it goes on; a lane that is missing begins at the beginning.
    pub from: Vec<BundlePlace>,
    /// Up to where it leads.
    pub upto: Vec<BundlePlace>,
    /// More was waiting at the sender than fitted.
    pub more: bool,
    /// Whether everything in it has been read here already.
    pub imported: bool,
    /// Lanes in which this node has not come to where it goes on.
    pub gaps: Vec<Lane>,
}

/// Answer to [`super::Request::BundleImport`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BundleImported {
    /// The node that has made it.
    pub node: NodeId,
    /// Its place.
    pub sender: OrgPath,
    /// When it was made, in milliseconds since 1970 by the sender's clock.
    pub made_at: i64,
    /// Entries that were new here.
    pub new: u64,
    /// Entries that were here.
    pub known: u64,
    /// Entries that can be taken only after others, which an earlier bundle brings.
    pub aside: u64,
    /// Attachments that are whole here by it.
    pub attachments: u64,
    /// Attachments of which something was in it, and something is still lacking here.
    #[serde(default)]
    pub attachments_in_part: u64,
    /// Attachments of which nothing was taken, because their records are not here.
    #[serde(default)]
    pub attachments_without_record: u64,
    /// Lanes in which an earlier bundle is missing.
    pub gaps: Vec<Lane>,
    /// Whether more was waiting at the sender than fitted.
    pub more: bool,
    /// The sender does not know what was read of it: it came back from an older copy.
    pub older: bool,
    /// The sender has read more of this node than this node knows: this one came back from an older copy.
    pub lost: bool,
    /// There was a link to the sender, so nothing counted of what the bundle acknowledges.
    #[serde(default)]
    pub linked: bool,
}

/// Answer to [`super::Request::BundleCard`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BundleCard {
    /// What the file holds.
    pub card: String,
}

/// Answer to [`super::Request::BundleMeet`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BundleMet {
    /// The node whose card it is.
    pub node: NodeId,
    /// Its place.
    pub place: OrgPath,
}
