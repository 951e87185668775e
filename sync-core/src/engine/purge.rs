//! Forgetting what is no longer for this node: records whose homes an order has put elsewhere, or whose grants have ended.
//!
//! What always holds: nothing is forgotten before the root has it, and nothing that somebody here still has to be sent; and nothing
//! before an audit with the parent has ended that this process has begun: whoever was put back from an older copy may have had an entry
//! that makes the record its own, and gets it back by then. A record goes as a whole, with its rows; their running hashes stay, so
//! neighbours go on where they are. What orders have put elsewhere hubs alone forget, and none what it has written for itself, what
//! is issued, or what is secret here, which is nowhere else. Not here: telling people, which the host does when
//! [`Effect::Forgotten`] says what there is to tell.

use std::collections::btree_map::Entry as Slot;

use super::{commit::Draft, grants::earlier, *};
use crate::{
    id::{RecordId, Secrecy},
    scope::grant::{self, Grant, Granted},
    store::{Forgotten, Purge},
};

/// Rows that are looked at in one commit.
const PURGE_ROWS: usize = 4_096;

/// What comes without a word that it is for this node is looked at after so long, in milliseconds: that word may be on its
/// way, in the other order when whoever sends it has only now heard of this node.
pub const LEAVING_AFTER_MILLIS: Millis = 600_000;

/// What records wait for whose grants have ended.
#[derive(Debug, Clone, Default)]
pub(super) struct Waits {
    /// Something still has to go up.
    root: bool,
    /// These have not been told yet that it has ended.
    told: BTreeSet<OrgId>,
    /// When the first of these grants would have ended by its time, by the wall clock.
    until: Option<i64>,
    /// Nobody here knows where somebody stands to whom one belongs: it may be below.
    unknown: bool,
}

/// Records that have come without a word that they are for this node, and until when that is waited for, by [`Now::mono`].
#[derive(Debug, Clone, Default)]
pub(super) struct Unheard {
    until: BTreeMap<RecordId, Millis>,
    /// The same in the order in which they came, and some that are not waited for any more.
    queue: VecDeque<(Millis, RecordId)>,
    /// Those that were in the store when the process began, until its first event tells the time.
    found: Vec<RecordId>,
}

impl Unheard {
    /// What is to be forgotten by the store of a process that begins: it does not remember for how long it has waited.
    pub(super) fn found(found: Vec<RecordId>) -> Self {
        Self { found, ..Self::default() }
    }

    pub(super) fn wait(&mut self, record: RecordId, now: Now) {
        let until = now.mono + LEAVING_AFTER_MILLIS;
        if let Slot::Vacant(slot) = self.until.entry(record.clone()) {
            slot.insert(until);
            self.queue.push_back((until, record));
        }
    }

    /// When the first of them has waited for long enough, as far as it hangs on the time.
    pub(super) fn next(&self, audited: Option<Millis>) -> Option<Millis> {
        let first = self.queue.front().map(|(until, _)| *until).filter(|until| was_audited(*until, audited));
        if self.found.is_empty() { first } else { Some(0) }
    }

    fn waits_for(&self, record: &RecordId) -> bool {
        self.until.contains_key(record) || self.found.contains(record)
    }

    /// Whether the first of them waits for an audit.
    fn awaits_audit(&self, audited: Option<Millis>) -> bool {
        self.queue.front().is_some_and(|(until, _)| !was_audited(*until, audited))
    }

    pub(super) fn stop(&mut self, record: &RecordId) {
        self.until.remove(record);
        while let Some((until, record)) = self.queue.front()
            && self.until.get(record) != Some(until)
        {
            self.queue.pop_front();
        }
    }

    /// Stops waiting for those that have waited for long enough, and came before an audit began. Whether there were any.
    fn due(&mut self, now: Now, audited: Option<Millis>) -> bool {
        std::mem::take(&mut self.found).into_iter().for_each(|record| self.wait(record, now));
        let mut any = false;
        while let Some((until, _)) = self.queue.front()
            && *until <= now.mono
            && was_audited(*until, audited)
            && let Some((until, record)) = self.queue.pop_front()
        {
            if self.until.get(&record) == Some(&until) {
                self.until.remove(&record);
                any = true;
            }
        }
        any
    }
}

