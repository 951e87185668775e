//! What passes over a connection, held against what a sender may have under way, may send again, and must move; and what
//! waits in memory, against its limits.

use std::collections::VecDeque;

use sync_core::{feed::Position, wire::BATCH_MAX_RAW_BYTES};

use super::*;

/// While rows are under way and nothing goes wrong, an acknowledgement comes at least as often as this, also at
/// [`SLOW_LINE_RATE`]; when one entry takes longer on the line, as often as that.
const STALL_MAX: Millis = 60_000;

/// What one end of a connection has sent and not seen acknowledged.
#[derive(Debug, Default)]
pub struct UnderWay {
    lanes: [OfLane; 3],
    /// When an acknowledgement last moved something, or when the first row was sent while nothing was under way.
    moved_at: Millis,
}

#[derive(Debug, Default)]
struct OfLane {
    /// The last row and the bytes of each stretch.
    stretches: VecDeque<(Seq, usize)>,
    /// Bytes of a stretch of which not all batches are sent.
    begun: usize,
    largest_entry: usize,
    acknowledged: u32,
}

impl OfLane {
    /// Most bytes that may be under way: a window of batches, which double at most with each one that is
    /// acknowledged, and the batch with which it became full.
    fn most(&self) -> usize {
        let doubled = BATCH_START_BYTES.saturating_mul(1 << self.acknowledged.min(16));
        let batch = doubled.min(BATCH_MAX_RAW_BYTES);
        WINDOW_BATCHES * batch + batch.max(self.largest_entry)
    }
}

impl UnderWay {
    fn is_empty(&self) -> bool {
        self.lanes.iter().all(|lane| lane.stretches.is_empty() && lane.begun == 0)
    }

    /// Rows go out. Too many bytes of them are an error.
    fn send(&mut self, batch: &EntryBatch, upto: Option<Seq>, now: Millis) -> Result<(), String> {
        if self.is_empty() {
            self.moved_at = now;
        }
        let lane = &mut self.lanes[batch.lane as usize];
        let sizes = || batch.entries.iter().map(|(_, entry)| entry.encoded_len());
        lane.begun += sizes().sum::<usize>();
        lane.largest_entry = lane.largest_entry.max(sizes().max().unwrap_or(0));
        if let Some(upto) = upto {
            lane.stretches.push_back((upto, std::mem::take(&mut lane.begun)));
        }
        let bytes = lane.stretches.iter().map(|(_, bytes)| bytes).sum::<usize>() + lane.begun;
        if bytes > lane.most() {
            return Err(format!("{bytes} bytes are under way, {} may be", lane.most()));
        }
        Ok(())
    }

    /// Everything up to a row is acknowledged. How long nothing had been, if that moves anything.
    fn acknowledge(&mut self, lane: Lane, upto: Seq, now: Millis) -> Option<Millis> {
        let lane = &mut self.lanes[lane as usize];
        let passed = lane.stretches.partition_point(|(seq, _)| *seq <= upto);
        if passed == 0 {
            return None;
        }
        lane.stretches.drain(..passed);
        lane.acknowledged += passed as u32;
        Some(now - std::mem::replace(&mut self.moved_at, now))
    }

    /// How long nothing has been acknowledged of what is under way.
    fn stalled(&self, now: Millis) -> Millis {
        if self.is_empty() { 0 } else { now - self.moved_at }
    }
}

