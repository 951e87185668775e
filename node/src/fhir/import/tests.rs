use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde_json::json;

use super::*;

fn read(text: impl Into<Vec<u8>>, format: Format) -> (Vec<Result<Item, Rejected>>, Counts) {
    let mut importer = Importer::from_reader("test", std::io::Cursor::new(text.into()), format);
    let found = importer.by_ref().collect();
    (found, importer.counts().clone())
}

fn ids(found: &[Result<Item, Rejected>]) -> Vec<&str> {
    found.iter().flatten().map(|item| item.id.as_str()).collect()
}

fn problems(found: &[Result<Item, Rejected>]) -> Vec<(Place, Problem)> {
    found.iter().filter_map(|f| f.as_ref().err()).map(|r| (r.place, r.problem.clone())).collect()
}

#[test]
fn one_bad_line_never_stops_the_rest() {
    let lines: [&[u8]; 14] = [
        b"\xEF\xBB\xBF{\"resourceType\":\"Patient\",\"id\":\"a\"}\r",
        b"",
        b"  \r",
        b"{\"resourceType\":\"Patient\",",
        b"[1]",
        b"{\"id\":\"x\"}",
        b"{\"resourceType\":\"patient\",\"id\":\"x\"}",
        b"{\"resourceType\":\"Patient\",\"id\":\"x_y\"}",
        b"{\"resourceType\":\"Patient\",\"id\":7}",
        b"{\"resourceType\":\"Patient\",\"id\":\"x\",\"id\":\"y\"}",
        b"{\"resourceType\":\"Patient\",\"id\":\"\xff\"}",
        b"{\"resourceType\":\"Patient\",\"id\":\"x\",\"gender\":\"\\ud800\"}",
        b"{\"resourceType\":\"Bundle\",\"id\":\"b\",\"type\":\"batch\",\"entry\":[]}",
        b"{\"resourceType\":\"Patient\",\"id\":\"z\"}",
    ];
    let (found, counts) = read(lines.join(&b'\n'), Format::Ndjson);
    assert_eq!(ids(&found), ["Patient/a", "Bundle/b", "Patient/z"]);
    let cut = problems(&found).remove(0);
    assert!(matches!(cut, (Place::Line(4), Problem::CutOff { line: 4, .. })), "{cut:?}");
    let rest = [
        (Place::Line(5), Problem::NotAnObject),
        (Place::Line(6), Problem::NoResourceType),
        (Place::Line(7), Problem::NoResourceType),
        (Place::Line(8), Problem::BadId),
        (Place::Line(9), Problem::BadId),
        (Place::Line(10), Problem::DuplicateKey("\"id\"".into())),
        (Place::Line(11), Problem::NotUtf8),
        (Place::Line(12), Problem::LoneSurrogate),
    ];
    assert_eq!(problems(&found)[1..], rest);
    assert_eq!((counts.sources, counts.records, counts.rejected), (1, 3, 9));
    assert_eq!(counts.by_type["Patient"], 2);
}

