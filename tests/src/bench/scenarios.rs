//! What is measured, and how.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use node::{
    admin::{Audit, Client, Request, Verified, Written},
    config::{Config, DATABASE},
    fhir::population::{Population, edit},
};
use rusqlite::params;
use sync_core::id::OrgId;

use super::{
    Bench,
    bare::{self, Process},
    line::Line,
    memory as process,
    report::{Figure, median, percentile},
    world::{self, Cold, SEED, World},
};
use crate::{
    cluster::{BackupKey, Node},
    run::tuyen,
};

/// Pairs of a small cold sync, and of a large one.
const COLD_SMALL: usize = 5;
const COLD_LARGE: usize = 3;
const FOLDINGS: usize = 3;
/// Pairs of everything that takes no time.
const TURNS: usize = 5;
const CHANGED: usize = 100;
const SINGLE_WRITES: usize = 1_000;
const IDLE_RECORDS: usize = 20_000;
const IDLE_AFTER: Duration = Duration::from_secs(3);
/// One way. Long beside everything that a machine does in an exchange, so that time counts round trips.
const DELAY: Duration = Duration::from_millis(100);
const MIB: f64 = 1024.0;

pub type Outcome = anyhow::Result<Vec<Figure>>;

pub fn import(bench: &mut Bench, records: usize) -> Outcome {
    let import = bench.world(records)?.import;
    let rate = |seconds: f64| records as f64 / seconds;
    Ok(vec![
        Figure::new("import", records, "imported through the socket", "records/s", rate(import.seconds))
            .against(rate(import.bare_seconds)),
    ])
}

pub fn write(bench: &mut Bench, records: usize) -> Outcome {
    let world = bench.world(records)?;
    world.leaf.start();
    let mut bare = bare::open(&world.leaf.dir.join("write.db"))?;
    let mut client = Client::connect(&world.leaf.dir)?;
    let (mut product, mut bares) = (Vec::new(), Vec::new());
    for text in world::texts(SEED + 1, SINGLE_WRITES) {
        let row = [bare::hashed(text.clone().into_bytes())];
        let began = Instant::now();
        bare::append(&mut bare, &row)?;
        bares.push(began.elapsed().as_secs_f64() * 1e3);
        let request = world::put([text]);
        let began = Instant::now();
        let written: Written = client.call(&request, |_| ())?;
        product.push(began.elapsed().as_secs_f64() * 1e3);
        anyhow::ensure!(written.written.len() == 1, "a new record was written");
    }
    world.leaf.stop();
    world::copy_entries(&world.leaf.dir, records as u64)?;
    let p = |of: &Vec<f64>, part| percentile(of.iter().copied(), part);
    Ok(vec![
        Figure::new("write", records, "durable write of one record, p50", "ms", p(&product, 0.5))
            .beside(p(&bares, 0.5))
            .within(3.0),
        Figure::new("write", records, "durable write of one record, p99", "ms", p(&product, 0.99))
            .beside(p(&bares, 0.99)),
    ])
}

pub fn cold_10k(bench: &mut Bench, records: usize) -> Outcome {
    cold("cold-10k", bench, records, COLD_SMALL)
}

pub fn cold_100k(bench: &mut Bench, records: usize) -> Outcome {
    cold("cold-100k", bench, records, COLD_LARGE)
}

fn cold(name: &'static str, bench: &mut Bench, records: usize, turns: usize) -> Outcome {
    let colds = bench.world(records)?.colds(turns)?;
    let middle = |of: fn(&Cold) -> f64| median(colds.iter().map(of));
    let mut time = Figure::new(name, records, "until durable at the hub", "s", middle(|c| c.seconds))
        .beside(middle(|c| c.bare.seconds));
    time.ratio = Some(middle(|c| c.seconds / c.bare.seconds));
    let rows = |c: &Cold| c.bare.rows as f64;
    let rate = median(colds.iter().map(|c| rows(c) / c.seconds));
    let bare_rate = median(colds.iter().map(|c| rows(c) / c.bare.seconds));
    let micros = |of: fn(&Cold) -> f64| median(colds.iter().map(|c| of(c) / rows(c) * 1e6));
    Ok(vec![
        time.within(2.0),
        Figure::new(name, records, "the same", "records/s", rate).against(bare_rate),
        Figure::new(name, records, "processor time a record, leaf", "us", micros(|c| c.leaf_cpu_seconds))
            .beside(micros(|c| c.bare.cpu_seconds)),
        Figure::new(name, records, "processor time a record, hub", "us", micros(|c| c.hub_cpu_seconds))
            .beside(micros(|c| c.bare_hub_cpu_seconds)),
    ])
}

