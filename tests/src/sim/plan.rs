//! What a byte string stands for: a tree, its lines and disks, what is written, what goes wrong and when.
//!
//! Bytes come from three sources, a seed, a fuzzer, and a file of the corpus, and are read in one way: a head of
//! [`HEAD_BYTES`], then items of [`ITEM_BYTES`] up to the end. To leave out an item is to leave out its bytes, which is how
//! a failing plan is made small. Every string of bytes is a plan; what is missing at its end is zero.

use std::fmt;

use arbitrary::{Arbitrary, Unstructured};
use sync_core::{
    id::{NodeId, OrgId, OrgPath},
    identity::{NodeInfo, Role},
    time::Millis,
};

use super::{
    fault::{ALL, Fault, Faults},
    rng::Rng,
};

/// Most hubs.
const HUBS_MAX: usize = 5;
/// Most leaves.
const LEAVES_MAX: usize = 12;
/// Bytes of the head.
pub const HEAD_BYTES: usize = 8 + 4 + 4 + 2 * (HUBS_MAX + LEAVES_MAX) + 8;
/// Bytes of an item.
pub const ITEM_BYTES: usize = 7;
/// Most items: what a fuzzer adds beyond is not looked at.
const ITEMS_MAX: usize = 1_000;
/// Of 256 items so many are writes, and so many more several people who write one record at once.
const WRITES: u8 = 140;
const MEETINGS: u8 = 16;
const MINUTE: Millis = 60_000;
const DAY: Millis = 86_400_000;

/// The first bytes.
#[derive(Debug, Clone, Copy, Arbitrary)]
struct Head {
    /// What chance draws from, where nothing else decides.
    chance: u64,
    off: u32,
    hubs: u8,
    leaves: u8,
    span: u8,
    mood: u8,
    lines: [u16; HUBS_MAX + LEAVES_MAX],
    disk: u8,
    crash: u8,
    cut: u8,
    names: u8,
    large: u8,
    real: u8,
    part: u8,
    clocks: u8,
}

/// One of the items that follow.
#[derive(Debug, Clone, Copy, Arbitrary)]
struct Item {
    kind: u8,
    at: u16,
    chance: u32,
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

/// Something that somebody does, or that happens to somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Somebody writes.
    Write,
    /// Two to five people write the same record before they hear of one another.
    Meet,
    /// Something goes wrong.
    Fault(Fault),
}

/// What happens when. Who it happens to, and all else about it, is drawn from `chance` alone, so that it stays the
/// same when other acts are left out.
#[derive(Debug, Clone, Copy)]
pub struct Act {
    /// When.
    pub at: Millis,
    /// What.
    pub what: What,
    /// What its own choices are drawn from.
    pub chance: u64,
}

/// Everything that is decided in advance.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What chance draws from, where nothing else decides.
    pub chance: u64,
    /// The tree; parents before children.
    pub nodes: Vec<NodePlan>,
    /// Until when things go wrong and entries are written.
    pub calm_at: Millis,
    /// What happens until then, in the order in which it was drawn.
    pub acts: Vec<Act>,
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
    /// Whether some machines stay away for a while after all is calm, and the others have to settle without them.
    pub part: bool,
    /// One clock in so many is wrong from the start, by up to fifty years; 0 for none.
    pub wrong_clock_one_in: u64,
    /// Whether some new records are issued to everybody below.
    pub issues: bool,
    /// Whether some records are secret. Only in worlds with opaque records.
    pub secrets: bool,
    /// A row of a machine's disk rots once in so many commits; 0 for never. Only in worlds with opaque records, whose
    /// nodes keep their identity.
    pub rot_one_in: u64,
    /// Whether people carry bundles between neighbours.
    pub couriers: bool,
    /// Whether records are opened to others, and closed again.
    pub grants: bool,
    /// Whether records have attachments. Only in worlds with opaque records.
    pub attachments: bool,
    /// Whether what is secret may go to some neighbours.
    pub labels: bool,
    /// The number of the leaf that is hostile, if there is one; it is the last node. Only in worlds with opaque records.
    pub hostile: Option<usize>,
}

/// What the driver of a world decides over its bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Taste {
    /// Faults that do not happen.
    pub without: Faults,
    /// Whether records are FHIR resources; as the bytes say where it is none.
    pub real: Option<bool>,
    /// Whether people carry bundles between neighbours. The bytes do not say it, so that those that once broke a promise
    /// still say the same.
    pub couriers: bool,
    /// Whether people open records to other places for a time. As with bundles the bytes do not say it.
    pub grants: bool,
    /// Whether people attach files to records, and ask for them. As with bundles the bytes do not say it.
    pub attachments: bool,
    /// Whether some records are secret, and may go to some neighbours. Nor do they say this.
    pub labels: bool,
}

