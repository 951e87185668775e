//! The next certificates of a node that has some: the same keys, the same role, and the place where it stands.
//!
//! What always holds: the parent goes by the certificate that the connection has proved, by the orders that have moved it,
//! and by its own book, and takes nothing else from the request, but the key of the CA of a hub that an order has moved to
//! it; the node takes only certificates that lead to its own root, are made for its own keys and role and for the place
//! where it stands, and that end later than those before unless it has moved. A hub's CA is renewed with its node, so that it
//! hardly ever shortens what it issues; what the old one has issued goes on with the old one in its chain. On a stick a
//! [`Request`] with a signature stands for the connection. Not here: the stream (`transport`), the files (`keys`,
//! `file`), and when to ask (the daemon).

use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sync_core::{id::OrgPath, identity::Refusal, scope::Places};

use super::{
    certificate::{Ca, CaError, Facts, Grant, Issued, Order},
    enrol::{EnrolError, RESPONSE_MAX_BYTES, Response, base64, check_ca, unbase64},
    trust::{TrustStore, Verified, When},
};
use crate::keys::{Identity, PublicKey};

const PROOF_DOMAIN: &[u8] = b"tuyen renewal v1\0";

/// Why a parent gives a child no new certificates.
#[derive(Debug, thiserror::Error)]
pub enum RenewRefusal {
    /// The child may not speak any more.
    #[error(transparent)]
    Child(#[from] Refusal),
    /// A CA that the parent's book does not have.
    #[error(
        "{0} asked with another CA key than the one that its parent has in its book, or the parent was restored from \
         a copy that does not know {0}; enrol {0} again with a token, in the folder that it has"
    )]
    OtherCa(OrgPath),
    /// A file that was made for another parent.
    #[error("the request is for the node of {asked}, and this is that of {own}; carry it there")]
    OtherParent {
        /// For whom it was made.
        asked: OrgPath,
        /// Who was asked.
        own: OrgPath,
    },
    /// A file whose sender does not hold the key.
    #[error(
        "the request does not prove that its sender holds the key of its certificate: somebody has changed it; make it again"
    )]
    Proof,
    /// Not a request.
    #[error("the request cannot be read ({0}); compare `tuyen --version` on both nodes")]
    Malformed(String),
    /// The parent could not issue.
    #[error("the parent could not issue a certificate: {0}")]
    Parent(#[from] CaError),
}

impl RenewRefusal {
    /// A number that stands for the kind of refusal on the wire.
    pub fn code(&self) -> u16 {
        match self {
            RenewRefusal::Child(refusal) => refusal.code(),
            RenewRefusal::Proof => 207,
            RenewRefusal::Malformed(_) => 208,
            RenewRefusal::Parent(_) => 209,
            RenewRefusal::OtherCa(_) => 210,
            RenewRefusal::OtherParent { .. } => 211,
        }
    }
}

impl From<&RenewRefusal> for Response {
    fn from(refusal: &RenewRefusal) -> Self {
        Response::Refused { code: refusal.code(), text: refusal.to_string() }
    }
}

/// What a child without a line asks its parent, in JSON: what a connection would have shown of it. Nothing in it is
/// secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    parent: OrgPath,
    /// The child's certificate and its issuers, in base64.
    chain: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ca_key: Option<String>,
    proof: String,
}

/// What a [`Request`] shows of a child that holds its key. Whether it is to be trusted is not known yet.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The place that its certificate names.
    pub place: OrgPath,
    /// Its certificate and its issuers (DER).
    pub chain: Vec<Vec<u8>>,
    /// The key of its CA, if it has one.
    pub ca_key: Option<PublicKey>,
}

impl Request {
    /// Asks whoever stands at `parent` for the next certificates.
    pub fn new(own: &Identity, parent: &OrgPath) -> Self {
        let ca_key = own.ca.as_ref().map(|ca| ca.key.public().spki());
        let leaf = own.chain.first().map_or(&[][..], |der| der.as_ref());
        let statement = to_prove(parent, leaf, ca_key.as_deref());
        Self {
            parent: parent.clone(),
            chain: own.chain.iter().map(|der| base64(der)).collect(),
            ca_key: ca_key.as_deref().map(base64),
            proof: base64(&own.key.sign(&statement)),
        }
    }

