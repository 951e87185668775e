//! The stores against their contract, and the SQLite store against what disks, keys and people do to it.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Barrier,
    thread,
};

use node::store::{CopyError, Finding, Key, OpenError, Reader, SqliteStore};
use rusqlite::Connection;
use sync_core::{
    audit::Harm,
    feed::{Cursor, Position, Segment},
    id::{Incarnation, Lane, NodeId, Secrecy},
    store::{MemStore, Offered, Op, Projected, Store, StoreMut},
};
use tempfile::TempDir;
use tuyen_tests::conformance::{self, announcement, entry, org, record};

const KEY: [u8; 32] = [0xa7; 32];
/// Set for the child process that is killed in the middle of its commits.
const VICTIM: &str = "TUYEN_TEST_STORE_VICTIM";
/// Set for the child process that opens several stores at once.
const CROWD: &str = "TUYEN_TEST_STORE_CROWD";

/// A directory with a store in it.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("tuyen.db")
    }

    fn create(&self) -> SqliteStore {
        SqliteStore::create(&self.path(), &key()).unwrap()
    }

    fn open(&self) -> Result<SqliteStore, OpenError> {
        SqliteStore::open(&self.path(), &key())
    }

    fn reader(&self) -> Reader {
        Reader::open(&self.path(), &key()).unwrap()
    }

    fn is_sound(&self, when: &str) {
        let checked = self.reader().integrity_check(|_, _| ()).unwrap();
        assert!(conformance::is_sound(&checked), "{when} {checked:?}");
    }

    /// A connection behind the store's back.
    fn raw(&self) -> Connection {
        let conn = Connection::open(self.path()).unwrap();
        let key = format!("PRAGMA key = \"x'{}'\"; PRAGMA cipher_page_size = 8192", "a7".repeat(32));
        conn.execute_batch(&key).unwrap();
        conn
    }
}

fn key() -> Key {
    Key::from_bytes(KEY)
}

fn own(n: u8) -> Segment {
    Segment { incarnation: Incarnation([n; 16]), base: 0, parent: None }
}

/// A batch that appends `count` entries of new records with this text in their bodies.
fn writes(from: u64, count: u64, text: &str) -> Vec<Op> {
    let home = org("dong-van");
    let ops = (from..from + count).flat_map(|n| {
        let record = record(&format!("Observation/{n}"));
        let entry = entry(
            &record,
            &home,
            Lane::Normal,
            Incarnation([1; 16]),
            n,
            &[],
            format!("{text} {n}").as_bytes(),
        );
        [Op::AddHome(record, home.clone()), Op::Append { entry, src: None, at: n as i64 }]
    });
    ops.collect()
}

fn projected(name: &str, resource: Option<&str>, version: &str, open_conflicts: u32) -> Op {
    Op::Project(Projected {
        record: record(name),
        resource: resource.map(str::to_owned),
        version: version.to_owned(),
        conflicts: (open_conflicts > 0).then(|| "[1]".to_owned()),
        open_conflicts,
        waiting: Vec::new(),
        unreadable: Vec::new(),
        snapshot: None,
    })
}

#[test]
fn the_memory_store_conforms() {
    conformance::scripted(MemStore::default, |store| store);
    conformance::grants(MemStore::default(), |store| store);
    conformance::attachments(MemStore::default(), |store| store);
    conformance::random(1, 200, MemStore::default, |store| store);
}

#[test]
fn the_sqlite_store_conforms() {
    let place = Place::new();
    let reopen = |store| {
        drop(store);
        place.open().unwrap()
    };
    conformance::scripted(|| place.create(), reopen);
    place.is_sound("at the end");
    let place = Place::new();
    let reopen = |store| {
        drop(store);
        place.open().unwrap()
    };
    conformance::grants(place.create(), reopen);
    place.is_sound("at the end of grants");
    let place = Place::new();
    let reopen = |store| {
        drop(store);
        place.open().unwrap()
    };
    conformance::attachments(place.create(), reopen);
    place.is_sound("at the end of attachments");
}

