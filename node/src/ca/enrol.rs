//! The request and the answer that turn a token into certificates.
//!
//! The same two texts travel over a link or as files on a stick. What always holds: a token is spent in the same
//! step in which the certificate is issued ([`InviteStore::redeem`]), and asking again with the same key gets a
//! certificate again, because an answer may be lost on the way; the request proves that its sender holds the
//! keys, and for which parent it was made; the new node believes an answer only if it leads to the root that the
//! token names. Not here: the connection (`transport::enrol`), the memory of invitations (the store).

use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sync_core::{
    id::{NodeId, OrgId, OrgPath},
    identity::{Date, Refusal, Role},
};

use super::{
    certificate::{Ca, CaError, Facts, Grant, Issued, Order},
    token::{SECRET_BYTES, Secret, SecretHash, Token},
    trust::{Fingerprint, TrustStore, TrustedClock, When},
};
use crate::keys::{CaFiles, Identity, Key, PublicKey};

/// Largest request, in bytes. A real one has about 900.
pub const REQUEST_MAX_BYTES: usize = 8_192;
/// Largest response, in bytes: two chains of seven certificates of 2 kB and a root, in base64.
pub const RESPONSE_MAX_BYTES: usize = 65_536;

const PROOF_DOMAIN: &[u8] = b"tuyen enrolment v1\0";

/// What a parent remembers of a token.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Invite {
    /// The organization invited.
    pub org: OrgId,
    /// Its role.
    pub role: Role,
    /// Until when, in milliseconds since 1970.
    pub expires: i64,
    /// The node that used it.
    pub used_by: Option<NodeId>,
    /// Whether it was taken back.
    pub withdrawn: bool,
}

impl Invite {
    /// What to remember of a token that was just made.
    pub fn of(token: &Token) -> (SecretHash, Self) {
        let invite = Self {
            org: token.org.clone(),
            role: token.role,
            expires: token.expires,
            used_by: None,
            withdrawn: false,
        };
        (token.secret.hash(), invite)
    }

    /// Whether it is good for this node now. The one that used it may come again, even later.
    fn allows(&self, node: NodeId, order: &Order, now: i64) -> Result<(), EnrolRefusal> {
        if self.withdrawn {
            return Err(EnrolRefusal::Withdrawn);
        }
        match self.used_by {
            Some(user) if user != node => return Err(EnrolRefusal::Used { by: user.short() }),
            None if now > self.expires => return Err(EnrolRefusal::Expired { at: self.expires, now }),
            _ => {}
        }
        if self.org != order.org {
            return Err(EnrolRefusal::WrongOrg { invited: self.org.clone(), asked: order.org.clone() });
        }
        if self.role != order.role {
            return Err(EnrolRefusal::WrongRole { invited: self.role, asked: order.role });
        }
        Ok(())
    }
}

/// The parent's memory of its invitations.
pub trait InviteStore: Send + Sync {
    /// In one transaction: finds the invitation ([`EnrolRefusal::Unknown`] when there is none), calls `decide`
    /// with it, and if that succeeds makes durable both the node that used it and what was issued, before it
    /// returns. When `decide` fails nothing is changed.
    fn redeem(
        &self,
        secret: &SecretHash,
        decide: &mut dyn FnMut(&Invite) -> Result<Issued, EnrolRefusal>,
    ) -> Result<(), EnrolRefusal>;
}

/// Why a parent does not enrol a node.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EnrolRefusal {
    /// No such invitation.
    #[error(
        "the parent does not know this token: it was made on another node or before a restore; ask for a new one"
    )]
    Unknown,
    /// Spent.
    #[error(
        "this token was already used, by node {by}; ask for a new one, and ask who used it if you do not know"
    )]
    Used {
        /// The beginning of that node's name.
        by: String,
    },
    /// Too late.
    #[error("this token was good until {} and it is {} at the parent; ask for a new one", Date(*.at), Date(*.now))]
    Expired {
        /// Its end, in milliseconds since 1970.
        at: i64,
        /// The parent's time, in milliseconds since 1970.
        now: i64,
    },
    /// Taken back.
    #[error("this token was taken back at the parent; ask there why, and for a new one")]
    Withdrawn,
    /// Made for somebody else.
    #[error("this token was made for {invited}, not for {asked}; use the right one of the two")]
    WrongOrg {
        /// Whom it was made for.
        invited: OrgId,
        /// Who came.
        asked: OrgId,
    },
    /// Made for another role.
    #[error("this token invites a {invited}, not a {asked}; ask for one of the right kind")]
    WrongRole {
        /// The role it was made for.
        invited: Role,
        /// The role asked for.
        asked: Role,
    },
    /// The sender does not hold the keys, or the request was made for another parent.
    #[error(
        "the request does not prove that its sender holds the keys, or was made for another parent; enrol again from the start"
    )]
    Proof,
    /// Not a request.
    #[error(
        "the request cannot be read ({0}); the two nodes may run different versions: compare `tuyen --version`"
    )]
    Malformed(String),
    /// The parent could not issue.
    #[error("the parent could not issue a certificate: {0}")]
    Parent(String),
}

