//! Permissions to hold a patient's records, as FHIR has them: a Consent for each grant, and an AuditEvent for a look-up in an
//! emergency, which asks for one. What always holds: what is read here is what is written here; another Consent, or another
//! AuditEvent, is none of these. Not here: what a grant does.

use serde_json::{Value, json};
use sync_core::{
    id::{OrgId, RecordId},
    scope::{
        compartment::ORG_SYSTEM,
        grant::{Grant, GrantId},
    },
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// The resource type of a permission.
pub const TYPE: &str = "Consent";
const GRANT: &str = "urn:tuyen:grant";
/// HL7 v3 ActReason: what a permission is for.
const ACT_REASON: &str = "http://terminology.hl7.org/CodeSystem/v3-ActReason";
/// DICOM, the codes of audit events (PS3.16, CID 403): an emergency override of access control has started.
const DICOM: &str = "http://dicom.nema.org/resources/ontology/DCM";
const OVERRIDE_STARTED: &str = "110127";

/// What a permission is for (HL7 v3 ActReason).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// TREAT.
    Treatment,
    /// CAREMGT: referrals, councils.
    CareManagement,
    /// PATRQT.
    PatientRequest,
    /// PUBHLTH.
    PublicHealth,
    /// HLEGAL.
    Legal,
    /// ETREAT: a look-up in an emergency.
    Emergency,
}

impl Purpose {
    const ALL: [Self; 6] = [
        Self::Treatment,
        Self::CareManagement,
        Self::PatientRequest,
        Self::PublicHealth,
        Self::Legal,
        Self::Emergency,
    ];

    /// The code of HL7 v3 ActReason.
    pub fn code(self) -> &'static str {
        match self {
            Self::Treatment => "TREAT",
            Self::CareManagement => "CAREMGT",
            Self::PatientRequest => "PATRQT",
            Self::PublicHealth => "PUBHLTH",
            Self::Legal => "HLEGAL",
            Self::Emergency => "ETREAT",
        }
    }
}

/// What the Consent of a grant says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    /// Whose records are opened.
    pub patient: RecordId,
    /// To whom and until when.
    pub grant: Grant,
    /// For what.
    pub purpose: Purpose,
    /// Who has given it.
    pub giver: OrgId,
    /// When, in milliseconds since 1970.
    pub given_at: i64,
    /// Whether it has been ended before its time.
    pub ended: bool,
}

/// The record of a grant.
pub fn record(grant: GrantId) -> RecordId {
    RecordId::new(TYPE, &grant.to_string()).expect("32 digits are an id")
}

impl Permission {
    /// As a Consent (FHIR R4; ppc-1 asks for a policy).
    pub fn to_resource(&self) -> Value {
        let org =
            |org: &OrgId| json!({"type": "Organization", "identifier": {"system": ORG_SYSTEM, "value": org}});
        json!({
            "resourceType": TYPE,
            "id": self.grant.id.to_string(),
            "identifier": [{"system": GRANT, "value": self.grant.id.to_string()}],
            "status": if self.ended { "inactive" } else { "active" },
            "scope": {"coding": [{
                "system": "http://terminology.hl7.org/CodeSystem/consentscope", "code": "patient-privacy",
            }]},
            "category": [{"coding": [{"system": "http://loinc.org", "code": "59284-0"}]}],
            "patient": {"reference": self.patient.to_string()},
            "dateTime": rfc3339(self.given_at),
            "organization": [org(&self.giver)],
            "policyRule": {"text": "one organization of the tree opens a patient's records to another for a time"},
            "provision": {
                "type": "permit",
                "period": {"start": rfc3339(self.given_at), "end": rfc3339(self.grant.until)},
                "actor": [{
                    "role": {"coding": [{
                        "system": "http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "code": "IRCP",
                    }]},
                    "reference": org(&self.grant.to),
                }],
                "purpose": [{"system": ACT_REASON, "code": self.purpose.code()}],
            },
        })
    }

    /// Reads a Consent; none when it is of no grant.
    pub fn read(resource: &str) -> Option<Self> {
        let resource: Value = serde_json::from_str(resource).ok()?;
        let provision = &resource["provision"];
        let org = |value: &Value| OrgId::new(value["identifier"]["value"].as_str()?).ok();
        let code = provision["purpose"][0]["code"].as_str()?;
        (resource["identifier"][0]["system"] == GRANT).then_some(())?;
        Some(Self {
            patient: resource["patient"]["reference"].as_str()?.parse().ok()?,
            grant: Grant {
                id: resource["id"].as_str()?.parse().ok()?,
                to: org(&provision["actor"][0]["reference"])?,
                until: millis(provision["period"]["end"].as_str()?)?,
            },
            purpose: Purpose::ALL.into_iter().find(|purpose| purpose.code() == code)?,
            giver: org(&resource["organization"][0])?,
            given_at: millis(resource["dateTime"].as_str()?)?,
            ended: resource["status"] != "active",
        })
    }
}

