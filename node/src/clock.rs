//! The machine's clocks as the engine is told them. The one that certificates are held against is
//! `ca::trust::TrustedClock`.

use std::{
    sync::LazyLock,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use sync_core::time::Now;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The machine's clock, in milliseconds since 1970. It may be wrong.
pub fn wall() -> i64 {
    let millis = |d: std::time::Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => millis(since),
        Err(before) => -millis(before.duration()),
    }
}

/// Both clocks.
pub fn now() -> Now {
    let mono = u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX);
    Now { mono, wall: wall() }
}
