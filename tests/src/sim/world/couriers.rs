//! People who carry bundles between neighbours, whatever the lines do: some are lost, some come twice, in any order, hours
//! or weeks late. What is in each is held against the scope of whom it is for, as every frame is.

use sync_core::{
    engine::{self, Export, Imported, Since},
    feed::Cursor,
    identity::NodeInfo,
    scope,
};

use super::{moves::ends_for, *};

/// Whoever finds nobody to take a bundle comes again after so long at least, and so often in all that is left.
const TRY_AGAIN: Millis = 500;
const TRIES: Millis = 200;
/// In so many steps a bundle is closed at the latest, if its stick is small.
const STEPS_MAX: u64 = 6;
/// Longest time that a stick is under way; one in three takes as long as the world has left.
const QUICK: Millis = 120_000;

/// A bundle on its way.
#[derive(Debug, Clone)]
pub(super) struct Stick {
    to: usize,
    made: u64,
    /// The last order of which its writer had heard.
    order: u64,
    peer: NodeInfo,
    from: Vec<(Lane, Cursor)>,
    frames: Vec<Frame>,
}

/// What couriers do, apart from all other chance.
pub(super) struct Couriers {
    rng: Rng,
    sticks: Vec<Stick>,
    made: u64,
    /// What hosts know of neighbours: machine, node.
    heard: BTreeMap<(usize, usize), Heard>,
    /// The bundles that are being taken, with the machine and its start.
    taking: BTreeMap<LinkId, (usize, u64, usize)>,
}

#[derive(Default)]
struct Heard {
    made: u64,
    known: engine::Heard,
}

impl Couriers {
    pub fn new(chance: u64) -> Self {
        let (sticks, heard, taking) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        Self { rng: Rng::new(chance, "couriers"), sticks, made: 0, heard, taking }
    }

    /// When they set out.
    pub fn moments(&mut self, until: Millis) -> Vec<Millis> {
        let count = self.rng.range(4, 60);
        (0..count).map(|_| self.rng.below(until.max(1))).collect()
    }
}

