//! A bad line for UDP: loses, delays and queues datagrams between a client and a server on this machine.
//!
//! Each direction is a line of its own with the same properties: a datagram waits until those before it have gone out at
//! the line's rate (and is lost when too many wait), takes its own time, is lost on the way by a seeded draw, and otherwise
//! takes the line's delay. They never overtake one another. The line may change while it is in use, and so
//! may the address from which clients seem to come. Nothing here knows QUIC.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::UdpSocket,
    runtime::Runtime,
    sync::mpsc,
    time::{Instant, sleep_until},
};

/// IP and UDP headers, which a line carries too.
pub const HEADER_BYTES: u64 = 28;
/// How long datagrams wait for their turn, unless a line says otherwise.
const QUEUE_MOST: Duration = Duration::from_millis(500);
/// Largest datagram.
const DATAGRAM_MAX_BYTES: usize = 65_536;

/// The properties of a line, in each direction.
#[derive(Debug, Clone, Copy, Default)]
pub struct Line {
    /// Datagrams lost, of a hundred.
    pub loss_percent: u64,
    /// Bits a second; none for no limit.
    pub bits_per_second: Option<u64>,
    /// How long a datagram takes, one way.
    pub delay: Duration,
    /// Datagrams wait up to this long for their turn; later ones are lost, as a router's queue would. None for half a second.
    pub queue: Option<Duration>,
}

/// What a line has carried in one direction.
#[derive(Debug, Default)]
pub struct Carried {
    /// Bytes that came out at the other end, with their IP and UDP headers.
    pub bytes: AtomicU64,
    /// Datagrams lost on the way.
    pub lost: AtomicU64,
    /// Datagrams lost because too many waited.
    pub overrun: AtomicU64,
    /// Datagrams that were put on it, lost or not, and their bytes with their headers.
    pub sent: AtomicU64,
    /// See `sent`.
    pub sent_bytes: AtomicU64,
    /// How long they have waited for their turn, in sum; those for which there was no room count as the whole queue.
    pub queued_micros: AtomicU64,
}

impl Carried {
    /// Counts a datagram that is put on the line and would wait so long; whether there is room for it.
    fn takes(&self, bytes: u64, wait: Duration, most: Duration) -> bool {
        let micros = wait.min(most).as_micros() as u64;
        self.sent.fetch_add(1, Ordering::Relaxed);
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.queued_micros.fetch_add(micros, Ordering::Relaxed);
        let has_room = wait <= most;
        self.overrun.fetch_add(u64::from(!has_room), Ordering::Relaxed);
        has_room
    }
}

/// A running proxy. Dropping it ends it.
pub struct Proxy {
    /// Where clients have to go.
    pub address: SocketAddr,
    /// From clients to the server.
    pub up: Arc<Carried>,
    /// From the server to clients.
    pub down: Arc<Carried>,
    line: Arc<Mutex<Line>>,
    /// How often clients have been given another address.
    moves: Arc<AtomicU64>,
    _runtime: Runtime,
}

impl Proxy {
    /// A proxy before a server.
    pub fn to(server: SocketAddr, line: Line, seed: u64) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime can be made");
        let line = Arc::new(Mutex::new(line));
        let front = runtime.block_on(UdpSocket::bind("127.0.0.1:0")).expect("the loopback has a free port");
        let address = front.local_addr().expect("a bound socket has an address");
        let (up, down) = (Arc::<Carried>::default(), Arc::<Carried>::default());
        let to_server = lane(&runtime, line.clone(), up.clone(), seed);
        let to_clients = lane(&runtime, line.clone(), down.clone(), !seed);
        let moves = Arc::<AtomicU64>::default();
        runtime.spawn(serve(Arc::new(front), server, to_server, to_clients, moves.clone()));
        Self { address, up, down, line, moves, _runtime: runtime }
    }

    /// From now on clients come from other addresses, as when a modem dials anew or a router forgets them.
    pub fn move_clients(&self) {
        self.moves.fetch_add(1, Ordering::Relaxed);
    }

    /// Changes the line for what comes from now on.
    pub fn set(&self, line: Line) {
        *self.line.lock().expect("nobody panics with it") = line;
    }
}

