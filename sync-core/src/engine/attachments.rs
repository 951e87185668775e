//! Attachments: who asks whom for content, who is given it, and who is told where it is.
//!
//! Whoever lacks content asks for it, a part at a time and one content at a time on each link. A hub and the root want all
//! that their records name, so everything flows up; a leaf wants what somebody asks for, and what is not larger than its host
//! says. Whoever is asked and cannot give says [`Frame::Nothing`], whatever the reason, and tells the asker when it can. What
//! always holds: content goes where its record goes, by the rules of [`crate::scope`], which are looked at for every part; and
//! nobody is told that it is whole somewhere before it is durable there. It has the last turn: it goes when bulk may go, and a
//! part is asked for while the one before it arrives and little waits for the disk. Not here: cutting and checking pieces
//! ([`crate::attachment`]).

use super::{commit::Draft, *};
use crate::{
    attachment::{Kept, Name, PIECE_BYTES, Tree},
    id::{ContentHash, RecordId, Secrecy},
    session::{BATCH_FAST_MILLIS, BATCH_SLOW_MILLIS},
    wire::{ASK_MAX_BYTES, Ask, CONTENT_FRAME_MAX_BYTES},
};

/// So many bytes are asked for at first, and at least.
const ASK_START_BYTES: u64 = PIECE_BYTES as u64;
/// So many asks may be under way on a link: the part that arrives, and the next, or a line is idle for a round trip behind each.
const ASKS_MAX: usize = 2;
/// The next part is asked for while at most so many pieces wait for the disk.
const WRITTEN_BEHIND_MAX: usize = ASK_MAX_BYTES as usize / PIECE_BYTES;
/// A neighbour that has nothing of so much is asked only for what it says it has, or what somebody waits for.
pub const NOTHINGS_MAX: usize = 256;
/// Of so much content it is remembered in a session that the neighbour waits to hear of it.
pub const WAITING_MAX: usize = 4_096;
/// So much content is named at the beginning of a session to hear where it is.
const UNKEPT_MAX: usize = 256;
/// Pieces that have arrived in part and whose link has ended; at more the first goes.
const PARTS_MAX: usize = 64;
/// A neighbour that has not given a part after so long, in milliseconds, no longer keeps others from being asked.
const PATIENCE_MILLIS: Millis = 120_000;

/// What a node wants, over all links.
#[derive(Debug, Clone, Default)]
pub(super) struct Contents {
    /// Content up to so many bytes is wanted unasked, at a leaf.
    unasked_max: u64,
    /// What is lacking here and wanted.
    pub(super) wanted: BTreeSet<Name>,
    /// What somebody waits for; it comes first.
    awaited: BTreeSet<Name>,
    /// The front part of the next piece of each.
    parts: BTreeMap<Name, Part>,
    /// How many pieces of each have arrived and are not durable.
    not_yet_durable: BTreeMap<Name, usize>,
}

/// The front part of a piece.
#[derive(Debug, Clone)]
struct Part {
    nth: usize,
    bytes: Vec<u8>,
    /// The link on which it began.
    link: LinkId,
}

/// What is under way on one link.
#[derive(Debug, Clone, Default)]
pub(crate) struct Exchange {
    begun: bool,
    /// What the neighbour may have and was not asked for.
    to_ask: BTreeSet<Name>,
    /// What it has nothing of.
    nothings: BTreeSet<Name>,
    fetch: Option<Fetch>,
    ask_bytes: u64,
    /// What the neighbour waits to hear of, and of it what was not here, or not for it.
    waits: BTreeSet<Name>,
    not_given: BTreeSet<Name>,
    /// What it asks for and waits until its lane may go on.
    asked: VecDeque<Ask>,
    /// What it was given last, until it says that it has all of it.
    gave: Option<Name>,
}

/// Content that is being fetched.
#[derive(Debug, Clone)]
struct Fetch {
    name: Name,
    tree: Option<Tree>,
    /// The next byte to arrive, and the end of what was asked for.
    next: u64,
    upto: u64,
    /// The ask of the part that arrives, while the next has been asked for as well; and the newest ask.
    arriving: Option<Asked>,
    asked: Asked,
    /// Something of it has come: so the neighbour has all of it.
    comes: bool,
}

/// A part that was asked for.
#[derive(Debug, Clone, Copy)]
struct Asked {
    at: Millis,
    upto: u64,
    bytes: u64,
}

