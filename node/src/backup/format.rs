//! The content of a backup, before it is encrypted and after it is decrypted.
//!
//! ```text
//! 12 bytes   "tuyen-backup"
//!  4 bytes   the version of this format, the most significant byte first: 1
//!  4 bytes   the length of the manifest
//!            the manifest, JSON: the node, when it was made, and the parts with sizes and SHA-256
//! 32 bytes   SHA-256 of everything before
//!            the parts, one behind the other, in the order of the manifest; nothing behind the last
//! ```
//!
//! What always holds: the parts are those of [`PARTS`], each at most once and in that order, so that no backup can name
//! a file of its own; the store comes last, and is the only part that may be large; every byte is under a hash. Not
//! here: encryption, which tells changes by strangers; the hashes tell those by disks and programs.

use std::io::{self, Read, Write};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sync_core::{
    id::{NodeId, OrgPath},
    identity::Role,
};

use crate::config::{DATABASE, FILE, STORE_KEY};

/// What every backup begins with, once it is decrypted.
const MAGIC: &[u8; 12] = b"tuyen-backup";
/// The version of the format that this program writes, and the newest that it reads.
pub const FORMAT: u32 = 1;
/// Most bytes of a manifest.
const MANIFEST_MAX_BYTES: u32 = 64 << 10;
/// Most bytes of every part but the store.
pub(super) const SMALL_MAX_BYTES: u64 = 1 << 20;
/// Bytes that are moved at a time.
const PIECE_BYTES: usize = 256 << 10;
/// The latest time that the node had from its tree.
pub(super) const LAST_KNOWN_GOOD: &str = "identity/last-known-good";
/// The parts that a backup may have, in their order, and whether each has them.
pub(super) const PARTS: [(&str, bool); 9] = [
    (FILE, true),
    (STORE_KEY, true),
    ("identity/node.key", true),
    ("identity/node.crt", true),
    ("identity/trust.crt", true),
    ("identity/ca.key", false),
    ("identity/ca.crt", false),
    (LAST_KNOWN_GOOD, false),
    (DATABASE, true),
];

/// Everything but the store, by name.
pub(super) type SmallParts = Vec<(String, Vec<u8>)>;

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The program that made it.
    pub software: String,
    /// The node.
    pub node: NodeId,
    /// Its place.
    pub place: OrgPath,
    /// Its role.
    pub role: Role,
    /// When it was made, in milliseconds since 1970 by that machine's clock.
    pub made_at: i64,
    /// Live records in the store.
    pub records: u64,
    /// Deleted records.
    pub deleted: u64,
    /// Entries of all records.
    pub entries: u64,
    /// The version of the store's layout.
    pub store_layout: i64,
    /// Whether a page of the store was damaged on the disk already.
    #[serde(default)]
    pub damaged: bool,
    /// The parts, in their order.
    pub parts: Vec<Part>,
}

/// One part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The file that it is in a node's folder.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// The SHA-256 of its content, in hexadecimal.
    pub sha256: String,
}

impl Part {
    /// Describes a part that is read to its end.
    pub(super) fn of(
        name: &str,
        content: &mut dyn Read,
        step: &mut dyn FnMut(u64) -> Result<(), FormatError>,
    ) -> Result<Self, FormatError> {
        let (bytes, sha256) = copy(content, &mut io::sink(), u64::MAX, step)?;
        Ok(Self { name: name.to_owned(), bytes, sha256 })
    }
}

impl Manifest {
    /// The bytes of the whole content.
    pub(super) fn content_bytes(&self) -> u64 {
        let head = self.head().len() as u64;
        self.parts.iter().fold(head, |sum, part| sum.saturating_add(part.bytes))
    }

    /// The store.
    pub(super) fn store(&self) -> &Part {
        self.parts.last().expect("a manifest that was made or read here has all parts")
    }

    fn head(&self) -> Vec<u8> {
        let json = serde_json::to_vec(self).expect("a manifest is plain data");
        let length = u32::try_from(json.len()).expect("a manifest has nine parts at most");
        let mut head = [&MAGIC[..], &FORMAT.to_be_bytes(), &length.to_be_bytes(), &json].concat();
        head.extend(Sha256::digest(&head));
        head
    }

    fn fits(&self) -> bool {
        let mut names = self.parts.iter().map(|part| part.name.as_str()).peekable();
        let each = PARTS.iter().all(|(name, needed)| names.next_if_eq(name).is_some() || !needed);
        let small = |part: &Part| part.bytes <= SMALL_MAX_BYTES || part.name == DATABASE;
        each && names.next().is_none() && self.parts.iter().all(small)
    }
}

/// Why content is no backup that can be used.
#[derive(Debug)]
pub(super) enum FormatError {
    /// It cannot be read, or not be written.
    Io(io::Error),
    /// It is another kind of file.
    NotABackup,
    /// It is of a newer format.
    Newer(u32),
    /// It is not as it was made.
    Broken(String),
    /// Whoever waits for it wants no more.
    Stopped(Box<super::BackupError>),
}

