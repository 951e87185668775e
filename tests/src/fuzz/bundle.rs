//! Bundle files: what was altered is refused with a sentence, whoever seals and signs gets in only what is theirs, and a
//! genuine bundle is taken after any other.
//!
//! The node under test is a hub that has taken one bundle of a clinic below it and is to take the next. Seals are random,
//! so a byte of a sealed file that is altered has no meaning of its own, only a place. Not here: the file on its way
//! through the daemon (`tests/tests/bundle.rs`).

use std::sync::LazyLock;

use node::{
    ca::Own,
    courier::{self, CourierError, MAGIC, Summary, VERSION, Writing},
    keys::Identity,
};
use sha2::{Digest, Sha256};
use sync_core::{
    attachment::{Name, PIECE_BYTES, Tree as ContentTree},
    bundle::{Head, Tail, to_be_signed},
    change::Entry,
    codec::{Reader, Writer},
    engine::{Effect, Engine, Event, Export, Heard, Identity as _, Imported, LinkId, Since, Ticket},
    feed::Position,
    id::{ChangeHash, Incarnation, Lane, OrgId, OrgPath, RecordId, Secrecy},
    identity::{NodeInfo, Role},
    store::{Batch, MemStore, Op, Store, StoreMut},
    time::Now,
    wire::{FRAME_MAX_BYTES, Frame, Hello, POSITION_MAX},
};

use super::tree::{Known, NOW, TREE, run_of};
use crate::{
    bytes::Choices,
    conformance::{content, entry, org, record},
    hostile::Hostile,
    sim::rng::Rng,
};

/// What stands for a value of a record: no message repeats it.
const VALUE: &str = "Sung Thi Canary 0912345678";
/// Under this name a bundle is taken.
const STICK: LinkId = LinkId(900);
/// The content is padded to so many bytes.
const BLOCK_BYTES: usize = 16 << 10;
/// Behind the header of the age format: a nonce, and a tag for each chunk.
const AROUND_BYTES: usize = 32;
/// The last line of that header, without what it begins with.
const MAC_LINE_BYTES: usize = 44;
/// Content that goes with a record: two pieces.
const CONTENT_BYTES: usize = 20_000;
/// A record of so many bytes makes a bundle of more than one chunk.
const LARGE_BYTES: usize = 90_000;
/// Who signs, of five: those that are neighbours mostly.
const WHO: [usize; 9] = [0, 0, 0, 1, 1, 2, 2, 3, 4];
/// Most frames that the bytes choose.
const FRAMES_MAX: usize = 24;
/// How often a frame is chosen anew that no bundle may bring.
const TRIES_MAX: usize = 8;
/// From where the runs of the clinic are counted, and those of the hub.
const WRITER: u8 = 10;
const READER: u8 = 40;

/// A bundle as the clinic has made it.
struct Sent {
    file: Vec<u8>,
    head: Head,
    frames: Vec<Frame>,
    tail: Tail,
    entries: Vec<(RecordId, ChangeHash)>,
}

/// What there is before the bytes begin.
struct Before {
    /// Large, and taken already.
    first: Sent,
    /// It goes on from there.
    second: Sent,
    /// The hub's disk.
    store: MemStore,
    attachment: Name,
}

static BEFORE: LazyLock<Before> = LazyLock::new(Before::new);

/// The first byte says what the rest is: a file, how a genuine one is altered, or what is in one that somebody of the tree
/// has sealed and signed.
pub fn bundle(data: &[u8]) {
    let mut c = Choices::new(data);
    match c.below(3) {
        0 => raw(c.rest()),
        1 => altered(c),
        _ => sealed(c),
    }
}

