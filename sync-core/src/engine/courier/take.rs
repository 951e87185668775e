//! What this node takes of a bundle.
//!
//! What always holds: a frame is taken only when nothing waits for the disk, so what it is held against is all there is. A stretch
//! moves the cursor when it begins just where that stands, running hash and all; otherwise the entries are taken, the cursor stays, and
//! nobody passes for having them. What a bundle acknowledges is an old word: it counts while its writer cannot be asked, and while
//! nothing tells that it has come back from a backup since.

use super::{contents::Taking, *};
use crate::{
    engine::{commit::Draft, receive::is_in_order},
    wire::UNPACKED_MAX_BYTES,
};

/// What has come of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// Who has made it.
    pub sender: NodeInfo,
    /// Entries that this node did not have.
    pub new: u64,
    /// Entries that it had.
    pub known: u64,
    /// Entries that can be taken only after others, which an earlier bundle brings.
    pub aside: u64,
    /// Attachments that are whole here by it.
    pub attachments: u64,
    /// Attachments of which something was in it, and something is lacking here still.
    pub in_part: u64,
    /// Attachments of which nothing was taken, because their records are not here.
    pub without_record: u64,
    /// What the sender has said of attachments.
    pub told: Told,
    /// Lanes in which it goes on from a place that this node has not come to.
    pub gaps: Vec<Lane>,
    /// The sender does not know what was read of it, and goes on from before: it came back from an older copy.
    pub older: bool,
    /// The sender's feed ended before what was read of it: an old bundle, or one of an older copy that has written nothing
    /// since.
    pub behind: bool,
    /// The sender has read more of this node than this node knows: it came back from an older copy.
    pub lost: bool,
    /// There was a link to the sender, which says itself what it has: what it acknowledges here did not count.
    pub linked: bool,
    /// By its latest word the sender came back from an older copy: the next bundle for it names the places that both know.
    pub returned: bool,
    /// Why the rest was not taken.
    pub refused: Option<(u16, String)>,
    /// How far the sender has read this node's feed.
    pub cursors: Vec<(Lane, Cursor)>,
    /// The end of the sender's feed.
    pub tip: Option<Position>,
}

/// A bundle that is being taken.
#[derive(Debug, Clone)]
pub(in crate::engine) struct Import {
    pub(in crate::engine) link: LinkId,
    pub(super) newest: bool,
    /// The sender has said that it has not read what it was taken to have.
    lost: bool,
    chain: Vec<Vec<u8>>,
    from: Vec<(Lane, Cursor)>,
    /// Frames that wait until nothing else does; none at the end.
    queue: VecDeque<Option<Frame>>,
    /// Once HELLO has come.
    pub(super) session: Option<Session>,
    total: u64,
    pub(super) taking: Option<Taking>,
    pub(in crate::engine) outcome: Imported,
}

#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) direction: Direction,
    /// What the sender knows to be its feed; empty when not all of it is announced here.
    lineage: Lineage,
    /// The sender has found itself in this node's feed, or this node in its.
    pub(super) agrees: bool,
    /// It is not known to have come back from a backup since.
    pub(super) counts: bool,
    lanes: [Reading; 3],
}

#[derive(Debug, Clone, Default)]
struct Reading {
    /// It begins further on than this node has come, or where nothing tells.
    ahead: bool,
    /// Where the next stretch begins.
    at: Option<Cursor>,
    /// Where this node stands for a sender that came back from a backup, until it has read on.
    back: Option<Option<Cursor>>,
    stretch: Vec<EntryBatch>,
}

impl<I: Identity> Engine<I> {
    /// The chain of whoever is at the other end, or has made the bundle.
    pub(in crate::engine) fn chain_of(&self, link: LinkId) -> Option<&Vec<Vec<u8>>> {
        let import = self.import.as_ref().filter(|import| import.link == link);
        self.links.get(&link).map(|state| &state.chain).or(import.map(|import| &import.chain))
    }

