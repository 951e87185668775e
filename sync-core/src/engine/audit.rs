//! Audit: two neighbours compare what they hold, and give each other what is lacking.
//!
//! Compared are the entries whose home lies in the child's part of the tree: both ends can tell. Whoever begins asks
//! and compares; the other only answers. First what the digests come to: nearly always that was all. Then the entries
//! of rows that a check has found damaged, by name; then range by range where the two differ; then what either side
//! lacks. What always holds: one question is under way at a time, and none while anything else is to be done on the
//! link; nothing is deleted; an entry is checked as one of a batch is, and goes only to who may hold it. What changes
//! meanwhile makes a comparison useless and harms nothing, because a repair is idempotent.
//!
//! The rows themselves are read by the host ([`Effect::Survey`]), so that nobody waits for that.

use std::collections::BTreeSet;

use super::*;
use crate::{
    audit::{Part, Prefix, Range, Short},
    id::{ChangeHash, RecordId},
    wire::{LOOK_MAX, REPAIR_MAX_RAW_BYTES, WANT_MAX, Want},
};

/// What an audit has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audited {
    /// One of the two has something else to do.
    Busy,
    /// It is done.
    Done {
        /// Entries of the child's part of the tree here, when it began.
        entries: u64,
        /// Entries that were lacking here, and are durable now.
        here: u64,
        /// Entries that were lacking there, and are durable now.
        there: u64,
        /// Entries that one of the two has, and could not give.
        missed: u64,
    },
}

/// What whoever has begun an audit waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    /// Until there is nothing else to do on the link.
    Quiet,
    Total,
    Survey,
    Ranges,
    Entries,
    /// Until what has come is durable.
    Disk,
    Receipt,
}

/// An audit, at the side that has begun it.
#[derive(Debug, Clone)]
pub(crate) struct Audit {
    began: Millis,
    waits: Waits,
    entries: u64,
    theirs: Digest,
    named: Vec<(RecordId, ChangeHash)>,
    summary: Option<Summary>,
    look: Vec<Prefix>,
    want: Vec<Short>,
    give: Vec<Seq>,
    gave: Vec<Seq>,
    /// What was asked for last.
    looking: Vec<Prefix>,
    wanting: Want,
    here: u64,
    there: u64,
    missed: u64,
}

/// An audit, at the side that answers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answering {
    summary: Option<Summary>,
    /// What is to be answered when the rows are read.
    looking: Option<Vec<Prefix>>,
    /// Entries of a repair are on their way to the disk.
    busy: bool,
}

impl<I: Identity> Engine<I> {
    /// What the readable entries of the child's part of the tree come to that may leave, and do not wait for their lane.
    fn total(&self, link: LinkId, store: &impl Store) -> Result<Digest, StoreError> {
        let mut total = Digest::default();
        for (home, stored) in store.digests()? {
            if self.is_compared(link, &home) {
                total.merge(stored.without(self.missing.get(&home).copied().unwrap_or_default()));
            }
        }
        let waiting = self.waiting_rows(link, store)?;
        let secret = self.secret_rows_over(link, store)?;
        for row in secret.union(&waiting).copied() {
            if let Some(entry) = store.entry(row)?.filter(|entry| self.is_compared(link, entry.home())) {
                total.remove(entry.hash());
            }
        }
        Ok(total)
    }

    fn is_compared(&self, link: LinkId, home: &OrgId) -> bool {
        let Some(state) = self.links.get(&link) else { return false };
        let child = match state.direction {
            Direction::Up => self.place(),
            Direction::Down => &state.peer.place,
        };
        self.places.is_within(home, child)
    }

    fn survey(&mut self, link: LinkId, store: &impl Store) -> Result<(), StoreError> {
        let homes = store.digests()?.into_iter().map(|(home, _)| home);
        let homes = homes.filter(|home| self.is_compared(link, home)).collect();
        self.effects.push_back(Effect::Survey(link, homes, self.allowed_over(link)));
        Ok(())
    }

