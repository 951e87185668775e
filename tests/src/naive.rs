//! A second opinion: what a record says, worked out from its changes alone, in the plainest way.
//!
//! docs/CONFLICTS.md is followed here, not the product. Nothing of `sync_core::record` is called; automerge only
//! takes the bytes of a change apart, and which of two writes saw the other is read from what each operation says
//! that it replaces. Of `sync_core::conflict` the words are used (`Conflict`, `Arm`) and the policy table as data; of
//! `sync_core::record` the table of choice elements, as data.
//!
//! The text of a register is lines: `json`, for an item `order|json`, for the record `live`; `-` and null are a
//! deletion. Then `_` and the JSON of the primitive extension, `?` and the hash of a deletion in dispute, `!` and
//! that of a settled one. `{}` says that the element is there and has registers of its own.
//!
//! Not here: changes that Tuyến does not make, such as a register that holds a number, or a key 25 steps deep.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use automerge::{
    Change, ExpandedChange, ScalarValue,
    legacy::{Key, OpId, OpType},
};
use serde_json::{Map, Value as Json, json};
use sync_core::{
    conflict::{Arm, Conflict, Kind, Policies, Policy},
    id::{ChangeHash, Incarnation, RecordId},
    record::{CHOICE_TYPES, CHOICES, Folded},
    time::Stamp,
};

/// A conflict without who and when: the register, what stands against what, and the texts of the values (`deleted`
/// for a deletion, which no JSON is).
pub type Dispute = (String, Kind, BTreeSet<String>);

/// What a record says.
#[derive(Clone, PartialEq)]
pub struct Said {
    /// The resource; none when the record is deleted or empty.
    pub resource: Option<Json>,
    /// Whether the record was deleted.
    pub deleted: bool,
    /// Open conflicts and settled ones, by path.
    pub conflicts: Vec<Conflict>,
}

/// The conflicts that these changes make, open and settled. The order of the changes does not matter; one that depends
/// on a change that is not among them does not count.
pub fn conflicts<'c>(id: &RecordId, changes: impl IntoIterator<Item = &'c [u8]>) -> BTreeSet<Dispute> {
    disputes(&said(id, changes).conflicts)
}

/// The conflicts of a list in the form that can be compared.
pub fn disputes(conflicts: &[Conflict]) -> BTreeSet<Dispute> {
    let text = |arm: &Arm| {
        let form = arm.form.as_ref().map_or(String::new(), |form| format!("{form}: "));
        match (&arm.value, &arm.extension) {
            (None, _) => "deleted".to_owned(),
            (Some(value), None) => format!("{form}{}", sorted(value)),
            (Some(value), Some(extension)) => format!("{form}{} _{}", sorted(value), sorted(extension)),
        }
    };
    conflicts.iter().map(|c| (c.path.clone(), c.kind, c.values.iter().map(text).collect())).collect()
}

/// Members in the order of their names.
fn sorted(json: &Json) -> Json {
    match json {
        Json::Object(map) => {
            let members: BTreeMap<_, _> = map.iter().map(|(name, j)| (name.clone(), sorted(j))).collect();
            Json::Object(members.into_iter().collect())
        }
        Json::Array(items) => items.iter().map(sorted).collect(),
        scalar => scalar.clone(),
    }
}

/// Compares what the product shows of a record that has these changes with what they say. The error names the
/// register and no value.
pub fn compare<'c>(
    id: &RecordId,
    changes: impl IntoIterator<Item = &'c [u8]>,
    product: &Folded,
) -> Result<(), String> {
    let said = said(id, changes);
    let paths = |conflicts: &[Conflict]| conflicts.iter().map(|c| c.path.clone()).collect::<Vec<_>>();
    if paths(&said.conflicts) != paths(&product.conflicts) {
        let (want, got) = (paths(&said.conflicts), paths(&product.conflicts));
        return Err(format!("{id}: the changes make conflicts at {want:?}, listed are {got:?}"));
    }
    for (want, got) in said.conflicts.iter().zip(&product.conflicts) {
        if want != got {
            // `Debug` of a conflict shows no value.
            return Err(format!("{id}: the changes make {want:?}, listed is {got:?}"));
        }
    }
    let resource = product.resource.as_deref().map(|text| serde_json::from_str::<Json>(text).ok());
    if resource != said.resource.clone().map(Some) {
        return Err(format!("{id}: the resource is not what its changes say"));
    }
    if product.deleted != said.deleted {
        return Err(format!("{id}: deleted is {}, not {}", product.deleted, said.deleted));
    }
    Ok(())
}

