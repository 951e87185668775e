//! The keys of backups, in the form of the age tools, so that a backup can also be opened without Tuyến. What always
//! holds: a private key is written with mode 0600 to a new file, and one that others can read is refused; it shows in no
//! error and no debug output.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use age::{secrecy::ExposeSecret, x25519};
use sync_core::identity::Date;

use super::{BackupError, disk::sync_folder_of};

/// The mode of a private key, and the bits that nobody else may have.
const KEY_MODE: u32 = 0o600;
const OTHERS: u32 = 0o077;
/// Most that is read of a private key's file.
const TEXT_MAX_BYTES: u64 = 64 << 10;
/// So much of a wrong public key is repeated: as long as a right one.
const SHOWN_CHARS: usize = 62;

/// Those who may read a backup.
#[derive(Debug, Clone)]
pub struct Recipients(Vec<x25519::Recipient>);

impl Recipients {
    /// Reads public keys; at least one.
    pub fn new(keys: &[String]) -> Result<Self, BackupError> {
        let read = |key: &String| key.trim().parse().map_err(|_| BackupError::Recipient(shown(key)));
        let keys = keys.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            return Err(BackupError::Recipient(shown("")));
        }
        Ok(Self(keys))
    }

    pub(super) fn encryptor(&self) -> age::Encryptor {
        let all = self.0.iter().map(|key| key as &dyn age::Recipient);
        age::Encryptor::with_recipients(all).expect("there is at least one, and all are of one kind")
    }
}

/// What is repeated of something that is no public key: it may be a private one.
fn shown(text: &str) -> String {
    match text.trim() {
        secret if secret.to_ascii_uppercase().contains("SECRET") => "a private key".to_owned(),
        other => format!("{:?}", other.chars().take(SHOWN_CHARS).collect::<String>()),
    }
}

/// A private key, and the file that it came from.
pub struct PrivateKey {
    identity: x25519::Identity,
    pub(super) path: PathBuf,
}

impl PrivateKey {
    /// Reads a key file: lines of which one is the key, and those that begin with `#` are remarks.
    pub fn read(path: &Path) -> Result<Self, BackupError> {
        let io = |source| BackupError::Io { doing: "read", path: path.to_owned(), source };
        let mode = fs::metadata(path).map_err(io)?.permissions().mode() & 0o777;
        if mode & OTHERS != 0 {
            return Err(BackupError::KeyIsOpen { path: path.to_owned(), mode });
        }
        let file = fs::File::open(path).map_err(io)?;
        Self::from(file, path)
    }

    /// Reads what a key file holds from where no others can see it, such as standard input; `path` is what it is called.
    pub fn from(input: impl Read, path: &Path) -> Result<Self, BackupError> {
        let mut text = Vec::new();
        let read = input.take(TEXT_MAX_BYTES).read_to_end(&mut text);
        read.map_err(|source| BackupError::Io { doing: "read", path: path.to_owned(), source })?;
        let identity = str::from_utf8(&text).ok().and_then(|text| {
            let mut lines =
                text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
            lines.next()?.parse().ok().filter(|_| lines.next().is_none())
        });
        let identity = identity.ok_or_else(|| BackupError::NotAKey(path.to_owned()))?;
        Ok(Self { identity, path: path.to_owned() })
    }

    pub(super) fn identity(&self) -> &dyn age::Identity {
        &self.identity
    }
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PrivateKey({})", self.path.display())
    }
}

/// Makes a key pair: the private key goes to a new file, the public key comes back.
pub fn keygen(path: &Path, now: i64) -> Result<String, BackupError> {
    let io = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::AlreadyExists => BackupError::Exists(path.to_owned()),
        _ => BackupError::Io { doing: "write", path: path.to_owned(), source },
    };
    let identity = x25519::Identity::generate();
    let public = identity.to_public().to_string();
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(KEY_MODE).open(path).map_err(io)?;
    let secret = identity.to_string();
    let text = format!(
        "# Tuyến: the private key of backups, made {}. Whoever holds it reads every backup made for\n# {public}\n{}\n",
        Date(now),
        secret.expose_secret()
    );
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(io)?;
    sync_folder_of(path).map_err(io)?;
    Ok(public)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_pair_round_trips_and_must_be_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("province.key");
        let public = keygen(&path, 0).unwrap();
        assert!(public.starts_with("age1"), "{public}");
        assert!(matches!(keygen(&path, 0), Err(BackupError::Exists(_))));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let key = PrivateKey::read(&path).unwrap();
        assert_eq!(key.identity.to_public().to_string(), public);
        assert!(!format!("{key:?}").contains("SECRET"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = PrivateKey::read(&path).unwrap_err();
        assert!(error.to_string().contains("mode 640") && error.to_string().contains("chmod 600"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let good = fs::read_to_string(&path).unwrap();
        for bad in ["", "# nothing\n", &format!("{good}{good}"), "AGE-SECRET-KEY-1QQQ", "\u{0}"] {
            fs::write(&path, bad).unwrap();
            let error = PrivateKey::read(&path).unwrap_err();
            assert!(
                matches!(error, BackupError::NotAKey(_)) && !error.to_string().contains("QQQ"),
                "{error}"
            );
        }
    }

    #[test]
    fn what_is_no_public_key_is_refused() {
        let public = x25519::Identity::generate().to_public().to_string();
        assert!(Recipients::new(&[public.clone(), format!(" {public}\n")]).is_ok());
        for bad in ["", "age1", "age1qqqq", &public[..public.len() - 1], &public.replace("age1", "age2")] {
            let error = Recipients::new(&[public.clone(), bad.to_owned()]).unwrap_err();
            assert!(matches!(error, BackupError::Recipient(_)), "{error}");
        }
        assert!(Recipients::new(&[]).is_err());
        let secret = x25519::Identity::generate().to_string().expose_secret().to_owned();
        for secret in [secret.clone(), secret.to_lowercase()] {
            let error = Recipients::new(std::slice::from_ref(&secret)).unwrap_err().to_string();
            assert!(
                error.starts_with("a private key is no public key") && !error.contains(&secret),
                "{error}"
            );
        }
    }
}
