//! Requests about records: writing, reading, history.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, value::RawValue};
use sync_core::{
    change::Entry,
    engine::Event,
    feed::Seq,
    fold::Opened,
    id::{Lane, OrgId, RecordId, Secrecy},
    identity::Role,
    record::{self, Author, HistoryItem, NewChange, RecordError},
    scope::{
        compartment,
        grant::{GRANTS_MAX, Step, opened},
        label,
    },
    store::{Frontier, Op, Store, StoreError},
};

use super::{
    SOFTWARE,
    attachments::Brought,
    core::{Core, Outcome, Problem, refuse},
    wall,
};
use crate::{
    admin::{
        Failure, FailureKind, History, HistoryLine, ListedRecord, Listing, Page, RejectedRecord, Resource,
        Written, WrittenRecord,
    },
    clock,
    fhir::{import, types::is_type},
};

/// Most records of one page.
const PAGE_MAX: u32 = 1_000;
/// A page ends when its resources have so many bytes, however few they are.
const PAGE_MAX_BYTES: usize = 4 << 20;

/// Local writes that become durable together.
#[derive(Default)]
pub(super) struct Pending {
    /// The records, and the home that each has got.
    homes: BTreeMap<RecordId, OrgId>,
    entries: Vec<Entry>,
    projection: Vec<Op>,
}

impl Pending {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
}

/// What goes with a change.
#[derive(Default)]
pub(super) struct With<'a> {
    /// The whole resource that was written, where there is one.
    pub resource: Option<&'a Value>,
    /// What it opens or ends beside what follows from whom it is about.
    pub steps: Vec<Step>,
    /// The lane of a new record, where it is not that of its type.
    pub lane: Option<Lane>,
    /// The attachments that it brings.
    pub brought: Brought,
    /// People have written it, so the policies of this node speak of it.
    pub by_people: bool,
}

impl Core {
    /// Writes resources. A bad one is named in the answer and stops no other.
    pub fn put(
        &mut self,
        resources: Vec<Box<RawValue>>,
        base: Option<String>,
        by: Option<String>,
        why: Option<String>,
    ) -> Outcome<Written> {
        if base.is_some() && resources.len() != 1 {
            return refuse(
                FailureKind::Usage,
                "a base version belongs to one resource; write them one by one",
            );
        }
        let mut answer = Written::default();
        let mut pending = Pending::default();
        for (index, resource) in (0..).zip(resources) {
            let mut rejected = |record: Option<&RecordId>, problem: String| {
                answer.rejected.push(RejectedRecord {
                    index,
                    record: record.map(ToString::to_string),
                    problem,
                });
            };
            let (id, mut parsed) = match import::resource(resource.get().as_bytes()) {
                Ok(found) => found,
                Err(problem) => {
                    rejected(None, format!("{problem}; {}", problem.what_to_do()));
                    continue;
                }
            };
            let Some(id) = id else {
                rejected(
                    None,
                    "it has no id; give it one of 1 to 128 of A-Z, a-z, 0-9, '-' and '.'".to_owned(),
                );
                continue;
            };
            // What has come from elsewhere may be of a later version of FHIR, and is edited like any other.
            if !is_type(id.resource_type()) && self.store.rows_of(&id)?.is_empty() {
                rejected(
                    Some(&id),
                    "FHIR R4 has no resource type of this name; correct the resourceType, such as \"Patient\", and write it again"
                        .to_owned(),
                );
                continue;
            }
            if pending.homes.contains_key(&id) {
                self.write(std::mem::take(&mut pending))?;
            }
            let brought = match self.take_out(&id, &mut parsed)? {
                Ok(brought) => brought,
                Err(problem) => {
                    rejected(Some(&id), problem);
                    continue;
                }
            };
            let mut opened = self.open(&id)?;
            let change = match base.as_deref().map(|base| opened.record.at_version(base)).transpose() {
                Ok(base) => opened.record.put(&parsed, base.as_deref(), &self.author(&by, &why)),
                Err(error) => Err(error),
            };
            match change {
                Ok(None) => answer.unchanged += 1,
                Ok(Some(_)) if self.is_of_a_grant(&id)? => rejected(Some(&id), of_a_grant(&id)),
                Ok(Some(change)) => {
                    let with = With { resource: Some(&parsed), brought, by_people: true, ..With::default() };
                    match self.queue(&mut pending, opened, change, with)? {
                        Ok(written) => answer.written.push(written),
                        Err(problem) => rejected(Some(&id), problem),
                    }
                }
                Err(error) => rejected(Some(&id), error.to_string()),
            }
        }
        self.write(pending)?;
        Ok(answer)
    }

