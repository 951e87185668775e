//! The outage log: what the core notices of its links, and when that is written.
//!
//! What always holds: what is noticed goes with the next commit, and a transaction is made for it alone once a minute
//! at most, as is the sign of life, so a power cut takes the last minute of the log and nothing else. A node whose disk
//! has hardly any room keeps the log in memory: nothing ends for its sake. Not here: the arithmetic ([`replay`]), the
//! table (`store`).

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use sync_core::{
    engine::{LinkId, LinkStatus},
    id::{OrgId, OrgPath},
    identity::NodeInfo,
    store::StoreError,
    wire::Frame,
};

use self::replay::{Event, What};
use super::{
    Message, SOFTWARE,
    core::{Core, Outcome, refuse},
    wall,
};
use crate::{
    admin::{FailureKind, Outages as Answer},
    store::{OUTAGE_LINES_MAX, OutageLog, OutageWrite, SqliteStore},
};

mod replay;

/// How often the log is written when no commit takes it along, and how old a sign of life may be.
const WRITE_EVERY: Duration = Duration::from_secs(60);
/// With less room on the disk than this no transaction is made for the log.
const ROOM_BYTES: u64 = 8 << 20;
/// Most events that wait for the disk; then the oldest go.
const WAITING_MAX: usize = 4_096;
/// How often the clock and the links are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The clock is taken to be set when it is off from the monotonic one by more than this since it was last looked at.
const CLOCK_STEP: Duration = Duration::from_secs(2);
/// Clocks that could not be read within this time are not compared.
const CLOCKS_WITHIN: Duration = Duration::from_millis(200);

/// How a link ended, as its connection knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Nothing was heard for too long, or the neighbour knows nothing of it any more.
    Lost,
    /// The neighbour has closed it.
    ByNeighbour,
    /// The neighbour refuses.
    Refused,
    /// The same, because an order has moved one of the two.
    Moved,
    /// This node has closed it.
    Here,
}

impl Ending {
    fn what(self, paused: bool) -> What {
        match self {
            Ending::Lost => What::Lost,
            Ending::ByNeighbour => What::Closed,
            Ending::Refused => What::Refused,
            Ending::Moved => What::Left,
            Ending::Here if paused => What::LinkPaused,
            Ending::Here => What::Ended,
        }
    }
}

/// What a message says of a link.
pub enum News {
    Hello(LinkId, OrgPath),
    Ended(LinkId, OrgPath, Ending),
}

/// What the core has noticed.
pub struct Outages {
    waiting: Vec<Event>,
    written_at: Instant,
    /// The last event of each neighbour in this run, and where it stood; of an earlier run only whether it had left.
    last: BTreeMap<OrgId, (OrgPath, What)>,
    /// Who was last noted to be the parent.
    parent: Option<OrgId>,
    /// How many packets each link had brought when it was looked at, and when it certainly stood.
    heard: BTreeMap<LinkId, (u64, Instant)>,
    /// When the HELLO of each link was taken.
    since: BTreeMap<LinkId, Instant>,
    /// Both clocks as they were looked at last.
    clocks: (Instant, i64),
    looked_at: Instant,
}

impl Outages {
    /// Begins the log of this run, at once on the disk.
    pub fn begin(store: &mut SqliteStore, dir: &Path, paused: bool) -> Result<Self, StoreError> {
        let log = store.outage_log()?;
        let mut outages = Self {
            waiting: Vec::new(),
            written_at: Instant::now(),
            last: BTreeMap::new(),
            parent: None,
            heard: BTreeMap::new(),
            since: BTreeMap::new(),
            clocks: (Instant::now(), wall()),
            looked_at: Instant::now(),
        };
        for Event { what, neighbour, .. } in log.lines.iter().filter_map(Event::of) {
            let Some(place) = neighbour else { continue };
            if what == What::Parent {
                outages.parent = Some(place.org().clone());
            }
            let what = if what == What::Left { what } else { What::Lost };
            outages.last.insert(place.org().clone(), (place, what));
        }
        outages.waiting.extend(last_run_died(&log));
        outages.note(wall(), What::Started, None);
        if paused {
            outages.note(wall(), What::Paused, None);
        }
        outages.write(store, dir)?;
        Ok(outages)
    }

