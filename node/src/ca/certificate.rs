//! What a certificate says, and issuing one.
//!
//! A certificate names its subject by one URI: `tuyen:leaf:trung-uong/ha-giang/dong-van` for a node,
//! `tuyen:ca:trung-uong/ha-giang` for a CA. Its distinguished name is made from the key, so that paths are
//! built by key and never by a name that somebody chose. Nodes may be client and server alike. What always
//! holds: a CA issues only for places directly below its own, except the root's own node; nothing that it
//! issues outlives it. Not here: whether a chain is to be trusted (`trust`).

use std::{fmt, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, UnixTime};
use serde::{Deserialize, Serialize};
use sync_core::{
    id::{NodeId, OrgId, OrgPath},
    identity::{Date, Role, Serial},
};
use webpki::EndEntityCert;

use super::{
    BACKDATE_MS, CA_LIFETIME_MS, CA_MAX_DEPTH, NODE_LIFETIME_MS, OVERDUE_AFTER_PARTS, RENEW_AFTER_PART,
};
use crate::keys::{CaFiles, Identity, Key, KeyError, PublicKey};

/// Length of the serial numbers that are drawn, in bytes.
const SERIAL_BYTES: usize = 16;

/// Why nothing was issued, or why a CA cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The node has none.
    #[error("this node is a leaf and holds no CA, so it cannot take in others; run this at its hub")]
    None,
    /// Files that do not belong together.
    #[error("the CA of this node cannot be used: {0}; restore the identity folder from a backup")]
    Unusable(&'static str),
    /// A role that cannot be had here.
    #[error("{place} cannot be a {role} here: {why}")]
    Role {
        /// The place asked for.
        place: OrgPath,
        /// The role asked for.
        role: Role,
        /// Why not, and what to do.
        why: &'static str,
    },
    /// The clock is past the end of the CA.
    #[error(
        "it is {} by the clock of this machine, and the CA of {place} ends on {}; \
         set the clock right, or renew the node as docs/OPERATIONS.md says", Date(*.now), Date(*.until)
    )]
    Over {
        /// The place of the CA.
        place: OrgPath,
        /// The end of the CA.
        until: i64,
        /// The time held against it.
        now: i64,
    },
    /// The library that writes certificates failed.
    #[error("a certificate could not be written: {0}; please report this")]
    Write(#[from] rcgen::Error),
    /// No randomness.
    #[error("the system gave no random bytes: {0}; try again when the machine has finished starting")]
    Random(getrandom::Error),
    /// A key.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// What a certificate says of its subject.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subject {
    /// The node's role; none for a CA.
    pub role: Option<Role>,
    /// The place.
    pub place: OrgPath,
}

impl Subject {
    /// Reads the one URI of ours in a certificate; none where there is not exactly one.
    pub fn of(certificate: &webpki::Cert<'_>) -> Option<Self> {
        let mut ours = certificate.valid_uri_names().filter_map(|uri| uri.strip_prefix("tuyen:"));
        let (kind, place) = ours.next()?.split_once(':')?;
        if ours.next().is_some() {
            return None;
        }
        let role = if kind == "ca" { None } else { Some(Role::from_name(kind)?) };
        Some(Self { role, place: place.parse().ok()? })
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tuyen:{}:{}", self.role.map_or("ca", Role::as_str), self.place)
    }
}

/// The parts of a certificate that are read one by one.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What it says of its subject.
    pub subject: Subject,
    /// The subject's key.
    pub key: PublicKey,
    /// Its number.
    pub serial: Serial,
    /// Its beginning, in milliseconds since 1970.
    pub not_before: i64,
    /// Its end, in milliseconds since 1970.
    pub not_after: i64,
}

impl Facts {
    /// Reads a certificate; none for one that is not ours in kind. Says nothing of whether to trust it.
    pub fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let certificate = EndEntityCert::try_from(der).ok()?;
        let (not_before, not_after) = validity(&certificate)?;
        Some(Self {
            subject: Subject::of(&certificate)?,
            key: PublicKey::from_spki(&certificate.subject_public_key_info())?,
            serial: Serial::new(certificate.serial())?,
            not_before,
            not_after,
        })
    }

    /// Whether the time has come to ask for the next one.
    pub fn renewal_due(&self, now: i64) -> bool {
        now >= self.not_before + (self.not_after - self.not_before) / RENEW_AFTER_PART
    }

    /// Whether that was so long ago that a person has to see to it.
    pub fn renewal_overdue(&self, now: i64) -> bool {
        let (parts, of) = OVERDUE_AFTER_PARTS;
        now >= self.not_before + (self.not_after - self.not_before) / of * parts
    }
}

