//! Records that several people write without hearing of one another: whoever has the same changes shows the same, in
//! whatever order they came, and what is shown is what [`naive`] makes of the changes.

use serde_json::{Map, Value, json};
use sync_core::{
    id::{Incarnation, RecordId},
    record::{Applied, Author, Choice, Record},
};

use crate::bytes::Choices;
use crate::naive;

/// Most things that happen.
const STEPS_MAX: usize = 24;

/// Elements, with and without registers below, in FHIR's shapes and others.
const NAMES: &[&str] = &[
    "contact",
    "telecom",
    "name",
    "status",
    "item",
    "component",
    "meta",
    "tag",
    "text",
    "_status",
    "_name",
    "identifier",
    "note",
    "code",
    "linkId",
    "value",
    "valueString",
    "valueBoolean",
    "valueQuantity",
    "_valueString",
    "id",
    "x.y",
    "",
];

/// Values: JSON texts.
const VALUES: &[&str] = &[
    "1",
    "\"a\"",
    "\"b\"",
    "null",
    "true",
    "80.0",
    "80.00",
    "1e400",
    "{}",
    "[]",
    "[\"a\",\"b\"]",
    "[\"a\",null]",
    r#"[{"gender":"male"},{"gender":"female","name":{"text":"Q"}}]"#,
    r#"[{"system":"phone","value":"1"}]"#,
    r#"[{"system":"phone","use":"home","value":"2"}]"#,
    r#"[{"system":"urn:cccd","value":"001"}]"#,
    r#"[{"system":"urn:cccd","value":"002"}]"#,
    r#"[{"linkId":"1","text":"t"},{"linkId":"2","item":[{"linkId":"3"}]}]"#,
    r#"[{"code":{"coding":[{"system":"l","code":"1"}]},"valueQuantity":{"value":1.0,"unit":"mg"}}]"#,
    r#"{"extension":[{"url":"u","valueCode":"c"}]}"#,
    r#"{"tag":[{"system":"s","code":"c"}],"source":"x","profile":["urn:p"]}"#,
    r#"{"source":"y"}"#,
    r#"[{"id":"e","text":"1"},{"id":"f","text":"2"}]"#,
    r#"{"value":80.00,"unit":"mg"}"#,
];

struct World {
    records: Vec<Record>,
    wall: i64,
}

/// Two to five nodes that have written one record, as the bytes tell.
pub fn merge_nodes(data: &[u8]) -> Vec<Record> {
    happened(&mut Choices::new(data)).records
}

fn happened(c: &mut Choices<'_>) -> World {
    let id: RecordId =
        c.pick(&["Patient/p", "Questionnaire/q", "Observation/o", "Zzz/z"]).parse().expect("a name");
    let actors = 2 + c.below(4);
    let mut world = World { records: vec![Record::new(id); actors], wall: 0 };
    for _ in 0..STEPS_MAX {
        if c.is_done() {
            break;
        }
        let who = c.below(actors);
        match c.below(16) {
            0 | 1 => world.hears(who, c.below(actors), usize::MAX),
            2 => world.hears(who, c.below(actors), 1 + c.below(3)),
            3 => world.deletes(who, c),
            4..=6 => world.answers(who, c),
            _ => world.writes(who, c),
        }
    }
    world
}

/// The bytes tell who writes what and who hears of it.
pub fn merge(data: &[u8]) {
    let mut c = Choices::new(data);
    let world = happened(&mut c);
    // What each of them has.
    world.records.iter().for_each(is_what_its_changes_say);
    let mut all: Vec<Vec<u8>> = Vec::new();
    for record in &world.records {
        let changes = changes(record);
        all.extend(changes);
    }
    let met: Vec<_> = (0..2).map(|_| in_some_order(world.records[0].id(), all.clone(), &mut c)).collect();
    assert!(met[0].fold() == met[1].fold(), "the order of the changes does not matter");
    assert_eq!(met[0].version(), met[1].version());
    is_what_its_changes_say(&met[0]);
    // And nothing of it is a fault of this record only: the next person can write on.
    let mut met = met.into_iter().next().expect("there are two");
    for _ in 0..4 {
        let mut next = World { records: vec![met], wall: world.wall };
        next.answers(0, &mut c);
        met = next.records.pop().expect("it is there");
        is_what_its_changes_say(&met);
    }
}

fn changes(record: &Record) -> Vec<Vec<u8>> {
    let bytes = |hash| record.change(hash).expect("what is in the history is there");
    record.history().iter().map(|item| bytes(&item.change)).collect()
}

fn is_what_its_changes_say(record: &Record) {
    let changes = changes(record);
    if let Err(told) = naive::compare(record.id(), changes.iter().map(Vec::as_slice), &record.fold()) {
        panic!("{told}");
    }
    for change in &changes {
        assert_eq!(naive::writes_presence(change), Ok(()));
    }
}

