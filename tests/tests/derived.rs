//! What tables say of records beside their entries, changed behind the store's back: a check names the record, it is made anew
//! from the entries as it was, and the next check finds nothing.

use std::{collections::BTreeMap, fs, path::PathBuf};

use node::store::{Checked, Key, Reader, SqliteStore};
use rusqlite::Connection;
use serde_json::json;
use sync_core::{
    attachment::{Attachment, Name, PIECE_BYTES, Tree},
    audit::Harm,
    change::Entry,
    feed::{Position, Segment, Seq},
    fold,
    id::{Incarnation, Lane, OrgId, RecordId, Secrecy},
    record::{Author, Json, Record},
    scope::grant::{FOREVER, Grant, GrantId, Granted, Step},
    store::{Offered, Op, Store, StoreMut},
};
use tempfile::TempDir;
use tuyen_tests::conformance::{self, content, org, record};

const OWN: Incarnation = Incarnation([1; 16]);
const THEIRS: Incarnation = Incarnation([9; 16]);

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("tuyen.db")
    }

    fn copy(&self) -> Self {
        let copy = Self::new();
        fs::copy(self.path(), copy.path()).unwrap();
        copy
    }

    fn open(&self) -> SqliteStore {
        SqliteStore::open(&self.path(), &key()).unwrap()
    }

    fn check(&self) -> Checked {
        Reader::open(&self.path(), &key()).unwrap().integrity_check(|_, _| ()).unwrap()
    }

    /// Does something behind the store's back.
    fn spoil(&self, sql: &str) {
        let conn = self.raw();
        conn.execute_batch(&format!("PRAGMA foreign_keys = OFF; {sql}"))
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
        assert!(conn.total_changes() > 0, "{sql} changes nothing");
    }

    fn raw(&self) -> Connection {
        let conn = Connection::open(self.path()).unwrap();
        let key = format!("PRAGMA key = \"x'{}'\"; PRAGMA cipher_page_size = 8192", "a7".repeat(32));
        conn.execute_batch(&key).unwrap();
        conn
    }

    /// All that the tables hold, but for snapshots, which need not be there.
    fn contents(&self) -> BTreeMap<String, Vec<String>> {
        let raw = self.raw();
        let mut tables = raw
            .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'snapshot'")
            .unwrap();
        let tables: Vec<String> =
            tables.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let rows_of = |table: &String| {
            let mut all = raw.prepare(&format!("SELECT * FROM {table}")).unwrap();
            let columns = all.column_count();
            let row = |row: &rusqlite::Row<'_>| {
                Ok((0..columns).map(|n| format!("{:?} ", row.get_ref(n).unwrap())).collect())
            };
            let mut rows: Vec<String> = all.query_map([], row).unwrap().map(Result::unwrap).collect();
            rows.sort();
            rows
        };
        tables.iter().map(|table| (table.clone(), rows_of(table))).collect()
    }
}

fn key() -> Key {
    Key::from_bytes([0xa7; 32])
}

/// A store, with the records that are written to it.
struct World {
    store: SqliteStore,
    records: BTreeMap<RecordId, Record>,
    clock: i64,
}

impl World {
    fn written(&mut self, run: Incarnation, home: &str, resource: &Json) -> Entry {
        let id = record(&format!(
            "{}/{}",
            resource["resourceType"].as_str().unwrap(),
            resource["id"].as_str().unwrap()
        ));
        let record = self.records.entry(id.clone()).or_insert_with(|| Record::new(id.clone()));
        Self::entry_of(record, run, home, resource, &mut self.clock)
    }

    fn entry_of(
        record: &mut Record,
        run: Incarnation,
        home: &str,
        resource: &Json,
        clock: &mut i64,
    ) -> Entry {
        *clock += 1;
        let author = Author { incarnation: run, wall: *clock, by: None, software: "test", why: None };
        let change = record.put(resource, None, &author).unwrap().expect("it changes something");
        Entry::new(record.id().clone(), org(home), Lane::Normal, change.bytes.into()).unwrap()
    }

