//! Choice elements: different forms of one element, written at the same time, are one question.

use super::*;

fn observation(more: Json) -> Json {
    let mut observation = json!({"resourceType": "Observation", "id": "o", "status": "final"});
    observation.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    observation
}

/// Four nodes with an observation.
fn world(more: Json) -> World {
    World::new("Observation/o", observation(more))
}

fn values(folded: &Folded, n: usize) -> Vec<(Option<String>, Option<Json>)> {
    folded.conflicts[n].values.iter().map(|arm| (arm.form.clone(), arm.value.clone())).collect()
}

fn form(name: &str, value: impl Into<Json>) -> (Option<String>, Option<Json>) {
    (Some(name.to_owned()), Some(value.into()))
}

const DELETED: (Option<String>, Option<Json>) = (None, None);

/// A clinic says a text while the hub says false.
fn disputed() -> (World, Folded) {
    let mut world = world(json!({}));
    world.edit(0, |o| o["valueString"] = "positive".into());
    world.edit(1, |o| o["valueBoolean"] = false.into());
    let folded = world.sync();
    (world, folded)
}

#[test]
fn two_forms_written_at_once_are_one_question_and_one_of_them_is_shown() {
    let (_, folded) = disputed();
    assert_eq!(paths(&folded), [("value[x]".to_owned(), Kind::Value)]);
    assert_eq!(values(&folded, 0), [form("valueString", "positive"), form("valueBoolean", false)]);
    assert_eq!((folded.conflicts[0].chosen, folded.conflicts[0].policy), (1, Policy::Review));
    assert_eq!(resource(&folded), observation(json!({"valueBoolean": false})));
}

#[test]
fn every_choice_of_the_resource_and_of_its_parts_is_one() {
    for (id, start, forms, path) in [
        (
            "Patient/p",
            json!({}),
            [("deceasedBoolean", json!(true)), ("deceasedDateTime", json!("2026-01-01"))],
            "deceased[x]",
        ),
        (
            "MedicationRequest/m",
            json!({}),
            [
                ("medicationReference", json!({"reference": "Medication/a"})),
                ("medicationCodeableConcept", json!({"text": "b"})),
            ],
            "medication[x]",
        ),
        (
            "Observation/o",
            json!({}),
            [("effectiveDateTime", json!("2026-01-01")), ("effectivePeriod", json!({"start": "2026"}))],
            "effective[x]",
        ),
    ] {
        let mut whole = start;
        let named = super::id(id);
        (whole["resourceType"], whole["id"]) = (named.resource_type().into(), named.id().into());
        let mut world = World::new(id, whole);
        for (node, (name, value)) in forms.iter().enumerate() {
            world.edit(node, |j| j[*name] = value.clone());
        }
        let folded = world.sync();
        assert_eq!(paths(&folded), [(path.to_owned(), Kind::Value)]);
        let shown = resource(&folded);
        assert_eq!((shown.get(forms[0].0), &shown[forms[1].0]), (None, &forms[1].1));
    }
    let code = json!({"coding": [{"system": "l", "code": "1"}]});
    let mut world = world(json!({"component": [{"code": code}]}));
    world.edit(1, |o| o["component"][0]["valueInteger"] = 1.into());
    world.edit(0, |o| o["component"][0]["valueQuantity"] = json!({"value": 2}));
    let folded = world.sync();
    let path = &folded.conflicts[0].path;
    assert!(path.starts_with("component[") && path.ends_with("].value[x]"), "{path}");
    assert_eq!(values(&folded, 0), [form("valueInteger", 1), form("valueQuantity", json!({"value": 2}))]);
    let component = json!([{"code": code, "valueQuantity": {"value": 2}}]);
    assert_eq!(resource(&folded)["component"], component);
    world.resolve(2, path, Choice::Take(1));
    let folded = world.sync();
    let component = json!([{"code": code, "valueInteger": 1}]);
    assert_eq!((&resource(&folded)["component"], folded.conflicts), (&component, vec![]));
}

#[test]
fn elements_that_only_look_like_forms_are_none() {
    for (id, names) in [
        ("Task/t", ["instantiatesCanonical", "instantiatesUri"]),
        ("ChargeItem/c", ["definitionCanonical", "definitionUri"]),
        ("SubstanceSpecification/s", ["amountString", "amountType"]),
        ("Observation/o", ["valueNonsense", "valueString"]),
        ("Observation/o", ["status", "statusString"]),
        ("Unheard/u", ["valueBoolean", "valueString"]),
    ] {
        let named = super::id(id);
        let mut world = World::new(id, json!({"resourceType": named.resource_type(), "id": named.id()}));
        for (node, name) in names.iter().enumerate() {
            world.edit(node, |j| j[*name] = "x".into());
        }
        let folded = world.sync();
        assert_eq!(folded.conflicts, [], "{names:?}");
        assert!(names.iter().all(|name| resource(&folded)[*name] == "x"), "{names:?}");
    }
}

