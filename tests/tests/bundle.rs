//! Two nodes that never meet over a network, and the sticks that are carried between them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use node::admin::{AttachmentLine, Attachments, Request, Synced};
use serde_json::{Value, json};
use sync_core::identity::Role;
use tempfile::TempDir;
use tuyen_tests::{
    cluster::{BackupKey, Node, org, wait_equal},
    run::{Ran, tuyen},
    sim::rng::Rng,
};

/// Nothing of it may be readable on a stick.
const CANARY: &str = "Sung Thi Canary 0987";

/// A centre and a clinic directly below it, which has been enrolled and has never synced.
struct Apart {
    centre: Node,
    clinic: Node,
    dir: TempDir,
}

fn enrolled(centre: &Node, dir: &Path, name: &str) -> Node {
    let invited = centre.invite(Role::Leaf, name);
    node::setup::enrol(dir, &invited.token, None).expect("a fresh token enrols");
    let mut clinic = Node::at(dir);
    clinic.configure(|config| config.paused = true);
    clinic.start();
    clinic
}

impl Apart {
    /// They know each other's certificates since the enrolment.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let centre = Node::root(&dir.path().join("centre"), "trung-uong");
        let clinic = enrolled(&centre, &dir.path().join("clinic"), "dong-van");
        Self { centre, clinic, dir }
    }

    fn met(self) -> Self {
        let card = self.path("card");
        bundle(&self.clinic, &["card", "--out", name(&card)]).expect(0);
        bundle(&self.centre, &["import", name(&card)]).expect(0);
        self.export_down("hello", &[]).import(&self.clinic).expect(0);
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn export_up(&self, name: &str, more: &[&str]) -> Stick {
        Stick::export(&self.clinic, "trung-uong", self.path(name), more)
    }

    fn export_down(&self, name: &str, more: &[&str]) -> Stick {
        Stick::export(&self.centre, "dong-van", self.path(name), more)
    }

    /// The clinic's entries that are not known to be durable above.
    fn not_safe(&self) -> (u64, u64) {
        let status = self.clinic.status();
        (status.not_at_hub.entries, status.not_at_root.entries)
    }
}

fn name(path: &Path) -> &str {
    path.to_str().expect("a test uses good names")
}

fn bundle(node: &Node, arguments: &[&str]) -> Ran {
    tuyen(&node.dir, &[&["bundle"], arguments, &["--json"]].concat(), b"")
}

/// Expects that a command failed so, and said these words.
#[track_caller]
fn fails(ran: Ran, code: i32, words: &[&str]) {
    let text = ran.expect(code).json()["error"]["text"].as_str().unwrap().to_owned();
    for word in words {
        assert!(text.contains(word), "{word:?} is not said: {text}");
    }
}

/// A file on a stick, and what was said when it was made.
struct Stick {
    path: PathBuf,
    said: Value,
}

impl Stick {
    fn export(node: &Node, to: &str, path: PathBuf, more: &[&str]) -> Self {
        let ran = bundle(node, &[&["export", "--for", to, "--out", name(&path)], more].concat()).expect(0);
        Self { path, said: ran.json() }
    }

    fn import(&self, node: &Node) -> Ran {
        bundle(node, &["import", name(&self.path)])
    }

    fn inspect(&self, node: &Node) -> Ran {
        bundle(node, &["inspect", name(&self.path)])
    }

