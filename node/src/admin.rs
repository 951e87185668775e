//! What the CLI and the daemon say to each other, over a Unix socket in the node's folder.
//!
//! One request is one JSON line; the answer is any number of [`Answer::Progress`] lines and then one
//! [`Answer::Done`] or [`Answer::Failed`]. Behind an [`Answer::Bytes`] line stand bytes that are no JSON. The types are
//! the schema: fields are only ever added. Times are milliseconds since 1970, ages are seconds. Not here: what the
//! answers to each kind of request hold, which stands in a module of its kind.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sync_core::{
    id::{ContentHash, NodeId, OrgId, RecordId},
    identity::Role,
};

use crate::budget::Change;

mod attachment;
mod bundle;
mod certificates;
mod client;
mod grant;
mod line;
mod outages;
mod records;
mod scope;
mod status;
mod tree;
mod verify;

pub use self::attachment::{AttachmentLine, AttachmentPart, Attachments, Contents};
pub use self::bundle::{
    BundleCard, BundleExported, BundleImported, BundleInspected, BundleMet, BundlePlace, BundleSince,
};
pub use self::certificates::{Admitted, Invited, RenewalRequested, Renewed, Replaced, Revoked};
pub use self::client::Client;
pub use self::grant::{Give, Given, GrantEnded, GrantInfo, Grants, LookedUp};
pub use self::line::{Line, Waiting};
pub use self::outages::{ClockStep, Neighbour, Outage, Outages, Stretch};
pub use self::records::{
    ConflictLine, ConflictValue, Conflicts, History, HistoryLine, ListedRecord, Listing, Page,
    RejectedRecord, Resource, Written, WrittenRecord,
};
pub use self::scope::{Destination, Explained, GrantLine, Home, Reason};
pub use self::status::{AlertLine, LinkState, Peers, ProfileLine, Status, Synced, Unsafe};
pub use self::tree::{
    Amount, Arrange, Arranged, ForgottenLine, Leaving, NodeChange, OrderLine, OrgLine, Plan, Purged,
    Rearrangement, Receipt, StepLine, Tree,
};
pub use self::verify::{Audit, FindingLine, Verified};

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
    /// Says that a backup is durable where it was to be. Answered by [`BackupKept`].
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

/// Answer to [`Request::BackupKept`].
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct BackupKept {
    /// Whether this node has found damage in its store since it was started, if it runs, or knows of some that nobody has put right: the
    /// backup may hold it as well.
    pub damage_found: bool,
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
