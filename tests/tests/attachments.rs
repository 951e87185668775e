//! Files that are attached to records, with real processes and the commands that people use: they go up by themselves, come
//! down when somebody asks, go on where they stopped, and nobody waits behind them.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use data_encoding::BASE64;
use node::admin::{AttachmentLine, Attachments, Request, Written};
use serde_json::{Value, json, value::RawValue};
use sync_core::identity::Role;
use tuyen_tests::{
    cluster::{Country, Node, record},
    proxy::{Line, Proxy},
    run::{Ran, tuyen},
    sim::rng::Rng,
};

/// A photograph, or some pages.
const FILE_BYTES: usize = 3_000_000;

fn file(seed: u64, bytes: usize) -> Vec<u8> {
    Rng::new(seed, "a file").bytes(bytes)
}

fn document(id: &str, bytes: &[u8]) -> String {
    let attachment =
        json!({"contentType": "application/pdf", "title": "canary-4e1d", "data": BASE64.encode(bytes)});
    json!({"resourceType": "DocumentReference", "id": id, "status": "current",
           "subject": {"reference": "Patient/1"}, "content": [{"attachment": attachment}]})
    .to_string()
}

fn patient() -> String {
    json!({"resourceType": "Patient", "id": "1", "name": [{"text": "canary-4e1d"}]}).to_string()
}

/// Writes a resource as people do, from a file.
fn put(dir: &Path, node: &Node, resource: &str) -> Ran {
    let path = dir.join("put.json");
    fs::write(&path, resource).unwrap();
    tuyen(&node.dir, &["records", "put", path.to_str().unwrap(), "--json"], b"")
}

fn lines(node: &Node, name: &str) -> Vec<AttachmentLine> {
    let request = Request::Attachments { record: Some(record(name)), after: None };
    node.try_ask::<Attachments>(&request).map_or(Vec::new(), |all| all.attachments)
}

/// How many bytes of the one attachment of a record are at a node.
fn here(node: &Node, name: &str) -> u64 {
    lines(node, name).first().map_or(0, |line| line.here)
}

#[track_caller]
fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(90), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn fetch(dir: &Path, node: &Node, name: &str, more: &[&str]) -> (Ran, Option<Vec<u8>>) {
    let out = dir.join("fetched");
    let _ = fs::remove_file(&out);
    let arguments = ["attachment", "fetch", name, "--out", out.to_str().unwrap(), "--json"];
    let ran = tuyen(&node.dir, &[&arguments[..], more].concat(), b"");
    assert!(!out.with_extension("partial").exists());
    (ran, fs::read(&out).ok())
}

