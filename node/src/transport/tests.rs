//! Real sockets on the loopback: who gets a link, and what both sides are told when nobody does.

use sync_core::identity::{Reason, Role};

use super::*;
use crate::{
    ca::{
        EnrolRefusal, Invite, InviteStore, Token, TrustedClock,
        enrol::{EnrolError, MemoryInvites},
        found,
        tests::{NOW, Tree, child, org, token},
        trust::revoke,
    },
    keys::IdentityFolder,
};

pub(crate) fn node_at(identity: Identity, trust: TrustStore) -> Arc<Transport> {
    let anywhere = "127.0.0.1:0".parse().unwrap();
    let transport =
        Transport::bind(anywhere, true, Arc::new(identity), Arc::new(trust), LinkSettings::default());
    Arc::new(transport.unwrap())
}

fn node(identity: Identity) -> Arc<Transport> {
    let trust = TrustStore::of(&identity, TrustedClock::with_wall(0, NOW)).unwrap();
    node_at(identity, trust)
}

/// One side dials, the other answers: what each has to say.
pub(crate) async fn meet(
    client: &Transport,
    server: &Arc<Transport>,
) -> (Result<Link, LinkError>, Result<Arrival, LinkError>) {
    let accepting = tokio::spawn({
        let server = server.clone();
        async move { server.finish(server.accept().await.unwrap()).await }
    });
    let address = server.local_address().unwrap();
    let dialled = client.connect(address, None, &LinkSettings::default()).await;
    (dialled, accepting.await.unwrap())
}

pub(crate) fn link(arrival: Result<Arrival, LinkError>) -> Link {
    match arrival.unwrap() {
        Arrival::Node(link) => link,
        Arrival::Enrolling(_) => panic!("came to enrol"),
    }
}

/// How a link ended, as the other side is told.
async fn told(link: &Link) -> (u16, String) {
    let error = link.connection().closed().await;
    refusal_of(&error).unwrap_or_else(|| panic!("no refusal: {error}"))
}

#[tokio::test]
async fn nodes_of_one_tree_meet_and_know_each_other() {
    let tree = Tree::new();
    let (root, hub, leaf) = (node(tree.root), node(tree.hub), node(tree.leaf));
    for (client, server) in [(&hub, &root), (&leaf, &hub), (&leaf, &root), (&root, &leaf)] {
        let (dialled, arrived) = meet(client, server).await;
        let (dialled, arrived) = (dialled.unwrap(), link(arrived));
        assert_eq!(dialled.peer().node, server.identity().key.id());
        assert_eq!(arrived.peer().node, client.identity().key.id());
        assert_eq!(arrived.chain().len(), client.identity().chain.len());
        let mut stream = dialled.connection().open_uni().await.unwrap();
        stream.write_all(b"xin chao").await.unwrap();
        stream.finish().unwrap();
        let mut incoming = arrived.connection().accept_uni().await.unwrap();
        assert_eq!(incoming.read_to_end(100).await.unwrap(), b"xin chao");
    }
}

/// A node that takes in whoever comes, until it is dropped.
fn serve(server: &Arc<Transport>) {
    let server = server.clone();
    tokio::spawn(async move {
        while let Some(knock) = server.accept().await {
            let server = server.clone();
            tokio::spawn(async move {
                let Ok(Arrival::Node(link)) = server.finish(knock).await else { return };
                link.connection().closed().await;
            });
        }
    });
}

#[tokio::test]
async fn who_comes_when_too_many_shake_hands_is_turned_away_and_served_later() {
    let tree = Tree::new();
    let (hub, leaf) = (node(tree.hub), node(tree.leaf));
    let (address, settings) = (hub.local_address().unwrap(), LinkSettings::default());
    serve(&hub);
    let strangers = hub.door.take(HANDSHAKES_MAX).await;
    let turned_away = leaf.connect(address, None, &settings).await.unwrap_err();
    assert!(matches!(turned_away, LinkError::Busy { .. }), "{turned_away}");
    assert!(turned_away.to_string().contains("will try again"), "{turned_away}");
    drop(strangers);
    let mut links = Vec::new();
    for _ in 0..20 {
        links.push(leaf.connect(address, None, &settings).await.unwrap());
    }
    // Who is through the door takes no place in it.
    drop(hub.door.take(HANDSHAKES_MAX).await);
}

