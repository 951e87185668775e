//! Courier bundles at a node that runs: written and read on a thread of their own, a step of the core at a time, so that
//! nobody waits long behind them. What always holds: a bundle that comes is kept in a file first, read to its end and
//! checked, and only then taken; one is taken at a time; the core alone drives the engine. A process that ends in between
//! has lost nothing: what was committed is kept with its place, and the bundle can be taken again. Not here: the format
//! (`crate::courier`).

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufReader, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use data_encoding::BASE64;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use sync_core::{
    bundle::{ContentPlaces, Head, Tail, decode_contents, decode_cursors, encode_contents, encode_cursors},
    engine::{Event, Export, Heard, Identity as _, Imported, LinkId, Since, Told, refusal},
    feed::{Cursor, Position},
    id::{Lane, NodeId, OrgId, OrgPath},
    identity::{NodeInfo, Refusal, Role},
    store::{Store as _, StoreError},
    wire::Frame,
};
use tokio::sync::{mpsc, oneshot};

use super::{
    Message, Numbers,
    backup::{Part, Pieces},
    core::{Core, json},
};
use crate::{
    admin::{
        Answer, BundleCard, BundleExported, BundleImported, BundleInspected, BundleMet, BundlePlace,
        BundleSince, Failure, FailureKind, Progress,
    },
    ca::{
        Grant, Issued, Own,
        trust::{Verified, When},
    },
    clock,
    courier::{self, CourierError, Summary, Writing, read_card, write_card},
    keys::PublicKey,
    store::SqliteStore,
};

/// Where a bundle is kept while it is checked and taken.
const INCOMING: &str = "incoming.tuyen-bundle";
/// How many pieces of a bundle may wait for the command to take them.
const PIECES: usize = 16;
/// How often the command hears how far things are.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// A bundle, and its next frames; none when there are no more.
type Step = (Box<Export>, Option<Vec<Frame>>);
type Cursors = Vec<(Lane, Cursor)>;

/// What the core is asked for.
pub(super) enum Ask {
    Export { org: OrgId, since: BundleSince, answer: oneshot::Sender<Result<Started, Failure>> },
    More(Box<Export>, oneshot::Sender<Result<Step, Failure>>),
    Ends(Box<Export>, NodeInfo, i64, oneshot::Sender<Cursors>),
    Inspect(Box<Summary>, oneshot::Sender<BundleInspected>),
    Begin(NodeInfo, Head, oneshot::Sender<LinkId>),
    Take(LinkId, Frame, oneshot::Sender<()>),
    Taken(LinkId, Head, oneshot::Sender<Option<Imported>>),
}

/// A bundle that can be written.
pub(super) struct Started {
    export: Box<Export>,
    to: NodeInfo,
    key: PublicKey,
    head: Head,
    kept_back: u64,
}

/// What the core remembers: what is known of neighbours beside what links bring.
pub(super) struct Courier {
    /// When the last bundle was made here; later ones say a later time.
    last: i64,
    neighbours: BTreeMap<OrgId, Neighbour>,
    /// Where bundles end that were made and may not be kept yet.
    made: BTreeMap<(NodeId, i64), Made>,
    imported: Option<Imported>,
}

/// Where a bundle ends.
struct Made {
    org: OrgId,
    reached: Cursors,
    given: ContentPlaces,
}

/// The node of a neighbour's organization, kept as one setting.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct Neighbour {
    node: NodeId,
    /// Its certificates, in base64.
    chain: Vec<String>,
    /// When the newest bundle was made that was taken from it.
    heard: i64,
    /// How far it had read this node's feed then, and where the last bundle for it ended.
    has: String,
    exported: String,
    /// The end of its feed, when it had said that it knows less of it than was read here; whether it had come back from a backup,
    /// and took this node to have what this node has not.
    restored: Option<Option<Position>>,
    #[serde(default)]
    returned: bool,
    #[serde(default)]
    lost: bool,
    /// What it asked for then of attachments, what it had of them, and up to where bundles gave them.
    #[serde(default)]
    asks: String,
    #[serde(default)]
    holds: String,
    #[serde(default)]
    given: String,
}

