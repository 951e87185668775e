//! The request and the answer that turn a token into certificates.
//!
//! The same two texts travel over a link or as files on a stick. What always holds: a token is spent in the same
//! step in which the certificate is issued ([`InviteStore::redeem`]), and asking again with the same key gets a
//! certificate again, because an answer may be lost on the way; the request proves that its sender holds the token
//! and the keys, names the parent for which it was made, and holds no secret; the new node believes an answer only if
//! it leads to the root that the token names and was issued by the parent that the token names; a folder that holds a
//! node takes certificates for another place only with the orders of the root that have moved it there. Not here: the
//! connection (`transport::enrol`), the form as a file (`file`), the memory of invitations (the store).

use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sync_core::{
    id::{NodeId, OrgId, OrgPath},
    identity::{Authority as _, Date, NodeInfo, Refusal, Role},
    order,
    scope::Places,
};

use super::{
    certificate::{Ca, CaError, Facts, Grant, Issued, Order},
    token::{SecretHash, TOKEN_NAME_BYTES, Token, TokenName},
    trust::{Fingerprint, TrustStore, TrustedClock, When},
};
use crate::keys::{CaFiles, Identity, IdentityFolder, Key, KeyError, PublicKey};

/// Largest request, in bytes. A real one has about 900.
pub const REQUEST_MAX_BYTES: usize = 8_192;
/// Largest response, in bytes: three chains of seven certificates of 2 kB and a root, and orders that have moved a
/// country, in base64. The 63 provinces that become 34 take 130 kB.
pub const RESPONSE_MAX_BYTES: usize = 1 << 20;

const PROOF_DOMAIN: &[u8] = b"tuyen enrolment v2\0";

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
    /// with it and the places of the tree, and if that succeeds makes durable both the node that used it and what was issued, before it
    /// returns that. When `decide` fails nothing is changed.
    fn redeem(&self, token: &TokenName, decide: &mut Decide<'_>) -> Result<Redeemed, EnrolRefusal>;
}

/// Decides about a request by the invitation and the places of the tree.
pub type Decide<'a> = dyn FnMut(&SecretHash, &Invite, &Places) -> Result<Grant, EnrolRefusal> + 'a;

/// What a token has brought.
#[derive(Clone, Debug)]
pub struct Redeemed {
    /// What was granted.
    pub grant: Grant,
    /// All orders of the root, if some have moved the organization: its machine may not have heard of them.
    pub orders: Vec<order::Order>,
}

impl Redeemed {
    /// What the parent answers.
    pub fn response(&self, parent: &Identity) -> Response {
        let orders = self.orders.iter().map(|order| base64(&order.encode()));
        Response::telling(&self.grant, parent, orders.collect())
    }
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
    /// The sender does not hold the token or the keys.
    #[error(
        "the request does not prove that its sender holds the token and the keys: somebody has changed it; make it again"
    )]
    Proof,
    /// Made for another parent.
    #[error(
        "the request is for node {}, and this is node {}; carry it to the node that has made the token", asked.short(),
        own.short()
    )]
    OtherParent {
        /// For whom it was made.
        asked: NodeId,
        /// Who was asked.
        own: NodeId,
    },
    /// From a folder that holds a node of another place.
    #[error(
        "the token leads to {found}, but this folder holds the node of {here}, and no order of the root that is known at the \
         parent has moved it there; use a token for {here}, or another folder. The token is still good"
    )]
    OtherPlace {
        /// Where the node of the folder stands.
        here: OrgPath,
        /// The place that the certificates would be for.
        found: OrgPath,
    },
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
            EnrolRefusal::OtherParent { .. } => 211,
            EnrolRefusal::OtherPlace { .. } => 212,
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
        "the token leads to {found}, but this folder holds the node of {here}, and by the orders that came with the answer none \
         has moved it there; use a token for {here}, or another folder"
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
    /// The keys.
    #[error(transparent)]
    Keys(#[from] KeyError),
}

