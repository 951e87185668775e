//! Courier bundles: one direction of a session written down, for a stick that somebody carries to a neighbour.
//!
//! This is what stands around the frames: who has made the bundle for whom, where it goes on, and, at its end, what was
//! in it. Frames are those of [`crate::wire`]. What always holds: decoding never panics, never allocates beyond a named
//! limit, and gives every value one encoding. Not here: the seal and the signature (`node::courier`), and what is taken of
//! a bundle ([`crate::engine::Event::Bundle`]).
//!
//! ```text
//! content   := length varint | head | frame ... | 0 u8 | length varint | tail | signature length u8 | signature | zeros
//! head      := 1 u8 | sender[16] | recipient[16] | made i64 | cursors | chain
//! tail      := entries varint, by lane | cursors | more u8
//! ```

use std::collections::BTreeMap;

use crate::{
    attachment::Name,
    codec::{DecodeError, Reader, Writer},
    feed::Cursor,
    id::{Lane, NodeId},
    identity::{CERTIFICATE_MAX_BYTES, CHAIN_MAX_CERTIFICATES},
    wire::{content_name, cursors, put_content_name, put_cursors},
};

/// Attachments, each with a byte of it.
pub type ContentPlaces = BTreeMap<Name, u64>;

/// The version of the content that this crate writes and reads.
pub const VERSION: u8 = 1;
/// Most bytes of a head: a chain of the largest certificates, and the rest.
pub const HEAD_MAX_BYTES: u64 = (CHAIN_MAX_CERTIFICATES * (CERTIFICATE_MAX_BYTES + 2) + 512) as u64;
/// Most bytes of a tail.
pub const TAIL_MAX_BYTES: u64 = 256;
/// What is signed: this, and the SHA-256 of everything before the signature.
const SIGNED: &[u8] = b"tuyen bundle v1\0";

/// What a bundle says before its frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The node that has made it.
    pub sender: NodeId,
    /// The node that it is for.
    pub recipient: NodeId,
    /// When it was made, in milliseconds since 1970 by the sender's clock; later than any that it has made before.
    pub made: i64,
    /// The places of the sender's feed from which it goes on, by lane; a lane that is missing begins at the beginning.
    pub from: Vec<(Lane, Cursor)>,
    /// The sender's certificates, DER, its own first, without the root's.
    pub chain: Vec<Vec<u8>>,
}

/// What a bundle says behind its frames.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tail {
    /// Entries, by lane.
    pub entries: [u64; 3],
    /// The places of the sender's feed up to which it leads.
    pub upto: Vec<(Lane, Cursor)>,
    /// More was waiting than fitted: another bundle goes on there.
    pub more: bool,
}

impl Head {
    /// The head's bytes, without their length.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.u8(VERSION).raw(&self.sender.0).raw(&self.recipient.0).raw(&self.made.to_be_bytes());
        put_cursors(&mut w, &self.from);
        w.varint(self.chain.len() as u64);
        for certificate in &self.chain {
            w.bytes(certificate);
        }
        w.0
    }

    /// Reads a head.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader(bytes);
        if r.u8("the version")? != VERSION {
            return Err(DecodeError::Value("the version"));
        }
        let (sender, recipient) = (NodeId(r.array("the sender")?), NodeId(r.array("the recipient")?));
        let made = i64::from_be_bytes(r.array("the time")?);
        let from = cursors(&mut r)?;
        let count = r.bounded(CHAIN_MAX_CERTIFICATES as u64, "the chain")?;
        let certificate = |_| Ok(r.bytes(CERTIFICATE_MAX_BYTES as u64, "a certificate")?.to_vec());
        let chain = (0..count).map(certificate).collect::<Result<_, DecodeError>>()?;
        r.end()?;
        Ok(Self { sender, recipient, made, from, chain })
    }
}

impl Tail {
    /// The tail's bytes, without their length.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        for count in self.entries {
            w.varint(count);
        }
        put_cursors(&mut w, &self.upto);
        w.u8(u8::from(self.more));
        w.0
    }

    /// Reads a tail.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader(bytes);
        let mut entries = [0; 3];
        for count in &mut entries {
            *count = r.varint("the number of entries")?;
        }
        let upto = cursors(&mut r)?;
        let more = match r.u8("whether there is more")? {
            0 => false,
            1 => true,
            _ => return Err(DecodeError::Value("whether there is more")),
        };
        r.end()?;
        Ok(Self { entries, upto, more })
    }
}

/// What the sender signs, given the SHA-256 of everything that comes before the signature.
pub fn to_be_signed(hash: [u8; 32]) -> Vec<u8> {
    [SIGNED, &hash].concat()
}

/// Cursors as bytes, for whoever keeps them beside the store.
pub fn encode_cursors(cursors: &[(Lane, Cursor)]) -> Vec<u8> {
    let mut w = Writer::default();
    put_cursors(&mut w, cursors);
    w.0
}

