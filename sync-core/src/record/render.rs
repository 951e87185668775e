//! From registers to the resource: its JSON text, and the conflicts that it has.
//!
//! The text is put together from the registers' own texts, without parsing them, so numbers keep their digits.
//! Type and id come first, then the elements by name. Conflicts are listed for what is shown: inside something
//! deleted there are none, and of an element that is there both whole and as items (two nodes wrote it in
//! different shapes), only those inside the shape that is shown.

use serde_json::Value as Json;

use super::{
    choice::{self, Choice},
    key,
    payload::Form,
    view::{Live, Maker, Registers, Slot, Source, Verdict, read_json},
};
use crate::{
    conflict::{Arm, Conflict, Kind, Policies, Policy},
    id::RecordId,
};

/// The JSON texts of an element and of its primitive extension.
type Texts = (Option<String>, Option<String>);

/// What is shown of one element.
pub(super) enum Shown<'s, 'a> {
    Nothing,
    Single(&'s Slot<'a>, Box<Live<'s>>),
    Items(Vec<Item<'s, 'a>>),
}

/// One item that is there.
pub(super) struct Item<'s, 'a> {
    pub id: &'s str,
    pub slot: &'s Slot<'a>,
    pub live: Live<'s>,
}

/// Renders one record.
pub(super) struct Renderer<'s, 'a> {
    id: &'s RecordId,
    source: &'s Source<'a>,
    policies: &'s Policies,
    conflicts: Option<Vec<Conflict>>,
}

fn quoted(text: &str) -> String {
    Json::from(text).to_string()
}

fn member(out: &mut String, name: &str, json: &str) {
    if !out.ends_with('{') {
        out.push(',');
    }
    out.push_str(&quoted(name));
    out.push(':');
    out.push_str(json);
}

fn arm(value: Option<(Json, Option<Json>)>, maker: Maker) -> Arm {
    let (value, extension) = value.map_or((None, None), |(value, extension)| (Some(value), extension));
    Arm {
        form: None,
        value,
        extension,
        change: maker.change,
        incarnation: maker.incarnation,
        stamp: maker.stamp,
        by: maker.by,
    }
}

impl<'s, 'a> Renderer<'s, 'a> {
    pub fn new(id: &'s RecordId, source: &'s Source<'a>, policies: &'s Policies) -> Self {
        Self { id, source, policies, conflicts: None }
    }

    /// The resource's text, and its conflicts ordered by path.
    pub fn fold(mut self, root: &Slot<'_>) -> (Option<String>, Vec<Conflict>) {
        self.conflicts = Some(Vec::new());
        let verdict = root.judge(self.source);
        self.note_register(root, &verdict);
        let text = verdict.shown().map(|_| self.resource(root));
        let mut conflicts = self.conflicts.unwrap_or_default();
        conflicts.sort_by(|a, b| a.path.cmp(&b.path));
        (text, conflicts)
    }

    fn resource(&mut self, root: &Slot<'_>) -> String {
        let mut out = String::with_capacity(1024);
        out.push('{');
        member(&mut out, "resourceType", &quoted(self.id.resource_type()));
        member(&mut out, "id", &quoted(self.id.id()));
        self.members(root, &mut out);
        out.push('}');
        out
    }

    fn quiet<T>(&mut self, render: impl FnOnce(&mut Self) -> T) -> T {
        let conflicts = self.conflicts.take();
        let out = render(self);
        self.conflicts = conflicts;
        out
    }

