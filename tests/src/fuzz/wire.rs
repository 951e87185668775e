//! Frames: any bytes are a frame or an error, and what is a frame has one form.

use sha2::{Digest, Sha256};
use sync_core::{
    codec::{Reader, Writer},
    feed::{Cursor, Position},
    id::{Chain, Incarnation, Lane},
    wire::{Deframer, EntryBatch, FRAME_MAX_BYTES, Frame, UNPACKED_MAX_BYTES, WireError},
};

use crate::bytes::{Choices, chunk};

/// Most bytes that a varint of a frame's length takes.
const LENGTH_MAX_BYTES: usize = 3;
const BATCH: u8 = 6;

/// The first byte says what the rest is: the body of a frame, a stream of bytes in pieces, or the parts of a batch,
/// which a fuzzer would hardly find inside of a zstd frame with a digest.
pub fn wire(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    match kind % 3 {
        0 => one_frame(rest),
        1 => stream(rest),
        _ => batch(Choices::new(rest)),
    }
}

fn one_frame(body: &[u8]) {
    if body.len() as u64 > FRAME_MAX_BYTES {
        return;
    }
    if let Ok(frame) = Frame::decode(body) {
        comes_back(&frame, body);
    }
}

fn comes_back(frame: &Frame, body: &[u8]) {
    let encoded = frame.encode();
    let mut r = Reader(&encoded);
    let again = r.bytes(u64::MAX, "the frame").expect("a frame begins with its length");
    r.end().expect("and ends there");
    assert!(Frame::decode(again).as_ref() == Ok(frame), "a frame is read as it was written");
    match frame {
        // The sender may pack in another way than we do.
        Frame::Batch(batch) => within_limits(batch),
        _ => assert_eq!(again, body, "every value has one form"),
    }
}

fn within_limits(batch: &EntryBatch) {
    let mut unpacked = Writer::default();
    batch.entries.iter().for_each(|(_, entry)| entry.encode(&mut unpacked));
    assert!(unpacked.0.len() as u64 <= UNPACKED_MAX_BYTES, "a batch unpacks within its limit");
    let places: Vec<_> = batch.entries.iter().map(|(pos, _)| *pos).collect();
    assert!(places.is_sorted_by(|a, b| a < b), "entries stand in the order of the feed");
}

/// A stream comes in pieces; how it is cut changes nothing, and no more is kept than one frame.
fn stream(data: &[u8]) {
    let read = |piece: usize| {
        let (mut deframer, mut frames) = (Deframer::default(), Vec::new());
        for bytes in data.chunks(piece) {
            deframer.push(bytes);
            loop {
                match deframer.next_frame() {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(error) => return (frames, Some(error)),
                }
            }
            let pending = deframer.pending_bytes();
            assert!(pending < FRAME_MAX_BYTES as usize + LENGTH_MAX_BYTES, "{pending} bytes are pending");
        }
        (frames, None)
    };
    assert!(read(data.len().max(1)) == read(7), "a stream is cut anywhere");
}

fn batch(mut c: Choices<'_>) {
    let mut raw = Writer::default();
    let mut hashes = Sha256::new();
    let (mut count, mut sound) = (0, true);
    let lane = c.below(4) as u8;
    let after = c.u64() >> c.below(64);
    let upto = (!c.one_in(4)).then(|| c.u64() >> c.below(64));
    let said_more = usize::from(c.one_in(8));
    while !c.is_done() && count < 20 {
        raw.varint(c.u64() >> c.below(64));
        let start = raw.0.len();
        let record = c.pick(&["Patient/1", "Flag/x.-y", "Patient", "patient/1", "Patient/", "A/1/2"]);
        let home = c.pick(&["dong-van", "a", "-a", "", "Đ"]);
        raw.bytes(record.as_bytes()).bytes(home.as_bytes()).u8(c.below(4) as u8);
        let extension = c.below(40);
        raw.bytes(c.take(extension));
        let kind = if c.one_in(8) { c.byte() } else { 1 };
        let length = usize::from(c.byte());
        let body = c.take(length);
        raw.bytes(&if c.one_in(8) { body.to_vec() } else { chunk(kind, body) });
        count += 1;
        match sync_core::change::Entry::decode(&mut Reader(&raw.0[start..])) {
            Ok(entry) => hashes.update(entry.hash().0),
            Err(_) => sound = false,
        }
    }
    if count == 0 {
        return;
    }
    let mut w = Writer::default();
    w.u8(BATCH).u8(lane).raw(&[3; 16]).varint(after);
    match upto {
        None => w.u8(0),
        Some(upto) => w.u8(1).varint(upto).raw(&[4; 16]),
    };
    let digest: [u8; 32] = hashes.finalize().into();
    let packed = zstd::bulk::compress(&raw.0, 1).expect("zstd compresses any bytes");
    w.varint((count + said_more) as u64).raw(&[5; 16]).raw(&digest[..16]).u8(1);
    w.varint(raw.0.len() as u64).bytes(&packed);
    match Frame::decode(&w.0) {
        Ok(frame) => {
            assert!(sound && said_more == 0 && lane < 3, "what is malformed is refused");
            comes_back(&frame, &w.0);
            let Frame::Batch(read) = &frame else { panic!("a batch is a batch") };
            assert_eq!((read.entries.len(), read.after), (count, after));
            smaller_than_it_says(&w.0, raw.0.len(), &packed);
        }
        Err(error) => assert_ne!(error, WireError::BatchDigest, "the digest is that of the entries"),
    }
    // The other frames with a structure, from the same choices.
    let cursor = |n: u8| Cursor {
        at: Position { segment: Incarnation([n; 16]), pos: after >> 1 },
        chain: n.is_multiple_of(2).then_some(Chain([n; 16])),
    };
    let cursors = Lane::ALL.into_iter().map(|one| (one, cursor(lane.min(one as u8)))).collect();
    let frame = Frame::Cursors(cursors);
    let encoded = frame.encode();
    comes_back(&frame, &encoded[1..]);
}

/// A sound batch whose length is told wrong is refused.
fn smaller_than_it_says(body: &[u8], length: usize, packed: &[u8]) {
    let mut tail = Writer::default();
    tail.varint(length as u64).bytes(packed);
    let head = &body[..body.len() - tail.0.len()];
    for wrong in [length as u64 - 1, length as u64 + 1, UNPACKED_MAX_BYTES, UNPACKED_MAX_BYTES + 1] {
        let mut w = Writer::default();
        w.raw(head).varint(wrong).bytes(packed);
        assert!(Frame::decode(&w.0).is_err(), "a batch is as long as it says");
    }
}
