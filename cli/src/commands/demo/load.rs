//! What the demo's clinics write: given files, or a made-up population. What always holds: one record always
//! goes to one and the same leaf, and to the same half, whatever else is in the files; a record that a daemon
//! has acknowledged is remembered, so that the end can ask for every one of them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, sync_channel},
    thread,
};

use node::{
    admin::{Client, Failure, Progress},
    fhir::{
        import::{Importer, Item, Place},
        population::Population,
    },
};
use serde_json::Value;
use sync_core::id::{OrgId, RecordId};

use super::country::{Country, LEAVES, failed};
use crate::{chunk::Chunk, commands::import::RejectedBody, output::Meter};

/// Chunks that may wait for a leaf's daemon.
const QUEUE_CHUNKS: usize = 2;
/// Who writes what the demo loads.
const BY: &str = "demo";

/// Where the records come from.
pub enum Data {
    /// Files and folders.
    Files(Vec<PathBuf>),
    /// A made-up population.
    MadeUp {
        /// Its seed.
        seed: u64,
        /// Records in all.
        records: usize,
    },
}

/// When a record is written: before the links are cut, or while they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// Before.
    First,
    /// While.
    Second,
}

/// What has been written and acknowledged, and what has not.
#[derive(Default)]
pub struct Written {
    /// Each record, with the number of the leaf that it was written at.
    pub records: BTreeMap<RecordId, usize>,
    /// What was not taken, and why.
    pub rejected: Vec<RejectedBody>,
}

impl Written {
    /// Adds what was written elsewhere.
    pub fn merge(&mut self, other: Written) {
        self.records.extend(other.records);
        self.rejected.extend(other.rejected);
    }
}

/// The leaf and the half of a record, by the hash of its name: FNV-1a with 64 bits, whose high bits are mixed
/// once more because names that differ only at their end leave them alike.
fn share(record: &RecordId) -> (usize, Half) {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = record.as_str().bytes().fold(0xcbf2_9ce4_8422_2325, step);
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let leaf = (mixed >> 40) as usize % LEAVES.len();
    (LEAVES[leaf], if mixed >> 63 == 0 { Half::First } else { Half::Second })
}

/// A resource that the demo made itself, for import.
pub fn made_up(resource: Value) -> Result<Item, Failure> {
    let text = |name: &str| resource.get(name).and_then(Value::as_str).unwrap_or_default();
    let id = RecordId::new(text("resourceType"), text("id")).map_err(|error| {
        failed(format!("the made-up population has a record without a good name ({error})"))
    })?;
    let (source, place) = ("made up".into(), Place::Whole);
    Ok(Item { id, resource, id_was_missing: false, unresolved: 0, source, place })
}

/// Writes one half of the data, all leaves at once.
pub fn load(country: &Country, data: &Data, half: Half) -> Result<Written, Failure> {
    let mut written = Written::default();
    let answers: Vec<Result<Written, Failure>> = thread::scope(|scope| {
        let mut queues = BTreeMap::new();
        let mut writers = Vec::new();
        for leaf in LEAVES {
            let (queue, chunks) = sync_channel::<Chunk>(QUEUE_CHUNKS);
            queues.insert(leaf, (queue, Chunk::default()));
            let dir = &country.sites[leaf].dir;
            writers.push(scope.spawn(move || write(dir, leaf, &chunks)));
        }
        let mut meter = Meter::new();
        let mut done = 0;
        let read = each(country, data, half, &mut written, |leaf, item| {
            done += 1;
            meter.show(&Progress { what: "records written".into(), done, total: None });
            let Some((queue, chunk)) = queues.get_mut(&leaf) else { return Ok(()) };
            // A writer that has failed reads no more; its own error is the one to tell.
            chunk.add(item).map(|full| full.is_none_or(|full| queue.send(full).is_ok())).map(drop)
        });
        for (queue, chunk) in queues.into_values() {
            let _ = queue.send(chunk);
        }
        let answers = writers.into_iter().map(|writer| {
            writer.join().unwrap_or_else(|_| Err(failed("a thread that writes records broke off")))
        });
        answers.chain([read.map(|()| Written::default())]).collect()
    });
    for answer in answers {
        written.merge(answer?);
    }
    Ok(written)
}

