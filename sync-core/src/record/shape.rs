//! The shape of a resource: which of its elements become registers of their own, and what each one says.
//!
//! Arrays are recognized in the JSON itself, elements that are taken apart by the table of BackboneElements. What
//! has an irregular shape (an empty array, an array in an array, a value and its primitive extensions that do
//! not pair up) is one statement, so any JSON object comes back as it went in.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::{
    backbone::Place,
    key::STEPS_MAX,
    payload::{DEPTH_MAX, PRESENT},
};

/// The wanted elements of a resource or of one of its parts, by name.
pub(super) type Fields<'j> = BTreeMap<&'j str, Field<'j>>;

/// One element: a value and its primitive extension (`birthDate` and `_birthDate` are one statement).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Statement<'j> {
    pub json: Option<&'j Json>,
    pub sibling: Option<&'j Json>,
}

/// What one register, or one element with its registers, shall say.
#[derive(Debug)]
pub(super) enum Want<'j> {
    /// One statement.
    Whole(Statement<'j>),
    /// An element that is taken apart.
    Parts(Statement<'j>, Fields<'j>),
}

/// What an element shall be.
#[derive(Debug)]
pub(super) enum Field<'j> {
    /// One register.
    One(Want<'j>),
    /// Items.
    Many(Vec<Want<'j>>),
}

impl<'j> Want<'j> {
    /// The JSON that this was made from.
    pub fn statement(&self) -> Statement<'j> {
        match self {
            Want::Whole(statement) | Want::Parts(statement, _) => *statement,
        }
    }
}

fn is_shallow(json: &Json, depth_max: usize) -> bool {
    match json {
        Json::Array(items) => depth_max > 0 && items.iter().all(|j| is_shallow(j, depth_max - 1)),
        Json::Object(map) => depth_max > 0 && map.values().all(|j| is_shallow(j, depth_max - 1)),
        _ => true,
    }
}

/// Whether the resource is shallow enough to be kept.
pub(super) fn fits(json: &Json) -> bool {
    is_shallow(json, DEPTH_MAX)
}

/// The shape of a whole resource; its type and id are not part of it, they are the record's name.
pub(super) fn resource<'j>(map: &'j Map<String, Json>, place: Place) -> Fields<'j> {
    fields(map, place, 1, &["resourceType", "id"])
}

/// The shape of some elements of a resource, none of which is taken apart.
pub(super) fn members(map: &Map<String, Json>) -> Fields<'_> {
    fields(map, Place::resource(""), 1, &[])
}

fn fields<'j>(map: &'j Map<String, Json>, place: Place, depth: usize, without: &[&str]) -> Fields<'j> {
    let mut statements: BTreeMap<&str, Statement<'j>> = BTreeMap::new();
    for (name, json) in map {
        match name.strip_prefix('_') {
            Some(name) => statements.entry(name).or_default().sibling = Some(json),
            None if without.contains(&name.as_str()) => {}
            None => statements.entry(name).or_default().json = Some(json),
        }
    }
    let inner = |name: &str| if depth < STEPS_MAX { place.element(name) } else { None };
    statements.into_iter().map(|(name, statement)| (name, field(statement, inner(name), depth))).collect()
}

