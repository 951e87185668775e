//! `tuyen grant`: a patient's records are opened to another organization for a time, or asked for in an emergency. What always
//! holds: nothing is opened without a reason, and who opened what, to whom, when and why is on record. Not here: what is
//! opened and closed, which the daemon works out.

use std::{
    thread,
    time::{Duration, Instant},
};

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use node::{
    admin::{Give, Given, GrantEnded, GrantInfo, Grants, LookedUp, Progress, Request, Resource},
    fhir::consent::Purpose,
};
use serde::Serialize;
use sync_core::id::{OrgId, RecordId};

use super::{Context, Writer, conflicts::reason};
use crate::{
    date, duration,
    output::{Exit, Meter, Outcome, Stop},
    render::{self, local, many},
};

/// How often it is asked whether the centre has answered.
const ASKED_EVERY: Duration = Duration::from_millis(300);

/// What to do with grants.
#[derive(Subcommand)]
pub enum Command {
    Give(GiveTo),
    List(List),
    End(End),
    Emergency(Emergency),
}

/// Open a patient's records to another organization for a time
///
/// Everything about the patient goes there, what is written from now on as well, and is forgotten there at the end. The
/// permission is a Consent among the patient's records. What the other organization writes about the patient comes back here.
#[derive(Args)]
#[command(
    before_help = "Example:\n  tuyen --dir dv grant give Patient/8f21 --to quan-ba --for 30d --why \"referred for surgery\"",
    group = ArgGroup::new("end").required(true)
)]
pub struct GiveTo {
    /// Which patient
    #[arg(value_name = "Patient/ID")]
    patient: RecordId,
    /// To which organization
    #[arg(long, value_name = "ORG")]
    to: OrgId,
    /// Until when: 2027-01-01, '2027-01-01 06:00'
    #[arg(long, group = "end", value_name = "DAY", value_parser = date::parse)]
    until: Option<i64>,
    /// For how long: 30d, 12h
    #[arg(long = "for", group = "end", value_name = "LENGTH", value_parser = duration::parse)]
    length: Option<u64>,
    /// What it is for
    #[arg(long, value_enum, default_value = "treatment")]
    purpose: For,
    /// Why; kept in the history of the Consent
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    why: String,
    #[command(flatten)]
    writer: Writer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum For {
    /// Treatment
    Treatment,
    /// Care management: a referral, a council
    CareManagement,
    /// The patient has asked for it
    PatientRequest,
    /// Public health
    PublicHealth,
    /// The law demands it
    Legal,
}

impl From<For> for Purpose {
    fn from(purpose: For) -> Self {
        match purpose {
            For::Treatment => Purpose::Treatment,
            For::CareManagement => Purpose::CareManagement,
            For::PatientRequest => Purpose::PatientRequest,
            For::PublicHealth => Purpose::PublicHealth,
            For::Legal => Purpose::Legal,
        }
    }
}

/// The grants that this node knows, given and received
#[derive(Args)]
#[command(before_help = "Example:\n  tuyen --dir dv grant list\n  tuyen --dir dv grant list --all")]
pub struct List {
    /// Also those that have ended
    #[arg(long)]
    all: bool,
}

/// End a grant before its time
///
/// From now on nothing about the patient goes there, and what is there is forgotten as soon as it hears of the end.
#[derive(Args)]
#[command(before_help = "Example:\n  tuyen --dir dv grant end 4f0c21 --why \"back from surgery\"")]
pub struct End {
    /// The grant, or the first digits of its name
    grant: String,
    /// Why; kept in the history of the Consent
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    why: String,
    #[command(flatten)]
    writer: Writer,
}

/// Ask for the records of a patient in an emergency
///
/// For a patient whom you have before you and whose records are elsewhere, when there is no time to ask for a grant. The
/// nearest node above that has them opens them to this one for three days. That you looked, and why, is on record there, at the
/// patient's clinic and at the centre.
#[derive(Args)]
#[command(
    before_help = "Example:\n  tuyen --dir qb grant emergency Patient/8f21 --why \"unconscious after an accident\""
)]
pub struct Emergency {
    /// Which patient
    #[arg(value_name = "Patient/ID")]
    patient: RecordId,
    /// Why; kept on record
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    why: String,
    /// How long to wait for the patient's record
    #[arg(long, value_name = "LENGTH", default_value = "1min", value_parser = duration::parse)]
    wait: u64,
    #[command(flatten)]
    writer: Writer,
}

impl Command {
    /// Does it.
    pub fn run(self, context: &Context) -> Outcome {
        match self {
            Command::Give(command) => command.run(context),
            Command::List(command) => command.run(context),
            Command::End(command) => command.run(context),
            Command::Emergency(command) => command.run(context),
        }
    }
}

