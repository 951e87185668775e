//! A small country of real processes.

use node::{
    admin::{Client, Page, Request, Status},
    fhir::population::Population,
};
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

/// While the core is busy a crowd gathers before it. Whoever waits there is answered, a neighbour's frame as well as a
/// request: none is taken from the queue and forgotten.
#[test]
fn everybody_who_waits_is_answered() {
    const CROWD: usize = 200;
    let dir = tempfile::tempdir().unwrap();
    let root = Node::root(&dir.path().join("root"), "trung-uong");
    let org = OrgId::new("trung-uong").unwrap();
    let busy: Vec<_> = Population::records(1, &org, 4_000).map(|record| record.to_string()).collect();
    let clients: Vec<_> = (0..CROWD).map(|_| Client::connect(&root.dir).unwrap()).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| root.put(busy));
        let asks = |mut client: Client| scope.spawn(move || client.call::<Status>(&Request::Status, |_| {}));
        let asked: Vec<_> = clients.into_iter().map(asks).collect();
        let answers = asked.into_iter().map(|asked| asked.join().unwrap());
        let lost: Vec<_> = answers.filter_map(Result::err).collect();
        assert!(lost.is_empty(), "{} of {CROWD} were not answered: {}", lost.len(), lost[0].text);
    });
}
