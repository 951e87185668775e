//! Dialling, sending, arriving, ending.

use std::fmt;

use sync_core::{scope, wire::FRAME_MAX_BYTES};

use super::*;

/// Bytes of a frame's own length at most: a varint of 64 bits.
const LENGTH_MAX_BYTES: u64 = 10;

impl World<'_> {
    /// A machine that has a parent and no connection to it dials before long.
    pub(super) fn dial_later(&mut self, machine: usize) {
        self.dial_after(machine, 0);
    }

    fn dial_after(&mut self, machine: usize, wait: Millis) {
        let one = &self.machines[machine];
        let may = !one.told_revoked && !one.awaits_certificate;
        let idle = may && !one.dialing && !self.has_uplink(machine);
        if one.node != 0 && one.engine.is_some() && idle {
            self.machines[machine].dialing = true;
            let boot = self.machines[machine].boot;
            let delay = self.rng.range(100, if self.calm { 3_000 } else { REDIAL_MAX });
            self.after(wait + delay, Ev::Dial(machine, boot));
        }
    }

    pub(super) fn has_uplink(&self, machine: usize) -> bool {
        self.conns.values().any(|conn| conn.ends[0].machine == machine && conn.ends[0].open)
    }

    /// Dials one of the parent's machines.
    pub(super) fn dial(&mut self, machine: usize, boot: u64) {
        if !self.is_up(machine, boot) {
            return;
        }
        self.machines[machine].dialing = false;
        let Some(parent) = self.dials(machine) else { return };
        // A machine that reaches nobody dials again when it does.
        let one = &self.machines[machine];
        if one.trouble.away || one.told_revoked || one.awaits_certificate {
            return;
        }
        let of_parent: Vec<_> =
            (0..self.machines.len()).filter(|m| self.machines[*m].node == parent).collect();
        let awake: Vec<_> = of_parent.iter().copied().filter(|m| self.is_awake(*m)).collect();
        // A node has one uplink; when it dials again all the same, it is the same address.
        let same = self.conns.values().find(|conn| conn.ends[0].machine == machine && conn.ends[0].open);
        let same = same.map(|conn| conn.ends[1].machine).filter(|m| awake.contains(m));
        let target = same.or_else(|| self.rng.pick(&awake).copied());
        let Some(target) = target else {
            let sleeps =
                |m: &usize| self.machines[*m].engine.is_some().then_some(self.machines[*m].asleep_until);
            // Nobody answers while they sleep: when the first wakes is soon enough.
            return match of_parent.iter().filter_map(sleeps).min() {
                Some(wakes) => self.dial_after(machine, wakes - self.now),
                None if of_parent.iter().all(|m| self.machines[*m].stays_away) => {}
                None => self.dial_later(machine),
            };
        };
        self.machines[machine].dialing = true;
        self.connect(machine, target);
    }

    /// A handshake begins between two machines.
    pub(super) fn connect(&mut self, machine: usize, target: usize) {
        let node = self.machines[machine].node;
        let mut line = if self.calm { GOOD_LINE } else { self.plan.nodes[node].line };
        if self.machines[machine].trouble.slow_line {
            line.rate = SLOW_LINE_RATE;
        }
        let ends = [machine, target].map(|m| (m, self.machines[m].boot, LinkId(self.fresh_name())));
        let conn = self.fresh_name();
        let mut made = Conn::new(ends, line);
        made.disturbed = [machine, target].iter().any(|m| self.machines[*m].trouble.is_of_disk());
        made.ends.iter_mut().for_each(|end| end.open = false);
        self.conns.insert(conn, made);
        self.after(2 * line.latency, Ev::Open(conn));
    }

    pub(super) fn fresh_name(&mut self) -> u64 {
        self.names += 1;
        self.names
    }

    /// The handshake is done.
    pub(super) fn open(&mut self, conn: u64) -> Result<(), Failure> {
        // The line may have gone in the middle of the handshake.
        let Some(begun) = self.conns.get(&conn) else { return Ok(()) };
        let ends = begun.ends.each_ref().map(|end| (end.machine, end.boot, end.link));
        let [(child, child_boot, _), (parent, parent_boot, _)] = ends;
        if self.is_up(child, child_boot) {
            self.machines[child].dialing = false;
        }
        let is_there = |m, boot| self.is_up(m, boot) && self.is_awake(m);
        if !is_there(child, child_boot) || !is_there(parent, parent_boot) {
            self.conns.remove(&conn);
            if self.is_up(child, child_boot) {
                self.dial_later(child);
            }
            return Ok(());
        }
        self.report.sessions += 1;
        let infos = [child, parent].map(|m| self.plan.nodes[self.machines[m].node].info.clone());
        self.conns.get_mut(&conn).expect("it was found").ends.iter_mut().for_each(|end| end.open = true);
        for (i, (machine, boot, link)) in ends.into_iter().enumerate() {
            let peer = infos[1 - i].clone();
            let chain = SimIdentity::chain(peer.node);
            let direction = if i == 0 { Direction::Up } else { Direction::Down };
            let other = self.machines[ends[1 - i].0].name.clone();
            self.note(machine, format_args!("is connected to {other} by {link:?}"));
            if self.is_up(machine, boot) {
                self.drive(machine, Event::Connected { link, peer, chain, direction })?;
            }
        }
        Ok(())
    }

    pub(super) fn send(&mut self, machine: usize, link: LinkId, frame: &Frame) -> Result<(), Failure> {
        self.note(machine, format_args!("{link:?} > {}", Brief(frame)));
        if let Frame::Batch(batch) = frame {
            let bytes = |(_, entry): &(u64, sync_core::change::Entry)| entry.encoded_len() as u64;
            self.report.entry_bytes_sent += batch.entries.iter().map(bytes).sum::<u64>();
            let largest = batch.entries.iter().map(bytes).max().unwrap_or(0);
            self.report.largest_entry = self.report.largest_entry.max(largest);
        }
        let Some((id, from)) = self.find(machine, link) else { return Ok(()) };
        let repaired = if let Frame::Repair(entries) = frame { &entries[..] } else { &[] };
        let batched = if let Frame::Batch(batch) = frame { &batch.entries[..] } else { &[] };
        let entries = repaired.iter().chain(batched.iter().map(|(_, entry)| entry));
        let to = self.machines[self.conns[&id].ends[1 - from].machine].node;
        self.check_secrecy(machine, to, scope::Way::Link, entries)?;
        if let Some(entry) = self.out_of_scope(machine, link, frame) {
            let who = &self.machines[machine].name;
            return Err(Failure::new("nothing leaves its scope", format_args!("{who} sends {entry:?}")));
        }
        if let Some(name) = self.content_out_of_scope(machine, link, frame) {
            let who = &self.machines[machine].name;
            return Err(Failure::new("no content leaves its scope", format_args!("{who} sends {name:?}")));
        }
        if let Frame::Batch(batch) = frame {
            self.rows_go_out(id, from, batch)?;
        }
        if let Frame::NeedPlace(org) = frame {
            self.waits_for(id, org);
        }
        self.put_on_line(id, from, frame);
        Ok(())
    }

    /// A frame leaves one end of a connection.
    pub(super) fn put_on_line(&mut self, id: u64, from: usize, frame: &Frame) {
        let bytes = frame.encode();
        assert!(bytes.len() as u64 <= FRAME_MAX_BYTES + LENGTH_MAX_BYTES, "a frame of {} bytes", bytes.len());
        let stream = match frame {
            Frame::Batch(EntryBatch { lane, .. }) => 1 + *lane as usize,
            Frame::Tree(..) | Frame::Bytes { .. } => CONTENT,
            _ => CONTROL,
        };
        let sent = &mut self.conns.get_mut(&id).expect("it was found").ends[from].sent;
        *sent = (sent.0 + 1, sent.1 + bytes.len() as u64);
        let size = self.piece_size(bytes.len());
        for piece in bytes.chunks(size) {
            let conn = self.conns.get_mut(&id).expect("it was found");
            if let Some(at) = conn.transmit(from, stream, piece.len(), self.now, &mut self.rng) {
                let event = Ev::Bytes { conn: id, from, stream, bytes: piece.to_vec() };
                self.after(at - self.now, event);
            }
        }
    }

    /// In how large pieces a frame arrives: whole, in a few, or byte by byte.
    fn piece_size(&mut self, frame: usize) -> usize {
        let one_in = self.plan.cut_one_in;
        if one_in == 0 || !self.rng.one_in(one_in) {
            return frame;
        }
        if frame <= CRUMBLED_MAX_BYTES && self.rng.one_in(4) {
            return 1;
        }
        frame.div_ceil(self.rng.range(2, 4) as usize)
    }

    pub(super) fn find(&self, machine: usize, link: LinkId) -> Option<(u64, usize)> {
        let found = self.conns.iter().find_map(|(id, conn)| Some((*id, conn.end_of(machine, link)?)));
        found.filter(|(id, end)| self.conns[id].ends[*end].open)
    }

    pub(super) fn arrive(
        &mut self,
        conn: u64,
        from: usize,
        stream: usize,
        bytes: &[u8],
    ) -> Result<(), Failure> {
        let now = self.now;
        let Some(one) = self.conns.get_mut(&conn).filter(|one| one.delivers(from, now)) else {
            return Ok(());
        };
        one.ends[1 - from].inbox[stream].push(bytes);
        if self.is_intruders(conn, 1 - from) {
            self.overhear(conn, stream);
            return Ok(());
        }
        loop {
            let Some(one) = self.conns.get_mut(&conn) else { return Ok(()) };
            let end = &mut one.ends[1 - from];
            let (machine, boot, link) = (end.machine, end.boot, end.link);
            if !end.open || !self.is_up(machine, boot) {
                return Ok(());
            }
            match self.conns.get_mut(&conn).expect("it was found").ends[1 - from].inbox[stream].next_frame() {
                Ok(Some(frame)) => {
                    assert!(stream < STREAMS, "a stream is one of five");
                    self.note(machine, format_args!("{link:?} < {}", Brief(&frame)));
                    if let Frame::Ack(lane, at) = frame {
                        self.rows_are_acknowledged(conn, 1 - from, lane, at)?;
                    }
                    let is_hello = matches!(frame, Frame::Hello(_));
                    self.drive(machine, Event::Received(link, frame))?;
                    if is_hello && (self.plan.grants || self.plan.faults().any(|fault| fault == Fault::Move))
                    {
                        self.drive(machine, Event::Locate(link))?;
                    }
                }
                Ok(None) => return Ok(()),
                Err(error) if self.conns[&conn].garbled_at.is_some_and(|at| at <= now) => {
                    self.drive(machine, Event::Garbled(link, error))?;
                    return Ok(());
                }
                Err(error) => return Err(Failure::new("frames decode", error)),
            }
        }
    }

    /// An engine ends a link: what it has sent is delivered, then the other end hears of it.
    pub(super) fn hang_up(&mut self, machine: usize, link: LinkId) {
        self.note(machine, format_args!("{link:?} closes"));
        let Some((id, end)) = self.find(machine, link) else { return };
        let now = self.now;
        let conn = self.conns.get_mut(&id).expect("it was found");
        conn.ends[end].open = false;
        let at = conn.last_arrival(end).max(now + conn.line.latency);
        self.after(at - now, Ev::Closed { conn: id, end: 1 - end });
        if end == 0 {
            self.dial_later(machine);
        }
    }

    /// One end of a connection learns that it is over.
    pub(super) fn close_end(&mut self, conn: u64, end: usize) -> Result<(), Failure> {
        if !self.conns.contains_key(&conn) {
            return Ok(());
        }
        self.stood_still(conn, end)?;
        let one = self.conns.get_mut(&conn).expect("it is there");
        if one.ends.iter().all(|end| !end.open) {
            let child = (one.ends[0].machine, one.ends[0].boot);
            self.conns.remove(&conn);
            if self.is_up(child.0, child.1) {
                self.machines[child.0].dialing = false;
                self.dial_later(child.0);
            }
            return Ok(());
        }
        let was_open = std::mem::replace(&mut one.ends[end].open, false);
        let (machine, boot, link) = (one.ends[end].machine, one.ends[end].boot, one.ends[end].link);
        if one.ends.iter().all(|end| !end.open) {
            self.conns.remove(&conn);
        }
        if was_open && self.is_up(machine, boot) {
            self.note(machine, format_args!("{link:?} is closed"));
            self.drive(machine, Event::Closed(link))?;
            if end == 0 {
                self.dial_later(machine);
            }
        }
        Ok(())
    }

    /// A connection ends now for one end and sooner or later for the other.
    pub(super) fn drop_conn(&mut self, conn: u64, first: usize, within: Millis) {
        let now = self.now;
        let Some(one) = self.conns.get_mut(&conn) else { return };
        let late = self.rng.below(one.line.latency + one.line.jitter + 1);
        one.cut(now + late);
        let delay = self.rng.below(within + 1);
        self.after(0, Ev::Closed { conn, end: first });
        self.after(delay, Ev::Closed { conn, end: 1 - first });
    }
}

/// A frame in a few words.
struct Brief<'a>(&'a Frame);

impl fmt::Display for Brief<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Frame::Hello(hello) => {
                write!(f, "HELLO run {:?} tip {:?} cursors {:?}", hello.run, hello.tip, hello.cursors)
            }
            Frame::Announce(a) => write!(f, "ANNOUNCE {:?} parent {:?}", a.incarnation, a.parent),
            Frame::Batch(b) => {
                let rows: Vec<_> =
                    b.entries.iter().map(|(pos, e)| format!("{pos}:{}", e.change_hash().short())).collect();
                let upto = b.upto.map(|(upto, _)| upto);
                write!(
                    f,
                    "BATCH {:?} {:?} {} {rows:?} {upto:?} by {:?}",
                    b.lane, b.segment, b.after, b.origin
                )
            }
            Frame::Bytes { hash, from, bytes } => write!(f, "BYTES {hash:?} {from} {}", bytes.len()),
            Frame::Tree(hash, _) => write!(f, "TREE {hash:?}"),
            other => write!(f, "{other:?}"),
        }
    }
}
