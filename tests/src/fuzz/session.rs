//! A node among hostile neighbours: whatever they say, in whatever order, the engine keeps its contract, sends nobody
//! what is not theirs, and takes from nobody what is not theirs to give.
//!
//! The node under test is a hub below a root, with two children; its neighbours have genuine certificates and may be
//! anybody of the tree (`crate::hostile`).

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use sync_core::{
    attachment::{Name, Tree},
    audit::Harm,
    engine::{Effect, Engine, Event, LinkId, Ticket},
    feed::Position,
    id::{Incarnation, Lane, NodeId, OrgId, OrgPath, RecordId, Secrecy},
    identity::{NodeInfo, Role},
    session::{Direction, HELD_MAX_BATCHES, SETTLE_TIMEOUT_MILLIS},
    store::{Batch, MemStore, Op, Store, StoreMut},
    time::Now,
    wire::{FRAME_MAX_BYTES, Frame, WireError},
};

use crate::{
    bytes::Choices,
    conformance::{entry, org, record},
    hostile::Hostile,
    sim::{
        identity::{Expired, Registry, SimIdentity},
        rng::Rng,
    },
};

const STEPS_MAX: usize = 200;
/// The tree; the node under test is the second.
const TREE: [(&str, Role); 5] = [
    ("tw", Role::Root),
    ("tw/hg", Role::Hub),
    ("tw/hg/dv", Role::Leaf),
    ("tw/hg/mv", Role::Leaf),
    ("tw/qn", Role::Leaf),
];
const UNDER_TEST: usize = 1;
const HOMES: [&str; 6] = ["dv", "mv", "hg", "qn", "tw", "nobody"];
const RECORDS: [&str; 5] = ["Patient/1", "Patient/2", "Flag/3", "AuditEvent/4", "Observation/5"];
/// Most bytes of a frame's length.
const LENGTH_MAX_BYTES: usize = 3;
/// A batch that is sent on and on has come too often by then: those that wait, and some that were taken.
const FLOOD_BATCHES: usize = HELD_MAX_BATCHES + 8;

fn info(n: usize) -> NodeInfo {
    let (place, role) = TREE[n];
    NodeInfo { node: NodeId([n as u8 + 1; 16]), place: place.parse().expect("a path"), role }
}

/// Where an organization stands.
fn place_of(org: &OrgId) -> Option<OrgPath> {
    (0..TREE.len()).map(|n| info(n).place).find(|place| place.org() == org)
}

fn is_within(org: &OrgId, place: &OrgPath) -> bool {
    place_of(org).is_some_and(|at| at.is_within(place))
}

/// A link that stands, as its other end knows it.
struct Open {
    peer: NodeInfo,
    direction: Direction,
    said_hello: bool,
}

struct World {
    engine: Engine<SimIdentity>,
    store: MemStore,
    neighbours: Vec<SimIdentity>,
    nodes: Vec<NodeInfo>,
    runs: Vec<Incarnation>,
    records: Vec<RecordId>,
    homes: Vec<OrgId>,
    links: BTreeMap<LinkId, Open>,
    next_link: u64,
    committing: Option<Batch>,
    now: Now,
    serial: u64,
    writes: BTreeSet<Ticket>,
    flooded: bool,
    surveys: Vec<(LinkId, Vec<OrgId>, Secrecy)>,
    names: Vec<Name>,
}

/// The bytes tell what happens to the node.
pub fn session(data: &[u8]) {
    let mut c = Choices::new(data);
    let mut world = World::new();
    for _ in 0..STEPS_MAX {
        if c.is_done() {
            break;
        }
        world.step(&mut c);
    }
    while world.committing.is_some() {
        world.disk_is_done();
    }
    assert!(world.writes.is_empty(), "every local write is answered");
    while let Some(ops) = sync_core::fold::next(&world.store, 100).expect("memory does not fail") {
        world.happens(Event::Folded(ops));
        while world.committing.is_some() {
            world.disk_is_done();
        }
    }
}

