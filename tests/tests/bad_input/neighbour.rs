//! Neighbours whose certificate is good and whose bytes are not.

use std::{net::SocketAddr, path::PathBuf};

use node::admin::Status;
use sync_core::{
    change::{Entry, opaque_chunk},
    codec::Writer,
    engine::refusal,
    id::{Incarnation, Lane, OrgId},
    identity::Role,
    time::Stamp,
    wire::{EntryBatch, FRAME_MAX_BYTES, Frame, UNPACKED_MAX_BYTES},
};
use tuyen_tests::{cluster::Node, intruder::Intruder, run::peak_kib};

use crate::before::{Before, CANARY, DAEMON_MAX_KIB};

/// A root, and a folder that is enrolled below it without a daemon of its own.
fn with_enrolled() -> (Before, PathBuf, SocketAddr) {
    let before = Before::new();
    let folder = before.dir.path().join("bad");
    let token = before.node.invite(Role::Leaf, "bad-leaf").token;
    node::setup::enrol(&folder, &token, None).unwrap();
    let address = before.node.status().listen.unwrap().parse().unwrap();
    (before, folder, address)
}

/// The bytes of a batch frame whose packed part is `packed` and is said to unpack to `raw_len` bytes.
fn batch_frame(packed: &[u8], raw_len: u64) -> Vec<u8> {
    let mut body = Writer::default();
    body.u8(6).u8(Lane::Bulk as u8).raw(&[0xbb; 16]).varint(0).u8(0).varint(1).raw(&[0xbb; 16]).raw(&[0; 16]);
    body.u8(1).varint(raw_len).bytes(packed);
    let mut frame = Writer::default();
    frame.bytes(&body.0);
    frame.0
}

#[test]
fn a_frame_that_lies_about_its_size_ends_the_link() {
    let (before, folder, address) = with_enrolled();
    let node = &before.node;
    let zeros = |bytes| zstd::bulk::compress(&vec![0; bytes], 3).unwrap();
    let bomb = zeros(500 << 20);
    assert!(bomb.len() < 64 << 10, "{} bytes become 500 MB", bomb.len());
    let mut four_gigabytes = Writer::default();
    four_gigabytes.varint(u64::from(u32::MAX)).u8(6);
    let mut most = Writer::default();
    most.varint(u64::MAX);
    let cases = [
        (batch_frame(&bomb, 500 << 20), "the unpacked batch is larger than the limit"),
        (batch_frame(&bomb, UNPACKED_MAX_BYTES), "not a zstd frame of the size that it gives"),
        (batch_frame(&bomb, 1), "not a zstd frame of the size that it gives"),
        (batch_frame(&zeros(1 << 20), 1 << 20), "malformed"),
        (batch_frame(CANARY.as_bytes(), 100), "not a zstd frame"),
        (four_gigabytes.0, "the frame is larger than the limit"),
        (most.0, "the frame is larger than the limit"),
        (vec![0xff; 64], "has a value that this version does not know"),
        (vec![1, 99], "unknown frame type 99"),
        (vec![0], "the bytes end in the middle of"),
        ([&[32, 1][..], CANARY.as_bytes(), CANARY.as_bytes()].concat(), "malformed frame"),
    ];
    for (bytes, words) in cases {
        for stream in ["control", "lane"] {
            let intruder = Intruder::connect(&folder, address);
            if stream == "control" {
                intruder.control(&bytes);
            } else {
                intruder.hello();
                intruder.lane(Lane::Bulk, [&bytes[..]]);
            }
            let (code, text) = intruder.ended();
            assert_eq!(code, refusal::PROTOCOL, "{text}");
            assert!(text.contains(words), "{words:?} on a {stream} stream: {text}");
            assert!(text.contains("the neighbour's software or its store is damaged"), "{text}");
            let known = |s: &Status| s.alerts.iter().any(|a| a.code == "refused" && a.text.contains(words));
            node.wait("an alert", known);
        }
    }
    assert!(peak_kib(node.pid()) < DAEMON_MAX_KIB, "{} KiB", peak_kib(node.pid()));
    before.is_still_there(&[]);
    let mut good = Node::at(&folder);
    good.start();
    good.put([r#"{"resourceType":"Basic","id":"good"}"#.to_owned()]);
    good.sync();
    node.wait("the good node's record", |s| s.records == 3);
}

/// Frames whose every byte is allowed, each of which unpacks to two megabytes and waits for an announcement.
#[test]
fn many_batches_that_each_unpack_to_the_limit_stay_bounded() {
    let (before, folder, address) = with_enrolled();
    let origin = Incarnation([0xbb; 16]);
    let body = vec![0; (1 << 20) - 200];
    let entry = |n: u64| {
        let chunk = opaque_chunk(origin, n + 1, &[], Stamp(1), &body);
        let record = format!("Binary/{n}").parse().unwrap();
        (n + 1, Entry::new(record, OrgId::new("bad-leaf").unwrap(), Lane::Bulk, chunk).unwrap())
    };
    let entries = vec![entry(0), entry(1)];
    let batch = EntryBatch { lane: Lane::Bulk, segment: origin, after: 0, upto: None, origin, entries };
    let frame = Frame::Batch(batch).encode();
    assert!((frame.len() as u64) < FRAME_MAX_BYTES / 100, "{} bytes become two megabytes", frame.len());
    let intruder = Intruder::connect(&folder, address);
    intruder.hello();
    let sent = intruder.lane(Lane::Bulk, std::iter::repeat_n(&frame[..], 2_000));
    let (code, text) = intruder.ended();
    eprintln!("{sent} bytes were taken; {} KiB; {text}", peak_kib(before.node.pid()));
    assert_eq!(code, refusal::PROTOCOL);
    assert!(text.contains("sends more than it may before it is acknowledged"), "{text}");
    assert!(peak_kib(before.node.pid()) < DAEMON_MAX_KIB, "{} KiB", peak_kib(before.node.pid()));
    before.is_still_there(&[]);
}
