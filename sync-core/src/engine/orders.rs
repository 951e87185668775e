//! Orders that rearrange the tree: taking them in, meeting the neighbours anew, and offering to children what they gain.
//!
//! At the root an order holds when it is durable, elsewhere as soon as a node has heard of it; a node that dies before it
//! has kept it hears of it again, because its HELLO says that it does not know it. What is on its way up from a former child
//! is taken still. Not here: what an order means for the places ([`crate::scope::Places`]), and forgetting what a node holds of
//! those who have left it.

use super::{commit::Draft, grants::Gained, *};
use crate::{
    order::{Order, Step},
    store::Gain,
};

/// Rows that are looked at in one commit for what children have gained.
const GAIN_ROWS: usize = 4_096;

impl<I: Identity> Engine<I> {
    /// Where this node stands now.
    pub fn place(&self) -> &OrgPath {
        let certified = &self.identity.info().place;
        self.places.stands(certified.org()).unwrap_or(certified)
    }

    /// The number of the last order that this node has heard of; 0 when of none.
    pub fn last_order(&self) -> u64 {
        self.places.orders().last().map_or(0, |order| order.number)
    }

    pub(super) fn on_orders(&mut self, link: LinkId, all: Vec<Order>) {
        let is_all = all.is_empty();
        let mut news = Vec::new();
        for order in all.into_iter().filter(|order| !self.places.orders().contains(order)) {
            match self.identity.verify_order(&order) {
                Ok(()) => news.push(order),
                Err(error) => {
                    self.refuse(link, error.code(), error.to_string());
                    break;
                }
            }
        }
        let news = self.follow(news);
        if !news.is_empty() {
            self.intents.push_back(Intent::Orders(news));
        }
        let stranger = self.links.get(&link).is_some_and(|state| state.stranger);
        if stranger && is_all {
            self.meet_stranger(link);
        }
    }

    /// Orders hold from now on; which of them were news. Whoever is no neighbour any more is told them and let go.
    pub(super) fn follow(&mut self, orders: Vec<Order>) -> Vec<Order> {
        let before = self.place().clone();
        let news: Vec<_> = orders.into_iter().filter(|order| self.places.follow(order)).collect();
        if news.is_empty() {
            return news;
        }
        self.leaving_is_known();
        let after = self.place().clone();
        let is_new_parent = before.parent().map(|above| above.org().clone())
            != after.parent().map(|above| above.org().clone());
        if is_new_parent {
            self.root_stands_above();
        }
        let own = after.org();
        let names_address =
            |step: &Step| matches!(step, Step::Move { from, to, .. } if from == to && to.org() == own);
        if before != after || news.iter().flat_map(|order| &order.steps).any(names_address) {
            self.effects.push_back(Effect::Alert(Alert::Moved { to: after }));
        }
        let links: Vec<_> = self.links.keys().copied().collect();
        for link in links {
            self.part_if_moved(link);
        }
        news
    }

    /// A neighbour is told the orders, and its place is where it stands now. One that is none any more is let go.
    fn part_if_moved(&mut self, link: LinkId) {
        if self.links.get(&link).is_some_and(|state| !state.stranger) {
            self.send_orders(link);
            if !self.is_neighbour(link) {
                self.refuse_no_neighbour(link);
            }
        }
    }

    fn is_neighbour(&mut self, link: LinkId) -> bool {
        let own = self.place().clone();
        let Some(state) = self.links.get_mut(&link) else { return false };
        state.peer.place = self.places.now(&state.certified.place);
        check_neighbour(&own, &state.peer, state.direction).is_ok()
    }

    /// A stranger has told all orders that it knows.
    fn meet_stranger(&mut self, link: LinkId) {
        if !self.is_neighbour(link) {
            return self.refuse_no_neighbour(link);
        }
        if let Some(state) = self.links.get_mut(&link) {
            state.stranger = false;
        }
        self.begin(link);
    }

    pub(super) fn refuse_no_neighbour(&mut self, link: LinkId) {
        let Some(state) = self.links.get(&link) else { return };
        let (own, peer) = (self.place().clone(), state.peer.clone());
        let certified = [&self.info().place, &state.certified.place];
        let moves = certified.into_iter().any(|place| self.places.moves_place(place));
        match check_neighbour(&own, &peer, state.direction) {
            Err(refusal) if !moves => self.refuse(link, refusal.code(), refusal.to_string()),
            _ => self.refuse(link, refusal::MOVED, moved(&own, &peer.place)),
        }
    }

    pub(super) fn send_orders(&mut self, link: LinkId) {
        for part in frames_of(self.places.orders(), |order| order.encode().len()) {
            self.effects.push_back(Effect::Send(link, Frame::Orders(part.to_vec())));
        }
    }

