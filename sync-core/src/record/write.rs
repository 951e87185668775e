//! Writing a record: a whole resource, a deletion, the resolution of a conflict. Each becomes one change.
//!
//! A write is compared with the version that its writer had read. When the record has moved on, the change is
//! made at that older version and so is concurrent with what came since: nothing is overwritten unseen. Such a
//! change needs an actor of its own, because one actor's changes follow one another: the incarnation and a number. So does
//! one of a run of which changes are set aside, whose names must not be used again.

use std::num::NonZeroU64;

use automerge::{
    ActorId, Change, ExpandedChange, PatchLog, ROOT, ReadDoc, ScalarValue,
    legacy::{Key, ObjectId, Op, OpType, SortedVec},
    transaction::{CommitOptions, Transactable},
};
use serde_json::Map;

use super::{
    Json, Record, RecordError,
    backbone::Place,
    choice,
    diff::{Write, Writer},
    from_engine, isolated,
    key::{self, STATE},
    message::Message,
    natural::Mint,
    payload::Form,
    shape::{self, Field, Statement, Want},
    to_engine,
    view::{Slot, Source, incarnation},
};
use crate::{
    id::{ChangeHash, Incarnation},
    time::Stamp,
};

/// Who writes, when and why.
#[derive(Debug, Clone, Copy)]
pub struct Author<'a> {
    /// The running process.
    pub incarnation: Incarnation,
    /// Its clock, in milliseconds since 1970-01-01T00:00Z.
    pub wall: i64,
    /// The person.
    pub by: Option<&'a str>,
    /// The software, with its version.
    pub software: &'a str,
    /// The reason.
    pub why: Option<&'a str>,
}

/// A change that was made and is in the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewChange {
    /// Its hash.
    pub hash: ChangeHash,
    /// The raw, uncompressed chunk.
    pub bytes: Vec<u8>,
    /// Keys of registers in conflict, for review, over which this change wrote another value.
    pub superseded: Vec<String>,
}

/// The answer to a conflict. Its value is clinical: `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub enum Choice {
    /// One of the conflict's values, counted from 1.
    Take(usize),
    /// Another value: of the whole element (or of the whole resource, for `#state`).
    Value(Json),
    /// The element is deleted.
    Delete,
}

impl std::fmt::Debug for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Choice::Take(n) => write!(f, "Take({n})"),
            Choice::Value(_) => f.write_str("Value"),
            Choice::Delete => f.write_str("Delete"),
        }
    }
}

/// Where a change is put.
struct Base {
    heads: Vec<automerge::ChangeHash>,
    /// Whether the record has moved on since.
    stale: bool,
}

impl Record {
    fn base(&self, base: Option<&[ChangeHash]>) -> Result<Base, RecordError> {
        let current = self.doc.get_heads();
        let Some(base) = base else { return Ok(Base { heads: current, stale: false }) };
        if !self.missing(base).is_empty() {
            return Err(RecordError::UnknownVersion(self.id.clone()));
        }
        let heads: Vec<_> = base.iter().map(to_engine).collect();
        let stale = !current.iter().all(|head| heads.contains(head));
        Ok(Base { heads: if stale { heads } else { current }, stale })
    }

    fn own_changes(&self, who: Incarnation) -> u64 {
        let in_record =
            self.doc.get_changes_meta(&[]).into_iter().filter(|meta| incarnation(&meta.actor) == who);
        in_record.count() as u64 + self.set_aside.get(&who).copied().unwrap_or_default()
    }

    fn mint(&self, author: &Author<'_>) -> Mint {
        Mint { incarnation: author.incarnation, own_changes: self.own_changes(author.incarnation) }
    }

