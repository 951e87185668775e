//! Power cuts under a plain SQLite connection with settings of one's choice: shows that the cuts find what weaker
//! settings lose, and nothing where SQLite promises to lose nothing.

use std::path::Path;

use node::store::FileSystem;
use rusqlite::{Connection, OpenFlags, params};

use super::{
    drive::Drive,
    medium::{Disk, Temper},
};
use crate::sim::rng::Rng;

/// Where the database lies.
const FILE: &str = "/disk/plain.db";
/// Rows that are written, each in a transaction.
const ROWS: u64 = 25;
/// Cuts, at most.
const CUTS_MAX: usize = 8;

/// What power cuts did to plain databases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Losses {
    /// Power cuts.
    pub cuts: u64,
    /// Of them, those that lost an acknowledged transaction.
    pub lost: u64,
    /// Of them, those that left a database which SQLite finds malformed.
    pub corrupt: u64,
}

fn connect(drive: &Drive) -> rusqlite::Result<Connection> {
    Connection::open_with_flags_and_vfs(Path::new(FILE), OpenFlags::default(), drive.vfs())
}

/// Writes rows in these modes, cuts the power at many places, and counts what is lost.
pub fn run(drive: &Drive, seed: u64, journal_mode: &str, synchronous: &str) -> rusqlite::Result<Losses> {
    let mut rng = Rng::new(seed, "plain");
    drive.insert(Disk::new(Temper::draw(&mut rng), seed));
    let conn = connect(drive)?;
    conn.execute_batch(&format!(
        "PRAGMA journal_mode = {journal_mode}; PRAGMA synchronous = EXTRA; PRAGMA wal_autocheckpoint = 12;
         CREATE TABLE t (n INTEGER PRIMARY KEY, body BLOB); PRAGMA synchronous = {synchronous}"
    ))?;
    drive.with(|disk| {
        disk.moment.created = true;
        disk.cut_at_random(Rng::new(seed, "plain cuts"), 12, CUTS_MAX);
    });
    for n in 1..=ROWS {
        let body = rng.bytes(3_000);
        conn.execute("INSERT INTO t VALUES (?1, ?2)", params![n as i64, body])?;
        drive.with(|disk| disk.moment.acknowledged = n);
    }
    drive.kill(conn);
    let mut losses = Losses::default();
    for cut in drive.with(Disk::take_cuts) {
        drive.insert(cut.disk);
        losses.cuts += 1;
        match left(drive) {
            Ok(last) if last >= cut.moment.acknowledged => {}
            Ok(_) => losses.lost += 1,
            Err(_) => losses.corrupt += 1,
        }
    }
    Ok(losses)
}

/// The last row that is left; an error when the database is malformed.
fn left(drive: &Drive) -> Result<u64, String> {
    let read = || {
        let conn = connect(drive)?;
        let check: String = conn.query_row("PRAGMA quick_check", [], |row| row.get(0))?;
        let (last, rows): (i64, i64) =
            conn.query_row("SELECT ifnull(max(n), 0), count(*) FROM t", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        Ok((check, last, rows))
    };
    match read().map_err(|e: rusqlite::Error| e.to_string())? {
        (check, last, rows) if check == "ok" && last == rows => Ok(last as u64),
        (check, last, rows) => Err(format!("{check}, {rows} rows up to {last}")),
    }
}
