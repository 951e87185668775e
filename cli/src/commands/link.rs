//! `tuyen link`: what a node may use of its line to its parent, of a running node or a stopped one. Not here: how the
//! links stand; see `links`.

use clap::{Args, Subcommand, ValueEnum};
use node::{
    admin::{Client, FailureKind, Line, Request, Waiting},
    budget::{self, Budget, BudgetError, Change, MB, Offset, Rate, Why, Window},
    setup,
};
use serde::Serialize;

use super::Context;
use crate::{
    output::{Exit, Outcome, Stop, usage},
    render::{self, bytes, many},
};

/// What the line costs.
#[derive(Subcommand)]
pub enum Command {
    /// What may be used of the line to the parent, and what is
    #[command(before_help = "Example:\n  tuyen --dir dv link show")]
    Show,
    Set(Set),
}

/// Change what may be used of the line to the parent
///
/// It holds at once, also for what comes from the parent, and across restarts; what is not named stays as it is. What is
/// urgent (allergies, flags, detected issues, requests to communicate) never waits. Bulk is audit events, provenance,
/// binaries, media and code systems.
#[derive(Args)]
#[command(before_help = "Example:\n  tuyen --dir dv link set --metered yes --bulk-window 22:00-05:00\n  \
                   tuyen --dir dv link set --rate '06:00-18:00 128 kbit/s' --monthly-cap '500 MB'")]
pub struct Set {
    /// Whether what the line carries is paid for: then bulk waits for its window
    #[arg(long, value_name = "yes|no")]
    metered: Option<YesNo>,
    /// When bulk may go on a metered line, in local time [22:00-05:00 if never set]
    #[arg(long, value_name = "FROM-TO")]
    bulk_window: Option<Window>,
    /// How much of the line may be used in a part of the day, each way; may be given several times, in place of all that were
    /// set; where two overlap the lower counts; 'none' takes them away
    #[arg(long, value_name = "FROM-TO RATE")]
    rate: Vec<String>,
    /// How much a calendar month has, both ways; when it is used up bulk waits for the next; 'none' takes it away
    #[arg(long, value_name = "AMOUNT", allow_hyphen_values = true)]
    monthly_cap: Option<String>,
    /// Local time's distance from UTC [+07:00 if never set]
    #[arg(long, value_name = "+HH:MM", allow_hyphen_values = true)]
    utc_offset: Option<Offset>,
}

#[derive(Clone, Copy, ValueEnum)]
enum YesNo {
    Yes,
    No,
}

/// The line as JSON.
#[derive(Serialize)]
pub struct LineBody<'a> {
    parent: String,
    metered: bool,
    bulk_window: String,
    rates: Vec<String>,
    monthly_cap_mb: Option<u64>,
    utc_offset: String,
    rate_kbits: Option<u32>,
    month: &'a str,
    month_bytes: Option<u64>,
    used_percent: Option<u64>,
    bulk: Option<WaitingBody>,
}

/// That bulk waits, as JSON.
#[derive(Serialize)]
pub struct WaitingBody {
    entries: u64,
    attachments: u64,
    attachment_bytes: u64,
    until: String,
    why: Why,
}

impl WaitingBody {
    /// The JSON of this.
    pub fn new(waiting: &Waiting) -> Self {
        let Waiting { entries, attachments, attachment_bytes, until, why, .. } = *waiting;
        Self { entries, attachments, attachment_bytes, until: render::rfc3339(until), why }
    }
}

impl<'a> LineBody<'a> {
    /// The JSON of this line.
    pub fn new(line: &'a Line) -> Self {
        let Budget { metered, bulk_window, rates, monthly_cap_mb, utc_offset } = &line.budget;
        Self {
            parent: line.parent.to_string(),
            metered: *metered,
            bulk_window: bulk_window.to_string(),
            rates: rates.iter().map(Rate::to_string).collect(),
            monthly_cap_mb: *monthly_cap_mb,
            utc_offset: utc_offset.to_string(),
            rate_kbits: line.rate_kbits,
            month: &line.month,
            month_bytes: line.month_bytes,
            used_percent: line.month_bytes.and_then(|used| line.budget.used_percent(used)),
            bulk: line.bulk.as_ref().map(WaitingBody::new),
        }
    }
}