/// Checks that a change of the product writes the presence of every element around what it writes, up to the record, so
/// that an edit meets a deletion made elsewhere.
pub fn writes_presence(change: &[u8]) -> Result<(), String> {
    let change = Change::try_from(change).map_err(|_| "not a change".to_owned())?.decode();
    let written: BTreeSet<String> = change
        .operations
        .iter()
        .filter_map(|op| if let Key::Map(key) = &op.key { Some(key.to_string()) } else { None })
        .collect();
    for key in written.iter().filter(|key| *key != STATE) {
        let around = key.match_indices('.').map(|(dot, _)| &key[..dot]).chain([STATE]);
        if let Some(missing) = around.into_iter().find(|key| !written.contains(*key)) {
            return Err(format!("a change writes {key} and not {missing} around it"));
        }
    }
    Ok(())
}

/// What these changes say.
pub fn said<'c>(id: &RecordId, changes: impl IntoIterator<Item = &'c [u8]>) -> Said {
    let closure = in_causal_closure(changes);
    let (registers, makers) = registers(&closure);
    let record = Naive { id, registers, makers, causes: causes(&closure), rules: rules() };
    let mut conflicts = Vec::new();
    let shown = record.read(STATE).values.pop();
    record.note(STATE, &mut conflicts);
    let resource = shown.map(|_| record.resource(&mut conflicts));
    conflicts.sort_by(|a, b| a.path.cmp(&b.path));
    let deleted = resource.is_none() && record.registers.contains_key(STATE);
    Said { resource, deleted, conflicts }
}

const STATE: &str = "#state";

/// Each change once, without those of which a cause is missing.
fn in_causal_closure<'c>(changes: impl IntoIterator<Item = &'c [u8]>) -> Vec<ExpandedChange> {
    let mut waiting: BTreeMap<ChangeHash, ExpandedChange> = BTreeMap::new();
    for bytes in changes {
        let change = Change::try_from(bytes).expect("a change that the product has taken can be read");
        waiting.insert(ChangeHash(change.hash().0), change.decode());
    }
    let (mut known, mut closed) = (BTreeSet::new(), Vec::new());
    loop {
        let ready = |change: &ExpandedChange| change.deps.iter().all(|dep| known.contains(&dep.0));
        let next: Vec<_> =
            waiting.iter().filter(|(_, change)| ready(change)).map(|(hash, _)| *hash).collect();
        if next.is_empty() {
            return closed;
        }
        for hash in next {
            known.insert(hash.0);
            closed.extend(
                waiting
                    .remove(&hash)
                    .map(|change| ExpandedChange { hash: Some(automerge::ChangeHash(hash.0)), ..change }),
            );
        }
    }
}

/// Who made a change, and when.
#[derive(Clone)]
struct Maker {
    change: ChangeHash,
    incarnation: Incarnation,
    stamp: Stamp,
    by: Option<String>,
}

impl Maker {
    /// The greatest is shown: the latest, and of several the one whose change has the smallest hash.
    fn rank(&self) -> (Stamp, Reverse<ChangeHash>) {
        (self.stamp, Reverse(self.change))
    }
}

/// A text that stands in a register, and its maker; null is none.
type Text = (Option<String>, Maker);

/// What stands in each register: every write that no other write says it replaces. And who made which change.
fn registers(changes: &[ExpandedChange]) -> (BTreeMap<String, Vec<Text>>, BTreeMap<ChangeHash, Maker>) {
    let operations = changes.iter().flat_map(|change| &change.operations);
    let replaced: BTreeSet<&OpId> = operations.flat_map(|op| op.pred.iter()).collect();
    let mut registers: BTreeMap<String, Vec<Text>> = BTreeMap::new();
    let mut makers = BTreeMap::new();
    for change in changes {
        let maker = maker(change);
        for (number, op) in (change.start_op.get()..).zip(&change.operations) {
            if replaced.contains(&OpId(number, change.actor_id.clone())) {
                continue;
            }
            if let (Key::Map(key), OpType::Put(value)) = (&op.key, &op.action) {
                let text = match value {
                    ScalarValue::Str(text) => Some(text.to_string()),
                    ScalarValue::Null => None,
                    _ => panic!("a register holds text or null"),
                };
                registers.entry(key.to_string()).or_default().push((text, maker.clone()));
            }
        }
        makers.insert(maker.change, maker);
    }
    (registers, makers)
}

