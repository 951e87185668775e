//! Bits that flip in the write-ahead log of a store that was killed, in every part of every frame.
//!
//! What has to come of each is worked out from the frames and from how many of them each commit has written, not from
//! checksums: the log is damaged unless only the last transaction is, or nothing that counts.

use std::{collections::BTreeSet, ops::Range, path::Path};

use node::store::{FileSystem as _, OpenError, SqliteStore};

use super::{
    drive::Drive,
    life::{SOUND, blank, check, check_whole, found_damage, open},
    medium::{Disk, Fault, Planned},
    reference::Reference,
};
use crate::sim::{Failure, rng::Rng};

const LOG: &str = "/disk/records.db-wal";
const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
const FRAME_BYTES: usize = FRAME_HEADER_BYTES + 8_192;
/// Commits that are copied into the database before the log is begun anew, over their frames.
const COPIED: usize = 8;
/// Commits in the log.
const COMMITS: usize = 6;

/// A part of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The header of the log.
    Header,
    /// The number of a frame's page.
    Page,
    /// The size of the database, which marks the last frame of a commit.
    Mark,
    /// The salts of a frame.
    Salts,
    /// The checksum of a frame.
    Sum,
    /// The content of a frame.
    Content,
}

/// What has to come of a flipped bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// Commits are lost, and the store has found the log damaged.
    Noticed,
    /// The last commit is lost, which nothing tells from a power cut.
    LastCommit,
    /// The last two commits are lost: the last frame of the first of them does not count any more, and of the second
    /// only the frames between its first and its last one tell, by pages that the first has as well.
    LastFrameBeforeIt,
    /// Nothing is lost.
    NoAccount,
}

/// A bit that flips.
#[derive(Debug, Clone, Copy)]
pub struct Flip {
    at: usize,
    bit: u8,
    /// Where it is.
    pub part: Part,
    /// What has to come of it.
    pub fate: Fate,
    /// The last commit that is there afterwards.
    last: u64,
}

/// A store that was killed with commits in its log.
pub struct Killed {
    disk: Disk,
    references: Vec<Reference>,
    /// Frames of the log up to each of its commits.
    ends: Vec<usize>,
    bytes: Vec<u8>,
}

impl Killed {
    /// With commits of a seed.
    pub fn new(drive: &Drive, seed: u64) -> Self {
        drive.insert(blank().copy(SOUND, seed));
        let mut rng = Rng::new(seed, "rot of the log");
        let (mut references, mut ends) = (vec![Reference::new(seed)], Vec::new());
        let mut store = open(drive).expect("a sound disk");
        for n in 0..COPIED + COMMITS {
            if n == COPIED {
                store.checkpoint().expect("a sound disk takes a checkpoint");
            }
            let (commit, next) = references[n].next(n == 0, &mut rng);
            commit.run(&mut store).expect("a sound disk takes every commit");
            references.push(next);
            if n >= COPIED {
                ends.push(store.log().expect("a sound disk").pages as usize);
            }
        }
        drive.kill(store);
        let mut bytes = vec![0; drive.with(|disk| disk.length_of("records.db-wal")).unwrap_or_default()];
        drive.read_at(Path::new(LOG), 0, &mut bytes).expect("a sound disk");
        Self { disk: drive.with(|disk| disk.copy(SOUND, seed)), references, ends, bytes }
    }

