//! `tuyen peers`: the neighbours of a node and how the links to them are.

use clap::Args;
use node::admin::{LinkState, Peers as Answer, Request};
use serde::Serialize;
use sync_core::{id::NodeId, identity::Role};

use super::Context;
use crate::{
    output::{Exit, Outcome},
    render::{self, age, ago, count, many},
};

/// The links to the parent and to the children, also of those who are away
#[derive(Args)]
#[command(before_help = "Example:\n  tuyen --dir hg peers")]
pub struct Peers {}

/// A link as JSON.
#[derive(Serialize)]
pub struct LinkBody<'a> {
    place: &'a str,
    role: Role,
    node: Option<NodeId>,
    state: &'a str,
    problem: &'a Option<String>,
    last_contact: Option<String>,
    address: &'a Option<String>,
    software: &'a Option<String>,
    rtt_millis: Option<u64>,
    behind: Option<u64>,
    behind_seconds: Option<u64>,
    to_come: Option<u64>,
}

impl<'a> LinkBody<'a> {
    /// The JSON of this link.
    pub fn new(link: &'a LinkState) -> Self {
        Self {
            place: &link.place,
            role: link.role,
            node: link.node,
            state: &link.state,
            problem: &link.problem,
            last_contact: link.last_contact.map(render::rfc3339),
            address: &link.address,
            software: &link.software,
            rtt_millis: link.rtt_millis,
            behind: link.behind,
            behind_seconds: link.behind_seconds,
            to_come: link.to_come,
        }
    }
}

#[derive(Serialize)]
struct PeersBody<'a> {
    peers: Vec<LinkBody<'a>>,
}

impl Peers {
    /// Does it.
    pub fn run(self, context: &Context) -> Outcome {
        let answer: Answer = context.call(&Request::Peers)?;
        if context.output.json {
            context.output.object(&PeersBody { peers: answer.peers.iter().map(LinkBody::new).collect() })?;
        } else if answer.peers.is_empty() {
            context.output.line("No neighbours yet; `tuyen invite` makes a token for one.")?;
        } else {
            context.output.text(table(&answer.peers, render::now_millis()))?;
        }
        Ok(Exit::Ok)
    }
}

fn table(peers: &[LinkState], now: i64) -> String {
    let header = ["PLACE", "ROLE", "STATE", "HEARD", "NOT YET THERE", "STILL TO COME", "ADDRESS", "SOFTWARE"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    let dash = || "-".to_owned();
    for link in peers {
        rows.push(vec![
            link.place.clone(),
            link.role.to_string(),
            state_in_words(&link.state).to_owned(),
            link.last_contact.map_or_else(|| "never".into(), |at| ago(at, now)),
            link.behind.map_or_else(dash, count) + &oldest(link),
            link.to_come.map_or_else(dash, count),
            link.address.clone().unwrap_or_else(dash),
            link.software.as_deref().map_or_else(dash, render::one_line),
        ]);
    }
    let mut out = render::table(&rows);
    for link in peers {
        if let Some(problem) = &link.problem {
            out.push_str(&format!("\n{}: {problem}\n", link.place));
        }
    }
    out
}

/// How long something has waited for a neighbour, if that is known.
fn oldest(link: &LinkState) -> String {
    link.behind_seconds.map_or(String::new(), |seconds| format!(" (the oldest for {})", age(seconds)))
}

/// The state of a link, for people.
pub fn state_in_words(state: &str) -> &str {
    match state {
        "dialling" => "not connected, dialling",
        "away" => "not connected",
        other => other,
    }
}

/// A link in one line.
pub fn in_words(link: &LinkState, now: i64) -> String {
    let mut parts = vec![state_in_words(&link.state).to_owned()];
    parts
        .push(link.last_contact.map_or_else(|| "never heard".into(), |at| format!("heard {}", ago(at, now))));
    parts.extend(link.rtt_millis.map(|millis| format!("{} ms away", count(millis))));
    parts.extend(
        link.behind
            .filter(|n| *n > 0)
            .map(|n| format!("{} not yet there{}", many(n, "entry", "entries"), oldest(link))),
    );
    parts.extend(
        link.to_come.filter(|n| *n > 0).map(|n| format!("{} still to come", many(n, "entry", "entries"))),
    );
    format!("{} ({}): {}", link.place, link.role, parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_the_parent_has_an_age() {
        let mut link = LinkState {
            place: "trung-uong".into(),
            role: Role::Root,
            node: None,
            state: "dialling".into(),
            problem: None,
            last_contact: None,
            address: None,
            software: None,
            rtt_millis: None,
            behind: Some(37),
            behind_seconds: Some(10_800),
            to_come: None,
        };
        let said = in_words(&link, 0);
        assert!(said.ends_with("37 entries not yet there (the oldest for 3 h)"), "{said}");
        assert!(table(&[link.clone()], 0).contains(" 37 (the oldest for 3 h) "));
        (link.behind, link.behind_seconds) = (Some(0), None);
        assert!(in_words(&link, 0).ends_with("never heard"));
    }

    #[test]
    fn a_neighbour_that_is_away_says_why() {
        let link = LinkState {
            place: "trung-uong/ha-giang/dong-van".into(),
            role: Role::Leaf,
            node: None,
            state: "away".into(),
            problem: Some("it has not called since yesterday".into()),
            last_contact: Some(0),
            address: None,
            software: None,
            rtt_millis: None,
            behind: Some(1),
            behind_seconds: None,
            to_come: Some(1_204),
        };
        let words = "trung-uong/ha-giang/dong-van (leaf): not connected, heard 24 h ago, 1 entry not yet there, \
             1,204 entries still to come";
        assert_eq!(in_words(&link, 86_400_000), words);
        let table = table(&[link], 86_400_000);
        assert!(
            table.ends_with("trung-uong/ha-giang/dong-van: it has not called since yesterday\n"),
            "{table}"
        );
        assert!(table.contains("not connected  24 h ago  1              1,204"), "{table}");
    }
}