/// Of each change, all that its writer had seen. They come causes first.
fn causes(changes: &[ExpandedChange]) -> BTreeMap<ChangeHash, BTreeSet<ChangeHash>> {
    let mut all: BTreeMap<ChangeHash, BTreeSet<ChangeHash>> = BTreeMap::new();
    for change in changes {
        let mut seen = BTreeSet::new();
        for dep in change.deps.iter().map(|dep| ChangeHash(dep.0)) {
            seen.extend(&all[&dep]);
            seen.insert(dep);
        }
        all.insert(ChangeHash(change.hash.expect("set when it was read").0), seen);
    }
    all
}

fn maker(change: &ExpandedChange) -> Maker {
    let message = change.message.as_deref().and_then(|text| serde_json::from_str::<Json>(text).ok());
    Maker {
        change: ChangeHash(change.hash.expect("set when it was read").0),
        incarnation: Incarnation(change.actor_id.to_bytes()[..16].try_into().expect("sixteen bytes")),
        stamp: Stamp(change.time),
        by: message.and_then(|message| Some(message["by"].as_str()?.to_owned())),
    }
}

/// The rows of the policy table: the steps of a path, and what applies below it.
fn rules() -> Vec<(Vec<String>, Policy)> {
    let table = serde_json::to_value(Policies::standard()).expect("the table is plain data");
    let row = |row: &Json| {
        let steps = row["path"].as_str().expect("a path").split('.').map(str::to_owned).collect();
        (steps, if row["policy"] == "latest" { Policy::Latest } else { Policy::Review })
    };
    table.as_array().expect("a list").iter().map(row).collect()
}

/// One value of a register.
#[derive(Clone)]
struct Value {
    order: String,
    /// None when only a primitive extension is there.
    json: Option<Json>,
    extension: Option<Json>,
    maker: Maker,
}

/// A choice element in dispute: the registers of its forms, and the values of all of them, the one that is shown last.
struct Question {
    path: String,
    forms: BTreeMap<String, String>,
    values: Vec<(String, Value)>,
    deletion: Option<Maker>,
}

impl Value {
    fn is_same(&self, other: &Value) -> bool {
        self.json == other.json && self.extension == other.extension
    }

    fn is_presence(&self) -> bool {
        self.json == Some(json!({})) && self.extension.is_none()
    }
}

/// What a register says.
#[derive(Default)]
struct Register {
    /// The different values, the one that is shown last.
    values: Vec<Value>,
    /// The latest deletion that stands against them.
    deletion: Option<Maker>,
}

impl Register {
    fn is_disputed(&self) -> bool {
        self.values.len() > 1 || (self.values.len() == 1 && self.deletion.is_some())
    }
}

/// The names of one element's registers.
#[derive(Default)]
struct Element {
    whole: Option<String>,
    items: Vec<String>,
}

struct Naive<'a> {
    id: &'a RecordId,
    registers: BTreeMap<String, Vec<Text>>,
    makers: BTreeMap<ChangeHash, Maker>,
    causes: BTreeMap<ChangeHash, BTreeSet<ChangeHash>>,
    rules: Vec<(Vec<String>, Policy)>,
}