    /// A bit of every byte of the log's header; several of each part of every frame, also of those of the earlier log.
    pub fn flips(&self) -> Vec<Flip> {
        let copied = COPIED as u64;
        let mut flips: Vec<_> = (0..HEADER_BYTES * 8)
            .map(|n| Flip {
                at: n / 8,
                bit: n as u8 % 8,
                part: Part::Header,
                fate: Fate::Noticed,
                last: copied,
            })
            .collect();
        let places = [
            (Part::Page, vec![0, 3]),
            (Part::Mark, vec![4, 7]),
            (Part::Salts, vec![8, 11, 15]),
            (Part::Sum, vec![16, 19, 23]),
            (Part::Content, vec![24, 31, 500, 4_000, FRAME_BYTES - 1]),
        ];
        for frame in 0..(self.bytes.len() - HEADER_BYTES) / FRAME_BYTES {
            for (part, places) in &places {
                let fate = self.fate(frame, *part);
                let before = self.ends.iter().filter(|end| **end <= frame).count() as u64;
                for (bit, place) in (frame as u8..).zip(places) {
                    let at = HEADER_BYTES + frame * FRAME_BYTES + place;
                    flips.push(Flip { at, bit: bit % 8, part: *part, fate, last: copied + before });
                }
            }
        }
        flips
    }

    fn fate(&self, frame: usize, part: Part) -> Fate {
        let [.., before, first_of_last, end] = self.ends[..] else { panic!("there are several commits") };
        if frame >= end {
            return Fate::NoAccount;
        }
        if frame >= first_of_last {
            return Fate::LastCommit;
        }
        let pages = |frames: Range<usize>| frames.map(|n| self.page(n)).collect::<BTreeSet<_>>();
        let apart = || pages(before..first_of_last - 1).is_disjoint(&pages(first_of_last + 1..end - 1));
        // Its salts or its sum alone keep nobody from seeing that it is whole.
        let is_whole = matches!(part, Part::Salts | Part::Sum);
        if frame + 1 == first_of_last && !is_whole && apart() {
            return Fate::LastFrameBeforeIt;
        }
        Fate::Noticed
    }

    fn page(&self, frame: usize) -> u32 {
        let at = HEADER_BYTES + frame * FRAME_BYTES;
        u32::from_be_bytes(self.bytes[at..].first_chunk().copied().expect("a frame has a header"))
    }

    /// Flips a bit, and opens the store twice.
    pub fn run(&self, drive: &Drive, flip: Flip) -> Result<(), Failure> {
        drive.insert(self.disk.copy(SOUND, 0));
        drive.with(|disk| assert!(disk.rot("records.db-wal", flip.at, flip.bit), "there is such a byte"));
        let log = drive.with(|disk| disk.length_of("records.db-wal"));
        let opened = || open(drive).map_err(|e| Failure::new("a store opens without what is damaged", e));
        let mut store = opened()?;
        check(&store, flip.last..=flip.last, &self.references)?;
        let promise = "damage that costs more than the last commit is told, and nothing else is";
        let noticed = flip.fate == Fate::Noticed;
        let told =
            |what: &str| if noticed { format!("{what} is not told") } else { format!("{what} is told") };
        if found_damage(drive) != noticed {
            return Err(Failure::new(promise, told("it")));
        }
        check_whole(drive)?;
        // It goes on, and what it has told it does not tell again.
        let (commit, _) = self.references[flip.last as usize].next(true, &mut Rng::new(0, "later"));
        commit.run(&mut store).map_err(|e| Failure::new("the store goes on", e))?;
        drive.kill(store);
        drop::<SqliteStore>(opened()?);
        let (first, second) = drive.with(|disk| {
            let length = |name: &str| disk.length_of(name);
            (length("records.db-wal.damaged-1"), length("records.db-wal.damaged-2"))
        });
        if second.is_some() || (noticed && first != log) {
            return Err(Failure::new(
                promise,
                format!("copies of {first:?} and {second:?} bytes, not {log:?}"),
            ));
        }
        Ok(())
    }

