//! Real nodes over bad lines: progress never stops, and everything arrives.
//!
//! `cargo test --release -p tuyen-tests --test bad_line -- --nocapture` prints how long it took and which share of
//! the line carried new data: from dialling to the last receipt, of which half is neither. What a line carries when there is much
//! to do is measured by `bench -- lines`.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use node::{
    admin::{Explained, Request},
    fhir::population::Population,
    transport::Congestion,
};
use serde_json::json;
use sync_core::identity::Role;
use tuyen_tests::{
    cluster::{Node, org, record, wait_equal},
    proxy::{Line, Proxy},
};

const RECORDS: usize = 300;
/// Audit events that go by the lane of what nobody waits for: more than half a minute of the slow line.
const BULK: usize = 1_000;

fn syncs_over(line: Line, congestion: Congestion) {
    let dir = tempfile::tempdir().unwrap();
    let hub = Node::root(&dir.path().join("root"), "trung-uong");
    let proxy = Proxy::to(hub.config().listen.unwrap(), Line::default(), 3);
    let mut leaf = hub.child_through(Some(proxy.address), &dir.path().join("leaf"), Role::Leaf, "dong-van");
    leaf.stop();
    leaf.configure(|config| config.link.congestion = congestion);
    proxy.set(line);
    let carried = |it: &tuyen_tests::proxy::Carried| {
        (it.bytes.load(Ordering::Relaxed), it.lost.load(Ordering::Relaxed))
    };
    let before = (carried(&proxy.up), carried(&proxy.down));
    leaf.start();
    let began = Instant::now();
    leaf.put(Population::records(5, &org("dong-van"), RECORDS).map(|record| record.to_string()));
    hub.wait("the first", |s| s.entries > 0);
    let first = began.elapsed().as_secs_f64();
    wait_equal(&[&hub, &leaf], RECORDS as u64);
    let all = began.elapsed().as_secs_f64();
    leaf.wait("receipts", |s| s.not_at_hub.entries == 0 && s.not_at_root.entries == 0);
    let seconds = began.elapsed().as_secs_f64();
    let new = leaf.status().sent_bytes;
    let rate = line.bits_per_second.expect("a bad line has a rate") as f64 / 8.0;
    let (up, down) = (carried(&proxy.up), carried(&proxy.down));
    println!(
        "{} % loss, {} kbit/s, {} ms there and back, {congestion:?}: {RECORDS} records in {seconds:.1} s, \
         {first:.1} s until the first and {:.1} s from the last to its receipt; {new} B of frames, {:.0} % of the line in \
         all of it; carried {} B up ({} datagrams lost), {} B down ({} lost)",
        line.loss_percent,
        line.bits_per_second.unwrap_or(0) / 1000,
        line.delay.as_millis() * 2,
        seconds - all,
        100.0 * new as f64 / (rate * seconds),
        up.0 - before.0.0,
        up.1 - before.0.1,
        down.0 - before.1.0,
        down.1 - before.1.1,
    );
    assert!(up.1 > before.0.1, "the line did lose");
}

fn line(loss_percent: u64, kbits_per_second: u64, round_trip_millis: u64) -> Line {
    Line {
        loss_percent,
        bits_per_second: Some(kbits_per_second * 1_000),
        delay: Duration::from_millis(round_trip_millis / 2),
        queue: None,
    }
}

#[test]
fn a_line_that_drops_15_percent_at_256_kbits_and_300_ms() {
    syncs_over(line(15, 256, 300), Congestion::default());
}

#[test]
fn the_same_line_with_another_setting() {
    syncs_over(line(15, 256, 300), Congestion::Bbr);
}

#[test]
fn a_line_that_drops_5_percent_at_64_kbits_and_600_ms() {
    syncs_over(line(5, 64, 600), Congestion::default());
}

/// An allergy is at the hub while the events of a whole day still wait for the line.
#[test]
fn what_is_urgent_overtakes_what_nobody_waits_for() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Node::root(&dir.path().join("root"), "trung-uong");
    let proxy = Proxy::to(hub.config().listen.unwrap(), Line::default(), 3);
    let leaf = hub.child_through(Some(proxy.address), &dir.path().join("leaf"), Role::Leaf, "dong-van");
    proxy.set(line(0, 64, 600));
    let event = |n: usize| {
        // Such as do not compress.
        let noise: String = (0..8u64).map(|part| format!("{:016x}", mixed(n as u64 * 8 + part))).collect();
        json!({"resourceType": "AuditEvent", "id": format!("e{n}"), "outcomeDesc": noise}).to_string()
    };
    leaf.put((0..BULK).map(event));
    let under_way = hub.wait("the events are under way", |s| s.entries > 100);
    assert!(under_way.entries < BULK as u64 / 2, "most of them are still to come");
    let began = Instant::now();
    leaf.put([json!({"resourceType": "AllergyIntolerance", "id": "a1"}).to_string()]);
    let holds = |node: &Node| -> Explained {
        node.ask(&Request::ExplainRecord { record: record("AllergyIntolerance/a1") })
    };
    while holds(&hub).entries == 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    let (seconds, left) = (began.elapsed().as_secs_f64(), leaf.status().not_at_hub.entries);
    println!(
        "64 kbit/s, 600 ms: an urgent record is at the hub after {seconds:.1} s, {left} others still wait"
    );
    assert!(left > BULK as u64 / 4, "{left} others wait");
    leaf.wait("the rest", |s| s.not_at_hub.entries == 0);
}

/// A number that nobody can guess from another one (SplitMix64).
fn mixed(n: u64) -> u64 {
    let z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A modem dials anew: the clinic's address changes under the connection, which goes on.
#[test]
fn a_connection_follows_a_clinic_to_another_address() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Node::root(&dir.path().join("hub"), "trung-uong");
    let proxy = Proxy::to(hub.config().listen.unwrap(), Line::default(), 3);
    let leaf = hub.child_through(Some(proxy.address), &dir.path().join("leaf"), Role::Leaf, "dong-van");
    let seen_at = || hub.status().down[0].address.clone();
    let mut addresses = Vec::new();
    for n in 0..3 {
        leaf.put([format!(r#"{{"resourceType":"Basic","id":"{n}"}}"#)]);
        leaf.wait_safe();
        addresses.push(seen_at().expect("it is connected"));
        proxy.move_clients();
    }
    addresses.dedup();
    assert_eq!(addresses.len(), 3, "{addresses:?}");
    let dials = leaf.log().lines().filter(|line| line.contains(" connected peer=")).count();
    assert_eq!(dials, 1, "{}", leaf.log());
}
