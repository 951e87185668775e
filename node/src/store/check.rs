//! Checking the whole file against itself.
//!
//! Three layers: the cipher's authentication of every page that is in use, SQLite's check of its trees, which reads
//! them all, and this store's own: every entry is decoded, which recomputes its hash, and held against the running
//! hash of its row; digests are computed again from the entries alone, and so is, record by record, what the other tables say
//! (see `derived`). The running hash tells
//! which row is wrong, and the table of changes of which record a row was that is gone. The result is a list of
//! findings in plain words; it names rows, records and homes, never what is in a record.
//!
//! What always holds: the disk is read at most half of the time, so that whoever works on the machine can. Rows are
//! read in stretches, each as of one moment: what was appended meanwhile is checked with the last of them.
//!
//! The cipher's own check of the file is not used. It looks past the write-ahead log, so that it takes a page for
//! damaged that a power cut has torn while it was copied, and that the log still holds whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::{Duration, Instant},
};

use rusqlite::{Connection, OptionalExtension, Row};
use sync_core::{
    attachment::Name,
    audit::{Checkup, Damage, Harm, Summary},
    change::Entry,
    feed::{CHAIN_START, Digest, Seq, extend_chain},
    id::{Chain, ChangeHash, EntryHash, Lane, OrgId, RecordId, Secrecy},
    store::StoreError,
};

use super::{
    Fallible, Fault,
    contents::check_some,
    derived::{self, OF_RECORDS, Source},
    listing::Reader,
    read::{DEGREE, UNKNOWN, array, clamp, decode, digest, parse, small, unpack},
};

/// How many findings are listed; of more only the number is told: a broken disk has too many to read.
const FINDINGS_MAX: usize = 1_000;
/// How many records are named to be mended; the next check names more.
pub const MENDED_MAX: usize = 65_536;
/// How many rows are read as of one moment.
const STRETCH_ROWS: u64 = 1_000;
/// How long the disk is read before it rests for as long.
const WORK: Duration = Duration::from_millis(50);
/// Steps of SQLite's machine between two looks at the clock.
const STEPS: i32 = 1_000;

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which row of the feed, and what is wrong with it; none when it is about something else.
    pub row: Option<(Seq, Harm)>,
    /// The record that the row is of, if that is known.
    pub record: Option<RecordId>,
    /// The change that the row held, if that is known.
    pub change: Option<ChangeHash>,
    /// What is wrong.
    pub what: String,
    /// Whether it is put right from what is here, as soon as the check has ended.
    pub mended: bool,
}

impl Finding {
    fn new(what: impl Into<String>) -> Self {
        Self { row: None, record: None, change: None, what: what.into(), mended: false }
    }

    fn of_row(row: Seq, harm: Harm, record: Option<RecordId>, what: impl Into<String>) -> Self {
        Self { row: Some((row, harm)), record, ..Self::new(what) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.row, &self.record) {
            (Some((row, _)), Some(record)) => write!(f, "row {row} ({record}): {}", self.what),
            (Some((row, _)), None) => write!(f, "row {row}: {}", self.what),
            (None, Some(record)) => write!(f, "{record}: {}", self.what),
            _ => f.write_str(&self.what),
        }
    }
}

/// What a check has come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// How many rows there are, or should be.
    pub rows: u64,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// How many findings more there are.
    pub more: u64,
    /// For each home what its digest counts and no row holds.
    pub missing: Vec<(OrgId, Digest)>,
    /// The pieces of attachments that are not what they were, each with its number.
    pub pieces: Vec<(Name, usize)>,
    /// The numbers of the records of which tables say something else than their entries, at most [`MENDED_MAX`], for
    /// [`super::SqliteStore::mend`].
    pub records: BTreeSet<i64>,
    /// Whether tables hold what belongs to no record, for [`super::SqliteStore::sweep`].
    pub loose: bool,
    /// Whether an entry is gone of which it is not known what record it was of.
    pub unknown: bool,
}

