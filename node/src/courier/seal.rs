//! The seal of a bundle: the age format, to the X25519 key that belongs to the recipient's Ed25519 key.
//!
//! Every node has the certificates of its neighbours, and in them one Ed25519 key; the birational map from Edwards to
//! Montgomery form makes the X25519 key of it, so nothing has to be exchanged before. What always holds: the age header
//! names nobody; the content is padded to whole blocks; a file that is too short for its blocks is told from one that
//! was changed. Not here: signatures.

use std::io::{self, BufRead, Read, Write};

use age::{DecryptError, Decryptor, Encryptor, stream::StreamReader, x25519};
use bech32::{Bech32, Hrp};
use curve25519_dalek::edwards::CompressedEdwardsY;
use sha2::{Digest, Sha512};

use super::CourierError;
use crate::keys::{Key, PublicKey};

/// What every bundle begins with; a byte with the version follows.
pub const MAGIC: &[u8; 12] = b"tuyen-bundle";
/// The version of the format.
pub const VERSION: u8 = 1;
/// The content is padded with zeros to a multiple of this.
pub(super) const BLOCK_BYTES: u64 = 16 << 10;
/// Longest header of the age format that is read.
const HEADER_MAX_BYTES: usize = 4 << 10;
/// What stands before the last line of the header, which has so many characters and a line's end.
const HEADER_END: &[u8] = b"\n--- ";
const HEADER_MAC_CHARS: usize = 43;
/// The payload: a nonce, then chunks, each with a tag.
const NONCE_BYTES: u64 = 16;
const CHUNK_BYTES: u64 = 64 << 10;
const TAG_BYTES: u64 = 16;

/// The key to which bundles for the holder of this key are sealed; none for a key that nobody can hold.
pub fn recipient(key: &PublicKey) -> Option<x25519::Recipient> {
    let point = CompressedEdwardsY(*key.bytes()).decompress().filter(|point| !point.is_small_order())?;
    text("age", &point.to_montgomery().0).parse().ok()
}

/// What opens bundles for the holder of this key: the scalar of which Ed25519 makes its public key.
pub fn identity(key: &Key) -> x25519::Identity {
    let hash = Sha512::digest(key.seed());
    let text = text("AGE-SECRET-KEY-", &hash[..32]).to_uppercase();
    text.parse().expect("32 bytes in this form are a key")
}

fn text(prefix: &str, bytes: &[u8]) -> String {
    let prefix = Hrp::parse(prefix).expect("a prefix of the age format");
    bech32::encode::<Bech32>(prefix, bytes).expect("32 bytes are not too long")
}

/// Begins a sealed file.
pub fn seal<W: Write>(mut out: W, to: &PublicKey) -> Result<age::stream::StreamWriter<W>, CourierError> {
    let to = recipient(to).ok_or_else(|| CourierError::Altered("a key that nobody can hold".to_owned()))?;
    out.write_all(MAGIC)?;
    out.write_all(&[VERSION])?;
    let encryptor = Encryptor::with_recipients(std::iter::once(&to as &dyn age::Recipient));
    Ok(encryptor.expect("there is one recipient").wrap_output(out)?)
}

/// How long the file of so much content is, at most.
pub fn sealed_bytes(content: u64) -> u64 {
    let padded = content.next_multiple_of(BLOCK_BYTES);
    (MAGIC.len() + 1 + 512) as u64 + payload_bytes(padded)
}

fn payload_bytes(content: u64) -> u64 {
    NONCE_BYTES + content + content.div_ceil(CHUNK_BYTES).max(1) * TAG_BYTES
}

/// Opens a sealed file of so many bytes.
pub fn open<R: BufRead>(
    mut input: R,
    bytes: u64,
    key: &Key,
) -> Result<StreamReader<impl Read + use<R>>, CourierError> {
    let mut head = [0; MAGIC.len() + 1];
    let read = fill(&mut input, &mut head)?;
    if !head[..read.min(MAGIC.len())].iter().eq(MAGIC.iter().take(read)) || read == 0 {
        return Err(CourierError::NotABundle);
    }
    if read < head.len() {
        return Err(CourierError::CutOff);
    }
    if head[MAGIC.len()] != VERSION {
        return Err(CourierError::Newer(head[MAGIC.len()]));
    }
    let header = header(&mut input)?;
    let payload = bytes.saturating_sub((head.len() + header.len()) as u64);
    if !is_whole(payload) {
        return Err(CourierError::CutOff);
    }
    let input = io::BufReader::new(io::Cursor::new(header).chain(input));
    let identity = identity(key);
    let opened = Decryptor::new_buffered(input)
        .and_then(|decryptor| decryptor.decrypt(std::iter::once(&identity as &dyn age::Identity)));
    opened.map_err(|error| match error {
        DecryptError::NoMatchingKeys => CourierError::NotForThis,
        DecryptError::Io(error) if error.kind() != io::ErrorKind::UnexpectedEof => error.into(),
        DecryptError::Io(_) => CourierError::CutOff,
        _ => CourierError::Altered("its header".to_owned()),
    })
}