/// These bytes, as a file and behind what every bundle begins with; and as what is in one.
fn raw(bytes: &[u8]) {
    refused(bytes);
    let named = [&MAGIC[..], &[VERSION], bytes].concat();
    refused(&named);
    // Its blocks are whole, so its header is looked at.
    let genuine = &BEFORE.second.file;
    refused(&[&named, &genuine[header_bytes(genuine)..]].concat());
    if let Ok(head) = Head::decode(bytes) {
        assert_eq!(head.encode(), bytes, "a head has one form");
    }
    if let Ok(tail) = Tail::decode(bytes) {
        assert_eq!(tail.encode(), bytes, "a tail has one form");
    }
    is_taken_in_order(&mut Machine::hub());
}

/// One of the two, with some of its bytes changed.
fn altered(mut c: Choices<'_>) {
    let genuine = [&BEFORE.second.file, &BEFORE.first.file];
    let which = c.below(2);
    let (mut file, other) = (genuine[which].clone(), genuine[1 - which]);
    for _ in 0..=c.below(3) {
        let at = a_place(&file, &mut c);
        match c.below(7) {
            0 if at < file.len() => file[at] ^= 1 + c.below(255) as u8,
            1 => file.truncate(at),
            2 => file.resize(file.len() + 1 + usize::from(c.byte()) * 128, c.byte()),
            3 => drop(file.splice(at..at, [c.byte()])),
            4 => drop(file.drain(at..(at + 1 + c.below(64)).min(file.len()).max(at))),
            5 => drop(file.splice(at.., other[a_place(other, &mut c)..].iter().copied())),
            _ => {
                // One block in another's place.
                let from = a_place(&file, &mut c);
                let block = file[from..].iter().take(BLOCK_BYTES).copied().collect::<Vec<_>>();
                file.splice(at..(at + block.len()).min(file.len()), block);
            }
        }
    }
    refused(&file);
    is_taken_in_order(&mut Machine::hub());
}

/// Where the header ends.
fn header_bytes(file: &[u8]) -> usize {
    file.windows(5).position(|line| line == b"\n--- ").map_or(0, |at| at + 5 + MAC_LINE_BYTES)
}

/// In the header, at the end of a block, near the end, or anywhere.
fn a_place(file: &[u8], c: &mut Choices<'_>) -> usize {
    let at = match c.below(4) {
        0 => usize::from(c.byte()),
        1 => header_bytes(file) + AROUND_BYTES * c.below(3) / 2 + BLOCK_BYTES * c.below(8),
        2 => file.len().saturating_sub(usize::from(c.byte())),
        _ => c.u64() as usize % (file.len() + 1),
    };
    at.min(file.len())
}

