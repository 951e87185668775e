//! The two ends of a link: frames from the engine become bytes on QUIC streams, and the other way round.
//!
//! The side that dialled opens the control stream; each side opens one stream for each lane, and one for content, when
//! it first has something for it, begins it with the lane's number, and gives it the lane's priority, so that QUIC sends
//! urgent bytes first. Batches are packed and unpacked here, on the tasks of their streams, not on the engine's
//! thread. On the link to the parent entries keep to a pace ([`Pace`]). Nothing here decides anything.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use quinn::{Connection, ConnectionError, RecvStream, SendStream};
use sync_core::{
    change::Entry,
    engine::{LinkId, refusal},
    id::Lane,
    session::Direction,
    wire::{Deframer, Frame},
};
use tokio::sync::{Semaphore, mpsc};

use super::{
    Message, Numbers,
    outages::Ending,
    pace::{PIECE_BYTES, Pace},
};
use crate::transport::{self, Link};

/// Bytes read from a stream at once.
const READ_BYTES: usize = 64 << 10;
/// Most bytes of frames, unpacked, that wait for the core, from all links together. Whoever sends more waits: a
/// packed batch of a few hundred bytes may unpack to two megabytes.
pub const INBOUND_MAX_BYTES: usize = 32 << 20;
/// What a frame without entries is taken to weigh.
const SMALL_FRAME_BYTES: usize = 1024;
/// Priority of the control stream; lanes come below, urgent first.
const CONTROL_PRIORITY: i32 = 3;

/// Bytes of frames since the start, without QUIC's own.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Sent.
    pub sent: AtomicU64,
    /// Received.
    pub received: AtomicU64,
}

/// Where the engine's frames for one link go.
#[derive(Debug)]
pub struct Outbox {
    connection: Connection,
    control: mpsc::UnboundedSender<Out>,
    lanes: [mpsc::UnboundedSender<Out>; 3],
    content: mpsc::UnboundedSender<Out>,
}

#[derive(Debug)]
enum Out {
    Frame(Frame),
    Close,
}

impl Outbox {
    /// Queues a frame. A link that has ended takes it and forgets it: the engine learns of the end by itself.
    pub fn send(&self, frame: Frame) {
        let stream = match &frame {
            Frame::Refuse { code, text } => {
                // The reason of the close is the frame: it arrives whatever becomes of the streams, and a
                // neighbour that reads none of them is ended all the same.
                let code = quinn::VarInt::from_u32(transport::REFUSED + u32::from(*code));
                self.connection.close(code, text.as_bytes());
                return;
            }
            Frame::Batch(batch) => &self.lanes[batch.lane as usize],
            Frame::Tree(..) | Frame::Bytes { .. } => &self.content,
            _ => &self.control,
        };
        let _ = stream.send(Out::Frame(frame));
    }

    /// Ends the link after what is queued on its control stream.
    pub fn close(&self) {
        let _ = self.control.send(Out::Close);
    }
}

/// The queues of a new link.
pub struct Queues {
    control: mpsc::UnboundedReceiver<Out>,
    lanes: [mpsc::UnboundedReceiver<Out>; 3],
    content: mpsc::UnboundedReceiver<Out>,
}

fn outbox(connection: Connection) -> (Outbox, Queues) {
    let (control, control_queue) = mpsc::unbounded_channel();
    let lanes = [(); 3].map(|()| mpsc::unbounded_channel());
    let [(a, qa), (b, qb), (c, qc)] = lanes;
    let (content, content_queue) = mpsc::unbounded_channel();
    let outbox = Outbox { connection, control, lanes: [a, b, c], content };
    (outbox, Queues { control: control_queue, lanes: [qa, qb, qc], content: content_queue })
}

/// What tells the core of a new link, and the queues that [`drive`] empties.
pub fn connected(link: &Link, id: LinkId, direction: Direction) -> (Message, Queues) {
    let connection = link.connection().clone();
    let (outbox, queues) = outbox(connection.clone());
    let (peer, chain) = (link.peer().clone(), link.chain());
    (Message::Connected { id, peer, chain, direction, outbox, connection }, queues)
}

/// Begins a stream that carries nothing. A stream is this, or that of content, or begins with the number of its lane.
const PROBE: u8 = 0xff;
/// Begins the stream of content, which comes behind all lanes.
const CONTENT: u8 = 3;

