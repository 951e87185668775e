//! What can go wrong in a world, by name. Every kind can be switched off: a fault that happens everywhere hides those
//! that need quiet to show themselves.

/// Something that goes wrong once, at a moment that the plan gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A connection ends; its two ends learn of it at different times.
    Drop,
    /// One direction of a connection falls silent, until both ends give it up.
    OneWay,
    /// A machine dials again while it has a connection.
    DoubleDial,
    /// A machine reaches nobody for a while: minutes, or months.
    Away,
    /// A line falls to 8 kbit/s for a while.
    SlowLine,
    /// A neighbour says what is no frame.
    Garbage,
    /// A machine dies at once, and starts again.
    Crash,
    /// A machine dies and starts several times in a row.
    CrashLoop,
    /// A machine is suspended, and goes on later where it was.
    Suspend,
    /// A machine's clock jumps, by up to fifty years either way.
    ClockJump,
    /// A machine's clock stands still from now on.
    ClockStop,
    /// A machine's disk is slow for a while.
    SlowDisk,
    /// A machine's disk takes nothing more for a while: every commit ends the process.
    FullDisk,
    /// One commit fails, and the process ends; what was to be written may be on the disk all the same.
    DiskError,
    /// A copy of a machine's disk is put aside.
    Backup,
    /// A machine goes on with an older copy of its disk.
    Restore,
    /// A machine and its parent go on with older copies of their disks, at once.
    RestoreTwo,
    /// A machine goes on with an empty disk.
    EmptyDisk,
    /// A second machine starts from a copy of a machine's disk, with its identity.
    Clone,
    /// A running machine is copied, memory and all, and both copies run on.
    Twin,
    /// A leaf is revoked, at its parent or at the root, whatever it is in the middle of.
    Revoke,
    /// The hostile leaf speaks: what it says is well-formed, signed with its own key, and meant badly.
    Hostile,
    /// A neighbour says a frame of a type that nobody knows, as one of another version might.
    Strange,
    /// A machine with a genuine certificate dials one that is not its parent.
    Stray,
    /// The certificate of a node ends, whatever it is in the middle of; after a while it has another.
    Expiry,
    /// A row of a machine's disk is gone, or what it holds is no entry any more; nobody is told. It comes of no act: see
    /// [`super::plan::Plan::rot_one_in`].
    Rot,
    /// The root's operator moves a leaf to another hub, or closes a hub and moves all its leaves. Only in worlds with opaque
    /// records.
    Move,
}

/// Every kind with its name and how often it comes, against the others. Those that never come by themselves take the
/// place of others in a fourth of the worlds ([`Fault::traded`]): so they could be added, and bytes that once broke a
/// promise still say the same.
pub const ALL: [(Fault, &str, u8); 27] = [
    (Fault::Drop, "drop", 12),
    (Fault::OneWay, "one-way", 6),
    (Fault::DoubleDial, "double-dial", 6),
    (Fault::Away, "away", 5),
    (Fault::SlowLine, "slow-line", 4),
    (Fault::Garbage, "garbage", 3),
    (Fault::Crash, "crash", 10),
    (Fault::CrashLoop, "crash-loop", 2),
    (Fault::Suspend, "suspend", 4),
    (Fault::ClockJump, "clock-jump", 3),
    (Fault::ClockStop, "clock-stop", 1),
    (Fault::SlowDisk, "slow-disk", 4),
    (Fault::FullDisk, "full-disk", 2),
    (Fault::DiskError, "disk-error", 4),
    (Fault::Backup, "backup", 8),
    (Fault::Restore, "restore", 4),
    (Fault::RestoreTwo, "restore-two", 2),
    (Fault::EmptyDisk, "empty-disk", 2),
    (Fault::Clone, "clone", 2),
    (Fault::Twin, "twin", 2),
    (Fault::Revoke, "revoke", 1),
    (Fault::Hostile, "hostile", 6),
    (Fault::Strange, "strange", 0),
    (Fault::Stray, "stray", 0),
    (Fault::Expiry, "expiry", 0),
    (Fault::Rot, "rot", 0),
    (Fault::Move, "move", 0),
];

impl Fault {
    /// Its name.
    pub fn name(self) -> &'static str {
        ALL[self.index()].1
    }

    /// Its place in [`ALL`].
    pub fn index(self) -> usize {
        ALL.iter().position(|(fault, ..)| *fault == self).expect("every kind is in the table")
    }

    /// What comes in its place, in every other case, in worlds where faults are traded.
    pub fn traded(self) -> Self {
        match self {
            Fault::Garbage => Fault::Strange,
            Fault::DoubleDial => Fault::Stray,
            Fault::OneWay => Fault::Expiry,
            Fault::SlowLine => Fault::Move,
            other => other,
        }
    }

    /// Whether the fault can take away what a disk held, or run two machines with one identity.
    pub fn is_of_identity(self) -> bool {
        self.takes_away() || matches!(self, Fault::Clone | Fault::Twin)
    }

    /// Whether a machine's connections may stand still because of it, though they go on.
    pub fn slows_down(self) -> bool {
        use Fault::{Away, DiskError, FullDisk, SlowDisk, SlowLine, Suspend};
        matches!(self, Away | SlowLine | SlowDisk | FullDisk | DiskError | Suspend)
    }

    /// Whether the fault can take away what a disk held.
    pub fn takes_away(self) -> bool {
        matches!(self, Fault::Restore | Fault::RestoreTwo | Fault::EmptyDisk)
    }
}

/// A set of kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults(u32);

impl Faults {
    /// The set whose members are the ones of this mask, by their places in [`ALL`].
    pub fn of_mask(mask: u32) -> Self {
        Self(mask)
    }

    /// Those with these names.
    pub fn named(names: &str) -> Result<Self, String> {
        names.split(',').try_fold(Self::default(), |all, name| {
            let found = ALL.iter().find(|(_, known, _)| *known == name);
            let known = || ALL.map(|(_, name, _)| name).join(", ");
            let (fault, ..) =
                found.ok_or_else(|| format!("no fault is called {name:?}; there are {}", known()))?;
            Ok(all.with(*fault))
        })
    }

    /// This set and one more.
    pub fn with(self, fault: Fault) -> Self {
        Self(self.0 | 1 << fault.index())
    }

    /// Both sets together.
    pub fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Whether it has this kind.
    pub fn has(self, fault: Fault) -> bool {
        self.0 & 1 << fault.index() != 0
    }
}
