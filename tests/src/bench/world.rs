//! A hub, a leaf that holds records, and the bare loop's files of the same entries beside theirs.
//!
//! The root has enrolled the hub and is gone again: what is measured is one link, and two processes share the
//! machine, as in the bare loop. Every cold sync begins with a hub that is as it was before the first.

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use node::{
    admin::{Client, Request, Status, Synced, Written},
    config::{Config, DATABASE},
    fhir::population::Population,
    store::{Key, SqliteStore},
};
use serde_json::value::RawValue;
use sync_core::{codec::Writer, id::OrgId, identity::Role, store::Store};
use tempfile::TempDir;

use super::{
    bare::{self, Process, Transfer},
    memory,
};
use crate::cluster::Node;

/// Records of one import request, and of one transaction of the bare loop.
pub const IMPORT_CHUNK: usize = 1_000;
/// The seed of everything made up here.
pub const SEED: u64 = 20_251_122;
/// The leaf's organization.
pub const LEAF: &str = "dong-van";

/// What an import took, the product's and the bare loop's.
#[derive(Debug, Clone, Copy, Default)]
pub struct Import {
    pub seconds: f64,
    pub bare_seconds: f64,
}

/// Folding of what a cold sync has left unfolded, at the hub.
pub struct Folding {
    pub rows: u64,
    pub seconds: f64,
    pub cpu_seconds: f64,
}

/// One cold sync, the product's and the bare loop's.
#[derive(Debug, Clone)]
pub struct Cold {
    /// Until everything is durable at the hub.
    pub seconds: f64,
    /// Processor time of both until then.
    pub leaf_cpu_seconds: f64,
    pub hub_cpu_seconds: f64,
    pub leaf_peak_kib: u64,
    pub hub_peak_kib: u64,
    pub bare: Transfer,
    pub bare_hub_peak_kib: u64,
    pub bare_hub_cpu_seconds: f64,
}

/// See the module.
pub struct World {
    dir: TempDir,
    pub records: usize,
    pub hub: Node,
    pub leaf: Node,
    fresh_hub: PathBuf,
    pub import: Import,
    pub colds: Vec<Cold>,
}

/// The population's records as JSON texts.
pub fn texts(seed: u64, count: usize) -> impl Iterator<Item = String> {
    let org = OrgId::new(LEAF).expect("a good name");
    Population::records(seed, &org, count).map(|record| record.to_string())
}

pub fn put(texts: impl IntoIterator<Item = String>) -> Request {
    let raw = |text| RawValue::from_string(text).expect("the population is JSON");
    Request::Put { resources: texts.into_iter().map(raw).collect(), base: None, by: None, why: None }
}

impl World {
    /// Makes the nodes and imports the population's records at the leaf. Both are stopped then.
    pub fn new(records: usize) -> anyhow::Result<Self> {
        Self::of(records, texts(SEED, records))
    }

    /// The same with these records.
    pub fn of(records: usize, texts: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut world = Self::empty(records)?;
        world.leaf.start();
        world.import = import(&world.leaf, texts, &world.dir.path().join("import.db"))?;
        world.leaf.wait("folded", |status| status.unfolded == 0);
        world.leaf.stop();
        copy_entries(&world.leaf.dir, 0)?;
        Ok(world)
    }

    /// The same with so many entries at both, made without the daemons; there is nothing for the bare loop.
    pub fn filled(entries: usize) -> anyhow::Result<Self> {
        let world = Self::empty(entries)?;
        super::filled::fill(&world.hub.dir, &world.leaf.dir, entries, SEED)?;
        Ok(world)
    }