    fn entries(&self) -> u64 {
        self.said["entries"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum()
    }

    /// The same with other bytes.
    fn changed(&self, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut bytes = fs::read(&self.path).unwrap();
        change(&mut bytes);
        let path =
            (0..).map(|n| self.path.with_extension(n.to_string())).find(|path| !path.exists()).unwrap();
        fs::write(&path, bytes).unwrap();
        Self { path, said: self.said.clone() }
    }
}

/// A document with a file, and the file.
fn document(id: &str, bytes: usize) -> (String, Vec<u8>) {
    let file = Rng::new(bytes as u64, id).bytes(bytes);
    let attachment = json!({"contentType": "application/pdf", "title": CANARY, "data": data_encoding::BASE64.encode(&file)});
    let document = json!({"resourceType": "DocumentReference", "id": id, "status": "current",
           "subject": {"reference": "Patient/p1"}, "content": [{"attachment": attachment}]});
    (document.to_string(), file)
}

fn attachment(node: &Node, name: &str) -> AttachmentLine {
    let request = Request::Attachments { record: Some(name.parse().unwrap()), after: None };
    node.ask::<Attachments>(&request).attachments.remove(0)
}

fn fetch(node: &Node, name: &str, out: &Path) -> Ran {
    let out = out.to_str().unwrap();
    tuyen(&node.dir, &["attachment", "fetch", name, "--patience", "1", "--out", out, "--json"], b"")
}

fn patient(id: &str) -> String {
    json!({"resourceType": "Patient", "id": id, "name": [{"text": CANARY}]}).to_string()
}

#[test]
fn two_nodes_that_never_meet_agree_by_sticks() {
    let apart = Apart::new();
    let Apart { centre, clinic, .. } = &apart;
    // Nobody of that name has ever shown a key.
    let known = ["between a node and its parent only", "the parent of this node is trung-uong"];
    for (node, words) in [(clinic, known), (centre, ["has never met", "tuyen bundle card"])] {
        let path = apart.path("none");
        let ran = bundle(node, &["export", "--for", "meo-vac", "--out", name(&path)]);
        fails(ran, 4, &words);
        assert!(!path.exists());
    }
    let apart = apart.met();
    let Apart { centre, clinic, .. } = &apart;

    clinic.put((1..=5).map(|n| patient(&format!("p{n}"))));
    let secret = json!({
        "resourceType": "Basic", "id": "s1",
        "meta": {"security": [{"system": "urn:tuyen:secrecy", "code": "mat"}]},
    });
    clinic.put([secret.to_string()]);
    assert_eq!(apart.not_safe(), (5, 5));
    let up = apart.export_up("up", &[]);
    assert_eq!((up.entries(), &up.said["secret_records_kept_back"]), (5, &json!(1)));
    assert_eq!(up.said["to"], "trung-uong");
    // A stick that is lost tells nobody anything.
    let bytes = fs::read(&up.path).unwrap();
    for secret in [CANARY, "Canary", "Patient", "dong-van", "trung-uong", "automerge"] {
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{secret}");
    }
    assert!(bytes.starts_with(b"tuyen-bundle\x01age-encryption.org/v1\n-> X25519 "));

    // It says what it is where it is for, and nothing clinical.
    let found = up.inspect(centre).expect(0);
    assert!(!found.out.contains("Canary"));
    let found = found.json();
    assert_eq!(
        (&found["sender"], &found["recipient"]),
        (&json!("trung-uong/dong-van"), &json!("trung-uong"))
    );
    assert_eq!((&found["entries"]["normal"], &found["imported"]), (&json!(5), &json!(false)));
    assert_eq!(found["from"], json!([]));

    // What is taken is told, and only a bundle the other way makes it safe.
    let taken = up.import(centre).expect(0).json();
    assert_eq!((&taken["new"], &taken["known"], &taken["gaps"]), (&json!(5), &json!(0), &json!([])));
    assert_eq!(up.inspect(centre).expect(0).json()["imported"], true);
    assert_eq!(apart.not_safe(), (5, 5));
    assert_eq!(centre.value("Patient/p3")["name"][0]["text"], CANARY);
    centre
        .try_ask::<node::admin::Resource>(&Request::Get { record: "Basic/s1".parse().unwrap() })
        .unwrap_err();
    let again = up.import(centre).expect(0).json();
    assert_eq!((&again["new"], &again["known"]), (&json!(0), &json!(5)));

    centre.edit("Patient/p1", "the centre", |patient| patient["gender"] = json!("female"));
    let down = apart.export_down("down", &[]);
    assert_eq!(down.entries(), 1, "what came from the clinic is not given back");
    down.import(clinic).expect(0);
    assert_eq!(apart.not_safe(), (0, 0));
    assert_eq!(clinic.value("Patient/p1")["gender"], "female");

    // The next one goes on there, also at other processes.
    let Apart { mut centre, mut clinic, dir } = apart;
    assert_eq!((centre.stop(), clinic.stop()), (Some(0), Some(0)));
    centre.start();
    clinic.start();
    let apart = Apart { centre, clinic, dir };
    apart.clinic.put([patient("p6")]);
    let next = apart.export_up("next", &[]);
    assert_eq!(next.entries(), 1);
    assert_eq!(next.import(&apart.centre).expect(0).json()["new"], 1);
    let down = apart.export_down("down2", &[]);
    assert_eq!(down.entries(), 0, "the clinic has said what it has");
    // An older one that comes late takes nothing back.
    down.import(&apart.clinic).expect(0);
    Stick { path: apart.path("down"), said: Value::Null }.import(&apart.clinic).expect(0);
    assert_eq!(apart.not_safe(), (0, 0));

    // At last there is a line: everything goes on from there.
    apart.clinic.put([patient("p7")]);
    apart.export_up("before-the-line", &[]).import(&apart.centre).expect(0);
    let _: Synced = apart.clinic.ask(&Request::SyncResume);
    apart.clinic.put([patient("p8")]);
    apart.clinic.wait_safe();
    let late = apart.export_up("beside-the-line", &["--since", "start"]);
    assert_eq!(late.entries(), 8);
    assert_eq!(late.import(&apart.centre).expect(0).json()["new"], 0);
    apart.clinic.put([patient("p9")]);
    apart.clinic.wait_safe();
    for n in 1..=9 {
        assert_eq!(apart.centre.value(&format!("Patient/p{n}"))["name"][0]["text"], CANARY);
    }
}

#[test]
fn a_feed_goes_on_several_sticks_in_any_order() {
    let apart = Apart::new().met();
    let Apart { centre, clinic, .. } = &apart;
    // Text that does not pack.
    let mut state = 1u64;
    let mut noise = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        format!("{:08x}", state >> 32)
    };
    let long = |n: u32, text: String| {
        json!({"resourceType": "Basic", "id": format!("b{n}"), "language": text}).to_string()
    };
    for n in 0..24 {
        clinic.put([long(n, (0..5_000).map(|_| noise()).collect())]);
    }
    let too_small = apart.path("tiny");
    let ran =
        bundle(clinic, &["export", "--for", "trung-uong", "--out", name(&too_small), "--max-bytes", "9kB"]);
    fails(ran, 2, &["nothing fits into 9000 bytes"]);
    assert!(!too_small.exists());

