//! Entries: an automerge change with the header that routes it.
//!
//! The header of a change chunk is read here without automerge, because a hub stores and relays a change
//! without opening it. The format is automerge's binary document format (automerge.org/automerge-binary-format-spec):
//! magic, checksum, chunk type, LEB128 length, body; the hash is SHA-256 over type, length and body. Only
//! uncompressed change chunks are accepted: a compressed chunk of 261 kB was measured to inflate to 812 MB.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::{
    attachment::{self, Attachment},
    codec::{DecodeError, Reader, Writer},
    id::{ChangeHash, EntryHash, Incarnation, Lane, OrgId, RecordId, Secrecy},
    identity::SIGNATURE_MAX_BYTES,
    scope::grant,
    time::Stamp,
};

/// Largest change chunk, in bytes.
pub const CHANGE_MAX_BYTES: usize = 1 << 20;
/// Most dependencies of one change. A change depends on the heads that its writer saw; even five hundred
/// clinics editing one record at once stay below.
pub const DEPS_MAX: u64 = 1024;
/// Most bytes of a header's further fields: of all that this version knows at most 1,364.
pub const EXTENSION_MAX_BYTES: u64 = 2048;

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const CHUNK_CHANGE: u8 = 1;
const CHUNK_COMPRESSED: u8 = 2;
/// With this the statement begins that the author of an entry of an issued record signs.
const ISSUED_DOMAIN: &[u8] = b"tuyen issued v1\0";
/// With this the statement begins that the author of an entry with grants signs.
const GRANT_DOMAIN: &[u8] = b"tuyen grant v1\0";
/// The field of a header with the author's signature.
const FIELD_SIGNATURE: u8 = 1;
/// The field of a header with the degree of secrecy, one byte; there is none where nothing is secret.
const FIELD_SECRECY: u8 = 2;
/// The field of a header with the grants that the entry opens or ends.
const FIELD_GRANTS: u8 = 3;
/// The field of a header with the attachments that the change brings.
const FIELD_ATTACHMENTS: u8 = 4;
/// An actor is an incarnation, or an incarnation and four more bytes for a write on an older version.
const ACTOR_MAX_BYTES: u64 = 20;

/// Why a change chunk was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Larger than [`CHANGE_MAX_BYTES`].
    #[error("a change of {0} bytes is larger than the limit of {CHANGE_MAX_BYTES}")]
    TooLarge(usize),
    /// A record that an organization issues, with another for its home.
    #[error("{record} is issued by an organization, and the entry names {home} for its home")]
    NotIssuer {
        /// The record.
        record: RecordId,
        /// The home that the entry names.
        home: OrgId,
    },
    /// Not an automerge chunk.
    #[error("not an automerge change")]
    NotAChange,
    /// A compressed chunk.
    #[error("a compressed change is refused, because its size in memory cannot be bounded")]
    Compressed,
    /// The checksum does not match the content.
    #[error("the change is damaged: its checksum does not match its content")]
    Checksum,
    /// The actor is not an incarnation.
    #[error("the change's actor is not an incarnation")]
    Actor,
    /// The header is malformed.
    #[error("malformed change: {0}")]
    Malformed(#[from] DecodeError),
}

/// What the header of a change chunk says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeHeader {
    /// SHA-256 over the chunk's type, length and body.
    pub hash: ChangeHash,
    /// The changes that this one was made on top of.
    pub deps: Vec<ChangeHash>,
    /// The run of the node that wrote it.
    pub origin: Incarnation,
    /// Which change of its run it is, among those of its record: the actor's bytes behind the incarnation, as a
    /// number, and the actor's own count. Two different changes share it only when a running machine was copied.
    pub place: (Option<u32>, u64),
    /// The writer's stamp.
    pub stamp: Stamp,
}

