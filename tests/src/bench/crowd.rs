//! Leaves without processes: the real engine on the reference store, over a real UDP socket and with certificates
//! that the hub's CA has issued, as many as a machine's memory holds.
//!
//! What a leaf says is what `tuyend` says, byte for byte, and so is when it dials again. Not here: anything that a
//! daemon does beside the engine.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use node::{
    ca::{Ca, Order, Own, TrustStore, TrustedClock},
    clock,
    keys::{Identity, Key},
    transport::{self, Link, LinkError, LinkSettings, Transport},
};
use quinn::{Connection, RecvStream, SendStream};
use sync_core::{
    change::Entry,
    codec::Writer,
    engine::{Effect, Engine, Event, LinkId, Ticket},
    fold::Opened,
    id::{Lane, OrgId, RecordId},
    identity::Role,
    record::Author,
    session::Direction,
    store::{MemStore, Op, Store, StoreMut},
    wire::{Deframer, Frame},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::bare;
use crate::sim::rng::Rng;

const SOFTWARE: &str = "tuyen bench";
/// The waits of `node::daemon::uplink`.
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_MOST: Duration = Duration::from_secs(60);
const READ_BYTES: usize = 64 << 10;

/// A leaf.
pub struct Leaf {
    engine: Engine<Own>,
    store: MemStore,
    dialler: Dialler,
    org: OrgId,
    rng: Rng,
    links: u64,
    tickets: u64,
}

/// What a leaf shows when it dials.
#[derive(Clone)]
pub struct Dialler {
    identity: Arc<Identity>,
    trust: Arc<TrustStore>,
}

impl Dialler {
    /// A handshake, from a socket of its own.
    pub async fn dial(&self, hub: SocketAddr) -> Result<(Transport, Link), LinkError> {
        let any = "127.0.0.1:0".parse().expect("this is an address");
        let settings = LinkSettings::default();
        let transport =
            Transport::bind(any, false, self.identity.clone(), self.trust.clone(), settings.clone())?;
        let link = transport.connect(hub, None, &settings).await?;
        Ok((transport, link))
    }
}

impl Leaf {
    /// A new leaf below the hub of this identity.
    pub fn below(hub: &Identity, org: OrgId, seed: u64) -> anyhow::Result<Self> {
        let key = Key::generate()?;
        let order = Order { org: org.clone(), role: Role::Leaf, key: *key.public(), ca_key: None };
        let grant = Ca::of(hub)?.issue(&order, clock::wall())?;
        let identity = Arc::new(Identity { key, chain: grant.chain, root: grant.root, ca: None });
        let trust = Arc::new(TrustStore::of(&identity, TrustedClock::new(clock::wall()))?);
        let store = MemStore::default();
        let engine = Engine::new(Own::new(identity.clone(), trust.clone())?, SOFTWARE, &store)?;
        let rng = Rng::new(seed, org.as_str());
        let dialler = Dialler { identity, trust };
        Ok(Self { engine, store, dialler, org, rng, links: 0, tickets: 0 })
    }

    /// Its organization.
    pub fn org(&self) -> &OrgId {
        &self.org
    }

    /// What it dials with.
    pub fn dialler(&self) -> Dialler {
        self.dialler.clone()
    }

    /// Writes new resources, given as JSON texts, at once.
    pub fn write(&mut self, texts: impl IntoIterator<Item = String>) -> anyhow::Result<()> {
        let (mut entries, mut projection) = (Vec::new(), Vec::new());
        for text in texts {
            let resource: serde_json::Value = serde_json::from_str(&text)?;
            let name = |field: &str| resource[field].as_str().context("a resource has a type and an id");
            let id: RecordId = format!("{}/{}", name("resourceType")?, name("id")?).parse()?;
            let mut opened = Opened::load(&self.store, &id)?;
            let incarnation = self.engine.incarnation();
            let author = Author { incarnation, wall: clock::wall(), by: None, software: SOFTWARE, why: None };
            let change = opened.record.put(&resource, None, &author)?.context("it is new")?;
            let lane = Lane::of_resource_type(id.resource_type());
            entries.push(Entry::new(id, self.org.clone(), lane, Arc::from(change.bytes))?);
            projection.push(Op::Project(opened.project(1)));
        }
        self.tickets += 1;
        let event = Event::Write { ticket: Ticket(self.tickets), entries, projection };
        let frames = self.handle(event)?;
        anyhow::ensure!(frames.is_empty(), "it writes while it is not connected");
        Ok(())
    }

    /// The last row of its feed.
    pub fn tip(&self) -> anyhow::Result<u64> {
        Ok(self.store.tip()?)
    }

    /// Rows behind one, as the bare loop keeps them.
    pub fn bodies(&self, after: u64) -> anyhow::Result<Vec<(Vec<u8>, [u8; 32])>> {
        let bodies = (after + 1..=self.store.tip()?).map(|seq| {
            let mut body = Writer::default();
            self.store.entry(seq)?.context("a row has an entry")?.encode(&mut body);
            Ok(bare::hashed(body.0))
        });
        bodies.collect()
    }

    /// Dials, again as a leaf does where it must, until everything written is durable at the hub, and says how often;
    /// then lives on as a leaf does, until it is to stop.
    pub async fn live(
        &mut self,
        hub: SocketAddr,
        served: mpsc::UnboundedSender<u32>,
        mut stop: watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let (mut dials, mut wait) = (0, BACKOFF_FIRST);
        loop {
            dials += 1;
            let mut served = Some(|| served.send(dials));
            if self.meet(hub, &mut served, &mut stop).await? {
                return Ok(());
            }
            anyhow::ensure!(served.is_some(), "the hub ended a link that was good");
            tokio::time::sleep(wait / 2 + wait.mul_f64(self.rng.below(256) as f64 / 255.0)).await;
            wait = (wait * 2).min(BACKOFF_MOST);
        }
    }

    /// One link. False when it did not come to be, or was ended.
    async fn meet<E>(
        &mut self,
        hub: SocketAddr,
        served: &mut Option<impl FnOnce() -> Result<(), E>>,
        stop: &mut watch::Receiver<bool>,
    ) -> anyhow::Result<bool> {
        let (_transport, link) = match self.dialler.dial(hub).await {
            Ok(met) => met,
            Err(LinkError::Busy { .. } | LinkError::Lost { .. } | LinkError::Silent { .. }) => {
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        };
        self.links += 1;
        let id = LinkId(self.links);
        let connection = link.connection().clone();
        let (mut control, receive) = connection.open_bi().await?;
        control.set_priority(3)?;
        let (arrived, mut frames) = mpsc::unbounded_channel();
        let mut readers = JoinSet::new();
        readers.spawn(read(receive, arrived.clone()));
        readers.spawn(accept_lanes(connection.clone(), arrived));
        let mut lanes = [None, None, None];
        let (peer, chain) = (link.peer().clone(), link.chain());
        let mut event = Event::Connected { link: id, peer, chain, direction: Direction::Up };
        loop {
            for frame in self.handle(event)? {
                if send(&connection, &mut control, &mut lanes, &frame).await.is_err() {
                    self.handle(Event::Closed(id))?;
                    return Ok(false);
                }
            }
            if self.engine.all_at_parent()
                && let Some(served) = served.take()
            {
                served().ok().context("somebody counts")?;
            }
            event = tokio::select! {
                frame = frames.recv() => Event::Received(id, frame.context("a reader waits for more")?),
                _ = connection.closed() => {
                    self.handle(Event::Closed(id))?;
                    return Ok(false);
                }
                _ = stop.wait_for(|stop| *stop) => {
                    connection.close(quinn::VarInt::from_u32(transport::DONE), b"paused");
                    self.handle(Event::Closed(id))?;
                    return Ok(true);
                }
            };
        }
    }

    fn handle(&mut self, event: Event) -> anyhow::Result<Vec<Frame>> {
        drive(&mut self.engine, &mut self.store, event)
    }
}

/// Tells an engine something, and does what it wants; gives the frames to send.
pub(super) fn drive(
    engine: &mut Engine<Own>,
    store: &mut impl StoreMut,
    event: Event,
) -> anyhow::Result<Vec<Frame>> {
    engine.handle(event, store, clock::now())?;
    let mut frames = Vec::new();
    while let Some(effect) = engine.poll_effect() {
        match effect {
            Effect::Commit(batch) => {
                store.commit(&batch)?;
                engine.handle(Event::Committed, store, clock::now())?;
            }
            Effect::Send(_, frame) => frames.push(frame),
            Effect::Written(_) => {}
            other => bail!("nothing else was to happen than {other:?}"),
        }
    }
    Ok(frames)
}

async fn send(
    connection: &Connection,
    control: &mut SendStream,
    lanes: &mut [Option<SendStream>; 3],
    frame: &Frame,
) -> anyhow::Result<()> {
    let Frame::Batch(batch) = frame else { return Ok(control.write_all(&frame.encode()).await?) };
    let stream = match &mut lanes[batch.lane as usize] {
        Some(stream) => stream,
        empty => {
            let mut stream = connection.open_uni().await?;
            stream.set_priority(2 - batch.lane as i32)?;
            stream.write_all(&[batch.lane as u8]).await?;
            empty.insert(stream)
        }
    };
    Ok(stream.write_all(&frame.encode()).await?)
}

async fn read(mut stream: RecvStream, arrived: mpsc::UnboundedSender<Frame>) {
    let mut deframer = Deframer::default();
    while let Ok(Some(chunk)) = stream.read_chunk(READ_BYTES, true).await {
        deframer.push(&chunk.bytes);
        while let Some(frame) = deframer.next_frame().expect("a hub sends frames") {
            if arrived.send(frame).is_err() {
                return;
            }
        }
    }
}

async fn accept_lanes(connection: Connection, arrived: mpsc::UnboundedSender<Frame>) {
    let mut readers = JoinSet::new();
    while let Ok(mut stream) = connection.accept_uni().await {
        let arrived = arrived.clone();
        readers.spawn(async move {
            if stream.read_exact(&mut [0]).await.is_ok() {
                read(stream, arrived).await;
            }
        });
    }
}