/// The bytes of a seed.
pub fn bytes_of(seed: u64) -> Vec<u8> {
    let mut rng = Rng::new(seed, "plan");
    let items = [20, 60, 120, 250][rng.below(4) as usize];
    rng.bytes(HEAD_BYTES + ITEM_BYTES * items)
}

impl Plan {
    /// The plan of a byte string.
    pub fn of_bytes(bytes: &[u8], taste: Taste) -> Self {
        let mut source = Unstructured::new(bytes);
        let head = Head::arbitrary(&mut source).expect("what is missing is zero");
        let mut items = Vec::new();
        while source.len() >= ITEM_BYTES && items.len() < ITEMS_MAX {
            items.push(Item::arbitrary(&mut source).expect("there are enough bytes"));
        }
        let calm_at = span(head.span);
        let is_quiet = head.mood.is_multiple_of(8);
        let keeps_identity = head.mood % 3 == 0;
        let off = Faults::of_mask(head.off).and(taste.without);
        let real = taste.real.unwrap_or(head.real.is_multiple_of(8));
        let mut nodes = tree(&head);
        let is_hostile = !real && !is_quiet && head.names / 8 % 2 == 0 && !off.has(Fault::Hostile);
        let hostile = is_hostile.then(|| add_hostile(&mut nodes, &head));
        let off = if is_hostile { off } else { off.with(Fault::Hostile) };
        let is_off = |fault: Fault| {
            let cannot = (keeps_identity && fault.is_of_identity()) || (real && fault == Fault::Move);
            is_quiet || off.has(fault) || cannot
        };
        let trades = head.clocks / 4 % 4 == 3;
        let may_rot = keeps_identity && !is_hostile && !real && !is_quiet && !off.has(Fault::Rot);
        let rot_one_in = if may_rot { [0, 20, 60][usize::from(head.clocks / 4 % 3)] } else { 0 };
        let act = |item: Item| {
            let what = match what(item.kind) {
                What::Fault(fault) if trades && item.chance.is_multiple_of(2) => What::Fault(fault.traded()),
                what => what,
            };
            if matches!(what, What::Fault(fault) if is_off(fault)) {
                return None;
            }
            let at = calm_at * Millis::from(item.at) / (1 << 16);
            Some(Act { at, what, chance: u64::from(item.chance) << 16 | u64::from(item.at) })
        };
        Self {
            chance: head.chance,
            nodes,
            calm_at,
            acts: items.into_iter().filter_map(act).collect(),
            disk: [2, 20, 400][usize::from(head.disk % 3)],
            crash_one_in: if is_quiet { 0 } else { [0, 0, 60, 150, 300][usize::from(head.crash % 5)] },
            cut_one_in: if is_quiet { 0 } else { u64::from(head.cut % 8) },
            shared_names: u64::from(head.names % 8).saturating_sub(3),
            large_one_in: [0, 0, 7, 30][usize::from(head.large % 4)],
            real,
            part: head.part.is_multiple_of(4),
            wrong_clock_one_in: [0, 4, 4, 2][usize::from(head.clocks % 4)],
            issues: trades,
            secrets: !real && (taste.labels || head.clocks / 4 % 4 == 2),
            rot_one_in,
            couriers: taste.couriers,
            grants: taste.grants && !real,
            attachments: taste.attachments && !real,
            labels: taste.labels && !real,
            hostile,
        }
    }

    /// A quiet country with opaque records: one hub below the root, so many leaves below the hub, all of them on this
    /// line.
    pub fn one_hub(leaves: usize, line: Line, calm_at: Millis) -> Self {
        let mut plan = Self::of_bytes(&[], Taste { real: Some(false), ..Taste::default() });
        plan.nodes.truncate(2);
        let hub = plan.nodes[1].info.place.clone();
        let mut names = Rng::new(0, "one hub");
        for leaf in 0..leaves {
            let place = hub.child(OrgId::new(&format!("l{leaf}")).expect("a plain name"));
            let info = NodeInfo { node: NodeId(names.array()), place, role: Role::Leaf };
            plan.nodes.push(NodePlan { info, parent: Some(1), line });
        }
        Self { calm_at, part: false, ..plan }
    }

