//! A neighbour that means badly. Its frames are well-formed, put together from few names so that they often mean
//! something: places in the other's feed and beyond, runs of others, entries that are not its own, statements that
//! nobody signed.

use sync_core::{
    attachment::{Kept, Name, PIECE_BYTES},
    audit::{Part, Prefix, Range},
    change::{Entry, opaque_chunk},
    engine::Identity,
    feed::{CHAIN_START, Cursor, Digest, Position},
    id::{Chain, Incarnation, Lane, OrgId, RecordId, Secrecy},
    identity::{Announcement, NodeInfo, Reason, Revocation},
    store::{MemStore, Store},
    time::Stamp,
    wire::{ASK_MAX_BYTES, Ask, EntryBatch, Frame, Hello, POSITION_MAX, Want},
};

use crate::{bytes::Choices, sim::identity::SimIdentity};

/// One in so many of its entries has a stamp beyond which there is none.
const LAST_STAMP_ONE_IN: u64 = 7;

/// What a hostile neighbour knows; more than any could. It signs with identities of the simulator, or real ones.
pub struct Hostile<'a, I = SimIdentity> {
    /// The run of the node to which it speaks.
    pub run: Incarnation,
    /// What that node holds.
    pub store: &'a MemStore,
    /// Other runs of which it speaks; at least one.
    pub runs: &'a [Incarnation],
    /// With which keys it signs; at least one.
    pub keys: &'a [I],
    /// The nodes of the tree.
    pub nodes: &'a [NodeInfo],
    /// The records of which it speaks.
    pub records: &'a [RecordId],
    /// The homes that it gives them.
    pub homes: &'a [OrgId],
    /// How many entries it has made.
    pub serial: &'a mut u64,
    /// The content of which it speaks; where there is none it does not.
    pub names: &'a [Name],
}