    /// Whether nothing else is to be done on a link.
    fn is_quiet(&self, link: LinkId) -> bool {
        let quiet = |state: &Link| {
            state.is_settled()
                && state.is_idle()
                && state.held.is_empty()
                && state.stretch.iter().all(Vec::is_empty)
        };
        self.committing.is_none() && self.intents.is_empty() && self.links.get(&link).is_some_and(quiet)
    }

    /// Begins an audit.
    pub(super) fn begin_audit(
        &mut self,
        link: LinkId,
        store: &impl Store,
        now: Now,
    ) -> Result<(), StoreError> {
        if !self.is_quiet(link) || self.links[&link].audit.is_some() {
            self.effects.push_back(Effect::Audited(link, Audited::Busy));
            return Ok(());
        }
        let named = self.named_for(link, store)?;
        let state = self.links.get_mut(&link).expect("it is quiet");
        state.audit = Some(Box::new(Audit {
            began: now.mono,
            waits: Waits::Total,
            entries: 0,
            theirs: Digest::default(),
            named,
            summary: None,
            look: vec![Prefix::ALL],
            want: Vec::new(),
            give: Vec::new(),
            gave: Vec::new(),
            looking: Vec::new(),
            wanting: Want::default(),
            here: 0,
            there: 0,
            missed: 0,
        }));
        self.send(link, Frame::Audit);
        Ok(())
    }

    /// The damaged rows of which the neighbour may know the entries: all names of records go up, and only its own down.
    fn named_for(&self, link: LinkId, store: &impl Store) -> Result<Vec<(RecordId, ChangeHash)>, StoreError> {
        let mut named = Vec::new();
        for damage in self.damaged.values() {
            if let (Some(record), Some(change)) = (&damage.record, damage.change)
                && self.gives(link, record, store)?
                && store.secrecy(record)? <= self.allowed_over(link)
            {
                named.push((record.clone(), change));
            }
        }
        Ok(named)
    }

    /// Whether the neighbour is asked for a record: what is only open to a child that might have changed it is not taken back.
    fn gives(&self, link: LinkId, record: &RecordId, store: &impl Store) -> Result<bool, StoreError> {
        self.is_of(link, record, &store.homes(record)?)
    }

    fn may_hold(&self, link: LinkId, record: &RecordId, store: &impl Store) -> Result<bool, StoreError> {
        self.is_of(link, record, &store.held_for(record)?)
    }

    fn is_of(&self, link: LinkId, record: &RecordId, orgs: &[OrgId]) -> Result<bool, StoreError> {
        let Some(state) = self.links.get(&link) else { return Ok(false) };
        let issued = record.issuer().is_some();
        let reaches = |org| self.places.reach(org, issued, &state.peer.place);
        Ok(state.direction == Direction::Up || orgs.iter().any(reaches))
    }

    /// A frame of an audit has come.
    pub(super) fn on_audit(
        &mut self,
        link: LinkId,
        frame: Frame,
        store: &impl Store,
    ) -> Result<(), StoreError> {
        let waits = self.links.get(&link).and_then(|state| state.audit.as_ref()).map(|audit| audit.waits);
        let answers = self.links.get(&link).is_some_and(|state| state.answering.is_some());
        match (frame, waits) {
            (Frame::Audit, _) => self.on_begun(link, store),
            (Frame::Look(prefixes), _) if answers => self.on_look(link, prefixes, store),
            (Frame::Want(want), _) if answers => self.on_want(link, want, store),
            (Frame::Total(total), Some(Waits::Total)) => self.on_total(link, total, store),
            (Frame::Ranges(ranges), Some(Waits::Ranges)) => {
                self.on_ranges(link, ranges);
                Ok(())
            }
            (Frame::Repair(entries), Some(Waits::Entries)) => {
                self.on_entries(link, entries);
                Ok(())
            }
            (Frame::Repair(entries), _) if answers => {
                self.on_given(link, entries);
                Ok(())
            }
            (Frame::Repaired(count), Some(Waits::Receipt)) => {
                let audit = self.audit_of(link);
                (audit.waits, audit.there) = (Waits::Quiet, audit.there.saturating_add(count));
                Ok(())
            }
            _ => {
                let text = "the neighbour said something of an audit that nobody had asked for".to_owned();
                self.refuse(link, refusal::PROTOCOL, text);
                Ok(())
            }
        }
    }