/// The validity of a certificate. webpki keeps it to itself but names the bound that a given time violates, and
/// looks at the time before anything else: so it is asked about both ends of time.
fn validity(certificate: &EndEntityCert<'_>) -> Option<(i64, i64)> {
    let ask = |seconds| {
        let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let usage = webpki::KeyUsage::server_auth();
        certificate.verify_for_usage(&[], &[], &[], time, usage, None, None).err()
    };
    let not_before = match ask(0)? {
        webpki::Error::CertNotValidYet { not_before, .. } => milliseconds(not_before),
        _ => 0,
    };
    match ask(u64::MAX)? {
        webpki::Error::CertExpired { not_after, .. } => Some((not_before, milliseconds(not_after))),
        _ => None,
    }
}

pub(super) fn milliseconds(time: UnixTime) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX).saturating_mul(1_000)
}

/// What somebody asks a CA for.
#[derive(Clone, Debug)]
pub struct Order {
    /// The organization, one step below the CA.
    pub org: OrgId,
    /// Hub or leaf.
    pub role: Role,
    /// The node's key.
    pub key: PublicKey,
    /// For a hub: the key of its CA.
    pub ca_key: Option<PublicKey>,
}

/// What was issued, for the issuer to keep: without it nobody can be revoked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Issued {
    /// The node.
    pub node: NodeId,
    /// Its organization.
    pub org: OrgId,
    /// Its place.
    pub place: OrgPath,
    /// Its role.
    pub role: Role,
    /// The number of its certificate.
    pub serial: Serial,
    /// For a hub: the name of its CA's key.
    pub ca: Option<NodeId>,
    /// The end of the node's certificate, in milliseconds since 1970.
    pub not_after: i64,
}

/// The certificates that a node gets.
#[derive(Clone, Debug)]
pub struct Grant {
    /// What the issuer keeps of it.
    pub issued: Issued,
    /// The node's certificate and its issuers, without the root's.
    pub chain: Vec<CertificateDer<'static>>,
    /// For a hub: its CA's certificate and its issuers, without the root's.
    pub ca_chain: Option<Vec<CertificateDer<'static>>>,
    /// The root CA's certificate.
    pub root: CertificateDer<'static>,
}

/// A CA that can issue: the root's or a hub's.
#[derive(Debug)]
pub struct Ca<'a> {
    key: &'a Key,
    chain: &'a [CertificateDer<'static>],
    root: &'a CertificateDer<'static>,
    place: OrgPath,
    not_after: i64,
}

impl<'a> Ca<'a> {
    /// The CA of an identity.
    pub fn of(identity: &'a Identity) -> Result<Self, CaError> {
        let files = identity.ca.as_ref().ok_or(CaError::None)?;
        Self::new(&files.key, &files.chain, &identity.root)
    }

    pub(super) fn new(
        key: &'a Key,
        chain: &'a [CertificateDer<'static>],
        root: &'a CertificateDer<'static>,
    ) -> Result<Self, CaError> {
        let own = Facts::read(chain.first().unwrap_or(root));
        let own = own.ok_or(CaError::Unusable("its certificate cannot be read"))?;
        if own.subject.role.is_some() {
            return Err(CaError::Unusable("its certificate is not that of a CA"));
        }
        if own.key != *key.public() {
            return Err(CaError::Unusable("its key and its certificate do not match"));
        }
        Ok(Self { key, chain, root, place: own.subject.place, not_after: own.not_after })
    }

    /// A CA that claims whatever a test wants it to.
    #[cfg(test)]
    pub(super) fn forged(
        key: &'a Key,
        chain: &'a [CertificateDer<'static>],
        root: &'a CertificateDer<'static>,
        place: OrgPath,
    ) -> Self {
        Self { key, chain, root, place, not_after: 4_000_000_000_000 }
    }

    /// The place that it speaks for.
    pub fn place(&self) -> &OrgPath {
        &self.place
    }

    /// Issues certificates for a place directly below.
    pub fn issue(&self, order: &Order, now: i64) -> Result<Grant, CaError> {
        let place = self.place.child(order.org.clone());
        let refuse = |why| Err(CaError::Role { place: place.clone(), role: order.role, why });
        match (order.role, &order.ca_key) {
            (Role::Root, _) => return refuse("a tree has one root; invite it as a hub or a leaf"),
            (Role::Hub, None) => return refuse("a hub needs a CA and sent no key for one; enrol it again"),
            (Role::Leaf, Some(_)) => return refuse("a leaf gets no CA; invite it as a hub"),
            (Role::Hub, Some(_)) if place.depth() > CA_MAX_DEPTH => {
                return refuse("seven levels of CAs is the most; invite it as a leaf");
            }
            (Role::Hub, Some(ca_key)) if *ca_key == order.key => {
                return refuse("its node and its CA share one key; delete ca.key there and enrol again");
            }
            _ => {}
        }
        let ca_chain = match &order.ca_key {
            Some(ca_key) => Some(self.below(self.sign_ca(&place, ca_key, now)?)),
            None => None,
        };
        let (certificate, issued) =
            self.sign_node(place, order.role, &order.key, order.ca_key.as_ref(), now)?;
        Ok(Grant { issued, chain: self.below(certificate), ca_chain, root: self.root.clone() })
    }

    fn below(&self, certificate: CertificateDer<'static>) -> Vec<CertificateDer<'static>> {
        std::iter::once(certificate).chain(self.chain.iter().cloned()).collect()
    }

    fn sign_node(
        &self,
        place: OrgPath,
        role: Role,
        key: &PublicKey,
        ca_key: Option<&PublicKey>,
        now: i64,
    ) -> Result<(CertificateDer<'static>, Issued), CaError> {
        let not_after = self.end(now, NODE_LIFETIME_MS)?;
        let serial = random_serial()?;
        let subject = Subject { role: Some(role), place: place.clone() };
        let mut params = params(&subject, key, &serial, now, not_after)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(key, &self.issuer()?)?;
        let org = place.org().clone();
        let ca = ca_key.map(PublicKey::id);
        Ok((certificate.into(), Issued { node: key.id(), org, place, role, serial, ca, not_after }))
    }

    fn sign_ca(
        &self,
        place: &OrgPath,
        key: &PublicKey,
        now: i64,
    ) -> Result<CertificateDer<'static>, CaError> {
        let not_after = self.end(now, CA_LIFETIME_MS)?;
        let params = ca_params(place, key, now, not_after)?;
        Ok(params.signed_by(key, &self.issuer()?)?.into())
    }

    /// The end of something issued now: its lifetime, but never beyond the CA's own end.
    fn end(&self, now: i64, lifetime: i64) -> Result<i64, CaError> {
        if now >= self.not_after {
            return Err(CaError::Over { place: self.place.clone(), until: self.not_after, now });
        }
        Ok(now.saturating_add(lifetime).min(self.not_after))
    }

    fn issuer(&self) -> Result<Issuer<'static, &rcgen::KeyPair>, CaError> {
        // Only the name and the key of these parameters go into what is issued.
        let params = ca_params(&self.place, self.key.public(), 0, self.not_after)?;
        Ok(Issuer::new(params, self.key.pair()))
    }
}

