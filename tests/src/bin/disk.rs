//! Runs stores on crash disks: `disk --seed N`, `disk --seeds A..B`, `disk --minutes M`.
//!
//! Prints totals, and for a failing seed the promise that was broken and the last lines of its trace; exits with 1 when
//! there was one. With `--seed` the whole trace.

use std::{
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use tuyen_tests::disk::{self, Drive, Failure, Log, Report};

/// Lines of a failing seed's trace that are printed.
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
        _ => bail!("usage: disk --seed N | --seeds A..B | --minutes M"),
    }
}

fn one(seed: u64) -> Result<ExitCode> {
    let log = Log::full();
    let outcome = disk::run(&Drive::default(), seed, &log);
    log.lines().iter().for_each(|line| println!("{line}"));
    println!("trace {}", log.hash());
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
    let next = AtomicU64::new(seeds.start);
    let totals = Mutex::new((Report::default(), 0_u64, 0_u64));
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                let drive = Drive::default();
                while time.is_none_or(|time| begin.elapsed() < time) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    let outcome = disk::run(&drive, seed, &Log::off());
                    let mut totals = totals.lock().expect("nobody panics with it");
                    totals.1 += 1;
                    match outcome {
                        Ok(report) => totals.0 += report,
                        Err(failure) => {
                            totals.2 += 1;
                            tell(seed, &failure);
                        }
                    }
                }
            });
        }
    });
    let (report, lives, failures) = totals.into_inner().expect("nobody panics with it");
    let seconds = begin.elapsed().as_secs_f64();
    println!("{report:#?}");
    println!(
        "{lives} seeds, {} power cuts, {failures} failures in {seconds:.1} s on {cores} cores: {:.0} cuts a second",
        report.cuts,
        report.cuts as f64 / seconds
    );
    Ok(if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs a failing seed again, for the end of its trace.
fn tell(seed: u64, failure: &Failure) {
    let log = Log::full();
    let again = disk::run(&Drive::default(), seed, &log);
    println!("seed {seed} BROKEN {failure}");
    let lines = log.lines();
    lines[lines.len().saturating_sub(TAIL_LINES)..].iter().for_each(|line| println!("    {line}"));
    if again.as_ref().err() != Some(failure) {
        println!("    and it went otherwise the second time: {again:?}");
    }
}
