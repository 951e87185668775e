//! Records that are opened to somebody for a time: who gets what, who forgets it, and when.

use super::*;
use crate::order::tests::{closed, moved, order};
use crate::scope::grant::{Grant, GrantId, Granted, Step};

const SIDE: LinkId = LinkId(3);
/// The first wall time at which the grants of these tests have ended.
const END: i64 = 1_000;

fn org(name: &str) -> OrgId {
    OrgId::new(name).unwrap()
}

fn grant(n: u8, to: &str) -> Grant {
    Grant { id: GrantId([n; 16]), to: org(to), until: END }
}

fn opens(n: u8, to: &str) -> Vec<Step> {
    vec![Step::Opens(grant(n, to))]
}

fn ends(n: u8, to: &str) -> Vec<Step> {
    vec![Step::Ends(grant(n, to))]
}

/// Of one record: its author's change with this number.
fn change(home: &str, author: u8, n: u64, steps: &[Step]) -> Entry {
    let chunk = opaque_chunk(run(author, 1), n, &[], Stamp(n as i64), b"x");
    let entry = Entry::new("Basic/1".parse().unwrap(), org(home), Lane::Normal, chunk).unwrap();
    entry.with_grants(steps).signed(|_| vec![author; 16])
}

impl Node {
    /// A neighbour brings an entry, with its author's announcement.
    fn brought(&mut self, link: LinkId, by: u8, pos: u64, entry: Entry) -> Vec<Effect> {
        let (segment, origin) = (run(by, 1), entry.origin());
        self.says(link, Frame::Announce(announcement(by, 1)));
        if origin != segment {
            let chain = vec![vec![1]];
            self.says(link, Frame::Announce(Announcement { chain, ..announcement(origin.0[15], 1) }));
        }
        let batch =
            EntryBatch { segment, origin, entries: vec![(pos, entry)], ..batch(pos - 1, Some(pos), &[]) };
        self.says(link, Frame::Batch(batch))
    }

    fn meets_and_hears(&mut self, link: LinkId, node: u8, direction: Direction) {
        self.meets(link, node, direction);
        self.says(link, hello(node));
    }

    /// Its parent is connected again, of whose feed it has read so much.
    fn meets_again(&mut self, parent: u8, pos: u64) {
        self.meets(UP, parent, Direction::Up);
        let Frame::Hello(said) = hello(parent) else { unreachable!() };
        let tip = Some(Position { segment: run(parent, 1), pos });
        self.says(UP, Frame::Hello(Hello { tip, ..said }));
    }

    fn rows_of_record(&self) -> usize {
        self.store.rows_of(&"Basic/1".parse().unwrap()).unwrap().len()
    }

    /// A child says that it has this row of ours.
    fn hears_of(&mut self, link: LinkId, pos: u64) -> Vec<Effect> {
        let at = Position { segment: self.engine.incarnation(), pos };
        self.says(link, Frame::Ack(Lane::Normal, at))
    }
}

const NONE: [i64; 0] = [];

/// The stamps of the entries that are sent over a link.
fn sent(effects: &[Effect], link: LinkId) -> Vec<i64> {
    let batches = frames(effects, link).into_iter().filter_map(|frame| match frame {
        Frame::Batch(batch) => Some(batch.entries),
        _ => None,
    });
    batches.flatten().map(|(_, entry)| entry.stamp().0).collect()
}

fn forgotten(effects: &[Effect]) -> Vec<Purge> {
    let purge = |effect: &Effect| match effect {
        Effect::Forgotten(purge) => Some(purge.clone()),
        _ => None,
    };
    effects.iter().filter_map(purge).collect()
}

/// A hub whose child has written two changes of its record; another child is there too.
fn between() -> Node {
    let mut hub = Node::with_child();
    hub.meets_and_hears(SIDE, SISTER, Direction::Down);
    hub.says(SIDE, Frame::Announce(announcement(SISTER, 1)));
    for n in [1, 2] {
        let said = hub.brought(DOWN, CHILD, n, change("dv", CHILD, n, &[]));
        assert_eq!(sent(&said, SIDE), NONE);
    }
    hub
}

