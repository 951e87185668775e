//! Benchmarks: the product as real processes, each figure beside a bare loop measured in the same run.
//!
//! Machines differ and are never quiet, so the ratio is the figure to look at: product and bare loop take turns
//! and each ratio is of two neighbours in time. `docs/TESTING.md` holds the figures and what they say.

pub mod bare;
mod crowd;
mod filled;
mod line;
mod lines;
mod memory;
pub mod report;
mod scenarios;
mod storm;
mod world;

use std::collections::{BTreeMap, btree_map::Entry};

use self::{report::Figure, world::World};

/// A scenario that can be named.
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What it measures.
    pub about: &'static str,
    records: usize,
    run: fn(&mut Bench, usize) -> anyhow::Result<Vec<Figure>>,
}

/// All scenarios, in the order in which they are run.
pub const SCENARIOS: [Scenario; 16] = [
    Scenario {
        name: "import",
        about: "records a second into a leaf",
        records: 10_000,
        run: scenarios::import,
    },
    Scenario { name: "write", about: "one local durable write", records: 10_000, run: scenarios::write },
    Scenario {
        name: "cold-10k",
        about: "10,000 records, leaf to hub",
        records: 10_000,
        run: scenarios::cold_10k,
    },
    Scenario { name: "fold", about: "folding at the hub, behind", records: 10_000, run: scenarios::fold },
    Scenario { name: "wire", about: "bytes on the wire a record", records: 10_000, run: scenarios::wire },
    Scenario {
        name: "cold-100k",
        about: "100,000 records, leaf to hub",
        records: 100_000,
        run: scenarios::cold_100k,
    },
    Scenario {
        name: "changed",
        about: "100 changed among 100,000",
        records: 100_000,
        run: scenarios::changed,
    },
    Scenario { name: "unchanged", about: "nothing changed", records: 100_000, run: scenarios::unchanged },
    Scenario {
        name: "backup",
        about: "a backup beside a copy of the file",
        records: 100_000,
        run: scenarios::backup,
    },
    Scenario {
        name: "audit",
        about: "two neighbours compare, equal and with 100 differences",
        records: 100_000,
        run: scenarios::audit,
    },
    Scenario {
        name: "audit-1m",
        about: "the same with a million entries",
        records: 1_000_000,
        run: scenarios::audit_1m,
    },
    Scenario {
        name: "compartments",
        about: "nothing changed in 100,000 compartments",
        records: 100_000,
        run: scenarios::compartments,
    },
    Scenario { name: "memory", about: "peak and idle memory", records: 100_000, run: scenarios::memory },
    Scenario { name: "storm", about: "700 leaves dial one hub at once", records: 700, run: storm::storm },
    Scenario {
        name: "lines",
        about: "the share of a bad line that carries new data",
        records: 45_000,
        run: lines::lines,
    },
    Scenario {
        name: "files",
        about: "the share of a bad line that carries attachments, when nothing else wants it",
        records: 100,
        run: lines::files,
    },
];

/// What scenarios share: worlds, by their number of records.
#[derive(Default)]
pub struct Bench {
    worlds: BTreeMap<usize, World>,
    /// The size given on the command line.
    pub records: Option<usize>,
}

impl Bench {
    fn world(&mut self, records: usize) -> anyhow::Result<&mut World> {
        match self.worlds.entry(records) {
            Entry::Occupied(world) => Ok(world.into_mut()),
            Entry::Vacant(place) => {
                eprintln!("... importing {records} records");
                Ok(place.insert(World::new(records)?))
            }
        }
    }

    /// Runs a scenario.
    pub fn run(&mut self, scenario: &Scenario) -> anyhow::Result<Vec<Figure>> {
        eprintln!("... {}: {}", scenario.name, scenario.about);
        (scenario.run)(self, self.records.unwrap_or(scenario.records))
    }
}
