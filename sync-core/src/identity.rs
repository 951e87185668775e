//! Who a node is, as far as the engine has to know: announcements of incarnations, revocations, and the window
//! through which the engine asks whether they are genuine.
//!
//! What always holds: the bytes that are signed begin with a text of their own kind, so that a signature over
//! one kind never passes for another; every encoding is bounded by the limits named here, and decoding accepts
//! exactly what encoding writes. Not here: keys, certificates and any cryptography. The node implements
//! [`Authority`] with real certificates, the simulated world with a table.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    id::{Incarnation, NodeId, OrgPath},
    order::Order,
    scope::Places,
};

/// Longest chain that travels, in certificates: the node's own and up to [`CHAIN_MAX_CERTIFICATES`] - 1
/// intermediates. One more than the six intermediates that the path builder follows.
pub const CHAIN_MAX_CERTIFICATES: usize = 7;
/// Largest certificate that travels, in bytes. Ours measure 400 to 900; the rest is room for a long place.
pub const CERTIFICATE_MAX_BYTES: usize = 2_048;
/// Longest signature, in bytes. Ed25519 takes 64.
pub const SIGNATURE_MAX_BYTES: usize = 128;
/// Longest place in a revocation, in bytes: eight organization names of 63 bytes and the strokes between them.
pub const PLACE_MAX_BYTES: usize = 8 * 64;
/// Longest serial number of a certificate, in bytes (RFC 5280, 4.1.2.2).
pub const SERIAL_MAX_BYTES: usize = 20;

const ANNOUNCEMENT_VERSION: u8 = 1;
const ANNOUNCEMENT_DOMAIN: &[u8] = b"tuyen announcement v1\0";
const REVOCATION_VERSION: u8 = 1;
const REVOCATION_DOMAIN: &[u8] = b"tuyen revocation v1\0";

/// What a node is in the tree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The top of the tree; holds the root CA.
    Root,
    /// Has a parent and children; holds an intermediate CA.
    Hub,
    /// Has a parent and no children.
    Leaf,
}

impl Role {
    /// The role in lower case, as it stands in certificates and settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Root => "root",
            Role::Hub => "hub",
            Role::Leaf => "leaf",
        }
    }

    /// The role with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Role::Root, Role::Hub, Role::Leaf].into_iter().find(|role| role.as_str() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a certificate chain says of a node.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct NodeInfo {
    /// The node: the name of its key.
    pub node: NodeId,
    /// Where it stands in the tree.
    pub place: OrgPath,
    /// What it is there.
    pub role: Role,
}

/// The serial number of a certificate, as its issuer drew it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(Vec<u8>);

impl Serial {
    /// Checks the length of a serial number.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (1..=SERIAL_MAX_BYTES).contains(&bytes.len()).then(|| Self(bytes.to_vec()))
    }

    /// The number, big-endian.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Serial {
    type Err = Malformed;
    fn from_str(s: &str) -> Result<Self, Malformed> {
        let wrong = Malformed("a serial number is 2 to 40 hexadecimal digits");
        if !s.is_ascii() || !s.len().is_multiple_of(2) {
            return Err(wrong);
        }
        let byte = |i: usize| u8::from_str_radix(&s[2 * i..2 * i + 2], 16);
        let bytes = (0..s.len() / 2).map(byte).collect::<Result<Vec<_>, _>>();
        bytes.ok().and_then(|bytes| Self::new(&bytes)).ok_or(wrong)
    }
}

impl Serialize for Serial {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Serial {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The signed announcement of an incarnation. It travels ahead of the incarnation's entries and also names the
/// parent of the feed segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Announcement {
    /// The incarnation that is announced.
    pub incarnation: Incarnation,
    /// The node's segment before this one and the last position in it; none for a node's first.
    pub parent: Option<(Incarnation, u64)>,
    /// The node whose incarnation it is.
    pub node: NodeId,
    /// Made with the node's key over [`Announcement::to_be_signed`].
    pub signature: Vec<u8>,
    /// The node's certificate and its issuers in DER, the node's first, without the root's.
    pub chain: Vec<Vec<u8>>,
}

impl Announcement {
    /// The bytes that the node signs.
    pub fn to_be_signed(
        incarnation: Incarnation,
        parent: Option<(Incarnation, u64)>,
        node: NodeId,
    ) -> Vec<u8> {
        let mut out = ANNOUNCEMENT_DOMAIN.to_vec();
        put_names(&mut out, incarnation, parent, node);
        out
    }

