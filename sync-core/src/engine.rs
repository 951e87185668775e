//! The engine: everything that a node decides, as a state machine that is told events and asked for effects.
//!
//! One `handle` call is one mutation; then the host drains `poll_effect`. Reads are synchronous through
//! [`Store`]; writes leave as one [`Effect::Commit`] at a time, and while it is under way whatever else has to
//! become durable is gathered for the next. **The acknowledgement gate**: an acknowledgement to a neighbour and
//! a success to a local writer exist only as a consequence of [`Event::Committed`]. The engine has no clock, no
//! randomness and no cryptography: [`Now`] comes with every event, the rest through [`Identity`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{
    attachment::Name,
    audit::{Checkup, Damage, Summary},
    change::Entry,
    feed::{Cursor, Digest, Position, Segment, Seq},
    id::{EntryHash, Incarnation, Lane, Lanes, NodeId, OrgId, OrgPath, RecordId, Secrecy},
    identity::{Announcement, Authority, NodeInfo, Revocation, Role},
    order::Order,
    scope::{Places, Profiles, Way, check_neighbour, grant::Granted},
    session::{Direction, Link, SETTLE_TIMEOUT_MILLIS, stands},
    store::{Batch, Forgotten, Frontier, Gain, Mark, Offered, Op, Purge, Store, StoreError},
    time::{Millis, Now},
    wire::{EntryBatch, Frame, Hello, WireError},
};

pub use self::attachments::Fetching;
pub use self::audit::Audited;
pub use self::courier::{Export, Heard, Imported, Since, Told};
pub use self::purge::LEAVING_AFTER_MILLIS;
pub use crate::session::LinkId;

pub(crate) mod attachments;
pub(crate) mod audit;
mod claims;
mod commit;
pub(crate) mod courier;
mod grants;
mod heal;
mod orders;
mod purge;
mod receive;
mod secrecy;
mod send;
#[cfg(test)]
mod tests;

/// A frame of revocations or orders is closed before it is larger than this; one revocation is of some two kilobytes.
const STATEMENTS_FRAME_BYTES: usize = 256 << 10;

/// Most things that may wait for the disk before a neighbour that sends more counts as ignoring its window.
pub const INTENTS_MAX: usize = 1 << 16;

/// Of so many commits it is remembered whom their rows are for: a crowd of 700 that comes back brings about as many batches.
const FRESH_MAX: usize = 2_048;

/// Names a local write until it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// This node's own identity, and its judgement of others'.
pub trait Identity: Authority {
    /// What this node's certificate says.
    fn info(&self) -> &NodeInfo;
    /// A fresh name for a run of this node.
    fn mint(&self) -> Incarnation;
    /// Signs a statement of the kind of [`Entry::statement`] with this node's key.
    fn sign(&self, statement: &[u8]) -> Vec<u8>;
    /// Signs the announcement of one of this node's own runs.
    fn announce(&self, incarnation: Incarnation, parent: Option<Position>) -> Announcement;
}