/// How far a content that is wanted has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetching {
    /// Bytes that are durable here, with what has arrived of the next piece.
    pub bytes: u64,
    /// Whether a neighbour is being asked for it.
    pub under_way: bool,
    /// Whether a neighbour could be asked, or may say yet that it has it.
    pub has_link: bool,
}

impl Contents {
    /// A record is being forgotten, and nobody waits for its content any more.
    pub(super) fn forget(&mut self, record: &RecordId) {
        self.wanted.retain(|name| name.record != *record);
        self.awaited.retain(|name| name.record != *record);
        self.parts.retain(|name, _| name.record != *record);
    }
}

impl<I: Identity> Engine<I> {
    /// What the store lacks, when a node starts.
    pub(super) fn want_what_is_lacking(&mut self, store: &impl Store) -> Result<(), StoreError> {
        for name in store.lacking()? {
            let is_begun = store.missing(&name)?.len() < name.attachment.pieces();
            if self.is_wanted_unasked(&name) || is_begun {
                self.contents.wanted.insert(name);
            }
        }
        Ok(())
    }

    fn is_wanted_unasked(&self, name: &Name) -> bool {
        self.info().role != Role::Leaf || name.attachment.size <= self.contents.unasked_max
    }

    /// A leaf fetches everything up to so many bytes by itself.
    pub(super) fn take_unasked_max(
        &mut self,
        bytes: u64,
        store: &impl Store,
        now: Now,
    ) -> Result<(), StoreError> {
        self.contents.unasked_max = bytes;
        for name in store.lacking()? {
            if self.is_wanted_unasked(&name) {
                self.want(name, store, now)?;
            }
        }
        self.all_contents_go_on(store, now)
    }

    /// Somebody here waits for content.
    pub(super) fn fetch(&mut self, name: Name, store: &impl Store, now: Now) -> Result<(), StoreError> {
        if store.attachment(&name)?.is_none_or(|held| held.is_whole()) {
            return Ok(());
        }
        self.contents.awaited.insert(name.clone());
        // Whoever had nothing of it may have been asked long ago.
        for link in self.links.values_mut() {
            link.content.nothings.remove(&name);
        }
        self.want(name, store, now)?;
        self.all_contents_go_on(store, now)
    }

    /// How far content has come that is wanted.
    pub fn fetching(&self, name: &Name, store: &impl Store) -> Result<Fetching, StoreError> {
        let missing = store.missing(name)?;
        let lacking: usize = missing.iter().map(|nth| name.attachment.piece_len(*nth)).sum();
        let part = self.contents.parts.get(name).filter(|part| missing.first() == Some(&part.nth));
        let arrived = part.map_or(0, |part| part.bytes.len());
        let is_of = |fetch: &Fetch| fetch.name == *name;
        let under_way = self.links.values().any(|link| link.content.fetch.as_ref().is_some_and(is_of));
        let mut open = self.links.values().filter(|link| link.is_settled());
        let has_link = open.any(|link| self.open_lanes(link).has(Lane::Bulk));
        Ok(Fetching { bytes: name.attachment.size - lacking as u64 + arrived as u64, under_way, has_link })
    }

    /// Whether the parent has something to say of content: it was asked for it, or is being given it.
    pub(super) fn awaits_content(&self) -> bool {
        let waits = |content: &Exchange| content.fetch.is_some() || content.gave.is_some();
        self.links.values().any(|link| link.direction == Direction::Up && waits(&link.content))
    }

    /// Content is wanted from now on: every neighbour may be asked for it that may hold its record.
    fn want(&mut self, name: Name, store: &impl Store, now: Now) -> Result<(), StoreError> {
        self.contents.wanted.insert(name.clone());
        self.neighbours_may_have(name, store, now)
    }

    /// More records are for a neighbour than were: it may be asked for content of them, and if it was given nothing it is told
    /// what it may have now.
    pub(super) fn scope_has_grown(&mut self, store: &impl Store, now: Now) -> Result<(), StoreError> {
        for name in self.contents.wanted.clone() {
            self.neighbours_may_have(name, store, now)?;
        }
        for link in self.links.keys().copied().collect::<Vec<_>>() {
            for name in self.links[&link].content.not_given.clone() {
                let held = store.attachment(&name)?.filter(|held| held.is_whole());
                let Some(held) = held.filter(|_| self.links.contains_key(&link)) else { continue };
                if self.may_have(link, &name.record, store, now)? {
                    let state = self.links.get_mut(&link).expect("it was found");
                    state.content.not_given.remove(&name);
                    let is_up = state.direction == Direction::Up;
                    let said = if is_up { Kept::Here } else { self.kept_by_us(held.kept) };
                    self.send(link, Frame::Kept(name, said));
                }
            }
        }
        Ok(())
    }

