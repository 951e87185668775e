//! Commits: a batch of facts in one transaction.
//!
//! The facts come from the engine, which keeps the rules: a fact that breaks one (an entry appended twice, a row
//! outside of any segment) is an error like that of a broken disk, and nothing of its batch remains.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest as _, Sha256};
use sync_core::{
    change::Entry,
    codec::Writer,
    feed::{CHAIN_START, Cursor, Digest, Position, Segment, Seq, extend_chain},
    id::{Chain, EntryHash, Incarnation, Lane, OrgId, RecordId, Secrecy},
    identity::{Announcement, NodeInfo},
    scope::{
        compartment,
        grant::{Grant, Granted},
    },
    store::{Gain, Mark, Offered, Op, Projected, StoreError, StoreMut},
};

use super::{
    Fallible, Fault, Known, Marked, SqliteStore, broken,
    names::Names,
    outages::{self, OUTAGE_LINES_MAX, OutageWrite},
    read::{UNKNOWN, clamp, decode, degree, digest, pack, small},
};

/// What a record's projection is, as `projection.state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It has a resource.
    Live = 0,
    /// Changes were applied and left no resource.
    Deleted = 1,
    /// Nothing of it could be applied yet.
    Unreadable = 2,
}

impl State {
    pub(super) fn of(projected: &Projected) -> Self {
        match (&projected.resource, projected.version.as_str()) {
            (Some(_), _) => State::Live,
            (None, "") => State::Unreadable,
            (None, _) => State::Deleted,
        }
    }
}

impl StoreMut for SqliteStore {
    fn commit(&mut self, batch: &[Op]) -> Result<(), StoreError> {
        self.commit_with(batch, None)
    }
}

impl SqliteStore {
    /// Commits a batch, and in the same transaction what the outage log has waiting.
    pub fn commit_with(&mut self, batch: &[Op], log: Option<&OutageWrite>) -> Result<(), StoreError> {
        if batch.is_empty() && log.is_none() {
            return self.reading(|| Ok(()));
        }
        self.transact(|| {
            Commit::new(&self.conn, &mut self.names.borrow_mut(), &mut self.known.borrow_mut()).run(batch)?;
            log.map_or(Ok(()), |log| outages::write(&self.conn, log, OUTAGE_LINES_MAX))
        })
    }
}

/// One commit on its way.
pub(super) struct Commit<'a> {
    pub(super) conn: &'a Connection,
    pub(super) names: &'a mut Names,
    pub(super) known: &'a mut Known,
    /// What the batch adds to the digest of each home, by the home's number.
    pub(super) digests: BTreeMap<i64, Digest>,
    /// The records that the batch forgets.
    pub(super) forgotten: Vec<RecordId>,
    body: Writer,
}

impl<'a> Commit<'a> {
    pub(super) fn new(conn: &'a Connection, names: &'a mut Names, known: &'a mut Known) -> Self {
        Self { conn, names, known, digests: BTreeMap::new(), forgotten: Vec::new(), body: Writer::default() }
    }
}

