//! Orders: signed statements of the root that rearrange the tree. They replicate like revocations and are never taken back.
//!
//! An order holds from the moment when a node has it: no clock decides, because those of clinics are wrong. Whoever gives
//! it for a later day keeps it until then. What always holds: every encoding is bounded by the limits named here, and
//! decoding accepts exactly what encoding writes. What an order means for the places of the tree is in [`crate::scope`];
//! who may sign one is for [`crate::identity::Authority`].

use crate::{
    id::{NodeId, OrgId, OrgPath},
    identity::{Input, Malformed, put_signature_and_chain},
};

/// Most steps of an order: each organization of a country once, several times over.
pub const STEPS_MAX: usize = 4_096;
/// Longest address in a step, in bytes: a DNS name has at most 253, and a port follows.
pub const ADDRESS_MAX_BYTES: usize = 260;
/// Longest place in a step, in bytes: as in a revocation.
pub use crate::identity::PLACE_MAX_BYTES;

const VERSION: u8 = 1;
const DOMAIN: &[u8] = b"tuyen order v1\0";
const MOVE: u8 = 1;
const CLOSE: u8 = 2;

/// One thing that an order does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// An organization and all below it stand elsewhere from now on.
    Move {
        /// Where it has stood.
        from: OrgPath,
        /// Where it stands now.
        to: OrgPath,
        /// Where its new parent listens, `host:port`; empty when its node is told in another way.
        address: String,
    },
    /// An organization is no more. What belonged to it belongs to another one.
    Close {
        /// The organization.
        org: OrgId,
        /// The other one.
        successor: OrgId,
    },
}

/// A signed order of the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Orders hold one after another by their numbers, from 1.
    pub number: u64,
    /// When it was signed, by the root's clock, in milliseconds since 1970. For people; nothing is decided by it.
    pub at: i64,
    /// What it does, one after another.
    pub steps: Vec<Step>,
    /// The root's node.
    pub signer: NodeId,
    /// Made with the signer's key over [`Order::to_be_signed`].
    pub signature: Vec<u8>,
    /// The signer's certificate and its issuers in DER, the signer's first, without the root's.
    pub chain: Vec<Vec<u8>>,
}

impl Order {
    /// The bytes that the signer signs; signature and chain are left out.
    pub fn to_be_signed(&self) -> Vec<u8> {
        let mut out = DOMAIN.to_vec();
        self.put_statement(&mut out);
        out
    }

    /// The encoding: version, number (u64), time (i64), steps (u16 count), signer (16), signature (u8 length), chain (u8
    /// count, then u16 length each). A step: 1, from, to, address; or 2, organization, successor; each a text with its
    /// length (u16). Numbers are big-endian.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        self.put_statement(&mut out);
        put_signature_and_chain(&mut out, &self.signature, &self.chain);
        out
    }

    fn put_statement(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.number.to_be_bytes());
        out.extend_from_slice(&self.at.to_be_bytes());
        out.extend_from_slice(&u16::try_from(self.steps.len()).unwrap_or(u16::MAX).to_be_bytes());
        for step in &self.steps {
            match step {
                Step::Move { from, to, address } => {
                    out.push(MOVE);
                    [&from.to_string(), &to.to_string(), address]
                        .into_iter()
                        .for_each(|text| put_text(out, text));
                }
                Step::Close { org, successor } => {
                    out.push(CLOSE);
                    [org, successor].into_iter().for_each(|org| put_text(out, org.as_str()));
                }
            }
        }
        out.extend_from_slice(&self.signer.0);
    }

    /// Reads an encoded order; it says nothing yet about who made it.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = Input(bytes);
        if input.u8()? != VERSION {
            return Err(Malformed("an order of a version that this program does not know"));
        }
        let number = u64::from_be_bytes(input.array()?);
        let at = i64::from_be_bytes(input.array()?);
        let count = usize::from(u16::from_be_bytes(input.array()?));
        if count > STEPS_MAX {
            return Err(Malformed("an order of more than 4096 steps"));
        }
        let mut steps = Vec::new();
        for _ in 0..count {
            steps.push(step(&mut input)?);
        }
        let signer = NodeId(input.array()?);
        let (signature, chain) = input.signature_and_chain()?;
        input.end()?;
        Ok(Self { number, at, steps, signer, signature, chain })
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn text<'a>(input: &mut Input<'a>, most: usize) -> Result<&'a str, Malformed> {
    let length = usize::from(u16::from_be_bytes(input.array()?));
    if length > most {
        return Err(Malformed("a text of an order is longer than it may be"));
    }
    str::from_utf8(input.take(length)?).map_err(|_| Malformed("a text of an order is not UTF-8"))
}

