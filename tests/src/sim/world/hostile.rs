//! The hostile leaf: it has a genuine certificate of its place and says what it likes to whoever runs its parent.

use sync_core::{
    attachment::{Attachment, PIECE_BYTES, Tree},
    change::{Entry, opaque_chunk},
    engine::Identity,
    id::{Chain, Incarnation},
    time::Stamp,
    wire::{Ask, CONTENT_FRAME_MAX_BYTES, Hello},
};

use super::*;
use crate::{bytes::Choices, hostile::Hostile};

/// Most runs that it remembers.
const RUNS_MAX: usize = 64;
/// The first of them are its own.
const OWN_RUNS: usize = 4;
/// Most frames that it says at a time.
const FRAMES_MAX: u64 = 6;
/// Bytes from which each of them is put together.
const FRAME_BYTES: u64 = 80;
/// After one in so many times it goes on with more than anybody may hold back.
const FLOOD_ONE_IN: u64 = 32;

/// The hostile leaf, between what it says.
pub(super) struct Intruder {
    machine: usize,
    keys: [SimIdentity; 1],
    /// Its own runs, and such as it has heard of.
    runs: Vec<Incarnation>,
    serial: u64,
    /// Content of its own.
    contents: Vec<Vec<u8>>,
    /// Decides how it answers who asks for that, apart from all other chance.
    answers: Rng,
}

impl Intruder {
    pub(super) fn new(machine: usize, registry: &Registry, plan: &Plan) -> Self {
        let info = &plan.nodes.last().expect("it is the last").info;
        let key = SimIdentity::new(registry, &Expired::default(), info, Rng::new(plan.chance, "intruder"));
        // Of the one that it announces it speaks most.
        let (announced, other) = (key.mint(), key.mint());
        let runs = vec![announced, other, announced, announced];
        let contents = (1..=3).map(|n| vec![n; PIECE_BYTES * usize::from(n) + 1]).collect();
        let answers = Rng::new(plan.chance, "what an intruder answers");
        Self { machine, runs, keys: [key], serial: 0, contents, answers }
    }

    pub(super) fn contents(&self) -> impl Iterator<Item = Attachment> {
        self.contents.iter().map(|content| Tree::of(content).expect("a size that it may have").0)
    }

    /// Gives content of its own, mostly with something in it that is not so: the frames, and whether it is all right.
    fn answer(&mut self, ask: &Ask) -> (Vec<Frame>, bool) {
        let found = self.contents.iter().find_map(|content| {
            let (attachment, tree) = Tree::of(content)?;
            (attachment == ask.name.attachment).then_some((content, tree))
        });
        let Some((content, tree)) = found else {
            return (vec![Frame::Nothing(ask.name.clone())], true);
        };
        let (mut content, mut values) = (content.clone(), tree.values().to_vec());
        let (from, upto) = (ask.from as usize, content.len().min((ask.from + ask.len) as usize));
        let how = self.answers.below(4);
        match how {
            0 if ask.tree => values[0][0] ^= 1,
            0..=2 => content[from + self.answers.below((upto - from) as u64) as usize] ^= 1,
            _ => {}
        }
        let hash = ask.name.attachment.hash;
        let mut frames = Vec::new();
        if ask.tree {
            frames.push(Frame::Tree(hash, values));
        }
        let mut from = from;
        while from < upto {
            let piece_end = (from / PIECE_BYTES + 1) * PIECE_BYTES;
            let end = upto.min(piece_end).min(from + CONTENT_FRAME_MAX_BYTES);
            frames.push(Frame::Bytes { hash, from: from as u64, bytes: content[from..end].to_vec() });
            from = end;
        }
        (frames, how == 3)
    }
}

