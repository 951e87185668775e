//! Errors of the disk at every step of a scripted run, and bits that flip.
//!
//! The script creates a store or opens one, commits, copies the log, reads beside the writer, starts anew. At one
//! step of it the disk fails, once or from then on. The store must tell of it and refuse everything afterwards; on
//! the mended disk everything that was acknowledged must be there, also when power is cut later.

use std::path::Path;

use node::store::{Reader, SqliteStore};
use sync_core::store::{Store, StoreError, StoreMut};

use super::{
    drive::Drive,
    life::{STORE, blank, check, check_whole, exists, found_damage, key, no_false_alarm, open},
    medium::{Disk, Fault, Log, Moment, Planned, Step, Temper},
    reference::{Commit, Reference, contents, last_commit},
};
use crate::sim::{Failure, rng::Rng};

/// Commits of the script.
const COMMITS: usize = 6;
/// Commits after the disk is mended.
const COMMITS_AFTER: usize = 3;
/// Draws of a cut that ends the process.
const CUTS: u64 = 2;

/// Where the script begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// On an empty disk.
    Create,
    /// With a store that is there.
    Open,
}

/// How the process ends after the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The store is closed, and the next process begins with the page cache as it is.
    Closed,
    /// The process is killed, and the next begins with the page cache as it is.
    Killed,
    /// The store is closed, then power is cut.
    ClosedThenCut,
    /// Power is cut.
    Cut,
}

impl End {
    /// All of them.
    pub const ALL: [End; 4] = [End::Closed, End::Killed, End::ClosedThenCut, End::Cut];
}

/// One run with one error.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Where the script begins.
    pub start: Start,
    /// What goes wrong, and when.
    pub planned: Planned,
    /// How the process ends.
    pub end: End,
}

/// How far the script came.
struct Progress {
    store: Option<SqliteStore>,
    created: bool,
    acknowledged: u64,
    in_flight: bool,
}

/// The script, made ready once: the commits, and what the store holds after each.
pub struct Script {
    commits: Vec<Commit>,
    references: Vec<Reference>,
    rng: Rng,
}

impl Script {
    /// The script of a seed.
    pub fn new(seed: u64) -> Self {
        let mut script = Self {
            commits: Vec::new(),
            references: vec![Reference::new(seed)],
            rng: Rng::new(seed, "script"),
        };
        script.extend(COMMITS);
        script
    }

    fn extend(&mut self, commits: usize) {
        for n in 0..commits {
            let (commit, next) = self.references[self.references.len() - 1].next(n == 0, &mut self.rng);
            self.commits.push(commit);
            self.references.push(next);
        }
    }

    fn disk(start: Start, seed: u64) -> Disk {
        let temper = Temper::draw(&mut Rng::new(seed, "errors"));
        if start == Start::Create { Disk::new(temper, seed) } else { blank().copy(temper, seed) }
    }

    /// The kinds of all steps of the script on a sound disk.
    pub fn steps(&self, drive: &Drive, start: Start) -> Result<Vec<Step>, Failure> {
        let mut disk = Self::disk(start, 0);
        disk.watch_steps();
        drive.insert(disk);
        let progress = self.play(drive, start)?;
        assert_eq!(progress.acknowledged, COMMITS as u64, "a sound disk takes the whole script");
        drop(progress);
        Ok(drive.with(Disk::take_steps))
    }

    /// Plays the script until something fails, and checks that the store is closed then.
    fn play(&self, drive: &Drive, start: Start) -> Result<Progress, Failure> {
        let mut progress =
            Progress { store: None, created: start == Start::Open, acknowledged: 0, in_flight: false };
        let opened = match start {
            Start::Create => SqliteStore::create_on(drive, Path::new(STORE), &key()),
            Start::Open => open(drive),
        };
        let Ok(mut store) = opened else { return Ok(progress) };
        progress.created = true;
        for (n, commit) in self.commits[..COMMITS].iter().enumerate() {
            if n == 4 {
                // Another process.
                drive.kill(store);
                let Ok(again) = open(drive) else { return Ok(progress) };
                store = again;
                // A bit that flips while the log is read ends the log there: see `rot`.
                match last_commit(&store) {
                    Ok(last) if last < progress.acknowledged => {
                        progress.store = Some(store);
                        return Ok(progress);
                    }
                    _ => {}
                }
            }
            if n == 3 {
                // Its errors are its own.
                let _ = Reader::open_on(drive, Path::new(STORE), &key()).map(|reader| reader.counts());
            }
            if n == 2 || n == 5 {
                let done = store.checkpoint();
                if done.is_err() {
                    is_poisoned(&mut store)?;
                    progress.store = Some(store);
                    return Ok(progress);
                }
            }
            progress.in_flight = true;
            if commit.run(&mut store).is_err() {
                is_poisoned(&mut store)?;
                progress.store = Some(store);
                return Ok(progress);
            }
            progress.acknowledged += 1;
            progress.in_flight = false;
        }
        progress.store = Some(store);
        Ok(progress)
    }

