//! The bare loop: what any program that moves these bytes has to do, and nothing else.
//!
//! Two processes of this very program, with the identities of the two nodes, speak over the product's own
//! transport. One reads rows of an encrypted SQLite file in order and sends them in zstd frames of 1,000 rows, the
//! other unpacks them, computes each row's SHA-256, writes them to an encrypted SQLite file (WAL,
//! `synchronous=EXTRA`, one transaction a frame) and acknowledges. There is no CRDT, no engine, no index, no
//! second copy and no question whether a row is known already, so nothing that keeps records can be faster by
//! much.

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, bail};
use node::{
    ca::{TrustStore, TrustedClock},
    keys::IdentityFolder,
    transport::{Arrival, Link, LinkSettings, Transport},
};
use quinn::{RecvStream, SendStream};
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use sync_core::codec::{Reader, Writer};
use tokio::sync::mpsc;

use super::{memory, world::remove_database};

/// The first argument of a bare process.
pub const ARGUMENT: &str = "bare-loop";
/// The bare loop's database, in a node's folder.
pub const DATABASE: &str = "bare.db";
/// Rows of a frame, and of a transaction.
pub const BATCH_ROWS: usize = 1_000;
/// zstd's level, as the product's.
const LEVEL: i32 = 3;
/// Frames read ahead of the line, and of the disk.
const FRAMES_AHEAD: usize = 4;
const FRAME_MAX_BYTES: usize = 64 << 20;

/// Opens, and if need be creates, an encrypted database with the product's durability.
pub fn open(path: &Path) -> anyhow::Result<Connection> {
    let conn = Connection::open(path)?;
    conn.execute_batch(&format!(
        "PRAGMA key = \"x'{}'\"; PRAGMA journal_mode=WAL; PRAGMA synchronous=EXTRA; PRAGMA cache_size=-65536;
         PRAGMA wal_autocheckpoint=4000; PRAGMA temp_store=MEMORY;
         CREATE TABLE IF NOT EXISTS log (seq INTEGER PRIMARY KEY, hash BLOB NOT NULL, body BLOB NOT NULL) STRICT;
         CREATE TABLE IF NOT EXISTS text (seq INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT",
        "5a".repeat(32)
    ))?;
    let synchronous: i64 = conn.query_row("PRAGMA synchronous", [], |row| row.get(0))?;
    let cipher: String = conn.query_row("PRAGMA cipher_version", [], |row| row.get(0))?;
    anyhow::ensure!(synchronous == 3 && !cipher.is_empty(), "the bare loop must be durable and encrypted");
    conn.set_prepared_statement_cache_capacity(16);
    Ok(conn)
}

/// Appends bodies with their hashes, in one transaction.
pub fn append(conn: &mut Connection, bodies: &[(Vec<u8>, [u8; 32])]) -> anyhow::Result<()> {
    let transaction = conn.transaction()?;
    {
        let mut insert = transaction.prepare_cached("INSERT INTO log (hash, body) VALUES (?1, ?2)")?;
        for (body, hash) in bodies {
            insert.execute(params![hash, body])?;
        }
    }
    Ok(transaction.commit()?)
}

/// A body with its hash.
pub fn hashed(body: Vec<u8>) -> (Vec<u8>, [u8; 32]) {
    let hash = Sha256::digest(&body).into();
    (body, hash)
}

fn tip(conn: &Connection) -> anyhow::Result<u64> {
    let tip: Option<i64> = conn.query_row("SELECT max(seq) FROM log", [], |row| row.get(0))?;
    Ok(tip.unwrap_or(0).unsigned_abs())
}

/// What one transfer took.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Transfer {
    /// From dialling until the last row is durable at the other side.
    pub seconds: f64,
    /// Rows sent.
    pub rows: u64,
    /// Bytes of frames, both ways, without QUIC's own.
    pub bytes: u64,
    /// The sender's peak memory.
    pub peak_kib: u64,
    /// The sender's processor time.
    pub cpu_seconds: f64,
}

