//! From events to times: when the daemon ran, when a neighbour was connected, and why it was not.
//!
//! Events are taken in the order in which they were noticed, never in that of their times, so a clock that jumps breaks
//! nothing: a time between two events that goes backwards is told as it is and counts as nothing. Everything here is a
//! function of its arguments. Not here: what is noticed when.

use sync_core::id::{OrgId, OrgPath};

use crate::{
    admin::{ClockStep, Neighbour, Outage, Stretch},
    store::OutageLine,
};

/// A neighbour comes back by itself within so much after this node was off or paused, or the neighbour has closed: it
/// has to notice, and then dials 90 s apart at most. What passes until then is told with what it is the end of.
const COMES_BACK_MILLIS: i64 = 240_000;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The daemon starts.
    Started,
    /// It stops in order.
    Stopped,
    /// It has ended without a word; the next start says so, with the time of the last sign of life.
    Died,
    /// Syncing is paused here.
    Paused,
    /// It is resumed.
    Resumed,
    /// The clock was set from this time.
    Clock(i64),
    /// The neighbour's HELLO was taken.
    Connected,
    /// The link, or what kept it from standing, has ended: the neighbour is not reached.
    Lost,
    /// The neighbour has closed the link in order.
    Closed,
    /// This node has closed the link in order, to dial again.
    Ended,
    /// One of the two refuses.
    Refused,
    /// The link was ended by the pause.
    LinkPaused,
    /// The neighbour is the parent from now on.
    Parent,
    /// It is no neighbour any more: an order has moved one of the two, or closed its organization.
    Left,
}

/// The words for what happens to this node, and to a link.
const NODE: [(&str, What); 5] = [
    ("started", What::Started),
    ("stopped", What::Stopped),
    ("died", What::Died),
    ("paused", What::Paused),
    ("resumed", What::Resumed),
];
const CLOCK: &str = "clock";
const LINK: [(&str, What); 8] = [
    ("connected", What::Connected),
    ("lost", What::Lost),
    ("closed", What::Closed),
    ("ended", What::Ended),
    ("refused", What::Refused),
    ("paused", What::LinkPaused),
    ("parent", What::Parent),
    (LEFT, What::Left),
];
const LEFT: &str = "left";

impl What {
    fn word(self) -> &'static str {
        let known = NODE.into_iter().chain(LINK).find(|(_, what)| *what == self);
        known.map_or(CLOCK, |(word, _)| word)
    }
}

/// Something that happened, to this node or to one neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub at: i64,
    pub what: What,
    pub neighbour: Option<OrgPath>,
}

impl Event {
    /// As it is kept.
    pub fn line(&self) -> OutageLine {
        let was = if let What::Clock(was) = self.what { Some(was) } else { None };
        let neighbour = self.neighbour.as_ref().map(OrgPath::to_string);
        OutageLine { at: self.at, was, event: self.what.word().to_owned(), neighbour }
    }

    /// What was kept; none when it is nothing that this program keeps.
    pub fn of(line: &OutageLine) -> Option<Self> {
        let words: &[_] = if line.neighbour.is_some() { &LINK } else { &NODE };
        let what = match line.was {
            Some(was) => What::Clock(was),
            None => words.iter().find(|(word, _)| *word == line.event)?.1,
        };
        let neighbour = line.neighbour.as_ref().map(|place| place.parse()).transpose().ok()?;
        Some(Self { at: line.at, what, neighbour })
    }
}

/// Whether a neighbour stood below this organization. One that did not was the parent.
pub fn is_below(neighbour: &OrgPath, own: &OrgId) -> bool {
    neighbour.parent().is_some_and(|above| above.org() == own)
}

/// The parent that an event tells of.
fn parent<'a>(event: &'a Event, own: &OrgId) -> Option<&'a OrgPath> {
    let place = event.neighbour.as_ref().filter(|place| !is_below(place, own))?;
    matches!(event.what, What::Parent | What::Connected).then_some(place)
}

