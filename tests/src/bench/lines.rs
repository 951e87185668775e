//! How much of a bad line carries new data, in a steady state: a backlog that takes minutes, looked at from some time after
//! the first of it has arrived until some time before the last.
//!
//! Counted is what has come out at the receiving side: the product's frames, and the bare loop's bytes, which is one
//! stream over the same transport with the same settings that waits for nothing. What was sent twice counts once;
//! dialling and the first round trips are a figure of their own, and the last receipt is outside. Each product and each
//! bare loop has a line of its own, with the same draws, all at the same time: they need no processor. What was put on the line, and
//! what of it has arrived, is counted by the proxy. Two streams on one line are without the product. The same for files that are
//! attached to records, when nothing else wants the line.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use data_encoding::BASE64;
use node::{
    admin::{Request, Synced},
    transport::{Arrival, Congestion, Link, LinkSettings, Transport},
};
use tokio::runtime::Runtime;

use super::{
    Bench, bare,
    report::Figure,
    scenarios::Outcome,
    world::{World, copy},
};
use crate::{
    cluster::{Node, free_address},
    proxy::{Carried, HEADER_BYTES, Line, Proxy},
    sim::rng::Rng,
};

/// The draws of all lines.
const SEED: u64 = 3;
/// From when the first has arrived.
const SETTLES: Duration = Duration::from_secs(15);
/// How long it is looked at.
const LASTS: Duration = Duration::from_secs(120);
/// More has arrived than any session's first words.
const HAS_BEGUN_BYTES: u64 = 2_000;
/// What is written to a stream at once.
const CHUNK_BYTES: usize = 16 << 10;
/// A datagram, and what of it is not a stream's: the short header with a connection id of 8 bytes and a number of 2, the
/// head of a STREAM frame, the AEAD's tag.
const DATAGRAM_BYTES: f64 = 1_200.0;
const OVERHEAD_BYTES: f64 = 11.0 + 8.0 + 16.0;

/// Files that wait to go up, more than a line carries meanwhile, and how large each is.
const FILES: u64 = 3;
const FILE_BYTES: usize = 3_000_000;

/// What waits at the leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backlog {
    Records,
    Files,
}

/// A line with a deep buffer, as many modems have.
const DEEP_QUEUE: Duration = Duration::from_secs(60);

/// A line, and what is aimed at.
struct Case {
    name: &'static str,
    line: Line,
    congestion: Congestion,
    at_least: Option<f64>,
}

fn line(loss_percent: u64, kbits_per_second: u64, round_trip_millis: u64) -> Line {
    let delay = Duration::from_millis(round_trip_millis / 2);
    Line { loss_percent, bits_per_second: Some(kbits_per_second * 1_000), delay, queue: None }
}

fn cases() -> [Case; 6] {
    let (lossy, slow) = (line(15, 256, 300), line(5, 64, 600));
    let case = |name, line, congestion, at_least| Case { name, line, congestion, at_least };
    [
        case("256 kbit/s 300 ms 15 %, tolerant", lossy, Congestion::Tolerant, Some(55.0)),
        case("256 kbit/s 300 ms 15 %, cubic", lossy, Congestion::Cubic, None),
        case("256 kbit/s 300 ms 15 %, bbr", lossy, Congestion::Bbr, None),
        case("64 kbit/s 600 ms 5 %, tolerant", slow, Congestion::Tolerant, Some(80.0)),
        case("64 kbit/s 600 ms 5 %, cubic", slow, Congestion::Cubic, None),
        case("64 kbit/s 600 ms 5 %, bbr", slow, Congestion::Bbr, None),
    ]
}

/// What a line carried while it was looked at, in parts of what it could have carried.
#[derive(Debug, Clone, Copy)]
struct Share {
    /// New bytes that arrived.
    new: f64,
    /// Datagrams that arrived, with their headers.
    arrived: f64,
    /// All that was put on it: more than it can carry when the queue before it ran over.
    sent: f64,
    /// Milliseconds that a datagram waited in the queue, in the middle.
    queued_millis: f64,
    /// Seconds from dialling until the first arrived.
    first_seconds: f64,
}

/// What has been received on a line, and the line's own counts.
struct Meter<'a> {
    line: Line,
    carried: &'a Carried,
    received: &'a dyn Fn() -> u64,
}

impl Meter<'_> {
    fn counts(&self) -> [u64; 5] {
        let Carried { bytes, sent_bytes, sent, queued_micros, .. } = self.carried;
        let [arrived, sent_bytes, sent, queued] =
            [bytes, sent_bytes, sent, queued_micros].map(|count| count.load(Ordering::Relaxed));
        [(self.received)(), arrived, sent_bytes, sent, queued]
    }

    fn share(&self, dialled: Instant) -> Share {
        while (self.received)() < HAS_BEGUN_BYTES {
            thread::sleep(Duration::from_millis(20));
        }
        let first_seconds = dialled.elapsed().as_secs_f64();
        thread::sleep(SETTLES);
        let (began, before) = (Instant::now(), self.counts());
        thread::sleep(LASTS);
        let (took, after) = (began.elapsed().as_secs_f64(), self.counts());
        let could = self.line.bits_per_second.expect("these lines have a rate") as f64 / 8.0 * took;
        let [new, arrived, sent_bytes, sent, queued] =
            std::array::from_fn(|nth| (after[nth] - before[nth]) as f64);
        Share {
            new: new / could,
            arrived: arrived / could,
            sent: sent_bytes / could,
            queued_millis: queued / sent.max(1.0) / 1e3,
            first_seconds,
        }
    }
}