    /// The signed bytes of this announcement.
    pub fn signed_bytes(&self) -> Vec<u8> {
        Self::to_be_signed(self.incarnation, self.parent, self.node)
    }

    /// The encoding: version, incarnation (16), parent (0, or 1 with 16 and a u64), node (16), signature (u8
    /// length), chain (u8 count, then u16 length each). Numbers are big-endian.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![ANNOUNCEMENT_VERSION];
        put_names(&mut out, self.incarnation, self.parent, self.node);
        put_signature_and_chain(&mut out, &self.signature, &self.chain);
        out
    }

    /// Reads an encoded announcement; it says nothing yet about who made it.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = Input(bytes);
        if input.u8()? != ANNOUNCEMENT_VERSION {
            return Err(Malformed("an announcement of a version that this program does not know"));
        }
        let incarnation = Incarnation(input.array()?);
        let parent = match input.u8()? {
            0 => None,
            1 => Some((Incarnation(input.array()?), u64::from_be_bytes(input.array()?))),
            _ => return Err(Malformed("the parent mark of an announcement is neither 0 nor 1")),
        };
        let node = NodeId(input.array()?);
        let (signature, chain) = input.signature_and_chain()?;
        input.end()?;
        Ok(Self { incarnation, parent, node, signature, chain })
    }
}

fn put_names(out: &mut Vec<u8>, incarnation: Incarnation, parent: Option<(Incarnation, u64)>, node: NodeId) {
    out.extend_from_slice(&incarnation.0);
    match parent {
        None => out.push(0),
        Some((segment, last)) => {
            out.push(1);
            out.extend_from_slice(&segment.0);
            out.extend_from_slice(&last.to_be_bytes());
        }
    }
    out.extend_from_slice(&node.0);
}

/// Why a certificate was revoked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// The machine is lost or stolen.
    Lost = 1,
    /// Somebody else may hold the key.
    Compromised = 2,
    /// Another machine took its place.
    Replaced = 3,
    /// The organization left the tree.
    Left = 4,
    /// It should not have been issued.
    Mistake = 5,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Reason; 5] =
        [Reason::Lost, Reason::Compromised, Reason::Replaced, Reason::Left, Reason::Mistake];

    fn from_u8(n: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| *reason as u8 == n)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Lost => "the machine was lost",
            Reason::Compromised => "somebody else may hold its key",
            Reason::Replaced => "another machine took its place",
            Reason::Left => "the organization left",
            Reason::Mistake => "it was issued by mistake",
        })
    }
}

/// A signed statement that a key is no longer to be trusted. It replicates like data and is never taken back: a
/// machine that comes back enrols again with a new key.
///
/// It is signed by a hub or the root (with its node's key), and counts only for certificates whose place lies
/// within the signer's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Revocation {
    /// The key: a node's, or that of a hub's CA, named in the same way. A hub that goes has both revoked.
    pub node: NodeId,
    /// One certificate of that key, or every one that it ever had or gets.
    pub serial: Option<Serial>,
    /// Where the key stands in the tree.
    pub place: OrgPath,
    /// Why.
    pub reason: Reason,
    /// When, by the signer's clock, in milliseconds since 1970. For people; nothing is decided by it.
    pub at: i64,
    /// Who revoked it.
    pub signer: NodeId,
    /// Made with the signer's key over [`Revocation::to_be_signed`].
    pub signature: Vec<u8>,
    /// The signer's certificate and its issuers in DER, the signer's first, without the root's.
    pub chain: Vec<Vec<u8>>,
}