impl Naive<'_> {
    fn read(&self, key: &str) -> Register {
        let (mut said, deletions) = self.standing(key);
        said.sort_by_key(|value| Reverse(value.maker.rank()));
        let mut values: Vec<Value> = Vec::new();
        for value in said {
            if !values.iter().any(|other| other.is_same(&value)) {
                values.push(value);
            }
        }
        values.reverse();
        Register { values, deletion: deletions.into_iter().max_by_key(Maker::rank) }
    }

    /// All values that stand in a register, also equal ones, and the deletions that are not settled.
    fn standing(&self, key: &str) -> (Vec<Value>, Vec<Maker>) {
        let (mut said, mut deletions, mut carried, mut settled) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (text, maker) in self.registers.get(key).into_iter().flatten() {
            let text = text.as_deref().unwrap_or("-");
            let mut lines = text.split('\n');
            let first = lines.next().unwrap_or_default();
            let mut extension = None;
            for line in lines {
                match line.split_at_checked(1) {
                    Some(("_", json)) => extension = read_json(json),
                    Some(("?", hash)) => carried.extend(hash.parse::<ChangeHash>()),
                    Some(("!", hash)) => settled.extend(hash.parse::<ChangeHash>()),
                    _ => {}
                }
            }
            let (order, json) = match first {
                "-" => {
                    deletions.push(maker.clone());
                    continue;
                }
                "live" if key == STATE => ("", "{}"),
                item if key.ends_with(']') => item.split_once('|').expect("an item has a place"),
                json => ("", json),
            };
            let (order, json) = (order.to_owned(), read_json(json));
            said.push(Value { order, json, extension, maker: maker.clone() });
        }
        deletions.extend(carried.iter().filter_map(|hash| self.makers.get(hash)).cloned());
        deletions.retain(|maker| !settled.contains(&maker.change));
        (said, deletions)
    }

    fn resource(&self, conflicts: &mut Vec<Conflict>) -> Json {
        let mut map = Map::new();
        self.members("", &mut map, conflicts);
        map.insert("resourceType".to_owned(), self.id.resource_type().into());
        map.insert("id".to_owned(), self.id.id().into());
        Json::Object(map)
    }

    /// The registers of the elements right below `parent`, by the elements' names.
    fn elements(&self, parent: &str) -> BTreeMap<String, Element> {
        let prefix = if parent.is_empty() { String::new() } else { format!("{parent}.") };
        let mut elements: BTreeMap<String, Element> = BTreeMap::new();
        for key in self.registers.keys().filter(|key| *key != STATE) {
            let Some(step) = key.strip_prefix(&prefix).filter(|rest| !rest.contains('.')) else { continue };
            let (name, item) = step.split_once('[').map_or((step, false), |(name, _)| (name, true));
            let element = elements.entry(unescaped(name)).or_default();
            if item {
                element.items.push(key.clone());
            } else {
                element.whole = Some(key.clone());
            }
        }
        elements
    }

    fn members(&self, parent: &str, map: &mut Map<String, Json>, conflicts: &mut Vec<Conflict>) {
        let elements = self.elements(parent);
        let questions = self.questions(parent, &elements);
        for question in &questions {
            self.note_question(question, conflicts);
        }
        for (name, element) in elements {
            let question = questions.iter().find(|question| question.forms.contains_key(&name));
            let (json, extension) = match question.map(|question| (question, question.values.last())) {
                None => self.element(&element, conflicts),
                Some((question, Some((form, value)))) if *form == name => {
                    self.value(&question.forms[&name], value, conflicts)
                }
                Some(_) => (None, None),
            };
            if let Some(json) = json {
                map.insert(name.clone(), json);
            }
            if let Some(extension) = extension {
                map.insert(format!("_{name}"), extension);
            }
        }
    }

    /// The choice elements right below `parent` of which two forms, or one and a deletion of another, were written at
    /// the same time.
    fn questions(&self, parent: &str, elements: &BTreeMap<String, Element>) -> Vec<Question> {
        let steps = parent.split('.').map(|step| unescaped(step.split('[').next().unwrap_or_default()));
        let mut steps: Vec<String> = steps.collect();
        // An element inside one of its own name is like it.
        steps.dedup();
        let around = steps.join(".");
        let of_type = CHOICES.iter().filter(|(name, _)| *name == self.id.resource_type());
        let paths = of_type.flat_map(|(_, paths)| paths.split(' '));
        let split = |path: &'static str| path.rsplit_once('.').unwrap_or(("", path));
        let bases = paths.map(split).filter(|(place, _)| *place == around).map(|(_, base)| base);
        bases.filter_map(|base| self.question(parent, base, elements)).collect()
    }

    fn question(&self, parent: &str, base: &str, elements: &BTreeMap<String, Element>) -> Option<Question> {
        let is_form = |name: &str| name.strip_prefix(base).is_some_and(|rest| CHOICE_TYPES.contains(&rest));
        let is_there = |key: &String| !self.read(key).values.is_empty();
        let forms: BTreeMap<String, String> = elements
            .iter()
            .filter(|(name, element)| is_form(name) && !element.items.iter().any(is_there))
            .filter_map(|(name, element)| Some((name.clone(), element.whole.clone()?)))
            .collect();
        // Each different value with all who said it; each deletion.
        let mut values: Vec<(&String, Value, Vec<ChangeHash>)> = Vec::new();
        let mut deletions: Vec<(&String, Maker)> = Vec::new();
        for (name, key) in &forms {
            let (said, gone) = self.standing(key);
            for value in self.read(key).values {
                let who = said.iter().filter(|one| one.is_same(&value)).map(|one| one.maker.change);
                values.push((name, value.clone(), who.collect()));
            }
            deletions.extend(gone.into_iter().map(|maker| (name, maker)));
        }
        let knew = |one: &ChangeHash, other: &ChangeHash| one == other || self.causes[one].contains(other);
        let at_once = |a: &[ChangeHash], b: &[ChangeHash]| {
            a.iter().all(|one| b.iter().all(|other| !knew(one, other) && !knew(other, one)))
        };
        deletions.retain(|(_, maker)| {
            !values.iter().any(|(_, _, who)| who.iter().any(|one| knew(one, &maker.change)))
        });
        let meets = |name: &String, who: &[ChangeHash]| {
            values.iter().any(|(other, _, by)| *other != name && at_once(who, by))
        };
        let disputed = values.iter().any(|(name, _, who)| meets(name, who))
            || deletions.iter().any(|(name, maker)| meets(name, &[maker.change]));
        if !disputed {
            return None;
        }
        let stands = |(name, maker): &&(&String, Maker)| {
            values.iter().any(|(other, _, _)| other == name) || meets(name, &[maker.change])
        };
        let deletion =
            deletions.iter().filter(stands).map(|(_, maker)| maker.clone()).max_by_key(Maker::rank);
        let mut values: Vec<_> = values.into_iter().map(|(name, value, _)| (name.clone(), value)).collect();
        values.sort_by_key(|(name, value)| (value.maker.rank(), name.clone()));
        let dot = if parent.is_empty() { "" } else { "." };
        Some(Question { path: format!("{parent}{dot}{base}[x]"), forms, values, deletion })
    }

    fn note_question(&self, question: &Question, conflicts: &mut Vec<Conflict>) {
        let arm = |(form, value): &(String, Value)| {
            let (json, extension) = self.value(&question.forms[form], value, &mut Vec::new());
            let arm = self::arm(&value.maker, Some(json.unwrap_or_default()), extension);
            Arm { form: Some(form.clone()), ..arm }
        };
        let mut values: Vec<Arm> = question.values.iter().map(arm).collect();
        let chosen = values.len() - 1;
        values.extend(question.deletion.iter().map(|maker| self::arm(maker, None, None)));
        let kind = if chosen > 0 { Kind::Value } else { Kind::Deletion };
        let reviewed = question.forms.values().any(|key| self.policy(key) == Policy::Review);
        let policy = if reviewed { Policy::Review } else { Policy::Latest };
        conflicts.push(Conflict { path: question.path.clone(), kind, values, policy, chosen });
    }

    /// What is shown of an element. Conflicts are noted for what is shown.
    fn element(&self, element: &Element, conflicts: &mut Vec<Conflict>) -> (Option<Json>, Option<Json>) {
        let shown = |key: &String| Some((key.clone(), self.read(key).values.pop()?));
        let whole = element.whole.as_ref().and_then(shown);
        let mut items: Vec<_> = element.items.iter().filter_map(shown).collect();
        items.sort_by(|(a, x), (b, y)| (&x.order, a).cmp(&(&y.order, b)));
        let latest = items.iter().map(|(_, value)| value.maker.clone()).max_by_key(Maker::rank);
        let items_win = match (&whole, &latest) {
            (None, None) => return (None, None),
            (None, Some(_)) => true,
            (Some(_), None) => false,
            (Some((key, whole)), Some(latest)) => {
                let items_win = latest.rank() > whole.maker.rank();
                self.note_shapes(key, &items, latest, items_win, conflicts);
                items_win
            }
        };
        if !items_win {
            let (key, value) = whole.expect("it is there");
            if latest.is_none() {
                self.note(&key, conflicts);
            }
            return self.value(&key, &value, conflicts);
        }
        for (key, _) in &items {
            self.note(key, conflicts);
        }
        self.list(&items, conflicts)
    }

    fn list(&self, items: &[(String, Value)], conflicts: &mut Vec<Conflict>) -> (Option<Json>, Option<Json>) {
        let both: Vec<_> = items.iter().map(|(key, value)| self.value(key, value, conflicts)).collect();
        let extended = both.iter().any(|(_, extension)| extension.is_some());
        let (json, extensions): (Vec<_>, Vec<_>) = both.into_iter().unzip();
        let list =
            |half: Vec<Option<Json>>| half.into_iter().map(Option::unwrap_or_default).collect::<Json>();
        (Some(list(json)), extended.then(|| list(extensions)))
    }

    fn value(&self, key: &str, value: &Value, conflicts: &mut Vec<Conflict>) -> (Option<Json>, Option<Json>) {
        if key == STATE {
            return (Some(self.resource(conflicts)), None);
        }
        if value.is_presence() {
            let mut map = Map::new();
            self.members(key, &mut map, conflicts);
            return (Some(Json::Object(map)), None);
        }
        (value.json.clone(), value.extension.clone())
    }

    fn arms(&self, key: &str, register: &Register) -> Vec<Arm> {
        let arm = |value: &Value| {
            let (json, extension) = self.value(key, value, &mut Vec::new());
            // A value of which only the extension is there is shown as null.
            arm(&value.maker, Some(json.unwrap_or_default()), extension)
        };
        let values = register.values.iter().map(arm);
        values.chain(register.deletion.iter().map(|maker| self::arm(maker, None, None))).collect()
    }

    fn note(&self, key: &str, conflicts: &mut Vec<Conflict>) {
        let register = self.read(key);
        if !register.is_disputed() {
            return;
        }
        let kind = if register.values.len() > 1 { Kind::Value } else { Kind::Deletion };
        let taken_apart = register.values.iter().any(Value::is_presence);
        let policy = if kind == Kind::Deletion && taken_apart { Policy::Review } else { self.policy(key) };
        let (values, chosen) = (self.arms(key, &register), register.values.len() - 1);
        conflicts.push(Conflict { path: key.to_owned(), kind, values, policy, chosen });
    }

    /// An element is there whole and as items, because two nodes wrote it in different shapes.
    fn note_shapes(
        &self,
        key: &str,
        items: &[(String, Value)],
        latest: &Maker,
        items_win: bool,
        conflicts: &mut Vec<Conflict>,
    ) {
        let register = self.read(key);
        let mut values = self.arms(key, &register);
        let (json, extension) = self.list(items, &mut Vec::new());
        let at = register.values.len();
        values.insert(at, arm(latest, json, extension));
        let chosen = if items_win { at } else { at - 1 };
        let policy = self.policy(key);
        conflicts.push(Conflict { path: key.to_owned(), kind: Kind::Value, values, policy, chosen });
    }

    /// Of the rules that cover a register, the one that names the most steps counts, then the longer one, then
    /// `review`.
    fn policy(&self, key: &str) -> Policy {
        let names = key.split('.').map(|step| unescaped(step.split('[').next().unwrap_or_default()));
        let names = names.filter(|_| key != STATE);
        let path: Vec<String> = std::iter::once(self.id.resource_type().to_owned()).chain(names).collect();
        let covers = |rule: &[String]| {
            rule.len() <= path.len() && rule.iter().zip(&path).all(|(r, p)| r == "*" || r == p)
        };
        let covering = self.rules.iter().filter(|(rule, _)| covers(rule));
        let weight = |(rule, policy): &&(Vec<String>, Policy)| {
            (rule.iter().filter(|step| *step != "*").count(), rule.len(), *policy == Policy::Review)
        };
        covering.max_by_key(weight).map_or(Policy::Review, |(_, policy)| *policy)
    }
}

