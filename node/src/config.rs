//! A node's folder and its settings.
//!
//! ```text
//! DIR/config.json     what this file describes; may be edited while the daemon is down
//! DIR/identity/       keys and certificates
//! DIR/store.key       the key of the database, apart from it where an operator wants it so
//! DIR/records.db      the database
//! DIR/tuyend.lock     held by the one daemon of this folder
//! DIR/admin.sock      where the daemon listens for the CLI
//! DIR/backup.partial/ a copy of the database while a backup is being made
//! ```

use std::{
    fs,
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sync_core::{id::OrgPath, identity::Role};

use crate::{budget::Budget, transport::LinkSettings};

/// The name of the settings file.
pub const FILE: &str = "config.json";
/// The name of the database.
pub const DATABASE: &str = "records.db";
/// The name of the database's key.
pub const STORE_KEY: &str = "store.key";
/// The name of the lock file.
pub const LOCK: &str = "tuyend.lock";

/// A folder that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read or written.
    #[error("cannot use {path}: {error}; check the folder, its owner and the disk")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The settings are not what they should be.
    #[error("{path} is damaged ({error}); restore it from a copy, or correct it by hand")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Why.
        error: serde_json::Error,
    },
    /// No settings.
    #[error("{0} is not a node's folder: it has no config.json; make one with `tuyen init` or `tuyen enrol`")]
    NotANode(PathBuf),
    /// There is a node already.
    #[error("{0} already holds a node; choose another folder, or remove it if it is no longer needed")]
    Exists(PathBuf),
}

/// A node's settings.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Config {
    /// Where the node stands.
    pub place: OrgPath,
    /// What it is there.
    pub role: Role,
    /// Where it listens for children (UDP). A leaf listens nowhere.
    pub listen: Option<SocketAddr>,
    /// Where its parent listens: `host:port`. None at the root.
    pub parent: Option<String>,
    /// How the link to the parent is driven.
    #[serde(default)]
    pub link: LinkSettings,
    /// What may be used of it.
    #[serde(default, skip_serializing_if = "Budget::is_default")]
    pub budget: Budget,
    /// Whether syncing is paused.
    #[serde(default)]
    pub paused: bool,
    /// The database's key, when it is not `store.key` in this folder: a systemd credential, for example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_key: Option<PathBuf>,
}

impl Config {
    /// Reads the settings of a folder.
    pub fn load(dir: &Path) -> Result<Self, ConfigError> {
        let path = dir.join(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(ConfigError::NotANode(dir.to_owned()));
            }
            Err(error) => return Err(ConfigError::Io { path, error }),
        };
        serde_json::from_slice(&text).map_err(|error| ConfigError::Damaged { path, error })
    }

    /// Writes the settings: whole and durable, or not at all.
    pub fn save(&self, dir: &Path) -> Result<(), ConfigError> {
        let text = serde_json::to_vec_pretty(self).expect("settings are plain data");
        replace(&dir.join(FILE), &text, 0o644)
    }

    /// Where the database's key is.
    pub fn key_path(&self, dir: &Path) -> PathBuf {
        self.store_key.clone().unwrap_or_else(|| dir.join(STORE_KEY))
    }
}

/// Replaces a file: whole and durable, or not at all.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), ConfigError> {
    use std::os::unix::fs::OpenOptionsExt;
    let io = |error| ConfigError::Io { path: path.to_owned(), error };
    let dir = path.parent().expect("a file in a folder");
    let temporary = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(mode).open(&temporary).map_err(io)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(io)?;
    fs::rename(&temporary, path).map_err(io)?;
    fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(io)
}
