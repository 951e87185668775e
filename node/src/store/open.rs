//! Opening and creating the file, and the settings on which durability and secrecy rest.
//!
//! SQLite ignores a setting that it cannot or will not make, without an error: `journal_mode=WAL` was seen to
//! leave a connection in another mode when the disk failed at that moment. So every setting is read back, and
//! the store does not open when one of them did not take.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Once,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, config::DbConfig, types::Value};

use super::{
    Fault, SqliteStore,
    files::{FileSystem, Reading, SystemFiles},
    key::{Key, wipe},
    listing::Reader,
    log::{self, Log, Sum, Tail},
    read::small,
    schema::{self, APPLICATION_ID, VERSION},
};

/// Memory for pages of the writer's connection, in KiB. The indexes of a million records fit.
const WRITER_CACHE_KIB: i64 = 65_536;
/// The same at a leaf, whose ten thousands of records have smaller indexes and whose machine has less memory.
pub const LEAF_CACHE_KIB: i64 = 16_384;
/// Memory for pages of a reader's connection, in KiB.
const READER_CACHE_KIB: i64 = 8_192;
/// The same for a copy that is being written.
const COPY_CACHE_KIB: i64 = 2_048;
/// How long a statement waits for another connection's lock, in milliseconds.
const BUSY_MILLIS: i64 = 5_000;
/// What the write-ahead log is cut down to once it has been copied, in bytes.
const LOG_KEEP_BYTES: i64 = 64 << 20;
/// How many prepared statements a connection keeps.
const STATEMENTS: usize = 128;
/// Bytes of a page. Of the usual page of 4 kB the cipher leaves 4,016 bytes, which a little too often hold one
/// entry of 2 kB where two would nearly fit: 4,318 bytes a row were measured, 2,260 with pages of 8 kB.
const PAGE_BYTES: i64 = 8_192;
/// What the name of a log that was found damaged has behind it, before a number.
const DAMAGED: &str = ".damaged-";

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no file.
    #[error("there is no store at {}. Check the path, or put back a copy of the node's folder", .0.display())]
    Missing(PathBuf),
    /// There is a file already.
    #[error("there is a store at {} already, and it is never overwritten. Choose another directory, or move it away", .0.display())]
    Exists(PathBuf),
    /// The file is an SQLite database that is not encrypted.
    #[error("{} is an unencrypted SQLite database, not a Tuyến store. Check the path", .0.display())]
    Plain(PathBuf),
    /// The file is not a database.
    #[error("{} is not a Tuyến store: it is shorter than any database. Check the path, or restore a backup", .0.display())]
    NotADatabase(PathBuf),
    /// The key does not fit.
    #[error("the store {} cannot be read with this key. Use the key file that was made with this store; if it is the right one, the file is damaged: restore a backup", .0.display())]
    WrongKey(PathBuf),
    /// The file belongs to another program.
    #[error("{path} is a database of another program (application_id {found:#x}), not a Tuyến store. Check the path", path = .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its application id.
        found: i64,
    },
    /// The file was written by a newer program.
    #[error("the store {path} has layout version {found} and this program knows versions up to {VERSION}. Install the newer version of Tuyến that has opened it", path = .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
    /// The file was written by an older program and has not been brought up to date.
    #[error("the store {path} has the older layout version {found}. Start tuyend once, which brings it to version {VERSION}", path = .path.display())]
    Older {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
    /// The program was built without encryption.
    #[error(
        "this program was built without SQLCipher and would store records unencrypted. Install a build with encryption"
    )]
    NoCipher,
    /// A setting did not take.
    #[error(
        "the store does not open because SQLite did not take a setting that it depends on: {name} should be {wanted} and is {found}. The usual reasons are a full, failing or network disk, or another program that has the file open; nothing was changed"
    )]
    Pragma {
        /// The setting.
        name: &'static str,
        /// What it should be.
        wanted: String,
        /// What it is.
        found: String,
    },
    /// The system refused.
    #[error("the store {path} cannot be opened: {source}. Check that the disk is mounted, has space and belongs to the user of tuyend", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The write-ahead log does not read.
    #[error("the write-ahead log of the store {path} cannot be read: {source}. What was acknowledged last may be in it: keep the folder as it is, check the disk's health, and put back a copy of the folder on another disk", path = .path.display())]
    UnreadableLog {
        /// The store.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The write-ahead log is damaged, and cannot be put aside.
    #[error("the write-ahead log of the store {path} is damaged, and the copy that has to be kept of it cannot be made: {source}. Nothing was changed. Make room on the disk, or mend it, and start tuyend again", path = .path.display())]
    LogNotKept {
        /// The store.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A page of the file is not what was written to it.
    #[error("the store {path} cannot be opened: a part of it is damaged, which no restart mends ({reason}). Keep a copy of its folder, check the disk, and restore the newest backup, or have the parent let another machine take its place (`tuyen replace`): neighbours give back what they have", path = .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        reason: String,
    },
    /// SQLite refused.
    #[error("the store {path} cannot be opened: {reason}. Check the disk's space and health; if it stays, restore a backup", path = .path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        reason: String,
        /// Whether only what is around the file is in the way.
        of_surroundings: bool,
    },
}

