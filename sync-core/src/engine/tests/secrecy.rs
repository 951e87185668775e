//! What is secret stays where it was written, or goes where both ends allow it.

use super::{
    audit::{Pair, done},
    *,
};
use crate::{
    audit::{Harm, Summary},
    engine::{Heard, Since},
    feed::Cursor,
    id::Secrecy,
    scope::{Profiles, Way},
    wire::Want,
};

const NONE: [u64; 0] = [];

/// An entry of the child's place, of this record.
fn entry_of(record: &str, origin: Incarnation, n: u64, degree: Secrecy) -> Entry {
    let chunk = opaque_chunk(origin, n, &[], Stamp(1), b"x");
    let home = OrgId::new("dv").unwrap();
    let entry = Entry::new(format!("Basic/{record}").parse().unwrap(), home, Lane::Normal, chunk);
    entry.unwrap().with_secrecy(degree)
}

impl Node {
    pub(super) fn keeps(&mut self, record: &str, n: u64, degree: Secrecy) -> Vec<Effect> {
        let entries = vec![entry_of(record, self.engine.incarnation(), n, degree)];
        self.told(Event::Write { ticket: Ticket(n), entries, projection: Vec::new() })
    }

    fn degree_at(&self, row: Seq) -> Secrecy {
        self.store.entry(row).unwrap().unwrap().secrecy()
    }
}

/// The entries of the batches among these.
fn sent(effects: &[Effect]) -> usize {
    let batch = |effect: &Effect| match effect {
        Effect::Send(_, Frame::Batch(batch)) => batch.entries.len(),
        _ => 0,
    };
    effects.iter().map(batch).sum()
}

/// A hub with its parent and the child, to which the records belong.
fn between() -> Node {
    let mut hub = Node::with_parent(HUB, ROOT);
    hub.meets(DOWN, CHILD, Direction::Down);
    hub.says(DOWN, hello(CHILD));
    hub.says(DOWN, Frame::Announce(announcement(CHILD, 1)));
    assert_eq!(sent(&hub.keeps("open", 1, Secrecy::None)), 2, "what is not goes both ways");
    let at = Position { segment: hub.engine.incarnation(), pos: 1 };
    hub.says(UP, Frame::Ack(Lane::Normal, at));
    assert!(hub.engine.all_at_root());
    hub
}

#[test]
fn what_is_secret_leaves_in_no_direction() {
    for degree in [Secrecy::Mat, Secrecy::ToiMat, Secrecy::TuyetMat] {
        let mut hub = between();
        let effects = hub.keeps("1", 2, degree);
        assert!(effects.iter().any(|effect| matches!(effect, Effect::Written(Ticket(2)))));
        assert_eq!((sent(&effects), hub.degree_at(2)), (0, degree));
        // Nor does what says nothing of it and belongs to the same record.
        assert_eq!((sent(&hub.keeps("1", 3, Secrecy::None)), hub.degree_at(3)), (0, degree));
        assert!(hub.engine.all_at_parent() && hub.engine.all_at_root(), "nobody waits for it");
        assert_eq!(sent(&hub.keeps("2", 4, Secrecy::None)), 2, "what follows goes on");
    }
}

#[test]
fn a_record_never_becomes_less_secret() {
    let mut hub = between();
    hub.keeps("1", 2, Secrecy::ToiMat);
    hub.keeps("1", 3, Secrecy::Mat);
    assert_eq!(hub.degree_at(3), Secrecy::ToiMat);
    // Also when both are on their way to the disk.
    let run = hub.engine.incarnation();
    hub.handles(Event::Folded(Vec::new()));
    for (n, degree) in [(4, Secrecy::TuyetMat), (5, Secrecy::None)] {
        let entries = vec![entry_of("2", run, n, degree)];
        hub.handles(Event::Write { ticket: Ticket(n), entries, projection: Vec::new() });
    }
    let Some(Effect::Commit(batch)) = hub.engine.poll_effect() else { panic!("a commit") };
    hub.store.commit(&batch).unwrap();
    assert_eq!(sent(&hub.told(Event::Committed)), 0);
    assert_eq!((hub.degree_at(4), hub.degree_at(5)), (Secrecy::TuyetMat, Secrecy::TuyetMat));
}

#[test]
fn what_had_not_left_when_a_record_was_marked_stays_too() {
    let mut child = Node::new(CHILD);
    child.keeps("1", 1, Secrecy::None);
    child.keeps("1", 2, Secrecy::Mat);
    let pair = Pair::new(Node::new(HUB), child);
    assert_eq!(pair.nodes[0].store.tip().unwrap(), 0);
    assert!(pair.nodes[1].engine.all_at_parent(), "there is nothing to wait for");
}