    /// Deletes a record.
    pub fn delete(
        &mut self,
        id: RecordId,
        base: Option<String>,
        by: Option<String>,
        why: Option<String>,
    ) -> Outcome<Written> {
        let mut opened = self.known(&id)?;
        if self.is_of_a_grant(&id)? {
            return refuse(FailureKind::Failed, of_a_grant(&id));
        }
        let base = base.as_deref().map(|base| opened.record.at_version(base)).transpose().map_err(usage)?;
        let change = opened.record.delete(base.as_deref(), &self.author(&by, &why)).map_err(usage)?;
        self.write_one(opened, change)
    }

    pub fn author<'a>(&self, by: &'a Option<String>, why: &'a Option<String>) -> Author<'a> {
        Author {
            incarnation: self.engine.incarnation(),
            wall: wall(),
            by: by.as_deref(),
            software: SOFTWARE,
            why: why.as_deref(),
        }
    }

    /// A record that this node has.
    pub fn known(&self, id: &RecordId) -> Outcome<Opened> {
        if self.store.rows_of(id)?.is_empty() {
            let text = format!("{id} is not at this node; `tuyen records list` shows what is");
            return refuse(FailureKind::Failed, text);
        }
        Ok(self.open(id)?)
    }

    /// A record that may be written.
    pub fn open(&self, id: &RecordId) -> Result<Opened, StoreError> {
        let mut opened = Opened::load(&self.store, id)?;
        opened.is_written_by(self.engine.incarnation());
        Ok(opened)
    }

    pub fn write_one(&mut self, opened: Opened, change: Option<NewChange>) -> Outcome<Written> {
        let mut answer = Written::default();
        let Some(change) = change else {
            answer.unchanged = 1;
            return Ok(answer);
        };
        let mut pending = Pending::default();
        match self.queue(&mut pending, opened, change, With::default())? {
            Ok(written) => answer.written.push(written),
            Err(problem) => return refuse(FailureKind::Failed, problem),
        }
        self.write(pending)?;
        Ok(answer)
    }

    /// Makes the entry of a change. The inner error is the change's own.
    pub fn queue(
        &self,
        pending: &mut Pending,
        opened: Opened,
        change: NewChange,
        with: With<'_>,
    ) -> Result<Result<WrittenRecord, String>, StoreError> {
        let With { resource, mut steps, lane, brought, by_people } = with;
        let id = opened.record.id().clone();
        let patients = resource.map(compartment::patients).unwrap_or_default();
        let managers = resource.map(compartment::managers).unwrap_or_default();
        let homes = self.homes(&id, &pending.homes)?;
        let about = if homes.is_empty() { self.about(&id, &patients, &pending.homes)? } else { Vec::new() };
        let home = match self.home_of(&id, homes, &about, managers)? {
            Ok(home) => home,
            Err(problem) => return Ok(Err(problem)),
        };
        let not_here = about.into_iter().filter(|(_, homes)| by_people && homes.is_empty());
        let patients_not_here = not_here.map(|(patient, _)| patient).collect();
        let lane = self.lane_of(&id, lane)?;
        let degree = match resource.map_or(Ok(Secrecy::None), label::secrecy) {
            Ok(degree) if by_people => degree.max(self.config.least_secrecy(&id, &patients)),
            Ok(degree) => degree,
            Err(error) => return Ok(Err(error.to_string())),
        };
        if degree == Secrecy::None {
            let more = self.steps_for(&id, &home, &patients)?;
            steps.extend(more.into_iter().filter(|step| !steps.contains(step)).collect::<Vec<_>>());
            // What is beyond is opened behind.
            steps.truncate(GRANTS_MAX);
        }
        let entry = match Entry::new(id.clone(), home.clone(), lane, Arc::from(change.bytes)) {
            Ok(entry) => entry.with_attachments(&brought.named).with_secrecy(degree).with_grants(&steps),
            Err(error) => {
                return Ok(Err(format!(
                    "{error}; keep large files apart, as attachments or with a URL, or write in smaller steps"
                )));
            }
        };
        let projected = opened.project(1);
        let written = WrittenRecord {
            record: id.clone(),
            version: projected.version.clone(),
            superseded: change.superseded,
            patients_not_here,
        };
        pending.homes.insert(id, home);
        pending.entries.push(entry);
        pending.projection.push(Op::Project(projected));
        pending.projection.extend(brought.ops);
        Ok(Ok(written))
    }

