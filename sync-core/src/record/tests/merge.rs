//! Concurrent writes: what merges, what conflicts, and what ends a conflict.

use std::num::NonZeroU64;

use automerge::{
    ExpandedChange, ScalarValue,
    legacy::{Key, ObjectId, Op, OpId, OpType, SortedVec},
};

use super::*;

const CONTACT: &str = "contact[";

fn contact_key(folded: &Folded) -> String {
    folded.conflicts.iter().map(|c| c.path.clone()).find(|p| p.starts_with(CONTACT)).unwrap()
}

#[test]
fn edits_of_different_elements_merge() {
    let mut world = World::new("Patient/p", patient());
    world.edit(0, |p| p["birthDate"] = "1971-01-01".into());
    world.edit(1, |p| p["active"] = false.into());
    world.edit(2, |p| p["contact"][0]["gender"] = "male".into());
    world.edit(3, |p| p["contact"][0]["name"]["text"] = "C".into());
    let folded = world.sync();
    let mut want = patient();
    want["birthDate"] = "1971-01-01".into();
    want["active"] = false.into();
    want["contact"][0]["gender"] = "male".into();
    want["contact"][0]["name"]["text"] = "C".into();
    assert_eq!((resource(&folded), folded.conflicts), (want, vec![]));
}

#[test]
fn different_values_conflict_and_equal_ones_do_not() {
    let mut world = World::new("Patient/p", patient());
    world.edit(0, |p| p["birthDate"] = "1971-01-01".into());
    world.edit(1, |p| p["birthDate"] = "1972-01-01".into());
    world.edit(2, |p| p["birthDate"] = "1971-01-01".into());
    let folded = world.sync();
    assert_eq!(paths(&folded), [("birthDate".to_owned(), Kind::Value)]);
    let conflict = &folded.conflicts[0];
    assert_eq!((conflict.values.len(), conflict.policy, conflict.chosen), (2, Policy::Review, 1));
    assert_eq!(resource(&folded)["birthDate"], "1971-01-01", "node 2 said so last");
    assert_eq!(conflict.values[1].incarnation, NODES[2]);

    let mut world = World::new("Patient/p", patient());
    world.edit(0, |p| p["maritalStatus"] = json!({"text": "x", "coding": []}));
    world.edit(1, |p| p["maritalStatus"] = json!({"coding": [], "text": "x"}));
    assert_eq!(world.sync().conflicts, []);
}

#[test]
fn a_value_and_its_extension_are_one_statement() {
    let mut world = World::new("Patient/p", patient());
    world.edit(0, |p| p["_birthDate"] = json!({"extension": [{"url": "urn:time", "valueTime": "10:00:00"}]}));
    world.edit(1, |p| p["birthDate"] = "1972-01-01".into());
    let folded = world.sync();
    assert_eq!(paths(&folded), [("birthDate".to_owned(), Kind::Value)]);
    assert!(folded.conflicts[0].values[0].extension.is_some());
    assert_eq!(resource(&folded).get("_birthDate"), None, "no mixture");
}

#[test]
fn the_latest_phone_settles_itself() {
    let mut world = World::new("Patient/p", patient());
    world.edit(1, |p| p["telecom"][0]["value"] = "old".into());
    world.edit(0, |p| p["telecom"][0]["value"] = "new".into());
    let folded = world.sync();
    assert_eq!(folded.conflicts[0].policy, Policy::Latest);
    assert_eq!(open(&folded.conflicts).count(), 0);
    assert_eq!(resource(&folded)["telecom"][0]["value"], "new");
}

#[test]
fn a_record_deleted_here_and_edited_there_survives_whole_and_marked() {
    for deletion_first in [true, false] {
        let mut world = World::new("Patient/p", patient());
        if deletion_first {
            world.delete(0);
        }
        world.edit(1, |p| p["gender"] = "other".into());
        if !deletion_first {
            world.delete(0);
        }
        let folded = world.sync();
        assert_eq!(paths(&folded), [("#state".to_owned(), Kind::Deletion)]);
        let conflict = &folded.conflicts[0];
        assert_eq!((conflict.chosen, conflict.policy), (0, Policy::Review));
        assert!(conflict.values[0].value.is_some() && conflict.values[1].value.is_none());
        let mut want = patient();
        want["gender"] = "other".into();
        assert_eq!(resource(&folded), want);

        let mut kept = World { nodes: world.nodes.clone(), wall: world.wall };
        kept.resolve(2, "#state", Choice::Take(1));
        let folded = kept.sync();
        assert_eq!((resource(&folded), folded.conflicts), (want, vec![]));
        world.resolve(2, "#state", Choice::Delete);
        assert_eq!(world.sync(), Folded { deleted: true, ..Folded::default() });
    }
}

#[test]
fn an_item_deleted_here_and_edited_there_survives_whole_and_marked() {
    for deletion_first in [true, false] {
        let mut world = World::new("Patient/p", patient());
        let delete = |p: &mut Json| drop(p.as_object_mut().unwrap().remove("contact"));
        if deletion_first {
            world.edit(0, delete);
        }
        world.edit(1, |p| p["contact"][0]["telecom"][0]["value"] = "3".into());
        if !deletion_first {
            world.edit(0, delete);
        }
        let folded = world.sync();
        let key = contact_key(&folded);
        assert_eq!(paths(&folded), [(key.clone(), Kind::Deletion)]);
        assert_eq!(folded.conflicts[0].policy, Policy::Review, "although Patient.contact is latest");
        let contact = &resource(&folded)["contact"][0];
        assert_eq!((&contact["telecom"][0]["value"], &contact["name"]["text"]), (&json!("3"), &json!("B")));
        world.resolve(3, &key, Choice::Take(2));
        let folded = world.sync();
        assert_eq!((resource(&folded).get("contact"), folded.conflicts), (None, vec![]));
    }
}

