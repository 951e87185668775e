//! Item ids: how the items of a repeating element are told apart.
//!
//! Where FHIR gives an item a natural key, the id is made from it, so that two nodes that each record the same
//! identifier meet in one register. In an element that is new as a whole, the other ids come from the content, so
//! that two nodes that import one resource make the same document. Otherwise an id is unique to the change that
//! adds the item, so that two nodes that each add a name keep both.

use std::collections::BTreeSet;

use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use super::shape::Statement;
use crate::id::Incarnation;

/// Shortest id, in characters. Ids grow by four where they would collide.
const ID_MIN_CHARS: usize = 8;

/// The element id of an item (`Element.id`, or the id of a contained resource).
pub(super) fn element_id(item: Statement<'_>) -> Option<&str> {
    let id = |json: Option<&'_ Json>| json.and_then(|j| j.get("id")).and_then(Json::as_str).is_some();
    let holder = if id(item.json) { item.json } else { item.sibling };
    holder?.get("id")?.as_str()
}

fn words(parts: &[&str]) -> String {
    // JSON text keeps the parts apart whatever is in them.
    Json::from(parts).to_string()
}

fn coding(json: &Json) -> Option<String> {
    let part = |name: &str| json.get(name).and_then(Json::as_str);
    Some(words(&[part("system").unwrap_or(""), part("code")?]))
}

fn is_coding(json: &Json) -> bool {
    let known = ["id", "extension", "system", "version", "code", "display", "userSelected"];
    json.as_object().is_some_and(|map| {
        map.contains_key("system")
            && map.contains_key("code")
            && map.keys().all(|k| known.contains(&k.as_str()))
    })
}

/// What makes an item of the element `name` the same item in two hands, if anything does. `parts` tells that
/// the items are elements with registers of their own.
pub(super) fn natural_key(name: &str, item: Statement<'_>, parts: bool) -> Option<String> {
    if let Some(id) = element_id(item) {
        return Some(words(&["id", id]));
    }
    let json = item.json?;
    let part = |name: &str| json.get(name).and_then(Json::as_str);
    match name {
        "identifier" => Some(words(&["identifier", part("system")?, part("use").unwrap_or("")])),
        "telecom" => Some(words(&["telecom", part("system")?, part("use")?])),
        "extension" | "modifierExtension" => Some(words(&["url", part("url")?])),
        "profile" => Some(words(&["profile", json.as_str()?])),
        _ if part("linkId").is_some() => Some(words(&["linkId", part("linkId")?])),
        _ if is_coding(json) => Some(words(&["coding", &coding(json)?])),
        _ if parts => {
            let codings = json.get("code")?.get("coding")?.as_array().filter(|c| !c.is_empty())?;
            let mut codes = codings.iter().map(coding).collect::<Option<Vec<_>>>()?;
            codes.sort();
            Some(words(&["code", &codes.concat()]))
        }
        _ => None,
    }
}

/// JSON text that is equal for equal values: members in order of their names, exponents as `serde_json` spells them,
/// because what comes out of a register has gone through it and what comes in may be spelt in another way.
pub(super) fn canonical(json: &Json) -> String {
    match json {
        Json::Object(map) => {
            let mut members: Vec<_> = map.iter().collect();
            members.sort_by_key(|(name, _)| name.as_str());
            let member =
                |(name, j): (&String, &Json)| format!("{}:{}", Json::from(name.as_str()), canonical(j));
            let members: Vec<_> = members.into_iter().map(member).collect();
            format!("{{{}}}", members.join(","))
        }
        Json::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        Json::Number(number) => number_as_read(&number.to_string()),
        scalar => scalar.to_string(),
    }
}

fn number_as_read(text: &str) -> String {
    match text.split_once(['e', 'E']) {
        Some((digits, power)) if power.starts_with(['+', '-']) => format!("{digits}e{power}"),
        Some((digits, power)) => format!("{digits}e+{power}"),
        None => text.to_owned(),
    }
}

/// Canonical text of a statement.
pub(super) fn canonical_statement(item: Statement<'_>) -> String {
    let mut text = item.json.map(canonical).unwrap_or_default();
    if let Some(sibling) = item.sibling {
        text.push('\n');
        text.push_str(&canonical(sibling));
    }
    text
}

/// Makes the ids of new items in one change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mint {
    /// Who writes.
    pub incarnation: Incarnation,
    /// How many changes of this incarnation the record has; with it, unique.
    pub own_changes: u64,
}

fn digest(parts: &[&str]) -> String {
    let hash = Sha256::digest(words(parts).as_bytes());
    hash.iter().map(|b| format!("{b:02x}")).collect()
}

fn shortest_free(digest: &str, taken: &BTreeSet<String>) -> Option<String> {
    (ID_MIN_CHARS..=digest.len())
        .step_by(4)
        .map(|len| digest[..len].to_owned())
        .find(|id| !taken.contains(id))
}

impl Mint {
    /// The id of an item with a natural key. `taken` are the items that are there.
    pub fn natural(&self, name: &str, natural: &str, taken: &BTreeSet<String>) -> String {
        let id = |n: u64| digest(&["natural", name, natural, &n.to_string()])[..ID_MIN_CHARS].to_owned();
        (0u64..).map(id).find(|id| !taken.contains(id)).unwrap_or_default()
    }

    /// The id of an item without one, in an element that is new as a whole.
    pub fn content(&self, name: &str, content: &str, taken: &BTreeSet<String>) -> String {
        let id = |n: u64| shortest_free(&digest(&["content", name, content, &n.to_string()]), taken);
        (0u64..).find_map(id).unwrap_or_default()
    }

    /// The id of an item without one, added to what was there.
    pub fn unique(&self, field: &str, index: usize, taken: &BTreeSet<String>) -> String {
        let (who, changes) = (self.incarnation.to_string(), self.own_changes.to_string());
        let id = |n: u64| {
            shortest_free(
                &digest(&["unique", &who, &changes, field, &index.to_string(), &n.to_string()]),
                taken,
            )
        };
        (0u64..).find_map(id).unwrap_or_default()
    }
}
