//! `tuyen status`: a node at a glance. The first line answers the only question that most people have: is
//! everything safe? Not here: the links in detail; see `links`.

use clap::Args;
use node::{
    admin::{AlertLine, Contents, Leaving, ProfileLine, Request, Status as Answer, Unsafe},
    config::{Policy, Profile},
};
use serde::Serialize;
use sync_core::{
    id::{NodeId, OrgId, OrgPath, Secrecy},
    identity::Role,
    scope::Way,
    store::HomeDigest,
};

use super::{
    Context,
    link::{self, LineBody},
    links::{self, LinkBody},
};
use crate::{
    output::{Exit, Outcome},
    render::{self, age, ago, count, many},
};

/// Most alerts that are shown to people; JSON output has all.
const ALERTS_SHOWN: usize = 5;

/// Is everything safe? What this node holds, and how it is connected
///
/// Exits with 0 whatever it shows. With --check it exits with 5 when a person has to look: open conflicts,
/// alerts, entries that cannot be read, a parent that refuses this node, or syncing that is paused.
#[derive(Args)]
#[command(
    before_help = "Example:\n  tuyen --dir dv status\n  tuyen --dir dv status --check || notify-somebody"
)]
pub struct Status {
    /// Exit with 5 when a person has to look
    #[arg(long)]
    check: bool,
}

/// Entries that are not yet safe somewhere, as JSON.
#[derive(Serialize)]
pub struct UnsafeBody<'a> {
    #[serde(flatten)]
    counts: &'a Unsafe,
}

impl<'a> UnsafeBody<'a> {
    /// The JSON of these counts.
    pub fn new(counts: &'a Unsafe) -> Self {
        Self { counts }
    }
}

#[derive(Serialize)]
struct StatusBody<'a> {
    summary: String,
    safe: bool,
    attention: Vec<&'static str>,
    node: NodeId,
    org: &'a OrgId,
    place: &'a OrgPath,
    role: Role,
    software: &'a str,
    listen: &'a Option<String>,
    parent: &'a Option<String>,
    records: u64,
    deleted: u64,
    entries: u64,
    conflicts: u64,
    waiting: u64,
    unreadable: u64,
    secret: u64,
    damaged: u64,
    unsound: bool,
    profiles: &'a [ProfileLine],
    policies: &'a [Policy],
    unfolded: u64,
    digest: &'a str,
    homes: &'a [HomeDigest],
    not_at_hub: UnsafeBody<'a>,
    not_at_root: UnsafeBody<'a>,
    in_doubt: bool,
    attachments: Contents,
    line: Option<LineBody<'a>>,
    leaving: Option<&'a Leaving>,
    ended: u64,
    paused: bool,
    up: Option<LinkBody<'a>>,
    down: Vec<LinkBody<'a>>,
    sent_bytes: u64,
    received_bytes: u64,
    alerts: Vec<AlertBody<'a>>,
    last_backup: Option<String>,
}

#[derive(Serialize)]
struct AlertBody<'a> {
    at: String,
    code: &'a str,
    text: &'a str,
}

impl Status {
    /// Does it.
    pub fn run(self, context: &Context) -> Outcome {
        let status: Answer = context.call(&Request::Status)?;
        if context.output.json {
            context.output.object(&body(&status))?;
        } else {
            context.output.text(text(&status, render::now_millis()))?;
        }
        let attention = self.check && !attention(&status).is_empty();
        Ok(if attention { Exit::Attention } else { Exit::Ok })
    }
}

fn body(status: &Answer) -> StatusBody<'_> {
    StatusBody {
        summary: summary(status),
        safe: is_safe(status),
        attention: attention(status),
        node: status.node,
        org: &status.org,
        place: &status.place,
        role: status.role,
        software: &status.software,
        listen: &status.listen,
        parent: &status.parent,
        records: status.records,
        deleted: status.deleted,
        entries: status.entries,
        conflicts: status.conflicts,
        waiting: status.waiting,
        unreadable: status.unreadable,
        secret: status.secret,
        damaged: status.damaged,
        unsound: status.unsound,
        profiles: &status.profiles,
        policies: &status.policies,
        unfolded: status.unfolded,
        digest: &status.digest,
        homes: &status.homes,
        not_at_hub: UnsafeBody::new(&status.not_at_hub),
        not_at_root: UnsafeBody::new(&status.not_at_root),
        in_doubt: status.in_doubt,
        attachments: status.attachments,
        line: status.line.as_ref().map(LineBody::new),
        leaving: status.leaving.as_ref(),
        ended: status.ended,
        paused: status.paused,
        up: status.up.as_ref().map(LinkBody::new),
        down: status.down.iter().map(LinkBody::new).collect(),
        sent_bytes: status.sent_bytes,
        received_bytes: status.received_bytes,
        alerts: status.alerts.iter().map(alert_body).collect(),
        last_backup: status.last_backup.map(render::rfc3339),
    }
}

