//! Resources: whatever JSON object goes into a record comes out again, with the text of its numbers.

use node::fhir::json;
use serde_json::{Value, json};
use sync_core::{
    conflict::Policies,
    id::{Incarnation, RecordId},
    record::{Author, Record, RecordError},
};

/// Deepest resource that a record takes.
const DEPTH_MAX: usize = 72;

/// The bytes are JSON texts, one on each line: versions of one resource. What is no object is an element of one.
pub fn resource(data: &[u8]) {
    let mut versions = Vec::new();
    for line in data.split(|byte| *byte == b'\n').take(4) {
        let Ok(value) = json::parse(line) else { continue };
        let mut version = if value.is_object() { value } else { json!({"value": value}) };
        // The type decides which elements are taken apart.
        version["id"] = "x".into();
        versions.push(version);
    }
    let named = |version: &Value| RecordId::new(version.get("resourceType")?.as_str()?, "x").ok();
    let id = versions.iter().find_map(named);
    let id = id.unwrap_or_else(|| RecordId::new("Observation", "x").expect("a plain name"));
    for version in &mut versions {
        version["resourceType"] = id.resource_type().into();
    }
    goes_in_and_comes_out(&id, &versions);
}

/// Writes versions one after another, and reads each.
pub fn goes_in_and_comes_out(id: &RecordId, versions: &[Value]) {
    let mut record = Record::new(id.clone());
    for (n, version) in versions.iter().enumerate() {
        let author =
            Author { incarnation: Incarnation([1; 16]), wall: n as i64, by: None, software: "f", why: None };
        let put = record.put(version, None, &author);
        if depth(version) > DEPTH_MAX {
            assert_eq!(put, Err(RecordError::BadResource), "what is too deep is refused");
            continue;
        }
        let change = put.expect("any object can be written");
        let text = record.fold().resource.expect("it is there");
        let read = json::parse(text.as_bytes()).expect("what is shown is strict JSON");
        // Numbers are equal as text. Of one that was there with the same digits the older spelling of the exponent stays.
        let same = read == *version || (n > 0 && plain(&read) == plain(version));
        assert!(same, "what goes in comes out");
        assert!(record.conflicts().is_empty(), "one writer has no conflicts");
        assert_eq!(record.put(version, None, &author), Ok(None), "the same again changes nothing");
        let again = Record::load(id.clone(), &record.save()).expect("a snapshot can be read");
        assert_eq!(again.fold(), record.fold());
        if let Some(change) = change.filter(|_| n == 0) {
            let folded = Record::fold_genesis(id, &change.bytes, Policies::standard());
            assert_eq!(folded.expect("a first change"), record.fold());
        }
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// With exponents as `serde_json` spells them.
fn plain(value: &Value) -> Value {
    serde_json::from_str(&value.to_string()).expect("JSON")
}
