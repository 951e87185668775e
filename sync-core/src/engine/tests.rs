//! One engine and what its neighbours say to it, frame by frame: the limits and figures that worlds of many nodes seldom
//! or never come to. Whether nodes agree is for `tests/src/sim`.

use std::cell::Cell;

use super::*;
use crate::{
    change::opaque_chunk,
    feed::CHAIN_START,
    id::{Chain, ChangeHash, RecordId},
    identity::{Reason, Refusal},
    session::{HELD_MAX_BATCHES, HELD_MAX_BYTES, PLACES_MAX, SKIP_AFTER_ROWS},
    store::{MemStore, StoreMut},
    time::Stamp,
    wire::{self, UNPACKED_MAX_BYTES},
};

mod announcements;
mod attachments;
mod audit;
mod claims;
mod courier;
mod grants;
mod lanes;
mod orders;
mod purge;
mod secrecy;
mod to_come;

const ROOT: u8 = 1;
const HUB: u8 = 2;
const CHILD: u8 = 3;
const AUNT: u8 = 4;
/// Below the child.
const COUSIN: u8 = 6;
/// Below the hub, beside the child.
const SISTER: u8 = 7;
const UP: LinkId = LinkId(1);
const DOWN: LinkId = LinkId(2);

fn info(node: u8) -> NodeInfo {
    let (place, role) = match node {
        ROOT => ("tw", Role::Root),
        HUB => ("tw/hg", Role::Hub),
        CHILD => ("tw/hg/dv", Role::Leaf),
        AUNT => ("tw/qn", Role::Hub),
        COUSIN => ("tw/hg/dv/mv", Role::Leaf),
        SISTER => ("tw/hg/qb", Role::Leaf),
        _ => ("tw/qn/dv", Role::Leaf),
    };
    NodeInfo { node: NodeId([node; 16]), place: place.parse().unwrap(), role }
}

/// A node that counts its runs.
#[derive(Clone)]
struct Test {
    info: NodeInfo,
    minted: Cell<u8>,
}

impl Authority for Test {
    fn verify(&self, announcement: &Announcement) -> Result<NodeInfo, Refusal> {
        match announcement.signature[..] {
            [] => Err(Refusal::BadSignature { what: "an announcement" }),
            _ => Ok(info(announcement.node.0[0])),
        }
    }

    fn admit(&self, chain: &[Vec<u8>]) -> Result<(), Refusal> {
        if chain.is_empty() { Err(Refusal::NoCertificate) } else { Ok(()) }
    }

    fn verify_issued(&self, author: &Announcement, _: &[u8], signature: &[u8]) -> Result<(), Refusal> {
        if signature == author.node.0 { Ok(()) } else { Err(Refusal::BadSignature { what: "an entry" }) }
    }

    fn verify_order(&self, order: &Order) -> Result<(), Refusal> {
        match order.signature[..] {
            [] => Err(Refusal::BadSignature { what: "an order" }),
            _ => Ok(()),
        }
    }

    fn verify_revocation(&self, revocation: &Revocation, _: &Places) -> Result<(), Refusal> {
        match revocation.signature[..] {
            [] => Err(Refusal::BadSignature { what: "a revocation" }),
            _ => Ok(()),
        }
    }
}

impl Identity for Test {
    fn info(&self) -> &NodeInfo {
        &self.info
    }

    fn mint(&self) -> Incarnation {
        self.minted.set(self.minted.get() + 1);
        run(self.info.node.0[0], self.minted.get())
    }

    fn sign(&self, _: &[u8]) -> Vec<u8> {
        self.info.node.0.to_vec()
    }

    fn announce(&self, incarnation: Incarnation, parent: Option<Position>) -> Announcement {
        let parent = parent.map(|at| (at.segment, at.pos));
        Announcement { incarnation, parent, node: self.info.node, signature: vec![1], chain: vec![vec![1]] }
    }
}

fn run(node: u8, n: u8) -> Incarnation {
    Incarnation::of(NodeId([node; 16]), [n; Incarnation::FRESH_LEN])
}

fn announcement(node: u8, n: u8) -> Announcement {
    let (incarnation, node) = (run(node, n), NodeId([node; 16]));
    Announcement { incarnation, parent: None, node, signature: vec![1], chain: Vec::new() }
}

fn hello(node: u8) -> Frame {
    let (run, software) = (run(node, 1), "test".to_owned());
    Frame::Hello(Hello {
        run,
        software,
        tip: None,
        cursors: Vec::new(),
        revocations: 0,
        allows: Secrecy::None,
    })
}

/// An entry of the child's place with a body of so many bytes.
fn entry(origin: Incarnation, seq: u64, lane: Lane, body: usize) -> Entry {
    let chunk = opaque_chunk(origin, seq, &[], Stamp(1), &vec![0; body]);
    Entry::new(format!("Basic/{seq}").parse().unwrap(), OrgId::new("dv").unwrap(), lane, chunk).unwrap()
}

fn batch(after: u64, upto: Option<u64>, positions: &[u64]) -> EntryBatch {
    let segment = run(CHILD, 1);
    let entries = positions.iter().map(|pos| (*pos, entry(segment, *pos, Lane::Normal, 1))).collect();
    let upto = upto.map(|pos| (pos, Chain([9; 16])));
    EntryBatch { lane: Lane::Normal, segment, after, upto, origin: segment, entries }
}

/// A node and its store, whose commits are durable at once.
#[derive(Clone)]
struct Node {
    engine: Engine<Test>,
    store: MemStore,
    now: Now,
    commits: usize,
}

impl Node {
    fn new(node: u8) -> Self {
        let store = MemStore::default();
        let engine = Engine::new(Test { info: info(node), minted: Cell::new(0) }, "test", &store).unwrap();
        Self { engine, store, now: Now { mono: 1_000, wall: 5 }, commits: 0 }
    }

    /// Tells the engine something and leaves what it wants done where it is.
    fn handles(&mut self, event: Event) {
        self.engine.handle(event, &self.store, self.now).unwrap();
    }

    /// Tells the engine something; what it wants done, without what it wants kept.
    fn told(&mut self, event: Event) -> Vec<Effect> {
        let (mut effects, mut events) = (Vec::new(), VecDeque::from([event]));
        while let Some(event) = events.pop_front() {
            self.engine.handle(event, &self.store, self.now).unwrap();
            while let Some(effect) = self.engine.poll_effect() {
                match effect {
                    Effect::Commit(batch) => {
                        self.store.commit(&batch).unwrap();
                        self.commits += 1;
                        events.push_back(Event::Committed);
                    }
                    effect => effects.push(effect),
                }
            }
        }
        effects
    }

    fn says(&mut self, link: LinkId, frame: Frame) -> Vec<Effect> {
        self.told(Event::Received(link, frame))
    }

    fn meets(&mut self, link: LinkId, node: u8, direction: Direction) -> Vec<Effect> {
        self.told(Event::Connected { link, peer: info(node), chain: vec![vec![1]], direction })
    }

    /// A hub with its child, whose first run it knows.
    fn with_child() -> Self {
        let mut hub = Self::new(HUB);
        hub.meets(DOWN, CHILD, Direction::Down);
        hub.says(DOWN, hello(CHILD));
        hub.says(DOWN, Frame::Announce(announcement(CHILD, 1)));
        hub
    }

    fn with_parent(node: u8, parent: u8) -> Self {
        let mut this = Self::new(node);
        this.meets(UP, parent, Direction::Up);
        this.says(UP, hello(parent));
        this
    }

    /// Compares itself with its parent, which has the same.
    fn is_audited(&mut self) -> Vec<Effect> {
        if let Some(segment) = self.store.segments().unwrap().last() {
            let pos = self.store.tip().unwrap() - segment.base;
            self.says(UP, Frame::Ack(Lane::Normal, Position { segment: segment.incarnation, pos }));
        }
        let total = frames(&self.says(UP, Frame::Audit), UP).pop().expect("an answer");
        self.told(Event::Audit(UP));
        let said = self.says(UP, total);
        let is_done = |effect: &Effect| matches!(effect, Effect::Audited(_, Audited::Done { .. }));
        assert!(said.iter().any(is_done), "{said:?}");
        said
    }

    /// Another process on the same store.
    fn restarts(&mut self) {
        self.engine = Engine::new(self.engine.identity().clone(), "test", &self.store).unwrap();
    }

    fn writes(&mut self, seq: u64) -> Vec<Effect> {
        let entries = vec![entry(self.engine.incarnation(), seq, Lane::Normal, 1)];
        self.told(Event::Write { ticket: Ticket(seq), entries, projection: Vec::new() })
    }
}

fn frames(effects: &[Effect], link: LinkId) -> Vec<Frame> {
    let of_link = effects.iter().filter_map(|effect| match effect {
        Effect::Send(to, frame) if *to == link => Some(frame.clone()),
        _ => None,
    });
    of_link.collect()
}

/// The code and text of the one refusal among these, which is also an alert and ends the link.
fn refused(effects: &[Effect], link: LinkId) -> Option<(u16, String)> {
    let said = frames(effects, link).into_iter().find_map(|frame| match frame {
        Frame::Refuse { code, text } => Some((code, text)),
        _ => None,
    })?;
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Close(closed) if *closed == link)));
    let alert = |effect: &Effect| matches!(effect, Effect::Alert(Alert::Refused { code, text, .. }) if (*code, text) == (said.0, &said.1));
    assert!(effects.iter().any(alert));
    Some(said)
}

