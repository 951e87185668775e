//! The one-time invitation that a person carries from a parent to a new node, on paper or a stick.
//!
//! What always holds: a token names what the new node must find (the parent's key and the root), so that it
//! cannot be led to anybody else; it ends in a checksum, so that a slip of the pen is told apart from a refusal;
//! the parent keeps only the hash of the secret, and the secret itself is in nothing that is sent. Not here: whether it is still good (`enrol`, and the store).
//!
//! Before it is written in base32: version (1), role (1), expiry in minutes since 1970 (u32), parent's node (16),
//! root's fingerprint (16), secret (16), organization (u8 length), addresses (u8 count, then u8 length each),
//! checksum (4, of SHA-256 over all before). Numbers are big-endian.

use std::{fmt, str::FromStr};

use data_encoding::{Encoding, Specification};
use ring::hmac;
use sha2::{Digest, Sha256};
use sync_core::{
    id::{NodeId, OrgId},
    identity::Role,
};

use super::trust::{FINGERPRINT_BYTES, Fingerprint};

/// Length of the secret, in bytes: nobody guesses 128 bits over a network.
pub const SECRET_BYTES: usize = 16;
/// Most addresses of a parent in a token.
pub const ADDRESSES_MAX: usize = 4;
/// Longest address, in bytes: a host name and a port.
pub const ADDRESS_MAX_BYTES: usize = 255;
/// Longest text that is looked at.
const TEXT_MAX_BYTES: usize = 4_096;
/// What every token begins with.
const PREFIX: &str = "tuyen1";
const VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 4;
/// Characters between two strokes.
const GROUP: usize = 5;
const MINUTE_MS: i64 = 60_000;
/// What stands before the hash of a secret where the name of its token is made.
const NAME_DOMAIN: &[u8] = b"tuyen token v1\0";
/// Length of the name of a token, in bytes.
pub const TOKEN_NAME_BYTES: usize = 16;

/// Why a text is not a token.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TokenError {
    /// Something else altogether.
    #[error("this is no token: one begins with {PREFIX}; copy the whole text from the paper or file")]
    NotAToken,
    /// A character that tokens do not have.
    #[error("a token has no '{0}' in it: it is written with a to z and 2 to 7; look at that character again")]
    Character(char),
    /// A slip somewhere.
    #[error(
        "the token has a mistake in it or is not whole: its checksum does not match; compare it with the original"
    )]
    Checksum,
    /// Genuine, but from another version.
    #[error("the token was made by another version of tuyen; update this node, or ask for a new token")]
    Version,
    /// Something that cannot be put into a token.
    #[error("{0}")]
    CannotMake(&'static str),
}

/// The secret of a token. Its `Debug` form keeps it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub [u8; SECRET_BYTES]);

impl Secret {
    /// Draws one.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; SECRET_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// What the parent keeps.
    pub fn hash(&self) -> SecretHash {
        SecretHash(Sha256::digest(self.0).into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The SHA-256 of a token's secret: what the parent keeps, and the key with which who has the token proves it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct SecretHash(pub [u8; 32]);

impl SecretHash {
    /// By which name a request speaks of the token. It tells nothing of the secret or its hash.
    pub fn name(&self) -> TokenName {
        let hash = Sha256::new().chain_update(NAME_DOMAIN).chain_update(self.0).finalize();
        TokenName(hash[..TOKEN_NAME_BYTES].try_into().expect("a SHA-256 has 32 bytes"))
    }

    /// Proves the possession of the token over a statement: HMAC-SHA-256.
    pub fn prove(&self, statement: &[u8]) -> Vec<u8> {
        hmac::sign(&self.key(), statement).as_ref().to_vec()
    }

    /// Whether whoever made this proof over the statement has the token.
    pub fn is_proved(&self, statement: &[u8], proof: &[u8]) -> bool {
        hmac::verify(&self.key(), statement, proof).is_ok()
    }

    fn key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.0)
    }
}

/// The name of a token. It is no secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TokenName(pub [u8; TOKEN_NAME_BYTES]);

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// An invitation to become a node of the tree. Its `Display` form is what is printed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Token {
    /// The parent.
    pub parent: NodeId,
    /// Where to find it: host and port. May be empty when enrolment goes by file.
    pub addresses: Vec<String>,
    /// The root of the tree.
    pub root: Fingerprint,
    /// The organization of the new node.
    pub org: OrgId,
    /// Its role: hub or leaf.
    pub role: Role,
    /// Until when the parent honours it, in milliseconds since 1970, a whole minute.
    pub expires: i64,
    /// What proves that the bearer was invited.
    pub secret: Secret,
}

impl Token {
    /// Cuts the expiry to the minute and checks what a token can carry.
    pub fn new(token: Token) -> Result<Self, TokenError> {
        let wrong = |why| Err(TokenError::CannotMake(why));
        if token.role == Role::Root {
            return wrong("a root is founded, not invited: use `tuyen init`");
        }
        if token.addresses.len() > ADDRESSES_MAX {
            return wrong("a token carries at most 4 addresses; leave some out");
        }
        if token.addresses.iter().any(|a| a.is_empty() || a.len() > ADDRESS_MAX_BYTES) {
            return wrong("an address is 1 to 255 bytes, host:port; shorten it");
        }
        let minutes = token.expires.div_euclid(MINUTE_MS);
        if u32::try_from(minutes).is_err() {
            return wrong(
                "the token would expire outside of any calendar; set the clock of this machine right",
            );
        }
        Ok(Self { expires: minutes * MINUTE_MS, ..token })
    }

