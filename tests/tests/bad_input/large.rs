//! A bundle that does not fit into the memory that a node may use.

use std::{
    fs,
    io::{BufRead, BufReader, BufWriter, Write},
    path::Path,
};

use node::admin::Status;
use sync_core::identity::Role;
use tuyen_tests::run::{peak_kib, tuyen};

use crate::before::{Before, DAEMON_MAX_KIB};

/// What `tuyen` may use while it reads a JSON file: the file, and little more.
const READER_MAX_KIB: u64 = 300 << 10;

/// Writes a bundle of so many bytes, in resources of so many.
fn bundle(path: &Path, bytes: usize, each: usize) -> u64 {
    let mut file = BufWriter::new(fs::File::create(path).unwrap());
    let mut state = 1_u64;
    let mut text = vec![0; each];
    file.write_all(br#"{"resourceType":"Bundle","type":"collection","entry":["#).unwrap();
    let count = bytes / each;
    for n in 0..count {
        for byte in &mut text {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte =
                b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[(state >> 58) as usize];
        }
        let comma = if n == 0 { "" } else { "," };
        write!(file, r#"{comma}{{"resource":{{"resourceType":"Binary","id":"b{n}","data":""#).unwrap();
        file.write_all(&text).unwrap();
        file.write_all(br#""}}"#).unwrap();
    }
    file.write_all(b"]}").unwrap();
    file.flush().unwrap();
    count as u64
}

#[test]
fn a_bundle_of_200_megabytes_is_taken_in_bounded_memory() {
    let before = Before::new();
    let path = before.dir.path().join("large.json");
    let count = bundle(&path, 200_000_000, 800_000);
    assert!(fs::metadata(&path).unwrap().len() > 200_000_000);
    let hub = before.node.child(&before.dir.path().join("hub"), Role::Hub, "ha-giang");
    let ran = tuyen(&hub.dir, &["records", "import", path.to_str().unwrap()], b"").expect(0);
    assert_eq!(hub.status().records, count);
    eprintln!("import of 200 MB: tuyen {} KiB, tuyend {} KiB", ran.peak_kib, peak_kib(hub.pid()));
    assert!(ran.peak_kib < READER_MAX_KIB, "tuyen had {} KiB", ran.peak_kib);
    hub.sync();
    let is_there = |s: &Status| s.records == count + 1 && s.unfolded + s.attachments.away == 0;
    let at_root = before.node.wait("folded, with what is attached", is_there);
    assert_eq!(at_root.waiting + at_root.unreadable, 0);
    let out = before.dir.path().join("out.ndjson");
    let exported = tuyen(&before.node.dir, &["records", "export", out.to_str().unwrap()], b"").expect(0);
    let lines = BufReader::new(fs::File::open(&out).unwrap()).lines();
    assert_eq!(lines.count() as u64, count + 1);
    let listed = tuyen(&before.node.dir, &["--json", "records", "list", "--all"], b"").expect(0);
    assert_eq!(listed.json()["records"].as_array().unwrap().len() as u64, count + 1);
    for (who, kib) in [
        ("the sender", peak_kib(hub.pid())),
        ("the receiver", peak_kib(before.node.pid())),
        ("the export", exported.peak_kib),
    ] {
        eprintln!("200 MB: {who} {kib} KiB");
        assert!(kib < DAEMON_MAX_KIB, "{who} had {kib} KiB");
    }
    // Beyond the limit it is refused before it is read.
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_len(3 << 30).unwrap();
    let ran = tuyen(&hub.dir, &["records", "import", path.to_str().unwrap()], b"").expect(1);
    let ran = ran.says(&["large.json: the file is larger than 256 MB; convert it to NDJSON"]);
    assert!(ran.peak_kib < READER_MAX_KIB, "tuyen had {} KiB", ran.peak_kib);
    assert_eq!(hub.status().records, count);
    before.is_still_there(&[&ran]);
}
