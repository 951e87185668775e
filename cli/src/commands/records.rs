//! `tuyen records`: read, write and delete records. What always holds: a value that people disagree about is
//! never shown without saying so. Not here: import, export and history, which have files of their own.

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use node::{
    admin::{ListedRecord, Listing, Request, Resource, Status, Written},
    fhir::import::{Importer, Item},
};
use serde::Serialize;
use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};
use sync_core::id::{OrgId, RecordId};

use super::{Context, Writer, export::Export, history::History, import};
use crate::{
    output::{Exit, Outcome, Stop, failed, usage},
    render::{self, many},
};

/// Most records of one page of the daemon's answer.
const PAGE_RECORDS: u32 = 1_000;

/// What to do with records.
#[derive(Subcommand)]
pub enum Command {
    Import(import::Import),
    Put(Put),
    Issue(Issue),
    Get(Get),
    List(List),
    Export(Export),
    History(History),
    Delete(Delete),
}

impl Command {
    /// Does it.
    pub fn run(self, context: &Context) -> Outcome {
        match self {
            Command::Import(command) => command.run(context),
            Command::Put(command) => command.run(context),
            Command::Issue(command) => command.run(context),
            Command::Get(command) => command.run(context),
            Command::List(command) => command.run(context),
            Command::Export(command) => command.run(context),
            Command::History(command) => command.run(context),
            Command::Delete(command) => command.run(context),
        }
    }
}

/// Write one whole resource
///
/// Only what differs from the version that you had read is written: with --if-match that version, otherwise
/// the one that the node holds now.
#[derive(Args)]
#[command(before_help = "Example:\n  tuyen --dir dv records put patient.json\n  \
                         tuyen --dir dv records put - --if-match VERSION < patient.json")]
pub struct Put {
    /// A file with one resource, or - for standard input
    #[arg(value_name = "FILE|-")]
    from: PathBuf,
    /// The version that you had read
    #[arg(long, value_name = "VERSION")]
    if_match: Option<String>,
    #[command(flatten)]
    writer: Writer,
    /// Why; kept in the record's history
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
}

/// Write one whole resource for everybody below this node: a directive, a code list, a form
///
/// It becomes a record whose id begins with `o.` and this node's organization. It is signed by this node, goes to every
/// node below and up to the centre, and can be changed here and above alone.
#[derive(Args)]
#[command(before_help = "Example:\n  tuyen --dir hg records issue directive.json")]
pub struct Issue {
    /// A file with one resource, or - for standard input
    #[arg(value_name = "FILE|-")]
    from: PathBuf,
    #[command(flatten)]
    writer: Writer,
    /// Why; kept in the record's history
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
}

/// Print a resource
///
/// The resource itself goes to standard output: indented, or with --json on one line and as it is kept. If
/// people disagree about some of it, standard error says so.
#[derive(Args)]
#[command(before_help = "Example:\n  tuyen --dir dv records get Patient/8f21")]
pub struct Get {
    /// Which record
    #[arg(value_name = "TYPE/ID")]
    record: RecordId,
}

/// List records, in the order of their names
#[derive(Args)]
#[command(before_help = "Example:\n  tuyen --dir dv records list --type Patient --limit 20")]
pub struct List {
    /// Only this FHIR resource type
    #[arg(long = "type", value_name = "TYPE")]
    resource_type: Option<String>,
    /// Only records of which something that arrived is not shown: `records history` says what and why
    #[arg(long, conflicts_with = "resource_type")]
    unread: bool,
    /// Only records after this one
    #[arg(long, value_name = "TYPE/ID")]
    after: Option<RecordId>,
    /// At most so many
    #[arg(long, default_value_t = 100, value_name = "N")]
    limit: u64,
    /// All of them
    #[arg(long, conflicts_with = "limit")]
    all: bool,
}

