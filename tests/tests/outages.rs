//! The outage log: which link was down when, told by both of its ends, with the machine that was off told from the line.

use std::{
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use node::admin::{Request, Revoked, Tree};
use serde_json::{Value, json};
use sync_core::identity::{Reason, Role};
use tuyen_tests::{
    cluster::{Country, Node, has_alert, org},
    run::tuyen,
};

/// How long something is down.
const DOWN: Duration = Duration::from_secs(2);
/// A link that falls silent has been noticed within this time.
const GIVEN_UP: Duration = Duration::from_secs(180);

fn told(node: &Node) -> Value {
    tuyen(&node.dir, &["outages", "--json"], b"").expect(0).json()
}

/// Why the one neighbour was not connected, each time that it was not.
fn reasons(told: &Value) -> Vec<String> {
    let outages = told["neighbours"][0]["outages"].as_array().unwrap();
    assert!(outages.iter().all(|outage| !outage["to"].is_null()), "{told:#}");
    outages.iter().map(|outage| outage["why"].as_str().unwrap().to_owned()).collect()
}

/// How each of the links ended; the last stands.
fn endings(told: &Value) -> Vec<&str> {
    let links = told["neighbours"][0]["connected"].as_array().unwrap();
    let (last, ended) = links.split_last().unwrap();
    assert!(last["to"].is_null() && last["ended"].is_null(), "{told:#}");
    ended.iter().map(|link| link["ended"].as_str().unwrap()).collect()
}

/// What is told of the neighbour at this place.
#[track_caller]
fn of<'a>(told: &'a Value, place: &str) -> &'a Value {
    let found = told["neighbours"].as_array().unwrap().iter().find(|one| one["place"] == place);
    found.unwrap_or_else(|| panic!("{place}: {told:#}"))
}

/// Why it was not connected, and how its links ended.
fn story(one: &Value) -> (Vec<&str>, Vec<Option<&str>>) {
    let (outages, links) = (one["outages"].as_array().unwrap(), one["connected"].as_array().unwrap());
    let why = outages.iter().map(|outage| outage["why"].as_str().unwrap()).collect();
    (why, links.iter().map(|link| link["ended"].as_str()).collect())
}

/// Syncing is paused for a while, and the link stands again.
fn rest(leaf: &Node) {
    leaf.pause();
    leaf.wait("the link ends", |s| s.up.as_ref().is_some_and(|up| up.state == "paused"));
    sleep(DOWN);
    leaf.resume();
    pass(leaf, "after-the-rest");
}

/// Gives an order that holds at once.
fn order(root: &Node, arguments: &[&str]) {
    tuyen(&root.dir, &[&["org"], arguments, &["--effective", "now"]].concat(), b"").expect(0);
}

/// The same that moves a node below this hub; it is followed when this returns.
fn go(root: &Node, name: &str, to: &Node, node: &Node) {
    let (hub, address) = (to.status().org.to_string(), to.config().listen.unwrap().to_string());
    root.wait("the hub is known", |_| {
        let tree: Tree = root.ask(&Request::Tree);
        tree.orgs.iter().any(|line| line.org == org(&hub))
    });
    order(root, &["move", name, "--to", &hub, "--address", &address]);
    let place = format!("{}/{name}", to.status().place);
    node.wait("it has gone there", |s| {
        s.place.to_string() == place && s.up.as_ref().is_some_and(|up| up.state == "connected")
    });
}

fn millis(told: &Value, nth: usize) -> u128 {
    u128::try_from(told["neighbours"][0]["outages"][nth]["millis"].as_i64().unwrap()).unwrap()
}

/// Writes one record and waits until it is at the parent: both sides have committed, and with it their logs.
fn pass(leaf: &Node, id: &str) {
    leaf.put([json!({"resourceType": "Basic", "id": id}).to_string()]);
    leaf.sync();
    leaf.wait_safe();
}

