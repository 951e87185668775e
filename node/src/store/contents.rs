//! Attachments: what entries name, what is here of each, and its pieces.
//!
//! What always holds: a piece belongs to content that an entry names, and is forgotten with its record. Whether a piece is what it
//! was is for whoever reads it to check, by the chaining values beside it. Not here: who may have it.

use rusqlite::{Connection, OptionalExtension, params};
use sync_core::{
    attachment::{Attachment, CONTENT_MAX_BYTES, Held, Kept, Name, PIECES_MAX, Tree},
    change::Entry,
    id::{ContentHash, RecordId},
    store::StoreError,
};

use super::{
    Fallible, Reader, SqliteStore,
    read::{array, clamp, parse, unpack},
    write::Commit,
};

/// A piece's number in its table is made of that of its content and its own: more than any content has pieces.
pub(super) const PIECES: i64 = 4_096;
const _: () = assert!(PIECES_MAX as i64 <= PIECES);

/// How much content is not where it has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ContentCounts {
    /// Attachments that are whole here, and their bytes.
    pub whole: (u64, u64),
    /// Attachments that are whole here and not known to be at the root, and their bytes; without those of secret records.
    pub unkept: (u64, u64),
    /// Those of them that are not known to be at the parent either.
    pub only_here: (u64, u64),
    /// Attachments of which something is lacking here, and their bytes.
    pub lacking: (u64, u64),
}

fn kept(n: i64) -> Kept {
    match n {
        2 => Kept::Root,
        1 => Kept::Parent,
        _ => Kept::Here,
    }
}

fn nth(n: usize) -> i64 {
    clamp(n as u64).min(PIECES - 1)
}

/// The number of content, and how many of its pieces are lacking.
fn number(conn: &Connection, record: i64, of: &Attachment) -> Fallible<Option<(i64, i64)>> {
    let mut find = conn
        .prepare_cached("SELECT id, lacking FROM attachment WHERE record = ?1 AND hash = ?2 AND size = ?3")?;
    let found =
        find.query_row(params![record, of.hash.0, clamp(of.size)], |row| Ok((row.get(0)?, row.get(1)?)));
    Ok(found.optional()?)
}

fn held(row: &rusqlite::Row<'_>, first: usize) -> Fallible<Held> {
    // One that is larger than any is of no entry; whoever asks for it by this size finds nothing.
    let size = unpack(row.get(first + 1)?).min(CONTENT_MAX_BYTES);
    let attachment = Attachment { hash: ContentHash(array(row, first)?), size };
    let lacking = usize::try_from(row.get::<_, i64>(first + 2)?).unwrap_or(PIECES_MAX);
    Ok(Held { attachment, lacking, kept: kept(row.get(first + 3)?) })
}

impl Commit<'_> {
    /// Keeps what an entry names.
    pub(super) fn name_contents(&mut self, record: i64, entry: &Entry) -> Fallible<()> {
        for one in entry.attachments() {
            self.run_one(
                "INSERT OR IGNORE INTO attachment (record, hash, size, lacking, kept) VALUES (?1, ?2, ?3, ?4, 0)",
                params![record, one.hash.0, clamp(one.size), clamp(one.pieces() as u64)],
            )?;
        }
        Ok(())
    }

    fn content(&mut self, name: &Name) -> Fallible<Option<(i64, i64)>> {
        let Some(key) = self.names.record(self.conn, &name.record)? else { return Ok(None) };
        number(self.conn, key.id, &name.attachment)
    }

    pub(super) fn tree(&mut self, name: &Name, tree: &Tree) -> Fallible<()> {
        let Some((id, _)) = self.content(name)? else { return Ok(()) };
        let values = tree.values().concat();
        self.run_one("UPDATE attachment SET tree = ?2 WHERE id = ?1", params![id, values])
    }

    pub(super) fn piece(&mut self, name: &Name, at: usize, bytes: &[u8]) -> Fallible<()> {
        let Some((id, lacking)) = self.content(name)? else { return Ok(()) };
        let lost = self.drop_piece(id, at)?;
        let params = params![id * PIECES + nth(at), bytes];
        self.run_one("INSERT INTO piece (id, bytes) VALUES (?1, ?2)", params)?;
        let lacking = lacking + lost - 1;
        self.run_one("UPDATE attachment SET lacking = ?2 WHERE id = ?1", [id, lacking])
    }

    pub(super) fn lose(&mut self, name: &Name, at: usize) -> Fallible<()> {
        let Some((id, _)) = self.content(name)? else { return Ok(()) };
        self.drop_piece(id, at)?;
        // The disk may have taken others with it.
        self.run_one(
            "UPDATE attachment SET lacking = ?2 - (SELECT count(*) FROM piece WHERE id BETWEEN ?3 AND ?4) WHERE id = ?1",
            [id, clamp(name.attachment.pieces() as u64), id * PIECES, id * PIECES + PIECES - 1],
        )
    }

    fn drop_piece(&mut self, id: i64, at: usize) -> Fallible<i64> {
        let mut drop = self.conn.prepare_cached("DELETE FROM piece WHERE id = ?1")?;
        Ok(drop.execute([id * PIECES + nth(at)])? as i64)
    }

    pub(super) fn keep(&mut self, name: &Name, kept: Kept) -> Fallible<()> {
        let Some((id, _)) = self.content(name)? else { return Ok(()) };
        self.run_one("UPDATE attachment SET kept = ?2 WHERE id = ?1", [id, kept as i64])
    }

    /// Forgets the content of a record.
    pub(super) fn forget_contents(conn: &Connection, record: i64) -> Fallible<()> {
        let mut ids = conn.prepare_cached("SELECT id FROM attachment WHERE record = ?1")?;
        let ids: Vec<i64> = ids.query_map([record], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let mut drop = conn.prepare_cached("DELETE FROM piece WHERE id BETWEEN ?1 AND ?2")?;
        for id in ids {
            drop.execute([id * PIECES, id * PIECES + PIECES - 1])?;
        }
        conn.prepare_cached("DELETE FROM attachment WHERE record = ?1")?.execute([record])?;
        Ok(())
    }
}

