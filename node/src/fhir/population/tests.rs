use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use super::{edit::*, tables::BIRTH_CODES, *};
use crate::fhir::import::{Format, Importer};

fn org(name: &str) -> OrgId {
    OrgId::new(name).unwrap()
}

fn records(count: usize) -> Vec<Value> {
    Population::records(7, &org("dong-van"), count).collect()
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let digest = |seed, place: &str| {
        let mut all = Sha256::new();
        Population::records(seed, &org(place), 1000).for_each(|r| all.update(r.to_string()));
        data_encoding::HEXLOWER.encode(&all.finalize())
    };
    assert_eq!(digest(7, "dong-van"), digest(7, "dong-van"));
    assert_ne!(digest(7, "dong-van"), digest(8, "dong-van"));
    assert_ne!(digest(7, "dong-van"), digest(7, "meo-vac"));
    // Changing what is made changes benchmarks: do it on purpose, and write the new digest here.
    assert_eq!(digest(7, "dong-van"), "545d2fba982333a95488b0dce6f22b0bdc66d04e3c5fd3ad123eba8ac4e6d160");
    assert_eq!(records(100), records(1000)[..100]);
}

#[test]
fn every_record_can_be_imported_and_comes_back_the_same() {
    let all = records(2000);
    let lines: String = all.iter().map(|r| format!("{r}\n")).collect();
    assert!(!lines.chars().any(|c| ('\u{300}'..='\u{36F}').contains(&c)), "all text is composed (NFC)");
    let mut ids = BTreeSet::new();
    let found = Importer::from_reader("population", std::io::Cursor::new(lines), Format::Ndjson);
    for (item, record) in found.map(Result::unwrap).zip(&all) {
        assert_eq!(item.resource.to_string(), record.to_string());
        // References lead to what came before.
        for owner in ["subject", "patient", "encounter"] {
            if let Some(reference) = record[owner]["reference"].as_str() {
                assert!(ids.contains(reference), "{reference}");
            }
        }
        assert!(ids.insert(item.id.to_string()));
    }
    assert_eq!(ids.len(), 2000);
}

#[test]
fn sizes_and_shares_are_like_real_data() {
    let mut sizes: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for record in records(20_000) {
        sizes
            .entry(record["resourceType"].as_str().unwrap().into())
            .or_default()
            .push(record.to_string().len());
    }
    let mean = |name: &str| sizes[name].iter().sum::<usize>() / sizes[name].len();
    for (name, of) in &sizes {
        eprintln!("{name}: {}, {} B", of.len(), mean(name));
    }
    assert!((15_200..=16_800).contains(&sizes["Observation"].len()));
    assert!((1_350..=1_750).contains(&mean("Patient")), "{}", mean("Patient"));
    assert!((1_000..=1_250).contains(&mean("Observation")), "{}", mean("Observation"));
    let types = [
        "AllergyIntolerance",
        "Condition",
        "Encounter",
        "Flag",
        "MedicationRequest",
        "Observation",
        "Patient",
    ];
    assert!(sizes.keys().eq(types));
}

#[test]
fn numbers_of_identity_have_their_structure_and_differ() {
    let mut seen = BTreeSet::new();
    for place in ["dong-van", "meo-vac", "ha-giang"] {
        for patient in Population::patients(1, &org(place)).take(5000) {
            let cccd = patient["identifier"][0]["value"].as_str().unwrap();
            let born = patient["birthDate"].as_str().unwrap();
            let digit = u8::from(patient["gender"] == "female") + 2 * u8::from(born.starts_with("20"));
            assert!(cccd.len() == 12 && cccd.bytes().all(|b| b.is_ascii_digit()), "{cccd}");
            assert!(BIRTH_CODES.contains(&&cccd[..3]));
            assert_eq!(cccd[3..6], format!("{digit}{}", &born[2..4]));
            let bhyt = patient["identifier"][1]["value"].as_str().unwrap();
            assert!(bhyt.len() == 15 && bhyt[2..].bytes().all(|b| b.is_ascii_digit()), "{bhyt}");
            assert!(seen.insert(cccd.to_owned()) && seen.insert(bhyt.to_owned()));
            let name = patient["name"][0]["text"].as_str().unwrap();
            let middle = patient["name"][0]["given"][0].as_str().unwrap();
            assert!(middle != "Thị" || patient["gender"] == "female", "{name}");
        }
    }
    assert_eq!(BIRTH_CODES.len(), 63);
}

#[test]
fn decimals_keep_their_digits() {
    let text: String = records(3000).iter().map(Value::to_string).collect();
    assert!(text.contains(r#""value":5.60,"#) && text.contains(r#""value":5.00,"#));
}

#[test]
fn an_edit_changes_what_it_names_and_only_that() {
    let all = records(3000);
    let differing = |a: &Value, b: &Value| -> Vec<String> {
        let (a, b) = (a.as_object().unwrap(), b.as_object().unwrap());
        a.keys().filter(|k| a[*k] != b[*k]).cloned().collect()
    };
    let check = |edit: fn(&Value, u64) -> Option<Value>, element: &str, kind: &str| {
        let mut edited = 0;
        for record in &all {
            let Some(changed) = edit(record, 3) else { continue };
            edited += 1;
            assert_eq!(record["resourceType"], kind);
            assert_eq!(differing(record, &changed), [element]);
            assert_ne!(changed, edit(&changed, 3).unwrap(), "the value that is there is never chosen");
            assert_ne!(edit(record, 10), edit(record, 12), "different numbers, different values");
        }
        assert!(edited > 10, "{kind}");
    };
    check(edit_phone, "telecom", "Patient");
    check(edit_blood_pressure, "component", "Observation");
    check(edit_dose, "dosageInstruction", "MedicationRequest");
}
