//! What was announced is gone from a store: neighbours are asked again, of however many runs, and what was written goes on.

use super::*;

/// A root, a hub and its child.
struct Line {
    /// From the root down.
    nodes: [Node; 3],
    /// The links that stand, with who is above.
    links: BTreeMap<LinkId, usize>,
    made: u64,
    queue: VecDeque<(usize, Event)>,
}

const TOP: usize = 0;
const MIDDLE: usize = 1;
const BOTTOM: usize = 2;

impl Line {
    fn new() -> Self {
        let nodes = [ROOT, HUB, CHILD].map(Node::new);
        Self { nodes, links: BTreeMap::new(), made: 0, queue: VecDeque::new() }
    }

    fn tells(&mut self, at: usize, event: Event) {
        self.queue.push_back((at, event));
        while let Some((at, event)) = self.queue.pop_front() {
            for effect in self.nodes[at].told(event) {
                let (Effect::Send(link, _) | Effect::Close(link)) = effect else { continue };
                let Some(above) = self.links.get(&link) else { continue };
                let other = if *above == at { at + 1 } else { *above };
                let event = match effect {
                    Effect::Send(_, frame) => Event::Received(link, frame),
                    _ => Event::Closed(link),
                };
                self.queue.push_back((other, event));
            }
        }
    }

    /// Connects a node with the one below it.
    fn connects(&mut self, above: usize) {
        self.made += 1;
        let link = LinkId(self.made);
        self.links.insert(link, above);
        for (at, other, direction) in [(above, above + 1, Direction::Down), (above + 1, above, Direction::Up)]
        {
            let peer = self.nodes[other].engine.info().clone();
            self.queue.push_back((at, Event::Connected { link, peer, chain: vec![vec![1]], direction }));
        }
        let (at, first) = self.queue.pop_front().expect("there are two");
        self.tells(at, first);
    }

    /// The same as often as one of the two ends the link, which it may do to be met anew.
    fn meets(&mut self, above: usize) {
        for _ in 0..5 {
            self.connects(above);
            if self.nodes[above..]
                .iter()
                .take(2)
                .all(|node| node.engine.links.contains_key(&LinkId(self.made)))
            {
                return assert!(self.settled(above), "{above}: {:?}", self.links);
            }
        }
        panic!("the link below {above} never stands");
    }

    fn settled(&self, above: usize) -> bool {
        let link = LinkId(self.made);
        self.nodes[above..].iter().take(2).all(|node| node.engine.links[&link].is_settled())
    }

    /// Another process of a node, with which nobody is connected.
    fn restarts(&mut self, at: usize) {
        for (link, above) in std::mem::take(&mut self.links) {
            if above == at || above + 1 == at {
                let other = if above == at { at + 1 } else { above };
                self.tells(other, Event::Closed(link));
            } else {
                self.links.insert(link, above);
            }
        }
        self.nodes[at].restarts();
    }

    fn writes(&mut self, at: usize, seq: u64) {
        let entries = vec![entry(self.nodes[at].engine.incarnation(), seq, Lane::Normal, 1)];
        self.tells(at, Event::Write { ticket: Ticket(seq), entries, projection: Vec::new() });
    }

    fn entries(&self) -> [u64; 3] {
        [TOP, MIDDLE, BOTTOM]
            .map(|at| self.nodes[at].store.digests().unwrap().iter().map(|(_, digest)| digest.count).sum())
    }

    fn safe(&self) -> bool {
        self.nodes[BOTTOM].engine.all_at_root()
    }

    /// Of everybody several runs that have written, all of it everywhere, and no link.
    fn of_many_runs() -> Self {
        let mut line = Self::new();
        let mut seq = 0;
        for _ in 0..4 {
            for above in [TOP, MIDDLE] {
                line.meets(above);
            }
            for at in [BOTTOM, MIDDLE, TOP] {
                seq += 1;
                line.writes(at, seq);
            }
            for at in [TOP, MIDDLE, BOTTOM] {
                line.restarts(at);
            }
        }
        assert_eq!(line.entries(), [12; 3]);
        line
    }
}

