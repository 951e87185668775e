//! One link: what this node knows of a neighbour while connected to it.
//!
//! The reader's word counts. HELLO carries the reader's own cursors and the writer resends from there; what the
//! writer remembers is only a hint. A link writes nothing itself: it answers frames with frames, and hands what
//! has to become durable to the engine. It never looks inside a change.

use std::collections::{BTreeSet, VecDeque};

use crate::{
    change::Entry,
    engine::{
        attachments::Exchange,
        audit::{Answering, Audit},
    },
    feed::{CHAIN_START, Cursor, Lineage, Position, Segment, Seq},
    id::{Incarnation, Lane, Lanes, NodeId, OrgId, Secrecy},
    identity::NodeInfo,
    scope::Neighbour,
    store::{Store, StoreError},
    time::Millis,
    wire::{EntryBatch, Hello, POSITION_MAX},
};

/// A batch begins with this many bytes unpacked: about 3 kB packed, so that at 8 kbit/s an acknowledgement
/// moves every few seconds.
pub const BATCH_START_BYTES: usize = 16 << 10;
/// A link keeps this many batches under way in each lane.
pub const WINDOW_BATCHES: usize = 4;
/// A batch that is acknowledged sooner than this doubles the size of the next ones.
pub const BATCH_FAST_MILLIS: Millis = 2_000;
/// A batch that is acknowledged later than this halves the size of the next ones.
pub const BATCH_SLOW_MILLIS: Millis = 8_000;
/// Rows that a neighbour must not or need not have are passed over in silence; after this many it is told, so
/// that they are not looked at again after a reconnect.
pub const SKIP_AFTER_ROWS: u64 = 1024;
/// How often a neighbour is told how much is still to come.
pub const TO_COME_EVERY_MILLIS: Millis = 10_000;
/// A neighbour that has not said HELLO, or not settled where to go on, after this long is refused. At 8 kbit/s
/// the largest HELLO and its announcements take some seconds.
pub const SETTLE_TIMEOUT_MILLIS: Millis = 120_000;
/// Most batches that a link holds back while it waits for an announcement, or for the last of a stretch.
pub const HELD_MAX_BATCHES: usize = 4096;
/// Most bytes of them. A sender has less under way: in each lane a full window, and one batch of one large entry.
pub const HELD_MAX_BYTES: usize = 3 * (WINDOW_BATCHES + 2) * crate::wire::BATCH_MAX_RAW_BYTES;

/// Most organizations of which a neighbour is asked, or may ask, where they stand: several times those of a country. And most
/// runs that are asked for because others want them.
pub const PLACES_MAX: usize = 4096;

/// Names a link within one run of the host. A later one has a higher number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkId(pub u64);

/// Which way a link leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the parent.
    Up,
    /// To a child.
    Down,
}

/// A batch under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InFlight {
    pub upto: Seq,
    pub bytes: usize,
    pub sent_at: Millis,
}

/// Rows of a lane that have been counted for a neighbour and not sent.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ahead {
    /// The count is of the rows after this one. It counts for nothing when the neighbour is to be sent others.
    pub after: Seq,
    /// Up to this one.
    pub upto: Seq,
    /// Those of them that the neighbour is to have.
    pub wanted: u64,
}

/// Sending in one lane.
#[derive(Debug, Clone)]
pub(crate) struct Outbound {
    /// Rows up to here need not be looked at again in this session. None until the reader's cursor is settled.
    pub next: Option<Seq>,
    /// What the reader has last been told that it has read.
    pub told: Option<Position>,
    /// The reader has said that it has made everything up to here durable.
    pub durable: Seq,
    pub in_flight: VecDeque<InFlight>,
    pub batch_bytes: usize,
    pub skipped: u64,
    pub ahead: Ahead,
    /// The newest place of its own feed that the reader was told to be safe at the root.
    pub receipt: Option<Position>,
}

impl Default for Outbound {
    fn default() -> Self {
        Self {
            next: None,
            told: None,
            durable: 0,
            in_flight: VecDeque::new(),
            batch_bytes: BATCH_START_BYTES,
            skipped: 0,
            ahead: Ahead::default(),
            receipt: None,
        }
    }
}

impl Outbound {
    pub fn has_room(&self) -> bool {
        self.in_flight.iter().map(|b| b.bytes).sum::<usize>() < self.batch_bytes * WINDOW_BATCHES
    }

