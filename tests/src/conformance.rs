//! What every store has to do, as a test that takes the store.
//!
//! [`scripted`] states the contract of `sync_core::store` by example. [`random`] plays seeded random batches of
//! the kind that the engine makes to a store and to [`MemStore`], closes and opens the store in between, and
//! compares every read after every batch. Nothing here knows what an entry means: bodies are opaque.

use std::{collections::BTreeSet, sync::Arc};

use sync_core::{
    attachment::Name,
    audit::{Checkup, Harm, Summary},
    change::{Entry, opaque_chunk},
    feed::{CHAIN_START, Cursor, Digest, Position, Progress, Segment, Seq, extend_chain},
    id::{Chain, ChangeHash, Incarnation, Lane, NodeId, OrgId, OrgPath, RecordId, Secrecy},
    identity::{Announcement, NodeInfo, Reason, Revocation, Role},
    order::{Order, Step},
    scope::{
        Profiles, Way,
        grant::{FOREVER, Grant, GrantId, Granted},
    },
    store::{Batch, Frontier, Gain, Mark, MemStore, Offered, Op, Projected, StoreMut},
    time::Stamp,
};

use crate::sim::rng::Rng;

mod attachments;

pub use self::attachments::{attachments, content};

/// How many of the newest rows are read one by one after each batch; the older ones at the end.
const NEWEST: u64 = 12;

/// Whether a check has found nothing but that a script says of records what their opaque entries do not, and counts its batches
/// by how far all is folded.
#[cfg(feature = "processes")]
pub fn is_sound(checked: &node::store::Checked) -> bool {
    let is_of_script = |found: &node::store::Finding| {
        found.row.is_none() && (found.record.is_some() || found.what == "it is not so far as folded says")
    };
    checked.findings.iter().all(|found| found.mended && is_of_script(found))
}

/// An organization.
pub fn org(name: &str) -> OrgId {
    OrgId::new(name).expect("a valid name")
}

/// A record.
pub fn record(name: &str) -> RecordId {
    name.parse().expect("a valid name")
}

/// An entry with an opaque body.
pub fn entry(
    record: &RecordId,
    home: &OrgId,
    lane: Lane,
    origin: Incarnation,
    n: u64,
    deps: &[ChangeHash],
    body: &[u8],
) -> Entry {
    let chunk: Arc<[u8]> = opaque_chunk(origin, n, deps, Stamp(n as i64), body);
    Entry::new(record.clone(), home.clone(), lane, chunk).expect("a readable header")
}

/// An announcement of a node, and what its certificate would say.
pub fn announcement(
    node: NodeId,
    place: &str,
    incarnation: Incarnation,
    parent: Option<(Incarnation, u64)>,
) -> (Announcement, NodeInfo) {
    let chain = vec![[&node.0, place.as_bytes()].concat(), vec![7; 300]];
    let info = NodeInfo { node, place: place.parse().expect("a valid path"), role: Role::Leaf };
    (Announcement { incarnation, parent, node, signature: vec![incarnation.0[0]; 64], chain }, info)
}

