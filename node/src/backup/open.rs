//! Reading a backup: decrypting it, comparing its hashes, and saying in words what is wrong with one.
//!
//! What always holds: keys and settings are only kept in memory here; the store, which is encrypted with its own key, is
//! written to a folder that nobody else may open. A backup is sound when its hashes are right, its keys, certificates
//! and settings belong together and to the node that it names, and the store's own check of the whole file finds
//! nothing.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use age::{DecryptError, Decryptor, stream::StreamReader};
use sync_core::identity::Role;

use super::{
    BackupError, Manifest, PrivateKey, Scratch, Step,
    disk::{IDENTITY, beside},
    format::{Content, FormatError, SmallParts},
    tell,
};
use crate::{
    ca::Ca,
    config::{Config, DATABASE, FILE, STORE_KEY},
    keys::Identity,
    setup::info_of,
    store::{Key, OpenError, Reader, SqliteStore},
};

/// What every file of the age format begins with.
const AGE: &[u8] = b"age-encryption.org/v1\n";
/// What stands before the last line of its header, and how long a header of ours can be.
const HEADER_END: &[u8] = b"\n--- ";
const HEADER_MAX_BYTES: u64 = 64 << 10;
/// The payload: a nonce, then chunks, each with a tag.
const NONCE_BYTES: u64 = 16;
const CHUNK_BYTES: u64 = 64 << 10;
const TAG_BYTES: u64 = 16;
/// What is behind the name of a backup while it is being checked.
const CHECKING: &str = ".verify";

/// A backup of which everything was read and checked.
#[derive(Debug, Clone)]
pub struct Checked {
    /// What it says of itself.
    pub manifest: Manifest,
    /// Its size in bytes.
    pub bytes: u64,
}

/// Where the store of a backup lies while it is checked.
pub fn check_scratch(file: &Path) -> PathBuf {
    beside(file, CHECKING)
}

/// Checks everything in a backup, in a folder that is removed afterwards.
pub fn verify(
    file: &Path,
    key: &PrivateKey,
    scratch: &Scratch,
    step: &mut Step<'_>,
) -> Result<Checked, BackupError> {
    let opened = Opened::new(file, key)?;
    let bytes = opened.length;
    let unpacked = opened.unpack(scratch, step)?;
    unpacked.check_store(file, scratch, step)?;
    Ok(Checked { manifest: unpacked.manifest, bytes })
}

/// A backup that has begun to be read.
pub(super) struct Opened {
    path: PathBuf,
    length: u64,
    content: Content<StreamReader<BufReader<File>>>,
}

/// A backup that has been read to its end, and whose store lies in a folder.
pub(super) struct Unpacked {
    pub manifest: Manifest,
    pub small: SmallParts,
    pub config: Config,
    key: Key,
}

impl Opened {
    /// Opens a backup and reads its manifest.
    pub fn new(path: &Path, key: &PrivateKey) -> Result<Self, BackupError> {
        let io = |source| BackupError::Io { doing: "read", path: path.to_owned(), source };
        let mut file = File::open(path).map_err(io)?;
        let kind = file.metadata().map_err(io)?;
        if !kind.is_file() {
            return Err(BackupError::NotABackup(path.to_owned()));
        }
        let length = kind.len();
        let header = header_of(&mut file, length).map_err(io)?;
        let Some(header) = header.map_err(|other| other.told(path, length))? else {
            return Err(damaged(path, "its header makes no sense"));
        };
        let payload = decrypt(file, path, length, key)?;
        let content = Content::open(payload).map_err(|error| match error {
            // The first chunk holds the manifest; every backup has more than one.
            FormatError::Io(_) if length < header + NONCE_BYTES + CHUNK_BYTES + TAG_BYTES => {
                BackupError::CutOff { path: path.to_owned(), has: length, wants: None }
            }
            error => told(error, path),
        })?;
        let wants = encrypted_bytes(header, content.manifest.content_bytes());
        if length < wants {
            return Err(BackupError::CutOff { path: path.to_owned(), has: length, wants: Some(wants) });
        }
        if length > wants {
            return Err(damaged(path, "there is something behind its end"));
        }
        Ok(Self { path: path.to_owned(), length, content })
    }

