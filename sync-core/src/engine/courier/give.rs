//! What this node writes into a bundle.
//!
//! What always holds: rows are chosen as for a link, and nothing of the engine changes. Whatever a batch names is announced before it.

use super::{contents::Giving, *};
use crate::engine::send::{batches, newest_receipt};

/// A stretch in a bundle has so many bytes unpacked, or one entry.
const STRETCH_BYTES: usize = 256 << 10;
/// The name under which an export looks at the feed; no link has it.
const NO_LINK: LinkId = LinkId(u64::MAX);

/// A bundle that is being written.
#[derive(Clone)]
pub struct Export {
    pub(super) link: Link,
    from: Vec<(Lane, Cursor)>,
    tip: Seq,
    end: Option<Position>,
    /// By lane the row with which the last bundle ended. A stretch ends there too, so that whoever stands there can go on.
    last: [Seq; 3],
    begun: bool,
    /// A part of a lane was passed over, and the reader has not been told.
    silent: [bool; 3],
    /// The runs that it has announced, and the homes of which it has told where they stand.
    announced: BTreeSet<Incarnation>,
    homes: BTreeSet<OrgId>,
    entries: [u64; 3],
    /// The time at which it was begun.
    pub(super) now: Now,
    lost: bool,
    unread: Option<Seq>,
    pub(super) told: Told,
    pub(super) giving: Giving,
}

impl Export {
    /// The places from which it goes on.
    pub fn from(&self) -> &[(Lane, Cursor)] {
        &self.from
    }

    /// Entries so far, by lane.
    pub fn entries(&self) -> [u64; 3] {
        self.entries
    }

    /// Attachments of which something is in it so far, and their bytes in it.
    pub fn attachments(&self) -> (u64, u64) {
        (self.giving.count, self.giving.bytes)
    }

    /// Up to which byte the neighbour was given each attachment, by this one and those before it.
    pub fn given(&self) -> &ContentPlaces {
        &self.giving.given
    }

    /// A row that should be in it and cannot be read: see [`Alert::Unread`].
    pub fn unread(&self) -> Option<Seq> {
        self.unread
    }

    /// Pieces of attachments, each with its number, that it leaves out because they are not what they were: see
    /// [`Event::Rotten`].
    pub fn rotten(&self) -> &[(Name, usize)] {
        &self.giving.rotten
    }
}

impl<I: Identity> Engine<I> {
    /// Begins a bundle for a neighbour.
    pub fn export(
        &self,
        mut peer: NodeInfo,
        since: Since,
        heard: &Heard,
        store: &impl Store,
        now: Now,
    ) -> Result<Result<Export, crate::identity::Refusal>, StoreError> {
        peer.place = self.places.now(&peer.place);
        let direction = direction_of(self.place(), &peer.place);
        if let Err(refusal) = check_neighbour(self.place(), &peer, direction) {
            return Ok(Err(refusal));
        }
        let known = match since {
            Since::Start => [None, None],
            Since::Acknowledged => [Some(&heard.has), None],
            Since::Last => [Some(&heard.has), Some(&heard.last)],
        };
        // What it knew before it came back from a backup it has said since.
        let knows = since != Since::Start && heard.restored.is_none();
        let own = knows.then(|| self.known_to_have(peer.node, direction));
        let mut link = Link::new(NO_LINK, peer, Vec::new(), direction, 0);
        link.allowed = self.profiles.allowed(link.peer.place.org(), Way::Courier);
        let (mut from, mut ended) = (Vec::new(), [0; 3]);
        for lane in Lane::ALL {
            let own = own.map_or(0, |own| own[lane as usize]);
            let start = own.max(self.furthest(lane, known.into_iter().flatten().flatten(), store)?);
            ended[lane as usize] = self.furthest(lane, &heard.last, store)?;
            let at = self.position(start);
            let out = &mut link.out[lane as usize];
            (out.next, out.told, out.batch_bytes) = (Some(start), at, STRETCH_BYTES);
            if let Some(at) = at {
                from.push((lane, Cursor { at, chain: Some(store.chain(start)?.unwrap_or(CHAIN_START)) }));
            }
        }
        let read = stands(link.peer.node, store)?;
        link.lineage = Some(self.lineage_of(&read, heard.restored, store)?);
        link.named = match heard.restored.filter(|_| heard.returned) {
            Some(tip) => stands_in(&read, tip, None, store)?,
            None => read,
        };
        let given = if since == Since::Last { heard.given.clone() } else { ContentPlaces::new() };
        Ok(Ok(Export {
            link,
            from,
            tip: self.tip,
            end: self.position(self.tip),
            last: ended,
            begun: false,
            silent: [false; 3],
            announced: BTreeSet::new(),
            homes: BTreeSet::new(),
            entries: [0; 3],
            now,
            lost: heard.lost,
            unread: None,
            told: heard.told.clone(),
            giving: Giving::after(given),
        }))
    }

