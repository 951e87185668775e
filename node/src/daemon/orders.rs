//! Orders that rearrange the tree: planning, checking and giving them at the root, and what a node does that one has moved.
//!
//! A plan waits here until its day and becomes an order then, by the tree of that day: who has joined meanwhile goes along.
//! One that cannot be followed any more is told, and left to a person. What always holds: an order is signed after it was
//! checked, and has become the engine's before anybody is told so. Not here: what an order means (`sync_core::scope`).

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use serde::{Deserialize, Serialize};
use sync_core::{
    engine::Event,
    id::{OrgId, OrgPath},
    identity::{NodeInfo, Role},
    order::{ADDRESS_MAX_BYTES, STEPS_MAX, Step},
    scope::{OrderError, Places},
    session::Direction,
    store::{Store, StoreError},
};

use super::{
    Stand,
    alerts::About,
    core::{Core, Outcome, refuse},
    wall,
};
use crate::{
    admin::{
        Amount, Arrange, Arranged, Failure, FailureKind, NodeChange, OrderLine, OrgLine, Plan, Rearrangement,
        StepLine, Tree,
    },
    ca::{Facts, trust},
    clock,
    config::Config,
    keys::Identity,
    store::SqliteStore,
};

const SETTING: &str = "org-plans";
/// A day that began within so much is no past one, wherever the operator's clock stands.
const DAY_MILLIS: i64 = 24 * 3_600_000;

/// What waits for its day. Kept whole as one setting of the store.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Plans {
    last: u64,
    /// By their day, and by their numbers.
    plans: Vec<Plan>,
}

impl Plans {
    /// Reads the plans.
    pub fn load(store: &SqliteStore) -> Result<Self, StoreError> {
        let Some(bytes) = store.setting(SETTING)? else { return Ok(Self::default()) };
        serde_json::from_slice(&bytes).map_err(|error| StoreError(format!("the plans are damaged: {error}")))
    }

    fn save(&self, store: &mut SqliteStore) -> Result<(), StoreError> {
        store.set_setting(SETTING, &serde_json::to_vec(self).expect("plans are plain data"))
    }

    fn add(&mut self, arrange: Arrange) -> u64 {
        let Arrange { change, address, effective, dry_run: _ } = arrange;
        self.last += 1;
        let at = self.plans.partition_point(|plan| plan.effective <= effective);
        let (plan, order, problem) = (self.last, None, None);
        self.plans.insert(at, Plan { plan, change, address, effective, order, problem });
        self.last
    }
}

impl Core {
    /// Says what a rearrangement would do; gives the order, or keeps it until its day.
    pub fn arrange(&mut self, arrange: Arrange) -> Outcome<Arranged> {
        if !self.engine.is_root() {
            let root = self.config.place.org_at(0).expect("a place begins at the root");
            let text = format!("the tree is rearranged at its root alone, {root}, where all of it is known");
            return refuse(FailureKind::Usage, text);
        }
        if arrange.effective < wall() - DAY_MILLIS {
            let text =
                "that day is over, and an order is never taken back: say --effective now, or a day to come";
            return refuse(FailureKind::Usage, text.to_owned());
        }
        let before = self.places_on(arrange.effective)?;
        let steps = match self.names_another_address(&arrange, &before)? {
            Some(step) => vec![step],
            None => {
                steps(&before, &arrange.change, arrange.address.as_deref())
                    .map_err(|failure| self.because_of_plans(failure, &arrange))?
                    .0
            }
        };
        let after =
            before.check(&steps).map_err(|error| Failure::new(FailureKind::Usage, error.to_string()))?;
        self.are_no_leaves(&steps)?;
        let mut arranged = Arranged {
            steps: steps.iter().map(StepLine::from).collect(),
            nodes: self.changes(&before, &after)?,
            effective: arrange.effective,
            order: None,
            plan: None,
        };
        if arrange.dry_run {
            return Ok(arranged);
        }
        if arrange.effective > wall() {
            arranged.plan = Some(self.plans.add(arrange));
            self.plans.save(&mut self.store)?;
        } else {
            arranged.order = Some(self.order(steps)?);
        }
        Ok(arranged)
    }

