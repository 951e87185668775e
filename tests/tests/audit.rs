//! What is done to a node's database behind its back: `tuyen verify` names it, and puts back what a neighbour has.

use std::collections::BTreeSet;

use node::{
    admin::{FailureKind, Request, Verified},
    config::DATABASE,
    fhir::population::Population,
};
use rusqlite::Connection;
use tuyen_tests::{
    cluster::{BackupKey, Country, Node, has_alert, org, wait_equal},
    run::tuyen,
};

/// A new record about the one patient of a small country.
fn about_the_patient(n: u64) -> String {
    let subject = r#""subject":{"reference":"Patient/p"}"#;
    format!(r#"{{"resourceType":"Observation","id":"o{n}","status":"final","code":{{}},{subject}}}"#)
}

/// New records of an organization.
fn records(seed: u64, name: &str, count: usize) -> Vec<String> {
    Population::records(seed, &org(name), count).map(|record| record.to_string()).collect()
}

/// Changes the database of a node, whether it runs or not.
fn behind_the_back(node: &Node, sql: &str) {
    let key = std::fs::read_to_string(node.config().key_path(&node.dir)).unwrap();
    let conn = Connection::open(node.dir.join(DATABASE)).unwrap();
    let unlock = format!("PRAGMA key = \"x'{}'\"; PRAGMA cipher_page_size = 8192", key.trim());
    conn.execute_batch(&unlock).unwrap();
    conn.execute_batch(sql).unwrap();
}

fn verify(node: &Node, with: Option<&str>) -> Verified {
    node.ask(&Request::Verify { with: with.map(org) })
}

/// Audits until neither side has anything else to do.
fn compare(node: &Node, with: &str) -> Verified {
    let request = || Request::Verify { with: Some(org(with)) };
    for _ in 0..100 {
        match node.try_ask(&request()) {
            Ok(verified) => return verified,
            Err(failure) => {
                assert!(
                    failure.kind == FailureKind::Failed && failure.text.contains("something else"),
                    "{failure}"
                );
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("always busy:\n{}", node.log());
}

/// The rows that are named, and all that is said of them.
fn named(verified: &Verified) -> (BTreeSet<u64>, String) {
    let rows = verified.findings.iter().filter_map(|finding| finding.row).collect();
    (rows, format!("{:?}", verified.findings))
}

fn exported(node: &Node) -> BTreeSet<String> {
    node.export().into_iter().collect()
}

/// What is wrong is named with its record, does not stop the node, and comes back from the leaf or the root.
#[test]
fn what_was_damaged_behind_the_nodes_back_is_named_and_healed() {
    let mut country = Country::new();
    country.leaf.put(records(1, "dong-van", 40));
    wait_equal(&country.all(), 40);
    country.hub.put(records(2, "ha-giang", 10));
    wait_equal(&[&country.root, &country.hub], 50);
    country.leaf.wait_safe();
    let before = exported(&country.hub);
    let verified = verify(&country.hub, None);
    assert!(verified.findings.is_empty() && verified.rows == 50, "{verified:?}");
    assert!(!country.hub.has_alert("damaged", ""));
    // A backup may hold what is damaged as well, and says so.
    let key = BackupKey::new(&country.dir.path().join("key"));
    let backup = |node: &Node, name: &str, code: i32| {
        let out = country.dir.path().join(name);
        let create = ["backup", "create", "--json", "--to", &key.public, "--out", out.to_str().unwrap()];
        tuyen(&node.dir, &create, b"").expect(code).json()["damage_found"] == (code == 5)
    };
    assert!(backup(&country.hub, "sound", 0));

    let damage = "DELETE FROM feed WHERE seq IN (3, 4, 50);
        UPDATE feed SET entry = zeroblob(length(entry)) WHERE seq IN (5, 7, 45);
        UPDATE feed SET lane = 2 WHERE seq = 9; UPDATE feed SET chain = randomblob(16) WHERE seq = 11;
        DELETE FROM change WHERE seq = 13; UPDATE digest SET count = count + 1";
    for (round, with) in ["trung-uong", "dong-van"].into_iter().enumerate() {
        behind_the_back(&country.hub, damage);
        if round == 0 {
            // A start does not hide that the last row is gone.
            assert_eq!(country.hub.stop(), Some(0));
            country.hub.start();
        }
        let verified = verify(&country.hub, None);
        let (rows, all) = named(&verified);
        assert_eq!(rows, [3, 4, 5, 7, 9, 11, 13, 45, 50].into(), "{all}");
        assert!(verified.findings.iter().all(|finding| finding.record.is_some()), "{all}");
        assert!(has_alert(&country.hub.status().alerts, "damaged", "is not as it was written: row "));
        assert!(backup(&country.hub, &format!("damaged-{round}"), 5));
        for finding in &verified.findings {
            // Folded before, and shown whatever the row has become; and the node goes on.
            let _ = country
                .hub
                .try_ask::<serde_json::Value>(&Request::Get { record: finding.record.clone().unwrap() });
        }
        country.hub.wait("a link up", |status| status.up.as_ref().is_some_and(|up| up.state == "connected"));
        country.hub.wait("a link down", |status| status.down.iter().any(|down| down.state == "connected"));

        let verified = compare(&country.hub, with);
        let audit = verified.audit.clone().unwrap();
        let (rows, all) = named(&verified);
        // A leaf has what is its own.
        let (back, left) = if round == 0 { (6, BTreeSet::new()) } else { (4, [45, 50].into()) };
        assert_eq!((audit.here, audit.there, rows), (back, 0, left), "{all}");
        assert_eq!(audit.with.org(), &org(with));
        if round == 1 {
            let alerts = country.hub.status().alerts;
            assert!(has_alert(&alerts, "damaged", "does not have what stood in row 45 ("), "{alerts:?}");
            let verified = compare(&country.hub, "trung-uong");
            assert_eq!((verified.findings.len(), verified.audit.unwrap().here), (0, 2));
        }
        assert!(has_alert(&country.hub.status().alerts, "repaired", with));
        // Of what was counted wrong the check could tell nothing while rows were missing. It puts that right.
        let (rows, all) = named(&verify(&country.hub, None));
        assert!(rows.is_empty() && all.contains("the digest of the entries of ha-giang"), "{all}");
        let verified = verify(&country.hub, None);
        assert!(verified.findings.is_empty() && verified.rows == 50, "{verified:?}");
        country.hub.wait("folded", |status| status.unfolded == 0);
        assert_eq!(exported(&country.hub), before);
    }
    let equal = compare(&country.hub, "trung-uong").audit.unwrap();
    assert_eq!((equal.entries, equal.here, equal.there, equal.missed), (50, 0, 0, 0));
    // All goes on as before.
    country.leaf.put(records(3, "dong-van", 10));
    wait_equal(&[&country.root, &country.hub], 60);
    country.leaf.wait_safe();
    assert!(!country.hub.has_alert("forked", "") && !country.root.has_alert("restored", ""));
}

/// What cannot be read when it should go up is passed over, and nobody is told that it is safe.
#[test]
fn what_was_damaged_before_it_was_sent_is_not_called_safe() {
    let mut country = Country::new();
    country.leaf.put(records(1, "dong-van", 3));
    country.leaf.wait_safe();
    country.leaf.pause();
    country.leaf.put(["a", "b"].map(|id| format!(r#"{{"resourceType":"Patient","id":"{id}"}}"#)));
    country.leaf.kill();
    behind_the_back(&country.leaf, "UPDATE feed SET entry = zeroblob(length(entry)) WHERE seq = 4");
    country.leaf.start();
    country.leaf.resume();
    // By itself: nobody asks for a check.
    let status = country.leaf.wait("it is found", |status| status.damaged == 1);
    let safe = |node: &Node, id: &str| {
        let list =
            Request::List { resource_type: Some("Patient".into()), unread: false, after: None, limit: 100 };
        let page: node::admin::Listing = node.ask(&list);
        page.records.into_iter().find(|one| one.record.as_str() == id).unwrap().safe
    };
    country.leaf.wait("the other is at the root", |_| safe(&country.leaf, "Patient/b") == "root");
    assert_eq!((status.alerts.is_empty(), safe(&country.leaf, "Patient/a")), (false, "damaged".to_owned()));
    let said = tuyen_tests::run::tuyen(&country.leaf.dir, &["status", "--check"], b"").expect(5);
    assert!(said.out.starts_with("1 entry is damaged on this disk"), "{said:?}");
    // A start forgets it as little.
    country.leaf.kill();
    country.leaf.start();
    assert_eq!(country.leaf.status().damaged, 1);
    let rows = named(&verify(&country.leaf, None)).0;
    assert_eq!((rows, country.leaf.status().damaged), ([4].into(), 1));
    // Nor does a backup that is made of the folder.
    assert_eq!(country.leaf.stop(), Some(0));
    let key = BackupKey::new(&country.dir.path().join("key"));
    let made = country.leaf.back_up(&key, &country.dir.path().join("damaged")).expect(5).json();
    assert_eq!((&made["online"], &made["damage_found"]), (&false.into(), &true.into()));
}

/// A byte is changed in the middle of a page: the cipher refuses all of it, so no row of it can be named. People hear what helps,
/// also after a restart, which does not.
#[test]
fn a_damaged_page_of_the_database_is_told_first() {
    const PAGE: usize = 8_192;
    let mut country = Country::new();
    country.leaf.put(records(1, "dong-van", 1_500));
    country.leaf.wait_safe();
    assert_eq!(country.leaf.stop(), Some(0));
    let file = country.leaf.dir.join(DATABASE);
    let whole = std::fs::read(&file).unwrap();
    let at = whole.len() / PAGE / 2 * PAGE + PAGE / 2;
    let damaged = [&whole[..at], &[whole[at] ^ 1], &whole[at + 1..]].concat();
    std::fs::write(&file, damaged).unwrap();
    // Before anybody has met it, and by a program that has only to copy the pages.
    let key = BackupKey::new(&country.dir.path().join("key"));
    let backed_up = |country: &Country, name: &str, code| {
        let made = country.leaf.back_up(&key, &country.dir.path().join(name)).expect(code).json();
        (made["online"].clone(), made["damage_found"].clone())
    };
    assert_eq!(backed_up(&country, "stopped", 5), (false.into(), true.into()));
    country.leaf.start();
    assert_eq!(backed_up(&country, "running", 5), (true.into(), true.into()));
    assert_eq!(country.leaf.stop(), Some(0));
    for _ in 0..2 {
        country.leaf.start();
        let said = tuyen(&country.leaf.dir, &["verify"], b"").expect(6);
        let said = said.says(&["which no restart mends", "keep a copy of its folder", "tuyen replace"]);
        assert!(!said.err.contains("recovers at its start"), "{said:?}");
        let status = tuyen(&country.leaf.dir, &["status", "--check"], b"").expect(5);
        assert!(status.out.starts_with("The database on this disk is damaged"), "{status:?}");
        assert_eq!(country.leaf.stop(), Some(0));
    }
    std::fs::write(&file, whole).unwrap();
    country.leaf.start();
    country.leaf.wait("it is whole again", |status| !status.unsound);
    assert_eq!(backed_up(&country, "whole", 0), (true.into(), false.into()));
    tuyen(&country.leaf.dir, &["verify"], b"").expect(0);
}

/// What is shown, marked and found of records is made anew from their entries, whether the node has started since or not.
#[test]
fn what_is_said_beside_the_entries_is_made_anew() {
    let mut country = Country::new();
    country.leaf.put(records(1, "dong-van", 40));
    let label = r#"{"security":[{"system":"urn:tuyen:secrecy","code":"mat"}]}"#;
    let secret = format!(r#"{{"resourceType":"Patient","id":"s","gender":"female","meta":{label}}}"#);
    country.leaf.put([secret]);
    wait_equal(&[&country.root, &country.hub], 40);
    let before = exported(&country.leaf);
    assert_eq!(before.len(), 41);
    let damage = "UPDATE projection SET resource = replace(resource, 'male', 'HACKED');
        DELETE FROM projection WHERE record IN (3, 5); DELETE FROM record_name; DELETE FROM secret; DELETE FROM about;";
    for round in 0..2 {
        behind_the_back(&country.leaf, damage);
        if round == 0 {
            assert_ne!(exported(&country.leaf), before);
        } else {
            assert_eq!(country.leaf.stop(), Some(0));
            country.leaf.start();
        }
        let verified = verify(&country.leaf, None);
        let (rows, all) = named(&verified);
        assert!(rows.is_empty() && verified.mended > 40, "{all}");
        assert!(
            verified.findings.iter().all(|found| found.mended && !found.problem.contains("male")),
            "{all}"
        );
        assert!(
            verified.findings.iter().any(|found| found.record == Some("Patient/s".parse().unwrap())),
            "{all}"
        );
        assert!(country.leaf.has_alert("damaged", "put right from the entries that are here"));
        let verified = verify(&country.leaf, None);
        assert!(verified.findings.is_empty() && verified.rows == 41, "{verified:?}");
        assert_eq!(exported(&country.leaf), before);
    }
    // Nothing of it has left, and all goes on.
    country.leaf.put(records(3, "dong-van", 10));
    wait_equal(&[&country.root, &country.hub], 50);
    assert!(exported(&country.hub).iter().all(|record| !record.contains("urn:tuyen:secrecy")));
    assert!(!country.leaf.log().contains("HACKED"));
}

/// What an edit adds on a machine that cannot read an older one does not take its name, and both are there when it can.
#[test]
fn a_record_with_a_damaged_row_can_be_written_and_heals() {
    let mut country = Country::new();
    let patient = |phone: &str| {
        format!(r#"{{"resourceType":"Patient","id":"p","telecom":[{{"system":"phone","value":"{phone}"}}]}}"#)
    };
    country.leaf.put([patient("1")]);
    country.leaf.put([patient("2")]);
    wait_equal(&country.all(), 2);
    behind_the_back(&country.leaf, "UPDATE feed SET entry = x'00' WHERE seq = 2");
    country.leaf.put([patient("3")]);
    country.leaf.wait_safe();
    let verified = compare(&country.leaf, "ha-giang");
    assert_eq!((verified.findings.len(), verified.audit.unwrap().here), (0, 1));
    wait_equal(&country.all(), 3);
    country.leaf.put([patient("4")]);
    wait_equal(&country.all(), 4);
    for node in country.all() {
        let status = node.wait("folded", |status| status.unfolded == 0);
        assert_eq!((status.waiting, status.unreadable), (0, 0), "{}", status.org);
    }
    assert_eq!(country.leaf.value("Patient/p"), country.root.value("Patient/p"));
    // Nobody has it: the row is named.
    country.leaf.pause();
    country.leaf.put([patient("5")]);
    country.leaf.kill();
    behind_the_back(&country.leaf, "DELETE FROM feed WHERE seq = 5");
    country.leaf.start();
    country.leaf.resume();
    country.leaf.wait("a link up", |status| status.up.as_ref().is_some_and(|up| up.state == "connected"));
    let verified = compare(&country.leaf, "ha-giang");
    let (rows, all) = named(&verified);
    assert_eq!((rows, verified.audit.unwrap().missed), ([5].into(), 1), "{all}");
    assert!(country.leaf.has_alert("damaged", "does not have what stood in row 5 (Patient/p)"));
    let failure =
        country.leaf.try_ask::<Verified>(&Request::Verify { with: Some(org("meo-vac")) }).unwrap_err();
    assert!(failure.text.contains("not connected"), "{failure}");
}

/// What no entry says cannot be made anew from the entries. When it is gone nothing is lost, and nothing is called safe that is not:
/// it is worked out again with the neighbours.
#[test]
fn what_no_entry_says_may_be_gone_and_nothing_is_lost() {
    let tables: [&[&str]; 10] = [
        &["read_cursor"],
        &["had_read"],
        &["read_cursor", "had_read"],
        &["frontier"],
        &["mark"],
        &["frontier", "mark", "read_cursor", "had_read"],
        &["node"],
        &["setting"],
        &["outage_log", "allowed"],
        &["reached"],
    ];
    let mut country = Country::new();
    let mut written = 0;
    let mut about = |by: &Node| {
        written += 1;
        by.put([about_the_patient(written)]);
        written
    };
    country.leaf.put([r#"{"resourceType":"Patient","id":"p"}"#.to_owned()]);
    wait_equal(&country.all(), 1);
    for at in ["leaf", "hub", "root"] {
        for gone in tables {
            // Something that only the leaf has, and something that has still to come to it.
            country.leaf.pause();
            about(&country.leaf);
            let all = 1 + about(&country.hub);
            let node = match at {
                "leaf" => &mut country.leaf,
                "hub" => &mut country.hub,
                _ => &mut country.root,
            };
            node.kill();
            let sql: String = gone.iter().map(|table| format!("DELETE FROM {table};")).collect();
            behind_the_back(node, &format!("PRAGMA foreign_keys = OFF; {sql}"));
            node.start();
            let waits = country.leaf.status();
            assert!(waits.not_at_root.entries > 0, "{at} {gone:?}: {waits:?}");
            let _: node::admin::Synced = country.leaf.ask(&Request::SyncResume);
            // A parent that dies again and again is dialled less and less often.
            country.hub.sync();
            country.leaf.sync();
            wait_equal(&country.all(), all);
            country.leaf.wait_safe();
            let checked = verify(&country.leaf, None);
            assert!(checked.findings.is_empty(), "{at} {gone:?}: {checked:?}");
        }
    }
}

/// Of whom nobody has announced anything any more neighbours are asked again, of however many runs.
#[test]
fn announcements_may_be_gone_and_what_many_runs_have_written_goes_on() {
    let mut country = Country::new();
    let mut written = 0;
    let mut one = |by: &Node| {
        written += 1;
        by.put([about_the_patient(written)]);
        1 + written
    };
    country.leaf.put([r#"{"resourceType":"Patient","id":"p"}"#.to_owned()]);
    wait_equal(&country.all(), 1);
    for round in 0..5 {
        for node in country.all() {
            one(node);
        }
        country.leaf.sync();
        country.hub.sync();
        for node in [&mut country.leaf, &mut country.hub, &mut country.root] {
            if round < 4 {
                assert_eq!(node.stop(), Some(0));
                node.start();
            }
        }
    }
    for at in ["hub", "leaf", "root"] {
        for gone in [&["announcement"][..], &["certificate"], &["announcement", "certificate", "node"]] {
            eprintln!("---- {at} {gone:?}");
            // Something that only the leaf has, written in two runs, and something that has still to come to it.
            country.leaf.pause();
            one(&country.leaf);
            assert_eq!(country.leaf.stop(), Some(0));
            country.leaf.start();
            one(&country.leaf);
            let all = one(&country.hub);
            let node = match at {
                "leaf" => &mut country.leaf,
                "hub" => &mut country.hub,
                _ => &mut country.root,
            };
            assert_eq!(node.stop(), Some(0));
            let sql: String = gone.iter().map(|table| format!("DELETE FROM {table};")).collect();
            behind_the_back(node, &format!("PRAGMA foreign_keys = OFF; {sql}"));
            node.start();
            let _: node::admin::Synced = country.leaf.ask(&Request::SyncResume);
            country.hub.sync();
            country.leaf.sync();
            wait_equal(&country.all(), all);
            country.leaf.wait_safe();
            let checked = verify(&country.leaf, None);
            assert!(checked.findings.is_empty(), "{at} {gone:?}: {checked:?}");
        }
    }
}
