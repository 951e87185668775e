//! Attachments in courier bundles: what is asked for, what is whole where, and content itself, behind all rows.
//!
//! A bundle says all of it anew, and the newest word of a neighbour counts. Upwards goes all content that is not known to be at the
//! parent; either way goes what the other has asked for. What always holds: content goes where its record goes, by the rules
//! of links; a piece is checked before it is kept, and what has no name here is passed over; and whoever wrote content hears
//! only from a parent's newest word, while that counts, that it is there.

use super::*;
use crate::{
    attachment::{Kept, Name, PIECE_BYTES, Tree},
    bundle::ContentPlaces,
    engine::attachments::WAITING_MAX,
    id::ContentHash,
    wire::{ASK_MAX_BYTES, Ask, CONTENT_FRAME_MAX_BYTES},
};

/// So many pieces are written in one step, and so many that have come are made durable together.
const PIECES_AT_A_TIME: usize = 16;

/// What a neighbour has said of attachments in the newest bundle that was taken from it. Of neither more is remembered than
/// 4,096.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// What it asks for, with the byte from which it lacks it.
    pub asks: ContentPlaces,
    /// What is whole there. It waits to hear where else that is.
    pub holds: BTreeSet<Name>,
}

/// Content that is to be written into a bundle.
#[derive(Debug, Clone, Default)]
pub(super) struct Giving {
    /// What comes, with the byte from which on.
    queue: VecDeque<(Name, u64)>,
    /// The chaining values of the first, when a part of it has been written.
    begun: Option<Tree>,
    /// Up to where it was given, in this bundle or in those before it.
    pub(super) given: ContentPlaces,
    /// Attachments of which something has been given here.
    pub(super) count: u64,
    pub(super) bytes: u64,
    /// Pieces that are not what they were.
    pub(super) rotten: Vec<(Name, usize)>,
}

/// Content that comes in a bundle.
#[derive(Debug, Clone)]
pub(super) struct Taking {
    name: Name,
    tree: Option<Tree>,
    /// Its record is here.
    has_record: bool,
    /// The pieces that are not here, once the tree has come.
    lacking: BTreeSet<usize>,
    /// The next byte, once one has come, and what there is of its piece.
    next: Option<u64>,
    piece: Vec<u8>,
    /// Pieces that fit, and wait for others.
    pieces: Vec<Op>,
    /// Where it is known to be, once it is whole here: it comes from there.
    kept: Option<Kept>,
    /// It is not what it is said to be.
    is_other: bool,
}

impl<I: Identity> Engine<I> {
    /// Whether content of this record may go to whoever stands there, and be asked for there.
    fn content_may_go(&self, export: &Export, name: &Name, store: &impl Store) -> Result<bool, StoreError> {
        self.is_content_for(&export.link.peer.place, &name.record, store, export.now)
    }

    /// What a bundle says of attachments before its rows, and what it is to give behind them.
    pub(super) fn export_tells(
        &self,
        export: &mut Export,
        store: &impl Store,
    ) -> Result<Vec<Frame>, StoreError> {
        let told = std::mem::take(&mut export.told);
        let mut frames = Vec::new();
        for name in &self.contents.wanted {
            if frames.len() < WAITING_MAX && self.content_may_go(export, name, store)? {
                let Some(first) = store.missing(name)?.first().copied() else { continue };
                let from = (first * PIECE_BYTES) as u64;
                let len = ASK_MAX_BYTES.min(name.attachment.size - from);
                frames.push(Frame::Ask(Ask { name: name.clone(), from, len, tree: true }));
            }
        }
        let mut queue = told.asks;
        if export.link.direction == Direction::Up {
            for (name, kept) in store.unkept(WAITING_MAX)? {
                if self.content_may_go(export, &name, store)? {
                    frames.push(Frame::Kept(name.clone(), Kept::Here));
                    if kept == Kept::Here {
                        queue.entry(name).or_insert(0);
                    }
                }
            }
        } else {
            for name in told.holds {
                let held = store.attachment(&name)?.filter(|held| held.is_whole());
                let Some(held) = held else { continue };
                if self.content_may_go(export, &name, store)? {
                    frames.push(Frame::Kept(name, self.kept_by_us(held.kept)));
                }
            }
        }
        let given = &mut export.giving.given;
        given.retain(|name, _| queue.contains_key(name));
        let after = |(name, from): (Name, u64)| {
            let from = from.max(given.get(&name).copied().unwrap_or(0));
            (from < name.attachment.size).then_some((name, from))
        };
        export.giving.queue = queue.into_iter().filter_map(after).collect();
        Ok(frames)
    }

