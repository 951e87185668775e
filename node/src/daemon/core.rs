//! The core: the one thread that drives the engine, commits to the store, folds when nothing else waits, and
//! answers requests.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use quinn::Connection;
use serde::Serialize;
use sync_core::{
    engine::{Alert, Effect, Engine, Event, LinkId, Ticket, refusal},
    feed::Seq,
    fold,
    id::{Lane, NodeId, OrgId, RecordId},
    identity::{Date, NodeInfo, Refusal},
    session::Direction,
    store::{Frontier, Op, Purge, StoreError},
    wire::Frame,
};
use tokio::{runtime::Handle, sync::mpsc};

use super::{
    Message, Numbers, SOFTWARE,
    alerts::{About, Alerts},
    attachments::Fetcher,
    book::Book,
    budget::Budgets,
    courier::Courier,
    failed,
    grants::Compartments,
    links::Outbox,
    listen::Found,
    orders::Plans,
    outages::{News, Outages},
    to_come::ToCome,
    verify::{self, Verify},
    wall,
};
use crate::{
    admin::{AlertLine, Answer, Failure, FailureKind, Progress, Request},
    ca::Own,
    clock,
    config::Config,
    store::{CHECKPOINT_PAGES, Reader, SqliteStore},
    transport,
};

/// Rows folded in one step: some milliseconds, so that nobody waits long behind it.
const FOLD_ROWS: usize = 200;
/// While messages keep coming, a fold step is done all the same this often.
const FOLD_AT_LEAST: Duration = Duration::from_millis(500);
/// While batches come faster than this, nothing is folded in the moments between them: who waits for an
/// acknowledgement would wait for the fold as well. On a thin line batches come slower, and folding fits between.
const FOLD_AFTER_QUIET: Duration = Duration::from_millis(20);
/// While batches come, the write-ahead log may grow to this many pages (131 MB) before it is copied.
const BUSY_LOG_PAGES: u64 = 4 * CHECKPOINT_PAGES;
/// Messages handled before effects are let out: so many batches become one commit.
const MESSAGES_AT_ONCE: usize = 32;
/// While something is to be acknowledged, a parent that says nothing for so long is asked whether it is still there.
/// To ask costs one packet, and a good parent on a slow line loses nothing by it.
const ANSWER_AWAITED: Duration = Duration::from_secs(6);
/// How long the core sleeps at most when nothing happens.
const IDLE: Duration = Duration::from_secs(5);
/// How often a waiting `tuyen sync now` hears how far things are.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// Counting what is left may take this part of the time at most.
const PROGRESS_COST: u32 = 50;

/// A link as the core sees it.
pub(super) struct Peer {
    pub info: NodeInfo,
    pub direction: Direction,
    pub outbox: Outbox,
    pub connection: Connection,
    /// Whether it has said HELLO.
    pub greeted: bool,
}

/// Somebody who waits until everything written before is durable at the parent.
struct Waiter {
    upto: [Seq; 3],
    answers: mpsc::UnboundedSender<Answer>,
    tell_at: Instant,
}

pub(super) struct Core {
    pub dir: PathBuf,
    pub config: Config,
    pub engine: Engine<Own>,
    pub store: SqliteStore,
    pub reader: Reader,
    pub book: Book,
    pub numbers: Arc<Numbers>,
    pub peers: BTreeMap<LinkId, Peer>,
    pub last_contact: BTreeMap<OrgId, i64>,
    /// How much neighbours have said to be still to come from them; of those who are away what they had said last.
    pub to_come: ToCome,
    pub alerts: Alerts,
    /// Why there is no link to the parent.
    pub no_parent: Option<(FailureKind, String)>,
    pub verify: Verify,
    pub outages: Outages,
    pub budgets: Budgets,
    pub plans: Plans,
    pub courier: Courier,
    pub compartments: Compartments,
    /// What was forgotten and has no receipt yet.
    pub forgotten: Vec<Purge>,
    pub fetchers: Vec<Fetcher>,
    waiters: Vec<Waiter>,
    tickets: u64,
    /// Records that have to be folded from all their entries: one has come back to its row, or what was shown was not theirs.
    pub refold: BTreeSet<RecordId>,
    folded_at: Instant,
    /// When the last batch came.
    batch_at: Option<Instant>,
    /// When the parent last said something, or was asked whether it is there.
    parent_at: Instant,
    /// Who has answered when the parent was last dialled.
    dialled: Option<NodeId>,
}