    /// The next frames of a bundle, some hundred kilobytes at most but for one large entry; none when there are no more.
    /// There may be none among many rows that are not for the neighbour. Nothing is kept of them but in `export`.
    pub fn export_next(
        &self,
        export: &mut Export,
        store: &impl Store,
    ) -> Result<Option<Vec<Frame>>, StoreError> {
        if !std::mem::replace(&mut export.begun, true) {
            return self.export_begins(export, store).map(Some);
        }
        for lane in Lane::ALL {
            let slot = lane as usize;
            // What comes from above to a new parent is passed over aloud, as on a link.
            let above = Some(self.claims.heard(Frontier::Above, lane))
                .filter(|_| export.link.direction == Direction::Up);
            if let Some(above) = above.filter(|above| export.link.out[slot].next < Some(*above)) {
                export.link.out[slot].next = Some(above);
                return self.export_place(export, lane, Vec::new(), store).map(Some);
            }
            for upto in [export.last[slot], export.tip] {
                if let Some(stretch) = self.stretch_after(&export.link, lane, upto, store)? {
                    export.link.out[slot].next = Some(stretch.last);
                    export.unread = export.unread.or(stretch.unread);
                    if stretch.chosen.is_empty() {
                        export.silent[slot] = true;
                        return Ok(Some(Vec::new()));
                    }
                    return self.export_place(export, lane, stretch.chosen, store).map(Some);
                }
                let is_there = export.link.out[slot].next <= Some(upto);
                if export.silent[slot] && is_there {
                    return self.export_place(export, lane, Vec::new(), store).map(Some);
                }
            }
        }
        self.export_content(export, store)
    }

    /// Whether this node's feed still has the names under which the bundle was begun.
    pub fn export_holds(&self, export: &Export) -> bool {
        self.position(export.tip) == export.end
    }

    /// Where a bundle that ends here leads.
    pub fn export_reached(
        &self,
        export: &Export,
        store: &impl Store,
    ) -> Result<Vec<(Lane, Cursor)>, StoreError> {
        let mut reached = Vec::new();
        for lane in Lane::ALL {
            let Some(at) = export.link.out[lane as usize].told else { continue };
            let chain = match self.seq_of(at) {
                Some(seq) if at.pos > 0 => store.chain(seq)?,
                _ => None,
            };
            reached.push((lane, Cursor { at, chain: Some(chain.unwrap_or(CHAIN_START)) }));
        }
        Ok(reached)
    }

    /// How many secret records the neighbour would be sent if its profile allowed them: they stay.
    pub fn export_keeps_back(&self, export: &Export, store: &impl Store) -> Result<u64, StoreError> {
        let Some(lineage) = &export.link.lineage else { return Ok(0) };
        let mut records = BTreeSet::new();
        for (row, degree) in
            store.secret_rows()?.into_iter().filter(|(_, degree)| *degree > export.link.allowed)
        {
            let Some(entry) = store.entry(row)? else { continue };
            let lane = entry.lane();
            let heads = store.heads(lane, row - 1, 1)?;
            let Some(head) = heads.into_iter().next().filter(|head| head.seq == row) else { continue };
            if scope::wants(&export.link.neighbour(), &head, &lineage[lane as usize], &self.places, degree) {
                records.insert(entry.record().clone());
            }
        }
        Ok(records.len() as u64)
    }

