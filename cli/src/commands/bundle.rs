//! `tuyen bundle`: syncing with a neighbour by a stick that somebody carries. What always holds: a file appears under its
//! name only when it is whole; a file that comes is handed to the daemon, which takes it or says why not. Not here: the
//! format and the checks; see `node::courier`.

use std::{
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand, ValueEnum};
use node::{
    admin::{
        BundleCard, BundleExported, BundleImported, BundleInspected, BundleMet, BundlePlace, BundleSince,
        Failure, FailureKind, Request,
    },
    backup::{BackupError, Partial},
    courier::{CARD, CARD_MAX_BYTES},
};
use serde::{Serialize, de::DeserializeOwned};
use sync_core::id::{Lane, OrgId};

use super::Context;
use crate::{
    interrupt,
    output::{Exit, Meter, Outcome, Stop, failed},
    render::{self, ago, count, local, many, now_millis, rfc3339},
};

/// Bytes of a file that are handed over at a time.
const PIECE_BYTES: usize = 64 << 10;

/// What to do with bundles.
#[derive(Subcommand)]
pub enum Command {
    Export(Export),
    Inspect(Inspect),
    Import(Import),
    Card(Card),
}

impl Command {
    /// Does it.
    pub fn run(self, context: &Context) -> Outcome {
        match self {
            Command::Export(command) => command.run(context),
            Command::Inspect(command) => command.run(context),
            Command::Import(command) => command.run(context),
            Command::Card(command) => command.run(context),
        }
    }
}

/// Write what a neighbour does not have yet into a sealed file, for a stick
///
/// Only that neighbour's node can read the file, and it tells nobody else anything. It also says what this node has
/// received, so that the neighbour knows what is safe. Attachments come last: for the parent all that are not known to be there,
/// and for either what its last bundle has asked for. The neighbour is the parent or a child.
#[derive(Args)]
#[command(
    before_help = "Example:\n  tuyen --dir dv bundle export --for ha-giang --out /media/stick/dv-1.bundle"
)]
pub struct Export {
    /// The neighbour's organization
    #[arg(long = "for", value_name = "ORG")]
    org: OrgId,
    /// The file to make; it must not exist
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Where to go on: after what the neighbour is known to have, after the last bundle that was made for it, or at the
    /// beginning
    #[arg(long, value_enum, default_value_t = From::Acknowledged)]
    since: From,
    /// How long the file may be, such as 512MB; what does not fit goes into the next one, made with --since last
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_bytes: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum From {
    Acknowledged,
    Last,
    Start,
}

/// Say what a bundle for this node is, without taking it
///
/// Checks all of it. Only the node that a bundle is for can open it, not even the one that has made it.
#[derive(Args)]
#[command(before_help = "Example:\n  tuyen --dir hg bundle inspect /media/stick/dv-1.bundle")]
pub struct Inspect {
    /// The bundle
    file: PathBuf,
}

/// Take what a neighbour has written into a bundle for this node
///
/// Bundles may be imported in any order, several times, and whether there is a line or not; what is here already changes
/// nothing. A card that was made with `tuyen bundle card` is taken as well.
#[derive(Args)]
#[command(before_help = "Example:\n  tuyen --dir hg bundle import /media/stick/dv-1.bundle")]
pub struct Import {
    /// The bundle, or a card
    file: PathBuf,
}

/// Make a small file with which a neighbour that has never met this node can seal bundles for it
///
/// It holds this node's certificates, which are no secret.
#[derive(Args)]
#[command(before_help = "Example:\n  tuyen --dir hg bundle card --out /media/stick/ha-giang.card")]
pub struct Card {
    /// The file to make; it must not exist
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// A number of bytes, as people write it.
fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is not a size; write it like 700MB, 4GB or 65536");
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => return Err(wrong()),
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).ok_or_else(wrong)
}

#[derive(Serialize)]
struct Lanes {
    urgent: u64,
    normal: u64,
    bulk: u64,
}

impl std::convert::From<[u64; 3]> for Lanes {
    fn from([urgent, normal, bulk]: [u64; 3]) -> Self {
        Self { urgent, normal, bulk }
    }
}

#[derive(Serialize)]
struct PlaceBody {
    lane: Lane,
    segment: String,
    position: u64,
}

fn place_bodies(places: &[BundlePlace]) -> Vec<PlaceBody> {
    let body = |place: &BundlePlace| PlaceBody {
        lane: place.lane,
        segment: place.at.segment.to_string(),
        position: place.at.pos,
    };
    places.iter().map(body).collect()
}

