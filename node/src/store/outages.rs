//! The outage log on the disk: when the daemon ran and which links stood, as events in the order in which they were
//! noticed, and when the daemon was last known to run.
//!
//! What always holds: whoever reads that the daemon ran at a moment reads every event before it as well, because both
//! are written in one transaction; no more than [`OUTAGE_LINES_MAX`] events are kept, and beside them the last older
//! one of each neighbour, without which nobody could tell how things stood before. Not here: what the words mean and
//! when something is written (the daemon's).

use rusqlite::{Connection, OptionalExtension, params};
use sync_core::store::StoreError;

use super::{
    Fallible, SqliteStore,
    read::small::{ALIVE, set_reached},
};

/// Most events of the outage log that are kept: some 5 MB. An outage has two of them.
pub const OUTAGE_LINES_MAX: u32 = 100_000;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutageLine {
    /// When, in milliseconds since 1970 by the clock of this machine.
    pub at: i64,
    /// What the clock said before it was set.
    pub was: Option<i64>,
    /// What happened, in a fixed word.
    pub event: String,
    /// The place of the neighbour that it is about; none when it is about this node.
    pub neighbour: Option<String>,
}

/// What is written together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutageWrite {
    /// New events.
    pub lines: Vec<OutageLine>,
    /// The daemon ran at this time.
    pub alive: i64,
}

/// The log as it is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutageLog {
    /// In the order in which they were noticed.
    pub lines: Vec<OutageLine>,
    /// So many of them, the first, only tell how things stood before the others.
    pub before: usize,
    /// When the daemon was last known to run.
    pub alive: Option<i64>,
}

impl OutageLog {
    /// Before this time the log is not whole, because older events have gone.
    pub fn gone(&self) -> Option<i64> {
        let last = self.before.checked_sub(1)?;
        self.lines.get(last).map(|line| line.at)
    }
}

impl SqliteStore {
    /// Reads the outage log.
    pub fn outage_log(&self) -> Result<OutageLog, StoreError> {
        self.reading(|| read(&self.conn, OUTAGE_LINES_MAX))
    }

    /// Adds to the outage log, in a transaction of its own.
    pub fn write_outages(&mut self, log: &OutageWrite) -> Result<(), StoreError> {
        self.transact(|| write(&self.conn, log, OUTAGE_LINES_MAX))
    }
}

fn read(conn: &Connection, most: u32) -> Fallible<OutageLog> {
    let mut statement =
        conn.prepare_cached("SELECT id, at, was, event, neighbour FROM outage_log ORDER BY id")?;
    let lines = statement.query_map([], |row| {
        let line =
            OutageLine { at: row.get(1)?, was: row.get(2)?, event: row.get(3)?, neighbour: row.get(4)? };
        Ok((row.get::<_, i64>(0)?, line))
    })?;
    let lines: Vec<_> = lines.collect::<Result<_, _>>()?;
    let cut = lines.last().map_or(0, |(id, _)| id - i64::from(most));
    let before = lines.partition_point(|(id, _)| *id <= cut);
    let mut statement = conn.prepare_cached("SELECT value FROM reached WHERE what = ?1")?;
    let alive = statement.query_row([ALIVE], |row| row.get(0)).optional()?;
    Ok(OutageLog { lines: lines.into_iter().map(|(_, line)| line).collect(), before, alive })
}