#[tokio::test]
async fn who_comes_into_a_crowd_shows_first_that_he_is_where_he_writes_from() {
    let tree = Tree::new();
    let (hub, leaf) = (node(tree.hub), node(tree.leaf));
    let address = hub.local_address().unwrap();
    for (taken, proves) in [(HANDSHAKES_UNPROVEN - 1, false), (HANDSHAKES_UNPROVEN, true)] {
        let strangers = hub.door.take(taken).await;
        let leaf = leaf.clone();
        let dialled =
            tokio::spawn(async move { leaf.connect(address, None, &LinkSettings::default()).await });
        let knock = hub.accept().await.unwrap();
        assert_eq!(knock.incoming.remote_address_validated(), proves, "{taken}");
        let _link = link(hub.finish(knock).await);
        dialled.await.unwrap().unwrap();
        drop(strangers);
    }
}

#[tokio::test]
async fn who_enrols_stands_in_the_door_until_he_is_answered() {
    let tree = Tree::new();
    let token = token(&tree.hub, "dong-van", Role::Leaf, Vec::new());
    let hub = node(tree.hub);
    let address = hub.local_address().unwrap();
    let endpoint = socket("127.0.0.1:0".parse().unwrap(), quinn::EndpointConfig::default()).unwrap();
    let check = ServerCheck::new(Expect::Key(token.parent));
    let dialling = tokio::spawn(async move {
        let connection = dial(&endpoint, address, None, check, &LinkSettings::default()).await;
        connection.map(|connection| (endpoint, connection))
    });
    let Ok(Arrival::Enrolling(enrolling)) = hub.finish(hub.accept().await.unwrap()).await else {
        panic!("it came to enrol");
    };
    let _stands = dialling.await.unwrap().unwrap();
    let free = hub.door.take(HANDSHAKES_MAX - 1).await;
    assert!(hub.door.is_full());
    drop(enrolling);
    assert!(!hub.door.is_full());
    drop(free);
}

#[tokio::test]
async fn every_kind_of_congestion_control_connects() {
    let tree = Tree::new();
    let (hub, leaf) = (node(tree.hub), node(tree.leaf));
    let server = hub.clone();
    tokio::spawn(async move {
        while let Some(incoming) = server.accept().await {
            let arrival = server.finish(incoming).await.unwrap();
            tokio::spawn(async move { link(Ok(arrival)).connection().closed().await });
        }
    });
    for congestion in [Congestion::Tolerant, Congestion::Cubic, Congestion::Bbr, Congestion::NewReno] {
        let settings = LinkSettings { congestion, mtu_discovery: true, keep_alive_seconds: Some(5) };
        leaf.connect(hub.local_address().unwrap(), None, &settings).await.unwrap();
    }
    let unsettled = leaf.connect(hub.local_address().unwrap(), None, &LinkSettings::default()).await.unwrap();
    assert!(unsettled.connection().congestion_state().into_any().is::<tolerant::Tolerant>());
}

#[tokio::test]
async fn a_server_of_another_tree_is_refused_and_both_are_told() {
    let (here, there) = (Tree::new(), Tree::new());
    let (client, server) = (node(here.leaf), node(there.hub));
    let (dialled, arrived) = meet(&client, &server).await;
    let dialled = dialled.unwrap_err();
    assert!(matches!(&dialled, LinkError::Refused { refusal: Refusal::WrongTree { .. }, .. }), "{dialled}");
    let arrived = arrived.unwrap_err();
    assert_eq!(arrived.refusal_code(), Some(1), "{arrived}");
    assert!(arrived.to_string().contains("belongs to another tree"), "{arrived}");
}

#[tokio::test]
async fn a_client_of_another_tree_is_refused_and_both_are_told() {
    let (here, there) = (Tree::new(), Tree::new());
    // It trusts the server's root, but was never given a certificate under it.
    let client = node_at(there.leaf, here.trust());
    let server = node(here.hub);
    let (dialled, arrived) = meet(&client, &server).await;
    let arrived = arrived.unwrap_err();
    assert!(matches!(&arrived, LinkError::Refused { refusal: Refusal::WrongTree { .. }, .. }), "{arrived}");
    let (code, text) = match dialled {
        Ok(link) => told(&link).await,
        Err(LinkError::RefusedByPeer { code, text, .. }) => (code, text),
        Err(other) => panic!("{other}"),
    };
    assert_eq!(code, 1);
    assert!(text.contains("belongs to another tree"), "{text}");
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let tree = Tree::new();
    let trust = Arc::new(tree.trust());
    let server = node(tree.hub);
    let accepting = tokio::spawn({
        let server = server.clone();
        async move { server.finish(server.accept().await.unwrap()).await }
    });
    let check = ServerCheck::new(Expect::OfTree(trust, None));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(check)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_SYNC.to_vec()];
    let config = quinn::crypto::rustls::QuicClientConfig::try_from(config).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(config));
    let endpoint = socket("127.0.0.1:0".parse().unwrap(), quinn::EndpointConfig::default()).unwrap();
    let address = server.local_address().unwrap();
    let connection = endpoint.connect_with(config, address, SERVER_NAME).unwrap().await;
    let ended = match connection {
        Ok(connection) => connection.closed().await,
        Err(error) => error,
    };
    let (code, text) = refusal_of(&ended).unwrap();
    assert_eq!(code, Refusal::NoCertificate.code());
    assert!(text.contains("tuyen enrol"), "{text}");
    let refused = accepting.await.unwrap().unwrap_err();
    assert_eq!(refused.refusal_code(), Some(code));
}

