//! Grants: a patient's records are opened to another organization for a time.
//!
//! The grants of a Patient record are those of everything that is about the patient. Whoever writes about a patient opens it as the
//! patient's own record is; what was written before, or elsewhere, is opened and closed behind, by the node at the patient's home
//! and by the one that has given the grant. That is worked out from what is there, as often as one likes, so a power cut in the
//! middle leaves nothing undone. What always holds: each grant, and each look-up in an emergency, is itself a record about the
//! patient, durable before anything is opened by it. Not here: who is sent what, and what is forgotten at the end, which the
//! engine does.

use std::collections::BTreeSet;

use sync_core::{
    id::{Lane, OrgId, RecordId, Secrecy},
    scope::{
        compartment,
        grant::{FOREVER, GRANTS_MAX, Grant, GrantId, Granted, Step, opened},
    },
    session::Direction,
    store::{Op, Store, StoreError},
};

use super::{
    alerts::About,
    core::{Core, Outcome, Problem, refuse},
    records::{Pending, With, usage},
    wall,
};
use crate::{
    admin::{FailureKind, Give, Given, GrantEnded, GrantInfo, Grants, LookedUp},
    fhir::consent::{self, LookUp, Permission, Purpose},
};

/// How long a patient's records are open after a look-up in an emergency, in milliseconds: three days.
pub const EMERGENCY_MILLIS: i64 = 3 * 24 * 3_600_000;
/// Records that are opened or closed in one commit.
const AT_ONCE: usize = 200;
/// Fewest digits that name a grant.
const DIGITS_MIN: usize = 6;

/// The patients of whom something may be to be opened or closed.
#[derive(Default)]
pub(super) struct Compartments {
    /// Patients with grants.
    granted: BTreeSet<RecordId>,
    /// Those of them whose records are to be looked at.
    due: BTreeSet<RecordId>,
}

impl Compartments {
    /// At a start everything is looked at once: what a power cut has left undone is done then.
    pub fn new(patients: Vec<RecordId>) -> Self {
        let granted: BTreeSet<_> = patients.into_iter().collect();
        Self { due: granted.clone(), granted }
    }

    /// A record has been opened, or is not open any more.
    pub fn is_granted(&mut self, record: &RecordId) {
        if record.resource_type() == "Patient" {
            self.granted.insert(record.clone());
            self.due.insert(record.clone());
        }
    }

    /// These records are folded.
    pub fn folded(&mut self, ops: &[Op]) {
        if self.granted.is_empty() {
            return;
        }
        let texts = ops.iter().filter_map(|op| match op {
            Op::Project(projected) => projected.resource.as_deref(),
            _ => None,
        });
        let patients = texts.flat_map(compartment::patients_of);
        self.due.extend(patients.filter(|patient| self.granted.contains(patient)));
    }
}

/// How much a look at a patient's records has changed.
#[derive(Default)]
struct Looked {
    opened: u64,
    closed: u64,
    secret: u64,
}

impl Core {
    /// Opens a patient's records to an organization.
    pub fn give(&mut self, give: Give) -> Outcome<Given> {
        let Give { patient, to, until, purpose, by, why } = give;
        if until <= wall() || until == FOREVER {
            return refuse(FailureKind::Usage, "a grant ends at a time to come; give --until a later one");
        }
        let home = self.home_to_speak_for(&patient)?;
        if self.holds_by_right(&to, &home) {
            let text =
                format!("{to} holds {patient} without a grant: it is its home, {home}, or stands above it");
            return refuse(FailureKind::Usage, text);
        }
        let is_heard_of = self.engine.places().of(&to).is_some();
        if self.engine.is_root() && !is_heard_of {
            let text = format!(
                "no organization {to} has been heard of, and the centre hears of all: check the spelling (`tuyen org list`). \
                 Nothing was opened"
            );
            return refuse(FailureKind::Usage, text);
        }
        if let Some(heir) = self.engine.places().successor(&to) {
            let text = format!(
                "{to} is closed by an order of the root, and what was its own is {heir}'s; give it to {heir}. Nothing was opened"
            );
            return refuse(FailureKind::Usage, text);
        }
        let grant = Grant { id: fresh_name(), to, until };
        let giver = self.config.place.org().clone();
        let permission = Permission { patient, grant, purpose, giver, given_at: wall(), ended: false };
        self.write_permission(&permission, &by, &why)?;
        let Looked { opened, secret, .. } = self.look_at(&permission.patient)?;
        Ok(Given { grant: permission.grant.id.to_string(), records: opened + 2, secret, is_heard_of })
    }