    /// The reader has made everything up to `seq` durable.
    pub fn acknowledged(&mut self, seq: Seq, now: Millis) {
        self.durable = self.durable.max(seq);
        while let Some(first) = self.in_flight.front().copied().filter(|first| first.upto <= seq) {
            self.in_flight.pop_front();
            let took = now.saturating_sub(first.sent_at);
            if took < BATCH_FAST_MILLIS && first.bytes * 2 >= self.batch_bytes {
                self.batch_bytes = (self.batch_bytes * 2).min(crate::wire::BATCH_MAX_RAW_BYTES);
            } else if took > BATCH_SLOW_MILLIS {
                self.batch_bytes = (self.batch_bytes / 2).max(BATCH_START_BYTES);
            }
        }
    }

    /// The position before a batch of this segment, as the reader has it.
    pub fn after(&self, segment: Incarnation) -> u64 {
        self.told.filter(|told| told.segment == segment).map_or(0, |told| told.pos)
    }
}

/// What a neighbour will surely know, and the places that it has to confirm first.
#[derive(Debug, Clone)]
struct Unconfirmed {
    places: Vec<(Lane, Position)>,
    lineage: [Lineage; 3],
}

/// Everything about one link.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub id: LinkId,
    pub peer: NodeInfo,
    /// The same with the place that its certificate says; since then it may have moved.
    pub certified: NodeInfo,
    pub chain: Vec<Vec<u8>>,
    pub direction: Direction,
    pub since: Millis,
    pub hello: Option<Hello>,
    /// The end of our own feed that was told in HELLO.
    pub said: Seq,
    /// How far we have told to have read the neighbour's feed. The neighbour knows these places, or says LOST, or
    /// finds that it is not the only writer and leaves.
    pub named: Vec<(Lane, Cursor)>,
    /// What the neighbour surely knows of its own feed, by lane: what went before the place that we have named
    /// there, and what has come since. None until its announcements have arrived and it knows our places.
    pub lineage: Option<[Lineage; 3]>,
    /// The same, until the neighbour has confirmed the places that it could not know by its HELLO: it may not be the only writer of
    /// them, and nothing goes to it as if it had what it has not.
    unconfirmed: Option<Unconfirmed>,
    /// The runs of the neighbour's feed, as far as it knows it: what others have written under its name is not in them.
    pub runs: BTreeSet<Incarnation>,
    /// Segments of which another link has brought rows since our places were read from the store: two machines may
    /// be writing them.
    pub barred: BTreeSet<Incarnation>,
    pub out: [Outbound; 3],
    /// The lanes that the neighbour takes.
    pub takes: Lanes,
    /// How much the neighbour was told to be still to come, and when.
    pub told_to_come: Option<(u64, Millis)>,
    /// How much the neighbour has said to be still to come.
    pub to_come: u64,
    /// How secret what goes over it may be: as both ends allow.
    pub allowed: Secrecy,
    /// How far the neighbour's feed has been read, by lane: from the place that was named, and with what is not yet
    /// durable.
    pub reading: [Option<Position>; 3],
    /// What has come on this link and is durable, by lane.
    pub kept: [Option<Position>; 3],
    pub held: VecDeque<EntryBatch>,
    /// What has arrived of a stretch that is not complete, by lane.
    pub stretch: [Vec<EntryBatch>; 3],
    /// Runs for whose announcements the neighbour was asked.
    pub asked: BTreeSet<Incarnation>,
    /// Runs whose announcements the neighbour wants.
    pub wanted: BTreeSet<Incarnation>,
    /// Organizations of which the neighbour was asked where they stand.
    pub asked_places: BTreeSet<OrgId>,
    /// Organizations of which the neighbour wants to know where they stand.
    pub wanted_places: BTreeSet<OrgId>,
    /// The neighbour does not know our cursors and waits for others.
    pub owes_cursors: bool,
    /// We do not know the neighbour's cursors and wait for others.
    pub awaits_cursors: bool,
    /// What the neighbour has said to be safe at the root before it has said how far it has read.
    pub early: Vec<(Lane, Position)>,
    /// The audit that this node has begun.
    pub audit: Option<Box<Audit>>,
    /// The audit that the neighbour has begun.
    pub answering: Option<Answering>,
    /// Entries of a repair, until all that they name is known.
    pub repair: Option<Vec<Entry>>,
    /// What is asked and given of attachments.
    pub content: Exchange,
    /// There was another connection to the same node while this one stood.
    pub doubled: bool,
    /// It is no neighbour by what this node knows of the tree, and may say otherwise: it is listened to for orders alone.
    pub stranger: bool,
    /// Another live connection of the same node, with another run, came after this one.
    pub rival: bool,
}

