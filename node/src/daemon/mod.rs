//! The daemon: one thread drives the engine and owns the store, tasks around it carry bytes.
//!
//! Everything that happens reaches the core as a [`Message`] on one bounded channel, so a neighbour that sends
//! faster than the disk writes is slowed down by QUIC. The core commits, and only then lets effects out. After
//! any store error the process ends: the next start recovers. Nothing but [`core`] touches the engine.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use quinn::Connection;
use sync_core::{
    audit::Summary,
    engine::LinkId,
    id::OrgPath,
    identity::{NodeInfo, Refusal, Role},
    session::Direction,
    wire::{Frame, WireError},
};
use tokio::sync::{Notify, OwnedSemaphorePermit, RwLock, Semaphore, mpsc, oneshot, watch};

use crate::{
    admin::{Answer, Failure, FailureKind, Request},
    backup::{STORE_COPY, Scratch},
    ca::{Grant, Own, Response, SecretHash, TokenName, TrustStore, TrustedClock},
    clock,
    config::{Config, ConfigError, DATABASE, LOCK},
    keys::{Identity, IdentityFolder, PublicKey},
    store::{Checked, Key, LEAF_CACHE_KIB, OpenError, Reader, SqliteStore, damaged_logs},
    telemetry,
    transport::{LinkSettings, Transport},
};

mod admit;
mod alerts;
mod attachments;
mod backup;
mod book;
mod budget;
mod conflicts;
mod core;
mod courier;
mod grants;
mod links;
mod listen;
mod membership;
mod orders;
mod outages;
mod pace;
mod purge;
mod records;
mod renewal;
mod report;
mod scope;
mod socket;
mod to_come;
mod uplink;
mod verify;

use self::{
    admit::Admissions, backup::Backups, core::Core, courier::Couriers, listen::CoreInvites, renewal::Renewal,
};
pub(crate) use self::{backup::backup_kept, budget::NO_PARENT, courier::keep_neighbour};

/// How many messages may wait for the core before whoever sends has to wait.
const QUEUE: usize = 256;
/// How long the last answers may take when the process ends.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// The name and version that a node shows to others.
pub const SOFTWARE: &str = concat!("tuyen ", env!("CARGO_PKG_VERSION"));

/// What reaches the core.
enum Message {
    Connected {
        id: LinkId,
        peer: NodeInfo,
        chain: Vec<Vec<u8>>,
        direction: Direction,
        outbox: links::Outbox,
        connection: Connection,
    },
    /// A frame, with its share of [`links::INBOUND_MAX_BYTES`], which is free again when the core has taken it.
    Frame(LinkId, Frame, Option<OwnedSemaphorePermit>),
    Garbled(LinkId, WireError),
    Closed(LinkId, outages::Ending),
    /// The parent cannot be reached, or one of the two refused.
    NoParent(FailureKind, String),
    /// Somebody was turned away at the door.
    Stranger(String),
    FindInvite(TokenName, oneshot::Sender<Option<listen::Found>>),
    Redeem(SecretHash, Box<Grant>, oneshot::Sender<()>),
    /// A child whose connection has proved this chain (DER, its own first) asks for its next certificates.
    RenewChild {
        place: OrgPath,
        chain: Vec<Vec<u8>>,
        ca_key: Option<PublicKey>,
        answer: oneshot::Sender<Response>,
    },
    /// This node has new certificates.
    Renewed(Arc<Identity>),
    /// It has not, and those that it has end then.
    NotRenewed {
        until: i64,
        why: String,
    },
    Request(Request, mpsc::UnboundedSender<Answer>),
    /// A step of a courier bundle.
    Courier(courier::Ask),
    /// The check of the store has come so far, in rows.
    Checking(u64, u64),
    /// The check of the store has ended, or could not.
    Checked(Result<Checked, String>),
    /// The rows have been read that an audit compares, or could not.
    Surveyed(LinkId, Result<Summary, String>),
    Stop,
}

/// Where this node stands, and where its parent listens (`host:port`): an order may change both.
#[derive(Debug, Clone)]
pub(crate) struct Stand {
    place: OrgPath,
    parent: Option<String>,
    /// See [`Config::parent_before`].
    before: Option<String>,
}

/// What the tasks and the core share.
pub(crate) struct Numbers {
    links: AtomicU64,
    paused: watch::Sender<bool>,
    /// Whether the parent has said that this node was revoked: nothing is taken from children then.
    revoked: AtomicBool,
    stand: watch::Sender<Stand>,
    dial: Arc<Notify>,
    /// The parent has said HELLO.
    greeted: Notify,
    traffic: Arc<links::Traffic>,
    inbound: Arc<Semaphore>,
    /// How fast entries may go to the parent and come from it.
    pace_up: Arc<pace::Pace>,
    pace_down: Arc<pace::Pace>,
    /// Whether what the link to the parent carries is paid for.
    metered: AtomicBool,
    /// Whether the last dial went to where the parent was before an order.
    dialled_as_before: AtomicBool,
    /// Whether something urgent is not at the parent.
    urgent_waits: AtomicBool,
    /// Set before [`Message::Stop`] is sent: what waits before it in the queue is left undone.
    stopping: AtomicBool,
}