/// Who seals and signs a bundle, and what it says.
fn sealed(mut c: Choices<'_>) {
    let tree = &*TREE;
    let everybody = [&tree.dong_van, &tree.meo_vac, &tree.root, &tree.ha_giang, &tree.cao_bang];
    let mut machine = if c.one_in(8) { Machine::empty() } else { Machine::hub() };
    let sent = if c.one_in(8) { &BEFORE.first } else { &BEFORE.second };
    let who = c.pick(&WHO);
    let signer = everybody[who];
    let other = |c: &mut Choices<'_>| everybody[c.below(everybody.len())];
    let shows = if c.one_in(8) { other(&mut c) } else { signer };
    let named = if c.one_in(8) { other(&mut c) } else { shows };
    let to = if c.one_in(8) { other(&mut c) } else { &tree.ha_giang };
    let sealed_to = if c.one_in(8) { other(&mut c) } else { to };
    let mut head = Head {
        sender: named.info().node,
        recipient: to.info().node,
        made: if c.one_in(4) { c.u64() as i64 } else { sent.head.made },
        chain: chain_of(&shows.files()),
        ..sent.head.clone()
    };
    if c.one_in(8) {
        head.chain.rotate_left(1);
    }

    let miscounts = c.one_in(8).then(|| (c.below(3), 1 + u64::from(c.byte())));
    let ends_twice = c.one_in(8);
    let spoilt = c.one_in(8).then(|| c.below(64));

    match c.below(8) {
        _ if who > 0 => head.from.clear(),
        6 => head.from.clear(),
        7 => head.from.clone_from(&BEFORE.second.tail.upto),
        _ => {}
    }
    let mut speaker = Speaker::new(everybody, who);
    let begins = if who == 0 { sent.frames.clone() } else { speaker.begins() };
    let frames = if who == 0 && c.one_in(2) {
        begins.iter().map(Frame::encode).collect()
    } else {
        around(begins, &mut speaker, &machine, &mut c)
    };
    let decoded: Option<Vec<_>> = frames.iter().map(|frame| decoded(frame)).collect();
    let mut tail = Tail { entries: counts(decoded.as_deref().unwrap_or_default()), ..sent.tail.clone() };
    if let Some((lane, by)) = miscounts {
        tail.entries[lane] ^= by;
    }
    let made = made(sealed_to, &head, &frames, ends_twice, &tail, |statement| {
        let mut signature = signer.sign(statement);
        if let Some(at) = spoilt {
            signature[at] ^= 1;
        }
        signature
    });

    let is_genuine = [shows, named].iter().all(|one| one.info() == signer.info())
        && [to, sealed_to].iter().all(|one| one.info() == tree.ha_giang.info())
        && head.chain == chain_of(&signer.files())
        && (decoded.is_some() && miscounts.is_none() && !ends_twice && spoilt.is_none());
    match check(&made, &tree.ha_giang) {
        Ok(summary) => {
            assert!(is_genuine, "only the node that signs a bundle is taken for its sender");
            assert_eq!((&summary.sender, &summary.head, &summary.tail), (signer.info(), &head, &tail));
            let imported = machine.takes(&made, summary);
            let may_say =
                [&tree.dong_van, &tree.meo_vac, &tree.root].iter().any(|one| one.info() == signer.info());
            assert!(may_say || imported.refused.is_some(), "only neighbours bring anything");
        }
        Err(error) => assert!(!is_genuine, "a bundle that is whole and signed is read: {error}"),
    }
    is_taken(&mut machine, &BEFORE.second);
}

/// Frames as they should be, with others around them and without some.
fn around(begins: Vec<Frame>, speaker: &mut Speaker, hub: &Machine, c: &mut Choices<'_>) -> Vec<Vec<u8>> {
    let mut begins = begins.into_iter();
    let mut frames: Vec<Vec<u8>> = Vec::new();
    let mut said_hello = false;
    while !c.is_done() && frames.len() < FRAMES_MAX {
        let goes_on = !said_hello && !c.one_in(8);
        match c.below(8) {
            choice if goes_on || choice < 2 => {
                let next = begins.next();
                said_hello |= matches!(next, Some(Frame::Hello(_)));
                frames.extend(next.iter().map(Frame::encode));
            }
            2 => drop(begins.next()),
            3 => frames.push(c.pick(&BEFORE.second.frames).encode()),
            4 if c.one_in(4) => {
                let length = usize::from(c.byte());
                let mut w = Writer::default();
                frames.push(w.bytes(c.take(length)).0.clone());
            }
            5 => frames.extend(like_content(c).iter().map(Frame::encode)),
            _ => frames.push(speaker.frame(hub, c).encode()),
        }
    }
    frames.extend(begins.as_slice().iter().map(Frame::encode));
    frames
}

/// The content that is in the second bundle, or something like it.
fn like_content(c: &mut Choices<'_>) -> Vec<Frame> {
    let is_content =
        |frame: &&Frame| matches!(frame, Frame::Kept(..) | Frame::Tree(..) | Frame::Bytes { .. });
    let mut frames: Vec<_> = BEFORE.second.frames.iter().filter(is_content).cloned().collect();
    for frame in &mut frames {
        match (frame, c.below(8)) {
            (Frame::Tree(_, values), 5) => drop(values.pop()),
            (Frame::Tree(_, values), 6) => values[0][0] ^= 1,
            (Frame::Bytes { from, .. }, 5) => *from = c.u64() >> c.below(64),
            (Frame::Bytes { bytes, .. }, 6) => bytes[usize::from(c.byte())] ^= 1,
            (Frame::Bytes { bytes, .. }, 7) => bytes.truncate(usize::from(c.byte()) * 64),
            _ => {}
        }
    }
    if c.one_in(4) {
        frames.remove(c.below(frames.len()));
    }
    frames
}

