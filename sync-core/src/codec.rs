//! Byte-level reading and writing that every binary format of this crate shares: LEB128 integers, fixed
//! arrays and length-prefixed bytes.
//!
//! A reader never panics and never allocates more than it has been given bytes for.

/// What was wrong with bytes from outside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes ended too soon.
    #[error("the bytes end in the middle of {0}")]
    Short(&'static str),
    /// Something is larger than its named limit.
    #[error("{what} is larger than the limit of {limit}")]
    Limit {
        /// What it is.
        what: &'static str,
        /// The limit, in the unit of the thing.
        limit: u64,
    },
    /// A value that has no meaning.
    #[error("{0} has a value that this version does not know")]
    Value(&'static str),
    /// Bytes are left over.
    #[error("{0} bytes too many")]
    Trailing(usize),
}

/// Appends values to a buffer.
#[derive(Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    /// One byte.
    pub fn u8(&mut self, v: u8) -> &mut Self {
        self.0.push(v);
        self
    }

    /// An unsigned LEB128 integer: seven bits a byte, least significant first.
    pub fn varint(&mut self, mut v: u64) -> &mut Self {
        while v >= 0x80 {
            self.0.push(v as u8 | 0x80);
            v >>= 7;
        }
        self.0.push(v as u8);
        self
    }

    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// A varint length, then the bytes.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.varint(bytes.len() as u64).raw(bytes)
    }
}

/// Takes values from the front of a slice.
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// The next `n` bytes.
    pub fn take(&mut self, n: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        if n > self.0.len() {
            return Err(DecodeError::Short(what));
        }
        let (head, tail) = self.0.split_at(n);
        self.0 = tail;
        Ok(head)
    }

    /// One byte.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        Ok(self.take(1, what)?[0])
    }

    /// An unsigned LEB128 integer of at most 64 bits; overlong forms are refused, so that a value has one
    /// encoding.
    pub fn varint(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(what)?;
            let bits = u64::from(byte & 0x7f);
            if (shift == 63 && bits > 1) || (byte == 0 && shift > 0) {
                return Err(DecodeError::Value(what));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Value(what))
    }

    /// A varint that must not exceed `limit`.
    pub fn bounded(&mut self, limit: u64, what: &'static str) -> Result<usize, DecodeError> {
        let value = self.varint(what)?;
        if value > limit {
            return Err(DecodeError::Limit { what, limit });
        }
        usize::try_from(value).map_err(|_| DecodeError::Limit { what, limit })
    }

    /// A length-prefixed byte string of at most `limit` bytes.
    pub fn bytes(&mut self, limit: u64, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let n = self.bounded(limit, what)?;
        self.take(n, what)
    }

    /// A length-prefixed UTF-8 string of at most `limit` bytes.
    pub fn str(&mut self, limit: u64, what: &'static str) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes(limit, what)?).map_err(|_| DecodeError::Value(what))
    }

    /// A fixed array.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        Ok(self.take(N, what)?.try_into().expect("take gives N bytes"))
    }

    /// That nothing is left.
    pub fn end(&self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Trailing(self.0.len())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_and_have_one_form() {
        for v in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut w = Writer::default();
            w.varint(v);
            let mut r = Reader(&w.0);
            assert_eq!(r.varint("v"), Ok(v));
            r.end().unwrap();
        }
        assert!(Reader(&[0x80, 0x00]).varint("v").is_err(), "overlong zero");
        assert!(Reader(&[0xff; 10]).varint("v").is_err(), "more than 64 bits");
        let mut ten = [0xff; 10];
        for (last, value) in [(0, Err(())), (1, Ok(u64::MAX)), (2, Err(())), (3, Err(())), (0x81, Err(()))] {
            ten[9] = last;
            assert_eq!(Reader(&ten).varint("v").map_err(drop), value, "{last}");
        }
        assert_eq!(Reader(&[0x80]).varint("v"), Err(DecodeError::Short("v")));
    }

    #[test]
    fn limits_hold_before_anything_is_read() {
        let mut w = Writer::default();
        w.varint(1_000_000);
        assert!(matches!(Reader(&w.0).bytes(10, "b"), Err(DecodeError::Limit { limit: 10, .. })));
        assert!(matches!(Reader(&w.0).bytes(2_000_000, "b"), Err(DecodeError::Short("b"))));
        assert_eq!(Reader(&w.0).bounded(1_000_000, "n"), Ok(1_000_000));
        assert_eq!(Reader(&w.0).bounded(999_999, "n"), Err(DecodeError::Limit { what: "n", limit: 999_999 }));
        assert_eq!(Reader(b"\x03abc").bytes(3, "b"), Ok(&b"abc"[..]));
        assert_eq!(Reader(b"\x03abc").bytes(2, "b"), Err(DecodeError::Limit { what: "b", limit: 2 }));
        assert_eq!(Reader(b"\x03abc").str(3, "s"), Ok("abc"));
        assert_eq!(Reader(b"\x01\xff").str(3, "s"), Err(DecodeError::Value("s")));
        assert_eq!((Reader(b"ab").end(), Reader(b"").end()), (Err(DecodeError::Trailing(2)), Ok(())));
    }
}
