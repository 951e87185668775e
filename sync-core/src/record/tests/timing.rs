//! How long things take. Not tests: they are run on demand, with
//! `cargo test --release -p tuyen-sync-core --lib -- --ignored --nocapture --test-threads 1 timings`.
#![expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "a measurement reads the clock")]

use super::{
    data::{named, real_resources, with_id},
    *,
};

#[test]
#[ignore = "a measurement"]
fn timings() {
    let resources: Vec<_> = real_resources()
        .into_iter()
        .filter(|r| {
            matches!(r["resourceType"].as_str(), Some("Patient" | "Observation" | "Encounter" | "Condition"))
        })
        .take(6000)
        .collect();
    let bytes: usize = resources.iter().map(|r| r.to_string().len()).sum();
    let clock = std::time::Instant::now;
    let report = |what: &str, from: std::time::Instant| {
        println!("{what:28} {:7.1} µs", from.elapsed().as_secs_f64() * 1e6 / resources.len() as f64)
    };
    println!("{} resources, {} B on average", resources.len(), bytes / resources.len());
    let (mut records, mut changes) = (Vec::new(), Vec::new());
    let start = clock();
    for resource in &resources {
        let id = named(resource);
        let mut record = Record::new(id.clone());
        changes.push(record.put(&with_id(resource.clone(), &id), None, &author(0, 1)).unwrap().unwrap());
        records.push(record);
    }
    report("create (put)", start);
    println!(
        "raw change {} B on average",
        changes.iter().map(|c| c.bytes.len()).sum::<usize>() / changes.len()
    );
    let start = clock();
    for (record, change) in records.iter().zip(&changes) {
        Record::fold_genesis(&record.id, &change.bytes, Policies::standard()).unwrap();
    }
    report("fold_genesis", start);
    let start = clock();
    for record in &records {
        assert!(record.fold().resource.is_some());
    }
    report("fold a warm document", start);
    let start = clock();
    let snapshots: Vec<_> = records.iter().map(Record::save).collect();
    report("save", start);
    println!("snapshot {} B on average", snapshots.iter().map(Vec::len).sum::<usize>() / snapshots.len());
    let start = clock();
    let mut loaded: Vec<_> =
        records.iter().zip(&snapshots).map(|(r, s)| Record::load(r.id.clone(), s).unwrap()).collect();
    report("load", start);
    let start = clock();
    let edits: Vec<_> = records
        .iter_mut()
        .map(|record| {
            let mut resource = record.resource().unwrap();
            resource["language"] = "vi".into();
            record.put(&resource, None, &author(1, 2)).unwrap().unwrap()
        })
        .collect();
    report("read, edit one field, put", start);
    println!(
        "one-field change {} B on average",
        edits.iter().map(|c| c.bytes.len()).sum::<usize>() / edits.len()
    );
    let start = clock();
    for (record, edit) in loaded.iter_mut().zip(&edits) {
        assert_eq!(record.apply(&edit.bytes), Ok(Applied::New));
    }
    report("apply one edit", start);
    let start = clock();
    for record in &records {
        std::hint::black_box(record.clone());
    }
    report("clone", start);
    let start = clock();
    for (record, change) in records.iter().zip(&changes) {
        let mut fresh = Record::new(record.id.clone());
        fresh.apply(&change.bytes).unwrap();
        std::hint::black_box(fresh);
    }
    report("apply a first change", start);
}

#[test]
#[ignore = "a measurement"]
fn timings_of_a_long_history() {
    let mut record = Record::new(id("Patient/p"));
    record.put(&patient(), None, &author(0, 1)).unwrap();
    for n in 0..200 {
        let mut next = patient();
        next["birthDate"] = format!("19{:02}-01-01", n % 100).into();
        let start = std::time::Instant::now();
        record.put(&next, None, &author(n % 4, n as i64)).unwrap();
        if n % 40 == 39 {
            let put = start.elapsed();
            let start = std::time::Instant::now();
            record.fold();
            println!(
                "{n:4} changes: put {put:?}, fold {:?}, save {} B",
                start.elapsed(),
                record.save().len()
            );
        }
    }
}