impl Revocation {
    /// The bytes that the signer signs; signature and chain are left out.
    pub fn to_be_signed(&self) -> Vec<u8> {
        let mut out = REVOCATION_DOMAIN.to_vec();
        self.put_statement(&mut out);
        out
    }

    fn put_statement(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.node.0);
        let serial = self.serial.as_ref().map_or(&[][..], Serial::as_bytes);
        out.push(u8::try_from(serial.len()).expect("a serial number has at most 20 bytes"));
        out.extend_from_slice(serial);
        let place = self.place.to_string();
        out.extend_from_slice(&u16::try_from(place.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend_from_slice(place.as_bytes());
        out.push(self.reason as u8);
        out.extend_from_slice(&self.at.to_be_bytes());
        out.extend_from_slice(&self.signer.0);
    }

    /// The encoding: version, key (16), serial (u8 length, 0 for all), place (u16 length), reason, time (i64),
    /// signer (16), signature (u8 length), chain (u8 count, then u16 length each). Numbers are big-endian.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![REVOCATION_VERSION];
        self.put_statement(&mut out);
        put_signature_and_chain(&mut out, &self.signature, &self.chain);
        out
    }

    /// Reads an encoded revocation; it says nothing yet about who made it.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = Input(bytes);
        if input.u8()? != REVOCATION_VERSION {
            return Err(Malformed("a revocation of a version that this program does not know"));
        }
        let node = NodeId(input.array()?);
        let length = usize::from(input.u8()?);
        let serial = match input.take(length)? {
            [] => None,
            bytes => Some(Serial::new(bytes).ok_or(Malformed("a serial number of more than 20 bytes"))?),
        };
        let length = usize::from(u16::from_be_bytes(input.array()?));
        if length > PLACE_MAX_BYTES {
            return Err(Malformed("a place of more than 512 bytes"));
        }
        let place = str::from_utf8(input.take(length)?).ok().and_then(|place| place.parse().ok());
        let place = place.ok_or(Malformed("a place that is not a path of organizations"))?;
        let reason = Reason::from_u8(input.u8()?).ok_or(Malformed("a revocation for an unknown reason"))?;
        let at = i64::from_be_bytes(input.array()?);
        let signer = NodeId(input.array()?);
        let (signature, chain) = input.signature_and_chain()?;
        input.end()?;
        Ok(Self { node, serial, place, reason, at, signer, signature, chain })
    }
}

/// Bytes that are not what they should be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N).map(|bytes| bytes.try_into().expect("take gives as many as asked for"))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(|[byte]| byte)
    }

    pub(crate) fn signature_and_chain(&mut self) -> Result<(Vec<u8>, Vec<Vec<u8>>), Malformed> {
        let length = usize::from(self.u8()?);
        if length > SIGNATURE_MAX_BYTES {
            return Err(Malformed("a signature of more than 128 bytes"));
        }
        let signature = self.take(length)?.to_vec();
        let count = usize::from(self.u8()?);
        if count > CHAIN_MAX_CERTIFICATES {
            return Err(Malformed("a chain of more than 7 certificates"));
        }
        let mut chain = Vec::with_capacity(count);
        for _ in 0..count {
            let length = usize::from(u16::from_be_bytes(self.array()?));
            if length > CERTIFICATE_MAX_BYTES {
                return Err(Malformed("a certificate of more than 2048 bytes"));
            }
            chain.push(self.take(length)?.to_vec());
        }
        Ok((signature, chain))
    }

    pub(crate) fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("it goes on after its end")) }
    }
}