fn pair(dir: &Path) -> (Node, Node) {
    let hub = Node::root(&dir.join("hub"), "trung-uong");
    let leaf = hub.child(&dir.join("leaf"), Role::Leaf, "dong-van");
    pass(&leaf, "first");
    (hub, leaf)
}

#[test]
fn a_machine_that_was_killed_is_told_from_a_line_that_was_down() {
    let dir = tempfile::tempdir().unwrap();
    let (mut hub, mut leaf) = pair(dir.path());
    assert_eq!((reasons(&told(&leaf)).len(), reasons(&told(&hub)).len()), (0, 0));
    let all = tuyen(&leaf.dir, &["outages"], b"").expect(0).out;
    assert!(all.contains("\ntrung-uong (up): connected all the time.\n"), "{all}");

    hub.kill();
    sleep(DOWN);
    hub.start();
    pass(&leaf, "second");
    // For the leaf it was the line or the hub; the hub knows that it was itself.
    let (below, above) = (told(&leaf), told(&hub));
    assert_eq!((reasons(&below), reasons(&above)), (vec!["line".to_owned()], vec!["off".to_owned()]));
    assert_eq!((endings(&below), endings(&above)), (vec!["lost"], vec!["unknown"]));
    assert!(
        millis(&below, 0) >= DOWN.as_millis() && millis(&above, 0) >= DOWN.as_millis(),
        "{below:#}{above:#}"
    );
    let runs = above["runs"].as_array().unwrap();
    assert_eq!((runs.len(), runs[0]["ended"].as_str()), (2, Some("unknown")));
    assert_eq!(
        runs[0]["to"], above["neighbours"][0]["connected"][0]["to"],
        "no longer than the sign of life"
    );

    leaf.kill();
    sleep(DOWN);
    leaf.start();
    pass(&leaf, "third");
    let below = told(&leaf);
    assert_eq!(
        (reasons(&below), endings(&below)),
        (vec!["line".into(), "off".into()], vec!["lost", "unknown"])
    );
    assert!(millis(&below, 1) >= DOWN.as_millis(), "{below:#}");
    let text = tuyen(&leaf.dir, &["outages", "--org", "trung-uong"], b"").expect(0).out;
    for words in ["this machine was off", "the line, or the machine there", "% of the time"] {
        assert!(text.contains(words), "{words:?}: {text}");
    }
    let recent = tuyen(&leaf.dir, &["outages", "--since", "1s", "--json"], b"").expect(0).json();
    assert!(recent["from"].as_str() > below["from"].as_str(), "{recent:#}");
    tuyen(&leaf.dir, &["outages", "--org", "nobody"], b"").expect(2).says(&["nobody is no neighbour"]);
    // The hub cannot tell it from a second machine of that name until it gives up the link from before, after two minutes.
    let began = Instant::now();
    let above = loop {
        let above = told(&hub);
        if reasons(&above).len() > 1 {
            break above;
        }
        assert!(began.elapsed() < GIVEN_UP, "{above:#}");
        sleep(Duration::from_millis(500));
    };
    // Even then not why it went.
    assert_eq!(
        (reasons(&above), endings(&above)),
        (vec!["off".into(), "line".into()], vec!["unknown", "lost"])
    );
    assert!((DOWN..GIVEN_UP / 2).contains(&Duration::from_millis(millis(&above, 1) as u64)), "{above:#}");
}

#[test]
fn what_was_done_on_purpose_is_no_outage_of_the_line() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, mut leaf) = pair(dir.path());
    leaf.pause();
    leaf.wait("the link ends", |s| s.up.as_ref().is_some_and(|up| up.state == "paused"));
    leaf.resume();
    pass(&leaf, "second");
    let (below, above) = (told(&leaf), told(&hub));
    assert_eq!((reasons(&below), reasons(&above)), (vec!["paused".to_owned()], vec!["closed".to_owned()]));
    assert_eq!((endings(&below), endings(&above)), (vec!["paused"], vec!["closed"]));
    assert_eq!(leaf.stop(), Some(0));
    leaf.start();
    pass(&leaf, "third");
    let (below, above) = (told(&leaf), told(&hub));
    assert_eq!(
        (reasons(&below), endings(&below)),
        (vec!["paused".into(), "off".into()], vec!["paused", "stopped"])
    );
    assert_eq!(reasons(&above), ["closed", "closed"], "{above:#}");
}