#[derive(Serialize)]
struct GivenBody<'a> {
    grant: &'a str,
    patient: &'a RecordId,
    to: &'a OrgId,
    until: String,
    records: u64,
    secret: u64,
    is_heard_of: bool,
}

impl GiveTo {
    fn run(self, context: &Context) -> Outcome {
        let Self { patient, to, until, length, purpose, why, writer } = self;
        let millis = |seconds: u64| i64::try_from(seconds * 1_000).unwrap_or(i64::MAX);
        let end = until.or(length.map(|length| render::now_millis() + millis(length)));
        let until = end.expect("one of the two is required");
        let give = Give {
            patient: patient.clone(),
            to: to.clone(),
            until,
            purpose: purpose.into(),
            by: writer.name(),
            why,
        };
        let given: Given = context.call(&Request::Give(give))?;
        let body = GivenBody {
            grant: &given.grant,
            patient: &patient,
            to: &to,
            until: render::rfc3339(until),
            records: given.records,
            secret: given.secret,
            is_heard_of: given.is_heard_of,
        };
        context.output.result(opened(&patient, &to, until, &given), &body)?;
        Ok(Exit::Ok)
    }
}

fn opened(patient: &RecordId, to: &OrgId, until: i64, given: &Given) -> String {
    let Given { grant, records, secret, is_heard_of } = given;
    let mut text = format!(
        "{patient} is open to {to} until {}: {}, and what is written about the patient from now on.\n\
         On record as Consent/{grant}. To end it before: tuyen grant end {} --why …\n",
        local(until),
        many(*records, "record", "records"),
        short(grant),
    );
    if *secret > 0 {
        let left = many(*secret, "record is secret and stays", "records are secret and stay");
        text += &format!("{left} here: a grant opens nothing secret.\n");
    }
    if !is_heard_of {
        text += &format!(
            "{to} has not been heard of here, so nobody here can tell whether the name is right; the centre knows, and sends \
             it there if it is.\n"
        );
    }
    text
}

/// As much of a grant's name as people type.
fn short(grant: &str) -> &str {
    grant.get(..8).unwrap_or(grant)
}

#[derive(Serialize)]
struct ListBody<'a> {
    grants: Vec<InfoBody<'a>>,
}

#[derive(Serialize)]
struct InfoBody<'a> {
    grant: &'a str,
    patient: &'a Option<RecordId>,
    to: &'a OrgId,
    successor: &'a Option<OrgId>,
    until: String,
    state: &'static str,
    purpose: Option<Purpose>,
    giver: &'a Option<OrgId>,
    given_at: Option<String>,
    records: u64,
    open: u64,
}

impl<'a> InfoBody<'a> {
    fn new(info: &'a GrantInfo, now: i64) -> Self {
        let GrantInfo {
            grant, patient, to, successor, until, purpose, giver, given_at, records, open, ..
        } = info;
        Self {
            grant,
            patient,
            to,
            successor,
            until: render::rfc3339(*until),
            state: state(info, now),
            purpose: *purpose,
            giver,
            given_at: given_at.map(render::rfc3339),
            records: *records,
            open: *open,
        }
    }
}

/// `open`; `ended` by somebody, or `over` because its time has passed.
fn state(info: &GrantInfo, now: i64) -> &'static str {
    match info {
        // Where the word of its end is forgotten with the record, the time alone tells.
        GrantInfo { ended: true, .. } => "ended",
        GrantInfo { open: 0, until, .. } if *until > now => "ended",
        GrantInfo { open: 0, .. } => "over",
        _ => "open",
    }
}

impl List {
    fn run(self, context: &Context) -> Outcome {
        let Grants { mut grants } = context.call(&Request::Grants)?;
        let now = render::now_millis();
        grants.retain(|info| self.all || state(info, now) == "open");
        let body = ListBody { grants: grants.iter().map(|info| InfoBody::new(info, now)).collect() };
        context.output.result(table(&grants, self.all, now), &body)?;
        Ok(Exit::Ok)
    }
}