/// The shape of one element, `depth` steps below the resource.
pub(super) fn field(statement: Statement<'_>, place: Option<Place>, depth: usize) -> Field<'_> {
    match items(statement) {
        Some(items) => Field::Many(items.into_iter().map(|item| want(item, place, depth)).collect()),
        None => Field::One(want(statement, place, depth)),
    }
}

/// The shape of one register's value.
pub(super) fn want(statement: Statement<'_>, place: Option<Place>, depth: usize) -> Want<'_> {
    match (statement, place) {
        (Statement { json: Some(Json::Object(map)), sibling: None }, Some(place)) => {
            Want::Parts(statement, fields(map, place, depth + 1, &[]))
        }
        // The text of an empty object is also that of an element whose registers are elsewhere.
        (Statement { json: Some(Json::Object(map)), sibling: None }, None) if map.is_empty() => {
            Want::Parts(statement, Fields::new())
        }
        _ => Want::Whole(statement),
    }
}

/// The items of a regular array; `None` for everything else.
fn items(statement: Statement<'_>) -> Option<Vec<Statement<'_>>> {
    let values = statement.json?.as_array().filter(|values| !values.is_empty())?;
    let Some(siblings) = statement.sibling else {
        let regular = values.iter().all(Json::is_object) || values.iter().all(is_scalar);
        return regular.then(|| values.iter().map(|j| Statement { json: Some(j), sibling: None }).collect());
    };
    let siblings = siblings.as_array().filter(|s| s.len() == values.len() && !s.iter().all(Json::is_null))?;
    let pair = |(value, sibling): (_, _)| {
        let some = |j| Some(j).filter(|j: &&Json| !j.is_null());
        let (json, sibling) = (some(value), some(sibling));
        let regular = json.is_none_or(is_scalar) && sibling.is_none_or(Json::is_object);
        (regular && json.or(sibling).is_some()).then_some(Statement { json, sibling })
    };
    values.iter().zip(siblings).map(pair).collect()
}

fn is_scalar(json: &Json) -> bool {
    matches!(json, Json::Bool(_) | Json::Number(_) | Json::String(_))
}

impl Want<'_> {
    /// The compact text of both halves of the register's own value.
    pub fn text(&self) -> (String, Option<String>) {
        match self {
            Want::Parts(..) => (PRESENT.to_owned(), None),
            Want::Whole(s) => {
                (s.json.map(Json::to_string).unwrap_or_default(), s.sibling.map(Json::to_string))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn so_deep_a_resource_fits() {
        let nested = |depth: usize, object: bool| {
            (0..depth)
                .fold(json!(1), |inner, _| if object { json!({ "a": inner }) } else { json!([inner, 2]) })
        };
        for object in [false, true] {
            assert!(fits(&nested(DEPTH_MAX, object)) && !fits(&nested(DEPTH_MAX + 1, object)));
            assert!(is_shallow(&json!(1), 0) && !is_shallow(&nested(1, object), 0));
        }
    }

    /// How many items a value has with its primitive extension; none when it is one statement.
    #[test]
    fn what_is_regular_has_items() {
        for (value, sibling, count) in [
            (json!([1, "a", true]), None, Some(3)),
            (json!([{}, {"a": 1}]), None, Some(2)),
            (json!([1, {}]), None, None),
            (json!([1, null]), None, None),
            (json!([[1]]), None, None),
            (json!([]), None, None),
            (json!("a"), None, None),
            (json!(["a", null]), Some(json!([null, {"id": "x"}])), Some(2)),
            (json!(["a", "b"]), Some(json!([{"id": "x"}, null])), Some(2)),
            (json!(["a", "b"]), Some(json!([null, null])), None),
            (json!(["a", null]), Some(json!([{"id": "x"}, null])), None),
            (json!(["a"]), Some(json!([{"id": "x"}, {"id": "y"}])), None),
            (json!([{}]), Some(json!([{"id": "x"}])), None),
            (json!(["a"]), Some(json!(["x"])), None),
            (json!(["a"]), Some(json!({"id": "x"})), None),
        ] {
            let statement = Statement { json: Some(&value), sibling: sibling.as_ref() };
            assert_eq!(items(statement).map(|items| items.len()), count, "{value} {sibling:?}");
        }
    }

    #[test]
    fn an_empty_object_is_one_that_is_taken_apart() {
        let (empty, full) = (json!({}), json!({"a": 1}));
        for (statement, text) in [
            (Statement { json: Some(&empty), sibling: None }, ("{}", None)),
            (Statement { json: Some(&full), sibling: None }, ("{\"a\":1}", None)),
            (Statement { json: Some(&full), sibling: Some(&empty) }, ("{\"a\":1}", Some("{}"))),
            (Statement { json: None, sibling: Some(&full) }, ("", Some("{\"a\":1}"))),
        ] {
            let want = want(statement, None, 1);
            let (json, sibling) = want.text();
            assert_eq!((json.as_str(), sibling.as_deref()), text);
            assert_eq!(want.statement(), statement);
            assert_eq!(matches!(want, Want::Parts(..)), statement.json == Some(&empty));
        }
    }
}