/// The events, and with them that a parent has left when another was connected in its place: logs of before do not say so.
pub fn with_one_parent_at_a_time(events: Vec<Event>, own: &OrgId) -> Vec<Event> {
    let (mut out, mut before): (Vec<Event>, Option<OrgPath>) = (Vec::new(), None);
    for event in events {
        if let Some(parent) = parent(&event, own) {
            let other = before.replace(parent.clone()).filter(|before| before.org() != parent.org());
            out.extend(other.map(|other| Event { at: event.at, what: What::Left, neighbour: Some(other) }));
        }
        out.push(event);
    }
    out
}

/// How things stand with a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Connected,
    Line,
    Closed,
    Off,
    Paused,
    Refused,
}

impl Held {
    fn word(self) -> &'static str {
        match self {
            Held::Connected => "connected",
            Held::Line => "line",
            Held::Closed => "closed",
            Held::Off => "off",
            Held::Paused => "paused",
            Held::Refused => "refused",
        }
    }
}

/// A time during which it stood so; `to` is none when it still does.
#[derive(Debug, Clone, Copy)]
struct Piece {
    from: i64,
    to: Option<i64>,
    held: Held,
    ended: Option<&'static str>,
}

impl Piece {
    fn millis(&self, now: i64) -> i64 {
        self.to.unwrap_or(now).saturating_sub(self.from).max(0)
    }

    /// What of it lies in the period. One that goes backwards stays whole when it ends or begins there.
    fn within(mut self, from: i64, now: i64) -> Option<Self> {
        let to = self.to.unwrap_or(now);
        if to < self.from {
            return (self.from >= from).then_some(self);
        }
        let empty = to == self.from && self.held != Held::Connected && self.to.is_some();
        self.from = self.from.max(from);
        (to >= self.from && !empty).then_some(self)
    }
}

/// What is known while the events pass by.
struct State {
    on: bool,
    paused: bool,
    link: Held,
}

impl State {
    fn held(&self) -> Held {
        match self.link {
            _ if !self.on => Held::Off,
            Held::Connected => Held::Connected,
            _ if self.paused => Held::Paused,
            link => link,
        }
    }

    /// Moves on, and says in which word a link ends by it.
    fn take(&mut self, what: What) -> &'static str {
        match what {
            What::Started => *self = Self { on: true, paused: false, link: Held::Line },
            What::Stopped | What::Died => *self = Self { on: false, paused: false, link: Held::Line },
            What::Paused => self.paused = true,
            What::Resumed => self.paused = false,
            What::Clock(_) => {}
            What::Connected => self.link = Held::Connected,
            What::Lost | What::Ended | What::LinkPaused | What::Parent | What::Left => self.link = Held::Line,
            What::Closed => self.link = Held::Closed,
            What::Refused => self.link = Held::Refused,
        }
        match what {
            What::Started | What::Died => "unknown",
            what => what.word(),
        }
    }
}

/// The times of one neighbour, or with none those of this node, which is then connected while it runs. A neighbour is
/// known from its first event on, wherever it stood, until it leaves.
fn pieces(events: &[Event], of: Option<&OrgId>, known_at_once: bool) -> Vec<Piece> {
    let mut state = State { on: false, paused: false, link: Held::Line };
    let held = |state: &State| match of {
        None if state.on => Held::Connected,
        _ => state.held(),
    };
    let (mut done, mut current): (Vec<Piece>, Option<Piece>) = (Vec::new(), None);
    let mut known = known_at_once;
    for event in events {
        let neighbour = event.neighbour.as_ref().map(OrgPath::org);
        if neighbour.is_some() && neighbour != of {
            continue;
        }
        let before = held(&state);
        let word = state.take(event.what);
        known = event.what != What::Left && (known || neighbour.is_some());
        let (ends, begins) = match event.what {
            What::Clock(was) => (was, event.at),
            _ if held(&state) == before && current.is_some() == known => continue,
            _ => (event.at, event.at),
        };
        done.extend(current.take().map(|it| Piece { to: Some(ends), ended: Some(word), ..it }));
        current = known.then_some(Piece { from: begins, to: None, held: held(&state), ended: None });
    }
    done.extend(current);
    done
}

