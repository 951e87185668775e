//! Requests beside the session: what time it is, and the next certificates.
//!
//! Each is a bidirectional stream that the child opens after the control stream: one byte says what it asks, the
//! rest up to the end of the stream belongs to it; the answer ends the stream. What always holds: whoever asks waits
//! a bounded time for a bounded answer, and a request that is not understood ends its own stream and nothing else.
//! Not here: what is asked when, and what is answered (the daemon, `ca::renew`).

use std::time::Duration;

use quinn::{Connection, RecvStream, SendStream, VarInt};

use crate::{
    ca::enrol::{RESPONSE_MAX_BYTES, Response},
    keys::PublicKey,
};

/// How long a request may take. About 5 kB pass: 1 s at 64 kbit/s.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(60);
/// Asks for the parent's time; the answer is a u64, big-endian, of milliseconds since 1970.
const TIME: u8 = 1;
/// Asks for certificates; a hub's request goes on with its CA's key (SubjectPublicKeyInfo, 44 bytes). The answer is
/// that of an enrolment, in JSON.
const CERTIFICATES: u8 = 2;
/// Largest request, in bytes.
const REQUEST_MAX_BYTES: usize = 64;
/// Why a stream is stopped: its request is not understood.
const NOT_UNDERSTOOD: VarInt = VarInt::from_u32(1);
/// The priority of these streams: below everything, so that a patient's record does not wait for a certificate.
const PRIORITY: i32 = -1;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[error("the parent did not answer ({0}); it is asked again with the next link, or after a day")]
pub struct NoAnswer(String);

fn none(why: impl std::fmt::Display) -> NoAnswer {
    NoAnswer(why.to_string())
}

/// Asks the other end for its time, in milliseconds since 1970.
pub async fn ask_time(connection: &Connection) -> Result<i64, NoAnswer> {
    let answer = ask(connection, &[TIME]).await?;
    let time = answer.try_into().map_err(|_| none("its time has not 8 bytes"))?;
    i64::try_from(u64::from_be_bytes(time)).map_err(none)
}

/// Asks the other end for the next certificates; `ca_key` for a hub.
pub async fn ask_certificates(
    connection: &Connection,
    ca_key: Option<&PublicKey>,
) -> Result<Response, NoAnswer> {
    let key = ca_key.map(PublicKey::spki).unwrap_or_default();
    let answer = ask(connection, &[&[CERTIFICATES], &key[..]].concat()).await?;
    Response::from_json(&answer).map_err(none)
}

async fn ask(connection: &Connection, request: &[u8]) -> Result<Vec<u8>, NoAnswer> {
    let exchange = async {
        let (mut send, mut receive) = connection.open_bi().await.map_err(none)?;
        let _ = send.set_priority(PRIORITY);
        send.write_all(request).await.map_err(none)?;
        send.finish().map_err(none)?;
        receive.read_to_end(RESPONSE_MAX_BYTES).await.map_err(none)
    };
    tokio::time::timeout(EXCHANGE_TIMEOUT, exchange).await.map_err(|_| none("it took more than 60 s"))?
}

/// What a child asks.
#[derive(Debug)]
pub enum Question {
    /// What time it is.
    Time(Asked),
    /// The next certificates; a hub sends the key of its CA.
    Certificates(Asked, Option<PublicKey>),
}

/// Where an answer goes.
#[derive(Debug)]
pub struct Asked(SendStream);

impl Asked {
    /// Answers with this node's time, in milliseconds since 1970.
    pub async fn time(self, ms: i64) {
        self.answer(&u64::try_from(ms).unwrap_or(0).to_be_bytes()).await;
    }

    /// Answers with certificates, or a refusal.
    pub async fn certificates(self, response: &Response) {
        self.answer(&response.to_json()).await;
    }

    /// A child that does not read its answer asks again.
    async fn answer(mut self, answer: &[u8]) {
        let _ = self.0.set_priority(PRIORITY);
        let write = async {
            let _ = self.0.write_all(answer).await;
            let _ = self.0.finish();
        };
        let _ = tokio::time::timeout(EXCHANGE_TIMEOUT, write).await;
    }
}

/// The next question of the child at the other end; none when the link has ended. To be called once the control
/// stream is there.
pub async fn next_question(connection: &Connection) -> Option<Question> {
    loop {
        let (mut send, receive) = connection.accept_bi().await.ok()?;
        match tokio::time::timeout(EXCHANGE_TIMEOUT, read_request(receive)).await {
            Ok(Some((TIME, rest))) if rest.is_empty() => return Some(Question::Time(Asked(send))),
            Ok(Some((CERTIFICATES, rest))) if rest.is_empty() => {
                return Some(Question::Certificates(Asked(send), None));
            }
            Ok(Some((CERTIFICATES, rest))) if PublicKey::from_spki(&rest).is_some() => {
                return Some(Question::Certificates(Asked(send), PublicKey::from_spki(&rest)));
            }
            _ => drop(send.reset(NOT_UNDERSTOOD)),
        }
    }
}

async fn read_request(mut stream: RecvStream) -> Option<(u8, Vec<u8>)> {
    let mut request = stream.read_to_end(REQUEST_MAX_BYTES).await.ok()?;
    let kind = *request.first()?;
    Some((kind, request.split_off(1)))
}
