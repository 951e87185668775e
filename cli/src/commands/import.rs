//! `tuyen records import`: FHIR resources from files, folders or standard input into a node. What always
//! holds: one bad resource never stops the rest, and each that was not taken is named with its file, its
//! place and the reason; importing the same thing twice changes nothing. Not here: reading files; see
//! `node::fhir::import`.

use std::{collections::BTreeMap, path::PathBuf, time::Instant};

use clap::Args;
use node::{
    admin::{Client, Progress, WrittenRecord},
    fhir::import::{Counts, Importer, Place, Rejected},
};
use serde::Serialize;
use sync_core::id::RecordId;

use super::{Context, Writer};
use crate::{
    chunk::{Chunk, Origin, Refused, Sent},
    output::{Exit, Meter, Outcome, Stop},
    render::many,
};

/// Most rejected resources that are shown to people; JSON output has all.
const REJECTED_SHOWN: usize = 100;
/// The same of records that refer to somebody or something that is not here.
const ABSENT_SHOWN: usize = 10;

/// Import resources: NDJSON, JSON, FHIR bundles, folders of them, or - for standard input
///
/// What can be taken is taken. Each resource that cannot is named with its line and the reason, and the exit
/// code is then 5; it is 1 when nothing could be taken.
#[derive(Args)]
#[command(before_help = "Example:\n  tuyen --dir dv records import patients.ndjson\n  \
                   tuyen --dir dv records import /media/usb/bundles\n  zcat all.gz | tuyen --dir dv records import -")]
pub struct Import {
    /// Files, folders, or - for standard input
    #[arg(required = true, value_name = "FILE|DIR|-")]
    from: Vec<PathBuf>,
    #[command(flatten)]
    writer: Writer,
    /// Why; kept in the history of each record
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
}

/// Where a resource stands, as JSON.
#[derive(Serialize)]
struct PlaceBody {
    source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<u64>,
}

impl PlaceBody {
    fn new(source: &str, place: Place) -> Self {
        let (line, entry) = match place {
            Place::Whole => (None, None),
            Place::Line(n) => (Some(n), None),
            Place::Entry(n) => (None, Some(n)),
        };
        Self { source: source.to_owned(), line, entry }
    }
}

/// A resource that was not taken, as JSON.
#[derive(Serialize)]
pub struct RejectedBody {
    #[serde(flatten)]
    place: PlaceBody,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<RecordId>,
    problem: String,
    #[serde(skip)]
    text: String,
}

impl RejectedBody {
    fn new(source: &str, place: Place, record: Option<RecordId>, problem: String) -> Self {
        let name = record.as_ref().map_or(String::new(), |record| format!(" ({record})"));
        let text = format!("{source}{place}{name}: {problem}");
        Self { place: PlaceBody::new(source, place), record, problem, text }
    }

    /// Where, what, why and what to do, in one line.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl From<Rejected> for RejectedBody {
    fn from(rejected: Rejected) -> Self {
        let problem = format!("{}; {}", rejected.problem, rejected.problem.what_to_do());
        Self::new(&rejected.source_name, rejected.place, None, problem)
    }
}

impl From<Refused> for RejectedBody {
    fn from(Refused { origin, problem }: Refused) -> Self {
        Self::new(&origin.source, origin.place, Some(origin.record), problem)
    }
}

#[derive(Serialize)]
struct SupersededBody {
    record: RecordId,
    paths: Vec<String>,
}

#[derive(Serialize)]
struct AbsentBody {
    record: RecordId,
    patients: Vec<RecordId>,
}

#[derive(Serialize)]
struct UnresolvedBody {
    record: RecordId,
    references: u64,
}

/// A Bundle that is one record, though its entries could be records.
#[derive(Serialize)]
struct KeptBody {
    record: RecordId,
    #[serde(flatten)]
    place: PlaceBody,
    #[serde(skip)]
    text: String,
}

impl From<&Origin> for KeptBody {
    fn from(Origin { record, source, place, .. }: &Origin) -> Self {
        let text = format!("{source}{place} ({record})");
        Self { record: record.clone(), place: PlaceBody::new(source, *place), text }
    }
}

#[derive(Serialize, Default)]
struct ImportBody {
    written: u64,
    unchanged: u64,
    rejected: Vec<RejectedBody>,
    superseded: Vec<SupersededBody>,
    patients_not_here: Vec<AbsentBody>,
    references_unresolved: Vec<UnresolvedBody>,
    bundles_kept_whole: Vec<KeptBody>,
    sources: u64,
    ids_were_missing: u64,
    passed_over: u64,
    by_type: BTreeMap<String, u64>,
    seconds: f64,
}