/// Grants by example: who may hold what from which row on, what is due, and what is left when a record is forgotten.
pub fn grants<S: StoreMut>(mut store: S, reopen: impl Fn(S) -> S) {
    let one = Incarnation([1; 16]);
    let (dv, mv, bm) = (org("dong-van"), org("meo-vac"), org("bac-me"));
    let (patient, flag) = (record("Patient/1"), record("Flag/2"));
    let of = |n: u8, to: &OrgId, until| Grant { id: GrantId([n; 16]), to: to.clone(), until };
    let open = |grant: &Grant| Granted { grant: grant.clone(), over: None };
    let (short, ever) = (of(2, &mv, 500), of(1, &bm, FOREVER));
    let entry_of = |record: &RecordId, n| Op::Append {
        entry: entry(record, &dv, Lane::Normal, one, n, &[], b"x"),
        src: None,
        at: 100,
    };
    store
        .commit(&[
            Op::OpenSegment(Segment { incarnation: one, base: 0, parent: None }),
            Op::AddHome(patient.clone(), dv.clone()),
            Op::AddHome(flag.clone(), dv.clone()),
            entry_of(&patient, 1),
            entry_of(&flag, 2),
            Op::Grant(patient.clone(), open(&short)),
            Op::Grant(patient.clone(), open(&ever)),
            Op::Grant(flag.clone(), open(&of(3, &mv, 400))),
            entry_of(&patient, 3),
            Op::Offer { of: 1, to: Offered::Home(mv.clone()) },
        ])
        .unwrap();
    store = reopen(store);
    assert_eq!(store.grants(&patient).unwrap(), [open(&ever), open(&short)]);
    assert_eq!(
        (store.homes(&patient).unwrap(), store.held_for(&patient).unwrap().len()),
        (vec![dv.clone()], 3)
    );
    let opened = |store: &S| {
        let heads = store.heads(Lane::Normal, 0, 9).unwrap();
        heads.into_iter().map(|head| (head.seq, head.opened, head.offered_to)).collect::<Vec<_>>()
    };
    let both = vec![bm.clone(), mv.clone()];
    let offered = Some(Offered::Home(mv.clone()));
    let before = [(1, vec![], None), (2, vec![], None), (3, both.clone(), None), (4, both, offered.clone())];
    assert_eq!(opened(&store), before);
    assert_eq!(store.next_grant_end().unwrap(), Some(400));
    assert_eq!(
        (store.open_to(&mv).unwrap(), store.open_to(&dv).unwrap()),
        (vec![flag.clone(), patient.clone()], vec![])
    );
    assert_eq!(store.grantees().unwrap(), [bm.clone(), mv.clone()]);
    let due = |store: &S, at, most| {
        let due = store.grants_until(at, most).unwrap();
        due.into_iter().map(|(record, one)| (record, one.grant.until)).collect::<Vec<_>>()
    };
    let all = vec![(flag.clone(), 400), (patient.clone(), 500)];
    assert_eq!(
        (due(&store, 399, 9), due(&store, 500, 9), due(&store, 500, 1)),
        (vec![], all.clone(), all[..1].to_vec())
    );

    // One ends, and that is told by the row that offers it, the last one if there are several; once it has ended it stays so.
    let over = Granted { over: Some(5), ..open(&short) };
    let told = Op::Offer { of: 3, to: Offered::Former(mv.clone()) };
    let before = Granted { over: Some(4), ..over.clone() };
    store
        .commit(&[
            Op::Grant(patient.clone(), before),
            told,
            Op::Grant(patient.clone(), over.clone()),
            Op::Leaving(patient.clone(), Some(5)),
        ])
        .unwrap();
    store.commit(&[Op::Grant(patient.clone(), open(&short)), Op::Leaving(flag.clone(), Some(4))]).unwrap();
    store.commit(&[Op::Leaving(flag.clone(), None)]).unwrap();
    store = reopen(store);
    assert_eq!(store.grants(&patient).unwrap(), [open(&ever), over]);
    let after = opened(&store);
    assert_eq!(after[2..4], [(3, vec![bm.clone()], None), (4, vec![bm.clone()], offered)]);
    assert_eq!(after[4], (5, vec![bm.clone()], Some(Offered::Former(mv.clone()))));
    assert_eq!(store.leaving().unwrap(), [(patient.clone(), 5)]);
    assert_eq!(due(&store, FOREVER - 1, 9), all[..1]);

    store.commit(&[Op::Forget(patient.clone())]).unwrap();
    store = reopen(store);
    assert_eq!(store.grantees().unwrap(), std::slice::from_ref(&mv));
    assert_eq!((store.grants(&patient).unwrap(), store.leaving().unwrap()), (vec![], vec![]));
    assert_eq!((store.open_to(&bm).unwrap(), store.open_to(&mv).unwrap()), (vec![], vec![flag]));
}

