//! What is written, and to which record. In most worlds changes are opaque: the engine moves them without looking
//! inside, and so does the world. In the others [`records`] makes them.

use std::collections::BTreeSet;

use sync_core::{
    change::{Entry, opaque_chunk},
    id::{ChangeHash, Lane, OrgId, RecordId, Secrecy},
    scope::Places,
    store::{Op, Store, StoreError},
    time::Stamp,
};

use super::{records, rng::Rng};

/// Who writes, and with what.
pub struct Writer<'a> {
    /// The run under which changes are made.
    pub run: sync_core::id::Incarnation,
    /// The writer's own organization.
    pub org: &'a OrgId,
    /// The writer's place.
    pub place: &'a sync_core::id::OrgPath,
    /// Where organizations stand, as far as the writer knows.
    pub places: &'a Places,
    /// The machine's clock, in milliseconds since 1970.
    pub wall: i64,
    /// A number that this machine uses once.
    pub serial: u64,
}

/// Settings of a world.
pub struct Taste {
    /// How many record names are shared.
    pub shared_names: u64,
    /// One in so many entries is large; 0 for none.
    pub large_one_in: u64,
    /// Whether records mean something.
    pub real: bool,
    /// Whether some new records are issued to everybody below.
    pub issues: bool,
    /// Whether some records are secret.
    pub secrets: bool,
}

/// Something that was written.
pub struct Written {
    /// The entry.
    pub entry: Entry,
    /// What people see of the record from now on.
    pub projection: Option<Op>,
}

/// One new entry of a new or an existing record, or of the one that is wanted; none when somebody writes what is
/// there already.
pub fn compose(
    writer: &Writer<'_>,
    taste: &Taste,
    wanted: Option<RecordId>,
    store: &impl Store,
    rng: &mut Rng,
) -> Result<Option<Written>, StoreError> {
    let wanted = match wanted {
        Some(record) => home_of(&record, writer, store)?.map(|home| (record, home)),
        None => None,
    };
    let (record, home) = wanted.map_or_else(|| choose(writer, taste, store, rng), Ok)?;
    if taste.real {
        return records::edit(writer, (record, home), store, rng);
    }
    let lane = Lane::of_resource_type(record.resource_type());
    let (deps, latest) = heads(&record, store)?;
    let large = taste.large_one_in > 0 && rng.one_in(taste.large_one_in);
    let body = if large {
        let size = rng.range(2_000, 100_000) as usize;
        let piece = rng.bytes(64);
        piece.into_iter().cycle().take(size).collect()
    } else {
        let size = rng.range(20, 400) as usize;
        rng.bytes(size)
    };
    let stamp = Stamp::after(writer.wall, latest);
    let chunk = opaque_chunk(writer.run, writer.serial, &deps, stamp, &body);
    let degree = if taste.secrets { degree_of(&record, writer.serial) } else { Secrecy::None };
    let entry =
        Entry::new(record, home, lane, chunk).expect("an opaque chunk is well-formed").with_secrecy(degree);
    Ok(Some(Written { entry, projection: None }))
}

/// How secret a writer says that a record is: of one in six not every write says so, nor the first.
fn degree_of(record: &RecordId, serial: u64) -> Secrecy {
    let sum: u64 = record.as_str().bytes().map(u64::from).sum();
    if sum.is_multiple_of(6) { Secrecy::from_u8((serial % 4) as u8) } else { Secrecy::None }
}

/// The record to write, and the home that the entry names: one in the writer's own part of the tree.
fn choose(
    writer: &Writer<'_>,
    taste: &Taste,
    store: &impl Store,
    rng: &mut Rng,
) -> Result<(RecordId, OrgId), StoreError> {
    let types = ["Flag", "Observation", "Patient", "AuditEvent"];
    let tip = store.tip()?;
    if tip > 0 && !rng.one_in(3) {
        let rows = store.unfolded(rng.below(tip), 1)?;
        if let Some((_, record)) = rows.into_iter().next()
            && let Some(home) = home_of(&record, writer, store)?
        {
            return Ok((record, home));
        }
    }
    let own = writer.org.clone();
    if taste.shared_names > 0 && rng.one_in(4) {
        let n = rng.below(taste.shared_names);
        let record = RecordId::new(types[n as usize % types.len()], &format!("shared-{n}"));
        return Ok((record.expect("a plain name"), own));
    }
    if taste.issues && rng.one_in(6) {
        let id = format!("{}-{}", writer.run.short(), writer.serial);
        return Ok((RecordId::issued(&own, "PlanDefinition", &id).expect("a plain name"), own));
    }
    let kind = types[rng.below(4) as usize];
    let record = RecordId::new(kind, &format!("{}-{}", writer.run.short(), writer.serial));
    Ok((record.expect("a plain name"), own))
}

/// A home of the record in the writer's own part of the tree.
fn home_of(record: &RecordId, writer: &Writer<'_>, store: &impl Store) -> Result<Option<OrgId>, StoreError> {
    Ok(store.homes(record)?.into_iter().find(|home| writer.places.is_within(home, writer.place)))
}

/// The changes of a record that no other of its changes depends on, and the latest stamp.
fn heads(record: &RecordId, store: &impl Store) -> Result<(Vec<ChangeHash>, Option<Stamp>), StoreError> {
    let mut heads = BTreeSet::new();
    let mut passed = BTreeSet::new();
    let mut latest = None;
    for row in store.rows_of(record)? {
        let Some(entry) = store.entry(row)? else { continue };
        passed.extend(entry.deps().iter().copied());
        heads.insert(entry.change_hash());
        latest = latest.max(Some(entry.stamp()));
    }
    Ok((heads.difference(&passed).copied().collect(), latest))
}
