//! Whom to trust: following a chain to the root, announcements, revocations, and the clock that is trusted.
//!
//! What always holds: a chain ends at our root, each certificate in it stands one step below its issuer, and a
//! revocation counts only within its signer's part of the tree. Time is handed in or comes from a
//! [`TrustedClock`]. A certificate that begins after that time is no reason to refuse: our own tree signed it,
//! so the time that it names has come, and it is the clock here that is behind. Not here: issuing
//! (`certificate`), sockets (`transport`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use sha2::{Digest, Sha256};
use sync_core::{
    id::{Incarnation, NodeId, OrgPath},
    identity::{
        Announcement, Authority, CERTIFICATE_MAX_BYTES, CHAIN_MAX_CERTIFICATES, NodeInfo, Reason, Refusal,
        Revocation, Role, Serial,
    },
    order::{Order, Step},
    scope::Places,
};
use webpki::EndEntityCert;

use super::certificate::{Facts, Issued, Subject, milliseconds};
use crate::keys::{Identity, PublicKey};

/// Length of the pinned part of a root's fingerprint, in bytes: 128 bits against a second root with the same one.
pub const FINGERPRINT_BYTES: usize = 16;

/// The beginning of the SHA-256 of the root CA's certificate.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Fingerprint(pub [u8; FINGERPRINT_BYTES]);

impl Fingerprint {
    /// The fingerprint of a certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let hash = Sha256::digest(certificate);
        Self(hash[..FINGERPRINT_BYTES].try_into().expect("a SHA-256 has 32 bytes"))
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// The later of the machine's clock and the last time known good. Clones share what is known.
///
/// Feed it only with times that the tree vouches for (the beginning of one's own certificate, a parent's word while
/// the machine's clock is lost), never with the machine's own clock: one wrong day in 2099 would otherwise end every
/// certificate.
#[derive(Clone, Debug)]
pub struct TrustedClock {
    known: Arc<AtomicI64>,
    wall: Option<i64>,
}

impl TrustedClock {
    /// A clock that knows that the time is at least this, in milliseconds since 1970.
    pub fn new(last_known_good: i64) -> Self {
        Self { known: Arc::new(AtomicI64::new(last_known_good)), wall: None }
    }

    /// The same, with a machine whose clock stands still: for tests and simulations.
    pub fn with_wall(last_known_good: i64, wall: i64) -> Self {
        Self { wall: Some(wall), ..Self::new(last_known_good) }
    }

    /// The time to hold certificates against, in milliseconds since 1970.
    pub fn now(&self) -> i64 {
        self.wall().max(self.last_known_good())
    }

    /// Whether the machine's clock says a time that has certainly passed.
    pub fn is_lost(&self) -> bool {
        self.wall() < self.last_known_good()
    }

    fn wall(&self) -> i64 {
        self.wall.unwrap_or_else(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
    }

    /// The latest time that was learned: what to write to disk.
    pub fn last_known_good(&self) -> i64 {
        self.known.load(Ordering::Relaxed)
    }

    /// Takes a time from the tree. Whether it was news.
    pub fn learn(&self, ms: i64) -> bool {
        self.known.fetch_max(ms, Ordering::Relaxed) < ms
    }
}

/// A chain that was followed to our root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verified {
    /// What the chain says of the node.
    pub info: NodeInfo,
    /// The node's key.
    pub key: PublicKey,
    /// The number of its certificate.
    pub serial: Serial,
    /// The end of its certificate, in milliseconds since 1970. Issuers end no earlier.
    pub not_after: i64,
}

/// The time to hold a chain against.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// Today, and revocations count: for a neighbour.
    Now(i64),
    /// When it was issued, and nothing that came later counts: for the author of old entries.
    Issued,
}

struct Revoked {
    serial: Option<Serial>,
    within: OrgPath,
    reason: Reason,
    at: i64,
}

/// The root that is trusted, what was revoked under it, and the orders that have moved its places. Shared by all that asks.
///
/// It remembers them in memory only: whoever keeps them durably gives each to [`TrustStore::follow`] and
/// [`TrustStore::revoke`], at the start of the process and as soon as a new one is durable, before the engine asks who is
/// still admitted.
pub struct TrustStore {
    root: CertificateDer<'static>,
    anchor: TrustAnchor<'static>,
    place: OrgPath,
    fingerprint: Fingerprint,
    clock: TrustedClock,
    revoked: RwLock<BTreeMap<NodeId, Vec<Revoked>>>,
    places: RwLock<Places>,
    ended: RwLock<BTreeSet<Serial>>,
}

