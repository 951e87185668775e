//! What is under the seal: head, frames, tail, signature, padding; see `sync_core::bundle` for the bytes.
//!
//! What always holds: writing and reading go from the beginning to the end once, with one frame in memory; everything
//! before the signature is under it; nothing but zeros stands behind it. A reader that has been given a checked file twice
//! checks it twice.

use std::{
    io::{self, BufRead, Read, Write},
    ops::Range,
};

use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use sync_core::{
    attachment::{Name, PIECE_BYTES},
    bundle::{HEAD_MAX_BYTES, Head, TAIL_MAX_BYTES, Tail, to_be_signed},
    codec::Writer,
    identity::{NodeInfo, Refusal, SIGNATURE_MAX_BYTES},
    wire::{FRAME_MAX_BYTES, Frame},
};

use super::{
    CourierError,
    seal::{self, BLOCK_BYTES, fill, sealed_bytes},
};
use crate::{
    ca::{
        Own,
        trust::{Verified, When},
    },
    keys::{Key, PublicKey},
};

/// What stands behind the last frame, at most.
const END_MAX_BYTES: u64 = TAIL_MAX_BYTES + SIGNATURE_MAX_BYTES as u64 + 16;

/// A bundle that is being written.
pub struct Writing<W: Write> {
    out: age::stream::StreamWriter<W>,
    hasher: Sha256,
    bytes: u64,
}

impl<W: Write> Writing<W> {
    /// Begins one, sealed to this key.
    pub fn begin(out: W, to: &PublicKey, head: &Head) -> Result<Self, CourierError> {
        let mut writing = Self { out: seal::seal(out, to)?, hasher: Sha256::new(), bytes: 0 };
        let mut w = Writer::default();
        w.bytes(&head.encode());
        writing.put(&w.0)?;
        Ok(writing)
    }

    /// The length of the whole file, at most, if so many bytes of frames follow and then the end.
    pub fn length_with(&self, bytes: u64) -> u64 {
        sealed_bytes(self.bytes + bytes + END_MAX_BYTES)
    }

    /// Frames, as [`Frame::encode`] gives them.
    pub fn frames(&mut self, encoded: &[u8]) -> Result<(), CourierError> {
        self.put(encoded)
    }

    /// Ends it.
    pub fn end(mut self, tail: &Tail, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> Result<(), CourierError> {
        let mut w = Writer::default();
        w.u8(0).bytes(&tail.encode());
        self.put(&w.0)?;
        let signature = sign(&to_be_signed(self.hasher.clone().finalize().into()));
        let length = u8::try_from(signature.len()).expect("an Ed25519 signature has 64 bytes");
        self.put(&[&[length], &signature[..]].concat())?;
        let padding = self.bytes.next_multiple_of(BLOCK_BYTES) - self.bytes;
        self.put(&vec![0; padding as usize])?;
        self.out.finish()?.flush()?;
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), CourierError> {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(self.out.write_all(bytes)?)
    }
}

/// A bundle that is being read.
pub struct Reading<R> {
    input: R,
    hasher: Sha256,
    head: Head,
}

impl<R: Read> Reading<age::stream::StreamReader<R>> {
    /// What it says of itself.
    pub fn head(&self) -> &Head {
        &self.head
    }
}

/// Opens a bundle of so many bytes with the key of the node that it is for.
pub fn open<R: BufRead>(
    input: R,
    bytes: u64,
    key: &Key,
) -> Result<Reading<age::stream::StreamReader<impl Read + use<R>>>, CourierError> {
    let mut input = seal::open(input, bytes, key)?;
    let mut hasher = Sha256::new();
    let head = bounded(&mut input, &mut hasher, HEAD_MAX_BYTES)?;
    let head = head.ok_or_else(|| altered("it has no head"))?;
    let head = Head::decode(&head).map_err(|error| altered(&error.to_string()))?;
    Ok(Reading { input, hasher, head })
}

impl<R: Read> Reading<R> {
    /// The next frame; none when there are no more.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, CourierError> {
        let Some(body) = bounded(&mut self.input, &mut self.hasher, FRAME_MAX_BYTES)? else {
            return Ok(None);
        };
        Frame::decode(&body).map(Some).map_err(|error| altered(&error.to_string()))
    }

