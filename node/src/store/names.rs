//! Small numbers for long names: rows refer to incarnations, organizations and records by an integer.
//!
//! The names of records are random, and an index over them is what would slow a long feed down: each new record
//! would change another page of it. So the newest names are kept in memory, where they can be found again after
//! a start because the table of records is in order, and enter the index many at a time, sorted.
//!
//! A name's number never changes once it is on the disk, so what was looked up may be remembered. A number that
//! a failed commit has taken back may be remembered too; the store is poisoned then, and the memory with it.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

use rusqlite::{
    Connection, OptionalExtension, params,
    types::{ToSqlOutput, ValueRef},
};
use sync_core::id::{Incarnation, OrgId, RecordId};

use super::{
    Fallible, broken,
    read::{
        parse,
        small::{NAMED, reached, set_reached},
    },
};

/// How many names of a kind are remembered before all are forgotten.
const REMEMBERED: usize = 65_536;
/// How many names of records may be missing from the index, and are read again at a start.
const FRESH_MAX: usize = 65_536;

/// A name that has a number.
pub(super) trait Name: Clone + Eq + Hash {
    const FIND: &str;
    const ADD: &str;
    const GET: &str;
    fn bind(&self) -> ToSqlOutput<'_>;
    fn parse(value: ValueRef<'_>) -> Option<Self>;
}

impl Name for Incarnation {
    const FIND: &str = "SELECT id FROM incarnation WHERE name = ?1";
    const ADD: &str = "INSERT INTO incarnation (name) VALUES (?1)";
    const GET: &str = "SELECT name FROM incarnation WHERE id = ?1";
    fn bind(&self) -> ToSqlOutput<'_> {
        ToSqlOutput::Borrowed(ValueRef::Blob(&self.0))
    }
    fn parse(value: ValueRef<'_>) -> Option<Self> {
        value.as_blob().ok()?.try_into().ok().map(Self)
    }
}

impl Name for OrgId {
    const FIND: &str = "SELECT id FROM org WHERE name = ?1";
    const ADD: &str = "INSERT INTO org (name) VALUES (?1)";
    const GET: &str = "SELECT name FROM org WHERE id = ?1";
    fn bind(&self) -> ToSqlOutput<'_> {
        ToSqlOutput::Borrowed(ValueRef::Text(self.as_str().as_bytes()))
    }
    fn parse(value: ValueRef<'_>) -> Option<Self> {
        value.as_str().ok()?.parse().ok()
    }
}

/// What is remembered of one kind of names, both ways.
struct Known<N> {
    ids: HashMap<N, i64>,
    names: HashMap<i64, N>,
}

impl<N> Default for Known<N> {
    fn default() -> Self {
        Self { ids: HashMap::new(), names: HashMap::new() }
    }
}

impl<N: Name> Known<N> {
    fn id(&mut self, conn: &Connection, name: &N) -> Fallible<Option<i64>> {
        if let Some(id) = self.ids.get(name) {
            return Ok(Some(*id));
        }
        let found = conn.prepare_cached(N::FIND)?.query_row([name.bind()], |row| row.get(0)).optional()?;
        if let Some(id) = found {
            self.remember(id, name);
        }
        Ok(found)
    }

    fn id_or_add(&mut self, conn: &Connection, name: &N) -> Fallible<i64> {
        if let Some(id) = self.id(conn, name)? {
            return Ok(id);
        }
        let id = conn.prepare_cached(N::ADD)?.insert([name.bind()])?;
        self.remember(id, name);
        Ok(id)
    }

    fn name(&mut self, conn: &Connection, id: i64) -> Fallible<N> {
        if let Some(name) = self.names.get(&id) {
            return Ok(name.clone());
        }
        let mut statement = conn.prepare_cached(N::GET)?;
        match statement.query_row([id], |row| row.get_ref(0).map(N::parse)).optional()?.flatten() {
            Some(name) => {
                self.remember(id, &name);
                Ok(name)
            }
            None => broken(format!("a row refers to the name number {id}, which is missing or malformed")),
        }
    }

    fn remember(&mut self, id: i64, name: &N) {
        if self.ids.len() >= REMEMBERED {
            *self = Self::default();
        }
        self.ids.insert(name.clone(), id);
        self.names.insert(id, name.clone());
    }
}

/// A record's number, and the number of the first home that became known.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordKey {
    pub id: i64,
    pub home: Option<i64>,
}

/// The names that a connection has met lately.
#[derive(Default)]
pub(super) struct Names {
    incarnations: Known<Incarnation>,
    orgs: Known<OrgId>,
    /// None for a record that was looked for and is not there: a new record is asked for several times before it is
    /// added, and only this connection adds.
    records: HashMap<RecordId, Option<RecordKey>>,
    /// The records that are not in the index of names yet.
    fresh: BTreeMap<RecordId, RecordKey>,
}

