//! Grants: what follows when a record is opened to an organization, and when that has ended.
//!
//! Whoever gains a record by a grant is offered what is known of it, as by a new home. When a grant has ended, by the word of
//! whoever speaks for the record's home or because its time has passed here, nothing of the record goes there any more, and
//! who holds it by that grant alone forgets it: see [`super::purge`]. A leaf does so as well. Not here: who gives a grant.

use std::cmp::Reverse;

use super::{commit::Draft, *};
use crate::{
    id::RecordId,
    scope::grant::{self, FOREVER, Grant, Granted, Step},
};

/// Grants that end in one commit because their time has passed.
const ENDS_AT_ONCE: usize = 1_024;

/// So many offers of whole records are remembered.
const OFFERED_MAX: usize = 65_536;

/// By what an organization has gained a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gained {
    /// It is a home of it, or stands elsewhere by an order.
    Home,
    /// It is open to it.
    Grant,
}

impl Draft {
    /// Whom a record was open to hears, by a row of its own, that the entry of this row has ended that.
    fn tell_end(&mut self, record: &RecordId, row: Seq, grant: Grant) {
        self.offer(row, Offered::Former(grant.to.clone()));
        let over = Some(self.after.tip);
        self.ops.push(Op::Grant(record.clone(), Granted { grant, over }));
    }
}

impl<I: Identity> Engine<I> {
    /// Keeps the grants that an entry opens. For each organization that gains its record by them, the rows before it.
    pub(super) fn open_grants(
        &mut self,
        entry: &Entry,
        draft: &mut Draft,
        store: &impl Store,
    ) -> Result<Vec<(OrgId, Vec<Seq>)>, StoreError> {
        let (record, mut gained) = (entry.record(), Vec::new());
        draft.grants_of(record, store)?;
        // What is secret goes nowhere, and neither does the word that opens it.
        let steps = entry.grants().unwrap_or_default();
        let is_open = record.issuer().is_none() && entry.secrecy() == Secrecy::None;
        if steps.is_empty() || !is_open || Self::marked_before(entry, draft, store)? != Secrecy::None {
            return Ok(gained);
        }
        for step in steps {
            let Step::Opens(grant) = step else { continue };
            let held_for = draft.held_for(record);
            let known = draft.grants_of(record, store)?;
            if known.iter().any(|one| (one.grant.id, &one.grant.to) == (grant.id, &grant.to)) {
                continue;
            }
            known.push(Granted { grant: grant.clone(), over: None });
            draft.after.grant_end = earlier(draft.after.grant_end, grant.until);
            if self.places.stands(&grant.to).is_none() {
                draft.after.seeks.push(grant.to.clone());
            }
            if !held_for.contains(&grant.to) {
                gained.push((grant.to.clone(), draft.rows_so_far(record, store)?));
            }
            draft.ops.push(Op::Grant(record.clone(), Granted { grant, over: None }));
            draft.after.scope_grows = true;
        }
        Ok(gained)
    }

    /// Ends the grants that the entry of this row ends. Those below are told so by a row of its own, because nothing else of
    /// the record is sent to them any more.
    pub(super) fn end_grants(
        &mut self,
        record: &RecordId,
        row: Seq,
        steps: Vec<Step>,
        draft: &mut Draft,
        store: &impl Store,
    ) -> Result<(), StoreError> {
        for step in steps.into_iter().filter(|_| record.issuer().is_none()) {
            let Step::Ends(grant) = step else { continue };
            draft.grants_of(record, store)?;
            // One that is closed holds what was open to it still.
            let was_for_us = self.is_held_here(record, draft) || grant.to == *self.info().place.org();
            let known = draft.grants_of(record, store)?;
            let same = |one: &&mut Granted| (one.grant.id, &one.grant.to) == (grant.id, &grant.to);
            match known.iter_mut().find(same) {
                Some(known) if known.over.is_some() => continue,
                Some(known) => known.over = Some(row),
                // It is known to be over before it is known to have been given.
                None => known.push(Granted { grant: grant.clone(), over: Some(row) }),
            }
            draft.tell_end(record, row, grant);
            self.leave(record, was_for_us, draft);
        }
        Ok(())
    }