/// What happens to a node.
#[derive(Debug)]
pub enum Event {
    /// A neighbour is connected and has proved who it is. `chain` is its certificate chain, own first.
    Connected {
        /// The link's new name.
        link: LinkId,
        /// What its certificate says.
        peer: NodeInfo,
        /// Its certificates, DER, without the root's.
        chain: Vec<Vec<u8>>,
        /// Which way it leads.
        direction: Direction,
    },
    /// A frame has arrived.
    Received(LinkId, Frame),
    /// Bytes have arrived that are no frame.
    Garbled(LinkId, WireError),
    /// A link has ended.
    Closed(LinkId),
    /// A local write: entries with what they change in the projection. Answered by [`Effect::Written`].
    Write {
        /// Names the write in its answer.
        ticket: Ticket,
        /// The new entries.
        entries: Vec<Entry>,
        /// What belongs to the same transaction: [`Op::Project`], and of attachments [`Op::Tree`] and [`Op::Piece`].
        projection: Vec<Op>,
    },
    /// People have been told what [`Effect::Forgotten`] said.
    ForgottenTold(Vec<Forgotten>),
    /// The outcome of folding: [`Op::Project`] and [`Op::Folded`] only.
    Folded(Vec<Op>),
    /// A revocation that this node's operator has signed.
    Revoke(Revocation),
    /// An order that the root's operator has signed.
    Order(Order),
    /// A child that has said HELLO is asked where it stands, if nobody has announced it: one that has written nothing is
    /// given children by orders as well.
    Locate(LinkId),
    /// A check of the whole store has been made.
    Checked(Checkup),
    /// What the store says of some records beside their entries has been made anew from them.
    Mended,
    /// It has found pieces of attachments that are not what they were, each with its number.
    Rotten(Vec<(Name, usize)>),
    /// Somebody waits for an attachment.
    Fetch(Name),
    /// A leaf is to fetch attachments up to so many bytes unasked; until it is told, none.
    FetchUnasked(u64),
    /// Compare what this node and a neighbour hold. Answered by [`Effect::Audited`], unless the link ends before.
    Audit(LinkId),
    /// The answer to [`Effect::Survey`].
    Surveyed(LinkId, Summary),
    /// The lanes that the link to the parent may carry from now on, either way. All, as long as nothing is said. What waits
    /// in another lane goes on when that is let go; nothing else waits for it.
    Lanes(Lanes),
    /// How secret what goes to neighbours may be from now on, and what comes from them; nothing secret, as long as nothing is
    /// said. Links that stand are met anew.
    Profiles(Profiles),
    /// A courier bundle has come whose seal and signature are good, under a name of its own. What it holds follows, and
    /// then [`Event::BundleEnds`]. One is taken at a time.
    Bundle {
        /// Its name; never that of a link.
        link: LinkId,
        /// Who has made it, as the certificate says.
        peer: NodeInfo,
        /// The certificates, DER, without the root's.
        chain: Vec<Vec<u8>>,
        /// The places from which it goes on.
        from: Vec<(Lane, Cursor)>,
        /// No later one of the same node has been taken.
        newest: bool,
    },
    /// A frame of the bundle.
    Bundled(LinkId, Frame),
    /// That was all of it. Answered by [`Effect::Imported`], when what was taken is durable.
    BundleEnds(LinkId),
    /// The batch of the last [`Effect::Commit`] is durable.
    Committed,
    /// The time that [`Engine::poll_timeout`] gave has come.
    Timeout,
}

/// What the host is to do.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Make this batch durable, then say [`Event::Committed`]; on failure end the process.
    Commit(Batch),
    /// Send a frame; batches on the stream of their lane, everything else on the control stream.
    Send(LinkId, Frame),
    /// End a link. Whatever was sent before is to be delivered if it can be.
    Close(LinkId),
    /// A local write is durable.
    Written(Ticket),
    /// Read the rows of these homes that are not more secret than that, and say [`Event::Surveyed`]. There is time.
    Survey(LinkId, Vec<OrgId>, Secrecy),
    /// An audit that was ordered has ended.
    Audited(LinkId, Audited),
    /// A bundle has been taken, or a part of it.
    Imported(LinkId, Box<Imported>),
    /// All that is no longer for this node has been forgotten: people are to be told how much that was, and then
    /// [`Event::ForgottenTold`] is to be said.
    Forgotten(Purge),
    /// Somebody should know.
    Alert(Alert),
}

/// What an operator should know. Never carries a clinical value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alert {
    /// This node ended a link, and why.
    Refused {
        /// The neighbour.
        peer: NodeInfo,
        /// The code of [`refusal`].
        code: u16,
        /// What, why, what to do.
        text: String,
    },
    /// The neighbour ended a link, and why.
    RefusedByPeer {
        /// The neighbour.
        peer: NodeInfo,
        /// Its code.
        code: u16,
        /// What, why, what to do.
        text: String,
    },
    /// The neighbour came back from an older copy of its store; what it lost is being sent to it.
    Restored {
        /// The neighbour.
        peer: NodeInfo,
    },
    /// This node's feed was written by two machines; its own part goes on under a new name.
    Forked {
        /// The name that both used.
        segment: Incarnation,
    },
    /// An order has moved this node, or says where its parent listens.
    Moved {
        /// Where it stands now.
        to: OrgPath,
    },
    /// A row that should have gone to a neighbour cannot be read, and was passed over. A check of the store is due.
    Unread {
        /// The row.
        row: Seq,
    },
    /// What the neighbour gives for an attachment of a record is something else. It is not taken, and asked for elsewhere.
    NoContent {
        /// The neighbour.
        peer: NodeInfo,
        /// The record.
        record: crate::id::RecordId,
    },
    /// Two organizations have made a record of one name, each for itself: both hold all that either writes of it. Two patients may
    /// have been given one id.
    TwoHomes {
        /// The record.
        record: crate::id::RecordId,
        /// Whose it was, and whose it is now as well.
        homes: [OrgId; 2],
        /// How many others came to be so in the same commit.
        others: usize,
    },
    /// Two running machines have the identity of one node.
    TwoMachines {
        /// The node.
        peer: NodeInfo,
    },
}

