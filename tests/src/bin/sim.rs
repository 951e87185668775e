//! Runs simulated worlds; `sim --help` says how.
//!
//! Prints every failing world with the promise that was broken, the last lines of its trace and the smallest plan found
//! that breaks it as well, and exits with 1 when there was one.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use tuyen_tests::sim::{
    Failure, Plan, Report, Trace, corpus,
    fault::{ALL, Faults},
    minimise::minimise,
    plan::{Taste, bytes_of},
    run_plan, scenes,
};

const HELP: &str = "\
Runs simulated worlds.

  sim --seed 42             one world, with its trace
  sim --seeds 0..1000       several, on all cores
  sim --minutes 60          seeds not run before, for so long
  sim corpus                the worlds that once broke a promise
  sim replay FILE           the world of a file's bytes, with its trace
  sim scene storm           one of the scenes: storm, long-record, large-entry, merger, gain, two-trees
  sim meta                  whether everything that can happen does, in 300 worlds

  --without drop,twin       faults that are not to happen
  --real | --opaque         FHIR records in every world, or in none
  --couriers                people carry bundles between neighbours
  --grants                  people open records to other places for a time
  --attachments             people attach files to records, and ask for them
  --labels                  what is secret may go to some neighbours
  --brief                   a line for each failing world: no trace, no smaller plan
  --first                   the same, and only up to the first of them
  --seconds 60              with --seeds: for so long at most
";
/// Lines of a failing world's trace that are printed.
const TAIL_LINES: usize = 60;
/// How long is spent on making a failing plan small.
const MINIMISE: Duration = Duration::from_secs(20);
/// Where failing plans are put.
const PLANS: &str = "target/sim";
/// Worlds of `sim meta`.
const META_SEEDS: u64 = 300;
const DAY_MILLIS: f64 = 86_400_000.0;

fn main() -> Result<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let (mut taste, mut what) = (Taste::default(), None);
    let (mut brief, mut first, mut most) = (false, false, None);
    while let Some(argument) = arguments.next() {
        let mut value =
            || arguments.next().with_context(|| format!("{argument} needs a value; see sim --help"));
        match argument.as_str() {
            "--without" => taste.without = Faults::named(&value()?).map_err(anyhow::Error::msg)?,
            "--real" => taste.real = Some(true),
            "--opaque" => taste.real = Some(false),
            "--couriers" => taste.couriers = true,
            "--grants" => taste.grants = true,
            "--attachments" => taste.attachments = true,
            "--labels" => taste.labels = true,
            "--brief" => brief = true,
            "--first" => (brief, first) = (true, true),
            "--seconds" => {
                most = Some(Duration::from_secs(value()?.parse().context("seconds are a number")?))
            }
            "meta" | "corpus" | "--help" => what = Some((argument, String::new())),
            "--seed" | "--seeds" | "--minutes" | "replay" | "scene" => {
                what = Some((argument.clone(), value()?))
            }
            _ => bail!("{argument:?} is not known\n\n{HELP}"),
        }
    }
    let Some((what, value)) = what else { bail!("nothing to run\n\n{HELP}") };
    let runner = Runner { taste, brief, first };
    match what.as_str() {
        "--help" => {
            print!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
        "--seed" => {
            let seed: u64 = value.parse().context("a seed is a number")?;
            runner.one(&format!("seed {seed}"), &bytes_of(seed))
        }
        "replay" => {
            let bytes = std::fs::read(&value).with_context(|| format!("cannot read {value}"))?;
            runner.one(&value, &bytes)
        }
        "scene" => play(&value),
        "corpus" => again(first),
        "--seeds" => {
            let (from, to) = value.split_once("..").context("seeds are given as A..B")?;
            runner.many(from.parse()?..to.parse()?, most)
        }
        "--minutes" => {
            let minutes: u64 = value.parse().context("minutes are a number")?;
            let from = std::time::SystemTime::UNIX_EPOCH.elapsed()?.as_nanos() as u64;
            runner.many(from..u64::MAX, Some(Duration::from_secs(60 * minutes)))
        }
        _ => runner.meta(),
    }
}

