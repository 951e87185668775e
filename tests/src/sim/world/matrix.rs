//! The restore matrix: every node, or two at once, put back to copies of every age, with everything that may have been
//! written since. What a cell comes to is worked out by a world, not stated.

use std::fmt;

use super::*;
use crate::sim::plan::Taste as Driver;

/// The nodes of the small country in which the matrix is worked out.
const ROOT: usize = 0;
const HUB: usize = 1;
const LEAF: usize = 2;
const OTHER_LEAF: usize = 3;
/// A head that stands for a quiet world of one hub and two leaves; see [`crate::sim::plan`].
const SMALL_COUNTRY: [u8; 14] = [7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const MINUTE: Millis = 60_000;
const DAY: Millis = 86_400_000;
/// Writes of each writer.
const WRITES: usize = 5;

/// Which disks are put back to copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nodes(&'static str, &'static [usize]);

/// All combinations of one or two nodes in a line.
pub const NODES: [Nodes; 6] = [
    Nodes("leaf", &[LEAF]),
    Nodes("hub", &[HUB]),
    Nodes("root", &[ROOT]),
    Nodes("leaf and hub", &[LEAF, HUB]),
    Nodes("hub and root", &[HUB, ROOT]),
    Nodes("leaf and root", &[LEAF, ROOT]),
];

/// How old the copies are, and whether the machines from which they were made run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copy {
    /// Some seconds.
    Seconds,
    /// A day on which everybody wrote.
    Day,
    /// From before the leaf was enrolled.
    BeforeEnrolment,
    /// A day, and the first machine runs on beside the one with the copy.
    Cloned,
}

/// All of them.
pub const COPIES: [Copy; 4] = [Copy::Seconds, Copy::Day, Copy::BeforeEnrolment, Copy::Cloned];

/// Who has written since the copies were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The nodes that are put back.
    Themselves,
    /// The leaves below them.
    Below,
    /// The nodes above them.
    Above,
}

/// All of them.
pub const BY: [By; 3] = [By::Themselves, By::Below, By::Above];

/// A cell of the matrix.
#[derive(Debug, Clone, Copy)]
pub struct Cell {
    /// Which disks are put back.
    pub nodes: Nodes,
    /// To what.
    pub copy: Copy,
    /// Who has written since.
    pub by: By,
    /// Whether what was written had passed the link above the uppermost of the nodes.
    pub synced: bool,
}

/// What a cell comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Writes since the copies were made.
    pub since: usize,
    /// Those of them that no disk holds any more.
    pub lost: usize,
    /// Whether somebody is told, by an alert.
    pub told: bool,
}

impl Nodes {
    /// Those in a line above the uppermost, or the leaves below that are not put back themselves.
    fn writers(self, by: By) -> Vec<usize> {
        let Nodes(_, nodes) = self;
        let all = match by {
            By::Themselves => nodes.to_vec(),
            By::Below => vec![LEAF, OTHER_LEAF],
            By::Above => (ROOT..*nodes.iter().min().expect("there is one")).collect(),
        };
        let is_below = |node: &usize| nodes.iter().any(|above| *above < LEAF) && !nodes.contains(node);
        all.into_iter().filter(|node| by != By::Below || is_below(node)).collect()
    }
}

impl fmt::Display for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Cell {
    /// Whether there is such a cell: there is nobody above a root, and nothing above it to sync with.
    pub fn exists(&self) -> bool {
        let has_root = self.nodes.1.contains(&ROOT);
        !self.nodes.writers(self.by).is_empty() && (self.synced || !has_root)
    }

    /// Works it out.
    pub fn work_out(&self, trace: &mut Trace) -> Result<Outcome, Failure> {
        let mut plan = Plan::of_bytes(&SMALL_COUNTRY, Driver { real: Some(false), ..Driver::default() });
        plan.calm_at = 4 * DAY;
        plan.part = false;
        plan.nodes.iter_mut().for_each(|node| node.line = GOOD_LINE);
        World::new(plan, trace).work_out(self)
    }
}

impl World<'_> {
    fn work_out(mut self, cell: &Cell) -> Result<Outcome, Failure> {
        let nodes = cell.nodes.1;
        let enrolled_late = cell.copy == Copy::BeforeEnrolment;
        self.machines[LEAF].stays_away = enrolled_late;
        self.pass(MINUTE)?;
        self.all_write(if enrolled_late {
            &[ROOT, HUB, OTHER_LEAF]
        } else {
            &[ROOT, HUB, LEAF, OTHER_LEAF]
        })?;
        self.pass(DAY)?;
        let copies: Vec<_> = nodes.iter().map(|node| self.machines[*node].store.clone()).collect();
        let before = self.ledger.written();
        if enrolled_late {
            self.machines[LEAF].stays_away = false;
            self.after(0, Ev::Start(LEAF));
            self.pass(MINUTE)?;
            self.all_write(&[LEAF])?;
            self.pass(MINUTE)?;
        }
        let top = *nodes.iter().min().expect("there is one");
        if !cell.synced {
            self.machines[top].trouble.away = true;
            let own = |conn: &Conn| conn.ends[0].machine == top;
            let uplinks: Vec<_> = self.conns.iter().filter(|(_, c)| own(c)).map(|(id, _)| *id).collect();
            uplinks.into_iter().for_each(|conn| self.drop_conn(conn, 0, 1_000));
            self.pass(MINUTE)?;
        }
        self.all_write(&cell.nodes.writers(cell.by))?;
        if cell.copy != Copy::Seconds {
            self.pass(DAY)?;
        }
        let since = self.ledger.written() - before;
        self.report.keeps_identity = false;
        self.alerts = 0;
        let mut replaced = Vec::new();
        for (node, copy) in nodes.iter().zip(copies) {
            if cell.copy == Copy::Cloned {
                let second = self.add_machine(*node, copy);
                self.after(0, Ev::Start(second));
                replaced.push(second);
            } else {
                self.crash(*node);
                self.replace_disk(*node, copy);
                replaced.push(*node);
            }
        }
        // Life goes on for a while, on both where there are two. Of two roots one is switched off in the end, with all
        // that it alone holds.
        self.pass(10 * MINUTE)?;
        replaced.retain(|machine| *machine == ROOT || self.machines[*machine].node != ROOT);
        self.all_write(&replaced)?;
        self.after(self.plan.calm_at.saturating_sub(self.now), Ev::Calm);
        self.run_until_quiet()?;
        let finals = self.finals();
        check_final(&self.ledger, &finals, &self.secrets(), &self.places)?;
        Ok(Outcome { since, lost: self.ledger.lost(finals[0].store), told: self.alerts > 0 })
    }

    /// Lets so much time go by.
    pub(super) fn pass(&mut self, time: Millis) -> Result<(), Failure> {
        let end = self.now + time;
        while let Some(next) = self.queue.first_entry().filter(|next| next.key().0 <= end) {
            let ((at, _), event) = next.remove_entry();
            self.now = at;
            self.happen(event)?;
        }
        self.now = end;
        Ok(())
    }

    /// These machines write, and their neighbours hear of it where they can.
    fn all_write(&mut self, machines: &[usize]) -> Result<(), Failure> {
        for _ in 0..WRITES {
            for machine in machines {
                self.write(*machine, None)?;
                self.pass(1_000)?;
            }
        }
        Ok(())
    }
}