    /// Appends an entry as the engine would, and gives its row.
    fn append(&mut self, entry: Entry, came: bool) -> Seq {
        let row = self.store.tip().unwrap() + 1;
        let mut ops = Vec::new();
        if !self.store.homes(entry.record()).unwrap().contains(entry.home()) {
            ops.push(Op::AddHome(entry.record().clone(), entry.home().clone()));
        }
        for step in entry.grants().unwrap() {
            if let Step::Opens(grant) = step {
                ops.push(Op::Grant(entry.record().clone(), Granted { grant, over: None }));
            }
        }
        let (ends, of) = (entry.grants().unwrap(), entry.record().clone());
        ops.push(Op::Append { entry, src: came.then_some(Position { segment: THEIRS, pos: row }), at: 7 });
        for step in ends {
            if let Step::Ends(grant) = step {
                ops.push(Op::Offer { of: row, to: Offered::Former(grant.to.clone()) });
                ops.push(Op::Grant(of.clone(), Granted { grant, over: Some(row + 1) }));
            }
        }
        self.store.commit(&ops).unwrap();
        row
    }
}

fn fold_all(store: &mut SqliteStore) {
    while let Some(ops) = fold::next(store, 3).unwrap() {
        store.commit(&ops).unwrap();
    }
}

fn patient(id: &str, phone: u64) -> Json {
    json!({"resourceType": "Patient", "id": id, "gender": "female",
        "telecom": [{"system": "phone", "value": phone.to_string()}]})
}

fn about(kind: &str, id: &str, status: &str) -> Json {
    json!({"resourceType": kind, "id": id, "status": status, "subject": {"reference": "Patient/a"}})
}

fn attachment() -> (Vec<u8>, Attachment, Tree) {
    let content = content(3, 2 * PIECE_BYTES + 9);
    let (attachment, tree) = Tree::of(&content).unwrap();
    (content, attachment, tree)
}