impl ChangeHeader {
    /// Reads the header of a raw change chunk and checks its checksum. The columns behind the header are not
    /// looked at.
    pub fn parse(chunk: &[u8]) -> Result<Self, ChangeError> {
        if chunk.len() > CHANGE_MAX_BYTES {
            return Err(ChangeError::TooLarge(chunk.len()));
        }
        let mut r = Reader(chunk);
        if r.take(4, "the magic bytes").map_err(|_| ChangeError::NotAChange)? != MAGIC {
            return Err(ChangeError::NotAChange);
        }
        let checksum: [u8; 4] = r.array("the checksum")?;
        let hashed = r.0;
        match r.u8("the chunk type")? {
            CHUNK_CHANGE => {}
            CHUNK_COMPRESSED => return Err(ChangeError::Compressed),
            _ => return Err(ChangeError::NotAChange),
        }
        let body = r.bytes(CHANGE_MAX_BYTES as u64, "the change body")?;
        r.end()?;
        let hash = ChangeHash(Sha256::digest(hashed).into());
        if hash.0[..4] != checksum {
            return Err(ChangeError::Checksum);
        }
        let mut r = Reader(body);
        let count = r.bounded(DEPS_MAX, "the dependencies")?;
        let mut deps = Vec::with_capacity(count);
        for _ in 0..count {
            deps.push(ChangeHash(r.array("a dependency")?));
        }
        let actor = r.bytes(ACTOR_MAX_BYTES, "the actor")?;
        let (origin, branch) = match actor.split_first_chunk() {
            Some((origin, [])) => (Incarnation(*origin), None),
            Some((origin, &[a, b, c, d])) => (Incarnation(*origin), Some(u32::from_be_bytes([a, b, c, d]))),
            _ => return Err(ChangeError::Actor),
        };
        let place = (branch, r.varint("the sequence number")?);
        r.varint("the first operation")?;
        let stamp = Stamp(signed_leb128(&mut r)?);
        Ok(Self { hash, deps, origin, place, stamp })
    }
}

fn signed_leb128(r: &mut Reader<'_>) -> Result<i64, DecodeError> {
    const WHAT: &str = "the time";
    let mut value = 0i64;
    for shift in (0..64).step_by(7) {
        let byte = r.u8(WHAT)?;
        value |= i64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let unused = 64 - (shift + 7).min(64);
            return Ok((value << unused) >> unused);
        }
    }
    Err(DecodeError::Value(WHAT))
}

/// The unit that is stored, relayed and acknowledged: a change of one record and its routing header.
///
/// Immutable, and made only by [`Entry::new`] and [`Entry::decode`], so that its hashes always fit its content. It is
/// clinical: `Debug` does not show the change.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    record: RecordId,
    home: OrgId,
    lane: Lane,
    extension: Box<[u8]>,
    change: Arc<[u8]>,
    header: ChangeHeader,
    hash: EntryHash,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ChangeHeader { hash, origin, .. } = &self.header;
        write!(f, "Entry({} {hash} by {origin:?}, {} bytes)", self.record, self.change.len())
    }
}

impl Entry {
    /// Wraps a change that this node made.
    pub fn new(record: RecordId, home: OrgId, lane: Lane, change: Arc<[u8]>) -> Result<Self, ChangeError> {
        Self::assemble(record, home, lane, Box::default(), change)
    }

    fn assemble(
        record: RecordId,
        home: OrgId,
        lane: Lane,
        extension: Box<[u8]>,
        change: Arc<[u8]>,
    ) -> Result<Self, ChangeError> {
        if record.issuer().is_some_and(|issuer| issuer != home) {
            return Err(ChangeError::NotIssuer { record, home });
        }
        let header = ChangeHeader::parse(&change)?;
        let mut w = Writer::default();
        w.raw(b"tuyen entry 1\0");
        encode_header(&mut w, &record, &home, lane, &extension);
        w.raw(&header.hash.0);
        let hash = EntryHash(Sha256::digest(&w.0).into());
        Ok(Self { record, home, lane, extension, change, header, hash })
    }

    /// The record that the change belongs to. A change itself does not name its document, so the entry does.
    pub fn record(&self) -> &RecordId {
        &self.record
    }

    /// The record's home, as its author names it: see [`crate::scope`].
    pub fn home(&self) -> &OrgId {
        &self.home
    }

    /// The record's lane.
    pub fn lane(&self) -> Lane {
        self.lane
    }