    /// The next pieces of content; none when there are no more.
    pub(super) fn export_content(
        &self,
        export: &mut Export,
        store: &impl Store,
    ) -> Result<Option<Vec<Frame>>, StoreError> {
        while let Some((name, from)) = export.giving.queue.front().cloned() {
            let held = store.attachment(&name)?.filter(|held| held.is_whole());
            let Some(held) = held.filter(|_| from < name.attachment.size) else {
                export.giving.pass();
                continue;
            };
            if !self.content_may_go(export, &name, store)? {
                export.giving.pass();
                continue;
            }
            let mut frames = Vec::new();
            let tree = match export.giving.begun.take() {
                Some(tree) => tree,
                None => {
                    let Some(tree) = store.tree(&name)? else {
                        export.giving.pass();
                        continue;
                    };
                    let is_up = export.link.direction == Direction::Up;
                    let kept = if is_up { Kept::Here } else { self.kept_by_us(held.kept) };
                    frames.push(Frame::Kept(name.clone(), kept));
                    frames.push(Frame::Tree(name.attachment.hash, tree.values().to_vec()));
                    export.giving.count += 1;
                    tree
                }
            };
            let first = from as usize / PIECE_BYTES;
            let upto = name.attachment.pieces().min(first + PIECES_AT_A_TIME);
            let mut whole = true;
            for nth in first..upto {
                let piece = store.piece(&name, nth)?.unwrap_or_default();
                if !tree.fits(nth, &piece) {
                    export.giving.rotten.push((name.clone(), nth));
                    whole = false;
                    break;
                }
                let mut from = (nth * PIECE_BYTES) as u64;
                for part in piece.chunks(CONTENT_FRAME_MAX_BYTES) {
                    frames.push(Frame::Bytes { hash: name.attachment.hash, from, bytes: part.to_vec() });
                    from += part.len() as u64;
                }
                export.giving.gives(&name, from, piece.len());
            }
            if whole && upto < name.attachment.pieces() {
                export.giving.begun = Some(tree);
            } else {
                export.giving.pass();
            }
            return Ok(Some(frames));
        }
        Ok(None)
    }

    /// The maker of the bundle lacks content, from some byte on.
    pub(super) fn bundle_asks(&mut self, ask: Ask, store: &impl Store) -> Result<(), StoreError> {
        let Some(import) = self.import.as_mut() else { return Ok(()) };
        let is_of_parent = import.session.as_ref().is_some_and(|one| one.direction == Direction::Up);
        let asks = &mut import.outcome.told.asks;
        if asks.len() < WAITING_MAX {
            asks.insert(ask.name.clone(), ask.from);
        }
        let (newest, node) = (import.newest, import.outcome.sender.node);
        let counts = newest && is_of_parent && self.links_of(node).is_empty();
        let held = store.attachment(&ask.name)?;
        if counts && held.is_some_and(|held| held.is_whole() && held.kept > Kept::Here) {
            // It does not have it any more, and the root may not either.
            self.keep_content(ask.name.clone(), Op::Kept(ask.name, Kept::Here));
        }
        Ok(())
    }

    /// Content is whole at the maker of the bundle, or at the root. If it is in the bundle it comes now.
    pub(super) fn bundle_says_kept(
        &mut self,
        name: Name,
        kept: Kept,
        store: &impl Store,
    ) -> Result<(), StoreError> {
        self.bundle_keeps_pieces();
        let held = store.attachment(&name)?;
        let maker = self.import.as_ref().map(|import| import.outcome.sender.node);
        let is_asked = maker.is_some_and(|maker| !self.links_of(maker).is_empty());
        let Some(import) = self.import.as_mut() else { return Ok(()) };
        let Some(session) = &import.session else { return Ok(()) };
        let counts = import.newest && session.counts && session.agrees;
        let (is_of_parent, sender) = (session.direction == Direction::Up, &import.outcome.sender);
        let from_root = sender.role == Role::Root;
        let counts = counts && is_of_parent && !is_asked;
        let holds = &mut import.outcome.told.holds;
        if holds.len() < WAITING_MAX {
            holds.insert(name.clone());
        }
        let kept = if kept == Kept::Root || from_root { Kept::Root } else { Kept::Parent };
        import.content_ends();
        import.taking = Some(Taking {
            name: name.clone(),
            tree: None,
            has_record: held.is_some(),
            lacking: BTreeSet::new(),
            next: None,
            piece: Vec::new(),
            pieces: Vec::new(),
            kept: counts.then_some(kept),
            is_other: false,
        });
        if counts && held.is_some_and(|held| held.is_whole() && held.kept < kept) {
            self.keep_content(name.clone(), Op::Kept(name, kept));
        }
        Ok(())
    }

