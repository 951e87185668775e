//! A small country on this machine: nodes with folders of their own, each run by a daemon that is a process
//! of its own. What always holds: every process that was started is ended, however the demo ends. On Ctrl-C
//! and on any failure they are killed and waited for, and if the demo itself is killed they notice that their
//! standard input is closed. Only processes that were started here are ever signalled.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use node::{
    admin::{Client, Failure, FailureKind, Invited, Request, Status},
    setup,
};
use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;
use sync_core::{id::OrgId, identity::Role};
use tempfile::TempDir;

/// The tree: organization, role, and the number of the parent in this list. Parents come first.
const TREE: [(&str, Role, Option<usize>); 7] = [
    ("trung-uong", Role::Root, None),
    ("ha-giang", Role::Hub, Some(ROOT)),
    ("quang-nam", Role::Hub, Some(ROOT)),
    ("dong-van", Role::Leaf, Some(HA_GIANG)),
    ("meo-vac", Role::Leaf, Some(HA_GIANG)),
    ("hoi-an", Role::Leaf, Some(QUANG_NAM)),
    ("tam-ky", Role::Leaf, Some(QUANG_NAM)),
];
/// The central board.
pub const ROOT: usize = 0;
/// A hub in the north.
pub const HA_GIANG: usize = 1;
/// A hub in the middle of the country.
pub const QUANG_NAM: usize = 2;
/// A leaf of Hà Giang.
pub const DONG_VAN: usize = 3;
/// A leaf of Hà Giang.
pub const MEO_VAC: usize = 4;
/// A leaf of Quảng Nam.
pub const HOI_AN: usize = 5;
/// A leaf of Quảng Nam.
pub const TAM_KY: usize = 6;
/// The leaves.
pub const LEAVES: [usize; 4] = [DONG_VAN, MEO_VAC, HOI_AN, TAM_KY];

/// The log of a daemon, in its folder.
const LOG: &str = "tuyend.log";
/// How long a daemon may take to answer after its start.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// How long a daemon may take to end when it is asked to.
const STOP_WITHIN: Duration = Duration::from_secs(15);
/// How long a daemon that has closed its socket may take until its process has ended.
const ENDS_WITHIN: Duration = Duration::from_secs(3);
/// Lines of a daemon's log that are shown: a panic's and what follows it.
const LOG_LINES: usize = 8;
/// How often something is looked at that changes by itself.
const POLL: Duration = Duration::from_millis(10);
/// How often the folder is removed, and how long to wait in between.
const REMOVE_ATTEMPTS: u32 = 40;
const REMOVE_AGAIN: Duration = Duration::from_millis(50);
/// How long the tokens of the demo are good.
const TOKEN_SECONDS: u64 = 3_600;
/// Longest path of a Unix socket, in bytes.
const SOCKET_PATH_MAX_BYTES: usize = 107;

/// One node.
pub struct Site {
    /// Its organization.
    pub org: OrgId,
    /// Its role.
    pub role: Role,
    /// The number of its parent.
    pub parent: Option<usize>,
    /// Its folder.
    pub dir: PathBuf,
    client: Option<Client>,
    /// Bytes that its earlier runs had sent.
    sent_before: u64,
}

/// What has to be tidied away at the end.
#[derive(Default)]
struct Stage {
    children: BTreeMap<usize, Child>,
    folder: Option<TempDir>,
    /// Nothing is started any more.
    over: bool,
}

impl Stage {
    fn clear(&mut self) {
        self.over = true;
        for child in self.children.values_mut() {
            // It may have ended by itself.
            let _ = child.kill();
        }
        for (_, mut child) in std::mem::take(&mut self.children) {
            let _ = child.wait();
        }
        let Some(folder) = self.folder.take() else { return };
        // On an interruption the rest of the demo may just be writing a file there.
        for _ in 0..REMOVE_ATTEMPTS {
            match fs::remove_dir_all(folder.path()) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => thread::sleep(REMOVE_AGAIN),
                _ => thread::yield_now(),
            }
            if !folder.path().exists() {
                return;
            }
        }
    }
}

/// All nodes.
pub struct Country {
    /// In the order of the tree, parents first.
    pub sites: Vec<Site>,
    stage: Arc<Mutex<Stage>>,
}

impl Drop for Country {
    fn drop(&mut self) {
        lock(&self.stage).clear();
    }
}

fn lock(stage: &Mutex<Stage>) -> MutexGuard<'_, Stage> {
    stage.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A failure of the demo's own making.
pub fn failed(text: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Failed, text)
}

