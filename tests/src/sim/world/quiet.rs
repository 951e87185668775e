//! When nothing is left to do, and everybody reconnects.

use super::*;

impl World<'_> {
    /// Those that were away while the rest settled come back, and all settles again. What can reach the root without
    /// them has settled before.
    pub(super) fn bring_back_the_rest(&mut self) -> Result<(), Failure> {
        let away: Vec<_> = (0..self.machines.len()).filter(|m| self.machines[*m].stays_away).collect();
        if away.is_empty() {
            return Ok(());
        }
        self.check_part()?;
        self.report.part_settled = true;
        for machine in away {
            self.machines[machine].stays_away = false;
            self.after(0, Ev::Start(machine));
        }
        (0..self.machines.len()).for_each(|machine| self.dial_later(machine));
        self.run_until_quiet()?;
        self.heal_rows()
    }

    fn check_part(&self) -> Result<(), Failure> {
        let there: BTreeSet<_> = self.finals().iter().map(|one| one.place.clone()).collect();
        let reaches_root = |one: &Final<'_>| {
            let mut above = one.place.parent();
            while let Some(place) = above {
                if !there.contains(&place) {
                    return false;
                }
                above = place.parent();
            }
            true
        };
        // Who was away when it was moved has not heard of it.
        let mut part: Vec<_> = self.finals();
        part.retain(|one| reaches_root(one) && one.orders == self.places.orders().len());
        oracle::check_part(&part, &self.secrets(), &self.places)
    }

    /// Everybody reconnects although nothing has changed. After a restore the first time may cost a question more: of
    /// a feed that was empty then, a reader could not name a place in lanes in which nothing has come.
    pub(super) fn reconnect_costs_little(&mut self) -> Result<(), Failure> {
        if !self.plan.keeps_identity() {
            self.reconnect(false)?;
        }
        self.reconnect(true)
    }

    fn reconnect(&mut self, cheaply: bool) -> Result<(), Failure> {
        let nodes: BTreeSet<_> = self.machines.iter().filter(|m| !m.retired).map(|m| m.node).collect();
        // A neighbour cannot be told up to where it has read a segment at whose end rows are gone, or were when it was told,
        // so it may be told of the segment once more.
        let alone =
            nodes.len() == self.machines.iter().filter(|m| !m.retired).count() && self.plan.rot_one_in == 0;
        let open: Vec<_> = self.conns.keys().copied().collect();
        let first = self.names;
        for conn in open {
            for end in 0..2 {
                self.close_end(conn, end)?;
            }
        }
        self.run_until_quiet()?;
        for (_, conn) in self.conns.range(first..) {
            let sent = [conn.ends[0].sent, conn.ends[1].sent];
            let bytes = sent[0].1 + sent[1].1;
            let who = conn.ends.each_ref().map(|end| &self.machines[end.machine].name);
            if alone && cheaply {
                self.report.reconnect_bytes = self.report.reconnect_bytes.max(bytes);
            }
            // HELLO from both, and from the parent the news of what is safe at the root, for each lane. A feed of which
            // nothing has left stays empty after a restore, so there the question comes each time.
            let is_empty = |machine: usize| self.machines[machine].store.tip().is_ok_and(|tip| tip == 0);
            // Of those to whom something is open and of whom nobody has heard each end asks the other.
            let question = u64::from(self.plan.secrets || is_empty(conn.ends[1].machine));
            let sought = if self.plan.grants { self.plan.nodes.len() as u64 } else { 0 };
            let frames_fit =
                (1..=1 + question + sought).contains(&sent[0].0) && (1..=4 + sought).contains(&sent[1].0);
            // Those that were moved tell each other so, because their certificates do not; and a segment of which all rows were
            // forgotten is announced each time.
            let differs =
                !self.places.orders().is_empty() || self.report.forgotten > 0 || self.content_is_open();
            if alone && cheaply && !differs && (!frames_fit || bytes >= RECONNECT_MAX_BYTES) {
                let text = format!("{who:?} sent (frames, bytes) {sent:?}");
                return Err(Failure::new("a reconnect costs little", text));
            }
        }
        let finals = self.finals();
        check_final(&self.ledger, &finals, &self.secrets(), &self.places)
    }
}
