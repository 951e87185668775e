//! The CA's book: whom this node has invited, and what it has issued. Kept whole as one setting of the store.

use serde::{Deserialize, Serialize};
use sync_core::{id::NodeId, identity::NodeInfo, store::StoreError};

use crate::{
    ca::{Invite, Issued, SecretHash},
    store::SqliteStore,
};

const SETTING: &str = "ca-book";

/// Invitations and certificates of this node's CA.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Book {
    invites: Vec<(SecretHash, Invite)>,
    issued: Vec<Issued>,
}

impl Book {
    /// Reads the book.
    pub fn load(store: &SqliteStore) -> Result<Self, StoreError> {
        let Some(bytes) = store.setting(SETTING)? else { return Ok(Self::default()) };
        serde_json::from_slice(&bytes)
            .map_err(|error| StoreError(format!("the CA's book is damaged: {error}")))
    }

    fn save(&self, store: &mut SqliteStore) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(self).expect("the book is plain data");
        store.set_setting(SETTING, &bytes)
    }

    /// Remembers an invitation.
    pub fn invite(
        &mut self,
        secret: SecretHash,
        invite: Invite,
        store: &mut SqliteStore,
    ) -> Result<(), StoreError> {
        self.invites.push((secret, invite));
        self.save(store)
    }

    /// The invitation of a secret.
    pub fn find(&self, secret: &SecretHash) -> Option<&Invite> {
        self.invites.iter().find(|(hash, _)| hash == secret).map(|(_, invite)| invite)
    }

    /// An invitation is used, and this was issued.
    pub fn redeem(
        &mut self,
        secret: &SecretHash,
        issued: Issued,
        store: &mut SqliteStore,
    ) -> Result<(), StoreError> {
        if let Some((_, invite)) = self.invites.iter_mut().find(|(hash, _)| hash == secret) {
            invite.used_by = Some(issued.node);
        }
        self.issue(issued, store)
    }

    /// The CA of a node that this node has enrolled as a hub.
    pub fn ca_of(&self, node: &NodeInfo) -> Option<NodeId> {
        self.issued.iter().rev().find(|one| is_of(one, node)).and_then(|one| one.ca)
    }

    /// A node has got certificates: they take the place of those before.
    pub fn issue(&mut self, issued: Issued, store: &mut SqliteStore) -> Result<(), StoreError> {
        let node = NodeInfo { node: issued.node, place: issued.place.clone(), role: issued.role };
        self.issued.retain(|one| !is_of(one, &node));
        self.issued.push(issued);
        self.save(store)
    }

    /// What was issued, oldest first.
    pub fn issued(&self) -> &[Issued] {
        &self.issued
    }
}

fn is_of(issued: &Issued, node: &NodeInfo) -> bool {
    (issued.node, &issued.place, issued.role) == (node.node, &node.place, node.role)
}
