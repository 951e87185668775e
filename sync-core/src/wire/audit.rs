//! The frames of an audit, byte by byte.

use super::*;
use crate::{
    audit::{LIST_MAX, Part, Prefix, Range},
    feed::Digest,
    id::{ChangeHash, RecordId},
};

/// Most bytes of a record's id.
const RECORD_MAX_BYTES: u64 = 200;

pub(super) fn put_total(w: &mut Writer, total: Option<Digest>) {
    w.u8(frame_type::TOTAL);
    option(w, total, |w, total| {
        w.varint(total.count).raw(&total.sum.to_be_bytes());
    });
}

pub(super) fn total(r: &mut Reader<'_>) -> Result<Option<Digest>, DecodeError> {
    get_option(r, |r| {
        let count = r.varint("the number of entries")?;
        Ok(Digest { count, sum: u128::from_be_bytes(r.array("the sum")?) })
    })
}

/// A prefix is the number of its nibbles and as many bytes as hold them.
pub(super) fn put_look(w: &mut Writer, prefixes: &[Prefix]) {
    w.u8(frame_type::LOOK).varint(prefixes.len() as u64);
    for prefix in prefixes {
        let bytes = usize::from(prefix.nibbles().div_ceil(2));
        w.u8(prefix.nibbles()).raw(&prefix.bits().to_be_bytes()[..bytes]);
    }
}

pub(super) fn look(r: &mut Reader<'_>) -> Result<Vec<Prefix>, DecodeError> {
    let count = r.bounded(LOOK_MAX as u64, "the number of prefixes")?;
    let mut prefixes = Vec::with_capacity(count);
    for _ in 0..count {
        let nibbles = r.u8("the length of a prefix")?;
        let mut bits = [0; 8];
        let bytes = r.take(usize::from(nibbles.div_ceil(2)), "a prefix")?;
        let room = bits.get_mut(..bytes.len()).ok_or(DecodeError::Value("a prefix"))?;
        room.copy_from_slice(bytes);
        let prefix = Prefix::new(nibbles, u64::from_be_bytes(bits));
        prefixes.push(prefix.ok_or(DecodeError::Value("a prefix"))?);
    }
    Ok(prefixes)
}

pub(super) fn put_ranges(w: &mut Writer, ranges: &[Range]) {
    w.u8(frame_type::RANGES).varint(ranges.len() as u64);
    for range in ranges {
        match range {
            Range::Parts(parts) => {
                w.u8(0);
                for part in parts.iter() {
                    w.varint(part.count).raw(&part.sum.to_be_bytes());
                }
            }
            Range::Hashes(hashes) => put_hashes(w.u8(1), hashes),
        }
    }
}

pub(super) fn ranges(r: &mut Reader<'_>) -> Result<Vec<Range>, DecodeError> {
    let count = r.bounded(LOOK_MAX as u64, "the number of ranges")?;
    let mut ranges = Vec::with_capacity(count);
    for _ in 0..count {
        ranges.push(match r.u8("the kind of a range")? {
            0 => {
                let mut parts = [Part::default(); 16];
                for part in &mut parts {
                    part.count = r.varint("the number of entries")?;
                    part.sum = u64::from_be_bytes(r.array("the sum")?);
                }
                Range::Parts(Box::new(parts))
            }
            1 => Range::Hashes(hashes(r, LIST_MAX)?),
            _ => return Err(DecodeError::Value("the kind of a range")),
        });
    }
    Ok(ranges)
}

fn put_hashes(w: &mut Writer, hashes: &[Short]) {
    w.varint(hashes.len() as u64);
    hashes.iter().for_each(|hash| {
        w.raw(&hash.to_be_bytes());
    });
}

fn hashes(r: &mut Reader<'_>, most: usize) -> Result<Vec<Short>, DecodeError> {
    let count = r.bounded(most as u64, "the number of hashes")?;
    (0..count).map(|_| Ok(u64::from_be_bytes(r.array("a hash")?))).collect()
}

pub(super) fn put_want(w: &mut Writer, want: &Want) {
    w.u8(frame_type::WANT).varint(want.named.len() as u64);
    for (record, change) in &want.named {
        w.bytes(record.as_str().as_bytes()).raw(&change.0);
    }
    put_hashes(w, &want.hashes);
}

pub(super) fn want(r: &mut Reader<'_>) -> Result<Want, DecodeError> {
    let count = r.bounded(WANT_MAX as u64, "the number of names")?;
    let mut named = Vec::with_capacity(count);
    for _ in 0..count {
        let record: Result<RecordId, _> = r.str(RECORD_MAX_BYTES, "the record id")?.parse();
        let record = record.map_err(|_| DecodeError::Value("the record id"))?;
        named.push((record, ChangeHash(r.array("a change")?)));
    }
    Ok(Want { named, hashes: hashes(r, WANT_MAX)? })
}

pub(super) fn put_repair(w: &mut Writer, entries: &[Entry]) {
    w.u8(frame_type::REPAIR).varint(entries.len() as u64);
    if entries.is_empty() {
        return;
    }
    let hashes: Vec<_> = entries.iter().map(Entry::hash).collect();
    w.raw(&batch_digest(hashes.iter()));
    let mut raw = Writer::default();
    entries.iter().for_each(|entry| entry.encode(&mut raw));
    let (dictionary, packed) = compress::pack(&raw.0);
    w.u8(dictionary).varint(raw.0.len() as u64).bytes(&packed);
}

pub(super) fn repair(r: &mut Reader<'_>) -> Result<Vec<Entry>, WireError> {
    let count = r.bounded(BATCH_MAX_ENTRIES as u64, "the number of entries")?;
    if count == 0 {
        return Ok(Vec::new());
    }
    let digest: [u8; 16] = r.array("the digest")?;
    let dictionary = r.u8("the dictionary")?;
    let raw_len = r.bounded(UNPACKED_MAX_BYTES, "the unpacked entries")?;
    let raw = compress::unpack(dictionary, r.bytes(FRAME_MAX_BYTES, "the packed entries")?, raw_len)?;
    let mut raw = Reader(&raw);
    let mut entries = Vec::with_capacity(count);
    for index in 0..count {
        entries.push(Entry::decode(&mut raw).map_err(|error| WireError::Entry { index, error })?);
    }
    raw.end()?;
    let hashes: Vec<_> = entries.iter().map(Entry::hash).collect();
    if batch_digest(hashes.iter()) != digest {
        return Err(WireError::BatchDigest);
    }
    Ok(entries)
}