    /// The home of a patient for whom this node may speak, and whose record may leave.
    fn home_to_speak_for(&self, patient: &RecordId) -> Outcome<OrgId> {
        if patient.resource_type() != "Patient" {
            let text = format!(
                "{patient} is no Patient: what is opened is a patient with all that is about him or her"
            );
            return refuse(FailureKind::Usage, text);
        }
        if self.store.rows_of(patient)?.is_empty() {
            let text = format!(
                "{patient} is not at this node. If you have the patient before you and nobody can be asked, \
                 `tuyen grant emergency {patient} --why …` asks for the records, and says on record that you did"
            );
            return refuse(FailureKind::Failed, text);
        }
        if self.store.secrecy(patient)? != Secrecy::None {
            let text = format!("{patient} is secret, and a grant opens nothing secret; nothing was opened");
            return refuse(FailureKind::Failed, text);
        }
        let homes = self.store.homes(patient)?;
        match homes.iter().find(|home| self.is_within(home)) {
            Some(home) => Ok(home.clone()),
            None => {
                let home = homes.first().map_or("another organization", OrgId::as_str);
                let text = format!(
                    "{patient} belongs to {home}, and {home} or who stands above it decides who else may hold it; ask there"
                );
                refuse(FailureKind::Failed, text)
            }
        }
    }

    /// Whether an organization is a home, or stands above it.
    fn holds_by_right(&self, org: &OrgId, home: &OrgId) -> bool {
        org == home || self.engine.places().of(home).is_some_and(|place| place.has(org))
    }

    /// Whether a home stands at this node or below it.
    pub(super) fn is_within(&self, home: &OrgId) -> bool {
        home == self.config.place.org() || self.engine.places().is_within(home, &self.config.place)
    }

    /// Whether one of these stands at this node.
    fn is_home(&self, homes: &[OrgId]) -> bool {
        let own = &self.config.place;
        let stands_here = |home: &OrgId| {
            home == own.org() || self.engine.places().of(home).is_some_and(|place| place == own)
        };
        homes.iter().any(stands_here)
    }

    /// Whether a record is the Consent of a grant: what is open does not follow from its text, so nobody is to edit that.
    pub(super) fn is_of_a_grant(&self, id: &RecordId) -> Result<bool, StoreError> {
        if id.resource_type() != consent::TYPE {
            return Ok(false);
        }
        let grants = self.store.grants(id)?;
        Ok(grants.iter().any(|granted| consent::record(granted.grant.id) == *id))
    }

    /// What the Consent of a grant says; none when it is not here.
    fn permission(&self, grant: GrantId) -> Result<Option<Permission>, StoreError> {
        let listed = self.reader.record(&consent::record(grant))?;
        Ok(listed.and_then(|listed| Permission::read(&listed.resource?)))
    }