#[test]
fn an_atomic_item_deleted_here_and_edited_there_is_a_deletion_conflict() {
    let mut world = World::new("Patient/p", patient());
    world.edit(0, |p| drop(p.as_object_mut().unwrap().remove("name")));
    world.edit(1, |p| p["name"][0]["text"] = "Z".into());
    let folded = world.sync();
    assert_eq!(folded.conflicts.len(), 1);
    assert_eq!(folded.conflicts[0].kind, Kind::Deletion);
    assert_eq!(resource(&folded)["name"][0]["text"], "Z");
}

/// A contact in dispute on all nodes.
fn disputed() -> (World, String) {
    let mut world = World::new("Patient/p", patient());
    world.edit(0, |p| drop(p.as_object_mut().unwrap().remove("contact")));
    world.edit(1, |p| p["contact"][0]["gender"] = "male".into());
    let key = contact_key(&world.sync());
    (world, key)
}

#[test]
fn a_change_that_writes_nothing_shows_nothing_and_ends_no_conflict() {
    let (mut world, key) = disputed();
    world.edit(2, |p| p["gender"] = "other".into());
    world.edit(3, |p| p["gender"] = "unknown".into());
    let folded = world.sync();
    assert_eq!(paths(&folded), [(key, Kind::Deletion), ("gender".to_owned(), Kind::Value)]);
    let before = world.nodes[1].heads();
    let change = world.touch(1);
    assert_eq!(world.nodes[1].heads(), [change.hash]);
    let item = world.nodes[1].history().pop().unwrap();
    assert_eq!((item.change, item.paths), (change.hash, Vec::<String>::new()));
    assert!(before.iter().all(|head| world.nodes[1].contains(head)) && change.superseded.is_empty());
    assert_eq!(world.sync(), folded);
    let mut deleted = World::new("Patient/p", patient());
    deleted.delete(0);
    deleted.touch(0);
    assert!(deleted.sync().deleted);
}

#[test]
fn an_edit_inside_a_disputed_item_does_not_end_the_dispute() {
    let (mut world, key) = disputed();
    let change = world.edit(2, |p| p["contact"][0]["name"]["text"] = "Z".into());
    assert_eq!(change.superseded, Vec::<String>::new());
    let folded = world.sync();
    assert_eq!(paths(&folded), [(key.clone(), Kind::Deletion)]);
    assert_eq!(
        folded.conflicts[0].values[1].incarnation, NODES[0],
        "the deletion is still known for what it was"
    );
    world.edit(3, |p| p["contact"][0]["name"]["text"] = "Y".into());
    world.edit(3, |p| p["birthDate"] = "1999-09-09".into());
    assert_eq!(paths(&world.sync()), [(key.clone(), Kind::Deletion)]);
    world.resolve(0, &key, Choice::Take(1));
    let folded = world.sync();
    assert_eq!(folded.conflicts, []);
    assert_eq!(resource(&folded)["contact"][0]["name"]["text"], "Y");
}

#[test]
fn taking_a_disputed_item_away_is_reported() {
    let (mut world, key) = disputed();
    let change = world.edit(2, |p| drop(p.as_object_mut().unwrap().remove("contact")));
    assert_eq!(change.superseded, [key]);
    assert_eq!(world.sync().conflicts, []);
}

#[test]
fn a_settled_dispute_does_not_come_back() {
    let (mut world, key) = disputed();
    // Node 3 goes on carrying the dispute while node 0 settles it.
    world.edit(3, |p| p["contact"][0]["name"]["text"] = "Z".into());
    world.resolve(0, &key, Choice::Take(1));
    let late = world.nodes[3].clone();
    assert_eq!(world.sync().conflicts, []);
    world.edit(1, |p| p["contact"][0]["name"]["text"] = "Y".into());
    world.nodes[3] = late;
    world.edit(3, |p| p["contact"][0]["gender"] = "unknown".into());
    assert_eq!(world.sync().conflicts, [], "the settlement is carried too");
    // A new deletion is a new dispute, and the old one stays settled through it.
    world.edit(0, |p| drop(p.as_object_mut().unwrap().remove("contact")));
    world.edit(1, |p| p["contact"][0]["gender"] = "male".into());
    let folded = world.sync();
    assert_eq!(paths(&folded), [(key.clone(), Kind::Deletion)]);
    world.resolve(0, &key, Choice::Delete);
    assert_eq!(world.sync().conflicts, []);
    assert!(dump(&world.nodes[0]).iter().any(|(k, v)| *k == key && v[0].as_ref().unwrap().contains('!')));
}

#[test]
fn a_disputed_record_carries_its_dispute_through_every_edit() {
    let mut world = World::new("Patient/p", patient());
    world.delete(0);
    world.edit(1, |p| p["gender"] = "other".into());
    world.sync();
    for node in 0..4 {
        world.edit(node, |p| p["active"] = (node % 2 == 1).into());
        assert_eq!(paths(&world.sync()), [("#state".to_owned(), Kind::Deletion)]);
    }
    world.edit(2, |p| p["active"] = false.into());
    world.resolve(1, "#state", Choice::Take(1));
    assert_eq!(world.sync().conflicts, []);
}