/// Codes of [`Frame::Refuse`] that the engine itself gives. Codes below 100 belong to certificates.
pub mod refusal {
    /// The neighbour broke the protocol.
    pub const PROTOCOL: u16 = 100;
    /// A record of a place that the neighbour, or the author, may not speak for.
    pub const OUTSIDE_SUBTREE: u16 = 101;
    /// Two places use one organization id.
    pub const NAME_CLASH: u16 = 102;
    /// The neighbour did not say what it had to in time.
    pub const TIMEOUT: u16 = 103;
    /// The same run has a newer connection.
    pub const REPLACED: u16 = 104;
    /// Something more secret than this node's profile of the neighbour allows.
    pub const SECRET: u16 = 105;
    /// An order has moved one of the two.
    pub const MOVED: u16 = 106;
}

/// Who has sent something; it may be gone by the time when that becomes durable.
#[derive(Debug, Clone)]
struct Sender {
    link: LinkId,
    direction: Direction,
    place: OrgPath,
    /// How secret what comes from there may be.
    allowed: Secrecy,
}

/// Something that waits to become durable. What has been received of a neighbour's feed becomes durable by whole
/// stretches: a row is never kept without the cursor that has passed it.
#[derive(Debug, Clone)]
enum Intent {
    Receive(Sender, Vec<EntryBatch>),
    /// Of a feed that is read further or not so far; the cursor stays.
    Bring(Sender, Vec<EntryBatch>),
    Stand(Vec<(Lane, Cursor)>),
    Announce(LinkId, Announcement, NodeInfo),
    AnnounceOwn(Segment),
    Write(Ticket, Vec<Entry>, Vec<Op>),
    Folded(Vec<Op>),
    Revoke(Revocation),
    Order(Order),
    Orders(Vec<Order>),
    Fork(Incarnation),
    Heal(Seq, Entry),
    Repair(Sender, Vec<Entry>),
    ForgottenTold(Vec<Forgotten>),
    /// Of an attachment, for this or another reason.
    Content(Op),
    Allow(OrgId, Way, Secrecy),
    /// The neighbour at a link is told that it has read what this node does not know, when that is durable.
    Lost(LinkId),
    /// An audit that began then has given these rows to the parent.
    Gave(Millis, Vec<Seq>),
}

/// Rows that a commit has appended, as far as it matters whom they are for.
#[derive(Debug, Clone, Default)]
struct Fresh {
    /// The last row before them, and the last of them.
    before: Seq,
    upto: Seq,
    /// How many, by lane.
    rows: [u64; 3],
    /// The homes of their records.
    homes: BTreeSet<OrgId>,
    /// Some are issued to everybody below, or offer older entries: each link has to look at all.
    for_all: bool,
}