    fn empty(records: usize) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("tuyen-bench-").tempdir()?;
        let path = |name: &str| dir.path().join(name);
        let mut root = Node::root(&path("root"), "trung-uong");
        let mut hub = root.child(&path("hub"), Role::Hub, "ha-giang");
        let mut leaf = hub.child(&path("leaf"), Role::Leaf, LEAF);
        let _: Synced = leaf.ask(&Request::SyncPause);
        for node in [&mut root, &mut hub, &mut leaf] {
            node.stop();
        }
        let fresh_hub = path("hub.fresh");
        copy(&hub.dir, &fresh_hub)?;
        Ok(Self { dir, records, hub, leaf, fresh_hub, import: Import::default(), colds: Vec::new() })
    }

    /// Cold syncs, at least so many, product and bare loop in turn.
    pub fn colds(&mut self, at_least: usize) -> anyhow::Result<&[Cold]> {
        while self.colds.len() < at_least {
            let cold = self.cold()?;
            self.colds.push(cold);
        }
        Ok(&self.colds)
    }

    fn cold(&mut self) -> anyhow::Result<Cold> {
        self.reset_hub()?;
        self.start();
        let (leaf, hub) = (self.leaf.pid(), self.hub.pid());
        let cpu = (memory::cpu_seconds(leaf), memory::cpu_seconds(hub));
        let seconds = self.transfer()?;
        let (leaf_peak_kib, hub_peak_kib) = (memory::peak_kib(leaf), memory::peak_kib(hub));
        let after = (memory::cpu_seconds(leaf), memory::cpu_seconds(hub));
        self.pause();
        self.stop();
        let (bare, bare_hub) = self.bare_transfer()?;
        Ok(Cold {
            seconds,
            leaf_cpu_seconds: after.0 - cpu.0,
            hub_cpu_seconds: after.1 - cpu.1,
            leaf_peak_kib,
            hub_peak_kib,
            bare,
            bare_hub_peak_kib: bare_hub.peak_kib(),
            bare_hub_cpu_seconds: bare_hub.cpu_seconds(),
        })
    }

    /// A cold sync, and then the folding behind it.
    pub fn folding(&mut self) -> anyhow::Result<Folding> {
        self.reset_hub()?;
        self.start();
        self.transfer()?;
        let (began, cpu) = (Instant::now(), memory::cpu_seconds(self.hub.pid()));
        let rows = self.hub.status().unfolded;
        self.wait_folded();
        let cpu_seconds = memory::cpu_seconds(self.hub.pid()) - cpu;
        let folding = Folding { rows, seconds: began.elapsed().as_secs_f64(), cpu_seconds };
        self.pause();
        self.stop();
        Ok(folding)
    }

    /// A hub that has never heard of the leaf's records.
    pub fn reset_hub(&self) -> anyhow::Result<()> {
        std::fs::remove_dir_all(&self.hub.dir)?;
        copy(&self.fresh_hub, &self.hub.dir)
    }

    pub fn start(&mut self) {
        self.hub.start();
        self.leaf.start();
    }

    pub fn stop(&mut self) {
        self.hub.stop();
        self.leaf.stop();
    }

    /// Resumes syncing at the leaf and waits until everything is durable at the hub. Gives the time, and the
    /// bytes of frames of the whole exchange.
    pub fn resume(&self) -> anyhow::Result<(f64, u64)> {
        let before = traffic(&self.leaf.status());
        let seconds = self.transfer()?;
        std::thread::sleep(Duration::from_millis(300));
        Ok((seconds, traffic(&self.leaf.status()) - before))
    }

    fn transfer(&self) -> anyhow::Result<f64> {
        let mut client = Client::connect(&self.leaf.dir)?;
        let began = Instant::now();
        let _: Synced = client.call(&Request::SyncResume, |_| ())?;
        let _: Synced = client.call(&Request::SyncNow { wait: true, bulk: false }, |_| ())?;
        Ok(began.elapsed().as_secs_f64())
    }

    /// Ends the link, and waits until both sides know.
    pub fn pause(&self) {
        let _: Synced = self.leaf.ask(&Request::SyncPause);
        let apart = |status: &Status| status.down.iter().all(|link| link.state != "connected");
        self.hub.wait("apart", apart);
    }

    pub fn wait_folded(&self) {
        while self.hub.status().unfolded > 0 {
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Sends the bare loop's files to an empty bare hub; gives the hub's process too.
    pub fn bare_transfer(&self) -> anyhow::Result<(Transfer, Process)> {
        remove_database(&self.hub.dir.join(bare::DATABASE));
        let (hub, address) = Process::hub(&self.hub.dir)?;
        let transfer = Process::leaf(&self.leaf.dir, address)?.transfer()?;
        Ok((transfer, hub))
    }

    /// Where the hub listens.
    pub fn hub_address(&self) -> anyhow::Result<SocketAddr> {
        Ok(Config::load(&self.hub.dir)?.listen.expect("a hub listens"))
    }

    /// Lets the leaf, which is stopped, dial another address.
    pub fn dial(&self, address: SocketAddr) -> anyhow::Result<()> {
        let mut config = Config::load(&self.leaf.dir)?;
        config.parent = Some(address.to_string());
        Ok(config.save(&self.leaf.dir)?)
    }
}

/// Bytes of frames since a node's start.
pub fn traffic(status: &Status) -> u64 {
    status.sent_bytes + status.received_bytes
}

/// Appends the entries of a node's rows after one to the bare loop's file beside it. The node may run.
pub fn copy_entries(dir: &Path, after: u64) -> anyhow::Result<()> {
    let key = Key::read(&Config::load(dir)?.key_path(dir))?;
    let store = SqliteStore::open(&dir.join(DATABASE), &key)?;
    let mut bare = bare::open(&dir.join(bare::DATABASE))?;
    let mut bodies = Vec::new();
    for seq in after + 1..=store.tip()? {
        let entry = store.entry(seq)?.expect("a row has an entry");
        let mut body = Writer::default();
        entry.encode(&mut body);
        bodies.push(bare::hashed(body.0));
        if bodies.len() == bare::BATCH_ROWS {
            bare::append(&mut bare, &bodies)?;
            bodies.clear();
        }
    }
    bare::append(&mut bare, &bodies)
}

/// Imports at the leaf, and in turn, chunk by chunk, through a socket into a bare file.
fn import(leaf: &Node, texts: impl Iterator<Item = String>, bare_path: &Path) -> anyhow::Result<Import> {
    let mut client = Client::connect(&leaf.dir)?;
    let (mut near, far) = UnixStream::pair()?;
    let mut bare = bare::open(bare_path)?;
    let writer = std::thread::spawn(move || -> anyhow::Result<()> {
        let mut lines = BufReader::new(far.try_clone()?).lines();
        let mut far = far;
        while let Some(count) = lines.next().transpose()? {
            let transaction = bare.transaction()?;
            for line in lines.by_ref().take(count.parse()?) {
                transaction.prepare_cached("INSERT INTO text (body) VALUES (?1)")?.execute([line?])?;
            }
            transaction.commit()?;
            far.write_all(&[1])?;
        }
        Ok(())
    });
    let mut import = Import::default();
    let mut texts = texts.peekable();
    while texts.peek().is_some() {
        let chunk: Vec<_> = texts.by_ref().take(IMPORT_CHUNK).collect();
        let lines = format!("{}\n{}\n", chunk.len(), chunk.join("\n"));
        let began = Instant::now();
        near.write_all(lines.as_bytes())?;
        std::io::Read::read_exact(&mut near, &mut [0])?;
        import.bare_seconds += began.elapsed().as_secs_f64();
        let began = Instant::now();
        let written: Written = client.call(&put(chunk), |_| ())?;
        import.seconds += began.elapsed().as_secs_f64();
        anyhow::ensure!(written.rejected.is_empty(), "the population was refused");
    }
    drop(near);
    writer.join().map_err(|_| anyhow::anyhow!("the writing thread failed"))??;
    Ok(import)
}

pub fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()? {
            kind if kind.is_dir() => copy(&entry.path(), &target)?,
            kind if kind.is_file() => drop(std::fs::copy(entry.path(), target)?),
            _ => {}
        }
    }
    Ok(())
}

pub fn remove_database(path: &Path) {
    for end in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        // It need not be there.
        let _ = std::fs::remove_file(PathBuf::from(name));
    }
}