impl Numbers {
    fn new(paused: bool, stand: Stand) -> Self {
        Self {
            links: AtomicU64::new(1),
            paused: watch::Sender::new(paused),
            revoked: AtomicBool::new(false),
            stand: watch::Sender::new(stand),
            dial: Arc::default(),
            greeted: Notify::new(),
            traffic: Arc::default(),
            inbound: Arc::new(Semaphore::new(links::INBOUND_MAX_BYTES)),
            pace_up: Arc::default(),
            pace_down: Arc::default(),
            metered: AtomicBool::new(false),
            dialled_as_before: AtomicBool::new(false),
            urgent_waits: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        }
    }

    fn next_link(&self) -> LinkId {
        LinkId(self.links.fetch_add(1, Ordering::Relaxed))
    }

    fn paused(&self) -> bool {
        *self.paused.borrow()
    }

    /// What children are told while this node is revoked.
    fn revoked(&self) -> Option<Refusal> {
        let is_revoked = self.revoked.load(Ordering::Relaxed);
        is_revoked.then(|| Refusal::IsRevoked { who: self.place().to_string() })
    }

    /// Refuses what would count for nobody.
    fn must_not_be_revoked(&self) -> Result<(), Failure> {
        if !self.revoked.load(Ordering::Relaxed) {
            return Ok(());
        }
        let text = format!(
            "this machine was revoked by its parent, and gives and takes nothing any more as {} (`tuyen status`). What it has not sent \
             goes by `tuyen records export` here and `tuyen records import` at the machine that has taken its place",
            self.place()
        );
        Err(Failure::new(FailureKind::Refused, text))
    }

