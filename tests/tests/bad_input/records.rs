//! Files, resources and requests that are not what they should be.

use std::{io::Write, os::unix::net::UnixStream, sync::Arc};

use node::{
    admin::{FailureKind, History, Request, Written},
    store::{Key, SqliteStore},
};
use serde_json::json;
use sync_core::{
    change::{Entry, opaque_chunk},
    id::{Lane, OrgId, RecordId},
    identity::Role,
    record::{Author, Record},
    store::{Op, Store, StoreMut},
    time::Stamp,
};
use tuyen_tests::{
    cluster::Node,
    run::{peak_kib, tuyen},
};

use crate::before::{Before, CANARY, DAEMON_MAX_KIB, get, put_request, stopped};

/// What the daemon says of a resource that it does not take.
#[track_caller]
fn rejected(node: &Node, resource: &str) -> String {
    let written: Written = node.ask(&put_request(resource));
    assert!(written.written.is_empty(), "{:?}", written.written);
    written.rejected.into_iter().next().expect("it is rejected").problem
}

fn patient(n: usize) -> String {
    format!(r#"{{"resourceType":"Patient","id":"p{n}","name":[{{"text":"{CANARY}"}}]}}"#)
}

#[test]
fn an_import_takes_the_good_and_names_the_bad() {
    let before = Before::new();
    let mut lines: Vec<String> = (1..=1000).map(patient).collect();
    lines[16] = format!(r#"{{"resourceType":"Patient","id":"p17","name":[{{"text":"{CANARY}""#);
    lines[499] = format!(r#"{{"id":"p500","name":[{{"text":"{CANARY}"}}]}}"#);
    lines[700] = patient(701).replace("Patient", "Pateint");
    lines[998] = format!(r#"{{"resourceType":"Patient","id":"{CANARY} 999"}}"#);
    let file = before.file("all.ndjson", lines.join("\n"));
    let ran = tuyen(&before.node.dir, &["records", "import", &file], b"").expect(5).says(&[
        "all.ndjson, line 17: it ends in the middle (line 17, column",
        "all.ndjson, line 500: its resourceType is missing",
        "all.ndjson, line 701 (Pateint/p701): FHIR R4 has no resource type of this name; correct",
        "all.ndjson, line 999: its id is not 1 to 128 of",
        "bring the whole file again",
        "add the resourceType",
        "give it an id that FHIR allows",
    ]);
    assert!(ran.out.contains("996 records written, 4 not taken"), "{ran:#?}");
    assert_eq!(before.node.status().records, 997);
    let again = tuyen(&before.node.dir, &["--json", "records", "import", &file], b"").expect(5);
    let said = again.json();
    assert_eq!((&said["schema"], &said["written"], &said["unchanged"]), (&1.into(), &0.into(), &996.into()));
    let places: Vec<_> =
        said["rejected"].as_array().unwrap().iter().map(|one| one["line"].as_u64()).collect();
    assert_eq!(places, [Some(17), Some(500), Some(701), Some(999)]);
    before.is_still_there(&[&ran, &again]);
}

#[test]
fn what_is_no_resource_is_refused_by_file() {
    let before = Before::new();
    let quoted = format!("\"{CANARY}\"");
    let cases: [(&str, Vec<u8>, &[&str]); 9] = [
        (
            "text.json",
            format!("Patient {CANARY}, born 1980").into(),
            &["text.json", "not valid JSON", "export it anew"],
        ),
        (
            "cut.json",
            patient(1).into_bytes()[..40].to_vec(),
            &["it ends in the middle (line 1, column 40)", "bring the whole file again"],
        ),
        ("value.json", quoted.into(), &["not a JSON object", "give one FHIR resource"]),
        (
            "no-type.json",
            format!(r#"{{"id":"a","note":"{CANARY}"}}"#).into(),
            &["resourceType is missing", "add"],
        ),
        (
            "type.json",
            format!(r#"{{"resourceType":"{CANARY}","id":"a"}}"#).into(),
            &["not the name of a FHIR"],
        ),
        (
            "id.json",
            format!(r#"{{"resourceType":"Basic","id":"{CANARY}_"}}"#).into(),
            &["its id is not 1 to 128"],
        ),
        ("utf8.json", [patient(1).as_bytes(), b"\xff\xfe\xc3"].concat(), &["not UTF-8", "save it as UTF-8"]),
        (
            "utf8.ndjson",
            b"{\"resourceType\":\"Patient\",\"id\":\"\xc3\x28\"}\n".to_vec(),
            &["line 1", "not UTF-8"],
        ),
        (
            "twice.json",
            format!(r#"{{"resourceType":"Basic","id":"a","note":"{CANARY}","note":"x"}}"#).into(),
            &["\"note\" stands twice", "which of the two is right"],
        ),
    ];
    for (name, content, words) in cases {
        let file = before.file(name, content);
        let import = tuyen(&before.node.dir, &["records", "import", &file], b"")
            .expect(if name == "utf8.json" { 5 } else { 1 });
        let put = tuyen(&before.node.dir, &["records", "put", &file], b"");
        let import = import.says(words);
        assert_ne!(put.code, Some(0), "{put:#?}");
        before.is_still_there(&[&import, &put]);
    }
    let missing = tuyen(&before.node.dir, &["records", "import", "/nowhere/x.json"], b"").expect(1);
    let missing = missing.says(&["/nowhere/x.json: it could not be read", "check that it exists"]);
    let deep = format!(r#"{{"resourceType":"Basic","id":"deep","x":{}1{}}}"#, "[".repeat(80), "]".repeat(80));
    let file = before.file("deep.json", &deep);
    let deep = tuyen(&before.node.dir, &["records", "put", &file], b"").expect(1).says(&["nested at most"]);
    before.is_still_there(&[&missing, &deep]);
}

#[test]
fn what_is_no_resource_is_refused_by_the_daemon_too() {
    let before = Before::new();
    let node = &before.node;
    let nested = |levels| {
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        format!(r#"{{"resourceType":"Basic","id":"deep","note":"{CANARY}","x":{open}1{close}}}"#)
    };
    let long = |bytes| {
        let text: String = (0..bytes).map(|n| char::from(b'a' + (n * 7 % 26) as u8)).collect();
        format!(r#"{{"resourceType":"Basic","id":"long","note":"{CANARY}","data":"{text}"}}"#)
    };
    let cases = [
        (format!("\"{CANARY}\""), "not a JSON object"),
        (format!(r#"{{"id":"a","note":"{CANARY}"}}"#), "resourceType is missing"),
        (format!(r#"{{"resourceType":"Basic","note":"{CANARY}"}}"#), "it has no id"),
        (format!(r#"{{"resourceType":"Basic","id":"{CANARY} 1"}}"#), "its id is not 1 to 128"),
        (format!(r#"{{"resourceType":"Basic","id":"a","{CANARY}":1,"{CANARY}":2}}"#), "a key stands twice"),
        (r#"{"resourceType":"Basic","id":"a","x":"\ud800"}"#.to_owned(), "half of a character"),
        (
            format!(r#"{{"resourceType":"Pateint","id":"a","note":"{CANARY}"}}"#),
            "FHIR R4 has no resource type",
        ),
        (nested(90), "nested at most 72 levels"),
        (nested(120), "nested deeper than 100 levels"),
        (nested(1_000_000), "nested deeper than 100 levels"),
        (long(1 << 20), "larger than the limit of 1048576; keep large files apart"),
        (long(4 << 20), "keep large files apart"),
    ];
    for (resource, words) in cases {
        let problem = rejected(node, &resource);
        assert!(problem.contains(words) && !problem.contains("Canary"), "{words:?}: {problem}");
    }
    // Strange is not bad.
    for name in ["", ".", "#state", "a.b[c]", "x\\u0000y", "tên"] {
        let strange = format!(r#"{{"resourceType":"Basic","id":"strange","{name}":"{CANARY}"}}"#);
        node.put([strange.clone()]);
        assert_eq!(get(node, "Basic/strange"), strange);
    }
    let Err(large) = node.try_ask::<Written>(&put_request(&long(65 << 20))) else { panic!("taken") };
    assert_eq!(large.kind, FailureKind::Usage);
    assert!(large.text.contains("longer than 64 MB and nothing of it was done"), "{large}");
    assert!(peak_kib(node.pid()) < DAEMON_MAX_KIB, "{} KiB", peak_kib(node.pid()));
    before.is_still_there(&[]);
}

/// Another node may know a later version of FHIR. What comes from there is taken, and edited like any other record.
#[test]
fn a_type_that_r4_does_not_have_is_refused_of_who_writes_and_not_of_a_neighbour() {
    let before = Before::new();
    let mut hub = before.node.child(&before.dir.path().join("hub"), Role::Hub, "ha-giang");
    let resource = |name: &str| json!({"resourceType": "ActorDefinition", "id": "a", "name": name});
    assert!(rejected(&hub, &resource("x").to_string()).contains("correct the resourceType"));
    let list = |node: &Node| tuyen(&node.dir, &["records", "list", "--type", "ActorDefinition"], b"");
    list(&hub).expect(2).says(&["FHIR R4 has no resource type 'ActorDefinition'"]);
    hub.put([r#"{"resourceType":"Basic","id":"own"}"#.to_owned()]);
    assert_eq!(hub.stop(), Some(0));
    let key = Key::read(&hub.dir.join("store.key")).unwrap();
    let mut store = SqliteStore::open(&hub.dir.join("records.db"), &key).unwrap();
    let run = store.segments().unwrap().last().expect("it has written").incarnation;
    let (id, home): (RecordId, _) = ("ActorDefinition/a".parse().unwrap(), OrgId::new("ha-giang").unwrap());
    let author = Author { incarnation: run, wall: 1, by: None, software: "test", why: None };
    let change = Record::new(id.clone()).put(&resource("x"), None, &author).unwrap().unwrap();
    let entry = Entry::new(id.clone(), home.clone(), Lane::Normal, change.bytes.into()).unwrap();
    store.commit(&[Op::AddHome(id, home), Op::Append { entry, src: None, at: 0 }]).unwrap();
    drop(store);
    hub.start();
    before.node.wait("it comes", |s| s.records == 3 && s.unfolded == 0);
    before.node.write(&resource("y"), None, "bs. Lan");
    assert_eq!(before.node.value("ActorDefinition/a"), resource("y"));
    assert!(list(&before.node).expect(0).out.starts_with("ActorDefinition/a "));
    before.is_still_there(&[]);
}

#[test]
fn what_is_no_request_is_answered_and_repeats_nothing() {
    let before = Before::new();
    let lines = [
        format!("{CANARY}\n").into_bytes(),
        format!("{{\"put\":{{\"resources\":\"{CANARY}\"}}}}\n").into_bytes(),
        format!("{{\"{CANARY}\":1}}\n").into_bytes(),
        b"{\"get\":{\"record\":\"\xff\"}}\n".to_vec(),
        [&vec![b'x'; 70 << 20][..], b"\n"].concat(),
    ];
    for line in lines {
        let mut socket = UnixStream::connect(before.node.dir.join("admin.sock")).unwrap();
        socket.write_all(&line).unwrap();
        socket.write_all(b"\"status\"\n").unwrap();
        let mut answers = std::io::BufRead::lines(std::io::BufReader::new(socket));
        let refused = answers.next().unwrap().unwrap();
        assert!(refused.contains(r#"{"failed":{"kind":"usage""#) && !refused.contains("Canary"), "{refused}");
        assert!(answers.next().unwrap().unwrap().contains(r#"{"done":"#), "the next request is answered");
    }
    assert!(peak_kib(before.node.pid()) < DAEMON_MAX_KIB, "{} KiB", peak_kib(before.node.pid()));
    before.is_still_there(&[]);
}

#[test]
fn a_name_that_comes_twice_is_an_edit() {
    let before = Before::new();
    let version = |gender: &str| format!(r#"{{"resourceType":"Patient","id":"twice","gender":"{gender}"}}"#);
    let other = r#"{"resourceType":"Basic","id":"other"}"#.to_owned();
    let file = before.file("twice.ndjson", [version("male"), other, version("female")].join("\n"));
    let ran = tuyen(&before.node.dir, &["records", "import", &file], b"").expect(0);
    assert!(ran.out.contains("3 records written"), "{ran:#?}");
    assert_eq!(get(&before.node, "Patient/twice"), version("female"), "the last one stands");
    let history: History = before.node.ask(&Request::History { record: "Patient/twice".parse().unwrap() });
    assert_eq!(history.changes.len(), 2, "the first one is in the history");
    before.node.put([version("other"), version("unknown")]);
    assert_eq!(get(&before.node, "Patient/twice"), version("unknown"), "in one request too");
    assert_eq!(before.node.status().conflicts, 0);
    before.is_still_there(&[&ran]);
}

#[test]
fn numbers_keep_their_spelling_all_the_way() {
    let before = Before::new();
    let hub = before.node.child(&before.dir.path().join("hub"), Role::Hub, "ha-giang");
    let numbers = "[1e400,-1E400,1e-400,0.10,80.00,-0,12345678901234567890123456789,1E+05,5e-324]";
    let resource = format!(
        r#"{{"resourceType":"Observation","id":"n","valueQuantity":{{"value":1e400}},"x":{numbers}}}"#
    );
    let file = before.file("numbers.json", &resource);
    tuyen(&hub.dir, &["records", "put", &file], b"").expect(0);
    hub.sync();
    before.node.wait("folded", |s| s.records == 2 && s.unfolded == 0);
    for node in [&hub, &before.node] {
        let shown = tuyen(&node.dir, &["--json", "records", "get", "Observation/n"], b"").expect(0);
        assert_eq!(shown.out.trim_end(), resource);
        let exported = tuyen(&node.dir, &["records", "export"], b"").expect(0);
        assert!(exported.out.lines().any(|line| line == resource), "{}", exported.out);
    }
    for number in ["1e", ".5", "01", "+1", "NaN", "Infinity", "0x10", "1_000"] {
        let wrong = format!(r#"{{"resourceType":"Observation","id":"w","valueInteger":{number}}}"#);
        let ran = tuyen(&hub.dir, &["records", "put", "-"], wrong.as_bytes()).expect(1);
        ran.says(&["not valid JSON"]);
    }
    before.is_still_there(&[]);
}

#[test]
fn changes_that_cannot_be_shown_are_kept_and_named() {
    let mut before = stopped();
    let key = Key::read(&before.path("store.key")).unwrap();
    let mut store = SqliteStore::open(&before.path("records.db"), &key).unwrap();
    let run = store.segments().unwrap().last().expect("it has written").incarnation;
    let append = |record: &str, change: Arc<[u8]>| {
        let (record, home): (RecordId, _) = (record.parse().unwrap(), OrgId::new("trung-uong").unwrap());
        let entry = Entry::new(record.clone(), home.clone(), Lane::Normal, change).unwrap();
        [Op::AddHome(record, home), Op::Append { entry, src: None, at: 0 }]
    };
    let opaque = |n: u64| opaque_chunk(run, n, &[], Stamp(1), CANARY.as_bytes());
    let mut early = Record::new("Basic/early".parse().unwrap());
    let author = Author { incarnation: run, wall: 1, by: None, software: "test", why: None };
    let edits = [json!({"code": {"text": CANARY}}), json!({"code": {"text": "B"}})];
    let [_, second] = edits.map(|resource| early.put(&resource, None, &author).unwrap().unwrap());
    let all = [
        append("Basic/broken", opaque(7)),
        append("Basic/early", second.bytes.into()),
        append("Patient/before", opaque(8)),
    ];
    store.commit(&all.concat()).unwrap();
    drop(store);
    before.node.start();
    let status = before.node.wait("folded", |s| s.unfolded == 0);
    assert_eq!((status.records, status.unreadable, status.waiting), (1, 2, 1), "{status:?}");
    let run = |arguments: &[&str], code| tuyen(&before.node.dir, arguments, b"").expect(code);
    let listed = run(&["--json", "records", "list", "--unread"], 0);
    let names: Vec<_> =
        listed.json()["records"].as_array().unwrap().iter().map(|r| r["record"].to_string()).collect();
    assert_eq!(names, [r#""Basic/broken""#, r#""Basic/early""#, r#""Patient/before""#]);
    let shown = run(&["records", "list", "--unread"], 0);
    assert_eq!(
        (shown.out.matches("unreadable").count(), shown.out.matches("deleted").count()),
        (2, 0),
        "{shown:#?}"
    );
    let history = run(&["records", "history", "Patient/before"], 0);
    assert_eq!(
        history.out.matches("NOT SHOWN: a change of Patient/before is not").count(),
        1,
        "{history:#?}"
    );
    let waits = run(&["records", "history", "Basic/early"], 0);
    assert!(waits.out.contains("NOT SHOWN: it waits for earlier changes"), "{waits:#?}");
    let check = run(&["status", "--check"], 5);
    assert!(check.out.contains("records list --unread"), "{check:#?}");
    before.is_still_there(&[&listed, &history, &waits, &check]);
}