    let mut sticks = vec![apart.export_up("1", &["--max-bytes", "300kB"])];
    while sticks.last().unwrap().said["more"] == true {
        let name = (sticks.len() + 1).to_string();
        sticks.push(apart.export_up(&name, &["--since", "last", "--max-bytes", "300kB"]));
    }
    assert!(sticks.len() >= 2, "{}", sticks.len());
    assert_eq!(sticks.iter().map(Stick::entries).sum::<u64>(), 24);
    for stick in &sticks {
        assert!(fs::metadata(&stick.path).unwrap().len() <= 300_000);
    }
    // The last one comes first: its entries are kept, and not acknowledged.
    let last = sticks.len() - 1;
    let found = sticks[last].inspect(centre).expect(0).json();
    assert_eq!((&found["gaps"], &found["imported"]), (&json!(["normal"]), &json!(false)));
    let ran = sticks[last].import(centre).expect(5);
    assert_eq!(
        (&ran.json()["gaps"], &ran.json()["new"]),
        (&json!(["normal"]), &json!(sticks[last].entries()))
    );
    apart.export_down("early", &[]).import(clinic).expect(0);
    assert_eq!(apart.not_safe(), (24, 24));
    for stick in &sticks {
        stick.import(centre).expect(0);
    }
    apart.export_down("all", &[]).import(clinic).expect(0);
    assert_eq!(apart.not_safe(), (0, 0));
    wait_equal(&[centre, clinic], 24);
}

