//! The file with which a node makes itself known to a neighbour that has never met it: its certificates, which are no secret.
//!
//! The first line says what it is; a line for each certificate in base64 follows, the node's first; the last is the SHA-256 of the
//! lines before (each with its line feed) in hexadecimal. What always holds: a file that is not as it was written is told from a
//! card that is refused. Not here: whether the certificates are good. The checksum proves nothing about who wrote them.

use data_encoding::{BASE64, HEXLOWER};
use sha2::{Digest, Sha256};

/// What stands at the beginning of the file.
pub const CARD: &str = "tuyen-card 1";
/// Most bytes of such a file.
pub const CARD_MAX_BYTES: u64 = 32 << 10;

/// Why a card is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CardError {
    /// Another file.
    #[error("this is no card of a node; make it again there with `tuyen bundle card`. Nothing was taken")]
    Foreign,
    /// It is not as it was written.
    #[error(
        "this card is not as it was written: the copy was not finished, the stick is damaged, or somebody has changed it; copy it \
         again, or make it again there with `tuyen bundle card`. Nothing was taken"
    )]
    Altered,
}

/// The text of the card of a node with these certificates.
pub fn write_card(chain: &[Vec<u8>]) -> String {
    let lines = chain.iter().map(|der| BASE64.encode(der) + "\n");
    let body: String = std::iter::once(format!("{CARD}\n")).chain(lines).collect();
    let sum = checksum(&body);
    body + &sum + "\n"
}

/// The certificates of a card. Line ends of other systems are taken as well.
pub fn read_card(text: &str) -> Result<Vec<Vec<u8>>, CardError> {
    let lines: Vec<_> = text.lines().collect();
    if lines.first() != Some(&CARD) {
        return Err(CardError::Foreign);
    }
    let (sum, body) = lines.split_last().expect("there is a first line");
    if *sum != checksum(&body.iter().flat_map(|line| [line, "\n"]).collect::<String>()) || body.len() < 2 {
        return Err(CardError::Altered);
    }
    let decode = |line: &&str| BASE64.decode(line.as_bytes()).map_err(|_| CardError::Altered);
    body[1..].iter().map(decode).collect()
}

fn checksum(body: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_read_as_it_was_written_or_not_at_all() {
        let chain = vec![vec![1, 2, 3, 4], vec![5; 40]];
        let card = write_card(&chain);
        assert_eq!(read_card(&card), Ok(chain.clone()));
        assert_eq!(read_card(&card.replace('\n', "\r\n")), Ok(chain));
        let foreign = |text: &str| text.lines().next() != Some(CARD);
        for at in 0..card.len() {
            let mut other = card.clone().into_bytes();
            other[at] ^= 1;
            let Ok(other) = String::from_utf8(other) else { continue };
            for text in [other.as_str(), &card[..at]] {
                // Only the last line feed may be missing.
                let wanted = if foreign(text) { CardError::Foreign } else { CardError::Altered };
                if at + 1 < card.len() || text.lines().count() != card.lines().count() {
                    assert_eq!(read_card(text), Err(wanted), "{at}: {text}");
                }
            }
        }
        assert_eq!(read_card(&write_card(&[])), Err(CardError::Altered));
        assert_eq!(read_card(""), Err(CardError::Foreign));
    }
}