/// A record of these changes; what comes too early comes again.
fn in_some_order(id: &RecordId, mut changes: Vec<Vec<u8>>, c: &mut Choices<'_>) -> Record {
    let mut record = Record::new(id.clone());
    let mut turn = 0;
    while !changes.is_empty() {
        turn = (turn + c.byte() as usize) % changes.len();
        let change = changes.swap_remove(turn);
        if let Applied::Waiting(_) = record.apply(&change).expect("everybody can read it") {
            changes.push(change);
            turn += 1;
        }
    }
    record
}

impl World {
    /// Who writes, when, by a clock that stands still now and then, or goes wrong.
    fn author(&mut self, who: usize, c: &mut Choices<'_>) -> Author<'static> {
        self.wall += c.below(2) as i64;
        let wall = if c.one_in(8) { -1_000_000 * i64::from(c.byte()) } else { self.wall };
        let incarnation = Incarnation([who as u8 + 1; 16]);
        Author { incarnation, wall, by: Some("Practitioner/1"), software: "f", why: None }
    }

    fn hears(&mut self, who: usize, of: usize, at_most: usize) {
        let history = self.records[of].history();
        let news = history.iter().filter(|item| !self.records[who].contains(&item.change));
        for hash in news.map(|item| item.change).take(at_most).collect::<Vec<_>>() {
            let bytes = self.records[of].change(&hash).expect("what is in the history is there");
            self.records[who].apply(&bytes).expect("everybody can read it");
        }
    }

    /// The version that a form was filled from: the present one, or an older one.
    fn base(&self, who: usize, c: &mut Choices<'_>) -> Option<Vec<sync_core::id::ChangeHash>> {
        let past: Vec<_> = self.records[who].history().into_iter().map(|item| item.change).collect();
        (c.one_in(4) && !past.is_empty()).then(|| vec![c.pick(&past)])
    }

    fn deletes(&mut self, who: usize, c: &mut Choices<'_>) {
        let (author, base) = (self.author(who, c), self.base(who, c));
        self.records[who].delete(base.as_deref(), &author).expect("a version that is there");
    }

    fn answers(&mut self, who: usize, c: &mut Choices<'_>) {
        let author = self.author(who, c);
        let conflicts = self.records[who].conflicts();
        if conflicts.is_empty() {
            return;
        }
        let conflict = c.pick(&conflicts);
        let choice = match c.below(4) {
            0 => Choice::Delete,
            1 if conflict.path != "#state" => match value(c) {
                Value::Null => return,
                Value::Array(_) if conflict.path.ends_with("[x]") => return,
                value if conflict.path.ends_with("[x]") => Choice::Value(json!({"valueString": value})),
                Value::Array(_) if conflict.path.ends_with(']') => return,
                value => Choice::Value(value),
            },
            _ => Choice::Take(1 + c.below(conflict.values.len())),
        };
        let record = &mut self.records[who];
        record.resolve(&conflict.path, choice, &author).expect("an offered answer");
        let left = record.conflicts();
        assert!(!left.iter().any(|one| one.path == conflict.path), "{} is settled", conflict.path);
    }

    fn writes(&mut self, who: usize, c: &mut Choices<'_>) {
        let (author, base) = (self.author(who, c), self.base(who, c));
        let record = &mut self.records[who];
        let read = match &base {
            Some(base) => record.resource_at(base).expect("a version that is there"),
            None => record.resource(),
        };
        let mut resource = read.unwrap_or_else(|| json!({}));
        for _ in 0..=c.below(3) {
            edit(&mut resource, c, 0);
        }
        resource["resourceType"] = record.id().resource_type().into();
        resource["id"] = record.id().id().into();
        record.put(&resource, base.as_deref(), &author).expect("any object can be written");
        if base.is_none() {
            assert_eq!(record.resource(), Some(resource), "writers read their writes");
        }
    }
}

fn value(c: &mut Choices<'_>) -> Value {
    serde_json::from_str(c.pick(VALUES)).expect("the list is JSON")
}

/// Changes something somewhere.
fn edit(json: &mut Value, c: &mut Choices<'_>, depth: usize) {
    let deeper = depth < 4 && c.one_in(2);
    match json {
        Value::Object(map) if deeper && !map.is_empty() => {
            let at = c.below(map.len());
            if let Some(inner) = map.values_mut().nth(at) {
                edit(inner, c, depth + 1);
            }
        }
        Value::Object(map) => edit_object(map, c),
        Value::Array(items) if deeper && !items.is_empty() => {
            let at = c.below(items.len());
            edit(&mut items[at], c, depth + 1);
        }
        Value::Array(items) => edit_array(items, c),
        scalar => *scalar = value(c),
    }
}

fn edit_object(map: &mut Map<String, Value>, c: &mut Choices<'_>) {
    let name = c.pick(NAMES);
    if c.one_in(4) {
        map.remove(name);
    } else {
        map.insert(name.to_owned(), value(c));
    }
}

fn edit_array(items: &mut Vec<Value>, c: &mut Choices<'_>) {
    let at = c.below(items.len() + 1);
    match c.below(4) {
        0 if at < items.len() => drop(items.remove(at)),
        1 if at < items.len() => items.swap(0, at),
        2 if at < items.len() => items[at] = value(c),
        _ => match value(c) {
            Value::Array(more) => items.extend(more),
            one => items.insert(at, one),
        },
    }
}
