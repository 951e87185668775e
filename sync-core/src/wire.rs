//! The wire: every frame that two neighbours exchange, byte by byte as `docs/PROTOCOL.md` gives it.
//!
//! A frame is `length varint | type u8 | payload`; the length counts type and payload. Frames travel on one
//! control stream and one stream for each lane, which carries only [`Frame::Batch`], and one for content,
//! which carries only [`Frame::Tree`] and [`Frame::Bytes`]. Decoding never
//! panics, never allocates beyond a named limit, and gives every value one encoding.

use crate::{
    attachment::{Kept, Name},
    audit::{Prefix, Range, Short},
    change::{ChangeError, Entry},
    codec::{DecodeError, Reader, Writer},
    feed::{Cursor, Digest, Position},
    id::{
        Chain, ChangeHash, ContentHash, EntryHash, Incarnation, Lane, Lanes, ORG_ID_MAX_BYTES, OrgId,
        RecordId, Secrecy,
    },
    identity::{Announcement, Malformed, Revocation},
    order::Order,
};

pub(crate) use attachments::{name as content_name, put_name as put_content_name};

mod attachments;
mod audit;
mod compress;
#[cfg(test)]
mod golden;

/// The protocol that this crate speaks, as negotiated by ALPN.
pub const ALPN: &[u8] = b"tuyen/1";
/// Last position of a segment: stores keep positions as signed 64-bit numbers.
pub const POSITION_MAX: u64 = i64::MAX as u64;
/// Largest frame, in bytes: one entry of the largest change that does not compress, and its batch header.
pub const FRAME_MAX_BYTES: u64 = (1 << 20) + (64 << 10);
/// Most bytes of a batch when unpacked: a batch closes when it reaches [`BATCH_MAX_RAW_BYTES`], but one entry
/// always fits.
pub const UNPACKED_MAX_BYTES: u64 = 2 * (1 << 20) + (64 << 10);
/// A batch is closed when its entries reach this many bytes unpacked.
pub const BATCH_MAX_RAW_BYTES: usize = 1 << 20;
/// Most entries of a batch.
pub const BATCH_MAX_ENTRIES: usize = 4096;
/// Most cursors of one HELLO: a reader names one for each lane.
pub const CURSORS_MAX: u64 = 3;
/// Most bytes of a text that explains a refusal.
pub const TEXT_MAX_BYTES: u64 = 1024;
/// Most bytes of the software's name and version in a HELLO.
pub const SOFTWARE_MAX_BYTES: u64 = 64;

/// Most prefixes of one LOOK.
pub const LOOK_MAX: usize = 64;
/// Most entries that are asked for at once.
pub const WANT_MAX: usize = 256;
/// Most organizations of one BELOW.
pub const BELOW_MAX: usize = 1024;
/// Entries of a repair are sent until they have so many bytes unpacked.
pub const REPAIR_MAX_RAW_BYTES: usize = 64 << 10;

/// Most bytes of content that are asked for at once: eight seconds of a line of 64 kbit/s.
pub const ASK_MAX_BYTES: u64 = 64 << 10;
/// Most bytes of content of one frame.
pub const CONTENT_FRAME_MAX_BYTES: usize = 4 << 10;

/// What is wrong with a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes are not a frame.
    #[error("malformed frame: {0}")]
    Decode(#[from] DecodeError),
    /// An announcement, a revocation or an order is malformed.
    #[error("malformed frame: {0}")]
    Identity(#[from] Malformed),
    /// A frame type that this version does not know.
    #[error("unknown frame type {0}")]
    UnknownType(u8),
    /// An entry of a batch is not acceptable.
    #[error("entry {index} of a batch: {error}")]
    Entry {
        /// Which one, from 0.
        index: usize,
        /// Why.
        error: ChangeError,
    },
    /// The compressed part of a batch does not unpack.
    #[error("the batch does not unpack: {0}")]
    Unpack(&'static str),
    /// The entries are not the ones that the sender had stored.
    #[error("the batch is damaged: its entries do not have the digest that the sender announced")]
    BatchDigest,
}

/// Opens the control stream: who is running, where its own feed ends, how far it has read the other's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// This run of the sender's process.
    pub run: Incarnation,
    /// The sender's software and version, for people.
    pub software: String,
    /// The end of the sender's own feed; none when nothing was ever written.
    pub tip: Option<Position>,
    /// How far the sender has read the receiver's feed, by lane; a missing lane has not been read.
    pub cursors: Vec<(Lane, Cursor)>,
    /// Digest of the revocations and orders that the sender knows: equal sets have equal digests.
    pub revocations: u64,
    /// How secret what goes over this link may be by the sender's profile.
    pub allows: Secrecy,
}

/// Entries of one origin and one lane, in the order of the sender's feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryBatch {
    /// The lane.
    pub lane: Lane,
    /// The segment of the sender's feed.
    pub segment: Incarnation,
    /// The reader has read this segment's lane up to here before this batch.
    pub after: u64,
    /// With this batch the reader has read up to this position, whose running hash is given. None when further
    /// batches of the same stretch, of other origins, follow.
    pub upto: Option<(u64, Chain)>,
    /// The run that wrote the changes.
    pub origin: Incarnation,
    /// The entries, each with its position in the segment.
    pub entries: Vec<(u64, Entry)>,
}

