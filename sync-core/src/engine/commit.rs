//! What becomes durable, and what follows when it has.

use std::collections::btree_map::Entry as Slot;

use super::{attachments::contents_of, grants::Gained, purge::sender, *};
use crate::{
    id::{ChangeHash, OrgId, RecordId, Secrecy},
    scope::grant::{self, Granted},
};

/// Intents are gathered into one commit until their entries reach this many bytes.
const COMMIT_MAX_BYTES: usize = 4 << 20;
/// Most marks kept for one segment and lane. When there are more, every other one goes: the news that something
/// is safe at the root comes in larger steps then.
const MARKS_MAX: usize = 64;

/// A commit being put together: what the store will hold when it is durable.
pub(super) struct Draft {
    pub(super) ops: Batch,
    pub(super) after: Consequences,
    added: BTreeSet<(RecordId, ChangeHash)>,
    /// Those of them that have come from above, with their rows.
    from_above: BTreeMap<(RecordId, ChangeHash), Seq>,
    pub(super) homes: BTreeMap<RecordId, Vec<OrgId>>,
    pub(super) grants: BTreeMap<RecordId, Vec<Granted>>,
    rows: BTreeMap<RecordId, Vec<Seq>>,
    /// How secret the records are of which it holds secret entries.
    secrecy: BTreeMap<RecordId, Secrecy>,
    /// The same by the authors of the entries.
    pub(super) marked: BTreeMap<(RecordId, Vec<u8>), Secrecy>,
    /// The announcements that neighbours have brought.
    brought: BTreeMap<Incarnation, Announcement>,
    /// The records of which it holds something else: of an attachment, a row that is put back, an offer of what the parent lacked.
    pub(super) touched: BTreeSet<RecordId>,
    pub(super) bytes: usize,
    pub(super) at: i64,
    /// How far the projection is folded once this commit is durable.
    folded: Seq,
}

impl Draft {
    /// Whether this commit adds to a record, or to what is known of it.
    pub(super) fn holds(&self, record: &RecordId) -> bool {
        self.rows.contains_key(record) || self.grants.contains_key(record) || self.touched.contains(record)
    }

    /// Whose a record is that this commit adds to, and to whom it is open, each once.
    pub(super) fn held_for(&self, record: &RecordId) -> Vec<OrgId> {
        let (homes, grants) = self.homes_and_grants(record);
        grant::held_for(homes, grants)
    }

    /// Both, as they are when this commit is durable.
    pub(super) fn homes_and_grants(&self, record: &RecordId) -> (&[OrgId], &[Granted]) {
        let homes = self.homes.get(record).map_or(&[][..], Vec::as_slice);
        (homes, self.grants.get(record).map_or(&[][..], Vec::as_slice))
    }

    /// The grants of a record, as they are when this commit is durable.
    pub(super) fn grants_of(
        &mut self,
        record: &RecordId,
        store: &impl Store,
    ) -> Result<&mut Vec<Granted>, StoreError> {
        Ok(match self.grants.entry(record.clone()) {
            Slot::Occupied(known) => known.into_mut(),
            Slot::Vacant(slot) => slot.insert(store.grants(record)?),
        })
    }

    /// The rows of a record that can be offered: those that can be read.
    pub(super) fn rows_so_far(&self, record: &RecordId, store: &impl Store) -> Result<Vec<Seq>, StoreError> {
        let mut rows = Vec::new();
        for row in store.rows_of(record)? {
            rows.extend(store.entry(row)?.map(|_| row));
        }
        rows.extend(self.rows.get(record).into_iter().flatten());
        Ok(rows)
    }

    /// The attachments that an entry brings are known when this commit is durable.
    pub(super) fn names(&mut self, entry: &Entry) {
        let named = |attachment| Name { record: entry.record().clone(), attachment };
        self.after.named.extend(entry.attachments().into_iter().map(named));
    }

    /// Offers the entry of an older row.
    pub(super) fn offer(&mut self, of: Seq, to: Offered) {
        self.after.tip += 1;
        self.after.fresh.for_all = true;
        self.ops.push(Op::Offer { of, to });
    }
}

