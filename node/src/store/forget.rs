//! Forgetting records: everything that the tables hold of them goes, but the running hashes of their rows.
//!
//! What always holds: a record's number is never given to another one that the index of names would then miss. Not here: which
//! records go, and when, which the engine decides; and wiping, because the file's free pages are encrypted like all others.

use std::collections::{BTreeSet, HashSet};

use rusqlite::{Connection, OptionalExtension, params};
use sync_core::{
    id::RecordId,
    store::{Forgotten, Purge},
};

use super::{
    Fallible,
    names::Names,
    read::{UNKNOWN, decode, pack, parse, small, unpack},
    write::Commit,
};

/// Tables with a row, or some, for each record, those first that refer to others.
pub(super) const OF_RECORD: [&str; 13] = [
    "DELETE FROM secret_row WHERE seq IN (SELECT seq FROM change WHERE record = ?1)",
    "DELETE FROM change WHERE record = ?1",
    "DELETE FROM projection WHERE record = ?1",
    "DELETE FROM snapshot WHERE record = ?1",
    "DELETE FROM waiting WHERE record = ?1",
    "DELETE FROM unreadable WHERE record = ?1",
    "DELETE FROM further_home WHERE record = ?1",
    "DELETE FROM secret WHERE record = ?1",
    "DELETE FROM grant_ WHERE record = ?1",
    "DELETE FROM leaving WHERE record = ?1",
    "DELETE FROM about WHERE record = ?1",
    "DELETE FROM record_name WHERE record = ?1",
    "DELETE FROM record WHERE id = ?1",
];

impl Commit<'_> {
    /// Forgets what the batch has named, in one pass over the rows that offer others.
    pub(super) fn forget(&mut self) -> Fallible<()> {
        let records = std::mem::take(&mut self.forgotten);
        if records.is_empty() {
            return Ok(());
        }
        let mut ids = HashSet::new();
        for record in &records {
            ids.extend(self.names.record(self.conn, record)?.map(|key| key.id));
        }
        let mut rows = BTreeSet::new();
        let mut filed = self.conn.prepare_cached("SELECT seq FROM change WHERE record = ?1")?;
        for id in &ids {
            for seq in filed.query_map([id], |row| row.get::<_, i64>(0))? {
                rows.insert(seq?);
            }
        }
        rows.extend(offers_of(self.conn, &ids)?);
        for row in rows {
            self.forget_row(row)?;
        }
        self.names.forget(self.conn, &records, |id| {
            Commit::forget_contents(self.conn, id)?;
            for sql in OF_RECORD {
                self.conn.prepare_cached(sql)?.execute([id])?;
            }
            self.known.forget(id);
            Ok(())
        })
    }

    fn forget_row(&mut self, seq: i64) -> Fallible<()> {
        let mut find = self.conn.prepare_cached("SELECT chain, entry FROM feed WHERE seq = ?1")?;
        let found = find
            .query_row([seq], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Option<Vec<u8>>>(1)?)))
            .optional()?;
        let (chain, body) = found.unwrap_or_else(|| (UNKNOWN.0.to_vec(), None));
        // What cannot be read any more its digest counts still, until a check has found that.
        if let Some(entry) = body.and_then(|body| decode(seq, &body).ok()) {
            let home = self.names.add_org(self.conn, entry.home())?;
            self.digests.entry(home).or_default().remove(entry.hash());
        }
        self.run_one("DELETE FROM feed WHERE seq = ?1", [seq])?;
        self.run_one("INSERT OR REPLACE INTO forgotten (seq, chain) VALUES (?1, ?2)", params![seq, chain])
    }

    pub(super) fn purge(&mut self, purge: Option<&Purge>) -> Fallible<()> {
        self.run_one("DELETE FROM purge", [])?;
        self.run_one("DELETE FROM purge_count", [])?;
        let Some(Purge { order, done, upto, forgotten }) = purge else { return Ok(()) };
        self.run_one(
            "INSERT INTO purge (id, tree_order, done, upto) VALUES (1, ?1, ?2, ?3)",
            params![pack(*order), pack(*done), pack(*upto)],
        )?;
        for Forgotten { home, records, entries } in forgotten {
            let home = self.names.add_org(self.conn, home)?;
            self.run_one(
                "INSERT INTO purge_count (home, records, entries) VALUES (?1, ?2, ?3)",
                params![home, pack(*records), pack(*entries)],
            )?;
        }
        Ok(())
    }
}

/// The rows that offer entries of these records.
pub(super) fn offers_of(conn: &Connection, records: &HashSet<i64>) -> Fallible<Vec<i64>> {
    let mut statement = conn.prepare_cached(
        "SELECT seq, record FROM feed INDEXED BY feed_head WHERE lane >= 0 AND offers IS NOT NULL",
    )?;
    let (mut rows, mut found) = (statement.query([])?, Vec::new());
    while let Some(row) = rows.next()? {
        if records.contains(&row.get(1)?) {
            found.push(row.get(0)?);
        }
    }
    Ok(found)
}

impl Names {
    /// Takes these records out of the index and out of memory; `delete` takes out the rest.
    fn forget(
        &mut self,
        conn: &Connection,
        records: &[RecordId],
        mut delete: impl FnMut(i64) -> Fallible<()>,
    ) -> Fallible<()> {
        self.index(conn)?;
        for record in records {
            if let Some(key) = self.record(conn, record)? {
                delete(key.id)?;
            }
            self.remember(record, None);
        }
        // A new record gets the number after the last one, which may be free again.
        small::set_reached(conn, small::NAMED, small::number(conn, "SELECT max(id) FROM record")?)
    }
}

/// What is being forgotten.
pub(super) fn purge(conn: &Connection) -> Fallible<Option<Purge>> {
    let mut find = conn.prepare_cached("SELECT tree_order, done, upto FROM purge")?;
    let numbers = find.query_row([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?])).optional()?;
    let Some([order, done, upto]) = numbers.map(|numbers| numbers.map(unpack)) else { return Ok(None) };
    let mut find = conn.prepare_cached(
        "SELECT o.name, c.records, c.entries FROM purge_count c JOIN org o ON o.id = c.home ORDER BY o.name",
    )?;
    let (mut rows, mut forgotten) = (find.query([])?, Vec::new());
    while let Some(row) = rows.next()? {
        let home = parse(row.get_ref(0)?.as_str()?, "organization")?;
        forgotten.push(Forgotten { home, records: unpack(row.get(1)?), entries: unpack(row.get(2)?) });
    }
    Ok(Some(Purge { order, done, upto, forgotten }))
}