    fn audit_of(&mut self, link: LinkId) -> &mut Audit {
        let state = self.links.get_mut(&link).expect("the caller has found it");
        state.audit.as_mut().expect("the caller has found it")
    }

    fn on_begun(&mut self, link: LinkId, store: &impl Store) -> Result<(), StoreError> {
        let takes = self.is_quiet(link) && self.links[&link].audit.is_none();
        let total = if takes { Some(self.total(link, store)?) } else { None };
        let state = self.links.get_mut(&link).expect("the caller has found it");
        // A survey that is under way for the last one is of use for this one.
        let looking = state.answering.take().filter(|last| last.looking.is_some());
        state.answering = takes.then(|| looking.unwrap_or_default());
        self.send(link, Frame::Total(total));
        Ok(())
    }

    fn on_look(&mut self, link: LinkId, prefixes: Vec<Prefix>, store: &impl Store) -> Result<(), StoreError> {
        let state = self.links.get_mut(&link).expect("the caller has found it");
        let answering = state.answering.as_mut().expect("the caller has found it");
        let Some(summary) = &answering.summary else {
            if answering.looking.replace(prefixes).is_none() {
                self.survey(link, store)?;
            }
            return Ok(());
        };
        let ranges = prefixes.into_iter().map(|prefix| summary.range(prefix)).collect();
        self.send(link, Frame::Ranges(ranges));
        Ok(())
    }

    /// The host has read the rows.
    pub(super) fn surveyed(
        &mut self,
        link: LinkId,
        summary: Summary,
        store: &impl Store,
    ) -> Result<(), StoreError> {
        let waiting = self.waiting_rows(link, store)?;
        let summary = if waiting.is_empty() { summary } else { summary.without(&waiting) };
        let Some(state) = self.links.get_mut(&link) else { return Ok(()) };
        if let Some(audit) = state.audit.as_mut().filter(|audit| audit.waits == Waits::Survey) {
            (audit.summary, audit.waits) = (Some(summary), Waits::Quiet);
            return Ok(());
        }
        let Some(answering) = &mut state.answering else { return Ok(()) };
        answering.summary = Some(summary);
        match answering.looking.take() {
            Some(prefixes) => self.on_look(link, prefixes, store),
            None => Ok(()),
        }
    }

    fn on_total(
        &mut self,
        link: LinkId,
        total: Option<Digest>,
        store: &impl Store,
    ) -> Result<(), StoreError> {
        let Some(theirs) = total else {
            self.links.get_mut(&link).expect("the caller has found it").audit = None;
            self.effects.push_back(Effect::Audited(link, Audited::Busy));
            return Ok(());
        };
        let entries = self.total(link, store)?.count;
        let audit = self.audit_of(link);
        (audit.waits, audit.theirs, audit.entries) = (Waits::Quiet, theirs, entries);
        Ok(())
    }

    /// Both sides of some ranges are known now.
    fn on_ranges(&mut self, link: LinkId, ranges: Vec<Range>) {
        let audit = self.audit_of(link);
        audit.waits = Waits::Quiet;
        let looking = std::mem::take(&mut audit.looking);
        if ranges.len() != looking.len() {
            let text = "the neighbour left out a part of what it was asked in an audit".to_owned();
            return self.refuse(link, refusal::PROTOCOL, text);
        }
        let Some(summary) = &audit.summary else { return };
        for (prefix, range) in looking.into_iter().zip(ranges) {
            match range {
                Range::Hashes(theirs) => {
                    let theirs: BTreeSet<_> = theirs.into_iter().collect();
                    audit.give.extend(
                        summary.rows(prefix).filter(|(hash, _)| !theirs.contains(hash)).map(|(_, row)| row),
                    );
                    audit.want.extend(theirs.into_iter().filter(|hash| summary.find(*hash).is_none()));
                }
                Range::Parts(theirs) => {
                    let own = summary.parts(prefix);
                    for nibble in (0..16).filter(|n| theirs[usize::from(*n)] != own[usize::from(*n)]) {
                        let Some(child) = prefix.child(nibble) else { continue };
                        if theirs[usize::from(nibble)] == Part::default() {
                            audit.give.extend(summary.rows(child).map(|(_, row)| row));
                        } else {
                            audit.look.push(child);
                        }
                    }
                }
            }
        }
    }

