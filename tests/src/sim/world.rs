//! The world itself: one queue of events in virtual time, and what each of them does to machines and lines.

use std::collections::{BTreeMap, BTreeSet};

use sync_core::{
    engine::{
        Alert, Audited, Effect, Engine, Event, INTENTS_MAX, LEAVING_AFTER_MILLIS, LinkId, Ticket, refusal,
    },
    feed::Seq,
    id::{ChangeHash, Lane, NodeId, OrgId, OrgPath, RecordId, Secrecy},
    identity::Role,
    order::Step,
    scope::Places,
    session::{BATCH_START_BYTES, Direction, HELD_MAX_BATCHES, HELD_MAX_BYTES, PLACES_MAX, WINDOW_BATCHES},
    store::{Batch, Forgotten, Frontier, MemStore, Op, Store, StoreMut},
    time::{Millis, Now},
    wire::{EntryBatch, Frame, UNPACKED_MAX_BYTES},
};

pub use self::traffic::UnderWay;
use self::{claims::frontiers, contents::Contents, couriers::Couriers, hostile::Intruder};
use super::{
    fault::{self, Fault},
    identity::{Expired, Registry, SimIdentity},
    net::{CONTENT, CONTROL, Conn, STREAMS},
    oracle::{self, Claim, Failure, Final, Key, Ledger, check_final, key},
    plan::{Line, NodePlan, Plan, What},
    records::{self, Shown},
    rng::Rng,
    trace::Trace,
    workload::{Taste, Writer, compose},
};

mod audits;
mod claims;
mod contents;
mod couriers;
mod faults;
mod hostile;
mod labels;
mod links;
pub mod matrix;
mod moves;
mod people;
mod quiet;
pub mod scenes;
mod traffic;
mod trust;

/// A connection that has been silent for this long ends.
const IDLE_TIMEOUT: Millis = 30_000;
/// Longest time between two dials.
const REDIAL_MAX: Millis = 30_000;
/// Longest time that a machine is off.
const OFF_MAX: Millis = 60_000;
/// A line when nothing goes wrong.
const GOOD_LINE: Line = Line { latency: 20, jitter: 10, rate: 1_000_000 };
/// Bytes a second of a line that has fallen to 8 kbit/s.
const SLOW_LINE_RATE: u64 = 1_000;
/// Frames up to this size may arrive byte by byte.
const CRUMBLED_MAX_BYTES: usize = 400;
/// A disk when nothing goes wrong.
const GOOD_DISK: Millis = 5;
/// A reconnect after which nothing has changed may cost this many bytes, in both directions together.
const RECONNECT_MAX_BYTES: u64 = 400;
/// In a world whose nodes keep their identity, entries are sent 1.3 times at most, and beyond that what may be under
/// way when a session ends: a window of the smallest batches in one lane, and the largest entry.
const SURPLUS_PER_SESSION_BYTES: u64 = (WINDOW_BATCHES * BATCH_START_BYTES) as u64;
/// A calm world that needs more events than this is going round in circles.
const EVENTS_MAX: u64 = 1_000_000;
/// A world in which power was lost so often loses it between two effects no more: in a year of it nothing else would
/// happen.
const POWER_CUTS_MAX: u64 = 200;
/// The codes of [`sync_core::identity::Refusal`]: a certificate that is over, a revoked one, one of another place.
const EXPIRED: u16 = 2;
const REVOKED: u16 = 4;
const OUTSIDE: u16 = 5;
/// When a world begins, in milliseconds since 1970: in September 2026.
const EPOCH: i64 = 1_790_000_000_000;