/// Entries that somebody asks for in an audit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Want {
    /// By their names: of these the asker has damaged rows.
    pub named: Vec<(RecordId, ChangeHash)>,
    /// By the beginnings of their hashes.
    pub hashes: Vec<Short>,
}

/// Asks for a part of content, and before it for the chaining values of its pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Which.
    pub name: Name,
    /// From which byte.
    pub from: u64,
    /// How many bytes, at most [`ASK_MAX_BYTES`].
    pub len: u64,
    /// Whether the asker does not have the chaining values.
    pub tree: bool,
}

/// What neighbours say to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// First on the control stream, in both directions.
    Hello(Hello),
    /// A run, signed by its node. The certificate chain is left out when the run is the sender's own.
    Announce(Announcement),
    /// Asks for the announcement of a run.
    Need(Incarnation),
    /// Asks for the announcement of any run of an organization's node: the asker does not know where it stands.
    NeedPlace(OrgId),
    /// The sender does not know a cursor of the reader, or does not remember having written as far: it is an older
    /// copy, or not the only writer. All its segments are announced, and the reader is to name places in them.
    Lost,
    /// The reader's answer to [`Frame::Lost`].
    Cursors(Vec<(Lane, Cursor)>),
    /// Entries.
    Batch(EntryBatch),
    /// Everything of this lane up to this place of the receiver's feed is durable at the sender.
    Ack(Lane, Position),
    /// Everything of this lane up to this place of the receiver's feed is durable at the root.
    SafeAtRoot(Lane, Position),
    /// All revocations that the sender knows.
    Revocations(Vec<Revocation>),
    /// Orders that the sender knows. Where two are no neighbours by their certificates they come before HELLO, and an empty
    /// list after them says that these were all.
    Orders(Vec<Order>),
    /// Begins an audit: what do the receiver's entries of the child's part of the tree come to?
    Audit,
    /// The answer to [`Frame::Audit`]; none when the sender has something else to do.
    Total(Option<Digest>),
    /// Asks what there is of some ranges of hashes.
    Look(Vec<Prefix>),
    /// The answer to [`Frame::Look`], range by range.
    Ranges(Vec<Range>),
    /// Asks for entries.
    Want(Want),
    /// Entries: the answer to [`Frame::Want`], as far as the sender has them and they fit; or, from who has begun the
    /// audit, such as the receiver lacks.
    Repair(Vec<Entry>),
    /// So many of the entries of a [`Frame::Repair`] were lacking, and are durable.
    Repaired(u64),
    /// The lanes that the sender takes from now on; all, as long as it says nothing. The only frame that may come before
    /// [`Frame::Hello`], so that nothing slips through in between.
    Lanes(Lanes),
    /// So many entries of the sender's feed are still to come, as far as they have not been sent. It is said when they are more
    /// than go out at once, now and then while they become fewer, and when there are none any more.
    ToCome(u64),
    /// How many entries are still to come from organizations that stand below the sender, as each has said last. Its readers are
    /// people; at most [`BELOW_MAX`] of them.
    Below(Vec<(OrgId, u64)>),
    /// Asks for content.
    Ask(Ask),
    /// Before the first bytes: the chaining values of all pieces.
    Tree(ContentHash, Vec<[u8; 32]>),
    /// A part of content, of one piece.
    Bytes {
        /// Of what.
        hash: ContentHash,
        /// From which byte.
        from: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// The sender does not have it, or it is not for the receiver.
    Nothing(Name),
    /// Where all of some content is: at the sender, or at the root as well.
    Kept(Name, Kept),
    /// The sender ends the session, and says why.
    Refuse {
        /// A stable number, for programs.
        code: u16,
        /// What, why, and what to do, for people.
        text: String,
    },
}

