//! Orders that move the child to another hub: who goes on with whom, and what is sent.

use super::*;
use crate::order::tests::{closed, moved, order};

/// The hub in the other province.
const OTHER: u8 = AUNT;

fn away() -> Order {
    order(1, vec![moved("tw/hg/dv", "tw/qn/dv")])
}

/// The bodies of the rows of the batches among these, by their segments and positions.
fn rows(effects: &[Effect]) -> Vec<(Incarnation, u64)> {
    let batch = |effect: &Effect| match effect {
        Effect::Send(_, Frame::Batch(batch)) => {
            batch.entries.iter().map(|(pos, _)| (batch.segment, *pos)).collect::<Vec<_>>()
        }
        _ => Vec::new(),
    };
    effects.iter().flat_map(batch).collect()
}

/// Frames of orders that stand between two that are no neighbours by their certificates.
fn first_words(orders: Vec<Order>) -> Vec<Frame> {
    let orders = (!orders.is_empty()).then_some(Frame::Orders(orders));
    orders.into_iter().chain([Frame::Orders(Vec::new())]).collect()
}

#[test]
fn the_old_parent_tells_the_order_and_lets_go() {
    let mut hub = Node::with_child();
    hub.meets(UP, ROOT, Direction::Up);
    hub.says(UP, hello(ROOT));
    let said = hub.says(UP, Frame::Orders(vec![away()]));
    assert_eq!(frames(&said, DOWN)[0], Frame::Orders(vec![away()]));
    assert_eq!(refused(&said, DOWN).unwrap().0, refusal::MOVED);
    assert_eq!(frames(&said, UP), [Frame::Orders(vec![away()])], "it is passed on");
    assert_eq!(hub.store.orders().unwrap(), [away()]);
    // It comes back without having heard.
    let said = hub.meets(DOWN_AGAIN, CHILD, Direction::Down);
    assert_eq!(frames(&said, DOWN_AGAIN), first_words(vec![away()]));
    let said = hub.says(DOWN_AGAIN, hello(CHILD));
    assert_eq!(refused(&said, DOWN_AGAIN).unwrap().0, refusal::MOVED);
    // After a restart it is known.
    let store = hub.store.clone();
    let again = Engine::new(Test { info: info(HUB), minted: Cell::new(9) }, "test", &store).unwrap();
    assert_eq!(again.last_order(), 1);
    assert_eq!(again.places().stands(&OrgId::new("dv").unwrap()), Some(&"tw/qn/dv".parse().unwrap()));
}

const DOWN_AGAIN: LinkId = LinkId(3);