/// The content of a record.
fn of_record(conn: &Connection, record: i64) -> Fallible<Vec<Held>> {
    let mut find = conn.prepare_cached(
        "SELECT hash, size, lacking, kept FROM attachment WHERE record = ?1 ORDER BY hash, size",
    )?;
    let (mut rows, mut all) = (find.query([record])?, Vec::new());
    while let Some(row) = rows.next()? {
        all.push(held(row, 0)?);
    }
    Ok(all)
}

impl SqliteStore {
    fn content_id(&self, name: &Name) -> Fallible<Option<i64>> {
        let Some(key) = self.names.borrow_mut().record(&self.conn, &name.record)? else { return Ok(None) };
        Ok(number(&self.conn, key.id, &name.attachment)?.map(|(id, _)| id))
    }

    pub(super) fn contents_of(&self, record: &RecordId) -> Fallible<Vec<Held>> {
        let key = self.names.borrow_mut().record(&self.conn, record)?;
        key.map_or(Ok(Vec::new()), |key| of_record(&self.conn, key.id))
    }

    /// What a statement selects of content: the record's name and the columns of [`held`].
    pub(super) fn contents(&self, sql: &str, most: i64) -> Fallible<Vec<(Name, Held)>> {
        named(&self.conn, sql, params![most])
    }

    pub(super) fn missing_of(&self, name: &Name) -> Fallible<Vec<usize>> {
        let Some(id) = self.content_id(name)? else { return Ok(Vec::new()) };
        let mut find =
            self.conn.prepare_cached("SELECT id FROM piece WHERE id BETWEEN ?1 AND ?2 ORDER BY id")?;
        let here = find.query_map([id * PIECES, id * PIECES + PIECES - 1], |row| row.get::<_, i64>(0))?;
        let mut missing: Vec<bool> = vec![true; name.attachment.pieces()];
        for one in here {
            if let Some(piece) = missing.get_mut((one? - id * PIECES) as usize) {
                *piece = false;
            }
        }
        Ok((0..).zip(missing).filter(|(_, missing)| *missing).map(|(at, _)| at).collect())
    }

    pub(super) fn tree_of(&self, name: &Name) -> Fallible<Option<Tree>> {
        let Some(id) = self.content_id(name)? else { return Ok(None) };
        tree(&self.conn, id, &name.attachment)
    }

    pub(super) fn piece_of(&self, name: &Name, at: usize) -> Fallible<Option<Vec<u8>>> {
        let Some(id) = self.content_id(name)? else { return Ok(None) };
        let mut find = self.conn.prepare_cached("SELECT bytes FROM piece WHERE id = ?1")?;
        Ok(find.query_row([id * PIECES + nth(at)], |row| row.get(0)).optional()?)
    }
}

/// The chaining values of content, if they come to its hash.
fn tree(conn: &Connection, id: i64, attachment: &Attachment) -> Fallible<Option<Tree>> {
    let mut find = conn.prepare_cached("SELECT tree FROM attachment WHERE id = ?1")?;
    let values: Option<Vec<u8>> = find.query_row([id], |row| row.get(0)).optional()?.flatten();
    let values = values.map(|values| values.as_chunks().0.to_vec());
    Ok(values.and_then(|values| Tree::new(attachment, values)))
}

/// Content of all records by a statement with one parameter, how much at most.
fn named(conn: &Connection, sql: &str, params: impl rusqlite::Params) -> Fallible<Vec<(Name, Held)>> {
    let mut find = conn.prepare_cached(sql)?;
    let (mut rows, mut all) = (find.query(params)?, Vec::new());
    while let Some(row) = rows.next()? {
        let record = parse(row.get_ref(0)?.as_str().unwrap_or_default(), "record")?;
        let held = held(row, 1)?;
        all.push((Name { record, attachment: held.attachment }, held));
    }
    Ok(all)
}