impl OpenError {
    /// Whether what is around the store is in the way, such as a full disk, and says nothing against the store.
    pub fn is_of_surroundings(&self) -> bool {
        match self {
            Self::Io { .. } | Self::Pragma { .. } | Self::NoCipher | Self::LogNotKept { .. } => true,
            Self::Sqlite { of_surroundings, .. } => *of_surroundings,
            _ => false,
        }
    }
}

/// A setting: its name, what it is set to, and what it then reads as.
struct Pragma {
    name: &'static str,
    set: String,
    read: Value,
}

fn pragma(name: &'static str, set: impl ToString, read: impl Into<Value>) -> Pragma {
    Pragma { name, set: set.to_string(), read: read.into() }
}

/// Of a file that is written once, and synced or thrown away by whoever wanted it.
fn copy_settings() -> Vec<Pragma> {
    vec![
        pragma("journal_mode", "MEMORY", "memory".to_owned()),
        pragma("synchronous", "OFF", 0),
        pragma("cache_size", -COPY_CACHE_KIB, -COPY_CACHE_KIB),
        pragma("mmap_size", 0, 0),
        pragma("temp_store", "MEMORY", 2),
    ]
}

fn settings(cache_kib: i64) -> Vec<Pragma> {
    vec![
        pragma("busy_timeout", BUSY_MILLIS, BUSY_MILLIS),
        pragma("journal_mode", "WAL", "wal".to_owned()),
        // Of a thousand simulated power cuts with disk errors two lost an acknowledged transaction with FULL,
        // none with EXTRA.
        pragma("synchronous", "EXTRA", 3),
        pragma("foreign_keys", "ON", 1),
        pragma("wal_autocheckpoint", 0, 0),
        pragma("journal_size_limit", LOG_KEEP_BYTES, LOG_KEEP_BYTES),
        pragma("cache_size", -cache_kib, -cache_kib),
        pragma("mmap_size", 0, 0),
        // A spilled sort must not write records to the disk in the clear.
        pragma("temp_store", "MEMORY", 2),
        pragma("trusted_schema", "OFF", 0),
    ]
}

/// The cipher's settings, pinned, so that a later SQLCipher with other defaults reads the same files.
fn cipher_settings() -> Vec<Pragma> {
    vec![
        pragma("cipher_page_size", PAGE_BYTES, PAGE_BYTES.to_string()),
        pragma("cipher_use_hmac", "ON", "1".to_owned()),
        pragma("cipher_hmac_algorithm", "HMAC_SHA512", "HMAC_SHA512".to_owned()),
        pragma("cipher_kdf_algorithm", "PBKDF2_HMAC_SHA512", "PBKDF2_HMAC_SHA512".to_owned()),
    ]
}

fn apply(conn: &Connection, settings: Vec<Pragma>) -> Result<(), OpenError> {
    for Pragma { name, set, read } in settings {
        let refused = |found: String| OpenError::Pragma { name, wanted: show(&read), found };
        // The answer to the setting itself is not trusted: some answer nothing, some the wish.
        let outcome = conn.execute_batch(&format!("PRAGMA {name}={set}"));
        outcome.map_err(|e| refused(format!("refused ({e})")))?;
        let found: Value = conn
            .query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
            .map_err(|e| refused(format!("not readable ({e})")))?;
        if found != read {
            return Err(refused(show(&found)));
        }
    }
    Ok(())
}

