//! Power cuts: the life of a store on a disk that loses power again and again.
//!
//! A life has several runs. In each the store is opened on what the last power cut left, checked, and written on;
//! power is cut at many random places, also while the store is created or recovers. Every one of those images is
//! opened and checked; one of them is the disk of the next run.

use std::{path::Path, sync::OnceLock};

use node::store::{Key, OpenError, Reader, SqliteStore};
use sync_core::store::StoreError;

use super::{
    drive::Drive,
    medium::{Cut, Damage, Disk, Log, Moment, SettingFault, Temper},
    reference::{Commit, Reference, contents, last_commit},
};
use crate::sim::{Failure, rng::Rng};

/// Where the store lies on its disk.
pub(super) const STORE: &str = "/disk/records.db";
/// Runs of a life, at most.
const RUNS_MAX: u64 = 4;
/// Steps of a run, at most.
const STEPS_MAX: u64 = 9;
/// Cuts of a run, at most.
const CUTS_MAX: usize = 10;
/// One in so many writes is the place of a cut.
const CUT_ONE_IN: u64 = 24;
/// One in so many lives begins without a store.
const CREATED_ONE_IN: u64 = 12;
/// One in so many images is checked whole, as well as compared.
const CHECKED_ONE_IN: u64 = 8;
/// One in so many times a setting does not take when the store is opened.
const SETTING_FAULT_ONE_IN: u64 = 24;
/// Pages that connections keep, in KiB.
const CACHE_KIB: i64 = 512;

/// Settings of a store that is there which do not take, and what they are in their place; none when they stay as
/// SQLite has them by itself.
pub const SETTING_FAULTS: [SettingFault; 10] = [
    SettingFault { name: "synchronous", value: None },
    SettingFault { name: "synchronous", value: Some("1") },
    SettingFault { name: "synchronous", value: Some("OFF") },
    SettingFault { name: "wal_autocheckpoint", value: None },
    SettingFault { name: "journal_size_limit", value: None },
    SettingFault { name: "foreign_keys", value: Some("NO") },
    SettingFault { name: "cache_size", value: None },
    SettingFault { name: "temp_store", value: Some("FILE") },
    SettingFault { name: "trusted_schema", value: None },
    SettingFault { name: "cipher_page_size", value: None },
];

/// What happened in lives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Power cuts of which the store has recovered.
    pub cuts: u64,
    /// Of them, while the store was created, opened or recovered.
    pub cuts_at_open: u64,
    /// Of them, with a commit under way.
    pub cuts_in_commit: u64,
    /// Commits under way that were found whole.
    pub found_whole: u64,
    /// Acknowledged commits.
    pub acknowledged: u64,
    /// Times that a store was opened after a power cut or the end of a process.
    pub recoveries: u64,
    /// Settings that did not take, with which the store did not open.
    pub refused: u64,
    /// What the cuts did to the bytes.
    pub damage: Damage,
}

impl std::ops::AddAssign for Report {
    fn add_assign(&mut self, other: Self) {
        self.cuts += other.cuts;
        self.cuts_at_open += other.cuts_at_open;
        self.cuts_in_commit += other.cuts_in_commit;
        self.found_whole += other.found_whole;
        self.acknowledged += other.acknowledged;
        self.recoveries += other.recoveries;
        self.refused += other.refused;
        self.damage += other.damage;
    }
}

pub(super) fn key() -> Key {
    Key::from_bytes([0x5a; 32])
}

/// A disk with a new store, closed.
pub(super) fn blank() -> &'static Disk {
    static BLANK: OnceLock<Disk> = OnceLock::new();
    BLANK.get_or_init(|| {
        let drive = Drive::default();
        let store =
            SqliteStore::create_on(&drive, Path::new(STORE), &key()).expect("a sound disk takes a store");
        drop(store);
        drive.with(|disk| disk.copy(SOUND, 0))
    })
}

pub(super) fn exists(drive: &Drive) -> bool {
    drive.with(|disk| disk.length_of("records.db")).is_some()
}