impl Core {
    pub fn new(
        dir: PathBuf,
        config: Config,
        identity: Own,
        mut store: SqliteStore,
        reader: Reader,
        numbers: Arc<Numbers>,
        messages: mpsc::Sender<Message>,
    ) -> Result<Self, Failure> {
        let outages = Outages::begin(&mut store, &dir, config.paused);
        let integrity = |error: StoreError| failed(kind_of_failure(&store), error);
        let outages = outages.map_err(integrity)?;
        let engine = Engine::new(identity, SOFTWARE, &store).map_err(integrity)?;
        let mut book = Book::load(&store).map_err(integrity)?;
        book.ended(wall()).for_each(|serial| engine.identity().trust().end(serial.clone()));
        let plans = Plans::load(&store).map_err(integrity)?;
        let budgets = Budgets::load(&store).map_err(integrity)?;
        let compartments = Compartments::new(reader.patients_with_grants().map_err(integrity)?);
        let courier = Courier::load(store.setting(Courier::SETTING).map_err(integrity)?);
        let verify = Verify::new(messages, store.setting(Verify::SETTING).map_err(integrity)?);
        Ok(Self {
            dir,
            config,
            engine,
            store,
            reader,
            book,
            numbers,
            peers: BTreeMap::new(),
            last_contact: BTreeMap::new(),
            to_come: ToCome::default(),
            alerts: Alerts::default(),
            no_parent: None,
            verify,
            outages,
            budgets,
            plans,
            courier,
            compartments,
            forgotten: Vec::new(),
            fetchers: Vec::new(),
            waiters: Vec::new(),
            tickets: 0,
            refold: BTreeSet::new(),
            folded_at: Instant::now(),
            batch_at: None,
            parent_at: Instant::now(),
            dialled: None,
        })
    }

    /// Runs until it is told to stop, or the store fails.
    pub fn run(mut self, mut messages: mpsc::Receiver<Message>, runtime: &Handle) -> Result<(), Failure> {
        let outcome = self.work(&mut messages, runtime);
        let outcome = outcome.and_then(|()| self.end_budget()).and_then(|()| self.end_outages());
        if let Err(error) = &outcome {
            tracing::error!(%error, "the store failed, and the process ends");
        }
        outcome.map_err(|error| failed(kind_of_failure(&self.store), error))
    }

    fn work(&mut self, messages: &mut mpsc::Receiver<Message>, runtime: &Handle) -> Result<(), StoreError> {
        self.allow_what_is_decided()?;
        self.keep_to_budget()?;
        let unasked = Event::FetchUnasked(self.config.fetch_attachments_up_to);
        self.engine.handle(unasked, &self.store, clock::now())?;
        self.let_out()?;
        self.wish_on()?;
        self.stand_where_orders_say();
        self.note_neighbours();
        self.tell_if_closed()?;
        self.tell_of_open_look_ups()?;
        // Before anybody gives an order that takes the number of one that a power cut has prevented.
        self.mind_plans()?;
        loop {
            let Some(first) = self.next_message(messages, runtime)? else { continue };
            // None is taken from the queue that is not handled: what is lost here nobody sends again.
            let more = std::iter::from_fn(|| messages.try_recv().ok()).take(MESSAGES_AT_ONCE - 1);
            for message in std::iter::once(first).chain(more) {
                // Whoever waits in the queue hears that the daemon went away: nothing of theirs is acknowledged.
                if matches!(message, Message::Stop) || self.numbers.stopping() {
                    return Ok(());
                }
                self.take(message)?;
            }
            self.let_out()?;
            if self.folded_at.elapsed() > FOLD_AT_LEAST {
                self.fold()?;
            }
            self.answer_waiters()?;
            self.answer_fetchers()?;
            self.verify_daily()?;
            self.write_outages()?;
            self.mind_budget()?;
            self.mind_plans()?;
            self.write_receipts()?;
        }
    }

