//! What a seed stands for: a tree, its lines and disks, how much is written, and what goes wrong.
//!
//! Kinds of faults are switched on and off by world: a fault that happens everywhere hides those that need
//! quiet to show themselves.

use sync_core::{
    id::{NodeId, OrgId, OrgPath},
    identity::{NodeInfo, Role},
    time::Millis,
};

use super::rng::Rng;

/// Something that goes wrong once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A connection ends; its two ends learn of it at different times.
    Drop,
    /// One direction of a connection falls silent, until both ends give it up.
    Silence,
    /// A machine dials again while it has a connection.
    DoubleDial,
    /// A machine's dials are refused for a while.
    RefuseDials,
    /// A machine dies at the next effects that it asks for, and starts again.
    Crash,
    /// A machine dies and starts several times in a row.
    CrashLoop,
    /// A machine's disk is slow for a while.
    SlowDisk,
    /// A copy of a machine's disk is put aside.
    Backup,
    /// A machine goes on with an older copy of its disk.
    Restore,
    /// A second machine starts from a copy of a machine's disk, with its identity.
    Clone,
    /// A running machine is copied, memory and all, and both copies run on.
    Twin,
}

impl Fault {
    /// Whether the fault can take away what a disk held, or run two machines with one identity.
    pub fn is_of_identity(self) -> bool {
        matches!(self, Fault::Restore | Fault::Clone | Fault::Twin)
    }
}

/// One line's properties.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// Shortest time from one end to the other.
    pub latency: Millis,
    /// Most that is added to it, anew for every piece.
    pub jitter: Millis,
    /// Bytes per second in each direction.
    pub rate: u64,
}

/// One node of the tree.
#[derive(Debug, Clone)]
pub struct NodePlan {
    /// What its certificate says.
    pub info: NodeInfo,
    /// Its parent's number; none for the root.
    pub parent: Option<usize>,
    /// The line to its parent while things go wrong.
    pub line: Line,
}

/// Everything that a seed decides in advance.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The tree; parents before children.
    pub nodes: Vec<NodePlan>,
    /// Until when things go wrong and entries are written.
    pub calm_at: Millis,
    /// When something is written.
    pub writes: Vec<Millis>,
    /// When something goes wrong.
    pub faults: Vec<(Millis, Fault)>,
    /// Longest time that a disk takes for a commit.
    pub disk: Millis,
    /// A machine dies once in so many effects; 0 for never.
    pub crash_one_in: u64,
    /// Frames are cut into pieces that arrive apart, once in so many; 0 for never.
    pub cut_one_in: u64,
    /// How many record names are shared, so that leaves under different hubs come to use the same one.
    pub shared_names: u64,
    /// One in so many entries is large; 0 for none.
    pub large_one_in: u64,
    /// Whether records are FHIR resources and people read and settle them; otherwise changes are opaque, which is
    /// several times cheaper.
    pub real: bool,
}

impl Plan {
    /// The plan of a seed.
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed, "plan");
        let calm_at = rng.range(5, 40) * 60_000;
        let nodes = tree(&mut rng);
        let count = [20, 60, 150][rng.below(3) as usize];
        let writes = (0..count).map(|_| rng.below(calm_at)).collect();
        let faults = faults(&mut rng, calm_at);
        let quiet = faults.is_empty();
        Self {
            nodes,
            calm_at,
            writes,
            faults,
            disk: [2, 20, 400][rng.below(3) as usize],
            crash_one_in: if quiet || rng.one_in(2) { 0 } else { rng.range(50, 400) },
            cut_one_in: if quiet { 0 } else { rng.below(8) },
            shared_names: if rng.one_in(2) { 0 } else { rng.range(1, 4) },
            large_one_in: if rng.one_in(2) { 0 } else { rng.range(5, 30) },
            real: rng.one_in(8),
        }
    }

    /// Whether the world has no restores, no clones and no twins.
    pub fn keeps_identity(&self) -> bool {
        !self.faults.iter().any(|(_, fault)| fault.is_of_identity())
    }
}

fn tree(rng: &mut Rng) -> Vec<NodePlan> {
    let mut nodes = Vec::new();
    let mut add = |rng: &mut Rng, name: String, parent: Option<usize>, role| {
        let org = OrgId::new(&name).expect("a plain name");
        let place = match parent {
            None => OrgPath::root(org),
            Some(parent) => {
                let above: &NodePlan = &nodes[parent];
                above.info.place.child(org)
            }
        };
        let node = NodeId(rng.bytes(NodeId::LEN).try_into().expect("as many as were asked for"));
        let line = line(rng);
        nodes.push(NodePlan { info: NodeInfo { node, place, role }, parent, line });
        nodes.len() - 1
    };
    let root = add(rng, "tw".to_owned(), None, Role::Root);
    let hubs: Vec<_> =
        (1..=rng.range(1, 3)).map(|n| add(rng, format!("h{n}"), Some(root), Role::Hub)).collect();
    for n in 1..=rng.range(1, 6) {
        let hub = hubs[rng.below(hubs.len() as u64) as usize];
        add(rng, format!("l{n}"), Some(hub), Role::Leaf);
    }
    nodes
}

fn line(rng: &mut Rng) -> Line {
    let latency = [1, 30, 600][rng.below(3) as usize];
    let jitter = [0, 50, 2_000][rng.below(3) as usize];
    let rate = [8_000, 100_000, 10_000_000][rng.below(3) as usize];
    Line { latency, jitter, rate }
}

fn faults(rng: &mut Rng, calm_at: Millis) -> Vec<(Millis, Fault)> {
    let mut faults = Vec::new();
    if rng.one_in(8) {
        return faults;
    }
    let ordinary = [
        (Fault::Drop, 12),
        (Fault::Silence, 6),
        (Fault::DoubleDial, 6),
        (Fault::RefuseDials, 4),
        (Fault::Crash, 10),
        (Fault::CrashLoop, 2),
        (Fault::SlowDisk, 4),
    ];
    let of_identity = [(Fault::Restore, 4), (Fault::Clone, 2), (Fault::Twin, 2)];
    let mut some = |rng: &mut Rng, fault: Fault, most: u64| {
        if rng.one_in(2) {
            let times = rng.range(1, most);
            faults.extend((0..times).map(|_| (rng.below(calm_at), fault)));
        }
    };
    ordinary.into_iter().for_each(|(fault, most)| some(rng, fault, most));
    if !rng.one_in(3) {
        of_identity.into_iter().for_each(|(fault, most)| some(rng, fault, most));
        let backups = rng.range(2, 12);
        faults.extend((0..backups).map(|_| (rng.below(calm_at), Fault::Backup)));
    }
    faults
}
