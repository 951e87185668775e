//! Attachments in courier bundles, between nodes that no line connects.

use super::*;
use crate::{
    engine::courier::*,
    id::{ContentHash, Secrecy},
};

const STICK: LinkId = LinkId(900);
/// Pieces that are written in one step.
const STEP: usize = 16;

/// The net, and what the hosts know of neighbours: by who knows it and of whom.
struct Sticks {
    net: Net,
    heard: BTreeMap<(u8, u8), Heard>,
}

/// A bundle: where it goes on, and its frames.
#[derive(Clone)]
struct Stick {
    from: Vec<(Lane, Cursor)>,
    frames: Vec<Frame>,
    attachments: (u64, u64),
    rotten: Vec<(Name, usize)>,
}

impl Stick {
    fn asks(&self) -> Vec<(u64, u64)> {
        let of = |frame: &Frame| if let Frame::Ask(ask) = frame { Some((ask.from, ask.len)) } else { None };
        self.frames.iter().filter_map(of).collect()
    }

    fn changed(mut self, change: impl Fn(&mut Frame)) -> Self {
        self.frames.iter_mut().for_each(change);
        self
    }
}

impl Sticks {
    fn new(nodes: &[u8]) -> Self {
        Self { net: Net::new(nodes), heard: BTreeMap::new() }
    }

    fn node(&mut self, node: u8) -> &mut Node {
        self.net.nodes.get_mut(&node).unwrap()
    }

    /// A bundle that is closed after so many steps of attachments.
    fn exports(&mut self, from: u8, to: u8, goes_on: bool, steps: usize) -> Stick {
        let heard = self.heard.entry((from, to)).or_default();
        let since = if goes_on { Since::Last } else { Since::Acknowledged };
        let Node { engine, store, now, .. } = &self.net.nodes[&from];
        let mut export = engine.export(info(to), since, heard, store, *now).unwrap().unwrap();
        let (mut frames, mut taken) = (Vec::new(), 0);
        loop {
            let before = export.clone();
            let Some(more) = engine.export_next(&mut export, store).unwrap() else { break };
            taken += usize::from(more.iter().any(|frame| matches!(frame, Frame::Bytes { .. })));
            if taken > steps {
                export = before;
                break;
            }
            frames.extend(more);
        }
        heard.given = export.given().clone();
        let (from, rotten) = (export.from().to_vec(), export.rotten().to_vec());
        Stick { from, frames, attachments: export.attachments(), rotten }
    }

    fn imports(&mut self, from: u8, to: u8, stick: &Stick, newest: bool) -> Imported {
        let event = Event::Bundle {
            link: STICK,
            peer: info(from),
            chain: vec![vec![1]],
            from: stick.from.clone(),
            newest,
        };
        let mut effects = self.node(to).told(event);
        for frame in &stick.frames {
            effects.extend(self.node(to).told(Event::Bundled(STICK, frame.clone())));
        }
        effects.extend(self.node(to).told(Event::BundleEnds(STICK)));
        let mut imported = None;
        for effect in effects {
            match effect {
                Effect::Imported(STICK, one) => imported = Some(*one),
                Effect::Alert(alert) => self.net.alerts.push((to, alert)),
                _ => {}
            }
        }
        let imported = imported.expect("a bundle that ends is answered");
        if newest && imported.refused.is_none() {
            self.heard.entry((to, from)).or_default().told = imported.told.clone();
        }
        imported
    }

    /// Somebody carries everything there is.
    fn carries(&mut self, from: u8, to: u8) -> Imported {
        let stick = self.exports(from, to, false, usize::MAX);
        let imported = self.imports(from, to, &stick, true);
        assert_eq!(imported.refused, None);
        imported
    }
}

/// The same as a record of somebody else.
fn of(home: &'static str) -> impl Fn(Entry) -> Entry {
    move |entry| {
        let (record, change) = (entry.record().clone(), entry.change().clone());
        Entry::new(record, org(home), Lane::Normal, change).unwrap().with_attachments(&entry.attachments())
    }
}

