//! Laws of records over generated and real data.
//!
//! Of random writes on nodes that do not hear of one another, and of any object that comes back, `sync_core::record`
//! has its own tests. Here are the laws of merging as such, real resources, and hostile JSON as text.

use std::{collections::BTreeMap, path::Path};

use node::fhir::{import::Importer, json, population::Population};
use proptest::prelude::*;
use serde_json::{Value, json};
use sync_core::{
    conflict::Kind,
    id::{ChangeHash, Incarnation, RecordId},
    record::{Applied, Author, Choice, Folded, Record},
};
use tuyen_tests::{conformance::org, fuzz, naive};

fn author(who: u8, wall: i64) -> Author<'static> {
    Author {
        incarnation: Incarnation([who; 16]),
        wall,
        by: Some("Practitioner/1"),
        software: "laws",
        why: None,
    }
}

/// Changes by their hashes: what a node has of a record.
type Changes = BTreeMap<ChangeHash, Vec<u8>>;

fn changes(record: &Record) -> Changes {
    let bytes = |hash: &ChangeHash| record.change(hash).expect("it is in the record");
    record.history().iter().map(|item| (item.change, bytes(&item.change))).collect()
}

/// Gives a record the changes of another, as they are there.
fn merge(into: &Record, from: &Record) -> Record {
    let mut merged = into.clone();
    for item in from.history() {
        let bytes = from.change(&item.change).expect("it is in the record");
        assert!(
            !matches!(merged.apply(&bytes), Ok(Applied::Waiting(_)) | Err(_)),
            "causes go before effects"
        );
    }
    merged
}

/// What can be told apart of a record.
fn seen(record: &Record) -> (Folded, String, Changes) {
    (record.fold(), record.version(), changes(record))
}

/// Three nodes that began with one record and wrote on, and heard of one another at times. The bytes are of the fuzz
/// target `merge`, whose steps they are.
fn nodes(bytes: &[u8]) -> Vec<Record> {
    let nodes = fuzz::merge_nodes(bytes);
    nodes.into_iter().cycle().take(3).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn merging_is_commutative_associative_and_idempotent(bytes in prop::collection::vec(any::<u8>(), 20..400)) {
        let nodes = nodes(&bytes);
        let [a, b, c] = &nodes[..] else { panic!("three nodes") };
        prop_assert!(seen(&merge(a, b)) == seen(&merge(b, a)), "commutative");
        prop_assert!(seen(&merge(&merge(a, b), c)) == seen(&merge(a, &merge(b, c))), "associative");
        prop_assert!(seen(&merge(a, a)) == seen(a), "idempotent");
        let both = merge(a, b);
        prop_assert!(seen(&merge(&both, a)) == seen(&both), "what is known adds nothing");
    }

    #[test]
    fn a_resolution_ends_the_conflict_everywhere_and_for_ever(
        bytes in prop::collection::vec(any::<u8>(), 100..400),
        answers in prop::collection::vec(any::<u8>(), 8),
    ) {
        let nodes = nodes(&bytes);
        let mut all = nodes.iter().fold(nodes[0].clone(), |all, node| merge(&all, node));
        let mut settled: Vec<(String, Kind)> = Vec::new();
        for (n, answer) in answers.iter().enumerate() {
            let conflicts = all.conflicts();
            let Some(conflict) = conflicts.first() else { break };
            let take = Choice::Take(1 + usize::from(*answer) % conflict.values.len());
            all.resolve(&conflict.path, take, &author(9, n as i64)).expect("an offered answer");
            settled.push((conflict.path.clone(), conflict.kind));
            let left = all.conflicts();
            prop_assert!(left.iter().all(|c| c.path != conflict.path), "{} is settled", conflict.path);
        }
        let listed: Vec<String> = all.conflicts().into_iter().map(|c| c.path).collect();
        // Whoever hears of it sees it ended, and whoever hears of all again as well.
        for node in &nodes {
            prop_assert!(seen(&merge(node, &all)) == seen(&all));
            prop_assert!(seen(&merge(&all, node)) == seen(&all));
        }
        // Nor does it come back when somebody who knows of it writes elsewhere.
        let mut later = merge(&nodes[1], &all);
        if let Some(mut resource) = later.resource() {
            resource["language"] = "vi".into();
            later.put(&resource, None, &author(8, 1_000)).expect("sound");
            let paths = later.conflicts().into_iter().map(|c| c.path);
            prop_assert!(paths.filter(|path| settled.iter().any(|(s, _)| s == path)).all(|path| listed.contains(&path)));
        }
    }
}

/// Real resources, or the made-up population where they are absent.
fn examples() -> Vec<(RecordId, Value)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/hl7-r4-examples.ndjson");
    if path.exists() {
        let items = Importer::open(&path).map(|item| item.unwrap_or_else(|rejected| panic!("{rejected}")));
        return items.map(|item| (item.id, item.resource)).collect();
    }
    println!("{} IS NOT HERE: GENERATED RECORDS ARE TESTED IN ITS PLACE", path.display());
    let named = |one: Value| {
        let id = format!("{}/{}", one["resourceType"].as_str().unwrap(), one["id"].as_str().unwrap());
        (id.parse().unwrap(), one)
    };
    Population::records(5, &org("dong-van"), 1_000).map(named).collect()
}

