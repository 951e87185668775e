//! Backups of a node that runs: made on a thread of their own, beside everything else, and handed to the command that
//! asked, piece by piece. What always holds: one is made at a time; it is left off as soon as nobody takes it any more
//! or the daemon ends; the core and its store have no part in it but to keep when the last one was made.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use sync_core::{engine::Identity as _, identity::NodeInfo, store::StoreError};
use tokio::sync::mpsc;

use super::{
    Numbers,
    core::{Core, Outcome, json},
    verify,
};
use crate::{
    admin::{Answer, BackupKept, Failure, FailureKind, Progress},
    backup::{self, BackupError, LAST_BACKUP, Recipients, Source},
    ca::{Own, TrustedClock},
    store::{Key, SqliteStore},
};

/// How many pieces, of 64 kB, may wait for the command to take them.
const PIECES: usize = 16;
/// How often the command hears how far things are.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// A piece of the answer.
pub(super) enum Part {
    Answer(Answer),
    Bytes(Vec<u8>),
}

/// What is needed of the node to make a backup of it.
pub(super) struct Backups {
    dir: PathBuf,
    identity: Own,
    key: Key,
    clock: TrustedClock,
    numbers: Arc<Numbers>,
    under_way: AtomicBool,
}

impl Backups {
    pub fn new(
        dir: PathBuf,
        identity: Own,
        key: Key,
        clock: TrustedClock,
        numbers: Arc<Numbers>,
    ) -> Arc<Self> {
        Arc::new(Self { dir, identity, key, clock, numbers, under_way: AtomicBool::new(false) })
    }

    /// Begins one, for whoever takes its pieces.
    pub fn start(self: &Arc<Self>, to: &[String]) -> mpsc::Receiver<Part> {
        let (sender, receiver) = mpsc::channel(PIECES);
        let refused = match Recipients::new(to) {
            Err(error) => Some(error.into()),
            Ok(_) if self.under_way.swap(true, Ordering::SeqCst) => {
                let text = "a backup of this node is being made already; wait for it, and try again";
                Some(Failure::new(FailureKind::Failed, text))
            }
            Ok(to) => {
                let (backups, sender) = (self.clone(), sender.clone());
                let thread = std::thread::Builder::new().name("backup".to_owned());
                let thread = thread.spawn(move || {
                    let under_way = UnderWay(&backups.under_way);
                    let answer = backups.make(&to, &sender);
                    drop(under_way);
                    let _ = sender.blocking_send(Part::Answer(answer));
                });
                thread.err().map(|error| {
                    self.under_way.store(false, Ordering::SeqCst);
                    let text = format!("cannot start a thread ({error}); is the machine full?");
                    Failure::new(FailureKind::Failed, text)
                })
            }
        };
        if let Some(failure) = refused {
            let _ = sender.try_send(Part::Answer(Answer::Failed(failure)));
        }
        receiver
    }

    fn make(&self, to: &Recipients, sender: &mpsc::Sender<Part>) -> Answer {
        let mut told = Instant::now();
        let mut step = |progress: Progress| {
            if sender.is_closed() || self.numbers.stopping() {
                return Err(BackupError::Stopped);
            }
            if told.elapsed() > TELL_EVERY {
                told = Instant::now();
                // While the command is slow it hears less.
                let _ = sender.try_send(Part::Answer(Answer::Progress(progress)));
            }
            Ok(())
        };
        let source = Source {
            dir: &self.dir,
            info: &NodeInfo { place: self.numbers.place(), ..self.identity.info().clone() },
            key: &self.key,
            last_known_good: self.clock.last_known_good(),
        };
        match backup::make(source, to, &mut Pieces(sender), &mut step) {
            Ok(made) => {
                tracing::info!(entries = made.entries, "a backup was made");
                Answer::Done(json(&made))
            }
            Err(error) => {
                tracing::warn!(%error, "no backup was made");
                Answer::Failed(error.into())
            }
        }
    }
}

/// Until it is dropped no other backup begins.
struct UnderWay<'a>(&'a AtomicBool);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// Hands over what is written.
pub(super) struct Pieces<'a>(pub &'a mpsc::Sender<Part>);

impl io::Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Part::Bytes(bytes.to_vec()));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Core {
    /// Keeps that a backup of this time is where it should be.
    pub fn backup_kept(&mut self, made_at: i64) -> Outcome<BackupKept> {
        keep_last_backup(&mut self.store, made_at)?;
        let was_found = self.alerts.lines().any(|alert| alert.code == verify::ALERT);
        Ok(BackupKept { damage_found: was_found || self.left_damaged() > 0 || self.verify.is_unsound() })
    }
}

/// The same of a node that is stopped.
pub(crate) fn backup_kept(store: &mut SqliteStore, made_at: i64) -> Result<BackupKept, StoreError> {
    keep_last_backup(store, made_at)?;
    Ok(BackupKept { damage_found: verify::was_left_damaged(store)? })
}

fn keep_last_backup(store: &mut SqliteStore, made_at: i64) -> Result<(), StoreError> {
    store.set_setting(LAST_BACKUP, made_at.to_string().as_bytes())
}

/// When the last backup was made.
pub(super) fn last_backup(store: &SqliteStore) -> Result<Option<i64>, StoreError> {
    let kept = store.setting(LAST_BACKUP)?;
    Ok(kept.and_then(|text| String::from_utf8(text).ok()?.parse().ok()))
}
