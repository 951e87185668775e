//! `tuyen demo`: a whole small country on this machine, with real daemons, real QUIC over the loopback and real
//! encrypted databases. It writes, cuts the links, lets people disagree, pulls the plug on a leaf and a hub,
//! brings everything back, and shows what came of it. What always holds: exit code 0 means that every node
//! agreed, that every record a daemon had acknowledged is at the centre, that each scene ended as it must, and
//! that the settled conflict was gone everywhere.

mod converge;
mod country;
mod load;
mod outage;
mod report;
mod scenes;

use std::{collections::BTreeMap, path::PathBuf, time::Instant};

use clap::Args;
use node::admin::{Choice, ConflictLine, Failure, FailureKind, Listing, Request, Written as Answer};
use sync_core::id::RecordId;

use self::{
    converge::Picture,
    country::{Country, HA_GIANG, ROOT},
    load::{Data, Half, Written},
    report::{ConflictsBody, InputsBody, Report, SceneBody, SettledBody},
    scenes::Scene,
};
use super::{
    Context,
    conflicts::{self, LineBody},
};
use crate::{
    output::{Exit, Outcome, Output, Stop},
    render::{self, count, many},
};

/// Records of one page of the daemon's answer.
const PAGE_RECORDS: u32 = 1_000;
/// Most rejected inputs that are shown to people; JSON output has all.
const REJECTED_SHOWN: usize = 10;
/// Why the demo settles a conflict.
const REASON: &str = "đã hỏi bác sĩ điều trị";

/// Show a whole small country on this machine, in a minute
///
/// One centre, two hubs and four clinics run as real daemons. The demo loads records, cuts the links, edits on
/// several nodes at once, kills a leaf and a hub in the middle of a transfer, brings everything back, and shows
/// what each node holds, that all agree, and the conflicts with who wrote what. The exit code is 0 only when
/// all nodes agree and every record is at the centre.
#[derive(Args)]
#[command(before_help = "Example:\n  tuyen demo\n  tuyen demo --data bundles/ --keep /tmp/country")]
pub struct Demo {
    /// Load these instead of a made-up population: NDJSON, JSON, bundles, or folders of them
    #[arg(long, value_name = "PATH")]
    data: Vec<PathBuf>,
    /// Leave the nodes' folders here; it must be empty or new
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// The seed of the made-up people
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// How many records to make up
    #[arg(long, default_value_t = 2_000, value_name = "N", conflicts_with = "data",
          value_parser = clap::value_parser!(u32).range(0..=100_000))]
    records: u32,
}

/// The telling of the story, step by step.
struct Story {
    output: Output,
    began: Instant,
}

impl Story {
    /// A line with the time. With `--json` it goes to standard error.
    fn step(&self, text: impl std::fmt::Display) -> Result<(), Stop> {
        let line = format!("{:6.1} s  {text}\n", self.began.elapsed().as_secs_f64());
        self.tell(&line)
    }

    fn tell(&self, text: &str) -> Result<(), Stop> {
        if !self.output.json {
            return self.output.text(text);
        }
        use std::io::Write;
        // The result does not depend on who reads the story.
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
        Ok(())
    }
}

/// What the story has come to before it is told.
struct Found {
    written: Written,
    scenes: Vec<Scene>,
    kills: Vec<outage::Kill>,
}

impl Demo {
    /// Does it.
    pub fn run(self, context: &Context) -> Outcome {
        for path in &self.data {
            if let Err(error) = std::fs::metadata(path) {
                let text = format!("cannot read {} ({error}); check the path after --data", path.display());
                return Err(Failure::new(FailureKind::Usage, text).into());
            }
        }
        let story = Story { output: context.output, began: Instant::now() };
        let mut country = Country::plan(self.keep.as_deref())?;
        story.tell("A small country on this machine: a centre, two hubs, four clinics.\n")?;
        let found = self.live(&story, &mut country)?;
        self.look(&story, &mut country, &found)
    }

    /// Everything that happens to the country, until all links are back.
    fn live(&self, story: &Story, country: &mut Country) -> Result<Found, Stop> {
        country.found().map_err(|failure| report::told(failure, "the nodes enrolled"))?;
        story.step("every node has its folder, certificate and daemon, and its place in the tree")?;

        let data = match self.data.is_empty() {
            false => Data::Files(self.data.clone()),
            true => Data::MadeUp { seed: self.seed, records: self.records as usize },
        };
        let mut written = load::load(country, &data, Half::First)?;
        let (cast, people) = scenes::prepare(country, self.seed)?;
        written.merge(people);
        story.step(format_args!("{} written at the four clinics", records(&written)))?;
        self.agreed(story, country)?;

        let everywhere = 0..country.sites.len();
        outage::pause(country, true, everywhere)?;
        story.step("all links cut")?;
        let scenes = scenes::play(country, &cast)?;
        for scene in &scenes {
            story.step(format_args!("  at once: {}", scene.what))?;
        }
        written.merge(load::load(country, &data, Half::Second)?);
        story.step(format_args!("the clinics go on: {} by now", records(&written)))?;

        let (kills, more) = outage::play(country, self.seed, &|kill| story.step(report::kill(kill)))?;
        written.merge(more);
        story.step(format_args!("both started again, all links back; {} by now", records(&written)))?;
        Ok(Found { written, scenes, kills })
    }

