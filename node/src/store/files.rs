//! The file system under a store: the few steps that the store makes itself, beside those of SQLite.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use super::key::PRIVATE;

/// Bytes that are written again at a time.
const REWRITE_BYTES: usize = 1 << 20;

/// A file system that a store can lie on.
pub trait FileSystem {
    /// The name of the SQLite VFS that reads and writes its files.
    fn vfs(&self) -> &str;
    /// Whether there is a file of this name.
    fn exists(&self, path: &Path) -> bool;
    /// The first bytes of a file, at most this many.
    fn start_of(&self, path: &Path, bytes: u64) -> io::Result<Vec<u8>>;
    /// Makes an empty file that only its owner may read. It must not exist.
    fn create_private(&self, path: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Gives a file another name, in the place of a file that may have it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Writes every byte of a file again, and makes them durable. Nothing when there is no file.
    fn rewrite(&self, path: &Path) -> io::Result<()>;
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

    fn start_of(&self, path: &Path, bytes: u64) -> io::Result<Vec<u8>> {
        let mut start = Vec::new();
        File::open(path)?.take(bytes).read_to_end(&mut start)?;
        Ok(start)
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

    fn rewrite(&self, path: &Path) -> io::Result<()> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        let (mut piece, mut at) = (vec![0; REWRITE_BYTES], 0);
        loop {
            let read = file.read_at(&mut piece, at)?;
            if read == 0 {
                return file.sync_all();
            }
            file.write_all_at(&piece[..read], at)?;
            at += read as u64;
        }
    }

    fn sync_parent(&self, path: &Path) -> io::Result<()> {
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent)?.sync_all()
    }
}
