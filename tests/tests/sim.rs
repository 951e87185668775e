//! Two thousand simulated worlds, and those that once broke a promise. See `tuyen_tests::sim`.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Instant,
};

use tuyen_tests::sim::{
    self, Plan, Report, Trace, corpus,
    fault::ALL,
    plan::{Taste, bytes_of},
    scenes,
};

/// Worlds of every run of the tests.
const SEEDS: u64 = 2_000;
/// Worlds in which records are opened to others.
const GRANT_SEEDS: u64 = 1_000;
/// Worlds with attachments, and as many with sticks as well.
const ATTACHMENT_SEEDS: u64 = 60;
/// Worlds in which what is secret may go to some.
const LABEL_SEEDS: u64 = 500;
/// Worlds with bundles on sticks, and as many with grants as well.
const COURIER_SEEDS: u64 = 300;

fn outcome(name: &str, bytes: &[u8], taste: Taste) -> Result<Report, String> {
    let plan = Plan::of_bytes(bytes, taste);
    sim::run_plan(plan, &mut Trace::off()).map_err(|failure| format!("{name}: {failure}"))
}

fn of_seed(seed: u64) -> Result<Report, String> {
    outcome(&format!("seed {seed}"), &bytes_of(seed), Taste::default())
}

#[test]
fn two_thousand_worlds_keep_every_promise() {
    let (begin, next) = (Instant::now(), AtomicU64::new(0));
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let seeds =
        || std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed)).take_while(|seed| *seed < SEEDS);
    let outcomes: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> =
            (0..threads).map(|_| scope.spawn(|| seeds().map(of_seed).collect::<Vec<_>>())).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a world catches its panics")).collect()
    });
    let (held, broken): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    let broken: Vec<_> = broken.into_iter().filter_map(Result::err).collect();
    println!("{SEEDS} worlds on {threads} cores in {:.1} s", begin.elapsed().as_secs_f64());
    assert!(
        broken.is_empty(),
        "{broken:#?}\nsee one with: cargo run --release -p tuyen-tests --bin sim -- --seed N"
    );
    // What never happens is not tested.
    let held: Vec<_> = held.into_iter().flatten().collect();
    let count = |of: fn(&Report) -> usize| held.iter().map(of).sum::<usize>();
    let happened = (count(|r| r.records_read), count(|r| r.in_conflict), count(|r| r.forked));
    println!("records read, in conflict, forked: {happened:?}");
    assert!(happened.0 > 5_000 && happened.1 > 500 && happened.2 > 50, "{happened:?}");
    assert!(count(|r| r.from_hostile) > 100);
    assert!(held.iter().filter(|report| report.part_settled).count() > 100);
    for (kind, (_, name, _)) in ALL.into_iter().enumerate() {
        let times: u64 = held.iter().map(|report| report.faults[kind]).sum();
        assert!(times > 50, "{name} happened only {times} times");
    }
}

/// Worlds with opaque records all of which hold.
fn hold(seeds: u64, taste: Taste, option: &str) -> Vec<Report> {
    let taste = Taste { real: Some(false), ..taste };
    let of_seed = |seed| outcome(&format!("seed {seed}"), &bytes_of(seed), taste);
    let outcomes = thread::scope(|scope| {
        let half =
            |first: u64| scope.spawn(move || (first..seeds).step_by(2).map(of_seed).collect::<Vec<_>>());
        [half(0), half(1)].map(|half| half.join().expect("a world catches its panics")).concat()
    });
    let (held, broken): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    let broken: Vec<_> = broken.into_iter().filter_map(Result::err).collect();
    assert!(broken.is_empty(), "{broken:#?}\nsee one with: sim --seed N --opaque {option}");
    held.into_iter().flatten().collect()
}

/// People open records to others; whoever they are not open to any more forgets them.
#[test]
fn worlds_with_grants_keep_every_promise() {
    let held = hold(GRANT_SEEDS, Taste { grants: true, ..Taste::default() }, "--grants");
    let forgotten: u64 = held.iter().map(|report| report.forgotten).sum();
    assert!(forgotten > 1_000, "only {forgotten} records were forgotten");
}

