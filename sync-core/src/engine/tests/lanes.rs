//! A lane that may not go on now waits; nothing else does, and it goes on when it is let go.

use super::{
    audit::{Pair, different, done},
    *,
};
use crate::audit::Harm;

const NO_BULK: Lanes = Lanes::ALL.without_bulk();

impl Node {
    fn writes_in(&mut self, seq: u64, lane: Lane) -> Vec<Effect> {
        let entries = vec![entry(self.engine.incarnation(), seq, lane, 1)];
        self.told(Event::Write { ticket: Ticket(seq), entries, projection: Vec::new() })
    }

    fn at(&self, pos: u64) -> Position {
        Position { segment: self.engine.incarnation(), pos }
    }
}

/// The lanes of the batches to a neighbour, with how many entries each has.
fn sent(effects: &[Effect], link: LinkId) -> Vec<(Lane, usize)> {
    let batch = |frame| match frame {
        Frame::Batch(batch) => Some((batch.lane, batch.entries.len())),
        _ => None,
    };
    frames(effects, link).into_iter().filter_map(batch).collect()
}

#[test]
fn urgent_is_always_among_the_lanes() {
    for (bits, lanes) in
        [(0b111, true), (0b011, true), (0b001, true), (0b110, false), (0, false), (0b1001, false)]
    {
        assert_eq!(Lanes::from_bits(bits).is_some(), lanes, "{bits:b}");
    }
    assert_eq!(Lanes::ALL.without_bulk(), NO_BULK);
    assert_eq!(Lane::ALL.map(|lane| NO_BULK.has(lane)), [true, true, false]);
}

#[test]
fn what_waits_stops_nothing_else_and_goes_on_when_it_may() {
    let mut child = Node::with_parent(CHILD, HUB);
    assert_eq!(frames(&child.told(Event::Lanes(NO_BULK)), UP), [Frame::Lanes(NO_BULK)]);
    assert!(child.told(Event::Lanes(NO_BULK)).is_empty(), "it is said once");
    assert_eq!(sent(&child.writes_in(1, Lane::Bulk), UP), []);
    assert!(!child.engine.awaits_parent(), "nobody has anything to acknowledge");
    assert_eq!(sent(&child.writes_in(2, Lane::Urgent), UP), [(Lane::Urgent, 1)]);
    assert_eq!(sent(&child.writes_in(3, Lane::Normal), UP), [(Lane::Normal, 1)]);
    assert!(child.engine.awaits_parent());
    for (lane, pos) in [(Lane::Urgent, 2), (Lane::Normal, 3)] {
        child.says(UP, Frame::Ack(lane, child.at(pos)));
        child.says(UP, Frame::SafeAtRoot(lane, child.at(pos)));
        assert_eq!(child.engine.frontier(Frontier::Root, lane), pos, "receipts come");
    }
    assert!(!child.engine.awaits_parent());
    assert!(!child.engine.all_at_parent() && !child.engine.all_at_root(), "what waits is not safe");
    let effects = child.told(Event::Lanes(Lanes::ALL));
    assert_eq!(frames(&effects, UP)[0], Frame::Lanes(Lanes::ALL));
    assert_eq!(sent(&effects, UP), [(Lane::Bulk, 1)]);
    assert!(child.engine.awaits_parent());
    child.says(UP, Frame::Ack(Lane::Bulk, child.at(1)));
    assert!(child.engine.all_at_parent());
}

