//! `tuyen scope`: why something is or is not at a place, in words.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use node::admin::{Destination, Explained, GrantLine, Home, Reason, Request};
use serde::Serialize;
use sync_core::{
    id::{OrgId, RecordId},
    scope::grant::FOREVER,
};

use super::{Context, grant::with_successor};
use crate::{
    output::{Exit, Outcome, Stop, usage},
    render::{self, local, many},
};

/// What to do about scope.
#[derive(Subcommand)]
pub enum Command {
    Explain(Explain),
}

impl Command {
    /// Does it.
    pub fn run(self, context: &Context) -> Outcome {
        match self {
            Command::Explain(command) => command.run(context),
        }
    }
}

/// Say where a record, or the records of an organization, are sent from here, and why
///
/// A record goes up to the centre, and down to where its homes stand: the organization whose patient it is about, or that
/// created it. What an organization issues goes to everybody below it.
#[derive(Args)]
#[command(
    before_help = "Example:\n  tuyen --dir hg scope explain Patient/8f21\n  tuyen --dir hg scope explain dong-van"
)]
pub struct Explain {
    /// Which record, or which organization
    #[arg(value_name = "TYPE/ID|ORG", value_parser = subject)]
    subject: Subject,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Subject {
    Record(RecordId),
    Org(OrgId),
}

fn subject(text: &str) -> Result<Subject, String> {
    if text.contains('/') {
        return text
            .parse()
            .map(Subject::Record)
            .map_err(|error: sync_core::id::NameError| error.to_string());
    }
    text.parse().map(Subject::Org).map_err(|error: sync_core::id::NameError| error.to_string())
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<&'a RecordId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    org: Option<&'a OrgId>,
    #[serde(flatten)]
    explained: &'a Explained,
}

impl Explain {
    /// Does it.
    pub fn run(self, context: &Context) -> Outcome {
        match self.subject {
            Subject::Record(record) => {
                let explained: Explained =
                    context.call(&Request::ExplainRecord { record: record.clone() })?;
                let body = Body { record: Some(&record), org: None, explained: &explained };
                context.output.result(of_record(&record, &explained), &body)?;
            }
            Subject::Org(org) => {
                let explained: Explained = context.call(&Request::ExplainOrg { org: org.clone() })?;
                known(&org, &explained)?;
                let body = Body { record: None, org: Some(&org), explained: &explained };
                context.output.result(of_org(&org, &explained), &body)?;
            }
        }
        Ok(Exit::Ok)
    }
}

fn known(org: &OrgId, explained: &Explained) -> Result<(), Stop> {
    if explained.entries > 0 || explained.homes.iter().any(|home| home.place.is_some()) {
        return Ok(());
    }
    Err(usage(format!(
        "no organization {org} has been heard of at {}; check the spelling, or ask at the centre, where all are known",
        explained.own
    )))
}

fn of_record(record: &RecordId, explained: &Explained) -> String {
    let Explained { own, entries, issuer, secrecy, homes, .. } = explained;
    if *entries == 0 {
        return format!(
            "{record} is not here. {own} holds what has its home here or below, what is issued here or above, and what a grant opens \
             here or below. If it should be here, it has not arrived yet, or its home stands elsewhere: ask where it was written.\n"
        );
    }
    let mut text = format!("{record} is here, at {own}: {}.\n", many(*entries, "change", "changes"));
    if let Some(issuer) = issuer {
        let _ = writeln!(text, "{issuer} issues it to everybody below.");
    }
    if let Some(code) = secrecy.code() {
        let _ = writeln!(
            text,
            "It is secret ({code}): what is written of it here goes only where both ends allow it. What had left before it was marked \
             goes its way, and a grant that is given above may open it."
        );
    }
    text + &homes_and_neighbours(homes, explained)
}

fn of_org(org: &OrgId, explained: &Explained) -> String {
    let Explained { own, entries, homes, .. } = explained;
    let held = many(*entries, "change", "changes");
    format!("Of records whose home is {org}, {own} holds {held}.\n") + &homes_and_neighbours(homes, explained)
}

fn homes_and_neighbours(homes: &[Home], explained: &Explained) -> String {
    let home = |home: &Home| {
        let place = home.place.as_ref().map_or_else(|| "not heard of here".to_owned(), ToString::to_string);
        vec!["  home".to_owned(), home.org.to_string(), place]
    };
    let neighbour = |to: &Destination| {
        let why = match to.reason {
            Reason::EverythingGoesUp => "yes: everything goes up",
            Reason::HomeWithin => "yes: a home of it is there",
            Reason::IssuedAbove => "yes: it is issued at that place or above",
            Reason::OpenedWithin => "yes: it is open to somebody there",
            Reason::NoHomeWithin => "no: no home of it is there",
            Reason::Secret => "no: it is secret, and the profiles of the link do not allow it",
        };
        let kept = match to.held_back {
            _ if !to.sent => String::new(),
            0 => String::new(),
            1 => ", but not 1 change that is too secret for the profiles of the link".to_owned(),
            held => format!(", but not {held} changes that are too secret for the profiles of the link"),
        };
        let kept = kept + if to.by_bundle { "; a bundle may take it there" } else { "" };
        let is_up = explained.own.is_within(&to.place);
        let way = if is_up { "  up" } else { "  down" };
        let open = match to.open {
            0 => String::new(),
            open => format!(
                ", but {} there by a grant: `tuyen grant list`",
                many(open, "record of it is open", "records of it are open")
            ),
        };
        vec![way.to_owned(), to.place.org().to_string(), why.to_owned() + &kept + &open]
    };
    let grant = |grant: &GrantLine| {
        let state = if grant.over { "  was open to" } else { "  open to" };
        let until = match grant.until {
            _ if grant.over => "and is no more".to_owned(),
            FOREVER => "until that is ended".to_owned(),
            until => format!("until {}", local(until)),
        };
        let until = format!("{until}, grant {}", grant.grant);
        vec![state.to_owned(), with_successor(&grant.to, grant.successor.as_ref()), until]
    };
    let grants = explained.grants.iter().map(grant);
    let rows: Vec<_> =
        homes.iter().map(home).chain(grants).chain(explained.neighbours.iter().map(neighbour)).collect();
    render::table(&rows)
}

#[cfg(test)]
mod tests {
    use sync_core::id::Secrecy;

