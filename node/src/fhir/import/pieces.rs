//! Finds the resources in a JSON file: where each begins and ends, and by which names the entries of a Bundle know
//! one another. It reads no more of them than these names, and is lenient on purpose. Only quotes and brackets are followed, so that one resource with a fault inside does not hide
//! the thousand behind it, and so that a bundle which was cut off while it was copied still gives what came
//! before the cut. Whether a piece is JSON is for the strict reader to say.

use std::{ops::Range, sync::Arc};

use serde_json::Value;
use sync_core::id::RecordId;

use super::{record::named, references::Entries};
use crate::fhir::{json, problem::Problem};

/// Bundle types whose entries are the records. The other types (document, message, …) are records themselves:
/// their entries mean something only together.
const UNPACKED_BUNDLE_TYPES: [&str; 5] = ["transaction", "batch", "collection", "searchset", "history"];

/// Whether a record is a Bundle whose entries would be the records, had it been a JSON file.
pub fn is_parcel(resource: &Value) -> bool {
    resource["resourceType"] == "Bundle"
        && resource["type"].as_str().is_some_and(|name| UNPACKED_BUNDLE_TYPES.contains(&name))
        && resource["entry"].as_array().is_some_and(|entries| !entries.is_empty())
}

/// A resource in a file, or the reason why there is none.
#[derive(Debug, Default)]
pub(super) struct Piece {
    /// The number of the resource in the file, from 1, in the file's order. What is wrong with the file as a whole has 0.
    pub number: u64,
    /// Where its text stands.
    pub range: Range<usize>,
    /// The bundle entry's fullUrl, as JSON text.
    pub full_url: Option<Range<usize>>,
    /// Whether it is a Patient in a Bundle.
    pub is_patient: bool,
    /// The entries of the Bundle that it stands in.
    pub entries: Arc<Entries>,
    /// A fault of the frame around the resource.
    pub problem: Option<Problem>,
}

/// The pieces of a whole file: one or more values, of which arrays and transparent bundles are unpacked.
pub(super) fn pieces(bytes: &[u8]) -> Vec<Piece> {
    let mut found = Vec::new();
    let mut walker = Walker { bytes, at: 0 };
    while let Some(byte) = walker.peek() {
        let start = walker.at;
        match byte {
            b'[' => elements(bytes, start, &mut |range| add(&mut found, range)),
            b'{' => object(bytes, start, &mut found),
            _ => add(&mut found, start..value_end(bytes, start)),
        }
        walker.at = value_end(bytes, start);
    }
    found
}

fn add(found: &mut Vec<Piece>, range: Range<usize>) {
    found.push(Piece { number: found.len() as u64 + 1, range, ..Piece::default() });
}

fn blame(found: &mut [Piece], problem: Problem) {
    if let Some(last) = found.last_mut() {
        last.problem = Some(problem);
    }
}

fn object(bytes: &[u8], start: usize, found: &mut Vec<Piece>) {
    let bundle = Members::of(bytes, start, ["resourceType", "type", "entry"]);
    let [resource_type, bundle_type, entry] = &bundle.values;
    let json = |range: &Option<Range<usize>>| range.clone().map(|r| &bytes[r]);
    let unpack = json(resource_type) == Some(b"\"Bundle\"")
        && bundle_type
            .as_ref()
            .and_then(|name| text(bytes, name))
            .is_some_and(|name| UNPACKED_BUNDLE_TYPES.contains(&name.as_str()));
    if let (true, Some(key)) = (unpack, bundle.twice) {
        add(found, start..start);
        blame(found, Problem::DuplicateKey(format!("\"{key}\"")));
        return;
    }
    let entry = match entry {
        Some(entry) if unpack && bytes[entry.start] == b'[' => entry,
        // A bundle without entries holds no records, and is none.
        None if unpack && bundle.whole => return,
        _ => return add(found, start..value_end(bytes, start)),
    };
    let first = found.len();
    elements(bytes, entry.start, &mut |range| found.push(bundle_entry(bytes, range, found.len())));
    // A history lists the newest version first; the last one read must be the newest.
    if json(bundle_type) == Some(b"\"history\"") {
        found[first..].reverse();
    }
    introduce(bytes, &mut found[first..], bundle.whole);
    // An entry in which the file ends says so itself.
    let is_cut = |piece: &Piece| {
        piece.problem.is_none()
            && piece.range.end == bytes.len()
            && json::well_formed(&bytes[piece.range.clone()]).is_err()
    };
    if !bundle.whole && !found[first..].iter().any(is_cut) {
        let problem = json::well_formed(&bytes[start..]).err();
        found.push(Piece { range: start..bytes.len(), problem, ..Piece::default() });
    }
}

