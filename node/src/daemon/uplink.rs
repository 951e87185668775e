//! The link to the parent: dialled at once, again after each end, later and later while nobody answers.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use sync_core::session::Direction;
use tokio::sync::{Notify, mpsc, watch};

use super::{Message, Numbers, Stand, links, renewal::Renewal};
use crate::{
    admin::FailureKind,
    transport::{Link, LinkError, LinkSettings, Transport},
};

/// The first wait after a link that ended or was not answered.
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
/// The longest wait. A clinic whose line comes back is synced within so much, or at once by `tuyen sync now`.
const BACKOFF_MOST: Duration = Duration::from_secs(60);
/// The same on a metered line, while nothing urgent waits: a dial that nobody answers sends 11 packets of 1,200 bytes.
const BACKOFF_MOST_METERED: Duration = Duration::from_secs(300);
/// A link that stood so long begins the waits anew.
const GOOD_LINK: Duration = Duration::from_secs(10);
/// A dial that had no answer for so long is begun anew when somebody asks: QUIC repeats its first packet later and
/// later, up to half a minute apart.
const STALE_DIAL: Duration = Duration::from_secs(5);

/// Of so many dials that nobody answers one goes to the parent of before an order. A dead address costs a minute.
const DIALS_A_TURN: u32 = 2;

/// What the uplink is told.
pub struct Control {
    /// Whether syncing is paused.
    pub paused: watch::Receiver<bool>,
    /// Dial now.
    pub now: Arc<Notify>,
}

/// Keeps the link to the parent, for as long as the process runs.
pub async fn keep(
    settings: LinkSettings,
    mut control: Control,
    renewal: Renewal,
    core: mpsc::Sender<Message>,
    numbers: Arc<Numbers>,
) {
    let mut wait = BACKOFF_FIRST;
    // Dials since the last answer.
    let mut unanswered: u32 = 0;
    loop {
        while *control.paused.borrow_and_update() {
            if control.paused.changed().await.is_err() {
                return;
            }
        }
        let began = tokio::time::Instant::now();
        let dialled = tokio::select! {
            dialled = dial(&renewal.transport, &settings, &numbers, unanswered) => dialled,
            () = paused(&mut control.paused) => continue,
            () = asked_again(&control.now) => {
                wait = BACKOFF_FIRST;
                unanswered = unanswered.saturating_add(1);
                continue;
            }
        };
        match dialled {
            Ok(link) => {
                unanswered = 0;
                let id = numbers.next_link();
                let (message, queues) = links::connected(&link, id, Direction::Up);
                if core.send(message).await.is_err() {
                    return;
                }
                let connection = link.connection().clone();
                let beside = renewal.with_parent(&link);
                let drive = links::drive(
                    connection,
                    Direction::Up,
                    id,
                    queues,
                    core.clone(),
                    numbers.clone(),
                    beside,
                );
                let was_asked = run(link.connection(), drive, &mut control).await;
                // Who asks while a parent that was killed still seems to be there is not to wait longer than others.
                if began.elapsed() > GOOD_LINK || was_asked {
                    wait = BACKOFF_FIRST;
                }
            }
            Err(error) => {
                let kind = match error {
                    LinkError::Refused { .. } | LinkError::RefusedByPeer { .. } => FailureKind::Refused,
                    _ => FailureKind::Failed,
                };
                unanswered = if kind == FailureKind::Failed { unanswered.saturating_add(1) } else { 0 };
                if core.send(Message::NoParent(kind, error.to_string())).await.is_err() {
                    return;
                }
            }
        }
        let pause = jitter(wait);
        wait = (wait * 2).min(longest(&numbers));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = control.now.notified() => wait = BACKOFF_FIRST,
        }
    }
}

