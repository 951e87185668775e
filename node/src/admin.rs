//! What the CLI and the daemon say to each other, over a Unix socket in the node's folder.
//!
//! One request is one JSON line; the answer is any number of [`Answer::Progress`] lines and then one
//! [`Answer::Done`] or [`Answer::Failed`]. Behind an [`Answer::Bytes`] line stand bytes that are no JSON. The types are the schema: fields are only ever added. Times are
//! milliseconds since 1970, ages are seconds.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use crate::{
    budget::Change,
    config::{Policy, Profile},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use sync_core::{
    id::{ChangeHash, ContentHash, Incarnation, NodeId, OrgId, OrgPath, RecordId, Secrecy},
    identity::Role,
    store::HomeDigest,
};

mod attachment;
mod bundle;
mod certificates;
mod grant;
mod line;
mod outages;
mod scope;
mod tree;

pub use self::attachment::{AttachmentLine, AttachmentPart, Attachments, Contents};
pub use self::bundle::{
    BundleCard, BundleExported, BundleImported, BundleInspected, BundleMet, BundlePlace, BundleSince,
};
pub use self::certificates::{Admitted, RenewalRequested, Renewed};
pub use self::grant::{Give, Given, GrantEnded, GrantInfo, Grants, LookedUp};
pub use self::line::{Line, Waiting};
pub use self::outages::{ClockStep, Neighbour, Outage, Outages, Stretch};
pub use self::scope::{Destination, Explained, GrantLine, Home, Reason};
pub use self::tree::{
    Amount, Arrange, Arranged, ForgottenLine, Leaving, NodeChange, OrderLine, OrgLine, Plan, Purged,
    Rearrangement, Receipt, StepLine, Tree,
};

/// The socket's name in the node's folder.
pub const SOCKET: &str = "admin.sock";
/// Most bytes of one line, either way: a chunk of an import, or a page of an export.
pub const LINE_MAX_BYTES: u64 = 64 << 20;

/// Longest path of a socket, in bytes: the system's limit without the zero at the end.
const SOCKET_PATH_MAX_BYTES: usize = 107;

/// Where the daemon of a folder listens; a failure when the system allows no socket there.
pub fn socket_path(dir: &Path) -> Result<PathBuf, Failure> {
    let path = dir.join(SOCKET);
    let length = path.as_os_str().len();
    if length <= SOCKET_PATH_MAX_BYTES {
        return Ok(path);
    }
    let text = format!(
        "the path {} has {length} bytes, and the system allows {SOCKET_PATH_MAX_BYTES} for a socket; put the node \
         into a folder with a shorter path, or name it from a nearer working directory",
        path.display()
    );
    Err(Failure::new(FailureKind::Usage, text))
}

/// Said of a request that is longer than a line may be.
pub(crate) fn too_long() -> Failure {
    let text = format!(
        "the request is longer than {} MB and nothing of it was done; write fewer or smaller resources at once",
        LINE_MAX_BYTES >> 20
    );
    Failure::new(FailureKind::Usage, text)
}