impl From<io::Error> for FormatError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn broken<T>(what: impl Into<String>) -> Result<T, FormatError> {
    Err(FormatError::Broken(what.into()))
}

/// Writes content. `part` opens the parts, each of which must be as the manifest says.
pub(super) fn write<'a>(
    out: &mut dyn Write,
    manifest: &Manifest,
    mut part: impl FnMut(&str) -> io::Result<Box<dyn Read + 'a>>,
    step: &mut dyn FnMut(u64) -> Result<(), FormatError>,
) -> Result<(), FormatError> {
    out.write_all(&manifest.head())?;
    for described in &manifest.parts {
        let (bytes, sha256) = copy(&mut *part(&described.name)?, out, u64::MAX, step)?;
        if (bytes, &sha256) != (described.bytes, &described.sha256) {
            return broken(format!("{} was read differently the second time", described.name));
        }
    }
    Ok(())
}

/// Content that is being read.
pub(super) struct Content<R> {
    input: R,
    pub manifest: Manifest,
}

impl<R: Read> Content<R> {
    /// Reads the manifest.
    pub fn open(mut input: R) -> Result<Self, FormatError> {
        let mut head = vec![0; MAGIC.len() + 8];
        let read = fill(&mut input, &mut head)?;
        if !head.starts_with(MAGIC) {
            return Err(FormatError::NotABackup);
        }
        if read < head.len() {
            return broken("it ends before its manifest");
        }
        let number = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().expect("four bytes"));
        let (format, length) = (number(MAGIC.len()), number(MAGIC.len() + 4));
        if format > FORMAT {
            return Err(FormatError::Newer(format));
        }
        if format == 0 || length > MANIFEST_MAX_BYTES {
            return broken("its first bytes make no sense");
        }
        let from = head.len();
        head.resize(from + length as usize, 0);
        let mut digest = [0; 32];
        if fill(&mut input, &mut head[from..])? < length as usize
            || fill(&mut input, &mut digest)? < digest.len()
        {
            return broken("it ends within its manifest");
        }
        if Sha256::digest(&head)[..] != digest {
            return broken("its manifest does not have its hash");
        }
        let manifest: Option<Manifest> = serde_json::from_slice(&head[from..]).ok();
        match manifest.filter(Manifest::fits) {
            Some(manifest) => Ok(Self { input, manifest }),
            None => broken("its manifest does not say what a node needs"),
        }
    }

    /// Reads the parts in front of the store, to be called first.
    pub fn small_parts(&mut self) -> Result<SmallParts, FormatError> {
        let (_, small) = self.manifest.parts.split_last().expect("it was looked at");
        let mut parts = Vec::new();
        for part in small {
            let mut content = Vec::new();
            read_part(&mut self.input, part, &mut content, &mut |_| Ok(()))?;
            parts.push((part.name.clone(), content));
        }
        Ok(parts)
    }

    /// Reads the store, and sees that nothing is behind it.
    pub fn store(
        mut self,
        out: &mut dyn Write,
        step: &mut dyn FnMut(u64) -> Result<(), FormatError>,
    ) -> Result<Manifest, FormatError> {
        read_part(&mut self.input, self.manifest.store(), out, step)?;
        if fill(&mut self.input, &mut [0])? > 0 {
            return broken("there is something behind its end");
        }
        Ok(self.manifest)
    }
}

fn read_part(
    input: &mut dyn Read,
    part: &Part,
    out: &mut dyn Write,
    step: &mut dyn FnMut(u64) -> Result<(), FormatError>,
) -> Result<(), FormatError> {
    let (bytes, sha256) = copy(input, out, part.bytes, step)?;
    if bytes < part.bytes {
        return broken(format!("it ends within {}", part.name));
    }
    if sha256 != part.sha256 {
        return broken(format!("{} does not have its hash", part.name));
    }
    Ok(())
}

/// Moves at most so many bytes; gives their number and their hash.
fn copy(
    input: &mut dyn Read,
    out: &mut dyn Write,
    most: u64,
    step: &mut dyn FnMut(u64) -> Result<(), FormatError>,
) -> Result<(u64, String), FormatError> {
    let (mut hash, mut done) = (Sha256::new(), 0);
    let mut piece = vec![0; PIECE_BYTES];
    while done < most {
        let wanted = usize::try_from(most - done).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        let read = fill(input, &mut piece[..wanted])?;
        if read == 0 {
            break;
        }
        hash.update(&piece[..read]);
        out.write_all(&piece[..read])?;
        done += read as u64;
        step(done)?;
    }
    Ok((done, HEXLOWER.encode(&hash.finalize())))
}

