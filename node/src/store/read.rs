//! The reads of the store's contract.
//!
//! A scan of heads is answered from one index and touches no body, because a session makes it for every
//! neighbour. An entry is decoded when it is read, which recomputes its hash: what is no entry any more is never an
//! answer, and stops no other.

use rusqlite::{Connection, OptionalExtension, Row, params};
use sync_core::{
    attachment::{Held, Kept, Name, Tree},
    change::Entry,
    codec::Reader as Bytes,
    feed::{CHAIN_START, Cursor, Digest, Position, Progress, Segment, Seq},
    id::{Chain, ChangeHash, Incarnation, Lane, NodeId, OrgId, RecordId, Secrecy},
    identity::{Announcement, Malformed, NodeInfo, Revocation, Role},
    order::Order,
    scope::{
        Profiles, Way,
        grant::{FOREVER, Grant, GrantId, Granted, opened_at},
    },
    store::{Frontier, Gain, Head, Mark, Offered, Projected, Purge, Store, StoreError},
};

use super::{
    Fallible, Fault, Marked, SqliteStore, broken,
    contents::{LACKING, UNKEPT},
};

/// A number for a comparison. Nothing stored is larger than `i64::MAX`, so clamping keeps every comparison true.
pub(super) fn clamp(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// A number that is only kept and given back, in its two's complement.
pub(super) fn pack(n: u64) -> i64 {
    n as i64
}

pub(super) fn unpack(n: i64) -> u64 {
    n as u64
}

pub(super) fn lane(n: i64) -> Fallible<Lane> {
    let lane = u8::try_from(n).ok().and_then(Lane::from_u8);
    lane.ok_or_else(|| Fault::Broken(format!("a row has the lane {n}, which does not exist")))
}

pub(super) fn array<const N: usize>(row: &Row<'_>, column: usize) -> rusqlite::Result<[u8; N]> {
    row.get(column)
}

/// A degree of secrecy; a number that is none is taken for the highest.
pub(super) fn degree(row: &Row<'_>, column: usize) -> rusqlite::Result<Secrecy> {
    Ok(u8::try_from(row.get::<_, i64>(column)?).map_or(Secrecy::TuyetMat, Secrecy::from_u8))
}

pub(super) fn parse<T: std::str::FromStr>(text: &str, what: &str) -> Fallible<T> {
    text.parse().or_else(|_| broken(format!("a row holds a malformed {what}")))
}

/// Kept as the running hash of a row that was healed while that of the row before was not known.
pub(super) const UNKNOWN: Chain = CHAIN_START;

/// Decodes the entry of a row.
pub(super) fn decode(seq: i64, body: &[u8]) -> Fallible<Entry> {
    let mut bytes = Bytes(body);
    let entry = Entry::decode(&mut bytes);
    let entry = entry.or_else(|e| broken(format!("the entry of row {seq} of the feed is damaged: {e}")))?;
    match bytes.end() {
        Ok(()) => Ok(entry),
        Err(e) => broken(format!("the entry of row {seq} of the feed is damaged: {e}")),
    }
}

/// Reads that only need the connection: what the writer knows from the start.
pub(super) mod small {
    use std::collections::{HashMap, HashSet};

    use super::*;
    use crate::store::Checkpoint;

    pub fn tip(conn: &Connection) -> Fallible<Seq> {
        let last = number(conn, "SELECT max(seq) FROM feed")?;
        Ok(unpack(last.max(reached(conn, TIP)?)))
    }

    pub fn number(conn: &Connection, sql: &str) -> Fallible<i64> {
        Ok(conn.query_row(sql, [], |row| row.get::<_, Option<i64>>(0))?.unwrap_or(0))
    }

    /// The last row that was ever appended: a row that is gone is missed at the end of the feed as well.
    pub const TIP: &str = "tip";
    /// The last record in the index of names.
    pub const NAMED: &str = "named";
    /// The last row of the feed in the projection.
    pub const FOLDED: &str = "folded";
    /// When the daemon was last known to run, by the wall clock.
    pub const ALIVE: &str = "alive";

    pub fn reached(conn: &Connection, what: &str) -> Fallible<i64> {
        let mut statement = conn.prepare_cached("SELECT value FROM reached WHERE what = ?1")?;
        Ok(statement.query_row([what], |row| row.get(0)).optional()?.unwrap_or(0))
    }

    pub fn set_reached(conn: &Connection, what: &str, value: i64) -> Fallible<()> {
        let sql = "INSERT INTO reached (what, value) VALUES (?1, ?2)
                   ON CONFLICT (what) DO UPDATE SET value = excluded.value";
        conn.prepare_cached(sql)?.execute(params![what, value])?;
        Ok(())
    }

    /// The number of a record, for a connection that remembers no names.
    pub fn record_id(conn: &Connection, name: &RecordId) -> Fallible<Option<i64>> {
        let mut named = conn.prepare_cached("SELECT record FROM record_name WHERE name = ?1")?;
        if let Some(id) = named.query_row([name.as_str()], |row| row.get(0)).optional()? {
            return Ok(Some(id));
        }
        let mut fresh = conn.prepare_cached("SELECT id FROM record WHERE id > ?1 AND name = ?2")?;
        let id = fresh.query_row(params![reached(conn, NAMED)?, name.as_str()], |row| row.get(0));
        Ok(id.optional()?)
    }

    pub fn last_chain(conn: &Connection) -> Fallible<Option<Chain>> {
        let sql = "SELECT chain FROM (SELECT * FROM (SELECT seq, chain FROM feed ORDER BY seq DESC LIMIT 1) UNION ALL
                   SELECT * FROM (SELECT seq, chain FROM forgotten ORDER BY seq DESC LIMIT 1)) ORDER BY seq DESC LIMIT 1";
        Ok(conn.query_row(sql, [], |row| array(row, 0)).optional()?.map(Chain))
    }

    /// The running hash of a row that was forgotten.
    pub fn forgotten(conn: &Connection, row: Seq) -> Fallible<Option<Chain>> {
        let mut statement = conn.prepare_cached("SELECT chain FROM forgotten WHERE seq = ?1")?;
        Ok(statement.query_row([clamp(row)], |row| array(row, 0)).optional()?.map(Chain))
    }

    pub fn segments(conn: &Connection) -> Fallible<Vec<Segment>> {
        let mut statement = conn.prepare_cached(
            "SELECT i.name, s.base, p.name, s.parent_pos FROM segment s
             JOIN incarnation i ON i.id = s.incarnation LEFT JOIN incarnation p ON p.id = s.parent
             ORDER BY s.nth",
        )?;
        let rows = statement.query_map([], |row| {
            let parent = match row.get::<_, Option<[u8; 16]>>(2)? {
                Some(name) => Some(Position { segment: Incarnation(name), pos: unpack(row.get(3)?) }),
                None => None,
            };
            Ok(Segment { incarnation: Incarnation(array(row, 0)?), base: unpack(row.get(1)?), parent })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub fn further_homes(conn: &Connection) -> Fallible<HashMap<i64, Vec<(OrgId, Seq)>>> {
        let mut statement = conn.prepare(
            "SELECT h.record, o.name, h.since FROM further_home h JOIN org o ON o.id = h.org ORDER BY h.record, h.nth",
        )?;
        let mut rows = statement.query([])?;
        let mut homes: HashMap<i64, Vec<(OrgId, Seq)>> = HashMap::new();
        while let Some(row) = rows.next()? {
            let org = parse(row.get_ref(1)?.as_str().unwrap_or_default(), "organization")?;
            homes.entry(row.get(0)?).or_default().push((org, unpack(row.get(2)?)));
        }
        Ok(homes)
    }

    pub fn grants(conn: &Connection) -> Fallible<HashMap<i64, Vec<(Granted, Seq)>>> {
        let mut statement = conn.prepare(
            "SELECT g.record, g.name, o.name, g.until, g.over, g.since FROM grant_ g JOIN org o ON o.id = g.org",
        )?;
        let mut rows = statement.query([])?;
        let mut grants: HashMap<i64, Vec<(Granted, Seq)>> = HashMap::new();
        while let Some(row) = rows.next()? {
            let to = parse(row.get_ref(2)?.as_str().unwrap_or_default(), "organization")?;
            let grant = Grant { id: GrantId(array(row, 1)?), to, until: row.get(3)? };
            let granted = Granted { grant, over: row.get::<_, Option<i64>>(4)?.map(unpack) };
            grants.entry(row.get(0)?).or_default().push((granted, unpack(row.get(5)?)));
        }
        grants.values_mut().for_each(|grants| grants.sort());
        Ok(grants)
    }

    /// The records that have entries which wait or cannot be applied.
    pub fn troubled(conn: &Connection) -> Fallible<HashSet<i64>> {
        let mut statement = conn.prepare("SELECT record FROM waiting UNION SELECT record FROM unreadable")?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// How secret the records are that are.
    pub fn secret(conn: &Connection) -> Fallible<HashMap<i64, Marked>> {
        let mut statement = conn.prepare("SELECT record, degree, here FROM secret")?;
        let rows = statement.query_map([], |row| {
            Ok((row.get(0)?, Marked { degree: degree(row, 1)?, here: degree(row, 2)? }))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub fn checkpoint(conn: &Connection, mode: &str) -> Fallible<Checkpoint> {
        let mut statement = conn.prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?;
        let (pages, done) =
            statement.query_row([], |row| Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)))?;
        Ok(Checkpoint { pages: pages.max(0).unsigned_abs(), done: done.max(0).unsigned_abs() })
    }
}

impl SqliteStore {
    fn position(&self, src: Option<i64>, pos: Option<i64>) -> Fallible<Option<Position>> {
        match (src, pos) {
            (Some(src), Some(pos)) => {
                let segment = self.names.borrow_mut().incarnation(&self.conn, src)?;
                Ok(Some(Position { segment, pos: unpack(pos) }))
            }
            _ => Ok(None),
        }
    }

    /// The homes that a record had when row `at` was appended.
    fn homes_from(&self, record: i64, first: Option<i64>, at: Seq) -> Fallible<Vec<OrgId>> {
        let Some(first) = first else { return Ok(Vec::new()) };
        let mut homes = vec![self.names.borrow_mut().org(&self.conn, first)?];
        let known = self.known.borrow();
        let further = known.further_homes.get(&record).map_or(&[][..], Vec::as_slice);
        homes.extend(further.iter().filter(|(_, since)| *since <= at).map(|(home, _)| home.clone()));
        Ok(homes)
    }

    fn head(&self, row: &Row<'_>) -> Fallible<Head> {
        let (src, pos): (Option<i64>, _) = match row.get::<_, Option<i64>>(5)? {
            None => (row.get(3)?, row.get(4)?),
            Some(of) => self
                .conn
                .prepare_cached("SELECT src, src_pos FROM feed WHERE seq = ?1")?
                .query_row([of], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?
                .unwrap_or_default(),
        };
        let (seq, record) = (unpack(row.get(0)?), row.get(1)?);
        let known = self.known.borrow();
        let grants = known.grants.get(&record).map_or(&[][..], Vec::as_slice);
        let offered_to = match (row.get::<_, Option<i64>>(5)?, row.get::<_, Option<i64>>(6)?) {
            (None, _) => None,
            (Some(_), Some(org)) => {
                let org = self.names.borrow_mut().org(&self.conn, org)?;
                let ends = grants.iter().any(|(one, _)| one.grant.to == org && one.over == Some(seq));
                Some(if ends { Offered::Former(org) } else { Offered::Home(org) })
            }
            (Some(_), None) => Some(Offered::Parent),
        };
        let first_home = match row.get(2)? {
            Some(home) => Some(home),
            // The row is older than what is known of its record's homes.
            None => self
                .conn
                .prepare_cached("SELECT home FROM record WHERE id = ?1")?
                .query_row([record], |row| row.get(0))?,
        };
        let secrecy = match known.secret.get(&record) {
            None => Secrecy::None,
            Some(marked) => {
                let holder = row.get::<_, Option<i64>>(5)?.unwrap_or(pack(seq));
                let mut find = self.conn.prepare_cached("SELECT degree FROM secret_row WHERE seq = ?1")?;
                let own = find.query_row([holder], |row| degree(row, 0)).optional()?;
                let here = if src.is_none() { marked.here } else { Secrecy::None };
                here.max(own.unwrap_or_default())
            }
        };
        Ok(Head {
            seq,
            src: self.position(src, pos)?,
            secrecy,
            homes: self.homes_from(record, first_home, seq)?,
            opened: opened_at(grants, seq).cloned().collect(),
            offered_to,
            issued: row.get(7)?,
        })
    }

    pub(super) fn entry_of(&self, seq: i64) -> Fallible<Option<Entry>> {
        let mut statement = self.conn.prepare_cached("SELECT offers, entry FROM feed WHERE seq = ?1")?;
        let mut rows = statement.query([seq])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        match (row.get::<_, Option<i64>>(0)?, row.get_ref(1)?.as_blob_or_null()) {
            (None, Ok(Some(body))) => match decode(seq, body) {
                Err(Fault::Broken(what)) => {
                    tracing::warn!("{what}; it is passed over, and `tuyen verify` names its record");
                    Ok(None)
                }
                entry => entry.map(Some),
            },
            (Some(of), _) if of < seq => self.entry_of(of),
            _ => Ok(None),
        }
    }

    fn cursors_of(&self, node: NodeId) -> Fallible<Vec<(Lane, Cursor)>> {
        let mut statement = self.conn.prepare_cached(
            "SELECT r.lane, r.segment, r.pos, r.chain FROM certificate c
             JOIN announcement a ON a.certificate = c.id JOIN read_cursor r ON r.segment = a.incarnation
             WHERE c.node = ?1 ORDER BY r.n",
        )?;
        let mut rows = statement.query([node.0])?;
        let mut newest = std::collections::BTreeMap::new();
        while let Some(row) = rows.next()? {
            let segment = self.names.borrow_mut().incarnation(&self.conn, row.get(1)?)?;
            newest.insert(lane(row.get(0)?)?, cursor(segment, row.get(2)?, row.get(3)?));
        }
        Ok(newest.into_iter().collect())
    }

    fn statements<T>(
        &self,
        sql: &str,
        decode: impl Fn(&[u8]) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, StoreError> {
        self.reading(|| {
            let mut statement = self.conn.prepare_cached(sql)?;
            let mut rows = statement.query([])?;
            let mut all = Vec::new();
            while let Some(row) = rows.next()? {
                let one = decode(row.get_ref(0)?.as_blob().unwrap_or_default());
                all.push(one.or_else(|e| broken(format!("a stored statement is damaged: {e}")))?);
            }
            Ok(all)
        })
    }

    fn announced(&self, incarnation: Incarnation) -> Fallible<Option<(Announcement, NodeInfo)>> {
        let mut statement = self.conn.prepare_cached(
            "SELECT a.node, p.name, a.parent_pos, a.signature, c.chain, c.node, c.place, c.role
             FROM incarnation i JOIN announcement a ON a.incarnation = i.id
             JOIN certificate c ON c.id = a.certificate LEFT JOIN incarnation p ON p.id = a.parent
             WHERE i.name = ?1",
        )?;
        let mut rows = statement.query([incarnation.0])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let parent = match row.get::<_, Option<[u8; 16]>>(1)? {
            Some(name) => Some((Incarnation(name), unpack(row.get(2)?))),
            None => None,
        };
        let announcement = Announcement {
            incarnation,
            parent,
            node: NodeId(array(row, 0)?),
            signature: row.get(3)?,
            chain: certificates(row.get_ref(4)?.as_blob().unwrap_or_default())?,
        };
        Ok(Some((announcement, node_info(row, 5)?)))
    }

    fn projection_of(&self, record: &RecordId) -> Fallible<Option<Projected>> {
        let Some(key) = self.names.borrow_mut().record(&self.conn, record)? else { return Ok(None) };
        let mut statement = self.conn.prepare_cached(
            "SELECT p.resource, p.version, p.conflicts, p.open_conflicts, s.seq, s.document
             FROM projection p LEFT JOIN snapshot s ON s.record = p.record WHERE p.record = ?1",
        )?;
        let found = statement.query_row([key.id], |row| {
            let snapshot = match row.get::<_, Option<i64>>(4)? {
                Some(seq) => Some((unpack(seq), row.get(5)?)),
                None => None,
            };
            Ok(Projected {
                record: record.clone(),
                resource: row.get(0)?,
                version: row.get(1)?,
                conflicts: row.get(2)?,
                open_conflicts: u32::try_from(row.get::<_, i64>(3)?).unwrap_or(u32::MAX),
                waiting: Vec::new(),
                unreadable: Vec::new(),
                snapshot,
            })
        });
        let Some(mut projected) = found.optional()? else { return Ok(None) };
        if !self.known.borrow().troubled.contains(&key.id) {
            return Ok(Some(projected));
        }
        let mut waiting =
            self.conn.prepare_cached("SELECT seq FROM waiting WHERE record = ?1 ORDER BY seq")?;
        projected.waiting =
            waiting.query_map([key.id], |row| row.get(0).map(unpack))?.collect::<Result<_, _>>()?;
        let mut unreadable =
            self.conn.prepare_cached("SELECT seq, reason FROM unreadable WHERE record = ?1 ORDER BY seq")?;
        let rows = unreadable.query_map([key.id], |row| Ok((unpack(row.get(0)?), row.get(1)?)))?;
        projected.unreadable = rows.collect::<Result<_, _>>()?;
        Ok(Some(projected))
    }
}

fn cursor(segment: Incarnation, pos: i64, chain: Option<[u8; 16]>) -> Cursor {
    Cursor { at: Position { segment, pos: unpack(pos) }, chain: chain.map(Chain) }
}

/// The columns node, place and role.
pub(super) fn node_info(row: &Row<'_>, first: usize) -> Fallible<NodeInfo> {
    let place = parse(row.get_ref(first + 1)?.as_str().unwrap_or_default(), "place")?;
    let role = Role::from_name(row.get_ref(first + 2)?.as_str().unwrap_or_default());
    let role = role.ok_or_else(|| Fault::Broken("a certificate's row holds an unknown role".into()))?;
    Ok(NodeInfo { node: NodeId(array(row, first)?), place, role })
}

/// Splits what [`super::write`] joined: each certificate with its length before it.
fn certificates(joined: &[u8]) -> Fallible<Vec<Vec<u8>>> {
    let (mut bytes, mut chain) = (Bytes(joined), Vec::new());
    while !bytes.0.is_empty() {
        match bytes.bytes(joined.len() as u64, "a certificate") {
            Ok(certificate) => chain.push(certificate.to_vec()),
            Err(e) => return broken(format!("a stored certificate chain is damaged: {e}")),
        }
    }
    Ok(chain)
}

/// How secret a row of the feed is, as a number: 0 where it is not. One that was healed may not know any more that it came from
/// elsewhere.
pub(super) const DEGREE: &str = "max(
    coalesce(CASE WHEN src IS NULL THEN (SELECT s.here FROM secret s WHERE s.record = feed.record) END, 0),
    coalesce((SELECT r.degree FROM secret_row r WHERE r.seq = feed.seq), 0))";

/// The secret records first, which are few: left to itself SQLite begins with all changes.
pub(super) const SECRET_ROWS: &str = "SELECT f.seq,
    max(CASE WHEN f.src IS NULL THEN s.here ELSE 0 END, coalesce(r.degree, 0)) AS row_degree
    FROM secret s CROSS JOIN change c ON c.record = s.record CROSS JOIN feed f ON f.seq = c.seq
    LEFT JOIN secret_row r ON r.seq = f.seq WHERE row_degree > 0 ORDER BY f.seq";

impl Store for SqliteStore {
    fn tip(&self) -> Result<Seq, StoreError> {
        self.reading(|| Ok(self.known.borrow().tip))
    }

    fn segments(&self) -> Result<Vec<Segment>, StoreError> {
        self.reading(|| Ok(self.known.borrow().segments.clone()))
    }

    fn chain(&self, at: Seq) -> Result<Option<Chain>, StoreError> {
        self.reading(|| {
            if at == 0 {
                return Ok(Some(CHAIN_START));
            }
            let mut statement = self.conn.prepare_cached("SELECT chain FROM feed WHERE seq = ?1")?;
            let chain = statement.query_row([clamp(at)], |row| array(row, 0)).optional()?.map(Chain);
            let chain = match chain {
                None => small::forgotten(&self.conn, at)?,
                known => known,
            };
            Ok(chain.filter(|chain| *chain != UNKNOWN))
        })
    }

    fn heads(&self, lane: Lane, after: Seq, limit: usize) -> Result<Vec<Head>, StoreError> {
        self.reading(|| {
            let mut statement = self.conn.prepare_cached(
                "SELECT seq, record, home, src, src_pos, offers, offered_to, issued FROM feed INDEXED BY feed_head
                 WHERE lane = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
            )?;
            let mut rows = statement.query(params![lane as u8, clamp(after), clamp(limit as u64)])?;
            let mut heads = Vec::new();
            while let Some(row) = rows.next()? {
                heads.push(self.head(row)?);
            }
            Ok(heads)
        })
    }

    fn entry(&self, seq: Seq) -> Result<Option<Entry>, StoreError> {
        self.reading(|| self.entry_of(clamp(seq)))
    }

    fn has(&self, record: &RecordId, change: &ChangeHash) -> Result<bool, StoreError> {
        self.reading(|| {
            let Some(key) = self.names.borrow_mut().record(&self.conn, record)? else { return Ok(false) };
            let mut statement =
                self.conn.prepare_cached("SELECT 1 FROM change WHERE record = ?1 AND hash = ?2")?;
            Ok(statement.exists(params![key.id, change.0])?)
        })
    }

    fn homes(&self, record: &RecordId) -> Result<Vec<OrgId>, StoreError> {
        self.reading(|| {
            let key = self.names.borrow_mut().record(&self.conn, record)?;
            key.map_or(Ok(Vec::new()), |key| self.homes_from(key.id, key.home, Seq::MAX))
        })
    }

    fn grants(&self, record: &RecordId) -> Result<Vec<Granted>, StoreError> {
        self.reading(|| {
            let key = self.names.borrow_mut().record(&self.conn, record)?;
            let known = self.known.borrow();
            let grants = key.and_then(|key| known.grants.get(&key.id)).into_iter().flatten();
            Ok(grants.map(|(one, _)| one.clone()).collect())
        })
    }

    fn grants_until(&self, time: i64, limit: usize) -> Result<Vec<(RecordId, Granted)>, StoreError> {
        self.reading(|| {
            let mut statement = self.conn.prepare_cached(
                "SELECT r.name, g.name, o.name, g.until FROM grant_ g JOIN org o ON o.id = g.org
                 JOIN record r ON r.id = g.record WHERE g.over IS NULL AND g.until <= ?1
                 ORDER BY r.name, g.name, o.name LIMIT ?2",
            )?;
            let (mut rows, mut due) = (statement.query(params![time, clamp(limit as u64)])?, Vec::new());
            while let Some(row) = rows.next()? {
                let record = parse(row.get_ref(0)?.as_str().unwrap_or_default(), "record")?;
                let to = parse(row.get_ref(2)?.as_str().unwrap_or_default(), "organization")?;
                let grant = Grant { id: GrantId(array(row, 1)?), to, until: row.get(3)? };
                due.push((record, Granted { grant, over: None }));
            }
            Ok(due)
        })
    }

    fn open_to(&self, org: &OrgId) -> Result<Vec<RecordId>, StoreError> {
        self.reading(|| {
            let mut statement = self.conn.prepare_cached(
                "SELECT DISTINCT r.name FROM grant_ g JOIN org o ON o.id = g.org JOIN record r ON r.id = g.record
                 WHERE o.name = ?1 AND g.over IS NULL ORDER BY r.name",
            )?;
            let (mut rows, mut records) = (statement.query([org.as_str()])?, Vec::new());
            while let Some(row) = rows.next()? {
                records.push(parse(row.get_ref(0)?.as_str().unwrap_or_default(), "record")?);
            }
            Ok(records)
        })
    }

    fn grantees(&self) -> Result<Vec<OrgId>, StoreError> {
        self.reading(|| {
            let mut statement = self.conn.prepare_cached(
                "SELECT DISTINCT o.name FROM grant_ g JOIN org o ON o.id = g.org WHERE g.over IS NULL ORDER BY o.name",
            )?;
            let (mut rows, mut orgs) = (statement.query([])?, Vec::new());
            while let Some(row) = rows.next()? {
                orgs.push(parse(row.get_ref(0)?.as_str().unwrap_or_default(), "organization")?);
            }
            Ok(orgs)
        })
    }

    fn next_grant_end(&self) -> Result<Option<i64>, StoreError> {
        self.reading(|| {
            let sql = "SELECT min(until) FROM grant_ WHERE over IS NULL AND until < ?1";
            Ok(self.conn.prepare_cached(sql)?.query_row([FOREVER], |row| row.get(0))?)
        })
    }

    fn leaving(&self) -> Result<Vec<(RecordId, Seq)>, StoreError> {
        self.reading(|| {
            let mut statement = self.conn.prepare_cached(
                "SELECT r.name, l.upto FROM leaving l JOIN record r ON r.id = l.record ORDER BY r.name",
            )?;
            let (mut rows, mut leaving) = (statement.query([])?, Vec::new());
            while let Some(row) = rows.next()? {
                let record = parse(row.get_ref(0)?.as_str().unwrap_or_default(), "record")?;
                leaving.push((record, unpack(row.get(1)?)));
            }
            Ok(leaving)
        })
    }

    fn rows_of(&self, record: &RecordId) -> Result<Vec<Seq>, StoreError> {
        self.reading(|| {
            let Some(key) = self.names.borrow_mut().record(&self.conn, record)? else {
                return Ok(Vec::new());
            };
            let mut statement =
                self.conn.prepare_cached("SELECT seq FROM change WHERE record = ?1 ORDER BY seq")?;
            let rows = statement.query_map([key.id], |row| row.get(0).map(unpack))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    fn attachments(&self, record: &RecordId) -> Result<Vec<Held>, StoreError> {
        self.reading(|| self.contents_of(record))
    }

    fn lacking(&self) -> Result<Vec<Name>, StoreError> {
        self.reading(|| Ok(self.contents(LACKING, -1)?.into_iter().map(|(name, _)| name).collect()))
    }

    fn unkept(&self, limit: usize) -> Result<Vec<(Name, Kept)>, StoreError> {
        self.reading(|| {
            let all = self.contents(UNKEPT, clamp(limit as u64))?;
            Ok(all.into_iter().map(|(name, held)| (name, held.kept)).collect())
        })
    }

    fn missing(&self, name: &Name) -> Result<Vec<usize>, StoreError> {
        self.reading(|| self.missing_of(name))
    }

    fn tree(&self, name: &Name) -> Result<Option<Tree>, StoreError> {
        self.reading(|| self.tree_of(name))
    }

    fn piece(&self, name: &Name, nth: usize) -> Result<Option<Vec<u8>>, StoreError> {
        self.reading(|| self.piece_of(name, nth))
    }

    fn secrecy(&self, record: &RecordId) -> Result<Secrecy, StoreError> {
        self.reading(|| {
            let key = self.names.borrow_mut().record(&self.conn, record)?;
            let marked = |id| self.known.borrow().secret.get(&id).copied();
            Ok(key.and_then(|key| marked(key.id)).unwrap_or_default().degree)
        })
    }

    fn secret_rows(&self) -> Result<Vec<(Seq, Secrecy)>, StoreError> {
        self.reading(|| {
            let mut statement = self.conn.prepare_cached(SECRET_ROWS)?;
            let rows = statement.query_map([], |row| Ok((unpack(row.get(0)?), degree(row, 1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    fn allowed(&self) -> Result<Profiles, StoreError> {
        self.reading(|| {
            let mut statement = self.conn.prepare_cached("SELECT org, way, degree FROM allowed")?;
            let (mut rows, mut allowed) = (statement.query([])?, Profiles::default());
            while let Some(row) = rows.next()? {
                let org = self.names.borrow_mut().org(&self.conn, row.get(0)?)?;
                let way = row.get(1)?;
                let Some(way) = Way::from_u8(way) else {
                    return broken(format!("{way} is no way to a neighbour"));
                };
                allowed.allow(org, way, Secrecy::from_u8(row.get(2)?));
            }
            Ok(allowed)
        })
    }

    fn read_before(&self, lane: Lane, at: Position) -> Result<Option<Cursor>, StoreError> {
        self.reading(|| {
            let id = self.names.borrow_mut().incarnation_id(&self.conn, at.segment)?;
            let Some(id) = id else { return Ok(None) };
            let mut statement = self.conn.prepare_cached(
                "SELECT pos, chain FROM had_read WHERE segment = ?1 AND lane = ?2 AND pos <= ?3
                 ORDER BY pos DESC LIMIT 1",
            )?;
            let found = statement.query_row(params![id, lane as u8, clamp(at.pos)], |row| {
                Ok(cursor(at.segment, row.get(0)?, row.get(1)?))
            });
            Ok(found.optional()?)
        })
    }

    fn read(&self, lane: Lane, segment: Incarnation) -> Result<Option<Progress>, StoreError> {
        self.reading(|| {
            let id = self.names.borrow_mut().incarnation_id(&self.conn, segment)?;
            let Some(id) = id else { return Ok(None) };
            let mut statement = self.conn.prepare_cached(
                "SELECT pos, chain, n, brought FROM read_cursor WHERE segment = ?1 AND lane = ?2",
            )?;
            let found = statement.query_row(params![id, lane as u8], |row| {
                let cursor = cursor(segment, row.get(0)?, row.get(1)?);
                Ok(Progress { cursor, at: row.get(2).map(unpack)?, brought_at: row.get(3).map(unpack)? })
            });
            Ok(found.optional()?)
        })
    }

    fn read_of_node(&self, node: NodeId) -> Result<Vec<(Lane, Cursor)>, StoreError> {
        self.reading(|| self.cursors_of(node))
    }

    fn frontier(&self, which: Frontier, lane: Lane) -> Result<Seq, StoreError> {
        self.reading(|| {
            let mut statement =
                self.conn.prepare_cached("SELECT seq FROM frontier WHERE which = ?1 AND lane = ?2")?;
            let found = statement.query_row([which as u8, lane as u8], |row| row.get(0).map(unpack));
            Ok(found.optional()?.unwrap_or(0))
        })
    }

    fn marks(&self) -> Result<Vec<Mark>, StoreError> {
        self.reading(|| {
            let mut statement = self.conn.prepare_cached("SELECT lane, src, src_pos, seq FROM mark")?;
            let mut rows = statement.query([])?;
            let mut marks = Vec::new();
            while let Some(row) = rows.next()? {
                let segment = self.names.borrow_mut().incarnation(&self.conn, row.get(1)?)?;
                let src = Position { segment, pos: unpack(row.get(2)?) };
                marks.push(Mark { lane: lane(row.get(0)?)?, src, seq: unpack(row.get(3)?) });
            }
            marks.sort();
            Ok(marks)
        })
    }

    fn announcement(&self, incarnation: Incarnation) -> Result<Option<(Announcement, NodeInfo)>, StoreError> {
        self.reading(|| self.announced(incarnation))
    }

    fn announcement_of(&self, org: &OrgId) -> Result<Option<Announcement>, StoreError> {
        self.reading(|| {
            let mut statement = self.conn.prepare_cached(
                "SELECT i.name FROM certificate c JOIN announcement a ON a.certificate = c.id
                 JOIN incarnation i ON i.id = a.incarnation
                 WHERE c.place = ?1 OR substr(c.place, -length(?1) - 1) = '/' || ?1 LIMIT 1",
            )?;
            let name = statement.query_row([org.as_str()], |row| row.get(0)).optional()?;
            Ok(match name {
                Some(name) => self.announced(Incarnation(name))?.map(|(found, _)| found),
                None => None,
            })
        })
    }

    fn nodes(&self) -> Result<Vec<NodeInfo>, StoreError> {
        self.reading(|| {
            let mut statement = self.conn.prepare_cached(
                "SELECT n.node, c.place, c.role FROM node n JOIN certificate c ON c.id = n.certificate
                 ORDER BY n.node",
            )?;
            let mut rows = statement.query([])?;
            let mut nodes = Vec::new();
            while let Some(row) = rows.next()? {
                nodes.push(node_info(row, 0)?);
            }
            Ok(nodes)
        })
    }

    fn revocations(&self) -> Result<Vec<Revocation>, StoreError> {
        self.statements("SELECT body FROM revocation ORDER BY id", Revocation::decode)
    }

    fn orders(&self) -> Result<Vec<Order>, StoreError> {
        self.statements("SELECT body FROM tree_order ORDER BY id", Order::decode)
    }

    fn gain(&self) -> Result<Option<Gain>, StoreError> {
        self.reading(|| {
            let mut statement = self.conn.prepare_cached("SELECT since, done, upto FROM gain")?;
            let gain =
                statement.query_row([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?])).optional()?;
            Ok(gain.map(|numbers| {
                let [since, done, upto] = numbers.map(unpack);
                Gain { since, done, upto }
            }))
        })
    }

    fn purge(&self) -> Result<Option<Purge>, StoreError> {
        self.reading(|| super::forget::purge(&self.conn))
    }

    fn digests(&self) -> Result<Vec<(OrgId, Digest)>, StoreError> {
        self.reading(|| {
            let sql =
                "SELECT o.name, d.count, d.sum FROM digest d JOIN org o ON o.id = d.home ORDER BY o.name";
            let mut statement = self.conn.prepare_cached(sql)?;
            let mut rows = statement.query([])?;
            let mut digests = Vec::new();
            while let Some(row) = rows.next()? {
                let home = parse(row.get_ref(0)?.as_str().unwrap_or_default(), "organization")?;
                digests.push((home, digest(row, 1)?));
            }
            Ok(digests)
        })
    }

    fn folded(&self) -> Result<Seq, StoreError> {
        self.reading(|| small::reached(&self.conn, small::FOLDED).map(unpack))
    }

    fn unfolded(&self, after: Seq, limit: usize) -> Result<Vec<(Seq, RecordId)>, StoreError> {
        self.reading(|| {
            let mut statement = self.conn.prepare_cached(
                "SELECT f.seq, r.name FROM feed f CROSS JOIN record r ON r.id = f.record
                 WHERE f.seq > ?1 AND f.offers IS NULL ORDER BY f.seq LIMIT ?2",
            )?;
            let mut rows = statement.query([clamp(after), clamp(limit as u64)])?;
            let mut unfolded = Vec::new();
            while let Some(row) = rows.next()? {
                let record = parse(row.get_ref(1)?.as_str().unwrap_or_default(), "record name")?;
                unfolded.push((unpack(row.get(0)?), record));
            }
            Ok(unfolded)
        })
    }

    fn projected(&self, record: &RecordId) -> Result<Option<Projected>, StoreError> {
        self.reading(|| self.projection_of(record))
    }
}

/// The columns count and sum.
pub(super) fn digest(row: &Row<'_>, first: usize) -> rusqlite::Result<Digest> {
    Ok(Digest { count: unpack(row.get(first)?), sum: u128::from_be_bytes(array(row, first + 1)?) })
}
