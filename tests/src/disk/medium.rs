//! The disk: files and a directory as programs see them, and what of them a power cut leaves. Safe code without SQLite.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
};

use sha2::{Digest as _, Sha256};

use crate::sim::rng::Rng;

/// Bytes of the sectors that disks have.
const SECTOR_BYTES: [usize; 2] = [512, 4_096];
/// One in so many syncs is a place where power is cut for each one among the other changes.
const CUT_SYNC_SHARE: u64 = 6;

/// Names a file while the machine runs, whatever it is called.
pub type Inode = u32;

/// What is done to a disk: each is a place for a cut or a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// A file is opened, and made if it is missing.
    Open,
    /// It is asked whether a file exists.
    Access,
    /// It is asked how long a file is.
    Size,
    /// Bytes are read.
    Read,
    /// Bytes are written.
    Write,
    /// A file is cut off.
    Truncate,
    /// A file is synced.
    Sync,
    /// The directory is synced.
    SyncDirectory,
    /// A file is removed.
    Remove,
    /// A file gets another name.
    Rename,
    /// Memory is mapped for the index of the log.
    Map,
}

impl Step {
    /// Whether it can change what a power cut leaves.
    fn changes(self) -> bool {
        !matches!(self, Step::Access | Step::Size | Step::Read | Step::Map)
    }
}

/// What goes wrong at a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The disk does not do it: EIO.
    Io,
    /// There is no room: ENOSPC.
    Full,
    /// A part of the bytes is written, then there is no room.
    ShortWrite,
    /// One bit of what is read is another one.
    FlippedBit,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 4] = [Fault::Io, Fault::Full, Fault::ShortWrite, Fault::FlippedBit];

    /// Whether it can happen at such a step.
    pub fn fits(self, step: Step) -> bool {
        match self {
            Fault::Io => true,
            Fault::Full => matches!(step, Step::Open | Step::Write | Step::Rename | Step::Map),
            Fault::ShortWrite => step == Step::Write,
            Fault::FlippedBit => step == Step::Read,
        }
    }
}

/// A fault that is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// What.
    pub fault: Fault,
    /// At which step, counted from the one after this is planned; at the first from there on that it fits.
    pub at: u64,
    /// Whether it stays until the disk is mended.
    pub lasting: bool,
}

/// Why a step was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// EIO.
    Io,
    /// ENOSPC.
    Full,
    /// ENOENT.
    Missing,
}

impl From<Refused> for std::io::Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Io => std::io::Error::other("the disk fails"),
            Refused::Full => std::io::ErrorKind::StorageFull.into(),
            Refused::Missing => std::io::ErrorKind::NotFound.into(),
        }
    }
}

/// A PRAGMA that goes wrong without an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingFault {
    /// The name of the setting.
    pub name: &'static str,
    /// The value that is set in the place of the one that was asked for; none when nothing is set. Not longer than
    /// the value that was asked for.
    pub value: Option<&'static str>,
}

/// What had been promised when the power was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moment {
    /// Whether the creation of the store had returned.
    pub created: bool,
    /// The last acknowledged commit.
    pub acknowledged: u64,
    /// Whether the next one was under way.
    pub in_flight: bool,
}

/// How a disk behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Temper {
    /// Bytes of a sector.
    pub sector: usize,
    /// Whether the file system keeps changes of the directory in their order.
    pub journalled: bool,
    /// Whether it says that it has synced and has not.
    pub lies: bool,
}

impl Temper {
    /// A sound disk.
    pub fn draw(rng: &mut Rng) -> Self {
        let sector = SECTOR_BYTES[rng.below(2) as usize];
        Self { sector, journalled: !rng.one_in(3), lies: false }
    }
}

/// What power cuts did to the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Damage {
    /// Sectors that were not synced and survived.
    pub kept: u64,
    /// Sectors of which at least the last write is lost.
    pub lost: u64,
    /// Sectors that hold a part of a write.
    pub torn: u64,
    /// Files whose length is an older one.
    pub short: u64,
    /// Changes of the directory that are lost.
    pub entries: u64,
}

impl std::ops::AddAssign for Damage {
    fn add_assign(&mut self, other: Self) {
        self.kept += other.kept;
        self.lost += other.lost;
        self.torn += other.torn;
        self.short += other.short;
        self.entries += other.entries;
    }
}