impl World<'_> {
    /// Somebody writes a bundle for a neighbour, and sets out with it.
    pub(super) fn courier_sets_out(&mut self) -> Result<(), Failure> {
        let Some(mut couriers) = self.couriers.take() else { return Ok(()) };
        let outcome = self.write_stick(&mut couriers);
        self.couriers = Some(couriers);
        outcome
    }

    fn write_stick(&mut self, couriers: &mut Couriers) -> Result<(), Failure> {
        let honest = |m: &usize| self.is_awake(*m) && self.plan.hostile != Some(self.machines[*m].node);
        let awake: Vec<_> = (0..self.machines.len()).filter(honest).collect();
        let Some(machine) = couriers.rng.pick(&awake).copied() else { return Ok(()) };
        let engine = self.machines[machine].engine.as_ref().expect("it is awake");
        let own = engine.place().clone();
        let is_near = |node: &usize| {
            let stands = engine.places().stands(self.plan.nodes[*node].info.place.org());
            stands.is_some_and(|place| {
                own.parent().as_ref() == Some(place) || place.parent().as_ref() == Some(&own)
            })
        };
        let near: Vec<_> = (0..self.plan.nodes.len())
            .filter(|node| is_near(node) && self.plan.hostile != Some(*node))
            .collect();
        let Some(to) = couriers.rng.pick(&near).copied() else { return Ok(()) };
        let heard = couriers.heard.entry((machine, to)).or_default();
        let since = match couriers.rng.below(4) {
            0 => Since::Start,
            1 => Since::Last,
            _ => Since::Acknowledged,
        };
        let store = &self.machines[machine].store;
        let peer = self.plan.nodes[to].info.clone();
        let now = self.clock(machine);
        let export = engine.export(peer, since, &heard.known, store, now).map_err(store_failed)?;
        let Ok(mut export) = export else { return Ok(()) };
        let most = if couriers.rng.one_in(3) { couriers.rng.below(STEPS_MAX) } else { u64::MAX };
        let from = export.from().to_vec();
        let frames = written(engine, &mut export, store, most)?;
        if couriers.rng.one_in(2) {
            heard.known.last = engine.export_reached(&export, store).map_err(store_failed)?;
            heard.known.given = export.given().clone();
        }
        let rotten = export.rotten().to_vec();

        couriers.made += 1;
        let (order, peer) = (engine.last_order(), engine.info().clone());
        let stick = Stick { to, made: couriers.made, order, peer, from, frames };
        self.check_stick(machine, &stick)?;
        let batches = stick
            .frames
            .iter()
            .filter_map(|frame| if let Frame::Batch(batch) = frame { Some(batch) } else { None });
        let entries = batches.flat_map(|batch| batch.entries.iter().map(|(_, entry)| entry));
        self.check_secrecy(machine, stick.to, scope::Way::Courier, entries)?;
        self.note(machine, format_args!("writes stick {} of {} frames", stick.made, stick.frames.len()));
        let copies = [0, 1, 1, 1, 2][couriers.rng.below(5) as usize];
        couriers.sticks.push(stick);
        let index = couriers.sticks.len() - 1;
        for _ in 0..copies {
            let left = self.plan.calm_at.saturating_sub(self.now);
            let long = if couriers.rng.one_in(3) { left } else { QUICK };
            let delay = couriers.rng.below(long + 1);
            self.after(delay, Ev::Stick(index));
        }
        if rotten.is_empty() { Ok(()) } else { self.drive(machine, Event::Rotten(rotten)) }
    }

    /// What is in a bundle is for whom it is.
    fn check_stick(&self, machine: usize, stick: &Stick) -> Result<(), Failure> {
        let one = &self.machines[machine];
        let Some(engine) = &one.engine else { return Ok(()) };
        let place = engine.places().now(&self.plan.nodes[stick.to].info.place);
        let goes_down = place.parent().as_ref() == Some(engine.place());
        let entries = stick.frames.iter().filter_map(|frame| match frame {
            Frame::Batch(batch) => Some(batch.entries.iter().map(|(_, entry)| entry)),
            _ => None,
        });
        let child = goes_down.then_some(&place);
        let strays = |frame| self.content_may_not_go(machine, child, frame);
        if let Some(name) = stick.frames.iter().find_map(strays) {
            let text = format!("{} writes content of {name:?} onto a stick", one.name);
            return Err(Failure::new("nothing leaves its scope", text));
        }
        for entry in entries.flatten() {
            let held_for = one.store.held_for(entry.record()).expect("memory does not fail");
            let issued = entry.record().issuer().is_some();
            let mut held_for = held_for.iter();
            let may = held_for.any(|org| engine.places().reach(org, issued, &place))
                || ends_for(entry, &place, engine.places());
            if goes_down && !may {
                let text = format!("{} writes {entry:?} onto a stick", one.name);
                return Err(Failure::new("nothing leaves its scope", text));
            }
        }
        Ok(())
    }

    /// A stick arrives. It waits until the machine is there and takes no other.
    pub(super) fn stick_arrives(&mut self, index: usize) -> Result<(), Failure> {
        let Some(couriers) = &mut self.couriers else { return Ok(()) };
        let stick = couriers.sticks[index].clone();
        let of_node: Vec<_> =
            (0..self.machines.len()).filter(|m| self.machines[*m].node == stick.to).collect();
        let awake: Vec<_> = of_node.into_iter().filter(|m| self.is_awake(*m)).collect();
        let couriers = self.couriers.as_mut().expect("it was there");
        let free = |m: &usize| {
            let boot = self.machines[*m].boot;
            !couriers.taking.values().any(|(machine, at, _)| (*machine, *at) == (*m, boot))
        };
        let free: Vec<_> = awake.into_iter().filter(free).collect();
        let Some(machine) = couriers.rng.pick(&free).copied() else {
            if !self.calm {
                let left = self.plan.calm_at.saturating_sub(self.now);
                self.after(TRY_AGAIN.max(left / TRIES), Ev::Stick(index));
            }
            return Ok(());
        };
        self.names += 1;
        let link = LinkId(self.names);
        let boot = self.machines[machine].boot;
        self.couriers.as_mut().expect("it was there").taking.insert(link, (machine, boot, index));
        self.note(machine, format_args!("takes stick {}", stick.made));
        let Stick { made, peer, from, frames, .. } = stick;
        let sender = self.plan.nodes.iter().position(|node| node.info.node == peer.node);
        let heard = &self.couriers.as_ref().expect("it was there").heard;
        let newest =
            sender.and_then(|sender| heard.get(&(machine, sender))).is_none_or(|heard| made > heard.made);
        let chain = SimIdentity::chain(peer.node);
        self.drive(machine, Event::Bundle { link, peer, chain, from, newest })?;
        for frame in frames {
            if !self.is_up(machine, boot) {
                return Ok(());
            }
            self.drive(machine, Event::Bundled(link, frame))?;
        }
        if self.is_up(machine, boot) { self.drive(machine, Event::BundleEnds(link)) } else { Ok(()) }
    }

    /// Whether whoever takes a bundle has heard of an order of which its writer had not: then the bundle cannot tell where
    /// somebody stands who belongs to a record only by that order.
    fn is_from_before_an_order(&self, machine: usize, link: LinkId) -> bool {
        let Some(couriers) = &self.couriers else { return false };
        let stick = couriers.taking.get(&link).map(|(_, _, index)| &couriers.sticks[*index]);
        let engine = self.machines[machine].engine.as_ref();
        stick.zip(engine).is_some_and(|(stick, engine)| stick.order < engine.last_order())
    }

    /// A machine has taken a bundle, or a part of it.
    pub(super) fn has_imported(
        &mut self,
        machine: usize,
        link: LinkId,
        imported: &Imported,
    ) -> Result<(), Failure> {
        self.note(machine, format_args!("has taken {imported:?}"));
        self.report.sticks += 1;
        self.report.stick_entries += imported.new;
        self.report.stick_attachments += imported.attachments;
        self.report.stick_gaps += u64::from(!imported.gaps.is_empty());
        if let Some((code, text)) = &imported.refused {
            // One of before its reader's disk was put back may lack what makes a record of two homes that reader's.
            let may_lack = self.happened([Fault::Restore, Fault::RestoreTwo, Fault::EmptyDisk]);
            let excused = (*code == REVOKED && !self.revoked.is_empty())
                || (*code == EXPIRED && self.happened([Fault::Expiry]))
                || (*code == OUTSIDE && self.happened([Fault::Move]))
                || (*code == refusal::OUTSIDE_SUBTREE && may_lack)
                || (text.contains("nobody has told") && self.is_from_before_an_order(machine, link));
            if !excused {
                let text = format!("{}: {code} {text}", self.machines[machine].name);
                return Err(Failure::new("a bundle is taken", text));
            }
        }
        let Some(couriers) = &mut self.couriers else { return Ok(()) };
        let Some((_, _, index)) = couriers.taking.remove(&link) else { return Ok(()) };
        let made = couriers.sticks[index].made;
        let sender = self.plan.nodes.iter().position(|node| node.info.node == imported.sender.node);
        let sender = sender.expect("nobody else writes sticks");
        let heard = couriers.heard.entry((machine, sender)).or_default();
        if imported.refused.is_none() && made > heard.made {
            heard.made = made;
            heard.known.hears(imported);
        }
        Ok(())
    }
}

fn written(
    engine: &Engine<SimIdentity>,
    export: &mut Export,
    store: &MemStore,
    most: u64,
) -> Result<Vec<Frame>, Failure> {
    let mut frames = Vec::new();
    let mut steps = 0;
    while steps <= most
        && let Some(more) = engine.export_next(export, store).map_err(store_failed)?
    {
        frames.extend(more);
        steps += 1;
    }
    Ok(frames)
}