    /// What came of it.
    fn look(&self, story: &Story, country: &mut Country, found: &Found) -> Outcome {
        let before = self.agreed(story, country)?;
        let open = all_conflicts(country, ROOT)?;
        story.tell(&format!("\n{}\n", report::table(country, &report::nodes(&before))))?;
        let same = same_lists(country, &open)?;
        let number = many(open.len() as u64, "conflict", "conflicts");
        let where_listed =
            if same.is_none() { "the same list at every node" } else { "as the centre lists them" };
        story.tell(&format!("{number} found, {where_listed}:\n"))?;
        story.tell(&report::conflicts(&open, render::now_millis()))?;
        let mut scenes = Vec::new();
        for scene in &found.scenes {
            let problem = scene.check(country, &open)?;
            scenes.push(SceneBody {
                what: scene.what,
                record: scene.record.clone(),
                ending: scene.ending(),
                problem,
            });
        }
        let settled = settle(country, &open)?;
        let picture = converge::wait(country)?;
        let settled = match settled {
            Some((line, why)) => Some(gone(country, line, why)?),
            None => None,
        };
        if let Some(settled) = &settled {
            let nodes: Vec<&str> = settled.gone_at.iter().map(|org| org.as_str()).collect();
            story.tell("\n")?;
            story.step(format_args!(
                "{} {} settled at {} (\"{}\"); gone at {}",
                settled.record,
                settled.path,
                settled.at,
                settled.why,
                nodes.join(", ")
            ))?;
        }
        let left = all_conflicts(country, ROOT)?;
        let inputs = inputs(country, &found.written)?;
        self.tell_rejected(story, &inputs)?;

        let wire_bytes =
            picture.statuses.iter().enumerate().map(|(at, status)| country.sent_bytes(at, status)).sum();
        let converged = before.converged() && picture.converged() && same.is_none();
        let disagreements = [Some(before.why_not()), Some(picture.why_not()), same];
        let disagreements: Vec<String> =
            disagreements.into_iter().flatten().filter(|why| !why.is_empty()).collect();
        let ok = converged
            && inputs.missing.is_empty()
            && scenes.iter().all(|scene| scene.problem.is_none())
            && settled.as_ref().is_some_and(|settled| settled.gone);
        let lost = !inputs.missing.is_empty();
        let report = Report {
            converged,
            ok,
            nodes: report::nodes(&picture),
            conflicts: ConflictsBody {
                found: open.len(),
                open: left.len(),
                list: open.iter().map(LineBody::new).collect(),
                settled,
            },
            inputs,
            scenes,
            kills: &found.kills,
            disagreements: (!disagreements.is_empty()).then(|| disagreements.join("; ")),
            wire_bytes,
            seconds: story.began.elapsed().as_secs_f64(),
            kept: self.keep.as_ref().map(|folder| folder.display().to_string()),
        };
        for org in country.stop() {
            story.step(format_args!("the daemon of {org} did not end when asked to, and was killed"))?;
        }
        story.tell(&format!("\n{}", report::verdict(&report)))?;
        if self.keep.is_some() {
            let program = std::env::args().next().unwrap_or_else(|| "tuyen".into());
            story.tell(&report::kept(country, &program))?;
        }
        if story.output.json {
            story.output.object(&report)?;
        }
        Ok(match (ok, converged && lost) {
            (true, _) => Exit::Ok,
            (false, true) => Exit::Integrity,
            (false, false) => Exit::Failed,
        })
    }

    /// Waits until all nodes agree, and tells it.
    fn agreed(&self, story: &Story, country: &mut Country) -> Result<Picture, Stop> {
        let picture = converge::wait(country)?;
        let records = many(picture.statuses[ROOT].records, "record", "records");
        if picture.converged() {
            story.step(format_args!("all nodes agree, by digest; the centre holds {records}"))?;
        } else {
            story.step(format_args!("the nodes do not agree, and nothing moves: {}", picture.why_not()))?;
        }
        Ok(picture)
    }

