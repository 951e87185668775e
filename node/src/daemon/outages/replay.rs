//! From events to times: when the daemon ran, when a neighbour was connected, and why it was not.
//!
//! Events are taken in the order in which they were noticed, never in that of their times, so a clock that jumps breaks
//! nothing: a time between two events that goes backwards is told as it is and counts as nothing. Everything here is a
//! function of its arguments. Not here: what is noticed when.

use sync_core::id::OrgPath;

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
const LINK: [(&str, What); 6] = [
    ("connected", What::Connected),
    ("lost", What::Lost),
    ("closed", What::Closed),
    ("ended", What::Ended),
    ("refused", What::Refused),
    ("paused", What::LinkPaused),
];

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
            What::Lost | What::Ended | What::LinkPaused => self.link = Held::Line,
            What::Closed => self.link = Held::Closed,
            What::Refused => self.link = Held::Refused,
        }
        match what {
            What::Started | What::Died => "unknown",
            what => what.word(),
        }
    }
}

/// The times of one neighbour, or with none those of this node, which is then connected while it runs. A child is known
/// from its first event on.
fn pieces(events: &[Event], of: Option<&OrgPath>, known_at_once: bool) -> Vec<Piece> {
    let mut state = State { on: false, paused: false, link: Held::Line };
    let held = |state: &State| match of {
        None if state.on => Held::Connected,
        _ => state.held(),
    };
    let (mut done, mut current): (Vec<Piece>, Option<Piece>) = (Vec::new(), None);
    for event in events.iter().filter(|event| event.neighbour.is_none() || event.neighbour.as_ref() == of) {
        let before = held(&state);
        let word = state.take(event.what);
        let (ends, begins) = match event.what {
            What::Clock(was) => (was, event.at),
            _ if held(&state) == before && current.is_some() => continue,
            _ => (event.at, event.at),
        };
        let known = current.is_some() || known_at_once || event.neighbour.is_some();
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
            // The first start: there was no link yet that could be down.
            None if waits => {}
            Some(last) if last.to != Some(piece.from) || last.held == Held::Connected => out.push(piece),
            Some(last) if last.held == piece.held => last.to = piece.to,
            Some(last) if waits && matches!(last.held, Held::Off | Held::Paused | Held::Closed) => {
                last.to = piece.to;
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

/// When a neighbour was connected, and when and why it was not.
pub fn neighbour(events: &[Event], place: &OrgPath, is_parent: bool, from: i64, now: i64) -> Neighbour {
    let pieces = joined(pieces(events, Some(place), is_parent)).into_iter();
    let pieces: Vec<Piece> = pieces.filter_map(|piece| piece.within(from, now)).collect();
    let (connected, out): (Vec<Piece>, Vec<Piece>) =
        pieces.iter().partition(|piece| piece.held == Held::Connected);
    let sum = |pieces: &[Piece]| pieces.iter().fold(0, |sum: i64, it| sum.saturating_add(it.millis(now)));
    let outage = |piece: &Piece| Outage { from: piece.from, to: piece.to, why: piece.held.word().to_owned() };
    Neighbour {
        place: place.clone(),
        direction: if is_parent { "up" } else { "down" }.to_owned(),
        from: pieces.first().map(|piece| piece.from),
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
        "root/hub/leaf".parse().unwrap()
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
        neighbour(&events, &place(), true, from, now * MIN)
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
            neighbour(&events, &place(), true, i64::MIN, i64::MAX);
        }
    }

    #[test]
    fn the_period_cuts_what_lies_before() {
        let events =
            log(&[(0, Started), (0, Connected), (10, Lost), (30, Connected), (40, Lost), (50, Connected)]);
        let since = |from: i64| neighbour(&events, &place(), true, from * MIN, 60 * MIN);
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
        let child = neighbour(&events, &place(), false, 0, 50 * MIN);
        assert_eq!((child.from, child.out_millis), (Some(30 * MIN), 10 * MIN));
        events.truncate(1);
        let never = neighbour(&events, &place(), false, 0, 50 * MIN);
        assert_eq!((never.from, never.outages.len()), (None, 0));
    }
}