impl<I: Identity> Engine<I> {
    /// Starts the next commit, if none is under way and there is something to keep.
    pub(super) fn commit_next(&mut self, store: &impl Store, now: Now) -> Result<(), StoreError> {
        let has_work =
            !self.intents.is_empty() || self.gain.is_some() || self.can_forget() || self.is_a_grant_over(now);
        if self.committing.is_some() || !has_work {
            return Ok(());
        }
        let mut draft = Draft {
            ops: Batch::new(),
            after: Consequences {
                acks: BTreeMap::new(),
                received: BTreeSet::new(),
                brought: Vec::new(),
                written: Vec::new(),
                tip: self.tip,
                segments: None,
                live: self.live,
                run: self.run,
                last: self.last,
                new_marks: Vec::new(),
                announced: Vec::new(),
                repaired: Vec::new(),
                healed: Vec::new(),
                renamed: false,
                revoked: false,
                allowed: Vec::new(),
                lost: Vec::new(),
                doubt: None,
                gain: self.gain,
                purge: self.purge.clone(),
                grant_end: self.grant_end,
                grants_ended: false,
                seeks: Vec::new(),
                leaving: Vec::new(),
                unheard: Vec::new(),
                fresh: Fresh::default(),
                two_homes: Vec::new(),
                ordered: Vec::new(),
                contents: Vec::new(),
                named: Vec::new(),
                scope_grows: false,
            },
            added: BTreeSet::new(),
            from_above: BTreeMap::new(),
            homes: BTreeMap::new(),
            grants: BTreeMap::new(),
            rows: BTreeMap::new(),
            secrecy: BTreeMap::new(),
            marked: BTreeMap::new(),
            brought: BTreeMap::new(),
            touched: BTreeSet::new(),
            bytes: 0,
            at: now.wall,
            folded: store.folded()?,
        };
        while draft.bytes < COMMIT_MAX_BYTES
            && let Some(intent) = self.intents.pop_front()
        {
            self.draft(intent, &mut draft, store)?;
        }
        self.draft_ended(&mut draft, store)?;
        self.draft_gain(&mut draft, store)?;
        self.draft_purge(&mut draft, store)?;
        self.keep_frontiers(&mut draft);
        self.committing = Some(draft.after);
        self.effects.push_back(Effect::Commit(draft.ops));
        Ok(())
    }

    fn draft(&mut self, intent: Intent, draft: &mut Draft, store: &impl Store) -> Result<(), StoreError> {
        match intent {
            Intent::Receive(from, batches) => self.draft_received(&from, batches, draft, store)?,
            Intent::Bring(from, batches) => self.draft_brought(&from, batches, draft, store)?,
            Intent::Stand(cursors) => {
                let stand = |(lane, cursor)| Op::Read { lane, cursor, brought: false };
                draft.ops.extend(cursors.into_iter().map(stand));
            }
            Intent::Announce(link, announcement, info) => {
                self.draft_announced(link, announcement, info, draft, store)?
            }
            Intent::AnnounceOwn(segment) => self.announce_own(segment, draft),
            Intent::Write(ticket, entries, projection) => {
                let caught_up = draft.folded == draft.after.tip;
                for entry in entries {
                    // One that says nothing of it is as secret as what its record has said before.
                    let record = entry.record();
                    let in_draft = draft.secrecy.get(record).copied().unwrap_or_default();
                    let degree = store.secrecy(record)?.max(in_draft);
                    self.append(entry.with_secrecy(degree), None, true, draft, store)?;
                }
                draft.after.named.extend(contents_of(&projection).cloned());
                draft.ops.extend(projection);
                if caught_up {
                    draft.folded = draft.after.tip;
                    draft.ops.push(Op::Folded(draft.folded));
                }
                draft.after.written.push(ticket);
            }
            Intent::Folded(ops) => {
                if let Some(Op::Folded(seq)) = ops.last() {
                    draft.folded = *seq;
                }
                for op in ops {
                    // What was worked out before its record was forgotten is of nothing.
                    let is_forgotten = |record| Ok(store.rows_of(record)?.is_empty() && !draft.holds(record));
                    if !matches!(&op, Op::Project(projected) if is_forgotten(&projected.record)?) {
                        draft.ops.push(op);
                    }
                }
            }
            Intent::Revoke(revocation) => {
                draft.ops.push(Op::Revoke(revocation));
                draft.after.revoked = true;
            }
            Intent::Order(order) => {
                draft.after.ordered.push(order.clone());
                self.draft_orders(vec![order], draft, store)?;
            }
            Intent::Orders(orders) => self.draft_orders(orders, draft, store)?,
            Intent::Fork(segment) => self.rename_from(segment, draft),
            Intent::Heal(row, entry) => self.draft_heal(row, entry, draft, store)?,
            Intent::Repair(from, entries) => self.draft_repair(&from, entries, draft, store)?,
            Intent::ForgottenTold(told) => self.draft_told(&told, draft),
            Intent::Content(op) => self.draft_content(op, draft, store)?,
            Intent::Allow(org, way, upto) => self.draft_allowed(org, way, upto, draft, store)?,
            Intent::Lost(link) => draft.after.lost.push(link),
            Intent::Gave(began, rows) => self.draft_gave(began, rows, draft, store)?,
        }
        Ok(())
    }