#[test]
fn resolving_one_conflict_leaves_the_others() {
    let (mut world, key) = disputed();
    world.edit(0, |p| p["birthDate"] = "1971-01-01".into());
    world.edit(1, |p| p["birthDate"] = "1972-01-01".into());
    world.edit(2, |p| p["contact"][0]["name"]["text"] = "Y".into());
    world.edit(3, |p| p["contact"][0]["name"]["text"] = "Z".into());
    assert_eq!(world.sync().conflicts.len(), 3);
    world.resolve(1, "birthDate", Choice::Value("1973-01-01".into()));
    let folded = world.sync();
    assert_eq!((folded.conflicts.len(), &resource(&folded)["birthDate"]), (2, &json!("1973-01-01")));
    world.resolve(1, &format!("{key}.name"), Choice::Take(1));
    let folded = world.sync();
    assert_eq!(paths(&folded), [(key.clone(), Kind::Deletion)]);
    assert_eq!(resource(&folded)["contact"][0]["name"]["text"], "Y");
    world.resolve(1, &key, Choice::Value(json!({"gender": "female"})));
    let folded = world.sync();
    assert_eq!((&resource(&folded)["contact"], folded.conflicts), (&json!([{"gender": "female"}]), vec![]));
}

#[test]
fn different_resolutions_conflict_again_and_equal_ones_do_not() {
    let start = || {
        let mut world = World::new("Patient/p", patient());
        world.edit(0, |p| p["birthDate"] = "1971-01-01".into());
        world.edit(1, |p| p["birthDate"] = "1972-01-01".into());
        world.sync();
        world
    };
    for (first, second, conflicts) in [(1, 2, 1), (2, 1, 1), (1, 1, 0), (2, 2, 0)] {
        let mut world = start();
        world.resolve(2, "birthDate", Choice::Take(first));
        world.resolve(3, "birthDate", Choice::Take(second));
        assert_eq!(world.sync().conflicts.len(), conflicts, "{first} {second}");
    }
    for (second, conflicts) in [(Choice::Delete, 1), (Choice::Take(1), 0)] {
        let (mut world, key) = disputed();
        world.resolve(2, &key, Choice::Take(1));
        world.resolve(3, &key, second);
        assert_eq!(world.sync().conflicts.len(), conflicts);
    }
}

#[test]
fn an_edit_based_on_an_old_version_is_concurrent() {
    let mut world = World::new("Patient/p", patient());
    let version = world.nodes[0].version();
    let old = world.nodes[0].resource().unwrap();
    world.edit(0, |p| p["birthDate"] = "1971-01-01".into());
    let base = world.nodes[0].at_version(&version).unwrap();
    for (n, day) in ["1972-01-01", "1973-01-01"].into_iter().enumerate() {
        let mut stale = old.clone();
        stale["birthDate"] = day.into();
        let change = world.nodes[0].put(&stale, Some(&base), &author(0, 100)).unwrap().unwrap();
        assert_eq!(change.superseded, Vec::<String>::new());
        assert_eq!(world.nodes[0].conflicts()[0].values.len(), n + 2);
    }
    assert_eq!(world.nodes[0].resource_at(&base).unwrap(), Some(old));
    assert!(world.nodes[0].history().iter().all(|item| item.incarnation == NODES[0]));
    let change = world.edit(0, |p| p["birthDate"] = "2000-01-01".into());
    assert_eq!(change.superseded, ["birthDate"]);
    assert_eq!(world.sync().conflicts, []);
    assert_eq!(world.nodes[0].delete(Some(&base), &author(0, 100)).unwrap().map(|_| ()), Some(()));
    assert_eq!(paths(&world.sync()), [("#state".to_owned(), Kind::Deletion)]);
    assert!(matches!(world.nodes[0].at_version("0123456789abcdef"), Err(RecordError::UnknownVersion(_))));
}

#[test]
fn two_imports_of_one_resource_are_one_record() {
    let mut records: Vec<_> = (0..2).map(|_| Record::new(id("Patient/p"))).collect();
    let mut resource = patient();
    resource["name"] = json!([{"text": "A"}, {"text": "A"}, {"text": "B"}]);
    for (n, record) in records.iter_mut().enumerate() {
        let change = record.put(&resource, None, &author(n, n as i64)).unwrap().unwrap();
        assert_eq!(change.superseded, Vec::<String>::new());
    }
    let other = records[1].clone();
    let change = other.change(&other.heads()[0]).unwrap();
    assert_eq!(records[0].apply(&change), Ok(Applied::New));
    assert_eq!((records[0].resource(), records[0].conflicts()), (Some(resource), vec![]));
}

#[test]
fn two_nodes_that_add_the_same_identifier_meet_and_two_that_add_names_keep_both() {
    let mut world = World::new("Patient/p", json!({"resourceType": "Patient", "id": "p"}));
    for (node, value) in [(0, "1"), (1, "2")] {
        world.edit(node, |p| {
            p["identifier"] = json!([{"system": "urn:cccd", "value": value}]);
            p["name"] = json!([{"text": value}]);
        });
    }
    let folded = world.sync();
    assert_eq!(folded.conflicts.len(), 1);
    assert!(folded.conflicts[0].path.starts_with("identifier["));
    assert_eq!(resource(&folded)["name"].as_array().unwrap().len(), 2);
}

