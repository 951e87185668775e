//! Time as the engine sees it: two readings that the host brings with every event.
//!
//! `mono` never goes back and drives every timeout; `wall` is what the machine's clock claims and may be wrong
//! by decades. Nothing in this crate reads a clock, and no decision about whether to keep data looks at `wall`.

/// Milliseconds, the unit of every duration in this crate.
pub type Millis = u64;

/// One reading of both clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// Milliseconds since an arbitrary start; never goes back within one process.
    pub mono: Millis,
    /// Milliseconds since 1970-01-01T00:00Z by the machine's clock; may be anything.
    pub wall: i64,
}

/// When a change says that it was made, in milliseconds since 1970-01-01T00:00Z.
///
/// A hybrid logical clock: later than the stamp of every change that it depends on, whatever the machine's
/// clock says, so that an edit never looks older than what it replaced.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Stamp(pub i64);

impl Stamp {
    /// The stamp of a change made at `wall` that depends on changes up to `latest`.
    pub fn after(wall: i64, latest: Option<Stamp>) -> Self {
        Self(latest.map_or(wall, |s| wall.max(s.0.saturating_add(1))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_later_than_what_it_depends_on() {
        for (wall, latest, stamp) in [
            (5, None, 5),
            (-5, None, -5),
            (5, Some(3), 5),
            (5, Some(5), 6),
            (5, Some(9), 10),
            (0, Some(i64::MAX), i64::MAX),
        ] {
            assert_eq!(Stamp::after(wall, latest.map(Stamp)), Stamp(stamp));
        }
    }
}