    /// Every neighbour may be asked for content that may hold its record, and has not been.
    fn neighbours_may_have(&mut self, name: Name, store: &impl Store, now: Now) -> Result<(), StoreError> {
        let orgs = self.content_is_for(&name.record, store, now)?;
        let (issued, depth) = (name.record.issuer().is_some(), self.place().depth());
        // Most children of a hub have nothing to do with a record.
        let below = |org: &OrgId| self.places.of(org).and_then(|place| place.org_at(depth)).cloned();
        let below: BTreeSet<_> = orgs.iter().filter_map(below).collect();
        for link in self.links.values_mut().filter(|link| link.content.begun && !link.stranger) {
            let (place, content) = (&link.peer.place, &mut link.content);
            let is_near = link.direction == Direction::Up || issued || below.contains(place.org());
            let is_asked = content.fetch.as_ref().is_some_and(|fetch| fetch.name == name);
            if is_near
                && !is_asked
                && !content.nothings.contains(&name)
                && orgs.iter().any(|org| self.places.reach(org, issued, place))
            {
                content.to_ask.insert(name.clone());
            }
        }
        Ok(())
    }

    /// Whether a record is for this neighbour, so that it may be given its content, and asked for it. A grant whose time has
    /// passed opens nothing, whatever else is to be done first.
    pub(super) fn may_have(
        &self,
        link: LinkId,
        record: &RecordId,
        store: &impl Store,
        now: Now,
    ) -> Result<bool, StoreError> {
        let Some(state) = self.links.get(&link).filter(|state| !state.stranger) else { return Ok(false) };
        self.is_content_for(&state.peer.place, record, store, now)
    }

    /// Whether content of a record may go to whoever stands there, and be asked for there.
    pub(super) fn is_content_for(
        &self,
        place: &OrgPath,
        record: &RecordId,
        store: &impl Store,
        now: Now,
    ) -> Result<bool, StoreError> {
        let issued = record.issuer().is_some();
        let orgs = self.content_is_for(record, store, now)?;
        Ok(orgs.iter().any(|org| self.places.reach(org, issued, place)))
    }

    /// Whose a record is and to whom it is open, as far as its content is concerned: nobody's when it is secret.
    fn content_is_for(
        &self,
        record: &RecordId,
        store: &impl Store,
        now: Now,
    ) -> Result<Vec<OrgId>, StoreError> {
        if store.secrecy(record)? != Secrecy::None {
            return Ok(Vec::new());
        }
        let mut orgs = store.homes(record)?;
        let open = store.grants(record)?.into_iter();
        let open = open.filter(|one| one.over.is_none() && one.grant.until > now.wall);
        orgs.extend(open.map(|one| one.grant.to));
        Ok(orgs)
    }

    /// Whatever has become possible on a link, as far as it is about content.
    pub(super) fn contents_go_on(
        &mut self,
        link: LinkId,
        store: &impl Store,
        now: Now,
    ) -> Result<(), StoreError> {
        let Some(state) = self.links.get(&link).filter(|state| state.is_settled()) else { return Ok(()) };
        if !self.open_lanes(state).has(Lane::Bulk) {
            return Ok(());
        }
        if !state.content.begun {
            self.contents_begin(link, store, now)?;
        }
        while let Some(ask) = self.links.get_mut(&link).and_then(|state| state.content.asked.pop_front()) {
            self.give(link, ask, store, now)?;
        }
        self.ask_on(link, store, now)
    }

    fn all_contents_go_on(&mut self, store: &impl Store, now: Now) -> Result<(), StoreError> {
        let links: Vec<_> = self.links.keys().copied().collect();
        links.into_iter().try_for_each(|link| self.contents_go_on(link, store, now))
    }

    /// A link has ended, or has nothing of what it was asked for: others may have it. Of two connections to one node the newer is
    /// asked first.
    pub(super) fn others_may_have_it(&mut self, store: &impl Store, now: Now) -> Result<(), StoreError> {
        if self.contents.wanted.is_empty() {
            return Ok(());
        }
        self.all_contents_go_on(store, now)
    }

