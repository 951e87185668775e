//! From a wanted resource to the registers that have to be written.
//!
//! Only what differs is written, and with it the presence of every element around it up to the record, so that an
//! edit meets a deletion made elsewhere. Deleting an element writes its presence alone: what it held stays in its
//! registers, hidden, and comes back whole if somebody was editing it meanwhile. A write that is not about a
//! disputed deletion carries the dispute along; only `settle` ends it.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::{
    choice::{self, Choice},
    key,
    matching::{Candidate, pair},
    natural::{Mint, canonical_statement, natural_key},
    order,
    payload::{Form, PRESENT, Payload, distinct},
    render::{Item, Renderer},
    shape::{Field, Fields, Statement, Want},
    view::{Registers, Slot, Source, Verdict, read_json, same_json},
};
use crate::{
    conflict::{Policies, Policy},
    id::RecordId,
};

/// One register's new text; `None` is null.
pub(super) type Write = (String, Option<String>);

/// What a write does to a disputed deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dispute {
    Carry,
    Settle,
}

/// Collects the registers to write.
pub(super) struct Writer<'s, 'a> {
    pub id: &'s RecordId,
    pub source: &'s Source<'a>,
    mint: Mint,
    pub writes: Vec<Write>,
    /// Keys of disputed registers that were written with another value.
    pub superseded: Vec<String>,
}

/// An item of the old list, rendered.
struct Old<'t, 'b> {
    item: Item<'t, 'b>,
    json: Option<Json>,
    sibling: Option<Json>,
}

impl<'s, 'a> Writer<'s, 'a> {
    pub fn new(id: &'s RecordId, source: &'s Source<'a>, mint: Mint) -> Self {
        Self { id, source, mint, writes: Vec::new(), superseded: Vec::new() }
    }

    fn renderer(&self) -> Renderer<'s, 'a> {
        Renderer::new(self.id, self.source, Policies::standard())
    }

    /// Makes the record say this.
    pub fn resource(&mut self, root: &Slot<'_>, fields: &Fields<'_>, fresh: bool) -> bool {
        let verdict = root.judge(self.source);
        let inside = self.fields(root, fields, fresh);
        let write = inside || verdict.shown().is_none();
        if write {
            self.presence(root, &verdict, "", Dispute::Carry);
        }
        write
    }

    fn push(&mut self, slot: &Slot<'_>, payload: &Payload<'_>) {
        let from: Vec<_> = slot.values.iter().map(|v| v.text.as_deref()).collect();
        self.writes.push((slot.key.clone(), distinct(payload.write(slot.form), &from)));
    }

    /// Notes that a dispute, if it is one for a person, ends with a write that is not a resolution.
    fn supersede(&mut self, slot: &Slot<'_>, verdict: &Verdict<'_>) {
        let policy = || Policies::standard().of(&key::fhir_path(self.id.resource_type(), &slot.key));
        let deletion = verdict.live.len() == 1 && verdict.live[0].payload.is_presence();
        if verdict.is_disputed() && (deletion || policy() == Policy::Review) {
            self.superseded.push(slot.key.clone());
        }
    }

    /// Says that an element with registers of its own is there.
    fn presence(&mut self, slot: &Slot<'_>, verdict: &Verdict<'_>, order: &str, dispute: Dispute) {
        let mut settled = verdict.settled.clone();
        let open = verdict.deletions.iter().map(|maker| maker.change);
        let mut disputed = BTreeSet::new();
        match dispute {
            Dispute::Carry => disputed.extend(open),
            Dispute::Settle => settled.extend(open),
        }
        let (disputed, settled) = (disputed.into_iter().collect(), settled.into_iter().collect());
        self.push(slot, &Payload { order, json: PRESENT, disputed, settled, ..Payload::default() });
    }