/// What follows when the commit that is under way is durable.
#[derive(Debug, Clone)]
struct Consequences {
    acks: BTreeMap<(LinkId, Lane), Position>,
    received: BTreeSet<Incarnation>,
    /// The places of new entries, with the links that have brought them.
    brought: Vec<(LinkId, Lane, Position)>,
    written: Vec<Ticket>,
    tip: Seq,
    segments: Option<Vec<Segment>>,
    live: Option<Incarnation>,
    run: Incarnation,
    last: [Seq; 3],
    new_marks: Vec<Mark>,
    announced: Vec<Announcement>,
    /// How many entries of each repair are kept by it.
    repaired: Vec<(LinkId, u64)>,
    healed: Vec<(OrgId, EntryHash)>,
    gain: Option<Gain>,
    purge: Option<Purge>,
    /// When the next grant ends; to be asked of the store when some have ended by this commit.
    grant_end: Option<i64>,
    grants_ended: bool,
    /// To whom it opens something, though nobody here knows where they stand.
    seeks: Vec<OrgId>,
    /// Records that are to be forgotten because grants have ended, and those of which no word has come that they are for this
    /// node.
    leaving: Vec<RecordId>,
    unheard: Vec<RecordId>,
    fresh: Fresh,
    /// Records that got another home, with one that they had and the new one.
    two_homes: Vec<(RecordId, [OrgId; 2])>,
    /// Orders of this node, which hold now that they are durable: a root must not forget one that others have heard of.
    ordered: Vec<Order>,
    renamed: bool,
    revoked: bool,
    /// Content of which something becomes durable, for each time, and content that new entries name.
    contents: Vec<Name>,
    named: Vec<Name>,
    /// A record is somebody's to whom it was not, or somebody stands where nobody was known to.
    scope_grows: bool,
    allowed: Vec<(OrgId, Way, Secrecy)>,
    lost: Vec<LinkId>,
    /// Where the doubt ends, by lane, that there was when the audit began.
    doubt: Option<(Millis, [Seq; 3])>,
}

/// How a link stands, for people.
#[derive(Debug, Clone)]
pub struct LinkStatus {
    /// The link.
    pub link: LinkId,
    /// The neighbour.
    pub peer: NodeInfo,
    /// Which way it leads.
    pub direction: Direction,
    /// Whether both sides know where to go on.
    pub settled: bool,
    /// Whether nothing is under way to the neighbour.
    pub idle: bool,
    /// The neighbour's software, once it has said HELLO.
    pub software: Option<String>,
    /// The run of its program, likewise.
    pub run: Option<Incarnation>,
    /// Entries that are still to go to the neighbour beyond what is under way, as it was told last.
    pub to_go: u64,
    /// Entries that are still to come from the neighbour, as it has said last.
    pub to_come: u64,
}

/// What waits in memory, of the fullest link and of the whole node. Each number has a limit with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Queues {
    /// Batches that a link holds back, at most [`crate::session::HELD_MAX_BATCHES`].
    pub held_batches: usize,
    /// Bytes of their entries and of stretches that are not complete; above [`crate::session::HELD_MAX_BYTES`] nothing is
    /// added.
    pub held_bytes: usize,
    /// Organizations of which a link asks, or is asked, where they stand, or runs that the neighbour wants, at most
    /// [`crate::session::PLACES_MAX`].
    pub places: usize,
    /// What waits for the disk; at [`INTENTS_MAX`] no batch is taken.
    pub intents: usize,
}

/// The state machine of one node. See the module's own text for its contract. A clone is what a snapshot of the
/// running machine would be.
#[derive(Clone)]
pub struct Engine<I> {
    identity: I,
    software: String,
    run: Incarnation,
    live: Option<Incarnation>,
    tip: Seq,
    segments: Vec<Segment>,
    places: Places,
    links: BTreeMap<LinkId, Link>,
    /// The lanes that the link to the parent may carry.
    lanes_up: Lanes,
    /// The last row by lane that has to go up, and what is durable elsewhere.
    last: [Seq; 3],
    claims: claims::Claims,
    marks: BTreeSet<Mark>,
    stale_marks: Vec<Mark>,
    intents: VecDeque<Intent>,
    import: Option<Box<courier::Import>>,
    committing: Option<Consequences>,
    /// The latest commits that have appended rows, oldest first and without a gap.
    fresh: VecDeque<Fresh>,
    effects: VecDeque<Effect>,
    revocations: u64,
    gain: Option<Gain>,
    purge: Option<Purge>,
    /// Where the root stood when what was to be forgotten next was not there yet.
    purge_waits: Option<[Seq; 3]>,
    /// What this node's operator allows, and how secret what goes to each neighbour may be, as far as that is durable.
    profiles: Profiles,
    allowed: Profiles,
    /// When the first grant ends that has not, by the wall clock.
    grant_end: Option<i64>,
    /// To whom something is open, or belongs, of whom nobody here knows, or knew, where they stand.
    seeks: BTreeSet<OrgId>,
    /// Where, in this process, the last offer of all of a record ends that was made to whom it is open.
    offered: BTreeMap<(RecordId, OrgId), Seq>,
    /// Whether the store holds records that are to be forgotten because grants have ended, and what for they wait.
    leaving: bool,
    leaving_waits: Option<purge::Waits>,
    unheard: purge::Unheard,
    /// When the last audit with the parent began that has come to its end, in this process and since it has heard that it may have
    /// lost something.
    audited: Option<Millis>,
    /// How far the wall clock is ahead of the monotonic one.
    wall_ahead: i64,
    /// Rows that a check has found damaged.
    damaged: BTreeMap<Seq, Damage>,
    /// What the digests count and no row holds, by home.
    missing: BTreeMap<OrgId, Digest>,
    contents: attachments::Contents,
}

