//! Rows that rot, and audits that put them back.

use super::*;
use sync_core::audit::Harm;

/// How long a machine does not notice that a row has rotted.
const UNNOTICED_MAX: Millis = 600_000;
/// So long after something has begun to wait for an audit the host makes it.
const AUDIT_AFTER: Millis = 30_000;
/// More rounds of audits than this put nothing back that one could: a row goes through the tree at most twice.
const ROUNDS_MAX: usize = 20;
/// An audit after which nothing had to be put in place costs less than this, in both directions together.
const AUDIT_MAX_BYTES: u64 = 1_000;

impl World<'_> {
    /// A commit was made: now and then the disk loses a row or spoils it. Some time later the machine notices.
    pub(super) fn rots(&mut self, machine: usize) {
        let one_in = self.plan.rot_one_in;
        if self.calm || one_in == 0 || !self.rng.one_in(one_in) {
            return;
        }
        if self.plan.attachments && self.rng.one_in(2) {
            self.a_piece_rots(machine);
        }
        let tip = self.machines[machine].store.tip().expect("memory does not fail");
        let harm = if self.rng.one_in(2) { Harm::Gone } else { Harm::Damaged };
        let first = 1 + self.rng.below(tip.max(1));
        let many = if self.rng.one_in(4) { self.rng.range(2, 6) } else { 1 };
        let before = self.machines[machine].store.clone();
        (first..(first + many).min(tip + 1)).for_each(|row| self.machines[machine].store.rot(row, harm));
        self.note(machine, format_args!("loses {many} rows from {first} on ({harm:?})"));
        let node = self.machines[machine].node;
        let kept: Vec<_> = self.machines.iter().filter(|one| !one.retired).map(|one| &one.store).collect();
        self.ledger.rot(node, &before, &self.machines[machine].store, &kept);
        self.report.faults[Fault::Rot.index()] += 1;
        let delay = self.rng.below(UNNOTICED_MAX.min(self.plan.calm_at.saturating_sub(self.now)) + 1);
        self.after(delay, Ev::Check(machine));
    }

    /// The check of a machine's disk, and an audit with each neighbour.
    pub(super) fn check_disk(&mut self, machine: usize) -> Result<(), Failure> {
        let checkup = self.machines[machine].store.check();
        self.note(machine, format_args!("finds {} rows damaged", checkup.damaged.len()));
        self.drive(machine, Event::Checked(checkup))?;
        let links: Vec<_> = self.machines[machine].engine.iter().flat_map(|engine| engine.links()).collect();
        for link in links {
            self.drive(machine, Event::Audit(link.link))?;
        }
        // Only then, because no audit begins while something waits for the disk.
        self.check_pieces(machine)
    }

    /// Something is to be forgotten after an audit: the host makes one a little later.
    pub(super) fn set_audit(&mut self, machine: usize) {
        let one = &mut self.machines[machine];
        let awaits = one.engine.as_ref().is_some_and(|engine| engine.awaits_audit().is_some());
        if awaits && !std::mem::replace(&mut one.auditing, true) {
            let boot = one.boot;
            self.after(AUDIT_AFTER, Ev::Audit(machine, boot));
        }
    }

    pub(super) fn audit_that_is_awaited(&mut self, machine: usize, boot: u64) -> Result<(), Failure> {
        if !self.is_up(machine, boot) {
            return Ok(());
        }
        self.machines[machine].auditing = false;
        let parent = self.machines[machine].engine.as_ref().and_then(Engine::awaits_audit);
        parent.map_or(Ok(()), |link| self.drive(machine, Event::Audit(link)))
    }

    pub(super) fn audited(&mut self, machine: usize, link: LinkId, audited: Audited) {
        self.note(machine, format_args!("{link:?} audited: {audited:?}"));
        if let Audited::Done { here, there, .. } = audited {
            self.report.repaired += here + there;
        }
        self.audits.insert((machine, link), audited);
    }

    /// All is quiet, and whoever holds what has rotted elsewhere gives it back. What is left nobody has.
    pub(super) fn heal_rows(&mut self) -> Result<(), Failure> {
        // Whoever was moved has passed over what the root had; an audit tells whether it has it still. And what is not known to be
        // for a node is forgotten after one.
        if self.plan.rot_one_in == 0 && self.places.orders().is_empty() && !self.plan.grants {
            return Ok(());
        }
        for round in 0.. {
            let before = self.report.repaired;
            for machine in 0..self.machines.len() {
                self.after(0, Ev::Check(machine));
                self.run_until_quiet()?;
            }
            if self.report.repaired == before {
                break;
            }
            if round == ROUNDS_MAX {
                return Err(Failure::new("audits come to an end", "something is put back in every round"));
            }
        }
        self.report.unhealed = 0;
        let there = |one: &&Machine| !one.retired && !one.stays_away && !self.revoked.contains(&one.node);
        let secret = self.secrets();
        for one in self.machines.iter().filter(there) {
            for damage in one.store.check().damaged {
                let (Some(record), Some(change)) = (&damage.record, &damage.change) else { continue };
                if secret.contains(&(record.clone(), *change)) {
                    continue;
                }
                // What is only open to somebody is not asked of it.
                let homes = one.store.homes(record).expect("memory does not fail");
                let is_of = |other: &Machine| {
                    let org = self.plan.nodes[other.node].info.place.org();
                    homes.iter().any(|home| self.places.has_stood_within(home, org))
                };
                // Nor is it given to anybody to whom it is not open any more, who may not have heard so yet.
                let place = &self.plan.nodes[one.node].info.place;
                let gives = |other: &Machine| {
                    let held_for = other.store.held_for(record).expect("memory does not fail");
                    let reaches = |org| self.places.reach(org, record.issuer().is_some(), place);
                    self.plan.nodes[other.node].info.place.is_within(place) || held_for.iter().any(reaches)
                };
                let reads =
                    |other: &&Machine| is_of(other) && gives(other) && other.store.reads(record, change);
                let holder = self.machines.iter().filter(there).find(reads);
                // An old parent of what was moved is not asked.
                let may_ask = !self.plan.part && self.places.orders().is_empty();
                if let Some(holder) = holder.filter(|_| may_ask) {
                    let text =
                        format!("row {} of {} is damaged, and {} has it", damage.row, one.name, holder.name);
                    return Err(Failure::new("what a neighbour has is healed", text));
                }
                self.report.unhealed += 1;
            }
        }
        Ok(())
    }

    /// On every line that stands the child compares with its parent: they hold the same, and it costs two small frames.
    pub(super) fn audits_of_equals_cost_little(&mut self) -> Result<(), Failure> {
        let conns: Vec<_> =
            self.conns.iter().filter(|(_, conn)| conn.ends.iter().all(|end| end.open)).collect();
        let conns: Vec<_> =
            conns.into_iter().map(|(id, conn)| (*id, conn.ends[0].machine, conn.ends[0].link)).collect();
        for (conn, child, link) in conns {
            let parent = self.conns[&conn].ends[1].machine;
            let stores = [child, parent].map(|one| &self.machines[one].store);
            // What a liar has given to one of them in another form each audit of the two finds.
            if stores.iter().any(|store| !store.check().damaged.is_empty())
                || !oracle::two_faced(stores[0], stores[1]).is_empty()
            {
                continue;
            }
            let sent = |world: &Self| world.conns[&conn].ends.iter().map(|end| end.sent.1).sum::<u64>();
            // What a copy of one of them has held back as secret, or had, and this machine has not, the first of two gives.
            let nodes = [child, parent].map(|one| self.machines[one].node);
            let copies = self.machines.iter().filter(|one| nodes.contains(&one.node)).count();
            if self.plan.secrets && copies > nodes.len() {
                self.drive(child, Event::Audit(link))?;
                self.run_until_quiet()?;
            }
            let before = sent(self);
            self.drive(child, Event::Audit(link))?;
            self.run_until_quiet()?;
            let (audited, bytes) = (self.audits.get(&(child, link)).copied(), sent(self) - before);
            let Some(Audited::Done { entries, here: 0, there: 0, missed: 0 }) = audited else {
                let text = format!("{}: {audited:?}", self.machines[child].name);
                return Err(Failure::new("an audit of equals finds nothing", text));
            };
            let exact = {
                let total = sync_core::feed::Digest { count: entries, sum: 0 };
                [Frame::Audit, Frame::Total(Some(total))]
                    .iter()
                    .map(|frame| frame.encode().len() as u64)
                    .sum::<u64>()
            };
            // What had left before its record was marked is counted on one side alone: it costs more, and does no harm.
            if (bytes != exact || bytes >= AUDIT_MAX_BYTES) && !self.plan.secrets {
                let text = format!("{} used {bytes} bytes, {exact} are needed", self.machines[child].name);
                return Err(Failure::new("an audit of equals costs its bytes", text));
            }
            self.report.audit_bytes = self.report.audit_bytes.max(bytes);
        }
        Ok(())
    }
}
