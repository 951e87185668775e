//! The next certificates of a node that has some: the same keys, the same role, and the place where it stands.
//!
//! What always holds: the parent goes by the certificate that the connection has proved, by the orders that have moved it,
//! and by its own book, and takes nothing else from the request, but the key of the CA of a hub that an order has moved to
//! it; the node takes only certificates that lead to its own root, are made for its own keys and role and for the place
//! where it stands, and that end later than those before unless it has moved. A hub's CA is renewed with its node, so that it
//! hardly ever shortens what it issues; what the old one has issued goes on with the old one in its chain. Not here:
//! the stream (`transport`), the files (`keys`), and when to ask (the daemon).

use rustls::pki_types::CertificateDer;
use sync_core::{id::OrgPath, identity::Refusal, scope::Places};

use super::{
    certificate::{Ca, CaError, Facts, Grant, Issued, Order},
    enrol::{EnrolError, Response, check_ca},
    trust::{TrustStore, Verified, When},
};
use crate::keys::{Identity, PublicKey};

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
    /// The parent could not issue.
    #[error("the parent could not issue a certificate: {0}")]
    Parent(#[from] CaError),
}

impl RenewRefusal {
    /// A number that stands for the kind of refusal on the wire.
    pub fn code(&self) -> u16 {
        match self {
            RenewRefusal::Child(refusal) => refusal.code(),
            RenewRefusal::Parent(_) => 209,
            RenewRefusal::OtherCa(_) => 210,
        }
    }
}

impl From<&RenewRefusal> for Response {
    fn from(refusal: &RenewRefusal) -> Self {
        Response::Refused { code: refusal.code(), text: refusal.to_string() }
    }
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
