//! A neighbour with a good certificate and bad manners: it goes through the handshake as the node of a folder and
//! then writes whatever bytes it is given.

use std::{cell::RefCell, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use node::{
    ca::{Response, TrustStore, TrustedClock},
    clock,
    keys::{IdentityFolder, PublicKey},
    transport::{
        self, LinkSettings, Transport,
        beside::{self, NoAnswer},
    },
};
use quinn::{Connection, RecvStream, SendStream};
use sync_core::{
    id::{Incarnation, Lane, Secrecy},
    wire::{Frame, Hello},
};
use tokio::runtime::Runtime;

/// How long the other side may take to end the connection.
const END_TIMEOUT: Duration = Duration::from_secs(60);

/// The neighbour.
pub struct Intruder {
    runtime: Runtime,
    connection: Connection,
    /// Streams that are to stay open.
    streams: RefCell<Vec<(SendStream, Option<RecvStream>)>>,
    _transport: Transport,
}

impl Intruder {
    /// Connects as the node of a folder that is enrolled below the node at this address.
    pub fn connect(dir: &Path, parent: SocketAddr) -> Self {
        let runtime = Runtime::new().expect("a runtime starts");
        let identity = Arc::new(IdentityFolder::of_node(dir).load().expect("the folder is enrolled"));
        let trust =
            Arc::new(TrustStore::of(&identity, TrustedClock::new(clock::wall())).expect("it is good"));
        let any = "0.0.0.0:0".parse().expect("this is an address");
        let (transport, connection) = runtime.block_on(async {
            let settings = LinkSettings::default();
            let transport =
                Transport::bind(any, false, identity, trust, settings.clone()).expect("a free port");
            let link = transport.connect(parent, None, &settings).await.expect("the certificate is good");
            (transport, link.connection().clone())
        });
        Self { runtime, connection, streams: RefCell::default(), _transport: transport }
    }

    /// Writes to a control stream of its own.
    pub fn control(&self, bytes: &[u8]) {
        self.runtime.block_on(async {
            let Ok((mut send, receive)) = self.connection.open_bi().await else { return };
            // The other side may hang up in the middle.
            let _ = send.write_all(bytes).await;
            self.streams.borrow_mut().push((send, Some(receive)));
        });
    }

    /// Says what a node says first.
    pub fn hello(&self) {
        let run = Incarnation([0xbb; 16]);
        let hello = Hello {
            run,
            software: "intruder".to_owned(),
            tip: None,
            cursors: Vec::new(),
            revocations: 0,
            allows: Secrecy::None,
        };
        self.control(&Frame::Hello(hello).encode());
    }

    /// Writes to a new stream of a lane; how many bytes the other side has taken.
    pub fn lane<'b>(&self, lane: Lane, all: impl IntoIterator<Item = &'b [u8]>) -> u64 {
        self.runtime.block_on(async {
            let Ok(mut stream) = self.connection.open_uni().await else { return 0 };
            let mut taken = 0;
            let _ = stream.write_all(&[lane as u8]).await;
            for bytes in all {
                if stream.write_all(bytes).await.is_err() {
                    break;
                }
                taken += bytes.len() as u64;
            }
            self.streams.borrow_mut().push((stream, None));
            taken
        })
    }

    /// Asks for certificates, as a child of its parent.
    pub fn certificates(&self, ca_key: Option<&PublicKey>) -> Result<Response, NoAnswer> {
        self.runtime.block_on(beside::ask_certificates(&self.connection, ca_key))
    }

    /// Asks whatever these bytes ask beside the session; the whole answer.
    pub fn request(&self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        self.runtime.block_on(async {
            let (mut send, mut receive) = self.connection.open_bi().await.map_err(|e| e.to_string())?;
            // The other side may hang up in the middle.
            let _ = send.write_all(bytes).await;
            let _ = send.finish();
            receive.read_to_end(64 << 10).await.map_err(|e| e.to_string())
        })
    }

    /// How the other side ended the connection: its code and its words.
    pub fn ended(&self) -> (u16, String) {
        let ended = self
            .runtime
            .block_on(async { tokio::time::timeout(END_TIMEOUT, self.connection.closed()).await });
        let ended = ended.expect("the other side ends the connection");
        transport::refusal_of(&ended).unwrap_or_else(|| panic!("it was ended without a reason: {ended}"))
    }
}