pub fn fold(bench: &mut Bench, records: usize) -> Outcome {
    let world = bench.world(records)?;
    let (mut rates, mut a_core, mut bares) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..FOLDINGS {
        let folding = world.folding()?;
        rates.push(folding.rows as f64 / folding.seconds);
        a_core.push(folding.rows as f64 / folding.cpu_seconds);
        world.bare_transfer()?;
        bares.push(bare_fold(world)?);
    }
    Ok(vec![
        Figure::new("fold", records, "folded behind", "records/s", median(rates)).against(median(bares)),
        Figure::new("fold", records, "folded for each second of a core", "records/s", median(a_core))
            .at_least(5_000.0),
    ])
}

/// Reads the received rows and writes the resources' texts, durably.
fn bare_fold(world: &World) -> anyhow::Result<f64> {
    let mut conn = bare::open(&world.hub.dir.join(bare::DATABASE))?;
    let texts: Vec<_> = world::texts(SEED, world.records).collect();
    let began = Instant::now();
    for (nth, chunk) in texts.chunks(bare::BATCH_ROWS).enumerate() {
        let transaction = conn.transaction()?;
        let mut read = transaction.prepare_cached("SELECT body FROM log WHERE seq = ?1")?;
        let mut write = transaction.prepare_cached("INSERT INTO text (seq, body) VALUES (?1, ?2)")?;
        for (seq, text) in (nth * bare::BATCH_ROWS + 1..).zip(chunk) {
            let body: Vec<u8> = read.query_row([seq as i64], |row| row.get(0))?;
            anyhow::ensure!(!body.is_empty(), "a row has a body");
            write.execute(params![seq as i64, text])?;
        }
        drop((read, write));
        transaction.commit()?;
    }
    Ok(texts.len() as f64 / began.elapsed().as_secs_f64())
}

pub fn wire(bench: &mut Bench, records: usize) -> Outcome {
    let world = bench.world(records)?;
    world.reset_hub()?;
    let address = world.hub_address()?;
    let line = Line::to(address, Duration::ZERO)?;
    world.dial(line.address)?;
    world.start();
    let (_, frames) = world.resume()?;
    let datagrams = line.bytes();
    let entries = world.leaf.status().entries as f64;
    world.pause();
    world.stop();
    world.dial(address)?;
    let (bare_hub, bare_address) = Process::hub(&world.hub.dir)?;
    let bare_line = Line::to(bare_address, Duration::ZERO)?;
    let bare = Process::leaf(&world.leaf.dir, bare_line.address)?.transfer()?;
    drop(bare_hub);
    let each = |bytes: u64| bytes as f64 / entries;
    Ok(vec![
        Figure::new("wire", records, "bytes of frames a record", "B", each(frames))
            .beside(each(bare.bytes))
            .at_most(220.0),
        Figure::new("wire", records, "bytes of datagrams a record", "B", each(datagrams))
            .beside(each(bare_line.bytes()))
            .at_most(220.0),
    ])
}

/// Hub and leaf with the same records, folded, connected; the bare loop's likewise.
fn synced(bench: &mut Bench, records: usize) -> anyhow::Result<&mut World> {
    let world = bench.world(records)?;
    sync(world)?;
    Ok(world)
}

fn sync(world: &mut World) -> anyhow::Result<()> {
    world.reset_hub()?;
    world.bare_transfer()?;
    world.start();
    world.resume()?;
    world.wait_folded();
    Ok(())
}

