//! Keys, and the folder that holds a node's identity.
//!
//! What always holds: every key is Ed25519; a private key is written with mode 0600, and one that others can
//! read is refused at load; a file of the folder is whole or absent, because it is written beside, synced and
//! renamed; `node.crt` is written last, so a folder with it is complete. Not here: what certificates say, and
//! whom to trust (`ca`).
//!
//! | file | content |
//! |---|---|
//! | `node.key` | the node's private key, PKCS#8 PEM |
//! | `node.crt` | its certificate and the issuers of that, PEM, without the root's |
//! | `trust.crt` | the root CA's certificate |
//! | `ca.key`, `ca.crt` | root and hub only: the CA's private key, its certificate and issuers; at the root the root's |
//! | `enrolment` | while an answer by file is awaited: the token, and where the node is to listen, JSON |
//! | `last-known-good` | the latest time that the node had from its tree, milliseconds since 1970 |

use std::{
    fs, io,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rcgen::{PKCS_ED25519, PublicKeyData, SigningKey};
use ring::signature::{ED25519, UnparsedPublicKey};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use sha2::{Digest, Sha256};
use sync_core::id::NodeId;

/// The mode of private keys, and the bits that nobody else may have.
const KEY_MODE: u32 = 0o600;
const OTHERS: u32 = 0o077;
/// The mode of the folder.
const FOLDER_MODE: u32 = 0o700;
/// The mode of what is public.
const PUBLIC_MODE: u32 = 0o644;
/// What stands before the 32 bytes of an Ed25519 key in its SubjectPublicKeyInfo (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// The length of an Ed25519 public key.
const PUBLIC_KEY_BYTES: usize = 32;

/// Where the seed of a private key stands in its PKCS#8 form (RFC 8410), of either version.
const SEED_AT: usize = 16;
const SEED_BYTES: usize = 32;

/// What is wrong with a key or with the identity folder.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file could not be read or written.
    #[error("cannot {doing} {}: {source}; check that the folder exists and belongs to the user that runs tuyend", path.display())]
    File {
        /// Read, write, …
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A private key that others can read.
    #[error(
        "{} can be read by other users of this machine (mode {mode:03o}), so it may not be secret any more; \
         run `chmod 600` on it, and enrol again if others have had access", path.display()
    )]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A file that does not hold what it should.
    #[error("{} does not hold {expected}; restore the identity folder from a backup, or enrol this node again", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// The system gave no randomness or the key could not be made.
    #[error("cannot make a key: {0}; the system's source of randomness may be missing")]
    Generate(String),
}

/// An Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PublicKey([u8; PUBLIC_KEY_BYTES]);

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo (DER); none for anything but Ed25519.
    pub fn from_spki(der: &[u8]) -> Option<Self> {
        der.strip_prefix(&SPKI_PREFIX)?.try_into().ok().map(Self)
    }

    /// The SubjectPublicKeyInfo (DER).
    pub fn spki(&self) -> Vec<u8> {
        [&SPKI_PREFIX[..], &self.0].concat()
    }

    /// The name of the key.
    pub fn id(&self) -> NodeId {
        let hash = Sha256::digest(self.spki());
        NodeId(hash[..NodeId::LEN].try_into().expect("a SHA-256 has 32 bytes"))
    }

    /// The key itself.
    pub(crate) fn bytes(&self) -> &[u8; PUBLIC_KEY_BYTES] {
        &self.0
    }

    /// Whether the holder of this key signed `message`.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }
}

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &PKCS_ED25519
    }
}

/// An Ed25519 key pair. Its `Debug` form names the key and keeps the secret.
pub struct Key {
    pair: rcgen::KeyPair,
    public: PublicKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", self.id())
    }
}

impl Key {
    /// Makes a new key from the system's randomness.
    pub fn generate() -> Result<Self, KeyError> {
        let pair =
            rcgen::KeyPair::generate_for(&PKCS_ED25519).map_err(|e| KeyError::Generate(e.to_string()))?;
        Self::of(pair).ok_or_else(|| KeyError::Generate("the key made is not Ed25519".into()))
    }