impl World {
    fn new() -> Self {
        let registry: Registry = Rc::new((0..TREE.len()).map(|n| (info(n).node, info(n))).collect());
        let identity =
            |n| SimIdentity::new(&registry, &Expired::default(), &info(n), Rng::new(n as u64, "names"));
        let (attachment, _) = Tree::of(&[7; 20_000]).expect("a size that it may have");
        let store = MemStore::default();
        let engine = Engine::new(identity(UNDER_TEST), "f", &store).expect("memory does not fail");
        Self {
            engine,
            store,
            neighbours: (0..TREE.len()).map(identity).collect(),
            nodes: (0..TREE.len()).map(info).collect(),
            runs: (0..8).map(|n| Incarnation([n; 16])).collect(),
            records: RECORDS.map(record).to_vec(),
            homes: HOMES.map(org).to_vec(),
            links: BTreeMap::new(),
            next_link: 0,
            committing: None,
            now: Now { mono: 0, wall: 0 },
            serial: 0,
            writes: BTreeSet::new(),
            flooded: false,
            surveys: Vec::new(),
            names: RECORDS.map(|name| Name { record: record(name), attachment }).to_vec(),
        }
    }

    fn step(&mut self, c: &mut Choices<'_>) {
        let link = self.a_link(c);
        match (c.below(16), link) {
            (0, _) | (_, None) => self.connects(c),
            (1, Some(link)) if c.one_in(3) => self.happens(Event::Audit(link)),
            (1, _) if c.one_in(8) => self.rots(c),
            (1, _) => self.writes(c),
            (2 | 3, _) => self.disk_is_done(),
            (4, Some(link)) if c.one_in(2) => {
                self.links.remove(&link);
                self.happens(Event::Closed(link));
            }
            (4, Some(link)) => self.happens(Event::Garbled(link, WireError::UnknownType(99))),
            (5, _) if c.one_in(4) => {
                self.now.mono += SETTLE_TIMEOUT_MILLIS;
                self.happens(Event::Timeout);
            }
            (5, _) => self.now.mono += u64::from(c.byte()) * 100,
            (6, Some(link)) if !self.flooded => self.floods(link, c),
            (_, Some(link)) => {
                let frame = self.a_frame(link, c);
                self.receives(link, frame);
            }
        }
    }

    fn a_link(&self, c: &mut Choices<'_>) -> Option<LinkId> {
        let links: Vec<_> = self.links.keys().copied().collect();
        (!links.is_empty()).then(|| c.pick(&links))
    }

    fn connects(&mut self, c: &mut Choices<'_>) {
        let (n, direction) = c.pick(&[(2, Direction::Down), (3, Direction::Down), (0, Direction::Up)]);
        let (peer, link) = (info(n), LinkId(self.next_link));
        self.next_link += 1;
        self.links.insert(link, Open { peer: peer.clone(), direction, said_hello: false });
        let chain = SimIdentity::chain(peer.node);
        self.happens(Event::Connected { link, peer, chain, direction });
    }

    /// The node's own people write; the entries that they make are sound.
    fn writes(&mut self, c: &mut Choices<'_>) {
        self.serial += 1;
        let ticket = Ticket(self.serial);
        let record = record(c.pick(&RECORDS));
        let lane = Lane::of_resource_type(record.resource_type());
        let home = org(c.pick(&["hg", "dv", "mv"]));
        let length = c.below(40);
        let entry = entry(&record, &home, lane, self.engine.incarnation(), self.serial, &[], c.take(length));
        self.writes.insert(ticket);
        self.happens(Event::Write { ticket, entries: vec![entry], projection: Vec::new() });
    }

    /// A row is no more, or is spoilt, and the node's check finds it.
    fn rots(&mut self, c: &mut Choices<'_>) {
        let row = 1 + c.below(16) as u64;
        let harm = c.pick(&[Harm::Gone, Harm::Damaged]);
        // What is on its way to the disk was made of what was there.
        if self.committing.is_none() {
            self.store.rot(row, harm);
            self.happens(Event::Checked(self.store.check()));
        }
    }

