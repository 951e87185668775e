//! Congestion control for lines that lose packets of their own accord: Cubic, to which a loss says nothing while the line has
//! no queue.
//!
//! A radio line loses packets whether it is busy or not, and Cubic, which takes each loss for a full queue, sends a quarter
//! of what such a line could carry. A full queue shows in the round trips as well: they are longer than the shortest that
//! there has been. So a loss counts when some packets wait in the queue, or when so many are lost that it cannot be the line
//! alone: a policer drops without a queue. What always holds: where there is a queue, it takes each loss as Cubic does, and so
//! shares a line with others as Cubic does; and a queue that takes longer than [`QUEUE_MAX`] counts as a loss, so that
//! what is urgent does not wait long behind what a deep buffer holds. Not here: a model of the line, or another pace than
//! quinn's. When the way becomes longer while a connection stands, the rest seems to be a queue, and this is Cubic.
//!
//! To tell the two losses apart by the queue is TCP Veno's (Fu and Liew, 2003).

use std::{
    any::Any,
    sync::Arc,
    time::{Duration, Instant},
};

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};
use quinn_proto::RttEstimator;

/// Packets that wait in the queue from which on a loss is one of congestion.
const QUEUED_PACKETS: u64 = 3;
/// A queue that takes longer than this counts as a loss: seven packets at 64 kbit/s.
const QUEUE_MAX: Duration = Duration::from_secs(1);
/// When more than one packet in so many is lost, each loss counts.
const LOST_MOST: u64 = 3;
/// What is of late: about so many packets.
const LATE_PACKETS: u64 = 128;

/// Makes such a controller for each connection.
#[derive(Debug, Clone, Default)]
pub struct TolerantConfig(Arc<CubicConfig>);

impl ControllerFactory for TolerantConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let cubic = self.0.clone().build(now, current_mtu);
        Box::new(Tolerant {
            cubic,
            mtu: current_mtu.into(),
            shortest: Duration::MAX,
            queued: 0,
            acked: 0,
            lost: 0,
        })
    }
}

/// See the module.
pub struct Tolerant {
    cubic: Box<dyn Controller>,
    mtu: u64,
    /// The shortest round trip of a packet that was not small.
    shortest: Duration,
    /// The bytes under way that wait in the queue, if nobody else uses the line.
    queued: u64,
    /// Bytes of late.
    acked: u64,
    lost: u64,
}

impl Tolerant {
    /// Of a packet of so many bytes, sent then, there is word now. Round trips take so long of late, and the shortest of any
    /// packet was so long.
    fn sees(&mut self, now: Instant, sent: Instant, bytes: u64, takes: Duration, least: Duration) {
        // On a slow line a small packet is through sooner, queue or none.
        if bytes * 2 >= self.mtu {
            self.shortest = self.shortest.min(now.saturating_duration_since(sent));
        }
        let queue = takes.saturating_sub(if self.shortest == Duration::MAX { least } else { self.shortest });
        let part = queue.as_secs_f64() / takes.as_secs_f64().max(f64::MIN_POSITIVE);
        self.queued = (self.window() as f64 * part) as u64;
        if queue > QUEUE_MAX && self.has_queue() {
            self.cubic.on_congestion_event(now, sent, false, 0);
        }
    }

    fn has_queue(&self) -> bool {
        self.queued >= QUEUED_PACKETS * self.mtu
    }

    /// Of late so many bytes have arrived, and so many were lost.
    fn counts(&mut self, acked: u64, lost: u64) {
        (self.acked, self.lost) = (self.acked + acked, self.lost + lost);
        if self.acked + self.lost > LATE_PACKETS * self.mtu {
            (self.acked, self.lost) = (self.acked / 2, self.lost / 2);
        }
    }

    /// Whether what is lost now is lost because too much is sent.
    fn is_congested(&self) -> bool {
        let most = (self.acked + self.lost) / LOST_MOST;
        self.has_queue() || self.lost > most.max(QUEUED_PACKETS * self.mtu)
    }
}