fn arm(maker: &Maker, value: Option<Json>, extension: Option<Json>) -> Arm {
    let Maker { change, incarnation, stamp, by } = maker.clone();
    Arm { form: None, value, extension, change, incarnation, stamp, by }
}

fn read_json(text: &str) -> Option<Json> {
    (!text.is_empty()).then(|| serde_json::from_str(text).expect("a register holds JSON"))
}

/// An element's name, of which `%` and two digits are a byte, and a lone `%` is the empty name.
fn unescaped(name: &str) -> String {
    let mut parts = name.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts.filter(|_| name != "%") {
        bytes.push(u8::from_str_radix(&part[..2], 16).expect("two digits"));
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).expect("names are text")
}

#[cfg(test)]
mod tests {
    use automerge::{ActorId, Automerge, ROOT, transaction::CommitOptions, transaction::Transactable};

    use super::*;

    /// Documents of two actors that write registers by hand, without the product.
    struct Hands {
        id: RecordId,
        docs: Vec<Automerge>,
        time: i64,
    }

    impl Hands {
        fn new(id: &str, start: &[(&str, &str)]) -> Self {
            let docs = vec![Automerge::new().with_actor(ActorId::from([1u8; 16]))];
            let mut hands = Self { id: id.parse().unwrap(), docs, time: 0 };
            hands.write(0, start);
            hands.docs.push(hands.docs[0].fork().with_actor(ActorId::from([2u8; 16])));
            hands
        }