/// A request to the daemon.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Answered by [`Status`].
    Status,
    /// Answered by [`Peers`].
    Peers,
    /// Writes resources, each diffed against the version that this node holds, or against `base`. Answered by
    /// [`Written`].
    Put {
        /// Whole FHIR resources.
        resources: Vec<Box<RawValue>>,
        /// The version that the writer had read (If-Match); only with one resource.
        base: Option<String>,
        /// Who writes.
        by: Option<String>,
        /// Why.
        why: Option<String>,
    },
    /// Answered by [`Resource`].
    Get {
        /// Which record.
        record: RecordId,
    },
    /// Answered by [`Listing`].
    List {
        /// Only this FHIR resource type.
        resource_type: Option<String>,
        /// Only records of which entries wait or could not be applied, of all types.
        #[serde(default)]
        unread: bool,
        /// After this record, in the order of names.
        after: Option<RecordId>,
        /// At most so many.
        limit: u32,
    },
    /// A page of all live resources. Answered by [`Page`].
    Export {
        /// After this record.
        after: Option<RecordId>,
        /// At most so many.
        limit: u32,
    },
    /// Answered by [`History`].
    History {
        /// Which record.
        record: RecordId,
    },
    /// Answered by [`Written`].
    Delete {
        /// Which record.
        record: RecordId,
        /// The version that the writer had read.
        base: Option<String>,
        /// Who deletes.
        by: Option<String>,
        /// Why.
        why: Option<String>,
    },
    /// Dials the parent at once. Answered by [`Synced`], with `wait` after everything of before is durable at
    /// the parent, but what waits for its time.
    SyncNow {
        /// Wait until everything written before is durable at the parent.
        wait: bool,
        /// Let bulk through once, whatever it waits for.
        #[serde(default)]
        bulk: bool,
    },
    /// The attachments of a record, or of all records. Answered by [`Attachments`].
    Attachments {
        /// Only this record's.
        record: Option<RecordId>,
        /// After this record.
        after: Option<RecordId>,
    },
    /// Sees to it that all of an attachment is here. Answered by [`AttachmentLine`] when it is.
    AttachmentFetch {
        /// Of which record.
        record: RecordId,
        /// Which, where the record has several.
        hash: Option<ContentHash>,
        /// For how long nothing may come, in seconds.
        patience_seconds: u64,
    },
    /// A part of an attachment that is here. Answered by [`AttachmentPart`].
    AttachmentPart {
        /// Of which record.
        record: RecordId,
        /// Which.
        hash: ContentHash,
        /// From which byte.
        from: u64,
    },
    /// What may be used of the line to the parent. Answered by [`Line`].
    LinkShow,
    /// Changes that, durably and at once. Answered by [`Line`].
    LinkSet(Change),
    /// Ends the link to the parent and refuses children until resumed; survives a restart. Answered by [`Synced`].
    SyncPause,
    /// Answered by [`Synced`].
    SyncResume,
    /// Checks the whole store, and then compares it with a neighbour's. Answered by [`Verified`].
    Verify {
        /// The neighbour's organization.
        with: Option<OrgId>,
    },
    /// Answered by [`Conflicts`].
    Conflicts {
        /// Only this record, also what has settled itself.
        record: Option<RecordId>,
        /// After this record.
        after: Option<RecordId>,
        /// At most so many records.
        limit: u32,
    },
    /// Settles a conflict. Answered by [`Written`].
    Resolve {
        /// Which record.
        record: RecordId,
        /// Which of its conflicts.
        path: String,
        /// How.
        choice: Choice,
        /// Who decides.
        by: Option<String>,
        /// Why; kept in the record's history.
        why: String,
    },
    /// Makes a one-time token for a new child. Answered by [`Invited`].
    Invite {
        /// What the child will be.
        role: Role,
        /// Its organization.
        org: OrgId,
        /// How long the token is good, in seconds.
        expires_seconds: u64,
        /// The address that the child is to dial, when it is not the one that this node listens on.
        address: Option<String>,
    },
    /// When links stood and when not. Answered by [`Outages`].
    Outages {
        /// Only this neighbour.
        org: Option<OrgId>,
        /// Only the last so many seconds.
        since_seconds: Option<u64>,
    },
    /// Says where a record is sent, and why. Answered by [`Explained`].
    ExplainRecord {
        /// Which record.
        record: RecordId,
    },
    /// Says where the records of an organization are sent, and why. Answered by [`Explained`].
    ExplainOrg {
        /// Which organization.
        org: OrgId,
    },
    /// Opens a patient's records to an organization for a time. Answered by [`Given`].
    Give(Give),
    /// The grants that this node knows. Answered by [`Grants`].
    Grants,
    /// Ends a grant before its time. Answered by [`GrantEnded`].
    EndGrant {
        /// The first digits of its name.
        grant: String,
        /// Who ends it.
        by: Option<String>,
        /// Why.
        why: String,
    },
    /// Asks, in an emergency, for the records of a patient. Answered by [`LookedUp`].
    LookUp {
        /// The Patient record.
        patient: RecordId,
        /// Who asks.
        by: Option<String>,
        /// Why.
        why: String,
    },
    /// Revokes the certificates of a child's node, and makes a token for the machine that takes its place. Answered by
    /// [`Replaced`].
    Replace {
        /// The child's organization.
        org: OrgId,
        /// The machine that is lost, by its name or the first eight digits of it. Needed when it took another's place itself.
        #[serde(default)]
        node: Option<String>,
        /// Why: lost, compromised, replaced, left or mistake.
        reason: sync_core::identity::Reason,
        /// How long the token is good, in seconds.
        expires_seconds: u64,
        /// The address that the child is to dial, when it is not the one that this node listens on.
        address: Option<String>,
    },
    /// Revokes the certificates of a child's node. Answered by [`Revoked`].
    Revoke {
        /// The child's organization.
        org: OrgId,
        /// Why: lost, compromised, replaced, left or mistake.
        reason: sync_core::identity::Reason,
    },
    /// Rearranges the tree; only at the root. Answered by [`Arranged`].
    Arrange(Arrange),
    /// Answered by [`Tree`].
    Tree,
    /// What nodes have forgotten because an order put it elsewhere. Answered by [`Purged`].
    Purged,
    /// Takes a plan back. Answered by [`Tree`].
    CancelPlan {
        /// Its number.
        plan: u64,
    },
    /// Makes a backup of the node. Answered by [`Answer::Bytes`], the whole file, and then its
    /// [`Manifest`](crate::backup::Manifest).
    Backup {
        /// The public keys of those who may read it.
        to: Vec<String>,
    },
    /// Writes a courier bundle for a neighbour. Answered by [`Answer::Bytes`], the whole file, and then [`BundleExported`].
    BundleExport {
        /// The neighbour's organization.
        org: OrgId,
        /// From where it goes on.
        since: BundleSince,
        /// How long the file may be.
        max_bytes: Option<u64>,
    },
    /// Says that a bundle is durable where it was to be. Answered by null.
    BundleKept {
        /// For whom it was made.
        node: NodeId,
        /// When it was made.
        made_at: i64,
    },
    /// Says what a bundle is, which stands behind this line. Answered by [`BundleInspected`].
    BundleInspect {
        /// How long it is.
        bytes: u64,
    },
    /// Takes a bundle, which stands behind this line. Answered by [`BundleImported`].
    BundleImport {
        /// How long it is.
        bytes: u64,
    },
    /// What makes this node known to a neighbour that has never met it. Answered by [`BundleCard`].
    BundleCard,
    /// Takes such a card. Answered by [`BundleMet`].
    BundleMeet {
        /// What the file holds.
        card: String,
    },
    /// Answers a request for certificates that has come as a file. Answered by [`Admitted`].
    Admit {
        /// What the file holds.
        request: String,
    },
    /// Makes the request of this node for its next certificates, as a file. Answered by [`RenewalRequested`].
    RenewalRequest,
    /// Takes the answer to that. Answered by [`Renewed`].
    RenewalAnswer {
        /// What the file holds.
        answer: String,
    },
    /// Says that a backup is durable where it was to be. Answered by null.
    BackupKept {
        /// When it was made, as its manifest says.
        made_at: i64,
    },
}