    /// A quiet world with opaque records and nothing but a root.
    fn quiet(calm_at: Millis) -> Self {
        let mut plan = Self::of_bytes(&[], Taste { real: Some(false), ..Taste::default() });
        plan.nodes.truncate(1);
        Self { calm_at, part: false, ..plan }
    }

    /// One more node, below that of this number.
    fn add(&mut self, name: &str, above: usize, role: Role, line: Line) {
        let place = self.nodes[above].info.place.child(OrgId::new(name).expect("a plain name"));
        let info = NodeInfo { node: NodeId(Rng::new(0, name).array()), place, role };
        self.nodes.push(NodePlan { info, parent: Some(above), line });
    }

    /// A quiet country with opaque records: so many provinces below the root, a district in each, and so many leaves below the
    /// districts in turn, all of the leaves on this line.
    pub fn country(provinces: usize, leaves: usize, line: Line, calm_at: Millis) -> Self {
        let mut plan = Self::quiet(calm_at);
        (0..provinces).for_each(|nth| plan.add(&format!("p{nth}"), 0, Role::Hub, line_of(0)));
        (0..provinces).for_each(|nth| plan.add(&format!("d{nth}"), 1 + nth, Role::Hub, line_of(0)));
        for nth in 0..leaves {
            plan.add(&format!("l{nth}"), 1 + provinces + nth % provinces, Role::Leaf, line);
        }
        plan
    }

    /// Two trees that meet at the root: the provinces with their clinics, and a service with facilities of its own. The service's
    /// hub comes behind the provinces, and its facilities behind the clinics.
    pub fn two_trees([provinces, clinics, facilities]: [usize; 3], line: Line, calm_at: Millis) -> Self {
        let mut plan = Self::quiet(calm_at);
        (0..provinces).for_each(|nth| plan.add(&format!("p{nth}"), 0, Role::Hub, line_of(0)));
        plan.add("service", 0, Role::Hub, line_of(0));
        (0..clinics).for_each(|nth| plan.add(&format!("l{nth}"), 1 + nth % provinces, Role::Leaf, line));
        (0..facilities).for_each(|nth| plan.add(&format!("f{nth}"), 1 + provinces, Role::Leaf, line));
        plan
    }

    /// The faults that are to happen.
    pub fn faults(&self) -> impl Iterator<Item = Fault> {
        self.acts.iter().filter_map(|act| match act.what {
            What::Fault(fault) => Some(fault),
            _ => None,
        })
    }

    /// Whether some machine's clock may be wrong.
    pub fn has_wrong_clocks(&self) -> bool {
        let is_of_clock = |fault| matches!(fault, Fault::ClockJump | Fault::ClockStop);
        self.wrong_clock_one_in > 0 || self.faults().any(is_of_clock)
    }

    /// Whether the world has no restores, no clones, no twins, and nobody who might pretend that it has.
    pub fn keeps_identity(&self) -> bool {
        !self.faults().any(|fault| fault.is_of_identity() || fault == Fault::Hostile)
    }

    /// Whether at most one disk is taken away, and no node has two machines. Who is revoked takes its disk along.
    pub fn takes_one_away(&self) -> bool {
        let takes = |fault: &Fault| fault.is_of_identity() || *fault == Fault::Revoke;
        let mut taking = self.faults().filter(takes);
        let first = taking.next();
        taking.next().is_none() && matches!(first, Some(Fault::Restore | Fault::EmptyDisk))
    }
}

fn what(kind: u8) -> What {
    if kind < WRITES {
        return What::Write;
    }
    if kind < WRITES + MEETINGS {
        return What::Meet;
    }
    let total: u32 = ALL.iter().map(|(.., weight)| u32::from(*weight)).sum();
    let mut left = u32::from(kind - WRITES - MEETINGS) * total / (256 - u32::from(WRITES + MEETINGS));
    for (fault, _, weight) in ALL {
        match left.checked_sub(u32::from(weight)) {
            Some(rest) => left = rest,
            None => return What::Fault(fault),
        }
    }
    unreachable!("what is left is below the sum of all weights")
}

/// Most worlds last as long as an evening, some a year.
fn span(byte: u8) -> Millis {
    match byte % 16 {
        0 => 365 * DAY,
        1 => 30 * DAY,
        2 | 3 => 2 * DAY,
        n => Millis::from(n) * 3 * MINUTE,
    }
}