/// A hub below the root, with a child to which a record of elsewhere is open, of which it has two changes.
fn granted_below() -> Node {
    let mut hub = Node::with_parent(HUB, ROOT);
    hub.meets_and_hears(SIDE, SISTER, Direction::Down);
    hub.says(SIDE, Frame::Announce(announcement(SISTER, 1)));
    let said = hub.brought(UP, ROOT, 1, change("qn", AUNT, 2, &opens(1, "qb")));
    assert_eq!(sent(&said, SIDE), [2], "{said:?}");
    assert_eq!(sent(&hub.brought(UP, ROOT, 2, change("qn", AUNT, 1, &[])), SIDE), [1]);
    hub.hears_of(SIDE, 2);
    hub.is_audited();
    hub
}

#[test]
fn whoever_gains_a_record_gets_its_history_and_what_comes_then() {
    let mut hub = between();
    let said = hub.brought(DOWN, CHILD, 3, change("dv", CHILD, 3, &opens(1, "qb")));
    assert_eq!(sent(&said, SIDE), [3, 1, 2], "first what makes it theirs");
    assert_eq!(sent(&hub.brought(DOWN, CHILD, 4, change("dv", CHILD, 4, &[])), SIDE), [4]);
    // Once more by another name: nothing is sent twice, and it stays open until both have ended.
    assert_eq!(sent(&hub.brought(DOWN, CHILD, 5, change("dv", CHILD, 5, &opens(2, "qb"))), SIDE), [5]);
    assert_eq!(sent(&hub.brought(DOWN, CHILD, 6, change("dv", CHILD, 6, &ends(1, "qb"))), SIDE).len(), 2);
    assert_eq!(sent(&hub.brought(DOWN, CHILD, 7, change("dv", CHILD, 7, &[])), SIDE), [7]);
}

#[test]
fn what_has_ended_while_nothing_ran_goes_nowhere() {
    let mut hub = granted_below();
    hub.told(Event::Closed(SIDE));
    hub.now.wall = END;
    let mut said = hub.meets(LinkId(9), SISTER, Direction::Down);
    said.extend(hub.says(LinkId(9), hello(SISTER)));
    assert_eq!(sent(&said, LinkId(9)), NONE);
}

/// By an order, or a backfill: it had ended where it was before, and nobody says so once more.
#[test]
fn what_comes_when_its_grant_has_ended_is_open_to_nobody() {
    for (home, here, sent_down) in [("dv", 2, vec![1, 2]), ("qn", 0, vec![])] {
        let mut hub = Node::with_parent(HUB, ROOT);
        hub.meets_and_hears(DOWN, CHILD, Direction::Down);
        hub.meets_and_hears(SIDE, SISTER, Direction::Down);
        for (link, child) in [(DOWN, CHILD), (SIDE, SISTER)] {
            hub.says(link, Frame::Announce(announcement(child, 1)));
        }
        hub.now.wall = END;
        let mut said = hub.brought(UP, ROOT, 1, change(home, AUNT, 1, &opens(1, "qb")));
        said.extend(hub.brought(UP, ROOT, 2, change(home, AUNT, 2, &[])));
        assert_eq!((sent(&said, SIDE), sent(&said, DOWN)), (vec![], sent_down), "{home}");
        // Another word that opens it may be on its way.
        hub.now.mono += LEAVING_AFTER_MILLIS;
        hub.is_audited();
        assert_eq!(hub.rows_of_record(), here, "{home}");
    }
}

#[test]
fn when_it_has_ended_nothing_more_is_sent_but_that() {
    let mut hub = between();
    hub.brought(DOWN, CHILD, 3, change("dv", CHILD, 3, &opens(1, "qb")));
    let said = hub.brought(DOWN, CHILD, 4, change("dv", CHILD, 4, &ends(1, "qb")));
    assert_eq!(sent(&said, SIDE), [4]);
    assert_eq!(sent(&hub.brought(DOWN, CHILD, 5, change("dv", CHILD, 5, &[])), SIDE), NONE);
    assert_eq!(hub.rows_of_record(), 5, "it is still the other child's");
    // Whoever had been away gets that alone, and none of what it had been offered.
    hub.restarts();
    hub.meets_and_hears(LinkId(9), SISTER, Direction::Down);
    let said = hub.told(Event::Timeout);
    assert_eq!(sent(&said, LinkId(9)), NONE);
    let mut away = hub.clone();
    away.meets(LinkId(10), SISTER, Direction::Down);
    assert_eq!(sent(&away.says(LinkId(10), hello(SISTER)), LinkId(10)), [4]);
    // One that is known to be over does not begin by being heard of.
    let said = hub.brought(DOWN, CHILD, 6, change("dv", CHILD, 6, &opens(1, "qb")));
    assert_eq!(sent(&said, LinkId(9)), NONE);
}