impl Command {
    /// Does it.
    pub fn run(self, context: &Context) -> Outcome {
        let change = match self {
            Command::Show => None,
            Command::Set(set) => Some(set.change()?),
        };
        let dir = context.dir()?;
        let line = match Client::connect(dir) {
            Ok(mut client) => {
                let request = change.map_or(Request::LinkShow, Request::LinkSet);
                client.call(&request, |_| {})?
            }
            Err(failure) if failure.kind == FailureKind::Unreachable => match change {
                None => setup::budget(dir)?,
                Some(change) => setup::set_budget(dir, change)?,
            },
            Err(failure) => return Err(failure.into()),
        };
        context.output.result(text(&line), &LineBody::new(&line))?;
        Ok(Exit::Ok)
    }
}

fn bad(error: BudgetError) -> Stop {
    usage(error.to_string())
}

impl Set {
    fn change(&self) -> Result<Change, Stop> {
        let rates = match &self.rate[..] {
            [] => None,
            [none] if none.trim() == "none" => Some(Vec::new()),
            all => Some(all.iter().map(|rate| rate.parse::<Rate>()).collect::<Result<_, _>>().map_err(bad)?),
        };
        let cap = self.monthly_cap.as_deref().map(budget::cap).transpose().map_err(bad)?;
        let change = Change {
            metered: self.metered.map(|it| matches!(it, YesNo::Yes)),
            bulk_window: self.bulk_window,
            rates,
            monthly_cap_mb: cap.map(|cap| cap.unwrap_or(0)),
            utc_offset: self.utc_offset,
        };
        if change == Change::default() {
            return Err(usage(
                "nothing is to be changed; name what, as in --metered yes, or see `tuyen link show`",
            ));
        }
        Ok(change)
    }
}

/// How much of the month is used; none when no daemon says it.
fn use_of_month(line: &Line) -> Option<String> {
    let used = line.month_bytes?;
    Some(match line.budget.cap_bytes().zip(line.budget.used_percent(used)) {
        Some((cap, percent)) => {
            format!("{} of {} used in {} ({percent} %)", bytes(used), bytes(cap), line.month)
        }
        None => format!("{} used in {}", bytes(used), line.month),
    })
}

/// What a status says of the line; none when nothing is limited.
pub fn in_words(line: &Line) -> Option<String> {
    if line.budget.is_default() {
        return None;
    }
    let mut parts: Vec<String> = line.budget.metered.then(|| "metered".to_owned()).into_iter().collect();
    parts.extend(line.rate_kbits.map(|kbits| format!("{kbits} kbit/s at this hour")));
    parts.extend(use_of_month(line));
    Some(parts.join(", "))
}

/// That bulk waits, in a sentence; none when none is there.
pub fn waits(waiting: &Waiting) -> Option<String> {
    let why = match waiting.why {
        Why::Window => "because the line is metered",
        Why::Cap => "because the month's amount is used up",
    };
    let entries = many(waiting.entries, "entry of bulk", "entries of bulk");
    let files = attachments(waiting.attachments, waiting.attachment_bytes);
    let (what, several) = match (waiting.entries, waiting.attachments) {
        (0, 0) => return None,
        (0, n) => (files, n > 1),
        (n, 0) => (entries, n > 1),
        _ => (format!("{entries} and {files}"), true),
    };
    let wait = if several { "wait" } else { "waits" };
    Some(format!("{what} {wait} until {}, {why}", waiting.utc_offset.show(waiting.until)))
}

/// So many attachments, and how large they are together.
pub fn attachments(number: u64, size: u64) -> String {
    format!("{} ({})", many(number, "attachment", "attachments"), bytes(size))
}