    /// The header's further fields, each a tag of one byte and its bytes with their length, by rising tags. Those of a later
    /// version are relayed and hashed, never read.
    pub fn extension(&self) -> &[u8] {
        &self.extension
    }

    /// What the author signs of an entry of an issued record, or of one with grants: all of the entry but the further fields
    /// of its header, the grants, and the attachments.
    pub fn statement(&self) -> Vec<u8> {
        let mut w = Writer::default();
        let grants = self.field(FIELD_GRANTS);
        w.raw(if grants.is_some() { GRANT_DOMAIN } else { ISSUED_DOMAIN });
        encode_header(&mut w, &self.record, &self.home, self.lane, grants.unwrap_or_default());
        w.raw(&self.header.hash.0).raw(self.field(FIELD_ATTACHMENTS).unwrap_or_default());
        w.0
    }

    /// The header's fields with their tags, as far as they are well-formed.
    fn fields(&self) -> impl Iterator<Item = (u8, &[u8])> {
        let mut fields = Reader(&self.extension);
        std::iter::from_fn(move || {
            Some((fields.u8("a tag").ok()?, fields.bytes(EXTENSION_MAX_BYTES, "a field").ok()?))
        })
    }

    fn field(&self, wanted: u8) -> Option<&[u8]> {
        self.fields().find(|(tag, _)| *tag == wanted).map(|(_, content)| content)
    }

    /// The author's signature over the statement; none when there is none.
    pub fn signature(&self) -> Option<&[u8]> {
        self.field(FIELD_SIGNATURE).filter(|signature| signature.len() <= SIGNATURE_MAX_BYTES)
    }

    /// Whether its author has to sign it: its record is an issued one, or it has grants.
    pub fn is_signed_by_its_author(&self) -> bool {
        self.record.issuer().is_some() || self.field(FIELD_GRANTS).is_some()
    }

