//! The frames of content, byte by byte.

use super::*;
use crate::attachment::{Attachment, CONTENT_MAX_BYTES, PIECE_BYTES, PIECES_MAX};

/// Most bytes of a record's id.
const RECORD_MAX_BYTES: u64 = 200;

pub(crate) fn put_name(w: &mut Writer, name: &Name) {
    w.bytes(name.record.as_str().as_bytes());
    name.attachment.encode(w);
}

pub(crate) fn name(r: &mut Reader<'_>) -> Result<Name, DecodeError> {
    let record = r.str(RECORD_MAX_BYTES, "the record id")?;
    let record = record.parse().map_err(|_| DecodeError::Value("the record id"))?;
    Ok(Name { record, attachment: Attachment::decode(r)? })
}

pub(super) fn put_ask(w: &mut Writer, ask: &Ask) {
    put_name(w.u8(frame_type::ASK), &ask.name);
    w.varint(ask.from).varint(ask.len).u8(u8::from(ask.tree));
}

pub(super) fn ask(r: &mut Reader<'_>) -> Result<Ask, DecodeError> {
    let name = name(r)?;
    let from = r.bounded(name.attachment.size - 1, "the first byte of an attachment")? as u64;
    let most = ASK_MAX_BYTES.min(name.attachment.size - from);
    let len = r.bounded(most, "the bytes of an attachment that are asked for")? as u64;
    let tree = match r.u8("a yes or no")? {
        0 => false,
        1 => true,
        _ => return Err(DecodeError::Value("a yes or no")),
    };
    if len == 0 {
        return Err(DecodeError::Value("the bytes of an attachment that are asked for"));
    }
    Ok(Ask { name, from, len, tree })
}

pub(super) fn put_tree(w: &mut Writer, hash: &ContentHash, values: &[[u8; 32]]) {
    w.u8(frame_type::TREE).raw(&hash.0).varint(values.len() as u64);
    values.iter().for_each(|value| {
        w.raw(value);
    });
}

pub(super) fn tree(r: &mut Reader<'_>) -> Result<Frame, DecodeError> {
    let hash = ContentHash(r.array("the hash of an attachment")?);
    let count = r.bounded(PIECES_MAX as u64, "the pieces of an attachment")?;
    let mut values = Vec::with_capacity(count);
    for _ in 0..count {
        values.push(r.array("a chaining value")?);
    }
    Ok(Frame::Tree(hash, values))
}

/// The bytes of one frame are of one piece.
pub(super) fn bytes(r: &mut Reader<'_>) -> Result<Frame, DecodeError> {
    const WHAT: &str = "a part of an attachment";
    let hash = ContentHash(r.array("the hash of an attachment")?);
    let from = r.bounded(CONTENT_MAX_BYTES - 1, "the first byte of an attachment")? as u64;
    let bytes = r.bytes(CONTENT_FRAME_MAX_BYTES as u64, WHAT)?.to_vec();
    let in_piece = from as usize % PIECE_BYTES;
    if bytes.is_empty() || in_piece + bytes.len() > PIECE_BYTES {
        return Err(DecodeError::Value(WHAT));
    }
    Ok(Frame::Bytes { hash, from, bytes })
}

pub(super) fn put_kept(w: &mut Writer, name: &Name, kept: Kept) {
    put_name(w.u8(frame_type::KEPT), name);
    w.u8(u8::from(kept == Kept::Root));
}

pub(super) fn kept(r: &mut Reader<'_>) -> Result<Kept, DecodeError> {
    match r.u8("where an attachment is")? {
        0 => Ok(Kept::Here),
        1 => Ok(Kept::Root),
        _ => Err(DecodeError::Value("where an attachment is")),
    }
}