/// Whether an audit began after a record came that is waited for until this time.
fn was_audited(until: Millis, audited: Option<Millis>) -> bool {
    audited.is_some_and(|began| until <= began + LEAVING_AFTER_MILLIS)
}

impl<I: Identity> Engine<I> {
    /// What is being forgotten, or has been and is still to be told.
    pub fn purge(&self) -> Option<&Purge> {
        self.purge.as_ref()
    }

    /// A leaf holds nothing but what is its own, or open to it.
    pub(super) fn is_hub(&self) -> bool {
        self.info().role == Role::Hub
    }

    /// Whether a record with these homes and grants is for this node: it is its own, belongs to somebody below it, or it is not
    /// known to whom; or it is open to it, or to somebody below it.
    pub(super) fn is_for_us(places: &Places, own: &OrgId, homes: &[OrgId], grants: &[Granted]) -> bool {
        let is_known = |home| places.stands(own).is_some() && places.of(home).is_some();
        homes.is_empty() || !homes.iter().all(is_known) || Self::is_surely_for_us(places, own, homes, grants)
    }

    /// The same as far as it is known to whom it belongs.
    fn is_surely_for_us(places: &Places, own: &OrgId, homes: &[OrgId], grants: &[Granted]) -> bool {
        let is_below = |org| places.stands(own).is_some_and(|here| places.is_within(org, here));
        homes.iter().any(|home| home == own || is_below(home)) || grant::opened(grants).any(is_below)
    }

    /// Whether something is to be forgotten that waits for nothing but an audit: nothing waits for the root, or it has more since.
    fn would_forget(&self) -> bool {
        let goes_on = self.purge.as_ref().is_some_and(|purge| purge.done < purge.upto);
        let leaves = self.leaving && self.leaving_waits.is_none() && self.purge.is_none();
        leaves || (goes_on && self.purge_waits != Some(self.claims.all(Frontier::Root)))
    }

    pub(super) fn can_forget(&self) -> bool {
        self.audited.is_some() && self.would_forget()
    }

    /// How many records are here that were open to this node and are not any more, and wait for an audit with the parent.
    pub fn ended_here(&self, store: &impl Store) -> Result<u64, StoreError> {
        if self.audited.is_some() || !self.leaving {
            return Ok(0);
        }
        let mut ended = 0;
        for (record, _) in store.leaving()? {
            // It may have been opened anew since.
            let (homes, grants) = (store.homes(&record)?, store.grants(&record)?);
            let is_open = Self::is_for_us(&self.places, self.info().place.org(), &homes, &grants);
            ended += u64::from(!is_open && !self.unheard.waits_for(&record));
        }
        Ok(ended)
    }

    /// The link to the parent, when something waits for an audit with it, to be forgotten or to count: the host says
    /// [`Event::Audit`] then, and again after a while when the parent was busy.
    pub fn awaits_audit(&self) -> Option<LinkId> {
        let forgets = self.audited.is_none() && self.would_forget();
        if !self.claims.awaits_audit() && !forgets && !self.unheard.awaits_audit(self.audited) {
            return None;
        }
        let parent = |link: &&Link| link.direction == Direction::Up && link.is_settled();
        self.links.values().find(parent).map(|link| link.id)
    }

    /// An audit with the parent that began then has come to its end, and has given it these rows.
    pub(super) fn is_audited(&mut self, began: Millis, gave: Vec<Seq>) {
        self.audited = self.audited.max(Some(began));
        if self.claims.awaits_audit() {
            self.intents.push_back(Intent::Gave(began, gave));
        }
    }

    /// Orders are kept: what is here and is for others by these is to be forgotten.
    pub(super) fn purge_begins(
        &self,
        places: &Places,
        draft: &mut Draft,
        store: &impl Store,
    ) -> Result<(), StoreError> {
        let own = self.info().place.org();
        let foreign = |home: &OrgId| !Self::is_for_us(places, own, std::slice::from_ref(home), &[]);
        let homes = store.digests()?.into_iter().filter(|(_, digest)| digest.count > 0).map(|(home, _)| home);
        let homes: Vec<_> = homes.filter(foreign).collect();
        if self.is_hub() && !homes.is_empty() {
            let order = ordered(places, &homes, own);
            let forgotten = draft.after.purge.take().map(|purge| purge.forgotten).unwrap_or_default();
            draft.after.purge = Some(Purge { order, done: 0, upto: draft.after.tip, forgotten });
        }
        Ok(())
    }

