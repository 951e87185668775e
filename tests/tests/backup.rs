//! Backups with the programs as they are installed: what a backup holds, who can read it, what is left when something
//! ends in the middle, and what is said of a file that is none. Restored nodes among their neighbours: `restore.rs`.

use std::{
    cell::Cell,
    collections::BTreeSet,
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use node::{
    admin::{Client, Failure, Request, Status, Written},
    backup::{self, BackupError, PrivateKey, Recipients, STORE_COPY, Scratch, Stopped},
    config::Config,
    fhir::population::Population,
    store::{Key, Reader},
};
use rusqlite::Connection;
use serde_json::{Value, value::RawValue};
use tempfile::TempDir;
use tuyen_tests::{
    cluster::{BackupKey, Node, org, program, wait_for},
    run::{Ran, tuyen},
};

/// What records of these tests hold, and nothing outside of a store may show.
const CANARY: &str = "Nguyen-Canary-7391";
/// What every SQLite file begins with that is not encrypted.
const PLAIN: &str = "SQLite format 3";
/// How long something may take that ends by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running root with some records, and a key.
struct Place {
    node: Node,
    key: BackupKey,
    dir: TempDir,
}

impl Place {
    fn new(records: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::root(&dir.path().join("root"), "trung-uong");
        let key = BackupKey::new(&dir.path().join("province.key"));
        let place = Self { node, key, dir };
        for chunk in resources(1, records).chunks(1_000) {
            place.node.put(chunk.to_vec());
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn back_up(&self, name: &str) -> PathBuf {
        self.node.back_up(&self.key, &self.path(name)).expect(0);
        self.path(name)
    }

    /// What there is in the folder above the node's, and in the node's, but for what belongs there.
    fn left(&self) -> Vec<String> {
        let belongs = |name: &str| {
            [
                "root",
                "province.key",
                "config.json",
                "identity",
                "store.key",
                "tuyend.lock",
                "tuyend.log",
                "admin.sock",
            ]
            .contains(&name)
                || (name.starts_with("records.db") && !name.contains("partial"))
        };
        let mut left = names(self.dir.path());
        left.extend(names(&self.node.dir));
        left.retain(|name| !belongs(name));
        left
    }

    fn verify(&self, file: &Path) -> Ran {
        self.verify_with(file, &self.key.path)
    }

    fn verify_with(&self, file: &Path, key: &Path) -> Ran {
        tuyen(Path::new("/nowhere"), &["backup", "verify", text(file), "--key", text(key)], b"")
    }

    fn restore(&self, file: &Path, dir: &Path) -> Ran {
        tuyen(dir, &["backup", "restore", text(file), "--key", text(&self.key.path)], b"")
    }

    fn start_create(&self, out: &Path) -> Child {
        Command::new(program("tuyen"))
            .arg("--dir")
            .arg(&self.node.dir)
            .args(["backup", "create", "--to", &self.key.public, "--out", text(out)])
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Records of patients, each of about a kilobyte, with the canary in it.
fn resources(seed: u64, count: usize) -> Vec<String> {
    let mut resources: Vec<_> =
        Population::records(seed, &org("trung-uong"), count).map(|record| record.to_string()).collect();
    for resource in &mut resources {
        resource.insert_str(1, &format!("\"language\":\"{CANARY}\","));
    }
    resources
}

fn record_names(texts: &[String]) -> BTreeSet<String> {
    let name = |text: &String| {
        let value: Value = serde_json::from_str(text).unwrap();
        format!("{}/{}", value["resourceType"].as_str().unwrap(), value["id"].as_str().unwrap())
    };
    texts.iter().map(name).collect()
}

/// Whether the bytes stand in one of the files below a folder.
fn holds(dir: &Path, word: &[u8]) -> Option<PathBuf> {
    for entry in fs::read_dir(dir).ok()?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            if let Some(found) = holds(&path, word) {
                return Some(found);
            }
        } else if contains(&fs::read(&path).unwrap_or_default(), word) {
            return Some(path);
        }
    }
    None
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

#[track_caller]
fn wait_until(what: &str, wish: impl Fn() -> bool) {
    let began = Instant::now();
    while !wish() {
        assert!(began.elapsed() < PATIENCE, "{what}: it never came");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn the_transcript_of_the_manual() {
    let place = Place::new(300);
    let key = place.path("second.key");
    let made = tuyen(Path::new("/nowhere"), &["backup", "keygen", "--out", text(&key)], b"").expect(0);
    assert!(made.out.starts_with("age1") && made.err.contains("Keep it"), "{made:#?}");
    assert_eq!(mode(&key), 0o600);
    let public = made.out.trim();
    tuyen(Path::new("/nowhere"), &["backup", "keygen", "--out", text(&key)], b"")
        .expect(2)
        .says(&["exists already"]);
    let status = tuyen(&place.node.dir, &["status"], b"").expect(0);
    assert!(status.out.contains("none was made yet"), "{}", status.out);

    let file = place.path("root-2026-11-28.tuyen-backup");
    let create = ["backup", "create", "--to", public, "--to", &place.key.public, "--out", text(&file)];
    let created = tuyen(&place.node.dir, &create, b"").expect(0);
    for words in ["trung-uong (root)", "300 records", "tuyen backup verify"] {
        assert!(created.out.contains(words), "{words}: {}", created.out);
    }
    assert_eq!(mode(&file), 0o600);
    let status = tuyen(&place.node.dir, &["status"], b"").expect(0);
    assert!(status.out.contains("the last was made just now"), "{}", status.out);
    let status = tuyen(&place.node.dir, &["status", "--json"], b"").expect(0).json();
    assert!(status["last_backup"].as_str().unwrap().ends_with('Z'), "{status}");
    tuyen(&place.node.dir, &create, b"").expect(2).says(&["exists already"]);

    for key in [&key, &place.key.path] {
        let verified = place.verify_with(&file, key).expect(0);
        for words in ["trung-uong (root)", "300 records", "just now", "every entry of the store"] {
            assert!(verified.out.contains(words), "{words}: {}", verified.out);
        }
    }
    let secret = fs::read(&key).unwrap();
    let arguments = ["backup", "verify", text(&file), "--key", "-", "--json"];
    let verified = tuyen(Path::new("/nowhere"), &arguments, &secret).expect(0).json();
    assert_eq!((&verified["schema"], &verified["records"]), (&1.into(), &300.into()), "{verified}");
    assert_eq!(verified["node"], place.node.status().node.to_string());
    assert!(place.left().iter().all(|name| name.ends_with(".key") || name.ends_with(".tuyen-backup")));

    let Status { digest, last_backup: made_at, .. } = place.node.status();
    let mut old = place;
    assert_eq!(old.node.stop(), Some(0));
    let dir = old.path("again");
    fs::create_dir(&dir).unwrap();
    let restored = old.restore(&file, &dir).expect(0);
    for words in
        ["old machine stays off", "Its children dial", "tuyend --dir", "comes back from its neighbours"]
    {
        assert!(restored.out.contains(words), "{words}: {}", restored.out);
    }
    assert_eq!(names(&dir), ["config.json", "identity", "records.db", "store.key"]);
    for (path, wanted) in [("", 0o700), ("identity", 0o700), ("records.db", 0o600), ("config.json", 0o600)] {
        assert_eq!(mode(&dir.join(path)), wanted, "{path}");
    }
    for name in names(&dir.join("identity")) {
        assert_eq!(mode(&dir.join("identity").join(&name)), 0o600, "{name}");
    }
    let mut again = Node::at(&dir);
    again.start();
    assert_eq!((again.status().digest, again.status().records), (digest, 300));
    let last_backup = again.status().last_backup;
    assert_eq!((last_backup, last_backup.is_some()), (made_at, true), "it is the one that it came from");
    again.put([r#"{"resourceType":"Basic","id":"after"}"#.to_owned()]);
}

#[test]
fn a_backup_during_an_import_holds_all_that_was_acknowledged_before() {
    let mut place = Place::new(2_000);
    let (stop, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
    let all = resources(2, 30_000);
    let file = place.path("during");
    let (before, during) = std::thread::scope(|scope| {
        let (node, stop, acknowledged, all) = (&place.node, &stop, &acknowledged, &all);
        let import = scope.spawn(move || {
            let mut client = Client::connect(&node.dir).unwrap();
            for one in all.chunks(50) {
                let raw = |text: &String| RawValue::from_string(text.clone()).unwrap();
                let resources = one.iter().map(raw).collect();
                let request = Request::Put { resources, base: None, by: None, why: None };
                let written: Written = client.call(&request, |_| {}).unwrap();
                assert!(written.rejected.is_empty());
                acknowledged.fetch_add(one.len() as u64, Ordering::SeqCst);
                if stop.load(Ordering::SeqCst) {
                    return;
                }
            }
            panic!("the import ended before the backup");
        });
        let count = || acknowledged.load(Ordering::SeqCst);
        wait_until("the import", || count() >= 1_000);
        let before = count();
        node.back_up(&place.key, &file).expect(0);
        let during = count() - before;
        stop.store(true, Ordering::SeqCst);
        import.join().unwrap();
        (before, during)
    });
    assert!(during > 0, "the import went on meanwhile");
    let verified = place.verify(&file).expect(0);
    assert!(verified.out.contains("All of it was read and checked"), "{verified:#?}");

    place.node.kill();
    place.node.restore_backup(&place.key, &file).expect(0);
    let key = Key::read(&place.node.dir.join("store.key")).unwrap();
    let mut reader = Reader::open(&place.node.dir.join("records.db"), &key).unwrap();
    let checked = reader.integrity_check(|_, _| ()).unwrap();
    assert!(checked.is_sound(), "{:?}", checked.findings);
    drop(reader);
    place.node.start();
    wait_for("folded", &[&place.node], |all| all[0].unfolded == 0);
    let there = record_names(&place.node.export());
    let mut promised = record_names(&all[..before as usize]);
    promised.extend(record_names(&resources(1, 2_000)));
    let lost: Vec<_> = promised.difference(&there).collect();
    assert!(lost.is_empty(), "{} of {} are lost", lost.len(), promised.len());
    assert!(there.len() < 32_000, "it is of its moment");
}

/// Looks at every file of some folders each time something moves on.
fn watch<'a>(
    folders: &'a [&'a Path],
    words: &'a [Vec<u8>],
    seen: &'a Cell<u64>,
) -> impl FnMut(node::admin::Progress) -> Result<(), BackupError> + 'a {
    move |_| {
        for folder in folders {
            seen.set(seen.get() + u64::from(fs::read_dir(folder).is_ok_and(|mut all| all.next().is_some())));
            for word in words {
                let found = holds(folder, word);
                assert!(found.is_none(), "{found:?} holds {:?}", String::from_utf8_lossy(word));
            }
        }
        Ok(())
    }
}

#[test]
fn nothing_of_a_record_is_readable_in_a_backup_nor_in_what_lies_beside_it() {
    let mut place = Place::new(500);
    assert_eq!(place.node.stop(), Some(0));
    assert!(place.node.dir.join("records.db").exists());
    let seen = Cell::new(0);
    let words = [CANARY.as_bytes().to_vec(), PLAIN.as_bytes().to_vec()];
    let copy = place.node.dir.join(STORE_COPY);
    let to = Recipients::new(std::slice::from_ref(&place.key.public)).unwrap();
    let mut file = Vec::new();
    let stopped = Stopped::open(&place.node.dir).unwrap();
    stopped.make(&to, &mut file, &mut watch(&[&copy], &words, &seen)).unwrap();
    drop(stopped);
    assert!(seen.replace(0) > 5, "the copy was seen");
    let secret = fs::read(place.node.dir.join("store.key")).unwrap();
    let own = fs::read_to_string(place.node.dir.join("identity/node.key")).unwrap();
    let mut words = words.to_vec();
    words.push(secret.trim_ascii().to_vec());
    words.push(own.lines().nth(1).unwrap().as_bytes().to_vec());
    for word in words.iter().map(Vec::as_slice).chain([&b"trung-uong"[..], b"127.0.0.1"]) {
        assert!(!contains(&file, word), "{:?}", String::from_utf8_lossy(word));
    }
    assert!(!copy.exists());

    let path = place.path("file");
    fs::write(&path, &file).unwrap();
    let key = PrivateKey::read(&place.key.path).unwrap();
    let check = backup::check_scratch(&path);
    let scratch = Scratch::take(&check).unwrap();
    assert_eq!(mode(&check), 0o700);
    backup::verify(&path, &key, &scratch, &mut watch(&[&check], &words, &seen)).unwrap();
    assert!(seen.replace(0) > 5, "the store was seen");
    drop(scratch);
    assert!(!check.exists());

    // A restore writes keys at its end, when all else is there; until then it is as a check.
    let dir = place.path("dv2");
    let partial = backup::restore_scratch(&dir).unwrap();
    let scratch = Scratch::take(&partial).unwrap();
    backup::restore(&path, &key, scratch, &dir, &mut watch(&[&partial], &words, &seen)).unwrap();
    assert!(seen.get() > 5, "the store was seen");
    assert!(holds(&dir, CANARY.as_bytes()).is_none() && holds(&dir, PLAIN.as_bytes()).is_none());
    let log = place.node.log();
    assert!(!log.contains("Canary") && !log.contains("SECRET"), "{log}");
}

/// Waits until the copy of the store is being made. The daemon is many times as long at it.
fn copy_is_being_made(place: &Place) -> PathBuf {
    let copy = place.node.dir.join(STORE_COPY);
    wait_until("a copy of the store", || copy.join("records.db").exists());
    copy
}

#[test]
fn a_daemon_that_is_killed_leaves_nothing_after_its_next_start() {
    let mut place = Place::new(20_000);
    let out = place.path("out");
    let mut create = place.start_create(&out);
    let copy = copy_is_being_made(&place);
    signal(place.node.pid(), "-9");
    assert_eq!(create.wait().unwrap().code(), Some(3));
    place.node.kill();
    assert!(copy.exists(), "a killed process cannot tidy up");
    assert_eq!(place.left(), ["backup.partial"], "the command has");
    place.node.start();
    assert_eq!(place.left(), Vec::<String>::new());
    assert_eq!(place.node.status().last_backup, None);
    place.back_up("out");

    let mut create = place.start_create(&place.path("second"));
    copy_is_being_made(&place);
    assert_eq!(place.node.stop(), Some(0), "nobody waits for a backup");
    assert!(matches!(create.wait().unwrap().code(), Some(1 | 3)));
    place.node.start();
    assert_eq!(place.left(), ["out"]);
}

#[test]
fn a_command_that_is_killed_leaves_nothing_of_the_node_and_no_file_of_that_name() {
    let mut place = Place::new(20_000);
    let out = place.path("out");
    let mut create = place.start_create(&out);
    let copy = copy_is_being_made(&place);
    signal(create.id(), "-9");
    create.wait().unwrap();
    wait_until("the daemon tidies up", || !copy.exists());
    assert_eq!(place.left(), ["out.partial"]);
    assert_eq!(place.node.status().last_backup, None);
    place.back_up("out");
    assert_eq!(place.left(), ["out"], "the next one takes it over");

    let mut create = place.start_create(&place.path("second"));
    copy_is_being_made(&place);
    signal(create.id(), "-TERM");
    assert_eq!(create.wait().unwrap().code(), Some(130));
    wait_until("the daemon tidies up", || !copy.exists());
    assert_eq!(place.left(), ["out"]);

    // Without a daemon the command does it all.
    assert_eq!(place.node.stop(), Some(0));
    let mut create = place.start_create(&place.path("third"));
    copy_is_being_made(&place);
    signal(create.id(), "-9");
    create.wait().unwrap();
    assert_eq!(place.left(), ["out", "third.partial", "backup.partial"]);
    place.node.start();
    assert_eq!(place.left(), ["out", "third.partial"]);
    assert_eq!(place.node.stop(), Some(0));
    let mut create = place.start_create(&place.path("third"));
    copy_is_being_made(&place);
    signal(create.id(), "-TERM");
    assert_eq!(create.wait().unwrap().code(), Some(130));
    assert_eq!(place.left(), ["out"]);
    place.node.back_up(&place.key, &place.path("third")).expect(0);
    place.node.start();
    assert!(place.node.status().last_backup.is_some());
    assert_eq!(place.left(), ["out", "third"]);
}

#[test]
fn a_check_that_is_interrupted_leaves_nothing() {
    let place = Place::new(20_000);
    let file = place.back_up("file");
    for (arguments, beside) in [
        (["--dir", "/nowhere", "backup", "verify"], backup::check_scratch(&file)),
        (["--dir", text(&place.path("dv2")), "backup", "restore"], place.path("dv2.partial")),
    ] {
        for (name, code) in [("-TERM", Some(130)), ("-9", None)] {
            let mut command = Command::new(program("tuyen"));
            command.args(arguments).args([text(&file), "--key", text(&place.key.path)]).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            wait_until("the store", || beside.join("records.db").exists());
            signal(child.id(), name);
            assert_eq!(child.wait().unwrap().code(), code);
            assert_eq!(beside.exists(), code.is_none(), "{name}");
        }
    }
    assert!(!place.path("dv2").exists());
    place.verify(&file).expect(0);
    place.restore(&file, &place.path("dv2")).expect(0);
    assert_eq!(place.left(), ["dv2", "file"], "the next ones take over what was left");
}

#[test]
fn one_backup_is_made_at_a_time() {
    let place = Place::new(20_000);
    let request = || Request::Backup { to: vec![place.key.public.clone()] };
    let mut second = None;
    let mut client = Client::connect(&place.node.dir).unwrap();
    // Whoever takes nothing holds it up: no more than some pieces wait in memory.
    let keep = |_: &[u8]| {
        second.get_or_insert_with(|| place.node.try_ask::<Value>(&request()));
        Ok(())
    };
    let _: Value = client.receive(&request(), |_| {}, keep).unwrap();
    let refused: Result<Value, Failure> = second.unwrap();
    assert!(refused.unwrap_err().text.contains("being made already"));
    // The connection is good for more, and so is the daemon.
    let kept: Value = client.call(&Request::Status, |_| {}).unwrap();
    assert_eq!(kept["last_backup"], Value::Null, "nobody said that it was kept");
    place.back_up("file");
    let bad = client.call::<Value>(&Request::Backup { to: vec!["age1nobody".to_owned()] }, |_| {});
    assert!(bad.unwrap_err().text.contains("is no public key"));
    let bad = client.call::<Value>(&Request::Backup { to: Vec::new() }, |_| {});
    assert!(bad.is_err());
}

#[test]
fn every_file_that_is_no_good_has_a_line_of_its_own_and_leaves_nothing() {
    let place = Place::new(200);
    let file = place.back_up("good");
    let good = fs::read(&file).unwrap();
    let stranger = BackupKey::new(&place.path("stranger.key"));
    let age = |content: &[u8]| {
        let to: age::x25519::Recipient = place.key.public.parse().unwrap();
        age::encrypt(&to, content).unwrap()
    };
    let flipped = |at: usize| {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        bad
    };
    let (cut, damaged) = ("is cut off: it has", "is damaged: ");
    let half = good.len() / 2;
    let lines: Vec<(Vec<u8>, i32, Vec<&str>)> = vec![
        (good[..half].to_vec(), 6, vec![cut, "bytes of", "copy it again from where it was made"]),
        (good[..good.len() - 1].to_vec(), 6, vec![cut, "bytes of"]),
        (good[..30_000].to_vec(), 6, vec![cut, "it has 30000 bytes;"]),
        (good[..100].to_vec(), 6, vec![cut]),
        (Vec::new(), 6, vec![cut, "it has 0 bytes;"]),
        ([&good[..], b"more"].concat(), 6, vec![damaged, "something behind its end"]),
        (flipped(half), 6, vec![damaged, "use another copy of it"]),
        (flipped(good.len() - 1), 6, vec![damaged]),
        (flipped(30_000), 6, vec![damaged]),
        (age(b"a letter to somebody"), 2, vec!["is no backup of a Tuyến node", "check the name"]),
        (b"PK\x03\x04 some archive".to_vec(), 2, vec!["is no backup of a Tuyến node"]),
        (age(b"tuyen-backup\0\0\0\x02...."), 1, vec!["has backup format 2", "install the version"]),
        (age(b"tuyen-backup\0\0\0\x01\0\0\0\x02{}"), 6, vec![damaged, "ends within its manifest"]),
    ];
    let bad = place.path("bad");
    let dir = place.path("dv2");
    for (content, code, mut words) in lines {
        fs::write(&bad, &content).unwrap();
        words.push("/bad");
        for ran in [place.verify(&bad), place.restore(&bad, &dir)] {
            let ran = ran.expect(code).says(&words);
            assert_eq!(ran.err.lines().count(), 1, "{ran:#?}");
        }
        assert_eq!(place.left(), ["bad", "good", "stranger.key"]);
    }
    let other = place.verify_with(&file, &stranger.path).expect(2);
    other.says(&["was not made for the key in", "stranger.key", "use the private key"]);
    let json = ["backup", "verify", text(&bad), "--key", text(&place.key.path), "--json"];
    let json = tuyen(Path::new("/nowhere"), &json, b"").expect(6).json();
    assert_eq!(json["error"]["kind"], "integrity");

    for (name, content, words) in [
        ("empty.key", "", "holds no private key for backups"),
        ("public.key", &*place.key.public, "holds no private key for backups"),
        ("missing.key", "", "cannot read"),
    ] {
        let path = place.path(name);
        if !name.starts_with("missing") {
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        place.verify_with(&file, &path).says(&[words, name]);
    }
    fs::set_permissions(&stranger.path, fs::Permissions::from_mode(0o644)).unwrap();
    place.verify_with(&file, &stranger.path).expect(2).says(&["read by other users", "chmod 600", "--key -"]);
    place.verify(&place.path("nothing")).expect(1).says(&["cannot read", "nothing"]);
    place.verify(&place.path("root")).expect(2).says(&["is no backup"]);
}

#[test]
fn a_store_that_was_damaged_when_it_was_backed_up_is_told() {
    let mut place = Place::new(300);
    assert_eq!(place.node.stop(), Some(0));
    let key = fs::read_to_string(place.node.dir.join("store.key")).unwrap();
    let conn = Connection::open(place.node.dir.join("records.db")).unwrap();
    let key = format!("PRAGMA key = \"x'{}'\"; PRAGMA cipher_page_size = 8192", key.trim());
    conn.execute_batch(&key).unwrap();
    conn.execute("UPDATE feed SET chain = zeroblob(16) WHERE seq = 7", []).unwrap();
    drop(conn);
    let file = place.back_up("file");
    let words = [
        "is whole, but the store in it is damaged",
        "row 7",
        "its running hash is wrong",
        "use an older backup",
    ];
    place.verify(&file).expect(6).says(&words);
    place.restore(&file, &place.path("dv2")).expect(6).says(&words);
    assert_eq!(place.left(), ["file"]);
}

#[test]
fn a_node_that_is_not_whole_gives_no_backup() {
    let mut place = Place::new(10);
    fs::remove_file(place.node.dir.join("identity/ca.key")).unwrap();
    let ran = place.node.back_up(&place.key, &place.path("file")).expect(6);
    assert!(ran.json()["error"]["text"].as_str().unwrap().contains("identity/ca.key is missing"), "{ran:#?}");
    assert_eq!(place.left(), Vec::<String>::new());
    assert_eq!(place.node.stop(), Some(0));
    let elsewhere =
        tuyen(&place.path("x"), &["backup", "create", "--to", &place.key.public, "--out", "y"], b"");
    elsewhere.expect(4).says(&["is not a node's folder"]);
    let to = ["backup", "create", "--to", "AGE-SECRET-KEY-1QQQ", "--out", "y"];
    let secret = tuyen(&place.node.dir, &to, b"").expect(2).says(&["a private key is no public key"]);
    assert!(!secret.err.contains("QQQ"));
    let busy = fs::File::create(place.path("z.partial")).unwrap();
    busy.lock().unwrap();
    let out = place.path("z");
    let to = ["backup", "create", "--to", &place.key.public, "--out", text(&out)];
    tuyen(&place.node.dir, &to, b"").expect(1).says(&["another command is working on", "z.partial"]);
    // A daemon that does not answer, or is starting, is none that is stopped.
    let lock = fs::File::create(place.node.dir.join("tuyend.lock")).unwrap();
    lock.lock().unwrap();
    drop(busy);
    tuyen(&place.node.dir, &to, b"").expect(1).says(&["a daemon already runs on"]);
    assert_eq!(place.left(), Vec::<String>::new());
}

#[test]
fn a_restore_takes_no_place_that_holds_anything() {
    let place = Place::new(50);
    let file = place.back_up("file");
    let dir = place.path("dv2");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("letters.txt"), "dear").unwrap();
    place.restore(&file, &dir).expect(2).says(&["is not empty"]);
    place.restore(&file, &place.node.dir).expect(2).says(&["is not empty"]);
    place.restore(&file, &file).expect(1).says(&["cannot look at"]);
    place.restore(&file, Path::new("/")).expect(2).says(&["has no name of its own"]);
    fs::remove_file(dir.join("letters.txt")).unwrap();
    let partial = place.path("dv2.partial");
    fs::create_dir(&partial).unwrap();
    fs::write(partial.join("letters.txt"), "dear").unwrap();
    place.restore(&file, &dir).expect(2).says(&["dv2.partial is in the way", "move it away"]);
    assert_eq!(names(&partial), ["letters.txt"]);
    fs::remove_file(partial.join("letters.txt")).unwrap();
    fs::write(partial.join("records.db-wal"), "of a killed command").unwrap();
    place.restore(&file, &dir).expect(0);
    assert_eq!(place.left(), ["dv2", "file"]);
    let long = place.path(&"a-long-name".repeat(9));
    place.restore(&file, &long).expect(2).says(&["the system allows 107 for a socket"]);
    assert!(!long.exists());
}

#[test]
fn settings_of_the_old_machine_are_kept_or_told() {
    let mut place = Place::new(50);
    assert_eq!(place.node.stop(), Some(0));
    let credential = place.path("credential");
    fs::rename(place.node.dir.join("store.key"), &credential).unwrap();
    let path = place.node.dir.join("config.json");
    let mut settings: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    settings["store_key"] = text(&credential).into();
    settings["paused"] = true.into();
    fs::write(&path, settings.to_string()).unwrap();
    place.node.start();
    // The daemon has read the key at its start, and needs the file no more.
    let secret = fs::read(&credential).unwrap();
    fs::remove_file(&credential).unwrap();
    let file = place.back_up("file");
    assert_eq!(place.node.stop(), Some(0));
    let dir = place.path("dv2");
    let restored = place.restore(&file, &dir).expect(0);
    for words in [
        "is now in",
        "store.key: move it again",
        "The settings are those of then",
        "What was marked secret here after 20",
        "is open again",
        "\"paused\": true in config.json",
        "Syncing was paused",
        "sync resume",
        text(&credential),
    ] {
        assert!(restored.out.contains(words), "{words}: {}", restored.out);
    }
    assert_eq!(fs::read(dir.join("store.key")).unwrap(), secret);
    let now: Value = serde_json::from_slice(&fs::read(dir.join("config.json")).unwrap()).unwrap();
    assert_eq!(now["store_key"], Value::Null);
    let config = Config::load(&dir).unwrap();
    assert!(config.paused && config.listen == place.node.config().listen);
    let mut node = Node::at(&dir);
    node.start();
    assert_eq!(node.status().records, 50);
    assert!(node.status().paused);
}

#[test]
fn the_time_that_a_node_had_from_its_tree_comes_with_it() {
    let mut place = Place::new(10);
    assert_eq!(place.node.stop(), Some(0));
    let known = place.node.dir.join("identity/last-known-good");
    let before: i64 = fs::read_to_string(&known).unwrap().trim().parse().unwrap();
    let later = before + 86_400_000;
    fs::write(&known, later.to_string()).unwrap();
    place.node.start();
    // What the daemon knows counts, not the file, which it writes when it ends.
    fs::remove_file(&known).unwrap();
    let file = place.back_up("file");
    place.restore(&file, &place.path("dv2")).expect(0);
    let restored = fs::read_to_string(place.path("dv2/identity/last-known-good")).unwrap();
    assert_eq!(restored.trim(), later.to_string());
    place.node.kill();
    fs::write(&known, "\0\0").unwrap();
    let file = place.back_up("second");
    place.restore(&file, &place.path("dv3")).expect(0);
    assert!(Path::exists(&place.path("dv3/records.db")), "a node starts without it");
}

/// A small disk of its own, while it lasts. None when this user may not mount.
struct Disk(PathBuf);

impl Disk {
    fn small(path: &Path, kib: u32) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let size = format!("size={kib}k");
        let ran = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path).output();
        ran.is_ok_and(|ran| ran.status.success()).then(|| Self(path.to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_disk_that_is_too_small_gets_no_half_backup_and_the_node_goes_on() {
    let mut place = Place::new(2_000);
    let Some(disk) = Disk::small(&place.path("disk"), 1 << 10) else {
        eprintln!("NOT TESTED: a full disk, because this user may not mount; run the tests as root");
        return;
    };
    let out = disk.0.join("out");
    let ran = place.node.back_up(&place.key, &out).expect(1);
    let text = ran.json()["error"]["text"].as_str().unwrap().to_owned();
    assert!(text.contains("cannot write") && text.contains("out.partial"), "{text}");
    assert!(names(&disk.0).is_empty());
    let file = place.back_up("file");
    fs::copy(&file, place.path("copy")).unwrap();
    place.restore(&file, &disk.0.join("dv2")).expect(1).says(&["cannot write", "records.db"]);
    assert!(names(&disk.0).is_empty());
    drop(disk);

    let disk = Disk::small(&place.path("home"), 60 << 10).unwrap();
    assert_eq!(place.node.stop(), Some(0));
    assert!(Command::new("cp").arg("-a").arg(&place.node.dir).arg(&disk.0).status().unwrap().success());
    let mut node = Node::at(&disk.0.join("root"));
    node.start();
    let ran = node.back_up(&place.key, &place.path("out")).expect(1);
    let text = ran.json()["error"]["text"].as_str().unwrap().to_owned();
    assert!(text.contains("the copy of the store takes") && text.contains("make room"), "{text}");
    node.put([r#"{"resourceType":"Basic","id":"after"}"#.to_owned()]);
    assert!(!node.dir.join(STORE_COPY).exists() && !place.path("out").exists());
}

#[test]
fn what_comes_through_standard_input_and_is_no_key_is_told() {
    let place = Place::new(10);
    let file = place.back_up("file");
    let mut child = Command::new(program("tuyen"))
        .args(["backup", "verify", text(&file), "--key", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"no key").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("standard input holds no private key"), "{said}");
}