pub fn changed(bench: &mut Bench, records: usize) -> Outcome {
    let world = synced(bench, records)?;
    let (bare_hub, address) = Process::hub(&world.hub.dir)?;
    let mut bare_leaf = Process::leaf(&world.leaf.dir, address)?;
    let (mut times, mut bares, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let (mut bytes, mut bare_bytes) = (0, 0);
    for turn in 0..TURNS {
        world.pause();
        let before = world.leaf.status().entries;
        world.leaf.put(edited(records, turn as u64));
        world::copy_entries(&world.leaf.dir, before)?;
        let (seconds, moved) = world.resume()?;
        let bare = bare_leaf.transfer()?;
        anyhow::ensure!(bare.rows as usize == CHANGED.min(records), "{} records were changed", bare.rows);
        (bytes, bare_bytes) = (bytes + moved, bare_bytes + bare.bytes);
        times.push(seconds * 1e3);
        bares.push(bare.seconds * 1e3);
        ratios.push(seconds / bare.seconds);
    }
    drop(bare_hub);
    world.pause();
    world.stop();
    let each = |bytes: u64| bytes as f64 / (TURNS * CHANGED) as f64;
    let mut time =
        Figure::new("changed", records, "100 changed, until durable at the hub", "ms", median(times))
            .beside(median(bares));
    time.ratio = Some(median(ratios));
    Ok(vec![
        time,
        Figure::new("changed", records, "bytes of frames a changed record", "B", each(bytes))
            .beside(each(bare_bytes))
            .at_most(350.0),
    ])
}

/// A hundred records of the population, spread over it, each edited as a clinician would.
fn edited(records: usize, number: u64) -> Vec<String> {
    let step = (records / CHANGED / 4).max(1);
    let all = world::texts(SEED, records).step_by(1).enumerate();
    let mut edited = Vec::new();
    let mut next = 0;
    for (index, text) in all {
        if index < next || edited.len() == CHANGED {
            continue;
        }
        let resource = serde_json::from_str(&text).expect("the population is JSON");
        let changed = edit::edit_phone(&resource, number)
            .or_else(|| edit::edit_blood_pressure(&resource, number))
            .or_else(|| edit::edit_dose(&resource, number));
        if let Some(changed) = changed {
            edited.push(changed.to_string());
            next = index + step;
        }
    }
    edited
}

pub fn audit(bench: &mut Bench, records: usize) -> Outcome {
    audited("audit", synced(bench, records)?)
}

pub fn audit_1m(_: &mut Bench, entries: usize) -> Outcome {
    let mut world = World::filled(entries)?;
    world.start();
    world.resume()?;
    audited("audit-1m", &mut world)
}

fn audited(name: &'static str, world: &mut World) -> Outcome {
    let records = world.records;
    let (equal, equal_bytes) = compared(&world.leaf)?;
    anyhow::ensure!((equal.here, equal.there) == (0, 0), "they hold the same");
    world.pause();
    world.stop();
    // The hub loses every trace of some entries.
    let key = std::fs::read_to_string(Config::load(&world.hub.dir)?.key_path(&world.hub.dir))?;
    let raw = rusqlite::Connection::open(world.hub.dir.join(DATABASE))?;
    raw.execute_batch(&format!("PRAGMA key = \"x'{}'\"; PRAGMA cipher_page_size = 8192", key.trim()))?;
    let every = records / CHANGED;
    raw.execute_batch(&format!(
        "DELETE FROM change WHERE seq % {every} = 3; DELETE FROM feed WHERE seq % {every} = 3"
    ))?;
    drop(raw);
    world.start();
    world.resume()?;
    // The hub finds out what its digests count too much.
    let _: Verified = Client::connect(&world.hub.dir)?.call(&Request::Verify { with: None }, |_| ())?;
    let (healed, bytes) = compared(&world.leaf)?;
    anyhow::ensure!(healed.there == CHANGED as u64, "{} of {CHANGED} came back", healed.there);
    world.pause();
    world.stop();
    Ok(vec![
        Figure::new(name, records, "equal: bytes of frames, both ways", "B", equal_bytes as f64)
            .at_most(1_000.0),
        Figure::new(name, records, "equal: time", "ms", equal.millis as f64).at_most(100.0),
        Figure::new(name, records, "100 lacking: bytes of frames, with the entries", "B", bytes as f64)
            .at_most(100_000.0),
        Figure::new(
            name,
            records,
            "100 lacking: time, with the reading of all rows",
            "s",
            healed.millis as f64 / 1e3,
        ),
    ])
}

/// An audit of the leaf with its hub, once neither has anything else to do, and the bytes of frames while it lasted.
fn compared(leaf: &Node) -> anyhow::Result<(Audit, u64)> {
    let with = Config::load(&leaf.dir)?.place.parent().expect("a leaf has a parent").org().clone();
    loop {
        let before = world::traffic(&leaf.status());
        let mut client = Client::connect(&leaf.dir)?;
        match client.call::<Verified>(&Request::Verify { with: Some(with.clone()) }, |_| ()) {
            Ok(verified) => {
                let audit = verified.audit.expect("an audit was ordered");
                return Ok((audit, world::traffic(&leaf.status()) - before));
            }
            Err(failure) if failure.text.contains("something else") => std::thread::sleep(IDLE_AFTER),
            Err(failure) => return Err(failure.into()),
        }
    }
}

pub fn unchanged(bench: &mut Bench, records: usize) -> Outcome {
    nothing_new("unchanged", synced(bench, records)?)
}

/// As many compartments as records: patients and nothing else.
pub fn compartments(_: &mut Bench, patients: usize) -> Outcome {
    let all = Population::patients(SEED, &OrgId::new(world::LEAF)?);
    let mut world = World::of(patients, all.take(patients).map(|patient| patient.to_string()))?;
    sync(&mut world)?;
    nothing_new("compartments", &mut world)
}

fn nothing_new(name: &'static str, world: &mut World) -> Outcome {
    let records = world.records;
    world.pause();
    world.stop();
    let address = world.hub_address()?;
    let line = Line::to(address, DELAY)?;
    world.dial(line.address)?;
    world.start();
    let (bare_hub, bare_address) = Process::hub(&world.hub.dir)?;
    let bare_line = Line::to(bare_address, DELAY)?;
    let mut bare_leaf = Process::leaf(&world.leaf.dir, bare_line.address)?;
    let (mut trips, mut bare_trips, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
    let mut datagrams = (0, 0);
    for _ in 0..TURNS {
        let before = (line.bytes(), bare_line.bytes());
        let (seconds, frames) = world.resume()?;
        world.pause();
        let bare = bare_leaf.transfer()?;
        anyhow::ensure!(bare.rows == 0, "nothing was changed");
        datagrams = (line.bytes() - before.0, bare_line.bytes() - before.1);
        let round_trip = 2.0 * DELAY.as_secs_f64();
        trips.push(seconds / round_trip);
        bare_trips.push(bare.seconds / round_trip);
        bytes.push(frames as f64);
    }
    drop(bare_hub);
    world.stop();
    world.dial(address)?;
    // The bare loop connects, asks once and is answered once: the handshake's round trips and one more.
    let (trips, bare_trips) = (median(trips), median(bare_trips));
    let handshake = bare_trips.floor() - 1.0;
    Ok(vec![
        Figure::new(name, records, "bytes of frames, both ways", "B", median(bytes)).at_most(400.0),
        Figure::new(name, records, "round trips behind the handshake", "", trips - handshake)
            .beside(bare_trips - handshake)
            .at_most(1.5),
        Figure::new(name, records, "bytes of datagrams with the handshake", "B", datagrams.0 as f64)
            .beside(datagrams.1 as f64),
    ])
}

/// A backup of a leaf that runs, beside a durable copy of the same database, file by file.
pub fn backup(bench: &mut Bench, records: usize) -> Outcome {
    let world = bench.world(records)?;
    let dir = tempfile::Builder::new().prefix("tuyen-bench-backup-").tempdir_in(&world.leaf.dir)?;
    let key = BackupKey::new(&dir.path().join("key"));
    world.leaf.start();
    let (idle, cpu) = (process::peak_kib(world.leaf.pid()), process::cpu_seconds(world.leaf.pid()));
    let (mut times, mut bares, mut ratios, mut command) = (Vec::new(), Vec::new(), Vec::new(), 0);
    let (mut size, mut bare_size) = (0, 0);
    let file = dir.path().join("backup");
    for _ in 0..TURNS {
        let _ = fs::remove_file(&file);
        let began = Instant::now();
        let made = world.leaf.back_up(&key, &file).expect(0);
        let seconds = began.elapsed().as_secs_f64();
        command = command.max(made.peak_kib);
        size = fs::metadata(&file)?.len();
        let began = Instant::now();
        bare_size = copy_database(&world.leaf.dir, dir.path())?;
        let bare = began.elapsed().as_secs_f64();
        times.push(seconds);
        bares.push(bare);
        ratios.push(seconds / bare);
    }
    let daemon = process::peak_kib(world.leaf.pid());
    let cpu = (process::cpu_seconds(world.leaf.pid()) - cpu) / TURNS as f64;
    let began = Instant::now();
    let name = |path: &Path| path.to_str().expect("a good name").to_owned();
    let checked =
        tuyen(dir.path(), &["backup", "verify", &name(&file), "--key", &name(&key.path)], b"").expect(0);
    let verify = began.elapsed().as_secs_f64();
    world.leaf.stop();
    let mut time = Figure::new("backup", records, "made, durable", "s", median(times)).beside(median(bares));
    time.ratio = Some(median(ratios));
    let mb = |bytes: u64| bytes as f64 / 1e6;
    Ok(vec![
        time,
        Figure::new("backup", records, "the daemon's processor time", "s", cpu),
        Figure::new("backup", records, "size", "MB", mb(size)).beside(mb(bare_size)),
        Figure::new("backup", records, "checked", "s", verify),
        Figure::new("backup", records, "the daemon's peak before", "MiB", idle as f64 / MIB),
        Figure::new("backup", records, "the daemon's peak", "MiB", daemon as f64 / MIB),
        Figure::new("backup", records, "the peak of create", "MiB", command as f64 / MIB),
        Figure::new("backup", records, "the peak of verify", "MiB", checked.peak_kib as f64 / MIB),
    ])
}

/// Copies a database and its log, and makes the copy durable; gives its size.
fn copy_database(from: &Path, to: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for end in ["", "-wal"] {
        let name = format!("{DATABASE}{end}");
        bytes += fs::copy(from.join(&name), to.join(&name))?;
        fs::File::open(to.join(&name))?.sync_all()?;
    }
    fs::File::open(to)?.sync_all()?;
    Ok(bytes)
}

pub fn memory(bench: &mut Bench, records: usize) -> Outcome {
    let colds = bench.world(records)?.colds(1)?;
    let most = |of: fn(&Cold) -> u64| colds.iter().map(of).max().unwrap_or(0) as f64 / MIB;
    let mut figures = vec![
        Figure::new("memory", records, "the hub's peak while it receives", "MiB", most(|c| c.hub_peak_kib))
            .beside(most(|c| c.bare_hub_peak_kib))
            .at_most(200.0),
        Figure::new("memory", records, "the leaf's peak while it sends", "MiB", most(|c| c.leaf_peak_kib))
            .beside(most(|c| c.bare.peak_kib)),
    ];
    let idle_records = bench.records.unwrap_or(IDLE_RECORDS);
    let world = bench.world(idle_records)?;
    world.reset_hub()?;
    world.start();
    world.resume()?;
    std::thread::sleep(IDLE_AFTER);
    let after = process::resident_kib(world.leaf.pid()) as f64 / MIB;
    world.pause();
    world.leaf.stop();
    world.leaf.start();
    std::thread::sleep(IDLE_AFTER);
    let idle = process::resident_kib(world.leaf.pid()) as f64 / MIB;
    world.stop();
    figures.push(Figure::new("memory", idle_records, "an idle leaf", "MiB", idle).at_most(60.0));
    figures.push(
        Figure::new("memory", idle_records, "a leaf that has just sent all", "MiB", after).at_most(60.0),
    );
    Ok(figures)
}