fn step(input: &mut Input<'_>) -> Result<Step, Malformed> {
    const NO_PLACE: Malformed = Malformed("a place that is not a path of organizations");
    const NO_ORG: Malformed = Malformed("a name that is not one of an organization");
    match input.u8()? {
        MOVE => {
            let mut place = || text(input, PLACE_MAX_BYTES)?.parse().map_err(|_| NO_PLACE);
            let (from, to) = (place()?, place()?);
            Ok(Step::Move { from, to, address: text(input, ADDRESS_MAX_BYTES)?.to_owned() })
        }
        CLOSE => {
            let mut org = || OrgId::new(text(input, PLACE_MAX_BYTES)?).map_err(|_| NO_ORG);
            Ok(Step::Close { org: org()?, successor: org()? })
        }
        _ => Err(Malformed("a step of an order that this program does not know")),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A move of the organization at the end of `from`.
    pub(crate) fn moved(from: &str, to: &str) -> Step {
        Step::Move { from: from.parse().unwrap(), to: to.parse().unwrap(), address: String::new() }
    }

    /// An organization is closed.
    pub(crate) fn closed(org: &str, successor: &str) -> Step {
        Step::Close { org: OrgId::new(org).unwrap(), successor: OrgId::new(successor).unwrap() }
    }

    /// An order of the root.
    pub(crate) fn order(number: u64, steps: Vec<Step>) -> Order {
        let (signer, signature) = (NodeId([1; 16]), vec![1]);
        Order { number, at: 1_795_000_000_000, steps, signer, signature, chain: vec![vec![1]] }
    }

    #[test]
    fn what_is_encoded_decodes_and_nothing_else_does() {
        let steps = vec![moved("tw/hg/dv", "tw/tq/dv"), closed("hg", "tq")];
        let one = order(u64::MAX, steps);
        let bytes = one.encode();
        assert_eq!(Order::decode(&bytes).unwrap(), one);
        for end in 0..bytes.len() {
            assert!(Order::decode(&bytes[..end]).is_err(), "{end}");
        }
        assert!(Order::decode(&[&bytes[..], &[0]].concat()).is_err());
        assert_eq!(Order::decode(&order(1, Vec::new()).encode()).unwrap(), order(1, Vec::new()));
        for (at, byte) in [(0, 2), (19, 3), (22, b'/')] {
            let mut bytes = bytes.clone();
            bytes[at] = byte;
            assert!(Order::decode(&bytes).is_err(), "{at}");
        }
    }

    #[test]
    fn limits_hold_and_what_is_just_within_them_passes() {
        for (steps, address, fits) in [
            (STEPS_MAX, 1, true),
            (STEPS_MAX + 1, 1, false),
            (1, ADDRESS_MAX_BYTES, true),
            (1, ADDRESS_MAX_BYTES + 1, false),
        ] {
            let mut step = moved("a/b", "a/c/b");
            if let Step::Move { address: known, .. } = &mut step {
                *known = "x".repeat(address);
            }
            let one = order(1, vec![step; steps]);
            assert_eq!(Order::decode(&one.encode()).is_ok(), fits, "{steps} {address}");
        }
    }

    #[test]
    fn every_part_of_an_order_is_signed() {
        let one = order(1, vec![moved("a/b", "a/c/b")]);
        let others = [
            Order { number: 2, ..one.clone() },
            Order { at: 1, ..one.clone() },
            Order { steps: vec![moved("a/b", "a/d/b")], ..one.clone() },
            Order { signer: NodeId([8; 16]), ..one.clone() },
        ];
        assert!(others.iter().all(|other| other.to_be_signed() != one.to_be_signed()));
        assert_eq!(Order { signature: vec![9], ..one.clone() }.to_be_signed(), one.to_be_signed());
    }
}
