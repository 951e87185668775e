//! Files that ask for certificates, and files that answer: a parent issues what the token or the certificate says to whom
//! holds the key, a node believes the parent that it has asked, and nothing that is written or said holds a secret.
//!
//! The parent under test is a hub; four nodes wait for its answer, two with tokens and two with certificates that are old.
//! Not here: the way through the daemon and the folder (`tests/tests/enrol_by_file.rs`), texts of tokens (`identity`).

use std::{collections::BTreeSet, fmt::Display, sync::LazyLock};

use data_encoding::{BASE64, HEXLOWER};
use node::{
    ca::{
        Facts, Grant, Issued, Own, Response, Token,
        enrol::{self, MemoryInvites},
        file::{self, Answer, FileError, Kind},
        renew,
        token::Secret,
        trust::{Fingerprint, When},
    },
    keys::{CaFiles, Identity, PublicKey},
};
use quinn::rustls::pki_types::CertificateDer;
use serde_json::Value;
use sha2::{Digest, Sha256};
use sync_core::{
    engine::Identity as _,
    id::{NodeId, OrgId, OrgPath},
    identity::Role,
    scope::Places,
};

use super::tree::{DAY, NOW, TREE, child, judging, key};
use crate::{bytes::Choices, conformance::org};

type Chain = Vec<CertificateDer<'static>>;

/// Most requests that come one after the other.
const REQUESTS_MAX: usize = 4;
/// The numbers of keys that ask with tokens: of nodes, and of their CAs.
const ASKING: [u8; 3] = [20, 21, 22];
const ASKING_CAS: [u8; 2] = [30, 31];
/// Who has used the token that is used.
const USER: u8 = ASKING[2];
/// The tokens that the parent has given out, and one that it does not know.
const INVITED: [(&str, Role); 6] = [
    ("can-ty", Role::Leaf),
    ("vi-xuyen", Role::Hub),
    ("bac-me", Role::Leaf),
    ("hoang-su", Role::Leaf),
    ("xin-man", Role::Leaf),
    ("quang-binh", Role::Leaf),
];
const EXPIRED: usize = 2;
const USED: usize = 3;
const WITHDRAWN: usize = 4;
const UNKNOWN: usize = 5;

static TOKENS: LazyLock<Vec<Token>> = LazyLock::new(|| {
    let token = |n: usize| {
        let (name, role) = INVITED[n];
        let hash: [u8; 32] = Sha256::digest(name).into();
        let expires = if [EXPIRED, USED].contains(&n) { NOW - DAY } else { NOW + DAY };
        let token = Token {
            parent: parent().info().node,
            addresses: Vec::new(),
            root: Fingerprint::of(parent().trust().root()),
            org: org(name),
            role,
            expires,
            secret: Secret(hash[..16].try_into().expect("it is longer")),
        };
        Token::new(token).expect("it can be made")
    };
    (0..INVITED.len()).map(token).collect()
});

/// What nobody may read anywhere.
static SECRETS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut secrets = Vec::new();
    for token in TOKENS.iter() {
        secrets.push(token.to_string());
        for bytes in [&token.secret.0[..], &token.secret.hash().0] {
            secrets.extend([BASE64.encode(bytes), HEXLOWER.encode(bytes), format!("{bytes:?}")]);
        }
    }
    secrets.extend(ASKING.iter().chain(&ASKING_CAS).map(|n| key(*n).to_pem()));
    secrets
});

/// Somebody who waits for an answer.
struct Waiting {
    /// Who enrols has a token, who renews has certificates.
    token: Option<&'static Token>,
    own: Option<Own>,
    place: OrgPath,
    role: Role,
    key: u8,
    ca_key: Option<u8>,
    request: Vec<u8>,
    /// Certificates that an answer may have: those that were asked for first, then others.
    chains: Vec<Chain>,
    ca_chains: Vec<Option<Chain>>,
}

static WAITING: LazyLock<[Waiting; 4]> = LazyLock::new(|| {
    let long_ago = NOW - 400 * DAY;
    let of_parent = parent().files();
    [
        Waiting::with_token(&TOKENS[0], ASKING[0], None),
        Waiting::with_token(&TOKENS[1], ASKING[1], Some(ASKING_CAS[0])),
        Waiting::with(judging(child(&of_parent, "dong-van", key(7), None, long_ago)), 7, None),
        Waiting::with(judging(child(&of_parent, "yen-minh", key(9), Some(key(10)), long_ago)), 9, Some(10)),
    ]
});