/// A power cut: what is left, and what had been promised.
#[derive(Debug)]
pub struct Cut {
    /// The disk as the next start finds it.
    pub disk: Disk,
    /// What had been promised.
    pub moment: Moment,
    /// The step before which it was.
    pub step: u64,
    /// What it did.
    pub damage: Damage,
}

/// What happened on disks, in lines that two runs can be compared by.
#[derive(Debug, Clone, Default)]
pub struct Log(Option<Arc<Mutex<Lines>>>);

#[derive(Debug, Default)]
struct Lines {
    kept: Vec<String>,
    hasher: Sha256,
}

impl Log {
    /// Keeps nothing.
    pub fn off() -> Self {
        Self(None)
    }

    /// Keeps every line.
    pub fn full() -> Self {
        Self(Some(Arc::default()))
    }

    /// Adds a line.
    pub fn line(&self, what: fmt::Arguments<'_>) {
        let Some(lines) = &self.0 else { return };
        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        let line = what.to_string();
        lines.hasher.update(line.as_bytes());
        lines.hasher.update(b"\n");
        lines.kept.push(line);
    }

    /// All lines.
    pub fn lines(&self) -> Vec<String> {
        let lines =
            self.0.as_ref().map(|lines| lines.lock().unwrap_or_else(PoisonError::into_inner).kept.clone());
        lines.unwrap_or_default()
    }

    /// The hash of all lines, in hexadecimal.
    pub fn hash(&self) -> String {
        let Some(lines) = &self.0 else { return String::new() };
        let digest = lines.lock().unwrap_or_else(PoisonError::into_inner).hasher.clone().finalize();
        digest.iter().take(8).map(|b| format!("{b:02x}")).collect()
    }
}

/// A change of a file that is not synced.
#[derive(Debug, Clone)]
enum Change {
    Bytes { at: usize, bytes: Vec<u8> },
    Length(usize),
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Change::Bytes { at, bytes } => {
                if to.len() < at + bytes.len() {
                    to.resize(at + bytes.len(), 0);
                }
                to[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            Change::Length(length) => to.resize(*length, 0),
        }
    }

    /// The length of a file of this length afterwards.
    fn length(&self, before: usize) -> usize {
        match self {
            Change::Bytes { at, bytes } => before.max(at + bytes.len()),
            Change::Length(length) => *length,
        }
    }
}

#[derive(Debug, Clone, Default)]
struct File {
    /// What programs read.
    seen: Arc<Vec<u8>>,
    /// What is on the medium for certain.
    safe: Arc<Vec<u8>>,
    /// What was done since the last sync.
    pending: Vec<Change>,
}

/// A change of the directory that is not synced.
#[derive(Debug, Clone)]
enum Entry {
    Link(String, Inode),
    Unlink(String),
    Rename { from: String, to: String, inode: Inode },
}

impl Entry {
    fn apply(&self, directory: &mut BTreeMap<String, Inode>) {
        match self {
            Entry::Link(name, inode) => drop(directory.insert(name.clone(), *inode)),
            Entry::Unlink(name) => drop(directory.remove(name)),
            Entry::Rename { from, to, inode } => {
                directory.remove(from);
                directory.insert(to.clone(), *inode);
            }
        }
    }
}

/// The locks of SQLite on a file, as the locks of all its connections together.
#[derive(Debug, Default)]
pub struct FileLocks {
    /// How many connections may read.
    pub shared: u32,
    /// Whether one of them is going to write.
    pub reserved: bool,
    /// Whether nobody may begin to read.
    pub pending: bool,
    /// Whether one of them writes.
    pub exclusive: bool,
}

/// Memory that connections share: the index of the log, and its eight locks.
#[derive(Debug, Default)]
pub struct Shared {
    /// The regions. They stay where they are for as long as a connection has them.
    pub regions: Vec<Box<[AtomicU64]>>,
    /// How many connections hold each lock; below 0 when one holds it alone.
    pub locks: [i32; 8],
}

/// Where power is cut.
#[derive(Debug)]
struct Cutter {
    rng: Rng,
    one_in: u64,
    most: usize,
    taken: Vec<Cut>,
}