/// Says something, so that a neighbour that has lost the connection says so. Without it that shows at the next
/// sign of life only.
pub async fn probe(connection: &Connection) {
    if let Ok(mut stream) = connection.open_uni().await {
        // A connection that has ended meanwhile ends its driver too.
        let _ = stream.write_all(&[PROBE]).await;
        let _ = stream.finish();
    }
}

/// Carries a link until it ends, and tells the core. [`connected`] has been told before. `beside` goes on beside it
/// once the neighbour has said HELLO; the link ends when it returns.
pub async fn drive(
    connection: Connection,
    direction: Direction,
    id: LinkId,
    queues: Queues,
    core: mpsc::Sender<Message>,
    numbers: Arc<Numbers>,
    beside: impl Future<Output = ()>,
) {
    let mut has_begun = false;
    let traffic = numbers.traffic.clone();
    let paces = (direction == Direction::Up).then(|| (numbers.pace_up.clone(), numbers.pace_down.clone()));
    let control = match direction {
        Direction::Up => connection.open_bi().await,
        Direction::Down => connection.accept_bi().await,
    };
    if let Ok((send, receive)) = control {
        let _ = send.set_priority(CONTROL_PRIORITY);
        tokio::spawn(write_control(connection.clone(), send, queues.control, traffic.clone()));
        for (lane, queue) in Lane::ALL.into_iter().zip(queues.lanes) {
            let pace = paces.as_ref().map(|(up, _)| up.clone());
            let stream = (lane as u8, lane);
            tokio::spawn(write_lane(connection.clone(), stream, queue, traffic.clone(), pace));
        }
        let pace = paces.as_ref().map(|(up, _)| up.clone());
        let stream = (CONTENT, Lane::Bulk);
        tokio::spawn(write_lane(connection.clone(), stream, queues.content, traffic.clone(), pace));
        let pace = paces.map(|(_, down)| down);
        let inbound = Inbound { id, core: core.clone(), traffic, room: numbers.inbound.clone(), pace };
        // Lanes are read only once the neighbour's HELLO has been passed on: streams overtake one another.
        if let Some((receive, deframer)) = inbound.first_frame(receive).await {
            tokio::spawn(inbound.clone().read(receive, deframer));
            tokio::spawn(inbound.accept_lanes(connection.clone()));
            has_begun = true;
        }
    }
    let ended = tokio::select! {
        ended = connection.closed() => ended,
        () = beside, if has_begun => {
            end(&connection, "the certificate that you have shown has ended; dial again");
            connection.closed().await
        }
    };
    if let Some((code, text)) = transport::refusal_of(&ended) {
        let _ = core.send(Message::Frame(id, Frame::Refuse { code, text }, None)).await;
    }
    let _ = core.send(Message::Closed(id, ending(&ended))).await;
}

fn ending(ended: &ConnectionError) -> Ending {
    match (transport::refusal_of(ended), ended) {
        (Some((refusal::MOVED, _)), _) => Ending::Moved,
        (Some(_), _) => Ending::Refused,
        (_, ConnectionError::ApplicationClosed(_) | ConnectionError::ConnectionClosed(_)) => {
            Ending::ByNeighbour
        }
        (_, ConnectionError::LocallyClosed) => Ending::Here,
        _ => Ending::Lost,
    }
}

async fn write_control(
    connection: Connection,
    mut stream: SendStream,
    mut queue: mpsc::UnboundedReceiver<Out>,
    traffic: Arc<Traffic>,
) {
    let mut reason = "this node stops";
    // It may be stopped while there is nothing to write.
    let stopped = stream.stopped();
    tokio::pin!(stopped);
    loop {
        let out = tokio::select! {
            out = queue.recv() => out,
            _ = &mut stopped => {
                reason = "the control stream was stopped";
                break;
            }
        };
        let Some(out) = out else {
            // The end of this stream is heard when the line has room again, and then the last word goes too.
            let _ = stream.finish();
            let _ = tokio::time::timeout(transport::LAST_WORD, stopped).await;
            break;
        };
        match out {
            Out::Frame(frame) if write(&mut stream, &frame, &traffic).await.is_ok() => {}
            Out::Frame(_) => {
                reason = "the control stream was stopped";
                break;
            }
            Out::Close => {
                reason = "done";
                break;
            }
        }
    }
    end(&connection, reason);
}

