//! Bundles between two neighbours that never meet: what goes in, what is taken, what is acknowledged.

use super::*;
use crate::{
    engine::courier::*,
    id::Secrecy,
    order::tests::{closed, order},
};

const STICK: LinkId = LinkId(900);
const AGAIN: LinkId = LinkId(3);

/// A bundle: where it goes on, and its frames.
#[derive(Clone)]
struct Stick {
    from: Vec<(Lane, Cursor)>,
    upto: Vec<(Lane, Cursor)>,
    frames: Vec<Frame>,
}

impl Stick {
    fn entries(&self) -> usize {
        let batches = self.frames.iter().filter_map(|frame| match frame {
            Frame::Batch(batch) => Some(batch.entries.len()),
            _ => None,
        });
        batches.sum()
    }
}

impl Node {
    fn exports(&self, to: u8, since: Since) -> Stick {
        self.exports_after(&[], to, since)
    }

    /// With what the neighbour has said.
    fn exports_from(&self, has: &[(Lane, Cursor)], to: u8) -> Stick {
        self.exports_as(&Heard { has: has.to_vec(), ..Heard::default() }, to, Since::Acknowledged)
    }

    fn exports_after(&self, last: &[(Lane, Cursor)], to: u8, since: Since) -> Stick {
        self.exports_as(&Heard { last: last.to_vec(), ..Heard::default() }, to, since)
    }

    fn exports_as(&self, heard: &Heard, to: u8, since: Since) -> Stick {
        let mut export = self.engine.export(info(to), since, heard, &self.store, self.now).unwrap().unwrap();
        let from = export.from().to_vec();
        let mut frames = Vec::new();
        while let Some(more) = self.engine.export_next(&mut export, &self.store).unwrap() {
            frames.extend(more);
        }
        assert!(self.engine.export_holds(&export));
        let upto = self.engine.export_reached(&export, &self.store).unwrap();
        Stick { from, upto, frames }
    }

    fn imports(&mut self, by: u8, stick: &Stick) -> Imported {
        self.imports_in_order(by, stick, true)
    }

    fn imports_in_order(&mut self, by: u8, stick: &Stick, newest: bool) -> Imported {
        let (link, from) = (STICK, stick.from.clone());
        let mut effects =
            self.told(Event::Bundle { link, peer: info(by), chain: vec![vec![1]], from, newest });
        for frame in &stick.frames {
            effects.extend(self.told(Event::Bundled(link, frame.clone())));
        }
        effects.extend(self.told(Event::BundleEnds(link)));
        let imported = effects.into_iter().find_map(|effect| match effect {
            Effect::Imported(STICK, imported) => Some(*imported),
            _ => None,
        });
        imported.expect("a bundle that ends is answered")
    }

    fn hub_has(&self) -> Seq {
        self.engine.frontier(Frontier::Hub, Lane::Normal)
    }

    fn root_has(&self) -> Seq {
        self.engine.frontier(Frontier::Root, Lane::Normal)
    }
}

fn child_with(rows: u64) -> Node {
    let mut child = Node::new(CHILD);
    (1..=rows).for_each(|n| drop(child.writes(n)));
    child
}

fn counts(imported: &Imported) -> (u64, u64, u64) {
    assert_eq!(imported.refused, None);
    (imported.new, imported.known, imported.aside)
}

