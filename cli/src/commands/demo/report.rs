//! What the demo found, for people and as data. Not here: finding it.

use node::admin::{ConflictLine, Failure};
use serde::Serialize;
use sync_core::{
    id::{OrgId, RecordId},
    identity::Role,
};

use super::{
    converge::Picture,
    country::{Country, ROOT},
    outage::Kill,
};
use crate::{
    commands::{
        conflicts::{self, LineBody},
        import::RejectedBody,
    },
    render::{self, count, many},
};

/// Most conflicts that are shown to people; JSON output has all.
const CONFLICTS_SHOWN: usize = 6;
/// Digits of a digest that are shown to people.
const DIGEST_SHOWN: usize = 12;

/// A node at the end.
#[derive(Serialize)]
pub struct NodeBody {
    org: OrgId,
    role: Role,
    records: u64,
    entries: u64,
    digest: String,
    conflicts: u64,
    agrees: bool,
}

/// The conflicts.
#[derive(Serialize)]
pub struct ConflictsBody<'a> {
    /// Open before one was settled.
    pub found: usize,
    /// Open at the end.
    pub open: usize,
    /// Each, as it was before one was settled.
    pub list: Vec<LineBody<'a>>,
    /// The one that was settled.
    pub settled: Option<SettledBody>,
}

/// A conflict that was settled.
#[derive(Serialize)]
pub struct SettledBody {
    /// Which record.
    pub record: RecordId,
    /// Which of its elements.
    pub path: String,
    /// Where it was settled.
    pub at: OrgId,
    /// Why.
    pub why: String,
    /// The nodes that hold the record, at which it is gone.
    pub gone_at: Vec<OrgId>,
    /// Whether it is gone at all of them.
    pub gone: bool,
}

/// The records that were given or made up.
#[derive(Serialize)]
pub struct InputsBody<'a> {
    /// How many a leaf had acknowledged.
    pub acknowledged: usize,
    /// How many of them are live at the root.
    pub live_at_root: usize,
    /// Those that are not.
    pub missing: Vec<RecordId>,
    /// What was not taken, and why.
    pub rejected: &'a [RejectedBody],
}

/// A scene, and whether it ended as it must.
#[derive(Serialize)]
pub struct SceneBody {
    /// What happened.
    pub what: &'static str,
    /// Which record.
    pub record: RecordId,
    /// `merged`, or the kind of the conflict.
    pub ending: &'static str,
    /// What is wrong with it; nothing when it ended as it must.
    pub problem: Option<String>,
}

/// Everything.
#[derive(Serialize)]
pub struct Report<'a> {
    /// Whether all nodes agree.
    pub converged: bool,
    /// Whether all that the demo looks at is as it must be.
    pub ok: bool,
    /// The nodes, parents first.
    pub nodes: Vec<NodeBody>,
    /// The conflicts.
    pub conflicts: ConflictsBody<'a>,
    /// The records that went in.
    pub inputs: InputsBody<'a>,
    /// What people did at once.
    pub scenes: Vec<SceneBody>,
    /// Whom the power failed.
    pub kills: &'a [Kill],
    /// What keeps the nodes from agreeing.
    pub disagreements: Option<String>,
    /// Bytes of frames that all nodes have sent.
    pub wire_bytes: u64,
    /// How long it took.
    pub seconds: f64,
    /// Where the nodes are kept.
    pub kept: Option<String>,
}

/// The nodes, parents first.
pub fn nodes(picture: &Picture) -> Vec<NodeBody> {
    let node = |(at, status): (usize, &node::admin::Status)| NodeBody {
        org: status.org.clone(),
        role: status.role,
        records: status.records,
        entries: status.entries,
        digest: status.digest.clone(),
        conflicts: status.conflicts,
        agrees: picture.disagreements.iter().all(|one| one.at != at),
    };
    picture.statuses.iter().enumerate().map(node).collect()
}