/// Writes what is within the limits; a caller that exceeds them gets bytes that nobody will decode.
pub(crate) fn put_signature_and_chain(out: &mut Vec<u8>, signature: &[u8], chain: &[Vec<u8>]) {
    out.push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(signature);
    out.push(u8::try_from(chain.len()).unwrap_or(u8::MAX));
    for certificate in chain {
        out.extend_from_slice(&u16::try_from(certificate.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend_from_slice(certificate);
    }
}

/// The engine's window on cryptography.
///
/// Two questions are kept apart on purpose. Whether a statement is *genuine* never changes: a clinic that is
/// gone for years, its certificate expired or revoked since, still wrote what it wrote, and a new hub must be
/// able to read it. Whether a node may *speak today* is asked of the neighbour at the other end of a session.
pub trait Authority {
    /// Whether an announcement is genuine: signed by the node it names, whose certificate our tree issued. Expiry
    /// and revocation do not matter here; ask [`Authority::admit`] about a neighbour.
    fn verify(&self, announcement: &Announcement) -> Result<NodeInfo, Refusal>;

    /// Whether the holder of these certificates (DER, its own first, without the root's) may speak to us today. To
    /// be asked of a session's peer, at its start and after every new revocation; never of the author of a relayed entry.
    fn admit(&self, chain: &[Vec<u8>]) -> Result<(), Refusal>;

    /// Whether the node of an announcement has signed a statement of the kind of [`crate::change::Entry::statement`].
    /// Expiry and revocation do not matter here.
    fn verify_issued(&self, author: &Announcement, statement: &[u8], signature: &[u8])
    -> Result<(), Refusal>;

    /// Whether a revocation is genuine: signed by a hub or the root whose place covers the one revoked, as their certificates
    /// say or by the orders that have moved them since.
    fn verify_revocation(&self, revocation: &Revocation, places: &Places) -> Result<(), Refusal>;

    /// Whether an order is genuine: signed by a node of the root.
    fn verify_order(&self, order: &Order) -> Result<(), Refusal>;
}

/// Why a node or a statement of one is not accepted. What, why and what to do, for both sides to show.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// Not issued under our root.
    #[error(
        "{who} belongs to another tree: its certificate was not issued under the root {root}; \
         check the address, or enrol it again with a token of this tree"
    )]
    WrongTree {
        /// What the certificate claims, or "the node".
        who: String,
        /// The beginning of our root's fingerprint.
        root: String,
    },
    /// The certificate's time is over.
    #[error(
        "the certificate of {who} expired on {} and it is {} here. If that is the day, make a token at its parent \
         (`tuyen invite`), stop its daemon and run `tuyen enrol TOKEN` on the folder that it has; if not, set the clock \
         of this machine right. Work goes on there meanwhile, and no record is lost",
        Date(*.until), Date(*.now)
    )]
    Expired {
        /// The node or CA.
        who: String,
        /// When it expired, in milliseconds since 1970.
        until: i64,
        /// The time that it was held against, in milliseconds since 1970.
        now: i64,
    },
    /// A signature does not match.
    #[error(
        "the signature of {what} is wrong: it was altered on the way or made with another key; \
         if it happens again, ask whoever runs the node it came from to check its disk and its keys"
    )]
    BadSignature {
        /// What was signed.
        what: &'static str,
    },
    /// The node was revoked.
    #[error(
        "{}{who} was revoked on {}: {reason}; {}", if *.ca { "the CA of " } else { "" }, Date(*.at), way_on(*.ca)
    )]
    Revoked {
        /// Its place.
        who: String,
        /// Whether it is its CA, and so whoever stands below it is meant.
        ca: bool,
        /// Why.
        reason: Reason,
        /// When, in milliseconds since 1970.
        at: i64,
    },
    /// A certificate of before its node was moved.
    #[error(
        "this certificate of {who} has ended: an order has moved it, and it has shown a newer one. If its machine was put \
         back from an old copy, make a token at its parent (`tuyen invite`), stop its daemon and run `tuyen enrol TOKEN` on \
         the folder that it has; if not, somebody uses an old copy of its keys: find out who. No record is lost"
    )]
    Ended {
        /// The place that the certificate names.
        who: String,
    },
    /// A node that was revoked lets nobody in below it: what it takes reaches nobody.
    #[error(
        "{who} was itself revoked, and takes nothing any more. Stop tuyend here, and enrol this node, in the folder that it has, at \
         the machine that stands for {who} now, with a token from there (`tuyen invite` there, `tuyen enrol TOKEN` here). What was \
         written here goes there then"
    )]
    IsRevoked {
        /// The place of the node that speaks.
        who: String,
    },
    /// An issuer or signer spoke for a place that is not below it.
    #[error(
        "{issuer} spoke for {place}, which is not directly in its part of the tree; \
         ask the operators of {issuer} why, and revoke it if they do not know"
    )]
    OutsideSubtree {
        /// The place that was spoken for.
        place: String,
        /// The place of the issuer or signer.
        issuer: String,
    },
    /// The key is another than the one named.
    #[error("this is node {found}, but {expected} was expected; check the address, or who uses it now")]
    OtherNode {
        /// The node that was named.
        expected: NodeId,
        /// The node whose key it is.
        found: NodeId,
    },
    /// A role that may not do this.
    #[error("{who} is a {role} and may not {what}; ask the node above it to do so")]
    WrongRole {
        /// The node.
        who: String,
        /// Its role.
        role: Role,
        /// What it tried.
        what: &'static str,
    },
    /// No certificate at all.
    #[error(
        "the other side showed no certificate; enrol it first: `tuyen enrol` with a token from this node"
    )]
    NoCertificate,
    /// Something that is not a chain of our kind.
    #[error(
        "{what}; the other side may run another version or is damaged: compare `tuyen --version` on both"
    )]
    Malformed {
        /// What is wrong with it.
        what: String,
    },
}

