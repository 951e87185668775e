//! Two clinicians who disagree: every node lists the same, the record stays usable, and a decision made anywhere
//! holds everywhere.

use node::admin::{Choice, ConflictLine, Listing, Request};
use serde_json::{Value, json, value::RawValue};
use tuyen_tests::cluster::{Country, wait_equal, wait_for};

const PATIENT: &str = "Patient/nguyen-van-a";

/// What two nodes have to agree on; everything of a conflict.
fn text(conflicts: &[ConflictLine]) -> String {
    serde_json::to_string_pretty(conflicts).unwrap()
}

/// A country that has heard everything: the same list everywhere, with so many open conflicts.
fn same_list(country: &Country, entries: u64, open: usize) -> Vec<ConflictLine> {
    wait_equal(&country.all(), entries);
    let mut lists = country.all().map(|node| node.conflicts());
    assert_eq!(lists[0].len(), open, "{}", text(&lists[0]));
    assert_eq!(text(&lists[0]), text(&lists[1]));
    assert_eq!(text(&lists[0]), text(&lists[2]));
    for status in country.all().map(|node| node.status()) {
        assert_eq!(status.conflicts, open as u64, "{}", status.org);
    }
    std::mem::take(&mut lists[0])
}

fn values(conflict: &ConflictLine) -> Vec<Option<Value>> {
    conflict.values.iter().map(|v| v.value.as_ref().map(|v| serde_json::from_str(v.get()).unwrap())).collect()
}

fn authors(conflict: &ConflictLine) -> Vec<(Option<&str>, Option<&str>)> {
    conflict.values.iter().map(|v| (v.org.as_ref().map(|org| org.as_str()), v.by.as_deref())).collect()
}

fn country_with_patient() -> Country {
    let country = Country::new();
    let patient = json!({
        "resourceType": "Patient", "id": "nguyen-van-a", "gender": "male", "birthDate": "1970-01-01",
        "name": [{"family": "Nguyễn", "given": ["Văn", "A"]}], "telecom": [{"system": "phone", "value": "054 1"}],
    });
    country.leaf.write(&patient, None, "bs. Lan");
    wait_equal(&country.all(), 1);
    country
}

/// The leaf is cut off while both do something; gives how many entries there are then.
fn apart(country: &Country, at_leaf: impl FnOnce(), at_hub: impl FnOnce()) {
    country.leaf.pause();
    wait_for("cut off", &[&country.hub], |all| all[0].down.iter().all(|link| link.state != "connected"));
    at_leaf();
    at_hub();
    country.leaf.resume();
}

#[test]
fn the_same_element_edited_on_both_sides_is_shown_and_settled_once_for_all() {
    let country = country_with_patient();
    let (leaf, hub) = (&country.leaf, &country.hub);
    apart(
        &country,
        || drop(leaf.edit(PATIENT, "bs. Lan", |p| p["birthDate"] = "1970-10-01".into())),
        || drop(hub.edit(PATIENT, "bs. Hùng", |p| p["birthDate"] = "1971-01-01".into())),
    );
    let open = same_list(&country, 3, 1);
    assert_eq!(
        (open[0].path.as_str(), open[0].kind.as_str(), open[0].state.as_str()),
        ("birthDate", "value", "open")
    );
    assert_eq!(values(&open[0]), [Some("1970-10-01".into()), Some("1971-01-01".into())]);
    assert_eq!(
        authors(&open[0]),
        [(Some("dong-van"), Some("bs. Lan")), (Some("ha-giang"), Some("bs. Hùng"))]
    );
    assert_eq!(leaf.get(PATIENT).conflicts, 1, "the record stays usable, and says so");

    hub.resolve(&open[0], Choice::Take(1), "bs. Hùng");
    same_list(&country, 4, 0);
    let list = Request::List { resource_type: None, unread: false, after: None, limit: 10 };
    let listed: Listing = leaf.ask(&list);
    assert_eq!(listed.records[0].safe, "hub", "what came down from the hub is durable there");
    for node in country.all() {
        assert_eq!(node.value(PATIENT)["birthDate"], "1970-10-01");
    }
}

#[test]
fn different_elements_merge_and_a_phone_settles_itself() {
    let country = country_with_patient();
    let (leaf, hub) = (&country.leaf, &country.hub);
    let phone = |n: &str| json!([{"system": "phone", "value": n}]);
    apart(
        &country,
        || drop(leaf.edit(PATIENT, "bs. Lan", |p| p["gender"] = "other".into())),
        || drop(hub.edit(PATIENT, "bs. Hùng", |p| p["birthDate"] = "1971-01-01".into())),
    );
    same_list(&country, 3, 0);
    for node in country.all() {
        let patient = node.value(PATIENT);
        assert_eq!((&patient["gender"], &patient["birthDate"]), (&"other".into(), &"1971-01-01".into()));
    }
    apart(
        &country,
        || drop(leaf.edit(PATIENT, "bs. Lan", |p| p["telecom"] = phone("054 2"))),
        || drop(hub.edit(PATIENT, "bs. Hùng", |p| p["telecom"] = phone("054 3"))),
    );
    same_list(&country, 5, 0);
    let shown = country.root.value(PATIENT);
    assert_eq!(country.leaf.value(PATIENT), shown);
    assert_eq!(country.hub.value(PATIENT), shown);
}