    fn tell_rejected(&self, story: &Story, inputs: &InputsBody<'_>) -> Result<(), Stop> {
        for rejected in inputs.rejected.iter().take(REJECTED_SHOWN) {
            story.step(format_args!("not taken: {}", rejected.text()))?;
        }
        if let Some(more @ 1..) = inputs.rejected.len().checked_sub(REJECTED_SHOWN) {
            story.step(format_args!("and {} more not taken; --json names them all", count(more as u64)))?;
        }
        Ok(())
    }
}

fn records(written: &Written) -> String {
    many(written.records.len() as u64, "record", "records")
}

/// The open conflicts of a node.
fn all_conflicts(country: &Country, at: usize) -> Result<Vec<ConflictLine>, Failure> {
    let mut client = node::admin::Client::connect(&country.sites[at].dir)?;
    conflicts::all(&mut client, None)
}

/// Compares the hubs' and the leaves' lists of conflicts with the root's. Every record of the demo is at home
/// at a leaf, so the lists of all leaves together are the root's, and so are the hubs'. Gives back what differs.
fn same_lists(country: &Country, root: &[ConflictLine]) -> Result<Option<String>, Failure> {
    let as_text = |lines: &[ConflictLine]| -> Result<BTreeMap<(RecordId, String), String>, Failure> {
        let text = |line: &ConflictLine| {
            let text = serde_json::to_string(&LineBody::new(line))
                .map_err(|error| country::failed(format!("a conflict cannot be compared ({error})")))?;
            Ok(((line.record.clone(), line.path.clone()), text))
        };
        lines.iter().map(text).collect()
    };
    let expected = as_text(root)?;
    for role in [sync_core::identity::Role::Hub, sync_core::identity::Role::Leaf] {
        let mut found = BTreeMap::new();
        for at in (0..country.sites.len()).filter(|at| country.sites[*at].role == role) {
            found.extend(as_text(&all_conflicts(country, at)?)?);
        }
        if found != expected {
            return Ok(Some(format!(
                "the conflicts listed at the {role}s are not those listed at the centre"
            )));
        }
    }
    Ok(None)
}

/// Settles the first conflict of values, at a hub that holds it.
fn settle<'a>(
    country: &mut Country,
    open: &'a [ConflictLine],
) -> Result<Option<(&'a ConflictLine, &'static str)>, Failure> {
    for line in open.iter().filter(|line| line.kind == "value") {
        let request = Request::Resolve {
            record: line.record.clone(),
            path: line.path.clone(),
            choice: Choice::Take(1),
            by: Some("bác sĩ tỉnh".into()),
            why: REASON.into(),
        };
        // Only one of the hubs holds it.
        let held =
            country.call::<node::admin::Resource>(HA_GIANG, &Request::Get { record: line.record.clone() });
        if held.is_ok() {
            let _: Answer = country.call(HA_GIANG, &request)?;
            return Ok(Some((line, REASON)));
        }
    }
    Ok(None)
}

/// Where a settled conflict is gone, of all nodes that hold the record.
fn gone(country: &mut Country, line: &ConflictLine, why: &str) -> Result<SettledBody, Failure> {
    let mut settled = SettledBody {
        record: line.record.clone(),
        path: line.path.clone(),
        at: country.sites[HA_GIANG].org.clone(),
        why: why.to_owned(),
        gone_at: Vec::new(),
        gone: true,
    };
    for at in 0..country.sites.len() {
        let request = Request::Get { record: line.record.clone() };
        if country.call::<node::admin::Resource>(at, &request).is_err() {
            continue;
        }
        let is_open = |one: &ConflictLine| one.record == line.record && one.path == line.path;
        if all_conflicts(country, at)?.iter().any(is_open) {
            settled.gone = false;
        } else {
            settled.gone_at.push(country.sites[at].org.clone());
        }
    }
    Ok(settled)
}

/// Asks the root for every record that a leaf has acknowledged.
fn inputs<'a>(country: &mut Country, written: &'a Written) -> Result<InputsBody<'a>, Failure> {
    let mut missing: BTreeMap<&RecordId, usize> =
        written.records.iter().map(|(id, leaf)| (id, *leaf)).collect();
    let mut after = None;
    loop {
        let request = Request::List { resource_type: None, unread: false, after, limit: PAGE_RECORDS };
        let page: Listing = country.call(ROOT, &request)?;
        for listed in page.records.iter().filter(|listed| !listed.deleted) {
            missing.remove(&listed.record);
        }
        after = page.records.last().map(|last| last.record.clone());
        if !page.more || after.is_none() {
            break;
        }
    }
    let missing: Vec<RecordId> = missing.into_keys().cloned().collect();
    Ok(InputsBody {
        acknowledged: written.records.len(),
        live_at_root: written.records.len() - missing.len(),
        missing,
        rejected: &written.rejected,
    })
}