    /// A neighbour that sends on and on is refused before it fills the memory.
    fn floods(&mut self, link: LinkId, c: &mut Choices<'_>) {
        self.flooded = true;
        if !c.one_in(8) {
            return;
        }
        let mut batch = self.hostile().batch(c);
        // Of what moves the cursor any number may come, once the cursors are agreed on.
        batch.upto = batch.upto.filter(|_| !self.links[&link].said_hello);
        if batch.upto.is_none() {
            batch.entries.clear();
        }
        let frame = Frame::Batch(batch);
        for _ in 0..FLOOD_BATCHES {
            if !self.links.contains_key(&link) {
                return;
            }
            self.receives(link, frame.clone());
        }
        assert!(!self.links.contains_key(&link), "what is held back of a neighbour is bounded");
    }

    /// A frame arrives as bytes; of what is larger than a frame, or is none, the transport says so.
    fn receives(&mut self, link: LinkId, frame: Frame) {
        let bytes = frame.encode();
        let mut deframer = sync_core::wire::Deframer::default();
        deframer.push(&bytes);
        match deframer.next_frame() {
            Ok(Some(frame)) => {
                if let (Frame::Hello(_), Some(open)) = (&frame, self.links.get_mut(&link)) {
                    open.said_hello = true;
                }
                self.happens(Event::Received(link, frame));
            }
            Ok(None) => panic!("a frame is whole"),
            Err(error) => self.happens(Event::Garbled(link, error)),
        }
    }

    fn a_frame(&mut self, link: LinkId, c: &mut Choices<'_>) -> Frame {
        if !self.links[&link].said_hello && !c.one_in(8) {
            return Frame::Hello(self.hostile().hello(c));
        }
        self.hostile().frame(c)
    }

