//! To whom what is secret may go: each node decides it by chance, and anew when half of the time has passed. Every frame is held
//! against what both ends allow; and at the end what may come somewhere is there.

use std::collections::{BTreeMap, BTreeSet};

use sync_core::{
    change::Entry,
    engine::Event,
    id::{OrgId, Secrecy},
    scope::{Profiles, Way},
    store::Store,
};

use super::{
    super::{
        oracle::{Failure, Key, key},
        rng::Rng,
    },
    World,
};

/// What the world knows of secrets, apart from what the nodes say.
#[derive(Default)]
pub(super) struct Labels {
    /// How secret entries are, by the mark of whoever wrote them.
    degrees: BTreeMap<Key, Secrecy>,
    /// What has left each machine.
    left: BTreeMap<usize, BTreeSet<Key>>,
}

impl World<'_> {
    /// What a node's operator allows at this time. Couriers are allowed the same at both ends, because nobody answers them.
    fn profiles(&self, node: usize) -> Profiles {
        let mut all = Profiles::default();
        let own = self.plan.nodes[node].info.place.org();
        let half = self.now >= self.plan.calm_at / 2;
        for other in self.plan.nodes.iter().map(|other| other.info.place.org()).filter(|other| *other != own)
        {
            let pair = if own < other { (own, other) } else { (other, own) };
            let link = format!("profile {own} {other} {half}");
            let courier = format!("courier {} {}", pair.0, pair.1);
            for (way, purpose) in [(Way::Link, link), (Way::Courier, courier)] {
                let number = Rng::new(self.plan.chance, &purpose).below(6) as u8;
                all.allow(other.clone(), way, Secrecy::from_u8(number.saturating_sub(1)));
            }
        }
        all
    }

    fn allowed(&self, [node, other]: [usize; 2], way: Way) -> Secrecy {
        let one =
            |node, other: usize| self.profiles(node).allowed(self.plan.nodes[other].info.place.org(), way);
        if self.plan.labels { one(node, other).min(one(other, node)) } else { Secrecy::None }
    }

    /// A machine is told what is allowed.
    pub(super) fn decide(&mut self, machine: usize) -> Result<(), Failure> {
        if !self.plan.labels {
            return Ok(());
        }
        let profiles = self.profiles(self.machines[machine].node);
        self.drive(machine, Event::Profiles(profiles))
    }

    /// Entries of a machine are durable: whatever it has written of their records and has not left it is as secret as they are.
    pub(super) fn mark(&mut self, machine: usize, keys: &[Key]) {
        let (store, node) =
            (&self.machines[machine].store, self.plan.nodes[self.machines[machine].node].info.node);
        let left = self.labels.left.entry(machine).or_default();
        for (record, _) in keys {
            let degree = store.secrecy(record).expect("memory does not fail");
            if degree == Secrecy::None {
                continue;
            }
            for row in store.rows_of(record).expect("memory does not fail") {
                let entry = store.entry(row).expect("memory does not fail");
                let is_kept = |entry: &Entry| entry.origin().is_of(node) && !left.contains(&key(entry));
                let Some(entry) = entry.filter(is_kept) else { continue };
                let heads = store.heads(entry.lane(), row - 1, 1).expect("memory does not fail");
                if heads.iter().any(|head| head.seq == row && head.src.is_none()) {
                    let known = self.labels.degrees.entry(key(&entry)).or_default();
                    *known = degree.max(*known);
                }
            }
        }
    }

    /// Entries go from one node to another.
    pub(super) fn check_secrecy<'a>(
        &mut self,
        machine: usize,
        to: usize,
        way: Way,
        entries: impl Iterator<Item = &'a Entry>,
    ) -> Result<(), Failure> {
        let one = &self.machines[machine];
        let allowed = self.allowed([one.node, to], way);
        for entry in entries {
            let known = self.labels.degrees.get(&key(entry)).copied().unwrap_or_default();
            let known = if self.plan.keeps_identity() { known } else { Secrecy::None };
            if entry.secrecy().max(known) > allowed {
                let text = format!("{} sends {entry:?}, and {allowed:?} is allowed", one.name);
                return Err(Failure::new("what is secret goes where it may", text));
            }
            self.labels.left.entry(machine).or_default().insert(key(entry));
        }
        Ok(())
    }

    /// How many secret entries are with others than whoever wrote them.
    pub(super) fn secrets_came(&self) -> u64 {
        let of = |one: &super::Machine| {
            let rows = one.store.secret_rows().expect("memory does not fail").into_iter();
            let entries = rows.filter_map(|(row, _)| one.store.entry(row).expect("memory does not fail"));
            let node = self.plan.nodes[one.node].info.node;
            entries.filter(|entry| !entry.origin().is_of(node)).count() as u64
        };
        self.machines.iter().filter(|one| !one.retired).map(of).sum()
    }

    /// What is secret has come as far as it may: up, and to the children whose it is.
    pub(super) fn what_may_come_has_come(&self) -> Result<(), Failure> {
        let is_plain = self.plan.keeps_identity() && self.plan.rot_one_in == 0 && self.plan.hostile.is_none();
        if !self.plan.labels || !is_plain || !self.revoked.is_empty() || !self.places.orders().is_empty() {
            return Ok(());
        }
        let holder = |node| self.machines.iter().find(|one| one.node == node && !one.retired);
        for one in self.machines.iter().filter(|one| !one.retired) {
            for (row, degree) in one.store.secret_rows().expect("memory does not fail") {
                let entry = one.store.entry(row).expect("memory does not fail").expect("no row rots");
                let key = key(&entry);
                let held_for: Vec<OrgId> = one.store.held_for(entry.record()).expect("memory does not fail");
                for (node, plan) in self.plan.nodes.iter().enumerate() {
                    let is_above = self.plan.nodes[one.node].parent == Some(node);
                    let issued = entry.record().issuer().is_some();
                    let reaches = |org| self.places.reach(org, issued, &plan.info.place);
                    let is_below = plan.parent == Some(one.node) && held_for.iter().any(reaches);
                    let may = (is_above || is_below) && degree <= self.allowed([one.node, node], Way::Link);
                    if let Some(there) =
                        holder(node).filter(|there| may && !there.store.reads(&key.0, &key.1))
                    {
                        let text = format!("{key:?} of {} may be at {}, and is not", one.name, there.name);
                        return Err(Failure::new("what is secret comes where it may", text));
                    }
                }
            }
        }
        Ok(())
    }
}

/// The moment at which all decide anew.
pub(super) fn half(plan: &super::Plan) -> Option<sync_core::time::Millis> {
    plan.labels.then_some(plan.calm_at / 2)
}
