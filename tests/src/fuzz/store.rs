//! Stores: whatever facts are committed, the SQLite store answers every question as the one in memory does.

use node::store::{Key, SqliteStore};
use sync_core::{
    feed::{Cursor, Position, Segment, Seq},
    id::{Chain, ChangeHash, Incarnation, Lane, NodeId, OrgId, RecordId},
    identity::{Reason, Revocation, Serial},
    order::{Order, Step},
    store::{
        Batch, Forgotten, Frontier, Gain, Mark, MemStore, Offered, Op, Projected, Purge, Store, StoreMut,
    },
    wire::POSITION_MAX,
};

use crate::bytes::Choices;
use crate::conformance::{announcement, entry, org, record};

const RECORDS: [&str; 4] = ["Patient/1", "Flag/2", "AuditEvent/3", "PatientX/1"];
const HOMES: [&str; 3] = ["dong-van", "meo-vac", "ha-giang"];
const BATCHES_MAX: usize = 12;

#[derive(Default)]
struct Script {
    to_forget: Option<RecordId>,
    tip: Seq,
    segments: Vec<Segment>,
    held: Vec<(Seq, RecordId, ChangeHash)>,
    marks: Vec<Mark>,
    serial: u64,
}

/// The bytes tell which facts are kept, where a batch ends and when the store is closed and opened.
pub fn store(data: &[u8]) {
    let mut c = Choices::new(data);
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("tuyen.db");
    let key = || Key::from_bytes([7; 32]);
    let mut store = SqliteStore::create(&path, &key()).expect("a new store");
    let (mut model, mut script) = (MemStore::default(), Script::default());
    let mut batch = Batch::new();
    script.open_segment(&mut batch);
    for _ in 0..BATCHES_MAX {
        for _ in 0..=c.below(6) {
            script.fact(&mut c, &mut batch);
        }
        if let Some(record) = script.to_forget.take() {
            script.held.retain(|(_, held, _)| *held != record);
            batch.push(Op::Forget(record));
        }
        model.commit(&batch).expect("memory does not fail");
        store.commit(&batch).expect("what the engine may say can be kept");
        batch.clear();
        if c.one_in(4) {
            drop(store);
            store = SqliteStore::open(&path, &key()).expect("it is its own store");
        }
        if c.is_done() {
            break;
        }
    }
    script.compare(&model, &store);
}

impl Script {
    fn name(&mut self) -> Incarnation {
        self.serial += 1;
        let mut name = [0xee; 16];
        name[..8].copy_from_slice(&self.serial.to_be_bytes());
        Incarnation(name)
    }

    fn open_segment(&mut self, batch: &mut Batch) {
        let parent =
            self.segments.last().map(|s| Position { segment: s.incarnation, pos: self.tip - s.base });
        let segment = Segment { incarnation: self.name(), base: self.tip, parent };
        self.segments.push(segment);
        batch.push(Op::OpenSegment(segment));
    }

    fn fact(&mut self, c: &mut Choices<'_>, batch: &mut Batch) {
        let lane = c.pick(&Lane::ALL);
        match c.below(16) {
            0 => self.open_segment(batch),
            1 => self.rename(c, batch),
            2 => {
                let Some((of, record, _)) = (!self.held.is_empty()).then(|| c.pick(&self.held)) else {
                    return;
                };
                let home = org(c.pick(&HOMES));
                self.tip += 1;
                batch.extend([Op::AddHome(record, home.clone()), Op::Offer { of, to: Offered::Home(home) }]);
            }
            3 => {
                let place = c.pick(&["trung-uong/ha-giang", "trung-uong/ha-giang/dong-van"]);
                let parent = c.one_in(2).then(|| (somebody(c).segment, c.u64()));
                let (announcement, info) =
                    announcement(NodeId([c.below(3) as u8; 16]), place, somebody(c).segment, parent);
                batch.push(Op::Announce(announcement, info));
            }
            4 => {
                let chain = c.one_in(2).then(|| Chain([c.byte(); 16]));
                let cursor = Cursor { at: somebody(c), chain };
                batch.push(Op::Read { lane, cursor, brought: c.one_in(2) });
            }
            5 => batch.push(Op::Reach(c.pick(&Frontier::ALL), lane, c.u64() % (self.tip + 1))),
            6 => {
                let mark = Mark { lane, src: somebody(c), seq: c.u64() % (self.tip + 1) };
                self.marks.push(mark);
                batch.push(Op::Mark(mark));
            }
            7 if !self.marks.is_empty() => {
                let mark = c.pick(&self.marks);
                batch.push(if c.one_in(2) { Op::Mark(mark) } else { Op::Unmark(mark) });
            }
            8 => batch.push(Op::Folded(c.u64() % (self.tip + 1))),
            9 | 10 => self.project(c, batch),
            11 => {
                let length = c.below(22);
                batch.push(Op::Revoke(Revocation {
                    node: NodeId([c.below(3) as u8; 16]),
                    serial: Serial::new(c.take(length)),
                    place: "trung-uong/ha-giang".parse().expect("a path"),
                    reason: c.pick(&Reason::ALL),
                    at: c.u64() as i64,
                    signer: NodeId([1; 16]),
                    signature: vec![3; c.below(129)],
                    chain: vec![vec![4; 20]; c.below(3)],
                }));
            }
            12 => {
                let (org, successor) = (c.pick(&["dv", "hg"]), c.pick(&["tq", "qn"]));
                let [org, successor] = [org, successor].map(|name| OrgId::new(name).expect("a plain name"));
                let steps = vec![Step::Close { org, successor }; c.below(3)];
                let (number, at, signer) = (c.u64() % 4, c.u64() as i64, NodeId([1; 16]));
                let (signature, chain) = (vec![3; c.below(129)], vec![vec![4; 20]; c.below(3)]);
                batch.push(Op::Order(Order { number, at, steps, signer, signature, chain }));
            }
            13 => {
                let [since, done, upto] = [(); 3].map(|()| c.u64() % (self.tip + 1));
                batch.push(Op::Gain(c.one_in(2).then_some(Gain { since, done, upto })));
            }
            14 => {
                self.to_forget = Some(record(c.pick(&RECORDS)));
                let [order, done, upto] = [(); 3].map(|()| c.u64() % (self.tip + 1));
                let mut forgotten = Vec::new();
                if c.one_in(2) {
                    forgotten.push(Forgotten { home: org(HOMES[0]), records: c.u64(), entries: c.u64() });
                }
                batch.push(Op::Purge(c.one_in(2).then_some(Purge { order, done, upto, forgotten })));
            }
            _ => self.append(c, batch),
        }
    }

