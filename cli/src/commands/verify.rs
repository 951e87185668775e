//! `tuyen verify`: is everything that this node keeps still as it was written, and does a neighbour hold the same? Not
//! here: how that is found out; the daemon checks its store, and compares.

use std::fmt::Write;

use clap::Args;
use node::admin::{Audit, FindingLine, Request, Verified};
use serde::Serialize;
use sync_core::id::{OrgId, OrgPath, RecordId};

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
/// gone is named with its record, and each record that is shown, filed or marked otherwise than its entries say: that is
/// put right from the entries at once. Exits with 6 when something was wrong. The daemon does the same once a day and
/// raises an alert, which `tuyen status` shows.
///
/// With --with, this node and a neighbour then compare what they hold of the child's part of the tree, and give each
/// other what is lacking: damaged and missing rows are put back. What is still wrong then is named, and the exit code
/// is 6. Fails with 1 when one of the two has something else to do; try again.
#[derive(Args)]
#[command(before_help = "Example:\n  tuyen --dir hg verify\n  tuyen --dir hg verify --with trung-uong")]
pub struct Verify {
    /// Compare with this neighbour, the parent or a child, and put back what is lacking
    #[arg(long, value_name = "ORG")]
    with: Option<OrgId>,
}

#[derive(Serialize)]
struct VerifiedBody<'a> {
    sound: bool,
    rows: u64,
    findings: Vec<FindingBody<'a>>,
    more: u64,
    mended: u64,
    seconds: f64,
    audit: Option<AuditBody<'a>>,
}

#[derive(Serialize)]
struct AuditBody<'a> {
    with: &'a OrgPath,
    entries: u64,
    here: u64,
    there: u64,
    missed: u64,
    seconds: f64,
}

#[derive(Serialize)]
struct FindingBody<'a> {
    row: Option<u64>,
    record: &'a Option<RecordId>,
    problem: &'a str,
    mended: bool,
}

impl<'a> FindingBody<'a> {
    fn new(finding: &'a FindingLine) -> Self {
        Self { row: finding.row, record: &finding.record, problem: &finding.problem, mended: finding.mended }
    }
}

impl<'a> AuditBody<'a> {
    fn new(audit: &'a Audit) -> Self {
        let Audit { with, entries, here, there, missed, millis } = audit;
        let seconds = *millis as f64 / 1000.0;
        Self { with, entries: *entries, here: *here, there: *there, missed: *missed, seconds }
    }
}

impl Verify {
    /// Does it.
    pub fn run(self, context: &Context) -> Outcome {
        let verified: Verified = context.call(&Request::Verify { with: self.with })?;
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
        mended: verified.mended,
        seconds: verified.millis as f64 / 1000.0,
        audit: verified.audit.as_ref().map(AuditBody::new),
    }
}

fn text(verified: &Verified) -> String {
    let rows = many(verified.rows, "row", "rows");
    let took = age(verified.millis / 1000);
    let audit = verified.audit.as_ref().map_or(String::new(), compared);
    if verified.findings.is_empty() {
        let mended = match verified.mended {
            0 => String::new(),
            n => format!("{} put right from what is here.\n", many(n, "thing was", "things were")),
        };
        return format!("All is as it was written: {rows} checked in {took}.\n{mended}{audit}");
    }
    let found = verified.findings.len() as u64 + verified.more;
    let mut out =
        format!("{rows} checked in {took}; {} not as written:\n\n", many(found, "thing is", "things are"));
    for finding in verified.findings.iter().take(FINDINGS_SHOWN) {
        let of = match (finding.row, &finding.record) {
            (Some(row), Some(record)) => format!("row {} ({record}): ", count(row)),
            (Some(row), None) => format!("row {}: ", count(row)),
            (None, Some(record)) => format!("{record}: "),
            (None, None) => String::new(),
        };
        let _ = writeln!(out, "  {of}{}", finding.problem);
    }
    let more = found.saturating_sub(FINDINGS_SHOWN as u64);
    if more > 0 {
        let _ = writeln!(out, "  and {} more; `tuyen verify --json` lists the first thousand", count(more));
    }
    out.push('\n');
    let is_mended = verified.more == 0 && verified.findings.iter().all(|finding| finding.mended);
    out.push_str(match &verified.audit {
        None if is_mended => {
            "All of it is put right from the entries that are here. Check the disk's health.\n"
        }
        None => "Check the disk's health. `tuyen verify --with` a neighbour puts back what that has.\n",
        Some(_) => {
            "Nobody who was asked has these. Ask the other neighbours, or enter again what is missing.\n"
        }
    });
    out.push_str(&audit);
    out
}

/// What has come of comparing.
fn compared(audit: &Audit) -> String {
    let Audit { with, entries, here, there, missed, .. } = audit;
    let entries = many(*entries, "entry", "entries");
    match (here + there, missed) {
        (0, 0) => format!("{with} holds the same {entries}.\n"),
        (0, _) => format!("{with} could give nothing of what is missing.\n"),
        _ => format!(
            "Compared with {with}: {} put back here, and {} there.\n",
            many(*here, "entry was", "entries were"),
            count(*there)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_named_with_its_record() {
        let mut verified =
            Verified { rows: 1_204, findings: Vec::new(), more: 0, mended: 0, millis: 3_000, audit: None };
        assert_eq!(text(&verified), "All is as it was written: 1,204 rows checked in 3 s.\n");
        verified.mended = 2;
        assert!(text(&verified).ends_with("in 3 s.\n2 things were put right from what is here.\n"));
        let record: Option<RecordId> = Some("Patient/8f21".parse().unwrap());
        let what = "what is shown of it is not what its entries say; it is put right";
        verified.findings =
            vec![FindingLine { row: None, record: record.clone(), problem: what.into(), mended: true }];
        let shown = text(&verified);
        assert!(shown.contains("\n  Patient/8f21: what is shown of it"), "{shown}");
        assert!(
            shown.ends_with(
                "All of it is put right from the entries that are here. Check the disk's health.\n"
            )
        );
        verified.findings = vec![
            FindingLine { row: Some(17), record, problem: "it is gone".into(), mended: false },
            FindingLine {
                row: None,
                record: None,
                problem: "2 rows refer to rows that are missing".into(),
                mended: false,
            },
        ];
        let shown = text(&verified);
        assert!(shown.starts_with("1,204 rows checked in 3 s; 2 things are not as written:\n"), "{shown}");
        assert!(shown.contains("\n  row 17 (Patient/8f21): it is gone\n  2 rows refer"), "{shown}");
        let audit = |here, there, missed| {
            let with = "tw/hg".parse().unwrap();
            compared(&Audit { with, entries: 40, here, there, missed, millis: 5 })
        };
        assert_eq!(audit(0, 0, 0), "tw/hg holds the same 40 entries.\n");
        assert_eq!(audit(1, 7, 0), "Compared with tw/hg: 1 entry was put back here, and 7 there.\n");
        assert_eq!(audit(0, 0, 2), "tw/hg could give nothing of what is missing.\n");
        verified.more = 100;
        assert!(text(&verified).contains("and 82 more"));
    }
}
