//! Enrolment over a link: one stream, one request, one answer, each with its length before it.
//!
//! What always holds: the new node speaks only to the holder of the key that its token names; the parent answers before it closes, so that a refusal arrives whole; an attempt that breaks
//! off anywhere can be made again with the same keys. Not here: what is asked and answered (`ca::enrol`).

use std::{net::SocketAddr, sync::Arc, time::Duration};

use quinn::{RecvStream, SendStream};
use sync_core::id::OrgPath;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{DONE, LinkError, LinkSettings, close, dial, door::Place, socket, tls};
use crate::{
    ca::{
        EnrolRefusal, InviteStore, Issued, Response, Token,
        enrol::{self, EnrolError, Enrolled, REQUEST_MAX_BYTES, RESPONSE_MAX_BYTES, answer},
    },
    keys::{Identity, IdentityFolder, KeyError},
};

/// How long the parent waits for a request, and for its answer to be read. About 5 kB pass, 1 s at 64 kbit/s; for one whom
/// orders have moved 130 kB at the most that is expected, 17 s.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(60);

/// Why an enrolment over a link failed.
#[derive(Debug, thiserror::Error)]
pub enum EnrolLinkError {
    /// No link.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The parent said no, or its answer does not hold.
    #[error(transparent)]
    Enrol(#[from] EnrolError),
    /// The keys.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// It broke off.
    #[error(
        "the enrolment broke off ({0}); run it again with the same token, which gets the same certificate"
    )]
    BrokeOff(String),
    /// Nowhere to go.
    #[error(
        "the token names no address of the parent; ask for one that was made with `tuyen invite --address HOST:PORT`"
    )]
    NoAddress,
    /// This node refused a request.
    #[error("refused an enrolment: {0}")]
    Refused(#[from] EnrolRefusal),
}

/// Somebody with a token, who has not said yet what it wants.
#[derive(Debug)]
pub struct Enrolling {
    connection: quinn::Connection,
    identity: Arc<Identity>,
    _place: Place,
}

impl Enrolling {
    pub(super) fn new(connection: quinn::Connection, identity: Arc<Identity>, place: Place) -> Self {
        Self { connection, identity, _place: place }
    }

    /// Where it comes from.
    pub fn address(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// Reads the request, redeems the token at `store`, answers, and says what was issued. `now` is the trusted
    /// time.
    pub async fn serve(self, store: Arc<dyn InviteStore>, now: i64) -> Result<Issued, EnrolLinkError> {
        let exchange = async {
            let (mut send, mut receive) = self.connection.accept_bi().await.map_err(broke_off)?;
            let request = read(&mut receive, REQUEST_MAX_BYTES).await?;
            let identity = self.identity.clone();
            let verdict = tokio::task::spawn_blocking(move || answer(&identity, &*store, &request, now));
            let verdict = verdict.await.map_err(broke_off)?;
            let response = match &verdict {
                Ok(redeemed) => redeemed.response(&self.identity),
                Err(refusal) => Response::from(refusal),
            };
            write(&mut send, &response.to_json()).await?;
            // Until the other side has read it all; what becomes of it then is not ours to wait for.
            let _ = send.stopped().await;
            Ok(verdict?.grant.issued)
        };
        let result = match tokio::time::timeout(EXCHANGE_TIMEOUT, exchange).await {
            Ok(result) => result,
            Err(_) => Err(EnrolLinkError::BrokeOff("the other side took more than 60 s".into())),
        };
        match &result {
            Err(EnrolLinkError::Refused(refusal)) => {
                close::close_with(&self.connection, refusal.code(), &refusal.to_string());
            }
            _ => self.connection.close(quinn::VarInt::from_u32(DONE), b"enrolment ended"),
        }
        result
    }
}

/// Enrols this machine with a token: makes the keys, asks the parent at each of its addresses in turn, checks the
/// answer, and writes the identity. `now` is the time by this machine's clock, however wrong. `parents` takes the
/// place of the addresses in the token unless it is empty. Of `stands` and a folder that holds a node see
/// [`enrol::take`].
pub async fn enrol(
    token: &Token,
    folder: &IdentityFolder,
    parents: &[String],
    stands: Option<&OrgPath>,
    now: i64,
) -> Result<Enrolled, EnrolLinkError> {
    let request = enrol::ask(token, folder, stands)?;
    let parents = if parents.is_empty() { &token.addresses } else { parents };
    let response = ask_each(token, parents, &request).await?;
    Ok(enrol::take(token, folder, stands, Response::from_json(&response)?, now)?)
}

async fn ask_each(token: &Token, parents: &[String], request: &[u8]) -> Result<Vec<u8>, EnrolLinkError> {
    let mut last = EnrolLinkError::NoAddress;
    for parent in parents {
        let unknown = |why: String| LinkError::Dial { address: parent.clone(), why };
        let addresses = match tokio::net::lookup_host(parent).await {
            Ok(addresses) => addresses,
            Err(error) => {
                last = unknown(error.to_string()).into();
                continue;
            }
        };
        for address in addresses {
            match ask(token, address, request).await {
                Ok(response) => return Ok(response),
                Err(error) => last = error,
            }
        }
    }
    Err(last)
}

async fn ask(token: &Token, address: SocketAddr, request: &[u8]) -> Result<Vec<u8>, EnrolLinkError> {
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let endpoint = socket(any.parse().expect("this is an address"), quinn::EndpointConfig::default())?;
    let check = tls::ServerCheck::new(tls::Expect::Key(token.parent));
    let connection = dial(&endpoint, address, None, check, &LinkSettings::default()).await?;
    let exchange = async {
        let (mut send, mut receive) = connection.open_bi().await.map_err(broke_off)?;
        write(&mut send, request).await?;
        read(&mut receive, RESPONSE_MAX_BYTES).await
    };
    let response = match tokio::time::timeout(EXCHANGE_TIMEOUT, exchange).await {
        Ok(response) => response,
        Err(_) => Err(EnrolLinkError::BrokeOff("the parent took more than 60 s".into())),
    };
    connection.close(quinn::VarInt::from_u32(DONE), b"enrolment ended");
    endpoint.wait_idle().await;
    response
}

/// A message: its length (u32, big-endian), then its bytes, then the end of the stream.
async fn write(stream: &mut SendStream, message: &[u8]) -> Result<(), EnrolLinkError> {
    let length = u32::try_from(message.len()).map_err(broke_off)?;
    stream.write_all(&length.to_be_bytes()).await.map_err(broke_off)?;
    stream.write_all(message).await.map_err(broke_off)?;
    stream.flush().await.map_err(broke_off)?;
    stream.finish().map_err(broke_off)
}

async fn read(stream: &mut RecvStream, max: usize) -> Result<Vec<u8>, EnrolLinkError> {
    let length = stream.read_u32().await.map_err(broke_off)?;
    let length = usize::try_from(length).ok().filter(|length| *length <= max);
    let length = length.ok_or_else(|| EnrolLinkError::BrokeOff("a message of more than its limit".into()))?;
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await.map_err(broke_off)?;
    Ok(message)
}

fn broke_off(error: impl std::fmt::Display) -> EnrolLinkError {
    EnrolLinkError::BrokeOff(error.to_string())
}
