//! What a node is to its engine: its certificates, its key, and the randomness for its runs.

use std::sync::Arc;

use sync_core::{
    engine,
    feed::Position,
    id::Incarnation,
    identity::{Announcement, Authority, NodeInfo, Refusal, Revocation},
};

use crate::{
    ca::{TrustStore, trust, trust::When},
    keys,
};

/// A node's identity, as its engine uses it.
#[derive(Clone)]
pub struct NodeIdentity {
    /// Keys and certificates.
    pub files: Arc<keys::Identity>,
    /// Whom it trusts.
    pub trust: Arc<TrustStore>,
    info: NodeInfo,
}

impl NodeIdentity {
    /// Follows the node's own chain to the root.
    pub fn new(files: Arc<keys::Identity>, trust: Arc<TrustStore>) -> Result<Self, Refusal> {
        let info = trust.verify_chain(&files.chain, When::Issued)?.info;
        Ok(Self { files, trust, info })
    }
}

impl Authority for NodeIdentity {
    fn verify(&self, announcement: &Announcement) -> Result<NodeInfo, Refusal> {
        self.trust.verify(announcement)
    }

    fn admit(&self, node: &NodeInfo) -> Result<(), Refusal> {
        self.trust.admit(node)
    }

    fn verify_revocation(&self, revocation: &Revocation) -> Result<(), Refusal> {
        self.trust.verify_revocation(revocation)
    }
}

impl engine::Identity for NodeIdentity {
    fn info(&self) -> &NodeInfo {
        &self.info
    }

    fn mint(&self) -> Incarnation {
        let mut bytes = [0; Incarnation::LEN];
        getrandom::fill(&mut bytes).expect("the system gives random bytes; without them no node can run");
        Incarnation(bytes)
    }

    fn announce(&self, incarnation: Incarnation, parent: Option<Position>) -> Announcement {
        trust::announce(&self.files, incarnation, parent.map(|at| (at.segment, at.pos)))
    }
}
