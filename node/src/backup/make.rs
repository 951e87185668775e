//! Making a backup: of a node that runs, by its daemon; of one that does not, on its folder.
//!
//! What always holds: everything that was acknowledged before it began is in it; the keys and certificates in it were
//! read, and are those of the node, or there is no backup. The copy of the store lies in the node's own folder
//! meanwhile, where whoever reads it could read the store as well.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::Path,
};

use sync_core::{engine::Identity as _, identity::NodeInfo};

use super::{
    BackupError, Recipients, Scratch, Step,
    format::{self, FormatError, LAST_KNOWN_GOOD, Manifest, PARTS, Part, SMALL_MAX_BYTES, SmallParts},
    open::belongs,
    tell,
};
use crate::{
    admin::{BackupKept, Failure},
    clock,
    config::{DATABASE, STORE_KEY},
    daemon::{self, Opened, SOFTWARE},
    store::{Copied, CopyError, Key, Reader},
};

/// The folder in a node's folder where the copy of its store lies while a backup is being made.
pub const STORE_COPY: &str = "backup.partial";
/// What the node must have left beside the copy.
const ROOM_TO_GO_ON_BYTES: u64 = 64 << 20;
/// The setting with the time of the last backup.
pub(crate) const LAST_BACKUP: &str = "last-backup";

/// A node of which a backup is made. Somebody holds the lock of its folder.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// Its folder.
    pub dir: &'a Path,
    /// Who it is.
    pub info: &'a NodeInfo,
    /// The key of its store.
    pub key: &'a Key,
    /// The latest time that it had from its tree, which the folder may not have yet.
    pub last_known_good: i64,
}

/// A backup that was made.
pub type Made = Manifest;

/// Makes a backup, and writes it to whoever keeps it.
pub fn make(
    source: Source<'_>,
    to: &Recipients,
    out: &mut dyn Write,
    step: &mut Step<'_>,
) -> Result<Made, BackupError> {
    let scratch = Scratch::take(&source.dir.join(STORE_COPY))?;
    room_for_copy(source.dir)?;
    let copy = scratch.path().join(DATABASE);
    let made_at = clock::wall();
    let copied = copy_store(source, &copy, made_at, step)?;
    // Younger than the copy: certificates are only ever replaced by better ones.
    let small = small_parts(source)?;
    let manifest = Manifest {
        software: SOFTWARE.to_owned(),
        node: source.info.node,
        place: source.info.place.clone(),
        role: source.info.role,
        made_at,
        records: copied.counts.live,
        deleted: copied.counts.deleted,
        entries: copied.counts.entries,
        store_layout: copied.layout,
        damaged: copied.damaged,
        parts: describe(&small, &copy, step).map_err(|error| told(error, &copy))?,
    };
    belongs(&small, &manifest).map_err(|what| BackupError::NotWhole { dir: source.dir.to_owned(), what })?;
    encrypt(&manifest, &small, &copy, to, out, step).map_err(|error| told(error, &copy))?;
    Ok(manifest)
}

/// A node that is restored from the copy has this backup for its last: whoever restores it has the file.
fn copy_store(
    source: Source<'_>,
    to: &Path,
    made_at: i64,
    step: &mut Step<'_>,
) -> Result<Copied, BackupError> {
    let store = Reader::open(&source.dir.join(DATABASE), source.key).map_err(CopyError::Open)?;
    let mut stopped = Ok(());
    let made_at = made_at.to_string();
    let copied = store.copy_to(to, source.key, (LAST_BACKUP, made_at.as_bytes()), |done, total| {
        stopped = tell(step, "pages of the store copied", done, total);
        stopped.is_ok()
    });
    stopped?;
    Ok(copied?)
}

fn describe(small: &[(String, Vec<u8>)], copy: &Path, step: &mut Step<'_>) -> Result<Vec<Part>, FormatError> {
    let mut parts = Vec::new();
    for (name, content) in small {
        parts.push(Part::of(name, &mut &content[..], &mut |_| Ok(()))?);
    }
    let mut file = File::open(copy)?;
    let total = file.metadata()?.len();
    let mut hashed = |done| go_on(step, "bytes of the copy hashed", done, total);
    parts.push(Part::of(DATABASE, &mut file, &mut hashed)?);
    Ok(parts)
}

fn encrypt(
    manifest: &Manifest,
    small: &[(String, Vec<u8>)],
    copy: &Path,
    to: &Recipients,
    out: &mut dyn Write,
    step: &mut Step<'_>,
) -> Result<(), FormatError> {
    let mut out = to.encryptor().wrap_output(Handed(out))?;
    let part = |name: &str| -> io::Result<Box<dyn Read + '_>> {
        match small.iter().find(|(small, _)| small == name) {
            Some((_, content)) => Ok(Box::new(&content[..])),
            None => Ok(Box::new(File::open(copy)?)),
        }
    };
    let total = manifest.store().bytes;
    format::write(&mut out, manifest, part, &mut |done| {
        go_on(step, "bytes encrypted", done.min(total), total)
    })?;
    Ok(out.finish()?.flush()?)
}

