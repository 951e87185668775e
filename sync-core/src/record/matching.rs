//! Which item of a new list is which item of the old one.
//!
//! Equal items first, then the same element id, then the same natural key, then what is left by order. Two items
//! with different natural keys are never taken for one. When two elements that are taken apart have no natural
//! key they are the same only if at least one of their parts is equal; otherwise nothing would be left of the old
//! one but its place.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::{
    natural::{canonical, canonical_statement, element_id, natural_key},
    shape::Statement,
};

/// One item, as both lists have it.
pub(super) struct Candidate<'j> {
    pub statement: Statement<'j>,
    /// Whether it has registers of its own.
    pub parts: bool,
}

struct Pairing {
    old_of: Vec<Option<usize>>,
    used: Vec<bool>,
}

impl Pairing {
    fn take(&mut self, old: usize, new: usize) {
        self.old_of[new] = Some(old);
        self.used[old] = true;
    }

    fn by_key<'j>(
        &mut self,
        old: &[Candidate<'j>],
        new: &[Candidate<'j>],
        key: impl Fn(&Candidate<'j>) -> Option<String>,
    ) {
        let mut waiting: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (i, candidate) in old.iter().enumerate().rev() {
            if let Some(key) = key(candidate).filter(|_| !self.used[i]) {
                waiting.entry(key).or_default().push(i);
            }
        }
        for (j, candidate) in new.iter().enumerate() {
            let Some(key) = key(candidate).filter(|_| self.old_of[j].is_none()) else { continue };
            if let Some(i) = waiting.get_mut(&key).and_then(Vec::pop) {
                self.take(i, j);
            }
        }
    }

    /// Pairs what is left, in order; first only between the same already paired neighbours.
    fn by_order(&mut self, may: impl Fn(usize, usize) -> bool) {
        let mut low = 0;
        for j in 0..self.old_of.len() {
            if let Some(i) = self.old_of[j] {
                low = i + 1;
                continue;
            }
            let end = (low..self.used.len()).find(|i| self.used[*i]).unwrap_or(self.used.len());
            if let Some(i) = (low..end).find(|i| may(*i, j)) {
                self.take(i, j);
                low = i + 1;
            }
        }
        for j in 0..self.old_of.len() {
            if self.old_of[j].is_none()
                && let Some(i) = (0..self.used.len()).find(|i| !self.used[*i] && may(*i, j))
            {
                self.take(i, j);
            }
        }
    }
}

fn share_a_part(a: Statement<'_>, b: Statement<'_>) -> bool {
    let (Some(Json::Object(a)), Some(Json::Object(b))) = (a.json, b.json) else { return false };
    a.iter().any(|(name, value)| b.get(name).is_some_and(|other| canonical(other) == canonical(value)))
}

/// For each item of `new`, the item of `old` that it is.
pub(super) fn pair<'j>(name: &str, old: &[Candidate<'j>], new: &[Candidate<'j>]) -> Vec<Option<usize>> {
    let mut pairing = Pairing { old_of: vec![None; new.len()], used: vec![false; old.len()] };
    let natural = |c: &Candidate<'_>| natural_key(name, c.statement, c.parts);
    pairing.by_key(old, new, |c| Some(canonical_statement(c.statement)));
    pairing.by_key(old, new, |c| element_id(c.statement).map(str::to_owned));
    pairing.by_key(old, new, natural);
    let old_natural: Vec<_> = old.iter().map(|c| natural(c).is_some()).collect();
    let new_natural: Vec<_> = new.iter().map(|c| natural(c).is_some()).collect();
    pairing.by_order(|i, j| {
        let either = old[i].parts || new[j].parts;
        !old_natural[i] && !new_natural[j] && (!either || share_a_part(old[i].statement, new[j].statement))
    });
    pairing.old_of
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paired(name: &str, parts: bool, old: &str, new: &str) -> Vec<Option<usize>> {
        paired_of(name, [parts; 2], old, new)
    }

    fn paired_of(name: &str, parts: [bool; 2], old: &str, new: &str) -> Vec<Option<usize>> {
        let read = |text: &str| serde_json::from_str::<Vec<Json>>(text).unwrap();
        let (old, new) = (read(old), read(new));
        let candidates = |list, parts| -> Vec<Candidate<'_>> {
            let of = |json| Candidate { statement: Statement { json: Some(json), sibling: None }, parts };
            <&Vec<Json>>::into_iter(list).map(of).collect()
        };
        pair(name, &candidates(&old, parts[0]), &candidates(&new, parts[1]))
    }

    #[test]
    fn items_are_recognized() {
        assert_eq!(paired("name", false, r#"["a","m","b"]"#, r#"["m","c"]"#), [Some(1), Some(2)]);
        assert_eq!(paired("name", false, r#"["a","b"]"#, r#"["b","a"]"#), [Some(1), Some(0)]);
        assert_eq!(
            paired("name", false, r#"["x","k","a","b"]"#, r#"["k","1","2"]"#),
            [Some(1), Some(2), Some(3)]
        );
        assert_eq!(paired("name", false, r#"["x","k"]"#, r#"["k","1"]"#), [Some(1), Some(0)]);
        for (parts, recognized) in
            [([false, false], true), ([true, false], false), ([false, true], false), ([true, true], false)]
        {
            let found = paired_of("contact", parts, r#"[{"a":1}]"#, r#"[{"a":2}]"#);
            assert_eq!(found, [recognized.then_some(0)], "{parts:?}");
        }
        let (old, new) = (r#"[{"id":"1","v":1},{"id":"2","v":2}]"#, r#"[{"id":"2","v":1},{"v":2}]"#);
        assert_eq!(paired("any", false, old, new), [Some(1), None]);
        let (old, new) =
            (r#"[{"system":"s","value":"1"}]"#, r#"[{"system":"t","value":"1"},{"system":"s","value":"2"}]"#);
        assert_eq!(paired("identifier", false, old, new), [None, Some(0)]);
        assert_eq!(paired("contact", true, r#"[{"a":1,"b":2}]"#, r#"[{"a":2,"b":3}]"#), [None]);
        assert_eq!(paired("contact", true, r#"[{"a":1,"b":2}]"#, r#"[{"a":2,"b":2}]"#), [Some(0)]);
    }
}
