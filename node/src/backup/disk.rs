//! What a backup or a restore has on the disk before it is whole: a file or a folder of a name of its own, and how it
//! gets the final one.
//!
//! What always holds: whoever works on one holds a lock on it, which ends with the process, so that what a killed
//! command has left is told from what another one is at, and taken over; dropping one removes it. The final name is
//! given only after everything has been synced, and never to something that is there already.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::BackupError;
use crate::{config, keys::IDENTITY_FILES};

/// The mode of every file and of every folder.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;
/// What a name has at its end until the file is whole.
pub(super) const PARTIAL: &str = ".partial";
/// What stands beside a store, or stood there when the process was killed.
const STORE_ENDS: [&str; 4] = ["", "-wal", "-shm", "-journal"];
/// The folder of keys and certificates.
pub(super) const IDENTITY: &str = "identity";

fn failed(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::Io { doing, path: path.clone(), source }
}

/// A path with something behind its last name.
pub(super) fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

/// The steps by which something gets its final name.
trait Disk {
    fn sync(&self, path: &Path) -> io::Result<()>;
    /// Fails when there is something of the new name, other than an empty folder in the place of a folder.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
}

/// The machine's.
struct System;

impl Disk for System {
    fn sync(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if from.is_dir() {
            // The system replaces a folder only when it is empty.
            return fs::rename(from, to);
        }
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // Some network disks know no such rename.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) if !to.exists() => fs::rename(from, to),
            outcome => Ok(outcome?),
        }
    }
}

/// Makes durable, in this order, what is there, and then that it has this name.
fn settle(disk: &impl Disk, what: &[PathBuf], from: &Path, to: &Path) -> Result<(), BackupError> {
    for path in what {
        disk.sync(path).map_err(failed("sync", path))?;
    }
    disk.rename(from, to).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => BackupError::Exists(to.to_owned()),
        io::ErrorKind::DirectoryNotEmpty => BackupError::NotEmpty(to.to_owned()),
        _ => failed("rename", from)(source),
    })?;
    let folder = folder_of(to);
    disk.sync(&folder).map_err(failed("sync", &folder))
}

