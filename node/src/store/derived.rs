//! What the tables say of a record beside its entries: whether it is what the entries say, and making it anew from them.
//!
//! What always holds: nothing is concluded from an entry that cannot be read. Of a record of which one is damaged or gone only
//! its mark of secrecy is looked at, and only raised. A row that was healed may not know any more that it came from elsewhere;
//! then there are two answers of how secret it is, and either will do. Not here: whether the entries are as they were written
//! (see `check`), and folding, by which what is shown of a record is made anew.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use rusqlite::{Connection, OptionalExtension, params};
use sync_core::{
    attachment::Attachment,
    change::Entry,
    feed::Seq,
    fold,
    id::{ContentHash, OrgId, RecordId, Secrecy},
    scope::{
        compartment,
        grant::{Grant, GrantId, Granted, Step},
    },
    store::{Projected, StoreError, StoreMut},
};

use super::{
    Checked, Fallible, Marked, SqliteStore,
    contents::PIECES,
    forget::{OF_RECORD, offers_of},
    names::{Names, RecordKey},
    read::{clamp, decode, degree, pack, small, unpack},
    write::{Commit, State},
};

/// An entry of a record, and what stands beside it in its row.
struct Line {
    seq: Seq,
    entry: Entry,
    /// Whether the row knows that it came from elsewhere.
    elsewhere: bool,
    /// What `secret_row` says of it.
    marked: Option<Secrecy>,
    home: Option<i64>,
}

/// A record with its entries.
pub(super) struct Source {
    id: i64,
    pub name: RecordId,
    home: Option<i64>,
    lines: Vec<Line>,
    /// What `change` files for it and no entry is.
    strays: Vec<Vec<u8>>,
    /// Whether all of its entries can be read, as far as is known.
    pub whole: bool,
}

/// A grant as `grant_` has it; none when its organization has no name any more.
type Stored = Option<(Granted, Seq)>;

impl Source {
    /// The record with this number; none when there is none, or its name is none.
    pub fn load(conn: &Connection, id: i64) -> Fallible<Option<Self>> {
        let mut find = conn.prepare_cached("SELECT name, home FROM record WHERE id = ?1")?;
        let found = find.query_row([id], |row| Ok((row.get::<_, String>(0)?, row.get(1)?))).optional()?;
        let Some((name, home)) = found else { return Ok(None) };
        let Ok(name) = name.parse::<RecordId>() else { return Ok(None) };
        let mut source = Self { id, name, home, lines: Vec::new(), strays: Vec::new(), whole: true };
        let mut find = conn.prepare_cached(
            "SELECT c.seq, c.hash, f.entry, f.src IS NOT NULL, r.degree, f.home, f.seq IS NOT NULL
             FROM change c LEFT JOIN feed f ON f.seq = c.seq LEFT JOIN secret_row r ON r.seq = c.seq
             WHERE c.record = ?1 ORDER BY c.seq",
        )?;
        let mut rows = find.query([id])?;
        while let Some(row) = rows.next()? {
            let seq: i64 = row.get(0)?;
            let body = row.get_ref(2)?.as_blob_or_null()?;
            let Some(body) = body else {
                let is_there: bool = row.get(6)?;
                if is_there
                    || unpack(seq) > small::tip(conn)?
                    || small::forgotten(conn, unpack(seq))?.is_some()
                {
                    source.strays.push(row.get(1)?);
                } else {
                    source.whole = false;
                }
                continue;
            };
            let Ok(entry) = decode(seq, body) else {
                source.whole = false;
                continue;
            };
            let filed = row.get_ref(1)?.as_blob().is_ok_and(|hash| hash == entry.change_hash().0);
            if !filed || *entry.record() != source.name {
                source.strays.push(row.get(1)?);
                continue;
            }
            source.lines.push(Line {
                seq: unpack(seq),
                entry,
                elsewhere: row.get(3)?,
                marked: row.get::<_, Option<i64>>(4)?.map(|_| degree(row, 4)).transpose()?,
                home: row.get(5)?,
            });
        }
        Ok(Some(source))
    }