/// The places that are asked for over a link.
fn asked(effects: &[Effect], link: LinkId) -> Vec<String> {
    let places = frames(effects, link).into_iter().filter_map(|frame| match frame {
        Frame::NeedPlace(org) => Some(org.to_string()),
        _ => None,
    });
    places.collect()
}

/// A clinic opens a record to one of another province, of which neither it nor the centre has heard.
#[test]
fn whom_nobody_knows_to_whom_it_is_open_is_asked_for_all_around() {
    const OTHER: LinkId = LinkId(5);
    let mut root = Node::new(ROOT);
    root.meets_and_hears(DOWN, HUB, Direction::Down);
    root.meets_and_hears(OTHER, AUNT, Direction::Down);
    root.brought(DOWN, HUB, 1, change("hg", HUB, 1, &[]));
    let said = root.brought(DOWN, HUB, 2, change("hg", HUB, 2, &opens(1, "qb")));
    assert_eq!((asked(&said, OTHER), asked(&said, DOWN)), (vec!["qb".to_owned()], vec!["qb".to_owned()]));
    assert_eq!(sent(&said, DOWN), NONE);
    // Once on each link, also after a restart.
    let said = root.brought(DOWN, HUB, 3, change("hg", HUB, 3, &opens(2, "qb")));
    assert_eq!(asked(&said, DOWN).len() + asked(&said, OTHER).len(), 0);
    root.restarts();
    root.meets(DOWN, HUB, Direction::Down);
    assert_eq!(asked(&root.says(DOWN, hello(HUB)), DOWN), ["qb"]);
    // A hub that does not know asks as well, and answers when it has heard.
    let mut hub = Node::with_parent(HUB, ROOT);
    hub.meets_and_hears(DOWN, CHILD, Direction::Down);
    assert_eq!(asked(&hub.says(UP, Frame::NeedPlace(org("qb"))), UP), ["qb"]);
    hub.meets_and_hears(SIDE, SISTER, Direction::Down);
    let told = frames(&hub.says(SIDE, Frame::Announce(announcement(SISTER, 1))), UP);
    assert!(matches!(&told[..], [Frame::Announce(one)] if one.node == info(SISTER).node), "{told:?}");
    // Nobody who asks for ever more can use up what may be asked for on another link.
    let mut many = Node::with_parent(HUB, ROOT);
    many.meets_and_hears(DOWN, CHILD, Direction::Down);
    many.meets_and_hears(SIDE, SISTER, Direction::Down);
    let mut count = 0;
    for n in 0..PLACES_MAX {
        count += asked(&many.says(DOWN, Frame::NeedPlace(org(&format!("x{n}")))), UP).len();
    }
    assert_eq!((count, asked(&many.says(SIDE, Frame::NeedPlace(org("y"))), UP).len()), (PLACES_MAX / 2, 0));
    // A leaf asks its hub.
    let mut leaf = Node::with_parent(CHILD, HUB);
    let write = change("dv", CHILD, 1, &opens(1, "qb"));
    let said = leaf.told(Event::Write { ticket: Ticket(1), entries: vec![write], projection: Vec::new() });
    assert_eq!(asked(&said, UP), ["qb"]);
    let mut hub = Node::with_parent(HUB, ROOT);
    hub.meets_and_hears(DOWN, CHILD, Direction::Down);
    assert_eq!(asked(&hub.says(DOWN, Frame::NeedPlace(org("qb"))), UP), ["qb"]);
}

