//! The record store on disk: [`sync_core::store::Store`] on one encrypted SQLite file.
//!
//! [`SqliteStore`] is the only writer, owned by the thread that drives the engine; [`Reader`] is a second
//! connection for listings, exports and checks, which never blocks the writer. What always holds: a batch is on
//! the disk, all of it, when `commit` returns, and nothing of it is when it fails; every setting that this rests
//! on was read back when the file was opened; after any error of a read or a commit the store refuses everything
//! until the process has started again, so nothing kept in memory is ever believed over the disk. Not here: what
//! the facts mean (the engine's), how a resource is searched (the projection's), the lock on the data directory
//! and the moments of a checkpoint (the daemon's). The file's layout is drawn in `docs/STORAGE.md`.

mod check;
mod contents;
mod copy;
mod derived;
mod files;
mod forget;
mod key;
mod listing;
mod log;
mod names;
mod open;
mod outages;
mod read;
mod schema;
mod setting;
mod write;

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
};

use rusqlite::{Connection, ErrorCode};
use sync_core::{
    feed::{CHAIN_START, Segment, Seq},
    id::{Chain, OrgId, Secrecy},
    scope::grant::Granted,
    store::StoreError,
};

pub use self::{
    check::{Checked, Finding, MENDED_MAX},
    contents::ContentCounts,
    copy::{Copied, CopyError},
    files::{FileSystem, SystemFiles, same},
    key::{Key, KeyError},
    listing::{Conflicted, Counts, Listed, Pending, Reader, RecordRow},
    open::{LEAF_CACHE_KIB, OpenError, damaged_logs, make_sqlite_ready},
    outages::{OUTAGE_LINES_MAX, OutageLine, OutageLog, OutageWrite},
    schema::{APPLICATION_ID, VERSION},
};
use self::{names::Names, read::small};

/// How many pages of the write-ahead log may wait before a checkpoint is due: 32 MB.
pub const CHECKPOINT_PAGES: u64 = 4_000;

/// The store, open for writing.
pub struct SqliteStore {
    conn: Connection,
    names: RefCell<Names>,
    known: RefCell<Known>,
    poison: RefCell<Option<Poison>>,
}

/// Why the store refuses everything.
struct Poison {
    text: String,
    of_surroundings: bool,
}

/// What the writer keeps in memory of the disk. A commit moves it on; when the commit fails, the poison keeps
/// anybody from seeing it.
struct Known {
    tip: Seq,
    /// The running hash at the tip.
    chain: Chain,
    segments: Vec<Segment>,
    /// The homes after the first of the few records that have more than one, by the record's small id, each with
    /// the first row that it is a home of.
    further_homes: HashMap<i64, Vec<(OrgId, Seq)>>,
    /// The grants of the records that have or had any, by the record's small id, sorted, each with the first row that could
    /// know of it.
    grants: HashMap<i64, Vec<(Granted, Seq)>>,
    /// The few records of which entries wait or cannot be applied, by their small ids.
    troubled: HashSet<i64>,
    /// How secret the few records are that are, by their small ids.
    secret: HashMap<i64, Marked>,
    /// The last number given to an advance of a cursor.
    reads: i64,
    /// The last number given to an announcement.
    announced: i64,
}

impl Known {
    /// A record is no more.
    fn forget(&mut self, record: i64) {
        self.further_homes.remove(&record);
        self.grants.remove(&record);
        self.troubled.remove(&record);
        self.secret.remove(&record);
    }
}

/// How secret a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Marked {
    /// By all of its rows.
    degree: Secrecy,
    /// By those that were made here.
    here: Secrecy,
}

/// How much of the write-ahead log has reached the database file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// Pages in the log.
    pub pages: u64,
    /// How many of them are in the database file as well.
    pub done: u64,
}

/// What went wrong below the contract of the store.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("{0}")]
    Sql(#[from] rusqlite::Error),
    #[error("{0}")]
    Broken(String),
}

type Fallible<T> = Result<T, Fault>;

fn broken<T>(what: impl Into<String>) -> Fallible<T> {
    Err(Fault::Broken(what.into()))
}

impl Fault {
    /// Whether what is around the file is in the way, and says nothing against the file: no room, no right to
    /// write, a disk that does not write. Not a disk that does not read: what it held may be gone. And not memory:
    /// a page whose seal is broken shows as lack of it.
    fn is_of_surroundings(&self) -> bool {
        use rusqlite::ffi;
        let Fault::Sql(rusqlite::Error::SqliteFailure(error, _)) = self else { return false };
        match error.code {
            ErrorCode::DiskFull
            | ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied
            | ErrorCode::CannotOpen => true,
            ErrorCode::SystemIoFailure => [
                ffi::SQLITE_IOERR_WRITE,
                ffi::SQLITE_IOERR_FSYNC,
                ffi::SQLITE_IOERR_DIR_FSYNC,
                ffi::SQLITE_IOERR_TRUNCATE,
                ffi::SQLITE_IOERR_SHMOPEN,
                ffi::SQLITE_IOERR_SHMSIZE,
                ffi::SQLITE_IOERR_SHMMAP,
            ]
            .contains(&error.extended_code),
            _ => false,
        }
    }