impl std::fmt::Debug for TrustStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TrustStore({}, {})", self.place, self.fingerprint)
    }
}

impl TrustStore {
    /// Trusts this root CA.
    pub fn new(root: CertificateDer<'static>, clock: TrustedClock) -> Result<Self, Refusal> {
        let malformed =
            || Refusal::Malformed { what: "the root certificate is not that of a root CA".into() };
        let facts = Facts::read(&root).ok_or_else(malformed)?;
        if facts.subject.role.is_some() || facts.subject.place.depth() != 1 {
            return Err(malformed());
        }
        let anchor = webpki::anchor_from_trusted_cert(&root).map_err(|_| malformed())?.to_owned();
        let fingerprint = Fingerprint::of(&root);
        let (revoked, places, ended) = Default::default();
        Ok(Self { root, anchor, place: facts.subject.place, fingerprint, clock, revoked, places, ended })
    }

    /// Trusts the root of an identity, and learns from its certificates that their time has come.
    pub fn of(identity: &Identity, clock: TrustedClock) -> Result<Self, Refusal> {
        for certificate in identity.chain.iter().chain([&identity.root]) {
            if let Some(facts) = Facts::read(certificate) {
                clock.learn(facts.not_before);
            }
        }
        Self::new(identity.root.clone(), clock)
    }

    /// The root CA's certificate.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// The root's fingerprint.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The clock.
    pub fn clock(&self) -> &TrustedClock {
        &self.clock
    }

