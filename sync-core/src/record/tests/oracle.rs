//! Random writes on nodes that do not hear of one another, against a model that knows what each of them said:
//! nothing that was said may be lost without a conflict, and nothing else may be one.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

const ITEMS: usize = 3;

#[derive(Debug, Clone)]
enum Op {
    Top(usize, u8),
    Inner(usize, usize, u8),
    Drop(usize),
    /// A change that writes nothing: nobody said anything.
    Touch,
}

const TOPS: [&str; 2] = ["title", "name"];
const INNERS: [&str; 2] = ["text", "prefix"];

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (0..TOPS.len(), 0..4u8).prop_map(|(field, v)| Op::Top(field, v)),
        5 => (0..ITEMS, 0..INNERS.len(), 0..4u8).prop_map(|(item, field, v)| Op::Inner(item, field, v)),
        1 => (0..ITEMS).prop_map(Op::Drop),
        1 => Just(Op::Touch),
    ]
}

fn start() -> Json {
    let item = |n: usize| json!({"linkId": n.to_string(), "text": "0", "prefix": "0"});
    let items: Vec<_> = (0..ITEMS).map(item).collect();
    json!({"resourceType": "Questionnaire", "id": "q", "title": "0", "name": "0", "item": items})
}

/// What the nodes said: the last word of each about each field, who touched and who dropped an item.
#[derive(Default)]
struct Model {
    tops: BTreeMap<(usize, usize), String>,
    inners: BTreeMap<(usize, usize, usize), String>,
    touched: BTreeSet<(usize, usize)>,
    dropped: BTreeSet<(usize, usize)>,
}

/// Whether an item of the questionnaire has this link.
fn is_link(item: &Json, link: usize) -> bool {
    item["linkId"].as_str() == Some(&link.to_string())
}

fn perform(world: &mut World, model: &mut Model, node: usize, op: &Op) {
    let mut resource = world.nodes[node].resource().unwrap();
    let at = |resource: &Json, item: usize| {
        let items = resource["item"].as_array()?;
        items.iter().position(|j| is_link(j, item))
    };
    match *op {
        Op::Top(field, v) => resource[TOPS[field]] = v.to_string().into(),
        Op::Inner(item, field, v) => match at(&resource, item) {
            Some(i) => resource["item"][i][INNERS[field]] = v.to_string().into(),
            None => return,
        },
        Op::Drop(item) => match at(&resource, item) {
            Some(i) => drop(resource["item"].as_array_mut().unwrap().remove(i)),
            None => return,
        },
        Op::Touch => return drop(world.touch(node)),
    }
    if resource["item"] == json!([]) {
        resource.as_object_mut().unwrap().remove("item");
    }
    if world.put(node, resource).is_none() {
        return;
    }
    match *op {
        Op::Top(field, v) => drop(model.tops.insert((field, node), v.to_string())),
        Op::Inner(item, field, v) => {
            model.inners.insert((item, field, node), v.to_string());
            model.touched.insert((item, node));
        }
        Op::Drop(item) => {
            model.dropped.insert((item, node));
            model.touched.remove(&(item, node));
        }
        Op::Touch => {}
    }
}

fn check(field: &Json, said: BTreeSet<&String>, conflict: Option<&Conflict>) {
    let values: BTreeSet<String> = conflict
        .map(|c| {
            c.values.iter().map(|arm| arm.value.as_ref().unwrap().as_str().unwrap().to_owned()).collect()
        })
        .unwrap_or_default();
    let shown = field.as_str().unwrap().to_owned();
    if said.len() > 1 {
        assert_eq!(values.iter().collect::<BTreeSet<_>>(), said);
        let conflict = conflict.unwrap();
        assert_eq!(conflict.values[conflict.chosen].value.as_ref(), Some(field));
    } else {
        assert!(conflict.is_none());
        assert_eq!(said.first().map_or("0", |s| s.as_str()), shown);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn nothing_said_is_lost(ops in prop::collection::vec((0..4usize, any_op()), 1..25)) {
        let mut world = World::new("Questionnaire/q", start());
        let mut model = Model::default();
        for (node, op) in &ops {
            perform(&mut world, &mut model, *node, op);
        }
        let folded = world.sync();
        let shown = resource(&folded);
        let mut expected = 0;
        for (field, name) in TOPS.iter().enumerate() {
            let said: BTreeSet<_> = model.tops.iter().filter(|((f, _), _)| *f == field).map(|(_, v)| v).collect();
            let conflict = folded.conflicts.iter().find(|c| c.path == *name);
            expected += usize::from(conflict.is_some());
            check(&shown[*name], said, conflict);
        }
        for item in 0..ITEMS {
            let dropped = model.dropped.iter().any(|(i, _)| *i == item);
            let touched = model.touched.iter().any(|(i, _)| *i == item);
            let found = shown["item"].as_array().and_then(|items| items.iter().find(|j| is_link(j, item)));
            prop_assert_eq!(found.is_some(), !dropped || touched);
            let Some(found) = found else { continue };
            let key = dump(&world.nodes[0]).into_iter().find_map(|(key, values)| {
                let link = values.first()?.as_deref()?.trim_end() == format!("\"{item}\"");
                key.strip_suffix(".linkId").filter(|_| link).map(str::to_owned)
            }).unwrap();
            let conflict = |path: String| folded.conflicts.iter().find(|c| c.path == path);
            let deletion = conflict(key.clone());
            prop_assert_eq!(deletion.map(|c| c.kind), (dropped && touched).then_some(Kind::Deletion));
            expected += usize::from(deletion.is_some());
            for (field, name) in INNERS.iter().enumerate() {
                let said: BTreeSet<_> = model.inners.iter().filter(|((i, f, _), _)| (*i, *f) == (item, field)).map(|(_, v)| v).collect();
                let conflict = conflict(format!("{key}.{name}"));
                expected += usize::from(conflict.is_some());
                check(&found[*name], said, conflict);
            }
        }
        prop_assert_eq!(folded.conflicts.len(), expected);
    }
}
