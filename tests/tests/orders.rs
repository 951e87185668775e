//! The tree is rearranged while it runs: nodes follow the root's orders to another parent, keep their data, and are given
//! new certificates there.

use std::{path::Path, time::Duration};

use node::{
    admin::{Admitted, FailureKind, Invited, Request, Revoked, Status, Synced},
    ca::Facts,
    clock,
    fhir::population::Population,
    keys::IdentityFolder,
    setup,
};
use serde_json::Value;
use sync_core::identity::{Reason, Role};
use tuyen_tests::{
    cluster::{Country, Node, free_address, has_alert, org, wait_equal, wait_for},
    proxy::{Line, Proxy},
    run::{Ran, tuyen},
};

fn address(node: &Node) -> String {
    node.config().listen.expect("a hub listens").to_string()
}

/// `tuyen org` at a node, with JSON.
fn org_at(node: &Node, arguments: &[&str]) -> Ran {
    tuyen(&node.dir, &[&["org"], arguments, &["--json"]].concat(), b"")
}

/// An order that holds at once.
fn order(root: &Node, arguments: &[&str], parent: &Node) -> Value {
    let address = address(parent);
    let all = [arguments, &["--address", &address, "--effective", "now"]].concat();
    org_at(root, &all).expect(0).json()
}

/// The same, refused in these words.
#[track_caller]
fn refused(node: &Node, arguments: &[&str], words: &str) {
    let ran = org_at(node, arguments).expect(2).json();
    let text = ran["error"]["text"].as_str().unwrap();
    assert!(text.contains(words), "{arguments:?}: {text}");
}