#[test]
fn a_file_goes_up_by_itself_and_comes_down_to_whom_it_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let mut country = Country::new();
    let province = country.root.child(&dir.path().join("tq"), Role::Hub, "tuyen-quang");
    let mut clinic = province.child(&dir.path().join("qb"), Role::Leaf, "quan-ba");
    let (bytes, name) = (file(1, FILE_BYTES), "DocumentReference/1");
    country.leaf.put([patient()]);
    put(dir.path(), &country.leaf, &document("1", &bytes)).expect(0);
    country.leaf.wait_safe();
    for node in [&country.root, &country.hub] {
        assert_eq!(node.status().attachments.here_bytes, FILE_BYTES as u64);
        assert_eq!(fetch(dir.path(), node, name, &[]).1.as_deref(), Some(&bytes[..]));
    }
    assert_eq!(lines(&country.leaf, name)[0].safe, "root");
    let listed = tuyen(&country.leaf.dir, &["attachment", "list", name, "--json"], b"").expect(0).json();
    assert_eq!((&listed["schema"], &listed["attachments"][0]["bytes"]), (&json!(1), &json!(FILE_BYTES)));
    // The record names it, and is small.
    let got = tuyen(&country.leaf.dir, &["records", "get", name], b"").expect(0);
    let got: Value = serde_json::from_str(&got.out).unwrap();
    let extension = &got["content"][0]["attachment"]["_data"]["extension"][0];
    assert_eq!(
        extension["extension"][0]["valueString"],
        json!(lines(&country.leaf, name)[0].hash.to_string())
    );
    assert_eq!(got["content"][0]["attachment"].get("data"), None);

    // Nothing of it is elsewhere, nor can it be asked for there.
    assert_eq!((province.status().records, clinic.status().records), (0, 0));
    fetch(dir.path(), &clinic, name, &[]).0.expect(1);
    let give = ["grant", "give", "Patient/1", "--to", "quan-ba", "--for", "30d", "--why", "referred"];
    tuyen(&country.leaf.dir, &give, b"").expect(0);
    wait_until("the record is at the clinic", || !lines(&clinic, name).is_empty());
    wait_until("the hub of the clinic has the file", || here(&province, name) == FILE_BYTES as u64);
    assert_eq!((here(&clinic, name), lines(&clinic, name)[0].safe.as_str()), (0, "away"));
    // An export says what it lacks, and has the file in its place where that is here.
    let export = |node: &Node| tuyen(&node.dir, &["records", "export"], b"");
    let lacks = export(&clinic).expect(5).says(&["1 attachment is not all here"]);
    assert!(lacks.out.contains("_data") && !lacks.out.contains("\"data\""));
    let (ran, fetched) = fetch(dir.path(), &clinic, name, &[]);
    let whole = export(&clinic).expect(0);
    let data = format!("\"data\":\"{}\"", BASE64.encode(&bytes));
    assert!(whole.out.contains(&data) && !whole.out.contains("_data"));
    assert_eq!(ran.expect(0).json()["attachment"]["here"], json!(FILE_BYTES));
    assert!(fetched.is_some_and(|fetched| fetched == bytes));
    // A file of that name is not written over.
    let out = dir.path().join("fetched");
    let again = ["attachment", "fetch", name, "--out", out.to_str().unwrap()];
    tuyen(&clinic.dir, &again, b"").expect(2);

    // When it is not open any more it is forgotten with its record.
    let grants = tuyen(&country.leaf.dir, &["grant", "list", "--json"], b"").expect(0).json();
    let grant = grants["grants"][0]["grant"].as_str().unwrap().to_owned();
    tuyen(&country.leaf.dir, &["grant", "end", &grant, "--why", "over"], b"").expect(0);
    wait_until("it is forgotten", || {
        clinic.status().attachments.here == 0 && lines(&clinic, name).is_empty()
    });
    wait_until("and at its hub", || province.status().attachments.here == 0);

    // A leaf may fetch by itself what is small enough; nobody else's files came meanwhile.
    clinic.stop();
    clinic.configure(|config| config.fetch_attachments_up_to = 100_000);
    clinic.start();
    put(dir.path(), &country.leaf, &document("2", &file(2, 100_000))).expect(0);
    put(dir.path(), &country.leaf, &document("3", &file(3, 100_001))).expect(0);
    tuyen(&country.leaf.dir, &give, b"").expect(0);
    wait_until("the small one comes", || here(&clinic, "DocumentReference/2") == 100_000);
    wait_until("the other is known", || lines(&clinic, "DocumentReference/3").len() == 1);
    assert_eq!(here(&clinic, "DocumentReference/3"), 0);

    // Without a line it is said that there is none; when there is one it comes by itself.
    tuyen(&clinic.dir, &["sync", "pause"], b"").expect(0);
    let (ran, none) = fetch(dir.path(), &clinic, "DocumentReference/3", &["--patience", "1"]);
    let text = ran.expect(3).json()["error"]["text"].as_str().unwrap().to_owned();
    assert!(text.contains("there is no link") && none.is_none(), "{text}");
    tuyen(&clinic.dir, &["sync", "resume"], b"").expect(0);
    wait_until("it comes", || here(&clinic, "DocumentReference/3") == 100_001);
    country.leaf.stop();
}

