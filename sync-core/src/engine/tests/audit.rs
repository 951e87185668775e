//! Audits between two engines, and what is not allowed in one.

use super::*;
use crate::{
    audit::{Harm, Prefix, Range, Summary},
    wire::{REPAIR_MAX_RAW_BYTES, Want},
};

/// A hub and its child with a line between them.
pub(super) struct Pair {
    pub(super) nodes: [Node; 2],
    queue: VecDeque<(usize, Event)>,
    /// The frames that passed since the line stood, by who sent them.
    pub(super) frames: Vec<(usize, Frame)>,
    /// How many batches passed before.
    batches: usize,
    audited: Vec<(usize, Audited)>,
}

const LINKS: [LinkId; 2] = [DOWN, UP];

impl Pair {
    pub(super) fn new(hub: Node, child: Node) -> Self {
        let mut pair = Self {
            nodes: [hub, child],
            queue: VecDeque::new(),
            frames: Vec::new(),
            batches: 0,
            audited: Vec::new(),
        };
        for (side, direction) in [(0, Direction::Down), (1, Direction::Up)] {
            let peer = pair.nodes[1 - side].engine.info().clone();
            pair.tells(side, Event::Connected { link: LINKS[side], peer, chain: vec![vec![1]], direction });
        }
        pair.settles();
        pair.batches = pair.frames.iter().filter(|(_, frame)| matches!(frame, Frame::Batch(_))).count();
        pair.frames.clear();
        pair
    }

    pub(super) fn tells(&mut self, side: usize, event: Event) {
        for effect in self.nodes[side].told(event) {
            match effect {
                Effect::Send(_, frame) => {
                    self.frames.push((side, frame.clone()));
                    self.queue.push_back((1 - side, Event::Received(LINKS[1 - side], frame)));
                }
                Effect::Survey(link, homes, allowed) => {
                    let summary = self.nodes[side].store.summary(&homes, allowed);
                    self.queue.push_back((side, Event::Surveyed(link, summary)));
                }
                Effect::Audited(_, audited) => self.audited.push((side, audited)),
                Effect::Close(_) => panic!("{side} ends the link: {:?}", self.frames.last()),
                _ => {}
            }
        }
    }

    pub(super) fn settles(&mut self) {
        while let Some((side, event)) = self.queue.pop_front() {
            self.tells(side, event);
        }
    }

    /// Checks the store of a side and then compares it with the other.
    pub(super) fn audits(&mut self, side: usize) -> Audited {
        self.frames.clear();
        let checkup = self.nodes[side].store.check();
        self.tells(side, Event::Checked(checkup));
        self.tells(side, Event::Audit(LINKS[side]));
        self.settles();
        let (by, audited) = self.audited.pop().expect("an audit comes to an end");
        assert_eq!((by, self.audited.len()), (side, 0));
        audited
    }

    fn wire_bytes(&self) -> usize {
        self.frames.iter().map(|(_, frame)| frame.encode().len()).sum()
    }

    fn is_whole(&self) {
        for (node, was) in self.nodes.iter().zip(["the hub", "the child"]) {
            assert_eq!(node.store.check(), Default::default(), "{was}");
            assert_eq!(node.engine.damaged().count(), 0, "{was}");
        }
        assert_eq!(self.nodes[0].store.digests().unwrap(), self.nodes[1].store.digests().unwrap());
    }
}

/// Two nodes that hold the same entries, written by the child.
fn equal(entries: u64) -> Pair {
    let mut child = Node::new(CHILD);
    (1..=entries).for_each(|seq| drop(child.writes(seq)));
    Pair::new(Node::new(HUB), child)
}

fn chains(node: &Node) -> Vec<Option<Chain>> {
    (1..=node.store.tip().unwrap()).map(|row| node.store.chain(row).unwrap()).collect()
}

pub(super) fn done(entries: u64, here: u64, there: u64, missed: u64) -> Audited {
    Audited::Done { entries, here, there, missed }
}

#[test]
fn an_audit_of_equals_is_two_small_frames() {
    let mut pair = equal(50);
    pair.is_whole();
    for side in [0, 1] {
        assert_eq!(pair.audits(side), done(50, 0, 0, 0));
        let total = Frame::Total(Some(pair.nodes[0].store.digests().unwrap()[0].1));
        assert_eq!(pair.frames, [(side, Frame::Audit), (1 - side, total)]);
        assert_eq!(pair.wire_bytes(), 22);
    }
}