    /// Who speaks at the other end of a link: somebody with the keys of the whole tree.
    fn hostile(&mut self) -> Hostile<'_> {
        Hostile {
            run: self.engine.incarnation(),
            store: &self.store,
            runs: &self.runs,
            keys: &self.neighbours,
            nodes: &self.nodes,
            records: &self.records,
            homes: &self.homes,
            serial: &mut self.serial,
            // Inputs of before there was content mean what they meant.
            names: if self.flooded { &self.names } else { &[] },
        }
    }

    fn disk_is_done(&mut self) {
        if let Some(batch) = self.committing.take() {
            // The reference store panics when the engine asks for what no store can do.
            self.store.commit(&batch).expect("memory does not fail");
            self.happens(Event::Committed);
        }
        if let Some((link, homes, allowed)) = self.surveys.pop() {
            self.happens(Event::Surveyed(link, self.store.summary(&homes, allowed)));
        }
    }

    fn happens(&mut self, event: Event) {
        let durable = matches!(event, Event::Committed);
        self.engine.handle(event, &self.store, self.now).expect("memory does not fail");
        while let Some(effect) = self.engine.poll_effect() {
            self.is_allowed(effect, durable);
        }
        let known: BTreeSet<_> = self.engine.links().map(|status| status.link).collect();
        assert!(known.iter().eq(self.links.keys()), "the engine knows the links that stand");
        if let Some((at, _)) = self.engine.poll_timeout() {
            assert!(at <= self.now.mono + SETTLE_TIMEOUT_MILLIS, "nobody is waited for without an end");
        }
    }

    fn is_allowed(&mut self, effect: Effect, durable: bool) {
        match effect {
            Effect::Commit(batch) => {
                assert!(self.committing.is_none(), "one commit is under way at a time");
                batch.iter().for_each(|op| self.may_be_kept(op, &batch));
                self.committing = Some(batch);
            }
            Effect::Send(link, frame) => self.may_be_sent(link, &frame, durable),
            Effect::Close(link) => {
                assert!(self.links.remove(&link).is_some(), "a link is closed once");
            }
            Effect::Written(ticket) => {
                assert!(durable, "a write is answered when it is durable");
                assert!(self.writes.remove(&ticket), "and once");
            }
            Effect::Survey(link, homes, allowed) => {
                let open = self.links.get(&link).expect("an audit is with a neighbour");
                let own = info(UNDER_TEST).place;
                let child = if open.direction == Direction::Up { &own } else { &open.peer.place };
                assert!(homes.iter().all(|home| is_within(home, child)), "what both know is compared");
                self.surveys.push((link, homes, allowed));
            }
            Effect::Audited(..) | Effect::Imported(..) | Effect::Forgotten(_) | Effect::Alert(_) => {}
        }
    }

    fn node_of(&self, run: Incarnation, batch: &[Op]) -> Option<NodeInfo> {
        let stored = self.store.announcement(run).expect("memory").map(|(_, info)| info);
        let now = batch.iter().find_map(|op| match op {
            Op::Announce(announcement, info) if announcement.incarnation == run => Some(info.clone()),
            _ => None,
        });
        stored.or(now)
    }

    /// What a child brings is of its part of the tree, and its author's to write.
    fn may_be_kept(&self, op: &Op, batch: &[Op]) {
        let Op::Append { entry, src: Some(src), .. } = op else { return };
        let sender = self.node_of(src.segment, batch).expect("a feed is announced before its rows are kept");
        if sender.place.depth() < info(UNDER_TEST).place.depth() {
            return;
        }
        let author = self.node_of(entry.origin(), batch).expect("an author is announced");
        assert!(is_within(entry.home(), &author.place), "an author writes for its own part of the tree");
        let mut homes = self.store.homes(entry.record()).expect("memory");
        homes.extend(batch.iter().filter_map(|op| match op {
            Op::AddHome(record, home) if record == entry.record() => Some(home.clone()),
            _ => None,
        }));
        homes.push(entry.home().clone());
        assert!(
            homes.iter().any(|home| is_within(home, &sender.place)),
            "a child brings records of its own part"
        );
    }

    fn may_be_sent(&self, link: LinkId, frame: &Frame, durable: bool) {
        let bytes = frame.encode();
        assert!(bytes.len() <= FRAME_MAX_BYTES as usize + LENGTH_MAX_BYTES, "a frame is within its limit");
        // A link that the engine refuses is told so before it is closed.
        let open = self.links.get(&link).expect("nothing is sent on a link that is gone");
        match frame {
            Frame::Batch(batch) => {
                assert!(open.said_hello, "rows are sent to a neighbour that has named its place");
                for (pos, entry) in &batch.entries {
                    let at = Position { segment: batch.segment, pos: *pos };
                    assert!(self.is_durable(at), "what is sent is durable");
                    if open.direction == Direction::Down {
                        let homes = self.store.homes(entry.record()).expect("memory");
                        let theirs = homes.iter().any(|home| is_within(home, &open.peer.place));
                        assert!(theirs, "{} gets nothing of another scope", open.peer.place);
                    }
                }
            }
            Frame::Repair(entries) => {
                for entry in entries.iter().filter(|_| open.direction == Direction::Down) {
                    let homes = self.store.homes(entry.record()).expect("memory");
                    let theirs = homes.iter().any(|home| is_within(home, &open.peer.place));
                    assert!(theirs, "{} is given nothing of another scope", open.peer.place);
                }
            }
            Frame::Want(want) => {
                for (record, _) in want.named.iter().filter(|_| open.direction == Direction::Down) {
                    let homes = self.store.homes(record).expect("memory");
                    let theirs = homes.iter().any(|home| is_within(home, &open.peer.place));
                    assert!(theirs, "{} hears no name of another scope", open.peer.place);
                }
            }
            Frame::Repaired(_) => assert!(durable, "what is said to be in place is durable"),
            Frame::Ack(lane, at) => {
                assert!(durable, "an acknowledgement follows from a commit");
                assert!(self.has_read(*lane, *at), "and tells what is durable");
            }
            Frame::SafeAtRoot(lane, at) => {
                assert!(open.direction == Direction::Down, "receipts go down");
                assert!(self.has_read(*lane, *at), "what is safe above is durable here");
            }
            Frame::Refuse { text, .. } => assert!(!text.is_empty(), "a refusal says why"),
            _ => {}
        }
    }

    fn is_durable(&self, at: Position) -> bool {
        let segments = self.store.segments().expect("memory");
        let tip = self.store.tip().expect("memory");
        segments.iter().any(|s| s.incarnation == at.segment && s.base + at.pos <= tip)
    }

    fn has_read(&self, lane: Lane, at: Position) -> bool {
        self.store.read_before(lane, at).expect("memory").is_some_and(|cursor| cursor.at == at)
    }
}
