//! Runs simulated worlds: `sim --seed N`, `sim --seeds A..B`, `sim --minutes M`.
//!
//! Prints every failing seed with the promise that was broken and the last lines of its trace, and exits with 1
//! when there was one.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use tuyen_tests::sim::{self, Failure, Report, Trace};

/// Lines of a failing world's trace that are printed.
const TAIL_LINES: usize = 60;

fn main() -> Result<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let (what, value) = (arguments.next().unwrap_or_default(), arguments.next().unwrap_or_default());
    match what.as_str() {
        "--seed" => one(value.parse().context("a seed is a number")?),
        "--seeds" => {
            let (from, to) = value.split_once("..").context("seeds are given as A..B")?;
            many(from.parse()?..to.parse()?, None)
        }
        "--minutes" => {
            let minutes: u64 = value.parse().context("minutes are a number")?;
            let from = std::time::SystemTime::UNIX_EPOCH.elapsed()?.as_nanos() as u64;
            many(from..u64::MAX, Some(Duration::from_secs(60 * minutes)))
        }
        _ => bail!("usage: sim --seed N | --seeds A..B | --minutes M"),
    }
}

fn one(seed: u64) -> Result<ExitCode> {
    let mut trace = Trace::full();
    let outcome = sim::run(seed, &mut trace);
    trace.lines().iter().for_each(|line| println!("{line}"));
    println!("trace {}", trace.hash());
    match outcome {
        Ok(report) => {
            println!("seed {seed} holds: {report:?}");
            Ok(ExitCode::SUCCESS)
        }
        Err(failure) => {
            println!("seed {seed} BROKEN {failure}");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn many(seeds: std::ops::Range<u64>, time: Option<Duration>) -> Result<ExitCode> {
    let begin = Instant::now();
    let mut total = Totals::default();
    for seed in seeds {
        if time.is_some_and(|time| begin.elapsed() > time) {
            break;
        }
        let started = Instant::now();
        match sim::run(seed, &mut Trace::off()) {
            Ok(report) => total.add(&report),
            Err(failure) => {
                total.failed += 1;
                tell(seed, &failure);
            }
        }
        total.slowest = total.slowest.max((started.elapsed(), seed));
        total.worlds += 1;
    }
    println!("{total:#?} in {:.1} s", begin.elapsed().as_secs_f64());
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs a failing world again, for the end of its trace.
fn tell(seed: u64, failure: &Failure) {
    let mut trace = Trace::full();
    let again = sim::run(seed, &mut trace);
    println!("seed {seed} BROKEN {failure}");
    if std::env::var_os("SIM_BRIEF").is_some() {
        return;
    }
    let lines = trace.lines();
    lines[lines.len().saturating_sub(TAIL_LINES)..].iter().for_each(|line| println!("    {line}"));
    if again.as_ref().err() != Some(failure) {
        println!("    and it went otherwise the second time: {again:?}");
    }
}

#[derive(Debug, Default)]
struct Totals {
    worlds: u64,
    failed: u64,
    events: u64,
    written: usize,
    sessions: u64,
    settled_after_max: u64,
    entry_bytes_sent: u64,
    entry_bytes_needed: u64,
    reconnect_bytes_max: u64,
    /// What was sent beyond 1.3 times what was needed, per session, in the dearest world.
    surplus_per_session_max: u64,
    records_read: usize,
    in_conflict: usize,
    forked: usize,
    slowest: (Duration, u64),
}

impl Totals {
    fn add(&mut self, report: &Report) {
        self.events += report.events;
        self.written += report.written;
        self.sessions += report.sessions;
        self.settled_after_max = self.settled_after_max.max(report.settled_after);
        self.reconnect_bytes_max = self.reconnect_bytes_max.max(report.reconnect_bytes);
        self.records_read += report.records_read;
        self.in_conflict += report.in_conflict;
        self.forked += report.forked;
        if report.keeps_identity {
            self.entry_bytes_sent += report.entry_bytes_sent;
            self.entry_bytes_needed += report.entry_bytes_needed;
            let surplus = report.entry_bytes_sent.saturating_sub(report.entry_bytes_needed * 13 / 10);
            self.surplus_per_session_max = self.surplus_per_session_max.max(surplus / report.sessions.max(1));
        }
    }
}