pub(super) fn open(drive: &Drive) -> Result<SqliteStore, OpenError> {
    let store = SqliteStore::open_on(drive, Path::new(STORE), &key())?;
    store.limit_cache(CACHE_KIB)?;
    Ok(store)
}

/// Checks a store against the reference: it holds one of the allowed commits as its last, and exactly what it then
/// has to. Returns which.
pub(super) fn check(
    store: &SqliteStore,
    allowed: std::ops::RangeInclusive<u64>,
    references: &[Reference],
) -> Result<u64, Failure> {
    let failed = |error: StoreError| Failure::new("what is recovered can be read", error);
    let number = last_commit(store).map_err(failed)?;
    if number < *allowed.start() {
        let text = format!("commit {number} is the last, {allowed:?} were to be");
        return Err(Failure::new("what is acknowledged is there", text));
    }
    if number > *allowed.end() {
        let text = format!("commit {number} is the last, {allowed:?} were to be");
        return Err(Failure::new("nothing else is there", text));
    }
    let names = references.last().expect("there is a reference");
    let expected = references[number as usize].contents(names);
    let found = contents(store, names).map_err(failed)?;
    match found.difference(&expected) {
        None => Ok(number),
        Some(part) => {
            let text = format!("after commit {number}: {part} is not as the store in memory has it");
            Err(Failure::new("a commit is there whole or not at all", text))
        }
    }
}

/// Whether the store has found its log damaged, and has put it aside.
pub(super) fn found_damage(drive: &Drive) -> bool {
    drive.with(|disk| disk.length_of("records.db-wal.damaged-1")).is_some()
}

/// Only damage is called damage.
pub(super) fn no_false_alarm(drive: &Drive) -> Result<(), Failure> {
    let promise = "a log that ends with the power is not called damaged";
    if found_damage(drive) { Err(Failure::new(promise, "it is put aside")) } else { Ok(()) }
}

/// The store's own check of the whole file.
pub(super) fn check_whole(drive: &Drive) -> Result<(), Failure> {
    let promise = "the file is sound";
    let mut reader =
        Reader::open_on(drive, Path::new(STORE), &key()).map_err(|e| Failure::new(promise, e))?;
    let checked = reader.integrity_check(|_, _| ()).map_err(|e| Failure::new(promise, e))?;
    if crate::conformance::is_sound(&checked) {
        Ok(())
    } else {
        Err(Failure::new(promise, format!("{checked:?}")))
    }
}

pub(super) const SOUND: Temper = Temper { sector: 512, journalled: true, lies: false };

/// Puts in a sound disk without anything.
pub fn insert_empty(drive: &Drive) {
    drive.insert(Disk::new(SOUND, 0));
}

/// Puts in a sound disk with a new store, closed.
pub fn insert_blank(drive: &Drive) {
    drive.insert(blank().copy(SOUND, 0));
}

/// A store does not open when a setting does not take.
pub fn refuses(drive: &Drive, fault: &SettingFault) -> Result<(), Failure> {
    does_not_take(drive, fault, || SqliteStore::open_on(drive, Path::new(STORE), &key()))
}

/// A store is not created when a setting does not take.
pub fn refuses_to_create(drive: &Drive, fault: &SettingFault) -> Result<(), Failure> {
    does_not_take(drive, fault, || SqliteStore::create_on(drive, Path::new(STORE), &key()))
}

fn does_not_take(
    drive: &Drive,
    fault: &SettingFault,
    open: impl FnOnce() -> Result<SqliteStore, OpenError>,
) -> Result<(), Failure> {
    let promise = "a store of which a setting does not take does not open";
    drive.with(|disk| disk.plan_setting(Some(fault.clone())));
    let opened = open();
    drive.with(|disk| disk.plan_setting(None));
    match opened {
        Err(OpenError::Pragma { name, .. }) if name == fault.name => Ok(()),
        Err(other) => Err(Failure::new(promise, format!("{fault:?}: {other}"))),
        Ok(_) => Err(Failure::new(promise, format!("{fault:?}, and it opens"))),
    }
}

