//! Worlds that once broke a promise: `tests/corpus/sim.txt` has their seeds, `tests/corpus/fuzz/world` plans.

use std::{fs, path::Path};

use super::plan::{Taste, bytes_of};

/// A world of the corpus.
#[derive(Debug)]
pub struct Known {
    /// Its seed, or its file, for people.
    pub name: String,
    /// Its plan.
    pub bytes: Vec<u8>,
    /// How it is run.
    pub taste: Taste,
}

/// All of them. Panics when the corpus is not to be read.
pub fn worlds() -> Vec<Known> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let lines = fs::read_to_string(folder.join("sim.txt")).expect("the corpus has seeds");
    let seeds = lines.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let mut words = line.split_whitespace();
        let name = words.next().expect("a line begins with a seed").to_owned();
        let bytes = bytes_of(name.parse().expect("a seed is a number"));
        let real = (words.next() == Some("opaque")).then_some(false);
        let with = words.next().unwrap_or_default();
        let has = |what| with.split('+').any(|one| one == what);
        let (grants, attachments, labels) = (has("grants"), has("attachments"), has("labels"));
        let couriers = has("couriers");
        Known {
            name,
            bytes,
            taste: Taste { real, couriers, grants, attachments, labels, ..Taste::default() },
        }
    });
    let files = fs::read_dir(folder.join("fuzz/world")).expect("the corpus has plans");
    let mut files: Vec<_> = files.map(|file| file.expect("the folder is read").path()).collect();
    files.sort();
    let plans = files.into_iter().map(|file| {
        let name = file.file_name().expect("it has a name").to_string_lossy().into_owned();
        Known { name, bytes: fs::read(&file).expect("a plan is read"), taste: Taste::default() }
    });
    seeds.chain(plans).collect()
}