    /// The first look at what there is to ask the neighbour for, and at what the parent is to say where it is.
    fn contents_begin(&mut self, link: LinkId, store: &impl Store, now: Now) -> Result<(), StoreError> {
        let mut to_ask = BTreeSet::new();
        for name in self.contents.wanted.clone() {
            if self.may_have(link, &name.record, store, now)? {
                to_ask.insert(name);
            }
        }
        let Some(state) = self.links.get_mut(&link) else { return Ok(()) };
        let (is_up, node) = (state.direction == Direction::Up, state.peer.node);
        state.content.begun = true;
        state.content.to_ask.extend(to_ask);
        state.content.ask_bytes = ASK_START_BYTES;
        // A connection to the same node that has died unnoticed keeps nothing from this one.
        for other in self.links_of(node).into_iter().filter(|other| *other != link) {
            let older = self.links.get_mut(&other).expect("it is in the list");
            let fetch = older.content.fetch.take();
            older.content.to_ask.extend(fetch.map(|fetch| fetch.name));
        }
        if is_up {
            for (name, _) in store.unkept(UNKEPT_MAX)? {
                if self.may_have(link, &name.record, store, now)? {
                    self.send(link, Frame::Kept(name, Kept::Here));
                }
            }
        }
        Ok(())
    }

    /// Asks for the next part, or for the next content.
    fn ask_on(&mut self, link: LinkId, store: &impl Store, now: Now) -> Result<(), StoreError> {
        loop {
            let Some(state) = self.links.get(&link) else { return Ok(()) };
            let name = match &state.content.fetch {
                Some(fetch) if !self.may_ask_for_more(fetch) => return Ok(()),
                Some(fetch) => fetch.name.clone(),
                None => match self.next_to_ask(state, now) {
                    Some(name) => name,
                    None => return Ok(()),
                },
            };
            let state = self.links.get_mut(&link).expect("it was found");
            state.content.to_ask.remove(&name);
            let before = state.content.fetch.take();
            let is_wanted = self.contents.wanted.contains(&name);
            if !is_wanted || !self.may_have(link, &name.record, store, now)? {
                continue;
            }
            let missing = store.missing(&name)?;
            let ahead = before.as_ref().filter(|fetch| fetch.next < fetch.upto).map(|fetch| fetch.upto);
            let (first, from) = match ahead {
                Some(upto) => (upto as usize / PIECE_BYTES, upto),
                None => {
                    let Some(first) = missing.first().copied() else { continue };
                    let part = self.contents.parts.get(&name).filter(|part| part.nth == first);
                    let arrived = part.map_or(0, |part| part.bytes.len());
                    (first, (first * PIECE_BYTES + arrived) as u64)
                }
            };
            let rest = missing.iter().skip_while(|nth| **nth < first);
            let run = rest.zip(first..).take_while(|(nth, at)| **nth == *at).count();
            if run == 0 {
                // What follows is here: the rest is asked for when this part is.
                self.links.get_mut(&link).expect("it was found").content.fetch = before;
                return Ok(());
            }
            let arriving = before.as_ref().filter(|_| ahead.is_some()).map(|fetch| fetch.asked);
            let next = before.as_ref().filter(|_| ahead.is_some()).map_or(from, |fetch| fetch.next);
            let comes = before.as_ref().is_some_and(|fetch| fetch.comes);
            let tree = match before.and_then(|fetch| fetch.tree) {
                Some(tree) => Some(tree),
                None => store.tree(&name)?,
            };
            let end = (((first + run) * PIECE_BYTES) as u64).min(name.attachment.size);
            let state = self.links.get_mut(&link).expect("it was found");
            let upto = end.min(from + state.content.ask_bytes);
            let ask = Ask { name: name.clone(), from, len: upto - from, tree: tree.is_none() };
            let asked = Asked { at: now.mono, upto, bytes: upto - from };
            state.content.fetch =
                Some(Fetch { name: name.clone(), tree, next, upto, arriving, asked, comes });
            if state.direction == Direction::Down && state.content.waits.len() < WAITING_MAX {
                // It is told when this is here, and when it is at the root.
                state.content.waits.insert(name);
            }
            self.send(link, Frame::Ask(ask));
            return Ok(());
        }
    }