    /// The entry with its author's signature, if it needs one and has none. `sign` is given the statement.
    pub fn signed(self, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> Self {
        if !self.is_signed_by_its_author() || self.signature().is_some() {
            return self;
        }
        let signature = sign(&self.statement());
        self.with_field(FIELD_SIGNATURE, &signature)
    }

    /// What it does with grants of its record; why that cannot be read.
    pub fn grants(&self) -> Result<Vec<grant::Step>, DecodeError> {
        self.field(FIELD_GRANTS).map_or(Ok(Vec::new()), grant::decode)
    }

    /// Whether it makes its record this organization's, or opens it to it.
    pub fn makes_theirs(&self, org: &OrgId) -> bool {
        let opens = |step: &grant::Step| matches!(step, grant::Step::Opens(grant) if grant.to == *org);
        self.home == *org || self.grants().is_ok_and(|steps| steps.iter().any(opens))
    }

    /// The author's entry with these grants, at most [`grant::GRANTS_MAX`]: to be given before it is signed.
    pub fn with_grants(self, steps: &[grant::Step]) -> Self {
        if steps.is_empty() { self } else { self.with_field(FIELD_GRANTS, &grant::encode(steps)) }
    }

    /// The attachments that the change brings. What cannot be read so names none.
    pub fn attachments(&self) -> Vec<Attachment> {
        self.field(FIELD_ATTACHMENTS).and_then(|field| attachment::decode(field).ok()).unwrap_or_default()
    }

    /// The author's entry with these attachments, at most [`attachment::NAMED_MAX`]: to be given before it is signed.
    pub fn with_attachments(self, all: &[Attachment]) -> Self {
        if all.is_empty() { self } else { self.with_field(FIELD_ATTACHMENTS, &attachment::encode(all)) }
    }

    /// How secret it is, by its author's word.
    pub fn secrecy(&self) -> Secrecy {
        match self.field(FIELD_SECRECY) {
            Some(&[degree]) => Secrecy::from_u8(degree),
            Some(_) => Secrecy::TuyetMat,
            None => Secrecy::None,
        }
    }

    /// The author's entry with this degree of secrecy at least: to be given before it is kept.
    pub fn with_secrecy(self, degree: Secrecy) -> Self {
        if degree <= self.secrecy() {
            return self;
        }
        self.with_field(FIELD_SECRECY, &[degree as u8])
    }

    /// The entry with this field in the place of its tag.
    fn with_field(self, tag: u8, content: &[u8]) -> Self {
        let before = self.fields().filter(|(known, _)| *known < tag);
        let after = self.fields().filter(|(known, _)| *known > tag);
        let mut fields = Writer::default();
        for (tag, content) in before.chain([(tag, content)]).chain(after) {
            fields.u8(tag).bytes(content);
        }
        let Self { record, home, lane, change, .. } = self;
        Self::assemble(record, home, lane, fields.0.into(), change).expect("it was an entry before")
    }

    /// The raw change chunk.
    pub fn change(&self) -> &Arc<[u8]> {
        &self.change
    }

    /// The hash of the change.
    pub fn change_hash(&self) -> ChangeHash {
        self.header.hash
    }

    /// The changes that this one was made on top of.
    pub fn deps(&self) -> &[ChangeHash] {
        &self.header.deps
    }

    /// The run that wrote the change.
    pub fn origin(&self) -> Incarnation {
        self.header.origin
    }

    /// Which change of its run it is, among those of its record: see [`ChangeHeader::place`].
    pub fn place(&self) -> (Option<u32>, u64) {
        self.header.place
    }

    /// The writer's stamp.
    pub fn stamp(&self) -> Stamp {
        self.header.stamp
    }

    /// SHA-256 over the header and the change's hash.
    pub fn hash(&self) -> EntryHash {
        self.hash
    }

    /// Appends the entry: header, then the change with its length.
    pub fn encode(&self, w: &mut Writer) {
        encode_header(w, &self.record, &self.home, self.lane, &self.extension);
        w.bytes(&self.change);
    }

    /// How many bytes [`Entry::encode`] appends, to within a few.
    pub fn encoded_len(&self) -> usize {
        self.change.len() + self.record.as_str().len() + self.home.as_str().len() + self.extension.len() + 8
    }

    /// Reads what [`Entry::encode`] wrote and recomputes its hashes.
    pub fn decode(r: &mut Reader<'_>) -> Result<Self, ChangeError> {
        let record = r.str(200, "the record id")?.parse().map_err(|_| DecodeError::Value("the record id"))?;
        let home = r.str(63, "the home")?.parse().map_err(|_| DecodeError::Value("the home"))?;
        let lane = Lane::from_u8(r.u8("the lane")?).ok_or(DecodeError::Value("the lane"))?;
        let extension = r.bytes(EXTENSION_MAX_BYTES, "the header extension")?.into();
        let change = r.bytes(CHANGE_MAX_BYTES as u64, "the change")?.into();
        Self::assemble(record, home, lane, extension, change)
    }
}

fn encode_header(w: &mut Writer, record: &RecordId, home: &OrgId, lane: Lane, extension: &[u8]) {
    w.bytes(record.as_str().as_bytes()).bytes(home.as_str().as_bytes()).u8(lane as u8).bytes(extension);
}

/// A change chunk with a well-formed header and a body that automerge need not understand: for worlds that
/// test how entries move and not what they mean, at a ninth of the cost.
pub fn opaque_chunk(
    origin: Incarnation,
    seq: u64,
    deps: &[ChangeHash],
    stamp: Stamp,
    body: &[u8],
) -> Arc<[u8]> {
    let mut content = Writer::default();
    content.varint(deps.len() as u64);
    deps.iter().for_each(|dep| {
        content.raw(&dep.0);
    });
    content.bytes(&origin.0).varint(seq).varint(1);
    let mut time = stamp.0;
    loop {
        let byte = (time & 0x7f) as u8;
        time >>= 7;
        let last = (time == 0 && byte & 0x40 == 0) || (time == -1 && byte & 0x40 != 0);
        content.u8(if last { byte } else { byte | 0x80 });
        if last {
            break;
        }
    }
    content.raw(body);
    let mut hashed = Writer::default();
    hashed.u8(CHUNK_CHANGE).bytes(&content.0);
    let hash: [u8; 32] = Sha256::digest(&hashed.0).into();
    let mut chunk = Writer::default();
    chunk.raw(&MAGIC).raw(&hash[..4]).raw(&hashed.0);
    chunk.0.into()
}

#[cfg(test)]
mod tests {
    use automerge::{ActorId, AutoCommit, ROOT, transaction::CommitOptions, transaction::Transactable};