#[derive(Debug)]
enum Ev {
    Start(usize),
    Dial(usize, u64),
    Open(u64),
    Bytes {
        conn: u64,
        from: usize,
        stream: usize,
        bytes: Vec<u8>,
    },
    Closed {
        conn: u64,
        end: usize,
    },
    Disk(usize, u64),
    Timer(usize, u64),
    Edit(usize, RecordId),
    Act(usize),
    Heal(usize),
    Crash(usize),
    /// The operator of a machine revokes a node.
    Revoke(usize, usize),
    /// The root's operator makes sure that all orders are known.
    Orders,
    /// A host sees that the certificate of a connection's other end is over.
    Over(u64),
    /// A node has another certificate.
    Renew(usize),
    /// A machine checks its disk, and then compares it with its neighbours'.
    Check(usize),
    /// It compares it with its parent's, if something waits for that.
    Audit(usize, u64),
    /// The rows have been read that an audit compares.
    Survey(usize, u64, LinkId, Vec<OrgId>, Secrecy),
    /// People have been told what was forgotten.
    Told(usize, u64, Vec<Forgotten>),
    Calm,
    /// Somebody sets out with a bundle.
    Courier,
    /// Everybody decides anew to whom what is secret may go.
    Decide,
    /// A bundle arrives.
    Stick(usize),
}

/// One computer: a disk, and while it runs an engine.
struct Machine {
    name: String,
    node: usize,
    store: MemStore,
    engine: Option<Engine<SimIdentity>>,
    /// Which start this is. Events of an earlier one are void.
    boot: u64,
    /// What the disk is busy with.
    pending: Option<Batch>,
    backups: Vec<MemStore>,
    clock: Clock,
    timer: Option<Millis>,
    /// An audit with the parent is to be made.
    auditing: bool,
    /// The frontiers that were last held against other disks.
    claimed: BTreeMap<(Frontier, Lane), Seq>,
    tickets: BTreeMap<Ticket, Vec<Key>>,
    dialing: bool,
    /// Suspended up to here.
    asleep_until: Millis,
    trouble: Trouble,
    /// What people have read here of each record.
    read: BTreeMap<RecordId, BTreeSet<ChangeHash>>,
    /// Its neighbour has told it that it is revoked: it dials no more.
    told_revoked: bool,
    /// It has seen that its own certificate or its parent's is over, and waits for another.
    awaits_certificate: bool,
    /// Off, while a part of the world settles without it.
    stays_away: bool,
    retired: bool,
}

/// What goes wrong at a machine for a while.
#[derive(Debug, Clone, Copy, Default)]
struct Trouble {
    away: bool,
    slow_line: bool,
    slow_disk: bool,
    full_disk: bool,
    disk_error: bool,
}

impl Trouble {
    fn is_of_disk(self) -> bool {
        self.slow_disk || self.full_disk || self.disk_error
    }
}

/// What a machine's clock says.
#[derive(Debug, Clone, Copy)]
enum Clock {
    /// So many milliseconds later than the true time.
    Runs(i64),
    /// Always this, in milliseconds since 1970.
    Stands(i64),
}

/// What a world came to.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Events.
    pub events: u64,
    /// Virtual time of all machines together, in milliseconds.
    pub node_millis: u64,
    /// How often each kind of fault had an effect, by its place in [`fault::ALL`].
    pub faults: [u64; fault::ALL.len()],
    /// Machines that lost power between two effects or in a commit.
    pub power_cuts: u64,
    /// Whether a part of the world settled while the rest was away.
    pub part_settled: bool,
    /// Local writes that were answered.
    pub written: usize,
    /// Sessions.
    pub sessions: u64,
    /// Virtual time from the beginning of calm until nothing moved, in milliseconds.
    pub settled_after: Millis,
    /// Bytes of entries that were sent, unpacked.
    pub entry_bytes_sent: u64,
    /// Bytes of the largest entry that was sent.
    pub largest_entry: u64,
    /// Bytes of entries that a node had not had.
    pub entry_bytes_needed: u64,
    /// Whether there were no restores, clones or twins.
    pub keeps_identity: bool,
    /// The dearest reconnect after which nothing had changed, in bytes.
    pub reconnect_bytes: u64,
    /// Records that were read at the end, each at every node that holds it.
    pub records_read: usize,
    /// Those of them with an open conflict.
    pub in_conflict: usize,
    /// Those of them of which something could not be read, because two running copies of one machine wrote it.
    pub forked: usize,
    /// Entries that audits have put in place, here or there.
    pub repaired: u64,
    /// Rows that nobody could heal.
    pub unhealed: usize,
    /// The dearest audit of two nodes that hold the same, in bytes.
    pub audit_bytes: u64,
    /// Bundles that were taken, entries that were new in them, and bundles that went on from where nobody stood.
    pub sticks: u64,
    /// See `sticks`.
    pub stick_entries: u64,
    /// Attachments that were whole by a bundle.
    pub stick_attachments: u64,
    /// See `sticks`.
    pub stick_gaps: u64,
    /// Records that somebody has forgotten because an order put them elsewhere.
    pub forgotten: u64,
    /// Secret entries that have come to others than who wrote them.
    pub secrets_came: u64,
    /// Entries that the hostile leaf has brought as far as the root.
    pub from_hostile: usize,
    /// Answers of the hostile leaf to who asked it for content that were not what had been asked for.
    pub spoilt: u64,
    /// Attachments that were written, and that somebody has asked for elsewhere.
    pub attachments: u64,
    /// See `attachments`.
    pub asked: u64,
}