    /// Whether the next part may be asked for: one beside the one that arrives, and none before much waits for the disk.
    fn may_ask_for_more(&self, fetch: &Fetch) -> bool {
        let written_behind = self.contents.not_yet_durable.get(&fetch.name).copied().unwrap_or_default();
        if fetch.next == fetch.upto {
            return written_behind == 0;
        }
        fetch.arriving.is_none()
            && fetch.tree.is_some()
            && fetch.upto < fetch.name.attachment.size
            && written_behind <= WRITTEN_BEHIND_MAX
    }

    /// What somebody waits for comes first. What another link fetches is left to it, and the parent is asked for what no child
    /// may have.
    fn next_to_ask(&self, state: &Link, now: Now) -> Option<Name> {
        let content = &state.content;
        if content.to_ask.is_empty() {
            return None;
        }
        let fetches = self.links.values().filter_map(|link| link.content.fetch.as_ref());
        let mut others: BTreeSet<_> =
            fetches.filter(|one| one.asked.at + PATIENCE_MILLIS > now.mono).map(|one| &one.name).collect();
        let below = |link: &&Link| link.direction == Direction::Down && self.open_lanes(link).has(Lane::Bulk);
        let is_newer = |link: &&Link| link.peer.node == state.peer.node && link.id > state.id;
        others.extend(self.links.values().filter(is_newer).flat_map(|link| &link.content.to_ask));
        if state.direction == Direction::Up {
            others.extend(self.links.values().filter(below).flat_map(|link| &link.content.to_ask));
        }
        // Of what is on its way to the disk nothing may be lacking any more.
        let is_free =
            |name: &&Name| !others.contains(name) && !self.contents.not_yet_durable.contains_key(*name);
        let awaited =
            self.contents.awaited.iter().filter(|name| content.to_ask.contains(*name)).find(is_free);
        let gives = content.nothings.len() < NOTHINGS_MAX;
        let any = || content.to_ask.iter().filter(|_| gives).find(is_free);
        awaited.or_else(any).cloned()
    }

    /// A frame about content has come.
    pub(super) fn on_content(
        &mut self,
        link: LinkId,
        frame: Frame,
        store: &impl Store,
        now: Now,
    ) -> Result<(), StoreError> {
        match frame {
            Frame::Ask(ask) => {
                if let Some(state) = self.links.get_mut(&link) {
                    let asked = &mut state.content.asked;
                    asked.push_back(ask);
                    asked.drain(..asked.len().saturating_sub(ASKS_MAX));
                }
                Ok(())
            }
            Frame::Tree(hash, values) => self.on_tree(link, hash, values, store, now),
            Frame::Bytes { hash, from, bytes } => self.on_bytes(link, hash, from, bytes, store, now),
            Frame::Nothing(name) => {
                let content = &mut self.links.get_mut(&link).expect("the caller has found it").content;
                if content.fetch.take_if(|fetch| fetch.name == name).is_some() {
                    content.nothings.insert(name);
                    self.others_may_have_it(store, now)?;
                }
                Ok(())
            }
            Frame::Kept(name, kept) => self.on_kept(link, name, kept, store, now),
            _ => Ok(()),
        }
    }

    /// Gives a part of content, if it is whole here and for the neighbour.
    fn give(&mut self, link: LinkId, ask: Ask, store: &impl Store, now: Now) -> Result<(), StoreError> {
        let Ask { name, from, len, tree } = ask;
        let held = store.attachment(&name)?;
        let is_for_it = self.may_have(link, &name.record, store, now)?;
        let up = self.links.get(&link).is_some_and(|state| state.direction == Direction::Up);
        let held = held.filter(|held| held.is_whole() && is_for_it);
        let known = if held.is_some() { store.tree(&name)? } else { None };
        let (Some(held), Some(known)) = (held, known) else { return self.has_nothing(link, name) };
        if up && held.kept > Kept::Here {
            // The parent does not have it any more, and the root may not either.
            self.keep_content(name.clone(), Op::Kept(name.clone(), Kept::Here));
        }
        let (mut at, upto, mut frames) = (from, from + len, Vec::new());
        let hash = name.attachment.hash;
        while at < upto {
            let (nth, begin) = (at as usize / PIECE_BYTES, at as usize % PIECE_BYTES);
            let piece = store.piece(&name, nth)?.unwrap_or_default();
            if !known.fits(nth, &piece) {
                return self.piece_is_rotten(link, name, nth);
            }
            let end = piece.len().min(begin + (upto - at) as usize);
            for part in piece[begin..end].chunks(CONTENT_FRAME_MAX_BYTES) {
                frames.push(Frame::Bytes { hash, from: at, bytes: part.to_vec() });
                at += part.len() as u64;
            }
        }
        if tree {
            self.send(link, Frame::Tree(hash, known.values().to_vec()));
        }
        frames.into_iter().for_each(|frame| self.send(link, frame));
        let state = self.links.get_mut(&link).expect("the caller has found it");
        state.content.gave = Some(name.clone());
        if !up && held.kept < Kept::Root && state.content.waits.len() < WAITING_MAX {
            state.content.waits.insert(name);
        }
        Ok(())
    }

