//! Who is sent much hears how much is still to come, until nothing is.

use super::{audit::Pair, *};
use crate::{engine::send::COUNTED_AT_ONCE, session::TO_COME_EVERY_MILLIS};

impl Node {
    fn writes_large(&mut self, seqs: std::ops::RangeInclusive<u64>, lane: Lane) -> Vec<Effect> {
        let write = |seq| {
            let entries = vec![entry(self.engine.incarnation(), seq, lane, 16_000)];
            self.told(Event::Write { ticket: Ticket(seq), entries, projection: Vec::new() })
        };
        seqs.flat_map(write).collect()
    }
}

fn to_come(effects: &[Effect], link: LinkId) -> Vec<u64> {
    let count = |frame| match frame {
        Frame::ToCome(count) => Some(count),
        _ => None,
    };
    frames(effects, link).into_iter().filter_map(count).collect()
}

#[test]
fn a_neighbour_hears_how_much_is_still_to_come_until_all_is_under_way() {
    let mut child = Node::with_parent(CHILD, HUB);
    let to_go = |child: &Node| child.engine.links().next().unwrap().to_go;
    let ack = |child: &mut Node, pos| {
        let at = Position { segment: child.engine.incarnation(), pos };
        to_come(&child.says(UP, Frame::Ack(Lane::Normal, at)), UP)
    };
    assert_eq!(to_come(&child.writes_large(1..=4, Lane::Normal), UP), [0; 0], "all of it is under way");
    assert_eq!(to_come(&child.writes_large(5..=20, Lane::Normal), UP), [1]);
    // Now and then, not at each batch.
    assert_eq!(ack(&mut child, 1), [0; 0]);
    child.now.mono += TO_COME_EVERY_MILLIS;
    let said = ack(&mut child, 2);
    assert!(matches!(said[..], [count] if (8..16).contains(&count)), "{said:?}");
    assert_eq!(to_go(&child), said[0]);
    assert_eq!(ack(&mut child, 9), [0; 0]);
    // What is urgent counts as well, and goes out at once.
    child.now.mono += TO_COME_EVERY_MILLIS;
    let effects = child.writes_large(21..=21, Lane::Urgent);
    let [count] = to_come(&effects, UP)[..] else { panic!("{:?}", to_come(&effects, UP)) };
    assert!(count < said[0], "{count} after {said:?}");
    // That it is over is said at once, and once.
    let mut last = Vec::new();
    for pos in 10..=20 {
        last.extend(ack(&mut child, pos));
    }
    assert_eq!((last, to_go(&child)), (vec![0], 0));
}

#[test]
fn what_the_neighbour_need_not_have_is_not_counted() {
    let mut hub = Node::with_child();
    let elsewhere = |seq| {
        let chunk = opaque_chunk(run(HUB, 1), seq, &[], Stamp(1), &[0; 16_000]);
        let home = OrgId::new("mv").unwrap();
        Entry::new(format!("Basic/{seq}").parse().unwrap(), home, Lane::Normal, chunk).unwrap()
    };
    hub.told(Event::Closed(DOWN));
    for seq in 1..=40 {
        let entry = if seq % 4 == 0 {
            entry(hub.engine.incarnation(), seq, Lane::Normal, 16_000)
        } else {
            elsewhere(seq)
        };
        hub.told(Event::Write { ticket: Ticket(seq), entries: vec![entry], projection: Vec::new() });
    }
    let again = LinkId(3);
    hub.meets(again, CHILD, Direction::Down);
    let effects = hub.says(again, hello(CHILD));
    let sent: usize = frames(&effects, again)
        .iter()
        .map(|frame| if let Frame::Batch(batch) = frame { batch.entries.len() } else { 0 })
        .sum();
    assert_eq!(to_come(&effects, again), [10 - sent as u64]);
}

#[test]
fn both_ends_know_it_and_forget_it_when_all_has_come() {
    let mut child = Node::new(CHILD);
    child.writes_large(1..=200, Lane::Bulk);
    let pair = Pair::new(Node::new(HUB), child);
    let [hub, child] = pair.nodes.each_ref().map(|node| node.engine.links().next().unwrap());
    assert_eq!((child.to_go, hub.to_come), (0, 0));
    assert_eq!(pair.nodes[0].store.tip().unwrap(), 200);
    // A feed that takes several looks to be counted is counted all the same.
    let mut child = Node::with_parent(CHILD, HUB);
    let count = (COUNTED_AT_ONCE + 1_000) as u64;
    for first in (1..=count).step_by(1000) {
        let entries = (first..(first + 1000).min(count + 1))
            .map(|seq| entry(child.engine.incarnation(), seq, Lane::Bulk, 100));
        let entries = entries.collect();
        child.told(Event::Write { ticket: Ticket(first), entries, projection: Vec::new() });
    }
    child.told(Event::Closed(UP));
    let again = LinkId(9);
    child.meets(again, HUB, Direction::Up);
    assert_eq!(to_come(&child.says(again, hello(HUB)), again), [0; 0], "not in one look");
    let said = to_come(&child.says(again, Frame::Lanes(Lanes::ALL)), again);
    let [said] = said[..] else { panic!("{said:?}") };
    assert!(said > count - 1_000 && said < count, "{said} of {count}");
}
