//! How the tree is rearranged: what is asked for, what it would do, what is planned and what was ordered.

use serde::{Deserialize, Serialize};
use sync_core::{
    id::{NodeId, OrgId, OrgPath},
    order::Step,
};

/// What is to become of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rearrangement {
    /// An organization, with all below it, gets another parent.
    Move {
        /// The organization.
        org: OrgId,
        /// Its new parent.
        to: OrgId,
    },
    /// Some organizations get another parent, all from one.
    Split {
        /// Their parent.
        org: OrgId,
        /// Their new parent.
        to: OrgId,
        /// The organizations.
        children: Vec<OrgId>,
    },
    /// Organizations are closed. What stands directly below them, and what belonged to them, is handed on.
    Close {
        /// The organizations.
        orgs: Vec<OrgId>,
        /// To whom; to the parent of each, when nobody is named.
        into: Option<OrgId>,
    },
}

/// A rearrangement from a day on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Arrange {
    /// What.
    pub change: Rearrangement,
    /// Where the new parent listens, `host:port`; needed when anybody gets another one.
    pub address: Option<String>,
    /// From when on, in milliseconds since 1970; at once, when that has passed.
    pub effective: i64,
    /// Only say what it would do.
    pub dry_run: bool,
}

/// A step of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub enum StepLine {
    /// An organization, with all below it, stands elsewhere.
    Move {
        /// Where it has stood.
        from: OrgPath,
        /// Where it stands.
        to: OrgPath,
        /// Where its new parent listens.
        address: String,
    },
    /// An organization is closed.
    Close {
        /// The organization.
        org: OrgId,
        /// To whom what belonged to it belongs.
        successor: OrgId,
    },
}

impl From<&Step> for StepLine {
    fn from(step: &Step) -> Self {
        match step.clone() {
            Step::Move { from, to, address } => StepLine::Move { from, to, address },
            Step::Close { org, successor } => StepLine::Close { org, successor },
        }
    }
}

/// How much of something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Organizations whose records they are.
    pub homes: u64,
    /// Entries that the root holds of them.
    pub entries: u64,
}

/// What changes for one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeChange {
    /// Where it stands so far.
    pub before: OrgPath,
    /// Where it will stand.
    pub after: OrgPath,
    /// Whether it is closed.
    pub closed: bool,
    /// What it is sent that it was not sent before.
    pub gains: Amount,
    /// What it is sent no more.
    pub loses: Amount,
    /// Entries of its own organization that the root holds: whatever it has beyond these it still has to send.
    pub at_root: u64,
    /// Entries that it still has to send, of its own and from below it, as it has said last to the node above it. Null when that
    /// has not reached the root since its daemon was started.
    #[serde(default)]
    pub still_to_send: Option<u64>,
}

/// Answer to [`Request::Arrange`](super::Request::Arrange).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Arranged {
    /// The steps, one after another.
    pub steps: Vec<StepLine>,
    /// The nodes for which something changes.
    pub nodes: Vec<NodeChange>,
    /// From when on, in milliseconds since 1970.
    pub effective: i64,
    /// The number of the order, when it was given.
    pub order: Option<u64>,
    /// The number of the plan, when it waits for its day.
    pub plan: Option<u64>,
}

/// An organization of the tree.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OrgLine {
    /// The organization.
    pub org: OrgId,
    /// Where it stands.
    pub place: OrgPath,
    /// To whom what belonged to it belongs, when it is closed.
    pub successor: Option<OrgId>,
    /// Entries that this node holds of it.
    pub entries: u64,
}

/// An order that was given.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OrderLine {
    /// Its number.
    pub number: u64,
    /// When it was given, by the root's clock, in milliseconds since 1970.
    pub at: i64,
    /// What it does.
    pub steps: Vec<StepLine>,
}

/// A rearrangement that waits for its day.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Its number.
    pub plan: u64,
    /// What.
    pub change: Rearrangement,
    /// Where the new parent listens.
    pub address: Option<String>,
    /// From when on, in milliseconds since 1970.
    pub effective: i64,
    /// The number of the order that it becomes, once its day has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<u64>,
    /// Why it was not ordered when its day had come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Answer to [`Request::Purged`](super::Request::Purged).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Purged {
    /// Oldest first.
    pub receipts: Vec<Receipt>,
}

/// A node has forgotten what an order has put elsewhere, or what a grant has opened that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// When, by its clock, in milliseconds since 1970.
    pub at: i64,
    /// Where it stood.
    pub place: OrgPath,
    /// The node.
    pub node: NodeId,
    /// The last order before it began; 0 when grants have ended.
    pub order: u64,
    /// How much, by whose it was.
    pub forgotten: Vec<ForgottenLine>,
}

/// How much of an organization's has been forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgottenLine {
    /// The organization.
    pub org: OrgId,
    /// Records.
    pub records: u64,
    /// Their entries.
    pub entries: u64,
}

/// What a node still holds that an order has put elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// The last order before it began.
    pub order: u64,
    /// Rows of the feed that have been looked at.
    pub done: u64,
    /// Rows that are to be looked at.
    pub of: u64,
}

/// Answer to [`Request::Tree`](super::Request::Tree) and [`Request::CancelPlan`](super::Request::CancelPlan).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tree {
    /// By place.
    pub orgs: Vec<OrgLine>,
    /// What was ordered, oldest first.
    pub orders: Vec<OrderLine>,
    /// What is planned, by its day. Only the root has plans.
    pub plans: Vec<Plan>,
}
