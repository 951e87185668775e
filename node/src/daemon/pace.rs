//! How fast entries may go over the link to the parent: what the core has worked out for this hour, and the tasks that
//! keep to it.
//!
//! What always holds: what is urgent and the control stream are never slowed down; ordinary entries go before bulk; what
//! comes is slowed down by being read late, so that the parent waits for acknowledgements and sends less. Not here: which
//! rate holds when (`budget`).

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use sync_core::id::Lane;
use tokio::time::Instant;

/// Bytes that go at once: a packet. At the lowest rate that takes a bit more than a second.
pub const PIECE_BYTES: usize = 1_200;
/// Bulk that has let ordinary entries pass looks again after this.
const PASSED: Duration = Duration::from_millis(1);
/// So much of the line that nobody has used may be used later.
const CATCH_UP: Duration = Duration::from_millis(50);

/// One direction of the link.
#[derive(Debug)]
pub struct Pace {
    /// In bytes a second; 0 when all of the line may be used.
    rate: AtomicU64,
    /// When the next piece may go.
    free_at: Mutex<Instant>,
    /// How many pieces of ordinary entries wait.
    ordinary: AtomicUsize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { rate: AtomicU64::new(0), free_at: Mutex::new(Instant::now()), ordinary: AtomicUsize::new(0) }
    }
}

impl Pace {
    /// From now on so many kbit/s; none when all of the line may be used.
    pub fn set(&self, kbits: Option<u32>) {
        self.rate.store(kbits.map_or(0, |kbits| u64::from(kbits) * 125), Ordering::Relaxed);
    }

    /// Whether what is in this lane is slowed down at the moment.
    pub fn holds(&self, lane: Lane) -> bool {
        lane != Lane::Urgent && self.rate.load(Ordering::Relaxed) > 0
    }

    /// Returns when so many bytes of this lane may go.
    pub async fn turn(&self, lane: Lane, bytes: usize) {
        if !self.holds(lane) {
            return;
        }
        let _waits = (lane == Lane::Normal).then(|| Waits::new(&self.ordinary));
        loop {
            let rate = self.rate.load(Ordering::Relaxed);
            if rate == 0 {
                return;
            }
            let passed = lane == Lane::Bulk && self.ordinary.load(Ordering::Relaxed) > 0;
            let (now, until) = {
                let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
                let now = Instant::now();
                if *free_at <= now && !passed {
                    // A timer that was late loses nothing.
                    let from = now.checked_sub(CATCH_UP).map_or(*free_at, |earliest| earliest.max(*free_at));
                    *free_at = from + Duration::from_micros(bytes as u64 * 1_000_000 / rate);
                    return;
                }
                (now, *free_at)
            };
            tokio::time::sleep(until.saturating_duration_since(now).max(PASSED)).await;
        }
    }
}

/// Counted as long as it lives.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    async fn pass(pace: &Pace, lane: Lane, pieces: usize) -> Duration {
        let began = Instant::now();
        for _ in 0..pieces {
            pace.turn(lane, PIECE_BYTES).await;
        }
        began.elapsed()
    }

    #[tokio::test]
    async fn what_is_urgent_never_waits_and_all_else_keeps_to_the_rate() {
        let pace = Pace::default();
        for lane in Lane::ALL {
            assert!(!pace.holds(lane), "{lane:?}");
            pass(&pace, lane, 10_000).await;
        }
        pace.set(Some(1_600));
        assert!(!pace.holds(Lane::Urgent));
        pass(&pace, Lane::Urgent, 10_000).await;
        for lane in [Lane::Normal, Lane::Bulk] {
            // 120 kB at 200 kB a second, less what may be caught up.
            let took = pass(&pace, lane, 101).await.as_secs_f64();
            assert!((0.54..5.0).contains(&took), "{lane:?}: {took}");
        }
    }

    #[tokio::test]
    async fn ordinary_entries_go_before_bulk() {
        let pace = Pace::default();
        pace.set(Some(1_600));
        let ordinary = Waits::new(&pace.ordinary);
        let waits = tokio::time::timeout(Duration::from_millis(100), pass(&pace, Lane::Bulk, 1)).await;
        assert!(waits.is_err(), "as long as one waits");
        pass(&pace, Lane::Normal, 10).await;
        drop(ordinary);
        pass(&pace, Lane::Bulk, 10).await;
    }

    #[tokio::test]
    async fn a_rate_that_is_taken_away_holds_nobody_up() {
        let pace = Arc::new(Pace::default());
        pace.set(Some(8));
        let waits = tokio::spawn({
            let pace = pace.clone();
            async move { pass(&pace, Lane::Bulk, 10_000).await }
        });
        tokio::time::sleep(Duration::from_millis(200)).await;
        pace.set(None);
        assert!(waits.await.unwrap() < Duration::from_secs(60), "it would be hours");
    }
}