#[test]
fn what_a_check_found_is_healed_where_it_stood() {
    for side in [0, 1] {
        for rows in [
            &[(1, Harm::Gone)][..],
            &[(3, Harm::Damaged), (7, Harm::Gone)],
            &[(3, Harm::Gone), (4, Harm::Damaged), (5, Harm::Gone), (6, Harm::Gone)],
            &[(20, Harm::Gone)],
            &[(20, Harm::Damaged)],
        ] {
            let mut pair = equal(20);
            let before = chains(&pair.nodes[side]);
            rows.iter().for_each(|(row, harm)| pair.nodes[side].store.rot(*row, *harm));
            assert_eq!(pair.nodes[side].store.check().damaged.len(), rows.len());
            assert_eq!(pair.nodes[side].store.entry(rows[0].0).unwrap(), None);
            // The first row that is known goes back first, or the others' running hashes are not known.
            let lacking = rows.len() as u64;
            assert_eq!(pair.audits(side), done(20 - lacking, lacking, 0, 0), "{side} {rows:?}");
            pair.is_whole();
            assert_eq!(chains(&pair.nodes[side]), before, "{side} {rows:?}");
            assert_eq!(pair.nodes[side].store.tip().unwrap(), 20);
        }
    }
}

#[test]
fn whoever_begins_heals_the_other_too() {
    for side in [0, 1] {
        let mut pair = equal(40);
        for row in [2, 9, 10, 40] {
            pair.nodes[side].store.rot(row, Harm::Gone);
        }
        let checkup = pair.nodes[side].store.check();
        pair.tells(side, Event::Checked(checkup));
        assert_eq!(pair.audits(1 - side), done(40, 0, 4, 0));
        pair.is_whole();
        assert_eq!(pair.nodes[side].store.tip().unwrap(), 40, "nothing is appended");
    }
}

#[test]
fn of_a_row_that_nobody_has_the_others_come_back() {
    let mut pair = equal(20);
    for (side, rows) in [(0, &[4, 5, 6, 9][..]), (1, &[5, 9])] {
        rows.iter().for_each(|row| pair.nodes[side].store.rot(*row, Harm::Gone));
    }
    assert_eq!(pair.audits(0), done(16, 2, 0, 2));
    let left: Vec<_> = pair.nodes[0].engine.damaged().map(|damage| damage.row).collect();
    assert_eq!(left, [5, 9]);
    let hub = &mut pair.nodes[0];
    let entry = hub.store.entry(6).unwrap();
    assert_eq!(hub.store.chain(6).unwrap(), None, "what follows from a row that is gone is not known");
    assert!(entry.is_some() && hub.store.entry(5).unwrap().is_none());
    let damaged = |node: &Node| node.store.check().damaged.iter().map(|one| one.row).collect::<Vec<_>>();
    assert_eq!(damaged(hub), [5, 9]);
    // With the rows of both known to be gone the two are equal again, and neither has anything to ask.
    pair.audits(1);
    assert_eq!(pair.audits(0), done(18, 0, 0, 2));
}

/// Nodes that differ and do not know it: each lacks some entries of which there is no trace.
pub(super) fn different(entries: u64, lacks: impl Fn(usize, u64) -> bool) -> Pair {
    let mut nodes = [Node::new(HUB), Node::new(CHILD)];
    let segment = run(CHILD, 9);
    for (side, node) in nodes.iter_mut().enumerate() {
        let mut ops = vec![
            Op::OpenSegment(Segment { incarnation: run([HUB, CHILD][side], 9), base: 0, parent: None }),
            Op::Announce(announcement(CHILD, 9), info(CHILD)),
            Op::Announce(announcement(HUB, 9), info(HUB)),
        ];
        for seq in (1..=entries).filter(|seq| !lacks(side, *seq)) {
            let entry = entry(segment, seq, Lane::Normal, 100);
            ops.push(Op::AddHome(entry.record().clone(), entry.home().clone()));
            ops.push(Op::Append { entry, src: None, at: 0 });
        }
        node.store.commit(&ops).unwrap();
    }
    for side in [0, 1] {
        let other = &nodes[1 - side].store;
        let pos = other.tip().unwrap();
        let at = Position { segment: run([CHILD, HUB][side], 9), pos };
        let cursor = Cursor { at, chain: other.chain(pos).unwrap() };
        let read = Lane::ALL.map(|lane| Op::Read { lane, cursor, brought: true });
        nodes[side].store.commit(&read).unwrap();
        nodes[side].restarts();
    }
    let [hub, child] = nodes;
    let pair = Pair::new(hub, child);
    assert!(pair.nodes.iter().all(|node| node.commits == 0), "both think that they hold the same");
    pair
}