    /// Reads what stands behind the last frame: the tail, and whether `key` has signed it all.
    pub fn end(mut self, key: &PublicKey) -> Result<Tail, CourierError> {
        let tail = bounded(&mut self.input, &mut self.hasher, TAIL_MAX_BYTES)?;
        let tail = tail.ok_or_else(|| altered("it has no end"))?;
        let tail = Tail::decode(&tail).map_err(|error| altered(&error.to_string()))?;
        let signed = to_be_signed(self.hasher.finalize().into());
        let mut length = [0];
        take(&mut self.input, &mut length)?;
        let mut signature = vec![0; usize::from(length[0])];
        take(&mut self.input, &mut signature)?;
        if !key.verifies(&signed, &signature) {
            return Err(Refusal::BadSignature { what: "a bundle" }.into());
        }
        let mut rest = Vec::new();
        self.input.take(BLOCK_BYTES).read_to_end(&mut rest).map_err(read_error)?;
        if rest.len() as u64 >= BLOCK_BYTES || rest.iter().any(|byte| *byte != 0) {
            return Err(altered("something stands behind its end"));
        }
        Ok(tail)
    }
}

/// A bundle that has been read to its end and is good.
pub struct Summary {
    /// What it says of itself.
    pub head: Head,
    /// What it says at its end.
    pub tail: Tail,
    /// Who has made it.
    pub sender: NodeInfo,
    /// The software that has made it.
    pub software: String,
    /// Attachments of which something is in it, with the pieces of each.
    pub attachments: Vec<(Name, Range<usize>)>,
    /// Their bytes in it.
    pub attachment_bytes: u64,
}

/// Reads a whole bundle for this node and checks everything that can be checked without the store.
pub fn check<R: BufRead>(input: R, bytes: u64, own: &Own) -> Result<Summary, CourierError> {
    use sync_core::engine::Identity;
    let mut reading = open(input, bytes, &own.files().key)?;
    let head = reading.head.clone();
    let Verified { info, key, .. } = verify_sender(&head, own)?;
    if head.recipient != own.info().node {
        return Err(CourierError::NotForThis);
    }
    let (mut software, mut entries) = (String::new(), [0; 3]);
    let (mut named, mut attachments, mut attachment_bytes) = (None, Vec::new(), 0);
    while let Some(frame) = reading.next_frame()? {
        match frame {
            Frame::Hello(hello) => software = hello.software,
            Frame::Batch(batch) => entries[batch.lane as usize] += batch.entries.len() as u64,
            Frame::Kept(name, _) => named = Some(name),
            Frame::Tree(..) => attachments.extend(named.take().map(|name| (name, 0..0))),
            Frame::Bytes { from, bytes, .. } => {
                attachment_bytes += bytes.len() as u64;
                let nth = from as usize / PIECE_BYTES;
                if let Some((_, pieces)) = attachments.last_mut() {
                    let first = if pieces.start == pieces.end { nth } else { pieces.start };
                    *pieces = first..nth + 1;
                }
            }
            _ => {}
        }
    }
    let tail = reading.end(&key)?;
    if tail.entries != entries {
        return Err(altered("it does not hold what it says"));
    }
    Ok(Summary { head, tail, sender: info, software, attachments, attachment_bytes })
}

fn verify_sender(head: &Head, own: &Own) -> Result<Verified, CourierError> {
    let chain: Vec<_> = head.chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let sender = own.trust().verify_chain(&chain, When::Now(own.trust().clock().now()))?;
    if sender.info.node != head.sender {
        return Err(Refusal::OtherNode { expected: head.sender, found: sender.info.node }.into());
    }
    Ok(sender)
}

fn altered(what: &str) -> CourierError {
    CourierError::Altered(what.to_owned())
}

/// What an error of the sealed stream means. Its chunks are under tags, and a file that is cut has been told before.
fn read_error(error: io::Error) -> CourierError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => CourierError::CutOff,
        io::ErrorKind::InvalidData => altered("a part of it does not open"),
        _ => error.into(),
    }
}

fn take(input: &mut impl Read, to: &mut [u8]) -> Result<(), CourierError> {
    let wanted = to.len();
    let read = fill(input, to).map_err(read_error)?;
    if read < wanted { Err(altered("it ends in the middle")) } else { Ok(()) }
}

/// A length and so many bytes; none for the length 0.
fn bounded(input: &mut impl Read, hasher: &mut Sha256, most: u64) -> Result<Option<Vec<u8>>, CourierError> {
    let mut length = 0u64;
    for shift in (0..64).step_by(7) {
        let mut byte = [0];
        take(input, &mut byte)?;
        hasher.update(byte);
        if shift == 63 || (byte[0] == 0 && shift > 0) {
            return Err(altered("a length in it makes no sense"));
        }
        length |= u64::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    if length > most {
        return Err(altered("a part of it is larger than it may be"));
    }
    if length == 0 {
        return Ok(None);
    }
    let mut bytes = vec![0; length as usize];
    take(input, &mut bytes)?;
    hasher.update(&bytes);
    Ok(Some(bytes))
}