fn folder_of(path: &Path) -> PathBuf {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

/// Makes durable what files a folder holds.
pub(super) fn sync_folder_of(path: &Path) -> io::Result<()> {
    System.sync(&folder_of(path))
}

fn lock(file: &File, path: &Path) -> Result<(), BackupError> {
    file.try_lock().map_err(|error| match error {
        fs::TryLockError::WouldBlock => BackupError::Busy(path.to_owned()),
        fs::TryLockError::Error(source) => failed("lock", path)(source),
    })
}

/// A backup that is being written.
pub struct Partial {
    file: File,
    path: PathBuf,
    to: PathBuf,
    kept: bool,
}

impl Partial {
    /// Begins a file that will have this name, in the place of what a killed command has left of it.
    pub fn begin(to: &Path) -> Result<Self, BackupError> {
        if to.symlink_metadata().is_ok() {
            return Err(BackupError::Exists(to.to_owned()));
        }
        let path = beside(to, PARTIAL);
        if let Ok(left) = path.symlink_metadata() {
            if !left.is_file() {
                return Err(BackupError::InTheWay(path));
            }
            lock(&File::open(&path).map_err(failed("open", &path))?, &path)?;
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&path);
        let partial =
            Self { file: file.map_err(failed("write", &path))?, path, to: to.to_owned(), kept: false };
        lock(&partial.file, &partial.path)?;
        Ok(partial)
    }

    /// Where it is meanwhile.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many bytes it has.
    pub fn bytes(&self) -> u64 {
        self.file.metadata().map_or(0, |file| file.len())
    }

    /// What an error of writing to it means.
    pub fn failed(&self, source: io::Error) -> BackupError {
        failed("write", &self.path)(source)
    }

    /// Makes it durable and gives it its name.
    pub fn keep(mut self) -> Result<(), BackupError> {
        settle(&System, std::slice::from_ref(&self.path), &self.path, &self.to)?;
        self.kept = true;
        Ok(())
    }
}

impl Write for Partial {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.kept {
            // It may have gone with its folder.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A private folder for work, with nothing in it but what a node's folder may hold.
pub struct Scratch {
    path: PathBuf,
    kept: bool,
    _lock: File,
}

impl Scratch {
    /// Makes the folder, in the place of what a killed command has left of it.
    pub fn take(path: &Path) -> Result<Self, BackupError> {
        let made = fs::DirBuilder::new().mode(FOLDER_MODE).create(path);
        if let Err(error) = &made
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            made.map_err(failed("make", path))?;
        }
        let there = path.symlink_metadata().map_err(failed("open", path))?;
        if !there.is_dir() {
            return Err(BackupError::InTheWay(path.to_owned()));
        }
        let folder = File::open(path).map_err(failed("open", path))?;
        lock(&folder, path)?;
        if !only_ours(path).map_err(failed("read", path))? {
            return Err(BackupError::InTheWay(path.to_owned()));
        }
        empty(path).map_err(failed("empty", path))?;
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(FOLDER_MODE))
            .map_err(failed("close to others", path))?;
        Ok(Self { path: path.to_owned(), kept: false, _lock: folder })
    }

    /// Removes what a killed process has left under this name, if it did.
    pub fn tidy(path: &Path) -> Result<(), BackupError> {
        if path.symlink_metadata().is_err() {
            return Ok(());
        }
        Self::take(path).map(drop)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a new file in it.
    pub(super) fn create(&self, name: &str) -> Result<File, BackupError> {
        let path = self.path.join(name);
        if let Some(folder) = path.parent().filter(|folder| *folder != self.path && !folder.exists()) {
            fs::DirBuilder::new().mode(FOLDER_MODE).create(folder).map_err(failed("make", folder))?;
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&path);
        file.map_err(failed("write", &path))
    }

    /// Makes everything in it durable and gives the folder this name.
    pub(super) fn keep(mut self, to: &Path) -> Result<(), BackupError> {
        let mut all = Vec::new();
        everything_in(&self.path, &mut all).map_err(failed("read", &self.path))?;
        all.push(self.path.clone());
        settle(&System, &all, &self.path, to)?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.kept {
            // What cannot be removed now is taken over later.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Every file and folder below one, what is in a folder before the folder.
fn everything_in(folder: &Path, all: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            everything_in(&entry.path(), all)?;
        }
        all.push(entry.path());
    }
    Ok(())
}

/// Whether there is nothing in a folder that work in it does not leave.
fn only_ours(folder: &Path) -> io::Result<bool> {
    let ours = |name: &str| {
        let store = name.strip_prefix(config::DATABASE).is_some_and(|end| STORE_ENDS.contains(&end));
        store || [config::FILE, config::STORE_KEY, IDENTITY].contains(&name)
    };
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else { return Ok(false) };
        let inner = name == IDENTITY && entry.file_type()?.is_dir();
        if !ours(&name) || (inner && !only_keys(&entry.path())?) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn only_keys(folder: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(folder)? {
        if !entry?.file_name().to_str().is_some_and(|name| IDENTITY_FILES.contains(&name)) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn empty(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Writes down what was done, and fails at one step.
    struct Log {
        steps: RefCell<Vec<String>>,
        fails_at: usize,
    }

    impl Log {
        fn note(&self, step: String) -> io::Result<()> {
            self.steps.borrow_mut().push(step);
            let broken = self.steps.borrow().len() == self.fails_at;
            if broken { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }
    }

    impl Disk for Log {
        fn sync(&self, path: &Path) -> io::Result<()> {
            self.note(format!("sync {}", path.display()))
        }

        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            self.note(format!("rename {} {}", from.display(), to.display()))
        }
    }

    #[test]
    fn the_name_comes_after_the_content_is_durable_and_is_durable_itself() {
        let all = ["sync d/x.partial", "rename d/x.partial d/x", "sync d"];
        for fails_at in 0..=all.len() {
            let log = Log { steps: RefCell::default(), fails_at };
            let what = [PathBuf::from("d/x.partial")];
            let outcome = settle(&log, &what, &what[0], Path::new("d/x"));
            let done = if fails_at == 0 { all.len() } else { fails_at };
            assert_eq!(*log.steps.borrow(), all[..done]);
            assert_eq!(outcome.is_ok(), fails_at == 0, "a step that fails is told");
        }
    }

    #[test]
    fn a_folder_is_synced_with_all_that_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = Scratch::take(&dir.path().join("a")).unwrap();
        scratch.create("records.db").unwrap();
        scratch.create("identity/node.key").unwrap();
        let mut all = Vec::new();
        everything_in(scratch.path(), &mut all).unwrap();
        let place = |name: &str| all.iter().position(|path| path.ends_with(name)).unwrap();
        assert_eq!(all.len(), 3);
        assert!(place("records.db") < all.len() && place("node.key") < place("identity"));
    }

    #[test]
    fn a_file_gets_its_name_when_it_is_whole_and_takes_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("x");
        let names = || {
            let mut names: Vec<_> =
                fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        let mut partial = Partial::begin(&to).unwrap();
        assert!(matches!(Partial::begin(&to), Err(BackupError::Busy(_))));
        partial.write_all(b"half").unwrap();
        assert_eq!(names(), ["x.partial"]);
        drop(partial);
        assert!(names().is_empty(), "what is not kept goes");
        fs::write(dir.path().join("x.partial"), "of a killed command").unwrap();
        let mut partial = Partial::begin(&to).unwrap();
        partial.write_all(b"whole").unwrap();
        assert_eq!(partial.bytes(), 5);
        partial.keep().unwrap();
        assert_eq!((names(), fs::read(&to).unwrap()), (vec!["x".to_owned()], b"whole".to_vec()));
        assert!(matches!(Partial::begin(&to), Err(BackupError::Exists(_))));
        fs::remove_file(&to).unwrap();
        let late = Partial::begin(&to).unwrap();
        fs::write(&to, "somebody else's").unwrap();
        assert!(matches!(late.keep(), Err(BackupError::Exists(_))));
        assert_eq!((names(), fs::read(&to).unwrap()), (vec!["x".to_owned()], b"somebody else's".to_vec()));
        fs::create_dir(dir.path().join("y.partial")).unwrap();
        assert!(matches!(Partial::begin(&dir.path().join("y")), Err(BackupError::InTheWay(_))));
    }

    #[test]
    fn a_folder_of_somebody_else_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.partial");
        let scratch = Scratch::take(&path).unwrap();
        scratch.create("identity/ca.key").unwrap();
        assert!(matches!(Scratch::take(&path), Err(BackupError::Busy(_))));
        std::mem::forget(scratch);
        // The lock of a killed process is gone; that of this one is not.
        assert!(matches!(Scratch::tidy(&path), Err(BackupError::Busy(_))));
        let left = dir.path().join("left");
        fs::create_dir_all(left.join("identity")).unwrap();
        fs::write(left.join("records.db-journal"), "x").unwrap();
        Scratch::tidy(&left).unwrap();
        assert!(!left.exists());
        for name in ["letters.txt", "identity/letters.txt"] {
            fs::create_dir_all(left.join("identity")).unwrap();
            fs::write(left.join(name), "dear").unwrap();
            assert!(matches!(Scratch::take(&left), Err(BackupError::InTheWay(_))));
            assert!(left.join(name).exists());
            fs::remove_file(left.join(name)).unwrap();
        }
        Scratch::tidy(&dir.path().join("nothing")).unwrap();
    }
}