/// Until the link ends; whether somebody had asked for it just before that.
async fn run(connection: &quinn::Connection, drive: impl Future<Output = ()>, control: &mut Control) -> bool {
    tokio::pin!(drive);
    let mut asked: Option<tokio::time::Instant> = None;
    loop {
        tokio::select! {
            () = &mut drive => return asked.is_some_and(|at| at.elapsed() < GOOD_LINK),
            () = paused(&mut control.paused) => {
                connection.close(quinn::VarInt::from_u32(crate::transport::DONE), b"paused");
                drive.await;
                return false;
            }
            () = control.now.notified() => {
                asked = Some(tokio::time::Instant::now());
                links::probe(connection).await;
            }
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

/// Returns when somebody asks for a link while a dial has gone stale.
async fn asked_again(now: &Notify) {
    tokio::time::sleep(STALE_DIAL).await;
    now.notified().await;
}

/// Whoever answers there is the engine's to judge: one of the two may not have heard yet that it was moved.
async fn dial(
    transport: &Transport,
    settings: &LinkSettings,
    numbers: &Numbers,
    unanswered: u32,
) -> Result<Link, LinkError> {
    let (address, as_before) = {
        let stand = numbers.stand.borrow();
        let address = whom(&stand, unanswered);
        (address.clone().unwrap_or_default(), *address != stand.parent)
    };
    numbers.dialled_as_before.store(as_before, Ordering::Relaxed);
    let settings = &match numbers.metered.load(Ordering::Relaxed) {
        true => settings.for_metered(),
        false => settings.clone(),
    };
    let unknown = |why: String| LinkError::Dial { address: address.clone(), why };
    let found = tokio::net::lookup_host(&address).await.map_err(|error| unknown(error.to_string()))?;
    let mut reached = Err(unknown("the name has no address".to_owned()));
    for candidate in found {
        reached = transport.connect(candidate, None, settings).await;
        // The next address may be of the kind that this machine can use; another answer is an answer.
        if !matches!(reached, Err(LinkError::Dial { .. } | LinkError::Silent { .. } | LinkError::Lost { .. }))
        {
            break;
        }
    }
    reached
}

/// The address to dial after so many dials that nobody answered. Now and then that is the one before an order: should the order
/// have named a wrong one, nobody else can say so.
fn whom(stand: &Stand, unanswered: u32) -> &Option<String> {
    let is_turn = unanswered > 0 && unanswered.is_multiple_of(DIALS_A_TURN);
    if is_turn && stand.before.is_some() { &stand.before } else { &stand.parent }
}

/// The longest wait between two dials.
fn longest(numbers: &Numbers) -> Duration {
    let metered = numbers.metered.load(Ordering::Relaxed);
    if metered && !numbers.urgent_waits.load(Ordering::Relaxed) { BACKOFF_MOST_METERED } else { BACKOFF_MOST }
}

/// Between half of the wait and one and a half, so that a crowd does not come back in step.
fn jitter(wait: Duration) -> Duration {
    let mut byte = [128];
    // Without randomness the wait is what it is.
    let _ = getrandom::fill(&mut byte);
    wait / 2 + wait.mul_f64(f64::from(byte[0]) / 255.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_of_before_an_order_is_dialled_now_and_then() {
        let (parent, before) = (Some("new:1".to_owned()), Some("old:1".to_owned()));
        let mut stand = Stand { place: "tw/hg".parse().unwrap(), parent, before };
        let dialled = |stand: &Stand| (0..9).map(|n| whom(stand, n).clone().unwrap()).collect::<Vec<_>>();
        let old: Vec<_> =
            dialled(&stand).iter().enumerate().filter(|(_, to)| *to == "old:1").map(|(n, _)| n).collect();
        assert_eq!(old, [2, 4, 6, 8]);
        stand.before = None;
        assert!(dialled(&stand).iter().all(|to| to == "new:1"));
    }

    #[test]
    fn a_metered_line_is_dialled_seldom_unless_something_urgent_waits() {
        let stand = Stand { place: "tw/hg".parse().unwrap(), parent: None, before: None };
        let numbers = Numbers::new(false, stand);
        assert_eq!(longest(&numbers), BACKOFF_MOST);
        numbers.metered.store(true, Ordering::Relaxed);
        assert_eq!(longest(&numbers), BACKOFF_MOST_METERED);
        numbers.urgent_waits.store(true, Ordering::Relaxed);
        assert_eq!(longest(&numbers), BACKOFF_MOST);
    }
}
