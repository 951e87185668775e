//! Attachments: who asks whom, who is given what, who is told where it is.

use super::*;
use crate::{
    attachment::{Attachment, Held, Kept, Name, PIECE_BYTES, Tree},
    engine::attachments::{NOTHINGS_MAX, WAITING_MAX},
    scope::grant::{Grant, GrantId, Step},
    wire::{ASK_MAX_BYTES, Ask},
};

mod sticks;

/// The first wall time at which the grants of these tests have ended.
const END: i64 = 1_000;

/// Nodes with lines between them, on which nothing is lost and each frame takes a millisecond.
struct Net {
    nodes: BTreeMap<u8, Node>,
    /// By whose link it is: who is at the other end, by which of its links.
    lines: BTreeMap<(u8, LinkId), (u8, LinkId)>,
    links: u64,
    queue: VecDeque<(u8, Event)>,
    /// The frames that passed: from, to.
    frames: Vec<(u8, u8, Frame)>,
    alerts: Vec<(u8, Alert)>,
    /// Bytes of content that may pass before all lines are cut.
    cut_after: Option<usize>,
}

impl Net {
    fn new(nodes: &[u8]) -> Self {
        Self {
            nodes: nodes.iter().map(|node| (*node, Node::new(*node))).collect(),
            lines: BTreeMap::new(),
            links: 100,
            queue: VecDeque::new(),
            frames: Vec::new(),
            alerts: Vec::new(),
            cut_after: None,
        }
    }

    fn connect(&mut self, child: u8, parent: u8) {
        let links = [self.links + 1, self.links + 2].map(LinkId);
        self.links += 2;
        self.lines.insert((child, links[0]), (parent, links[1]));
        self.lines.insert((parent, links[1]), (child, links[0]));
        for (node, peer, link, direction) in
            [(child, parent, links[0], Direction::Up), (parent, child, links[1], Direction::Down)]
        {
            let peer = self.nodes[&peer].engine.info().clone();
            self.tell(node, Event::Connected { link, peer, chain: vec![vec![1]], direction });
        }
        self.settle();
    }

    fn cut(&mut self) {
        self.queue.clear();
        for (node, link) in std::mem::take(&mut self.lines).into_keys() {
            self.tell(node, Event::Closed(link));
        }
        self.queue.clear();
    }

    fn tell(&mut self, node: u8, event: Event) {
        let effects = self.nodes.get_mut(&node).unwrap().told(event);
        for effect in effects {
            match effect {
                Effect::Send(link, frame) => {
                    let Some((peer, theirs)) = self.lines.get(&(node, link)).copied() else { continue };
                    self.frames.push((node, peer, frame.clone()));
                    self.queue.push_back((peer, Event::Received(theirs, frame)));
                }
                Effect::Alert(alert) => self.alerts.push((node, alert)),
                Effect::Close(link) => panic!("{node} ends {link:?}: {:?}", self.alerts),
                _ => {}
            }
        }
    }

    fn settle(&mut self) {
        while let Some((node, event)) = self.queue.pop_front() {
            if let Event::Received(_, Frame::Bytes { bytes, .. }) = &event
                && let Some(left) = &mut self.cut_after
            {
                match left.checked_sub(bytes.len()) {
                    Some(rest) => *left = rest,
                    None => {
                        self.cut_after = None;
                        return self.cut();
                    }
                }
            }
            self.nodes.values_mut().for_each(|node| node.now.mono += 1);
            self.tell(node, event);
        }
    }

    fn told(&mut self, node: u8, event: Event) {
        self.tell(node, event);
        self.settle();
    }

    /// A node writes a record with content.
    fn writes(&mut self, node: u8, record: &str, content: &[u8], change: impl Fn(Entry) -> Entry) -> Name {
        let (attachment, tree) = Tree::of(content).unwrap();
        let name = Name { record: record.parse().unwrap(), attachment };
        let run = self.nodes[&node].engine.incarnation();
        let seq = self.nodes[&node].store.tip().unwrap() + 1;
        let chunk = opaque_chunk(run, seq, &[], Stamp(1), b"x");
        let home = self.nodes[&node].engine.info().place.org().clone();
        let entry = Entry::new(name.record.clone(), home, Lane::Normal, chunk).unwrap();
        let entry = change(entry.with_attachments(&[attachment]));
        let mut projection = vec![Op::Tree(name.clone(), tree)];
        for (nth, piece) in content.chunks(PIECE_BYTES).enumerate() {
            projection.push(Op::Piece { name: name.clone(), nth, bytes: piece.to_vec() });
        }
        self.told(node, Event::Write { ticket: Ticket(seq), entries: vec![entry], projection });
        name
    }