/// A request for certificates, in JSON. Nothing in it is secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The name of the token.
    token: String,
    parent: NodeId,
    org: OrgId,
    role: Role,
    /// Proves the possession of the token.
    mac: String,
    key: String,
    proof: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ca: Option<CaRequest>,
    /// Where the node that the folder holds stands, as it knows; none for a free folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stands: Option<OrgPath>,
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
        let (hash, ca_public) = (token.secret.hash(), ca_key.map(Key::public));
        let statement = to_prove(&hash.name(), token.parent, &token.org, token.role, key.public(), ca_public);
        let proof = |key: &Key| base64(&key.sign(&statement));
        Self {
            token: base64(&hash.name().0),
            parent: token.parent,
            org: token.org.clone(),
            role: token.role,
            mac: base64(&hash.prove(&statement)),
            key: base64(&key.public().spki()),
            proof: proof(key),
            ca: ca_key.map(|ca| CaRequest { key: base64(&ca.public().spki()), proof: proof(ca) }),
            stands: None,
        }
    }

    /// The same from a folder that holds a node which stands there, as far as it knows: one that would get certificates for
    /// another place is told before its token is spent.
    pub fn from_node(self, stands: Option<&OrgPath>) -> Self {
        Self { stands: stands.cloned(), ..self }
    }

    /// The text to send or to put on a stick; the same each time for the same token and keys.
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

    /// What is asked, once it is proved that the sender holds the keys; the token is still to be proved.
    fn open(&self, own: NodeId) -> Result<Opened, EnrolRefusal> {
        if self.parent != own {
            return Err(EnrolRefusal::OtherParent { asked: self.parent, own });
        }
        let malformed = |what: &str| EnrolRefusal::Malformed(what.to_owned());
        let token = unbase64(&self.token).and_then(|bytes| <[u8; TOKEN_NAME_BYTES]>::try_from(bytes).ok());
        let token = TokenName(token.ok_or_else(|| malformed("the name of its token has not 16 bytes"))?);
        let mac = unbase64(&self.mac).ok_or_else(|| malformed("its proof of the token is not base64"))?;
        let read_key = |text: &str| unbase64(text).and_then(|der| PublicKey::from_spki(&der));
        let key = read_key(&self.key).ok_or_else(|| malformed("the key is not Ed25519"))?;
        let ca_key = match &self.ca {
            Some(ca) => Some(read_key(&ca.key).ok_or_else(|| malformed("the CA's key is not Ed25519"))?),
            None => None,
        };
        let statement = to_prove(&token, own, &self.org, self.role, &key, ca_key.as_ref());
        let proves =
            |key: &PublicKey, proof: &str| unbase64(proof).is_some_and(|p| key.verifies(&statement, &p));
        let ca_proves = match (&self.ca, &ca_key) {
            (Some(ca), Some(ca_key)) => proves(ca_key, &ca.proof),
            _ => true,
        };
        if !proves(&key, &self.proof) || !ca_proves {
            return Err(EnrolRefusal::Proof);
        }
        let order = Order { org: self.org.clone(), role: self.role, key, ca_key };
        Ok(Opened { token, mac, statement, order })
    }
}

/// A request whose keys are proved.
struct Opened {
    token: TokenName,
    mac: Vec<u8>,
    statement: Vec<u8>,
    order: Order,
}

fn to_prove(
    token: &TokenName,
    parent: NodeId,
    org: &OrgId,
    role: Role,
    key: &PublicKey,
    ca_key: Option<&PublicKey>,
) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update(token.0);
    hash.update(parent.0);
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
        /// Those of the node that answers, without the root's: bundles for it can be sealed with them.
        parent: Vec<String>,
        /// All orders of the root, if some have moved the organization.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        orders: Vec<String>,
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

impl Response {
    /// The answer of a parent that grants this.
    pub fn granting(grant: &Grant, parent: &Identity) -> Self {
        Self::telling(grant, parent, Vec::new())
    }