    /// Writes the Consent, and opens or closes the patient's own record, in one commit. The rest follows from that.
    fn write_permission(&mut self, permission: &Permission, by: &Option<String>, why: &str) -> Outcome<()> {
        let grant = permission.grant.clone();
        let step = if permission.ended { Step::Ends(grant) } else { Step::Opens(grant) };
        let why = Some(why.to_owned());
        let mut pending = Pending::default();
        let mut patient = self.open(&permission.patient)?;
        let change = patient.record.touch(&self.author(by, &why)).map_err(usage)?;
        let with = With { steps: vec![step.clone()], ..With::default() };
        self.queue(&mut pending, patient, change, with)?.map_err(failed)?;
        let resource = permission.to_resource();
        let mut consent = self.open(&consent::record(permission.grant.id))?;
        let change = consent.record.put(&resource, None, &self.author(by, &why)).map_err(usage)?;
        if let Some(change) = change {
            let with = With { resource: Some(&resource), steps: vec![step], ..With::default() };
            self.queue(&mut pending, consent, change, with)?.map_err(failed)?;
        }
        self.write(pending)?;
        // What is written here is not folded.
        Ok(self.tell_of_look_up(permission)?)
    }

    /// What an entry of a record that is about these patients, and has this home, opens or ends so that the record is open to
    /// whom the patients are. What this node writes of its own about a patient of others goes back to the patient's home.
    pub(super) fn steps_for(
        &self,
        record: &RecordId,
        home: &OrgId,
        patients: &[RecordId],
    ) -> Result<Vec<Step>, StoreError> {
        let mut steps = Vec::new();
        if record.issuer().is_some() || patients.iter().all(|patient| patient == record) {
            return Ok(steps);
        }
        let own = self.store.grants(record)?;
        for patient in patients.iter().filter(|patient| *patient != record) {
            let grants = self.store.grants(patient)?;
            if grants.is_empty() {
                continue;
            }
            let homes = self.store.homes(patient)?;
            if homes.iter().any(|home| self.is_within(home)) {
                steps.extend(following(&own, &grants));
                continue;
            }
            let here = |granted: &&Granted| granted.over.is_none() && self.is_within(&granted.grant.to);
            let (Some(granted), Some(to)) = (grants.iter().find(here), homes.first()) else { continue };
            if home != to && !opened(&own).any(|known| known == to) {
                let back = Grant { id: granted.grant.id, to: to.clone(), until: FOREVER };
                steps.push(Step::Opens(back));
            }
        }
        Ok(steps)
    }

    /// Opens and closes what is about a patient as the patient's own record is.
    fn look_at(&mut self, patient: &RecordId) -> Result<Looked, StoreError> {
        let mut looked = Looked::default();
        let grants = self.store.grants(patient)?;
        let homes = self.store.homes(patient)?;
        let (is_home, own) = (self.is_home(&homes), self.config.place.org());
        let mut minded = Vec::new();
        for granted in grants.into_iter().filter(|_| homes.iter().any(|home| self.is_within(home))) {
            if is_home || self.permission(granted.grant.id)?.is_some_and(|known| known.giver == *own) {
                minded.push(granted);
            }
        }
        if minded.is_empty() {
            return Ok(looked);
        }
        let why = Some("as the patient's own record".to_owned());
        let mut pending = Pending::default();
        for record in self.reader.about(patient)? {
            if record == *patient || record.issuer().is_some() {
                continue;
            }
            let own = self.store.grants(&record)?;
            let steps = following(&own, &minded);
            let speaks = self.store.homes(&record)?.iter().any(|home| self.is_within(home));
            if steps.is_empty() || !speaks {
                continue;
            }
            if self.store.secrecy(&record)? != Secrecy::None {
                looked.secret += 1;
                continue;
            }
            match steps[0] {
                Step::Opens(_) => looked.opened += 1,
                Step::Ends(_) => looked.closed += 1,
            }
            for steps in steps.chunks(GRANTS_MAX) {
                let mut opened = self.open(&record)?;
                let with = With { steps: steps.to_vec(), ..With::default() };
                let outcome = match opened.record.touch(&self.author(&None, &why)) {
                    Ok(change) => self.queue(&mut pending, opened, change, with)?.map(|_| ()),
                    Err(error) => Err(error.to_string()),
                };
                if let Err(problem) = outcome {
                    tracing::error!(%record, problem, "a record was not opened or closed as its patient's is");
                }
                // A record is written once in a commit: what follows is made on what is durable.
                if steps.len() == GRANTS_MAX || pending.len() >= AT_ONCE {
                    self.write(std::mem::take(&mut pending))?;
                }
            }
        }
        self.write(pending)?;
        Ok(looked)
    }