    /// Finds what is wanted, as far as it fits into a frame.
    fn on_want(&mut self, link: LinkId, want: Want, store: &impl Store) -> Result<(), StoreError> {
        let answering = self.links.get(&link).and_then(|state| state.answering.as_ref());
        let summary = answering.and_then(|answering| answering.summary.as_ref());
        let mut rows: BTreeSet<Seq> =
            want.hashes.iter().filter_map(|hash| summary.and_then(|known| known.find(*hash))).collect();
        for (record, change) in &want.named {
            if store.has(record, change)? {
                for row in store.rows_of(record)? {
                    if store.entry(row)?.is_some_and(|entry| entry.change_hash() == *change) {
                        rows.insert(row);
                    }
                }
            }
        }
        let mut rows = rows.into_iter().collect();
        let (entries, _) = self.take_entries(link, &mut rows, store)?;
        self.send(link, Frame::Repair(entries));
        Ok(())
    }

    /// The entries of the first of these rows that fit into a frame, and those rows; the others are left.
    fn take_entries(
        &self,
        link: LinkId,
        rows: &mut Vec<Seq>,
        store: &impl Store,
    ) -> Result<(Vec<Entry>, Vec<Seq>), StoreError> {
        let (mut entries, mut bytes, mut taken) = (Vec::new(), 0, 0);
        let (allowed, secret) = (self.allowed_over(link), self.secret_rows_over(link, store)?);
        self.marks_first(rows, allowed, store)?;
        for row in rows.iter() {
            let entry = store.entry(*row)?.filter(|_| !secret.contains(row));
            bytes += entry.as_ref().map_or(0, Entry::encoded_len);
            if (bytes > REPAIR_MAX_RAW_BYTES && !entries.is_empty()) || entries.len() == WANT_MAX {
                break;
            }
            taken += 1;
            if let Some(entry) = entry
                && entry.secrecy() <= allowed
                && self.may_hold(link, entry.record(), store)?
            {
                entries.push(entry);
            }
        }
        Ok((entries, rows.drain(..taken).collect()))
    }

    /// What was asked for has come. What has not is asked for again, as long as anything comes.
    fn on_entries(&mut self, link: LinkId, entries: Vec<Entry>) {
        let audit = self.audit_of(link);
        let wanting = std::mem::take(&mut audit.wanting);
        let came =
            |hash: &Short| Summary::new(entries.iter().map(|entry| (entry.hash(), 0))).find(*hash).is_some();
        let hashes = wanting.hashes.into_iter().filter(|hash| !came(hash));
        let has_come = |(record, change): &(RecordId, ChangeHash)| {
            entries.iter().any(|entry| entry.record() == record && entry.change_hash() == *change)
        };
        let named = wanting.named.into_iter().filter(|name| !has_come(name));
        if entries.is_empty() {
            audit.missed += (hashes.count() + named.count()) as u64;
            audit.waits = Waits::Quiet;
            return;
        }
        audit.want.extend(hashes);
        audit.named.extend(named);
        audit.waits = Waits::Disk;
        self.links.get_mut(&link).expect("the caller has found it").repair = Some(entries);
    }

    /// Whoever has begun an audit gives what is lacking here.
    fn on_given(&mut self, link: LinkId, entries: Vec<Entry>) {
        let state = self.links.get_mut(&link).expect("the caller has found it");
        let answering = state.answering.as_mut().expect("the caller has found it");
        if std::mem::replace(&mut answering.busy, true) {
            let text = "the neighbour sends more in an audit than it may before it is answered".to_owned();
            return self.refuse(link, refusal::PROTOCOL, text);
        }
        state.repair = Some(entries);
    }