    /// Of a run the first announcement stands. Another one that names another parent tells that two machines have opened
    /// a segment under one name: whoever comes second is shown the first, and gives its own segment another name.
    fn draft_announced(
        &mut self,
        link: LinkId,
        announcement: Announcement,
        info: NodeInfo,
        draft: &mut Draft,
        store: &impl Store,
    ) -> Result<(), StoreError> {
        let run = announcement.incarnation;
        let known = match draft.brought.get(&run) {
            Some(known) => Some(known.clone()),
            None => store.announcement(run)?.map(|(known, _)| known),
        };
        let Some(known) = known else {
            // What belongs to whom it succeeds has been kept, because nobody knew where that is.
            if self.places.succeeds(info.place.org()) {
                self.purge_begins(&self.places, draft, store)?;
            }
            self.offer_what_is_open(&info, draft, store)?;
            draft.brought.insert(run, announcement.clone());
            draft.after.scope_grows = true;
            draft.ops.push(Op::Announce(announcement, info));
            return Ok(());
        };
        if known.parent == announcement.parent {
            return Ok(());
        }
        if announcement.node == self.info().node {
            if self.segments.iter().any(|segment| segment.incarnation == run) {
                self.fork(run);
            }
        } else if self.links.get(&link).is_some_and(|link| link.peer.node == announcement.node) {
            self.send(link, Frame::Announce(known));
        }
        Ok(())
    }

    /// A stretch of a neighbour's feed: its entries in the order of that feed, and the cursor that has passed them.
    fn draft_received(
        &mut self,
        from: &Sender,
        stretch: Vec<EntryBatch>,
        draft: &mut Draft,
        store: &impl Store,
    ) -> Result<(), StoreError> {
        let Some((lane, segment, Some((pos, chain)))) = stretch.last().map(|b| (b.lane, b.segment, b.upto))
        else {
            return Ok(());
        };
        let before = draft.after.brought.len();
        let goes_up = from.direction == Direction::Down;
        let mut entries: Vec<_> = stretch.into_iter().flat_map(|batch| batch.entries).collect();
        entries.sort_by_key(|(pos, _)| *pos);
        for (pos, entry) in entries {
            if let Some((code, text)) = self.not_to_be_taken(from, &entry, draft, store)? {
                self.refuse(from.link, code, text);
                // Nor what followed: its cursor would pass what has been refused.
                let other = |intent: &Intent| !matches!(intent, Intent::Receive(s, _) if s.link == from.link);
                self.intents.retain(other);
                return Ok(());
            }
            let src = Position { segment, pos };
            let Some(known) = self.append(entry, Some(src), goes_up, draft, store)? else {
                draft.after.brought.push((from.link, lane, src));
                continue;
            };
            if goes_up && let Some(of) = self.row_from_above(&known, draft, store)? {
                self.open_segment(draft);
                draft.offer(of, Offered::Parent);
                draft.after.last[lane as usize] = draft.after.tip;
            }
        }
        let at = Position { segment, pos };
        let brought = draft.after.brought.len() > before;
        draft.ops.push(Op::Read { lane, cursor: Cursor { at, chain: Some(chain) }, brought });
        draft.after.acks.insert((from.link, lane), at);
        draft.after.received.insert(segment);
        if goes_up && !self.is_root() {
            let mark = Mark { lane, src: at, seq: draft.after.last[lane as usize] };
            draft.ops.push(Op::Mark(mark));
            draft.after.new_marks.push(mark);
        }
        Ok(())
    }