/// A store in which every table says something, closed.
fn written() -> Place {
    let place = Place::new();
    let store = SqliteStore::create(&place.path(), &key()).unwrap();
    let mut world = World { store, records: BTreeMap::new(), clock: 0 };
    world.store.commit(&[Op::OpenSegment(Segment { incarnation: OWN, base: 0, parent: None })]).unwrap();
    let (mv, bm) = (org("meo-vac"), org("bac-me"));
    let grant = |n: u8, to: &OrgId, until| Grant { id: GrantId([n; 16]), to: to.clone(), until };
    let (short, ever) = (grant(1, &mv, 500), grant(2, &bm, FOREVER));

    // Edited often, opened to two, of whom one may not any more; and an end that came before what it ends.
    for phone in 0..20 {
        let entry = world.written(OWN, "dong-van", &patient("a", phone));
        world.append(entry, false);
        fold_all(&mut world.store);
    }
    let opens = [Step::Opens(short.clone()), Step::Opens(ever)];
    let entry = world.written(OWN, "dong-van", &patient("a", 20)).with_grants(&opens);
    world.append(entry, false);
    let ends = [Step::Ends(short), Step::Ends(grant(3, &bm, 900))];
    for (phone, steps) in [(21, &ends[..1]), (22, &ends[1..])] {
        let entry = world.written(OWN, "dong-van", &patient("a", phone)).with_grants(steps);
        world.append(entry, phone == 22);
    }
    // Created at two places, in conflict.
    let mut other = Record::new(record("Observation/b"));
    let theirs =
        World::entry_of(&mut other, THEIRS, "meo-vac", &about("Observation", "b", "final"), &mut world.clock);
    world.append(theirs, true);
    let ours = world.written(OWN, "dong-van", &about("Observation", "b", "amended"));
    world.append(ours, false);
    // Secret, by marks of two.
    for (n, (run, degree)) in (0..).zip([
        (OWN, Secrecy::None),
        (OWN, Secrecy::Mat),
        (THEIRS, Secrecy::ToiMat),
        (THEIRS, Secrecy::None),
    ]) {
        let entry = world.written(run, "dong-van", &patient("c", n)).with_secrecy(degree);
        world.append(entry, run == THEIRS);
    }
    // With an attachment of which one piece of three is not here.
    let (content, named, tree) = attachment();
    let entry = world
        .written(OWN, "dong-van", &about("DocumentReference", "d", "current"))
        .with_attachments(&[named]);
    world.append(entry, false);
    let name = Name { record: record("DocumentReference/d"), attachment: named };
    let pieces = (0..2).zip(content.chunks(PIECE_BYTES));
    let mut ops = vec![Op::Tree(name.clone(), tree)];
    ops.extend(pieces.map(|(nth, bytes)| Op::Piece { name: name.clone(), nth, bytes: bytes.to_vec() }));
    world.store.commit(&ops).unwrap();
    // Deleted; waiting for what is not here; no change at all.
    let entry = world.written(OWN, "dong-van", &about("Condition", "e", "active"));
    world.append(entry, false);
    let author = Author { incarnation: OWN, wall: 99, by: None, software: "test", why: None };
    let gone = world.records.get_mut(&record("Condition/e")).unwrap().delete(None, &author).unwrap().unwrap();
    let gone = Entry::new(record("Condition/e"), org("dong-van"), Lane::Normal, gone.bytes.into()).unwrap();
    world.append(gone, false);
    world.written(THEIRS, "dong-van", &about("Observation", "w", "final"));
    let waits = world.written(THEIRS, "dong-van", &about("Observation", "w", "amended"));
    world.append(waits, true);
    let opaque =
        conformance::entry(&record("Observation/u"), &org("dong-van"), Lane::Normal, THEIRS, 1, &[], b"x");
    world.append(opaque, true);
    // The one that is never touched, and one that is.
    for id in ["p", "q"] {
        let entry = world.written(OWN, "dong-van", &about("Observation", id, "final"));
        world.append(entry, false);
    }
    fold_all(&mut world.store);
    world.store.checkpoint().unwrap();
    drop(world);
    let checked = place.check();
    assert!(checked.is_sound(), "{checked:?}");
    let contents = place.contents();
    for table in [
        "projection",
        "waiting",
        "unreadable",
        "further_home",
        "secret",
        "secret_row",
        "grant_",
        "about",
        "attachment",
    ] {
        assert!(!contents[table].is_empty(), "{table} is empty");
    }
    place
}

