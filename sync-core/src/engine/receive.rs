//! What a neighbour says, and what it means.

use super::*;
use crate::{
    feed::Cursor,
    session::{Found, HELD_MAX_BATCHES, HELD_MAX_BYTES, PLACES_MAX, Resolved, resolve},
    wire::UNPACKED_MAX_BYTES,
};

/// So many organizations may be asked for on a link because others seek them; the rest of [`PLACES_MAX`] is for homes of what comes.
const SOUGHT_MAX: usize = PLACES_MAX / 2;

impl<I: Identity> Engine<I> {
    pub(super) fn received(
        &mut self,
        link: LinkId,
        frame: Frame,
        store: &impl Store,
        now: Now,
    ) -> Result<(), StoreError> {
        let Some(state) = self.links.get_mut(&link) else { return Ok(()) };
        // Streams are independent: a batch may overtake the HELLO that went before it. It is held back.
        let may_come_first = matches!(
            frame,
            Frame::Hello(_) | Frame::Batch(_) | Frame::Lanes(_) | Frame::Orders(_) | Frame::Refuse { .. }
        );
        if state.hello.is_none() && !may_come_first {
            self.refuse(link, refusal::PROTOCOL, "the neighbour did not begin with HELLO".to_owned());
            return Ok(());
        }
        if state.stranger && !matches!(frame, Frame::Orders(_) | Frame::Refuse { .. }) {
            self.refuse_no_neighbour(link);
            return Ok(());
        }
        if std::mem::take(&mut state.rival) {
            let peer = state.peer.clone();
            self.effects.push_back(Effect::Alert(Alert::TwoMachines { peer }));
        }
        match frame {
            Frame::Hello(hello) => self.on_hello(link, hello, store, now)?,
            Frame::Announce(announcement) => self.on_announce(link, announcement, store)?,
            Frame::Need(run) => {
                self.on_need(link, run);
                self.ask_for_runs(store)?;
            }
            Frame::NeedPlace(org) => {
                self.on_need_place(link, org);
                self.ask_around();
            }
            Frame::Lost => {
                state.owes_cursors = true;
                let peer = state.peer.clone();
                self.effects.push_back(Effect::Alert(Alert::Restored { peer }));
            }
            Frame::Cursors(cursors) if std::mem::take(&mut state.awaits_cursors) => {
                self.on_cursors(link, &cursors, true, store, now)?;
                self.confirm_places(link, store, now)?;
            }
            Frame::Cursors(_) => {
                let text = "the neighbour named places for which nobody had asked".to_owned();
                self.refuse(link, refusal::PROTOCOL, text);
                return Ok(());
            }
            Frame::Batch(batch) => self.on_batch(link, batch, store)?,
            Frame::Ack(lane, at) => self.on_ack(link, lane, at, now),
            Frame::SafeAtRoot(lane, at) => self.on_safe_at_root(link, lane, at),
            Frame::Revocations(all) => self.on_revocations(link, all, store)?,
            Frame::Orders(all) => self.on_orders(link, all),
            frame @ (Frame::Audit
            | Frame::Total(_)
            | Frame::Look(_)
            | Frame::Ranges(_)
            | Frame::Want(_)
            | Frame::Repair(_)
            | Frame::Repaired(_)) => self.on_audit(link, frame, store)?,
            Frame::Lanes(lanes) => state.takes = lanes,
            Frame::ToCome(count) => state.to_come = count,
            // For people, and of others: whoever shows it takes it from the link.
            Frame::Below(_) => {}
            frame @ (Frame::Ask(_)
            | Frame::Tree(..)
            | Frame::Bytes { .. }
            | Frame::Nothing(_)
            | Frame::Kept(..)) => self.on_content(link, frame, store, now)?,
            Frame::Refuse { code, text } => {
                let (peer, doubled) = (state.peer.clone(), state.doubled);
                self.links.remove(&link);
                self.effects.push_back(Effect::Close(link));
                if code == refusal::REPLACED && !doubled {
                    // Not by us: another machine goes by the name of this run.
                    self.fork(self.live.unwrap_or(self.run));
                }
                self.effects.push_back(Effect::Alert(Alert::RefusedByPeer { peer, code, text }));
            }
        }
        self.go_on(link, store, now)?;
        self.send_receipts(link);
        self.pass_on_root();
        Ok(())
    }