/// Tells what passes until a neighbour is back together with what it had waited for.
fn joined(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut out: Vec<Piece> = Vec::new();
    for piece in pieces {
        let waits = matches!(piece.held, Held::Line)
            && piece.to.is_some_and(|to| (0..=COMES_BACK_MILLIS).contains(&to.saturating_sub(piece.from)));
        match out.last_mut() {
            // It has just become a neighbour: there was no link yet that could be down.
            None if waits => {}
            Some(last) if waits && last.ended == Some(LEFT) => {}
            Some(last) if last.to != Some(piece.from) || last.held == Held::Connected => out.push(piece),
            Some(last)
                if last.held == piece.held
                    || waits && matches!(last.held, Held::Off | Held::Paused | Held::Closed) =>
            {
                (last.to, last.ended) = (piece.to, piece.ended);
            }
            _ => out.push(piece),
        }
    }
    out
}

/// The period that is covered: what was asked for, or as much of it as the log has. `events` are those that only tell
/// how things stood before left out.
pub fn begin(events: &[Event], gone: Option<i64>, since: Option<i64>) -> Option<i64> {
    // The clock may have been set back since the first of them.
    let log = events.iter().map(|event| event.at).chain(gone).min()?;
    Some(since.map_or(log, |since| since.max(log)))
}

/// When the daemon ran.
pub fn runs(events: &[Event], from: i64, now: i64) -> Vec<Stretch> {
    let pieces = pieces(events, None, true).into_iter().filter_map(|piece| piece.within(from, now));
    pieces.filter(|piece| piece.held == Held::Connected).map(stretch).collect()
}

fn stretch(piece: Piece) -> Stretch {
    Stretch { from: piece.from, to: piece.to, ended: piece.ended.map(str::to_owned) }
}

/// When the clock was set.
pub fn clock(events: &[Event], from: i64) -> Vec<ClockStep> {
    let steps = events.iter().filter_map(|event| match event.what {
        What::Clock(was) if was.max(event.at) >= from => Some(ClockStep { from: was, to: event.at }),
        _ => None,
    });
    steps.collect()
}

/// When a neighbour of this organization was connected, and when and why it was not. The first parent counts from the
/// beginning.
pub fn neighbour(events: &[Event], place: &OrgPath, own: &OrgId, from: i64, now: i64) -> Neighbour {
    let is_parent = !is_below(place, own);
    let first = events.iter().find_map(|event| parent(event, own));
    let known_at_once = is_parent && first.is_none_or(|first| first.org() == place.org());
    let pieces = joined(pieces(events, Some(place.org()), known_at_once));
    let left = pieces.last().filter(|piece| piece.ended == Some(LEFT)).and_then(|piece| piece.to);
    let pieces: Vec<Piece> = pieces.into_iter().filter_map(|piece| piece.within(from, now)).collect();
    let (connected, out): (Vec<Piece>, Vec<Piece>) =
        pieces.iter().partition(|piece| piece.held == Held::Connected);
    let sum = |pieces: &[Piece]| pieces.iter().fold(0, |sum: i64, it| sum.saturating_add(it.millis(now)));
    let outage = |piece: &Piece| Outage { from: piece.from, to: piece.to, why: piece.held.word().to_owned() };
    Neighbour {
        place: place.clone(),
        direction: if is_parent { "up" } else { "down" }.to_owned(),
        from: pieces.first().map(|piece| piece.from),
        until: left,
        connected_millis: sum(&connected),
        out_millis: sum(&out),
        connected: connected.into_iter().map(stretch).collect(),
        outages: out.iter().map(outage).collect(),
    }
}

#[cfg(test)]
mod tests {
    use What::*;

    use super::*;

    const MIN: i64 = 60_000;

    fn place() -> OrgPath {
        "root/hub".parse().unwrap()
    }

    fn own() -> OrgId {
        OrgId::new("leaf").unwrap()
    }

    /// Events at these minutes; those of links are of one neighbour.
    fn log(events: &[(i64, What)]) -> Vec<Event> {
        let is_link = |what| LINK.iter().any(|(_, link)| *link == what);
        let event = |(at, what): &(i64, What)| Event {
            at: at * MIN,
            what: if let Clock(was) = what { Clock(was * MIN) } else { *what },
            neighbour: is_link(*what).then(place),
        };
        events.iter().map(event).collect()
    }

