//! `tuyen records export`: all live records of a node as NDJSON. What always holds: a file appears under its
//! name only when it is whole. Not here: the form of a line; see `node::fhir::export`.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use node::{
    admin::{Page, Progress, Request, Status},
    fhir::export::write_line,
};
use serde::Serialize;

use super::Context;
use crate::{
    output::{Exit, Meter, Outcome, Stop, failed, output_error},
    render::many,
};

/// Records of one page of the daemon's answer.
const PAGE_RECORDS: u32 = 500;

/// Export all records as NDJSON, one resource a line
///
/// Without a FILE the lines go to standard output, also with --json. With a FILE they go there, and --json
/// prints how many they were.
#[derive(Args)]
#[command(before_help = "Example:\n  tuyen --dir root records export all.ndjson\n  \
                         tuyen --dir root records export | gzip > all.ndjson.gz")]
pub struct Export {
    /// Where to; standard output if not given
    #[arg(value_name = "FILE")]
    to: Option<PathBuf>,
}

#[derive(Serialize)]
struct ExportBody {
    file: String,
    records: u64,
}

impl Export {
    /// Does it.
    pub fn run(self, context: &Context) -> Outcome {
        match self.to.filter(|to| to.as_os_str() != "-") {
            None => {
                let mut out = BufWriter::new(io::stdout().lock());
                pages(context, &mut out, output_error)?;
                out.flush().map_err(output_error)?;
            }
            Some(to) => {
                let records = to_file(context, &to)?;
                let body = ExportBody { file: to.display().to_string(), records };
                let text = format!("{} in {}.\n", many(records, "record", "records"), body.file);
                context.output.result(text, &body)?;
            }
        }
        Ok(Exit::Ok)
    }
}

fn to_file(context: &Context, to: &Path) -> Result<u64, Stop> {
    let wrong = |error: io::Error| {
        failed(format!("cannot write {} ({error}); check the folder, its owner and the disk", to.display()))
    };
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = tempfile::NamedTempFile::new_in(folder);
    // Its own error names a file that nobody has heard of.
    let mut file = file.map_err(|error| wrong(error.kind().into()))?;
    let mut out = BufWriter::new(file.as_file_mut());
    let records = pages(context, &mut out, wrong)?;
    out.flush().map_err(wrong)?;
    drop(out);
    file.as_file().sync_all().map_err(wrong)?;
    file.persist(to).map_err(|error| wrong(error.error))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(wrong)?;
    Ok(records)
}

fn pages(context: &Context, out: &mut impl Write, wrong: impl Fn(io::Error) -> Stop) -> Result<u64, Stop> {
    let mut client = context.client()?;
    let status: Status = client.call(&Request::Status, |_| {})?;
    let mut meter = Meter::new();
    let (mut after, mut done) = (None, 0);
    loop {
        let page: Page = client.call(&Request::Export { after, limit: PAGE_RECORDS }, |_| {})?;
        for resource in &page.resources {
            write_line(out, resource.get()).map_err(&wrong)?;
        }
        done += page.resources.len() as u64;
        meter.show(&Progress { what: "records exported".into(), done, total: Some(status.records) });
        after = page.next;
        if after.is_none() {
            return Ok(done);
        }
    }
}