#[test]
fn rows_go_up_and_acknowledgements_come_down() {
    let (mut child, mut hub, mut root) = (child_with(3), Node::new(HUB), Node::new(ROOT));
    let up = child.exports(HUB, Since::Acknowledged);
    assert_eq!((up.from.len(), up.entries(), child.hub_has()), (0, 3, 0));
    let imported = hub.imports(CHILD, &up);
    assert_eq!((counts(&imported), imported.gaps), ((3, 0, 0), vec![]));
    // Once more it changes nothing, and it says so.
    let (tip, commits) = (hub.store.tip().unwrap(), hub.commits);
    assert_eq!(counts(&hub.imports(CHILD, &up)), (0, 3, 0));
    assert_eq!(hub.store.tip().unwrap(), tip);
    assert!(hub.commits >= commits);

    let down = hub.exports(CHILD, Since::Acknowledged);
    assert_eq!(down.entries(), 0, "what came from it is not given back");
    assert_eq!(child.hub_has(), 0);
    child.imports(HUB, &down);
    assert_eq!((child.hub_has(), child.root_has()), (3, 0));
    assert_eq!(child.store.frontier(Frontier::Hub, Lane::Normal).unwrap(), 3, "it is kept");

    // The root has it, and the news goes down in two steps.
    root.imports(HUB, &hub.exports(ROOT, Since::Acknowledged));
    hub.imports(ROOT, &root.exports(HUB, Since::Acknowledged));
    assert_eq!((hub.hub_has(), hub.root_has()), (3, 3));
    child.imports(HUB, &hub.exports(CHILD, Since::Acknowledged));
    assert_eq!(child.root_has(), 3);
    // Nothing of an older bundle takes it back.
    child.imports(HUB, &down);
    assert_eq!((child.hub_has(), child.root_has()), (3, 3));

    // The next one holds only what is new.
    child.writes(4);
    let next = child.exports(HUB, Since::Acknowledged);
    assert_eq!((next.from[0].1.at.pos, next.entries()), (3, 1));
    assert_eq!(child.exports(HUB, Since::Start).entries(), 4);
    assert_eq!(counts(&hub.imports(CHILD, &next)), (1, 0, 0));
}

#[test]
fn a_stick_that_overtakes_another_is_taken_and_the_place_stays() {
    let (mut child, mut hub) = (child_with(2), Node::new(HUB));
    let first = child.exports(HUB, Since::Acknowledged);
    child.writes(3);
    let second = child.exports_from(&first.upto, HUB);
    assert_eq!((second.from[0].1.at.pos, second.entries()), (2, 1));
    let imported = hub.imports(CHILD, &second);
    assert_eq!((counts(&imported), &imported.gaps[..]), ((1, 0, 0), &[Lane::Normal][..]));
    assert_eq!(hub.store.read_of_node(info(CHILD).node).unwrap(), []);
    // So it is not acknowledged, though it is there.
    child.imports(HUB, &hub.exports(CHILD, Since::Acknowledged));
    assert_eq!(child.hub_has(), 0);

    assert_eq!(counts(&hub.imports(CHILD, &first)), (2, 0, 0));
    let imported = hub.imports(CHILD, &second);
    assert_eq!((counts(&imported), &imported.gaps[..]), ((0, 1, 0), &[][..]));
    child.imports(HUB, &hub.exports(CHILD, Since::Acknowledged));
    assert_eq!(child.hub_has(), 3);
    // A lost one is made good by the next from where the other is known to be.
    assert_eq!(hub.store.tip().unwrap(), 3);
}

#[test]
fn what_is_not_durable_is_acknowledged_in_no_bundle() {
    let (child, mut hub) = (child_with(2), Node::new(HUB));
    let stick = child.exports(HUB, Since::Start);
    let from = stick.from.clone();
    let (link, peer, newest) = (STICK, info(CHILD), true);
    hub.handles(Event::Bundle { link, peer, chain: vec![vec![1]], from, newest });
    for frame in &stick.frames {
        hub.handles(Event::Bundled(STICK, frame.clone()));
    }
    hub.handles(Event::BundleEnds(STICK));
    let mut commits = 0;
    loop {
        let mut child = child.clone();
        child.imports(HUB, &hub.exports(CHILD, Since::Start));
        let durable =
            hub.store.read(Lane::Normal, run(CHILD, 1)).unwrap().map_or(0, |read| read.cursor.at.pos);
        assert_eq!(child.hub_has(), durable, "after {commits} commits");
        match hub.engine.poll_effect() {
            Some(Effect::Commit(batch)) => {
                hub.store.commit(&batch).unwrap();
                commits += 1;
                hub.handles(Event::Committed);
            }
            Some(Effect::Imported(_, imported)) => {
                assert_eq!((imported.new, durable), (2, 2), "it is told when all is durable");
                break;
            }
            effect => assert!(effect.is_some()),
        }
    }
    assert!(commits >= 2, "announcements first, then entries");
}