/// The contract by example.
pub fn scripted<S: StoreMut>(fresh: impl Fn() -> S, reopen: impl Fn(S) -> S) {
    let mut store = fresh();
    assert_eq!(store.tip().unwrap(), 0);
    assert_eq!(store.chain(0).unwrap(), Some(CHAIN_START));
    assert_eq!(store.chain(1).unwrap(), None);
    assert_eq!(store.entry(1).unwrap(), None);
    let nowhere = Position { segment: Incarnation([1; 16]), pos: u64::MAX };
    assert_eq!(store.read_before(Lane::Normal, nowhere).unwrap(), None);

    let (one, two, theirs) = (Incarnation([1; 16]), Incarnation([2; 16]), Incarnation([9; 16]));
    let (dv, mv) = (org("dong-van"), org("meo-vac"));
    let (patient, flag) = (record("Patient/1"), record("Flag/2"));
    let a = entry(&patient, &dv, Lane::Normal, one, 1, &[], b"a");
    let b = entry(&flag, &dv, Lane::Urgent, theirs, 1, &[], b"b");
    let c = entry(&patient, &mv, Lane::Normal, theirs, 2, &[a.change_hash()], b"c");
    let segment = Segment { incarnation: one, base: 0, parent: None };
    let src = |pos| Position { segment: theirs, pos };
    store
        .commit(&[
            Op::OpenSegment(segment),
            // The home may come after the entry.
            Op::Append { entry: a.clone(), src: None, at: 100 },
            Op::AddHome(patient.clone(), dv.clone()),
            Op::AddHome(flag.clone(), dv.clone()),
            Op::Append { entry: b.clone(), src: Some(src(4)), at: 101 },
            Op::Append { entry: c.clone(), src: Some(src(6)), at: 102 },
            Op::AddHome(patient.clone(), mv.clone()),
            Op::AddHome(patient.clone(), dv.clone()),
            Op::Offer { of: 1, to: Offered::Home(mv.clone()) },
        ])
        .unwrap();
    store.commit(&[]).unwrap();
    store = reopen(store);

    assert_eq!(store.tip().unwrap(), 4);
    assert_eq!(store.homes(&patient).unwrap(), [dv.clone(), mv.clone()]);
    assert_eq!(store.entry(4).unwrap().as_ref(), Some(&a), "an offer gives the older entry");
    assert_eq!(store.rows_of(&patient).unwrap(), [1, 3], "an offer is no row of the record");
    assert!(store.has(&patient, &c.change_hash()).unwrap() && !store.has(&flag, &c.change_hash()).unwrap());
    let chain = [&a, &b, &c, &a].iter().fold(CHAIN_START, |chain, e| extend_chain(chain, e.hash()));
    assert_eq!(store.chain(4).unwrap(), Some(chain));
    let heads = store.heads(Lane::Normal, 0, 10).unwrap();
    assert_eq!(
        heads.iter().map(|h| (h.seq, h.src)).collect::<Vec<_>>(),
        [(1, None), (3, Some(src(6))), (4, None)]
    );
    assert_eq!(heads[2].offered_to, Some(Offered::Home(mv.clone())));
    assert!(heads[..2].iter().all(|h| h.offered_to.is_none()));
    assert!(heads[..2].iter().all(|h| h.homes == [dv.clone()]), "homes are of then, not of now");
    assert_eq!(heads[2].homes, [dv.clone(), mv.clone()]);
    assert!(heads.iter().all(|h| !h.issued && h.secrecy == Secrecy::None));
    assert_eq!(store.heads(Lane::Normal, 1, 1).unwrap()[0].seq, 3);
    let mut of_dv = Digest::default();
    of_dv.add(a.hash());
    of_dv.add(b.hash());
    assert_eq!(store.digests().unwrap()[0], (dv.clone(), of_dv));
    assert_eq!(store.unfolded(1, 9).unwrap(), [(2, flag.clone()), (3, patient.clone())]);

    // A second run: the running hash begins anew.
    let d = entry(&flag, &dv, Lane::Urgent, two, 1, &[b.change_hash()], b"d");
    let second = Segment { incarnation: two, base: 4, parent: Some(Position { segment: one, pos: 4 }) };
    store
        .commit(&[Op::OpenSegment(second), Op::Append { entry: d.clone(), src: Some(src(6)), at: 103 }])
        .unwrap();
    assert_eq!(store.chain(5).unwrap(), Some(extend_chain(CHAIN_START, d.hash())));
    let renamed = Segment { incarnation: Incarnation([3; 16]), ..second };
    store.commit(&[Op::RenameSegments(vec![(two, renamed)])]).unwrap();
    store = reopen(store);
    assert_eq!(store.segments().unwrap(), [segment, renamed]);

    // Secret is a record as a whole where it is marked, and does not become less so. What came from elsewhere is as secret as what
    // came of it before, whatever is written here.
    assert_eq!((store.secrecy(&patient).unwrap(), store.secret_rows().unwrap()), (Secrecy::None, vec![]));
    let (none, mat, toi_mat) = (Secrecy::None, Secrecy::Mat, Secrecy::ToiMat);
    for (n, came, degree, known) in [
        (3, None, toi_mat, toi_mat),
        (4, None, mat, toi_mat),
        (5, Some(7), mat, toi_mat),
        (6, Some(8), none, toi_mat),
    ] {
        let marked = entry(&patient, &dv, Lane::Normal, one, n, &[], b"m").with_secrecy(degree);
        store.commit(&[Op::Append { entry: marked, src: came.map(src), at: 104 }]).unwrap();
        store = reopen(store);
        assert_eq!(store.secrecy(&patient).unwrap(), known);
    }
    let secret = [(1, toi_mat), (6, toi_mat), (7, toi_mat), (8, mat), (9, mat)];
    assert_eq!(store.secret_rows().unwrap(), secret);
    let degrees = store.heads(Lane::Normal, 0, 10).unwrap().into_iter().map(|h| (h.seq, h.secrecy));
    let mut all = vec![(3, none), (4, toi_mat)];
    all.extend(secret);
    all.sort_unstable();
    assert_eq!(degrees.collect::<Vec<_>>(), all);
    assert_eq!(store.secrecy(&flag).unwrap(), Secrecy::None);
    assert_eq!(store.allowed().unwrap(), Profiles::default());
    for (way, upto) in [(Way::Link, mat), (Way::Courier, toi_mat), (Way::Link, none)] {
        store.commit(&[Op::Allow(dv.clone(), way, upto)]).unwrap();
        store = reopen(store);
        assert_eq!(store.allowed().unwrap().allowed(&dv, way), upto);
    }
    assert_eq!(store.allowed().unwrap().allowed(&dv, Way::Courier), toi_mat);

    // What has come from the parent can be offered to it once more.
    store.commit(&[Op::Offer { of: 3, to: Offered::Parent }]).unwrap();
    store = reopen(store);
    let head = store.heads(Lane::Normal, 9, 10).unwrap().pop().unwrap();
    assert_eq!((head.seq, head.src, head.offered_to), (10, Some(src(6)), Some(Offered::Parent)));
    assert_eq!(store.entry(10).unwrap().as_ref(), Some(&c));

    // The snapshot stays when a projection brings none; everything else of it is replaced.
    let mut projected = Projected {
        record: patient.clone(),
        resource: Some("{}".into()),
        version: "v1".into(),
        conflicts: Some("[]".into()),
        open_conflicts: 2,
        waiting: vec![3],
        unreadable: vec![(1, "not a change".into())],
        snapshot: Some((1, vec![1, 2])),
    };
    store.commit(&[Op::Project(projected.clone()), Op::Folded(3)]).unwrap();
    assert_eq!(store.projected(&patient).unwrap(), Some(projected.clone()));
    projected = Projected {
        resource: None,
        conflicts: None,
        open_conflicts: 0,
        waiting: vec![],
        unreadable: vec![],
        ..projected
    };
    store.commit(&[Op::Project(Projected { snapshot: None, ..projected.clone() })]).unwrap();
    store = reopen(store);
    assert_eq!(store.projected(&patient).unwrap(), Some(projected));
    assert_eq!((store.folded().unwrap(), store.projected(&flag).unwrap()), (3, None));

    // A node that has moved is known by its latest announcement, whatever its incarnations are called.
    let node = NodeId([5; 16]);
    let (old, _) = announcement(node, "tw/hg/dv", Incarnation([8; 16]), None);
    let (new, info) = announcement(node, "tw/tq/dv", Incarnation([4; 16]), Some((old.incarnation, u64::MAX)));
    let old_info = NodeInfo { place: "tw/hg/dv".parse().unwrap(), ..info.clone() };
    store
        .commit(&[Op::Announce(old.clone(), old_info.clone()), Op::Announce(new.clone(), info.clone())])
        .unwrap();
    store = reopen(store);
    assert_eq!(store.nodes().unwrap(), std::slice::from_ref(&info));
    assert_eq!(store.announcement(old.incarnation).unwrap(), Some((old.clone(), old_info.clone())));
    let of_org = store.announcement_of(old_info.place.org()).unwrap();
    assert_eq!(of_org.map(|found| found.node), Some(node));
    assert_eq!(store.announcement_of(&OrgId::new("v").unwrap()).unwrap(), None);
    assert_eq!(store.announcement_of(&OrgId::new("nobody").unwrap()).unwrap(), None);
    assert_eq!(store.announcement(new.incarnation).unwrap(), Some((new.clone(), info)));

    // Of a node's cursors the one that moved last counts.
    let cursor = |incarnation, pos, chain| Cursor { at: Position { segment: incarnation, pos }, chain };
    let far = cursor(new.incarnation, 9, Some(Chain([1; 16])));
    let back = cursor(old.incarnation, 3, None);
    let read = |lane, cursor, brought| Op::Read { lane, cursor, brought };
    store.commit(&[read(Lane::Normal, far, true), read(Lane::Bulk, far, false)]).unwrap();
    store = reopen(store);
    store
        .commit(&[
            read(Lane::Normal, back, true),
            read(Lane::Normal, far, false),
            read(Lane::Normal, back, false),
        ])
        .unwrap();
    let progress = |cursor, at, brought_at| Some(Progress { cursor, at, brought_at });
    assert_eq!(store.read(Lane::Normal, new.incarnation).unwrap(), progress(far, 4, 1));
    assert_eq!(store.read(Lane::Normal, old.incarnation).unwrap(), progress(back, 5, 3));
    assert_eq!(store.read(Lane::Bulk, new.incarnation).unwrap(), progress(far, 2, 0));
    assert_eq!(store.read(Lane::Urgent, new.incarnation).unwrap(), None);
    assert_eq!(store.read_of_node(node).unwrap(), [(Lane::Normal, back), (Lane::Bulk, far)]);
}