#[test]
fn files_go_by_stick_as_well_and_a_stick_brings_back_what_somebody_asks_for() {
    let apart = Apart::new().met();
    let Apart { centre, clinic, .. } = &apart;
    let (small, large) = (document("1", 20_000), document("2", 1_000_000));
    clinic.put([patient("p1"), small.0, large.0]);
    assert_eq!(attachment(clinic, "DocumentReference/2").safe, "local");

    // On several sticks, of which the last comes first.
    let mut sticks = vec![apart.export_up("1", &["--max-bytes", "450kB"])];
    while sticks.last().unwrap().said["more"] == true {
        let name = (sticks.len() + 1).to_string();
        sticks.push(apart.export_up(&name, &["--since", "last", "--max-bytes", "450kB"]));
    }
    let counts: Vec<_> = sticks.iter().map(|stick| stick.said["attachments"].as_u64().unwrap()).collect();
    assert_eq!((counts[0], &counts[1..]), (2, &vec![1; counts.len() - 1][..]));
    assert!(counts.len() > 2);
    let bytes: u64 = sticks.iter().map(|stick| stick.said["attachment_bytes"].as_u64().unwrap()).sum();
    assert_eq!(bytes, 1_020_000);
    for stick in &sticks {
        assert!(fs::metadata(&stick.path).unwrap().len() <= 450_000);
        let file = fs::read(&stick.path).unwrap();
        assert!(
            !file.windows(64).any(|window| window == &large.1[..64] || window == &large.1[999_900..999_964])
        );
    }
    // Of a record that is not here yet nothing can be kept; and it comes again.
    let last = sticks.len() - 1;
    let told = sticks[last].import(centre).expect(5).json();
    assert_eq!((&told["attachments"], &told["attachments_without_record"]), (&json!(0), &json!(1)));
    assert_eq!(sticks[last].inspect(centre).expect(0).json()["imported"], false);
    let taken: Vec<_> = sticks.iter().map(|stick| stick.import(centre).expect(0).json()).collect();
    let in_part: Vec<_> =
        taken.iter().map(|one| one["attachments_in_part"].as_u64().unwrap() as usize).collect();
    assert_eq!((in_part.iter().sum::<usize>(), in_part[last]), (last, 0));
    let whole: Vec<_> = taken.iter().map(|one| one["attachments"].clone()).collect();
    assert_eq!((whole[0] == json!(1), whole[last] == json!(1)), (true, true), "{whole:?}");
    assert!(whole[1..last].iter().all(|none| *none == json!(0)), "{whole:?}");
    assert_eq!(sticks[last].inspect(centre).expect(0).json()["imported"], true);
    for (name, file) in [("DocumentReference/1", &small.1), ("DocumentReference/2", &large.1)] {
        let out = apart.path("out");
        fetch(centre, name, &out).expect(0);
        assert!(fs::read(&out).unwrap() == *file);
        fs::remove_file(out).unwrap();
    }
    // It counts as safe when a stick has said so.
    assert_eq!(clinic.status().attachments.not_at_root, 2);
    let down = apart.export_down("down", &[]);
    assert_eq!(down.said["attachments"], 0);
    down.import(clinic).expect(0);
    assert_eq!(clinic.status().attachments.not_at_root, 0);
    assert_eq!(attachment(clinic, "DocumentReference/2").safe, "root");
    assert_eq!(apart.export_up("none", &[]).said["attachments"], 0);

    // What the centre writes about its people comes down, the file when somebody has asked for it.
    let (_, file) = document("3", 300_000);
    let mut edited = centre.value("DocumentReference/1");
    edited["content"] = json!([{"attachment": {"data": data_encoding::BASE64.encode(&file)}}]);
    centre.edit("DocumentReference/1", "the centre", |document| *document = edited);
    apart.export_down("edit", &[]).import(clinic).expect(0);
    let hash = |node: &Node| {
        let request =
            Request::Attachments { record: Some("DocumentReference/1".parse().unwrap()), after: None };
        let all = node.ask::<Attachments>(&request).attachments;
        let line = all.into_iter().find(|line| line.bytes == 300_000).unwrap();
        (line.hash.to_string(), line.here, line.safe)
    };
    let (named, here, safe) = hash(clinic);
    assert_eq!((here, safe.as_str()), (0, "away"));
    let out = apart.path("asked");
    let ask = ["attachment", "fetch", "DocumentReference/1", "--hash", &named, "--out", name(&out)];
    let asked = tuyen(&clinic.dir, &[&ask[..], &["--patience", "1", "--json"]].concat(), b"");
    fails(asked, 3, &["there is no link", "in each bundle"]);
    // The wish outlives a power cut, and the centre is another process as well.
    let Apart { centre, mut clinic, dir } = apart;
    clinic.kill();
    clinic.start();
    let apart = Apart { centre, clinic, dir };
    apart.export_up("asks", &[]).import(&apart.centre).expect(0);
    let Apart { mut centre, clinic, dir } = apart;
    assert_eq!(centre.stop(), Some(0));
    centre.start();
    let apart = Apart { centre, clinic, dir };
    let brings = apart.export_down("brings", &[]);
    assert_eq!((&brings.said["attachments"], &brings.said["attachment_bytes"]), (&json!(1), &json!(300_000)));
    assert_eq!(brings.import(&apart.clinic).expect(0).json()["attachments"], 1);
    tuyen(&apart.clinic.dir, &ask, b"").expect(0);
    assert!(fs::read(&out).unwrap() == file);
    // It has come from there, so it is there.
    assert_eq!(apart.clinic.status().attachments.not_at_root, 0);
}