    use super::*;

    fn explained(entries: u64) -> Explained {
        let to = |place: &str, reason| Destination {
            place: place.parse().unwrap(),
            sent: reason != Reason::NoHomeWithin,
            reason,
            held_back: 0,
            open: 0,
            by_bundle: false,
        };
        Explained {
            own: "tw/ha-giang".parse().unwrap(),
            entries,
            issuer: None,
            secrecy: Secrecy::None,
            homes: vec![Home {
                org: OrgId::new("dong-van").unwrap(),
                place: Some("tw/ha-giang/dong-van".parse().unwrap()),
            }],
            grants: Vec::new(),
            neighbours: vec![
                to("tw", Reason::EverythingGoesUp),
                to("tw/ha-giang/dong-van", Reason::HomeWithin),
                to("tw/ha-giang/meo-vac", Reason::NoHomeWithin),
            ],
        }
    }

    #[test]
    fn a_record_is_explained_in_words() {
        let record: RecordId = "Patient/8f21".parse().unwrap();
        let expected = "\
Patient/8f21 is here, at tw/ha-giang: 2 changes.
  home  dong-van  tw/ha-giang/dong-van
  up    tw        yes: everything goes up
  down  dong-van  yes: a home of it is there
  down  meo-vac   no: no home of it is there
";
        assert_eq!(of_record(&record, &explained(2)), expected);
        let not_here = of_record(&record, &explained(0));
        assert!(
            not_here.starts_with("Patient/8f21 is not here.") && not_here.contains("what a grant opens"),
            "{not_here}"
        );
        let issued = Explained { issuer: Some(OrgId::new("tw").unwrap()), ..explained(1) };
        assert!(of_record(&record, &issued).contains("\ntw issues it to everybody below.\n"));
    }

    #[test]
    fn what_is_too_secret_to_go_is_counted() {
        let mut explained = explained(5);
        explained.neighbours[0].held_back = 1;
        let said = of_org(&OrgId::new("dong-van").unwrap(), &explained);
        assert!(
            said.contains(
                "yes: everything goes up, but not 1 change that is too secret for the profiles of the link\n"
            ),
            "{said}"
        );
        explained.neighbours[0].by_bundle = true;
        let said = of_org(&OrgId::new("dong-van").unwrap(), &explained);
        assert!(said.contains("for the profiles of the link; a bundle may take it there\n"), "{said}");
    }

    #[test]
    fn what_goes_by_a_grant_where_no_home_is_is_counted() {
        let mut explained = explained(5);
        explained.neighbours[2].open = 30;
        let said = of_org(&OrgId::new("dong-van").unwrap(), &explained);
        let line = "meo-vac   no: no home of it is there, but 30 records of it are open there by a grant: `tuyen grant list`\n";
        assert!(said.contains(line), "{said}");
    }

    #[test]
    fn to_whom_a_record_is_open_is_said_with_its_end() {
        let grant = |to: &str, until, over| GrantLine {
            successor: (to == "bac-me").then(|| OrgId::new("quan-ba").unwrap()),
            grant: "4f0c21".into(),
            to: OrgId::new(to).unwrap(),
            until,
            over,
        };
        let open = Explained {
            grants: vec![
                grant("quan-ba", 1_803_834_000_000, false),
                grant("bac-me", 0, true),
                grant("meo-vac", FOREVER, false),
            ],
            ..explained(2)
        };
        let said = of_record(&"Basic/1".parse().unwrap(), &open);
        for line in [
            "  open to      quan-ba                       until 2027-03-01 00:00, grant 4f0c21\n",
            "  was open to  bac-me (closed; now quan-ba)  and is no more, grant 4f0c21\n",
            "  open to      meo-vac                       until that is ended, grant 4f0c21\n",
        ] {
            assert!(said.contains(line), "{said}");
        }
    }

    #[test]
    fn an_organization_that_nobody_knows_is_a_wrong_word() {
        let org = OrgId::new("dong-van").unwrap();
        assert!(
            of_org(&org, &explained(3))
                .starts_with("Of records whose home is dong-van, tw/ha-giang holds 3 changes")
        );
        let secret = Explained { secrecy: Secrecy::ToiMat, ..explained(2) };
        let said = of_record(&"Basic/1".parse().unwrap(), &secret);
        assert!(said.contains("\nIt is secret (toi-mat): "), "{said}");
        assert!(said.contains(" goes its way, and a grant that is given above may open it.\n"), "{said}");
        assert!(known(&org, &explained(0)).is_ok());
        let unheard = Explained { homes: vec![Home { org: org.clone(), place: None }], ..explained(0) };
        assert!(known(&org, &unheard).is_err());
    }

    #[test]
    fn a_subject_is_a_record_or_an_organization() {
        assert_eq!(subject("Patient/1"), Ok(Subject::Record("Patient/1".parse().unwrap())));
        assert_eq!(subject("ha-giang"), Ok(Subject::Org(OrgId::new("ha-giang").unwrap())));
        assert!(subject("Patient/").is_err() && subject("Ha Giang").is_err());
    }
}