fn basic(id: &str) -> [String; 1] {
    [format!(r#"{{"resourceType":"Basic","id":"{id}"}}"#)]
}

fn facts(node: &Node) -> Facts {
    Facts::read(&IdentityFolder::of_node(&node.dir).load().unwrap().chain[0]).unwrap()
}

fn certified(node: &Node) -> String {
    facts(node).subject.place.to_string()
}

fn place(status: &Status) -> String {
    status.place.to_string()
}

fn is_connected(status: &Status) -> bool {
    status.up.as_ref().is_some_and(|up| up.state == "connected")
}

/// The children of a node that are connected, by their organizations.
fn children(node: &Node) -> Vec<String> {
    let down = node.status().down;
    let name = |place: &str| place.rsplit('/').next().unwrap().to_owned();
    down.iter().filter(|link| link.state == "connected").map(|link| name(&link.place)).collect()
}

/// How many entries of an organization a node holds, and their digest.
fn of_home(status: &Status, name: &str) -> (u64, String) {
    let home = status.homes.iter().find(|digest| digest.home == org(name) && digest.entries > 0);
    home.map(|digest| (digest.entries, digest.sum.clone())).unwrap_or_default()
}

/// So many entries of an organization are at each of these nodes.
#[track_caller]
fn wait_home(nodes: &[&Node], name: &str, entries: u64) {
    wait_for("the same of an organization", nodes, |all| {
        let first = of_home(&all[0], name);
        first.0 == entries && all.iter().all(|status| of_home(status, name) == first && status.unfolded == 0)
    });
}

/// Waits until a node has forgotten what others held there, and has told so as far as the root: whose, and how many records
/// and entries.
#[track_caller]
fn wait_forgotten(root: &Node, hub: &Node, expected: &[(&str, u64, u64)]) -> Value {
    for (name, ..) in expected {
        hub.wait("has forgotten", |s| of_home(s, name).0 == 0 && s.leaving.is_none());
    }
    let place = place(&hub.status());
    let receipt = || {
        let purged = org_at(root, &["purged"]).expect(0).json();
        let receipts = purged["receipts"].as_array().unwrap().iter();
        receipts.clone().find(|receipt| receipt["place"] == *place).cloned()
    };
    wait_for("there is a receipt", &[root], |_| receipt().is_some());
    let found = receipt().expect("it was there");
    let parts = found["forgotten"].as_array().unwrap();
    let part = |part: &Value| {
        let number = |name: &str| part[name].as_u64().unwrap();
        (part["org"].as_str().unwrap().to_owned(), number("records"), number("entries"))
    };
    let expected: Vec<_> =
        expected.iter().map(|(name, records, entries)| ((*name).to_owned(), *records, *entries)).collect();
    assert_eq!(parts.iter().map(part).collect::<Vec<_>>(), expected);
    found
}

/// The same with a second hub, `tuyen-quang`.
fn country(dir: &Path) -> (Country, Node) {
    let country = Country::new();
    let other = country.root.child(&dir.join("tq"), Role::Hub, "tuyen-quang");
    country.leaf.put(basic("before"));
    country.leaf.wait_safe();
    country.root.wait("the second hub is known", |_| {
        let tree: node::admin::Tree = country.root.ask(&Request::Tree);
        tree.orgs.iter().any(|line| line.org == org("tuyen-quang"))
    });
    (country, other)
}

const LEAF: &str = "trung-uong/tuyen-quang/dong-van";

#[test]
fn a_clinic_goes_to_another_hub_and_syncs_on() {
    let dir = tempfile::tempdir().unwrap();
    let (mut country, other) = country(dir.path());
    let parent = address(&other);
    let arguments = ["move", "dong-van", "--to", "tuyen-quang", "--address", &parent, "--effective", "now"];
    let dry = org_at(&country.root, &[&arguments[..], &["--dry-run"]].concat()).expect(0).json();
    assert_eq!((dry["dry_run"].as_bool(), dry["order"].as_u64()), (Some(true), None));
    let change = |org: &str| {
        let nodes = dry["nodes"].as_array().unwrap();
        nodes.iter().find(|node| node["before"].as_str().unwrap().ends_with(org)).unwrap().clone()
    };
    let entries = |org: &str, which: &str| change(org)[which]["entries"].as_u64();
    // The centre knows of everybody what is still to be sent.
    let to_send = |org: &str| change(org)["still_to_send"].as_u64();
    assert_eq!(
        (to_send("ha-giang"), to_send("tuyen-quang"), to_send("dong-van")),
        (Some(0), Some(0), Some(0))
    );
    assert_eq!((entries("tuyen-quang", "gains"), entries("tuyen-quang", "loses")), (Some(1), Some(0)));
    assert_eq!((entries("ha-giang", "gains"), entries("ha-giang", "loses")), (Some(0), Some(1)));
    assert_eq!(change("dong-van")["after"], LEAF);
    assert_eq!(org_at(&country.root, &["list"]).expect(0).json()["orders"].as_array().unwrap().len(), 0);

    let late = dir.path().join("late");
    tuyen(
        &country.leaf.dir,
        &["bundle", "export", "--for", "ha-giang", "--out", late.to_str().unwrap()],
        b"",
    )
    .expect(0);
    let old_folder = dir.path().join("old");
    country.leaf.stop();
    country.leaf.copy(&old_folder);
    country.leaf.start();
    assert_eq!(order(&country.root, &arguments[..4], &other)["order"], 1);
    country.leaf.wait("moved", |s| place(s) == LEAF && is_connected(s));
    country.leaf.put(basic("after"));
    country.leaf.wait_safe();
    wait_home(&[&country.root, &other, &country.leaf], "dong-van", 2);
    assert!(country.leaf.has_alert("moved", LEAF));
    country.leaf.wait("has new certificates", |_| certified(&country.leaf) == LEAF);
    assert_eq!((children(&other), children(&country.hub)), (vec!["dong-van".to_owned()], vec![]));
    assert!(country.hub.status().down.is_empty(), "it is nobody's child there any more");
    // What it wrote before is forgotten there, and what came after is not sent there.
    let receipt = wait_forgotten(&country.root, &country.hub, &[("dong-van", 1, 1)]);
    assert_eq!(
        (receipt["order"].as_u64(), receipt["place"].as_str()),
        (Some(1), Some("trung-uong/ha-giang"))
    );
    assert_eq!(country.hub.status().entries, 1, "the receipt itself");
    // A stick of before is not taken any more.
    let refused = tuyen(&country.hub.dir, &["bundle", "import", late.to_str().unwrap()], b"").expect(4);
    assert!(refused.err.contains("it stands at trung-uong/tuyen-quang/dong-van"), "{}", refused.err);
    assert!(refused.err.contains("Carry its bundles to trung-uong/tuyen-quang,"), "{}", refused.err);
    let gone = tuyen(&country.hub.dir, &["records", "get", "Basic/before"], b"").expect(1);
    assert!(gone.err.contains("is not at this node"), "{}", gone.err);
    tuyen(&country.hub.dir, &["verify"], b"").expect(0);
    for node in [&country.root, &country.hub, &other] {
        assert!(node.status().alerts.is_empty(), "{:?}", node.status().alerts);
    }

    // All is as it was after any process has died.
    for node in [&mut country.root, &mut country.leaf] {
        node.kill();
        node.start();
    }
    let status = country.leaf.wait("connected", is_connected);
    assert_eq!((place(&status), status.parent), (LEAF.to_owned(), Some(parent)));
    other.wait("connected", |s| s.down.iter().any(|link| link.state == "connected"));

    // It has shown its new certificate: whoever comes with the old one is an old copy of the machine.
    country.leaf.stop();
    let new_folder = dir.path().join("new");
    country.leaf.copy(&new_folder);
    country.leaf.restore(&old_folder);
    country.leaf.start();
    country.leaf.put(basic("in-the-old-copy"));
    let refused = country.leaf.wait("refused", |s| {
        s.up.as_ref().and_then(|up| up.problem.as_ref()).is_some_and(|problem| problem.contains("has ended"))
    });
    assert_eq!(place(&refused), LEAF, "it has heard of the order all the same");
    country.leaf.stop();
    setup::enrol(&country.leaf.dir, &other.invite(Role::Leaf, "dong-van").token, None).unwrap();
    country.leaf.start();
    country.leaf.wait_safe();
    wait_home(&[&country.root, &other, &country.leaf], "dong-van", 3);

    // The old hub can put out what it has given alone, and says so; the clinic comes back with what it was given since, and no
    // alert stays.
    let revoked =
        tuyen(&country.hub.dir, &["revoke", "dong-van", "--reason", "lost", "--json"], b"").expect(5);
    assert_eq!(revoked.json()["elsewhere"], LEAF);
    assert!(revoked.err.contains("have it revoked there"), "{}", revoked.err);
    country.leaf.put(basic("still"));
    country.leaf.wait_safe();
    let was_refused = |s: &Status| has_alert(&s.alerts, "refused", "dong-van was revoked");
    other.wait("no alert", |s| !was_refused(s) && s.down.iter().any(|link| link.state == "connected"));

    // And its new parent can put it out.
    let revoked: Revoked = other.ask(&Request::Revoke { org: org("dong-van"), reason: Reason::Lost });
    assert_eq!(revoked.nodes, [country.leaf.status().node]);
    country.leaf.wait("refused", |s| s.up.as_ref().is_some_and(|up| up.state == "refused"));
}

/// Two provinces become one while a clinic is away that has something to send. Its own hub is gone when it comes back, but
/// for the machine that listens at its address.
#[test]
fn provinces_merge_while_a_clinic_is_away() {
    let dir = tempfile::tempdir().unwrap();
    let (mut country, mut other) = country(dir.path());
    let second = country.hub.child(&dir.path().join("mv"), Role::Leaf, "meo-vac");
    second.put(basic("second"));
    second.wait_safe();
    country.leaf.pause();
    country.leaf.put(basic("while-away"));
    country.leaf.stop();

    order(&country.root, &["merge", "ha-giang", "--into", "tuyen-quang"], &other);
    second.wait("moved", |s| place(s) == "trung-uong/tuyen-quang/meo-vac" && is_connected(s));
    country.hub.wait("told", |s| has_alert(&s.alerts, "closed", "what was its own is tuyen-quang's"));
    let invite =
        Request::Invite { role: Role::Leaf, org: org("yen-minh"), expires_seconds: 60, address: None };
    let refused = country.hub.try_ask::<Invited>(&invite).unwrap_err();
    assert!(refused.text.contains("ask tuyen-quang for the token"), "{refused}");
    // The hub's own records belong to its successor, and those of its children.
    country.hub.put(basic("of-the-hub"));
    country.hub.wait_safe();
    wait_forgotten(&country.root, &country.hub, &[("dong-van", 1, 1), ("meo-vac", 1, 1)]);
    wait_home(&[&country.root, &country.hub, &other], "ha-giang", 2);
    // A hub that is killed tells nothing twice. It tells what nobody else will have when it is gone.
    assert!(!country.hub.has_alert("closed", "secret"));
    country.hub.put([r#"{"resourceType":"Basic","id":"hidden","meta":{"security":[{"system":"urn:tuyen:secrecy","code":"mat"}]}}"#
        .to_owned()]);
    country.hub.kill();
    country.hub.start();
    country.hub.wait("up", is_connected);
    assert!(country.hub.has_alert("closed", "what is secret here (1 record)"));
    other.kill();
    other.start();

    country.leaf.start();
    country.leaf.resume();
    country.leaf.wait("moved", |s| place(s) == LEAF && is_connected(s));
    country.leaf.wait_safe();
    second.put(basic("at-the-new-hub"));
    second.wait_safe();
    wait_equal(&[&country.root, &other], 6);
    assert_eq!(org_at(&other, &["purged"]).expect(0).json()["receipts"].as_array().unwrap().len(), 1);
    let list = org_at(&country.root, &["list"]).expect(0).json();
    let hub = list["orgs"].as_array().unwrap().iter().find(|line| line["org"] == "ha-giang").unwrap().clone();
    assert_eq!(hub["successor"], "tuyen-quang");
    assert_eq!(children(&other), ["dong-van", "meo-vac"]);
    assert_eq!(country.leaf.status().entries, 2, "no more than its own");
    assert_eq!(second.status().entries, 2);
}

/// Where it stands is told once, however often it is moved.
#[test]
fn a_clinic_that_is_moved_back_tells_only_where_it_stands() {
    let dir = tempfile::tempdir().unwrap();
    let (country, other) = country(dir.path());
    let back = "trung-uong/ha-giang/dong-van";
    for (hub, to, stands) in [(&other, "tuyen-quang", LEAF), (&country.hub, "ha-giang", back)] {
        order(&country.root, &["move", "dong-van", "--to", to], hub);
        let status = country.leaf.wait("moved", |s| place(s) == stands && is_connected(s));
        let told: Vec<_> = status.alerts.iter().filter(|alert| alert.code == "moved").collect();
        let words = format!("stands at {stands} from now on");
        assert!(told.len() == 1 && told[0].text.contains(&words), "{told:?}");
    }
}

/// Two provinces become one, and the machine of the one that is closed is revoked, while two clinics are away: nobody lets
/// their certificates in any more. A token of the new hub brings them back, each in its folder, over a link or by stick.
#[test]
fn a_clinic_whose_closed_hub_was_revoked_comes_back_with_a_token() {
    let dir = tempfile::tempdir().unwrap();
    let (mut country, other) = country(dir.path());
    let mut second = country.hub.child(&dir.path().join("mv"), Role::Leaf, "meo-vac");
    let mut stranger = country.hub.child(&dir.path().join("st"), Role::Leaf, "quan-ba");
    for (leaf, name) in [(&mut country.leaf, "one"), (&mut second, "two"), (&mut stranger, "three")] {
        leaf.put(basic(&format!("{name}-safe")));
        leaf.wait_safe();
        leaf.pause();
        leaf.put(basic(&format!("{name}-while-away")));
        leaf.stop();
    }
    // What there is no order for no token brings about.
    let early = other.invite(Role::Leaf, "dong-van").token;
    let refused = setup::enrol(&country.leaf.dir, &early, None).unwrap_err();
    assert!(refused.text.contains("no order of the root"), "{refused}");
    assert_eq!(certified(&country.leaf), "trung-uong/ha-giang/dong-van");

    order(&country.root, &["merge", "ha-giang", "--into", "tuyen-quang"], &other);
    country.hub.wait("told", |s| has_alert(&s.alerts, "closed", "tuyen-quang"));
    other.wait("told", |_| {
        let tree: node::admin::Tree = other.ask(&Request::Tree);
        tree.orders.len() == 1
    });
    let _: Revoked = country.root.ask(&Request::Revoke { org: org("ha-giang"), reason: Reason::Replaced });
    country.hub.stop();
    let parent = Some(address(&other));
    country.leaf.configure(|config| config.parent = parent.clone());
    country.leaf.start();
    country.leaf.resume();
    let up = |s: &Status, words: &str| {
        s.up.as_ref().and_then(|up| up.problem.as_ref()).is_some_and(|problem| problem.contains(words))
    };
    country.leaf.wait("refused", |s| up(s, "revoked"));
    country.leaf.stop();

    setup::enrol(&country.leaf.dir, &other.invite(Role::Leaf, "dong-van").token, None).unwrap();
    let asked = setup::request(&second.dir, &other.invite(Role::Leaf, "meo-vac").token, None).unwrap();
    let admitted: Admitted = other.ask(&Request::Admit { request: asked.request });
    setup::answer(&second.dir, admitted.answer.as_bytes()).unwrap();
    for (leaf, name) in [(&mut country.leaf, "dong-van"), (&mut second, "meo-vac")] {
        leaf.start();
        leaf.resume();
        let stands = format!("trung-uong/tuyen-quang/{name}");
        let status = leaf.wait("moved", |s| place(s) == stands && is_connected(s));
        assert_eq!((status.parent, certified(leaf)), (parent.clone(), stands));
        leaf.wait_safe();
    }
    wait_home(&[&country.root, &other, &country.leaf], "dong-van", 3);
    wait_home(&[&country.root, &other, &second], "meo-vac", 2);
    // It stays so when everybody begins anew.
    country.leaf.kill();
    country.leaf.start();
    country.leaf.put(basic("one-after"));
    country.leaf.wait_safe();
}

/// A province becomes a part of another one, with its clinics.
#[test]
fn a_hub_goes_below_another_with_all_below_it() {
    let dir = tempfile::tempdir().unwrap();
    let (mut country, other) = country(dir.path());
    let hub = "trung-uong/tuyen-quang/ha-giang";
    let leaf = "trung-uong/tuyen-quang/ha-giang/dong-van";
    order(&country.root, &["move", "ha-giang", "--to", "tuyen-quang"], &other);
    country.hub.wait("moved", |s| place(s) == hub && is_connected(s));
    country.leaf.wait("moved along", |s| place(s) == leaf && is_connected(s));
    country.leaf.put(basic("after"));
    country.leaf.wait_safe();
    wait_equal(&[&country.root, &other, &country.hub, &country.leaf], 2);
    wait_for("new certificates", &[&country.hub, &country.leaf], |_| {
        certified(&country.hub) == hub && certified(&country.leaf) == leaf
    });
    let ca = IdentityFolder::of_node(&country.hub.dir).load().unwrap().ca.unwrap();
    assert_eq!(Facts::read(&ca.chain[0]).unwrap().subject.place.to_string(), hub);

    // It goes on taking in others, and what the clinic shows is good after a restart of all.
    for node in [&mut country.root, &mut country.hub, &mut country.leaf] {
        node.stop();
        node.start();
    }
    let new = country.hub.child(&dir.path().join("new"), Role::Leaf, "yen-minh");
    new.put(basic("new"));
    new.wait_safe();
    country.leaf.put(basic("again"));
    country.leaf.wait_safe();
    wait_equal(&[&country.root, &other, &country.hub], 4);
    country
        .hub
        .wait("both are there", |s| s.down.iter().filter(|link| link.state == "connected").count() == 2);
    for node in [&country.root, &other] {
        assert!(node.status().alerts.is_empty(), "{:?}", node.status().alerts);
    }
}

/// What a clinic holds of others is no work of its own that waits, wherever it stands.
#[test]
fn what_is_open_to_a_clinic_that_moves_waits_for_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (country, other) = country(dir.path());
    country.hub.put([r#"{"resourceType":"Patient","id":"of-the-hub"}"#.to_owned()]);
    let give = ["grant", "give", "Patient/of-the-hub", "--to", "dong-van", "--for", "30d", "--why", "x"];
    tuyen(&country.hub.dir, &give, b"").expect(0);
    country.leaf.wait("it is open", |status| status.records > 1);
    country.leaf.wait_safe();
    order(&country.root, &["move", "dong-van", "--to", "tuyen-quang"], &other);
    // Its own is at the new hub in a moment; what is of others would never be.
    country.leaf.wait("nothing waits", |s| {
        place(s) == LEAF && is_connected(s) && s.not_at_hub.entries == 0 && s.not_at_root.entries == 0
    });
    let all = Request::List { resource_type: None, unread: false, after: None, limit: 10 };
    let page: node::admin::Listing = country.leaf.ask(&all);
    assert!(page.records.len() > 1 && page.records.iter().all(|one| one.safe != "local"), "{page:?}");
    let said = tuyen(&country.leaf.dir, &["sync", "now", "--wait"], b"").expect(0).out;
    assert_eq!(said, "In sync: the parent has everything of this node.\n");
}

/// Whoever was sent to where nobody listens is told the right address all the same.
#[test]
fn a_wrong_address_in_an_order_can_be_corrected() {
    let dir = tempfile::tempdir().unwrap();
    let (country, other) = country(dir.path());
    let nowhere = free_address().to_string();
    let moves = |address: &str| {
        let move_ = ["move", "dong-van", "--to", "tuyen-quang", "--address", address, "--effective", "now"];
        org_at(&country.root, &move_)
    };
    moves(&nowhere).expect(0);
    country.leaf.wait("it dials nobody", |s| {
        let config = country.leaf.config();
        place(s) == LEAF && config.parent.as_ref() == Some(&nowhere) && config.parent_before.is_some()
    });
    country.leaf.put(basic("written-meanwhile"));
    // Where its parent was before it hears of it.
    let again = moves(&address(&other)).expect(0).json();
    assert_eq!((again["order"].as_u64(), again["steps"].as_array().map(Vec::len)), (Some(2), Some(1)));
    refused(
        &country.root,
        &["move", "dong-van", "--to", "tuyen-quang", "--address", &address(&other), "--effective", "now"],
        "stands below tuyen-quang already",
    );
    country.leaf.wait("connected at last", |s| {
        // Whoever does not wait for the timeouts of QUIC says so.
        let _: Synced = country.leaf.ask(&Request::SyncNow { wait: false, bulk: false });
        is_connected(s)
    });
    let status = country.leaf.wait_safe();
    assert_eq!(place(&status), LEAF);
    assert_eq!(country.leaf.config().parent_before, None);
}

#[test]
fn a_plan_waits_for_its_day_and_can_be_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let (mut country, other) = country(dir.path());
    let parent = address(&other);
    let far = ["--address", &parent, "--effective", "2099-01-01"];
    let plan = |arguments: &[&str]| org_at(&country.root, &[arguments, &far].concat());
    let merge = ["merge", "ha-giang", "--into", "tuyen-quang"];
    assert_eq!(plan(&merge).expect(0).json()["plan"], 1);
    // What follows on a plan is held against it.
    let on_it = [&["move", "dong-van", "--to", "ha-giang"], &far[..]].concat();
    refused(&country.root, &on_it, "ha-giang is closed");
    let but_for_it = [&["merge", "tuyen-quang", "--into", "ha-giang"], &far[..]].concat();
    refused(&country.root, &but_for_it, "because of what is planned before it: `tuyen org list`");
    org_at(&country.root, &["cancel", "1"]).expect(0);
    refused(&country.root, &["cancel", "1"], "there is no plan 1: `tuyen org list`");
    assert_eq!(plan(&["move", "dong-van", "--to", "tuyen-quang"]).expect(0).json()["plan"], 2);
    country.root.kill();
    country.root.start();
    // So they notice at once that it has died.
    country.hub.sync();
    other.sync();
    let list = org_at(&country.root, &["list"]).expect(0).json();
    assert_eq!((list["plans"][0]["plan"].as_u64(), list["plans"].as_array().unwrap().len()), (Some(2), 1));
    org_at(&country.root, &["cancel", "2"]).expect(0);

    // Soon, by whoever speaks to the daemon; the day is the same to it.
    let soon = |change| -> node::admin::Arranged {
        country.root.ask(&Request::Arrange(node::admin::Arrange {
            change,
            address: Some(parent.clone()),
            effective: clock::wall() + 1_500,
            dry_run: false,
        }))
    };
    let moves = |name: &str, to: &str| node::admin::Rearrangement::Move { org: org(name), to: org(to) };
    assert_eq!(soon(moves("dong-van", "tuyen-quang")).plan, Some(3));
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(place(&country.leaf.status()), "trung-uong/ha-giang/dong-van");
    country.leaf.wait("moved", |s| place(s) == LEAF && is_connected(s));
    let list = org_at(&country.root, &["list"]).expect(0).json();
    assert_eq!((list["orders"][0]["number"].as_u64(), list["plans"].as_array().unwrap().len()), (Some(1), 0));

    // One that has become wrong meanwhile is told, and orders nothing.
    assert_eq!(soon(moves("dong-van", "ha-giang")).plan, Some(4));
    order(&country.root, &["move", "dong-van", "--to", "ha-giang"], &country.hub);
    country.root.wait("told", |s| has_alert(&s.alerts, "order", "plan 4 was due and cannot be ordered"));
    let list = org_at(&country.root, &["list"]).expect(5).json();
    assert!(
        list["plans"][0]["problem"].as_str().unwrap().contains("stands below ha-giang already"),
        "{list}"
    );
}

#[test]
fn what_cannot_be_ordered_is_told_why() {
    let country = Country::new();
    country.leaf.put(basic("heard-of"));
    country.leaf.wait_safe();
    let now = ["--effective", "now"];
    let at = |node: &Node, arguments: &[&str]| org_at(node, &[arguments, &now].concat());
    let (hub, root) = (&country.hub, &country.root);
    let dir = tempfile::tempdir().unwrap();
    let other = root.child(&dir.path().join("meo-vac"), Role::Leaf, "meo-vac");
    other.put(basic("of-a-leaf"));
    other.wait_safe();
    let from_below = ["move", "dong-van", "--to", "trung-uong", "--address", "h:1", "--effective", "now"];
    refused(hub, &from_below, "rearranged at its root alone, trung-uong");
    for (arguments, words) in [
        (&["move", "dong-vang", "--to", "trung-uong", "--address", "h:1"][..], "dong-vang is not known here"),
        (&["move", "dong-van", "--to", "ha-giang"], "stands below ha-giang already"),
        (&["move", "dong-van", "--to", "trung-uong"], "would not find trung-uong: say where"),
        (&["move", "dong-van", "--to", "trung-uong", "--address", "h"], "'h' is no address"),
        (&["move", "dong-van", "--to", "trung-uong", "--address", "h:0"], "'h:0' is no address"),
        (&["move", "ha-giang", "--to", "dong-van", "--address", "h:1"], "cannot be moved below itself"),
        (&["move", "trung-uong", "--to", "ha-giang", "--address", "h:1"], "is the root of the tree"),
        (
            &["split", "trung-uong", "dong-van", "--to", "trung-uong", "--address", "h:1"],
            "does not stand directly below",
        ),
        (
            &["split", "ha-giang", "dong-van", "dong-van", "--to", "trung-uong", "--address", "h:1"],
            "dong-van is named twice",
        ),
        (&["close", "trung-uong"], "is the root of the tree"),
        (&["close", "ha-giang", "dong-van", "--address", "h:1"], "has another parent"),
        (
            &["merge", "ha-giang", "--into", "ha-giang", "--address", "h:1"],
            "ha-giang is to be closed, so nothing can be",
        ),
        (&["merge", "ha-giang", "--into", "meo-vac", "--address", "h:1"], "meo-vac is a leaf, and nobody"),
    ] {
        refused(root, &[arguments, &now].concat(), words);
    }
    let to_a_leaf = ["move", "dong-van", "--to", "meo-vac", "--address", "h:1", "--effective", "2099-01-01"];
    refused(root, &to_a_leaf, "meo-vac is a leaf, and nobody can stand below it");
    let past = ["move", "dong-van", "--to", "trung-uong", "--address", "h:1", "--effective", "2020-01-01"];
    refused(root, &past, "that day is over");
    // A clinic without children needs no address; what was its own is its hub's.
    let closed = at(root, &["close", "dong-van"]).expect(0).json();
    assert_eq!(closed["steps"][0]["successor"], "ha-giang");
    refused(root, &["close", "dong-van", "--effective", "now"], "dong-van is closed");
    country.leaf.put(basic("still-taken"));
    country.leaf.wait_safe();
    country.hub.put([r#"{"resourceType":"Patient","id":"of-the-hub"}"#.to_owned()]);
    let give =
        ["grant", "give", "Patient/of-the-hub", "--to", "dong-van", "--for", "1h", "--why", "x", "--json"];
    let said = tuyen(&country.hub.dir, &give, b"").expect(2).json();
    let text = said["error"]["text"].as_str().unwrap();
    assert!(text.contains("dong-van is closed") && text.contains("give it to ha-giang"), "{text}");
    // A name that stands elsewhere is not invited.
    let invite =
        Request::Invite { role: Role::Leaf, org: org("dong-van"), expires_seconds: 60, address: None };
    let failure = country.root.try_ask::<node::admin::Invited>(&invite).unwrap_err();
    assert!(failure.text.contains("dong-van stands at trung-uong/ha-giang/dong-van"), "{failure}");
    // Nor one that is closed.
    let failure = country.hub.try_ask::<node::admin::Invited>(&invite).unwrap_err();
    assert!(failure.text.contains("dong-van is closed"), "{failure}");
    let failure = country.hub.try_ask::<node::admin::Tree>(&Request::CancelPlan { plan: 1 }).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Usage);
}

/// Before a tree is rearranged its root knows how much everybody has still to send, also who stands below a hub.
#[test]
fn the_root_hears_what_those_below_a_hub_have_still_to_send() {
    let dir = tempfile::tempdir().unwrap();
    let root = Node::root(&dir.path().join("root"), "trung-uong");
    let hub = root.child(&dir.path().join("hub"), Role::Hub, "ha-giang");
    let other = root.child(&dir.path().join("other"), Role::Hub, "tuyen-quang");
    let thin = Line { bits_per_second: Some(256_000), ..Line::default() };
    let proxy = Proxy::to(hub.config().listen.unwrap(), thin, 1);
    let mut leaf = hub.child_through(Some(proxy.address), &dir.path().join("leaf"), Role::Leaf, "dong-van");
    let at_other = address(&other);
    let still_to_send = || {
        let moves = [
            "move",
            "dong-van",
            "--to",
            "tuyen-quang",
            "--address",
            &at_other,
            "--effective",
            "now",
            "--dry-run",
        ];
        let nodes = org_at(&root, &moves).expect(0).json()["nodes"].clone();
        let of_leaf = nodes
            .as_array()
            .unwrap()
            .iter()
            .find(|node| node["before"].as_str().unwrap().ends_with("dong-van"));
        of_leaf.unwrap()["still_to_send"].as_u64()
    };
    for (node, name) in [(&leaf, "before"), (&other, "there")] {
        node.put(basic(name));
        node.wait_safe();
    }
    wait_for("nothing", &[&root], |_| still_to_send() == Some(0));
    leaf.put(Population::records(7, &org("dong-van"), 2_000).map(|one| one.to_string()));
    wait_for("how much", &[&root], |_| still_to_send().is_some_and(|n| n > 1_000));
    // Who is away has what it has said last, or less.
    leaf.stop();
    hub.wait("it has gone", |s| s.down[0].state == "away");
    assert!(still_to_send().is_some_and(|n| n > 1_000));
    proxy.set(Line::default());
    leaf.start();
    leaf.wait_safe();
    wait_for("nothing any more", &[&root], |_| still_to_send() == Some(0));
}
