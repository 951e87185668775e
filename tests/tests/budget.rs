//! A clinic whose line costs by the byte: bulk waits for its time, nothing else does, and what was used stays counted.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use node::{
    admin::{Explained, Request, Status},
    budget::{Budget, Offset, Why},
    clock,
};
use serde_json::{Value, json};
use sync_core::identity::Role;
use tuyen_tests::{
    cluster::{Node, record},
    proxy::{Line, Proxy},
    run::{Ran, tuyen},
};

/// How long bulk is given to slip through.
const A_WHILE: Duration = Duration::from_secs(2);

fn event(id: &str) -> String {
    json!({"resourceType": "AuditEvent", "id": id}).to_string()
}

fn allergy(id: &str) -> String {
    json!({"resourceType": "AllergyIntolerance", "id": id}).to_string()
}

fn patient(id: &str) -> String {
    json!({"resourceType": "Patient", "id": id}).to_string()
}

fn entries_of(node: &Node, name: &str) -> u64 {
    let explained: Explained = node.ask(&Request::ExplainRecord { record: record(name) });
    explained.entries
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn link(dir: &Path, arguments: &[&str]) -> Ran {
    let mut all = vec!["link"];
    all.extend(arguments);
    all.push("--json");
    tuyen(dir, &all, b"")
}

/// A part of the day that begins so many hours from now, in Vietnam, and lasts two.
fn window(hours: i64) -> String {
    let hour = |hours: i64| {
        let text = Offset::VIETNAM.show(clock::wall() + hours * 3_600_000);
        text.split_once(' ').unwrap().1.to_owned()
    };
    format!("{}-{}", hour(hours), hour(hours + 2))
}

fn waiting(status: &Status) -> Option<(u64, Why)> {
    status.line.as_ref()?.bulk.map(|waiting| (waiting.entries, waiting.why))
}

/// Something for everybody below.
fn issue(dir: &Path, node: &Node, resource: &Value) {
    let file = dir.join("issued.json");
    std::fs::write(&file, resource.to_string()).unwrap();
    tuyen(&node.dir, &["records", "issue", file.to_str().unwrap()], b"").expect(0);
}

fn pair(dir: &Path) -> (Node, Node) {
    let hub = Node::root(&dir.join("hub"), "trung-uong");
    let leaf = hub.child(&dir.join("leaf"), Role::Leaf, "dong-van");
    leaf.put([patient("first")]);
    leaf.sync();
    (hub, leaf)
}

#[test]
fn bulk_waits_for_its_window_and_nothing_else_does() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, mut leaf) = pair(dir.path());
    let later = window(5);
    let set = link(&leaf.dir, &["set", "--metered", "yes", "--bulk-window", &later]).expect(0).json();
    assert_eq!((set["metered"].as_bool(), set["bulk_window"].as_str()), (Some(true), Some(&later[..])));
    assert_eq!((&set["bulk"]["why"], &set["bulk"]["entries"]), (&json!("window"), &json!(0)));

    leaf.put([event("e1"), event("e2"), allergy("a1"), patient("p1")]);
    wait_until("what is urgent or ordinary arrives", || {
        entries_of(&hub, "AllergyIntolerance/a1") == 1 && entries_of(&hub, "Patient/p1") == 1
    });
    std::thread::sleep(A_WHILE);
    assert_eq!(entries_of(&hub, "AuditEvent/e1"), 0);
    let status = leaf.status();
    assert_eq!((waiting(&status), status.not_at_hub.entries), (Some((2, Why::Window)), 2));
    let said = tuyen(&leaf.dir, &["status"], b"").expect(0).out;
    let second = said.lines().nth(1).unwrap();
    assert!(
        second.starts_with("2 entries of bulk wait until ")
            && second.contains(" because the line is metered"),
        "{said}"
    );
    let (from, _) = later.split_once('-').unwrap();
    assert!(second.contains(from), "{second}");
    // Whoever waits for everything hears at once that it is not there.
    let now = tuyen(&leaf.dir, &["sync", "now", "--wait", "--json"], b"").expect(5).json();
    assert_eq!((&now["bulk"]["entries"], &now["not_at_hub"]["entries"]), (&json!(2), &json!(2)));

    // What comes from above waits as well, and across a restart of either.
    hub.put([event("above"), patient("above")]);
    issue(dir.path(), &hub, &json!({"resourceType": "CodeSystem", "id": "codes"}));
    leaf.stop();
    leaf.start();
    leaf.put([allergy("a2")]);
    wait_until("the link stands again", || entries_of(&hub, "AllergyIntolerance/a2") == 1);
    std::thread::sleep(A_WHILE);
    let codes = "CodeSystem/o.trung-uong.codes";
    assert_eq!(
        (entries_of(&hub, codes), entries_of(&leaf, codes), entries_of(&hub, "AuditEvent/e1")),
        (1, 0, 0)
    );
    // An audit brings nothing that waits, and finds nothing amiss.
    let audit = tuyen(&leaf.dir, &["verify", "--with", "trung-uong", "--json"], b"").expect(0).json();
    assert_eq!((&audit["audit"]["here"], &audit["audit"]["there"]), (&json!(0), &json!(0)), "{audit:#}");
    assert_eq!(entries_of(&hub, "AuditEvent/e1"), 0);

    link(&leaf.dir, &["set", "--bulk-window", &window(-1)]).expect(0);
    leaf.wait("the window is open", |s| s.not_at_hub.entries == 0 && waiting(s).is_none());
    assert_eq!(entries_of(&hub, "AuditEvent/e2"), 1);
    wait_until("also from above", || entries_of(&leaf, codes) == 1);
    tuyen(&leaf.dir, &["sync", "now", "--wait"], b"").expect(0);
    assert!(leaf.status().alerts.is_empty() && hub.status().alerts.is_empty());
}