#[test]
fn what_either_side_lacks_without_knowing_is_found_and_costs_little() {
    for side in [0, 1] {
        let lacks = |side: usize, seq: u64| seq % 200 == 7 * side as u64;
        let mut pair = different(20_000, lacks);
        assert_eq!(pair.audits(side), done(19_900, 100, 100, 0));
        let entries: usize = pair
            .frames
            .iter()
            .map(|(_, frame)| match frame {
                Frame::Repair(_) => frame.encode().len(),
                _ => 0,
            })
            .sum();
        let beyond = pair.wire_bytes() - entries;
        assert!(beyond < 100_000, "{beyond} bytes beyond the entries");
        let asks = pair.frames.iter().filter(|(_, frame)| matches!(frame, Frame::Look(_))).count();
        assert!((3..=40).contains(&asks), "{asks} questions");
        pair.is_whole();
        assert_eq!(pair.nodes[0].store.digests().unwrap()[0].1.count, 20_000);
        // Nothing goes back to where it came from.
        pair.nodes.iter_mut().for_each(Node::restarts);
        let [hub, child] = pair.nodes;
        let again = Pair::new(hub, child);
        assert_eq!(again.batches, 0);
    }
}

#[test]
fn a_large_repair_goes_in_frames_of_its_size() {
    let mut child = Node::new(CHILD);
    for seq in 1..=8 {
        let entries = vec![entry(child.engine.incarnation(), seq, Lane::Normal, 40_000)];
        child.told(Event::Write { ticket: Ticket(seq), entries, projection: Vec::new() });
    }
    let mut pair = Pair::new(Node::new(HUB), child);
    (2..=8).for_each(|row| pair.nodes[0].store.rot(row, Harm::Gone));
    assert_eq!(pair.audits(0), done(1, 7, 0, 0));
    assert_eq!(repairs(&pair), 7);
    pair.is_whole();
    // Two that fill it to the last byte go in one, and in two with a byte more.
    for (more, frames) in [(0, 1), (1, 2)] {
        let mut child = Node::new(CHILD);
        let origin = child.engine.incarnation();
        let half = REPAIR_MAX_RAW_BYTES / 2;
        let body = half - (entry(origin, 1, Lane::Normal, half).encoded_len() - half);
        let entries = vec![entry(origin, 1, Lane::Normal, body), entry(origin, 2, Lane::Normal, body + more)];
        child.told(Event::Write { ticket: Ticket(1), entries, projection: Vec::new() });
        let mut pair = Pair::new(Node::new(HUB), child);
        (1..=2).for_each(|row| pair.nodes[0].store.rot(row, Harm::Gone));
        assert_eq!(pair.audits(0), done(0, 2, 0, 0));
        assert_eq!(repairs(&pair), frames, "{more}");
    }
}

fn repairs(pair: &Pair) -> usize {
    pair.frames.iter().filter(|(_, frame)| matches!(frame, Frame::Repair(_))).count()
}

#[test]
fn who_has_something_else_to_do_is_busy() {
    let mut pair = equal(5);
    // A commit is under way at the one that is asked.
    pair.nodes[1].handles(Event::Folded(vec![Op::Folded(5)]));
    let Some(Effect::Commit(batch)) = pair.nodes[1].engine.poll_effect() else { panic!("a commit") };
    assert_eq!(pair.audits(0), Audited::Busy);
    assert_eq!(pair.frames, [(0, Frame::Audit), (1, Frame::Total(None))]);
    // At the one that asks nothing is asked.
    pair.frames.clear();
    pair.nodes[1].handles(Event::Audit(UP));
    assert!(matches!(pair.nodes[1].engine.poll_effect(), Some(Effect::Audited(UP, Audited::Busy))));
    pair.nodes[1].store.commit(&batch).unwrap();
    pair.tells(1, Event::Committed);
    assert_eq!(pair.audits(0), done(5, 0, 0, 0));
    // Both begin at once.
    pair.tells(0, Event::Audit(DOWN));
    pair.tells(1, Event::Audit(UP));
    pair.settles();
    assert_eq!(std::mem::take(&mut pair.audited), [(0, Audited::Busy), (1, Audited::Busy)]);
    assert_eq!(pair.audits(1), done(5, 0, 0, 0));
    // On a link that has ended, or is not settled.
    pair.tells(0, Event::Audit(LinkId(99)));
    assert_eq!(pair.audited, [(0, Audited::Busy)]);
}