    /// The row of an entry that has come from above and not from the root: it may be on its way there, and nobody tells this
    /// node when it has arrived. So when a child brings it as well, and waits to hear of it, it goes up once more.
    fn row_from_above(
        &self,
        entry: &Entry,
        draft: &Draft,
        store: &impl Store,
    ) -> Result<Option<Seq>, StoreError> {
        let key = (entry.record().clone(), entry.change_hash());
        if let Some(row) = draft.from_above.get(&key) {
            return Ok(Some(*row).filter(|_| self.place().depth() > 2));
        }
        if self.is_root() || !store.has(&key.0, &key.1)? {
            return Ok(None);
        }
        for row in store.rows_of(&key.0)? {
            if store.entry(row)?.is_none_or(|known| known.change_hash() != key.1) {
                continue;
            }
            let Some(sender) = sender(entry.lane(), row, store)? else { return Ok(None) };
            let own = self.info().place.org();
            let knows = |sender: NodeInfo| {
                sender.role == Role::Root || self.places.has_stood_within(sender.place.org(), own)
            };
            return Ok(Some(row).filter(|_| !sender.is_some_and(knows)));
        }
        Ok(None)
    }

    /// Why an entry may not be taken from whoever brings it: what is issued lacks its signature, what a child brings is not
    /// for it to bring. None when it may.
    pub(super) fn not_to_be_taken(
        &self,
        from: &Sender,
        entry: &Entry,
        draft: &Draft,
        store: &impl Store,
    ) -> Result<Option<(u16, String)>, StoreError> {
        if entry.secrecy() > from.allowed {
            return Ok(Some(secret(&from.place, entry)));
        }
        if entry.grants().is_err()
            || (entry.is_signed_by_its_author() && !self.is_signed(from, entry, store)?)
        {
            return Ok(Some(not_signed(&from.place, entry)));
        }
        if entry.record().issuer().is_some() {
            return Ok(None);
        }
        let may = from.direction == Direction::Up || self.may_bring(&from.place, entry, draft, store)?;
        Ok((!may).then(|| outside(&from.place, entry.home())))
    }

    /// Whether the author of an entry has signed it and may speak for the home that it names. Of an entry of an issued record
    /// it does not matter then who brings it: nobody between the issuer and this node can have changed it. A grant from above
    /// may be of a home of which this node does not know where it stands; those above have asked.
    fn is_signed(&self, from: &Sender, entry: &Entry, store: &impl Store) -> Result<bool, StoreError> {
        let Some((author, info)) = store.announcement(entry.origin())? else { return Ok(false) };
        let signed = entry.signature().is_some_and(|signature| {
            self.identity.verify_issued(&author, &entry.statement(), signature).is_ok()
        });
        let is_granted_above = from.direction == Direction::Up && entry.record().issuer().is_none();
        let may_speak = is_granted_above || self.places.has_stood_within(entry.home(), info.place.org());
        Ok(signed && may_speak)
    }

    /// Whether a child may bring this entry: its author may speak for the home that it names, and the record has
    /// a home, an old or a new one, in the child's part of the tree. To be asked when all runs of the stretch are
    /// announced and all entries before this one are drafted.
    fn may_bring(
        &self,
        child: &OrgPath,
        entry: &Entry,
        draft: &Draft,
        store: &impl Store,
    ) -> Result<bool, StoreError> {
        let author = store.announcement(entry.origin())?;
        if !author.is_some_and(|(_, info)| self.places.has_stood_within(entry.home(), info.place.org())) {
            return Ok(false);
        }
        if self.places.has_come_through(entry.home(), child.org()) {
            return Ok(true);
        }
        let homes = match draft.homes.get(entry.record()) {
            Some(homes) => homes.clone(),
            None => store.homes(entry.record())?,
        };
        Ok(homes.iter().any(|home| self.places.has_come_through(home, child.org())))
    }