#[test]
fn a_hub_that_has_succeeded_whom_it_was_open_to_waits_for_the_closed_machine_alone() {
    let mut hub = granted_below();
    hub.says(UP, Frame::Orders(vec![order(1, vec![closed("qb", "hg")])]));
    let said = hub.brought(UP, ROOT, 3, change("qn", AUNT, 3, &ends(1, "qb")));
    assert_eq!((sent(&said, SIDE), forgotten(&said)), (vec![3], vec![]));
    let tip = hub.store.tip().unwrap();
    let said = hub.hears_of(SIDE, tip);
    assert_eq!((forgotten(&said).len(), hub.rows_of_record()), (1, 0));
}

/// The machine of one that is closed has what was open to it, and its successor gets it: both hear of the end.
#[test]
fn who_is_closed_hears_that_its_grant_has_ended() {
    let mut hub = granted_below();
    hub.meets_and_hears(DOWN, CHILD, Direction::Down);
    hub.says(DOWN, Frame::Announce(announcement(CHILD, 1)));
    let said = hub.says(UP, Frame::Orders(vec![order(1, vec![closed("qb", "dv")])]));
    assert_eq!(sent(&said, DOWN), [2, 1]);
    let said = hub.brought(UP, ROOT, 3, change("qn", AUNT, 3, &ends(1, "qb")));
    assert_eq!((sent(&said, DOWN), sent(&said, SIDE)), (vec![3], vec![3]));
    let tip = hub.store.tip().unwrap();
    for (first, second) in [(SIDE, DOWN), (DOWN, SIDE)] {
        let mut hub = hub.clone();
        assert_eq!(forgotten(&hub.hears_of(first, tip)), [], "the other one has not heard of it");
        assert_eq!((forgotten(&hub.hears_of(second, tip)).len(), hub.rows_of_record()), (1, 0));
    }
    let mut leaf = Node::with_parent(SISTER, HUB);
    leaf.says(UP, Frame::Announce(Announcement { chain: vec![vec![1]], ..announcement(CHILD, 1) }));
    leaf.brought(UP, HUB, 1, change("dv", CHILD, 1, &opens(1, "qb")));
    leaf.says(UP, Frame::Orders(vec![order(1, vec![closed("qb", "dv")])]));
    leaf.is_audited();
    assert_eq!(leaf.rows_of_record(), 1, "an order takes nothing from a clinic");
    let said = leaf.brought(UP, HUB, 2, change("dv", CHILD, 2, &ends(1, "qb")));
    assert_eq!((forgotten(&said).len(), leaf.rows_of_record()), (1, 0));
}

/// A clinic is moved before its old parent has passed on that a grant to it has ended: it hears so where it stands now, once.
#[test]
fn who_is_moved_hears_what_its_old_parent_has_not_told_it() {
    const OTHER: LinkId = LinkId(5);
    let mut root = Node::new(ROOT);
    root.meets_and_hears(DOWN, HUB, Direction::Down);
    root.says(DOWN, Frame::Announce(Announcement { chain: vec![vec![1]], ..announcement(CHILD, 1) }));
    root.brought(DOWN, HUB, 1, change("hg", HUB, 1, &opens(1, "dv")));
    root.brought(DOWN, HUB, 2, change("hg", HUB, 2, &ends(1, "dv")));
    root.meets_and_hears(OTHER, AUNT, Direction::Down);
    root.says(OTHER, Frame::Ack(Lane::Normal, Position { segment: root.engine.incarnation(), pos: 3 }));
    let said = root.told(Event::Order(order(1, vec![moved("tw/hg/dv", "tw/qn/dv")])));
    assert_eq!((sent(&said, OTHER), sent(&said, DOWN)), (vec![2], NONE.to_vec()));
    assert_eq!(
        root.store.grants(&"Basic/1".parse().unwrap()).unwrap()[0].over,
        Some(4),
        "it is waited for there"
    );
}