#[test]
fn what_is_secret_stays_and_is_counted() {
    let mut child = child_with(1);
    let secret = entry(child.engine.incarnation(), 2, Lane::Normal, 1).with_secrecy(Secrecy::Mat);
    child.told(Event::Write { ticket: Ticket(2), entries: vec![secret], projection: Vec::new() });
    child.writes(3);
    let export = child
        .engine
        .export(info(HUB), Since::Start, &Heard::default(), &child.store, child.now)
        .unwrap()
        .unwrap();
    assert_eq!(child.engine.export_keeps_back(&export, &child.store).unwrap(), 1);
    let stick = child.exports(HUB, Since::Start);
    assert_eq!(stick.entries(), 2);
    // One that is in a bundle all the same is taken from nobody, and what went before stays.
    let mut hub = Node::new(HUB);
    let mut bad = stick.clone();
    for frame in &mut bad.frames {
        if let Frame::Batch(batch) = frame {
            let last = batch.entries.last_mut().unwrap();
            last.1 = last.1.clone().with_secrecy(Secrecy::Mat);
        }
    }
    let refused = hub.imports(CHILD, &bad).refused.unwrap();
    assert_eq!(refused.0, refusal::SECRET);
    assert_eq!(hub.store.read_of_node(info(CHILD).node).unwrap(), []);
}

#[test]
fn nothing_leaves_the_part_of_the_tree_that_it_is_for() {
    let mut hub = Node::new(HUB);
    hub.imports(CHILD, &child_with(2).exports(HUB, Since::Start));
    let mut child = child_with(0);
    hub.writes(9);
    assert_eq!(hub.exports(CHILD, Since::Start).entries(), 1, "of dv, by the hub");
    assert_eq!(counts(&child.imports(HUB, &hub.exports(CHILD, Since::Start))), (1, 0, 0));
    assert_eq!(hub.exports(SISTER, Since::Start).entries(), 0);
    let stranger =
        hub.engine.export(info(AUNT), Since::Start, &Heard::default(), &hub.store, hub.now).unwrap();
    assert!(stranger.is_err(), "the aunt is no neighbour");
}

#[test]
fn a_bundle_that_is_not_for_this_node_to_take_is_refused() {
    let stick = child_with(2).exports(HUB, Since::Start);
    let of = |change: fn(&mut Vec<Frame>)| {
        let mut other = stick.clone();
        change(&mut other.frames);
        other
    };
    for (stick, by, wrong) in [
        (stick.clone(), AUNT, "tw/qn"),
        (of(|frames| frames.retain(|frame| !matches!(frame, Frame::Announce(_)))), CHILD, "not its sender's"),
        (of(|frames| frames.retain(|frame| !matches!(frame, Frame::Hello(_)))), CHILD, "what no bundle may"),
        (of(|frames| frames.truncate(1)), CHILD, "before it has said everything"),
        (of(|frames| frames.push(Frame::Lost)), CHILD, "what no bundle may"),
        (of(|frames| frames.push(frames[1].clone())), CHILD, "what no bundle may"),
        (of(|frames| frames.push(frames[2].clone())), CHILD, "leaves out"),
        (
            of(|frames| {
                if let Frame::Batch(batch) = &mut frames[2] {
                    batch.upto = None;
                }
            }),
            CHILD,
            "before it has said everything",
        ),
        (
            of(|frames| {
                if let Frame::Batch(batch) = &mut frames[2] {
                    batch.upto = Some((99, CHAIN_START));
                }
            }),
            CHILD,
            "further than",
        ),
    ] {
        let mut hub = Node::new(HUB);
        let refused = hub.imports(by, &stick).refused;
        let text = refused.unwrap_or_else(|| panic!("{wrong}: taken")).1;
        assert!(text.contains(wrong), "{wrong}: {text}");
        let left_out =
            stick.frames.last().is_some_and(|frame| *frame == Frame::Lost) || stick.frames.len() == 4;
        assert_eq!(hub.store.tip().unwrap(), if left_out { 2 } else { 0 }, "{wrong}");
    }
    // A node without a chain that leads to the root.
    let mut hub = Node::new(HUB);
    let from = stick.from.clone();
    let (link, peer, newest) = (STICK, info(CHILD), true);
    hub.told(Event::Bundle { link, peer, chain: Vec::new(), from, newest });
    for frame in &stick.frames[1..] {
        hub.told(Event::Bundled(STICK, frame.clone()));
    }
    hub.told(Event::BundleEnds(STICK));
    assert_eq!(hub.store.tip().unwrap(), 0);
}