/// How a conflict is settled.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// The value with this number, from 1, in the order of the list.
    Take(usize),
    /// Another value, as JSON.
    Value(Box<RawValue>),
}

/// One line of an answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The work goes on.
    Progress(Progress),
    /// So many bytes of the result itself stand behind this line.
    Bytes(u64),
    /// The work is done; the content depends on the request.
    Done(Box<RawValue>),
    /// The work failed.
    Failed(Failure),
}

/// How far long work has come.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Progress {
    /// What is being counted, for people: `entries to send`.
    pub what: String,
    /// So many are done.
    pub done: u64,
    /// Of so many; none when nobody knows.
    pub total: Option<u64>,
}

/// Why a request failed. The text says what, why and what to do.
#[derive(Debug, Clone, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// The kind, which is also the exit code of the CLI.
    pub kind: FailureKind,
    /// What, why, what to do.
    pub text: String,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(kind: FailureKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }
}

/// Kinds of failure, each with the exit code of the CLI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Exit code 1.
    Failed,
    /// Exit code 2: the request makes no sense.
    Usage,
    /// Exit code 3: nobody answers.
    Unreachable,
    /// Exit code 4: the node is not enrolled, or was refused.
    Refused,
    /// Exit code 5: it worked, but a person has to look.
    Attention,
    /// Exit code 6: stored data is not what it should be.
    Integrity,
}