        /// Writes texts; an empty one is null.
        fn write(&mut self, who: usize, texts: &[(&str, &str)]) -> ChangeHash {
            self.time += 1;
            let mut transaction = self.docs[who].transaction();
            for (key, text) in texts {
                let value = if text.is_empty() { ScalarValue::Null } else { ScalarValue::from(*text) };
                transaction.put(ROOT, *key, value).unwrap();
            }
            ChangeHash(transaction.commit_with(CommitOptions::default().with_time(self.time)).0.unwrap().0)
        }

        fn meet(&mut self) {
            let (a, b) = self.docs.split_at_mut(1);
            a[0].merge(&mut b[0]).unwrap();
            b[0].merge(&mut a[0]).unwrap();
        }

        fn said(&self) -> Said {
            let changes: Vec<_> = self
                .docs
                .iter()
                .flat_map(|doc| doc.get_changes(&[]))
                .map(|c| c.raw_bytes().to_vec())
                .collect();
            said(&self.id, changes.iter().rev().map(Vec::as_slice))
        }

        /// What is in dispute: path, kind, policy, number of answers.
        fn disputes(&self) -> Vec<(String, Kind, Policy, usize)> {
            let said = self.said();
            said.conflicts.iter().map(|c| (c.path.clone(), c.kind, c.policy, c.values.len())).collect()
        }
    }