/// The child has written a record with content of so many bytes.
fn with_content(size: usize) -> (Sticks, Name, Vec<u8>) {
    let mut sticks = Sticks::new(&[ROOT, HUB, CHILD, SISTER]);
    let bytes = content(1, size);
    let name = sticks.net.writes(CHILD, "Basic/1", &bytes, plain);
    (sticks, name, bytes)
}

#[test]
fn content_goes_up_and_whoever_wrote_it_hears_where_it_is() {
    let (mut sticks, name, bytes) = with_content(40 * PIECE_BYTES + 1);
    let up = sticks.exports(CHILD, HUB, false, usize::MAX);
    assert_eq!(up.attachments, (1, bytes.len() as u64));
    let commits = sticks.node(HUB).commits;
    let imported = sticks.imports(CHILD, HUB, &up, true);
    assert_eq!((imported.refused, imported.attachments), (None, 1));
    assert!(sticks.node(HUB).commits < commits + 12, "pieces are made durable together");
    assert!(sticks.net.has(HUB, &name, &bytes));
    assert_eq!(sticks.net.kept(CHILD, &name), Some(Kept::Here));
    // The same once more brings nothing.
    let again = sticks.imports(CHILD, HUB, &up, true);
    assert_eq!((again.refused, again.attachments), (None, 0));

    sticks.carries(HUB, CHILD);
    assert_eq!(sticks.net.kept(CHILD, &name), Some(Kept::Parent));
    assert_eq!(sticks.exports(CHILD, HUB, false, usize::MAX).attachments, (0, 0), "it is there");
    sticks.carries(HUB, ROOT);
    assert!(sticks.net.has(ROOT, &name, &bytes));
    sticks.carries(ROOT, HUB);
    assert_eq!(sticks.net.kept(HUB, &name), Some(Kept::Root));
    // It waits to hear of the root, and says so with every bundle.
    sticks.carries(CHILD, HUB);
    sticks.carries(HUB, CHILD);
    assert_eq!(sticks.net.kept(CHILD, &name), Some(Kept::Root));
    let quiet = sticks.exports(CHILD, HUB, false, usize::MAX);
    assert!(!quiet.frames.iter().any(|frame| matches!(frame, Frame::Kept(..))));
}

#[test]
fn content_goes_on_over_several_sticks_in_any_order() {
    let pieces = 2 * STEP + 3;
    let (mut sticks, name, bytes) = with_content(pieces * PIECE_BYTES);
    let first = sticks.exports(CHILD, HUB, false, 1);
    let second = sticks.exports(CHILD, HUB, true, 1);
    let third = sticks.exports(CHILD, HUB, true, usize::MAX);
    let step = (STEP * PIECE_BYTES) as u64;
    let sizes = [&first, &second, &third].map(|stick| stick.attachments.1);
    assert_eq!(sizes, [step, step, bytes.len() as u64 - 2 * step]);
    assert_eq!(sticks.imports(CHILD, HUB, &third, true).attachments, 0);
    assert_eq!(sticks.net.held(HUB, &name).unwrap().lacking, 2 * STEP);
    // One that was lost is asked for, from the first byte that is not there.
    assert_eq!(sticks.imports(CHILD, HUB, &first, false).attachments, 0);
    let down = sticks.exports(HUB, CHILD, false, usize::MAX);
    assert_eq!(down.asks(), [(step, ASK_MAX_BYTES)]);
    sticks.imports(HUB, CHILD, &down, true);
    let rest = sticks.exports(CHILD, HUB, false, usize::MAX);
    assert_eq!(rest.attachments, (1, bytes.len() as u64 - step));
    assert_eq!(sticks.imports(CHILD, HUB, &second, false).attachments, 1);
    assert!(sticks.net.has(HUB, &name, &bytes));
    assert_eq!(sticks.imports(CHILD, HUB, &rest, true).attachments, 0);
}