    /// Flips a bit, and lets the disk fail once or for good at a step of the opening. Whatever becomes of that, on the
    /// mended disk the whole log is there, under its own name or another one. False when the fault was not met.
    pub fn run_failing(&self, drive: &Drive, flip: Flip, planned: Planned) -> Result<bool, Failure> {
        drive.insert(self.disk.copy(SOUND, planned.at));
        drive.with(|disk| assert!(disk.rot("records.db-wal", flip.at, flip.bit), "there is such a byte"));
        let read = |name: &str| {
            let mut bytes = vec![0; drive.with(|disk| disk.length_of(name)).unwrap_or_default()];
            drive.read_at(&Path::new("/disk").join(name), 0, &mut bytes).map(|_| bytes)
        };
        let damaged = read("records.db-wal").expect("a sound disk");
        drive.with(|disk| disk.plan(planned));
        let opened = open(drive);
        let fired = drive.with(|disk| disk.fired() > 0);
        // A disk that does not read says something against what is on it.
        let of_surroundings = |error: &OpenError| match error {
            OpenError::UnreadableLog { .. } => !error.is_of_surroundings(),
            _ => planned.fault == Fault::Io || error.is_of_surroundings(),
        };
        if let Err(error) = &opened
            && !of_surroundings(error)
        {
            return Err(Failure::new("a full disk is of the surroundings", error));
        }
        drive.kill(opened.ok());
        drive.with(Disk::mend);
        if !found_damage(drive) && read("records.db-wal").ok().as_ref() != Some(&damaged) {
            return Err(Failure::new(
                "nothing of a damaged log is destroyed",
                "it is changed, and there is no copy",
            ));
        }
        drive.kill(open(drive).map_err(|e| Failure::new("the store opens on a mended disk", e))?);
        match read("records.db-wal.damaged-1") {
            Ok(copy) if copy == damaged => Ok(fired),
            other => {
                let text = format!("of {} bytes there are {:?}", damaged.len(), other.map(|copy| copy.len()));
                Err(Failure::new("nothing of a damaged log is destroyed", text))
            }
        }
    }

    /// Lets one bit flip on the way from the disk, at a step of the opening. Either there is an error, or the store
    /// holds everything, and at the next start it holds everything. Gives whether it could be read; none when the fault was not met.
    pub fn run_misread(&self, drive: &Drive, seed: u64, at: u64) -> Result<Option<bool>, Failure> {
        drive.insert(self.disk.copy(SOUND, seed));
        drive.with(|disk| disk.plan(Planned { fault: Fault::FlippedBit, at, lasting: false }));
        let opened = open(drive);
        let fired = drive.with(|disk| disk.fired() > 0);
        drive.with(Disk::mend);
        let all = (COPIED + COMMITS) as u64;
        let checked = opened.map(|store| check(&store, all..=all, &self.references));
        // The bit may be one of the database file: then it is an error as soon as somebody reads there.
        let is_error = |failure: &Failure| failure.oracle == "what is recovered can be read";
        let opens = match checked {
            Ok(Err(failure)) if !is_error(&failure) => return Err(failure),
            checked => matches!(checked, Ok(Ok(_))),
        };
        drive.with(Disk::begin_process);
        let store = open(drive).map_err(|e| Failure::new("the store opens when the disk reads", e))?;
        check(&store, all..=all, &self.references)?;
        drive.kill(store);
        Ok(fired.then_some(opens))
    }

    /// Flips a bit of the header of a log that is copied whole.
    pub fn run_copied(&self, drive: &Drive, at: usize) -> Result<(), Failure> {
        drive.insert(self.disk.copy(SOUND, 0));
        let mut store = open(drive).map_err(|e| Failure::new("the store opens", e))?;
        store.checkpoint().map_err(|e| Failure::new("a sound disk takes a checkpoint", e))?;
        drive.kill(store);
        drive.with(|disk| assert!(disk.rot("records.db-wal", at, at as u8), "there is such a byte"));
        let store = open(drive).map_err(|e| Failure::new("the store opens", e))?;
        let last = (COPIED + COMMITS) as u64;
        check(&store, last..=last, &self.references)?;
        drive.kill(store);
        if found_damage(drive) { Err(Failure::new("what is copied is not missed", "it is")) } else { Ok(()) }
    }
}
