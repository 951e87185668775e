//! Real and hostile resources: what goes in comes out, and every pair of versions has a difference that leads
//! from one to the other.

use std::{collections::BTreeMap, fs, path::Path};

use super::*;

/// The data that lies beside the project. Where it is missing, resources of this file's own making stand in.
pub(super) fn real_resources() -> Vec<Json> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let root = if root.exists() { root } else { std::env::var_os("TUYEN_DATA").map_or(root, Into::into) };
    let mut all = generated();
    match fs::read_to_string(root.join("hl7-r4-examples.ndjson")) {
        Ok(text) => all.extend(text.lines().map(|line| serde_json::from_str::<Json>(line).unwrap())),
        Err(_) => {
            eprintln!("\n*** {} IS ABSENT: going on with generated resources only ***\n", root.display())
        }
    }
    let mut bundles: Vec<_> =
        fs::read_dir(root.join("synthea")).into_iter().flatten().flatten().map(|e| e.path()).collect();
    bundles.sort();
    for path in bundles {
        let bundle: Json = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        all.extend(bundle["entry"].as_array().unwrap().iter().map(|entry| entry["resource"].clone()));
    }
    all
}

fn generated() -> Vec<Json> {
    let mut all = vec![patient()];
    for n in 0..20 {
        let mut observation = json!({
            "resourceType": "Observation", "id": format!("o{n}"), "status": "final",
            "code": {"coding": [{"system": "http://loinc.org", "code": "85354-9"}]},
            "_effectiveDateTime": {"extension": [{"url": "urn:why", "valueCode": "unknown"}]},
            "component": [
                {"code": {"coding": [{"system": "http://loinc.org", "code": "8480-6"}]}, "valueQuantity": {"value": 120}},
                {"code": {"coding": [{"system": "http://loinc.org", "code": "8462-4"}]}, "interpretation": [{"text": "N"}]}
            ]
        });
        observation["component"][0]["valueQuantity"]["value"] =
            serde_json::from_str(&format!("{n}.{n}0")).unwrap();
        all.push(observation);
    }
    all
}

pub(super) fn named(resource: &Json) -> RecordId {
    // One of HL7's examples has an id that FHIR itself does not allow.
    let of = |id: &str| RecordId::new(resource["resourceType"].as_str().unwrap(), id);
    of(resource["id"].as_str().unwrap_or("x")).or_else(|_| of("x")).unwrap()
}

pub(super) fn with_id(mut resource: Json, id: &RecordId) -> Json {
    resource["id"] = id.id().into();
    resource
}

#[test]
fn every_resource_comes_back_as_it_went_in() {
    let all = real_resources();
    for resource in &all {
        let id = named(resource);
        let resource = with_id(resource.clone(), &id);
        let mut record = Record::new(id.clone());
        let change = record.put(&resource, None, &author(0, 1)).unwrap().unwrap();
        assert_eq!(record.resource().as_ref(), Some(&resource), "{id}");
        assert_eq!(
            record.put(&resource, None, &author(0, 2)).unwrap(),
            None,
            "{id}: a PUT that changes nothing"
        );
        let folded = Record::fold_genesis(&id, &change.bytes, Policies::standard()).unwrap();
        assert_eq!(folded, record.fold());
        assert_eq!(Record::load(id, &record.save()).unwrap().fold(), folded);
    }
    println!("{} resources", all.len());
}

#[test]
fn any_version_leads_to_any_other() {
    let mut by_type: BTreeMap<String, Vec<Json>> = BTreeMap::new();
    for resource in real_resources() {
        by_type.entry(resource["resourceType"].as_str().unwrap().to_owned()).or_default().push(resource);
    }
    let mut pairs = 0;
    for (resource_type, resources) in by_type {
        let id = RecordId::new(&resource_type, "same").unwrap();
        let mut record = Record::new(id.clone());
        for (n, resource) in resources.iter().take(60).enumerate() {
            if n % 10 == 0 {
                record = Record::new(id.clone());
            }
            let target = with_id(resource.clone(), &id);
            let other = record.clone();
            if let Some(change) = record.put(&target, None, &author(n % 2, n as i64)).unwrap() {
                let mut other = other;
                assert_eq!(other.apply(&change.bytes), Ok(Applied::New));
                assert_eq!(other.fold(), record.fold());
            }
            assert_eq!(record.resource().as_ref(), Some(&target), "{resource_type} {n}");
            assert_eq!(record.conflicts(), []);
            pairs += 1;
        }
    }
    println!("{pairs} steps");
}