#[test]
fn another_writer_under_the_same_name_moves_no_place() {
    // Two machines of one run: both have row 1, and each a row 2 of its own.
    let mut one = child_with(1);
    let mut other = one.clone();
    let (mut hub, first) = (Node::new(HUB), one.exports(HUB, Since::Start));
    hub.imports(CHILD, &first);
    one.writes(2);
    other.writes(3);
    let of_one = one.exports_from(&first.upto, HUB);
    hub.imports(CHILD, &of_one);
    other.writes(4);
    let whole = other.exports_from(&of_one.upto, HUB);
    // It knows of no row 2 like that of the first machine: it begins at the beginning, and all of it comes.
    assert_eq!(whole.from.len(), 0);
    let mut late = whole.clone();
    late.from = of_one.upto.clone();
    late.from[0].1.chain = Some(Chain([7; 16]));
    late.frames.retain(|frame| !matches!(frame, Frame::Batch(_)));
    assert_eq!(hub.imports(CHILD, &late).gaps, []);
    assert_eq!(counts(&hub.imports(CHILD, &whole)), (2, 1, 0));
    assert_eq!(hub.store.tip().unwrap(), 4);
    // The second one hears of it from the next bundle of the hub, and gives its part another name.
    let down = hub.exports(CHILD, Since::Start);
    other.imports(HUB, &down);
    assert!(other.engine.incarnation() != run(CHILD, 1));
    one.imports(HUB, &down);
    assert!(one.engine.incarnation() == run(CHILD, 1));
    assert_eq!((one.hub_has(), other.hub_has()), (2, 0));
}

#[test]
fn a_link_that_stands_goes_on_from_what_a_bundle_has_brought() {
    let mut hub = Node::with_child();
    let (mut child, commits) = (child_with(2), hub.commits);
    hub.imports(CHILD, &child.exports(HUB, Since::Start));
    assert!(hub.commits > commits);
    // The link knows older places of this segment, so it is met anew.
    let told = hub.says(DOWN, Frame::Batch(batch(0, Some(1), &[1])));
    assert!(told.iter().any(|effect| matches!(effect, Effect::Close(DOWN))));
    hub.meets(LinkId(3), CHILD, Direction::Down);
    let read = hub.store.read_of_node(info(CHILD).node).unwrap();
    assert_eq!(read[0].1.at, Position { segment: run(CHILD, 1), pos: 2 });
    child.imports(HUB, &hub.exports(CHILD, Since::Start));
    assert_eq!(child.hub_has(), 2);
}