impl EnrolRefusal {
    /// A number that stands for the kind of refusal on the wire; apart from those of
    /// [`Refusal::code`] (below 100) and the engine's (from 100).
    pub fn code(&self) -> u16 {
        match self {
            EnrolRefusal::Unknown => 201,
            EnrolRefusal::Used { .. } => 202,
            EnrolRefusal::Expired { .. } => 203,
            EnrolRefusal::Withdrawn => 204,
            EnrolRefusal::WrongOrg { .. } => 205,
            EnrolRefusal::WrongRole { .. } => 206,
            EnrolRefusal::Proof => 207,
            EnrolRefusal::Malformed(_) => 208,
            EnrolRefusal::Parent(_) => 209,
        }
    }
}

impl From<CaError> for EnrolRefusal {
    fn from(error: CaError) -> Self {
        EnrolRefusal::Parent(error.to_string())
    }
}

/// Why a new node got no identity.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The parent said no.
    #[error("{text}")]
    Refused {
        /// [`EnrolRefusal::code`].
        code: u16,
        /// Its text.
        text: String,
    },
    /// The answer leads to another root.
    #[error(
        "the answer comes from the tree with the root {found}, but the token is for {expected}; \
         do not go on: ask whoever gave you the token to compare them"
    )]
    OtherRoot {
        /// The token's.
        expected: Fingerprint,
        /// The answer's.
        found: Fingerprint,
    },
    /// The certificates are not good.
    #[error("the parent sent certificates that do not hold: {0}")]
    Certificates(#[from] Refusal),
    /// The certificates are somebody else's.
    #[error("the parent sent {0}; enrol again, and report this if it stays so")]
    NotAsked(&'static str),
    /// A folder that holds another node.
    #[error(
        "the token leads to {found}, but this folder holds the node of {here}; use a token for {here}, or another folder. If \
         an order has moved it, it has not heard of it: write where its new parent listens into its config.json, start it, \
         and enrol it when it says that it has moved"
    )]
    OtherPlace {
        /// The place of the node that is there.
        here: OrgPath,
        /// The place that the certificates are for.
        found: OrgPath,
    },
    /// A renewal that gains nothing.
    #[error(
        "the new certificate would end on {}, no later than the one before: the parent's own ends then, or its clock \
         is behind; have the parent's certificates renewed, and check its clock", Date(*.until)
    )]
    NoLater {
        /// Its end, in milliseconds since 1970.
        until: i64,
    },
    /// Not a response.
    #[error("the answer of the parent cannot be read ({0}); compare `tuyen --version` on both nodes")]
    Malformed(String),
}

/// A request for certificates, in JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    secret: String,
    org: OrgId,
    role: Role,
    key: String,
    proof: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ca: Option<CaRequest>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CaRequest {
    key: String,
    proof: String,
}

impl Request {
    /// Asks with a token for certificates of these keys; `ca_key` for a hub only.
    pub fn new(token: &Token, key: &Key, ca_key: Option<&Key>) -> Self {
        let signed = to_prove(
            token.parent,
            &token.secret,
            &token.org,
            token.role,
            key.public(),
            ca_key.map(Key::public),
        );
        Self {
            secret: base64(&token.secret.0),
            org: token.org.clone(),
            role: token.role,
            key: base64(&key.public().spki()),
            proof: base64(&key.sign(&signed)),
            ca: ca_key
                .map(|ca| CaRequest { key: base64(&ca.public().spki()), proof: base64(&ca.sign(&signed)) }),
        }
    }

