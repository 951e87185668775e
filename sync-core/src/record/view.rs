//! A record's registers at one point of its history, read into a tree, and what each register says there.
//!
//! The tree borrows the document. Values that this version cannot read are kept as text, so that a write never
//! equals one of them, and say nothing. Which values are concurrent is automerge's business; which of them differ,
//! which one is shown and which deletions are open is decided here and nowhere else.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use automerge::{Automerge, ROOT, ReadDoc, ScalarValue, Value as Scalar, ValueRef};
use serde_json::Value as Json;

use super::{
    key,
    message::Message,
    natural::canonical,
    payload::{Form, Payload},
};
use crate::{
    id::{ChangeHash, Incarnation},
    time::Stamp,
};

/// Who made a change, and when.
#[derive(Debug, Clone)]
pub(super) struct Maker {
    pub change: ChangeHash,
    pub incarnation: Incarnation,
    pub stamp: Stamp,
    pub by: Option<String>,
}

impl Maker {
    /// Orders statements: the greatest is the one that is shown (the latest; of several, the smallest hash).
    pub fn rank(&self) -> (Stamp, std::cmp::Reverse<ChangeHash>) {
        (self.stamp, std::cmp::Reverse(self.change))
    }
}

/// Where the registers come from.
pub(super) enum Source<'a> {
    /// A document, now or at these heads.
    Document(&'a Automerge, Option<&'a [automerge::ChangeHash]>),
    /// A single change that depends on nothing.
    Genesis(Maker),
}

/// The incarnation in an actor's first bytes; short actors, which Tuyến never makes, are padded.
pub(super) fn incarnation(actor: &automerge::ActorId) -> Incarnation {
    let mut bytes = [0; Incarnation::LEN];
    for (to, from) in bytes.iter_mut().zip(actor.to_bytes()) {
        *to = *from;
    }
    Incarnation(bytes)
}

impl Source<'_> {
    /// Who made this change; `None` when it is not here.
    pub fn maker(&self, change: &ChangeHash) -> Option<Maker> {
        match self {
            Source::Genesis(maker) => (maker.change == *change).then(|| maker.clone()),
            Source::Document(doc, _) => {
                let meta = doc.get_change_meta_by_hash(&automerge::ChangeHash(change.0))?;
                Some(Maker {
                    change: *change,
                    incarnation: incarnation(&meta.actor),
                    stamp: Stamp(meta.timestamp),
                    by: Message::read(meta.message.as_deref()).by,
                })
            }
        }
    }

    /// All changes that this one has seen, without itself.
    pub fn causes(&self, change: &ChangeHash) -> BTreeSet<ChangeHash> {
        let Source::Document(doc, _) = self else { return BTreeSet::new() };
        let (mut seen, mut next) = (BTreeSet::new(), vec![*change]);
        while let Some(change) = next.pop() {
            let meta = doc.get_change_meta_by_hash(&automerge::ChangeHash(change.0));
            let causes = meta.into_iter().flat_map(|meta| meta.deps).map(|dep| ChangeHash(dep.0));
            next.extend(causes.filter(|cause| seen.insert(*cause)));
        }
        seen
    }

    /// The values of a register, each with its change.
    fn values(&self, key: &str) -> Vec<(Option<String>, ChangeHash)> {
        let Source::Document(doc, heads) = self else { return Vec::new() };
        let all = match heads {
            Some(heads) => doc.get_all_at(ROOT, key, heads),
            None => doc.get_all(ROOT, key),
        };
        let value = |(value, op): (Scalar<'_>, automerge::ObjId)| {
            let change = ChangeHash(doc.hash_for_opid(&op)?.0);
            match value.as_scalar()? {
                ScalarValue::Str(text) => Some((Some(text.to_string()), change)),
                ScalarValue::Null => Some((None, change)),
                _ => None,
            }
        };
        all.unwrap_or_default().into_iter().filter_map(value).collect()
    }

    /// The change that wrote a register that has one value.
    pub fn writer(&self, slot: &Slot<'_>) -> Option<ChangeHash> {
        match self {
            Source::Genesis(maker) => Some(maker.change),
            Source::Document(..) => self.values(&slot.key).first().map(|(_, change)| *change),
        }
    }

    fn rows(&self) -> Vec<(Cow<'_, str>, Option<Cow<'_, str>>, bool)> {
        let Source::Document(doc, heads) = self else { return Vec::new() };
        let range = match heads {
            Some(heads) => doc.map_range_at(ROOT, .., heads),
            None => doc.map_range(ROOT, ..),
        };
        let mut rows = Vec::new();
        for item in range {
            let text = match item.value {
                ValueRef::Scalar(automerge::ScalarValueRef::Str(text)) => Some(text),
                ValueRef::Scalar(automerge::ScalarValueRef::Null) => None,
                _ if item.conflict => None,
                _ => continue,
            };
            rows.push((item.key, text, item.conflict));
        }
        rows
    }

    /// The whole tree.
    pub fn tree(&self) -> Slot<'_> {
        let mut root = Slot::new(key::STATE.to_owned(), Form::Record);
        for (key, text, conflict) in self.rows() {
            let values = if conflict {
                let value = |(text, change): (Option<String>, _)| Value {
                    text: text.map(Cow::Owned),
                    change: Some(change),
                };
                self.values(&key).into_iter().map(value).collect()
            } else {
                vec![Value { text, change: None }]
            };
            root.insert(&key, values);
        }
        root
    }
}

