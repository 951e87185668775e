//! The promises of a record, each with the histories that would break it.

use proptest::prelude::*;
use serde_json::json;

use super::{write::dump, *};
use crate::conflict::{Kind, Policy, open};

mod choice;
mod data;
mod merge;
mod oracle;
mod timing;

const NODES: [Incarnation; 4] =
    [Incarnation([1; 16]), Incarnation([2; 16]), Incarnation([3; 16]), Incarnation([4; 16])];

fn author(node: usize, wall: i64) -> Author<'static> {
    Author { incarnation: NODES[node], wall, by: Some("Practitioner/1"), software: "tuyen/0", why: None }
}

fn id(name: &str) -> RecordId {
    name.parse().unwrap()
}

/// The same record on several nodes.
struct World {
    nodes: Vec<Record>,
    wall: i64,
}

impl World {
    fn new(name: &str, start: Json) -> Self {
        let mut first = Record::new(id(name));
        first.put(&start, None, &author(0, 1)).unwrap();
        Self { nodes: vec![first; 4], wall: 10 }
    }

    fn tick(&mut self) -> i64 {
        self.wall += 1;
        self.wall
    }

    fn put(&mut self, node: usize, resource: Json) -> Option<NewChange> {
        let wall = self.tick();
        self.nodes[node].put(&resource, None, &author(node, wall)).unwrap()
    }

    /// A PUT of the resource as it is there, edited.
    fn edit(&mut self, node: usize, edit: impl FnOnce(&mut Json)) -> NewChange {
        let mut resource = self.nodes[node].resource().unwrap();
        edit(&mut resource);
        self.put(node, resource).expect("the edit changes something")
    }

    fn delete(&mut self, node: usize) -> NewChange {
        let wall = self.tick();
        self.nodes[node].delete(None, &author(node, wall)).unwrap().unwrap()
    }

    fn touch(&mut self, node: usize) -> NewChange {
        let wall = self.tick();
        self.nodes[node].touch(&author(node, wall)).unwrap()
    }

    fn resolve(&mut self, node: usize, path: &str, choice: Choice) -> NewChange {
        let wall = self.tick();
        self.nodes[node].resolve(path, choice, &author(node, wall)).unwrap()
    }

    /// One node learns what another knows.
    fn pull(&mut self, to: usize, from: usize) {
        for item in self.nodes[from].history() {
            let bytes = self.nodes[from].change(&item.change).unwrap();
            assert!(!matches!(self.nodes[to].apply(&bytes).unwrap(), Applied::Waiting(_)));
        }
    }

    /// Everybody learns everything; all agree; what they agree on comes back.
    fn sync(&mut self) -> Folded {
        for _ in 0..2 {
            for node in 1..self.nodes.len() {
                self.pull(0, node);
                self.pull(node, 0);
            }
        }
        let folded = self.nodes[0].fold();
        for node in &self.nodes {
            assert_eq!(node.fold(), folded);
            assert_eq!(node.version(), self.nodes[0].version());
        }
        folded
    }
}

fn paths(folded: &Folded) -> Vec<(String, Kind)> {
    folded.conflicts.iter().map(|c| (c.path.clone(), c.kind)).collect()
}

fn resource(folded: &Folded) -> Json {
    serde_json::from_str(folded.resource.as_deref().unwrap()).unwrap()
}

fn patient() -> Json {
    json!({
        "resourceType": "Patient", "id": "p", "active": true, "gender": "male", "birthDate": "1970-01-01",
        "identifier": [{"system": "urn:cccd", "value": "001"}],
        "name": [{"text": "Đặng Văn A"}],
        "telecom": [{"system": "phone", "value": "1"}],
        "contact": [{"name": {"text": "B"}, "telecom": [{"system": "phone", "value": "2"}], "gender": "female"}],
        "meta": {"profile": ["urn:p"], "source": "x"}
    })
}