/// The table of nodes, for people.
pub fn table(country: &Country, nodes: &[NodeBody]) -> String {
    let header = ["NODE", "ROLE", "RECORDS", "ENTRIES", "DIGEST", "CONFLICTS", "AGREES WITH THE CENTRE"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for (at, node) in nodes.iter().enumerate() {
        let indent = "  ".repeat(country.holders(at).len() - 1);
        let agrees = match (at, node.agrees) {
            (ROOT, true) => "-",
            (_, true) => "yes",
            (_, false) => "NO",
        };
        rows.push(vec![
            format!("  {indent}{}", node.org),
            node.role.to_string(),
            count(node.records),
            count(node.entries),
            node.digest.chars().take(DIGEST_SHOWN).collect(),
            count(node.conflicts),
            agrees.to_owned(),
        ]);
    }
    rows[0][0] = "  NODE".into();
    render::table(&rows)
}

/// The conflicts with their values and who wrote them, for people.
pub fn conflicts(found: &[ConflictLine], now: i64) -> String {
    let mut out = String::new();
    for line in found.iter().take(CONFLICTS_SHOWN) {
        conflicts::text(line, now).trim_end().lines().for_each(|line| out.push_str(&format!("  {line}\n")));
    }
    if let Some(more @ 1..) = found.len().checked_sub(CONFLICTS_SHOWN) {
        out.push_str(&format!("  and {more} more; --json has all\n"));
    }
    out
}

/// How a kill came, for people.
pub fn kill(kill: &Kill) -> String {
    let Kill { org, role, home, arrived, of, in_the_middle } = kill;
    let when =
        if *in_the_middle { "in the middle of a transfer" } else { "though the transfer was already over" };
    format!(
        "{org} ({role}) killed with -9, {when}: {} of {} of {home} had arrived",
        count(*arrived),
        many(*of, "entry", "entries")
    )
}

/// The last line: whether it is all as it must be, for people.
pub fn verdict(report: &Report<'_>) -> String {
    let size = format!("{} on the wire, {:.1} s", render::bytes(report.wire_bytes), report.seconds);
    if report.ok {
        let all = count(report.inputs.acknowledged as u64);
        let nodes = report.nodes.len();
        return format!(
            "All {nodes} nodes agree, and all {all} acknowledged records are at the centre. {size}.\n"
        );
    }
    let mut wrong = Vec::new();
    wrong.extend(report.disagreements.as_ref().map(|why| format!("the nodes do not agree ({why})")));
    if !report.inputs.missing.is_empty() {
        let missing = many(report.inputs.missing.len() as u64, "record is", "records are");
        wrong.push(format!("{missing} not at the centre, {} first", report.inputs.missing[0]));
    }
    for scene in &report.scenes {
        wrong.extend(scene.problem.as_ref().map(|why| format!("{}: {why}", scene.record)));
    }
    match &report.conflicts.settled {
        None => wrong.push("no conflict could be settled".into()),
        Some(settled) if !settled.gone => {
            wrong.push(format!("the settled conflict of {} is still open somewhere", settled.record));
        }
        Some(_) => {}
    }
    format!("NOT WELL: {}. {size}.\n", wrong.join("; "))
}

/// How to go on with nodes that are kept.
pub fn kept(country: &Country, program: &str) -> String {
    let mut out =
        String::from("\nThe nodes are kept. Start one or more of them, each in the background, and look:\n");
    for site in country.sites.iter().take(2) {
        out.push_str(&format!("  {program} --dir {} daemon &\n", site.dir.display()));
    }
    let hub = country.sites[1].dir.display();
    out.push_str(&format!("  {program} --dir {hub} status\n  {program} --dir {hub} conflicts list\n"));
    out
}

/// A failure to be told with what was found so far.
pub fn told(failure: Failure, step: &str) -> Failure {
    Failure::new(failure.kind, format!("the demo broke off while {step}: {}", failure.text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_is_told_as_it_was() {
        let mut one = Kill {
            org: OrgId::new("quang-nam").unwrap(),
            role: Role::Hub,
            home: OrgId::new("hoi-an").unwrap(),
            arrived: 512,
            of: 1_500,
            in_the_middle: true,
        };
        let text = "quang-nam (hub) killed with -9, in the middle of a transfer: 512 of 1,500 entries of hoi-an had arrived";
        assert_eq!(kill(&one), text);
        one.in_the_middle = false;
        assert!(kill(&one).contains("already over"));
    }

    #[test]
    fn the_verdict_names_what_is_wrong() {
        let mut report = Report {
            converged: true,
            ok: true,
            nodes: Vec::new(),
            conflicts: ConflictsBody { found: 0, open: 0, list: Vec::new(), settled: None },
            inputs: InputsBody {
                acknowledged: 2_412,
                live_at_root: 2_412,
                missing: Vec::new(),
                rejected: &[],
            },
            scenes: Vec::new(),
            kills: &[],
            disagreements: None,
            wire_bytes: 1_200_000,
            seconds: 12.34,
            kept: None,
        };
        let well = "All 0 nodes agree, and all 2,412 acknowledged records are at the centre. 1.2 MB on the wire, 12.3 s.\n";
        assert_eq!(verdict(&report), well);
        report.ok = false;
        report.inputs.missing = vec!["Patient/1".parse().unwrap()];
        let wrong = "NOT WELL: 1 record is not at the centre, Patient/1 first; no conflict could be settled.";
        assert!(verdict(&report).starts_with(wrong));
    }
}