#[test]
fn what_a_restored_node_has_lost_is_not_passed_over() {
    let mut hub = Node::new(HUB);
    let mut child = child_with(1);
    hub.imports(CHILD, &child.exports(HUB, Since::Start));
    let copy = hub.clone();
    hub.writes(9);
    child.imports(HUB, &hub.exports(CHILD, Since::Start));
    child.writes(2);
    // The child takes the hub to remember its row 9, and passes it over.
    let stick = child.exports(HUB, Since::Acknowledged);
    assert_eq!(stick.entries(), 1);
    let mut restored = Node { store: copy.store, ..hub.clone() };
    restored.restarts();
    let imported = restored.imports(CHILD, &stick);
    assert!(imported.lost);
    assert_eq!(counts(&imported), (1, 0, 0));
    assert_eq!(restored.store.read(Lane::Normal, run(CHILD, 1)).unwrap().unwrap().cursor.at.pos, 1);
    // It says so, and is given what it has lost.
    let down = restored.exports(CHILD, Since::Start);
    let heard = child.imports(HUB, &down);
    assert!(heard.behind || heard.older);
    let mut known = Heard::default();
    known.hears(&heard);
    assert_eq!(child.exports_as(&known, HUB, Since::Acknowledged).entries(), 2);
}

#[test]
fn what_is_kept_without_a_place_is_given_to_the_other_machine_of_that_name() {
    let mut one = child_with(1);
    let mut other = one.clone();
    let (mut hub, first) = (Node::new(HUB), one.exports(HUB, Since::Start));
    hub.imports(CHILD, &first);
    other.writes(2);
    let lost = other.exports(HUB, Since::Start).upto;
    other.writes(3);
    let late = other.exports_from(&lost, HUB);
    assert_eq!(hub.imports(CHILD, &late).gaps, [Lane::Normal]);
    // The first one comes to that place with a row of its own.
    one.writes(4);
    one.writes(5);
    hub.imports(CHILD, &one.exports_from(&first.upto, HUB));
    assert_eq!(hub.store.read(Lane::Normal, run(CHILD, 1)).unwrap().unwrap().cursor.at.pos, 3);
    let down = hub.exports(CHILD, Since::Start);
    assert_eq!(counts(&one.imports(HUB, &down)), (1, 0, 0));
}

#[test]
fn a_bundle_goes_on_where_the_one_before_it_ended() {
    let (mut child, mut hub) = (child_with(2), Node::new(HUB));
    let first = child.exports(HUB, Since::Start);
    child.writes(3);
    let read = |hub: &Node| hub.store.read(Lane::Normal, run(CHILD, 1)).unwrap().unwrap().cursor.at.pos;
    for (last, reached) in [(&[][..], 2), (&first.upto[..], 3)] {
        let mut hub = hub.clone();
        hub.imports(CHILD, &first);
        let both = child.exports_after(last, HUB, Since::Start);
        let imported = hub.imports(CHILD, &both);
        assert_eq!((counts(&imported), imported.gaps), ((1, 2, 0), vec![]));
        // Nothing tells that what it passes over is what this node has read.
        assert_eq!(read(&hub), reached);
    }
    // Whoever has taken neither begins at the beginning.
    hub.imports(CHILD, &child.exports_after(&first.upto, HUB, Since::Start));
    assert_eq!(read(&hub), 3);
}

