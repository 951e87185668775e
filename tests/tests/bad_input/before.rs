//! A node with a record that was there before, and how to see that it still is.

use std::{fs, path::PathBuf};

use node::admin::{Request, Resource};
use rusqlite::Connection;
use serde_json::value::RawValue;
use tempfile::TempDir;
use tuyen_tests::{
    cluster::Node,
    run::{Ran, tuyen, tuyend},
};

/// What a bad record says: it must be found in no message and in no log.
pub const CANARY: &str = "Nguyen-Canary-7391";
/// What a daemon may use at most, whatever comes.
pub const DAEMON_MAX_KIB: u64 = 250 << 10;

/// A root with one record that was there before.
pub struct Before {
    pub node: Node,
    pub resource: String,
    pub dir: TempDir,
}

impl Before {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::root(&dir.path().join("root"), "trung-uong");
        let resource =
            r#"{"resourceType":"Patient","id":"before","active":true,"gender":"female"}"#.to_owned();
        node.put([resource.clone()]);
        Self { node, resource, dir }
    }

    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// That what was there before is there, that a write works, and that nobody has repeated a record.
    #[track_caller]
    pub fn is_still_there(&self, said: &[&Ran]) {
        self.node.put([r#"{"resourceType":"Basic","id":"after"}"#.to_owned()]);
        still_there(&self.node, &self.resource, said);
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.node.dir.join(name)
    }

    /// Replaces a file, expects the daemon to refuse to start, and puts the file back.
    pub fn refuses_with(&mut self, name: &str, content: Option<&[u8]>, code: i32, words: &[&str]) {
        let path = self.path(name);
        let good = fs::read(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions();
        match content {
            Some(content) => fs::write(&path, content).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let ran = self.refuses(code, words);
        fs::write(&path, good).unwrap();
        fs::set_permissions(&path, mode).unwrap();
        self.starts(&[&ran]);
    }

    /// Expects the daemon to end at once.
    pub fn refuses(&self, code: i32, words: &[&str]) -> Ran {
        let ran = tuyend(&self.node.dir).expect(code).says(words);
        assert!(ran.err.contains("tuyend: "), "{ran:#?}");
        let cli = tuyen(&self.node.dir, &["status"], b"");
        assert!(matches!(cli.code, Some(3 | 4)), "nobody answers: {cli:#?}");
        ran
    }

    /// Starts, finds everything, stops.
    pub fn starts(&mut self, said: &[&Ran]) {
        self.node.start();
        self.is_still_there(said);
        assert_eq!(self.node.stop(), Some(0));
    }

    /// Opens the database behind the daemon's back.
    pub fn database(&self) -> Connection {
        let key = fs::read_to_string(self.path("store.key")).unwrap();
        let conn = Connection::open(self.path("records.db")).unwrap();
        let key = format!("PRAGMA key = \"x'{}'\"; PRAGMA cipher_page_size = 8192", key.trim());
        conn.execute_batch(&key).unwrap();
        conn
    }
}

/// A root with one record that was there before, stopped.
pub fn stopped() -> Before {
    let mut before = Before::new();
    assert_eq!(before.node.stop(), Some(0));
    before
}

#[track_caller]
pub fn still_there(node: &Node, resource: &str, said: &[&Ran]) {
    assert_eq!(get(node, "Patient/before"), resource);
    assert!(!node.log().contains("Canary"), "{}", node.log());
    for ran in said {
        assert!(!ran.err.contains("Canary") && !ran.out.contains("Canary"), "{ran:#?}");
    }
}

pub fn get(node: &Node, record: &str) -> String {
    let found: Resource = node.ask(&Request::Get { record: record.parse().unwrap() });
    found.resource.get().to_owned()
}

pub fn put_request(resource: &str) -> Request {
    let resources = vec![RawValue::from_string(resource.to_owned()).unwrap()];
    Request::Put { resources, base: None, by: None, why: None }
}