#[test]
fn a_leaf_is_given_what_it_has_asked_for_and_nothing_else() {
    let mut sticks = Sticks::new(&[HUB, CHILD, SISTER]);
    let bytes = content(3, 3 * PIECE_BYTES);
    let of_child = of("dv");
    sticks.net.writes(CHILD, "Basic/own", &bytes, plain);
    sticks.carries(CHILD, HUB);
    let names = ["Basic/1", "Basic/2"].map(|record| sticks.net.writes(HUB, record, &bytes, &of_child));
    assert_eq!(sticks.carries(HUB, CHILD).attachments, 0);
    assert_eq!(sticks.net.held(CHILD, &names[0]).unwrap().lacking, 3);
    sticks.net.told(CHILD, Event::Fetch(names[0].clone()));
    let up = sticks.exports(CHILD, HUB, false, usize::MAX);
    assert_eq!(up.asks(), [(0, 3 * PIECE_BYTES as u64)]);
    sticks.imports(CHILD, HUB, &up, true);
    assert_eq!(sticks.exports(HUB, SISTER, false, usize::MAX).attachments, (0, 0));
    assert_eq!(sticks.carries(HUB, CHILD).attachments, 1);
    assert!(sticks.net.has(CHILD, &names[0], &bytes));
    assert_eq!(sticks.net.kept(CHILD, &names[0]), Some(Kept::Parent), "it comes from there");
    assert_eq!(sticks.net.held(CHILD, &names[1]).unwrap().lacking, 3);
    // Its newest word counts: it asks for nothing any more.
    sticks.carries(CHILD, HUB);
    assert_eq!(sticks.exports(HUB, CHILD, false, usize::MAX).attachments, (0, 0));
    sticks.carries(HUB, CHILD);
    assert_eq!(sticks.net.kept(CHILD, &names[0]), Some(Kept::Parent));
}

#[test]
fn what_is_not_for_the_neighbour_is_on_no_stick() {
    for (change, may) in [
        (Box::new(plain) as Box<dyn Fn(Entry) -> Entry>, false),
        (Box::new(|entry| opened("qb", entry)), true),
        (Box::new(|entry| opened("qb", entry).with_secrecy(Secrecy::Mat)), false),
    ] {
        let mut sticks = Sticks::new(&[HUB, CHILD, SISTER]);
        let name = sticks.net.writes(CHILD, "Basic/1", &content(1, 2 * PIECE_BYTES), change);
        sticks.carries(CHILD, HUB);
        // So it is known where that stands.
        sticks.net.writes(SISTER, "Basic/2", &content(2, 2 * PIECE_BYTES), plain);
        sticks.carries(SISTER, HUB);
        let told = Told { asks: [(name.clone(), 0)].into(), holds: [name.clone()].into() };
        let of = |sticks: &mut Sticks| {
            sticks.heard.entry((HUB, SISTER)).or_default().told = told.clone();
            sticks.exports(HUB, SISTER, false, usize::MAX)
        };
        let says = |stick: &Stick| {
            stick
                .frames
                .iter()
                .any(|frame| matches!(frame, Frame::Kept(..) | Frame::Tree(..) | Frame::Bytes { .. }))
        };
        assert_eq!(says(&of(&mut sticks)), may);
        sticks.node(HUB).now.wall = END;
        assert!(!says(&of(&mut sticks)), "the grant has ended");
    }
}

#[test]
fn a_parent_that_asks_does_not_have_it() {
    let (mut sticks, name, bytes) = with_content(2 * PIECE_BYTES);
    let up = sticks.exports(CHILD, HUB, false, usize::MAX);
    // It came back from a copy that has the rows alone.
    let copy = up.clone().changed(|frame| {
        if let Frame::Tree(..) | Frame::Bytes { .. } = frame {
            *frame = Frame::Kept(name.clone(), Kept::Here);
        }
    });
    sticks.imports(CHILD, HUB, &copy, true);
    let lacks = sticks.exports(HUB, CHILD, false, usize::MAX);
    sticks.imports(CHILD, HUB, &up, true);
    let has = sticks.exports(HUB, CHILD, false, usize::MAX);
    assert!(lacks.asks().len() == 1 && has.asks().is_empty());
    sticks.imports(HUB, CHILD, &has, true);
    assert_eq!(sticks.net.kept(CHILD, &name), Some(Kept::Parent));
    // What it has said before that counts no more, either way.
    sticks.imports(HUB, CHILD, &lacks, false);
    assert_eq!(sticks.net.kept(CHILD, &name), Some(Kept::Parent));
    sticks.imports(HUB, CHILD, &lacks, true);
    assert_eq!(sticks.net.kept(CHILD, &name), Some(Kept::Here));
    sticks.imports(HUB, CHILD, &has, false);
    assert_eq!(sticks.net.kept(CHILD, &name), Some(Kept::Here));
    assert_eq!(sticks.exports(CHILD, HUB, false, usize::MAX).attachments, (1, bytes.len() as u64));
    // While it can be asked itself no stick tells.
    sticks.node(CHILD).meets(UP, HUB, Direction::Up);
    sticks.imports(HUB, CHILD, &has, true);
    assert_eq!(sticks.net.kept(CHILD, &name), Some(Kept::Here));
    sticks.node(CHILD).told(Event::Closed(UP));
    sticks.imports(HUB, CHILD, &has, true);
    assert_eq!(sticks.net.kept(CHILD, &name), Some(Kept::Parent));
    sticks.node(CHILD).meets(LinkId(901), HUB, Direction::Up);
    sticks.imports(HUB, CHILD, &lacks, true);
    assert_eq!(sticks.net.kept(CHILD, &name), Some(Kept::Parent));
}

