//! `tuyen records export`: all live records of a node as NDJSON. What always holds: a file appears under its
//! name only when it is whole. Not here: the form of a line; see `node::fhir::export`.

use std::{
    io::{self, BufWriter, Write},
    path::PathBuf,
};

use clap::Args;
use node::{
    admin::{Attachments, Client, Page, Progress, Request, Status},
    fhir::{
        attachment::{self, ATTACHMENT_EXTENSION},
        export::write_line,
        import,
    },
};
use serde::Serialize;

use super::{Context, attachment::read};
use crate::{
    output::{Exit, Meter, Outcome, Stop, failed, output_error},
    render::many,
    whole::{self, Wrong},
};

/// Records of one page of the daemon's answer.
const PAGE_RECORDS: u32 = 500;

/// Export all records as NDJSON, one resource a line
///
/// Large attachments stand in their resources again, as base64. One that is not all at this node is named by its hash alone; then
/// the exit code is 5.
///
/// Nothing in it is encrypted. How many of the records are secret is said.
///
/// Without a FILE the lines go to standard output, also with --json. With a FILE they go there, and --json
/// prints how many they were.
#[derive(Args)]
#[command(before_help = "Example:\n  tuyen --dir root records export all.ndjson\n  \
                         tuyen --dir root records export | gzip > all.ndjson.gz")]
pub struct Export {
    /// The file to make; it must not exist. Standard output if not given
    #[arg(value_name = "FILE")]
    to: Option<PathBuf>,
}

#[derive(Serialize)]
struct ExportBody {
    file: String,
    records: u64,
    attachments: u64,
    attachments_away: u64,
    secret: u64,
}

/// How much has been written.
#[derive(Default)]
struct Written {
    records: u64,
    /// Attachments that stand in their place again.
    attachments: u64,
    /// Those that are not here.
    away: u64,
    /// Records that are secret.
    secret: u64,
}

impl Export {
    /// Does it.
    pub fn run(self, context: &Context) -> Outcome {
        let written = match self.to.filter(|to| to.as_os_str() != "-") {
            None => {
                let mut out = BufWriter::new(io::stdout().lock());
                let written = pages(context, &mut out, &output_error)?;
                out.flush().map_err(output_error)?;
                written
            }
            Some(to) => {
                let written = whole::write(&to, |out, wrong| pages(context, out, wrong))?;
                let Written { records, attachments, away: attachments_away, secret } = written;
                let file = to.display().to_string();
                let body = ExportBody { file, records, attachments, attachments_away, secret };
                let files = match attachments {
                    0 => String::new(),
                    n => format!(" with {}", many(n, "large attachment", "large attachments")),
                };
                let text = format!("{}{files} in {}.\n", many(records, "record", "records"), body.file);
                context.output.result(text, &body)?;
                written
            }
        };
        if written.secret > 0 {
            context.output.note(format_args!(
                "{} secret, and can be read in what was written by whoever has it: keep it as such, and wipe it when it is no \
                 longer needed",
                many(written.secret, "record is", "records are")
            ));
        }
        if written.away == 0 {
            return Ok(Exit::Ok);
        }
        context.output.note(format_args!(
            "{} not all here, and named by the hash alone; `tuyen attachment list` shows which, and `tuyen attachment fetch` \
             gets one",
            many(written.away, "attachment is", "attachments are")
        ));
        Ok(Exit::Attention)
    }
}

fn pages(context: &Context, out: &mut dyn Write, wrong: Wrong) -> Result<Written, Stop> {
    let mut client = context.client()?;
    let status: Status = client.call(&Request::Status, |_| {})?;
    let mut meter = Meter::new();
    let (mut after, mut written) = (None, Written::default());
    loop {
        let page: Page = client.call(&Request::Export { after, limit: PAGE_RECORDS }, |_| {})?;
        for resource in &page.resources {
            let resource = resource.get();
            if resource.contains(ATTACHMENT_EXTENSION) {
                write_line(out, &with_attachments(&mut client, resource, &mut written)?).map_err(wrong)?;
            } else {
                write_line(out, resource).map_err(wrong)?;
            }
        }
        written.records += page.resources.len() as u64;
        written.secret += page.secret;
        let (done, total) = (written.records, Some(status.records));
        meter.show(&Progress { what: "records exported".into(), done, total });
        after = page.next;
        if after.is_none() {
            return Ok(written);
        }
    }
}

/// A resource whose large content stands in its place again, as far as it is here.
fn with_attachments(client: &mut Client, resource: &str, written: &mut Written) -> Result<String, Stop> {
    let Ok((Some(record), mut value)) = import::resource(resource.as_bytes()) else {
        return Err(failed(
            "the daemon gave a resource that cannot be read; compare `tuyen --version` and `tuyen status`",
        ));
    };
    let all: Attachments =
        client.call(&Request::Attachments { record: Some(record), after: None }, |_| {})?;
    attachment::put_back(&mut value, &mut |wanted| {
        let line = all.attachments.iter().find(|line| line.hash == wanted.hash && line.bytes == wanted.size);
        let Some(line) = line.filter(|line| line.here == line.bytes) else {
            written.away += 1;
            return Ok(None);
        };
        let mut content = Vec::new();
        read(client, line, |bytes| {
            content.extend_from_slice(bytes);
            Ok(())
        })?;
        written.attachments += 1;
        Ok::<_, Stop>(Some(content))
    })?;
    Ok(value.to_string())
}