#[test]
fn a_deleted_item_that_is_added_again_has_nothing_of_its_past() {
    let component =
        |value: i32| json!({"code": {"coding": [{"system": "l", "code": "1"}]}, "valueInteger": value});
    let mut full = component(1);
    full["interpretation"] = json!([{"text": "high"}]);
    let start = json!({"resourceType": "Observation", "id": "o", "component": [full]});
    let mut world = World::new("Observation/o", start);
    world.edit(0, |o| drop(o.as_object_mut().unwrap().remove("component")));
    world.edit(0, |o| o["component"] = json!([component(2)]));
    let folded = world.sync();
    assert_eq!((&resource(&folded)["component"], folded.conflicts), (&json!([component(2)]), vec![]));
    world.delete(1);
    assert!(world.sync().deleted);
    world.put(2, json!({"resourceType": "Observation", "id": "o", "status": "final"}));
    let folded = world.sync();
    assert_eq!(resource(&folded), json!({"resourceType": "Observation", "id": "o", "status": "final"}));
}

#[test]
fn places_merge_and_are_no_conflict() {
    let named =
        |names: &[&str]| -> Json { names.iter().map(|n| json!({"text": n})).collect::<Vec<_>>().into() };
    let mut start = patient();
    start["name"] = named(&["a", "b", "c"]);
    let mut world = World::new("Patient/p", start);
    world.edit(0, |p| p["name"] = named(&["c", "a", "b"]));
    world.edit(1, |p| p["name"] = named(&["a", "b", "c", "d"]));
    world.edit(2, |p| p["name"] = named(&["a", "c", "b"]));
    world.edit(3, |p| p["name"] = named(&["a", "b", "c", "e"]));
    let folded = world.sync();
    assert_eq!(folded.conflicts, []);
    let count = resource(&folded)["name"].as_array().unwrap().len();
    assert_eq!(count, 5);
    world.edit(0, |p| p["name"].as_array_mut().unwrap().insert(4, json!({"text": "between"})));
    assert_eq!(resource(&world.sync())["name"][4]["text"], "between");
}

#[test]
fn an_element_written_whole_here_and_as_items_there_is_one_conflict() {
    for (choice, want) in [
        (Choice::Take(1), json!([])),
        (Choice::Take(2), json!([{"text": "Z"}])),
        (Choice::Value(json!([{"text": "Q"}])), json!([{"text": "Q"}])),
        (Choice::Value(json!([])), json!([])),
        (Choice::Delete, json!(null)),
    ] {
        let mut world = World::new("Patient/p", patient());
        world.edit(0, |p| p["name"] = json!([]));
        world.edit(1, |p| p["name"][0]["text"] = "Z".into());
        let folded = world.sync();
        assert_eq!(paths(&folded)[0], ("name".to_owned(), Kind::Value));
        assert_eq!(folded.conflicts[0].values.len(), 2);
        world.resolve(2, "name", choice);
        let folded = world.sync();
        assert_eq!(
            (resource(&folded).get("name").cloned().unwrap_or_default(), folded.conflicts),
            (want, vec![])
        );
    }
}

#[test]
fn changes_arrive_in_any_order_or_not_at_all() {
    let mut world = World::new("Patient/p", patient());
    world.edit(0, |p| p["active"] = false.into());
    let node = &world.nodes[0];
    let changes: Vec<_> = node.history().iter().map(|item| node.change(&item.change).unwrap()).collect();
    let mut late = Record::new(id("Patient/p"));
    let first = node.history()[0].change;
    assert_eq!(late.apply(&changes[1]), Ok(Applied::Waiting(vec![first])));
    assert_eq!((late.version().as_str(), late.fold()), ("", Folded::default()));
    for applied in [Applied::New, Applied::Duplicate] {
        assert_eq!(late.apply(&changes[0]), Ok(applied.clone()));
    }
    assert_eq!(late.apply(&changes[1]), Ok(Applied::New));
    assert_eq!(late.fold(), node.fold());
}

#[test]
fn a_copied_node_is_found_out_and_harms_nothing() {
    let mut world = World::new("Patient/p", patient());
    let mut copy = world.nodes[0].clone();
    world.edit(0, |p| p["active"] = false.into());
    let mut other = patient();
    other["gender"] = "other".into();
    let change = copy.put(&other, None, &author(0, 50)).unwrap().unwrap();
    let before = world.nodes[0].fold();
    let wrong = world.nodes[0].apply(&change.bytes);
    assert!(matches!(wrong, Err(RecordError::ForkedActor { incarnation, .. }) if incarnation == NODES[0]));
    assert_eq!(world.nodes[0].fold(), before);
    world.edit(1, |p| p["birthDate"] = "1999-09-09".into());
    assert_eq!(world.sync().conflicts, []);
}

#[test]
fn damaged_changes_and_snapshots_are_refused() {
    let mut record = Record::new(id("Patient/p"));
    let change = record.put(&patient(), None, &author(0, 1)).unwrap().unwrap();
    let mut fresh = Record::new(id("Patient/p"));
    for at in (0..change.bytes.len()).step_by(7) {
        let mut bytes = change.bytes.clone();
        bytes[at] ^= 0x41;
        let _ = fresh.clone().apply(&bytes).map(|_| ());
        let _ = Record::fold_genesis(&id("Patient/p"), &bytes, Policies::standard());
        assert!(fresh.apply(&bytes[..at]).is_err());
    }
    assert_eq!(fresh.apply(&change.bytes), Ok(Applied::New));
    assert!(Record::load(id("Patient/p"), b"nothing").is_err());
}

