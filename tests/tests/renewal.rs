//! Certificates are renewed while nobody looks; those that were not end syncing, and nothing else.

use std::time::Duration;

use node::{
    admin::{FailureKind, Request, Revoked},
    ca::{
        CA_LIFETIME_MS, Ca, Facts, NODE_LIFETIME_MS, Order, Response, TrustStore, TrustedClock,
        certificate::renew_root_node, renew,
    },
    clock,
    keys::{Identity, IdentityFolder, Key},
    setup,
};
use sync_core::identity::{Reason, Role};
use tuyen_tests::{
    cluster::{Country, Node, has_alert, org, wait_equal},
    intruder::Intruder,
};

const DAY: i64 = 86_400_000;

fn folder(node: &Node) -> IdentityFolder {
    IdentityFolder::of_node(&node.dir)
}

fn identity(node: &Node) -> Identity {
    folder(node).load().unwrap()
}

fn facts(node: &Node) -> Facts {
    Facts::read(&identity(node).chain[0]).unwrap()
}

fn ca_facts(node: &Node) -> Facts {
    Facts::read(&identity(node).ca.unwrap().chain[0]).unwrap()
}

/// Gives a node that does not run certificates from its parent that end at `until`, as if they had been issued a
/// whole life before.
fn let_end(parent: &Node, child: &Node, until: i64) {
    let (above, own) = (identity(parent), identity(child));
    let order = Order {
        org: child.config().place.org().clone(),
        role: child.config().role,
        key: *own.key.public(),
        ca_key: own.ca.as_ref().map(|ca| *ca.key.public()),
    };
    let issue = |at| Ca::of(&above).unwrap().issue(&order, at).unwrap();
    let ca_chain = issue(until - CA_LIFETIME_MS).ca_chain;
    folder(child).renew(&issue(until - NODE_LIFETIME_MS).chain, ca_chain.as_deref()).unwrap();
}

