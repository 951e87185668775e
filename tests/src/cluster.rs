//! Real nodes as real processes on the loopback, for end-to-end tests and benchmarks.
//!
//! A [`Node`] is a folder and, while it runs, a `tuyend` process of that folder. Dropping it kills the process,
//! the hard way. The binaries are those beside the running test: `cargo ci` builds them first.

use std::{
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use node::admin::{Client, Failure, Invited, Request, Status, Synced, Written};
use serde::de::DeserializeOwned;
use sync_core::{id::OrgId, identity::Role};

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

/// A node's folder, and its process while it runs.
pub struct Node {
    /// The folder.
    pub dir: PathBuf,
    child: Option<Child>,
}

impl Node {
    /// A node of a folder that exists.
    pub fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), child: None }
    }

    /// Founds a root and starts it.
    pub fn root(dir: &Path, org: &str) -> Self {
        let org = OrgId::new(org).expect("a test uses good names");
        node::setup::init(dir, Role::Root, org, free_address()).expect("a fresh folder becomes a root");
        let mut node = Self::at(dir);
        node.start();
        node
    }

    /// Enrols a child of this node and starts it.
    pub fn child(&self, dir: &Path, role: Role, org: &str) -> Self {
        let token = self.invite(role, org).token;
        let listen = (role == Role::Hub).then(free_address);
        node::setup::enrol(dir, &token, listen).expect("a fresh token enrols");
        let mut node = Self::at(dir);
        node.start();
        node
    }

    /// A one-time token of this node.
    pub fn invite(&self, role: Role, org: &str) -> Invited {
        let org = OrgId::new(org).expect("a test uses good names");
        self.ask(&Request::Invite { role, org, expires_seconds: 3600, address: None })
    }

    /// Starts the process and waits until it answers.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "it already runs");
        let log = std::fs::File::options().create(true).append(true).open(self.dir.join("tuyend.log"));
        let child = Command::new(program("tuyend"))
            .arg("--dir")
            .arg(&self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("the folder can be written"))
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

    /// Writes resources, given as JSON texts, and expects all to be taken.
    pub fn put(&self, resources: impl IntoIterator<Item = String>) -> Written {
        let raw = |text| serde_json::value::RawValue::from_string(text).expect("a test writes JSON");
        let resources = resources.into_iter().map(raw).collect();
        let written: Written = self.ask(&Request::Put { resources, base: None, by: None, why: None });
        assert!(written.rejected.is_empty(), "{:?}", written.rejected);
        written
    }

    /// Dials the parent and waits until everything written so far is durable there.
    pub fn sync(&self) -> Synced {
        self.ask(&Request::SyncNow { wait: true })
    }

    /// Waits until the node's status is as wished. Gives up when nothing moves any more.
    pub fn wait(&self, what: &str, wish: impl Fn(&Status) -> bool) -> Status {
        let (mut moved, mut before) = (Instant::now(), String::new());
        loop {
            let status = self.status();
            if wish(&status) {
                return status;
            }
            let state = format!(
                "{} entries, {} unfolded, {} waiting, {:?} not at hub, {:?} not at root, {} sent, {} received",
                status.entries,
                status.unfolded,
                status.waiting,
                status.not_at_hub,
                status.not_at_root,
                status.sent_bytes,
                status.received_bytes
            );
            if state != before {
                (moved, before) = (Instant::now(), state);
            }
            assert!(moved.elapsed() < STALL_TIMEOUT, "{what}: stalled at {before}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until everything is durable at the root.
    pub fn wait_safe(&self) -> Status {
        self.wait("safe at the root", |s| {
            s.not_at_root.entries == 0 && s.not_at_hub.entries == 0 && s.unfolded == 0
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}
