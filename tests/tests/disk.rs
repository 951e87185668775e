//! The real store on disks that lose power, fail and rot. See `tuyen_tests::disk` for what such a disk does.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Instant,
};

use tuyen_tests::disk::{
    self, Drive, Fault, Log, Planned, Report, SETTING_FAULTS, SettingFault, Temper,
    errors::{Case, End, Found, Script, Start, cases},
    plain::{self, Losses},
    rot::{Fate, Killed, Part},
};

/// Power cuts of every run of the tests.
const CUTS: u64 = 20_000;
/// Seeds that give so many cuts.
const SEEDS: u64 = 760;

/// Does something with each of these on all cores, each with a drive of its own.
fn on_all_cores<T: Sync, R: Send>(of: &[T], work: impl Fn(&Drive, &T) -> R + Sync) -> Vec<R> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let worker = || {
            let drive = Drive::default();
            let mut done = Vec::new();
            while let Some(one) = of.get(next.fetch_add(1, Ordering::Relaxed)) {
                done.push(work(&drive, one));
            }
            done
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("the work catches its panics")).collect()
    })
}

fn life(drive: &Drive, seed: u64) -> Result<Report, String> {
    disk::run(drive, seed, &Log::off()).map_err(|failure| format!("seed {seed}: {failure}"))
}

#[test]
fn no_power_cut_loses_what_was_acknowledged() {
    let begin = Instant::now();
    let seeds: Vec<_> = (0..SEEDS).collect();
    let outcomes = on_all_cores(&seeds, |drive, seed| life(drive, *seed));
    let broken: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert!(
        broken.is_empty(),
        "{broken:#?}\nsee one with: cargo run --release -p tuyen-tests --bin disk -- --seed N"
    );
    let mut report = Report::default();
    outcomes.into_iter().flatten().for_each(|one| report += one);
    println!("{report:?} in {:.1} s", begin.elapsed().as_secs_f64());
    // What never happens is not tested.
    assert!(report.cuts >= CUTS, "{report:?}");
    assert!(report.cuts_at_open > CUTS / 20 && report.cuts_in_commit > CUTS / 4, "{report:?}");
    assert!(report.found_whole > CUTS / 100 && report.refused > 100, "{report:?}");
    let damage = report.damage;
    assert!(damage.kept.min(damage.lost) > CUTS && damage.torn > CUTS / 10, "{damage:?}");
    assert!(damage.short > CUTS / 100 && damage.entries > CUTS / 100, "{damage:?}");
}

