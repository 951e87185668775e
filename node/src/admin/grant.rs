//! Grants of patients' records, and look-ups in an emergency.

use serde::{Deserialize, Serialize};
use sync_core::id::{OrgId, OrgPath, RecordId};

use crate::fhir::consent::Purpose;

/// A grant to be given.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Give {
    /// The Patient record; everything about the patient goes with it.
    pub patient: RecordId,
    /// To whom.
    pub to: OrgId,
    /// Until when, in milliseconds since 1970.
    pub until: i64,
    /// For what.
    pub purpose: Purpose,
    /// Who gives it.
    pub by: Option<String>,
    /// Why.
    pub why: String,
}

/// Answer to [`super::Request::Give`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Given {
    /// Its name, in hexadecimal; its record is the Consent of this id.
    pub grant: String,
    /// Records that were opened, the patient's and the Consent among them.
    pub records: u64,
    /// Records about the patient that are secret and were not.
    pub secret: u64,
    /// Whether this node has heard of the organization.
    pub is_heard_of: bool,
}

/// Answer to [`super::Request::Grants`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Grants {
    /// By when they end.
    pub grants: Vec<GrantInfo>,
}

/// A grant, as this node knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GrantInfo {
    /// Its name, in hexadecimal.
    pub grant: String,
    /// The Patient record; none, as below, where its Consent is not here.
    pub patient: Option<RecordId>,
    /// To whom.
    pub to: OrgId,
    /// Who may hold them in its place, because it is closed.
    #[serde(default)]
    pub successor: Option<OrgId>,
    /// Where that stands; none when this node has not heard of it.
    pub place: Option<OrgPath>,
    /// Until when, in milliseconds since 1970.
    pub until: i64,
    /// For what.
    pub purpose: Option<Purpose>,
    /// Who has given it.
    pub giver: Option<OrgId>,
    /// When, in milliseconds since 1970.
    pub given_at: Option<i64>,
    /// Whether somebody has ended it before its time.
    pub ended: bool,
    /// Records here that have it.
    pub records: u64,
    /// Those of them that are open by it.
    pub open: u64,
}

/// Answer to [`super::Request::EndGrant`].
#[derive(Debug, Serialize, Deserialize)]
pub struct GrantEnded {
    /// Its name, in hexadecimal.
    pub grant: String,
    /// The Patient record.
    pub patient: RecordId,
    /// To whom it was given.
    pub to: OrgId,
    /// Who held them in its place, because it is closed.
    #[serde(default)]
    pub successor: Option<OrgId>,
    /// Records that are not open by it any more.
    pub records: u64,
    /// Other grants by which they are open to the same organization, or its successor, all the same.
    #[serde(default)]
    pub still_open_by: Vec<String>,
    /// Whether it holds them without any grant: it is the patient's home by now, or stands above that.
    #[serde(default)]
    pub holds_by_right: bool,
    /// Whether this node has heard of it.
    #[serde(default = "yes")]
    pub is_heard_of: bool,
}

fn yes() -> bool {
    true
}

/// Answer to [`super::Request::LookUp`].
#[derive(Debug, Serialize, Deserialize)]
pub struct LookedUp {
    /// The name of the grant that was asked for.
    pub grant: String,
    /// Whether there is a link to the parent.
    pub is_linked: bool,
}