    /// Its homes, each with the row from which on it is one.
    fn homes(&self) -> Vec<(OrgId, Seq)> {
        let mut homes: Vec<(OrgId, Seq)> = Vec::new();
        for line in &self.lines {
            if homes.iter().all(|(home, _)| home != line.entry.home()) {
                homes.push((line.entry.home().clone(), line.seq));
            }
        }
        homes
    }

    fn has_homes(&self, conn: &Connection) -> Fallible<bool> {
        let homes = self.homes();
        let mut find = conn.prepare_cached("SELECT name FROM org WHERE id = ?1")?;
        let first: Option<String> = find.query_row([self.home], |row| row.get(0)).optional()?;
        let mut find = conn.prepare_cached(
            "SELECT h.nth, o.name, h.since FROM further_home h LEFT JOIN org o ON o.id = h.org WHERE h.record = ?1 ORDER BY h.nth",
        )?;
        let rows = find.query_map([self.id], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, Option<String>>(1)?, row.get::<_, i64>(2)?))
        })?;
        let further = rows.collect::<Result<Vec<_>, _>>()?;
        let wanted = (1..).zip(homes.iter().skip(1));
        let wanted: Vec<_> =
            wanted.map(|(nth, (home, since))| (nth, Some(home.as_str().to_owned()), pack(*since))).collect();
        let is_first = first.as_deref() == homes.first().map(|(home, _)| home.as_str());
        Ok(is_first
            && further == wanted
            && self.lines.iter().all(|line| line.home.is_none() || line.home == self.home))
    }

    /// How secret it is, given what is known so far.
    fn secret(&self, known: Marked) -> Marked {
        let most = |of: &dyn Fn(&Line) -> bool| {
            let degrees = self.lines.iter().filter(|line| of(line)).map(|line| line.entry.secrecy());
            degrees.max().unwrap_or_default()
        };
        let (all, least) = (most(&|_| true), most(&|line| !line.elsewhere && line.marked.is_none()));
        if !self.whole {
            return Marked { degree: known.degree.max(all), here: known.here.max(least) };
        }
        Marked { degree: all, here: known.here.clamp(least, most(&|line| !line.elsewhere)) }
    }

    fn known_secret(&self, conn: &Connection) -> Fallible<Marked> {
        let mut find = conn.prepare_cached("SELECT degree, here FROM secret WHERE record = ?1")?;
        let known =
            find.query_row([self.id], |row| Ok(Marked { degree: degree(row, 0)?, here: degree(row, 1)? }));
        Ok(known.optional()?.unwrap_or_default())
    }

    /// The rows of which `secret_row` says something else than it has to, with what that is.
    fn secret_rows(&self) -> Vec<(Seq, Secrecy)> {
        // By the author of the rows: of those that came from elsewhere, and of all.
        let mut marks: BTreeMap<Vec<u8>, (Secrecy, Secrecy)> = BTreeMap::new();
        let mut wrong = Vec::new();
        for line in &self.lines {
            let (came, all) = marks.entry(author(&line.entry)).or_default();
            let is_marked = line.elsewhere || line.marked.is_some();
            *all = line.entry.secrecy().max(*all);
            if is_marked {
                *came = line.entry.secrecy().max(*came);
            }
            let known = line.marked.unwrap_or_default();
            let right = match (line.elsewhere, self.whole) {
                (true, true) => known.clamp(*came, *all),
                (true, false) => known.max(*came),
                (false, true) if is_marked => known.clamp(line.entry.secrecy(), *all),
                (false, _) => known,
            };
            if right != known || line.marked == Some(Secrecy::None) {
                wrong.push((line.seq, right));
            }
        }
        wrong
    }

    /// Its grants, sorted, each with the first row that could know of it; given what is known of which have ended.
    fn grants(&self, conn: &Connection, known: &[Stored]) -> Fallible<Vec<(Granted, Seq)>> {
        struct Given {
            grant: Grant,
            since: Option<Seq>,
            ends: Vec<Seq>,
        }
        let (mut given, mut marked): (Vec<Given>, BTreeMap<Vec<u8>, Secrecy>) = Default::default();
        for Line { seq, entry, .. } in self.lines.iter().filter(|_| self.name.issuer().is_none()) {
            let before = marked.entry(author(entry)).or_default();
            let is_open = entry.secrecy().max(*before) == Secrecy::None;
            *before = entry.secrecy().max(*before);
            let steps = entry.grants().unwrap_or_default();
            let (opens, ends): (Vec<_>, Vec<_>) =
                steps.into_iter().partition(|step| matches!(step, Step::Opens(_)));
            let opens = opens.into_iter().filter(|_| is_open).map(|step| (step, false));
            for (step, ends) in opens.chain(ends.into_iter().map(|step| (step, true))) {
                let grant = step.grant();
                let same = |one: &Given| (one.grant.id, &one.grant.to) == (grant.id, &grant.to);
                let at = given.iter().position(same).unwrap_or_else(|| {
                    let since = (!ends).then_some(*seq);
                    given.push(Given { grant: grant.clone(), since, ends: Vec::new() });
                    given.len() - 1
                });
                if ends {
                    given[at].ends.push(*seq);
                }
            }
        }
        let mut grants = Vec::new();
        for Given { grant, since, ends } in given {
            let known = known
                .iter()
                .flatten()
                .find(|(one, _)| (one.grant.id, &one.grant.to) == (grant.id, &grant.to));
            let tells = |row: Seq| is_offer_of(conn, row, &ends, &grant.to);
            let over = known.and_then(|(one, _)| one.over);
            let over = match over {
                Some(0) => Some(0),
                _ if ends.is_empty() => None,
                Some(row) if tells(row)? => Some(row),
                _ => Some(self.offers(conn, &ends, &grant.to)?.last().copied().unwrap_or(0)),
            };
            let since = match (since, known) {
                (Some(since), _) => since,
                (None, Some((_, since))) if *since > 0 && tells(since - 1)? => *since,
                _ => self.offers(conn, &ends, &grant.to)?.first().map_or(ends[0], |row| row + 1),
            };
            grants.push((Granted { grant, over }, since));
        }
        grants.sort();
        Ok(grants)
    }

    /// The rows that offer one of these to this organization, in order.
    fn offers(&self, conn: &Connection, of: &[Seq], to: &OrgId) -> Fallible<Vec<Seq>> {
        let mut offers = Vec::new();
        for row in offers_of(conn, &HashSet::from([self.id]))? {
            if is_offer_of(conn, unpack(row), of, to)? {
                offers.push(unpack(row));
            }
        }
        offers.sort_unstable();
        Ok(offers)
    }

    fn known_grants(&self, conn: &Connection) -> Fallible<Vec<Stored>> {
        let mut find = conn.prepare_cached(
            "SELECT g.name, o.name, g.until, g.over, g.since FROM grant_ g LEFT JOIN org o ON o.id = g.org WHERE g.record = ?1",
        )?;
        let (mut rows, mut known) = (find.query([self.id])?, Vec::new());
        while let Some(row) = rows.next()? {
            let to = row.get_ref(1)?.as_str_or_null()?.and_then(|name| name.parse().ok());
            let id: Vec<u8> = row.get(0)?;
            let (until, over, since) =
                (row.get(2)?, row.get::<_, Option<i64>>(3)?.map(unpack), unpack(row.get(4)?));
            known.push(
                to.zip(id.try_into().ok())
                    .map(|(to, id)| (Granted { grant: Grant { id: GrantId(id), to, until }, over }, since)),
            );
        }
        known.sort();
        Ok(known)
    }

    fn has_grants(&self, conn: &Connection) -> Fallible<bool> {
        let known = self.known_grants(conn)?;
        let right = self.grants(conn, &known)?;
        Ok(known.into_iter().collect::<Option<Vec<_>>>().is_some_and(|known| known == right))
    }

    /// What its entries name of attachments.
    fn attachments(&self) -> BTreeSet<Attachment> {
        self.lines.iter().flat_map(|line| line.entry.attachments()).collect()
    }

    /// The attachments that are kept, each with its number, how many of its pieces are said to be lacking, and how many are.
    fn known_attachments(&self, conn: &Connection) -> Fallible<BTreeMap<Attachment, [i64; 3]>> {
        let mut find = conn.prepare_cached(
            "SELECT a.hash, a.size, a.id, a.lacking, (SELECT count(*) FROM piece p WHERE p.id BETWEEN a.id * ?2 AND a.id * ?2 + ?2 - 1)
             FROM attachment a WHERE a.record = ?1",
        )?;
        let (mut rows, mut known) = (find.query([self.id, PIECES])?, BTreeMap::new());
        while let Some(row) = rows.next()? {
            let hash: Vec<u8> = row.get(0)?;
            let hash = ContentHash(hash.try_into().unwrap_or_default());
            let attachment = Attachment { hash, size: unpack(row.get(1)?) };
            let lacking = attachment.pieces() as i64 - row.get::<_, i64>(4)?;
            known.insert(attachment, [row.get(2)?, row.get(3)?, lacking]);
        }
        Ok(known)
    }

    fn has_attachments(&self, conn: &Connection) -> Fallible<bool> {
        let known = self.known_attachments(conn)?;
        // Pieces that have gone are found where pieces are checked.
        Ok(known.values().all(|[_, said, lacking]| said <= lacking)
            && known.into_keys().collect::<BTreeSet<_>>() == self.attachments())
    }

    /// Whether its name leads to it. The newest records are not in the index yet.
    fn is_named(&self, conn: &Connection) -> Fallible<bool> {
        let mut find = conn.prepare_cached("SELECT record FROM record_name WHERE name = ?1")?;
        let found: Option<i64> = find.query_row([self.name.as_str()], |row| row.get(0)).optional()?;
        Ok(found == Some(self.id) || (found.is_none() && self.id > small::reached(conn, small::NAMED)?))
    }

    /// What is shown of it is what its entries show, if it has been folded.
    fn is_shown(&self, conn: &Connection) -> Fallible<bool> {
        let folded = unpack(small::reached(conn, small::FOLDED)?);
        if self.lines.last().is_none_or(|line| line.seq > folded) {
            return Ok(true);
        }
        let rows: Vec<_> = self.lines.iter().map(|line| (line.seq, line.entry.clone())).collect();
        let right = fold::shown(&self.name, &rows);
        let seqs = |sql| -> Fallible<Vec<(Seq, String)>> {
            let mut find = conn.prepare_cached(sql)?;
            let rows = find.query_map([self.id], |row| Ok((unpack(row.get(0)?), row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        };
        let waiting = seqs("SELECT seq, '' FROM waiting WHERE record = ?1 ORDER BY seq")?;
        let unreadable = seqs("SELECT seq, reason FROM unreadable WHERE record = ?1 ORDER BY seq")?;
        let is_left = waiting.iter().map(|(seq, _)| *seq).eq(right.waiting.iter().copied()) && {
            let mut all = right.unreadable.clone();
            all.sort();
            unreadable == all
        };
        Ok(is_left && self.has_projection(conn, &right)? && self.has_snapshot(conn, &rows, &right)?)
    }

    fn has_projection(&self, conn: &Connection, right: &Projected) -> Fallible<bool> {
        let mut find = conn.prepare_cached(
            "SELECT state, open_conflicts, version, conflicts, resource FROM projection WHERE record = ?1",
        )?;
        let mut rows = find.query([self.id])?;
        let Some(row) = rows.next()? else { return Ok(false) };
        let text = |n| row.get_ref(n).map(|text| text.as_str_or_null().ok().flatten());
        let is_right = row.get::<_, i64>(0)? == State::of(right) as i64
            && row.get::<_, i64>(1)? == i64::from(right.open_conflicts)
            && text(2)? == Some(right.version.as_str())
            && text(3)? == right.conflicts.as_deref()
            && text(4)? == right.resource.as_deref();
        let Some(resource) = right.resource.as_deref() else { return Ok(is_right) };
        let mut find = conn.prepare_cached("SELECT patient FROM about WHERE record = ?1")?;
        let rows = find.query_map([self.id], |row| row.get::<_, String>(0))?;
        let about: BTreeSet<String> = rows.collect::<Result<_, _>>()?;
        let patients = compartment::patients_of(resource);
        Ok(is_right && about == patients.iter().map(|patient| patient.as_str().to_owned()).collect())
    }

    fn has_snapshot(&self, conn: &Connection, rows: &[(Seq, Entry)], shown: &Projected) -> Fallible<bool> {
        let mut find = conn.prepare_cached("SELECT seq, document FROM snapshot WHERE record = ?1")?;
        let snapshot = find.query_row([self.id], |row| Ok((unpack(row.get(0)?), row.get(1)?))).optional()?;
        Ok(snapshot.is_none_or(|snapshot| fold::is_snapshot_of(&snapshot, rows, shown)))
    }

    /// What of it is not as its entries say.
    pub fn differs(&self, conn: &Connection) -> Fallible<Vec<&'static str>> {
        let mut wrong = Vec::new();
        let mut look = |is_right: bool, what| {
            if !is_right {
                wrong.push(what);
            }
        };
        let known = self.known_secret(conn)?;
        look(self.secret(known) == known && self.secret_rows().is_empty(), "its mark of secrecy is");
        if !self.whole {
            return Ok(wrong);
        }
        if self.lines.is_empty() {
            return Ok(vec!["no entry is of it; nothing that it says is"]);
        }
        look(self.strays.is_empty(), "what is filed as its changes is");
        look(self.is_named(conn)?, "its place in the index of names is");
        look(self.has_homes(conn)?, "its homes are");
        look(self.has_grants(conn)?, "its grants are");
        look(self.has_attachments(conn)?, "its list of attachments is");
        look(self.is_shown(conn)?, "what is shown of it is");
        Ok(wrong)
    }
}

fn author(entry: &Entry) -> Vec<u8> {
    entry.origin().author().to_vec()
}

/// Whether a row offers one of these to this organization.
fn is_offer_of(conn: &Connection, row: Seq, of: &[Seq], to: &OrgId) -> Fallible<bool> {
    let mut find = conn.prepare_cached(
        "SELECT f.offers FROM feed f JOIN org o ON o.id = f.offered_to WHERE f.seq = ?1 AND o.name = ?2",
    )?;
    let offers: Option<Option<i64>> =
        find.query_row(params![clamp(row), to.as_str()], |row| row.get(0)).optional()?;
    Ok(offers.flatten().is_some_and(|offered| of.contains(&unpack(offered))))
}

/// Tables with rows of records that are made from entries.
pub(super) const OF_RECORDS: [&str; 9] = [
    "projection",
    "snapshot",
    "waiting",
    "unreadable",
    "further_home",
    "secret",
    "grant_",
    "about",
    "attachment",
];

/// Rows that belong to nothing: their tables, and which they are.
fn loose() -> Vec<(&'static str, String)> {
    let of_record = |table: &&'static str| (*table, "record NOT IN (SELECT id FROM record)".to_owned());
    let mut loose: Vec<_> = OF_RECORDS.iter().map(of_record).collect();
    let is_of_record = "SELECT 1 FROM record r WHERE r.id = record_name.record AND r.name = record_name.name";
    loose.push(("record_name", format!("NOT EXISTS ({is_of_record})")));
    // Of a row that is gone, and may come back, the degree stays.
    let holds_entry =
        "seq <= (SELECT value FROM reached WHERE what = 'tip') AND seq NOT IN (SELECT seq FROM forgotten)
        AND NOT EXISTS (SELECT 1 FROM feed f WHERE f.seq = secret_row.seq AND f.entry IS NULL)";
    loose.push(("secret_row", format!("NOT ({holds_entry})")));
    loose.push(("piece", format!("id / {PIECES} NOT IN (SELECT id FROM attachment)")));
    loose
}

/// A row that offers an entry has the home of its record.
const OFFERS_HOME: &str = "UPDATE feed SET home = (SELECT r.home FROM record r WHERE r.id = feed.record)
    WHERE offers IS NOT NULL AND home IS NOT NULL AND home IS NOT (SELECT r.home FROM record r WHERE r.id = feed.record)";

/// The places in `reached` that cannot be, each with the nearest that can.
fn beyond(conn: &Connection) -> Fallible<Vec<(&'static str, i64)>> {
    let number = |sql| small::number(conn, sql);
    let indexed = number(
        "SELECT max(n.record) FROM record_name n JOIN record r ON r.id = n.record AND r.name = n.name",
    )?;
    let (last, tip) = (number("SELECT max(id) FROM record")?, pack(small::tip(conn)?));
    let places = [(small::NAMED, indexed, last), (small::FOLDED, 0, tip)];
    let mut beyond = Vec::new();
    for (what, least, most) in places {
        let at = small::reached(conn, what)?;
        if !(least..=most).contains(&at) {
            beyond.push((what, at.clamp(least, most)));
        }
    }
    Ok(beyond)
}

/// What belongs to no record, in words.
pub(super) fn strays(conn: &Connection) -> Fallible<Vec<String>> {
    let mut found = Vec::new();
    for (table, which) in loose() {
        let rows = small::number(conn, &format!("SELECT count(*) FROM {table} WHERE {which}"))?;
        if rows > 0 {
            found.push(format!("{rows} rows of {table} belong to nothing"));
        }
    }
    found.extend(beyond(conn)?.into_iter().map(|(what, _)| format!("it is not so far as {what} says")));
    Ok(found)
}

impl SqliteStore {
    /// Believes nothing any more that it remembers of names: rows were filed under others.
    pub fn forget_names(&mut self) -> Result<(), StoreError> {
        self.reading(|| {
            *self.names.borrow_mut() = Names::load(&self.conn)?;
            Ok(())
        })
    }

    /// Takes away what belongs to no record, and believes nothing any more that it remembers of names.
    pub fn sweep(&mut self) -> Result<(), StoreError> {
        self.transact(|| {
            for (table, which) in loose() {
                self.conn.execute(&format!("DELETE FROM {table} WHERE {which}"), [])?;
            }
            self.conn.execute(OFFERS_HOME, [])?;
            for (what, at) in beyond(&self.conn)? {
                small::set_reached(&self.conn, what, at)?;
            }
            self.known.borrow_mut().troubled = small::troubled(&self.conn)?;
            *self.names.borrow_mut() = Names::load(&self.conn)?;
            Ok(())
        })
    }

    /// Puts all of that right that a check has found beside the rows of the feed, of a store that no daemon has.
    pub fn put_right(&mut self, checked: &Checked) -> Result<(), StoreError> {
        if checked.loose {
            self.sweep()?;
        }
        for number in &checked.records {
            for record in self.mend(&[*number], checked.unknown)? {
                let op = fold::anew(self, &record)?;
                self.commit(&[op])?;
            }
        }
        Ok(())
    }

    /// The numbers of these records.
    pub fn numbers_of<'r>(
        &self,
        records: impl IntoIterator<Item = &'r RecordId>,
    ) -> Result<Vec<i64>, StoreError> {
        self.reading(|| {
            let mut numbers = Vec::new();
            for record in records {
                numbers.extend(self.names.borrow_mut().record(&self.conn, record)?.map(|key| key.id));
            }
            Ok(numbers)
        })
    }

    /// Makes anew what the tables say of the records with these numbers, but for what is shown of them: gives the records that
    /// have to be folded from all their entries for that. `unknown` as in [`Checked`]: then only marks of secrecy are raised.
    pub fn mend(&mut self, records: &[i64], unknown: bool) -> Result<Vec<RecordId>, StoreError> {
        self.transact(|| {
            let (mut names, mut known) = (self.names.borrow_mut(), self.known.borrow_mut());
            let mut commit = Commit::new(&self.conn, &mut names, &mut known);
            let mut unfolded = Vec::new();
            for id in records {
                unfolded.extend(commit.mend(*id, unknown)?);
            }
            Ok(unfolded)
        })
    }
}