#[test]
fn the_order_of_arrival_does_not_matter() {
    let (world, folded) = disputed();
    let history = world.nodes[0].history();
    let changes: Vec<_> = history.iter().map(|item| world.nodes[0].change(&item.change).unwrap()).collect();
    for order in [[0, 1, 2], [0, 2, 1]] {
        let mut late = Record::new(id("Observation/o"));
        order.iter().for_each(|n| assert_eq!(late.apply(&changes[*n]), Ok(Applied::New)));
        assert_eq!(late.fold(), folded);
        assert_eq!(Record::load(id("Observation/o"), &late.save()).unwrap().fold(), folded);
    }
}

#[test]
fn at_equal_stamps_the_smallest_hash_is_shown() {
    let mut world = world(json!({}));
    let mut changes = Vec::new();
    for (node, (name, value)) in [("valueString", json!("a")), ("valueInteger", json!(1))].iter().enumerate()
    {
        let mut resource = world.nodes[node].resource().unwrap();
        resource[*name] = value.clone();
        let change = world.nodes[node].put(&resource, None, &author(node, 100)).unwrap().unwrap();
        changes.push((change.hash, *name));
    }
    changes.sort();
    let shown = resource(&world.sync());
    assert!(shown.get(changes[0].1).is_some() && shown.get(changes[1].1).is_none());
}

#[test]
fn what_one_writer_has_put_into_one_resource_stays() {
    let both = observation(json!({"valueString": "positive", "valueBoolean": false}));
    let mut world = World::new("Observation/o", both.clone());
    assert_eq!((resource(&world.sync()), world.sync().conflicts), (both.clone(), vec![]));
    // Also when one of the two is edited, or added, by somebody who knows of the other.
    world.edit(1, |o| o["valueString"] = "negative".into());
    world.edit(2, |o| o["status"] = "amended".into());
    let folded = world.sync();
    assert_eq!(folded.conflicts, []);
    assert_eq!(
        (&resource(&folded)["valueString"], &resource(&folded)["valueBoolean"]),
        (&"negative".into(), &false.into())
    );
    world.edit(3, |o| o["valueInteger"] = 1.into());
    assert_eq!(world.sync().conflicts, []);
    // But not when the two of them are edited at the same time.
    world.edit(0, |o| o["valueInteger"] = 2.into());
    world.edit(1, |o| o["valueString"] = "x".into());
    let folded = world.sync();
    assert_eq!(paths(&folded), [("value[x]".to_owned(), Kind::Value)]);
    assert_eq!(folded.conflicts[0].values.len(), 3);
}

#[test]
fn two_imports_of_one_resource_with_two_forms_are_one_record() {
    let both = observation(json!({"valueString": "positive", "valueBoolean": false}));
    let mut records: Vec<_> = (0..2).map(|_| Record::new(id("Observation/o"))).collect();
    for (n, record) in records.iter_mut().enumerate() {
        record.put(&both, None, &author(n, n as i64)).unwrap();
    }
    let change = records[1].change(&records[1].heads()[0]).unwrap();
    assert_eq!(records[0].apply(&change), Ok(Applied::New));
    // Nobody has seen the other, but nobody contradicts the other either.
    assert_eq!((records[0].resource(), records[0].conflicts()), (Some(both), vec![]));
}

#[test]
fn an_edit_of_one_form_and_its_replacement_by_another_are_one_question() {
    let mut world = world(json!({"valueString": "a"}));
    world.edit(0, |o| o["valueString"] = "b".into());
    world.edit(2, |o| o["valueString"] = "c".into());
    world.edit(1, |o| {
        o.as_object_mut().unwrap().remove("valueString");
        o["valueQuantity"] = json!({"value": 1.0});
    });
    let folded = world.sync();
    assert_eq!(paths(&folded), [("value[x]".to_owned(), Kind::Value)]);
    let all =
        [form("valueString", "b"), form("valueString", "c"), form("valueQuantity", json!({"value": 1.0}))];
    assert_eq!(values(&folded, 0), all, "to put one form in the place of another deletes nothing");
    for (n, (name, value)) in all.iter().enumerate() {
        let mut world = World { nodes: world.nodes.clone(), wall: world.wall };
        world.resolve(3, "value[x]", Choice::Take(n + 1));
        let folded = world.sync();
        let want = observation(json!({name.as_deref().unwrap(): value}));
        assert_eq!((resource(&folded), folded.conflicts), (want, vec![]));
    }
}