impl World<'_> {
    /// Some frames, on the connection that stands or on a new one. False when nobody listens.
    pub(super) fn speak_badly(&mut self) -> Result<bool, Failure> {
        let Some(machine) = self.intruder.as_ref().map(|intruder| intruder.machine) else { return Ok(false) };
        let found = self.conns.iter().find(|(_, conn)| conn.ends[0].machine == machine && conn.ends[0].open);
        let conn = match found.map(|(id, _)| *id) {
            Some(conn) => conn,
            None => match self.intrude(machine)? {
                Some(conn) => conn,
                None => return Ok(false),
            },
        };
        if self.plan.attachments {
            self.brings_content(conn);
        }
        let frames = self.rng.range(1, FRAMES_MAX);
        let bytes = self.rng.bytes((frames * FRAME_BYTES) as usize);
        let mut choices = Choices::new(&bytes);
        for _ in 0..frames {
            let frame = self.a_bad_frame(conn, &mut choices);
            self.put_on_line(conn, 0, &frame);
        }
        if self.rng.one_in(FLOOD_ONE_IN) {
            self.flood(conn);
        }
        Ok(true)
    }

    /// Batches of a run that it never announces: each has to wait.
    fn flood(&mut self, conn: u64) {
        let intruder = self.intruder.as_ref().expect("the caller has found it");
        let segment = intruder.keys[0].mint();
        let home = intruder.keys[0].info().place.org().clone();
        let record = "Basic/flood".parse().expect("a plain name");
        let chunk = opaque_chunk(segment, 1, &[], Stamp(1), b"flood");
        let entry = Entry::new(record, home, Lane::Bulk, chunk).expect("a readable header");
        let entries = vec![(1, entry)];
        let batch = EntryBatch { lane: Lane::Bulk, segment, after: 0, upto: None, origin: segment, entries };
        let frame = Frame::Batch(batch);
        (0..2 * HELD_MAX_BATCHES).for_each(|_| self.put_on_line(conn, 0, &frame));
    }

    /// An entry of its own that names content, as anybody makes it: it will be asked for that.
    fn brings_content(&mut self, conn: u64) {
        let target = self.conns[&conn].ends[1].machine;
        let intruder = self.intruder.as_mut().expect("the caller has found it");
        let (run, lane) = (intruder.runs[0], Lane::Normal);
        let read = self.machines[target].store.read(lane, run).expect("memory does not fail");
        let after = read.map_or(0, |known| known.cursor.at.pos);
        let attachments: Vec<_> = intruder.contents().collect();
        let attachment = *intruder.answers.pick(&attachments).expect("it has some");
        let home = intruder.keys[0].info().place.org().clone();
        let record = oracle::TWO_FACED.parse().expect("a plain name");
        let chunk = opaque_chunk(run, after + 1, &[], Stamp(1), b"brings");
        let entry = Entry::new(record, home, lane, chunk).expect("a readable header");
        let entry =
            entry.with_attachments(&[attachment]).signed(|statement| intruder.keys[0].sign(statement));
        let (upto, entries) = (Some((after + 1, Chain([7; 16]))), vec![(after + 1, entry)]);
        let batch = EntryBatch { lane, segment: run, after, upto, origin: run, entries };
        self.put_on_line(conn, 0, &Frame::Batch(batch));
    }

    /// It says HELLO and announces a run of its own as anybody does, mostly: who does not is not listened to for long.
    fn begin_well(&mut self, conn: u64) {
        let Some(intruder) = &self.intruder else { return };
        let run = intruder.runs[0];
        let announcement = intruder.keys[0].announce(run, None);
        let hello = Hello {
            run,
            software: String::new(),
            tip: None,
            cursors: Vec::new(),
            revocations: 0,
            allows: Secrecy::None,
        };
        for frame in [Frame::Hello(hello), Frame::Announce(announcement)] {
            if !self.rng.one_in(8) {
                self.put_on_line(conn, 0, &frame);
            }
        }
    }

    /// Connects to one of the parent's machines that listens.
    fn intrude(&mut self, machine: usize) -> Result<Option<u64>, Failure> {
        let node = self.machines[machine].node;
        let parent = self.plan.nodes[node].parent;
        let listens = |m: &usize| Some(self.machines[*m].node) == parent && self.is_awake(*m);
        let listening: Vec<_> = (0..self.machines.len()).filter(listens).collect();
        let Some(target) = self.rng.pick(&listening).copied() else { return Ok(None) };
        let links = [(); 2].map(|()| LinkId(self.fresh_name()));
        let ends = [(machine, 0, links[0]), (target, self.machines[target].boot, links[1])];
        let id = self.fresh_name();
        let mut conn = Conn::new(ends, self.plan.nodes[node].line);
        (conn.disturbed, conn.garbled_at) = (true, Some(self.now));
        self.conns.insert(id, conn);
        let peer = self.plan.nodes[node].info.clone();
        self.note(target, format_args!("is connected to {} by {:?}", peer.place, links[1]));
        let chain = SimIdentity::chain(peer.node);
        self.drive(target, Event::Connected { link: links[1], peer, chain, direction: Direction::Down })?;
        if self.conns.contains_key(&id) {
            self.begin_well(id);
        }
        Ok(self.conns.contains_key(&id).then_some(id))
    }

    fn a_bad_frame(&mut self, conn: u64, choices: &mut Choices<'_>) -> Frame {
        let target = self.conns[&conn].ends[1].machine;
        let heard_of = (0..4).filter_map(|_| self.a_record_of(target));
        let mut records: Vec<_> = heard_of.collect();
        records.extend(
            ["Flag/shared-0", "Patient/x", "Library/o.tw.1"].map(|name| name.parse().expect("a plain name")),
        );
        let mut homes: Vec<_> = self.places.all().take(8).map(|(org, _)| org.clone()).collect();
        let names = self.names_of_content(&records);
        let intruder = self.intruder.as_mut().expect("the caller has found it");
        // What it says of its own place is taken, mostly.
        let own = intruder.keys[0].info().place.org();
        homes.extend(std::iter::repeat_n(own, 2 * homes.len()).cloned().collect::<Vec<_>>());
        let nodes: Vec<_> = self.registry.values().cloned().collect();
        let one = &self.machines[target];
        let run = one.engine.as_ref().map_or(intruder.runs[0], Engine::incarnation);
        let mut hostile = Hostile {
            run,
            store: &one.store,
            runs: &intruder.runs,
            keys: &intruder.keys,
            nodes: &nodes,
            records: &records,
            homes: &homes,
            serial: &mut intruder.serial,
            names: &names,
        };
        if choices.one_in(3) {
            return Frame::Batch(hostile.sound_batch(intruder.runs[0], &homes[homes.len() - 1], choices));
        }
        match hostile.frame(choices) {
            // Twice is once too often.
            Frame::Hello(_) if !choices.one_in(8) => hostile.frame(choices),
            frame => frame,
        }
    }

    /// Whether this end of a connection is the intruder's.
    pub(super) fn is_intruders(&self, conn: u64, end: usize) -> bool {
        let machine = self.conns.get(&conn).map(|conn| conn.ends[end].machine);
        self.intruder.as_ref().is_some_and(|intruder| Some(intruder.machine) == machine)
    }

    /// The intruder remembers of which runs it has heard, and answers who asks it for content.
    pub(super) fn overhear(&mut self, id: u64, stream: usize) {
        let (Some(conn), Some(intruder)) = (self.conns.get_mut(&id), &mut self.intruder) else { return };
        let mut answers = Vec::new();
        while let Ok(Some(frame)) = conn.ends[0].inbox[stream].next_frame() {
            match frame {
                Frame::Hello(hello) => intruder.runs.push(hello.run),
                Frame::Announce(announcement) => intruder.runs.push(announcement.incarnation),
                Frame::Batch(batch) => intruder.runs.extend([batch.segment, batch.origin]),
                Frame::Ask(ask) => {
                    let (frames, is_right) = intruder.answer(&ask);
                    self.report.spoilt += u64::from(!is_right);
                    answers.extend(frames);
                }
                _ => {}
            }
        }
        let most = intruder.runs.len().saturating_sub(RUNS_MAX);
        intruder.runs.drain(OWN_RUNS..OWN_RUNS + most);
        answers.iter().for_each(|frame| self.put_on_line(id, 0, frame));
    }

    /// Whether a node is the hostile one.
    pub(super) fn is_hostile(&self, node: NodeId) -> bool {
        self.plan.hostile.is_some_and(|hostile| self.plan.nodes[hostile].info.node == node)
    }

    /// How many entries that only it makes a disk holds: those with its own place for a home.
    pub(super) fn hostile_entries(&self, store: &MemStore) -> Result<usize, Failure> {
        let Some(own) = self.plan.hostile.map(|node| self.plan.nodes[node].info.place.org()) else {
            return Ok(0);
        };
        let mut found = 0;
        for (row, _) in store.unfolded(0, usize::MAX).map_err(store_failed)? {
            let entry = store.entry(row).map_err(store_failed)?.expect("a row holds an entry");
            found += usize::from(entry.home() == own);
        }
        Ok(found)
    }

    /// The intruder is gone for good.
    pub(super) fn intruder_goes(&mut self) {
        let Some(machine) = self.intruder.take().map(|intruder| intruder.machine) else { return };
        self.machines[machine].retired = true;
        let own: Vec<_> =
            self.conns.iter().filter(|(_, c)| c.ends[0].machine == machine).map(|(id, _)| *id).collect();
        own.into_iter().for_each(|conn| self.drop_conn(conn, 0, IDLE_TIMEOUT));
    }
}