    /// Deletes an element, if it is there.
    pub fn remove(&mut self, slot: &Slot<'_>) -> bool {
        let verdict = slot.judge(self.source);
        if verdict.live.is_empty() {
            return false;
        }
        self.supersede(slot, &verdict);
        self.delete(slot, &verdict);
        true
    }

    fn delete(&mut self, slot: &Slot<'_>, verdict: &Verdict<'_>) {
        let settled = verdict.settled.iter().copied().collect();
        self.push(slot, &Payload { deleted: true, settled, ..Payload::default() });
    }

    fn fields(&mut self, base: &Slot<'_>, wanted: &Fields<'_>, fresh: bool) -> bool {
        let mut wrote = false;
        let choices = choice::disputes(self.id, self.source, base);
        let in_dispute = |name: &str| choices.iter().any(|choice| choice.has(name));
        for (name, registers) in &base.fields {
            if !wanted.contains_key(name.as_str()) && !in_dispute(name) {
                wrote |= self.clear(registers);
            }
        }
        for choice in &choices {
            wrote |= self.choice(choice, wanted, fresh);
        }
        for (name, field) in wanted.iter().filter(|(name, _)| !in_dispute(name)) {
            let none = Registers::default();
            let registers = base.fields.get(*name).unwrap_or(&none);
            wrote |= self.field((name, &key::child(base.prefix(), name)), registers, field, fresh);
        }
        wrote
    }

    /// Makes a choice element in dispute say this. To repeat what is shown of it says nothing.
    fn choice(&mut self, choice: &Choice<'_, '_>, wanted: &Fields<'_>, fresh: bool) -> bool {
        let shown = choice.form(choice.shown()).name;
        let mut said = wanted.keys().filter(|name| choice.allows(name));
        let only_shown = said.next() == Some(&shown) && said.next().is_none();
        let before = self.superseded.len();
        for form in &choice.forms {
            let Some(field) = wanted.get(form.name) else { continue };
            if !self.field((form.name, &form.slot.key), form.registers, field, fresh) {
                if only_shown {
                    return false;
                }
                self.keep(form.slot, self.answers(form.slot).saturating_sub(1));
            }
        }
        self.drop_forms(choice, |name| wanted.contains_key(name));
        self.superseded.truncate(before);
        if choice.policy(self.id, Policies::standard()) == Policy::Review {
            self.superseded.push(choice.key.clone());
        }
        true
    }

    /// Deletes the forms of a choice element that are there, without these.
    pub fn drop_forms(&mut self, choice: &Choice<'_, '_>, without: impl Fn(&str) -> bool) {
        for form in choice.forms.iter().filter(|form| !without(form.name)) {
            if self.answers(form.slot) > 0 {
                self.drop(form.slot);
            }
        }
    }

    /// Deletes an element in every shape.
    pub fn clear(&mut self, registers: &Registers<'_>) -> bool {
        let slots = registers.single.iter().chain(registers.items.values());
        slots.fold(false, |wrote, slot| self.remove(slot) | wrote)
    }

    /// Makes one element say this. `fresh` tells that the element around it is new as a whole.
    pub fn field(
        &mut self,
        (name, at): (&str, &str),
        base: &Registers<'_>,
        want: &Field<'_>,
        fresh: bool,
    ) -> bool {
        match want {
            Field::One(want) => {
                let items = base.items.values().fold(false, |wrote, slot| self.remove(slot) | wrote);
                let new = Slot::new(at.to_owned(), Form::Single);
                let slot = base.single.as_ref().unwrap_or(&new);
                self.register(slot, want, "") | items
            }
            Field::Many(wants) => {
                let single = base.single.as_ref().is_some_and(|slot| self.remove(slot));
                self.items((name, at), base, wants, fresh) | single
            }
        }
    }