    fn rename(&mut self, c: &mut Choices<'_>, batch: &mut Batch) {
        let mut renames = Vec::new();
        for i in c.below(self.segments.len())..self.segments.len() {
            let old = self.segments[i].incarnation;
            self.segments[i].incarnation = self.name();
            if let Some(above) = i.checked_sub(1).map(|i| self.segments[i].incarnation) {
                self.segments[i].parent = self.segments[i].parent.map(|p| Position { segment: above, ..p });
            }
            renames.push((old, self.segments[i]));
        }
        batch.push(Op::RenameSegments(renames));
    }

    fn append(&mut self, c: &mut Choices<'_>, batch: &mut Batch) {
        let (record, home) = (record(c.pick(&RECORDS)), org(c.pick(&HOMES)));
        let deps: Vec<_> = self
            .held
            .iter()
            .filter(|(_, r, _)| *r == record)
            .map(|(.., hash)| *hash)
            .take(c.below(3))
            .collect();
        let src = c.one_in(2).then(|| somebody(c));
        self.serial += 1;
        let (origin, length) = (Incarnation([c.below(4) as u8; 16]), usize::from(c.byte()));
        let lane = Lane::of_resource_type(record.resource_type());
        let entry = entry(&record, &home, lane, origin, self.serial, &deps, c.take(length));
        self.tip += 1;
        self.held.push((self.tip, record.clone(), entry.change_hash()));
        let append = Op::Append { entry, src, at: c.u64() as i64 };
        match c.below(4) {
            0 => batch.push(append),
            1 => batch.extend([append, Op::AddHome(record, home)]),
            _ => batch.extend([Op::AddHome(record, home), append]),
        }
    }

    fn project(&mut self, c: &mut Choices<'_>, batch: &mut Batch) {
        let Some((_, record, _)) = (!self.held.is_empty()).then(|| c.pick(&self.held)) else { return };
        let mut text = || String::from_utf8_lossy(c.take(9)).into_owned();
        let (resource, version, conflicts, reason) = (text(), text(), text(), text());
        let rows = || self.held.iter().filter(|(_, r, _)| *r == record).map(|(seq, ..)| *seq);
        let open_conflicts = c.below(3) as u32;
        let (waiting, unreadable): (Vec<_>, Vec<_>) = rows().partition(|_| c.one_in(2));
        batch.push(Op::Project(Projected {
            resource: c.one_in(2).then_some(resource),
            version,
            conflicts: (open_conflicts > 0).then_some(conflicts),
            open_conflicts,
            waiting,
            unreadable: unreadable.into_iter().map(|seq| (seq, reason.clone())).collect(),
            snapshot: c.one_in(2).then(|| (rows().next().expect("it has one"), c.take(5).to_vec())),
            record,
        }));
    }

    /// Every question that the engine may ask.
    fn compare(&self, model: &MemStore, store: &SqliteStore) {
        macro_rules! same {
            ($name:ident $(, $arg:expr)*) => {
                assert_eq!(
                    store.$name($($arg),*).expect("a sound store"),
                    model.$name($($arg),*).expect("memory does not fail"),
                    "{} {:?}", stringify!($name), ($(&$arg,)*)
                )
            };
        }
        same!(tip);
        same!(segments);
        same!(marks);
        same!(nodes);
        same!(revocations);
        same!(orders);
        same!(gain);
        same!(purge);
        same!(digests);
        same!(folded);
        for seq in 0..=self.tip + 1 {
            same!(chain, seq);
            same!(entry, seq);
            same!(unfolded, seq, 2);
        }
        for (lane, which) in Lane::ALL.into_iter().flat_map(|lane| Frontier::ALL.map(|which| (lane, which))) {
            same!(frontier, which, lane);
            same!(heads, lane, 0, usize::MAX);
            same!(heads, lane, self.tip / 2, 2);
        }
        for record in RECORDS.map(record) {
            same!(homes, &record);
            same!(rows_of, &record);
            same!(projected, &record);
            for (_, _, hash) in &self.held {
                same!(has, &record, hash);
            }
        }
        for n in 0..4u8 {
            let segment = Incarnation([n; 16]);
            same!(announcement, segment);
            same!(read_of_node, NodeId([n; 16]));
            for lane in Lane::ALL {
                same!(read, lane, segment);
                for pos in [0, 1, 7, 1 << 32, POSITION_MAX, u64::MAX] {
                    same!(read_before, lane, Position { segment, pos });
                }
            }
        }
    }
}

/// A place in the feed of one of four neighbours.
fn somebody(c: &mut Choices<'_>) -> Position {
    let pos = (c.u64() >> c.below(64)).clamp(1, POSITION_MAX);
    Position { segment: Incarnation([c.below(4) as u8; 16]), pos }
}
