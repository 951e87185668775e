//! Compartments: about whom a resource is. FHIR's CompartmentDefinition for Patient says by which elements a resource
//! belongs to a patient ([`super::compartment_table`]); a Patient belongs to itself. What is about nobody belongs to the
//! organization that manages it ([`managers`]).
//!
//! It is asked once, when a record is created, to find the record's home. A record whose references change later keeps its
//! home: what was sent somewhere is not taken back by an edit. Only references of the form `Patient/8f21`, with or without
//! a version, count: others name nobody whom this tree knows. Not here: which organization is a patient's home.

use serde_json::Value;

use super::compartment_table::TABLE;
use crate::id::{OrgId, RecordId};

/// The system of the identifiers that organizations of the tree have in resources.
pub const ORG_SYSTEM: &str = "urn:tuyen:organization";

/// By which element a resource names the organization that manages it. Source: the resource definitions of HL7 FHIR R4
/// (4.0.1): those elements that refer to an Organization and whose meaning is who manages, owns or provides the thing. An
/// Organization is its own manager, and stands with its identifiers.
const MANAGERS: [(&str, &str); 13] = [
    ("Account", "owner"),
    ("CareTeam", "managingOrganization"),
    ("Device", "owner"),
    ("Encounter", "serviceProvider"),
    ("Endpoint", "managingOrganization"),
    ("EpisodeOfCare", "managingOrganization"),
    ("Group", "managingEntity"),
    ("HealthcareService", "providedBy"),
    ("InsurancePlan", "ownedBy"),
    ("Location", "managingOrganization"),
    ("OrganizationAffiliation", "organization"),
    ("Patient", "managingOrganization"),
    ("PractitionerRole", "organization"),
];

/// The patients to whose compartments a resource belongs, each once; first those about whom it is.
pub fn patients(resource: &Value) -> Vec<RecordId> {
    let mut found = Vec::new();
    let Some(name) = resource["resourceType"].as_str() else { return found };
    if name == "Patient"
        && let Some(own) = resource["id"].as_str().and_then(|id| RecordId::new(name, id).ok())
    {
        found.push(own);
    }
    let row = TABLE.binary_search_by_key(&name, |(name, _)| name);
    let paths = row.map_or("", |row| TABLE[row].1);
    for path in paths.split_whitespace() {
        let steps: Vec<&str> = path.split('.').collect();
        collect(resource, &steps, &mut found);
    }
    found
}

/// The organizations of the tree that a resource names as those that manage it. A reference names one by its identifier
/// ([`ORG_SYSTEM`]), or as `Organization/dong-van`, with or without a version. The first whom the tree knows counts.
pub fn managers(resource: &Value) -> Vec<OrgId> {
    let element = |name| MANAGERS.iter().find(|(known, _)| *known == name).map(|(_, element)| *element);
    match resource["resourceType"].as_str() {
        Some("Organization") => {
            let own = resource["identifier"].as_array().into_iter().flatten().filter_map(identified);
            own.chain(resource["id"].as_str().and_then(|id| id.parse().ok())).collect()
        }
        Some(name) => element(name).map_or_else(Vec::new, |element| {
            let reference = &resource[element];
            let named = reference["reference"].as_str().and_then(organization);
            identified(&reference["identifier"]).into_iter().chain(named).collect()
        }),
        None => Vec::new(),
    }
}

fn identified(identifier: &Value) -> Option<OrgId> {
    let is_ours = identifier["system"] == ORG_SYSTEM;
    identifier["value"].as_str().filter(|_| is_ours)?.parse().ok()
}

fn organization(reference: &str) -> Option<OrgId> {
    let (name, id) = unversioned(reference).split_once('/')?;
    (name == "Organization").then(|| id.parse().ok()).flatten()
}

/// The patients of a resource's JSON text. One that nobody can read belongs to nobody.
pub fn patients_of(text: &str) -> Vec<RecordId> {
    // Most of the time is saved where it matters: what names no patient is not taken apart.
    let may = text.contains("\"Patient/") || text.contains("\"Patient\"");
    may.then(|| serde_json::from_str(text).ok())
        .flatten()
        .map_or_else(Vec::new, |resource| patients(&resource))
}

/// The patients to whom the references at a path point. An element that repeats is gone through item by item.
fn collect(value: &Value, steps: &[&str], found: &mut Vec<RecordId>) {
    if let Value::Array(items) = value {
        return items.iter().for_each(|item| collect(item, steps, found));
    }
    if let [first, rest @ ..] = steps {
        return collect(&value[*first], rest, found);
    }
    let patient = value["reference"].as_str().and_then(patient);
    if let Some(patient) = patient.filter(|patient| !found.contains(patient)) {
        found.push(patient);
    }
}

fn patient(reference: &str) -> Option<RecordId> {
    unversioned(reference).parse().ok().filter(|record: &RecordId| record.resource_type() == "Patient")
}