    fn place(&self) -> OrgPath {
        self.stand.borrow().place.clone()
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

/// A folder that is in use, and all that was found in it.
pub(crate) struct Opened {
    pub dir: PathBuf,
    config: Config,
    folder: IdentityFolder,
    pub identity: Own,
    pub clock: TrustedClock,
    pub key: Key,
    pub store: SqliteStore,
    reader: Reader,
    /// Logs of the store that were found damaged, now or earlier.
    damaged: Vec<PathBuf>,
    /// Held as long as the process lives.
    _lock: File,
}

/// Runs the daemon of a folder until SIGTERM or SIGINT.
pub fn run(dir: &Path) -> Result<(), Failure> {
    telemetry::start();
    let opened = open(dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| failed(FailureKind::Failed, error))?;
    runtime.block_on(serve(opened))
}

fn failed(kind: FailureKind, error: impl std::fmt::Display) -> Failure {
    Failure::new(kind, error.to_string())
}

/// Takes a folder into use, as its only process.
pub(crate) fn open(dir: &Path) -> Result<Opened, Failure> {
    let config = Config::load(dir).map_err(|error| match error {
        ConfigError::NotANode(_) => failed(FailureKind::Refused, error),
        _ => failed(FailureKind::Failed, error),
    })?;
    let lock = lock(dir)?;
    if let Err(error) = Scratch::tidy(&dir.join(STORE_COPY)) {
        tracing::warn!(%error, "what a backup has left");
    }
    let folder = IdentityFolder::of_node(dir);
    let files = Arc::new(folder.load().map_err(|error| failed(FailureKind::Refused, error))?);
    let clock = TrustedClock::new(folder.last_known_good());
    let trust = TrustStore::of(&files, clock.clone()).map_err(|error| failed(FailureKind::Refused, error))?;
    let key = Key::read(&config.key_path(dir)).map_err(|error| failed(FailureKind::Integrity, error))?;
    let database = dir.join(DATABASE);
    let store = SqliteStore::open(&database, &key).map_err(unopened)?;
    if config.role == Role::Leaf {
        store.limit_cache(LEAF_CACHE_KIB).map_err(|error| failed(FailureKind::Integrity, error))?;
    }
    let reader = Reader::open(&database, &key).map_err(unopened)?;
    let damaged = damaged_logs(&database).map_err(|error| failed(FailureKind::Failed, error))?;
    for order in sync_core::store::Store::orders(&store).map_err(|e| failed(FailureKind::Integrity, e))? {
        trust.follow(&order);
    }
    for revocation in
        sync_core::store::Store::revocations(&store).map_err(|e| failed(FailureKind::Integrity, e))?
    {
        trust.revoke(&revocation).map_err(|error| failed(FailureKind::Integrity, error))?;
    }
    let identity = Own::new(files, Arc::new(trust)).map_err(|error| failed(FailureKind::Refused, error))?;
    Ok(Opened {
        dir: dir.to_owned(),
        config,
        folder,
        identity,
        clock,
        key,
        store,
        reader,
        damaged,
        _lock: lock,
    })
}

/// A store that does not open is an integrity failure, unless only what is around it is in the way.
fn unopened(error: OpenError) -> Failure {
    let kind = if error.is_of_surroundings() { FailureKind::Failed } else { FailureKind::Integrity };
    failed(kind, error)
}

pub(crate) fn lock(dir: &Path) -> Result<File, Failure> {
    let path = dir.join(LOCK);
    let io = |error| failed(FailureKind::Failed, ConfigError::Io { path: path.clone(), error });
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(failed(
            FailureKind::Failed,
            format!("a daemon already runs on {}; use that one, or stop it first", dir.display()),
        )),
        Err(std::fs::TryLockError::Error(error)) => Err(io(error)),
    }
}

async fn serve(opened: Opened) -> Result<(), Failure> {
    let Opened { dir, config, folder, identity, clock, key, store, reader, damaged, _lock } = opened;
    let stand = Stand {
        place: config.place.clone(),
        parent: config.parent.clone(),
        before: config.parent_before.clone(),
    };
    let numbers = Arc::new(Numbers::new(config.paused, stand));
    numbers.metered.store(config.budget.metered, Ordering::Relaxed);
    let any = "0.0.0.0:0".parse().expect("this is an address");
    let transport = Transport::bind(
        config.listen.unwrap_or(any),
        config.listen.is_some(),
        identity.files(),
        identity.trust().clone(),
        LinkSettings::default(),
    );
    let transport = Arc::new(transport.map_err(|error| failed(FailureKind::Failed, error))?);
    let (sender, receiver) = mpsc::channel(QUEUE);
    let renewal = Renewal {
        transport: transport.clone(),
        folder: folder.clone(),
        core: sender.clone(),
        numbers: numbers.clone(),
    };
    if config.parent.is_some() {
        let control = uplink::Control { paused: numbers.paused.subscribe(), now: numbers.dial.clone() };
        let settings = config.link.clone();
        tokio::spawn(uplink::keep(settings, control, renewal.clone(), sender.clone(), numbers.clone()));
    }
    if config.role == Role::Root {
        tokio::spawn(renewal.clone().at_root());
    } else {
        tokio::spawn(renewal.clone().remind());
    }
    let invites = CoreInvites::new(sender.clone(), transport.clone(), numbers.clone());
    if config.listen.is_some() {
        let (transport, core, numbers) = (transport.clone(), sender.clone(), numbers.clone());
        tokio::spawn(listen::serve(transport, core, numbers, invites.clone()));
    }
    let socket = socket::bind(&dir)?;
    let answering = Arc::new(RwLock::new(()));
    let backups = Backups::new(dir.clone(), identity.clone(), key, clock.clone(), numbers.clone());
    let couriers = Couriers::new(dir.clone(), identity.clone(), sender.clone(), numbers.clone());
    let admissions = Admissions::new(transport.clone(), invites, sender.clone(), numbers.clone());
    let beside = socket::Beside { backups, couriers, admissions, renewal };
    tokio::spawn(socket::serve(socket, sender.clone(), beside, answering.clone()));
    tracing::info!(place = %config.place, dir = %dir.display(), version = SOFTWARE, "tuyend ready");
    stop_on_signal(sender.clone(), numbers.clone())?;

    let mut core = Core::new(dir.clone(), config, identity, store, reader, numbers, sender)?;
    damaged.iter().for_each(|log| core.log_damaged(log));
    let runtime = tokio::runtime::Handle::current();
    let thread = std::thread::Builder::new().name("core".to_owned());
    let thread = thread.spawn(move || core.run(receiver, &runtime));
    let thread = thread.map_err(|error| failed(FailureKind::Failed, error))?;
    let ended = tokio::task::spawn_blocking(move || thread.join()).await;
    // Whoever was given an answer shall hear it.
    let _ = tokio::time::timeout(LAST_ANSWERS, answering.write()).await;
    transport.close().await;
    let _ = std::fs::remove_file(dir.join(crate::admin::SOCKET));
    // The time is a help for a machine whose clock is lost; a node runs without it.
    let _ = folder.save_last_known_good(clock.last_known_good());
    match ended {
        Ok(Ok(outcome)) => outcome,
        _ => Err(failed(FailureKind::Failed, "the daemon failed inside; its log says where; start it again")),
    }
}

fn stop_on_signal(core: mpsc::Sender<Message>, numbers: Arc<Numbers>) -> Result<(), Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).map_err(|error| failed(FailureKind::Failed, error));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::info!("stopping");
        numbers.stopping.store(true, Ordering::Relaxed);
        let _ = core.send(Message::Stop).await;
    });
    Ok(())
}

/// The wall clock in milliseconds since 1970.
fn wall() -> i64 {
    clock::wall()
}
