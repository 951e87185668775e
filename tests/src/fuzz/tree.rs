//! A tree with keys and certificates that are real, for targets that seal and sign.
//!
//! Every key is made of a number, and the root's certificates are files, so each node has the same name every time. The
//! numbers of the other certificates are random, and so are seals: nothing that a target looks at depends on them. Not
//! here: certificates whose keys nobody has (`identity`).

use std::{
    cell::Cell,
    sync::{Arc, LazyLock},
};

use data_encoding::{BASE64, HEXLOWER};
use node::{
    ca::{Ca, Order, Own, TrustStore, TrustedClock},
    keys::{CaFiles, Identity, Key},
};
use sync_core::{
    engine,
    feed::Position,
    id::Incarnation,
    identity::{Announcement, Authority, NodeInfo, Refusal, Revocation, Role},
    order,
    scope::Places,
};

use crate::conformance::org;

/// 2026-12-01: the root was founded the day before.
pub const NOW: i64 = 1_796_083_200_000;
/// A day in milliseconds.
pub const DAY: i64 = 86_400_000;
/// Of what the keys of the root were made, in hexadecimal: of its node, and of its CA.
const ROOT_SEEDS: [&str; 2] = [
    "1e5dddd1a93f0c43ccc9ff2fbabf278491a1661b866bd6d6f854f016c32b2c03",
    "3e02c82279653374d33b902a7a596f0a6edc2916438f308f821ebf1b00ef7d9f",
];
/// What stands before the seed of an Ed25519 key in PKCS#8 (RFC 8410).
const PKCS8_PREFIX: &str = "302e020100300506032b657004220420";

/// The tree: `trung-uong` with the hubs `ha-giang` and `cao-bang` below it; below `ha-giang` two leaves.
pub struct Tree {
    pub root: Own,
    pub ha_giang: Own,
    pub cao_bang: Own,
    pub dong_van: Own,
    pub meo_vac: Own,
}

/// Made once.
pub static TREE: LazyLock<Tree> = LazyLock::new(|| {
    let root_ca: &[u8] = include_bytes!("certificates/known-root-ca.der");
    let root_node: &[u8] = include_bytes!("certificates/known-root.der");
    let [own, ca] = ROOT_SEEDS.map(key_of_seed);
    let root = Identity {
        key: own,
        chain: vec![root_node.into()],
        root: root_ca.into(),
        ca: Some(CaFiles { key: ca, chain: Vec::new() }),
    };
    let ha_giang = child(&root, "ha-giang", key(3), Some(key(4)), NOW);
    Tree {
        cao_bang: judging(child(&root, "cao-bang", key(5), Some(key(6)), NOW)),
        dong_van: judging(child(&ha_giang, "dong-van", key(7), None, NOW)),
        meo_vac: judging(child(&ha_giang, "meo-vac", key(8), None, NOW)),
        root: judging(root),
        ha_giang: judging(ha_giang),
    }
});

/// The key of a number.
pub fn key(n: u8) -> Key {
    key_of_seed(&HEXLOWER.encode(&[n; 32]))
}

fn key_of_seed(seed: &str) -> Key {
    let der = HEXLOWER.decode(format!("{PKCS8_PREFIX}{seed}").as_bytes()).expect("these are digits");
    let body = BASE64.encode(&der);
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
    Key::from_pem(&pem).expect("any 32 bytes make a key")
}

/// A node directly below another, with certificates of this time: a hub when it has a key for a CA.
pub fn child(parent: &Identity, name: &str, key: Key, ca_key: Option<Key>, at: i64) -> Identity {
    let role = if ca_key.is_some() { Role::Hub } else { Role::Leaf };
    let order =
        Order { org: org(name), role, key: *key.public(), ca_key: ca_key.as_ref().map(|key| *key.public()) };
    let grant = Ca::of(parent).expect("it has a CA").issue(&order, at).expect("it may issue that");
    let ca = ca_key.zip(grant.ca_chain).map(|(key, chain)| CaFiles { key, chain });
    Identity { key, chain: grant.chain, root: grant.root, ca }
}

/// A node that judges others by its root.
pub fn judging(identity: Identity) -> Own {
    let clock = TrustedClock::with_wall(NOW, NOW);
    let trust = TrustStore::new(identity.root.clone(), clock).expect("a root CA");
    Own::new(Arc::new(identity), Arc::new(trust)).expect("its certificates are good")
}

/// A node of the tree whose runs have the same names every time.
#[derive(Clone)]
pub struct Known {
    own: Own,
    next_run: Cell<u8>,
}

impl Known {
    /// Its runs are counted from here.
    pub fn new(own: &Own, run: u8) -> Self {
        Self { own: own.clone(), next_run: Cell::new(run) }
    }

    /// What the node has.
    pub fn own(&self) -> &Own {
        &self.own
    }
}

/// The run of a node that has this number.
pub fn run_of(own: &Own, n: u8) -> Incarnation {
    Incarnation::of(engine::Identity::info(own).node, [n; Incarnation::FRESH_LEN])
}

impl Authority for Known {
    fn verify(&self, announcement: &Announcement) -> Result<NodeInfo, Refusal> {
        self.own.verify(announcement)
    }

    fn admit(&self, chain: &[Vec<u8>]) -> Result<(), Refusal> {
        self.own.admit(chain)
    }

    fn verify_issued(
        &self,
        author: &Announcement,
        statement: &[u8],
        signature: &[u8],
    ) -> Result<(), Refusal> {
        self.own.verify_issued(author, statement, signature)
    }

    fn verify_revocation(&self, revocation: &Revocation, places: &Places) -> Result<(), Refusal> {
        self.own.verify_revocation(revocation, places)
    }

    fn verify_order(&self, order: &order::Order) -> Result<(), Refusal> {
        self.own.verify_order(order)
    }
}

impl engine::Identity for Known {
    fn info(&self) -> &NodeInfo {
        self.own.info()
    }

    fn mint(&self) -> Incarnation {
        run_of(&self.own, self.next_run.replace(self.next_run.get().wrapping_add(1)))
    }

    fn sign(&self, statement: &[u8]) -> Vec<u8> {
        self.own.sign(statement)
    }

    fn announce(&self, incarnation: Incarnation, parent: Option<Position>) -> Announcement {
        self.own.announce(incarnation, parent)
    }
}
