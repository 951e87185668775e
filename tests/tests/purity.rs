//! What must not depend on what: the pure crate stays pure, and arrows between crates point one way.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{CargoOpt, DependencyKind, Metadata, MetadataCommand, PackageId};

/// Crates that do I/O, read clocks or spawn threads: none may be reached from sync-core.
const IMPURE: [&str; 12] = [
    "tokio",
    "quinn",
    "quinn-proto",
    "rusqlite",
    "libsqlite3-sys",
    "rustls",
    "ring",
    "mio",
    "socket2",
    "hyper",
    "tracing-subscriber",
    "rcgen",
];

fn metadata() -> Metadata {
    let mut command = MetadataCommand::new();
    command.manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
    command.features(CargoOpt::AllFeatures).exec().expect("cargo describes this workspace")
}

fn id_of(metadata: &Metadata, name: &str) -> PackageId {
    let package = metadata.packages.iter().find(|package| package.name.as_str() == name);
    package.unwrap_or_else(|| panic!("{name} is a crate of this workspace")).id.clone()
}

/// Everything that a crate is linked with: its normal and build dependencies, and theirs.
fn reached(metadata: &Metadata, from: &str) -> BTreeSet<String> {
    let graph = metadata.resolve.as_ref().expect("metadata with a graph");
    let nodes: BTreeMap<_, _> = graph.nodes.iter().map(|node| (&node.id, node)).collect();
    let names: BTreeMap<_, _> = metadata.packages.iter().map(|p| (&p.id, p.name.to_string())).collect();
    let mut seen = BTreeSet::new();
    let mut open = vec![id_of(metadata, from)];
    while let Some(id) = open.pop() {
        for dependency in &nodes[&id].deps {
            let linked = dependency.dep_kinds.iter().any(|kind| kind.kind != DependencyKind::Development);
            if linked && seen.insert(names[&dependency.pkg].clone()) {
                open.push(dependency.pkg.clone());
            }
        }
    }
    seen
}

#[test]
fn sync_core_is_pure() {
    let metadata = metadata();
    let reached = reached(&metadata, "tuyen-sync-core");
    assert!(reached.contains("automerge"), "the walk finds what is there");
    let found: Vec<_> = IMPURE.iter().filter(|name| reached.contains(**name)).collect();
    assert!(found.is_empty(), "sync-core must not depend on {found:?}");
}

#[test]
fn arrows_point_one_way() {
    let metadata = metadata();
    let ours = |from: &str| {
        let mut found = reached(&metadata, from);
        found.retain(|name| name.starts_with("tuyen-"));
        found.into_iter().collect::<Vec<_>>()
    };
    assert!(ours("tuyen-sync-core").is_empty());
    assert_eq!(ours("tuyen-node"), ["tuyen-sync-core"]);
    assert_eq!(ours("tuyen-cli"), ["tuyen-node", "tuyen-sync-core"]);
    assert!(!ours("tuyen-cli").contains(&"tuyen-tests".to_owned()));
}

/// Licences that the project may ship. `blessing` and `WTFPL` are how SQLite and libtomcrypt, parts of SQLCipher's
/// sources, put themselves into the public domain.
const LICENCES: [&str; 13] = [
    "MIT",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "MPL-2.0",
    "Unicode-3.0",
    "CC0-1.0",
    "0BSD",
    "Unlicense",
    "blessing",
    "WTFPL",
];

#[test]
fn every_licence_is_one_of_ours() {
    let allowed = |licence: &str| {
        let one = |part: &str| {
            let part = part.trim().trim_matches(['(', ')']);
            LICENCES.contains(&part) || part == "Apache-2.0 WITH LLVM-exception"
        };
        let all = |part: &str| part.split(" AND ").all(one);
        // An expression with OR is ours to choose from.
        licence.replace('/', " OR ").split(" OR ").any(all)
    };
    let metadata = metadata();
    let wrong: Vec<_> = metadata
        .packages
        .iter()
        .filter(|package| !allowed(package.license.as_deref().unwrap_or_default()))
        .map(|package| format!("{} {}: {:?}", package.name, package.version, package.license))
        .collect();
    assert!(wrong.is_empty(), "licences that are not allowed: {wrong:#?}");
}
