//! The key of the store: 32 random bytes in a file of its own, outside of the database.
//!
//! What always holds: the key never shows in an error or in debug output, and a key file that other people can
//! read is refused. It is a raw key, not a passphrase: nothing has to be derived, so opening takes 0.1 ms
//! instead of 0.12 s, and there is nothing to guess.

use std::{
    fmt,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER_PERMISSIVE;

use super::files::{FileSystem, SystemFiles};

/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// Owner may read and write, nobody else anything.
pub(super) const PRIVATE: u32 = 0o600;
/// Set by systemd for a service that is given credentials.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// The store's key.
pub struct Key([u8; KEY_BYTES]);

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("the key file {path} cannot be used: {source}. Put the store's key there, or correct the path", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is already there.
    #[error("the key file {} exists already, and a key is never overwritten: without it the store it belongs to is lost", .0.display())]
    Exists(PathBuf),
    /// Other people may read the file.
    #[error("the key file {path} may be read by other people (mode {mode:03o}). Run: chmod 600 {path}", path = .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file holds something else.
    #[error("the key file {} does not hold a key, which is 64 hexadecimal digits. Restore it from where you keep a copy", .0.display())]
    Malformed(PathBuf),
    /// The system gave no random numbers.
    #[error("the system gives no random numbers for a new key: {0}")]
    Random(String),
}

impl Key {
    /// A key from its bytes.
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// A new random key.
    pub fn generate() -> Result<Self, KeyError> {
        let mut key = Self([0; KEY_BYTES]);
        getrandom::fill(&mut key.0).map_err(|e| KeyError::Random(e.to_string()))?;
        Ok(key)
    }

    /// Writes the key to a new file that only its owner may read, and makes it durable. The file is whole or absent.
    pub fn create(&self, path: &Path) -> Result<(), KeyError> {
        let io = |source: io::Error| match source.kind() {
            io::ErrorKind::AlreadyExists => KeyError::Exists(path.to_owned()),
            _ => KeyError::Io { path: path.to_owned(), source },
        };
        if path.exists() {
            return Err(KeyError::Exists(path.to_owned()));
        }
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        // One that a killed process has left protects nothing.
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(&beside).map_err(io)?;
        let text = self.to_text();
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(io)?;
        wipe(text);
        fs::rename(&beside, path).map_err(io)?;
        SystemFiles.sync_parent(path).map_err(io)
    }

    /// Reads a key file: 64 hexadecimal digits and a line end.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let io = |source| KeyError::Io { path: path.to_owned(), source };
        let mode = fs::metadata(path).map_err(io)?.permissions().mode() & 0o777;
        if mode & foreign_bits(path) != 0 {
            return Err(KeyError::Open { path: path.to_owned(), mode });
        }
        let text = fs::read(path).map_err(io)?;
        let key = Self::from_text(&text);
        wipe(text);
        key.ok_or_else(|| KeyError::Malformed(path.to_owned()))
    }

    /// A key from what a key file holds; none when that is something else.
    pub(crate) fn from_text(text: &[u8]) -> Option<Self> {
        let bytes = HEXLOWER_PERMISSIVE.decode(text.trim_ascii()).unwrap_or_default();
        let key = <[u8; KEY_BYTES]>::try_from(bytes.as_slice()).map(Self);
        wipe(bytes);
        key.ok()
    }

    /// What a key file holds.
    pub(crate) fn to_text(&self) -> Vec<u8> {
        (self.hex() + "\n").into_bytes()
    }

    pub(super) fn hex(&self) -> String {
        HEXLOWER_PERMISSIVE.encode(&self.0)
    }
}

/// The permission bits that a key file must not have. systemd hands a credential over by an access list, which
/// shows as the group's right to read.
fn foreign_bits(path: &Path) -> u32 {
    let credential = std::env::var_os(CREDENTIALS).is_some_and(|dir| path.starts_with(dir));
    if credential { 0o037 } else { 0o077 }
}

/// Overwrites a copy of the key before its memory is given back.
pub(super) fn wipe(mut bytes: Vec<u8>) {
    bytes.fill(0);
    std::hint::black_box(&bytes);
}

impl Drop for Key {
    fn drop(&mut self) {
        self.0.fill(0);
        std::hint::black_box(&self.0);
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_round_trips_and_must_be_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.key");
        let key = Key::generate().unwrap();
        // What a process has left that was killed while it wrote is no key, and in nobody's way.
        fs::write(dir.path().join("store.key.new"), "0123").unwrap();
        key.create(&path).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, PRIVATE);
        assert_eq!(Key::read(&path).unwrap().0, key.0);
        assert!(matches!(key.create(&path), Err(KeyError::Exists(_))));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Key::read(&path), Err(KeyError::Open { mode: 0o640, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(PRIVATE)).unwrap();
        fs::write(&path, "abc").unwrap();
        let error = Key::read(&path).unwrap_err();
        assert!(matches!(error, KeyError::Malformed(_)) && !error.to_string().contains("abc"));
        assert_eq!(format!("{key:?}"), "Key(not shown)");
    }
}
