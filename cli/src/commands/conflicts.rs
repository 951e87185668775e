//! `tuyen conflicts`: where two or more people answered one question differently, and how a person settles
//! it. What always holds: every value is shown with who wrote it, and nothing is settled without a reason.

use std::collections::BTreeMap;

use clap::{ArgGroup, Args, Subcommand};
use node::{
    admin::{Choice, Client, ConflictLine, ConflictValue, Conflicts, Failure, Request},
    fhir::json,
};
use serde::Serialize;
use serde_json::value::RawValue;
use sync_core::id::{NodeId, OrgId, RecordId};

use super::{Context, Writer, records::show_written};
use crate::{
    output::{Exit, Outcome, Stop, usage},
    render::{self, many},
};

/// The path of a conflict about whether the record as a whole lives.
const STATE_PATH: &str = "#state";
/// Widest table; wider ones take two lines for each value.
const LINE_MAX_CHARS: usize = 100;
/// Records of one page of the daemon's answer.
const PAGE_RECORDS: u32 = 200;

/// What to do with conflicts.
#[derive(Subcommand)]
pub enum Command {
    List(List),
    Show(Show),
    Resolve(Resolve),
}

/// All open conflicts, with every value and who wrote it
#[derive(Args)]
#[command(before_help = "Example:\n  tuyen --dir hg conflicts list")]
pub struct List {}

/// The conflicts of one record, also those that settled themselves
#[derive(Args)]
#[command(before_help = "Example:\n  tuyen --dir hg conflicts show Patient/8f21")]
pub struct Show {
    /// Which record
    #[arg(value_name = "TYPE/ID")]
    record: RecordId,
}

/// Settle a conflict, here and everywhere
///
/// The decision is an ordinary change: it travels like any other and ends the conflict wherever it arrives.
#[derive(Args)]
#[command(
    before_help = "Example:\n  tuyen --dir hg conflicts resolve Patient/8f21 birthDate --take 2 --why \"asked the patient\"",
    group = ArgGroup::new("choice").required(true)
)]
pub struct Resolve {
    /// Which record
    #[arg(value_name = "TYPE/ID")]
    record: RecordId,
    /// Which of its elements, as `tuyen conflicts list` names it
    path: String,
    /// The value with this number, as `tuyen conflicts list` shows it
    #[arg(long, group = "choice", value_name = "N", value_parser = number)]
    take: Option<usize>,
    /// Another value, as JSON; where the values are shown with names, with one of them: '{"valueBoolean": true}'
    #[arg(long, group = "choice", value_name = "JSON", allow_hyphen_values = true)]
    value: Option<String>,
    /// Why; kept in the record's history
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    why: String,
    #[command(flatten)]
    writer: Writer,
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n >= 1).ok_or_else(|| "the values are numbered from 1".into())
}

/// Reads a reason, which others will read.
pub fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() { Err("say why; others will read it".into()) } else { Ok(text.to_owned()) }
}

#[derive(Serialize)]
struct ConflictsBody<'a> {
    conflicts: Vec<LineBody<'a>>,
}

/// A conflict as JSON.
#[derive(Serialize)]
pub struct LineBody<'a> {
    record: &'a RecordId,
    path: &'a str,
    kind: &'a str,
    state: &'a str,
    values: Vec<ValueBody<'a>>,
    shown: usize,
}

#[derive(Serialize)]
struct ValueBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    form: &'a Option<String>,
    value: &'a Option<Box<RawValue>>,
    node: Option<NodeId>,
    org: &'a Option<OrgId>,
    by: &'a Option<String>,
    at: String,
}

impl<'a> LineBody<'a> {
    /// The JSON of this conflict.
    pub fn new(line: &'a ConflictLine) -> Self {
        let value = |value: &'a ConflictValue| {
            let ConflictValue { form, value, node, org, by, at } = value;
            ValueBody { form, value, node: *node, org, by, at: render::rfc3339(*at) }
        };
        Self {
            record: &line.record,
            path: &line.path,
            kind: &line.kind,
            state: &line.state,
            values: line.values.iter().map(value).collect(),
            shown: line.shown,
        }
    }
}

impl Command {
    /// Does it.
    pub fn run(self, context: &Context) -> Outcome {
        match self {
            Command::List(List {}) => show(context, None),
            Command::Show(Show { record }) => show(context, Some(record)),
            Command::Resolve(resolve) => resolve.run(context),
        }
    }
}

