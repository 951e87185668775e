//! Nodes that are revoked.

use super::*;

/// How long an operator waits for a machine that is off.
const ORDER_AGAIN: Millis = 1_000;

impl World<'_> {
    /// One of the leaves is to be revoked, by its parent's operator or by the root's. One honest leaf stays.
    pub(super) fn revoke_a_leaf(&mut self) -> bool {
        let leaves = (0..self.plan.nodes.len()).filter(|node| self.plan.nodes[*node].info.role == Role::Leaf);
        let left: Vec<_> = leaves.filter(|leaf| !self.revoked.contains(leaf)).collect();
        let honest = left.iter().filter(|leaf| self.plan.hostile != Some(**leaf)).count();
        let Some(leaf) = self.rng.pick(&left).copied() else { return false };
        if honest < 2 && self.plan.hostile != Some(leaf) {
            return false;
        }
        let parent = self.plan.nodes[leaf].parent.expect("a leaf has a parent");
        let by = if self.rng.one_in(2) { parent } else { 0 };
        self.revoked.insert(leaf);
        self.after(0, Ev::Revoke(by, leaf));
        true
    }

    /// The first machine of a node is told to revoke another node, as soon as it listens.
    pub(super) fn order_revocation(&mut self, machine: usize, node: usize) -> Result<(), Failure> {
        // For one that stays away nobody waits: the root's operator has been told as well.
        if self.machines[machine].retired || self.machines[machine].stays_away {
            return Ok(());
        }
        if !self.is_awake(machine) {
            self.after(ORDER_AGAIN, Ev::Revoke(machine, node));
            return Ok(());
        }
        let at = self.clock(machine).wall;
        let engine = self.machines[machine].engine.as_ref().expect("it is awake");
        let revocation = engine.identity().revocation_of(&self.plan.nodes[node].info, at);
        self.note(machine, format_args!("revokes {}", revocation.place));
        self.drive(machine, Event::Revoke(revocation))
    }

    /// Whether a refusal is that of a revoked node, and which of the two ends this machine is.
    pub(super) fn is_of_revoked(&mut self, machine: usize, peer: NodeId, code: u16) -> bool {
        let own = self.machines[machine].node;
        let is_revoked = |node: usize| self.revoked.contains(&node);
        if code != REVOKED {
            return false;
        }
        if is_revoked(own) {
            self.machines[machine].told_revoked = true;
            return true;
        }
        (0..self.plan.nodes.len()).any(|node| self.plan.nodes[node].info.node == peer && is_revoked(node))
    }

    /// A machine whose disk holds a revocation has no link to the node that it names.
    pub(super) fn check_trust(&self, machine: usize) -> Result<(), Failure> {
        let one = &self.machines[machine];
        let Some(engine) = one.engine.as_ref().filter(|_| !self.revoked.is_empty()) else { return Ok(()) };
        match engine.links().find(|link| engine.identity().has_revoked(link.peer.node)) {
            Some(link) => {
                let text = format!("{} goes on with {}", one.name, link.peer.place);
                Err(Failure::new("the revoked are not listened to", text))
            }
            None => Ok(()),
        }
    }

    /// All is quiet: every node knows of every revocation, and the revoked have been told. What only they hold is
    /// lost with them.
    pub(super) fn revoked_are_out(&mut self) -> Result<(), Failure> {
        let wanted: BTreeSet<_> = self.revoked.iter().map(|node| self.plan.nodes[*node].info.node).collect();
        let is_out = |machine: &Machine| self.revoked.contains(&machine.node);
        for one in self.machines.iter().filter(|one| !one.retired && !one.stays_away && !is_out(one)) {
            if !self.reaches_root(one.node) {
                continue;
            }
            let known = one.store.revocations().map_err(store_failed)?;
            let known: BTreeSet<_> = known.iter().map(|revocation| revocation.node).collect();
            if known != wanted {
                let text = format!("{} knows of {known:?}, not of {wanted:?}", one.name);
                return Err(Failure::new("revocations reach everybody", text));
            }
        }
        let out: Vec<_> = (0..self.machines.len())
            .filter(|m| is_out(&self.machines[*m]) && !self.machines[*m].retired)
            .collect();
        for machine in out {
            let one = &self.machines[machine];
            if !one.told_revoked && self.reaches_root(one.node) {
                return Err(Failure::new("the revoked are told", &one.name));
            }
            self.machines[machine].retired = true;
            self.machines[machine].engine = None;
            self.replace_disk(machine, MemStore::default());
        }
        Ok(())
    }

    /// Whether all nodes above this one are there.
    fn reaches_root(&self, node: usize) -> bool {
        let mut above = self.plan.nodes[node].parent;
        while let Some(node) = above {
            if !self.machines.iter().any(|one| one.node == node && !one.retired && !one.stays_away) {
                return false;
            }
            above = self.plan.nodes[node].parent;
        }
        true
    }
}