impl Neighbour {
    fn new(node: NodeId) -> Self {
        Self::of(node, &Heard::default())
    }

    fn of(node: NodeId, word: &Heard) -> Self {
        let holds = word.told.holds.iter().map(|name| (name.clone(), 0)).collect();
        Self {
            node,
            chain: Vec::new(),
            heard: i64::MIN,
            has: BASE64.encode(&encode_cursors(&word.has)),
            exported: BASE64.encode(&encode_cursors(&word.last)),
            restored: word.restored,
            returned: word.returned,
            lost: word.lost,
            asks: BASE64.encode(&encode_contents(&word.told.asks)),
            holds: BASE64.encode(&encode_contents(&holds)),
            given: BASE64.encode(&encode_contents(&word.given)),
        }
    }

    fn word(&self) -> Heard {
        let asks = decoded(&self.asks, decode_contents);
        let holds = decoded(&self.holds, decode_contents).into_keys().collect();
        Heard {
            has: decoded(&self.has, decode_cursors),
            last: decoded(&self.exported, decode_cursors),
            restored: self.restored,
            returned: self.returned,
            lost: self.lost,
            told: Told { asks, holds },
            given: decoded(&self.given, decode_contents),
        }
    }

    /// With another word.
    fn with(self, word: &Heard) -> Self {
        Self { chain: self.chain, heard: self.heard, ..Self::of(self.node, word) }
    }

    /// What is known of a neighbour that shows these certificates, when this was known before.
    fn that_shows(known: Option<Self>, node: NodeId, chain: &[Vec<u8>]) -> Self {
        let known = known.filter(|known| known.node == node).unwrap_or_else(|| Self::new(node));
        Self { chain: chain.iter().map(|der| BASE64.encode(der)).collect(), ..known }
    }

    fn chain(&self) -> Vec<Vec<u8>> {
        self.chain.iter().map(|text| BASE64.decode(text.as_bytes()).unwrap_or_default()).collect()
    }
}

/// What was kept as text; nothing when it is not that any more.
fn decoded<T: Default, E>(text: &str, decode: impl FnOnce(&[u8]) -> Result<T, E>) -> T {
    BASE64.decode(text.as_bytes()).ok().and_then(|bytes| decode(&bytes).ok()).unwrap_or_default()
}

impl Courier {
    /// What the store has kept of when the last one was made.
    pub fn load(setting: Option<Vec<u8>>) -> Self {
        let last = setting.and_then(|bytes| bytes.try_into().ok()).map_or(0, i64::from_be_bytes);
        Self { last, neighbours: BTreeMap::new(), made: BTreeMap::new(), imported: None }
    }

    /// The name of the setting that [`Courier::load`] is given.
    pub const SETTING: &str = "courier-made";

    /// A bundle has been taken.
    pub fn imported(&mut self, imported: Imported) {
        self.imported = Some(imported);
    }
}

fn setting_of(org: &OrgId) -> String {
    format!("courier:{org}")
}

