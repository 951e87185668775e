//! One engine and what its neighbours say to it, frame by frame: the limits and figures that worlds of many nodes seldom
//! or never come to. Whether nodes agree is for `tests/src/sim`.

use std::cell::Cell;

use super::*;
use crate::{
    change::opaque_chunk,
    feed::CHAIN_START,
    id::{Chain, ChangeHash},
    identity::{Reason, Refusal},
    session::{HELD_MAX_BATCHES, HELD_MAX_BYTES, SKIP_AFTER_ROWS},
    store::{MemStore, StoreMut},
    time::Stamp,
    wire::UNPACKED_MAX_BYTES,
};

const ROOT: u8 = 1;
const HUB: u8 = 2;
const CHILD: u8 = 3;
const AUNT: u8 = 4;
const UP: LinkId = LinkId(1);
const DOWN: LinkId = LinkId(2);

fn info(node: u8) -> NodeInfo {
    let (place, role) = match node {
        ROOT => ("tw", Role::Root),
        HUB => ("tw/hg", Role::Hub),
        CHILD => ("tw/hg/dv", Role::Leaf),
        AUNT => ("tw/qn", Role::Hub),
        _ => ("tw/qn/dv", Role::Leaf),
    };
    NodeInfo { node: NodeId([node; 16]), place: place.parse().unwrap(), role }
}

/// A node whose runs are named after it: those of the child begin with 3.
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

    fn verify_revocation(&self, revocation: &Revocation) -> Result<(), Refusal> {
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

    fn announce(&self, incarnation: Incarnation, parent: Option<Position>) -> Announcement {
        let parent = parent.map(|at| (at.segment, at.pos));
        Announcement { incarnation, parent, node: self.info.node, signature: vec![1], chain: vec![vec![1]] }
    }
}

fn run(node: u8, n: u8) -> Incarnation {
    let mut name = [n; 16];
    name[0] = node;
    Incarnation(name)
}

fn announcement(node: u8, n: u8) -> Announcement {
    let (incarnation, node) = (run(node, n), NodeId([node; 16]));
    Announcement { incarnation, parent: None, node, signature: vec![1], chain: Vec::new() }
}

fn hello(node: u8) -> Frame {
    let (run, software) = (run(node, 1), "test".to_owned());
    Frame::Hello(Hello { run, software, tip: None, cursors: Vec::new(), revocations: 0 })
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
}

impl Node {
    fn new(node: u8) -> Self {
        let store = MemStore::default();
        let engine = Engine::new(Test { info: info(node), minted: Cell::new(0) }, "test", &store).unwrap();
        Self { engine, store, now: Now { mono: 1_000, wall: 5 } }
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
    for n in 0..HELD_MAX_BATCHES {
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
            assert!(hub.says(DOWN, Frame::Batch(part)).is_empty(), "{pos}");
        }
        assert_eq!(refused(&hub.says(DOWN, Frame::Batch(batch(0, None, &[30]))), DOWN).is_none(), fits);
    }
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
    for (parent, at_once) in [(ROOT, true), (AUNT, false)] {
        let mut node = Node::with_parent(HUB, parent);
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
        node.says(UP, Frame::SafeAtRoot(Lane::Normal, two));
        assert_eq!(reached(&node), ([3, 3, 3], (true, true)));
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

#[test]
fn a_child_speaks_for_its_own_place_only() {
    for (node, home, origin, right) in [
        (CHILD, "dv", CHILD, true),
        (CHILD, "hg", CHILD, false),
        (CHILD, "qn", CHILD, false),
        // An author from elsewhere, of what the hub gave to its child before it was restored.
        (CHILD, "dv", AUNT, false),
        (CHILD, "dv", HUB, true),
        (CHILD, "nobody", CHILD, false),
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
    let mut hub = Node::with_child();
    let forged = Announcement { signature: Vec::new(), ..announcement(CHILD, 2) };
    assert_eq!(refused(&hub.says(DOWN, Frame::Announce(forged)), DOWN).unwrap().0, 3);
}

#[test]
fn revocations_travel_in_frames_that_fit() {
    let revocation = |n: u16| Revocation {
        node: NodeId([9; 16]),
        serial: crate::identity::Serial::new(&n.to_be_bytes()),
        place: "tw/qn".parse().unwrap(),
        reason: Reason::Lost,
        at: 0,
        signer: NodeId([ROOT; 16]),
        signature: vec![1],
        chain: vec![vec![0; 2_000]],
    };
    let bytes = revocation(1).encode().len();
    let fit = REVOCATIONS_FRAME_BYTES / bytes;
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
    hub.meets(DOWN, AUNT, Direction::Down);
    hub.says(DOWN, hello(AUNT));
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