    /// Where a record stands, or is about to.
    fn homes(&self, id: &RecordId, pending: &BTreeMap<RecordId, OrgId>) -> Result<Vec<OrgId>, StoreError> {
        let mut homes = self.store.homes(id)?;
        if let Some(home) = pending.get(id)
            && !homes.contains(home)
        {
            homes.push(home.clone());
        }
        Ok(homes)
    }

    /// The patients whom a record is about, and where each stands; nowhere if it is not here. A patient is about nobody else.
    fn about(
        &self,
        id: &RecordId,
        patients: &[RecordId],
        pending: &BTreeMap<RecordId, OrgId>,
    ) -> Result<Vec<(RecordId, Vec<OrgId>)>, StoreError> {
        let others = patients.iter().filter(|patient| *patient != id);
        others.map(|patient| Ok((patient.clone(), self.homes(patient, pending)?))).collect()
    }

    /// The home that a change names. A record keeps its home; what is issued has its issuer for one. A new record gets that
    /// of the patient whom it is about, so that it goes to the patient's clinic wherever it was written, then that of the organization
    /// that manages it, if it stands here or below, and otherwise this node's. What is only open here is not changed here.
    /// The inner error is for who writes.
    fn home_of(
        &self,
        id: &RecordId,
        homes: Vec<OrgId>,
        about: &[(RecordId, Vec<OrgId>)],
        managers: Vec<OrgId>,
    ) -> Result<Result<OrgId, String>, StoreError> {
        let is_within = |home: &OrgId| self.is_within(home);
        if let Some(issuer) = id.issuer() {
            let elsewhere = || {
                format!(
                    "{id} is issued by {issuer} and can be changed there or above alone; ask them, or write a record of your own"
                )
            };
            return Ok(if is_within(&issuer) { Ok(issuer) } else { Err(elsewhere()) });
        }
        let first = homes.first().cloned();
        if let Some(home) = homes.into_iter().find(is_within) {
            return Ok(Ok(home));
        }
        if let Some(home) = &first
            && opened(&self.store.grants(id)?).any(is_within)
        {
            return Ok(Err(format!(
                "{id} belongs to {home} and is open here to be read; write a record of your own about the patient, \
                 which {home} gets as well"
            )));
        }
        let managers = managers.into_iter().filter(|_| first.is_none());
        let of_patients = about.iter().flat_map(|(_, homes)| homes).cloned();
        let found = of_patients.chain(managers).find(is_within);
        Ok(Ok(found.unwrap_or_else(|| self.config.place.org().clone())))
    }

    /// A record keeps its lane; a new one gets this, or that of its type.
    fn lane_of(&self, id: &RecordId, new: Option<Lane>) -> Result<Lane, StoreError> {
        let first = self.store.rows_of(id)?.first().copied();
        let first = first.map(|row| self.store.entry(row)).transpose()?.flatten();
        let of_type = || new.unwrap_or_else(|| Lane::of_resource_type(id.resource_type()));
        Ok(first.map_or_else(of_type, |entry| entry.lane()))
    }