/// A node that does not run learns the certificates of a neighbour: it can seal bundles for it.
pub(crate) fn keep_neighbour(
    store: &mut SqliteStore,
    peer: &NodeInfo,
    chain: &[CertificateDer<'_>],
) -> Result<(), StoreError> {
    let setting = setting_of(peer.place.org());
    let known = store.setting(&setting)?.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let chain: Vec<_> = chain.iter().map(|der| der.to_vec()).collect();
    let known = Neighbour::that_shows(known, peer.node, &chain);
    store.set_setting(&setting, &serde_json::to_vec(&known).expect("what is known is plain data"))
}

impl Core {
    /// One step of a bundle.
    pub fn courier(&mut self, ask: Ask) -> Result<(), StoreError> {
        match ask {
            Ask::Export { org, since, answer } => {
                let _ = answer.send(self.bundle_for(&org, since)?);
            }
            Ask::More(mut export, answer) => {
                let more = if self.engine.export_holds(&export) {
                    let frames = self.engine.export_next(&mut export, &self.store)?;
                    Ok((export, frames))
                } else {
                    let text =
                        "the feed of this node was given another name meanwhile; export the bundle again";
                    Err(Failure::new(FailureKind::Failed, text))
                };
                let _ = answer.send(more);
            }
            Ask::Ends(export, to, made, answer) => {
                let reached = self.engine.export_reached(&export, &self.store)?;
                let (org, given) = (to.place.org().clone(), export.given().clone());
                self.courier.made.insert((to.node, made), Made { org, reached: reached.clone(), given });
                if export.unread().is_some() {
                    self.check_soon();
                }
                if !export.rotten().is_empty() {
                    let rotten = Event::Rotten(export.rotten().to_vec());
                    self.engine.handle(rotten, &self.store, clock::now())?;
                    self.let_out()?;
                }
                let _ = answer.send(reached);
            }
            Ask::Inspect(summary, answer) => {
                let _ = answer.send(self.inspect(*summary)?);
            }
            Ask::Begin(peer, head, answer) => {
                let link = LinkId(self.numbers.links.fetch_add(1, Ordering::Relaxed));
                let known = self.known_of(peer.place.org())?.filter(|known| known.node == peer.node);
                let newest = known.is_none_or(|known| head.made > known.heard);
                let (chain, from) = (head.chain, head.from);
                let event = Event::Bundle { link, peer, chain, from, newest };
                self.engine.handle(event, &self.store, clock::now())?;
                self.let_out()?;
                let _ = answer.send(link);
            }
            Ask::Take(link, frame, answer) => {
                self.engine.handle(Event::Bundled(link, frame), &self.store, clock::now())?;
                self.let_out()?;
                let _ = answer.send(());
            }
            Ask::Taken(link, head, answer) => {
                self.engine.handle(Event::BundleEnds(link), &self.store, clock::now())?;
                self.let_out()?;
                let imported = self.courier.imported.take();
                if let Some(imported) = imported.as_ref().filter(|imported| imported.refused.is_none()) {
                    self.has_heard(imported, &head)?;
                }
                let _ = answer.send(imported);
            }
        }
        Ok(())
    }

    /// What is kept of a neighbour. What cannot be read is no obstacle: a bundle then begins further back.
    fn known_of(&mut self, org: &OrgId) -> Result<Option<Neighbour>, StoreError> {
        if !self.courier.neighbours.contains_key(org)
            && let Some(bytes) = self.store.setting(&setting_of(org))?
            && let Ok(known) = serde_json::from_slice(&bytes)
        {
            self.courier.neighbours.insert(org.clone(), known);
        }
        Ok(self.courier.neighbours.get(org).cloned())
    }

    fn keep_of(&mut self, org: &OrgId, known: Neighbour) -> Result<(), StoreError> {
        if self.courier.neighbours.get(org) == Some(&known) {
            return Ok(());
        }
        let bytes = serde_json::to_vec(&known).expect("what is known is plain data");
        self.courier.neighbours.insert(org.clone(), known);
        self.store.set_setting(&setting_of(org), &bytes)
    }

    /// A neighbour has shown its certificates: bundles for it can be sealed from now on.
    pub fn has_met(&mut self, peer: &NodeInfo, chain: &[Vec<u8>]) -> Result<(), StoreError> {
        let org = peer.place.org();
        let known = Neighbour::that_shows(self.known_of(org)?, peer.node, chain);
        self.keep_of(org, known)
    }

    /// A child has been given certificates: bundles for it can be sealed from now on.
    pub fn has_issued(&mut self, grant: &Grant) -> Result<(), StoreError> {
        let Issued { node, place, role, .. } = grant.issued.clone();
        let chain: Vec<_> = grant.chain.iter().map(|der| der.to_vec()).collect();
        self.has_met(&NodeInfo { node, place, role }, &chain)
    }

    /// Of several bundles the newest one's word counts.
    fn has_heard(&mut self, imported: &Imported, head: &Head) -> Result<(), StoreError> {
        self.has_met(&imported.sender, &head.chain)?;
        let org = imported.sender.place.org();
        let Some(mut known) = self.known_of(org)?.filter(|known| head.made > known.heard) else {
            return Ok(());
        };
        known.heard = head.made;
        let mut word = known.word();
        word.hears(imported);
        let known = known.with(&word);
        self.keep_of(org, known)
    }

    /// The file of a bundle is where it should be.
    pub fn bundle_kept(&mut self, node: NodeId, made: i64) -> Result<(), StoreError> {
        let Some(Made { org, reached, given }) = self.courier.made.remove(&(node, made)) else {
            return Ok(());
        };
        let known = self.known_of(&org)?.filter(|known| known.node == node);
        let known = known.unwrap_or_else(|| Neighbour::new(node));
        let word = Heard { last: reached, given, ..known.word() };
        self.keep_of(&org, known.with(&word))
    }

    /// What makes this node known to a neighbour that has never met it.
    pub fn card(&self) -> BundleCard {
        let identity = self.engine.identity().files();
        let chain: Vec<_> = identity.chain.iter().map(|der| der.to_vec()).collect();
        BundleCard { card: write_card(&chain) }
    }

    /// Takes the card of a neighbour.
    pub fn meet(&mut self, card: &str) -> Result<Result<BundleMet, Failure>, StoreError> {
        let chain = match read_card(card) {
            Ok(chain) => chain,
            Err(error) => return Ok(Err(error.into())),
        };
        let verified = match self.verified(&chain) {
            Ok(verified) => verified,
            Err(refusal) => return Ok(Err(CourierError::Sender(refusal).into())),
        };
        let NodeInfo { node, place, .. } = &verified.info;
        let (node, place) = (*node, self.engine.places().now(place));
        let own = self.engine.place().clone();
        if place.parent().as_ref() != Some(&own) && own.parent().as_ref() != Some(&place) {
            let text =
                format!("{place} is no neighbour of {own}; bundles go between a node and its parent only");
            return Ok(Err(Failure::new(FailureKind::Refused, text)));
        }
        self.has_met(&verified.info, &chain)?;
        Ok(Ok(BundleMet { node, place }))
    }

    fn verified(&self, chain: &[Vec<u8>]) -> Result<Verified, sync_core::identity::Refusal> {
        let chain: Vec<_> = chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        let trust = self.engine.identity().trust();
        trust.verify_chain(&chain, When::Now(trust.clock().now()))
    }

    /// The node of an organization, with its key: of several the one whose certificate ends last.
    fn node_of(&mut self, org: &OrgId) -> Result<Result<Verified, Failure>, StoreError> {
        let mut chains: Vec<_> = self.known_of(org)?.iter().map(Neighbour::chain).collect();
        for node in self.store.nodes()? {
            if self.engine.places().now(&node.place).org() == org {
                for (_, cursor) in self.store.read_of_node(node.node)? {
                    let announced = self.store.announcement(cursor.at.segment)?;
                    chains.extend(announced.map(|(announcement, _)| announcement.chain));
                }
            }
        }
        let mut refused = None;
        let mut found: Option<Verified> = None;
        for chain in chains.iter().filter(|chain| !chain.is_empty()) {
            match self.verified(chain) {
                Ok(verified) if self.engine.places().now(&verified.info.place).org() == org => {
                    if found.as_ref().is_none_or(|found| found.not_after < verified.not_after) {
                        found = Some(verified);
                    }
                }
                Ok(_) => {}
                Err(refusal) if refusal.to_string().contains(org.as_str()) => refused = Some(refusal),
                Err(_) => {}
            }
        }
        let text = match (&found, refused) {
            (Some(_), _) => String::new(),
            (None, Some(refusal)) => format!("no bundle can be made for {org}: {refusal}"),
            (None, None) => format!(
                "this node has never met {org} and has no key to seal a bundle for it. Make its card there with `tuyen \
                 bundle card`, carry it here and import it; or import a bundle that was exported there for this node"
            ),
        };
        Ok(found.ok_or_else(|| Failure::new(FailureKind::Refused, text)))
    }

    /// Why no bundle goes there, whoever that is.
    fn is_no_neighbour(&self, org: &OrgId) -> Option<String> {
        let own = self.engine.place();
        let parent = own.parent();
        let stands = self.engine.places().stands(org);
        let is_parent = parent.as_ref().is_some_and(|parent| parent.org() == org);
        let is_child = stands.is_some_and(|stands| stands.parent().as_ref() == Some(own));
        if is_parent || is_child || (stands.is_none() && self.config.role != Role::Leaf) {
            return None;
        }
        let known = stands.map_or(String::new(), |stands| format!(", and {org} stands at {stands}"));
        let parent =
            parent.map_or(String::new(), |parent| format!("; the parent of this node is {}", parent.org()));
        Some(format!("bundles go between a node and its parent only{known}{parent}"))
    }

    fn bundle_for(
        &mut self,
        org: &OrgId,
        since: BundleSince,
    ) -> Result<Result<Started, Failure>, StoreError> {
        if let Err(failure) = self.numbers.must_not_be_revoked() {
            return Ok(Err(failure));
        }
        if let Some(problem) = self.is_no_neighbour(org) {
            return Ok(Err(Failure::new(FailureKind::Refused, problem)));
        }
        let Verified { info: to, key, .. } = match self.node_of(org)? {
            Ok(verified) => verified,
            Err(failure) => return Ok(Err(failure)),
        };
        let known = self.known_of(org)?.filter(|known| known.node == to.node);
        let known = known.unwrap_or_else(|| Neighbour::new(to.node));
        let since = match since {
            BundleSince::Start => Since::Start,
            BundleSince::Acknowledged => Since::Acknowledged,
            BundleSince::Last => Since::Last,
        };
        let export = match self.engine.export(to.clone(), since, &known.word(), &self.store, clock::now())? {
            Ok(export) => export,
            Err(refusal) => {
                let text = format!("bundles go between a node and its parent only: {refusal}");
                return Ok(Err(Failure::new(FailureKind::Refused, text)));
            }
        };
        let kept_back = self.engine.export_keeps_back(&export, &self.store)?;
        let identity = self.engine.identity();
        let made = identity.trust().clock().now().max(self.courier.last + 1);
        let head = Head {
            sender: identity.info().node,
            recipient: to.node,
            made,
            from: export.from().to_vec(),
            chain: identity.files().chain.iter().map(|der| der.to_vec()).collect(),
        };
        self.courier.last = made;
        self.store.set_setting(Courier::SETTING, &made.to_be_bytes())?;
        Ok(Ok(Started { export: Box::new(export), to, key, head, kept_back }))
    }

    fn inspect(&self, summary: Summary) -> Result<BundleInspected, StoreError> {
        let Summary { head, tail, sender, software, attachments, attachment_bytes } = summary;
        let read = self.store.read_of_node(sender.node)?;
        let mut gaps = Vec::new();
        for (lane, from) in head.from.iter().filter(|(_, from)| from.at.pos > 0) {
            let stood = self.store.read_before(*lane, from.at)?;
            if stood.is_none_or(|stood| stood.at != from.at) {
                gaps.push(*lane);
            }
        }
        let mut imported = true;
        for (lane, upto) in &tail.upto {
            let known = self.store.read(*lane, upto.at.segment)?;
            let passed = known.is_some_and(|known| known.cursor.at.pos >= upto.at.pos);
            imported &= passed || read.contains(&(*lane, *upto));
        }
        for (name, pieces) in &attachments {
            let missing = self.store.missing(name)?;
            imported &=
                self.store.attachment(name)?.is_some() && !missing.iter().any(|nth| pieces.contains(nth));
        }
        Ok(BundleInspected {
            node: sender.node,
            sender: sender.place,
            software,
            recipient: self.engine.place().clone(),
            made_at: head.made,
            entries: tail.entries,
            attachments: attachments.len() as u64,
            attachment_bytes,
            from: places(&head.from),
            upto: places(&tail.upto),
            more: tail.more,
            imported,
            gaps,
        })
    }
}

fn places(cursors: &[(Lane, Cursor)]) -> Vec<BundlePlace> {
    cursors.iter().map(|(lane, cursor)| BundlePlace { lane: *lane, at: cursor.at }).collect()
}

/// Why a bundle of one who stands elsewhere is not taken, and who takes it.
fn no_neighbour(sender: &OrgPath) -> String {
    let above = sender.parent().map_or_else(String::new, |above| above.to_string());
    format!(
        "it stands at {sender}, and so it is no neighbour of this node, or none any more. Carry its bundles to {above}, where it \
         makes itself known with the card that `tuyen bundle card` writes"
    )
}

/// What is needed of the node to write and read bundles beside the core.
pub(super) struct Couriers {
    dir: PathBuf,
    identity: Own,
    core: mpsc::Sender<Message>,
    numbers: Arc<Numbers>,
    /// Held by whoever keeps a bundle in the one file for it.
    incoming: Arc<tokio::sync::Mutex<()>>,
}

impl Couriers {
    pub fn new(dir: PathBuf, identity: Own, core: mpsc::Sender<Message>, numbers: Arc<Numbers>) -> Arc<Self> {
        Arc::new(Self { dir, identity, core, numbers, incoming: Arc::default() })
    }

    /// Begins to write a bundle, for whoever takes its pieces.
    pub fn export(
        self: &Arc<Self>,
        org: OrgId,
        since: BundleSince,
        max_bytes: Option<u64>,
    ) -> mpsc::Receiver<Part> {
        let (sender, receiver) = mpsc::channel(PIECES);
        let couriers = self.clone();
        let answers = sender.clone();
        let work = move || {
            let exported = couriers.write(org, since, max_bytes, &sender);
            let _ = sender.blocking_send(Part::Answer(ended(exported)));
        };
        if let Err(failure) = on_a_thread(work) {
            let _ = answers.try_send(Part::Answer(Answer::Failed(failure)));
        }
        receiver
    }

    fn write(
        &self,
        org: OrgId,
        since: BundleSince,
        max_bytes: Option<u64>,
        pieces: &mpsc::Sender<Part>,
    ) -> Result<BundleExported, Failure> {
        let started = self.ask(|answer| Ask::Export { org, since, answer })??;
        let Started { mut export, to, key, head, kept_back } = started;
        let most = max_bytes.unwrap_or(u64::MAX);
        let mut writing =
            Writing::begin(io::BufWriter::with_capacity(64 << 10, Pieces(pieces)), &key, &head)?;
        let (mut more, mut any) = (false, false);
        let mut told = Instant::now();
        loop {
            let before = max_bytes.map(|_| export.clone());
            let (next, frames) = self.ask(|answer| Ask::More(export, answer))??;
            export = next;
            let Some(frames) = frames else { break };
            let encoded: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
            let needs = writing.length_with(encoded.len() as u64);
            if let Some(before) = before.filter(|_| needs > most) {
                if !any {
                    return Err(CourierError::TooSmall { most, needs }.into());
                }
                (export, more) = (before, true);
                break;
            }
            any |= frames.iter().any(|frame| matches!(frame, Frame::Batch(_) | Frame::Bytes { .. }));
            writing.frames(&encoded)?;
            if told.elapsed() > TELL_EVERY {
                told = Instant::now();
                let (what, done) = match export.attachments().1 {
                    0 => ("entries written", export.entries().iter().sum()),
                    bytes => ("bytes of attachments written", bytes),
                };
                let what = what.to_owned();
                let _ = pieces.try_send(Part::Answer(Answer::Progress(Progress { what, done, total: None })));
            }
        }
        let (entries, attachments) = (export.entries(), export.attachments());
        let from = places(export.from());
        let (node, made_at) = (to.node, head.made);
        let whom = to.clone();
        let upto = self.ask(|answer| Ask::Ends(export, whom, made_at, answer))?;
        writing.end(&Tail { entries, upto, more }, |statement| self.identity.sign(statement))?;
        let count = entries.iter().sum::<u64>();
        tracing::info!(to = %to.place, entries = count, attachments = attachments.0, more, "a bundle was exported");
        let (attachments, attachment_bytes) = attachments;
        let to = to.place;
        Ok(BundleExported {
            node,
            to,
            made_at,
            entries,
            attachments,
            attachment_bytes,
            from,
            kept_back,
            more,
        })
    }

    /// Takes the only place for a bundle that comes; a failure when there is one already.
    pub fn receive(self: &Arc<Self>) -> Result<Incoming, Failure> {
        let held = self.incoming.clone().try_lock_owned().map_err(|_| {
            let text = "another bundle is being taken at this node; wait for it, and try again";
            Failure::new(FailureKind::Failed, text)
        })?;
        Incoming::new(&self.dir.join(INCOMING), held).map_err(Failure::from)
    }

    /// Reads what has come, and takes it if `takes`.
    pub fn import(self: &Arc<Self>, incoming: Incoming, takes: bool) -> mpsc::UnboundedReceiver<Answer> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let couriers = self.clone();
        let answers = sender.clone();
        let work = move || {
            let answer = match takes {
                true => ended(couriers.take(&incoming, &sender)),
                false => ended(couriers.look(&incoming)),
            };
            drop(incoming);
            let _ = sender.send(answer);
        };
        if let Err(failure) = on_a_thread(work) {
            let _ = answers.send(Answer::Failed(failure));
        }
        receiver
    }

    fn look(&self, incoming: &Incoming) -> Result<BundleInspected, Failure> {
        let summary = courier::check(incoming.read()?, incoming.bytes, &self.identity)?;
        self.ask(|answer| Ask::Inspect(Box::new(summary), answer))
    }

    fn take(
        &self,
        incoming: &Incoming,
        answers: &mpsc::UnboundedSender<Answer>,
    ) -> Result<BundleImported, Failure> {
        let Summary { head, tail, sender, attachment_bytes, .. } =
            courier::check(incoming.read()?, incoming.bytes, &self.identity)?;
        let mut reading = courier::open(incoming.read()?, incoming.bytes, &self.identity.files().key)?;
        self.numbers.must_not_be_revoked()?;
        let peer = sender.clone();
        let begun = head.clone();
        let link = self.ask(|answer| Ask::Begin(peer, begun, answer))?;
        let total: u64 = tail.entries.iter().sum();
        let (mut done, mut bytes_done, mut told) = (0, 0, Instant::now());
        while let Some(frame) = reading.next_frame()? {
            if self.numbers.stopping() {
                let text = "the daemon is stopping; what was taken is kept, import the bundle again later";
                return Err(Failure::new(FailureKind::Failed, text));
            }
            match &frame {
                Frame::Batch(batch) => done += batch.entries.len() as u64,
                Frame::Bytes { bytes, .. } => bytes_done += bytes.len() as u64,
                _ => {}
            }
            self.ask(|answer| Ask::Take(link, frame, answer))?;
            if told.elapsed() > TELL_EVERY {
                told = Instant::now();
                let (what, done, total) = match bytes_done {
                    0 => ("entries read", done, total),
                    bytes => ("bytes of attachments read", bytes, attachment_bytes),
                };
                let what = what.to_owned();
                let _ = answers.send(Answer::Progress(Progress { what, done, total: Some(total) }));
            }
        }
        let made_at = head.made;
        let imported = self.ask(|answer| Ask::Taken(link, head, answer))?;
        let imported = imported.ok_or_else(|| gone("it did not answer"))?;
        let Imported { sender, new, known, aside, attachments, gaps, older, lost, linked, refused, .. } =
            imported;
        let (attachments_in_part, attachments_without_record) = (imported.in_part, imported.without_record);
        if let Some((code, text)) = refused {
            let text = match code {
                Refusal::OUTSIDE => no_neighbour(&sender.place),
                refusal::OUTSIDE_SUBTREE => format!(
                    "{text}. If this node was put back to an older copy after the bundle was made, export it again there"
                ),
                _ => text,
            };
            let text = format!("the bundle of {} was not taken: {text}. {}", sender.place, kept(new));
            return Err(Failure::new(FailureKind::Refused, text));
        }
        tracing::info!(from = %sender.place, new, known, aside, attachments, "a bundle was imported");
        let (node, sender, more) = (sender.node, sender.place, tail.more);
        Ok(BundleImported {
            node,
            sender,
            made_at,
            new,
            known,
            aside,
            attachments,
            attachments_in_part,
            attachments_without_record,
            gaps,
            more,
            older,
            lost,
            linked,
        })
    }

    fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, Failure> {
        let (sender, receiver) = oneshot::channel();
        self.core.blocking_send(Message::Courier(ask(sender))).map_err(|error| gone(&error.to_string()))?;
        receiver.blocking_recv().map_err(|error| gone(&error.to_string()))
    }
}

