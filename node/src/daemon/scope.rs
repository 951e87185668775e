//! Where something is sent, and why, for people who ask. The rule itself is `sync_core::scope`'s: what is said here of a
//! record is what that rule says of a row of it. Not here: words, which are the CLI's.

use std::collections::BTreeSet;

use sync_core::{
    engine::Event,
    feed::Lineage,
    id::{OrgId, OrgPath, RecordId, Secrecy},
    scope::{
        Neighbour, Way,
        grant::{Granted, opened},
        wants,
    },
    store::{Head, Store, StoreError},
};

use super::core::{Core, Outcome};
use crate::{
    admin::{Destination, Explained, GrantLine, Home, Reason},
    clock,
    config::{Policy, Profile},
};

impl Core {
    /// Tells the engine what the profiles of `config.json` allow. Who has decided so is in the log of each start, also of policies.
    pub fn allow_what_is_decided(&mut self) -> Result<(), StoreError> {
        for Profile { with, by, up_to, decided_by, why } in &self.config.profiles {
            tracing::warn!(%with, ?by, ?up_to, decided_by, why, "what is secret may go to a neighbour and come from it");
        }
        for Policy { of, is, decided_by, why } in &self.config.policies {
            // Not which patients: whoever reads a log need not know who is among them.
            let kinds: Vec<_> = of.iter().map(|of| if of.contains('/') { "a patient" } else { of }).collect();
            tracing::warn!(?kinds, ?is, decided_by, why, "what is written here of these kinds is secret");
        }
        let profiles = self.config.allowed();
        self.engine.handle(Event::Profiles(profiles), &self.store, clock::now())
    }

    /// Where a record is sent.
    pub fn explain_record(&self, id: &RecordId) -> Outcome<Explained> {
        let rows = self.store.rows_of(id)?;
        let (homes, secrecy) = (self.store.homes(id)?, self.store.secrecy(id)?);
        let mut explained =
            self.explained(rows.len() as u64, id.issuer(), homes, &self.store.grants(id)?, secrecy);
        let secret = self.store.secret_rows()?.into_iter().filter(|(row, _)| rows.contains(row));
        let secret: Vec<_> = secret.map(|(_, degree)| degree).collect();
        self.hold_back(&mut explained, &secret);
        Ok(explained)
    }

    /// Where the records are sent that have this organization for their home.
    pub fn explain_org(&self, org: &OrgId) -> Outcome<Explained> {
        let digests = self.store.digests()?;
        let entries = digests.iter().find(|(home, _)| home == org).map_or(0, |(_, digest)| digest.count);
        let mut explained = self.explained(entries, None, vec![org.clone()], &[], Secrecy::None);
        self.hold_back(&mut explained, &self.secret_changes_of(org)?);
        for to in explained.neighbours.iter_mut().filter(|to| matches!(to.reason, Reason::NoHomeWithin)) {
            to.open = self.opened_of(org, &to.place)?;
        }
        Ok(explained)
    }

    /// How many records with this home are open to somebody at a place or below it.
    fn opened_of(&self, home: &OrgId, place: &OrgPath) -> Result<u64, StoreError> {
        let mut opened = BTreeSet::new();
        for to in self.store.grantees()? {
            if !self.engine.places().is_within(&to, place) {
                continue;
            }
            for record in self.store.open_to(&to)? {
                if self.store.homes(&record)?.contains(home) {
                    opened.insert(record);
                }
            }
        }
        Ok(opened.len() as u64)
    }

    /// Counts what of these degrees may not go where it would go otherwise.
    fn hold_back(&self, explained: &mut Explained, secret: &[Secrecy]) {
        let profiles = self.config.allowed();
        let wanted = |to: &&mut Destination| !matches!(to.reason, Reason::NoHomeWithin);
        for to in explained.neighbours.iter_mut().filter(wanted) {
            let allowed = self.engine.allowed_to(to.place.org());
            let held_back: Vec<_> = secret.iter().filter(|degree| **degree > allowed).collect();
            let by_bundle = profiles.allowed(to.place.org(), Way::Courier);
            to.held_back = held_back.len() as u64;
            to.by_bundle = held_back.iter().max().is_some_and(|most| **most <= by_bundle);
        }
    }

    /// The degrees of all secret changes of records that have this organization for a home.
    fn secret_changes_of(&self, org: &OrgId) -> Result<Vec<Secrecy>, StoreError> {
        let mut degrees = Vec::new();
        for (row, degree) in self.store.secret_rows()? {
            let Some(entry) = self.store.entry(row)? else { continue };
            if self.store.homes(entry.record())?.contains(org) {
                degrees.push(degree);
            }
        }
        Ok(degrees)
    }

    fn explained(
        &self,
        entries: u64,
        issuer: Option<OrgId>,
        homes: Vec<OrgId>,
        grants: &[Granted],
        secrecy: Secrecy,
    ) -> Explained {
        let places = self.engine.places();
        let own = &self.config.place;
        let (opened, issued) = (opened(grants).cloned().collect(), issuer.is_some());
        let head = Head { seq: 1, src: None, homes, opened, offered_to: None, issued, secrecy };
        let may_leave = |place: &OrgPath| secrecy <= self.engine.allowed_to(place.org());
        let up = own.parent().map(|place| {
            let sent = may_leave(&place);
            let reason = if sent { Reason::EverythingGoesUp } else { Reason::Secret };
            Destination { place, sent, reason, held_back: 0, open: 0, by_bundle: false }
        });
        // What belonged to a closed organization stands where its successor does, who is listed by its own name.
        let is_child =
            |(org, place): &(&OrgId, &OrgPath)| place.org() == *org && place.parent().as_ref() == Some(own);
        let children = places.all().filter(is_child).map(|(_, place)| place);
        let down = children.map(|child| {
            let is_for =
                |allowed| wants(&Neighbour::Down(child), &head, &Lineage::default(), places, allowed);
            let sent = is_for(self.engine.allowed_to(child.org()));
            let is_within = |all: &[OrgId]| all.iter().any(|org| places.is_within(org, child));
            let reason = match sent {
                false if is_for(Secrecy::TuyetMat) => Reason::Secret,
                false => Reason::NoHomeWithin,
                true if is_within(&head.homes) => Reason::HomeWithin,
                true if is_within(&head.opened) => Reason::OpenedWithin,
                true => Reason::IssuedAbove,
            };
            Destination { place: child.clone(), sent, reason, held_back: 0, open: 0, by_bundle: false }
        });
        let neighbours = up.into_iter().chain(down).collect();
        let home = |org: &OrgId| Home { org: org.clone(), place: places.of(org).cloned() };
        let grant = |Granted { grant, over }: &Granted| GrantLine {
            grant: grant.id.to_string(),
            to: grant.to.clone(),
            successor: places.successor(&grant.to).cloned(),
            until: grant.until,
            over: over.is_some(),
        };
        Explained {
            own: own.clone(),
            entries,
            issuer,
            secrecy,
            homes: head.homes.iter().map(home).collect(),
            grants: grants.iter().map(grant).collect(),
            neighbours,
        }
    }
}
