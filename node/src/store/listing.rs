//! Reads for people: counts, lists, conflicts, exports and histories, on a connection of their own.
//!
//! A [`Reader`] sees the store as of the last commit and never blocks the writer, nor the other way round. It
//! cannot write: the connection is set to refuse it. While an export runs, the write-ahead log grows, because
//! the export sees one moment of the store.

use rusqlite::{Connection, Row, params};
use sync_core::{
    feed::{Position, Seq},
    id::{ChangeHash, Incarnation, Lane, NodeId, RecordId, Secrecy},
    scope::grant::{Grant, GrantId},
    store::StoreError,
};

use super::{
    Fallible,
    read::{DEGREE, array, clamp, parse, small, unpack},
    write::State,
};

/// Greater than the name of every record of one type: '0' follows '/'.
const AFTER_SLASH: char = '0';
/// Greater than the name of every record.
const AFTER_ALL: &str = "~";

/// A second connection to the store, which only reads.
pub struct Reader {
    pub(super) conn: Connection,
}

/// What a store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Records that have a resource.
    pub live: u64,
    /// Records that have been deleted.
    pub deleted: u64,
    /// Records of which nothing can be shown: not folded yet, or not readable.
    pub unshown: u64,
    /// Entries.
    pub entries: u64,
    /// Rows of the feed: entries, and offers of them.
    pub rows: u64,
    /// Records with open conflicts.
    pub conflicted: u64,
    /// Open conflicts.
    pub conflicts: u64,
    /// Entries that wait for others.
    pub waiting: u64,
    /// Entries that could not be applied.
    pub unreadable: u64,
    /// Secret records.
    pub secret: u64,
}

/// What has not gone up yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pending {
    /// Number of rows.
    pub rows: u64,
    /// When the oldest of them became durable here, in milliseconds since 1970 by this machine's clock.
    pub oldest: Option<i64>,
}

/// A record in a list.
#[derive(Clone, PartialEq, Eq)]
pub struct Listed {
    /// The record.
    pub record: RecordId,
    /// Its version; empty while nothing of it can be read.
    pub version: String,
    /// How many conflicts are open.
    pub open_conflicts: u32,
    /// The resource as JSON text; none when it is deleted or not readable.
    pub resource: Option<String>,
}

impl Listed {
    /// Whether it was deleted, and not only that nothing of it can be read.
    pub fn is_deleted(&self) -> bool {
        self.resource.is_none() && !self.version.is_empty()
    }
}

/// A record with open conflicts.
#[derive(Clone, PartialEq, Eq)]
pub struct Conflicted {
    /// The record.
    pub record: RecordId,
    /// How many conflicts are open.
    pub open: u32,
    /// The conflicts, as JSON text of the list.
    pub conflicts: Option<String>,
}

/// One entry in the history of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordRow {
    /// The row.
    pub seq: Seq,
    /// The change.
    pub change: ChangeHash,
    /// When it became durable here, in milliseconds since 1970 by this machine's clock.
    pub at: i64,
    /// The run that wrote it.
    pub origin: Incarnation,
    /// The neighbour's feed that it came from; none when it was written here.
    pub src: Option<Position>,
    /// Whether it waits for other entries.
    pub waiting: bool,
    /// Why it could not be applied.
    pub unreadable: Option<String>,
}

impl Reader {
    pub(super) fn new(conn: Connection) -> Self {
        Self { conn }
    }

    /// Runs a piece of work that sees one moment of the store.
    pub(super) fn at_one_moment<T>(
        &self,
        work: impl FnOnce(&Connection) -> Fallible<T>,
    ) -> Result<T, StoreError> {
        let run = || {
            let transaction = self.conn.unchecked_transaction()?;
            work(&transaction)
        };
        run().map_err(StoreError::from)
    }

    /// Counts of everything; some tens of milliseconds for a million records.
    pub fn counts(&self) -> Result<Counts, StoreError> {
        self.at_one_moment(counts)
    }