    /// Reads a PKCS#8 PEM; none for anything but Ed25519.
    pub fn from_pem(pem: &str) -> Option<Self> {
        rcgen::KeyPair::from_pkcs8_pem_and_sign_algo(pem, &PKCS_ED25519).ok().and_then(Self::of)
    }

    fn of(pair: rcgen::KeyPair) -> Option<Self> {
        let public = PublicKey(pair.der_bytes().try_into().ok()?);
        Some(Self { pair, public })
    }

    /// The private key as PKCS#8 PEM.
    pub fn to_pem(&self) -> String {
        self.pair.serialize_pem()
    }

    /// The private key in the form that TLS wants.
    pub fn to_der(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.pair.serialize_der()).into()
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The name of the key.
    pub fn id(&self) -> NodeId {
        self.public.id()
    }

    /// Signs `message`.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).expect("signing with Ed25519 cannot fail")
    }

    /// The 32 random bytes of which everything about the key is made.
    pub(crate) fn seed(&self) -> [u8; SEED_BYTES] {
        let der = self.pair.serialize_der();
        let seed = der.get(SEED_AT..SEED_AT + SEED_BYTES);
        seed.and_then(|seed| seed.try_into().ok()).expect("an Ed25519 key in PKCS#8 has its seed there")
    }

    pub(crate) fn pair(&self) -> &rcgen::KeyPair {
        &self.pair
    }
}

/// A CA's key and certificates.
#[derive(Debug)]
pub struct CaFiles {
    /// The CA's key; never the node's.
    pub key: Key,
    /// Its certificate and the issuers of that, without the root's: empty at the root.
    pub chain: Vec<CertificateDer<'static>>,
}

/// All that makes a node what it is.
#[derive(Debug)]
pub struct Identity {
    /// The node's key.
    pub key: Key,
    /// Its certificate and the issuers of that, without the root's.
    pub chain: Vec<CertificateDer<'static>>,
    /// The root CA's certificate.
    pub root: CertificateDer<'static>,
    /// The CA, at the root and at hubs.
    pub ca: Option<CaFiles>,
}

/// The files of an identity folder.
pub const IDENTITY_FILES: [&str; 6] =
    ["node.key", "node.crt", "trust.crt", "ca.key", "ca.crt", LAST_KNOWN_GOOD];
/// The file that is there while the answer to a request by file is awaited.
const ENROLMENT: &str = "enrolment";
/// The file with the latest time that the node had from its tree.
pub const LAST_KNOWN_GOOD: &str = "last-known-good";

impl Identity {
    /// An identity from the contents of its files; the name of the first that is missing or holds something else.
    pub fn from_files<'a>(file: impl Fn(&str) -> Option<&'a [u8]>) -> Result<Self, &'static str> {
        let key = |name: &'static str| {
            file(name).and_then(|pem| Key::from_pem(str::from_utf8(pem).ok()?)).ok_or(name)
        };
        let certificates = |name| file(name).and_then(certificates).ok_or(name);
        let root = certificates("trust.crt")?.swap_remove(0);
        let ca = match file("ca.crt") {
            Some(_) => Some(CaFiles::of(key("ca.key")?, certificates("ca.crt")?, &root)),
            None => None,
        };
        Ok(Self { key: key("node.key")?, chain: certificates("node.crt")?, root, ca })
    }
}

impl CaFiles {
    /// From what `ca.key` and `ca.crt` hold.
    fn of(key: Key, mut chain: Vec<CertificateDer<'static>>, root: &CertificateDer<'_>) -> Self {
        chain.retain(|certificate| certificate != root);
        Self { key, chain }
    }
}

/// The folder of a node's identity.
#[derive(Clone, Debug)]
pub struct IdentityFolder {
    path: PathBuf,
}

