//! `tuyen outages`: when a neighbour was not connected, and why, for people and as evidence. What always holds: a time
//! that goes backwards, because the clock was set back, is shown as it is and marked. Not here: the arithmetic, which
//! is the daemon's.

use clap::Args;
use node::admin::{ClockStep, Neighbour, Outage, Outages as Answer, Request, Stretch};
use serde::Serialize;
use sync_core::id::{NodeId, OrgId, OrgPath};

use super::Context;
use crate::{
    duration,
    output::{Exit, Outcome},
    render::{self, count, exact_age, local_to_the_second, many},
};

/// Most outages of one neighbour that are shown to people; JSON output has all.
const OUTAGES_SHOWN: usize = 30;

/// When a neighbour was not connected, and why: the line, this machine, a pause, a refusal
///
/// The log is this node's own, by its own clock, and covers the time since the node first ran with it. Of what happened
/// in the last minute before a power cut it may know nothing. With --json it has every time exactly, for evidence.
#[derive(Args)]
#[command(before_help = "Example:\n  tuyen --dir dv outages\n  \
                         tuyen --dir hg outages --org dong-van --since 30d --json > dong-van.json")]
pub struct Outages {
    /// Only this neighbour
    #[arg(long)]
    org: Option<OrgId>,
    /// Only the last so much time, as in 30d or 12h
    #[arg(long, value_name = "LENGTH", value_parser = duration::parse)]
    since: Option<u64>,
}

#[derive(Serialize)]
struct OutagesBody<'a> {
    node: NodeId,
    org: &'a OrgId,
    place: &'a OrgPath,
    software: &'a str,
    from: Option<String>,
    to: String,
    complete_from: Option<String>,
    events_at_most: u32,
    runs: Vec<StretchBody<'a>>,
    clock_set: Vec<StepBody>,
    neighbours: Vec<NeighbourBody<'a>>,
}

#[derive(Serialize)]
struct NeighbourBody<'a> {
    place: &'a OrgPath,
    direction: &'a str,
    from: Option<String>,
    until: Option<String>,
    connected_millis: i64,
    out_millis: i64,
    connected_percent: Option<f64>,
    outages: Vec<OutageBody<'a>>,
    connected: Vec<StretchBody<'a>>,
}

#[derive(Serialize)]
struct OutageBody<'a> {
    from: String,
    to: Option<String>,
    millis: i64,
    why: &'a str,
}

#[derive(Serialize)]
struct StretchBody<'a> {
    from: String,
    to: Option<String>,
    millis: i64,
    ended: &'a Option<String>,
}

#[derive(Serialize)]
struct StepBody {
    from: String,
    to: String,
}

impl Outages {
    /// Does it.
    pub fn run(self, context: &Context) -> Outcome {
        let request = Request::Outages { org: self.org, since_seconds: self.since };
        let answer: Answer = context.call(&request)?;
        if context.output.json {
            context.output.object(&body(&answer))?;
        } else {
            context.output.text(text(&answer))?;
        }
        Ok(Exit::Ok)
    }
}

fn body(answer: &Answer) -> OutagesBody<'_> {
    let step = |step: &ClockStep| StepBody { from: render::rfc3339(step.from), to: render::rfc3339(step.to) };
    OutagesBody {
        node: answer.node,
        org: &answer.org,
        place: &answer.place,
        software: &answer.software,
        from: answer.from.map(render::rfc3339),
        to: render::rfc3339(answer.to),
        complete_from: answer.gone.map(render::rfc3339),
        events_at_most: answer.most,
        runs: answer.runs.iter().map(|run| stretch_body(run, answer.to)).collect(),
        clock_set: answer.clock.iter().map(step).collect(),
        neighbours: answer.neighbours.iter().map(|one| neighbour_body(one, answer.to)).collect(),
    }
}

fn neighbour_body(one: &Neighbour, now: i64) -> NeighbourBody<'_> {
    NeighbourBody {
        place: &one.place,
        direction: &one.direction,
        from: one.from.map(render::rfc3339),
        until: one.until.map(render::rfc3339),
        connected_millis: one.connected_millis,
        out_millis: one.out_millis,
        connected_percent: tenths(one).map(|tenths| tenths as f64 / 10.0),
        outages: one.outages.iter().map(|it| outage_body(it, now)).collect(),
        connected: one.connected.iter().map(|it| stretch_body(it, now)).collect(),
    }
}

fn outage_body(it: &Outage, now: i64) -> OutageBody<'_> {
    OutageBody {
        from: render::rfc3339(it.from),
        to: it.to.map(render::rfc3339),
        millis: millis((it.from, it.to), now),
        why: &it.why,
    }
}