    fn members<'j>(&self, resource: &'j Json) -> Result<&'j Map<String, Json>, RecordError> {
        let map = resource.as_object().filter(|_| shape::fits(resource)).ok_or(RecordError::BadResource)?;
        let agrees = |name: &str, value: &str| map.get(name).is_none_or(|j| j.as_str() == Some(value));
        if agrees("resourceType", self.id.resource_type()) && agrees("id", self.id.id()) {
            Ok(map)
        } else {
            Err(RecordError::WrongRecord(self.id.clone()))
        }
    }

    /// Makes the record say this resource, which its writer made from the version `base` (the present one, if
    /// none is given). `None` when that changes nothing.
    pub fn put(
        &mut self,
        resource: &Json,
        base: Option<&[ChangeHash]>,
        author: &Author<'_>,
    ) -> Result<Option<NewChange>, RecordError> {
        let fields = shape::resource(self.members(resource)?, Place::resource(self.id.resource_type()));
        self.write(base, author, |writer, root| {
            writer.resource(root, &fields, root.values.is_empty() && root.fields.is_empty());
        })
    }

    /// Deletes the record as it was at `base`. `None` when it is not there.
    pub fn delete(
        &mut self,
        base: Option<&[ChangeHash]>,
        author: &Author<'_>,
    ) -> Result<Option<NewChange>, RecordError> {
        self.write(base, author, |writer, root| {
            writer.remove(root);
        })
    }

    /// A change that writes nothing, for what the header of its entry says. What the record shows, and its conflicts, stay as
    /// they are.
    pub fn touch(&mut self, author: &Author<'_>) -> Result<NewChange, RecordError> {
        let base = self.base(None)?;
        let (doc, hash) = isolated(&self.id, || {
            let mut doc = self.doc.clone();
            doc.set_actor(self.actor(&base, author.incarnation));
            let hash = doc.empty_commit(self.options(author));
            Ok((doc, hash))
        })?;
        self.keep(doc, &hash, Vec::new())
    }

    fn write(
        &mut self,
        base: Option<&[ChangeHash]>,
        author: &Author<'_>,
        work: impl FnOnce(&mut Writer<'_, '_>, &Slot<'_>),
    ) -> Result<Option<NewChange>, RecordError> {
        let base = self.base(base)?;
        let mint = self.mint(author);
        let (writes, superseded) = isolated(&self.id, || {
            let source = Source::Document(&self.doc, base.stale.then_some(base.heads.as_slice()));
            let root = source.tree();
            let mut writer = Writer::new(&self.id, &source, mint);
            work(&mut writer, &root);
            Ok((writer.writes, writer.superseded))
        })?;
        if writes.is_empty() {
            return Ok(None);
        }
        self.commit(&base, &writes, superseded, author).map(Some)
    }

    fn commit(
        &mut self,
        base: &Base,
        writes: &[Write],
        superseded: Vec<String>,
        author: &Author<'_>,
    ) -> Result<NewChange, RecordError> {
        let (doc, hash) = isolated(&self.id, || self.committed(base, writes, author))?;
        self.keep(doc, &hash, superseded)
    }

    fn keep(
        &mut self,
        doc: automerge::Automerge,
        hash: &automerge::ChangeHash,
        superseded: Vec<String>,
    ) -> Result<NewChange, RecordError> {
        let failed = || RecordError::Engine(self.id.clone());
        let bytes = doc.get_change_by_hash(hash).ok_or_else(failed)?.raw_bytes().to_vec();
        self.doc = doc;
        Ok(NewChange { hash: from_engine(hash), bytes, superseded })
    }

    fn options(&self, author: &Author<'_>) -> CommitOptions {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let message =
            Message { by: owned(author.by), sw: owned(Some(author.software)), why: owned(author.why) };
        CommitOptions::default()
            .with_time(Stamp::after(author.wall, self.latest()).0)
            .with_message(message.write())
    }

    fn committed(
        &self,
        base: &Base,
        writes: &[Write],
        author: &Author<'_>,
    ) -> Result<(automerge::Automerge, automerge::ChangeHash), RecordError> {
        let failed = || RecordError::Engine(self.id.clone());
        let options = self.options(author);
        if self.doc.is_empty() && self.set_aside.is_empty() {
            return self.genesis(writes, options, author.incarnation);
        }
        let mut doc = self.doc.clone();
        doc.set_actor(self.actor(base, author.incarnation));
        let mut transaction = if base.stale {
            doc.transaction_at(PatchLog::inactive(), &base.heads).map_err(|_| failed())?
        } else {
            doc.transaction()
        };
        for (key, text) in writes {
            let value = text.as_deref().map_or(ScalarValue::Null, ScalarValue::from);
            transaction.put(ROOT, key.as_str(), value).map_err(|_| failed())?;
        }
        let (hash, _) = transaction.commit_with(options);
        Ok((doc, hash.ok_or_else(failed)?))
    }

    /// The first change, made without a transaction: that takes half the time, and records are created by the
    /// hundred thousand.
    fn genesis(
        &self,
        writes: &[Write],
        options: CommitOptions,
        who: Incarnation,
    ) -> Result<(automerge::Automerge, automerge::ChangeHash), RecordError> {
        let put = |(key, text): &Write| Op {
            action: OpType::Put(text.as_deref().map_or(ScalarValue::Null, ScalarValue::from)),
            obj: ObjectId::Root,
            key: Key::Map(key.as_str().into()),
            pred: SortedVec::new(),
            insert: false,
        };
        let change = Change::from(ExpandedChange {
            operations: writes.iter().map(put).collect(),
            actor_id: ActorId::from(who.0),
            hash: None,
            seq: 1,
            start_op: NonZeroU64::MIN,
            time: options.time.unwrap_or_default(),
            message: options.message,
            deps: Vec::new(),
            extra_bytes: Vec::new(),
            author: None,
        });
        let hash = change.hash();
        Ok((self.applied(change)?, hash))
    }

    fn actor(&self, base: &Base, who: Incarnation) -> ActorId {
        let mut bytes = who.0.to_vec();
        if base.stale || self.set_aside.contains_key(&who) {
            let number = u32::try_from(self.own_changes(who)).unwrap_or(u32::MAX);
            bytes.extend(number.to_be_bytes());
        }
        ActorId::from(bytes)
    }

    /// Answers the conflict at `path`. The answer stands above every value that is known here; it ends no other
    /// conflict.
    pub fn resolve(
        &mut self,
        path: &str,
        choice: Choice,
        author: &Author<'_>,
    ) -> Result<NewChange, RecordError> {
        let none = || RecordError::NoConflict(self.id.clone());
        let conflict = self.conflicts().into_iter().find(|c| c.path == path).ok_or_else(none)?;
        let of_choice = conflict.values.iter().any(|arm| arm.form.is_some());
        let choice = match choice {
            Choice::Take(n) => {
                let arm =
                    n.checked_sub(1).and_then(|i| conflict.values.get(i)).ok_or(RecordError::BadChoice)?;
                if arm.value.is_some() { Choice::Take(n) } else { Choice::Delete }
            }
            Choice::Value(value) if of_choice => Choice::Value(form_and_value(path, value)?),
            Choice::Value(value) => Choice::Value(self.answer(path, value)?),
            Choice::Delete => Choice::Delete,
        };
        let resource_type = self.id.resource_type().to_owned();
        let change = self.write(None, author, |writer, root| {
            if of_choice {
                writer.answer_choice(root, path, &choice);
                // Whatever stood in its forms is a part of the question.
                writer.superseded.clear();
            } else {
                answer(writer, root, &resource_type, path, &choice);
            }
            writer.around(root, path);
            writer.superseded.retain(|key| key != path);
        })?;
        change.ok_or_else(|| RecordError::NoConflict(self.id.clone()))
    }

    /// Checks a value that somebody gives as the answer.
    fn answer(&self, path: &str, value: Json) -> Result<Json, RecordError> {
        if path == STATE {
            self.members(&value)?;
        }
        let is_item = path.ends_with(']');
        let wrong = value.is_null() || (is_item && value.is_array()) || !shape::fits(&value);
        if wrong { Err(RecordError::BadChoice) } else { Ok(value) }
    }
}