fn tree(head: &Head) -> Vec<NodePlan> {
    let mut nodes: Vec<NodePlan> = Vec::new();
    let mut names = Rng::new(head.chance, "tree");
    let mut add = |name: String, parent: Option<usize>, role, line| {
        let org = OrgId::new(&name).expect("a plain name");
        let place = parent
            .map_or_else(|| OrgPath::root(org.clone()), |parent| nodes[parent].info.place.child(org.clone()));
        let info = NodeInfo { node: NodeId(names.array()), place, role };
        nodes.push(NodePlan { info, parent, line: line_of(line) });
    };
    let hubs = [1, 2, 1, 3, 2, 0, 4, 5][usize::from(head.hubs % 8)];
    let leaves = [1, 2, 3, 4, 5, 6, 2, 3, 4, 8, 10, 12][usize::from(head.leaves % 12)];
    add("tw".to_owned(), None, Role::Root, 0);
    for hub in 0..hubs {
        add(format!("h{}", hub + 1), Some(0), Role::Hub, head.lines[hub]);
    }
    for leaf in 0..leaves {
        let line = head.lines[HUBS_MAX + leaf];
        let parent = if hubs == 0 { 0 } else { 1 + usize::from(line >> 8) % hubs };
        add(format!("l{}", leaf + 1), Some(parent), Role::Leaf, line);
    }
    nodes
}

/// One more leaf, below any hub.
fn add_hostile(nodes: &mut Vec<NodePlan>, head: &Head) -> usize {
    let hubs: Vec<_> = (0..nodes.len()).filter(|node| nodes[*node].info.role == Role::Hub).collect();
    let mut names = Rng::new(head.chance, "hostile");
    let parent = names.pick(&hubs).copied().unwrap_or(0);
    let place = nodes[parent].info.place.child(OrgId::new("x1").expect("a plain name"));
    let info = NodeInfo { node: NodeId(names.array()), place, role: Role::Leaf };
    nodes.push(NodePlan { info, parent: Some(parent), line: line_of(0) });
    nodes.len() - 1
}

fn line_of(bits: u16) -> Line {
    let [a, b, c] = [bits % 3, bits / 3 % 3, bits / 9 % 3].map(usize::from);
    Line { latency: [1, 30, 600][a], jitter: [0, 50, 2_000][b], rate: [8_000, 100_000, 10_000_000][c] }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parents = self.nodes.iter().map(|node| format!("{} {:?}", node.info.place, node.line));
        writeln!(f, "tree:\n  {}", parents.collect::<Vec<_>>().join("\n  "))?;
        writeln!(
            f,
            "calm at {} s; disk {} ms; dies once in {} effects; cuts one frame in {}; {} shared names; large one in {}; \
             one wrong clock in {}; {}{}{}",
            self.calm_at / 1000,
            self.disk,
            self.crash_one_in,
            self.cut_one_in,
            self.shared_names,
            self.large_one_in,
            self.wrong_clock_one_in,
            if self.real { "FHIR records" } else { "opaque records" },
            if self.part { "; a part settles alone" } else { "" },
            if self.rot_one_in > 0 { "; rows rot" } else { "" },
        )?;
        let mut acts = self.acts.clone();
        acts.sort_by_key(|act| act.at);
        for act in acts {
            let what = match act.what {
                What::Write => "write",
                What::Meet => "meet",
                What::Fault(fault) => fault.name(),
            };
            writeln!(f, "  {:>12.3} s {what}", act.at as f64 / 1000.0)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_and_items_have_their_sizes() {
        let bytes = [1; HEAD_BYTES + ITEM_BYTES];
        let mut source = Unstructured::new(&bytes);
        Head::arbitrary(&mut source).unwrap();
        assert_eq!(source.len(), ITEM_BYTES);
        Item::arbitrary(&mut source).unwrap();
        assert_eq!(source.len(), 0);
    }

    #[test]
    fn every_kind_of_byte_is_an_act_and_every_fault_has_a_byte() {
        let drawn: Vec<_> = (0..=u8::MAX).map(what).collect();
        for (fault, name, _) in ALL {
            let comes =
                |what: &What| matches!(what, What::Fault(one) if [*one, one.traded()].contains(&fault));
            assert_eq!(drawn.iter().any(comes), fault != Fault::Rot, "{name}");
            assert_eq!(Faults::named(name).unwrap(), Faults::default().with(fault));
        }
    }

    #[test]
    fn no_bytes_are_a_plan_too() {
        let plan = Plan::of_bytes(&[], Taste::default());
        assert_eq!((plan.nodes.len(), plan.acts.len()), (3, 0));
    }
}
