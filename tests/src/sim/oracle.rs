//! What was promised, and whether it is true.
//!
//! A *claim* is what an engine tells: that a local write is durable, that rows of its feed are durable at the
//! parent or at the root. Every claim is held against the disks at the moment when it is made. What only a
//! destroyed disk held may be lost; what any other disk holds must come back.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use sync_core::{
    change::Entry,
    feed::{Digest, Seq},
    id::{ChangeHash, Lane, OrgId, OrgPath, RecordId, Secrecy},
    scope::{
        Places,
        grant::{self, Granted},
    },
    store::{MemStore, Store},
};

use super::identity::SimIdentity;

/// The record of which the hostile leaf gives entries that differ in what stands around one and the same change.
pub const TWO_FACED: &str = "Basic/intruder";

/// Names an entry.
pub type Key = (RecordId, ChangeHash);

/// The name of an entry.
pub fn key(entry: &Entry) -> Key {
    (entry.record().clone(), entry.change_hash())
}

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which promise.
    pub oracle: &'static str,
    /// What was seen.
    pub text: String,
}

impl Failure {
    /// A broken promise.
    pub fn new(oracle: &'static str, text: impl fmt::Display) -> Self {
        Self { oracle, text: text.to_string() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.oracle, self.text)
    }
}

/// What the world remembers of what was promised.
#[derive(Default)]
pub struct Ledger {
    /// Everything that was answered with "written".
    written: BTreeSet<Key>,
    /// Written, but only a destroyed disk held it.
    may_be_lost: BTreeSet<Key>,
    /// What somebody was told to be durable at the root.
    told_safe_at_root: BTreeSet<Key>,
    /// What each node's disks held when they were put back to older copies.
    destroyed: BTreeMap<usize, BTreeSet<Key>>,
    /// What has rotted anywhere: it may not have been passed on, and is taken for passed on until an audit finds it.
    rotten: BTreeSet<Key>,
}

impl Claim<'_> {
    /// Most rows of the lane that it can be about.
    fn rows(&self) -> usize {
        self.to.saturating_sub(self.from) as usize
    }
}

impl Ledger {
    /// A local writer has been told that its entries are durable.
    pub fn write(&mut self, who: &str, entries: &[Key], store: &MemStore) -> Result<(), Failure> {
        for key in entries {
            if !holds(store, key) {
                return Err(Failure::new("written is durable", format_args!("{who} has not kept {key:?}")));
            }
            self.written.insert(key.clone());
        }
        Ok(())
    }

    /// A disk of a node is put back to an older copy while these other disks go on.
    pub fn destroy(&mut self, node: usize, before: &MemStore, after: &MemStore, others: &[&MemStore]) {
        let kept: BTreeSet<_> = keys_after(after, 0).map(|(_, key)| key).collect();
        for (_, key) in keys_after(before, 0).filter(|(_, key)| !kept.contains(key)) {
            if !others.iter().any(|other| other.reads(&key.0, &key.1)) {
                self.may_be_lost.insert(key.clone());
            }
            self.destroyed.entry(node).or_default().insert(key);
        }
    }

    /// Rows of a disk of a node rot, while these other disks go on.
    pub fn rot(&mut self, node: usize, before: &MemStore, after: &MemStore, others: &[&MemStore]) {
        self.destroy(node, before, after, others);
        self.rotten
            .extend(keys_after(before, 0).map(|(_, key)| key).filter(|key| !after.reads(&key.0, &key.1)));
    }

