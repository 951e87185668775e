//! Many resources on their way to a daemon: writes are sent in chunks, so that neither side holds a whole
//! import. What always holds: a chunk names no record twice, so that two versions of a record in one file are
//! written one after the other; and what the daemon says of the n-th resource finds its way back to the file
//! and the line that it came from.

use std::{collections::BTreeSet, sync::Arc};

use node::{
    admin::{Client, Failure, FailureKind, Request, Written},
    fhir::import::{Item, Place, is_parcel},
};
use serde_json::value::{RawValue, to_raw_value};
use sync_core::id::RecordId;

/// Most resources of one request.
pub const RESOURCES_MAX: usize = 250;
/// Most bytes of one request, unless a single resource is larger.
pub const BYTES_MAX: usize = 4 << 20;

/// Where a resource came from.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Which record it is.
    pub record: RecordId,
    /// The file.
    pub source: Arc<str>,
    /// Where in the file.
    pub place: Place,
    /// How many of its references name an entry that is not there.
    pub unresolved: u64,
    /// Whether it is a Bundle that was kept whole, and whose entries would be records in a JSON file of its own.
    pub is_parcel: bool,
}

/// Resources that travel in one request.
#[derive(Debug, Default)]
pub struct Chunk {
    resources: Vec<Box<RawValue>>,
    origins: Vec<Origin>,
    records: BTreeSet<RecordId>,
    bytes: usize,
}

impl Chunk {
    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.origins.is_empty()
    }

    /// Adds a resource. If it does not fit, the chunk that is full comes back, to be sent first.
    pub fn add(&mut self, item: Item) -> Result<Option<Chunk>, Failure> {
        let resource = to_raw_value(&item.resource).map_err(|error| {
            Failure::new(FailureKind::Failed, format!("{} cannot be sent ({error})", item.id))
        })?;
        let size = resource.get().len();
        let fits = self.resources.len() < RESOURCES_MAX
            && (self.bytes + size <= BYTES_MAX || self.is_empty())
            && !self.records.contains(&item.id);
        let full = (!fits).then(|| std::mem::take(self));
        self.bytes += size;
        self.resources.push(resource);
        self.records.insert(item.id.clone());
        let is_parcel = is_parcel(&item.resource);
        let Item { id: record, source, place, unresolved, .. } = item;
        self.origins.push(Origin { record, source, place, unresolved, is_parcel });
        Ok(full)
    }

    /// Sends the chunk.
    pub fn send(self, client: &mut Client, by: Option<String>, why: Option<String>) -> Result<Sent, Failure> {
        let Self { resources, origins, .. } = self;
        let written = client.call(&Request::Put { resources, base: None, by, why }, |_| {})?;
        Ok(Sent { origins, written })
    }
}

/// A chunk that the daemon has answered.
#[derive(Debug)]
pub struct Sent {
    origins: Vec<Origin>,
    /// What the daemon said.
    pub written: Written,
}

/// A resource that the daemon refused.
#[derive(Debug)]
pub struct Refused {
    /// Which.
    pub origin: Origin,
    /// What, why, what to do.
    pub problem: String,
}

impl Sent {
    /// What the daemon refused.
    pub fn refused(&self) -> impl Iterator<Item = Refused> + '_ {
        self.written.rejected.iter().filter_map(|rejected| {
            let origin = self.origins.get(usize::try_from(rejected.index).ok()?)?.clone();
            Some(Refused { origin, problem: rejected.problem.clone() })
        })
    }

    /// What the daemon now holds as it was sent.
    pub fn taken(&self) -> impl Iterator<Item = &Origin> {
        let refused: BTreeSet<u64> = self.written.rejected.iter().map(|rejected| rejected.index).collect();
        self.origins.iter().zip(0..).filter(move |(_, i)| !refused.contains(i)).map(|(origin, _)| origin)
    }
}

#[cfg(test)]
mod tests {
    use node::admin::RejectedRecord;
    use serde_json::json;

    use super::*;

    fn item(id: &str, bytes: usize) -> Item {
        Item {
            id: RecordId::new("Binary", id).unwrap(),
            resource: json!({"resourceType": "Binary", "id": id, "data": "A".repeat(bytes)}),
            id_was_missing: false,
            unresolved: 0,
            source: "file".into(),
            place: Place::Line(7),
        }
    }

    #[test]
    fn a_full_chunk_comes_back() {
        let mut chunk = Chunk::default();
        for n in 0..RESOURCES_MAX {
            assert!(chunk.add(item(&n.to_string(), 1)).unwrap().is_none());
        }
        let full = chunk.add(item("more", 1)).unwrap().unwrap();
        assert_eq!((full.resources.len(), chunk.resources.len()), (RESOURCES_MAX, 1));
        assert_eq!(chunk.add(item("more", 1)).unwrap().unwrap().resources.len(), 1, "a record twice");
        assert!(chunk.add(item("large", BYTES_MAX)).unwrap().is_some());
        assert!(chunk.add(item("small", 1)).unwrap().is_some());
    }

    #[test]
    fn an_answer_finds_its_line() {
        let mut chunk = Chunk::default();
        for id in ["a", "b", "c"] {
            assert!(chunk.add(item(id, 1)).unwrap().is_none());
        }
        let rejected = |index| RejectedRecord { index, record: None, problem: "why".into() };
        let written = Written { rejected: vec![rejected(1), rejected(9)], ..Written::default() };
        let sent = Sent { origins: chunk.origins, written };
        let refused: Vec<_> = sent.refused().map(|refused| refused.origin.record).collect();
        assert_eq!(refused, ["Binary/b".parse().unwrap()]);
        let taken: Vec<_> = sent.taken().map(|origin| origin.record.id()).collect();
        assert_eq!(taken, ["a", "c"]);
    }
}