/// Reads until the buffer is full or there is no more.
fn fill(input: &mut (impl Read + ?Sized), buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The content of a part in these tests.
    fn text(name: &str) -> Vec<u8> {
        format!("what {name} holds").into_bytes()
    }

    pub fn manifest(names: &[&str]) -> Manifest {
        let part = |name: &&str| Part::of(name, &mut &text(name)[..], &mut |_| Ok(())).unwrap();
        Manifest {
            software: "tuyen 0".to_owned(),
            node: NodeId([7; 16]),
            place: "trung-uong/ha-giang".parse().unwrap(),
            role: Role::Hub,
            made_at: 1_795_000_000_000,
            records: 3,
            deleted: 1,
            entries: 9,
            store_layout: 1,
            damaged: false,
            parts: names.iter().map(part).collect(),
        }
    }

    pub fn all_parts() -> Vec<&'static str> {
        PARTS.iter().map(|(name, _)| *name).collect()
    }

    pub fn content(manifest: &Manifest) -> Vec<u8> {
        let mut out = Vec::new();
        let part = |name: &str| -> io::Result<Box<dyn Read>> { Ok(Box::new(io::Cursor::new(text(name)))) };
        write(&mut out, manifest, part, &mut |_| Ok(())).unwrap();
        out
    }

    fn read(content: &[u8]) -> Result<(Manifest, SmallParts), FormatError> {
        let mut content = Content::open(content)?;
        let mut parts = content.small_parts()?;
        let mut store = Vec::new();
        let manifest = content.store(&mut store, &mut |_| Ok(()))?;
        parts.push((DATABASE.to_owned(), store));
        Ok((manifest, parts))
    }

    #[test]
    fn what_is_written_is_read() {
        let needed: Vec<_> = PARTS.iter().filter(|(_, needed)| *needed).map(|(name, _)| *name).collect();
        for names in [all_parts(), needed] {
            let manifest = manifest(&names);
            let content = content(&manifest);
            assert_eq!(content.len() as u64, manifest.content_bytes());
            let (read, parts) = read(&content).unwrap();
            assert_eq!(read, manifest);
            assert_eq!(parts, names.iter().map(|name| ((*name).to_owned(), text(name))).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_flip_of_any_bit_is_refused() {
        let good = content(&manifest(&all_parts()));
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                let outcome = read(&bad);
                assert!(outcome.is_err(), "bit {bit} of byte {at}");
                assert!(!matches!(outcome, Err(FormatError::Io(_))), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn an_end_that_is_missing_or_too_much_is_refused() {
        let good = content(&manifest(&all_parts()));
        for length in 0..good.len() {
            assert!(read(&good[..length]).is_err(), "{length}");
        }
        assert!(matches!(read(&[&good[..], b"x"].concat()), Err(FormatError::Broken(_))));
    }

    #[test]
    fn a_newer_format_is_told_whatever_else_it_holds() {
        let mut newer = content(&manifest(&all_parts()));
        newer[15] = 2;
        assert!(matches!(read(&newer[..20]), Err(FormatError::Newer(2))));
        assert!(matches!(read(b"some letter or other"), Err(FormatError::NotABackup)));
        assert!(matches!(read(b"tuyen-bac"), Err(FormatError::NotABackup)));
    }

    #[test]
    fn only_the_parts_of_a_node_in_their_order_are_taken() {
        let all = all_parts();
        let last = all.len() - 1;
        let changed = |change: &dyn Fn(&mut Vec<&'static str>)| {
            let mut names = all.clone();
            change(&mut names);
            manifest(&names)
        };
        for bad in [
            changed(&|names| names.swap(0, 1)),
            changed(&|names| names.swap(last - 1, last)),
            changed(&|names| names.retain(|name| *name != FILE)),
            changed(&|names| names.truncate(last)),
            changed(&|names| names.insert(3, "../../etc/passwd")),
            changed(&|names| names.insert(0, "config.json")),
            changed(&|names| names.push("records.db")),
            changed(&|names| names.clear()),
        ] {
            assert!(!bad.fits());
            assert!(matches!(Content::open(&bad.head()[..]), Err(FormatError::Broken(_))));
        }
        let mut large = manifest(&all);
        large.parts[0].bytes = SMALL_MAX_BYTES + 1;
        assert!(!large.fits());
        large.parts[0].bytes = SMALL_MAX_BYTES;
        large.parts[last].bytes = u64::MAX;
        assert!(large.fits() && large.content_bytes() == u64::MAX);
    }

    #[test]
    fn a_part_that_changes_under_way_is_no_backup() {
        let manifest = manifest(&all_parts());
        let part = |name: &str| -> io::Result<Box<dyn Read>> {
            let mut bytes = text(name);
            if name == DATABASE {
                bytes[0] ^= 1;
            }
            Ok(Box::new(io::Cursor::new(bytes)))
        };
        let outcome = write(&mut Vec::new(), &manifest, part, &mut |_| Ok(()));
        assert!(matches!(outcome, Err(FormatError::Broken(_))));
    }
}