#[test]
fn the_sqlite_store_does_as_the_memory_store() {
    for seed in 1..=6 {
        let place = Place::new();
        let reopen = |store| {
            drop(store);
            place.open().unwrap()
        };
        conformance::random(seed, 120, || place.create(), reopen);
        place.is_sound(&format!("seed {seed}"));
    }
}

#[test]
fn the_sqlite_store_heals_as_the_memory_store() {
    for seed in 0..12 {
        let place = Place::new();
        let spoil = |store: SqliteStore, rows: &[(u64, Harm)]| {
            drop(store);
            let raw = place.raw();
            for (row, harm) in rows {
                let sql = match harm {
                    Harm::Gone => "DELETE FROM feed WHERE seq = ?1",
                    _ => "UPDATE feed SET entry = substr(entry, 2) WHERE seq = ?1",
                };
                assert_eq!(raw.execute(sql, [*row as i64]).unwrap(), 1);
            }
            drop(raw);
            place.open().unwrap()
        };
        conformance::heals(
            seed,
            || place.create(),
            spoil,
            |_, homes, allowed| {
                let checked = place.reader().integrity_check(|_, _| ()).unwrap();
                (checked.checkup(), place.reader().summary(homes, allowed).unwrap())
            },
        );
        place.is_sound(&format!("seed {seed}"));
    }
}

#[test]
fn what_is_not_a_store_is_refused_in_one_line() {
    let place = Place::new();
    let line = |error: OpenError| {
        let text = error.to_string();
        assert!(!text.contains('\n') && !text.contains("a7a7"), "{text}");
        text
    };
    assert!(line(place.open().unwrap_err()).starts_with("there is no store at"));
    drop(place.create());
    assert!(matches!(SqliteStore::create(&place.path(), &key()), Err(OpenError::Exists(_))));

    let wrong = SqliteStore::open(&place.path(), &Key::from_bytes([1; 32])).unwrap_err();
    assert!(line(wrong).contains("cannot be read with this key"));
    place.open().expect("the wrong key has done no harm");

    place.raw().execute_batch("PRAGMA user_version = 999").unwrap();
    assert!(line(place.open().unwrap_err()).contains("layout version 999"));
    place.raw().execute_batch("PRAGMA application_id = 7").unwrap();
    assert!(line(place.open().unwrap_err()).contains("database of another program"));

    fs::write(place.path(), "SQLite format 3\0 and so on").unwrap();
    assert!(line(place.open().unwrap_err()).contains("unencrypted"));
    fs::write(place.path(), "not long").unwrap();
    assert!(line(place.open().unwrap_err()).contains("shorter than any database"));
    fs::write(place.path(), vec![5; 8192]).unwrap();
    assert!(matches!(place.open(), Err(OpenError::WrongKey(_))));
}

#[test]
fn a_store_that_cannot_have_its_log_does_not_open() {
    let place = Place::new();
    drop(place.create());
    // Another program has the file open in another mode, so that WAL cannot be set.
    let raw = place.raw();
    raw.execute_batch("PRAGMA journal_mode = DELETE; BEGIN; SELECT count(*) FROM feed").unwrap();
    let error = place.open().unwrap_err();
    assert!(matches!(&error, OpenError::Pragma { name: "journal_mode", .. }), "{error}");
    drop(raw);
    place.open().unwrap();
}

#[test]
fn nothing_of_a_record_is_readable_in_the_files() {
    let place = Place::new();
    let mut store = place.create();
    let canary = "NGUYEN-CANARY-0x5eed";
    store.commit(&[Op::OpenSegment(own(1))]).unwrap();
    store.commit(&writes(1, 50, canary)).unwrap();
    store.checkpoint().unwrap();
    store.commit(&writes(51, 50, canary)).unwrap();
    let needles =
        [canary.as_bytes(), b"Observation/", b"dong-van", b"CREATE TABLE", &KEY[..], b"a7a7a7a7a7a7a7a7"];
    let files: Vec<_> = fs::read_dir(place.0.path()).unwrap().map(|f| f.unwrap().path()).collect();
    assert!(files.iter().any(|f| f.to_string_lossy().ends_with("-wal")), "the log is looked at too");
    for file in files {
        let bytes = fs::read(&file).unwrap();
        for needle in needles {
            let found = bytes.windows(needle.len()).any(|window| window == needle);
            assert!(!found, "{} holds {}", file.display(), String::from_utf8_lossy(needle));
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o077, 0, "{}", file.display());
        }
    }
}