    /// The text to put on a stick; the same each time for the same certificates.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a request has only strings")
    }

    /// Reads a request.
    pub fn from_json(json: &[u8]) -> Result<Self, RenewRefusal> {
        if json.len() > RESPONSE_MAX_BYTES {
            return Err(RenewRefusal::Malformed("it is longer than any of ours".into()));
        }
        serde_json::from_slice(json).map_err(|error| RenewRefusal::Malformed(error.to_string()))
    }

    /// What it shows, to whoever stands at `own`, once it is proved that its sender holds the key of its certificate.
    pub fn open(&self, own: &OrgPath) -> Result<Shown, RenewRefusal> {
        if self.parent != *own {
            return Err(RenewRefusal::OtherParent { asked: self.parent.clone(), own: own.clone() });
        }
        let malformed = |what: &str| RenewRefusal::Malformed(what.to_owned());
        let chain: Option<Vec<_>> = self.chain.iter().map(|text| unbase64(text)).collect();
        let chain = chain.ok_or_else(|| malformed("a certificate is not base64"))?;
        let leaf = chain.first().ok_or_else(|| malformed("it has no certificate"))?;
        let facts = Facts::read(&leaf.as_slice().into());
        let facts = facts.ok_or_else(|| malformed("its certificate is not of our kind"))?;
        let ca_spki = match &self.ca_key {
            Some(text) => Some(unbase64(text).ok_or_else(|| malformed("the CA's key is not base64"))?),
            None => None,
        };
        let read_key =
            |der: &Vec<u8>| PublicKey::from_spki(der).ok_or_else(|| malformed("the CA's key is not Ed25519"));
        let ca_key = ca_spki.as_ref().map(read_key).transpose()?;
        let statement = to_prove(own, leaf, ca_spki.as_deref());
        if !unbase64(&self.proof).is_some_and(|proof| facts.key.verifies(&statement, &proof)) {
            return Err(RenewRefusal::Proof);
        }
        Ok(Shown { place: facts.subject.place, chain, ca_key })
    }
}

fn to_prove(parent: &OrgPath, certificate: &[u8], ca_key: Option<&[u8]>) -> Vec<u8> {
    let mut hash = Sha256::new();
    for part in [parent.to_string().as_bytes(), certificate, ca_key.unwrap_or_default()] {
        hash.update(Sha256::digest(part));
    }
    [PROOF_DOMAIN, &hash.finalize()[..]].concat()
}

/// Whether the time has come to ask for the next certificates of a node or its CA.
pub fn due(identity: &Identity, now: i64) -> bool {
    let ca = identity.ca.as_ref().and_then(|ca| ca.chain.first());
    identity.chain.first().into_iter().chain(ca).filter_map(Facts::read).any(|facts| facts.renewal_due(now))
}

/// The parent's side: issues for whom the connection's certificate names, which has just been checked, where it stands by
/// the orders. `known` is what the book has last issued to this node; a hub's request carries the key of its CA. The order
/// that has moved a node here stands for the token that it has not had.
pub fn renew(
    parent: &Identity,
    child: &Verified,
    ca_key: Option<PublicKey>,
    known: Option<&Issued>,
    places: &Places,
    now: i64,
) -> Result<Grant, RenewRefusal> {
    let ca = Ca::of(parent)?;
    let certified = &child.info.place;
    let (place, own) = (places.now(certified), places.now(ca.place()));
    if place.parent().as_ref() != Some(&own) {
        let (place, issuer) = (place.to_string(), own.to_string());
        return Err(Refusal::OutsideSubtree { place, issuer }.into());
    }
    let was_moved_here = certified.parent().as_ref() != Some(ca.place());
    let is_known = match known {
        Some(known) => ca_key.map(|key| key.id()) == known.ca,
        None => was_moved_here || ca_key.is_none(),
    };
    if !is_known {
        return Err(RenewRefusal::OtherCa(place));
    }
    let order = Order { org: place.org().clone(), role: child.info.role, key: child.key, ca_key };
    Ok(ca.issue(&order, now)?)
}

/// New certificates, checked.
#[derive(Debug)]
pub struct Renewed {
    /// The node's certificate and its issuers, without the root's.
    pub chain: Vec<CertificateDer<'static>>,
    /// For a hub: its CA's certificate and its issuers, without the root's.
    pub ca_chain: Option<Vec<CertificateDer<'static>>>,
}

/// The child's side: checks the parent's answer against the identity that it is for. `stands`: where this node stands.
pub fn accept(
    response: Response,
    own: &Identity,
    stands: &OrgPath,
    trust: &TrustStore,
) -> Result<Renewed, EnrolError> {
    let granted = response.granted()?;
    if granted.root != own.root {
        return Err(EnrolError::NotAsked("certificates of another root"));
    }
    let now = trust.clock().now();
    let before = trust.verify_chain(&own.chain, When::Issued)?;
    let verified = trust.verify_chain(&granted.chain, When::Now(now))?;
    let (info, place) = (&verified.info, &verified.info.place);
    if (info.node, info.role) != (before.info.node, before.info.role)
        || ![&before.info.place, stands].contains(&place)
    {
        return Err(EnrolError::NotAsked("a certificate for another key, place or role"));
    }
    let is_elsewhere = *place != before.info.place;
    let end =
        |chain: &[CertificateDer<'_>]| chain.first().and_then(Facts::read).map_or(0, |facts| facts.not_after);
    if !is_elsewhere && end(&granted.chain) <= end(&own.chain) {
        return Err(EnrolError::NoLater { until: end(&granted.chain) });
    }
    match (&own.ca, &granted.ca_chain) {
        (None, None) => {}
        (Some(ca), Some(chain)) => check_ca(&ca.key, chain, &own.root, place, now)?,
        _ => return Err(EnrolError::NotAsked("a CA's certificate that was not asked for, or none")),
    }
    Ok(Renewed { chain: granted.chain, ca_chain: granted.ca_chain })
}