impl IdentityFolder {
    /// The folder inside a node's folder.
    pub fn of_node(node_folder: &Path) -> Self {
        Self { path: node_folder.join("identity") }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it holds a whole identity.
    pub fn is_complete(&self) -> bool {
        self.path.join("node.crt").exists()
    }

    /// Whether there is any key in it.
    pub fn holds_keys(&self) -> bool {
        ["node.key", "ca.key"].iter().any(|name| self.path.join(name).exists())
    }

    /// The keys to enrol with: those of an earlier attempt where there are any, so that trying again after an
    /// answer that was lost asks for the same certificate.
    pub fn keys_for_enrolment(&self, with_ca: bool) -> Result<(Key, Option<Key>), KeyError> {
        let key = self.key_or_new("node.key")?;
        let ca_key = with_ca.then(|| self.key_or_new("ca.key")).transpose()?;
        Ok((key, ca_key))
    }

    /// Writes an identity, each file whole, and `node.crt` last.
    pub fn save(&self, identity: &Identity) -> Result<(), KeyError> {
        self.create()?;
        self.write("node.key", identity.key.to_pem().as_bytes(), KEY_MODE)?;
        self.write("trust.crt", to_pem(std::slice::from_ref(&identity.root)).as_bytes(), PUBLIC_MODE)?;
        if let Some(ca) = &identity.ca {
            self.write("ca.key", ca.key.to_pem().as_bytes(), KEY_MODE)?;
            let own = if ca.chain.is_empty() { std::slice::from_ref(&identity.root) } else { &ca.chain };
            return self.renew(&identity.chain, Some(own));
        }
        self.renew(&identity.chain, None)
    }

    /// Replaces the certificates of the keys that are here, `node.crt` last. The old and the new are good each with
    /// the other, so the folder holds a working identity at every moment in between.
    pub fn renew(
        &self,
        chain: &[CertificateDer<'_>],
        ca_chain: Option<&[CertificateDer<'_>]>,
    ) -> Result<(), KeyError> {
        if let Some(ca_chain) = ca_chain {
            self.write("ca.crt", to_pem(ca_chain).as_bytes(), PUBLIC_MODE)?;
        }
        self.write("node.crt", to_pem(chain).as_bytes(), PUBLIC_MODE)
    }

    /// Reads an identity. Whether its certificates are good is for `ca` to say.
    pub fn load(&self) -> Result<Identity, KeyError> {
        let key = self.read_key("node.key")?;
        let chain = self.read_certificates("node.crt")?;
        let root = self.read_certificates("trust.crt")?.swap_remove(0);
        let ca = if self.path.join("ca.crt").exists() {
            let chain = self.read_certificates("ca.crt")?;
            Some(CaFiles::of(self.read_key("ca.key")?, chain, &root))
        } else {
            None
        };
        Ok(Identity { key, chain, root, ca })
    }

    /// The latest time that the node had from its tree; 0 when it has none yet or the file is damaged, because
    /// a node must start without it.
    pub fn last_known_good(&self) -> i64 {
        let text = fs::read_to_string(self.path.join(LAST_KNOWN_GOOD)).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }

    /// Writes the latest time that the node had from its tree.
    pub fn save_last_known_good(&self, ms: i64) -> Result<(), KeyError> {
        self.write(LAST_KNOWN_GOOD, format!("{ms}\n").as_bytes(), PUBLIC_MODE)
    }

    /// Remembers what is needed to take the answer to a request. It has the token in it.
    pub fn save_enrolment(&self, json: &[u8]) -> Result<(), KeyError> {
        self.create()?;
        self.write(ENROLMENT, json, KEY_MODE)
    }

    /// What [`IdentityFolder::save_enrolment`] has remembered; none when no answer is awaited.
    pub fn enrolment(&self) -> Result<Option<Vec<u8>>, KeyError> {
        let path = self.path.join(ENROLMENT);
        match fs::read(&path) {
            Ok(json) => Ok(Some(json)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(KeyError::File { doing: "read", path, source }),
        }
    }

    /// The node is enrolled: no answer is awaited any more.
    pub fn forget_enrolment(&self) -> Result<(), KeyError> {
        let path = self.path.join(ENROLMENT);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(KeyError::File { doing: "remove", path, source })
            }
            _ => Ok(()),
        }
    }

    fn create(&self) -> Result<(), KeyError> {
        let failed = |source| KeyError::File { doing: "create", path: self.path.clone(), source };
        fs::create_dir_all(&self.path).map_err(failed)?;
        fs::set_permissions(&self.path, fs::Permissions::from_mode(FOLDER_MODE)).map_err(failed)
    }

    fn key_or_new(&self, name: &str) -> Result<Key, KeyError> {
        if self.path.join(name).exists() {
            return self.read_key(name);
        }
        let key = Key::generate()?;
        self.create()?;
        self.write(name, key.to_pem().as_bytes(), KEY_MODE)?;
        Ok(key)
    }

    fn read_key(&self, name: &str) -> Result<Key, KeyError> {
        let path = self.path.join(name);
        let failed = |source| KeyError::File { doing: "read", path: path.clone(), source };
        let mode = fs::metadata(&path).map_err(failed)?.permissions().mode() & 0o777;
        if mode & OTHERS != 0 {
            return Err(KeyError::Permissions { path, mode });
        }
        let pem = fs::read_to_string(&path).map_err(failed)?;
        Key::from_pem(&pem).ok_or(KeyError::Content { path, expected: "an Ed25519 private key in PEM" })
    }

    fn read_certificates(&self, name: &str) -> Result<Vec<CertificateDer<'static>>, KeyError> {
        let path = self.path.join(name);
        let pem =
            fs::read(&path).map_err(|source| KeyError::File { doing: "read", path: path.clone(), source })?;
        certificates(&pem).ok_or(KeyError::Content { path, expected: "certificates in PEM" })
    }

    /// Writes beside, syncs, renames, syncs the folder: the file is the old one or the new one, never half.
    fn write(&self, name: &str, content: &[u8], mode: u32) -> Result<(), KeyError> {
        let path = self.path.join(name);
        let beside = self.path.join(format!("{name}.new"));
        let attempt = || -> io::Result<()> {
            // One left by a crash may have another mode; `mode` below counts only for a new file.
            match fs::remove_file(&beside) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&beside, &path)?;
            fs::File::open(&self.path)?.sync_all()
        };
        attempt().map_err(|source| KeyError::File { doing: "write", path: path.clone(), source })
    }
}

