//! What this node says of others: how far its own feed is durable at the parent and at the root.
//!
//! A parent's word is a place, and whoever has read up to there has been given what was for it, or was to be given nothing. A node
//! that was put back to an older copy does not know any more what it has held back: a record may have been marked secret since,
//! and the root have lost its disk before. So when a parent names what this node has never written, **no word counts before
//! an audit with it has ended**, also after a restart; and what the parent lacked then goes up once more, so that the same word says
//! when that is there. Not here: what a parent's word is (see `receive` and `courier/take`).

use super::{commit::Draft, *};

/// The frontiers but the last row, which each commit moves.
#[derive(Debug, Clone, Default)]
pub(super) struct Claims {
    heard: BTreeMap<(Frontier, Lane), Seq>,
    /// What is to be kept with the next commit.
    moved: BTreeSet<(Frontier, Lane)>,
    /// What is at the root has moved since the children were told.
    root_moved: bool,
    /// When this process has heard last of what this node never wrote.
    doubted_at: Option<Millis>,
}

impl Claims {
    /// As it is kept; a row that this feed does not have was never heard of, and is changed behind our back. Then nothing counts, and
    /// nothing is believed before an audit.
    pub(super) fn kept(store: &impl Store) -> Result<Self, StoreError> {
        let (mut claims, tip) = (Self::default(), store.tip()?);
        for which in Frontier::ALL.into_iter().filter(|which| *which != Frontier::Last) {
            let unknown = if which == Frontier::Doubt { Seq::MAX } else { 0 };
            for lane in Lane::ALL {
                let row = store.frontier(which, lane)?;
                claims.heard.insert((which, lane), if row <= tip { row } else { unknown });
            }
        }
        Ok(claims)
    }

    /// What a neighbour has said, whether it counts or not.
    pub(super) fn heard(&self, which: Frontier, lane: Lane) -> Seq {
        self.heard.get(&(which, lane)).copied().unwrap_or_default()
    }

    /// What counts of it.
    pub(super) fn of(&self, which: Frontier, lane: Lane) -> Seq {
        let heard = self.heard(which, lane);
        let counts = ![Frontier::Hub, Frontier::Root].contains(&which) || heard >= self.doubt(lane);
        if counts { heard } else { 0 }
    }

    /// By lane.
    pub(super) fn all(&self, which: Frontier) -> [Seq; 3] {
        Lane::ALL.map(|lane| self.of(which, lane))
    }

    fn doubt(&self, lane: Lane) -> Seq {
        self.heard(Frontier::Doubt, lane)
    }

    /// Whether nothing counts before an audit.
    pub(super) fn awaits_audit(&self) -> bool {
        Lane::ALL.into_iter().any(|lane| self.doubt(lane) == Seq::MAX)
    }

    /// Whether there was no new doubt since an audit began.
    fn is_of_before(&self, audit: Millis) -> bool {
        self.doubted_at.is_none_or(|since| since < audit)
    }

    pub(super) fn has_moved(&self) -> bool {
        !self.moved.is_empty()
    }
}

impl<I: Identity> Engine<I> {
    /// A frontier of this node's own feed, as far as it counts.
    pub fn frontier(&self, which: Frontier, lane: Lane) -> Seq {
        if which == Frontier::Last { self.last[lane as usize] } else { self.claims.of(which, lane) }
    }

    /// Whether this node was put back to an older copy, and nothing counts as durable elsewhere before an audit with its parent.
    pub fn is_in_doubt(&self) -> bool {
        self.claims.awaits_audit()
    }

    /// Whether everything that has to go up is durable at the parent. True at a root.
    pub fn all_at_parent(&self) -> bool {
        self.all_at(Frontier::Hub)
    }

    /// Whether everything that has to go up is durable at the root. True at a root.
    pub fn all_at_root(&self) -> bool {
        self.all_at(Frontier::Root)
    }

    fn all_at(&self, which: Frontier) -> bool {
        let is_there = |lane: Lane| self.frontier(which, lane) >= self.frontier(Frontier::Last, lane);
        self.is_root() || Lane::ALL.into_iter().all(is_there)
    }

    /// Whether the parent has something to answer: what has to go up in the lanes that may, or attachments.
    pub fn awaits_parent(&self) -> bool {
        let waits = |lane: &Lane| self.frontier(Frontier::Hub, *lane) < self.frontier(Frontier::Last, *lane);
        let rows = Lane::ALL.iter().filter(|lane| self.lanes_up.has(**lane)).any(waits);
        !self.is_root() && (rows || self.awaits_content())
    }

