//! Every committed input of the fuzz targets, and mutations of them. See `tuyen_tests::fuzz`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use tuyen_tests::{
    fuzz::{TARGETS, Target, check},
    sim::rng::Rng,
};

/// Longest input that a mutation makes.
const INPUT_MAX_BYTES: usize = 4_096;
/// One input takes milliseconds, a flood of batches half a second. What takes longer than this holds up a node.
const INPUT_MAX_SECONDS: f64 = 20.0;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/fuzz")
}

fn names(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names
}

/// The files of a target, by name.
fn corpus(target: &Target) -> BTreeMap<PathBuf, Vec<u8>> {
    let files: BTreeMap<_, _> = names(&folder().join(target.name))
        .into_iter()
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    assert!(!files.is_empty(), "the target {} has no corpus", target.name);
    files
}

#[test]
fn every_file_belongs_to_a_target() {
    let known: Vec<_> = TARGETS.iter().map(|target| folder().join(target.name)).collect();
    assert_eq!(names(&folder()), known, "in the order of the table");
}

#[test]
fn what_once_was_found_stays_right() {
    for target in TARGETS {
        let begin = Instant::now();
        let corpus = corpus(target);
        for (path, data) in &corpus {
            let began = Instant::now();
            let outcome = check(target.run, data);
            assert!(outcome.is_ok(), "{}: {}", path.display(), outcome.unwrap_err());
            let took = began.elapsed().as_secs_f64();
            assert!(took < INPUT_MAX_SECONDS, "{} took {took:.0} s", path.display());
        }
        println!("{:>8} {:>4} files {:.1} s", target.name, corpus.len(), begin.elapsed().as_secs_f64());
    }
}

#[test]
fn and_so_does_what_is_near_it() {
    for target in TARGETS {
        let begin = Instant::now();
        let corpus: Vec<_> = corpus(target).into_values().collect();
        for seed in 0..target.tries {
            let mut rng = Rng::new(seed, target.name);
            let data = mutated(&corpus, &mut rng);
            if let Err(broken) = check(target.run, &data) {
                let path = std::env::temp_dir().join(format!("{}-{seed}", target.name));
                fs::write(&path, &data).unwrap();
                panic!("{} broke with mutation {seed}, kept in {}: {broken}", target.name, path.display());
            }
        }
        println!("{:>8} {:>5} inputs {:.1} s", target.name, target.tries, begin.elapsed().as_secs_f64());
    }
}

/// One file, altered in a few places or put together with a part of another.
fn mutated(corpus: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let mut data = rng.pick(corpus).expect("it is not empty").clone();
    for _ in 0..rng.range(1, 4) {
        let at = rng.below(data.len() as u64 + 1) as usize;
        match rng.below(6) {
            0 => data.insert(at, rng.next_u64() as u8),
            1 => data.truncate(at),
            2 => {
                let other = rng.pick(corpus).expect("it is not empty");
                let from = rng.below(other.len() as u64 + 1) as usize;
                data.splice(at.., other[from..].iter().copied());
            }
            _ if at == data.len() => {}
            3 => data[at] ^= 1 << rng.below(8),
            4 => data[at] = rng.next_u64() as u8,
            _ => {
                let end = (at + rng.range(1, 16) as usize).min(data.len());
                data.drain(at..end);
            }
        }
    }
    data.truncate(INPUT_MAX_BYTES);
    data
}

#[test]
fn a_broken_promise_is_told() {
    assert_eq!(check(|_| (), b""), Ok(()));
    let told = check(|data| assert!(data.is_empty(), "not empty"), b"x").unwrap_err();
    assert!(told.contains("not empty") && told.contains("fuzz.rs"), "{told}");
}