impl World<'_> {
    /// A machine sends rows.
    pub(super) fn rows_go_out(&mut self, conn: u64, end: usize, batch: &EntryBatch) -> Result<(), Failure> {
        let [from, to] = self.nodes_of(conn, end);
        let one = self.conns.get_mut(&conn).expect("the caller has found it");
        let machine = &self.machines[one.ends[end].machine];
        let upto = batch.upto.and_then(|(pos, _)| row_of(&machine.store, batch.segment, pos));
        one.ends[end]
            .under_way
            .send(batch, upto, self.now)
            .map_err(|text| Failure::new("windows are kept", format_args!("{}: {text}", machine.name)))?;
        let acknowledged = self.acknowledged.get(&(from, to, batch.lane)).copied().unwrap_or(0);
        let again = |pos: u64| row_of(&machine.store, batch.segment, pos).filter(|row| *row <= acknowledged);
        match batch.entries.iter().find_map(|(pos, _)| again(*pos)) {
            Some(row) if self.report.keeps_identity => {
                let text = format!("{} sends row {row} again, up to {acknowledged} it is", machine.name);
                Err(Failure::new("what is acknowledged is not sent again", text))
            }
            _ => Ok(()),
        }
    }

    /// A machine hears that rows are durable at the other end of a connection.
    pub(super) fn rows_are_acknowledged(
        &mut self,
        conn: u64,
        end: usize,
        lane: Lane,
        at: Position,
    ) -> Result<(), Failure> {
        let ends = self.nodes_of(conn, end);
        let pair: BTreeSet<_> = self.conns[&conn].ends.iter().map(|end| end.machine).collect();
        let one = self.conns.get_mut(&conn).expect("the caller has found it");
        let machine = &self.machines[one.ends[end].machine];
        let Some(row) = row_of(&machine.store, at.segment, at.pos) else { return Ok(()) };
        let stalled = one.ends[end].under_way.acknowledge(lane, row, self.now);
        self.moves(conn, end, stalled.unwrap_or(0))?;
        // What the other end says on a second connection it may have said before this.
        let joins = |conn: &&Conn| conn.ends.iter().all(|end| pair.contains(&end.machine));
        if self.conns.values().filter(joins).count() == 1 {
            let known = self.acknowledged.entry((ends[0], ends[1], lane)).or_default();
            *known = row.max(*known);
        }
        Ok(())
    }

    /// A connection ends for a machine: nothing may have stood still on it.
    pub(super) fn stood_still(&self, conn: u64, end: usize) -> Result<(), Failure> {
        self.moves(conn, end, self.conns[&conn].ends[end].under_way.stalled(self.now))
    }

    fn moves(&self, conn: u64, end: usize, stalled: Millis) -> Result<(), Failure> {
        let one = &self.conns[&conn];
        let largest = one.ends[end].under_way.lanes.iter().map(|lane| lane.largest_entry).max().unwrap_or(0);
        let most = STALL_MAX.max(2 * largest as u64 * 1000 / one.line.rate);
        if one.disturbed || stalled <= most {
            return Ok(());
        }
        let who = &self.machines[one.ends[end].machine].name;
        let text = format!("{who} has rows under way of which none was acknowledged for {stalled} ms");
        Err(Failure::new("acknowledgements move", text))
    }

    /// The nodes of this end and of the other.
    fn nodes_of(&self, conn: u64, end: usize) -> [usize; 2] {
        let ends = &self.conns[&conn].ends;
        [end, 1 - end].map(|end| self.machines[ends[end].machine].node)
    }

    /// What waits in a machine's memory stays under the limits that have names.
    pub(super) fn check_queues(&self, machine: usize) -> Result<(), Failure> {
        let one = &self.machines[machine];
        let Some(queues) = one.engine.as_ref().map(Engine::queues) else { return Ok(()) };
        let fits = queues.held_batches <= HELD_MAX_BATCHES
            && queues.held_bytes <= HELD_MAX_BYTES + UNPACKED_MAX_BYTES as usize
            && queues.places <= PLACES_MAX
            && queues.intents <= INTENTS_MAX;
        if fits {
            Ok(())
        } else {
            Err(Failure::new("queues are bounded", format_args!("{}: {queues:?}", one.name)))
        }
    }

    /// One end waits to hear where somebody stands who is away. Whether somebody else knows is not looked at: that is excused too.
    pub(super) fn waits_for(&mut self, conn: u64, org: &OrgId) {
        let is_of = |machine: usize| self.plan.nodes[self.machines[machine].node].info.place.org() == org;
        let is_connected = self.conns.values().any(|conn| conn.ends.iter().any(|end| is_of(end.machine)));
        if let Some(conn) = self.conns.get_mut(&conn).filter(|_| !is_connected) {
            conn.disturbed = true;
        }
    }

    /// Something goes wrong at a machine: its connections are slower than they have to be from now on.
    pub(super) fn disturb(&mut self, machine: usize) {
        let of_it = |conn: &&mut Conn| conn.ends.iter().any(|end| end.machine == machine);
        self.conns.values_mut().filter(of_it).for_each(|conn| conn.disturbed = true);
    }
}

/// The row at a place in a machine's own feed.
fn row_of(store: &MemStore, segment: sync_core::id::Incarnation, pos: u64) -> Option<Seq> {
    let segments = store.segments().expect("memory does not fail");
    segments.iter().find(|one| one.incarnation == segment).map(|one| one.base + pos)
}