    /// Appends an entry, unless the store or this commit has it: then it is given back.
    pub(super) fn append(
        &mut self,
        entry: Entry,
        src: Option<Position>,
        goes_up: bool,
        draft: &mut Draft,
        store: &impl Store,
    ) -> Result<Option<Entry>, StoreError> {
        let key = (entry.record().clone(), entry.change_hash());
        if draft.added.contains(&key) || store.has(&key.0, &key.1)? {
            return Ok(Some(entry));
        }
        self.open_segment(draft);
        let gained = self.settle_home(&entry, draft, store)?;
        if gained.is_some() {
            draft.ops.push(Op::AddHome(entry.record().clone(), entry.home().clone()));
            draft.after.scope_grows = true;
        }
        let opens = self.open_grants(&entry, draft, store)?;
        draft.after.tip += 1;
        let degree = entry.secrecy();
        let mut before = None;
        if degree != Secrecy::None {
            let marked = Self::marked_before(&entry, draft, store)?;
            if degree > marked {
                before = src.is_none().then(|| draft.rows_so_far(&key.0, store)).transpose()?;
                draft.marked.insert((key.0.clone(), entry.origin().author().to_vec()), degree);
            }
            let known = draft.secrecy.entry(key.0.clone()).or_default();
            *known = degree.max(*known);
        }
        if goes_up && degree <= self.allowed_up() {
            draft.after.last[entry.lane() as usize] = draft.after.tip;
        }
        draft.rows.entry(key.0.clone()).or_default().push(draft.after.tip);
        let held_for = draft.held_for(&key.0);
        if key.0.issuer().is_none() {
            self.purge_late(&key.0, draft);
        }
        if !goes_up {
            draft.from_above.insert(key.clone(), draft.after.tip);
            // Whoever sent it may not have seen yet that a grant has ended; what is an order's doing is looked at as a whole.
            if key.0.issuer().is_none() && (!self.is_hub() || self.places.orders().is_empty()) {
                self.leave(&key.0, false, draft);
            }
        }
        draft.names(&entry);
        let fresh = &mut draft.after.fresh;
        fresh.rows[entry.lane() as usize] += 1;
        fresh.homes.extend(held_for);
        fresh.for_all |= key.0.issuer().is_some();
        let record = key.0.clone();
        draft.added.insert(key);
        draft.bytes += entry.encoded_len();
        let (home, lane, row) = (entry.home().clone(), entry.lane(), draft.after.tip);
        let ends = entry.grants().unwrap_or_default();
        draft.ops.push(Op::Append { entry, src, at: draft.at });
        // After the entry that makes the record theirs, so that they could give it back to us in this order.
        for of in gained.into_iter().flatten() {
            draft.offer(of, Offered::Home(home.clone()));
        }
        for (to, rows) in opens {
            self.offer_whole(&record, rows, &to, Gained::Grant, draft, store)?;
        }
        self.end_grants(&record, row, ends, draft, store)?;
        if let Some(before) = before {
            self.follow_the_mark((&record, lane), degree, before, draft, store)?;
        }
        Ok(None)
    }

    /// The first row of a run opens its segment; the announcement is durable with it.
    pub(super) fn open_segment(&mut self, draft: &mut Draft) {
        if draft.after.live.is_some() {
            return;
        }
        let run = draft.after.run;
        let segments = draft.after.segments.get_or_insert_with(|| self.segments.clone());
        let above = segments.last();
        let parent =
            above.map(|above| Position { segment: above.incarnation, pos: draft.after.tip - above.base });
        let segment = Segment { incarnation: run, base: draft.after.tip, parent };
        segments.push(segment);
        draft.ops.push(Op::OpenSegment(segment));
        self.announce_own(segment, draft);
        draft.after.live = Some(run);
    }

    /// Signs the announcement of a segment of this node's own, and tells all neighbours when it is durable.
    fn announce_own(&self, segment: Segment, draft: &mut Draft) {
        let announcement = self.identity.announce(segment.incarnation, segment.parent);
        draft.ops.push(Op::Announce(announcement.clone(), self.info().clone()));
        draft.after.announced.push(announcement);
    }