    /// What a neighbour says of this node's own feed; the parent's HELLO may set it back, because the parent's word counts.
    pub(super) fn reach(&mut self, which: Frontier, lane: Lane, seq: Seq) {
        let moves = [Frontier::Root, Frontier::Doubt].contains(&which);
        if self.claims.heard.insert((which, lane), seq).unwrap_or_default() != seq {
            self.claims.root_moved |= moves;
            if moves {
                self.leaving_goes_on(None);
            }
            self.claims.moved.insert((which, lane));
        }
    }

    /// Whether more is safe at the root than before, or less, since this was asked.
    pub(super) fn root_has_moved(&mut self) -> bool {
        std::mem::take(&mut self.claims.root_moved)
    }

    /// The parent has made everything up to this row durable.
    pub(super) fn parent_has(&mut self, lane: Lane, seq: Seq, to_root: bool) {
        if (1..=seq).contains(&self.claims.heard(Frontier::Above, lane)) {
            self.reach(Frontier::Above, lane, 0);
        }
        self.reach_further(Frontier::Hub, lane, seq);
        if to_root {
            self.reach_further(Frontier::Root, lane, seq);
        }
    }

    /// Whether that is news.
    pub(super) fn reach_further(&mut self, which: Frontier, lane: Lane, seq: Seq) -> bool {
        let is_further = seq > self.claims.heard(which, lane);
        if is_further {
            self.reach(which, lane, seq);
        }
        is_further
    }

    /// Another parent from now on: what is at the root it has from there.
    pub(super) fn root_stands_above(&mut self) {
        for lane in Lane::ALL {
            self.reach_further(Frontier::Above, lane, self.claims.of(Frontier::Root, lane));
        }
    }

    /// The parent's machine is put out of the tree: what it has, and the root has not, counts for nothing, as far as is known here.
    pub fn parent_is_put_out(&mut self) {
        for lane in Lane::ALL {
            let both = [Frontier::Hub, Frontier::Root].map(|which| self.claims.heard(which, lane));
            self.reach(Frontier::Hub, lane, both[0].min(both[1]));
        }
    }

    /// The parent has read what this node never wrote. Where nothing has to go up there is nothing to doubt.
    pub(super) fn doubt(&mut self, now: Now) {
        if self.last == [0; 3] {
            return;
        }
        self.claims.doubted_at = Some(now.mono);
        for lane in Lane::ALL {
            self.reach(Frontier::Doubt, lane, Seq::MAX);
            // Also when the end of the last one is on its way to the disk.
            self.claims.moved.insert((Frontier::Doubt, lane));
        }
    }

    /// What the parent lacked in an audit goes up once more: when that has come there, all has.
    pub(super) fn draft_gave(
        &mut self,
        began: Millis,
        rows: Vec<Seq>,
        draft: &mut Draft,
        store: &impl Store,
    ) -> Result<(), StoreError> {
        if !self.claims.is_of_before(began) {
            return Ok(());
        }
        let mut doubt = [0; 3];
        for row in rows {
            if let Some(entry) = store.entry(row)? {
                let lane = entry.lane() as usize;
                draft.touched.insert(entry.record().clone());
                self.open_segment(draft);
                draft.offer(row, Offered::Parent);
                draft.after.last[lane] = draft.after.tip;
                doubt[lane] = draft.after.tip;
            }
        }
        draft.ops.extend(Lane::ALL.map(|lane| Op::Reach(Frontier::Doubt, lane, doubt[lane as usize])));
        draft.after.doubt = Some((began, doubt));
        Ok(())
    }

    /// That is durable, and counts unless there is a new doubt.
    pub(super) fn doubt_ends(&mut self, began: Millis, doubt: [Seq; 3]) {
        if self.claims.is_of_before(began) {
            for lane in Lane::ALL {
                self.claims.heard.insert((Frontier::Doubt, lane), doubt[lane as usize]);
            }
            self.claims.root_moved = true;
            self.leaving_goes_on(None);
        }
    }

    /// What neighbours have said is kept along with whatever is kept anyway: it is a hint that their HELLO corrects. A doubt is not,
    /// and comes with a commit of its own.
    pub(super) fn keep_frontiers(&mut self, draft: &mut Draft) {
        for lane in Lane::ALL {
            if draft.after.last[lane as usize] != self.last[lane as usize] {
                draft.ops.push(Op::Reach(Frontier::Last, lane, draft.after.last[lane as usize]));
            }
        }
        for (which, lane) in std::mem::take(&mut self.claims.moved) {
            draft.ops.push(Op::Reach(which, lane, self.claims.heard(which, lane)));
        }
        draft.ops.extend(self.stale_marks.drain(..).map(Op::Unmark));
    }
}
