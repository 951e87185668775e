//! Scenes that seeds do not come upon: five hundred leaves that wake at once, a record that is edited a hundred thousand
//! times, an entry of 900 kB on a bad line, a country whose provinces are merged, a clinic that gains those of another, two
//! trees that meet at the root.
//! Everything that is promised of a world is held here as well.

use std::fmt;

use sync_core::{
    change::{Entry, opaque_chunk},
    id::Incarnation,
    order::Order,
    session::{BATCH_START_BYTES, WINDOW_BATCHES},
    time::Stamp,
};

use super::*;

const SECOND: Millis = 1_000;
const HOUR: Millis = 3_600 * SECOND;
const HUB: usize = 1;
const FIRST_LEAF: usize = 2;
/// 64 kbit/s and 600 ms there and back.
const CLINIC_LINE: Line = Line { latency: 300, jitter: 50, rate: 8_000 };
/// Leaves that wake at once, and how often each of them has written before; an entry or up to three each time.
const LEAVES: usize = 500;
const WRITES: usize = 10;
/// Edits of the one record, and how many of them are written at a time.
const EDITS: u64 = 100_000;
const EDITS_AT_ONCE: u64 = 500;
/// Bytes of the large entry, which do not compress.
const LARGE_BYTES: usize = 900_000;
/// How often the line fails while it is under way: before it can pass.
const FAILURES: usize = 3;
/// Vietnam's provinces until and from 1 July 2025, when the districts went as well; and leaves, a district's worth each.
const PROVINCES: usize = 63;
const PROVINCES_LEFT: usize = 34;
const CLINICS: usize = 700;
/// One clinic in so many is off when the order is given, and comes back when the others have followed it.
const AWAY_ONE_IN: usize = 20;
/// Minutes in which clinics go on writing after the order, and how many of them write in each.
const MINUTES_AFTER: usize = 30;
const WRITERS: usize = 40;

/// The provinces with as many of their clinics, and the 212 facilities of the public-security service.
const TREES: [usize; 3] = [PROVINCES_LEFT, 300, 212];

/// Records that a clinic gains, more than a hub offers in one commit; the urgent ones among them, and the bytes of each.
const GAINED: usize = 5_000;
const URGENT: usize = 10;
const GAINED_BYTES: usize = 1_000;
const GAINED_AT_ONCE: usize = 100;
/// Others that may come before the urgent ones: what is under way when these are offered, a window and the batch that went
/// when the window had some room left.
const GAINED_BEFORE: usize = (WINDOW_BATCHES + 1) * BATCH_START_BYTES / GAINED_BYTES;

/// A scene.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scene {
    /// A hub was off; when it is back, all its leaves dial within a second.
    Storm,
    /// One record is edited at two leaves.
    LongRecord,
    /// One large entry goes up a line that fails three times before it has passed.
    LargeEntry,
    /// 63 provinces become 34 and the districts go, by one order, while clinics write.
    Merger,
    /// A clinic gains the thousands of records of another that is closed, and the urgent ones among them come first.
    Gain,
    /// The provinces and a service with a tree of its own below one root. The service's hub is off for some hours, and a facility
    /// is handed to a province.
    TwoTrees,
}

/// All of them, with their names.
pub const ALL: [(Scene, &str); 6] = [
    (Scene::Storm, "storm"),
    (Scene::LongRecord, "long-record"),
    (Scene::LargeEntry, "large-entry"),
    (Scene::Merger, "merger"),
    (Scene::Gain, "gain"),
    (Scene::TwoTrees, "two-trees"),
];

/// What a scene came to.
#[derive(Debug)]
pub struct Outcome {
    /// Entries that were written.
    pub entries: usize,
    /// Virtual milliseconds until the last of them was durable at the root, from when nothing stood in its way.
    pub safe_after: Millis,
    /// Virtual milliseconds until the urgent ones were durable where they were gained, and how many others came before.
    pub urgent: Option<(Millis, usize)>,
    /// Bytes of entries that were sent, against those that a node had not had.
    pub sent_of_needed: (u64, u64),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sent, needed) = self.sent_of_needed;
        write!(
            f,
            "{} entries, all at the root after {:.1} s; {:.3} times what was needed was sent",
            self.entries,
            self.safe_after as f64 / 1000.0,
            sent as f64 / needed.max(1) as f64,
        )?;
        self.urgent.map_or(Ok(()), |(millis, before)| {
            let seconds = millis as f64 / 1000.0;
            write!(f, "; what is urgent was where it was gained after {seconds:.1} s, behind {before} others")
        })
    }
}