/// Calls back with every record of one half, and the leaf that it belongs to.
fn each(
    country: &Country,
    data: &Data,
    half: Half,
    written: &mut Written,
    mut found: impl FnMut(usize, Item) -> Result<(), Failure>,
) -> Result<(), Failure> {
    match data {
        Data::Files(paths) => {
            for one in paths.iter().flat_map(|path| Importer::open(path)) {
                match one {
                    Ok(item) => {
                        let (leaf, when) = share(&item.id);
                        if when == half {
                            found(leaf, item)?;
                        }
                    }
                    // The files are read twice, and what is wrong in them is told once.
                    Err(rejected) if half == Half::First => written.rejected.push(rejected.into()),
                    Err(_) => {}
                }
            }
        }
        Data::MadeUp { seed, records } => {
            for (i, leaf) in LEAVES.into_iter().enumerate() {
                let number = records / LEAVES.len() + usize::from(i < records % LEAVES.len());
                for resource in Population::records(*seed, &country.sites[leaf].org, number) {
                    let item = made_up(resource)?;
                    if share(&item.id).1 == half {
                        found(leaf, item)?;
                    }
                }
            }
        }
    }
    Ok(())
}

fn write(dir: &Path, leaf: usize, chunks: &Receiver<Chunk>) -> Result<Written, Failure> {
    let mut writer = Writer::connect(dir, leaf)?;
    for chunk in chunks {
        writer.send(chunk)?;
    }
    Ok(writer.written)
}

/// Writes resources at one leaf.
pub fn write_at(dir: &Path, leaf: usize, resources: Vec<Value>) -> Result<Written, Failure> {
    let mut writer = Writer::connect(dir, leaf)?;
    let mut chunk = Chunk::default();
    for resource in resources {
        if let Some(full) = chunk.add(made_up(resource)?)? {
            writer.send(full)?;
        }
    }
    writer.send(chunk)?;
    Ok(writer.written)
}

/// A connection to one leaf that remembers what it has written.
struct Writer {
    client: Client,
    leaf: usize,
    written: Written,
}

impl Writer {
    fn connect(dir: &Path, leaf: usize) -> Result<Self, Failure> {
        Ok(Self { client: Client::connect(dir)?, leaf, written: Written::default() })
    }

    fn send(&mut self, chunk: Chunk) -> Result<(), Failure> {
        if chunk.is_empty() {
            return Ok(());
        }
        let sent = chunk.send(&mut self.client, Some(BY.into()), None)?;
        self.written.records.extend(sent.taken().map(|origin| (origin.record.clone(), self.leaf)));
        self.written.rejected.extend(sent.refused().map(RejectedBody::from));
        Ok(())
    }
}

/// What made-up records are for, beside the data; each purpose has people of its own.
#[derive(Debug, Clone, Copy)]
pub enum Purpose {
    /// The people of the scenes.
    Scenes = 1,
    /// What makes a transfer long enough.
    Backlog = 2,
    /// What clinics write during a transfer.
    Feed = 3,
}

/// More made-up records of an organization, without end.
pub fn more(seed: u64, purpose: Purpose, org: &OrgId) -> Population {
    Population::new(seed.rotate_left(32) ^ (purpose as u64) << 8, org)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_shared_out_evenly_and_always_alike() {
        let mut leaves = BTreeMap::<usize, usize>::new();
        let mut first = 0;
        for n in 0..8_000 {
            let record = RecordId::new("Patient", &format!("p{n}")).unwrap();
            let (leaf, half) = share(&record);
            assert_eq!(share(&record), (leaf, half));
            *leaves.entry(leaf).or_default() += 1;
            first += usize::from(half == Half::First);
        }
        assert!(leaves.len() == 4 && leaves.values().all(|n| (1_800..2_200).contains(n)), "{leaves:?}");
        assert!((3_700..4_300).contains(&first), "{first}");
    }

    #[test]
    fn the_population_has_the_size_that_was_asked_for() {
        let country = Country::plan(None).unwrap();
        let data = Data::MadeUp { seed: 1, records: 403 };
        let mut names = BTreeMap::new();
        for half in [Half::First, Half::Second] {
            let mut written = Written::default();
            each(&country, &data, half, &mut written, |leaf, item| {
                assert!(names.insert(item.id, leaf).is_none());
                Ok(())
            })
            .unwrap();
        }
        assert_eq!(names.len(), 403);
    }
}