/// The records that findings name.
fn named(checked: &Checked) -> Vec<String> {
    let mut names: Vec<_> = checked
        .findings
        .iter()
        .map(|f| f.record.as_ref().map_or(String::new(), ToString::to_string))
        .collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn whatever_was_changed_behind_the_stores_back_is_made_anew_from_the_entries() {
    let sound = written();
    let contents = sound.contents();
    let id = |name: &str| format!("(SELECT id FROM record WHERE name = '{name}')");
    let (a, b, c, e) = (id("Patient/a"), id("Observation/b"), id("Patient/c"), id("Condition/e"));
    let (p, w, u) = (id("Observation/p"), id("Observation/w"), id("Observation/u"));
    let (pa, ob, pc, dd, ce, op) =
        ("Patient/a", "Observation/b", "Patient/c", "DocumentReference/d", "Condition/e", "Observation/p");
    let (ow, ou) = ("Observation/w", "Observation/u");
    let all = [
        "Condition/e",
        "DocumentReference/d",
        "Observation/b",
        "Observation/p",
        "Observation/q",
        "Observation/u",
        "Observation/w",
        "Patient/a",
        "Patient/c",
    ];
    let first = "(SELECT min(seq) FROM change WHERE record = ";
    let cases: Vec<(String, Vec<&str>)> = vec![
        // What is shown.
        (
            format!(
                "UPDATE projection SET resource = replace(resource, 'female', 'male') WHERE record = {a}"
            ),
            vec![pa],
        ),
        (format!("UPDATE projection SET state = 1 WHERE record = {p}"), vec![op]),
        (format!("UPDATE projection SET open_conflicts = 0 WHERE record = {b}"), vec![ob]),
        (format!("UPDATE projection SET conflicts = NULL WHERE record = {b}"), vec![ob]),
        (format!("UPDATE projection SET version = 'x' WHERE record = {p}"), vec![op]),
        (format!("UPDATE projection SET resource = '{{}}' WHERE record = {e}"), vec![ce]),
        (format!("DELETE FROM projection WHERE record = {p}"), vec![op]),
        ("DELETE FROM projection".to_owned(), all.to_vec()),
        (
            "INSERT INTO projection SELECT 999, state, 0, version, NULL, resource FROM projection LIMIT 1"
                .to_owned(),
            vec![""],
        ),
        (format!("UPDATE about SET patient = 'Patient/z' WHERE record = {p}"), vec![op]),
        (format!("DELETE FROM about WHERE record = {p}"), vec![op]),
        (format!("INSERT INTO about VALUES ('Patient/z', {p})"), vec![op]),
        (format!("DELETE FROM waiting WHERE record = {w}"), vec![ow]),
        (format!("UPDATE waiting SET seq = seq - 1 WHERE record = {w}"), vec![ow]),
        (format!("INSERT INTO waiting VALUES ({p}, 1)"), vec![op]),
        (format!("DELETE FROM unreadable WHERE record = {u}"), vec![ou]),
        (format!("UPDATE unreadable SET reason = 'x' WHERE record = {u}"), vec![ou]),
        (format!("INSERT INTO unreadable VALUES ({p}, 1, 'x')"), vec![op]),
        (format!("UPDATE snapshot SET document = zeroblob(9) WHERE record = {a}"), vec![pa]),
        (format!("UPDATE snapshot SET seq = 23 WHERE record = {a}"), vec![pa]),
        (format!("INSERT INTO snapshot SELECT {p}, 1, document FROM snapshot"), vec![op]),
        // Marks of secrecy.
        ("DELETE FROM secret".to_owned(), vec![pc]),
        (format!("UPDATE secret SET degree = 1 WHERE record = {c}"), vec![pc]),
        (format!("UPDATE secret SET degree = -1 WHERE record = {c}"), vec![pc]),
        ("UPDATE secret_row SET degree = 300".to_owned(), vec![pc]),
        (format!("UPDATE projection SET open_conflicts = -1 WHERE record = {b}"), vec![ob]),
        (format!("UPDATE secret SET here = 0 WHERE record = {c}"), vec![pc]),
        (format!("UPDATE secret SET here = 2 WHERE record = {c}"), vec![pc]),
        (format!("INSERT INTO secret VALUES ({p}, 1, 1)"), vec![op]),
        ("DELETE FROM secret_row".to_owned(), vec![pc]),
        ("UPDATE secret_row SET degree = 1".to_owned(), vec![pc]),
        (format!("INSERT INTO secret_row VALUES ({first}{p}), 1)"), vec![op]),
        ("INSERT INTO secret_row VALUES (1000, 1)".to_owned(), vec![""]),
        // Grants.
        (format!("UPDATE grant_ SET until = until - 1 WHERE record = {a}"), vec![pa]),
        ("UPDATE grant_ SET over = NULL".to_owned(), vec![pa]),
        ("UPDATE grant_ SET over = 3 WHERE over > 0".to_owned(), vec![pa]),
        ("UPDATE grant_ SET since = since + 1".to_owned(), vec![pa]),
        ("UPDATE grant_ SET org = 1".to_owned(), vec![pa]),
        ("UPDATE grant_ SET name = zeroblob(16) WHERE until = 500".to_owned(), vec![pa]),
        ("DELETE FROM grant_".to_owned(), vec![pa]),
        (format!("INSERT INTO grant_ VALUES ({p}, zeroblob(16), 1, 9, 1, NULL)"), vec![op]),
        // Homes.
        (format!("UPDATE record SET home = 2 WHERE id = {p}"), vec![op]),
        (format!("UPDATE record SET home = NULL WHERE id = {p}"), vec![op]),
        (format!("UPDATE feed SET home = 2 WHERE record = {p}"), vec![op]),
        ("UPDATE feed SET home = 2 WHERE offers IS NOT NULL".to_owned(), vec![pa]),
        ("DELETE FROM further_home".to_owned(), vec![ob]),
        ("UPDATE further_home SET since = since - 1".to_owned(), vec![ob]),
        (format!("INSERT INTO further_home VALUES ({p}, 1, 1, 3)"), vec![op]),
        // Attachments.
        ("DELETE FROM attachment".to_owned(), vec!["", dd]),
        ("UPDATE attachment SET lacking = 3".to_owned(), vec![dd]),
        ("UPDATE attachment SET size = 9223372036854775807".to_owned(), vec![dd]),
        (format!("INSERT INTO attachment VALUES (9, {p}, zeroblob(32), 99999, 7, 0, NULL)"), vec![op]),
        ("INSERT INTO piece VALUES (99999, x'00')".to_owned(), vec![""]),
        // Names, and what is filed.
        ("DELETE FROM record_name".to_owned(), all.to_vec()),
        (format!("DELETE FROM record_name WHERE record = {p}"), vec![op]),
        (format!("UPDATE record_name SET record = {w} WHERE record = {p}"), vec!["", op]),
        (format!("INSERT INTO record_name VALUES ('Patient/z', {p})"), vec![""]),
        (format!("INSERT INTO change VALUES ({p}, zeroblob(32), 3)"), vec![op]),
        ("INSERT INTO record VALUES (99, 'Patient/z', 1)".to_owned(), vec!["Patient/z"]),
        ("UPDATE reached SET value = value + 1 WHERE what IN ('named', 'folded')".to_owned(), vec![""]),
        ("UPDATE reached SET value = 0 WHERE what = 'named'".to_owned(), vec![""]),
    ];
    for (sql, records) in cases {
        let place = sound.copy();
        place.spoil(&sql);
        let checked = place.check();
        assert_eq!(named(&checked), records, "{sql}: {checked:?}");
        assert!(checked.findings.iter().all(|f| f.mended && f.row.is_none()), "{sql}: {checked:?}");
        let said = format!("{:?}", checked.findings);
        assert!(!said.contains("male") && !said.contains("final"), "{said}");
        place.open().put_right(&checked).unwrap();
        let checked = place.check();
        assert!(checked.is_sound(), "{sql}: {checked:?}");
        let mended = place.contents();
        for (table, rows) in &contents {
            // Pieces without their attachment are fetched again.
            let is_lost = ["attachment", "piece"].contains(&table.as_str())
                && (sql.contains("attachment SET size") || sql.contains("DELETE FROM attachment"));
            assert!(is_lost || mended[table] == *rows, "{sql}: {table}: {:?}, not {rows:?}", mended[table]);
        }
    }
}

/// A record whose entry cannot be read keeps what it shows, and its mark of secrecy; that can only be raised.
#[test]
fn nothing_is_concluded_from_entries_that_cannot_be_read() {
    let sound = written();
    let secret = "(SELECT id FROM record WHERE name = 'Patient/c')";
    let mark = format!("(SELECT seq FROM change WHERE record = {secret} ORDER BY seq LIMIT 1 OFFSET 2)");
    for lost in [
        format!("UPDATE feed SET entry = x'00' WHERE seq = {mark}"),
        format!("DELETE FROM feed WHERE seq = {mark}"),
        format!(
            "DELETE FROM feed WHERE seq = {mark}; DELETE FROM change WHERE seq NOT IN (SELECT seq FROM feed)"
        ),
    ] {
        let place = sound.copy();
        let before = place.contents();
        place.spoil(&lost);
        let checked = place.check();
        assert!(
            checked.findings.iter().all(|f| f.row.is_some()) && checked.records.is_empty(),
            "{checked:?}"
        );
        place.open().put_right(&checked).unwrap();
        for table in ["projection", "secret", "secret_row"] {
            assert_eq!(place.contents()[table], before[table], "{lost}");
        }
        place.spoil("DELETE FROM secret");
        let checked = place.check();
        assert_eq!(checked.records.len(), 1, "{checked:?}");
        place.open().put_right(&checked).unwrap();
        let store = place.open();
        assert_eq!(store.secrecy(&record("Patient/c")).unwrap(), Secrecy::Mat, "by what is left");
    }
}

/// A record that was filed under a second number, because its name was not found, is one again.
#[test]
fn a_record_with_two_numbers_is_one_again() {
    let place = written();
    place.spoil("DELETE FROM record_name WHERE name IN ('Patient/a', 'Observation/q')");
    let mut store = place.open();
    let rows = store.rows_of(&record("Patient/a")).unwrap();
    assert!(rows.is_empty(), "it is not found any more");
    let entry = conformance::entry(&record("Patient/a"), &org("dong-van"), Lane::Normal, OWN, 77, &[], b"x");
    store
        .commit(&[Op::AddHome(record("Patient/a"), org("dong-van")), Op::Append { entry, src: None, at: 1 }])
        .unwrap();
    fold_all(&mut store);
    drop(store);
    let checked = place.check();
    assert_eq!(named(&checked), ["Observation/q", "Patient/a"], "{checked:?}");
    place.open().put_right(&checked).unwrap();
    let checked = place.check();
    assert!(checked.is_sound(), "{checked:?}");
    let store = place.open();
    assert_eq!(store.rows_of(&record("Patient/a")).unwrap().len(), 24);
    let shown = store.projected(&record("Patient/a")).unwrap().unwrap();
    assert!(shown.resource.is_some() && shown.unreadable.len() == 1, "{shown:?}");
    assert_eq!(store.grants(&record("Patient/a")).unwrap().len(), 3);
}

/// More is filed wrong than a check lists: nothing is concluded from what is left, and some checks later all is as it was.
#[test]
fn when_all_that_is_filed_is_gone_it_is_filed_again() {
    let place = Place::new();
    let store = SqliteStore::create(&place.path(), &key()).unwrap();
    let mut world = World { store, records: BTreeMap::new(), clock: 0 };
    world.store.commit(&[Op::OpenSegment(Segment { incarnation: OWN, base: 0, parent: None })]).unwrap();
    for n in 0..1_100 {
        let entry = world.written(OWN, "dong-van", &about("Observation", &n.to_string(), "final"));
        world.append(entry, false);
    }
    fold_all(&mut world.store);
    drop(world);
    let before = place.contents();
    place.spoil("DELETE FROM change");
    for _ in 0..2 {
        let checked = place.check();
        let mut store = place.open();
        for damage in checked.checkup().damaged {
            let entry = store.entry(damage.row).unwrap().unwrap();
            store.commit(&[Op::Heal { row: damage.row, entry, at: 1 }]).unwrap();
        }
        store.put_right(&checked).unwrap();
    }
    let checked = place.check();
    assert!(checked.is_sound() && place.contents() == before, "{checked:?}");
}

/// Rows that are filed wrong are put right, and then what follows from them.
#[test]
fn a_record_that_was_named_otherwise_has_its_name_back() {
    let place = written();
    place.spoil("UPDATE record SET name = 'Patient/z' WHERE name = 'Patient/c'; UPDATE incarnation SET name = zeroblob(16) WHERE name = x'09090909090909090909090909090909'");
    for round in 0..3 {
        let checked = place.check();
        if checked.is_sound() {
            assert!(round > 0);
            let store = place.open();
            assert_eq!(store.secrecy(&record("Patient/c")).unwrap(), Secrecy::ToiMat);
            assert!(store.projected(&record("Patient/c")).unwrap().is_some());
            return;
        }
        assert!(checked.findings.iter().all(|finding| finding.mended), "{checked:?}");
        let mut store = place.open();
        for damage in checked.checkup().damaged {
            assert_eq!(damage.harm, Harm::Misfiled);
            let entry = store.entry(damage.row).unwrap().unwrap();
            store.commit(&[Op::Heal { row: damage.row, entry, at: 1 }]).unwrap();
        }
        drop(store);
        place.open().put_right(&checked).unwrap();
    }
    panic!("it is never sound: {:?}", place.check());
}