    pub(in crate::engine) fn bundle_begins(
        &mut self,
        link: LinkId,
        peer: NodeInfo,
        chain: Vec<Vec<u8>>,
        from: Vec<(Lane, Cursor)>,
        newest: bool,
    ) {
        let outcome = Imported {
            sender: peer,
            new: 0,
            known: 0,
            aside: 0,
            attachments: 0,
            in_part: 0,
            without_record: 0,
            told: Told::default(),
            gaps: Vec::new(),
            older: false,
            behind: false,
            lost: false,
            linked: false,
            returned: false,
            refused: None,
            cursors: Vec::new(),
            tip: None,
        };
        let (queue, session, taking, lost) = (VecDeque::new(), None, None, false);
        let import = Import { link, newest, lost, chain, from, queue, session, total: 0, taking, outcome };
        self.import = Some(Box::new(import));
    }

    pub(in crate::engine) fn bundle_has(&mut self, link: LinkId, part: Option<Frame>) {
        if let Some(import) = self.import.as_mut().filter(|import| import.link == link) {
            import.queue.push_back(part);
        }
    }

    /// Takes the frames that wait, as long as nothing waits for the disk.
    pub(in crate::engine) fn bundle_goes_on(&mut self, store: &impl Store) -> Result<(), StoreError> {
        while self.committing.is_none() && self.intents.is_empty() {
            let Some(part) = self.import.as_mut().and_then(|import| import.queue.pop_front()) else { break };
            match part {
                Some(frame) => self.bundled(frame, store)?,
                // It ends when they are durable.
                None if self.bundle_keeps_pieces() => {
                    if let Some(import) = &mut self.import {
                        import.queue.push_front(None);
                    }
                }
                None => self.bundle_ends(),
            }
        }
        Ok(())
    }

    /// New entries are durable.
    pub(in crate::engine) fn bundle_is_durable(&mut self, brought: &[(LinkId, Lane, Position)]) {
        if let Some(import) = &mut self.import {
            import.outcome.new += brought.iter().filter(|(by, ..)| *by == import.link).count() as u64;
        }
    }

    fn bundle_ends(&mut self) {
        let Some(mut import) = self.import.take() else { return };
        import.content_ends();
        let Import { link, session, total, mut outcome, .. } = *import;
        let open = session.is_none_or(|session| session.lanes.iter().any(|lane| !lane.stretch.is_empty()));
        if open && outcome.refused.is_none() {
            let text = "it ends before it has said everything".to_owned();
            outcome.refused = Some((refusal::PROTOCOL, text));
        }
        outcome.known = total.saturating_sub(outcome.new + outcome.aside);
        self.effects.push_back(Effect::Imported(link, Box::new(outcome)));
    }

    fn bundled(&mut self, frame: Frame, store: &impl Store) -> Result<(), StoreError> {
        let Some(import) = self.import.as_ref().filter(|import| import.outcome.refused.is_none()) else {
            return Ok(());
        };
        let (link, begun) = (import.link, import.session.is_some());
        let mut may_come = true;
        match frame {
            Frame::Orders(all) if !all.is_empty() => self.on_orders(link, all),
            Frame::Revocations(all) => self.on_revocations(link, all, store)?,
            Frame::Announce(announcement) => self.on_announce(link, announcement, store)?,
            Frame::Lost if !begun => {
                if let Some(import) = &mut self.import {
                    import.lost = true;
                }
            }
            Frame::Hello(hello) if !begun => self.bundle_hello(hello, store)?,
            Frame::SafeAtRoot(lane, at) if begun => self.bundle_receipt(lane, at),
            Frame::Batch(batch) if begun => {
                if let Err(text) = self.bundle_batch(batch, store)? {
                    self.refuse(link, refusal::PROTOCOL, text);
                }
            }
            Frame::Ask(ask) if begun => self.bundle_asks(ask, store)?,
            Frame::Kept(name, kept) if begun => self.bundle_says_kept(name, kept, store)?,
            Frame::Tree(hash, values) => may_come = self.bundle_tree(hash, values, store)?,
            Frame::Bytes { hash, from, bytes } => may_come = self.bundle_bytes(hash, from, &bytes),
            _ => may_come = false,
        }
        if !may_come {
            self.refuse(link, refusal::PROTOCOL, "it holds what no bundle may".to_owned());
        }
        Ok(())
    }