/// Whether a payload of so many bytes is one of whole blocks.
fn is_whole(payload: u64) -> bool {
    let Some(chunks) = payload.checked_sub(NONCE_BYTES) else { return false };
    let content = chunks.saturating_sub(chunks.div_ceil(CHUNK_BYTES + TAG_BYTES) * TAG_BYTES);
    content > 0 && content % BLOCK_BYTES == 0 && payload_bytes(content) == payload
}

/// The header of the age format, which has to end soon.
fn header(input: &mut impl BufRead) -> Result<Vec<u8>, CourierError> {
    let mut header = Vec::new();
    loop {
        let room = (HEADER_MAX_BYTES - header.len()) as u64;
        if room == 0 {
            return Err(CourierError::Altered("its header".to_owned()));
        }
        let read = io::Read::take(&mut *input, room).read_until(b'\n', &mut header)?;
        if read == 0 || (!header.ends_with(b"\n") && header.len() < HEADER_MAX_BYTES) {
            return Err(CourierError::CutOff);
        }
        let last = header.len().checked_sub(HEADER_MAC_CHARS + 1 + HEADER_END.len());
        if last.is_some_and(|at| header[at..].starts_with(HEADER_END)) {
            return Ok(header);
        }
    }
}

/// Reads as much as there is.
pub(super) fn fill(input: &mut impl Read, mut to: &mut [u8]) -> io::Result<usize> {
    let wanted = to.len();
    while !to.is_empty() {
        match input.read(to) {
            Ok(0) => break,
            Ok(n) => to = &mut to[n..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(wanted - to.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_forms_of_a_key_belong_together() {
        for _ in 0..8 {
            let key = Key::generate().unwrap();
            let public = recipient(key.public()).unwrap();
            assert_eq!(identity(&key).to_public().to_string(), public.to_string());
        }
        // The neutral element and a point that is on no curve.
        let spki = |bytes: [u8; 32]| {
            let mut der = Key::generate().unwrap().public().spki();
            let at = der.len() - 32;
            der[at..].copy_from_slice(&bytes);
            PublicKey::from_spki(&der).unwrap()
        };
        let mut neutral = [0; 32];
        neutral[0] = 1;
        assert!(recipient(&spki(neutral)).is_none());
        neutral[0] = 2;
        assert!(recipient(&spki(neutral)).is_none());
    }

    #[test]
    fn a_known_key_has_its_known_form() {
        // The first test vector of RFC 8032, section 7.1; its X25519 form as libsodium gives it.
        let seed = data_encoding::HEXLOWER
            .decode(b"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
            .unwrap();
        let der = [&data_encoding::HEXLOWER.decode(b"302e020100300506032b657004220420").unwrap()[..], &seed];
        let pem = format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            data_encoding::BASE64.encode(&der.concat())
        );
        let key = Key::from_pem(&pem).unwrap();
        assert_eq!(key.seed()[..], seed);
        let x = CompressedEdwardsY(*key.public().bytes()).decompress().unwrap().to_montgomery().0;
        assert_eq!(
            data_encoding::HEXLOWER.encode(&x),
            "d85e07ec22b0ad881537c2f44d662d1a143cf830c57aca4305d85c7a90f6b62e"
        );
    }

    #[test]
    fn whole_payloads_are_told_from_cut_ones() {
        for blocks in [1, 3, 4, 5, 8, 9] {
            let whole = payload_bytes(blocks * BLOCK_BYTES);
            assert!(is_whole(whole), "{blocks}");
            for cut in [1, 15, 16, 17, 4096, BLOCK_BYTES - 1] {
                assert!(!is_whole(whole - cut), "{blocks} {cut}");
            }
        }
        assert!(!is_whole(0) && !is_whole(NONCE_BYTES) && !is_whole(NONCE_BYTES + TAG_BYTES));
    }

    #[test]
    fn a_header_ends_soon() {
        let mac = [b'a'; HEADER_MAC_CHARS];
        let good = |before: usize| [&vec![b'x'; before][..], HEADER_END, &mac, b"\n"].concat();
        let longest = HEADER_MAX_BYTES - HEADER_END.len() - HEADER_MAC_CHARS - 1;
        for (bytes, outcome) in [
            (good(10), "Ok"),
            (good(longest), "Ok"),
            (good(longest + 1), "Altered"),
            (vec![b'\n'; 2 * HEADER_MAX_BYTES], "Altered"),
            (vec![b'x'; 2 * HEADER_MAX_BYTES], "Altered"),
            (vec![b'x'; 10], "CutOff"),
            (vec![b'\n'; 10], "CutOff"),
        ] {
            let read = format!("{:?}", header(&mut &bytes[..]));
            assert!(read.contains(outcome), "{outcome}: {read}");
        }
    }
}