#[test]
fn after_an_error_the_store_is_closed_and_nothing_of_the_batch_remains() {
    let place = Place::new();
    let mut store = place.create();
    store.commit(&[Op::OpenSegment(own(1))]).unwrap();
    store.commit(&writes(1, 3, "before")).unwrap();
    place.raw().execute_batch(
        "CREATE TRIGGER full BEFORE INSERT ON feed WHEN new.seq = 6 BEGIN SELECT RAISE(ABORT, 'disk full'); END",
    ).unwrap();
    let error = store.commit(&writes(4, 5, "torn")).unwrap_err();
    assert!(
        error.to_string().contains("disk full") && error.to_string().contains("Restart tuyend"),
        "{error}"
    );
    for error in [store.tip().unwrap_err(), store.commit(&[]).unwrap_err(), store.checkpoint().unwrap_err()] {
        assert!(error.to_string().contains("the process must restart"), "{error}");
    }
    assert!(store.set_setting("name", b"x").is_err() && store.entry(1).is_err());
    drop(store);

    place.raw().execute_batch("DROP TRIGGER full").unwrap();
    let mut store = place.open().unwrap();
    assert_eq!(store.tip().unwrap(), 3);
    assert!(!store.has(&record("Observation/4"), &sync_core::id::ChangeHash([0; 32])).unwrap());
    assert!(store.homes(&record("Observation/4")).unwrap().is_empty());
    store.commit(&writes(4, 5, "whole")).unwrap();
    place.is_sound("at the end");
}

/// What holds the rows together is not what it was: whoever starts it again and again gets nowhere.
#[test]
fn a_damaged_file_is_not_said_to_be_mended_by_a_start() {
    let place = Place::new();
    drop(place.create());
    place
        .raw()
        .execute_batch(
            "PRAGMA writable_schema = ON;
             UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = 'feed') WHERE name = 'setting'",
        )
        .unwrap();
    let read = || place.open().map_err(|error| error.to_string())?.setting("x").map_err(|e| e.to_string());
    let error = read().unwrap_err();
    assert!(error.contains("no restart mends") && error.contains("tuyen replace"), "{error}");
}

#[test]
fn a_failed_read_closes_the_store_as_well() {
    let place = Place::new();
    let mut store = place.create();
    store.commit(&[Op::OpenSegment(own(1))]).unwrap();
    store.commit(&writes(1, 1, "text")).unwrap();
    place.raw().execute_batch("UPDATE feed SET chain = x'00', entry = x'00'").unwrap();
    assert_eq!(store.entry(1).unwrap(), None, "a bad row stops nothing");
    let error = store.chain(1).unwrap_err().to_string();
    assert!(error.contains("Restart tuyend"), "{error}");
    assert!(store.tip().is_err());
    let checked = place.reader().integrity_check(|_, _| ()).unwrap();
    let row = Some((1, Harm::Damaged));
    assert!(checked.findings.iter().any(|finding| finding.row == row), "{checked:?}");
}

