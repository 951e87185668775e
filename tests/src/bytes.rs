//! Structure from bytes. When the bytes are at their end, every choice is the first one.

use arbitrary::Unstructured;
use sha2::{Digest, Sha256};

/// Choices, taken from the bytes of a fuzzer.
pub struct Choices<'a>(Unstructured<'a>);

impl<'a> Choices<'a> {
    /// Choices from these bytes.
    pub fn new(data: &'a [u8]) -> Self {
        Self(Unstructured::new(data))
    }

    /// Whether nothing is left to choose from.
    pub fn is_done(&self) -> bool {
        self.0.is_empty()
    }

    /// A byte.
    pub fn byte(&mut self) -> u8 {
        self.0.arbitrary().unwrap_or_default()
    }

    /// A number.
    pub fn u64(&mut self) -> u64 {
        self.0.arbitrary().unwrap_or_default()
    }

    /// A number below `n`, which is at most 256.
    pub fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }

    /// One of several; there is at least one, and no more than 256.
    pub fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    /// At most `n` bytes.
    pub fn take(&mut self, n: usize) -> &'a [u8] {
        self.0.bytes(n.min(self.0.len())).unwrap_or_default()
    }

    /// All that is left.
    pub fn rest(self) -> &'a [u8] {
        self.0.take_rest()
    }
}

/// An automerge chunk of a kind (1: change, 2: compressed change) with a right checksum around any body.
pub fn chunk(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut hashed = sync_core::codec::Writer::default();
    hashed.u8(kind).bytes(body);
    let hash: [u8; 32] = Sha256::digest(&hashed.0).into();
    [&[0x85, 0x6f, 0x4a, 0x83], &hash[..4], &hashed.0].concat()
}
