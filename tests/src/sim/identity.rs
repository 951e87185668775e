//! Identity without cryptography: a signature is a hash that names its signer, a certificate is the node's name
//! padded to the size of a real one.
//!
//! A node's identity is shared by all machines that run under it; each machine has its own source of fresh
//! names, unless a world wants two to mint the same.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use sha2::{Digest, Sha256};
use sync_core::{
    engine::Identity,
    feed::Position,
    id::{Incarnation, NodeId},
    identity::{Announcement, Authority, NodeInfo, Reason, Refusal, Revocation, Role},
    order::{Order, Step},
    scope::Places,
};

use super::rng::Rng;

/// A certificate of ours is 400 to 900 bytes.
const CERTIFICATE_BYTES: usize = 420;
/// Ed25519's.
const SIGNATURE_BYTES: usize = 64;

/// Every node of the world: what stands in its certificate.
pub type Registry = Rc<BTreeMap<NodeId, NodeInfo>>;

/// The nodes whose certificates have ended and who have no others yet: everybody sees that, whatever clock they have.
pub type Expired = Rc<RefCell<BTreeSet<NodeId>>>;

/// The identity of one running machine.
#[derive(Clone)]
pub struct SimIdentity {
    registry: Registry,
    expired: Expired,
    info: NodeInfo,
    names: RefCell<Rng>,
    revoked: RefCell<BTreeSet<NodeId>>,
}

impl SimIdentity {
    /// The identity of this node, on a machine with this source of fresh names.
    pub fn new(registry: &Registry, expired: &Expired, info: &NodeInfo, names: Rng) -> Self {
        let (registry, expired, info) = (registry.clone(), expired.clone(), info.clone());
        Self { registry, expired, info, names: RefCell::new(names), revoked: RefCell::default() }
    }

    /// A revocation is durable at this machine.
    pub fn revoke(&self, revocation: &Revocation) {
        self.revoked.borrow_mut().insert(revocation.node);
    }

    /// Whether this machine knows that a node is revoked.
    pub fn has_revoked(&self, node: NodeId) -> bool {
        self.revoked.borrow().contains(&node)
    }

    /// Another node's revocation, signed by this one.
    pub fn revocation_of(&self, other: &NodeInfo, at: i64) -> Revocation {
        let mut revocation = Revocation {
            node: other.node,
            serial: None,
            place: other.place.clone(),
            reason: Reason::Lost,
            at,
            signer: self.info.node,
            signature: Vec::new(),
            chain: Self::chain(self.info.node),
        };
        revocation.signature = Self::signature_of(self.info.node, &revocation.to_be_signed());
        revocation
    }

    /// An order, signed by this node.
    pub fn order_of(&self, number: u64, at: i64, steps: Vec<Step>) -> Order {
        let (signer, chain) = (self.info.node, Self::chain(self.info.node));
        let mut order = Order { number, at, steps, signer, signature: Vec::new(), chain };
        order.signature = Self::signature_of(signer, &order.to_be_signed());
        order
    }

    /// After a snapshot of a running machine, both copies have the same source of names; this gives one of them
    /// another.
    pub fn reseed(&self, names: Rng) {
        *self.names.borrow_mut() = names;
    }

    /// The node's certificate and its issuer's.
    pub fn chain(node: NodeId) -> Vec<Vec<u8>> {
        let certificate = |tag: u8| {
            let mut bytes = node.0.to_vec();
            bytes.resize(CERTIFICATE_BYTES, tag);
            bytes
        };
        vec![certificate(1), certificate(2)]
    }

    /// What a node's signature of a statement looks like.
    pub fn signature_of(node: NodeId, statement: &[u8]) -> Vec<u8> {
        let mut hasher = Sha256::new();
        hasher.update(node.0);
        hasher.update(statement);
        let mut signature = hasher.finalize().to_vec();
        signature.resize(SIGNATURE_BYTES, 0);
        signature
    }
}

impl Authority for SimIdentity {
    fn verify(&self, announcement: &Announcement) -> Result<NodeInfo, Refusal> {
        let chain_fits = announcement.chain == Self::chain(announcement.node);
        let genuine =
            announcement.signature == Self::signature_of(announcement.node, &announcement.signed_bytes());
        match self.registry.get(&announcement.node) {
            Some(info) if chain_fits && genuine => Ok(info.clone()),
            _ => Err(Refusal::BadSignature { what: "an announcement" }),
        }
    }

    fn admit(&self, chain: &[Vec<u8>]) -> Result<(), Refusal> {
        let is = |node: &&NodeId| Self::chain(**node) == chain;
        if let Some(node) = self.revoked.borrow().iter().find(is) {
            return Err(Refusal::Revoked { who: node.to_string(), ca: false, reason: Reason::Lost, at: 0 });
        }
        match self.expired.borrow().iter().find(is) {
            Some(node) => Err(Refusal::Expired { who: node.to_string(), until: 0, now: 1 }),
            None => Ok(()),
        }
    }

    fn verify_order(&self, order: &Order) -> Result<(), Refusal> {
        let genuine = order.chain == Self::chain(order.signer)
            && order.signature == Self::signature_of(order.signer, &order.to_be_signed());
        match self.registry.get(&order.signer) {
            Some(signer) if genuine && signer.role == Role::Root => Ok(()),
            _ => Err(Refusal::BadSignature { what: "an order" }),
        }
    }

    fn verify_issued(
        &self,
        author: &Announcement,
        statement: &[u8],
        signature: &[u8],
    ) -> Result<(), Refusal> {
        if signature == Self::signature_of(author.node, statement) {
            return Ok(());
        }
        Err(Refusal::BadSignature { what: "an issued record" })
    }

    fn verify_revocation(&self, revocation: &Revocation, places: &Places) -> Result<(), Refusal> {
        let genuine = revocation.chain == Self::chain(revocation.signer)
            && revocation.signature == Self::signature_of(revocation.signer, &revocation.to_be_signed());
        match self.registry.get(&revocation.signer) {
            Some(signer)
                if genuine
                    && signer.role != Role::Leaf
                    && places.covers(&signer.place, &revocation.place) =>
            {
                Ok(())
            }
            _ => Err(Refusal::BadSignature { what: "a revocation" }),
        }
    }
}

impl Identity for SimIdentity {
    fn info(&self) -> &NodeInfo {
        &self.info
    }

    fn mint(&self) -> Incarnation {
        Incarnation::of(self.info.node, self.names.borrow_mut().array())
    }

    fn sign(&self, statement: &[u8]) -> Vec<u8> {
        Self::signature_of(self.info.node, statement)
    }

    fn announce(&self, incarnation: Incarnation, parent: Option<Position>) -> Announcement {
        let parent = parent.map(|at| (at.segment, at.pos));
        let node = self.info.node;
        let signature = Self::signature_of(node, &Announcement::to_be_signed(incarnation, parent, node));
        Announcement { incarnation, parent, node, signature, chain: Self::chain(node) }
    }
}