#[test]
fn what_came_from_below_goes_on_whoever_marks_it_here() {
    let mut hub = Node::with_child();
    let EntryBatch { segment, .. } = batch(0, Some(1), &[]);
    let entries = vec![(1, entry_of("1", segment, 1, Secrecy::None))];
    hub.says(DOWN, Frame::Batch(EntryBatch { entries, ..batch(0, Some(1), &[]) }));
    hub.keeps("1", 2, Secrecy::Mat);
    assert_eq!(hub.store.secret_rows().unwrap(), [(2, Secrecy::Mat)]);
    hub.meets(UP, ROOT, Direction::Up);
    let effects = hub.says(UP, hello(ROOT));
    assert_eq!(sent(&effects), 1);
}

#[test]
fn what_is_secret_is_taken_from_nobody() {
    for (mut this, link, peer) in
        [(Node::with_child(), DOWN, CHILD), (Node::with_parent(CHILD, HUB), UP, HUB)]
    {
        this.says(link, Frame::Announce(announcement(peer, 1)));
        let (segment, place) = (run(peer, 1), info(peer).place.to_string());
        let entries =
            vec![(1, entry_of("1", segment, 1, Secrecy::None)), (2, entry_of("2", segment, 2, Secrecy::Mat))];
        let batch = EntryBatch { segment, origin: segment, entries, ..batch(0, Some(2), &[]) };
        let said = this.says(link, Frame::Batch(batch));
        let (code, text) = refused(&said, link).expect("it is refused");
        assert_eq!(code, refusal::SECRET);
        assert!(text.contains("Basic/2") && text.starts_with(&place), "{text}");
        let secret = entry_of("2", segment, 2, Secrecy::None);
        assert!(!this.store.has(secret.record(), &secret.change_hash()).unwrap());
    }
}

#[test]
fn an_audit_neither_counts_nor_gives_what_is_secret() {
    for side in [0, 1] {
        let mut child = Node::new(CHILD);
        (1..=4).for_each(|n| drop(child.keeps(&n.to_string(), n, Secrecy::None)));
        child.keeps("5", 5, Secrecy::Mat);
        let mut pair = Pair::new(Node::new(HUB), child);
        assert_eq!(pair.audits(side), done(4, 0, 0, 0));
        assert_eq!(pair.frames.len(), 2, "they are equal");
        // Nor is it named when it cannot be read.
        pair.nodes[1].store.rot(5, Harm::Damaged);
        assert_eq!(pair.audits(1), done(4, 0, 0, 0));
        assert_eq!(pair.frames.len(), 2);
    }
    // Whoever asks for it by its hash or its name gets nothing.
    let mut hub = Node::with_child();
    hub.keeps("1", 1, Secrecy::Mat);
    let secret = hub.store.entry(1).unwrap().unwrap();
    // The place of a row that it is not sent is told to it, because the run is new.
    hub.says(DOWN, Frame::Ack(Lane::Normal, Position { segment: hub.engine.incarnation(), pos: 1 }));
    assert_eq!(frames(&hub.says(DOWN, Frame::Audit), DOWN), [Frame::Total(Some(Digest::default()))]);
    hub.told(Event::Surveyed(DOWN, Summary::new([(secret.hash(), 1)])));
    let want = Want {
        named: vec![(secret.record().clone(), secret.change_hash())],
        hashes: vec![u64::from_be_bytes(secret.hash().0[..8].try_into().unwrap())],
    };
    assert_eq!(frames(&hub.says(DOWN, Frame::Want(want)), DOWN), [Frame::Repair(Vec::new())]);
    assert_eq!(hub.store.summary(&[secret.home().clone()], Secrecy::None), Summary::default());
}

/// An entry of another place, whose record belongs to the child as well: its parent takes it back because of the child's
/// own, if that one comes before it.
#[test]
fn what_came_from_above_is_given_back_after_what_makes_it_ours_alone() {
    const AGAIN: LinkId = LinkId(9);
    let (normal, bulk) = (Lane::Normal, Lane::Bulk);
    for (first, lane, marked, given) in [
        (true, normal, Secrecy::None, 3),
        (true, normal, Secrecy::Mat, 0),
        (true, bulk, Secrecy::None, 2),
        (false, normal, Secrecy::None, 1),
    ] {
        let mut child = Node::with_parent(CHILD, HUB);
        if first {
            child.keeps("1", 1, Secrecy::None);
        }
        let (segment, author) = (run(HUB, 1), run(AUNT, 1));
        child.says(UP, Frame::Announce(announcement(HUB, 1)));
        child.says(UP, Frame::Announce(Announcement { chain: vec![vec![1]], ..announcement(AUNT, 1) }));
        let chunk = opaque_chunk(author, 1, &[], Stamp(1), b"x");
        let home = info(AUNT).place.org().clone();
        let foreign = Entry::new("Basic/1".parse().unwrap(), home, lane, chunk).unwrap();
        let entries = vec![(1, foreign)];
        let of_hub = EntryBatch { lane, segment, origin: author, entries, ..batch(0, Some(1), &[]) };
        child.says(UP, Frame::Batch(of_hub));
        child.keeps("1", 2, marked);
        child.told(Event::Closed(UP));
        // The hub comes back with an empty disk.
        child.meets(AGAIN, HUB, Direction::Up);
        let (run, software) = (run(HUB, 2), String::new());
        child.says(
            AGAIN,
            Frame::Hello(Hello {
                run,
                software,
                tip: None,
                cursors: Vec::new(),
                revocations: 0,
                allows: Secrecy::None,
            }),
        );
        assert_eq!(sent(&child.says(AGAIN, Frame::Lost)), given, "{first} {lane:?} {marked:?}");
    }
}