fn show(value: &Value) -> String {
    match value {
        Value::Integer(n) => n.to_string(),
        Value::Text(text) => text.clone(),
        _ => "of another kind".to_owned(),
    }
}

/// Makes SQLite and its cipher ready, once for the process. Whoever calls SQLite itself beside a store calls this before.
///
/// SQLite counts itself as ready before it has called SQLCipher's part of that (`sqlite3_initialize` in its `main.c`), and a
/// connection that another thread opens in between is one without a cipher. So the first call of a process is made alone.
pub fn make_sqlite_ready() {
    static READY: Once = Once::new();
    READY.call_once(|| drop(Connection::open_in_memory()));
}

fn open_file(files: &dyn FileSystem, path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    make_sqlite_ready();
    Connection::open_with_flags_and_vfs(path, flags, files.vfs())
}

/// A connection of a unit test.
#[cfg(test)]
pub(super) fn in_memory() -> Connection {
    make_sqlite_ready();
    Connection::open_in_memory().unwrap()
}

/// Gives the key to a fresh connection. Errors of this statement would quote it, so they are not passed on.
fn unlock(conn: &Connection, key: &Key) -> Result<(), OpenError> {
    let version = conn.query_row("PRAGMA cipher_version", [], |row| row.get::<_, String>(0));
    if version.is_err() {
        return Err(OpenError::NoCipher);
    }
    // The cipher would write its own lines to stderr beside the error that it returns.
    let _ = conn.execute_batch("PRAGMA cipher_log_level = NONE");
    let (hex, statement) = (key.hex(), String::from("PRAGMA key = \"x'"));
    let statement = statement + &hex + "'\"";
    let outcome = conn.execute_batch(&statement).map_err(|_| OpenError::NoCipher);
    wipe(hex.into_bytes());
    wipe(statement.into_bytes());
    outcome?;
    apply(conn, cipher_settings())
}

/// Opens an existing file. One of an older layout only if it is going to be brought up to date.
fn connect(
    files: &dyn FileSystem,
    path: &Path,
    key: &Key,
    cache_kib: i64,
    migrates: bool,
) -> Result<Connection, OpenError> {
    let sqlite = |e: rusqlite::Error| match e.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => OpenError::WrongKey(path.to_owned()),
        _ => failed(path, e.into()),
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = open_file(files, path, flags).map_err(sqlite)?;
    // Closing the last connection copies the log: with the settings that the connection has by then, and as it was read.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(sqlite)?;
    // Without it a statement whose LIMIT is bound is planned anew each time, which takes as long as to run it.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(sqlite)?;
    unlock(&conn, key)?;
    // What is damaged in it would otherwise be met by the first setting, as a refusal of that.
    conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map_err(sqlite)?;
    let application: i64 = conn.query_row("PRAGMA application_id", [], |row| row.get(0)).map_err(sqlite)?;
    if application != APPLICATION_ID {
        return Err(OpenError::Foreign { path: path.to_owned(), found: application });
    }
    let found = schema::version(&conn).map_err(sqlite)?;
    if found > VERSION {
        return Err(OpenError::Newer { path: path.to_owned(), found });
    }
    if found < VERSION && !migrates {
        return Err(OpenError::Older { path: path.to_owned(), found });
    }
    apply(&conn, settings(cache_kib))?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(conn)
}

/// Makes an empty file of this key, for a copy of a store. It must not exist.
pub(super) fn create_copy(path: &Path, key: &Key) -> Result<Connection, OpenError> {
    let files = &SystemFiles;
    files.create_private(path).map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
    let conn = open_file(files, path, OpenFlags::default());
    let conn = conn.map_err(|e| failed(path, e.into()))?;
    unlock(&conn, key)?;
    apply(&conn, copy_settings())?;
    Ok(conn)
}

/// How far the log was read before SQLite read it.
#[derive(Default)]
struct Looked {
    frames: u64,
    /// Where to cut it off, when there is something behind the last commit.
    cut: Option<u64>,
}

fn log_of(path: &Path) -> PathBuf {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    log.into()
}

