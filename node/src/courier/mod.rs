//! Courier bundles as files: sealed to the node that they are for, signed by the node that has made them.
//!
//! What always holds: nothing in a file can be read without the recipient's key, but that it is a bundle, its version and
//! about how long it is; a file is read to its end, with every frame understood, the sender's certificates followed to the
//! root and the signature checked, before anything of it is taken. Nothing grows with the file: one frame is in memory.
//! Not here: what is in a bundle and what is taken of one (`sync_core::engine`), and files on the way (`daemon`).

mod card;
mod content;
mod seal;

use std::io;

use sync_core::identity::Refusal;

pub use self::{
    card::{CARD, CARD_MAX_BYTES, CardError, read_card, write_card},
    content::{Reading, Summary, Writing, check, open},
    seal::{MAGIC, VERSION, sealed_bytes},
};
use crate::admin::{Failure, FailureKind};

/// Why a bundle is not taken, or not made.
#[derive(Debug, thiserror::Error)]
pub enum CourierError {
    /// Another kind of file.
    #[error("this is no bundle of Tuyến; look for the right file on the stick. Nothing was taken")]
    NotABundle,
    /// A format to come.
    #[error(
        "this bundle is of format {0}, and this program reads format {VERSION}; update this node, or export it again with \
         the older version. Nothing was taken"
    )]
    Newer(u8),
    /// Sealed to somebody else.
    #[error(
        "this bundle is not for this node, or its beginning was altered: it does not open with the key of this node. Take it to \
         the node that was named with --for when it was exported; if that is this one, export it again onto another stick. Nothing \
         was taken"
    )]
    NotForThis,
    /// It ends early, or late.
    #[error(
        "this bundle is cut off, or something was added behind its end: the copy to the stick was not finished, or the stick is \
         damaged. Copy it again from where it was exported, or export it again. Nothing was taken"
    )]
    CutOff,
    /// It is not as it was made.
    #[error(
        "this bundle is not as it was made ({0}): the stick is damaged, or somebody has changed it. Export it again onto \
         another stick. Nothing was taken"
    )]
    Altered(String),
    /// Whoever made it is not to be trusted.
    #[error("the sender of this bundle is not accepted: {0}. Nothing was taken")]
    Sender(#[from] Refusal),
    /// It is too small for anything.
    #[error("nothing fits into {most} bytes: at least {needs} are needed; give a larger --max-bytes")]
    TooSmall {
        /// What was allowed.
        most: u64,
        /// What the least would be.
        needs: u64,
    },
    /// The file cannot be read or written.
    #[error("the bundle cannot be read or written ({0}); check the stick and the disk, and try again")]
    Io(#[from] io::Error),
}

impl From<CourierError> for Failure {
    fn from(error: CourierError) -> Self {
        let kind = match error {
            CourierError::NotForThis | CourierError::Sender(_) => FailureKind::Refused,
            CourierError::CutOff | CourierError::Altered(_) => FailureKind::Integrity,
            CourierError::TooSmall { .. } => FailureKind::Usage,
            _ => FailureKind::Failed,
        };
        Failure::new(kind, error.to_string())
    }
}

impl From<CardError> for Failure {
    fn from(error: CardError) -> Self {
        let kind = match error {
            CardError::Foreign => FailureKind::Failed,
            CardError::Altered => FailureKind::Integrity,
        };
        Failure::new(kind, error.to_string())
    }
}