/// What is lacking here.
pub(super) const LACKING: &str = "SELECT r.name, a.hash, a.size, a.lacking, a.kept FROM attachment a
    JOIN record r ON r.id = a.record WHERE a.lacking > 0 ORDER BY r.name, a.hash, a.size LIMIT ?1";

/// What is whole here, not secret, and not known to be at the root.
pub(super) const UNKEPT: &str = "SELECT r.name, a.hash, a.size, a.lacking, a.kept FROM attachment a
    JOIN record r ON r.id = a.record
    WHERE a.lacking = 0 AND a.kept < 2 AND a.record NOT IN (SELECT record FROM secret)
    ORDER BY a.kept, r.name, a.hash, a.size LIMIT ?1";

impl Reader {
    /// How much content is not where it has to be.
    pub fn content_counts(&self) -> Result<ContentCounts, StoreError> {
        self.at_one_moment(|conn| {
            let count = |condition: &str| -> Fallible<(u64, u64)> {
                let sql =
                    format!("SELECT count(*), coalesce(sum(size), 0) FROM attachment WHERE {condition}");
                let mut find = conn.prepare_cached(&sql)?;
                Ok(find.query_row([], |row| Ok((unpack(row.get(0)?), unpack(row.get(1)?))))?)
            };
            Ok(ContentCounts {
                whole: count("lacking = 0")?,
                unkept: count("lacking = 0 AND kept < 2 AND record NOT IN (SELECT record FROM secret)")?,
                only_here: count("lacking = 0 AND kept < 1 AND record NOT IN (SELECT record FROM secret)")?,
                lacking: count("lacking > 0")?,
            })
        })
    }

    /// Attachments, those of one record or a page of all after a record, by name: those of at most `limit` records.
    pub fn contents(&self, after: Option<&RecordId>, limit: usize) -> Result<Vec<(Name, Held)>, StoreError> {
        self.at_one_moment(|conn| {
            let sql = "SELECT r.name, a.hash, a.size, a.lacking, a.kept FROM attachment a JOIN record r ON r.id = a.record
                WHERE r.name > ?1 AND r.name <= coalesce((SELECT max(name) FROM (SELECT DISTINCT r.name FROM attachment a
                  JOIN record r ON r.id = a.record WHERE r.name > ?1 ORDER BY r.name LIMIT ?2)), '')
                ORDER BY r.name, a.hash, a.size";
            named(conn, sql, params![after.map_or("", RecordId::as_str), clamp(limit as u64)])
        })
    }
}

/// Pieces that are not what they were, each with its number.
type Rotten = Vec<(Name, usize)>;

/// Goes through the pieces of some content with a number after this one: the last number, and the pieces that are not what they
/// were. None when there was no more content.
pub(super) fn check_some(conn: &Connection, after: i64, most: usize) -> Fallible<Option<(i64, Rotten)>> {
    let (mut last, mut pieces, mut rotten) = (None, 0, Vec::new());
    let mut next = conn.prepare_cached(
        "SELECT a.id, r.name, a.hash, a.size, a.lacking, a.kept FROM attachment a JOIN record r ON r.id = a.record
         WHERE a.id > ?1 ORDER BY a.id",
    )?;
    let mut rows = next.query([after])?;
    while pieces < most
        && let Some(row) = rows.next()?
    {
        let id: i64 = row.get(0)?;
        last = Some(id);
        if !Attachment::may_have(unpack(row.get(3)?)) {
            // No entry names it.
            continue;
        }
        let record: RecordId = parse(row.get_ref(1)?.as_str().unwrap_or_default(), "record")?;
        let Held { attachment, lacking, .. } = held(row, 2)?;
        let tree = tree(conn, id, &attachment)?;
        let mut find = conn.prepare_cached("SELECT id, bytes FROM piece WHERE id BETWEEN ?1 AND ?2")?;
        let mut found = find.query([id * PIECES, id * PIECES + PIECES - 1])?;
        let mut missing: Vec<bool> = vec![true; attachment.pieces()];
        while let Some(piece) = found.next()? {
            let at = (piece.get::<_, i64>(0)? - id * PIECES) as usize;
            let fits = piece
                .get_ref(1)?
                .as_blob_or_null()?
                .zip(tree.as_ref())
                .is_some_and(|(bytes, tree)| tree.fits(at, bytes));
            if !fits {
                rotten.push((Name { record: record.clone(), attachment }, at));
            }
            if let Some(missing) = missing.get_mut(at) {
                *missing = false;
            }
            pieces += 1;
        }
        let gone: Vec<_> = (0..).zip(missing).filter(|(_, missing)| *missing).map(|(at, _)| at).collect();
        if gone.len() > lacking {
            rotten.extend(gone.into_iter().map(|at| (Name { record: record.clone(), attachment }, at)));
        }
    }
    Ok(last.map(|last| (last, rotten)))
}
