//! What the engine needs of a store: synchronous reads, and one atomic, durable `commit` of a batch.
//!
//! A batch is a list of plain facts. The engine (and the folding of records) decides what they are; a store only
//! keeps them, all of a batch or none. [`MemStore`] is the reference implementation: every other store has to
//! behave as it does, which the conformance tests check.

use serde::{Deserialize, Serialize};

use crate::{
    attachment::{Held, Kept, Name, Tree},
    change::Entry,
    feed::{Cursor, Digest, Position, Progress, Segment, Seq},
    id::{Chain, ChangeHash, Incarnation, Lane, NodeId, OrgId, RecordId, Secrecy},
    identity::{Announcement, NodeInfo, Revocation},
    order::Order,
    scope::{
        Profiles, Way,
        grant::{self, Granted},
    },
};

mod mem;
pub use mem::MemStore;

/// The store failed. It is poisoned: the process must end, and recover at its next start.
#[derive(Debug, thiserror::Error)]
#[error("the record store failed: {0}")]
pub struct StoreError(pub String);

/// The part of a feed row that decides who gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The row.
    pub seq: Seq,
    /// Where it came from: the place in the feed of the neighbour that sent it. None for a row of this node's
    /// own making.
    pub src: Option<Position>,
    /// The homes that the row's record had when the row was appended, the row's own among them. Homes that it
    /// gained later are offered the row by rows of their own, so that nobody gets an entry of a record before the
    /// one that makes the record theirs.
    pub homes: Vec<OrgId>,
    /// To whom grants that had been given by then, and have not ended since, open the record.
    pub opened: Vec<OrgId>,
    /// Set on a row that only offers an older entry.
    pub offered_to: Option<Offered>,
    /// The record's home issues it to everybody below: see [`RecordId::issuer`].
    pub issued: bool,
    /// How secret the row is, by the marks of whoever wrote it: of one of this node's own making by all that were made here, of
    /// one that came from elsewhere by its own and those that had come before. Whoever has it marks nobody else's.
    pub secrecy: Secrecy,
}

/// To whom a row offers an older entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offered {
    /// A home that its record has gained, or to whom it has been opened.
    Home(OrgId),
    /// To whom it is not open any more, which the entry says.
    Former(OrgId),
    /// The parent, from which it has come: a child has brought it as well, and waits to hear that the root has it.
    Parent,
}

/// How far something has come in one lane of this node's own feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Frontier {
    /// The last row that has to go up.
    Last,
    /// The last row that the parent has made durable.
    Hub,
    /// The last row that the root has made durable.
    Root,
    /// Up to here the root had everything when this node came to stand below another parent, which has it from the root.
    /// 0 when that parent has said that it goes on from here.
    Above,
    /// Nothing counts as durable elsewhere before the row up to here is: this node has been put back to an older copy, and what its
    /// parent has read it may not hold. [`Seq::MAX`] until an audit tells what is lacking there.
    Doubt,
}

impl Frontier {
    /// All of them.
    pub const ALL: [Frontier; 5] =
        [Frontier::Last, Frontier::Hub, Frontier::Root, Frontier::Above, Frontier::Doubt];
}

/// A promise to pass on: once the root has row `seq`, everything that this node read of `src.segment` in this
/// lane up to `src.pos` is safe at the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The lane.
    pub lane: Lane,
    /// Where this node had read to in the neighbour's feed.
    pub src: Position,
    /// The last row of this node's own feed in that lane that had to go up then.
    pub seq: Seq,
}

/// Since some order, homes stand below other children of this node. The rows of their records are offered to these by rows
/// of their own, a part in each commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gain {
    /// The last order before it: what has stood elsewhere then is offered.
    pub since: u64,
    /// Rows up to here have been looked at.
    pub done: Seq,
    /// The last row to look at.
    pub upto: Seq,
}

/// Since some order this node may not hold everything any more that it holds. It forgets what is no longer for it, a part
/// in each commit, as soon as that is at the root.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Purge {
    /// The last order by which something of it has left this node; 0 when it is of grants that have ended.
    pub order: u64,
    /// Rows up to here have been looked at.
    pub done: Seq,
    /// The last row to look at.
    pub upto: Seq,
    /// What has been forgotten so far, by the first home of its record, sorted.
    pub forgotten: Vec<Forgotten>,
}