impl Checked {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }

    /// What the engine is told.
    pub fn checkup(&self) -> Checkup {
        let damage = |finding: &Finding| {
            let (row, harm) = finding.row?;
            Some(Damage { row, harm, record: finding.record.clone(), change: finding.change })
        };
        Checkup { damaged: self.findings.iter().filter_map(damage).collect(), missing: self.missing.clone() }
    }

    fn mend(&mut self, record: i64) {
        if self.records.len() < MENDED_MAX {
            self.records.insert(record);
        }
    }

    fn push(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.more += 1;
        }
    }
}

/// Lets the disk rest for as long as it was read.
struct Pace(Instant);

impl Pace {
    fn new() -> Self {
        Self(Instant::now())
    }

    fn rest(&mut self) {
        let worked = self.0.elapsed();
        if worked >= WORK {
            std::thread::sleep(worked);
            self.0 = Instant::now();
        }
    }
}

impl Reader {
    /// Checks the file. `progress` hears how many rows of how many have been checked: read first, then compared with what is
    /// said of their records, which takes about as long.
    pub fn integrity_check(&mut self, mut progress: impl FnMut(u64, u64)) -> Result<Checked, StoreError> {
        let mut checked = Checked::default();
        self.rest_between(Some(Pace::new()))?;
        self.at_one_moment(|conn| tables(conn, &mut checked))?;
        self.rest_between(None)?;
        let (mut feed, mut pace) = (Feed::default(), Pace::new());
        while !self.at_one_moment(|conn| feed.stretch(conn, &mut checked))? {
            progress(feed.last / 2, checked.rows);
            pace.rest();
        }
        let mut after = 0;
        while let Some(last) = self.at_one_moment(|conn| contents(conn, after, &mut checked))? {
            after = last;
            pace.rest();
        }
        checked.unknown = !feed.whole;
        let mut records = Records { last: 0, most: 1, damaged: feed.damaged, whole: feed.whole };
        while !self.at_one_moment(|conn| records.stretch(conn, &mut checked))? {
            let rows = checked.rows;
            progress(rows / 2 + (rows / 2).saturating_mul(unpack(records.last)) / unpack(records.most), rows);
            pace.rest();
        }
        progress(checked.rows, checked.rows);
        Ok(checked)
    }

    /// The entries of these homes that can be read and are not more secret than that, by their hashes, each worked out from its
    /// row. Also with rests.
    pub fn summary(&mut self, homes: &[OrgId], allowed: Secrecy) -> Result<Summary, StoreError> {
        self.rest_between(Some(Pace::new()))?;
        let summary = self.at_one_moment(|conn| {
            let bases = bases(conn)?;
            let mut entries = Vec::new();
            for row in rows_of(conn, homes, allowed)? {
                if let Some((hash, home)) = sound(conn, row, &bases)?
                    && homes.contains(&home)
                {
                    entries.push((hash, unpack(row)));
                }
            }
            Ok(Summary::new(entries))
        })?;
        self.rest_between(None)?;
        Ok(summary)
    }

    /// Statements that read long are run with rests in between.
    fn rest_between(&mut self, pace: Option<Pace>) -> Result<(), StoreError> {
        let rest = pace.map(|mut pace| {
            move || {
                pace.rest();
                false
            }
        });
        self.conn.progress_handler(STEPS, rest).map_err(|error| Fault::from(error).into())
    }
}

fn tables(conn: &Connection, checked: &mut Checked) -> Fallible<()> {
    trees(conn, checked)?;
    let broken_references: i64 = conn.query_row(&broken_references(), [], |row| row.get(0))?;
    if broken_references > 0 {
        checked.push(Finding::new(format!("{broken_references} rows refer to rows that are missing")));
    }
    for what in derived::strays(conn)? {
        checked.push(Finding { mended: true, ..Finding::new(what) });
        checked.loose = true;
    }
    Ok(())
}