    fn members(&mut self, slot: &Slot<'_>, out: &mut String) {
        let choices = choice::disputes(self.id, self.source, slot);
        for (name, registers) in &slot.fields {
            let named = slot.form == Form::Record && matches!(name.as_str(), "resourceType" | "id");
            let shown = match choices.iter().find(|choice| choice.has(name)) {
                None => self.shown(&key::child(slot.prefix(), name), registers),
                Some(choice) if choice.form(choice.shown()).name == name => {
                    Shown::Single(choice.form(choice.shown()).slot, Box::new(choice.shown().live.clone()))
                }
                Some(_) => Shown::Nothing,
            };
            let (json, sibling) = self.element(&shown);
            if let Some(json) = json.filter(|_| !named) {
                member(out, name, &json);
            }
            if let Some(sibling) = sibling {
                member(out, &format!("_{name}"), &sibling);
            }
        }
        for choice in &choices {
            self.note_choice(choice);
        }
    }

    /// The texts of an element and of its primitive extension.
    fn element(&mut self, shown: &Shown<'_, '_>) -> Texts {
        match shown {
            Shown::Nothing => (None, None),
            Shown::Single(slot, live) => self.register(slot, live),
            Shown::Items(items) => {
                let texts: Vec<_> = items.iter().map(|item| self.register(item.slot, &item.live)).collect();
                let list = |half: fn(&Texts) -> &Option<String>| {
                    let texts: Vec<_> = texts.iter().map(|t| half(t).as_deref().unwrap_or("null")).collect();
                    format!("[{}]", texts.join(","))
                };
                let siblings = texts.iter().any(|(_, sibling)| sibling.is_some());
                (Some(list(|t| &t.0)), siblings.then(|| list(|t| &t.1)))
            }
        }
    }

    /// The texts of one register's shown value.
    pub fn register(&mut self, slot: &Slot<'_>, live: &Live<'_>) -> Texts {
        let payload = &live.payload;
        if payload.is_presence() {
            let mut out = String::from("{");
            self.members(slot, &mut out);
            out.push('}');
            return (Some(out), None);
        }
        let json = Some(payload.json.to_owned()).filter(|json| !json.is_empty());
        (json, payload.sibling.map(str::to_owned))
    }

    /// The items that are there, in their order.
    pub fn items<'t, 'b>(&self, registers: &'t Registers<'b>) -> Vec<(Item<'t, 'b>, Verdict<'t>)> {
        let mut items = Vec::with_capacity(registers.items.len());
        for (id, slot) in &registers.items {
            let verdict = slot.judge(self.source);
            if let Some(live) = verdict.shown().cloned() {
                items.push((Item { id, slot, live }, verdict));
            }
        }
        items.sort_by(|(a, _), (b, _)| (a.live.payload.order, a.id).cmp(&(b.live.payload.order, b.id)));
        items
    }

    /// What is shown of an element; its conflicts are noted.
    fn shown<'t, 'b>(&mut self, field: &str, registers: &'t Registers<'b>) -> Shown<'t, 'b> {
        let items = self.items(registers);
        let single = registers.single.as_ref().map(|slot| (slot, slot.judge(self.source)));
        let Some((slot, verdict, live)) =
            single.and_then(|(slot, verdict)| verdict.shown().cloned().map(|live| (slot, verdict, live)))
        else {
            if items.is_empty() {
                return Shown::Nothing;
            }
            return self.note_items(items);
        };
        if items.is_empty() {
            self.note_register(slot, &verdict);
            return Shown::Single(slot, Box::new(live));
        }
        let latest = |s: &Self| {
            items.iter().filter_map(|(item, _)| item.live.maker(item.slot, s.source)).max_by_key(Maker::rank)
        };
        let (of_items, of_single) = (latest(self), live.maker(slot, self.source));
        let items_win = of_items.as_ref().map(Maker::rank) > of_single.as_ref().map(Maker::rank);
        self.note_shapes(field, (slot, &verdict), (&items, of_items), items_win);
        if items_win { self.note_items(items) } else { Shown::Single(slot, Box::new(live)) }
    }

