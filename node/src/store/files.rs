//! The file system under a store: the few steps that the store makes itself, beside those of SQLite.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use super::key::PRIVATE;

/// Bytes of a file that are in memory at a time.
const PIECE_BYTES: usize = 1 << 20;

/// A file system that a store can lie on.
pub trait FileSystem {
    /// The name of the SQLite VFS that reads and writes its files.
    fn vfs(&self) -> &str;
    /// Whether there is a file of this name.
    fn exists(&self, path: &Path) -> bool;
    /// Reads from this place of a file on, and returns how many bytes there were: fewer only at its end.
    fn read_at(&self, path: &Path, at: u64, into: &mut [u8]) -> io::Result<usize>;
    /// Makes an empty file that only its owner may read. It must not exist.
    fn create_private(&self, path: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Gives a file another name, in the place of a file that may have it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Copies a file to a new one that only its owner may read, and makes its bytes durable.
    fn copy(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Writes every byte of a file again, cuts it off at this length if one is given, and makes that durable. Nothing
    /// when there is no file. It is read twice, so that a bit that flips on the way is not written back: see [`same`].
    fn rewrite(&self, path: &Path, cut: Option<u64>) -> io::Result<()>;
    /// Makes the entry of a file in its directory durable.
    fn sync_parent(&self, path: &Path) -> io::Result<()>;
}

/// The file system of the machine.
#[derive(Debug, Clone, Copy)]
pub struct SystemFiles;

impl FileSystem for SystemFiles {
    fn vfs(&self) -> &str {
        "unix"
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn read_at(&self, path: &Path, at: u64, into: &mut [u8]) -> io::Result<usize> {
        let (file, mut there) = (File::open(path)?, 0);
        while there < into.len() {
            match file.read_at(&mut into[there..], at + there as u64) {
                Ok(0) => break,
                Ok(read) => there += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(there)
    }

    fn create_private(&self, path: &Path) -> io::Result<()> {
        OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(path).map(drop)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut copy = OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(to)?;
        io::copy(&mut File::open(from)?, &mut copy)?;
        copy.sync_all()
    }

    fn rewrite(&self, path: &Path, cut: Option<u64>) -> io::Result<()> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        let (mut piece, mut again, mut at) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES], 0);
        loop {
            let read = file.read_at(&mut piece, at)?;
            if read == 0 {
                break;
            }
            file.read_exact_at(&mut again[..read], at)?;
            same(&piece[..read], &again[..read])?;
            file.write_all_at(&piece[..read], at)?;
            at += read as u64;
        }
        if let Some(length) = cut.filter(|length| *length < at) {
            file.set_len(length)?;
        }
        file.sync_all()
    }

    fn sync_parent(&self, path: &Path) -> io::Result<()> {
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent)?.sync_all()
    }
}

/// An error unless what was read twice is the same.
pub fn same(first: &[u8], second: &[u8]) -> io::Result<()> {
    if first == second { Ok(()) } else { Err(io::Error::other("it reads otherwise the second time")) }
}

/// A file that is read from its beginning to its end.
pub(super) struct Reading<'a> {
    files: &'a dyn FileSystem,
    path: &'a Path,
    at: u64,
}

impl<'a> Reading<'a> {
    pub fn of(files: &'a dyn FileSystem, path: &'a Path) -> io::BufReader<Self> {
        io::BufReader::with_capacity(PIECE_BYTES, Self { files, path, at: 0 })
    }
}

impl io::Read for Reading<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.files.read_at(self.path, self.at, into)?;
        self.at += read as u64;
        Ok(read)
    }
}