#[test]
fn whatever_is_under_way_on_a_link_makes_it_busy() {
    let asks = |hub: &mut Node| {
        let said = hub.says(DOWN, Frame::Audit);
        frames(&said, DOWN).contains(&Frame::Total(None))
    };
    assert!(!asks(&mut Node::with_child()));
    let mut unsettled = Node::new(HUB);
    unsettled.meets(DOWN, CHILD, Direction::Down);
    let tip = Some((run(CHILD, 1), 1));
    let Frame::Hello(hello) = hello(CHILD) else { panic!("that is what it makes") };
    let tip = tip.map(|(segment, pos)| Position { segment, pos });
    unsettled.says(DOWN, Frame::Hello(Hello { tip, ..hello }));
    assert!(asks(&mut unsettled), "nobody has announced its run");
    let mut sends = Node::with_child();
    let entries = vec![entry(sends.engine.incarnation(), 1, Lane::Normal, 1)];
    sends.told(Event::Write { ticket: Ticket(1), entries, projection: Vec::new() });
    assert!(asks(&mut sends), "a batch is under way to the child");
    let mut holds = Node::with_child();
    let of_cousin = EntryBatch { origin: run(COUSIN, 1), ..batch(0, Some(1), &[]) };
    holds.says(DOWN, Frame::Batch(of_cousin));
    assert!(asks(&mut holds), "a batch is held back");
    let mut gathers = Node::with_child();
    gathers.says(DOWN, Frame::Batch(batch(0, None, &[1])));
    assert!(asks(&mut gathers), "a stretch is not complete");
}

#[test]
fn of_two_changes_of_one_record_the_one_that_nobody_has_is_missed() {
    let mut child = Node::new(CHILD);
    let origin = child.engine.incarnation();
    let of = |n| {
        let chunk = opaque_chunk(origin, n, &[], Stamp(1), b"x");
        Entry::new("Basic/1".parse().unwrap(), OrgId::new("dv").unwrap(), Lane::Normal, chunk).unwrap()
    };
    child.told(Event::Write { ticket: Ticket(1), entries: vec![of(1), of(2)], projection: Vec::new() });
    let mut pair = Pair::new(Node::new(HUB), child);
    (1..=2).for_each(|row| pair.nodes[0].store.rot(row, Harm::Damaged));
    pair.nodes[1].store.rot(2, Harm::Damaged);
    let named = |pair: &Pair| pair.nodes[0].store.check().damaged.iter().all(|one| one.change.is_some());
    assert!(named(&pair), "it is known what they were");
    assert_eq!(pair.audits(0), done(0, 1, 0, 1));
    assert_eq!(pair.nodes[0].engine.damaged().map(|one| one.row).collect::<Vec<_>>(), [2]);
}

#[test]
fn an_audit_waits_until_nothing_else_is_to_be_done() {
    let mut pair = different(40, |side, seq| side == 0 && seq == 3);
    pair.tells(0, Event::Audit(DOWN));
    // A batch is under way to the child when the answer comes.
    let (side, total) = loop {
        match pair.queue.pop_front().expect("the child answers") {
            (0, event) => break (0, event),
            (side, event) => pair.tells(side, event),
        }
    };
    pair.nodes[0].handles(Event::Write {
        ticket: Ticket(99),
        entries: vec![entry(run(HUB, 9), 99, Lane::Urgent, 9)],
        projection: Vec::new(),
    });
    let Some(Effect::Commit(batch)) = pair.nodes[0].engine.poll_effect() else { panic!("a commit") };
    pair.frames.clear();
    pair.nodes[side].handles(total);
    assert!(pair.nodes[0].engine.poll_effect().is_none(), "no question is asked meanwhile");
    pair.nodes[0].store.commit(&batch).unwrap();
    pair.tells(0, Event::Committed);
    pair.settles();
    assert!(matches!(pair.audited[..], [(0, Audited::Done { here: 1, .. })]), "{:?}", pair.audited);
    pair.is_whole();
}

#[test]
fn what_nobody_asked_for_ends_the_link() {
    let some = |n: u64| entry(run(CHILD, 1), n, Lane::Normal, 1);
    for frame in [
        Frame::Total(None),
        Frame::Look(vec![Prefix::ALL]),
        Frame::Ranges(Vec::new()),
        Frame::Want(Want::default()),
        Frame::Repair(vec![some(1)]),
        Frame::Repaired(1),
    ] {
        let mut hub = Node::with_child();
        let said = hub.says(DOWN, frame.clone());
        assert_eq!(refused(&said, DOWN).expect("it is refused").0, refusal::PROTOCOL, "{frame:?}");
    }
    // One repair is under way at a time.
    let mut hub = Node::with_child();
    let said = hub.says(DOWN, Frame::Audit);
    assert_eq!(frames(&said, DOWN), [Frame::Total(Some(Digest::default()))]);
    let unknown = entry(run(COUSIN, 1), 1, Lane::Normal, 1);
    let said = hub.says(DOWN, Frame::Repair(vec![unknown]));
    assert_eq!(
        frames(&said, DOWN),
        [Frame::NeedPlace(OrgId::new("dv").unwrap()), Frame::Need(run(COUSIN, 1))][1..]
    );
    let said = hub.says(DOWN, Frame::Repair(vec![some(2)]));
    assert_eq!(refused(&said, DOWN).unwrap().0, refusal::PROTOCOL);
    // And an answer has as many parts as the question.
    let mut hub = Node::with_child();
    hub.told(Event::Audit(DOWN));
    hub.says(DOWN, Frame::Total(Some(Digest { sum: 1, count: 1 })));
    let asked = hub.told(Event::Surveyed(DOWN, Summary::default()));
    assert_eq!(frames(&asked, DOWN), [Frame::Look(vec![Prefix::ALL])]);
    assert_eq!(refused(&hub.says(DOWN, Frame::Ranges(Vec::new())), DOWN).unwrap().0, refusal::PROTOCOL);
}