impl FailureKind {
    /// The exit code of the CLI.
    pub fn exit_code(self) -> u8 {
        match self {
            FailureKind::Failed => 1,
            FailureKind::Usage => 2,
            FailureKind::Unreachable => 3,
            FailureKind::Refused => 4,
            FailureKind::Attention => 5,
            FailureKind::Integrity => 6,
        }
    }
}

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
    /// How much of attachments is not where it has to be.
    #[serde(default)]
    pub attachments: Contents,
    /// What may be used of the line to the parent; none at the root.
    #[serde(default)]
    pub line: Option<Line>,
    /// What is still here of others since an order, until the root has it.
    #[serde(default)]
    pub leaving: Option<Leaving>,
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

/// Answer to [`Request::Peers`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Peers {
    /// Up first, then down.
    pub peers: Vec<LinkState>,
}

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

/// Answer to [`Request::Get`].
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

/// Answer to [`Request::List`].
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
    /// Its version.
    pub version: String,
    /// Its homes.
    pub homes: Vec<OrgId>,
    /// How many conflicts are open.
    pub conflicts: u32,
    /// Whether it is deleted.
    pub deleted: bool,
    /// How safe its newest entry is: `local`, `hub` or `root`.
    pub safe: String,
}

/// Answer to [`Request::Export`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Page {
    /// Live resources, in the order of names.
    pub resources: Vec<Box<RawValue>>,
    /// The last record looked at; none when there are no more.
    pub next: Option<RecordId>,
}

/// Answer to [`Request::History`].
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
    /// How safe it is: `local`, `hub` or `root`.
    pub safe: String,
    /// Why the record does not show it; none when it does.
    #[serde(default)]
    pub problem: Option<String>,
}

/// Answer to [`Request::Conflicts`].
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

/// Answer to [`Request::SyncNow`], [`Request::SyncPause`] and [`Request::SyncResume`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Synced {
    /// Whether syncing is paused.
    pub paused: bool,
    /// Whether the parent is connected. At the root: true.
    pub connected: bool,
    /// Entries that the parent has not made durable.
    pub not_at_hub: Unsafe,
    /// Entries that the root has not made durable.
    pub not_at_root: Unsafe,
    /// Attachments that are not there.
    #[serde(default)]
    pub attachments: Contents,
    /// What of it waits for its time.
    #[serde(default)]
    pub bulk: Option<Waiting>,
}

/// Answer to [`Request::Invite`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Invited {
    /// The token, to be shown once.
    pub token: String,
    /// Until when it is good, in milliseconds since 1970.
    pub expires_at: i64,
}

/// Answer to [`Request::Revoke`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Revoked {
    /// The nodes whose certificates are revoked.
    pub nodes: Vec<NodeId>,
    /// How many tokens that nobody had used were taken back.
    pub tokens: usize,
}