impl Names {
    pub fn load(conn: &Connection) -> Fallible<Self> {
        let mut statement = conn.prepare("SELECT id, home, name FROM record WHERE id > ?1")?;
        let mut rows = statement.query([reached(conn, NAMED)?])?;
        let mut names = Self::default();
        while let Some(row) = rows.next()? {
            let name = parse(row.get_ref(2)?.as_str()?, "record name")?;
            names.fresh.insert(name, RecordKey { id: row.get(0)?, home: row.get(1)? });
        }
        Ok(names)
    }

    pub fn incarnation_id(&mut self, conn: &Connection, name: Incarnation) -> Fallible<Option<i64>> {
        self.incarnations.id(conn, &name)
    }

    pub fn add_incarnation(&mut self, conn: &Connection, name: Incarnation) -> Fallible<i64> {
        self.incarnations.id_or_add(conn, &name)
    }

    pub fn incarnation(&mut self, conn: &Connection, id: i64) -> Fallible<Incarnation> {
        self.incarnations.name(conn, id)
    }

    pub fn add_org(&mut self, conn: &Connection, name: &OrgId) -> Fallible<i64> {
        self.orgs.id_or_add(conn, name)
    }

    pub fn org(&mut self, conn: &Connection, id: i64) -> Fallible<OrgId> {
        self.orgs.name(conn, id)
    }

    pub fn record(&mut self, conn: &Connection, name: &RecordId) -> Fallible<Option<RecordKey>> {
        if let Some(known) = self.records.get(name) {
            return Ok(*known);
        }
        if let Some(key) = self.fresh.get(name) {
            return Ok(Some(*key));
        }
        let mut statement = conn.prepare_cached(
            "SELECT r.id, r.home FROM record_name n JOIN record r ON r.id = n.record WHERE n.name = ?1",
        )?;
        let found = statement
            .query_row([name.as_str()], |row| Ok(RecordKey { id: row.get(0)?, home: row.get(1)? }))
            .optional()?;
        self.remember(name, found);
        Ok(found)
    }

    /// The record's key; a record that is not known yet is added, with this home.
    pub fn add_record(
        &mut self,
        conn: &Connection,
        name: &RecordId,
        home: Option<i64>,
    ) -> Fallible<RecordKey> {
        if let Some(key) = self.record(conn, name)? {
            return Ok(key);
        }
        let mut add = conn.prepare_cached("INSERT INTO record (name, home) VALUES (?1, ?2)")?;
        let key = RecordKey { id: add.insert(params![name.as_str(), home])?, home };
        self.records.remove(name);
        self.fresh.insert(name.clone(), key);
        if self.fresh.len() >= FRESH_MAX {
            self.index(conn)?;
        }
        Ok(key)
    }

    /// Gives a record its first home.
    pub fn set_home(
        &mut self,
        conn: &Connection,
        name: &RecordId,
        key: RecordKey,
        home: i64,
    ) -> Fallible<()> {
        conn.prepare_cached("UPDATE record SET home = ?2 WHERE id = ?1")?.execute([key.id, home])?;
        let key = RecordKey { home: Some(home), ..key };
        match self.fresh.get_mut(name) {
            Some(fresh) => *fresh = key,
            None => self.remember(name, Some(key)),
        }
        Ok(())
    }

    /// Sees to it that a record can be found by name on the disk.
    pub fn index_record(&mut self, conn: &Connection, name: &RecordId) -> Fallible<()> {
        if self.fresh.contains_key(name) { self.index(conn) } else { Ok(()) }
    }

    pub(super) fn index(&mut self, conn: &Connection) -> Fallible<()> {
        let mut add =
            conn.prepare_cached("INSERT OR REPLACE INTO record_name (name, record) VALUES (?1, ?2)")?;
        let mut last = 0;
        for (name, key) in std::mem::take(&mut self.fresh) {
            add.execute(params![name.as_str(), key.id])?;
            last = last.max(key.id);
            self.remember(&name, Some(key));
        }
        if last > 0 { set_reached(conn, NAMED, last) } else { Ok(()) }
    }

    /// What was remembered of a record was not so.
    pub fn found(&mut self, name: &RecordId, key: RecordKey) {
        match self.fresh.get_mut(name).filter(|fresh| fresh.id == key.id) {
            Some(fresh) => *fresh = key,
            None => self.remember(name, Some(key)),
        }
    }

    pub(super) fn remember(&mut self, name: &RecordId, key: Option<RecordKey>) {
        if self.records.len() >= REMEMBERED {
            self.records.clear();
        }
        self.records.insert(name.clone(), key);
    }
}