#[test]
fn a_child_gives_and_gets_what_is_of_its_part_alone() {
    let of = |home: &str, author: u8, n: u64| {
        let chunk = opaque_chunk(run(author, 1), n, &[], Stamp(1), b"x");
        let record = format!("Basic/{home}-{n}").parse().unwrap();
        Entry::new(record, OrgId::new(home).unwrap(), Lane::Normal, chunk).unwrap()
    };
    let mut hub = Node::with_child();
    let hubs = of("hg", HUB, 1);
    hub.told(Event::Write { ticket: Ticket(1), entries: vec![hubs.clone()], projection: Vec::new() });
    let tip = hub.store.tip().unwrap();
    // The window is empty again, so that the hub is not busy.
    hub.says(DOWN, Frame::Ack(Lane::Normal, Position { segment: hub.engine.incarnation(), pos: tip }));
    assert_eq!(frames(&hub.says(DOWN, Frame::Audit), DOWN), [Frame::Total(Some(Digest::default()))]);
    let effects = hub.says(DOWN, Frame::Look(vec![Prefix::ALL]));
    let homes = effects.iter().find_map(|effect| match effect {
        Effect::Survey(DOWN, homes, _) => Some(homes.clone()),
        _ => None,
    });
    assert_eq!(homes, Some(Vec::new()), "the hub's own home is not compared");
    hub.told(Event::Surveyed(DOWN, Summary::default()));
    let want = Want {
        named: vec![(hubs.record().clone(), hubs.change_hash())],
        hashes: vec![u64::from_be_bytes(hubs.hash().0[..8].try_into().unwrap())],
    };
    assert_eq!(frames(&hub.says(DOWN, Frame::Want(want)), DOWN), [Frame::Repair(Vec::new())]);
    // It gives for its own home.
    let said = hub.says(DOWN, Frame::Repair(vec![of("dv", CHILD, 2), of("dv", CHILD, 2)]));
    assert_eq!(frames(&said, DOWN)[0], Frame::Repaired(1));
    assert!(hub.store.has(of("dv", CHILD, 2).record(), &of("dv", CHILD, 2).change_hash()).unwrap());
    // Not for others', nor under a name that may not speak for its own.
    for wrong in [of("hg", CHILD, 3), of("hg", HUB, 4)] {
        let mut hub = hub.clone();
        let said = hub.says(DOWN, Frame::Repair(vec![wrong.clone()]));
        assert_eq!(refused(&said, DOWN).unwrap().0, refusal::OUTSIDE_SUBTREE, "{wrong:?}");
        assert!(!hub.store.has(wrong.record(), &wrong.change_hash()).unwrap());
    }
}

#[test]
fn a_row_that_cannot_be_read_is_passed_over() {
    let mut child = Node::new(CHILD);
    (1..=5).for_each(|seq| drop(child.writes(seq)));
    child.store.rot(2, Harm::Damaged);
    child.store.rot(5, Harm::Gone);
    let mut pair = Pair::new(Node::new(HUB), child);
    assert_eq!(pair.nodes[0].store.tip().unwrap(), 3);
    assert!(pair.nodes[1].engine.links().all(|link| link.idle));
    assert!(pair.nodes[1].engine.all_at_parent(), "there is nothing to wait for");
    // It is with nobody else, so it is missed; the other side is told of none that does not exist.
    assert_eq!(pair.audits(1), done(3, 0, 0, 2));
    assert_eq!(pair.nodes[1].engine.damaged().count(), 2);
    // A link that ends where the row was goes on there.
    pair.nodes.iter_mut().for_each(Node::restarts);
    let [hub, child] = pair.nodes;
    let again = Pair::new(hub, child);
    assert_eq!(again.batches, 0);
}

