//! Two stores with a million entries in a minute or two, where an import takes ten.
//!
//! The engines of both nodes run here, on the stores of their folders, and hand each other their frames in memory:
//! every entry is written, sent, checked and committed as ever. The changes are opaque, and nothing is folded: both sides
//! are told that they are, so that the daemons have nothing else to do.

use std::{collections::VecDeque, path::Path, sync::Arc};

use node::{
    ca::{Own, TrustStore, TrustedClock},
    clock,
    config::{Config, DATABASE},
    keys::IdentityFolder,
    store::{Key, SqliteStore},
};
use sync_core::{
    change::{Entry, opaque_chunk},
    engine::{Engine, Event, Identity, LinkId, Ticket},
    id::{Lane, RecordId},
    session::Direction,
    store::{Op, Store},
    time::Stamp,
    wire::Frame,
};

use super::crowd::drive;
use crate::sim::rng::Rng;

/// Entries of a record.
const ENTRIES_EACH: usize = 10;
/// Bytes of a change's body, which do not compress.
const BODY_BYTES: usize = 100;
/// Entries of a transaction.
const CHUNK: usize = 1_000;
const LINK: LinkId = LinkId(1);

struct Side {
    engine: Engine<Own>,
    store: SqliteStore,
}

/// Fills the stores of two folders, whose daemons are stopped, with so many entries of the leaf's.
pub fn fill(hub: &Path, leaf: &Path, entries: usize, seed: u64) -> anyhow::Result<()> {
    let (mut hub, mut leaf) = (Side::of(hub)?, Side::of(leaf)?);
    let connected = |peer: &Side, direction| {
        let identity = peer.engine.identity();
        let chain = identity.files().chain.iter().map(|der| der.to_vec()).collect();
        Event::Connected { link: LINK, peer: identity.info().clone(), chain, direction }
    };
    let up = leaf.handle(connected(&hub, Direction::Up))?;
    let down = hub.handle(connected(&leaf, Direction::Down))?;
    talk(&mut leaf, &mut hub, (up, down))?;
    let mut rng = Rng::new(seed, "bodies");
    for first in (0..entries).step_by(CHUNK) {
        let numbers = first..entries.min(first + CHUNK);
        let entries = numbers.map(|number| leaf.entry(number, &mut rng)).collect::<anyhow::Result<_>>()?;
        let up = leaf.handle(Event::Write { ticket: Ticket(1), entries, projection: Vec::new() })?;
        talk(&mut leaf, &mut hub, (up, Vec::new()))?;
        // Or the daemons would have to do it while they are measured.
        leaf.store.checkpoint()?;
        hub.store.checkpoint()?;
    }
    for side in [&mut leaf, &mut hub] {
        let all = side.store.tip()?;
        side.handle(Event::Folded(vec![Op::Folded(all)]))?;
        side.store.checkpoint()?;
    }
    anyhow::ensure!(leaf.engine.all_at_parent(), "everything has arrived");
    Ok(())
}

/// Passes frames on until nobody says anything.
fn talk(leaf: &mut Side, hub: &mut Side, said: (Vec<Frame>, Vec<Frame>)) -> anyhow::Result<()> {
    let (mut up, mut down) = (VecDeque::from(said.0), VecDeque::from(said.1));
    while !(up.is_empty() && down.is_empty()) {
        if let Some(frame) = up.pop_front() {
            down.extend(hub.handle(Event::Received(LINK, frame))?);
        }
        if let Some(frame) = down.pop_front() {
            up.extend(leaf.handle(Event::Received(LINK, frame))?);
        }
    }
    Ok(())
}

impl Side {
    fn of(dir: &Path) -> anyhow::Result<Self> {
        let identity = Arc::new(IdentityFolder::of_node(dir).load()?);
        let trust = Arc::new(TrustStore::of(&identity, TrustedClock::new(clock::wall()))?);
        let key = Key::read(&Config::load(dir)?.key_path(dir))?;
        let store = SqliteStore::open(&dir.join(DATABASE), &key)?;
        Ok(Self { engine: Engine::new(Own::new(identity, trust)?, "tuyen bench", &store)?, store })
    }

    fn entry(&self, number: usize, rng: &mut Rng) -> anyhow::Result<Entry> {
        let record: RecordId = format!("Observation/o{}", number / ENTRIES_EACH).parse()?;
        let (run, home) = (self.engine.incarnation(), self.engine.info().place.org().clone());
        let at = Stamp(clock::wall());
        let chunk = opaque_chunk(run, number as u64 + 1, &[], at, &rng.bytes(BODY_BYTES));
        Ok(Entry::new(record, home, Lane::Normal, chunk)?)
    }

    fn handle(&mut self, event: Event) -> anyhow::Result<Vec<Frame>> {
        drive(&mut self.engine, &mut self.store, event)
    }
}