    fn held(&self, node: u8, name: &Name) -> Option<Held> {
        self.nodes[&node].store.attachment(name).unwrap()
    }

    fn kept(&self, node: u8, name: &Name) -> Option<Kept> {
        self.held(node, name).filter(Held::is_whole).map(|held| held.kept)
    }

    fn has(&self, node: u8, name: &Name, content: &[u8]) -> bool {
        let store = &self.nodes[&node].store;
        content
            .chunks(PIECE_BYTES)
            .enumerate()
            .all(|(nth, piece)| store.piece(name, nth).unwrap().as_deref() == Some(piece))
    }

    /// Bytes of content that a node was sent.
    fn bytes_to(&self, node: u8) -> usize {
        let of = |(_, to, frame): &(u8, u8, Frame)| match frame {
            Frame::Bytes { bytes, .. } if *to == node => bytes.len(),
            _ => 0,
        };
        self.frames.iter().map(of).sum()
    }

    fn asks_of(&self, node: u8) -> Vec<(u64, u64, bool)> {
        let of = |(from, _, frame): &(u8, u8, Frame)| match frame {
            Frame::Ask(ask) if *from == node => Some((ask.from, ask.len, ask.tree)),
            _ => None,
        };
        self.frames.iter().filter_map(of).collect()
    }

    fn link(&self, node: u8, peer: u8) -> LinkId {
        let of = |((from, _), (to, _)): &(&(u8, LinkId), &(u8, LinkId))| (*from, *to) == (node, peer);
        self.lines.iter().find(of).unwrap().0.1
    }

    /// What a node is sent when its neighbour says this to it.
    fn answers(&mut self, node: u8, peer: u8, frame: Frame) -> Vec<Frame> {
        let link = self.link(node, peer);
        let effects = self.nodes.get_mut(&node).unwrap().says(link, frame);
        frames(&effects, link)
    }
}

fn content(n: u8, size: usize) -> Vec<u8> {
    (0..size).map(|at| (at % 253) as u8 ^ n).collect()
}

fn org(name: &str) -> OrgId {
    OrgId::new(name).unwrap()
}

fn opened(to: &'static str, entry: Entry) -> Entry {
    let grant = Grant { id: GrantId([1; 16]), to: org(to), until: END };
    entry.with_grants(&[Step::Opens(grant)])
}

/// Root, hub, and below it the child and its sister, who has written something.
fn family() -> Net {
    let mut net = Net::new(&[ROOT, HUB, CHILD, SISTER]);
    net.connect(HUB, ROOT);
    net.connect(CHILD, HUB);
    net.connect(SISTER, HUB);
    net.writes(SISTER, "Basic/of-sister", &content(9, PIECE_BYTES + 1), |entry| entry);
    net.frames.clear();
    net
}

fn ask(name: &Name, from: u64, len: u64) -> Frame {
    Frame::Ask(Ask { name: name.clone(), from, len, tree: false })
}

fn plain(entry: Entry) -> Entry {
    entry
}

#[test]
fn everything_flows_up_and_whoever_wrote_it_hears_where_it_is() {
    let mut net = family();
    let large = content(1, 9 * PIECE_BYTES + 5);
    let name = net.writes(CHILD, "Basic/1", &large, plain);
    for node in [ROOT, HUB, CHILD] {
        assert!(net.has(node, &name, &large), "{node}");
    }
    assert_eq!(net.held(SISTER, &name), None);
    assert_eq!((net.kept(HUB, &name), net.kept(CHILD, &name)), (Some(Kept::Root), Some(Kept::Root)));
    assert_eq!([HUB, ROOT, SISTER].map(|node| net.bytes_to(node)), [large.len(), large.len(), 0]);
    // What is asked for at once grows, the part after the one that arrives being asked for; the values come with the first part.
    let piece = PIECE_BYTES as u64;
    let asks = [
        (0, piece, true),
        (piece, piece, false),
        (2 * piece, 2 * piece, false),
        (4 * piece, 2 * piece, false),
        (6 * piece, 3 * piece + 5, false),
    ];
    assert_eq!(net.asks_of(HUB), asks);
    assert_eq!(ASK_MAX_BYTES, 4 * piece);
    // A reconnect after which nothing is new says nothing of it.
    net.cut();
    net.frames.clear();
    net.connect(HUB, ROOT);
    net.connect(CHILD, HUB);
    let is_of_content = |frame: &Frame| {
        matches!(
            frame,
            Frame::Ask(_) | Frame::Tree(..) | Frame::Bytes { .. } | Frame::Nothing(_) | Frame::Kept(..)
        )
    };
    assert!(!net.frames.iter().any(|(.., frame)| is_of_content(frame)), "{:?}", net.frames);
}