fn alert_body(alert: &AlertLine) -> AlertBody<'_> {
    AlertBody { at: render::rfc3339(alert.at), code: &alert.code, text: &alert.text }
}

fn is_safe(status: &Answer) -> bool {
    let missing = [status.not_at_hub.entries, status.not_at_root.entries, status.attachments.not_at_root];
    missing == [0; 3] && status.damaged == 0 && !status.unsound && !status.in_doubt
}

/// What a person has to look at, as stable names.
fn attention(status: &Answer) -> Vec<&'static str> {
    let mut names = Vec::new();
    let mut add = |holds: bool, name| names.extend(holds.then_some(name));
    add(status.conflicts > 0, "conflicts");
    add(status.unreadable > 0, "unreadable");
    add(status.damaged > 0 || status.unsound, "damaged");
    add(!status.alerts.is_empty(), "alerts");
    add(is_refused(status), "refused");
    add(status.paused, "paused");
    names
}

fn is_refused(status: &Answer) -> bool {
    status.up.as_ref().is_some_and(|link| link.state == "refused")
}

/// Why nothing of a machine that was put back counts as safe elsewhere.
pub fn put_back(parent: &str) -> String {
    format!(
        "This machine was put back to an older copy: what it has is being compared with what the {parent} has, and counts as \
         safe when that is done."
    )
}

/// A leaf right below the root has no hub between, and for a hub the parent is the centre.
fn parent(status: &Answer) -> &'static str {
    if status.place.depth() > 2 { "hub" } else { "centre" }
}

/// The first line: whether everything is safe, in words that need no explanation.
fn summary(status: &Answer) -> String {
    let damage = "The database on this disk is damaged, or cannot be checked: see `tuyen verify`. ";
    let damage = if status.unsound { damage } else { "" };
    what_is_not_safe(status).unwrap_or_else(|| format!("{damage}{}", all_is_safe(status)))
}

fn what_is_not_safe(status: &Answer) -> Option<String> {
    let parent = parent(status);
    let waits = |not: &Unsafe| {
        not.oldest_seconds.map_or(String::new(), |s| format!("; the oldest has waited {}", age(s)))
    };
    if status.damaged > 0 {
        let damaged = many(status.damaged, "entry is", "entries are");
        return Some(format!(
            "{damaged} damaged on this disk, and not put back yet: `tuyen verify --with ORG` asks a neighbour."
        ));
    }
    if status.role == Role::Root {
        return None;
    }
    if status.in_doubt {
        return Some(put_back(parent));
    }
    if status.not_at_hub.entries > 0 {
        let entries = many(status.not_at_hub.entries, "entry is", "entries are");
        return Some(format!("{entries} not yet at the {parent}{}.", waits(&status.not_at_hub)));
    }
    if status.not_at_root.entries > 0 {
        let entries = many(status.not_at_root.entries, "entry is", "entries are");
        let waits = waits(&status.not_at_root);
        // The machine that had them may be gone, and another one be in its place.
        if is_refused(status) {
            return Some(format!(
                "{entries} not yet at the centre, and the hub refuses this machine{waits}."
            ));
        }
        return Some(format!("Everything is at the hub; {entries} not yet at the centre{waits}."));
    }
    if status.attachments.not_at_root > 0 {
        let attachments = many(status.attachments.not_at_root, "attachment is", "attachments are");
        let bytes = render::bytes(status.attachments.not_at_root_bytes);
        return Some(format!("All entries are at the centre; {attachments} not yet ({bytes})."));
    }
    None
}

fn all_is_safe(status: &Answer) -> String {
    let records = status.records;
    if status.role == Role::Root {
        return match records {
            0 => "This is the centre. It holds no records yet.".into(),
            _ => format!("This is the centre. It holds {}.", many(records, "record", "records")),
        };
    }
    let others = records.saturating_sub(status.secret);
    if status.secret > 0 && others == 0 {
        return "Nothing here waits for the centre.".into();
    }
    // What has come down from a hub is there; whether the centre has it too is not known here.
    if parent(status) == "hub" && records > 0 {
        let all = if status.secret > 0 { "All else" } else { "All" };
        let here = many(records, "record is", "records are");
        return format!("{all} that was written here is safe at the centre; {here} here.");
    }
    if status.secret > 0 {
        return format!("All other records ({}) are safe at the centre.", count(others));
    }
    match records {
        0 => "There are no records here yet.".into(),
        1 => "The 1 record is safe at the centre.".into(),
        _ => format!("All {} are safe at the centre.", many(records, "record", "records")),
    }
}