    #[test]
    fn the_rules_of_the_document_hold() {
        let start = [("#state", "live"), ("status", "\"a\""), ("telecom[x]", "V|{\"value\":\"1\"}")];
        let mut hands = Hands::new("Patient/p", &start);
        hands.write(0, &[("#state", "live\n"), ("status", "\"b\""), ("telecom[x]", "V|{\"value\":\"2\"}")]);
        hands.write(1, &[("#state", "live\n\n"), ("status", "\"b\""), ("telecom[x]", "W|{\"value\":\"1\"}")]);
        hands.meet();
        // Equal values are none, in `status`; a telephone number settles itself.
        assert_eq!(hands.disputes(), [("telecom[x]".to_owned(), Kind::Value, Policy::Latest, 2)]);
        assert_eq!(
            hands.said().resource.unwrap(),
            json!({"resourceType": "Patient", "id": "p", "status": "b", "telecom": [{"value": "1"}]})
        );
        // A place alone is none.
        hands.write(0, &[("telecom[x]", "A|{\"value\":\"3\"}")]);
        hands.meet();
        hands.write(0, &[("telecom[x]", "B|{\"value\":\"3\"}")]);
        hands.write(1, &[("telecom[x]", "C|{\"value\":\"3\"}")]);
        hands.meet();
        assert_eq!(hands.disputes(), []);
    }