/// What whoever was refused is to do: its key is good still if only the CA that has issued its certificates is not.
fn way_on(ca: bool) -> &'static str {
    match ca {
        true => {
            "what it had issued is good no more: where that is to work again, make a token at its parent of now (`tuyen invite`), \
             stop its daemon and run `tuyen enrol TOKEN` on the folder that it has. No record is lost"
        }
        false => {
            "if that machine is to work again, enrol it as a new node, in an empty folder, with a token from its parent; what it has \
             not sent goes no other way than by `tuyen records export` there and `tuyen records import` at the new one"
        }
    }
}

impl Refusal {
    /// The number of [`Refusal::Revoked`], of a node itself.
    pub const REVOKED: u16 = 4;
    /// The number of [`Refusal::IsRevoked`].
    pub const IS_REVOKED: u16 = 12;
    /// The number of [`Refusal::OutsideSubtree`].
    pub const OUTSIDE: u16 = 5;

    /// A number that stands for the kind of refusal on the wire. Never given to another kind.
    pub fn code(&self) -> u16 {
        match self {
            Refusal::WrongTree { .. } => 1,
            Refusal::Expired { .. } => 2,
            Refusal::BadSignature { .. } => 3,
            Refusal::Revoked { ca: false, .. } => Self::REVOKED,
            Refusal::Revoked { ca: true, .. } => 11,
            Refusal::IsRevoked { .. } => Self::IS_REVOKED,
            Refusal::OutsideSubtree { .. } => Self::OUTSIDE,
            Refusal::OtherNode { .. } => 6,
            Refusal::WrongRole { .. } => 7,
            Refusal::NoCertificate => 8,
            Refusal::Malformed { .. } => 9,
            Refusal::Ended { .. } => 10,
        }
    }
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        Refusal::Malformed { what: malformed.0.to_owned() }
    }
}

/// A day, written 2026-11-22, from milliseconds since 1970: for messages. Days are those of UTC.
pub struct Date(pub i64);

impl fmt::Display for Date {
    /// After Howard Hinnant's `civil_from_days`, with years that begin in March.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = self.0.div_euclid(86_400_000) + 719_468;
        let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year_of_era = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        write!(f, "{year:04}-{month:02}-{day_of_month:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announcement() -> Announcement {
        Announcement {
            incarnation: Incarnation([1; 16]),
            parent: Some((Incarnation([2; 16]), 77)),
            node: NodeId([3; 16]),
            signature: vec![4; 64],
            chain: vec![vec![5; 500], vec![6; 400]],
        }
    }