fn kept(new: u64) -> String {
    match new {
        0 => "Nothing of it was taken".to_owned(),
        n => format!("{n} entries that came before that are kept"),
    }
}

fn gone(error: &str) -> Failure {
    let text = format!("the daemon is ending ({error}); start it, and try again");
    Failure::new(FailureKind::Unreachable, text)
}

fn ended(outcome: Result<impl Serialize, Failure>) -> Answer {
    match outcome {
        Ok(done) => Answer::Done(json(&done)),
        Err(failure) => Answer::Failed(failure),
    }
}

fn on_a_thread(work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let thread = std::thread::Builder::new().name("bundle".to_owned()).spawn(work);
    thread.map(drop).map_err(|error| {
        let text = format!("cannot start a thread ({error}); is the machine full?");
        Failure::new(FailureKind::Failed, text)
    })
}

/// A bundle that has come, in a file of the node's folder that goes away with it.
pub(super) struct Incoming {
    path: PathBuf,
    file: File,
    bytes: u64,
    _held: tokio::sync::OwnedMutexGuard<()>,
}

impl Incoming {
    fn new(path: &Path, held: tokio::sync::OwnedMutexGuard<()>) -> Result<Self, CourierError> {
        // One that a killed process has left is of no use: nobody has checked it.
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Self { path: path.to_owned(), file, bytes: 0, _held: held })
    }

    /// Keeps a piece.
    pub fn keep(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|error| {
            let text = format!(
                "the bundle cannot be kept in {} while it is checked ({error}); make room on the disk, and try again",
                self.path.display()
            );
            Failure::new(FailureKind::Failed, text)
        })
    }

    fn read(&self) -> Result<BufReader<File>, CourierError> {
        Ok(BufReader::with_capacity(64 << 10, File::open(&self.path)?))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // If it stays, the next one takes its place.
        let _ = fs::remove_file(&self.path);
    }
}