    fn all(events: &[(i64, What)], now: i64) -> Neighbour {
        let events = log(events);
        let from = begin(&events, None, None).unwrap();
        neighbour(&events, &place(), &own(), from, now * MIN)
    }

    fn outages(found: &Neighbour) -> Vec<(i64, Option<i64>, &str)> {
        found.outages.iter().map(|o| (o.from / MIN, o.to.map(|to| to / MIN), o.why.as_str())).collect()
    }

    fn links(found: &Neighbour) -> Vec<(i64, Option<i64>, Option<&str>)> {
        let stretches = found.connected.iter();
        stretches.map(|s| (s.from / MIN, s.to.map(|to| to / MIN), s.ended.as_deref())).collect()
    }

    #[test]
    fn every_event_is_kept_and_read_back() {
        for (neighbour, words) in [(None, &NODE[..]), (Some(place()), &LINK[..])] {
            for (word, what) in words {
                let event = Event { at: 7, what: *what, neighbour: neighbour.clone() };
                assert_eq!(event.line().event, *word);
                assert_eq!(Event::of(&event.line()), Some(event));
            }
        }
        let set = Event { at: 7, what: Clock(9), neighbour: None };
        assert_eq!((set.line().event.as_str(), Event::of(&set.line())), (CLOCK, Some(set)));
    }

    #[test]
    fn a_line_that_was_down_is_one_outage() {
        let found = all(&[(0, Started), (0, Connected), (10, Lost), (30, Connected)], 40);
        assert_eq!(outages(&found), [(10, Some(30), "line")]);
        assert_eq!(links(&found), [(0, Some(10), Some("lost")), (30, None, None)]);
        assert_eq!((found.connected_millis, found.out_millis), (20 * MIN, 20 * MIN));
        let first = all(&[(0, Started), (1, Connected)], 40);
        assert_eq!((outages(&first), first.from), (vec![], Some(MIN)), "a node that has just been set up");
        let late = all(&[(0, Started), (60, Connected)], 70);
        assert_eq!(outages(&late), [(0, Some(60), "line")]);
        let lasts = all(&[(0, Started), (0, Connected), (10, Lost)], 40);
        assert_eq!(outages(&lasts), [(10, None, "line")]);
        assert_eq!(lasts.out_millis, 30 * MIN);
    }

    /// After a kill the link stood until the last sign of life, and no longer.
    #[test]
    fn a_machine_that_was_off_is_told_from_a_line() {
        let events = [(0, Started), (0, Connected), (10, Died), (50, Started), (52, Connected)];
        let found = all(&events, 60);
        assert_eq!(outages(&found), [(10, Some(52), "off")], "until it was back");
        assert_eq!(links(&found), [(0, Some(10), Some("unknown")), (52, None, None)]);
        let in_order = all(&[(0, Started), (0, Connected), (10, Stopped), (50, Started)], 60);
        assert_eq!(links(&in_order)[0].2, Some("stopped"));
        assert_eq!(outages(&in_order), [(10, Some(50), "off"), (50, None, "line")], "it is on and alone");
        // The line went first, and was still down long after the machine was back.
        let both = [(0, Started), (0, Connected), (5, Lost), (10, Died), (50, Started), (70, Connected)];
        let expected = [(5, Some(10), "line"), (10, Some(50), "off"), (50, Some(70), "line")];
        assert_eq!(outages(&all(&both, 80)), expected);
        let runs = runs(&log(&both), 0, 80 * MIN);
        assert_eq!(runs[0], Stretch { from: 0, to: Some(10 * MIN), ended: Some("unknown".into()) });
        assert_eq!(runs[1], Stretch { from: 50 * MIN, to: None, ended: None });
    }

    #[test]
    fn a_pause_and_a_refusal_are_told_apart() {
        let events = [
            (0, Started),
            (0, Connected),
            (10, Paused),
            (10, LinkPaused),
            (20, Resumed),
            (21, Connected),
            (30, Refused),
            (40, Lost),
            (50, Connected),
            (60, Closed),
            (62, Connected),
        ];
        let found = all(&events, 70);
        let expected = [
            (10, Some(21), "paused"),
            (30, Some(40), "refused"),
            (40, Some(50), "line"),
            (60, Some(62), "closed"),
        ];
        assert_eq!(outages(&found), expected);
        assert_eq!(links(&found)[0], (0, Some(10), Some("paused")));
        assert_eq!(found.connected_millis + found.out_millis, 70 * MIN);
    }