impl<I: Identity> Hostile<'_, I> {
    /// Anything.
    pub fn frame(&mut self, c: &mut Choices<'_>) -> Frame {
        let lane = c.pick(&Lane::ALL);
        if !self.names.is_empty() && c.one_in(3) {
            return self.of_content(c);
        }
        match c.below(16) {
            0 => Frame::Hello(self.hello(c)),
            1 => Frame::Need(self.a_run(c)),
            2 if c.one_in(2) => Frame::NeedPlace(c.pick(self.homes)),
            2 => Frame::Lost,
            3 => Frame::Cursors(self.cursors(c)),
            4 | 5 => Frame::Ack(lane, self.a_place(c)),
            6 if c.one_in(2) => self.of_an_audit(c),
            6 => Frame::SafeAtRoot(lane, self.a_place(c)),
            7 => Frame::Revocations(vec![self.a_revocation(c)]),
            8 => Frame::Refuse { code: c.pick(&[100, 101, 104, 7]), text: "x".repeat(c.below(256) * 5) },
            9 => {
                let length = usize::from(c.byte());
                Frame::decode(c.take(length)).unwrap_or(Frame::Lost)
            }
            10..=12 => Frame::Announce(self.an_announcement(c)),
            _ => Frame::Batch(self.batch(c)),
        }
    }

    /// Asks for content that is or is not its own, and gives what nobody asked for.
    fn of_content(&mut self, c: &mut Choices<'_>) -> Frame {
        let name = c.pick(self.names);
        let (hash, size) = (name.attachment.hash, name.attachment.size);
        let from = (c.below(8) * PIECE_BYTES / 2) as u64 % size;
        match c.below(8) {
            0..=2 => {
                let len = (1 + u64::from(c.byte()) * 300).min(size - from).min(ASK_MAX_BYTES);
                Frame::Ask(Ask { name, from, len, tree: c.one_in(2) })
            }
            3 => Frame::Tree(hash, vec![[c.byte(); 32]; name.attachment.pieces()]),
            4 => Frame::Bytes { hash, from, bytes: vec![c.byte(); 1 + c.below(4_096)] },
            5 => Frame::Nothing(name),
            6 => Frame::Kept(name, Kept::Root),
            _ => Frame::Kept(name, Kept::Here),
        }
    }

    /// How it begins.
    pub fn hello(&self, c: &mut Choices<'_>) -> Hello {
        Hello {
            run: self.a_run(c),
            software: "f".repeat(c.below(80)),
            tip: c.one_in(2).then(|| self.a_place(c)),
            cursors: if c.one_in(2) { self.cursors(c) } else { Vec::new() },
            revocations: u64::from(c.one_in(4)),
            allows: Secrecy::from_u8(c.below(4) as u8),
        }
    }

    /// Entries that go on where the other has read to, or anywhere.
    pub fn batch(&mut self, c: &mut Choices<'_>) -> EntryBatch {
        let (lane, segment) = (c.pick(&Lane::ALL), self.a_run(c));
        let read = self.store.read(lane, segment).expect("memory").map_or(0, |known| known.cursor.at.pos);
        let after = if c.one_in(4) { self.a_place(c).pos } else { read };
        let origin = if c.one_in(2) { self.a_run(c) } else { segment };
        let (mut entries, mut pos) = (Vec::new(), after);
        for _ in 0..c.below(4) {
            let Some(next) = pos.checked_add(1 + c.below(3) as u64).filter(|pos| *pos <= POSITION_MAX) else {
                break;
            };
            pos = next;
            entries.push((pos, self.an_entry(lane, origin, c)));
        }
        let upto = match c.below(4) {
            0 => None,
            1 => Some((self.a_place(c).pos, Chain([8; 16]))),
            _ => Some((pos, Chain([8; 16]))),
        };
        EntryBatch { lane, segment, after, upto, origin, entries }
    }

    /// Entries for its own home, in the order of its own run: its own, or such as look like those of the node itself.
    pub fn sound_batch(&mut self, run: Incarnation, home: &OrgId, c: &mut Choices<'_>) -> EntryBatch {
        let origin = if c.one_in(2) { self.run } else { run };
        let record: RecordId = c.pick(self.records);
        let home = record.issuer().unwrap_or_else(|| home.clone());
        let lane = Lane::of_resource_type(record.resource_type());
        let after = self.store.read(lane, run).expect("memory").map_or(0, |known| known.cursor.at.pos);
        let named = (!self.names.is_empty() && c.one_in(4)).then(|| c.pick(self.names));
        let entry = |pos: u64| {
            let chunk = opaque_chunk(origin, pos, &[], Stamp(pos as i64), &[pos as u8]);
            let entry = Entry::new(record.clone(), home.clone(), lane, chunk).expect("a readable header");
            let entry = named.iter().fold(entry, |entry, name| entry.with_attachments(&[name.attachment]));
            (pos, entry.signed(|statement| self.keys[0].sign(statement)))
        };
        let upto = after + 1 + c.below(3) as u64;
        let entries = (after + 1..=upto).map(entry).collect();
        EntryBatch { lane, segment: run, after, upto: Some((upto, Chain([7; 16]))), origin, entries }
    }

    /// Something of an audit: questions, answers, entries that nobody asked for.
    fn of_an_audit(&mut self, c: &mut Choices<'_>) -> Frame {
        let prefix = |c: &mut Choices<'_>| {
            let deeper = |prefix: Prefix, nibble: u8| prefix.child(nibble % 16).unwrap_or(prefix);
            (0..c.below(17)).fold(Prefix::ALL, |prefix, _| deeper(prefix, c.byte()))
        };
        match c.below(9) {
            0..=2 => Frame::Audit,
            3 => Frame::Total(c.one_in(2).then(|| Digest { count: u64::from(c.byte()), sum: 7 })),
            4 => Frame::Look((0..c.below(3)).map(|_| prefix(c)).collect()),
            5 => {
                let part = Part { count: u64::MAX, sum: 1 };
                let ranges = [
                    Range::Parts(Box::new([part; 16])),
                    Range::Hashes(vec![1, 1]),
                    Range::Hashes(Vec::new()),
                ];
                Frame::Ranges((0..c.below(3)).map(|_| c.pick(&ranges)).collect())
            }
            6 => {
                let held = self.store.unfolded(0, 8).expect("memory").into_iter().map(|(row, _)| row);
                let entries = held.filter_map(|row| self.store.entry(row).expect("memory"));
                let (mut named, mut hashes) = (Vec::new(), Vec::new());
                for entry in entries {
                    named.push((entry.record().clone(), entry.change_hash()));
                    hashes.push(u64::from_be_bytes(entry.hash().0[..8].try_into().expect("eight bytes")));
                }
                Frame::Want(Want { named, hashes })
            }
            7 => {
                let (lane, origin) = (c.pick(&Lane::ALL), self.a_run(c));
                Frame::Repair((0..c.below(3)).map(|_| self.an_entry(lane, origin, c)).collect())
            }
            _ => Frame::Repaired(u64::from(c.byte())),
        }
    }

    fn an_entry(&mut self, lane: Lane, origin: Incarnation, c: &mut Choices<'_>) -> Entry {
        let record: RecordId = c.pick(self.records);
        let of_lane = if c.one_in(8) { lane } else { Lane::of_resource_type(record.resource_type()) };
        let author = if c.one_in(16) { self.a_run(c) } else { origin };
        // Now and then an entry comes twice.
        let n = if c.one_in(4) {
            1
        } else {
            *self.serial += 1;
            *self.serial
        };
        let home = c.pick(self.homes);
        let home = record.issuer().unwrap_or(home);
        let stamp = if n.is_multiple_of(LAST_STAMP_ONE_IN) { i64::MAX } else { n as i64 };
        let chunk = opaque_chunk(author, n, &[], Stamp(stamp), &[n as u8]);
        let entry = Entry::new(record, home, of_lane, chunk).expect("a readable header");
        let named = (!self.names.is_empty() && c.one_in(4)).then(|| c.pick(self.names));
        let entry = named.iter().fold(entry, |entry, name| entry.with_attachments(&[name.attachment]));
        // What is issued by others it signs as well, with its own key.
        if c.one_in(4) { entry } else { entry.signed(|statement| self.keys[0].sign(statement)) }
    }

    fn a_run(&self, c: &mut Choices<'_>) -> Incarnation {
        let own: Vec<_> = self.store.segments().expect("memory").iter().map(|s| s.incarnation).collect();
        match c.below(8) {
            0 => self.run,
            1 if !own.is_empty() => own[c.below(own.len().min(256))],
            n => self.runs[n % self.runs.len()],
        }
    }

    fn a_place(&self, c: &mut Choices<'_>) -> Position {
        let pos = match c.below(8) {
            0 => POSITION_MAX,
            1 => POSITION_MAX - u64::from(c.byte()),
            n => n as u64 - 2,
        };
        Position { segment: self.a_run(c), pos }
    }

    fn cursors(&self, c: &mut Choices<'_>) -> Vec<(Lane, Cursor)> {
        let mut cursors = Vec::new();
        for lane in Lane::ALL {
            if c.one_in(2) {
                let at = self.a_place(c);
                let segments = self.store.segments().expect("memory");
                let base = segments.iter().find(|s| s.incarnation == at.segment).map(|s| s.base + at.pos);
                let right = base.and_then(|seq| self.store.chain(seq).expect("memory"));
                let chain = c.pick(&[right, None, Some(CHAIN_START), Some(Chain([9; 16]))]);
                cursors.push((lane, Cursor { at, chain }));
            }
        }
        cursors
    }

    /// Signed with one of its keys, or wrongly.
    fn an_announcement(&self, c: &mut Choices<'_>) -> Announcement {
        let who = c.below(self.keys.len());
        let parent = match c.below(4) {
            0 => Some(self.a_place(c)),
            1 => Some(Position { segment: self.a_run(c), pos: u64::MAX }),
            _ => None,
        };
        let node = self.keys[who].info().node;
        let own = self.runs.iter().find(|run| run.is_of(node)).filter(|_| !c.one_in(4));
        let run = own.copied().unwrap_or_else(|| self.a_run(c));
        let mut announcement = self.keys[who].announce(run, parent);
        match c.below(8) {
            0 => announcement.signature[0] ^= 1,
            1 => announcement.chain.clear(),
            2 => announcement.node = self.nodes[c.below(self.nodes.len())].node,
            _ => {}
        }
        announcement
    }

    fn a_revocation(&self, c: &mut Choices<'_>) -> Revocation {
        let mut node = || &self.nodes[c.below(self.nodes.len())];
        Revocation {
            node: node().node,
            serial: None,
            place: node().place.clone(),
            reason: Reason::Lost,
            at: 0,
            signer: node().node,
            signature: vec![0; 64],
            chain: Vec::new(),
        }
    }
}
