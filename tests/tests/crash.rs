//! Processes that end: by kill -9 in the middle of a transfer, by SIGTERM under load, and second ones that must
//! not start. Nothing that was acknowledged is ever lost, and everything arrives once.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use node::{
    admin::{Client, Request, SOCKET, Written},
    fhir::population::Population,
};
use serde_json::value::RawValue;
use sync_core::identity::Role;
use tuyen_tests::{
    cluster::{Country, Node, org, program, wait_equal, wait_for},
    proxy::{Line, Proxy},
};

/// The records of every test here.
const RECORDS: usize = 10_000;

fn records(count: usize) -> Vec<Box<RawValue>> {
    let all = Population::records(7, &org("dong-van"), count);
    all.map(|record| RawValue::from_string(record.to_string()).unwrap()).collect()
}

fn name(resource: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(resource).unwrap();
    format!("{}/{}", value["resourceType"].as_str().unwrap(), value["id"].as_str().unwrap())
}

fn names(node: &Node) -> BTreeSet<String> {
    node.export().iter().map(|text| name(text)).collect()
}

/// Puts resources; false when the daemon ended under way.
fn put(node: &Node, resources: &[Box<RawValue>]) -> bool {
    let resources = resources.to_vec();
    let written: Result<Written, _> =
        node.try_ask(&Request::Put { resources, base: None, by: None, why: None });
    written.inspect(|written| assert!(written.rejected.is_empty(), "{:?}", written.rejected)).is_ok()
}

#[test]
fn a_sender_killed_while_it_writes_and_sends_loses_nothing() {
    let mut country = Country::new();
    let all = records(RECORDS);
    let mut acknowledged = BTreeSet::new();
    let mut chunks = all.chunks(100).peekable();
    for kill_at in [1_000, 4_000, 8_000] {
        let killed = AtomicBool::new(false);
        let (leaf, hub) = (&country.leaf, &country.hub);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                hub.wait("some arrived", |s| s.entries >= kill_at);
                assert!(
                    Command::new("kill").args(["-9", &leaf.pid().to_string()]).status().unwrap().success()
                );
                killed.store(true, Ordering::SeqCst);
            });
            while let Some(chunk) = chunks.peek() {
                if !put(leaf, chunk) {
                    break;
                }
                acknowledged.extend(chunk.iter().map(|one| name(one.get())));
                chunks.next();
            }
        });
        assert!(killed.load(Ordering::SeqCst));
        assert!(country.hub.status().entries < RECORDS as u64, "it was in the middle");
        country.leaf.kill();
        assert!(country.leaf.dir.join(SOCKET).exists(), "a killed process leaves its socket behind");
        country.leaf.start();
        let there = names(&country.leaf);
        assert!(acknowledged.iter().all(|name| there.contains(name)), "acknowledged and gone");
    }
    for chunk in chunks {
        assert!(put(&country.leaf, chunk));
    }
    wait_equal(&country.all(), RECORDS as u64);
    for node in country.all() {
        let status = node.status();
        assert_eq!((status.entries, status.records), (RECORDS as u64, RECORDS as u64), "each once");
        assert!(
            !node.has_alert("two_machines", ""),
            "a restart is not a second machine: {:?}",
            status.alerts
        );
    }
    country.leaf.wait_safe();
}

#[test]
fn a_receiver_killed_in_the_middle_gets_everything_once() {
    let proxy = Mutex::new(None);
    let line = Line { bits_per_second: Some(4_000_000), ..Line::default() };
    let mut country = Country::with_leaf(|hub, dir| {
        let through = Proxy::to(hub.config().listen.unwrap(), line, 1);
        let leaf = hub.child_through(Some(through.address), dir, Role::Leaf, "dong-van");
        *proxy.lock().unwrap() = Some(through);
        leaf
    });
    country.leaf.pause();
    for chunk in records(RECORDS).chunks(1_000) {
        assert!(put(&country.leaf, chunk));
    }
    country.leaf.resume();
    let mut before = 0;
    for kill_at in [2_000, 5_000] {
        let told = country.hub.wait("some arrived", |s| s.entries >= kill_at).entries;
        country.hub.kill();
        assert!(before < told && told < RECORDS as u64, "in the middle: {told}");
        let leaf = country.leaf.status();
        assert!(leaf.not_at_hub.entries > 0, "the leaf knows that not all is there");
        let safe = RECORDS as u64 - leaf.not_at_hub.entries;
        country.hub.start();
        let there = country.hub.status().entries;
        assert!(there >= safe && there >= told, "told {told}, acknowledged {safe}, there {there}");
        before = there;
    }
    wait_equal(&country.all(), RECORDS as u64);
    for node in country.all() {
        assert_eq!(node.status().entries, RECORDS as u64, "each once");
    }
    country.leaf.wait_safe();
}