/// Founds a tree: a root CA and the certificate of the root's own node.
pub fn found(org: OrgId, now: i64) -> Result<(Identity, Issued), CaError> {
    let place = OrgPath::root(org);
    let (key, ca_key) = (Key::generate()?, Key::generate()?);
    let params = ca_params(&place, ca_key.public(), now, now.saturating_add(CA_LIFETIME_MS))?;
    let root = params.self_signed(ca_key.pair())?.into();
    let ca = Ca::new(&ca_key, &[], &root)?;
    let (certificate, issued) = ca.sign_node(place, Role::Root, key.public(), Some(ca_key.public()), now)?;
    let ca = Some(CaFiles { key: ca_key, chain: Vec::new() });
    Ok((Identity { key, chain: vec![certificate], root, ca }, issued))
}

/// Renews the certificate of the root's own node, which nobody else can do.
pub fn renew_root_node(identity: &Identity, now: i64) -> Result<(CertificateDer<'static>, Issued), CaError> {
    let ca = Ca::of(identity)?;
    if ca.place.depth() != 1 {
        return Err(CaError::Unusable(
            "only the root renews its own certificate; a hub's is renewed above it",
        ));
    }
    ca.sign_node(ca.place.clone(), Role::Root, identity.key.public(), Some(ca.key.public()), now)
}

fn ca_params(place: &OrgPath, key: &PublicKey, now: i64, end: i64) -> Result<CertificateParams, CaError> {
    let subject = Subject { role: None, place: place.clone() };
    let mut params = params(&subject, key, &random_serial()?, now, end)?;
    let below = CA_MAX_DEPTH.saturating_sub(place.depth());
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(u8::try_from(below).unwrap_or(0)));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn params(
    subject: &Subject,
    key: &PublicKey,
    serial: &Serial,
    now: i64,
    not_after: i64,
) -> Result<CertificateParams, CaError> {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Tuyến");
    name.push(DnType::CommonName, key.id().to_string());
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    params.subject_alt_names = vec![SanType::URI(subject.to_string().try_into()?)];
    params.serial_number = Some(SerialNumber::from_slice(serial.as_bytes()));
    params.not_before = date_time(now.saturating_sub(BACKDATE_MS).max(0))?;
    params.not_after = date_time(not_after)?;
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn date_time(ms: i64) -> Result<time::OffsetDateTime, CaError> {
    time::OffsetDateTime::from_unix_timestamp(ms.div_euclid(1_000))
        .map_err(|_| CaError::Unusable("the clock of this machine is far outside of any calendar"))
}

fn random_serial() -> Result<Serial, CaError> {
    let mut bytes = [0; SERIAL_BYTES];
    getrandom::fill(&mut bytes).map_err(CaError::Random)?;
    // Positive and of full length in DER, so that the bytes read back are the bytes drawn.
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(Serial::new(&bytes).expect("16 bytes are within the limit of 20"))
}