    /// Says so, whether it is not here or not for the neighbour; and what it is waited for here is remembered.
    fn has_nothing(&mut self, link: LinkId, name: Name) -> Result<(), StoreError> {
        if let Some(state) = self.links.get_mut(&link) {
            if state.content.waits.len() < WAITING_MAX {
                state.content.waits.insert(name.clone());
                state.content.not_given.insert(name.clone());
            }
            if state.direction == Direction::Down && self.contents.wanted.contains(&name) {
                self.contents.awaited.insert(name.clone());
            }
            self.send(link, Frame::Nothing(name));
        }
        Ok(())
    }

    fn piece_is_rotten(&mut self, link: LinkId, name: Name, nth: usize) -> Result<(), StoreError> {
        self.keep_content(name.clone(), Op::Lose(name.clone(), nth));
        self.has_nothing(link, name)
    }

    /// Pieces that a check of the store has found not to be what they were.
    pub(super) fn pieces_are_rotten(&mut self, pieces: Vec<(Name, usize)>) {
        for (name, nth) in pieces {
            self.keep_content(name.clone(), Op::Lose(name, nth));
        }
    }

    fn on_tree(
        &mut self,
        link: LinkId,
        hash: ContentHash,
        values: Vec<[u8; 32]>,
        store: &impl Store,
        now: Now,
    ) -> Result<(), StoreError> {
        let state = self.links.get_mut(&link).expect("the caller has found it");
        let fetch = state.content.fetch.as_mut();
        let Some(fetch) = fetch.filter(|one| one.tree.is_none() && one.name.attachment.hash == hash) else {
            return Ok(());
        };
        let name = fetch.name.clone();
        match Tree::new(&name.attachment, values) {
            Some(tree) => {
                fetch.tree = Some(tree.clone());
                self.keep_content(name.clone(), Op::Tree(name, tree));
                Ok(())
            }
            None => self.is_no_content(link, store, now),
        }
    }

    fn on_bytes(
        &mut self,
        link: LinkId,
        hash: ContentHash,
        from: u64,
        bytes: Vec<u8>,
        store: &impl Store,
        now: Now,
    ) -> Result<(), StoreError> {
        let state = self.links.get_mut(&link).expect("the caller has found it");
        let fetch = state.content.fetch.as_mut();
        // What comes of an earlier ask is of no use.
        let Some(fetch) = fetch.filter(|one| one.name.attachment.hash == hash && one.next == from) else {
            return Ok(());
        };
        let upto = from + bytes.len() as u64;
        // Nor what comes before the chaining values: on one link everything comes in order.
        let Some(tree) = fetch.tree.clone() else { return Ok(()) };
        if upto > fetch.upto {
            return self.is_no_content(link, store, now);
        }
        (fetch.next, fetch.comes) = (upto, true);
        let ends = |asked: &Asked| asked.upto == upto;
        let arrived = fetch.arriving.take_if(|asked| ends(asked)).or(Some(fetch.asked).filter(ends));
        if let Some(Asked { at, bytes, .. }) = arrived {
            let took = now.mono.saturating_sub(at);
            let is_full = bytes >= state.content.ask_bytes;
            let size = &mut state.content.ask_bytes;
            if took < BATCH_FAST_MILLIS && is_full {
                *size = (*size * 2).min(ASK_MAX_BYTES);
            } else if took > BATCH_SLOW_MILLIS {
                *size = (*size / 2).max(ASK_START_BYTES);
            }
        }
        let (name, nth) = (fetch.name.clone(), from as usize / PIECE_BYTES);
        let fresh = || Part { nth, bytes: Vec::new(), link };
        let part = self.contents.parts.entry(name.clone()).or_insert_with(fresh);
        if part.nth != nth || (from as usize).is_multiple_of(PIECE_BYTES) {
            *part = fresh();
        }
        if part.bytes.len() != from as usize % PIECE_BYTES {
            // Another link has brought the front part further, or it was dropped.
            let state = self.links.get_mut(&link).expect("it was found");
            state.content.fetch = None;
            state.content.to_ask.insert(name);
            return Ok(());
        }
        part.bytes.extend(bytes);
        if part.bytes.len() < name.attachment.piece_len(nth) {
            return Ok(());
        }
        let part = self.contents.parts.remove(&name).expect("it is there");
        if tree.fits(nth, &part.bytes) {
            self.keep_content(name.clone(), Op::Piece { name, nth, bytes: part.bytes });
            return Ok(());
        }
        if part.link == link {
            return self.is_no_content(link, store, now);
        }
        // The front part came from somebody else: the piece is asked for anew.
        let state = self.links.get_mut(&link).expect("it was found");
        state.content.fetch = None;
        state.content.to_ask.insert(name);
        Ok(())
    }