/// All conflicts of a node, or of one record.
pub fn all(client: &mut Client, record: Option<&RecordId>) -> Result<Vec<ConflictLine>, Failure> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let request = Request::Conflicts { record: record.cloned(), after, limit: PAGE_RECORDS };
        let page: Conflicts = client.call(&request, |_| {})?;
        found.extend(page.conflicts);
        after = page.next;
        if after.is_none() {
            return Ok(found);
        }
    }
}

fn show(context: &Context, record: Option<RecordId>) -> Outcome {
    let found = all(&mut context.client()?, record.as_ref())?;
    if context.output.json {
        context.output.object(&ConflictsBody { conflicts: found.iter().map(LineBody::new).collect() })?;
        return Ok(Exit::Ok);
    }
    let now = render::now_millis();
    for line in &found {
        context.output.text(text(line, now))?;
    }
    let open = found.iter().filter(|line| line.state == "open").count() as u64;
    match (open, found.first()) {
        (0, _) => context.output.line("No conflict is open.")?,
        (_, Some(first)) => {
            let first = found.iter().find(|line| line.state == "open").unwrap_or(first);
            context.output.line(format_args!(
                "{} open. Settle one with:\n  tuyen conflicts resolve {} '{}' --take N --why TEXT",
                many(open, "conflict is", "conflicts are"),
                first.record,
                first.path
            ))?;
        }
        (_, None) => {}
    }
    Ok(Exit::Ok)
}

/// A conflict for people: a line, and a line for each value.
pub fn text(line: &ConflictLine, now: i64) -> String {
    let kind = match line.kind.as_str() {
        "value" => "the values differ",
        "deletion" => "deleted at one place, edited at another",
        other => other,
    };
    let state = if line.state == "open" { String::new() } else { format!(" ({} by policy)", line.state) };
    let path = if line.path.is_empty() { String::new() } else { format!("  {}", line.path) };
    let mut out = format!("{}{path}: {kind}{state}\n", line.record);
    let rows: Vec<Vec<String>> = line
        .values
        .iter()
        .zip(shown(line))
        .zip(1..)
        .map(|((value, shown), number)| {
            let meanwhile = if number == line.shown { "shown meanwhile" } else { "" };
            vec![
                format!("  {number}"),
                shown,
                writer(value),
                render::ago(value.at, now),
                meanwhile.to_owned(),
            ]
        })
        .collect();
    let table = render::table(&rows);
    if table.lines().all(|line| line.chars().count() <= LINE_MAX_CHARS) {
        out.push_str(&table);
    } else {
        for row in &rows {
            let about: Vec<&str> =
                row[2..].iter().map(String::as_str).filter(|cell| !cell.is_empty()).collect();
            out.push_str(&format!("{}  {}\n       {}\n", row[0], row[1], about.join(", ")));
        }
    }
    out.push('\n');
    out
}

/// The values, short enough to compare.
fn shown(line: &ConflictLine) -> Vec<String> {
    if line.path == STATE_PATH {
        let edited = |value: &ConflictValue| if value.value.is_some() { "(edited)" } else { "(deleted)" };
        return line.values.iter().map(|value| edited(value).to_owned()).collect();
    }
    let named: Vec<Option<Box<RawValue>>> = line.values.iter().map(with_form).collect();
    let values: Vec<Option<&RawValue>> = named.iter().map(Option::as_deref).collect();
    render::differing(&values)
}

/// A value, with the name that it has as a form of a choice element.
fn with_form(value: &ConflictValue) -> Option<Box<RawValue>> {
    let raw = value.value.as_deref()?;
    let named = value.form.as_ref().map(|form| BTreeMap::from([(form, raw)]));
    let text = named.and_then(|named| serde_json::value::to_raw_value(&named).ok());
    Some(text.unwrap_or_else(|| raw.to_owned()))
}

/// Who wrote a value: organization, node and name.
fn writer(value: &ConflictValue) -> String {
    let org = value.org.as_ref().map_or("unknown", OrgId::as_str);
    let node = value.node.map_or(String::new(), |node| format!(" ({})", node.short()));
    let by = value.by.as_ref().map_or(String::new(), |by| format!(", {}", render::one_line(by)));
    format!("{org}{node}{by}")
}

impl Resolve {
    /// Does it.
    pub fn run(self, context: &Context) -> Outcome {
        let choice = match (self.take, self.value) {
            (Some(number), _) => Choice::Take(number),
            (None, Some(text)) => Choice::Value(value(&text)?),
            (None, None) => return Err(usage("say which value: --take N or --value JSON")),
        };
        let request = Request::Resolve {
            record: self.record.clone(),
            path: self.path,
            choice,
            by: self.writer.name(),
            why: self.why,
        };
        show_written(context, &self.record, &context.call(&request)?, "settled")
    }
}