    /// Says so when only what is planned before that day is in the way.
    fn because_of_plans(&self, failure: Failure, arrange: &Arrange) -> Failure {
        let Failure { kind, text } = failure;
        let goes_today = steps(self.engine.places(), &arrange.change, arrange.address.as_deref()).is_ok();
        let why = match goes_today {
            true => " by that day, because of what is planned before it: `tuyen org list` shows the plans",
            false => "",
        };
        Failure { kind, text: text + why }
    }

    /// Of who stands there already only the address of its parent can be told anew, at once: should it have been wrong.
    fn names_another_address(&self, arrange: &Arrange, places: &Places) -> Result<Option<Step>, Failure> {
        let (Rearrangement::Move { org, to }, Some(address)) = (&arrange.change, &arrange.address) else {
            return Ok(None);
        };
        let Some(stands) =
            places.stands(org).filter(|stands| stands.parent().is_some_and(|up| up.org() == to))
        else {
            return Ok(None);
        };
        if arrange.effective > wall() || places.address_above(org) == Some(address.as_str()) {
            return Ok(None);
        }
        let address = checked(address)?.to_owned();
        Ok(Some(Step::Move { from: stands.clone(), to: stands.clone(), address }))
    }

    /// Nobody is to stand below a node that has nobody below it: a leaf listens nowhere.
    fn are_no_leaves(&self, steps: &[Step]) -> Outcome<()> {
        let nodes = self.store.nodes()?;
        for step in steps {
            let Step::Move { to, .. } = step else { continue };
            let Some(parent) = to.parent() else { continue };
            let of_parent = |info: &&NodeInfo| info.place.org() == parent.org();
            let mut roles = nodes.iter().filter(of_parent).map(|info| info.role).peekable();
            if roles.peek().is_some() && roles.all(|role| role == Role::Leaf) {
                let text = format!(
                    "{} is a leaf, and nobody can stand below it: enrol it as a hub, or name another one",
                    parent.org()
                );
                return refuse(FailureKind::Usage, text);
            }
        }
        Ok(())
    }

    /// Where everybody will stand on a day, as far as it is planned.
    fn places_on(&self, day: i64) -> Result<Places, Failure> {
        let mut places = self.engine.places().clone();
        for plan in self.plans.plans.iter().filter(|plan| plan.problem.is_none() && plan.effective <= day) {
            let after = steps(&places, &plan.change, plan.address.as_deref()).map_err(|failure| {
                let text =
                    format!("plan {} cannot be followed: {}; cancel it first", plan.plan, failure.text);
                Failure::new(failure.kind, text)
            })?;
            places = after.1;
        }
        Ok(places)
    }

    /// Gives an order; its number.
    fn order(&mut self, steps: Vec<Step>) -> Result<u64, StoreError> {
        let number = self.engine.last_order() + 1;
        let order = trust::sign_order(&self.engine.identity().files(), number, wall(), steps);
        self.engine.handle(Event::Order(order), &self.store, clock::now())?;
        self.let_out()?;
        tracing::info!(number, "an order is given");
        Ok(number)
    }

    /// Gives the orders whose day has come.
    pub fn mind_plans(&mut self) -> Result<(), StoreError> {
        let is_due = |plan: &Plan| plan.problem.is_none() && plan.effective <= wall();
        while let Some(at) = self.plans.plans.iter().position(is_due) {
            let (next, plan) = (self.engine.last_order() + 1, &mut self.plans.plans[at]);
            if plan.order.is_some_and(|order| order < next) {
                self.plans.plans.remove(at);
                self.plans.save(&mut self.store)?;
                continue;
            }
            match steps(self.engine.places(), &plan.change, plan.address.as_deref()) {
                Ok((steps, _)) => {
                    // Should the power fail after the order was given, it is not given again.
                    plan.order = Some(next);
                    self.plans.save(&mut self.store)?;
                    self.order(steps)?;
                    self.plans.plans.remove(at);
                }
                Err(failure) => {
                    plan.problem = Some(failure.text.clone());
                    let text = format!(
                        "plan {} was due and cannot be ordered: {}. Cancel it with `tuyen org cancel {0}`, and order what \
                         is right",
                        plan.plan, failure.text
                    );
                    self.alert("order", text);
                }
            }
            self.plans.save(&mut self.store)?;
        }
        Ok(())
    }

