//! `tuyen attachment`: which files are attached to records, where they are, and the files themselves. What always holds: a
//! file has its name only when all of it is there. Not here: attaching, which `records put` and `records import` do.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use data_encoding::BASE64;
use node::admin::{AttachmentLine, AttachmentPart, Attachments, Client, Request};
use serde::Serialize;
use sync_core::{
    attachment::INLINE_MAX_BYTES,
    id::{ContentHash, RecordId},
};

use super::Context;
use crate::{
    output::{Exit, Meter, Outcome, Stop, failed},
    render, whole,
};

/// What to do with attachments.
#[derive(Subcommand)]
pub enum Command {
    List(List),
    Fetch(Fetch),
}

impl Command {
    /// Does it.
    pub fn run(self, context: &Context) -> Outcome {
        match self {
            Command::List(command) => command.run(context),
            Command::Fetch(command) => command.run(context),
        }
    }
}

/// List attachments: how large each is, and where all of it is
///
/// What is not larger than 16 KiB stays in its record, goes where that goes, and is not listed.
#[derive(Args)]
#[command(before_help = "Example:\n  tuyen --dir dv attachment list DocumentReference/8f21")]
pub struct List {
    /// Only those of this record
    #[arg(value_name = "TYPE/ID")]
    record: Option<RecordId>,
}

/// Write an attachment to a file
///
/// What is not at this node is fetched from above, and goes on where it stopped when the line fails. Nothing else waits
/// for it. When nothing comes for a while the command ends, and the node goes on by itself.
#[derive(Args)]
#[command(before_help = "Example:\n  tuyen --dir qb attachment fetch DocumentReference/8f21 --out x-ray.dcm")]
pub struct Fetch {
    /// Of which record
    #[arg(value_name = "TYPE/ID")]
    record: RecordId,
    /// Which, where the record has several: its hash, as `attachment list` shows it
    #[arg(long, value_name = "HASH")]
    hash: Option<ContentHash>,
    /// The file to write; there must be none of that name
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// End when nothing has come for so many seconds
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    patience: u64,
}

#[derive(Serialize)]
struct ListBody<'a> {
    attachments: &'a [AttachmentLine],
}

#[derive(Serialize)]
struct FetchBody<'a> {
    attachment: &'a AttachmentLine,
    file: &'a Path,
}

impl List {
    /// Does it.
    pub fn run(self, context: &Context) -> Outcome {
        let (mut client, mut all, mut after) = (context.client()?, Vec::new(), None);
        loop {
            let request = Request::Attachments { record: self.record.clone(), after };
            let page: Attachments = client.call(&request, |_| {})?;
            if !context.output.json {
                context.output.text(rows(&page.attachments))?;
            }
            all.extend(page.attachments);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        if context.output.json {
            context.output.object(&ListBody { attachments: &all })?;
        } else if all.is_empty() {
            context.output.note(none(self.record.as_ref()));
        }
        Ok(Exit::Ok)
    }
}

fn none(record: Option<&RecordId>) -> String {
    let of = record.map_or_else(|| "any record here".to_owned(), RecordId::to_string);
    let most = INLINE_MAX_BYTES >> 10;
    format!("no attachment of {of} is kept beside it: what is not larger than {most} KiB stays in the record")
}

fn rows(lines: &[AttachmentLine]) -> String {
    let row = |line: &AttachmentLine| {
        let place = match line.safe.as_str() {
            "away" if line.here == 0 => "not here".to_owned(),
            "away" => format!("{} of it here", render::bytes(line.here)),
            safe => render::safe(safe).to_owned(),
        };
        vec![line.record.to_string(), render::bytes(line.bytes), place, line.hash.to_string()]
    };
    render::table(&lines.iter().map(row).collect::<Vec<_>>())
}

impl Fetch {
    /// Does it.
    pub fn run(self, context: &Context) -> Outcome {
        let Self { record, hash, out, patience: patience_seconds } = self;
        let (line, bytes) = whole::write(&out, |file, wrong| {
            let (mut client, mut meter) = (context.client()?, Meter::new());
            let request = Request::AttachmentFetch { record: record.clone(), hash, patience_seconds };
            let line: AttachmentLine = client.call(&request, |step| meter.show(&step))?;
            meter.clear();
            read(&mut client, &line, |bytes| file.write_all(bytes).map_err(wrong))?;
            let bytes = render::bytes(line.bytes);
            Ok((line, bytes))
        })?;
        let text = format!("{} holds the attachment of {record}, {bytes}.\n", out.display());
        context.output.result(text, &FetchBody { attachment: &line, file: &out })?;
        Ok(Exit::Ok)
    }
}

/// Reads an attachment that is whole at the daemon, in parts.
pub fn read(
    client: &mut Client,
    line: &AttachmentLine,
    mut take: impl FnMut(&[u8]) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let strange = || {
        failed(
            "the daemon gave something else than the attachment; compare `tuyen --version` and `tuyen status`",
        )
    };
    let mut from = 0;
    while from < line.bytes {
        let request = Request::AttachmentPart { record: line.record.clone(), hash: line.hash, from };
        let part: AttachmentPart = client.call(&request, |_| {})?;
        let bytes = BASE64.decode(part.bytes.as_bytes()).map_err(|_| strange())?;
        from += bytes.len() as u64;
        if bytes.is_empty() || from > line.bytes {
            return Err(strange());
        }
        take(&bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_nothing_says_where_small_ones_are() {
        let said = none(Some(&"Binary/1".parse().unwrap()));
        assert_eq!(
            said,
            "no attachment of Binary/1 is kept beside it: what is not larger than 16 KiB stays in the record"
        );
    }

    #[test]
    fn a_list_says_where_each_is() {
        let line = |here, safe: &str| AttachmentLine {
            record: "Binary/1".parse().unwrap(),
            hash: ContentHash([0xa7; 32]),
            bytes: 3_000_000,
            here,
            safe: safe.into(),
        };
        let text =
            rows(&[line(0, "away"), line(16_384, "away"), line(3_000_000, "local"), line(3_000_000, "root")]);
        let places: Vec<_> = text.lines().map(|line| line[17..line.len() - 66].trim()).collect();
        assert_eq!(places, ["not here", "16.3 kB of it here", "only here", "at the centre"], "{text}");
    }
}