    fn bundle_hello(&mut self, hello: Hello, store: &impl Store) -> Result<(), StoreError> {
        let Some(mut import) = self.import.take() else { return Ok(()) };
        let outcome = &mut import.outcome;
        outcome.sender.place = self.places.now(&outcome.sender.place);
        let direction = direction_of(self.place(), &outcome.sender.place);
        let admitted = self.identity.admit(&import.chain);
        let admitted = admitted.and_then(|()| check_neighbour(self.place(), &outcome.sender, direction));
        if let Err(refusal) = admitted {
            outcome.refused = Some((refusal.code(), refusal.to_string()));
            self.import = Some(import);
            return Ok(());
        }
        outcome.cursors = hello.cursors;
        outcome.tip = hello.tip;
        let lineage = walk(hello.tip, store)?;
        let read = store.read_of_node(outcome.sender.node)?;
        let mut passed = [false; 3];
        for lane in Lane::ALL {
            let current = of_lane(&read, lane);
            let passed = &mut passed[lane as usize];
            *passed = match (current, hello.tip) {
                (Some(current), Some(tip)) => {
                    walk(Some(current.at), store)?.is_some_and(|read| read.covers(tip))
                }
                (_, tip) => tip.is_none(),
            };
            let forgotten = |at: Position| lineage.as_ref().is_some_and(|lineage| !lineage.covers(at));
            let unknown = current.is_some_and(|current| forgotten(current.at));
            outcome.older |= unknown && !*passed;
            outcome.behind |= unknown && *passed;
        }
        // The word of one that does not know what was read of it is of before that, or of a run of which nothing was.
        let knows = (lineage.is_some() || read.is_empty()) && !outcome.older && !outcome.behind;
        let counts = knows || (!outcome.behind && is_unread(hello.tip, store)?);
        // Who is linked says itself how far it has come, and from where it goes on.
        outcome.linked = !self.links_of(outcome.sender.node).is_empty();
        let is_word = counts && !outcome.linked;
        outcome.returned = is_word && import.newest && outcome.older;
        let sets_back = is_word && import.newest && (outcome.older || import.lost);
        let agrees = self.bundle_acknowledges(outcome, direction, is_word, sets_back, store)?;
        let stands = match outcome.returned {
            true => stands_in(&read, hello.tip, Some(hello.run), store)?,
            false => read,
        };
        let mut lanes: [Reading; 3] = Default::default();
        for lane in Lane::ALL {
            let (current, from) = (of_lane(&stands, lane), of_lane(&import.from, lane));
            let order = |cursor: Option<Cursor>| cursor.and_then(|c| lineage.as_ref()?.order(c.at));
            let reached = current.is_none() || order(current).is_some();
            let leads_on = agrees && reached && order(from) <= order(current);
            let ahead = !passed[lane as usize] && !leads_on;
            let back = outcome.returned.then_some(current);
            lanes[lane as usize] = Reading { ahead, at: from, back, stretch: Vec::new() };
        }
        let lineage = lineage.unwrap_or_default();
        import.session = Some(Session { direction, lineage, agrees, counts, lanes });
        self.import = Some(import);
        Ok(())
    }

    /// The cursors of a reader: what they name is durable there, if the word counts; and if it sets back what was known, nothing
    /// else is. False when it does not know this node's feed, or this node no longer does.
    fn bundle_acknowledges(
        &mut self,
        outcome: &mut Imported,
        direction: Direction,
        counts: bool,
        sets_back: bool,
        store: &impl Store,
    ) -> Result<bool, StoreError> {
        let (mut places, mut agrees) = (Vec::new(), true);
        for lane in Lane::ALL {
            let cursor = outcome.cursors.iter().find(|(l, _)| *l == lane).map(|(_, cursor)| cursor);
            let unopened = |cursor: &Cursor| cursor.at.segment == self.run && cursor.at.pos > 0;
            let rival = (self.live.is_none() && cursor.is_some_and(unopened)).then_some(self.run);
            let rival = match resolve(cursor, &self.segments, self.tip, self.tip, store)? {
                Resolved::At(seq) => {
                    places.push((lane, seq));
                    rival
                }
                Resolved::Forked(segment) => Some(segment),
                Resolved::Beyond(segment) if self.live == Some(segment) => Some(segment),
                Resolved::Beyond(segment) if cursor.is_some_and(|cursor| cursor.at.pos == POSITION_MAX) => {
                    outcome.lost = true;
                    Some(segment)
                }
                Resolved::Lost | Resolved::Beyond(_) => {
                    (outcome.lost, agrees) = (true, false);
                    rival
                }
            };
            if let Some(segment) = rival {
                agrees = false;
                self.fork(segment);
            }
        }
        if agrees && counts && direction == Direction::Up {
            let to_root = outcome.sender.role == Role::Root;
            for (lane, seq) in places {
                if sets_back {
                    self.reach(Frontier::Hub, lane, seq);
                }
                if sets_back && to_root {
                    self.reach(Frontier::Root, lane, seq);
                }
                self.parent_has(lane, seq, to_root);
            }
            self.keep_what_was_heard();
        }
        Ok(agrees)
    }