#[test]
fn who_came_back_from_a_backup_agrees_anew_by_sticks_alone() {
    for clinic_is_put_back in [true, false] {
        let mut apart = Apart::new().met();
        let mut journeys = 0;
        let mut carries = |apart: &Apart| {
            journeys += 1;
            let up = apart.export_up(&format!("up-{journeys}"), &[]).import(&apart.centre);
            let down = apart.export_down(&format!("down-{journeys}"), &[]).import(&apart.clinic);
            [up, down].map(|ran| ran.json())
        };
        apart.clinic.put((1..=3).map(|n| patient(&format!("p{n}"))));
        carries(&apart);
        assert_eq!(apart.not_safe(), (0, 0));
        let (key, file) = (BackupKey::new(&apart.path("key")), apart.path("backup"));
        let one = if clinic_is_put_back { &apart.clinic } else { &apart.centre };
        one.back_up(&key, &file).expect(0);
        apart.clinic.put((4..=6).map(|n| patient(&format!("p{n}"))));
        carries(&apart);
        assert_eq!(apart.not_safe(), (0, 0));

        let one = if clinic_is_put_back { &mut apart.clinic } else { &mut apart.centre };
        one.kill();
        one.restore_backup(&key, &file).expect(0);
        one.start();
        assert_eq!(one.status().records, 3);
        apart.clinic.put([patient("p7")]);
        let mut said = Vec::new();
        let rounds = (1..=3).find(|_| {
            said.extend(carries(&apart));
            apart.not_safe() == (0, 0) && apart.centre.status().records == 7
        });
        assert!(rounds.is_some(), "{said:?}");
        wait_equal(&[&apart.centre, &apart.clinic], 7);
        assert!(said.iter().any(|said| said["older"] == true || said["lost"] == true), "{said:?}");
    }
}