/// A record with a file.
fn document(nth: u64) -> String {
    let data = BASE64.encode(&Rng::new(nth, "a file").bytes(FILE_BYTES));
    serde_json::json!({"resourceType": "Binary", "id": format!("file-{nth}"), "contentType": "image/jpeg", "data": data})
        .to_string()
}

fn product(case: &Case, place: &Path, backlog: Backlog) -> anyhow::Result<Share> {
    let (mut hub, mut leaf) = (Node::at(&place.join("hub")), Node::at(&place.join("leaf")));
    let listen = free_address();
    let proxy = Proxy::to(listen, case.line, SEED);
    hub.configure(|config| config.listen = Some(listen));
    leaf.configure(|config| {
        config.parent = Some(proxy.address.to_string());
        config.link.congestion = case.congestion;
    });
    hub.start();
    leaf.start();
    if backlog == Backlog::Files {
        (0..FILES).for_each(|nth| drop(leaf.put([document(nth)])));
    }
    let dialled = Instant::now();
    let _: Synced = leaf.ask(&Request::SyncResume);
    let received = || hub.status().received_bytes;
    let share = Meter { line: case.line, carried: &proxy.up, received: &received }.share(dialled);
    let left = leaf.status();
    let left = match backlog {
        Backlog::Records => left.not_at_hub.entries,
        Backlog::Files => left.attachments.not_at_root,
    };
    anyhow::ensure!(left > 0, "there is too little for {}", case.name);
    leaf.kill();
    hub.kill();
    Ok(share)
}

/// One stream that is always full.
struct Stream {
    link: Link,
    received: Arc<AtomicU64>,
}

impl Stream {
    async fn open(
        leaf: &Transport,
        hub: Arc<Transport>,
        proxy: &Proxy,
        congestion: Congestion,
    ) -> anyhow::Result<Self> {
        let received = Arc::<AtomicU64>::default();
        let counted = received.clone();
        let receiving = tokio::spawn(async move {
            let knock = hub.accept().await.context("the socket is open")?;
            let Arrival::Node(link) = hub.finish(knock).await? else { anyhow::bail!("not a node") };
            anyhow::Ok(tokio::spawn(receive(link, counted)))
        });
        let settings = LinkSettings { congestion, ..LinkSettings::default() };
        let link = leaf.connect(proxy.address, None, &settings).await?;
        receiving.await??;
        tokio::spawn(send(link.clone()));
        Ok(Self { link, received })
    }
}

/// Until the connection ends.
async fn send(link: Link) -> anyhow::Result<()> {
    let mut stream = link.connection().open_uni().await?;
    loop {
        stream.write_all(&[0; CHUNK_BYTES]).await?;
    }
}

async fn receive(link: Link, received: Arc<AtomicU64>) -> anyhow::Result<()> {
    let mut stream = link.connection().accept_uni().await?;
    while let Some(chunk) = stream.read_chunk(usize::MAX, true).await? {
        received.fetch_add(chunk.bytes.len() as u64, Ordering::Relaxed);
    }
    Ok(())
}

/// Streams of these controllers on one line, all of them at the same time.
fn bare_loop(line: Line, congestions: &[Congestion], place: &Path) -> anyhow::Result<Vec<Share>> {
    let runtime = Runtime::new()?;
    let _guard = runtime.enter();
    let hub = Arc::new(bare::transport(&place.join("hub"), true)?);
    let leaf = bare::transport(&place.join("leaf"), false)?;
    let proxy = Proxy::to(hub.local_address()?, line, SEED);
    let dialled = Instant::now();
    let open =
        |congestion: &Congestion| runtime.block_on(Stream::open(&leaf, hub.clone(), &proxy, *congestion));
    let streams = congestions.iter().map(open).collect::<anyhow::Result<Vec<_>>>()?;
    let share = |stream: &Stream| {
        let received = || stream.received.load(Ordering::Relaxed);
        Meter { line, carried: &proxy.up, received: &received }.share(dialled)
    };
    let shares = thread::scope(|scope| {
        let started: Vec<_> = streams.iter().map(|stream| scope.spawn(|| share(stream))).collect();
        started.into_iter().map(|one| one.join().expect("it does not panic")).collect()
    });
    streams.iter().for_each(|stream| stream.link.connection().close(0u32.into(), b"done"));
    Ok(shares)
}

/// What a sender reaches that sends new data alone, and what is lost once more: of what is put on the line, the part that
/// arrives, without headers.
fn perfect(line: Line) -> f64 {
    let payload = (DATAGRAM_BYTES - OVERHEAD_BYTES) / (DATAGRAM_BYTES + HEADER_BYTES as f64);
    (100 - line.loss_percent) as f64 / 100.0 * payload
}