fn unversioned(reference: &str) -> &str {
    reference.split_once("/_history/").map_or(reference, |(record, _)| record)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(resource: Value) -> Vec<String> {
        patients(&resource).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_table_is_in_order() {
        assert!(TABLE.is_sorted_by_key(|(name, _)| name));
        assert!(TABLE.len() > 60);
    }

    #[test]
    fn a_resource_belongs_to_the_patients_that_fhir_says() {
        let patient = |id: &str| json!({"reference": format!("Patient/{id}")});
        assert_eq!(of(json!({"resourceType": "Patient", "id": "1"})), ["Patient/1"]);
        assert_eq!(of(json!({"resourceType": "Observation", "subject": patient("1")})), ["Patient/1"]);
        assert_eq!(
            of(
                json!({"resourceType": "AllergyIntolerance", "patient": patient("1"), "asserter": patient("2")})
            ),
            ["Patient/1", "Patient/2"]
        );
        let actors = json!([{"actor": {"reference": "Practitioner/1"}}, {"actor": patient("3")}]);
        assert_eq!(of(json!({"resourceType": "Appointment", "participant": actors})), ["Patient/3"]);
        let twice =
            json!({"resourceType": "Observation", "subject": patient("1"), "performer": [patient("1")]});
        assert_eq!(of(twice), ["Patient/1"], "each once");
        // No element of the compartment, and no compartment at all.
        assert!(of(json!({"resourceType": "Observation", "focus": [patient("1")]})).is_empty());
        assert!(of(json!({"resourceType": "Organization", "partOf": patient("1")})).is_empty());
        assert!(of(json!({"resourceType": "Observation"})).is_empty());
        assert!(of(json!([])).is_empty());
    }

    #[test]
    fn a_text_belongs_to_the_same_patients() {
        for resource in [
            json!({"resourceType": "Patient", "id": "1"}),
            json!({"resourceType": "Observation", "subject": {"reference": "Patient/1"}}),
            json!({"resourceType": "Observation", "subject": {"reference": "Group/1"}}),
        ] {
            assert_eq!(patients_of(&resource.to_string()), patients(&resource));
        }
        assert!(patients_of("{\"Patient/").is_empty());
    }

    #[test]
    fn only_references_to_patients_of_this_tree_count() {
        for (reference, patient) in [
            ("Patient/1/_history/2", Some("Patient/1")),
            ("https://example.org/fhir/Patient/1", None),
            ("urn:uuid:4bd8e3c6-3d1c-4d59-9d0a-3c1a5b1d2f00", None),
            ("Group/1", None),
            ("#p1", None),
            ("Patient", None),
        ] {
            let resource = json!({"resourceType": "Observation", "subject": {"reference": reference}});
            assert_eq!(
                of(resource),
                patient.into_iter().map(str::to_owned).collect::<Vec<_>>(),
                "{reference}"
            );
        }
        assert!(of(json!({"resourceType": "Observation", "subject": {"reference": 7}})).is_empty());
        assert!(
            of(json!({"resourceType": "Observation", "subject": {"identifier": {"value": "x"}}})).is_empty()
        );
    }

    #[test]
    fn what_is_about_nobody_is_managed_by_whom_it_names() {
        let of = |resource: Value| managers(&resource).iter().map(ToString::to_string).collect::<Vec<_>>();
        let by_name = json!({"reference": "Organization/dong-van"});
        let by_identifier = json!({"identifier": {"system": ORG_SYSTEM, "value": "meo-vac"}});
        for (name, element) in MANAGERS {
            assert_eq!(of(json!({"resourceType": name, element: by_name})), ["dong-van"]);
            assert_eq!(of(json!({"resourceType": name, element: by_identifier})), ["meo-vac"]);
        }
        assert!(MANAGERS.is_sorted());
        let both = json!({"reference": "Organization/dong-van/_history/2", "identifier": by_identifier["identifier"]});
        assert_eq!(of(json!({"resourceType": "Device", "owner": both})), ["meo-vac", "dong-van"]);
        let own = json!({"resourceType": "Organization", "id": "1", "identifier": [
            {"system": "https://example.org", "value": "x"}, by_identifier["identifier"]]});
        assert_eq!(of(own), ["meo-vac", "1"]);
        for reference in [
            "https://example.org/Organization/dong-van",
            "Group/dong-van",
            "#o",
            "Organization",
            "Organization/Đ",
        ] {
            let owner = json!({"reference": reference});
            assert!(of(json!({"resourceType": "Device", "owner": owner})).is_empty(), "{reference}");
        }
        // Another element, another system, and what is no resource.
        assert!(of(json!({"resourceType": "Device", "manufacturer": by_name})).is_empty());
        assert!(of(json!({"resourceType": "Observation", "performer": [by_name]})).is_empty());
        assert!(of(json!({"resourceType": "Device", "owner": {"identifier": {"system": "x", "value": "meo-vac"}}})).is_empty());
        assert!(of(json!([])).is_empty());
    }
}