#[test]
fn killed_in_the_middle_it_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Node::root(&dir.path().join("hub"), "trung-uong");
    let slow = Line { bits_per_second: Some(2_000_000), ..Line::default() };
    let proxy = Proxy::to(hub.config().listen.unwrap(), slow, 1);
    let mut leaf = hub.child_through(Some(proxy.address), &dir.path().join("leaf"), Role::Leaf, "dong-van");
    let (bytes, name) = (file(1, FILE_BYTES), "DocumentReference/1");
    put(dir.path(), &leaf, &document("1", &bytes)).expect(0);
    for (part, who) in [(600_000, "hub"), (1_200_000, "leaf"), (1_800_000, "hub")] {
        wait_until("a part of it arrives", || here(&hub, name) > part);
        let killed = if who == "hub" { &mut hub } else { &mut leaf };
        killed.kill();
        killed.start();
        let there = here(&hub, name);
        // Less than one piece and one part that was under way may be lost.
        assert!((part - 100_000..FILE_BYTES as u64).contains(&there), "{there} after {part}");
        assert_ne!(leaf.status().attachments.not_at_root, 0, "it is not said to be safe");
    }
    let before = (here(&hub, name), hub.status().received_bytes);
    leaf.wait_safe();
    let received = hub.status().received_bytes - before.1;
    let rest = FILE_BYTES as u64 - before.0;
    assert!(received < rest + 200_000, "{received} bytes for the {rest} that were lacking");
    assert!(fetch(dir.path(), &hub, name, &[]).1.is_some_and(|fetched| fetched == bytes));
    let verified = tuyen(&hub.dir, &["verify", "--json"], b"").expect(0).json();
    assert_eq!(verified["findings"], json!([]));
}

#[test]
fn nobody_waits_behind_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Node::root(&dir.path().join("hub"), "trung-uong");
    let thin = Line { bits_per_second: Some(64_000), delay: Duration::from_millis(100), ..Line::default() };
    let proxy = Proxy::to(hub.config().listen.unwrap(), thin, 1);
    let leaf = hub.child_through(Some(proxy.address), &dir.path().join("leaf"), Role::Leaf, "dong-van");
    put(dir.path(), &leaf, &document("1", &file(1, FILE_BYTES))).expect(0);
    wait_until("the file is under way", || here(&hub, "DocumentReference/1") > 60_000);
    for n in 0..3 {
        let urgent = json!({"resourceType": "AllergyIntolerance", "id": n.to_string()}).to_string();
        let began = Instant::now();
        leaf.put([urgent]);
        let name = record(&format!("AllergyIntolerance/{n}"));
        wait_until("what is urgent arrives", || {
            hub.try_ask::<Value>(&Request::Get { record: name.clone() }).is_ok()
        });
        let took = began.elapsed();
        println!("an urgent record beside a file took {took:?}");
        assert!(took < Duration::from_secs(8), "{took:?}");
    }
    assert!(here(&hub, "DocumentReference/1") < FILE_BYTES as u64 / 2, "the file is still under way");
}