/// Certificates in PEM, at least one.
fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().ok()?;
    (!chain.is_empty()).then_some(chain)
}

fn to_pem(chain: &[CertificateDer<'_>]) -> String {
    let block = |der: &CertificateDer<'_>| {
        let body = data_encoding::BASE64.encode(der);
        let lines: Vec<&str> =
            body.as_bytes().chunks(64).map(|line| str::from_utf8(line).expect("base64 is ASCII")).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    };
    chain.iter().map(block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_the_disk_and_sign() {
        let key = Key::generate().unwrap();
        let again = Key::from_pem(&key.to_pem()).unwrap();
        assert_eq!(key.id(), again.id());
        assert!(key.public().verifies(b"word", &again.sign(b"word")));
        assert!(!key.public().verifies(b"other", &again.sign(b"word")));
        assert_eq!(PublicKey::from_spki(&key.public().spki()), Some(*key.public()));
        assert_eq!(key.public().spki(), key.pair().subject_public_key_info());
        assert!(!format!("{key:?}").contains("PRIVATE"));
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let folder = IdentityFolder::of_node(dir.path());
        let (key, ca_key) = folder.keys_for_enrolment(true).unwrap();
        let (same, same_ca) = folder.keys_for_enrolment(true).unwrap();
        assert_eq!((key.id(), ca_key.unwrap().id()), (same.id(), same_ca.unwrap().id()));
        let path = folder.path().join("node.key");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777, 0o700);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = folder.keys_for_enrolment(false).unwrap_err().to_string();
        assert!(error.contains("mode 640") && error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn the_last_known_time_survives_and_damage_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let folder = IdentityFolder::of_node(dir.path());
        assert_eq!(folder.last_known_good(), 0);
        folder.create().unwrap();
        folder.save_last_known_good(1_795_000_000_000).unwrap();
        assert_eq!(folder.last_known_good(), 1_795_000_000_000);
        fs::write(folder.path().join("last-known-good"), "\0\0").unwrap();
        assert_eq!(folder.last_known_good(), 0);
    }
}
