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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(name: &str, parts: bool, json: Json) -> Option<String> {
        natural_key(name, Statement { json: Some(&json), sibling: None }, parts)
    }

    #[test]
    fn an_item_has_the_natural_key_that_fhir_gives_it() {
        for (name, parts, json, expected) in [
            ("any", false, json!({"id": "1", "system": "s"}), Some(r#"["id","1"]"#)),
            (
                "identifier",
                false,
                json!({"system": "s", "use": "official", "value": "1"}),
                Some(r#"["identifier","s","official"]"#),
            ),
            ("identifier", false, json!({"system": "s"}), Some(r#"["identifier","s",""]"#)),
            ("identifier", false, json!({"use": "official"}), None),
            (
                "telecom",
                false,
                json!({"system": "phone", "use": "home"}),
                Some(r#"["telecom","phone","home"]"#),
            ),
            ("telecom", false, json!({"system": "phone", "code": "x"}), None),
            ("extension", false, json!({"url": "u"}), Some(r#"["url","u"]"#)),
            ("modifierExtension", false, json!({"url": "u"}), Some(r#"["url","u"]"#)),
            ("profile", false, json!("p"), Some(r#"["profile","p"]"#)),
            ("profile", false, json!({}), None),
            ("item", true, json!({"linkId": "1.2", "text": "t"}), Some(r#"["linkId","1.2"]"#)),
            (
                "coding",
                false,
                json!({"system": "s", "code": "c", "display": "d"}),
                Some(r#"["coding","[\"s\",\"c\"]"]"#),
            ),
            ("coding", false, json!({"system": "s", "code": "c", "more": "d"}), None),
            ("coding", false, json!({"system": "s"}), None),
            ("coding", false, json!({"code": "c"}), None),
            (
                "component",
                true,
                json!({"code": {"coding": [{"code": "b"}, {"system": "s", "code": "a"}]}}),
                Some(r#"["code","[\"\",\"b\"][\"s\",\"a\"]"]"#),
            ),
            (
                "component",
                true,
                json!({"code": {"coding": [{"system": "s", "code": "a"}, {"code": "b"}]}}),
                Some(r#"["code","[\"\",\"b\"][\"s\",\"a\"]"]"#),
            ),
            ("component", true, json!({"code": {"coding": [{"code": "b"}, {"system": "s"}]}}), None),
            ("component", true, json!({"code": {"coding": []}}), None),
            ("component", false, json!({"code": {"coding": [{"code": "b"}]}}), None),
            ("given", false, json!("A"), None),
        ] {
            assert_eq!(key(name, parts, json.clone()).as_deref(), expected, "{name} {json}");
        }
        let (null, id) = (json!({}), json!({"id": "x"}));
        let beside = Statement { json: Some(&null), sibling: Some(&id) };
        assert_eq!(
            (element_id(beside), element_id(Statement { sibling: None, ..beside })),
            (Some("x"), None)
        );
    }

    #[test]
    fn equal_values_have_one_text() {
        for (one, other) in
            [(r#"{"b":[1,"x"],"a":null}"#, r#"{"a":null, "b":[1, "x"]}"#), ("1E5", "1e+5"), ("1e+5", "1e5")]
        {
            let text = |json| canonical(&serde_json::from_str(json).unwrap());
            assert_eq!(text(one), text(other));
        }
        assert_eq!(["1.50", "1e-7", "1E+5", "1e5"].map(number_as_read), ["1.50", "1e-7", "1e+5", "1e+5"]);
        let (a, b) = (json!("a"), json!({"id": "b"}));
        let both = Statement { json: Some(&a), sibling: Some(&b) };
        assert_eq!(canonical_statement(both), "\"a\"\n{\"id\":\"b\"}");
        assert_eq!(canonical_statement(Statement { json: None, ..both }), "\n{\"id\":\"b\"}");
    }

    const IDS: [[&str; 3]; 3] = [
        ["79bbae61", "fd1519bb", "0ca7d9f5"],
        ["26973076", "fd1519bb1091", "0ca7d9f55ba2"],
        ["2eb5bb8f", "fd1519bb1091d892", "0ca7d9f55ba263f2"],
    ];

    /// Another version that gives other ids would not meet this one in one register.
    #[test]
    fn ids_are_these_and_free() {
        let mint = Mint { incarnation: Incarnation([7; 16]), own_changes: 3 };
        let mut taken = BTreeSet::new();
        let mut all = Vec::new();
        for _ in 0..3 {
            let natural = mint.natural("identifier", "x", &taken);
            let content = mint.content("name", "x", &taken);
            let unique = mint.unique("name", 2, &taken);
            all.push([natural.clone(), content.clone(), unique.clone()]);
            taken.extend([natural, content, unique]);
        }
        assert_eq!(all, IDS);
        assert_eq!(
            shortest_free("0123456789abcdef", &["01234567".to_owned()].into()),
            Some("0123456789ab".to_owned())
        );
        assert_eq!(shortest_free("0123456789", &["01234567".to_owned()].into()), None);
        let other = Mint { own_changes: 4, ..mint };
        assert_ne!(other.unique("name", 2, &BTreeSet::new()), mint.unique("name", 2, &BTreeSet::new()));
    }
}
