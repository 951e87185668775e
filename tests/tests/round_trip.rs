//! JSON in equals JSON out: real resources are imported at a leaf, travel over two hops, and come out at the root
//! as they went in, with every digit of every number.

use std::{collections::BTreeMap, path::Path, time::Instant};

use node::fhir::{
    import::{Importer, Item},
    population::Population,
};
use serde_json::Value;
use sync_core::{attachment::INLINE_MAX_BYTES, id::RecordId};
use tuyen_tests::{
    cluster::{Country, org, record, wait_equal},
    run::tuyen,
};

/// Bytes of JSON in one request.
const CHUNK_BYTES: usize = 8 << 20;

/// Sends resources in, and compares what comes out with the last version of each.
fn comes_out_as_it_went_in(what: &str, items: impl Iterator<Item = (RecordId, Value)>) {
    let country = Country::new();
    let mut expected: BTreeMap<RecordId, Value> = BTreeMap::new();
    let (mut chunk, mut bytes, mut total, mut count) = (Vec::new(), 0, 0, 0);
    let began = Instant::now();
    for (id, resource) in items {
        let text = resource.to_string();
        (bytes, total, count) = (bytes + text.len(), total + text.len(), count + 1);
        chunk.push(text);
        expected.insert(id, without_white_space(resource));
        if bytes > CHUNK_BYTES {
            country.leaf.put(std::mem::take(&mut chunk));
            bytes = 0;
        }
    }
    country.leaf.put(chunk);
    let imported = began.elapsed();
    let entries = country.leaf.status().entries;
    wait_equal(&country.all(), entries);
    country.leaf.wait_safe();
    let arrived = began.elapsed();
    let mut found = 0;
    for text in tuyen(&country.root.dir, &["records", "export"], b"").expect(0).out.lines() {
        let resource: Value = node::fhir::json::parse(text.as_bytes()).unwrap();
        let field = |name: &str| resource[name].as_str().unwrap();
        let id = record(&format!("{}/{}", field("resourceType"), field("id")));
        // Numbers are compared as text; the order of keys is not.
        let went_in = &expected[&id];
        assert!(resource == *went_in, "{id} has changed:\n{went_in}\nwent in,\n{resource}\ncame out");
        found += 1;
    }
    assert_eq!(found, expected.len());
    println!(
        "{what}: {count} resources ({found} records, {entries} entries), {total} B of JSON; imported in {:.1} s, at \
         the root and folded after {:.1} s, {} B sent by the leaf, {} B by the hub",
        imported.as_secs_f64(),
        arrived.as_secs_f64(),
        country.leaf.status().sent_bytes,
        country.hub.status().sent_bytes,
    );
}

/// Of a large Binary the content comes out; white space in its base64, which FHIR allows, is none of it.
fn without_white_space(mut resource: Value) -> Value {
    if let Some(Value::String(data)) = resource.get_mut("data")
        && data.len() > 2 * INLINE_MAX_BYTES as usize
    {
        data.retain(|letter| letter != ' ');
    }
    resource
}

fn file_comes_out(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(name);
    if !path.exists() {
        println!("{} IS NOT HERE: GENERATED RECORDS ARE TESTED IN ITS PLACE", path.display());
        let all = Population::records(9, &org("dong-van"), 2_000);
        let named = |one: Value| {
            let field = |name: &str| one[name].as_str().unwrap().to_owned();
            (record(&format!("{}/{}", field("resourceType"), field("id"))), one)
        };
        return comes_out_as_it_went_in("generated", all.map(named));
    }
    let items = Importer::open(&path).map(|item| {
        let Item { id, resource, .. } = item.unwrap_or_else(|rejected| panic!("{rejected}"));
        (id, resource)
    });
    comes_out_as_it_went_in(name, items);
}

#[test]
fn every_example_of_hl7() {
    file_comes_out("hl7-r4-examples.ndjson");
}

#[test]
fn every_resource_of_synthea() {
    file_comes_out("synthea");
}
