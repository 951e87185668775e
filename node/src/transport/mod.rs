//! QUIC between nodes: one UDP socket, two protocols, mutual TLS.
//!
//! What always holds: a [`Link`] exists only between two nodes of one tree, each of which followed the other's
//! chain; whoever refuses says why, and both sides can show it. A socket serves sync (`tuyen/1`, certificates on
//! both sides) and enrolment (`tuyen-enrol/1`, where the client has none yet). Not here: what is said on a link
//! (the session), and when to dial again (the daemon).

pub mod beside;
mod close;
mod door;
mod enrol;
mod settings;
#[cfg(test)]
pub(crate) mod tests;
mod tls;
mod tolerant;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use quinn::{ConnectionError, crypto::rustls::HandshakeData};
use rustls::pki_types::CertificateDer;
use sync_core::{
    id::NodeId,
    identity::{NodeInfo, Refusal},
};

pub use self::{
    close::{DONE, LAST_WORD, REFUSED, refusal_of, refuse},
    door::Knock,
    enrol::{EnrolLinkError, Enrolling, enrol},
    settings::*,
    tls::{ALPN_ENROL, ALPN_SYNC},
};
use self::{
    door::Door,
    tls::{Expect, ServerCheck, check_peer},
};
use crate::{
    ca::{TrustStore, trust::Verified},
    keys::Identity,
};

/// What is written where TLS wants a host name; nobody reads it.
const SERVER_NAME: &str = "tuyen";

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// This node refused the other.
    #[error("refused {address}: {refusal}")]
    Refused {
        /// The other.
        address: SocketAddr,
        /// Why.
        refusal: Refusal,
    },
    /// The other refused this node.
    #[error("{address} refused this node: {text}")]
    RefusedByPeer {
        /// The other.
        address: SocketAddr,
        /// The number of the refusal.
        code: u16,
        /// Its text.
        text: String,
    },
    /// Silence.
    #[error(
        "{address} did not answer within {} s; check the line, the address, and that UDP may pass. \
         Work goes on meanwhile, and the node will try again", after.as_secs()
    )]
    Silent {
        /// The other.
        address: SocketAddr,
        /// How long was waited.
        after: Duration,
    },
    /// The other had too many in its door.
    #[error(
        "{address} has more callers at once than it can take; nothing is wrong with this node, and it will try again, \
         later and later"
    )]
    Busy {
        /// The other.
        address: SocketAddr,
    },
    /// The connection ended.
    #[error("the connection with {address} ended ({source}); the node will try again")]
    Lost {
        /// The other.
        address: SocketAddr,
        /// How.
        source: ConnectionError,
    },
    /// It could not even be tried.
    #[error("{address} cannot be dialled ({why}); check the address in the settings")]
    Dial {
        /// The other.
        address: String,
        /// Why not.
        why: String,
    },
    /// A client spoke a protocol that this node does not know.
    #[error("{address} speaks another protocol than this node; compare `tuyen --version` on both")]
    Protocol {
        /// The other.
        address: SocketAddr,
    },
    /// The socket.
    #[error(
        "cannot use UDP {address}: {source}; another program may have the port, or the address is not \
         this machine's; stop that program, or set another address as `listen` in config.json"
    )]
    Socket {
        /// The address to listen on.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The identity.
    #[error(
        "the certificates of this node cannot be used for TLS ({0}); restore the identity folder, or enrol again"
    )]
    Identity(#[from] rustls::Error),
}

impl LinkError {
    /// Tells apart how a connection ended.
    pub fn from_connection(address: SocketAddr, error: ConnectionError) -> Self {
        match refusal_of(&error) {
            Some((code, text)) => LinkError::RefusedByPeer { address, code, text },
            None if is_turned_away(&error) => LinkError::Busy { address },
            None if error == ConnectionError::TimedOut => LinkError::Silent { address, after: IDLE_TIMEOUT },
            None => LinkError::Lost { address, source: error },
        }
    }