impl<I: Identity> Engine<I> {
    /// A node that starts: a fresh run on what the store holds.
    pub fn new(identity: I, software: &str, store: &impl Store) -> Result<Self, StoreError> {
        let run = identity.mint();
        let mut places = Places::default();
        places.learn(&identity.info().place);
        for node in store.nodes()? {
            places.learn(&node.place);
        }
        for order in store.orders()? {
            places.follow(&order);
        }
        // Where the homes stand of what is here was known once.
        let homes = store.digests()?.into_iter().map(|(home, _)| home);
        let lost: Vec<_> = homes.filter(|home| places.stands(home).is_none()).collect();
        // A process does not remember for what a record waits; its grants tell whether it was for this node.
        let (mut heard, mut unheard) = (Vec::new(), Vec::new());
        for (record, _) in store.leaving()? {
            let own = places.stands(identity.info().place.org());
            let ended = |one: &Granted| {
                one.over.is_some() && own.is_some_and(|own| places.is_within(&one.grant.to, own))
            };
            let list = if store.grants(&record)?.iter().any(ended) { &mut heard } else { &mut unheard };
            list.push(record);
        }
        let mut engine = Self {
            identity,
            software: software.to_owned(),
            run,
            live: None,
            tip: store.tip()?,
            segments: store.segments()?,
            places,
            links: BTreeMap::new(),
            lanes_up: Lanes::ALL,
            last: [0; 3],
            claims: claims::Claims::kept(store)?,
            marks: store.marks()?.into_iter().collect(),
            stale_marks: Vec::new(),
            intents: VecDeque::new(),
            import: None,
            committing: None,
            fresh: VecDeque::new(),
            effects: VecDeque::new(),
            revocations: revocation_digest(&store.revocations()?),
            profiles: Profiles::default(),
            allowed: store.allowed()?,
            gain: store.gain()?,
            purge: store.purge()?,
            purge_waits: None,
            grant_end: store.next_grant_end()?,
            seeks: store.grantees()?.into_iter().chain(lost).collect(),
            offered: BTreeMap::new(),
            leaving: !heard.is_empty(),
            leaving_waits: None,
            unheard: purge::Unheard::found(unheard),
            audited: None,
            wall_ahead: 0,
            damaged: BTreeMap::new(),
            missing: BTreeMap::new(),
            contents: attachments::Contents::default(),
        };
        for lane in Lane::ALL {
            engine.last[lane as usize] = store.frontier(Frontier::Last, lane)?.min(engine.tip);
        }
        for segment in &engine.segments {
            if store.announcement(segment.incarnation)?.is_none() {
                engine.intents.push_back(Intent::AnnounceOwn(*segment));
            }
        }
        engine.tell_what_is_forgotten();
        engine.want_what_is_lacking(store)?;
        Ok(engine)
    }

    /// The actor under which local changes have to be made now.
    pub fn incarnation(&self) -> Incarnation {
        self.run
    }

    /// What this node's certificate says.
    pub fn info(&self) -> &NodeInfo {
        self.identity.info()
    }

    /// This node's identity.
    pub fn identity(&self) -> &I {
        &self.identity
    }

    /// Where organizations stand, as far as this node has heard.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// The lanes that the link to the parent may carry.
    pub fn lanes_up(&self) -> Lanes {
        self.lanes_up
    }