    /// An entry of this record has come at the end of the feed; an order may have put the record elsewhere meanwhile.
    pub(super) fn purge_late(&self, record: &RecordId, draft: &mut Draft) {
        let (homes, grants) = draft.homes_and_grants(record);
        if self.is_elsewhere_by_order(homes, grants) {
            let order = ordered(&self.places, homes, self.info().place.org());
            self.purge_from(draft.after.tip, order, draft);
        }
    }

    /// Whether orders have put a record with these homes and grants elsewhere.
    pub(super) fn is_elsewhere_by_order(&self, homes: &[OrgId], grants: &[Granted]) -> bool {
        let own = self.info().place.org();
        let is_ordered = self.is_hub() && !self.places.orders().is_empty();
        is_ordered && !Self::is_for_us(&self.places, own, homes, grants)
    }

    /// What stands at this row, or after it, is to be looked at (again), because of that order.
    pub(super) fn purge_from(&self, row: Seq, order: u64, draft: &mut Draft) {
        let purge = draft.after.purge.get_or_insert(Purge { order, done: row - 1, ..Purge::default() });
        // Up to the end also for a row that is healed: the end of each purge names its receipt, and is beyond the last one's.
        (purge.done, purge.upto) = (purge.done.min(row - 1), draft.after.tip);
    }

    /// Forgets the next part.
    pub(super) fn draft_purge(&mut self, draft: &mut Draft, store: &impl Store) -> Result<(), StoreError> {
        // What begins with this commit goes on when the orders hold.
        let holds = draft.after.ordered.is_empty() && self.audited.is_some();
        if let Some(mut purge) = draft.after.purge.take() {
            if holds && purge.done < purge.upto {
                self.forget_some(&mut purge, draft, store)?;
            }
            let is_told = purge.done >= purge.upto && purge.forgotten.is_empty();
            draft.after.purge = Some(purge).filter(|_| !is_told);
        }
        // Not in the commit that ends another one: of two that are alike the second would not be told.
        if holds && self.leaving && self.purge.is_none() && draft.after.purge.is_none() {
            self.forget_leaving(draft, store)?;
        }
        if draft.after.purge != self.purge {
            draft.ops.push(Op::Purge(draft.after.purge.clone()));
        }
        Ok(())
    }

    fn forget_some(
        &mut self,
        purge: &mut Purge,
        draft: &mut Draft,
        store: &impl Store,
    ) -> Result<(), StoreError> {
        let own = self.info().place.org().clone();
        let rows = store.unfolded(purge.done, PURGE_ROWS)?;
        let ended = rows.len() < PURGE_ROWS;
        let mut looked_at = BTreeSet::new();
        self.purge_waits = None;
        for (row, record) in rows.into_iter().filter(|(row, _)| *row <= purge.upto) {
            if record.issuer().is_none() && looked_at.insert(record.clone()) {
                let grants = store.grants(&record)?;
                let stays = Self::is_for_us(&self.places, &own, &store.homes(&record)?, &grants)
                    || store.secrecy(&record)? != Secrecy::None;
                if !stays && self.who_is_to_be_told(&grants, draft.at, store)?.is_some() {
                    draft.ops.push(Op::Leaving(record.clone(), Some(draft.after.tip)));
                    draft.after.leaving.push(record);
                } else if !stays {
                    // What this commit adds to it is not in the store yet.
                    if draft.holds(&record) {
                        return Ok(());
                    }
                    let rows = store.rows_of(&record)?;
                    if !self.is_at_root(&rows, draft, store)? {
                        self.purge_waits = Some(self.claims.all(Frontier::Root));
                        return Ok(());
                    }
                    count(&mut purge.forgotten, &store.homes(&record)?[0], rows.len() as u64);
                    self.forget(record, draft);
                }
            }
            purge.done = row;
        }
        // What this commit appends is looked at in the next.
        if ended {
            purge.done = purge.upto.min(store.tip()?);
        }
        Ok(())
    }