/// Its hub has forgotten what the root had, the root has lost its disk, and an audit with that hub does not compare it.
#[test]
fn what_a_closed_node_wrote_comes_back_by_a_stick_of_everything() {
    let (mut child, mut hub) = (child_with(3), Node::new(HUB));
    hub.imports(CHILD, &child.exports(HUB, Since::Acknowledged));
    hub.meets(UP, ROOT, Direction::Up);
    hub.says(UP, hello(ROOT));
    hub.says(UP, Frame::Announce(announcement(ROOT, 1)));
    hub.is_audited();
    let closed = order(1, vec![closed("dv", "tw")]);
    let said = hub.says(UP, Frame::Orders(vec![closed]));
    assert!(said.iter().any(|effect| matches!(effect, Effect::Forgotten(_))));
    assert_eq!(hub.store.unfolded(0, 9).unwrap(), []);

    hub.told(Event::Closed(UP));
    hub.meets(AGAIN, ROOT, Direction::Up);
    hub.says(AGAIN, hello(ROOT));
    assert_eq!(hub.root_has(), 0, "it names no place");
    child.imports(HUB, &hub.exports(CHILD, Since::Acknowledged));
    assert_eq!(child.exports(HUB, Since::Acknowledged).entries(), 0);
    let (run, tip) = (hub.engine.incarnation(), hub.store.tip().unwrap());
    let everything = child.exports(HUB, Since::Start);
    assert_eq!(counts(&hub.imports(CHILD, &everything)), (3, 0, 0));
    assert_eq!((hub.root_has(), hub.store.unfolded(0, 9).unwrap().len()), (0, 3));
    let at = Position { segment: run, pos: tip + 3 };
    hub.says(AGAIN, Frame::Ack(Lane::Normal, at));
    assert_eq!(hub.root_has(), tip + 3);
    assert_eq!(hub.store.unfolded(0, 9).unwrap(), [], "it is the root's alone again");
}

#[test]
fn while_a_parent_can_be_asked_what_a_bundle_says_it_has_does_not_count() {
    let (mut child, mut hub) = (child_with(3), Node::new(HUB));
    hub.imports(CHILD, &child.exports(HUB, Since::Start));
    let down = hub.exports(CHILD, Since::Start);
    // It came back from a backup, and has said what it has.
    child.meets(UP, HUB, Direction::Up);
    child.says(UP, hello(HUB));
    child.imports(HUB, &down);
    assert_eq!(child.hub_has(), 0);
    child.told(Event::Closed(UP));
    child.imports(HUB, &down);
    assert_eq!(child.hub_has(), 3);
}

#[test]
fn a_word_from_before_a_backup_does_not_count() {
    let (mut child, mut hub) = (child_with(2), Node::new(HUB));
    hub.imports(CHILD, &child.exports(HUB, Since::Start));
    hub.writes(9);
    child.imports(HUB, &hub.exports(CHILD, Since::Start));
    child.writes(3);
    hub.imports(CHILD, &child.exports(HUB, Since::Acknowledged));
    let late = hub.exports(CHILD, Since::Start);
    let mut taken = child.clone();
    taken.imports(HUB, &late);
    assert_eq!((child.hub_has(), taken.hub_has()), (2, 4));
    // The hub comes back with nothing, and the child reads something of its new run.
    child.meets(UP, HUB, Direction::Up);
    let Frame::Hello(hello) = hello(HUB) else { unreachable!() };
    child.says(UP, Frame::Hello(Hello { run: run(HUB, 2), ..hello }));
    child.says(UP, Frame::Lost);
    child.says(UP, Frame::Announce(announcement(HUB, 2)));
    let (segment, origin) = (run(HUB, 2), run(HUB, 2));
    let entries = vec![(1, entry(origin, 8, Lane::Normal, 1))];
    child.says(UP, Frame::Batch(EntryBatch { segment, origin, entries, ..batch(0, Some(1), &[]) }));
    child.told(Event::Closed(UP));
    assert_eq!(child.store.read_of_node(info(HUB).node).unwrap()[0].1.at, Position { segment, pos: 1 });
    assert_eq!(child.hub_has(), 0);
    child.imports(HUB, &late);
    assert_eq!(child.hub_has(), 0);
}