impl Commit<'_> {
    fn mend(&mut self, id: i64, unknown: bool) -> Fallible<Option<RecordId>> {
        self.rename(id)?;
        let Some(mut source) = Source::load(self.conn, id)? else { return Ok(None) };
        source.whole &= !unknown;
        for hash in std::mem::take(&mut source.strays) {
            self.run_one("DELETE FROM change WHERE record = ?1 AND hash = ?2", params![id, hash])?;
        }
        self.mend_secrecy(&source)?;
        if !source.whole {
            return Ok(None);
        }
        if source.lines.is_empty() {
            let is_of_it = "SELECT 1 FROM feed INDEXED BY feed_head WHERE lane >= 0 AND record = ?1";
            if !self.conn.prepare_cached(is_of_it)?.exists([id])? {
                self.remove(id)?;
                self.names.remember(&source.name, None);
            }
            return Ok(None);
        }
        let named = if source.is_named(self.conn)? { id } else { self.mend_name(&source)? };
        if named != id {
            return self.mend(named, unknown);
        }
        if !source.has_homes(self.conn)? {
            self.mend_homes(&mut source)?;
        }
        if !source.has_grants(self.conn)? {
            self.mend_grants(&source)?;
        }
        if !source.has_attachments(self.conn)? {
            self.mend_attachments(&source)?;
        }
        for table in ["snapshot", "waiting", "unreadable"] {
            self.conn.execute(&format!("DELETE FROM {table} WHERE record = ?1"), [id])?;
        }
        self.known.troubled.remove(&id);
        Ok(Some(source.name))
    }

    /// Gives a record the name back that its entries have, if they all have one.
    fn rename(&mut self, id: i64) -> Fallible<()> {
        let mut find =
            self.conn.prepare_cached("SELECT f.seq, f.entry FROM change c JOIN feed f ON f.seq = c.seq AND f.record = c.record WHERE c.record = ?1")?;
        let (mut rows, mut names) = (find.query([id])?, BTreeSet::new());
        while let Some(row) = rows.next()? {
            let body = row.get_ref(1)?.as_blob_or_null()?;
            let entry = body.and_then(|body| decode(row.get(0).ok()?, body).ok());
            names.extend(entry.map(|entry| entry.record().clone()));
        }
        let (Some(name), None) = (names.pop_first(), names.pop_first()) else { return Ok(()) };
        let mut rename =
            self.conn.prepare_cached("UPDATE record SET name = ?2 WHERE id = ?1 AND name <> ?2")?;
        if rename.execute(params![id, name.as_str()])? > 0 {
            self.run_one("DELETE FROM record_name WHERE record = ?1", [id])?;
        }
        Ok(())
    }

    fn mend_secrecy(&mut self, source: &Source) -> Fallible<()> {
        let right = source.secret(source.known_secret(self.conn)?);
        if right == Marked::default() {
            self.run_one("DELETE FROM secret WHERE record = ?1", [source.id])?;
            self.known.secret.remove(&source.id);
        } else {
            let sql = "INSERT OR REPLACE INTO secret (record, degree, here) VALUES (?1, ?2, ?3)";
            self.run_one(sql, params![source.id, right.degree as u8, right.here as u8])?;
            self.known.secret.insert(source.id, right);
        }
        for (seq, degree) in source.secret_rows() {
            match degree {
                Secrecy::None => self.run_one("DELETE FROM secret_row WHERE seq = ?1", [pack(seq)])?,
                _ => self.run_one(
                    "INSERT OR REPLACE INTO secret_row (seq, degree) VALUES (?1, ?2)",
                    params![pack(seq), degree as u8],
                )?,
            }
        }
        Ok(())
    }

    /// Puts a record into the index of names. One that has another number there as well is one with that: gives its number.
    fn mend_name(&mut self, source: &Source) -> Fallible<i64> {
        let (id, name) = (source.id, &source.name);
        let mut find = self.conn.prepare_cached(
            "SELECT r.id FROM record_name n JOIN record r ON r.id = n.record AND r.name = n.name WHERE n.name = ?1",
        )?;
        let other: Option<i64> = find.query_row([name.as_str()], |row| row.get(0)).optional()?;
        let Some(other) = other else {
            self.run_one(
                "INSERT OR REPLACE INTO record_name (name, record) VALUES (?1, ?2)",
                params![name.as_str(), id],
            )?;
            self.names.found(name, RecordKey { id, home: source.home });
            return Ok(id);
        };
        let mut rows: Vec<_> = source.lines.iter().map(|line| pack(line.seq)).collect();
        rows.extend(offers_of(self.conn, &HashSet::from([id]))?);
        for row in rows {
            self.run_one("UPDATE feed SET record = ?2 WHERE seq = ?1", [row, other])?;
        }
        for table in ["change", "attachment"] {
            self.conn.execute(
                &format!("UPDATE OR IGNORE {table} SET record = ?2 WHERE record = ?1"),
                [id, other],
            )?;
        }
        self.remove(id)?;
        Ok(other)
    }

    /// Takes a record away of which there is no entry.
    fn remove(&mut self, id: i64) -> Fallible<()> {
        Commit::forget_contents(self.conn, id)?;
        for sql in OF_RECORD {
            self.conn.prepare_cached(sql)?.execute([id])?;
        }
        self.known.forget(id);
        Ok(())
    }

    fn mend_homes(&mut self, source: &mut Source) -> Fallible<()> {
        let homes = source.homes();
        let mut rows: Vec<_> = source.lines.iter().map(|line| pack(line.seq)).collect();
        rows.extend(offers_of(self.conn, &HashSet::from([source.id]))?);
        self.run_one("DELETE FROM further_home WHERE record = ?1", [source.id])?;
        self.known.further_homes.remove(&source.id);
        for (nth, (home, since)) in (0_i64..).zip(&homes) {
            let org = self.names.add_org(self.conn, home)?;
            if nth > 0 {
                let sql = "INSERT INTO further_home (record, nth, org, since) VALUES (?1, ?2, ?3, ?4)";
                self.run_one(sql, params![source.id, nth, org, pack(*since)])?;
                self.known.further_homes.entry(source.id).or_default().push((home.clone(), *since));
                continue;
            }
            self.run_one("UPDATE record SET home = ?2 WHERE id = ?1", [source.id, org])?;
            for row in &rows {
                self.run_one("UPDATE feed SET home = ?2 WHERE seq = ?1 AND home IS NOT NULL", [*row, org])?;
            }
            source.home = Some(org);
            self.names.found(&source.name, RecordKey { id: source.id, home: Some(org) });
        }
        Ok(())
    }

    fn mend_grants(&mut self, source: &Source) -> Fallible<()> {
        let right = source.grants(self.conn, &source.known_grants(self.conn)?)?;
        self.run_one("DELETE FROM grant_ WHERE record = ?1", [source.id])?;
        for (Granted { grant, over }, since) in &right {
            let org = self.names.add_org(self.conn, &grant.to)?;
            self.run_one(
                "INSERT INTO grant_ (record, name, org, until, since, over) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![source.id, grant.id.0, org, grant.until, pack(*since), over.map(pack)],
            )?;
        }
        match right.is_empty() {
            true => self.known.grants.remove(&source.id),
            false => self.known.grants.insert(source.id, right),
        };
        Ok(())
    }

    fn mend_attachments(&mut self, source: &Source) -> Fallible<()> {
        let named = source.attachments();
        for (attachment, [id, said, lacking]) in source.known_attachments(self.conn)? {
            if !named.contains(&attachment) {
                self.run_one(
                    "DELETE FROM piece WHERE id BETWEEN ?1 AND ?2",
                    [id * PIECES, id * PIECES + PIECES - 1],
                )?;
                self.run_one("DELETE FROM attachment WHERE id = ?1", [id])?;
            } else if said > lacking {
                self.run_one("UPDATE attachment SET lacking = ?2 WHERE id = ?1", [id, lacking])?;
            }
        }
        source.lines.iter().try_for_each(|line| self.name_contents(source.id, &line.entry))
    }
}