#[derive(Serialize)]
struct ExportBody {
    file: String,
    bytes: u64,
    to: String,
    made_at: String,
    entries: Lanes,
    attachments: u64,
    attachment_bytes: u64,
    from: Vec<PlaceBody>,
    secret_records_kept_back: u64,
    more: bool,
}

#[derive(Serialize)]
struct InspectBody {
    file: String,
    sender: String,
    software: String,
    recipient: String,
    made_at: String,
    entries: Lanes,
    attachments: u64,
    attachment_bytes: u64,
    from: Vec<PlaceBody>,
    upto: Vec<PlaceBody>,
    more: bool,
    imported: bool,
    gaps: Vec<Lane>,
}

#[derive(Serialize)]
struct ImportBody {
    file: String,
    sender: String,
    made_at: String,
    new: u64,
    known: u64,
    aside: u64,
    attachments: u64,
    attachments_in_part: u64,
    attachments_without_record: u64,
    gaps: Vec<Lane>,
    more: bool,
    older: bool,
    lost: bool,
    linked: bool,
}

#[derive(Serialize)]
struct CardBody {
    file: String,
}

#[derive(Serialize)]
struct MetBody {
    file: String,
    place: String,
}

/// What an error of making a file means.
fn stop(error: BackupError) -> Stop {
    Failure::from(error).into()
}

/// A file that appears when it is whole.
fn begin(out: &Path) -> Result<Partial, Stop> {
    let partial = Partial::begin(out).map_err(stop)?;
    let path = partial.path().to_owned();
    interrupt::before_the_end(move || drop(std::fs::remove_file(path)));
    Ok(partial)
}

impl Export {
    fn run(self, context: &Context) -> Outcome {
        let mut client = context.client()?;
        let mut partial = begin(&self.out)?;
        let since = match self.since {
            From::Acknowledged => BundleSince::Acknowledged,
            From::Last => BundleSince::Last,
            From::Start => BundleSince::Start,
        };
        let request = Request::BundleExport { org: self.org.clone(), since, max_bytes: self.max_bytes };
        let mut meter = Meter::new();
        let keep = |bytes: &[u8]| partial.write_all(bytes).map_err(|error| partial.failed(error).into());
        let exported: BundleExported = client.receive(&request, |step| meter.show(&step), keep)?;
        let bytes = partial.bytes();
        partial.keep().map_err(stop)?;
        let kept = Request::BundleKept { node: exported.node, made_at: exported.made_at };
        client.call::<()>(&kept, |_| {})?;
        meter.clear();
        let body = ExportBody {
            file: self.out.display().to_string(),
            bytes,
            to: exported.to.to_string(),
            made_at: rfc3339(exported.made_at),
            entries: exported.entries.into(),
            attachments: exported.attachments,
            attachment_bytes: exported.attachment_bytes,
            from: place_bodies(&exported.from),
            secret_records_kept_back: exported.kept_back,
            more: exported.more,
        };
        context.output.result(self.in_words(&exported, bytes), &body)?;
        Ok(Exit::Ok)
    }

    fn in_words(&self, exported: &BundleExported, bytes: u64) -> String {
        let (file, to) = (self.out.display(), &exported.to);
        let secret = match exported.kept_back {
            0 => String::new(),
            n => format!(
                "{} here.\n",
                many(n, "record is marked secret and stays", "records are marked secret and stay")
            ),
        };
        let next = if exported.more {
            format!(
                "More is waiting than fitted: make the next with\n  tuyen bundle export --for {} --since last --out FILE\n",
                self.org
            )
        } else {
            String::new()
        };
        format!(
            "{file}: {} for {to}, {}; only its node can open it.\n{secret}{next}Import it there with `tuyen bundle import`. \
             Nothing counts as safe until a bundle or the line from there says so.\n",
            holds(exported.entries, exported.attachments),
            render::bytes(bytes)
        )
    }
}

/// What a bundle holds.
fn holds(lanes: [u64; 3], attachments: u64) -> String {
    match attachments {
        0 => entries(lanes),
        n => format!("{} and {}", entries(lanes), many(n, "attachment", "attachments")),
    }
}