/// Also at once after a reconnect: the parent hears it before it hears where to go on.
#[test]
fn a_parent_sends_only_what_its_child_takes() {
    let mut child = Node::new(CHILD);
    child.told(Event::Lanes(NO_BULK));
    let met = frames(&child.meets(UP, HUB, Direction::Up), UP);
    assert!(matches!(met[..], [Frame::Lanes(NO_BULK), Frame::Hello(_)]), "{met:?}");

    let mut hub = Node::with_child();
    hub.told(Event::Closed(DOWN));
    for (seq, lane) in [(1, Lane::Bulk), (2, Lane::Urgent), (3, Lane::Bulk)] {
        hub.writes_in(seq, lane);
    }
    let again = LinkId(3);
    hub.meets(again, CHILD, Direction::Down);
    let mut effects = hub.says(again, Frame::Lanes(NO_BULK));
    effects.extend(hub.says(again, hello(CHILD)));
    assert_eq!(sent(&effects, again), [(Lane::Urgent, 1)]);
    // What the child says is of its own link.
    hub.meets(UP, ROOT, Direction::Up);
    assert_eq!(sent(&hub.says(UP, hello(ROOT)), UP), [(Lane::Urgent, 1), (Lane::Bulk, 2)]);
    assert_eq!(sent(&hub.says(again, Frame::Lanes(Lanes::ALL)), again), [(Lane::Bulk, 2)]);
}

/// A window's worth is under way when the lane is closed: it is acknowledged, and nothing follows.
#[test]
fn what_is_under_way_arrives_and_nothing_follows() {
    let mut child = Node::with_parent(CHILD, HUB);
    for seq in 1..=9 {
        let entries = vec![entry(child.engine.incarnation(), seq, Lane::Bulk, 16_000)];
        child.told(Event::Write { ticket: Ticket(seq), entries, projection: Vec::new() });
    }
    child.told(Event::Lanes(NO_BULK));
    let under_way = child.engine.links[&UP].out[Lane::Bulk as usize].in_flight.len() as u64;
    assert!((2..9).contains(&under_way), "{under_way}");
    assert_eq!(sent(&child.says(UP, Frame::Ack(Lane::Bulk, child.at(under_way))), UP), []);
    assert_eq!(child.engine.frontier(Frontier::Hub, Lane::Bulk), under_way);
    assert!(child.engine.links().all(|link| link.idle));
    let again = sent(&child.told(Event::Lanes(Lanes::ALL)), UP);
    assert_eq!(again.iter().map(|(_, entries)| entries).sum::<usize>(), 4, "{again:?}");
}

/// An audit compares what both should have by now, and brings nothing that waits.
#[test]
fn an_audit_leaves_out_what_waits() {
    for beginner in [0, 1] {
        let mut child = Node::new(CHILD);
        child.told(Event::Lanes(NO_BULK));
        (1..=40).for_each(|seq| drop(child.writes_in(seq, Lane::ALL[seq as usize % 3])));
        let mut pair = Pair::new(Node::new(HUB), child);
        let arrived = pair.nodes[0].store.tip().unwrap();
        assert_eq!(arrived, 27, "13 of 40 are bulk");
        assert_eq!(pair.audits(beginner), done(27, 0, 0, 0));
        // What is really lacking is put in place all the same.
        for (side, row) in [(0, 5), (1, 40)] {
            pair.nodes[side].store.rot(row, Harm::Gone);
            assert_eq!(pair.audits(side), done(26, 1, 0, 0), "{side}");
        }
        assert_eq!(pair.nodes[0].store.tip().unwrap(), arrived, "nothing that waits has come");
        pair.tells(1, Event::Lanes(Lanes::ALL));
        pair.settles();
        assert_eq!(pair.nodes[0].store.tip().unwrap(), 40);
        assert!(pair.nodes[1].engine.all_at_parent());
    }
}

/// Also where the two differ and have to look at ranges.
#[test]
fn what_waits_is_in_no_range() {
    for beginner in [0, 1] {
        let mut pair = different(300, |side, seq| seq % 30 == 7 * side as u64);
        pair.tells(1, Event::Lanes(NO_BULK));
        let origin = pair.nodes[1].engine.incarnation();
        let entries: Vec<_> = (1_001..=1_030).map(|seq| entry(origin, seq, Lane::Bulk, 1)).collect();
        let names: Vec<_> = entries.iter().map(|one| (one.record().clone(), one.change_hash())).collect();
        pair.tells(1, Event::Write { ticket: Ticket(1), entries, projection: Vec::new() });
        pair.settles();
        assert_eq!(pair.audits(beginner), done(290, 10, 10, 0), "{beginner}");
        let hub = &pair.nodes[0].store;
        assert!(names.iter().all(|(record, change)| !hub.has(record, change).unwrap()));
    }
}
