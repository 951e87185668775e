//! TLS 1.3 for the two protocols, with our own idea of whom to trust.
//!
//! What always holds: host names mean nothing; a client follows the server's chain within the handshake, before
//! it shows its own certificate; a server asks for a certificate, makes sure that the client holds its key, and
//! leaves the verdict on the chain to `Transport::finish`, which can refuse with words. Sessions are never
//! resumed: that saves no bytes here, and a resumed one would skip the check. Not here: sockets.

use std::sync::{Arc, Mutex, PoisonError};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use sync_core::{id::NodeId, identity::Refusal};

use super::close;
use crate::{
    ca::{
        TrustStore,
        trust::{Verified, When},
    },
    keys::{Identity, PublicKey},
};

/// The protocol between nodes.
pub const ALPN_SYNC: &[u8] = b"tuyen/1";
/// The protocol of enrolment.
pub const ALPN_ENROL: &[u8] = b"tuyen-enrol/1";

/// Whom a client expects at the other end.
#[derive(Debug)]
pub(super) enum Expect {
    /// A node of our tree; this one, if named.
    OfTree(Arc<TrustStore>, Option<NodeId>),
    /// The holder of this key, whatever its certificate: for one that knows no tree yet.
    Key(NodeId),
}

impl Expect {
    fn check(&self, chain: &[CertificateDer<'_>]) -> Result<(), Refusal> {
        match self {
            Expect::OfTree(trust, node) => check_peer(trust, chain, *node).map(|_| ()),
            Expect::Key(expected) => {
                let own = chain.first().and_then(|der| webpki::EndEntityCert::try_from(der).ok());
                let key = own.and_then(|own| PublicKey::from_spki(&own.subject_public_key_info()));
                match key.ok_or(Refusal::NoCertificate)?.id() {
                    found if found == *expected => Ok(()),
                    found => Err(Refusal::OtherNode { expected: *expected, found }),
                }
            }
        }
    }
}

/// The verdict on a peer's chain, at the time of the trusted clock.
pub(super) fn check_peer(
    trust: &TrustStore,
    chain: &[CertificateDer<'_>],
    expected: Option<NodeId>,
) -> Result<Verified, Refusal> {
    let peer = trust.verify_chain(chain, When::Now(trust.clock().now()))?;
    match expected {
        Some(expected) if expected != peer.info.node => {
            Err(Refusal::OtherNode { expected, found: peer.info.node })
        }
        _ => Ok(peer),
    }
}

/// Checks the server, and keeps the refusal for whoever dialled: TLS itself would only pass on an alert.
#[derive(Debug)]
pub(super) struct ServerCheck {
    expect: Expect,
    provider: Arc<CryptoProvider>,
    refusal: Mutex<Option<Refusal>>,
}

impl ServerCheck {
    pub(super) fn new(expect: Expect) -> Arc<Self> {
        Arc::new(Self { expect, provider: provider(), refusal: Mutex::new(None) })
    }

    pub(super) fn take_refusal(&self) -> Option<Refusal> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ServerCertVerifier for ServerCheck {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        issuers: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain: Vec<_> = std::iter::once(own).chain(issuers).cloned().collect();
        self.expect.check(&chain).map(|()| ServerCertVerified::assertion()).map_err(|refusal| {
            let error = Error::General(close::marked(&refusal));
            *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
            error
        })
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// Makes sure that a client holds the key of the certificate it shows, and no more.
#[derive(Debug)]
struct ClientCheck {
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for ClientCheck {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A server of both protocols.
pub(super) fn server(identity: &Identity) -> Result<Arc<QuicServerConfig>, Error> {
    let provider = provider();
    let mut config = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(ClientCheck { provider }))
        .with_single_cert(identity.chain.clone(), identity.key.to_der())?;
    config.alpn_protocols = vec![ALPN_SYNC.to_vec(), ALPN_ENROL.to_vec()];
    config.send_tls13_tickets = 0;
    let config = QuicServerConfig::try_from(config);
    config.map(Arc::new).map_err(|_| Error::General("the TLS library lacks QUIC's first cipher".into()))
}

/// A client: with an identity it speaks to nodes, without one it enrols.
pub(super) fn client(
    identity: Option<&Identity>,
    check: Arc<ServerCheck>,
) -> Result<Arc<QuicClientConfig>, Error> {
    let builder = rustls::ClientConfig::builder_with_provider(check.provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(check);
    let mut config = match identity {
        Some(identity) => builder.with_client_auth_cert(identity.chain.clone(), identity.key.to_der())?,
        None => builder.with_no_client_auth(),
    };
    let alpn = if identity.is_some() { ALPN_SYNC } else { ALPN_ENROL };
    config.alpn_protocols = vec![alpn.to_vec()];
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    let config = QuicClientConfig::try_from(config);
    config.map(Arc::new).map_err(|_| Error::General("the TLS library lacks QUIC's first cipher".into()))
}