#[test]
fn a_record_keeps_its_file_when_it_is_edited_and_what_cannot_be_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut root = Node::root(&dir.path().join("root"), "trung-uong");
    let bytes = file(1, 200_000);
    put(dir.path(), &root, &document("1", &bytes)).expect(0);
    let mut got: Value = serde_json::from_str(
        &tuyen(&root.dir, &["records", "get", "DocumentReference/1"], b"").expect(0).out,
    )
    .unwrap();
    got["status"] = json!("superseded");
    put(dir.path(), &root, &got.to_string()).expect(0);
    assert!(fetch(dir.path(), &root, "DocumentReference/1", &[]).1.is_some_and(|fetched| fetched == bytes));
    // What was read is already so; the same data once more as well.
    assert_eq!(put(dir.path(), &root, &got.to_string()).expect(0).json()["unchanged"], json!(true));
    got["content"][0]["attachment"]["data"] = json!(BASE64.encode(&bytes));
    assert_eq!(put(dir.path(), &root, &got.to_string()).expect(0).json()["unchanged"], json!(true));
    // A second file in its place: the first stays, as all that was ever written.
    let second = file(2, 100_000);
    got["content"][0]["attachment"]["data"] = json!(BASE64.encode(&second));
    put(dir.path(), &root, &got.to_string()).expect(0);
    let all = lines(&root, "DocumentReference/1");
    assert_eq!(all.len(), 2);
    let text = fetch(dir.path(), &root, "DocumentReference/1", &[]).0.expect(2).json();
    assert!(text["error"]["text"].as_str().unwrap().contains("--hash"), "{text}");
    for (line, bytes) in all.iter().map(|line| (line, if line.bytes == 200_000 { &bytes } else { &second })) {
        let fetched = fetch(dir.path(), &root, "DocumentReference/1", &["--hash", &line.hash.to_string()]).1;
        assert!(fetched.is_some_and(|fetched| fetched == *bytes));
    }
    // A Binary, by an import, with an attachment of another record, and with what is no base64.
    let binary =
        |data: &str| json!({"resourceType": "Binary", "id": "b", "contentType": "image/png", "data": data});
    let import = dir.path().join("all.ndjson");
    let mut copied = got.clone();
    copied["id"] = json!("9");
    copied["content"][0]["attachment"] = json!({"_data": {"extension": [{"url": "https://tuyen.invalid/fhir/StructureDefinition/attachment",
        "extension": [{"url": "hash", "valueString": all[0].hash.to_string()}, {"url": "size", "valueUnsignedInt": all[0].bytes}]}]}});
    let records = [
        binary(&BASE64.encode(&bytes)).to_string(),
        copied.to_string(),
        binary(&"?".repeat(40_000)).to_string(),
    ];
    fs::write(&import, records.join("\n")).unwrap();
    let ran = tuyen(&root.dir, &["records", "import", import.to_str().unwrap(), "--json"], b"").expect(5);
    assert!(!ran.out.contains("????") && !ran.err.contains("????"));
    assert!(fetch(dir.path(), &root, "Binary/b", &[]).1.is_some_and(|fetched| fetched == bytes));
    let resources = records[1..].iter().map(|text| RawValue::from_string(text.clone()).unwrap()).collect();
    let written: Written = root.ask(&Request::Put { resources, base: None, by: None, why: None });
    let problems: Vec<_> = written.rejected.iter().map(|one| one.problem.as_str()).collect();
    assert!(ran.out.contains("Binary/b") && written.written.is_empty());
    assert!(
        problems[0].contains("does not have at this node") && problems[1].starts_with("data is not base64"),
        "{problems:?}"
    );
    root.stop();
    assert!(!root.log().contains("canary-4e1d"), "nothing clinical is in the log");
}

/// A parent that has content already asks nobody for it. Whoever comes to have it as well hears where it is all the same.
#[test]
fn who_has_a_file_that_is_above_already_hears_that_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let country = Country::new();
    let province = country.root.child(&dir.path().join("tq"), Role::Hub, "tuyen-quang");
    let second = country.hub.child(&dir.path().join("mv"), Role::Leaf, "meo-vac");
    let form = document("form", &file(8, 50_000));
    country.leaf.put([patient()]);
    for leaf in [&country.leaf, &second] {
        put(dir.path(), leaf, &form).expect(0);
        leaf.wait("its file is at the centre", |s| {
            s.attachments.not_at_root == 0 && s.not_at_root.entries == 0
        });
        tuyen(&leaf.dir, &["sync", "now", "--wait"], b"").expect(0);
    }
    // A hub that gains what is at the centre already.
    let address = province.config().listen.unwrap().to_string();
    let order =
        ["org", "move", "dong-van", "--to", "tuyen-quang", "--address", &address, "--effective", "now"];
    tuyen(&country.root.dir, &order, b"").expect(0);
    province.wait("it has gained the file", |_| here(&province, "DocumentReference/form") == 50_000);
    province.wait("and hears that it is above", |s| s.attachments.not_at_root == 0);
    country.leaf.wait("as does its clinic", |s| {
        s.attachments.not_at_root == 0 && s.up.as_ref().is_some_and(|up| up.state == "connected")
    });
}