mod frame_type {
    pub const HELLO: u8 = 1;
    pub const ANNOUNCE: u8 = 2;
    pub const NEED: u8 = 3;
    pub const LOST: u8 = 4;
    pub const CURSORS: u8 = 5;
    pub const BATCH: u8 = 6;
    pub const ACK: u8 = 7;
    pub const SAFE_AT_ROOT: u8 = 8;
    pub const REVOCATIONS: u8 = 9;
    pub const REFUSE: u8 = 10;
    pub const NEED_PLACE: u8 = 11;
    pub const AUDIT: u8 = 12;
    pub const TOTAL: u8 = 13;
    pub const LOOK: u8 = 14;
    pub const RANGES: u8 = 15;
    pub const WANT: u8 = 16;
    pub const REPAIR: u8 = 17;
    pub const REPAIRED: u8 = 18;
    pub const ORDERS: u8 = 19;
    pub const LANES: u8 = 20;
    pub const ASK: u8 = 21;
    pub const TREE: u8 = 22;
    pub const BYTES: u8 = 23;
    pub const NOTHING: u8 = 24;
    pub const KEPT: u8 = 25;
    pub const TO_COME: u8 = 26;
    pub const BELOW: u8 = 27;
}

impl Frame {
    /// The whole frame, with its length.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Writer::default();
        self.encode_body(&mut body);
        let mut out = Writer::default();
        out.bytes(&body.0);
        out.0
    }

    fn encode_body(&self, w: &mut Writer) {
        match self {
            Frame::Hello(hello) => {
                w.u8(frame_type::HELLO).raw(&hello.run.0).bytes(clip(&hello.software, SOFTWARE_MAX_BYTES));
                option(w, hello.tip, put_position);
                put_cursors(w, &hello.cursors);
                w.raw(&hello.revocations.to_be_bytes()).u8(hello.allows as u8);
            }
            Frame::Announce(announcement) => {
                w.u8(frame_type::ANNOUNCE).raw(&announcement.encode());
            }
            Frame::Need(incarnation) => {
                w.u8(frame_type::NEED).raw(&incarnation.0);
            }
            Frame::NeedPlace(org) => {
                w.u8(frame_type::NEED_PLACE).bytes(org.as_str().as_bytes());
            }
            Frame::Lost => {
                w.u8(frame_type::LOST);
            }
            Frame::Cursors(cursors) => {
                w.u8(frame_type::CURSORS);
                put_cursors(w, cursors);
            }
            Frame::Batch(batch) => put_batch(w, batch),
            Frame::Ack(lane, at) => {
                w.u8(frame_type::ACK).u8(*lane as u8);
                put_position(w, *at);
            }
            Frame::SafeAtRoot(lane, at) => {
                w.u8(frame_type::SAFE_AT_ROOT).u8(*lane as u8);
                put_position(w, *at);
            }
            Frame::Revocations(all) => {
                w.u8(frame_type::REVOCATIONS).varint(all.len() as u64);
                all.iter().for_each(|one| {
                    w.bytes(&one.encode());
                });
            }
            Frame::Orders(all) => {
                w.u8(frame_type::ORDERS).varint(all.len() as u64);
                all.iter().for_each(|one| {
                    w.bytes(&one.encode());
                });
            }
            Frame::Audit => {
                w.u8(frame_type::AUDIT);
            }
            Frame::Total(total) => audit::put_total(w, *total),
            Frame::Look(prefixes) => audit::put_look(w, prefixes),
            Frame::Ranges(ranges) => audit::put_ranges(w, ranges),
            Frame::Want(want) => audit::put_want(w, want),
            Frame::Repair(entries) => audit::put_repair(w, entries),
            Frame::Repaired(count) => {
                w.u8(frame_type::REPAIRED).varint(*count);
            }
            Frame::Lanes(lanes) => {
                w.u8(frame_type::LANES).u8(lanes.bits());
            }
            Frame::ToCome(count) => {
                w.u8(frame_type::TO_COME).varint(*count);
            }
            Frame::Below(all) => {
                w.u8(frame_type::BELOW).varint(all.len() as u64);
                all.iter().for_each(|(org, count)| {
                    w.bytes(org.as_str().as_bytes()).varint(*count);
                });
            }
            Frame::Ask(ask) => attachments::put_ask(w, ask),
            Frame::Tree(hash, values) => attachments::put_tree(w, hash, values),
            Frame::Bytes { hash, from, bytes } => {
                w.u8(frame_type::BYTES).raw(&hash.0).varint(*from).bytes(bytes);
            }
            Frame::Nothing(name) => attachments::put_name(w.u8(frame_type::NOTHING), name),
            Frame::Kept(name, kept) => attachments::put_kept(w, name, *kept),
            Frame::Refuse { code, text } => {
                w.u8(frame_type::REFUSE).raw(&code.to_be_bytes()).bytes(clip(text, TEXT_MAX_BYTES));
            }
        }
    }

    /// Reads the body of a frame: what follows its length.
    pub fn decode(body: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader(body);
        let frame = match r.u8("the frame type")? {
            frame_type::HELLO => Frame::Hello(Hello {
                run: Incarnation(r.array("the run")?),
                software: r.str(SOFTWARE_MAX_BYTES, "the software")?.to_owned(),
                tip: get_option(&mut r, position)?,
                cursors: cursors(&mut r)?,
                revocations: u64::from_be_bytes(r.array("the digest of revocations")?),
                allows: degree(&mut r)?,
            }),
            frame_type::ANNOUNCE => {
                let rest = r.take(r.0.len(), "the announcement")?;
                Frame::Announce(Announcement::decode(rest)?)
            }
            frame_type::NEED => Frame::Need(Incarnation(r.array("the run")?)),
            frame_type::NEED_PLACE => Frame::NeedPlace(org(&mut r)?),
            frame_type::LOST => Frame::Lost,
            frame_type::CURSORS => Frame::Cursors(cursors(&mut r)?),
            frame_type::BATCH => Frame::Batch(batch(&mut r)?),
            frame_type::ACK => Frame::Ack(lane(&mut r)?, position(&mut r)?),
            frame_type::SAFE_AT_ROOT => Frame::SafeAtRoot(lane(&mut r)?, position(&mut r)?),
            frame_type::REVOCATIONS => Frame::Revocations(statements(&mut r, Revocation::decode)?),
            frame_type::ORDERS => Frame::Orders(statements(&mut r, Order::decode)?),
            frame_type::AUDIT => Frame::Audit,
            frame_type::TOTAL => Frame::Total(audit::total(&mut r)?),
            frame_type::LOOK => Frame::Look(audit::look(&mut r)?),
            frame_type::RANGES => Frame::Ranges(audit::ranges(&mut r)?),
            frame_type::WANT => Frame::Want(audit::want(&mut r)?),
            frame_type::REPAIR => Frame::Repair(audit::repair(&mut r)?),
            frame_type::REPAIRED => Frame::Repaired(r.varint("the number of entries")?),
            frame_type::LANES => {
                let bits = r.u8("the lanes")?;
                Frame::Lanes(Lanes::from_bits(bits).ok_or(DecodeError::Value("the lanes"))?)
            }
            frame_type::TO_COME => Frame::ToCome(r.varint("the number of entries")?),
            frame_type::BELOW => {
                let count = r.bounded(BELOW_MAX as u64, "the number of organizations")?;
                let one = |_| Ok((org(&mut r)?, r.varint("the number of entries")?));
                Frame::Below((0..count).map(one).collect::<Result<_, WireError>>()?)
            }
            frame_type::ASK => Frame::Ask(attachments::ask(&mut r)?),
            frame_type::TREE => attachments::tree(&mut r)?,
            frame_type::BYTES => attachments::bytes(&mut r)?,
            frame_type::NOTHING => Frame::Nothing(attachments::name(&mut r)?),
            frame_type::KEPT => Frame::Kept(attachments::name(&mut r)?, attachments::kept(&mut r)?),
            frame_type::REFUSE => Frame::Refuse {
                code: u16::from_be_bytes(r.array("the code")?),
                text: r.str(TEXT_MAX_BYTES, "the text")?.to_owned(),
            },
            other => return Err(WireError::UnknownType(other)),
        };
        r.end()?;
        Ok(frame)
    }
}