    /// Looks at the records of the next patient of whom something may be to be done. False when there is none.
    pub(super) fn mind_grants(&mut self) -> Result<bool, StoreError> {
        let Some(patient) = self.compartments.due.pop_first() else { return Ok(false) };
        let Looked { opened, closed, .. } = self.look_at(&patient)?;
        if opened + closed > 0 {
            tracing::info!(opened, closed, "records follow what is open of their patient");
        }
        Ok(true)
    }

    /// Ends a grant before its time.
    pub fn end_grant(&mut self, name: &str, by: &Option<String>, why: &str) -> Outcome<GrantEnded> {
        let id = self.grant_of(name)?;
        let Some(permission) = self.permission(id)? else {
            let text = format!(
                "the Consent of grant {id} is not here, so it cannot be said whose it is; end it where it was given"
            );
            return refuse(FailureKind::Failed, text);
        };
        let home = self.home_to_speak_for(&permission.patient)?;
        let grants = self.store.grants(&permission.patient)?;
        let is_it = |granted: &&Granted| granted.grant == permission.grant;
        match grants.iter().find(is_it) {
            Some(granted) if granted.over.is_none() => {}
            Some(_) => return refuse(FailureKind::Failed, format!("grant {id} has ended already")),
            None => {
                return refuse(
                    FailureKind::Failed,
                    format!("grant {id} has never opened anything of {home}'s"),
                );
            }
        }
        let permission = Permission { ended: true, ..permission };
        self.write_permission(&permission, by, why)?;
        let looked = self.look_at(&permission.patient)?;
        let Permission { patient, grant, .. } = permission;
        // What is open to one that is closed its successor reads, and may have a grant of its own.
        let successor = |org: &OrgId| self.engine.places().successor(org).cloned();
        let readers = |org: &OrgId| [Some(org.clone()), successor(org)];
        let own = readers(&grant.to);
        let is_other = |one: &&Granted| {
            let Granted { grant: other, over } = one;
            let is_open = other.id != id && over.is_none() && other.until > wall();
            is_open && readers(&other.to).iter().flatten().any(|reader| own.contains(&Some(reader.clone())))
        };
        let still_open_by = grants.iter().filter(is_other).map(|one| one.grant.id.to_string()).collect();
        let (grant, to, successor) = (id.to_string(), grant.to.clone(), successor(&grant.to));
        let holds_by_right = self.store.homes(&patient)?.iter().any(|home| self.holds_by_right(&to, home));
        let is_heard_of = self.engine.places().of(&to).is_some();
        let records = looked.closed + 2;
        Ok(GrantEnded { grant, patient, to, successor, records, still_open_by, holds_by_right, is_heard_of })
    }

    /// The grant whose name begins so.
    fn grant_of(&self, name: &str) -> Outcome<GrantId> {
        let is_short = name.len() < DIGITS_MIN || !name.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_short {
            let text = format!(
                "'{name}' names no grant; give at least {DIGITS_MIN} of its digits, as `tuyen grant list` shows them"
            );
            return refuse(FailureKind::Usage, text);
        }
        let known = self.reader.grants()?;
        let names: BTreeSet<_> = known.into_iter().map(|(grant, ..)| grant.id).collect();
        let mut fitting = names.into_iter().filter(|id| id.to_string().starts_with(&name.to_lowercase()));
        match (fitting.next(), fitting.next()) {
            (Some(id), None) => Ok(id),
            (None, _) => refuse(
                FailureKind::Failed,
                format!("no grant {name} is known here; `tuyen grant list` shows those that are"),
            ),
            _ => refuse(
                FailureKind::Usage,
                format!("more than one grant begins with {name}; give more digits"),
            ),
        }
    }

