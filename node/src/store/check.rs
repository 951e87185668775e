//! Checking the whole file against itself.
//!
//! Three layers: the cipher's authentication of every page that is in use, SQLite's check of its trees, which reads
//! them all, and this store's own: every entry is decoded, which recomputes its hash, and chains, digests and the
//! table of changes are computed again from the entries alone. The result is a list of findings in plain words; it
//! names rows and homes, never what is in a record.
//!
//! The cipher's own check of the file is not used. It looks past the write-ahead log, so that it takes a page for
//! damaged that a power cut has torn while it was copied, and that the log still holds whole.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;
use sync_core::{
    change::Entry,
    feed::{CHAIN_START, Digest, extend_chain},
    id::{Chain, EntryHash, Lane},
    store::StoreError,
};

use super::{
    Fallible, Fault,
    listing::Reader,
    read::{array, decode, digest, small, unpack},
};

/// How many findings are listed before the check gives up: a broken disk has too many to read.
const FINDINGS_MAX: usize = 100;
/// How many rows lie between two calls of the progress function.
const PROGRESS_ROWS: u64 = 10_000;

impl Reader {
    /// Checks the file, and returns what is wrong with it; nothing when all is well. `progress` hears how many
    /// rows of how many have been checked.
    pub fn integrity_check(&self, mut progress: impl FnMut(u64, u64)) -> Result<Vec<String>, StoreError> {
        self.at_one_moment(|conn| {
            let mut findings = Vec::new();
            trees(conn, &mut findings)?;
            let broken_references: i64 =
                conn.query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |row| row.get(0))?;
            if broken_references > 0 {
                findings.push(format!("{broken_references} rows refer to rows that are missing"));
            }
            names(conn, &mut findings)?;
            Feed::check(conn, &mut findings, &mut progress)?;
            findings.truncate(FINDINGS_MAX);
            Ok(findings)
        })
    }
}

/// Runs SQLite's check, whose answer is "ok" or a list of what is wrong.
fn trees(conn: &Connection, findings: &mut Vec<String>) -> Fallible<()> {
    let mut statement = conn.prepare("PRAGMA integrity_check")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let answer: String = row.get(0)?;
        if answer != "ok" {
            findings.push(format!("integrity_check: {answer}"));
        }
    }
    Ok(())
}

/// Compares the index of names with the records.
fn names(conn: &Connection, findings: &mut Vec<String>) -> Fallible<()> {
    let (wrong, indexed): (i64, i64) = conn.query_row(
        "SELECT (SELECT count(*) FROM record_name n LEFT JOIN record r ON r.id = n.record WHERE r.name IS NOT n.name),
           (SELECT count(*) FROM record_name)",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    if wrong > 0 || indexed != small::reached(conn, small::NAMED)? {
        findings
            .push(format!("the index of record names does not fit the records ({wrong} of {indexed} names)"));
    }
    Ok(())
}

/// What the entries say, to be compared with what is stored beside them.
#[derive(Default)]
struct Feed {
    chain: Option<Chain>,
    digests: BTreeMap<String, Digest>,
    entries: u64,
}

impl Feed {
    fn check(
        conn: &Connection,
        findings: &mut Vec<String>,
        progress: &mut impl FnMut(u64, u64),
    ) -> Fallible<()> {
        let tip = small::tip(conn)?;
        let bases: BTreeSet<_> = small::segments(conn)?.iter().map(|segment| segment.base).collect();
        let mut statement = conn.prepare(
            "SELECT f.seq, f.lane, r.name, f.chain, f.offers, f.entry,
               (SELECT c.hash FROM change c WHERE c.record = f.record AND c.seq = f.seq)
             FROM feed f CROSS JOIN record r ON r.id = f.record ORDER BY f.seq",
        )?;
        let mut rows = statement.query([])?;
        let (mut feed, mut expected) = (Self::default(), 0);
        while let Some(row) = rows.next()? {
            expected += 1;
            let seq: i64 = row.get(0)?;
            if unpack(seq) != expected {
                findings.push(format!("rows {expected} to {} of the feed are missing", seq - 1));
                expected = unpack(seq);
                feed.chain = None;
            }
            if bases.contains(&(expected - 1)) {
                feed.chain = Some(CHAIN_START);
            }
            let outcome = match row.get_ref(5)?.as_blob_or_null()? {
                Some(body) => {
                    decode(seq, body).and_then(|entry| feed.entry(&entry, row).map(|()| entry.hash()))
                }
                None => offered(conn, row.get(4)?),
            };
            match outcome {
                Ok(hash) => feed.link(hash, Chain(array(row, 3)?), seq, findings),
                Err(Fault::Broken(finding)) => {
                    findings.push(finding);
                    feed.chain = Some(Chain(array(row, 3)?));
                }
                Err(fault) => return Err(fault),
            }
            if findings.len() >= FINDINGS_MAX {
                return Ok(());
            }
            if expected.is_multiple_of(PROGRESS_ROWS) {
                progress(expected, tip);
            }
        }
        progress(tip, tip);
        feed.compare(conn, findings)
    }

    fn entry(&mut self, entry: &Entry, row: &rusqlite::Row<'_>) -> Fallible<()> {
        let seq: i64 = row.get(0)?;
        self.entries += 1;
        self.digests.entry(entry.home().as_str().to_owned()).or_default().add(entry.hash());
        let lane = row.get::<_, u8>(1).ok().and_then(Lane::from_u8);
        let stored = (lane, row.get_ref(2)?.as_str()?, row.get_ref(6)?.as_blob_or_null()?);
        if stored != (Some(entry.lane()), entry.record().as_str(), Some(&entry.change_hash().0)) {
            return super::broken(format!(
                "row {seq} of the feed is filed under another record, lane or change"
            ));
        }
        Ok(())
    }

    fn link(&mut self, hash: EntryHash, stored: Chain, seq: i64, findings: &mut Vec<String>) {
        if self.chain.is_some_and(|before| extend_chain(before, hash) != stored) {
            findings.push(format!("the running hash of the feed breaks at row {seq}"));
        }
        self.chain = Some(stored);
    }

    fn compare(self, conn: &Connection, findings: &mut Vec<String>) -> Fallible<()> {
        let changes = unpack(small::number(conn, "SELECT count(*) FROM change")?);
        if changes != self.entries {
            findings.push(format!("{changes} changes are filed and the feed holds {} entries", self.entries));
        }
        let mut statement =
            conn.prepare("SELECT o.name, d.count, d.sum FROM digest d JOIN org o ON o.id = d.home")?;
        let mut rows = statement.query([])?;
        let mut stored = BTreeMap::new();
        while let Some(row) = rows.next()? {
            stored.insert(row.get::<_, String>(0)?, digest(row, 1)?);
        }
        for home in stored.keys().chain(self.digests.keys()).collect::<BTreeSet<_>>() {
            if stored.get(home) != self.digests.get(home) {
                findings.push(format!("the digest of the entries of {home} does not fit the entries"));
            }
        }
        Ok(())
    }
}

/// The hash of the entry that a row offers.
fn offered(conn: &Connection, of: Option<i64>) -> Fallible<EntryHash> {
    let mut statement = conn.prepare_cached("SELECT entry FROM feed WHERE seq = ?1")?;
    let mut rows = statement.query([of])?;
    let of = of.unwrap_or_default();
    match rows.next()? {
        Some(row) => Ok(decode(of, row.get_ref(0)?.as_blob_or_null()?.unwrap_or_default())?.hash()),
        None => super::broken(format!("row {of} of the feed is offered and missing")),
    }
}