/// Closes a connection, unless it has ended. Closed a second time, quinn would forget how it ended the first time,
/// and with it why the neighbour refused.
fn end(connection: &Connection, reason: &str) {
    if connection.close_reason().is_none() {
        connection.close(quinn::VarInt::from_u32(transport::DONE), reason.as_bytes());
    }
}

/// Writes what is queued to a stream of its own, which begins with this number and keeps to the pace of this lane.
async fn write_lane(
    connection: Connection,
    (first, lane): (u8, Lane),
    mut queue: mpsc::UnboundedReceiver<Out>,
    traffic: Arc<Traffic>,
    pace: Option<Arc<Pace>>,
) {
    let mut stream = None;
    while let Some(Out::Frame(frame)) = queue.recv().await {
        let stream = match &mut stream {
            Some(stream) => stream,
            None => {
                let Ok(mut opened) = connection.open_uni().await else { return };
                let _ = opened.set_priority(CONTROL_PRIORITY - 1 - i32::from(first));
                if opened.write_all(&[first]).await.is_err() {
                    return;
                }
                stream.insert(opened)
            }
        };
        let written = match pace.as_deref().filter(|pace| pace.holds(lane)) {
            Some(pace) => write_paced(stream, &frame, &traffic, pace, lane).await,
            None => write(stream, &frame, &traffic).await,
        };
        if written.is_err() {
            return;
        }
    }
    // The link has ended. quinn says no last word as long as the line is full (quinn-rs/quinn 2785), so what waits is dropped.
    if let Some(mut stream) = stream {
        let _ = stream.reset(quinn::VarInt::from_u32(transport::DONE));
    }
}

async fn write_paced(
    stream: &mut SendStream,
    frame: &Frame,
    traffic: &Traffic,
    pace: &Pace,
    lane: Lane,
) -> Result<(), quinn::WriteError> {
    for piece in frame.encode().chunks(PIECE_BYTES) {
        pace.turn(lane, piece.len()).await;
        stream.write_all(piece).await?;
        traffic.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
    }
    Ok(())
}

async fn write(stream: &mut SendStream, frame: &Frame, traffic: &Traffic) -> Result<(), quinn::WriteError> {
    let bytes = frame.encode();
    traffic.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    stream.write_all(&bytes).await
}

#[derive(Clone)]
struct Inbound {
    id: LinkId,
    core: mpsc::Sender<Message>,
    traffic: Arc<Traffic>,
    room: Arc<Semaphore>,
    /// How fast entries of the parent are read.
    pace: Option<Arc<Pace>>,
}

impl Inbound {
    async fn first_frame(&self, mut stream: RecvStream) -> Option<(RecvStream, Deframer)> {
        let mut deframer = Deframer::default();
        loop {
            let chunk = stream.read_chunk(READ_BYTES, true).await.ok()??;
            self.traffic.received.fetch_add(chunk.bytes.len() as u64, Ordering::Relaxed);
            deframer.push(&chunk.bytes);
            match deframer.next_frame() {
                Ok(None) => {}
                Ok(Some(frame)) => {
                    self.core.send(self.message(frame).await).await.ok()?;
                    return self.forward(&mut deframer).await.then_some((stream, deframer));
                }
                Err(error) => {
                    let _ = self.core.send(Message::Garbled(self.id, error)).await;
                    return None;
                }
            }
        }
    }

    async fn accept_lanes(self, connection: Connection) {
        while let Ok(mut stream) = connection.accept_uni().await {
            let inbound = self.clone();
            tokio::spawn(async move {
                let mut lane = [0];
                if stream.read_exact(&mut lane).await.is_err() {
                    return;
                }
                let lane = if lane[0] == CONTENT { Some(Lane::Bulk) } else { Lane::from_u8(lane[0]) };
                if let Some(lane) = lane {
                    inbound.read_lane(stream, lane).await;
                }
            });
        }
    }

    async fn read(self, mut stream: RecvStream, mut deframer: Deframer) {
        while let Ok(Some(chunk)) = stream.read_chunk(READ_BYTES, true).await {
            self.traffic.received.fetch_add(chunk.bytes.len() as u64, Ordering::Relaxed);
            deframer.push(&chunk.bytes);
            if !self.forward(&mut deframer).await {
                return;
            }
        }
    }