    /// The grants that this node knows.
    pub fn grants(&self) -> Outcome<Grants> {
        let mut grants = Vec::new();
        for (grant, records, open) in self.reader.grants()? {
            let permission = self.permission(grant.id)?;
            // Under the name of a grant also stands what goes back to the patient's home.
            let is_back =
                permission.as_ref().map_or(grant.until == FOREVER, |known| known.grant.to != grant.to);
            if is_back {
                continue;
            }
            let places = self.engine.places();
            grants.push(GrantInfo {
                grant: grant.id.to_string(),
                successor: places.successor(&grant.to).cloned(),
                place: places.of(&grant.to).or(places.stands(&grant.to)).cloned(),
                to: grant.to,
                until: grant.until,
                records,
                open,
                ended: permission.as_ref().is_some_and(|known| known.ended),
                purpose: permission.as_ref().map(|known| known.purpose),
                giver: permission.as_ref().map(|known| known.giver.clone()),
                given_at: permission.as_ref().map(|known| known.given_at),
                patient: permission.map(|known| known.patient),
            });
        }
        Ok(Grants { grants })
    }

    /// Asks for the records of a patient in an emergency. Not of one whose records are here by right; what a grant has brought may
    /// be a part of them, or on its way out.
    pub fn look_up(&mut self, patient: RecordId, by: &Option<String>, why: &str) -> Outcome<LookedUp> {
        if patient.resource_type() != "Patient" {
            return refuse(FailureKind::Usage, format!("{patient} is no Patient; name the patient's record"));
        }
        let is_here = !self.store.rows_of(&patient)?.is_empty();
        let homes = self.store.homes(&patient)?;
        if is_here && (self.engine.is_root() || homes.iter().any(|home| self.is_within(home))) {
            let text = format!("{patient} is at this node already: `tuyen records get {patient}`");
            return refuse(FailureKind::Failed, text);
        }
        if self.engine.is_root() {
            return refuse(
                FailureKind::Failed,
                format!("{patient} is not at the centre, and nobody stands above it"),
            );
        }
        let asked = LookUp {
            grant: fresh_name(),
            patient,
            by: self.config.place.org().clone(),
            at: wall(),
            why: why.to_owned(),
        };
        let resource = asked.to_resource();
        let mut opened = self.open(&consent::look_up_record(asked.grant))?;
        let why = Some(why.to_owned());
        let change = opened.record.put(&resource, None, &self.author(by, &why)).map_err(usage)?;
        let mut pending = Pending::default();
        if let Some(change) = change {
            let with = With { resource: Some(&resource), lane: Some(Lane::Urgent), ..With::default() };
            self.queue(&mut pending, opened, change, with)?.map_err(failed)?;
        }
        self.write(pending)?;
        let is_linked = self.peers.values().any(|peer| peer.direction == Direction::Up);
        Ok(LookedUp { grant: asked.grant.to_string(), is_linked })
    }

    /// Answers the look-ups among what is about to be folded. Before it is: what a power cut prevents is answered after it.
    pub(super) fn answer_look_ups(&mut self, ops: &[Op]) -> Result<(), StoreError> {
        for op in ops {
            let Op::Project(projected) = op else { continue };
            if projected.record.resource_type() != "AuditEvent" {
                continue;
            }
            let Some(asked) = projected.resource.as_deref().and_then(LookUp::read) else { continue };
            if !self.is_to_answer(&projected.record, &asked)? {
                continue;
            }
            let permission = Permission {
                grant: Grant { id: asked.grant, to: asked.by.clone(), until: wall() + EMERGENCY_MILLIS },
                patient: asked.patient,
                purpose: Purpose::Emergency,
                giver: self.config.place.org().clone(),
                given_at: wall(),
                ended: false,
            };
            let by = Some(format!("look-up by {}", asked.by));
            match self.write_permission(&permission, &by, &asked.why) {
                Ok(()) => tracing::info!(by = %asked.by, "a look-up in an emergency was answered"),
                Err(Problem::Store(error)) => return Err(error),
                Err(Problem::Failure(failure)) => {
                    tracing::error!(problem = failure.text, "a look-up in an emergency was not answered");
                }
            }
        }
        Ok(())
    }