/// Of what is forgotten no table holds a word, a check finds nothing, and what is damaged beside it is named still.
#[test]
fn what_is_forgotten_leaves_running_hashes_alone() {
    let place = Place::new();
    let mut store = place.create();
    store.commit(&[Op::OpenSegment(own(1))]).unwrap();
    store.commit(&writes(1, 6, "text")).unwrap();
    let forgotten = [2, 3, 6].map(|n| record(&format!("Observation/{n}")));
    store
        .commit(&[
            Op::AddHome(forgotten[0].clone(), org("meo-vac")),
            Op::Offer { of: 2, to: Offered::Home(org("meo-vac")) },
        ])
        .unwrap();
    let unreadable = vec![(2, "text".to_owned())];
    for projected in [(2, unreadable), (3, Vec::new())] {
        store
            .commit(&[Op::Project(Projected {
                record: record(&format!("Observation/{}", projected.0)),
                resource: Some("text".into()),
                version: "text".into(),
                conflicts: Some("text".into()),
                open_conflicts: 1,
                waiting: vec![],
                unreadable: projected.1,
                snapshot: Some((projected.0, b"text".to_vec())),
            })])
            .unwrap();
    }
    let chains: Vec<_> = (1..=7).map(|row| store.chain(row).unwrap()).collect();
    store.commit(&forgotten.clone().map(Op::Forget)).unwrap();
    drop(store);
    place.is_sound("after some were forgotten");
    // Their numbers are given anew, and the new names are found after a start.
    let mut store = place.open().unwrap();
    assert_eq!((1..=7).map(|row| store.chain(row).unwrap()).collect::<Vec<_>>(), chains);
    store.commit(&writes(8, 2, "other")).unwrap();
    drop(store);
    place.is_sound("after others came");
    let store = place.open().unwrap();
    assert_eq!(store.rows_of(&record("Observation/9")).unwrap(), [9]);
    assert_eq!(store.unfolded(0, 99).unwrap().len(), 5);
    for record in &forgotten {
        assert!(store.rows_of(record).unwrap().is_empty() && store.homes(record).unwrap().is_empty());
        assert_eq!(store.projected(record).unwrap(), None);
    }
    drop(store);
    let raw = place.raw();
    let mut tables = raw.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").unwrap();
    let tables: Vec<String> = tables.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    for table in tables {
        let mut columns = raw.prepare(&format!("SELECT name FROM pragma_table_info('{table}')")).unwrap();
        let columns: Vec<String> =
            columns.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let all = columns
            .iter()
            .map(|name| format!("hex(coalesce({name}, ''))"))
            .collect::<Vec<_>>()
            .join(" || ' ' || ");
        let mut rows = raw.prepare(&format!("SELECT {all} FROM {table}")).unwrap();
        for row in rows.query_map([], |row| row.get::<_, String>(0)).unwrap() {
            let row = row.unwrap();
            for name in ["Observation/2", "Observation/3", "Observation/6"] {
                let name: String = name.bytes().map(|byte| format!("{byte:02X}")).collect();
                assert!(!row.contains(&name), "{table}: {row}");
            }
        }
    }
    raw.execute_batch("UPDATE feed SET entry = x'00' WHERE seq = 4; DELETE FROM feed WHERE seq = 8").unwrap();
    let found = place.reader().integrity_check(|_, _| ()).unwrap().findings;
    let rows: Vec<_> = found.iter().filter_map(|finding| finding.row).collect();
    assert_eq!(rows, [(4, Harm::Damaged), (8, Harm::Gone)]);
}