/// A disk in memory with one directory.
#[derive(Debug)]
pub struct Disk {
    seen: BTreeMap<String, Inode>,
    safe: BTreeMap<String, Inode>,
    pending: Vec<Entry>,
    files: BTreeMap<Inode, File>,
    next: Inode,
    temper: Temper,
    rng: Rng,
    steps: u64,
    planned: Option<Planned>,
    fired: u64,
    setting: Option<SettingFault>,
    /// Takes no change since its directory could not be synced.
    read_only: bool,
    /// The process is dead: nothing that it still does has an effect.
    dead: bool,
    /// Counts the processes. What one has opened is of no use to the next.
    process: u64,
    cutter: Option<Cutter>,
    /// What has been promised up to now.
    pub moment: Moment,
    /// What happens.
    pub log: Log,
    /// The kinds of the steps, if they are wanted.
    kinds: Option<Vec<Step>>,
    /// The locks on the files.
    pub locks: BTreeMap<Inode, FileLocks>,
    /// The shared memory of the files.
    pub shared: BTreeMap<Inode, Arc<Mutex<Shared>>>,
}

impl Disk {
    /// An empty disk.
    pub fn new(temper: Temper, seed: u64) -> Self {
        Self::of(temper, seed, BTreeMap::new(), BTreeMap::new())
    }

    fn of(temper: Temper, seed: u64, names: BTreeMap<String, Inode>, files: BTreeMap<Inode, File>) -> Self {
        Self {
            seen: names.clone(),
            safe: names,
            pending: Vec::new(),
            next: files.keys().next_back().map_or(0, |last| last + 1),
            files,
            temper,
            rng: Rng::new(seed, "disk"),
            steps: 0,
            planned: None,
            fired: 0,
            setting: None,
            read_only: false,
            dead: false,
            process: 0,
            cutter: None,
            moment: Moment::default(),
            log: Log::off(),
            kinds: None,
            locks: BTreeMap::new(),
            shared: BTreeMap::new(),
        }
    }

    /// A disk with the same files, all of them synced.
    pub fn copy(&self, temper: Temper, seed: u64) -> Self {
        let file = |inode: &Inode| {
            let seen = self.files[inode].seen.clone();
            File { safe: seen.clone(), seen, pending: Vec::new() }
        };
        let files = self.seen.values().map(|inode| (*inode, file(inode))).collect();
        Self::of(temper, seed, self.seen.clone(), files)
    }

    /// Cuts the power before one in so many changes, at most so many times, and keeps what is left each time.
    pub fn cut_at_random(&mut self, rng: Rng, one_in: u64, most: usize) {
        self.cutter = Some(Cutter { rng, one_in, most, taken: Vec::new() });
    }

    /// The cuts up to now. None follows.
    pub fn take_cuts(&mut self) -> Vec<Cut> {
        self.cutter.take().map(|cutter| cutter.taken).unwrap_or_default()
    }

    /// How many cuts there are up to now.
    pub fn cut_count(&self) -> u64 {
        self.cutter.as_ref().map_or(0, |cutter| cutter.taken.len() as u64)
    }

    /// Lets something go wrong.
    pub fn plan(&mut self, planned: Planned) {
        (self.planned, self.fired, self.steps) = (Some(planned), 0, 0);
    }

    /// How often the planned fault has happened.
    pub fn fired(&self) -> u64 {
        self.fired
    }

    /// Lets a PRAGMA go wrong.
    pub fn plan_setting(&mut self, setting: Option<SettingFault>) {
        self.setting = setting;
    }

    /// The PRAGMA that goes wrong.
    pub fn setting_fault(&self) -> Option<&SettingFault> {
        self.setting.as_ref()
    }

    /// Mends the disk. What is lost stays lost.
    pub fn mend(&mut self) {
        (self.planned, self.read_only) = (None, false);
    }

    /// Ends the process: from now on it has no effect.
    pub fn kill(&mut self) {
        self.log.line(format_args!("{:>5} the process is killed", self.steps));
        self.dead = true;
    }

    /// Begins a new process. The page cache is that of the old one.
    pub fn begin_process(&mut self) {
        self.dead = false;
        self.process += 1;
        self.locks.clear();
        self.shared.clear();
    }

    /// Which process runs.
    pub fn process(&self) -> u64 {
        self.process
    }

    /// Whether what this process has opened is of use.
    pub fn is_alive(&self, process: u64) -> bool {
        !self.dead && self.process == process
    }

    /// Writes down the kinds of all steps from now on.
    pub fn watch_steps(&mut self) {
        (self.kinds, self.steps) = (Some(Vec::new()), 0);
    }