fn allows(all: &[(&str, Way, Secrecy)]) -> Event {
    let mut profiles = Profiles::default();
    for (org, way, upto) in all {
        profiles.allow(OrgId::new(org).unwrap(), *way, *upto);
    }
    Event::Profiles(profiles)
}

/// HELLO of a neighbour that allows so much.
fn hello_of(node: u8, allows: Secrecy) -> Frame {
    let Frame::Hello(hello) = hello(node) else { unreachable!() };
    Frame::Hello(Hello { allows, ..hello })
}

/// The changes in the batches among these, by their numbers, in the order in which they are sent.
fn numbers(effects: &[Effect], link: LinkId) -> Vec<u64> {
    let batches = frames(effects, link).into_iter().filter_map(|frame| match frame {
        Frame::Batch(batch) => Some(batch.entries),
        _ => None,
    });
    batches.flatten().map(|(_, entry)| entry.place().1).collect()
}

/// A hub that allows so much to its parent, which allows so much as well.
fn that_allow(own: Secrecy, theirs: Secrecy) -> Node {
    let mut hub = Node::new(HUB);
    hub.told(allows(&[("tw", Way::Link, own)]));
    hub.meets(UP, ROOT, Direction::Up);
    let said = hub.says(UP, hello_of(ROOT, theirs));
    assert!(!said.iter().any(|effect| matches!(effect, Effect::Close(_))));
    hub
}

#[test]
fn what_is_secret_goes_where_both_ends_allow_it() {
    for (own, theirs) in Secrecy::ALL.into_iter().flat_map(|own| Secrecy::ALL.map(|theirs| (own, theirs))) {
        for degree in Secrecy::ALL {
            let mut hub = that_allow(own, theirs);
            let goes = degree <= own.min(theirs);
            assert_eq!(sent(&hub.keeps("1", 1, degree)), usize::from(goes), "{own:?} {theirs:?} {degree:?}");
            assert_eq!((hub.engine.all_at_parent(), hub.engine.allowed_up()), (!goes, own.min(theirs)));
        }
    }
    // What is told in HELLO is the profile of the link.
    let mut hub = Node::new(HUB);
    hub.told(allows(&[("tw", Way::Courier, Secrecy::TuyetMat), ("tw", Way::Link, Secrecy::Mat)]));
    let said = frames(&hub.meets(UP, ROOT, Direction::Up), UP);
    assert!(matches!(&said[..], [Frame::Hello(hello)] if hello.allows == Secrecy::Mat), "{said:?}");
}

#[test]
fn what_is_more_secret_than_a_profile_allows_is_taken_from_nobody() {
    for (upto, degree) in [(Secrecy::Mat, Secrecy::ToiMat), (Secrecy::Mat, Secrecy::Mat)] {
        let mut hub = Node::new(HUB);
        hub.told(allows(&[("dv", Way::Link, upto)]));
        hub.meets(DOWN, CHILD, Direction::Down);
        hub.says(DOWN, hello_of(CHILD, Secrecy::TuyetMat));
        hub.says(DOWN, Frame::Announce(announcement(CHILD, 1)));
        let EntryBatch { segment, .. } = batch(0, Some(1), &[]);
        let entries = vec![(1, entry_of("1", segment, 1, degree))];
        let said = hub.says(DOWN, Frame::Batch(EntryBatch { entries, ..batch(0, Some(1), &[]) }));
        let refusal = refused(&said, DOWN).map(|(code, _)| code);
        assert_eq!(refusal, (degree > upto).then_some(refusal::SECRET));
        assert_eq!(hub.store.secret_rows().unwrap(), if degree > upto { vec![] } else { vec![(1, degree)] });
    }
}