#[test]
fn a_replacement_of_one_form_alone_is_no_conflict() {
    let mut world = world(json!({"valueString": "a"}));
    let replace = |o: &mut Json| {
        o.as_object_mut().unwrap().remove("valueString");
        o["valueInteger"] = 1.into();
    };
    world.edit(0, replace);
    world.edit(1, |o| o["status"] = "amended".into());
    world.edit(2, replace);
    let folded = world.sync();
    assert_eq!((&resource(&folded)["valueInteger"], folded.conflicts), (&1.into(), vec![]));
    world.edit(3, |o| o["valueInteger"] = 2.into());
    assert_eq!(world.sync().conflicts, []);
}

#[test]
fn a_deletion_against_a_replacement_by_another_form_is_a_conflict() {
    for choice in [1, 2] {
        let mut world = world(json!({"valueString": "a"}));
        world.edit(0, |o| drop(o.as_object_mut().unwrap().remove("valueString")));
        world.edit(1, |o| {
            o.as_object_mut().unwrap().remove("valueString");
            o["valueInteger"] = 1.into();
        });
        let folded = world.sync();
        assert_eq!(paths(&folded), [("value[x]".to_owned(), Kind::Deletion)]);
        assert_eq!(values(&folded, 0), [form("valueInteger", 1), DELETED]);
        assert_eq!(resource(&folded)["valueInteger"], 1);
        world.resolve(2, "value[x]", Choice::Take(choice));
        let folded = world.sync();
        let shown = resource(&folded).get("valueInteger").cloned();
        assert_eq!((shown, folded.conflicts), ((choice == 1).then(|| 1.into()), vec![]));
    }
}

#[test]
fn a_resolution_leaves_one_form_and_ends_the_conflict_everywhere() {
    for (choice, want) in [
        (Choice::Take(1), json!({"valueString": "positive"})),
        (Choice::Take(2), json!({"valueBoolean": false})),
        (Choice::Delete, json!({})),
        (Choice::Value(json!({"valueBoolean": true})), json!({"valueBoolean": true})),
        (Choice::Value(json!({"valueBoolean": false})), json!({"valueBoolean": false})),
        (Choice::Value(json!({"valueInteger": 1})), json!({"valueInteger": 1})),
        (Choice::Value(json!({"valueQuantity": {}})), json!({"valueQuantity": {}})),
        (Choice::Value(json!({"_valueString": {"id": "x"}})), json!({"_valueString": {"id": "x"}})),
    ] {
        let (mut world, _) = disputed();
        let change = world.resolve(2, "value[x]", choice);
        assert_eq!(change.superseded, Vec::<String>::new());
        let folded = world.sync();
        let left =
            want.as_object().unwrap().keys().next().map(|name| name.trim_start_matches('_').to_owned());
        assert_eq!((resource(&folded), folded.conflicts), (observation(want), vec![]));
        for (key, texts) in dump(&world.nodes[3]).iter().filter(|(key, _)| key.starts_with("value")) {
            assert_eq!(texts != &[None], left.as_ref() == Some(key), "{key}: the other forms are deleted");
        }
    }
}

#[test]
fn a_value_of_a_form_that_had_two_of_them_is_an_answer_alone() {
    let mut world = world(json!({"valueString": "a"}));
    world.edit(0, |o| o["valueString"] = "b".into());
    world.edit(1, |o| o["valueString"] = "c".into());
    world.edit(2, |o| {
        o.as_object_mut().unwrap().remove("valueString");
        o["valueInteger"] = 1.into();
    });
    assert_eq!(values(&world.sync(), 0).len(), 3);
    let change = world.resolve(3, "value[x]", Choice::Value(json!({"valueString": "d"})));
    assert_eq!(change.superseded, Vec::<String>::new());
    let folded = world.sync();
    assert_eq!((resource(&folded), folded.conflicts), (observation(json!({"valueString": "d"})), vec![]));
}

#[test]
fn an_answer_names_the_form_that_it_is() {
    let (mut world, _) = disputed();
    for wrong in [
        json!(true),
        json!({}),
        json!({"status": "final"}),
        json!({"valueBoolean": null}),
        json!({"valueBoolean": [true]}),
        json!({"valueNonsense": 1}),
        json!({"valueBoolean": true, "valueString": "x"}),
        json!({"valueBoolean": true, "status": "x"}),
    ] {
        let answer = world.nodes[1].resolve("value[x]", Choice::Value(wrong.clone()), &author(1, 99));
        assert_eq!(answer, Err(RecordError::BadForm), "{wrong}");
    }
    for wrong in [0, 3] {
        let answer = world.nodes[1].resolve("value[x]", Choice::Take(wrong), &author(1, 99));
        assert_eq!(answer, Err(RecordError::BadChoice));
    }
    let answer = world.nodes[1].resolve("valueString", Choice::Take(1), &author(1, 99));
    assert!(matches!(answer, Err(RecordError::NoConflict(_))));
    assert_eq!(world.sync().conflicts.len(), 1);
}