/// Tells the entries of a Bundle of one another, whose order means nothing in FHIR, and puts the patients first: what
/// is about a patient finds the patient here.
fn introduce(bytes: &[u8], pieces: &mut [Piece], whole: bool) {
    let mut entries = Entries::default();
    if !whole {
        entries.damage();
    }
    for piece in &mut *pieces {
        match record(bytes, piece) {
            Ok(record) => {
                piece.is_patient = record.resource_type() == "Patient";
                match piece.full_url.as_ref().map(|url| text(bytes, url)) {
                    Some(Some(url)) => entries.add(url, record),
                    Some(None) => entries.damage(),
                    None => {}
                }
            }
            Err(problem) if hides(&problem) => entries.damage(),
            Err(_) => {}
        }
    }
    pieces.sort_by_key(|piece| !piece.is_patient);
    let entries = Arc::new(entries);
    pieces.iter_mut().for_each(|piece| piece.entries = Arc::clone(&entries));
}

/// The record that an entry becomes, if it is sound.
fn record(bytes: &[u8], piece: &Piece) -> Result<RecordId, Problem> {
    if let Some(problem) = &piece.problem {
        return Err(problem.clone());
    }
    let named_by = Members::of(bytes, piece.range.start, ["resourceType", "id"]).values;
    if let [Some(name), Some(id)] = &named_by
        && let (Some(name), Some(id)) = (text(bytes, name), text(bytes, id))
        && let Ok(record) = RecordId::new(&name, &id)
    {
        return Ok(record);
    }
    let full_url = piece.full_url.clone().map(|url| &bytes[url]);
    named(&bytes[piece.range.clone()], full_url, &Entries::default()).map(|named| named.id)
}

/// Whether the fault of an entry leaves untold what it was: the other faults are those of a resource that can be read.
fn hides(problem: &Problem) -> bool {
    !matches!(
        problem,
        Problem::NoResource
            | Problem::NoResourceType
            | Problem::BadId
            | Problem::RecordTooLarge
            | Problem::TextTooLong
    )
}

fn text(bytes: &[u8], range: &Range<usize>) -> Option<String> {
    serde_json::from_slice(&bytes[range.clone()]).ok()
}

fn bundle_entry(bytes: &[u8], range: Range<usize>, before: usize) -> Piece {
    let mut piece = Piece { number: before as u64 + 1, range: range.clone(), ..Piece::default() };
    if bytes[range.start] != b'{' {
        return piece;
    }
    let entry = Members::of(bytes, range.start, ["resource", "fullUrl"]);
    let [resource, full_url] = entry.values;
    match (entry.twice, resource) {
        (Some(key), _) => piece.problem = Some(Problem::DuplicateKey(format!("\"{key}\""))),
        // What is broken is left to the strict reader, which says how.
        (None, _) if !entry.whole => {}
        (None, Some(resource)) => (piece.range, piece.full_url) = (resource, full_url),
        (None, None) => piece.problem = Some(Problem::NoResource),
    }
    piece
}

/// Calls back with the place of each element of the array that begins here.
fn elements(bytes: &[u8], start: usize, each: &mut dyn FnMut(Range<usize>)) {
    let mut walker = Walker { bytes, at: start + 1 };
    while let Some(byte) = walker.peek() {
        match byte {
            b']' => return,
            b',' => walker.at += 1,
            _ => {
                let end = value_end(bytes, walker.at);
                each(walker.at..end);
                walker.at = end;
            }
        }
    }
}

/// The members of an object that are looked for.
struct Members<const N: usize> {
    values: [Option<Range<usize>>; N],
    /// A name among them that stands twice.
    twice: Option<&'static str>,
    /// Whether the object has its end.
    whole: bool,
}

impl<const N: usize> Members<N> {
    fn of(bytes: &[u8], start: usize, names: [&'static str; N]) -> Self {
        let mut members = Self { values: std::array::from_fn(|_| None), twice: None, whole: false };
        let mut walker = Walker { bytes, at: start + 1 };
        while let Some(byte) = walker.peek() {
            match byte {
                b'}' => {
                    members.whole = true;
                    return members;
                }
                b',' => walker.at += 1,
                b'"' => {
                    let key = walker.at..value_end(bytes, walker.at);
                    walker.at = key.end;
                    if walker.peek() != Some(b':') {
                        return members;
                    }
                    walker.at += 1;
                    if walker.peek().is_none() {
                        return members;
                    }
                    let value = walker.at..value_end(bytes, walker.at);
                    walker.at = value.end;
                    let inner = bytes.get(key.start + 1..key.end - 1);
                    if let Some(i) = names.iter().position(|name| Some(name.as_bytes()) == inner)
                        && members.values[i].replace(value).is_some()
                    {
                        members.twice = Some(names[i]);
                    }
                }
                _ => return members,
            }
        }
        members
    }
}

struct Walker<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Walker<'_> {
    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        while self.bytes.get(self.at)?.is_ascii_whitespace() {
            self.at += 1;
        }
        self.bytes.get(self.at).copied()
    }
}

