//! Trees made of real certificates, and everything that must not pass.

use std::str::FromStr;

use rustls::pki_types::CertificateDer;
use sync_core::{
    id::{Incarnation, NodeId, OrgId, OrgPath},
    identity::{Announcement, Authority, NodeInfo, Reason, Refusal, Role},
    order::Step,
    scope::Places,
};

use super::{
    certificate::{Facts, renew_root_node},
    enrol::{EnrolError, MemoryInvites, answer},
    token::{SECRET_BYTES, Secret},
    trust::{Fingerprint, When, announce, revoke, sign_revocation},
    *,
};
use crate::keys::{CaFiles, Identity, IdentityFolder, Key};

/// A day in 2026.
pub(crate) const NOW: i64 = 1_795_305_600_000;

pub(crate) fn org(name: &str) -> OrgId {
    OrgId::new(name).unwrap()
}

pub(crate) fn path(text: &str) -> OrgPath {
    OrgPath::from_str(text).unwrap()
}

/// A node directly below `parent`.
pub(crate) fn child(parent: &Identity, name: &str, role: Role) -> (Identity, Issued) {
    let key = Key::generate().unwrap();
    let ca_key = (role == Role::Hub).then(|| Key::generate().unwrap());
    let order =
        Order { org: org(name), role, key: *key.public(), ca_key: ca_key.as_ref().map(|k| *k.public()) };
    let grant = Ca::of(parent).unwrap().issue(&order, NOW).unwrap();
    let ca = ca_key.map(|key| CaFiles { key, chain: grant.ca_chain.clone().unwrap() });
    (Identity { key, chain: grant.chain, root: grant.root, ca }, grant.issued)
}

/// Root, hub and leaf of one tree.
pub(crate) struct Tree {
    pub root: Identity,
    pub hub: Identity,
    pub hub_issued: Issued,
    pub leaf: Identity,
    pub leaf_issued: Issued,
}

impl Tree {
    pub(crate) fn new() -> Self {
        let (root, _) = found(org("trung-uong"), NOW).unwrap();
        let (hub, hub_issued) = child(&root, "ha-giang", Role::Hub);
        let (leaf, leaf_issued) = child(&hub, "dong-van", Role::Leaf);
        Self { root, hub, hub_issued, leaf, leaf_issued }
    }

    pub(crate) fn trust(&self) -> TrustStore {
        TrustStore::new(self.root.root.clone(), TrustedClock::with_wall(0, NOW)).unwrap()
    }
}