    /// The next message; folds and tidies while there is none.
    fn next_message(
        &mut self,
        messages: &mut mpsc::Receiver<Message>,
        runtime: &Handle,
    ) -> Result<Option<Message>, StoreError> {
        loop {
            match messages.try_recv() {
                Ok(message) => return Ok(Some(message)),
                Err(mpsc::error::TryRecvError::Disconnected) => return Ok(Some(Message::Stop)),
                Err(mpsc::error::TryRecvError::Empty) => {}
            }
            let awaited = self.next_batch_awaited();
            self.tidy(if awaited.is_some() { BUSY_LOG_PAGES } else { CHECKPOINT_PAGES })?;
            if awaited.is_none() && (self.fold()? || self.mind_grants()?) {
                continue;
            }
            return self.sleep(messages, runtime, awaited.unwrap_or(IDLE));
        }
    }

    /// How long the next batch of a transfer under way is waited for before anything is folded.
    fn next_batch_awaited(&self) -> Option<Duration> {
        let wait = FOLD_AFTER_QUIET.checked_sub(self.batch_at?.elapsed())?;
        (self.folded_at.elapsed() <= FOLD_AT_LEAST).then_some(wait)
    }

    /// Copies the write-ahead log into the database file when so much of it waits.
    fn tidy(&mut self, pages: u64) -> Result<(), StoreError> {
        let log = self.store.log()?;
        if log.pages.saturating_sub(log.done) >= pages {
            self.store.checkpoint()?;
        }
        Ok(())
    }

    fn sleep(
        &mut self,
        messages: &mut mpsc::Receiver<Message>,
        runtime: &Handle,
        most: Duration,
    ) -> Result<Option<Message>, StoreError> {
        let now = clock::now().mono;
        let due = self.engine.poll_timeout().map(|(due, _)| Duration::from_millis(due.saturating_sub(now)));
        let mut wait = due.unwrap_or(IDLE).min(most);
        if !self.waiters.is_empty() || self.has_fetchers() {
            wait = wait.min(PROGRESS_EVERY);
        }
        if let Some(due) = self.parent_owes_an_answer() {
            wait = wait.min(due);
        }
        match runtime.block_on(async { tokio::time::timeout(wait, messages.recv()).await }) {
            Ok(message) => Ok(Some(message.unwrap_or(Message::Stop))),
            Err(_) => {
                self.engine.handle(Event::Timeout, &self.store, clock::now())?;
                self.let_out()?;
                self.answer_waiters()?;
                self.answer_fetchers()?;
                self.verify_daily()?;
                self.write_outages()?;
                self.mind_budget()?;
                self.mind_plans()?;
                self.write_receipts()?;
                Ok(None)
            }
        }
    }

    /// How long to wait for the parent before it is asked whether it is still there; it is asked when the time has
    /// come. A parent that was killed and is back says at once that it knows nothing of the connection.
    fn parent_owes_an_answer(&mut self) -> Option<Duration> {
        let linked = self.peers.values().any(|peer| peer.direction == Direction::Up);
        if !linked || !self.engine.awaits_parent() {
            return None;
        }
        let wait = ANSWER_AWAITED.checked_sub(self.parent_at.elapsed());
        if wait.is_none() {
            self.numbers.dial.notify_one();
            self.parent_at = Instant::now();
        }
        Some(wait.unwrap_or(ANSWER_AWAITED))
    }