/// Each kind of harm, done behind the store's back, is found and named, and nothing else is.
#[test]
fn a_check_names_the_row_and_its_record() {
    let sound = Place::new();
    let mut store = sound.create();
    store.commit(&[Op::OpenSegment(own(1))]).unwrap();
    store.commit(&writes(1, 6, "text")).unwrap();
    let second = Segment { incarnation: Incarnation([2; 16]), base: 6, parent: None };
    store.commit(&[vec![Op::OpenSegment(second)], writes(7, 3, "text")].concat()).unwrap();
    store.commit(&[Op::AddHome(record("Observation/8"), org("meo-vac"))]).unwrap();
    store.commit(&[Op::Offer { of: 8, to: Offered::Home(org("meo-vac")) }]).unwrap();
    store.checkpoint().unwrap();
    drop(store);
    sound.is_sound("before");
    let row = |n: u64, harm: Harm| (Some((n, harm)), (n < 10).then(|| record(&format!("Observation/{n}"))));
    // A bit of a home that stays a home: only the running hash tells.
    let flip = "UPDATE feed SET entry = unhex(replace(hex(entry), '646F6E67', '646F6E66')) WHERE seq = ";
    for (sql, found) in [
        ("UPDATE feed SET entry = x'00' WHERE seq = 3".to_owned(), vec![row(3, Harm::Damaged)]),
        (format!("{flip}3"), vec![row(3, Harm::Damaged)]),
        (format!("{flip}6"), vec![row(6, Harm::Damaged)]),
        ("DELETE FROM feed WHERE seq = 3".to_owned(), vec![row(3, Harm::Gone)]),
        (
            "DELETE FROM feed WHERE seq IN (1, 6, 7)".to_owned(),
            [1, 6, 7].map(|n| row(n, Harm::Gone)).to_vec(),
        ),
        ("DELETE FROM feed WHERE seq > 8".to_owned(), [9, 10].map(|n| row(n, Harm::Gone)).to_vec()),
        (
            "DELETE FROM feed WHERE seq = 2; UPDATE feed SET entry = x'00' WHERE seq = 3".to_owned(),
            vec![row(3, Harm::Damaged), row(2, Harm::Gone)],
        ),
        ("UPDATE feed SET chain = zeroblob(16) WHERE seq = 3".to_owned(), vec![row(3, Harm::Misfiled)]),
        ("UPDATE feed SET lane = 2 WHERE seq = 3".to_owned(), vec![row(3, Harm::Misfiled)]),
        ("UPDATE feed SET record = 4 WHERE seq = 3".to_owned(), vec![row(3, Harm::Misfiled)]),
        ("UPDATE feed SET home = 2 WHERE seq = 3".to_owned(), vec![(None, Some(record("Observation/3")))]),
        ("UPDATE feed SET issued = 1 WHERE seq = 3".to_owned(), vec![row(3, Harm::Misfiled)]),
        ("UPDATE feed SET origin = NULL WHERE seq = 3".to_owned(), vec![row(3, Harm::Misfiled)]),
        ("DELETE FROM change WHERE seq = 3".to_owned(), vec![row(3, Harm::Misfiled)]),
        ("UPDATE change SET hash = zeroblob(32) WHERE seq = 3".to_owned(), vec![row(3, Harm::Misfiled)]),
        (
            "INSERT INTO change VALUES (3, zeroblob(32), 4)".to_owned(),
            vec![(None, Some(record("Observation/3")))],
        ),
        ("UPDATE digest SET sum = zeroblob(16)".to_owned(), vec![(None, None)]),
        (
            "UPDATE feed SET offers = 7 WHERE seq = 10".to_owned(),
            vec![(Some((10, Harm::Damaged)), Some(record("Observation/8")))],
        ),
    ] {
        let place = Place::new();
        fs::copy(sound.path(), place.path()).unwrap();
        place.raw().execute_batch(&format!("PRAGMA foreign_keys = OFF; {sql}")).unwrap();
        let checked = place.reader().integrity_check(|_, _| ()).unwrap();
        // The second home of the eighth no entry names.
        let of_eighth = |f: &&Finding| f.row.is_some() || f.record != Some(record("Observation/8"));
        let named: Vec<_> =
            checked.findings.iter().filter(of_eighth).map(|f| (f.row, f.record.clone())).collect();
        assert_eq!(named, found, "{sql}: {checked:?}");
        assert_eq!((checked.rows, checked.more), (10, 0), "{sql}");
        let known =
            |finding: &&Finding| finding.record.is_some() && finding.record != Some(record("Observation/8"));
        assert!(
            checked
                .findings
                .iter()
                .filter(known)
                .all(|f| f.change.is_some() || f.row.is_none() || sql.contains("change")),
            "{sql}"
        );
    }
}

#[test]
fn a_batch_that_breaks_the_rules_is_refused_whole() {
    let place = Place::new();
    let mut store = place.create();
    assert!(store.commit(&writes(1, 1, "outside of any segment")).is_err());
    drop(store);
    let mut store = place.open().unwrap();
    store.commit(&[Op::OpenSegment(own(1))]).unwrap();
    let twice = [writes(1, 1, "same"), writes(1, 1, "same")].concat();
    assert!(store.commit(&twice).is_err());
    drop(store);
    assert_eq!(place.open().unwrap().tip().unwrap(), 0);
}