    /// The last row of this node's own feed to which one of these places leads; 0 when none does.
    fn furthest<'p>(
        &self,
        lane: Lane,
        places: impl IntoIterator<Item = &'p (Lane, Cursor)>,
        store: &impl Store,
    ) -> Result<Seq, StoreError> {
        let mut furthest = 0;
        for (_, cursor) in places.into_iter().filter(|(l, _)| *l == lane) {
            if let Resolved::At(seq) = resolve(Some(cursor), &self.segments, self.tip, self.tip, store)? {
                furthest = furthest.max(seq);
            }
        }
        Ok(furthest)
    }

    /// By lane the last row that this node knows a neighbour to have: a parent by its acknowledgements, a child by its link.
    fn known_to_have(&self, node: NodeId, direction: Direction) -> [Seq; 3] {
        let settled = self.links.values().find(|link| link.peer.node == node && link.is_settled());
        match (direction, settled) {
            (Direction::Up, _) => Lane::ALL.map(|lane| self.claims.heard(Frontier::Hub, lane)),
            (Direction::Down, Some(link)) => std::array::from_fn(|lane| link.out[lane].durable),
            (Direction::Down, None) => [0; 3],
        }
    }

    /// What a neighbour knows to be its feed, by lane: all that was read of it, or what it has said.
    fn lineage_of(
        &self,
        read: &[(Lane, Cursor)],
        restored: Option<Option<Position>>,
        store: &impl Store,
    ) -> Result<[Lineage; 3], StoreError> {
        let mut lineage: [Lineage; 3] = Default::default();
        for lane in Lane::ALL {
            let at = read.iter().find(|(l, _)| *l == lane).map(|(_, cursor)| cursor.at);
            lineage[lane as usize] = walk(restored.unwrap_or(at), store)?.unwrap_or_default();
        }
        Ok(lineage)
    }

    fn export_begins(&self, export: &mut Export, store: &impl Store) -> Result<Vec<Frame>, StoreError> {
        let orders = frames_of(self.places.orders(), |order| order.encode().len());
        let mut frames: Vec<_> = orders.into_iter().map(|part| Frame::Orders(part.to_vec())).collect();
        let revocations = store.revocations()?;
        let parts = frames_of(&revocations, |one| one.encode().len());
        frames.extend(parts.into_iter().map(|part| Frame::Revocations(part.to_vec())));
        let index = |cursor: &Cursor| self.segments.iter().rposition(|s| s.incarnation == cursor.at.segment);
        let told = if export.from.len() < Lane::ALL.len() {
            0
        } else {
            export.from.iter().filter_map(|(_, cursor)| index(cursor)).min().unwrap_or(0)
        };
        for segment in &self.segments[told..] {
            if let Some((announcement, _)) = store.announcement(segment.incarnation)? {
                export.announced.insert(segment.incarnation);
                frames.push(Frame::Announce(without_chain(&announcement)));
            }
        }
        frames.extend(export.lost.then_some(Frame::Lost));
        frames.push(Frame::Hello(Hello {
            run: self.run,
            software: self.software.clone(),
            tip: export.end,
            cursors: export.link.named.clone(),
            revocations: self.statements(),
            allows: export.link.allowed,
        }));
        let lineage = export.link.lineage.as_ref().filter(|_| export.link.direction == Direction::Down);
        for lane in Lane::ALL {
            let newest = lineage.and_then(|known| {
                newest_receipt(&self.marks, self.claims.of(Frontier::Root, lane), lane, None, known)
            });
            frames.extend(newest.map(|at| Frame::SafeAtRoot(lane, at)));
        }
        frames.extend(self.export_tells(export, store)?);
        Ok(frames)
    }

    /// A stretch up to where the export stands, with the announcements of all that it names.
    fn export_place(
        &self,
        export: &mut Export,
        lane: Lane,
        chosen: Vec<(u64, Entry)>,
        store: &impl Store,
    ) -> Result<Vec<Frame>, StoreError> {
        let out = &mut export.link.out[lane as usize];
        let last = out.next.unwrap_or(0);
        let at = self.position(last).expect("a row that was looked at stands in a segment");
        let after = out.after(at.segment);
        out.told = Some(at);
        export.silent[lane as usize] = false;
        export.entries[lane as usize] += chosen.len() as u64;
        let mut frames = Vec::new();
        for (_, entry) in &chosen {
            if export.announced.insert(entry.origin()) {
                let known = store.announcement(entry.origin())?;
                frames.extend(known.map(|(announcement, _)| Frame::Announce(announcement)));
            }
            if export.homes.insert(entry.home().clone()) {
                let heir = self.places.successor(entry.home());
                for org in [Some(entry.home()), heir].into_iter().flatten() {
                    let known = store.announcement_of(org)?;
                    let news = known.filter(|known| export.announced.insert(known.incarnation));
                    frames.extend(news.map(Frame::Announce));
                }
            }
        }
        let chain = store.chain(last)?.unwrap_or(CHAIN_START);
        frames.extend(batches(lane, after, at, chain, chosen).into_iter().map(Frame::Batch));
        Ok(frames)
    }
}