    fn on_hello(
        &mut self,
        link: LinkId,
        hello: Hello,
        store: &impl Store,
        now: Now,
    ) -> Result<(), StoreError> {
        let statements = self.statements();
        let state = self.links.get_mut(&link).expect("the caller has found it");
        if state.hello.is_some() {
            self.refuse(link, refusal::PROTOCOL, "the neighbour said HELLO twice".to_owned());
            return Ok(());
        }
        let (node, cursors, run) = (state.peer.node, hello.cursors.clone(), hello.run);
        let decides = state.direction == Direction::Down;
        let (org, theirs) = (state.peer.place.org().clone(), hello.allows);
        let knows_others = hello.revocations != statements;
        state.hello = Some(hello);
        // One that has not said HELLO yet is compared when it does: a HELLO may be overtaken by that of a newer link.
        for other in self.links_of(node).into_iter().filter(|other| *other != link) {
            let Some(said) = self.links.get(&other).and_then(|other| other.hello.as_ref()) else { continue };
            let (older, same) = (link.min(other), said.run == run);
            if !same {
                self.links.get_mut(&older).expect("both are in the list").rival = true;
            } else if decides {
                // One end decides, or each would end the connection that the other keeps.
                self.refuse(older, refusal::REPLACED, "a newer connection of the same run".to_owned());
                if older == link {
                    return Ok(());
                }
            }
        }
        if knows_others {
            let all = store.revocations()?;
            // First where everybody stands: who may revoke whom hangs on it.
            self.send_orders(link);
            self.send_revocations(link, &all);
        }
        self.agree_on_secrecy(link, org, theirs);
        self.on_cursors(link, &cursors, false, store, now)?;
        self.ask_around();
        self.ask_for_runs(store)
    }

    /// The reader's word counts: sending goes on where the reader stands. `again`: these are the cursors that the
    /// reader was asked for, in the segments that have been announced to it.
    fn on_cursors(
        &mut self,
        link: LinkId,
        cursors: &[(Lane, Cursor)],
        again: bool,
        store: &impl Store,
        now: Now,
    ) -> Result<(), StoreError> {
        // Asked again, the reader names what it has read of the running segment, also what it was not told of.
        let said = self.links.get(&link).map(|link| if again { self.tip } else { link.said });
        let Some(said) = said else { return Ok(()) };
        let mut places = Vec::new();
        // Whether it names what this node never wrote; or what it has not been told of, because both meet while more comes.
        let (mut unknown, mut lost, mut rival) = (false, false, None);
        let mut known = 0;
        for lane in Lane::ALL {
            let cursor = cursors.iter().find(|(l, _)| *l == lane).map(|(_, cursor)| cursor);
            if let Some(at) = cursor.map(|cursor| cursor.at) {
                let index = self.segments.iter().rposition(|s| s.incarnation == at.segment);
                unknown |= index.is_none();
                known = known.max(index.map_or(0, |index| index + 1));
            }
            // Somebody has written under the name that this process has not used yet.
            let taken = |cursor: &Cursor| cursor.at.segment == self.run && cursor.at.pos > 0;
            if self.live.is_none() && cursor.is_some_and(taken) {
                rival = rival.or(Some(self.run));
            }
            match resolve(cursor, &self.segments, said, self.tip, store)? {
                Resolved::At(seq) => places.push((lane, seq, cursor.map(|cursor| cursor.at))),
                // A reader that finds nothing in common begins at the beginning; what it has, it passes over.
                Resolved::Lost if again => places.push((lane, 0, None)),
                // What this very process has written it remembers, and asked again the reader names such a place only
                // when it has to be told.
                Resolved::Beyond(segment) if again || self.live == Some(segment) => {
                    rival = rival.or(Some(segment));
                }
                Resolved::Beyond(_) => (unknown, lost) = (true, true),
                Resolved::Lost => lost = true,
                Resolved::Forked(segment) => rival = rival.or(Some(segment)),
            }
        }
        if lost || rival.is_some() {
            self.audited = None;
        }
        let is_up = self.links.get(&link).is_some_and(|link| link.direction == Direction::Up);
        if is_up && (unknown || rival.is_some()) {
            self.doubt(now);
        }
        if let Some(segment) = rival {
            // Somebody else has written under the name of this segment.
            self.hang_up(link);
            self.fork(segment);
            return Ok(());
        }
        if !again {
            let from = if lost { 0 } else { known };
            let runs: Vec<_> = self.segments[from..].iter().map(|s| s.incarnation).collect();
            for run in runs {
                if let Some((announcement, _)) = store.announcement(run)? {
                    self.send(link, Frame::Announce(without_chain(&announcement)));
                }
            }
        }
        if lost {
            self.intents.push_back(Intent::Lost(link));
            return Ok(());
        }
        for (lane, seq, told) in places {
            self.settle(link, lane, seq, told);
            self.pass_over_what_is_above(link, lane, store, now)?;
        }
        Ok(())
    }