/// Checks that a value says which form of the choice element at `path` it is: an object with that one member.
fn form_and_value(path: &str, value: Json) -> Result<Json, RecordError> {
    let element = path.rsplit_once('.').map_or(path, |(_, element)| element);
    let base = element.strip_suffix("[x]").ok_or(RecordError::BadForm)?;
    let fields = value.as_object().filter(|_| shape::fits(&value)).map(shape::members);
    let is_one = fields.is_some_and(|fields| {
        let mut fields = fields.iter();
        let form = fields.next().filter(|(name, _)| choice::is_form(base, name)).map(|(_, field)| field);
        let said = match form {
            Some(Field::One(want)) => want.statement().json.or(want.statement().sibling),
            _ => None,
        };
        said.is_some_and(|json| !json.is_null()) && fields.next().is_none()
    });
    if is_one { Ok(value) } else { Err(RecordError::BadForm) }
}

/// Where the elements of `path` stand in the table of BackboneElements.
fn place(resource_type: &str, path: &str) -> (Option<Place>, usize) {
    (Place::at(resource_type, path), key::parse(path).unwrap_or_default().len())
}

fn answer(writer: &mut Writer<'_, '_>, root: &Slot<'_>, resource_type: &str, path: &str, choice: &Choice) {
    let steps = key::parse(path).unwrap_or_default();
    let parent = path.rsplit_once('.').map_or(STATE, |(parent, _)| parent);
    match steps.last() {
        Some(step) if step.item.is_none() => {
            if let Some(registers) = root.find(parent).and_then(|slot| slot.fields.get(&step.name)) {
                writer.answer_element((&step.name, path), registers, place(resource_type, path), choice);
            }
        }
        _ => {
            if let Some(slot) = root.find(path) {
                writer.answer_register(slot, place(resource_type, path), choice);
            }
        }
    }
}

