//! Trains the dictionary of `sync-core/src/wire/compress.rs`.
//!
//! ```text
//! cargo run --release -p tuyen-tests --bin train-dictionary -- ../shared/data/hl7-r4-examples.ndjson > dictionary
//! ```
//!
//! The samples are entries as they travel: first changes and one-element edits of a made-up Vietnamese
//! population of several clinics, and, where the file is given, first changes of HL7's own examples. A dictionary
//! that has been released is never replaced: a new one gets the next number.

use std::{error::Error, io::Write, path::Path, sync::Arc};

use node::fhir::{
    import::Importer,
    population::{Population, edit},
};
use serde_json::Value;
use sync_core::{
    change::Entry,
    codec::Writer,
    id::{Incarnation, Lane, OrgId, RecordId},
    record::{Author, Record},
};

/// Size of the dictionary. 16 kB brought a single change of a Patient from 981 to 162 bytes.
const DICTIONARY_BYTES: usize = 16 << 10;
/// Clinics whose people are made up, each with its own seed.
const CLINICS: [&str; 4] = ["dong-van", "hoi-an", "ba-vi", "can-gio"];
/// Resources of each clinic.
const RESOURCES: usize = 400;

fn main() -> Result<(), Box<dyn Error>> {
    let mut samples = Vec::new();
    for (seed, clinic) in (9_000..).zip(CLINICS) {
        let org = OrgId::new(clinic)?;
        for (n, resource) in (0..).zip(Population::records(seed, &org, RESOURCES)) {
            let edited = edit::edit_blood_pressure(&resource, n).or_else(|| edit::edit_phone(&resource, n));
            sample(&org, &resource, edited.as_ref(), n, &mut samples)?;
        }
    }
    for path in std::env::args_os().skip(1) {
        let org = OrgId::new(CLINICS[0])?;
        for (n, item) in (0..).zip(Importer::open(Path::new(&path)).flatten()) {
            // Every fourth, so that the people of our clinics stay the larger part.
            if n % 4 == 0 {
                sample(&org, &item.resource, None, n, &mut samples)?;
            }
        }
    }
    let dictionary = zstd::dict::from_samples(&samples, DICTIONARY_BYTES)?;
    eprintln!("{} samples, {} bytes", samples.len(), dictionary.len());
    std::io::stdout().write_all(&dictionary)?;
    Ok(())
}

/// The entries of a new record, and of an edit of it.
fn sample(
    org: &OrgId,
    resource: &Value,
    edited: Option<&Value>,
    n: u64,
    samples: &mut Vec<Vec<u8>>,
) -> Result<(), Box<dyn Error>> {
    let text = |name: &str| resource.get(name).and_then(Value::as_str).unwrap_or_default();
    let id = RecordId::new(text("resourceType"), text("id"))?;
    let mut record = Record::new(id.clone());
    for (step, version) in (0..).zip([Some(resource), edited].into_iter().flatten()) {
        let author = Author {
            incarnation: incarnation(n, step),
            wall: 1_790_000_000_000 + i64::try_from(n * 977)?,
            by: None,
            software: node::daemon::SOFTWARE,
            why: None,
        };
        let Some(change) = record.put(version, None, &author)? else { continue };
        let lane = Lane::of_resource_type(id.resource_type());
        let Ok(entry) = Entry::new(id.clone(), org.clone(), lane, Arc::from(change.bytes)) else { continue };
        let mut w = Writer::default();
        entry.encode(&mut w);
        samples.push(w.0);
    }
    Ok(())
}

/// Bytes without a pattern, the same at every run: a dictionary must not learn one incarnation.
fn incarnation(n: u64, step: u64) -> Incarnation {
    use sha2::{Digest, Sha256};
    let hash: [u8; 32] = Sha256::digest([n.to_be_bytes(), step.to_be_bytes()].concat()).into();
    Incarnation(hash[..16].try_into().expect("sixteen bytes"))
}
