//! A line between two nodes: passes UDP datagrams on after a delay, in their order, and counts them. It loses nothing.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{net::UdpSocket, runtime::Runtime, sync::mpsc, time::Instant};

const DATAGRAM_MAX_BYTES: usize = 1 << 16;

/// A line to one address. It ends when it is dropped.
pub struct Line {
    /// Where to dial instead.
    pub address: SocketAddr,
    bytes: Arc<AtomicU64>,
    _runtime: Runtime,
}

impl Line {
    /// A line that keeps each datagram for `delay` in each direction.
    pub fn to(far: SocketAddr, delay: Duration) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (near_side, far_side) = runtime.block_on(async {
            let any = "127.0.0.1:0";
            anyhow::Ok((Arc::new(UdpSocket::bind(any).await?), Arc::new(UdpSocket::bind(any).await?)))
        })?;
        let address = near_side.local_addr()?;
        let bytes = Arc::new(AtomicU64::new(0));
        let (dialler, dialled) = tokio::sync::watch::channel(address);
        {
            let (near, far_side, bytes) = (near_side.clone(), far_side.clone(), bytes.clone());
            runtime.spawn(async move {
                let mut buffer = vec![0; DATAGRAM_MAX_BYTES];
                let line = delayed(far_side, delay);
                while let Ok((length, from)) = near.recv_from(&mut buffer).await {
                    dialler.send_replace(from);
                    bytes.fetch_add(length as u64, Ordering::Relaxed);
                    let _ = line.send((Instant::now() + delay, buffer[..length].to_vec(), far));
                }
            });
        }
        let counted = bytes.clone();
        runtime.spawn(async move {
            let mut buffer = vec![0; DATAGRAM_MAX_BYTES];
            let line = delayed(near_side, delay);
            while let Ok((length, _)) = far_side.recv_from(&mut buffer).await {
                counted.fetch_add(length as u64, Ordering::Relaxed);
                let back = *dialled.borrow();
                let _ = line.send((Instant::now() + delay, buffer[..length].to_vec(), back));
            }
        });
        Ok(Self { address, bytes, _runtime: runtime })
    }

    /// Bytes of datagrams so far, both ways, without the headers of UDP and IP.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// What is sent here goes out of that socket when it is due, in its order: a handshake whose datagrams overtake one another takes
/// more round trips.
fn delayed(socket: Arc<UdpSocket>, delay: Duration) -> mpsc::UnboundedSender<(Instant, Vec<u8>, SocketAddr)> {
    let (sender, mut receiver) = mpsc::unbounded_channel::<(Instant, Vec<u8>, SocketAddr)>();
    tokio::spawn(async move {
        while let Some((due, datagram, to)) = receiver.recv().await {
            if !delay.is_zero() {
                tokio::time::sleep_until(due).await;
            }
            // A datagram that cannot be sent is lost, as on any line.
            let _ = socket.send_to(&datagram, to).await;
        }
    });
    sender
}