    /// Makes writes durable; returns only when they are.
    pub fn write(&mut self, pending: Pending) -> Result<(), StoreError> {
        if pending.entries.is_empty() {
            return Ok(());
        }
        // Whatever is under way becomes durable first, so that this write is in the next commit, alone or not.
        self.let_out()?;
        let ticket = self.next_ticket();
        let Pending { entries, projection, .. } = pending;
        self.engine.handle(Event::Write { ticket, entries, projection }, &self.store, clock::now())?;
        let written = self.let_out()?;
        assert!(written.contains(&ticket), "a commit on this thread is durable when it returns");
        Ok(())
    }

    /// A record as it is shown.
    pub fn get(&self, id: &RecordId) -> Outcome<Resource> {
        let opened = self.known(id)?;
        let projected = opened.project(0);
        let Some(resource) = projected.resource else {
            let text = if opened.record.is_deleted() {
                format!("{id} was deleted; `tuyen records history {id}` says when and by whom")
            } else {
                format!(
                    "nothing of {id} can be read: its first entries have not arrived, or are damaged; sync, or see \
                     `tuyen verify`, and try again"
                )
            };
            return refuse(FailureKind::Failed, text);
        };
        let resource = RawValue::from_string(resource).expect("a folded resource is JSON");
        Ok(Resource {
            record: id.clone(),
            version: projected.version,
            resource,
            conflicts: projected.open_conflicts,
        })
    }

    /// A page of records, by name.
    pub fn list(
        &self,
        resource_type: Option<&str>,
        unread: bool,
        after: Option<&RecordId>,
        limit: u32,
    ) -> Outcome<Listing> {
        if let Some(name) = resource_type.filter(|name| !is_type(name))
            && self.reader.list(Some(name), None, 1)?.is_empty()
        {
            let text = format!(
                "FHIR R4 has no resource type '{name}', and no record of such a type is here; correct it, such as to Patient"
            );
            return refuse(FailureKind::Usage, text);
        }
        let limit = limit.min(PAGE_MAX) as usize;
        let (mut listed, mut more) = if unread {
            let listed = self.reader.unread(after, limit + 1)?;
            let more = listed.len() > limit;
            (listed, more)
        } else {
            self.reader.page(resource_type, after, limit + 1, PAGE_MAX_BYTES)?
        };
        if listed.len() <= limit && more {
            let last = listed.last().map(|last| &last.record);
            more = !self.reader.list(resource_type, last, 1)?.is_empty();
        }
        listed.truncate(limit);
        let mut records = Vec::new();
        for one in listed {
            let newest = self.store.rows_of(&one.record)?.last().copied();
            records.push(ListedRecord {
                homes: self.store.homes(&one.record)?,
                safe: newest.map_or(Ok("local"), |seq| self.safety(&one.record, seq))?.to_owned(),
                deleted: one.is_deleted(),
                record: one.record,
                version: one.version,
                conflicts: one.open_conflicts,
            });
        }
        Ok(Listing { records, more })
    }

    /// A page of resources, by name.
    pub fn export(&self, after: Option<&RecordId>, limit: u32) -> Outcome<Page> {
        let (listed, _) = self.reader.page(None, after, limit.min(PAGE_MAX) as usize, PAGE_MAX_BYTES)?;
        let next = listed.last().map(|last| last.record.clone());
        let mut page = Page { resources: Vec::new(), secret: 0, next };
        for one in listed {
            let Some(text) = one.resource else { continue };
            let degree = self.store.secrecy(&one.record)?;
            let text = match degree {
                Secrecy::None => text,
                // Whoever imports it elsewhere is to know, also if the mark is a policy's or was taken off again.
                _ => marked(text, degree),
            };
            page.resources.push(RawValue::from_string(text).expect("a folded resource is JSON"));
            page.secret += u64::from(degree > Secrecy::None);
        }
        Ok(page)
    }