#[test]
fn seeds_that_once_broke_a_promise_keep_it() {
    let corpus = include_str!("../corpus/disk.txt").lines().filter(|line| !line.starts_with('#'));
    let seeds = corpus.map(|line| {
        let seed = line.split_whitespace().next().expect("a line begins with a seed");
        seed.parse().expect("a seed is a number")
    });
    let drive = Drive::default();
    let broken: Vec<_> = seeds.filter_map(|seed| life(&drive, seed).err()).collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn a_seed_is_a_life() {
    let run = |seed| {
        let log = Log::full();
        let report = disk::run(&Drive::default(), seed, &log).expect("the store keeps its promises");
        (log.lines().join("\n"), log.hash(), report)
    };
    for seed in 0..12 {
        let (first, second) = (run(seed), run(seed));
        println!("seed {seed:>2} trace {}", first.1);
        assert!(first == second, "seed {seed} went otherwise the second time");
    }
}

#[test]
fn after_an_error_of_the_disk_at_any_step_nothing_acknowledged_is_lost() {
    let begin = Instant::now();
    let script = Script::new(1);
    for start in [Start::Open, Start::Create] {
        let steps = script.steps(&Drive::default(), start).expect("a sound disk");
        let cases = cases(&steps, start);
        let outcomes = on_all_cores(&cases, |drive, case: &Case| {
            let fired =
                script.run(drive, *case, &Log::off()).map_err(|failure| format!("{case:?}: {failure}"))?;
            // A process that is killed does not come to the steps of closing.
            if fired || matches!(case.end, End::Killed | End::Cut) {
                Ok(fired)
            } else {
                Err(format!("{case:?} is not met"))
            }
        });
        let fired = outcomes.iter().filter(|outcome| **outcome == Ok(true)).count();
        let broken: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
        println!(
            "{start:?}: {} steps, {} cases, {fired} faults, {} failures",
            steps.len(),
            cases.len(),
            broken.len()
        );
        assert!(broken.is_empty(), "{broken:#?}");
    }
    println!("in {:.1} s", begin.elapsed().as_secs_f64());
}

#[test]
fn a_flipped_bit_is_an_error_and_no_answer() {
    let script = Script::new(2);
    let seeds: Vec<_> = (0..2_000).collect();
    let outcomes = on_all_cores(&seeds, |drive, seed| {
        script.rot(drive, *seed).map_err(|failure| format!("seed {seed}: {failure}"))
    });
    let broken: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert!(broken.is_empty(), "{broken:#?}");
    let mut counts = BTreeMap::new();
    for rot in outcomes.into_iter().flatten() {
        // There is one commit in the log: only a flipped bit of its header can be told from a power cut.
        assert!(!rot.noticed || rot.found == Found::Older, "{rot:?}");
        *counts.entry((rot.in_log, rot.found)).or_insert(0) += 1;
    }
    println!("(in the log, found): {counts:?}");
    let count = |in_log, found| counts.get(&(in_log, found)).copied().unwrap_or_default();
    assert!(count(false, Found::Error) > 100, "{counts:?}");
    // A bit of the database file never makes an answer older. One of the log ends the log there.
    assert_eq!(count(false, Found::Older) + count(false, Found::WrongAndSeen), 0, "{counts:?}");
}

#[test]
fn a_flipped_bit_of_the_log_is_told_unless_only_the_last_commit_is_lost() {
    let mut counts = BTreeMap::new();
    for seed in 0..3 {
        let killed = Killed::new(&Drive::default(), seed);
        let flips = killed.flips();
        let outcomes = on_all_cores(&flips, |drive, flip| {
            killed.run(drive, *flip).map_err(|failure| format!("seed {seed}, {flip:?}: {failure}"))
        });
        let broken: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
        assert!(broken.is_empty(), "{} of {}: {broken:#?}", broken.len(), flips.len());
        for flip in flips {
            *counts.entry((flip.fate, flip.part)).or_insert(0) += 1;
        }
        for at in 0..32 {
            killed.run_copied(&Drive::default(), at).unwrap_or_else(|failure| panic!("byte {at}: {failure}"));
        }
    }
    println!("{counts:?}");
    let parts = [Part::Page, Part::Mark, Part::Salts, Part::Sum, Part::Content];
    for (fate, least) in [(Fate::Noticed, 50), (Fate::LastCommit, 10), (Fate::NoAccount, 20)] {
        let count = |part| counts.get(&(fate, part)).copied().unwrap_or_default();
        assert!(parts.into_iter().all(|part| count(part) > least), "{counts:?}");
    }
    assert_eq!(counts[&(Fate::Noticed, Part::Header)], 3 * 256);
}

#[test]
fn a_bit_that_flips_while_the_log_is_read_costs_nothing() {
    let drive = Drive::default();
    let killed = Killed::new(&drive, 0);
    let (mut opened, mut refused) = (0, 0);
    for seed in 0..12 {
        let misread = |at| {
            let outcome = killed.run_misread(&drive, seed, at);
            outcome.unwrap_or_else(|failure| panic!("seed {seed}, step {at}: {failure}"))
        };
        for opens in (0..).map_while(misread) {
            *if opens { &mut opened } else { &mut refused } += 1;
        }
    }
    println!("{opened} times all was there, {refused} times there was an error");
    assert!(opened > 10 && refused > 100, "{opened} {refused}");
}

#[test]
fn a_disk_that_fails_while_a_damaged_log_is_put_aside_destroys_nothing_of_it() {
    let drive = Drive::default();
    let killed = Killed::new(&drive, 0);
    let flips = killed.flips();
    let noticed = |part| flips.iter().find(|flip| flip.fate == Fate::Noticed && flip.part == part).copied();
    let mut faults = 0;
    for flip in [noticed(Part::Header), noticed(Part::Content)].map(|flip| flip.expect("there is one")) {
        for fault in [Fault::Io, Fault::Full, Fault::ShortWrite] {
            for lasting in [false, true] {
                let fired = |at| {
                    let planned = Planned { fault, at, lasting };
                    let outcome = killed.run_failing(&drive, flip, planned);
                    outcome.unwrap_or_else(|failure| panic!("{flip:?} {planned:?}: {failure}"))
                };
                faults += (0..).take_while(|at| fired(*at)).count();
            }
        }
    }
    println!("{faults} faults");
    assert!(faults > 100, "{faults}");
}

#[test]
fn a_store_of_which_a_setting_does_not_take_does_not_open() {
    let drive = Drive::default();
    disk::insert_blank(&drive);
    for fault in &SETTING_FAULTS {
        disk::refuses(&drive, fault).unwrap();
    }
    disk::insert_empty(&drive);
    disk::refuses_to_create(&drive, &SettingFault { name: "journal_mode", value: None }).unwrap();
}

#[test]
fn the_cuts_find_what_weaker_settings_lose() {
    let drive = Drive::default();
    let losses = |journal_mode, synchronous| {
        let mut total = Losses::default();
        for seed in 0..40 {
            let losses = plain::run(&drive, seed, journal_mode, synchronous).unwrap();
            total.cuts += losses.cuts;
            total.lost += losses.lost;
            total.corrupt += losses.corrupt;
        }
        println!("{journal_mode} {synchronous}: {total:?}");
        total
    };
    for (journal_mode, synchronous) in [("WAL", "EXTRA"), ("WAL", "FULL"), ("DELETE", "EXTRA")] {
        let none = losses(journal_mode, synchronous);
        assert!(none.cuts > 200 && none.lost + none.corrupt == 0, "{journal_mode} {synchronous}: {none:?}");
    }
    let normal = losses("WAL", "NORMAL");
    assert!(normal.lost > 50 && normal.corrupt == 0, "WAL with NORMAL loses and stays sound: {normal:?}");
    let off = losses("WAL", "OFF");
    assert!(off.corrupt > 10, "WAL with OFF corrupts: {off:?}");
    let full = losses("DELETE", "FULL");
    assert!(full.lost > 0 && full.corrupt == 0, "without EXTRA a removed journal comes back: {full:?}");
    let off = losses("DELETE", "OFF");
    assert!(off.corrupt > 10, "DELETE with OFF corrupts: {off:?}");
}

#[test]
fn the_cuts_find_a_disk_that_lies_about_a_sync() {
    let seeds: Vec<_> = (0..40).collect();
    let outcomes = on_all_cores(&seeds, |drive, seed| {
        disk::run_on(drive, *seed, |temper| Temper { lies: true, ..temper }, &Log::off())
    });
    let oracles: Vec<_> = outcomes.into_iter().filter_map(|outcome| Some(outcome.err()?.oracle)).collect();
    assert!(oracles.len() > 30, "{oracles:?}");
    assert!(oracles.contains(&"what is acknowledged is there"), "{oracles:?}");
}