/// The same where it stays below the same child of the root: the hubs between may have forgotten the record, which they held for it.
#[test]
fn who_is_moved_further_down_hears_it_as_well() {
    let mut root = Node::new(ROOT);
    root.meets_and_hears(DOWN, HUB, Direction::Down);
    root.says(DOWN, Frame::Announce(Announcement { chain: vec![vec![1]], ..announcement(CHILD, 1) }));
    root.meets_and_hears(SIDE, AUNT, Direction::Down);
    assert_eq!(sent(&root.brought(SIDE, AUNT, 1, change("qn", AUNT, 1, &opens(1, "dv"))), DOWN), [1]);
    assert_eq!(sent(&root.brought(SIDE, AUNT, 2, change("qn", AUNT, 2, &ends(1, "dv"))), DOWN), [2]);
    let tip = root.store.tip().unwrap();
    root.hears_of(DOWN, tip);
    let said = root.told(Event::Order(order(1, vec![moved("tw/hg/dv", "tw/hg/qb/dv")])));
    assert_eq!(sent(&said, DOWN), [2]);
    let said = root.told(Event::Order(order(2, vec![moved("tw/hg/qb", "tw/qb")])));
    assert_eq!(sent(&said, DOWN), NONE, "below another one now, who is not connected");
}

#[test]
fn the_end_may_be_heard_before_the_beginning() {
    let mut hub = between();
    assert_eq!(sent(&hub.brought(DOWN, CHILD, 3, change("dv", CHILD, 4, &ends(1, "qb"))), SIDE), [4]);
    assert_eq!(sent(&hub.brought(DOWN, CHILD, 4, change("dv", CHILD, 3, &opens(1, "qb"))), SIDE), NONE);
    let over = hub.store.grants(&"Basic/1".parse().unwrap()).unwrap();
    assert_eq!(over, [Granted { grant: grant(1, "qb"), over: Some(4) }]);
}

/// A leaf that holds a record by a grant alone forgets it when that ends, and its hub when the leaf has heard of it.
#[test]
fn who_holds_it_by_the_grant_alone_forgets_it() {
    let mut leaf = Node::with_parent(SISTER, HUB);
    leaf.brought(UP, HUB, 1, change("dv", CHILD, 2, &opens(1, "qb")));
    leaf.brought(UP, HUB, 2, change("dv", CHILD, 1, &[]));
    assert_eq!(leaf.rows_of_record(), 2);
    leaf.is_audited();
    let said = leaf.brought(UP, HUB, 3, change("dv", CHILD, 3, &ends(1, "qb")));
    let told = forgotten(&said);
    assert_eq!(told[0].forgotten, [Forgotten { home: org("dv"), records: 1, entries: 3 }]);
    assert_eq!((told.len(), told[0].order, leaf.rows_of_record()), (1, 0, 0));
    assert_eq!((leaf.store.leaving().unwrap(), leaf.store.next_grant_end().unwrap()), (vec![], None));

    let mut hub = granted_below();
    let said = hub.brought(UP, ROOT, 3, change("qn", AUNT, 3, &ends(1, "qb")));
    assert_eq!((sent(&said, SIDE), forgotten(&said).len(), hub.rows_of_record()), (vec![3], 0, 3));
    let tip = hub.store.tip().unwrap();
    let said = hub.hears_of(SIDE, tip);
    assert_eq!((forgotten(&said).len(), hub.rows_of_record()), (1, 0));
    // Neighbours go on where they are.
    assert!((1..=tip).all(|row| hub.store.chain(row).unwrap().is_some()));
}

#[test]
fn a_hub_waits_for_whoever_has_not_heard_until_everybody_ends_it_alone() {
    let mut hub = granted_below();
    hub.told(Event::Closed(SIDE));
    hub.brought(UP, ROOT, 3, change("qn", AUNT, 3, &ends(1, "qb")));
    let (segment, pos) = (hub.engine.incarnation(), hub.store.tip().unwrap());
    hub.restarts();
    assert_eq!((hub.told(Event::Timeout).len(), hub.rows_of_record()), (0, 3), "also another process");
    hub.meets_again(ROOT, 3);
    assert_eq!(forgotten(&hub.is_audited()), []);
    let mut later = hub.clone();
    // It comes back from where it was.
    hub.meets(SIDE, SISTER, Direction::Down);
    assert_eq!(sent(&hub.says(SIDE, hello(SISTER)), SIDE), [3]);
    let said = hub.says(SIDE, Frame::Ack(Lane::Normal, Position { segment, pos }));
    assert_eq!((forgotten(&said).len(), hub.rows_of_record()), (1, 0));
    later.now.wall = END;
    let due = later.engine.poll_timeout().map(|(at, _)| at);
    assert_eq!(due, Some(1_000 + END as u64 - 5), "mono is 1,000 when wall is 5");
    assert_eq!((forgotten(&later.told(Event::Timeout)).len(), later.rows_of_record()), (1, 0));
}

