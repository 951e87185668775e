//! Reads FHIR resources from a file, a folder or standard input, one after another, however many there are.
//! What always holds: one bad record never stops the rest, but becomes a [`Rejected`] that says where, why
//! and what to do; a resource leaves as it came in, but for references between the entries of a Bundle; and
//! importing the same thing twice names the same records. Memory holds one line, or one JSON file, never a folder. Not here: storing,
//! and meeting records that are already there. The reads block; a caller on an async thread moves them away.
//!
//! What is a record:
//! * In NDJSON (`.ndjson`, `.jsonl`) every line is one record as it stands, a Bundle too.
//! * In JSON (`.json`) a Bundle of type transaction, batch, collection, searchset or history is a parcel: its
//!   entries' resources are the records, and of a history the oldest version comes first. Any other Bundle
//!   (document, message, a response) is a record itself. An array gives its elements, each as it stands.
//! * In a parcel a reference that is an entry's fullUrl becomes the name of that entry's record (see `references`),
//!   and the patients come first, so that the order of the entries means nothing.
//! * Standard input, and a file of another name, is NDJSON when its first line is a whole JSON object and
//!   more follows, and otherwise JSON.
//! * A resource without an id takes the uuid of its entry's `urn:uuid:` fullUrl, or else the beginning of
//!   the SHA-256 of its text, and has it as its id from then on.
//! * A name that comes twice, in one file or in several, is one record: each is an edit of the one before it, in
//!   the order of reading, so the last one stands and the others are in its history.

mod pieces;
mod record;
mod references;
mod source;
mod walk;

use std::{collections::BTreeMap, fmt, io::Read, path::Path, sync::Arc};

use serde_json::Value;
use sync_core::id::RecordId;

pub use self::{pieces::is_parcel, record::resource};
use self::{source::Source, walk::Walk};
use super::problem::Problem;

/// Largest record, in bytes of JSON without white space between tokens and without content that leaves it: see
/// [`super::attachment`]. A change chunk is at most 1 MiB, and
/// a record's first change is a little larger than the record.
pub const RECORD_MAX_BYTES: usize = 900_000;
/// Longest line that is read into memory: a record with generous white space, and the largest attachment in base64.
pub const LINE_MAX_BYTES: usize = 48 << 20;
/// Largest JSON file; it is read into memory as a whole. NDJSON files may have any size.
pub const FILE_MAX_BYTES: usize = 256_000_000;

/// The path that stands for standard input.
pub const STDIN: &str = "-";

/// A resource that can become a record.
#[derive(Debug, Clone)]
pub struct Item {
    /// The record's name.
    pub id: RecordId,
    /// The resource, as it came in, but for references to entries of its Bundle.
    pub resource: Value,
    /// Whether the resource had no id of its own and was given one.
    pub id_was_missing: bool,
    /// How many of its references name an entry that its Bundle does not have, and stay as they are.
    pub unresolved: u64,
    /// The file it came from.
    pub source: Arc<str>,
    /// Where in the file.
    pub place: Place,
}

/// A record that could not be taken. Its text, through `Display`, says where, why and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{source_name}{place}: {problem}; {}", problem.what_to_do())]
pub struct Rejected {
    /// The file it came from.
    pub source_name: Arc<str>,
    /// Where in the file.
    pub place: Place,
    /// What is wrong with it.
    pub problem: Problem,
}

/// A place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The whole file.
    Whole,
    /// A line of NDJSON, from 1.
    Line(u64),
    /// A resource in a JSON file, from 1: the bundle's entry or the array's element of this number.
    Entry(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => Ok(()),
            Self::Line(n) => write!(f, ", line {n}"),
            Self::Entry(n) => write!(f, ", entry {n}"),
        }
    }
}

/// How a stream is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One record a line.
    Ndjson,
    /// A resource, an array or a Bundle.
    Json,
    /// To be told from its beginning.
    Unknown,
}

impl Format {
    /// The format that a file's name promises.
    pub fn of(path: &Path) -> Self {
        let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
        match extension.as_deref() {
            Some("ndjson" | "jsonl") => Self::Ndjson,
            Some("json") => Self::Json,
            _ => Self::Unknown,
        }
    }
}

/// What an import has met so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Files opened, or tried.
    pub sources: u64,
    /// Records given.
    pub records: u64,
    /// Records given that were given an id.
    pub ids_were_missing: u64,
    /// Records, or whole files, rejected.
    pub rejected: u64,
    /// Files in the folder that were not looked into, because their names end in none of .json, .ndjson and
    /// .jsonl or begin with a dot, and links to folders.
    pub passed_over: u64,
    /// Records given, by resource type.
    pub by_type: BTreeMap<String, u64>,
}

/// The records of a file, a folder or a stream, one by one.
pub struct Importer {
    walk: Walk,
    current: Option<Source>,
    counts: Counts,
}

impl Importer {
    /// Imports a file, a folder with all folders in it, in the order of the names, or `-` for standard input.
    pub fn open(path: &Path) -> Self {
        if path.as_os_str() == STDIN {
            return Self::from_reader("standard input", std::io::stdin(), Format::Unknown);
        }
        Self { walk: Walk::new(path), current: None, counts: Counts::default() }
    }

    /// Imports one stream, under a name for messages.
    pub fn from_reader(name: &str, reader: impl Read + Send + 'static, format: Format) -> Self {
        let current = Some(Source::new(name.into(), Box::new(reader), format));
        Self { walk: Walk::default(), current, counts: Counts { sources: 1, ..Counts::default() } }
    }

    /// What has been met so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    fn find(&mut self) -> Option<Result<Item, Rejected>> {
        loop {
            if let Some(source) = &mut self.current {
                match source.next() {
                    Some(found) => return Some(found),
                    None => self.current = None,
                }
            }
            match self.walk.next(&mut self.counts.passed_over)? {
                Ok(path) => {
                    self.counts.sources += 1;
                    let name: Arc<str> = path.to_string_lossy().into();
                    match std::fs::File::open(&path) {
                        Ok(file) => self.current = Some(Source::new(name, Box::new(file), Format::of(&path))),
                        Err(error) => return Some(Err(unreadable(name, &error))),
                    }
                }
                Err((path, error)) => return Some(Err(unreadable(path.to_string_lossy().into(), &error))),
            }
        }
    }
}

impl Iterator for Importer {
    type Item = Result<Item, Rejected>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = self.find()?;
        match &found {
            Ok(item) => {
                self.counts.records += 1;
                self.counts.ids_were_missing += u64::from(item.id_was_missing);
                match self.counts.by_type.get_mut(item.id.resource_type()) {
                    Some(count) => *count += 1,
                    None => drop(self.counts.by_type.insert(item.id.resource_type().to_owned(), 1)),
                }
            }
            Err(_) => self.counts.rejected += 1,
        }
        Some(found)
    }
}

fn unreadable(source_name: Arc<str>, error: &std::io::Error) -> Rejected {
    Rejected { source_name, place: Place::Whole, problem: Problem::Unreadable(error.to_string()) }
}

#[cfg(test)]
mod tests;