    /// Whether this node is the root.
    pub fn is_root(&self) -> bool {
        self.info().role == Role::Root
    }

    /// Every link to a neighbour, for people.
    pub fn links(&self) -> impl Iterator<Item = LinkStatus> {
        self.links.values().filter(|link| !link.stranger).map(|link| LinkStatus {
            link: link.id,
            peer: link.peer.clone(),
            direction: link.direction,
            settled: link.is_settled(),
            idle: link.is_idle(),
            software: link.hello.as_ref().map(|hello| hello.software.clone()),
            run: link.hello.as_ref().map(|hello| hello.run),
            to_go: link.told_to_come.map_or(0, |(count, _)| count),
            to_come: link.to_come,
        })
    }

    /// What waits in memory.
    pub fn queues(&self) -> Queues {
        let most = |of: fn(&Link) -> usize| self.links.values().map(of).max().unwrap_or(0);
        Queues {
            held_batches: most(|link| link.held.len()),
            held_bytes: most(Link::held_bytes),
            places: most(|link| link.asked_places.len().max(link.wanted_places.len()).max(link.wanted.len())),
            intents: self.intents.len(),
        }
    }

    /// One mutation. Afterwards drain [`Engine::poll_effect`].
    pub fn handle(&mut self, event: Event, store: &impl Store, now: Now) -> Result<(), StoreError> {
        self.wall_ahead = now.wall.saturating_sub_unsigned(now.mono);
        self.leaving_is_due(now);
        let links = self.links.len();
        match event {
            Event::Connected { link, peer, chain, direction } => {
                self.connected(Link::new(link, peer, chain, direction, now.mono), store)?;
            }
            Event::Received(link, frame) => self.received(link, frame, store, now)?,
            Event::Garbled(link, error) => {
                let text = format!("{error}; the neighbour's software or its store is damaged");
                self.refuse(link, refusal::PROTOCOL, text);
            }
            Event::Closed(link) => {
                self.links.remove(&link);
            }
            Event::Write { ticket, entries, projection } => {
                let signed = |entry: Entry| entry.signed(|statement| self.identity.sign(statement));
                let entries = entries.into_iter().map(signed).collect();
                self.intents.push_back(Intent::Write(ticket, entries, projection));
            }
            Event::Folded(ops) => self.intents.push_back(Intent::Folded(ops)),
            Event::ForgottenTold(told) => self.intents.push_back(Intent::ForgottenTold(told)),
            Event::Revoke(revocation) => self.intents.push_back(Intent::Revoke(revocation)),
            Event::Order(order) => self.intents.push_back(Intent::Order(order)),
            Event::Locate(link) => self.locate(link),
            Event::Checked(checkup) => self.checked(checkup, store)?,
            Event::Mended => {
                self.grant_end = store.next_grant_end()?;
                self.seeks.extend(store.grantees()?);
                self.want_what_is_lacking(store)?;
            }
            Event::Rotten(pieces) => self.pieces_are_rotten(pieces),
            Event::Fetch(name) => self.fetch(name, store, now)?,
            Event::FetchUnasked(bytes) => self.take_unasked_max(bytes, store, now)?,
            Event::Audit(link) => self.begin_audit(link, store, now)?,
            Event::Surveyed(link, summary) => {
                self.surveyed(link, summary, store)?;
                self.go_on(link, store, now)?;
            }
            Event::Lanes(lanes) => self.take_lanes(lanes, store, now)?,
            Event::Profiles(profiles) => self.take_profiles(profiles),
            Event::Bundle { link, peer, chain, from, newest } => {
                self.bundle_begins(link, peer, chain, from, newest)
            }
            Event::Bundled(link, frame) => self.bundle_has(link, Some(frame)),
            Event::BundleEnds(link) => self.bundle_has(link, None),
            Event::Committed => self.committed(store, now)?,
            Event::Timeout => self.refuse_the_unsettled(now),
        }
        self.bundle_goes_on(store)?;
        if self.links.len() < links {
            self.others_may_have_it(store, now)?;
        }
        self.commit_next(store, now)
    }