    /// What the neighbour has sent is not what it was asked for. It is not asked for that again in this session; the link
    /// stands, and others may have it.
    fn is_no_content(&mut self, link: LinkId, store: &impl Store, now: Now) -> Result<(), StoreError> {
        let Some(state) = self.links.get_mut(&link) else { return Ok(()) };
        let Some(fetch) = state.content.fetch.take() else { return Ok(()) };
        self.contents.parts.remove(&fetch.name);
        state.content.nothings.insert(fetch.name.clone());
        let (peer, record) = (state.peer.clone(), fetch.name.record);
        self.effects.push_back(Effect::Alert(Alert::NoContent { peer, record }));
        self.others_may_have_it(store, now)
    }

    fn on_kept(
        &mut self,
        link: LinkId,
        name: Name,
        kept: Kept,
        store: &impl Store,
        now: Now,
    ) -> Result<(), StoreError> {
        let state = self.links.get_mut(&link).expect("the caller has found it");
        state.content.gave.take_if(|gave| *gave == name);
        let (direction, from_root) = (state.direction, state.peer.role == Role::Root);
        let held = store.attachment(&name)?;
        let is_whole = held.is_some_and(|held| held.is_whole());
        if direction == Direction::Down {
            // It says what it has to hear where else that is.
            if !is_whole || held.is_some_and(|held| held.kept < Kept::Root) {
                let content = &mut state.content;
                if content.waits.len() < WAITING_MAX {
                    content.waits.insert(name.clone());
                }
            }
            if is_whole && self.may_have(link, &name.record, store, now)? {
                let kept = self.kept_by_us(held.map_or(Kept::Here, |held| held.kept));
                self.send(link, Frame::Kept(name, kept));
                return Ok(());
            }
        } else if let Some(held) = held.filter(|_| is_whole) {
            let kept = if kept == Kept::Root || from_root { Kept::Root } else { Kept::Parent };
            if kept > held.kept {
                self.keep_content(name.clone(), Op::Kept(name, kept));
            }
            return Ok(());
        }
        // It may have been said before the word that makes the record its own, or this node's.
        let content = &mut self.links.get_mut(&link).expect("it was found").content;
        content.nothings.remove(&name);
        if self.contents.wanted.contains(&name) && self.may_have(link, &name.record, store, now)? {
            let content = &mut self.links.get_mut(&link).expect("it was found").content;
            content.to_ask.insert(name);
        }
        Ok(())
    }

    /// What is said to a child of content that is whole here.
    pub(super) fn kept_by_us(&self, kept: Kept) -> Kept {
        if self.is_root() || kept == Kept::Root { Kept::Root } else { Kept::Here }
    }

    pub(super) fn keep_content(&mut self, name: Name, op: Op) {
        *self.contents.not_yet_durable.entry(name).or_default() += 1;
        self.intents.push_back(Intent::Content(op));
    }

    pub(super) fn draft_content(
        &self,
        op: Op,
        draft: &mut Draft,
        store: &impl Store,
    ) -> Result<(), StoreError> {
        let Some(name) = content_of(&op) else { return Ok(()) };
        draft.after.contents.push(name.clone());
        // Its record may have been forgotten meanwhile.
        if store.attachment(name)?.is_some() {
            draft.touched.insert(name.record.clone());
            if let Op::Piece { bytes, .. } = &op {
                draft.bytes += bytes.len();
            }
            draft.ops.push(op);
        }
        Ok(())
    }

