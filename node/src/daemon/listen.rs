//! Children: whoever knocks with a certificate of the tree is let in to the engine, which knows who is a neighbour; whoever
//! has a token is enrolled; others are told why not.

use std::sync::{Arc, Mutex, PoisonError};

use sync_core::{scope::Places, session::Direction};
use tokio::sync::{mpsc, oneshot};

use super::{Message, Numbers, links, renewal};
use crate::{
    ca::{EnrolRefusal, Invite, InviteStore, Redeemed, SecretHash, TokenName, TrustedClock, enrol::Decide},
    transport::{self, Arrival, EnrolLinkError, Link, LinkError, Transport},
};

/// Answers everybody who knocks, for as long as the process runs.
pub async fn serve(
    transport: Arc<Transport>,
    core: mpsc::Sender<Message>,
    numbers: Arc<Numbers>,
    invites: Arc<CoreInvites>,
) {
    while let Some(incoming) = transport.accept().await {
        let (transport, core) = (transport.clone(), core.clone());
        let (numbers, invites) = (numbers.clone(), invites.clone());
        tokio::spawn(async move {
            match transport.finish(incoming).await {
                Ok(Arrival::Node(link)) => admit(&link, transport.trust().clock(), core, &numbers).await,
                Ok(Arrival::Enrolling(enrolling)) => {
                    let address = enrolling.address();
                    match enrolling.serve(invites, transport.trust().clock().now()).await {
                        Ok(issued) => tracing::info!(place = %issued.place, node = %issued.node, "enrolled"),
                        Err(error @ EnrolLinkError::Refused(_)) => {
                            let _ = core.send(Message::Stranger(format!("{}: {error}", address.ip()))).await;
                        }
                        Err(error) => tracing::warn!(%address, %error, "no enrolment"),
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "no link");
                    // Without the port, which is another one each time.
                    let stranger = match &error {
                        LinkError::Refused { address, refusal } => {
                            format!("refused {}: {refusal}", address.ip())
                        }
                        LinkError::RefusedByPeer { address, text, .. } => {
                            format!("{} refused this node: {text}", address.ip())
                        }
                        _ => return,
                    };
                    let _ = core.send(Message::Stranger(stranger)).await;
                }
            }
        });
    }
}

async fn admit(link: &Link, clock: &TrustedClock, core: mpsc::Sender<Message>, numbers: &Arc<Numbers>) {
    let connection = link.connection().clone();
    if numbers.paused() {
        connection.close(quinn::VarInt::from_u32(transport::DONE), b"syncing is paused at this node");
        return;
    }
    let id = numbers.next_link();
    let (message, queues) = links::connected(link, id, Direction::Down);
    if core.send(message).await.is_ok() {
        let beside = renewal::with_child(link, clock, &core);
        links::drive(connection, Direction::Down, id, queues, core.clone(), numbers.clone(), beside).await;
    }
}

/// An invitation, and the tree as it stands.
pub struct Found {
    pub secret: SecretHash,
    pub invite: Invite,
    pub places: Places,
}

/// Invitations are kept by the core, with the records; here one at a time is redeemed.
pub struct CoreInvites {
    core: mpsc::Sender<Message>,
    transport: Arc<Transport>,
    numbers: Arc<Numbers>,
    one_at_a_time: Mutex<()>,
}

impl CoreInvites {
    pub fn new(core: mpsc::Sender<Message>, transport: Arc<Transport>, numbers: Arc<Numbers>) -> Arc<Self> {
        Arc::new(Self { core, transport, numbers, one_at_a_time: Mutex::new(()) })
    }

    fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Result<T, EnrolRefusal> {
        let stops = || EnrolRefusal::Parent("the parent is stopping; try again in a minute".to_owned());
        let (answer, answered) = oneshot::channel();
        self.core.blocking_send(message(answer)).map_err(|_| stops())?;
        answered.blocking_recv().map_err(|_| stops())
    }
}

impl InviteStore for CoreInvites {
    fn redeem(&self, token: &TokenName, decide: &mut Decide<'_>) -> Result<Redeemed, EnrolRefusal> {
        if let Some(refusal) = self.numbers.revoked() {
            return Err(EnrolRefusal::Parent(refusal.to_string()));
        }
        let _guard = self.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        let found = self.ask(|answer| Message::FindInvite(*token, answer))?;
        let Found { secret, invite, places } = found.ok_or(EnrolRefusal::Unknown)?;
        let grant = decide(&secret, &invite, &places)?;
        let may = self.transport.trust().may_have(&grant.issued);
        may.map_err(|refusal| EnrolRefusal::Parent(refusal.to_string()))?;
        self.ask(|answer| Message::Redeem(secret, Box::new(grant.clone()), answer))?;
        let may_have_moved = places.was_moved_to(&grant.issued.place);
        let orders = if may_have_moved { places.orders().to_vec() } else { Vec::new() };
        Ok(Redeemed { grant, orders })
    }
}