    fn take(&mut self, message: Message) -> Result<(), StoreError> {
        let news = self.link_news(&message);
        let is_of_people =
            matches!(message, Message::Frame(_, Frame::Hello(_) | Frame::ToCome(_) | Frame::Below(_), _));
        let event = match message {
            Message::Connected { id, peer, chain, direction, outbox, connection } => {
                tracing::info!(peer = %peer.place, ?direction, "connected");
                if direction == Direction::Up {
                    self.parent_at = Instant::now();
                    self.dialled = Some(peer.node);
                    let stands = self.engine.places().now(&peer.place);
                    if self.config.place.parent() == Some(stands) {
                        self.parent_answers();
                    }
                } else {
                    self.end_certificates_before(&peer, &chain)?;
                    self.turn_away_if_revoked(&connection);
                }
                self.last_contact.insert(peer.place.org().clone(), wall());
                self.has_met(&peer, &chain)?;
                let stands = self.engine.places().now(&peer.place);
                let info = NodeInfo { place: stands, ..peer.clone() };
                self.peers.insert(id, Peer { info, direction, outbox, connection, greeted: false });
                Event::Connected { link: id, peer, chain, direction }
            }
            Message::Frame(id, frame, _room) => {
                self.outages.frame(id);
                self.hear_what_is_to_come(id, &frame);
                self.note_contact(id, &frame);
                if matches!(frame, Frame::Batch(_)) {
                    self.batch_at = Some(Instant::now());
                }
                Event::Received(id, frame)
            }
            Message::Garbled(id, error) => Event::Garbled(id, error),
            Message::Closed(id, _) => {
                if let Some(peer) = self.peers.remove(&id) {
                    self.count_last(id, peer.direction, &peer.connection);
                    tracing::info!(peer = %peer.info.place, "disconnected");
                    self.audit_is_cut(id, &peer.info.place);
                }
                Event::Closed(id)
            }
            Message::NoParent(kind, text) => return self.without_parent(kind, text),
            Message::Stranger(text) => {
                self.alert("refused", text);
                return Ok(());
            }
            Message::FindInvite(token, answer) => {
                let found = self.book.find(&token).cloned().map(|(secret, invite)| {
                    let places = self.engine.places().clone();
                    Found { secret, invite, places }
                });
                let _ = answer.send(found);
                return Ok(());
            }
            Message::Redeem(secret, grant, answer) => {
                self.book.redeem(&secret, grant.issued.clone(), &mut self.store)?;
                self.has_issued(&grant)?;
                let _ = answer.send(());
                return Ok(());
            }
            Message::RenewChild { place, chain, ca_key, answer } => {
                let _ = answer.send(self.renew_child(&place, &chain, ca_key)?);
                return Ok(());
            }
            Message::Renewed(identity) => {
                tracing::info!("the certificates of this node are renewed");
                self.alerts.end(&About::Renewal);
                self.renewed(identity);
                return Ok(());
            }
            Message::NotRenewed { until, why } => {
                let text = format!(
                    "the certificate of this node could not be renewed: {why}. Syncing goes on until it ends on {}; the node asks again",
                    Date(until)
                );
                self.alert_about(Some(About::Renewal), "renewal", text);
                return Ok(());
            }
            Message::Request(request, answers) => return self.request(request, answers),
            Message::Courier(ask) => return self.courier(ask),
            Message::Checking(done, total) => {
                self.checking(done, total);
                return Ok(());
            }
            Message::Checked(outcome) => return self.checked(outcome),
            Message::Surveyed(id, outcome) => match outcome {
                Ok(summary) => Event::Surveyed(id, summary),
                Err(error) => {
                    self.alert(verify::ALERT, format!("the rows for an audit could not be read: {error}"));
                    if let Some(peer) = self.peers.get(&id) {
                        peer.outbox.close();
                    }
                    return Ok(());
                }
            },
            Message::Stop => return Ok(()),
        };
        self.engine.handle(event, &self.store, clock::now())?;
        if let Some(News::Hello(id, _)) = news {
            self.engine.handle(Event::Locate(id), &self.store, clock::now())?;
        }
        self.note_link(news);
        if is_of_people {
            self.pass_on_what_is_to_come();
        }
        Ok(())
    }

    /// Carries out the engine's effects: commits first make durable, then let out what follows from them.
    pub fn let_out(&mut self) -> Result<Vec<Ticket>, StoreError> {
        let mut written = Vec::new();
        while let Some(effect) = self.engine.poll_effect() {
            match effect {
                Effect::Commit(batch) => {
                    let log = self.outages.with_commit();
                    self.store.commit_with(&batch, log.as_ref())?;
                    for op in &batch {
                        self.is_durable(op);
                    }
                    self.engine.handle(Event::Committed, &self.store, clock::now())?;
                    if batch.iter().any(|op| matches!(op, Op::Order(_))) {
                        self.note_neighbours();
                        self.tell_if_closed()?;
                    }
                }
                Effect::Send(link, frame) => {
                    if let Some(peer) = self.peers.get(&link) {
                        peer.outbox.send(frame);
                    }
                }
                Effect::Close(link) => {
                    if let Some(peer) = self.peers.get(&link) {
                        peer.outbox.close();
                    }
                }
                Effect::Written(ticket) => written.push(ticket),
                Effect::Survey(link, homes, allowed) => self.survey(link, homes, allowed),
                Effect::Audited(link, audited) => self.audited(link, audited)?,
                Effect::Imported(_, imported) => self.courier.imported(*imported),
                Effect::Forgotten(purge) => self.forgotten.push(purge),
                Effect::Alert(alert) => self.raise(alert),
            }
        }
        Ok(written)
    }

