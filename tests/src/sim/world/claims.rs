//! What machines claim, held against the disks at the moment when they claim it.

use super::*;

impl World<'_> {
    pub(super) fn check_claims(&mut self, machine: usize) -> Result<(), Failure> {
        let one = &self.machines[machine];
        let Some(engine) = &one.engine else { return Ok(()) };
        let now = frontiers(engine);
        let (Some(parent), false) = (self.dials(machine), now == one.claimed) else {
            return Ok(());
        };
        for (&(which, lane), &to) in
            now.iter().filter(|((which, _), _)| [Frontier::Hub, Frontier::Root].contains(which))
        {
            let from = one.claimed[&(which, lane)];
            let (node, at) =
                if which == Frontier::Root { (0, "at the root") } else { (parent, "at its parent") };
            // What the root has is as safe as what the parent has; a new one begins there.
            let mut disks = self.disks(node);
            if !self.places.orders().is_empty() {
                disks.extend(self.disks(0));
            }
            let place = &self.plan.nodes[one.node].info.place;
            let is_leaf = engine.info().role == Role::Leaf;
            let places = engine.places();
            let claim = Claim { who: &one.name, place, places, is_leaf, at, lane, from, to };
            self.ledger.claim(&claim, &one.store, node, &disks, &self.disks(one.node))?;
            if which == Frontier::Root {
                self.ledger.safe_at_root(&claim, &one.store);
            }
        }
        self.machines[machine].claimed = now;
        Ok(())
    }

    /// A child that has heard where its parent stands claims nothing that this parent's disk does not hold, whatever
    /// was lost and excused before. With links to two running copies of its parent it has heard two things.
    pub(super) fn check_heard(&mut self, machine: usize) -> Result<(), Failure> {
        let one = &self.machines[machine];
        // One that was moved goes on where the root is.
        let Some(engine) = one.engine.as_ref().filter(|engine| engine.last_order() == 0) else {
            return Ok(());
        };
        let unheard = |conn: &&mut Conn| {
            let [child, parent] = &conn.ends;
            child.machine == machine
                && child.open
                && !child.heard
                && self.machines[parent.machine].boot == parent.boot
        };
        let uplinks = self.conns.values().filter(|c| c.ends[0].machine == machine && c.ends[0].open).count();
        for conn in self.conns.values_mut().filter(unheard).filter(|_| uplinks == 1) {
            let parent = &self.machines[conn.ends[1].machine];
            // What the parent has forgotten since the root has.
            let is_ordered = !self.places.orders().is_empty();
            let roots = self.machines.iter().filter(|one| is_ordered && one.node == 0 && !one.retired);
            let disks: Vec<_> = std::iter::once(parent).chain(roots).map(|one| &one.store).collect();
            let copies: Vec<_> =
                self.machines.iter().filter(|copy| copy.node == one.node).map(|copy| &copy.store).collect();
            let link = conn.ends[0].link;
            if parent.engine.is_none() || !engine.links().any(|status| status.link == link && status.settled)
            {
                continue;
            }
            conn.ends[0].heard = true;
            let place = &self.plan.nodes[one.node].info.place;
            for lane in Lane::ALL {
                let to = engine.frontier(Frontier::Hub, lane);
                let claim = Claim {
                    who: &one.name,
                    place,
                    places: engine.places(),
                    is_leaf: false,
                    at: "at the parent it has heard",
                    lane,
                    from: 0,
                    to,
                };
                self.ledger.claim(&claim, &one.store, usize::MAX, &disks, &copies)?;
            }
        }
        Ok(())
    }

    /// The disks of a node.
    fn disks(&self, node: usize) -> Vec<&MemStore> {
        let of_node = self.machines.iter().filter(|machine| machine.node == node && !machine.retired);
        of_node.map(|machine| &machine.store).collect()
    }
}

pub(super) fn frontiers(engine: &Engine<SimIdentity>) -> BTreeMap<(Frontier, Lane), Seq> {
    let both = Frontier::ALL.into_iter().flat_map(|which| Lane::ALL.map(|lane| (which, lane)));
    both.map(|(which, lane)| ((which, lane), engine.frontier(which, lane))).collect()
}