    async fn read_lane(self, mut stream: RecvStream, lane: Lane) {
        let Some(pace) = self.pace.clone() else { return self.read(stream, Deframer::default()).await };
        let mut deframer = Deframer::default();
        loop {
            let most = if pace.holds(lane) { PIECE_BYTES } else { READ_BYTES };
            let Ok(Some(chunk)) = stream.read_chunk(most, true).await else { return };
            self.traffic.received.fetch_add(chunk.bytes.len() as u64, Ordering::Relaxed);
            deframer.push(&chunk.bytes);
            pace.turn(lane, chunk.bytes.len()).await;
            if !self.forward(&mut deframer).await {
                return;
            }
        }
    }

    /// A frame on its way to the core, as soon as there is room for it.
    async fn message(&self, frame: Frame) -> Message {
        let bytes = match &frame {
            Frame::Batch(batch) => batch.entries.iter().map(|(_, entry)| entry.encoded_len()).sum(),
            Frame::Repair(entries) => entries.iter().map(Entry::encoded_len).sum(),
            Frame::Bytes { bytes, .. } => bytes.len(),
            Frame::Tree(_, values) => values.len() * 32,
            _ => SMALL_FRAME_BYTES,
        };
        let share = u32::try_from(bytes.clamp(SMALL_FRAME_BYTES, INBOUND_MAX_BYTES)).expect("the limit fits");
        // It is never closed; if it were, there would be no limit.
        let room = self.room.clone().acquire_many_owned(share).await.ok();
        Message::Frame(self.id, frame, room)
    }

    /// Passes on whole frames; false when the stream is of no more use.
    async fn forward(&self, deframer: &mut Deframer) -> bool {
        loop {
            let message = match deframer.next_frame() {
                Ok(None) => return true,
                Ok(Some(frame)) => self.message(frame).await,
                Err(error) => Message::Garbled(self.id, error),
            };
            let garbled = matches!(message, Message::Garbled(..));
            if self.core.send(message).await.is_err() || garbled {
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use sync_core::identity::Refusal;

    use super::*;
    use crate::{
        ca::tests::Tree,
        daemon::Stand,
        transport::tests::{link, meet, node_at},
    };

    /// On one thread everything else that waits for the connection wakes before the one that reads how it ended.
    #[tokio::test]
    async fn a_refusal_is_heard_whoever_wakes_first() {
        let tree = Tree::new();
        let (trust, hub_trust) = (tree.trust(), tree.trust());
        let (hub, leaf) = (node_at(tree.hub, hub_trust), node_at(tree.leaf, trust));
        let (dialled, arrived) = meet(&leaf, &hub).await;
        let (dialled, arrived) = (dialled.unwrap(), link(arrived));
        let (core, mut told) = mpsc::channel(10);
        let numbers = Arc::new(Numbers::new(
            false,
            Stand { place: "tw/hg".parse().unwrap(), parent: None, before: None },
        ));
        let id = numbers.next_link();
        let (Message::Connected { outbox, .. }, queues) = connected(&dialled, id, Direction::Up) else {
            panic!("that is what it makes")
        };
        let connection = dialled.connection().clone();
        let beside = std::future::pending();
        let driven = tokio::spawn(drive(connection, Direction::Up, id, queues, core, numbers, beside));
        let hello = Frame::Revocations(Vec::new());
        outbox.send(hello.clone());
        let (mut send, _receive) = arrived.connection().accept_bi().await.unwrap();
        send.write_all(&hello.encode()).await.unwrap();
        assert!(matches!(told.recv().await, Some(Message::Frame(_, Frame::Revocations(_), _))));
        let refusal = Refusal::OutsideSubtree { place: "a/b".into(), issuer: "c".into() };
        transport::refuse(arrived.connection(), &refusal);
        driven.await.unwrap();
        let Some(Message::Frame(_, Frame::Refuse { code, text }, _)) = told.recv().await else {
            panic!("nothing was heard of the refusal");
        };
        assert_eq!((code, text), (refusal.code(), refusal.to_string()));
        assert!(matches!(told.recv().await, Some(Message::Closed(_, Ending::Refused))));
    }
}