#[test]
fn whoever_has_lost_all_announcements_goes_on_with_its_neighbours() {
    for (loses, who_is_who) in [TOP, MIDDLE, BOTTOM].into_iter().flat_map(|at| [(at, false), (at, true)]) {
        for order in [[TOP, MIDDLE], [MIDDLE, TOP]] {
            let mut line = Line::of_many_runs();
            // Of the runs that write this nobody else has heard. Whoever does not know where the child stands sends it nothing.
            let is_heard = |at: &usize| !who_is_who || *at != loses || *at == BOTTOM;
            let writers: Vec<_> = [TOP, MIDDLE, BOTTOM].into_iter().filter(is_heard).collect();
            for at in &writers {
                line.writes(*at, 20 + *at as u64);
                line.restarts(*at);
                line.writes(*at, 30 + *at as u64);
            }
            line.nodes[loses].store.lose_announcements(who_is_who);
            line.restarts(loses);
            order.into_iter().for_each(|above| line.meets(above));
            let all = 12 + 2 * writers.len() as u64;
            assert_eq!((line.entries(), line.safe()), ([all; 3], true), "{loses} {who_is_who} {order:?}");
            line.writes(BOTTOM, 40);
            line.writes(TOP, 41);
            assert_eq!((line.entries(), line.safe()), ([all + 2; 3], true), "{loses} {who_is_who} {order:?}");
        }
    }
}

/// The parent answers with any run of a child's, and what comes before that is told by nobody but the child.
#[test]
fn a_run_that_is_announced_alone_does_not_keep_those_before_it_away() {
    for nth in 0..4 {
        let mut line = Line::of_many_runs();
        line.writes(BOTTOM, 20);
        let run = line.nodes[BOTTOM].engine.segments[nth].incarnation;
        line.nodes[MIDDLE].store.lose_announcements(true);
        line.restarts(MIDDLE);
        line.meets(TOP);
        let (alone, info) = line.nodes[TOP].store.announcement(run).unwrap().unwrap();
        line.nodes[MIDDLE].store.commit(&[Op::Announce(alone, info)]).unwrap();
        line.meets(MIDDLE);
        assert_eq!((line.entries(), line.safe()), ([13; 3], true), "{nth}");
    }
}

/// What a child has brought is still to go up, and only the child can tell who wrote it.
#[test]
fn whoever_wants_a_run_is_told_when_it_is_known() {
    let mut line = Line::of_many_runs();
    line.meets(MIDDLE);
    line.writes(BOTTOM, 20);
    line.restarts(BOTTOM);
    line.nodes[MIDDLE].store.lose_announcements(true);
    line.restarts(MIDDLE);
    line.meets(TOP);
    assert_eq!((line.entries(), line.safe()), ([12, 13, 13], false));
    line.meets(MIDDLE);
    assert_eq!((line.entries(), line.safe()), ([13; 3], true));
}

#[test]
fn a_run_that_nobody_here_knows_is_asked_for_where_it_may_be_known() {
    let mut hub = Node::with_parent(HUB, ROOT);
    let [sister, hub_below] = [DOWN, LinkId(3)];
    hub.meets(sister, SISTER, Direction::Down);
    hub.says(sister, hello(SISTER));
    let peer = NodeInfo { role: Role::Hub, ..info(CHILD) };
    hub.told(Event::Connected { link: hub_below, peer, chain: vec![vec![1]], direction: Direction::Down });
    hub.says(hub_below, hello(CHILD));
    let wanted = run(COUSIN, 3);
    let asked = hub.says(UP, Frame::Need(wanted));
    let need = [Frame::Need(wanted)];
    assert_eq!(frames(&asked, UP), need, "who asks may hear of it first");
    assert_eq!((&frames(&asked, hub_below)[..], frames(&asked, sister)), (&need[..], Vec::new()));
    assert!(hub.says(UP, Frame::Need(wanted)).is_empty(), "once");
    // The child whose run it is, and who comes later.
    let own = run(SISTER, 7);
    assert_eq!(frames(&hub.says(UP, Frame::Need(own)), sister), [Frame::Need(own)]);
    hub.told(Event::Closed(hub_below));
    let peer = NodeInfo { role: Role::Hub, ..info(CHILD) };
    hub.told(Event::Connected { link: hub_below, peer, chain: vec![vec![1]], direction: Direction::Down });
    let asked = frames(&hub.says(hub_below, hello(CHILD)), hub_below);
    assert_eq!(asked.iter().filter(|frame| matches!(frame, Frame::Need(_))).count(), 2);
    // Whoever brings it, who wants it is told, and once.
    let told = hub.says(hub_below, Frame::Announce(announcement(COUSIN, 3)));
    let said = Announcement { chain: vec![vec![1]], ..announcement(COUSIN, 3) };
    assert_eq!(frames(&told, UP), [Frame::Announce(said)]);
    assert_eq!(hub.engine.queues().places, 1, "the other is wanted still");
    // Not more than so many.
    for n in 0..=PLACES_MAX {
        let fresh = u64::try_from(n).unwrap().to_be_bytes();
        hub.says(UP, Frame::Need(Incarnation::of(NodeId([COUSIN; 16]), fresh)));
    }
    assert_eq!(hub.engine.queues().places, PLACES_MAX);
    assert_eq!(hub.engine.links[&hub_below].asked.len(), PLACES_MAX / 2);
}