/// A world that is being run.
pub struct World<'t> {
    rng: Rng,
    plan: Plan,
    registry: Registry,
    /// By all orders that were ever given.
    places: Places,
    now: Millis,
    queue: BTreeMap<(Millis, u64), Ev>,
    scheduled: u64,
    machines: Vec<Machine>,
    conns: BTreeMap<u64, Conn>,
    names: u64,
    ledger: Ledger,
    /// The last row of each lane that a node knows to be durable at another: from, to.
    acknowledged: BTreeMap<(usize, usize, Lane), Seq>,
    /// Nodes that somebody has ordered to be revoked.
    revoked: BTreeSet<usize>,
    expired: Expired,
    /// Since when.
    expired_since: BTreeMap<NodeId, Millis>,
    intruder: Option<Intruder>,
    couriers: Option<Couriers>,
    contents: Contents,
    labels: labels::Labels,
    report: Report,
    calm: bool,
    /// What somebody was told.
    alerts: u64,
    /// What the last audit of each machine has come to, by its link.
    audits: BTreeMap<(usize, LinkId), Audited>,
    trace: &'t mut Trace,
}

impl<'t> World<'t> {
    /// The world of a plan, before its first event.
    pub fn new(plan: Plan, trace: &'t mut Trace) -> Self {
        let registry = plan.nodes.iter().map(|node| (node.info.node, node.info.clone())).collect();
        let mut places = Places::default();
        plan.nodes.iter().for_each(|node| assert!(places.learn(&node.info.place), "names are used once"));
        let mut world = Self {
            rng: Rng::new(plan.chance, "world"),
            registry: Registry::new(registry),
            places,
            now: 0,
            queue: BTreeMap::new(),
            scheduled: 0,
            machines: Vec::new(),
            conns: BTreeMap::new(),
            names: 0,
            ledger: Ledger::default(),
            acknowledged: BTreeMap::new(),
            revoked: BTreeSet::new(),
            expired: Expired::default(),
            expired_since: BTreeMap::new(),
            intruder: None,
            couriers: None,
            contents: Contents::default(),
            labels: Default::default(),
            report: Report { keeps_identity: plan.keeps_identity(), ..Report::default() },
            calm: false,
            alerts: 0,
            audits: BTreeMap::new(),
            trace,
            plan,
        };
        for node in 0..world.plan.nodes.len() {
            let machine = world.add_machine(node, MemStore::default());
            if world.plan.hostile == Some(node) {
                world.intruder = Some(Intruder::new(machine, &world.registry, &world.plan));
            } else {
                world.after(0, Ev::Start(machine));
            }
        }
        for act in 0..world.plan.acts.len() {
            world.after(world.plan.acts[act].at, Ev::Act(act));
        }
        if world.plan.couriers {
            let mut couriers = Couriers::new(world.plan.chance);
            for at in couriers.moments(world.plan.calm_at) {
                world.after(at, Ev::Courier);
            }
            world.couriers = Some(couriers);
        }
        if let Some(at) = labels::half(&world.plan) {
            world.after(at, Ev::Decide);
        }
        world.after(world.plan.calm_at, Ev::Calm);
        world
    }