/// A frame that stands with its length; none for what is no frame.
fn decoded(encoded: &[u8]) -> Option<Frame> {
    let body = Reader(encoded).bytes(FRAME_MAX_BYTES, "a frame").ok()?;
    Frame::decode(body).ok()
}

fn counts(frames: &[Frame]) -> [u64; 3] {
    let mut entries = [0; 3];
    for frame in frames {
        if let Frame::Batch(batch) = frame {
            entries[batch.lane as usize] += batch.entries.len() as u64;
        }
    }
    entries
}

fn chain_of(identity: &Identity) -> Vec<Vec<u8>> {
    identity.chain.iter().map(|der| der.to_vec()).collect()
}

/// A file; one that ends twice has a second end behind its signature.
fn made(
    to: &Own,
    head: &Head,
    frames: &[Vec<u8>],
    ends_twice: bool,
    tail: &Tail,
    sign: impl Fn(&[u8]) -> Vec<u8>,
) -> Vec<u8> {
    let mut file = Vec::new();
    let mut writing = Writing::begin(&mut file, to.files().key.public(), head).expect("memory has room");
    for frame in frames {
        writing.frames(frame).expect("memory has room");
    }
    if ends_twice {
        let mut end = Writer::default();
        end.u8(0).bytes(&tail.encode());
        let mut before = Writer::default();
        before.bytes(&head.encode());
        let parts = [&before.0[..], &frames.concat(), &end.0].concat();
        let signature = sign(&to_be_signed(Sha256::digest(parts).into()));
        end.bytes(&signature);
        writing.frames(&end.0).expect("memory has room");
    }
    writing.end(tail, sign).expect("memory has room");
    file
}

/// What this node says of a file, as `inspect` and `import` do. Every refusal is a sentence that repeats no value.
fn check(file: &[u8], own: &Own) -> Result<Summary, String> {
    courier::check(file, file.len() as u64, own).map_err(|error| {
        assert!(!matches!(error, CourierError::Io(_)), "memory can always be read: {error}");
        let told = node::admin::Failure::from(error).text;
        assert!(told.ends_with(". Nothing was taken") && !told.contains(VALUE), "{told}");
        told
    })
}

/// Unless it is one of the two.
fn refused(file: &[u8]) {
    if [&BEFORE.first, &BEFORE.second].iter().any(|sent| sent.file == file) {
        return;
    }
    assert!(check(file, &TREE.ha_giang).is_err(), "a file that nobody has made is refused");
}

/// The second bundle goes on where the first has ended, so nothing of it is known or left out.
fn is_taken_in_order(hub: &mut Machine) {
    let imported = is_taken(hub, &BEFORE.second);
    assert_eq!((imported.new, imported.known), (BEFORE.second.entries.len() as u64, 0));
    assert_eq!((imported.attachments, &imported.gaps[..]), (1, &[][..]));
    assert!(hub.store.missing(&BEFORE.attachment).expect("memory").is_empty(), "with its content");
}

/// Whatever came before: all that it brings is there then.
fn is_taken(hub: &mut Machine, sent: &Sent) -> Imported {
    let summary = check(&sent.file, hub.engine.identity().own()).expect("a genuine bundle is good");
    let imported = hub.takes(&sent.file, summary);
    assert_eq!(imported.refused, None, "a genuine bundle is taken");
    for (record, hash) in &sent.entries {
        assert!(hub.store.has(record, hash).expect("memory"), "{record} is there");
    }
    imported
}

/// Where an organization stands.
fn place_of(org: &OrgId) -> Option<OrgPath> {
    let tree = &*TREE;
    let everybody = [&tree.root, &tree.ha_giang, &tree.cao_bang, &tree.dong_van, &tree.meo_vac];
    everybody.into_iter().map(|own| own.info().place.clone()).find(|place| place.org() == org)
}