/// Files as they were made: each request, the answer to each, and a refusal.
static FILES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut files = Vec::new();
    for one in WAITING.iter() {
        let kind = if one.token.is_some() { Kind::Enrolment } else { Kind::Renewal };
        let request = file::write(kind, &one.request);
        let (grant, answer) = admit(request.as_bytes(), &invites()).expect("a genuine request is granted");
        is_what_was_asked(&grant, kind, &one.request);
        assert_eq!(one.takes(answer.as_bytes()), Ok(()), "and its answer is taken");
        files.extend([request, answer]);
    }
    let refused =
        Response::Refused { code: 203, text: "this token was good until yesterday; ask again".into() };
    files.push(Answer::write(&WAITING[0].request, refused));
    files.iter().for_each(|file| holds_no_secret(file));
    files
});

/// The first byte says what the rest is: a file, how a genuine one or what is in it is altered, or what somebody asks or
/// answers who knows the format and has a token, a certificate or a CA.
pub fn enrolfile(data: &[u8]) {
    // A fuzzer that watches what is compared finds the secrets and says them itself.
    let knows_a_secret = |secret: &String| data.windows(secret.len()).any(|part| part == secret.as_bytes());
    if SECRETS.iter().any(knows_a_secret) {
        return;
    }
    let mut c = Choices::new(data);
    match c.below(6) {
        0 => raw(c.rest()),
        1 => altered(c),
        2 => altered_inside(c),
        3 => asks(c),
        4 => renews(c),
        _ => answers(c),
    }
}

fn parent() -> &'static Own {
    &TREE.ha_giang
}

/// These bytes as a file, and as what is in one of each kind.
fn raw(bytes: &[u8]) {
    at_every_door(bytes);
    let inside = String::from_utf8_lossy(bytes);
    for kind in [Kind::Enrolment, Kind::Renewal, Kind::Answer] {
        let text = file::write(kind, inside.as_bytes());
        if let Ok(read) = file::read(text.as_bytes()) {
            assert_eq!(read, (kind, inside.as_bytes()), "a file is read as it was written");
        }
        at_every_door(text.as_bytes());
    }
}

/// A file that came from a stick, whatever it is.
fn at_every_door(file: &[u8]) {
    if let Ok((grant, _)) = admit(file, &invites()) {
        let (kind, request) = file::read(file).expect("it was read before");
        is_what_was_asked(&grant, kind, request);
    }
    for one in WAITING.iter() {
        let _ = one.takes(file);
    }
}

fn altered(mut c: Choices<'_>) {
    let genuine: Vec<_> =
        FILES.iter().map(|file| file::read(file.as_bytes()).expect("it is genuine")).collect();
    let mut file = c.pick(&FILES).into_bytes();
    alter(&mut file, &mut c);
    match file::read(&file) {
        // Another genuine file may have been put in its place.
        Ok(again) => assert!(genuine.contains(&again), "a checksum belongs to one text"),
        Err(error) => {
            told(error);
            assert!(admit(&file, &invites()).is_err(), "what was altered is not admitted");
            assert!(WAITING.iter().all(|one| one.takes(&file).is_err()), "and not taken");
        }
    }
}

/// Who alters what is in a file can make a checksum as well.
fn altered_inside(mut c: Choices<'_>) {
    let genuine = c.pick(&FILES);
    let (kind, inside) = file::read(genuine.as_bytes()).expect("it is genuine");
    let mut inside = inside.to_vec();
    alter(&mut inside, &mut c);
    let kind = if c.one_in(16) { c.pick(&[Kind::Enrolment, Kind::Renewal, Kind::Answer]) } else { kind };
    at_every_door(file::write(kind, String::from_utf8_lossy(&inside).as_bytes()).as_bytes());
}

fn alter(bytes: &mut Vec<u8>, c: &mut Choices<'_>) {
    for _ in 0..=c.below(3) {
        let at = (usize::from(c.byte()) * 256 + usize::from(c.byte())) % (bytes.len() + 1);
        let end = (at + 1 + c.below(64)).min(bytes.len());
        match c.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 + c.below(255) as u8,
            1 => bytes.truncate(at),
            2 => drop(bytes.splice(at..at, c.take(end - at).iter().copied())),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            _ => {
                let other = c.pick(&FILES).into_bytes();
                let from = at.min(other.len());
                bytes.splice(at.., other[from..].iter().copied());
            }
        }
    }
}

