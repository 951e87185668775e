//! Connections: what QUIC leaves to the layer above it.
//!
//! A connection carries a control stream, one for each lane and one for content, in both directions. Each stream is in order and
//! loses nothing while the connection lasts, but streams overtake one another. A connection may end at any
//! time, in the middle of a frame, and its two ends may learn of that at different times; then what was under
//! way is gone. Lost, doubled and reordered packets are QUIC's own affair and do not occur here.

use sync_core::{engine::LinkId, time::Millis, wire::Deframer};

use super::{plan::Line, rng::Rng, world::UnderWay};

/// The control stream, one for each lane, and that of content.
pub const STREAMS: usize = 5;
/// The control stream: what it carries does not wait for what the others have put on the line.
pub const CONTROL: usize = 0;
/// The stream of content: it waits for all others, and none of them for it.
pub const CONTENT: usize = 4;

/// One end of a connection.
pub struct End {
    /// The machine.
    pub machine: usize,
    /// Which of its starts.
    pub boot: u64,
    /// What the machine calls the connection.
    pub link: LinkId,
    /// Whether the machine still has it.
    pub open: bool,
    /// What arrives here, by stream.
    pub inbox: [Deframer; STREAMS],
    /// Whether what this end claims was held against the other's disk since the other's word was heard.
    pub heard: bool,
    /// Frames and bytes that were sent from here.
    pub sent: (u64, u64),
    /// What was sent from here and is not acknowledged.
    pub under_way: UnderWay,
}

/// A direction: from end 0 (who dialled) to end 1, or back.
struct Way {
    line_free_at: Millis,
    control_free_at: Millis,
    content_free_at: Millis,
    last_arrival: [Millis; STREAMS],
    silent: bool,
}

/// A connection between two machines.
pub struct Conn {
    /// Who dialled, and who was dialled.
    pub ends: [End; 2],
    /// The line under it.
    pub line: Line,
    ways: [Way; 2],
    /// Pieces that would arrive later are lost.
    cut_at: Option<Millis>,
    /// When something arrives that is no frame.
    pub garbled_at: Option<Millis>,
    /// Something went wrong with the line or with one of the machines while the connection stood.
    pub disturbed: bool,
}

impl Conn {
    /// A fresh connection. `ends`: machine, boot and link of both.
    pub fn new(ends: [(usize, u64, LinkId); 2], line: Line) -> Self {
        let end = |(machine, boot, link)| End {
            machine,
            boot,
            link,
            open: true,
            inbox: Default::default(),
            heard: false,
            sent: (0, 0),
            under_way: UnderWay::default(),
        };
        let way = || Way {
            line_free_at: 0,
            control_free_at: 0,
            content_free_at: 0,
            last_arrival: [0; STREAMS],
            silent: false,
        };
        Self {
            ends: ends.map(end),
            line,
            ways: [way(), way()],
            cut_at: None,
            garbled_at: None,
            disturbed: false,
        }
    }

    /// Puts bytes on the line; when they arrive at the other end. None when they never will.
    pub fn transmit(
        &mut self,
        from: usize,
        stream: usize,
        bytes: usize,
        now: Millis,
        rng: &mut Rng,
    ) -> Option<Millis> {
        let way = &mut self.ways[from];
        if way.silent || self.cut_at.is_some() {
            return None;
        }
        let takes = bytes as u64 * 1000 / self.line.rate;
        if stream != CONTENT {
            way.line_free_at = way.line_free_at.max(now) + takes;
        }
        let mut gone = way.line_free_at;
        if stream == CONTENT {
            way.content_free_at = way.content_free_at.max(way.line_free_at).max(now) + takes;
            gone = way.content_free_at;
        }
        if stream == CONTROL {
            way.control_free_at = way.control_free_at.max(now) + takes;
            gone = way.control_free_at;
        }
        let jitter = if self.line.jitter == 0 { 0 } else { rng.below(self.line.jitter) };
        let arrival = (gone + self.line.latency + jitter).max(way.last_arrival[stream]);
        way.last_arrival[stream] = arrival;
        Some(arrival)
    }

    /// Whether a piece that was to arrive now does.
    pub fn delivers(&self, from: usize, now: Millis) -> bool {
        !self.ways[from].silent && self.cut_at.is_none_or(|cut_at| now <= cut_at)
    }

    /// When the last piece that is under way from this end arrives.
    pub fn last_arrival(&self, from: usize) -> Millis {
        self.ways[from].last_arrival.into_iter().max().unwrap_or(0)
    }

    /// One direction carries nothing any more.
    pub fn silence(&mut self, from: usize) {
        self.ways[from].silent = true;
        self.disturbed = true;
    }

    /// What would arrive after this time is lost.
    pub fn cut(&mut self, at: Millis) {
        self.disturbed = true;
        self.cut_at = Some(self.cut_at.map_or(at, |before| before.min(at)));
    }

    /// The end that a machine knows by this name.
    pub fn end_of(&self, machine: usize, link: LinkId) -> Option<usize> {
        self.ends.iter().position(|end| end.machine == machine && end.link == link)
    }
}
