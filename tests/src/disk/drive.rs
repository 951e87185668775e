//! A drive: an SQLite VFS of which the disk can be changed, and what SQLite's unix VFS does between the two.

use std::{
    io,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use node::store::{FileSystem, same};
use rusqlite::ffi;

use super::{
    medium::{Disk, Inode, Refused, Shared, Temper},
    vfs,
};

/// Bytes of a region of shared memory, as SQLite asks for them.
const REGION_BYTES: usize = 32_768;

/// A result of SQLite that is not SQLITE_OK.
pub(super) type Code = i32;

/// The place of a disk. A VFS cannot be taken back while a connection may use it, so slots are never freed.
pub(super) type Slot = Mutex<Arc<Mutex<Disk>>>;

/// A VFS, and the disk that is in it.
pub struct Drive {
    name: String,
    slot: &'static Slot,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The name of a file without its directory: there is only one.
pub(super) fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

impl Default for Drive {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let empty = Disk::new(Temper { sector: 512, journalled: true, lies: false }, 0);
        let slot = Box::leak(Box::new(Mutex::new(Arc::new(Mutex::new(empty)))));
        let name = format!("crash-disk-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        vfs::register(&name, slot);
        Self { name, slot }
    }
}

impl Drive {
    /// Puts a disk into the drive. No connection may be open.
    pub fn insert(&self, disk: Disk) {
        *lock(self.slot) = Arc::new(Mutex::new(disk));
    }

    /// Does something with the disk.
    pub fn with<T>(&self, work: impl FnOnce(&mut Disk) -> T) -> T {
        let disk = lock(self.slot).clone();
        let mut disk = lock(&disk);
        work(&mut disk)
    }

    /// Ends the process that has these things open: nothing that dropping them does has an effect. Then a new process
    /// begins, with the page cache as it was.
    pub fn kill<T>(&self, open: T) {
        self.with(Disk::kill);
        drop(open);
        self.with(Disk::begin_process);
    }
}

fn name_of(path: &Path) -> &str {
    file_name(path.to_str().unwrap_or_default())
}

impl FileSystem for Drive {
    fn vfs(&self) -> &str {
        &self.name
    }

    fn exists(&self, path: &Path) -> bool {
        // As std does: an error is no file.
        self.with(|disk| disk.exists(name_of(path))).unwrap_or(false)
    }

    fn read_at(&self, path: &Path, at: u64, into: &mut [u8]) -> io::Result<usize> {
        self.with(|disk| {
            let file = disk.open(name_of(path), false)?;
            Ok(disk.read(file, at as usize, into)?)
        })
    }

    fn create_private(&self, path: &Path) -> io::Result<()> {
        self.with(|disk| {
            if disk.exists(name_of(path))? {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            disk.open(name_of(path), true)?;
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        Ok(self.with(|disk| disk.remove(name_of(path)))?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(self.with(|disk| disk.rename(name_of(from), name_of(to)))?)
    }

    fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.create_private(to)?;
        self.with(|disk| {
            let (from, to) = (disk.open(name_of(from), false)?, disk.open(name_of(to), false)?);
            let mut bytes = vec![0; disk.size(from)?];
            disk.read(from, 0, &mut bytes)?;
            disk.write(to, 0, &bytes)?;
            Ok(disk.sync(to)?)
        })
    }

    fn rewrite(&self, path: &Path, cut: Option<u64>) -> io::Result<()> {
        self.with(|disk| {
            let file = match disk.open(name_of(path), false) {
                Err(Refused::Missing) => return Ok(()),
                opened => opened?,
            };
            let mut bytes = vec![0; disk.size(file)?];
            if !bytes.is_empty() {
                disk.read(file, 0, &mut bytes)?;
                let mut again = vec![0; bytes.len()];
                disk.read(file, 0, &mut again)?;
                same(&bytes, &again)?;
                disk.write(file, 0, &bytes)?;
            }
            if let Some(length) = cut.filter(|length| *length < bytes.len() as u64) {
                disk.truncate(file, length as usize)?;
            }
            Ok(disk.sync(file)?)
        })
    }

    fn sync_parent(&self, _path: &Path) -> io::Result<()> {
        Ok(self.with(Disk::sync_directory)?)
    }
}

/// What becomes of a PRAGMA.
pub(super) enum Setting {
    /// SQLite sees to it.
    Pass,
    /// Nothing is done, and no error is told.
    Swallow,
    /// SQLite is given this value in the place of the one that was asked for.
    Replace(&'static str),
}

/// An open file of a connection.
pub(super) struct Handle {
    disk: Arc<Mutex<Disk>>,
    file: Inode,
    /// The process that opened it.
    process: u64,
    level: i32,
    /// The first sync has to sync the directory too, as the file may be new.
    sync_directory: bool,
    remove_at_close: Option<String>,
    shared: Option<Arc<Mutex<Shared>>>,
    holds_shared: u8,
    holds_alone: u8,
}

impl Handle {
    /// Opens a file with the flags of xOpen. A file without a name is a temporary one.
    pub fn open(slot: &Slot, name: Option<&str>, flags: i32) -> Result<Self, Code> {
        let disk = lock(slot).clone();
        let mut held = lock(&disk);
        let make = flags & ffi::SQLITE_OPEN_CREATE != 0;
        let name = name.map_or_else(|| "temporary".to_owned(), |name| file_name(name).to_owned());
        let file = held.open(&name, make).map_err(|refused| match refused {
            Refused::Full => ffi::SQLITE_FULL,
            _ => ffi::SQLITE_CANTOPEN,
        })?;
        let journals = ffi::SQLITE_OPEN_WAL | ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_SUPER_JOURNAL;
        let handle = Self {
            file,
            process: held.process(),
            level: ffi::SQLITE_LOCK_NONE,
            sync_directory: make && flags & journals != 0,
            remove_at_close: (flags & ffi::SQLITE_OPEN_DELETEONCLOSE != 0).then_some(name),
            shared: None,
            holds_shared: 0,
            holds_alone: 0,
            disk: disk.clone(),
        };
        drop(held);
        Ok(handle)
    }

    fn with<T>(
        &self,
        error: Code,
        work: impl FnOnce(&mut Disk, Inode) -> Result<T, Refused>,
    ) -> Result<T, Code> {
        let mut disk = lock(&self.disk);
        if !disk.is_alive(self.process) {
            return Err(error);
        }
        work(&mut disk, self.file).map_err(|refused| match refused {
            Refused::Full => ffi::SQLITE_FULL,
            _ => error,
        })
    }

    pub fn close(&mut self) {
        let _ = self.unlock(ffi::SQLITE_LOCK_NONE);
        self.unmap();
        if let Some(name) = self.remove_at_close.take() {
            // Nobody hears of it, as with the unix VFS.
            let _ = self.with(ffi::SQLITE_IOERR_DELETE, |disk, _| disk.remove(&name));
        }
    }

    pub fn read(&self, at: usize, into: &mut [u8]) -> Result<(), Code> {
        let there = self.with(ffi::SQLITE_IOERR_READ, |disk, file| disk.read(file, at, into))?;
        if there < into.len() { Err(ffi::SQLITE_IOERR_SHORT_READ) } else { Ok(()) }
    }

    pub fn write(&self, at: usize, bytes: &[u8]) -> Result<(), Code> {
        self.with(ffi::SQLITE_IOERR_WRITE, |disk, file| disk.write(file, at, bytes))
    }

    pub fn truncate(&self, length: usize) -> Result<(), Code> {
        self.with(ffi::SQLITE_IOERR_TRUNCATE, |disk, file| disk.truncate(file, length))
    }

    /// Syncs the file, and once the directory of a new journal. As the unix VFS does, an error of the latter is not
    /// told.
    pub fn sync(&mut self) -> Result<(), Code> {
        self.with(ffi::SQLITE_IOERR_FSYNC, Disk::sync)?;
        if std::mem::take(&mut self.sync_directory) {
            let _ = self.with(ffi::SQLITE_IOERR_DIR_FSYNC, |disk, _| disk.sync_directory());
        }
        Ok(())
    }

    pub fn size(&self) -> Result<usize, Code> {
        self.with(ffi::SQLITE_IOERR_FSTAT, Disk::size)
    }

    /// The locks of SQLite's documentation on locking, between the connections of this process.
    pub fn lock(&mut self, level: i32) -> Result<(), Code> {
        if self.level >= level {
            return Ok(());
        }
        let mut disk = lock(&self.disk);
        if !disk.is_alive(self.process) {
            return Err(ffi::SQLITE_IOERR_LOCK);
        }
        let locks = disk.locks.entry(self.file).or_default();
        if level == ffi::SQLITE_LOCK_SHARED {
            if locks.pending || locks.exclusive {
                return Err(ffi::SQLITE_BUSY);
            }
            locks.shared += 1;
            self.level = level;
            return Ok(());
        }
        if self.level < ffi::SQLITE_LOCK_RESERVED {
            if locks.reserved {
                return Err(ffi::SQLITE_BUSY);
            }
            locks.reserved = true;
            self.level = ffi::SQLITE_LOCK_RESERVED;
        }
        if level == ffi::SQLITE_LOCK_RESERVED {
            return Ok(());
        }
        locks.pending = true;
        self.level = ffi::SQLITE_LOCK_PENDING;
        if locks.shared > 1 {
            return Err(ffi::SQLITE_BUSY);
        }
        locks.exclusive = true;
        self.level = ffi::SQLITE_LOCK_EXCLUSIVE;
        Ok(())
    }

    pub fn unlock(&mut self, level: i32) -> Result<(), Code> {
        if self.level <= level {
            return Ok(());
        }
        let mut disk = lock(&self.disk);
        if disk.is_alive(self.process) {
            let locks = disk.locks.entry(self.file).or_default();
            if self.level >= ffi::SQLITE_LOCK_RESERVED {
                (locks.reserved, locks.pending, locks.exclusive) = (false, false, false);
            }
            if level == ffi::SQLITE_LOCK_NONE {
                locks.shared -= 1;
            }
        }
        drop(disk);
        self.level = level;
        Ok(())
    }

    pub fn is_reserved(&self) -> bool {
        lock(&self.disk).locks.get(&self.file).is_some_and(|locks| locks.reserved)
    }

    /// A region of the memory that all connections to the file share; none when it does not exist.
    pub fn map(&mut self, region: usize, bytes: usize, make: bool) -> Result<Option<*mut u8>, Code> {
        if bytes != REGION_BYTES {
            return Err(ffi::SQLITE_IOERR_SHMMAP);
        }
        let shared = self.with(ffi::SQLITE_IOERR_SHMMAP, Disk::map)?;
        let mut held = lock(&shared);
        while make && held.regions.len() <= region {
            held.regions.push((0..bytes / 8).map(|_| AtomicU64::new(0)).collect());
        }
        let at = held.regions.get(region).map(|region| region.as_ptr().cast_mut().cast());
        drop(held);
        self.shared = Some(shared);
        Ok(at)
    }

    /// The locks on the shared memory.
    pub fn lock_shared(&mut self, first: usize, count: usize, flags: i32) -> Result<(), Code> {
        let Some(shared) = &self.shared else { return Err(ffi::SQLITE_IOERR_SHMLOCK) };
        let mut shared = lock(shared);
        let all = first..first + count;
        if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
            for n in all {
                let bit = 1 << n;
                if self.holds_alone & bit != 0 {
                    shared.locks[n] = 0;
                } else if self.holds_shared & bit != 0 {
                    shared.locks[n] -= 1;
                }
                self.holds_alone &= !bit;
                self.holds_shared &= !bit;
            }
        } else if flags & ffi::SQLITE_SHM_SHARED != 0 {
            let bit = 1 << first;
            if self.holds_shared & bit == 0 {
                if shared.locks[first] < 0 {
                    return Err(ffi::SQLITE_BUSY);
                }
                shared.locks[first] += 1;
                self.holds_shared |= bit;
            }
        } else {
            if all.clone().any(|n| shared.locks[n] != 0 && self.holds_alone & (1 << n) == 0) {
                return Err(ffi::SQLITE_BUSY);
            }
            for n in all {
                shared.locks[n] = -1;
                self.holds_alone |= 1 << n;
            }
        }
        Ok(())
    }

    pub fn unmap(&mut self) {
        if self.shared.is_some() {
            let _ = self.lock_shared(0, 8, ffi::SQLITE_SHM_UNLOCK);
            self.shared = None;
        }
    }

    /// What is to become of a PRAGMA with a value.
    pub fn setting(&self, name: &str) -> Setting {
        let disk = lock(&self.disk);
        match disk.setting_fault().filter(|fault| fault.name.eq_ignore_ascii_case(name)) {
            None => Setting::Pass,
            Some(fault) => fault.value.map_or(Setting::Swallow, Setting::Replace),
        }
    }
}

/// Removes a file, and syncs the directory if that is asked for.
pub(super) fn remove(slot: &Slot, name: &str, sync_directory: bool) -> Result<(), Code> {
    let disk = lock(slot).clone();
    let mut disk = lock(&disk);
    disk.remove(file_name(name)).map_err(|refused| match refused {
        Refused::Missing => ffi::SQLITE_IOERR_DELETE_NOENT,
        _ => ffi::SQLITE_IOERR_DELETE,
    })?;
    if sync_directory {
        disk.sync_directory().map_err(|_| ffi::SQLITE_IOERR_DIR_FSYNC)?;
    }
    Ok(())
}

/// Whether there is a file that holds something, as the unix VFS sees it.
pub(super) fn exists(slot: &Slot, name: &str) -> Result<bool, Code> {
    let disk = lock(slot).clone();
    let mut disk = lock(&disk);
    let there = disk.exists(file_name(name)).map_err(|_| ffi::SQLITE_IOERR_ACCESS)?;
    Ok(there && disk.length_of(file_name(name)) > Some(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_handles() -> (Handle, Handle) {
        let drive = Drive::default();
        let open = || Handle::open(drive.slot, Some("/a"), ffi::SQLITE_OPEN_CREATE).unwrap();
        (open(), open())
    }

    #[test]
    fn one_writes_when_nobody_reads() {
        let (mut one, mut two) = two_handles();
        one.lock(ffi::SQLITE_LOCK_SHARED).unwrap();
        two.lock(ffi::SQLITE_LOCK_SHARED).unwrap();
        one.lock(ffi::SQLITE_LOCK_RESERVED).unwrap();
        assert!(two.is_reserved());
        assert_eq!(two.lock(ffi::SQLITE_LOCK_RESERVED), Err(ffi::SQLITE_BUSY));
        assert_eq!(one.lock(ffi::SQLITE_LOCK_EXCLUSIVE), Err(ffi::SQLITE_BUSY));
        two.unlock(ffi::SQLITE_LOCK_NONE).unwrap();
        assert_eq!(two.lock(ffi::SQLITE_LOCK_SHARED), Err(ffi::SQLITE_BUSY), "one waits to write");
        one.lock(ffi::SQLITE_LOCK_EXCLUSIVE).unwrap();
        one.unlock(ffi::SQLITE_LOCK_SHARED).unwrap();
        two.lock(ffi::SQLITE_LOCK_SHARED).unwrap();
    }

    #[test]
    fn shared_memory_is_shared_and_locked() {
        let (mut one, mut two) = two_handles();
        assert_eq!(one.map(0, REGION_BYTES, false), Ok(None));
        let region = one.map(0, REGION_BYTES, true).unwrap();
        assert!(region.is_some() && two.map(0, REGION_BYTES, false).unwrap() == region);
        let (shared, alone) = (ffi::SQLITE_SHM_SHARED, ffi::SQLITE_SHM_EXCLUSIVE);
        one.lock_shared(3, 1, ffi::SQLITE_SHM_LOCK | shared).unwrap();
        two.lock_shared(3, 1, ffi::SQLITE_SHM_LOCK | shared).unwrap();
        assert_eq!(two.lock_shared(2, 3, ffi::SQLITE_SHM_LOCK | alone), Err(ffi::SQLITE_BUSY));
        one.unmap();
        two.lock_shared(3, 1, ffi::SQLITE_SHM_UNLOCK | shared).unwrap();
        two.lock_shared(2, 3, ffi::SQLITE_SHM_LOCK | alone).unwrap();
    }

    #[test]
    fn what_a_dead_process_has_open_is_of_no_use() {
        let drive = Drive::default();
        let handle = Handle::open(drive.slot, Some("/a"), ffi::SQLITE_OPEN_CREATE).unwrap();
        handle.write(0, b"kept").unwrap();
        drive.with(Disk::kill);
        drive.with(Disk::begin_process);
        assert_eq!(handle.write(0, b"late"), Err(ffi::SQLITE_IOERR_WRITE));
        let mut read = [0; 10];
        assert_eq!(drive.read_at(Path::new("/a"), 0, &mut read).unwrap(), 4);
        assert_eq!(&read[..4], b"kept");
    }
}