/// Whoever was asked has given nothing: it may not have it.
#[test]
fn what_a_stick_brings_is_not_at_the_parent_because_that_was_asked() {
    let (mut sticks, name, bytes) = with_content(2 * PIECE_BYTES);
    let up = sticks.exports(CHILD, HUB, false, usize::MAX);
    let rows = up.clone().changed(|frame| {
        if let Frame::Tree(..) | Frame::Bytes { .. } = frame {
            *frame = Frame::Kept(name.clone(), Kept::Here);
        }
    });
    sticks.imports(CHILD, HUB, &rows, true);
    let hub = sticks.node(HUB);
    hub.meets(UP, ROOT, Direction::Up);
    let said = hub.says(UP, hello(ROOT));
    assert!(frames(&said, UP).iter().any(|frame| matches!(frame, Frame::Ask(_))), "{said:?}");
    sticks.imports(CHILD, HUB, &up, true);
    assert_eq!(sticks.net.kept(HUB, &name), Some(Kept::Here));
    assert!(sticks.net.has(HUB, &name, &bytes));
}

#[test]
fn what_is_something_else_is_not_kept_and_stops_nothing() {
    for spoils_tree in [false, true] {
        let (mut sticks, name, bytes) = with_content(3 * PIECE_BYTES);
        let other = content(2, 5 * PIECE_BYTES);
        let next = sticks.net.writes(CHILD, "Basic/2", &other, plain);
        let up = sticks.exports(CHILD, HUB, false, usize::MAX);
        let hash = name.attachment.hash;
        let first = up.clone().changed(|frame| match frame {
            Frame::Bytes { hash: of, from: 20_480, bytes } if !spoils_tree && *of == hash => bytes[7] ^= 1,
            Frame::Tree(of, values) if spoils_tree && *of == hash => values[1][0] ^= 1,
            _ => {}
        });
        let imported = sticks.imports(CHILD, HUB, &first, true);
        assert_eq!((imported.refused, imported.attachments), (None, 1));
        let held = sticks.net.held(HUB, &name).unwrap();
        assert!(!held.is_whole() && held.lacking >= 2, "{held:?}");
        let alert = |(node, alert): &(u8, Alert)| {
            *node == HUB && matches!(alert, Alert::NoContent { record, .. } if *record == name.record)
        };
        assert_eq!(sticks.net.alerts.iter().filter(|one| alert(one)).count(), 1);
        sticks.imports(CHILD, HUB, &up, true);
        assert!(sticks.net.has(HUB, &name, &bytes) && sticks.net.has(HUB, &next, &other));
    }
}