impl Commit<'_> {
    fn run(&mut self, batch: &[Op]) -> Fallible<()> {
        // First homes first: a row carries its record's first home if it is known by then, which saves a scan of
        // heads from asking the record. Further homes wait for their turn, for they hold from the next row on.
        for op in batch {
            if let Op::AddHome(record, home) = op {
                self.first_home(record, home)?;
            }
        }
        let tip = self.known.tip;
        batch.iter().try_for_each(|op| self.apply(op))?;
        self.forget()?;
        if self.known.tip > tip {
            small::set_reached(self.conn, small::TIP, pack(self.known.tip))?;
        }
        self.write_digests()
    }

    fn apply(&mut self, op: &Op) -> Fallible<()> {
        match op {
            Op::AddHome(record, home) => self.further_home(record, home),
            Op::Grant(record, granted) => self.grant(record, granted),
            Op::Leaving(record, upto) => self.leaving(record, *upto),
            Op::OpenSegment(segment) => self.open_segment(segment),
            Op::RenameSegments(renames) => self.rename_segments(renames),
            Op::Announce(announcement, info) => self.announce(announcement, info),
            Op::Append { entry, src, at } => self.append(entry, *src, *at),
            Op::Heal { row, entry, at } => self.heal(*row, entry, *at),
            Op::Recount { home, less } => self.recount(home, *less),
            Op::Offer { of, to } => self.offer(*of, to),
            Op::Read { lane, cursor, brought } => self.advance(*lane, cursor, *brought),
            Op::Reach(which, lane, seq) => self.run_one(
                "INSERT INTO frontier (which, lane, seq) VALUES (?1, ?2, ?3)
                 ON CONFLICT (which, lane) DO UPDATE SET seq = excluded.seq",
                params![*which as u8, *lane as u8, pack(*seq)],
            ),
            Op::Mark(mark) => self
                .mark("INSERT OR IGNORE INTO mark (lane, src, src_pos, seq) VALUES (?1, ?2, ?3, ?4)", mark),
            Op::Unmark(mark) => {
                self.mark("DELETE FROM mark WHERE lane = ?1 AND src = ?2 AND src_pos = ?3 AND seq = ?4", mark)
            }
            Op::Project(projected) => self.project(projected),
            Op::Folded(seq) => small::set_reached(self.conn, small::FOLDED, pack(*seq)),
            Op::Revoke(revocation) => {
                self.run_one("INSERT OR IGNORE INTO revocation (body) VALUES (?1)", [revocation.encode()])
            }
            Op::Order(order) => {
                self.run_one("INSERT OR IGNORE INTO tree_order (body) VALUES (?1)", [order.encode()])
            }
            Op::Purge(purge) => self.purge(purge.as_ref()),
            Op::Forget(record) => {
                self.forgotten.push(record.clone());
                Ok(())
            }
            Op::Tree(name, tree) => self.tree(name, tree),
            Op::Piece { name, nth, bytes } => self.piece(name, *nth, bytes),
            Op::Lose(name, nth) => self.lose(name, *nth),
            Op::Kept(name, kept) => self.keep(name, *kept),
            Op::Allow(org, way, upto) => {
                let org = self.names.add_org(self.conn, org)?;
                let sql = "INSERT OR REPLACE INTO allowed (org, way, degree) VALUES (?1, ?2, ?3)";
                self.run_one(sql, params![org, *way as u8, *upto as u8])
            }
            Op::Gain(None) => self.run_one("DELETE FROM gain", []),
            Op::Gain(Some(Gain { since, done, upto })) => self.run_one(
                "INSERT OR REPLACE INTO gain (id, since, done, upto) VALUES (1, ?1, ?2, ?3)",
                params![pack(*since), pack(*done), pack(*upto)],
            ),
        }
    }

    pub(super) fn run_one(&self, sql: &str, params: impl rusqlite::Params) -> Fallible<()> {
        self.conn.prepare_cached(sql)?.execute(params)?;
        Ok(())
    }

    fn first_home(&mut self, record: &RecordId, home: &OrgId) -> Fallible<()> {
        let org = self.names.add_org(self.conn, home)?;
        let key = self.names.add_record(self.conn, record, Some(org))?;
        if key.home.is_none() {
            self.names.set_home(self.conn, record, key, org)?;
        }
        Ok(())
    }

    /// Adds the home unless the record has it already, as its first or a further one.
    fn further_home(&mut self, record: &RecordId, home: &OrgId) -> Fallible<()> {
        let org = self.names.add_org(self.conn, home)?;
        let key = self.names.add_record(self.conn, record, Some(org))?;
        let further = self.known.further_homes.get(&key.id).map_or(&[][..], Vec::as_slice);
        if key.home == Some(org) || further.iter().any(|(known, _)| known == home) {
            return Ok(());
        }
        let (nth, since) = (further.len() as i64 + 1, self.known.tip + 1);
        self.run_one(
            "INSERT INTO further_home (record, nth, org, since) VALUES (?1, ?2, ?3, ?4)",
            params![key.id, nth, org, pack(since)],
        )?;
        self.known.further_homes.entry(key.id).or_default().push((home.clone(), since));
        Ok(())
    }

    /// Keeps a grant; one that is known to have ended stays so.
    fn grant(&mut self, record: &RecordId, granted: &Granted) -> Fallible<()> {
        let record = self.names.add_record(self.conn, record, None)?.id;
        let Grant { id, to, until } = &granted.grant;
        let org = self.names.add_org(self.conn, to)?;
        let since = self.known.tip + 1;
        self.run_one(
            "INSERT INTO grant_ (record, name, org, until, since, over) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (record, name, org) DO UPDATE SET over = coalesce(excluded.over, over)",
            params![record, id.0, org, until, pack(since), granted.over.map(pack)],
        )?;
        let grants = self.known.grants.entry(record).or_default();
        match grants.iter_mut().find(|(known, _)| (known.grant.id, &known.grant.to) == (*id, to)) {
            Some((known, _)) => known.over = granted.over.or(known.over),
            None => grants.push((granted.clone(), since)),
        }
        grants.sort();
        Ok(())
    }

    fn leaving(&mut self, record: &RecordId, upto: Option<Seq>) -> Fallible<()> {
        let Some(key) = self.names.record(self.conn, record)? else { return Ok(()) };
        match upto {
            Some(upto) => self.run_one(
                "INSERT OR REPLACE INTO leaving (record, upto) VALUES (?1, ?2)",
                params![key.id, pack(upto)],
            ),
            None => self.run_one("DELETE FROM leaving WHERE record = ?1", [key.id]),
        }
    }

    fn open_segment(&mut self, segment: &Segment) -> Fallible<()> {
        if segment.base != self.known.tip {
            return broken("a segment was to be opened elsewhere than at the end of the feed");
        }
        let (parent, pos) = self.parent(segment)?;
        let incarnation = self.names.add_incarnation(self.conn, segment.incarnation)?;
        self.run_one(
            "INSERT INTO segment (incarnation, base, parent, parent_pos) VALUES (?1, ?2, ?3, ?4)",
            params![incarnation, pack(segment.base), parent, pos],
        )?;
        self.known.segments.push(*segment);
        Ok(())
    }

    fn rename_segments(&mut self, renames: &[(Incarnation, Segment)]) -> Fallible<()> {
        for (old, new) in renames {
            let (parent, pos) = self.parent(new)?;
            let from = self.names.add_incarnation(self.conn, *old)?;
            let to = self.names.add_incarnation(self.conn, new.incarnation)?;
            let renamed = self.conn.prepare_cached(
                "UPDATE segment SET incarnation = ?2, base = ?3, parent = ?4, parent_pos = ?5 WHERE incarnation = ?1",
            )?.execute(params![from, to, pack(new.base), parent, pos])?;
            if renamed != 1 {
                return broken("a segment that is not this node's own was to be renamed");
            }
        }
        self.known.segments = small::segments(self.conn)?;
        Ok(())
    }

    fn parent(&mut self, segment: &Segment) -> Fallible<(Option<i64>, Option<i64>)> {
        let Some(parent) = segment.parent else { return Ok((None, None)) };
        Ok((Some(self.names.add_incarnation(self.conn, parent.segment)?), Some(pack(parent.pos))))
    }

    fn announce(&mut self, announcement: &Announcement, info: &NodeInfo) -> Fallible<()> {
        let certificate = self.certificate(&announcement.chain, info)?;
        let incarnation = self.names.add_incarnation(self.conn, announcement.incarnation)?;
        let (parent, pos) = match announcement.parent {
            Some((segment, pos)) => (Some(self.names.add_incarnation(self.conn, segment)?), Some(pack(pos))),
            None => (None, None),
        };
        self.run_one(
            "INSERT OR REPLACE INTO announcement (incarnation, certificate, node, parent, parent_pos, signature)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![incarnation, certificate, announcement.node.0, parent, pos, announcement.signature],
        )?;
        self.known.announced += 1;
        self.run_one(
            "INSERT OR REPLACE INTO node (node, certificate, n) VALUES (?1, ?2, ?3)",
            params![info.node.0, certificate, self.known.announced],
        )
    }

    /// The number of a certificate chain with what it says. A node announces every start with the same chain,
    /// which is kept once.
    fn certificate(&mut self, chain: &[Vec<u8>], info: &NodeInfo) -> Fallible<i64> {
        let mut joined = Writer::default();
        for certificate in chain {
            joined.bytes(certificate);
        }
        let (place, role) = (info.place.to_string(), info.role.as_str());
        let mut hashed = Writer::default();
        hashed.bytes(&info.node.0).bytes(place.as_bytes()).bytes(role.as_bytes()).raw(&joined.0);
        let digest: [u8; 32] = Sha256::digest(&hashed.0).into();
        let mut find = self.conn.prepare_cached("SELECT id FROM certificate WHERE digest = ?1")?;
        if let Some(id) = find.query_row([digest], |row| row.get(0)).optional()? {
            return Ok(id);
        }
        let mut add = self.conn.prepare_cached(
            "INSERT INTO certificate (digest, node, place, role, chain) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        Ok(add.insert(params![digest, info.node.0, place, role, joined.0])?)
    }

    /// The highest degree of what has come from elsewhere of a record, by the author of this run.
    fn came(&mut self, record: i64, origin: Incarnation) -> Fallible<Secrecy> {
        let mut came = self.conn.prepare_cached(
            "SELECT coalesce(max(r.degree), 0) FROM change c JOIN secret_row r ON r.seq = c.seq JOIN feed f ON f.seq = c.seq
             JOIN incarnation i ON i.id = f.origin WHERE c.record = ?1 AND substr(i.name, ?2) = ?3",
        )?;
        let author = origin.author();
        let from = (Incarnation::LEN - author.len() + 1) as i64;
        Ok(came.query_row(params![record, from, author], |row| degree(row, 0))?)
    }

    fn append(&mut self, entry: &Entry, src: Option<Position>, at: i64) -> Fallible<()> {
        let record = self.names.add_record(self.conn, entry.record(), None)?;
        let origin = self.names.add_incarnation(self.conn, entry.origin())?;
        let (src, src_pos) = match src {
            Some(src) => {
                let pos = i64::try_from(src.pos);
                let pos = pos.or_else(|_| broken("a position of a neighbour's feed is beyond every feed"))?;
                (Some(self.names.add_incarnation(self.conn, src.segment)?), Some(pos))
            }
            None => (None, None),
        };
        let degree = entry.secrecy();
        let known = self.known.secret.get(&record.id).copied().unwrap_or_default();
        let here = if src.is_none() { degree.max(known.here) } else { known.here };
        let marked = Marked { degree: degree.max(known.degree), here };
        if marked != known {
            let sql = "INSERT OR REPLACE INTO secret (record, degree, here) VALUES (?1, ?2, ?3)";
            self.run_one(sql, params![record.id, marked.degree as u8, marked.here as u8])?;
            self.known.secret.insert(record.id, marked);
        }
        self.name_contents(record.id, entry)?;
        let chain = self.next_chain(entry.hash())?;
        let seq = self.known.tip + 1;
        if src.is_some() && marked.degree != Secrecy::None {
            let degree = degree.max(self.came(record.id, entry.origin())?);
            if degree != Secrecy::None {
                let sql = "INSERT INTO secret_row (seq, degree) VALUES (?1, ?2)";
                self.run_one(sql, params![pack(seq), degree as u8])?;
            }
        }
        let mut change =
            self.conn.prepare_cached("INSERT INTO change (record, hash, seq) VALUES (?1, ?2, ?3)")?;
        change.execute(params![record.id, entry.change_hash().0, pack(seq)])?;
        self.body.0.clear();
        entry.encode(&mut self.body);
        let mut feed = self.conn.prepare_cached(
            "INSERT INTO feed (seq, lane, record, home, origin, src, src_pos, at, chain, entry, issued)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?;
        let lane = entry.lane() as u8;
        let body = &self.body.0;
        feed.execute(params![
            pack(seq),
            lane,
            record.id,
            record.home,
            origin,
            src,
            src_pos,
            at,
            chain.0,
            body,
            entry.record().issuer().is_some(),
        ])?;
        let home = self.names.add_org(self.conn, entry.home())?;
        self.digests.entry(home).or_default().add(entry.hash());
        (self.known.tip, self.known.chain) = (seq, chain);
        Ok(())
    }

    fn heal(&mut self, row: Seq, entry: &Entry, at: i64) -> Fallible<()> {
        let seq = clamp(row);
        let record = self.names.add_record(self.conn, entry.record(), None)?;
        let origin = self.names.add_incarnation(self.conn, entry.origin())?;
        let mut find = self.conn.prepare_cached("SELECT record, chain FROM feed WHERE seq = ?1")?;
        let mut known = |seq: i64| find.query_row([seq], |row| Ok((row.get(0)?, row.get(1)?))).optional();
        let begins = self.known.segments.iter().any(|segment| segment.base + 1 == row);
        let known_chain = |found: Option<(i64, Vec<u8>)>| {
            let chain = found.and_then(|(_, chain)| chain.try_into().ok()).map(Chain);
            chain.filter(|chain| *chain != UNKNOWN)
        };
        let before = if begins { Some(CHAIN_START) } else { known_chain(known(seq - 1)?) };
        let old = known(seq)?;
        let old_record = old.as_ref().map_or(record.id, |(record, _)| *record);
        let chain = before.map(|before| extend_chain(before, entry.hash())).or(known_chain(old));
        let chain = chain.unwrap_or(UNKNOWN);
        for record in [old_record, record.id] {
            self.run_one("DELETE FROM change WHERE record = ?1 AND seq = ?2", [record, seq])?;
        }
        self.run_one(
            "INSERT OR REPLACE INTO change (record, hash, seq) VALUES (?1, ?2, ?3)",
            params![record.id, entry.change_hash().0, seq],
        )?;
        self.name_contents(record.id, entry)?;
        self.body.0.clear();
        entry.encode(&mut self.body);
        self.run_one(
            "INSERT INTO feed (seq, lane, record, home, origin, at, chain, entry, issued)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
             ON CONFLICT (seq) DO UPDATE SET lane = excluded.lane, record = excluded.record, home = excluded.home,
               origin = excluded.origin, offers = NULL, offered_to = NULL, chain = excluded.chain,
               entry = excluded.entry, issued = excluded.issued",
            params![
                seq,
                entry.lane() as u8,
                record.id,
                record.home,
                origin,
                at,
                chain.0,
                self.body.0,
                entry.record().issuer().is_some()
            ],
        )?;
        if row == self.known.tip {
            self.known.chain = chain;
        }
        Ok(())
    }

    fn recount(&mut self, home: &OrgId, less: Digest) -> Fallible<()> {
        let home = self.names.add_org(self.conn, home)?;
        let sum = self.digest_of(home)?.without(less);
        self.write_digest(home, sum)
    }

    fn offer(&mut self, of: Seq, to: &Offered) -> Fallible<()> {
        let mut find = self
            .conn
            .prepare_cached("SELECT lane, record, home, at, entry, issued FROM feed WHERE seq = ?1")?;
        let mut rows = find.query([clamp(of)])?;
        let Some(row) = rows.next()? else { return broken("a row that does not exist was to be offered") };
        let Ok(body) = row.get_ref(4)?.as_blob() else {
            return broken("a row that holds no entry was to be offered");
        };
        let chain = self.next_chain(decode(clamp(of), body)?.hash())?;
        let seq = self.known.tip + 1;
        let offered_to = match to {
            // That it offers an end to somebody, the grant that has ended with this row says.
            Offered::Home(org) | Offered::Former(org) => Some(self.names.add_org(self.conn, org)?),
            Offered::Parent => None,
        };
        let (lane, record): (i64, i64) = (row.get(0)?, row.get(1)?);
        let (home, at, issued): (Option<i64>, i64, bool) = (row.get(2)?, row.get(3)?, row.get(5)?);
        self.run_one(
            "INSERT INTO feed (seq, lane, record, home, offers, offered_to, at, chain, issued)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![pack(seq), lane, record, home, pack(of), offered_to, at, chain.0, issued],
        )?;
        (self.known.tip, self.known.chain) = (seq, chain);
        Ok(())
    }

    fn next_chain(&self, hash: EntryHash) -> Fallible<sync_core::id::Chain> {
        let Some(segment) = self.known.segments.last() else {
            return broken("a row was to be appended before a segment was opened");
        };
        let before = if segment.base == self.known.tip { CHAIN_START } else { self.known.chain };
        Ok(extend_chain(before, hash))
    }

    fn advance(&mut self, lane: Lane, cursor: &Cursor, brought: bool) -> Fallible<()> {
        self.known.reads += 1;
        let segment = self.names.add_incarnation(self.conn, cursor.at.segment)?;
        let chain = cursor.chain.map(|chain| chain.0);
        self.run_one(
            "INSERT INTO read_cursor (segment, lane, pos, chain, n, brought) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT DO UPDATE SET pos = excluded.pos, chain = excluded.chain, n = excluded.n,
                 brought = max(brought, excluded.brought)",
            params![
                segment,
                lane as u8,
                pack(cursor.at.pos),
                chain,
                self.known.reads,
                if brought { self.known.reads } else { 0 }
            ],
        )?;
        self.run_one(
            "INSERT OR REPLACE INTO had_read (segment, lane, pos, chain) VALUES (?1, ?2, ?3, ?4)",
            params![segment, lane as u8, pack(cursor.at.pos), chain],
        )
    }

    fn mark(&mut self, sql: &str, mark: &Mark) -> Fallible<()> {
        let src = self.names.add_incarnation(self.conn, mark.src.segment)?;
        self.run_one(sql, params![mark.lane as u8, src, pack(mark.src.pos), pack(mark.seq)])
    }

    fn project(&mut self, projected: &Projected) -> Fallible<()> {
        let record = self.names.add_record(self.conn, &projected.record, None)?.id;
        self.names.index_record(self.conn, &projected.record)?;
        self.run_one(
            "INSERT INTO projection (record, state, open_conflicts, version, conflicts, resource)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (record) DO UPDATE SET state = excluded.state, open_conflicts = excluded.open_conflicts,
               version = excluded.version, conflicts = excluded.conflicts, resource = excluded.resource",
            params![
                record,
                State::of(projected) as u8,
                projected.open_conflicts,
                projected.version,
                projected.conflicts,
                projected.resource
            ],
        )?;
        self.about(record, projected.resource.as_deref())?;
        if let Some((seq, document)) = &projected.snapshot {
            self.run_one(
                "INSERT INTO snapshot (record, seq, document) VALUES (?1, ?2, ?3)
                 ON CONFLICT (record) DO UPDATE SET seq = excluded.seq, document = excluded.document",
                params![record, pack(*seq), document],
            )?;
        }
        if self.known.troubled.remove(&record) {
            self.run_one("DELETE FROM waiting WHERE record = ?1", [record])?;
            self.run_one("DELETE FROM unreadable WHERE record = ?1", [record])?;
        }
        if !projected.waiting.is_empty() || !projected.unreadable.is_empty() {
            self.known.troubled.insert(record);
        }
        for seq in &projected.waiting {
            self.run_one("INSERT INTO waiting (record, seq) VALUES (?1, ?2)", [record, pack(*seq)])?;
        }
        for (seq, reason) in &projected.unreadable {
            let params = params![record, pack(*seq), reason];
            self.run_one("INSERT INTO unreadable (record, seq, reason) VALUES (?1, ?2, ?3)", params)?;
        }
        Ok(())
    }

    /// Keeps about which patients a record is now. One that shows nothing is about whom it was.
    fn about(&self, record: i64, resource: Option<&str>) -> Fallible<()> {
        let Some(resource) = resource else { return Ok(()) };
        let patients: BTreeSet<_> = compartment::patients_of(resource).into_iter().collect();
        let mut find = self.conn.prepare_cached("SELECT patient FROM about WHERE record = ?1")?;
        let rows = find.query_map([record], |row| row.get::<_, String>(0))?;
        let known: BTreeSet<String> = rows.collect::<Result<_, _>>()?;
        for patient in patients.iter().filter(|patient| !known.contains(patient.as_str())) {
            let params = params![patient.as_str(), record];
            self.run_one("INSERT INTO about (patient, record) VALUES (?1, ?2)", params)?;
        }
        for patient in known.iter().filter(|known| patients.iter().all(|one| one.as_str() != *known)) {
            self.run_one("DELETE FROM about WHERE patient = ?1 AND record = ?2", params![patient, record])?;
        }
        Ok(())
    }

    fn write_digests(&mut self) -> Fallible<()> {
        for (home, added) in &self.digests {
            let mut sum = self.digest_of(*home)?;
            sum.merge(*added);
            self.write_digest(*home, sum)?;
        }
        Ok(())
    }

    fn digest_of(&self, home: i64) -> Fallible<Digest> {
        let mut find = self.conn.prepare_cached("SELECT count, sum FROM digest WHERE home = ?1")?;
        Ok(find.query_row([home], |row| digest(row, 0)).optional()?.unwrap_or_default())
    }

    fn write_digest(&self, home: i64, sum: Digest) -> Fallible<()> {
        self.run_one(
            "INSERT OR REPLACE INTO digest (home, count, sum) VALUES (?1, ?2, ?3)",
            params![home, pack(sum.count), sum.sum.to_be_bytes()],
        )
    }
}

impl From<rusqlite::types::FromSqlError> for Fault {
    fn from(error: rusqlite::types::FromSqlError) -> Self {
        Fault::Broken(format!("a row holds a value of the wrong kind: {error}"))
    }
}
