//! What is done to a node's database behind its back: `tuyen verify` names it.

use node::{
    admin::{Request, Verified},
    config::DATABASE,
    fhir::population::Population,
};
use rusqlite::Connection;
use tuyen_tests::cluster::{Country, Node, has_alert, org, wait_equal};

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

/// The rows that are named, in order, and all that is said of them.
fn named(verified: &Verified) -> (Vec<u64>, String) {
    let mut rows: Vec<_> = verified.findings.iter().filter_map(|finding| finding.row).collect();
    rows.sort();
    (rows, format!("{:?}", verified.findings))
}

#[test]
fn a_check_names_what_was_damaged_behind_the_nodes_back() {
    let country = Country::new();
    country.leaf.put(records(1, "dong-van", 40));
    wait_equal(&country.all(), 40);
    let verified: Verified = country.hub.ask(&Request::Verify);
    assert!(verified.findings.is_empty() && verified.rows == 40, "{verified:?}");
    assert!(!country.hub.has_alert("damaged", ""));

    behind_the_back(&country.hub, "DELETE FROM feed WHERE seq IN (3, 40)");
    behind_the_back(&country.hub, "UPDATE feed SET entry = zeroblob(length(entry)) WHERE seq = 7");
    let verified: Verified = country.hub.ask(&Request::Verify);
    let (rows, all) = named(&verified);
    assert_eq!(rows, [3, 7, 40], "{all}");
    assert!(verified.findings.iter().all(|finding| finding.record.is_some()), "{all}");
    let alerts = country.hub.status().alerts;
    assert!(has_alert(&alerts, "damaged", "row 7 ("), "{alerts:?}");
}