#[test]
fn a_batch_that_breaks_the_protocol_ends_the_link() {
    let other = |change: fn(&mut EntryBatch)| {
        let mut other = batch(0, Some(3), &[1, 3]);
        change(&mut other);
        other
    };
    for (batch, wrong) in [
        (batch(0, Some(3), &[1, 3]), None),
        (batch(0, Some(3), &[]), None),
        (batch(0, None, &[1]), None),
        (batch(0, None, &[]), Some("says nothing")),
        (batch(1, Some(3), &[2]), Some("left out")),
        (batch(0, Some(3), &[0]), Some("mixes")),
        (batch(0, Some(3), &[4]), Some("mixes")),
        (other(|batch| batch.lane = Lane::Bulk), Some("mixes")),
        (other(|batch| batch.entries[1].1 = entry(run(CHILD, 2), 3, Lane::Normal, 1)), Some("mixes")),
        (other(|batch| batch.segment = run(AUNT, 1)), Some("not its own")),
    ] {
        let mut hub = Node::with_child();
        hub.says(DOWN, Frame::Announce(announcement(AUNT, 1)));
        let said = hub.says(DOWN, Frame::Batch(batch.clone()));
        let refusal = refused(&said, DOWN);
        assert_eq!(refusal.is_some(), wrong.is_some(), "{batch:?}: {refusal:?}");
        if let Some((code, text)) = refusal {
            assert_eq!(code, refusal::PROTOCOL);
            assert!(text.contains(wrong.unwrap()), "{batch:?}: {text}");
        } else if let Some((pos, _)) = batch.upto {
            let at = Position { segment: batch.segment, pos };
            assert_eq!(frames(&said, DOWN)[0], Frame::Ack(Lane::Normal, at));
            assert_eq!(hub.store.tip().unwrap(), batch.entries.len() as u64);
            // What follows begins where this one ended, or before: then it repeats.
            for (after, wrong) in [(pos - 1, false), (pos, false), (pos + 1, true)] {
                let next = EntryBatch {
                    after,
                    upto: Some((pos + 2, Chain([8; 16]))),
                    entries: Vec::new(),
                    ..batch.clone()
                };
                assert_eq!(
                    refused(&hub.clone().says(DOWN, Frame::Batch(next)), DOWN).is_some(),
                    wrong,
                    "{after}"
                );
            }
        }
    }
}

#[test]
fn a_stretch_has_a_size_that_it_may_be() {
    let segment = run(CHILD, 1);
    let around = entry(segment, 1, Lane::Normal, 500_000).encoded_len() - 500_000;
    for (more, fits) in [(0, true), (1, false)] {
        let mut hub = Node::with_child();
        let body = UNPACKED_MAX_BYTES as usize / 4 - around;
        for pos in 1..=4 {
            let bytes = if pos == 4 { body + more } else { body };
            let entries = vec![(pos, entry(segment, pos, Lane::Normal, bytes))];
            let upto = (pos == 4).then_some((4, Chain([9; 16])));
            let part = EntryBatch { entries, upto, ..batch(0, None, &[]) };
            let said = hub.says(DOWN, Frame::Batch(part));
            assert_eq!(refused(&said, DOWN).is_none(), fits || pos < 4, "{pos} {more}");
        }
        assert_eq!(hub.store.tip().unwrap(), if fits { 4 } else { 0 });
    }
}

#[test]
fn so_much_is_held_back_and_no_more() {
    // Before HELLO everything is.
    let mut hub = Node::new(HUB);
    hub.meets(DOWN, CHILD, Direction::Down);
    let nothing = Frame::Batch(batch(0, Some(1), &[]));
    let asks = hub.says(DOWN, nothing.clone());
    assert_eq!(frames(&asks, DOWN), [Frame::Need(run(CHILD, 1))]);
    for n in 1..HELD_MAX_BATCHES {
        assert!(hub.says(DOWN, nothing.clone()).is_empty(), "{n}");
    }
    assert_eq!(refused(&hub.says(DOWN, nothing), DOWN).unwrap().0, refusal::PROTOCOL);
    // By their bytes.
    for (less, fits) in [(1, true), (0, false)] {
        let mut hub = Node::new(HUB);
        hub.meets(DOWN, CHILD, Direction::Down);
        let segment = run(CHILD, 1);
        let around = entry(segment, 1, Lane::Normal, 900_000).encoded_len() - 900_000;
        let bytes = HELD_MAX_BYTES / 24;
        for pos in 1..=24 {
            let entry =
                entry(segment, pos % 9, Lane::Normal, bytes - around - if pos == 24 { less } else { 0 });
            let part = EntryBatch { entries: vec![(pos, entry)], ..batch(0, None, &[]) };
            // Of the first it asks who wrote it and where its home stands.
            let asks = hub.says(DOWN, Frame::Batch(part)).len();
            assert_eq!(asks, if pos == 1 { 2 } else { 0 }, "{pos}");
        }
        assert_eq!(refused(&hub.says(DOWN, Frame::Batch(batch(0, None, &[30]))), DOWN).is_none(), fits);
    }
}

#[test]
fn what_waits_is_counted() {
    let mut hub = Node::with_child();
    assert_eq!(hub.engine.queues(), Queues::default());
    let origin = run(COUSIN, 1);
    let waits = entry(origin, 1, Lane::Normal, 100);
    let held_bytes = waits.encoded_len();
    hub.says(DOWN, Frame::Batch(EntryBatch { entries: vec![(1, waits)], origin, ..batch(0, Some(1), &[]) }));
    hub.says(DOWN, Frame::NeedPlace(OrgId::new("xx").unwrap()));
    assert_eq!(hub.engine.queues(), Queues { held_batches: 1, held_bytes, places: 1, intents: 0 });
    for _ in 0..3 {
        hub.handles(Event::Folded(Vec::new()));
    }
    assert_eq!(hub.engine.queues().intents, 2, "one is on its way to the disk");
}

#[test]
fn a_cursor_that_moves_says_whether_it_brought_something() {
    let mut hub = Node::with_child();
    let brought = |hub: &Node| {
        hub.store.read(Lane::Normal, run(CHILD, 1)).unwrap().map(|read| (read.cursor.at.pos, read.brought_at))
    };
    hub.says(DOWN, Frame::Batch(batch(0, Some(2), &[])));
    assert_eq!(brought(&hub), Some((2, 0)));
    hub.says(DOWN, Frame::Announce(announcement(CHILD, 1)));
    hub.says(DOWN, Frame::Batch(batch(2, Some(4), &[3, 4])));
    assert_eq!(brought(&hub), Some((4, 2)));
    // The same entries once more, at other places, are not new.
    let EntryBatch { entries, .. } = batch(0, None, &[3, 4]);
    let again = entries.into_iter().map(|(pos, entry)| (pos + 2, entry)).collect();
    hub.says(DOWN, Frame::Batch(EntryBatch { entries: again, ..batch(4, Some(6), &[]) }));
    assert_eq!(brought(&hub), Some((6, 2)));
}

#[test]
fn who_does_not_settle_in_time_is_refused() {
    let mut hub = Node::new(HUB);
    assert_eq!(hub.engine.poll_timeout(), None);
    hub.meets(DOWN, CHILD, Direction::Down);
    hub.now.mono += 7;
    hub.meets(UP, ROOT, Direction::Up);
    let due = 1_000 + SETTLE_TIMEOUT_MILLIS;
    assert_eq!(hub.engine.poll_timeout().unwrap().0, due);
    hub.now.mono = due - 1;
    assert!(hub.told(Event::Timeout).is_empty());
    hub.now.mono = due;
    let mut settled = hub.clone();
    let said = hub.told(Event::Timeout);
    assert_eq!(refused(&said, DOWN).unwrap().0, refusal::TIMEOUT);
    assert!(refused(&said, UP).is_none());
    assert_eq!(hub.engine.poll_timeout().unwrap().0, due + 7);
    settled.says(DOWN, hello(CHILD));
    assert!(settled.told(Event::Timeout).is_empty());
    assert_eq!(settled.engine.poll_timeout().unwrap().0, due + 7);
}

#[test]
fn hello_is_first_and_once() {
    for frame in [Frame::Lost, Frame::Need(run(HUB, 1)), Frame::Announce(announcement(CHILD, 1))] {
        let mut hub = Node::new(HUB);
        hub.meets(DOWN, CHILD, Direction::Down);
        assert!(
            refused(&hub.says(DOWN, frame.clone()), DOWN).unwrap().1.contains("begin with HELLO"),
            "{frame:?}"
        );
    }
    let mut hub = Node::with_child();
    assert!(refused(&hub.says(DOWN, hello(CHILD)), DOWN).unwrap().1.contains("HELLO twice"));
}

#[test]
fn links_are_shown_as_they_are() {
    let mut hub = Node::new(HUB);
    hub.meets(UP, ROOT, Direction::Up);
    let shown = |hub: &Node| {
        let link = hub.engine.links().next().unwrap();
        assert_eq!((link.link, link.peer, link.direction), (UP, info(ROOT), Direction::Up));
        (link.settled, link.idle, link.software)
    };
    assert_eq!(shown(&hub), (false, true, None));
    hub.says(UP, hello(ROOT));
    assert_eq!(shown(&hub), (true, true, Some("test".to_owned())));
    hub.writes(1);
    assert_eq!(shown(&hub), (true, false, Some("test".to_owned())));
    hub.told(Event::Closed(UP));
    assert_eq!(hub.engine.links().count(), 0);
}

#[test]
fn what_is_durable_above_is_what_the_parent_says() {
    for (node, parent, at_once) in [(HUB, ROOT, true), (CHILD, HUB, false)] {
        let mut node = Node::with_parent(node, parent);
        let reached = |node: &Node| {
            let engine = &node.engine;
            let of = |which| engine.frontier(which, Lane::Normal);
            let all = (engine.all_at_parent(), engine.all_at_root());
            ([Frontier::Last, Frontier::Hub, Frontier::Root].map(of), all)
        };
        let at = |pos| Position { segment: node.engine.incarnation(), pos };
        let [one, two, three, four] = [1, 2, 3, 4].map(at);
        (1..=3).for_each(|seq| drop(node.writes(seq)));
        assert_eq!(reached(&node), ([3, 0, 0], (false, false)));
        node.says(UP, Frame::Ack(Lane::Normal, two));
        assert_eq!(reached(&node), ([3, 2, if at_once { 2 } else { 0 }], (false, false)));
        // An older word, or one of another lane or of another feed, changes nothing.
        node.says(UP, Frame::Ack(Lane::Normal, one));
        node.says(UP, Frame::Ack(Lane::Normal, four));
        node.says(UP, Frame::Ack(Lane::Bulk, one));
        node.says(UP, Frame::Ack(Lane::Normal, Position { segment: run(AUNT, 9), pos: 3 }));
        assert_eq!(reached(&node).0[1], 2);
        node.says(UP, Frame::Ack(Lane::Normal, three));
        assert_eq!(reached(&node), ([3, 3, if at_once { 3 } else { 0 }], (true, at_once)));
        node.says(UP, Frame::SafeAtRoot(Lane::Normal, three));
        assert_eq!(reached(&node), ([3, 3, 3], (true, true)));
        let commits = node.commits;
        for again in [three, two] {
            node.says(UP, Frame::SafeAtRoot(Lane::Normal, again));
            node.says(UP, Frame::Ack(Lane::Normal, again));
        }
        assert_eq!((reached(&node), node.commits), (([3, 3, 3], (true, true)), commits), "nothing new");
        let kept = [Frontier::Last, Frontier::Hub, Frontier::Root];
        assert_eq!(kept.map(|which| node.store.frontier(which, Lane::Normal).unwrap()), [3, 3, 3]);
        // The parent's word counts: it stands further back now.
        node.told(Event::Closed(UP));
        node.meets(UP, parent, Direction::Up);
        let Frame::Hello(said) = hello(parent) else { unreachable!() };
        let cursor = Cursor { at: one, chain: None };
        node.says(UP, Frame::Hello(Hello { cursors: vec![(Lane::Normal, cursor)], ..said }));
        assert_eq!(reached(&node).0, [3, 1, if at_once { 1 } else { 3 }]);
    }
    let mut root = Node::new(ROOT);
    root.writes(1);
    assert!(root.engine.is_root() && root.engine.all_at_parent() && root.engine.all_at_root());
}