#[test]
fn a_child_that_has_written_nothing_says_where_it_stands() {
    let mut hub = Node::new(HUB);
    hub.meets(DOWN, CHILD, Direction::Down);
    hub.says(DOWN, hello(CHILD));
    let dv = || OrgId::new("dv").unwrap();
    let asks = |hub: &mut Node| frames(&hub.told(Event::Locate(DOWN)), DOWN);
    assert_eq!(asks(&mut hub), [Frame::NeedPlace(dv())]);
    assert!(asks(&mut hub).is_empty(), "once");
    let mut child = Node::new(CHILD);
    child.meets(UP, HUB, Direction::Up);
    child.says(UP, hello(HUB));
    let told = frames(&child.says(UP, Frame::NeedPlace(dv())), UP);
    let [Frame::Announce(announced)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((announced.node, announced.parent), (info(CHILD).node, None));
    hub.says(DOWN, told[0].clone());
    assert_eq!(hub.engine.places().stands(&dv()), Some(&info(CHILD).place));
    assert!(hub.store.announcement_of(&dv()).unwrap().is_some(), "it can tell others");
    // Neither the parent nor one who is known is asked.
    assert!(frames(&child.told(Event::Locate(UP)), UP).is_empty());
    hub.meets(DOWN_AGAIN, CHILD, Direction::Down);
    hub.says(DOWN_AGAIN, hello(CHILD));
    assert!(frames(&hub.told(Event::Locate(DOWN_AGAIN)), DOWN_AGAIN).is_empty());
    // What it writes then has another name.
    child.writes(1);
    assert!(child.store.announcement(announced.incarnation).unwrap().is_none());
}

#[test]
fn an_order_of_nobody_is_refused() {
    let mut hub = Node::with_child();
    let false_order = Order { signature: Vec::new(), ..away() };
    let said = hub.says(DOWN, Frame::Orders(vec![false_order]));
    assert_eq!(refused(&said, DOWN).unwrap().0, 3);
    assert_eq!((hub.engine.last_order(), hub.store.orders().unwrap()), (0, Vec::new()));
}

#[test]
fn a_new_parent_that_has_not_heard_learns_it_from_the_child() {
    let mut other = Node::new(OTHER);
    let said = other.meets(DOWN, CHILD, Direction::Down);
    assert_eq!(frames(&said, DOWN), first_words(Vec::new()));
    assert_eq!(other.engine.links().count(), 0, "not before it is known");
    other.says(DOWN, Frame::Orders(vec![away()]));
    let said = other.says(DOWN, Frame::Orders(Vec::new()));
    assert!(matches!(frames(&said, DOWN)[..], [Frame::Orders(_), Frame::Orders(_), Frame::Hello(_)]));
    other.says(DOWN, hello(CHILD));
    assert_eq!(other.engine.links().next().unwrap().peer.place, "tw/qn/dv".parse().unwrap());
    // A child that says something else first is no neighbour.
    let mut other = Node::new(OTHER);
    other.meets(DOWN, CHILD, Direction::Down);
    assert_eq!(refused(&other.says(DOWN, hello(CHILD)), DOWN).unwrap().0, 5);
}

#[test]
fn an_order_of_this_node_holds_when_it_is_durable() {
    let mut root = Node::new(ROOT);
    root.handles(Event::Order(away()));
    assert_eq!(root.engine.last_order(), 0);
    let Some(Effect::Commit(batch)) = root.engine.poll_effect() else { panic!("a commit") };
    root.store.commit(&batch).unwrap();
    root.told(Event::Committed);
    assert_eq!((root.engine.last_order(), root.store.orders().unwrap()), (1, vec![away()]));
}

/// The child has two rows at the root, and two that nobody has acknowledged.
fn half_safe() -> Node {
    let mut child = Node::with_parent(CHILD, HUB);
    (1..=4).for_each(|seq| drop(child.writes(seq)));
    let at = |pos| Position { segment: child.engine.incarnation(), pos };
    let (safe, read) = (at(2), at(3));
    child.says(UP, Frame::Ack(Lane::Normal, read));
    child.says(UP, Frame::SafeAtRoot(Lane::Normal, safe));
    child
}

#[test]
fn a_new_parent_goes_on_where_the_root_is() {
    let mut child = half_safe();
    let said = child.says(UP, Frame::Orders(vec![away()]));
    assert_eq!(refused(&said, UP).unwrap().0, refusal::MOVED);
    assert!(said.iter().any(|effect| matches!(effect, Effect::Alert(Alert::Moved { .. }))));
    assert_eq!(child.engine.place(), &"tw/qn/dv".parse().unwrap());
    assert_eq!(child.engine.frontier(Frontier::Above, Lane::Normal), 2);
    // Also after a restart.
    let store = child.store.clone();
    let engine = Engine::new(Test { info: info(CHILD), minted: Cell::new(9) }, "test", &store).unwrap();
    let mut child = Node { engine, ..child };
    child.meets(DOWN_AGAIN, OTHER, Direction::Up);
    let mut said = child.says(DOWN_AGAIN, Frame::Orders(Vec::new()));
    said.extend(child.says(DOWN_AGAIN, hello(OTHER)));
    said.extend(child.says(DOWN_AGAIN, Frame::Announce(announcement(OTHER, 1))));
    let segment = run(CHILD, 1);
    assert_eq!(rows(&said), [(segment, 3), (segment, 4)], "what is at the root comes from there");
    let passed = said.iter().find_map(|effect| match effect {
        Effect::Send(_, Frame::Batch(batch)) => {
            Some((batch.after, batch.upto.map(|(pos, _)| pos), batch.entries.len()))
        }
        _ => None,
    });
    assert_eq!(passed, Some((0, Some(2), 0)), "and it is told so first");
    // When it has said that it stands there, its word counts as any parent's.
    child.says(DOWN_AGAIN, Frame::Ack(Lane::Normal, Position { segment, pos: 2 }));
    assert_eq!(child.engine.frontier(Frontier::Above, Lane::Normal), 0);
}

#[test]
fn a_parent_offers_what_a_child_has_gained_a_part_in_each_commit() {
    let mut root = Node::new(ROOT);
    root.meets(DOWN, HUB, Direction::Down);
    root.says(DOWN, hello(HUB));
    for node in [HUB, CHILD, OTHER] {
        root.says(DOWN, Frame::Announce(Announcement { chain: vec![vec![1]], ..announcement(node, 1) }));
    }
    (1..=5_000).for_each(|seq| drop(root.writes(seq)));
    assert_eq!(root.store.tip().unwrap(), 5_000);
    let before = root.commits;
    root.told(Event::Order(away()));
    assert_eq!(root.store.gain().unwrap(), None);
    assert_eq!(root.store.tip().unwrap(), 10_000, "each row is offered once");
    assert_eq!(root.commits - before, 3, "the order, then its first part, and the second");
    let offered = root.store.heads(Lane::Normal, 5_000, usize::MAX).unwrap();
    assert!(offered.iter().all(|head| head.offered_to == Some(Offered::Home(OrgId::new("dv").unwrap()))));
    let wanted = |place: &str, head: &crate::store::Head| {
        let place = place.parse().unwrap();
        crate::scope::wants(
            &crate::scope::Neighbour::Down(&place),
            head,
            &Default::default(),
            root.engine.places(),
            Secrecy::None,
        )
    };
    assert!(offered.iter().all(|head| wanted("tw/qn", head) && !wanted("tw/hg", head)));
    // Half way through, a node that dies goes on there.
    let mut store = root.store.clone();
    store.commit(&[Op::Gain(Some(Gain { since: 0, done: 4_990, upto: 5_000 }))]).unwrap();
    let engine = Engine::new(Test { info: info(ROOT), minted: Cell::new(9) }, "test", &store).unwrap();
    let mut root = Node { engine, store, ..root };
    root.told(Event::Timeout);
    assert_eq!((root.store.tip().unwrap(), root.store.gain().unwrap()), (10_010, None));
}

#[test]
fn what_a_former_child_still_has_is_taken() {
    for (orders, taken) in
        [(vec![], true), (vec![away()], true), (vec![order(1, vec![closed("dv", "qb")])], true)]
    {
        let mut root = Node::new(ROOT);
        root.meets(DOWN, HUB, Direction::Down);
        root.says(DOWN, hello(HUB));
        for node in [HUB, CHILD] {
            root.says(DOWN, Frame::Announce(Announcement { chain: vec![vec![1]], ..announcement(node, 1) }));
        }
        root.says(DOWN, Frame::Announce(Announcement { chain: vec![vec![1]], ..announcement(SISTER, 1) }));
        orders.into_iter().for_each(|order| drop(root.told(Event::Order(order))));
        let segment = run(HUB, 1);
        let entries = vec![(1, entry(run(CHILD, 1), 1, Lane::Normal, 1))];
        let of_child = EntryBatch { segment, origin: run(CHILD, 1), entries, ..batch(0, Some(1), &[]) };
        let said = root.says(DOWN, Frame::Batch(of_child));
        assert_eq!(refused(&said, DOWN).is_none(), taken);
        assert_eq!(root.store.tip().unwrap(), u64::from(taken));
    }
}

/// What is at the root a new parent has; a child of a node that was moved has it not.
#[test]
fn a_moved_hub_passes_over_nothing_for_its_children() {
    let mut hub = Node::with_parent(HUB, ROOT);
    hub.meets(DOWN, CHILD, Direction::Down);
    hub.says(DOWN, hello(CHILD));
    hub.says(DOWN, Frame::Announce(announcement(CHILD, 1)));
    hub.told(Event::Closed(DOWN));
    (1..=2).for_each(|seq| drop(hub.writes(seq)));
    hub.says(UP, Frame::Ack(Lane::Normal, Position { segment: hub.engine.incarnation(), pos: 2 }));
    hub.says(UP, Frame::Orders(vec![order(1, vec![moved("tw/hg", "tw/qn/hg")])]));
    assert_eq!(hub.engine.frontier(Frontier::Above, Lane::Normal), 2);
    hub.meets(DOWN_AGAIN, CHILD, Direction::Down);
    let mut said = hub.says(DOWN_AGAIN, hello(CHILD));
    said.extend(hub.says(DOWN_AGAIN, Frame::Announce(announcement(CHILD, 1))));
    assert_eq!(rows(&said).len(), 2);
}

/// What is issued by one that comes to stand above a hub may have been at the hub before; whoever is below it has not had it.
#[test]
fn what_is_issued_from_above_since_a_move_is_offered_to_those_below() {
    let mut hub = Node::with_child();
    hub.meets(UP, ROOT, Direction::Up);
    hub.says(UP, hello(ROOT));
    for (pos, issuer, author) in [(1, "qn", OTHER), (2, "tw", ROOT)] {
        hub.says(UP, Frame::Announce(Announcement { chain: vec![vec![1]], ..announcement(author, 1) }));
        let issuer = OrgId::new(issuer).unwrap();
        let record = RecordId::issued(&issuer, "Library", "7").unwrap();
        let chunk = opaque_chunk(run(author, 1), pos, &[], Stamp(1), b"x");
        let entry = Entry::new(record, issuer, Lane::Normal, chunk).unwrap().signed(|_| vec![author; 16]);
        let (segment, entries) = (run(ROOT, 1), vec![(pos, entry)]);
        let batch =
            EntryBatch { segment, origin: run(author, 1), entries, ..super::batch(pos - 1, Some(pos), &[]) };
        hub.says(UP, Frame::Batch(batch));
    }
    assert_eq!(hub.store.tip().unwrap(), 2);
    hub.says(UP, Frame::Orders(vec![order(1, vec![moved("tw/hg", "tw/qn/hg")])]));
    let rows = hub.store.heads(Lane::Normal, 2, usize::MAX).unwrap();
    let offered: Vec<_> = rows.iter().map(|head| (head.offered_to.clone(), head.issued)).collect();
    assert_eq!(
        offered,
        [(Some(Offered::Home(OrgId::new("qn").unwrap())), true)],
        "and not what the root issues as before"
    );
    let child = "tw/qn/hg/dv".parse().unwrap();
    let child = crate::scope::Neighbour::Down(&child);
    assert!(crate::scope::wants(&child, &rows[0], &Default::default(), hub.engine.places(), Secrecy::None));
}

/// A child was moved here from another hub below the same parent, and what it had sent there came down before: the parent has
/// it, and nobody has said that the root does.
#[test]
fn what_has_come_from_above_and_is_brought_by_a_child_is_safe_at_the_root_when_the_root_has_it() {
    let of_child = |segment, origin, pos, after| {
        let chunk = opaque_chunk(origin, 1, &[], Stamp(1), b"x");
        let entry = Entry::new("Basic/1".parse().unwrap(), OrgId::new("mv").unwrap(), Lane::Normal, chunk);
        EntryBatch { segment, origin, entries: vec![(pos, entry.unwrap())], ..batch(after, Some(pos), &[]) }
    };
    // The same when the parent's announcements are gone.
    for is_lost in [false, true] {
        let mut hub = Node::with_parent(CHILD, HUB);
        hub.meets(DOWN, COUSIN, Direction::Down);
        hub.says(DOWN, hello(COUSIN));
        hub.says(DOWN, Frame::Announce(announcement(COUSIN, 1)));
        hub.says(UP, Frame::Announce(announcement(HUB, 1)));
        hub.says(UP, Frame::Batch(of_child(run(HUB, 1), run(COUSIN, 1), 7, 0)));
        assert!(hub.engine.all_at_root() && hub.store.tip().unwrap() == 1);
        if is_lost {
            hub.store.lose_announcements(false);
            hub.says(DOWN, Frame::Announce(announcement(COUSIN, 1)));
        }
        let said = hub.says(DOWN, Frame::Batch(of_child(run(COUSIN, 1), run(COUSIN, 1), 1, 0)));
        let at = Position { segment: run(COUSIN, 1), pos: 1 };
        assert_eq!(frames(&said, DOWN), [Frame::Ack(Lane::Normal, at)], "and nothing of the root");
        let own = hub.engine.incarnation();
        assert_eq!(rows(&said), [(own, 2)], "it goes up once more, and to nobody else");
        assert!(!hub.engine.all_at_root());
        let at_root = Frame::SafeAtRoot(Lane::Normal, Position { segment: own, pos: 2 });
        assert_eq!(frames(&hub.says(UP, at_root), DOWN), [Frame::SafeAtRoot(Lane::Normal, at)]);
    }

    // What comes from the root is there.
    let mut hub = Node::with_child();
    hub.meets(UP, ROOT, Direction::Up);
    hub.says(UP, hello(ROOT));
    hub.says(UP, Frame::Announce(announcement(ROOT, 1)));
    hub.says(UP, Frame::Batch(EntryBatch { segment: run(ROOT, 1), ..batch(0, Some(1), &[1]) }));
    let said = hub.says(DOWN, Frame::Batch(batch(0, Some(1), &[1])));
    let at = Position { segment: run(CHILD, 1), pos: 1 };
    assert_eq!(frames(&said, DOWN), [Frame::Ack(Lane::Normal, at), Frame::SafeAtRoot(Lane::Normal, at)]);
    assert_eq!(hub.store.tip().unwrap(), 1);
}