    /// The neighbour is asked what it has read of what this node knows. That there is a doubt is durable: it would know no more of it
    /// when it has been answered.
    pub(super) fn say_lost(&mut self, link: LinkId) {
        if let Some(state) = self.links.get_mut(&link) {
            state.awaits_cursors = true;
            self.send(link, Frame::Lost);
        }
    }

    /// The reader stands after row `seq` in this lane.
    fn settle(&mut self, link: LinkId, lane: Lane, seq: Seq, told: Option<Position>) {
        let Some(state) = self.links.get_mut(&link) else { return };
        let (run, up, to_root) = (
            state.hello.as_ref().map(|hello| hello.run),
            state.direction == Direction::Up,
            state.peer.role == Role::Root,
        );
        let out = &mut state.out[lane as usize];
        (out.next, out.told, out.durable) = (Some(seq), told, seq);
        if !up {
            return self.leaving_goes_on(Some(link));
        }
        // The same process may have said more on another link since it said this.
        let same = |link: &&Link| link.hello.as_ref().map(|hello| hello.run) == run;
        let links = self.links.values().filter(same);
        let seq = links.map(|link| link.out[lane as usize].durable).max().unwrap_or(seq);
        self.reach(Frontier::Hub, lane, seq);
        if to_root {
            self.reach(Frontier::Root, lane, seq);
        }
    }

    /// Somebody else has written under the name of this segment. What this node has of it gets another name; then
    /// all neighbours are met anew.
    pub(super) fn fork(&mut self, segment: Incarnation) {
        let known = self.intents.iter().any(|intent| matches!(intent, Intent::Fork(s) if *s == segment));
        if !known {
            self.intents.push_back(Intent::Fork(segment));
        }
    }

    pub(super) fn on_announce(
        &mut self,
        link: LinkId,
        mut a: Announcement,
        store: &impl Store,
    ) -> Result<(), StoreError> {
        let Some(chain) = self.chain_of(link).cloned() else { return Ok(()) };
        let known = store.announcement(a.incarnation)?;
        if known.is_some_and(|(known, _)| known.parent == a.parent) {
            return Ok(());
        }
        if !a.incarnation.is_of(a.node) {
            let text = format!("a run of {} was announced by a name that is another node's", a.node);
            self.refuse(link, refusal::PROTOCOL, text);
            return Ok(());
        }
        if a.chain.is_empty() {
            a.chain = chain;
        }
        let info = match self.identity.verify(&a) {
            Ok(info) => info,
            Err(error) => {
                self.refuse(link, error.code(), error.to_string());
                return Ok(());
            }
        };
        // Who brings it does not matter: it is signed. A neighbour that gives back to us what we lost may bring
        // runs of any place, even our own.
        if let Some(known) = self.places.clashes(&info.place) {
            let text = format!(
                "{} and {known} use the same organization id; one of them has to be enrolled under another",
                info.place
            );
            self.refuse(link, refusal::NAME_CLASH, text);
        } else {
            self.places.learn(&info.place);
            self.intents.push_back(Intent::Announce(link, a, info));
        }
        Ok(())
    }

