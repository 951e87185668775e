//! Small numbers for long names: rows refer to incarnations, organizations and records by an integer.
//!
//! A name's number never changes once it is on the disk, so what was looked up may be remembered. A number that
//! a failed commit has taken back may be remembered too; the store is poisoned then, and the memory with it.

use std::{collections::HashMap, hash::Hash};

use rusqlite::{
    Connection, OptionalExtension, params,
    types::{ToSqlOutput, ValueRef},
};
use sync_core::id::{Incarnation, OrgId, RecordId};

use super::{Fallible, broken};

/// How many names of a kind are remembered before all are forgotten.
const REMEMBERED: usize = 65_536;

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
}

impl Names {
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
        let mut statement = conn.prepare_cached("SELECT id, home FROM record WHERE name = ?1")?;
        let found = statement
            .query_row([name.as_str()], |row| Ok(RecordKey { id: row.get(0)?, home: row.get(1)? }))
            .optional()?;
        self.remember(name, found);
        Ok(found)
    }

    /// The record's number; a record that is new gets one, and this home.
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
        self.set_record(name, key);
        Ok(key)
    }

    pub fn set_record(&mut self, name: &RecordId, key: RecordKey) {
        self.remember(name, Some(key));
    }

    fn remember(&mut self, name: &RecordId, key: Option<RecordKey>) {
        if self.records.len() >= REMEMBERED {
            self.records.clear();
        }
        self.records.insert(name.clone(), key);
    }
}