    fn revocation() -> Revocation {
        Revocation {
            node: NodeId([1; 16]),
            serial: Serial::new(&[9; 16]),
            place: "trung-uong/ha-giang/dong-van".parse().unwrap(),
            reason: Reason::Lost,
            at: 1_795_000_000_000,
            signer: NodeId([2; 16]),
            signature: vec![4; 64],
            chain: vec![vec![5; 500]],
        }
    }

    #[test]
    fn what_is_encoded_decodes_and_nothing_else_does() {
        for parent in [None, Some((Incarnation([2; 16]), u64::MAX))] {
            let a = Announcement { parent, ..announcement() };
            assert_eq!(Announcement::decode(&a.encode()).unwrap(), a);
        }
        for serial in [None, Serial::new(&[9; 20])] {
            let r = Revocation { serial, ..revocation() };
            assert_eq!(Revocation::decode(&r.encode()).unwrap(), r);
        }
        let (a, r) = (announcement().encode(), revocation().encode());
        for end in 0..a.len() {
            assert!(Announcement::decode(&a[..end]).is_err(), "{end}");
        }
        for end in 0..r.len() {
            assert!(Revocation::decode(&r[..end]).is_err(), "{end}");
        }
        assert!(Announcement::decode(&[&a[..], &[0]].concat()).is_err());
        assert!(Revocation::decode(&[&r[..], &[0]].concat()).is_err());
    }

    #[test]
    fn limits_hold_and_what_is_just_within_them_passes() {
        let of = |signature: usize, certificates: usize, bytes: usize| {
            let chain = vec![vec![0; bytes]; certificates];
            Announcement { signature: vec![0; signature], chain, ..announcement() }
        };
        for (statement, fits) in [
            (of(SIGNATURE_MAX_BYTES, CHAIN_MAX_CERTIFICATES, CERTIFICATE_MAX_BYTES), true),
            (of(SIGNATURE_MAX_BYTES + 1, 1, 2), false),
            (of(64, CHAIN_MAX_CERTIFICATES + 1, 2), false),
            (of(64, 1, CERTIFICATE_MAX_BYTES + 1), false),
            (of(0, 0, 0), true),
        ] {
            let decoded = Announcement::decode(&statement.encode());
            assert_eq!(decoded.ok(), fits.then_some(statement));
        }
        for (last, fits) in [(56, true), (57, false)] {
            let mut place = vec!["a".repeat(56); 8];
            place.push("a".repeat(last));
            let place: OrgPath = place.join("/").parse().unwrap();
            let bytes = place.to_string().len();
            assert_eq!(
                Revocation::decode(&Revocation { place, ..revocation() }.encode()).is_ok(),
                fits,
                "{bytes}"
            );
        }
    }

    #[test]
    fn statements_of_another_version_are_refused() {
        for version in [0, 2, 255] {
            let (mut a, mut r) = (announcement().encode(), revocation().encode());
            (a[0], r[0]) = (version, version);
            assert!(Announcement::decode(&a).is_err() && Revocation::decode(&r).is_err(), "{version}");
        }
        let mut a = announcement().encode();
        a[17] = 2;
        assert_eq!(
            Announcement::decode(&a),
            Err(Malformed("the parent mark of an announcement is neither 0 nor 1"))
        );
    }

    #[test]
    fn serial_numbers_are_read_as_they_are_written() {
        for (text, right) in [
            ("0a", true),
            (&"f0".repeat(20), true),
            ("", false),
            (&"f0".repeat(21), false),
            ("0ab", false),
            ("0g", false),
            ("é", false),
        ] {
            let serial = text.parse::<Serial>();
            assert_eq!(serial.is_ok(), right, "{text}");
            if let Ok(serial) = serial {
                assert_eq!((serial.to_string(), format!("{serial:?}")), (text.to_owned(), text.to_owned()));
                let json = serde_json::to_string(&serial).unwrap();
                assert_eq!(json, format!("\"{text}\""));
                assert_eq!(serde_json::from_str::<Serial>(&json).unwrap(), serial);
            }
        }
        assert_eq!("0a0b".parse::<Serial>().unwrap().as_bytes(), [10, 11]);
    }

