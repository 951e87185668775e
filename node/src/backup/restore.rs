//! From a backup to a node's folder.
//!
//! What always holds: the folder gets its name when everything in the backup has been checked and is durable, and only
//! where there was nothing or an empty folder; nobody else may open it or a file in it. The node in it is the one that
//! was backed up, as it was; that a process which starts writes under a new name is what makes a restore an ordinary
//! case for its neighbours (`sync_core`). The database's key lies in the folder, wherever it lay before.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::{
    BackupError, Manifest, PrivateKey, Scratch, Step,
    disk::{PARTIAL, beside},
    open::Opened,
};
use crate::config::{Config, FILE};

/// A node's folder that was made from a backup.
#[derive(Debug, Clone)]
pub struct Restored {
    /// What the backup says of itself.
    pub manifest: Manifest,
    /// The settings.
    pub config: Config,
    /// Where the key of the database lay at the old machine, when that was not in the folder.
    pub key_was_at: Option<PathBuf>,
}

/// Where a folder of this name is made, if it may be.
pub fn restore_scratch(dir: &Path) -> Result<PathBuf, BackupError> {
    let name = dir.file_name().ok_or_else(|| BackupError::NoName(dir.to_owned()))?;
    let there = fs::read_dir(dir).map(|mut entries| entries.next().is_some());
    match there {
        Ok(false) => {}
        Ok(true) => return Err(BackupError::NotEmpty(dir.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(BackupError::Io { doing: "look at", path: dir.to_owned(), source }),
    }
    Ok(beside(&dir.with_file_name(name), PARTIAL))
}

/// Makes a node's folder from a backup.
pub fn restore(
    file: &Path,
    key: &PrivateKey,
    scratch: Scratch,
    dir: &Path,
    step: &mut Step<'_>,
) -> Result<Restored, BackupError> {
    let unpacked = Opened::new(file, key)?.unpack(&scratch, step)?;
    unpacked.check_store(file, &scratch, step)?;
    let mut config = unpacked.config.clone();
    let key_was_at = config.store_key.take();
    for (name, content) in &unpacked.small {
        let settings;
        let content = if name == FILE && key_was_at.is_some() {
            settings = without_key_path(content);
            &settings
        } else {
            content
        };
        let io = |source| BackupError::Io { doing: "write", path: scratch.path().join(name), source };
        scratch.create(name)?.write_all(content).map_err(io)?;
    }
    scratch.keep(dir)?;
    Ok(Restored { manifest: unpacked.manifest, config, key_was_at })
}

/// The settings as they are, what a newer program has put there too, but for where the database's key is.
fn without_key_path(settings: &[u8]) -> Vec<u8> {
    let mut value: serde_json::Value = serde_json::from_slice(settings).expect("they were read before");
    if let Some(settings) = value.as_object_mut() {
        settings.shift_remove("store_key");
    }
    serde_json::to_vec_pretty(&value).expect("JSON can be written")
}