    /// Reads everything: the store into the folder, the rest into memory.
    pub fn unpack(mut self, scratch: &Scratch, step: &mut Step<'_>) -> Result<Unpacked, BackupError> {
        let path = self.path;
        let small = self.content.small_parts().map_err(|error| told(error, &path))?;
        let (config, key) = belongs(&small, &self.content.manifest).map_err(|what| damaged(&path, &what))?;
        let total = self.content.manifest.store().bytes;
        let mut store = Written { file: scratch.create(DATABASE)?, failed: None };
        let manifest = self.content.store(&mut store, &mut |done| {
            tell(step, "bytes read", done, total).map_err(|error| FormatError::Stopped(Box::new(error)))
        });
        let manifest = manifest.map_err(|error| match store.failed.take() {
            Some(source) => BackupError::Io { doing: "write", path: scratch.path().join(DATABASE), source },
            None => told(error, &path),
        })?;
        Ok(Unpacked { manifest, small, config, key })
    }
}

impl Unpacked {
    /// Runs the store's own check of the whole file.
    pub fn check_store(
        &self,
        file: &Path,
        scratch: &Scratch,
        step: &mut Step<'_>,
    ) -> Result<(), BackupError> {
        let unusable = |source: OpenError| BackupError::Store { path: file.to_owned(), source };
        let path = scratch.path().join(DATABASE);
        // Opening it for writing brings one of an older program up to date, as the daemon would.
        let store = SqliteStore::open(&path, &self.key).map_err(unusable)?;
        let mut reader = Reader::open(&path, &self.key).map_err(unusable)?;
        drop(store);
        let mut stopped = Ok(());
        let checked = reader.integrity_check(|done, total| {
            if stopped.is_ok() {
                stopped = tell(step, "entries checked", done, total);
            }
        });
        stopped?;
        if let Ok(checked) = &checked
            && (checked.loose || !checked.records.is_empty())
        {
            let mut store = SqliteStore::open(&path, &self.key).map_err(unusable)?;
            let put_right = store.put_right(checked).map_err(|error| error.0);
            if let Err(first) = put_right {
                return Err(BackupError::Unsound { path: file.to_owned(), count: 1, first });
            }
        }
        let (count, first) = match &checked {
            Ok(checked) => {
                // What can be made anew from the entries has been, or is when the node checks itself.
                let mut lost = checked.findings.iter().filter(|found| !found.mended || found.row.is_some());
                let first = lost.next().map(ToString::to_string);
                let count = u64::from(first.is_some()) + lost.count() as u64 + checked.more;
                (count, first.or_else(|| self.differs_from(&reader)))
            }
            Err(error) => (1, Some(error.0.clone())),
        };
        first.map_or(Ok(()), |first| {
            Err(BackupError::Unsound { path: file.to_owned(), count: count.max(1), first })
        })
    }

    fn differs_from(&self, reader: &Reader) -> Option<String> {
        let told = (self.manifest.records, self.manifest.deleted, self.manifest.entries);
        match reader.counts() {
            Ok(counts) if (counts.live, counts.deleted, counts.entries) == told => None,
            Ok(counts) => Some(format!("it holds {} entries, not {}", counts.entries, self.manifest.entries)),
            Err(error) => Some(error.0),
        }
    }
}