    /// Runs a case, and returns whether the fault has happened.
    pub fn run(&self, drive: &Drive, case: Case, log: &Log) -> Result<bool, Failure> {
        let mut disk = Self::disk(case.start, case.planned.at);
        disk.log = log.clone();
        disk.plan(case.planned);
        drive.insert(disk);
        let progress = self.play(drive, case.start)?;
        log.line(format_args!(
            "commit {} is acknowledged, in flight: {}",
            progress.acknowledged, progress.in_flight
        ));
        match case.end {
            End::Closed | End::ClosedThenCut => {
                drop(progress.store);
                drive.with(Disk::begin_process);
            }
            End::Killed | End::Cut => drive.kill(progress.store),
        }
        let fired = drive.with(|disk| disk.fired() > 0);
        drive.with(Disk::mend);
        let Progress { created, acknowledged, in_flight, .. } = progress;
        let moment = Moment { created, acknowledged, in_flight };
        if !matches!(case.end, End::Cut | End::ClosedThenCut) {
            self.goes_on(drive, moment, case.planned.at, log)?;
            return Ok(fired);
        }
        for draw in (0..CUTS).map(|n| n + CUTS * case.planned.at) {
            let cut = drive.with(|disk| disk.cut(&mut Rng::new(draw, "cut")));
            let later = drive.with(|disk| std::mem::replace(disk, cut.disk));
            self.goes_on(drive, moment, draw, log)?;
            drive.with(|disk| *disk = later);
        }
        Ok(fired)
    }

    /// On the mended disk everything acknowledged is there, and stays when power is cut after further commits.
    fn goes_on(
        &self,
        drive: &Drive,
        Moment { created, acknowledged, in_flight }: Moment,
        draw: u64,
        log: &Log,
    ) -> Result<(), Failure> {
        let (store, found) = if exists(drive) || created {
            let store = open(drive).map_err(|e| Failure::new("the store opens on a mended disk", e))?;
            let allowed = acknowledged..=acknowledged + u64::from(in_flight);
            let found = check(&store, allowed, &self.references)?;
            (store, found)
        } else {
            let store = SqliteStore::create_on(drive, Path::new(STORE), &key());
            (store.map_err(|e| Failure::new("a store can be created on a mended disk", e))?, 0)
        };
        check_whole(drive)?;
        no_false_alarm(drive)?;
        log.line(format_args!("on the mended disk commit {found} is the last"));
        drive.kill(store);
        self.stays(drive, found, draw)?;
        let mut store = open(drive).map_err(|e| Failure::new("the store opens on a mended disk", e))?;
        let mut then = Self {
            commits: Vec::new(),
            references: self.references[..=found as usize].to_vec(),
            rng: self.rng.clone(),
        };
        then.extend(COMMITS_AFTER);
        for (n, commit) in then.commits.iter().enumerate() {
            commit.run(&mut store).map_err(|e| Failure::new("a mended disk takes every commit", e))?;
            log.line(format_args!("commit {} is acknowledged", found + n as u64 + 1));
        }
        drive.kill(store);
        then.stays(drive, found + COMMITS_AFTER as u64, draw)
    }

