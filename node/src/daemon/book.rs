//! The CA's book: whom this node has invited, and what it has issued. Kept whole as one setting of the store.

use serde::{Deserialize, Serialize};
use sync_core::{
    id::{NodeId, OrgId},
    identity::{NodeInfo, Role, Serial},
    store::StoreError,
};

use crate::{
    ca::{Invite, Issued, SecretHash, TokenName},
    store::SqliteStore,
};

const SETTING: &str = "ca-book";

/// Invitations and certificates of this node's CA.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Book {
    invites: Vec<(SecretHash, Invite)>,
    issued: Vec<Issued>,
    /// Certificates of places that their nodes have been moved from, and have newer ones.
    #[serde(default)]
    ended: Vec<Issued>,
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

    /// Takes back the invitations of an organization that nobody has used; gives how many. Those that have expired do not count.
    pub fn withdraw(&mut self, org: &OrgId, now: i64, store: &mut SqliteStore) -> Result<usize, StoreError> {
        let open = |invite: &&mut Invite| {
            invite.org == *org && invite.used_by.is_none() && !invite.withdrawn && invite.expires > now
        };
        let invites = self.invites.iter_mut().map(|(_, invite)| invite);
        let withdrawn = invites.filter(open).map(|invite| invite.withdrawn = true).count();
        if withdrawn > 0 {
            self.save(store)?;
        }
        Ok(withdrawn)
    }

    /// The invitation of a token.
    pub fn find(&self, token: &TokenName) -> Option<&(SecretHash, Invite)> {
        self.invites.iter().find(|(secret, _)| secret.name() == *token)
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

    /// What this node has last issued to another.
    pub fn last_of(&self, node: NodeId, role: Role) -> Option<&Issued> {
        self.issued.iter().rev().find(|one| (one.node, one.role) == (node, role))
    }

    /// A node has come with this certificate. When it is the last that it was given, those of other places end; gives them.
    pub fn shown(
        &mut self,
        node: NodeId,
        serial: &Serial,
        store: &mut SqliteStore,
    ) -> Result<Vec<Serial>, StoreError> {
        let of_node = |one: &Issued| one.node == node;
        let Some(last) =
            self.issued.iter().rev().find(|one| of_node(one)).filter(|one| one.serial == *serial)
        else {
            return Ok(Vec::new());
        };
        let last = last.place.clone();
        let (old, issued) =
            std::mem::take(&mut self.issued).into_iter().partition(|one| of_node(one) && one.place != last);
        self.issued = issued;
        if old.is_empty() {
            return Ok(Vec::new());
        }
        let serials = old.iter().map(|one: &Issued| one.serial.clone()).collect();
        self.ended.extend(old);
        self.save(store)?;
        Ok(serials)
    }

    /// The certificates that have ended before their time; those whose time has come are forgotten.
    pub fn ended(&mut self, now: i64) -> impl Iterator<Item = &Serial> {
        self.ended.retain(|one| one.not_after > now);
        self.ended.iter().map(|one| &one.serial)
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