/// What is secret goes as far as both ends of each link allow it, and no further.
#[test]
fn worlds_with_labels_keep_every_promise() {
    let held = hold(LABEL_SEEDS, Taste { labels: true, ..Taste::default() }, "--labels");
    let came: u64 = held.iter().map(|report| report.secrets_came).sum();
    assert!(came > 1_000, "only {came} secret entries came to others");
}

/// People attach files to records, and ask for what is elsewhere.
#[test]
fn worlds_with_attachments_keep_every_promise() {
    let mut held = hold(ATTACHMENT_SEEDS, Taste { attachments: true, ..Taste::default() }, "--attachments");
    let sticks = Taste { attachments: true, couriers: true, ..Taste::default() };
    held.extend(hold(ATTACHMENT_SEEDS, sticks, "--attachments --couriers"));
    let count = |of: fn(&Report) -> u64| held.iter().map(of).sum::<u64>();
    let (written, asked, spoilt) = (count(|r| r.attachments), count(|r| r.asked), count(|r| r.spoilt));
    let by_stick = count(|r| r.stick_attachments);
    println!("{written} attachments, {asked} asked for, {by_stick} by stick, {spoilt} spoilt");
    let happened = written > 1_000 && asked > 100 && by_stick > 50 && spoilt > 5;
    assert!(happened, "{written}, {asked}, {by_stick} and {spoilt}");
}

/// People carry bundles between neighbours, whatever becomes of the sticks and of the machines.
#[test]
fn worlds_with_couriers_keep_every_promise() {
    let mut held = hold(COURIER_SEEDS, Taste { couriers: true, ..Taste::default() }, "--couriers");
    let grants = Taste { couriers: true, grants: true, ..Taste::default() };
    held.extend(hold(COURIER_SEEDS, grants, "--couriers --grants"));
    let count = |of: fn(&Report) -> u64| held.iter().map(of).sum::<u64>();
    let (sticks, entries, gaps) = (count(|r| r.sticks), count(|r| r.stick_entries), count(|r| r.stick_gaps));
    println!("{sticks} sticks, {entries} entries new in them, {gaps} too early");
    assert!(
        sticks > 5_000 && entries > 1_000 && gaps > 150,
        "{sticks} sticks, {entries} entries, {gaps} gaps"
    );
}

#[test]
fn scenes_keep_every_promise() {
    for (scene, name) in scenes::ALL {
        let outcome = scene.play(&mut Trace::off()).unwrap_or_else(|broken| panic!("{name}: {broken}"));
        println!("{name}: {outcome}");
    }
}

#[test]
fn worlds_that_once_broke_a_promise_keep_it() {
    let worlds = corpus::worlds();
    assert!(worlds.len() > 10);
    let broken = worlds.into_iter().filter_map(|known| outcome(&known.name, &known.bytes, known.taste).err());
    let broken: Vec<_> = broken.collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn a_seed_is_a_world() {
    let run = |seed| {
        let mut trace = Trace::full();
        let report = sim::run_plan(Plan::of_bytes(&bytes_of(seed), Taste::default()), &mut trace)
            .expect("the world keeps its promises");
        (trace.lines().join("\n"), trace.hash(), format!("{report:?}"))
    };
    for seed in 0..20 {
        let (first, second) = (run(seed), run(seed));
        println!("seed {seed:>2} trace {}", first.1);
        assert!(first == second, "seed {seed} went otherwise the second time");
    }
}

/// What a fuzzer finds is as much a world as what a seed finds: any bytes are, and the same bytes are the same world.
#[test]
fn any_bytes_are_a_world() {
    for seed in 0..200 {
        let bytes = bytes_of(seed);
        outcome("the beginning of some bytes", &bytes[..bytes.len().min(seed as usize)], Taste::default())
            .unwrap();
    }
}