    /// Rows `from` to `to` of a lane are claimed to be durable at a node, which has these disks. `copies` are those of the
    /// claimant's own node: where the record is secret on one of them, this one has passed the row over, and the claimant
    /// cannot know that before an audit.
    pub fn claim(
        &self,
        claim: &Claim<'_>,
        store: &MemStore,
        node: usize,
        disks: &[&MemStore],
        copies: &[&MemStore],
    ) -> Result<(), Failure> {
        let heads = store.heads(claim.lane, claim.from, claim.rows()).expect("memory does not fail");
        for head in heads.iter().take_while(|head| head.seq <= claim.to) {
            let from_above = head.src.is_some_and(|src| {
                let writer = store.announcement(src.segment).expect("memory does not fail");
                writer.is_some_and(|(_, info)| {
                    let (writer, own) = (info.place.org(), claim.place.org());
                    (claim.is_leaf || claim.places.has_stood_within(own, writer)) && writer != own
                })
            });
            if head.offered_to.is_some() || from_above || head.secrecy != Secrecy::None {
                continue;
            }
            let Some(entry) = store.entry(head.seq).expect("memory does not fail") else { continue };
            let key = key(&entry);
            // What a moved node passes over it takes for safe because the root has said so.
            let lost_at = |node: usize| self.destroyed.get(&node).is_some_and(|lost| lost.contains(&key));
            let destroyed = lost_at(node) || (claim.places.has_moved(claim.place.org()) && lost_at(0));
            let is_secret =
                |copy: &&MemStore| copy.secrecy(&key.0).expect("memory does not fail") != Secrecy::None;
            let excused = destroyed || self.rotten.contains(&key) || copies.iter().any(is_secret);
            if !excused && !disks.iter().any(|disk| holds(disk, &key)) {
                let text = format!("{} says that {key:?} is safe {}, and it is not", claim.who, claim.at);
                return Err(Failure::new("claims are true", text));
            }
        }
        Ok(())
    }

    /// Remembers what a claim has told.
    pub fn safe_at_root(&mut self, claim: &Claim<'_>, store: &MemStore) {
        let rows = store.heads(claim.lane, claim.from, claim.rows()).expect("memory does not fail");
        let told = rows.iter().take_while(|head| head.seq <= claim.to && head.offered_to.is_none());
        // What is only open here is not for this node to vouch for.
        let is_ours = |home| claim.places.has_stood_within(home, claim.place.org());
        let told = told
            .filter(|head| head.secrecy == Secrecy::None && (head.issued || head.homes.iter().any(is_ours)));
        for head in told {
            let Some(entry) = store.entry(head.seq).expect("memory does not fail") else { continue };
            self.told_safe_at_root.insert(key(&entry));
        }
    }

    /// Where at most one disk was taken away, whatever was said to be at the root is there. The root comes first. What has
    /// become secret since is not given to a root that has lost it, and what closed nodes alone could give they give by a stick.
    pub fn check_safe_at_root(
        &self,
        all: &[Final<'_>],
        secret: &BTreeSet<Key>,
        places: &Places,
    ) -> Result<(), Failure> {
        let root = all[0].store;
        let lost = |key: &&Key| self.written.contains(*key) && !holds(root, key);
        let is_closed = |one: &&Final<'_>| places.successor(one.place.org()).is_some();
        let at_closed_alone = |(record, change): &Key| {
            let holders: Vec<_> = all.iter().filter(|one| one.store.reads(record, change)).collect();
            let gives = |one: &Final<'_>| {
                let homes = one.store.homes(record).expect("memory does not fail");
                homes.iter().any(|home| places.is_within(home, &one.place))
            };
            holders.iter().any(is_closed) && holders.iter().all(|one| is_closed(one) || !gives(one))
        };
        match self.told_safe_at_root.difference(secret).filter(lost).find(|key| !at_closed_alone(key)) {
            Some(key) => Err(Failure::new("safe at the root is for ever", format_args!("{key:?} is gone"))),
            None => Ok(()),
        }
    }

    /// How much of what was written is not at the root.
    pub fn lost(&self, root: &MemStore) -> usize {
        self.written.iter().filter(|key| !holds(root, key)).count()
    }

    /// How much was written.
    pub fn written(&self) -> usize {
        self.written.len()
    }
}

/// That rows after `from` up to `to` are durable somewhere.
pub struct Claim<'a> {
    /// Who says so.
    pub who: &'a str,
    /// Its place.
    pub place: &'a OrgPath,
    /// Where everybody stands, as far as it knows.
    pub places: &'a Places,
    /// Whether it is a leaf: nothing comes from below.
    pub is_leaf: bool,
    /// Where.
    pub at: &'static str,
    /// The lane.
    pub lane: Lane,
    /// The last row before.
    pub from: Seq,
    /// The last row.
    pub to: Seq,
}

/// Whether a disk holds an entry.
pub fn holds(store: &MemStore, key: &Key) -> bool {
    store.has(&key.0, &key.1).expect("memory does not fail")
}

/// The entries of the rows after a row.
pub fn keys_after(store: &MemStore, after: Seq) -> impl Iterator<Item = (Seq, Key)> {
    let rows = store.unfolded(after, usize::MAX).expect("memory does not fail");
    rows.into_iter().filter_map(|(seq, _)| {
        // One that has rotted is not there.
        let entry = store.entry(seq).expect("memory does not fail")?;
        Some((seq, key(&entry)))
    })
}