/// From any example to another of its type, to a mixture of both and back: what was wanted is what is shown, here and
/// wherever the changes arrive; and the naive model says the same.
#[test]
fn a_difference_leads_to_what_was_wanted() {
    let mut by_type: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (id, resource) in examples() {
        by_type.entry(id.resource_type().to_owned()).or_default().push(resource);
    }
    let mut steps = 0;
    for (resource_type, resources) in by_type {
        let id = RecordId::new(&resource_type, "same").unwrap();
        let named = |mut resource: Value| {
            resource["id"] = "same".into();
            resource
        };
        for pair in resources.windows(2).take(40) {
            let (first, second) = (named(pair[0].clone()), named(pair[1].clone()));
            let mixed = mixture(&first, &second);
            let (mut here, mut there) = (Record::new(id.clone()), Record::new(id.clone()));
            for (n, target) in [&first, &second, &mixed, &first, &mixed].into_iter().enumerate() {
                if let Some(change) = here.put(target, None, &author(1, n as i64)).unwrap() {
                    assert_eq!(there.apply(&change.bytes), Ok(Applied::New));
                }
                // As `Json` that this library reads: it spells exponents in its own way.
                let wanted: Value = serde_json::from_str(&target.to_string()).unwrap();
                assert!(here.resource() == Some(wanted), "{resource_type}");
                assert!(there.fold() == here.fold() && here.conflicts().is_empty(), "{resource_type}");
                steps += 1;
            }
            let all = changes(&here);
            assert_eq!(naive::compare(&id, all.values().map(Vec::as_slice), &here.fold()), Ok(()));
        }
    }
    println!("{steps} steps");
    assert!(steps > 500, "{steps} steps are too few to mean anything");
}

/// The elements of one resource and, where it has none, those of another; lists are put together in turns.
fn mixture(a: &Value, b: &Value) -> Value {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let mut mixed = b.clone();
            for (name, value) in a {
                let value = b.get(name).map_or_else(|| value.clone(), |other| mixture(value, other));
                mixed.insert(name.clone(), value);
            }
            Value::Object(mixed)
        }
        (Value::Array(a), Value::Array(b)) => b.iter().chain(a.iter().rev()).take(12).cloned().collect(),
        (a, _) => a.clone(),
    }
}

const NUMBERS: &[&str] = &[
    "1e400",
    "-0.0",
    "0.10",
    "1E+5",
    "1e-7",
    "123456789012345678901234567890",
    "0.000000000000000000000000000001",
    "-1.50E+300",
    "9007199254740993",
    "18446744073709551616",
    "80.00",
    "0",
    "-0",
    "1.0e0",
];

/// JSON texts of strings.
const STRINGS: &[&str] = &[
    r#""\u0000\u0001\u001f""#,
    r#""\n?-\r\t|_!""#,
    r#""\ud83d\ude00""#,
    "\"\u{202e}\u{2067}אבג\"",
    r#""live""#,
    r#""-""#,
    r#""a|b""#,
    r##""#state""##,
    r#""""#,
    "\"Đặng Thị Nguyệt\"",
    r#""\"\\/""#,
];

/// Keys, which can hold anything.
const KEYS: &[&str] = &[
    "value",
    "contact",
    "a.b",
    "a[1]",
    "#state",
    "%",
    "%41",
    "]",
    "x|y",
    "\\u0000",
    "\\n",
    "_x",
    "__x",
    "_",
    "",
    "ngày",
    "component",
    "\\ud83d\\ude00",
    "telecom",
    "item",
];

fn hostile() -> impl Strategy<Value = String> {
    let of = |texts: &'static [&'static str]| prop::sample::select(texts).prop_map(str::to_owned);
    let leaf = prop_oneof![
        4 => of(NUMBERS),
        4 => of(STRINGS),
        1 => Just("null".to_owned()),
        1 => Just("true".to_owned()),
        1 => any::<String>().prop_map(|text| Value::from(text).to_string()),
    ];
    leaf.prop_recursive(5, 30, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::btree_map(prop::sample::select(KEYS), inner, 0..4).prop_map(object),
        ]
    })
}

fn object(members: BTreeMap<&str, String>) -> String {
    let members: Vec<_> = members.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
    format!("{{{}}}", members.join(","))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn hostile_json_comes_out_as_it_went_in(
        kind in prop::sample::select(vec!["Patient", "Observation", "Questionnaire", "Zzz"]),
        versions in prop::collection::vec(prop::collection::btree_map(prop::sample::select(KEYS), hostile(), 0..6), 1..4),
    ) {
        let id = RecordId::new(kind, "x").unwrap();
        let mut read = Vec::new();
        for version in versions {
            let mut resource = json::parse(object(version).as_bytes()).expect("it is strict JSON");
            (resource["resourceType"], resource["id"]) = (kind.into(), "x".into());
            read.push(resource);
        }
        fuzz::goes_in_and_comes_out(&id, &read);
    }

    #[test]
    fn any_depth_comes_out_or_is_refused(depth in 1usize..90, name in prop::sample::select(vec!["item", "extension", "value"]), list: bool) {
        let (open, close) = if list { (format!("[{{\"{name}\":"), "}]") } else { (format!("{{\"{name}\":"), "}") };
        let text = format!("{{\"{name}\":{}1.0{}}}", open.repeat(depth / (1 + usize::from(list))), close.repeat(depth / (1 + usize::from(list))));
        let mut resource = json::parse(text.as_bytes()).expect("it is strict JSON");
        (resource["resourceType"], resource["id"]) = ("Questionnaire".into(), "x".into());
        fuzz::goes_in_and_comes_out(&RecordId::new("Questionnaire", "x").unwrap(), &[resource, json!({"resourceType": "Questionnaire", "id": "x"})]);
    }
}

#[test]
fn a_long_string_comes_out_as_it_went_in() {
    let id: RecordId = "DocumentReference/x".parse().unwrap();
    let version = |text: String| json!({"resourceType": "DocumentReference", "id": "x", "description": text, "content": [{"attachment": {"data": text}}]});
    fuzz::goes_in_and_comes_out(&id, &[version("Đ".repeat(50_000)), version("\u{1}\"\\".repeat(33_000))]);
}
