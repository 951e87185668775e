//! Real nodes as real processes on the loopback, for end-to-end tests and benchmarks.
//!
//! A [`Node`] is a folder and, while it runs, a `tuyend` process of that folder. Dropping it kills the process,
//! the hard way. The binaries are those beside the running test: `cargo ci` builds them first.

use std::{
    fs::File,
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use node::{
    admin::{
        AlertLine, Choice, Client, ConflictLine, Conflicts, Failure, Invited, Page, Request, Resource,
        Status, Synced, Written,
    },
    config::{Config, DATABASE},
    store::{Key, Reader},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json, value::RawValue};
use sync_core::{
    id::{OrgId, RecordId},
    identity::Role,
};
use tempfile::TempDir;

use crate::run::{Ran, tuyen};

/// How long a daemon may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long something may show no progress before a wait is given up.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// A program of this workspace, built into the folder of the running one.
pub fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a running program has a path");
    let found = own.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| {
        panic!("{name} is not built; run `cargo build --release --workspace --bins` first")
    })
}

/// A UDP address of this machine that is free now.
pub fn free_address() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("the loopback has a free port");
    socket.local_addr().expect("a bound socket has an address")
}

/// A name of an organization.
pub fn org(name: &str) -> OrgId {
    OrgId::new(name).expect("a test uses good names")
}

/// A name of a record, as in `Patient/1`.
pub fn record(name: &str) -> RecordId {
    name.parse().expect("a test uses good names")
}

/// A transaction as Synthea writes it: what an entry is called by the others is `urn:uuid:` with its id.
pub fn transaction(resources: &[Value]) -> Value {
    let entry = |resource: &Value| {
        let id = resource["id"].as_str().expect("a test gives ids");
        let request = json!({"method": "POST", "url": resource["resourceType"]});
        json!({"fullUrl": format!("urn:uuid:{id}"), "resource": resource, "request": request})
    };
    let entries: Vec<Value> = resources.iter().map(entry).collect();
    json!({"resourceType": "Bundle", "type": "transaction", "entry": entries})
}

/// One root, one hub below it, one leaf below that, all running. Dropping it ends all and removes the folders.
pub struct Country {
    /// `trung-uong`.
    pub root: Node,
    /// `ha-giang`.
    pub hub: Node,
    /// `dong-van`.
    pub leaf: Node,
    /// Where the folders are.
    pub dir: TempDir,
}

impl Country {
    /// Founds and enrols all three.
    pub fn new() -> Self {
        Self::with_leaf(|hub, dir| hub.child(dir, Role::Leaf, "dong-van"))
    }

    /// The same with a leaf made in another way.
    pub fn with_leaf(leaf: impl FnOnce(&Node, &Path) -> Node) -> Self {
        let dir = tempfile::tempdir().expect("there is a folder for temporary files");
        let root = Node::root(&dir.path().join("root"), "trung-uong");
        let hub = root.child(&dir.path().join("hub"), Role::Hub, "ha-giang");
        let leaf = leaf(&hub, &dir.path().join("leaf"));
        Self { root, hub, leaf, dir }
    }

    /// All nodes, from the root down.
    pub fn all(&self) -> [&Node; 3] {
        [&self.root, &self.hub, &self.leaf]
    }
}

impl Default for Country {
    fn default() -> Self {
        Self::new()
    }
}

