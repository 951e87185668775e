//! Where a record is sent and why, and to whom it is open.

use serde::{Deserialize, Serialize};
use sync_core::id::{OrgId, OrgPath, Secrecy};

/// Answer to [`super::Request::ExplainRecord`] and [`super::Request::ExplainOrg`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Explained {
    /// The place of the node that answers.
    pub own: OrgPath,
    /// Entries that it holds: of the record, or with the organization for their home.
    pub entries: u64,
    /// The organization that issues the record to everybody below.
    pub issuer: Option<OrgId>,
    /// How secret the record is here.
    #[serde(default)]
    pub secrecy: Secrecy,
    /// The record's homes, or the organization itself; with their places, where this node has heard of them.
    pub homes: Vec<Home>,
    /// Permissions to hold the record, also such as have ended.
    #[serde(default)]
    pub grants: Vec<GrantLine>,
    /// This node's neighbours, the parent first.
    pub neighbours: Vec<Destination>,
}

/// A home.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Home {
    /// The organization.
    pub org: OrgId,
    /// Where it stands.
    pub place: Option<OrgPath>,
}

/// A neighbour, and whether it is sent what was asked about.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Destination {
    /// Its place.
    pub place: OrgPath,
    /// Whether it is sent it.
    pub sent: bool,
    /// `everything_goes_up`, `home_within`, `issued_above`, `opened_within`, `no_home_within` or `secret`.
    pub reason: Reason,
    /// Of the changes with an organization for their home: how many are not sent, because they are more secret than the profiles of
    /// the link allow.
    #[serde(default)]
    pub held_back: u64,
    /// Of the records with an organization for their home, where none of them goes there for that: how many do by a grant.
    #[serde(default)]
    pub open: u64,
    /// Whether what the profiles of the link keep back may go there by bundle, as far as this node decides.
    #[serde(default)]
    pub by_bundle: bool,
}

/// Why something is sent to a neighbour, or is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It is the parent, who is sent everything.
    EverythingGoesUp,
    /// A home stands at the neighbour or below it.
    HomeWithin,
    /// An organization at the neighbour's place or above issues it.
    IssuedAbove,
    /// It is open to an organization at the neighbour's place or below it.
    OpenedWithin,
    /// It is not sent: no home stands at the neighbour or below it.
    NoHomeWithin,
    /// It is not sent: it is more secret than what the two profiles of the link allow.
    Secret,
}

/// A permission to hold a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantLine {
    /// Its name, in hexadecimal: what is opened together shares it.
    pub grant: String,
    /// Who may hold the record.
    pub to: OrgId,
    /// Who may in its place, because it is closed.
    #[serde(default)]
    pub successor: Option<OrgId>,
    /// Until when, in milliseconds since 1970.
    pub until: i64,
    /// Whether it has ended.
    pub over: bool,
}