#[test]
fn a_child_hears_of_the_root_and_marks_stay_few() {
    let mut hub = Node::with_child();
    let segment = run(CHILD, 1);
    let mut most = 0;
    for pos in 1..=200 {
        hub.says(DOWN, Frame::Batch(batch(pos - 1, Some(pos), &[pos])));
        most = most.max(hub.engine.marks.len());
    }
    assert_eq!(most, 64, "of one segment and lane");
    let marks = hub.engine.marks.clone();
    assert_eq!(marks.len(), 40, "with larger steps the older they are");
    assert_eq!(
        marks.last().unwrap(),
        &Mark { lane: Lane::Normal, src: Position { segment, pos: 200 }, seq: 200 }
    );
    hub.meets(UP, ROOT, Direction::Up);
    hub.says(UP, hello(ROOT));
    let own = hub.engine.incarnation();
    let safe = |hub: &mut Node, pos| {
        let said = hub.says(UP, Frame::Ack(Lane::Normal, Position { segment: own, pos }));
        frames(&said, DOWN)
    };
    let newest = |reached| marks.iter().rfind(|mark| mark.seq <= reached).unwrap().src;
    for reached in [100, 150, 200] {
        let told = safe(&mut hub, reached);
        assert_eq!(told, [Frame::SafeAtRoot(Lane::Normal, newest(reached))]);
        assert!(safe(&mut hub, reached).is_empty(), "once");
    }
    hub.writes(900);
    hub.writes(901);
    let kept: Vec<_> = hub.store.marks().unwrap();
    assert_eq!(kept, [*marks.last().unwrap()]);
}

/// The parent is no root, so what is durable there and what is safe at the root are two pieces of news.
#[test]
fn what_the_parent_says_of_the_root_is_passed_on_at_once() {
    let mut hub = Node::with_parent(CHILD, HUB);
    hub.meets(DOWN, COUSIN, Direction::Down);
    hub.says(DOWN, hello(COUSIN));
    hub.says(DOWN, Frame::Announce(announcement(COUSIN, 1)));
    let segment = run(COUSIN, 1);
    let chunk = opaque_chunk(segment, 1, &[], Stamp(1), b"x");
    let home = OrgId::new("mv").unwrap();
    let entries = vec![(1, Entry::new("Basic/1".parse().unwrap(), home, Lane::Normal, chunk).unwrap())];
    hub.says(DOWN, Frame::Batch(EntryBatch { segment, origin: segment, entries, ..batch(0, Some(1), &[]) }));
    let at = Position { segment: hub.engine.incarnation(), pos: 1 };
    assert!(frames(&hub.says(UP, Frame::Ack(Lane::Normal, at)), DOWN).is_empty(), "it is at the parent");
    let said = frames(&hub.says(UP, Frame::SafeAtRoot(Lane::Normal, at)), DOWN);
    assert_eq!(said, [Frame::SafeAtRoot(Lane::Normal, Position { segment, pos: 1 })]);
}

#[test]
fn a_child_speaks_for_its_own_place_only() {
    for (node, home, origin, right) in [
        (CHILD, "dv", CHILD, true),
        (CHILD, "hg", CHILD, false),
        (CHILD, "qn", CHILD, false),
        // An author from elsewhere, of what the hub gave to its child before it was restored.
        (CHILD, "dv", AUNT, false),
        (CHILD, "dv", HUB, true),
    ] {
        let mut hub = Node::with_child();
        for announced in [announcement(AUNT, 1), announcement(HUB, 9)] {
            hub.says(DOWN, Frame::Announce(announced));
        }
        let chunk = opaque_chunk(run(origin, if origin == HUB { 9 } else { 1 }), 1, &[], Stamp(1), b"x");
        let entry =
            Entry::new("Basic/1".parse().unwrap(), OrgId::new(home).unwrap(), Lane::Normal, chunk).unwrap();
        let bring =
            EntryBatch { origin: entry.origin(), entries: vec![(1, entry)], ..batch(0, Some(1), &[]) };
        let said = hub.says(DOWN, Frame::Batch(bring));
        let refusal = refused(&said, DOWN);
        assert_eq!(refusal.is_none(), right, "{node} {home} {origin}");
        assert_eq!(hub.store.tip().unwrap(), u64::from(right));
        if let Some((code, text)) = refusal {
            assert!(
                code == refusal::OUTSIDE_SUBTREE && text.starts_with("tw/hg/dv offered entries of"),
                "{text}"
            );
        }
    }
}

#[test]
fn one_name_is_of_one_place() {
    let mut hub = Node::with_child();
    let said = hub.says(DOWN, Frame::Announce(announcement(9, 1)));
    let (code, text) = refused(&said, DOWN).unwrap();
    assert_eq!(code, refusal::NAME_CLASH);
    assert!(text.starts_with("tw/qn/dv and tw/hg/dv use the same"), "{text}");
    let place = |org: &str| OrgId::new(org).unwrap();
    assert!(Node::with_child().engine.places().is_within(&place("dv"), &info(HUB).place));
    let mut hub = Node::with_child();
    let forged = Announcement { signature: Vec::new(), ..announcement(CHILD, 2) };
    assert_eq!(refused(&hub.says(DOWN, Frame::Announce(forged)), DOWN).unwrap().0, 3);
}

fn a_revocation(n: u16) -> Revocation {
    Revocation {
        node: NodeId([9; 16]),
        serial: crate::identity::Serial::new(&n.to_be_bytes()),
        place: "tw/qn".parse().unwrap(),
        reason: Reason::Lost,
        at: 0,
        signer: NodeId([ROOT; 16]),
        signature: vec![1],
        chain: vec![vec![0; 2_000]],
    }
}

/// It would take anything else for a word out of turn.
#[test]
fn who_is_no_neighbour_and_waits_for_orders_is_told_of_no_revocation() {
    let mut hub = Node::with_child();
    let stranger = LinkId(7);
    let met = frames(&hub.meets(stranger, AUNT, Direction::Down), stranger);
    assert_eq!(met, [Frame::Orders(Vec::new())]);
    let said = hub.told(Event::Revoke(a_revocation(1)));
    assert_eq!(frames(&said, stranger), []);
    assert!(matches!(frames(&said, DOWN)[..], [Frame::Revocations(_)]));
}

