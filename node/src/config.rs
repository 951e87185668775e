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
use sync_core::{
    id::{OrgId, OrgPath, RecordId, Secrecy},
    identity::Role,
    scope::{Profiles, Way},
};

use crate::{
    budget::Budget,
    fhir::types::is_type,
    transport::{KEEP_ALIVE_SECONDS, LinkSettings},
};

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
    #[error("{path} cannot be used ({error}); correct it by hand, or restore it from a copy")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Why.
        error: serde_json::Error,
    },
    /// A decision that says too little, or the same as another.
    #[error("{path} has {what} that {problem}; correct it, and start again. Until then nothing starts")]
    Decision {
        /// Which file.
        path: PathBuf,
        /// The profile or the policy.
        what: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// No settings.
    #[error("{0} is not a node's folder: it has no config.json; make one with `tuyen init` or `tuyen enrol`")]
    NotANode(PathBuf),
    /// There is a node already.
    #[error("{0} already holds a node; choose another folder")]
    Exists(PathBuf),
}

/// A node's settings.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the node stands.
    pub place: OrgPath,
    /// What it is there.
    pub role: Role,
    /// Where it listens for children (UDP). A leaf listens nowhere.
    pub listen: Option<SocketAddr>,
    /// Where its parent listens: `host:port`. None at the root.
    pub parent: Option<String>,
    /// Where the parent listened before an order of the root named another one that has not answered yet. It is dialled now and
    /// then, because an order that corrects the address comes from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_before: Option<String>,
    /// How the link to the parent is driven.
    #[serde(default)]
    pub link: LinkSettings,
    /// What may be used of it.
    #[serde(default, skip_serializing_if = "Budget::is_default")]
    pub budget: Budget,
    /// A leaf fetches attachments up to so many bytes by itself; others when somebody asks for them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub fetch_attachments_up_to: u64,
    /// To whom what is secret may go, and from whom it may come. Nobody is named: nothing secret leaves, and none is taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<Profile>,
    /// What is secret when it is written here, whatever it says of itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<Policy>,
    /// Whether syncing is paused.
    #[serde(default)]
    pub paused: bool,
    /// The database's key, when it is not `store.key` in this folder: a systemd credential, for example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_key: Option<PathBuf>,
}

fn is_zero(bytes: &u64) -> bool {
    *bytes == 0
}

/// Somebody who answers for it has decided that what is secret may go to a neighbour, and come from it: over an isolated network,
/// say, or with a courier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The neighbour: the parent, or a child.
    pub with: OrgId,
    /// `link` or `courier`.
    pub by: Way,
    /// The highest degree: `mat`, `toi-mat` or `tuyet-mat`.
    pub up_to: Secrecy,
    /// Who has decided so: a name and an office.
    pub decided_by: String,
    /// Why, and by which paper.
    pub why: String,
}

/// Somebody who answers for it has decided that what is written here of some kind is secret, so that it goes no further than the
/// profiles of the links allow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Resource types (`Condition`), patients (`Patient/8f21`: all that is about them), or `*` for everything.
    pub of: Vec<String>,
    /// At least how secret it is: `mat`, `toi-mat` or `tuyet-mat`.
    pub is: Secrecy,
    /// Who has decided so: a name and an office.
    pub decided_by: String,
    /// Why, and by which paper.
    pub why: String,
}

impl Policy {
    fn speaks_of(&self, record: &RecordId, patients: &[RecordId]) -> bool {
        self.of.iter().any(|of| {
            of == "*" || of == record.resource_type() || patients.iter().any(|patient| patient.as_str() == of)
        })
    }

    /// What is wrong with it, and where.
    fn problem(&self) -> Option<(&str, &'static str)> {
        let is_patient =
            |of: &str| of.parse().is_ok_and(|record: RecordId| record.resource_type() == "Patient");
        let is_nothing = |of: &&String| *of != "*" && !is_type(of) && !is_patient(of);
        let whole = match self.is {
            _ if self.of.is_empty() => Some("does not say of what it speaks"),
            Secrecy::None => Some("makes nothing secret"),
            _ => unanswered(&self.decided_by, &self.why),
        };
        let first = self.of.first().map_or("", String::as_str);
        let of = self.of.iter().find(is_nothing).map(|of| {
            (of.as_str(), "is neither a resource type of FHIR R4, nor a patient (Patient/8f21), nor *")
        });
        whole.map(|problem| (first, problem)).or(of)
    }
}

/// Why nobody answers for a decision.
fn unanswered(decided_by: &str, why: &str) -> Option<&'static str> {
    match (decided_by.trim(), why.trim()) {
        ("", _) => Some("does not name who decided it"),
        (_, "") => Some("does not say why"),
        _ => None,
    }
}

impl Config {
    /// How secret a record is at least that is written here and is about these patients.
    pub fn least_secrecy(&self, record: &RecordId, patients: &[RecordId]) -> Secrecy {
        let speak = self.policies.iter().filter(|policy| policy.speaks_of(record, patients));
        speak.map(|policy| policy.is).max().unwrap_or(Secrecy::None)
    }

    fn check_policies(&self, path: &Path) -> Result<(), ConfigError> {
        let Some((of, problem)) = self.policies.iter().find_map(Policy::problem) else { return Ok(()) };
        Err(ConfigError::Decision { path: path.to_owned(), what: format!("a policy for {of:?}"), problem })
    }

    /// What the profiles allow.
    pub fn allowed(&self) -> Profiles {
        let mut all = Profiles::default();
        for profile in &self.profiles {
            all.allow(profile.with.clone(), profile.by, profile.up_to);
        }
        all
    }

    fn check_profiles(&self, path: &Path) -> Result<(), ConfigError> {
        for (n, profile) in self.profiles.iter().enumerate() {
            let same = |other: &Profile| (&other.with, other.by) == (&profile.with, profile.by);
            let problem = match profile.up_to {
                Secrecy::None => Some("allows nothing secret, which needs no profile"),
                _ if self.profiles[..n].iter().any(same) => {
                    Some("says something of a way of which another one speaks")
                }
                _ => None,
            };
            if let Some(problem) = unanswered(&profile.decided_by, &profile.why).or(problem) {
                let what = format!("a profile for {}", profile.with);
                return Err(ConfigError::Decision { path: path.to_owned(), what, problem });
            }
        }
        Ok(())
    }

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
        let config: Self = serde_json::from_slice(&text)
            .map_err(|error| ConfigError::Damaged { path: path.clone(), error })?;
        config.check_profiles(&path)?;
        config.check_policies(&path)?;
        config.check_link(&path)?;
        Ok(config)
    }

    /// A sign of life has to come before a link is given up.
    fn check_link(&self, path: &Path) -> Result<(), ConfigError> {
        match self.link.keep_alive_seconds {
            Some(seconds) if !KEEP_ALIVE_SECONDS.contains(&seconds) => Err(ConfigError::Decision {
                path: path.to_owned(),
                what: format!("a link.keep_alive_seconds of {seconds}"),
                problem: "is not between 1 and 100, and after 120 s of silence a link is given up",
            }),
            _ => Ok(()),
        }
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
