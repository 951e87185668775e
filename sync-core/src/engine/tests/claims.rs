//! What a node says to be safe elsewhere, when it was put back to an older copy.

use super::{
    audit::{Pair, done},
    *,
};

/// A child that has written two records, marked the first secret, written a third, given its parent what may go there, and
/// was then put back to when there were two; and its parent.
fn put_back() -> [Node; 2] {
    let mut child = Node::new(CHILD);
    child.keeps("1", 1, Secrecy::None);
    child.keeps("2", 2, Secrecy::None);
    let mut older = child.clone();
    child.restarts();
    child.keeps("1", 3, Secrecy::Mat);
    child.keeps("3", 4, Secrecy::None);
    let [mut parent, child] = Pair::new(Node::new(HUB), child).nodes;
    assert!(child.engine.all_at_parent() && !has(&parent, "1") && has(&parent, "3"));
    parent.restarts();
    // The second run was the one that is lost.
    older.restarts();
    older.restarts();
    [parent, older]
}

fn has(node: &Node, record: &str) -> bool {
    !node.store.rows_of(&format!("Basic/{record}").parse().unwrap()).unwrap().is_empty()
}

/// How far the child's feed counts as durable at its parent, and at the root.
fn safe(child: &Node) -> [Seq; 2] {
    [Frontier::Hub, Frontier::Root].map(|which| child.engine.frontier(which, Lane::Normal))
}

/// The parent says that the root has all that it has read of the child so far.
fn is_at_root(pair: &mut Pair, row: Seq) {
    let at = pair.nodes[1].engine.position(row).unwrap();
    pair.tells(1, Event::Received(UP, Frame::SafeAtRoot(Lane::Normal, at)));
    pair.settles();
}

#[test]
fn who_was_put_back_believes_no_place_before_an_audit() {
    let [parent, child] = put_back();
    let mut pair = Pair::new(parent, child);
    is_at_root(&mut pair, 2);
    assert!(has(&pair.nodes[1], "3"), "what it has lost comes back");
    assert!(!has(&pair.nodes[0], "1"), "its parent has read past it");
    assert_eq!(safe(&pair.nodes[1]), [0, 0]);
    assert!(pair.nodes[1].engine.is_in_doubt() && !pair.nodes[1].engine.all_at_parent());
    assert_eq!(pair.nodes[1].engine.awaits_audit(), Some(UP));
    // Its next process meets a parent that knows its places.
    let [mut parent, mut child] = pair.nodes.clone();
    parent.restarts();
    child.restarts();
    let mut pair = Pair::new(parent, child);
    assert_eq!(safe(&pair.nodes[1]), [0, 0]);
    // What the parent lacks comes there, and goes up once more, so that its word says when the root has it.
    pair.nodes[1].now.mono += 1;
    assert_eq!(pair.audits(1), done(3, 0, 1, 0));
    assert!(has(&pair.nodes[0], "1"));
    let last = pair.nodes[1].engine.frontier(Frontier::Last, Lane::Normal);
    assert_eq!((safe(&pair.nodes[1]), pair.nodes[1].engine.is_in_doubt()), ([last, 0], false));
    is_at_root(&mut pair, last - 1);
    assert_eq!(safe(&pair.nodes[1]), [last, 0], "that was before");
    pair.nodes[1].restarts();
    assert_eq!(safe(&pair.nodes[1]), [last, 0], "also for another process");
    let [mut parent, child] = pair.nodes;
    parent.restarts();
    let mut pair = Pair::new(parent, child);
    is_at_root(&mut pair, last);
    assert_eq!(safe(&pair.nodes[1]), [last, last]);
}

#[test]
fn what_is_not_at_the_root_for_certain_is_not_told_below() {
    let mut hub = Node::with_child();
    hub.says(DOWN, Frame::Batch(batch(0, Some(3), &[1, 2, 3])));
    hub.meets(UP, ROOT, Direction::Up);
    hub.says(UP, hello_of_other_rows(ROOT, Position { segment: run(HUB, 9), pos: 7 }));
    hub.says(UP, Frame::Cursors(Vec::new()));
    let receipts = |said: &[Effect]| {
        let said = frames(said, DOWN).into_iter();
        said.filter(|frame| matches!(frame, Frame::SafeAtRoot(..))).count()
    };
    let at = Position { segment: hub.engine.incarnation(), pos: 3 };
    assert_eq!(receipts(&hub.says(UP, Frame::Ack(Lane::Normal, at))), 0);
    assert!(!hub.engine.all_at_root());
    hub.now.mono += 1;
    assert_eq!(receipts(&hub.is_audited()), 1);
    assert!(hub.engine.all_at_root());
}