    /// The kinds of the steps since then.
    pub fn take_steps(&mut self) -> Vec<Step> {
        self.kinds.take().unwrap_or_default()
    }

    /// Changes one bit of a file on the medium; false when there is no such file or byte.
    pub fn rot(&mut self, name: &str, at: usize, bit: u8) -> bool {
        let file = self.seen.get(name).and_then(|inode| self.files.get_mut(inode));
        let Some(file) = file.filter(|file| at < file.seen.len()) else { return false };
        Arc::make_mut(&mut file.seen)[at] ^= 1 << (bit % 8);
        file.safe = file.seen.clone();
        true
    }

    /// How long a file is; none when it is missing.
    pub fn length_of(&self, name: &str) -> Option<usize> {
        self.seen.get(name).map(|inode| self.files[inode].seen.len())
    }

    /// Whether there is a file of this name.
    pub fn exists(&mut self, name: &str) -> Result<bool, Refused> {
        self.step(Step::Access, name, 0, 0)?;
        Ok(self.seen.contains_key(name))
    }

    /// Opens a file; makes it if it is missing and `make`.
    pub fn open(&mut self, name: &str, make: bool) -> Result<Inode, Refused> {
        self.step(Step::Open, name, 0, 0)?;
        if let Some(inode) = self.seen.get(name) {
            return Ok(*inode);
        }
        if !make {
            return Err(Refused::Missing);
        }
        if self.read_only {
            return Err(Refused::Io);
        }
        let inode = self.next;
        self.next += 1;
        self.files.insert(inode, File::default());
        self.enter(Entry::Link(name.to_owned(), inode));
        Ok(inode)
    }

    /// Removes a file. Who has it open keeps it.
    pub fn remove(&mut self, name: &str) -> Result<(), Refused> {
        self.step(Step::Remove, name, 0, 0)?;
        if !self.seen.contains_key(name) {
            return Err(Refused::Missing);
        }
        if self.read_only {
            return Err(Refused::Io);
        }
        self.enter(Entry::Unlink(name.to_owned()));
        Ok(())
    }

    /// Gives a file another name.
    pub fn rename(&mut self, from: &str, to: &str) -> Result<(), Refused> {
        self.step(Step::Rename, from, 0, 0)?;
        let Some(inode) = self.seen.get(from).copied() else { return Err(Refused::Missing) };
        if self.read_only {
            return Err(Refused::Io);
        }
        self.enter(Entry::Rename { from: from.to_owned(), to: to.to_owned(), inode });
        Ok(())
    }

    fn enter(&mut self, entry: Entry) {
        entry.apply(&mut self.seen);
        self.pending.push(entry);
    }

    /// Syncs the directory. When that fails, the file system takes no change any more.
    pub fn sync_directory(&mut self) -> Result<(), Refused> {
        if let Err(refused) = self.step(Step::SyncDirectory, "", 0, 0) {
            self.read_only = true;
            return Err(refused);
        }
        if self.read_only {
            return Err(Refused::Io);
        }
        if !self.temper.lies {
            self.pending.drain(..).for_each(|entry| entry.apply(&mut self.safe));
        }
        Ok(())
    }

    /// How long a file is.
    pub fn size(&mut self, file: Inode) -> Result<usize, Refused> {
        self.step_on(Step::Size, file, 0, 0)?;
        Ok(self.files[&file].seen.len())
    }

    /// Reads, and returns how many bytes there were.
    pub fn read(&mut self, file: Inode, at: usize, into: &mut [u8]) -> Result<usize, Refused> {
        let flip = self.step_on(Step::Read, file, at, into.len())?;
        let seen = &self.files[&file].seen;
        let there = seen.len().saturating_sub(at).min(into.len());
        into[..there].copy_from_slice(&seen[seen.len().min(at)..seen.len().min(at) + there]);
        into[there..].fill(0);
        if flip.is_some() && there > 0 {
            let bit = self.rng.below(there as u64 * 8) as usize;
            into[bit / 8] ^= 1 << (bit % 8);
        }
        Ok(there)
    }

    /// Writes.
    pub fn write(&mut self, file: Inode, at: usize, bytes: &[u8]) -> Result<(), Refused> {
        let short = self.step_on(Step::Write, file, at, bytes.len())?;
        if self.read_only {
            return Err(Refused::Io);
        }
        let done = short.map_or(bytes.len(), |_| self.rng.below(bytes.len() as u64) as usize);
        self.change(file, Change::Bytes { at, bytes: bytes[..done].to_vec() });
        if short.is_some() { Err(Refused::Full) } else { Ok(()) }
    }

