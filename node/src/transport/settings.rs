//! The numbers of a link, each with its reason.
//!
//! What always holds: nothing here depends on the peer, and whatever a line needs differently is in
//! [`LinkSettings`]. Figures are those measured on two cores and on simulated lines.

use std::{sync::Arc, time::Duration};

use quinn::{IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt, congestion};
use serde::{Deserialize, Serialize};

use super::tolerant::TolerantConfig;

/// Bidirectional streams that a peer may open: the control stream and three more for requests beside it.
pub const BIDI_STREAMS: u32 = 4;
/// Unidirectional streams that a peer may open: three lanes, blobs, and one of each while it is replaced. Limits
/// are paid for in advance: 100 cost 49 kB a connection, 10,000 cost 1.1 MB and a third of the connections a second.
pub const UNI_STREAMS: u32 = 8;
/// A silent link is given up after this. Uploads survived outages of 30 s with it; shorter ends sessions on lines
/// that only stutter.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// The side that dialled keeps the link alive at this pace: twice within [`IDLE_TIMEOUT`], so that one packet may
/// be lost. Every 15 s would cost 705 kB a day, every 60 s 179 kB.
pub const KEEP_ALIVE: Duration = Duration::from_secs(50);
/// The same on a line on which every byte is paid for. A sign of life that is lost is sent again, later and later: what is
/// left of [`IDLE_TIMEOUT`] outlives a line that stutters for 30 s. A link that ends costs as much as 37 of them.
pub const METERED_KEEP_ALIVE: Duration = Duration::from_secs(90);
/// What may take the place of [`KEEP_ALIVE`], in seconds: what is left of [`IDLE_TIMEOUT`] has to outlive a line that stutters.
pub const KEEP_ALIVE_SECONDS: std::ops::RangeInclusive<u16> = 1..=100;
/// How long a handshake may take. At 600 ms and 15 % loss it takes a few seconds; a dead address costs all of it.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);
/// Connections that have not shown a certificate, at most: those of a crowd of 700 and some. One takes up to 130 kB.
pub const HANDSHAKES_MAX: usize = 1024;
/// When so many are under way, a newcomer shows first that he is at the address from which he writes. It costs him a
/// round trip, and whoever writes from addresses that are not his gets no further. A crowd of 700 is let in without: of one
/// that is asked a first packet may still be on its way, and takes a place for nothing.
pub const HANDSHAKES_UNPROVEN: usize = 768;
/// What a peer may send ahead on one stream: an entry of 1 MiB, whole. On a line of 10 Mbit/s and 300 ms, 375 kB
/// are under way at once.
pub const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// What a peer may send ahead on all streams: four lanes. 700 peers that all did would hold 2.8 GB, but only what
/// was not read yet counts.
pub const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// What is kept until it is acknowledged.
pub const SEND_WINDOW_BYTES: u64 = 4 << 20;
/// The UDP receive buffer that is asked for. With the 208 kB that systems give by themselves a crowd got 73
/// connections a second, with this 674. The system may grant less (net.core.rmem_max).
pub const UDP_BUFFER_BYTES: usize = 4 << 20;

/// How a link reacts to loss. The figures are parts of the line that carry new data, and what a sender without a fault
/// would reach is 81 % at 15 % loss and 90 % at 5 %: `bench -- lines`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Congestion {
    /// Cubic that tells a packet that the line has lost from a full queue: see `tolerant.rs`. 76 % of 256
    /// kbit/s at 15 % loss, 88 % of 64 kbit/s at 5 %.
    #[default]
    Tolerant,
    /// As TCP does it: 26 % and 85 %.
    Cubic,
    /// A model of the line: 66 % and 71 %, putting up to 1.7 times as much on it as it carries.
    Bbr,
    /// The plainest; never the best on any line measured.
    NewReno,
}

/// What differs from line to line.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinkSettings {
    /// How it reacts to loss.
    pub congestion: Congestion,
    /// Whether to look for packets larger than 1,200 bytes. Costs 4.2 kB a connection, half a second at 64 kbit/s,
    /// and wins about 2 % after that: for links that move much.
    pub mtu_discovery: bool,
    /// Seconds between signs of life, in place of [`KEEP_ALIVE`].
    pub keep_alive_seconds: Option<u16>,
}

impl LinkSettings {
    /// The same for a line on which every byte is paid for.
    pub fn for_metered(&self) -> Self {
        let rarer = u16::try_from(METERED_KEEP_ALIVE.as_secs()).expect("it is a few seconds");
        Self { keep_alive_seconds: self.keep_alive_seconds.or(Some(rarer)), ..self.clone() }
    }

    /// The settings of a connection; only the side that dials keeps it alive.
    pub(super) fn to_quinn(&self, dials: bool) -> Arc<TransportConfig> {
        let idle = IdleTimeout::try_from(IDLE_TIMEOUT).expect("120 s fit into a QUIC timeout");
        let keep_alive = self
            .keep_alive_seconds
            .map_or(KEEP_ALIVE, |seconds| Duration::from_secs(u64::from(seconds.max(1))));
        let mut config = TransportConfig::default();
        config
            .max_concurrent_bidi_streams(VarInt::from_u32(BIDI_STREAMS))
            .max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS))
            .max_idle_timeout(Some(idle))
            .keep_alive_interval(dials.then_some(keep_alive))
            .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
            .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
            .send_window(SEND_WINDOW_BYTES)
            .datagram_receive_buffer_size(None)
            .mtu_discovery_config(self.mtu_discovery.then(MtuDiscoveryConfig::default));
        match self.congestion {
            Congestion::Cubic => {
                config.congestion_controller_factory(Arc::new(congestion::CubicConfig::default()))
            }
            Congestion::Bbr => {
                config.congestion_controller_factory(Arc::new(congestion::BbrConfig::default()))
            }
            Congestion::Tolerant => config.congestion_controller_factory(Arc::new(TolerantConfig::default())),
            Congestion::NewReno => {
                config.congestion_controller_factory(Arc::new(congestion::NewRenoConfig::default()))
            }
        };
        Arc::new(config)
    }
}