/// One value of a register.
#[derive(Debug)]
pub(super) struct Value<'a> {
    /// `None` is null.
    pub text: Option<Cow<'a, str>>,
    /// The change that wrote it, where it is known without asking.
    pub change: Option<ChangeHash>,
}

/// A register and, for an element that is taken apart, the registers of its elements.
#[derive(Debug)]
pub(super) struct Slot<'a> {
    pub key: String,
    pub form: Form,
    pub values: Vec<Value<'a>>,
    pub fields: BTreeMap<String, Registers<'a>>,
}

/// All registers of one element.
#[derive(Debug, Default)]
pub(super) struct Registers<'a> {
    /// The register that holds the element as one.
    pub single: Option<Slot<'a>>,
    /// The registers of its items.
    pub items: BTreeMap<String, Slot<'a>>,
}

impl<'a> Slot<'a> {
    pub fn new(key: String, form: Form) -> Self {
        Self { key, form, values: Vec::new(), fields: BTreeMap::new() }
    }

    /// The key that the keys of inner elements begin with.
    pub fn prefix(&self) -> &str {
        if self.form == Form::Record { "" } else { &self.key }
    }

    /// Puts a register in its place below this one, which is the record.
    pub fn insert(&mut self, key: &str, values: Vec<Value<'a>>) {
        let Some(steps) = key::parse(key) else { return };
        let mut slot = self;
        for step in steps {
            let field = key::child(slot.prefix(), &step.name);
            let registers = slot.fields.entry(step.name).or_default();
            slot = match step.item {
                None => registers.single.get_or_insert_with(|| Slot::new(field, Form::Single)),
                Some(id) => {
                    let key = key::item(&field, &id);
                    registers.items.entry(id).or_insert_with(|| Slot::new(key, Form::Item))
                }
            };
        }
        slot.values = values;
    }

    /// The slot with this key.
    pub fn find(&self, key: &str) -> Option<&Slot<'a>> {
        let mut slot = self;
        for step in key::parse(key)? {
            let registers = slot.fields.get(&step.name)?;
            slot = match step.item {
                None => registers.single.as_ref()?,
                Some(id) => registers.items.get(&id)?,
            };
        }
        Some(slot)
    }

    /// What the register says.
    pub fn judge(&self, source: &Source<'_>) -> Verdict<'_> {
        let read = |value: &'_ Value<'a>| value.change;
        let payloads: Vec<_> = self
            .values
            .iter()
            .filter_map(|v| Payload::read(v.text.as_deref(), self.form).map(|payload| (payload, read(v))))
            .collect();
        Verdict::new(payloads, |change| {
            let change = change.or_else(|| source.writer(self))?;
            source.maker(&change)
        })
        .with_carried(source)
    }
}