#[test]
fn a_write_must_be_about_the_record() {
    let mut record = Record::new(id("Patient/p"));
    for wrong in
        [json!({"resourceType": "Observation"}), json!({"resourceType": "Patient", "id": "q"}), json!([])]
    {
        assert!(record.put(&wrong, None, &author(0, 1)).is_err());
    }
    assert_eq!(record.delete(None, &author(0, 1)).unwrap(), None);
    assert!(matches!(record.resolve("x", Choice::Delete, &author(0, 1)), Err(RecordError::NoConflict(_))));
    let unknown = [ChangeHash([9; 32])];
    assert!(record.put(&patient(), Some(&unknown), &author(0, 1)).is_err());
    assert_eq!(record.history(), []);
}

#[test]
fn history_tells_who_changed_what() {
    let mut world = World::new("Patient/p", patient());
    world.edit(1, |p| p["contact"][0]["telecom"][0]["value"] = "9".into());
    world.edit(2, |p| p["birthDate"] = "1971-01-01".into());
    world.delete(3);
    world.sync();
    let history = world.nodes[0].history();
    assert_eq!(history, world.nodes[3].history());
    assert_eq!(history.len(), 4);
    assert_eq!(history[1].paths.len(), 1);
    assert!(history[1].paths[0].starts_with("contact[") && history[1].paths[0].contains("].telecom["));
    assert_eq!(
        (history[2].paths.as_slice(), history[3].paths.as_slice()),
        (&["birthDate".to_owned()][..], &["#state".to_owned()][..])
    );
    assert_eq!(
        (history[1].by.as_deref(), history[1].software.as_deref()),
        (Some("Practitioner/1"), Some("tuyen/0"))
    );
    assert!(history.is_sorted_by_key(|item| item.stamp));
}

#[test]
fn a_wrong_clock_does_not_make_an_edit_older_than_what_it_replaced() {
    let mut record = Record::new(id("Patient/p"));
    record.put(&patient(), None, &author(0, 5_000)).unwrap();
    let mut next = patient();
    next["active"] = false.into();
    record.put(&next, None, &author(1, -1)).unwrap();
    assert_eq!(record.latest(), Some(Stamp(5_001)));
}

#[test]
fn a_new_place_or_an_equal_write_does_not_end_a_conflict() {
    let mut start = patient();
    start["name"] = json!([{"text": "a"}, {"text": "b"}, {"text": "c"}]);
    let mut world = World::new("Patient/p", start);
    world.edit(0, |p| p["name"][0]["text"] = "y".into());
    world.edit(1, |p| p["name"][0]["text"] = "z".into());
    assert_eq!(world.sync().conflicts.len(), 1);
    let mut turned = world.nodes[2].resource().unwrap();
    turned["name"].as_array_mut().unwrap().rotate_left(1);
    turned["active"] = false.into();
    let change = world.put(2, turned).unwrap();
    assert_eq!(change.superseded, Vec::<String>::new());
    assert_eq!(world.sync().conflicts.len(), 1);
    let change = world.edit(3, |p| p["name"].as_array_mut().unwrap().retain(|n| n["text"] != "z"));
    assert_eq!(change.superseded.len(), 1, "taking it away is an answer, and is reported");
    assert_eq!(world.sync().conflicts, []);
}

#[test]
fn meta_is_merged_part_by_part() {
    let mut world = World::new("Patient/p", patient());
    world.edit(0, |p| p["meta"]["tag"] = json!([{"system": "t", "code": "a"}]));
    world.edit(1, |p| p["meta"]["tag"] = json!([{"system": "t", "code": "a"}]));
    world.edit(2, |p| p["meta"]["security"] = json!([{"system": "s", "code": "R"}]));
    world.edit(3, |p| p["meta"]["source"] = "y".into());
    let folded = world.sync();
    let meta = json!({"profile": ["urn:p"], "source": "y", "tag": [{"system": "t", "code": "a"}], "security": [{"system": "s", "code": "R"}]});
    assert_eq!((&resource(&folded)["meta"], folded.conflicts), (&meta, vec![]));
}

#[test]
fn halves_of_two_doses_never_meet() {
    let start =
        json!({"resourceType": "Observation", "id": "o", "valueQuantity": {"value": 5, "unit": "mg"}});
    let mut world = World::new("Observation/o", start);
    world.edit(0, |o| o["valueQuantity"]["value"] = 6.into());
    world.edit(1, |o| o["valueQuantity"]["unit"] = "g".into());
    let folded = world.sync();
    assert_eq!(paths(&folded), [("valueQuantity".to_owned(), Kind::Value)]);
    assert_eq!(resource(&folded)["valueQuantity"], json!({"value": 5, "unit": "g"}));
}