    /// Tells whom a record was open to once more that one of these rows has ended that.
    pub(super) fn tell_former(
        &mut self,
        record: &RecordId,
        rows: &[Seq],
        grant: Grant,
        draft: &mut Draft,
        store: &impl Store,
    ) -> Result<(), StoreError> {
        let ends =
            |step: &Step| matches!(step, Step::Ends(one) if (one.id, &one.to) == (grant.id, &grant.to));
        for row in rows {
            let entry = store.entry(*row)?;
            if entry.is_some_and(|entry| entry.grants().is_ok_and(|steps| steps.iter().any(ends))) {
                self.open_segment(draft);
                draft.tell_end(record, *row, grant);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Somebody announces itself for the first time, and until then nothing went to where it stands: it is offered what has been
    /// opened to it.
    pub(super) fn offer_what_is_open(
        &mut self,
        info: &NodeInfo,
        draft: &mut Draft,
        store: &impl Store,
    ) -> Result<(), StoreError> {
        let org = info.place.org();
        if store.announcement_of(org)?.is_some() {
            return Ok(());
        }
        let is_open = |grants: &Vec<Granted>| grant::opened(grants).any(|to| to == org);
        let in_draft =
            draft.grants.iter().filter(|(_, grants)| is_open(grants)).map(|(record, _)| record.clone());
        let records: BTreeSet<RecordId> = in_draft.chain(store.open_to(org)?).collect();
        for record in records {
            if is_open(draft.grants_of(&record, store)?) {
                let rows = draft.rows_so_far(&record, store)?;
                self.offer_whole(&record, rows, org, Gained::Grant, draft, store)?;
            }
        }
        Ok(())
    }

    /// Offers rows of a record to an organization that has gained it. The words that end other grants go before those that gave
    /// them: should this grant end on the way, none of them would be left open there. To a home, which may have to give
    /// them back to us in this order, first goes what makes the record its own.
    pub(super) fn offer_whole(
        &mut self,
        record: &RecordId,
        mut rows: Vec<Seq>,
        to: &OrgId,
        gained: Gained,
        draft: &mut Draft,
        store: &impl Store,
    ) -> Result<(), StoreError> {
        let mut ranks = BTreeMap::new();
        for row in &rows {
            // What this commit has appended cannot be read yet.
            let Some(entry) = store.entry(*row)? else { continue };
            let ends =
                entry.grants().is_ok_and(|steps| steps.iter().any(|step| matches!(step, Step::Ends(_))));
            let rank = match (entry.makes_theirs(to), ends, gained) {
                (true, _, Gained::Home) => 1,
                (_, true, _) => 2,
                (true, ..) => 3,
                _ => 4,
            };
            // Before all else comes what says how secret the record is: whoever passes it on has to know.
            ranks.insert(*row, (Reverse(entry.secrecy()), rank));
        }
        let unread = (Reverse(Secrecy::TuyetMat), 0);
        rows.sort_by_key(|row| (ranks.get(row).copied().unwrap_or(unread), *row));
        for of in rows {
            self.open_segment(draft);
            draft.offer(of, Offered::Home(to.clone()));
        }
        if gained == Gained::Grant {
            if self.offered.len() >= OFFERED_MAX {
                self.offered.clear();
            }
            self.offered.insert((record.clone(), to.clone()), draft.after.tip);
        }
        Ok(())
    }

    /// A grant has ended by its time, and another one keeps the record open to the same organization. Below, where that
    /// is not known yet, it is forgotten meanwhile: then it is offered once more.
    fn offer_what_stays_open(
        &mut self,
        record: &RecordId,
        to: &OrgId,
        draft: &mut Draft,
        store: &impl Store,
    ) -> Result<(), StoreError> {
        let open: Vec<_> = draft
            .grants_of(record, store)?
            .iter()
            .filter(|one| one.over.is_none() && one.grant.to == *to)
            .cloned()
            .collect();
        let is_below = |place: &&OrgPath| *place != self.place() && place.is_within(self.place());
        let Some(below) = self.places.of(to).filter(is_below) else { return Ok(()) };
        if open.is_empty() || draft.homes.get(record).is_some_and(|homes| homes.contains(to)) {
            return Ok(());
        }
        let (mut rows, offered) = (Vec::new(), self.offered.get(&(record.clone(), to.clone())).copied());
        for row in store.rows_of(record)? {
            let Some(entry) = store.entry(row)? else { continue };
            let opens = |step: &Step| matches!(step, Step::Opens(grant) if open.iter().any(|one| one.grant == *grant));
            if entry.grants().is_ok_and(|steps| steps.iter().any(opens)) {
                // Or all of it is on its way behind the word that keeps it open.
                let lane = entry.lane();
                let is_on_its_way =
                    offered.is_some_and(|offer| offer > row && !self.has_heard(below, lane, offer));
                if is_on_its_way || self.has_heard(below, lane, row) {
                    return Ok(());
                }
            }
            rows.push(row);
        }
        self.offer_whole(record, rows, to, Gained::Grant, draft, store)
    }

    /// Whether the child below which this place is has read up to this row.
    pub(super) fn has_heard(&self, place: &OrgPath, lane: Lane, row: Seq) -> bool {
        self.links.values().any(|link| {
            let out = &link.out[lane as usize];
            link.direction == Direction::Down
                && place.is_within(&link.peer.place)
                && out.next.is_some()
                && out.durable >= row
        })
    }

    /// Whether a grant is over by this node's clock.
    pub(super) fn is_a_grant_over(&self, now: Now) -> bool {
        self.grant_end.is_some_and(|end| end <= now.wall)
    }

    /// Ends the grants whose time has passed.
    pub(super) fn draft_ended(&mut self, draft: &mut Draft, store: &impl Store) -> Result<(), StoreError> {
        if self.grant_end.is_none_or(|end| end > draft.at) {
            return Ok(());
        }
        let ended = store.grants_until(draft.at, ENDS_AT_ONCE)?;
        let is_all = ended.len() < ENDS_AT_ONCE;
        for (record, granted) in ended {
            for known in draft.grants_of(&record, store)?.iter_mut() {
                if known.grant == granted.grant {
                    known.over = known.over.or(Some(0));
                }
            }
            draft.homes.entry(record.clone()).or_insert(store.homes(&record)?);
            let to = granted.grant.to.clone();
            draft.ops.push(Op::Grant(record.clone(), Granted { over: Some(0), ..granted }));
            self.leave(&record, true, draft);
            self.offer_what_stays_open(&record, &to, draft, store)?;
        }
        draft.after.grant_end = if is_all { None } else { Some(draft.at) };
        draft.after.grants_ended = true;
        Ok(())
    }

    /// This record is to be forgotten, unless it is for somebody here: at once if it was until now, and else when no word has
    /// come by some time that it is.
    pub(super) fn leave(&self, record: &RecordId, was_for_us: bool, draft: &mut Draft) {
        if self.is_root() || self.is_held_here(record, draft) {
            return;
        }
        draft.ops.push(Op::Leaving(record.clone(), Some(draft.after.tip)));
        let list = if was_for_us { &mut draft.after.leaving } else { &mut draft.after.unheard };
        list.push(record.clone());
    }

    fn is_held_here(&self, record: &RecordId, draft: &Draft) -> bool {
        let (homes, grants) = draft.homes_and_grants(record);
        Self::is_for_us(&self.places, self.info().place.org(), homes, grants)
    }
}

/// When the first of some grants ends, and of another one.
pub(super) fn earlier(first: Option<i64>, until: i64) -> Option<i64> {
    first.into_iter().chain(Some(until).filter(|until| *until < FOREVER)).min()
}
