//! The link to the parent: dialled at once, again after each end, later and later while nobody answers.

use std::{sync::Arc, time::Duration};

use sync_core::{engine::LinkId, id::OrgPath, identity::Role, session::Direction};
use tokio::sync::{Notify, mpsc, watch};

use super::{Message, Numbers, links};
use crate::{
    admin::FailureKind,
    transport::{LinkError, LinkSettings, Transport},
};

/// The first wait after a link that ended or was not answered.
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
/// The longest wait. A clinic whose line comes back is synced within so much, or at once by `tuyen sync now`.
const BACKOFF_MOST: Duration = Duration::from_secs(60);
/// A link that stood so long begins the waits anew.
const GOOD_LINK: Duration = Duration::from_secs(10);

/// What the uplink is told.
pub struct Control {
    /// Whether syncing is paused.
    pub paused: watch::Receiver<bool>,
    /// Dial now.
    pub now: Arc<Notify>,
}

/// Keeps the link to the parent, for as long as the process runs.
pub async fn keep(
    transport: Arc<Transport>,
    own: OrgPath,
    address: String,
    settings: LinkSettings,
    mut control: Control,
    core: mpsc::Sender<Message>,
    numbers: Arc<Numbers>,
) {
    let mut wait = BACKOFF_FIRST;
    loop {
        while *control.paused.borrow_and_update() {
            if control.paused.changed().await.is_err() {
                return;
            }
        }
        let began = tokio::time::Instant::now();
        match dial(&transport, &own, &address, &settings).await {
            Ok(link) => {
                let (connection, peer, chain) = link;
                let id = numbers.next_link();
                let (outbox, queues) = links::outbox();
                let address = connection.clone();
                let direction = Direction::Up;
                let message = Message::Connected { id, peer, chain, direction, outbox, connection: address };
                if core.send(message).await.is_err() {
                    return;
                }
                run(connection, id, queues, &mut control, &core, &numbers).await;
                if began.elapsed() > GOOD_LINK {
                    wait = BACKOFF_FIRST;
                }
            }
            Err(error) => {
                let kind = match error {
                    LinkError::Refused { .. } | LinkError::RefusedByPeer { .. } => FailureKind::Refused,
                    _ => FailureKind::Failed,
                };
                if core.send(Message::NoParent(kind, error.to_string())).await.is_err() {
                    return;
                }
            }
        }
        let pause = jitter(wait);
        wait = (wait * 2).min(BACKOFF_MOST);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = control.now.notified() => wait = BACKOFF_FIRST,
        }
    }
}

async fn run(
    connection: quinn::Connection,
    id: LinkId,
    queues: links::Queues,
    control: &mut Control,
    core: &mpsc::Sender<Message>,
    numbers: &Arc<Numbers>,
) {
    let drive =
        links::drive(connection.clone(), Direction::Up, id, queues, core.clone(), numbers.traffic.clone());
    tokio::pin!(drive);
    loop {
        tokio::select! {
            () = &mut drive => return,
            () = paused(&mut control.paused) => {
                connection.close(quinn::VarInt::from_u32(crate::transport::DONE), b"paused");
                return drive.await;
            }
            () = control.now.notified() => links::probe(&connection).await,
        }
    }
}

/// Returns when syncing is paused; never, when the daemon is about to end.
async fn paused(state: &mut watch::Receiver<bool>) {
    while !*state.borrow_and_update() {
        if state.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

type Dialled = (quinn::Connection, sync_core::identity::NodeInfo, Vec<Vec<u8>>);

async fn dial(
    transport: &Transport,
    own: &OrgPath,
    address: &str,
    settings: &LinkSettings,
) -> Result<Dialled, LinkError> {
    let unknown = |why: String| LinkError::Dial { address: address.to_owned(), why };
    let mut candidates =
        tokio::net::lookup_host(address).await.map_err(|error| unknown(error.to_string()))?;
    let candidate = candidates.next().ok_or_else(|| unknown("the name has no address".to_owned()))?;
    let link = transport.connect(candidate, None, settings).await?;
    let (connection, peer) = (link.connection().clone(), link.peer().clone());
    if own.parent().as_ref() != Some(&peer.place) || peer.role == Role::Leaf {
        let refusal = sync_core::identity::Refusal::OutsideSubtree {
            place: own.to_string(),
            issuer: peer.place.to_string(),
        };
        crate::transport::refuse(&connection, &refusal);
        return Err(LinkError::Refused { address: candidate, refusal });
    }
    Ok((connection, peer, link.chain()))
}

/// Between half of the wait and one and a half, so that a crowd does not come back in step.
fn jitter(wait: Duration) -> Duration {
    let mut byte = [128];
    // Without randomness the wait is what it is.
    let _ = getrandom::fill(&mut byte);
    wait / 2 + wait.mul_f64(f64::from(byte[0]) / 255.0)
}