    #[test]
    fn roles_and_reasons_have_their_words() {
        for (role, name) in [(Role::Root, "root"), (Role::Hub, "hub"), (Role::Leaf, "leaf")] {
            assert_eq!((role.to_string().as_str(), Role::from_name(name)), (name, Some(role)));
        }
        assert_eq!(Role::from_name("Root"), None);
        let words: std::collections::BTreeSet<_> = Reason::ALL.iter().map(Reason::to_string).collect();
        assert_eq!(words.len(), Reason::ALL.len());
        assert!(words.contains("the machine was lost"));
        assert_eq!(
            [0, 1, 5, 6].map(Reason::from_u8),
            [None, Some(Reason::Lost), Some(Reason::Mistake), None]
        );
    }

    #[test]
    fn each_kind_of_refusal_has_its_number() {
        let who = || "a/b".to_owned();
        let all = [
            Refusal::WrongTree { who: who(), root: String::new() },
            Refusal::Expired { who: who(), until: 0, now: 0 },
            Refusal::BadSignature { what: "a revocation" },
            Refusal::Revoked { who: who(), ca: false, reason: Reason::Lost, at: 0 },
            Refusal::OutsideSubtree { place: who(), issuer: who() },
            Refusal::OtherNode { expected: NodeId([1; 16]), found: NodeId([2; 16]) },
            Refusal::WrongRole { who: who(), role: Role::Leaf, what: "sign" },
            Refusal::NoCertificate,
            Malformed("it ends too early").into(),
            Refusal::Ended { who: who() },
            Refusal::Revoked { who: who(), ca: true, reason: Reason::Lost, at: 0 },
            Refusal::IsRevoked { who: who() },
        ];
        assert!(all.iter().map(Refusal::code).eq(1..=12));
        assert!(all[8].to_string().starts_with("it ends too early;"));
    }

    #[test]
    fn every_part_of_a_statement_is_signed() {
        let r = revocation();
        let others = [
            Revocation { node: NodeId([8; 16]), ..r.clone() },
            Revocation { serial: None, ..r.clone() },
            Revocation { place: "trung-uong/ha-giang".parse().unwrap(), ..r.clone() },
            Revocation { reason: Reason::Left, ..r.clone() },
            Revocation { at: 1, ..r.clone() },
            Revocation { signer: NodeId([8; 16]), ..r.clone() },
        ];
        assert!(others.iter().all(|other| other.to_be_signed() != r.to_be_signed()));
        let a = announcement();
        assert_ne!(a.signed_bytes(), Announcement { parent: None, ..a.clone() }.signed_bytes());
    }

    #[test]
    fn days_follow_one_another_as_in_the_calendar() {
        const DAY: i64 = 86_400_000;
        let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let mut day = -(400 * 365 + 97);
        for year in 1570..2370 {
            let february = if leap(year) { 29 } else { 28 };
            for (month, days) in (1..).zip([31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]) {
                for day_of_month in 1..=days {
                    let expected = format!("{year}-{month:02}-{day_of_month:02}");
                    assert_eq!(Date(day * DAY).to_string(), expected);
                    assert_eq!(Date(day * DAY + DAY - 1).to_string(), expected);
                    day += 1;
                }
            }
        }
        assert_eq!(day, 400 * 365 + 97, "from four centuries before 1970 to four after");
    }

    #[test]
    fn refusals_name_the_day() {
        assert_eq!(Date(1_795_305_600_000).to_string(), "2026-11-22");
        let expired = Refusal::Expired { who: "a/b".into(), until: 0, now: 951_782_400_000 }.to_string();
        assert!(expired.contains("expired on 1970-01-01 and it is 2000-02-29"), "{expired}");
    }
}