#[test]
fn revocations_travel_in_frames_that_fit() {
    let revocation = a_revocation;
    let bytes = revocation(1).encode().len();
    assert_eq!(STATEMENTS_FRAME_BYTES, 262_144);
    let fit = STATEMENTS_FRAME_BYTES / bytes;
    let mut hub = Node::with_child();
    let all: Vec<_> = (1..=2 * fit as u16 + 1).map(revocation).collect();
    for one in &all {
        let said = frames(&hub.told(Event::Revoke(one.clone())), DOWN);
        assert!(said.iter().all(|frame| matches!(frame, Frame::Revocations(_))) && !said.is_empty());
    }
    assert_eq!(hub.store.revocations().unwrap().len(), all.len());
    hub.told(Event::Closed(DOWN));
    hub.meets(DOWN, CHILD, Direction::Down);
    let said = frames(&hub.says(DOWN, hello(CHILD)), DOWN);
    let parts: Vec<_> = said
        .iter()
        .map(|frame| match frame {
            Frame::Revocations(part) => part.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [fit, fit, 1]);
    assert_eq!(parts.concat(), hub.store.revocations().unwrap());
    let digest = |some: &[Revocation]| revocation_digest(some);
    assert_eq!((digest(&[]), digest(&all[..2])), (0, digest(&[all[1].clone(), all[0].clone()])));
    assert_ne!(digest(&all[..1]), digest(&all[1..2]));
    // One that knows the same is sent nothing.
    hub.told(Event::Closed(DOWN));
    let said = hub.meets(DOWN, CHILD, Direction::Down);
    let [Frame::Hello(known)] = &frames(&said, DOWN)[..] else { panic!("{said:?}") };
    let Frame::Hello(same) = hello(CHILD) else { unreachable!() };
    let same = Hello { revocations: known.revocations, ..same };
    assert!(frames(&hub.says(DOWN, Frame::Hello(same)), DOWN).is_empty());
    // What is forged ends the link, and nothing of it is kept.
    let forged = Revocation { signature: Vec::new(), ..revocation(9_999) };
    let said = hub.says(DOWN, Frame::Revocations(vec![all[0].clone(), forged, revocation(9_998)]));
    assert_eq!(refused(&said, DOWN).unwrap().0, 3);
    assert_eq!(hub.store.revocations().unwrap().len(), all.len());
}

#[test]
fn rows_that_a_neighbour_need_not_have_are_passed_over_in_silence() {
    let mut hub = Node::new(HUB);
    hub.writes(1);
    hub.meets(DOWN, SISTER, Direction::Down);
    hub.says(DOWN, hello(SISTER));
    let own = hub.engine.incarnation();
    for seq in 2..=2 * SKIP_AFTER_ROWS + 1 {
        let said = frames(&hub.writes(seq), DOWN);
        let told = seq % SKIP_AFTER_ROWS == 1;
        assert_eq!(!said.is_empty(), told, "{seq}: {said:?}");
        for frame in said {
            let Frame::Batch(batch) = frame else { panic!("{frame:?}") };
            assert_eq!((batch.segment, batch.entries.len(), batch.upto.unwrap().0), (own, 0, seq));
            assert_ne!(batch.upto.unwrap().1, CHAIN_START);
        }
    }
}

/// When rows become durable that are of no concern to a child nobody reads them for it: here there is nothing to be read.
#[test]
fn rows_that_are_of_no_concern_to_a_child_are_not_read_for_it() {
    for (of, rows) in [("hg", [0, 2, 0]), ("qb", [0; 3])] {
        let mut hub = Node::new(HUB);
        hub.writes(1);
        hub.meets(DOWN, SISTER, Direction::Down);
        hub.says(DOWN, hello(SISTER));
        hub.says(DOWN, Frame::Announce(announcement(SISTER, 1)));
        assert_eq!(hub.engine.links[&DOWN].out.each_ref().map(|out| out.next), [Some(1); 3]);
        let own = hub.engine.incarnation();
        let write = |seq| {
            let chunk = opaque_chunk(own, seq, &[], Stamp(1), b"x");
            let home = OrgId::new(of).unwrap();
            Entry::new(format!("Basic/{seq}").parse().unwrap(), home, Lane::Normal, chunk).unwrap()
        };
        let entries = vec![write(2), write(3)];
        hub.handles(Event::Write { ticket: Ticket(1), entries, projection: Vec::new() });
        hub.engine.handle(Event::Committed, &MemStore::default(), hub.now).unwrap();
        let out = &hub.engine.links[&DOWN].out;
        assert_eq!(out.each_ref().map(|out| out.skipped), rows, "{of}");
        assert_eq!(out.each_ref().map(|out| out.next), [Some(3); 3], "{of}");
        // Nor for a child that has come after them.
        for out in &mut hub.engine.links.get_mut(&DOWN).unwrap().out {
            (out.next, out.skipped) = (Some(1), 0);
        }
        let event = Event::Received(DOWN, Frame::Lanes(Lanes::ALL));
        hub.engine.handle(event, &MemStore::default(), hub.now).unwrap();
        let out = &hub.engine.links[&DOWN].out;
        assert_eq!(out.each_ref().map(|out| out.skipped), rows, "{of}");
    }
}

/// What came from above need not go up, and is no end that the parent has to hear of.
#[test]
fn the_parent_hears_nothing_of_what_it_has_sent() {
    let mut hub = Node::with_parent(HUB, ROOT);
    hub.says(UP, Frame::Announce(announcement(ROOT, 1)));
    let said = frames(&hub.writes(1), UP);
    assert!(said.iter().any(|frame| matches!(frame, Frame::Batch(_))), "{said:?}");
    let own = Position { segment: hub.engine.incarnation(), pos: 1 };
    hub.says(UP, Frame::Ack(Lane::Normal, own));
    for pos in 1..=3 {
        let segment = run(ROOT, 1);
        let chunk = opaque_chunk(segment, pos, &[], Stamp(1), b"x");
        let entry = Entry::new(
            format!("Basic/r{pos}").parse().unwrap(),
            OrgId::new("hg").unwrap(),
            Lane::Normal,
            chunk,
        );
        let entries = vec![(pos, entry.unwrap())];
        let upto = Some((pos, Chain([9; 16])));
        let batch =
            EntryBatch { lane: Lane::Normal, segment, after: pos - 1, upto, origin: segment, entries };
        let said = frames(&hub.says(UP, Frame::Batch(batch)), UP);
        assert_eq!(said, [Frame::Ack(Lane::Normal, Position { segment, pos })]);
    }
    assert_eq!(hub.store.tip().unwrap(), 4);
    assert!(hub.engine.all_at_parent());
}

#[test]
fn a_write_is_answered_when_it_is_durable() {
    let mut node = Node::new(HUB);
    let entries = vec![entry(node.engine.incarnation(), 1, Lane::Normal, 1)];
    let change: ChangeHash = entries[0].change_hash();
    node.engine
        .handle(Event::Write { ticket: Ticket(7), entries, projection: Vec::new() }, &node.store, node.now)
        .unwrap();
    let Some(Effect::Commit(batch)) = node.engine.poll_effect() else { panic!("nothing is kept") };
    assert!(node.engine.poll_effect().is_none(), "and nobody is told");
    node.store.commit(&batch).unwrap();
    let said = node.told(Event::Committed);
    assert!(matches!(said[..], [Effect::Written(Ticket(7))]), "{said:?}");
    assert!(node.store.has(&"Basic/1".parse().unwrap(), &change).unwrap());
    assert_eq!((node.store.tip().unwrap(), node.store.folded().unwrap()), (1, 1));
}

#[test]
fn what_another_link_has_brought_is_not_taken_again_before_it_is_durable() {
    for commits in 0..3 {
        let mut hub = Node::with_child();
        hub.handles(Event::Folded(Vec::new()));
        // What has been received waits for this commit, is under way with the next one, is durable.
        hub.handles(Event::Received(DOWN, Frame::Batch(batch(0, Some(1), &[1]))));
        for _ in 0..commits {
            let Some(Effect::Commit(ops)) = hub.engine.poll_effect() else { panic!("nothing is kept") };
            hub.store.commit(&ops).unwrap();
            hub.handles(Event::Committed);
        }
        let link = LinkId(7);
        let peer = info(CHILD);
        for event in [
            Event::Connected { link, peer, chain: vec![vec![1]], direction: Direction::Down },
            Event::Received(link, hello(CHILD)),
            Event::Received(link, Frame::Batch(batch(0, Some(2), &[1, 2]))),
        ] {
            hub.handles(event);
        }
        assert_eq!(hub.engine.links.contains_key(&link), commits == 2, "{commits}");
    }
}

#[test]
fn the_feed_goes_on_in_a_segment_for_each_run() {
    let mut node = Node::with_parent(HUB, ROOT);
    let first = node.engine.incarnation();
    node.writes(1);
    node.writes(2);
    node.restarts();
    let second = node.engine.incarnation();
    assert_ne!(first, second);
    let tip = |node: &mut Node| {
        let said = frames(&node.meets(UP, ROOT, Direction::Up), UP);
        let [Frame::Hello(hello)] = &said[..] else { panic!("{said:?}") };
        hello.tip
    };
    let at = |segment, pos| Position { segment, pos };
    assert_eq!(tip(&mut node), Some(at(first, 2)));
    node.says(UP, hello(ROOT));
    let said = frames(&node.writes(3), UP);
    let announced = Announcement { parent: Some((first, 2)), ..announcement(HUB, second.0[1]) };
    assert_eq!(said[0], Frame::Announce(announced), "without its certificates");
    assert_eq!([2, 3].map(|seq| node.engine.position(seq)), [Some(at(first, 2)), Some(at(second, 1))]);
    let places = [at(first, 2), at(first, 3), at(second, 1), at(second, 2), at(run(AUNT, 1), 1)];
    assert_eq!(places.map(|place| node.engine.seq_of(place)), [Some(2), None, Some(3), None, None]);
    node.told(Event::Closed(UP));
    assert_eq!(tip(&mut node), Some(at(second, 1)));
}

#[test]
fn a_run_that_is_announced_with_two_parents_tells_of_two_machines() {
    let elsewhere = Some((run(AUNT, 7), 3));
    // Of the hub's own segment: it gets another name.
    let mut hub = Node::with_child();
    hub.writes(1);
    let own = hub.engine.incarnation();
    let twin = Announcement { incarnation: own, parent: elsewhere, ..announcement(HUB, 1) };
    let said = hub.says(DOWN, Frame::Announce(twin));
    assert!(
        said.iter()
            .any(|effect| matches!(effect, Effect::Alert(Alert::Forked { segment }) if *segment == own))
    );
    assert_ne!(hub.engine.incarnation(), own);
    assert_eq!(hub.store.segments().unwrap()[0].incarnation, hub.engine.incarnation());
    // Of a run of the hub's that is none of its segments: nothing happens.
    let mut hub = Node::with_child();
    hub.writes(1);
    for parent in [None, elsewhere] {
        let said = hub.says(DOWN, Frame::Announce(Announcement { parent, ..announcement(HUB, 9) }));
        assert!(said.is_empty(), "{said:?}");
    }
    // Of the child's: whoever comes second is shown the first, and only the child itself is.
    for (link, node, direction) in [(DOWN, CHILD, Direction::Down), (LinkId(9), AUNT, Direction::Down)] {
        let mut hub = Node::with_child();
        if link != DOWN {
            hub.meets(link, node, direction);
            hub.says(link, hello(node));
        }
        let same = hub.says(link, Frame::Announce(announcement(CHILD, 1)));
        assert!(same.is_empty(), "{same:?}");
        let second = Announcement { parent: elsewhere, ..announcement(CHILD, 1) };
        let said = frames(&hub.says(link, Frame::Announce(second)), link);
        let first = Announcement { chain: vec![vec![1]], ..announcement(CHILD, 1) };
        let shown = if link == DOWN { vec![Frame::Announce(first.clone())] } else { Vec::new() };
        assert_eq!(said, shown);
        assert_eq!(hub.store.announcement(run(CHILD, 1)).unwrap().unwrap().0, first);
    }
    // Two at once are held against each other as well.
    for (parent, shown) in [(None, 0), (elsewhere, 1)] {
        let mut hub = Node::with_child();
        hub.handles(Event::Folded(Vec::new()));
        hub.handles(Event::Received(DOWN, Frame::Announce(announcement(CHILD, 2))));
        hub.handles(Event::Received(
            DOWN,
            Frame::Announce(Announcement { parent, ..announcement(CHILD, 2) }),
        ));
        let said = frames(&hub.told(Event::Folded(Vec::new())), DOWN);
        assert_eq!(said.len(), shown, "{said:?}");
    }
}

#[test]
fn what_follows_a_refused_stretch_is_not_kept_and_all_else_is() {
    let mut hub = Node::with_child();
    hub.handles(Event::Folded(Vec::new()));
    let foreign = Entry::new(
        "Basic/9".parse().unwrap(),
        OrgId::new("hg").unwrap(),
        Lane::Normal,
        opaque_chunk(run(CHILD, 1), 1, &[], Stamp(1), b"x"),
    );
    let wrong = EntryBatch { entries: vec![(1, foreign.unwrap())], ..batch(0, Some(1), &[]) };
    for batch in [wrong, batch(1, Some(2), &[2])] {
        hub.handles(Event::Received(DOWN, Frame::Batch(batch)));
    }
    let own = entry(hub.engine.incarnation(), 5, Lane::Normal, 1);
    hub.handles(Event::Write { ticket: Ticket(5), entries: vec![own.clone()], projection: Vec::new() });
    let said = hub.told(Event::Folded(Vec::new()));
    assert_eq!(refused(&said, DOWN).unwrap().0, refusal::OUTSIDE_SUBTREE);
    assert!(said.iter().any(|effect| matches!(effect, Effect::Written(Ticket(5)))));
    assert_eq!((hub.store.tip().unwrap(), hub.store.entry(1).unwrap()), (1, Some(own)));
}

/// What is issued is taken from anybody if its author has signed it and may speak for the issuer, and otherwise from nobody.
#[test]
fn what_is_issued_is_taken_with_its_authors_signature_alone() {
    let issued = |issuer: &str, author: u8| {
        let record = RecordId::issued(&OrgId::new(issuer).unwrap(), "Library", "7").unwrap();
        let chunk = opaque_chunk(run(author, 1), 1, &[], Stamp(1), b"x");
        Entry::new(record, OrgId::new(issuer).unwrap(), Lane::Normal, chunk).unwrap()
    };
    let by = |signer: u8| move |_: &[u8]| vec![signer; 16];
    for (entry, taken) in [
        // The hub's own, which it has lost; the root's for the hub; the child's own.
        (issued("hg", HUB).signed(by(HUB)), true),
        (issued("hg", ROOT).signed(by(ROOT)), true),
        (issued("tw", ROOT).signed(by(ROOT)), true),
        (issued("dv", CHILD).signed(by(CHILD)), true),
        // Nobody's, another's, and by an author who may not.
        (issued("hg", HUB), false),
        (issued("hg", HUB).signed(by(CHILD)), false),
        (issued("hg", CHILD).signed(by(CHILD)), false),
        (issued("tw", HUB).signed(by(HUB)), false),
    ] {
        for (node, peer, direction) in [(HUB, CHILD, Direction::Down), (CHILD, HUB, Direction::Up)] {
            let mut this = Node::new(node);
            this.meets(DOWN, peer, direction);
            this.says(DOWN, hello(peer));
            for of in [ROOT, HUB, CHILD] {
                this.says(DOWN, Frame::Announce(announcement(of, 1)));
            }
            let (segment, entries) = (run(peer, 1), vec![(1, entry.clone())]);
            let batch = EntryBatch { segment, origin: entry.origin(), entries, ..batch(0, Some(1), &[]) };
            let said = this.says(DOWN, Frame::Batch(batch));
            let code = refused(&said, DOWN).map(|(code, _)| code);
            assert_eq!(code, (!taken).then_some(refusal::OUTSIDE_SUBTREE), "{entry:?} at {node}: {said:?}");
            assert_eq!(this.store.tip().unwrap(), u64::from(taken));
        }
    }
    // Who writes one signs it.
    let mut hub = Node::new(HUB);
    let entries = vec![issued("hg", HUB)];
    hub.told(Event::Write { ticket: Ticket(1), entries, projection: Vec::new() });
    assert_eq!(hub.store.entry(1).unwrap().unwrap().signature(), Some(&[HUB; 16][..]));
}

#[test]
fn marks_are_of_what_goes_up_and_comes_from_below() {
    for (node, peer, direction, marks) in
        [(HUB, CHILD, Direction::Down, 1), (ROOT, HUB, Direction::Down, 0), (CHILD, HUB, Direction::Up, 0)]
    {
        let mut this = Node::new(node);
        this.meets(DOWN, peer, direction);
        this.says(DOWN, hello(peer));
        [peer, CHILD].into_iter().for_each(|of| drop(this.says(DOWN, Frame::Announce(announcement(of, 1)))));
        let segment = run(peer, 1);
        let entries = vec![(1, entry(segment, 1, Lane::Normal, 1))];
        let batch = EntryBatch { segment, origin: segment, entries, ..batch(0, Some(1), &[]) };
        this.says(DOWN, Frame::Batch(batch));
        assert_eq!((this.store.tip().unwrap(), this.store.marks().unwrap().len()), (1, marks));
    }
}

#[test]
fn a_commit_has_a_size_at_which_it_is_closed() {
    let mut node = Node::new(HUB);
    let run = node.engine.incarnation();
    let around = entry(run, 1, Lane::Normal, 500_000).encoded_len() - 500_000;
    node.handles(Event::Folded(Vec::new()));
    for seq in 1..=6 {
        let entries = vec![entry(run, seq, Lane::Normal, (1 << 20) - around)];
        assert_eq!(entries[0].encoded_len(), 1 << 20);
        node.handles(Event::Write { ticket: Ticket(seq), entries, projection: Vec::new() });
    }
    for written in [0, 4, 2] {
        let Some(Effect::Commit(ops)) = node.engine.poll_effect() else { panic!("nothing is kept") };
        assert_eq!(ops.iter().filter(|op| matches!(op, Op::Append { .. })).count(), written);
        node.store.commit(&ops).unwrap();
        node.handles(Event::Committed);
        for _ in 0..written {
            assert!(matches!(node.engine.poll_effect(), Some(Effect::Written(_))));
        }
    }
}

#[test]
fn so_many_places_are_asked_for_and_no_more() {
    let home = |n: usize| OrgId::new(&format!("h{n}")).unwrap();
    let mut hub = Node::with_child();
    for n in 0..=PLACES_MAX {
        hub.says(DOWN, Frame::NeedPlace(home(n)));
    }
    assert_eq!(hub.engine.queues().places, PLACES_MAX);
    let mut hub = Node::with_child();
    let mut asks = 0;
    let segment = run(CHILD, 1);
    let of = |n: usize| {
        let chunk = opaque_chunk(segment, n as u64, &[], Stamp(1), b"x");
        let entry = Entry::new(format!("Basic/{n}").parse().unwrap(), home(n), Lane::Normal, chunk).unwrap();
        (n as u64 + 1, entry)
    };
    for n in (0..=PLACES_MAX).step_by(2) {
        let part = EntryBatch { entries: vec![of(n), of(n + 1)], ..batch(0, None, &[]) };
        let said = frames(&hub.says(DOWN, Frame::Batch(part)), DOWN);
        asks += said.iter().filter(|frame| matches!(frame, Frame::NeedPlace(_))).count();
    }
    assert_eq!((asks, hub.engine.queues().places), (PLACES_MAX, PLACES_MAX));
}

#[test]
fn a_neighbour_that_has_read_nothing_of_this_process_is_no_rival() {
    for (pos, rival) in [(0, false), (1, true)] {
        let mut hub = Node::new(HUB);
        hub.meets(DOWN, CHILD, Direction::Down);
        let at = Position { segment: hub.engine.incarnation(), pos };
        let cursors = Lane::ALL.map(|lane| (lane, Cursor { at, chain: Some(CHAIN_START) })).to_vec();
        let Frame::Hello(hello) = hello(CHILD) else { unreachable!() };
        let said = hub.says(DOWN, Frame::Hello(Hello { cursors, ..hello }));
        assert_eq!(!forks(&said).is_empty(), rival, "{said:?}");
    }
}

#[test]
fn who_has_read_more_of_an_older_run_than_a_restored_node_knows_is_no_rival() {
    let mut hub = Node::new(HUB);
    hub.writes(1);
    let older = hub.engine.incarnation();
    hub.restarts();
    for writes in [false, true] {
        if writes {
            hub.writes(2);
        }
        let mut hub = hub.clone();
        hub.meets(DOWN, CHILD, Direction::Down);
        let cursors = Lane::ALL.map(|lane| {
            (lane, Cursor { at: Position { segment: older, pos: 9 }, chain: Some(Chain([9; 16])) })
        });
        let Frame::Hello(hello) = hello(CHILD) else { unreachable!() };
        let said = hub.says(DOWN, Frame::Hello(Hello { cursors: cursors.to_vec(), ..hello }));
        assert!(frames(&said, DOWN).contains(&Frame::Lost), "{said:?}");
        assert!(forks(&said).is_empty());
    }
}

fn forks(effects: &[Effect]) -> Vec<Incarnation> {
    let forked = effects.iter().filter_map(|effect| match effect {
        Effect::Alert(Alert::Forked { segment }) => Some(*segment),
        _ => None,
    });
    forked.collect()
}

/// HELLO of a reader that has read another row at this place than this node remembers.
fn hello_of_other_rows(node: u8, at: Position) -> Frame {
    let Frame::Hello(said) = hello(node) else { unreachable!() };
    let cursor = Cursor { at, chain: Some(Chain([0xee; 16])) };
    Frame::Hello(Hello { cursors: vec![(Lane::Normal, cursor)], ..said })
}

#[test]
fn a_forked_segment_and_all_after_it_get_new_names() {
    let mut node = Node::new(HUB);
    let mut runs = Vec::new();
    for seq in 1..=6 {
        node.writes(seq);
        if seq % 2 == 0 {
            runs.push(node.engine.incarnation());
            node.restarts();
        }
    }
    let fresh = node.engine.incarnation();
    for (link, peer, direction) in [(UP, ROOT, Direction::Up), (DOWN, CHILD, Direction::Down)] {
        node.meets(link, peer, direction);
    }
    // The second says the same while the new names are not durable yet.
    let at = Position { segment: runs[1], pos: 2 };
    node.handles(Event::Received(UP, hello_of_other_rows(ROOT, at)));
    node.handles(Event::Received(DOWN, hello_of_other_rows(CHILD, at)));
    let mut effects = Vec::new();
    while let Some(effect) = node.engine.poll_effect() {
        match effect {
            Effect::Commit(ops) => {
                node.store.commit(&ops).unwrap();
                node.handles(Event::Committed);
            }
            effect => effects.push(effect),
        }
    }
    assert_eq!(forks(&effects), [runs[1]]);
    assert_eq!(node.engine.incarnation(), fresh, "nothing was written under it");
    let segments = node.store.segments().unwrap();
    let names: Vec<_> = segments.iter().map(|segment| segment.incarnation).collect();
    assert!(names[0] == runs[0] && !runs.contains(&names[1]) && !runs.contains(&names[2]), "{names:?}");
    let parents: Vec<_> = segments.iter().map(|segment| segment.parent).collect();
    let end = |segment| Some(Position { segment, pos: 2 });
    assert_eq!(parents, [None, end(names[0]), end(names[1])]);
    assert!(segments.iter().map(|segment| segment.base).eq([0, 2, 4]));
    assert_eq!(node.engine.links().count(), 0, "everybody is met anew");
    let (announced, _) = node.store.announcement(names[2]).unwrap().unwrap();
    assert_eq!(announced.parent, Some((names[1], 2)));
}

#[test]
fn a_run_whose_name_another_machine_uses_takes_another() {
    let replaced = Frame::Refuse { code: refusal::REPLACED, text: String::new() };
    for (rows, doubled, code, renamed) in [
        (0, false, refusal::REPLACED, true),
        (1, false, refusal::REPLACED, true),
        (0, true, refusal::REPLACED, false),
        (0, false, refusal::TIMEOUT, false),
    ] {
        let mut node = Node::with_parent(HUB, ROOT);
        (1..=rows).for_each(|seq| drop(node.writes(seq)));
        let run = node.engine.incarnation();
        if doubled {
            node.meets(LinkId(8), ROOT, Direction::Up);
        }
        let Frame::Refuse { text, .. } = replaced.clone() else { unreachable!() };
        let said = node.says(UP, Frame::Refuse { code, text });
        assert_eq!(forks(&said), if renamed { vec![run] } else { Vec::new() });
        assert_eq!(node.engine.incarnation() != run, renamed);
        assert!(said.iter().any(
            |effect| matches!(effect, Effect::Alert(Alert::RefusedByPeer { code: told, .. }) if *told == code)
        ));
        node.writes(7);
        let segments = node.store.segments().unwrap();
        assert_eq!((segments.len(), segments[0].incarnation), (1, node.engine.incarnation()));
    }
}

#[test]
fn of_two_connections_of_one_run_the_parent_keeps_the_newer_and_two_runs_are_two_machines() {
    let later = LinkId(8);
    let of_run = |peer: u8, n: u8| {
        let Frame::Hello(said) = hello(peer) else { unreachable!() };
        Frame::Hello(Hello { run: run(peer, n), ..said })
    };
    for (peer, direction, n, replaced, rival) in [
        (CHILD, Direction::Down, 1, true, false),
        (ROOT, Direction::Up, 1, false, false),
        (CHILD, Direction::Down, 2, false, true),
        (ROOT, Direction::Up, 2, false, true),
    ] {
        let mut this = Node::new(HUB);
        this.meets(DOWN, peer, direction);
        this.says(DOWN, of_run(peer, 1));
        this.meets(later, peer, direction);
        let said = this.says(later, of_run(peer, n));
        let refusal = refused(&said, DOWN).map(|(code, _)| code);
        assert_eq!(refusal, replaced.then_some(refusal::REPLACED));
        assert!(refused(&said, later).is_none());
        let said = this.says(DOWN, Frame::Need(run(CHILD, 1)));
        let alerts = |said: &[Effect]| {
            said.iter().filter(|e| matches!(e, Effect::Alert(Alert::TwoMachines { .. }))).count()
        };
        assert_eq!(alerts(&said), usize::from(rival));
        assert_eq!(alerts(&this.says(DOWN, Frame::Need(run(CHILD, 1)))), 0, "once");
    }
}

#[test]
fn a_hello_that_comes_after_that_of_a_newer_connection_is_the_older_one() {
    let later = LinkId(8);
    for (n, replaced) in [(1, true), (2, false)] {
        let mut hub = Node::new(HUB);
        hub.meets(DOWN, CHILD, Direction::Down);
        hub.meets(later, CHILD, Direction::Down);
        hub.says(later, hello(CHILD));
        let Frame::Hello(said) = hello(CHILD) else { unreachable!() };
        let effects = hub.says(DOWN, Frame::Hello(Hello { run: run(CHILD, n), ..said }));
        let told = |effects: &[Effect]| {
            effects.iter().any(|e| matches!(e, Effect::Alert(Alert::TwoMachines { .. })))
        };
        assert_eq!(refused(&effects, DOWN).map(|(code, _)| code), replaced.then_some(refusal::REPLACED));
        assert!(refused(&effects, later).is_none() && !told(&effects));
        let asked = Frame::Need(run(CHILD, 1));
        assert!(!told(&hub.says(later, asked.clone())));
        assert_eq!(told(&hub.says(DOWN, asked)), !replaced);
    }
    // Of three, the oldest speaks last: it is refused by the second, whatever the third is.
    let mut hub = Node::new(HUB);
    let Frame::Hello(said) = hello(CHILD) else { unreachable!() };
    for (n, link) in [(1, DOWN), (1, later), (2, LinkId(9))] {
        hub.meets(link, CHILD, Direction::Down);
        if link != DOWN {
            hub.says(link, Frame::Hello(Hello { run: run(CHILD, n), ..said.clone() }));
        }
    }
    let effects = hub.says(DOWN, Frame::Hello(said));
    assert_eq!(refused(&effects, DOWN).map(|(code, _)| code), Some(refusal::REPLACED));
    assert!(refused(&effects, later).is_none() && refused(&effects, LinkId(9)).is_none());
}

#[test]
fn a_reader_that_knows_more_is_asked_for_places_that_both_know() {
    let at = |segment, pos| Position { segment, pos };
    // Rows 1 and 2 of an earlier run, 3 and 4 of another, and none or one of this.
    for (own_rows, (index, pos), forked) in [
        (0, (1, 2), false),
        (0, (1, 1), false),
        (0, (1, 3), true),
        (0, (0, 2), false),
        (0, (0, 0), false),
        (0, (0, 3), true),
        (1, (2, 1), false),
        (1, (2, 2), true),
    ] {
        let mut node = Node::new(HUB);
        let mut runs = Vec::new();
        for seq in 1..=4 {
            node.writes(seq);
            if seq % 2 == 0 {
                runs.push(node.engine.incarnation());
                node.restarts();
            }
        }
        runs.push(node.engine.incarnation());
        (0..own_rows).for_each(|n| drop(node.writes(5 + n)));
        node.meets(DOWN, CHILD, Direction::Down);
        let said = frames(&node.says(DOWN, hello_of_other_rows(CHILD, at(run(AUNT, 9), 7))), DOWN);
        let announced: Vec<_> = said.iter().filter(|frame| matches!(frame, Frame::Announce(_))).collect();
        assert_eq!((announced.len(), said.last()), (2 + own_rows as usize, Some(&Frame::Lost)), "{said:?}");
        let (segment, seq) = (runs[index], 2 * index as Seq + pos);
        let chain = if pos == 0 { Some(CHAIN_START) } else { node.store.chain(seq).unwrap() };
        let named = (Lane::Normal, Cursor { at: at(segment, pos), chain });
        let said = node.says(DOWN, Frame::Cursors(vec![named]));
        assert_eq!(forks(&said), if forked { vec![segment] } else { Vec::new() }, "{index} {pos}");
        assert!(!frames(&said, DOWN).contains(&Frame::Lost), "once");
        assert_eq!(node.engine.links.contains_key(&DOWN), !forked);
        if forked {
            continue;
        }
        assert!(node.engine.links[&DOWN].out[1].next >= Some(seq));
        let confirmed = frames(&said, DOWN).into_iter().find_map(|frame| match frame {
            Frame::Batch(batch) if batch.entries.is_empty() => {
                let (pos, chain) = batch.upto.unwrap();
                Some((batch.lane, Cursor { at: at(batch.segment, pos), chain: Some(chain) }))
            }
            _ => None,
        });
        assert_eq!(confirmed, Some(named));
        let (code, text) = refused(&node.says(DOWN, Frame::Cursors(Vec::new())), DOWN).unwrap();
        assert_eq!((code, text.contains("nobody had asked")), (refusal::PROTOCOL, true));
    }
    // What this process has written it has not forgotten: a reader that knows none of it begins at the beginning.
    let mut node = Node::new(HUB);
    node.writes(1);
    node.meets(DOWN, CHILD, Direction::Down);
    node.says(DOWN, hello_of_other_rows(CHILD, at(run(AUNT, 9), 7)));
    node.says(DOWN, Frame::Announce(announcement(CHILD, 1)));
    let unknown = Cursor { at: at(run(AUNT, 9), 7), chain: None };
    let said = frames(&node.says(DOWN, Frame::Cursors(vec![(Lane::Normal, unknown)])), DOWN);
    let [Frame::Batch(batch)] = &said[..] else { panic!("{said:?}") };
    assert_eq!((batch.after, batch.entries.len()), (0, 1));
}

/// A genuine certificate of another place is refused before anything is said, and says nothing about a real neighbour.
#[test]
fn who_stands_elsewhere_is_refused() {
    for (peer, direction) in [(AUNT, Direction::Down), (COUSIN, Direction::Down), (CHILD, Direction::Up)] {
        let mut hub = Node::new(HUB);
        hub.meets(DOWN, CHILD, Direction::Down);
        hub.says(DOWN, hello(CHILD));
        let said = hub.meets(UP, peer, direction);
        assert_eq!(frames(&said, UP), [Frame::Orders(Vec::new())], "it might have been moved");
        let said = hub.says(UP, Frame::Orders(Vec::new()));
        assert_eq!(refused(&said, UP).unwrap().0, 5);
        assert!(!frames(&said, UP).iter().any(|frame| matches!(frame, Frame::Hello(_))));
        assert!(!hub.engine.links[&DOWN].doubled);
        assert_eq!(hub.engine.links().count(), 1);
    }
}

#[test]
fn what_is_said_of_the_root_before_places_are_agreed_is_kept_once_for_each_lane() {
    let mut node = Node::new(CHILD);
    (1..=3).for_each(|seq| drop(node.writes(seq)));
    node.meets(UP, HUB, Direction::Up);
    let at = |pos| Position { segment: node.engine.incarnation(), pos };
    let [one, two, three] = [1, 2, 3].map(at);
    node.says(UP, hello_of_other_rows(HUB, Position { segment: run(AUNT, 9), pos: 7 }));
    for (lane, at) in [(Lane::Normal, one), (Lane::Bulk, one), (Lane::Normal, two)] {
        node.says(UP, Frame::SafeAtRoot(lane, at));
    }
    assert_eq!(node.engine.links[&UP].early, [(Lane::Bulk, one), (Lane::Normal, two)]);
    assert_eq!(node.engine.frontier(Frontier::Root, Lane::Normal), 0);
    let chain = node.store.chain(3).unwrap();
    node.says(UP, Frame::Cursors(vec![(Lane::Normal, Cursor { at: three, chain })]));
    assert_eq!(node.engine.frontier(Frontier::Root, Lane::Normal), 0, "it was put back, and not audited");
    node.now.mono += 1;
    node.is_audited();
    assert_eq!(node.engine.frontier(Frontier::Root, Lane::Normal), 2);
}

#[test]
fn batches_and_what_is_under_way_have_their_sizes() {
    let mut node = Node::with_parent(HUB, ROOT);
    let run = node.engine.incarnation();
    let around = entry(run, 10, Lane::Normal, 3_000).encoded_len() - 3_000;
    let entries: Vec<_> = (10..50).map(|seq| entry(run, seq, Lane::Normal, 4_096 - around)).collect();
    assert!(entries.iter().all(|entry| entry.encoded_len() == 4_096));
    let sizes = |said: Vec<Effect>| -> Vec<usize> {
        let sizes = frames(&said, UP).into_iter().filter_map(|frame| match frame {
            Frame::Batch(batch) => Some(batch.entries.len()),
            _ => None,
        });
        sizes.collect()
    };
    let said = node.told(Event::Write { ticket: Ticket(1), entries, projection: Vec::new() });
    assert_eq!(sizes(said), [4, 4, 4, 4], "four batches of 16 KiB");
    node.now.mono += 5_000;
    let ack = |pos| Frame::Ack(Lane::Normal, Position { segment: run, pos });
    assert_eq!(sizes(node.says(UP, ack(4))), [4]);
    assert_eq!(sizes(node.says(UP, ack(16))), [4, 4, 4]);
    // On a faster line they grow.
    node.now.mono += 100;
    assert_eq!(sizes(node.says(UP, ack(20))), [8]);
}

/// A home of which it has not heard; it asks before it judges, and once.
#[test]
fn where_a_home_stands_is_asked_and_told() {
    for (announced, right) in [(AUNT, false), (COUSIN, true)] {
        let mut hub = Node::with_child();
        let home = info(announced).place.org().clone();
        let of_home = |seq| {
            let chunk = opaque_chunk(run(HUB, 9), seq, &[], Stamp(1), b"x");
            let record = format!("Basic/{seq}").parse().unwrap();
            (seq, Entry::new(record, home.clone(), Lane::Normal, chunk).unwrap())
        };
        hub.says(DOWN, Frame::Announce(announcement(HUB, 9)));
        let bring = |seq| {
            let entries = vec![of_home(seq)];
            Frame::Batch(EntryBatch { origin: run(HUB, 9), entries, ..batch(seq - 1, Some(seq), &[]) })
        };
        let said = hub.says(DOWN, bring(1));
        assert_eq!(frames(&said, DOWN), [Frame::NeedPlace(home.clone())]);
        assert!(frames(&hub.says(DOWN, bring(2)), DOWN).is_empty(), "once");
        assert_eq!(hub.store.tip().unwrap(), 0);
        let said = hub.says(DOWN, Frame::Announce(announcement(announced, 1)));
        assert_eq!(refused(&said, DOWN).map(|(code, _)| code), (!right).then_some(refusal::OUTSIDE_SUBTREE));
        assert_eq!(hub.store.tip().unwrap(), if right { 2 } else { 0 });
        // The next that asks is told, now or when it is known.
        hub.meets(UP, ROOT, Direction::Up);
        hub.says(UP, hello(ROOT));
        let told = frames(&hub.says(UP, Frame::NeedPlace(home.clone())), UP);
        assert_eq!(
            told,
            [Frame::Announce(Announcement { chain: vec![vec![1]], ..announcement(announced, 1) })]
        );
        let unknown = OrgId::new("unknown").unwrap();
        let asked = hub.says(UP, Frame::NeedPlace(unknown.clone()));
        assert_eq!(frames(&asked, UP), [Frame::NeedPlace(unknown)], "who asks may hear of it first");
    }
}

#[test]
fn a_restored_child_hears_that_what_both_know_is_at_the_root() {
    let mut hub = Node::with_child();
    hub.says(DOWN, Frame::Batch(batch(0, Some(2), &[1, 2])));
    hub.says(DOWN, Frame::Batch(batch(2, Some(5), &[3, 4, 5])));
    hub.meets(UP, ROOT, Direction::Up);
    hub.says(UP, hello(ROOT));
    let own = hub.engine.incarnation();
    hub.says(UP, Frame::Ack(Lane::Normal, Position { segment: own, pos: 5 }));
    hub.writes(9);
    assert_eq!(hub.store.marks().unwrap().len(), 1);
    hub.told(Event::Closed(DOWN));
    hub.meets(DOWN, CHILD, Direction::Down);
    let at = |pos| Position { segment: run(CHILD, 1), pos };
    let Frame::Hello(said) = hello(CHILD) else { unreachable!() };
    hub.says(DOWN, Frame::Hello(Hello { run: run(CHILD, 2), tip: Some(at(2)), ..said }));
    let said = hub.says(DOWN, Frame::Lost);
    assert!(said.iter().any(|effect| matches!(effect, Effect::Alert(Alert::Restored { .. }))));
    let said = frames(&said, DOWN);
    let beginning = Cursor { at: at(0), chain: Some(CHAIN_START) };
    let read = Cursor { at: at(2), chain: Some(Chain([9; 16])) };
    let cursors = vec![(Lane::Urgent, beginning), (Lane::Normal, read), (Lane::Bulk, beginning)];
    assert!(said.contains(&Frame::Cursors(cursors)), "{said:?}");
    assert!(said.contains(&Frame::SafeAtRoot(Lane::Normal, at(2))), "{said:?}");
}

/// A copy of the child knows less of a run than has been read. It is told so at every meeting until it has confirmed where
/// to go on: had it lost power before, it would go on under a name that somebody else uses.
#[test]
fn a_reader_stands_where_the_neighbour_has_confirmed_it() {
    let mut hub = Node::with_child();
    hub.says(DOWN, Frame::Batch(batch(0, Some(3), &[1, 2, 3])));
    hub.says(DOWN, Frame::Batch(batch(3, Some(5), &[4, 5])));
    let at = |pos| Position { segment: run(CHILD, 1), pos };
    let named = |said: &[Effect]| {
        frames(said, DOWN).into_iter().find_map(|frame| match frame {
            Frame::Hello(hello) => {
                hello.cursors.iter().find(|(lane, _)| *lane == Lane::Normal).map(|(_, c)| c.at)
            }
            _ => None,
        })
    };
    for (place, confirms) in [(5, false), (5, true), (3, true)] {
        hub.told(Event::Closed(DOWN));
        assert_eq!(named(&hub.meets(DOWN, CHILD, Direction::Down)), Some(at(place)));
        let Frame::Hello(said) = hello(CHILD) else { unreachable!() };
        hub.says(DOWN, Frame::Hello(Hello { run: run(CHILD, 2), tip: Some(at(3)), ..said }));
        hub.says(DOWN, Frame::Lost);
        if confirms {
            let said = hub.says(
                DOWN,
                Frame::Batch(EntryBatch { upto: Some((3, Chain([9; 16]))), ..batch(3, None, &[]) }),
            );
            assert_eq!(frames(&said, DOWN), [Frame::Ack(Lane::Normal, at(3))]);
        }
    }
}

/// The child's very process writes that run, and says less of it than has been read: somebody else writes it too.
#[test]
fn what_was_read_of_a_live_run_is_named_also_beyond_its_end() {
    let mut hub = Node::with_child();
    hub.says(DOWN, Frame::Batch(batch(0, Some(5), &[1, 2, 3, 4, 5])));
    hub.told(Event::Closed(DOWN));
    hub.meets(DOWN, CHILD, Direction::Down);
    let at = |pos| Position { segment: run(CHILD, 1), pos };
    let Frame::Hello(said) = hello(CHILD) else { unreachable!() };
    hub.says(DOWN, Frame::Hello(Hello { tip: Some(at(3)), ..said }));
    let said = frames(&hub.says(DOWN, Frame::Lost), DOWN);
    let normal = said.iter().find_map(|frame| match frame {
        Frame::Cursors(cursors) => cursors.iter().find(|(lane, _)| *lane == Lane::Normal).map(|(_, c)| c.at),
        _ => None,
    });
    assert_eq!(normal, Some(at(5)));
}

/// Three copies of the child. Of run 1 one has told more than another knows, and a third has put the places back to before
/// it: the second knows these, and has to hear of the first all the same.
#[test]
fn who_knows_less_of_a_run_than_was_read_hears_of_it_whatever_is_named() {
    let at = |n, pos| Position { segment: run(CHILD, n), pos };
    let read = |at: Position| {
        let cursor = Cursor { at, chain: Some(Chain([at.pos as u8; 16])) };
        Op::Read { lane: Lane::Normal, cursor, brought: false }
    };
    let tip = |n, pos| {
        let Frame::Hello(said) = hello(CHILD) else { unreachable!() };
        Frame::Hello(Hello { run: run(CHILD, 4), tip: Some(at(n, pos)), ..said })
    };
    // With a place just at the end of what the second knows, the running hash there tells all.
    for (had_read, end, named) in [
        (vec![7], 5, Some(7)),
        (vec![3, 7], 5, Some(7)),
        (vec![5, 7], 5, Some(5)),
        (vec![3], 5, Some(3)),
        (vec![], 5, None),
    ] {
        let mut hub = Node::with_child();
        let (first, second) = (announcement(CHILD, 1), announcement(CHILD, 2));
        let mut facts =
            vec![Op::Announce(Announcement { parent: Some((run(CHILD, 2), 9)), ..first }, info(CHILD))];
        facts.push(Op::Announce(second, info(CHILD)));
        facts.extend(had_read.iter().map(|pos| read(at(1, *pos))));
        facts.push(read(at(2, 4)));
        hub.store.commit(&facts).unwrap();
        hub.told(Event::Closed(DOWN));
        hub.meets(DOWN, CHILD, Direction::Down);
        let said = hub.says(DOWN, tip(1, end));
        assert_eq!(
            said.iter().any(|effect| matches!(effect, Effect::Close(_))),
            named.is_some(),
            "{had_read:?}"
        );
        hub.meets(LinkId(3), CHILD, Direction::Down);
        let normal = hub.engine.links[&LinkId(3)].named.iter().find(|(lane, _)| *lane == Lane::Normal);
        assert_eq!(normal.map(|(_, c)| c.at), Some(named.map_or(at(2, 4), |pos| at(1, pos))), "{had_read:?}");
    }
}

/// A neighbour that comes back from an older copy has less than was read of it, and may have written anew under the same name: it
/// is given nothing as if it had the rest, until it says that it goes on from there, because it has grown since its HELLO.
#[test]
fn what_a_neighbour_does_not_know_it_is_not_taken_to_have() {
    let mut hub = Node::with_child();
    hub.says(DOWN, Frame::Batch(batch(0, Some(5), &[1, 2, 3, 4, 5])));
    hub.told(Event::Closed(DOWN));
    hub.meets(DOWN, CHILD, Direction::Down);
    let Frame::Hello(said) = hello(CHILD) else { unreachable!() };
    let at = |pos| Position { segment: run(CHILD, 1), pos };
    hub.says(DOWN, Frame::Hello(Hello { tip: Some(at(3)), ..said }));
    let said = frames(&hub.says(DOWN, Frame::Lost), DOWN);
    let Some(Frame::Cursors(cursors)) = said.first() else { panic!("{said:?}") };
    assert_eq!(cursors.iter().find(|(lane, _)| *lane == Lane::Normal).unwrap().1.at, at(5));
    assert!(hub.engine.links[&DOWN].lineage.is_none());
    let confirmed = |lane, pos| Frame::Batch(EntryBatch { lane, ..batch(pos, Some(pos), &[]) });
    hub.says(DOWN, confirmed(Lane::Bulk, 0));
    hub.says(DOWN, confirmed(Lane::Urgent, 0));
    assert!(hub.engine.links[&DOWN].lineage.is_none());
    hub.says(DOWN, confirmed(Lane::Normal, 5));
    assert!(hub.engine.links[&DOWN].lineage.is_some());
}

/// A run that has been read after what comes after it in this feed was read by another machine.
#[test]
fn a_run_in_which_entries_came_too_late_gets_another_name() {
    for (brought, named) in [(true, wire::POSITION_MAX), (false, 4)] {
        let mut hub = Node::with_child();
        let at = |n, pos| Position { segment: run(CHILD, n), pos };
        let read = |n, pos, brought| {
            let cursor = Cursor { at: at(n, pos), chain: Some(Chain([9; 16])) };
            Op::Read { lane: Lane::Normal, cursor, brought }
        };
        let second = Announcement { parent: Some((run(CHILD, 1), 4)), ..announcement(CHILD, 2) };
        let facts =
            [Op::Announce(second, info(CHILD)), read(2, 1, true), read(1, 3, brought), read(3, 1, true)];
        hub.store.commit(&facts).unwrap();
        hub.store.commit(&[Op::Announce(announcement(CHILD, 3), info(CHILD))]).unwrap();
        hub.told(Event::Closed(DOWN));
        hub.meets(DOWN, CHILD, Direction::Down);
        let Frame::Hello(said) = hello(CHILD) else { unreachable!() };
        hub.says(DOWN, Frame::Hello(Hello { run: run(CHILD, 4), tip: Some(at(2, 4)), ..said }));
        let said = frames(&hub.says(DOWN, Frame::Lost), DOWN);
        let Some(Frame::Cursors(cursors)) = said.first() else { panic!("{said:?}") };
        let segment = run(CHILD, if brought { 1 } else { 2 });
        let place = cursors.iter().find(|(lane, _)| *lane == Lane::Normal).map(|(_, cursor)| cursor.at);
        assert_eq!(place, Some(Position { segment, pos: if brought { named } else { 1 } }));
    }
}

/// The name that a process has for what it will write is somebody else's already.
#[test]
fn a_run_that_has_written_nothing_may_have_been_read() {
    let mut hub = Node::with_child();
    hub.says(DOWN, Frame::Batch(batch(0, Some(5), &[1, 2, 3, 4, 5])));
    hub.told(Event::Closed(DOWN));
    hub.meets(DOWN, CHILD, Direction::Down);
    hub.says(DOWN, hello(CHILD));
    let said = frames(&hub.says(DOWN, Frame::Lost), DOWN);
    let place = Cursor { at: Position { segment: run(CHILD, 1), pos: 5 }, chain: Some(Chain([9; 16])) };
    assert_eq!(said[0], Frame::Cursors(vec![(Lane::Normal, place)]));
    // The same when it has written something under an older name, of which nothing was read.
    hub.told(Event::Closed(DOWN));
    hub.meets(DOWN, CHILD, Direction::Down);
    let Frame::Hello(its) = hello(CHILD) else { unreachable!() };
    let tip = Some(Position { segment: run(CHILD, 7), pos: 2 });
    hub.says(DOWN, Frame::Hello(Hello { tip, ..its }));
    hub.says(DOWN, Frame::Lost);
    let said = frames(&hub.says(DOWN, Frame::Announce(announcement(CHILD, 7))), DOWN);
    let named = said.iter().find_map(|frame| match frame {
        Frame::Cursors(cursors) => cursors.iter().find(|(lane, _)| *lane == Lane::Normal).copied(),
        _ => None,
    });
    assert_eq!(named, Some((Lane::Normal, place)), "{said:?}");
    // The other side of it.
    let mut child = Node::new(CHILD);
    let own = child.engine.incarnation();
    child.meets(UP, HUB, Direction::Up);
    let said = child.says(UP, hello_of_other_rows(HUB, Position { segment: own, pos: 5 }));
    assert_eq!(forks(&said), [own]);
    assert_ne!(child.engine.incarnation(), own);
}

/// Of a machine of the same name that seems to have what another has just brought.
#[test]
fn a_machine_at_whose_places_another_brings_entries_is_met_anew() {
    let other = LinkId(8);
    for (read, brings, gone) in [(5, 3, true), (5, 5, true), (2, 3, false)] {
        let mut hub = Node::with_child();
        let cursor = Cursor { at: Position { segment: run(CHILD, 1), pos: read }, chain: None };
        hub.store.commit(&[Op::Read { lane: Lane::Normal, cursor, brought: true }]).unwrap();
        let tip = Some(Position { segment: run(CHILD, 1), pos: 5 });
        hub.told(Event::Closed(DOWN));
        for (link, n) in [(DOWN, 2), (other, 3)] {
            hub.meets(link, CHILD, Direction::Down);
            let Frame::Hello(said) = hello(CHILD) else { unreachable!() };
            hub.says(link, Frame::Hello(Hello { run: run(CHILD, n), tip, ..said }));
        }
        let said = hub.says(DOWN, Frame::Batch(batch(brings - 1, Some(brings), &[brings])));
        let closed = said.iter().any(|effect| matches!(effect, Effect::Close(link) if *link == other));
        assert_eq!(closed, gone, "read {read}, brings {brings}: {said:?}");
        assert!(hub.engine.links.contains_key(&DOWN));
    }
}

/// What a process has acknowledged on one link it has not forgotten on another that it began before.
#[test]
fn an_older_word_of_the_same_process_sets_nothing_back() {
    for (n, stands) in [(1, 2), (2, 1)] {
        let mut node = Node::with_parent(HUB, ROOT);
        (1..=2).for_each(|seq| drop(node.writes(seq)));
        let segment = node.engine.incarnation();
        node.says(UP, Frame::Ack(Lane::Normal, Position { segment, pos: 2 }));
        node.meets(LinkId(8), ROOT, Direction::Up);
        let cursor = Cursor { at: Position { segment, pos: 1 }, chain: node.store.chain(1).unwrap() };
        let Frame::Hello(said) = hello(ROOT) else { unreachable!() };
        let cursors = vec![(Lane::Normal, cursor)];
        node.says(LinkId(8), Frame::Hello(Hello { run: run(ROOT, n), cursors, ..said }));
        let reached = [Frontier::Hub, Frontier::Root].map(|which| node.engine.frontier(which, Lane::Normal));
        assert_eq!(reached, [stands; 2]);
    }
}

/// A run of which the parent is not announced, in a feed that is said to be empty.
#[test]
fn a_place_whose_past_is_unknown_is_waited_for() {
    let mut hub = Node::with_child();
    let unknown = Announcement { parent: Some((run(CHILD, 7), 3)), ..announcement(CHILD, 2) };
    let cursor = Cursor { at: Position { segment: run(CHILD, 2), pos: 1 }, chain: None };
    let read = Op::Read { lane: Lane::Normal, cursor, brought: true };
    hub.store.commit(&[Op::Announce(unknown, info(CHILD)), read]).unwrap();
    hub.told(Event::Closed(DOWN));
    hub.meets(DOWN, CHILD, Direction::Down);
    let Frame::Hello(said) = hello(CHILD) else { unreachable!() };
    hub.says(DOWN, Frame::Hello(Hello { run: run(CHILD, 2), ..said }));
    assert!(hub.engine.links.contains_key(&DOWN));
    hub.says(DOWN, Frame::Announce(announcement(CHILD, 7)));
    assert!(!hub.engine.links.contains_key(&DOWN), "it is met anew, and told");
    let said = frames(&hub.meets(DOWN, CHILD, Direction::Down), DOWN);
    let [Frame::Hello(hello)] = &said[..] else { panic!("{said:?}") };
    assert_eq!(hello.cursors, [(Lane::Normal, cursor)]);
}

#[test]
fn runs_that_lead_back_to_themselves_end_somewhere() {
    let mut hub = Node::new(HUB);
    hub.meets(DOWN, CHILD, Direction::Down);
    let Frame::Hello(said) = hello(CHILD) else { unreachable!() };
    hub.says(DOWN, Frame::Hello(Hello { tip: Some(Position { segment: run(CHILD, 1), pos: 1 }), ..said }));
    for (one, other) in [(1, 2), (2, 1)] {
        let parent = Some((run(CHILD, other), 1));
        hub.says(DOWN, Frame::Announce(Announcement { parent, ..announcement(CHILD, one) }));
    }
    assert!(hub.engine.links().next().is_some_and(|link| link.settled));
}

/// A run is its node's by its name: who announces another's is refused, however it is signed.
#[test]
fn nobody_announces_a_run_by_the_name_of_another_node() {
    let mut hub = Node::with_child();
    let taken = Announcement { node: NodeId([CHILD; 16]), ..announcement(AUNT, 1) };
    let (code, text) = refused(&hub.says(DOWN, Frame::Announce(taken)), DOWN).unwrap();
    assert_eq!(code, refusal::PROTOCOL);
    assert!(text.contains("a name that is another node's"), "{text}");
    assert_eq!(hub.store.announcement(run(AUNT, 1)).unwrap(), None);
}