#[test]
fn bulk_is_let_through_once_when_somebody_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, leaf) = pair(dir.path());
    link(&leaf.dir, &["set", "--metered", "yes", "--bulk-window", &window(5)]).expect(0);
    // Files wait as well, also when nothing else does, and nobody is told that the parent has everything.
    let file = data_encoding::BASE64.encode(&vec![7; 300_000]);
    let document = json!({"resourceType": "DocumentReference", "id": "d1", "status": "current",
           "content": [{"attachment": {"contentType": "image/png", "data": file}}]});
    leaf.put([document.to_string()]);
    leaf.wait("the document is there", |status| status.not_at_hub.entries == 0);
    let said = tuyen(&leaf.dir, &["sync", "now", "--wait", "--json"], b"").expect(5).json();
    let files =
        [&said["bulk"]["attachments"], &said["bulk"]["entries"], &said["attachments"]["not_at_hub_bytes"]];
    assert_eq!(files, [&json!(1), &json!(0), &json!(300_000)], "{said:#}");
    let out = tuyen(&leaf.dir, &["sync", "now", "--wait"], b"").expect(5).out;
    assert!(out.starts_with("Connected. 1 attachment (300.0 kB) is not yet at the parent."), "{out}");
    assert!(out.contains("\n1 attachment (300.0 kB) waits until "), "{out}");
    leaf.put([event("e1")]);
    tuyen(&leaf.dir, &["sync", "now", "--wait"], b"").expect(5);
    let out = tuyen(&leaf.dir, &["sync", "now", "--wait", "--bulk"], b"").expect(0).out;
    assert_eq!(out, "In sync: the parent has everything of this node.\n");
    assert_eq!(entries_of(&hub, "AuditEvent/e1"), 1);
    assert_eq!((hub.status().attachments.here, hub.status().attachments.here_bytes), (1, 300_000));
}

#[test]
fn a_month_is_counted_and_when_it_is_used_up_only_bulk_waits() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, mut leaf) = pair(dir.path());
    link(&leaf.dir, &["set", "--monthly-cap", "1 MB"]).expect(0);
    let used = |leaf: &Node| leaf.status().line.and_then(|line| line.month_bytes).unwrap();
    leaf.wait("it counts", |s| s.line.as_ref().and_then(|line| line.month_bytes) > Some(5_000));
    leaf.pause();
    leaf.wait("the link ends", |s| s.up.as_ref().is_some_and(|up| up.state == "paused"));
    let before = used(&leaf);
    leaf.stop();
    leaf.start();
    assert_eq!(used(&leaf), before, "it stays counted");
    leaf.resume();
    assert!(leaf.status().alerts.is_empty());

    // Some 0.9 MB that do not compress, then more.
    let noise = |n: u64, kilobytes: u64| {
        let text: String =
            (0..kilobytes * 64).map(|part| format!("{:016x}", mixed(n << 32 | part))).collect();
        json!({"resourceType": "Basic", "id": format!("n{n}"), "code": {"text": text}}).to_string()
    };
    leaf.put((0..3).map(|n| noise(n, 560)));
    leaf.sync();
    leaf.wait("a warning", |s| s.alerts.iter().any(|alert| alert.code == "monthly_cap"));
    let status = leaf.status();
    let percent = status.line.as_ref().and_then(|line| line.budget.used_percent(line.month_bytes.unwrap()));
    assert!(percent.is_some_and(|percent| (80..100).contains(&percent)), "{percent:?}");
    assert_eq!(waiting(&status), None, "a warning holds up nothing");
    assert!(leaf.has_alert("monthly_cap", "of the 1 MB of"));
    leaf.put([noise(3, 560)]);
    leaf.sync();
    leaf.wait("it is used up", |s| waiting(s).is_some_and(|(_, why)| why == Why::Cap));
    assert!(leaf.has_alert("monthly_cap", "are used up"));
    assert_eq!(leaf.status().alerts.len(), 1, "the warning has made room");
    leaf.put([event("e1"), allergy("a1"), patient("p1")]);
    wait_until("what is urgent or ordinary arrives", || {
        entries_of(&hub, "AllergyIntolerance/a1") == 1 && entries_of(&hub, "Patient/p1") == 1
    });
    let before = used(&leaf);
    assert_eq!(leaf.stop(), Some(0));
    leaf.start();
    assert!(used(&leaf) >= before, "{before}");
    std::thread::sleep(A_WHILE);
    let status = leaf.status();
    assert_eq!((waiting(&status), entries_of(&hub, "AuditEvent/e1")), (Some((1, Why::Cap)), 0));
    let until = status.line.unwrap().bulk.unwrap().until;
    assert!(Offset::VIETNAM.show(until).ends_with("-01 00:00"), "{until}");
    // It can be changed while the node is stopped, too.
    leaf.stop();
    let stopped = link(&leaf.dir, &["set", "--monthly-cap", "none"]).expect(0).json();
    assert_eq!((&stopped["monthly_cap_mb"], &stopped["month_bytes"]), (&Value::Null, &Value::Null));
    leaf.start();
    leaf.wait("bulk goes on", |s| s.not_at_hub.entries == 0);
    assert!(leaf.status().alerts.is_empty());
}