fn table(grants: &[GrantInfo], all: bool, now: i64) -> String {
    if grants.is_empty() {
        let which = if all { "No grant is known here" } else { "No grant is open here" };
        return format!("{which}. `tuyen grant give` opens a patient's records to somebody for a time.\n");
    }
    let heads = ["GRANT", "PATIENT", "OPEN TO", "FROM", "UNTIL", "FOR", "RECORDS"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for info in grants {
        let unknown = || "?".to_owned();
        let to = match info.place {
            Some(_) => with_successor(&info.to, info.successor.as_ref()),
            None => format!("{} (not heard of here)", info.to),
        };
        let until = match state(info, now) {
            "ended" => "ended before its time".to_owned(),
            "over" => format!("over since {}", local(info.until)),
            _ => local(info.until),
        };
        rows.push(vec![
            short(&info.grant).to_owned(),
            info.patient.as_ref().map_or_else(unknown, ToString::to_string),
            to,
            info.giver.as_ref().map_or_else(unknown, ToString::to_string),
            until,
            info.purpose.map_or("?", words).to_owned(),
            render::count(info.records),
        ]);
    }
    let mut text = render::table(&rows);
    if grants.iter().any(|info| info.patient.is_none()) {
        text += "\nWhere a ? stands, the Consent of the grant is not here; the centre has it: `tuyen grant list` there.\n";
    }
    text
}

/// An organization, and who stands in its place when it is closed.
pub fn with_successor(org: &OrgId, successor: Option<&OrgId>) -> String {
    successor.map_or_else(|| org.to_string(), |heir| format!("{org} (closed; now {heir})"))
}

fn words(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Treatment => "treatment",
        Purpose::CareManagement => "care management",
        Purpose::PatientRequest => "patient's request",
        Purpose::PublicHealth => "public health",
        Purpose::Legal => "the law",
        Purpose::Emergency => "EMERGENCY",
    }
}

impl End {
    fn run(self, context: &Context) -> Outcome {
        let Self { grant, why, writer } = self;
        let ended: GrantEnded = context.call(&Request::EndGrant { grant, by: writer.name(), why })?;
        context.output.result(end_in_words(&ended), &ended)?;
        Ok(Exit::Ok)
    }
}

fn end_in_words(ended: &GrantEnded) -> String {
    let GrantEnded { patient, to, records, still_open_by, .. } = ended;
    let to = with_successor(to, ended.successor.as_ref());
    let amount = many(*records, "record", "records");
    if ended.holds_by_right {
        return format!(
            "This grant is ended ({amount}), and {to} HOLDS {patient} WITHOUT ONE: it is the patient's home by now, or stands above \
             it. Nothing is forgotten there.\n"
        );
    }
    if let [first, ..] = &still_open_by[..] {
        return format!(
            "This grant is ended ({amount}), and {patient} is STILL OPEN to {to} by another: {}. End that as well if nobody \
             there is to read on: tuyen grant end {first} --why ...\n",
            still_open_by.join(", ")
        );
    }
    let there = match ended.is_heard_of {
        true => format!("What is there is forgotten as soon as {to} hears of it."),
        false => format!(
            "No organization {to} has been heard of here. If there is one, what is there is forgotten as soon as it hears of this."
        ),
    };
    format!("{patient} is not open to {to} any more: {amount}. {there}\n")
}

#[derive(Serialize)]
struct LookedUpBody<'a> {
    grant: &'a str,
    patient: &'a RecordId,
    is_linked: bool,
    is_here: bool,
}

impl Emergency {
    fn run(self, context: &Context) -> Outcome {
        let Self { patient, why, wait, writer } = self;
        let request = Request::LookUp { patient: patient.clone(), by: writer.name(), why };
        let LookedUp { grant, is_linked } = context.call(&request)?;
        let is_here = is_linked && comes(context, &patient, Duration::from_secs(wait))?;
        let body = LookedUpBody { grant: &grant, patient: &patient, is_linked, is_here };
        let asked = format!("You have asked for {patient}, which is on record as AuditEvent/{grant}.\n");
        if is_here {
            let text = format!(
                "{asked}It is here, and what is about the patient arrives, the urgent first: tuyen records get {patient}\n"
            );
            context.output.result(text, &body)?;
            return Ok(Exit::Ok);
        }
        let why = if is_linked {
            "Nothing has come yet. It comes by itself if somebody above has it; the line may be slow, or nobody has that \
             patient: check the number, and telephone the patient's clinic."
        } else {
            "There is no link to the parent. It is asked as soon as there is one; telephone the patient's clinic meanwhile."
        };
        context.output.result(format!("{asked}{why}\n"), &body)?;
        Ok(Exit::Attention)
    }
}