    fn note_items<'t, 'b>(&mut self, items: Vec<(Item<'t, 'b>, Verdict<'t>)>) -> Shown<'t, 'b> {
        for (item, verdict) in &items {
            self.note_register(item.slot, verdict);
        }
        Shown::Items(items.into_iter().map(|(item, _)| item).collect())
    }

    fn arms(&mut self, slot: &Slot<'_>, verdict: &Verdict<'_>) -> Vec<Arm> {
        let mut arms = Vec::new();
        for live in &verdict.live {
            let Some(maker) = live.maker(slot, self.source) else { continue };
            let (json, sibling) = self.quiet(|s| s.value(slot, live));
            arms.push(arm(Some((json, sibling)), maker));
        }
        let deletion = verdict.deletions.iter().max_by_key(|maker| maker.rank());
        arms.extend(deletion.map(|maker| arm(None, maker.clone())));
        arms
    }

    fn value(&mut self, slot: &Slot<'_>, live: &Live<'_>) -> (Json, Option<Json>) {
        let (json, sibling) = match slot.form {
            Form::Record => (Some(self.resource(slot)), None),
            _ => self.register(slot, live),
        };
        (json.and_then(|j| read_json(&j)).unwrap_or_default(), sibling.and_then(|j| read_json(&j)))
    }

    fn note_register(&mut self, slot: &Slot<'_>, verdict: &Verdict<'_>) {
        if self.conflicts.is_none() || !verdict.is_disputed() {
            return;
        }
        let presence = verdict.live.iter().any(|live| live.payload.is_presence());
        let kind = if verdict.live.len() > 1 { Kind::Value } else { Kind::Deletion };
        let policy = match kind {
            Kind::Deletion if presence => Policy::Review,
            _ => self.policies.of(&key::fhir_path(self.id.resource_type(), &slot.key)),
        };
        let values = self.arms(slot, verdict);
        let chosen = verdict.live.len() - 1;
        self.note(Conflict { path: slot.key.clone(), kind, values, policy, chosen });
    }

    fn note_choice(&mut self, choice: &Choice<'_, '_>) {
        if self.conflicts.is_none() {
            return;
        }
        let mut values = Vec::new();
        for answer in &choice.answers {
            let form = choice.form(answer);
            let value = self.quiet(|s| s.value(form.slot, &answer.live));
            let form = Some(form.name.to_owned());
            values.push(Arm { form, ..arm(Some(value), answer.maker.clone()) });
        }
        values.extend(choice.deletion.iter().map(|maker| arm(None, maker.clone())));
        let chosen = choice.answers.len() - 1;
        let kind = if chosen > 0 { Kind::Value } else { Kind::Deletion };
        let policy = choice.policy(self.id, self.policies);
        self.note(Conflict { path: choice.key.clone(), kind, values, policy, chosen });
    }

    fn note_shapes(
        &mut self,
        field: &str,
        (slot, verdict): (&Slot<'_>, &Verdict<'_>),
        (items, maker): (&[(Item<'_, '_>, Verdict<'_>)], Option<Maker>),
        items_win: bool,
    ) {
        let Some(maker) = maker.filter(|_| self.conflicts.is_some()) else { return };
        let mut values = self.arms(slot, verdict);
        let list = Shown::Items(
            items.iter().map(|(i, _)| Item { id: i.id, slot: i.slot, live: i.live.clone() }).collect(),
        );
        let (json, sibling) = self.quiet(|s| s.element(&list));
        let (json, sibling) = (json.and_then(|j| read_json(&j)), sibling.and_then(|j| read_json(&j)));
        let at = verdict.live.len();
        values.insert(at, arm(Some((json.unwrap_or_default(), sibling)), maker));
        let chosen = if items_win { at } else { at - 1 };
        let policy = self.policies.of(&key::fhir_path(self.id.resource_type(), field));
        self.note(Conflict { path: field.to_owned(), kind: Kind::Value, values, policy, chosen });
    }

    fn note(&mut self, conflict: Conflict) {
        if let Some(conflicts) = &mut self.conflicts {
            conflicts.push(conflict);
        }
    }
}