/// Plays `batches` random batches to a store and to [`MemStore`], and compares all reads.
pub fn random<S: StoreMut>(seed: u64, batches: usize, fresh: impl Fn() -> S, reopen: impl Fn(S) -> S) {
    let (mut script, mut model, mut store) = (Script::new(seed), MemStore::default(), fresh());
    for n in 0..batches {
        let batch = script.batch(n == 0);
        model.commit(&batch).unwrap();
        store.commit(&batch).unwrap();
        if script.random.one_in(6) {
            store = reopen(store);
        }
        let newest = model_tip(&model).saturating_sub(NEWEST);
        script.compare(&model, &store, newest, &format!("seed {seed}, batch {n}"));
    }
    script.compare(&model, &store, 0, &format!("seed {seed}, at the end"));
}

/// Rows of a store are lost and spoilt behind its back by `spoil`; `check` gives what its check finds, and the summary of
/// these homes. Both have to be as [`MemStore`] has them, and so has every read, before the rows are healed and after.
pub fn heals<S: StoreMut>(
    seed: u64,
    fresh: impl Fn() -> S,
    spoil: impl Fn(S, &[(Seq, Harm)]) -> S,
    check: impl Fn(&S, &[OrgId], Secrecy) -> (Checkup, Summary),
) {
    let (mut script, mut model, mut store) = (Script::new(seed), MemStore::default(), fresh());
    for n in 0..30 {
        let batch = script.batch(n == 0);
        model.commit(&batch).unwrap();
        store.commit(&batch).unwrap();
    }
    let mut rows = Vec::new();
    for (seq, ..) in &script.held {
        if script.random.one_in(4) {
            rows.push((*seq, *script.random.pick(&[Harm::Gone, Harm::Damaged]).expect("there are two")));
        }
    }
    let entries: Vec<_> = rows.iter().map(|(row, _)| entry_of(&model, *row)).collect();
    rows.iter().for_each(|(row, harm)| model.rot(*row, *harm));
    store = spoil(store, &rows);
    let mut compare = |model: &MemStore, store: &S, when: &str| {
        script.compare(model, store, 0, &format!("seed {seed}, {when}"));
        let homes = &script.orgs[1..];
        for allowed in Secrecy::ALL {
            let (mut checkup, summary) = check(store, homes, allowed);
            checkup.damaged.sort_by_key(|damage| damage.row);
            assert_eq!(checkup, model.check(), "seed {seed}, {when}");
            assert_eq!(summary, model.summary(homes, allowed), "seed {seed}, {when}, {allowed:?}");
        }
    };
    compare(&model, &store, "damaged");
    for (n, ((row, _), entry)) in rows.iter().zip(entries).enumerate() {
        let heal = Op::Heal { row: *row, entry, at: 7 };
        model.commit(std::slice::from_ref(&heal)).unwrap();
        store.commit(&[heal]).unwrap();
        if n % 4 == 0 {
            compare(&model, &store, &format!("{row} is healed"));
        }
    }
    assert_eq!(model.check(), Checkup::default());
    let home = org("ha-giang");
    let recounts =
        [5, u128::MAX - 4].map(|sum| Op::Recount { home: home.clone(), less: Digest { sum, count: 0 } });
    for recount in recounts {
        model.commit(std::slice::from_ref(&recount)).unwrap();
        store.commit(&[recount]).unwrap();
        compare(&model, &store, "recounted");
    }
    compare(&model, &store, "healed");
}

