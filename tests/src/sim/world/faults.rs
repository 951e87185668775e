//! What goes wrong, and the end of it.

use super::*;

impl World<'_> {
    pub(super) fn go_wrong(&mut self, fault: Fault) -> Result<(), Failure> {
        let alive: Vec<_> = (0..self.machines.len()).filter(|m| !self.machines[*m].retired).collect();
        let machine = *self.rng.pick(&alive).expect("a world has machines");
        let open: Vec<_> = self.conns.iter().filter(|(_, c)| c.ends[0].open || c.ends[1].open).collect();
        let open: Vec<_> = open.into_iter().map(|(id, _)| *id).collect();
        let conn = self.rng.pick(&open).copied();
        self.note(machine, format_args!("fault {fault:?} {conn:?}"));
        match fault {
            Fault::Drop => {
                if let Some(conn) = conn {
                    let first = self.rng.below(2) as usize;
                    self.drop_conn(conn, first, IDLE_TIMEOUT);
                }
            }
            Fault::Silence => {
                if let Some(conn) = conn {
                    let from = self.rng.below(2) as usize;
                    self.conns.get_mut(&conn).expect("it was found").silence(from);
                    for end in 0..2 {
                        let delay = self.rng.range(IDLE_TIMEOUT / 2, IDLE_TIMEOUT);
                        self.after(delay, Ev::Closed { conn, end });
                    }
                }
            }
            Fault::DoubleDial => {
                let boot = self.machines[machine].boot;
                self.after(0, Ev::Dial(machine, boot));
            }
            Fault::RefuseDials => {
                self.machines[machine].refused = true;
                let delay = self.rng.range(10_000, 300_000);
                self.after(delay, Ev::Heal(machine));
            }
            Fault::SlowDisk => {
                self.machines[machine].slow_disk = true;
                let delay = self.rng.range(10_000, 300_000);
                self.after(delay, Ev::Heal(machine));
            }
            Fault::Crash => self.crash(machine),
            Fault::CrashLoop => {
                let mut delay = 0;
                for _ in 0..self.rng.range(2, 8) {
                    delay += self.rng.range(1, 5_000);
                    self.after(delay, Ev::Crash(machine));
                    delay += self.rng.range(1, 100);
                    self.after(delay, Ev::Start(machine));
                }
            }
            Fault::Backup => {
                let copy = self.machines[machine].store.clone();
                self.machines[machine].backups.push(copy);
            }
            Fault::Restore => {
                let copy = self.rng.pick(&self.machines[machine].backups).cloned();
                if let Some(copy) = copy {
                    self.restore(machine, copy);
                }
            }
            Fault::Clone => self.clone_disk(machine),
            Fault::Twin => self.copy_running(machine)?,
        }
        Ok(())
    }

    /// Power is lost: whatever is not on the disk is gone. The machine starts again before long.
    pub(super) fn crash(&mut self, machine: usize) {
        if self.machines[machine].engine.is_none() {
            return;
        }
        self.note(machine, format_args!("loses power"));
        let one = &mut self.machines[machine];
        one.engine = None;
        one.pending = None;
        let ends = |conn: &Conn| conn.ends.iter().position(|end| end.machine == machine && end.open);
        let conns: Vec<_> = self.conns.iter().filter_map(|(id, conn)| Some((*id, ends(conn)?))).collect();
        for (conn, end) in conns {
            let within = if self.rng.one_in(2) { 100 } else { IDLE_TIMEOUT };
            self.drop_conn(conn, end, within);
        }
        let delay = self.rng.range(10, OFF_MAX);
        self.after(delay, Ev::Start(machine));
    }

    fn restore(&mut self, machine: usize, copy: MemStore) {
        self.crash(machine);
        let tips =
            [&self.machines[machine].store, &copy].map(|store| store.tip().expect("memory does not fail"));
        self.note(machine, format_args!("is restored from {} rows to {}", tips[0], tips[1]));
        self.replace_disk(machine, copy);
    }

    fn replace_disk(&mut self, machine: usize, copy: MemStore) {
        let before = std::mem::replace(&mut self.machines[machine].store, copy);
        let node = self.machines[machine].node;
        let kept: Vec<_> = self.machines.iter().filter(|one| !one.retired).map(|one| &one.store).collect();
        self.ledger.destroy(node, &before, &self.machines[machine].store, &kept);
    }

    /// A second machine starts from a copy of this one's disk, or of a backup of it; this one starts anew too.
    fn clone_disk(&mut self, machine: usize) {
        let backup = self.rng.pick(&self.machines[machine].backups).cloned();
        let disk =
            backup.filter(|_| self.rng.one_in(2)).unwrap_or_else(|| self.machines[machine].store.clone());
        let node = self.machines[machine].node;
        let second = self.add_machine(node, disk);
        self.note(second, format_args!("is a copy"));
        self.crash(machine);
        self.after(0, Ev::Start(second));
    }

    /// A running machine is copied, with what is in its memory and under way to its disk.
    fn copy_running(&mut self, machine: usize) -> Result<(), Failure> {
        let one = &self.machines[machine];
        let Some(engine) = one.engine.clone() else { return Ok(()) };
        let (node, store, pending, tickets) =
            (one.node, one.store.clone(), one.pending.clone(), one.tickets.clone());
        engine.identity().reseed(Rng::new(self.rng.next_u64(), "names"));
        let links: Vec<_> = engine.links().map(|link| link.link).collect();
        let second = self.add_machine(node, store);
        self.note(second, format_args!("is a running copy"));
        self.adopt(second, engine);
        self.machines[second].tickets = tickets;
        self.machines[second].pending = pending;
        let boot = self.machines[second].boot;
        if self.machines[second].pending.is_some() {
            self.after(1, Ev::Disk(second, boot));
        }
        for link in links {
            self.drive(second, Event::Closed(link))?;
        }
        self.dial_later(second);
        self.edit_at_both([machine, second]);
        Ok(())
    }

    /// People at two running copies of one machine edit the same record before either hears of the other.
    fn edit_at_both(&mut self, machines: [usize; 2]) {
        let store = &self.machines[machines[0]].store;
        let tip = store.tip().expect("memory does not fail");
        if !self.plan.real || tip == 0 {
            return;
        }
        let row = store.unfolded(self.rng.below(tip), 1).expect("memory does not fail").pop();
        let Some((_, record)) = row else { return };
        for machine in machines.into_iter().chain(machines) {
            let delay = self.rng.range(1, 1_000);
            self.after(delay, Ev::Edit(machine, record.clone()));
        }
    }

    /// Nothing goes wrong from now on. A tree has one root: of several machines with the root's identity one is
    /// kept.
    pub(super) fn become_calm(&mut self) -> Result<(), Failure> {
        self.calm = true;
        self.note(0, format_args!("all is calm"));
        self.conns.values_mut().for_each(|conn| conn.line = GOOD_LINE);
        for machine in 0..self.machines.len() {
            self.machines[machine].refused = false;
            self.machines[machine].slow_disk = false;
            if self.machines[machine].node == 0 && machine != 0 {
                self.crash(machine);
                self.machines[machine].retired = true;
                self.replace_disk(machine, MemStore::default());
            }
        }
        Ok(())
    }
}
