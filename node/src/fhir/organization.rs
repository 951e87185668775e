//! The tree as FHIR has it: an Organization for each of its places. It is made from the tree that the node knows, and kept
//! nowhere, so there are no two trees that could disagree (docs/decisions/0020). Not here: what places mean; see
//! `sync_core::scope`.

use serde_json::{Value, json};
use sync_core::{id::OrgId, scope::compartment::ORG_SYSTEM};

use super::consent::rfc3339;
use crate::admin::{OrgLine, StepLine, Tree};

/// To whom the records of an organization belong that is closed.
pub const SUCCESSOR_EXTENSION: &str = "https://tuyen.invalid/fhir/StructureDefinition/successor";
/// HL7's extension for when an organization has been one (R4, `organization-period`).
const PERIOD_EXTENSION: &str = "http://hl7.org/fhir/StructureDefinition/organization-period";

/// The organizations of a tree, as resources, in its order. `partOf` is where one stands now; one that is closed is not
/// active, and says since when and who has come after it.
pub fn resources(tree: &Tree) -> impl Iterator<Item = Value> {
    tree.orgs.iter().map(|line| resource(tree, line))
}

fn resource(tree: &Tree, OrgLine { org, place, successor, .. }: &OrgLine) -> Value {
    let reference =
        |org: &OrgId| json!({"reference": format!("Organization/{org}"), "identifier": identifier(org)});
    let mut resource = json!({"resourceType": "Organization", "id": org});
    if let Some(successor) = successor {
        let closes = |step: &StepLine| matches!(step, StepLine::Close { org: closed, .. } if closed == org);
        let order = tree.orders.iter().find(|order| order.steps.iter().any(closes));
        let period =
            order.map(|order| json!({"url": PERIOD_EXTENSION, "valuePeriod": {"end": rfc3339(order.at)}}));
        let successor = json!({"url": SUCCESSOR_EXTENSION, "valueReference": reference(successor)});
        resource["extension"] = period.into_iter().chain([successor]).collect();
    }
    resource["identifier"] = json!([identifier(org)]);
    resource["active"] = successor.is_none().into();
    resource["name"] = json!(org);
    if let Some(parent) = place.parent() {
        resource["partOf"] = reference(parent.org());
    }
    resource
}

fn identifier(org: &OrgId) -> Value {
    json!({"system": ORG_SYSTEM, "value": org})
}

#[cfg(test)]
mod tests {
    use sync_core::scope::compartment;

    use super::*;
    use crate::admin::OrderLine;

    #[test]
    fn each_place_is_an_organization() {
        let line = |place: &str, successor: Option<&str>| OrgLine {
            org: place.rsplit('/').next().unwrap().parse().unwrap(),
            place: place.parse().unwrap(),
            successor: successor.map(|org| org.parse().unwrap()),
            entries: 7,
        };
        let close = StepLine::Close { org: "hg".parse().unwrap(), successor: "tq".parse().unwrap() };
        let tree = Tree {
            orgs: vec![line("tw", None), line("tw/hg", Some("tq")), line("tw/tq/dv", None)],
            orders: vec![OrderLine { number: 1, at: 1_798_736_400_000, steps: vec![close] }],
            plans: Vec::new(),
        };
        let all: Vec<_> = resources(&tree).collect();
        let tq = json!({"reference": "Organization/tq", "identifier": {"system": "urn:tuyen:organization", "value": "tq"}});
        assert_eq!(
            (&all[0]["name"], &all[0]["active"], all[0].get("partOf")),
            (&json!("tw"), &json!(true), None)
        );
        assert_eq!((&all[1]["active"], &all[1]["extension"][1]["valueReference"]), (&json!(false), &tq));
        assert_eq!(all[1]["extension"][0]["valuePeriod"]["end"], "2026-12-31T17:00:00Z");
        assert_eq!((&all[2]["partOf"], all[2].get("extension")), (&tq, None));
        // Where one of them is written, it belongs to whom it describes.
        assert!(compartment::managers(&all[2]).contains(&"dv".parse().unwrap()));
    }
}