/// Answer to [`Request::Replace`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Replaced {
    /// The nodes whose certificates are revoked.
    pub nodes: Vec<NodeId>,
    /// What the new machine will be.
    pub role: Role,
    /// Its token, to be shown once.
    pub invited: Invited,
}

/// Answer to [`Request::Verify`].
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

/// A blocking connection to the daemon of a folder.
pub struct Client {
    lines: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the daemon of a folder.
    pub fn connect(dir: &Path) -> Result<Self, Failure> {
        if !dir.join(crate::config::FILE).exists() {
            let text = format!(
                "{} is not a node's folder; make one with `tuyen --dir {0} init` or `enrol`",
                dir.display()
            );
            return Err(Failure::new(FailureKind::Refused, text));
        }
        let stream = UnixStream::connect(socket_path(dir)?).map_err(|error| {
            let text = format!(
                "no daemon answers in {0} ({error}); start it with `tuyend --dir {0}`",
                dir.display()
            );
            Failure::new(FailureKind::Unreachable, text)
        })?;
        Ok(Self { lines: BufReader::new(stream) })
    }

    /// Sends a request and waits for its answer.
    pub fn call<T: DeserializeOwned>(
        &mut self,
        request: &Request,
        progress: impl FnMut(Progress),
    ) -> Result<T, Failure> {
        self.receive(request, progress, |_| Ok(()))
    }

    /// Sends a request and waits for its answer. What comes as bytes goes to `keep`, piece by piece.
    pub fn receive<T: DeserializeOwned>(
        &mut self,
        request: &Request,
        progress: impl FnMut(Progress),
        keep: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<T, Failure> {
        self.write(request)?;
        self.answer(progress, keep)
    }

    /// Sends a request with so many bytes behind it as it says, and waits for its answer.
    pub fn send<T: DeserializeOwned>(
        &mut self,
        request: &Request,
        mut bytes: impl FnMut() -> Result<Option<Vec<u8>>, Failure>,
        progress: impl FnMut(Progress),
    ) -> Result<T, Failure> {
        self.write(request)?;
        while let Some(piece) = bytes()? {
            if self.lines.get_mut().write_all(&piece).is_err() {
                // Whoever takes no more has said why.
                break;
            }
        }
        self.answer(progress, |_| Ok(()))
    }

    fn write(&mut self, request: &Request) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(request).map_err(|error| lost(&error))?;
        line.push(b'\n');
        if line.len() as u64 > LINE_MAX_BYTES {
            return Err(too_long());
        }
        self.lines.get_mut().write_all(&line).map_err(|error| lost(&error))
    }

    fn answer<T: DeserializeOwned>(
        &mut self,
        mut progress: impl FnMut(Progress),
        mut keep: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<T, Failure> {
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).map_err(|error| lost(&error))? == 0 {
                return Err(lost(&"it closed the connection"));
            }
            match serde_json::from_str(&line).map_err(|error| lost(&error))? {
                Answer::Progress(step) => progress(step),
                Answer::Bytes(bytes) => {
                    let mut left = usize::try_from(bytes).unwrap_or(usize::MAX);
                    while left > 0 {
                        let piece = self.lines.fill_buf().map_err(|error| lost(&error))?;
                        if piece.is_empty() {
                            return Err(lost(&"it closed the connection"));
                        }
                        let taken = piece.len().min(left);
                        keep(&piece[..taken])?;
                        self.lines.consume(taken);
                        left -= taken;
                    }
                }
                Answer::Done(value) => {
                    return serde_json::from_str(value.get()).map_err(|error| lost(&error));
                }
                Answer::Failed(failure) => return Err(failure),
            }
        }
    }
}

/// Said when the connection to the daemon ends before its answer.
fn lost(error: &dyn std::fmt::Display) -> Failure {
    let text = format!("the daemon went away ({error}); see its log, and try again");
    Failure::new(FailureKind::Unreachable, text)
}
