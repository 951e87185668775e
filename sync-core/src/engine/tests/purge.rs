//! What a hub forgets when an order has put it elsewhere, and when.

use super::*;
use crate::order::tests::{closed, moved, order};

fn dv() -> OrgId {
    OrgId::new("dv").unwrap()
}

fn away() -> Order {
    order(1, vec![moved("tw/hg/dv", "tw/qn/dv")])
}

/// A hub below the root that has three rows of its child's, which is moved away; the root has the first `safe` of them.
fn hub(safe: u64) -> (Node, Vec<Effect>) {
    let mut hub = Node::with_child();
    hub.meets(UP, ROOT, Direction::Up);
    hub.says(UP, hello(ROOT));
    hub.is_audited();
    hub.says(DOWN, Frame::Batch(batch(0, Some(3), &[1, 2, 3])));
    if safe > 0 {
        hub.says(UP, Frame::Ack(Lane::Normal, Position { segment: hub.engine.incarnation(), pos: safe }));
    }
    let said = hub.says(UP, Frame::Orders(vec![away()]));
    (hub, said)
}

fn told(effects: &[Effect]) -> Vec<Purge> {
    let purge = |effect: &Effect| match effect {
        Effect::Forgotten(purge) => Some(purge.clone()),
        _ => None,
    };
    effects.iter().filter_map(purge).collect()
}

fn forgotten(records: u64, entries: u64) -> Vec<Forgotten> {
    vec![Forgotten { home: dv(), records, entries }]
}

#[test]
fn what_is_at_the_root_is_forgotten_and_told_once() {
    let (mut hub, said) = hub(3);
    assert_eq!(told(&said), [Purge { order: 1, done: 3, upto: 3, forgotten: forgotten(3, 3) }]);
    assert_eq!(hub.store.unfolded(0, 9).unwrap(), []);
    assert!(hub.store.homes(&"Basic/1".parse().unwrap()).unwrap().is_empty());
    assert_eq!(hub.store.digests().unwrap(), [(dv(), Digest::default())]);
    assert!(hub.store.check().damaged.is_empty() && hub.store.check().missing.is_empty());
    // Its feed goes on where it is.
    assert_eq!(hub.store.tip().unwrap(), 3);
    assert!((1..=3).all(|row| hub.store.chain(row).unwrap().is_some()));
    // A process that ends before people were told tells them at its next start.
    hub.restarts();
    let said = hub.told(Event::Timeout);
    assert_eq!(told(&said).len(), 1);
    hub.told(Event::ForgottenTold(forgotten(3, 3)));
    assert_eq!((hub.engine.purge(), hub.store.purge().unwrap()), (None, None));
    hub.restarts();
    assert!(told(&hub.told(Event::Timeout)).is_empty());
}

#[test]
fn what_is_forgotten_names_the_order_that_took_it_away() {
    let mut hub = Node::with_child();
    hub.meets(UP, ROOT, Direction::Up);
    hub.says(UP, hello(ROOT));
    hub.is_audited();
    hub.says(DOWN, Frame::Batch(batch(0, Some(3), &[1, 2, 3])));
    hub.says(UP, Frame::Ack(Lane::Normal, Position { segment: hub.engine.incarnation(), pos: 3 }));
    // The second gives another address alone.
    let said = hub.says(UP, Frame::Orders(vec![away(), order(2, vec![moved("tw/hg", "tw/hg")])]));
    assert_eq!((hub.engine.last_order(), told(&said)[0].order), (2, 1));
    assert_eq!(hub.store.unfolded(0, 9).unwrap(), []);
}

#[test]
fn nothing_is_forgotten_before_the_root_has_it() {
    let (mut hub, said) = hub(2);
    assert!(told(&said).is_empty());
    assert_eq!(hub.store.unfolded(0, 9).unwrap().len(), 1, "the third is nowhere else");
    let commits = hub.commits;
    hub.told(Event::Timeout);
    assert_eq!(hub.commits, commits, "it waits");
    assert_eq!(hub.engine.purge().map(|purge| (purge.done, purge.upto)), Some((2, 3)));
    let at = Position { segment: hub.engine.incarnation(), pos: 3 };
    let said = hub.says(UP, Frame::Ack(Lane::Normal, at));
    assert_eq!(told(&said)[0].forgotten, forgotten(3, 3));
    assert_eq!(hub.store.unfolded(0, 9).unwrap(), []);
}

/// It may come again, and an audit brings what was damaged to where nothing is any more.
#[test]
fn what_is_forgotten_is_not_waited_for() {
    let (mut hub, _) = hub(2);
    hub.store.rot(3, crate::audit::Harm::Damaged);
    let checkup = hub.store.check();
    hub.told(Event::Checked(checkup));
    assert_eq!(hub.engine.damaged().count(), 1);
    let at = Position { segment: hub.engine.incarnation(), pos: 3 };
    assert_eq!(told(&hub.says(UP, Frame::Ack(Lane::Normal, at)))[0].forgotten, forgotten(3, 3));
    assert_eq!(hub.engine.damaged().count(), 0);
}

