//! Attachments: content that people bring and ask for, where it may go, what is said of where it is, and what is left of it.

use sync_core::{
    attachment::{Attachment, Held, Kept, Name, PIECE_BYTES, Tree},
    change::Entry,
    id::ContentHash,
    wire::ASK_MAX_BYTES,
};

use super::*;

/// Most pieces of content, so that a world stays cheap.
const PIECES: u64 = 4;
/// One write in so many brings content.
const BRINGS_ONE_IN: u64 = 4;
/// At one act in so many somebody asks for content.
const ASKS_ONE_IN: u64 = 3;
/// Of content may be sent again, for each session: what was asked for and is not durable when it ends, on either side.
const AGAIN_PER_SESSION_BYTES: u64 = 2 * (2 * ASK_MAX_BYTES + PIECE_BYTES as u64);

/// What a world remembers of content.
#[derive(Default)]
pub(super) struct Contents {
    /// Whose record each hash is of, and the node that wrote it.
    written: BTreeMap<ContentHash, (Name, usize)>,
    /// What people have asked for, by the node, with the machine and its start: what was not begun then is forgotten.
    asked: BTreeMap<(usize, Name), (usize, u64)>,
    /// Of what something has rotted, by the node.
    rotten: BTreeSet<(usize, Name)>,
    /// Bytes that were sent, and that became durable where they were lacking.
    sent: u64,
    needed: u64,
}