#[test]
fn a_message_says_where_why_and_what_to_do_and_no_value() {
    let (found, _) = read(r#"[{"resourceType":"Patient","id":"Nguyễn Văn A"}, {}]"#, Format::Json);
    let message = found[0].as_ref().unwrap_err().to_string();
    assert_eq!(
        message,
        "test, entry 1: its id is not 1 to 128 of A-Z, a-z, 0-9, '-' and '.'; \
         give it an id that FHIR allows, and change the references to it alike"
    );
}

#[test]
fn parcels_are_unpacked_in_json_and_kept_in_ndjson() {
    let parcel = json!({"resourceType": "Bundle", "id": "p", "type": "transaction", "entry": [
        {"fullUrl": "urn:uuid:0bfeda65-c8ac-4dd7-a46c-d69e665996d4",
         "resource": {"resourceType": "Patient", "active": true}},
        {"resource": {"resourceType": "Observation", "id": "o", "subject":
            {"reference": "urn:uuid:0bfeda65-c8ac-4dd7-a46c-d69e665996d4"}}},
        {"request": {"method": "DELETE", "url": "Patient/1"}},
    ]});
    let (found, counts) = read(parcel.to_string(), Format::Json);
    assert_eq!(ids(&found), ["Patient/0bfeda65-c8ac-4dd7-a46c-d69e665996d4", "Observation/o"]);
    assert_eq!(problems(&found), [(Place::Entry(3), Problem::NoResource)]);
    assert_eq!(counts.ids_were_missing, 1);
    let mut observation = parcel["entry"][1]["resource"].clone();
    observation["subject"]["reference"] = "Patient/0bfeda65-c8ac-4dd7-a46c-d69e665996d4".into();
    assert_eq!(found[1].as_ref().unwrap().resource, observation);
    assert!(!found.iter().flatten().any(|item| is_parcel(&item.resource)));
    let parcels = |text: String, format| {
        let kept = read(text, format).0.into_iter().flatten().filter(|item| is_parcel(&item.resource));
        kept.map(|item| (item.id.to_string(), item.place)).collect::<Vec<_>>()
    };
    for kind in ["transaction", "batch", "collection", "searchset", "history"] {
        let mut of_kind = parcel.clone();
        of_kind["type"] = kind.into();
        let kept = |place| [("Bundle/p".to_owned(), place)];
        assert_eq!(parcels(format!("{{}}\n{of_kind}"), Format::Ndjson), kept(Place::Line(2)), "{kind}");
        assert_eq!(parcels(json!([{}, of_kind]).to_string(), Format::Json), kept(Place::Entry(2)), "{kind}");
        let within = bundle("batch", json!([{"resource": of_kind}]));
        assert_eq!(parcels(within.to_string(), Format::Json), kept(Place::Entry(1)), "{kind}");
        of_kind["entry"] = json!([]);
        assert_eq!(parcels(of_kind.to_string(), Format::Ndjson), [], "nothing is in it");
    }
    assert_eq!(ids(&read(parcel.to_string(), Format::Ndjson).0), ["Bundle/p"]);
    assert_eq!(read(parcel.to_string(), Format::Unknown).1.records, 2);
    assert_eq!(ids(&read(format!("\n{parcel}\n\n{parcel}"), Format::Unknown).0), ["Bundle/p", "Bundle/p"]);
    let document = json!({"resourceType": "Bundle", "id": "d", "type": "document", "entry": parcel["entry"]});
    assert_eq!(ids(&read(format!("{document:#}"), Format::Unknown).0), ["Bundle/d"]);
    assert_eq!(parcels(document.to_string(), Format::Ndjson), []);
}

/// A Bundle whose entries are these.
fn bundle(kind: &str, entries: Value) -> Value {
    json!({"resourceType": "Bundle", "type": kind, "entry": entries})
}

/// About whom each is, and how many of its references are unresolved.
fn subjects(found: &[Result<Item, Rejected>]) -> Vec<(&str, u64)> {
    let items = found.iter().flatten();
    items
        .filter_map(|item| Some((item.resource["subject"]["reference"].as_str()?, item.unresolved)))
        .collect()
}

fn about(id: &str, reference: &str) -> Value {
    let resource = json!({"resourceType": "Observation", "id": id, "subject": {"reference": reference}});
    json!({"fullUrl": format!("urn:uuid:{id}"), "resource": resource})
}

#[test]
fn the_entries_of_a_bundle_refer_to_one_another_in_any_order() {
    let patient = |id: &str| json!({"resourceType": "Patient", "id": id});
    let entries = json!([
        about("o", "urn:uuid:1"),
        about("p", "https://example.org/2"),
        about("q", "urn:uuid:0bfeda65-c8ac-4dd7-a46c-d69e665996d4"),
        {"fullUrl": "https://example.org/3", "resource": {"resourceType": "Group", "n": 1.50}},
        about("r", "https://example.org/3"),
        {"fullUrl": "urn:uuid:0bfeda65-c8ac-4dd7-a46c-d69e665996d4", "resource": {"resourceType": "Patient"}},
        about("s", "urn:uuid:4"),
        {"fullUrl": "urn:uuid:1", "resource": patient("a")},
        {"fullUrl": "https://example.org/2", "resource": patient("b")},
        {"fullUrl": "urn:uuid:4", "resource": {"resourceType": "Patient", "id": "no_id"}},
    ]);
    let named = ["Patient/a", "Patient/b", "Patient/0bfeda65-c8ac-4dd7-a46c-d69e665996d4"];
    let places = [6, 8, 9, 1, 2, 3, 4, 5, 7].map(Place::Entry);
    for kind in ["transaction", "batch", "collection", "searchset"] {
        let (found, counts) = read(bundle(kind, entries.clone()).to_string(), Format::Json);
        let group = ids(&found).into_iter().find(|name| name.starts_with("Group/")).unwrap();
        let wanted = [(named[0], 0), (named[1], 0), (named[2], 0), (group, 0), ("urn:uuid:4", 1)];
        assert_eq!(subjects(&found), wanted, "{kind}");
        assert_eq!(found.iter().flatten().map(|item| item.place).collect::<Vec<_>>(), places);
        assert_eq!(
            (problems(&found), counts.ids_were_missing),
            (vec![(Place::Entry(10), Problem::BadId)], 2)
        );
    }
    // Of a history the oldest comes first, of a patient too.
    let versions = json!([{"fullUrl": "urn:uuid:1", "resource": {"resourceType": "Patient", "id": "a", "n": 2}},
        about("o", "urn:uuid:1"), {"fullUrl": "urn:uuid:1", "resource": patient("a")}]);
    let (found, _) = read(bundle("history", versions).to_string(), Format::Json);
    assert_eq!(
        (ids(&found), subjects(&found)),
        (vec!["Patient/a", "Patient/a", "Observation/o"], vec![(named[0], 0)])
    );
    assert_eq!(found[1].as_ref().unwrap().resource["n"], 2);
    // Who has no id has references too.
    let nameless =
        |reference: &str| json!({"resource": {"resourceType": "Flag", "subject": {"reference": reference}}});
    let entries = json!([nameless("urn:uuid:1"), nameless("urn:uuid:2"), {"fullUrl": "urn:uuid:1", "resource": patient("a")}]);
    let (found, _) = read(bundle("batch", entries).to_string(), Format::Json);
    assert_eq!(subjects(&found), [(named[0], 0), ("urn:uuid:2", 1)]);
    // One entry alone may refer to itself.
    let (found, _) = read(bundle("batch", json!([about("o", "urn:uuid:o")])).to_string(), Format::Json);
    assert_eq!(subjects(&found), [("Observation/o", 0)]);
}

#[test]
fn no_reference_leads_out_of_its_bundle() {
    let first = bundle(
        "batch",
        json!([{"fullUrl": "urn:uuid:1", "resource": {"resourceType": "Patient", "id": "a"}}]),
    );
    let second = bundle("batch", json!([about("o", "urn:uuid:1")]));
    let lost = [("urn:uuid:1", 1)];
    assert_eq!(subjects(&read(format!("{first:#}\n{second:#}"), Format::Json).0), lost);
    let line = &second["entry"][0]["resource"];
    for format in [Format::Ndjson, Format::Json, Format::Unknown] {
        assert_eq!(subjects(&read(line.to_string(), format).0), lost);
    }
    let (found, _) = read(second.to_string(), Format::Ndjson);
    assert_eq!(found[0].as_ref().unwrap().unresolved, 0, "a Bundle that is kept knows its own entries");
}

/// An export that has become empty is no success.
#[test]
fn a_file_with_nothing_in_it_is_told() {
    for nothing in ["", " \n\t", "\u{feff}", "\n\n"] {
        for format in [Format::Json, Format::Ndjson, Format::Unknown] {
            let told = problems(&read(nothing, format).0);
            assert_eq!(told, [(Place::Whole, Problem::Empty)], "{nothing:?} {format:?}");
        }
    }
    assert!(read("[]", Format::Json).0.is_empty());
}

/// What is cut off is told once: by the entry in which the file ends, or else by the file.
#[test]
fn a_bundle_that_is_cut_off_is_one_problem() {
    let resource = |n: usize| json!({"resource": {"resourceType": "Location", "id": format!("l{n}")}});
    let entries = Value::from_iter((1..=3).map(resource));
    for kind in ["transaction", "history"] {
        let head = format!("{{\"resourceType\":\"Bundle\",\"type\":\"{kind}\",\n");
        let whole = format!("{head}\"entry\":{entries}}}");
        let (mut before, mut between) = (0, 0);
        for cut in whole.find('[').unwrap()..whole.len() {
            let (found, counts) = read(&whole[..cut], Format::Json);
            let told = problems(&found);
            let &[(place, Problem::CutOff { line: 2, column })] = told.as_slice() else {
                panic!("{cut}: {told:?}");
            };
            assert_eq!(column, cut - head.len(), "{cut}: of the file");
            let records = counts.records;
            match place {
                Place::Entry(n) => {
                    assert_eq!(n, records + 1, "{cut}");
                    before += 1;
                }
                Place::Whole => between += 1,
                Place::Line(_) => panic!("{cut}"),
            }
        }
        assert!(before > 3 * 40 && (5..15).contains(&between), "{before} {between}");
    }
    let twice = r#"{"resourceType":"Bundle","type":"batch","entry":[{"resource":{},"resource":{}"#;
    let told = problems(&read(twice, Format::Json).0);
    assert!(matches!(
        told[..],
        [(Place::Entry(1), Problem::DuplicateKey(_)), (Place::Whole, Problem::CutOff { .. })]
    ));
}

/// Whoever has imported the whole Bundle before has the right references, which a damaged copy must not undo.
#[test]
fn a_damaged_bundle_undoes_no_reference() {
    for url in ["urn:uuid:1", "urn:oid:1.2", "https://example.org/fhir/Patient/1"] {
        let patient = json!({"fullUrl": url, "resource": {"resourceType": "Patient", "id": "a"}});
        let nobody = json!({"resource": {"resourceType": "Location", "id": "l"}});
        let entries = json!([about("o", url), nobody, patient]);
        let whole = bundle("transaction", entries.clone()).to_string();
        let all = read(whole.clone(), Format::Json).0;
        assert_eq!(
            (ids(&all), subjects(&all)),
            (vec!["Patient/a", "Observation/o", "Location/l"], vec![("Patient/a", 0)])
        );
        let mut lost = 0;
        for cut in 1..whole.len() {
            let (found, _) = read(&whole[..cut], Format::Json);
            assert!(subjects(&found).iter().all(|one| *one == ("Patient/a", 0)), "{cut}: {found:?}");
            if problems(&found).contains(&(Place::Entry(1), Problem::LostEntry)) {
                lost += 1;
                let behind = whole.find(&nobody.to_string()).unwrap() + nobody.to_string().len();
                assert_eq!(ids(&found).contains(&"Location/l"), cut >= behind, "{cut}: about nobody");
            }
        }
        assert!(lost > patient.to_string().len());
        // The same where the end is there, and the middle cannot be read.
        let found = |broken: &str| read(whole.replace(&patient.to_string(), broken), Format::Json).0;
        let text = patient.to_string();
        for broken in [
            "null",
            &text.replace("\"resourceType\":", "\"resourceType\" "),
            &text.replace("\"fullUrl\":", "\"fullUrl\" "),
            &text.replace(url, "\\ud800"),
            &text.replace("{\"fullUrl\"", "{\"resource\":{},\"fullUrl\""),
        ] {
            let found = found(broken);
            assert!(problems(&found).contains(&(Place::Entry(1), Problem::LostEntry)), "{broken}: {found:?}");
            assert!(
                subjects(&found).is_empty() && ids(&found).contains(&"Location/l"),
                "{broken}: {found:?}"
            );
        }
        // What can be read tells what it is, whatever else is wrong with it.
        let unresolved = u64::from(url.starts_with("urn"));
        for known in
            [&text.replace("\"a\"", "\"a_\""), r#"{"request":{"method":"DELETE","url":"Patient/a"}}"#]
        {
            assert_eq!(subjects(&found(known)), [(url, unresolved)], "{known}");
        }
    }
    let elsewhere =
        [about("o", "Patient/1"), about("p", "Patient?identifier=https://example.org|1"), about("q", "#a")];
    let whole = bundle("batch", json!(elsewhere)).to_string();
    assert_eq!(subjects(&read(&whole[..whole.len() - 1], Format::Json).0).len(), 3);
}

#[test]
fn a_resource_without_an_id_gets_the_same_one_each_time() {
    let text = r#"{"resourceType":"Basic","code":{"text":"x"},"n":1.50}"#;
    let (once, _) = read(text, Format::Json);
    let item = once[0].as_ref().unwrap();
    assert!(item.id_was_missing && item.id.id().len() == 32);
    let text_now = item.resource.to_string();
    assert_eq!(text_now, text.replace(r#""Basic","#, &format!(r#""Basic","id":"{}","#, item.id.id())));
    let (spaced, _) = read(text.replace(',', " , "), Format::Ndjson);
    assert_eq!(spaced[0].as_ref().unwrap().id, item.id);
    let (again, _) = read(text_now.clone(), Format::Json);
    assert_eq!(again[0].as_ref().unwrap().resource.to_string(), text_now);
}

#[test]
fn limits_hold_and_do_not_stop_the_rest() {
    let record = |bytes: usize| {
        let frame = r#"{"resourceType":"Basic","id":"b","text":""}"#.len();
        format!(r#"{{"resourceType":"Basic","id":"b","text":"{}"}}"#, "A".repeat(bytes - frame))
    };
    let text = format!(
        "{}\n{}\n{}{}\n{}\n{}",
        record(RECORD_MAX_BYTES),
        record(RECORD_MAX_BYTES + 1),
        " ".repeat(1_000_000),
        record(RECORD_MAX_BYTES),
        record(LINE_MAX_BYTES + 2),
        record(100)
    );
    for format in [Format::Ndjson, Format::Json] {
        let (found, counts) = read(text.clone(), format);
        assert_eq!((counts.records, counts.rejected), (3, 2), "{format:?}");
        let large = &problems(&found)[0].1;
        assert_eq!(*large, Problem::RecordTooLarge);
    }
    assert_eq!(problems(&read(text, Format::Ndjson).0)[1], (Place::Line(4), Problem::LineTooLong));
    let utf16: Vec<u8> = "\u{FEFF}{}\n{}\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for format in [Format::Ndjson, Format::Json, Format::Unknown] {
        assert_eq!(problems(&read(utf16.clone(), format).0), [(Place::Whole, Problem::NotUtf8)]);
    }
}

#[test]
fn positions_are_those_of_the_file() {
    let (found, _) = read("[\n{\"resourceType\":\"Patient\",\"id\":\"a\"},\n{\n\"a\":}]", Format::Json);
    assert_eq!(ids(&found), ["Patient/a"]);
    let (place, problem) = problems(&found).remove(0);
    assert!(matches!(problem, Problem::InvalidJson { line: 4, column: 5, .. }), "{problem:?}");
    assert_eq!(place, Place::Entry(2));
}

#[test]
fn a_folder_is_read_in_the_order_of_its_names() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, id: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!(r#"{{"resourceType":"Patient","id":"{id}"}}"#)).unwrap();
    };
    for (name, id) in
        [("b.json", "2"), ("a/z.NDJSON", "1"), ("c.jsonl", "3"), ("d.txt", "4"), (".e.json", "5")]
    {
        write(name, id);
    }
    #[cfg(unix)]
    std::os::unix::fs::symlink(folder.path(), folder.path().join("circle")).unwrap();
    fs::write(folder.path().join("bb.json"), "{").unwrap();
    let mut importer = Importer::open(folder.path());
    let found: Vec<_> = importer.by_ref().collect();
    assert_eq!(ids(&found), ["Patient/1", "Patient/2", "Patient/3"]);
    assert!(found[2].is_err());
    assert_eq!((importer.counts().sources, importer.counts().passed_over), (4, 2 + u64::from(cfg!(unix))));
    assert_eq!(Importer::open(&folder.path().join("d.txt")).flatten().count(), 1);
    let missing: Vec<_> = Importer::open(&folder.path().join("nowhere")).collect();
    assert!(matches!(problems(&missing)[..], [(Place::Whole, Problem::Unreadable(_))]));
}

/// The real data beside the project, or none, said loudly.
fn shared(name: &str) -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(name);
    if !root.exists() {
        eprintln!("NOT TESTED against real data: ../shared/data/{name} is not there");
        return None;
    }
    Some(root)
}

/// Reads everything, and counts names that came before.
fn survey(path: &Path) -> (Counts, Vec<Rejected>, u64) {
    let mut importer = Importer::open(path);
    let (mut names, mut rejected, mut repeated) = (BTreeSet::new(), Vec::new(), 0);
    for found in importer.by_ref() {
        match found {
            Ok(item) => repeated += u64::from(!names.insert(item.id)),
            Err(reason) => rejected.push(reason),
        }
    }
    (importer.counts().clone(), rejected, repeated)
}

#[test]
fn hl7_examples_are_read() {
    let Some(path) = shared("hl7-r4-examples.ndjson") else { return };
    let (counts, rejected, repeated) = survey(&path);
    eprintln!("HL7: {} records, {} repeated, rejected: {rejected:?}", counts.records, repeated);
    assert_eq!((counts.records, counts.rejected, repeated), (3_942, 0, 0));
    assert!(rejected.is_empty());
    assert_eq!(counts.by_type["Bundle"], 23);
    let lines = fs::read_to_string(path).unwrap();
    let importer = Importer::from_reader("HL7", std::io::Cursor::new(lines.clone()), Format::Ndjson);
    let changed: Vec<_> = lines
        .lines()
        .zip(importer)
        .filter_map(|(line, found)| found.ok().map(|item| (line, item)))
        .filter(|(line, item)| *line != item.resource.to_string().as_str())
        .map(|(_, item)| item.id)
        .collect();
    assert!(changed.is_empty(), "every line comes out as it went in: {changed:?}");
}

#[test]
fn synthea_bundles_are_read() {
    let Some(path) = shared("synthea") else { return };
    let (counts, rejected, repeated) = survey(&path);
    eprintln!("Synthea: {counts:?}, {repeated} repeated, rejected: {rejected:?}");
    assert_eq!((counts.records, counts.rejected, counts.ids_were_missing, repeated), (10_709, 0, 0, 44));
    let mut resolved = 0;
    for file in fs::read_dir(path).unwrap().map(|file| file.unwrap().path()) {
        let bundle = crate::fhir::json::parse(&fs::read(&file).unwrap()).unwrap();
        let entries = bundle["entry"].as_array().unwrap();
        let name = |one: &Value| {
            format!("{}/{}", one["resourceType"].as_str().unwrap(), one["id"].as_str().unwrap())
        };
        let names: BTreeMap<_, _> = entries
            .iter()
            .map(|entry| (entry["fullUrl"].as_str().unwrap(), name(&entry["resource"])))
            .collect();
        // The same text, but for its references.
        let mut expected: Vec<String> = entries
            .iter()
            .map(|entry| {
                let text = entry["resource"].to_string();
                let mut parts = text.split("\"reference\":\"urn:uuid:");
                let first = parts.next().unwrap().to_owned();
                parts.fold(first, |text, part| {
                    resolved += 1;
                    let (uuid, rest) = part.split_at(36);
                    format!("{text}\"reference\":\"{}{rest}", names[format!("urn:uuid:{uuid}").as_str()])
                })
            })
            .collect();
        let mut found: Vec<String> =
            Importer::open(&file).flatten().map(|item| item.resource.to_string()).collect();
        expected.sort_unstable();
        found.sort_unstable();
        assert!(found == expected, "{}", file.display());
    }
    assert_eq!(resolved, 37_916);
}