    fn note(&mut self, at: i64, what: What, neighbour: Option<OrgPath>) {
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.remove(0);
            tracing::warn!("the outage log waits too long for the disk, and loses its oldest event");
        }
        self.waiting.push(Event { at, what, neighbour });
    }

    /// Notes how things stand with a neighbour from this time on, unless they did before.
    fn note_link(&mut self, place: &OrgPath, what: What, at: i64) {
        if self.last(place) != Some(what) {
            self.note(at, what, Some(place.clone()));
        }
        self.last.insert(place.org().clone(), (place.clone(), what));
    }

    /// A neighbour is none any more; what is known of it stays with the place where it stood.
    fn left(&mut self, place: &OrgPath, at: i64) {
        if let Some((stood, _)) = self.last.get(place.org()).cloned() {
            self.note_link(&stood, What::Left, at);
        }
    }

    fn last(&self, place: &OrgPath) -> Option<What> {
        self.last.get(place.org()).map(|(_, what)| *what)
    }

    /// Syncing is paused or resumed here.
    pub fn paused(&mut self, paused: bool) {
        self.note(wall(), if paused { What::Paused } else { What::Resumed }, None);
    }

    /// A dial came to nothing, and not because somebody refused.
    pub fn unreached(&mut self, place: &OrgPath) {
        if self.last(place) == Some(What::Refused) {
            self.note_link(place, What::Lost, wall());
        }
    }

    /// One of the two refuses.
    pub fn refused(&mut self, place: &OrgPath) {
        self.note_link(place, What::Refused, wall());
    }

    /// A link has ended, and no other to that neighbour stands. One that was lost stood until it was last heard.
    fn ended(&mut self, place: &OrgPath, what: What, heard: Option<Instant>) {
        if self.last(place) == Some(What::Connected) {
            let silent = heard.map_or(Duration::ZERO, |heard| heard.elapsed());
            self.note_link(place, what, wall().saturating_sub(millis(silent)));
        }
    }

    /// A link has been lost before this other one came, which stands.
    fn was_lost_before(&mut self, place: &OrgPath, heard: Instant, came: Instant) {
        self.ended(place, What::Lost, Some(heard));
        self.note_link(place, What::Connected, wall().saturating_sub(millis(came.elapsed())));
    }

    /// A link has brought so many packets, more than before after this moment at the earliest.
    fn packets(&mut self, link: LinkId, packets: u64, after: Instant) {
        let heard = self.heard.entry(link).or_insert((packets, after));
        if heard.0 != packets {
            *heard = (packets, heard.1.max(after));
        }
    }

    /// A link has brought a frame.
    pub fn frame(&mut self, link: LinkId) {
        if let Some((_, heard)) = self.heard.get_mut(&link) {
            *heard = Instant::now();
        }
    }

    fn look_at_the_clock(&mut self) {
        let (before, now, after) = (Instant::now(), wall(), Instant::now());
        if after - before > CLOCKS_WITHIN {
            return;
        }
        let (at, was) = std::mem::replace(&mut self.clocks, (before, now));
        let expected = was.saturating_add(millis(before - at));
        if now.abs_diff(expected) > CLOCK_STEP.as_millis() as u64 {
            self.note(now, What::Clock(expected), None);
        }
    }

    fn is_due(&self) -> bool {
        self.written_at.elapsed() >= WRITE_EVERY
    }

    /// What a commit has to take along.
    pub fn with_commit(&mut self) -> Option<OutageWrite> {
        self.look_at_the_clock();
        (!self.waiting.is_empty() || self.is_due()).then(|| self.taken())
    }

    /// What waits. Whoever takes it writes it, or the process ends.
    fn taken(&mut self) -> OutageWrite {
        self.written_at = Instant::now();
        let lines = std::mem::take(&mut self.waiting);
        OutageWrite { lines: lines.iter().map(Event::line).collect(), alive: wall() }
    }

    fn write(&mut self, store: &mut SqliteStore, dir: &Path) -> Result<(), StoreError> {
        if has_room(dir) { store.write_outages(&self.taken()) } else { Ok(()) }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Whether the disk has room for a transaction that is made for such a thing alone.
pub fn has_room(dir: &Path) -> bool {
    // A disk that cannot say how full it is may be written to.
    rustix::fs::statvfs(dir).map_or(true, |disk| disk.f_bavail.saturating_mul(disk.f_frsize) >= ROOM_BYTES)
}

/// That the run before has ended without a word, if it has: with its last sign of life.
fn last_run_died(log: &OutageLog) -> Option<Event> {
    let runs = |event: &Event| matches!(event.what, What::Started | What::Stopped | What::Died);
    let last = log.lines.iter().rev().filter_map(Event::of).find(runs)?;
    let at = log.alive.unwrap_or(last.at);
    (last.what == What::Started).then_some(Event { at, what: What::Died, neighbour: None })
}

impl Core {
    /// What a message says of a link, before the engine takes it.
    pub fn link_news(&self, message: &Message) -> Option<News> {
        let place = |id: &LinkId| self.peers.get(id).map(|peer| peer.info.place.clone());
        match message {
            Message::Frame(id, Frame::Hello(_), _) => Some(News::Hello(*id, place(id)?)),
            Message::Closed(id, ending) => Some(News::Ended(*id, place(id)?, *ending)),
            _ => None,
        }
    }

    /// The same once the engine has taken it: a link stands when its HELLO was taken.
    pub fn note_link(&mut self, news: Option<News>) {
        match news {
            Some(News::Hello(id, place))
                if self.engine.links().any(|link| link.link == id && link.software.is_some()) =>
            {
                self.a_link_is_replaced(id, &place);
                self.outages.packets(id, 0, Instant::now());
                self.outages.since.insert(id, Instant::now());
                self.outages.note_link(&place, What::Connected, wall());
            }
            Some(News::Ended(id, place, ending)) => {
                let heard = self.outages.heard.remove(&id).map(|(_, at)| at);
                let heard = heard.filter(|_| ending == Ending::Lost);
                self.outages.since.remove(&id);
                let came = self.links_to(&place).filter_map(|link| self.outages.since.get(&link)).min();
                match (came.copied(), heard) {
                    (None, heard) if self.is_missed(&place) => {
                        self.outages.ended(&place, ending.what(self.numbers.paused()), heard);
                    }
                    (None, heard) => self.outages.ended(&place, What::Left, heard),
                    (Some(came), Some(heard)) if heard < came => {
                        self.outages.was_lost_before(&place, heard, came);
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    /// A neighbour that dials again has lost the link that still seemed to stand here. Of another run the engine keeps
    /// both links: that may be a second machine of its name, and then neither is lost. Which it is shows when the older
    /// one is heard again, or is not.
    fn a_link_is_replaced(&mut self, by: LinkId, place: &OrgPath) {
        if self.links_to(place).any(|link| link != by) {
            return;
        }
        let others =
            self.peers.iter().filter(|(id, peer)| **id != by && peer.info.place.org() == place.org());
        let heard = others.filter_map(|(id, _)| self.outages.heard.get(id)).map(|(_, at)| *at).max();
        if heard.is_some() {
            self.outages.ended(place, What::Lost, heard);
        }
    }

    /// One of the two has refused. Another machine of that place may be connected all the same.
    pub fn note_refusal(&mut self, peer: &NodeInfo) {
        if self.is_missed(&peer.place) && !self.stands(&peer.place) {
            self.outages.refused(&peer.place);
        }
    }

    /// One of the two has let the other go, because of an order that moves one of them; the other may not have heard of it yet.
    pub fn note_leaving(&mut self, peer: &NodeInfo) {
        if !self.stands(&peer.place) {
            self.outages.left(&peer.place, wall());
        }
    }

    /// Notes who has become the parent, and who is missed no more.
    pub fn note_neighbours(&mut self) {
        let at = wall();
        let known = self.outages.last.values().map(|(place, _)| place);
        let left = known.filter(|place| !self.is_missed(place) && !self.stands(place));
        for place in left.cloned().collect::<Vec<_>>() {
            self.outages.left(&place, at);
        }
        let parent = self.engine.place().parent();
        if let Some(parent) = parent.filter(|parent| self.outages.parent.as_ref() != Some(parent.org())) {
            self.outages.parent = Some(parent.org().clone());
            self.outages.note_link(&parent, What::Parent, at);
        }
    }

    /// Whether the link to who stood at this place should stand: that is a neighbour, and its organization is not closed.
    fn is_missed(&self, place: &OrgPath) -> bool {
        let (own, places) = (self.engine.place(), self.engine.places());
        let now = places.now(place);
        let is_neighbour = own.parent().as_ref() == Some(&now) || now.parent().as_ref() == Some(own);
        is_neighbour && places.successor(place.org()).is_none()
    }

    fn stands(&self, place: &OrgPath) -> bool {
        self.links_to(place).next().is_some()
    }

    /// The links to a neighbour that stand.
    fn links_to(&self, place: &OrgPath) -> impl Iterator<Item = LinkId> {
        let is_to = |link: &LinkStatus| link.peer.place.org() == place.org() && link.software.is_some();
        self.engine.links().filter(is_to).map(|link| link.link)
    }

    /// Writes what waits, or a sign of life, when it is time.
    pub fn write_outages(&mut self) -> Result<(), StoreError> {
        if self.outages.looked_at.elapsed() < LOOK_EVERY {
            return Ok(());
        }
        let before = std::mem::replace(&mut self.outages.looked_at, Instant::now());
        self.outages.look_at_the_clock();
        for (id, peer) in &self.peers {
            self.outages.packets(*id, peer.connection.stats().udp_rx.datagrams, before);
        }
        if !self.outages.is_due() {
            return Ok(());
        }
        self.outages.write(&mut self.store, &self.dir)
    }

    /// The daemon stops in order.
    pub fn end_outages(&mut self) -> Result<(), StoreError> {
        self.outages.note(wall(), What::Stopped, None);
        self.outages.write(&mut self.store, &self.dir)
    }

    /// When links stood and when not, of all neighbours or of one.
    pub fn tell_outages(&self, org: Option<&OrgId>, since_seconds: Option<u64>) -> Outcome<Answer> {
        let log = self.store.outage_log()?;
        let now = wall();
        let since = since_seconds.map(|seconds| {
            now.saturating_sub(i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000))
        });
        let (before, lines) = log.lines.split_at(log.before);
        let lines: Vec<Event> =
            lines.iter().filter_map(Event::of).chain(self.outages.waiting.clone()).collect();
        let from = replay::begin(&lines, log.gone(), since);
        let own = self.config.place.org();
        let events = before.iter().filter_map(Event::of).chain(lines).collect();
        let events = replay::with_one_parent_at_a_time(events, own);
        let begin = from.unwrap_or(now);
        // Where each of them stands, or stood: what is logged may name the place to which a child has gone.
        let mut places: Vec<OrgPath> = self.config.place.parent().into_iter().collect();
        places.extend(self.children()?.into_keys());
        let logged = || events.iter().rev().filter_map(|event| event.neighbour.as_ref());
        for place in logged().filter(|place| replay::is_below(place, own)).chain(logged()) {
            if places.iter().all(|known| known.org() != place.org()) {
                places.push(place.clone());
            }
        }
        places.sort_by_key(|place| replay::is_below(place, own));
        let told = places.iter().map(|place| replay::neighbour(&events, place, own, begin, now));
        let in_time = told.filter(|one| one.from.is_some() || self.is_missed(&one.place));
        let neighbours: Vec<_> = in_time.filter(|one| org.is_none_or(|org| one.place.org() == org)).collect();
        if let Some(org) = org.filter(|_| neighbours.is_empty()) {
            let text = format!("{org} is no neighbour of this node; `tuyen peers` names those that are");
            return refuse(FailureKind::Usage, text);
        }
        let info = self.engine.info();
        Ok(Answer {
            node: info.node,
            org: own.clone(),
            place: self.config.place.clone(),
            software: SOFTWARE.to_owned(),
            from,
            to: now,
            gone: log.gone(),
            most: OUTAGE_LINES_MAX,
            runs: replay::runs(&events, begin, now),
            clock: replay::clock(&events, begin),
            neighbours,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Key;

    fn words(log: &OutageLog) -> Vec<&str> {
        log.lines.iter().map(|line| line.event.as_str()).collect()
    }

    /// A run that was killed is ended by the next one, at its last sign of life; one that stopped is not.
    #[test]
    fn a_kill_ends_at_the_last_sign_of_life() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::create(&dir.path().join("db"), &Key::generate().unwrap()).unwrap();
        let place: OrgPath = "root/hub".parse().unwrap();
        let mut first = Outages::begin(&mut store, dir.path(), false).unwrap();
        first.note_link(&place, What::Connected, 5);
        first.note_link(&place, What::Connected, 6);
        store.write_outages(&OutageWrite { alive: 77, ..first.taken() }).unwrap();
        first.note_link(&place, What::Lost, 80);
        drop(first);
        let mut second = Outages::begin(&mut store, dir.path(), true).unwrap();
        let log = store.outage_log().unwrap();
        assert_eq!(words(&log), ["started", "connected", "died", "started", "paused"]);
        assert_eq!(log.lines[2].at, 77);
        second.note(90, What::Stopped, None);
        second.write(&mut store, dir.path()).unwrap();
        Outages::begin(&mut store, dir.path(), false).unwrap();
        let log = store.outage_log().unwrap();
        assert_eq!(words(&log)[5..], ["stopped", "started"]);
    }

    #[test]
    fn a_link_that_was_lost_ended_when_it_was_last_heard() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::create(&dir.path().join("db"), &Key::generate().unwrap()).unwrap();
        let mut outages = Outages::begin(&mut store, dir.path(), false).unwrap();
        let place: OrgPath = "root/hub".parse().unwrap();
        let (began, link) = (Instant::now(), LinkId(1));
        outages.packets(link, 7, began);
        std::thread::sleep(Duration::from_millis(50));
        outages.packets(link, 7, Instant::now());
        let heard = outages.heard[&link].1;
        assert_eq!(heard, began, "nothing more was heard");
        outages.ended(&place, What::Lost, Some(heard));
        assert!(outages.waiting.is_empty(), "it did not stand");
        outages.note_link(&place, What::Connected, 0);
        outages.waiting.clear();
        let before = wall();
        outages.ended(&place, What::Lost, Some(heard));
        assert_eq!(outages.waiting[0].what, What::Lost);
        assert!(before - outages.waiting[0].at >= 49, "{}", before - outages.waiting[0].at);
        let later = Instant::now();
        outages.packets(link, 8, later);
        assert_eq!(outages.heard[&link].1, later);
        outages.frame(link);
        outages.packets(link, 9, later);
        assert!(outages.heard[&link].1 > later, "a frame says it exactly");
    }

    /// Two links stood, and of the older one nothing was heard since before the newer one came: it was no second machine.
    #[test]
    fn a_link_that_was_lost_before_another_came_is_an_outage_until_then() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::create(&dir.path().join("db"), &Key::generate().unwrap()).unwrap();
        let mut outages = Outages::begin(&mut store, dir.path(), false).unwrap();
        let place: OrgPath = "root/leaf".parse().unwrap();
        outages.note_link(&place, What::Connected, 0);
        outages.waiting.clear();
        let heard = Instant::now();
        std::thread::sleep(Duration::from_millis(50));
        outages.was_lost_before(&place, heard, Instant::now());
        let noted: Vec<What> = outages.waiting.iter().map(|event| event.what).collect();
        assert_eq!(noted, [What::Lost, What::Connected]);
        assert!(outages.waiting[1].at - outages.waiting[0].at >= 49, "{:?}", outages.waiting);
    }

    /// What happens goes with the next commit; a commit with nothing new carries a sign of life once a minute.
    #[test]
    fn a_commit_carries_what_waits_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::create(&dir.path().join("db"), &Key::generate().unwrap()).unwrap();
        let mut outages = Outages::begin(&mut store, dir.path(), false).unwrap();
        assert_eq!(outages.with_commit(), None, "its start is written already");
        outages.note_link(&"root/hub".parse().unwrap(), What::Connected, 5);
        assert!(!outages.is_due(), "nothing is written for it alone");
        // Also with a commit that holds nothing else.
        let log = outages.with_commit().unwrap();
        assert_eq!(log.lines.len(), 1);
        store.commit_with(&[], Some(&log)).unwrap();
        assert_eq!(words(&store.outage_log().unwrap()), ["started", "connected"]);
        assert_eq!(outages.with_commit(), None);
        outages.written_at = Instant::now().checked_sub(WRITE_EVERY).unwrap();
        assert!(outages.is_due());
        assert_eq!(outages.with_commit().unwrap().lines, []);
        assert!(!outages.is_due());
    }

    /// Who has left is known at the next start, and who is the parent. A log of before says neither.
    #[test]
    fn the_next_run_knows_its_neighbours() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::create(&dir.path().join("db"), &Key::generate().unwrap()).unwrap();
        let [old, new, child] = ["root/old", "root/new", "root/old/leaf/child"].map(|it| it.parse().unwrap());
        let mut outages = Outages::begin(&mut store, dir.path(), false).unwrap();
        outages.note_link(&old, What::Connected, 5);
        outages.write(&mut store, dir.path()).unwrap();
        let mut outages = Outages::begin(&mut store, dir.path(), false).unwrap();
        assert_eq!((outages.last(&old), &outages.parent), (Some(What::Lost), &None));
        outages.note_link(&child, What::Connected, 6);
        outages.note_link(&old, What::Left, 7);
        outages.note_link(&new, What::Parent, 7);
        outages.write(&mut store, dir.path()).unwrap();
        let mut outages = Outages::begin(&mut store, dir.path(), false).unwrap();
        assert_eq!(outages.parent.as_ref(), Some(new.org()));
        let last = [&old, &new, &child].map(|place| outages.last(place));
        assert_eq!(last, [What::Left, What::Lost, What::Lost].map(Some));
        outages.left(&old, 9);
        outages.left(&"root/stranger".parse().unwrap(), 9);
        assert!(outages.waiting.is_empty(), "it is known, and of the other nothing is");
        // It is told where it has gone.
        outages.left(&"root/new/child".parse().unwrap(), 9);
        assert_eq!(outages.waiting[0], Event { at: 9, what: What::Left, neighbour: Some(child) });
    }

    #[test]
    fn a_clock_that_is_set_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::create(&dir.path().join("db"), &Key::generate().unwrap()).unwrap();
        let mut outages = Outages::begin(&mut store, dir.path(), false).unwrap();
        outages.clocks.1 -= 1_000;
        outages.look_at_the_clock();
        assert!(outages.waiting.is_empty(), "a second is no matter");
        outages.clocks.1 += 3_600_000;
        outages.look_at_the_clock();
        outages.look_at_the_clock();
        assert!(matches!(outages.waiting[..], [Event { what: What::Clock(was), at, .. }] if was > at));
    }
}