/// Counts rows that refer to nothing, where they are not taken away for it.
fn broken_references() -> String {
    let tables = OF_RECORDS.map(|table| format!("'{table}'")).join(", ");
    format!("SELECT count(*) FROM pragma_foreign_key_check WHERE \"table\" NOT IN ('record_name', {tables})")
}

/// Runs SQLite's check, whose answer is "ok" or a list of what is wrong.
fn trees(conn: &Connection, checked: &mut Checked) -> Fallible<()> {
    let mut statement = conn.prepare("PRAGMA integrity_check")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let answer: String = row.get(0)?;
        if answer != "ok" {
            checked.push(Finding::new(format!("integrity_check: {answer}")));
        }
    }
    Ok(())
}

/// Checks the pieces of some content; the last that was looked at, none when there is no more.
fn contents(conn: &Connection, after: i64, checked: &mut Checked) -> Fallible<Option<i64>> {
    let Some((last, rotten)) = check_some(conn, after, STRETCH_ROWS as usize)? else { return Ok(None) };
    for (name, nth) in rotten {
        let what = format!(
            "piece {nth} of its attachment {} is not what it was; it is fetched again from whoever has it",
            name.attachment.hash.short()
        );
        checked.push(Finding { record: Some(name.record.clone()), ..Finding::new(what) });
        checked.pieces.push((name, nth));
    }
    Ok(Some(last))
}

/// Compares, record by record, what tables say with what the entries say.
struct Records {
    /// The last record that was looked at, and the last there is.
    last: i64,
    most: i64,
    /// As of [`Feed`].
    damaged: BTreeSet<RecordId>,
    whole: bool,
}