impl ImportBody {
    fn add(&mut self, sent: Sent) {
        self.rejected.extend(sent.refused().map(RejectedBody::from));
        let unresolved = sent.taken().filter(|origin| origin.unresolved > 0);
        self.references_unresolved.extend(unresolved.map(|Origin { record, unresolved, .. }| {
            UnresolvedBody { record: record.clone(), references: *unresolved }
        }));
        let kept = sent.taken().filter(|origin| origin.is_parcel);
        self.bundles_kept_whole.extend(kept.map(KeptBody::from));
        self.written += sent.written.written.len() as u64;
        self.unchanged += sent.written.unchanged;
        for WrittenRecord { record, superseded, patients_not_here, .. } in sent.written.written {
            if !patients_not_here.is_empty() {
                let (record, patients) = (record.clone(), patients_not_here);
                self.patients_not_here.push(AbsentBody { record, patients });
            }
            if !superseded.is_empty() {
                self.superseded.push(SupersededBody { record, paths: superseded });
            }
        }
    }

    fn count(&mut self, counts: &Counts) {
        self.sources += counts.sources;
        self.ids_were_missing += counts.ids_were_missing;
        self.passed_over += counts.passed_over;
        for (name, number) in &counts.by_type {
            *self.by_type.entry(name.clone()).or_default() += number;
        }
    }

    fn taken(&self) -> u64 {
        self.written + self.unchanged
    }

    fn exit(&self) -> Exit {
        match (self.rejected.is_empty(), self.taken()) {
            (false, 0) => Exit::Failed,
            (false, _) => Exit::Attention,
            (true, _) if !self.superseded.is_empty() => Exit::Attention,
            (true, _) => Exit::Ok,
        }
    }

    fn summary(&self) -> String {
        let mut out = format!("{} written", many(self.written, "record", "records"));
        let mut add = |number: u64, text: &str| {
            if number > 0 {
                out.push_str(&format!(", {} {text}", crate::render::count(number)));
            }
        };
        add(self.unchanged, "already so");
        add(self.rejected.len() as u64, "not taken");
        add(self.ids_were_missing, "given an id");
        add(self.patients_not_here.len() as u64, "about a patient who is not here");
        add(
            self.references_unresolved.len() as u64,
            "with references to what is no entry of the same Bundle",
        );
        add(self.bundles_kept_whole.len() as u64, "kept whole as a Bundle");
        add(self.passed_over, "files passed over, whose names end in none of .json, .ndjson and .jsonl");
        format!("{out}. {:.1} s.\n", self.seconds)
    }
}

impl Import {
    /// Does it.
    pub fn run(self, context: &Context) -> Outcome {
        let started = Instant::now();
        let mut body = ImportBody::default();
        self.all(&mut context.client()?, &mut body).map_err(|stop| left_off(stop, &body))?;
        body.seconds = started.elapsed().as_secs_f64();
        if !context.output.json {
            for rejected in body.rejected.iter().take(REJECTED_SHOWN) {
                context.output.note(rejected.text());
            }
            if let Some(more @ 1..) = body.rejected.len().checked_sub(REJECTED_SHOWN) {
                context
                    .output
                    .note(format_args!("and {more} more that were not taken; --json names them all"));
            }
            for superseded in &body.superseded {
                let SupersededBody { record, paths } = superseded;
                context.output.note(overwritten(record, paths));
            }
            let absent = |AbsentBody { record, patients }: &_| without_patient(record, patients);
            some(context, &body.patients_not_here, "about patients who are not here", absent);
            let lost = |UnresolvedBody { record, references }: &_| unresolved(record, *references);
            some(context, &body.references_unresolved, "with references to what is no entry", lost);
            if let Some(text) = kept_whole(&body.bundles_kept_whole) {
                context.output.note(text);
            }
        }
        let exit = body.exit();
        context.output.result(body.summary(), &body)?;
        Ok(exit)
    }

    fn all(&self, client: &mut Client, body: &mut ImportBody) -> Result<(), Stop> {
        let mut meter = Meter::new();
        let mut chunk = Chunk::default();
        let by = self.writer.name();
        let mut send = |chunk: Chunk, body: &mut ImportBody| -> Result<(), Stop> {
            body.add(chunk.send(client, by.clone(), self.why.clone())?);
            meter.show(&Progress { what: "records imported".into(), done: body.taken(), total: None });
            Ok(())
        };
        for path in &self.from {
            let mut importer = Importer::open(path);
            for found in importer.by_ref() {
                match found {
                    Ok(item) => {
                        if let Some(full) = chunk.add(item)? {
                            send(full, body)?;
                        }
                    }
                    Err(rejected) => body.rejected.push(rejected.into()),
                }
            }
            body.count(importer.counts());
        }
        if !chunk.is_empty() {
            send(chunk, body)?;
        }
        Ok(())
    }
}

/// Says the first of many things, and how many more there are.
fn some<T>(context: &Context, all: &[T], what: &str, text: impl Fn(&T) -> String) {
    for one in all.iter().take(ABSENT_SHOWN) {
        context.output.note(text(one));
    }
    if let Some(more @ 1..) = all.len().checked_sub(ABSENT_SHOWN) {
        context.output.note(format_args!("and {more} more {what}; --json names them all"));
    }
}