/// Looks at the log before SQLite reads it, and puts it aside when it is damaged.
fn look(files: &dyn FileSystem, path: &Path) -> Result<Looked, OpenError> {
    let unreadable = |source| OpenError::UnreadableLog { path: path.to_owned(), source };
    let log = log_of(path);
    let examine = || log::examine(&mut Reading::of(files, &log), PAGE_BYTES as usize);
    match examine() {
        Ok(Log::Empty) => Ok(Looked::default()),
        Ok(Log::Whole { frames, bytes, tail }) => {
            if tail == Tail::Damaged {
                keep_copy(files, path, &log)?;
            }
            Ok(Looked { frames, cut: (tail != Tail::Nothing).then_some(bytes) })
        }
        Ok(Log::Headless(pages)) => {
            let copied = pages.iter().map(|(page, sum)| holds(files, path, *page, *sum));
            let copied = copied.collect::<io::Result<Vec<_>>>().map_err(unreadable)?;
            // Once it is out of the way nobody reads it again.
            if examine().map_err(unreadable)? != Log::Headless(pages) {
                return Err(unreadable(io::Error::other("it reads otherwise the second time")));
            }
            put_aside(files, path, &log, copied.contains(&false))?;
            Ok(Looked::default())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Looked::default()),
        Err(error) => Err(unreadable(error)),
    }
}

/// Whether a page of the database file has this content.
fn holds(files: &dyn FileSystem, path: &Path, page: u32, sum: Sum) -> io::Result<bool> {
    let mut content = vec![0; PAGE_BYTES as usize];
    let read = files.read_at(path, (u64::from(page) - 1) * PAGE_BYTES as u64, &mut content)?;
    Ok(read == content.len() && Sum::of_page(&content) == sum)
}

/// Copies a damaged log. The copy has its name only when it is whole.
fn keep_copy(files: &dyn FileSystem, path: &Path, log: &Path) -> Result<(), OpenError> {
    let mut partial = log.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let remove = || if files.exists(&partial) { files.remove(&partial) } else { Ok(()) };
    let copied = remove().and_then(|()| files.copy(log, &partial));
    let named = copied
        .and_then(|()| files.rename(&partial, &free_name(files, log)))
        .and_then(|()| files.sync_parent(path));
    named.map_err(|source| {
        // The error above is the one to report.
        let _ = remove();
        OpenError::LogNotKept { path: path.to_owned(), source }
    })
}

/// Takes a log of which SQLite reads nothing out of its way: it would take the salts of the next log from the header,
/// and those may be the salts of the frames that are there.
fn put_aside(files: &dyn FileSystem, path: &Path, log: &Path, keep: bool) -> Result<(), OpenError> {
    let gone = if keep { files.rename(log, &free_name(files, log)) } else { files.remove(log) };
    gone.and_then(|()| files.sync_parent(path)).map_err(|source| match keep {
        true => OpenError::LogNotKept { path: path.to_owned(), source },
        false => OpenError::Io { path: path.to_owned(), source },
    })
}

/// A name for a damaged log that none has.
fn free_name(files: &dyn FileSystem, log: &Path) -> PathBuf {
    let name = |n: u32| {
        let mut name = log.as_os_str().to_owned();
        name.push(format!("{DAMAGED}{n}"));
        PathBuf::from(name)
    };
    (1..).map(name).find(|name| !files.exists(name)).expect("there are more numbers than files")
}

/// The copies of damaged logs that lie beside a store: for as long as they do, somebody has to look.
pub fn damaged_logs(path: &Path) -> io::Result<Vec<PathBuf>> {
    let log = log_of(path);
    let Some(start) = log.file_name().and_then(|name| name.to_str()).map(|name| format!("{name}{DAMAGED}"))
    else {
        return Ok(Vec::new());
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(&start)) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Makes durable what the log reads as. When the process before could not sync it, the system may take for written
/// what is only in its cache, and no later sync writes that: a commit behind it would be lost with the power. What
/// stands behind the last commit is cut off, so that it is not met again behind a later one. The lock keeps every other
/// writer away meanwhile. The directory is synced because SQLite does not tell when it cannot do that for a new log,
/// which would be lost with its name.
fn settle(
    files: &dyn FileSystem,
    conn: &Connection,
    path: &Path,
    Looked { frames, cut }: Looked,
) -> Result<(), OpenError> {
    let sqlite = |e: rusqlite::Error| failed(path, e.into());
    let version = || conn.query_row("PRAGMA data_version", [], |row| row.get::<_, i64>(0)).map_err(sqlite);
    let before = version()?;
    let pages = small::checkpoint(conn, "NOOP").map_err(|fault| failed(path, fault))?.pages;
    conn.execute_batch("BEGIN IMMEDIATE").map_err(sqlite)?;
    let same = version()? == before && pages == frames;
    let settled = || files.rewrite(&log_of(path), cut).and_then(|()| files.sync_parent(path));
    let settled = if same { settled() } else { Ok(()) };
    conn.execute_batch("ROLLBACK").map_err(sqlite)?;
    settled.map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
    if same {
        return Ok(());
    }
    let reason = format!(
        "its write-ahead log read as {frames} pages, then as {pages}. Another program may have it open, or the disk \
         reads otherwise each time; nothing was changed. Close the program, and start tuyend again"
    );
    Err(OpenError::Sqlite { path: path.to_owned(), reason, of_surroundings: false })
}

/// From now on closing the last connection copies the log and removes it.
fn copy_at_close(conn: &Connection, path: &Path) -> Result<(), OpenError> {
    let set = conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false);
    set.map(drop).map_err(|e| failed(path, e.into()))
}

