//! `tuyen records history`: who changed a record, when, on which node, why, and how safe each change is.

use clap::Args;
use node::admin::{History as Answer, HistoryLine, Request};
use serde::Serialize;
use sync_core::id::{ChangeHash, Incarnation, NodeId, OrgPath, RecordId};

use super::Context;
use crate::{
    output::{Exit, Outcome},
    render,
};

/// Most paths of one change that are shown to people; JSON output has all.
const PATHS_SHOWN: usize = 6;

/// Who changed a record, when, where and why; oldest first
#[derive(Args)]
#[command(before_help = "Example:\n  tuyen --dir dv records history Patient/8f21")]
pub struct History {
    /// Which record
    #[arg(value_name = "TYPE/ID")]
    record: RecordId,
}

#[derive(Serialize)]
struct HistoryBody<'a> {
    record: &'a RecordId,
    changes: Vec<LineBody<'a>>,
}

#[derive(Serialize)]
struct LineBody<'a> {
    change: ChangeHash,
    at: String,
    run: Incarnation,
    node: Option<NodeId>,
    place: &'a Option<OrgPath>,
    by: &'a Option<String>,
    software: &'a Option<String>,
    why: &'a Option<String>,
    paths: &'a [String],
    safe: &'a str,
    problem: &'a Option<String>,
}

impl History {
    /// Does it.
    pub fn run(self, context: &Context) -> Outcome {
        let answer: Answer = context.call(&Request::History { record: self.record })?;
        if context.output.json {
            let changes = answer.changes.iter().map(line_body).collect();
            context.output.object(&HistoryBody { record: &answer.record, changes })?;
        } else {
            let now = render::now_millis();
            for line in &answer.changes {
                context.output.text(text(line, now))?;
            }
        }
        Ok(Exit::Ok)
    }
}

fn line_body(line: &HistoryLine) -> LineBody<'_> {
    LineBody {
        change: line.change,
        at: render::rfc3339(line.at),
        run: line.run,
        node: line.node,
        place: &line.place,
        by: &line.by,
        software: &line.software,
        why: &line.why,
        paths: &line.paths,
        safe: &line.safe,
        problem: &line.problem,
    }
}

fn text(line: &HistoryLine, now: i64) -> String {
    let place = line
        .place
        .as_ref()
        .map_or_else(|| format!("an unknown node ({})", line.run.short()), |p| p.to_string());
    let by = line.by.as_ref().map_or(String::new(), |by| format!(", {}", render::one_line(by)));
    let when = format!("{} ({})", render::local(line.at), render::ago(line.at, now));
    let mut out = format!("{when}  {place}{by}  {}\n", render::safe(&line.safe));
    let paths: Vec<&str> = line.paths.iter().take(PATHS_SHOWN).map(String::as_str).collect();
    if !paths.is_empty() {
        let more = match line.paths.len() - paths.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        out.push_str(&format!("    changed {}{more}\n", paths.join(", ")));
    }
    if let Some(problem) = &line.problem {
        out.push_str(&format!("    NOT SHOWN: {problem}\n"));
    }
    if let Some(why) = &line.why {
        out.push_str(&format!("    because: {}\n", render::one_line(why)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_says_who_when_where_and_why() {
        let line = HistoryLine {
            change: ChangeHash([1; 32]),
            at: 1_763_794_800_000,
            run: Incarnation([2; 16]),
            node: None,
            place: Some("trung-uong/ha-giang".parse().unwrap()),
            by: Some("minh".into()),
            software: None,
            why: Some("asked\nthe patient".into()),
            paths: (0..8).map(|n| format!("p{n}")).collect(),
            safe: "root".into(),
            problem: Some("it waits".into()),
        };
        let expected = "\
2025-11-22 14:00 (3 h ago)  trung-uong/ha-giang, minh  at the centre
    changed p0, p1, p2, p3, p4, p5 and 2 more
    NOT SHOWN: it waits
    because: asked the patient
";
        assert_eq!(text(&line, line.at + 3 * 3_600_000), expected);
        assert_eq!(line_body(&line).at, "2025-11-22T07:00:00Z");
    }
}