fn entries(lanes: [u64; 3]) -> String {
    let parts = ["urgent", "normal", "bulk"].into_iter().zip(lanes).filter(|(_, n)| *n > 0);
    let parts: Vec<_> = parts.map(|(lane, n)| format!("{} {lane}", count(n))).collect();
    let total = many(lanes.iter().sum(), "entry", "entries");
    if parts.is_empty() { total } else { format!("{total} ({})", parts.join(", ")) }
}

/// Hands a file to the daemon.
fn hand_over<T: DeserializeOwned>(
    context: &Context,
    path: &Path,
    request: impl FnOnce(u64) -> Request,
) -> Result<T, Stop> {
    let unread = |error: std::io::Error| {
        let text = format!("cannot read {}: {error}; check the stick and the name", path.display());
        Failure::new(FailureKind::Failed, text)
    };
    let mut file = File::open(path).map_err(unread)?;
    let bytes = file.metadata().map_err(unread)?.len();
    let mut left = bytes;
    let next = || {
        if left == 0 {
            return Ok(None);
        }
        let mut piece = vec![0; PIECE_BYTES.min(usize::try_from(left).unwrap_or(PIECE_BYTES))];
        file.read_exact(&mut piece).map_err(unread)?;
        left -= piece.len() as u64;
        Ok(Some(piece))
    };
    let mut meter = Meter::new();
    let answer = context.client()?.send(&request(bytes), next, |step| meter.show(&step));
    meter.clear();
    answer.map_err(|mut failure| {
        failure.text = format!("{}: {}", path.display(), failure.text);
        failure.into()
    })
}

impl Inspect {
    fn run(self, context: &Context) -> Outcome {
        let found: BundleInspected =
            hand_over(context, &self.file, |bytes| Request::BundleInspect { bytes })?;
        let body = InspectBody {
            file: self.file.display().to_string(),
            sender: found.sender.to_string(),
            software: found.software.clone(),
            recipient: found.recipient.to_string(),
            made_at: rfc3339(found.made_at),
            entries: found.entries.into(),
            attachments: found.attachments,
            attachment_bytes: found.attachment_bytes,
            from: place_bodies(&found.from),
            upto: place_bodies(&found.upto),
            more: found.more,
            imported: found.imported,
            gaps: found.gaps.clone(),
        };
        context.output.result(self.in_words(&found), &body)?;
        Ok(Exit::Ok)
    }

    fn in_words(&self, found: &BundleInspected) -> String {
        let goes_on = match (found.from.is_empty(), found.gaps.is_empty()) {
            (true, _) => "It begins at the beginning.".to_owned(),
            (false, true) => "It goes on where this node has come to, or before.".to_owned(),
            (false, false) => format!(
                "An earlier bundle is missing: it goes on from a place to which this node has not come ({}).",
                lanes(&found.gaps)
            ),
        };
        let more = if found.more { " More was waiting there than fitted." } else { "" };
        let imported = match (found.imported, found.gaps.is_empty()) {
            (true, _) => "All of it is here already.",
            (false, true) => "It has not been imported yet.",
            (false, false) => "Import that and then this one, also if this one was imported before.",
        };
        format!(
            "{}: from {} for {}, {}.\nMade {} ({}) by {}.\n{goes_on}{more}\n{imported}\n",
            self.file.display(),
            found.sender,
            found.recipient,
            holds(found.entries, found.attachments),
            local(found.made_at),
            ago(found.made_at, now_millis()),
            found.software,
        )
    }
}

fn lanes(lanes: &[Lane]) -> String {
    let name = |lane: &Lane| match lane {
        Lane::Urgent => "urgent",
        Lane::Normal => "normal",
        Lane::Bulk => "bulk",
    };
    lanes.iter().map(name).collect::<Vec<_>>().join(", ")
}

impl Import {
    fn run(self, context: &Context) -> Outcome {
        if let Some(card) = card(&self.file) {
            let met: BundleMet = context.call(&Request::BundleMeet { card })?;
            let (file, place) = (self.file.display().to_string(), met.place.to_string());
            let text = format!("{file}: the card of {place}; bundles for it can be made here now.\n");
            context.output.result(text, &MetBody { file, place })?;
            return Ok(Exit::Ok);
        }
        let taken: BundleImported = hand_over(context, &self.file, |bytes| Request::BundleImport { bytes })?;
        let body = ImportBody {
            file: self.file.display().to_string(),
            sender: taken.sender.to_string(),
            made_at: rfc3339(taken.made_at),
            new: taken.new,
            known: taken.known,
            aside: taken.aside,
            attachments: taken.attachments,
            attachments_in_part: taken.attachments_in_part,
            attachments_without_record: taken.attachments_without_record,
            gaps: taken.gaps.clone(),
            more: taken.more,
            older: taken.older,
            lost: taken.lost,
            linked: taken.linked,
        };
        context.output.result(self.in_words(&taken), &body)?;
        let files = taken.attachments_without_record > 0 || (taken.attachments_in_part > 0 && !taken.more);
        let look = !taken.gaps.is_empty() || taken.older || taken.lost || files;
        Ok(if look { Exit::Attention } else { Exit::Ok })
    }