#[test]
fn nothing_is_said_to_be_where_it_is_not_durable() {
    let mut net = Net::new(&[ROOT, HUB, CHILD]);
    net.connect(CHILD, HUB);
    let one = content(1, 2 * PIECE_BYTES);
    let name = net.writes(CHILD, "Basic/1", &one, plain);
    assert_eq!((net.kept(HUB, &name), net.kept(CHILD, &name)), (Some(Kept::Here), Some(Kept::Parent)));
    net.connect(HUB, ROOT);
    assert_eq!((net.kept(HUB, &name), net.kept(CHILD, &name)), (Some(Kept::Root), Some(Kept::Root)));

    // Written while there is no line, and the hub hears of the root when the child is away.
    net.cut();
    let name = net.writes(CHILD, "Basic/2", &one, plain);
    assert_eq!(net.kept(CHILD, &name), Some(Kept::Here));
    net.connect(CHILD, HUB);
    net.cut();
    net.connect(HUB, ROOT);
    assert_eq!((net.kept(HUB, &name), net.kept(CHILD, &name)), (Some(Kept::Root), Some(Kept::Parent)));
    net.connect(CHILD, HUB);
    assert_eq!(net.kept(CHILD, &name), Some(Kept::Root));
    // A parent that asks for it does not have it, whatever it has said.
    net.cut();
    let root = net.nodes.get_mut(&ROOT).unwrap();
    (0..2).for_each(|nth| root.store.commit(&[Op::Lose(name.clone(), nth)]).unwrap());
    root.restarts();
    net.connect(HUB, ROOT);
    assert!(net.has(ROOT, &name, &one));
    assert_eq!(net.kept(HUB, &name), Some(Kept::Root), "once more");
    let said = net.answers(HUB, ROOT, ask(&name, 0, 1));
    assert!(matches!(said[..], [Frame::Bytes { .. }]));
    assert_eq!(net.kept(HUB, &name), Some(Kept::Here));
}

#[test]
fn a_leaf_fetches_what_somebody_asks_for_and_what_is_small_enough() {
    let mut net = family();
    let one = content(1, 3 * PIECE_BYTES);
    let name = net.writes(CHILD, "Basic/1", &one, |entry| opened("qb", entry));
    assert_eq!(net.held(SISTER, &name).map(|held| held.lacking), Some(3), "the record is here");
    assert_eq!(net.bytes_to(SISTER), 0);
    net.told(SISTER, Event::Fetch(name.clone()));
    assert!(net.has(SISTER, &name, &one));
    assert_eq!(net.kept(SISTER, &name), Some(Kept::Root), "it has asked where else it is");
    assert_eq!(net.bytes_to(SISTER), one.len());
    // A second time there is nothing to do.
    net.told(SISTER, Event::Fetch(name));
    assert_eq!(net.bytes_to(SISTER), one.len());
    net.told(SISTER, Event::FetchUnasked(2 * PIECE_BYTES as u64));
    let small = net.writes(CHILD, "Basic/2", &content(2, 2 * PIECE_BYTES), |entry| opened("qb", entry));
    let large = net.writes(CHILD, "Basic/3", &content(3, 2 * PIECE_BYTES + 1), |entry| opened("qb", entry));
    assert_eq!((net.kept(SISTER, &small).is_some(), net.kept(SISTER, &large)), (true, None));
    net.told(SISTER, Event::FetchUnasked(u64::MAX));
    assert!(net.kept(SISTER, &large).is_some(), "also what was there before");
}