/// A node and its disk.
struct Machine {
    engine: Engine<Known>,
    store: MemStore,
    /// When the newest bundle was made that it has taken.
    heard: i64,
}

impl Machine {
    fn new(own: &Own, run: u8, store: MemStore) -> Self {
        let engine = Engine::new(Known::new(own, run), "f", &store).expect("memory does not fail");
        Self { engine, store, heard: i64::MIN }
    }

    /// The hub, which has lost all that it had.
    fn empty() -> Self {
        Self::new(&TREE.ha_giang, READER + 16, MemStore::default())
    }

    fn hub() -> Self {
        let heard = BEFORE.first.head.made;
        Self { heard, ..Self::new(&TREE.ha_giang, READER + 8, BEFORE.store.clone()) }
    }

    /// Something happens, and the disk does what it has to do.
    fn told(&mut self, event: Event) -> Vec<Effect> {
        let (now, mut effects, mut next) = (Now { mono: 0, wall: NOW }, Vec::new(), Some(event));
        while let Some(event) = next.take() {
            self.engine.handle(event, &self.store, now).expect("memory does not fail");
            while let Some(effect) = self.engine.poll_effect() {
                match effect {
                    Effect::Commit(batch) => {
                        batch.iter().for_each(|op| self.may_be_kept(op, &batch));
                        self.store.commit(&batch).expect("memory does not fail");
                        next = Some(Event::Committed);
                    }
                    other => effects.push(other),
                }
            }
        }
        effects
    }

    /// As the daemon takes a bundle that is good.
    fn takes(&mut self, file: &[u8], summary: Summary) -> Imported {
        let own = self.engine.identity().own().clone();
        let mut reading =
            courier::open(file, file.len() as u64, &own.files().key).expect("it was opened before");
        let Summary { head, sender: peer, .. } = summary;
        let newest = head.made > self.heard;
        let event = Event::Bundle { link: STICK, peer, chain: head.chain, from: head.from, newest };
        let mut effects = self.told(event);
        while let Some(frame) = reading.next_frame().expect("it was read before") {
            effects.extend(self.told(Event::Bundled(STICK, frame)));
        }
        effects.extend(self.told(Event::BundleEnds(STICK)));
        let mut outcome = None;
        for effect in effects {
            match effect {
                Effect::Imported(STICK, imported) => {
                    assert!(outcome.is_none(), "a bundle is answered once");
                    outcome = Some(*imported);
                }
                Effect::Alert(alert) => assert!(!format!("{alert:?}").contains(VALUE), "{alert:?}"),
                Effect::Forgotten(_) => {}
                other => panic!("nobody is there to whom anything is sent: {other:?}"),
            }
        }
        let outcome = outcome.expect("a bundle that ends is answered");
        match &outcome.refused {
            Some((_, text)) => assert!(!text.is_empty() && !text.contains(VALUE), "{text}"),
            None => self.heard = self.heard.max(head.made),
        }
        while let Some(ops) = sync_core::fold::next(&self.store, 100).expect("memory does not fail") {
            self.told(Event::Folded(ops));
        }
        outcome
    }

    /// What a child brings is of its part of the tree, and its author's to write.
    fn may_be_kept(&self, op: &Op, batch: &Batch) {
        let Op::Append { entry, src: Some(src), .. } = op else { return };
        let sender = self.node_of(src.segment, batch);
        if sender.role != Role::Leaf {
            return;
        }
        let author = self.node_of(entry.origin(), batch);
        let stands = place_of(entry.home());
        let is_authors = stands.is_some_and(|place| place.is_within(&author.place));
        assert!(is_authors, "an author writes for its own part of the tree");
        let mut homes = self.store.homes(entry.record()).expect("memory");
        homes.extend(batch.iter().filter_map(|op| match op {
            Op::AddHome(record, home) if record == entry.record() => Some(home.clone()),
            _ => None,
        }));
        homes.push(entry.home().clone());
        assert!(homes.contains(sender.place.org()), "a child brings records of its own part");
    }