fn org(r: &mut Reader<'_>) -> Result<OrgId, WireError> {
    let name = r.str(ORG_ID_MAX_BYTES as u64, "the organization")?;
    Ok(OrgId::new(name).map_err(|_| DecodeError::Value("the organization"))?)
}

fn statements<T>(
    r: &mut Reader<'_>,
    decode: impl Fn(&[u8]) -> Result<T, Malformed>,
) -> Result<Vec<T>, WireError> {
    let count = r.bounded(4096, "the number of statements")?;
    (0..count).map(|_| Ok(decode(r.bytes(FRAME_MAX_BYTES, "a statement")?)?)).collect()
}

/// The longest front part of a text that fits.
fn clip(text: &str, max_bytes: u64) -> &[u8] {
    &text.as_bytes()[..text.floor_char_boundary(max_bytes as usize)]
}

fn option<T>(w: &mut Writer, value: Option<T>, put: impl FnOnce(&mut Writer, T)) {
    match value {
        None => {
            w.u8(0);
        }
        Some(value) => put(w.u8(1), value),
    }
}

fn get_option<T>(
    r: &mut Reader<'_>,
    get: impl FnOnce(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<Option<T>, DecodeError> {
    match r.u8("an option")? {
        0 => Ok(None),
        1 => get(r).map(Some),
        _ => Err(DecodeError::Value("an option")),
    }
}

fn put_position(w: &mut Writer, at: Position) {
    w.raw(&at.segment.0).varint(at.pos);
}

fn position(r: &mut Reader<'_>) -> Result<Position, DecodeError> {
    Ok(Position {
        segment: Incarnation(r.array("the segment")?),
        pos: r.bounded(POSITION_MAX, "the position")? as u64,
    })
}

fn degree(r: &mut Reader<'_>) -> Result<Secrecy, DecodeError> {
    let number = usize::from(r.u8("what is allowed")?);
    Secrecy::ALL.get(number).copied().ok_or(DecodeError::Value("what is allowed"))
}

fn lane(r: &mut Reader<'_>) -> Result<Lane, DecodeError> {
    Lane::from_u8(r.u8("the lane")?).ok_or(DecodeError::Value("the lane"))
}

/// Cursors are grouped: lanes that stand at the same place share one. Groups are in the order of their first lanes.
pub(crate) fn put_cursors(w: &mut Writer, cursors: &[(Lane, Cursor)]) {
    let mut groups: Vec<(u8, Cursor)> = Vec::new();
    for (lane, cursor) in cursors {
        match groups.iter_mut().find(|(_, known)| known == cursor) {
            Some((mask, _)) => *mask |= 1 << *lane as u8,
            None => groups.push((1 << *lane as u8, *cursor)),
        }
    }
    w.varint(groups.len() as u64);
    for (mask, cursor) in groups {
        put_position(w.u8(mask), cursor.at);
        option(w, cursor.chain, |w, chain| {
            w.raw(&chain.0);
        });
    }
}

pub(crate) fn cursors(r: &mut Reader<'_>) -> Result<Vec<(Lane, Cursor)>, DecodeError> {
    let groups = r.bounded(CURSORS_MAX, "the cursors")?;
    let mut cursors: Vec<(Lane, Cursor)> = Vec::new();
    let (mut seen, mut first) = (0u8, 0u32);
    for _ in 0..groups {
        let mask = r.u8("the lanes of a cursor")?;
        if mask == 0 || mask > 0b111 || mask & seen != 0 || mask.trailing_zeros() < first {
            return Err(DecodeError::Value("the lanes of a cursor"));
        }
        (seen, first) = (seen | mask, mask.trailing_zeros());
        let at = position(r)?;
        let chain = get_option(r, |r| Ok(Chain(r.array("the running hash")?)))?;
        let cursor = Cursor { at, chain };
        if cursors.iter().any(|(_, known)| *known == cursor) {
            return Err(DecodeError::Value("a cursor that is given twice"));
        }
        let lanes = Lane::ALL.into_iter().filter(|lane| mask & (1 << *lane as u8) != 0);
        cursors.extend(lanes.map(|lane| (lane, cursor)));
    }
    cursors.sort_by_key(|(lane, _)| *lane);
    Ok(cursors)
}

/// The first 16 bytes of SHA-256 over the entries' hashes, in order.
fn batch_digest<'a>(hashes: impl Iterator<Item = &'a EntryHash>) -> [u8; 16] {
    use sha2::{Digest, Sha256};
    let mut hasher = Sha256::new();
    hashes.for_each(|hash| hasher.update(hash.0));
    let digest: [u8; 32] = hasher.finalize().into();
    digest[..16].try_into().expect("sixteen bytes")
}

fn put_batch(w: &mut Writer, batch: &EntryBatch) {
    w.u8(frame_type::BATCH).u8(batch.lane as u8).raw(&batch.segment.0).varint(batch.after);
    option(w, batch.upto, |w, (upto, chain)| {
        w.varint(upto).raw(&chain.0);
    });
    w.varint(batch.entries.len() as u64);
    if batch.entries.is_empty() {
        return;
    }
    w.raw(&batch.origin.0);
    w.raw(&batch_digest(batch.entries.iter().map(|(_, entry)| entry.hash()).collect::<Vec<_>>().iter()));
    let mut raw = Writer::default();
    let mut before = 0;
    for (pos, entry) in &batch.entries {
        raw.varint(pos - before);
        entry.encode(&mut raw);
        before = *pos;
    }
    let (dictionary, packed) = compress::pack(&raw.0);
    w.u8(dictionary).varint(raw.0.len() as u64).bytes(&packed);
}

fn batch(r: &mut Reader<'_>) -> Result<EntryBatch, WireError> {
    let lane = lane(r)?;
    let segment = Incarnation(r.array("the segment")?);
    let after = r.bounded(POSITION_MAX, "the position before")? as u64;
    let upto = get_option(r, |r| {
        Ok((r.bounded(POSITION_MAX, "the last position")? as u64, Chain(r.array("the running hash")?)))
    })?;
    let count = r.bounded(BATCH_MAX_ENTRIES as u64, "the number of entries")?;
    if count == 0 {
        return Ok(EntryBatch { lane, segment, after, upto, origin: segment, entries: Vec::new() });
    }
    let origin = Incarnation(r.array("the origin")?);
    let digest: [u8; 16] = r.array("the batch digest")?;
    let dictionary = r.u8("the dictionary")?;
    let raw_len = r.bounded(UNPACKED_MAX_BYTES, "the unpacked batch")?;
    let raw = compress::unpack(dictionary, r.bytes(FRAME_MAX_BYTES, "the packed batch")?, raw_len)?;
    let mut raw = Reader(&raw);
    let mut entries = Vec::with_capacity(count);
    let mut pos = 0u64;
    for index in 0..count {
        let step = raw.varint("a position")?;
        pos = pos
            .checked_add(step)
            .filter(|pos| step > 0 && *pos <= POSITION_MAX)
            .ok_or(DecodeError::Value("a position"))?;
        let entry = Entry::decode(&mut raw).map_err(|error| WireError::Entry { index, error })?;
        entries.push((pos, entry));
    }
    raw.end()?;
    let hashes: Vec<_> = entries.iter().map(|(_, entry)| entry.hash()).collect();
    if batch_digest(hashes.iter()) != digest {
        return Err(WireError::BatchDigest);
    }
    Ok(EntryBatch { lane, segment, after, upto, origin, entries })
}

/// Cuts a byte stream into frame bodies.
#[derive(Default)]
pub struct Deframer {
    buffer: Vec<u8>,
    start: usize,
}

impl Deframer {
    /// Takes bytes as they arrive.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 && self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, WireError> {
        let pending = &self.buffer[self.start..];
        let mut r = Reader(pending);
        let length = match r.bounded(FRAME_MAX_BYTES, "the frame") {
            Ok(length) => length,
            Err(DecodeError::Short(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if r.0.len() < length {
            return Ok(None);
        }
        let header = pending.len() - r.0.len();
        let frame = Frame::decode(&r.0[..length])?;
        self.start += header + length;
        if self.start > 1 << 16 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        Ok(Some(frame))
    }

    /// Bytes that are not a whole frame yet.
    pub fn pending_bytes(&self) -> usize {
        self.buffer.len() - self.start
    }
}