    /// Forgets records whose grants have ended: when the root has what was to go up by then, and those below have heard of it,
    /// who will not hear of it again.
    fn forget_leaving(&mut self, draft: &mut Draft, store: &impl Store) -> Result<(), StoreError> {
        let own = self.info().place.org().clone();
        let (mut forgotten, mut waits, mut left) = (Vec::new(), Waits::default(), 0);
        for (record, upto) in store.leaving()? {
            if self.unheard.until.contains_key(&record) {
                continue;
            }
            left += 1;
            if draft.holds(&record) {
                continue;
            }
            let (homes, grants, rows) =
                (store.homes(&record)?, store.grants(&record)?, store.rows_of(&record)?);
            let is_here = Self::is_surely_for_us(&self.places, &own, &homes, &grants);
            let unknown = homes.iter().filter_map(|home| self.places.unknown_of(home));
            let unknown: Vec<_> = unknown.filter(|_| !is_here).cloned().collect();
            if is_here || rows.is_empty() || store.secrecy(&record)? != Secrecy::None {
                draft.ops.push(Op::Leaving(record, None));
                left -= 1;
            } else if !unknown.is_empty() {
                waits.unknown = true;
                draft.after.seeks.extend(unknown);
            } else if self.waits_for_the_root(upto, draft) {
                waits.root = true;
            } else if let Some(Grant { to, until, .. }) = self.who_is_to_be_told(&grants, draft.at, store)? {
                waits.told.insert(to.clone());
                waits.until = earlier(waits.until, *until);
            } else {
                count(&mut forgotten, &homes[0], rows.len() as u64);
                self.forget(record, draft);
                left -= 1;
            }
        }
        let is_waiting = waits.root || waits.unknown || !waits.told.is_empty();
        self.leaving = left > 0;
        self.leaving_waits = Some(waits).filter(|_| is_waiting);
        let tip = draft.after.tip;
        if !forgotten.is_empty() {
            draft.after.purge = Some(Purge { order: 0, done: tip, upto: tip, forgotten });
        }
        Ok(())
    }

    /// Rows of it that were found damaged are not to be put back: it may come again, and has others then.
    fn forget(&mut self, record: RecordId, draft: &mut Draft) {
        self.contents.forget(&record);
        self.damaged.retain(|_, damage| damage.record.as_ref() != Some(&record));
        draft.ops.push(Op::Forget(record));
    }

    fn waits_for_the_root(&self, upto: Seq, draft: &Draft) -> bool {
        let has =
            |lane: Lane| self.claims.of(Frontier::Root, lane) >= draft.after.last[lane as usize].min(upto);
        !Lane::ALL.into_iter().all(has)
    }