#[test]
fn a_doubt_is_durable_before_the_parent_is_asked() {
    let [_, mut child] = put_back();
    child.meets(UP, HUB, Direction::Up);
    child.handles(Event::Received(UP, hello_of_other_rows(HUB, Position { segment: run(CHILD, 1), pos: 4 })));
    let mut said = Vec::new();
    while let Some(effect) = child.engine.poll_effect() {
        said.push(effect);
    }
    let commits: Vec<_> = said.iter().filter(|effect| matches!(effect, Effect::Commit(_))).collect();
    let [Effect::Commit(ops)] = commits[..] else { panic!("{said:?}") };
    assert!(ops.contains(&Op::Reach(Frontier::Doubt, Lane::Normal, Seq::MAX)));
    assert!(!frames(&said, UP).contains(&Frame::Lost));
    assert!(frames(&child.told(Event::Committed), UP).contains(&Frame::Lost));
}

#[test]
fn an_audit_of_before_ends_no_doubt() {
    let [parent, child] = put_back();
    let mut pair = Pair::new(parent, child);
    // It began in the same millisecond, as far as anybody can tell before.
    assert_eq!(pair.audits(1), done(3, 0, 1, 0));
    assert!(pair.nodes[1].engine.is_in_doubt());
    pair.nodes[1].restarts();
    assert!(pair.nodes[1].engine.is_in_doubt());
}

#[test]
fn who_has_nothing_to_give_doubts_nothing() {
    let mut child = Node::new(CHILD);
    child.meets(UP, HUB, Direction::Up);
    let said = child.says(UP, hello_of_other_rows(HUB, Position { segment: run(CHILD, 9), pos: 4 }));
    assert!(frames(&said, UP).contains(&Frame::Lost));
    assert!(child.engine.all_at_parent() && child.engine.all_at_root() && !child.engine.is_in_doubt());
}

/// Both meet while more is written, and each has read what the other has not told it of: nothing was lost.
#[test]
fn what_grew_between_two_words_is_no_doubt() {
    let mut child = Node::new(CHILD);
    child.writes(1);
    child.meets(UP, HUB, Direction::Up);
    child.writes(2);
    let at = Position { segment: child.engine.incarnation(), pos: 2 };
    let Frame::Hello(said) = hello(HUB) else { unreachable!() };
    let cursor = Cursor { at, chain: child.store.chain(2).unwrap() };
    let said = child.says(UP, Frame::Hello(Hello { cursors: vec![(Lane::Normal, cursor)], ..said }));
    assert!(frames(&said, UP).contains(&Frame::Lost));
    assert!(!child.engine.is_in_doubt());
}

/// What is kept of others may be changed behind the program's back.
#[test]
fn what_names_a_row_that_is_not_there_counts_for_nothing() {
    let mut child = Node::new(CHILD);
    child.keeps("1", 1, Secrecy::None);
    let mut pair = Pair::new(Node::new(HUB), child);
    is_at_root(&mut pair, 1);
    assert_eq!(safe(&pair.nodes[1]), [1, 1]);
    for which in Frontier::ALL {
        let [mut parent, mut child] = pair.nodes.clone();
        let row = child.store.frontier(which, Lane::Normal).unwrap();
        child.store.commit(&[Op::Reach(which, Lane::Normal, row + 500)]).unwrap();
        parent.restarts();
        child.restarts();
        let counted = safe(&child);
        let expected = match which {
            Frontier::Hub => [0, 1],
            Frontier::Root => [1, 0],
            Frontier::Doubt => [0, 0],
            Frontier::Last | Frontier::Above => [1, 1],
        };
        assert_eq!(counted, expected, "{which:?}");
        child.keeps("2", 2, Secrecy::None);
        let mut pair = Pair::new(parent, child);
        if pair.nodes[1].engine.is_in_doubt() {
            pair.nodes[1].now.mono += 1;
            pair.audits(1);
        }
        let tip = pair.nodes[1].store.tip().unwrap();
        is_at_root(&mut pair, tip);
        assert_eq!(safe(&pair.nodes[1]), [tip, tip], "{which:?}");
        assert!(pair.nodes[1].engine.all_at_root(), "{which:?}");
    }
}