/// A datagram on its way: through this socket, to this address.
struct Datagram {
    bytes: Vec<u8>,
    out: Arc<UdpSocket>,
    to: SocketAddr,
}

type Entrance = mpsc::UnboundedSender<Datagram>;

/// Takes in what clients send; each client has a socket of its own towards the server.
async fn serve(
    front: Arc<UdpSocket>,
    server: SocketAddr,
    to_server: Entrance,
    to_clients: Entrance,
    moves: Arc<AtomicU64>,
) {
    let mut clients: BTreeMap<(SocketAddr, u64), Arc<UdpSocket>> = BTreeMap::new();
    let mut buffer = vec![0; DATAGRAM_MAX_BYTES];
    // An error is news of an earlier datagram that found nobody; the next one may.
    loop {
        let Ok((length, client)) = front.recv_from(&mut buffer).await else { continue };
        let known = (client, moves.load(Ordering::Relaxed));
        let out = match clients.get(&known) {
            Some(out) => out.clone(),
            None => {
                let out = UdpSocket::bind("127.0.0.1:0").await.expect("the loopback has a free port");
                let out = Arc::new(out);
                clients.insert(known, out.clone());
                tokio::spawn(answers(out.clone(), front.clone(), client, to_clients.clone()));
                out
            }
        };
        let _ = to_server.send(Datagram { bytes: buffer[..length].to_vec(), out, to: server });
    }
}

/// Takes in what the server sends to one client.
async fn answers(from: Arc<UdpSocket>, front: Arc<UdpSocket>, client: SocketAddr, to_clients: Entrance) {
    let mut buffer = vec![0; DATAGRAM_MAX_BYTES];
    loop {
        let Ok((length, _)) = from.recv_from(&mut buffer).await else { continue };
        let _ =
            to_clients.send(Datagram { bytes: buffer[..length].to_vec(), out: front.clone(), to: client });
    }
}

/// One direction of the line.
fn lane(runtime: &Runtime, line: Arc<Mutex<Line>>, carried: Arc<Carried>, seed: u64) -> Entrance {
    let (entrance, mut arriving) = mpsc::unbounded_channel::<Datagram>();
    runtime.spawn(async move {
        let mut dice = Dice(seed);
        let mut queue: VecDeque<(Instant, Datagram)> = VecDeque::new();
        let mut busy_until = Instant::now();
        loop {
            let due = queue.front().map(|(due, _)| *due);
            tokio::select! {
                datagram = arriving.recv() => {
                    let Some(datagram) = datagram else { return };
                    let line = *line.lock().expect("nobody panics with it");
                    let now = Instant::now();
                    let start = busy_until.max(now);
                    let bytes = datagram.bytes.len() as u64 + HEADER_BYTES;
                    if !carried.takes(bytes, start - now, line.queue.unwrap_or(QUEUE_MOST)) {
                        continue;
                    }
                    let nanos = |rate| bytes * 8 * 1_000_000_000 / rate;
                    let takes = line.bits_per_second.map(|rate| Duration::from_nanos(nanos(rate)));
                    busy_until = start + takes.unwrap_or_default();
                    if dice.of_hundred() < line.loss_percent {
                        carried.lost.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    let last = queue.back().map_or(now, |(due, _)| *due);
                    queue.push_back(((busy_until + line.delay).max(last), datagram));
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    let (_, datagram) = queue.pop_front().expect("it was due");
                    carried.bytes.fetch_add(datagram.bytes.len() as u64 + HEADER_BYTES, Ordering::Relaxed);
                    // Nobody there: the datagram is lost, as it would be.
                    let _ = datagram.out.send_to(&datagram.bytes, datagram.to).await;
                }
            }
        }
    });
    entrance
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn of_hundred(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % 100
    }
}