impl Records {
    /// Checks some more records; whether these were the last.
    fn stretch(&mut self, conn: &Connection, checked: &mut Checked) -> Fallible<bool> {
        let began = Instant::now();
        self.most = small::number(conn, "SELECT max(id) FROM record")?.max(1);
        let mut next = conn.prepare_cached("SELECT id FROM record WHERE id > ?1 ORDER BY id")?;
        let mut rows = next.query([self.last])?;
        while let Some(row) = rows.next()? {
            self.last = row.get(0)?;
            let Some(mut source) = Source::load(conn, self.last)? else { continue };
            source.whole &= self.whole && !self.damaged.contains(&source.name);
            let wrong = source.differs(conn)?;
            for what in &wrong {
                let what = format!("{what} not what its entries say");
                let record = Some(source.name.clone());
                checked.push(Finding { record, mended: true, ..Finding::new(what) });
            }
            if !wrong.is_empty() {
                checked.mend(self.last);
            }
            if began.elapsed() >= WORK {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// What the entries say, to be compared with what is stored beside them.
struct Feed {
    /// The last row that was looked at.
    last: Seq,
    /// The running hash behind it; none where it cannot be known.
    chain: Option<Chain>,
    digests: BTreeMap<String, Digest>,
    gone: BTreeSet<Seq>,
    bases: BTreeSet<Seq>,
    /// Records with an entry that is damaged, gone or misfiled.
    damaged: BTreeSet<RecordId>,
    /// Whether it is known of all such entries which records they are of.
    whole: bool,
}

impl Default for Feed {
    fn default() -> Self {
        let (digests, gone, bases, damaged) = Default::default();
        Self { last: 0, chain: None, digests, gone, bases, damaged, whole: true }
    }
}

impl Feed {
    /// Checks some more rows; whether these were the last.
    fn stretch(&mut self, conn: &Connection, checked: &mut Checked) -> Fallible<bool> {
        checked.rows = small::tip(conn)?;
        self.bases = bases(conn)?;
        let mut statement = conn.prepare_cached(
            "SELECT f.seq, f.lane, r.name, f.chain, f.offers, f.entry,
               (SELECT c.hash FROM change c WHERE c.record = f.record AND c.seq = f.seq),
               f.home IS NULL OR f.home IS r.home, f.record, i.name, f.issued
             FROM feed f LEFT JOIN record r ON r.id = f.record LEFT JOIN incarnation i ON i.id = f.origin WHERE f.seq > ?1 ORDER BY f.seq LIMIT ?2",
        )?;
        let mut rows = statement.query([clamp(self.last), clamp(STRETCH_ROWS)])?;
        let mut read = 0;
        while let Some(row) = rows.next()? {
            read += 1;
            let seq = unpack(row.get(0)?);
            self.pass_to(conn, seq)?;
            self.row(conn, row, checked)?;
        }
        if read == STRETCH_ROWS {
            return Ok(false);
        }
        self.pass_to(conn, checked.rows + 1)?;
        self.changes(conn, checked)?;
        self.compare(conn, checked)?;
        Ok(true)
    }

    /// Goes on to just before a row, over such as are gone or were forgotten.
    fn pass_to(&mut self, conn: &Connection, seq: Seq) -> Fallible<()> {
        for row in self.last + 1..seq {
            let forgotten = small::forgotten(conn, row)?;
            if forgotten.is_none() {
                self.gone.insert(row);
            }
            self.chain = forgotten.filter(|chain| *chain != UNKNOWN);
            self.last = row;
        }
        if self.bases.contains(&self.last) {
            self.chain = Some(CHAIN_START);
        }
        Ok(())
    }

    fn row(&mut self, conn: &Connection, row: &Row<'_>, checked: &mut Checked) -> Fallible<()> {
        let seq: i64 = row.get(0)?;
        self.last = unpack(seq);
        let record = row.get_ref(2)?.as_str_or_null()?.and_then(|name| name.parse().ok());
        let stored = row.get_ref(3)?.as_blob()?.try_into().map(Chain).ok().filter(|chain| *chain != UNKNOWN);
        let before = std::mem::replace(&mut self.chain, stored);
        let Some(body) = row.get_ref(5)?.as_blob_or_null()? else {
            return self.offer(conn, row, before, checked);
        };
        let entry = match decode(seq, body) {
            Ok(entry) => entry,
            Err(Fault::Broken(_)) => {
                self.lost(&record);
                checked.push(damaged(self.last, record, row)?);
                return Ok(());
            }
            Err(fault) => return Err(fault),
        };
        let expected = before.map(|before| extend_chain(before, entry.hash()));
        let mut misfile = |what| {
            let record = entry.record().clone();
            self.damaged.extend([record.clone()]);
            // What is not listed is not put right by this check.
            self.whole &= checked.findings.len() < FINDINGS_MAX;
            checked.mend(row.get(8)?);
            let finding = Finding::of_row(self.last, Harm::Misfiled, Some(record), what);
            checked.push(Finding { change: Some(entry.change_hash()), mended: true, ..finding });
            Fallible::Ok(())
        };
        if expected.is_some() && expected != stored {
            let goes_on = goes_on_from(conn, &self.bases, seq, expected)?;
            if !goes_on && stored.is_some() {
                self.lost(&record);
                checked.push(damaged(self.last, record, row)?);
                return Ok(());
            }
            if goes_on {
                self.chain = expected;
                misfile("its running hash is wrong; its entry is sound")?;
            }
        } else if !is_filed_right(&entry, row)? {
            misfile("it is filed under another record, run, lane or change; its entry is sound")?;
        }
        self.digests.entry(entry.home().as_str().to_owned()).or_default().add(entry.hash());
        Ok(())
    }

    /// A row that offers the entry of another one. If that is damaged, it is named itself.
    fn offer(
        &mut self,
        conn: &Connection,
        row: &Row<'_>,
        before: Option<Chain>,
        checked: &mut Checked,
    ) -> Fallible<()> {
        let record = row.get_ref(2)?.as_str_or_null()?.and_then(|name| name.parse().ok());
        if !row.get::<_, bool>(7)? {
            let what = "it offers an entry as of another home than its record's";
            checked.push(Finding { record: record.clone(), mended: true, ..Finding::new(what) });
            checked.loose = true;
        }
        let Some(hash) = hash_of(conn, row.get(4)?)? else { return Ok(()) };
        let expected = before.map(|before| extend_chain(before, hash));
        if expected.is_some() && expected != self.chain {
            let what = "it offers another entry than it did, or its running hash is wrong";
            checked.push(Finding::of_row(self.last, Harm::Damaged, record, what));
        }
        Ok(())
    }

    /// Names the rows that are gone.
    fn changes(&mut self, conn: &Connection, checked: &mut Checked) -> Fallible<()> {
        let mut known = BTreeMap::new();
        if !self.gone.is_empty() {
            let mut statement = conn.prepare(
                "SELECT c.seq, r.name, c.hash FROM change c LEFT JOIN record r ON r.id = c.record
                 LEFT JOIN feed f ON f.seq = c.seq WHERE f.seq IS NULL",
            )?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let record: Option<RecordId> =
                    row.get_ref(1)?.as_str_or_null()?.and_then(|name| name.parse().ok());
                known.insert(unpack(row.get(0)?), (record, row.get(2).map(ChangeHash).ok()));
            }
        }
        for seq in &self.gone {
            let (record, change) = known.remove(seq).unwrap_or_default();
            let what = match change {
                Some(_) => "it is gone",
                None => "it is gone, and it is not known what it was",
            };
            match &record {
                Some(record) => self.damaged.extend([record.clone()]),
                None => self.whole = false,
            }
            let finding = Finding::of_row(*seq, Harm::Gone, record, what);
            checked.push(Finding { change, ..finding });
        }
        Ok(())
    }

    fn lost(&mut self, record: &Option<RecordId>) {
        self.whole &= record.is_some();
        self.damaged.extend(record.clone());
    }

    fn compare(&mut self, conn: &Connection, checked: &mut Checked) -> Fallible<()> {
        let mut statement =
            conn.prepare("SELECT o.name, d.count, d.sum FROM digest d JOIN org o ON o.id = d.home")?;
        let mut rows = statement.query([])?;
        let mut stored = BTreeMap::new();
        while let Some(row) = rows.next()? {
            stored.insert(row.get::<_, String>(0)?, digest(row, 1)?);
        }
        for home in stored.keys().chain(self.digests.keys()).collect::<BTreeSet<_>>() {
            let of = |digests: &BTreeMap<String, Digest>| digests.get(home).copied().unwrap_or_default();
            let missing = of(&stored).without(of(&self.digests));
            if missing != Digest::default() {
                checked.missing.push((parse(home, "organization")?, missing));
            }
        }
        let lost = |f: &Finding| f.row.is_some_and(|(_, harm)| harm != Harm::Misfiled);
        if checked.more > 0 || checked.findings.iter().any(lost) {
            // Digests are of what was written, so they cannot fit what is left.
            return Ok(());
        }
        for (home, _) in checked.missing.clone() {
            let what = format!("the digest of the entries of {home} does not fit the entries");
            checked.push(Finding { mended: true, ..Finding::new(what) });
        }
        Ok(())
    }
}

fn bases(conn: &Connection) -> Fallible<BTreeSet<Seq>> {
    Ok(small::segments(conn)?.iter().map(|segment| segment.base).collect())
}

/// The rows that may hold entries of these homes and are not more secret than that, without looking at a body.
fn rows_of(conn: &Connection, homes: &[OrgId], allowed: Secrecy) -> Fallible<Vec<i64>> {
    let mut wanted = BTreeSet::new();
    for home in homes {
        let mut find = conn.prepare_cached("SELECT id FROM org WHERE name = ?1")?;
        wanted.extend(find.query_row([home.as_str()], |row| row.get::<_, i64>(0)).optional()?);
    }
    let further: BTreeSet<i64> = conn
        .prepare("SELECT DISTINCT record FROM further_home")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut statement = conn.prepare(&format!(
        "SELECT seq, record, home FROM feed INDEXED BY feed_head WHERE lane >= 0 AND offers IS NULL AND {DEGREE} <= ?1"
    ))?;
    let (mut rows, mut found) = (statement.query([allowed as u8])?, Vec::new());
    while let Some(row) = rows.next()? {
        let home: Option<i64> = row.get(2)?;
        if home.is_none_or(|home| wanted.contains(&home)) || further.contains(&row.get(1)?) {
            found.push(row.get(0)?);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The entry of a row, if it is the one that was written: its hash and its home.
fn sound(conn: &Connection, row: i64, bases: &BTreeSet<Seq>) -> Fallible<Option<(EntryHash, OrgId)>> {
    let mut statement = conn.prepare_cached(
        "SELECT entry, chain, (SELECT chain FROM feed WHERE seq = ?1 - 1) FROM feed WHERE seq = ?1",
    )?;
    let mut rows = statement.query([row])?;
    let Some(found) = rows.next()? else { return Ok(None) };
    let Some(body) = found.get_ref(0)?.as_blob_or_null()? else { return Ok(None) };
    let Ok(entry) = decode(row, body) else { return Ok(None) };
    let chain = |column| {
        let bytes = found.get_ref(column)?.as_blob_or_null()?.and_then(|bytes| bytes.try_into().ok());
        Fallible::Ok(bytes.map(Chain).filter(|chain| *chain != UNKNOWN))
    };
    let before = if bases.contains(&unpack(row - 1)) { Some(CHAIN_START) } else { chain(2)? };
    let expected = before.map(|before| extend_chain(before, entry.hash()));
    let fits = match (expected, chain(1)?) {
        (Some(expected), Some(stored)) if expected != stored => {
            goes_on_from(conn, bases, row, Some(expected))?
        }
        _ => true,
    };
    Ok(fits.then(|| (entry.hash(), entry.home().clone())))
}

/// Whether the row after this one fits this running hash; that of a segment's last row nothing else tells.
fn goes_on_from(conn: &Connection, bases: &BTreeSet<Seq>, row: i64, chain: Option<Chain>) -> Fallible<bool> {
    let Some(chain) = chain.filter(|_| !bases.contains(&unpack(row))) else { return Ok(false) };
    let mut statement = conn.prepare_cached("SELECT chain FROM feed WHERE seq = ?1")?;
    let stored = statement.query_row([row + 1], |row| array(row, 0)).optional()?.map(Chain);
    let hash = hash_of(conn, Some(row + 1))?;
    Ok(stored.is_some() && hash.map(|hash| extend_chain(chain, hash)) == stored)
}

fn damaged(seq: Seq, record: Option<RecordId>, row: &Row<'_>) -> Fallible<Finding> {
    let change = row.get::<_, Option<[u8; 32]>>(6)?.map(ChangeHash);
    let what = "its entry is not the one that was written";
    Ok(Finding { change, ..Finding::of_row(seq, Harm::Damaged, record, what) })
}

fn is_filed_right(entry: &Entry, row: &Row<'_>) -> Fallible<bool> {
    let lane = row.get::<_, u8>(1).ok().and_then(Lane::from_u8);
    let stored = (lane, row.get_ref(2)?.as_str_or_null()?, row.get_ref(6)?.as_blob_or_null()?);
    let right = (Some(entry.lane()), Some(entry.record().as_str()), Some(&entry.change_hash().0[..]));
    let written = (row.get_ref(9)?.as_blob_or_null()?, row.get::<_, bool>(10)?);
    Ok(stored == right && written == (Some(&entry.origin().0[..]), entry.record().issuer().is_some()))
}

/// The hash of the entry of a row, or of the one that it offers; none when there is none to be read.
fn hash_of(conn: &Connection, row: Option<i64>) -> Fallible<Option<EntryHash>> {
    let mut statement = conn.prepare_cached(
        "SELECT f.seq, coalesce(f.entry, o.entry) FROM feed f LEFT JOIN feed o ON o.seq = f.offers WHERE f.seq = ?1",
    )?;
    let mut rows = statement.query([row])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let Some(body) = row.get_ref(1)?.as_blob_or_null()? else { return Ok(None) };
    Ok(decode(row.get(0)?, body).ok().map(|entry| entry.hash()))
}