/// What is said of Bundles whose entries are not looked into.
fn kept_whole(bundles: &[KeptBody]) -> Option<String> {
    let first = &bundles.first()?.text;
    let were = many(bundles.len() as u64, "Bundle was", "Bundles were");
    let others = if bundles.len() > 1 { "; --json names them all" } else { "" };
    Some(format!(
        "{were} kept whole, each as one record, as a line of NDJSON or an element of an array is: {first}{others}. The entries are \
         no records then: no list shows them, and neither a policy nor a grant finds in a Bundle whom it is about. To \
         have the entries as records, save each Bundle as a .json file of its own and import that"
    ))
}

/// A failure in the middle says what has been done, and that going on is easy.
fn left_off(stop: Stop, body: &ImportBody) -> Stop {
    match stop {
        Stop::Failed(mut failure) if body.taken() > 0 => {
            let taken = many(body.taken(), "record was", "records were");
            failure.text =
                format!("{}; {taken} taken before, and importing again goes on from there", failure.text);
            Stop::Failed(failure)
        }
        other => other,
    }
}

/// What is said of a write that answered an open conflict with a new value.
pub fn overwritten(record: &RecordId, paths: &[String]) -> String {
    format!(
        "{record}: this write replaced values that disagreed, at {}; look at `tuyen records history {record}`",
        paths.join(", ")
    )
}

/// What is said of a new record about patients whom nobody has heard of here: a reference may be misspelt.
pub fn without_patient(record: &RecordId, patients: &[RecordId]) -> String {
    let names: Vec<_> = patients.iter().map(RecordId::to_string).collect();
    format!(
        "{record} is about {}, not at this node: so it belongs to this organization, and no other clinic is sent it. Check the \
         reference; if it is right, have the patient here first, and write the record anew under another id",
        names.join(", ")
    )
}

/// What is said of a record whose references name entries of a Bundle that are not there.
pub fn unresolved(record: &RecordId, references: u64) -> String {
    format!(
        "{record} has {} (such as urn:uuid:…) to what is no entry, or more than one, of the Bundle that it came in; nobody \
         finds by {} whom or what it is about, neither a policy nor a grant. Import the whole Bundle, as JSON, or \
         write Type/id there",
        many(references, "reference", "references"),
        if references == 1 { "it" } else { "them" }
    )
}

#[cfg(test)]
mod tests {
    use node::fhir::problem::Problem;

    use super::*;

    fn bad(line: u64) -> RejectedBody {
        Rejected { source_name: "f.ndjson".into(), place: Place::Line(line), problem: Problem::BadId }.into()
    }

    #[test]
    fn what_was_not_taken_is_named_with_line_and_reason() {
        let rejected = bad(17);
        assert!(rejected.text().starts_with("f.ndjson, line 17: its id is not "), "{}", rejected.text());
        let json = serde_json::to_value(&rejected).unwrap();
        assert_eq!((json["source"].as_str(), json["line"].as_u64()), (Some("f.ndjson"), Some(17)));
        assert!(json.get("entry").is_none() && json.get("text").is_none());
    }

    #[test]
    fn bundles_that_were_kept_whole_are_told_in_one_line() {
        assert_eq!(kept_whole(&[]), None);
        let kept = |n: u64| {
            let record = RecordId::new("Bundle", &n.to_string()).unwrap();
            KeptBody::from(&Origin {
                record,
                source: "f.ndjson".into(),
                place: Place::Line(n),
                unresolved: 0,
                is_parcel: true,
            })
        };
        let one = kept_whole(&[kept(7)]).unwrap();
        assert!(
            one.starts_with("1 Bundle was kept whole, ") && one.contains("f.ndjson, line 7 (Bundle/7). "),
            "{one}"
        );
        let body =
            ImportBody { written: 3, bundles_kept_whole: vec![kept(7), kept(8)], ..ImportBody::default() };
        let two = kept_whole(&body.bundles_kept_whole).unwrap();
        assert!(
            two.starts_with("2 Bundles were ") && two.contains("(Bundle/7); --json names them all."),
            "{two}"
        );
        assert_eq!(body.summary(), "3 records written, 2 kept whole as a Bundle. 0.0 s.\n");
        assert_eq!(body.exit(), Exit::Ok);
        let json = serde_json::to_value(&body).unwrap();
        let named = serde_json::json!({"record": "Bundle/8", "source": "f.ndjson", "line": 8});
        assert_eq!(json["bundles_kept_whole"][1], named);
    }

    #[test]
    fn the_exit_code_says_how_it_went() {
        let mut body = ImportBody { written: 997, ..ImportBody::default() };
        assert_eq!(body.exit(), Exit::Ok);
        body.rejected = vec![bad(1), bad(2), bad(3)];
        assert_eq!(body.exit(), Exit::Attention);
        assert_eq!(body.summary(), "997 records written, 3 not taken. 0.0 s.\n");
        body.written = 0;
        assert_eq!(body.exit(), Exit::Failed);
        body.unchanged = 1;
        assert_eq!(body.exit(), Exit::Attention);
    }
}