    /// Tells those beside the engine what a commit has made durable.
    fn is_durable(&mut self, op: &Op) {
        let trust = self.engine.identity().trust();
        match op {
            Op::Order(order) => trust.follow(order),
            Op::Revoke(revocation) => {
                if let Err(error) = trust.revoke(revocation) {
                    tracing::error!(%error, "a revocation was kept that does not hold");
                }
            }
            Op::Forget(record) => self.alerts.end(&About::TwoHomes(record.clone())),
            Op::Grant(record, _) => self.compartments.is_granted(record),
            Op::Heal { entry, .. } => {
                self.verify.is_healed(entry.record());
                self.refold.insert(entry.record().clone());
            }
            _ => {}
        }
    }

    /// One step of folding. False when there is nothing to fold.
    fn fold(&mut self) -> Result<bool, StoreError> {
        self.folded_at = Instant::now();
        if self.mend()? {
            return Ok(true);
        }
        let ops = match self.refold.pop_first() {
            Some(record) => Some(vec![fold::anew(&self.store, &record)?]),
            None => fold::next(&self.store, FOLD_ROWS)?,
        };
        let Some(ops) = ops else { return Ok(false) };
        self.answer_look_ups(&ops)?;
        self.tell_of_look_ups(&ops)?;
        self.compartments.folded(&ops);
        self.engine.handle(Event::Folded(ops), &self.store, clock::now())?;
        self.let_out()?;
        Ok(true)
    }

    pub fn next_ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    fn raise(&mut self, alert: Alert) {
        match alert {
            Alert::Refused { peer, code, text } => {
                let text = format!("refused {}: {text}", peer.place);
                self.refused(&peer, code, text);
            }
            Alert::RefusedByPeer { peer, code, text } => {
                let text = format!("{} refused this node: {text}", peer.place);
                self.refused(&peer, code, text);
            }
            Alert::Restored { peer } => {
                self.audit_soon([peer.place.clone()]);
                let text = format!(
                    "{} came back from an older copy of its data; what it lost is being sent to it. Nothing is to \
                     be done, but find out who restored it",
                    peer.place
                );
                self.alert("restored", text);
            }
            Alert::Forked { segment } => {
                let places: Vec<_> = self.peers.values().map(|peer| peer.info.place.clone()).collect();
                self.audit_soon(places);
                let text = format!(
                    "somebody else wrote as the same run {} of this machine; this one goes on under a new name and both sides' \
                     entries are kept. If this node was put back from a backup, that is why: mark again what was marked secret since that was made. \
                     Otherwise there is a second copy of this machine: find it and switch it off",
                    segment.short()
                );
                self.alert("forked", text);
            }
            // What it finds is told.
            Alert::Unread { .. } => self.check_soon(),
            Alert::Moved { .. } => self.was_ordered(),
            Alert::NoContent { peer, record } => {
                let text = format!(
                    "{} gives something else for an attachment of {record}; nothing of it was taken, and it is asked for \
                     elsewhere. Let whoever runs {} check its store with `tuyen verify`",
                    peer.place, peer.place
                );
                self.alert("no_content", text);
            }
            Alert::TwoHomes { record, homes: [first, second], others } => {
                let more = match others {
                    0 => String::new(),
                    n => format!(", and {n} others with it"),
                };
                let text = format!(
                    "{record} was made at {first} and at {second}, each for itself{more}: both are shown all that either has written of \
                     it. If that is not one patient or one thing, two were given one id: see `tuyen records history {record}`, write one \
                     of them anew under another id, and tell both places"
                );
                // Nobody knows here which the others are.
                let about = (others == 0).then_some(About::TwoHomes(record));
                self.alert_about(about, "two_homes", text);
            }
            Alert::TwoMachines { peer } => {
                let text = format!(
                    "two machines are connected as {}; both sides' entries are kept. Find the second copy and \
                     switch it off",
                    peer.place
                );
                self.alert("two_machines", text);
            }
        }
    }