fn text(status: &Answer, now: i64) -> String {
    let mut out = format!("{}\n", summary(status));
    if status.secret > 0 {
        let secret = many(status.secret, "secret record", "secret records");
        out.push_str(&match status.profiles.is_empty() {
            true => format!(
                "{secret}: what is written here of such a record stays here, because no link may carry it. Only a backup \
                 saves it.\n"
            ),
            false => format!(
                "{secret}: what is written here of such a record goes only as far as the profiles below allow, and nobody tells \
                 how far it has got. Keep the backups.\n"
            ),
        });
    }
    if let Some(waits) = status.line.as_ref().and_then(|line| line.bulk.as_ref()).and_then(link::waits) {
        out.push_str(&format!("{waits}; all else goes on.\n"));
    }
    if let Some(Leaving { order, done, of }) = &status.leaving {
        out.push_str(&format!(
            "What order {order} has put elsewhere is forgotten here as soon as the centre has all of it, and this node has \
             compared with its parent what it holds: {} of {} rows looked at.\n",
            count(*done),
            count(*of)
        ));
    }
    if status.ended > 0 {
        let records = many(status.ended, "record is here that is", "records are here that are");
        let they = if status.ended == 1 { "it is" } else { "they are" };
        out.push_str(&format!(
            "{records} not open to this machine any more: {they} forgotten when a line stands and this machine has been \
             compared with its parent.\n"
        ));
    }
    if let Some(up) = status.up.as_ref()
        && let Some(entries) = up.to_come.filter(|n| *n > 0)
    {
        let what = many(entries, "entry is", "entries are");
        out.push_str(&format!("{what} still to come from {}; the urgent come first.\n", up.place));
    }
    if status.paused {
        out.push_str("Syncing is paused; `tuyen sync resume` starts it again.\n");
    }
    if let Some(up) = status.up.as_ref().filter(|up| up.state != "connected") {
        let why = up.problem.as_ref().map_or(String::new(), |why| format!(" ({why})"));
        out.push_str(&format!("The link to {} is {}{why}.\n", up.place, links::state_in_words(&up.state)));
    }
    out.push('\n');
    out.push_str(&render::table(&rows(status, now)));
    for alert in status.alerts.iter().take(ALERTS_SHOWN) {
        out.push_str(&format!("\n! {} ({}): {}\n", alert.code, ago(alert.at, now), alert.text));
    }
    if status.alerts.len() > ALERTS_SHOWN {
        let more = (status.alerts.len() - ALERTS_SHOWN) as u64;
        out.push_str(&format!("\n! and {} more; `tuyen status --json` has all\n", count(more)));
    }
    out
}

fn degree(degree: Secrecy) -> &'static str {
    degree.code().unwrap_or("nothing secret")
}