/// Delete a record
///
/// Its history is kept. If somebody edited the record elsewhere meanwhile, the edit survives and the two are
/// shown as a conflict.
#[derive(Args)]
#[command(before_help = "Example:\n  tuyen --dir dv records delete Patient/8f21 --why \"entered twice\"")]
pub struct Delete {
    /// Which record
    #[arg(value_name = "TYPE/ID")]
    record: RecordId,
    /// The version that you had read
    #[arg(long, value_name = "VERSION")]
    if_match: Option<String>,
    #[command(flatten)]
    writer: Writer,
    /// Why; kept in the record's history
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
}

#[derive(Serialize)]
struct PutBody<'a> {
    record: &'a RecordId,
    version: Option<&'a str>,
    unchanged: bool,
    superseded: &'a [String],
    patients_not_here: &'a [RecordId],
    references_unresolved: u64,
}

#[derive(Serialize)]
struct ListBody<'a> {
    records: &'a [ListedRecord],
    more: bool,
}

impl Put {
    /// Does it.
    pub fn run(self, context: &Context) -> Outcome {
        let Item { id, resource, unresolved, .. } = one_resource(&self.from)?;
        let (by, why) = (self.writer.name(), self.why);
        let request = Request::Put { resources: vec![raw(&id, &resource)?], base: self.if_match, by, why };
        show_put(context, &id, &context.call(&request)?, "written", unresolved)
    }
}

impl Issue {
    /// Does it.
    pub fn run(self, context: &Context) -> Outcome {
        let Item { id, mut resource, unresolved, .. } = one_resource(&self.from)?;
        let Status { org, .. } = context.call(&Request::Status)?;
        let id = match id.issuer() {
            Some(_) => id,
            None => RecordId::issued(&org, id.resource_type(), id.id())
                .map_err(|error| usage(error.to_string()))?,
        };
        resource["id"] = id.id().into();
        let (by, why) = (self.writer.name(), self.why);
        let request = Request::Put { resources: vec![raw(&id, &resource)?], base: None, by, why };
        show_put(context, &id, &context.call(&request)?, "issued to everybody below", unresolved)
    }
}

/// The only resource of a file.
fn one_resource(from: &Path) -> Result<Item, Stop> {
    let mut found = Importer::open(from);
    let item = match found.next() {
        Some(Ok(item)) => item,
        Some(Err(rejected)) => return Err(failed(format!("nothing was written: {rejected}"))),
        None => return Err(usage("there is no resource in it; give a file with one FHIR resource")),
    };
    if found.next().is_some() {
        return Err(usage("there is more than one resource in it; `tuyen records import` takes many"));
    }
    Ok(item)
}

fn raw(id: &RecordId, resource: &Value) -> Result<Box<RawValue>, Stop> {
    to_raw_value(resource)
        .map_err(|error| failed(format!("{id} cannot be sent ({error}); nothing was written")))
}

impl Delete {
    /// Does it.
    pub fn run(self, context: &Context) -> Outcome {
        let Self { record, if_match: base, writer, why } = self;
        let request = Request::Delete { record: record.clone(), base, by: writer.name(), why };
        show_written(context, &record, &context.call(&request)?, "deleted")
    }
}

/// Shows the answer to the write of one record.
pub fn show_written(context: &Context, record: &RecordId, answer: &Written, done: &str) -> Outcome {
    show_put(context, record, answer, done, 0)
}

/// The same of a record that was read, of whose references so many name an entry that is not there.
fn show_put(context: &Context, record: &RecordId, answer: &Written, done: &str, unresolved: u64) -> Outcome {
    if let Some(rejected) = answer.rejected.first() {
        return Err(failed(format!("{record} was not {done}: {}", rejected.problem)));
    }
    let written = answer.written.first();
    let version = written.map(|written| written.version.as_str());
    let superseded = written.map_or(&[][..], |written| &written.superseded[..]);
    let patients_not_here = written.map_or(&[][..], |written| &written.patients_not_here[..]);
    let text = match version {
        Some(version) => format!("{record} is {done}. Version {version}.\n"),
        None => format!("{record} was already so.\n"),
    };
    if !superseded.is_empty() && !context.output.json {
        context.output.note(import::overwritten(record, superseded));
    }
    if !patients_not_here.is_empty() && !context.output.json {
        context.output.note(import::without_patient(record, patients_not_here));
    }
    if unresolved > 0 && !context.output.json {
        context.output.note(import::unresolved(record, unresolved));
    }
    let body = PutBody {
        record,
        version,
        unchanged: version.is_none(),
        superseded,
        patients_not_here,
        references_unresolved: unresolved,
    };
    context.output.result(text, &body)?;
    Ok(if superseded.is_empty() { Exit::Ok } else { Exit::Attention })
}