/// How much of a home's has been forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forgotten {
    /// The home.
    pub home: OrgId,
    /// Records.
    pub records: u64,
    /// Their entries.
    pub entries: u64,
}

/// A record as the last fold left it. It is clinical: `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Projected {
    /// The record.
    pub record: RecordId,
    /// The resource as JSON text; none when deleted, or when nothing of it could be read.
    pub resource: Option<String>,
    /// The version: the record's heads, for If-Match.
    pub version: String,
    /// Open conflicts, as JSON text of the list; none when there are none.
    pub conflicts: Option<String>,
    /// How many conflicts are open.
    pub open_conflicts: u32,
    /// Entries that wait for others, in feed order.
    pub waiting: Vec<Seq>,
    /// Entries that could not be applied, with the reason; they are kept.
    pub unreadable: Vec<(Seq, String)>,
    /// A snapshot of the document that contains all applied entries up to `Seq`. None leaves the stored one.
    pub snapshot: Option<(Seq, Vec<u8>)>,
}

impl std::fmt::Debug for Projected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes = self.resource.as_ref().map(String::len);
        write!(
            f,
            "Projected({} at {}, {bytes:?} bytes, {} open)",
            self.record, self.version, self.open_conflicts
        )?;
        write!(f, ", waiting {:?}, unreadable {:?}", self.waiting, self.unreadable)
    }
}

/// One fact to make durable.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// Begin a segment at the present end of the feed.
    OpenSegment(Segment),
    /// Give the segments from the first one on new names, because somebody else writes under the old ones.
    RenameSegments(Vec<(Incarnation, Segment)>),
    /// Keep an announcement and what its certificate says.
    Announce(Announcement, NodeInfo),
    /// Append an entry to the feed. The engine never appends an entry that the store has.
    Append {
        /// The entry.
        entry: Entry,
        /// Where it came from; none for this node's own.
        src: Option<Position>,
        /// This machine's clock, in milliseconds since 1970; for the age of what is not yet safe.
        at: i64,
    },
    /// Put an entry where it stood: the row is gone, damaged or misfiled. What a row that is there says of where it came
    /// from stays. Its running hash follows from the row before; where that is not known either, it is kept as it is, or
    /// is not known.
    Heal {
        /// The row.
        row: Seq,
        /// The entry that stood there.
        entry: Entry,
        /// This machine's clock, for a row that is gone.
        at: i64,
    },
    /// The digest of a home counts something of which there is no row, nor ever was: take it away.
    Recount {
        /// The home.
        home: OrgId,
        /// What is too much.
        less: Digest,
    },
    /// Append a row that offers the entry of row `of`.
    Offer {
        /// The row that holds the entry.
        of: Seq,
        /// To whom.
        to: Offered,
    },
    /// The record has this home (too).
    AddHome(RecordId, OrgId),
    /// The record has this grant. One that is known to have ended stays so, and the last row that tells so counts.
    Grant(RecordId, Granted),
    /// The record is to be forgotten when all rows up to this one that have to go up are at the root; or it is not any more.
    Leaving(RecordId, Option<Seq>),
    /// This node has read a neighbour's feed up to here.
    Read {
        /// The lane.
        lane: Lane,
        /// The place.
        cursor: Cursor,
        /// Whether entries came with it that were new.
        brought: bool,
    },
    /// A frontier of this node's own feed.
    Reach(Frontier, Lane, Seq),
    /// Keep a mark.
    Mark(Mark),
    /// Drop a mark.
    Unmark(Mark),
    /// Keep a record's projection.
    Project(Projected),
    /// Every row up to here is folded into the projection.
    Folded(Seq),
    /// Keep a revocation.
    Revoke(Revocation),
    /// Keep an order.
    Order(Order),
    /// What may go to a neighbour by this way is as secret as this at most, and all that may has been offered to it.
    Allow(OrgId, Way, Secrecy),
    /// How far the rows have been offered that children have gained; none when all are.
    Gain(Option<Gain>),
    /// How far this node has forgotten what is no longer for it; none when it has, and has told so.
    Purge(Option<Purge>),
    /// The chaining values of content. Here and below: of what no entry names nothing is kept.
    Tree(Name, Tree),
    /// A piece of content, which fits its chaining value.
    Piece {
        /// Of what.
        name: Name,
        /// Which, from 0.
        nth: usize,
        /// The piece.
        bytes: Vec<u8>,
    },
    /// A piece of content is not what it was: it is not here any more.
    Lose(Name, usize),
    /// Where else all of some content is.
    Kept(Name, Kept),
    /// Forget a record: its rows, those that offer them, its attachments, and all that is known of it. Running hashes stay. No other fact of
    /// the batch is about it.
    Forget(RecordId),
}