    /// What to do next; none when there is nothing until the next event.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Event::Timeout`] is due, on the clock of [`Now::mono`], and why.
    pub fn poll_timeout(&self) -> Option<(Millis, &'static str)> {
        let unsettled = self.links.values().filter(|link| !link.is_settled());
        let unsettled =
            unsettled.map(|link| (link.since + SETTLE_TIMEOUT_MILLIS, "a neighbour has not settled"));
        let ends = [self.grant_end, self.told_until()].into_iter().flatten().min();
        let ends = ends
            .filter(|_| self.committing.is_none())
            .map(|end| u64::try_from(end.saturating_sub(self.wall_ahead)).unwrap_or(0));
        let leaves = self.unheard.next(self.audited).map(|at| (at, "what is not for this node is forgotten"));
        unsettled.chain(ends.map(|at| (at, "a grant ends"))).chain(leaves).min()
    }

    fn connected(&mut self, mut link: Link, store: &impl Store) -> Result<(), StoreError> {
        let id = link.id;
        link.said = self.tip;
        link.name(stands(link.peer.node, store)?, not_yet_durable(&self.intents, &self.committing));
        // A revocation may have become durable after the handshake.
        let admitted = self.identity.admit(&link.chain);
        link.peer.place = self.places.now(&link.certified.place);
        let is_neighbour = check_neighbour(self.place(), &link.peer, link.direction).is_ok();
        let of_same =
            |other: &&mut Link| admitted.is_ok() && is_neighbour && other.peer.node == link.peer.node;
        for other in self.links.values_mut().filter(of_same) {
            (other.doubled, link.doubled) = (true, true);
        }
        link.stranger = !is_neighbour;
        let before = self.links.insert(id, link);
        assert!(before.is_none(), "a link's name is used once");
        match admitted {
            Ok(()) => self.begin(id),
            Err(refusal) => self.refuse(id, refusal.code(), refusal.to_string()),
        }
        Ok(())
    }

    /// Says HELLO to a neighbour. With one that is none by the certificates orders are exchanged first: one of the two may
    /// not know that it has been moved.
    pub(super) fn begin(&mut self, link: LinkId) {
        let Some(state) = self.links.get(&link) else { return };
        let hello = Hello {
            run: self.run,
            software: self.software.clone(),
            tip: self.position(state.said),
            cursors: state.named.clone(),
            revocations: self.statements(),
            allows: self.profiles.allowed(state.peer.place.org(), Way::Link),
        };
        let (stranger, certified, direction) = (state.stranger, &state.certified, state.direction);
        if stranger || check_neighbour(&self.info().place, certified, direction).is_err() {
            self.send_orders(link);
            self.send(link, Frame::Orders(Vec::new()));
        }
        let tells = direction == Direction::Up && self.lanes_up != Lanes::ALL;
        if !stranger && tells {
            self.send(link, Frame::Lanes(self.lanes_up));
        }
        if !stranger {
            self.send(link, Frame::Hello(hello));
        }
    }

    fn refuse_the_unsettled(&mut self, now: Now) {
        let late = |link: &&Link| !link.is_settled() && link.since + SETTLE_TIMEOUT_MILLIS <= now.mono;
        let late: Vec<_> = self.links.values().filter(late).map(|link| link.id).collect();
        for link in late {
            let text = "the neighbour did not say how far it has read; it will be dialled again".to_owned();
            self.refuse(link, refusal::TIMEOUT, text);
        }
    }

    /// Where a row of this node's own feed stands; none for 0.
    fn position(&self, seq: Seq) -> Option<Position> {
        let index = self.segments.partition_point(|s| s.base < seq).checked_sub(1)?;
        let segment = self.segments[index];
        Some(Position { segment: segment.incarnation, pos: seq - segment.base })
    }

    /// The row at a place in this node's own feed; none when the segment is not its own.
    fn seq_of(&self, at: Position) -> Option<Seq> {
        let index = self.segments.iter().rposition(|s| s.incarnation == at.segment)?;
        let end = self.segments.get(index + 1).map_or(self.tip, |next| next.base);
        Some(self.segments[index].base + at.pos).filter(|seq| *seq <= end)
    }

    fn send(&mut self, link: LinkId, frame: Frame) {
        self.effects.push_back(Effect::Send(link, frame));
    }