    fn keep_what_was_heard(&mut self) {
        if self.claims.has_moved() {
            self.intents.push_back(Intent::Folded(Vec::new()));
        }
        self.pass_on_root();
    }

    fn bundle_receipt(&mut self, lane: Lane, at: Position) {
        let Some(import) = &self.import else { return };
        let is_of_parent = |session: &Session| session.agrees && session.direction == Direction::Up;
        let counts = import.session.as_ref().is_some_and(|session| session.counts && is_of_parent(session))
            && self.links_of(import.outcome.sender.node).is_empty();
        let Some(seq) = self.seq_of(at).filter(|_| counts) else { return };
        if self.reach_further(Frontier::Root, lane, seq) {
            self.keep_what_was_heard();
        }
    }

    /// Why a batch cannot be one of this bundle.
    fn bundle_batch(
        &mut self,
        batch: EntryBatch,
        store: &impl Store,
    ) -> Result<Result<(), String>, StoreError> {
        let wrong = |text: &str| Ok(Err(text.to_owned()));
        let Some(import) = self.import.as_mut() else { return Ok(Ok(())) };
        let Some(session) = import.session.as_mut() else { return Ok(Ok(())) };
        let writer = store.announcement(batch.segment)?.map(|(_, info)| info.node);
        if writer != Some(import.outcome.sender.node) {
            return wrong("it holds a part of a feed that is not its sender's");
        }
        if store.announcement(batch.origin)?.is_none() {
            return wrong("it names a run that nobody has announced");
        }
        if let Some(home) = batch.entries.iter().find_map(|(_, entry)| self.places.unknown_of(entry.home())) {
            return Ok(Err(format!(
                "it names {home}, and nobody has told this node where that stands; it may be older than an order: export it \
                 again there"
            )));
        }
        let lane = &mut session.lanes[batch.lane as usize];
        let after = lane.at.filter(|begin| begin.at.segment == batch.segment).map_or(0, |begin| begin.at.pos);
        if batch.after != after || (batch.entries.is_empty() && batch.upto.is_none()) {
            return wrong("it leaves out a part of its sender's feed");
        }
        if !is_in_order(&batch) {
            return wrong("a batch in it mixes lanes, origins or stretches of the feed");
        }
        let stretch = lane.stretch.iter().chain([&batch]).flat_map(|batch| &batch.entries);
        if stretch.map(|(_, entry)| entry.encoded_len()).sum::<usize>() > UNPACKED_MAX_BYTES as usize {
            return wrong("a stretch of the feed in it is larger than it may be");
        }
        import.total += batch.entries.len() as u64;
        let (slot, segment, upto) = (batch.lane, batch.segment, batch.upto);
        lane.stretch.push(batch);
        let Some((pos, chain)) = upto else { return Ok(Ok(())) };
        let end = Cursor { at: Position { segment, pos }, chain: Some(chain) };
        let stretch = std::mem::take(&mut lane.stretch);
        let begin = lane.at.replace(end);
        if lane.ahead && !import.outcome.gaps.contains(&slot) {
            import.outcome.gaps.push(slot);
        }
        let node = import.outcome.sender.node;
        let current = match lane.back {
            Some(back) => back,
            None => of_lane(&store.read_of_node(node)?, slot),
        };
        // Whoever does not know us passes over what it takes us to have.
        let moves = session.agrees && is_same_place(begin, current);
        if moves && !session.lineage.covers(end.at) {
            return wrong("it leads further than its sender's feed");
        }
        lane.back = lane.back.filter(|_| !moves);
        let from = Sender {
            link: import.link,
            direction: session.direction,
            place: import.outcome.sender.place.clone(),
            allowed: self.profiles.allowed(import.outcome.sender.place.org(), Way::Courier),
        };
        // A link that stands goes on from another place than it knows.
        for link in self.links.values_mut().filter(|link| link.peer.node == node) {
            link.barred.insert(segment);
        }
        let intent = if moves { Intent::Receive } else { Intent::Bring };
        self.intents.push_back(intent(from, stretch));
        Ok(Ok(()))
    }