#[test]
fn when_its_time_has_passed_each_ends_it_alone() {
    for (node, parent) in [(HUB, ROOT), (SISTER, HUB)] {
        let mut this = Node::with_parent(node, parent);
        if node == HUB {
            let chain = vec![vec![1]];
            this.says(UP, Frame::Announce(Announcement { chain, ..announcement(SISTER, 1) }));
        }
        this.brought(UP, parent, 1, change("qn", AUNT, 2, &opens(1, "qb")));
        let due = |node: &Node| node.engine.poll_timeout().map(|(at, _)| at);
        assert_eq!(due(&this), Some(1_000 + END as u64 - 5), "mono is 1,000 when wall is 5");
        this.now.wall = END - 1;
        assert_eq!((this.told(Event::Timeout).len(), this.rows_of_record()), (0, 1));
        this.restarts();
        this.now.wall = END;
        assert_eq!((forgotten(&this.told(Event::Timeout)).len(), this.rows_of_record()), (0, 1));
        assert_eq!(this.engine.ended_here(&this.store).unwrap(), 1, "people are told that it is");
        this.meets_again(parent, 1);
        assert_eq!(this.engine.awaits_audit(), Some(UP), "it may have been put back from an older copy");
        let said = this.is_audited();
        assert_eq!((forgotten(&said).len(), this.rows_of_record(), due(&this)), (1, 0, None), "{node}");
        assert_eq!((this.engine.awaits_audit(), this.engine.ended_here(&this.store).unwrap()), (None, 0));
    }
    // Whose it is keeps it, and a hub above it sends no more.
    let mut hub = between();
    hub.brought(DOWN, CHILD, 3, change("dv", CHILD, 3, &opens(1, "qb")));
    hub.now.wall = END;
    assert_eq!(forgotten(&hub.told(Event::Timeout)), []);
    assert_eq!(sent(&hub.brought(DOWN, CHILD, 4, change("dv", CHILD, 4, &[])), SIDE), NONE);
    assert_eq!(hub.rows_of_record(), 4);
}

#[test]
fn nothing_is_forgotten_before_the_root_has_what_was_written_here() {
    let mut hub = granted_below();
    hub.writes(7);
    let end = hub.brought(UP, ROOT, 3, change("qn", AUNT, 3, &ends(1, "qb")));
    assert!(forgotten(&end).is_empty());
    let tip = hub.store.tip().unwrap();
    assert_eq!((forgotten(&hub.hears_of(SIDE, tip)).len(), hub.rows_of_record()), (0, 3));
    let at = Position { segment: hub.engine.incarnation(), pos: 3 };
    let said = hub.says(UP, Frame::Ack(Lane::Normal, at));
    assert_eq!((forgotten(&said).len(), hub.rows_of_record()), (1, 0));
    // The next has a receipt of its own.
    hub.told(Event::ForgottenTold(forgotten(&said)[0].forgotten.clone()));
    assert_eq!(hub.engine.purge(), None);
}

/// What comes before the word that opens it is kept for a while and until an audit, and then forgotten, also when it is a word that
/// ends a grant of others, or when something else is forgotten meanwhile.
#[test]
fn what_is_not_for_this_node_waits_for_the_word_that_it_is() {
    for first in [vec![], ends(9, "qn")] {
        let mut leaf = Node::with_parent(SISTER, HUB);
        leaf.is_audited();
        leaf.now.mono += 1;
        leaf.brought(UP, HUB, 1, change("dv", CHILD, 1, &first));
        let chunk = |n| opaque_chunk(run(CHILD, 1), n, &[], Stamp(1), b"x");
        for (n, steps) in [(7, opens(2, "qb")), (8, ends(2, "qb"))] {
            let entry = Entry::new("Basic/2".parse().unwrap(), org("dv"), Lane::Normal, chunk(n)).unwrap();
            let entry = entry.with_grants(&steps).signed(|_| vec![CHILD; 16]);
            let said = leaf.brought(UP, HUB, n - 5, entry);
            assert_eq!(forgotten(&said).len(), usize::from(n == 8), "what was open to it goes at once");
            forgotten(&said).iter().for_each(|told| {
                leaf.told(Event::ForgottenTold(told.forgotten.clone()));
            });
        }
        let mut other = leaf.clone();
        leaf.brought(UP, HUB, 4, change("dv", CHILD, 2, &opens(1, "qb")));
        for node in [&mut leaf, &mut other] {
            node.now.mono += LEAVING_AFTER_MILLIS - 1;
            node.told(Event::Timeout);
            assert!(node.rows_of_record() > 0);
            node.now.mono += 1;
            node.told(Event::Timeout);
            assert!(node.rows_of_record() > 0, "what it has lost may make the record its own");
            node.is_audited();
            node.told(Event::Timeout);
            assert_eq!(node.store.leaving().unwrap(), []);
        }
        assert_eq!((leaf.rows_of_record(), other.rows_of_record()), (2, 0));
    }
}