fn text(line: &Line) -> String {
    let Budget { metered, bulk_window, rates, utc_offset, .. } = &line.budget;
    let metered = match metered {
        true => format!("yes; bulk goes {bulk_window}"),
        false => "no".to_owned(),
    };
    let rates = match &rates[..] {
        [] => "all of the line".to_owned(),
        all => {
            let each: Vec<_> = all.iter().map(Rate::to_string).collect();
            let overlap = if all.len() > 1 { "; the lowest where they overlap" } else { "" };
            format!("{}{overlap}; otherwise all of the line", each.join(", "))
        }
    };
    let cap =
        line.budget.monthly_cap_mb.map_or("none".to_owned(), |_| bytes(line.budget.cap_bytes().unwrap_or(0)));
    let used = use_of_month(line).unwrap_or_else(|| "not known: no daemon runs".to_owned());
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let rows = [
        row("metered", metered),
        row("rate", rates),
        row("monthly cap", cap),
        row("this month", used),
        row("local time", format!("UTC{utc_offset}")),
    ];
    let mut out = format!("The line to {}:\n\n{}", line.parent, render::table(&rows));
    if let Some(waiting) = &line.bulk {
        let until = waiting.utc_offset.show(waiting.until);
        out.push_str(&format!("\nBulk may go from {until} on: {}. All else goes on.\n", what_waits(waiting)));
    }
    out
}

fn what_waits(waiting: &Waiting) -> String {
    let Waiting { entries, attachments, attachment_bytes, .. } = waiting;
    let content =
        format!("{} ({})", many(*attachments, "attachment", "attachments"), bytes(*attachment_bytes));
    match (*entries, *attachments) {
        (0, 0) => "nothing waits".to_owned(),
        (entries, 0) => many(entries, "entry waits", "entries wait"),
        (0, 1) => format!("{content} waits"),
        (0, _) => format!("{content} wait"),
        (entries, _) => format!("{} and {content} wait", many(entries, "entry", "entries")),
    }
}

const _: () = assert!(MB == 1_000_000, "bytes are shown in the megabytes of the cap");

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        let budget = Budget {
            metered: true,
            rates: vec!["06:00-18:00 128 kbit/s".parse().unwrap()],
            monthly_cap_mb: Some(500),
            ..Budget::default()
        };
        Line {
            parent: "trung-uong/ha-giang".parse().unwrap(),
            rate_kbits: Some(128),
            month: "2026-11".into(),
            month_bytes: Some(412_000_000),
            bulk: Some(Waiting {
                entries: 35,
                attachments: 0,
                attachment_bytes: 0,
                until: 1_795_964_400_000,
                why: Why::Window,
                utc_offset: Offset::VIETNAM,
            }),
            budget,
        }
    }

    #[test]
    fn a_person_reads_what_is_set_and_what_waits() {
        let expected = "\
The line to trung-uong/ha-giang:

metered      yes; bulk goes 22:00-05:00
rate         06:00-18:00 128 kbit/s; otherwise all of the line
monthly cap  500.0 MB
this month   412.0 MB of 500.0 MB used in 2026-11 (82 %)
local time   UTC+07:00

Bulk may go from 2026-11-29 22:00 on: 35 entries wait. All else goes on.
";
        assert_eq!(text(&line()), expected);
        let mut other = line();
        for (entries, attachments, said) in [
            (0, 0, "nothing waits"),
            (1, 0, "1 entry waits"),
            (0, 1, "1 attachment (20.0 MB) waits"),
            (0, 2, "2 attachments (20.0 MB) wait"),
            (1, 2, "1 entry and 2 attachments (20.0 MB) wait"),
        ] {
            let waiting = other.bulk.as_mut().unwrap();
            (waiting.entries, waiting.attachments) = (entries, attachments);
            waiting.attachment_bytes = 20_000_000;
            assert!(text(&other).contains(&format!(" on: {said}. All")), "{}", text(&other));
        }
        let status = "metered, 128 kbit/s at this hour, 412.0 MB of 500.0 MB used in 2026-11 (82 %)";
        assert_eq!(in_words(&line()).as_deref(), Some(status));
        let plain = Line { budget: Budget::default(), bulk: None, month_bytes: None, ..line() };
        assert_eq!(in_words(&plain), None);
        assert!(text(&plain).contains("this month   not known: no daemon runs\n"), "{}", text(&plain));
    }

    #[test]
    fn a_program_reads_the_same() {
        let json = serde_json::to_value(LineBody::new(&line())).unwrap();
        assert_eq!(
            (json["used_percent"].as_u64(), json["rates"][0].as_str()),
            (Some(82), Some("06:00-18:00 128 kbit/s"))
        );
        let bulk = serde_json::json!({
            "entries": 35, "attachments": 0, "attachment_bytes": 0, "until": "2026-11-29T15:00:00Z", "why": "window",
        });
        assert_eq!(json["bulk"], bulk);
    }
}