/// Reads a value strictly; a bare word is the commonest mistake.
fn value(text: &str) -> Result<Box<RawValue>, Stop> {
    let wrong = |why: String| {
        usage(format!("--value is not JSON ({why}); write text in quotes, as in --value '\"1961-02-03\"'"))
    };
    json::parse(text.as_bytes()).map_err(|problem| wrong(problem.to_string()))?;
    RawValue::from_string(text.to_owned()).map_err(|error| wrong(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conflict() -> ConflictLine {
        let value = |text: &str, org: &str, at| ConflictValue {
            form: None,
            value: Some(RawValue::from_string(text.into()).unwrap()),
            node: Some(NodeId([0xcd; 16])),
            org: Some(OrgId::new(org).unwrap()),
            by: Some("minh".into()),
            at,
        };
        ConflictLine {
            record: "Patient/8f21".parse().unwrap(),
            path: "birthDate".into(),
            kind: "value".into(),
            state: "open".into(),
            values: vec![
                value("\"1961-02-03\"", "dong-van", 0),
                value("\"1961-03-02\"", "ha-giang", 3_600_000),
            ],
            shown: 2,
        }
    }

    #[test]
    fn both_values_are_shown_with_who_wrote_them() {
        let expected = "\
Patient/8f21  birthDate: the values differ
  1  \"1961-02-03\"  dong-van (cdcdcdcd), minh  2 h ago
  2  \"1961-03-02\"  ha-giang (cdcdcdcd), minh  1 h ago  shown meanwhile

";
        assert_eq!(text(&conflict(), 7_200_000), expected);
    }

    #[test]
    fn of_a_choice_element_each_value_says_which_form_it_is() {
        let mut line = conflict();
        line.path = "value[x]".into();
        for (value, (form, text)) in
            line.values.iter_mut().zip([("valueString", "\"positive\""), ("valueBoolean", "false")])
        {
            value.form = Some(form.into());
            value.value = Some(RawValue::from_string(text.into()).unwrap());
        }
        let expected = "\
Patient/8f21  value[x]: the values differ
  1  valueString: \"positive\"  dong-van (cdcdcdcd), minh  2 h ago
  2  valueBoolean: false      ha-giang (cdcdcdcd), minh  1 h ago  shown meanwhile

";
        assert_eq!(text(&line, 7_200_000), expected);
        let json = serde_json::to_string(&LineBody::new(&line)).unwrap();
        assert!(json.contains(r#"{"form":"valueBoolean","value":false,"node""#), "{json}");
        line.kind = "deletion".into();
        (line.values[1].form, line.values[1].value) = (None, None);
        assert_eq!(shown(&line), [r#"{"valueString":"positive"}"#, "(deleted)"]);
    }

    #[test]
    fn long_values_and_whole_records_stay_readable() {
        let mut line = conflict();
        line.values[0].value = Some(RawValue::from_string(format!("\"{}\"", "x".repeat(80))).unwrap());
        let long = text(&line, 7_200_000);
        assert!(long.contains("xxx\"\n       dong-van (cdcdcdcd), minh, 2 h ago\n"), "{long}");
        line.kind = "deletion".into();
        line.path = STATE_PATH.into();
        line.values[1].value = None;
        assert_eq!(shown(&line), ["(edited)", "(deleted)"]);
        let first = text(&line, 7_200_000);
        assert!(
            first.starts_with("Patient/8f21  #state: deleted at one place, edited at another\n"),
            "{first}"
        );
    }

    #[test]
    fn the_object_has_what_the_manual_promises() {
        let mut conflict = conflict();
        conflict.values[0].value = Some(RawValue::from_string("80.00".into()).unwrap());
        let text = serde_json::to_string(&LineBody::new(&conflict)).unwrap();
        assert!(text.starts_with(r#"{"record":"Patient/8f21","path":"birthDate","kind":"value","#), "{text}");
        assert!(text.contains(r#"{"value":80.00,"node":"cdcd"#), "{text}");
        assert!(text.contains(r#""org":"ha-giang","by":"minh","at":"1970-01-01T01:00:00Z"}"#), "{text}");
    }

    #[test]
    fn a_value_is_strict_json() {
        assert_eq!(value("80.00").unwrap().get(), "80.00");
        for wrong in ["1961-02-03", "abc", "{\"a\":1,\"a\":2}", ""] {
            assert!(value(wrong).is_err(), "{wrong}");
        }
    }
}