    /// Somebody below this node who has not heard that a grant has ended before its time. When that has passed everybody
    /// ends it alone.
    fn who_is_to_be_told<'a>(
        &self,
        grants: &'a [Granted],
        now: i64,
        store: &impl Store,
    ) -> Result<Option<&'a Grant>, StoreError> {
        let own = self.info().place.org();
        let Some(here) = self.places.stands(own) else { return Ok(None) };
        for Granted { grant, over } in grants {
            let Some(row) = over.filter(|row| *row > 0 && grant.until > now) else { continue };
            // This node itself may be the successor of whom it was opened to.
            let is_below = |place: &&OrgPath| *place != here && place.is_within(here);
            let mut below = self.places.holders(&grant.to).filter(is_below).peekable();
            if below.peek().is_none() {
                continue;
            }
            let Some(lane) = store.entry(row)?.map(|entry| entry.lane()) else { continue };
            if !below.all(|place| self.has_heard(place, lane, row)) {
                return Ok(Some(grant));
            }
        }
        Ok(None)
    }

    /// When nobody is waited for any more who has not heard that some grant has ended, by the wall clock.
    pub(super) fn told_until(&self) -> Option<i64> {
        self.leaving_waits.as_ref().and_then(|waits| waits.until)
    }

    /// What has come without a word that it is for this node has waited for one, or everybody has ended by now what somebody has
    /// not heard of.
    pub(super) fn leaving_is_due(&mut self, now: Now) {
        let is_over = self.told_until().is_some_and(|until| until <= now.wall);
        if self.unheard.due(now, self.audited) || is_over {
            (self.leaving, self.leaving_waits) = (true, None);
        }
    }

    /// Somebody has announced itself, or an order says where somebody stands.
    pub(super) fn leaving_is_known(&mut self) {
        self.leaving_waits.take_if(|waits| waits.unknown);
    }

    /// The root has more, or a child has said how far it has read.
    pub(super) fn leaving_goes_on(&mut self, child: Option<LinkId>) {
        let Some(waits) = &self.leaving_waits else { return };
        let goes_on = match child.and_then(|link| self.links.get(&link)) {
            Some(link) => {
                let is_below = |place: &OrgPath| place.is_within(&link.peer.place);
                waits.told.iter().any(|org| self.places.holders(org).any(is_below))
            }
            None => waits.root,
        };
        if goes_on {
            self.leaving_waits = None;
        }
    }

    /// Whether the root has these rows of a record, or whoever stands above and has sent them, and nothing of it still has to
    /// go up: what has come from above may go up once more for a child.
    fn is_at_root(&self, rows: &[Seq], draft: &Draft, store: &impl Store) -> Result<bool, StoreError> {
        let own = self.info().place.org();
        for row in rows {
            let Some(entry) = store.entry(*row)? else { continue };
            let lane = entry.lane();
            let root = self.claims.of(Frontier::Root, lane);
            if root >= draft.after.last[lane as usize] {
                continue;
            }
            let is_below = |info: NodeInfo| self.places.has_stood_within(info.place.org(), own);
            let from_above = sender(lane, *row, store)?.is_some_and(|sender| !sender.is_some_and(is_below));
            if *row > root || from_above {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// People have been told of so much.
    pub(super) fn draft_told(&mut self, told: &[Forgotten], draft: &mut Draft) {
        let Some(purge) = &mut draft.after.purge else { return };
        for part in told {
            if let Some(known) = purge.forgotten.iter_mut().find(|known| known.home == part.home) {
                known.records = known.records.saturating_sub(part.records);
                known.entries = known.entries.saturating_sub(part.entries);
            }
        }
        purge.forgotten.retain(|known| known.records > 0);
    }

    /// When all is forgotten there is something to tell.
    pub(super) fn tell_what_is_forgotten(&mut self) {
        let ended = |purge: &&Purge| purge.done >= purge.upto && !purge.forgotten.is_empty();
        let told = self.purge.as_ref().filter(ended).cloned();
        self.effects.extend(told.map(Effect::Forgotten));
    }
}

/// Who has sent a row, as far as that is still announced; none when it is of this node's own making.
pub(super) fn sender(
    lane: Lane,
    row: Seq,
    store: &impl Store,
) -> Result<Option<Option<NodeInfo>>, StoreError> {
    let head = store.heads(lane, row - 1, 1)?.into_iter().find(|head| head.seq == row);
    let src = head.and_then(|head| head.src);
    let sender = src.map(|src| store.announcement(src.segment)).transpose()?;
    Ok(sender.map(|known| known.map(|(_, info)| info)))
}

/// The order by which something of these homes left `own` last; the last one of all where that is not known.
pub(super) fn ordered(places: &Places, homes: &[OrgId], own: &OrgId) -> u64 {
    let left = homes.iter().filter_map(|home| places.left_by(home, own)).max();
    left.or(places.orders().last().map(|order| order.number)).unwrap_or_default()
}

fn count(forgotten: &mut Vec<Forgotten>, home: &OrgId, entries: u64) {
    let at = match forgotten.binary_search_by(|known| known.home.cmp(home)) {
        Ok(at) => at,
        Err(at) => {
            forgotten.insert(at, Forgotten { home: home.clone(), records: 0, entries: 0 });
            at
        }
    };
    forgotten[at].records += 1;
    forgotten[at].entries += entries;
}