    /// The chaining values of what comes. False when nothing of that hash does.
    pub(super) fn bundle_tree(
        &mut self,
        hash: ContentHash,
        values: Vec<[u8; 32]>,
        store: &impl Store,
    ) -> Result<bool, StoreError> {
        let taking = self.import.as_mut().and_then(|import| import.taking.as_mut());
        let Some(taking) = taking.filter(|one| one.name.attachment.hash == hash && one.tree.is_none()) else {
            return Ok(false);
        };
        let name = taking.name.clone();
        let Some(tree) = Tree::new(&name.attachment, values) else {
            self.bundle_has_no_content();
            return Ok(true);
        };
        taking.tree = Some(tree.clone());
        if store.attachment(&name)?.is_some_and(|held| !held.is_whole()) {
            taking.lacking = store.missing(&name)?.into_iter().collect();
            self.keep_content(name.clone(), Op::Tree(name, tree));
        }
        Ok(true)
    }

    /// A part of what comes. False when it does not go on where the last one ended, or is of another piece.
    pub(super) fn bundle_bytes(&mut self, hash: ContentHash, from: u64, bytes: &[u8]) -> bool {
        let Some(import) = self.import.as_mut() else { return false };
        let Some(taking) = &mut import.taking else { return false };
        let name = &taking.name;
        let (nth, begin) = (from as usize / PIECE_BYTES, from as usize % PIECE_BYTES);
        let goes_on = taking.next.map_or(begin == 0, |next| next == from);
        let end = from + bytes.len() as u64;
        if name.attachment.hash != hash || !goes_on || end > name.attachment.size {
            return false;
        }
        taking.next = Some(end);
        if taking.is_other {
            return true;
        }
        let Some(tree) = &taking.tree else { return false };
        taking.piece.extend_from_slice(bytes);
        if taking.piece.len() < name.attachment.piece_len(nth) {
            return true;
        }
        let bytes = std::mem::take(&mut taking.piece);
        if !tree.fits(nth, &bytes) {
            self.bundle_has_no_content();
            return true;
        }
        if taking.lacking.remove(&nth) {
            taking.pieces.push(Op::Piece { name: taking.name.clone(), nth, bytes });
            import.outcome.attachments += u64::from(taking.lacking.is_empty());
        }
        let whole = taking.lacking.is_empty();
        let kept = taking.kept.filter(|_| whole && !taking.pieces.is_empty());
        if whole || taking.pieces.len() == PIECES_AT_A_TIME {
            let name = taking.name.clone();
            self.bundle_keeps_pieces();
            if let Some(kept) = kept {
                self.keep_content(name.clone(), Op::Kept(name, kept));
            }
        }
        true
    }

    /// What comes is not what it is said to be: the rest of it is passed over, as on a link, and an operator is told.
    fn bundle_has_no_content(&mut self) {
        let Some(import) = self.import.as_mut() else { return };
        let Some(taking) = import.taking.as_mut() else { return };
        taking.is_other = true;
        let (peer, record) = (import.outcome.sender.clone(), taking.name.record.clone());
        self.effects.push_back(Effect::Alert(Alert::NoContent { peer, record }));
    }

    /// Makes durable what has come of content. False when nothing has.
    pub(super) fn bundle_keeps_pieces(&mut self) -> bool {
        let taking = self.import.as_mut().and_then(|import| import.taking.as_mut());
        let pieces = taking.map(|taking| (taking.name.clone(), std::mem::take(&mut taking.pieces)));
        let Some((name, pieces)) = pieces.filter(|(_, pieces)| !pieces.is_empty()) else { return false };
        pieces.into_iter().for_each(|op| self.keep_content(name.clone(), op));
        true
    }
}

impl Import {
    /// No more comes of what came.
    pub(super) fn content_ends(&mut self) {
        let Some(Taking { next: Some(_), has_record, lacking, .. }) = self.taking.take() else { return };
        self.outcome.without_record += u64::from(!has_record);
        self.outcome.in_part += u64::from(has_record && !lacking.is_empty());
    }
}

impl Giving {
    pub(super) fn after(given: ContentPlaces) -> Self {
        Self { given, ..Self::default() }
    }

    fn gives(&mut self, name: &Name, upto: u64, bytes: usize) {
        self.given.insert(name.clone(), upto);
        self.bytes += bytes as u64;
        if let Some((_, from)) = self.queue.front_mut() {
            *from = upto;
        }
    }

    fn pass(&mut self) {
        self.begun = None;
        self.queue.pop_front();
    }
}
