//! Packing of batches: one zstd frame for each batch, with a dictionary that has a version of its own.
//!
//! The sender packs with the newest dictionary that it has; the receiver must have it, which the protocol
//! version in the ALPN guarantees for all versions named here. There is one, version 1.

use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};

use super::WireError;

/// zstd's level. Level 3 packs a Vietnamese Patient of 1.5 kB in a large batch to about 130 B; higher levels
/// cost more time than the bytes are worth on a small machine.
const LEVEL: i32 = 3;

/// Trained by `cargo run --release -p tuyen-tests --bin train-dictionary` on changes of generated records and
/// of HL7's examples.
const DICTIONARY_1: &[u8] = include_bytes!("dictionary-1.zstd");

thread_local! {
    static PACK: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static UNPACK: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Packs; gives the dictionary's version and the packed bytes.
pub fn pack(raw: &[u8]) -> (u8, Vec<u8>) {
    let packed = PACK.with_borrow_mut(|slot| {
        let compressor = slot.get_or_insert_with(|| {
            Compressor::with_dictionary(LEVEL, DICTIONARY_1).expect("the dictionary is well-formed")
        });
        compressor.compress(raw).expect("zstd compresses any bytes")
    });
    (1, packed)
}

/// Unpacks to exactly `raw_len` bytes, and never allocates more.
pub fn unpack(dictionary: u8, packed: &[u8], raw_len: usize) -> Result<Vec<u8>, WireError> {
    if dictionary != 1 {
        return Err(WireError::Unpack("it names a dictionary that this version does not have"));
    }
    let raw = UNPACK.with_borrow_mut(|slot| {
        let decompressor = slot.get_or_insert_with(|| {
            Decompressor::with_dictionary(DICTIONARY_1).expect("the dictionary is well-formed")
        });
        decompressor.decompress(packed, raw_len)
    });
    match raw {
        Ok(raw) if raw.len() == raw_len => Ok(raw),
        Ok(_) => Err(WireError::Unpack("it is shorter than it says")),
        Err(_) => Err(WireError::Unpack("it is not a zstd frame of the size that it gives")),
    }
}