    fn node_of(&self, run: Incarnation, batch: &Batch) -> NodeInfo {
        let stored = self.store.announcement(run).expect("memory").map(|(_, info)| info);
        let now = batch.iter().find_map(|op| match op {
            Op::Announce(announcement, info) if announcement.incarnation == run => Some(info.clone()),
            _ => None,
        });
        stored.or(now).expect("a run is announced before its rows are kept")
    }

    /// Its people write these entries, with what belongs to them.
    fn writes(&mut self, entries: Vec<Entry>, projection: Vec<Op>) {
        let effects = self.told(Event::Write { ticket: Ticket(1), entries, projection });
        assert!(matches!(effects[..], [Effect::Written(_)]), "{effects:?}");
    }

    /// A bundle for a neighbour that goes on from where the last one ended.
    fn sends(&self, to: &Own, last: &Heard, made_at: i64) -> (Sent, Heard) {
        let peer = to.info().clone();
        let now = Now { mono: 0, wall: NOW };
        let export = self.engine.export(peer, Since::Last, last, &self.store, now).expect("memory");
        let mut export: Export = export.expect("they are neighbours");
        let own = self.engine.identity().own();
        let head = Head {
            sender: own.info().node,
            recipient: to.info().node,
            made: made_at,
            from: export.from().to_vec(),
            chain: chain_of(&own.files()),
        };
        let mut frames = Vec::new();
        while let Some(more) = self.engine.export_next(&mut export, &self.store).expect("memory") {
            frames.extend(more);
        }
        let upto = self.engine.export_reached(&export, &self.store).expect("memory");
        let tail = Tail { entries: export.entries(), upto: upto.clone(), more: false };
        let entries = frames.iter().filter_map(|frame| match frame {
            Frame::Batch(batch) => Some(batch.entries.iter()),
            _ => None,
        });
        let entries =
            entries.flatten().map(|(_, entry)| (entry.record().clone(), entry.change_hash())).collect();
        let encoded: Vec<_> = frames.iter().map(Frame::encode).collect();
        let file = made(to, &head, &encoded, false, &tail, |statement| own.sign(statement));
        let heard = Heard { last: upto, given: export.given().clone(), ..last.clone() };
        (Sent { file, head, frames, tail, entries }, heard)
    }
}

impl Before {
    fn new() -> Self {
        let mut hub = Machine::new(&TREE.ha_giang, READER, MemStore::default());
        let mut clinic = Machine::new(&TREE.dong_van, WRITER, MemStore::default());
        let home = org("dong-van");
        let write = |machine: &mut Machine, n: u64, name: &str, body: &[u8]| {
            let record = record(name);
            let lane = Lane::of_resource_type(record.resource_type());
            let run = machine.engine.incarnation();
            machine.writes(vec![entry(&record, &home, lane, run, n, &[], body)], Vec::new());
        };
        write(&mut hub, 1, "Patient/1", VALUE.as_bytes());
        let (down, _) = hub.sends(&TREE.dong_van, &Heard::default(), NOW - 3);
        is_taken(&mut clinic, &down);

        write(
            &mut clinic,
            1,
            "Patient/2",
            &[VALUE.as_bytes(), &Rng::new(1, "bundle").bytes(LARGE_BYTES)].concat(),
        );
        write(&mut clinic, 2, "Flag/3", VALUE.as_bytes());
        let (first, heard) = clinic.sends(&TREE.ha_giang, &Heard::default(), NOW - 2);
        is_taken(&mut hub, &first);

        write(&mut clinic, 3, "Patient/2", VALUE.as_bytes());
        write(&mut clinic, 4, "Observation/5", VALUE.as_bytes());
        let whole = content(7, CONTENT_BYTES);
        let (attachment, pieces) = ContentTree::of(&whole).expect("a size that it may have");
        let of = record("DocumentReference/6");
        let name = Name { record: of.clone(), attachment };
        let run = clinic.engine.incarnation();
        let lane = Lane::of_resource_type(of.resource_type());
        let document = entry(&of, &home, lane, run, 5, &[], VALUE.as_bytes()).with_attachments(&[attachment]);
        let mut projection = vec![Op::Tree(name.clone(), pieces)];
        for (nth, bytes) in whole.chunks(PIECE_BYTES).enumerate() {
            projection.push(Op::Piece { name: name.clone(), nth, bytes: bytes.to_vec() });
        }
        clinic.writes(vec![document], projection);
        let (second, _) = clinic.sends(&TREE.ha_giang, &heard, NOW - 1);
        Self { first, second, store: hub.store, attachment: name }
    }
}