    /// Runs to the end, or to the first broken promise.
    pub fn run(mut self) -> Result<Report, Failure> {
        self.run_until_quiet()?;
        self.heal_rows()?;
        self.revoked_are_out()?;
        self.report.settled_after = self.now.saturating_sub(self.plan.calm_at);
        self.bring_back_the_rest()?;
        self.report.written = self.ledger.written();
        let finals: Vec<_> = self.finals();
        let secret = self.secrets();
        check_final(&self.ledger, &finals, &secret, &self.places)?;
        self.what_may_come_has_come()?;
        self.check_contents()?;
        if self.plan.takes_one_away() {
            self.ledger.check_safe_at_root(&finals, &secret, &self.places)?;
        }
        self.report.from_hostile = self.hostile_entries(finals[0].store)?;
        self.report.secrets_came = self.secrets_came();
        self.check_records()?;
        self.reconnect_costs_little()?;
        self.little_was_sent_twice()?;
        self.audits_of_equals_cost_little()?;
        let machines = self.machines.iter().filter(|machine| !machine.retired).count() as u64;
        self.report.node_millis = self.now * machines;
        Ok(self.report)
    }

    fn little_was_sent_twice(&self) -> Result<(), Failure> {
        let Report {
            entry_bytes_sent: sent,
            entry_bytes_needed: needed,
            sessions,
            largest_entry: largest,
            ..
        } = self.report;
        // A new parent does not know what a child that was moved to it has had from others, and sends it again.
        let moved = |one: &&Machine| self.places.has_moved(self.plan.nodes[one.node].info.place.org());
        let again: u64 = self.machines.iter().filter(moved).map(|one| stored_bytes(&one.store)).sum();
        let again = again * self.places.orders().len() as u64;
        if self.plan.keeps_identity()
            && sent > needed * 13 / 10 + again + sessions * (SURPLUS_PER_SESSION_BYTES + largest)
        {
            let text =
                format!("{sent} bytes of entries were sent in {sessions} sessions, {needed} were needed");
            return Err(Failure::new("little is sent twice", text));
        }
        Ok(())
    }

    /// What somebody holds for secret, also somebody who is away.
    fn secrets(&self) -> BTreeSet<oracle::Key> {
        oracle::secret_keys(self.machines.iter().filter(|one| !one.retired).map(|one| &one.store))
    }