impl World<'_> {
    /// Now and then what somebody writes brings content.
    pub(super) fn with_content(&mut self, machine: usize, entry: Entry, keeps: &mut Vec<Op>) -> Entry {
        if !self.plan.attachments || !self.rng.one_in(BRINGS_ONE_IN) {
            return entry;
        }
        let size = PIECE_BYTES as u64 + self.rng.range(1, (PIECES - 1) * PIECE_BYTES as u64);
        let part = self.rng.bytes(64);
        let content: Vec<u8> = part.into_iter().cycle().take(size as usize).collect();
        let (attachment, tree) = Tree::of(&content).expect("a size that it may have");
        let name = Name { record: entry.record().clone(), attachment };
        keeps.push(Op::Tree(name.clone(), tree));
        for (nth, piece) in content.chunks(PIECE_BYTES).enumerate() {
            keeps.push(Op::Piece { name: name.clone(), nth, bytes: piece.to_vec() });
        }
        self.note(machine, format_args!("brings {size} bytes {:?} of {}", attachment.hash, name.record));
        self.contents.written.insert(attachment.hash, (name, self.machines[machine].node));
        self.report.attachments += 1;
        entry.with_attachments(&[attachment])
    }

    /// Some leaves fetch by themselves all that they may.
    pub(super) fn fetches_unasked(&self, node: usize) -> bool {
        self.plan.attachments && node.is_multiple_of(3)
    }

    /// Now and then somebody asks for content that is not where they are.
    pub(super) fn ask_for_content(&mut self) -> Result<(), Failure> {
        if !self.plan.attachments || !self.rng.one_in(ASKS_ONE_IN) {
            return Ok(());
        }
        let awake: Vec<_> = (0..self.machines.len()).filter(|m| self.is_awake(*m)).collect();
        let Some(&machine) = self.rng.pick(&awake) else { return Ok(()) };
        let lacking = self.machines[machine].store.lacking().map_err(store_failed)?;
        let Some(name) = self.rng.pick(&lacking).cloned() else { return Ok(()) };
        self.note(machine, format_args!("asks for {name:?}"));
        let one = &self.machines[machine];
        self.contents.asked.insert((one.node, name.clone()), (machine, one.boot));
        self.report.asked += 1;
        self.drive(machine, Event::Fetch(name))
    }

    /// Content that goes over a link although its record must not, as far as whoever sends it knows.
    pub(super) fn content_out_of_scope(
        &mut self,
        machine: usize,
        link: LinkId,
        frame: &Frame,
    ) -> Option<Name> {
        if let Frame::Bytes { bytes, .. } = frame {
            self.contents.sent += bytes.len() as u64;
        }
        let (conn, from) = self.find(machine, link)?;
        let to = self.machines[self.conns[&conn].ends[1 - from].machine].node;
        let to = Some(&self.plan.nodes[to].info.place).filter(|_| from != 0);
        self.content_may_not_go(machine, to, frame)
    }

    /// The same for a frame to the parent, or to a child that stands there by its certificate. Whatever record content is said
    /// to be of, it is of the one with which it was written.
    pub(super) fn content_may_not_go(
        &self,
        machine: usize,
        child: Option<&OrgPath>,
        frame: &Frame,
    ) -> Option<Name> {
        let (Frame::Bytes { hash, .. } | Frame::Tree(hash, _)) = frame else { return None };
        let (name, _) = self.contents.written.get(hash)?;
        let one = &self.machines[machine];
        let engine = one.engine.as_ref()?;
        let record = &name.record;
        let is_secret = one.store.secrecy(record).expect("memory does not fail") != Secrecy::None;
        let issued = record.issuer().is_some();
        let wall = self.clock(machine).wall;
        let grants = one.store.grants(record).expect("memory does not fail");
        let open = grants.iter().filter(|one| one.over.is_none() && one.grant.until > wall);
        let homes = one.store.homes(record).expect("memory does not fail");
        let mut orgs = homes.iter().chain(open.map(|one| &one.grant.to));
        let child = child.map(|child| engine.places().now(child));
        let may = child.is_none_or(|child| orgs.any(|org| engine.places().reach(org, issued, &child)));
        (is_secret || !may).then(|| name.clone())
    }

    /// What becomes durable of content: what is said of where it is has to be so.
    pub(super) fn contents_are_committed(&mut self, machine: usize, batch: &Batch) -> Result<(), Failure> {
        if !self.plan.attachments {
            return Ok(());
        }
        let mut own = BTreeSet::new();
        for op in batch {
            match op {
                Op::Append { entry, src: None, .. } => {
                    let name = |attachment| Name { record: entry.record().clone(), attachment };
                    own.extend(entry.attachments().into_iter().map(name));
                }
                Op::Piece { name, bytes, .. } if !own.contains(name) => {
                    self.contents.needed += bytes.len() as u64;
                }
                // Nobody waits there any more for what is of a record that is forgotten.
                Op::Forget(record) => {
                    let asked = &mut self.contents.asked;
                    let waits = asked
                        .iter_mut()
                        .filter(|((_, name), (by, _))| name.record == *record && *by == machine);
                    waits.for_each(|(_, (_, boot))| *boot = u64::MAX);
                }
                Op::Kept(name, kept) if *kept > Kept::Here => self.is_kept(machine, name, *kept)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn is_kept(&self, machine: usize, name: &Name, kept: Kept) -> Result<(), Failure> {
        let (Some(parent), true) = (self.dials(machine), self.report.keeps_identity) else { return Ok(()) };
        let node = if kept == Kept::Root { 0 } else { parent };
        let of_node = || self.machines.iter().filter(|one| one.node == node);
        let has = |one: &Machine| holds(&one.store, name).is_some_and(|held| held.is_whole());
        // A hub may have forgotten the record since; and what has rotted is not known to have.
        let forgot = |one: &Machine| holds(&one.store, name).is_none();
        let excused =
            self.contents.rotten.contains(&(node, name.clone())) || (node != 0 && of_node().any(forgot));
        // Who was moved dials another parent by now.
        if excused || of_node().any(has) || (kept == Kept::Parent && !self.places.orders().is_empty()) {
            return Ok(());
        }
        let who = &self.machines[machine].name;
        let text =
            format!("{who} says that {name:?} is at {}, and it is not", self.plan.nodes[node].info.place);
        Err(Failure::new("content is where it is said to be", text))
    }

    /// A piece of content rots on a disk.
    pub(super) fn a_piece_rots(&mut self, machine: usize) {
        let held: Vec<_> = self.machines[machine].store.held_content().map(|(name, _)| name).collect();
        let Some(name) = self.rng.pick(&held).cloned() else { return };
        let nth = self.rng.below(name.attachment.pieces() as u64) as usize;
        self.note(machine, format_args!("loses piece {nth} of {name:?}"));
        self.machines[machine].store.rot_piece(&name, nth);
        self.contents.rotten.insert((self.machines[machine].node, name));
    }

    /// The check of a machine's disk looks at pieces as well.
    pub(super) fn check_pieces(&mut self, machine: usize) -> Result<(), Failure> {
        let rotten = self.machines[machine].store.rotten_pieces();
        if rotten.is_empty() {
            return Ok(());
        }
        self.note(machine, format_args!("finds {} pieces damaged", rotten.len()));
        self.drive(machine, Event::Rotten(rotten))
    }

    /// Whether somebody lacks content or waits to hear where it is: they ask at each reconnect.
    pub(super) fn content_is_open(&self) -> bool {
        let open = |one: &Machine| {
            let lacking = one.store.lacking().expect("memory does not fail");
            let unkept = one.store.unkept(1).expect("memory does not fail");
            !lacking.is_empty() || (one.node != 0 && !unkept.is_empty())
        };
        self.plan.attachments && self.machines.iter().filter(|one| !one.retired).any(open)
    }

    /// Everything that has to be true of content when all is quiet.
    pub(super) fn check_contents(&self) -> Result<(), Failure> {
        if !self.plan.attachments {
            return Ok(());
        }
        let there = |one: &&Machine| !one.retired && !one.stays_away && !self.revoked.contains(&one.node);
        let machines: Vec<_> = self.machines.iter().filter(there).collect();
        // Where a record is marked secret what has not passed it yet stays.
        let is_open = |record: &RecordId| {
            let mut all = self.machines.iter();
            all.all(|one| one.store.secrecy(record).expect("memory does not fail") == Secrecy::None)
        };
        let root = &self.machines[0].store;
        // As far as the root knows; there everything is.
        let is_for = |one: &Machine, record: &RecordId| {
            let place = self.places.now(&self.plan.nodes[one.node].info.place);
            let issued = record.issuer().is_some();
            let held_for = root.held_for(record).expect("memory does not fail");
            held_for.iter().any(|org| self.places.reach(org, issued, &place))
        };
        for one in &machines {
            if let Some((name, nth)) = one.store.rotten_pieces().first() {
                let text = format!("{}: piece {nth} of {name:?}", one.name);
                return Err(Failure::new("what has rotted is found", text));
            }
            let wants_all =
                self.plan.nodes[one.node].info.role != Role::Leaf || self.fetches_unasked(one.node);
            for (_, record) in one.store.unfolded(0, usize::MAX).map_err(store_failed)? {
                for held in one.store.attachments(&record).map_err(store_failed)? {
                    let name = Name { record: record.clone(), attachment: held.attachment };
                    let asker = self.contents.asked.get(&(one.node, name.clone()));
                    let asked = asker.is_some();
                    let waits = asker.is_some_and(|(machine, boot)| {
                        let asker = &self.machines[*machine];
                        asker.name == one.name && asker.boot == *boot
                    });
                    let rotten = self.contents.rotten.contains(&(one.node, name.clone()));
                    let written = self.contents.written.get(&name.attachment.hash);
                    let own = written.is_some_and(|(of, node)| *of == name && *node == one.node);
                    if !wants_all && !asked && !own && !rotten && held.lacking < name.attachment.pieces() {
                        let text = format!("{} holds something of {name:?}", one.name);
                        return Err(Failure::new("nothing comes unasked", text));
                    }
                    let has = |other: &&&Machine| {
                        other.node != one.node
                            && holds(&other.store, &name).is_some_and(|held| held.is_whole())
                    };
                    let wants = (wants_all || waits)
                        && is_open(&record)
                        && is_for(one, &record)
                        && self.places.orders().is_empty();
                    if let Some(other) = machines.iter().find(has).filter(|_| wants && !held.is_whole()) {
                        let text = format!("{} lacks {name:?}, and {} has it", one.name, other.name);
                        return Err(Failure::new("content reaches who wants it", text));
                    }
                    self.is_whole(one, &name, held)?;
                }
            }
            let all_is_known = self.report.keeps_identity
                && self.plan.rot_one_in == 0
                && !self.plan.secrets
                && self.places.orders().is_empty();
            let unkept = one.store.unkept(1).map_err(store_failed)?;
            if let Some((name, kept)) = unkept.first().filter(|_| all_is_known && one.node != 0) {
                let text = format!("{} says of {name:?} that it is {kept:?}", one.name);
                return Err(Failure::new("content is said to be safe", text));
            }
        }
        let (sent, needed, sessions) = (self.contents.sent, self.contents.needed, self.report.sessions);
        if sent > needed + sessions * AGAIN_PER_SESSION_BYTES {
            let text =
                format!("{sent} bytes of content were sent in {sessions} sessions, {needed} were needed");
            return Err(Failure::new("little content is sent twice", text));
        }
        Ok(())
    }

    /// What counts as whole is what was written.
    fn is_whole(&self, one: &Machine, name: &Name, held: Held) -> Result<(), Failure> {
        if !held.is_whole() {
            return Ok(());
        }
        let piece = |nth| one.store.piece(name, nth).expect("memory does not fail").unwrap_or_default();
        let content: Vec<u8> = (0..name.attachment.pieces()).flat_map(piece).collect();
        let is_it = Tree::of(&content).is_some_and(|(attachment, _)| attachment == name.attachment);
        let text = || format!("{} holds something else for {name:?}", one.name);
        if is_it { Ok(()) } else { Err(Failure::new("content is what was written", text())) }
    }

    /// What the hostile leaf may name: content that it has heard of, and its own.
    pub(super) fn names_of_content(&self, records: &[RecordId]) -> Vec<Name> {
        if !self.plan.attachments {
            return Vec::new();
        }
        let written = self.contents.written.values().rev().take(4);
        let mut names: Vec<_> = written.map(|(name, _)| name.clone()).collect();
        // In a record of its own.
        let own =
            records.iter().zip(names.clone()).map(|(record, name)| Name { record: record.clone(), ..name });
        names.extend(own.collect::<Vec<_>>());
        // Mostly what it can give itself, or not give.
        let intruders: Vec<_> = self.intruder.iter().flat_map(Intruder::contents).collect();
        for record in records {
            names.extend(intruders.iter().map(|one| Name { record: record.clone(), attachment: *one }));
        }
        let none = Attachment { hash: ContentHash([7; 32]), size: 20_000 };
        names.extend(records.first().map(|record| Name { record: record.clone(), attachment: none }));
        names
    }
}

fn holds(store: &MemStore, name: &Name) -> Option<Held> {
    store.attachment(name).expect("memory does not fail")
}