    use super::*;

    fn real_chunk(time: i64) -> (Vec<u8>, automerge::Change) {
        let mut doc = AutoCommit::default().with_actor(ActorId::from([7u8; 16]));
        doc.put(ROOT, "status", "\"final\"").unwrap();
        doc.commit_with(CommitOptions::default().with_time(1).with_message("first"));
        doc.put(ROOT, "status", "\"amended\"").unwrap();
        doc.commit_with(CommitOptions::default().with_time(time));
        let change = doc.get_last_local_change().unwrap().clone();
        (change.raw_bytes().to_vec(), change)
    }

    fn entry(record: &str) -> Entry {
        let (chunk, _) = real_chunk(5);
        let home = OrgId::new("dong-van").unwrap();
        Entry::new(record.parse().unwrap(), home, Lane::Normal, chunk.into()).unwrap()
    }

    #[test]
    fn the_header_reads_as_automerge_reads_it() {
        for time in [0, 1, -1, 63, 64, -64, -65, 1_800_000_000_000, i64::MAX / 4, i64::MIN / 4] {
            let (chunk, change) = real_chunk(time);
            let header = ChangeHeader::parse(&chunk).unwrap();
            assert_eq!(header.hash.0, change.hash().0);
            assert_eq!(header.deps.iter().map(|d| d.0).collect::<Vec<_>>(), [change.deps()[0].0]);
            assert_eq!(header.origin.0, [7; 16]);
            assert_eq!(header.place, (None, 2));
            assert_eq!(header.stamp, Stamp(time));
        }
    }

