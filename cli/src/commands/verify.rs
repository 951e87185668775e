//! `tuyen verify`: is everything that this node keeps still as it was written? Not here: how that is found out; the
//! daemon checks its store.

use std::fmt::Write;

use clap::Args;
use node::admin::{FindingLine, Request, Verified};
use serde::Serialize;
use sync_core::id::RecordId;

use super::Context;
use crate::{
    output::{Exit, Outcome},
    render::{age, count, many},
};

/// Most findings that are shown to people; JSON output has all that are listed.
const FINDINGS_SHOWN: usize = 20;

/// Is everything on the disk as it was written?
///
/// Reads the whole store while the node works, half of the time at most. Each row of the feed that is damaged or
/// gone is named with its record. Exits with 6 when something is wrong. The daemon does the same once a day and
/// raises an alert, which `tuyen status` shows.
#[derive(Args)]
#[command(before_help = "Example:\n  tuyen --dir hg verify")]
pub struct Verify {}

#[derive(Serialize)]
struct VerifiedBody<'a> {
    sound: bool,
    rows: u64,
    findings: Vec<FindingBody<'a>>,
    more: u64,
    seconds: f64,
}

#[derive(Serialize)]
struct FindingBody<'a> {
    row: Option<u64>,
    record: &'a Option<RecordId>,
    problem: &'a str,
}

impl<'a> FindingBody<'a> {
    fn new(finding: &'a FindingLine) -> Self {
        Self { row: finding.row, record: &finding.record, problem: &finding.problem }
    }
}

impl Verify {
    /// Does it.
    pub fn run(self, context: &Context) -> Outcome {
        let verified: Verified = context.call(&Request::Verify)?;
        context.output.result(text(&verified), &body(&verified))?;
        Ok(if verified.findings.is_empty() { Exit::Ok } else { Exit::Integrity })
    }
}

fn body(verified: &Verified) -> VerifiedBody<'_> {
    VerifiedBody {
        sound: verified.findings.is_empty(),
        rows: verified.rows,
        findings: verified.findings.iter().map(FindingBody::new).collect(),
        more: verified.more,
        seconds: verified.millis as f64 / 1000.0,
    }
}

fn text(verified: &Verified) -> String {
    let rows = many(verified.rows, "row", "rows");
    let took = age(verified.millis / 1000);
    if verified.findings.is_empty() {
        return format!("All is as it was written: {rows} checked in {took}.\n");
    }
    let found = verified.findings.len() as u64 + verified.more;
    let mut out =
        format!("{rows} checked in {took}; {} not as written:\n\n", many(found, "thing is", "things are"));
    for finding in verified.findings.iter().take(FINDINGS_SHOWN) {
        let row = finding.row.map_or(String::new(), |row| format!("row {}", count(row)));
        let record = finding.record.as_ref().map_or(String::new(), |record| format!(" ({record})"));
        let colon = if finding.row.is_some() { ": " } else { "" };
        let _ = writeln!(out, "  {row}{record}{colon}{}", finding.problem);
    }
    let more = found.saturating_sub(FINDINGS_SHOWN as u64);
    if more > 0 {
        let _ = writeln!(out, "  and {} more; `tuyen verify --json` lists the first thousand", count(more));
    }
    out.push_str("\nCheck the disk's health, and put back a copy of the node's folder.\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_named_with_its_record() {
        let mut verified = Verified { rows: 1_204, findings: Vec::new(), more: 0, millis: 3_000 };
        assert_eq!(text(&verified), "All is as it was written: 1,204 rows checked in 3 s.\n");
        let record = Some("Patient/8f21".parse().unwrap());
        verified.findings = vec![
            FindingLine { row: Some(17), record, problem: "it is gone".into() },
            FindingLine { row: None, record: None, problem: "2 rows refer to rows that are missing".into() },
        ];
        let shown = text(&verified);
        assert!(shown.starts_with("1,204 rows checked in 3 s; 2 things are not as written:\n"), "{shown}");
        assert!(shown.contains("\n  row 17 (Patient/8f21): it is gone\n  2 rows refer"), "{shown}");
        verified.more = 100;
        assert!(text(&verified).contains("and 82 more"));
    }
}
