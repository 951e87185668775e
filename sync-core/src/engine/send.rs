//! Sending this node's own feed: scanning rows, packing batches, passing on receipts.

use super::{secrecy::comes_before_its_mark, *};
use crate::{
    feed::{CHAIN_START, Lineage},
    id::Chain,
    scope,
    session::{Ahead, InFlight, SKIP_AFTER_ROWS, TO_COME_EVERY_MILLIS},
    store::Head,
    wire::{BATCH_MAX_ENTRIES, EntryBatch},
};

/// Rows looked at in one read of the store.
const SCAN_ROWS: usize = 1024;
/// Rows of a lane that are looked at in one count of what is still to come.
pub(super) const COUNTED_AT_ONCE: usize = 16 * SCAN_ROWS;

/// A stretch of the feed: the rows of one segment and lane that go out together.
pub(super) struct Stretch {
    pub(super) segment: Segment,
    pub(super) last: Seq,
    rows: u64,
    /// Those of them that are for the neighbour by what stands at their heads.
    wanted: u64,
    pub(super) chosen: Vec<(u64, Entry)>,
    bytes: usize,
    /// The first of those that cannot be read.
    pub(super) unread: Option<Seq>,
}

/// The batches of a stretch that ends at `at`: one for each origin; the last one moves the reader's cursor.
pub(super) fn batches(
    lane: Lane,
    after: u64,
    at: Position,
    chain: Chain,
    chosen: Vec<(u64, Entry)>,
) -> Vec<EntryBatch> {
    let mut groups: Vec<(Incarnation, Vec<(u64, Entry)>)> = Vec::new();
    for (pos, entry) in chosen {
        match groups.iter_mut().find(|(origin, _)| *origin == entry.origin()) {
            Some((_, group)) => group.push((pos, entry)),
            None => groups.push((entry.origin(), vec![(pos, entry)])),
        }
    }
    if groups.is_empty() {
        groups.push((at.segment, Vec::new()));
    }
    let final_group = groups.len() - 1;
    let batch = |(i, (origin, entries))| {
        let upto = (i == final_group).then_some((at.pos, chain));
        EntryBatch { lane, segment: at.segment, after, upto, origin, entries }
    };
    groups.into_iter().enumerate().map(batch).collect()
}