#[tokio::test]
async fn another_node_than_the_expected_is_refused() {
    let tree = Tree::new();
    let expected = tree.hub.key.id();
    let (client, server) = (node(tree.leaf), node(tree.root));
    let accepting = tokio::spawn({
        let server = server.clone();
        async move { server.finish(server.accept().await.unwrap()).await }
    });
    let address = server.local_address().unwrap();
    let dialled = client.connect(address, Some(expected), &LinkSettings::default()).await.unwrap_err();
    assert!(matches!(dialled, LinkError::Refused { refusal: Refusal::OtherNode { .. }, .. }), "{dialled}");
    assert_eq!(accepting.await.unwrap().unwrap_err().refusal_code(), Some(6));
}

#[tokio::test]
async fn a_revoked_node_is_refused_and_told() {
    let tree = Tree::new();
    let revocation = revoke(&tree.hub, &tree.leaf_issued, Reason::Lost, NOW).remove(0);
    let (hub, leaf) = (node(tree.hub), node(tree.leaf));
    hub.trust.revoke(&revocation).unwrap();
    let (dialled, arrived) = meet(&leaf, &hub).await;
    assert_eq!(arrived.unwrap_err().refusal_code(), Some(4));
    let (code, text) = match dialled {
        Ok(link) => told(&link).await,
        Err(LinkError::RefusedByPeer { code, text, .. }) => (code, text),
        Err(other) => panic!("{other}"),
    };
    assert_eq!(code, 4);
    assert!(text.contains("was revoked on 2026-11-22: the machine was lost"), "{text}");
}

#[tokio::test]
async fn a_clock_that_says_1970_or_is_far_behind_still_connects() {
    let tree = Tree::new();
    let trust = |wall| TrustStore::new(tree.root.root.clone(), TrustedClock::with_wall(0, wall)).unwrap();
    let (hub_trust, leaf_trust) = (trust(NOW), trust(0));
    let (hub, leaf) = (node_at(tree.hub, hub_trust), node_at(tree.leaf, leaf_trust));
    for (client, server) in [(&leaf, &hub), (&hub, &leaf)] {
        let (dialled, arrived) = meet(client, server).await;
        dialled.unwrap();
        link(arrived);
    }
}

#[tokio::test]
async fn an_expired_certificate_is_refused_with_both_days() {
    let tree = Tree::new();
    let late = NOW + crate::ca::NODE_LIFETIME_MS + 1_000_000;
    let hub_trust = TrustStore::new(tree.root.root.clone(), TrustedClock::with_wall(0, late)).unwrap();
    let leaf_trust = tree.trust();
    let (hub, leaf) = (node_at(tree.hub, hub_trust), node_at(tree.leaf, leaf_trust));
    let (_, arrived) = meet(&leaf, &hub).await;
    let arrived = arrived.unwrap_err();
    assert_eq!(arrived.refusal_code(), Some(2));
    assert!(arrived.to_string().contains("expired on 2029-11-21"), "{arrived}");
}

#[tokio::test]
async fn renewed_certificates_serve_the_next_connection() {
    let tree = Tree::new();
    let (other_hub, _) = child(&tree.root, "ha-giang", Role::Hub);
    let renewed = other_hub.key.id();
    let (hub, leaf) = (node(tree.hub), node(tree.leaf));
    let (first, _kept) = meet(&leaf, &hub).await;
    hub.renew(Arc::new(other_hub)).unwrap();
    let (second, _kept_too) = meet(&leaf, &hub).await;
    assert_eq!(second.unwrap().peer().node, renewed);
    assert!(first.unwrap().connection().close_reason().is_none());
}

/// A parent that takes in whoever comes with a good token.
struct Parent {
    transport: Arc<Transport>,
    store: Arc<MemoryInvites>,
    identity: Arc<Identity>,
}

impl Parent {
    fn new(identity: Identity) -> Self {
        let transport = node(identity);
        let (store, identity) = (Arc::new(MemoryInvites::default()), transport.identity());
        let parent = Self { transport: transport.clone(), store: store.clone(), identity };
        tokio::spawn(async move {
            while let Some(incoming) = transport.accept().await {
                let (transport, store) = (transport.clone(), store.clone());
                tokio::spawn(async move {
                    match transport.finish(incoming).await {
                        Ok(Arrival::Enrolling(enrolling)) => {
                            let store: Arc<dyn InviteStore> = store;
                            drop(enrolling.serve(store, NOW).await);
                        }
                        Ok(Arrival::Node(link)) => drop(link.connection().closed().await),
                        Err(_) => {}
                    }
                });
            }
        });
        parent
    }