impl Link {
    pub fn new(id: LinkId, peer: NodeInfo, chain: Vec<Vec<u8>>, direction: Direction, now: Millis) -> Self {
        Self {
            id,
            certified: peer.clone(),
            peer,
            chain,
            direction,
            since: now,
            hello: None,
            said: 0,
            named: Vec::new(),
            kept: [None; 3],
            lineage: None,
            unconfirmed: None,
            runs: BTreeSet::new(),
            barred: BTreeSet::new(),
            out: Default::default(),
            takes: Lanes::ALL,
            told_to_come: None,
            to_come: 0,
            allowed: Secrecy::None,
            reading: [None; 3],
            held: VecDeque::new(),
            stretch: Default::default(),
            asked: BTreeSet::new(),
            wanted: BTreeSet::new(),
            asked_places: BTreeSet::new(),
            wanted_places: BTreeSet::new(),
            owes_cursors: false,
            awaits_cursors: false,
            early: Vec::new(),
            audit: None,
            answering: None,
            repair: None,
            content: Exchange::default(),
            doubled: false,
            stranger: false,
            rival: false,
        }
    }

    /// The neighbour as scope sees it.
    pub fn neighbour(&self) -> Neighbour<'_> {
        match self.direction {
            Direction::Up => Neighbour::Up,
            Direction::Down => Neighbour::Down(&self.peer.place),
        }
    }

    /// Whether the neighbour has named a place in every lane of this node's feed, and it is the feed that this node
    /// knows. Until then nothing is taken from the neighbour: a node whose name somebody else has used as well
    /// would pass over what the other wrote, because its lineage seems to cover it.
    pub fn agrees(&self) -> bool {
        self.out.iter().all(|lane| lane.next.is_some())
    }

    /// Whether both sides know where to go on.
    pub fn is_settled(&self) -> bool {
        self.lineage.is_some() && self.agrees()
    }

    /// Bytes of the entries that are held back, and of stretches that are not complete.
    pub fn held_bytes(&self) -> usize {
        let held = self.held.iter().chain(self.stretch.iter().flatten()).flat_map(|batch| &batch.entries);
        held.map(|(_, entry)| entry.encoded_len()).sum()
    }

    /// Whether nothing is under way to the neighbour.
    pub fn is_idle(&self) -> bool {
        self.out.iter().all(|lane| lane.in_flight.is_empty())
    }

    /// Names the places from which the neighbour is to go on. What other links have brought and is not yet durable
    /// is not in them, so these segments are barred.
    pub fn name(&mut self, cursors: Vec<(Lane, Cursor)>, not_yet_durable: BTreeSet<Incarnation>) {
        self.barred = not_yet_durable;
        self.reading = places(&cursors);
        self.named = cursors;
    }

    /// Works out what the neighbour knows of its own feed, once it is announced.
    pub fn find_lineage(
        &mut self,
        store: &impl Store,
        not_yet_durable: impl FnOnce() -> BTreeSet<Incarnation>,
    ) -> Result<Found, StoreError> {
        let Some(hello) = self.hello.as_ref().filter(|_| self.lineage.is_none()) else {
            return Ok(Found::Nothing);
        };
        let Some(whole) = walk(hello.tip, store)? else { return Ok(Found::Nothing) };
        let knows_us = self.named.iter().all(|(_, cursor)| whole.covers(cursor.at));
        if !knows_us && !self.owes_cursors {
            return Ok(Found::Nothing);
        }
        let mut newest = newest_in(hello.tip, Some(hello.run), store)?;
        let mut reading = self.reading;
        if !knows_us {
            reading = places(&newest);
        } else {
            newest.retain(|(lane, cursor)| self.stands_elsewhere(*lane, cursor.at, &whole));
            for (_, cursor) in &newest {
                if walk(Some(cursor.at), store)?.is_none() {
                    return Ok(Found::Nothing);
                }
            }
            if !newest.is_empty() {
                // What is on its way to the disk is newer, and will be named.
                let moves = not_yet_durable().iter().any(|segment| segment.is_of(self.peer.node));
                return Ok(Found::Further(if moves { Vec::new() } else { newest }));
            }
        }
        let mut lineage: [Lineage; 3] = Default::default();
        for (part, at) in lineage.iter_mut().zip(reading) {
            let Some(walked) = walk(at, store)? else { return Ok(Found::Nothing) };
            *part = walked;
        }
        self.runs = whole.segments().chain([hello.run]).collect();
        if knows_us {
            self.lineage = Some(lineage);
            return Ok(Found::Known);
        }
        let beyond =
            newest.iter().map(|(lane, cursor)| (*lane, cursor.at)).filter(|(_, at)| !whole.covers(*at));
        self.unconfirmed = Some(Unconfirmed { places: beyond.collect(), lineage });
        self.is_confirmed();
        self.owes_cursors = false;
        self.name(newest, not_yet_durable());
        Ok(Found::Asked)
    }

    /// The neighbour goes on from a place: it knows it.
    pub fn confirms(&mut self, lane: Lane, at: Position) {
        if let Some(unconfirmed) = &mut self.unconfirmed {
            unconfirmed.places.retain(|place| *place != (lane, at));
            self.is_confirmed();
        }
    }

    fn is_confirmed(&mut self) {
        if let Some(known) = self.unconfirmed.take_if(|unconfirmed| unconfirmed.places.is_empty()) {
            self.lineage = Some(known.lineage);
        }
    }

    /// Whether this place, the newest that we have read in what the neighbour knows, is in another segment than the one
    /// that we have named, or beyond what the neighbour knows.
    fn stands_elsewhere(&self, lane: Lane, newest: Position, known: &Lineage) -> bool {
        let named = self.reading[lane as usize].map(|at| at.segment);
        newest.pos > 0 && (named != Some(newest.segment) || !known.covers(newest))
    }
}