#[test]
fn a_machine_that_was_put_out_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, leaf) = pair(dir.path());
    let revoked: Revoked = hub.ask(&Request::Revoke { org: org("dong-van"), reason: Reason::Lost });
    assert_eq!(revoked.nodes.len(), 1);
    leaf.wait("it is told", |s| s.up.as_ref().is_some_and(|up| up.state == "refused"));
    for told in [told(&hub), told(&leaf)] {
        let neighbour = &told["neighbours"][0];
        assert_eq!(neighbour["connected"][0]["ended"], "refused", "{told:#}");
        let outages = neighbour["outages"].as_array().unwrap();
        assert_eq!((outages.len(), outages[0]["why"].as_str()), (1, Some("refused")), "{told:#}");
        assert!(outages[0]["to"].is_null(), "{told:#}");
    }
    let text = tuyen(&leaf.dir, &["outages"], b"").expect(0).out;
    assert!(text.contains("\n  since "), "{text}");
}

#[test]
fn a_node_without_neighbours_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Node::root(&dir.path().join("hub"), "trung-uong");
    let said = tuyen(&hub.dir, &["outages"], b"").expect(0).out;
    assert!(said.starts_with("No neighbours yet"), "{said}");
    assert_eq!(told(&hub)["neighbours"], json!([]));
}

/// What was with the parent before is told of that one until the move, and of the new one what comes after it; the hub
/// that a clinic has left misses nobody.
#[test]
fn a_clinic_that_is_moved_leaves_its_outages_with_the_old_hub() {
    const OLD: &str = "trung-uong/ha-giang";
    const NEW: &str = "trung-uong/tuyen-quang";
    let mut country = Country::new();
    let other = country.root.child(&country.dir.path().join("tq"), Role::Hub, "tuyen-quang");
    pass(&country.leaf, "first");
    rest(&country.leaf);
    go(&country.root, "dong-van", &other, &country.leaf);
    pass(&country.leaf, "second");
    for restarted in [false, true] {
        let (below, above) = (told(&country.leaf), told(&country.hub));
        assert_eq!(below["neighbours"].as_array().unwrap().len(), 2, "{below:#}");
        let (old, new) = (of(&below, OLD), of(&below, NEW));
        assert_eq!((&old["direction"], &new["direction"]), (&json!("up"), &json!("up")));
        assert_eq!(story(old), (vec!["paused"], vec![Some("paused"), Some("left")]), "{below:#}");
        let moved = old["until"].as_str();
        assert!(moved.is_some() && moved == old["connected"][1]["to"].as_str(), "{below:#}");
        assert!(new["from"].as_str() >= moved && new["until"].is_null(), "{below:#}");
        // Since then there has been the stop below, and nothing else.
        let since = if restarted { (vec!["off"], vec![Some("stopped"), None]) } else { (vec![], vec![None]) };
        assert_eq!(story(new), since, "{below:#}");

        let child = of(&above, "trung-uong/ha-giang/dong-van");
        assert_eq!(story(child), (vec!["closed"], vec![Some("closed"), Some("left")]), "{above:#}");
        assert!(child["until"].is_string(), "{above:#}");
        if !restarted {
            let text = tuyen(&country.leaf.dir, &["outages"], b"").expect(0).out;
            assert!(text.contains("\ntrung-uong/tuyen-quang (up): connected all the time.\n"), "{text}");
            assert!(text.contains("\ntrung-uong/ha-giang (up, until "), "{text}");
            for node in [&mut country.leaf, &mut country.hub] {
                node.stop();
                node.start();
            }
            pass(&country.leaf, "third");
        }
    }
    // A time in which it was no neighbour says nothing of it.
    sleep(DOWN);
    let recent = tuyen(&country.hub.dir, &["outages", "--since", "1s", "--json"], b"").expect(0).json();
    assert_eq!(recent["neighbours"].as_array().unwrap().len(), 1, "the one above: {recent:#}");
}

