//! What goes wrong, and the end of it.

use super::*;

impl World<'_> {
    pub(super) fn go_wrong(&mut self, fault: Fault) -> Result<(), Failure> {
        let honest =
            |m: &usize| !self.machines[*m].retired && self.plan.hostile != Some(self.machines[*m].node);
        let alive: Vec<_> = (0..self.machines.len()).filter(honest).collect();
        let machine = *self.rng.pick(&alive).expect("a world has machines");
        let open: Vec<_> = self.conns.iter().filter(|(_, c)| c.ends[0].open || c.ends[1].open).collect();
        let open: Vec<_> = open.into_iter().map(|(id, _)| *id).collect();
        let conn = self.rng.pick(&open).copied();
        self.note(machine, format_args!("fault {} {conn:?}", fault.name()));
        if fault.slows_down() {
            self.disturb(machine);
        }
        let happens = match fault {
            Fault::Drop => conn.is_some_and(|conn| {
                let first = self.rng.below(2) as usize;
                self.drop_conn(conn, first, IDLE_TIMEOUT);
                true
            }),
            Fault::OneWay => conn.is_some_and(|conn| {
                let from = self.rng.below(2) as usize;
                self.silence(conn, [from].into_iter());
                true
            }),
            Fault::Garbage | Fault::Strange => conn.is_some_and(|conn| self.say_garbage(conn, fault)),
            Fault::Stray => self.dial_astray(machine),
            Fault::Expiry => self.let_expire(machine),
            Fault::DoubleDial => {
                let boot = self.machines[machine].boot;
                self.after(0, Ev::Dial(machine, boot));
                self.is_awake(machine)
            }
            Fault::Away => {
                self.machines[machine].trouble.away = true;
                let own = |conn: &Conn| conn.ends[0].machine == machine && conn.ends[0].open;
                let uplinks: Vec<_> = self.conns.iter().filter(|(_, c)| own(c)).map(|(id, _)| *id).collect();
                uplinks.into_iter().for_each(|conn| self.silence(conn, 0..2));
                let long = self.a_while();
                self.heal_after(machine, long)
            }
            Fault::SlowLine => {
                self.machines[machine].trouble.slow_line = true;
                for conn in self.conns.values_mut().filter(|conn| conn.ends[0].machine == machine) {
                    conn.line.rate = SLOW_LINE_RATE;
                }
                let long = self.a_while();
                self.heal_after(machine, long)
            }
            Fault::SlowDisk => {
                self.machines[machine].trouble.slow_disk = true;
                let long = self.rng.range(10_000, 300_000);
                self.heal_after(machine, long)
            }
            Fault::FullDisk => {
                self.machines[machine].trouble.full_disk = true;
                let long = self.rng.range(10_000, 300_000);
                self.heal_after(machine, long)
            }
            Fault::DiskError => {
                self.machines[machine].trouble.disk_error = true;
                true
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
                true
            }
            Fault::Suspend => self.suspend(machine),
            Fault::ClockJump => {
                self.machines[machine].clock = Clock::Runs(self.fifty_years());
                true
            }
            Fault::ClockStop => {
                self.machines[machine].clock = Clock::Stands(self.clock(machine).wall);
                true
            }
            Fault::Backup => {
                let parent = self.a_parent_of(machine);
                for machine in [machine].into_iter().chain(parent) {
                    let copy = self.machines[machine].store.clone();
                    self.machines[machine].backups.push(copy);
                }
                true
            }
            Fault::Restore => {
                let kept: Vec<_> =
                    alive.into_iter().filter(|m| !self.machines[*m].backups.is_empty()).collect();
                self.rng.pick(&kept).copied().is_some_and(|machine| self.restore(machine))
            }
            Fault::RestoreTwo => {
                let has_both = |m: &usize| {
                    let parent = self.a_parent_of(*m)?;
                    [*m, parent].iter().all(|m| !self.machines[*m].backups.is_empty()).then_some([*m, parent])
                };
                let pairs: Vec<_> = alive.iter().filter_map(has_both).collect();
                let pair = self.rng.pick(&pairs).copied();
                pair.is_some_and(|pair| pair.map(|machine| self.restore(machine)) == [true, true])
            }
            Fault::EmptyDisk => {
                self.crash(machine);
                self.replace_disk(machine, MemStore::default());
                true
            }
            Fault::Clone => self.clone_disk(machine),
            Fault::Twin => self.copy_running(machine)?,
            Fault::Revoke => self.revoke_a_leaf(),
            Fault::Hostile => self.speak_badly()?,
            Fault::Move => self.rearrange()?,
            Fault::Rot => unreachable!("it comes of commits"),
        };
        self.report.faults[fault.index()] += u64::from(happens);
        Ok(())
    }

    /// A machine of the node above this machine's.
    fn a_parent_of(&self, machine: usize) -> Option<usize> {
        let parent = self.dials(machine).or(self.plan.nodes[self.machines[machine].node].parent)?;
        (0..self.machines.len()).find(|m| self.machines[*m].node == parent && !self.machines[*m].retired)
    }

    /// Seconds, or months: as long as things go wrong at most.
    pub(super) fn a_while(&mut self) -> Millis {
        let left = self.plan.calm_at - self.now;
        let scale = [60_000, 600_000, 86_400_000, left][self.rng.below(4) as usize];
        self.rng.below(scale.min(left) + 1)
    }

    fn heal_after(&mut self, machine: usize, delay: Millis) -> bool {
        self.after(delay, Ev::Heal(machine));
        true
    }

    /// What was wrong for a while is over.
    pub(super) fn heal(&mut self, machine: usize) {
        let one = &mut self.machines[machine];
        one.trouble = Trouble::default();
        let line = if self.calm { GOOD_LINE } else { self.plan.nodes[one.node].line };
        self.conns
            .values_mut()
            .filter(|conn| conn.ends[0].machine == machine)
            .for_each(|conn| conn.line = line);
        self.dial_later(machine);
    }

    /// Nothing comes through these directions any more; in the end both ends give the connection up.
    fn silence(&mut self, conn: u64, ways: impl Iterator<Item = usize>) {
        ways.for_each(|from| self.conns.get_mut(&conn).expect("it was found").silence(from));
        for end in 0..2 {
            let delay = self.rng.range(IDLE_TIMEOUT / 2, IDLE_TIMEOUT);
            self.after(delay, Ev::Closed { conn, end });
        }
    }

    /// Between two frames comes something that is none, or one of a type that nobody knows. If it is not known for that at once, the connection is given
    /// up all the same.
    fn say_garbage(&mut self, conn: u64, fault: Fault) -> bool {
        let (from, stream) = (self.rng.below(2) as usize, self.rng.below(STREAMS as u64) as usize);
        let length = self.rng.range(1, 100) as usize;
        let content = self.rng.bytes(length);
        let begin = match fault {
            Fault::Strange => vec![length as u8 + 1, self.rng.range(100, 256) as u8],
            // A frame of no length is none; chance alone makes frames now and then.
            _ => vec![0],
        };
        let bytes = [begin, content].concat();
        let one = self.conns.get_mut(&conn).expect("it was found");
        let Some(at) = one.transmit(from, stream, bytes.len(), self.now, &mut self.rng) else { return false };
        one.cut(at);
        one.garbled_at = Some(at);
        self.after(at - self.now, Ev::Bytes { conn, from, stream, bytes });
        for end in 0..2 {
            let delay = self.rng.range(IDLE_TIMEOUT / 2, IDLE_TIMEOUT);
            self.after(at - self.now + delay, Ev::Closed { conn, end });
        }
        true
    }

    /// A machine stops where it is, and goes on later. When it sleeps for long its connections end meanwhile.
    fn suspend(&mut self, machine: usize) -> bool {
        if !self.is_awake(machine) {
            return false;
        }
        let long = self.a_while();
        self.machines[machine].asleep_until = self.now + long;
        if long > IDLE_TIMEOUT {
            let own = |conn: &Conn| conn.ends.iter().any(|end| end.machine == machine && end.open);
            let open: Vec<_> = self.conns.iter().filter(|(_, conn)| own(conn)).map(|(id, _)| *id).collect();
            open.into_iter().for_each(|conn| self.silence(conn, 0..2));
        }
        true
    }

    /// Power is lost: whatever is not on the disk is gone. The machine starts again before long.
    pub(super) fn crash(&mut self, machine: usize) -> bool {
        if self.machines[machine].engine.is_none() {
            return false;
        }
        self.report.power_cuts += 1;
        self.note(machine, format_args!("loses power"));
        let one = &mut self.machines[machine];
        one.engine = None;
        one.pending = None;
        one.asleep_until = 0;
        let ends = |conn: &Conn| conn.ends.iter().position(|end| end.machine == machine && end.open);
        let conns: Vec<_> = self.conns.iter().filter_map(|(id, conn)| Some((*id, ends(conn)?))).collect();
        for (conn, end) in conns {
            let within = if self.rng.one_in(2) { 100 } else { IDLE_TIMEOUT };
            self.drop_conn(conn, end, within);
        }
        let delay = self.rng.range(10, OFF_MAX);
        self.after(delay, Ev::Start(machine));
        true
    }

    /// One of the copies that were put aside takes the place of the disk; false when there is none.
    fn restore(&mut self, machine: usize) -> bool {
        let Some(copy) = self.rng.pick(&self.machines[machine].backups).cloned() else { return false };
        self.crash(machine);
        let tips =
            [&self.machines[machine].store, &copy].map(|store| store.tip().expect("memory does not fail"));
        self.note(machine, format_args!("is restored from {} rows to {}", tips[0], tips[1]));
        self.replace_disk(machine, copy);
        true
    }

    pub(super) fn replace_disk(&mut self, machine: usize, copy: MemStore) {
        self.machines[machine].read.clear();
        let before = std::mem::replace(&mut self.machines[machine].store, copy);
        let node = self.machines[machine].node;
        let kept: Vec<_> = self.machines.iter().filter(|one| !one.retired).map(|one| &one.store).collect();
        self.ledger.destroy(node, &before, &self.machines[machine].store, &kept);
    }

    /// A second machine starts from a copy of this one's disk, or of a backup of it; this one starts anew too.
    fn clone_disk(&mut self, machine: usize) -> bool {
        let backup = self.rng.pick(&self.machines[machine].backups).cloned();
        let disk =
            backup.filter(|_| self.rng.one_in(2)).unwrap_or_else(|| self.machines[machine].store.clone());
        let node = self.machines[machine].node;
        let second = self.add_machine(node, disk);
        self.note(second, format_args!("is a copy"));
        self.crash(machine);
        self.after(0, Ev::Start(second));
        true
    }

    /// A running machine is copied, with what is in its memory and under way to its disk.
    fn copy_running(&mut self, machine: usize) -> Result<bool, Failure> {
        let one = &self.machines[machine];
        let Some(engine) = one.engine.clone().filter(|_| self.is_awake(machine)) else { return Ok(false) };
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
        Ok(true)
    }

    /// People at two running copies of one machine edit the same record before either hears of the other.
    fn edit_at_both(&mut self, machines: [usize; 2]) {
        if !self.plan.real {
            return;
        }
        let Some(record) = self.a_record_of(machines[0]) else { return };
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
        self.intruder_goes();
        (0..self.plan.nodes.len()).for_each(|node| self.renew(node));
        for machine in 0..self.machines.len() {
            self.machines[machine].asleep_until = self.machines[machine].asleep_until.min(self.now);
            self.heal(machine);
            if self.machines[machine].node == 0 && machine != 0 {
                self.crash(machine);
                self.machines[machine].retired = true;
                self.replace_disk(machine, MemStore::default());
            }
        }
        for node in self.revoked.clone() {
            self.after(0, Ev::Revoke(0, node));
        }
        self.after(0, Ev::Orders);
        if self.plan.part {
            for machine in 1..self.machines.len() {
                let may =
                    !self.machines[machine].retired && !self.revoked.contains(&self.machines[machine].node);
                if self.rng.one_in(3) && may {
                    self.crash(machine);
                    self.machines[machine].stays_away = true;
                }
            }
        }
        Ok(())
    }
}
