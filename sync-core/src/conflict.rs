//! Conflicts: what a record's state says about questions that have two or more answers.
//!
//! A conflict is a function of the changes that a node holds, whatever the order in which they came: every node
//! with the same changes lists the same conflicts, in the same order, with the same answer shown meanwhile. This
//! module holds the words and the policies; `record` finds the conflicts. Nothing here ever ends one: that is
//! done by writing a change.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::{
    id::{ChangeHash, Incarnation},
    record::Json,
    time::Stamp,
};

/// What stands against what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Two or more different values.
    Value,
    /// One value, and a deletion.
    Deletion,
}

/// Who has to look at a conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// A person decides; until then the record is marked.
    Review,
    /// The later statement stands, and the other stays in the history.
    Latest,
}

/// One answer. Its values are clinical: `Debug` does not show them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arm {
    /// Which form of a choice element the value is (`valueString` of `value[x]`); none in other conflicts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<String>,
    /// The value; none means that the element was deleted.
    pub value: Option<Json>,
    /// The primitive extension (`_birthDate` of `birthDate`) that belongs to the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extension: Option<Json>,
    /// The change that said so: the latest, if several said the same.
    pub change: ChangeHash,
    /// The process that made the change.
    pub incarnation: Incarnation,
    /// When.
    pub stamp: Stamp,
    /// Who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

impl std::fmt::Debug for Arm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let value = if self.value.is_some() { "a value" } else { "deleted" };
        write!(f, "Arm({value}, change {:?}, {:?})", self.change, self.stamp)
    }
}

/// One question of a record with two or more answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// The register's key, such as `name[6f3c20ab]`; `#state` for the record itself; `value[x]` for a choice element
    /// of which different forms were written.
    pub path: String,
    /// What stands against what.
    pub kind: Kind,
    /// The answers: values from the earliest to the latest, then the deletion if there is one.
    pub values: Vec<Arm>,
    /// Who has to look at it.
    pub policy: Policy,
    /// The index in `values` of the answer that the record shows meanwhile. A deletion is never shown while
    /// there is a value.
    pub chosen: usize,
}

/// Those conflicts that a person has to decide.
pub fn open(conflicts: &[Conflict]) -> impl Iterator<Item = &Conflict> {
    conflicts.iter().filter(|c| c.policy == Policy::Review)
}

/// One row of the policy table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// A FHIR path such as `Patient.contact`; it covers what lies below. `*` stands for any one step.
    pub path: String,
    /// What applies there.
    pub policy: Policy,
}

/// The policy table. The rule that names the most steps wins, then the longer one, then `review`; a path
/// without a rule is `review`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Policies {
    rules: Vec<Rule>,
}

/// What settles itself by default: how to reach somebody, what machines write, and the generated narrative.
const LATEST: &[&str] = &[
    "*.telecom",
    "*.address",
    "*.photo",
    "*.text",
    "*.meta.lastUpdated",
    "*.meta.versionId",
    "*.meta.source",
    "Patient.contact",
    "Patient.communication",
    "Organization.contact",
    "Location.hoursOfOperation",
    "Location.position",
    "HealthcareService.availableTime",
    "PractitionerRole.availableTime",
    "PractitionerRole.availabilityExceptions",
];
/// What a person decides by default even where a wider rule says otherwise; everything unnamed is the same.
const REVIEW: &[&str] = &["Patient.contact.relationship", "*.meta.security", "*.status"];

static DEFAULT: LazyLock<Policies> = LazyLock::new(|| {
    let rule = |policy| move |path: &&str| Rule { path: (*path).to_owned(), policy };
    let latest = LATEST.iter().map(rule(Policy::Latest));
    Policies { rules: latest.chain(REVIEW.iter().map(rule(Policy::Review))).collect() }
});

impl Policies {
    /// The table that is used when nobody brings another.
    pub fn standard() -> &'static Self {
        &DEFAULT
    }

    /// A table of these rules.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self { rules }
    }

    /// What applies to an element, named by its FHIR path (`Patient.contact.telecom`).
    pub fn of(&self, path: &str) -> Policy {
        let steps: Vec<&str> = path.split('.').collect();
        let rank = |rule: &&Rule| {
            let pattern: Vec<&str> = rule.path.split('.').collect();
            let covers =
                pattern.len() <= steps.len() && pattern.iter().zip(&steps).all(|(p, s)| *p == "*" || p == s);
            let named = pattern.iter().filter(|p| **p != "*").count();
            covers.then_some((named, pattern.len(), rule.policy == Policy::Review))
        };
        let best = self
            .rules
            .iter()
            .filter_map(|r| rank(&r).map(|rank| (rank, r.policy)))
            .max_by_key(|(rank, _)| *rank);
        best.map_or(Policy::Review, |(_, policy)| policy)
    }
}

impl Default for Policies {
    fn default() -> Self {
        DEFAULT.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_exact_rule_wins_and_the_unknown_is_reviewed() {
        let policies = Policies::standard();
        for path in [
            "Patient.telecom",
            "Patient.contact.telecom",
            "Patient.contact",
            "Observation.text",
            "Basic.meta.source",
        ] {
            assert_eq!(policies.of(path), Policy::Latest, "{path}");
        }
        for path in [
            "Patient.identifier",
            "Patient",
            "Patient.contact.relationship",
            "Questionnaire.item.text",
            "MedicationRequest.dosageInstruction",
            "Condition.code",
            "Observation.valueQuantity",
            "Nothing.known",
        ] {
            assert_eq!(policies.of(path), Policy::Review, "{path}");
        }
    }

    #[test]
    fn between_equals_the_rule_with_more_steps_wins_and_then_review() {
        let rule = |path: &str, policy| Rule { path: path.to_owned(), policy };
        let (latest, review) = (Policy::Latest, Policy::Review);
        for (rules, expected) in [
            ([rule("Task", latest), rule("*.note", review)], review),
            ([rule("*.note", latest), rule("Task", review)], latest),
            ([rule("Task.note", latest), rule("Task.note", review)], review),
            ([rule("Task.note", review), rule("Task.note", latest)], review),
            ([rule("Task.note.text.div", latest), rule("Task.note", review)], review),
            ([rule("*.note.text", latest), rule("Flag", review)], latest),
        ] {
            assert_eq!(Policies::new(rules.to_vec()).of("Task.note.text"), expected, "{rules:?}");
        }
        assert_eq!(Policies::default(), *Policies::standard());
    }

    #[test]
    fn debug_shows_no_answer() {
        let arm = Arm {
            form: None,
            value: Some(Json::from("A+")),
            extension: None,
            change: ChangeHash([0xab; 32]),
            incarnation: Incarnation([1; 16]),
            stamp: Stamp(5),
            by: None,
        };
        let deleted = Arm { value: None, ..arm.clone() };
        assert_eq!(format!("{arm:?}"), "Arm(a value, change abababab, Stamp(5))");
        assert_eq!(format!("{deleted:?}"), "Arm(deleted, change abababab, Stamp(5))");
    }

    #[test]
    fn a_table_is_json() {
        let table = r#"[{"path":"*.status","policy":"latest"},{"path":"Task.status","policy":"review"}]"#;
        let policies: Policies = serde_json::from_str(table).unwrap();
        assert_eq!(policies.of("Flag.status"), Policy::Latest);
        assert_eq!(policies.of("Task.status"), Policy::Review);
        assert_eq!(serde_json::to_string(&policies).unwrap(), table);
        assert!(serde_json::from_str::<Policies>(r#"[{"path":"*","policy":"never"}]"#).is_err());
    }
}