    /// A power cut changes nothing of what the store holds now.
    fn stays(&self, drive: &Drive, last: u64, draw: u64) -> Result<(), Failure> {
        let cut = drive.with(|disk| disk.cut(&mut Rng::new(draw, "later cut")));
        let later = drive.with(|disk| std::mem::replace(disk, cut.disk));
        let store = open(drive).map_err(|e| Failure::new("the store opens after a power cut", e))?;
        check(&store, last..=last, &self.references)?;
        no_false_alarm(drive)?;
        drive.kill(store);
        drive.with(|disk| *disk = later);
        Ok(())
    }

    /// Flips one bit on the medium, of a store that was killed, and reads everything.
    pub fn rot(&self, drive: &Drive, seed: u64) -> Result<Rot, Failure> {
        let mut rng = Rng::new(seed, "rot");
        let mut disk = Self::disk(Start::Open, seed);
        disk.moment.created = true;
        drive.insert(disk);
        let progress = self.play(drive, Start::Open)?;
        let acknowledged = progress.acknowledged;
        drive.kill(progress.store);
        let name = if rng.one_in(2) { "records.db" } else { "records.db-wal" };
        drive.with(|disk| {
            let length = disk.length_of(name).unwrap_or_default() as u64;
            assert!(disk.rot(name, rng.below(length) as usize, rng.below(8) as u8), "there is such a byte");
        });
        let outcome = self.read_all(drive, acknowledged);
        outcome.map(|found| Rot { in_log: name == "records.db-wal", found, noticed: found_damage(drive) })
    }

    /// Reads everything that the store holds.
    fn read_all(&self, drive: &Drive, acknowledged: u64) -> Result<Found, Failure> {
        let Ok(store) = open(drive) else { return Ok(Found::Error) };
        let read = || -> Result<_, StoreError> {
            let last = last_commit(&store)?;
            Ok((last, contents(&store, &self.references[COMMITS])?))
        };
        let Ok((last, found)) = read() else { return Ok(Found::Error) };
        let expected = self.references[last as usize].contents(&self.references[COMMITS]);
        match found.difference(&expected) {
            None if last == acknowledged => Ok(Found::Right),
            None => Ok(Found::Older),
            Some(_) if check_whole(drive).is_err() => Ok(Found::WrongAndSeen),
            Some(part) => {
                let text = format!("{part} is not what was written, after commit {last}");
                Err(Failure::new("a flipped bit is an error and no answer", text))
            }
        }
    }
}

/// What became of a flipped bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rot {
    /// Whether it was in the log.
    pub in_log: bool,
    /// What the store then gave.
    pub found: Found,
    /// Whether the store has found its log damaged.
    pub noticed: bool,
}

/// What a store gave from a disk with a flipped bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Found {
    /// An error.
    Error,
    /// What was written: the bit was of no account.
    Right,
    /// What was written up to an earlier commit.
    Older,
    /// A mixture of older and newer pages, which the check of the whole file finds.
    WrongAndSeen,
}

/// After an error the store refuses everything.
fn is_poisoned(store: &mut SqliteStore) -> Result<(), Failure> {
    let refused = store.tip().is_err()
        && store.commit(&[]).is_err()
        && store.checkpoint().is_err()
        && store.set_setting("late", b"x").is_err()
        && store.entry(1).is_err();
    let promise = "after an error the store refuses everything";
    if refused { Ok(()) } else { Err(Failure::new(promise, "it still answers")) }
}

/// All cases of one start, for each step and each fault that it can have: once, with every end after EIO and with two
/// of them in turn after other errors, and lasting.
pub fn cases(steps: &[Step], start: Start) -> Vec<Case> {
    let mut cases = Vec::new();
    for (at, step) in (0..).zip(steps) {
        for fault in Fault::ALL {
            if fault == Fault::FlippedBit || !fault.fits(*step) {
                continue;
            }
            for lasting in [false, true] {
                // A read leaves nothing behind: one end is enough. So it is for an error that stays.
                let reads = matches!(step, Step::Read | Step::Access | Step::Size);
                let ends = match fault {
                    _ if reads || lasting => 1,
                    Fault::Io => End::ALL.len(),
                    _ => 2,
                };
                let first = at as usize + usize::from(lasting);
                let ends = (0..ends).map(|n| End::ALL[(first + n) % End::ALL.len()]);
                let planned = Planned { fault, at, lasting };
                cases.extend(ends.map(|end| Case { start, planned, end }));
            }
        }
    }
    cases
}