    fn to_bytes(&self) -> Vec<u8> {
        let role = if self.role == Role::Hub { 1 } else { 2 };
        let minutes = u32::try_from(self.expires / MINUTE_MS).unwrap_or(u32::MAX);
        let mut out = vec![VERSION, role];
        out.extend_from_slice(&minutes.to_be_bytes());
        out.extend_from_slice(&self.parent.0);
        out.extend_from_slice(&self.root.0);
        out.extend_from_slice(&self.secret.0);
        put_text(&mut out, self.org.as_str());
        out.push(u8::try_from(self.addresses.len()).unwrap_or(u8::MAX));
        self.addresses.iter().for_each(|address| put_text(&mut out, address));
        let checksum = checksum(&out);
        out.extend_from_slice(&checksum);
        out
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut input = bytes;
        let [version, role] = take(&mut input)?;
        let role = match (version, role) {
            (VERSION, 1) => Role::Hub,
            (VERSION, 2) => Role::Leaf,
            _ => return None,
        };
        let expires = i64::from(u32::from_be_bytes(take(&mut input)?)) * MINUTE_MS;
        let parent = NodeId(take(&mut input)?);
        let root = Fingerprint(take::<FINGERPRINT_BYTES>(&mut input)?);
        let secret = Secret(take(&mut input)?);
        let org = OrgId::new(take_text(&mut input)?).ok()?;
        let [count] = take(&mut input)?;
        let addresses =
            (0..count).map(|_| take_text(&mut input).map(str::to_owned)).collect::<Option<Vec<_>>>()?;
        let whole = input.is_empty() && addresses.len() <= ADDRESSES_MAX;
        whole.then_some(Self { parent, addresses, root, org, role, expires, secret })
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = Sha256::digest(bytes);
    hash[..CHECKSUM_BYTES].try_into().expect("a SHA-256 has 32 bytes")
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(text.as_bytes());
}

fn take<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = input.split_first_chunk()?;
    *input = rest;
    Some(*taken)
}

fn take_text<'a>(input: &mut &'a [u8]) -> Option<&'a str> {
    let [length] = take(input)?;
    let (taken, rest) = input.split_at_checked(usize::from(length))?;
    *input = rest;
    str::from_utf8(taken).ok()
}

fn base32() -> Encoding {
    let mut specification = Specification::new();
    specification.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    specification.encoding().expect("these are 32 different symbols")
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        let text = base32().encode(&self.to_bytes());
        for (i, character) in text.chars().enumerate() {
            if i % GROUP == 0 {
                f.write_str("-")?;
            }
            write!(f, "{character}")?;
        }
        Ok(())
    }
}

impl FromStr for Token {
    type Err = TokenError;

    /// Case, strokes and white space do not matter, and the digits that look like letters are taken for them.
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text: String =
            text.chars().filter(|c| !c.is_whitespace() && *c != '-').take(TEXT_MAX_BYTES).collect();
        let text = text.to_lowercase();
        let body = text.strip_prefix(PREFIX).ok_or(TokenError::NotAToken)?;
        let body: String = body.chars().map(look_alike).collect();
        if let Some(wrong) = body.chars().find(|c| !matches!(c, 'a'..='z' | '2'..='7')) {
            return Err(TokenError::Character(wrong));
        }
        let bytes = base32().decode(body.as_bytes()).map_err(|_| TokenError::Checksum)?;
        let (content, sum) = bytes.split_last_chunk().ok_or(TokenError::Checksum)?;
        if checksum(content) != *sum {
            return Err(TokenError::Checksum);
        }
        Self::from_bytes(content).ok_or(TokenError::Version)
    }
}

fn look_alike(c: char) -> char {
    match c {
        '0' => 'o',
        '1' => 'l',
        '8' => 'b',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token::new(Token {
            parent: NodeId([7; 16]),
            addresses: vec!["hub.ha-giang.example:4433".into(), "192.0.2.7:4433".into()],
            root: Fingerprint([8; FINGERPRINT_BYTES]),
            org: OrgId::new("dong-van").unwrap(),
            role: Role::Leaf,
            expires: 1_795_000_012_345,
            secret: Secret([9; SECRET_BYTES]),
        })
        .unwrap()
    }

    #[test]
    fn a_token_survives_paper() {
        let token = token();
        let text = token.to_string();
        assert!(text.starts_with("tuyen1-"), "{text}");
        assert_eq!(text.parse::<Token>().unwrap(), token);
        let typed = text.to_uppercase().replace('-', " ").replace('O', "0").replace('L', "1");
        assert_eq!(typed.replace("TUYEN1", "TUYEN1 ").parse::<Token>().unwrap(), token);
        assert!(!format!("{token:?}").contains("9, 9"), "the secret must not be shown");
    }

    #[test]
    fn every_slip_is_noticed() {
        let text = token().to_string();
        for i in "tuyen1-".len()..text.len() {
            let mut slip: Vec<char> = text.chars().collect();
            if slip[i] == '-' {
                continue;
            }
            slip[i] = if slip[i] == 'q' { 'r' } else { 'q' };
            let slip: String = slip.into_iter().collect();
            assert_eq!(slip.parse::<Token>(), Err(TokenError::Checksum), "{i}");
        }
        assert_eq!(text[..text.len() - 6].parse::<Token>(), Err(TokenError::Checksum));
        assert_eq!("hello".parse::<Token>(), Err(TokenError::NotAToken));
        assert_eq!("tuyen1-ab9".parse::<Token>(), Err(TokenError::Character('9')));
    }
}
