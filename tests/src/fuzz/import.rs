//! Files: one bad record never stops the rest, and no message repeats a value.

use std::io::Cursor;

use node::fhir::{
    import::{Format, Importer, Item, Place, Rejected},
    json,
};

/// What stands for a value of a record: each `Q` of the input becomes this, so that a message that repeats a value
/// is found. It is no element's name.
const VALUE: &str = "Ng0912345678";

/// The bytes are a file in each format, and a bad neighbour for good records.
pub fn import(data: &[u8]) {
    let mut file = Vec::with_capacity(data.len());
    for byte in data {
        match byte {
            b'Q' => file.extend(VALUE.bytes()),
            other => file.push(*other),
        }
    }
    for format in [Format::Ndjson, Format::Json, Format::Unknown] {
        read(&file, format);
    }
    among_good_lines(&file);
    among_good_entries(&file);
    if let Ok(value) = json::parse(&file) {
        let again = json::parse(value.to_string().as_bytes());
        assert_eq!(again, Ok(value), "what is read is read again as the same");
    }
}

fn read(file: &[u8], format: Format) -> Vec<Result<Item, Rejected>> {
    let mut importer = Importer::from_reader("file", Cursor::new(file.to_vec()), format);
    let found: Vec<_> = importer.by_ref().take(file.len() + 2).collect();
    assert!(found.len() <= file.len() + 1, "there are no more records than bytes");
    let counts = importer.counts();
    let (records, rejected) =
        (found.iter().flatten().count() as u64, found.iter().filter(|f| f.is_err()).count());
    assert_eq!((counts.records, counts.rejected), (records, rejected as u64));
    assert_eq!(counts.by_type.values().sum::<u64>(), records);
    for one in &found {
        match one {
            Ok(item) => {
                let field =
                    |name: &str| item.resource[name].as_str().expect("every record has a name").to_owned();
                assert_eq!(item.id.as_str(), format!("{}/{}", field("resourceType"), field("id")));
                assert!(item.place != Place::Whole || format != Format::Ndjson, "a line has a number");
            }
            Err(rejected) => {
                let told = rejected.to_string();
                assert!(told.starts_with("file") && told.contains(&rejected.problem.to_string()), "{told}");
                assert!(!told.contains(VALUE), "no value in a message");
            }
        }
    }
    found
}

fn good(id: &str) -> Vec<u8> {
    format!(r#"{{"resourceType":"Flag","id":"{id}"}}"#).into_bytes()
}

/// Whether this is the good record of that name, at that place.
fn is_good(found: Option<&Result<Item, Rejected>>, id: &str, place: Place) -> bool {
    matches!(found, Some(Ok(item)) if item.id.id() == id && item.place == place && item.resource.as_object().map(|o| o.len()) == Some(2))
}

fn among_good_lines(line: &[u8]) {
    let line: Vec<u8> = line.iter().copied().filter(|byte| *byte != b'\n').collect();
    let found = read(&[good("first"), line, good("last")].join(&b'\n'), Format::Ndjson);
    assert!(is_good(found.first(), "first", Place::Line(1)), "the line before");
    assert!(is_good(found.last(), "last", Place::Line(3)), "the line after");
    assert!(found.len() <= 3);
}

fn among_good_entries(entry: &[u8]) {
    // What is JSON to others as well, so that it is one element.
    if serde_json::from_slice::<serde::de::IgnoredAny>(entry).is_err() {
        return;
    }
    let wrapped = |bytes: &[u8]| [&b"{\"resource\":"[..], bytes, b"}"].concat();
    let entries = [wrapped(&good("first")), wrapped(entry), wrapped(&good("last"))].join(&b',');
    let bundle =
        [b"{\"resourceType\":\"Bundle\",\"type\":\"batch\",\"entry\":[", &entries[..], b"]}"].concat();
    let array = [&b"["[..], &[good("first"), entry.to_vec(), good("last")].join(&b','), b"]"].concat();
    for file in [bundle, array] {
        let found = read(&file, Format::Json);
        assert_eq!(found.len(), 3, "three entries are three records, or what is wrong with them");
        // A patient in the middle comes first.
        let at = |place| found.iter().find(|one| matches!(one, Ok(item) if item.place == place));
        for (id, place) in [("first", Place::Entry(1)), ("last", Place::Entry(3))] {
            assert!(is_good(at(place), id, place), "the entries around it");
        }
    }
}
