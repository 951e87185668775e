//! The door: how many strangers may stand in it.
//!
//! What always holds: whoever has not shown a certificate of the tree, because his handshake is under way or because he
//! enrols, holds one of [`HANDSHAKES_MAX`] places. When some are taken, a newcomer first shows that he is at the
//! address from which he writes; when all are, he is turned away. Neither keeps anything here. Not here: who may come
//! in, and when one who was turned away comes again.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::settings::{HANDSHAKES_MAX, HANDSHAKES_UNPROVEN};

/// The places that are free.
#[derive(Debug)]
pub(super) struct Door(Arc<Semaphore>);

/// A place in the door.
pub(super) type Place = OwnedSemaphorePermit;

/// Somebody who may begin.
#[derive(Debug)]
pub struct Knock {
    pub(super) incoming: quinn::Incoming,
    pub(super) place: Place,
}

impl Default for Door {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(HANDSHAKES_MAX)))
    }
}

impl Door {
    /// Lets somebody begin, or answers that he has to come again.
    pub(super) fn open(&self, incoming: quinn::Incoming) -> Option<Knock> {
        let taken = HANDSHAKES_MAX - self.0.available_permits();
        match self.0.clone().try_acquire_owned() {
            Err(_) => {
                tracing::debug!(address = %incoming.remote_address(), "turned away: too many at once");
                incoming.refuse();
                None
            }
            Ok(_) if taken >= HANDSHAKES_UNPROVEN && !incoming.remote_address_validated() => {
                // Whose address is not proved may be asked to prove it: quinn promises that.
                let _ = incoming.retry();
                None
            }
            Ok(place) => Some(Knock { incoming, place }),
        }
    }

    #[cfg(test)]
    pub(super) fn is_full(&self) -> bool {
        self.0.available_permits() == 0
    }

    /// Takes so many places, as strangers would, when they are free.
    #[cfg(test)]
    pub(super) async fn take(&self, places: usize) -> Place {
        let taking = self.0.clone().acquire_many_owned(u32::try_from(places).unwrap());
        tokio::time::timeout(std::time::Duration::from_secs(20), taking).await.unwrap().unwrap()
    }
}