#[test]
fn what_has_come_back_is_offered_to_the_other_homes_of_its_record() {
    let mut child = Node::new(CHILD);
    child.store.commit(&[Op::Announce(announcement(HUB, 9), info(HUB))]).unwrap();
    let of = |home: &str, origin, n| {
        let chunk = opaque_chunk(origin, n, &[], Stamp(1), b"x");
        Entry::new("Basic/1".parse().unwrap(), OrgId::new(home).unwrap(), Lane::Normal, chunk).unwrap()
    };
    let entries = vec![of("dv", child.engine.incarnation(), 1)];
    child.told(Event::Write { ticket: Ticket(1), entries, projection: Vec::new() });
    let mut pair = Pair::new(Node::new(HUB), child);
    // The record gets a home elsewhere while the row cannot be read.
    pair.nodes[0].store.rot(1, Harm::Damaged);
    let entries = vec![of("hg", pair.nodes[0].engine.incarnation(), 1)];
    pair.tells(0, Event::Write { ticket: Ticket(2), entries, projection: Vec::new() });
    pair.settles();
    assert_eq!(pair.nodes[0].store.tip().unwrap(), 2, "what cannot be read is not offered");
    assert_eq!(pair.audits(0), done(0, 1, 0, 0));
    let heads = pair.nodes[0].store.heads(Lane::Normal, 2, 9).unwrap();
    assert_eq!(
        heads.iter().map(|head| head.offered_to.clone()).collect::<Vec<_>>(),
        [OrgId::new("hg").ok().map(Offered::Home)]
    );
    assert_eq!(pair.nodes[0].store.entry(3).unwrap(), pair.nodes[0].store.entry(1).unwrap());
}

#[test]
fn what_is_misfiled_or_miscounted_is_put_right_at_once() {
    let mut pair = equal(6);
    let entry = pair.nodes[0].store.entry(4).unwrap().unwrap();
    let damage = |harm| Damage {
        row: 4,
        harm,
        record: Some(entry.record().clone()),
        change: Some(entry.change_hash()),
    };
    let checkup = |harm, missing| Checkup { damaged: vec![damage(harm)], missing };
    let heals = |hub: &mut Node, checkup| {
        hub.handles(Event::Checked(checkup));
        match hub.engine.poll_effect() {
            Some(Effect::Commit(ops)) => ops,
            _ => Vec::new(),
        }
    };
    let hub = &mut pair.nodes[0];
    let heal = Op::Heal { row: 4, entry: entry.clone(), at: 5 };
    assert_eq!(heals(&mut hub.clone(), checkup(Harm::Misfiled, Vec::new())), [heal]);
    // It was damaged when the check passed it, and is no more.
    let mut missing = Digest::default();
    missing.add(entry.hash());
    let home = entry.home().clone();
    let mut healed = hub.clone();
    assert_eq!(heals(&mut healed, checkup(Harm::Damaged, vec![(home.clone(), missing)])), []);
    assert_eq!(healed.engine.damaged().count(), 0);
    // It can be read, and is not what stood there: the next row's running hash says so.
    let mut wrong = hub.clone();
    let before = wrong.store.entry(3).unwrap().unwrap();
    wrong.store.rot(3, Harm::Gone);
    let other =
        Entry::new(entry.record().clone(), OrgId::new("hg").unwrap(), entry.lane(), entry.change().clone());
    let heal = |row, entry| Op::Heal { row, entry, at: 0 };
    wrong.store.commit(&[heal(4, other.unwrap()), heal(3, before)]).unwrap();
    assert!(wrong.store.entry(4).unwrap().is_some_and(|here| here != entry));
    heals(&mut wrong, checkup(Harm::Damaged, Vec::new()));
    assert_eq!(wrong.engine.damaged().map(|one| one.row).collect::<Vec<_>>(), [4]);
    // Nothing is damaged, so the digest is wrong.
    let less = Digest { sum: 77, count: 0 };
    let wrong = Checkup { damaged: Vec::new(), missing: vec![(home.clone(), less)] };
    assert_eq!(heals(&mut hub.clone(), wrong), [Op::Recount { home, less }]);
    assert_eq!(heals(hub, Checkup::default()), []);
}

#[test]
fn an_entry_goes_only_where_the_running_hashes_come_out() {
    let mut pair = equal(9);
    let hub = &mut pair.nodes[0];
    hub.says(DOWN, Frame::Announce(announcement(COUSIN, 1)));
    let right = hub.store.entry(4).unwrap().unwrap();
    // The same change under another home of the child's part: only its hash tells.
    let home = OrgId::new("mv").unwrap();
    let other = Entry::new(right.record().clone(), home, right.lane(), right.change().clone()).unwrap();
    hub.store.rot(4, Harm::Gone);
    let checkup = hub.store.check();
    hub.told(Event::Checked(checkup));
    hub.told(Event::Audit(DOWN));
    let total = Digest { sum: 1, count: 9 };
    let asked = hub.says(DOWN, Frame::Total(Some(total)));
    let want = Want { named: vec![(right.record().clone(), right.change_hash())], hashes: Vec::new() };
    assert_eq!(frames(&asked, DOWN), [Frame::Want(want)]);
    // The store has the change, so it is not appended either.
    let mut fooled = hub.clone();
    assert_eq!(refused(&fooled.says(DOWN, Frame::Repair(vec![other])), DOWN), None);
    assert_eq!((fooled.store.entry(4).unwrap(), fooled.store.tip().unwrap()), (None, 9));
    hub.says(DOWN, Frame::Repair(vec![right.clone()]));
    assert_eq!(hub.store.entry(4).unwrap(), Some(right));
}