    /// Makes one register, and those of its parts, say this.
    pub fn register(&mut self, slot: &Slot<'_>, want: &Want<'_>, order: &str) -> bool {
        let verdict = slot.judge(self.source);
        let shown = verdict.shown().map(|live| &live.payload);
        let in_place = shown.is_some_and(|payload| payload.order == order);
        let Want::Parts(_, fields) = want else {
            return self.whole(slot, &verdict, want, order);
        };
        let fresh = slot.values.is_empty() && slot.fields.is_empty();
        let inside = self.fields(slot, fields, fresh);
        let present = shown.is_some_and(Payload::is_presence);
        if inside || !present || !in_place {
            if verdict.live.len() > 1 || !present {
                self.supersede(slot, &verdict);
            }
            self.presence(slot, &verdict, order, Dispute::Carry);
            return true;
        }
        false
    }

    fn whole(&mut self, slot: &Slot<'_>, verdict: &Verdict<'_>, want: &Want<'_>, order: &str) -> bool {
        let (json, sibling) = want.text();
        let says = |payload: &Payload<'_>| {
            !payload.is_presence()
                && same_json(payload.json, &json)
                && same_json(payload.sibling.unwrap_or_default(), sibling.as_deref().unwrap_or_default())
        };
        let shown = verdict.shown().map(|live| &live.payload);
        if let Some(payload) = shown.filter(|payload| says(payload)) {
            // A new place alone is not worth ending a dispute over the value.
            if payload.order == order || verdict.is_disputed() {
                return false;
            }
        }
        self.supersede(slot, verdict);
        let settled = verdict.settled.iter().copied().collect();
        self.push(
            slot,
            &Payload { order, json: &json, sibling: sibling.as_deref(), settled, ..Payload::default() },
        );
        true
    }

    fn items(
        &mut self,
        (name, at): (&str, &str),
        base: &Registers<'_>,
        wants: &[Want<'_>],
        fresh: bool,
    ) -> bool {
        let old = self.old_items(base);
        let pairs = match_items(name, &old, wants);
        let mut wrote = false;
        for (i, old) in old.iter().enumerate() {
            if !pairs.contains(&Some(i)) {
                wrote |= self.remove(old.item.slot);
            }
        }
        let places: Vec<_> =
            pairs.iter().map(|pair| pair.map(|i| (i, old[i].item.live.payload.order))).collect();
        let orders = order::assign(&places);
        let mut used: BTreeSet<String> = old.iter().map(|old| old.item.id.to_owned()).collect();
        for (index, want) in wants.iter().enumerate() {
            let order = &orders[index];
            if let Some(i) = pairs[index] {
                wrote |= self.register(old[i].item.slot, want, order);
                continue;
            }
            let id = self.new_id((name, at), base, (index, want), &used, fresh);
            let new = Slot::new(key::item(at, &id), Form::Item);
            wrote |= self.register(base.items.get(&id).unwrap_or(&new), want, order);
            used.insert(id);
        }
        wrote
    }

    fn old_items<'t, 'b>(&self, base: &'t Registers<'b>) -> Vec<Old<'t, 'b>> {
        let mut renderer = self.renderer();
        let items = renderer.items(base);
        let read = |text: Option<String>| text.and_then(|t| read_json(&t));
        let old = items.into_iter().map(|(item, _)| {
            let (json, sibling) = renderer.register(item.slot, &item.live);
            Old { item, json: read(json), sibling: read(sibling) }
        });
        old.collect()
    }

    fn new_id(
        &self,
        (name, at): (&str, &str),
        base: &Registers<'_>,
        (index, want): (usize, &Want<'_>),
        used: &BTreeSet<String>,
        fresh: bool,
    ) -> String {
        let statement = want.statement();
        if let Some(natural) = natural_key(name, statement, matches!(want, Want::Parts(..))) {
            // A deleted item with this key is taken up again.
            return self.mint.natural(name, &natural, used);
        }
        let taken: BTreeSet<String> = base.items.keys().chain(used).cloned().collect();
        if fresh {
            return self.mint.content(name, &canonical_statement(statement), &taken);
        }
        self.mint.unique(at, index, &taken)
    }

    /// Writes the presence of every element around `at`, and of the record, without ending any dispute.
    pub fn around(&mut self, root: &Slot<'_>, at: &str) {
        let steps = key::parse(at).unwrap_or_default();
        let mut slot = root;
        let mut around = Vec::new();
        for step in &steps {
            around.push(slot);
            let Some(registers) = slot.fields.get(&step.name) else { break };
            let next = match &step.item {
                None => registers.single.as_ref(),
                Some(id) => registers.items.get(id),
            };
            let Some(next) = next else { break };
            slot = next;
        }
        for slot in around {
            if !self.writes.iter().any(|(key, _)| *key == slot.key) {
                let verdict = slot.judge(self.source);
                let order = verdict.shown().map_or("", |live| live.payload.order);
                self.presence(slot, &verdict, order, Dispute::Carry);
            }
        }
    }

    /// Writes a register's `n`th value again, as the answer.
    pub fn keep(&mut self, slot: &Slot<'_>, n: usize) {
        let verdict = slot.judge(self.source);
        let Some(live) = verdict.live.get(n) else { return };
        let order = live.payload.order;
        self.writes.retain(|(key, _)| *key != slot.key);
        if live.payload.is_presence() {
            return self.presence(slot, &verdict, order, Dispute::Settle);
        }
        let mut settled = verdict.settled.clone();
        settled.extend(verdict.deletions.iter().map(|maker| maker.change));
        // Only where registers are taken apart can a dispute be carried, and so come back.
        let settled = if slot.fields.is_empty() { Vec::new() } else { settled.into_iter().collect() };
        self.push(slot, &Payload { disputed: Vec::new(), settled, ..live.payload.clone() });
    }

    /// Says that an element is there and ends every dispute about it.
    pub fn settle(&mut self, slot: &Slot<'_>) {
        let verdict = slot.judge(self.source);
        let order = verdict.shown().map_or("", |live| live.payload.order);
        self.writes.retain(|(key, _)| *key != slot.key);
        self.presence(slot, &verdict, order, Dispute::Settle);
    }

    /// The place of a register's shown value, and which of the values it is.
    pub fn place_of(&self, slot: &Slot<'_>) -> (String, usize) {
        let verdict = slot.judge(self.source);
        let order = verdict.shown().map_or_else(String::new, |live| live.payload.order.to_owned());
        (order, verdict.live.len().saturating_sub(1))
    }

    /// How many distinct values a register has.
    pub fn answers(&self, slot: &Slot<'_>) -> usize {
        slot.judge(self.source).live.len()
    }

    /// Deletes an element as the answer, whatever it says.
    pub fn drop(&mut self, slot: &Slot<'_>) {
        let verdict = slot.judge(self.source);
        self.delete(slot, &verdict);
    }

    /// Writes what is shown of a register again, unless its own value is in dispute.
    pub fn affirm(&mut self, slot: &Slot<'_>) {
        let verdict = slot.judge(self.source);
        let written = self.writes.iter().any(|(key, _)| *key == slot.key);
        if written || verdict.live.len() != 1 {
            return;
        }
        let payload = verdict.live[0].payload.clone();
        if payload.is_presence() {
            return self.presence(slot, &verdict, payload.order, Dispute::Carry);
        }
        self.push(slot, &payload);
    }
}

fn match_items(name: &str, old: &[Old<'_, '_>], wants: &[Want<'_>]) -> Vec<Option<usize>> {
    let old: Vec<_> = old
        .iter()
        .map(|old| Candidate {
            statement: Statement { json: old.json.as_ref(), sibling: old.sibling.as_ref() },
            parts: old.item.live.payload.is_presence(),
        })
        .collect();
    let wants: Vec<_> = wants
        .iter()
        .map(|want| Candidate { statement: want.statement(), parts: matches!(want, Want::Parts(..)) })
        .collect();
    pair(name, &old, &wants)
}