    /// Whatever has become possible of an audit: entries can be kept of which all runs and places are known now, or the
    /// next question can be asked.
    pub(super) fn audit_goes_on(&mut self, link: LinkId, store: &impl Store) -> Result<(), StoreError> {
        let repair = self.links.get_mut(&link).and_then(|state| state.repair.take());
        if let Some(entries) = repair {
            let from = self.sender_of(link);
            let mut known = self.places_are_known(link, entries.iter());
            for run in entries.iter().map(Entry::origin).collect::<BTreeSet<_>>() {
                known &= self.announced(link, run, store)?.is_some();
            }
            match self.links.get_mut(&link) {
                Some(_) if known => self.intents.push_back(Intent::Repair(from, entries)),
                Some(state) => state.repair = Some(entries),
                None => return Ok(()),
            }
        }
        let audit = self.links.get(&link).and_then(|state| state.audit.as_ref());
        if audit.is_some_and(|audit| audit.waits == Waits::Quiet) && self.is_quiet(link) {
            self.ask_next(link, store)?;
        }
        Ok(())
    }

    fn ask_next(&mut self, link: LinkId, store: &impl Store) -> Result<(), StoreError> {
        let own = self.total(link, store)?;
        let audit = self.audit_of(link);
        if !audit.named.is_empty() {
            let rest = audit.named.split_off(audit.named.len().min(WANT_MAX));
            let named = std::mem::replace(&mut audit.named, rest);
            return self.ask_for(link, Want { named, hashes: Vec::new() });
        }
        if audit.summary.is_none() && own != audit.theirs {
            audit.waits = Waits::Survey;
            return self.survey(link, store);
        }
        if audit.summary.is_some() && !audit.look.is_empty() {
            let first = audit.look.len().saturating_sub(LOOK_MAX);
            audit.looking = audit.look.split_off(first);
            audit.waits = Waits::Ranges;
            let looking = audit.looking.clone();
            self.send(link, Frame::Look(looking));
            return Ok(());
        }
        if !audit.want.is_empty() {
            let rest = audit.want.split_off(audit.want.len().min(WANT_MAX));
            let hashes = std::mem::replace(&mut audit.want, rest);
            return self.ask_for(link, Want { named: Vec::new(), hashes });
        }
        audit.give.sort_unstable();
        let mut give = std::mem::take(&mut audit.give);
        while !give.is_empty() {
            let (entries, gave) = self.take_entries(link, &mut give, store)?;
            if !entries.is_empty() {
                let audit = self.audit_of(link);
                audit.gave.extend(gave);
                (audit.give, audit.waits) = (give, Waits::Receipt);
                self.send(link, Frame::Repair(entries));
                return Ok(());
            }
        }
        let state = self.links.get_mut(&link).expect("the caller has found it");
        let Audit { began, entries, gave, here, there, missed, .. } =
            *state.audit.take().expect("the caller has found it");
        if state.direction == Direction::Up {
            self.is_audited(began, gave);
        }
        self.effects.push_back(Effect::Audited(link, Audited::Done { entries, here, there, missed }));
        Ok(())
    }

    fn ask_for(&mut self, link: LinkId, want: Want) -> Result<(), StoreError> {
        let audit = self.audit_of(link);
        (audit.waits, audit.wanting) = (Waits::Entries, want.clone());
        self.send(link, Frame::Want(want));
        Ok(())
    }

    /// So many entries of a repair are durable: who has sent them hears it, or the next question is asked.
    pub(super) fn repaired(&mut self, link: LinkId, count: u64) {
        let Some(state) = self.links.get_mut(&link) else { return };
        if let Some(audit) = state.audit.as_mut().filter(|audit| audit.waits == Waits::Disk) {
            (audit.waits, audit.here) = (Waits::Quiet, audit.here + count);
        } else if let Some(answering) = &mut state.answering {
            answering.busy = false;
            self.send(link, Frame::Repaired(count));
        }
    }
}
