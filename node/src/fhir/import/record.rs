//! From the text of one resource to a named record. The only changes that it makes are an id for a resource
//! that has none, and references to the entries of its Bundle.

use serde_json::Value;
use sha2::{Digest, Sha256};
use sync_core::id::RecordId;

use super::{LINE_MAX_BYTES, RECORD_MAX_BYTES, references::Entries};
use crate::fhir::{attachment, json, problem::Problem};

/// Of the SHA-256 of a resource without an id, how many bytes become its id.
const DERIVED_ID_BYTES: usize = 16;

pub(super) struct Named {
    pub id: RecordId,
    pub resource: Value,
    pub id_was_missing: bool,
    pub unresolved: u64,
}

/// Reads one resource strictly, and its name if it has an id. What is longer than a line may be is not parsed.
pub fn resource(bytes: &[u8]) -> Result<(Option<RecordId>, Value), Problem> {
    if bytes.len() > LINE_MAX_BYTES {
        return Err(Problem::TextTooLong);
    }
    let resource = json::parse(bytes)?;
    let object = resource.as_object().ok_or(Problem::NotAnObject)?;
    let resource_type = object.get("resourceType").and_then(Value::as_str).ok_or(Problem::NoResourceType)?;
    RecordId::new(resource_type, "1").map_err(|_| Problem::NoResourceType)?;
    let given = match object.get("id") {
        Some(Value::String(id)) => Some(RecordId::new(resource_type, id).map_err(|_| Problem::BadId)?),
        Some(_) => return Err(Problem::BadId),
        None => None,
    };
    Ok((given, resource))
}

/// Reads one resource and sees to it that it has a name. `full_url` is the JSON text of its bundle entry's fullUrl. The
/// name is made of the text as it came, so that it is the same whatever else is in the Bundle.
pub(super) fn named(bytes: &[u8], full_url: Option<&[u8]>, entries: &Entries) -> Result<Named, Problem> {
    let (given, mut resource) = resource(bytes)?;
    // Text without white space is never longer than the text it was read from.
    let is_larger = || resource.to_string().len() - attachment::bytes_to_take(&resource) > RECORD_MAX_BYTES;
    if bytes.len() > RECORD_MAX_BYTES && is_larger() {
        return Err(Problem::RecordTooLarge);
    }
    let id_was_missing = given.is_none();
    let id = match given {
        Some(id) => id,
        None => give_id(&mut resource, full_url)?,
    };
    let unresolved = entries.resolve(&mut resource);
    if unresolved > 0 && entries.are_damaged() {
        return Err(Problem::LostEntry);
    }
    Ok(Named { id, resource, id_was_missing, unresolved })
}

fn give_id(resource: &mut Value, full_url: Option<&[u8]>) -> Result<RecordId, Problem> {
    let text = full_url.and_then(uuid).unwrap_or_else(|| derived(resource));
    let resource_type =
        resource.get("resourceType").and_then(Value::as_str).ok_or(Problem::NoResourceType)?;
    let id = RecordId::new(resource_type, &text).map_err(|_| Problem::BadId)?;
    if let Some(object) = resource.as_object_mut() {
        let behind_type = object.keys().position(|k| k == "resourceType").map_or(0, |at| at + 1);
        object.shift_insert(behind_type, "id".to_owned(), Value::String(text));
    }
    Ok(id)
}

fn uuid(full_url: &[u8]) -> Option<String> {
    let Ok(Value::String(url)) = json::parse(full_url) else { return None };
    let uuid = url.strip_prefix("urn:uuid:")?;
    let is_uuid = uuid.len() == 36
        && uuid.bytes().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_hexdigit(),
        });
    is_uuid.then(|| uuid.to_owned())
}

fn derived(resource: &Value) -> String {
    let digest = Sha256::digest(resource.to_string().as_bytes());
    data_encoding::HEXLOWER.encode(&digest[..DERIVED_ID_BYTES])
}