fn number() -> impl Strategy<Value = Json> {
    let texts = [
        "0",
        "-0",
        "80.00",
        "80.0",
        "1e5",
        "1E-7",
        "-1.50e+300",
        "1e400",
        "123456789012345678901234567890",
        "0.1000000000000000055511151231257827",
    ];
    prop::sample::select(texts.to_vec()).prop_map(|text| serde_json::from_str(text).unwrap())
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => prop::sample::select(vec!["contact", "_contact", "telecom", "name", "_name", "meta", "id", "_id", "x", "_x", "__x", "text", "link", "resource"]).prop_map(str::to_owned),
        1 => prop::sample::select(vec!["", "_", "#state", "a.b", "a[1]", "x|y", "%", "%41", "ngày", "\n", "resourceType2"]).prop_map(str::to_owned),
        1 => any::<String>(),
    ]
}

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        number(),
        any::<String>().prop_map(Json::from),
        prop::sample::select(vec!["-", "live", "a|b", "_x\n?y", ""]).prop_map(Json::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Json::from),
            prop::collection::vec((name(), inner), 0..5)
                .prop_map(|members| Json::Object(members.into_iter().collect())),
        ]
    })
}

fn any_resource() -> impl Strategy<Value = Json> {
    prop::collection::vec((name(), any_json()), 0..8).prop_map(|members| {
        let mut map: serde_json::Map<_, _> = members.into_iter().collect();
        map.insert("resourceType".into(), "Patient".into());
        map.insert("id".into(), "p".into());
        Json::Object(map)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn any_object_comes_back_and_leads_to_any_other(versions in prop::collection::vec(any_resource(), 1..4)) {
        let mut record = Record::new(id("Patient/p"));
        for (n, version) in versions.iter().enumerate() {
            record.put(version, None, &author(0, n as i64)).unwrap();
            prop_assert_eq!(record.resource(), Some(version.clone()));
            prop_assert!(record.put(version, None, &author(0, 0)).unwrap().is_none());
        }
        prop_assert!(record.conflicts().is_empty());
        record.delete(None, &author(0, 9)).unwrap();
        prop_assert_eq!(record.fold(), Folded { deleted: true, ..Folded::default() });
        record.put(&versions[0], None, &author(0, 9)).unwrap();
        prop_assert_eq!(record.resource(), Some(versions[0].clone()));
    }

    #[test]
    fn concurrent_versions_merge_alike_in_any_order(versions in prop::collection::vec(any_resource(), 2..6), order in any::<u64>()) {
        let mut world = World::new("Patient/p", versions[0].clone());
        for (n, version) in versions.iter().enumerate().skip(1) {
            let node = n % 4;
            world.put(node, version.clone());
            if order >> n & 1 == 1 {
                world.pull((n + 1) % 4, node);
            }
        }
        let folded = world.sync();
        prop_assert_eq!(shuffled(&world.nodes[0], order), folded.clone());
        let text = folded.resource.unwrap();
        prop_assert!(serde_json::from_str::<Json>(&text).is_ok());
        let paths: Vec<_> = folded.conflicts.iter().map(|c| c.path.clone()).collect();
        for (n, path) in paths.iter().enumerate() {
            if !world.nodes[n % 4].conflicts().iter().any(|c| c.path == *path) {
                continue; // Inside an element that an earlier answer took away.
            }
            let take = Choice::Take(1 + (order as usize >> n) % 2);
            world.resolve(n % 4, path, take);
            prop_assert!(!world.nodes[n % 4].conflicts().iter().any(|c| c.path == *path));
            world.sync();
        }
    }
}

/// The same changes, each twice, in another order; what has to wait is tried again.
fn shuffled(record: &Record, seed: u64) -> Folded {
    let mut waiting: Vec<_> =
        record.history().iter().map(|item| record.change(&item.change).unwrap()).collect();
    waiting.extend(waiting.clone());
    let mut fresh = Record::new(record.id.clone());
    let mut random = seed | 1;
    while !waiting.is_empty() {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let change = waiting.swap_remove((random >> 33) as usize % waiting.len());
        if let Applied::Waiting(_) = fresh.apply(&change).unwrap() {
            waiting.push(change);
        }
    }
    assert_eq!(fresh.heads(), record.heads());
    fresh.fold()
}

#[test]
fn numbers_keep_their_digits() {
    let text = r#"{"resourceType":"Observation","id":"o","valueQuantity":{"value":80.00},"x":[1.10,-0,12345678901234567890123]}"#;
    let mut record = Record::new(id("Observation/o"));
    record.put(&serde_json::from_str(text).unwrap(), None, &author(0, 1)).unwrap();
    assert_eq!(record.fold().resource.as_deref(), Some(text));
    // The digits of an exponent form stay; serde_json itself writes its letter small and its sign out.
    assert_eq!(serde_json::from_str::<Json>("1.50E5").unwrap().to_string(), "1.50e+5");
    let other: Json = serde_json::from_str(&text.replace("80.00", "80.0")).unwrap();
    assert!(record.put(&other, None, &author(0, 2)).unwrap().is_some());
}