#[test]
fn a_stick_that_is_not_right_is_refused_and_nothing_of_it_is_taken() {
    let apart = Apart::new().met();
    let Apart { centre, clinic, .. } = &apart;
    clinic.put([patient("p1")]);
    let up = apart.export_up("up", &[]);
    let length = fs::metadata(&up.path).unwrap().len() as usize;
    for (stick, code, words) in [
        (up.changed(|bytes| bytes.truncate(length - 1)), 6, "is cut off"),
        (up.changed(|bytes| bytes.truncate(length / 2)), 6, "is cut off"),
        (up.changed(|bytes| bytes.truncate(20)), 6, "is cut off"),
        (up.changed(|bytes| bytes.truncate(13)), 6, "is cut off"),
        (up.changed(|bytes| bytes.truncate(5)), 6, "is cut off"),
        (up.changed(Vec::clear), 1, "no bundle"),
        (up.changed(|bytes| bytes[0] = b'x'), 1, "no bundle"),
        (up.changed(|bytes| bytes[12] = 9), 1, "of format 9"),
        (up.changed(|bytes| bytes[length - 1] ^= 1), 6, "not as it was made"),
        (up.changed(|bytes| bytes[length / 2] ^= 1), 6, "not as it was made"),
        (up.changed(|bytes| bytes.push(0)), 6, "is cut off"),
        (up.changed(|bytes| bytes.extend(vec![0; 16 << 10])), 6, "not as it was made"),
        (up.changed(|bytes| bytes[13..].fill(b'\n')), 6, "not as it was made"),
    ] {
        for ran in [stick.inspect(centre), stick.import(centre)] {
            fails(ran, code, &[words, "Nothing was taken"]);
        }
    }
    // It is for the centre alone, and a clinic beside reads nothing of it, nor does its own sender.
    let beside = enrolled(centre, &apart.path("beside"), "meo-vac");
    for node in [&beside, clinic] {
        fails(up.import(node), 4, &["is not for this node", "Nothing was taken"]);
    }
    // Nor does a bundle go to another than the parent or a child.
    let none = apart.path("none");
    let ran = bundle(clinic, &["export", "--for", "meo-vac", "--out", name(&none)]);
    fails(ran, 4, &["between a node and its parent only", "the parent of this node is trung-uong"]);
    let card = apart.path("beside.card");
    bundle(&beside, &["card", "--out", name(&card)]).expect(0);
    fails(bundle(clinic, &["import", name(&card)]), 4, &["is no neighbour"]);

    // Another tree has other roots.
    let foreign = Node::root(&apart.path("foreign"), "bo-cong-an");
    let foreign_card = apart.path("foreign.card");
    bundle(&foreign, &["card", "--out", name(&foreign_card)]).expect(0);
    fails(bundle(centre, &["import", name(&foreign_card)]), 4, &["another tree", "Nothing was taken"]);
    // What became of a card on its way is told from the card of another tree.
    let whole = std::fs::read(&card).unwrap();
    for change in [
        |bytes: &mut Vec<u8>| bytes[200] ^= 1,
        |bytes: &mut Vec<u8>| bytes[200] = 0xff,
        |bytes: &mut Vec<u8>| bytes.truncate(300),
        |bytes: &mut Vec<u8>| bytes.extend(*b"more\n"),
    ] {
        let mut changed = whole.clone();
        change(&mut changed);
        std::fs::write(&card, changed).unwrap();
        fails(bundle(clinic, &["import", name(&card)]), 6, &["not as it was written", "Nothing was taken"]);
    }
    fails(up.import(&foreign), 4, &["is not for this node"]);

    // Whoever was revoked is not listened to, and no bundle is made for it.
    assert_eq!(centre.status().entries, 0);
    let revoke = Request::Revoke { org: org("dong-van"), reason: sync_core::identity::Reason::Lost };
    let _: node::admin::Revoked = centre.ask(&revoke);
    fails(up.import(centre), 4, &["was revoked", "Nothing was taken"]);
    let ran = bundle(centre, &["export", "--for", "dong-van", "--out", name(&none)]);
    fails(ran, 4, &["was revoked"]);
    assert_eq!(centre.status().entries, 0);
    assert!(!none.exists());
    // Nothing is left behind in the folder.
    let left = fs::read_dir(&centre.dir).unwrap().map(|file| file.unwrap().file_name());
    assert!(left.into_iter().all(|file| !file.to_string_lossy().contains("bundle")));
}

#[test]
fn a_node_that_is_killed_while_it_takes_a_bundle_has_lost_nothing() {
    let apart = Apart::new().met();
    apart.clinic.put((1..=400).map(|n| patient(&format!("p{n}"))));
    let up = apart.export_up("up", &[]);
    let Apart { mut centre, clinic, dir } = apart;
    let entries = centre.status().entries;
    std::thread::scope(|scope| {
        let importing = scope.spawn(|| tuyen(&centre.dir, &["bundle", "import", name(&up.path)], b""));
        while centre.status().entries == entries && !importing.is_finished() {}
        let pid = centre.pid().to_string();
        assert!(std::process::Command::new("kill").args(["-9", &pid]).status().unwrap().success());
        importing.join().unwrap();
    });
    centre.kill();
    centre.start();
    let taken = up.import(&centre).expect(0).json();
    let both = taken["new"].as_u64().unwrap() + taken["known"].as_u64().unwrap();
    assert_eq!(both, 400);
    let apart = Apart { centre, clinic, dir };
    apart.export_down("down", &[]).import(&apart.clinic).expect(0);
    assert_eq!(apart.not_safe(), (0, 0));
    wait_equal(&[&apart.centre, &apart.clinic], 400);
}