/// A hub that is moved has the neighbour below it that it had, and so has that one above.
#[test]
fn who_is_moved_along_has_the_neighbours_that_it_had() {
    let country = Country::new();
    let other = country.root.child(&country.dir.path().join("tq"), Role::Hub, "tuyen-quang");
    pass(&country.leaf, "first");
    rest(&country.leaf);
    go(&country.root, "ha-giang", &other, &country.hub);
    let hub = "trung-uong/tuyen-quang/ha-giang";
    country.leaf.wait("moved along", |s| s.place.to_string() == format!("{hub}/dong-van"));
    pass(&country.leaf, "second");
    let (below, above) = (told(&country.leaf), told(&country.hub));
    assert_eq!(below["neighbours"].as_array().unwrap().len(), 1, "{below:#}");
    // It may have dialled once more, to be given new certificates.
    for (one, why) in [(of(&below, hub), "paused"), (of(&above, &format!("{hub}/dong-van")), "closed")] {
        assert_eq!((story(one).0.first(), &one["until"]), (Some(&why), &Value::Null), "{one:#}");
        assert!(story(one).1.len() > 1, "{one:#}");
    }
    let places: Vec<&Value> =
        above["neighbours"].as_array().unwrap().iter().map(|one| &one["place"]).collect();
    assert_eq!(places, ["trung-uong/tuyen-quang", "trung-uong", &format!("{hub}/dong-van")], "{above:#}");
}

/// The machine of an organization that is closed may be switched off when all of it is safe, and is not missed.
#[test]
fn a_clinic_that_was_closed_is_not_missed() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, mut leaf) = pair(dir.path());
    order(&hub, &["close", "dong-van"]);
    leaf.wait("told", |s| has_alert(&s.alerts, "closed", ""));
    let place = "trung-uong/dong-van";
    let above = told(&hub);
    assert_eq!((story(of(&above, place)), &of(&above, place)["until"]), ((vec![], vec![None]), &Value::Null));
    for _ in 0..2 {
        leaf.stop();
        hub.wait("it has gone", |s| s.down[0].state == "away");
        let above = told(&hub);
        let (why, links) = story(of(&above, place));
        assert_eq!((why.len(), links.last()), (0, Some(&Some("left"))), "{above:#}");
        assert!(of(&above, place)["until"].is_string(), "{above:#}");
        // What it has still to say is taken, and its link is told.
        leaf.start();
        pass(&leaf, "again");
        assert_eq!(of(&told(&hub), place)["until"], Value::Null);
    }
}

/// A link stands also when another machine comes by the same name.
#[test]
fn a_second_machine_of_one_name_is_no_outage_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, mut leaf) = pair(dir.path());
    leaf.stop();
    let copy = dir.path().join("copy");
    leaf.copy(&copy);
    leaf.start();
    pass(&leaf, "second");
    sleep(DOWN);
    let mut twin = Node::at(&copy);
    twin.start();
    pass(&twin, "third");
    pass(&leaf, "fourth");
    hub.wait("both are seen", |s| has_alert(&s.alerts, "two_machines", "dong-van"));
    let above = told(&hub);
    assert_eq!((reasons(&above), endings(&above)), (vec!["closed".to_owned()], vec!["closed"]), "{above:#}");
    // The link of the other stands on.
    twin.stop();
    pass(&leaf, "fifth");
    let above = told(&hub);
    assert_eq!((reasons(&above), endings(&above)), (vec!["closed".to_owned()], vec!["closed"]), "{above:#}");
}