/// What a parent does with a file, as `admit` does. Gives what was issued, and the file of the answer.
fn admit(file: &[u8], invites: &MemoryInvites) -> Result<(Grant, String), String> {
    let (kind, request) = file::read(file).map_err(told)?;
    let grant = match kind {
        Kind::Enrolment => enrol::answer(&parent().files(), invites, request, NOW).map_err(told)?.grant,
        Kind::Renewal => renewed(request)?,
        found @ Kind::Answer => return Err(told(FileError::Kind { found, wanted: "a request" })),
    };
    let answer = Answer::write(request, Response::granting(&grant, &parent().files()));
    holds_no_secret(&answer);
    Ok((grant, answer))
}

fn renewed(request: &[u8]) -> Result<Grant, String> {
    let shown = renew::Request::from_json(request).and_then(|request| request.open(&parent().info().place));
    let renew::Shown { chain, ca_key, .. } = shown.map_err(told)?;
    let chain: Vec<_> = chain.into_iter().map(CertificateDer::from).collect();
    let child = parent().trust().verify_chain(&chain, When::Now(NOW)).map_err(told)?;
    let known = book().into_iter().find(|one| (one.node, one.role) == (child.info.node, child.info.role));
    renew::renew(&parent().files(), &child, ca_key, known.as_ref(), &Places::default(), NOW).map_err(told)
}

/// What the parent has issued to those that renew.
fn book() -> Vec<Issued> {
    let issued = |one: &Waiting| {
        let own = one.own.as_ref()?;
        let facts = Facts::read(&own.files().chain[0])?;
        Some(Issued {
            node: facts.key.id(),
            org: facts.subject.place.org().clone(),
            place: facts.subject.place,
            role: one.role,
            serial: facts.serial,
            ca: one.ca_key.map(|n| key(n).id()),
            not_after: facts.not_after,
        })
    };
    WAITING.iter().filter_map(issued).collect()
}

/// The parent's memory: of the tokens all but one.
fn invites() -> MemoryInvites {
    let invites = MemoryInvites::default();
    for (n, token) in TOKENS.iter().enumerate().filter(|(n, _)| *n != UNKNOWN) {
        let (hash, mut invite) = enrol::Invite::of(token);
        invite.withdrawn = n == WITHDRAWN;
        invite.used_by = (n == USED).then(|| key(USER).id());
        invites.insert(hash, invite);
    }
    invites
}

/// For whatever a parent issues: it is for the key that asks, and what the token or the certificate says.
fn is_what_was_asked(grant: &Grant, kind: Kind, request: &[u8]) {
    let request: Value = serde_json::from_slice(request).expect("it was read before");
    let bytes = |value: &Value| BASE64.decode(value.as_str().unwrap_or_default().as_bytes()).expect("base64");
    let key_of = |value: &Value| PublicKey::from_spki(&bytes(value)).expect("a key");
    let own = Facts::read(&grant.chain[0]).expect("a certificate");
    let (key, ca_key, place, role) = if kind == Kind::Enrolment {
        let name = bytes(&request["token"]);
        let token = TOKENS.iter().find(|token| token.secret.hash().name().0[..] == name[..]);
        let token = token.expect("a token of this parent");
        let place = parent().info().place.child(token.org.clone());
        (key_of(&request["key"]), request["ca"].get("key").map(key_of), place, token.role)
    } else {
        let before = bytes(&request["chain"][0]);
        let before = Facts::read(&before.as_slice().into()).expect("a certificate");
        let role = before.subject.role.expect("a node's certificate");
        (before.key, request.get("ca_key").filter(|it| !it.is_null()).map(key_of), before.subject.place, role)
    };
    assert_eq!((own.key, &own.subject.place, own.subject.role), (key, &place, Some(role)));
    assert_eq!((grant.issued.node, &grant.issued.place, grant.issued.role), (key.id(), &place, role));
    assert_eq!(place.parent().as_ref(), Some(&parent().info().place), "it stands below");
    let ca = grant.ca_chain.as_ref().map(|chain| Facts::read(&chain[0]).expect("a certificate"));
    assert_eq!(ca.as_ref().map(|ca| ca.key), ca_key, "and its CA is the one that was asked for");
    assert!(ca.is_none_or(|ca| ca.subject.place == place && ca.subject.role.is_none()));
}

