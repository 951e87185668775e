//! References between the entries of one Bundle, by FHIR's rule: a reference that is the fullUrl of an entry means
//! the record that the entry becomes. What always holds: only the text of `reference` elements changes, wherever they
//! stand; and what might mean two records, or an entry that was lost, is not decided here. Not here: references of other forms, which stay
//! as they are: `Patient/8f21`, `#contained`, conditional ones, those in narrative, and values of type uri, url and
//! canonical.

use std::collections::{HashMap, hash_map::Entry};

use serde_json::Value;
use sync_core::id::RecordId;

/// What stands between a record's URL and a version of it.
const VERSION: &str = "/_history/";

/// How a reference to an entry of the same Bundle begins, if it is nothing else.
const OF_ENTRIES: [&str; 2] = ["urn:uuid:", "urn:oid:"];
/// How one begins that may be to an entry, or to what stands elsewhere.
const OF_BOTH: [&str; 2] = ["https://", "http://"];

/// The entries of a Bundle.
#[derive(Debug, Default)]
pub(super) struct Entries {
    /// The records that they become, by their fullUrls.
    records: HashMap<String, Option<RecordId>>,
    /// Whether there were more of which nobody can tell the fullUrls or the records.
    damaged: bool,
}

impl Entries {
    /// Adds an entry. A fullUrl that two records have names neither; one that is not absolute is none.
    pub fn add(&mut self, full_url: String, record: RecordId) {
        if !full_url.contains(':') {
            return;
        }
        match self.records.entry(full_url) {
            Entry::Vacant(free) => drop(free.insert(Some(record))),
            Entry::Occupied(mut taken) if taken.get().as_ref() != Some(&record) => drop(taken.insert(None)),
            Entry::Occupied(_) => {}
        }
    }

    /// Some of the Bundle is cut off, or cannot be read.
    pub fn damage(&mut self) {
        self.damaged = true;
    }

    /// Whether a reference that names no entry may have named one that was lost.
    pub fn are_damaged(&self) -> bool {
        self.damaged
    }

    /// Writes the records in the place of the references to their entries; says how many references name an entry
    /// that is not there; of a damaged Bundle also those that may. A Bundle's references are its own affair.
    pub fn resolve(&self, value: &mut Value) -> u64 {
        match value {
            Value::Array(items) => items.iter_mut().map(|item| self.resolve(item)).sum(),
            Value::Object(members) if members.get("resourceType").is_some_and(|name| name == "Bundle") => 0,
            Value::Object(members) => members.iter_mut().map(|(name, value)| self.member(name, value)).sum(),
            _ => 0,
        }
    }

    fn member(&self, name: &str, value: &mut Value) -> u64 {
        let Value::String(reference) = value else { return self.resolve(value) };
        if name != "reference" {
            return 0;
        }
        let url_end = reference.find(VERSION).unwrap_or(reference.len());
        match self.records.get(&reference[..url_end]) {
            Some(Some(record)) => {
                reference.replace_range(..url_end, record.as_str());
                0
            }
            Some(None) => 1,
            None => {
                let begins = |of: [&str; 2]| of.iter().any(|start| reference.starts_with(start));
                (begins(OF_ENTRIES) || self.damaged && begins(OF_BOTH)).into()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The same, with its references resolved, and how many of them lead nowhere.
    fn resolved(mut resource: Value) -> (Value, u64) {
        let mut entries = Entries::default();
        for (full_url, record) in [
            ("urn:uuid:1", "Patient/p"),
            ("urn:uuid:1", "Patient/p"),
            ("urn:oid:1.2", "Practitioner/d"),
            ("https://example.org/fhir/Patient/7", "Patient/8"),
            ("urn:uuid:two", "Patient/p"),
            ("urn:uuid:two", "Patient/q"),
            ("urn:uuid:two", "Patient/p"),
            ("#a", "Patient/p"),
            ("Patient/7", "Patient/8"),
        ] {
            entries.add(full_url.to_owned(), record.parse().unwrap());
        }
        let unresolved = entries.resolve(&mut resource);
        (resource, unresolved)
    }

    #[test]
    fn a_reference_to_an_entry_names_its_record() {
        for (reference, is, unresolved) in [
            ("urn:uuid:1", "Patient/p", 0),
            ("urn:oid:1.2", "Practitioner/d", 0),
            ("https://example.org/fhir/Patient/7", "Patient/8", 0),
            ("https://example.org/fhir/Patient/7/_history/2", "Patient/8/_history/2", 0),
            ("https://example.org/fhir/Patient/70", "https://example.org/fhir/Patient/70", 0),
            ("Patient/7", "Patient/7", 0),
            ("Patient?identifier=urn:uuid:1", "Patient?identifier=urn:uuid:1", 0),
            ("#a", "#a", 0),
            ("urn:uuid:two", "urn:uuid:two", 1),
            ("urn:uuid:3", "urn:uuid:3", 1),
            ("urn:oid:1.2.3", "urn:oid:1.2.3", 1),
            ("urn:uuid:1#a", "urn:uuid:1#a", 1),
        ] {
            let found = resolved(json!({"subject": {"reference": reference}}));
            assert_eq!(found, (json!({"subject": {"reference": is}}), unresolved));
        }
    }

    #[test]
    fn wherever_it_stands_and_nothing_else_changes() {
        let with = |patient: &str, doctor: &str| {
            json!({
                "resourceType": "Observation", "id": "urn:uuid:1", "valueUri": "urn:uuid:1",
                "text": {"div": "<a href=\"urn:uuid:1\">urn:uuid:1</a>"},
                "note": [{"text": "urn:uuid:1"}, "urn:uuid:1", 1],
                "contained": [
                    {"resourceType": "Provenance", "target": [{"reference": patient}, {"reference": doctor}]},
                    {"resourceType": "Bundle", "entry": [{"resource": {"subject": {"reference": "urn:uuid:1"}}}]}
                ],
                "extension": [{"url": "urn:uuid:1", "extension": [{"valueReference": {"reference": patient}}]}],
                "subject": {"reference": patient, "_reference": {"id": "urn:uuid:1"}, "display": "urn:uuid:1"},
                "provision": {"reference": {"reference": doctor}, "data": {"reference": ["urn:uuid:1"]}},
            })
        };
        let found = resolved(with("urn:uuid:1", "urn:oid:1.2"));
        assert_eq!(found, (with("Patient/p", "Practitioner/d"), 0));
        let unknown = with("urn:uuid:9", "urn:uuid:two");
        assert_eq!(resolved(unknown.clone()), (unknown, 5));
        assert_eq!(resolved(json!({"resourceType": "Bundle", "x": {"reference": "urn:uuid:9"}})).1, 0);
    }
}