/// Who speaks in a bundle that it has sealed and signed itself.
struct Speaker {
    keys: Vec<Known>,
    nodes: Vec<NodeInfo>,
    runs: Vec<Incarnation>,
    records: Vec<RecordId>,
    homes: Vec<OrgId>,
    serial: u64,
    names: Vec<Name>,
}

impl Speaker {
    fn new(everybody: [&Own; 5], who: usize) -> Self {
        let of = |own: &Own, n| run_of(own, n);
        let own = everybody[who];
        let runs = vec![of(own, 70), of(own, 71), of(&TREE.dong_van, WRITER), of(&TREE.meo_vac, 72)];
        Self {
            keys: std::iter::once(own).chain(everybody).map(|own| Known::new(own, 80)).collect(),
            nodes: everybody.map(|own| own.info().clone()).to_vec(),
            runs,
            records: ["Patient/1", "Patient/2", "Flag/3", "DocumentReference/6"].map(record).to_vec(),
            homes: ["dong-van", "dong-van", "meo-vac", "ha-giang", "nobody"].map(org).to_vec(),
            serial: 100,
            names: vec![BEFORE.attachment.clone()],
        }
    }

    /// How somebody begins who has written nothing that the hub has read.
    fn begins(&self) -> Vec<Frame> {
        let run = self.runs[0];
        let hello = Hello {
            run,
            software: "f".to_owned(),
            tip: Some(Position { segment: run, pos: POSITION_MAX }),
            cursors: Vec::new(),
            revocations: 0,
            allows: Secrecy::None,
        };
        vec![Frame::Announce(self.keys[0].announce(run, None)), Frame::Hello(hello)]
    }

    fn frame(&mut self, hub: &Machine, c: &mut Choices<'_>) -> Frame {
        let home = self.nodes.iter().find(|node| node.node == self.keys[0].info().node);
        let home = home.expect("it is one of them").place.org().clone();
        let mut hostile = Hostile {
            run: hub.engine.incarnation(),
            store: &hub.store,
            runs: &self.runs,
            keys: &self.keys,
            nodes: &self.nodes,
            records: &self.records,
            homes: &self.homes,
            serial: &mut self.serial,
            names: &self.names,
        };
        if c.one_in(4) {
            return Frame::Batch(hostile.sound_batch(self.runs[0], &home, c));
        }
        let anything = c.one_in(8);
        let may_come = |frame: &Frame| {
            let is_elsewhere = matches!(
                frame,
                Frame::Hello(_)
                    | Frame::Lost
                    | Frame::Need(_)
                    | Frame::NeedPlace(_)
                    | Frame::Cursors(_)
                    | Frame::Ack(..)
                    | Frame::Refuse { .. }
                    | Frame::Nothing(_)
                    | Frame::Audit
                    | Frame::Total(_)
                    | Frame::Look(_)
                    | Frame::Ranges(_)
                    | Frame::Want(_)
                    | Frame::Repair(_)
                    | Frame::Repaired(_)
            );
            anything || !is_elsewhere
        };
        // What no bundle may bring ends the rest, so it comes seldom.
        let mut tried = (0..TRIES_MAX).map(|_| hostile.frame(c));
        tried.find(may_come).unwrap_or(Frame::Lost)
    }
}