/// A refusal is a sentence for people.
fn told(refusal: impl Display) -> String {
    let text = refusal.to_string();
    assert!(!text.trim().is_empty(), "a refusal says what and why");
    holds_no_secret(&text);
    text
}

fn holds_no_secret(text: &str) {
    assert!(!SECRETS.iter().any(|secret| text.contains(secret)), "{text}");
}

impl Waiting {
    fn with_token(token: &'static Token, key_number: u8, ca_number: Option<u8>) -> Self {
        let (own_key, ca_key) = (key(key_number), ca_number.map(key));
        let request = enrol::Request::new(token, &own_key, ca_key.as_ref()).to_json();
        let place = parent().info().place.child(token.org.clone());
        Self::asking(Some(token), None, place, token.role, (key_number, ca_number), request)
    }

    fn with(own: Own, key_number: u8, ca_number: Option<u8>) -> Self {
        let request = renew::Request::new(&own.files(), &parent().info().place).to_json();
        let (place, role) = (own.info().place.clone(), own.info().role);
        Self::asking(None, Some(own), place, role, (key_number, ca_number), request)
    }

    fn asking(
        token: Option<&'static Token>,
        own: Option<Own>,
        place: OrgPath,
        role: Role,
        (key_number, ca_number): (u8, Option<u8>),
        request: Vec<u8>,
    ) -> Self {
        let name = place.org().as_str();
        let of_parent = parent().files();
        // Those that were asked for, and then what others may issue, or this parent to others.
        let issued = |by: &Identity, name: &str, n: u8, ca: Option<u8>, at: i64| {
            let one = child(by, name, key(n), ca.map(key), at);
            (one.chain, one.ca.map(|ca| ca.chain))
        };
        let other_ca = if ca_number.is_some() { None } else { Some(ASKING_CAS[1]) };
        let ended = NOW - 4 * 365 * DAY;
        let (mut chains, mut ca_chains): (Vec<_>, Vec<_>) = [
            issued(&of_parent, name, key_number, ca_number, NOW),
            issued(&of_parent, name, key_number, other_ca, NOW),
            issued(&of_parent, name, ASKING[2], Some(ASKING_CAS[1]), NOW),
            issued(&of_parent, "meo-vac", key_number, ca_number, NOW),
            issued(&TREE.cao_bang.files(), name, key_number, ca_number, NOW),
            issued(&TREE.root.files(), name, key_number, ca_number, NOW),
            issued(&of_parent, name, key_number, ca_number, ended),
        ]
        .into_iter()
        .unzip();
        // An old certificate of a CA is good for twenty years.
        ca_chains.pop();
        chains.extend(own.as_ref().map(|own| own.files().chain.clone()));
        chains.extend([Vec::new(), of_parent.ca.as_ref().expect("it is a hub").chain.clone()]);
        Self { token, own, place, role, key: key_number, ca_key: ca_number, request, chains, ca_chains }
    }

    /// What it does with a file that comes as an answer.
    fn takes(&self, file: &[u8]) -> Result<(), String> {
        let response = Answer::read(file, &self.request).map_err(told)?;
        let (chain, ca_chain) = match (&self.token, &self.own) {
            (Some(token), _) => {
                let (own, ca_key) = (key(self.key), self.ca_key.map(key));
                let enrolled = response.accept(token, own, ca_key, NOW).map_err(told)?;
                assert_eq!((&enrolled.place, enrolled.parent.node), (&self.place, token.parent));
                assert_eq!(
                    Fingerprint::of(&enrolled.identity.root),
                    token.root,
                    "the root that the token names"
                );
                (enrolled.identity.chain, enrolled.identity.ca.map(|ca| ca.chain))
            }
            (None, Some(own)) => {
                let renewed =
                    renew::accept(response, &own.files(), &self.place, own.trust()).map_err(told)?;
                (renewed.chain, renewed.ca_chain)
            }
            (None, None) => unreachable!("it waits with one of the two"),
        };
        let found =
            parent().trust().verify_chain(&chain, When::Now(NOW)).expect("what is taken leads to the root");
        assert_eq!((found.info.place, found.info.role), (self.place.clone(), self.role));
        assert_eq!(found.info.node, key(self.key).id(), "it is for its own key");
        let ca = ca_chain.map(|chain| Facts::read(&chain[0]).expect("a certificate").key.id());
        assert_eq!(ca, self.ca_key.map(|n| key(n).id()), "and for that of its CA");
        Ok(())
    }
}