/// A bit of the write-ahead log flips while the node is down.
#[test]
fn a_node_whose_log_was_damaged_says_so_until_somebody_has_looked() {
    let mut country = Country::new();
    let all = records(40);
    for one in &all {
        assert!(put(&country.leaf, std::slice::from_ref(one)));
    }
    wait_equal(&country.all(), 40);
    country.leaf.kill();
    let log = country.leaf.dir.join("records.db-wal");
    let mut damaged = fs::read(&log).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x10;
    fs::write(&log, &damaged).unwrap();

    country.leaf.configure(|config| config.paused = true);
    country.leaf.start();
    let status = country.leaf.status();
    assert!(status.entries < 40, "what stood behind the bit is missing: {}", status.entries);
    let copy = country.leaf.dir.join("records.db-wal.damaged-1");
    assert_eq!(fs::read(&copy).unwrap(), damaged);
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(
        country.leaf.log().contains("the disk has damaged the write-ahead log"),
        "{}",
        country.leaf.log()
    );
    let dir = country.leaf.dir.to_str().unwrap();
    let said = Command::new(program("tuyen")).args(["--dir", dir, "status", "--json"]).output().unwrap();
    let said: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
    let alert = said["alerts"].as_array().unwrap().iter().find(|alert| alert["code"] == "damaged_log");
    let text = alert.unwrap_or_else(|| panic!("{said}"))["text"].as_str().unwrap();
    for words in
        ["may be missing here", "comes back by itself", "replace the disk", "records.db-wal.damaged-1"]
    {
        assert!(text.contains(words), "{text}");
    }
    assert!(said["attention"].as_array().unwrap().iter().any(|what| what == "alerts"), "{said}");

    // It works, and what the hub holds comes back.
    country.leaf.put([r#"{"resourceType":"Basic","id":"after"}"#.to_owned()]);
    country.leaf.resume();
    wait_equal(&country.all(), 41);
    country.leaf.wait_safe();
    assert_eq!(names(&country.leaf).len(), 41);

    // It is told at every start, once for each copy, until there is none.
    assert_eq!(country.leaf.stop(), Some(0));
    country.leaf.start();
    let told = |node: &Node| node.status().alerts.iter().filter(|alert| alert.code == "damaged_log").count();
    assert_eq!(told(&country.leaf), 1);
    assert_eq!(country.leaf.stop(), Some(0));
    fs::rename(&copy, country.dir.path().join("moved")).unwrap();
    country.leaf.start();
    assert_eq!(told(&country.leaf), 0);
}

#[test]
fn a_second_daemon_on_one_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let root = Node::root(&dir.path().join("root"), "trung-uong");
    let second = Command::new(program("tuyend")).arg("--dir").arg(&root.dir).output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains("a daemon already runs on"), "{said}");
    root.put([r#"{"resourceType":"Basic","id":"1"}"#.to_owned()]);
}

/// SIGTERM ends the process with 0 within this time, whatever it has to do.
const STOP_MOST: Duration = Duration::from_secs(5);

fn stop_in_time(node: &mut Node) {
    let began = Instant::now();
    assert_eq!(node.stop(), Some(0), "{}", node.log());
    assert!(began.elapsed() < STOP_MOST, "it took {:?}", began.elapsed());
    assert!(!node.dir.join(SOCKET).exists());
}

#[test]
fn sigterm_ends_a_busy_node_soon_and_what_it_acknowledged_stays() {
    let mut country = Country::new();
    let all = records(RECORDS);
    let acknowledged = Mutex::new(BTreeSet::new());
    let leaf = &country.leaf;
    std::thread::scope(|scope| {
        // Far more work in the queue than can be done in time.
        for part in all.chunks(RECORDS / 20) {
            let acknowledged = &acknowledged;
            scope.spawn(move || {
                for _ in 0..4 {
                    if put(leaf, part) {
                        acknowledged.lock().unwrap().extend(part.iter().map(|one| name(one.get())));
                    }
                }
            });
        }
        wait_for("some arrived", &[&country.hub], |all| all[0].entries > 0);
        let began = Instant::now();
        assert!(Command::new("kill").arg(leaf.pid().to_string()).status().unwrap().success());
        while Client::connect(&leaf.dir).is_ok() {
            assert!(began.elapsed() < STOP_MOST, "it still runs after {:?}", began.elapsed());
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    assert_eq!(country.leaf.stop(), Some(0), "{}", country.leaf.log());
    country.leaf.start();
    let there = names(&country.leaf);
    assert!(acknowledged.into_inner().unwrap().iter().all(|name| there.contains(name)));
    wait_equal(&country.all(), there.len() as u64);
}

#[test]
fn sigterm_ends_a_node_whose_parent_is_gone() {
    let mut country = Country::new();
    country.hub.kill();
    country.leaf.put(Population::records(7, &org("dong-van"), 100).map(|r| r.to_string()));
    stop_in_time(&mut country.leaf);
    country.leaf.start();
    stop_in_time(&mut country.leaf);
    stop_in_time(&mut country.root);
}