#[test]
fn what_comes_later_is_forgotten_as_well() {
    let (mut hub, _) = hub(3);
    hub.told(Event::ForgottenTold(forgotten(3, 3)));
    // From another child, which had it from when both were here, and what had been held back when the order came.
    hub.meets(LinkId(3), SISTER, Direction::Down);
    hub.says(LinkId(3), hello(SISTER));
    hub.says(LinkId(3), Frame::Announce(announcement(SISTER, 1)));
    let (segment, origin) = (run(SISTER, 1), run(CHILD, 1));
    let entries = vec![(1, entry(origin, 9, Lane::Normal, 1))];
    let late = EntryBatch { segment, origin, entries, ..batch(0, Some(1), &[]) };
    let refusal = refused(&hub.says(LinkId(3), Frame::Batch(late)), LinkId(3));
    assert_eq!(refusal.unwrap().0, refusal::OUTSIDE_SUBTREE, "it never was below that");
    let mut parents = batch(0, Some(4), &[4]);
    (parents.segment, parents.origin) = (run(ROOT, 1), run(CHILD, 1));
    hub.says(UP, Frame::Announce(announcement(ROOT, 1)));
    let said = hub.says(UP, Frame::Batch(parents));
    assert_eq!(told(&said)[0].forgotten, forgotten(1, 1));
    assert_eq!(hub.store.unfolded(0, 9).unwrap(), []);
}

/// What is a hub's own, is for somebody who is still below it, is issued, or is secret stays.
#[test]
fn what_is_for_somebody_here_stays() {
    let own = |home: &str, record: &str, hub: &mut Node| {
        let chunk = opaque_chunk(hub.engine.incarnation(), 50, &[], Stamp(1), record.as_bytes());
        let home = OrgId::new(home).unwrap();
        let entries = vec![Entry::new(record.parse().unwrap(), home, Lane::Normal, chunk).unwrap()];
        hub.told(Event::Write { ticket: Ticket(50), entries, projection: Vec::new() });
    };
    let mut hub = Node::with_child();
    hub.meets(UP, ROOT, Direction::Up);
    hub.says(UP, hello(ROOT));
    hub.is_audited();
    hub.says(DOWN, Frame::Batch(batch(0, Some(3), &[1, 2, 3])));
    for node in [SISTER, AUNT] {
        hub.says(DOWN, Frame::Announce(Announcement { chain: vec![vec![1]], ..announcement(node, 1) }));
    }
    own("hg", "Basic/1", &mut hub);
    own("qb", "Basic/2", &mut hub);
    own("hg", "Basic/hub", &mut hub);
    own("dv", "Library/o.dv.7", &mut hub);
    let tip = hub.store.tip().unwrap();
    hub.says(UP, Frame::Ack(Lane::Normal, Position { segment: hub.engine.incarnation(), pos: tip }));
    let said = hub.says(UP, Frame::Orders(vec![away()]));
    assert_eq!(
        told(&said)[0].forgotten,
        forgotten(1, 1),
        "of three records that were the child's one is nobody else's"
    );
    let left = |hub: &Node| {
        let rows = hub.store.unfolded(0, 99).unwrap();
        let names: BTreeSet<_> = rows.into_iter().map(|(_, record)| record.to_string()).collect();
        names.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(left(&hub), ["Basic/1", "Basic/2", "Basic/hub", "Library/o.dv.7"]);
    hub.told(Event::ForgottenTold(forgotten(1, 1)));
    // What was of one that is closed is its successor's.
    let said = hub.says(UP, Frame::Orders(vec![order(2, vec![closed("qb", "qn")])]));
    assert_eq!(told(&said)[0].forgotten, forgotten(1, 2), "its first home counts");
    assert_eq!(left(&hub), ["Basic/1", "Basic/hub", "Library/o.dv.7"]);
}

#[test]
fn the_root_and_leaves_forget_nothing() {
    let mut root = Node::new(ROOT);
    root.meets(DOWN, HUB, Direction::Down);
    root.says(DOWN, hello(HUB));
    root.writes(1);
    assert!(told(&root.told(Event::Order(away()))).is_empty());
    assert_eq!(root.store.unfolded(0, 9).unwrap().len(), 1);
    let mut leaf = Node::with_parent(CHILD, HUB);
    leaf.writes(1);
    leaf.says(UP, Frame::Orders(vec![order(1, vec![closed("dv", "qb")])]));
    assert_eq!(leaf.store.unfolded(0, 9).unwrap().len(), 1);
}

/// What comes back is given again, also what it had written itself; what it never had to forget is not.
#[test]
fn what_comes_back_is_offered_like_news() {
    let mut places = Places::default();
    for place in ["tw", "tw/hg", "tw/qn", "tw/hg/dv", "tw/hg/qb"] {
        assert!(places.learn(&place.parse().unwrap()));
    }
    let src = Position { segment: run(HUB, 1), pos: 1 };
    let mut of_hub = crate::feed::Lineage::default();
    of_hub.extend(src);
    let hub: OrgPath = "tw/hg".parse().unwrap();
    let offer = |home: &OrgId| crate::store::Head {
        seq: 9,
        src: Some(src),
        homes: vec![home.clone()],
        opened: Vec::new(),
        offered_to: Some(Offered::Home(home.clone())),
        issued: false,
        secrecy: crate::id::Secrecy::None,
    };
    let down = crate::scope::Neighbour::Down(&hub);
    let wanted = |places: &Places, home: &OrgId| {
        crate::scope::wants(&down, &offer(home), &of_hub, places, Secrecy::None)
    };
    let qb = OrgId::new("qb").unwrap();
    assert!(!wanted(&places, &dv()), "it has sent it itself");
    places.follow(&away());
    assert!(!wanted(&places, &dv()), "it is elsewhere");
    places.follow(&order(2, vec![moved("tw/qn/dv", "tw/hg/dv")]));
    assert!(wanted(&places, &dv()) && !wanted(&places, &qb));
    assert!(places.has_left(&dv(), hub.org()) && !places.has_left(&qb, hub.org()));
}
