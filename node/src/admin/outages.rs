//! What is said of the outage log. Every time is one of this machine's clock as it was: where the clock was set back,
//! an end may lie before its beginning.

use serde::{Deserialize, Serialize};
use sync_core::id::{NodeId, OrgId, OrgPath};

/// Answer to [`Request::Outages`](super::Request::Outages).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outages {
    /// The node that answers.
    pub node: NodeId,
    /// Its organization.
    pub org: OrgId,
    /// Its place.
    pub place: OrgPath,
    /// Its software.
    pub software: String,
    /// The period that is covered begins here: what was asked for, or where the log begins. None when nothing is logged.
    pub from: Option<i64>,
    /// The present time.
    pub to: i64,
    /// Before this time the log is not whole, because older events have gone.
    pub gone: Option<i64>,
    /// How many events the log holds at most.
    pub most: u32,
    /// When the daemon ran.
    pub runs: Vec<Stretch>,
    /// When the clock was set, or the machine slept: between the two nothing is known, and nothing is counted.
    pub clock: Vec<ClockStep>,
    /// The parent first, and who was the parent before; then those below, also who has left.
    pub neighbours: Vec<Neighbour>,
}

/// A neighbour, now or before, and when it was connected.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Neighbour {
    /// Its place; of one that has left, where it stood.
    pub place: OrgPath,
    /// `up` or `down`.
    pub direction: String,
    /// Since when the log knows of it, within the period; none when it has never been connected.
    pub from: Option<i64>,
    /// Until when it was a neighbour; none when it is one.
    pub until: Option<i64>,
    /// How long it was connected.
    pub connected_millis: i64,
    /// How long it was not.
    pub out_millis: i64,
    /// When it was connected.
    pub connected: Vec<Stretch>,
    /// When it was not.
    pub outages: Vec<Outage>,
}

/// A time during which something held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// Since when.
    pub from: i64,
    /// Until when; none when it still holds.
    pub to: Option<i64>,
    /// How it ended. A link: `lost`, `closed` by the neighbour, `ended` by this node, `refused`, `paused`, `stopped`
    /// with the daemon, `unknown` because the daemon ended without a word, `clock` because the clock was set, `left` because it
    /// is no neighbour any more. A run of the daemon: `stopped`, `unknown` or `clock`.
    pub ended: Option<String>,
}

/// A time during which a neighbour was not connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    /// Since when.
    pub from: i64,
    /// Until when; none when it lasts.
    pub to: Option<i64>,
    /// `line`: it could not be reached, because of the line or because it was down; `closed`: it ended the link in
    /// order; `off`: this node did not run; `paused`: syncing was paused here; `refused`: one of the two refused.
    pub why: String,
}

/// The clock was set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockStep {
    /// From this time.
    pub from: i64,
    /// To this one.
    pub to: i64,
}
