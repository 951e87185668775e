//! A thousand simulated worlds, and those that once broke a promise. See `tuyen_tests::sim`.

use std::{thread, time::Instant};

use tuyen_tests::sim::{self, Report, Trace};

/// Worlds of every run of the tests.
const SEEDS: u64 = 1_000;

fn outcome(seed: u64) -> Result<Report, String> {
    sim::run(seed, &mut Trace::off()).map_err(|failure| format!("seed {seed}: {failure}"))
}

#[test]
fn a_thousand_worlds_keep_every_promise() {
    let begin = Instant::now();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let share = |first: u64| (first..SEEDS).step_by(threads).map(outcome).collect::<Vec<_>>();
    let outcomes: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads as u64).map(|first| scope.spawn(move || share(first))).collect();
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
    let count = |of: fn(&Report) -> usize| held.iter().flatten().map(of).sum::<usize>();
    let happened = (count(|r| r.records_read), count(|r| r.in_conflict), count(|r| r.forked));
    println!("records read, in conflict, forked: {happened:?}");
    assert!(happened.0 > 1_000 && happened.1 > 100 && happened.2 > 10, "{happened:?}");
}

#[test]
fn worlds_that_once_broke_a_promise_keep_it() {
    let corpus = include_str!("../corpus/sim.txt").lines().filter(|line| !line.starts_with('#'));
    let seeds = corpus.map(|line| {
        let seed = line.split_whitespace().next().expect("a line begins with a seed");
        seed.parse().expect("a seed is a number")
    });
    let broken: Vec<_> = seeds.filter_map(|seed| outcome(seed).err()).collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn a_seed_is_a_world() {
    let run = |seed| {
        let mut trace = Trace::full();
        let report = sim::run(seed, &mut trace).expect("the world keeps its promises");
        (trace.lines().join("\n"), trace.hash(), format!("{report:?}"))
    };
    for seed in 0..20 {
        let (first, second) = (run(seed), run(seed));
        println!("seed {seed:>2} trace {}", first.1);
        assert!(first == second, "seed {seed} went otherwise the second time");
    }
}
