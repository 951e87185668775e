//! Certificates of the tree: who issues them, whom to trust, and how a node gets one.
//!
//! The root holds a CA, each hub an intermediate one, and every node a certificate that names its place. What
//! always holds: a chain is followed to our own root, and each certificate in it stands exactly one step below
//! its issuer, so no hub can speak for a place outside its subtree; time is handed in, never read here. Not
//! here: sockets (`transport`), files (`keys`), and the memory of which tokens were used (the store).
//!
//! * [`certificate`]: what a certificate says, and issuing one
//! * [`own`]: this node's identity as the engine sees it
//! * [`trust`]: following a chain, announcements, revocations, and the clock that is trusted
//! * [`token`]: the one-time invitation that a person carries
//! * [`renew`]: the next certificates of a node that has some
//! * [`enrol`]: the request and the answer that turn a token into certificates, over a link or as files
//! * [`file`](mod@file): requests and answers as files

pub mod certificate;
pub mod enrol;
pub mod file;
pub mod own;
pub mod renew;
#[cfg(test)]
pub(crate) mod tests;
pub mod token;
pub mod trust;

pub use certificate::{Ca, CaError, Facts, Grant, Issued, Order, found};
pub use enrol::{EnrolRefusal, Invite, InviteStore, Redeemed, Request, Response};
pub use own::Own;
pub use token::{SecretHash, Token, TokenError, TokenName};
pub use trust::{TrustStore, TrustedClock};

/// A day in milliseconds.
const DAY: i64 = 86_400_000;

/// How long a node's certificate lasts. Three years: a clinic may be cut off for months, and a third of this
/// life is left for the renewal that begins after the first third to meet a working link.
pub const NODE_LIFETIME_MS: i64 = 3 * 365 * DAY;
/// How long a CA's certificate lasts. Twenty years: replacing a root means visiting every machine.
pub const CA_LIFETIME_MS: i64 = 20 * 365 * DAY;
/// Renewal begins after this part of a certificate's life.
pub const RENEW_AFTER_PART: i64 = 3;
/// A node that has not been renewed in two of so many parts of its certificate's life tells a person.
pub const OVERDUE_AFTER_PARTS: (i64, i64) = (2, 3);
/// A certificate begins to be valid this long before it is issued, for readers whose clock is a little behind.
pub const BACKDATE_MS: i64 = 3_600_000;
/// How many CAs may stand one below the other, the root's included: the path builder follows six below a root.
pub const CA_MAX_DEPTH: usize = 7;