#[test]
fn changed_bytes_on_the_disk_are_found() {
    let place = Place::new();
    let mut store = place.create();
    store.commit(&[Op::OpenSegment(own(1))]).unwrap();
    store.commit(&writes(1, 200, "text")).unwrap();
    store.checkpoint().unwrap();
    drop(store);
    let mut bytes = fs::read(place.path()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(place.path(), bytes).unwrap();
    let found = match Reader::open(&place.path(), &key()) {
        Ok(mut reader) => reader.integrity_check(|_, _| ()).map_or(true, |checked| !checked.is_sound()),
        Err(_) => true,
    };
    assert!(found);
}

/// Not a test of its own: the process that `a_killed_process_...` kills.
#[test]
fn victim() {
    let Some(path) = std::env::var_os(VICTIM) else { return };
    let mut store = SqliteStore::open(Path::new(&path), &key()).unwrap();
    for n in 0.. {
        store.commit(&writes(store.tip().unwrap() + 1, 7, "text")).unwrap();
        if n % 5 == 4 {
            store.checkpoint().unwrap();
        }
        println!("acknowledged {}", store.tip().unwrap());
    }
}

#[test]
fn a_killed_process_loses_nothing_that_it_acknowledged() {
    let place = Place::new();
    place.create().commit(&[Op::OpenSegment(own(1))]).unwrap();
    for round in 0..6u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "victim", "--nocapture"])
            .env(VICTIM, place.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acknowledged = 0;
        for line in lines.by_ref().map_while(Result::ok) {
            if let Some((_, tip)) = line.split_once("acknowledged ") {
                acknowledged = tip.parse().unwrap();
                if acknowledged % 100 > 10 + round * 13 {
                    break;
                }
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let late =
            lines.map_while(Result::ok).filter_map(|line| line.split_once("acknowledged ")?.1.parse().ok());
        acknowledged = late.max().unwrap_or(acknowledged);
        let store = place.open().unwrap();
        let tip = store.tip().unwrap();
        assert!(tip >= acknowledged && acknowledged > 0, "round {round}: {tip} of {acknowledged}");
        assert_eq!(tip % 7, 0, "a batch is whole or not there");
        drop(store);
        place.is_sound("at the end");
    }
}

/// Not a test by itself: in a process of its own, the first stores are all opened at one moment.
#[test]
fn crowd() {
    let Some(dir) = std::env::var_os(CROWD) else { return };
    let start = Barrier::new(4);
    thread::scope(|scope| {
        for n in 0..4 {
            let (path, start) = (Path::new(&dir).join(n.to_string()), &start);
            scope.spawn(move || {
                start.wait();
                SqliteStore::create(&path, &key()).unwrap();
            });
        }
    });
}

#[test]
fn stores_that_are_the_first_of_their_process_are_encrypted() {
    for round in 0..50 {
        let dir = tempfile::tempdir().unwrap();
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crowd", "--nocapture"])
            .env(CROWD, dir.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "round {round}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_transaction_that_was_never_committed_is_gone() {
    let place = Place::new();
    let mut store = place.create();
    store.commit(&[Op::OpenSegment(own(1))]).unwrap();
    store.commit(&writes(1, 2, "text")).unwrap();
    let raw = place.raw();
    raw.execute_batch("PRAGMA cache_size = 1; BEGIN; UPDATE feed SET at = 77; DELETE FROM change").unwrap();
    // The files as a power cut would leave them now.
    let copy = Place::new();
    for file in ["tuyen.db", "tuyen.db-wal"] {
        fs::copy(place.0.path().join(file), copy.0.path().join(file)).unwrap();
    }
    assert_eq!(copy.open().unwrap().tip().unwrap(), 2);
    copy.is_sound("in the copy");
    assert_eq!(copy.reader().record_rows(&record("Observation/1")).unwrap()[0].at, 1);
}

#[test]
fn readers_see_every_commit_and_stop_nobody() {
    let place = Place::new();
    let mut store = place.create();
    let reader = place.reader();
    store.commit(&[Op::OpenSegment(own(1))]).unwrap();
    store.commit(&writes(1, 4, "text")).unwrap();
    store
        .commit(&[
            projected("Observation/1", Some("{\"id\":\"1\"}"), "a", 0),
            projected("Observation/2", Some("{\"id\":\"2\"}"), "b", 2),
            projected("Observation/3", None, "c", 0),
            projected("Patient/9", Some("{\"id\":\"9\"}"), "d", 1),
            projected("ObservationX/1", Some("{}"), "e", 0),
        ])
        .unwrap();
    let counts = reader.counts().unwrap();
    assert_eq!((counts.live, counts.deleted, counts.unshown), (4, 1, 1));
    assert_eq!((counts.entries, counts.rows, counts.conflicted, counts.conflicts), (4, 4, 2, 3));

    let names =
        |listed: Vec<node::store::Listed>| listed.iter().map(|l| l.record.to_string()).collect::<Vec<_>>();
    let all = ["Observation/1", "Observation/2", "ObservationX/1", "Patient/9"];
    assert_eq!(names(reader.list(None, None, 9).unwrap()), all);
    assert_eq!(names(reader.list(Some("Observation"), None, 9).unwrap()), all[..2]);
    assert_eq!(names(reader.list(None, Some(&record("Observation/1")), 2).unwrap()), all[1..3]);
    assert_eq!(reader.conflicts(None, 9).unwrap().len(), 2);
    assert_eq!(reader.conflicts(Some(&record("Observation/2")), 9).unwrap()[0].record, record("Patient/9"));
    assert_eq!(reader.record(&record("Observation/3")).unwrap().unwrap().resource, None);
    assert!(reader.record(&record("Observation/4")).unwrap().is_none(), "not folded yet");

    let mut exported = Vec::new();
    let export = reader.export(None, |listed| {
        // The writer goes on while an export runs, and the export does not see it.
        let n = 10 + exported.len() as u64;
        store.commit(&[writes(n, 1, "more"), vec![projected("Zzz/1", Some("{}"), "f", 0)]].concat()).unwrap();
        exported.push(listed.record.to_string());
        true
    });
    export.unwrap();
    assert_eq!(exported, all);
    assert_eq!(reader.counts().unwrap().rows, 8);
    assert_eq!(store.tip().unwrap(), 8);
}

#[test]
fn what_came_from_the_parent_is_not_pending() {
    let place = Place::new();
    let mut store = place.create();
    let (parent, theirs) = (NodeId([8; 16]), Incarnation([9; 16]));
    let (announced, info) = announcement(parent, "tw/hg", theirs, None);
    let (home, name) = (org("dong-van"), record("Patient/1"));
    let from_above = entry(&name, &home, Lane::Normal, theirs, 1, &[], b"x");
    let position = |segment| Position { segment, pos: 3 };
    let from_below = entry(&name, &home, Lane::Normal, theirs, 2, &[], b"y");
    let batch = [
        vec![Op::OpenSegment(own(1)), Op::Announce(announced, info)],
        vec![Op::Append { entry: from_above, src: Some(position(theirs)), at: 50 }],
        vec![Op::Read {
            lane: Lane::Normal,
            cursor: Cursor { at: position(theirs), chain: None },
            brought: true,
        }],
        vec![Op::Append { entry: from_below, src: Some(position(Incarnation([7; 16]))), at: 60 }],
        vec![Op::Offer { of: 1, to: Offered::Home(org("meo-vac")) }],
        writes(1, 2, "text"),
    ];
    store.commit(&batch.concat()).unwrap();
    let reader = place.reader();
    let pending = reader.pending(Lane::Normal, 0, &[parent], Secrecy::None).unwrap();
    assert_eq!((pending.rows, pending.oldest), (3, Some(60)));
    let pending = reader.pending(Lane::Normal, 2, &[parent], Secrecy::None).unwrap();
    assert_eq!((pending.rows, pending.oldest), (2, Some(1)));
    assert_eq!(reader.pending(Lane::Normal, 0, &[], Secrecy::None).unwrap().rows, 4);
    assert_eq!(reader.pending(Lane::Urgent, 0, &[], Secrecy::None).unwrap(), node::store::Pending::default());
    let rows = reader.record_rows(&name).unwrap();
    assert_eq!(
        rows.iter().map(|row| (row.seq, row.at, row.src.is_some())).collect::<Vec<_>>(),
        [(1, 50, true), (2, 60, true)]
    );
    assert_eq!(rows[0].origin, theirs);
}

#[test]
fn a_setting_survives() {
    let place = Place::new();
    let mut store = place.create();
    store.set_setting("name", b"first").unwrap();
    store.set_setting("name", "Phòng khám".as_bytes()).unwrap();
    drop(store);
    let store = place.open().unwrap();
    assert_eq!(store.setting("name").unwrap().as_deref(), Some("Phòng khám".as_bytes()));
    assert_eq!(store.setting("other").unwrap(), None);
}

#[test]
fn a_checkpoint_empties_the_log() {
    let place = Place::new();
    let mut store = place.create();
    store.commit(&[Op::OpenSegment(own(1))]).unwrap();
    assert!(!store.checkpoint_due().unwrap());
    let body = "x".repeat(2_000);
    for n in 0..12 {
        store.commit(&writes(1 + n * 1_000, 1_000, &body)).unwrap();
    }
    assert!(store.checkpoint_due().unwrap(), "{:?}", store.log());
    let made = store.checkpoint().unwrap();
    assert_eq!(made.pages, made.done);
    assert!(!store.checkpoint_due().unwrap());
}

#[test]
fn a_scan_of_heads_reads_no_body() {
    let place = Place::new();
    drop(place.create());
    let raw = place.raw();
    let plan = |sql: &str| -> String {
        let mut statement = raw.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let rows = statement.query_map([], |row| row.get::<_, String>(3)).unwrap();
        rows.map(Result::unwrap).collect::<Vec<_>>().join("; ")
    };
    let heads = plan(
        "SELECT seq, record, home, src, src_pos, offers, offered_to FROM feed INDEXED BY feed_head
         WHERE lane = 1 AND seq > 5 ORDER BY seq LIMIT 9",
    );
    assert!(
        heads.contains("COVERING INDEX feed_head (lane=? AND seq>?)") && !heads.contains("TEMP"),
        "{heads}"
    );
    let counts = plan(
        "SELECT state, count(*), sum(open_conflicts > 0), sum(open_conflicts) FROM projection GROUP BY state",
    );
    assert!(counts.contains("COVERING INDEX projection_state") && !counts.contains("TEMP"), "{counts}");
}

#[test]
fn a_copy_is_of_one_moment_and_commits_go_on_beside_it() {
    let place = Place::new();
    let mut store = place.create();
    store.commit(&[Op::OpenSegment(own(1))]).unwrap();
    store.commit(&writes(1, 10_000, &"a patient's name ".repeat(60))).unwrap();
    let before = place.reader().counts().unwrap();
    let copy = place.0.path().join("copy.db");
    let (mut steps, mut next) = (0, 10_001);
    let copied = place.reader().copy_to(&copy, &key(), ("name", b"x"), |done, total| {
        steps += 1;
        assert!(done <= total && steps < 1_000, "it begins again and again: {done} of {total}");
        // A writer that had to wait for the copy would fail here after five seconds.
        store.commit(&writes(next, 100, "written meanwhile")).unwrap();
        next += 100;
        store.checkpoint().unwrap();
        true
    });
    let copied = copied.unwrap();
    assert!(steps > 3, "{steps} steps are too few for commits between them");
    assert_eq!((copied.counts, copied.layout), (before, node::store::VERSION));
    let mut opened = Reader::open(&copy, &key()).unwrap();
    assert_eq!(opened.counts().unwrap(), before);
    let checked = opened.integrity_check(|_, _| ()).unwrap();
    assert!(checked.is_sound(), "{:?}", checked.findings);
    assert!(place.reader().counts().unwrap().entries > before.entries + 300);
    place.is_sound("beside the copy");

    let half = place.0.path().join("half.db");
    let outcome = place.reader().copy_to(&half, &key(), ("name", b"x"), |_, _| false);
    assert!(matches!(outcome, Err(CopyError::Stopped)));
    let outcome = place.reader().copy_to(&copy, &key(), ("name", b"x"), |_, _| true);
    assert!(matches!(outcome, Err(CopyError::Open(OpenError::Io { .. }))), "nothing is overwritten");
}
