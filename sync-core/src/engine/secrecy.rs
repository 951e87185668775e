//! What is secret, and to whom it may go: as far as both ends of a link allow, or whoever gives a bundle to a courier.
//!
//! What always holds: nothing of a record reaches a neighbour before the mark, unless it was written and had gone there before.
//! So what this node had written before somebody marked the record follows the mark, as rows that offer it once more; and what
//! comes to be allowed is offered in that order. Not here: who decides what is allowed, which the host knows.

use std::cmp::Reverse;

use super::{commit::Draft, *};
use crate::store::Head;

/// Whether the mark by which this row of this node's own making is as secret as it is stands behind it in the feed: then a row
/// behind that offers its entry once more.
pub(super) fn comes_before_its_mark(
    head: &Head,
    entry: &Entry,
    store: &impl Store,
) -> Result<bool, StoreError> {
    if head.src.is_some() || head.secrecy <= entry.secrecy() {
        return Ok(false);
    }
    for row in store.rows_of(entry.record())?.into_iter().take_while(|row| *row < head.seq) {
        let is_mark = |before: Entry| {
            before.secrecy() >= head.secrecy && before.origin().author() == entry.origin().author()
        };
        if store.entry(row)?.is_some_and(is_mark) {
            return Ok(false);
        }
    }
    Ok(true)
}

impl<I: Identity> Engine<I> {
    /// How secret what goes to the parent may be, by what was last agreed on with it.
    pub fn allowed_up(&self) -> Secrecy {
        self.place().parent().map_or(Secrecy::None, |parent| self.allowed_to(parent.org()))
    }

    /// The same of any neighbour. Nothing secret, as long as nothing was agreed on.
    pub fn allowed_to(&self, org: &OrgId) -> Secrecy {
        self.allowed.allowed(org, Way::Link)
    }

    /// How secret what goes over a link may be.
    pub(super) fn allowed_over(&self, link: LinkId) -> Secrecy {
        self.links.get(&link).map_or(Secrecy::None, |state| state.allowed)
    }

    pub(super) fn sender_of(&self, link: LinkId) -> Sender {
        let state = &self.links[&link];
        let allowed = self.profiles.allowed(state.peer.place.org(), Way::Link);
        Sender { link, direction: state.direction, place: state.peer.place.clone(), allowed }
    }

    /// The operator has decided anew.
    pub(super) fn take_profiles(&mut self, profiles: Profiles) {
        if profiles == self.profiles {
            return;
        }
        let known: BTreeSet<_> =
            profiles.iter().chain(self.allowed.iter()).map(|(org, way, _)| (org.clone(), way)).collect();
        for (org, way) in known.into_iter().filter(|(_, way)| *way == Way::Courier) {
            let upto = profiles.allowed(&org, way);
            self.allow(org, way, upto);
        }
        self.profiles = profiles;
        let links: Vec<_> = self.links.keys().copied().collect();
        links.into_iter().for_each(|link| self.hang_up(link));
    }

    /// The neighbour has said what its own profile allows.
    pub(super) fn agree_on_secrecy(&mut self, link: LinkId, org: OrgId, theirs: Secrecy) {
        let allowed = self.profiles.allowed(&org, Way::Link).min(theirs);
        if let Some(state) = self.links.get_mut(&link) {
            state.allowed = allowed;
            self.allow(org, Way::Link, allowed);
        }
    }

    fn allow(&mut self, org: OrgId, way: Way, upto: Secrecy) {
        if self.allowed.allowed(&org, way) != upto {
            self.intents.push_back(Intent::Allow(org, way, upto));
        }
    }

    /// What may go to a neighbour has changed. What comes to be allowed was passed over until now, and is offered.
    pub(super) fn draft_allowed(
        &mut self,
        org: OrgId,
        way: Way,
        upto: Secrecy,
        draft: &mut Draft,
        store: &impl Store,
    ) -> Result<(), StoreError> {
        let in_draft = draft.after.allowed.iter().rev().find(|(known, by, _)| (known, *by) == (&org, way));
        let before = in_draft.map_or(self.allowed.allowed(&org, way), |(_, _, before)| *before);
        let mut rows: BTreeMap<(RecordId, Lane), Vec<Seq>> = BTreeMap::new();
        for (row, degree) in store.secret_rows()? {
            if degree > before
                && degree <= upto
                && let Some(entry) = store.entry(row)?
            {
                rows.entry((entry.record().clone(), entry.lane())).or_default().push(row);
            }
        }
        for ((record, lane), mut rows) in rows {
            self.marks_first(&mut rows, upto, store)?;
            self.offer_to(&org, &record, lane, rows, draft, store)?;
        }
        draft.ops.push(Op::Allow(org.clone(), way, upto));
        draft.after.allowed.push((org, way, upto));
        Ok(())
    }