#[test]
fn different_resolutions_conflict_again_and_equal_ones_do_not() {
    for (first, second, conflicts) in [(1, 2, 1), (2, 1, 1), (1, 1, 0), (2, 2, 0)] {
        let (mut world, _) = disputed();
        world.resolve(2, "value[x]", Choice::Take(first));
        world.resolve(3, "value[x]", Choice::Take(second));
        let folded = world.sync();
        assert_eq!(folded.conflicts.len(), conflicts, "{first} {second}");
        if conflicts > 0 {
            assert_eq!(folded.conflicts[0].values.len(), 2, "{first} {second}");
        }
    }
    let (mut world, _) = disputed();
    world.resolve(2, "value[x]", Choice::Delete);
    world.resolve(3, "value[x]", Choice::Take(1));
    assert_eq!(paths(&world.sync()), [("value[x]".to_owned(), Kind::Deletion)]);
}

#[test]
fn an_edit_elsewhere_and_a_repetition_of_what_is_shown_settle_nothing() {
    let (mut world, before) = disputed();
    let change = world.edit(2, |o| o["status"] = "amended".into());
    assert_eq!(change.superseded, Vec::<String>::new());
    let folded = world.sync();
    assert_eq!(values(&folded, 0), values(&before, 0));
    assert_eq!(resource(&folded), {
        let mut want = observation(json!({"valueBoolean": false}));
        want["status"] = "amended".into();
        want
    });
    assert_eq!(world.put(3, resource(&folded)), None);
}

#[test]
fn a_write_of_another_value_over_it_settles_it_and_says_so() {
    let settle = |value: Json| {
        let (mut world, _) = disputed();
        let change = world.put(2, observation(value.clone())).unwrap();
        assert_eq!(change.superseded, ["value[x]"], "{value}");
        let folded = world.sync();
        assert_eq!((resource(&folded), folded.conflicts), (observation(value), vec![]));
    };
    settle(json!({"valueBoolean": true}));
    settle(json!({"valueString": "positive"}));
    settle(json!({"valueInteger": 1}));
    settle(json!({}));
    settle(json!({"valueString": "positive", "valueBoolean": false}));
    settle(json!({"valueBoolean": false, "valueInteger": 1}));
    // An answer that repeats a value that was there is one still, for who has not heard of it.
    let (mut world, _) = disputed();
    world.put(2, observation(json!({"valueString": "positive"}))).unwrap();
    world.edit(3, |o| o["valueBoolean"] = true.into());
    let folded = world.sync();
    assert_eq!(values(&folded, 0), [form("valueString", "positive"), form("valueBoolean", true)]);
    assert_eq!(folded.conflicts[0].values[0].incarnation, NODES[2]);
}

#[test]
fn the_extension_of_a_form_goes_with_it() {
    let mut world = world(json!({}));
    world.edit(0, |o| {
        o["valueString"] = "positive".into();
        o["_valueString"] = json!({"id": "x"});
    });
    world.edit(1, |o| o["valueBoolean"] = false.into());
    let folded = world.sync();
    assert_eq!(folded.conflicts[0].values[0].extension, Some(json!({"id": "x"})));
    assert_eq!(resource(&folded), observation(json!({"valueBoolean": false})));
    world.resolve(3, "value[x]", Choice::Take(1));
    let both = json!({"valueString": "positive", "_valueString": {"id": "x"}});
    assert_eq!(resource(&world.sync()), observation(both));
}

#[test]
fn a_write_from_an_older_version_meets_the_form_that_came_since() {
    let mut world = world(json!({}));
    let base = world.nodes[0].heads();
    world.edit(0, |o| o["valueString"] = "positive".into());
    let other = observation(json!({"valueBoolean": false}));
    world.nodes[0].put(&other, Some(&base), &author(0, 99)).unwrap().unwrap();
    let folded = world.sync();
    assert_eq!(paths(&folded), [("value[x]".to_owned(), Kind::Value)]);
    assert_eq!(resource(&folded), other);
}

#[test]
fn a_deletion_of_what_is_around_hides_it() {
    let (mut world, _) = disputed();
    world.delete(2);
    assert!(world.sync().deleted);
    world.put(3, observation(json!({"valueInteger": 1})));
    let folded = world.sync();
    assert_eq!((resource(&folded), folded.conflicts), (observation(json!({"valueInteger": 1})), vec![]));
}