    /// The neighbour asks for the announcement of a run. It is told as soon as this node knows.
    fn on_need(&mut self, link: LinkId, run: Incarnation) {
        let state = self.links.get_mut(&link).filter(|state| state.wanted.len() < PLACES_MAX);
        if let Some(state) = state {
            state.wanted.insert(run);
        }
    }

    fn tell_runs(&mut self, link: LinkId, store: &impl Store) -> Result<(), StoreError> {
        let wanted = self.links.get(&link).map(|state| state.wanted.clone()).unwrap_or_default();
        for run in wanted {
            let known = store.announcement(run)?;
            if let (Some((announcement, _)), Some(state)) = (known, self.links.get_mut(&link)) {
                state.wanted.remove(&run);
                self.send(link, Frame::Announce(announcement));
            }
        }
        Ok(())
    }

    /// Asks those around for the runs that a neighbour wants and nobody here knows: the parent may, the hubs below, and the child whose
    /// run it is.
    fn ask_for_runs(&mut self, store: &impl Store) -> Result<(), StoreError> {
        let wanted: BTreeSet<_> = self.links.values().flat_map(|link| &link.wanted).copied().collect();
        for run in wanted {
            let may_know = |link: &&Link| {
                let asks = link.hello.is_some() && !link.stranger && link.asked.len() < SOUGHT_MAX;
                let relays = link.direction == Direction::Up || link.peer.role == Role::Hub;
                asks && (relays || run.is_of(link.peer.node))
            };
            let links: Vec<_> = self.links.values().filter(may_know).map(|link| link.id).collect();
            for link in links {
                self.announced(link, run, store)?;
            }
        }
        Ok(())
    }

    fn on_batch(&mut self, link: LinkId, batch: EntryBatch, store: &impl Store) -> Result<(), StoreError> {
        let Some(state) = self.links.get_mut(&link) else { return Ok(()) };
        let full = state.held.len() >= HELD_MAX_BATCHES || state.held_bytes() >= HELD_MAX_BYTES;
        if full || self.intents.len() >= INTENTS_MAX {
            let text = "the neighbour sends more than it may before it is acknowledged".to_owned();
            self.refuse(link, refusal::PROTOCOL, text);
            return Ok(());
        }
        state.confirms(batch.lane, Position { segment: batch.segment, pos: batch.after });
        let waits = !state.is_settled() || state.held.iter().any(|held| held.lane == batch.lane);
        let writer = self.writer_of(link, &batch, store)?;
        if waits {
            self.hold_back(link, batch);
        } else {
            self.take_batch(link, batch, writer);
        }
        Ok(())
    }

    /// The neighbour asks where an organization stands. It is told as soon as this node knows.
    fn on_need_place(&mut self, link: LinkId, org: OrgId) {
        let state = self.links.get_mut(&link).filter(|state| state.wanted_places.len() < PLACES_MAX);
        if let Some(state) = state {
            state.wanted_places.insert(org);
        }
    }

    fn tell_places(&mut self, link: LinkId, store: &impl Store) -> Result<(), StoreError> {
        let wanted = self.links.get(&link).map(|state| state.wanted_places.clone()).unwrap_or_default();
        for org in wanted {
            let mut announcement = store.announcement_of(&org)?;
            let own = self.info();
            if announcement.is_none() && org == *own.place.org() {
                // This node has written nothing yet: it announces a run that it will never write in.
                let unused = Incarnation::of(own.node, [0; Incarnation::FRESH_LEN]);
                announcement = Some(self.identity.announce(unused, None));
            }
            if let (Some(announcement), Some(state)) = (announcement, self.links.get_mut(&link)) {
                state.wanted_places.remove(&org);
                self.send(link, Frame::Announce(announcement));
            }
        }
        Ok(())
    }