/// A file that remembers why it took no more.
struct Written {
    file: File,
    failed: Option<io::Error>,
}

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).map_err(|error| {
            let kind = error.kind();
            self.failed = Some(error);
            kind.into()
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Whether the parts but the store are a node's, and the one that the manifest names; gives what is needed of them.
pub(super) fn belongs(small: &[(String, Vec<u8>)], manifest: &Manifest) -> Result<(Config, Key), String> {
    let part = |name: &str| small.iter().find(|(small, _)| small == name).map(|(_, content)| &content[..]);
    let config: Config = part(FILE)
        .and_then(|text| serde_json::from_slice(text).ok())
        .ok_or_else(|| format!("{FILE} does not hold settings"))?;
    let key =
        part(STORE_KEY).and_then(Key::from_text).ok_or_else(|| format!("{STORE_KEY} does not hold a key"))?;
    let identity = Identity::from_files(|name| part(&format!("{IDENTITY}/{name}")))
        .map_err(|name| format!("{IDENTITY}/{name} is missing, or does not hold what it should"))?;
    let info = info_of(&identity).map_err(|failure| failure.text)?;
    if info.node != identity.key.id() {
        return Err("its key and its certificate do not match".to_owned());
    }
    if info.role != Role::Leaf {
        Ca::of(&identity).map_err(|error| error.to_string())?;
    }
    // Where an order has moved it, its certificate may not say so yet.
    let named = (&manifest.node, manifest.place.org(), manifest.role);
    if (&info.node, info.place.org(), info.role) != named
        || (config.place.org(), config.role) != (named.1, named.2)
    {
        return Err(format!(
            "its settings, its certificate and its name ({}) are not of one node",
            manifest.place
        ));
    }
    Ok((config, key))
}

fn decrypt(
    mut file: File,
    path: &Path,
    length: u64,
    key: &PrivateKey,
) -> Result<StreamReader<BufReader<File>>, BackupError> {
    let io = |source| BackupError::Io { doing: "read", path: path.to_owned(), source };
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    let decryptor = Decryptor::new_buffered(BufReader::new(file));
    let payload = decryptor.and_then(|decryptor| decryptor.decrypt(std::iter::once(key.identity())));
    payload.map_err(|error| match error {
        DecryptError::NoMatchingKeys => {
            BackupError::WrongKey { file: path.to_owned(), key: key.path.clone() }
        }
        DecryptError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Other::Short.told(path, length)
        }
        DecryptError::Io(error) => io(error),
        _ => damaged(path, "its header is not as it was made"),
    })
}

/// A file that does not begin as one of the age format does.
enum Other {
    Short,
    Foreign,
}

impl Other {
    fn told(self, path: &Path, has: u64) -> BackupError {
        match self {
            Self::Short => BackupError::CutOff { path: path.to_owned(), has, wants: None },
            Self::Foreign => BackupError::NotABackup(path.to_owned()),
        }
    }
}

/// The length of the header in front of the payload; none when it has no end though the file goes on.
fn header_of(file: &mut File, length: u64) -> io::Result<Result<Option<u64>, Other>> {
    let mut start = Vec::new();
    file.take(HEADER_MAX_BYTES).read_to_end(&mut start)?;
    if !start.starts_with(AGE) {
        return Ok(Err(if AGE.starts_with(&start) { Other::Short } else { Other::Foreign }));
    }
    let find = |from: usize, what: &[u8]| {
        start[from..].windows(what.len()).position(|window| window == what).map(|at| from + at)
    };
    let end = find(0, HEADER_END).and_then(|at| find(at + HEADER_END.len(), b"\n"));
    Ok(match end {
        Some(end) => Ok(Some(end as u64 + 1)),
        None if length < HEADER_MAX_BYTES => Err(Other::Short),
        None => Ok(None),
    })
}

/// The length of a file with so long a header and so much content.
fn encrypted_bytes(header: u64, content: u64) -> u64 {
    let tags = content.div_ceil(CHUNK_BYTES).max(1).saturating_mul(TAG_BYTES);
    content.saturating_add(header + NONCE_BYTES).saturating_add(tags)
}

fn damaged(path: &Path, what: &str) -> BackupError {
    BackupError::Damaged { path: path.to_owned(), what: what.to_owned() }
}

fn told(error: FormatError, path: &Path) -> BackupError {
    match error {
        FormatError::NotABackup => BackupError::NotABackup(path.to_owned()),
        FormatError::Newer(found) => BackupError::Newer { path: path.to_owned(), found },
        FormatError::Broken(what) => damaged(path, &what),
        FormatError::Stopped(error) => *error,
        FormatError::Io(error) => match error.kind() {
            // So the cipher says that a piece was changed.
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                damaged(path, "a piece of it is not as it was encrypted")
            }
            _ => BackupError::Io { doing: "read", path: path.to_owned(), source: error },
        },
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _, os::unix::fs::OpenOptionsExt};

    use sync_core::id::OrgId;

    use super::{
        super::{
            format::{self, PARTS, Part},
            key::{Recipients, keygen},
        },
        *,
    };
    use crate::{backup::format::LAST_KNOWN_GOOD, ca, keys::IdentityFolder};

    const STORE: &[u8] = b"not a store, but as many bytes as this test wants to flip";

    /// A backup of a root, small because its store is none.
    struct Small {
        dir: tempfile::TempDir,
        key: PrivateKey,
        to: Recipients,
        parts: SmallParts,
        manifest: Manifest,
    }

    impl Small {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("key");
            let to = Recipients::new(&[keygen(&path, 0).unwrap()]).unwrap();
            let (identity, _) = ca::found(OrgId::new("trung-uong").unwrap(), 1_795_000_000_000).unwrap();
            IdentityFolder::of_node(dir.path()).save(&identity).unwrap();
            let info = info_of(&identity).unwrap();
            let config =
                serde_json::json!({"place": info.place, "role": info.role, "listen": null, "parent": null});
            let parts: Vec<_> = PARTS
                .iter()
                .map(|(name, _)| {
                    let content = match *name {
                        FILE => config.to_string().into_bytes(),
                        STORE_KEY => Key::generate().unwrap().to_text(),
                        LAST_KNOWN_GOOD => b"1795000000000\n".to_vec(),
                        DATABASE => STORE.to_vec(),
                        name => fs::read(dir.path().join(name)).unwrap(),
                    };
                    ((*name).to_owned(), content)
                })
                .collect();
            let manifest = Manifest {
                software: "tuyen 0".to_owned(),
                node: info.node,
                place: info.place,
                role: info.role,
                made_at: 1_795_000_000_000,
                records: 0,
                deleted: 0,
                entries: 0,
                store_layout: 1,
                damaged: false,
                parts: Vec::new(),
            };
            Self { key: PrivateKey::read(&path).unwrap(), to, parts, manifest, dir }
        }

        fn content(&self) -> Vec<u8> {
            let mut manifest = self.manifest.clone();
            for (name, content) in &self.parts {
                manifest.parts.push(Part::of(name, &mut &content[..], &mut |_| Ok(())).unwrap());
            }
            let part = |name: &str| -> io::Result<Box<dyn Read + '_>> {
                Ok(Box::new(&self.parts.iter().find(|part| part.0 == name).unwrap().1[..]))
            };
            let mut content = Vec::new();
            format::write(&mut content, &manifest, part, &mut |_| Ok(())).unwrap();
            content
        }

        fn encrypted(&self, content: &[u8]) -> Vec<u8> {
            let mut file = Vec::new();
            let mut out = self.to.encryptor().wrap_output(&mut file).unwrap();
            out.write_all(content).unwrap();
            out.finish().unwrap();
            file
        }

        /// Reads a file of these bytes to its end; the store is not looked at.
        fn read(&self, file: &[u8]) -> Result<Unpacked, BackupError> {
            let path = self.dir.path().join("file");
            let mut written = fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&path)
                .unwrap();
            written.write_all(file).unwrap();
            let scratch = Scratch::take(&check_scratch(&path)).unwrap();
            let outcome =
                Opened::new(&path, &self.key).and_then(|opened| opened.unpack(&scratch, &mut |_| Ok(())));
            if outcome.is_ok() {
                assert_eq!(fs::read(scratch.path().join(DATABASE)).unwrap(), STORE);
            }
            outcome
        }

        #[track_caller]
        fn refuses(&self, file: &[u8]) -> BackupError {
            match self.read(file) {
                Ok(_) => panic!("it was taken"),
                Err(error) => {
                    assert!(!matches!(error, BackupError::Io { .. }), "{error}");
                    error
                }
            }
        }
    }

    #[test]
    fn what_is_encrypted_is_read() {
        let small = Small::new();
        let unpacked = small.read(&small.encrypted(&small.content())).unwrap();
        assert_eq!((unpacked.manifest.node, unpacked.small.len()), (small.manifest.node, PARTS.len() - 1));
        assert_eq!(unpacked.config.role, Role::Root);
    }

    #[test]
    fn a_flip_at_every_position_is_refused() {
        let small = Small::new();
        let good = small.encrypted(&small.content());
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            small.refuses(&bad);
        }
    }

    /// As a disk or a program would do it before the encryption.
    #[test]
    fn a_flip_at_every_position_below_the_encryption_is_refused() {
        let small = Small::new();
        let good = small.content();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            small.refuses(&small.encrypted(&bad));
        }
    }

    #[test]
    fn an_end_at_every_position_is_told_as_one() {
        let small = Small::new();
        let good = small.encrypted(&small.content());
        for length in 0..good.len() {
            let error = small.refuses(&good[..length]);
            assert!(matches!(error, BackupError::CutOff { .. }), "{length}: {error}");
        }
        small.refuses(&[&good[..], b"x"].concat());
    }

    /// One that has more than one chunk is told by its length, without reading on.
    #[test]
    fn a_large_one_says_how_much_is_missing() {
        let mut small = Small::new();
        small.parts.last_mut().unwrap().1 = vec![7; 200_000];
        let good = small.encrypted(&small.content());
        for cut in [1, 16, 17, 70_000, 130_000] {
            let error = small.refuses(&good[..good.len() - cut]);
            let BackupError::CutOff { has, wants: Some(wants), .. } = error else { panic!("{error}") };
            assert_eq!((has, wants), ((good.len() - cut) as u64, good.len() as u64));
        }
        for at in [70_000, 140_000, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(matches!(small.refuses(&bad), BackupError::Damaged { .. }), "{at}");
        }
        let error = small.refuses(&[&good[..], b"x"].concat()).to_string();
        assert!(error.contains("is damaged: there is something behind its end"), "{error}");
    }

    #[test]
    fn parts_that_do_not_belong_together_are_refused() {
        let other = Small::new();
        for (nth, (name, content)) in other.parts.iter().enumerate().take(PARTS.len() - 1) {
            let mut small = Small::new();
            if [FILE, STORE_KEY, LAST_KNOWN_GOOD].contains(&name.as_str()) {
                small.parts[nth].1 = b"something else".to_vec();
            } else {
                small.parts[nth].1 = content.clone();
            }
            let outcome = small.read(&small.encrypted(&small.content()));
            // A node starts without the last of them.
            assert_eq!(outcome.is_ok(), name == LAST_KNOWN_GOOD, "{name}");
        }
        let mut named = Small::new();
        named.manifest.place = "trung-uong/ha-giang".parse().unwrap();
        let error = named.refuses(&named.encrypted(&named.content()));
        assert!(error.to_string().contains("not of one node"), "{error}");
    }

    #[test]
    fn other_files_have_their_own_lines() {
        let small = Small::new();
        let mut newer = small.content();
        newer[15] = 9;
        let stranger = Small::new();
        let lines = [
            (small.encrypted(b"a letter"), "is no backup of a Tuyến node"),
            (b"a letter".to_vec(), "is no backup of a Tuyến node"),
            (small.encrypted(&newer), "has backup format 9, and this program knows formats up to 1"),
            (stranger.encrypted(&small.content()), "was not made for the key in"),
            (Vec::new(), "is cut off: it has 0 bytes;"),
        ];
        for (file, words) in lines {
            let error = small.refuses(&file).to_string();
            assert!(error.contains(words), "{words}: {error}");
        }
    }
}