    /// The number of the refusal, whoever refused.
    #[cfg(test)]
    pub fn refusal_code(&self) -> Option<u16> {
        match self {
            LinkError::Refused { refusal, .. } => Some(refusal.code()),
            LinkError::RefusedByPeer { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// A connection with a node of our tree.
#[derive(Clone, Debug)]
pub struct Link {
    connection: quinn::Connection,
    peer: NodeInfo,
    until: i64,
}

impl Link {
    /// The connection.
    pub fn connection(&self) -> &quinn::Connection {
        &self.connection
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &NodeInfo {
        &self.peer
    }

    /// The end of the peer's certificate, in milliseconds since 1970: the link is good up to then.
    pub fn until(&self) -> i64 {
        self.until
    }

    /// The peer's certificates in DER, its own first, without the root's: for the engine.
    pub fn chain(&self) -> Vec<Vec<u8>> {
        peer_chain(&self.connection).iter().map(|der| der.to_vec()).collect()
    }
}

/// What somebody who came wants.
#[derive(Debug)]
pub enum Arrival {
    /// A node of our tree, to sync.
    Node(Link),
    /// Somebody with a token.
    Enrolling(Enrolling),
}

fn peer_chain(connection: &quinn::Connection) -> Vec<CertificateDer<'static>> {
    let identity = connection.peer_identity();
    identity.and_then(|chain| chain.downcast().ok()).map(|chain| *chain).unwrap_or_default()
}

/// The socket of a node.
#[derive(Debug)]
pub struct Transport {
    endpoint: quinn::Endpoint,
    identity: RwLock<Arc<Identity>>,
    trust: Arc<TrustStore>,
    incoming: LinkSettings,
    listens: bool,
    door: Door,
}

impl Transport {
    /// Opens a UDP socket. A node that only dials does not listen; one that listens can dial too. To be called
    /// within a tokio runtime.
    pub fn bind(
        address: SocketAddr,
        listens: bool,
        identity: Arc<Identity>,
        trust: Arc<TrustStore>,
        incoming: LinkSettings,
    ) -> Result<Self, LinkError> {
        let (endpoint, door) = (socket(address, lasting(&identity))?, Door::default());
        let transport = Self { endpoint, identity: RwLock::new(identity), trust, incoming, listens, door };
        transport.serve()?;
        Ok(transport)
    }

    fn serve(&self) -> Result<(), LinkError> {
        if self.listens {
            let mut config = quinn::ServerConfig::with_crypto(tls::server(&self.identity())?);
            config.transport_config(self.incoming.to_quinn(false));
            self.endpoint.set_server_config(Some(config));
        }
        Ok(())
    }

    /// Takes renewed certificates for the connections to come; those that stand go on.
    pub fn renew(&self, identity: Arc<Identity>) -> Result<(), LinkError> {
        *self.identity.write().unwrap_or_else(PoisonError::into_inner) = identity;
        self.serve()
    }

    /// The key and the certificates that the next connection shows.
    pub fn identity(&self) -> Arc<Identity> {
        self.identity.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whom this node trusts.
    pub fn trust(&self) -> &TrustStore {
        &self.trust
    }

    /// The address that the socket has.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// How many connections stand.
    pub fn open_connections(&self) -> usize {
        self.endpoint.open_connections()
    }

    /// Dials a node; `expected` names it where it is known. The other side may still refuse: that shows as the
    /// end of the connection, for [`LinkError::from_connection`] to read.
    pub async fn connect(
        &self,
        address: SocketAddr,
        expected: Option<NodeId>,
        settings: &LinkSettings,
    ) -> Result<Link, LinkError> {
        let identity = self.identity();
        let check = ServerCheck::new(Expect::OfTree(self.trust.clone(), expected));
        let connection = dial(&self.endpoint, address, Some(&identity), check, settings).await?;
        let peer = check_peer(&self.trust, &peer_chain(&connection), expected);
        admitted(connection, peer)
    }

    /// The next one who knocks and may begin; none when the socket is closed. To be finished in a task of its own, so
    /// that a slow one holds up nobody.
    pub async fn accept(&self) -> Option<Knock> {
        loop {
            if let Some(knock) = self.door.open(self.endpoint.accept().await?) {
                return Some(knock);
            }
        }
    }

    /// Goes through the handshake and the verdict.
    pub async fn finish(&self, Knock { incoming, place }: Knock) -> Result<Arrival, LinkError> {
        let address = incoming.remote_address();
        let handshake = async { incoming.accept()?.await };
        let connection = within(address, handshake).await?;
        let data = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
        match data.and_then(|data| data.protocol).as_deref() {
            Some(ALPN_SYNC) => {
                let peer = check_peer(&self.trust, &peer_chain(&connection), None);
                admitted(connection, peer).map(Arrival::Node)
            }
            Some(ALPN_ENROL) => Ok(Arrival::Enrolling(Enrolling::new(connection, self.identity(), place))),
            _ => Err(LinkError::Protocol { address }),
        }
    }

    /// Says goodbye to everybody and waits until it is said. Links say so themselves, in [`LAST_WORD`]; who has not got so far is
    /// let go then.
    pub async fn close(&self) {
        let _ = tokio::time::timeout(LAST_WORD, self.endpoint.wait_idle()).await;
        self.endpoint.close(quinn::VarInt::from_u32(DONE), b"this node stops");
        // Said again to who still speaks; one that is gone hears nothing of it.
        let _ = tokio::time::timeout(LAST_WORD / 2, self.endpoint.wait_idle()).await;
    }
}

/// Whether the other side turned this one away before it looked at it.
fn is_turned_away(error: &ConnectionError) -> bool {
    let refused = quinn::TransportErrorCode::CONNECTION_REFUSED;
    matches!(error, ConnectionError::ConnectionClosed(close) if close.error_code == refused)
}

fn admitted(connection: quinn::Connection, peer: Result<Verified, Refusal>) -> Result<Link, LinkError> {
    match peer {
        Ok(Verified { info: peer, not_after: until, .. }) => Ok(Link { connection, peer, until }),
        Err(refusal) => {
            refuse(&connection, &refusal);
            Err(LinkError::Refused { address: connection.remote_address(), refusal })
        }
    }
}

async fn dial(
    endpoint: &quinn::Endpoint,
    address: SocketAddr,
    identity: Option<&Identity>,
    check: Arc<ServerCheck>,
    settings: &LinkSettings,
) -> Result<quinn::Connection, LinkError> {
    let mut config = quinn::ClientConfig::new(tls::client(identity, check.clone())?);
    config.transport_config(settings.to_quinn(true));
    let connecting = endpoint
        .connect_with(config, address, SERVER_NAME)
        .map_err(|e| LinkError::Dial { address: address.to_string(), why: e.to_string() })?;
    within(address, connecting).await.map_err(|error| match check.take_refusal() {
        Some(refusal) => LinkError::Refused { address, refusal },
        None => error,
    })
}

async fn within(
    address: SocketAddr,
    handshake: impl Future<Output = Result<quinn::Connection, ConnectionError>>,
) -> Result<quinn::Connection, LinkError> {
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(connection) => connection.map_err(|error| LinkError::from_connection(address, error)),
        Err(_) => Err(LinkError::Silent { address, after: HANDSHAKE_TIMEOUT }),
    }
}

/// What a restarted node tells by that a connection was its own (RFC 9000, 10.3): neighbours that still hold one
/// from before a crash are told at their next packet that it is gone, and need not wait for the idle timeout. Both
/// keys, of resets and of connection ids, are made from the node's, so that they are the same after a restart and
/// nobody else can make them.
fn lasting(identity: &Identity) -> quinn::EndpointConfig {
    let secret = identity.key.sign(b"tuyen stateless reset key v1");
    let mut config =
        quinn::EndpointConfig::new(Arc::new(ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret)));
    let ids = identity.key.sign(b"tuyen connection id key v1");
    let ids = u64::from_be_bytes(ids[..8].try_into().expect("a signature has 64 bytes"));
    config.cid_generator(move || Box::new(quinn_proto::HashedConnectionIdGenerator::from_key(ids)));
    config
}

/// A socket with a receive buffer for crowds, as far as the system grants it.
fn socket(address: SocketAddr, config: quinn::EndpointConfig) -> Result<quinn::Endpoint, LinkError> {
    let failed = |source| LinkError::Socket { address, source };
    let socket = std::net::UdpSocket::bind(address).map_err(failed)?;
    let options = socket2::SockRef::from(&socket);
    if let Err(error) = options.set_recv_buffer_size(UDP_BUFFER_BYTES) {
        tracing::debug!(%error, "the system keeps its own UDP receive buffer");
    }
    if let Ok(granted) = options.recv_buffer_size()
        && granted < UDP_BUFFER_BYTES
    {
        tracing::debug!(
            granted,
            wanted = UDP_BUFFER_BYTES,
            "UDP receive buffer; net.core.rmem_max allows no more"
        );
    }
    let runtime =
        quinn::default_runtime().ok_or_else(|| failed(io::Error::other("no async runtime is running")))?;
    quinn::Endpoint::new(config, None, socket, runtime).map_err(failed)
}