/// What one machine has come to, when all is quiet.
pub struct Final<'a> {
    /// The machine.
    pub who: &'a str,
    /// Its place.
    pub place: OrgPath,
    /// Its disk.
    pub store: &'a MemStore,
    /// Of how many orders it has heard.
    pub orders: usize,
    /// What its engine says: all is durable at the parent, and at the root.
    pub says_all_safe: (bool, bool),
    /// How many entries its links say to be still to come, or still to go.
    pub says_to_come: u64,
    /// Machines were put back or copied, or rows rot: a disk that is older than the end of a grant, or has lost the word of it,
    /// holds what it held until the time of that has passed.
    pub may_be_older: bool,
}

/// Everything that has to be true when all is quiet. The root comes first.
pub fn check_final(
    ledger: &Ledger,
    all: &[Final<'_>],
    secret: &BTreeSet<Key>,
    places: &Places,
) -> Result<(), Failure> {
    let root = all[0].store;
    let at_root: BTreeSet<Key> = keys_after(root, 0).map(|(_, key)| key).collect();
    for key in ledger.written.difference(&ledger.may_be_lost).filter(|key| !at_root.contains(key)) {
        // An old parent of what was moved is not asked for what has rotted.
        let excused = secret.contains(key)
            || (ledger.rotten.contains(key) && !places.orders().is_empty())
            || is_others(key, all, places);
        if !excused {
            let who = all.iter().filter(|one| holds(one.store, key)).map(|one| one.who);
            let text = format!("{key:?} is not at the root; held by {:?}", who.collect::<Vec<_>>());
            return Err(Failure::new("nothing written is lost", text));
        }
    }
    check_part(all, secret, places)
}

/// Whether all who hold an entry were moved and its home is of another part of the tree, or is closed: they do not give it
/// back, because their new parents may not know why they have it, or forget it when the root has it. So with what is only
/// open to them, which they might have changed; and with what came, when an order had given them the record, before the entry
/// that makes it theirs, which their parent has to have had before.
fn is_others(key: &Key, all: &[Final<'_>], places: &Places) -> bool {
    let mut holders = all.iter().filter(|one| one.store.reads(&key.0, &key.1));
    holders.all(|one| {
        let rows = one.store.rows_of(&key.0).expect("memory does not fail").into_iter();
        let mut entries = rows.filter_map(|row| one.store.entry(row).expect("memory does not fail"));
        let own = one.place.org();
        let mut is_theirs = false;
        let home = entries.find_map(|entry| {
            let is_it = entry.change_hash() == key.1;
            is_theirs |= !is_it && places.has_come_through(entry.home(), own);
            is_it.then(|| entry.home().clone())
        });
        let is_elsewhere = home.as_ref().is_some_and(|home| !places.has_stood_within(home, own));
        let is_closed = home.is_some_and(|home| places.successor(&home).is_some());
        let comes_first = is_elsewhere && !is_theirs && !places.orders().is_empty();
        comes_first
            || (places.has_moved(own) && (is_elsewhere || is_closed))
            || (is_elsewhere && !grants_of(one.store, &key.0).is_empty())
    })
}

/// What has to be true of machines that reach the root through one another, whatever the others do. The root comes
/// first.
pub fn check_part(part: &[Final<'_>], secret: &BTreeSet<Key>, places: &Places) -> Result<(), Failure> {
    let root = part[0].store;
    let at_root: BTreeSet<Key> = keys_after(root, 0).map(|(_, key)| key).collect();
    for one in part {
        check_scope(one, part, &at_root, secret, places)?;
        check_digests(one, root, secret, places)?;
        check_issued(one)?;
        if one.says_all_safe != (true, true) {
            let text = format!("{} says (parent, root) {:?}", one.who, one.says_all_safe);
            return Err(Failure::new("all is said to be safe", text));
        }
        if one.says_to_come != 0 {
            let text = format!("{} says {}", one.who, one.says_to_come);
            return Err(Failure::new("nothing is said to be still to come", text));
        }
    }
    Ok(())
}

/// What is secret on one of these disks.
pub fn secret_keys<'a>(all: impl Iterator<Item = &'a MemStore>) -> BTreeSet<Key> {
    let of = |store: &MemStore| {
        let rows = store.secret_rows().expect("memory does not fail").into_iter();
        let entries = rows.filter_map(|(row, _)| store.entry(row).expect("memory does not fail"));
        entries.map(|entry| key(&entry)).collect::<Vec<_>>()
    };
    all.flat_map(of).collect()
}

/// A machine holds exactly the entries of the records that have a home in its part of the tree, and of those that are
/// issued at its place or above; and what is secret of its own.
fn check_scope(
    one: &Final<'_>,
    part: &[Final<'_>],
    at_root: &BTreeSet<Key>,
    secret: &BTreeSet<Key>,
    places: &Places,
) -> Result<(), Failure> {
    let root = part[0].store;
    let in_scope = |record: &RecordId| {
        let homes = root.homes(record).expect("memory does not fail");
        // One that was closed and has been moved is not sent what a second machine of its own has issued.
        let is_lost = |issuer: &OrgId| places.successor(issuer).is_some() && places.has_moved(issuer);
        let issuer = record.issuer().filter(|issuer| !is_lost(issuer));
        let issuer = issuer.and_then(|issuer| places.stands(&issuer).cloned());
        issuer.is_some_and(|issuer| one.place.is_within(&issuer))
            || homes.iter().any(|home| places.is_within(home, &one.place))
    };
    // Where somebody stands who has never been heard of at the root its records are not sent.
    let nodes = root.nodes().expect("memory does not fail");
    let is_known = |org: &OrgId| nodes.iter().any(|node| node.place.org() == org);
    // Nor where the word that opens them has rotted.
    let is_there = |record: &RecordId, to: &OrgId| {
        let rows = root.rows_of(record).expect("memory does not fail").into_iter();
        let mut entries = rows.filter_map(|row| root.entry(row).expect("memory does not fail"));
        entries.any(|entry| entry.makes_theirs(to))
    };
    // Where the record is secret the word that opens it, or ends that, may have stayed, or gone elsewhere than up.
    let is_secret = |record: &RecordId| {
        let has_grants = [root, one.store].iter().any(|store| !grants_of(store, record).is_empty());
        has_grants && secret.iter().any(|key| key.0 == *record)
    };
    let is_open = |record: &RecordId| {
        let grants = grants_of(root, record);
        let within = grant::opened(&grants).filter(|to| places.is_within(to, &one.place)).collect::<Vec<_>>();
        (
            !within.is_empty(),
            !is_secret(record)
                && !one.may_be_older
                && within.into_iter().any(|to| is_known(to) && is_there(record, to)),
        )
    };
    let is_wanted = |key: &&Key| (in_scope(&key.0) || is_open(&key.0).1) && !secret.contains(*key);
    let wanted: BTreeSet<&Key> = at_root.iter().filter(is_wanted).collect();
    let held: Vec<Key> = keys_after(one.store, 0).map(|(_, key)| key).collect();
    let distinct: BTreeSet<&Key> = held.iter().collect();
    if distinct.len() != held.len() {
        return Err(Failure::new("nothing is doubled", format_args!("{} holds an entry twice", one.who)));
    }
    if let Some(missing) = wanted.difference(&distinct).next() {
        return Err(Failure::new("all converge", format_args!("{} lacks {missing:?}", one.who)));
    }
    let mut known = Places::default();
    for node in one.store.nodes().expect("memory does not fail") {
        known.learn(&node.place);
    }
    for order in one.store.orders().expect("memory does not fail") {
        known.follow(&order);
    }
    // What was issued stays, what is its own, and what is somebody's of whom it has not heard; and what has stood below it
    // once until the root has it.
    let stays = |record: &RecordId| {
        let homes = one.store.homes(record).expect("memory does not fail");
        let own = one.place.org();
        let is_ordered = !places.orders().is_empty();
        let is_unknown = |home| known.unknown_of(home).is_some();
        let is_its_own = |home| home == own || places.is_within(home, &one.place);
        // What is secret here stays, whatever orders say: it may be nowhere else.
        homes.iter().any(is_its_own)
            || one.store.secrecy(record).expect("memory does not fail") != Secrecy::None
            || (is_ordered && (record.issuer().is_some() || homes.iter().any(is_unknown)))
            || (!one.says_all_safe.1
                && homes.iter().any(|home| {
                    let brings =
                        |org| places.has_stood_within(org, own) && places.has_stood_within(home, org);
                    brings(home) || places.all().any(|(org, _)| brings(org))
                }))
    };
    // A hub keeps what has ended early until everybody below has heard of it, and some are never there again.
    let is_there = |place: &OrgPath| part.iter().any(|one| one.place == *place);
    let waits = |record: &RecordId| {
        grants_of(one.store, record).iter().any(|granted| {
            let to = places.of(&granted.grant.to).filter(|to| to.is_within(&one.place) && **to != one.place);
            let mut way =
                to.into_iter().flat_map(|to| std::iter::successors(Some(to.clone()), OrgPath::parent));
            granted.over.is_some() && way.any(|place| place.is_within(&one.place) && !is_there(&place))
        })
    };
    let stays = |record: &RecordId| {
        let was_open =
            || one.may_be_older && [root, one.store].iter().any(|store| !grants_of(store, record).is_empty());
        stays(record) || waits(record) || is_open(record).0 || was_open() || is_secret(record)
    };
    let mut foreign = distinct.difference(&wanted).filter(|key| !secret.contains(**key));
    if let Some(foreign) = foreign.find(|key| !stays(&key.0)) {
        return Err(Failure::new("scope", format_args!("{} must not hold {foreign:?}", one.who)));
    }
    Ok(())
}

fn grants_of(store: &MemStore, record: &RecordId) -> Vec<Granted> {
    store.grants(record).expect("memory does not fail")
}

/// Of what is issued everything is signed by the node whose run wrote it.
fn check_issued(one: &Final<'_>) -> Result<(), Failure> {
    for (row, record) in one.store.unfolded(0, usize::MAX).expect("memory does not fail") {
        if record.issuer().is_none() {
            continue;
        }
        // A row that has rotted says nothing.
        let Some(entry) = one.store.entry(row).expect("memory does not fail") else { continue };
        let author = one.store.announcement(entry.origin()).expect("memory does not fail");
        let signature = author.map(|(author, _)| SimIdentity::signature_of(author.node, &entry.statement()));
        if signature.as_deref() != entry.signature() {
            let text = format!("{} holds a change of {record} that its author has not signed", one.who);
            return Err(Failure::new("what is issued is signed", text));
        }
    }
    Ok(())
}

/// The entries of the hostile leaf of which two disks have different ones around the same change: each keeps what has come first.
pub fn two_faced(one: &MemStore, other: &MemStore) -> BTreeSet<Key> {
    let faces = |store: &MemStore| {
        let rows = store.rows_of(&TWO_FACED.parse().expect("a plain name")).expect("memory does not fail");
        let entries = rows.into_iter().filter_map(|row| store.entry(row).expect("memory does not fail"));
        entries.map(|entry| (key(&entry), entry.hash())).collect::<BTreeMap<_, _>>()
    };
    let others = faces(other);
    let differs = |(key, hash): &(Key, _)| others.get(key).is_some_and(|other| other != hash);
    faces(one).into_iter().filter(differs).map(|(key, _)| key).collect()
}

fn check_digests(
    one: &Final<'_>,
    root: &MemStore,
    secret: &BTreeSet<Key>,
    places: &Places,
) -> Result<(), Failure> {
    let two_faced = two_faced(one.store, root);
    let of = |store: &MemStore| {
        let mut digests = store.digests().expect("memory does not fail");
        // What nobody could heal is counted still.
        for (home, missing) in store.check().missing {
            let of_home = digests.iter_mut().filter(|(known, _)| *known == home);
            of_home.for_each(|(_, digest)| *digest = digest.without(missing));
        }
        for (record, change) in secret.union(&two_faced) {
            let rows = store.rows_of(record).expect("memory does not fail").into_iter();
            let entries = rows.filter_map(|row| store.entry(row).expect("memory does not fail"));
            for entry in entries.filter(|entry| entry.change_hash() == *change) {
                let of_home = digests.iter_mut().filter(|(known, _)| known == entry.home());
                of_home.for_each(|(_, digest)| digest.remove(entry.hash()));
            }
        }
        digests.retain(|(_, digest)| *digest != Digest::default());
        digests.retain(|(home, _)| places.is_within(home, &one.place));
        digests
    };
    if of(one.store) != of(root) {
        return Err(Failure::new("digests agree", format_args!("{} and the root differ", one.who)));
    }
    Ok(())
}