    /// The text to send or to put on a stick. It holds the token's secret.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a request has only strings")
    }

    /// Reads a request.
    pub fn from_json(json: &[u8]) -> Result<Self, EnrolRefusal> {
        if json.len() > REQUEST_MAX_BYTES {
            return Err(EnrolRefusal::Malformed("it is longer than 8 kB".into()));
        }
        serde_json::from_slice(json).map_err(|e| EnrolRefusal::Malformed(e.to_string()))
    }

    fn open(&self, parent: NodeId) -> Result<(Secret, Order), EnrolRefusal> {
        let malformed = |what: &str| EnrolRefusal::Malformed(what.to_owned());
        let secret = unbase64(&self.secret).and_then(|bytes| <[u8; SECRET_BYTES]>::try_from(bytes).ok());
        let secret = Secret(secret.ok_or_else(|| malformed("the secret has not 16 bytes"))?);
        let read_key = |text: &str| unbase64(text).and_then(|der| PublicKey::from_spki(&der));
        let key = read_key(&self.key).ok_or_else(|| malformed("the key is not Ed25519"))?;
        let ca_key = match &self.ca {
            Some(ca) => Some(read_key(&ca.key).ok_or_else(|| malformed("the CA's key is not Ed25519"))?),
            None => None,
        };
        let signed = to_prove(parent, &secret, &self.org, self.role, &key, ca_key.as_ref());
        let proves =
            |key: &PublicKey, proof: &str| unbase64(proof).is_some_and(|p| key.verifies(&signed, &p));
        let ca_proves = match (&self.ca, &ca_key) {
            (Some(ca), Some(ca_key)) => proves(ca_key, &ca.proof),
            _ => true,
        };
        if !proves(&key, &self.proof) || !ca_proves {
            return Err(EnrolRefusal::Proof);
        }
        Ok((secret, Order { org: self.org.clone(), role: self.role, key, ca_key }))
    }
}

fn to_prove(
    parent: NodeId,
    secret: &Secret,
    org: &OrgId,
    role: Role,
    key: &PublicKey,
    ca_key: Option<&PublicKey>,
) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update(parent.0);
    hash.update(secret.0);
    hash.update(key.spki());
    hash.update(ca_key.map(PublicKey::spki).unwrap_or_default());
    hash.update(role.as_str());
    hash.update(org.as_str());
    [PROOF_DOMAIN, &hash.finalize()[..]].concat()
}

/// The parent's answer, in JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Response {
    /// Certificates.
    Granted {
        /// The node's certificate and its issuers, without the root's, in base64.
        chain: Vec<String>,
        /// For a hub: its CA's certificate and its issuers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ca_chain: Option<Vec<String>>,
        /// The root's.
        root: String,
    },
    /// No.
    Refused {
        /// [`EnrolRefusal::code`].
        code: u16,
        /// Its text.
        text: String,
    },
}

impl From<&EnrolRefusal> for Response {
    fn from(refusal: &EnrolRefusal) -> Self {
        Response::Refused { code: refusal.code(), text: refusal.to_string() }
    }
}

impl From<&Grant> for Response {
    fn from(grant: &Grant) -> Self {
        let texts = |chain: &[CertificateDer<'_>]| chain.iter().map(|der| base64(der)).collect();
        Response::Granted {
            chain: texts(&grant.chain),
            ca_chain: grant.ca_chain.as_deref().map(texts),
            root: base64(&grant.root),
        }
    }
}

impl Response {
    /// The text to send or to put on a stick. Nothing in it is secret.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a response has only strings and numbers")
    }

    /// Reads a response.
    pub fn from_json(json: &[u8]) -> Result<Self, EnrolError> {
        if json.len() > RESPONSE_MAX_BYTES {
            return Err(EnrolError::Malformed("it is longer than 64 kB".into()));
        }
        serde_json::from_slice(json).map_err(|e| EnrolError::Malformed(e.to_string()))
    }

    /// The certificates, or the parent's refusal. Nothing of them is checked yet.
    pub(super) fn granted(self) -> Result<Granted, EnrolError> {
        let all =
            |texts: Vec<String>| texts.iter().map(|text| certificate(text)).collect::<Result<Vec<_>, _>>();
        match self {
            Response::Refused { code, text } => Err(EnrolError::Refused { code, text }),
            Response::Granted { chain, ca_chain, root } => Ok(Granted {
                chain: all(chain)?,
                ca_chain: ca_chain.map(all).transpose()?,
                root: certificate(&root)?,
            }),
        }
    }

    /// Checks the answer against the token and the keys, and makes an identity of it. `now` is the time by this
    /// machine's clock; one that is far behind is no obstacle.
    pub fn accept(
        self,
        token: &Token,
        key: Key,
        ca_key: Option<Key>,
        now: i64,
    ) -> Result<(Identity, OrgPath), EnrolError> {
        let Granted { chain, ca_chain, root } = self.granted()?;
        let found = Fingerprint::of(&root);
        if found != token.root {
            return Err(EnrolError::OtherRoot { expected: token.root, found });
        }
        let trust = TrustStore::new(root.clone(), TrustedClock::with_wall(0, now))?;
        let verified = trust.verify_chain(&chain, When::Now(now))?;
        if verified.key != *key.public() {
            return Err(EnrolError::NotAsked("a certificate for another key"));
        }
        if verified.info.place.org() != &token.org || verified.info.role != token.role {
            return Err(EnrolError::NotAsked("a certificate for another organization or role"));
        }
        let place = verified.info.place;
        let ca = match (ca_key, ca_chain) {
            (None, None) => None,
            (Some(key), Some(chain)) => {
                check_ca(&key, &chain, &root, &place, now)?;
                Some(CaFiles { key, chain })
            }
            _ => return Err(EnrolError::NotAsked("a CA's certificate that was not asked for, or none")),
        };
        Ok((Identity { key, chain, root, ca }, place))
    }
}

