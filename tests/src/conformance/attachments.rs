//! Attachments: what a store keeps of them, by example and at random.

use sync_core::attachment::{Attachment, Held, Kept, PIECE_BYTES, Tree};

use super::*;

/// Content that differs with its number, of so many bytes.
pub fn content(n: u8, size: usize) -> Vec<u8> {
    (0..size).map(|at| (at % 251) as u8 ^ n).collect()
}

/// Attachments by example: what is named, what is here of it, and what is left when a record is forgotten.
pub fn attachments<S: StoreMut>(mut store: S, reopen: impl Fn(S) -> S) {
    let (one, dv) = (Incarnation([1; 16]), org("dong-van"));
    let (patient, note) = (record("Patient/1"), record("DocumentReference/2"));
    let (large, small) = (content(1, 3 * PIECE_BYTES + 7), content(2, PIECE_BYTES + 1));
    let [(a, a_tree), (b, b_tree)] =
        [&large, &small].map(|content| Tree::of(content).expect("a size that it may have"));
    let entry_of = |record: &RecordId, n, named: &[Attachment], degree| Op::Append {
        entry: entry(record, &dv, Lane::Bulk, one, n, &[], b"x").with_attachments(named).with_secrecy(degree),
        src: None,
        at: 100,
    };
    let name = |record: &RecordId, attachment| Name { record: record.clone(), attachment };
    let piece = |record: &RecordId, attachment, nth: usize, content: &[u8]| Op::Piece {
        name: name(record, attachment),
        nth,
        bytes: content.chunks(PIECE_BYTES).nth(nth).expect("a piece").to_vec(),
    };
    let (open, closed) = (Secrecy::None, Secrecy::Mat);
    store
        .commit(&[
            Op::OpenSegment(Segment { incarnation: one, base: 0, parent: None }),
            Op::AddHome(note.clone(), dv.clone()),
            Op::AddHome(patient.clone(), dv.clone()),
            entry_of(&note, 1, &[a, b], open),
            entry_of(&note, 2, &[a], open),
            entry_of(&patient, 3, &[b], open),
            // Of what no entry names nothing is kept.
            piece(&patient, a, 0, &large),
            Op::Tree(name(&record("Patient/9"), a), a_tree.clone()),
        ])
        .unwrap();
    store = reopen(store);
    let held = |attachment, lacking, kept| Held { attachment, lacking, kept };
    let sorted = |mut all: Vec<Held>| {
        all.sort_by_key(|held| held.attachment);
        all
    };
    let both = sorted(vec![held(a, 4, Kept::Here), held(b, 2, Kept::Here)]);
    assert_eq!(store.attachments(&note).unwrap(), both);
    assert_eq!(store.attachment(&name(&patient, a)).unwrap(), None);
    let mut lacking = vec![name(&note, a), name(&note, b), name(&patient, b)];
    lacking.sort();
    assert_eq!((store.lacking().unwrap(), store.unkept(9).unwrap()), (lacking, vec![]));
    assert_eq!(store.piece(&name(&patient, a), 0).unwrap(), None);
    assert_eq!(
        (store.tree(&name(&note, a)).unwrap(), store.missing(&name(&note, a)).unwrap()),
        (None, vec![0, 1, 2, 3])
    );

    store
        .commit(&[
            Op::Tree(name(&note, a), a_tree.clone()),
            piece(&note, a, 2, &large),
            piece(&note, a, 0, &large),
            piece(&note, a, 2, &large),
            Op::Tree(name(&patient, b), b_tree.clone()),
            piece(&patient, b, 0, &small),
            piece(&patient, b, 1, &small),
        ])
        .unwrap();
    store = reopen(store);
    assert_eq!(store.missing(&name(&note, a)).unwrap(), [1, 3]);
    assert_eq!(store.attachment(&name(&note, a)).unwrap().unwrap().lacking, 2);
    assert_eq!(store.tree(&name(&note, a)).unwrap(), Some(a_tree));
    assert_eq!(store.piece(&name(&note, a), 2).unwrap().as_deref(), large.chunks(PIECE_BYTES).nth(2));
    assert_eq!(store.attachment(&name(&note, b)).unwrap().unwrap().lacking, 2, "content is its record's own");
    assert_eq!(store.unkept(9).unwrap(), [(name(&patient, b), Kept::Here)]);

    // What is known least safe comes first; what is at the root, or secret, not at all.
    let kept = |record, attachment, kept| Op::Kept(name(record, attachment), kept);
    store
        .commit(&[
            kept(&patient, b, Kept::Parent),
            piece(&note, a, 1, &large),
            piece(&note, a, 3, &large),
            Op::Tree(name(&note, b), b_tree),
            piece(&note, b, 0, &small),
            piece(&note, b, 1, &small),
            kept(&note, b, Kept::Root),
        ])
        .unwrap();
    store = reopen(store);
    let here = (name(&note, a), Kept::Here);
    assert_eq!(store.unkept(9).unwrap(), [here.clone(), (name(&patient, b), Kept::Parent)]);
    assert_eq!(store.unkept(1).unwrap(), [here]);
    assert_eq!(store.lacking().unwrap(), []);
    store.commit(&[entry_of(&note, 4, &[], closed), Op::Lose(name(&patient, b), 1)]).unwrap();
    store = reopen(store);
    assert_eq!(store.unkept(9).unwrap(), []);
    assert_eq!(
        (store.lacking().unwrap(), store.missing(&name(&patient, b)).unwrap()),
        (vec![name(&patient, b)], vec![1])
    );

    store.commit(&[Op::Forget(note.clone())]).unwrap();
    store = reopen(store);
    assert_eq!((store.attachments(&note).unwrap(), store.piece(&name(&note, a), 0).unwrap()), (vec![], None));
    assert_eq!(store.attachments(&patient).unwrap(), [held(b, 1, Kept::Parent)]);
    // It comes back with its name, and without what was here of it.
    store.commit(&[entry_of(&note, 5, &[a], open)]).unwrap();
    store = reopen(store);
    assert_eq!(store.attachments(&note).unwrap(), [held(a, 4, Kept::Here)]);
    assert_eq!(store.tree(&name(&note, a)).unwrap(), None);
}

