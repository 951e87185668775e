//! What a store has to hold after each commit, and everything that a store holds, to be compared.

use node::store::SqliteStore;
use sync_core::{
    change::Entry,
    feed::{Cursor, Digest, Position, Progress, Segment, Seq},
    id::{Chain, Incarnation, Lane, NodeId, OrgId, RecordId},
    identity::{Announcement, NodeInfo, Revocation},
    order::Order,
    store::{Batch, Frontier, Gain, Head, Mark, MemStore, Op, Projected, Store, StoreError, StoreMut},
};

use crate::{conformance::Script, sim::rng::Rng};

/// The setting of the host that is written.
const SETTING: &str = "disk";

/// One durable step of a store.
pub enum Commit {
    /// A batch of the engine.
    Batch(Batch),
    /// A setting of the host.
    Setting(Vec<u8>),
}

impl Commit {
    /// Makes it durable.
    pub fn run(&self, store: &mut SqliteStore) -> Result<(), StoreError> {
        match self {
            Commit::Batch(batch) => store.commit(batch),
            Commit::Setting(value) => store.set_setting(SETTING, value),
        }
    }
}

/// What a store holds after a number of commits, and how to go on from there.
#[derive(Clone)]
pub struct Reference {
    /// How many commits there were. The last of them is known by it: a batch ends with it as the folded row, and a
    /// setting holds it.
    pub number: u64,
    model: MemStore,
    setting: Option<Vec<u8>>,
    script: Script,
}

impl Reference {
    /// That of a new store.
    pub fn new(seed: u64) -> Self {
        Self { number: 0, model: MemStore::default(), setting: None, script: Script::new(seed) }
    }

    /// The next commit, and what the store holds afterwards. `first` is the first of a process.
    pub fn next(&self, first: bool, rng: &mut Rng) -> (Commit, Self) {
        let mut next = self.clone();
        next.number += 1;
        if !first && self.number > 0 && rng.one_in(8) {
            let value = [&next.number.to_be_bytes()[..], &rng.bytes(20)].concat();
            next.setting = Some(value.clone());
            return (Commit::Setting(value), next);
        }
        // Another commit than the one that was lost.
        next.script.random = Rng::new(rng.next_u64(), "batch");
        let mut batch = next.script.batch(first || self.number == 0);
        batch.push(Op::Folded(next.number));
        next.model.commit(&batch).expect("the store in memory does not fail");
        (Commit::Batch(batch), next)
    }

    /// Everything that a store in this state holds.
    pub fn contents(&self, names: &Reference) -> Contents {
        let contents = Contents::read(&self.model, self.setting.clone(), &names.script);
        contents.expect("the store in memory does not fail")
    }
}

/// The number of the last commit that a store holds.
pub fn last_commit(store: &SqliteStore) -> Result<u64, StoreError> {
    let setting = store.setting(SETTING)?.and_then(|value| value.first_chunk().copied());
    Ok(store.folded()?.max(setting.map_or(0, u64::from_be_bytes)))
}

/// Everything that a store holds, asked for by the names of a reference.
pub fn contents(store: &SqliteStore, names: &Reference) -> Result<Contents, StoreError> {
    Contents::read(store, store.setting(SETTING)?, &names.script)
}

/// What a store says of a record: its homes, rows and projection.
type OfRecord = (RecordId, Vec<OrgId>, Vec<Seq>, Option<Projected>);
/// What a store says of a neighbour's segment: its announcement, and of each lane the cursor and the furthest one.
type OfSegment = (Incarnation, Option<(Announcement, NodeInfo)>, Vec<(Option<Progress>, Option<Cursor>)>);

/// Everything that a store holds.
#[derive(Debug, PartialEq)]
pub struct Contents {
    tip: Seq,
    segments: Vec<Segment>,
    feed: Vec<(Option<Chain>, Option<Entry>)>,
    heads: Vec<Vec<Head>>,
    frontiers: Vec<Seq>,
    marks: Vec<Mark>,
    nodes: Vec<NodeInfo>,
    revocations: Vec<Revocation>,
    orders: Vec<Order>,
    gain: Option<Gain>,
    digests: Vec<(OrgId, Digest)>,
    folded: Seq,
    unfolded: Vec<(Seq, RecordId)>,
    records: Vec<OfRecord>,
    neighbours: Vec<OfSegment>,
    cursors: Vec<(NodeId, Vec<(Lane, Cursor)>)>,
    setting: Option<Vec<u8>>,
}

impl Contents {
    fn read(store: &impl Store, setting: Option<Vec<u8>>, names: &Script) -> Result<Self, StoreError> {
        let tip = store.tip()?;
        let of_record = |(id, _): &(RecordId, Lane)| {
            Ok((id.clone(), store.homes(id)?, store.rows_of(id)?, store.projected(id)?))
        };
        let of_segment = |(segment, _): &(Incarnation, u64)| {
            let end = Position { segment: *segment, pos: u64::MAX };
            let cursors = |lane| Ok((store.read(lane, *segment)?, store.read_before(lane, end)?));
            let cursors = Lane::ALL.into_iter().map(cursors).collect::<Result<_, StoreError>>()?;
            Ok((*segment, store.announcement(*segment)?, cursors))
        };
        let frontiers = Lane::ALL.into_iter().flat_map(|lane| Frontier::ALL.map(|which| (which, lane)));
        Ok(Self {
            tip,
            segments: store.segments()?,
            feed: (1..=tip + 1)
                .map(|seq| Ok((store.chain(seq)?, store.entry(seq)?)))
                .collect::<Result<_, StoreError>>()?,
            heads: Lane::ALL
                .into_iter()
                .map(|lane| store.heads(lane, 0, usize::MAX))
                .collect::<Result<_, _>>()?,
            frontiers: frontiers
                .map(|(which, lane)| store.frontier(which, lane))
                .collect::<Result<_, _>>()?,
            marks: store.marks()?,
            nodes: store.nodes()?,
            revocations: store.revocations()?,
            orders: store.orders()?,
            gain: store.gain()?,
            digests: store.digests()?,
            folded: store.folded()?,
            unfolded: store.unfolded(0, usize::MAX)?,
            records: names.records.iter().map(of_record).collect::<Result<_, StoreError>>()?,
            neighbours: names.neighbours.iter().map(of_segment).collect::<Result<_, StoreError>>()?,
            cursors: names
                .nodes
                .iter()
                .map(|node| Ok((*node, store.read_of_node(*node)?)))
                .collect::<Result<_, StoreError>>()?,
            setting,
        })
    }

    /// The first part in which two stores differ.
    pub fn difference(&self, other: &Self) -> Option<&'static str> {
        macro_rules! compare {
            ($($part:ident),*) => { [$((stringify!($part), self.$part == other.$part)),*] };
        }
        let parts = compare![
            tip,
            segments,
            feed,
            heads,
            frontiers,
            marks,
            nodes,
            revocations,
            orders,
            gain,
            digests,
            folded,
            unfolded,
            records,
            neighbours,
            cursors,
            setting
        ];
        parts.into_iter().find(|(_, same)| !same).map(|(part, _)| part)
    }
}