    /// Who did what to a record, when and why.
    pub fn history(&self, id: &RecordId) -> Outcome<History> {
        let opened = self.known(id)?;
        let rows = self.reader.record_rows(id)?;
        let mut changes = Vec::new();
        for item in opened.record.history() {
            let row = rows.iter().find(|row| row.change == item.change);
            changes.push(self.history_line(id, item, row.map(|row| row.seq), None)?);
        }
        for row in &rows {
            let problem = match &row.unreadable {
                Some(reason) => reason.clone(),
                None if row.waiting => "it waits for earlier changes, which have not arrived".to_owned(),
                None => continue,
            };
            let Some(entry) = self.store.entry(row.seq)? else { continue };
            let item = record::read_change(id, entry.change()).unwrap_or_else(|| HistoryItem {
                change: row.change,
                incarnation: row.origin,
                stamp: entry.stamp(),
                by: None,
                software: None,
                why: None,
                paths: Vec::new(),
            });
            changes.push(self.history_line(id, item, Some(row.seq), Some(problem))?);
        }
        Ok(History { record: id.clone(), changes })
    }

    fn history_line(
        &self,
        id: &RecordId,
        item: HistoryItem,
        row: Option<Seq>,
        problem: Option<String>,
    ) -> Result<HistoryLine, StoreError> {
        let author = self.store.announcement(item.incarnation)?.map(|(_, info)| info);
        Ok(HistoryLine {
            change: item.change,
            at: item.stamp.0,
            run: item.incarnation,
            node: author.as_ref().map(|info| info.node),
            place: author.map(|info| info.place),
            by: item.by,
            software: item.software,
            why: item.why,
            paths: item.paths,
            safe: row.map_or(Ok("local"), |row| self.safety(id, row))?.to_owned(),
            problem,
        })
    }

    /// How safe a row is: `damaged` (what stands here cannot be read, and what was said of it before does not count), `secret`
    /// (goes as far as profiles allow, and nobody tells how far that was), `marked_later` (the same since its record was marked: what
    /// had left before is where it went), `local`, `hub` (durable at the parent) or `root`. What
    /// came down is durable where it came from, and what the root wrote is durable there.
    fn safety(&self, id: &RecordId, seq: Seq) -> Result<&'static str, StoreError> {
        let Some(entry) = self.store.entry(seq)? else { return Ok("damaged") };
        let lane = self.lane_of(id, None)?;
        let head = self.store.heads(lane, seq - 1, 1)?.into_iter().find(|head| head.seq == seq);
        if head.as_ref().is_some_and(|head| head.secrecy != Secrecy::None) {
            return Ok(if entry.secrecy() == Secrecy::None { "marked_later" } else { "secret" });
        }
        if self.engine.is_root() {
            return Ok("root");
        }
        let from =
            head.and_then(|head| head.src).map(|src| self.store.announcement(src.segment)).transpose()?;
        let from = from.flatten().map(|(_, info)| info);
        let is_above = |info: &sync_core::identity::NodeInfo| {
            !self.engine.places().has_stood_within(info.place.org(), self.config.place.org())
        };
        if let Some(above) = from.filter(is_above) {
            return Ok(if above.role == Role::Root { "root" } else { "hub" });
        }
        let reached = |which| seq <= self.engine.frontier(which, lane);
        Ok(match () {
            () if reached(Frontier::Root) => "root",
            () if reached(Frontier::Hub) => "hub",
            () => "local",
        })
    }
}

/// A resource that says itself how secret it is.
fn marked(text: String, degree: Secrecy) -> String {
    let mut resource: Value = serde_json::from_str(&text).expect("a folded resource is JSON");
    label::mark(&mut resource, degree);
    resource.to_string()
}

fn of_a_grant(id: &RecordId) -> String {
    format!(
        "{id} is the record of a grant, and what is open does not change with its text: end it with `tuyen grant end {}`, and \
         give another with `tuyen grant give`",
        id.id()
    )
}

/// An error of a record that is the caller's to mend.
pub(super) fn usage(error: RecordError) -> Problem {
    Failure::new(FailureKind::Failed, error.to_string()).into()
}