/// Tolerant beside Cubic, without the product.
struct Pair {
    name: &'static str,
    line: Line,
    /// On one line, each of which is to get its share; otherwise on a line each, and what counts is the queue.
    together: bool,
}

fn pairs() -> [Pair; 3] {
    let pair = |name, line, together| Pair { name, line, together };
    let deep = Line { queue: Some(DEEP_QUEUE), ..line(0, 64, 600) };
    [
        pair("one line of 1 Mbit/s 100 ms, tolerant beside cubic", line(0, 1_000, 100), true),
        pair("the same with 2 %", line(2, 1_000, 100), true),
        pair("64 kbit/s 600 ms, queue of a minute, tolerant and cubic: waits", deep, false),
    ]
}

impl Pair {
    fn measure(&self, place: &Path) -> anyhow::Result<[Share; 2]> {
        let both = [Congestion::Tolerant, Congestion::Cubic];
        if self.together {
            let shares = bare_loop(self.line, &both, place)?;
            return Ok([shares[0], shares[1]]);
        }
        thread::scope(|scope| {
            let started = both.map(|one| scope.spawn(move || bare_loop(self.line, &[one], place)));
            let [tolerant, cubic] = started.map(|one| one.join().expect("it does not panic"));
            Ok([tolerant?[0], cubic?[0]])
        })
    }

    fn figure(&self, [tolerant, cubic]: [Share; 2]) -> Figure {
        match self.together {
            true => Figure::new("lines", 0, self.name, "%", 100.0 * tolerant.new).against(100.0 * cubic.new),
            false => {
                Figure::new("lines", 0, self.name, "ms", tolerant.queued_millis).beside(cubic.queued_millis)
            }
        }
    }
}

/// Records.
pub fn lines(bench: &mut Bench, records: usize) -> Outcome {
    measure(bench, records, Backlog::Records, &cases(), &pairs())
}

/// Files that are attached to records.
pub fn files(bench: &mut Bench, records: usize) -> Outcome {
    let cases: Vec<_> = cases().into_iter().filter(|case| case.congestion == Congestion::Tolerant).collect();
    let cases: Vec<_> = cases.into_iter().map(|case| Case { at_least: None, ..case }).collect();
    measure(bench, records, Backlog::Files, &cases, &[])
}

fn measure(bench: &mut Bench, records: usize, backlog: Backlog, cases: &[Case], pairs: &[Pair]) -> Outcome {
    let world: &World = bench.world(records)?;
    let dir = tempfile::Builder::new().prefix("tuyen-bench-lines-").tempdir()?;
    let place = |nth: usize| dir.path().join(nth.to_string());
    for nth in 0..cases.len() + pairs.len() {
        copy(&world.hub.dir, &place(nth).join("hub"))?;
        copy(&world.leaf.dir, &place(nth).join("leaf"))?;
    }
    eprintln!("... all lines at once, for {} s", (SETTLES + LASTS).as_secs());
    let mut figures = Vec::new();
    thread::scope(|scope| {
        let of_cases = (0..).zip(cases).map(|(nth, case)| {
            let (own, bare) = (place(nth), place(nth));
            let bare = scope.spawn(move || bare_loop(case.line, &[case.congestion], &bare));
            (case, scope.spawn(move || product(case, &own, backlog)), bare)
        });
        let of_cases: Vec<_> = of_cases.collect();
        let of_pairs: Vec<_> = (cases.len()..)
            .zip(pairs)
            .map(|(nth, pair)| {
                let place = place(nth);
                (pair, scope.spawn(move || pair.measure(&place)))
            })
            .collect();
        for (case, own, bare) in of_cases {
            let own = own.join().expect("it does not panic")?;
            let bare = bare.join().expect("it does not panic")?[0];
            figures.extend(of_case(case, records, backlog, own, bare));
        }
        for (pair, shares) in of_pairs {
            figures.push(pair.figure(shares.join().expect("it does not panic")?));
        }
        anyhow::Ok(())
    })?;
    Ok(figures)
}

fn of_case(case: &Case, records: usize, backlog: Backlog, own: Share, bare: Share) -> [Figure; 6] {
    let scenario = if backlog == Backlog::Records { "lines" } else { "files" };
    let figure = |what: &str, unit, product| {
        Figure::new(scenario, records, format!("{}: {what}", case.name), unit, product)
    };
    let new = figure("new data", "%", 100.0 * own.new).against(100.0 * bare.new);
    [
        match case.at_least {
            Some(limit) => new.at_least(limit),
            None => new,
        },
        figure("a perfect sender's", "%", 100.0 * perfect(case.line)),
        figure("arrived, with headers", "%", 100.0 * own.arrived).against(100.0 * bare.arrived),
        figure("put on the line", "%", 100.0 * own.sent).beside(100.0 * bare.sent),
        figure("waits in the queue", "ms", own.queued_millis).beside(bare.queued_millis),
        figure("until the first has arrived", "s", own.first_seconds).beside(bare.first_seconds),
    ]
}