    /// How secret an entry's record is by the marks of the same author that are here.
    pub(super) fn marked_before(
        entry: &Entry,
        draft: &Draft,
        store: &impl Store,
    ) -> Result<Secrecy, StoreError> {
        let (record, origin) = (entry.record(), entry.origin());
        let author = origin.author();
        let mut degree = draft.marked.get(&(record.clone(), author.to_vec())).copied().unwrap_or_default();
        if store.secrecy(record)? > degree {
            for row in store.rows_of(record)? {
                let same = store.entry(row)?.filter(|before| before.origin().author() == author);
                degree = degree.max(same.map_or(Secrecy::None, |before| before.secrecy()));
            }
        }
        Ok(degree)
    }

    /// Somebody here has marked a record, or given it a higher degree: what was written here before follows the mark to
    /// whoever may have it.
    pub(super) fn follow_the_mark(
        &mut self,
        (record, lane): (&RecordId, Lane),
        degree: Secrecy,
        mut before: Vec<Seq>,
        draft: &mut Draft,
        store: &impl Store,
    ) -> Result<(), StoreError> {
        let tip = store.tip()?;
        for row in std::mem::take(&mut before) {
            let lane = store.entry(row)?.map(|entry| entry.lane());
            let came = lane.map(|lane| super::purge::sender(lane, row, store)).transpose()?.flatten();
            if row > tip || came.is_none() {
                before.push(row);
            }
        }
        let orgs: BTreeSet<_> =
            self.allowed.iter().filter(|(_, _, upto)| *upto >= degree).map(|(org, ..)| org.clone()).collect();
        for org in orgs {
            self.offer_to(&org, record, lane, before.clone(), draft, store)?;
        }
        Ok(())
    }

    /// Offers rows of a record to a neighbour: to the parent, or to those at or below a child whose it is.
    fn offer_to(
        &mut self,
        org: &OrgId,
        record: &RecordId,
        lane: Lane,
        rows: Vec<Seq>,
        draft: &mut Draft,
        store: &impl Store,
    ) -> Result<(), StoreError> {
        // A neighbour that has written nothing has not been announced.
        let parent = self.place().parent().filter(|parent| parent.org() == org);
        let is_above = parent.is_some();
        let place = parent.unwrap_or_else(|| self.place().child(org.clone()));
        let held_for = match draft.homes.contains_key(record) {
            true => draft.held_for(record),
            false => store.held_for(record)?,
        };
        let issued = record.issuer().is_some();
        let whose = held_for.into_iter().find(|home| self.places.reach(home, issued, &place));
        let to = match whose {
            _ if is_above => Offered::Parent,
            Some(home) => Offered::Home(home),
            None => return Ok(()),
        };
        for row in rows {
            let sender = super::purge::sender(lane, row, store)?.flatten();
            let came_from_there = sender.is_some_and(|info| self.places.now(&info.place) == place);
            if is_above && came_from_there {
                continue;
            }
            self.open_segment(draft);
            draft.offer(row, to.clone());
            if is_above {
                draft.after.last[lane as usize] = draft.after.tip;
            }
        }
        Ok(())
    }

    /// The rows that are more secret than what may go over a link.
    pub(super) fn secret_rows_over(
        &self,
        link: LinkId,
        store: &impl Store,
    ) -> Result<BTreeSet<Seq>, StoreError> {
        let allowed = self.allowed_over(link);
        Ok(store
            .secret_rows()?
            .into_iter()
            .filter(|(_, degree)| *degree > allowed)
            .map(|(row, _)| row)
            .collect())
    }

    /// Puts those rows first that say themselves how secret their record is, the highest degree first.
    pub(super) fn marks_first(
        &self,
        rows: &mut [Seq],
        allowed: Secrecy,
        store: &impl Store,
    ) -> Result<(), StoreError> {
        if allowed == Secrecy::None {
            return Ok(());
        }
        let mut degrees = BTreeMap::new();
        for row in &*rows {
            degrees.insert(*row, store.entry(*row)?.map_or(Secrecy::None, |entry| entry.secrecy()));
        }
        rows.sort_by_key(|row| (Reverse(degrees[row]), *row));
        Ok(())
    }
}