    /// Takes a plan back.
    pub fn cancel_plan(&mut self, number: u64) -> Outcome<Tree> {
        let Some(at) = self.plans.plans.iter().position(|plan| plan.plan == number) else {
            let text = format!(
                "there is no plan {number}: `tuyen org list` shows those that wait. An order that was given is not taken \
                 back; give another one"
            );
            return refuse(FailureKind::Usage, text);
        };
        self.plans.plans.remove(at);
        self.plans.save(&mut self.store)?;
        self.tree()
    }

    /// The tree as this node knows it.
    pub fn tree(&self) -> Outcome<Tree> {
        let (places, entries) = (self.engine.places(), self.entries_of_homes()?);
        let line = |(org, _): (&OrgId, &OrgPath)| OrgLine {
            org: org.clone(),
            place: places.stands(org).expect("it is in the list").clone(),
            successor: places.successor(org).cloned(),
            entries: entries.get(org).copied().unwrap_or(0),
        };
        let mut orgs: Vec<_> = places.all().map(line).collect();
        orgs.sort_by(|a, b| a.place.cmp(&b.place));
        let order = |order: &sync_core::order::Order| OrderLine {
            number: order.number,
            at: order.at,
            steps: order.steps.iter().map(StepLine::from).collect(),
        };
        let orders = places.orders().iter().map(order).collect();
        Ok(Tree { orgs, orders, plans: self.plans.plans.clone() })
    }

    fn entries_of_homes(&self) -> Result<BTreeMap<OrgId, u64>, StoreError> {
        Ok(self.store.digests()?.into_iter().map(|(home, digest)| (home, digest.count)).collect())
    }

    /// For whom something changes, and what.
    fn changes(&self, before: &Places, after: &Places) -> Result<Vec<NodeChange>, StoreError> {
        let entries = self.entries_of_homes()?;
        let of = |homes: Vec<&OrgId>| Amount {
            homes: homes.len() as u64,
            entries: homes.iter().filter_map(|home| entries.get(*home)).sum(),
        };
        let mut changes = Vec::new();
        for (org, _) in before.all().filter(|(org, _)| before.successor(org).is_none()) {
            let (Some(was), Some(is)) = (before.stands(org), after.stands(org)) else { continue };
            let held = |places: &Places, place: &OrgPath, home: &OrgId| places.is_within(home, place);
            let all = || before.all().map(|(home, _)| home);
            let gained = all().filter(|home| !held(before, was, home) && held(after, is, home));
            let lost = all().filter(|home| held(before, was, home) && !held(after, is, home));
            let (gains, loses) = (of(gained.collect()), of(lost.collect()));
            let closed = after.successor(org).is_some();
            if was != is || closed || gains.homes + loses.homes > 0 {
                let at_root = entries.get(org).copied().unwrap_or(0);
                let still_to_send = self.to_come.of(org);
                let (before, after) = (was.clone(), is.clone());
                changes.push(NodeChange { before, after, closed, gains, loses, at_root, still_to_send });
            }
        }
        changes.sort_by(|a, b| a.before.cmp(&b.before));
        Ok(changes)
    }

