//! What is secret stays where it was written.

use super::{
    audit::{Pair, done},
    *,
};
use crate::{
    audit::{Harm, Summary},
    id::Secrecy,
    wire::Want,
};

/// An entry of the child's place, of this record.
fn entry_of(record: &str, origin: Incarnation, n: u64, degree: Secrecy) -> Entry {
    let chunk = opaque_chunk(origin, n, &[], Stamp(1), b"x");
    let home = OrgId::new("dv").unwrap();
    let entry = Entry::new(format!("Basic/{record}").parse().unwrap(), home, Lane::Normal, chunk);
    entry.unwrap().with_secrecy(degree)
}

impl Node {
    fn keeps(&mut self, record: &str, n: u64, degree: Secrecy) -> Vec<Effect> {
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
    assert_eq!(hub.store.secret_rows().unwrap(), [2]);
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
    assert_eq!(hub.store.summary(&[secret.home().clone()]), Summary::default());
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
            Frame::Hello(Hello { run, software, tip: None, cursors: Vec::new(), revocations: 0 }),
        );
        assert_eq!(sent(&child.says(AGAIN, Frame::Lost)), given, "{first} {lane:?} {marked:?}");
    }
}