    /// Keeps orders, and with them that there is something to offer to children that gain by them.
    pub(super) fn draft_orders(
        &mut self,
        orders: Vec<Order>,
        draft: &mut Draft,
        store: &impl Store,
    ) -> Result<(), StoreError> {
        let mut places = self.places.clone();
        for order in &orders {
            places.follow(order);
        }
        let first = orders.iter().map(|order| order.number).min().unwrap_or(0);
        draft.ops.extend(orders.into_iter().map(Op::Order));
        let since = first.saturating_sub(1).min(draft.after.gain.map_or(u64::MAX, |gain| gain.since));
        let own = self.info().place.org();
        let changes =
            |org| has_gained(&places, own, org, true, since) || has_moved_below(&places, own, org, since);
        let gains = draft.after.tip > 0 && places.all().any(|(org, _)| changes(org));
        draft.after.gain = gains.then_some(Gain { since, done: 0, upto: draft.after.tip });
        draft.ops.push(Op::Gain(draft.after.gain));
        self.purge_begins(&places, draft, store)
    }

    /// Offers the next part of what children have gained: the rows of each record with a home that stands below another
    /// child than before, or that is issued from above this node now and was not. Whom a record was open to may not have heard
    /// where it stood that this has ended, and hears it where it stands now. A record is offered whole where its first
    /// row stands, and first those rows that make it theirs, so that they could give it back to us in this order.
    pub(super) fn draft_gain(&mut self, draft: &mut Draft, store: &impl Store) -> Result<(), StoreError> {
        // What begins with this commit goes on when the orders hold.
        let holds = draft.after.ordered.is_empty();
        let Some(gain) = draft.after.gain.filter(|_| holds) else { return Ok(()) };
        let mut gained: BTreeMap<(OrgId, bool), bool> = BTreeMap::new();
        let rows = store.unfolded(gain.done, GAIN_ROWS)?;
        let mut looked_at = BTreeSet::new();
        let own = self.info().place.org().clone();
        for (_, record) in rows.iter().filter(|(row, _)| *row <= gain.upto) {
            if !looked_at.insert(record) {
                continue;
            }
            let issued = record.issuer().is_some();
            let mut homes = store.held_for(record)?;
            homes.retain(|home| {
                let known = gained.entry((home.clone(), issued));
                *known.or_insert_with(|| has_gained(&self.places, &own, home, issued, gain.since))
            });
            let mut former = store.grants(record)?;
            former.retain(|Granted { grant, over }| {
                // When its time has passed each ends it alone.
                let is_told = over.is_some_and(|row| row > 0) && grant.until > draft.at;
                is_told
                    && !homes.contains(&grant.to)
                    && has_moved_below(&self.places, &own, &grant.to, gain.since)
            });
            if homes.is_empty() && former.is_empty() {
                continue;
            }
            // One that cannot be read cannot be offered either.
            let mut whole = Vec::new();
            for row in store.rows_of(record)?.into_iter().filter(|row| *row <= gain.upto) {
                whole.extend(store.entry(row)?.map(|_| row));
            }
            if whole.first().is_some_and(|row| *row <= gain.done) {
                continue;
            }
            for Granted { grant, .. } in former {
                self.tell_former(record, &whole, grant, draft, store)?;
            }
            for home in homes {
                self.offer_whole(record, whole.clone(), &home, Gained::Home, draft, store)?;
            }
        }
        let last = rows.last().map_or(gain.upto, |(row, _)| *row);
        let ended = rows.len() < GAIN_ROWS || last >= gain.upto;
        draft.after.gain = (!ended).then_some(Gain { done: last, ..gain });
        draft.ops.push(Op::Gain(draft.after.gain));
        Ok(())
    }

    /// A parent that has read nothing of this node, or less than is at the root, goes on where the root is: what is before
    /// comes to it from above. It is told so at once, and stands there when it has said so.
    pub(super) fn pass_over_what_is_above(
        &mut self,
        link: LinkId,
        lane: Lane,
        store: &impl Store,
        now: Now,
    ) -> Result<(), StoreError> {
        let above = self.claims.heard(Frontier::Above, lane);
        let Some(at) = self.position(above) else { return Ok(()) };
        let parent = self.links.get_mut(&link).filter(|state| state.direction == Direction::Up);
        let Some(out) = parent.map(|state| &mut state.out[lane as usize]) else { return Ok(()) };
        if out.next.is_none_or(|next| next >= above) {
            return Ok(());
        }
        let after = out.after(at.segment);
        (out.next, out.told) = (Some(above), Some(at));
        self.say_place(link, lane, at, above, after, store, now)
    }
}

/// Whether what belongs to this home stands below another child of `own` than after the orders up to that number; or it issues
/// for all children of `own`, and did not then.
fn has_gained(places: &Places, own: &OrgId, home: &OrgId, issued: bool, since: u64) -> bool {
    let now = places.branch(own, home, u64::MAX);
    let issues = |number| issued && places.stood_below(own, home, number);
    (now.is_some() && now != places.branch(own, home, since)) || (issues(u64::MAX) && !issues(since))
}

/// Whether an organization stands below `own`, and elsewhere than after the orders up to that number: those through whom it would
/// have heard that a grant has ended may have forgotten the record.
fn has_moved_below(places: &Places, own: &OrgId, org: &OrgId, since: u64) -> bool {
    places.branch(own, org, u64::MAX).is_some() && places.has_moved_since(org, since)
}

/// Why a neighbour is none any more.
fn moved(own: &OrgPath, peer: &OrgPath) -> String {
    format!(
        "by an order of the root {peer} is no neighbour of {own} any more: its node belongs to its new parent"
    )
}