fn rows(status: &Answer, now: i64) -> Vec<Vec<String>> {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows = vec![
        row("node", format!("{} ({}), {}", status.place, status.role, status.node.short())),
        row("software", status.software.clone()),
    ];
    if let Some(listen) = &status.listen {
        rows.push(row("listens", listen.clone()));
    }
    let deleted = match status.deleted {
        0 => String::new(),
        n => format!(", and {} deleted", count(n)),
    };
    for ProfileLine { profile, agreed, is_heard_of } in &status.profiles {
        let Profile { with, by, up_to, decided_by, .. } = profile;
        let (way, upto) = (if *by == Way::Link { "over the link" } else { "by courier" }, degree(*up_to));
        let answer = match agreed {
            _ if !is_heard_of => {
                format!(
                    "; {with} is no neighbour of this node: correct config.json, unless it is still to come"
                )
            }
            Some(agreed) if agreed < up_to => format!("; {with} allows {} so far", degree(*agreed)),
            _ => String::new(),
        };
        rows.push(row("profile", format!("{with}, {way}: up to {upto}, decided by {decided_by}{answer}")));
    }
    for Policy { of, is, decided_by, .. } in &status.policies {
        let (of, is) = (of.join(", "), degree(*is));
        rows.push(row("policy", format!("{of}: at least {is} when written here, decided by {decided_by}")));
    }
    rows.push(row("records", format!("{}{deleted}", count(status.records))));
    rows.push(row(
        "entries",
        format!("{}, digest {}", count(status.entries), render::shorten(&status.digest, 13)),
    ));
    let Contents { here, here_bytes, not_at_root, not_at_root_bytes, away, away_bytes, .. } =
        status.attachments;
    if here + away > 0 {
        let part = |number, bytes, what: &str| match number {
            0 => String::new(),
            _ => format!(", {} ({}) {what}", count(number), render::bytes(bytes)),
        };
        let at_root = part(not_at_root, not_at_root_bytes, "not yet at the centre");
        let elsewhere = part(away, away_bytes, "not here");
        rows.push(row(
            "attachments",
            format!("{} here ({}){at_root}{elsewhere}", count(here), render::bytes(here_bytes)),
        ));
    }
    if status.conflicts > 0 {
        rows.push(row("conflicts", format!("{} open; see `tuyen conflicts list`", count(status.conflicts))));
    }
    for (number, name, meaning) in [
        (status.unfolded, "behind", "arrived and not yet shown; this takes a moment"),
        (
            status.waiting,
            "waiting",
            "wait for others that have not arrived; see `tuyen records list --unread`",
        ),
        (status.unreadable, "unreadable", "could not be applied; see `tuyen records list --unread`"),
    ] {
        if number > 0 {
            rows.push(row(name, format!("{} {meaning}", many(number, "entry", "entries"))));
        }
    }
    let backup = match status.last_backup {
        Some(at) => format!("the last was made {}", ago(at, now)),
        None => "none was made yet; see `tuyen backup --help`".to_owned(),
    };
    rows.push(row("backup", backup));
    let traffic = format!(
        "{} sent, {} received",
        render::bytes(status.sent_bytes),
        render::bytes(status.received_bytes)
    );
    rows.push(row("traffic", format!("{traffic} since the start")));
    rows.extend(status.line.iter().filter_map(link::in_words).map(|line| row("line", line)));
    rows.extend(status.up.iter().map(|up| row("up", links::in_words(up, now))));
    rows.extend(status.down.iter().map(|down| row("down", links::in_words(down, now))));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use node::admin::LinkState;

    fn leaf() -> Answer {
        Answer {
            node: NodeId([0xab; 16]),
            org: OrgId::new("dong-van").unwrap(),
            place: "trung-uong/ha-giang/dong-van".parse().unwrap(),
            role: Role::Leaf,
            software: "tuyend 0.1.0".into(),
            listen: None,
            parent: Some("127.0.0.1:7402".into()),
            records: 1_204,
            deleted: 0,
            entries: 1_310,
            conflicts: 0,
            waiting: 0,
            unreadable: 0,
            secret: 0,
            damaged: 0,
            unsound: false,
            profiles: Vec::new(),
            policies: Vec::new(),
            unfolded: 0,
            digest: "1310:0123456789abcdef".into(),
            homes: Vec::new(),
            not_at_hub: Unsafe::default(),
            not_at_root: Unsafe::default(),
            in_doubt: false,
            attachments: Contents::default(),
            line: None,
            leaving: None,
            ended: 0,
            paused: false,
            up: Some(LinkState {
                place: "trung-uong/ha-giang".into(),
                role: Role::Hub,
                node: None,
                state: "connected".into(),
                problem: None,
                last_contact: Some(0),
                address: None,
                software: None,
                rtt_millis: Some(41),
                behind: None,
                behind_seconds: None,
                to_come: None,
            }),
            down: Vec::new(),
            sent_bytes: 2_400_000,
            received_bytes: 812,
            alerts: Vec::new(),
            last_backup: None,
        }
    }

    #[test]
    fn the_first_line_says_whether_everything_is_safe() {
        let mut status = leaf();
        let below_a_hub = "All that was written here is safe at the centre; 1,204 records are here.";
        assert_eq!(summary(&status), below_a_hub);
        let right_below = Answer { place: "trung-uong/ha-giang".parse().unwrap(), ..leaf() };
        assert_eq!(summary(&right_below), "All 1,204 records are safe at the centre.");
        status.in_doubt = true;
        assert!(
            !is_safe(&status) && summary(&status).starts_with("This machine was put back to an older copy")
        );
        status.in_doubt = false;
        status.not_at_root = Unsafe { entries: 12, oldest_seconds: Some(1_200) };
        let at_hub =
            "Everything is at the hub; 12 entries are not yet at the centre; the oldest has waited 20 min.";
        assert_eq!(summary(&status), at_hub);
        let refused = status.up.clone().map(|up| LinkState { state: "refused".into(), ..up });
        let refused = Answer { up: refused, not_at_root: status.not_at_root, ..leaf() };
        let at_no_hub = "12 entries are not yet at the centre, and the hub refuses this machine; the oldest has waited 20 min.";
        assert_eq!(summary(&refused), at_no_hub);
        status.not_at_hub = Unsafe { entries: 37, oldest_seconds: Some(10_800) };
        assert_eq!(summary(&status), "37 entries are not yet at the hub; the oldest has waited 3 h.");
        status.place = "trung-uong/ha-giang".parse().unwrap();
        status.not_at_hub.entries = 1;
        assert_eq!(summary(&status), "1 entry is not yet at the centre; the oldest has waited 3 h.");
        status.role = Role::Root;
        assert_eq!(summary(&status), "This is the centre. It holds 1,204 records.");
        let mut status = Answer { unsound: true, ..leaf() };
        let damaged = "The database on this disk is damaged, or cannot be checked: see `tuyen verify`. ";
        assert_eq!(summary(&status), format!("{damaged}{below_a_hub}"));
        assert_eq!((is_safe(&status), attention(&status)), (false, vec!["damaged"]));
        status.not_at_hub.entries = 37;
        assert_eq!(summary(&status), "37 entries are not yet at the hub.");
        let mut status = leaf();
        status.ended = 1;
        let ended = "1 record is here that is not open to this machine any more: it is forgotten when a line stands and";
        assert!(text(&status, 0).contains(ended));
        status.secret = 3;
        let else_is = "All else that was written here is safe at the centre; 1,204 records are here.";
        assert_eq!(summary(&status), else_is);
        let second = text(&status, 0).lines().nth(1).map(str::to_owned).unwrap_or_default();
        assert!(
            second.starts_with("3 secret records: ") && second.ends_with("a backup saves it."),
            "{second}"
        );
        let profile = Profile {
            with: OrgId::new("ha-giang").unwrap(),
            by: Way::Link,
            up_to: Secrecy::ToiMat,
            decided_by: "the board".to_owned(),
            why: "an isolated network".to_owned(),
        };
        status.profiles = vec![ProfileLine { profile, agreed: Some(Secrecy::Mat), is_heard_of: true }];
        let said = text(&status, 0);
        assert!(said.contains("goes only as far as the profiles below allow"), "{said}");
        let line = "ha-giang, over the link: up to toi-mat, decided by the board; ha-giang allows mat so far";
        assert!(said.contains(line), "{said}");
        status.profiles[0].is_heard_of = false;
        let line = "decided by the board; ha-giang is no neighbour of this node: correct config.json";
        assert!(text(&status, 0).contains(line));
        status.profiles.clear();
        status.secret = 1_204;
        assert_eq!(summary(&status), "Nothing here waits for the centre.");
    }

    #[test]
    fn the_text_is_short_when_all_is_well() {
        let expected = "\
All that was written here is safe at the centre; 1,204 records are here.

node      trung-uong/ha-giang/dong-van (leaf), abababab
software  tuyend 0.1.0
records   1,204
entries   1,310, digest 1310:0123456…
backup    none was made yet; see `tuyen backup --help`
traffic   2.4 MB sent, 812 B received since the start
up        trung-uong/ha-giang (hub): connected, heard 3 s ago, 41 ms away
";
        assert_eq!(text(&leaf(), 3_000), expected);
        assert!(attention(&leaf()).is_empty());
    }

    #[test]
    fn trouble_is_named_and_counted() {
        let mut status = leaf();
        status.last_backup = Some(-7_200_000);
        status.conflicts = 2;
        status.paused = true;
        status.alerts = (0..7)
            .map(|at| AlertLine { at, code: "restored".into(), text: "what, why, what to do".into() })
            .collect();
        if let Some(up) = &mut status.up {
            up.state = "refused".into();
            up.problem = Some("its certificate is revoked".into());
        }
        assert_eq!(attention(&status), ["conflicts", "alerts", "refused", "paused"]);
        let text = text(&status, 3_000);
        assert!(text.contains("The link to trung-uong/ha-giang is refused (its certificate is revoked)."));
        assert!(text.contains("conflicts  2 open; see `tuyen conflicts list`"));
        assert!(text.contains("backup     the last was made 2 h ago"), "{text}");
        assert_eq!(text.matches("! restored").count(), ALERTS_SHOWN);
        assert!(text.ends_with("! and 2 more; `tuyen status --json` has all\n"));
    }

    #[test]
    fn the_object_has_what_the_manual_promises() {
        let json = serde_json::to_value(body(&leaf())).unwrap();
        assert_eq!(json["up"]["last_contact"], "1970-01-01T00:00:00Z");
        assert_eq!(json["not_at_hub"], serde_json::json!({"entries": 0, "oldest_seconds": null}));
        assert!(json["last_backup"].is_null());
        assert_eq!((json["safe"].as_bool(), json["role"].as_str()), (Some(true), Some("leaf")));
    }
}