#[test]
fn the_latest_word_of_a_parent_that_came_back_from_a_backup_sets_back_what_it_has() {
    let (mut child, mut hub) = (child_with(1), Node::new(HUB));
    hub.imports(CHILD, &child.exports(HUB, Since::Start));
    child.imports(HUB, &hub.exports(CHILD, Since::Start));
    let copy = hub.store.clone();
    child.writes(2);
    hub.imports(CHILD, &child.exports(HUB, Since::Acknowledged));
    hub.writes(9);
    let read = child.store.read_of_node(info(HUB).node).unwrap();
    child.imports(HUB, &hub.exports_from(&read, CHILD));
    assert_eq!(child.hub_has(), 2);
    hub.store = copy;
    hub.restarts();
    hub.writes(8);
    let down = hub.exports(CHILD, Since::Start);
    // Of two words the one that was made first is not the latest, whenever it comes.
    let mut late = child.clone();
    assert!(late.imports_in_order(HUB, &down, false).older);
    assert_eq!(late.hub_has(), 2);
    assert!(child.imports(HUB, &down).older);
    assert_eq!((child.hub_has(), child.store.frontier(Frontier::Hub, Lane::Normal).unwrap()), (1, 1));
    // So the next bundle for it goes on from there. It gives back what was kept without its place.
    assert_eq!(counts(&hub.imports(CHILD, &child.exports(HUB, Since::Acknowledged))), (1, 1, 0));
    // The child has not said yet that it knows of it: it still names a place that the hub has lost.
    assert_eq!(hub.store.read(Lane::Normal, run(CHILD, 1)).unwrap().unwrap().cursor.at.pos, 1);
}

/// A node with what its host knows of the other one.
#[derive(Clone)]
struct Host {
    node: Node,
    heard: Heard,
    /// When the newest bundle was made that it has taken.
    made: u64,
}

impl Host {
    fn new(node: u8) -> Self {
        Self { node: Node::new(node), heard: Heard::default(), made: 0 }
    }

    /// Everything is as it was then, and another process begins.
    fn is_put_back(&mut self, copy: &Self) {
        self.node.store = copy.node.store.clone();
        (self.heard, self.made) = (copy.heard.clone(), copy.made);
        self.node.restarts();
    }

    fn exports(&mut self, to: u8, since: Since) -> Stick {
        let stick = self.node.exports_as(&self.heard, to, since);
        self.heard.last.clone_from(&stick.upto);
        stick
    }

    fn imports(&mut self, by: u8, made: u64, stick: &Stick) -> Imported {
        let imported = self.node.imports_in_order(by, stick, made > self.made);
        assert_eq!(imported.refused, None);
        if made > self.made {
            self.made = made;
            self.heard.hears(&imported);
        }
        imported
    }

    fn entries(&self) -> BTreeSet<RecordId> {
        let rows = 1..=self.node.store.tip().unwrap();
        rows.filter_map(|row| self.node.store.entry(row).unwrap())
            .map(|entry| entry.record().clone())
            .collect()
    }
}

/// One carries a bundle up and another down. Nothing that then counts as safe is not there.
fn carried(child: &mut Host, hub: &mut Host, made: &mut u64) {
    *made += 2;
    let up = child.exports(HUB, Since::Acknowledged);
    hub.imports(CHILD, *made, &up);
    let down = hub.exports(CHILD, Since::Acknowledged);
    child.imports(HUB, *made + 1, &down);
}

/// How many journeys up and down it takes until everything is at both, and known to be at the parent.
fn rounds_until_agreed(child: &mut Host, hub: &mut Host, made: &mut u64) -> u64 {
    for round in 1..=6 {
        carried(child, hub, made);
        let known = child.node.hub_has() >= child.node.engine.frontier(Frontier::Last, Lane::Normal);
        if known && child.entries() == hub.entries() {
            return round;
        }
    }
    let lacks =
        |one: &Host, other: &Host| other.entries().difference(&one.entries()).cloned().collect::<Vec<_>>();
    let last = child.node.engine.frontier(Frontier::Last, Lane::Normal);
    panic!(
        "the child knows {} of {last} to be there and lacks {:?}, the hub lacks {:?}",
        child.node.hub_has(),
        lacks(child, hub),
        lacks(hub, child)
    );
}