#[test]
fn what_a_hub_does_not_have_it_asks_for_itself_and_passes_on() {
    let mut net = family();
    net.cut();
    let one = content(1, 2 * PIECE_BYTES);
    let name = net.writes(CHILD, "Basic/1", &one, |entry| opened("qb", entry));
    // The entries go up, and the line ends before the content.
    net.connect(SISTER, HUB);
    net.cut_after = Some(0);
    net.connect(CHILD, HUB);
    assert_eq!(net.held(HUB, &name).map(|held| held.lacking), Some(2));
    net.connect(SISTER, HUB);
    net.frames.clear();
    net.told(SISTER, Event::Fetch(name.clone()));
    let says_nothing = |(from, to, frame): &(u8, u8, Frame)| {
        (*from, *to) == (HUB, SISTER) && *frame == Frame::Nothing(name.clone())
    };
    assert!(net.frames.iter().any(says_nothing), "{:?}", net.frames);
    net.connect(CHILD, HUB);
    assert!(net.has(SISTER, &name, &one), "the one who waits is told");
}

#[test]
fn what_is_not_for_the_neighbour_is_as_what_is_not_there() {
    let mut net = family();
    let one = content(1, 2 * PIECE_BYTES);
    let name = net.writes(CHILD, "Basic/1", &one, plain);
    let unknown = Name { record: "Basic/none".parse().unwrap(), ..name.clone() };
    for name in [&name, &unknown] {
        assert_eq!(net.answers(HUB, SISTER, ask(name, 0, 9)), [Frame::Nothing(name.clone())]);
        assert_eq!(net.answers(HUB, SISTER, Frame::Kept(name.clone(), Kept::Here)), []);
    }
    // Its hash in a record of its own opens nothing: that record has its own content, which nobody has.
    let mut net = family();
    let name = net.writes(CHILD, "Basic/1", &one, plain);
    let stolen = |entry: Entry| entry.with_attachments(&[name.attachment]);
    net.writes(SISTER, "Basic/2", &content(2, 2 * PIECE_BYTES), stolen);
    let own = Name { record: "Basic/2".parse().unwrap(), ..name.clone() };
    net.frames.clear();
    net.told(SISTER, Event::Fetch(own.clone()));
    assert_eq!(net.bytes_to(SISTER), 0);
    assert_eq!(net.held(HUB, &own).map(|held| held.lacking), Some(2));
    // To whom it is open it is given, as long as it is; also in the middle.
    let open = net.writes(CHILD, "Basic/3", &one, |entry| opened("qb", entry));
    assert!(matches!(net.answers(HUB, SISTER, ask(&open, 0, 9))[..], [Frame::Bytes { .. }]));
    net.nodes.get_mut(&HUB).unwrap().now.wall = END;
    assert_eq!(net.answers(HUB, SISTER, ask(&open, 9, 9)), [Frame::Nothing(open.clone())]);
    // And it is not asked of whom the record is not for.
    net.frames.clear();
    net.nodes.get_mut(&HUB).unwrap().engine.contents_are_wanted_for_tests(&name);
    assert_eq!(net.answers(HUB, SISTER, Frame::Kept(name.clone(), Kept::Here)), []);
}

#[test]
fn what_is_secret_stays() {
    let mut net = family();
    let one = content(1, 2 * PIECE_BYTES);
    let name = net.writes(CHILD, "Basic/1", &one, |entry| entry.with_secrecy(crate::id::Secrecy::Mat));
    assert_eq!(net.held(HUB, &name), None);
    assert_eq!(net.answers(CHILD, HUB, ask(&name, 0, 9)), [Frame::Nothing(name.clone())]);
    // Also what the neighbour had before it became secret.
    let name = net.writes(CHILD, "Basic/2", &one, plain);
    assert!(matches!(net.answers(CHILD, HUB, ask(&name, 0, 9))[..], [Frame::Bytes { .. }]));
    let chunk = opaque_chunk(net.nodes[&CHILD].engine.incarnation(), 9, &[], Stamp(2), b"y");
    let entry = Entry::new(name.record.clone(), org("dv"), Lane::Normal, chunk).unwrap();
    let entries = vec![entry.with_secrecy(crate::id::Secrecy::Mat)];
    net.told(CHILD, Event::Write { ticket: Ticket(9), entries, projection: Vec::new() });
    assert_eq!(net.answers(CHILD, HUB, ask(&name, 0, 9)), [Frame::Nothing(name)]);
}

