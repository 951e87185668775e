//! What people do at machines, and what machines show them.

use sync_core::{
    change::Entry,
    scope::grant::{self, FOREVER, Grant, GrantId, Granted},
};

use super::*;

impl World<'_> {
    /// Somebody writes at a machine: anything, or this record.
    pub(super) fn write(&mut self, machine: usize, wanted: Option<&RecordId>) -> Result<(), Failure> {
        let wall = self.clock(machine).wall;
        let Plan { shared_names, large_one_in, real, issues, secrets, .. } = self.plan;
        // A change of a record is made on the one before it, so it has to be on the disk; the daemon waits as well.
        if real && (!self.machines[machine].tickets.is_empty() || self.machines[machine].pending.is_some()) {
            return Ok(());
        }
        let taste = Taste { shared_names, large_one_in, real, issues, secrets };
        let (mut entries, mut projection) = (Vec::new(), Vec::new());
        for _ in 0..if real { 1 } else { self.rng.range(1, 3) } {
            self.names += 1;
            let one = &self.machines[machine];
            let engine = one.engine.as_ref().expect("it was found running");
            let place = engine.place();
            let (run, serial) = (engine.incarnation(), self.names);
            let writer = Writer { run, org: place.org(), place, places: engine.places(), wall, serial };
            let written =
                compose(&writer, &taste, wanted.cloned(), &one.store, &mut self.rng).map_err(store_failed)?;
            let Some(written) = written else { return Ok(()) };
            let entry =
                if self.plan.grants { self.with_grant(machine, written.entry) } else { written.entry };
            entries.push(self.with_content(machine, entry, &mut projection));
            projection.extend(written.projection);
        }
        self.names += 1;
        let ticket = Ticket(self.names);
        let keys: Vec<_> = entries.iter().map(key).collect();
        self.note(machine, format_args!("is to write {keys:?}"));
        self.machines[machine].tickets.insert(ticket, keys);
        self.drive(machine, Event::Write { ticket, entries, projection })
    }

    /// One entry in three opens its record to some place, or ends what is open where the writer has heard of that place. Where
    /// clocks are right the time of some ends before all is calm.
    fn with_grant(&mut self, machine: usize, entry: Entry) -> Entry {
        if entry.record().issuer().is_some() || !self.rng.one_in(3) {
            return entry;
        }
        let one = &self.machines[machine];
        let places = one.engine.as_ref().expect("it was found running").places();
        let known = one.store.grants(entry.record()).expect("memory does not fail");
        let may_end = |one: &Granted| one.over.is_none() && places.stands(&one.grant.to).is_some();
        let open: Vec<_> = known.into_iter().filter(may_end).collect();
        let orgs = (0..self.plan.nodes.len()).filter(|node| Some(*node) != self.plan.hostile);
        let orgs = orgs.map(|node| self.plan.nodes[node].info.place.org());
        let orgs: Vec<_> = orgs.cloned().collect();
        let ended = self.rng.pick(&open).filter(|_| entry.stamp().0 % 2 == 0).cloned();
        let step = match (ended, self.rng.pick(&orgs).cloned()) {
            (Some(one), _) => grant::Step::Ends(one.grant),
            (None, Some(to)) => {
                grant::Step::Opens(Grant { id: GrantId(self.rng.array()), to, until: self.until() })
            }
            (None, None) => return entry,
        };
        self.note(machine, format_args!("{:?}: {step:?}", key(&entry)));
        entry.with_grants(&[step])
    }

    fn until(&mut self) -> i64 {
        let left = self.plan.calm_at.saturating_sub(self.now);
        let may_end = !self.plan.has_wrong_clocks() && left > 0 && self.rng.one_in(2);
        if may_end { EPOCH + (self.now + self.rng.below(left)) as i64 } else { FOREVER }
    }

    /// One of the records that a machine holds.
    pub(super) fn a_record_of(&mut self, machine: usize) -> Option<RecordId> {
        let store = &self.machines[machine].store;
        let tip = store.tip().expect("memory does not fail");
        let row = self.rng.below(tip.max(1));
        store.unfolded(row, 1).expect("memory does not fail").pop().map(|(_, record)| record)
    }

    /// Two to five machines that hold the same record are about to write it.
    pub(super) fn meet(&mut self) {
        let awake: Vec<_> = (0..self.machines.len()).filter(|m| self.is_awake(*m)).collect();
        let Some(&first) = self.rng.pick(&awake) else { return };
        let Some(record) = self.a_record_of(first) else { return };
        let holds =
            |m: &usize| !self.machines[*m].store.rows_of(&record).expect("memory does not fail").is_empty();
        let mut holders: Vec<_> = awake.into_iter().filter(holds).collect();
        let most = self.rng.range(2, 5) as usize;
        while holders.len() > most {
            holders.remove(self.rng.below(holders.len() as u64) as usize);
        }
        for machine in holders {
            let delay = self.rng.range(1, 1_000);
            self.after(delay, Ev::Edit(machine, record.clone()));
        }
    }

    /// When its disk is idle, a machine may fold a little.
    pub(super) fn fold_a_little(&mut self, machine: usize) -> Result<(), Failure> {
        let one = &self.machines[machine];
        if !self.plan.real || one.engine.is_none() || one.pending.is_some() || !self.rng.one_in(2) {
            return Ok(());
        }
        match records::fold(&one.store, &mut self.rng).map_err(store_failed)? {
            Some(ops) => self.drive(machine, Event::Folded(ops)),
            None => Ok(()),
        }
    }

    /// Everything is folded, and every disk shows the same of every record.
    pub(super) fn check_records(&mut self) -> Result<(), Failure> {
        if !self.plan.real {
            return Ok(());
        }
        let mut seen: BTreeMap<RecordId, (String, Shown)> = BTreeMap::new();
        for one in self.machines.iter_mut().filter(|machine| !machine.retired) {
            while let Some(ops) = records::fold(&one.store, &mut self.rng).map_err(store_failed)? {
                one.store.commit(&ops).map_err(store_failed)?;
            }
            let records: BTreeSet<_> =
                oracle::keys_after(&one.store, 0).map(|(_, (record, _))| record).collect();
            for record in records {
                let shown = records::shown(&one.name, &one.store, &record)?;
                if shown.has_unreadable() && self.plan.keeps_identity() {
                    let text = format!("{} cannot read all of {record}", one.name);
                    return Err(Failure::new("all can be read", text));
                }
                let (who, first) =
                    seen.entry(record).or_insert_with_key(|_| (one.name.clone(), shown.clone()));
                self.report.records_read += 1;
                self.report.in_conflict += usize::from(shown.in_conflict());
                self.report.forked += usize::from(shown.has_unreadable());
                if *first != shown {
                    let text = format!("{who} {first:?}, {} {shown:?}", one.name);
                    return Err(Failure::new("all see the same", text));
                }
            }
        }
        Ok(())
    }
}