/// What a parent grants, as it came.
pub(super) struct Granted {
    pub chain: Vec<CertificateDer<'static>>,
    pub ca_chain: Option<Vec<CertificateDer<'static>>>,
    pub root: CertificateDer<'static>,
}

/// A CA is good if what it issues leads to the root: so it issues something and looks.
pub(super) fn check_ca(
    key: &Key,
    chain: &[CertificateDer<'static>],
    root: &CertificateDer<'static>,
    place: &OrgPath,
    now: i64,
) -> Result<(), EnrolError> {
    let unusable = |e: &dyn std::fmt::Display| EnrolError::Malformed(format!("the CA that it sent: {e}"));
    let ca = Ca::new(key, chain, root).map_err(|e| unusable(&e))?;
    if ca.place() != place {
        return Err(EnrolError::NotAsked("a CA for another place"));
    }
    let org = OrgId::new("trial").map_err(|e| unusable(&e))?;
    let trial_key = *Key::generate().map_err(|e| unusable(&e))?.public();
    let begins = chain.first().and_then(Facts::read).map_or(now, |facts| facts.not_before.max(now));
    let trial = ca
        .issue(&Order { org, role: Role::Leaf, key: trial_key, ca_key: None }, begins)
        .map_err(|e| unusable(&e))?;
    let trust = TrustStore::new(root.clone(), TrustedClock::with_wall(0, begins))?;
    trust.verify_chain(&trial.chain, When::Now(begins))?;
    Ok(())
}

/// The parent's side: proves, redeems and issues. Blocks for as long as the store takes.
pub fn answer(
    identity: &Identity,
    store: &dyn InviteStore,
    request: &[u8],
    now: i64,
) -> Result<Grant, EnrolRefusal> {
    let request = Request::from_json(request)?;
    let (secret, order) = request.open(identity.key.id())?;
    let ca = Ca::of(identity)?;
    let mut grant = None;
    store.redeem(&secret.hash(), &mut |invite| {
        invite.allows(order.key.id(), &order, now)?;
        let made = ca.issue(&order, now)?;
        let issued = made.issued.clone();
        grant = Some(made);
        Ok(issued)
    })?;
    grant.ok_or_else(|| {
        EnrolRefusal::Parent("its store did not look at the invitation; please report this".into())
    })
}

/// An [`InviteStore`] in memory: the reference for the durable ones, and enough for tests.
#[derive(Debug, Default)]
pub struct MemoryInvites {
    inner: std::sync::Mutex<(std::collections::BTreeMap<SecretHash, Invite>, Vec<Issued>)>,
}

impl MemoryInvites {
    /// Remembers an invitation.
    pub fn insert(&self, secret: SecretHash, invite: Invite) {
        self.lock().0.insert(secret, invite);
    }

    /// What was issued so far.
    pub fn issued(&self) -> Vec<Issued> {
        self.lock().1.clone()
    }

    fn lock(
        &self,
    ) -> std::sync::MutexGuard<'_, (std::collections::BTreeMap<SecretHash, Invite>, Vec<Issued>)> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl InviteStore for MemoryInvites {
    fn redeem(
        &self,
        secret: &SecretHash,
        decide: &mut dyn FnMut(&Invite) -> Result<Issued, EnrolRefusal>,
    ) -> Result<(), EnrolRefusal> {
        let mut inner = self.lock();
        let invite = inner.0.get_mut(secret).ok_or(EnrolRefusal::Unknown)?;
        let issued = decide(invite)?;
        invite.used_by = Some(issued.node);
        inner.1.push(issued);
        Ok(())
    }
}

fn base64(bytes: &[u8]) -> String {
    data_encoding::BASE64.encode(bytes)
}

fn unbase64(text: &str) -> Option<Vec<u8>> {
    data_encoding::BASE64.decode(text.as_bytes()).ok()
}

fn certificate(text: &str) -> Result<CertificateDer<'static>, EnrolError> {
    unbase64(text)
        .map(CertificateDer::from)
        .ok_or_else(|| EnrolError::Malformed("a certificate is not base64".into()))
}
