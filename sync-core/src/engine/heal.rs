//! Healing: what a check has found damaged, and how entries that come in an audit get back to where they stood.
//!
//! An entry belongs at a damaged row when the running hashes around the row come out with it, or, where these are not
//! known, when the table of changes names it there. What belongs nowhere and is not held is appended like any other.
//! What always holds: nothing is taken away from a store here but the excess of a digest that counts what never was.

use super::{commit::Draft, purge::ordered, *};
use crate::{
    audit::Harm,
    feed::{CHAIN_START, extend_chain},
};

impl<I: Identity> Engine<I> {
    /// The rows that the last check has found damaged, and nobody has healed since.
    pub fn damaged(&self) -> impl Iterator<Item = &Damage> {
        self.damaged.values()
    }

    /// A check of the store has been made. What is only misfiled is put right at once.
    pub(super) fn checked(&mut self, checkup: Checkup, store: &impl Store) -> Result<(), StoreError> {
        self.damaged.clear();
        self.missing = checkup.missing.into_iter().collect();
        for damage in checkup.damaged {
            let (row, entry) = (damage.row, store.entry(damage.row)?);
            match entry {
                Some(entry) if damage.harm == Harm::Misfiled => {
                    self.intents.push_back(Intent::Heal(row, entry));
                }
                // Healed since the check has passed it.
                Some(entry) if self.fits(row, entry.hash(), store)? == Some(true) => {
                    self.found(entry.home(), entry.hash());
                }
                _ => {
                    self.damaged.insert(row, damage);
                }
            }
        }
        if self.damaged.is_empty() {
            // Every row is sound, so it is the digests that are not.
            self.missing.retain(|_, less| *less != Digest::default());
            let wrong = std::mem::take(&mut self.missing);
            let recount = |(home, less)| Op::Recount { home, less };
            let ops: Vec<_> = wrong.into_iter().map(recount).collect();
            if !ops.is_empty() {
                self.intents.push_back(Intent::Folded(ops));
            }
        }
        Ok(())
    }

    fn found(&mut self, home: &OrgId, hash: EntryHash) {
        if let Some(missing) = self.missing.get_mut(home) {
            missing.remove(hash);
        }
    }

    /// Whether an entry with this hash stood at a row: the running hashes around it tell, if they are known.
    fn fits(&self, row: Seq, hash: EntryHash, store: &impl Store) -> Result<Option<bool>, StoreError> {
        let begins = |row: Seq| self.segments.iter().any(|segment| segment.base + 1 == row);
        let before = if begins(row) { Some(CHAIN_START) } else { store.chain(row - 1)? };
        let Some(before) = before else { return Ok(None) };
        let (here, stored) = (extend_chain(before, hash), store.chain(row)?);
        if stored == Some(here) {
            return Ok(Some(true));
        }
        let next = if begins(row + 1) { None } else { store.chain(row + 1)? };
        if let (Some(next), Some(entry)) = (next, store.entry(row + 1)?) {
            return Ok(Some(extend_chain(here, entry.hash()) == next));
        }
        Ok(stored.map(|_| false))
    }

    /// The damaged row at which this entry stood.
    fn damaged_row(&self, entry: &Entry, store: &impl Store) -> Result<Option<Seq>, StoreError> {
        for (row, damage) in &self.damaged {
            let of_record = damage.record.as_ref().is_none_or(|record| record == entry.record());
            let is_named = match damage.change {
                Some(change) if of_record && change == entry.change_hash() => true,
                Some(_) => continue,
                // It may have offered what stands elsewhere.
                None if store.has(entry.record(), &entry.change_hash())? => continue,
                None => false,
            };
            match self.fits(*row, entry.hash(), store)? {
                Some(true) => return Ok(Some(*row)),
                None if is_named => return Ok(Some(*row)),
                // The entry is as it was, and its running hash is not.
                _ if store.entry(*row)?.as_ref() == Some(entry) => return Ok(Some(*row)),
                _ => {}
            }
        }
        Ok(None)
    }

    /// The entries of a repair: what stood at a damaged row goes back there, what is not here is appended.
    pub(super) fn draft_repair(
        &mut self,
        from: &Sender,
        entries: Vec<Entry>,
        draft: &mut Draft,
        store: &impl Store,
    ) -> Result<(), StoreError> {
        let goes_up = from.direction == Direction::Down;
        let (mut heals, mut count) = (BTreeMap::new(), 0);
        for entry in entries {
            if let Some((code, text)) = self.not_to_be_taken(from, &entry, draft, store)? {
                self.refuse(from.link, code, text);
                return Ok(());
            }
            match self.damaged_row(&entry, store)? {
                Some(row) => {
                    heals.insert(row, entry);
                }
                None => {
                    // It came by the time when the neighbour's feed had been read up to here.
                    let link = self.links.get(&from.link);
                    let src = link.and_then(|link| link.reading[entry.lane() as usize]);
                    count += u64::from(self.append(entry, src, goes_up, draft, store)?.is_none());
                }
            }
        }
        count += heals.len() as u64;
        for (row, entry) in heals {
            self.draft_heal(row, entry, draft, store)?;
        }
        draft.after.repaired.push((from.link, count));
        Ok(())
    }

    /// Puts an entry back. Whoever its record belongs to as well may have passed the row over, or never been offered it.
    pub(super) fn draft_heal(
        &mut self,
        row: Seq,
        entry: Entry,
        draft: &mut Draft,
        store: &impl Store,
    ) -> Result<(), StoreError> {
        let own = entry.home().clone();
        let issued = entry.record().issuer().is_some();
        let others = store.held_for(entry.record())?.into_iter().filter(|home| issued || *home != own);
        let others: Vec<_> = others.collect();
        // What comes once more, in this commit or a later one, has nothing to heal; nor has what was only misfiled.
        let was_damaged = self.damaged.remove(&row).is_some();
        if was_damaged {
            draft.after.healed.push((own, entry.hash()));
        }
        if !issued {
            let (homes, grants) = (store.homes(entry.record())?, store.grants(entry.record())?);
            if self.is_elsewhere_by_order(&homes, &grants) {
                let order = ordered(&self.places, &homes, self.info().place.org());
                self.purge_from(row, order, draft);
            }
        }
        draft.bytes += entry.encoded_len();
        draft.touched.insert(entry.record().clone());
        draft.names(&entry);
        draft.ops.push(Op::Heal { row, entry, at: draft.at });
        for home in others.into_iter().filter(|_| was_damaged) {
            self.open_segment(draft);
            draft.offer(row, Offered::Home(home));
        }
        Ok(())
    }

    pub(super) fn healed(&mut self, healed: Vec<(OrgId, EntryHash)>) {
        healed.into_iter().for_each(|(home, hash)| self.found(&home, hash));
    }
}