    #[test]
    fn every_flipped_bit_of_a_change_is_refused() {
        let (chunk, _) = real_chunk(5);
        for bit in 0..chunk.len() * 8 {
            let mut bad = chunk.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(ChangeHeader::parse(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn compressed_and_large_chunks_are_refused() {
        let (mut chunk, _) = real_chunk(5);
        chunk[8] = CHUNK_COMPRESSED;
        assert_eq!(ChangeHeader::parse(&chunk), Err(ChangeError::Compressed));
        let around = opaque_chunk(Incarnation([3; 16]), 1, &[], Stamp(1), &[0; 100_000]).len() - 100_000;
        for (bytes, fits) in [(CHANGE_MAX_BYTES, true), (CHANGE_MAX_BYTES + 1, false)] {
            let chunk = opaque_chunk(Incarnation([3; 16]), 1, &[], Stamp(1), &vec![0; bytes - around]);
            assert_eq!(chunk.len(), bytes);
            assert_eq!(ChangeHeader::parse(&chunk).err(), (!fits).then_some(ChangeError::TooLarge(bytes)));
        }
    }

    #[test]
    fn an_entry_round_trips_and_its_hash_covers_the_record() {
        let one = entry("Patient/1");
        let mut w = Writer::default();
        one.encode(&mut w);
        assert_eq!(Entry::decode(&mut Reader(&w.0)).unwrap(), one);
        assert_eq!((one.stamp(), one.place(), one.origin().0), (Stamp(5), (None, 2), [7; 16]));
        assert_ne!(one.hash(), entry("Patient/2").hash());
        assert_eq!(one.change_hash(), entry("Patient/2").change_hash());
    }

    #[test]
    fn fields_of_a_later_version_are_kept_and_hashed() {
        let plain = entry("Patient/1");
        let (home, change) = (plain.home().clone(), plain.change().clone());
        let later =
            Entry::assemble(plain.record().clone(), home, plain.lane(), Box::new([7, 8]), change).unwrap();
        let mut w = Writer::default();
        later.encode(&mut w);
        let decoded = Entry::decode(&mut Reader(&w.0)).unwrap();
        assert_eq!((&decoded, decoded.extension()), (&later, &[7, 8][..]));
        assert_ne!(decoded.hash(), plain.hash());
        assert_eq!((later.encoded_len() - plain.encoded_len(), plain.extension()), (2, &[][..]));
        assert!(w.0.len().abs_diff(later.encoded_len()) < 8);
    }

    #[test]
    fn what_is_issued_has_its_issuer_for_its_home() {
        let (chunk, _) = real_chunk(5);
        for (home, right) in [("trung-uong", true), ("dong-van", false)] {
            let record: RecordId = "Library/o.trung-uong.7".parse().unwrap();
            let home = OrgId::new(home).unwrap();
            let made = Entry::new(record.clone(), home.clone(), Lane::Bulk, chunk.clone().into());
            assert_eq!(made.err(), (!right).then_some(ChangeError::NotIssuer { record, home }));
        }
    }

    #[test]
    fn an_entry_says_how_secret_it_is() {
        for degree in Secrecy::ALL {
            let labelled = entry("Patient/1").with_secrecy(degree);
            assert_eq!(labelled.secrecy(), degree);
            assert_eq!(labelled == entry("Patient/1"), degree == Secrecy::None);
            let mut w = Writer::default();
            labelled.encode(&mut w);
            assert_eq!(Entry::decode(&mut Reader(&w.0)).unwrap().secrecy(), degree);
        }
        let raised = entry("Patient/1").with_secrecy(Secrecy::Mat).with_secrecy(Secrecy::TuyetMat);
        assert_eq!(
            (raised.secrecy(), raised.clone().with_secrecy(Secrecy::Mat)),
            (Secrecy::TuyetMat, raised)
        );
        // Beside a signature, in either order.
        let (chunk, _) = real_chunk(5);
        let record: RecordId = "Library/o.trung-uong.7".parse().unwrap();
        let issued = Entry::new(record, OrgId::new("trung-uong").unwrap(), Lane::Bulk, chunk.into()).unwrap();
        let signed = issued.clone().signed(|_| vec![7; 64]).with_secrecy(Secrecy::ToiMat);
        assert_eq!(signed, issued.clone().with_secrecy(Secrecy::ToiMat).signed(|_| vec![7; 64]));
        assert_eq!((signed.signature(), signed.secrecy()), (Some(&[7; 64][..]), Secrecy::ToiMat));
        // What cannot be understood is the highest; what is no field says nothing.
        for (extension, secrecy) in [
            (&[2, 1, 9][..], Secrecy::TuyetMat),
            (&[2, 0], Secrecy::TuyetMat),
            (&[2, 2, 1, 1], Secrecy::TuyetMat),
            (&[9, 1, 2, 2, 1, 1], Secrecy::Mat),
            (&[2], Secrecy::None),
        ] {
            let Entry { record, home, lane, change, .. } = issued.clone();
            let entry = Entry::assemble(record, home, lane, extension.into(), change).unwrap();
            assert_eq!(entry.secrecy(), secrecy, "{extension:?}");
        }
    }

    #[test]
    fn a_statement_is_of_one_entry() {
        let [one, other] = [5, 6].map(|time| real_chunk(time).0);
        let of = |record: &str, lane, chunk: &[u8]| {
            let record: RecordId = record.parse().unwrap();
            let home = record.issuer().unwrap();
            Entry::new(record, home, lane, chunk.into()).unwrap().statement()
        };
        let statements = [
            of("Library/o.trung-uong.7", Lane::Bulk, &one),
            of("Library/o.trung-uong.7", Lane::Bulk, &other),
            of("Library/o.trung-uong.7", Lane::Urgent, &one),
            of("Library/o.trung-uong.8", Lane::Bulk, &one),
            of("Library/o.ha-giang.7", Lane::Bulk, &one),
        ];
        for (n, statement) in statements.iter().enumerate() {
            assert!(statement.starts_with(ISSUED_DOMAIN));
            assert!(!statements[..n].contains(statement), "{n}");
        }
    }

    #[test]
    fn an_issued_entry_carries_its_authors_signature() {
        let (chunk, _) = real_chunk(5);
        let record: RecordId = "Library/o.trung-uong.7".parse().unwrap();
        let plain = Entry::new(record, OrgId::new("trung-uong").unwrap(), Lane::Bulk, chunk.into()).unwrap();
        assert_eq!(plain.signature(), None);
        let signed = plain.clone().signed(|statement| {
            assert_eq!(statement, plain.statement());
            vec![7; 64]
        });
        assert_eq!((signed.signature(), signed.statement()), (Some(&[7; 64][..]), plain.statement()));
        assert_ne!(signed.hash(), plain.hash());
        let mut w = Writer::default();
        signed.encode(&mut w);
        assert_eq!(Entry::decode(&mut Reader(&w.0)).unwrap(), signed);
        // Once is enough, and what nobody issues is not signed.
        let again = signed.clone().signed(|_| unreachable!("it is signed"));
        assert_eq!(again, signed);
        let usual = entry("Patient/1");
        assert_eq!(usual.clone().signed(|_| unreachable!("it is of the usual kind")), usual);
        // Fields of a later version are no signature.
        for extension in [&[2, 1, 7][..], &[1, 9, 7], &[1], &[]] {
            let Entry { record, home, lane, change, .. } = plain.clone();
            let later = Entry::assemble(record, home, lane, extension.into(), change).unwrap();
            assert_eq!(later.signature(), None, "{extension:?}");
        }
    }

    #[test]
    fn debug_names_an_entry_and_shows_nothing_of_its_change() {
        let shown = format!("{:?}", entry("Patient/1"));
        assert!(shown.starts_with("Entry(Patient/1 ") && !shown.contains("amended"), "{shown}");
    }

    #[test]
    fn the_attachments_of_an_entry_stand_in_its_header_and_are_signed_with_it() {
        use crate::{attachment::Attachment, id::ContentHash};
        let one = Attachment { hash: ContentHash([7; 32]), size: 20_000 };
        let plain = entry("Patient/1");
        assert_eq!(plain.attachments(), []);
        let named = plain.clone().with_attachments(&[one]);
        assert_eq!(named.attachments(), [one]);
        assert_ne!(named.hash(), plain.hash());
        assert_eq!(named.change_hash(), plain.change_hash());
        assert_eq!(plain.clone().with_attachments(&[]), plain);
        let mut w = Writer::default();
        named.encode(&mut w);
        assert_eq!(Entry::decode(&mut Reader(&w.0)).unwrap(), named);
        // Whoever signs signs them; and what cannot be read names none.
        let issued = entry("Basic/o.dong-van.1");
        assert_ne!(issued.statement(), issued.clone().with_attachments(&[one]).statement());
        assert_eq!(plain.with_field(FIELD_ATTACHMENTS, &[1, 2, 3]).attachments(), []);
        // All that a header may hold fits.
        let all: Vec<_> = (0..attachment::NAMED_MAX as u8)
            .map(|n| Attachment { hash: ContentHash([n; 32]), ..one })
            .collect();
        let org = OrgId::new(&"o".repeat(63)).unwrap();
        let grant = |n| {
            grant::Step::Opens(grant::Grant { id: grant::GrantId([n; 16]), to: org.clone(), until: i64::MAX })
        };
        let grants: Vec<_> = (0..grant::GRANTS_MAX as u8).map(grant).collect();
        let full = entry("Patient/1").with_attachments(&all).with_grants(&grants).with_secrecy(Secrecy::Mat);
        let full = full.signed(|_| vec![0; SIGNATURE_MAX_BYTES]);
        assert!(full.extension().len() as u64 <= EXTENSION_MAX_BYTES, "{}", full.extension().len());
        let mut w = Writer::default();
        full.encode(&mut w);
        assert_eq!(Entry::decode(&mut Reader(&w.0)).unwrap().attachments(), all);
    }

    #[test]
    fn an_opaque_chunk_has_a_readable_header() {
        for stamp in [-70, 0, i64::MAX, i64::MIN].map(Stamp) {
            let chunk = opaque_chunk(Incarnation([3; 16]), 9, &[ChangeHash([1; 32])], stamp, b"body");
            let header = ChangeHeader::parse(&chunk).unwrap();
            assert_eq!((header.origin, header.stamp, header.place), (Incarnation([3; 16]), stamp, (None, 9)));
            assert_eq!(header.deps, [ChangeHash([1; 32])]);
        }
    }
}