    /// Follows a chain (a node's certificate first) to our root.
    pub fn verify_chain(&self, chain: &[CertificateDer<'_>], when: When) -> Result<Verified, Refusal> {
        let malformed = |what: &str| Refusal::Malformed { what: what.to_owned() };
        let (own, issuers) = chain.split_first().ok_or(Refusal::NoCertificate)?;
        if chain.len() > CHAIN_MAX_CERTIFICATES || chain.iter().any(|c| c.len() > CERTIFICATE_MAX_BYTES) {
            return Err(malformed("the certificate chain is longer than any of ours"));
        }
        let facts = Facts::read(own).ok_or_else(|| malformed("the certificate is not of our kind"))?;
        let own = EndEntityCert::try_from(own).map_err(|_| malformed("the certificate cannot be read"))?;
        let path = self.build_path(&own, &facts.subject, issuers, when)?;
        let role = facts.subject.role.ok_or_else(|| malformed("a CA's certificate in a node's place"))?;
        let info = NodeInfo { node: facts.key.id(), place: facts.subject.place, role };
        let verified = Verified { info, key: facts.key, serial: facts.serial, not_after: facts.not_after };

        let mut above = self.place.clone();
        for ca in path.intermediate_certificates().rev() {
            let subject = Subject::of(ca).filter(|subject| subject.role.is_none());
            let subject = subject.ok_or_else(|| malformed("an issuer that names no place"))?;
            one_step_below(&subject.place, &above)?;
            if let When::Now(_) = when {
                let key = PublicKey::from_spki(&ca.subject_public_key_info());
                let key = key.ok_or_else(|| malformed("an issuer's key is not Ed25519"))?;
                self.not_revoked(&key.id(), Serial::new(ca.serial()).as_ref(), &subject.place, true)?;
            }
            above = subject.place;
        }
        match role {
            Role::Root if verified.info.place == above && above.depth() == 1 => {}
            Role::Root => return Err(outside(&verified.info.place, &above)),
            Role::Hub | Role::Leaf => one_step_below(&verified.info.place, &above)?,
        }
        if let When::Now(_) = when {
            self.not_revoked(&verified.info.node, Some(&verified.serial), &verified.info.place, false)?;
            if self.ended.read().unwrap_or_else(PoisonError::into_inner).contains(&verified.serial) {
                return Err(Refusal::Ended { who: verified.info.place.to_string() });
            }
        }
        Ok(verified)
    }

    fn build_path<'p>(
        &'p self,
        own: &'p EndEntityCert<'p>,
        subject: &Subject,
        issuers: &'p [CertificateDer<'p>],
        when: When,
    ) -> Result<webpki::VerifiedPath<'p>, Refusal> {
        let mut time = match when {
            When::Now(ms) => UnixTime::since_unix_epoch(Duration::from_millis(ms.max(0).unsigned_abs())),
            When::Issued => UnixTime::since_unix_epoch(Duration::ZERO),
        };
        let anchors = std::slice::from_ref(&self.anchor);
        let usage = webpki::KeyUsage::client_auth();
        // Each round moves to the beginning of a certificate that is not valid yet.
        for _ in 0..=CHAIN_MAX_CERTIFICATES {
            let ed25519 = &[webpki::ring::ED25519];
            match own.verify_for_usage(ed25519, anchors, issuers, time, usage, None, None) {
                Ok(path) => return Ok(path),
                Err(webpki::Error::CertNotValidYet { not_before, .. }) if not_before > time => {
                    time = not_before
                }
                Err(error) => return Err(self.explain(&error, subject)),
            }
        }
        Err(Refusal::Malformed { what: "the certificates of the chain begin and end in no order".into() })
    }

    fn explain(&self, error: &webpki::Error, subject: &Subject) -> Refusal {
        match error {
            webpki::Error::CertExpired { time, not_after } => Refusal::Expired {
                who: subject.place.to_string(),
                until: milliseconds(*not_after),
                now: milliseconds(*time),
            },
            webpki::Error::UnknownIssuer
            | webpki::Error::InvalidSignatureForPublicKey
            | webpki::Error::UnsupportedSignatureAlgorithmContext(_)
            | webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => Refusal::WrongTree {
                who: subject.place.to_string(),
                root: self.fingerprint.to_string()[..8].to_owned(),
            },
            other => Refusal::Malformed {
                what: format!("the certificate of {} cannot be used ({other:?})", subject.place),
            },
        }
    }

    fn not_revoked(
        &self,
        key: &NodeId,
        serial: Option<&Serial>,
        place: &OrgPath,
        ca: bool,
    ) -> Result<(), Refusal> {
        let revoked = self.revoked.read().unwrap_or_else(PoisonError::into_inner);
        let places = self.places();
        let counts = |entry: &&Revoked| {
            places.covers(&entry.within, place) && (entry.serial.is_none() || entry.serial.as_ref() == serial)
        };
        match revoked.get(key).and_then(|entries| entries.iter().find(counts)) {
            Some(entry) => {
                Err(Refusal::Revoked { who: place.to_string(), ca, reason: entry.reason, at: entry.at })
            }
            None => Ok(()),
        }
    }

    /// Whether a certificate for this key and place would be good: not if they were revoked before.
    pub fn may_have(&self, issued: &Issued) -> Result<(), Refusal> {
        let mut keys = [Some(issued.node), issued.ca].into_iter().flatten();
        keys.try_for_each(|key| self.not_revoked(&key, None, &issued.place, false))
    }

    /// Takes in an order that is genuine.
    pub fn follow(&self, order: &Order) {
        self.places.write().unwrap_or_else(PoisonError::into_inner).follow(order);
    }

    /// A certificate that this node has issued, or its neighbour before it, ends here. Others are told nothing.
    pub fn end(&self, serial: Serial) {
        self.ended.write().unwrap_or_else(PoisonError::into_inner).insert(serial);
    }

    fn places(&self) -> RwLockReadGuard<'_, Places> {
        self.places.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a revocation, if it is genuine. Sessions with the node it names are to be checked again after.
    ///
    /// One whose signer was itself revoked still counts: it can only take trust away, and a stolen clinic must
    /// not come back because its hub was replaced.
    pub fn revoke(&self, revocation: &Revocation) -> Result<(), Refusal> {
        let within = self.signer_of(revocation, &self.places())?.place;
        let entry = Revoked {
            serial: revocation.serial.clone(),
            within,
            reason: revocation.reason,
            at: revocation.at,
        };
        let mut revoked = self.revoked.write().unwrap_or_else(PoisonError::into_inner);
        let entries = revoked.entry(revocation.node).or_default();
        if !entries.iter().any(|known| known.serial == entry.serial && known.within == entry.within) {
            entries.push(entry);
        }
        Ok(())
    }

    fn signer_of(&self, revocation: &Revocation, places: &Places) -> Result<NodeInfo, Refusal> {
        let signer = self.verify_chain(&to_der(&revocation.chain), When::Issued)?;
        check_key(revocation.signer, &signer)?;
        if !signer.key.verifies(&revocation.to_be_signed(), &revocation.signature) {
            return Err(Refusal::BadSignature { what: "a revocation" });
        }
        if signer.info.role == Role::Leaf {
            let (who, role) = (signer.info.place.to_string(), signer.info.role);
            return Err(Refusal::WrongRole { who, role, what: "revoke anybody" });
        }
        if !places.covers(&signer.info.place, &revocation.place) {
            return Err(outside(&revocation.place, &signer.info.place));
        }
        Ok(signer.info)
    }
}