/// Ordinary entries keep to the rate; what is urgent does not wait for them.
#[test]
fn a_rate_holds_for_all_but_what_is_urgent() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Node::root(&dir.path().join("hub"), "trung-uong");
    let proxy = Proxy::to(hub.config().listen.unwrap(), Line::default(), 3);
    let leaf = hub.child_through(Some(proxy.address), &dir.path().join("leaf"), Role::Leaf, "dong-van");
    link(&leaf.dir, &["set", "--rate", "00:00-24:00 64 kbit/s"]).expect(0);
    assert_eq!(leaf.status().line.unwrap().rate_kbits, Some(64));
    let noise = |n: u64| {
        let text: String = (0..64).map(|part| format!("{:016x}", mixed(n << 32 | part))).collect();
        json!({"resourceType": "Basic", "id": format!("n{n}"), "code": {"text": text}}).to_string()
    };
    let began = Instant::now();
    // Some 60 kB, of which the line would carry all at once.
    leaf.put((0..100).map(noise));
    leaf.put([allergy("a1")]);
    wait_until("what is urgent arrives", || entries_of(&hub, "AllergyIntolerance/a1") == 1);
    let urgent = began.elapsed();
    leaf.wait("the rest", |s| s.not_at_hub.entries == 0);
    let rest = began.elapsed();
    println!(
        "64 kbit/s of a line without limit: urgent after {urgent:?}, {} B after {rest:?}",
        leaf.status().sent_bytes
    );
    assert!(urgent < Duration::from_secs(3), "{urgent:?}");
    assert!(rest > Duration::from_secs(5), "{rest:?}");
    // The other way, too: 64 kB of digits, which pack to half of that.
    let text: String = (0..4_000).map(|part| format!("{:016x}", mixed(1 << 50 | part))).collect();
    issue(dir.path(), &hub, &json!({"resourceType": "CodeSystem", "id": "codes", "description": text}));
    let began = Instant::now();
    wait_until("it comes", || entries_of(&leaf, "CodeSystem/o.trung-uong.codes") == 1);
    let down = began.elapsed();
    println!("32 kB from above after {down:?}");
    assert!(down > Duration::from_secs(2), "{down:?}");
    // Taken away, nothing waits.
    link(&leaf.dir, &["set", "--rate", "none"]).expect(0);
    let began = Instant::now();
    leaf.put((100..200).map(noise));
    leaf.wait("more", |s| s.not_at_hub.entries == 0);
    assert!(began.elapsed() < rest / 2, "{:?}", began.elapsed());
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, mut leaf) = pair(dir.path());
    for (arguments, words) in [
        (&["--bulk-window", "22-5"][..], "write it like 22:00-05:00"),
        (&["--rate", "128 kbit/s"], "write it like '06:00-18:00 128 kbit/s'"),
        (&["--monthly-cap", "much"], "write it like '500 MB'"),
        (&["--utc-offset", "7"], "write it like +07:00"),
        (&[], "nothing is to be changed"),
    ] {
        let mut all = vec!["link", "set"];
        all.extend(arguments);
        tuyen(&leaf.dir, &all, b"").expect(2).says(&[words]);
    }
    tuyen(&hub.dir, &["link", "show"], b"").expect(2).says(&["this is the root"]);
    tuyen(&hub.dir, &["link", "set", "--metered", "yes"], b"").expect(2).says(&["this is the root"]);
    assert_eq!(leaf.config().budget, Budget::default());
    leaf.stop();
    tuyen(&hub.dir.join("none"), &["link", "show"], b"").expect(4).says(&["is not a node's folder"]);
    let said = tuyen(&leaf.dir, &["link", "show"], b"").expect(0).out;
    assert!(said.starts_with("The line to trung-uong:\n") && said.contains("no daemon runs"), "{said}");
}

/// A number that nobody can guess from another one (SplitMix64).
fn mixed(n: u64) -> u64 {
    let z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