    #[test]
    fn a_deletion_and_an_edit_meet_and_are_carried_until_they_are_settled() {
        let mut hands = Hands::new("Patient/p", &[("#state", "live"), ("gender", "\"male\"")]);
        let deletion = hands.write(0, &[("#state", "")]);
        hands.write(1, &[("#state", "live\n"), ("gender", "\"other\"")]);
        let before = hands.said();
        assert_eq!((before.conflicts.len(), before.deleted), (1, false));
        hands.meet();
        let dispute = ("#state".to_owned(), Kind::Deletion, Policy::Review, 2);
        assert_eq!(hands.disputes(), std::slice::from_ref(&dispute));
        hands.write(0, &[("#state", &format!("live\n?{deletion}")), ("gender", "\"female\"")]);
        assert_eq!(hands.disputes(), std::slice::from_ref(&dispute), "an edit carries it on");
        hands.write(1, &[("#state", &format!("live\n!{deletion}"))]);
        hands.meet();
        assert_eq!(hands.disputes(), [], "who settles it settles it for those who carry it");
        hands.write(0, &[("#state", "")]);
        assert!(hands.said().deleted && hands.said().resource.is_none());
    }

    #[test]
    fn two_shapes_of_one_element_are_one_question() {
        let mut hands = Hands::new("Patient/p", &[("#state", "live")]);
        hands.write(0, &[("name[a]", "V|\"x\""), ("n%5Bme", "1.00")]);
        hands.write(1, &[("name", "\"y\"")]);
        hands.meet();
        assert_eq!(hands.disputes(), [("name".to_owned(), Kind::Value, Policy::Review, 2)]);
        let resource = hands.said().resource.unwrap();
        assert_eq!(resource.to_string().matches("1.00").count(), 1);
        assert_eq!((&resource["name"], resource.get("n[me").is_some()), (&json!("y"), true));
    }

    #[test]
    fn forms_of_one_choice_are_one_question_when_they_were_written_at_once() {
        let mut hands = Hands::new("Observation/o", &[("#state", "live")]);
        hands.write(0, &[("valueString", "\"x\""), ("valueNonsense", "1")]);
        hands.write(1, &[("valueBoolean", "false")]);
        hands.meet();
        assert_eq!(hands.disputes(), [("value[x]".to_owned(), Kind::Value, Policy::Review, 2)]);
        let shown = hands.said().resource.unwrap();
        assert_eq!((shown.get("valueString"), &shown["valueBoolean"]), (None, &json!(false)));
        assert!(
            disputes(&hands.said().conflicts).iter().any(|(_, _, all)| all.contains("valueBoolean: false"))
        );
        // Who knows of the other contradicts nobody.
        hands.write(0, &[("valueBoolean", "true")]);
        assert_eq!(hands.disputes(), []);
        assert_eq!(hands.said().resource.unwrap()["valueString"], "x");
        hands.meet();
        hands.write(0, &[("valueString", ""), ("valueBoolean", "")]);
        hands.write(1, &[("valueString", ""), ("valueBoolean", ""), ("valueInteger", "1")]);
        hands.meet();
        assert_eq!(hands.disputes(), [("value[x]".to_owned(), Kind::Deletion, Policy::Review, 2)]);
    }

    #[test]
    fn what_differs_is_told_without_a_value() {
        let id: RecordId = "Patient/p".parse().unwrap();
        let mut hands = Hands::new("Patient/p", &[("#state", "live"), ("gender", "\"male\"")]);
        hands.write(0, &[("gender", "\"other\"")]);
        hands.write(1, &[("gender", "\"female\"")]);
        hands.meet();
        let changes: Vec<_> = hands.docs[0].get_changes(&[]).iter().map(|c| c.raw_bytes().to_vec()).collect();
        let all = || changes.iter().map(Vec::as_slice);
        let said = hands.said();
        let text = said.resource.as_ref().map(Json::to_string);
        let right = Folded { resource: text, conflicts: said.conflicts, deleted: false };
        assert_eq!(compare(&id, all(), &right), Ok(()));
        assert_eq!(conflicts(&id, all()), disputes(&right.conflicts));
        let dropped = Folded { conflicts: vec![], ..right.clone() };
        let mut without_an_arm = right.clone();
        without_an_arm.conflicts[0].values.pop();
        let mut other_value = right.clone();
        other_value.resource = other_value.resource.map(|text| text.replace("female", "male"));
        let deleted = Folded { deleted: true, ..right };
        for wrong in [dropped, without_an_arm, other_value, deleted] {
            let told = compare(&id, all(), &wrong).unwrap_err();
            assert!(told.contains("Patient/p") && !told.contains("female"), "{told}");
        }
    }
}
