//! Backups: a whole node in one file that only the holder of a private key can read.
//!
//! A backup holds a copy of the store at one moment, its key, the node's keys and certificates, and its settings, in
//! one stream of the age format (<https://age-encryption.org/v1>). What always holds: the machine that makes one cannot
//! read it again; nothing is under its final name before it is whole and durable, and nothing is ever overwritten;
//! what lies on a disk meanwhile is encrypted with the store's key and goes away, at the latest when the node starts or
//! the command runs again; nothing is believed before its hash is compared. Memory is bounded whatever the size of the
//! store. Not here: reading the store (`store`), the socket (`daemon`), when backups are made and where they are kept
//! (the operator's). The file is described in `docs/STORAGE.md`.

mod disk;
mod format;
mod key;
mod make;
mod open;
mod restore;

use std::{io, path::PathBuf};

pub use self::{
    disk::{Partial, Scratch},
    format::{FORMAT, Manifest},
    key::{PrivateKey, Recipients, keygen},
    make::{Made, STORE_COPY, Source, Stopped, make},
    open::{Checked, check_scratch, verify},
    restore::{Restored, restore, restore_scratch},
};
pub(crate) use make::LAST_BACKUP;

use crate::{
    admin::{Failure, FailureKind, Progress},
    store::{CopyError, OpenError},
};

/// Hears how far the work has come; an error ends it.
pub type Step<'a> = dyn FnMut(Progress) -> Result<(), BackupError> + 'a;

/// Why there is no backup, or none that can be used.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file or a folder cannot be used.
    #[error("cannot {doing} {}: {source}; check the folder, its owner and the disk", path.display())]
    Io {
        /// Read, write, …
        doing: &'static str,
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Whoever is to get the backup takes no more of it.
    #[error("the backup cannot be handed over ({0}); make it again")]
    Handing(io::Error),
    /// A file of this name.
    #[error("{} exists already, and nothing is ever overwritten; choose another name", .0.display())]
    Exists(PathBuf),
    /// Another command is at it.
    #[error("another command is working on {}; wait for it, or choose another name", .0.display())]
    Busy(PathBuf),
    /// What is in the way was not left by a command like this one.
    #[error("{} is in the way, and holds what no such command leaves behind; move it away", .0.display())]
    InTheWay(PathBuf),
    /// The copy of the store would fill the disk.
    #[error(
        "the copy of the store takes {} MB in {}, where {} MB are free, and the node itself needs some; make room, and \
         try again", needed >> 20, path.display(), free >> 20
    )]
    NoRoom {
        /// Where.
        path: PathBuf,
        /// Bytes.
        needed: u64,
        /// Bytes.
        free: u64,
    },
    /// A folder that is to become a node.
    #[error("{} is not empty, and a restore needs a new or an empty folder; choose another one", .0.display())]
    NotEmpty(PathBuf),
    /// A folder without a name.
    #[error("{} has no name of its own; name the folder to restore to as in --dir NEW", .0.display())]
    NoName(PathBuf),
    /// The store cannot be copied.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The node's own files are not what they should be.
    #[error("the node in {} is not whole ({what}), and a backup of it would be of no use; mend it first", dir.display())]
    NotWhole {
        /// The folder.
        dir: PathBuf,
        /// What is missing.
        what: String,
    },
    /// It was interrupted.
    #[error("the daemon stops, and the backup is left off; start it and make the backup again")]
    Stopped,
    /// Not a public key.
    #[error(
        "{0} is no public key for backups: it begins with age1, and `tuyen backup keygen` prints it; copy it whole"
    )]
    Recipient(String),
    /// A file without a private key.
    #[error(
        "{} holds no private key for backups, which is a line that begins with AGE-SECRET-KEY-1; give the file that \
         `tuyen backup keygen` made", .0.display()
    )]
    NotAKey(PathBuf),
    /// A private key that others can read.
    #[error(
        "{} can be read by other users of this machine (mode {mode:03o}); run `chmod 600` on it, or, where the disk knows \
         no such modes, give the key through standard input with `--key -`", path.display()
    )]
    KeyIsOpen {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Another kind of file.
    #[error("{} is no backup of a Tuyến node; check the name", .0.display())]
    NotABackup(PathBuf),
    /// Encrypted to somebody else.
    #[error(
        "{} was not made for the key in {}; use the private key whose public key was given to `backup create --to`. If \
         that is this one, the beginning of the file is damaged: use another copy", file.display(), key.display()
    )]
    WrongKey {
        /// The backup.
        file: PathBuf,
        /// The file with the key.
        key: PathBuf,
    },
    /// Its end is missing.
    #[error(
        "{} is cut off: it has {has} bytes{}; copy it again from where it was made, or use another backup",
        path.display(), wants.map_or(String::new(), |wants| format!(" of {wants}"))
    )]
    CutOff {
        /// The backup.
        path: PathBuf,
        /// Bytes.
        has: u64,
        /// Bytes, if that much can be read.
        wants: Option<u64>,
    },
    /// It is not as it was made.
    #[error("{} is damaged: {what}; use another copy of it, or another backup", path.display())]
    Damaged {
        /// The backup.
        path: PathBuf,
        /// What.
        what: String,
    },
    /// Made by a newer program.
    #[error(
        "{} has backup format {found}, and this program knows formats up to {FORMAT}; install the version of Tuyến that \
         made it, or a newer one", path.display()
    )]
    Newer {
        /// The backup.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The store in it does not open.
    #[error("the store in {} cannot be used: {source}", path.display())]
    Store {
        /// The backup.
        path: PathBuf,
        /// Why.
        source: OpenError,
    },
    /// The store in it is not sound.
    #[error(
        "{} is whole, but the store in it is damaged, and was when the backup was made ({count} findings; the first: \
         {first}); use an older backup", path.display()
    )]
    Unsound {
        /// The backup.
        path: PathBuf,
        /// How many findings.
        count: u64,
        /// One of them.
        first: String,
    },
}

impl BackupError {
    /// What kind of failure it is, which is also the exit code.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Copy(CopyError::Open(error)) | Self::Store { source: error, .. }
                if error.is_of_surroundings() =>
            {
                FailureKind::Failed
            }
            Self::Copy(CopyError::Stopped | CopyError::Sqlite { of_surroundings: true, .. }) => {
                FailureKind::Failed
            }
            Self::Exists(_)
            | Self::NotEmpty(_)
            | Self::NoName(_)
            | Self::InTheWay(_)
            | Self::Recipient(_)
            | Self::NotAKey(_)
            | Self::KeyIsOpen { .. }
            | Self::NotABackup(_)
            | Self::WrongKey { .. } => FailureKind::Usage,
            Self::Copy(_)
            | Self::NotWhole { .. }
            | Self::CutOff { .. }
            | Self::Damaged { .. }
            | Self::Store { .. }
            | Self::Unsound { .. } => FailureKind::Integrity,
            Self::Io { .. }
            | Self::Handing(_)
            | Self::Busy(_)
            | Self::NoRoom { .. }
            | Self::Stopped
            | Self::Newer { .. } => FailureKind::Failed,
        }
    }
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        Failure::new(error.kind(), error.to_string())
    }
}

/// Tells how far the work has come.
fn tell(step: &mut Step<'_>, what: &str, done: u64, total: u64) -> Result<(), BackupError> {
    step(Progress { what: what.to_owned(), done, total: Some(total) })
}