/// The lineage that ends at this place; none when not all of it is announced here.
pub(crate) fn walk(tip: Option<Position>, store: &impl Store) -> Result<Option<Lineage>, StoreError> {
    let parent =
        |segment| Ok(store.announcement(segment)?.map(|(known, _)| known.parent.map(Position::from)));
    Ok(Lineage::walk::<StoreError>(tip, parent)?.ok())
}

/// Where we stand in the feed of a node, as far as all is announced here that comes before: of that the node announces nothing
/// again to whoever names the place.
pub(crate) fn stands(node: NodeId, store: &impl Store) -> Result<Vec<(Lane, Cursor)>, StoreError> {
    let mut cursors = store.read_of_node(node)?;
    let mut known = BTreeSet::new();
    for (_, Cursor { at, .. }) in &cursors {
        if !known.contains(&at.segment) && walk(Some(*at), store)?.is_some() {
            known.insert(at.segment);
        }
    }
    cursors.retain(|(_, cursor)| known.contains(&cursor.at.segment));
    Ok(cursors)
}

fn places(cursors: &[(Lane, Cursor)]) -> [Option<Position>; 3] {
    Lane::ALL.map(|lane| cursors.iter().find(|(l, _)| *l == lane).map(|(_, cursor)| cursor.at))
}

/// For each lane the newest place that we have read in what a neighbour still knows to be its feed, which ends at `tip`, with the
/// running hash there: it tells the neighbour whether what it knows is what we have read. The beginning of its first segment when we
/// have read nothing of it. `run` is the one in which its process writes, or will.
///
/// When we have read more of one of its segments than it knows, and nothing that ends just where it does, we name the
/// end of that: somebody else may have written under the same name, and nobody but we can tell the neighbour. When we
/// have read one after we had read what comes after it, somebody has: we name a place that is beyond any.
pub(crate) fn newest_in(
    tip: Option<Position>,
    run: Option<Incarnation>,
    store: &impl Store,
) -> Result<Vec<(Lane, Cursor)>, StoreError> {
    // Its process has a name for what it will write, under which somebody else may have written.
    let unopened = run.filter(|run| tip.is_none_or(|tip| tip.segment != *run));
    let mut ends: Vec<_> = unopened.map(|segment| Position { segment, pos: 0 }).into_iter().collect();
    let (mut next, mut passed) = (tip, BTreeSet::new());
    // A liar's runs may lead back to themselves.
    while let Some(at) = next.filter(|at| passed.insert(at.segment)) {
        ends.push(at);
        let known = store.announcement(at.segment)?;
        next = known.and_then(|(announcement, _)| announcement.parent).map(Position::from);
    }
    let first = ends.last().filter(|_| tip.is_some());
    let beginning = first.map(|first| Cursor { at: Position { pos: 0, ..*first }, chain: Some(CHAIN_START) });
    let mut found = Vec::new();
    for lane in Lane::ALL {
        let (mut beyond, mut newest, mut earliest) = (None, None, u64::MAX);
        for end in &ends {
            let furthest = store.read_before(lane, Position { pos: POSITION_MAX, ..*end })?;
            let Some(furthest) = furthest else { continue };
            let is_beyond = furthest.at.pos > end.pos;
            if is_beyond && (run == Some(end.segment) || !has_read_just(store, *end)?) {
                beyond = Some(furthest);
            }
            if newest.is_none() {
                newest = if is_beyond { store.read_before(lane, *end)? } else { Some(furthest) };
            }
            let Some(read) = store.read(lane, end.segment)? else { continue };
            if read.brought_at > earliest {
                beyond = Some(Cursor { at: Position { pos: POSITION_MAX, ..*end }, chain: None });
            }
            earliest = earliest.min(read.at);
        }
        found.extend(beyond.or(newest).or(beginning).map(|cursor| (lane, cursor)));
    }
    Ok(found)
}