impl Scene {
    /// Plays it.
    pub fn play(self, trace: &mut Trace) -> Result<Outcome, Failure> {
        let plan = match self {
            Scene::Storm => Plan::one_hub(LEAVES, CLINIC_LINE, 24 * HOUR),
            Scene::LongRecord | Scene::LargeEntry | Scene::Gain => Plan::one_hub(2, CLINIC_LINE, 24 * HOUR),
            Scene::Merger => Plan::country(PROVINCES, CLINICS, CLINIC_LINE, 24 * HOUR),
            Scene::TwoTrees => Plan::two_trees(TREES, CLINIC_LINE, 24 * HOUR),
        };
        let mut world = World::new(plan, trace);
        let (begin, urgent) = match self {
            Scene::Storm => (world.storm()?, None),
            Scene::LongRecord => (world.long_record()?, None),
            Scene::LargeEntry => (world.large_entry()?, None),
            Scene::Merger => (world.merger()?, None),
            Scene::Gain => world.gain()?,
            Scene::TwoTrees => (world.two_trees()?, None),
        };
        let leaves = world.first_leaf()..world.machines.len();
        let is_safe = |one: &Machine| one.engine.as_ref().is_some_and(Engine::all_at_root);
        while !world.machines[leaves.clone()].iter().all(is_safe) && !world.calm {
            world.pass(SECOND / 10)?;
        }
        let safe_after = world.now - begin;
        let report = world.run()?;
        Ok(Outcome {
            entries: report.written,
            safe_after,
            urgent,
            sent_of_needed: (report.entry_bytes_sent, report.entry_bytes_needed),
        })
    }
}