fn play(name: &str) -> Result<ExitCode> {
    let known = scenes::ALL.map(|(_, name)| name).join(", ");
    let (scene, _) = scenes::ALL
        .into_iter()
        .find(|(_, other)| *other == name)
        .with_context(|| format!("no scene is called {name:?}; there are {known}"))?;
    let begin = Instant::now();
    match scene.play(&mut Trace::off()) {
        Ok(outcome) => {
            println!("{name}: {outcome}, in {:.1} s", begin.elapsed().as_secs_f64());
            Ok(ExitCode::SUCCESS)
        }
        Err(failure) => {
            println!("{name} BROKEN {failure}");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn again(first: bool) -> Result<ExitCode> {
    let mut failed = 0;
    for known in corpus::worlds() {
        let plan = Plan::of_bytes(&known.bytes, known.taste);
        if let Err(failure) = run_plan(plan, &mut Trace::off()) {
            println!("seed {} BROKEN {failure}", known.name);
            failed += 1;
            if first {
                break;
            }
        }
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Runner {
    taste: Taste,
    brief: bool,
    first: bool,
}

impl Runner {
    fn one(&self, name: &str, bytes: &[u8]) -> Result<ExitCode> {
        let plan = Plan::of_bytes(bytes, self.taste);
        println!("{plan}");
        let mut trace = Trace::full();
        let outcome = run_plan(plan, &mut trace);
        trace.lines().iter().for_each(|line| println!("{line}"));
        println!("trace {}", trace.hash());
        match outcome {
            Ok(report) => {
                println!("{name} holds: {report:?}");
                Ok(ExitCode::SUCCESS)
            }
            Err(failure) => {
                println!("{name} BROKEN {failure}");
                self.tell_smaller(name, bytes, &failure)?;
                Ok(ExitCode::FAILURE)
            }
        }
    }

    fn many(&self, seeds: std::ops::Range<u64>, time: Option<Duration>) -> Result<ExitCode> {
        let totals = self.run(seeds, time)?;
        println!("{totals}");
        Ok(if totals.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Runs worlds on all cores.
    fn run(&self, seeds: std::ops::Range<u64>, time: Option<Duration>) -> Result<Totals> {
        let begin = Instant::now();
        let (next, found) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
        let work = || -> Result<Totals> {
            let mut totals = Totals::default();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                let is_late = time.is_some_and(|time| begin.elapsed() > time);
                if seed >= seeds.end || is_late || found.load(Ordering::Relaxed) {
                    return Ok(totals);
                }
                let (started, bytes) = (Instant::now(), bytes_of(seed));
                let outcome = run_plan(Plan::of_bytes(&bytes, self.taste), &mut Trace::off());
                totals.worlds += 1;
                match outcome {
                    Ok(report) => totals.add(&report),
                    Err(failure) => {
                        totals.failed += 1;
                        found.store(self.first, Ordering::Relaxed);
                        self.tell(seed, &bytes, &failure)?;
                    }
                }
                totals.slowest = totals.slowest.max((started.elapsed(), seed));
            }
        };
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let mut totals = Totals::default();
        thread::scope(|scope| -> Result<()> {
            let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
            for worker in workers {
                totals.merge(worker.join().expect("a world catches its panics")?);
            }
            Ok(())
        })?;
        totals.seconds = begin.elapsed().as_secs_f64();
        Ok(totals)
    }

    /// Every kind of fault has an effect somewhere, and every kind of check has something to check.
    fn meta(&self) -> Result<ExitCode> {
        let totals = self.run(0..META_SEEDS, None)?;
        println!("{totals}");
        let mut never: Vec<_> =
            ALL.iter().zip(totals.faults).filter(|(_, n)| *n == 0).map(|((_, name, _), _)| *name).collect();
        let others = [
            ("records read", totals.records_read),
            ("records in conflict", totals.in_conflict),
            ("forked records", totals.forked),
            ("power cuts", totals.power_cuts),
            ("a part settles alone", totals.parts),
            ("entries of the hostile leaf", totals.from_hostile),
            ("records forgotten", totals.forgotten),
        ];
        never.extend(others.iter().filter(|(_, n)| *n == 0).map(|(name, _)| *name));
        if never.is_empty() && totals.failed == 0 {
            println!("everything that can happen does");
            return Ok(ExitCode::SUCCESS);
        }
        println!("NEVER HAPPENED: {never:?}");
        Ok(ExitCode::FAILURE)
    }

    /// Runs a failing world again, for the end of its trace.
    fn tell(&self, seed: u64, bytes: &[u8], failure: &Failure) -> Result<()> {
        println!("seed {seed} BROKEN {failure}");
        if self.brief {
            return Ok(());
        }
        let mut trace = Trace::full();
        let again = run_plan(Plan::of_bytes(bytes, self.taste), &mut trace);
        let lines = trace.lines();
        lines[lines.len().saturating_sub(TAIL_LINES)..].iter().for_each(|line| println!("    {line}"));
        if again.as_ref().err() != Some(failure) {
            println!("    and it went otherwise the second time: {again:?}");
        }
        self.tell_smaller(&format!("seed {seed}"), bytes, failure)
    }

    fn tell_smaller(&self, name: &str, bytes: &[u8], failure: &Failure) -> Result<()> {
        if self.brief {
            return Ok(());
        }
        let small = minimise(bytes, self.taste, failure, MINIMISE);
        let file: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let path: PathBuf = Path::new(PLANS).join(format!("{file}.plan"));
        std::fs::create_dir_all(PLANS)?;
        std::fs::write(&path, &small)?;
        println!("the same promise is broken by less:\n{}", Plan::of_bytes(&small, self.taste));
        println!("see it with: cargo run --release -p tuyen-tests --bin sim -- replay {}", path.display());
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Totals {
    worlds: u64,
    failed: u64,
    seconds: f64,
    events: u64,
    node_millis: u64,
    faults: [u64; ALL.len()],
    power_cuts: u64,
    parts: u64,
    written: u64,
    sessions: u64,
    settled_after_max: u64,
    entry_bytes_sent: u64,
    entry_bytes_needed: u64,
    reconnect_bytes_max: u64,
    /// What was sent beyond 1.3 times what was needed, per session, in the dearest world.
    surplus_per_session_max: u64,
    records_read: u64,
    in_conflict: u64,
    forked: u64,
    from_hostile: u64,
    forgotten: u64,
    slowest: (Duration, u64),
}

impl Totals {
    fn add(&mut self, report: &Report) {
        self.events += report.events;
        self.node_millis += report.node_millis;
        self.faults.iter_mut().zip(report.faults).for_each(|(all, one)| *all += one);
        self.power_cuts += report.power_cuts;
        self.parts += u64::from(report.part_settled);
        self.written += report.written as u64;
        self.sessions += report.sessions;
        self.settled_after_max = self.settled_after_max.max(report.settled_after);
        self.reconnect_bytes_max = self.reconnect_bytes_max.max(report.reconnect_bytes);
        self.records_read += report.records_read as u64;
        self.in_conflict += report.in_conflict as u64;
        self.forked += report.forked as u64;
        self.from_hostile += report.from_hostile as u64;
        self.forgotten += report.forgotten;
        if report.keeps_identity {
            self.entry_bytes_sent += report.entry_bytes_sent;
            self.entry_bytes_needed += report.entry_bytes_needed;
            let surplus = report.entry_bytes_sent.saturating_sub(report.entry_bytes_needed * 13 / 10);
            self.surplus_per_session_max = self.surplus_per_session_max.max(surplus / report.sessions.max(1));
        }
    }

    fn merge(&mut self, other: Self) {
        self.worlds += other.worlds;
        self.failed += other.failed;
        self.events += other.events;
        self.node_millis += other.node_millis;
        self.faults.iter_mut().zip(other.faults).for_each(|(all, one)| *all += one);
        self.power_cuts += other.power_cuts;
        self.parts += other.parts;
        self.written += other.written;
        self.sessions += other.sessions;
        self.settled_after_max = self.settled_after_max.max(other.settled_after_max);
        self.entry_bytes_sent += other.entry_bytes_sent;
        self.entry_bytes_needed += other.entry_bytes_needed;
        self.reconnect_bytes_max = self.reconnect_bytes_max.max(other.reconnect_bytes_max);
        self.surplus_per_session_max = self.surplus_per_session_max.max(other.surplus_per_session_max);
        self.records_read += other.records_read;
        self.in_conflict += other.in_conflict;
        self.forked += other.forked;
        self.from_hostile += other.from_hostile;
        self.forgotten += other.forgotten;
        self.slowest = self.slowest.max(other.slowest);
    }
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { worlds, failed, seconds, events, power_cuts, written, sessions, parts, .. } = self;
        let years = self.node_millis as f64 / DAY_MILLIS / 365.0;
        writeln!(
            f,
            "{worlds} worlds, {failed} broken, in {seconds:.1} s: {years:.1} node-years, {events} events"
        )?;
        writeln!(
            f,
            "{written} writes, {sessions} sessions, {power_cuts} losses of power, {parts} parts settled alone"
        )?;
        writeln!(
            f,
            "{} records read afresh, {} in conflict, {} forked; {} entries of a hostile leaf at the root; {} records \
             forgotten",
            self.records_read, self.in_conflict, self.forked, self.from_hostile, self.forgotten
        )?;
        writeln!(
            f,
            "settled after {:.1} s at most; a reconnect with nothing new cost {} B at most; of entries {:.3} times what was \
             needed was sent, at most {} B a session beyond 1.3 times",
            self.settled_after_max as f64 / 1000.0,
            self.reconnect_bytes_max,
            self.entry_bytes_sent as f64 / self.entry_bytes_needed.max(1) as f64,
            self.surplus_per_session_max
        )?;
        let faults = ALL.iter().zip(self.faults).map(|((_, name, _), n)| format!("{name} {n}"));
        writeln!(f, "faults: {}", faults.collect::<Vec<_>>().join(", "))?;
        write!(f, "slowest: seed {} in {:.1} s", self.slowest.1, self.slowest.0.as_secs_f64())
    }
}