/// The reverse of [`encode_cursors`].
pub fn decode_cursors(bytes: &[u8]) -> Result<Vec<(Lane, Cursor)>, DecodeError> {
    let mut r = Reader(bytes);
    let all = cursors(&mut r)?;
    r.end()?;
    Ok(all)
}

/// Places in attachments as bytes, for whoever keeps them beside the store.
pub fn encode_contents(contents: &ContentPlaces) -> Vec<u8> {
    let mut w = Writer::default();
    for (of, at) in contents {
        put_content_name(&mut w, of);
        w.varint(*at);
    }
    w.0
}

/// The reverse of [`encode_contents`].
pub fn decode_contents(bytes: &[u8]) -> Result<ContentPlaces, DecodeError> {
    let (mut r, mut contents) = (Reader(bytes), ContentPlaces::new());
    while !r.0.is_empty() {
        contents.insert(content_name(&mut r)?, r.varint("a byte of an attachment")?);
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        attachment::Attachment,
        feed::Position,
        id::{Chain, ContentHash, Incarnation},
    };

    fn cursor(segment: u8, pos: u64) -> Cursor {
        let at = Position { segment: Incarnation([segment; 16]), pos };
        Cursor { at, chain: Some(Chain([segment; 16])) }
    }

    fn head() -> Head {
        Head {
            sender: NodeId([1; 16]),
            recipient: NodeId([2; 16]),
            made: 1_795_000_000_000,
            from: vec![(Lane::Urgent, cursor(3, 7)), (Lane::Bulk, cursor(4, 1))],
            chain: vec![vec![5; 500], vec![6; 400]],
        }
    }

    fn tail() -> Tail {
        Tail { entries: [1, 0, 300], upto: vec![(Lane::Normal, cursor(9, 2))], more: true }
    }

    #[test]
    fn what_is_encoded_decodes_and_nothing_else_does() {
        let (h, t) = (head().encode(), tail().encode());
        assert_eq!((Head::decode(&h), Tail::decode(&t)), (Ok(head()), Ok(tail())));
        for end in 0..h.len() {
            assert!(Head::decode(&h[..end]).is_err(), "{end}");
        }
        for end in 0..t.len() {
            assert!(Tail::decode(&t[..end]).is_err(), "{end}");
        }
        assert!(Head::decode(&[&h[..], &[0]].concat()).is_err());
        assert!(Tail::decode(&[&t[..], &[0]].concat()).is_err());
        let mut other = h.clone();
        other[0] = 2;
        assert_eq!(Head::decode(&other), Err(DecodeError::Value("the version")));
        let mut other = t.clone();
        *other.last_mut().unwrap() = 2;
        assert_eq!(Tail::decode(&other), Err(DecodeError::Value("whether there is more")));
        let upto = tail().upto;
        assert_eq!(decode_cursors(&encode_cursors(&upto)), Ok(upto));
    }

    #[test]
    fn places_in_attachments_are_kept() {
        let of = |n: u8, size| Name {
            record: format!("Basic/{n}").parse().unwrap(),
            attachment: Attachment { hash: ContentHash([n; 32]), size },
        };
        let contents: ContentPlaces = [(of(1, 20_000), 16_384), (of(2, 33_000_000), 0)].into();
        let bytes = encode_contents(&contents);
        assert_eq!(decode_contents(&bytes), Ok(contents));
        assert_eq!(decode_contents(&[]), Ok(ContentPlaces::new()));
        let one = encode_contents(&[(of(1, 20_000), 16_384)].into()).len();
        for end in (1..bytes.len()).filter(|end| *end != one) {
            assert!(decode_contents(&bytes[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn limits_hold_and_what_is_just_within_them_passes() {
        for (certificates, bytes, fits) in [
            (CHAIN_MAX_CERTIFICATES, CERTIFICATE_MAX_BYTES, true),
            (CHAIN_MAX_CERTIFICATES + 1, 1, false),
            (1, CERTIFICATE_MAX_BYTES + 1, false),
        ] {
            let from = Lane::ALL.map(|lane| (lane, cursor(lane as u8, u64::from(u32::MAX)))).to_vec();
            let encoded = Head { from, chain: vec![vec![0; bytes]; certificates], ..head() }.encode();
            assert_eq!(Head::decode(&encoded).is_ok(), fits, "{certificates} {bytes}");
            assert!(!fits || encoded.len() as u64 <= HEAD_MAX_BYTES);
        }
        let upto = Lane::ALL.map(|lane| (lane, cursor(lane as u8, i64::MAX as u64))).to_vec();
        let largest = Tail { entries: [u64::MAX; 3], upto, more: true }.encode();
        assert!(largest.len() as u64 <= TAIL_MAX_BYTES, "{}", largest.len());
    }
}