/// Where a run ends nothing that follows tells what stood there, so its name has to do.
#[test]
fn the_last_row_of_a_run_is_healed_by_its_name() {
    let mut child = Node::new(CHILD);
    (1..=4).for_each(|seq| drop(child.writes(seq)));
    child.restarts();
    (5..=8).for_each(|seq| drop(child.writes(seq)));
    let mut pair = Pair::new(Node::new(HUB), child);
    pair.nodes[1].store.rot(4, Harm::Gone);
    assert_eq!(pair.audits(1), done(7, 1, 0, 0));
    pair.is_whole();
    assert_eq!(pair.nodes[1].store.tip().unwrap(), 8);
}

#[test]
fn what_was_healed_is_no_longer_missed() {
    let mut pair = equal(9);
    pair.nodes[0].store.rot(4, Harm::Damaged);
    assert_eq!(pair.audits(0), done(8, 1, 0, 0));
    pair.frames.clear();
    // No check comes between: the node knows by itself that it is whole again.
    pair.tells(0, Event::Audit(DOWN));
    pair.settles();
    assert_eq!(pair.audited.pop(), Some((0, done(9, 0, 0, 0))));
    assert_eq!(pair.frames.len(), 2, "{:?}", pair.frames);
}

#[test]
fn what_a_child_repairs_goes_up_and_what_the_parent_repairs_does_not() {
    let lacks = |side: usize, seq: u64| side == 0 && seq == 3;
    let mut pair = different(5, lacks);
    let last = |node: &Node| node.engine.frontier(Frontier::Last, Lane::Normal);
    assert_eq!(pair.audits(0), done(4, 1, 0, 0));
    assert_eq!(last(&pair.nodes[0]), pair.nodes[0].store.tip().unwrap());
    let mut pair = different(5, |side, seq| side == 1 && seq == 3);
    let before = last(&pair.nodes[1]);
    assert_eq!(pair.audits(1), done(4, 1, 0, 0));
    assert_eq!(last(&pair.nodes[1]), before);
}

#[test]
fn a_commit_of_what_is_healed_has_a_size_too() {
    let mut child = Node::new(CHILD);
    let origin = child.engine.incarnation();
    for seq in 1..=6 {
        let entries = vec![entry(origin, seq, Lane::Normal, 1_000_000)];
        child.told(Event::Write { ticket: Ticket(seq), entries, projection: Vec::new() });
    }
    let damage = |row: Seq| {
        let entry = child.store.entry(row).unwrap().unwrap();
        let (record, change) = (Some(entry.record().clone()), Some(entry.change_hash()));
        Damage { row, harm: Harm::Misfiled, record, change }
    };
    let checkup = Checkup { damaged: (1..=6).map(damage).collect(), missing: Vec::new() };
    child.handles(Event::Checked(checkup));
    for healed in [5, 1] {
        let Some(Effect::Commit(ops)) = child.engine.poll_effect() else { panic!("a commit") };
        assert_eq!(ops.iter().filter(|op| matches!(op, Op::Heal { .. })).count(), healed);
        child.store.commit(&ops).unwrap();
        child.handles(Event::Committed);
    }
}

/// What a check knows of a row: where it is, and in what state.
fn nameless(row: Seq, harm: Harm) -> Damage {
    Damage { row, harm, record: None, change: None }
}

/// A hub that waits for entries in an audit, with these rows found damaged.
fn waits_for_entries(mut hub: Node, damaged: Vec<Damage>) -> Node {
    hub.meets(DOWN, CHILD, Direction::Down);
    let Frame::Hello(its) = hello(CHILD) else { unreachable!() };
    let read = hub.store.read(Lane::Normal, run(CHILD, 1)).unwrap();
    let said = hub.says(DOWN, Frame::Hello(Hello { tip: read.map(|read| read.cursor.at), ..its }));
    for frame in frames(&said, DOWN) {
        if let Frame::Batch(EntryBatch { lane, segment, upto: Some((pos, _)), .. }) = frame {
            hub.says(DOWN, Frame::Ack(lane, Position { segment, pos }));
        }
    }
    hub.told(Event::Checked(Checkup { damaged, missing: Vec::new() }));
    hub.told(Event::Audit(DOWN));
    // A row that has a name is asked for at once, the others when the ranges are known.
    let mut said = hub.says(DOWN, Frame::Total(Some(Digest { sum: 1, count: 1 })));
    if frames(&said, DOWN).is_empty() {
        hub.told(Event::Surveyed(DOWN, Summary::default()));
        said = hub.says(DOWN, Frame::Ranges(vec![Range::Hashes(vec![1])]));
    }
    assert!(matches!(frames(&said, DOWN)[..], [Frame::Want(_)]), "{said:?}");
    hub
}