/// A bare process, seen from outside.
pub struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// Starts the receiving side on a node's folder; gives its address too.
    pub fn hub(dir: &Path) -> anyhow::Result<(Self, SocketAddr)> {
        let mut process = Self::start(&["hub".into(), dir.to_owned()])?;
        let address = process.line()?;
        Ok((process, address))
    }

    /// Starts the sending side on a node's folder.
    pub fn leaf(dir: &Path, hub: SocketAddr) -> anyhow::Result<Self> {
        let mut process = Self::start(&["leaf".into(), dir.to_owned(), hub.to_string().into()])?;
        let _: bool = process.line()?;
        Ok(process)
    }

    /// Starts a receiving side that waits for so many senders and makes everything durable at once.
    pub fn crowd_hub(dir: &Path, senders: usize) -> anyhow::Result<(Self, SocketAddr)> {
        remove_database(&dir.join(DATABASE));
        let mut process = Self::start(&["crowd".into(), dir.to_owned(), senders.to_string().into()])?;
        let address = process.line()?;
        Ok((process, address))
    }

    fn start(args: &[PathBuf]) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(ARGUMENT)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().context("stdin is piped")?;
        let output = BufReader::new(child.stdout.take().context("stdout is piped")?);
        Ok(Self { child, input, output })
    }

    fn line<T: DeserializeOwned>(&mut self) -> anyhow::Result<T> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        serde_json::from_str(&line).context("the bare process failed")
    }

    /// Connects and sends what the other side does not have.
    pub fn transfer(&mut self) -> anyhow::Result<Transfer> {
        self.input.write_all(b"go\n")?;
        self.line()
    }

    /// Its peak memory so far.
    pub fn peak_kib(&self) -> u64 {
        memory::peak_kib(self.child.id())
    }

    /// Its processor time so far.
    pub fn cpu_seconds(&self) -> f64 {
        memory::cpu_seconds(self.child.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a bare process does. `args` are those after [`ARGUMENT`].
pub fn main(args: &[String]) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match args {
        [side, dir] if side == "hub" => runtime.block_on(hub(Path::new(dir))),
        [side, dir, senders] if side == "crowd" => runtime.block_on(crowd(Path::new(dir), senders.parse()?)),
        [side, dir, address] if side == "leaf" => leaf(Path::new(dir), address.parse()?, &runtime),
        _ => bail!("not a bare process"),
    }
}

/// The socket of the node of this folder.
pub fn transport(dir: &Path, listens: bool) -> anyhow::Result<Transport> {
    let identity = Arc::new(IdentityFolder::of_node(dir).load()?);
    let trust = TrustStore::of(&identity, TrustedClock::new(node::clock::wall()))?;
    let address = "127.0.0.1:0".parse()?;
    Ok(Transport::bind(address, listens, identity, Arc::new(trust), LinkSettings::default())?)
}

fn say(value: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(value)?);
    Ok(std::io::stdout().flush()?)
}

fn leaf(dir: &Path, address: SocketAddr, runtime: &tokio::runtime::Runtime) -> anyhow::Result<()> {
    let path = dir.join(DATABASE);
    let _guard = runtime.enter();
    let transport = transport(dir, false)?;
    say(&true)?;
    for line in std::io::stdin().lines() {
        line?;
        let (began, cpu) = (Instant::now(), memory::cpu_seconds(std::process::id()));
        let mut done = runtime.block_on(send_all(&transport, address, &path))?;
        done.seconds = began.elapsed().as_secs_f64();
        done.cpu_seconds = memory::cpu_seconds(std::process::id()) - cpu;
        done.peak_kib = memory::peak_kib(std::process::id());
        say(&done)?;
    }
    Ok(())
}

async fn send_all(transport: &Transport, address: SocketAddr, path: &Path) -> anyhow::Result<Transfer> {
    let link = transport.connect(address, None, &LinkSettings::default()).await?;
    let (mut send, mut receive) = link.connection().open_bi().await?;
    send.write_all(&[1]).await?;
    let after = number(&mut receive).await?;
    let conn = open(path)?;
    let tip = tip(&conn)?;
    let (frames, mut queue) = mpsc::channel(FRAMES_AHEAD);
    let reader = std::thread::spawn(move || read_frames(&conn, after, &frames));
    let mut done = Transfer { seconds: 0.0, rows: tip - after, bytes: 9, peak_kib: 0, cpu_seconds: 0.0 };
    while let Some(frame) = queue.recv().await {
        done.bytes += 4 + frame.len() as u64;
        send.write_all(&u32::try_from(frame.len())?.to_be_bytes()).await?;
        send.write_all(&frame).await?;
    }
    reader.join().map_err(|_| anyhow::anyhow!("the reading thread failed"))??;
    let mut acknowledged = after;
    while acknowledged < tip {
        acknowledged = number(&mut receive).await?;
        done.bytes += 8;
    }
    link.connection().close(0u32.into(), b"done");
    Ok(done)
}

fn read_frames(conn: &Connection, mut after: u64, frames: &mpsc::Sender<Vec<u8>>) -> anyhow::Result<()> {
    let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
    loop {
        let mut statement =
            conn.prepare_cached("SELECT hash, body FROM log WHERE seq > ?1 ORDER BY seq LIMIT ?2")?;
        let mut rows = statement.query(params![after as i64, BATCH_ROWS as i64])?;
        let (mut raw, mut digest, mut count) = (Writer::default(), Sha256::new(), 0u64);
        while let Some(row) = rows.next()? {
            digest.update(row.get_ref(0)?.as_blob()?);
            raw.bytes(row.get_ref(1)?.as_blob()?);
            count += 1;
        }
        if count == 0 {
            return Ok(());
        }
        after += count;
        if frames.blocking_send(pack(&raw.0, digest, &mut compressor)?).is_err() {
            return Ok(());
        }
    }
}

fn pack(raw: &[u8], digest: Sha256, compressor: &mut zstd::bulk::Compressor<'_>) -> anyhow::Result<Vec<u8>> {
    let mut frame = Writer::default();
    frame.raw(&digest.finalize()).varint(raw.len() as u64).raw(&compressor.compress(raw)?);
    Ok(frame.0)
}