    fn telling(grant: &Grant, parent: &Identity, orders: Vec<String>) -> Self {
        let texts = |chain: &[CertificateDer<'_>]| chain.iter().map(|der| base64(der)).collect();
        Response::Granted {
            chain: texts(&grant.chain),
            ca_chain: grant.ca_chain.as_deref().map(texts),
            root: base64(&grant.root),
            parent: texts(&parent.chain),
            orders,
        }
    }

    /// The text to send or to put on a stick. Nothing in it is secret.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a response has only strings and numbers")
    }

    /// Reads a response.
    pub fn from_json(json: &[u8]) -> Result<Self, EnrolError> {
        if json.len() > RESPONSE_MAX_BYTES {
            return Err(EnrolError::Malformed("it is longer than 1 MB".into()));
        }
        serde_json::from_slice(json).map_err(|e| EnrolError::Malformed(e.to_string()))
    }

    /// The certificates, or the parent's refusal. Nothing of them is checked yet.
    pub(crate) fn granted(self) -> Result<Granted, EnrolError> {
        let all =
            |texts: Vec<String>| texts.iter().map(|text| certificate(text)).collect::<Result<Vec<_>, _>>();
        match self {
            Response::Refused { text, .. } if text.trim().is_empty() => {
                Err(EnrolError::Malformed("it refuses and does not say why".into()))
            }
            Response::Refused { code, text } => Err(EnrolError::Refused { code, text }),
            Response::Granted { chain, ca_chain, root, parent, orders } => Ok(Granted {
                chain: all(chain)?,
                ca_chain: ca_chain.map(all).transpose()?,
                root: certificate(&root)?,
                parent: all(parent)?,
                orders: orders.iter().map(|text| order(text)).collect::<Result<_, _>>()?,
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
    ) -> Result<Enrolled, EnrolError> {
        let Granted { chain, ca_chain, root, parent, orders } = self.granted()?;
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
        // Who may issue for a place stands directly above it: another CA of the tree does not.
        let above = trust.verify_chain(&parent, When::Issued)?.info;
        if above.node != token.parent || place.parent().as_ref() != Some(&above.place) {
            return Err(EnrolError::NotAsked(
                "certificates of another parent than the one that the token names",
            ));
        }
        orders.iter().try_for_each(|order| trust.verify_order(order))?;
        let ca = match (ca_key, ca_chain) {
            (None, None) => None,
            (Some(key), Some(chain)) => {
                check_ca(&key, &chain, &root, &place, now)?;
                Some(CaFiles { key, chain })
            }
            _ => return Err(EnrolError::NotAsked("a CA's certificate that was not asked for, or none")),
        };
        Ok(Enrolled {
            identity: Identity { key, chain, root, ca },
            place,
            parent: above,
            parent_chain: parent,
            orders,
        })
    }
}

/// What a parent grants, as it came.
pub(crate) struct Granted {
    pub chain: Vec<CertificateDer<'static>>,
    pub ca_chain: Option<Vec<CertificateDer<'static>>>,
    pub root: CertificateDer<'static>,
    pub parent: Vec<CertificateDer<'static>>,
    pub orders: Vec<order::Order>,
}

/// What a new node is, all of it checked.
#[derive(Debug)]
pub struct Enrolled {
    /// Its keys and certificates.
    pub identity: Identity,
    /// Its place.
    pub place: OrgPath,
    /// Its parent.
    pub parent: NodeInfo,
    /// Its parent's certificate and the issuers of that, without the root's.
    pub parent_chain: Vec<CertificateDer<'static>>,
    /// All orders of the root, if some have moved the organization and its machine may not have heard of them.
    pub orders: Vec<order::Order>,
}

impl Enrolled {
    /// Where its orders say that who stood at this place stands.
    fn stands(&self, before: &OrgPath) -> OrgPath {
        let mut places = Places::default();
        for order in &self.orders {
            places.follow(order);
        }
        places.now(before)
    }
}

/// The request of a folder, whose keys are made if it has none. If it holds a node, that `stands` there.
pub fn ask(token: &Token, folder: &IdentityFolder, stands: Option<&OrgPath>) -> Result<Vec<u8>, KeyError> {
    let (key, ca_key) = folder.keys_for_enrolment(token.role == Role::Hub)?;
    Ok(Request::new(token, &key, ca_key.as_ref()).from_node(stands).to_json())
}

/// Checks the answer to [`ask`] and writes the identity into the folder. One that holds a node gets new certificates
/// for that node, at its place or where it `stands` by an order, here or in the answer, or stays as it is. `now` as in
/// [`Response::accept`].
pub fn take(
    token: &Token,
    folder: &IdentityFolder,
    stands: Option<&OrgPath>,
    response: Response,
    now: i64,
) -> Result<Enrolled, EnrolError> {
    let (key, ca_key) = folder.keys_for_enrolment(token.role == Role::Hub)?;
    let enrolled = response.accept(token, key, ca_key, now)?;
    if folder.is_complete() {
        let before = folder.load()?.chain.first().and_then(Facts::read).map(|facts| facts.subject.place);
        let found = &enrolled.place;
        let is_there = |here: &OrgPath| stands == Some(found) || enrolled.stands(here) == *found;
        if let Some(here) = before.filter(|here| !is_there(here)) {
            return Err(EnrolError::OtherPlace { here, found: found.clone() });
        }
    }
    folder.save(&enrolled.identity)?;
    Ok(enrolled)
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
) -> Result<Redeemed, EnrolRefusal> {
    let request = Request::from_json(request)?;
    let Opened { token, mac, statement, order } = request.open(identity.key.id())?;
    let ca = Ca::of(identity)?;
    store.redeem(&token, &mut |secret, invite, places| {
        if !secret.is_proved(&statement, &mac) {
            return Err(EnrolRefusal::Proof);
        }
        invite.allows(order.key.id(), &order, now)?;
        let found = ca.place().child(order.org.clone());
        if let Some(here) = request.stands.as_ref().map(|here| places.now(here)).filter(|here| *here != found)
        {
            return Err(EnrolRefusal::OtherPlace { here, found });
        }
        Ok(ca.issue(&order, now)?)
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
    fn redeem(&self, token: &TokenName, decide: &mut Decide<'_>) -> Result<Redeemed, EnrolRefusal> {
        let mut inner = self.lock();
        let found = inner.0.iter_mut().find(|(secret, _)| secret.name() == *token);
        let (secret, invite) = found.ok_or(EnrolRefusal::Unknown)?;
        let grant = decide(secret, invite, &Places::default())?;
        invite.used_by = Some(grant.issued.node);
        inner.1.push(grant.issued.clone());
        Ok(Redeemed { grant, orders: Vec::new() })
    }
}

pub(super) fn base64(bytes: &[u8]) -> String {
    data_encoding::BASE64.encode(bytes)
}

pub(super) fn unbase64(text: &str) -> Option<Vec<u8>> {
    data_encoding::BASE64.decode(text.as_bytes()).ok()
}

fn certificate(text: &str) -> Result<CertificateDer<'static>, EnrolError> {
    unbase64(text)
        .map(CertificateDer::from)
        .ok_or_else(|| EnrolError::Malformed("a certificate is not base64".into()))
}

fn order(text: &str) -> Result<order::Order, EnrolError> {
    let malformed = |why: &dyn std::fmt::Display| EnrolError::Malformed(format!("an order: {why}"));
    let bytes = unbase64(text).ok_or_else(|| malformed(&"it is not base64"))?;
    order::Order::decode(&bytes).map_err(|error| malformed(&error))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What a leaf's request to this parent has to prove.
    pub fn statement(token: &TokenName, parent: &Identity, name: &str, key: &Key) -> Vec<u8> {
        let org = OrgId::new(name).expect("a name");
        to_prove(token, parent.key.id(), &org, Role::Leaf, key.public(), None)
    }
}