    fn finals(&self) -> Vec<Final<'_>> {
        let running = self.machines.iter().filter(|machine| !machine.retired && !machine.stays_away);
        let running = running.filter(|machine| !self.revoked.contains(&machine.node));
        let mut all: Vec<_> = running
            .map(|machine| {
                let engine = machine.engine.as_ref().expect("all machines run when it is calm");
                Final {
                    who: &machine.name,
                    place: self.places.now(&self.plan.nodes[machine.node].info.place),
                    orders: engine.places().orders().len(),
                    store: &machine.store,
                    says_all_safe: (engine.all_at_parent(), engine.all_at_root()),
                    says_to_come: engine.links().map(|link| link.to_go + link.to_come).sum(),
                    may_be_older: !self.plan.keeps_identity() || self.plan.rot_one_in > 0,
                }
            })
            .collect();
        all.sort_by_key(|one| one.place.depth());
        all
    }

    fn run_until_quiet(&mut self) -> Result<(), Failure> {
        let (mut bound, mut calm_events) = (Millis::MAX, 0);
        while let Some(((at, order), event)) = self.queue.pop_first() {
            self.now = at;
            let sleeper = self.whose(&event).map(|machine| &self.machines[machine]);
            if let Some(wakes) = sleeper.map(|one| one.asleep_until).filter(|wakes| *wakes > at) {
                // In the order in which it was to be, so that what is in order on a line stays so.
                self.queue.insert((wakes, order), event);
                continue;
            }
            self.report.events += 1;
            calm_events += u64::from(self.calm);
            if self.now > bound || calm_events > EVENTS_MAX {
                return Err(Failure::new("all settles in time", format_args!("not yet at {at} ms")));
            }
            self.happen(event)?;
            if self.calm && bound == Millis::MAX {
                bound = self.now + self.time_to_settle();
            }
        }
        Ok(())
    }

    /// How long the calm world may take: whatever had not been noticed is, everybody dials again and settles, and
    /// every machine is sent everything twice.
    fn time_to_settle(&self) -> Millis {
        let largest = self.machines.iter().map(|machine| stored_bytes(&machine.store)).max().unwrap_or(0);
        let transfer = 2 * largest * self.machines.len() as u64 * 1000 / GOOD_LINE.rate;
        let under_way = self.conns.values().flat_map(|conn| (0..2).map(|end| conn.last_arrival(end))).max();
        under_way.unwrap_or(0).saturating_sub(self.now)
            + OFF_MAX
            + IDLE_TIMEOUT
            + 2 * REDIAL_MAX
            + sync_core::session::SETTLE_TIMEOUT_MILLIS
            + transfer
            + 2 * LEAVING_AFTER_MILLIS
            + 30_000
    }

    /// Whether one of these faults has had an effect.
    fn happened<const N: usize>(&self, faults: [Fault; N]) -> bool {
        faults.iter().any(|fault| self.report.faults[fault.index()] > 0)
    }

    fn after(&mut self, delay: Millis, event: Ev) {
        self.scheduled += 1;
        self.queue.insert((self.now + delay, self.scheduled), event);
    }

    fn note(&mut self, machine: usize, what: std::fmt::Arguments<'_>) {
        self.trace.line(self.now, &self.machines[machine].name, what);
    }

    fn happen(&mut self, event: Ev) -> Result<(), Failure> {
        match event {
            Ev::Start(machine) => self.start(machine)?,
            Ev::Dial(machine, boot) => self.dial(machine, boot),
            Ev::Open(conn) => self.open(conn)?,
            Ev::Bytes { conn, from, stream, bytes } => self.arrive(conn, from, stream, &bytes)?,
            Ev::Closed { conn, end } => self.close_end(conn, end)?,
            Ev::Disk(machine, boot) => self.disk_done(machine, boot)?,
            Ev::Timer(machine, boot) => {
                if self.is_up(machine, boot) {
                    self.machines[machine].timer = None;
                    self.drive(machine, Event::Timeout)?;
                }
            }
            Ev::Edit(machine, record) => {
                if self.machines[machine].engine.is_some() {
                    self.write(machine, Some(&record))?;
                }
            }
            Ev::Act(act) => self.act(act)?,
            Ev::Heal(machine) => self.heal(machine),
            Ev::Crash(machine) => {
                self.crash(machine);
            }
            Ev::Revoke(machine, node) => self.order_revocation(machine, node)?,
            Ev::Orders => self.give_orders_again()?,
            Ev::Over(conn) => self.is_over(conn),
            Ev::Renew(node) => self.renew(node),
            Ev::Check(machine) => self.check_disk(machine)?,
            Ev::Audit(machine, boot) => self.audit_that_is_awaited(machine, boot)?,
            Ev::Survey(machine, boot, link, homes, allowed) => {
                if self.is_up(machine, boot) {
                    let summary = self.machines[machine].store.summary(&homes, allowed);
                    self.drive(machine, Event::Surveyed(link, summary))?;
                }
            }
            Ev::Told(machine, boot, forgotten) => {
                if self.is_up(machine, boot) {
                    self.drive(machine, Event::ForgottenTold(forgotten))?;
                }
            }
            Ev::Calm => self.become_calm()?,
            Ev::Courier => self.courier_sets_out()?,
            Ev::Decide => (0..self.machines.len()).try_for_each(|machine| self.decide(machine))?,
            Ev::Stick(index) => self.stick_arrives(index)?,
        }
        Ok(())
    }

    /// One act of the plan, with a chance of its own.
    fn act(&mut self, act: usize) -> Result<(), Failure> {
        let act = self.plan.acts[act];
        let of_world = std::mem::replace(&mut self.rng, Rng::new(act.chance, "act"));
        let done = match act.what {
            What::Write => {
                let awake: Vec<_> = (0..self.machines.len()).filter(|m| self.is_awake(*m)).collect();
                self.rng
                    .pick(&awake)
                    .copied()
                    .map_or(Ok(()), |machine| self.write(machine, None))
                    .and_then(|()| self.ask_for_content())
            }
            What::Meet => {
                self.meet();
                Ok(())
            }
            What::Fault(fault) => self.go_wrong(fault),
        };
        self.rng = of_world;
        done
    }

    /// The machine to which an event happens, when it has to be awake for it.
    fn whose(&self, event: &Ev) -> Option<usize> {
        match event {
            Ev::Dial(machine, _)
            | Ev::Disk(machine, _)
            | Ev::Timer(machine, _)
            | Ev::Audit(machine, _)
            | Ev::Edit(machine, _) => Some(*machine),
            Ev::Bytes { conn, from: end, .. } => self.conns.get(conn).map(|conn| conn.ends[1 - end].machine),
            Ev::Closed { conn, end } => self.conns.get(conn).map(|conn| conn.ends[*end].machine),
            Ev::Start(_)
            | Ev::Open(_)
            | Ev::Act(_)
            | Ev::Heal(_)
            | Ev::Crash(_)
            | Ev::Revoke(..)
            | Ev::Orders
            | Ev::Over(_)
            | Ev::Renew(_)
            | Ev::Check(_)
            | Ev::Survey(..)
            | Ev::Told(..)
            | Ev::Calm
            | Ev::Courier
            | Ev::Decide
            | Ev::Stick(_) => None,
        }
    }

    fn is_awake(&self, machine: usize) -> bool {
        self.machines[machine].engine.is_some() && self.machines[machine].asleep_until <= self.now
    }

    fn is_up(&self, machine: usize, boot: u64) -> bool {
        self.machines[machine].boot == boot && self.machines[machine].engine.is_some()
    }

    /// So many milliseconds, up to fifty years either way.
    fn fifty_years(&mut self) -> i64 {
        let most = 50 * 365 * 86_400_000;
        self.rng.range(0, 2 * most) as i64 - most as i64
    }

    fn add_machine(&mut self, node: usize, store: MemStore) -> usize {
        let siblings = self.machines.iter().filter(|machine| machine.node == node).count();
        let name = format!("{}{}", self.plan.nodes[node].info.place.org(), "'".repeat(siblings));
        let one_in = self.plan.wrong_clock_one_in;
        let wrong = if one_in > 0 && self.rng.one_in(one_in) { self.fifty_years() } else { 0 };
        self.machines.push(Machine {
            name,
            node,
            store,
            engine: None,
            boot: 0,
            pending: None,
            backups: Vec::new(),
            clock: Clock::Runs(wrong),
            timer: None,
            auditing: false,
            claimed: BTreeMap::new(),
            tickets: BTreeMap::new(),
            dialing: false,
            asleep_until: 0,
            trouble: Trouble::default(),
            read: BTreeMap::new(),
            told_revoked: false,
            awaits_certificate: false,
            stays_away: false,
            retired: false,
        });
        self.machines.len() - 1
    }

    fn start(&mut self, machine: usize) -> Result<(), Failure> {
        let one = &self.machines[machine];
        if one.engine.is_some() || one.retired || one.stays_away {
            return Ok(());
        }
        let names = Rng::new(self.rng.next_u64(), "names");
        let identity =
            SimIdentity::new(&self.registry, &self.expired, &self.plan.nodes[one.node].info, names);
        one.store.revocations().map_err(store_failed)?.iter().for_each(|known| identity.revoke(known));
        let engine = Engine::new(identity, "sim 0", &one.store).map_err(store_failed)?;
        self.adopt(machine, engine);
        self.decide(machine)?;
        let tip = self.machines[machine].store.tip().map_err(store_failed)?;
        let run = self.machines[machine].engine.as_ref().map(|engine| engine.incarnation());
        self.note(machine, format_args!("starts as {run:?} with {tip} rows"));
        if self.fetches_unasked(self.machines[machine].node) {
            self.drive(machine, Event::FetchUnasked(u64::MAX))?;
        }
        self.dial_later(machine);
        Ok(())
    }

    /// The machine runs with this engine from now on.
    fn adopt(&mut self, machine: usize, engine: Engine<SimIdentity>) {
        let one = &mut self.machines[machine];
        one.claimed = frontiers(&engine);
        one.engine = Some(engine);
        one.boot += 1;
        one.timer = None;
        one.auditing = false;
        one.dialing = false;
        one.tickets.clear();
    }

    /// Tells a machine's engine something, and does what it asks for.
    fn drive(&mut self, machine: usize, event: Event) -> Result<(), Failure> {
        let now = self.clock(machine);
        let one = &mut self.machines[machine];
        let Some(engine) = &mut one.engine else { return Ok(()) };
        engine.handle(event, &one.store, now).map_err(store_failed)?;
        while let Some(effect) = self.machines[machine].engine.as_mut().and_then(Engine::poll_effect) {
            if self.loses_power() {
                self.note(machine, format_args!("loses power before it can {}", name_of(&effect)));
                self.crash(machine);
                return Ok(());
            }
            self.perform(machine, effect)?;
        }
        self.check_claims(machine)?;
        self.check_heard(machine)?;
        self.check_trust(machine)?;
        self.check_queues(machine)?;
        self.set_timer(machine);
        self.set_audit(machine);
        Ok(())
    }

    fn clock(&self, machine: usize) -> Now {
        let wall = match self.machines[machine].clock {
            Clock::Runs(wrong) => EPOCH + self.now as i64 + wrong,
            Clock::Stands(at) => at,
        };
        Now { mono: self.now, wall }
    }

    fn loses_power(&mut self) -> bool {
        let may = !self.calm && self.plan.crash_one_in > 0 && self.report.power_cuts < POWER_CUTS_MAX;
        may && self.rng.one_in(self.plan.crash_one_in)
    }

    fn set_timer(&mut self, machine: usize) {
        let one = &mut self.machines[machine];
        let due = one.engine.as_ref().and_then(|engine| engine.poll_timeout()).map(|(at, _)| at);
        let boot = one.boot;
        if let Some(at) = due
            && one.timer.is_none_or(|set| at < set)
        {
            one.timer = Some(at);
            self.after(at.saturating_sub(self.now), Ev::Timer(machine, boot));
        }
    }

    fn perform(&mut self, machine: usize, effect: Effect) -> Result<(), Failure> {
        match effect {
            Effect::Commit(batch) => {
                let most = if self.calm { GOOD_DISK } else { self.plan.disk };
                let slow = if self.machines[machine].trouble.slow_disk { 20_000 } else { 0 };
                let delay = self.rng.range(1, most + slow);
                let one = &mut self.machines[machine];
                let boot = one.boot;
                if one.pending.replace(batch).is_some() {
                    return Err(Failure::new("one commit at a time", &one.name));
                }
                self.after(delay, Ev::Disk(machine, boot));
            }
            Effect::Send(link, frame) => self.send(machine, link, &frame)?,
            Effect::Close(link) => self.hang_up(machine, link),
            Effect::Written(ticket) => {
                let one = &mut self.machines[machine];
                let keys = one.tickets.remove(&ticket).unwrap_or_default();
                self.ledger.write(&one.name, &keys, &one.store)?;
                self.mark(machine, &keys);
                let one = &mut self.machines[machine];
                if self.plan.real {
                    records::reads_its_writes(&one.name, &one.store, &keys, &mut one.read)?;
                }
                self.note(machine, format_args!("has written {keys:?}"));
            }
            Effect::Survey(link, homes, allowed) => {
                let (boot, delay) = (self.machines[machine].boot, self.rng.range(1, 5_000));
                self.after(delay, Ev::Survey(machine, boot, link, homes, allowed));
            }
            Effect::Audited(link, audited) => self.audited(machine, link, audited),
            Effect::Imported(link, imported) => self.has_imported(machine, link, &imported)?,
            Effect::Forgotten(purge) => {
                self.note(machine, format_args!("has forgotten {:?}", purge.forgotten));
                let boot = self.machines[machine].boot;
                self.after(GOOD_DISK, Ev::Told(machine, boot, purge.forgotten));
            }
            Effect::Alert(alert) => self.alert(machine, &alert)?,
        }
        Ok(())
    }

    fn alert(&mut self, machine: usize, alert: &Alert) -> Result<(), Failure> {
        self.note(machine, format_args!("alert {alert:?}"));
        self.alerts += 1;
        let told = format!("{}: {alert:?}", self.machines[machine].name);
        if told.contains(records::CLINICAL) {
            return Err(Failure::new("nothing clinical is told", told));
        }
        match alert {
            Alert::Refused { peer, code, .. } | Alert::RefusedByPeer { peer, code, .. } => {
                let excused = *code == refusal::REPLACED
                    || self.is_of_revoked(machine, peer.node, *code)
                    || self.is_of_expired(machine, peer.node, *code)
                    || (*code == OUTSIDE && self.happened([Fault::Stray]))
                    || (*code == refusal::MOVED && self.happened([Fault::Move, Fault::Stray]))
                    || self.is_hostile(peer.node)
                    || (*code == refusal::TIMEOUT && self.plan.faults().next().is_some())
                    || (*code == refusal::PROTOCOL && self.happened([Fault::Garbage, Fault::Strange]));
                if excused { Ok(()) } else { Err(Failure::new("no link is refused", told)) }
            }
            Alert::Restored { .. } | Alert::Forked { .. } if self.report.keeps_identity => {
                Err(Failure::new("no false alarm", told))
            }
            Alert::Unread { .. } if self.plan.rot_one_in == 0 => Err(Failure::new("no false alarm", told)),
            _ => Ok(()),
        }
    }

    fn disk_done(&mut self, machine: usize, boot: u64) -> Result<(), Failure> {
        if !self.is_up(machine, boot) {
            return Ok(());
        }
        let one = &mut self.machines[machine];
        let Some(batch) = one.pending.take() else { return Ok(()) };
        let fails = one.trouble.full_disk || std::mem::take(&mut one.trouble.disk_error);
        if fails && (one.trouble.full_disk || self.rng.one_in(2)) {
            self.note(machine, format_args!("cannot commit"));
            self.crash(machine);
            return Ok(());
        }
        one.store.commit(&batch).map_err(store_failed)?;
        for op in &batch {
            match op {
                Op::Order(order) => drop(self.places.follow(order)),
                Op::Forget(record) => {
                    one.read.remove(record);
                    self.report.forgotten += 1;
                }
                _ => {}
            }
        }
        if let Some(engine) = &one.engine {
            let revocations = batch.iter().filter_map(|op| match op {
                Op::Revoke(revocation) => Some(revocation),
                _ => None,
            });
            revocations.for_each(|revocation| engine.identity().revoke(revocation));
        }
        self.contents_are_committed(machine, &batch)?;
        self.rots(machine);
        let received = |op: &Op| match op {
            Op::Append { entry, src: Some(_), .. } => entry.encoded_len() as u64,
            _ => 0,
        };
        self.report.entry_bytes_needed += batch.iter().map(received).sum::<u64>();
        let tip = self.machines[machine].store.tip().map_err(store_failed)?;
        self.note(machine, format_args!("has committed {} facts, tip {tip}", batch.len()));
        if fails || self.loses_power() {
            self.note(machine, format_args!("does not hear of it"));
            self.crash(machine);
            return Ok(());
        }
        self.drive(machine, Event::Committed)?;
        self.fold_a_little(machine)
    }
}

fn stored_bytes(store: &MemStore) -> u64 {
    let rows = store.unfolded(0, usize::MAX).expect("memory does not fail");
    let entries = rows.into_iter().filter_map(|(seq, _)| store.entry(seq).expect("memory does not fail"));
    entries.map(|entry| entry.encoded_len() as u64).sum()
}

fn store_failed(error: sync_core::store::StoreError) -> Failure {
    Failure::new("the store does not fail", error)
}

fn name_of(effect: &Effect) -> &'static str {
    match effect {
        Effect::Commit(_) => "commit",
        Effect::Send(..) => "send",
        Effect::Close(_) => "close",
        Effect::Written(_) => "answer",
        Effect::Survey(..) => "read",
        Effect::Audited(..) => "tell of an audit",
        Effect::Imported(..) => "tell of a bundle",
        Effect::Forgotten(_) => "tell what is forgotten",
        Effect::Alert(_) => "tell",
    }
}