#[test]
fn a_deletion_against_an_edit_shows_and_the_edit_survives() {
    let country = country_with_patient();
    let (leaf, hub) = (&country.leaf, &country.hub);
    apart(
        &country,
        || drop(leaf.delete(PATIENT, "bs. Lan")),
        || drop(hub.edit(PATIENT, "bs. Hùng", |p| p["birthDate"] = "1971-01-01".into())),
    );
    let open = same_list(&country, 3, 1);
    assert_eq!((open[0].path.as_str(), open[0].kind.as_str()), ("#state", "deletion"));
    assert!(values(&open[0]).contains(&None));
    for node in country.all() {
        assert_eq!(node.value(PATIENT)["birthDate"], "1971-01-01", "the edit survives");
        assert_eq!(node.status().records, 1);
    }
    let deletion = values(&open[0]).iter().position(Option::is_none).unwrap() + 1;
    country.root.resolve(&open[0], Choice::Take(deletion), "bs. Mai");
    same_list(&country, 4, 0);
    for node in country.all() {
        let status = node.status();
        assert_eq!((status.records, status.deleted), (0, 1), "{}", status.org);
    }
}

#[test]
fn two_different_resolutions_at_once_are_a_conflict_again() {
    let country = country_with_patient();
    let (leaf, hub) = (&country.leaf, &country.hub);
    apart(
        &country,
        || drop(leaf.edit(PATIENT, "bs. Lan", |p| p["birthDate"] = "1970-10-01".into())),
        || drop(hub.edit(PATIENT, "bs. Hùng", |p| p["birthDate"] = "1971-01-01".into())),
    );
    let open = same_list(&country, 3, 1);
    apart(
        &country,
        || drop(leaf.resolve(&open[0], Choice::Take(1), "bs. Lan")),
        || drop(hub.resolve(&open[0], Choice::Take(2), "bs. Hùng")),
    );
    let again = same_list(&country, 5, 1);
    assert_eq!(
        authors(&again[0]),
        [(Some("dong-van"), Some("bs. Lan")), (Some("ha-giang"), Some("bs. Hùng"))]
    );
    let value = RawValue::from_string(r#""1969-12-31""#.to_owned()).unwrap();
    country.root.resolve(&again[0], Choice::Value(value), "bs. Mai");
    same_list(&country, 6, 0);
    for node in country.all() {
        assert_eq!(node.value(PATIENT)["birthDate"], "1969-12-31");
    }
    // The same resolution made twice is one answer.
    apart(
        &country,
        || drop(leaf.edit(PATIENT, "bs. Lan", |p| p["gender"] = "female".into())),
        || drop(hub.edit(PATIENT, "bs. Hùng", |p| p["gender"] = "other".into())),
    );
    let open = same_list(&country, 8, 1);
    apart(
        &country,
        || drop(leaf.resolve(&open[0], Choice::Take(1), "bs. Lan")),
        || drop(hub.resolve(&open[0], Choice::Take(1), "bs. Hùng")),
    );
    same_list(&country, 10, 0);
}

#[test]
fn a_write_from_a_stale_version_is_a_conflict_and_not_a_loss() {
    let country = country_with_patient();
    let leaf = &country.leaf;
    let stale = leaf.get(PATIENT).version;
    let mut copy = leaf.value(PATIENT);
    leaf.edit(PATIENT, "bs. Lan", |p| p["birthDate"] = "1970-10-01".into());
    copy["birthDate"] = "1971-01-01".into();
    leaf.write(&copy, Some(&stale), "bs. Hùng");
    let open = same_list(&country, 3, 1);
    assert_eq!(values(&open[0]), [Some("1970-10-01".into()), Some("1971-01-01".into())]);
    assert_eq!(
        authors(&open[0]),
        [(Some("dong-van"), Some("bs. Lan")), (Some("dong-van"), Some("bs. Hùng"))]
    );
}

#[test]
fn two_forms_of_one_element_written_on_both_sides_are_shown_and_settled_once_for_all() {
    let country = country_with_patient();
    let (leaf, hub) = (&country.leaf, &country.hub);
    apart(
        &country,
        || drop(leaf.edit(PATIENT, "bs. Lan", |p| p["deceasedDateTime"] = "2026-11-30".into())),
        || drop(hub.edit(PATIENT, "bs. Hùng", |p| p["deceasedBoolean"] = false.into())),
    );
    let open = same_list(&country, 3, 1);
    assert_eq!((open[0].path.as_str(), open[0].kind.as_str()), ("deceased[x]", "value"));
    let forms: Vec<_> = open[0].values.iter().map(|value| value.form.as_deref()).collect();
    assert_eq!(forms, [Some("deceasedDateTime"), Some("deceasedBoolean")]);
    assert_eq!(values(&open[0]), [Some("2026-11-30".into()), Some(false.into())]);
    for node in country.all() {
        let patient = node.value(PATIENT);
        assert_eq!((patient.get("deceasedDateTime"), &patient["deceasedBoolean"]), (None, &false.into()));
    }
    let value = RawValue::from_string(r#"{"deceasedDateTime":"2026-11-29"}"#.to_owned()).unwrap();
    leaf.resolve(&open[0], Choice::Value(value), "bs. Lan");
    same_list(&country, 4, 0);
    for node in country.all() {
        let patient = node.value(PATIENT);
        assert_eq!(
            (&patient["deceasedDateTime"], patient.get("deceasedBoolean")),
            (&"2026-11-29".into(), None)
        );
    }
}