    /// Cuts a file off, or makes it longer with zeros.
    pub fn truncate(&mut self, file: Inode, length: usize) -> Result<(), Refused> {
        self.step_on(Step::Truncate, file, length, 0)?;
        if self.read_only {
            return Err(Refused::Io);
        }
        self.change(file, Change::Length(length));
        Ok(())
    }

    fn change(&mut self, file: Inode, change: Change) {
        let file = self.files.get_mut(&file).expect("an open file exists");
        change.apply(Arc::make_mut(&mut file.seen));
        file.pending.push(change);
    }

    /// Syncs a file. When that fails, each sector has reached the medium, or never will.
    pub fn sync(&mut self, file: Inode) -> Result<(), Refused> {
        let outcome = self.step_on(Step::Sync, file, 0, 0);
        if self.dead {
            return Err(Refused::Io);
        }
        let File { seen, safe, pending } = self.files.get_mut(&file).expect("an open file exists");
        if let Err(refused) = outcome {
            fail_sync((seen, safe), std::mem::take(pending), self.temper.sector, &mut self.rng);
            return Err(refused);
        }
        if !self.temper.lies && !pending.is_empty() {
            let safe = Arc::make_mut(safe);
            pending.drain(..).for_each(|change| change.apply(safe));
        }
        Ok(())
    }

    /// Maps memory that connections share.
    pub fn map(&mut self, file: Inode) -> Result<Arc<Mutex<Shared>>, Refused> {
        self.step_on(Step::Map, file, 0, 0)?;
        Ok(self.shared.entry(file).or_default().clone())
    }

    fn step_on(
        &mut self,
        step: Step,
        file: Inode,
        at: usize,
        bytes: usize,
    ) -> Result<Option<Fault>, Refused> {
        let wanted = self.log.0.is_some();
        let name = wanted.then(|| self.seen.iter().find(|(_, inode)| **inode == file)).flatten();
        let name = name.map_or_else(String::new, |(name, _)| name.clone());
        self.step(step, &name, at, bytes)
    }

    /// What happens at every step. Gives the fault that the step itself has to make.
    fn step(&mut self, step: Step, name: &str, at: usize, bytes: usize) -> Result<Option<Fault>, Refused> {
        if self.dead {
            return Err(Refused::Io);
        }
        if step.changes() {
            self.cut_perhaps(step);
        }
        let this = self.steps;
        self.steps += 1;
        if let Some(kinds) = &mut self.kinds {
            kinds.push(step);
        }
        let due = self.planned.filter(|planned| {
            planned.at <= this && (planned.lasting || self.fired == 0) && planned.fault.fits(step)
        });
        let fault = due.map(|planned| planned.fault);
        if step.changes() || fault.is_some() {
            let trouble = fault.map_or_else(String::new, |fault| format!(" FAULT {fault:?}"));
            self.log.line(format_args!("{this:>5} {step:?} {name} {at}+{bytes}{trouble}"));
        }
        self.fired += u64::from(fault.is_some());
        match fault {
            Some(Fault::Io) => Err(Refused::Io),
            Some(Fault::Full) => Err(Refused::Full),
            other => Ok(other),
        }
    }

    fn cut_perhaps(&mut self, step: Step) {
        let Some(mut cutter) = self.cutter.take() else { return };
        let one_in =
            if step == Step::Write { cutter.one_in } else { (cutter.one_in / CUT_SYNC_SHARE).max(1) };
        if cutter.taken.len() < cutter.most && cutter.rng.one_in(one_in) {
            let cut = self.cut(&mut cutter.rng);
            cutter.taken.push(cut);
        }
        self.cutter = Some(cutter);
    }

