//! A node's folder with something in it that does not fit: settings, keys, database, port, path.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use sync_core::identity::Role;
use tuyen_tests::{
    cluster::{free_address, program},
    run::{tuyen, tuyend},
};

use crate::before::{Before, stopped};

#[test]
fn damaged_settings_are_named() {
    let mut before = stopped();
    let good = fs::read_to_string(before.path("config.json")).unwrap();
    let cut = &good[..good.len() / 2];
    let words = ["config.json cannot be used (", "correct it by hand, or restore it from a copy"];
    for bad in [cut, "", "null", "\0\0\0\0", "[]", r#"{"place":"../x"}"#] {
        before.refuses_with("config.json", Some(bad.as_bytes()), 1, &words);
    }
    let elsewhere = good.replace("127.0.0.1:", "192.0.2.1:");
    before.refuses_with(
        "config.json",
        Some(elsewhere.as_bytes()),
        1,
        &["cannot use UDP 192.0.2.1", "another address"],
    );
    before.refuses_with("config.json", None, 4, &["is not a node's folder", "tuyen init"]);
    let nowhere = tuyend(Path::new("/nowhere/at/all")).expect(4);
    nowhere.says(&["is not a node's folder"]);
}

#[test]
fn a_new_root_never_replaces_keys() {
    let mut before = stopped();
    let (keys, settings) = (before.path("identity/ca.key"), before.path("config.json"));
    let (old, config) = (fs::read(&keys).unwrap(), fs::read(&settings).unwrap());
    fs::remove_file(&settings).unwrap();
    let address = free_address().to_string();
    let arguments = ["init", "--role", "root", "--org", "other", "--listen", &address];
    let ran = tuyen(&before.node.dir, &arguments, b"")
        .expect(2)
        .says(&["holds the keys of a node", "an empty folder"]);
    assert!(fs::read(&keys).unwrap() == old && !settings.exists());
    fs::write(&settings, config).unwrap();
    before.starts(&[&ran]);
}

#[test]
fn keys_that_are_wrong_missing_or_open_are_named() {
    let mut before = stopped();
    let wrong = "5a".repeat(32);
    let words = ["records.db cannot be read with this key", "Use the key file", "restore a backup"];
    before.refuses_with("store.key", Some(wrong.as_bytes()), 6, &words);
    before.refuses_with(
        "store.key",
        Some(b"secret"),
        6,
        &["store.key does not hold a key", "64 hexadecimal digits"],
    );
    before.refuses_with("store.key", None, 6, &["store.key cannot be used", "Put the store's key there"]);
    before.refuses_with("identity/node.key", Some(b"x"), 4, &["node.key does not hold an Ed25519", "enrol"]);
    before.refuses_with("identity/node.key", None, 4, &["cannot read", "node.key"]);
    before.refuses_with(
        "identity/node.crt",
        Some(b"x"),
        4,
        &["node.crt does not hold certificates", "backup"],
    );
    for (name, code) in [("store.key", 6), ("identity/node.key", 4)] {
        let path = before.path(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let ran = before.refuses(code, &["read by other", "mode 644", "chmod 600"]);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        before.starts(&[&ran]);
    }
}

#[test]
fn a_database_that_does_not_fit_is_left_as_it_is() {
    let mut before = stopped();
    before.database().execute_batch("PRAGMA user_version = 99").unwrap();
    let content = fs::read(before.path("records.db")).unwrap();
    let ran =
        before.refuses(6, &["has layout version 99", "knows versions up to", "Install the newer version"]);
    assert!(fs::read(before.path("records.db")).unwrap() == content, "the file was touched");
    before.database().execute_batch(&format!("PRAGMA user_version = {}", node::store::VERSION)).unwrap();
    before.starts(&[&ran]);
    before.database().execute_batch("PRAGMA application_id = 7").unwrap();
    let ran = before.refuses(6, &["is a database of another program", "Check the path"]);
    before
        .database()
        .execute_batch(&format!("PRAGMA application_id = {}", node::store::APPLICATION_ID))
        .unwrap();
    before.starts(&[&ran]);
    let good = fs::read(before.path("records.db")).unwrap();
    let mut flipped = good.clone();
    flipped[100] ^= 1;
    before.refuses_with(
        "records.db",
        Some(&flipped),
        6,
        &["cannot be read with this key", "restore a backup"],
    );
    before.refuses_with("records.db", Some(&good[..100]), 6, &["shorter than any database"]);
    before.refuses_with("records.db", Some(b"SQLite format 3\0"), 6, &["unencrypted SQLite database"]);
    before.refuses_with("records.db", None, 6, &["there is no store at", "Check the path"]);
}

#[test]
fn a_port_in_use_is_named() {
    let mut before = stopped();
    let config = fs::read_to_string(before.path("config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    let address = config["listen"].as_str().unwrap();
    let taken = std::net::UdpSocket::bind(address).unwrap();
    let words = ["cannot use UDP", address, "in use", "another program may have the port", "config.json"];
    let ran = before.refuses(1, &words);
    drop(taken);
    before.node.start();
    let second = tuyend(&before.node.dir).expect(1).says(&["a daemon already runs on", "stop it first"]);
    before.is_still_there(&[&ran, &second]);
}

#[test]
fn a_path_that_is_too_long_for_a_socket_is_refused_before_anything_is_made() {
    let mut before = Before::new();
    let long = before.dir.path().join("a-long-name".repeat(9));
    let words = ["the system allows 107 for a socket", "a shorter path"];
    let address = free_address().to_string();
    let arguments = ["init", "--role", "root", "--org", "other", "--listen", &address];
    tuyen(&long, &arguments, b"").expect(2).says(&words);
    assert!(!long.exists());
    let token = before.node.invite(Role::Leaf, "dong-van").token;
    tuyen(&long, &["enrol", &token], b"").expect(2).says(&words);
    tuyen(&before.dir.path().join("leaf"), &["enrol", &token], b"").expect(0);
    before.node.stop();
    fs::rename(&before.node.dir, &long).unwrap();
    tuyend(&long).expect(2).says(&words);
    tuyen(&long, &["status"], b"").expect(2).says(&words);
    fs::rename(&long, &before.node.dir).unwrap();
    before.starts(&[]);
}

#[test]
fn an_exit_code_counts_where_no_word_can_be_written() {
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(program("tuyend"));
    command.args(["--dir", "/nowhere/at/all"]);
    let status = command.stderr(full()).status().unwrap();
    assert_eq!(status.code(), Some(4));
    let mut before = stopped();
    before.node.start_logging_to(full());
    before.is_still_there(&[]);
    assert_eq!(before.node.stop(), Some(0));
}
