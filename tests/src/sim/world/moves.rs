//! A tree that is rearranged while it runs.

use sync_core::{change::Entry, scope::grant};

use super::*;

/// How long the root's operator waits for a machine that is off.
const ORDER_AGAIN: Millis = 1_000;

impl World<'_> {
    /// The node above this one, by all orders that were ever given.
    pub(super) fn parent_of(&self, node: usize) -> Option<usize> {
        self.node_at(self.places.stands(self.plan.nodes[node].info.place.org())?.parent()?.org())
    }

    /// The node that this machine takes for its parent, while it runs.
    pub(super) fn dials(&self, machine: usize) -> Option<usize> {
        let engine = self.machines[machine].engine.as_ref()?;
        self.node_at(engine.place().parent()?.org())
    }

    fn node_at(&self, org: &OrgId) -> Option<usize> {
        self.plan.nodes.iter().position(|node| node.info.place.org() == org)
    }

    /// A leaf is moved to another hub or to the root, or a hub with all below it, or a hub is closed and its leaves go with it.
    pub(super) fn rearrange(&mut self) -> Result<bool, Failure> {
        let Some(root) = self.root() else { return Ok(false) };
        let engine = self.machines[root].engine.as_ref().expect("it is awake");
        let known =
            |node: &NodePlan| Some((engine.places().stands(node.info.place.org())?.clone(), node.info.role));
        let open = |place: &OrgPath| engine.places().successor(place.org()).is_none();
        let all: Vec<_> = self.plan.nodes.iter().filter_map(known).filter(|(place, _)| open(place)).collect();
        let gone =
            |org: &OrgId| self.revoked.iter().any(|node| self.plan.nodes[*node].info.place.org() == org);
        let is_leaf = |(place, role): &&(OrgPath, Role)| *role == Role::Leaf && !gone(place.org());
        let leaves: Vec<_> = all.iter().filter(is_leaf).map(|(place, _)| place.clone()).collect();
        let hubs: Vec<_> =
            all.iter().filter(|(_, role)| *role != Role::Leaf).map(|(place, _)| place.clone()).collect();
        let Some(leaf) = self.rng.pick(&leaves).cloned() else { return Ok(false) };
        let above = leaf.parent().expect("a leaf has a parent");
        let others: Vec<_> = hubs.iter().filter(|hub| **hub != above).collect();
        let Some(target) = self.rng.pick(&others).map(|hub| (*hub).clone()) else { return Ok(false) };
        if above.depth() > 1 && !target.is_within(&above) && self.rng.one_in(4) {
            return self.order(root, vec![moves(above, &target)]);
        }
        let closes = above.depth() > 1 && self.rng.one_in(3);
        let moved: Vec<_> = if closes {
            leaves.into_iter().filter(|leaf| leaf.parent().as_ref() == Some(&above)).collect()
        } else {
            vec![leaf]
        };
        let mut steps: Vec<_> = moved.into_iter().map(|from| moves(from, &target)).collect();
        if closes {
            steps.push(Step::Close { org: above.org().clone(), successor: target.org().clone() });
        }
        // A hub with a leaf of which the root has not heard, or that is revoked, is not closed.
        if closes && self.has_others_below(&above, &steps) {
            return Ok(false);
        }
        self.order(root, steps)
    }

    /// The root gives an order, if it can be followed.
    fn order(&mut self, root: usize, steps: Vec<Step>) -> Result<bool, Failure> {
        let engine = self.machines[root].engine.as_ref().expect("it is awake");
        if engine.places().check(&steps).is_err() {
            return Ok(false);
        }
        let order = engine.identity().order_of(engine.last_order() + 1, self.clock(root).wall, steps);
        self.note(root, format_args!("orders {:?}", order.steps));
        self.drive(root, Event::Order(order))?;
        Ok(true)
    }

    fn has_others_below(&self, hub: &OrgPath, steps: &[Step]) -> bool {
        let moves = |org: &OrgId| {
            steps.iter().any(|step| matches!(step, Step::Move { from, .. } if from.org() == org))
        };
        let below = self.places.all().filter(|(org, place)| place.is_within(hub) && *org != hub.org());
        below.into_iter().any(|(org, _)| !moves(org))
    }

    /// An order that nobody had heard of when the root lost power is given again.
    pub(super) fn give_orders_again(&mut self) -> Result<(), Failure> {
        let Some(root) = self.root() else {
            self.after(ORDER_AGAIN, Ev::Orders);
            return Ok(());
        };
        for order in self.places.orders().to_vec() {
            self.drive(root, Event::Order(order))?;
        }
        Ok(())
    }

    fn root(&self) -> Option<usize> {
        (0..self.machines.len()).find(|m| self.machines[*m].node == 0 && self.is_awake(*m))
    }

    /// An entry that goes down a link although, as far as the sender knows, no home of its record stands there.
    pub(super) fn out_of_scope(&self, machine: usize, link: LinkId, frame: &Frame) -> Option<Entry> {
        let (conn, from) = self.find(machine, link)?;
        let one = &self.machines[machine];
        let engine = one.engine.as_ref().filter(|_| from == 1)?;
        let child = &self.plan.nodes[self.machines[self.conns[&conn].ends[0].machine].node].info.place;
        let child = engine.places().now(child);
        let entries: Vec<_> = match frame {
            Frame::Batch(batch) => batch.entries.iter().map(|(_, entry)| entry).collect(),
            Frame::Repair(entries) => entries.iter().collect(),
            _ => Vec::new(),
        };
        let wall = self.clock(machine).wall;
        let is_out = |entry: &&&Entry| {
            let homes = one.store.homes(entry.record()).expect("memory does not fail");
            let mut grants = one.store.grants(entry.record()).expect("memory does not fail");
            // What is repaired is chosen by what is kept, and that one has ended by its time is kept a commit later.
            grants.retain(|one| one.grant.until > wall || matches!(frame, Frame::Repair(_)));
            let held_for = grant::held_for(&homes, &grants);
            let issued = entry.record().issuer().is_some();
            !held_for.iter().any(|org| engine.places().reach(org, issued, &child))
                && !ends_for(entry, &child, engine.places())
        };
        entries.iter().find(is_out).map(|entry| (*entry).clone())
    }
}

/// Whether an entry ends a grant of somebody at a place or below it, who is told so, as a successor is and whose machine is closed.
pub(super) fn ends_for(entry: &Entry, child: &OrgPath, places: &Places) -> bool {
    let is_below = |to: &OrgId| places.holders(to).any(|place| place.is_within(child));
    let ends = |step: &grant::Step| matches!(step, grant::Step::Ends(one) if is_below(&one.to));
    entry.grants().is_ok_and(|steps| steps.iter().any(ends))
}

/// An organization goes below this place.
fn moves(from: OrgPath, to: &OrgPath) -> Step {
    Step::Move { to: to.child(from.org().clone()), from, address: String::new() }
}