/// What a commit makes durable, all or nothing.
pub type Batch = Vec<Op>;

/// Synchronous reads. Whatever has been committed is seen by the next read.
pub trait Store {
    /// The last row of the feed; 0 when it is empty.
    fn tip(&self) -> Result<Seq, StoreError>;
    /// The segments of this node's own feed, oldest first.
    fn segments(&self) -> Result<Vec<Segment>, StoreError>;
    /// The running hash at a row; [`crate::feed::CHAIN_START`] for the row before a segment's first. None also for a row
    /// that is gone, and where it is not known.
    fn chain(&self, at: Seq) -> Result<Option<Chain>, StoreError>;
    /// Rows of one lane after `after`, at most `limit` of them, in order.
    fn heads(&self, lane: Lane, after: Seq, limit: usize) -> Result<Vec<Head>, StoreError>;
    /// The entry of a row, also of a row that offers an older one. None also when it cannot be read, because the row is
    /// gone or what it holds is no entry: one bad row stops nothing. A check finds it.
    fn entry(&self, seq: Seq) -> Result<Option<Entry>, StoreError>;
    /// Whether the store has this change of this record.
    fn has(&self, record: &RecordId, change: &ChangeHash) -> Result<bool, StoreError>;
    /// The homes of a record, in the order in which they became known; empty when the record is unknown.
    fn homes(&self, record: &RecordId) -> Result<Vec<OrgId>, StoreError>;
    /// The grants of a record, sorted.
    fn grants(&self, record: &RecordId) -> Result<Vec<Granted>, StoreError>;
    /// Whose the record is, and to whom it is open: all who may hold it, each once.
    fn held_for(&self, record: &RecordId) -> Result<Vec<OrgId>, StoreError> {
        Ok(grant::held_for(&self.homes(record)?, &self.grants(record)?))
    }
    /// Grants that have not ended and whose time ends at this time or before, in milliseconds since 1970, at most `limit`.
    fn grants_until(&self, time: i64, limit: usize) -> Result<Vec<(RecordId, Granted)>, StoreError>;
    /// The records that are open to this organization by a grant that has not ended.
    fn open_to(&self, org: &OrgId) -> Result<Vec<RecordId>, StoreError>;
    /// To whom something is open by a grant that has not ended, each once, sorted.
    fn grantees(&self) -> Result<Vec<OrgId>, StoreError>;
    /// When the first grant ends of those that have not and whose time ends; none when there is none.
    fn next_grant_end(&self) -> Result<Option<i64>, StoreError>;
    /// The records that are to be forgotten, with the row that has to be at the root.
    fn leaving(&self) -> Result<Vec<(RecordId, Seq)>, StoreError>;
    /// The rows that hold the entries of a record, in feed order, without rows that offer older ones.
    fn rows_of(&self, record: &RecordId) -> Result<Vec<Seq>, StoreError>;
    /// The attachments that the entries of a record name, sorted, with what is here of each.
    fn attachments(&self, record: &RecordId) -> Result<Vec<Held>, StoreError>;
    /// What is here of content; none when no entry names it.
    fn attachment(&self, name: &Name) -> Result<Option<Held>, StoreError> {
        let all = self.attachments(&name.record)?;
        Ok(all.into_iter().find(|held| held.attachment == name.attachment))
    }
    /// The content of which pieces are not here, sorted.
    fn lacking(&self) -> Result<Vec<Name>, StoreError>;
    /// The content that is whole here, of records that are not secret, and not known to be at the root, at most `limit`, what is known least safe first.
    fn unkept(&self, limit: usize) -> Result<Vec<(Name, Kept)>, StoreError>;
    /// The pieces of content that are not here, in order.
    fn missing(&self, name: &Name) -> Result<Vec<usize>, StoreError>;
    /// The chaining values of content; none also when they do not come to its hash any more.
    fn tree(&self, name: &Name) -> Result<Option<Tree>, StoreError>;
    /// A piece of content, as it was read: whether it still fits its chaining value the reader checks.
    fn piece(&self, name: &Name, nth: usize) -> Result<Option<Vec<u8>>, StoreError>;
    /// How secret a record is: the highest degree that an entry of it has ever named here.
    fn secrecy(&self, record: &RecordId) -> Result<Secrecy, StoreError>;
    /// The rows that are secret and hold an entry, in feed order, with their degrees: see [`Head::secrecy`].
    fn secret_rows(&self) -> Result<Vec<(Seq, Secrecy)>, StoreError>;
    /// How secret what goes to neighbours may be, by the last [`Op::Allow`] of each.
    fn allowed(&self) -> Result<Profiles, StoreError>;
    /// How far this node has read that segment in that lane.
    fn read(&self, lane: Lane, segment: Incarnation) -> Result<Option<Progress>, StoreError>;
    /// The furthest cursor that this node has ever had in that segment and lane at or before that place.
    fn read_before(&self, lane: Lane, at: Position) -> Result<Option<Cursor>, StoreError>;
    /// The most recently advanced cursor of each lane in the feed of that node.
    fn read_of_node(&self, node: NodeId) -> Result<Vec<(Lane, Cursor)>, StoreError>;
    /// A frontier; 0 when never set.
    fn frontier(&self, which: Frontier, lane: Lane) -> Result<Seq, StoreError>;
    /// All marks.
    fn marks(&self) -> Result<Vec<Mark>, StoreError>;
    /// An announcement, and what its certificate says.
    fn announcement(&self, incarnation: Incarnation) -> Result<Option<(Announcement, NodeInfo)>, StoreError>;
    /// An announcement of any run of a node of that organization.
    fn announcement_of(&self, org: &OrgId) -> Result<Option<Announcement>, StoreError>;
    /// All nodes that have announced themselves, each once.
    fn nodes(&self) -> Result<Vec<NodeInfo>, StoreError>;
    /// All revocations.
    fn revocations(&self) -> Result<Vec<Revocation>, StoreError>;
    /// All orders.
    fn orders(&self) -> Result<Vec<Order>, StoreError>;
    /// What children have gained and is not offered yet.
    fn gain(&self) -> Result<Option<Gain>, StoreError>;
    /// What is to be forgotten, or has been and nobody was told.
    fn purge(&self) -> Result<Option<Purge>, StoreError>;
    /// The digest of the entries of each home, sorted by home.
    fn digests(&self) -> Result<Vec<(OrgId, Digest)>, StoreError>;
    /// The last row that is folded into the projection.
    fn folded(&self) -> Result<Seq, StoreError>;
    /// The records of the rows after `after` that hold entries, at most `limit`, with their rows.
    fn unfolded(&self, after: Seq, limit: usize) -> Result<Vec<(Seq, RecordId)>, StoreError>;
    /// What the last fold left of a record, with the stored snapshot.
    fn projected(&self, record: &RecordId) -> Result<Option<Projected>, StoreError>;
}

/// A store that can be written.
pub trait StoreMut: Store {
    /// Makes a batch durable, all of it or nothing. After an error nothing more may be asked of the store.
    fn commit(&mut self, batch: &[Op]) -> Result<(), StoreError>;
}

/// A summary of what a store holds, for people and for comparing nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HomeDigest {
    /// The home.
    pub home: OrgId,
    /// Number of entries.
    pub entries: u64,
    /// The sum of [`Digest`] in hexadecimal.
    pub sum: String,
}