/// Whether we have read that segment in some lane up to just there: the running hash tells what is before.
fn has_read_just(store: &impl Store, at: Position) -> Result<bool, StoreError> {
    for lane in Lane::ALL {
        if store.read_before(lane, at)?.is_some_and(|cursor| cursor.at == at) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What has come of looking for the neighbour's lineage.
pub(crate) enum Found {
    /// Not all of it is announced, or it was found before.
    Nothing,
    /// The lineage, with our places in it.
    Known,
    /// The lineage. The neighbour did not know our places and is to be told others, which are named from here on.
    Asked,
    /// The neighbour knows our places, but we have read further in its lineage, from another machine with its name. Were
    /// it to go on from there, rows of the one could pass for rows of the other: it is to be met again, and told these.
    Further(Vec<(Lane, Cursor)>),
}

/// What a reader's cursor means to the writer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Resolved {
    /// Go on after this row.
    At(Seq),
    /// The writer does not know the segment, or has not told the reader of having written as far.
    Lost,
    /// The reader has read more of this segment than the writer knows.
    Beyond(Incarnation),
    /// Somebody else has written under this segment's name, or this node has twice.
    Forked(Incarnation),
}

/// Finds a reader's cursor in this node's own feed, as far as the reader has been told of it.
pub(crate) fn resolve(
    cursor: Option<&Cursor>,
    segments: &[Segment],
    said: Seq,
    tip: Seq,
    store: &impl Store,
) -> Result<Resolved, StoreError> {
    let Some(Cursor { at, chain }) = cursor else { return Ok(Resolved::At(0)) };
    let Some(index) = segments.iter().rposition(|s| s.incarnation == at.segment) else {
        return Ok(Resolved::Lost);
    };
    let base = segments[index].base;
    let next = segments.get(index + 1).map(|next| next.base);
    if base + at.pos > next.unwrap_or(tip) {
        return Ok(Resolved::Beyond(at.segment));
    }
    if base + at.pos > said {
        return Ok(Resolved::Lost);
    }
    let same = match chain {
        // Where one of the two is not known, because rows are gone, nothing tells.
        Some(chain) if at.pos > 0 && *chain != CHAIN_START => {
            store.chain(base + at.pos)?.is_none_or(|known| known == *chain)
        }
        _ => true,
    };
    Ok(if same { Resolved::At(base + at.pos) } else { Resolved::Forked(at.segment) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        change::{Entry, opaque_chunk},
        id::{Chain, OrgId},
        store::{MemStore, Op, StoreMut},
        time::Stamp,
        wire::BATCH_MAX_RAW_BYTES,
    };

    fn out(batch_bytes: usize, in_flight: &[(Seq, usize)]) -> Outbound {
        let in_flight =
            in_flight.iter().map(|&(upto, bytes)| InFlight { upto, bytes, sent_at: 1_000 }).collect();
        Outbound { batch_bytes, in_flight, ..Outbound::default() }
    }

    #[test]
    fn batches_grow_on_a_fast_line_and_shrink_on_a_slow_one() {
        let (start, most) = (BATCH_START_BYTES, BATCH_MAX_RAW_BYTES);
        for (batch_bytes, bytes, took, then) in [
            (start, start / 2, BATCH_FAST_MILLIS - 1, 2 * start),
            (start, start / 2, BATCH_FAST_MILLIS, start),
            // A small batch says nothing about the line.
            (start, start / 2 - 1, 0, start),
            (most / 2, most / 2, 0, most),
            (most, most, 0, most),
            (4 * start, start, BATCH_SLOW_MILLIS, 4 * start),
            (4 * start, start, BATCH_SLOW_MILLIS + 1, 2 * start),
            (start, start, BATCH_SLOW_MILLIS + 1, start),
        ] {
            let mut out = out(batch_bytes, &[(7, bytes)]);
            out.acknowledged(7, 1_000 + took);
            assert_eq!(out.batch_bytes, then, "{bytes} of {batch_bytes} bytes in {took} ms");
        }
    }

    #[test]
    fn an_acknowledgement_ends_the_batches_up_to_it() {
        for (acknowledged, left) in [(6, 3), (7, 2), (8, 2), (9, 1), (10, 0)] {
            let mut out = out(BATCH_START_BYTES, &[(7, 1), (9, 1), (10, 1)]);
            out.acknowledged(acknowledged, 1_000);
            assert_eq!(out.in_flight.len(), left, "{acknowledged}");
        }
    }

    #[test]
    fn a_window_is_of_bytes() {
        let window = WINDOW_BATCHES * BATCH_START_BYTES;
        for (bytes, room) in
            [(vec![], true), (vec![window - 1], true), (vec![window], false), (vec![1, window - 1], false)]
        {
            let in_flight: Vec<_> = bytes.iter().map(|bytes| (1, *bytes)).collect();
            assert_eq!(out(BATCH_START_BYTES, &in_flight).has_room(), room, "{bytes:?}");
        }
    }

    #[test]
    fn a_place_is_told_within_one_segment() {
        let segment = Incarnation([1; 16]);
        let told = Outbound { told: Some(Position { segment, pos: 5 }), ..Outbound::default() };
        assert_eq!((told.after(segment), told.after(Incarnation([2; 16]))), (5, 0));
        assert_eq!(Outbound::default().after(segment), 0);
    }

    /// A feed of two segments, the first with two rows and the second with one, and places in it.
    #[test]
    fn a_cursor_is_found_in_the_feed_or_tells_what_is_wrong() {
        let [one, two, other] = [1, 2, 3].map(|n| Incarnation([n; 16]));
        let mut store = MemStore::default();
        let row = |n: u64| {
            let chunk = opaque_chunk(one, n, &[], Stamp(1), b"x");
            let home = OrgId::new("dv").unwrap();
            let entry = Entry::new("Basic/1".parse().unwrap(), home, Lane::Normal, chunk).unwrap();
            Op::Append { entry, src: None, at: 0 }
        };
        let parent = Some(Position { segment: one, pos: 2 });
        let first = Segment { incarnation: one, base: 0, parent: None };
        let second = Segment { incarnation: two, base: 2, parent };
        store.commit(&[Op::OpenSegment(first), row(1), row(2), Op::OpenSegment(second), row(3)]).unwrap();
        let chain = |seq| store.chain(seq).unwrap();
        let wrong = Some(Chain([9; 16]));
        use Resolved::{At, Beyond, Forked, Lost};
        for (segment, pos, chain, said, resolved) in [
            (one, 0, Some(CHAIN_START), 3, At(0)),
            (one, 1, chain(1), 3, At(1)),
            (one, 2, chain(2), 3, At(2)),
            (one, 2, None, 3, At(2)),
            // Where nothing was read nothing can be another's, and zeros say that the hash is not known.
            (one, 0, wrong, 3, At(0)),
            (one, 2, Some(CHAIN_START), 3, At(2)),
            (one, 2, wrong, 3, Forked(one)),
            (one, 3, None, 3, Beyond(one)),
            (two, 0, Some(CHAIN_START), 3, At(2)),
            (two, 1, chain(3), 3, At(3)),
            (two, 1, wrong, 3, Forked(two)),
            (two, 2, None, 3, Beyond(two)),
            // It was told only of what came before.
            (two, 1, chain(3), 2, Lost),
            (two, 2, None, 2, Beyond(two)),
            (one, 2, chain(2), 2, At(2)),
            (other, 1, None, 3, Lost),
        ] {
            let cursor = Cursor { at: Position { segment, pos }, chain };
            let found = resolve(Some(&cursor), &[first, second], said, 3, &store);
            assert_eq!(found.unwrap(), resolved, "{cursor:?}, told of {said}");
        }
        assert_eq!(resolve(None, &[first, second], 3, 3, &store).unwrap(), At(0));
    }

    #[test]
    fn limits_are_what_the_protocol_says() {
        assert_eq!(HELD_MAX_BYTES, 18 << 20, "three lanes, a window and two batches each, of one MiB");
        assert_eq!(BATCH_START_BYTES, 16_384);
    }
}