/// Whoever passes it on would not know that it is secret if it came before the mark.
#[test]
fn what_was_written_before_the_mark_comes_after_it() {
    // Nothing has left when the record is marked, and then marked higher.
    let mut hub = Node::new(HUB);
    hub.told(allows(&[("tw", Way::Link, Secrecy::ToiMat)]));
    for (n, degree) in [(1, Secrecy::None), (2, Secrecy::Mat), (3, Secrecy::None), (4, Secrecy::ToiMat)] {
        hub.keeps("1", n, degree);
    }
    hub.meets(UP, ROOT, Direction::Up);
    let said = hub.says(UP, hello_of(ROOT, Secrecy::ToiMat));
    let mut order = numbers(&said, UP);
    assert_eq!(order[0], 4, "the highest mark is the first");
    order.sort_unstable();
    order.dedup();
    assert_eq!(order, [1, 2, 3, 4]);
    // Whoever takes it holds it for as secret as the mark, from which it goes on by its own profile.
    let mut root = Node::new(HUB);
    root.told(allows(&[("dv", Way::Link, Secrecy::Mat)]));
    root.meets(DOWN, CHILD, Direction::Down);
    root.says(DOWN, hello_of(CHILD, Secrecy::Mat));
    root.says(DOWN, Frame::Announce(announcement(CHILD, 1)));
    let EntryBatch { segment, .. } = batch(0, Some(1), &[]);
    let entries =
        [(1, Secrecy::Mat), (2, Secrecy::None)].map(|(n, degree)| (n, entry_of("1", segment, n, degree)));
    root.says(DOWN, Frame::Batch(EntryBatch { entries: entries.to_vec(), ..batch(0, Some(2), &[]) }));
    assert_eq!(root.store.secret_rows().unwrap(), [(1, Secrecy::Mat), (2, Secrecy::Mat)]);
    root.meets(UP, ROOT, Direction::Up);
    assert_eq!(sent(&root.says(UP, hello(ROOT))), 0);
}

#[test]
fn what_comes_to_be_allowed_is_offered_once() {
    let mut hub = that_allow(Secrecy::None, Secrecy::TuyetMat);
    hub.keeps("1", 1, Secrecy::None);
    hub.keeps("1", 2, Secrecy::Mat);
    hub.keeps("2", 3, Secrecy::TuyetMat);
    // Number 1 has gone before the mark.
    let at = Position { segment: hub.engine.incarnation(), pos: 3 };
    hub.says(UP, Frame::Ack(Lane::Normal, at));
    let again = |hub: &mut Node, link, upto| {
        let closed = hub.told(allows(&[("tw", Way::Link, upto)]));
        assert!(closed.iter().any(|effect| matches!(effect, Effect::Close(_))), "it is met anew");
        hub.meets(link, ROOT, Direction::Up);
        let segment = hub.engine.incarnation();
        let Frame::Hello(hello) = hello_of(ROOT, Secrecy::TuyetMat) else { unreachable!() };
        let tip = hub.store.tip().unwrap();
        let cursor = Cursor { at: Position { segment, pos: tip }, chain: hub.store.chain(tip).unwrap() };
        numbers(&hub.says(link, Frame::Hello(Hello { cursors: vec![(Lane::Normal, cursor)], ..hello })), link)
    };
    assert_eq!(again(&mut hub, LinkId(21), Secrecy::Mat), [2, 1]);
    assert_eq!(again(&mut hub, LinkId(22), Secrecy::None), NONE);
    assert_eq!(again(&mut hub, LinkId(23), Secrecy::TuyetMat), [2, 1, 3]);
    // Another process remembers it.
    hub.restarts();
    hub.told(allows(&[("tw", Way::Link, Secrecy::TuyetMat)]));
    hub.meets(LinkId(24), ROOT, Direction::Up);
    let tip = hub.store.tip().unwrap();
    hub.says(LinkId(24), hello_of(ROOT, Secrecy::TuyetMat));
    assert_eq!(hub.store.tip().unwrap(), tip);
}

#[test]
fn a_courier_carries_what_is_allowed_to_couriers() {
    for (upto, kept_back) in [(Secrecy::None, 2), (Secrecy::Mat, 1), (Secrecy::ToiMat, 0)] {
        let mut hub = Node::new(HUB);
        hub.told(allows(&[("tw", Way::Courier, upto), ("tw", Way::Link, Secrecy::TuyetMat)]));
        hub.keeps("1", 1, Secrecy::None);
        hub.keeps("2", 2, Secrecy::Mat);
        hub.keeps("3", 3, Secrecy::ToiMat);
        let mut export = hub
            .engine
            .export(info(ROOT), Since::Start, &Heard::default(), &hub.store, hub.now)
            .unwrap()
            .unwrap();
        let mut entries = 0;
        while let Some(frames) = hub.engine.export_next(&mut export, &hub.store).unwrap() {
            for frame in frames {
                entries += if let Frame::Batch(batch) = frame { batch.entries.len() as u64 } else { 0 };
            }
        }
        assert_eq!(entries, 3 - kept_back);
        assert_eq!(hub.engine.export_keeps_back(&export, &hub.store).unwrap(), kept_back);
    }
}