impl Writer<'_, '_> {
    /// Answers a conflict of an item, or of the record.
    fn answer_register(&mut self, slot: &Slot<'_>, (place, depth): (Option<Place>, usize), choice: &Choice) {
        match choice {
            Choice::Take(n) => self.keep(slot, n - 1),
            Choice::Delete => self.drop(slot),
            Choice::Value(value) if slot.key == STATE => {
                if let (Some(map), Some(place)) = (value.as_object(), place) {
                    self.resource(slot, &shape::resource(map, place), false);
                    self.settle(slot);
                }
            }
            Choice::Value(value) => {
                let want = shape::want(Statement { json: Some(value), sibling: None }, place, depth);
                self.answer_value(slot, &want);
            }
        }
    }

    fn answer_value(&mut self, slot: &Slot<'_>, want: &Want<'_>) {
        let (order, shown) = self.place_of(slot);
        let wrote = self.register(slot, want, &order);
        match want {
            Want::Parts(..) => self.settle(slot),
            Want::Whole(_) if !wrote => self.keep(slot, shown),
            Want::Whole(_) => {}
        }
    }

    /// Answers a conflict of a choice element.
    fn answer_choice(&mut self, root: &Slot<'_>, path: &str, choice: &Choice) {
        let parent = path.rsplit_once('.').map_or(STATE, |(parent, _)| parent);
        let Some(slot) = root.find(parent) else { return };
        let disputes = choice::disputes(self.id, self.source, slot);
        let Some(dispute) = disputes.iter().find(|dispute| dispute.key == path) else { return };
        match choice {
            Choice::Take(n) => {
                let Some(answer) = dispute.answers.get(n - 1) else { return };
                let form = dispute.form(answer);
                self.drop_forms(dispute, |name| name == form.name);
                self.keep(form.slot, answer.nth);
            }
            Choice::Delete => self.drop_forms(dispute, |_| false),
            Choice::Value(value) => {
                let fields = value.as_object().map(shape::members).unwrap_or_default();
                self.drop_forms(dispute, |name| fields.contains_key(name));
                for (name, field) in &fields {
                    let Field::One(want) = field else { continue };
                    let new = Slot::new(key::child(slot.prefix(), name), Form::Single);
                    let registers = slot.fields.get(*name);
                    registers.iter().flat_map(|registers| registers.items.values()).for_each(|item| {
                        self.remove(item);
                    });
                    self.answer_value(registers.and_then(|r| r.single.as_ref()).unwrap_or(&new), want);
                }
            }
        }
    }

    /// Answers a conflict of an element that does not repeat, or that is there both whole and as items.
    fn answer_element(
        &mut self,
        at: (&str, &str),
        registers: &super::view::Registers<'_>,
        (place, depth): (Option<Place>, usize),
        choice: &Choice,
    ) {
        let answers = registers.single.as_ref().map_or(0, |slot| self.answers(slot));
        match (choice, &registers.single) {
            (Choice::Delete, _) => {
                self.clear(registers);
            }
            (Choice::Take(n), Some(slot)) if *n <= answers => {
                registers.items.values().for_each(|item| {
                    self.remove(item);
                });
                self.keep(slot, n - 1);
            }
            (Choice::Take(_), single) => {
                if let Some(slot) = single {
                    self.remove(slot);
                }
                registers.items.values().for_each(|item| self.affirm(item));
            }
            (Choice::Value(value), single) => {
                let want = shape::field(Statement { json: Some(value), sibling: None }, place, depth);
                if let (shape::Field::One(want), Some(slot)) = (&want, single) {
                    registers.items.values().for_each(|item| {
                        self.remove(item);
                    });
                    return self.answer_value(slot, want);
                }
                self.field(at, registers, &want, false);
                registers.items.values().for_each(|item| self.affirm(item));
            }
        }
    }
}

/// Only for tests and measurements: what the record's registers hold.
#[cfg(test)]
pub(super) fn dump(record: &Record) -> Vec<(String, Vec<Option<String>>)> {
    let mut out = Vec::new();
    for key in record.doc.keys(ROOT) {
        let values = record.doc.get_all(ROOT, key.as_str()).unwrap();
        let text = |v: automerge::Value<'_>| v.as_str().map(str::to_owned);
        out.push((key, values.into_iter().map(|(v, _)| text(v)).collect()));
    }
    out
}