    /// Whether the entry gives its record a home; then the rows before it, which are to be offered there.
    fn settle_home(
        &self,
        entry: &Entry,
        draft: &mut Draft,
        store: &impl Store,
    ) -> Result<Option<Vec<Seq>>, StoreError> {
        let record = entry.record();
        let homes = match draft.homes.entry(record.clone()) {
            Slot::Occupied(known) => known.into_mut(),
            Slot::Vacant(slot) => slot.insert(store.homes(record)?),
        };
        if homes.contains(entry.home()) {
            return Ok(None);
        }
        if let Some(first) = homes.first() {
            draft.after.two_homes.push((record.clone(), [first.clone(), entry.home().clone()]));
        }
        homes.push(entry.home().clone());
        draft.rows_so_far(record, store).map(Some)
    }

    /// Gives the forked segment, and all after it, new names: their rows stay where they are.
    fn rename_from(&mut self, forked: Incarnation, draft: &mut Draft) {
        let mut segments = draft.after.segments.clone().unwrap_or_else(|| self.segments.clone());
        let Some(first) = segments.iter().position(|s| s.incarnation == forked) else {
            if forked == draft.after.run && draft.after.live.is_none() {
                self.rename_run(draft);
            }
            return;
        };
        let mut renames = Vec::new();
        for index in first..segments.len() {
            let old = segments[index];
            let name = self.identity.mint();
            let above = index.checked_sub(1).map(|above| segments[above]);
            let parent =
                above.map(|above| Position { segment: above.incarnation, pos: old.base - above.base });
            segments[index] = Segment { incarnation: name, base: old.base, parent };
            self.announce_own(segments[index], draft);
            renames.push((old.incarnation, segments[index]));
            if draft.after.live == Some(old.incarnation) {
                draft.after.live = Some(name);
                draft.after.run = name;
            }
        }
        draft.after.renamed = true;
        draft.after.segments = Some(segments);
        draft.ops.push(Op::RenameSegments(renames));
        self.effects.push_back(Effect::Alert(Alert::Forked { segment: forked }));
    }

    /// A run that has not written anything takes another name. What has been made under the old one and is still to
    /// be written keeps its author.
    fn rename_run(&mut self, draft: &mut Draft) {
        let parent = self.position(self.tip);
        draft.ops.push(Op::Announce(self.identity.announce(draft.after.run, parent), self.info().clone()));
        draft.after.run = self.identity.mint();
        draft.after.renamed = true;
        self.effects.push_back(Effect::Alert(Alert::Forked { segment: self.run }));
    }

    /// The commit is durable: only now is anybody told.
    pub(super) fn committed(&mut self, store: &impl Store, now: Now) -> Result<(), StoreError> {
        let after = self.committing.take().expect("a commit was under way");
        let before = std::mem::replace(&mut self.tip, after.tip);
        if self.tip > before {
            self.fresh.push_back(Fresh { before, upto: self.tip, ..after.fresh });
            self.fresh.drain(..self.fresh.len().saturating_sub(FRESH_MAX));
        }
        self.last = after.last;
        if let Some(segments) = after.segments {
            self.segments = segments;
        }
        self.live = after.live;
        self.run = after.run;
        self.bundle_is_durable(&after.brought);
        for (org, way, upto) in after.allowed {
            self.allowed.allow(org, way, upto);
        }
        after.lost.into_iter().for_each(|link| self.say_lost(link));
        if let Some((began, doubt)) = after.doubt {
            self.doubt_ends(began, doubt);
        }
        self.gain = after.gain;
        if after.purge != self.purge {
            self.purge = after.purge;
            self.tell_what_is_forgotten();
        }
        self.grant_end = if after.grants_ended { store.next_grant_end()? } else { after.grant_end };
        if !after.seeks.is_empty() {
            self.seeks.extend(after.seeks);
            self.ask_around();
        }
        after.unheard.into_iter().for_each(|record| self.unheard.wait(record, now));
        if !after.leaving.is_empty() {
            after.leaving.iter().for_each(|record| self.unheard.stop(record));
            (self.leaving, self.leaving_waits) = (true, None);
        }
        self.marks.extend(after.new_marks);
        self.healed(after.healed);
        let heard: BTreeSet<_> = after.acks.keys().map(|(link, _)| *link).collect();
        for ((link, lane), at) in after.acks {
            if let Some(state) = self.links.get_mut(&link) {
                state.kept[lane as usize] = Some(at);
                self.send(link, Frame::Ack(lane, at));
            }
        }
        self.effects.extend(after.written.into_iter().map(Effect::Written));
        let others = after.two_homes.len().saturating_sub(1);
        if let Some((record, homes)) = after.two_homes.into_iter().next() {
            self.effects.push_back(Effect::Alert(Alert::TwoHomes { record, homes, others }));
        }
        self.meet_rivals_anew(&after.brought);
        if after.renamed {
            let links: Vec<_> = self.links.keys().copied().collect();
            links.into_iter().for_each(|link| self.hang_up(link));
        }
        self.tell_of_runs(&after.announced);
        if after.revoked {
            self.apply_revocations(store)?;
        }
        self.follow(after.ordered);
        self.prune_marks();
        after.repaired.into_iter().for_each(|(link, count)| self.repaired(link, count));
        self.contents_are_durable(after.contents, after.named, store, now)?;
        if after.scope_grows {
            self.leaving_is_known();
            self.scope_has_grown(store, now)?;
        }
        let links: Vec<_> = self.links.keys().copied().collect();
        for link in links {
            self.go_on(link, store, now)?;
        }
        heard.into_iter().for_each(|link| self.send_receipts(link));
        self.pass_on_root();
        Ok(())
    }