    #[test]
    fn a_clock_that_jumps_is_told_as_it_is() {
        // Noticed while the daemon ran: nothing is counted between.
        let events = [(100, Started), (100, Connected), (10, Clock(110)), (20, Lost), (25, Connected)];
        let set = all(&events, 30);
        assert_eq!(links(&set)[..2], [(100, Some(110), Some("clock")), (10, Some(20), Some("lost"))]);
        assert_eq!(outages(&set), [(20, Some(25), "line")]);
        assert_eq!((set.connected_millis, set.out_millis), (25 * MIN, 5 * MIN));
        assert_eq!(clock(&log(&events), 0), [ClockStep { from: 110 * MIN, to: 10 * MIN }]);
        // Set back while it was off: the end lies before the beginning.
        let back =
            all(&[(100, Started), (100, Connected), (200, Died), (150, Started), (151, Connected)], 160);
        assert_eq!(outages(&back), [(200, Some(151), "off")]);
        assert_eq!((back.connected_millis, back.out_millis), (109 * MIN, 0));
        let ends_first = all(&[(100, Started), (100, Connected), (90, Died), (300, Started)], 310);
        assert_eq!(links(&ends_first), [(100, Some(90), Some("unknown"))]);
        for extreme in [i64::MIN, i64::MAX] {
            let mut events = log(&[(0, Started), (0, Connected), (1, Lost), (2, Connected), (3, Died)]);
            events[2].at = extreme;
            neighbour(&events, &place(), &own(), i64::MIN, i64::MAX);
        }
    }

    #[test]
    fn the_period_cuts_what_lies_before() {
        let events =
            log(&[(0, Started), (0, Connected), (10, Lost), (30, Connected), (40, Lost), (50, Connected)]);
        let since = |from: i64| neighbour(&events, &place(), &own(), from * MIN, 60 * MIN);
        assert_eq!(outages(&since(20)), [(20, Some(30), "line"), (40, Some(50), "line")]);
        assert_eq!(outages(&since(35)), [(40, Some(50), "line")]);
        assert_eq!(since(45).out_millis, 5 * MIN);
        assert_eq!((since(55).connected_millis, since(55).from), (5 * MIN, Some(55 * MIN)));
        assert_eq!(begin(&events, None, Some(5)), Some(5));
        assert_eq!(begin(&events[2..], Some(7), Some(5)), Some(7), "older ones have gone");
        assert_eq!(begin(&[], None, Some(5)), None);
    }

    /// Before it was enrolled it was not missing; what is known of another does not count.
    #[test]
    fn a_child_counts_from_its_first_link() {
        let mut events = log(&[(0, Started), (30, Connected), (40, Lost)]);
        let above = OrgId::new("root").unwrap();
        let child = neighbour(&events, &place(), &above, 0, 50 * MIN);
        assert_eq!((child.from, child.out_millis), (Some(30 * MIN), 10 * MIN));
        events.truncate(1);
        let never = neighbour(&events, &place(), &above, 0, 50 * MIN);
        assert_eq!((never.from, never.outages.len()), (None, 0));
    }

    /// Events at these minutes; those of links with the place of the neighbour.
    fn told(events: &[(i64, What, &str)]) -> Vec<Event> {
        let event = |(at, what, place): &(i64, What, &str)| Event {
            at: at * MIN,
            what: *what,
            neighbour: (!place.is_empty()).then(|| place.parse().unwrap()),
        };
        with_one_parent_at_a_time(events.iter().map(event).collect(), &own())
    }

    fn of(events: &[Event], place: &str) -> Neighbour {
        neighbour(events, &place.parse().unwrap(), &own(), 0, 100 * MIN)
    }