#[test]
fn after_a_restore_sticks_alone_agree_anew() {
    let (mut child, mut hub, mut made) = (Host::new(CHILD), Host::new(HUB), 0);
    (1..=3).for_each(|n| drop(child.node.writes(n)));
    hub.node.writes(100);
    assert_eq!(rounds_until_agreed(&mut child, &mut hub, &mut made), 1);
    let copies = [child.clone(), hub.clone()];
    (4..=6).for_each(|n| drop(child.node.writes(n)));
    hub.node.writes(101);
    assert_eq!(rounds_until_agreed(&mut child, &mut hub, &mut made), 1);
    for (child_too, hub_too) in [(true, false), (false, true), (true, true)] {
        let (mut child, mut hub) = (child.clone(), hub.clone());
        for (host, copy, too) in [(&mut child, &copies[0], child_too), (&mut hub, &copies[1], hub_too)] {
            if too {
                host.is_put_back(copy);
            }
        }
        child.node.writes(7);
        hub.node.writes(102);
        let rounds = rounds_until_agreed(&mut child, &mut hub, &mut made);
        assert!(rounds <= 4, "{child_too} {hub_too}: {rounds}");
        let lost = child_too && hub_too;
        assert_eq!(child.entries().len(), if lost { 6 } else { 10 });
        // And from then on as ever.
        child.node.writes(8);
        let next = child.exports(HUB, Since::Acknowledged);
        assert_eq!(next.entries(), 1, "{child_too} {hub_too}");
        assert_eq!(rounds_until_agreed(&mut child, &mut hub, &mut made), 1);
    }
}

#[test]
fn whatever_is_put_back_and_whatever_comes_late_sticks_agree_in_the_end() {
    let mut worst = 0;
    for seed in 0..4_000_u64 {
        let mut state = seed;
        let mut below = move |n: u64| {
            // Knuth's MMIX generator.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        let mut hosts = [Host::new(CHILD), Host::new(HUB)];
        let nodes = [CHILD, HUB];
        let (mut copies, mut sticks, mut made, mut written) = (Vec::new(), Vec::new(), 0, 1);
        // The hub has heard where its child stands.
        hosts[0].node.writes(1);
        let [child, hub] = &mut hosts;
        carried(child, hub, &mut made);
        for _ in 0..below(40) + 5 {
            let side = below(2) as usize;
            match below(12) {
                0..4 => {
                    for _ in 0..=below(3) {
                        written += 1;
                        hosts[side].node.writes(written);
                    }
                }
                4..6 => {
                    made += 1;
                    let since =
                        [Since::Acknowledged, Since::Last, Since::Start][below(5).saturating_sub(2) as usize];
                    sticks.push((side, made, hosts[side].exports(nodes[1 - side], since)));
                }
                6..9 if !sticks.is_empty() => {
                    let (side, made, stick) = &sticks[below(sticks.len() as u64) as usize];
                    hosts[1 - side].imports(nodes[*side], *made, stick);
                }
                9 => copies.push((side, hosts[side].clone())),
                10 if !copies.is_empty() => {
                    let (side, copy) = &copies[below(copies.len() as u64) as usize];
                    hosts[*side].is_put_back(copy);
                }
                _ => hosts[side].node.restarts(),
            }
        }
        let [child, hub] = &mut hosts;
        // Whoever has written nothing since it was put back says what an old bundle could say as well.
        for host in [&mut *child, &mut *hub] {
            written += 1;
            host.node.writes(written);
        }
        worst = worst.max(rounds_until_agreed(child, hub, &mut made));
        let there = hub.entries();
        for row in 1..=child.node.hub_has() {
            let entry = child.node.store.entry(row).unwrap().unwrap();
            assert!(there.contains(entry.record()), "seed {seed}: row {row} is said to be at the hub");
        }
    }
    assert_eq!(worst, 3);
}