    fn in_words(&self, taken: &BundleImported) -> String {
        let sender = &taken.sender;
        let org = sender.org();
        let known = match taken.known {
            0 => String::new(),
            n => format!(", {} here already", many(n, "was", "were")),
        };
        let attachments = match taken.attachments {
            0 => String::new(),
            n => format!(" and {}", many(n, "whole attachment", "whole attachments")),
        };
        let mut text = format!(
            "{}: {}{attachments} of {sender}{known}.\n",
            self.file.display(),
            many(taken.new, "new entry", "new entries")
        );
        if taken.older {
            text += &format!(
                "{sender} did not know, when it made this, what was read of it here: its data was put back from a backup. \
                 {GO_ON}\n"
            );
        } else if !taken.gaps.is_empty() {
            text += &format!(
                "An earlier bundle is missing ({}), so these entries are kept but not acknowledged{}. Import the earlier one \
                 and then this one again; if it is lost, export a bundle for {org} here, import it there, and let them make \
                 the next.\n",
                lanes(&taken.gaps),
                match taken.aside {
                    0 => String::new(),
                    n => format!(", and {} for it", many(n, "entry waits", "entries wait")),
                }
            );
        }
        if taken.lost {
            text += &format!(
                "{sender} has read more of this node than this node knows: this node was put back from a backup. {GO_ON}\n"
            );
        }
        if taken.attachments_in_part > 0 {
            let files = many(taken.attachments_in_part, "attachment is", "attachments are");
            text += &format!(
                "{files} here in part: other bundles of {sender} have the rest, or the next one after a bundle from here.\n"
            );
        }
        if taken.attachments_without_record > 0 {
            let files = many(taken.attachments_without_record, "attachment", "attachments");
            text += &format!(
                "Nothing was taken of {files}, because their records are not here: import the bundle that has those, and then \
                 this one again.\n"
            );
        }
        if taken.linked {
            text += &format!(
                "{sender} is connected, so it says itself what it has, and what this bundle acknowledges did not count. If that line \
                 is dead, import this again when `tuyen peers` does not say \"connected\" any more.\n"
            );
        }
        if taken.more {
            text += &format!("More was waiting at {sender} than fitted: the next bundle goes on.\n");
        }
        text + &format!("To acknowledge: tuyen bundle export --for {org} --out FILE\n")
    }
}

/// What there is to do when a node was put back.
const GO_ON: &str = "Go on carrying bundles both ways: the next ones bring back what it has lost, and after three there and back \
                     at the most everything is acknowledged again.";

/// What a file holds, if it is a card.
fn card(path: &Path) -> Option<String> {
    let mut text = Vec::new();
    File::open(path).ok()?.take(CARD_MAX_BYTES).read_to_end(&mut text).ok()?;
    text.starts_with(CARD.as_bytes()).then(|| String::from_utf8_lossy(&text).into_owned())
}

impl Card {
    fn run(self, context: &Context) -> Outcome {
        let made: BundleCard = context.call(&Request::BundleCard)?;
        let mut partial = begin(&self.out)?;
        let written = partial.write_all(made.card.as_bytes());
        written.map_err(|error| failed(partial.failed(error).to_string()))?;
        partial.keep().map_err(stop)?;
        let file = self.out.display().to_string();
        let text = format!(
            "{file}: the card of this node. Import it at the neighbour with `tuyen bundle import`.\n"
        );
        context.output.result(text, &CardBody { file })?;
        Ok(Exit::Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("65536", Some(65_536)),
            ("512MB", Some(512_000_000)),
            ("4 gb", Some(4_000_000_000)),
            ("1kB", Some(1_000)),
            ("", None),
            ("MB", None),
            ("1.5MB", None),
            ("4TB", None),
            ("99999999999999999999", None),
            ("18446744073709551615kB", None),
        ] {
            assert_eq!(size(text).ok(), bytes, "{text}");
        }
    }
}