#[test]
fn a_transfer_goes_on_where_it_stopped() {
    let large = content(1, 4 * PIECE_BYTES);
    for (cut, goes_on, after_power_cut) in [
        (1 << 12, 1 << 12, 0),
        (PIECE_BYTES + (8 << 10), PIECE_BYTES + (8 << 10), PIECE_BYTES),
        (3 * PIECE_BYTES, 3 * PIECE_BYTES, 3 * PIECE_BYTES),
    ] {
        for loses_power in [false, true] {
            let mut net = Net::new(&[HUB, CHILD]);
            net.connect(CHILD, HUB);
            net.cut_after = Some(cut);
            let name = net.writes(CHILD, "Basic/1", &large, plain);
            assert!(!net.has(HUB, &name, &large) && net.kept(CHILD, &name) == Some(Kept::Here));
            if loses_power {
                net.nodes.get_mut(&HUB).unwrap().restarts();
            }
            net.frames.clear();
            net.connect(CHILD, HUB);
            let from = if loses_power { after_power_cut } else { goes_on };
            let asks = net.asks_of(HUB);
            assert_eq!((asks[0].0, asks[0].2), (from as u64, false), "{cut} {loses_power}");
            assert_eq!(net.bytes_to(HUB), large.len() - from);
            assert!(net.has(HUB, &name, &large));
        }
    }
}

#[test]
fn what_is_something_else_is_not_taken_and_stops_nothing() {
    let large = content(1, 2 * PIECE_BYTES);
    let (_, tree) = Tree::of(&large).unwrap();
    let wrong_tree = vec![[7; 32]; 2];
    let bytes =
        |from: u64, bytes: Vec<u8>, name: &Name| Frame::Bytes { hash: name.attachment.hash, from, bytes };
    for case in 0..4 {
        let mut hub = Node::with_child();
        let (attachment, _) = Tree::of(&large).unwrap();
        let name = Name { record: "Basic/1".parse().unwrap(), attachment };
        let entries = vec![(1, entry(run(CHILD, 1), 1, Lane::Normal, 1).with_attachments(&[attachment]))];
        let said = hub.says(DOWN, Frame::Batch(EntryBatch { entries, ..batch(0, Some(1), &[]) }));
        let asks = |said: &[Effect]| frames(said, DOWN).iter().any(|frame| matches!(frame, Frame::Ask(_)));
        assert!(asks(&said), "{said:?}");
        let hash = name.attachment.hash;
        let said = match case {
            0 => hub.says(DOWN, Frame::Tree(hash, wrong_tree.clone())),
            1 => {
                hub.says(DOWN, Frame::Tree(hash, tree.values().to_vec()));
                hub.says(DOWN, bytes(0, vec![7; PIECE_BYTES], &name))
            }
            // More than was asked for.
            2 => {
                hub.says(DOWN, Frame::Tree(hash, tree.values().to_vec()));
                hub.says(DOWN, bytes(0, vec![7; 2 * PIECE_BYTES], &name))
            }
            _ => {
                // Of an earlier ask, whose beginning nobody waited for any more.
                assert!(hub.says(DOWN, bytes(0, large[..9].to_vec(), &name)).is_empty());
                let said = hub.says(DOWN, Frame::Tree(hash, tree.values().to_vec()));
                assert!(asks(&said), "the next part, while this one arrives");
                // What nobody has asked for, or belongs to another ask.
                let said = hub.says(DOWN, bytes(7, large[7..9].to_vec(), &name));
                assert!(said.is_empty());
                let other = Name {
                    attachment: Attachment { hash: crate::id::ContentHash([1; 32]), size: 20_000 },
                    ..name.clone()
                };
                assert!(hub.says(DOWN, bytes(0, vec![1; 9], &other)).is_empty());
                assert!(hub.says(DOWN, Frame::Nothing(other)).is_empty());
                let said = hub.says(DOWN, bytes(0, large[..PIECE_BYTES].to_vec(), &name));
                assert!(!asks(&said), "all of it is on its way");
                assert_eq!(hub.store.missing(&name).unwrap(), [1]);
                continue;
            }
        };
        let alert = |effect: &Effect| matches!(effect, Effect::Alert(Alert::NoContent { record, .. }) if *record == name.record);
        assert!(said.iter().any(alert), "{case} {said:?}");
        assert_eq!(hub.store.missing(&name).unwrap(), [0, 1], "{case}");
        assert!(!said.iter().any(|effect| matches!(effect, Effect::Close(_))), "the link stands");
        // It is not asked again until it says that it has it, and everything else goes on.
        assert!(!asks(&said) && !asks(&hub.told(Event::Timeout)));
        assert!(asks(&hub.says(DOWN, Frame::Kept(name.clone(), Kept::Here))));
    }
}