impl Script {
    /// Now and then an entry names content, mostly such as others name as well.
    pub(super) fn with_attachment(&mut self, entry: Entry) -> Entry {
        if !self.of_content.one_in(4) {
            return entry;
        }
        let (attachment, _) =
            Tree::of(&random_content(self.of_content.below(3))).expect("a size that it may have");
        self.named.push(Name { record: entry.record().clone(), attachment });
        entry.with_attachments(&[attachment])
    }

    /// Something of content comes, or goes, or is known to be elsewhere.
    pub(super) fn contents(&mut self, batch: &mut Batch) {
        for _ in 0..self.of_content.below(3) {
            self.content(batch);
        }
    }

    fn content(&mut self, batch: &mut Batch) {
        let Some(name) = self.of_content.pick(&self.named).cloned() else { return };
        let all = (0..3).map(random_content);
        let content = all
            .into_iter()
            .find(|content| content.len() as u64 == name.attachment.size)
            .expect("one of them");
        let nth = self.of_content.below(name.attachment.pieces() as u64) as usize;
        let bytes = content.chunks(PIECE_BYTES).nth(nth).expect("a piece").to_vec();
        let (_, tree) = Tree::of(&content).expect("a size that it may have");
        match self.of_content.below(8) {
            0 => batch.push(Op::Tree(name, tree)),
            1 => batch.push(Op::Lose(name, nth)),
            2 => {
                let kept =
                    *self.of_content.pick(&[Kept::Here, Kept::Parent, Kept::Root]).expect("there are three");
                batch.push(Op::Kept(name, kept));
            }
            _ => batch.extend([Op::Tree(name.clone(), tree), Op::Piece { name, nth, bytes }]),
        }
    }
}

fn random_content(n: u64) -> Vec<u8> {
    content(n as u8, PIECE_BYTES + 1 + n as usize)
}