    /// Sends what is known of revocations, in frames that fit.
    fn send_revocations(&mut self, link: LinkId, all: &[Revocation]) {
        for part in frames_of(all, |one| one.encode().len()) {
            self.send(link, Frame::Revocations(part.to_vec()));
        }
    }

    /// The digest of what is known of revocations and orders.
    fn statements(&self) -> u64 {
        self.revocations.wrapping_add(digest_of(self.places.orders().iter().map(Order::encode)))
    }

    /// Ends a link; it will be dialled again.
    fn hang_up(&mut self, link: LinkId) {
        if self.links.remove(&link).is_some() {
            self.effects.push_back(Effect::Close(link));
        }
    }

    /// Ends a link, with a message on both sides.
    fn refuse(&mut self, link: LinkId, code: u16, text: String) {
        if let Some(import) = self.import.as_mut().filter(|import| import.link == link) {
            import.outcome.refused.get_or_insert((code, text));
            return;
        }
        let Some(gone) = self.links.remove(&link) else { return };
        self.send(link, Frame::Refuse { code, text: text.clone() });
        self.effects.push_back(Effect::Close(link));
        self.effects.push_back(Effect::Alert(Alert::Refused { peer: gone.peer, code, text }));
    }

    fn links_of(&self, node: NodeId) -> Vec<LinkId> {
        self.links.values().filter(|link| link.peer.node == node).map(|link| link.id).collect()
    }
}

/// The segments of which rows have been received that are not durable yet.
fn not_yet_durable(intents: &VecDeque<Intent>, committing: &Option<Consequences>) -> BTreeSet<Incarnation> {
    let waiting = intents.iter().filter_map(|intent| match intent {
        Intent::Receive(_, stretch) => stretch.first().map(|batch| batch.segment),
        _ => None,
    });
    let under_way = committing.iter().flat_map(|after| after.received.iter().copied());
    waiting.chain(under_way).collect()
}

/// An entry that its author has to sign and has not: of a record that an organization issues, or with grants.
fn not_signed(sender: &OrgPath, entry: &Entry) -> (u16, String) {
    let text = format!(
        "{sender} offered a change of {} that nobody has signed who speaks for {}; ask who runs {sender}, and revoke it if they do not know",
        entry.record(),
        entry.home()
    );
    (refusal::OUTSIDE_SUBTREE, text)
}

/// An entry that is more secret than what may come from the sender.
fn secret(sender: &OrgPath, entry: &Entry) -> (u16, String) {
    let text = format!(
        "{sender} offered a change of {} that is marked secret, and what comes from there may not be by this node's profiles; \
         nothing of it was kept. Ask who runs {sender} how it came to leave, and tell whoever answers for state secrets there",
        entry.record()
    );
    (refusal::SECRET, text)
}

/// A record or a run of a place for which the sender may not speak.
fn outside(sender: &OrgPath, home: &OrgId) -> (u16, String) {
    let text = format!(
        "{sender} offered entries of {home}, for which it or their author may not speak; check where that \
         organization is enrolled"
    );
    (refusal::OUTSIDE_SUBTREE, text)
}

/// An announcement of the sender's own run: its chain is the one that the session has proved.
fn without_chain(announcement: &Announcement) -> Announcement {
    Announcement { chain: Vec::new(), ..announcement.clone() }
}

fn revocation_digest(all: &[Revocation]) -> u64 {
    digest_of(all.iter().map(Revocation::encode))
}

/// A digest of a set of statements: the sum of the first eight bytes of each one's SHA-256.
fn digest_of(all: impl Iterator<Item = Vec<u8>>) -> u64 {
    use sha2::{Digest, Sha256};
    let one = |encoded: Vec<u8>| {
        let hash: [u8; 32] = Sha256::digest(encoded).into();
        u64::from_be_bytes(hash[..8].try_into().expect("eight bytes"))
    };
    all.map(one).fold(0, u64::wrapping_add)
}

/// Statements in frames that fit.
fn frames_of<T>(all: &[T], bytes_of: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let (mut rest, mut frames) = (all, Vec::new());
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take_while(|one| {
            bytes += bytes_of(one);
            bytes <= STATEMENTS_FRAME_BYTES
        });
        let (part, more) = rest.split_at(fits.count().max(1));
        frames.push(part);
        rest = more;
    }
    frames
}
