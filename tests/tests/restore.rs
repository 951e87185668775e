//! Folders that come back from an older copy, and copies that run at the same time. Positions of a feed are never
//! used twice, so every one of these is an ordinary case: nothing is lost, and somebody is told.

use std::path::{Path, PathBuf};

use node::{
    admin::{History, Request, Resource, Synced},
    fhir::population::Population,
};
use serde_json::json;
use sync_core::{id::Incarnation, identity::Role};
use tuyen_tests::{
    cluster::{BackupKey, Country, Node, has_alert, org, record, wait_equal, wait_for},
    proxy::{Line, Proxy},
};

/// New records of an organization, each test's batch under its own seed.
fn records(seed: u64, name: &str, count: usize) -> Vec<String> {
    Population::records(seed, &org(name), count).map(|record| record.to_string()).collect()
}

/// A Patient whose name says where it was written last.
fn patient(id: &str, family: &str) -> String {
    format!(r#"{{"resourceType":"Patient","id":"{id}","name":[{{"family":"{family}"}}]}}"#)
}

fn backup(country: &Country, name: &str) -> PathBuf {
    country.dir.path().join(name)
}

/// How an older copy of a node is made, and put in the place of its folder.
trait Copies {
    fn copy(&mut self, node: &mut Node, to: &Path);
    fn put_back(&mut self, node: &mut Node, copy: &Path);
}

/// Copies of the folder, made by this.
struct Folders(fn(&mut Node, &Path));

impl Copies for Folders {
    fn copy(&mut self, node: &mut Node, to: &Path) {
        self.0(node, to);
    }

    fn put_back(&mut self, node: &mut Node, copy: &Path) {
        node.restore(copy);
    }
}

/// While it is stopped.
fn stopped(node: &mut Node, to: &Path) {
    assert_eq!(node.stop(), Some(0));
    node.copy(to);
    node.start();
}

/// `tuyen backup create`, while the daemon runs, and `restore`.
#[derive(Default)]
struct Backups(Option<BackupKey>);

impl Copies for Backups {
    fn copy(&mut self, node: &mut Node, to: &Path) {
        let key = BackupKey::new(&to.with_extension("key"));
        let made = node.back_up(&key, to).expect(0).json();
        assert_eq!(
            (&made["online"], &made["place"]),
            (&true.into(), &node.status().place.to_string().into())
        );
        self.0 = Some(key);
    }

    fn put_back(&mut self, node: &mut Node, copy: &Path) {
        let restored = node.restore_backup(self.0.as_ref().unwrap(), copy).expect(0).json();
        assert_eq!(restored["dir"], node.dir.to_str().unwrap());
    }
}

/// The run that wrote the newest change of a record here.
fn last_run(node: &Node, name: &str) -> Incarnation {
    let history: History = node.ask(&Request::History { record: record(name) });
    let own = history.changes.into_iter().rfind(|change| change.node == Some(node.status().node));
    own.expect("this node wrote it").run
}

/// A leaf gets back what it lost, keeps what it writes, and a record that both of its lives edited shows it.
fn restored_leaf(mut copies: impl Copies) {
    let mut country = Country::new();
    let old = backup(&country, "old");
    country.leaf.put(records(1, "dong-van", 200));
    country.leaf.put([patient("edited", "before")]);
    wait_equal(&country.all(), 201);
    copies.copy(&mut country.leaf, &old);
    country.leaf.put(records(2, "dong-van", 100));
    country.leaf.put([patient("edited", "lost")]);
    wait_equal(&country.all(), 302);
    let before = last_run(&country.leaf, "Patient/edited");

    country.leaf.kill();
    copies.put_back(&mut country.leaf, &old);
    country.leaf.configure(|config| config.paused = true);
    country.leaf.start();
    assert_eq!(country.leaf.status().entries, 201, "the copy is old");
    country.leaf.put(records(3, "dong-van", 50));
    country.leaf.put([patient("edited", "after")]);
    assert_eq!(country.leaf.status().entries, 252);
    assert_ne!(last_run(&country.leaf, "Patient/edited"), before, "it writes as a run of its own");
    country.leaf.resume();
    country.leaf.wait("it hears that it was put back", |s| s.in_doubt);
    let now: Synced = country.leaf.ask(&Request::SyncNow { wait: false, bulk: false });
    assert!(now.in_doubt && now.not_at_hub.entries > 0, "{now:?}");
    let all = wait_equal(&country.all(), 353);
    assert!(all.iter().all(|s| s.entries == 353 && s.records == 351 && s.conflicts == 1), "{all:#?}");
    country.leaf.wait_safe();
    assert!(!country.leaf.sync().in_doubt, "it has been compared");
    let alerts = country.hub.status().alerts;
    assert!(has_alert(&alerts, "restored", "trung-uong/ha-giang/dong-van"), "{alerts:?}");
    assert!(!has_alert(&alerts, "two_machines", ""), "{alerts:?}");
    assert!(!has_alert(&alerts, "refused", ""), "{alerts:?}");
    country.leaf.put(records(4, "dong-van", 10));
    country.hub.put([patient("edited", "by the hub")]);
    wait_equal(&country.all(), 364);
}

#[test]
fn a_leaf_restored_from_a_copy_made_while_it_was_stopped() {
    restored_leaf(Folders(stopped));
}

#[test]
fn a_leaf_restored_from_a_copy_made_after_it_was_killed() {
    restored_leaf(Folders(|leaf, old| {
        leaf.kill();
        leaf.copy(old);
        leaf.start();
    }));
}

/// The copy knows a part of the very segment that the hub has read on: a disk snapshot, for example.
#[test]
fn a_leaf_restored_from_a_snapshot_of_its_running_machine() {
    restored_leaf(Folders(|leaf, old| leaf.copy(old)));
}

#[test]
fn a_leaf_restored_from_a_backup() {
    restored_leaf(Backups::default());
}

/// What `tuyen backup restore` tells to do about marks that are lost.
#[test]
fn a_mark_that_a_restore_has_lost_is_set_again_before_the_node_syncs() {
    let (mut country, mut copies) = (Country::new(), Backups::default());
    let old = backup(&country, "old");
    country.leaf.put([patient("known", "An")]);
    wait_equal(&country.all(), 1);
    country.leaf.pause();
    country.leaf.put([patient("a", "An"), patient("b", "An")]);
    copies.copy(&mut country.leaf, &old);
    let mark = |node: &Node, name: &str| {
        node.edit(name, "bs. Lan", |it| {
            it["meta"] = json!({"security": [{"system": "urn:tuyen:secrecy", "code": "mat"}]})
        })
    };
    mark(&country.leaf, "Patient/a");
    mark(&country.leaf, "Patient/b");
    country.leaf.kill();
    copies.put_back(&mut country.leaf, &old);
    country.leaf.start();
    assert_eq!(country.leaf.status().secret, 0, "the marks are lost");
    mark(&country.leaf, "Patient/a");
    country.leaf.resume();
    country.leaf.wait_safe();
    let at_hub = |name: &str| country.hub.try_ask::<Resource>(&Request::Get { record: record(name) }).is_ok();
    assert_eq!([at_hub("Patient/a"), at_hub("Patient/b")], [false, true]);
}

#[test]
fn two_copies_of_one_leaf_running_at_once() {
    let mut country = Country::new();
    let twin = backup(&country, "twin");
    country.leaf.put(records(1, "dong-van", 100));
    wait_equal(&country.all(), 100);
    assert_eq!(country.leaf.stop(), Some(0));
    country.leaf.copy(&twin);
    country.leaf.start();
    let mut twin = Node::at(&twin);
    twin.start();
    for round in 0..3 {
        country.leaf.put(records(10 + round, "dong-van", 30));
        twin.put(records(20 + round, "dong-van", 30));
        let [root, hub, leaf] = country.all();
        wait_equal(&[root, hub, leaf, &twin], 100 + 60 * (round + 1));
    }
    country.leaf.put([patient("edited", "here")]);
    twin.put([patient("edited", "there")]);
    country.hub.wait("two machines", |s| has_alert(&s.alerts, "two_machines", "dong-van"));
    let [root, hub, leaf] = country.all();
    let all = wait_equal(&[root, hub, leaf, &twin], 282);
    assert!(all.iter().all(|s| s.entries == 282), "{all:#?}");
    country.leaf.wait_safe();
    twin.wait_safe();
}

#[test]
fn a_hub_restored_from_an_older_copy_gets_everything_back() {
    restored_hub(Folders(stopped));
}

#[test]
fn a_hub_restored_from_a_backup_gets_everything_back() {
    restored_hub(Backups::default());
}

fn restored_hub(mut copies: impl Copies) {
    let mut proxy = None;
    let mut country = Country::with_leaf(|hub, dir| {
        let through = Proxy::to(hub.config().listen.unwrap(), Line::default(), 1);
        let leaf = hub.child_through(Some(through.address), dir, Role::Leaf, "dong-van");
        proxy = Some(through);
        leaf
    });
    let old = backup(&country, "old");
    country.leaf.put(records(1, "dong-van", 100));
    country.hub.put(records(2, "ha-giang", 20));
    wait_equal(&[&country.root, &country.hub], 120);
    copies.copy(&mut country.hub, &old);
    country.leaf.put(records(3, "dong-van", 400));
    country.hub.put(records(4, "ha-giang", 30));
    country.hub.put([patient("shared", "from the hub")]);
    wait_equal(&[&country.root, &country.hub], 551);
    country.leaf.wait_safe();

    // While the hub is away the leaf goes on to write: it must not say of anything that it is there.
    country.hub.kill();
    copies.put_back(&mut country.hub, &old);
    country.leaf.put(records(5, "dong-van", 40));
    assert_eq!(country.leaf.status().not_at_hub.entries, 40);
    // Slow enough to watch.
    let proxy = proxy.unwrap();
    proxy.set(Line { bits_per_second: Some(256_000), ..Line::default() });
    country.hub.start();
    assert!(country.hub.status().entries < 551, "the copy is old");
    // The leaf's word, asked first, must hold at the hub, asked after it, from the moment on when it has heard
    // how far the hub has fallen behind.
    let at_hub = |s: &node::admin::Status| {
        s.homes.iter().find(|home| home.home == org("dong-van")).map_or(0, |home| home.entries)
    };
    country.leaf.wait("the leaf hears of it", |s| s.not_at_hub.entries > 40);
    wait_for("honest receipts", &[&country.leaf, &country.hub], |all| {
        let claimed = all[0].entries - all[0].not_at_hub.entries;
        assert!(claimed <= at_hub(&all[1]), "{claimed} said to be at the hub, {} are", at_hub(&all[1]));
        all[0].not_at_hub.entries == 0
    });
    wait_equal(&[&country.root, &country.hub], 591);
    assert_eq!(country.leaf.wait_safe().entries, 540);
    let alerts = country.root.status().alerts;
    assert!(has_alert(&alerts, "restored", "trung-uong/ha-giang"), "{alerts:?}");
    assert!(!has_alert(&alerts, "refused", ""), "{alerts:?}");
    country.hub.put([patient("shared", "after")]);
    country.leaf.put(records(6, "dong-van", 5));
    wait_equal(&[&country.root, &country.hub], 597);
}

#[test]
fn a_root_restored_from_an_older_copy_gets_everything_back() {
    restored_root(Folders(stopped));
}

#[test]
fn a_root_restored_from_a_backup_gets_everything_back() {
    restored_root(Backups::default());
}

fn restored_root(mut copies: impl Copies) {
    let mut country = Country::new();
    let old = backup(&country, "old");
    country.leaf.put(records(1, "dong-van", 100));
    country.leaf.put([patient("edited", "before")]);
    wait_equal(&country.all(), 101);
    copies.copy(&mut country.root, &old);
    country.leaf.put(records(2, "dong-van", 400));
    country.root.put([patient("edited", "by the root")]);
    wait_equal(&country.all(), 502);
    country.leaf.wait_safe();

    country.root.kill();
    copies.put_back(&mut country.root, &old);
    country.leaf.put(records(3, "dong-van", 40));
    country.leaf.wait("at the hub", |s| s.not_at_hub.entries == 0);
    assert_eq!(country.leaf.status().not_at_root.entries, 40);
    country.root.start();
    assert_eq!(country.root.status().entries, 101, "the copy is old");
    country.hub.wait("the hub hears of it", |s| s.not_at_hub.entries != 40);
    wait_for("honest receipts", &[&country.hub, &country.root], |all| {
        for not_there in [all[0].not_at_hub, all[0].not_at_root] {
            // What the root wrote itself is nothing that the hub has to bring there.
            let claimed = all[0].entries - 1 - not_there.entries;
            assert!(claimed <= all[1].entries, "{claimed} said to be at the root, {} are", all[1].entries);
        }
        all[0].not_at_hub.entries == 0
    });
    wait_equal(&country.all(), 542);
    country.leaf.wait_safe();
    let alerts = country.hub.status().alerts;
    assert!(has_alert(&alerts, "restored", "trung-uong"), "{alerts:?}");
    assert!(!has_alert(&alerts, "refused", ""), "{alerts:?}");
}