    /// Takes the place where the orders say that this node stands, and dials the parent that they name.
    pub fn stand_where_orders_say(&mut self) {
        let place = self.engine.place().clone();
        if place == self.config.place {
            return;
        }
        let address = self.engine.places().address_above(place.org()).map(str::to_owned);
        let parent = |place: &OrgPath| place.parent().map(|parent| parent.org().clone());
        let is_other_parent = parent(&place) != parent(&self.config.place);
        let text = format!(
            "by an order of the root this node stands at {place} from now on, and no more at {}. Nothing is lost",
            self.config.place
        );
        self.alerts.end(&About::Moved);
        self.alert_about(Some(About::Moved), "moved", text);
        self.config.place = place;
        self.dial(address.filter(|_| is_other_parent));
    }

    /// An order of the root has come that is about this node. One that says only where its parent listens counts unless this
    /// node was enrolled, or its certificates renewed, after that was given.
    pub fn was_ordered(&mut self) {
        if *self.engine.place() != self.config.place {
            return self.stand_where_orders_say();
        }
        let own = self.config.place.org();
        let names = |step: &Step| matches!(step, Step::Move { to, .. } if to.org() == own);
        let places = self.engine.places();
        let last = places.orders().iter().rfind(|order| order.steps.iter().any(names));
        let certified = self.engine.identity().files().chain.first().and_then(Facts::read);
        let is_newer = last.is_some_and(|order| certified.is_none_or(|facts| order.at >= facts.not_before));
        let address = places.address_above(own).filter(|_| is_newer).map(str::to_owned);
        if address.is_some() && address != self.config.parent {
            let text =
                "by an order of the root the parent of this node listens at another address. Nothing is lost";
            self.alert_about(Some(About::Moved), "moved", text.to_owned());
            self.dial(address);
        }
    }

    /// Dials the parent there from now on, for as long as nobody has answered there also where it was before.
    fn dial(&mut self, address: Option<String>) {
        if let Some(address) = address {
            let before = self.config.parent.replace(address);
            self.config.parent_before = self.config.parent_before.take().or(before);
        }
        self.keep_stand();
    }

    /// The parent has answered where it is dialled.
    pub fn parent_answers(&mut self) {
        let as_before = self.numbers.dialled_as_before.load(Ordering::Relaxed);
        if !as_before && self.config.parent_before.take().is_some() {
            self.keep_stand();
        }
    }

    fn keep_stand(&mut self) {
        if let Err(error) = self.config.save(&self.dir) {
            // The order is followed all the same, at the next start again.
            self.alert("moved", format!("the new place could not be written into the settings: {error}"));
        }
        let Config { place, parent, parent_before, .. } = &self.config;
        let (place, parent, before) = (place.clone(), parent.clone(), parent_before.clone());
        self.numbers.stand.send_replace(Stand { place, parent, before });
        self.numbers.dial.notify_one();
    }

    /// Tells that an order has closed this node's organization, also at each start: its machine is not for ever.
    pub fn tell_if_closed(&mut self) -> Result<(), StoreError> {
        let own = self.config.place.org();
        let Some(heir) = self.engine.places().successor(own) else { return Ok(()) };
        let until = match self.engine.info().role {
            Role::Leaf => "all of it is safe at the centre (`tuyen status`)",
            _ => {
                "all that stood below it are connected at their new parents (`tuyen peers` there), and all is safe at the centre \
                 (`tuyen status`)"
            }
        };
        let but = match self.reader.counts()?.secret {
            0 => String::new(),
            secret => format!(
                ". That does not count what is secret here ({secret} {}): it stays, or goes as far as profiles allow, and only a \
                 backup saves it, so make one before (`tuyen backup create`)",
                if secret == 1 { "record" } else { "records" }
            ),
        };
        let text = format!(
            "by an order of the root {own} is closed, and what was its own is {heir}'s. Leave this machine running until {until}; \
             then have it revoked by its parent (`tuyen revoke`, with --reason left){but}"
        );
        self.alerts.end(&About::Closed);
        self.alert_about(Some(About::Closed), "closed", text);
        Ok(())
    }