    /// Content of which something has become durable, and names that entries have brought.
    pub(super) fn contents_are_durable(
        &mut self,
        contents: Vec<Name>,
        named: Vec<Name>,
        store: &impl Store,
        now: Now,
    ) -> Result<(), StoreError> {
        for name in &contents {
            if let Some(left) = self.contents.not_yet_durable.get_mut(name) {
                *left -= 1;
                if *left == 0 {
                    self.contents.not_yet_durable.remove(name);
                }
            }
        }
        for name in contents.into_iter().chain(named).collect::<BTreeSet<_>>() {
            let Some(held) = store.attachment(&name)? else {
                self.contents.wanted.remove(&name);
                self.contents.awaited.remove(&name);
                self.contents.parts.remove(&name);
                continue;
            };
            if held.is_whole() {
                self.is_whole(name, held.kept, store, now)?;
            } else if !self.contents.wanted.contains(&name)
                && (self.is_wanted_unasked(&name) || held.lacking < name.attachment.pieces())
            {
                // Of what was begun, or has rotted, the rest is wanted as well.
                self.want(name, store, now)?;
            }
        }
        while self.contents.parts.len() > PARTS_MAX {
            self.contents.parts.pop_first();
        }
        Ok(())
    }

    /// All of some content is durable here, or is now known to be so elsewhere: whoever waits for it is told.
    fn is_whole(&mut self, name: Name, kept: Kept, store: &impl Store, now: Now) -> Result<(), StoreError> {
        self.contents.wanted.remove(&name);
        self.contents.awaited.remove(&name);
        let links: Vec<_> = self.links.keys().copied().collect();
        let said = self.kept_by_us(kept);
        for link in links {
            let state = self.links.get_mut(&link).expect("it is in the list");
            let content = &mut state.content;
            let fetched = content.fetch.take_if(|fetch| fetch.name == name);
            let (asked, comes) = (fetched.is_some(), fetched.is_some_and(|fetch| fetch.comes));
            let (is_up, from_root) = (state.direction == Direction::Up, state.peer.role == Role::Root);
            // A parent that has it already does not ask for it, and so would not say so. One that is being given it will.
            let is_given = state.content.gave.as_ref() == Some(&name);
            let is_told = is_up && !asked && !is_given && state.content.begun && kept == Kept::Here;
            let waits = state.content.waits.contains(&name);
            if waits && (is_up || said == Kept::Root) {
                state.content.waits.remove(&name);
            }
            if comes && is_up {
                let kept = if from_root { Kept::Root } else { Kept::Parent };
                self.keep_content(name.clone(), Op::Kept(name.clone(), kept));
            }
            // The parent may have said so of the root while some of it was on its way; and if it came from elsewhere meanwhile the
            // parent may not have it.
            let asks_where = (asked && is_up && !(from_root && comes)) || is_told;
            if asks_where && self.may_have(link, &name.record, store, now)? {
                self.send(link, Frame::Kept(name.clone(), Kept::Here));
            } else if waits && self.may_have(link, &name.record, store, now)? {
                let said = if is_up { Kept::Here } else { said };
                self.links.get_mut(&link).expect("it was found").content.not_given.remove(&name);
                self.send(link, Frame::Kept(name.clone(), said));
            }
        }
        Ok(())
    }
}

/// The content that an op is about.
fn content_of(op: &Op) -> Option<&Name> {
    match op {
        Op::Tree(name, _) | Op::Piece { name, .. } | Op::Lose(name, _) | Op::Kept(name, _) => Some(name),
        _ => None,
    }
}

/// The content that these are about.
pub(super) fn contents_of(ops: &[Op]) -> impl Iterator<Item = &Name> {
    ops.iter().filter_map(content_of)
}

#[cfg(test)]
impl Exchange {
    pub(super) fn waits_for_tests(&self) -> usize {
        self.waits.len()
    }
}

#[cfg(test)]
impl<I: Identity> Engine<I> {
    pub(super) fn contents_are_wanted_for_tests(&mut self, name: &Name) {
        self.contents.wanted.insert(name.clone());
    }

    pub(super) fn spoil_parts_for_tests(&mut self) {
        self.contents.parts.values_mut().for_each(|part| part.bytes[0] ^= 1);
    }
}