/// Where the value that begins here ends: behind its closing bracket or quote, or before what follows a
/// number or a word. Always behind the beginning, so that a walk never stands still.
fn value_end(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = start;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = quote_end(bytes, at + 1),
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            _ if depth > 0 => at += 1,
            _ => return word_end(bytes, at),
        }
        if depth == 0 {
            return at;
        }
    }
    bytes.len()
}

fn word_end(bytes: &[u8], start: usize) -> usize {
    let stops = |b: &u8| b.is_ascii_whitespace() || b",:[]{}\"".contains(b);
    bytes[start + 1..].iter().position(stops).map_or(bytes.len(), |n| start + 1 + n)
}

/// Where a string ends, behind its closing quote.
fn quote_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(json: &str) -> Vec<&str> {
        pieces(json.as_bytes()).into_iter().map(|p| &json[p.range]).collect()
    }

    #[test]
    fn arrays_values_and_transparent_bundles_are_unpacked() {
        assert_eq!(texts(r#" {"a":"}"} "#), [r#"{"a":"}"}"#]);
        assert_eq!(texts(r#"[{"a":[1]}, 2 ,"x\"]"]"#), [r#"{"a":[1]}"#, "2", r#""x\"]""#]);
        assert_eq!(texts("{}\n{}"), ["{}", "{}"]);
        assert_eq!(texts(""), Vec::<&str>::new());
        let bundle = |kind: &str| {
            format!(
                r#"{{"entry":[{{"fullUrl":"u","resource":{{"n":1}}}},{{"resource":{{"n":2}}}}],
                   "type":"{kind}","resourceType":"Bundle"}}"#
            )
        };
        for kind in ["transaction", "batch", "collection", "searchset"] {
            assert_eq!(texts(&bundle(kind)), [r#"{"n":1}"#, r#"{"n":2}"#]);
        }
        assert_eq!(texts(&bundle("history")), [r#"{"n":2}"#, r#"{"n":1}"#]);
        assert_eq!(texts(&bundle("document")), [bundle("document")]);
        assert!(texts(r#"{"resourceType":"Bundle","type":"batch"}"#).is_empty());
    }

    #[test]
    fn a_cut_bundle_gives_what_stands_before_the_cut() {
        let whole =
            r#"{"resourceType":"Bundle","type":"batch","entry":[{"resource":{"n":1}},{"resource":{"n":2}}]}"#;
        for cut in 1..whole.len() {
            let found = pieces(&whole.as_bytes()[..cut]);
            assert!(!found.is_empty(), "{cut}");
            let broken = found.last().map(|p| &whole[p.range.start..p.range.end]);
            assert!(serde_json::from_str::<serde_json::Value>(broken.unwrap()).is_err(), "{cut}");
        }
        assert_eq!(texts(&whole[..whole.len() - 5])[0], r#"{"n":1}"#);
    }

    #[test]
    fn a_faulty_frame_is_a_problem_of_its_entry() {
        let found = pieces(
            br#"{"resourceType":"Bundle","type":"history","entry":[
                {"request":{"method":"DELETE"}},{"resource":{},"resource":{}},3,{"resource":{"n":1}}]}"#,
        );
        let problems: Vec<_> = found.iter().map(|p| (p.number, p.problem.clone())).collect();
        let twice = Problem::DuplicateKey("\"resource\"".into());
        assert_eq!(problems, [(4, None), (3, None), (2, Some(twice)), (1, Some(Problem::NoResource))]);
    }

    #[test]
    fn no_bytes_make_it_stand_still_or_panic() {
        let alphabet = b"{}[]\":,\\ \na1";
        let mut state = 1_u64;
        for _ in 0..200_000 {
            let noise: Vec<u8> = (0..12)
                .map(|_| {
                    state =
                        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    alphabet[(state >> 33) as usize % alphabet.len()]
                })
                .collect();
            let mut framed = br#"{"resourceType":"Bundle","type":"batch","entry":["#.to_vec();
            framed.extend(&noise);
            for bytes in [&noise, &framed] {
                assert!(pieces(bytes).iter().all(|p| p.range.end <= bytes.len()));
            }
        }
    }
}