    /// Signs with new certificates from now on. Children come again when they name another place: theirs may follow.
    pub fn renewed(&mut self, identity: Arc<Identity>) {
        let named = |identity: &Identity| {
            identity.chain.first().and_then(Facts::read).map(|facts| facts.subject.place)
        };
        let before = named(&self.engine.identity().files());
        let after = named(&identity);
        self.engine.identity().renew(identity);
        if before != after {
            let children = self.peers.values().filter(|peer| peer.direction == Direction::Down);
            children.for_each(|child| child.outbox.close());
        }
    }
}

/// The steps of a rearrangement of this tree, and what it is afterwards; why it cannot be.
fn steps(
    places: &Places,
    change: &Rearrangement,
    address: Option<&str>,
) -> Result<(Vec<Step>, Places), Failure> {
    let usage = |text: String| Failure::new(FailureKind::Usage, text);
    let cannot = |error: OrderError| usage(error.to_string());
    let stands =
        |org: &OrgId| places.stands(org).cloned().ok_or_else(|| cannot(OrderError::Unknown(org.clone())));
    let address = address.map(checked).transpose()?;
    let below = |org: &OrgId, to: &OrgId| -> Result<Step, Failure> {
        let (from, at) = (stands(org)?, stands(to)?.child(org.clone()));
        if from == at {
            let parent = from.parent().map_or_else(String::new, |parent| parent.org().to_string());
            return Err(usage(format!("{org} stands below {parent} already")));
        }
        let Some(address) = address else {
            return Err(usage(format!(
                "{org} would not find {to}: say where its new parent listens with --address HOST:PORT"
            )));
        };
        Ok(Step::Move { from, to: at, address: address.to_owned() })
    };
    let mut steps = Vec::new();
    match change {
        Rearrangement::Move { org, to } => steps.push(below(org, to)?),
        Rearrangement::Split { org, to, children } => {
            for (nth, child) in children.iter().enumerate() {
                if children[..nth].contains(child) {
                    return Err(usage(format!("{child} is named twice")));
                }
                if stands(child)?.parent().is_none_or(|parent| parent.org() != org) {
                    let place = stands(child)?;
                    return Err(usage(format!(
                        "{child} does not stand directly below {org}, but at {place}"
                    )));
                }
                steps.push(below(child, to)?);
            }
        }
        Rearrangement::Close { orgs, into } => {
            if let Some(into) = into.as_ref().filter(|into| orgs.contains(into)) {
                return Err(usage(format!("{into} is to be closed, so nothing can be merged into it")));
            }
            let parent = |org: &OrgId| Ok(stands(org)?.parent().map(|parent| parent.org().clone()));
            let parents = orgs.iter().map(parent).collect::<Result<Vec<_>, Failure>>()?;
            let mut successor = None;
            for (org, parent) in orgs.iter().zip(&parents) {
                let into = into.as_ref().or(parent.as_ref());
                let Some(into) = into else { return Err(cannot(OrderError::Root(org.clone()))) };
                if successor.is_some_and(|other: &OrgId| other != into) {
                    let text = format!(
                        "{org} has another parent than those before it: close it in an order of its own"
                    );
                    return Err(usage(text));
                }
                successor = Some(into);
                let children = places.below(org).filter(|child| !orgs.contains(child));
                steps.extend(children.map(|child| below(child, into)).collect::<Result<Vec<_>, _>>()?);
                steps.push(Step::Close { org: org.clone(), successor: into.clone() });
            }
        }
    }
    if steps.len() > STEPS_MAX {
        return Err(usage(format!(
            "this takes {} steps, and an order has at most {STEPS_MAX}; do it in parts",
            steps.len()
        )));
    }
    let after = places.check(&steps).map_err(cannot)?;
    Ok((steps, after))
}

/// An address that a node can dial.
fn checked(address: &str) -> Result<&str, Failure> {
    let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    let is_port = port.is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0));
    if is_port && address.len() <= ADDRESS_MAX_BYTES {
        return Ok(address);
    }
    let text =
        format!("'{address}' is no address that a node can dial; write HOST:PORT, such as 10.1.0.4:7401");
    Err(Failure::new(FailureKind::Usage, text))
}
