//! What is said of certificates: tokens for them, requests and answers that go as files, and their end.

use serde::{Deserialize, Serialize};
use sync_core::{
    id::{NodeId, OrgPath},
    identity::Role,
};

/// Answer to [`super::Request::Admit`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Admitted {
    /// The node that has asked.
    pub node: NodeId,
    /// Its place.
    pub place: OrgPath,
    /// Its role.
    pub role: Role,
    /// Whether it had certificates, and has asked for the next.
    pub renewed: bool,
    /// The end of the node's new certificate, in milliseconds since 1970.
    pub until: i64,
    /// What the file of the answer holds.
    pub answer: String,
}

/// Answer to [`super::Request::RenewalRequest`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RenewalRequested {
    /// Where this node stands.
    pub place: OrgPath,
    /// Who is asked.
    pub parent: OrgPath,
    /// The end of the certificate that this node has, in milliseconds since 1970.
    pub until: i64,
    /// What the file of the request holds.
    pub request: String,
}

/// Answer to [`super::Request::RenewalAnswer`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Renewed {
    /// The place that the new certificates are for.
    pub place: OrgPath,
    /// The end of the node's new certificate, in milliseconds since 1970.
    pub until: i64,
}

/// Answer to [`super::Request::Invite`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Invited {
    /// The token, to be shown once.
    pub token: String,
    /// Until when it is good, in milliseconds since 1970.
    pub expires_at: i64,
}

/// Answer to [`super::Request::Revoke`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Revoked {
    /// The nodes whose certificates are revoked.
    pub nodes: Vec<NodeId>,
    /// How many tokens that nobody had used were taken back.
    pub tokens: usize,
    /// Where the organization stands by now, if not below this node: it may have certificates from there.
    #[serde(default)]
    pub elsewhere: Option<OrgPath>,
}

/// Answer to [`super::Request::Replace`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Replaced {
    /// The nodes whose certificates are revoked.
    pub nodes: Vec<NodeId>,
    /// What the new machine will be.
    pub role: Role,
    /// Its token, to be shown once.
    pub invited: Invited,
    /// How many tokens that nobody had used were taken back, as when it is replaced twice.
    #[serde(default)]
    pub tokens: usize,
}