/// Bodies with their hashes as one frame.
pub fn packed(bodies: &[(Vec<u8>, [u8; 32])]) -> anyhow::Result<Vec<u8>> {
    let (mut raw, mut digest) = (Writer::default(), Sha256::new());
    for (body, hash) in bodies {
        digest.update(hash);
        raw.bytes(body);
    }
    pack(&raw.0, digest, &mut zstd::bulk::Compressor::new(LEVEL)?)
}

/// Hands a frame in to a [`Process::crowd_hub`], and returns when it is durable there.
pub async fn hand_in(link: &Link, frame: &[u8]) -> anyhow::Result<()> {
    let (mut send, mut receive) = link.connection().open_bi().await?;
    send.write_all(frame).await?;
    send.finish()?;
    number(&mut receive).await.map(drop)
}

async fn number(stream: &mut RecvStream) -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes).await?;
    Ok(u64::from_be_bytes(bytes))
}

async fn hub(dir: &Path) -> anyhow::Result<()> {
    let transport = transport(dir, true)?;
    say(&transport.local_address()?)?;
    while let Some(incoming) = transport.accept().await {
        let Arrival::Node(link) = transport.finish(incoming).await? else { bail!("not a node") };
        let (send, mut receive) = link.connection().accept_bi().await?;
        receive.read_exact(&mut [0]).await?;
        // A sender that has got its last acknowledgement closes the connection.
        let _ = receive_all(send, receive, &dir.join(DATABASE)).await;
    }
    Ok(())
}

/// Takes one frame of each of so many senders, makes all durable in one transaction, and tells them.
async fn crowd(dir: &Path, senders: usize) -> anyhow::Result<()> {
    let transport = Arc::new(transport(dir, true)?);
    let mut conn = open(&dir.join(DATABASE))?;
    say(&transport.local_address()?)?;
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(knock) = transport.accept().await {
            let (transport, arrived) = (transport.clone(), arrived.clone());
            tokio::spawn(async move {
                let Arrival::Node(link) = transport.finish(knock).await? else { bail!("not a node") };
                let (send, mut receive) = link.connection().accept_bi().await?;
                let frame = receive.read_to_end(FRAME_MAX_BYTES).await?;
                Ok(arrived.send((link, send, unpack(&frame)?))?)
            });
        }
    });
    let (mut bodies, mut waiting) = (Vec::new(), Vec::new());
    while waiting.len() < senders {
        let (link, send, rows) = arrivals.recv().await.context("the socket is open")?;
        bodies.extend(rows);
        waiting.push((link, send));
    }
    append(&mut conn, &bodies)?;
    let rows = tip(&conn)?.to_be_bytes();
    for (_, send) in &mut waiting {
        send.write_all(&rows).await?;
    }
    std::future::pending().await
}

async fn receive_all(mut send: SendStream, mut receive: RecvStream, path: &Path) -> anyhow::Result<()> {
    let mut conn = open(path)?;
    send.write_all(&tip(&conn)?.to_be_bytes()).await?;
    let (frames, queue) = std::sync::mpsc::sync_channel::<Vec<u8>>(FRAMES_AHEAD);
    let (acks, mut acknowledged) = mpsc::unbounded_channel();
    let writer = std::thread::spawn(move || -> anyhow::Result<()> {
        for frame in queue {
            append(&mut conn, &unpack(&frame)?)?;
            acks.send(tip(&conn)?)?;
        }
        Ok(())
    });
    let answer = tokio::spawn(async move {
        while let Some(tip) = acknowledged.recv().await {
            if send.write_all(&tip.to_be_bytes()).await.is_err() {
                return;
            }
        }
    });
    loop {
        let mut length = [0; 4];
        if receive.read_exact(&mut length).await.is_err() {
            break;
        }
        let length = u32::from_be_bytes(length) as usize;
        anyhow::ensure!(length <= FRAME_MAX_BYTES, "a frame is too large");
        let mut frame = vec![0; length];
        receive.read_exact(&mut frame).await?;
        tokio::task::block_in_place(|| frames.send(frame))?;
    }
    drop(frames);
    writer.join().map_err(|_| anyhow::anyhow!("the writing thread failed"))??;
    Ok(answer.await?)
}

fn unpack(frame: &[u8]) -> anyhow::Result<Vec<(Vec<u8>, [u8; 32])>> {
    let mut frame = Reader(frame);
    let announced: [u8; 32] = frame.array("the digest")?;
    let length = frame.bounded(FRAME_MAX_BYTES as u64, "the frame")?;
    let raw = zstd::bulk::decompress(frame.0, length)?;
    let (mut raw, mut rows, mut digest) = (Reader(&raw), Vec::with_capacity(BATCH_ROWS), Sha256::new());
    while !raw.0.is_empty() {
        let row = hashed(raw.bytes(FRAME_MAX_BYTES as u64, "a row")?.to_vec());
        digest.update(row.1);
        rows.push(row);
    }
    anyhow::ensure!(<[u8; 32]>::from(digest.finalize()) == announced, "the frame is damaged");
    Ok(rows)
}