/// Waits until a record is here; no longer than that.
fn comes(context: &Context, record: &RecordId, wait: Duration) -> Result<bool, Stop> {
    let (mut client, mut meter, start) = (context.client()?, Meter::new(), Instant::now());
    while start.elapsed() < wait {
        let got: Result<Resource, _> = client.call(&Request::Get { record: record.clone() }, |_| {});
        if got.is_ok() {
            meter.clear();
            return Ok(true);
        }
        let done = start.elapsed().as_secs();
        let what = "seconds waited for the patient's record".to_owned();
        meter.show(&Progress { what, done, total: Some(wait.as_secs()) });
        thread::sleep(ASKED_EVERY);
    }
    meter.clear();
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(grant: &str, open: u64, ended: bool) -> GrantInfo {
        GrantInfo {
            grant: grant.repeat(16),
            patient: Some("Patient/8f21".parse().unwrap()),
            to: OrgId::new("quan-ba").unwrap(),
            successor: None,
            place: Some("tw/tuyen-quang/quan-ba".parse().unwrap()),
            until: 1_803_834_000_000,
            purpose: Some(Purpose::CareManagement),
            giver: Some(OrgId::new("dong-van").unwrap()),
            given_at: Some(1_800_000_000_000),
            ended,
            records: 12,
            open,
        }
    }

    #[test]
    fn a_list_says_what_is_open_to_whom() {
        let unknown =
            GrantInfo { patient: None, purpose: None, giver: None, place: None, ..info("b2", 3, false) };
        let expected = "\
GRANT     PATIENT       OPEN TO                      FROM      UNTIL                        FOR              RECORDS
a1a1a1a1  Patient/8f21  quan-ba                      dong-van  2027-03-01 00:00             care management  12
b2b2b2b2  ?             quan-ba (not heard of here)  ?         2027-03-01 00:00             ?                12
c3c3c3c3  Patient/8f21  quan-ba                      dong-van  over since 2027-03-01 00:00  care management  12
d4d4d4d4  Patient/8f21  quan-ba                      dong-van  ended before its time        care management  12

Where a ? stands, the Consent of the grant is not here; the centre has it: `tuyen grant list` there.
";
        let all = [info("a1", 12, false), unknown, info("c3", 0, false), info("d4", 0, true)];
        let end = all[0].until;
        assert_eq!(table(&all, true, end), expected);
        assert_eq!(state(&all[2], end - 1), "ended", "it is not over since a time that comes");
        assert!(!table(&all[..1], true, end).contains('?'));
        assert!(table(&[], true, 0).starts_with("No grant is known here."));
        assert!(table(&[], false, 0).starts_with("No grant is open here."));
    }

    #[test]
    fn who_ends_a_grant_hears_what_becomes_of_what_is_there() {
        let ended = |still_open_by: &[&str], holds_by_right, is_heard_of| {
            let ended = GrantEnded {
                grant: "4f0c21aa".repeat(4),
                patient: "Patient/8f21".parse().unwrap(),
                to: OrgId::new("quan-ba").unwrap(),
                successor: None,
                records: 12,
                still_open_by: still_open_by.iter().map(|&name| name.to_owned()).collect(),
                holds_by_right,
                is_heard_of,
            };
            end_in_words(&ended)
        };
        let forgotten = "\
Patient/8f21 is not open to quan-ba any more: 12 records. What is there is forgotten as soon as quan-ba hears of it.
";
        assert_eq!(ended(&[], false, true), forgotten);
        let other = ended(&["b2b2"], false, true);
        assert!(other.contains("STILL OPEN to quan-ba by another: b2b2."), "{other}");
        let right = ended(&["b2b2"], true, true);
        assert!(right.contains("quan-ba HOLDS Patient/8f21 WITHOUT ONE"), "{right}");
        let closed = GrantEnded {
            grant: String::new(),
            patient: "Patient/8f21".parse().unwrap(),
            to: OrgId::new("quan-ba").unwrap(),
            successor: Some(OrgId::new("bac-me").unwrap()),
            records: 1,
            still_open_by: Vec::new(),
            holds_by_right: false,
            is_heard_of: true,
        };
        let said = end_in_words(&closed);
        assert!(
            said.starts_with("Patient/8f21 is not open to quan-ba (closed; now bac-me) any more"),
            "{said}"
        );
        let unheard = ended(&[], false, false);
        assert!(unheard.contains("No organization quan-ba has been heard of here."), "{unheard}");
    }

    #[test]
    fn who_opens_records_hears_what_was_opened_and_what_was_not() {
        let (patient, to) = ("Patient/8f21".parse().unwrap(), OrgId::new("quan-ba").unwrap());
        let given = Given { grant: "4f0c21aa".repeat(4), records: 12, secret: 0, is_heard_of: true };
        let text = opened(&patient, &to, 1_803_834_000_000, &given);
        let expected = "\
Patient/8f21 is open to quan-ba until 2027-03-01 00:00: 12 records, and what is written about the patient from now on.
On record as Consent/4f0c21aa4f0c21aa4f0c21aa4f0c21aa. To end it before: tuyen grant end 4f0c21aa --why …
";
        assert_eq!(text, expected);
        let text = opened(&patient, &to, 0, &Given { secret: 2, is_heard_of: false, ..given });
        assert!(
            text.contains("\n2 records are secret and stay here")
                && text.contains("\nquan-ba has not been heard of")
        );
    }
}
