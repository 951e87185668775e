//! The outage log: which link was down when, told by both of its ends, with the machine that was off told from the line.

use std::{
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use node::admin::{Request, Revoked};
use serde_json::{Value, json};
use sync_core::identity::{Reason, Role};
use tuyen_tests::{
    cluster::{Node, has_alert, org},
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