    /// Tells of a damaged log at every start, until somebody has moved it away.
    pub fn log_damaged(&mut self, log: &Path) {
        let text = format!(
            "the disk has damaged the write-ahead log of the database, which is kept as {}. The latest \
             records that were acknowledged before this node stopped may be missing here; what the parent or the \
             children have of them comes back by itself. Let people check what they entered last, replace the disk, and move that \
             file to a safe place: this is told at every start until it is gone",
            log.display()
        );
        self.alert("damaged_log", text);
    }

    /// A neighbour has said something.
    fn note_contact(&mut self, id: LinkId, frame: &Frame) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let place = peer.info.place.clone();
        let is_hello = matches!(frame, Frame::Hello(_));
        let was_greeted = peer.greeted;
        peer.greeted |= is_hello;
        self.last_contact.insert(place.org().clone(), wall());
        if is_hello {
            self.alerts.end(&About::Child(place.clone()));
        }
        if peer.direction == Direction::Down {
            return;
        }
        self.parent_at = Instant::now();
        if is_hello {
            // Only now: a parent that refuses does so after the handshake.
            self.no_parent = None;
            self.numbers.revoked.store(false, Ordering::Relaxed);
            self.alerts.end(&About::Parent);
            self.numbers.greeted.notify_one();
        }
        let Frame::Refuse { code, .. } = frame else { return };
        if self.config.place.parent() != Some(place) {
            return;
        }
        match *code {
            // Before HELLO it is of this node's own certificate, and both sides have proven who they are.
            Refusal::REVOKED if !was_greeted => {
                self.numbers.revoked.store(true, Ordering::Relaxed);
                let down = self.peers.values().filter(|peer| peer.direction == Direction::Down);
                down.for_each(|peer| self.turn_away_if_revoked(&peer.connection));
            }
            Refusal::IS_REVOKED => self.engine.parent_is_put_out(),
            _ => {}
        }
    }

    /// Ends a link to a child while this node is a revoked one: what the child would bring reaches nobody.
    fn turn_away_if_revoked(&self, connection: &Connection) {
        if let Some(refusal) = self.numbers.revoked() {
            transport::refuse(connection, &refusal);
        }
    }

    fn refused(&mut self, peer: &NodeInfo, code: u16, text: String) {
        let is_dialled = self.dialled == Some(peer.node);
        if is_dialled {
            self.no_parent = Some((FailureKind::Refused, text.clone()));
            self.fail_waiters(FailureKind::Refused, &text);
        }
        match code {
            // As the root has ordered: whoever was moved says so itself.
            refusal::MOVED => {
                self.note_leaving(peer);
                tracing::info!("{text}");
            }
            _ => {
                self.note_refusal(peer);
                let about = if is_dialled { About::Parent } else { About::Child(peer.place.clone()) };
                self.alert_about(Some(about), "refused", text);
            }
        }
    }

    /// Tells what stays until the next start.
    pub fn alert(&mut self, code: &str, text: String) {
        self.alert_about(None, code, text);
    }

    /// Tells what goes when it is mended.
    pub fn alert_about(&mut self, about: Option<About>, code: &str, text: String) {
        let line = AlertLine { at: wall(), code: code.to_owned(), text: text.clone() };
        if self.alerts.add(about, line) {
            tracing::warn!(code, "{text}");
        }
    }

    fn without_parent(&mut self, kind: FailureKind, text: String) -> Result<(), StoreError> {
        if self.no_parent.as_ref().is_none_or(|(_, known)| *known != text) {
            tracing::info!("{text}");
        }
        if kind == FailureKind::Refused {
            self.alert_about(Some(About::Parent), "refused", text.clone());
        }
        if let Some(parent) = self.config.place.parent() {
            match kind {
                FailureKind::Refused => self.outages.refused(&parent),
                _ => self.outages.unreached(&parent),
            }
        }
        let text = match (kind, &self.config.parent_before) {
            (FailureKind::Failed, Some(_)) => format!(
                "{text}. An order of the root has named this address; if it is wrong, let the root give it again: `tuyen org move \
                 {} --to ... --address HOST:PORT --effective now`",
                self.config.place.org()
            ),
            _ => text,
        };
        self.fail_waiters(kind, &text);
        self.no_parent = Some((kind, text));
        Ok(())
    }

    fn fail_waiters(&mut self, kind: FailureKind, text: &str) {
        for waiter in self.waiters.drain(..) {
            let _ = waiter.answers.send(Answer::Failed(Failure::new(kind, text)));
        }
    }

    /// Dials now; answers at once, or when everything written so far is durable at the parent, but what waits for its time.
    pub fn sync_now(
        &mut self,
        wait: bool,
        bulk: bool,
        answers: mpsc::UnboundedSender<Answer>,
    ) -> Result<(), StoreError> {
        if self.numbers.paused() && wait {
            let text = "syncing is paused at this node; `tuyen sync resume` ends that";
            let _ = answers.send(Answer::Failed(Failure::new(FailureKind::Failed, text)));
            return Ok(());
        }
        if bulk {
            self.let_bulk_through()?;
        }
        self.numbers.dial.notify_one();
        if !wait {
            let synced = self.synced()?;
            send(&answers, &synced);
            return Ok(());
        }
        let upto = Lane::ALL.map(|lane| self.engine.frontier(Frontier::Last, lane));
        self.waiters.push(Waiter { upto, answers, tell_at: Instant::now() + PROGRESS_EVERY });
        self.answer_waiters()
    }

    fn answer_waiters(&mut self) -> Result<(), StoreError> {
        for waiter in std::mem::take(&mut self.waiters) {
            let reached = |lane: Lane| {
                !self.engine.lanes_up().has(lane)
                    || self.engine.frontier(Frontier::Hub, lane) >= waiter.upto[lane as usize]
            };
            let settled = self.engine.is_root()
                || self.engine.links().any(|link| link.direction == Direction::Up && link.settled);
            // Attachments go when bulk may.
            let is_up = |core: &Self| -> Result<bool, StoreError> {
                Ok(Lane::ALL.into_iter().all(reached)
                    && (!core.engine.lanes_up().has(Lane::Bulk) || core.contents()?.not_at_hub == 0))
            };
            if settled && (self.engine.is_root() || is_up(self)?) {
                let synced = self.synced()?;
                send(&waiter.answers, &synced);
            } else if !waiter.answers.is_closed() {
                self.tell_progress(waiter)?;
            }
        }
        Ok(())
    }

    fn tell_progress(&mut self, mut waiter: Waiter) -> Result<(), StoreError> {
        let began = Instant::now();
        if began >= waiter.tell_at {
            let left = self.not_at(Frontier::Hub)?.entries;
            let bytes = self.contents()?.not_at_hub_bytes;
            let (what, done) = match left {
                0 => ("bytes of attachments not yet at the hub", bytes),
                _ => ("entries not yet at the hub", left),
            };
            waiter.tell_at = Instant::now() + PROGRESS_EVERY.max(began.elapsed() * PROGRESS_COST);
            let what = what.to_owned();
            let _ = waiter.answers.send(Answer::Progress(Progress { what, done, total: None }));
        }
        self.waiters.push(waiter);
        Ok(())
    }

    fn request(
        &mut self,
        request: Request,
        answers: mpsc::UnboundedSender<Answer>,
    ) -> Result<(), StoreError> {
        let outcome = match request {
            Request::SyncNow { wait, bulk } => return self.sync_now(wait, bulk, answers),
            Request::AttachmentFetch { record, hash, patience_seconds } => {
                let patience = Duration::from_secs(patience_seconds);
                match self.fetch(&record, hash, patience, answers.clone()) {
                    Ok(()) => return Ok(()),
                    Err(problem) => Err(problem),
                }
            }
            Request::AttachmentPart { record, hash, from } => {
                self.part(&record, hash, from).map(|it| json(&it))
            }
            Request::Attachments { record, after } => {
                self.attachments(record.as_ref(), after.as_ref()).map(|it| json(&it))
            }
            Request::LinkShow => self.show_line().map(|it| json(&it)),
            Request::LinkSet(change) => self.set_budget(change).map(|it| json(&it)),
            Request::Verify { with } => {
                self.verify(with, answers);
                return Ok(());
            }
            Request::Status => self.status().map(|it| json(&it)),
            Request::Peers => self.peers().map(|it| json(&it)),
            Request::SyncPause => self.pause(true),
            Request::SyncResume => self.pause(false),
            Request::Put { resources, base, by, why } => {
                self.put(resources, base, by, why).map(|it| json(&it))
            }
            Request::Delete { record, base, by, why } => {
                self.delete(record, base, by, why).map(|it| json(&it))
            }
            Request::Get { record } => self.get(&record).map(|it| json(&it)),
            Request::List { resource_type, unread, after, limit } => {
                self.list(resource_type.as_deref(), unread, after.as_ref(), limit).map(|it| json(&it))
            }
            Request::Export { after, limit } => self.export(after.as_ref(), limit).map(|it| json(&it)),
            Request::History { record } => self.history(&record).map(|it| json(&it)),
            Request::Conflicts { record, after, limit } => {
                self.conflicts(record.as_ref(), after.as_ref(), limit).map(|it| json(&it))
            }
            Request::Resolve { record, path, choice, by, why } => {
                self.resolve(&record, &path, choice, by, &why).map(|it| json(&it))
            }
            Request::Invite { role, org, expires_seconds, address } => {
                self.invite(role, org, expires_seconds, address).map(|it| json(&it))
            }
            Request::Revoke { org, reason } => self.revoke(&org, reason).map(|it| json(&it)),
            Request::Replace { org, node, reason, expires_seconds, address } => {
                self.replace(org, node.as_deref(), reason, expires_seconds, address).map(|it| json(&it))
            }
            Request::Arrange(arrange) => self.arrange(arrange).map(|it| json(&it)),
            Request::Tree => self.tree().map(|it| json(&it)),
            Request::Purged => self.purged().map(|it| json(&it)),
            Request::CancelPlan { plan } => self.cancel_plan(plan).map(|it| json(&it)),
            Request::Outages { org, since_seconds } => {
                self.tell_outages(org.as_ref(), since_seconds).map(|it| json(&it))
            }
            Request::ExplainRecord { record } => self.explain_record(&record).map(|it| json(&it)),
            Request::ExplainOrg { org } => self.explain_org(&org).map(|it| json(&it)),
            Request::Give(give) => self.give(give).map(|it| json(&it)),
            Request::Grants => self.grants().map(|it| json(&it)),
            Request::EndGrant { grant, by, why } => self.end_grant(&grant, &by, &why).map(|it| json(&it)),
            Request::LookUp { patient, by, why } => self.look_up(patient, &by, &why).map(|it| json(&it)),
            Request::BackupKept { made_at } => self.backup_kept(made_at).map(|it| json(&it)),
            Request::BundleKept { node, made_at } => {
                self.bundle_kept(node, made_at).map(|()| json(&())).map_err(Problem::from)
            }
            Request::BundleCard => Ok(json(&self.card())),
            Request::BundleMeet { card } => match self.meet(&card)? {
                Ok(met) => Ok(json(&met)),
                Err(failure) => Err(failure.into()),
            },
            // The socket answers these by itself.
            Request::Backup { .. }
            | Request::BundleExport { .. }
            | Request::BundleInspect { .. }
            | Request::BundleImport { .. }
            | Request::Admit { .. }
            | Request::RenewalRequest
            | Request::RenewalAnswer { .. } => refuse(FailureKind::Usage, "this is not done here"),
        };
        let answer = match outcome {
            Ok(value) => Answer::Done(value),
            Err(Problem::Failure(failure)) => Answer::Failed(failure),
            Err(Problem::Store(error)) => {
                let _ = answers.send(Answer::Failed(failed(kind_of_failure(&self.store), &error)));
                return Err(error);
            }
        };
        let _ = answers.send(answer);
        Ok(())
    }
}

/// What a failure of the store is: a disk that is full says nothing against what is on it.
fn kind_of_failure(store: &SqliteStore) -> FailureKind {
    if store.ended_by_surroundings() { FailureKind::Failed } else { FailureKind::Integrity }
}

/// Why a request has no answer: the caller's, or the store's, which ends the process.
pub(super) enum Problem {
    Failure(Failure),
    Store(StoreError),
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Problem::Failure(failure)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Problem::Store(error)
    }
}

pub(super) type Outcome<T> = Result<T, Problem>;

/// A failed request.
pub(super) fn refuse<T>(kind: FailureKind, text: impl Into<String>) -> Outcome<T> {
    Err(Failure::new(kind, text).into())
}

pub(super) fn json(value: &impl Serialize) -> Box<serde_json::value::RawValue> {
    serde_json::value::to_raw_value(value).expect("answers are plain data")
}

pub(super) fn send(answers: &mpsc::UnboundedSender<Answer>, value: &impl Serialize) {
    let _ = answers.send(Answer::Done(json(value)));
}