impl Country {
    /// The country as a plan: folders, but no nodes yet. The folders are gone at the end if `keep` is none.
    pub fn plan(keep: Option<&Path>) -> Result<Self, Failure> {
        let mut stage = Stage::default();
        let folder = match keep {
            Some(folder) => std::path::absolute(folder).map_err(|error| cannot_use(folder, &error))?,
            None => {
                let folder = tempfile::Builder::new().prefix("tuyen-demo-").tempdir();
                let folder = folder.map_err(|error| cannot_use(&std::env::temp_dir(), &error))?;
                stage.folder.insert(folder).path().to_owned()
            }
        };
        let site = |(name, role, parent)| Site {
            org: OrgId::new(name).expect("the names in the table are good"),
            role,
            parent,
            dir: folder.join(name),
            client: None,
            sent_before: 0,
        };
        let sites: Vec<Site> = TREE.into_iter().map(site).collect();
        let longest = sites.iter().map(|site| site.dir.join(node::admin::SOCKET).as_os_str().len()).max();
        if longest > Some(SOCKET_PATH_MAX_BYTES) {
            let text = format!(
                "{} is too long a path: the daemons' sockets would not fit the system's limit of \
                 {SOCKET_PATH_MAX_BYTES} bytes; choose a shorter one with --keep or TMPDIR",
                folder.display()
            );
            return Err(Failure::new(FailureKind::Usage, text));
        }
        if keep.is_some() {
            must_be_empty(&folder)?;
        }
        Ok(Self { sites, stage: Arc::new(Mutex::new(stage)) })
    }

    /// Makes all nodes and starts them: the root is founded, every other one is invited by its parent and
    /// enrols over the network.
    pub fn found(&mut self) -> Result<(), Failure> {
        let stage = self.stage.clone();
        crate::interrupt::before_the_end(move || lock(&stage).clear());
        let mut addresses = free_addresses(TREE.iter().filter(|(_, role, _)| *role != Role::Leaf).count())?;
        for at in 0..self.sites.len() {
            let Site { org, role, parent, dir, .. } = &self.sites[at];
            let (org, role, parent, dir) = (org.clone(), *role, *parent, dir.clone());
            let mut listen = || addresses.pop().ok_or_else(|| failed("there is no free port for it"));
            match parent {
                None => {
                    setup::init(&dir, role, org, listen()?)?;
                }
                Some(parent) => {
                    let request =
                        Request::Invite { role, org, expires_seconds: TOKEN_SECONDS, address: None };
                    let Invited { token, .. } = self.call(parent, &request)?;
                    let listen = if role == Role::Leaf { None } else { Some(listen()?) };
                    setup::enrol(&dir, &token, listen)?;
                }
            }
            self.start(at)?;
        }
        Ok(())
    }

    /// Starts a node's daemon, and waits until it answers.
    pub fn start(&mut self, at: usize) -> Result<(), Failure> {
        self.spawn(at)?;
        let began = Instant::now();
        loop {
            self.sites[at].client = None;
            let Err(unreachable) = self.status(at) else { return Ok(()) };
            let ended = lock(&self.stage).children.get_mut(&at).and_then(|child| child.try_wait().ok()?);
            if ended.is_some() || began.elapsed() > READY_WITHIN {
                let org = &self.sites[at].org;
                let log = self.log_end(at);
                return Err(failed(format!(
                    "the daemon of {org} did not start ({unreachable}); its log ends: {log}"
                )));
            }
            thread::sleep(POLL);
        }
    }

    /// Starts a process, unless everything is being tidied away.
    fn spawn(&self, at: usize) -> Result<(), Failure> {
        let dir = &self.sites[at].dir;
        let mut stage = lock(&self.stage);
        if !stage.over {
            let child = spawn(dir)
                .map_err(|error| failed(format!("no daemon can be started in {}: {error}", dir.display())))?;
            stage.children.insert(at, child);
        }
        drop(stage);
        crate::interrupt::stand_still_if_it_came();
        Ok(())
    }

    /// Kills a node's daemon the hard way, as a power cut would. `sent` is what it had sent until then.
    pub fn kill(&mut self, at: usize, sent: u64) -> Result<(), Failure> {
        let child = lock(&self.stage).children.remove(&at);
        let site = &mut self.sites[at];
        site.client = None;
        site.sent_before += sent;
        let Some(mut child) = child else { return Ok(()) };
        let ended = child.kill().and_then(|()| child.wait());
        ended.map(drop).map_err(|error| failed(format!("cannot kill the daemon of {}: {error}", site.org)))
    }

    /// Ends all daemons cleanly, and any that does not end the hard way. Gives back those.
    pub fn stop(&mut self) -> Vec<OrgId> {
        self.sites.iter_mut().for_each(|site| site.client = None);
        let mut stage = lock(&self.stage);
        for child in stage.children.values() {
            // One that has ended already needs no signal.
            let _ = kill_process(Pid::from_child(child), Signal::TERM);
        }
        let began = Instant::now();
        while began.elapsed() < STOP_WITHIN && !stage.children.is_empty() {
            stage.children.retain(|_, child| matches!(child.try_wait(), Ok(None)));
            thread::sleep(POLL);
        }
        let stubborn = stage.children.keys().map(|at| self.sites[*at].org.clone()).collect();
        for (_, mut child) in std::mem::take(&mut stage.children) {
            let _ = child.kill().and_then(|()| child.wait());
        }
        stubborn
    }