fn failed(path: &Path, fault: Fault) -> OpenError {
    let (path, reason) = (path.to_owned(), fault.to_string());
    if fault.is_of_a_damaged_page() {
        return OpenError::Damaged { path, reason };
    }
    OpenError::Sqlite { path, reason, of_surroundings: fault.is_of_surroundings() }
}

/// Says in one line what a file is that is certainly no store.
fn recognise(files: &dyn FileSystem, path: &Path) -> Result<(), OpenError> {
    let io = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => OpenError::Missing(path.to_owned()),
        _ => OpenError::Io { path: path.to_owned(), source },
    };
    let mut start = vec![0; PAGE_BYTES as usize];
    let there = files.read_at(path, 0, &mut start).map_err(io)?;
    if start.starts_with(b"SQLite format 3\0") {
        return Err(OpenError::Plain(path.to_owned()));
    }
    if there < start.len() {
        return Err(OpenError::NotADatabase(path.to_owned()));
    }
    Ok(())
}

/// Who is who follows from what was announced. A node that is lacking, or an announcement whose certificate is gone, would not be
/// heard of again: whoever has announced a run does so once. So the first is put back, and the second forgotten and asked for.
fn mend_who_is_who(conn: &Connection) -> Result<(), Fault> {
    conn.execute_batch(
        "DELETE FROM announcement WHERE certificate NOT IN (SELECT id FROM certificate);
         DELETE FROM node WHERE certificate NOT IN (SELECT id FROM certificate);
         INSERT INTO node (node, certificate, n)
           SELECT node, max(id), 0 FROM certificate
           WHERE id IN (SELECT certificate FROM announcement) AND node NOT IN (SELECT node FROM node) GROUP BY node",
    )?;
    Ok(())
}

impl SqliteStore {
    /// Creates a store, and opens it. The file gets its name only when it is whole, so that a crash in the
    /// middle leaves no store rather than half of one.
    pub fn create(path: &Path, key: &Key) -> Result<Self, OpenError> {
        Self::create_on(&SystemFiles, path, key)
    }

    /// [`SqliteStore::create`] on another file system.
    pub fn create_on(files: &dyn FileSystem, path: &Path, key: &Key) -> Result<Self, OpenError> {
        if files.exists(path) {
            return Err(OpenError::Exists(path.to_owned()));
        }
        let io = |source| OpenError::Io { path: path.to_owned(), source };
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        if files.exists(&partial) {
            files.remove(&partial).map_err(io)?;
        }
        files.create_private(&partial).map_err(io)?;
        let sqlite = |e: rusqlite::Error| failed(path, e.into());
        let conn = open_file(files, &partial, OpenFlags::default());
        let conn = conn.map_err(sqlite)?;
        unlock(&conn, key)?;
        apply(&conn, vec![pragma("synchronous", "EXTRA", 3)])?;
        schema::migrate(&conn).map_err(|fault| failed(path, fault))?;
        conn.close().map_err(|(_, e)| sqlite(e))?;
        files.rename(&partial, path).and_then(|()| files.sync_parent(path)).map_err(io)?;
        Self::open_on(files, path, key)
    }

    /// Opens a store, and brings it to the layout of this program.
    pub fn open(path: &Path, key: &Key) -> Result<Self, OpenError> {
        Self::open_on(&SystemFiles, path, key)
    }