impl Authority for TrustStore {
    fn verify(&self, announcement: &Announcement) -> Result<NodeInfo, Refusal> {
        let author = self.verify_chain(&to_der(&announcement.chain), When::Issued)?;
        check_key(announcement.node, &author)?;
        if !author.key.verifies(&announcement.signed_bytes(), &announcement.signature) {
            return Err(Refusal::BadSignature { what: "an announcement" });
        }
        Ok(author.info)
    }

    fn admit(&self, chain: &[Vec<u8>]) -> Result<(), Refusal> {
        self.verify_chain(&to_der(chain), When::Now(self.clock.now())).map(|_| ())
    }

    fn verify_issued(
        &self,
        author: &Announcement,
        statement: &[u8],
        signature: &[u8],
    ) -> Result<(), Refusal> {
        let author = self.verify_chain(&to_der(&author.chain), When::Issued)?;
        if author.key.verifies(statement, signature) {
            return Ok(());
        }
        Err(Refusal::BadSignature { what: "an issued record" })
    }

    fn verify_revocation(&self, revocation: &Revocation, places: &Places) -> Result<(), Refusal> {
        self.signer_of(revocation, places).map(|_| ())
    }

    fn verify_order(&self, order: &Order) -> Result<(), Refusal> {
        let signer = self.verify_chain(&to_der(&order.chain), When::Issued)?;
        check_key(order.signer, &signer)?;
        if !signer.key.verifies(&order.to_be_signed(), &order.signature) {
            return Err(Refusal::BadSignature { what: "an order" });
        }
        if signer.info.role != Role::Root {
            let (who, role) = (signer.info.place.to_string(), signer.info.role);
            return Err(Refusal::WrongRole { who, role, what: "rearrange the tree" });
        }
        Ok(())
    }
}

/// Announces an incarnation of this node.
pub fn announce(
    identity: &Identity,
    incarnation: Incarnation,
    parent: Option<(Incarnation, u64)>,
) -> Announcement {
    let node = identity.key.id();
    let signature = identity.key.sign(&Announcement::to_be_signed(incarnation, parent, node));
    Announcement { incarnation, parent, node, signature, chain: from_der(&identity.chain) }
}

/// Revokes what was issued: the node's key, and for a hub also that of its CA, with all that it issued.
pub fn revoke(identity: &Identity, issued: &Issued, reason: Reason, at: i64) -> Vec<Revocation> {
    let keys = [Some(issued.node), issued.ca].into_iter().flatten();
    keys.map(|key| sign_revocation(identity, key, None, issued.place.clone(), reason, at)).collect()
}

/// Revokes a key, or one certificate of it.
pub fn sign_revocation(
    identity: &Identity,
    node: NodeId,
    serial: Option<Serial>,
    place: OrgPath,
    reason: Reason,
    at: i64,
) -> Revocation {
    let (signer, chain) = (identity.key.id(), from_der(&identity.chain));
    let mut revocation = Revocation { node, serial, place, reason, at, signer, signature: Vec::new(), chain };
    revocation.signature = identity.key.sign(&revocation.to_be_signed());
    revocation
}

/// Signs an order; it holds only when this is the root's node.
pub fn sign_order(identity: &Identity, number: u64, at: i64, steps: Vec<Step>) -> Order {
    let (signer, chain) = (identity.key.id(), from_der(&identity.chain));
    let mut order = Order { number, at, steps, signer, signature: Vec::new(), chain };
    order.signature = identity.key.sign(&order.to_be_signed());
    order
}

fn check_key(expected: NodeId, found: &Verified) -> Result<(), Refusal> {
    if found.info.node == expected {
        return Ok(());
    }
    Err(Refusal::OtherNode { expected, found: found.info.node })
}

fn one_step_below(place: &OrgPath, above: &OrgPath) -> Result<(), Refusal> {
    if place.parent().as_ref() == Some(above) { Ok(()) } else { Err(outside(place, above)) }
}

fn outside(place: &OrgPath, issuer: &OrgPath) -> Refusal {
    Refusal::OutsideSubtree { place: place.to_string(), issuer: issuer.to_string() }
}

fn to_der(chain: &[Vec<u8>]) -> Vec<CertificateDer<'_>> {
    chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect()
}

fn from_der(chain: &[CertificateDer<'_>]) -> Vec<Vec<u8>> {
    chain.iter().map(|der| der.to_vec()).collect()
}