    #[test]
    fn what_was_with_one_parent_is_not_told_of_the_next() {
        let with_the_move = |moved: &[(i64, What, &str)]| {
            let before = [
                (0, Started, ""),
                (0, Connected, "root/hub"),
                (10, Paused, ""),
                (10, LinkPaused, "root/hub"),
                (20, Resumed, ""),
                (21, Connected, "root/hub"),
            ];
            told(&[&before[..], moved].concat())
        };
        let logged = [(50, Left, "root/hub"), (50, Parent, "root/new"), (60, Connected, "root/new")];
        // Before, only how each link went was logged.
        let not = [(49, Refused, "root/hub"), (50, Connected, "root/new"), (55, Refused, "root/hub")];
        for (moved, refused, down) in
            [(&logged, None, vec![(50, Some(60), "line")]), (&not, Some((49, Some(50), "refused")), vec![])]
        {
            let events = with_the_move(moved);
            let (old, new) = (of(&events, "root/hub"), of(&events, "root/new"));
            let paused = Some((10, Some(21), "paused"));
            let expected: Vec<_> = paused.into_iter().chain(refused).collect();
            assert_eq!(outages(&old)[..expected.len()], expected);
            assert_eq!((outages(&new), new.from, new.until), (down, Some(50 * MIN), None));
            assert_eq!(new.connected_millis + new.out_millis, 50 * MIN);
        }
        let (old, start) = (of(&with_the_move(&logged), "root/hub"), [(0, Started, "")]);
        assert_eq!((old.until, old.connected_millis + old.out_millis), (Some(50 * MIN), 50 * MIN));
        assert_eq!(links(&old)[1], (21, Some(50), Some("left")));
        // Neither has ever been reached.
        let events = told(&[&start[..], &[(0, Parent, "root/hub")], &logged[..2]].concat());
        assert_eq!(outages(&of(&events, "root/hub")), [(0, Some(50), "line")]);
        assert_eq!(outages(&of(&events, "root/new")), [(50, None, "line")]);
        // It goes back, and is connected there at once.
        let back = [(70, Left, "root/new"), (70, Parent, "root/hub"), (71, Connected, "root/hub")];
        let events = with_the_move(&[&logged[..], &back].concat());
        let (old, new) = (of(&events, "root/hub"), of(&events, "root/new"));
        assert_eq!((outages(&old), old.until), (vec![(10, Some(21), "paused")], None));
        assert_eq!((links(&old).last(), new.until), (Some(&(71, None, None)), Some(70 * MIN)));
    }

    #[test]
    fn who_has_left_is_not_missed_and_may_come_back() {
        let (here, away) = ("root/leaf/child", "root/hub/child");
        let start = [(0, Started, ""), (10, Connected, here), (20, Lost, here), (25, Connected, here)];
        let gone = [(30, Left, here), (40, Stopped, ""), (50, Started, "")];
        let child = of(&told(&[&start[..], &gone].concat()), here);
        assert_eq!((outages(&child), child.until), (vec![(20, Some(25), "line")], Some(30 * MIN)));
        assert_eq!(child.connected_millis + child.out_millis, 20 * MIN);
        let back = [(60, Connected, here), (70, Lost, here)];
        let child = of(&told(&[&start[..], &gone, &back].concat()), here);
        assert_eq!(outages(&child), [(20, Some(25), "line"), (70, None, "line")]);
        assert_eq!((child.until, child.out_millis), (None, 35 * MIN));
        let refused = of(&told(&[&start[..], &[(30, Refused, here)], &gone].concat()), here);
        assert_eq!((outages(&refused).len(), refused.until), (1, Some(30 * MIN)), "at once");
        // Its place is another when this node is moved; it is the same neighbour.
        let along = [(30, Lost, here), (40, Connected, "root/new/leaf/child")];
        let child = of(&told(&[&start[..], &along].concat()), "root/new/leaf/child");
        assert_eq!(outages(&child), [(20, Some(25), "line"), (30, Some(40), "line")]);
        // A log of before may name the place to which it has gone, when it was told so here: that is no parent.
        let told =
            told(&[&start[..1], &[(0, Connected, "root")], &start[1..], &[(30, Refused, away)]].concat());
        assert_eq!(outages(&of(&told, "root")), []);
    }
}