    /// Cuts the power: draws what is left. This disk goes on as if nothing had been.
    pub fn cut(&self, rng: &mut Rng) -> Cut {
        let mut damage = Damage::default();
        let mut names = self.safe.clone();
        let luck = Luck::draw(rng);
        if self.temper.journalled {
            let kept = if luck == Luck::All {
                self.pending.len()
            } else {
                rng.below(self.pending.len() as u64 + 1) as usize
            };
            self.pending[..kept].iter().for_each(|entry| entry.apply(&mut names));
            damage.entries += (self.pending.len() - kept) as u64;
        } else {
            for entry in &self.pending {
                if luck.keeps(rng) {
                    entry.apply(&mut names);
                } else {
                    damage.entries += 1;
                }
            }
        }
        let mut files = BTreeMap::new();
        for inode in names.values() {
            let left = left_of(&self.files[inode], self.temper.sector, luck, rng, &mut damage);
            files.insert(*inode, File { seen: left.clone(), safe: left, pending: Vec::new() });
        }
        let mut disk = Self::of(self.temper, rng.next_u64(), names, files);
        disk.log = self.log.clone();
        self.log.line(format_args!("{:>5} CUT {luck:?} {:?} {damage:?}", self.steps, self.moment));
        Cut { disk, moment: self.moment, step: self.steps, damage }
    }
}

/// How much of what is not synced survives a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Luck {
    All,
    Most,
    Half,
    Little,
    None,
}

impl Luck {
    fn draw(rng: &mut Rng) -> Self {
        [Luck::All, Luck::Most, Luck::Half, Luck::Little, Luck::None][rng.below(5) as usize]
    }

    fn keeps(self, rng: &mut Rng) -> bool {
        let of_16 = match self {
            Luck::All => 16,
            Luck::Most => 14,
            Luck::Half => 8,
            Luck::Little => 2,
            Luck::None => 0,
        };
        rng.below(16) < of_16
    }
}

/// The sectors that a stretch of bytes lies in.
fn sectors(at: usize, bytes: usize, sector: usize) -> std::ops::Range<usize> {
    if bytes == 0 { 0..0 } else { at / sector..(at + bytes - 1) / sector + 1 }
}

/// What becomes of the pending changes in one sector.
#[derive(Clone, Copy)]
struct Fate {
    /// How many of them have reached the medium.
    applied: usize,
    /// Whether the last of those has reached it in part.
    torn: bool,
}

/// What a power cut leaves of a file.
fn left_of(file: &File, sector: usize, luck: Luck, rng: &mut Rng, damage: &mut Damage) -> Arc<Vec<u8>> {
    if file.pending.is_empty() {
        return file.safe.clone();
    }
    // The length is that of one of the moments since the last sync.
    let mut lengths = vec![file.safe.len()];
    for change in &file.pending {
        lengths.push(change.length(lengths[lengths.len() - 1]));
    }
    let longest = lengths.iter().copied().max().unwrap_or_default();
    let last = lengths[lengths.len() - 1];
    let length = if luck.keeps(rng) { last } else { *rng.pick(&lengths).expect("there is one") };
    damage.short += u64::from(length != last);

    let extent = |change: &Change| match change {
        Change::Bytes { at, bytes } => (*at, bytes.len()),
        Change::Length(length) => (*length, longest - length),
    };
    let mut touched: BTreeMap<usize, usize> = BTreeMap::new();
    for change in &file.pending {
        let (at, bytes) = extent(change);
        sectors(at, bytes, sector).for_each(|n| *touched.entry(n).or_default() += 1);
    }
    let mut fates = BTreeMap::new();
    for (n, changes) in touched {
        let all = luck.keeps(rng);
        let applied = if all { changes } else { rng.below(changes as u64) as usize };
        let torn = applied > 0 && luck != Luck::All && rng.one_in(8);
        damage.kept += u64::from(all && !torn);
        damage.lost += u64::from(!all);
        damage.torn += u64::from(torn);
        fates.insert(n, Fate { applied, torn });
    }

    let mut left = Vec::clone(&file.safe);
    left.resize(longest, 0);
    let mut seen: BTreeMap<usize, usize> = BTreeMap::new();
    for change in &file.pending {
        let (at, bytes) = extent(change);
        for n in sectors(at, bytes, sector) {
            let nth = seen.entry(n).or_default();
            *nth += 1;
            let fate = fates[&n];
            if *nth > fate.applied {
                continue;
            }
            let (from, to) = (at.max(n * sector), (at + bytes).min((n + 1) * sector));
            let new: std::borrow::Cow<'_, [u8]> = match change {
                Change::Bytes { bytes, .. } => bytes[from - at..to - at].into(),
                Change::Length(_) => vec![0; to - from].into(),
            };
            if fate.torn && *nth == fate.applied {
                tear(&mut left[from..to], &new, rng);
            } else {
                left[from..to].copy_from_slice(&new);
            }
        }
    }
    left.truncate(length);
    Arc::new(left)
}

