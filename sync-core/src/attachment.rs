//! Attachments: content that is too large for a record, kept beside it and named by its hash.
//!
//! An entry's header names the attachments that its change brings ([`crate::change::Entry::attachments`]), so which of them a
//! record has is a function of its entries, read without opening a change. Content belongs to its record: it is kept, served
//! and forgotten with it, and two records with the same content have it twice. So nobody gets at content by naming its hash in
//! a record of their own.
//!
//! Content is cut into pieces of [`PIECE_BYTES`], each a subtree of the BLAKE3 tree. The chaining values of all pieces come to
//! the hash ([`Tree::new`]), and each piece to its own value ([`Tree::fits`]): what arrives is checked piece by piece. Not here: who
//! is sent what (the engine), and what a FHIR Attachment is (`node/src/fhir`).

use blake3::{
    Hasher,
    hazmat::{HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root},
};

use crate::{
    codec::{DecodeError, Reader, Writer},
    id::{ContentHash, RecordId},
};

/// Bytes of a piece, the last of its content excepted: sixteen of BLAKE3's chunks, two seconds of a line of 64 kbit/s.
pub const PIECE_BYTES: usize = 16 << 10;
/// Content up to so many bytes stays in its record.
pub const INLINE_MAX_BYTES: u64 = PIECE_BYTES as u64;
/// Largest content, in bytes: in base64 with its record around it it fits into one line to the daemon.
pub const CONTENT_MAX_BYTES: u64 = 32 << 20;
/// Most pieces of one content.
pub const PIECES_MAX: usize = CONTENT_MAX_BYTES as usize / PIECE_BYTES;
/// Most attachments that one entry names.
pub const NAMED_MAX: usize = 16;

/// Content, as entries name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attachment {
    /// Its hash.
    pub hash: ContentHash,
    /// How many bytes it has: more than [`INLINE_MAX_BYTES`], at most [`CONTENT_MAX_BYTES`].
    pub size: u64,
}

impl Attachment {
    /// How many pieces it has.
    pub fn pieces(&self) -> usize {
        self.size.div_ceil(PIECE_BYTES as u64) as usize
    }

    /// How many bytes a piece of it has; 0 when there is no such piece.
    pub fn piece_len(&self, nth: usize) -> usize {
        let before = nth as u64 * PIECE_BYTES as u64;
        self.size.saturating_sub(before).min(PIECE_BYTES as u64) as usize
    }

    /// Whether content may have this size.
    pub fn may_have(size: u64) -> bool {
        size > INLINE_MAX_BYTES && size <= CONTENT_MAX_BYTES
    }

    pub(crate) fn encode(&self, w: &mut Writer) {
        w.raw(&self.hash.0).varint(self.size);
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let hash = ContentHash(r.array("the hash of an attachment")?);
        let size = r.bounded(CONTENT_MAX_BYTES, "an attachment")? as u64;
        if !Self::may_have(size) {
            return Err(DecodeError::Value("the size of an attachment"));
        }
        Ok(Self { hash, size })
    }
}

/// Names content here: the record to which it belongs, and which.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// The record.
    pub record: RecordId,
    /// The content.
    pub attachment: Attachment,
}

/// The field of an entry's header: each attachment with its hash and its size (varint).
pub fn encode(all: &[Attachment]) -> Vec<u8> {
    let mut w = Writer::default();
    all.iter().for_each(|one| one.encode(&mut w));
    w.0
}

/// Reads what [`encode`] wrote.
pub fn decode(bytes: &[u8]) -> Result<Vec<Attachment>, DecodeError> {
    let (mut r, mut all) = (Reader(bytes), Vec::new());
    while !r.0.is_empty() {
        if all.len() == NAMED_MAX {
            return Err(DecodeError::Limit { what: "the attachments of an entry", limit: NAMED_MAX as u64 });
        }
        all.push(Attachment::decode(&mut r)?);
    }
    Ok(all)
}

/// How safe content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Kept {
    /// Here alone, as far as is known.
    #[default]
    Here,
    /// The parent has made it durable.
    Parent,
    /// The root has made it durable.
    Root,
}

/// What a node has of content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Which.
    pub attachment: Attachment,
    /// How many of its pieces are not here.
    pub lacking: usize,
    /// Where else all of it is.
    pub kept: Kept,
}

impl Held {
    /// Whether all of it is here.
    pub fn is_whole(&self) -> bool {
        self.lacking == 0
    }
}

/// The chaining values of all pieces of content, in order: known to come to its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree(Vec<[u8; 32]>);

impl Tree {
    /// These values, if there is one for each piece and they come to the hash.
    pub fn new(attachment: &Attachment, values: Vec<[u8; 32]>) -> Option<Self> {
        let fits = values.len() == attachment.pieces()
            && Attachment::may_have(attachment.size)
            && root(&values, attachment.size) == attachment.hash.0;
        fits.then_some(Self(values))
    }

