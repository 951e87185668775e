//! Who may speak: nodes that are revoked, whose certificates end, and that stand elsewhere in the tree.

use super::*;

/// How long an operator waits for a machine that is off.
const ORDER_AGAIN: Millis = 1_000;
/// How often a host looks whether the certificate of a connection's other end is over.
const LOOK_EVERY: Millis = 60_000;

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
        let parent = self.parent_of(leaf).expect("a leaf has a parent");
        // Whoever was moved has still the certificate that its old parent has issued.
        let issued = self.plan.nodes[leaf].parent == Some(parent);
        let by = if self.rng.one_in(2) && issued { parent } else { 0 };
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

    /// A machine whose disk holds a revocation has no link to the node that it names; nobody has one to who is not its
    /// neighbour, or whose certificate is over and was shown afterwards. A machine that sleeps sees that when it wakes.
    pub(super) fn check_trust(&self, machine: usize) -> Result<(), Failure> {
        let one = &self.machines[machine];
        let matters = !self.revoked.is_empty() || self.happened([Fault::Stray, Fault::Expiry, Fault::Move]);
        let Some(engine) = one.engine.as_ref().filter(|_| matters) else { return Ok(()) };
        for link in engine.links() {
            let expired = self.expired_since.get(&link.peer.node);
            let broken = if engine.identity().has_revoked(link.peer.node) {
                "the revoked are not listened to"
            } else if !self.stands_right(machine, link.peer.node, link.direction) {
                "only neighbours are listened to"
            } else if expired
                .is_some_and(|since| self.now > one.asleep_until.max(*since) + LOOK_EVERY + IDLE_TIMEOUT)
            {
                "nobody is listened to whose certificate is over"
            } else {
                continue;
            };
            return Err(Failure::new(broken, format_args!("{} goes on with {}", one.name, link.peer.place)));
        }
        Ok(())
    }

    /// Whether a neighbour stands directly above or below a node, as the link to it leads and as far as this machine knows.
    fn stands_right(&self, machine: usize, peer: NodeId, direction: Direction) -> bool {
        let peer = self.plan.nodes.iter().find(|node| node.info.node == peer);
        let (Some(peer), Some(engine)) = (peer, &self.machines[machine].engine) else { return false };
        let (own, peer) = (engine.place().clone(), engine.places().now(&peer.info.place));
        let (above, below) = if direction == Direction::Up { (peer, own) } else { (own, peer) };
        below.parent() == Some(above)
    }

    /// A machine dials one that is not its parent.
    pub(super) fn dial_astray(&mut self, machine: usize) -> bool {
        let node = self.machines[machine].node;
        let parent = self.dials(machine);
        let is_elsewhere = |m: &usize| {
            let other = self.machines[*m].node;
            other != node && Some(other) != parent && self.is_awake(*m)
        };
        let others: Vec<_> = (0..self.machines.len()).filter(is_elsewhere).collect();
        match self.rng.pick(&others).copied().filter(|_| self.is_awake(machine)) {
            Some(target) => {
                self.connect(machine, target);
                true
            }
            None => false,
        }
    }

    /// The certificate of a node is over. Its neighbours see it within a minute; after a while it has another.
    pub(super) fn let_expire(&mut self, machine: usize) -> bool {
        let node = self.machines[machine].node;
        let name = self.plan.nodes[node].info.node;
        if !self.expired.borrow_mut().insert(name) {
            return false;
        }
        self.expired_since.insert(name, self.now);
        let has = |conn: &Conn| conn.ends.iter().any(|end| self.machines[end.machine].node == node);
        let conns: Vec<_> = self.conns.iter().filter(|(_, conn)| has(conn)).map(|(id, _)| *id).collect();
        for conn in conns {
            let delay = self.rng.below(LOOK_EVERY);
            self.after(delay, Ev::Over(conn));
        }
        let long = self.a_while();
        self.after(long, Ev::Renew(node));
        true
    }

    pub(super) fn is_over(&mut self, conn: u64) {
        let first = self.rng.below(2) as usize;
        self.drop_conn(conn, first, IDLE_TIMEOUT);
    }

    /// A node has another certificate: it dials again, and so do its children.
    pub(super) fn renew(&mut self, node: usize) {
        let name = self.plan.nodes[node].info.node;
        if !self.expired.borrow_mut().remove(&name) {
            return;
        }
        self.expired_since.remove(&name);
        for machine in 0..self.machines.len() {
            let own = self.machines[machine].node;
            // Whoever was moved meanwhile waits no more for its old parent's.
            let waits = self.machines[machine].awaits_certificate;
            if own == node || self.plan.nodes[own].parent == Some(node) || waits {
                self.machines[machine].awaits_certificate = false;
                self.dial_later(machine);
            }
        }
    }

    /// Whether a refusal is for a certificate that is over. The child of the two does not dial again before there is
    /// another.
    pub(super) fn is_of_expired(&mut self, machine: usize, peer: NodeId, code: u16) -> bool {
        if code != EXPIRED {
            return false;
        }
        let own = &self.plan.nodes[self.machines[machine].node];
        let is_child = self.dials(machine).is_some_and(|parent| self.plan.nodes[parent].info.node == peer);
        let still = [own.info.node, peer].iter().any(|node| self.expired.borrow().contains(node));
        self.machines[machine].awaits_certificate |= is_child && still;
        self.report.faults[Fault::Expiry.index()] > 0
    }

    /// All is quiet: every node knows of every revocation, and the revoked have been told. What only they hold is
    /// lost with them.
    pub(super) fn revoked_are_out(&mut self) -> Result<(), Failure> {
        let wanted: BTreeSet<_> = self.revoked.iter().map(|node| self.plan.nodes[*node].info.node).collect();
        let is_out = |machine: &Machine| self.revoked.contains(&machine.node);
        let stays = |(_, one): &(usize, &Machine)| !one.retired && !one.stays_away && !is_out(one);
        for (machine, one) in self.machines.iter().enumerate().filter(stays) {
            // Nor does one that has not heard of an order, and dials a parent that is away.
            let dials = self.dials(machine);
            if !self.reaches_root(one.node)
                || dials.is_some_and(|node| !self.is_there(node) || !self.reaches_root(node))
            {
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

    fn is_there(&self, node: usize) -> bool {
        self.machines.iter().any(|one| one.node == node && !one.retired && !one.stays_away)
    }

    /// Whether all nodes above this one are there.
    fn reaches_root(&self, node: usize) -> bool {
        let mut above = self.parent_of(node);
        while let Some(node) = above {
            if !self.is_there(node) {
                return false;
            }
            above = self.parent_of(node);
        }
        true
    }
}