/// Writes a part of the new bytes over the old ones: the first of them, the last of them, or all but that those which
/// change are neither the old nor the new.
fn tear(old: &mut [u8], new: &[u8], rng: &mut Rng) {
    let middle = rng.below(old.len() as u64 + 1) as usize;
    // A stream of its own: how much of it is used depends on the bytes, which are not the same in every run.
    let mut noise = Rng::new(rng.next_u64(), "noise");
    match rng.below(3) {
        0 => old[..middle].copy_from_slice(&new[..middle]),
        1 => old[middle..].copy_from_slice(&new[middle..]),
        _ => {
            for (old, new) in old.iter_mut().zip(new) {
                if *old != *new {
                    *old = noise.next_u64() as u8;
                }
            }
        }
    }
}

/// A sync has failed: each sector that was to be written has been, or is only in the cache and counts as written, or
/// is not even there.
fn fail_sync(
    (seen, safe): (&mut Arc<Vec<u8>>, &mut Arc<Vec<u8>>),
    pending: Vec<Change>,
    sector: usize,
    rng: &mut Rng,
) {
    let (seen, safe) = (Arc::make_mut(seen), Arc::make_mut(safe));
    let mut touched = BTreeSet::new();
    for change in &pending {
        match change {
            Change::Bytes { at, bytes } => touched.extend(sectors(*at, bytes.len(), sector)),
            Change::Length(length) => {
                touched.extend(sectors(*length, safe.len().saturating_sub(*length), sector))
            }
        }
    }
    if rng.one_in(2) || safe.len() > seen.len() {
        safe.resize(seen.len(), 0);
    }
    let fates = rng.below(4);
    for n in touched {
        let from = (n * sector).min(seen.len());
        let to = ((n + 1) * sector).min(seen.len());
        let in_safe = from.min(safe.len())..to.min(safe.len());
        let fate = if fates < 3 { fates } else { rng.below(3) };
        match fate {
            0 => {
                if safe.len() < to {
                    safe.resize(to, 0);
                }
                safe[from..to].copy_from_slice(&seen[from..to]);
            }
            1 => {}
            _ => {
                seen[from..to].fill(0);
                let bytes = in_safe.len();
                seen[from..from + bytes].copy_from_slice(&safe[in_safe]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(sector: usize) -> Disk {
        Disk::new(Temper { sector, journalled: false, lies: false }, 1)
    }

    fn left(disk: &Disk, name: &str, seed: u64) -> Option<Vec<u8>> {
        let cut = disk.cut(&mut Rng::new(seed, "test"));
        cut.disk.seen.get(name).map(|inode| cut.disk.files[inode].seen.to_vec())
    }

    #[test]
    fn what_is_synced_survives() {
        let mut disk = disk(512);
        let file = disk.open("a", true).unwrap();
        disk.write(file, 0, &[7; 2_000]).unwrap();
        disk.sync(file).unwrap();
        disk.sync_directory().unwrap();
        assert!((0..100).all(|seed| left(&disk, "a", seed).unwrap() == [7; 2_000]));
    }

    #[test]
    fn what_is_not_synced_may_be_lost_torn_or_survive_sector_by_sector() {
        let mut disk = disk(512);
        let file = disk.open("a", true).unwrap();
        disk.write(file, 0, &[1; 1_536]).unwrap();
        disk.sync(file).unwrap();
        disk.sync_directory().unwrap();
        disk.write(file, 0, &[2; 1_536]).unwrap();
        let images: BTreeSet<_> = (0..500).map(|seed| left(&disk, "a", seed).unwrap()).collect();
        assert!(images.contains(&vec![1; 1_536]) && images.contains(&vec![2; 1_536]));
        let reordered = |image: &Vec<u8>| image[..512] == [1; 512] && image[1_024..] == [2; 512];
        assert!(images.iter().any(reordered), "a later sector without an earlier one");
        let torn = |image: &Vec<u8>| image[..512].contains(&1) && image[..512].contains(&2);
        assert!(images.iter().any(torn));
        // Bytes beside those that were written keep their value.
        disk.sync(file).unwrap();
        disk.write(file, 100, &[3; 100]).unwrap();
        for seed in 0..500 {
            let image = left(&disk, "a", seed).unwrap();
            assert!(image[..100] == [2; 100] && image[200..] == [2; 1_336]);
        }
    }

    #[test]
    fn a_length_is_that_of_some_moment() {
        let mut disk = disk(512);
        let file = disk.open("a", true).unwrap();
        disk.sync_directory().unwrap();
        disk.write(file, 0, &[1; 100]).unwrap();
        disk.write(file, 100, &[1; 600]).unwrap();
        disk.truncate(file, 50).unwrap();
        let lengths: BTreeSet<_> = (0..500).map(|seed| left(&disk, "a", seed).unwrap().len()).collect();
        assert_eq!(lengths, BTreeSet::from([0, 50, 100, 700]));
    }

    #[test]
    fn names_are_volatile_until_the_directory_is_synced() {
        let mut disk = disk(512);
        let file = disk.open("new", true).unwrap();
        disk.write(file, 0, &[1; 10]).unwrap();
        disk.sync(file).unwrap();
        let found =
            |disk: &Disk, name: &str| (0..100).filter(|seed| left(disk, name, *seed).is_some()).count();
        assert!((1..100).contains(&found(&disk, "new")), "a synced file can be nameless");
        disk.sync_directory().unwrap();
        assert_eq!(found(&disk, "new"), 100);
        disk.rename("new", "renamed").unwrap();
        for seed in 0..100 {
            assert!(left(&disk, "new", seed).is_some() != left(&disk, "renamed", seed).is_some());
        }
        disk.sync_directory().unwrap();
        disk.remove("renamed").unwrap();
        assert!((1..100).contains(&found(&disk, "renamed")), "a removed file can come back");
    }

    #[test]
    fn a_journalled_directory_keeps_its_order() {
        let mut disk = disk(512);
        disk.temper.journalled = true;
        disk.open("first", true).unwrap();
        disk.open("second", true).unwrap();
        let names = |seed| disk.cut(&mut Rng::new(seed, "test")).disk.seen;
        let all: Vec<_> = (0..100).map(names).collect();
        assert!(all.iter().all(|names| names.contains_key("first") || !names.contains_key("second")));
        assert!(all.iter().any(|names| names.len() == 1));
    }

    #[test]
    fn what_a_failed_sync_drops_a_later_one_does_not_write() {
        let (mut dropped, mut only_cached) = (0, 0);
        for seed in 0..100 {
            let mut disk = Disk::new(Temper { sector: 512, journalled: true, lies: false }, seed);
            let file = disk.open("a", true).unwrap();
            disk.write(file, 0, &[1; 512]).unwrap();
            disk.sync(file).unwrap();
            disk.sync_directory().unwrap();
            disk.write(file, 0, &[2; 512]).unwrap();
            disk.plan(Planned { fault: Fault::Io, at: 0, lasting: false });
            assert_eq!(disk.sync(file), Err(Refused::Io));
            disk.sync(file).unwrap();
            let mut read = [0; 512];
            disk.read(file, 0, &mut read).unwrap();
            let left = left(&disk, "a", seed).unwrap();
            dropped += usize::from(read == [1; 512]);
            only_cached += usize::from(read == [2; 512] && left == [1; 512]);
        }
        assert!(dropped > 5 && only_cached > 5, "{dropped} {only_cached}");
    }

    #[test]
    fn faults_come_where_they_are_planned() {
        let mut disk = disk(512);
        let file = disk.open("a", true).unwrap();
        disk.plan(Planned { fault: Fault::ShortWrite, at: 1, lasting: false });
        disk.write(file, 0, &[1; 100]).unwrap();
        assert_eq!(disk.write(file, 100, &[1; 100]), Err(Refused::Full));
        assert!((100..200).contains(&disk.size(file).unwrap()));
        disk.write(file, 0, &[1; 300]).unwrap();
        disk.plan(Planned { fault: Fault::FlippedBit, at: 0, lasting: false });
        let mut read = [0; 300];
        disk.read(file, 0, &mut read).unwrap();
        assert_eq!(read.iter().map(|byte| (byte ^ 1).count_ones()).sum::<u32>(), 1);
        disk.plan(Planned { fault: Fault::Full, at: 0, lasting: true });
        assert_eq!(disk.write(file, 0, &[1]), Err(Refused::Full));
        assert_eq!(disk.write(file, 0, &[1]), Err(Refused::Full));
        disk.mend();
        disk.write(file, 0, &[1]).unwrap();
        disk.kill();
        assert_eq!(disk.write(file, 0, &[1]), Err(Refused::Io));
    }
}