#[test]
fn a_register_that_a_newer_version_wrote_survives() {
    let mut record = Record::new(id("Patient/p"));
    record.put(&patient(), None, &author(0, 1)).unwrap();
    let mut newer = record.doc.clone();
    newer.set_actor(automerge::ActorId::from(NODES[1].0));
    let mut transaction = newer.transaction();
    use automerge::transaction::Transactable;
    for (key, value) in [("#later", "x"), ("novelty.part[ab]", "V|1"), ("novelty", "{}"), ("broken", "{")] {
        transaction.put(automerge::ROOT, key, value).unwrap();
    }
    transaction.put(automerge::ROOT, "counted", 7).unwrap();
    transaction.commit();
    let change = newer.get_changes(&[]).pop().unwrap();
    assert_eq!(record.apply(change.raw_bytes()), Ok(Applied::New));
    let mut want = patient();
    want["novelty"] = json!({"part": [1]});
    assert_eq!(record.resource(), Some(want.clone()));
    want["active"] = false.into();
    record.put(&want, None, &author(0, 2)).unwrap();
    assert_eq!(record.resource(), Some(want));
    assert!(dump(&record).iter().any(|(key, _)| key == "#later"));
}

#[test]
fn a_resolution_inside_an_element_meets_its_deletion() {
    for whole in [true, false] {
        let mut world = World::new("Patient/p", patient());
        world.edit(0, |p| p["contact"][0]["name"]["text"] = "Y".into());
        world.edit(1, |p| p["contact"][0]["name"]["text"] = "Z".into());
        let key = contact_key(&world.sync());
        world.resolve(2, &key, Choice::Take(1));
        if whole {
            world.delete(3);
        } else {
            world.edit(3, |p| drop(p.as_object_mut().unwrap().remove("contact")));
        }
        let folded = world.sync();
        let path = if whole { "#state" } else { key.trim_end_matches(".name") };
        assert_eq!(paths(&folded), [(path.to_owned(), Kind::Deletion)]);
        assert_eq!(resource(&folded)["contact"][0]["name"]["text"], "Y");
    }
}

#[test]
fn a_compressed_change_is_refused() {
    let mut record = Record::new(id("Patient/p"));
    let long = json!({"resourceType": "Patient", "id": "p", "text": "a".repeat(10_000)});
    let change = record.put(&long, None, &author(0, 1)).unwrap().unwrap();
    let mut parsed = Change::try_from(&change.bytes[..]).unwrap();
    let compressed = parsed.bytes().into_owned();
    assert!(compressed.len() < 1_000);
    let refused = Err(RecordError::Change(id("Patient/p")));
    assert_eq!(Record::new(id("Patient/p")).apply(&compressed), refused);
    let folded = Record::fold_genesis(&id("Patient/p"), &compressed, Policies::standard());
    assert_eq!(folded.map(drop), refused.map(drop));
}

#[test]
fn a_record_is_deleted_when_nobody_says_otherwise() {
    let mut world = World::new("Patient/p", patient());
    assert!(!Record::new(id("Patient/p")).is_deleted() && !world.nodes[0].is_deleted());
    world.delete(0);
    assert!(world.nodes[0].is_deleted());
    world.edit(1, |patient| patient["gender"] = "other".into());
    world.sync();
    assert!(!world.nodes[0].is_deleted());
}

#[test]
fn debug_shows_nothing_clinical() {
    let mut world = World::new("Patient/p", patient());
    let change = world.edit(0, |patient| patient["gender"] = "other".into());
    let record = &world.nodes[0];
    assert_eq!(format!("{record:?}"), format!("Record(Patient/p, [{:?}])", change.hash));
    let folded = record.fold();
    let bytes = folded.resource.as_ref().unwrap().len();
    let answers = [Choice::Take(2), Choice::Value("secret".into()), Choice::Delete];
    assert_eq!(format!("{answers:?}"), "[Take(2), Value, Delete]");
    assert_eq!(format!("{folded:?}"), format!("Folded(Some({bytes}) bytes, [], deleted: false)"));
}

#[test]
fn every_answer_can_be_taken_and_items_keep_their_places() {
    let identifier = |n: usize, value: &str| json!({"system": format!("s{n}"), "value": value});
    let start = json!({
        "resourceType": "Patient", "id": "p", "gender": "male",
        "identifier": [identifier(1, "1"), identifier(2, "2"), identifier(3, "3")]
    });
    let mut world = World::new("Patient/p", start);
    for (node, value) in ["a", "b", "c"].into_iter().enumerate() {
        world.edit(node, |p| {
            p["identifier"][1]["value"] = value.into();
            p["gender"] = value.into();
        });
    }
    let folded = world.sync();
    let path = paths(&folded)
        .into_iter()
        .map(|(path, _)| path)
        .find(|path| path.starts_with("identifier["))
        .unwrap();
    for (n, value) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let given = [
            ("gender", Choice::Value(value.into())),
            (&path, Choice::Value(identifier(2, value))),
            ("gender", Choice::Take(n + 1)),
            (&path, Choice::Take(n + 1)),
        ];
        for (at, choice) in given {
            if value == "d" && matches!(choice, Choice::Take(_)) {
                assert_eq!(
                    world.nodes[0].clone().resolve(at, choice, &author(0, 99)),
                    Err(RecordError::BadChoice)
                );
                continue;
            }
            let mut record = world.nodes[0].clone();
            let change = record.resolve(at, choice.clone(), &author(0, 99)).unwrap();
            assert_eq!(change.superseded, Vec::<String>::new(), "it was asked for");
            assert!(record.conflicts().iter().all(|conflict| conflict.path != at), "{at} {value}");
            assert_eq!(record.conflicts().len(), 1, "the other one stays");
            let resource = record.resource().unwrap();
            if at == "gender" {
                assert_eq!(resource["gender"], value);
            } else {
                assert_eq!(
                    resource["identifier"],
                    json!([identifier(1, "1"), identifier(2, value), identifier(3, "3")])
                );
            }
        }
    }
}