    /// Of content at hand, with what entries name it by. None when it has no size that content may have.
    pub fn of(content: &[u8]) -> Option<(Attachment, Self)> {
        let size = content.len() as u64;
        let values: Vec<_> =
            content.chunks(PIECE_BYTES).enumerate().map(|(nth, piece)| value(nth, piece)).collect();
        let is_content = Attachment::may_have(size);
        is_content.then(|| (Attachment { hash: ContentHash(root(&values, size)), size }, Self(values)))
    }

    /// The values.
    pub fn values(&self) -> &[[u8; 32]] {
        &self.0
    }

    /// Whether this is the piece with that number, from 0.
    pub fn fits(&self, nth: usize, piece: &[u8]) -> bool {
        !piece.is_empty() && piece.len() <= PIECE_BYTES && self.0.get(nth) == Some(&value(nth, piece))
    }
}

/// The chaining value of a piece. Content has two pieces at least, so none is the root of its tree.
fn value(nth: usize, piece: &[u8]) -> [u8; 32] {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(nth as u64 * PIECE_BYTES as u64).update(piece);
    hasher.finalize_non_root()
}

/// The hash of content of this size, more than a piece.
fn root(values: &[[u8; 32]], size: u64) -> [u8; 32] {
    let (left, right) = halves(values, size);
    *merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()
}

fn halves(values: &[[u8; 32]], size: u64) -> ([u8; 32], [u8; 32]) {
    let left = left_subtree_len(size);
    let (first, second) = values.split_at(left as usize / PIECE_BYTES);
    (subtree(first, left), subtree(second, size - left))
}

fn subtree(values: &[[u8; 32]], size: u64) -> [u8; 32] {
    match values {
        [one] => *one,
        _ => {
            let (left, right) = halves(values, size);
            merge_subtrees_non_root(&left, &right, Mode::Hash)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(size: usize) -> Vec<u8> {
        (0..size).map(|at| (at % 251) as u8).collect()
    }

    #[test]
    fn the_values_of_the_pieces_come_to_blake3() {
        let piece = PIECE_BYTES;
        for size in [
            piece + 1,
            2 * piece - 1,
            2 * piece,
            2 * piece + 1,
            3 * piece,
            5 * piece + 1_024,
            8 * piece,
            9 * piece + 7,
            33 * piece - 1,
        ] {
            let content = content(size);
            let (attachment, tree) = Tree::of(&content).unwrap();
            assert_eq!(attachment.hash.0, *blake3::hash(&content).as_bytes(), "{size}");
            assert_eq!((attachment.size, attachment.pieces()), (size as u64, size.div_ceil(piece)));
            assert_eq!(Tree::new(&attachment, tree.values().to_vec()), Some(tree.clone()));
            for (nth, part) in content.chunks(piece).enumerate() {
                assert_eq!(attachment.piece_len(nth), part.len());
                assert!(tree.fits(nth, part) && !tree.fits(nth + 1, part));
                let mut wrong = part.to_vec();
                wrong[part.len() / 2] ^= 1;
                assert!(!tree.fits(nth, &wrong) && !tree.fits(nth, &part[..part.len() - 1]));
            }
            assert_eq!(attachment.piece_len(attachment.pieces()), 0);
            let mut values = tree.values().to_vec();
            values[0][3] ^= 1;
            assert_eq!(Tree::new(&attachment, values), None);
            assert_eq!(Tree::new(&attachment, tree.values()[1..].to_vec()), None);
            let other = Attachment { size: attachment.size + PIECE_BYTES as u64, ..attachment };
            assert_eq!(Tree::new(&other, tree.values().to_vec()), None);
        }
    }

    #[test]
    fn what_is_small_or_too_large_is_no_attachment() {
        assert!(Tree::of(&content(PIECE_BYTES)).is_none());
        assert!(Tree::of(&[]).is_none());
        for (size, may) in [
            (0, false),
            (INLINE_MAX_BYTES, false),
            (INLINE_MAX_BYTES + 1, true),
            (CONTENT_MAX_BYTES, true),
            (CONTENT_MAX_BYTES + 1, false),
        ] {
            assert_eq!(Attachment::may_have(size), may, "{size}");
            let named = encode(&[Attachment { hash: ContentHash([7; 32]), size }]);
            assert_eq!(decode(&named).is_ok(), may, "{size}");
        }
        assert_eq!(PIECES_MAX, 2_048);
    }

    #[test]
    fn an_entry_names_only_so_many() {
        let one = |n: u8| Attachment { hash: ContentHash([n; 32]), size: 20_000 };
        let all: Vec<_> = (0..NAMED_MAX as u8 + 1).map(one).collect();
        assert_eq!(decode(&encode(&all[..NAMED_MAX])).unwrap(), all[..NAMED_MAX]);
        assert!(decode(&encode(&all)).is_err());
        assert!(decode(&encode(&all[..1])[..20]).is_err());
    }
}