impl World<'_> {
    /// Leaves are the last nodes of a scene's plan.
    fn first_leaf(&self) -> usize {
        self.plan.nodes.iter().take_while(|node| node.info.role != Role::Leaf).count()
    }

    fn merger(&mut self) -> Result<Millis, Failure> {
        let leaves = self.first_leaf()..self.machines.len();
        self.pass(60 * SECOND)?;
        for machine in 1..self.machines.len() {
            self.write(machine, None)?;
        }
        self.pass(HOUR / 4)?;
        let away: Vec<_> = leaves.clone().step_by(AWAY_ONE_IN).collect();
        for leaf in &away {
            self.machines[*leaf].stays_away = true;
            self.crash(*leaf);
        }
        let order = self.merge_provinces();
        self.report.faults[Fault::Move.index()] += 1;
        self.drive(0, Event::Order(order))?;
        for _ in 0..MINUTES_AFTER {
            for _ in 0..WRITERS {
                let leaf = leaves.start + self.rng.below(leaves.len() as u64) as usize;
                if self.is_awake(leaf) {
                    self.write(leaf, None)?;
                }
            }
            self.pass(60 * SECOND)?;
        }
        let stands =
            |machine: &Machine| machine.engine.as_ref().is_none_or(|engine| engine.place().depth() == 3);
        let all_stand = self.machines[leaves.clone()].iter().all(stands);
        assert!(all_stand, "whoever is there has followed");
        for leaf in away {
            self.machines[leaf].stays_away = false;
            self.happen(Ev::Start(leaf))?;
            self.write(leaf, None)?;
        }
        let back = self.now;
        self.pass(SECOND)?;
        Ok(back)
    }

    /// Everybody writes, and each tree has a directive of its own. What is one tree's is in that tree and at the root, and nowhere
    /// in the other. A facility that changes trees takes its records along, and gets the directives of its new tree.
    fn two_trees(&mut self) -> Result<Millis, Failure> {
        let [provinces, clinics, _] = TREES;
        let (service, facility) = (1 + provinces, 2 + provinces + clinics);
        self.pass(60 * SECOND)?;
        for machine in 1..self.machines.len() {
            self.write(machine, None)?;
        }
        for machine in [HUB, service] {
            let issuer = self.org_of(machine);
            let entry = self.an_entry(machine, &directive(&issuer), 1, &None, b"directive");
            self.write_entries(machine, vec![entry])?;
        }
        self.pass(HOUR / 4)?;
        self.machines[service].stays_away = true;
        self.crash(service);
        for machine in facility..self.machines.len() {
            self.write(machine, None)?;
            self.pass(60 * SECOND)?;
        }
        self.machines[service].stays_away = false;
        self.happen(Ev::Start(service))?;
        self.dial_within_a_second(facility..self.machines.len());
        self.pass(HOUR / 4)?;
        self.trees_are_apart(service, facility..self.machines.len());

        let engine = self.machines[0].engine.as_ref().expect("it runs");
        let (from, province) = (self.place_of(facility), self.place_of(HUB));
        let to = province.child(from.org().clone());
        let steps = vec![Step::Move { from, to, address: String::new() }];
        engine.places().check(&steps).expect("all have written, and so are known");
        let order = engine.identity().order_of(1, EPOCH, steps);
        self.report.faults[Fault::Move.index()] += 1;
        self.drive(0, Event::Order(order))?;
        self.write(facility, None)?;
        self.pass(HOUR / 4)?;
        assert!(self.holds(facility, &directive(province.org())), "it gets what its new tree issues");
        self.trees_are_apart(service, facility + 1..self.machines.len());
        Ok(self.now)
    }

    /// Nobody in the tree of the service holds anything of another tree, and nobody of the others, but the root, anything of its.
    fn trees_are_apart(&self, service: usize, facilities: std::ops::Range<usize>) {
        let of_service = |org: &OrgId| {
            *org == self.org_of(service) || facilities.clone().any(|machine| self.org_of(machine) == *org)
        };
        let clinics_end = service + 1 + TREES[1];
        for machine in (1..clinics_end).chain(facilities.clone()) {
            let is_in = machine == service || machine >= clinics_end;
            let homes = self.machines[machine].store.digests().expect("memory does not fail");
            for (home, digest) in homes.iter().filter(|(_, digest)| digest.count > 0) {
                assert_eq!(of_service(home), is_in, "{} entries of {home} are at {machine}", digest.count);
            }
            let issued = directive(&self.org_of(service));
            assert_eq!(self.holds(machine, &issued), is_in, "the service's directive at {machine}");
        }
    }

    fn place_of(&self, machine: usize) -> OrgPath {
        self.plan.nodes[self.machines[machine].node].info.place.clone()
    }

    fn org_of(&self, machine: usize) -> OrgId {
        self.place_of(machine).org().clone()
    }

    fn holds(&self, machine: usize, record: &str) -> bool {
        let record = record.parse().expect("a plain name");
        self.machines[machine].store.rows_of(&record).is_ok_and(|rows| !rows.is_empty())
    }

    /// Each province that goes is merged into one that stays; all leaves go to the province that stays, and districts go.
    fn merge_provinces(&self) -> Order {
        let engine = self.machines[0].engine.as_ref().expect("it runs");
        let root = engine.place();
        let left =
            |province: usize| if province < PROVINCES_LEFT { province } else { province - PROVINCES_LEFT };
        let org = |name: String| OrgId::new(&name).expect("a plain name");
        let mut steps = Vec::new();
        for nth in 0..CLINICS {
            let (district, leaf) = (nth % PROVINCES, org(format!("l{nth}")));
            let province = |nth: usize| root.child(org(format!("p{nth}")));
            let from = province(district).child(org(format!("d{district}"))).child(leaf.clone());
            let to = province(left(district)).child(leaf);
            steps.push(Step::Move { from, to, address: String::new() });
        }
        let close =
            |name: String, into: usize| Step::Close { org: org(name), successor: org(format!("p{into}")) };
        steps.extend((0..PROVINCES).map(|nth| close(format!("d{nth}"), left(nth))));
        steps.extend((PROVINCES_LEFT..PROVINCES).map(|nth| close(format!("p{nth}"), left(nth))));
        engine.places().check(&steps).expect("all have written, and so are known");
        engine.identity().order_of(1, EPOCH, steps)
    }

    fn storm(&mut self) -> Result<Millis, Failure> {
        self.machines[HUB].stays_away = true;
        self.pass(SECOND)?;
        let leaves = FIRST_LEAF..self.machines.len();
        for leaf in leaves.clone() {
            for _ in 0..WRITES {
                self.write(leaf, None)?;
            }
        }
        self.pass(HOUR)?;
        self.machines[HUB].stays_away = false;
        self.happen(Ev::Start(HUB))?;
        let begin = self.now;
        self.dial_within_a_second(leaves);
        Ok(begin)
    }

    /// Their hub is back: these find it within a second.
    fn dial_within_a_second(&mut self, leaves: std::ops::Range<usize>) {
        for leaf in leaves {
            let (boot, delay) = (self.machines[leaf].boot, self.rng.below(SECOND));
            self.machines[leaf].dialing = true;
            self.after(delay, Ev::Dial(leaf, boot));
        }
    }

    fn long_record(&mut self) -> Result<Millis, Failure> {
        self.pass(10 * SECOND)?;
        let (record, mut made, mut last) = ("Observation/long", 0, [None, None]);
        while made < EDITS {
            for (leaf, before) in last.iter_mut().enumerate() {
                let machine = FIRST_LEAF + leaf;
                let entries = (0..EDITS_AT_ONCE).map(|_| {
                    made += 1;
                    let entry = self.an_entry(machine, record, made, before, &made.to_be_bytes());
                    *before = Some(entry.change_hash());
                    entry
                });
                let entries = entries.collect();
                self.write_entries(machine, entries)?;
            }
            self.pass(SECOND)?;
        }
        Ok(self.now)
    }

    fn large_entry(&mut self) -> Result<Millis, Failure> {
        self.pass(10 * SECOND)?;
        let body = self.rng.bytes(LARGE_BYTES);
        let entry = self.an_entry(FIRST_LEAF, "DocumentReference/large", 1, &None, &body);
        self.write_entries(FIRST_LEAF, vec![entry])?;
        for _ in 0..FAILURES {
            self.pass(60 * SECOND)?;
            let up = |conn: &Conn| conn.ends[0].machine == FIRST_LEAF && conn.ends[0].open;
            let conn = self.conns.iter().find(|(_, conn)| up(conn)).map(|(id, _)| *id);
            self.drop_conn(conn.expect("a clinic dials again within a minute"), 0, SECOND);
        }
        Ok(self.now)
    }

    /// A clinic is closed in favour of another, which gains its records, those that are urgent last in every feed. Gives
    /// when the order was given, how long it took until these were durable there, and how many others came before.
    fn gain(&mut self) -> Result<(Millis, Option<(Millis, usize)>), Failure> {
        self.pass(10 * SECOND)?;
        let (closed, heir) = (FIRST_LEAF, FIRST_LEAF + 1);
        let kind = |nth| if nth < GAINED - URGENT { "Patient" } else { "AllergyIntolerance" };
        let names: Vec<_> = (0..GAINED).map(|nth| format!("{}/{nth}", kind(nth))).collect();
        let (rest, urgent) = names.split_at(GAINED - URGENT);
        let mut n = 0;
        for (part, then) in rest.chunks(GAINED_AT_ONCE).map(|part| (part, 0)).chain([(urgent, HOUR)]) {
            let entries = part.iter().map(|name| {
                n += 1;
                let body = self.rng.bytes(GAINED_BYTES);
                self.an_entry(closed, name, n, &None, &body)
            });
            let entries = entries.collect();
            self.pass(then)?;
            self.write_entries(closed, entries)?;
        }
        // So that the root has heard of it.
        self.write(heir, None)?;
        self.pass(HOUR)?;
        let begin = self.now;
        let steps = vec![Step::Close { org: self.org_of(closed), successor: self.org_of(heir) }];
        let engine = self.machines[0].engine.as_ref().expect("it runs");
        engine.places().check(&steps).expect("both have written, and so are known");
        let order = engine.identity().order_of(1, EPOCH, steps);
        self.report.faults[Fault::Move.index()] += 1;
        self.drive(0, Event::Order(order))?;
        while !urgent.iter().all(|name| self.holds(heir, name)) {
            self.pass(SECOND / 10)?;
        }
        let urgent_after = self.now - begin;
        let before = rest.iter().filter(|name| self.holds(heir, name)).count();
        assert!(
            before <= GAINED_BEFORE,
            "{before} others came before what is urgent, and {GAINED_BEFORE} are a window"
        );
        while !rest.iter().all(|name| self.holds(heir, name)) {
            self.pass(SECOND / 10)?;
        }
        Ok((begin, Some((urgent_after, before))))
    }

    fn an_entry(
        &self,
        machine: usize,
        record: &str,
        n: u64,
        before: &Option<ChangeHash>,
        body: &[u8],
    ) -> Entry {
        let run: Incarnation = self.machines[machine].engine.as_ref().expect("it runs").incarnation();
        let home = self.org_of(machine);
        let record: RecordId = record.parse().expect("a plain name");
        let lane = Lane::of_resource_type(record.resource_type());
        let deps: Vec<_> = before.iter().copied().collect();
        let chunk = opaque_chunk(run, n, &deps, Stamp(EPOCH + n as i64), body);
        Entry::new(record, home, lane, chunk).expect("a readable header")
    }

    fn write_entries(&mut self, machine: usize, entries: Vec<Entry>) -> Result<(), Failure> {
        self.names += 1;
        let ticket = Ticket(self.names);
        self.machines[machine].tickets.insert(ticket, entries.iter().map(key).collect());
        self.drive(machine, Event::Write { ticket, entries, projection: Vec::new() })
    }
}

/// The name of the directive that an organization issues.
fn directive(issuer: &OrgId) -> String {
    format!("PlanDefinition/o.{issuer}.1")
}