    /// New entries have come on one link. Another machine of the same name that seems to have them, because it has rows at
    /// their places, has not sent them: it is met anew, and told so.
    fn meet_rivals_anew(&mut self, brought: &[(LinkId, Lane, Position)]) {
        let covers = |link: &&Link| {
            let Some(lineage) = &link.lineage else { return false };
            let of_node = |src: Position| src.segment.is_of(link.peer.node);
            let mut others = brought.iter().filter(|(by, _, src)| *by != link.id && of_node(*src));
            others.any(|(_, lane, src)| lineage[*lane as usize].covers(*src))
        };
        let rivals: Vec<_> = self.links.values().filter(covers).map(|link| link.id).collect();
        rivals.into_iter().for_each(|link| self.hang_up(link));
    }

    fn tell_of_runs(&mut self, announced: &[Announcement]) {
        let links: Vec<_> = self.links.values().filter(|l| l.hello.is_some()).map(|l| l.id).collect();
        for link in links {
            for announcement in announced {
                self.send(link, Frame::Announce(without_chain(announcement)));
            }
        }
    }

    fn apply_revocations(&mut self, store: &impl Store) -> Result<(), StoreError> {
        let all = store.revocations()?;
        self.revocations = revocation_digest(&all);
        let links: Vec<_> =
            self.links.values().map(|link| (link.id, link.stranger, link.chain.clone())).collect();
        for (link, stranger, chain) in links {
            match self.identity.admit(&chain) {
                // Those to whom HELLO was not said yet hear of it then.
                Ok(()) if stranger => {}
                Ok(()) => self.send_revocations(link, &all),
                Err(refusal) => self.refuse(link, refusal.code(), refusal.to_string()),
            }
        }
        Ok(())
    }

    /// Of the marks that the root has passed only the last of each segment is still of use; of the others at most
    /// [`MARKS_MAX`] are kept.
    fn prune_marks(&mut self) {
        let mut stale = Vec::new();
        let mut groups: BTreeMap<(Lane, Incarnation), Vec<Mark>> = BTreeMap::new();
        for mark in &self.marks {
            groups.entry((mark.lane, mark.src.segment)).or_default().push(*mark);
        }
        for ((lane, _), marks) in groups {
            let passed = marks.partition_point(|mark| mark.seq <= self.claims.of(Frontier::Root, lane));
            stale.extend(&marks[..passed.saturating_sub(1)]);
            let open = &marks[passed..];
            if open.len() > MARKS_MAX {
                stale.extend(open[..open.len() - 1].iter().step_by(2));
            }
        }
        for mark in stale {
            self.marks.remove(&mark);
            self.stale_marks.push(mark);
        }
    }
}