    /// [`SqliteStore::open`] on another file system.
    pub fn open_on(files: &dyn FileSystem, path: &Path, key: &Key) -> Result<Self, OpenError> {
        recognise(files, path)?;
        let looked = look(files, path)?;
        let conn = connect(files, path, key, WRITER_CACHE_KIB, true)?;
        settle(files, &conn, path, looked)?;
        copy_at_close(&conn, path)?;
        schema::migrate(&conn).map_err(|fault| failed(path, fault))?;
        mend_who_is_who(&conn).map_err(|fault| failed(path, fault))?;
        Self::load(conn).map_err(|fault| failed(path, fault))
    }

    /// Keeps no more of the file's pages in memory than this.
    pub fn limit_cache(&self, kib: i64) -> Result<(), OpenError> {
        apply(&self.conn, vec![pragma("cache_size", -kib, -kib)])
    }
}

impl Reader {
    /// Opens a second connection to a store that the writer has opened already.
    pub fn open(path: &Path, key: &Key) -> Result<Self, OpenError> {
        Self::open_on(&SystemFiles, path, key)
    }

    /// [`Reader::open`] on another file system.
    pub fn open_on(files: &dyn FileSystem, path: &Path, key: &Key) -> Result<Self, OpenError> {
        recognise(files, path)?;
        let conn = connect(files, path, key, READER_CACHE_KIB, false)?;
        apply(&conn, vec![pragma("query_only", "ON", 1)])?;
        copy_at_close(&conn, path)?;
        Ok(Self::new(conn))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_with_a_bound_limit_is_planned_once() {
        let dir = tempfile::tempdir().unwrap();
        let (path, key) = (dir.path().join("records.db"), Key::generate().unwrap());
        SqliteStore::create(&path, &key).unwrap();
        let conn = connect(&SystemFiles, &path, &key, READER_CACHE_KIB, false).unwrap();
        let mut statement = conn.prepare("SELECT seq FROM feed ORDER BY seq LIMIT ?1").unwrap();
        for limit in 1..5 {
            assert!(!statement.exists([limit]).unwrap());
        }
        assert_eq!(statement.get_status(rusqlite::StatementStatus::RePrepare), 0);
    }

    #[test]
    fn a_damaged_page_is_told_as_such_wherever_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (path, key) = (dir.path().join("records.db"), Key::generate().unwrap());
        drop(SqliteStore::create(&path, &key).unwrap());
        let whole = std::fs::read(&path).unwrap();
        let mut refused = 0;
        for page in 0..whole.len() / PAGE_BYTES as usize {
            let mut damaged = whole.clone();
            damaged[page * PAGE_BYTES as usize + 4_000] ^= 1;
            std::fs::write(&path, damaged).unwrap();
            match SqliteStore::open(&path, &key).map(drop) {
                Ok(()) => {}
                Err(OpenError::WrongKey(_)) => assert_eq!(page, 0),
                Err(error @ OpenError::Damaged { .. }) => {
                    assert!(
                        !error.is_of_surroundings() && error.to_string().contains("which no restart mends")
                    );
                    refused += 1;
                }
                Err(error) => panic!("page {page}: {error}"),
            }
        }
        assert!(refused > 1, "{refused}");
    }

    #[test]
    fn rows_of_secret_records_are_found_without_reading_all() {
        let conn = in_memory();
        schema::migrate(&conn).unwrap();
        let mut plan =
            conn.prepare(&format!("EXPLAIN QUERY PLAN {}", super::super::read::SECRET_ROWS)).unwrap();
        let steps = plan.query_map([], |row| row.get::<_, String>(3)).unwrap();
        let scans: Vec<_> = steps.map(Result::unwrap).filter(|step| step.starts_with("SCAN")).collect();
        assert_eq!(scans, ["SCAN s"]);
    }

    #[test]
    fn a_setting_that_does_not_take_is_refused() {
        let memory = in_memory();
        let error = apply(&memory, settings(WRITER_CACHE_KIB)).unwrap_err();
        let OpenError::Pragma { name, wanted, found } = &error else { panic!("{error}") };
        assert_eq!((*name, wanted.as_str(), found.as_str()), ("journal_mode", "wal", "memory"));
        assert!(error.to_string().contains("journal_mode should be wal and is memory"));
    }
}