/// The front part of a piece came from somebody who lied: it is not held against the other.
#[test]
fn a_piece_of_two_neighbours_that_does_not_fit_is_asked_for_anew() {
    let large = content(1, 2 * PIECE_BYTES);
    let mut net = Net::new(&[ROOT, HUB, CHILD]);
    net.connect(CHILD, HUB);
    net.cut_after = Some(1 << 12);
    let name = net.writes(CHILD, "Basic/1", &large, plain);
    net.nodes.get_mut(&HUB).unwrap().engine.spoil_parts_for_tests();
    net.connect(CHILD, HUB);
    assert!(net.has(HUB, &name, &large));
    assert_eq!(net.alerts, []);
}

#[test]
fn content_goes_when_bulk_may() {
    let mut net = Net::new(&[HUB, CHILD]);
    net.connect(CHILD, HUB);
    net.told(CHILD, Event::Lanes(Lanes::ALL.without_bulk()));
    let one = content(1, 2 * PIECE_BYTES);
    let name = net.writes(CHILD, "Basic/1", &one, plain);
    assert_eq!(net.held(HUB, &name).map(|held| held.lacking), Some(2), "the record goes");
    assert_eq!(net.asks_of(HUB), []);
    net.told(CHILD, Event::Lanes(Lanes::ALL));
    assert!(net.has(HUB, &name, &one));
    // What was asked for waits as well.
    let link = net.link(CHILD, HUB);
    net.tell(CHILD, Event::Lanes(Lanes::ALL.without_bulk()));
    assert_eq!(net.answers(CHILD, HUB, ask(&name, 0, 9)), []);
    let effects = net.nodes.get_mut(&CHILD).unwrap().told(Event::Lanes(Lanes::ALL));
    assert!(frames(&effects, link).iter().any(|frame| matches!(frame, Frame::Bytes { .. })));
}

#[test]
fn what_has_rotted_is_not_given_and_is_fetched_again() {
    let mut net = family();
    let one = content(1, 3 * PIECE_BYTES);
    let name = net.writes(CHILD, "Basic/1", &one, |entry| opened("qb", entry));
    net.nodes.get_mut(&HUB).unwrap().store.rot_piece(&name, 1);
    net.frames.clear();
    net.told(SISTER, Event::Fetch(name.clone()));
    assert!(net.has(SISTER, &name, &one) && net.has(HUB, &name, &one));
    assert_eq!(net.bytes_to(HUB), PIECE_BYTES, "one piece");
    // And so when a check finds it, also at a leaf.
    net.nodes.get_mut(&CHILD).unwrap().store.rot_piece(&name, 2);
    let rotten = net.nodes[&CHILD].store.rotten_pieces();
    assert_eq!(rotten, [(name.clone(), 2)]);
    net.frames.clear();
    net.told(CHILD, Event::Rotten(rotten));
    assert!(net.has(CHILD, &name, &one));
    assert_eq!(net.bytes_to(CHILD), PIECE_BYTES);
}

#[test]
fn what_is_forgotten_is_forgotten_with_its_content() {
    let mut net = family();
    let one = content(1, 2 * PIECE_BYTES);
    let name = net.writes(CHILD, "Basic/1", &one, |entry| opened("qb", entry));
    net.told(SISTER, Event::Fetch(name.clone()));
    assert!(net.has(SISTER, &name, &one));
    net.nodes.get_mut(&SISTER).unwrap().now.wall = END;
    net.told(SISTER, Event::Timeout);
    let parent = net.nodes[&SISTER].engine.awaits_audit().unwrap();
    net.told(SISTER, Event::Audit(parent));
    assert_eq!(net.held(SISTER, &name), None);
    assert!(!net.has(SISTER, &name, &one));
    // A piece that arrives afterwards is not kept.
    net.told(SISTER, Event::Rotten(vec![(name.clone(), 0)]));
    assert_eq!(net.held(SISTER, &name), None);
}