/// Somebody who may hold a token, and what it asks for.
#[derive(Clone)]
struct Asked {
    token: usize,
    org: OrgId,
    role: Role,
    parent: NodeId,
    key: u8,
    ca_key: Option<u8>,
}

impl Asked {
    fn from(c: &mut Choices<'_>) -> Self {
        let token = c.below(INVITED.len());
        let named = if c.one_in(6) { c.below(INVITED.len()) } else { token };
        let (name, role) = INVITED[named];
        let role = if c.one_in(8) { c.pick(&[Role::Root, Role::Hub, Role::Leaf]) } else { role };
        let node = if c.one_in(8) { TREE.cao_bang.info().node } else { parent().info().node };
        let n = c.pick(&ASKING);
        let has_ca = (role == Role::Hub) != c.one_in(8);
        let ca_key = has_ca.then(|| if c.one_in(8) { n } else { c.pick(&ASKING_CAS) });
        Self { token, org: org(name), role, parent: node, key: n, ca_key }
    }

    fn request(&self) -> Value {
        let token = Token {
            parent: self.parent,
            org: self.org.clone(),
            role: self.role,
            ..TOKENS[self.token].clone()
        };
        let ca_key = self.ca_key.map(key);
        let request = enrol::Request::new(&token, &key(self.key), ca_key.as_ref()).to_json();
        serde_json::from_slice(&request).expect("a request is JSON")
    }

    /// Whether the parent is to issue, when this node has used the token.
    fn is_due(&self, used: Option<NodeId>) -> bool {
        let (name, role) = INVITED[self.token];
        let is_good = match used {
            Some(user) => user == key(self.key).id(),
            None => self.token != EXPIRED,
        };
        is_good
            && ![WITHDRAWN, UNKNOWN].contains(&self.token)
            && (self.org.as_str(), self.role, self.parent) == (name, role, parent().info().node)
            && (role == Role::Hub) == self.ca_key.is_some()
            && self.ca_key != Some(self.key)
    }
}

/// Requests with tokens, one after the other.
fn asks(mut c: Choices<'_>) {
    let invites = invites();
    let mut used: [Option<NodeId>; INVITED.len()] = Default::default();
    used[USED] = Some(key(USER).id());
    for n in 0..REQUESTS_MAX {
        if c.is_done() && n > 0 {
            break;
        }
        let both = [Asked::from(&mut c), Asked::from(&mut c)];
        let requests = [both[0].request(), both[1].request()];
        let asked = mixed(&requests, &mut c);
        let whole = requests.iter().position(|request| *request == asked).map(|n| &both[n]);
        let is_due = whole.is_some_and(|asked| asked.is_due(used[asked.token]));
        let request = asked.to_string();
        let file = file::write(Kind::Enrolment, request.as_bytes());
        holds_no_secret(&file);
        let issued = invites.issued().len();
        match (admit(file.as_bytes(), &invites), whole) {
            (Ok((grant, _)), Some(asked)) => {
                assert!(is_due, "nobody gets more than the token says");
                is_what_was_asked(&grant, Kind::Enrolment, request.as_bytes());
                used[asked.token] = Some(key(asked.key).id());
            }
            (Ok(_), None) => panic!("a request that nobody has made is granted"),
            (Err(text), _) => {
                assert!(!is_due, "a genuine request is granted: {text}");
                assert_eq!(invites.issued().len(), issued, "who is refused is not in the book");
            }
        }
    }
}

/// One request with parts of another.
fn mixed(requests: &[Value; 2], c: &mut Choices<'_>) -> Value {
    let mut mixed = requests[0].clone();
    let fields = mixed.as_object_mut().expect("a request is an object");
    let other = requests[1].as_object().expect("a request is an object");
    let names: BTreeSet<_> = fields.keys().chain(other.keys()).cloned().collect();
    for name in names {
        if !c.one_in(8) {
            continue;
        }
        match other.get(&name) {
            Some(value) => drop(fields.insert(name, value.clone())),
            None => drop(fields.remove(&name)),
        }
    }
    mixed
}