/// Only who may speak for the record's home opens it, and its signature says so.
#[test]
fn a_grant_is_taken_with_the_signature_of_whoever_may_give_it() {
    let by = |signer: u8, entry: Entry| entry.signed(|_| vec![signer; 16]);
    let plain = |home: &str, author: u8| {
        let chunk = opaque_chunk(run(author, 1), 3, &[], Stamp(3), b"x");
        let entry = Entry::new("Basic/1".parse().unwrap(), org(home), Lane::Normal, chunk).unwrap();
        entry.with_grants(&opens(1, "qb"))
    };
    for (entry, taken) in [
        (by(CHILD, plain("dv", CHILD)), true),
        (by(HUB, plain("dv", HUB)), true),
        (by(ROOT, plain("dv", ROOT)), true),
        (plain("dv", CHILD), false),
        (by(SISTER, plain("dv", CHILD)), false),
        // The other child opens to itself what is not its own.
        (by(SISTER, plain("dv", SISTER)), false),
        (by(AUNT, plain("dv", AUNT)), false),
    ] {
        let mut hub = between();
        for of in [ROOT, AUNT, SISTER] {
            hub.says(DOWN, Frame::Announce(Announcement { chain: vec![vec![1]], ..announcement(of, 1) }));
        }
        let said = hub.brought(DOWN, CHILD, 3, entry.clone());
        let code = refused(&said, DOWN).map(|(code, _)| code);
        assert_eq!(code, (!taken).then_some(refusal::OUTSIDE_SUBTREE), "{entry:?}");
        assert_eq!(sent(&said, SIDE).is_empty(), !taken);
    }
    // One that was changed on the way.
    let signed = by(CHILD, plain("dv", CHILD));
    assert_ne!(signed.statement(), change("dv", CHILD, 3, &opens(2, "qb")).statement());
    assert_ne!(signed.statement(), change("dv", CHILD, 3, &ends(1, "qb")).statement());
}

/// What is open here is not given back from here: a forged change of another's record would come in that way.
#[test]
fn what_is_only_open_here_does_not_go_up() {
    let mut hub = granted_below();
    let mut root = Node::new(ROOT);
    root.meets_and_hears(DOWN, HUB, Direction::Down);
    let said = root.brought(DOWN, HUB, 1, change("qn", AUNT, 2, &opens(1, "qb")));
    assert_eq!(refused(&said, DOWN).map(|(code, _)| code), Some(refusal::OUTSIDE_SUBTREE));
    // A root that was put back and has nothing is offered nothing of it.
    hub.told(Event::Closed(UP));
    hub.meets(UP, ROOT, Direction::Up);
    assert_eq!(sent(&hub.says(UP, hello(ROOT)), UP), NONE);
}

#[test]
fn a_grant_that_was_made_anew_ends_in_its_time() {
    let mut this = between();
    this.brought(DOWN, CHILD, 3, change("dv", CHILD, 3, &[]));
    let due = |node: &Node| node.engine.poll_timeout().map(|(at, _)| at);
    assert_eq!(due(&this), None);
    let granted = Granted { grant: grant(1, "qb"), over: None };
    this.store.commit(&[Op::Grant("Basic/1".parse().unwrap(), granted)]).unwrap();
    this.told(Event::Mended);
    assert_eq!(due(&this), Some(1_000 + END as u64 - 5));
}