fn stretch_body(it: &Stretch, now: i64) -> StretchBody<'_> {
    StretchBody {
        from: render::rfc3339(it.from),
        to: it.to.map(render::rfc3339),
        millis: millis((it.from, it.to), now),
        ended: &it.ended,
    }
}

/// How long it was; below zero when the clock was set back meanwhile.
fn millis((from, to): (i64, Option<i64>), now: i64) -> i64 {
    to.unwrap_or(now).saturating_sub(from)
}

/// How much of the time it was connected, in tenths of a percent and never rounded up.
fn tenths(one: &Neighbour) -> Option<i64> {
    let whole = i128::from(one.connected_millis) + i128::from(one.out_millis);
    let tenths = (i128::from(one.connected_millis) * 1_000).checked_div(whole)?;
    i64::try_from(tenths).ok()
}

fn text(answer: &Answer) -> String {
    if answer.neighbours.is_empty() {
        return "No neighbours yet, so no link that could be down; `tuyen invite` makes a token for one.\n"
            .into();
    }
    let Some(from) = answer.from else { return "Nothing has been logged yet.\n".into() };
    let mut out = format!("From {} to {}.\n", local_to_the_second(from), local_to_the_second(answer.to));
    if let Some(gone) = answer.gone {
        out.push_str(&format!(
            "Events before {} have gone: the log keeps {}.\n",
            local_to_the_second(gone),
            count(u64::from(answer.most))
        ));
    }
    for step in &answer.clock {
        out.push_str(&format!(
            "This machine's clock was set from {} to {}, or it slept; nothing is counted between.\n",
            local_to_the_second(step.from),
            local_to_the_second(step.to)
        ));
    }
    for one in &answer.neighbours {
        out.push_str(&format!("\n{}\n", total(one)));
        out.push_str(&table(one, answer.to));
    }
    out
}

/// How much of the period a neighbour was connected.
fn total(one: &Neighbour) -> String {
    let until = one.until.map(|until| format!(", until {}", local_to_the_second(until)));
    let name = format!("{} ({}{})", one.place, one.direction, until.unwrap_or_default());
    let Some(tenths) = tenths(one) else {
        return match one.from {
            None => format!("{name}: has not been connected since the log begins."),
            Some(_) => format!("{name}: no time has passed."),
        };
    };
    if one.outages.is_empty() {
        return format!("{name}: connected all the time.");
    }
    format!("{name}: connected {}.{} % of the time.", tenths / 10, tenths % 10)
}

fn table(one: &Neighbour, now: i64) -> String {
    if one.outages.is_empty() {
        return String::new();
    }
    let mut rows = vec![["  FROM", "TO", "HOW LONG", "WHY"].map(str::to_owned).to_vec()];
    let (open, ended): (Vec<&Outage>, Vec<&Outage>) =
        one.outages.iter().rev().partition(|it| it.to.is_none());
    for it in open.into_iter().chain(ended).take(OUTAGES_SHOWN) {
        let from = local_to_the_second(it.from);
        let (from, to) = match it.to {
            None => (format!("  since {from}"), "-".to_owned()),
            Some(to) => (format!("  {from}"), local_to_the_second(to)),
        };
        let long = match u64::try_from(millis((it.from, it.to), now)) {
            Ok(millis) => exact_age(millis / 1_000),
            Err(_) => "the clock went back".to_owned(),
        };
        rows.push(vec![from, to, long, why_in_words(&it.why).to_owned()]);
    }
    let mut out = render::table(&rows);
    if one.outages.len() > OUTAGES_SHOWN {
        let more = many((one.outages.len() - OUTAGES_SHOWN) as u64, "older one", "older ones");
        out.push_str(&format!("  and {more}; `tuyen outages --json` has all\n"));
    }
    out.push_str(&format!("  {}\n", sums(one, now)));
    out
}

/// How long it was not connected, by reason.
fn sums(one: &Neighbour, now: i64) -> String {
    let sum = |why: &str| {
        let of = one.outages.iter().filter(|it| it.why == why);
        of.map(|it| millis((it.from, it.to), now).max(0).unsigned_abs()).fold(0, u64::saturating_add)
    };
    let mut reasons: Vec<&str> = one.outages.iter().map(|it| it.why.as_str()).collect();
    reasons.sort_unstable();
    reasons.dedup();
    let parts: Vec<String> = reasons
        .into_iter()
        .map(|why| format!("{}: {}", why_in_words(why), exact_age(sum(why) / 1_000)))
        .collect();
    format!("in all: {}", parts.join("; "))
}