/// Requests to renew, of those who hold keys and certificates of the tree.
fn renews(mut c: Choices<'_>) {
    let at = parent().info().place.clone();
    let [.., leaf, hub] = &*WAITING;
    let files = |one: &Waiting| one.own.as_ref().expect("it has certificates").files();
    let ended = child(&parent().files(), "quan-ba", key(11), None, NOW - 4 * 365 * DAY);
    let chains = [&files(leaf).chain, &files(hub).chain, &ended.chain, &TREE.cao_bang.files().chain];
    let keys = [(leaf.key, leaf.ca_key), (hub.key, hub.ca_key), (11, None), (5, Some(6))];
    let asked = |c: &mut Choices<'_>| {
        let who = c.below(chains.len());
        let (mut own, mut ca) = keys[who];
        if c.one_in(6) {
            own = keys[c.below(keys.len())].0;
        }
        if c.one_in(6) {
            ca = keys[c.below(keys.len())].1;
        }
        let to = if c.one_in(6) { TREE.root.info().place.clone() } else { at.clone() };
        let is_due = who < 2 && (own, ca) == keys[who] && to == at;
        let ca = ca.map(|n| CaFiles { key: key(n), chain: Vec::new() });
        let root = parent().trust().root().clone();
        let identity = Identity { key: key(own), chain: chains[who].clone(), root, ca };
        let request = renew::Request::new(&identity, &to).to_json();
        (serde_json::from_slice::<Value>(&request).expect("a request is JSON"), is_due)
    };
    let both = [asked(&mut c), asked(&mut c)];
    let request = mixed(&[both[0].0.clone(), both[1].0.clone()], &mut c);
    let is_due = both.iter().any(|(one, is_due)| *one == request && *is_due);
    let request = request.to_string();
    match admit(file::write(Kind::Renewal, request.as_bytes()).as_bytes(), &invites()) {
        Ok((grant, _)) => {
            assert!(is_due, "who is renewed holds the key of a certificate of this parent");
            is_what_was_asked(&grant, Kind::Renewal, request.as_bytes());
        }
        Err(text) => assert!(!is_due, "a genuine request is granted: {text}"),
    }
}

/// Answers of a parent that means badly, or of another.
fn answers(mut c: Choices<'_>) {
    let who = c.below(WAITING.len());
    let asker = &WAITING[who];
    let chain = c.below(asker.chains.len());
    let ca_chain = c.below(asker.ca_chains.len());
    let certificates = |own: &Own| own.files().chain.clone();
    let parents = [parent(), &TREE.cao_bang, &TREE.root, &TREE.dong_van].map(certificates);
    let from = c.below(parents.len());
    let roots: [CertificateDer<'static>; 2] =
        [parent().trust().root().clone(), include_bytes!("certificates/root-ca.der").as_slice().into()];
    let root = usize::from(c.one_in(8));
    let request = if c.one_in(8) { &WAITING[(who + 1) % WAITING.len()].request } else { &asker.request };
    let base64 = |chain: &Chain| chain.iter().map(|der| BASE64.encode(der)).collect::<Vec<_>>();
    let mut shown = asker.chains[chain].clone();
    let is_turned = shown.len() > 1 && c.one_in(8);
    if is_turned {
        shown.rotate_left(1);
    }
    let is_refused = c.one_in(8);
    let response = if is_refused {
        let length = c.below(64);
        Response::Refused {
            code: c.byte().into(),
            text: String::from_utf8_lossy(c.take(length)).into_owned(),
        }
    } else {
        Response::Granted {
            chain: base64(&shown),
            ca_chain: asker.ca_chains[ca_chain].as_ref().map(base64),
            root: BASE64.encode(&roots[root]),
            parent: base64(&parents[from]),
            orders: Vec::new(),
        }
    };
    // Where another parent may issue for the same key and place, it is told by its own certificates.
    let is_right = (chain, root) == (0, 0)
        && !(is_turned || is_refused)
        && *request == asker.request
        && (from == 0 || asker.own.is_some())
        && ca_is_right(asker, ca_chain);
    let taken = asker.takes(Answer::write(request, response).as_bytes());
    assert_eq!(taken.is_ok(), is_right, "{taken:?}");
}

/// Whether a CA's certificate is for the asker's place and key, or there is none when none was asked for.
fn ca_is_right(asker: &Waiting, n: usize) -> bool {
    let found = asker.ca_chains[n].as_ref().and_then(|chain| Facts::read(&chain[0]));
    found.map(|ca| (ca.key.id(), ca.subject.place))
        == asker.ca_key.map(|n| (key(n).id(), asker.place.clone()))
}