#[test]
fn what_does_not_go_on_is_refused_and_what_has_no_name_here_passed_over() {
    let (mut sticks, name, _) = with_content(2 * PIECE_BYTES);
    let up = sticks.exports(CHILD, HUB, false, usize::MAX);
    let hash = name.attachment.hash;
    let part = |from: u64| Frame::Bytes { hash, from, bytes: vec![1; 16] };
    let only = |more: Vec<Frame>| {
        let at = up.frames.iter().position(|frame| matches!(frame, Frame::Tree(..))).unwrap();
        let mut frames = up.frames[..at + 1].to_vec();
        frames.extend(more);
        Stick { frames, ..up.clone() }
    };
    let tree = up.frames.iter().find(|frame| matches!(frame, Frame::Tree(..))).unwrap().clone();
    for (what, more) in [
        ("not at a piece's beginning", vec![part(16)]),
        ("something is left out", vec![part(0), part(32)]),
        ("a second tree", vec![tree]),
        ("of something else", vec![Frame::Tree(ContentHash([7; 32]), vec![[0; 32]; 2])]),
        (
            "bytes of something else",
            vec![Frame::Bytes { hash: ContentHash([7; 32]), from: 0, bytes: vec![1] }],
        ),
        ("bytes without a tree", vec![Frame::Kept(name.clone(), Kept::Here), part(0)]),
        ("nothing", vec![Frame::Nothing(name.clone())]),
    ] {
        let mut fresh = Sticks::new(&[HUB, CHILD]);
        let imported = fresh.imports(CHILD, HUB, &only(more), true);
        assert_eq!(imported.refused.map(|(code, _)| code), Some(refusal::PROTOCOL), "{what}");
        assert_eq!(imported.new, 1, "{what}: rows come before");
    }
    // Its rows are not here.
    let rows = up.clone().frames.into_iter().filter(|frame| !matches!(frame, Frame::Batch(_)));
    let mut fresh = Sticks::new(&[HUB, CHILD]);
    let imported = fresh.imports(CHILD, HUB, &Stick { frames: rows.collect(), ..up.clone() }, true);
    assert_eq!((imported.refused, imported.attachments), (None, 0));
    assert_eq!(fresh.net.held(HUB, &name), None);
}

#[test]
fn what_has_rotted_is_on_no_stick() {
    let (mut sticks, name, bytes) = with_content(3 * PIECE_BYTES);
    sticks.node(CHILD).store.rot_piece(&name, 1);
    let up = sticks.exports(CHILD, HUB, false, usize::MAX);
    assert_eq!((up.attachments, &up.rotten[..]), ((1, PIECE_BYTES as u64), &[(name.clone(), 1)][..]));
    assert_eq!(sticks.imports(CHILD, HUB, &up, true).refused, None);
    assert_eq!(sticks.net.held(HUB, &name).unwrap().lacking, 2);
    sticks.net.told(CHILD, Event::Rotten(up.rotten));
    assert_eq!(sticks.exports(CHILD, HUB, false, usize::MAX).attachments, (0, 0), "it is whole no more");
    assert!(!sticks.net.has(CHILD, &name, &bytes));
}

/// A record that was open to a node for a time and has been forgotten there does not come back by a stick of that time, and
/// one that is the node's own does.
#[test]
fn what_was_forgotten_does_not_come_back_by_an_old_stick() {
    for (change, comes_back) in [
        (Box::new(|entry| opened("qb", entry)) as Box<dyn Fn(Entry) -> Entry>, false),
        (Box::new(of("qb")), true),
    ] {
        let mut sticks = Sticks::new(&[HUB, CHILD, SISTER]);
        sticks.net.writes(SISTER, "Basic/2", &content(2, 2 * PIECE_BYTES), plain);
        sticks.carries(SISTER, HUB);
        let name = sticks.net.writes(HUB, "Basic/1", &content(1, 2 * PIECE_BYTES), change);
        let stick = sticks.exports(HUB, SISTER, false, usize::MAX);
        assert_eq!(sticks.imports(HUB, SISTER, &stick, true).new, 1);
        assert_eq!(sticks.imports(HUB, SISTER, &stick, true).new, 0);
        let sister = sticks.node(SISTER);
        sister.store.commit(&[Op::Forget(name.record.clone())]).unwrap();
        sister.restarts();
        assert!(sister.store.rows_of(&name.record).unwrap().is_empty());
        let imported = sticks.imports(HUB, SISTER, &stick, false);
        assert_eq!((imported.refused, imported.new), (None, u64::from(comes_back)));
        assert_eq!(sticks.node(SISTER).store.rows_of(&name.record).unwrap().len(), usize::from(comes_back));
    }
}
