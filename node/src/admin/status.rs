//! A node, its links and what somebody should know of it, as they are told.

use serde::{Deserialize, Serialize};
use sync_core::{
    id::{NodeId, OrgId, OrgPath, Secrecy},
    identity::Role,
    store::HomeDigest,
};

use super::{Contents, Leaving, Line, Waiting};
use crate::config::{Policy, Profile};

/// A profile, and what has come of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProfileLine {
    /// What `config.json` says.
    #[serde(flatten)]
    pub profile: Profile,
    /// Of a link how secret what goes over it may be, because the neighbour allows that as well; `none` as long as it has not
    /// said so. Null for couriers, who carry no answer.
    pub agreed: Option<Secrecy>,
    /// Whether this node has heard of a neighbour of that name.
    pub is_heard_of: bool,
}

/// A node at a glance.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The node.
    pub node: NodeId,
    /// Its organization.
    pub org: OrgId,
    /// Its place, from the root down.
    pub place: OrgPath,
    /// Its role.
    pub role: Role,
    /// Its software.
    pub software: String,
    /// The address that it listens on; none for a leaf that does not.
    pub listen: Option<String>,
    /// The parent's address; none at the root.
    pub parent: Option<String>,
    /// Live records.
    pub records: u64,
    /// Deleted records, which are kept.
    pub deleted: u64,
    /// Entries of all records.
    pub entries: u64,
    /// Open conflicts.
    pub conflicts: u64,
    /// Entries that wait for others.
    pub waiting: u64,
    /// Entries that could not be applied.
    pub unreadable: u64,
    /// Secret records: what is written of them goes where profiles allow it, and what may not go up is in no other number of what
    /// is not safe.
    #[serde(default)]
    pub secret: u64,
    /// Entries that the last check of the store has found damaged or gone, and that nobody who was asked has.
    #[serde(default)]
    pub damaged: u64,
    /// The last check of the store could not be finished, or has found damage that is of no entry and that nothing here puts right.
    #[serde(default)]
    pub unsound: bool,
    /// To whom what is secret may go, as `config.json` says.
    #[serde(default)]
    pub profiles: Vec<ProfileLine>,
    /// What is secret when it is written here, as `config.json` says.
    #[serde(default)]
    pub policies: Vec<Policy>,
    /// Entries not yet folded into the records that people see.
    pub unfolded: u64,
    /// The digest of all entries, in hexadecimal: equal sets of entries have equal digests.
    pub digest: String,
    /// The same for each home.
    pub homes: Vec<HomeDigest>,
    /// Entries that the parent has not made durable.
    pub not_at_hub: Unsafe,
    /// Entries that the root has not made durable.
    pub not_at_root: Unsafe,
    /// This node was put back to an older copy, and nothing counts as durable elsewhere before it has been compared with the parent.
    #[serde(default)]
    pub in_doubt: bool,
    /// How much of attachments is not where it has to be.
    #[serde(default)]
    pub attachments: Contents,
    /// What may be used of the line to the parent; none at the root.
    #[serde(default)]
    pub line: Option<Line>,
    /// What is still here of others since an order, until the root has it.
    #[serde(default)]
    pub leaving: Option<Leaving>,
    /// Records that are not open to this node any more, and are forgotten when it has been compared with its parent.
    #[serde(default)]
    pub ended: u64,
    /// Whether syncing is paused.
    pub paused: bool,
    /// The link to the parent.
    pub up: Option<LinkState>,
    /// The links to children, also of those who are away.
    pub down: Vec<LinkState>,
    /// Bytes of frames sent and received since the start, without QUIC's own.
    pub sent_bytes: u64,
    /// See `sent_bytes`.
    pub received_bytes: u64,
    /// What somebody should know, newest first.
    pub alerts: Vec<AlertLine>,
    /// When the last backup of this node was made that is where it should be, in milliseconds since 1970; none when
    /// there is none.
    #[serde(default)]
    pub last_backup: Option<i64>,
}

/// Entries that are not yet safe somewhere.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Unsafe {
    /// How many.
    pub entries: u64,
    /// How old the oldest is, in seconds.
    pub oldest_seconds: Option<u64>,
}

/// One link.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LinkState {
    /// The neighbour's place.
    pub place: String,
    /// Its role.
    pub role: Role,
    /// Its node.
    pub node: Option<NodeId>,
    /// `connected`, `dialling`, `away`, `paused` or `refused`.
    pub state: String,
    /// Why it is not connected, for people.
    pub problem: Option<String>,
    /// When it was last heard, in milliseconds since 1970.
    pub last_contact: Option<i64>,
    /// Its address, when connected.
    pub address: Option<String>,
    /// Its software, when connected.
    pub software: Option<String>,
    /// Round-trip time in milliseconds, when connected.
    pub rtt_millis: Option<u64>,
    /// Entries not yet durable there; of a child those that are not yet on their way, when it is connected.
    pub behind: Option<u64>,
    /// How long the oldest of them has waited, in seconds; of the parent alone.
    #[serde(default)]
    pub behind_seconds: Option<u64>,
    /// Entries that are still to come from there, as the neighbour has said last, beyond what is on its way.
    #[serde(default)]
    pub to_come: Option<u64>,
}

/// Something that somebody should know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AlertLine {
    /// When, in milliseconds since 1970 by this machine's clock.
    pub at: i64,
    /// A stable name: `refused`, `restored`, `forked`, `two_machines`, `renewal`, `damaged`, `repaired`, `moved`, `closed`, `order`, `no_content`.
    pub code: String,
    /// What, why, what to do.
    pub text: String,
}

/// Answer to [`super::Request::Peers`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Peers {
    /// Up first, then down.
    pub peers: Vec<LinkState>,
}

/// Answer to [`super::Request::SyncNow`], [`super::Request::SyncPause`] and [`super::Request::SyncResume`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Synced {
    /// Whether syncing is paused.
    pub paused: bool,
    /// Whether the parent is connected. At the root: true.
    pub connected: bool,
    /// Whether this is the root, which has no parent.
    #[serde(default)]
    pub root: bool,
    /// Entries that the parent has not made durable.
    pub not_at_hub: Unsafe,
    /// Entries that the root has not made durable.
    pub not_at_root: Unsafe,
    /// Secret records, which are in none of these numbers: see [`Status::secret`].
    #[serde(default)]
    pub secret: u64,
    /// Attachments that are not there.
    #[serde(default)]
    pub attachments: Contents,
    /// What of it waits for its time.
    #[serde(default)]
    pub bulk: Option<Waiting>,
    /// Nothing counts as there yet: see [`Status::in_doubt`].
    #[serde(default)]
    pub in_doubt: bool,
}