fn below(ca: &Ca<'_>, name: &str) -> Vec<CertificateDer<'static>> {
    let key = *Key::generate().unwrap().public();
    ca.issue(&Order { org: org(name), role: Role::Leaf, key, ca_key: None }, NOW).unwrap().chain
}

#[test]
fn a_chain_says_who_and_where() {
    let tree = Tree::new();
    let trust = tree.trust();
    for (identity, place, role) in [
        (&tree.root, "trung-uong", Role::Root),
        (&tree.hub, "trung-uong/ha-giang", Role::Hub),
        (&tree.leaf, "trung-uong/ha-giang/dong-van", Role::Leaf),
    ] {
        let verified = trust.verify_chain(&identity.chain, When::Now(NOW)).unwrap();
        assert_eq!(verified.info, NodeInfo { node: identity.key.id(), place: path(place), role });
        assert!(identity.chain.iter().all(|der| der.len() < 900), "certificates are small");
    }
    assert_eq!(tree.leaf_issued.node, tree.leaf.key.id());
    assert_eq!(tree.hub_issued.ca, Some(tree.hub.ca.as_ref().unwrap().key.id()));
    let facts = Facts::read(&tree.leaf.chain[0]).unwrap();
    assert_eq!((facts.serial, facts.not_after), (tree.leaf_issued.serial, tree.leaf_issued.not_after));
    assert_eq!(facts.not_before, NOW - BACKDATE_MS);
    assert_eq!(facts.not_after, NOW + NODE_LIFETIME_MS);
    let (renewed, _) = renew_root_node(&tree.root, NOW + 1_000).unwrap();
    assert_eq!(trust.verify_chain(&[renewed], When::Now(NOW)).unwrap().info.role, Role::Root);
}

#[test]
fn another_tree_is_told_so() {
    let (tree, other) = (Tree::new(), Tree::new());
    let refusal = tree.trust().verify_chain(&other.leaf.chain, When::Now(NOW)).unwrap_err();
    assert!(matches!(&refusal, Refusal::WrongTree { .. }), "{refusal}");
    let without_hub = &tree.leaf.chain[..1];
    assert!(tree.trust().verify_chain(without_hub, When::Now(NOW)).is_err());
    assert_eq!(tree.trust().verify_chain(&[], When::Now(NOW)), Err(Refusal::NoCertificate));
}

#[test]
fn time_ends_sessions_but_never_history() {
    let tree = Tree::new();
    let trust = tree.trust();
    let late = NOW + NODE_LIFETIME_MS + 2_000;
    let refusal = trust.verify_chain(&tree.leaf.chain, When::Now(late)).unwrap_err();
    assert!(refusal.to_string().contains("expired on 2029-11-21 and it is 2029-11-21 here"), "{refusal}");
    // A clock that says 1970 is behind, whatever it says.
    for early in [0, 1_000, NOW - 10 * DAY] {
        trust.verify_chain(&tree.leaf.chain, When::Now(early)).unwrap();
    }
    let announcement = announce(&tree.leaf, Incarnation([1; 16]), None);
    let in_2099 =
        TrustStore::new(tree.root.root.clone(), TrustedClock::with_wall(0, 4_070_908_800_000)).unwrap();
    assert_eq!(in_2099.verify(&announcement).unwrap().node, tree.leaf.key.id());
}

#[test]
fn the_clock_never_falls_behind_what_the_tree_said() {
    let tree = Tree::new();
    let clock = TrustedClock::with_wall(0, 0);
    let trust = TrustStore::of(&tree.leaf, clock.clone()).unwrap();
    assert_eq!(trust.clock().now(), NOW - BACKDATE_MS);
    assert!(clock.learn(NOW) && !clock.learn(NOW - 1));
    assert_eq!((clock.now(), clock.last_known_good()), (NOW, NOW));
    let right = TrustedClock::with_wall(NOW, NOW + 5);
    assert_eq!(right.now(), NOW + 5);
    assert!(clock.is_lost() && !right.is_lost());
}

#[test]
fn a_hub_cannot_speak_outside_its_subtree() {
    let tree = Tree::new();
    let trust = tree.trust();
    let files = tree.hub.ca.as_ref().unwrap();
    for (pretended, place) in [
        ("trung-uong", "trung-uong/x"),
        ("trung-uong/cao-bang", "trung-uong/cao-bang/x"),
        ("trung-uong/ha-giang/dong-van", "trung-uong/ha-giang/dong-van/x"),
        ("elsewhere/ha-giang", "elsewhere/ha-giang/x"),
    ] {
        let forged = Ca::forged(&files.key, &files.chain, &tree.hub.root, path(pretended));
        let refusal = trust.verify_chain(&below(&forged, "x"), When::Now(NOW)).unwrap_err();
        let expected = Refusal::OutsideSubtree { place: place.into(), issuer: "trung-uong/ha-giang".into() };
        assert_eq!(refusal, expected);
    }
    // A leaf that issues is no CA, and a root's role is for the root alone.
    let forged =
        Ca::forged(&tree.leaf.key, &tree.leaf.chain, &tree.root.root, path("trung-uong/ha-giang/dong-van"));
    assert!(trust.verify_chain(&below(&forged, "x"), When::Now(NOW)).is_err());
    let leaf_as_ca =
        CaFiles { key: Key::from_pem(&tree.leaf.key.to_pem()).unwrap(), chain: tree.leaf.chain.clone() };
    let identity = Identity { ca: Some(leaf_as_ca), ..Tree::new().leaf };
    assert!(matches!(Ca::of(&identity), Err(CaError::Unusable(_))));
}

#[test]
fn trees_may_be_seven_cas_deep() {
    let (root, _) = found(org("o1"), NOW).unwrap();
    let trust = TrustStore::new(root.root.clone(), TrustedClock::with_wall(0, NOW)).unwrap();
    let mut parent = root;
    for depth in 2..=CA_MAX_DEPTH {
        parent = child(&parent, &format!("o{depth}"), Role::Hub).0;
        trust.verify_chain(&parent.chain, When::Now(NOW)).unwrap();
    }
    let (leaf, _) = child(&parent, "leaf", Role::Leaf);
    assert_eq!(trust.verify_chain(&leaf.chain, When::Now(NOW)).unwrap().info.place.depth(), 8);
    trust
        .verify(&Announcement::decode(&announce(&leaf, Incarnation([1; 16]), None).encode()).unwrap())
        .unwrap();
    let (key, ca_key) = (Key::generate().unwrap(), Key::generate().unwrap());
    let order = Order { org: org("x"), role: Role::Hub, key: *key.public(), ca_key: Some(*ca_key.public()) };
    let refused = Ca::of(&parent).unwrap().issue(&order, NOW).unwrap_err().to_string();
    assert!(refused.contains("seven levels"), "{refused}");
}

#[test]
fn nothing_outlives_its_issuer() {
    let tree = Tree::new();
    let ca = Ca::of(&tree.root).unwrap();
    let end = Facts::read(&tree.root.root).unwrap().not_after;
    let order = Order { org: org("x"), role: Role::Leaf, key: *tree.leaf.key.public(), ca_key: None };
    assert_eq!(ca.issue(&order, end - DAY).unwrap().issued.not_after, end);
    let error = ca.issue(&order, end).unwrap_err().to_string();
    assert!(error.contains("set the clock right"), "{error}");
    let facts = Facts::read(&tree.leaf.chain[0]).unwrap();
    assert!(!facts.renewal_due(NOW + 300 * DAY) && facts.renewal_due(NOW + 366 * DAY));
    assert!(!facts.renewal_overdue(NOW + 700 * DAY) && facts.renewal_overdue(NOW + 731 * DAY));
}

#[test]
fn every_change_to_an_announcement_shows() {
    let tree = Tree::new();
    let trust = tree.trust();
    let good = announce(&tree.leaf, Incarnation([1; 16]), Some((Incarnation([2; 16]), 9)));
    assert_eq!(trust.verify(&good).unwrap().place, path("trung-uong/ha-giang/dong-van"));
    let hub_chain = announce(&tree.hub, Incarnation([1; 16]), None).chain;
    let bad_signature = Refusal::BadSignature { what: "an announcement" };
    for changed in [
        Announcement { incarnation: Incarnation([3; 16]), ..good.clone() },
        Announcement { parent: None, ..good.clone() },
        Announcement { parent: Some((Incarnation([2; 16]), 8)), ..good.clone() },
        Announcement { signature: vec![0; 64], ..good.clone() },
        Announcement { signature: Vec::new(), ..good.clone() },
    ] {
        assert_eq!(trust.verify(&changed), Err(bad_signature.clone()));
    }
    let stolen = Announcement { chain: hub_chain, ..good.clone() };
    assert!(matches!(trust.verify(&stolen), Err(Refusal::OtherNode { .. })));
    let renamed = Announcement { node: NodeId([0; 16]), ..good.clone() };
    assert!(matches!(trust.verify(&renamed), Err(Refusal::OtherNode { .. })));
    for i in (0..good.chain[0].len()).step_by(7) {
        let mut changed = good.clone();
        changed.chain[0][i] ^= 1;
        assert!(trust.verify(&changed).is_err(), "byte {i} of the certificate");
    }
}

#[test]
fn the_engine_sees_an_identity() {
    use sync_core::engine::Identity as _;
    let tree = Tree::new();
    let (trust, place) = (std::sync::Arc::new(tree.trust()), tree.leaf_issued.place.clone());
    let own = Own::new(std::sync::Arc::new(tree.leaf), trust).unwrap();
    assert_eq!((&own.info().place, own.info().role), (&place, Role::Leaf));
    let (run, before) = (own.mint(), own.mint());
    assert_ne!(run, before);
    let announcement = own.announce(run, Some((before, 7).into()));
    assert_eq!(announcement.parent, Some((before, 7)));
    assert_eq!(&own.verify(&announcement).unwrap(), own.info());
}

#[test]
fn a_revoked_node_may_not_speak_but_its_history_stays() {
    let tree = Tree::new();
    let trust = tree.trust();
    let chain = announce(&tree.leaf, Incarnation([1; 16]), None).chain;
    let revocations = revoke(&tree.hub, &tree.leaf_issued, Reason::Lost, NOW);
    assert_eq!(revocations.len(), 1);
    trust.verify_revocation(&revocations[0], &Places::default()).unwrap();
    trust.admit(&chain).unwrap();
    trust.revoke(&revocations[0]).unwrap();
    trust.revoke(&revocations[0]).unwrap();
    let refusal = trust.verify_chain(&tree.leaf.chain, When::Now(NOW)).unwrap_err();
    assert!(refusal.to_string().contains("was revoked on 2026-11-22: the machine was lost"), "{refusal}");
    assert_eq!(trust.admit(&chain).unwrap_err(), refusal);
    trust.verify(&announce(&tree.leaf, Incarnation([1; 16]), None)).unwrap();
    trust.verify_chain(&tree.hub.chain, When::Now(NOW)).unwrap();
}

#[test]
fn a_revoked_hub_takes_its_ca_with_it() {
    let tree = Tree::new();
    let trust = tree.trust();
    for revocation in revoke(&tree.root, &tree.hub_issued, Reason::Compromised, NOW) {
        trust.revoke(&revocation).unwrap();
    }
    for identity in [&tree.hub, &tree.leaf] {
        let refusal = trust.verify_chain(&identity.chain, When::Now(NOW)).unwrap_err();
        assert!(matches!(refusal, Refusal::Revoked { .. }), "{refusal}");
    }
    let (hub, _) = child(&tree.root, "ha-giang", Role::Hub);
    trust.verify_chain(&hub.chain, When::Now(NOW)).unwrap();
}

#[test]
fn one_certificate_can_be_revoked_without_its_key() {
    let tree = Tree::new();
    let trust = tree.trust();
    let Issued { node, serial, place, .. } = tree.leaf_issued.clone();
    trust.revoke(&sign_revocation(&tree.hub, node, Some(serial), place, Reason::Mistake, NOW)).unwrap();
    assert!(trust.admit(&announce(&tree.leaf, Incarnation([1; 16]), None).chain).is_err());
    let order = Order { org: org("dong-van"), role: Role::Leaf, key: *tree.leaf.key.public(), ca_key: None };
    let renewed = Ca::of(&tree.hub).unwrap().issue(&order, NOW).unwrap();
    trust.verify_chain(&renewed.chain, When::Now(NOW)).unwrap();
}

#[test]
fn nobody_revokes_outside_of_its_subtree() {
    let tree = Tree::new();
    let trust = tree.trust();
    let (other_hub, _) = child(&tree.root, "cao-bang", Role::Hub);
    let victim = &tree.leaf_issued;
    let open = revoke(&other_hub, victim, Reason::Lost, NOW).remove(0);
    assert!(matches!(trust.revoke(&open), Err(Refusal::OutsideSubtree { .. })));
    // Naming a place of its own gets it in, but it does not count for a certificate elsewhere.
    let place = path("trung-uong/cao-bang/x");
    let veiled = sign_revocation(&other_hub, victim.node, None, place, Reason::Lost, NOW);
    trust.revoke(&veiled).unwrap();
    trust.verify_chain(&tree.leaf.chain, When::Now(NOW)).unwrap();
    let by_leaf = sign_revocation(&tree.leaf, victim.node, None, victim.place.clone(), Reason::Lost, NOW);
    assert!(matches!(trust.revoke(&by_leaf), Err(Refusal::WrongRole { .. })));
    let mut altered = revoke(&tree.hub, victim, Reason::Lost, NOW).remove(0);
    altered.node = tree.hub.key.id();
    assert_eq!(trust.revoke(&altered), Err(Refusal::BadSignature { what: "a revocation" }));
    let foreign = revoke(&Tree::new().hub, victim, Reason::Lost, NOW).remove(0);
    assert!(matches!(trust.revoke(&foreign), Err(Refusal::WrongTree { .. })));
}

pub(crate) fn token(parent: &Identity, name: &str, role: Role, addresses: Vec<String>) -> Token {
    Token::new(Token {
        parent: parent.key.id(),
        addresses,
        root: Fingerprint::of(&parent.root),
        org: org(name),
        role,
        expires: NOW + DAY,
        secret: Secret::generate().unwrap(),
    })
    .unwrap()
}

fn invited(parent: &Identity, name: &str, role: Role) -> (MemoryInvites, Token) {
    let token = token(parent, name, role, Vec::new());
    let store = MemoryInvites::default();
    let (hash, invite) = Invite::of(&token);
    store.insert(hash, invite);
    (store, token)
}

#[test]
fn a_token_becomes_certificates_by_file() {
    let tree = Tree::new();
    let (store, token) = invited(&tree.root, "cao-bang", Role::Hub);
    let (key, ca_key) = (Key::generate().unwrap(), Key::generate().unwrap());
    let request = Request::new(&token, &key, Some(&ca_key)).to_json();
    assert!(request.len() < 1_000, "{}", request.len());
    let redeemed = answer(&tree.root, &store, &request, NOW).unwrap();
    let response = Response::from_json(&redeemed.response(&tree.root).to_json()).unwrap();
    let enrolled = response.accept(&token, key, Some(ca_key), 0).unwrap();
    let identity = enrolled.identity;
    assert_eq!(enrolled.place, path("trung-uong/cao-bang"));
    assert_eq!((enrolled.parent.node, enrolled.parent_chain), (tree.root.key.id(), tree.root.chain.clone()));
    assert_eq!(store.issued(), [redeemed.grant.issued]);

    let dir = tempfile::tempdir().unwrap();
    let folder = IdentityFolder::of_node(dir.path());
    assert!(!folder.is_complete());
    for identity in [&tree.root, &identity] {
        folder.save(identity).unwrap();
        let loaded = folder.load().unwrap();
        assert_eq!((&loaded.chain, &loaded.root), (&identity.chain, &identity.root));
        assert_eq!(loaded.ca.as_ref().unwrap().chain, identity.ca.as_ref().unwrap().chain);
        assert_eq!(Ca::of(&loaded).unwrap().place(), Ca::of(identity).unwrap().place());
    }
    let (leaf, _) = child(&identity, "bao-lac", Role::Leaf);
    tree.trust().verify_chain(&leaf.chain, When::Now(NOW)).unwrap();
}

#[test]
fn a_token_is_good_once_and_for_the_same_key_again() {
    let tree = Tree::new();
    let (store, token) = invited(&tree.hub, "meo-vac", Role::Leaf);
    let (first, second) = (Key::generate().unwrap(), Key::generate().unwrap());
    let ask = |key: &Key, now| answer(&tree.hub, &store, &Request::new(&token, key, None).to_json(), now);
    let late = NOW + 2 * DAY;
    assert!(matches!(ask(&first, late), Err(EnrolRefusal::Expired { .. })));
    ask(&first, NOW).unwrap();
    let used = ask(&second, NOW).unwrap_err();
    assert!(matches!(&used, EnrolRefusal::Used { by } if *by == first.id().short()), "{used}");
    ask(&first, late).unwrap();
    assert_eq!(store.issued().len(), 2);
}

#[test]
fn a_request_is_held_to_its_invitation() {
    let tree = Tree::new();
    let (store, token) = invited(&tree.hub, "meo-vac", Role::Leaf);
    let (key, ca_key) = (Key::generate().unwrap(), Key::generate().unwrap());
    let ask = |request: Request| answer(&tree.hub, &store, &request.to_json(), NOW).unwrap_err();
    let with = |change: &dyn Fn(&mut Token)| {
        let mut token = token.clone();
        change(&mut token);
        Request::new(&token, &key, None)
    };
    assert_eq!(ask(with(&|t| t.secret = Secret([0; SECRET_BYTES]))), EnrolRefusal::Unknown);
    assert!(matches!(ask(with(&|t| t.org = org("yen-minh"))), EnrolRefusal::WrongOrg { .. }));
    let (root, own) = (tree.root.key.id(), tree.hub.key.id());
    let for_another = ask(with(&|t| t.parent = root));
    assert_eq!(for_another, EnrolRefusal::OtherParent { asked: root, own });
    let hub = Token { role: Role::Hub, ..token.clone() };
    assert!(matches!(ask(Request::new(&hub, &key, Some(&ca_key))), EnrolRefusal::WrongRole { .. }));
    let other = Request::new(&token, &ca_key, None).to_json();
    let mut mixed: serde_json::Value = serde_json::from_slice(&other).unwrap();
    mixed["key"] = data_encoding::BASE64.encode(&key.public().spki()).into();
    let mixed = answer(&tree.hub, &store, &serde_json::to_vec(&mixed).unwrap(), NOW);
    assert_eq!(mixed.unwrap_err(), EnrolRefusal::Proof);
    assert!(matches!(answer(&tree.hub, &store, b"{", NOW), Err(EnrolRefusal::Malformed(_))));
    assert!(matches!(
        answer(
            &tree.leaf,
            &store,
            &Request::new(&Token { parent: tree.leaf.key.id(), ..token.clone() }, &key, None).to_json(),
            NOW
        ),
        Err(EnrolRefusal::Parent(_))
    ));
    let (hash, mut invite) = Invite::of(&token);
    invite.withdrawn = true;
    store.insert(hash, invite);
    assert_eq!(ask(Request::new(&token, &key, None)), EnrolRefusal::Withdrawn);
    assert_eq!(store.issued(), []);
}

#[test]
fn an_answer_is_held_to_the_token() {
    let (tree, other) = (Tree::new(), Tree::new());
    let (store, token) = invited(&tree.hub, "meo-vac", Role::Leaf);
    let key = || Key::generate().unwrap();
    let mine = key();
    let pem = mine.to_pem();
    let grant = answer(&tree.hub, &store, &Request::new(&token, &mine, None).to_json(), NOW).unwrap().grant;
    let accept_from = |parent: &Identity, grant: &Grant, key: Key| {
        Response::granting(grant, parent).accept(&token, key, None, NOW).map(|_| ())
    };
    let accept = |grant: &Grant, key: Key| accept_from(&tree.hub, grant, key);
    accept(&grant, mine).unwrap();
    assert!(matches!(accept(&grant, key()), Err(EnrolError::NotAsked(_))));
    let root = Grant { root: other.root.root.clone(), ..grant.clone() };
    assert!(matches!(accept(&root, Key::from_pem(&pem).unwrap()), Err(EnrolError::OtherRoot { .. })));
    let chain = Grant { chain: other.leaf.chain.clone(), ..grant.clone() };
    let refused = accept(&chain, Key::from_pem(&pem).unwrap());
    assert!(matches!(refused, Err(EnrolError::Certificates(Refusal::WrongTree { .. }))));
    // Another hub of the tree finds the request and issues for its key, whoever it says that it is.
    let (elsewhere, _) = child(&tree.root, "cao-bang", Role::Hub);
    let order = Order {
        org: org("meo-vac"),
        role: Role::Leaf,
        key: *Key::from_pem(&pem).unwrap().public(),
        ca_key: None,
    };
    let diverted = Ca::of(&elsewhere).unwrap().issue(&order, NOW).unwrap();
    for parent in [&elsewhere, &tree.hub, &tree.root] {
        let refused = accept_from(parent, &diverted, Key::from_pem(&pem).unwrap());
        assert!(matches!(refused, Err(EnrolError::NotAsked(_))), "{refused:?}");
    }
    let refused = accept_from(&elsewhere, &grant, Key::from_pem(&pem).unwrap());
    assert!(matches!(refused, Err(EnrolError::NotAsked(_))), "{refused:?}");
}

/// Whoever finds a request learns nothing with which to enrol, and can change nothing in it.
#[test]
fn a_request_proves_the_token_and_does_not_hold_it() {
    let tree = Tree::new();
    let (store, token) = invited(&tree.hub, "meo-vac", Role::Leaf);
    let (key, thief) = (Key::generate().unwrap(), Key::generate().unwrap());
    let json = Request::new(&token, &key, None).to_json();
    assert_eq!(Request::new(&token, &key, None).to_json(), json, "an answer belongs to it");
    let text = String::from_utf8(json.clone()).unwrap();
    let hash = token.secret.hash().0;
    let hidden = [&token.secret.0[..], &hash[..], &key.seed()[..]];
    for secret in hidden {
        let base64 = data_encoding::BASE64.encode(secret);
        assert!(!text.contains(&base64[..8]), "{base64}");
        assert!(!text.contains(&data_encoding::HEXLOWER.encode(secret)[..8]));
    }
    // A thief who knows the name of the token guesses its secret, or puts his keys in the place of the clinic's.
    let found: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let guess = Token { secret: Secret([0; SECRET_BYTES]), ..token.clone() };
    let mut stolen: serde_json::Value =
        serde_json::from_slice(&Request::new(&guess, &thief, None).to_json()).unwrap();
    let answer = |request: &serde_json::Value| {
        answer(&tree.hub, &store, &serde_json::to_vec(request).unwrap(), NOW)
            .map(|redeemed| redeemed.grant.issued.node)
    };
    assert_eq!(answer(&stolen), Err(EnrolRefusal::Unknown));
    stolen["token"] = found["token"].clone();
    assert_eq!(answer(&stolen), Err(EnrolRefusal::Proof), "its signature is over another name");
    let hash = token.secret.hash();
    let signed = enrol::tests::statement(&hash.name(), &tree.hub, "meo-vac", &thief);
    stolen["proof"] = data_encoding::BASE64.encode(&thief.sign(&signed)).into();
    assert_eq!(answer(&stolen), Err(EnrolRefusal::Proof), "he has not the token");
    stolen["mac"] = found["mac"].clone();
    assert_eq!(answer(&stolen), Err(EnrolRefusal::Proof), "that proof is of another statement");
    for (field, value) in [
        ("org", serde_json::json!("yen-minh")),
        ("role", serde_json::json!("hub")),
        ("mac", serde_json::json!(data_encoding::BASE64.encode(&[0; 32]))),
        ("mac", serde_json::json!("")),
    ] {
        let mut altered = found.clone();
        altered[field] = value;
        assert_eq!(answer(&altered), Err(EnrolRefusal::Proof), "{field}");
    }
    // Under the neutral element as a key one signature is good for any message, also one that nobody can know.
    let (mut neutral, mut signature) = ([0; 32], [0x66; 64]);
    (neutral[0], signature[0]) = (1, 0x58);
    signature[32..].fill(0);
    signature[32] = 1;
    let spki = [&key.public().spki()[..12], &neutral[..]].concat();
    let weak = crate::keys::PublicKey::from_spki(&spki).unwrap();
    assert!(weak.verifies(b"any message", &signature) && weak.verifies(b"another", &signature));
    let mut forged = found.clone();
    forged["key"] = data_encoding::BASE64.encode(&spki).into();
    forged["proof"] = data_encoding::BASE64.encode(&signature).into();
    assert_eq!(answer(&forged), Err(EnrolRefusal::Proof), "a signature alone proves no token");
    assert_eq!(store.issued(), []);
    assert_eq!(answer(&found), Ok(key.id()));
    stolen["mac"] = data_encoding::BASE64.encode(&hash.prove(&signed)).into();
    assert_eq!(
        answer(&stolen),
        Err(EnrolRefusal::Used { by: key.id().short() }),
        "who has the token comes late"
    );
}

#[test]
fn a_renewal_by_file_is_as_good_as_the_connection() {
    let tree = Tree::new();
    let later = NOW + 400 * DAY;
    for (parent, child, issued) in
        [(&tree.root, &tree.hub, &tree.hub_issued), (&tree.hub, &tree.leaf, &tree.leaf_issued)]
    {
        let above = issued.place.parent().unwrap();
        let json = renew::Request::new(child, &above).to_json();
        assert_eq!(renew::Request::new(child, &above).to_json(), json, "an answer belongs to it");
        let open = |json: &[u8], own: &OrgPath| renew::Request::from_json(json).and_then(|it| it.open(own));
        let shown = open(&json, &above).unwrap();
        assert_eq!(shown.place, issued.place);
        assert_eq!(shown.chain, child.chain.iter().map(|der| der.to_vec()).collect::<Vec<_>>());
        assert_eq!(shown.ca_key, child.ca.as_ref().map(|ca| *ca.key.public()));
        let trust = TrustStore::of(child, TrustedClock::with_wall(0, later)).unwrap();
        let response = renewed(parent, child, Some(issued), later);
        renew::accept(response, child, &issued.place, &trust).unwrap();

        let elsewhere = open(&json, &path("trung-uong/cao-bang"));
        assert!(matches!(elsewhere, Err(renew::RenewRefusal::OtherParent { .. })));
        let found: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let other_key = data_encoding::BASE64.encode(&Key::generate().unwrap().public().spki());
        let own_chain = serde_json::json!([data_encoding::BASE64.encode(&tree.root.chain[0])]);
        for (field, value) in [
            ("ca_key", other_key.into()),
            ("chain", own_chain),
            ("proof", "".into()),
            ("proof", "AAAA".into()),
        ] {
            let mut altered = found.clone();
            altered[field] = value;
            let refused = open(&serde_json::to_vec(&altered).unwrap(), &above);
            assert!(matches!(refused, Err(renew::RenewRefusal::Proof)), "{field}: {refused:?}");
        }
        for (field, value) in
            [("chain", serde_json::json!([])), ("chain", serde_json::json!(["AAAA"])), ("more", 1.into())]
        {
            let mut altered = found.clone();
            altered[field] = value;
            let refused = open(&serde_json::to_vec(&altered).unwrap(), &above);
            assert!(matches!(refused, Err(renew::RenewRefusal::Malformed(_))), "{field}: {refused:?}");
        }
    }
}

/// What the parent would answer now to a child that shows this chain.
fn renewed(parent: &Identity, child: &Identity, known: Option<&Issued>, now: i64) -> Response {
    renewed_after(&Places::default(), parent, child, known, now)
}

/// The same after orders.
fn renewed_after(
    places: &Places,
    parent: &Identity,
    child: &Identity,
    known: Option<&Issued>,
    now: i64,
) -> Response {
    let trust = TrustStore::of(parent, TrustedClock::with_wall(0, now)).unwrap();
    let shown = trust.verify_chain(&child.chain, When::Now(now)).unwrap();
    let ca_key = child.ca.as_ref().map(|ca| *ca.key.public());
    match renew::renew(parent, &shown, ca_key, known, places, now) {
        Ok(grant) => Response::granting(&grant, parent),
        Err(refusal) => Response::from(&refusal),
    }
}

#[test]
fn what_a_ca_has_issued_stays_good_when_it_is_renewed() {
    let tree = Tree::new();
    let later = NOW + 400 * DAY;
    let trust = TrustStore::of(&tree.hub, TrustedClock::with_wall(0, later)).unwrap();
    assert!(renew::due(&tree.hub, later) && !renew::due(&tree.hub, NOW));
    let response = renewed(&tree.root, &tree.hub, Some(&tree.hub_issued), later);
    let new = renew::accept(response, &tree.hub, &tree.hub_issued.place, &trust).unwrap();
    let new_ca = new.ca_chain.unwrap();

    // The power may go between any two files.
    for (chain, ca_chain) in [(&tree.hub.chain, &new_ca), (&new.chain, &new_ca)] {
        let dir = tempfile::tempdir().unwrap();
        let folder = IdentityFolder::of_node(dir.path());
        folder.save(&tree.hub).unwrap();
        std::fs::write(folder.path().join("node.crt.new"), "half of a").unwrap();
        folder.renew(chain, Some(ca_chain)).unwrap();
        let hub = folder.load().unwrap();
        let own = Own::new(std::sync::Arc::new(folder.load().unwrap()), std::sync::Arc::new(tree.trust()));
        assert_eq!(own.unwrap().files().chain, *chain);
        // A leaf of before comes with the old CA, and gets the next from the new.
        trust.verify_chain(&tree.leaf.chain, When::Now(later)).unwrap();
        let response = renewed(&hub, &tree.leaf, None, later);
        let leaf = renew::accept(response, &tree.leaf, &tree.leaf_issued.place, &trust).unwrap();
        assert_eq!(leaf.chain[1..], ca_chain[..]);
        let far = Facts::read(&leaf.chain[0]).unwrap().not_after - DAY;
        assert!(trust.verify_chain(&tree.leaf.chain, When::Now(far)).is_err());
        trust.verify_chain(&leaf.chain, When::Now(far)).unwrap();
    }
}

#[test]
fn only_the_next_certificates_of_the_same_node_are_taken() {
    let tree = Tree::new();
    let later = NOW + 400 * DAY;
    let trust = TrustStore::of(&tree.leaf, TrustedClock::with_wall(0, later)).unwrap();
    let accept = |response| renew::accept(response, &tree.leaf, &tree.leaf_issued.place, &trust).map(|_| ());
    accept(renewed(&tree.hub, &tree.leaf, None, later)).unwrap();
    let (other, _) = child(&tree.hub, "dong-van", Role::Leaf);
    assert!(matches!(accept(renewed(&tree.hub, &other, None, later)), Err(EnrolError::NotAsked(_))));
    let no_later = renewed(&tree.hub, &tree.leaf, None, NOW);
    assert!(matches!(accept(no_later), Err(EnrolError::NoLater { .. })));
    let foreign = Tree::new();
    let refused = accept(renewed(&foreign.hub, &foreign.leaf, None, later));
    assert!(matches!(refused, Err(EnrolError::NotAsked(_))), "{refused:?}");
    let with_ca = Issued { ca: Some(other.key.id()), ..tree.leaf_issued.clone() };
    let no = accept(renewed(&tree.hub, &tree.leaf, Some(&with_ca), later));
    assert!(matches!(no, Err(EnrolError::Refused { code: 210, .. })), "{no:?}");
    // A hub above that is not the parent.
    let no = accept(renewed(&tree.root, &tree.leaf, None, later));
    assert!(matches!(no, Err(EnrolError::Refused { code, .. }) if code < 100), "{no:?}");
}

/// An order of the tree's root.
fn moves(tree: &Tree, number: u64, from: &str, to: &str) -> sync_core::order::Order {
    let steps = vec![Step::Move { from: path(from), to: path(to), address: String::new() }];
    trust::sign_order(&tree.root, number, NOW, steps)
}

#[test]
fn whoever_was_moved_gets_certificates_for_its_new_place() {
    let tree = Tree::new();
    let (other, _) = child(&tree.root, "tuyen-quang", Role::Hub);
    let (hub, leaf) = ("trung-uong/tuyen-quang/ha-giang", "trung-uong/tuyen-quang/ha-giang/dong-van");
    let trust = tree.trust();
    let accept = |response, own: &Identity, stands: &str| renew::accept(response, own, &path(stands), &trust);
    let refused = |response: Response, own: &Identity, stands: &str| match accept(response, own, stands) {
        Err(EnrolError::Refused { code, .. }) => code,
        other => panic!("{other:?}"),
    };
    let mut places = Places::default();
    let before = renewed_after(&places, &other, &tree.hub, None, NOW);
    assert_eq!(refused(before, &tree.hub, hub), 5, "nobody has moved it");
    places.follow(&moves(&tree, 1, "trung-uong/ha-giang", hub));
    let late = renewed_after(&places, &tree.root, &tree.hub, Some(&tree.hub_issued), NOW);
    assert_eq!(refused(late, &tree.hub, hub), 5, "its old parent renews it no more");
    // The hub with its CA, which the new parent has never seen, and no later than before.
    let granted = || renewed_after(&places, &other, &tree.hub, None, NOW);
    let new = accept(granted(), &tree.hub, hub).unwrap();
    assert_eq!(trust.verify_chain(&new.chain, When::Now(NOW)).unwrap().info.place, path(hub));
    let elsewhere = accept(granted(), &tree.hub, "trung-uong/cao-bang/ha-giang");
    assert!(matches!(elsewhere, Err(EnrolError::NotAsked(_))));
    let with_other_ca = Issued { ca: Some(tree.leaf.key.id()), ..tree.hub_issued.clone() };
    let again = renewed_after(&places, &other, &tree.hub, Some(&with_other_ca), NOW);
    assert_eq!(refused(again, &tree.hub, hub), 210, "from then on the book counts");
    // What is below goes along, and gets its own when the hub has its CA's.
    let old = renewed_after(&places, &tree.hub, &tree.leaf, Some(&tree.leaf_issued), NOW + 400 * DAY);
    assert!(accept(old, &tree.leaf, leaf).is_ok(), "for where it stood");
    let Identity { key, ca, root, .. } = tree.hub;
    let ca = ca.zip(new.ca_chain).map(|(ca, chain)| CaFiles { key: ca.key, chain });
    let files = Identity { key, chain: new.chain, root, ca };
    let granted = renewed_after(&places, &files, &tree.leaf, Some(&tree.leaf_issued), NOW);
    let chain = accept(granted, &tree.leaf, leaf).unwrap().chain;
    let shown = trust.verify_chain(&chain, When::Now(NOW)).unwrap();
    assert_eq!(shown.info.place, path(leaf));

    // The old one ends, the new one stays good.
    trust.end(tree.leaf_issued.serial.clone());
    let refusal = trust.verify_chain(&tree.leaf.chain, When::Now(NOW)).unwrap_err();
    assert!(matches!(refusal, Refusal::Ended { .. }) && refusal.to_string().contains("tuyen enrol TOKEN"));
    trust.verify_chain(&tree.leaf.chain, When::Issued).unwrap();
    trust.verify_chain(&chain, When::Now(NOW)).unwrap();
}

#[test]
fn a_revocation_follows_whom_an_order_has_moved() {
    let tree = Tree::new();
    let (other, _) = child(&tree.root, "tuyen-quang", Role::Hub);
    let mut places = Places::default();
    let order = moves(&tree, 1, "trung-uong/ha-giang/dong-van", "trung-uong/tuyen-quang/dong-van");
    let revocation = revoke(&other, &tree.leaf_issued, Reason::Lost, NOW).remove(0);
    let (early, trust) = (tree.trust(), tree.trust());
    assert!(matches!(early.verify_revocation(&revocation, &places), Err(Refusal::OutsideSubtree { .. })));
    places.follow(&order);
    trust.verify_revocation(&revocation, &places).unwrap();
    trust.follow(&order);
    trust.verify_chain(&tree.leaf.chain, When::Now(NOW)).unwrap();
    trust.revoke(&revocation).unwrap();
    let refusal = trust.verify_chain(&tree.leaf.chain, When::Now(NOW)).unwrap_err();
    assert!(matches!(refusal, Refusal::Revoked { .. }), "{refusal}");
    // What its parent of before has revoked stays so.
    trust.revoke(&revoke(&tree.hub, &tree.leaf_issued, Reason::Lost, NOW).remove(0)).unwrap();
    early.revoke(&revoke(&tree.hub, &tree.leaf_issued, Reason::Lost, NOW).remove(0)).unwrap();
    early.follow(&order);
    assert!(early.verify_chain(&tree.leaf.chain, When::Now(NOW)).is_err());
}

#[test]
fn orders_are_of_the_roots_node_alone() {
    let tree = Tree::new();
    let trust = tree.trust();
    let [from, to] =
        ["trung-uong/ha-giang/dong-van", "trung-uong/dong-van"].map(|place| place.parse().unwrap());
    let steps = vec![Step::Move { from, to, address: String::new() }];
    let order = trust::sign_order(&tree.root, 1, NOW, steps.clone());
    assert_eq!(trust.verify_order(&order), Ok(()));
    let altered = sync_core::order::Order { number: 2, ..order.clone() };
    assert!(matches!(trust.verify_order(&altered), Err(Refusal::BadSignature { .. })));
    let other = sync_core::order::Order { signer: tree.hub.key.id(), ..order };
    assert!(matches!(trust.verify_order(&other), Err(Refusal::OtherNode { .. })));
    for lower in [&tree.hub, &tree.leaf] {
        let order = trust::sign_order(lower, 1, NOW, steps.clone());
        assert!(matches!(trust.verify_order(&order), Err(Refusal::WrongRole { .. })));
    }
    let stranger = trust::sign_order(&Tree::new().root, 1, NOW, steps);
    assert!(matches!(trust.verify_order(&stranger), Err(Refusal::WrongTree { .. })));
}

/// A folder whose old hub is gone is given to another hub: the parent's word is not enough, the root's orders are.
#[test]
fn a_folder_takes_another_place_from_the_roots_orders_alone() {
    let tree = Tree::new();
    let (other, _) = child(&tree.root, "tuyen-quang", Role::Hub);
    let (store, token) = invited(&other, "dong-van", Role::Leaf);
    let dir = tempfile::tempdir().unwrap();
    let folder = IdentityFolder::of_node(dir.path());
    folder.save(&tree.leaf).unwrap();
    let before = path("trung-uong/ha-giang/dong-van");
    let ask = |stands| answer(&other, &store, &enrol::ask(&token, &folder, stands).unwrap(), NOW);
    let refused = ask(Some(&before)).unwrap_err();
    assert!(matches!(&refused, EnrolRefusal::OtherPlace { here, .. } if *here == before), "{refused}");
    assert_eq!(store.issued(), [], "the token is not spent");
    // A parent that issues all the same.
    let redeemed = ask(None).unwrap();
    let take = |orders: &[sync_core::order::Order]| {
        let told = Redeemed { orders: orders.to_vec(), ..redeemed.clone() };
        let json = told.response(&other).to_json();
        enrol::take(&token, &folder, Some(&before), Response::from_json(&json).unwrap(), NOW)
    };
    let (from, to) = ("trung-uong/ha-giang/dong-van", "trung-uong/tuyen-quang/dong-van");
    let stranger = Tree::new();
    let by_a_hub = trust::sign_order(
        &other,
        1,
        NOW,
        vec![Step::Move { from: path(from), to: path(to), address: String::new() }],
    );
    assert!(matches!(take(&[]), Err(EnrolError::OtherPlace { .. })));
    let elsewhere = moves(&tree, 1, from, "trung-uong/cao-bang/dong-van");
    assert!(matches!(take(&[elsewhere]), Err(EnrolError::OtherPlace { .. })));
    assert!(matches!(
        take(&[moves(&stranger, 1, from, to)]),
        Err(EnrolError::Certificates(Refusal::WrongTree { .. }))
    ));
    assert!(matches!(take(&[by_a_hub]), Err(EnrolError::Certificates(Refusal::WrongRole { .. }))));
    assert_eq!(folder.load().unwrap().chain, tree.leaf.chain, "nothing has changed");
    // The hub goes, and the clinic after it: two orders.
    let orders = [
        moves(&tree, 1, "trung-uong/ha-giang", "trung-uong/tuyen-quang/ha-giang"),
        moves(&tree, 2, "trung-uong/tuyen-quang/ha-giang/dong-van", to),
    ];
    assert_eq!(take(&orders).unwrap().place, path(to));
    assert_eq!(folder.load().unwrap().chain, redeemed.grant.chain);
}