    /// The node from whose feed a batch is, if everything that it names is known: the runs, and where the homes stand. So
    /// whoever holds an entry can tell the next. What is not known is asked for, also for a batch that waits: one thing
    /// after another would take a round trip each.
    fn writer_of(
        &mut self,
        link: LinkId,
        batch: &EntryBatch,
        store: &impl Store,
    ) -> Result<Option<NodeId>, StoreError> {
        let origin = self.announced(link, batch.origin, store)?;
        let segment = self.announced(link, batch.segment, store)?;
        let places = self.places_are_known(link, batch.entries.iter().map(|(_, entry)| entry));
        Ok(origin.and(segment).filter(|_| places))
    }

    pub(super) fn places_are_known<'e>(
        &mut self,
        link: LinkId,
        entries: impl Iterator<Item = &'e Entry>,
    ) -> bool {
        let unknown: BTreeSet<_> =
            entries.filter_map(|entry| self.places.unknown_of(entry.home())).cloned().collect();
        let all_known = unknown.is_empty();
        unknown.into_iter().for_each(|org| self.ask_place(link, org));
        if !all_known {
            self.ask_around();
        }
        all_known || !self.links.contains_key(&link)
    }

    /// Asks a child that nobody has announced where it stands.
    pub(super) fn locate(&mut self, link: LinkId) {
        let child =
            self.links.get(&link).filter(|state| state.direction == Direction::Down && !state.stranger);
        let org = child.map(|state| state.peer.place.org().clone());
        if let Some(org) = org.filter(|org| self.places.stands(org).is_none()) {
            self.ask_place(link, org);
        }
    }

    /// Asks those around for whom nobody here knows: to whom something is open, and of whom a neighbour has asked. The parent may
    /// know, and so may the hubs below; whoever does not know asks on, and remembers who has asked. Where the successor
    /// stands of one that is closed a child need not know, but the root does.
    pub(super) fn ask_around(&mut self) {
        let is_unknown = |org: &&OrgId| self.places.stands(org).is_none();
        let wanted = self.links.values().flat_map(|link| &link.wanted_places);
        let sought: BTreeSet<_> = self.seeks.iter().chain(wanted).filter(is_unknown).cloned().collect();
        let has_orders = !self.places.orders().is_empty();
        let down = self.links.values().filter(|link| has_orders && link.direction == Direction::Down);
        let asked = down.flat_map(|link| &link.asked_places).filter(is_unknown).cloned();
        let above: BTreeSet<_> = asked.chain(sought.iter().cloned()).collect();
        for link in
            self.links.values().filter(|link| link.hello.is_some()).map(|link| link.id).collect::<Vec<_>>()
        {
            let state = &self.links[&link];
            let orgs = match state.direction {
                Direction::Up => &above,
                Direction::Down if state.peer.role == Role::Hub && !state.stranger => &sought,
                Direction::Down => continue,
            };
            let room = SOUGHT_MAX.saturating_sub(state.asked_places.len());
            // Also whoever has asked for it: it may hear of it first.
            let fresh: Vec<_> = orgs.difference(&state.asked_places).take(room).cloned().collect();
            fresh.into_iter().for_each(|org| self.ask_place(link, org));
        }
    }

    fn ask_place(&mut self, link: LinkId, org: OrgId) {
        let Some(state) = self.links.get_mut(&link) else { return };
        if state.asked_places.len() < PLACES_MAX && state.asked_places.insert(org.clone()) {
            self.send(link, Frame::NeedPlace(org));
        }
    }

    pub(super) fn announced(
        &mut self,
        link: LinkId,
        run: Incarnation,
        store: &impl Store,
    ) -> Result<Option<NodeId>, StoreError> {
        let known = store.announcement(run)?.map(|(_, info)| info.node);
        if known.is_none() && self.links.get_mut(&link).is_some_and(|state| state.asked.insert(run)) {
            self.send(link, Frame::Need(run));
        }
        Ok(known)
    }

    fn hold_back(&mut self, link: LinkId, batch: EntryBatch) {
        if let Some(state) = self.links.get_mut(&link) {
            state.held.push_back(batch);
        }
    }

    /// Takes a batch if the node from whose feed it is is known, and holds it back otherwise.
    fn take_batch(&mut self, link: LinkId, batch: EntryBatch, writer: Option<NodeId>) {
        if writer.is_none() {
            return self.hold_back(link, batch);
        }
        if self.links[&link].barred.contains(&batch.segment) {
            // Another link has brought rows of this segment since we have agreed on a place in it.
            return self.hang_up(link);
        }
        if let Err((code, text)) = self.check_batch(link, &batch, writer) {
            return self.refuse(link, code, text);
        }
        for other in writer.map(|node| self.links_of(node)).unwrap_or_default() {
            if other != link {
                self.links.get_mut(&other).expect("it is in the list").barred.insert(batch.segment);
            }
        }
        let state = self.links.get_mut(&link).expect("the caller has found it");
        if let Some((pos, _)) = batch.upto {
            let at = Position { segment: batch.segment, pos };
            state.reading[batch.lane as usize] = Some(at);
            if let Some(lineage) = &mut state.lineage {
                lineage[batch.lane as usize].extend(at);
            }
        }
        let (lane, complete) = (batch.lane as usize, batch.upto.is_some());
        state.stretch[lane].push(batch);
        if complete {
            let batches = std::mem::take(&mut state.stretch[lane]);
            let from = self.sender_of(link);
            self.intents.push_back(Intent::Receive(from, batches));
        }
    }

    fn check_batch(
        &self,
        link: LinkId,
        batch: &EntryBatch,
        writer: Option<NodeId>,
    ) -> Result<(), (u16, String)> {
        let state = &self.links[&link];
        let wrong = |text: &str| Err((refusal::PROTOCOL, text.to_owned()));
        if writer != Some(state.peer.node) {
            return wrong("the neighbour sent from a feed that is not its own");
        }
        if batch.entries.is_empty() && batch.upto.is_none() {
            return wrong("the neighbour sent a batch that says nothing");
        }
        let reading = state.reading[batch.lane as usize].filter(|at| at.segment == batch.segment);
        if batch.after > reading.map_or(0, |at| at.pos) {
            return wrong("the neighbour left out a part of its feed");
        }
        if !is_in_order(batch) {
            return wrong("a batch mixes lanes, origins or stretches of the feed");
        }
        let stretch = state.stretch[batch.lane as usize].iter().chain([batch]).flat_map(|b| &b.entries);
        if stretch.map(|(_, entry)| entry.encoded_len()).sum::<usize>() > UNPACKED_MAX_BYTES as usize {
            return wrong("a stretch of the feed is larger than it may be");
        }
        Ok(())
    }

    fn on_ack(&mut self, link: LinkId, lane: Lane, at: Position, now: Now) {
        let Some(seq) = self.seq_of(at) else { return };
        let Some(state) = self.links.get_mut(&link) else { return };
        state.out[lane as usize].acknowledged(seq, now.mono);
        if state.direction == Direction::Up {
            let (to_root, idle) = (state.peer.role == Role::Root, state.is_idle());
            self.parent_has(lane, seq, to_root);
            if idle && self.claims.has_moved() {
                self.intents.push_back(Intent::Folded(Vec::new()));
            }
        } else {
            self.leaving_goes_on(Some(link));
        }
    }

    fn on_safe_at_root(&mut self, link: LinkId, lane: Lane, at: Position) {
        let Some(state) = self.links.get_mut(&link).filter(|state| state.direction == Direction::Up) else {
            return;
        };
        if !state.agrees() {
            // One for each lane is of use; more are not kept.
            state.early.retain(|(l, _)| *l != lane);
            state.early.push((lane, at));
            return;
        }
        let Some(seq) = self.seq_of(at) else { return };
        if self.reach_further(Frontier::Root, lane, seq) {
            self.intents.push_back(Intent::Folded(Vec::new()));
        }
    }

    pub(super) fn on_revocations(
        &mut self,
        link: LinkId,
        all: Vec<Revocation>,
        store: &impl Store,
    ) -> Result<(), StoreError> {
        let known = store.revocations()?;
        for revocation in all.into_iter().filter(|one| !known.contains(one)) {
            match self.identity.verify_revocation(&revocation, &self.places) {
                Ok(()) => self.intents.push_back(Intent::Revoke(revocation)),
                Err(error) => {
                    self.refuse(link, error.code(), error.to_string());
                    break;
                }
            }
        }
        Ok(())
    }

    /// Whatever has become possible on a link, because something came on it or because something is durable: its lineage
    /// is complete, batches can be taken whose origin is announced, rows can be sent.
    pub(super) fn go_on(&mut self, link: LinkId, store: &impl Store, now: Now) -> Result<(), StoreError> {
        self.settle_lineage(link, store)?;
        let early = self.links.get_mut(&link).filter(|state| state.agrees());
        for (lane, at) in early.map(|state| std::mem::take(&mut state.early)).unwrap_or_default() {
            self.on_safe_at_root(link, lane, at);
        }
        self.tell_runs(link, store)?;
        self.tell_places(link, store)?;
        self.take_held(link, store)?;
        self.send_rows(link, store, now)?;
        self.tell_what_is_to_come(link, store, now)?;
        self.audit_goes_on(link, store)?;
        self.contents_go_on(link, store, now)
    }

    /// When more is safe at the root than before, all children are told.
    pub(super) fn pass_on_root(&mut self) {
        if self.root_has_moved() {
            let links: Vec<_> = self.links.keys().copied().collect();
            links.into_iter().for_each(|link| self.send_receipts(link));
        }
    }

    /// Takes those of the batches that were held back that can be taken now. In each lane one that cannot holds up what
    /// came after it, so a look at all of them is one pass.
    fn take_held(&mut self, link: LinkId, store: &impl Store) -> Result<(), StoreError> {
        let settled = self.links.get_mut(&link).filter(|state| state.is_settled());
        let held = settled.map(|state| std::mem::take(&mut state.held)).unwrap_or_default();
        let mut waits = [false; 3];
        for batch in held {
            let lane = batch.lane as usize;
            let before = self.links.get(&link).map_or(0, |state| state.held.len());
            if waits[lane] {
                self.hold_back(link, batch);
            } else {
                let writer = self.writer_of(link, &batch, store)?;
                self.take_batch(link, batch, writer);
            }
            let Some(state) = self.links.get(&link) else { return Ok(()) };
            waits[lane] = state.held.len() > before;
        }
        Ok(())
    }

    fn settle_lineage(&mut self, link: LinkId, store: &impl Store) -> Result<(), StoreError> {
        let Some(state) = self.links.get_mut(&link) else { return Ok(()) };
        match state.find_lineage(store, || not_yet_durable(&self.intents, &self.committing))? {
            Found::Nothing | Found::Known => {}
            Found::Asked => {
                // We stand there when the neighbour has confirmed it: it might lose power before it acts upon what our
                // older places tell it, which is that somebody else may write under its name.
                let cursors = state.named.clone();
                self.send(link, Frame::Cursors(cursors));
            }
            Found::Further(cursors) => {
                self.intents.push_back(Intent::Stand(cursors));
                self.hang_up(link);
            }
        }
        Ok(())
    }
}

/// Whether a batch is of one lane, one origin and one stretch of the feed.
pub(super) fn is_in_order(batch: &EntryBatch) -> bool {
    let upto = batch.upto.map_or(u64::MAX, |(pos, _)| pos);
    batch.entries.iter().all(|(pos, entry)| {
        *pos > batch.after && *pos <= upto && entry.lane() == batch.lane && entry.origin() == batch.origin
    })
}
