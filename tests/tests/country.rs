//! A small country of real processes.

use node::{admin::Page, admin::Request, fhir::population::Population};
use sync_core::{id::OrgId, identity::Role};
use tuyen_tests::cluster::Node;

#[test]
fn records_travel_from_a_leaf_to_the_root() {
    let dir = tempfile::tempdir().unwrap();
    let root = Node::root(&dir.path().join("root"), "trung-uong");
    let hub = root.child(&dir.path().join("hub"), Role::Hub, "ha-giang");
    let leaf = hub.child(&dir.path().join("leaf"), Role::Leaf, "dong-van");
    let org = OrgId::new("dong-van").unwrap();
    leaf.put(Population::records(1, &org, 500).map(|r| r.to_string()));
    leaf.sync();
    let at_leaf = leaf.wait_safe();
    let at_root = root.wait("folded", |s| s.unfolded == 0 && s.entries == at_leaf.entries);
    assert_eq!(at_root.digest, at_leaf.digest);
    let page = |node: &Node| -> Page { node.ask(&Request::Export { after: None, limit: 1000 }) };
    let texts = |page: Page| page.resources.into_iter().map(|r| r.get().to_owned()).collect::<Vec<_>>();
    assert_eq!(texts(page(&root)), texts(page(&leaf)));
}