fn entry_of(model: &MemStore, row: Seq) -> Entry {
    sync_core::store::Store::entry(model, row).expect("the model cannot fail").expect("a row holds an entry")
}

fn model_tip(model: &MemStore) -> Seq {
    sync_core::store::Store::tip(model).expect("the model cannot fail")
}

/// Makes batches, and remembers which names to ask for.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    pub(crate) random: Rng,
    tip: Seq,
    segments: Vec<Segment>,
    pub(crate) neighbours: Vec<(Incarnation, u64)>,
    pub(crate) nodes: Vec<NodeId>,
    orgs: Vec<OrgId>,
    pub(crate) records: Vec<(RecordId, Lane)>,
    /// The rows that hold entries.
    held: Vec<(Seq, RecordId, ChangeHash)>,
    marks: Vec<Mark>,
    folded: Seq,
    written: u64,
    /// What entries name.
    named: Vec<Name>,
    of_content: Rng,
}

impl Script {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Rng::new(seed, "store");
        let neighbours = (0..3).map(|_| (Incarnation(random.array()), 0)).collect();
        let nodes = (0..3).map(|_| NodeId(random.array())).collect();
        let orgs = ["trung-uong", "ha-giang", "dong-van", "meo-vac"].map(org).to_vec();
        Self {
            random,
            tip: 0,
            segments: Vec::new(),
            neighbours,
            nodes,
            orgs,
            records: Vec::new(),
            held: Vec::new(),
            marks: Vec::new(),
            folded: 0,
            written: 0,
            named: Vec::new(),
            of_content: Rng::new(seed, "content"),
        }
    }

    /// The next batch; `first` opens a segment, as every start does.
    pub(crate) fn batch(&mut self, first: bool) -> Batch {
        let mut batch = Batch::new();
        if first {
            self.open_segment(&mut batch);
        }
        for _ in 0..1 + self.random.below(4) {
            match self.random.below(12) {
                0 => self.open_segment(&mut batch),
                1 | 2 => self.write(None, &mut batch),
                3..=5 => self.receive(&mut batch),
                6 => self.offer(&mut batch),
                7 => self.announce(&mut batch),
                8 => self.frontiers(&mut batch),
                9 => self.fold(&mut batch),
                10 => self.rename(&mut batch),
                _ => self.state(&mut batch),
            }
        }
        self.contents(&mut batch);
        batch
    }

    fn open_segment(&mut self, batch: &mut Batch) {
        let parent =
            self.segments.last().map(|s| Position { segment: s.incarnation, pos: self.tip - s.base });
        let segment = Segment { incarnation: Incarnation(self.random.array()), base: self.tip, parent };
        self.segments.push(segment);
        batch.push(Op::OpenSegment(segment));
    }

    fn rename(&mut self, batch: &mut Batch) {
        let from = self.random.below(self.segments.len() as u64) as usize;
        let mut renames = Vec::new();
        for i in from..self.segments.len() {
            let old = self.segments[i].incarnation;
            self.segments[i].incarnation = Incarnation(self.random.array());
            if i > from {
                let above = self.segments[i - 1].incarnation;
                self.segments[i].parent = self.segments[i].parent.map(|p| Position { segment: above, ..p });
            }
            renames.push((old, self.segments[i]));
        }
        batch.push(Op::RenameSegments(renames));
    }

    fn write(&mut self, src: Option<Position>, batch: &mut Batch) {
        let home = self.random.pick(&self.orgs).expect("there are organizations").clone();
        let known = self.random.pick(&self.records).cloned();
        let (record, lane) = match known {
            Some(known) if !self.random.one_in(3) => known,
            _ => {
                let kind = ["Patient", "Flag", "Binary", "PatientX"][self.random.below(4) as usize];
                let new = record(&format!("{kind}/{:x}", self.random.next_u64()));
                let lane = Lane::of_resource_type(kind);
                self.records.push((new.clone(), lane));
                (new, lane)
            }
        };
        let deps: Vec<_> =
            self.held.iter().filter(|(_, r, _)| *r == record).map(|(.., hash)| *hash).take(2).collect();
        let origin = src.map_or(self.segments.last().expect("opened").incarnation, |src| src.segment);
        self.written += 1;
        let body: Vec<u8> = (0..self.random.below(200)).map(|_| self.random.next_u64() as u8).collect();
        let degree =
            if self.random.one_in(12) { Secrecy::from_u8(self.random.below(4) as u8) } else { Secrecy::None };
        let entry = entry(&record, &home, lane, origin, self.written, &deps, &body).with_secrecy(degree);
        let entry = self.with_attachment(entry);
        self.tip += 1;
        self.held.push((self.tip, record.clone(), entry.change_hash()));
        let at = 1_000 + self.written as i64;
        let append = Op::Append { entry, src, at };
        match self.random.below(8) {
            // A home that becomes known later, or never.
            0 => batch.push(append),
            1 | 2 => batch.extend([append, Op::AddHome(record, home)]),
            _ => batch.extend([Op::AddHome(record, home), append]),
        }
    }

    fn receive(&mut self, batch: &mut Batch) {
        let n = self.random.below(self.neighbours.len() as u64) as usize;
        let lane = *self.random.pick(&Lane::ALL).expect("there are lanes");
        for _ in 0..self.random.below(5) {
            // Now and then a place comes twice, as after a fork.
            let step = self.random.below(4);
            self.neighbours[n].1 += step;
            let (segment, pos) = self.neighbours[n];
            self.write(Some(Position { segment, pos: pos.max(1) }), batch);
        }
        let (segment, pos) = self.neighbours[n];
        let at = Position { segment, pos: pos + self.random.below(2) };
        let chain = (!self.random.one_in(4)).then(|| Chain(self.random.array()));
        batch.push(Op::Read { lane, cursor: Cursor { at, chain }, brought: self.random.one_in(2) });
        if self.random.one_in(2) {
            let mark = Mark { lane, src: at, seq: self.random.below(self.tip + 1) };
            self.marks.push(mark);
            batch.push(Op::Mark(mark));
        }
    }

    fn offer(&mut self, batch: &mut Batch) {
        let Some((of, record, _)) = self.random.pick(&self.held).cloned() else { return };
        let home = self.random.pick(&self.orgs).expect("there are organizations").clone();
        self.tip += 1;
        batch.extend([Op::AddHome(record, home.clone()), Op::Offer { of, to: Offered::Home(home) }]);
    }

    fn announce(&mut self, batch: &mut Batch) {
        let node = *self.random.pick(&self.nodes).expect("there are nodes");
        let place = ["trung-uong/ha-giang", "trung-uong/ha-giang/dong-van"][self.random.below(2) as usize];
        let known = *self.random.pick(&self.neighbours).expect("there are neighbours");
        let incarnation = if self.random.one_in(2) { known.0 } else { Incarnation(self.random.array()) };
        let parent = self.random.one_in(2).then_some(known);
        let (announcement, info) = announcement(node, place, incarnation, parent);
        self.neighbours.push((incarnation, 0));
        batch.push(Op::Announce(announcement, info));
    }

    fn frontiers(&mut self, batch: &mut Batch) {
        let which = *self.random.pick(&Frontier::ALL).expect("there are frontiers");
        let lane = *self.random.pick(&Lane::ALL).expect("there are lanes");
        batch.push(Op::Reach(which, lane, self.random.below(self.tip + 1)));
        if let Some(mark) = self.random.pick(&self.marks) {
            batch.push(if self.written.is_multiple_of(2) { Op::Unmark(*mark) } else { Op::Mark(*mark) });
        }
    }

    fn fold(&mut self, batch: &mut Batch) {
        let Some((_, record, _)) = self.random.pick(&self.held).cloned() else { return };
        let rows: Vec<Seq> =
            self.held.iter().filter(|(_, r, _)| *r == record).map(|(seq, ..)| *seq).collect();
        let (waiting, rest): (Vec<_>, Vec<_>) = rows.iter().copied().partition(|_| self.random.one_in(3));
        let unreadable =
            rest.iter().filter(|_| self.random.one_in(4)).map(|s| (*s, format!("reason {s}"))).collect();
        let open_conflicts = self.random.below(3) as u32;
        let size = self.random.below(3_000) as usize;
        batch.push(Op::Project(Projected {
            resource: (!self.random.one_in(4)).then(|| format!("{{\"id\":\"{}\"}}", "Đ".repeat(size))),
            version: if self.random.one_in(5) {
                String::new()
            } else {
                format!("{:x}", self.random.next_u64())
            },
            conflicts: (open_conflicts > 0).then(|| "[{}]".to_owned()),
            open_conflicts,
            waiting,
            unreadable,
            snapshot: self.random.one_in(2).then(|| (rows[0], vec![1; size])),
            record,
        }));
        self.folded = self.random.below(self.tip + 1);
        batch.push(Op::Folded(self.folded));
    }

    fn state(&mut self, batch: &mut Batch) {
        match self.random.below(3) {
            0 => self.revoke(batch),
            1 => {
                let [from, to] = ["tw/hg/dv", "tw/tq/dv"].map(|place| place.parse().expect("a valid path"));
                let steps = vec![Step::Move { from, to, address: "tq:1".to_owned() }];
                let (number, signer) = (self.random.below(3), self.nodes[0]);
                let (signature, chain) = (vec![3; 64], vec![vec![4; 20]]);
                batch.push(Op::Order(Order { number, at: 7, steps, signer, signature, chain }));
            }
            _ => {
                let upto = self.random.below(self.tip + 1);
                let gain = Gain { since: self.random.below(3), done: self.random.below(upto + 1), upto };
                batch.push(Op::Gain(Some(gain).filter(|_| self.random.below(3) > 0)));
            }
        }
    }

    fn revoke(&mut self, batch: &mut Batch) {
        let node = *self.random.pick(&self.nodes).expect("there are nodes");
        let place: OrgPath = "trung-uong/ha-giang".parse().expect("a valid path");
        batch.push(Op::Revoke(Revocation {
            node,
            serial: None,
            place,
            reason: Reason::Lost,
            at: self.random.below(3) as i64,
            signer: self.nodes[0],
            signature: vec![3; 64],
            chain: vec![vec![4; 20]],
        }));
    }

    fn compare<S: StoreMut>(&mut self, model: &MemStore, store: &S, from: Seq, when: &str) {
        macro_rules! same {
            ($($call:tt)*) => {
                assert_eq!(
                    sync_core::store::Store::$($call)*.unwrap(),
                    model_call!($($call)*).unwrap(),
                    "{} {when}", stringify!($($call)*)
                )
            };
        }
        macro_rules! model_call {
            ($name:ident(store $(, $arg:expr)*)) => { sync_core::store::Store::$name(model $(, $arg)*) };
        }
        same!(tip(store));
        same!(segments(store));
        same!(marks(store));
        same!(nodes(store));
        same!(revocations(store));
        same!(orders(store));
        same!(gain(store));
        same!(digests(store));
        same!(folded(store));
        same!(secret_rows(store));
        same!(lacking(store));
        same!(unkept(store, usize::MAX));
        same!(unkept(store, 2));
        for name in self.named.iter().rev().take(NEWEST as usize) {
            same!(missing(store, name));
            same!(tree(store, name));
            same!(piece(store, name, 1));
        }
        same!(allowed(store));
        for seq in (from..=self.tip + 1).chain([0, u64::MAX]) {
            same!(chain(store, seq));
            same!(entry(store, seq));
        }
        for lane in Lane::ALL {
            for which in Frontier::ALL {
                same!(frontier(store, which, lane));
            }
            let after = self.random.below(self.tip + 2);
            same!(heads(store, lane, 0, usize::MAX));
            same!(heads(store, lane, after, 3));
            same!(heads(store, lane, u64::MAX, 3));
        }
        same!(unfolded(store, 0, usize::MAX));
        let after = self.random.below(self.tip + 2);
        same!(unfolded(store, after, 2));
        let records: BTreeSet<_> =
            self.held.iter().filter(|(seq, ..)| *seq > from).map(|(_, r, _)| r).collect();
        for record in records.into_iter().chain([&record("Patient/unknown")]) {
            same!(homes(store, record));
            same!(rows_of(store, record));
            same!(secrecy(store, record));
            same!(attachments(store, record));
            same!(projected(store, record));
        }
        for (_, record, hash) in self.held.iter().rev().take(20) {
            same!(has(store, record, hash));
            same!(has(store, record, &ChangeHash([0; 32])));
            same!(has(store, &self.held[0].1, hash));
        }
        for (segment, last) in &self.neighbours {
            for pos in (0..=last + 1).chain([u64::MAX]) {
                for lane in Lane::ALL {
                    same!(read_before(store, lane, Position { segment: *segment, pos }));
                }
            }
            same!(announcement(store, *segment));
            Lane::ALL.into_iter().for_each(|lane| same!(read(store, lane, *segment)));
        }
        for node in self.nodes.iter().chain([&NodeId([0; 16])]) {
            same!(read_of_node(store, *node));
        }
    }
}