    fn invite(&self, name: &str, role: Role) -> Token {
        let address = self.transport.local_address().unwrap().to_string();
        let token = token(&self.identity, name, role, vec![address]);
        let (hash, invite) = Invite::of(&token);
        self.store.insert(hash, invite);
        token
    }
}

async fn enrol_in(dir: &tempfile::TempDir, token: &Token) -> Result<Identity, EnrolLinkError> {
    enrol(token, &IdentityFolder::of_node(dir.path()), &[], None, 0).await.map(|enrolled| enrolled.identity)
}

fn refused_with(result: Result<Identity, EnrolLinkError>) -> u16 {
    match result {
        Err(EnrolLinkError::Enrol(EnrolError::Refused { code, .. })) => code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_hub_enrols_then_a_leaf_below_it_and_they_sync() {
    let root = Parent::new(found(org("trung-uong"), NOW).unwrap().0);
    let (hub_dir, leaf_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let printed = root.invite("ha-giang", Role::Hub).to_string();
    let hub = enrol_in(&hub_dir, &printed.parse().unwrap()).await.unwrap();
    let hub = Parent::new(hub);
    let leaf = enrol_in(&leaf_dir, &hub.invite("dong-van", Role::Leaf)).await.unwrap();
    let loaded = IdentityFolder::of_node(leaf_dir.path()).load().unwrap();
    assert_eq!(loaded.chain, leaf.chain);
    let leaf = node(loaded);
    for (parent, role) in [(&hub, Role::Hub), (&root, Role::Root)] {
        let address = parent.transport.local_address().unwrap();
        let expected = Some(parent.identity.key.id());
        let link = leaf.connect(address, expected, &LinkSettings::default()).await.unwrap();
        assert_eq!(link.peer().role, role);
    }
    assert_eq!(hub.store.issued()[0].place.to_string(), "trung-uong/ha-giang/dong-van");
}

#[tokio::test]
async fn a_lost_answer_is_given_again_and_a_thief_gets_none() {
    let hub = Parent::new(Tree::new().hub);
    let token = hub.invite("dong-van", Role::Leaf);
    let (dir, thief) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = enrol_in(&dir, &token).await.unwrap();
    std::fs::remove_file(dir.path().join("identity/node.crt")).unwrap();
    let again = enrol_in(&dir, &token).await.unwrap();
    assert_eq!(first.key.id(), again.key.id());
    assert_eq!(refused_with(enrol_in(&thief, &token).await), 202);
    assert!(!IdentityFolder::of_node(thief.path()).is_complete());
}

#[tokio::test]
async fn tokens_that_are_old_or_unknown_are_refused_with_words() {
    let hub = Parent::new(Tree::new().hub);
    let dir = tempfile::tempdir().unwrap();
    let token = hub.invite("dong-van", Role::Leaf);
    let (hash, invite) = Invite::of(&token);
    hub.store.insert(hash, Invite { expires: NOW - 1, ..invite });
    let error = enrol_in(&dir, &token).await.unwrap_err();
    assert!(error.to_string().contains("it is 2026-11-22 at the parent"), "{error}");
    let unknown = crate::ca::tests::token(&hub.identity, "dong-van", Role::Leaf, token.addresses);
    assert_eq!(refused_with(enrol_in(&dir, &unknown).await), EnrolRefusal::Unknown.code());
}

#[tokio::test]
async fn a_token_leads_to_nobody_else() {
    let (tree, other) = (Tree::new(), Tree::new());
    let hub = Parent::new(tree.hub);
    let dir = tempfile::tempdir().unwrap();
    let token = hub.invite("dong-van", Role::Leaf);
    let led_away = Token { parent: other.hub.key.id(), ..token.clone() };
    let error = enrol_in(&dir, &led_away).await.unwrap_err();
    let EnrolLinkError::Link(LinkError::Refused { refusal, .. }) = &error else { panic!("{error}") };
    assert!(matches!(refusal, Refusal::OtherNode { .. }), "{error}");
    assert_eq!(hub.store.issued(), [], "the secret was not said");
    let wrong_root = Token { root: crate::ca::trust::Fingerprint::of(&other.root.root), ..token };
    let error = enrol_in(&dir, &wrong_root).await.unwrap_err();
    assert!(matches!(&error, EnrolLinkError::Enrol(EnrolError::OtherRoot { .. })), "{error}");
}