/// One distinct value of a register.
#[derive(Debug, Clone)]
pub(super) struct Live<'s> {
    pub payload: Payload<'s>,
    /// The change that wrote it, where it is known without asking.
    pub change: Option<ChangeHash>,
    /// Who made that change; known whenever there is anything else to compare with.
    pub maker: Option<Maker>,
}

/// What a register says: its distinct values and its open deletions.
#[derive(Debug, Default)]
pub(super) struct Verdict<'s> {
    /// Distinct values, the earliest first; the last one is shown.
    pub live: Vec<Live<'s>>,
    /// Deletions that stand against the values.
    pub deletions: Vec<Maker>,
    /// Deletions whose dispute is settled.
    pub settled: BTreeSet<ChangeHash>,
    /// Disputed deletions that the values carry along.
    carried: BTreeSet<ChangeHash>,
}

impl<'s> Verdict<'s> {
    fn new(
        payloads: Vec<(Payload<'s>, Option<ChangeHash>)>,
        maker: impl Fn(Option<ChangeHash>) -> Option<Maker>,
    ) -> Self {
        let mut verdict = Verdict::default();
        let alone = payloads.len() == 1;
        for (payload, change) in payloads {
            verdict.settled.extend(&payload.settled);
            verdict.carried.extend(&payload.disputed);
            let maker = if alone && payload.disputed.is_empty() { None } else { maker(change) };
            if payload.deleted {
                verdict.deletions.extend(maker);
            } else {
                verdict.add(Live { payload, change, maker });
            }
        }
        verdict.live.sort_by_key(|live| live.maker.as_ref().map(Maker::rank));
        verdict
    }

    /// Equal values are one; the one that counts is the latest.
    fn add(&mut self, new: Live<'s>) {
        let rank = |live: &Live<'_>| live.maker.as_ref().map(Maker::rank);
        match self.live.iter_mut().find(|old| says_the_same(&old.payload, &new.payload)) {
            Some(old) if rank(old) < rank(&new) => *old = new,
            Some(_) => {}
            None => self.live.push(new),
        }
    }

    fn with_carried(mut self, source: &Source<'_>) -> Self {
        if self.live.is_empty() {
            self.deletions.clear();
            return self;
        }
        self.deletions.extend(self.carried.iter().filter_map(|change| source.maker(change)));
        self.deletions.retain(|maker| !self.settled.contains(&maker.change));
        self.deletions.sort_by_key(Maker::rank);
        self.deletions.dedup_by_key(|maker| maker.change);
        self
    }

    /// The value that is shown; `None` when the element is deleted or was never there.
    pub fn shown(&self) -> Option<&Live<'s>> {
        self.live.last()
    }

    /// Whether there is more than one answer.
    pub fn is_disputed(&self) -> bool {
        self.live.len() > 1 || (!self.live.is_empty() && !self.deletions.is_empty())
    }
}

impl Live<'_> {
    /// Who wrote this value.
    pub fn maker(&self, slot: &Slot<'_>, source: &Source<'_>) -> Option<Maker> {
        let known = || source.maker(&self.change.or_else(|| source.writer(slot))?);
        self.maker.clone().or_else(known)
    }
}

/// Whether two values are equal, with their primitive extensions.
pub(super) fn says_the_same(a: &Payload<'_>, b: &Payload<'_>) -> bool {
    same_json(a.json, b.json) && same_json(a.sibling.unwrap_or_default(), b.sibling.unwrap_or_default())
}

/// Whether two JSON texts are the same value, with the same digits.
pub(super) fn same_json(a: &str, b: &str) -> bool {
    a == b || read_json(a).zip(read_json(b)).is_some_and(|(a, b)| canonical(&a) == canonical(&b))
}

/// A register's JSON text as a value.
pub(super) fn read_json(text: &str) -> Option<Json> {
    serde_json::from_str(text).ok()
}