impl<I: Identity> Engine<I> {
    /// Sends what the link has room for, most urgent lane first.
    pub(super) fn send_rows(&mut self, link: LinkId, store: &impl Store, now: Now) -> Result<(), StoreError> {
        // What a grant opened whose time has passed goes nowhere any more: the next commit keeps that.
        let is_down = self.links.get(&link).is_some_and(|state| state.direction == Direction::Down);
        if is_down && self.is_a_grant_over(now) {
            return Ok(());
        }
        for lane in Lane::ALL {
            self.pass_over_fresh(link, lane, store, now)?;
            while let Some(state) = self.links.get(&link).filter(|state| self.has_room(state, lane)) {
                match self.stretch_after(state, lane, self.tip, store)? {
                    Some(stretch) => self.send_stretch(link, lane, stretch, store, now)?,
                    None => {
                        self.has_looked_at_all(link, lane);
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    fn has_room(&self, link: &Link, lane: Lane) -> bool {
        link.out[lane as usize].has_room() && self.open_lanes(link).has(lane)
    }

    fn has_looked_at_all(&mut self, link: LinkId, lane: Lane) {
        let agreed = self.links.get_mut(&link).filter(|state| state.lineage.is_some());
        if let Some(next) = agreed.and_then(|state| state.out[lane as usize].next.as_mut()) {
            *next = (*next).max(self.tip);
        }
    }

    /// Tells the neighbour how much is still to come. What goes out at once is not counted: it is there as soon as the number.
    pub(super) fn tell_what_is_to_come(
        &mut self,
        link: LinkId,
        store: &impl Store,
        now: Now,
    ) -> Result<(), StoreError> {
        let Some(state) = self.links.get(&link).filter(|state| state.lineage.is_some()) else {
            return Ok(());
        };
        let is_sent = |lane: Lane| state.out[lane as usize].next.is_none_or(|next| next >= self.tip);
        let is_over = Lane::ALL.into_iter().all(is_sent);
        let told = state.told_to_come;
        let waits = told.is_some_and(|(_, at)| now.mono < at + TO_COME_EVERY_MILLIS);
        if is_over && told.is_none_or(|(count, _)| count == 0) || !is_over && waits {
            return Ok(());
        }
        let mut count = 0;
        for lane in Lane::ALL {
            let Some(ahead) = self.ahead(link, lane, store)? else { return Ok(()) };
            count += ahead;
        }
        if told.map_or(0, |(count, _)| count) != count {
            self.links.get_mut(&link).expect("it is there").told_to_come = Some((count, now.mono));
            self.send(link, Frame::ToCome(count));
        }
        Ok(())
    }

    /// How many rows of a lane are still to be sent; none when that is not known yet: a long feed is counted in parts.
    fn ahead(&mut self, link: LinkId, lane: Lane, store: &impl Store) -> Result<Option<u64>, StoreError> {
        let Some(state) = self.links.get(&link) else { return Ok(None) };
        let (Some(lineage), Some(next)) = (&state.lineage, state.out[lane as usize].next) else {
            return Ok(Some(0));
        };
        let mut ahead = state.out[lane as usize].ahead;
        if ahead.after != next {
            ahead = Ahead { after: next, upto: next, wanted: 0 };
        }
        for _ in 0..COUNTED_AT_ONCE / SCAN_ROWS {
            if ahead.upto >= self.tip {
                break;
            }
            let heads = store.heads(lane, ahead.upto, SCAN_ROWS)?;
            let (neighbour, lineage) = (state.neighbour(), &lineage[lane as usize]);
            let wanted = |head: &&Head| scope::wants(&neighbour, head, lineage, &self.places, state.allowed);
            ahead.wanted += heads.iter().filter(wanted).count() as u64;
            ahead.upto = heads.last().filter(|_| heads.len() == SCAN_ROWS).map_or(self.tip, |head| head.seq);
        }
        let is_counted = ahead.upto >= self.tip;
        self.links.get_mut(&link).expect("it is there").out[lane as usize].ahead = ahead;
        Ok(is_counted.then_some(ahead.wanted))
    }

    /// Rows of the latest commits that are of no concern to a child need not be read for it: or a hub would look at each
    /// row once for every child. As of rows that are read, it is told of many, or of the first of a segment.
    fn pass_over_fresh(
        &mut self,
        link: LinkId,
        lane: Lane,
        store: &impl Store,
        now: Now,
    ) -> Result<(), StoreError> {
        let below = |state: &&Link| state.direction == Direction::Down && state.lineage.is_some();
        let Some(state) = self.links.get(&link).filter(below) else { return Ok(()) };
        let Some(next) = state.out[lane as usize].next else { return Ok(()) };
        let concerns = |home| self.places.is_within(home, &state.peer.place);
        let unread = self.fresh.partition_point(|fresh| fresh.upto <= next);
        let (mut passed, mut rows) = (next, 0);
        for fresh in self.fresh.range(unread..) {
            if fresh.before > passed || fresh.for_all || fresh.homes.iter().any(concerns) {
                break;
            }
            (passed, rows) = (fresh.upto, rows + fresh.rows[lane as usize]);
        }
        let Some(at) = self.position(passed).filter(|_| passed > next) else { return Ok(()) };
        let out = &mut self.links.get_mut(&link).expect("it is there").out[lane as usize];
        (out.next, out.skipped) = (Some(passed), out.skipped + rows);
        let told_of = out.told.is_some_and(|told| told.segment == at.segment);
        if rows == 0 || (told_of && out.skipped < SKIP_AFTER_ROWS) {
            return Ok(());
        }
        let after = out.after(at.segment);
        (out.skipped, out.told) = (0, Some(at));
        self.say_place(link, lane, at, passed, after, store, now)
    }

    /// The lanes that a link may carry now, away from this node.
    pub(super) fn open_lanes(&self, link: &Link) -> Lanes {
        match link.direction {
            Direction::Up => link.takes.and(self.lanes_up),
            Direction::Down => link.takes,
        }
    }

    /// The host says which lanes the link to the parent may carry. The parent is told, and what may go on goes on.
    pub(super) fn take_lanes(
        &mut self,
        lanes: Lanes,
        store: &impl Store,
        now: Now,
    ) -> Result<(), StoreError> {
        if std::mem::replace(&mut self.lanes_up, lanes) == lanes {
            return Ok(());
        }
        let up = self.links.values().filter(|link| link.direction == Direction::Up).map(|link| link.id);
        for link in up.collect::<Vec<_>>() {
            self.send(link, Frame::Lanes(lanes));
            self.go_on(link, store, now)?;
        }
        Ok(())
    }

    /// The rows that the neighbour is to have and that wait until their lane may go on.
    pub(super) fn waiting_rows(&self, link: LinkId, store: &impl Store) -> Result<BTreeSet<Seq>, StoreError> {
        let mut rows = BTreeSet::new();
        let Some(state) = self.links.get(&link) else { return Ok(rows) };
        let Some(lineage) = &state.lineage else { return Ok(rows) };
        let open = self.open_lanes(state);
        for lane in Lane::ALL.into_iter().filter(|lane| !open.has(*lane)) {
            let mut next = state.out[lane as usize].next.unwrap_or(self.tip);
            loop {
                let heads = store.heads(lane, next, SCAN_ROWS)?;
                let Some(last) = heads.last() else { break };
                next = last.seq;
                // A row that offers an older entry holds none of its own.
                let waits = |head: &&Head| {
                    head.offered_to.is_none()
                        && scope::wants(
                            &state.neighbour(),
                            head,
                            &lineage[lane as usize],
                            &self.places,
                            state.allowed,
                        )
                };
                rows.extend(heads.iter().filter(waits).map(|head| head.seq));
            }
        }
        Ok(rows)
    }

    /// What comes next in a lane for the neighbour of this link, up to row `tip`.
    pub(super) fn stretch_after(
        &self,
        state: &Link,
        lane: Lane,
        tip: Seq,
        store: &impl Store,
    ) -> Result<Option<Stretch>, StoreError> {
        let out = &state.out[lane as usize];
        let (Some(lineage), Some(next)) = (&state.lineage, out.next) else { return Ok(None) };
        if next >= tip {
            return Ok(None);
        }
        let mut heads = store.heads(lane, next, SCAN_ROWS)?;
        heads.retain(|head| head.seq <= tip);
        let end = self.last[lane as usize];
        let first = match heads.first() {
            Some(head) => head.seq,
            // The last row that has to go up is gone: whoever waits for it has to hear that there is nothing.
            None if state.direction == Direction::Up && end > next && end <= tip => end,
            None => return Ok(None),
        };
        let index = self.segments.partition_point(|s| s.base < first) - 1;
        let segment = self.segments[index];
        let segment_end = self.segments.get(index + 1).map_or(self.tip, |next| next.base);
        let mut stretch =
            Stretch { segment, last: first, rows: 1, wanted: 0, chosen: Vec::new(), bytes: 0, unread: None };
        for (rows, head) in (1..).zip(heads.iter().take_while(|head| head.seq <= segment_end)) {
            let lineage = &lineage[lane as usize];
            let wanted = scope::wants(&state.neighbour(), head, lineage, &self.places, state.allowed);
            // One that cannot be read is passed over: an audit brings it when it is healed. And whatever the store says of
            // its record, what an entry says of itself holds.
            let entry = wanted.then(|| store.entry(head.seq)).transpose()?.flatten();
            if wanted && entry.is_none() {
                stretch.unread = stretch.unread.or(Some(head.seq));
            }
            let entry = entry.filter(|entry| entry.secrecy() <= state.allowed);
            if let Some(entry) = entry
                && !comes_before_its_mark(head, &entry, store)?
                && !self.is_its_own(state, head, &entry)
                && self.is_for_us_to_bring(state, head, &entry, store)?
            {
                let bytes = entry.encoded_len();
                let full =
                    stretch.bytes + bytes > out.batch_bytes || stretch.chosen.len() == BATCH_MAX_ENTRIES;
                if full && !stretch.chosen.is_empty() {
                    break;
                }
                stretch.bytes += bytes;
                stretch.chosen.push((head.seq - segment.base, entry));
            }
            (stretch.last, stretch.rows) = (head.seq, rows);
            stretch.wanted += u64::from(wanted);
        }
        Ok(Some(stretch))
    }

    /// Whether a child that was moved here has written this entry itself, in a run of the feed that it knows, and the entry
    /// has come from above: then it has it, or an audit tells that it has lost it.
    fn is_its_own(&self, state: &Link, head: &Head, entry: &Entry) -> bool {
        let node = state.peer.node;
        let from_above = head.src.is_none_or(|src| !src.segment.is_of(node));
        state.direction == Direction::Down
            && from_above
            && entry.origin().is_of(node)
            && state.runs.contains(&entry.origin())
            && !head.homes.iter().any(|home| self.places.has_left(home, state.peer.place.org()))
            && self.places.moves_place(&state.certified.place)
    }

    /// A parent takes an entry of another part of the tree if the record belongs here as well by an entry that it has had
    /// before. So such an entry, which has come from above, is given back after that one alone: not in another lane, where
    /// it might overtake it, and not when the record is secret here and that one stays.
    fn is_for_us_to_bring(
        &self,
        state: &Link,
        head: &Head,
        entry: &Entry,
        store: &impl Store,
    ) -> Result<bool, StoreError> {
        // Of whom nobody here knows any more where they stand may stand below, and nobody else would bring it: the parent asks.
        let is_lost = |home: &OrgId| self.places.stands(home).is_none();
        let own = self.info().place.org();
        let is_ours =
            |entry: &Entry| is_lost(entry.home()) || self.places.has_come_through(entry.home(), own);
        // A row that was healed may not know any more where it has come from.
        let has_come = head.src.is_some() || !entry.origin().is_of(self.info().node);
        let from_above =
            has_come && head.offered_to.is_none() && entry.record().issuer().is_none() && !is_ours(entry);
        if state.direction == Direction::Down || !from_above {
            return Ok(true);
        }
        // A new parent has had what was before from above, or has it not.
        if self.places.has_moved(own) || store.secrecy(entry.record())? > state.allowed {
            return Ok(false);
        }
        for row in store.rows_of(entry.record())?.into_iter().take_while(|row| *row < head.seq) {
            if store.entry(row)?.is_some_and(|before| before.lane() == entry.lane() && is_ours(&before)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Confirms the places that the reader has named after LOST, so that it stands there from now on, also in a lane in
    /// which nothing more comes: a batch without entries up to each of them.
    pub(super) fn confirm_places(
        &mut self,
        link: LinkId,
        store: &impl Store,
        now: Now,
    ) -> Result<(), StoreError> {
        for lane in Lane::ALL {
            let out = self.links.get_mut(&link).map(|state| &mut state.out[lane as usize]);
            let Some((out, at)) = out.and_then(|out| out.told.map(|at| (out, at))) else { continue };
            let Some(upto) = out.next else { continue };
            self.say_place(link, lane, at, upto, at.pos, store, now)?;
        }
        Ok(())
    }

    /// Tells the reader that it stands at this place of the feed, which is row `upto`, by a batch without entries after `after`.
    #[expect(clippy::too_many_arguments, reason = "a batch has as many parts")]
    pub(super) fn say_place(
        &mut self,
        link: LinkId,
        lane: Lane,
        at: Position,
        upto: Seq,
        after: u64,
        store: &impl Store,
        now: Now,
    ) -> Result<(), StoreError> {
        let Some(state) = self.links.get_mut(&link) else { return Ok(()) };
        state.out[lane as usize].in_flight.push_back(InFlight { upto, bytes: 0, sent_at: now.mono });
        let chain = if at.pos == 0 { None } else { store.chain(upto)? }.unwrap_or(CHAIN_START);
        let (segment, upto) = (at.segment, Some((at.pos, chain)));
        let batch = EntryBatch { lane, segment, after, upto, origin: segment, entries: Vec::new() };
        self.send(link, Frame::Batch(batch));
        Ok(())
    }

    /// Sends a stretch as one batch for each origin; the last one moves the reader's cursor.
    fn send_stretch(
        &mut self,
        link: LinkId,
        lane: Lane,
        stretch: Stretch,
        store: &impl Store,
        now: Now,
    ) -> Result<(), StoreError> {
        let Stretch { segment, last, rows, wanted, chosen, bytes, unread } = stretch;
        if let Some(row) = unread.filter(|row| !self.damaged.contains_key(row)) {
            self.effects.push_back(Effect::Alert(Alert::Unread { row }));
        }
        let state = self.links.get_mut(&link).expect("a stretch is of a live link");
        let is_up = state.direction == Direction::Up;
        let out = &mut state.out[lane as usize];
        let before = out.next.replace(last).unwrap_or(0);
        if out.ahead.after == before && last <= out.ahead.upto {
            // Whom a row is for may have changed since it was counted.
            let rest = out.ahead.wanted.saturating_sub(wanted);
            (out.ahead.after, out.ahead.wanted) = (last, if last == out.ahead.upto { 0 } else { rest });
        }
        if chosen.is_empty() {
            out.skipped += rows;
            // A neighbour that has not been told of a segment would be announced it again at every reconnect.
            let told_of = out.told.is_some_and(|told| told.segment == segment.incarnation);
            // When the last row that had to go up cannot be read any more it is passed over aloud, or nobody would hear
            // that there is nothing to wait for.
            let end = self.last[lane as usize];
            let passes_end = is_up && before < end && end <= last;
            if told_of && out.skipped < SKIP_AFTER_ROWS && !passes_end {
                return Ok(());
            }
        }
        out.skipped = 0;
        let at = Position { segment: segment.incarnation, pos: last - segment.base };
        let after = out.after(segment.incarnation);
        out.told = Some(at);
        out.in_flight.push_back(InFlight { upto: last, bytes, sent_at: now.mono });
        let chain = store.chain(last)?.unwrap_or(CHAIN_START);
        for batch in batches(lane, after, at, chain, chosen) {
            self.send(link, Frame::Batch(batch));
        }
        Ok(())
    }

    /// Tells a child how much of its feed is safe at the root.
    pub(super) fn send_receipts(&mut self, link: LinkId) {
        let Some(state) = self.links.get_mut(&link) else { return };
        if state.direction == Direction::Up {
            return;
        }
        let Some(lineage) = &state.lineage else { return };
        for lane in Lane::ALL {
            let named = state.named.iter().find(|(l, _)| *l == lane).map(|(_, cursor)| cursor.at);
            let both = state.kept[lane as usize].or(named);
            let newest =
                newest_receipt(&self.marks, self.claims.of(Frontier::Root, lane), lane, both, lineage);
            let Some(newest) = newest else { continue };
            let known = &mut state.out[lane as usize].receipt;
            if *known != Some(newest) {
                *known = Some(newest);
                self.effects.push_back(Effect::Send(link, Frame::SafeAtRoot(lane, newest)));
            }
        }
    }
}

/// The newest place of a child's feed that is safe at the root, which has rows up to `root` of this node's own.
pub(super) fn newest_receipt(
    marks: &BTreeSet<Mark>,
    root: Seq,
    lane: Lane,
    both: Option<Position>,
    lineage: &[Lineage; 3],
) -> Option<Position> {
    let lineage = &lineage[lane as usize];
    let passed = marks.iter().filter(|mark| mark.lane == lane && mark.seq <= root);
    // A child that is an older copy knows less than we have read; what `both` know is no less safe.
    let agreed = |src: Position| both.filter(|at| at.segment == src.segment && at.pos < src.pos);
    let places = passed.filter_map(|mark| {
        let covered = Some(mark.src).filter(|src| lineage.covers(*src));
        covered.or_else(|| agreed(mark.src))
    });
    places.max_by_key(|at| lineage.order(*at))
}
