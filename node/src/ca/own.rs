//! This node's identity as the engine sees it.
//!
//! What always holds: it speaks for the node whose key it holds, and judges others by the shared
//! [`TrustStore`]. An expired certificate is no obstacle here: expiry ends sync, never local work.

use std::sync::{Arc, PoisonError, RwLock};

use sync_core::{
    engine,
    feed::Position,
    id::Incarnation,
    identity::{Announcement, Authority, NodeInfo, Refusal, Revocation},
    order::Order,
    scope::Places,
};

use super::trust::{TrustStore, When, announce};
use crate::keys::Identity;

/// A node's own key and certificates, with the trust store to judge others by. Clones share both.
#[derive(Clone, Debug)]
pub struct Own {
    identity: Arc<RwLock<Arc<Identity>>>,
    trust: Arc<TrustStore>,
    info: NodeInfo,
}

impl Own {
    /// Checks that the certificates lead to the root and are for this key.
    pub fn new(identity: Arc<Identity>, trust: Arc<TrustStore>) -> Result<Self, Refusal> {
        let info = trust.verify_chain(&identity.chain, When::Issued)?.info;
        let found = identity.key.id();
        if info.node != found {
            return Err(Refusal::OtherNode { expected: info.node, found });
        }
        Ok(Self { identity: Arc::new(RwLock::new(identity)), trust, info })
    }

    /// The key and the certificates.
    pub fn files(&self) -> Arc<Identity> {
        self.identity.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes renewed certificates of the same key and role for what is signed from now on.
    pub fn renew(&self, identity: Arc<Identity>) {
        *self.identity.write().unwrap_or_else(PoisonError::into_inner) = identity;
    }

    /// Whom this node trusts.
    pub fn trust(&self) -> &Arc<TrustStore> {
        &self.trust
    }
}

impl Authority for Own {
    fn verify(&self, announcement: &Announcement) -> Result<NodeInfo, Refusal> {
        self.trust.verify(announcement)
    }

    fn admit(&self, chain: &[Vec<u8>]) -> Result<(), Refusal> {
        self.trust.admit(chain)
    }

    fn verify_issued(
        &self,
        author: &Announcement,
        statement: &[u8],
        signature: &[u8],
    ) -> Result<(), Refusal> {
        self.trust.verify_issued(author, statement, signature)
    }

    fn verify_revocation(&self, revocation: &Revocation, places: &Places) -> Result<(), Refusal> {
        self.trust.verify_revocation(revocation, places)
    }

    fn verify_order(&self, order: &Order) -> Result<(), Refusal> {
        self.trust.verify_order(order)
    }
}

impl engine::Identity for Own {
    fn info(&self) -> &NodeInfo {
        &self.info
    }

    fn mint(&self) -> Incarnation {
        let mut fresh = [0; Incarnation::FRESH_LEN];
        getrandom::fill(&mut fresh).expect("a system that made this node's keys has randomness");
        Incarnation::of(self.info.node, fresh)
    }

    fn sign(&self, statement: &[u8]) -> Vec<u8> {
        self.files().key.sign(statement)
    }

    fn announce(&self, incarnation: Incarnation, parent: Option<Position>) -> Announcement {
        announce(&self.files(), incarnation, parent.map(|last| (last.segment, last.pos)))
    }
}