/// Marks what goes wrong with whoever keeps the backup, so that the copy is not blamed.
struct Handed<'a>(&'a mut dyn Write);

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotHanded(io::Error);

impl Write for Handed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(|error| io::Error::new(error.kind(), NotHanded(error)))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(|error| io::Error::new(error.kind(), NotHanded(error)))
    }
}

fn go_on(step: &mut Step<'_>, what: &str, done: u64, total: u64) -> Result<(), FormatError> {
    tell(step, what, done, total).map_err(|error| FormatError::Stopped(Box::new(error)))
}

/// What went wrong while the copy was read again and written out.
fn told(error: FormatError, copy: &Path) -> BackupError {
    match error {
        FormatError::Io(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<NotHanded>()) {
            Some(NotHanded(inner)) => BackupError::Handing(io::Error::new(inner.kind(), inner.to_string())),
            None => BackupError::Io { doing: "read", path: copy.to_owned(), source: error },
        },
        FormatError::Stopped(error) => *error,
        FormatError::Broken(what) => BackupError::Damaged { path: copy.to_owned(), what },
        FormatError::NotABackup | FormatError::Newer(_) => unreachable!("only reading a backup says so"),
    }
}

/// Refuses to begin a copy that would leave the node no room to go on.
fn room_for_copy(dir: &Path) -> Result<(), BackupError> {
    let io = |source| BackupError::Io { doing: "look at", path: dir.to_owned(), source };
    let bytes = |name: &str| fs::metadata(dir.join(name)).map_or(0, |file| file.len());
    let log = format!("{DATABASE}-wal");
    let needed = bytes(DATABASE) + bytes(&log);
    let disk = rustix::fs::statvfs(dir).map_err(|error| io(error.into()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free < needed.saturating_add(ROOM_TO_GO_ON_BYTES) {
        return Err(BackupError::NoRoom { path: dir.to_owned(), needed, free });
    }
    Ok(())
}

/// Everything but the store, in the order of the parts.
fn small_parts(source: Source<'_>) -> Result<SmallParts, BackupError> {
    let mut parts = Vec::new();
    for (name, needed) in PARTS {
        let content = match name {
            DATABASE => continue,
            STORE_KEY => Some(source.key.to_text()),
            // The daemon writes it down when it ends.
            LAST_KNOWN_GOOD => {
                (source.last_known_good > 0).then(|| format!("{}\n", source.last_known_good).into_bytes())
            }
            _ => small_file(source.dir, name)?,
        };
        match content {
            Some(content) => parts.push((name.to_owned(), content)),
            None if needed => {
                let what = format!("{name} is missing");
                return Err(BackupError::NotWhole { dir: source.dir.to_owned(), what });
            }
            None => {}
        }
    }
    Ok(parts)
}

fn small_file(dir: &Path, name: &str) -> Result<Option<Vec<u8>>, BackupError> {
    let path = dir.join(name);
    let mut content = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(SMALL_MAX_BYTES + 1).read_to_end(&mut content));
    match read {
        Ok(bytes) if bytes as u64 > SMALL_MAX_BYTES => {
            let what = format!("{name} is far too large to be what a node has");
            Err(BackupError::NotWhole { dir: dir.to_owned(), what })
        }
        Ok(_) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(BackupError::Io { doing: "read", path, source }),
    }
}

/// A node that does not run, and cannot be started meanwhile.
pub struct Stopped(Opened);

impl Stopped {
    /// Opens the folder as its daemon would, and fails as it would.
    pub fn open(dir: &Path) -> Result<Self, Failure> {
        Ok(Self(daemon::open(dir)?))
    }

    /// Makes a backup.
    pub fn make(
        &self,
        to: &Recipients,
        out: &mut dyn Write,
        step: &mut Step<'_>,
    ) -> Result<Made, BackupError> {
        let Opened { dir, identity, key, clock, .. } = &self.0;
        let info = identity.info();
        make(Source { dir, info, key, last_known_good: clock.last_known_good() }, to, out, step)
    }

    /// Keeps that a backup of this time is where it should be.
    pub fn kept(mut self, made_at: i64) -> Result<BackupKept, Failure> {
        daemon::backup_kept(&mut self.0.store, made_at)
            .map_err(|error| Failure::new(crate::admin::FailureKind::Failed, error.to_string()))
    }
}