fn resource(id: &str) -> [String; 1] {
    [format!(r#"{{"resourceType":"Basic","id":"{id}"}}"#)]
}

/// Gives a hub that does not run a CA's certificate that is five years old: older than any that it has issued and
/// that has expired, and not yet due.
fn let_its_ca_be_old(parent: &Node, hub: &Node) {
    let node = identity(hub).chain;
    let_end(parent, hub, clock::wall() - 5 * 365 * DAY + CA_LIFETIME_MS);
    folder(hub).renew(&node, None).unwrap();
}

fn is_refused(words: &'static str) -> impl Fn(&node::admin::Status) -> bool {
    move |status| {
        let refused = |up: &node::admin::LinkState| {
            up.state == "refused" && up.problem.as_ref().is_some_and(|problem| problem.contains(words))
        };
        status.up.as_ref().is_some_and(refused)
    }
}

fn sleep_until(ms: i64) {
    let left = u64::try_from(ms - clock::wall()).expect("the machine is too slow for this test");
    std::thread::sleep(Duration::from_millis(left));
}

/// All certificates of a tree are near their end: that of the hub's CA too, so that whatever it issues would end with
/// it.
#[test]
fn a_tree_is_renewed_and_syncs_on() {
    let mut country = Country::new();
    let before = country.all().map(|node| node.status().node);
    for node in [&mut country.root, &mut country.hub, &mut country.leaf] {
        assert_eq!(node.stop(), Some(0));
    }
    let end = clock::wall() + 60_000;
    let (root, _) = renew_root_node(&identity(&country.root), end - NODE_LIFETIME_MS).unwrap();
    folder(&country.root).renew(&[root], None).unwrap();
    let_end(&country.root, &country.hub, end);
    let_end(&country.hub, &country.leaf, end);
    let old_ca = ca_facts(&country.hub);

    // From the top down: the leaf comes with a chain that the hub's old CA has issued.
    country.root.start();
    country.hub.start();
    let renewed = |node: &Node| facts(node).not_after > end + DAY;
    country.hub.wait("renewed", |_| renewed(&country.root) && renewed(&country.hub));
    let ca = ca_facts(&country.hub);
    assert!(ca.not_after > end + DAY && ca.key == old_ca.key && ca.serial != old_ca.serial);
    country.leaf.start();
    country.leaf.wait("renewed", |_| renewed(&country.leaf));
    assert!(clock::wall() < end, "the machine is too slow for this test");
    let issuer = &identity(&country.leaf).chain[1];
    assert_eq!(Facts::read(issuer).unwrap().serial, ca.serial, "issued under the new one");
    country.leaf.put(resource("before"));
    wait_equal(&country.all(), 1);

    // The links were opened with the old ones: they end, and come back with the new.
    sleep_until(end + 1_500);
    country.leaf.put(resource("after"));
    country.root.wait("up", |s| s.records == 2);
    country.root.edit("Basic/after", "root", |value| value["language"] = "vi".into());
    wait_equal(&country.all(), 3);
    country.leaf.wait_safe();
    for node in country.all() {
        assert!(node.status().alerts.is_empty(), "{:?}", node.status().alerts);
    }
    assert_eq!(country.all().map(|node| node.status().node), before);
    // What was renewed can be revoked.
    let revoked: Revoked = country.hub.ask(&Request::Revoke { org: org("dong-van"), reason: Reason::Lost });
    assert_eq!(revoked.nodes, [before[2]]);
    country.leaf.wait("refused", is_refused("the machine was lost"));
}

/// A certificate that cannot be written: the old one stays, and is good up to its end, but no further.
#[test]
fn a_renewal_that_fails_stops_nothing_before_the_end() {
    let mut country = Country::new();
    country.leaf.stop();
    let end = clock::wall() + 25_000;
    let_end(&country.hub, &country.leaf, end);
    let in_the_way = folder(&country.leaf).path().join("node.crt.new");
    std::fs::create_dir(&in_the_way).unwrap();
    country.leaf.start();
    country.leaf.wait("told", |s| has_alert(&s.alerts, "renewal", "could not be renewed: cannot write"));
    country.leaf.put(resource("meanwhile"));
    wait_equal(&country.all(), 1);
    assert!(facts(&country.leaf).not_after <= end);

    // A link ends with its certificates, though nobody hangs up; work goes on.
    country.leaf.wait("refused", is_refused("expired on"));
    assert!(clock::wall() > facts(&country.leaf).not_after);
    country.hub.wait("told", |s| has_alert(&s.alerts, "refused", "expired on"));
    country.leaf.put(resource("local"));
    assert_eq!(country.leaf.status().entries, 2);
    assert_eq!(country.hub.status().entries, 1);
}

#[test]
fn an_expired_leaf_is_told_what_to_do_and_does_it() {
    let mut country = Country::new();
    let elsewhere = Country::new();
    country.hub.stop();
    let_its_ca_be_old(&country.root, &country.hub);
    country.hub.start();
    country.leaf.stop();
    let_end(&country.hub, &country.leaf, clock::wall() - DAY);
    country.leaf.start();
    let (node, hub) = (country.leaf.status().node, &country.hub);
    country.leaf.wait("refused", is_refused("run `tuyen enrol TOKEN` on the folder that it has"));
    hub.wait("told", |s| has_alert(&s.alerts, "refused", "expired on"));
    country.leaf.put(resource("meanwhile"));
    assert_eq!(country.leaf.status().entries, 1);

    let dir = country.leaf.dir.clone();
    let refused = |token: &str, kind, words: &str| {
        let failure = setup::enrol(&dir, token, None).unwrap_err();
        assert_eq!(failure.kind, kind, "{failure}");
        assert!(failure.text.contains(words), "{failure}");
    };
    let good = hub.invite(Role::Leaf, "dong-van").token;
    refused(&good, FailureKind::Failed, "a daemon already runs");
    country.leaf.stop();
    refused(&hub.invite(Role::Leaf, "meo-vac").token, FailureKind::Usage, "already holds a node");
    refused(&elsewhere.hub.invite(Role::Leaf, "dong-van").token, FailureKind::Usage, "already holds a node");
    let above = country.root.invite(Role::Leaf, "dong-van").token;
    refused(&above, FailureKind::Refused, "this folder holds the node of trung-uong/ha-giang/dong-van");
    // It was not spent.
    setup::enrol(&country.dir.path().join("new"), &above, None).unwrap();

    assert_eq!(setup::enrol(&dir, &good, None).unwrap().node, node);
    country.leaf.start();
    wait_equal(&country.all(), 1);
    assert_eq!(country.leaf.status().node, node);
}

#[test]
fn a_revoked_node_gets_no_certificate_by_a_token_either() {
    let mut country = Country::new();
    let _: Revoked = country.hub.ask(&Request::Revoke { org: org("dong-van"), reason: Reason::Lost });
    country.leaf.wait("refused", is_refused("the machine was lost"));
    country.leaf.stop();
    let token = country.hub.invite(Role::Leaf, "dong-van").token;
    let failure = setup::enrol(&country.leaf.dir, &token, None).unwrap_err();
    assert!(failure.text.contains("the machine was lost"), "{failure}");
    // The token is still good, for a new node.
    setup::enrol(&country.dir.path().join("new"), &token, None).unwrap();
}

fn intruder(node: &Node, parent: &Node) -> Intruder {
    let intruder = Intruder::connect(&node.dir, parent.config().listen.unwrap());
    intruder.hello();
    intruder
}

fn refused_with(response: Response) -> u16 {
    match response {
        Response::Refused { code, .. } => code,
        Response::Granted { .. } => panic!("it got certificates"),
    }
}

/// The parent goes by the certificate of the connection and by its book.
#[test]
fn a_child_gets_certificates_for_itself_only() {
    let mut country = Country::new();
    country.leaf.stop();
    country.hub.stop();
    let_end(&country.root, &country.hub, clock::wall() + DAY);
    let other = *Key::generate().unwrap().public();
    let own_ca = *identity(&country.hub).ca.unwrap().key.public();
    {
        let hub = intruder(&country.hub, &country.root);
        assert_eq!(refused_with(hub.certificates(Some(&other)).unwrap()), 210);
        assert_eq!(refused_with(hub.certificates(None).unwrap()), 210);
        country.root.wait("told", |s| has_alert(&s.alerts, "renewal", "asked with another CA key"));
        let own = identity(&country.hub);
        let trust = TrustStore::of(&own, TrustedClock::new(0)).unwrap();
        let stands = country.hub.config().place;
        let response = hub.certificates(Some(&own_ca)).unwrap();
        let granted = renew::accept(response, &own, &stands, &trust).unwrap();
        let (granted, before) = (Facts::read(&granted.chain[0]).unwrap(), facts(&country.hub));
        assert_eq!((granted.subject, granted.key), (before.subject, before.key));
        // What is not understood ends its stream, and not the link.
        assert!(hub.request(&[9]).is_err());
        assert!(hub.request(&[]).is_err());
        assert!(hub.request(&[2, 1, 2, 3]).is_err());
        assert!(hub.request(&[1; 65]).is_err());
        assert_eq!(hub.request(&[1]).unwrap().len(), 8);
    }
    country.hub.start();
    let leaf = intruder(&country.leaf, &country.hub);
    assert_eq!(refused_with(leaf.certificates(Some(&own_ca)).unwrap()), 210);
    assert!(matches!(leaf.certificates(None).unwrap(), Response::Granted { ca_chain: None, .. }));
}
