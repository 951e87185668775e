//! What the host keeps beside the records, by name: settings, and the book of what its CA has promised and issued. Each
//! write is one durable transaction. What a value says is its owner's business.

use rusqlite::{Connection, OptionalExtension, params};
use sync_core::store::StoreError;

use super::{Fallible, SqliteStore};

impl SqliteStore {
    /// A setting of the host.
    pub fn setting(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.reading(|| {
            let mut statement = self.conn.prepare_cached("SELECT value FROM setting WHERE name = ?1")?;
            Ok(statement.query_row([name], |row| row.get(0)).optional()?)
        })
    }

    /// Keeps a setting of the host.
    pub fn set_setting(&mut self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        self.transact(|| set_setting(&self.conn, name, value))
    }
}

/// Keeps a setting in a store.
pub(super) fn set_setting(conn: &Connection, name: &str, value: &[u8]) -> Fallible<()> {
    let sql = "INSERT OR REPLACE INTO setting (name, value) VALUES (?1, ?2)";
    conn.prepare_cached(sql)?.execute(params![name, value])?;
    Ok(())
}