    /// Tells people of the look-ups in an emergency, among what is folded, and of their ends.
    pub(super) fn tell_of_look_ups(&mut self, ops: &[Op]) -> Result<(), StoreError> {
        for op in ops {
            let Op::Project(projected) = op else { continue };
            if projected.record.resource_type() != consent::TYPE {
                continue;
            }
            let Some(known) = projected.resource.as_deref().and_then(Permission::read) else { continue };
            self.tell_of_look_up(&known)?;
        }
        Ok(())
    }

    /// Tells again, at a start, of the look-ups in an emergency that are open.
    pub(super) fn tell_of_open_look_ups(&mut self) -> Result<(), StoreError> {
        for (grant, _, open) in self.reader.grants()? {
            if open > 0
                && grant.until > wall()
                && let Some(known) = self.permission(grant.id)?
            {
                self.tell_of_look_up(&known)?;
            }
        }
        Ok(())
    }

    /// Tells people that a patient of this node was opened in an emergency, until that has ended.
    fn tell_of_look_up(&mut self, known: &Permission) -> Result<(), StoreError> {
        let Permission { grant, purpose, ended, patient, .. } = known;
        let about = About::Emergency(grant.clone());
        let is_open = *purpose == Purpose::Emergency && !ended && grant.until > wall();
        if !is_open {
            self.alerts.end(&about);
        } else if self.is_home(&self.store.homes(patient)?) {
            let text = format!(
                "{} has asked for the records of one of your patients in an emergency, and has them for three days. \
                 `tuyen grant list` says whose, and `tuyen records history Consent/{}` why; `tuyen grant end` ends it",
                grant.to, grant.id
            );
            self.alert_about(Some(about), "emergency", text);
        }
        Ok(())
    }

    /// Whether this node answers a look-up: it holds the patient's record, and is the nearest that stands above both the home
    /// of that and whoever asks.
    fn is_to_answer(&self, record: &RecordId, asked: &LookUp) -> Result<bool, StoreError> {
        let homes = self.store.homes(&asked.patient)?;
        let known = self.store.grants(&asked.patient)?;
        if known.iter().any(|granted| granted.grant.id == asked.grant)
            || self.store.secrecy(&asked.patient)? != Secrecy::None
            || !self.store.homes(record)?.contains(&asked.by)
            || *record != consent::look_up_record(asked.grant)
        {
            return Ok(false);
        }
        let (own, places) = (&self.config.place, self.engine.places());
        let towards = |org: &OrgId| {
            let place = places.of(org).filter(|place| place.is_within(own))?;
            Some(place.org_at(own.depth()).cloned())
        };
        let home = homes.iter().find_map(towards);
        Ok(home.zip(towards(&asked.by)).is_some_and(|(home, by)| home != by))
    }
}

/// The steps after which a record with its own grants is open to whom its patient is.
fn following(own: &[Granted], patients: &[Granted]) -> Vec<Step> {
    let step = |granted: &Granted| {
        let (grant, known) = (granted.grant.clone(), own.iter().find(|known| known.grant == granted.grant));
        match (granted.over, known) {
            (None, None) if grant.until > wall() => Some(Step::Opens(grant)),
            (Some(row), Some(known)) if row > 0 && known.over.is_none() => Some(Step::Ends(grant)),
            _ => None,
        }
    };
    patients.iter().filter_map(step).collect()
}

fn fresh_name() -> GrantId {
    let mut name = [0; 16];
    getrandom::fill(&mut name).expect("a system that made this node's keys has randomness");
    GrantId(name)
}

fn failed(problem: String) -> Problem {
    crate::admin::Failure::new(FailureKind::Failed, problem).into()
}