#[test]
fn a_raw_change_tells_who_made_it() {
    let mut world = World::new("Patient/p", patient());
    let change = world.edit(0, |p| p["contact"][0]["gender"] = "male".into());
    let item = read_change(&id("Patient/p"), &change.bytes).unwrap();
    assert_eq!(Some(&item), world.nodes[0].history().last());
    assert_eq!((item.by.as_deref(), item.software.as_deref()), (Some("Practitioner/1"), Some("tuyen/0")));
    assert!(matches!(&item.paths[..], [path] if path.ends_with("].gender")), "{item:?}");
    assert_eq!(read_change(&id("Patient/p"), b"nothing"), None);
}

/// First changes that this software does not make: what is read of them without a document is what the document says.
#[test]
fn a_first_change_of_any_shape_is_read_alike_with_and_without_a_document() {
    let actor = ActorId::from(NODES[0].0);
    let put = |key: &str, value: ScalarValue, over: &[u64]| Op {
        action: OpType::Put(value),
        obj: ObjectId::Root,
        key: Key::Map(key.into()),
        pred: over.iter().map(|n| OpId(*n, actor.clone())).collect::<SortedVec<_>>(),
        insert: false,
    };
    let text = |key: &str, text: &str, over: &[u64]| put(key, text.into(), over);
    let live = text("#state", "live", &[]);
    let mut read = 0;
    for operations in [
        vec![live.clone(), text("status", "\"a\"", &[])],
        vec![live.clone(), text("status", "\"a\"", &[]), text("status", "\"b\"", &[])],
        vec![
            live.clone(),
            text("status", "\"a\"", &[]),
            text("status", "\"b\"", &[]),
            text("zone", "\"c\"", &[]),
        ],
        vec![live.clone(), text("status", "\"a\"", &[]), text("status", "\"b\"", &[2])],
        vec![
            live.clone(),
            text("status", "\"a\"", &[]),
            text("status", "\"b\"", &[2]),
            text("zone", "\"c\"", &[]),
        ],
        vec![live.clone(), put("status", ScalarValue::Int(1), &[])],
        vec![live.clone(), put("status", ScalarValue::Null, &[]), text("zone", "\"c\"", &[])],
        vec![text("status", "\"a\"", &[])],
        vec![text("#state", &format!("live\n?{}", "07".repeat(32)), &[]), text("status", "\"a\"", &[])],
        vec![live.clone(), put("status", ScalarValue::Int(1), &[]), text("status", "\"a\"", &[])],
        vec![live.clone(), text("status", "\"a\"", &[]), put("status", ScalarValue::Int(1), &[])],
    ] {
        let change = Change::from(ExpandedChange {
            operations,
            actor_id: actor.clone(),
            hash: None,
            seq: 1,
            start_op: NonZeroU64::MIN,
            time: 1,
            message: None,
            deps: Vec::new(),
            extra_bytes: Vec::new(),
            author: None,
        });
        let mut record = Record::new(id("Basic/x"));
        let applied = record.apply(change.raw_bytes());
        let quick = Record::fold_genesis(&id("Basic/x"), change.raw_bytes(), Policies::standard());
        assert_eq!(applied.is_ok(), quick.is_ok());
        if let Ok(folded) = quick {
            assert_eq!(folded, record.fold());
            assert!(folded.resource.is_none_or(|resource| resource.contains("Basic")));
            read += 1;
        }
    }
    assert!(read > 3, "{read} are changes at all");
}

#[test]
fn an_answer_is_checked_and_taken_apart_like_any_other_value() {
    let (mut world, key) = disputed();
    let deep = (0..80).fold(json!(1), |inner, _| json!([inner]));
    for wrong in [json!(null), json!([{"gender": "male"}]), json!({ "gender": deep })] {
        let answer = world.nodes[1].resolve(&key, Choice::Value(wrong.clone()), &author(1, 99));
        assert_eq!(answer, Err(RecordError::BadChoice), "{wrong}");
    }
    world.resolve(1, &key, Choice::Value(json!({"gender": "female", "name": {"text": "B"}})));
    assert_eq!(world.sync().conflicts, []);
    world.edit(0, |p| p["contact"][0]["gender"] = "other".into());
    world.edit(1, |p| p["contact"][0]["name"]["text"] = "C".into());
    let folded = world.sync();
    assert_eq!(
        (&resource(&folded)["contact"], folded.conflicts),
        (&json!([{"gender": "other", "name": {"text": "C"}}]), vec![])
    );
}

#[test]
fn a_whole_resource_can_be_the_answer_to_whether_a_record_is_deleted() {
    let mut world = World::new("Patient/p", patient());
    world.delete(0);
    world.edit(1, |p| p["gender"] = "other".into());
    assert_eq!(paths(&world.sync()), [("#state".to_owned(), Kind::Deletion)]);
    let answer = |value: Json, world: &mut World| {
        world.nodes[2].resolve("#state", Choice::Value(value), &author(2, 99))
    };
    let other = json!({"resourceType": "Patient", "id": "q"});
    assert_eq!(answer(other, &mut world), Err(RecordError::WrongRecord(id("Patient/p"))));
    assert_eq!(answer(json!("x"), &mut world), Err(RecordError::BadResource));
    let right = json!({"resourceType": "Patient", "id": "p", "gender": "female", "name": [{"text": "N"}]});
    answer(right.clone(), &mut world).unwrap();
    let folded = world.sync();
    assert_eq!((resource(&folded), folded.conflicts), (right, vec![]));
    assert!(dump(&world.nodes[0]).iter().all(|(key, _)| key != "id"), "it is the record's name");
}

