//! When syncing happens: at once on new writes, never while paused, and again when resumed.

use std::time::Instant;

use node::fhir::population::Population;
use tuyen_tests::cluster::{Country, org, wait_equal};

#[test]
fn new_writes_arrive_at_the_root_without_any_command() {
    let country = Country::new();
    country.leaf.put([r#"{"resourceType":"Basic","id":"first"}"#.to_owned()]);
    wait_equal(&country.all(), 1);
    let began = Instant::now();
    country.leaf.put([r#"{"resourceType":"Basic","id":"second"}"#.to_owned()]);
    let all = wait_equal(&country.all(), 2);
    println!("one record from a leaf to the root: {:?}", began.elapsed());
    assert!(all.iter().all(|s| s.entries == 2));
    country.leaf.wait_safe();
}

#[test]
fn a_pause_survives_a_restart_and_ends_when_resumed() {
    let mut country = Country::new();
    let write = |node: &tuyen_tests::cluster::Node, seed| {
        node.put(Population::records(seed, &org("dong-van"), 20).map(|record| record.to_string()));
    };
    write(&country.leaf, 1);
    wait_equal(&country.all(), 20);
    assert!(country.leaf.pause().paused);
    country.leaf.wait("the link ends", |s| s.up.as_ref().is_some_and(|up| up.state == "paused"));
    write(&country.leaf, 2);
    for restart in [
        |node: &mut tuyen_tests::cluster::Node| assert_eq!(node.stop(), Some(0)),
        tuyen_tests::cluster::Node::kill,
    ] {
        restart(&mut country.leaf);
        country.leaf.start();
        let status = country.leaf.status();
        assert!(status.paused);
        let up = status.up.unwrap();
        assert_eq!((up.state.as_str(), up.behind), ("paused", Some(20)));
        assert_eq!(status.not_at_hub.entries, 20);
        assert!(status.not_at_hub.oldest_seconds.is_some() && up.behind_seconds.is_some());
    }
    let refused = country
        .leaf
        .try_ask::<node::admin::Synced>(&node::admin::Request::SyncNow { wait: true, bulk: false });
    assert!(refused.unwrap_err().text.contains("tuyen sync resume"));
    assert_eq!(country.hub.status().entries, 20, "nothing passed");
    assert!(!country.leaf.resume().paused);
    wait_equal(&country.all(), 40);
    write(&country.leaf, 3);
    country.leaf.sync();
    assert_eq!(country.leaf.status().not_at_hub.entries, 0);
    assert_eq!(country.hub.status().entries, 60);
}

/// A name may have addresses that this machine cannot use, and they may come first.
#[test]
fn a_parent_is_dialled_by_its_name() {
    let mut country = Country::new();
    country.leaf.stop();
    country.leaf.configure(|config| {
        let address = config.parent.take().expect("a leaf has a parent");
        assert!(address.starts_with("127.0.0.1:"));
        config.parent = Some(address.replace("127.0.0.1", "localhost"));
    });
    country.leaf.start();
    country.leaf.put([r#"{"resourceType":"Basic","id":"first"}"#.to_owned()]);
    wait_equal(&country.all(), 1);
}