impl Get {
    /// Does it.
    pub fn run(self, context: &Context) -> Outcome {
        let found: Resource = context.call(&Request::Get { record: self.record })?;
        let text = found.resource.get();
        let text = if context.output.json { text.to_owned() } else { render::indented(text) };
        context.output.verbatim(text + "\n")?;
        if found.conflicts > 0 {
            let open = many(u64::from(found.conflicts), "conflict is", "conflicts are");
            context.output.note(format_args!(
                "{open} open on this record; see `tuyen conflicts show {}`",
                found.record
            ));
        }
        if std::io::stderr().is_terminal() && !context.output.json {
            context.output.note(format_args!("version {}", found.version));
        }
        Ok(Exit::Ok)
    }
}

impl List {
    /// Does it.
    pub fn run(self, context: &Context) -> Outcome {
        let mut client = context.client()?;
        let mut left = if self.all { u64::MAX } else { self.limit };
        let mut after = self.after;
        let mut records: Vec<ListedRecord> = Vec::new();
        let mut more = true;
        while left > 0 && more {
            let limit = u32::try_from(left).unwrap_or(PAGE_RECORDS).min(PAGE_RECORDS);
            let resource_type = self.resource_type.clone();
            let page: Listing =
                client.call(&Request::List { resource_type, unread: self.unread, after, limit }, |_| {})?;
            more = page.more && !page.records.is_empty();
            left = left.saturating_sub(page.records.len() as u64);
            after = page.records.last().map(|last| last.record.clone());
            if context.output.json {
                records.extend(page.records);
            } else {
                context.output.text(rows(&page.records))?;
            }
        }
        if context.output.json {
            context.output.object(&ListBody { records: &records, more })?;
        } else if let (true, Some(last)) = (more, after) {
            context.output.note(format_args!("there are more; go on with --after {last}, or see --all"));
        }
        Ok(Exit::Ok)
    }
}

fn rows(records: &[ListedRecord]) -> String {
    let row = |listed: &ListedRecord| {
        let homes: Vec<&str> = listed.homes.iter().map(OrgId::as_str).collect();
        let conflicts = match listed.conflicts {
            0 => String::new(),
            n => many(u64::from(n), "conflict", "conflicts"),
        };
        let state = match (listed.deleted, listed.version.as_str()) {
            (true, _) => "deleted",
            (false, "") => "unreadable",
            (false, _) => "",
        };
        vec![
            listed.record.to_string(),
            homes.join(","),
            render::safe(&listed.safe).to_owned(),
            conflicts,
            state.to_owned(),
        ]
    };
    render::table(&records.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_a_table() {
        let listed = |record: &str, conflicts, (version, deleted): (&str, _), safe: &str| ListedRecord {
            record: record.parse().unwrap(),
            version: version.into(),
            homes: vec![OrgId::new("dong-van").unwrap()],
            conflicts,
            deleted,
            safe: safe.into(),
        };
        let rows = rows(&[
            listed("Patient/8f21", 2, ("v", false), "root"),
            listed("Observation/1", 0, ("v", true), "local"),
            listed("Observation/2", 0, ("", false), "local"),
        ]);
        let expected = "Patient/8f21   dong-van  at the centre  2 conflicts\n\
                        Observation/1  dong-van  only here                   deleted\n\
                        Observation/2  dong-van  only here                   unreadable\n";
        assert_eq!(rows, expected);
    }
}