/// The child's machine lost power: its old connection stands for two minutes, and it is back on a new one.
#[test]
fn a_dead_connection_keeps_nothing_from_the_next() {
    let mut hub = Node::with_child();
    let (attachment, _) = Tree::of(&content(1, 2 * PIECE_BYTES)).unwrap();
    let entries = vec![(1, entry(run(CHILD, 1), 1, Lane::Normal, 1).with_attachments(&[attachment]))];
    let asks = |said: &[Effect], link| frames(said, link).iter().any(|frame| matches!(frame, Frame::Ask(_)));
    assert!(asks(&hub.says(DOWN, Frame::Batch(EntryBatch { entries, ..batch(0, Some(1), &[]) })), DOWN));
    let again = LinkId(9);
    hub.meets(again, CHILD, Direction::Down);
    let tip = Some(Position { segment: run(CHILD, 1), pos: 1 });
    let (software, revocations) = ("test".to_owned(), 0);
    let cursors = Vec::new();
    let said = hub.says(
        again,
        Frame::Hello(Hello {
            run: run(CHILD, 2),
            software,
            tip,
            cursors,
            revocations,
            allows: Secrecy::None,
        }),
    );
    assert!(asks(&said, again), "{said:?}");
}

#[test]
fn so_much_is_remembered_and_asked_for_and_no_more() {
    let mut hub = Node::with_child();
    let named = |n: u64| Name {
        record: format!("Basic/{n}").parse().unwrap(),
        attachment: Attachment { hash: crate::id::ContentHash([1; 32]), size: 20_000 },
    };
    for n in 0..WAITING_MAX as u64 + 9 {
        assert_eq!(frames(&hub.says(DOWN, ask(&named(n), 0, 9)), DOWN), [Frame::Nothing(named(n))]);
    }
    assert_eq!(hub.engine.links[&DOWN].content.waits_for_tests(), WAITING_MAX);

    let mut hub = Node::with_child();
    let all = NOTHINGS_MAX as u64 + 2;
    let entries = (1..=all).map(|n| {
        let chunk = opaque_chunk(run(CHILD, 1), n, &[], Stamp(1), b"x");
        let entry = Entry::new(named(n).record, org("dv"), Lane::Normal, chunk).unwrap();
        (n, entry.with_attachments(&[named(n).attachment]))
    });
    let batch = EntryBatch { entries: entries.collect(), ..batch(0, Some(all), &[]) };
    let mut said = frames(&hub.says(DOWN, Frame::Batch(batch)), DOWN);
    let mut asked = BTreeSet::new();
    while let Some(Frame::Ask(ask)) = said.iter().find(|frame| matches!(frame, Frame::Ask(_))).cloned() {
        asked.insert(ask.name.clone());
        said = frames(&hub.says(DOWN, Frame::Nothing(ask.name)), DOWN);
    }
    assert_eq!(asked.len(), NOTHINGS_MAX);
    // What somebody waits for is asked for all the same.
    let left = (1..=all).map(named).find(|name| !asked.contains(name)).unwrap();
    let said = frames(&hub.told(Event::Fetch(left.clone())), DOWN);
    assert!(matches!(&said[..], [Frame::Ask(ask)] if ask.name == left), "{said:?}");
}

/// The asks that wait for a lane are answered all, in order; of more than a neighbour has any use for the newest.
#[test]
fn two_asks_wait_for_their_lane() {
    let mut net = Net::new(&[HUB, CHILD]);
    net.connect(CHILD, HUB);
    let one = content(1, 3 * PIECE_BYTES);
    let name = net.writes(CHILD, "Basic/1", &one, plain);
    let (link, piece) = (net.link(CHILD, HUB), PIECE_BYTES as u64);
    net.tell(CHILD, Event::Lanes(Lanes::ALL.without_bulk()));
    for nth in 0..3 {
        assert_eq!(net.answers(CHILD, HUB, ask(&name, nth * piece, 9)), []);
    }
    let effects = net.nodes.get_mut(&CHILD).unwrap().told(Event::Lanes(Lanes::ALL));
    let given: Vec<_> = frames(&effects, link)
        .iter()
        .filter_map(|frame| if let Frame::Bytes { from, .. } = frame { Some(*from) } else { None })
        .collect();
    assert_eq!(given, [piece, 2 * piece]);
}