impl Controller for Tolerant {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.cubic.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.counts(bytes, 0);
        self.sees(now, sent, bytes, rtt.get(), rtt.min());
        self.cubic.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest: Option<u64>) {
        self.cubic.on_end_acks(now, in_flight, app_limited, largest);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent: bool, lost_bytes: u64) {
        self.counts(0, lost_bytes);
        // An explicit mark of congestion comes without a loss.
        if is_persistent || lost_bytes == 0 || self.is_congested() {
            self.cubic.on_congestion_event(now, sent, is_persistent, lost_bytes);
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = new_mtu.into();
        self.cubic.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.cubic.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        self.cubic.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        let cubic = self.cubic.clone_box();
        Box::new(Self { cubic, ..*self })
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MTU: u64 = 1_200;
    const WAY: Duration = Duration::from_millis(300);

    fn tolerant() -> Tolerant {
        let (config, now) = (Arc::new(CubicConfig::default()), Instant::now());
        Tolerant {
            cubic: config.build(now, 1_200),
            mtu: MTU,
            shortest: Duration::MAX,
            queued: 0,
            acked: 0,
            lost: 0,
        }
    }

    /// So many packets arrive after such a round trip, and then one is lost that was sent so long after the last loss.
    fn loses_one(it: &mut Tolerant, arrived: u64, takes: Duration, sent: Instant) {
        it.counts(arrived * MTU, 0);
        it.sees(sent + WAY, sent, MTU, takes, WAY);
        it.on_congestion_event(sent, sent, false, MTU);
    }

    #[test]
    fn a_loss_counts_where_there_is_a_queue() {
        // Of a window of ten packets three wait when three tenths of a round trip are the queue's.
        for (takes, counts) in [(WAY, false), (WAY * 10 / 8, false), (WAY * 10 / 7 + WAY / 100, true)] {
            let mut it = tolerant();
            let before = it.window();
            assert_eq!(before, 10 * MTU);
            loses_one(&mut it, 10, takes, Instant::now());
            assert_eq!(it.window() < before, counts, "{takes:?}");
            assert_eq!(it.window(), if counts { before * 7 / 10 } else { before }, "as of Cubic");
        }
    }

    #[test]
    fn so_many_losses_count_without_a_queue() {
        for (each, counts) in [(6, false), (3, false), (1, true)] {
            let (mut it, began) = (tolerant(), Instant::now());
            let before = it.window();
            for nth in 0..200 {
                loses_one(&mut it, each, WAY, began + WAY * nth);
            }
            assert_eq!(it.window() < before, counts, "one of {}", each + 1);
            // It is of late: when the line has become better, they do not count any more.
            it.counts(2 * LATE_PACKETS * MTU, 0);
            let left = it.window();
            loses_one(&mut it, 100, WAY, began + WAY * 300);
            assert_eq!(it.window(), left);
        }
        // Nor do the first few of a connection.
        let mut it = tolerant();
        (0..3).for_each(|_| loses_one(&mut it, 0, WAY, Instant::now()));
        assert_eq!(it.window(), 10 * MTU);
    }

    #[test]
    fn a_queue_has_a_length_that_it_may_have() {
        let now = Instant::now();
        for (queue, counts) in [(QUEUE_MAX, false), (QUEUE_MAX * 11 / 10, true)] {
            let mut it = tolerant();
            it.sees(now + WAY, now, MTU, WAY + queue, WAY);
            assert_eq!(it.window(), if counts { 7 * MTU } else { 10 * MTU }, "{queue:?}");
            it.sees(now + WAY, now, MTU, WAY + queue, WAY);
            assert_eq!(it.window(), if counts { 7 * MTU } else { 10 * MTU }, "once in a round trip");
        }
        // On a line so slow that one or two packets take as long, there is nothing to be shortened.
        let mut it = tolerant();
        it.sees(now + WAY * 4, now, MTU, WAY * 5, WAY * 4);
        assert_eq!(it.window(), 10 * MTU);
    }

    #[test]
    fn a_small_packet_that_was_through_sooner_tells_of_no_queue() {
        let now = Instant::now();
        let long = WAY * 10 / 6;
        let mut it = tolerant();
        it.sees(now + WAY, now, 50, long, WAY);
        assert!(it.has_queue(), "as long as there was no other");
        it.sees(now + long, now, MTU, long, WAY);
        assert!(!it.has_queue());
        it.sees(now + WAY, now, 50, long, WAY);
        assert!(!it.has_queue());
    }

    #[test]
    fn what_is_no_loss_by_chance_counts_always() {
        let now = Instant::now();
        let mut it = tolerant();
        it.on_congestion_event(now, now, true, MTU);
        assert_eq!(it.window(), 2 * MTU, "nothing has arrived for long");
        let mut it = tolerant();
        it.on_congestion_event(now, now, false, 0);
        assert_eq!(it.window(), 7 * MTU, "a router says so");
    }
}