/// Waits until the statuses of some nodes, asked one after another, are as wished. Gives up when nothing moves
/// any more.
pub fn wait_for(what: &str, nodes: &[&Node], wish: impl Fn(&[Status]) -> bool) -> Vec<Status> {
    let (mut moved, mut before) = (Instant::now(), String::new());
    loop {
        let all: Vec<Status> = nodes.iter().map(|node| node.status()).collect();
        if wish(&all) {
            return all;
        }
        let state = |s: &Status| {
            format!(
                "{}: {} entries, {} unfolded, {} waiting, {} not at hub, {} not at root, {} attachments away, {} alerts",
                s.org,
                s.entries,
                s.unfolded,
                s.waiting,
                s.not_at_hub.entries,
                s.not_at_root.entries,
                s.attachments.away,
                s.alerts.len(),
            )
        };
        let now = all.iter().map(state).collect::<Vec<_>>().join("\n");
        if now != before {
            (moved, before) = (Instant::now(), now);
        }
        if moved.elapsed() > STALL_TIMEOUT {
            let logs: Vec<_> =
                nodes.iter().map(|n| format!("--- {}\n{}", n.dir.display(), n.log())).collect();
            panic!("{what}: stalled at\n{before}\n{}", logs.join("\n"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until these nodes hold the same entries, all folded, and at least so many.
pub fn wait_equal(nodes: &[&Node], entries: u64) -> Vec<Status> {
    let all = wait_for("the same everywhere", nodes, |all| {
        let first = &all[0];
        all.iter().all(|s| {
            s.entries >= entries && s.digest == first.digest && s.entries == first.entries && s.unfolded == 0
        })
    });
    for status in &all {
        assert_eq!((status.waiting, status.unreadable), (0, 0), "{}", status.org);
    }
    all
}

/// A key pair for backups.
pub struct BackupKey {
    /// The file with the private key.
    pub path: PathBuf,
    /// The public key.
    pub public: String,
}

impl BackupKey {
    /// Makes one.
    pub fn new(path: &Path) -> Self {
        let public = node::backup::keygen(path, 0).expect("a new file can be made");
        Self { path: path.to_owned(), public }
    }
}

/// A node's folder, and its process while it runs.
pub struct Node {
    /// The folder.
    pub dir: PathBuf,
    child: Option<Child>,
    /// Its process has ended by itself, which only tests of failures wait for.
    has_failed: bool,
}

impl Node {
    /// A node of a folder that exists.
    pub fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), child: None, has_failed: false }
    }

    /// The settings; changed, they are for the next start.
    pub fn config(&self) -> Config {
        Config::load(&self.dir).expect("a node's folder has settings")
    }

    /// Changes the settings of a node that does not run.
    pub fn configure(&self, change: impl FnOnce(&mut Config)) {
        assert!(self.child.is_none(), "it runs");
        let mut config = self.config();
        change(&mut config);
        config.save(&self.dir).expect("the folder can be written");
    }

    /// Copies the folder, as a backup or a cloned machine would.
    pub fn copy(&self, to: &Path) {
        let status = Command::new("cp").arg("-a").arg(&self.dir).arg(to).status().expect("cp exists");
        assert!(status.success());
    }

    /// Puts a copy in the place of the folder of a node that does not run.
    pub fn restore(&mut self, copy: &Path) {
        assert!(self.child.is_none(), "it runs");
        std::fs::remove_dir_all(&self.dir).expect("the folder can be removed");
        Self::at(copy).copy(&self.dir);
    }

    /// Makes a backup, as an operator does.
    pub fn back_up(&self, key: &BackupKey, to: &Path) -> Ran {
        let to = to.to_str().expect("a test uses good names");
        tuyen(&self.dir, &["backup", "create", "--to", &key.public, "--out", to, "--json"], b"")
    }

    /// Puts what a backup holds in the place of the folder of a node that does not run.
    pub fn restore_backup(&mut self, key: &BackupKey, file: &Path) -> Ran {
        assert!(self.child.is_none(), "it runs");
        std::fs::remove_dir_all(&self.dir).expect("the folder can be removed");
        let name = |path: &Path| path.to_str().expect("a test uses good names").to_owned();
        tuyen(&self.dir, &["backup", "restore", &name(file), "--key", &name(&key.path), "--json"], b"")
    }

    /// Founds a root and starts it.
    pub fn root(dir: &Path, name: &str) -> Self {
        node::setup::init(dir, Role::Root, org(name), free_address()).expect("a fresh folder becomes a root");
        let mut node = Self::at(dir);
        node.start();
        node
    }

    /// Enrols a child of this node and starts it.
    pub fn child(&self, dir: &Path, role: Role, name: &str) -> Self {
        self.child_through(None, dir, role, name)
    }

    /// Enrols a child that dials this address in place of this node's own, and starts it.
    pub fn child_through(&self, address: Option<SocketAddr>, dir: &Path, role: Role, name: &str) -> Self {
        let address = address.map(|address| address.to_string());
        let invited: Invited =
            self.ask(&Request::Invite { role, org: org(name), expires_seconds: 3600, address });
        let listen = (role == Role::Hub).then(free_address);
        node::setup::enrol(dir, &invited.token, listen).expect("a fresh token enrols");
        let mut node = Self::at(dir);
        node.start();
        node
    }

    /// A one-time token of this node.
    pub fn invite(&self, role: Role, name: &str) -> Invited {
        self.ask(&Request::Invite { role, org: org(name), expires_seconds: 3600, address: None })
    }

    /// Starts the process and waits until it answers.
    pub fn start(&mut self) {
        self.start_by(Command::new(program("tuyend")));
    }

    /// The same with a command that becomes `tuyend`, which is given the arguments.
    pub fn start_by(&mut self, command: Command) {
        let log = File::options().create(true).append(true).open(self.dir.join("tuyend.log"));
        self.spawn(command, log.expect("the folder can be written"));
    }

    /// The same with another place for the log.
    pub fn start_logging_to(&mut self, log: File) {
        self.spawn(Command::new(program("tuyend")), log);
    }

    fn spawn(&mut self, mut command: Command, log: File) {
        assert!(self.child.is_none(), "it already runs");
        let child = command
            .arg("--dir")
            .arg(&self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.child = Some(child.expect("tuyend starts"));
        let began = Instant::now();
        while Client::connect(&self.dir).is_err() {
            assert!(
                began.elapsed() < START_TIMEOUT,
                "no answer from {}:\n{}",
                self.dir.display(),
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Ends the process with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("our own child can be killed");
            child.wait().expect("our own child can be waited for");
        }
    }

    /// Ends the process with SIGTERM and waits; gives its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        let mut child = self.child.take().expect("it runs");
        let status = Command::new("kill").arg(child.id().to_string()).status().expect("kill exists");
        assert!(status.success());
        child.wait().expect("our own child can be waited for").code()
    }

    /// Waits until the process ends by itself; gives its exit code.
    pub fn ended(&mut self) -> Option<i32> {
        self.has_failed = true;
        let mut child = self.child.take().expect("it runs");
        let began = Instant::now();
        loop {
            if let Some(status) = child.try_wait().expect("our own child can be waited for") {
                return status.code();
            }
            if began.elapsed() > STALL_TIMEOUT {
                child.kill().expect("our own child can be killed");
                panic!("it does not end:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What the process has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("tuyend.log")).unwrap_or_default()
    }

    /// Asks, and expects an answer.
    pub fn ask<T: DeserializeOwned>(&self, request: &Request) -> T {
        self.try_ask(request).unwrap_or_else(|failure| panic!("{failure}\n{}", self.log()))
    }

    /// Asks.
    pub fn try_ask<T: DeserializeOwned>(&self, request: &Request) -> Result<T, Failure> {
        Client::connect(&self.dir)?.call(request, |_| ())
    }

    /// The node at a glance.
    pub fn status(&self) -> Status {
        self.ask(&Request::Status)
    }

    /// Whether there is an alert of this code, and its text holds these words.
    pub fn has_alert(&self, code: &str, words: &str) -> bool {
        has_alert(&self.status().alerts, code, words)
    }

    /// Pauses syncing.
    pub fn pause(&self) -> Synced {
        self.ask(&Request::SyncPause)
    }

    /// Ends the pause.
    pub fn resume(&self) -> Synced {
        self.ask(&Request::SyncResume)
    }

    /// A record as it is shown.
    pub fn get(&self, name: &str) -> Resource {
        self.ask(&Request::Get { record: record(name) })
    }

    /// A resource.
    pub fn value(&self, name: &str) -> Value {
        serde_json::from_str(self.get(name).resource.get()).expect("a resource is JSON")
    }

    /// Writes one resource; gives its new version.
    pub fn write(&self, resource: &Value, base: Option<&str>, by: &str) -> String {
        let resources = vec![RawValue::from_string(resource.to_string()).expect("it is JSON")];
        let base = base.map(str::to_owned);
        let written: Written =
            self.ask(&Request::Put { resources, base, by: Some(by.to_owned()), why: None });
        assert!(written.rejected.is_empty(), "{:?}", written.rejected);
        written.written.first().expect("the resource differs from what was there").version.clone()
    }

    /// Changes one resource.
    pub fn edit(&self, name: &str, by: &str, change: impl FnOnce(&mut Value)) -> String {
        let mut value = self.value(name);
        change(&mut value);
        self.write(&value, None, by)
    }

    /// Deletes a record.
    pub fn delete(&self, name: &str, by: &str) -> Written {
        self.ask(&Request::Delete { record: record(name), base: None, by: Some(by.to_owned()), why: None })
    }

    /// All open conflicts.
    pub fn conflicts(&self) -> Vec<ConflictLine> {
        let all: Conflicts = self.ask(&Request::Conflicts { record: None, after: None, limit: 1000 });
        all.conflicts
    }

    /// Settles a conflict.
    pub fn resolve(&self, conflict: &ConflictLine, choice: Choice, by: &str) -> Written {
        self.ask(&Request::Resolve {
            record: conflict.record.clone(),
            path: conflict.path.clone(),
            choice,
            by: Some(by.to_owned()),
            why: "seen by both".to_owned(),
        })
    }

    /// Every live resource, as its text.
    pub fn export(&self) -> Vec<String> {
        let (mut texts, mut after) = (Vec::new(), None);
        loop {
            let page: Page = self.ask(&Request::Export { after, limit: 500 });
            texts.extend(page.resources.into_iter().map(|r| r.get().to_owned()));
            match page.next {
                None => return texts,
                next => after = next,
            }
        }
    }

    /// Writes resources, given as JSON texts, and expects all to be taken.
    pub fn put(&self, resources: impl IntoIterator<Item = String>) -> Written {
        let raw = |text| serde_json::value::RawValue::from_string(text).expect("a test writes JSON");
        let resources = resources.into_iter().map(raw).collect();
        let written: Written = self.ask(&Request::Put { resources, base: None, by: None, why: None });
        assert!(written.rejected.is_empty(), "{:?}", written.rejected);
        written
    }

    /// Imports a file, given as its text, and expects all to be taken.
    #[track_caller]
    pub fn import(&self, text: &str) -> Value {
        let imported = tuyen(&self.dir, &["records", "import", "-", "--json"], text.as_bytes());
        imported.expect(0).json()
    }

    /// Dials the parent and waits until everything written so far is durable there.
    pub fn sync(&self) -> Synced {
        self.ask(&Request::SyncNow { wait: true, bulk: false })
    }

    /// Waits until the node's status is as wished. Gives up when nothing moves any more.
    pub fn wait(&self, what: &str, wish: impl Fn(&Status) -> bool) -> Status {
        wait_for(what, &[self], |all| wish(&all[0])).swap_remove(0)
    }

    /// Waits until everything is durable at the root.
    pub fn wait_safe(&self) -> Status {
        self.wait("safe at the root", |s| {
            s.not_at_root.entries + s.not_at_hub.entries + s.attachments.not_at_root + s.unfolded == 0
        })
    }
}

/// Whether one of these alerts is of this code, and its text holds these words.
pub fn has_alert(alerts: &[AlertLine], code: &str, words: &str) -> bool {
    alerts.iter().any(|alert| alert.code == code && alert.text.contains(words))
}

impl Drop for Node {
    /// An error in the log that nobody has brought about is a defect, whatever else a test looks at; so is a table that says
    /// something else than the entries.
    fn drop(&mut self) {
        self.kill();
        if !self.has_failed && !std::thread::panicking() {
            let log = self.log();
            let errors: Vec<_> = log.lines().filter(|line| line.contains("ERROR ")).collect();
            assert!(errors.is_empty(), "{}: {errors:#?}", self.dir.display());
            // A test may have taken the folder away.
            let config = Config::load(&self.dir).ok();
            let key = config.and_then(|config| Key::read(&config.key_path(&self.dir)).ok());
            let reader = key.and_then(|key| Reader::open(&self.dir.join(DATABASE), &key).ok());
            let checked = reader.and_then(|mut reader| reader.integrity_check(|_, _| ()).ok());
            let said =
                checked.iter().flat_map(|checked| &checked.findings).filter(|found| found.row.is_none());
            let said: Vec<_> = said.filter(|found| found.mended).collect();
            assert!(said.is_empty(), "{}: {said:#?}", self.dir.display());
        }
    }
}