    /// The rows of a lane after `after` that have to go up: those that did not come from these nodes, which stand above this one
    /// or have done so, and are not more secret than what may go there.
    pub fn pending(
        &self,
        lane: Lane,
        after: Seq,
        above: &[NodeId],
        allowed: Secrecy,
    ) -> Result<Pending, StoreError> {
        self.at_one_moment(|conn| {
            let mut statement = conn.prepare_cached(&format!(
                "SELECT count(*), min(seq) FROM feed INDEXED BY feed_head
                 WHERE lane = ?1 AND seq > ?2 AND offered_to IS NULL AND (src IS NULL OR src NOT IN
                   (SELECT a.incarnation FROM certificate c JOIN announcement a ON a.certificate = c.id
                    WHERE hex(c.node) IN (SELECT value FROM json_each(?3))))
                 AND {DEGREE} <= ?4"
            ))?;
            let names = above.iter().map(|node| data_encoding::HEXUPPER.encode(&node.0)).collect::<Vec<_>>();
            let above = serde_json::to_string(&names).expect("names are plain data");
            let (rows, first): (i64, Option<i64>) = statement
                .query_row(params![lane as u8, clamp(after), above, allowed as u8], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?;
            let mut at = conn.prepare_cached("SELECT at FROM feed WHERE seq = ?1")?;
            let oldest = first.map(|seq| at.query_row([seq], |row| row.get(0))).transpose()?;
            Ok(Pending { rows: unpack(rows), oldest })
        })
    }

    /// A record; none when it is unknown or not folded yet.
    pub fn record(&self, record: &RecordId) -> Result<Option<Listed>, StoreError> {
        self.at_one_moment(|conn| {
            let mut statement = conn.prepare_cached(
                "SELECT n.name, p.version, p.open_conflicts, p.resource
                 FROM record_name n JOIN projection p ON p.record = n.record WHERE n.name = ?1",
            )?;
            let mut rows = statement.query([record.as_str()])?;
            rows.next()?.map(listed).transpose()
        })
    }

    /// The records that have a resource, of one type or of all, sorted by name, after a name.
    pub fn list(
        &self,
        resource_type: Option<&str>,
        after: Option<&RecordId>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        Ok(self.page(resource_type, after, limit, usize::MAX)?.0)
    }

    /// The records of which entries wait or could not be applied, sorted by name, after a name.
    pub fn unread(&self, after: Option<&RecordId>, limit: usize) -> Result<Vec<Listed>, StoreError> {
        self.at_one_moment(|conn| {
            let mut statement = conn.prepare_cached(
                "SELECT r.name, p.version, p.open_conflicts, p.resource
                 FROM (SELECT record FROM waiting UNION SELECT record FROM unreadable) u
                 JOIN record r ON r.id = u.record JOIN projection p ON p.record = u.record
                 WHERE r.name > ?1 ORDER BY r.name LIMIT ?2",
            )?;
            let mut rows =
                statement.query(params![after.map_or("", RecordId::as_str), clamp(limit as u64)])?;
            let mut all = Vec::new();
            while let Some(row) = rows.next()? {
                all.push(listed(row)?);
            }
            Ok(all)
        })
    }

    /// The same as [`Reader::list`], but no further than until their resources have so many bytes; and whether it stopped there or at
    /// the limit, so that there may be more.
    pub fn page(
        &self,
        resource_type: Option<&str>,
        after: Option<&RecordId>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<(Vec<Listed>, bool), StoreError> {
        self.at_one_moment(|conn| {
            let (mut all, mut bytes) = (Vec::new(), 0);
            live(conn, resource_type, after, limit, |listed| {
                bytes += listed.resource.as_ref().map_or(0, String::len);
                all.push(listed);
                bytes < bytes_max
            })?;
            let more = all.len() >= limit || bytes >= bytes_max;
            Ok((all, more))
        })
    }

    /// Hands out all records that have a resource, of one type or of all, sorted by name, as of one moment, until
    /// `each` says false.
    pub fn export(
        &self,
        resource_type: Option<&str>,
        each: impl FnMut(Listed) -> bool,
    ) -> Result<(), StoreError> {
        self.at_one_moment(|conn| live(conn, resource_type, None, usize::MAX, each))
    }

    /// The records that are about a patient, sorted by name; the patient's own among them.
    pub fn about(&self, patient: &RecordId) -> Result<Vec<RecordId>, StoreError> {
        self.at_one_moment(|conn| {
            let sql = "SELECT r.name FROM about a JOIN record r ON r.id = a.record WHERE a.patient = ?1 ORDER BY r.name";
            let mut statement = conn.prepare_cached(sql)?;
            let (mut rows, mut all) = (statement.query([patient.as_str()])?, Vec::new());
            while let Some(row) = rows.next()? {
                all.push(parse(row.get_ref(0)?.as_str()?, "record name")?);
            }
            Ok(all)
        })
    }

    /// All grants that this node knows, each with how many records have it, and in how many of them it has not ended.
    pub fn grants(&self) -> Result<Vec<(Grant, u64, u64)>, StoreError> {
        self.at_one_moment(|conn| {
            let mut statement = conn.prepare_cached(
                "SELECT g.name, o.name, g.until, count(*), sum(g.over IS NULL) FROM grant_ g JOIN org o ON o.id = g.org
                 GROUP BY g.name, o.name, g.until ORDER BY g.until, g.name, o.name",
            )?;
            let (mut rows, mut all) = (statement.query([])?, Vec::new());
            while let Some(row) = rows.next()? {
                let to = parse(row.get_ref(1)?.as_str()?, "organization")?;
                let grant = Grant { id: GrantId(array(row, 0)?), to, until: row.get(2)? };
                all.push((grant, unpack(row.get(3)?), unpack(row.get(4)?)));
            }
            Ok(all)
        })
    }

    /// The Patient records that have, or had, a grant.
    pub fn patients_with_grants(&self) -> Result<Vec<RecordId>, StoreError> {
        self.at_one_moment(|conn| {
            let mut statement = conn.prepare_cached(
                "SELECT DISTINCT r.name FROM grant_ g JOIN record r ON r.id = g.record WHERE r.name GLOB 'Patient/*'",
            )?;
            let (mut rows, mut all) = (statement.query([])?, Vec::new());
            while let Some(row) = rows.next()? {
                all.push(parse(row.get_ref(0)?.as_str()?, "record name")?);
            }
            Ok(all)
        })
    }

    /// The records with open conflicts, sorted by name, after a name.
    pub fn conflicts(&self, after: Option<&RecordId>, limit: usize) -> Result<Vec<Conflicted>, StoreError> {
        self.at_one_moment(|conn| {
            let mut statement = conn.prepare_cached(
                "SELECT r.name, p.open_conflicts, p.conflicts
                 FROM projection p INDEXED BY projection_conflicts CROSS JOIN record r ON r.id = p.record
                 WHERE p.open_conflicts > 0 AND r.name > ?1 ORDER BY r.name LIMIT ?2",
            )?;
            let mut rows =
                statement.query(params![after.map_or("", RecordId::as_str), clamp(limit as u64)])?;
            let mut all = Vec::new();
            while let Some(row) = rows.next()? {
                let record = parse(row.get_ref(0)?.as_str()?, "record name")?;
                all.push(Conflicted { record, open: row.get(1)?, conflicts: row.get(2)? });
            }
            Ok(all)
        })
    }

    /// The entries of a record in feed order: where they came from, when, and what became of them.
    pub fn record_rows(&self, record: &RecordId) -> Result<Vec<RecordRow>, StoreError> {
        self.at_one_moment(|conn| {
            let Some(id) = small::record_id(conn, record)? else { return Ok(Vec::new()) };
            let mut statement = conn.prepare_cached(
                "SELECT c.seq, c.hash, f.at, o.name, s.name, f.src_pos,
                   EXISTS (SELECT 1 FROM waiting w WHERE w.record = c.record AND w.seq = c.seq),
                   (SELECT u.reason FROM unreadable u WHERE u.record = c.record AND u.seq = c.seq)
                 FROM change c JOIN feed f ON f.seq = c.seq JOIN incarnation o ON o.id = f.origin
                 LEFT JOIN incarnation s ON s.id = f.src
                 WHERE c.record = ?1 ORDER BY c.seq",
            )?;
            let rows = statement.query_map([id], |row| {
                let src = match row.get::<_, Option<[u8; 16]>>(4)? {
                    Some(name) => Some(Position { segment: Incarnation(name), pos: unpack(row.get(5)?) }),
                    None => None,
                };
                Ok(RecordRow {
                    seq: unpack(row.get(0)?),
                    change: ChangeHash(array(row, 1)?),
                    at: row.get(2)?,
                    origin: Incarnation(array(row, 3)?),
                    src,
                    waiting: row.get(6)?,
                    unreadable: row.get(7)?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}

fn live(
    conn: &Connection,
    resource_type: Option<&str>,
    after: Option<&RecordId>,
    limit: usize,
    mut each: impl FnMut(Listed) -> bool,
) -> Fallible<()> {
    let (from, to) = match resource_type {
        Some(kind) => (format!("{kind}/"), format!("{kind}{AFTER_SLASH}")),
        None => (String::new(), AFTER_ALL.to_owned()),
    };
    let from = from.as_str().max(after.map_or("", RecordId::as_str));
    let mut statement = conn.prepare_cached(
        "SELECT n.name, p.version, p.open_conflicts, p.resource
         FROM record_name n CROSS JOIN projection p ON p.record = n.record
         WHERE n.name > ?1 AND n.name < ?2 AND p.state = 0 ORDER BY n.name LIMIT ?3",
    )?;
    let mut rows = statement.query(params![from, to, clamp(limit as u64)])?;
    while let Some(row) = rows.next()? {
        if !each(listed(row)?) {
            break;
        }
    }
    Ok(())
}

fn listed(row: &Row<'_>) -> Fallible<Listed> {
    Ok(Listed {
        record: parse(row.get_ref(0)?.as_str()?, "record name")?,
        version: row.get(1)?,
        open_conflicts: u32::try_from(row.get::<_, i64>(2)?).unwrap_or(u32::MAX),
        resource: row.get(3)?,
    })
}

/// [`Reader::counts`] within a transaction.
pub(super) fn counts(conn: &Connection) -> Fallible<Counts> {
    let number = |sql| small::number(conn, sql).map(unpack);
    let mut counts = Counts {
        entries: number("SELECT sum(count) FROM digest")?,
        rows: small::tip(conn)?,
        waiting: number("SELECT count(*) FROM waiting")?,
        unreadable: number("SELECT count(*) FROM unreadable")?,
        secret: number("SELECT count(*) FROM secret")?,
        ..Counts::default()
    };
    let mut statement = conn.prepare_cached(
        "SELECT state, count(*), sum(open_conflicts > 0), sum(open_conflicts) FROM projection GROUP BY state",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let records = unpack(row.get(1)?);
        match row.get::<_, i64>(0)? {
            n if n == State::Live as i64 => counts.live = records,
            n if n == State::Deleted as i64 => counts.deleted = records,
            _ => {}
        }
        counts.conflicted += unpack(row.get(2)?);
        counts.conflicts += unpack(row.get(3)?);
    }
    // Records are never removed, so the last number is their count.
    let records = number("SELECT max(id) FROM record")?;
    counts.unshown = records.saturating_sub(counts.live + counts.deleted);
    Ok(counts)
}