/// Lives the life of a seed.
pub fn run(
    drive: &Drive,
    seed: u64,
    temper: impl FnOnce(Temper) -> Temper,
    log: &Log,
) -> Result<Report, Failure> {
    let mut rng = Rng::new(seed, "life");
    let temper = temper(Temper::draw(&mut rng));
    log.line(format_args!("seed {seed}: {temper:?}"));
    let mut disk = if rng.one_in(CREATED_ONE_IN) {
        Disk::new(temper, seed)
    } else {
        let mut disk = blank().copy(temper, seed);
        disk.moment.created = true;
        disk
    };
    disk.log = log.clone();
    let mut life = Life {
        drive,
        rng,
        references: vec![Reference::new(seed)],
        moment: disk.moment,
        log: log.clone(),
        report: Report::default(),
    };
    for run in 0..life.rng.range(2, RUNS_MAX) {
        log.line(format_args!("run {run}"));
        disk = life.run(disk)?;
    }
    Ok(life.report)
}

struct Life<'a> {
    drive: &'a Drive,
    rng: Rng,
    /// By their number.
    references: Vec<Reference>,
    moment: Moment,
    log: Log,
    report: Report,
}

impl Life<'_> {
    /// Runs on this disk until a power cut, checks what many such cuts leave, and returns the image to go on with.
    fn run(&mut self, mut disk: Disk) -> Result<Disk, Failure> {
        let cutter = Rng::new(self.rng.next_u64(), "cuts");
        disk.moment = self.moment;
        disk.cut_at_random(cutter, CUT_ONE_IN, CUTS_MAX);
        self.drive.insert(disk);
        let store = self.reopen()?;
        let store = self.work(store)?;
        if self.rng.one_in(4) {
            self.log.line(format_args!("the store is closed"));
            drop(store);
        } else {
            self.drive.kill(store);
        }
        let mut cuts = self.drive.with(|disk| {
            let mut cuts = disk.take_cuts();
            cuts.push(disk.cut(&mut self.rng));
            cuts
        });
        let next = self.rng.below(cuts.len() as u64) as usize;
        let next = cuts.swap_remove(next);
        for cut in cuts {
            self.count(&cut);
            self.log.line(format_args!("the image of the cut before step {}", cut.step));
            self.moment = cut.moment;
            self.drive.insert(cut.disk);
            if exists(self.drive) || cut.moment.created {
                let store = self.recover()?;
                self.drive.kill(store);
            }
        }
        self.count(&next);
        self.log.line(format_args!("on from the cut before step {}", next.step));
        self.moment = next.moment;
        // What was in flight at the cut stays known until the next check says whether it is there.
        let known = next.moment.acknowledged + u64::from(next.moment.in_flight);
        self.references.truncate(known as usize + 1);
        Ok(next.disk)
    }

    fn count(&mut self, cut: &Cut) {
        self.report.cuts += 1;
        self.report.damage += cut.damage;
        self.report.cuts_in_commit += u64::from(cut.moment.in_flight);
    }

    /// Opens the store that is there, or makes one, and checks it; the next commit goes on from what is found.
    fn reopen(&mut self) -> Result<SqliteStore, Failure> {
        let before = self.drive.with(|disk| disk.cut_count());
        let store = if exists(self.drive) || self.moment.created {
            self.recover()?
        } else {
            self.log.line(format_args!("create"));
            SqliteStore::create_on(self.drive, Path::new(STORE), &key())
                .map_err(|e| Failure::new("a store can be created after a power cut", e))?
        };
        self.report.cuts_at_open += self.drive.with(|disk| disk.cut_count()) - before;
        self.moment.created = true;
        self.references.truncate(self.moment.acknowledged as usize + 1);
        self.promise();
        Ok(store)
    }

    /// Opens the store, and checks that it holds what was promised.
    fn recover(&mut self) -> Result<SqliteStore, Failure> {
        self.report.recoveries += 1;
        if !exists(self.drive) {
            return Err(Failure::new("what is acknowledged is there", "the store itself is gone"));
        }
        if self.rng.one_in(SETTING_FAULT_ONE_IN) {
            let fault = self.rng.pick(&SETTING_FAULTS).expect("there are some");
            self.log.line(format_args!("a setting does not take: {fault:?}"));
            refuses(self.drive, fault)?;
            self.report.refused += 1;
        }
        let store = open(self.drive).map_err(|e| Failure::new("the store opens after a power cut", e))?;
        no_false_alarm(self.drive)?;
        let Moment { acknowledged, in_flight, .. } = self.moment;
        let number = check(&store, acknowledged..=acknowledged + u64::from(in_flight), &self.references)?;
        if self.rng.one_in(CHECKED_ONE_IN) {
            check_whole(self.drive)?;
        }
        self.report.found_whole += u64::from(number > acknowledged);
        self.log.line(format_args!("commit {number} is the last"));
        self.moment = Moment { acknowledged: number, in_flight: false, created: true };
        Ok(store)
    }

    /// Tells the disk what is promised from now on.
    fn promise(&mut self) {
        let moment = self.moment;
        self.drive.with(|disk| disk.moment = moment);
    }

    fn work(&mut self, mut store: SqliteStore) -> Result<SqliteStore, Failure> {
        let mut reader: Option<Reader> = None;
        let mut first = true;
        for _ in 0..self.rng.range(2, STEPS_MAX) {
            match self.rng.below(20) {
                _ if first => self.commit(&mut store, true)?,
                0..=12 => self.commit(&mut store, false)?,
                13..=15 => self.checkpoint(&mut store)?,
                16 => reader = self.read()?,
                17 => self.export(&mut store)?,
                18 => {
                    self.drive.kill((store, reader.take()));
                    store = self.reopen()?;
                    first = true;
                    continue;
                }
                _ => {
                    self.log.line(format_args!("the store is closed"));
                    drop((store, reader.take()));
                    self.drive.with(Disk::begin_process);
                    store = self.reopen()?;
                    first = true;
                    continue;
                }
            }
            first = false;
        }
        Ok(store)
    }

    fn commit(&mut self, store: &mut SqliteStore, first: bool) -> Result<(), Failure> {
        let (commit, next) = self.references.last().expect("there is a reference").next(first, &mut self.rng);
        let number = next.number;
        self.references.push(next);
        self.moment.in_flight = true;
        self.promise();
        let kind = if matches!(commit, Commit::Batch(_)) { "batch" } else { "setting" };
        self.log.line(format_args!("commit {number}, a {kind}"));
        commit.run(store).map_err(|e| Failure::new("a sound disk takes every commit", e))?;
        self.log.line(format_args!("commit {number} is acknowledged"));
        self.moment = Moment { acknowledged: number, in_flight: false, created: true };
        self.promise();
        self.report.acknowledged += 1;
        Ok(())
    }

    fn checkpoint(&mut self, store: &mut SqliteStore) -> Result<(), Failure> {
        let done = store.checkpoint().map_err(|e| Failure::new("a sound disk takes a checkpoint", e))?;
        self.log.line(format_args!("{done:?}"));
        Ok(())
    }

    fn reader(&self) -> Result<Reader, Failure> {
        let reader = Reader::open_on(self.drive, Path::new(STORE), &key());
        reader.map_err(|e| Failure::new("a reader opens beside the writer", e))
    }

    fn read(&mut self) -> Result<Option<Reader>, Failure> {
        let reader = self.reader()?;
        let counts = reader.counts().map_err(|e| Failure::new("a reader reads", e))?;
        self.log.line(format_args!("a reader sees {} rows", counts.rows));
        Ok(Some(reader))
    }

    /// Writes on and copies the log while a reader looks at one moment of the store.
    fn export(&mut self, store: &mut SqliteStore) -> Result<(), Failure> {
        let reader = self.reader()?;
        let (mut outcome, mut steps) = (Ok(()), 3);
        let export = reader.export(None, |_| {
            outcome = match steps {
                0 => return false,
                2 => self.checkpoint(store),
                _ => self.commit(store, false),
            };
            steps -= 1;
            outcome.is_ok()
        });
        export.map_err(|e| Failure::new("a reader reads", e))?;
        outcome
    }
}