    /// Asks a node one thing.
    pub fn call<T: DeserializeOwned>(&mut self, at: usize, request: &Request) -> Result<T, Failure> {
        let site = &mut self.sites[at];
        let known = site.client.is_some();
        let mut client = match site.client.take() {
            Some(client) => client,
            None => Client::connect(&site.dir)?,
        };
        let answer = client.call(request, |_| {});
        if !matches!(&answer, Err(failure) if failure.kind == FailureKind::Unreachable) {
            site.client = Some(client);
        }
        answer.map_err(|failure| {
            let away = known && failure.kind == FailureKind::Unreachable;
            let end = if away { self.how_it_ended(at) } else { None };
            let Site { org, .. } = &self.sites[at];
            Failure::new(failure.kind, format!("{org}: {}{}", failure.text, end.unwrap_or_default()))
        })
    }

    /// How a daemon has ended by itself, with what it said last; none while it runs.
    fn how_it_ended(&self, at: usize) -> Option<String> {
        let began = Instant::now();
        while began.elapsed() < ENDS_WITHIN {
            let ended = lock(&self.stage).children.get_mut(&at).and_then(|child| child.try_wait().ok()?);
            if let Some(status) = ended {
                return Some(format!("; it ended by itself ({status}), its log with: {}", self.log_end(at)));
            }
            thread::sleep(POLL);
        }
        None
    }

    /// The last lines of a daemon's log.
    fn log_end(&self, at: usize) -> String {
        let text = fs::read_to_string(self.sites[at].dir.join(LOG)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join(" | ")
    }

    /// A node at a glance.
    pub fn status(&mut self, at: usize) -> Result<Status, Failure> {
        self.call(at, &Request::Status)
    }

    /// All nodes at a glance.
    pub fn statuses(&mut self) -> Result<Vec<Status>, Failure> {
        (0..self.sites.len()).map(|at| self.status(at)).collect()
    }

    /// Bytes that a node has sent in all its runs.
    pub fn sent_bytes(&self, at: usize, status: &Status) -> u64 {
        self.sites[at].sent_before + status.sent_bytes
    }

    /// The nodes that hold what is created at this node: itself, and all above.
    pub fn holders(&self, at: usize) -> Vec<usize> {
        std::iter::successors(Some(at), |at| self.sites[*at].parent).collect()
    }

    /// The number of an organization's node.
    pub fn number(&self, org: &OrgId) -> Option<usize> {
        self.sites.iter().position(|site| site.org == *org)
    }
}

/// Starts a daemon. The demo's end of its standard input stays open as long as the child is kept.
fn spawn(dir: &Path) -> std::io::Result<Child> {
    use std::os::unix::process::CommandExt;
    let log = File::options().create(true).append(true).open(dir.join(LOG))?;
    Command::new(std::env::current_exe()?)
        .arg("--dir")
        .arg(dir)
        .args(["daemon", "--while-stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log)
        // Ctrl-C on the terminal is for the demo, which then ends its daemons.
        .process_group(0)
        .spawn()
}

fn cannot_use(folder: &Path, error: &std::io::Error) -> Failure {
    failed(format!("cannot use {} ({error}); check the folder, its owner and the disk", folder.display()))
}

fn must_be_empty(folder: &Path) -> Result<(), Failure> {
    fs::create_dir_all(folder).map_err(|error| cannot_use(folder, &error))?;
    let mut entries = fs::read_dir(folder).map_err(|error| cannot_use(folder, &error))?;
    if entries.next().is_none() {
        return Ok(());
    }
    let text =
        format!("{} is not empty, and what is there stays there; choose another folder", folder.display());
    Err(Failure::new(FailureKind::Usage, text))
}

/// Addresses on the loopback that were free a moment ago.
fn free_addresses(number: usize) -> Result<Vec<SocketAddr>, Failure> {
    let bind = || UdpSocket::bind("127.0.0.1:0");
    let sockets: std::io::Result<Vec<UdpSocket>> = (0..number).map(|_| bind()).collect();
    let addresses = sockets.and_then(|all| all.iter().map(UdpSocket::local_addr).collect());
    addresses.map_err(|error| failed(format!("there is no free UDP port on the loopback ({error})")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_a_tree() {
        for (at, (_, role, parent)) in TREE.iter().enumerate() {
            assert_eq!(parent.is_none(), at == ROOT);
            assert!(parent.is_none_or(|parent| parent < at && TREE[parent].1 != Role::Leaf));
            assert_eq!(LEAVES.contains(&at), *role == Role::Leaf);
        }
        assert_eq!((TREE[HA_GIANG].0, TREE[QUANG_NAM].0), ("ha-giang", "quang-nam"));
    }

    #[test]
    fn a_folder_with_something_in_it_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("thesis.txt"), "x").unwrap();
        let refused = Country::plan(Some(folder.path())).err().unwrap();
        assert_eq!(refused.kind, FailureKind::Usage);
        let long = folder.path().join("x".repeat(100));
        assert_eq!(Country::plan(Some(&long)).err().unwrap().kind, FailureKind::Usage);
        assert!(!long.exists());
    }

    #[test]
    fn what_a_leaf_makes_is_held_by_all_above() {
        let country = Country::plan(None).unwrap();
        assert_eq!(country.holders(TAM_KY), [TAM_KY, QUANG_NAM, ROOT]);
        assert_eq!(country.number(&country.sites[MEO_VAC].org), Some(MEO_VAC));
    }
}
