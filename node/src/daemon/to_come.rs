//! How much is still to come from each neighbour, and from everybody below a child, as each has said last. It is for people:
//! nothing hangs on it, and it is forgotten when the process ends.
//!
//! What a child says of itself with TO_COME goes on to the parent with BELOW, and what a hub says of those below it as well, so
//! the root knows it of all before it rearranges them. What always holds: a node is not believed about who is known to
//! stand elsewhere than below it; that there is nothing more is passed on at once, everything else at most once in
//! [`PASS_ON_EVERY`]; a parent that knows it already is not told again when a link comes back. Not here: how much there is (`sync_core::engine`).

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use sync_core::{
    engine::LinkId,
    id::{Incarnation, OrgId, OrgPath},
    scope::Places,
    session::Direction,
    wire::{BELOW_MAX, Frame},
};

use super::core::Core;

/// How often the parent is told another number of one organization, as long as it is not 0.
const PASS_ON_EVERY: Duration = Duration::from_secs(60);
/// Organizations of which a word is kept: a hub may name such as do not exist.
const ORGS_MAX: usize = 16_384;

/// The last words of all, and what the parent has been told of them.
#[derive(Default)]
pub(super) struct ToCome {
    words: BTreeMap<OrgId, u64>,
    /// The run of the parent that was told.
    parent: Option<Incarnation>,
    told: BTreeMap<OrgId, (u64, Instant)>,
}

impl ToCome {
    /// What an organization's node has said last, or who stands above it of it; none when nobody has since this process began.
    pub fn of(&self, org: &OrgId) -> Option<u64> {
        self.words.get(org).copied()
    }

    fn hears(&mut self, org: &OrgId, count: u64) {
        if self.words.len() < ORGS_MAX || self.words.contains_key(org) {
            self.words.insert(org.clone(), count);
        }
    }

    /// What this run of the parent is to be told now of those for whom this node speaks.
    fn news(
        &mut self,
        parent: Incarnation,
        is_below: impl Fn(&OrgId) -> bool,
        now: Instant,
    ) -> Vec<(OrgId, u64)> {
        if self.parent.replace(parent) != Some(parent) {
            self.told.clear();
        }
        let told = &self.told;
        let is_news = |(org, count): &(&OrgId, &u64)| match told.get(*org) {
            None => true,
            Some((before, at)) => {
                let ends_or_begins = (*before == 0) != (**count == 0);
                before != *count && (ends_or_begins || now.duration_since(*at) >= PASS_ON_EVERY)
            }
        };
        let news: Vec<_> = self
            .words
            .iter()
            .filter(is_news)
            .filter(|(org, _)| is_below(org))
            .map(|(org, count)| (org.clone(), *count))
            .collect();
        self.told.extend(news.iter().map(|(org, count)| (org.clone(), (*count, now))));
        news
    }
}

impl Core {
    /// Takes what a neighbour's frame says of what is still to come.
    pub(super) fn hear_what_is_to_come(&mut self, link: LinkId, frame: &Frame) {
        let Some(peer) = self.peers.get(&link) else { return };
        let (place, direction) = (&peer.info.place, peer.direction);
        match frame {
            // What it had said before is of another session.
            Frame::Hello(_) => self.to_come.hears(place.org(), 0),
            Frame::ToCome(count) => self.to_come.hears(place.org(), *count),
            Frame::Below(all) if direction == Direction::Down => {
                let places = self.engine.places();
                for (org, count) in all.iter().filter(|(org, _)| is_below(places, place, org)) {
                    self.to_come.hears(org, *count);
                }
            }
            _ => {}
        }
    }

    /// Tells the parent what is new of it, once its HELLO was taken.
    pub(super) fn pass_on_what_is_to_come(&mut self) {
        let mut parents = self.engine.links().filter(|link| link.direction == Direction::Up);
        let Some((link, run)) = parents.find_map(|link| Some((link.link, link.run?))) else { return };
        let Some(peer) = self.peers.get(&link) else { return };
        let (places, own) = (self.engine.places(), &self.config.place);
        let news = self.to_come.news(run, |org| is_below(places, own, org), Instant::now());
        for part in news.chunks(BELOW_MAX) {
            peer.outbox.send(Frame::Below(part.to_vec()));
        }
    }
}

/// Of whom a hub speaks, and is believed: whoever stands below it. Who has never written anything has not been heard of yet,
/// and is taken for one of those.
fn is_below(places: &Places, hub: &OrgPath, org: &OrgId) -> bool {
    !hub.has(org) && places.of(org).is_none_or(|place| place.is_within(hub))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hub_is_believed_about_those_below_it_alone() {
        let path = |text: &str| text.parse::<OrgPath>().unwrap();
        let mut places = Places::default();
        ["tw", "tw/hg", "tw/tq", "tw/hg/dv", "tw/tq/mv"]
            .iter()
            .for_each(|place| assert!(places.learn(&path(place))));
        let believed = |org: &str| is_below(&places, &path("tw/hg"), &OrgId::new(org).unwrap());
        assert_eq!(
            ["dv", "new", "mv", "tq", "hg", "tw"].map(believed),
            [true, true, false, false, false, false]
        );
    }

    #[test]
    fn a_parent_is_told_what_it_does_not_know() {
        let org = |name: &str| OrgId::new(name).unwrap();
        let (first, second) = (Incarnation([1; 16]), Incarnation([2; 16]));
        let (mut all, begin) = (ToCome::default(), Instant::now());
        let later = |seconds| begin + Duration::from_secs(seconds);
        let not_above = |org: &OrgId| org.as_str() != "tw";
        for (name, count) in [("dv", 36), ("mv", 0), ("tw", 7)] {
            all.words.insert(org(name), count);
        }
        assert_eq!(all.news(first, not_above, begin), [(org("dv"), 36), (org("mv"), 0)]);
        assert_eq!(all.news(first, not_above, later(600)), []);
        // Another number waits; that it begins or is over does not.
        all.words.insert(org("dv"), 30);
        all.words.insert(org("mv"), 5);
        assert_eq!(all.news(first, not_above, later(59)), [(org("mv"), 5)]);
        all.words.insert(org("mv"), 0);
        assert_eq!(all.news(first, not_above, later(60)), [(org("dv"), 30), (org("mv"), 0)]);
        // A parent that has begun anew knows nothing.
        assert_eq!(all.news(second, not_above, later(61)), [(org("dv"), 30), (org("mv"), 0)]);
        assert_eq!((all.of(&org("dv")), all.of(&org("qb"))), (Some(30), None));
    }
}