    /// Entries of a neighbour's feed that do not go on where it has been read. One that may be taken only after another
    /// comes again with that.
    pub(in crate::engine) fn draft_brought(
        &mut self,
        from: &Sender,
        stretch: Vec<EntryBatch>,
        draft: &mut Draft,
        store: &impl Store,
    ) -> Result<(), StoreError> {
        let goes_up = from.direction == Direction::Down;
        // No running hash tells which machine of that name wrote them: none may pass for having them by its place alone.
        let Some((segment, lane)) = stretch.first().map(|batch| (batch.segment, batch.lane)) else {
            return Ok(());
        };
        let src = Position { segment, pos: POSITION_MAX };
        let passed = store.read(lane, segment)?.map_or(0, |known| known.cursor.at.pos);
        let mut entries: Vec<_> = stretch.into_iter().flat_map(|batch| batch.entries).collect();
        entries.sort_by_key(|(pos, _)| *pos);
        for (pos, entry) in entries {
            if store.has(entry.record(), &entry.change_hash())? {
                continue;
            }
            // What this node has passed there and does not have it has forgotten, because it is not open to it any more: nobody
            // tells it so again. If another machine of that name has written it after all, a link brings it. Nobody else has what a
            // closed child wrote for itself when the root has lost it: that is forgotten again when it is there.
            let is_its_own = goes_up && entry.home() == from.place.org();
            if pos <= passed && !is_its_own && !self.is_at_home(&entry, store)? {
                continue;
            }
            match self.not_to_be_taken(from, &entry, draft, store)? {
                Some((refusal::OUTSIDE_SUBTREE, _)) => {
                    if let Some(import) = &mut self.import {
                        import.outcome.aside += 1;
                    }
                }
                Some((code, text)) => {
                    self.refuse(from.link, code, text);
                    return Ok(());
                }
                None => {
                    let lane = entry.lane();
                    if self.append(entry, Some(src), goes_up, draft, store)?.is_none() {
                        draft.after.brought.push((from.link, lane, src));
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether the record of an entry is this node's by a home, not only by a grant.
    fn is_at_home(&self, entry: &Entry, store: &impl Store) -> Result<bool, StoreError> {
        let issued = entry.record().issuer().is_some();
        let homes = store.homes(entry.record())?;
        let mut homes = homes.iter().chain([entry.home()]);
        Ok(homes.any(|home| self.places.reach(home, issued, self.place())))
    }
}

/// Whether nothing was ever read of the run that ends there.
fn is_unread(tip: Option<Position>, store: &impl Store) -> Result<bool, StoreError> {
    let Some(tip) = tip else { return Ok(false) };
    for lane in Lane::ALL {
        if store.read(lane, tip.segment)?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether two places of a feed are one, as far as the running hashes tell.
fn is_same_place(one: Option<Cursor>, other: Option<Cursor>) -> bool {
    let [one, other] = [one, other].map(|place| place.filter(|place| place.at.pos > 0));
    let known = |place: Cursor| place.chain.filter(|chain| *chain != CHAIN_START);
    match (one, other) {
        (Some(one), Some(other)) => {
            // Where one of the two is not known, because rows are gone, nothing tells.
            let differ = known(one).zip(known(other)).is_some_and(|(one, other)| one != other);
            one.at == other.at && !differ
        }
        (one, other) => one.is_none() && other.is_none(),
    }
}