#[test]
fn what_two_nodes_add_alike_to_something_empty_is_there_twice() {
    let bare = json!({"resourceType": "Patient", "id": "p"});
    let mut world = World::new("Patient/p", bare.clone());
    for node in [0, 1] {
        world.edit(node, |p| p["name"] = json!([{"text": "X"}]));
    }
    assert_eq!(resource(&world.sync())["name"], json!([{"text": "X"}, {"text": "X"}]));
    let empty = json!({"resourceType": "Encounter", "id": "p", "hospitalization": {}});
    let mut world = World::new("Encounter/p", empty);
    for node in [0, 1] {
        world.edit(node, |p| p["hospitalization"]["dietPreference"] = json!([{"text": "X"}]));
    }
    let twice = json!({"dietPreference": [{"text": "X"}, {"text": "X"}]});
    assert_eq!(resource(&world.sync())["hospitalization"], twice);
}

#[test]
fn changes_that_are_set_aside_count_among_those_of_their_run() {
    let mut world = World::new("Patient/p", patient());
    for gender in ["other", "female"] {
        world.edit(0, |p| p["gender"] = gender.into());
    }
    (0..2).for_each(|_| world.nodes[0].set_aside(NODES[0]));
    let change = world.edit(0, |p| p["gender"] = "unknown".into());
    let header = crate::change::ChangeHeader::parse(&change.bytes).unwrap();
    assert_eq!((header.origin, header.place), (NODES[0], (Some(5), 1)));
}

#[test]
fn type_and_id_are_the_records_name_and_no_elements() {
    let world = World::new("Patient/p", patient());
    let keys: Vec<_> = dump(&world.nodes[0]).into_iter().map(|(key, _)| key).collect();
    assert!(keys.contains(&"gender".to_owned()));
    assert!(!keys.contains(&"id".to_owned()) && !keys.contains(&"resourceType".to_owned()), "{keys:?}");
}

#[test]
fn a_write_that_only_takes_items_away_meets_a_deletion_of_the_record() {
    let mut start = patient();
    start["name"] = json!([{"text": "A"}, {"text": "B"}]);
    let mut world = World::new("Patient/p", start);
    world.edit(1, |p| p["name"] = json!([{"text": "A", "use": "usual"}, {"text": "B", "use": "old"}]));
    world.edit(0, |p| p["name"] = "X".into());
    let folded = world.sync();
    assert_eq!(resource(&folded)["name"], "X");
    assert!(paths(&folded).contains(&("name".to_owned(), Kind::Value)));
    world.put(2, resource(&folded)).expect("the items go");
    world.delete(3);
    assert_eq!(paths(&world.sync()), [("#state".to_owned(), Kind::Deletion)]);
}

#[test]
fn an_edit_of_one_of_two_shapes_is_reported() {
    let start = json!({"resourceType": "Encounter", "id": "p", "hospitalization": {"dietPreference": [{"text": "X"}]}});
    let mut world = World::new("Encounter/p", start);
    world.edit(0, |p| p["hospitalization"] = "none".into());
    world.edit(1, |p| p["hospitalization"]["dietPreference"] = json!([{"text": "Y"}]));
    let folded = world.sync();
    assert_eq!(resource(&folded)["hospitalization"], json!({"dietPreference": [{"text": "Y"}]}));
    assert_eq!(paths(&folded), [("hospitalization".to_owned(), Kind::Value)]);
    let change = world.edit(2, |p| p["hospitalization"]["dietPreference"] = json!([{"text": "Z"}]));
    assert_eq!(change.superseded, ["hospitalization"]);
    assert_eq!(world.sync().conflicts, []);
}

/// Also when the element was taken apart and is one statement since.
#[test]
fn a_settled_dispute_does_not_come_back_over_another_shape() {
    let start = json!({"resourceType": "Encounter", "id": "p", "hospitalization": {"dietPreference": [{"text": "X"}]}});
    for kept in [false, true] {
        let mut world = World::new("Encounter/p", start.clone());
        world.edit(0, |p| drop(p.as_object_mut().unwrap().remove("hospitalization")));
        world.edit(1, |p| p["hospitalization"]["dietPreference"] = json!([{"text": "Y"}]));
        if kept {
            world.edit(2, |p| p["hospitalization"] = "none".into());
        }
        let folded = world.sync();
        let values = &folded.conflicts[0].values;
        assert!(values.last().unwrap().value.is_none(), "the deletion is disputed");
        let none = values.iter().position(|arm| arm.value == Some("none".into()));
        world.resolve(0, "hospitalization", Choice::Take(none.unwrap_or(0) + 1));
        if !kept {
            world.edit(0, |p| p["hospitalization"] = "none".into());
        }
        // Who has not heard of it carries the dispute on.
        world.put(3, json!({"resourceType": "Encounter", "id": "p", "hospitalization": {"dietPreference": [{"text": "Z"}]}}));
        let folded = world.sync();
        assert_eq!(paths(&folded), [("hospitalization".to_owned(), Kind::Value)]);
        let said: Vec<_> = folded.conflicts[0].values.iter().map(|arm| arm.value.clone()).collect();
        let parts = json!({"dietPreference": [{"text": "Z"}]});
        assert_eq!(said, [Some("none".into()), Some(parts)], "kept: {kept}");
    }
}
