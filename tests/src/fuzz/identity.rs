//! Tokens, certificates and requests for them: any bytes are told apart from genuine ones.

use std::sync::LazyLock;

use node::{
    ca::{
        Facts, Request, Response, Token, TokenError, TrustStore, TrustedClock, file, renew,
        token::Secret,
        trust::{Fingerprint, When},
    },
    keys::Key,
};
use quinn::rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use sync_core::{
    id::{NodeId, OrgId, OrgPath},
    identity::{CERTIFICATE_MAX_BYTES, Role},
};

use crate::bytes::Choices;

/// 2026-07-01: the certificates are of that year.
const NOW: i64 = 1_782_864_000_000;

/// A root CA, a hub's CA under it, and two nodes: the hub's own and a leaf below. Their keys were thrown away.
static CERTIFICATES: [&[u8]; 4] = [
    include_bytes!("certificates/root-ca.der"),
    include_bytes!("certificates/hub-ca.der"),
    include_bytes!("certificates/hub.der"),
    include_bytes!("certificates/leaf.der"),
];

static TRUST: LazyLock<TrustStore> = LazyLock::new(|| {
    TrustStore::new(CERTIFICATES[0].to_vec().into(), TrustedClock::with_wall(NOW, NOW)).expect("a root CA")
});

/// The first byte says what the rest is.
pub fn identity(data: &[u8]) {
    let mut c = Choices::new(data);
    match c.below(5) {
        0 => token(&String::from_utf8_lossy(c.rest())),
        1 => token(&token_around(c.rest())),
        2 => certificate(c.rest()),
        3 => chain(c),
        _ => letters(c.rest()),
    }
}

fn token(text: &str) {
    match text.parse::<Token>() {
        Ok(token) => {
            let printed = token.to_string();
            assert_eq!(printed.parse::<Token>().as_ref(), Ok(&token), "a token is read as it was printed");
            assert!(
                Token::new(token.clone()).is_ok() && token.role != Role::Root,
                "it is one that can be made"
            );
        }
        Err(TokenError::Character(c)) => assert!(text.to_lowercase().contains(c), "it is in the text"),
        Err(_) => {}
    }
}

/// The text of a token with this content and a right checksum.
fn token_around(content: &[u8]) -> String {
    let sum: [u8; 32] = Sha256::digest(content).into();
    let bytes = [content, &sum[..4]].concat();
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |n| byte >> n & 1)).collect();
    let digit = |bits: &[u8]| bits.iter().chain([0; 4].iter()).take(5).fold(0, |n, bit| n << 1 | bit);
    let letters =
        bits.chunks(5).map(|bits| char::from(b"abcdefghijklmnopqrstuvwxyz234567"[usize::from(digit(bits))]));
    format!("tuyen1-{}", letters.collect::<String>())
}

fn certificate(der: &[u8]) {
    let der = CertificateDer::from(der.to_vec());
    if let Some(facts) = Facts::read(&der) {
        assert!(facts.not_before >= 0 && facts.subject.place.depth() > 0, "it says something");
        let _ = (facts.renewal_due(NOW), facts.renewal_due(i64::MAX));
    }
    let _ = TrustStore::new(der.clone(), TrustedClock::with_wall(NOW, NOW)).map(|trust| {
        assert!(trust.verify_chain(&[der], When::Issued).is_err(), "a CA is no node");
    });
}

/// Real certificates, altered and in any order. Who comes through is one of the two nodes, with its certificate as it
/// was issued.
fn chain(mut c: Choices<'_>) {
    let mut chain: Vec<CertificateDer<'static>> = Vec::new();
    for _ in 0..c.below(9) {
        let mut bytes = c.pick(&CERTIFICATES).to_vec();
        for _ in 0..c.below(4) {
            let at = c.u64() as usize % bytes.len();
            match c.below(3) {
                0 => bytes[at] = c.byte(),
                1 => bytes.insert(at, c.byte()),
                _ => drop(bytes.remove(at)),
            }
        }
        if c.one_in(16) {
            bytes.resize(CERTIFICATE_MAX_BYTES + c.below(2), 0);
        }
        chain.push(bytes.into());
    }
    for when in [When::Issued, When::Now(NOW), When::Now(c.u64() as i64)] {
        let Ok(verified) = TRUST.verify_chain(&chain, when) else { continue };
        let own: &[u8] = &chain[0];
        let (place, role) = if own == CERTIFICATES[2] {
            ("trung-uong/ha-giang", Role::Hub)
        } else {
            assert!(own == CERTIFICATES[3], "nobody else comes through");
            ("trung-uong/ha-giang/dong-van", Role::Leaf)
        };
        assert_eq!((verified.info.place.to_string().as_str(), verified.info.role), (place, role));
        assert!(
            role == Role::Hub || chain[1..].iter().any(|c| &**c == CERTIFICATES[1]),
            "its issuer is shown"
        );
        if let When::Now(now) = when {
            assert!(now < verified.not_after, "an expired certificate does not come through");
        }
    }
}

/// Requests and answers of enrolment, and the files that hold them.
fn letters(json: &[u8]) {
    if let Ok((kind, inside)) = file::read(json) {
        let again = file::write(kind, inside);
        assert_eq!(file::read(again.as_bytes()), Ok((kind, inside)), "a file is read as it was written");
    }
    if let Ok(request) = renew::Request::from_json(json) {
        let own = OrgPath::root(OrgId::new("trung-uong").expect("a name"));
        if let Ok(shown) = request.open(&own) {
            assert!(!shown.chain.is_empty(), "a key was proved");
        }
    }
    if let Ok(request) = Request::from_json(json) {
        let text = request.to_json();
        let again = Request::from_json(&text).expect("a request is read as it was written");
        assert_eq!(again.to_json(), text);
    }
    if let Ok(response) = Response::from_json(json) {
        let token = Token {
            parent: NodeId([1; 16]),
            addresses: Vec::new(),
            root: Fingerprint::of(TRUST.root()),
            org: OrgId::new("dong-van").expect("a name"),
            role: Role::Leaf,
            expires: 0,
            secret: Secret([7; 16]),
        };
        let key = Key::generate().expect("the system has random bytes");
        assert!(response.accept(&token, key, None, NOW).is_err(), "nobody has issued anything for a new key");
    }
}