/// A hub with rows that came from the child, and nobody to talk to.
fn holder(rows: u64) -> Node {
    let mut hub = Node::with_child();
    let all: Vec<_> = (1..=rows).collect();
    hub.says(DOWN, Frame::Batch(batch(0, Some(rows), &all)));
    hub.told(Event::Closed(DOWN));
    hub
}

#[test]
fn what_nobody_can_name_goes_where_the_running_hashes_come_out() {
    let mut hub = holder(5);
    let right = hub.store.entry(3).unwrap().unwrap();
    // Nothing is left of it, not even in the table of changes.
    let chunk = opaque_chunk(run(CHILD, 1), 77, &[], Stamp(1), b"y");
    let other = Entry::new(right.record().clone(), right.home().clone(), right.lane(), chunk).unwrap();
    hub.store.commit(&[Op::Heal { row: 3, entry: other, at: 0 }]).unwrap();
    hub.store.rot(3, Harm::Damaged);
    assert!(!hub.store.has(right.record(), &right.change_hash()).unwrap());
    let mut hub = waits_for_entries(hub, vec![nameless(3, Harm::Damaged)]);
    hub.says(DOWN, Frame::Repair(vec![right.clone()]));
    assert_eq!((hub.store.entry(3).unwrap(), hub.store.tip().unwrap()), (Some(right), 5));
}

#[test]
fn what_a_damaged_row_only_offered_stays_where_it_is() {
    let mut hub = holder(2);
    let held = hub.store.entry(1).unwrap().unwrap();
    hub.store.commit(&[Op::Offer { of: 1, to: Offered::Home(OrgId::new("hg").unwrap()) }]).unwrap();
    hub.restarts();
    // With the row that it offers it cannot be read either.
    hub.store.rot(1, Harm::Damaged);
    let mut hub = waits_for_entries(hub, vec![nameless(3, Harm::Damaged)]);
    let commits = hub.commits;
    hub.says(DOWN, Frame::Repair(vec![held.clone()]));
    assert_eq!(hub.store.rows_of(held.record()).unwrap(), [1]);
    let heads = hub.store.heads(Lane::Normal, 2, 9).unwrap();
    assert!(heads[0].offered_to.is_some(), "the row still offers it");
    assert_eq!(hub.commits, commits + 1, "nothing is healed, and the answer is kept");
}

#[test]
fn where_nothing_tells_a_new_entry_is_put_at_the_end() {
    let mut hub = holder(5);
    [3, 4].into_iter().for_each(|row| hub.store.rot(row, Harm::Gone));
    let new = entry(run(CHILD, 1), 99, Lane::Normal, 1);
    let mut hub = waits_for_entries(hub, vec![nameless(3, Harm::Gone), nameless(4, Harm::Gone)]);
    hub.says(DOWN, Frame::Repair(vec![new.clone()]));
    assert_eq!((hub.store.entry(3).unwrap(), hub.store.entry(4).unwrap()), (None, None));
    assert_eq!(hub.store.entry(6).unwrap(), Some(new));
}

#[test]
fn a_running_hash_is_put_right_by_the_entry_that_is_still_there() {
    let mut hub = holder(4);
    let [third, last] = [3, 4].map(|row| hub.store.entry(row).unwrap().unwrap());
    let right = hub.store.chain(4).unwrap();
    let chunk = opaque_chunk(run(CHILD, 1), 77, &[], Stamp(1), b"y");
    let other = Entry::new(last.record().clone(), last.home().clone(), last.lane(), chunk).unwrap();
    let heal = |row, entry: &Entry| Op::Heal { row, entry: entry.clone(), at: 0 };
    hub.store.commit(&[heal(4, &other)]).unwrap();
    hub.store.rot(3, Harm::Gone);
    hub.store.commit(&[heal(4, &last), heal(3, &third)]).unwrap();
    assert_eq!(hub.store.entry(4).unwrap().as_ref(), Some(&last));
    assert_ne!(hub.store.chain(4).unwrap(), right);
    let (record, change) = (Some(last.record().clone()), Some(last.change_hash()));
    let damage = Damage { record, change, ..nameless(4, Harm::Damaged) };
    hub = waits_for_entries(hub, vec![damage]);
    hub.says(DOWN, Frame::Repair(vec![last.clone()]));
    assert_eq!((hub.store.entry(4).unwrap(), hub.store.chain(4).unwrap()), (Some(last), right));
}
