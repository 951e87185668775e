//! How a node that lost its connections, because its process was killed, says so to neighbours who still believe
//! in them.
//!
//! A packet of a connection that nobody knows is answered with QUIC's stateless reset (RFC 9000, 10.3). What
//! always holds: the key behind the resets is the same at every start of one node, so that the neighbour can tell
//! a reset from a forgery and dials again at once, and does not wait until the connection has been silent for
//! [`super::IDLE_TIMEOUT`]. It is derived from the node's own key and says nothing about it.

use std::{sync::Arc, time::Duration};

use quinn::{ConnectionId, ConnectionIdGenerator, EndpointConfig};
use ring::hmac;

use crate::keys::Key;

const DOMAIN: &[u8] = b"tuyen stateless reset v1\0";
/// Bytes of a connection's name: as many as quinn gives by itself.
const NAME_BYTES: usize = 8;

/// The settings of a node's socket.
pub(super) fn endpoint_config(key: &Key) -> EndpointConfig {
    let own = hmac::Key::new(hmac::HMAC_SHA256, key.to_der().secret_der());
    let secret = hmac::sign(&own, DOMAIN);
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, secret.as_ref())));
    config.cid_generator(|| Box::new(Names));
    config
}

/// Names of connections. quinn's own generator recognizes only the names of its own process, and answers no
/// packet with another.
struct Names;

impl ConnectionIdGenerator for Names {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut name = [0; NAME_BYTES];
        getrandom::fill(&mut name).expect("a system that made this node's keys has randomness");
        ConnectionId::new(&name)
    }

    fn cid_len(&self) -> usize {
        NAME_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
