//! What must not depend on what: the pure crate stays pure, and arrows between crates point one way.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use serde::Deserialize;

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

/// What [`cargo metadata`](https://doc.rust-lang.org/cargo/commands/cargo-metadata.html) says, as far as it matters
/// here. The library for it would build serde_json with features that the product is not built with.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Graph,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
}

#[derive(Deserialize)]
struct Graph {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

/// `dev`, `build`, or nothing for a normal dependency.
#[derive(Deserialize)]
struct Kind {
    kind: Option<String>,
}

fn metadata() -> Metadata {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let arguments = ["metadata", "--format-version=1", "--all-features", "--manifest-path", manifest];
    let output = Command::new(cargo).args(arguments).output().expect("cargo runs");
    serde_json::from_slice(&output.stdout).expect("cargo describes this workspace")
}

/// Everything that a crate is linked with: its normal and build dependencies, and theirs.
fn reached(metadata: &Metadata, from: &str) -> BTreeSet<String> {
    let nodes: BTreeMap<_, _> = metadata.resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let names: BTreeMap<_, _> = metadata.packages.iter().map(|p| (&p.id, p.name.clone())).collect();
    let start = metadata.packages.iter().find(|package| package.name == from);
    let mut seen = BTreeSet::new();
    let mut open = vec![&start.unwrap_or_else(|| panic!("{from} is a crate of this workspace")).id];
    while let Some(id) = open.pop() {
        for dependency in &nodes[id].deps {
            let linked = dependency.dep_kinds.iter().any(|kind| kind.kind.as_deref() != Some("dev"));
            if linked && seen.insert(names[&dependency.pkg].clone()) {
                open.push(&dependency.pkg);
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