/// Adds to the log within a transaction, and lets the oldest lines go.
pub(super) fn write(conn: &Connection, log: &OutageWrite, most: u32) -> Fallible<()> {
    let mut add =
        conn.prepare_cached("INSERT INTO outage_log (at, was, event, neighbour) VALUES (?1, ?2, ?3, ?4)")?;
    for OutageLine { at, was, event, neighbour } in &log.lines {
        add.execute(params![at, was, event, neighbour])?;
    }
    set_reached(conn, ALIVE, log.alive)?;
    if log.lines.is_empty() {
        return Ok(());
    }
    // Numbers go up by one: the newest line is never removed.
    let cut = conn.last_insert_rowid() - i64::from(most);
    let sql = "DELETE FROM outage_log WHERE id <= ?1 AND id NOT IN (
                 SELECT max(id) FROM outage_log WHERE id <= ?1
                 GROUP BY neighbour, CASE WHEN neighbour IS NULL AND event IN ('paused', 'resumed') THEN 1
                                          WHEN event = 'clock' THEN 2 ELSE 0 END)";
    conn.prepare_cached(sql)?.execute([cut])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(at: i64, event: &str, neighbour: Option<&str>) -> OutageLine {
        OutageLine { at, was: None, event: event.to_owned(), neighbour: neighbour.map(str::to_owned) }
    }

    fn fresh() -> Connection {
        let conn = super::super::open::in_memory();
        super::super::schema::migrate(&conn).unwrap();
        conn
    }

    #[test]
    fn what_is_written_is_read() {
        let conn = fresh();
        assert_eq!(read(&conn, 4).unwrap(), OutageLog::default());
        let set = OutageLine { was: Some(5), ..line(-7, "clock", None) };
        let lines = vec![line(1, "started", None), line(2, "connected", Some("a/b")), set];
        write(&conn, &OutageWrite { lines: lines.clone(), alive: 3 }, 10).unwrap();
        write(&conn, &OutageWrite { lines: Vec::new(), alive: 4 }, 10).unwrap();
        assert_eq!(read(&conn, 4).unwrap(), OutageLog { lines, before: 0, alive: Some(4) });
    }

    #[test]
    fn the_oldest_go_first_and_how_things_stood_stays_known() {
        let conn = fresh();
        let mut lines = vec![
            line(0, "paused", None),
            line(1, "resumed", None),
            line(2, "started", None),
            line(3, "connected", Some("a")),
            line(4, "connected", Some("quiet")),
            line(5, "lost", Some("a")),
        ];
        lines.extend((6..20).map(|at| line(at, if at % 2 == 0 { "connected" } else { "lost" }, Some("a"))));
        for one in &lines {
            let log = OutageWrite { lines: vec![one.clone()], alive: one.at };
            write(&conn, &log, 4).unwrap();
        }
        let kept = read(&conn, 4).unwrap();
        let at: Vec<i64> = kept.lines.iter().map(|line| line.at).collect();
        assert_eq!(at, [1, 2, 4, 15, 16, 17, 18, 19], "the last of each before, and four more");
        assert_eq!((kept.before, kept.gone(), kept.alive), (4, Some(15), Some(19)));
    }

    /// A file of the first layout gets the table, and keeps what it has.
    #[test]
    fn an_older_file_is_brought_forward() {
        let conn = fresh();
        let newer = [
            "outage_log",
            "secret",
            "tree_order",
            "gain",
            "forgotten",
            "purge",
            "purge_count",
            "grant_",
            "leaving",
            "about",
            "piece",
            "attachment",
            "secret_row",
            "allowed",
        ];
        let newer = newer.map(|table| format!("DROP TABLE {table};"));
        conn.execute_batch(&format!("{} PRAGMA user_version = 1", newer.concat())).unwrap();
        conn.execute_batch("INSERT INTO org (name) VALUES ('a')").unwrap();
        conn.execute_batch("INSERT OR REPLACE INTO reached (what, value) VALUES ('folded', 7), ('tip', 7)")
            .unwrap();
        super::super::schema::migrate(&conn).unwrap();
        let folded = "SELECT value FROM reached WHERE what = 'folded'";
        let folded: i64 = conn.query_row(folded, [], |row| row.get(0)).unwrap();
        assert_eq!(folded, 0, "all is folded once more, to say about which patients it is");
        assert_eq!(read(&conn, 4).unwrap(), OutageLog::default());
        let orgs: i64 = conn.query_row("SELECT count(*) FROM org", [], |row| row.get(0)).unwrap();
        assert_eq!((orgs, super::super::schema::version(&conn).unwrap()), (1, super::super::schema::VERSION));
    }
}