    /// Whether a page is not what was written to it.
    fn is_of_a_damaged_page(&self) -> bool {
        matches!(self, Fault::Sql(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt))
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        if fault.is_of_surroundings() {
            return StoreError(format!(
                "the disk does not take what is to be written ({fault}). Nothing that was acknowledged is lost; make \
                 room on the disk, or mend it, and start tuyend again, which recovers at its start"
            ));
        }
        if fault.is_of_a_damaged_page() {
            return StoreError(format!(
                "a part of records.db itself is damaged, which no restart mends ({fault}). `tuyen records export` may still write \
                 what can be read. Then stop tuyend, keep a copy of its folder, check the disk, and restore the newest backup, or have \
                 the parent let another machine take its place (`tuyen replace`): neighbours give back what they have"
            ));
        }
        StoreError(format!(
            "{fault}. Restart tuyend, which recovers at its start. If it comes back, check the disk's health, and restore the \
             newest backup: neighbours give back what they have"
        ))
    }
}

impl SqliteStore {
    fn load(conn: Connection) -> Fallible<Self> {
        let known = Known {
            tip: small::tip(&conn)?,
            chain: small::last_chain(&conn)?.unwrap_or(CHAIN_START),
            segments: small::segments(&conn)?,
            further_homes: small::further_homes(&conn)?,
            grants: small::grants(&conn)?,
            troubled: small::troubled(&conn)?,
            secret: small::secret(&conn)?,
            reads: small::number(&conn, "SELECT max(n) FROM read_cursor")?,
            announced: small::number(&conn, "SELECT max(n) FROM node")?,
        };
        let names = RefCell::new(Names::load(&conn)?);
        Ok(Self { conn, names, known: RefCell::new(known), poison: RefCell::default() })
    }

    /// Runs reads; their failure is the store's last.
    fn reading<T>(&self, work: impl FnOnce() -> Fallible<T>) -> Result<T, StoreError> {
        // One read transaction lasts until the next write: opening one for each read costs more than the read.
        let read = || {
            if self.conn.is_autocommit() {
                self.conn.prepare_cached("BEGIN")?.execute([])?;
            }
            work()
        };
        self.or_poison(read)
    }

    fn or_poison<T>(&self, work: impl FnOnce() -> Fallible<T>) -> Result<T, StoreError> {
        if let Some(first) = self.poison.borrow().as_ref() {
            return Err(StoreError(format!(
                "it is closed since an earlier error, and the process must restart; the error was: {}",
                first.text
            )));
        }
        work().map_err(|fault| {
            let of_surroundings = fault.is_of_surroundings();
            *self.poison.borrow_mut() = Some(Poison { text: fault.to_string(), of_surroundings });
            StoreError::from(fault)
        })
    }

    /// Whether the store is closed because of what is around it, such as a full disk, and not of what is in it.
    pub fn ended_by_surroundings(&self) -> bool {
        self.poison.borrow().as_ref().is_some_and(|poison| poison.of_surroundings)
    }

    /// Runs writes in a transaction of their own. After an error the transaction is rolled back and the store
    /// poisoned: whether a failed COMMIT has reached the disk only the next start can tell.
    fn transact<T>(&self, work: impl FnOnce() -> Fallible<T>) -> Result<T, StoreError> {
        self.or_poison(|| {
            self.end_read()?;
            self.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
            let done = work().and_then(|done| {
                self.conn.prepare_cached("COMMIT")?.execute([])?;
                Ok(done)
            });
            if done.is_err() && !self.conn.is_autocommit() {
                // The first error is the one to report; a rollback that fails as well is done by the restart.
                let _ = self.conn.execute_batch("ROLLBACK");
            }
            done
        })
    }

    fn end_read(&self) -> Fallible<()> {
        if !self.conn.is_autocommit() {
            self.conn.prepare_cached("COMMIT")?.execute([])?;
        }
        Ok(())
    }

    /// How much of the write-ahead log waits for a checkpoint. Cheap; to be asked after a commit.
    pub fn log(&self) -> Result<Checkpoint, StoreError> {
        self.checkpoint_as("NOOP")
    }

    /// Whether a checkpoint should be made as soon as nobody waits for a commit.
    pub fn checkpoint_due(&self) -> Result<bool, StoreError> {
        self.log().map(|log| log.pages.saturating_sub(log.done) >= CHECKPOINT_PAGES)
    }

    /// Copies the write-ahead log into the database file, as far as no reader needs the older pages. The host
    /// calls it between commits: the store never does, so that no commit waits for it.
    pub fn checkpoint(&mut self) -> Result<Checkpoint, StoreError> {
        self.checkpoint_as("PASSIVE")
    }

    fn checkpoint_as(&self, mode: &str) -> Result<Checkpoint, StoreError> {
        self.or_poison(|| {
            self.end_read()?;
            small::checkpoint(&self.conn, mode)
        })
    }
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore").field("tip", &self.known.borrow().tip).finish_non_exhaustive()
    }
}