fn why_in_words(why: &str) -> &str {
    match why {
        "line" => "the line, or the machine there",
        "closed" => "stopped or paused there",
        "off" => "this machine was off",
        "paused" => "syncing was paused here",
        "refused" => "refused",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn answer() -> Answer {
        let outage = |from: i64, to: Option<i64>, why: &str| Outage {
            from: from * HOUR,
            to: to.map(|to| to * HOUR),
            why: why.into(),
        };
        Answer {
            node: NodeId([0xab; 16]),
            org: OrgId::new("ha-giang").unwrap(),
            place: "trung-uong/ha-giang".parse().unwrap(),
            software: "tuyen 0.1.0".into(),
            from: Some(0),
            to: 100 * HOUR,
            gone: None,
            most: 100_000,
            runs: Vec::new(),
            clock: Vec::new(),
            neighbours: vec![Neighbour {
                place: "trung-uong/ha-giang/dong-van".parse().unwrap(),
                direction: "down".into(),
                from: Some(0),
                until: None,
                connected_millis: 60 * HOUR + 1,
                out_millis: 40 * HOUR,
                connected: vec![Stretch { from: 0, to: Some(9 * HOUR), ended: Some("lost".into()) }],
                outages: vec![
                    outage(9, Some(10), "line"),
                    outage(12, Some(11), "off"),
                    outage(20, Some(21), "off"),
                    outage(62, None, "line"),
                ],
            }],
        }
    }

    #[test]
    fn the_open_ones_come_first_and_each_says_why() {
        let expected = "\
From 1970-01-01 07:00:00 to 1970-01-05 11:00:00.

trung-uong/ha-giang/dong-van (down): connected 60.0 % of the time.
  FROM                       TO                   HOW LONG             WHY
  since 1970-01-03 21:00:00  -                    1 day 14 h           the line, or the machine there
  1970-01-02 03:00:00        1970-01-02 04:00:00  1 h 0 min            this machine was off
  1970-01-01 19:00:00        1970-01-01 18:00:00  the clock went back  this machine was off
  1970-01-01 16:00:00        1970-01-01 17:00:00  1 h 0 min            the line, or the machine there
  in all: the line, or the machine there: 1 day 15 h; this machine was off: 1 h 0 min
";
        assert_eq!(text(&answer()), expected);
    }

    #[test]
    fn what_is_not_there_is_said() {
        let mut answer = answer();
        answer.gone = Some(HOUR);
        answer.clock = vec![ClockStep { from: 0, to: HOUR }];
        let said = text(&answer);
        assert!(said.contains("\nEvents before 1970-01-01 08:00:00 have gone: the log keeps 100,000.\n"));
        assert!(
            said.contains("was set from 1970-01-01 07:00:00 to 1970-01-01 08:00:00, or it slept"),
            "{said}"
        );
        answer.neighbours[0].outages =
            (0..40).map(|at| Outage { from: at, to: Some(at), why: "line".into() }).collect();
        assert!(text(&answer).contains("\n  and 10 older ones; `tuyen outages --json` has all\n"));
        answer.neighbours[0].outages.clear();
        assert!(text(&answer).ends_with("dong-van (down): connected all the time.\n"));
        answer.neighbours[0].until = Some(HOUR);
        assert!(
            text(&answer).contains("dong-van (down, until 1970-01-01 08:00:00): connected all the time.")
        );
        answer.neighbours[0].until = None;
        answer.neighbours[0] =
            Neighbour { from: None, connected_millis: 0, out_millis: 0, ..answer.neighbours[0].clone() };
        assert!(text(&answer).ends_with("(down): has not been connected since the log begins.\n"));
        answer.neighbours.clear();
        assert!(text(&answer).starts_with("No neighbours yet"));
    }

    #[test]
    fn the_object_is_exact() {
        let json = serde_json::to_value(body(&answer())).unwrap();
        assert_eq!(
            (json["from"].as_str(), json["complete_from"].as_str()),
            (Some("1970-01-01T00:00:00Z"), None)
        );
        let neighbour = &json["neighbours"][0];
        assert_eq!(neighbour["connected_percent"], 60.0);
        let back = serde_json::json!({"from": "1970-01-01T12:00:00Z", "to": "1970-01-01T11:00:00Z",
            "millis": -HOUR, "why": "off"});
        assert_eq!(neighbour["outages"][1], back);
        assert!(neighbour["outages"][3]["to"].is_null());
        assert_eq!(neighbour["outages"][3]["millis"], 38 * HOUR);
        assert_eq!(neighbour["connected"][0]["ended"], "lost");
    }
}