/// A look-up in an emergency, by which an organization asks for the records of a patient whom it has before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookUp {
    /// The name of the grant that it asks for.
    pub grant: GrantId,
    /// Whose records.
    pub patient: RecordId,
    /// Who asks.
    pub by: OrgId,
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// Why.
    pub why: String,
}

/// The record of a look-up.
pub fn look_up_record(grant: GrantId) -> RecordId {
    RecordId::new("AuditEvent", &grant.to_string()).expect("32 digits are an id")
}

impl LookUp {
    /// As an AuditEvent (FHIR R4).
    pub fn to_resource(&self) -> Value {
        let org = json!({"identifier": {"system": ORG_SYSTEM, "value": self.by}});
        json!({
            "resourceType": "AuditEvent",
            "id": self.grant.to_string(),
            "type": {"system": DICOM, "code": "110113"},
            "subtype": [{"system": DICOM, "code": OVERRIDE_STARTED}],
            "action": "R",
            "recorded": rfc3339(self.at),
            "outcome": "0",
            "purposeOfEvent": [{
                "coding": [{"system": ACT_REASON, "code": Purpose::Emergency.code()}],
                "text": self.why,
            }],
            "agent": [{"who": org, "requestor": true}],
            "source": {"observer": org},
            "entity": [{"what": {"reference": self.patient.to_string()}}],
        })
    }

    /// Reads an AuditEvent; none when it is no look-up.
    pub fn read(resource: &str) -> Option<Self> {
        let may_be = resource.contains(OVERRIDE_STARTED);
        let resource: Value = may_be.then(|| serde_json::from_str(resource).ok()).flatten()?;
        let subtype = &resource["subtype"][0];
        let is_one = resource["resourceType"] == "AuditEvent"
            && subtype["system"] == DICOM
            && subtype["code"] == OVERRIDE_STARTED;
        is_one.then_some(())?;
        Some(Self {
            grant: resource["id"].as_str()?.parse().ok()?,
            patient: resource["entity"][0]["what"]["reference"].as_str()?.parse().ok()?,
            by: OrgId::new(resource["agent"][0]["who"]["identifier"]["value"].as_str()?).ok()?,
            at: millis(resource["recorded"].as_str()?)?,
            why: resource["purposeOfEvent"][0]["text"].as_str()?.to_owned(),
        })
    }
}

/// A time as FHIR's `instant`, from milliseconds since 1970. What is beyond the year 9999 is its end.
pub fn rfc3339(millis: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000).ok();
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| "9999-12-31T23:59:59Z".to_owned())
}

fn millis(text: &str) -> Option<i64> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn org(name: &str) -> OrgId {
        OrgId::new(name).unwrap()
    }

    #[test]
    fn a_permission_is_a_consent_and_comes_back() {
        for (purpose, ended) in Purpose::ALL.into_iter().zip([true, false].into_iter().cycle()) {
            let permission = Permission {
                patient: "Patient/8f21".parse().unwrap(),
                grant: Grant { id: GrantId([7; 16]), to: org("hoi-dong"), until: 1_900_000_000_123 },
                purpose,
                giver: org("dong-van"),
                given_at: 1_800_000_000_456,
                ended,
            };
            let resource = permission.to_resource();
            assert_eq!(Permission::read(&resource.to_string()), Some(permission));
            assert_eq!(sync_core::scope::compartment::patients(&resource).len(), 1, "it is the patient's");
            let mut other = resource;
            other["identifier"][0]["system"] = "urn:other".into();
            assert_eq!(Permission::read(&other.to_string()), None);
        }
        assert_eq!(Permission::read("{"), None);
        assert_eq!(record(GrantId([7; 16])).to_string(), format!("Consent/{}", "07".repeat(16)));
    }

    #[test]
    fn a_look_up_is_an_audit_event_about_the_patient() {
        let look_up = LookUp {
            grant: GrantId([9; 16]),
            patient: "Patient/8f21".parse().unwrap(),
            by: org("quan-ba"),
            at: 1_800_000_000_456,
            why: "unconscious after an accident".to_owned(),
        };
        let resource = look_up.to_resource();
        assert_eq!(LookUp::read(&resource.to_string()), Some(look_up.clone()));
        assert_eq!(sync_core::scope::compartment::patients(&resource), [look_up.patient]);
        let mut other = resource;
        other["subtype"][0]["code"] = "110126".into();
        assert_eq!(LookUp::read(&other.to_string()), None);
        assert_eq!(LookUp::read("110127"), None);
    }

    #[test]
    fn times_are_instants() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(i64::MAX), "9999-12-31T23:59:59Z");
        assert_eq!(millis("2027-03-01T00:00:00.5+07:00"), Some(1_803_834_000_500));
        assert_eq!(millis("soon"), None);
    }
}
