//! Golden vectors: every frame byte by byte, as `docs/PROTOCOL.md` gives it. A change here is a change of the
//! protocol. The packed part of a batch depends on the dictionary and on zstd, so a batch is given as what stands
//! before it and what it unpacks to.

use super::*;
use crate::{
    attachment::{Attachment, CONTENT_MAX_BYTES, PIECE_BYTES},
    audit::Part,
    change::opaque_chunk,
    id::NodeId,
    identity::{Reason, Serial},
    order::{Order, Step},
    time::Stamp,
};

fn at(segment: u8, pos: u64) -> Position {
    Position { segment: Incarnation([segment; 16]), pos }
}

fn cursor(segment: u8, pos: u64, chain: u8) -> Cursor {
    Cursor { at: at(segment, pos), chain: Some(Chain([chain; 16])) }
}

fn entry(seq: u64) -> Entry {
    let chunk = opaque_chunk(Incarnation([3; 16]), seq, &[], Stamp(-1), b"body");
    let home = OrgId::new("dong-van").unwrap();
    Entry::new("Patient/8f21".parse().unwrap(), home, Lane::Normal, chunk).unwrap()
}

fn batch_of_two() -> EntryBatch {
    EntryBatch {
        lane: Lane::Normal,
        segment: Incarnation([1; 16]),
        after: 6,
        upto: Some((300, Chain([9; 16]))),
        origin: Incarnation([3; 16]),
        entries: vec![(7, entry(1)), (300, entry(2))],
    }
}

/// A batch of two, up to its dictionary: type, lane, segment, after, upto with its hash, number, origin, digest.
const BATCH_HEADER: &str = "\
    0601010101010101010101010101010101010601ac0209090909090909090909090909090909020303030303 \
    0303030303030303030303689ae10597553a12186c0c0f76d11213";
/// What it unpacks to: for each entry the step from the position before, its header, its change.
const BATCH_UNPACKED: &str = "\
    070c50617469656e742f3866323108646f6e672d76616e010023856f4a831a9b679201190010030303030303 \
    0303030303030303030301017f626f6479a5020c50617469656e742f3866323108646f6e672d76616e010023 \
    856f4a8333970a1a011900100303030303030303030303030303030302017f626f6479";

/// One of each type, with its bytes.
fn golden() -> Vec<(Frame, &'static str)> {
    let hello = Hello {
        run: Incarnation([1; 16]),
        software: "tuyen 0.1".to_owned(),
        tip: Some(at(2, 300)),
        cursors: vec![
            (Lane::Urgent, cursor(4, 5, 6)),
            (Lane::Normal, cursor(4, 7, 8)),
            (Lane::Bulk, cursor(4, 5, 6)),
        ],
        revocations: 0x0102_0304_0506_0708,
        allows: Secrecy::ToiMat,
    };
    let nothing =
        Hello { tip: None, cursors: Vec::new(), revocations: 0, allows: Secrecy::None, ..hello.clone() };
    let announcement = Announcement {
        incarnation: Incarnation([1; 16]),
        parent: Some((Incarnation([2; 16]), 77)),
        node: NodeId([3; 16]),
        signature: vec![4; 3],
        chain: vec![vec![5; 2], vec![6; 1]],
    };
    let revocation = Revocation {
        node: NodeId([1; 16]),
        serial: Serial::new(&[9; 2]),
        place: "tw/hg".parse().unwrap(),
        reason: Reason::Lost,
        at: 1_795_000_000_000,
        signer: NodeId([2; 16]),
        signature: vec![4; 3],
        chain: vec![vec![5; 2]],
    };
    let order = Order {
        number: 2,
        at: 1_795_000_000_000,
        steps: vec![
            Step::Move {
                from: "tw/hg/dv".parse().unwrap(),
                to: "tw/tq/dv".parse().unwrap(),
                address: "tq:1".to_owned(),
            },
            Step::Close { org: OrgId::new("hg").unwrap(), successor: OrgId::new("tq").unwrap() },
        ],
        signer: NodeId([2; 16]),
        signature: vec![4; 3],
        chain: vec![vec![5; 2]],
    };
    let empty = EntryBatch { origin: Incarnation([1; 16]), entries: Vec::new(), ..batch_of_two() };
    let cursors = vec![(Lane::Bulk, Cursor { at: at(4, 0), chain: None })];
    let nibble = Prefix::ALL.child(15).unwrap();
    let mut parts = [Part::default(); 16];
    parts[0] = Part { count: 300, sum: 7 };
    let attachment = Attachment { hash: ContentHash([7; 32]), size: 20_000 };
    let name = Name { record: "Binary/a1".parse().unwrap(), attachment };
    let ask = Ask { name: name.clone(), from: 16_384, len: 3_616, tree: true };
    let refuse = Frame::Refuse { code: 101, text: "Đồng Văn".to_owned() };
    vec![
        (
            Frame::Ask(ask),
            "\
             34150942696e6172792f61310707070707070707070707070707070707070707070707070707070707070707 \
             a09c01808001a01c01",
        ),
        (
            Frame::Tree(attachment.hash, vec![[8; 32], [9; 32]]),
            "\
             6216070707070707070707070707070707070707070707070707070707070707070702080808080808080808 \
             0808080808080808080808080808080808080808080808090909090909090909090909090909090909090909 \
             0909090909090909090909",
        ),
        (
            Frame::Bytes { hash: attachment.hash, from: 16_384, bytes: vec![0xab, 0xcd] },
            "2717070707070707070707070707070707070707070707070707070707070707070780800102abcd",
        ),
        (
            Frame::Nothing(name.clone()),
            "\
             2e180942696e6172792f61310707070707070707070707070707070707070707070707070707070707070707 \
             a09c01",
        ),
        (
            Frame::Kept(name, Kept::Root),
            "\
             2f190942696e6172792f61310707070707070707070707070707070707070707070707070707070707070707 \
             a09c0101",
        ),
        (
            Frame::Hello(hello),
            "\
             7e010101010101010101010101010101010109747579656e20302e3101020202020202020202020202020202 \
             02ac020205040404040404040404040404040404040501060606060606060606060606060606060204040404 \
             040404040404040404040404070108080808080808080808080808080808010203040506070802",
        ),
        (
            Frame::Hello(nothing),
            "26010101010101010101010101010101010109747579656e20302e310000000000000000000000",
        ),
        (
            Frame::Announce(announcement.clone()),
            "\
             470201010101010101010101010101010101010102020202020202020202020202020202000000000000004d \
             03030303030303030303030303030303030404040200020505000106",
        ),
        (
            Frame::Announce(Announcement { parent: None, chain: Vec::new(), ..announcement }),
            "2802010101010101010101010101010101010100030303030303030303030303030303030304040400",
        ),
        (Frame::Need(Incarnation([1; 16])), "110301010101010101010101010101010101"),
        (Frame::NeedPlace(OrgId::new("dv").unwrap()), "040b026476"),
        (Frame::Lost, "0104"),
        (Frame::Cursors(cursors), "15050104040404040404040404040404040404040000"),
        (
            Frame::Batch(empty),
            "270601010101010101010101010101010101010601ac020909090909090909090909090909090900",
        ),
        (Frame::Ack(Lane::Bulk, at(1, 300)), "14070201010101010101010101010101010101ac02"),
        (Frame::SafeAtRoot(Lane::Urgent, at(1, 1)), "1308000101010101010101010101010101010101"),
        (
            Frame::Revocations(vec![revocation]),
            "\
             4009013d0101010101010101010101010101010101020909000574772f686701000001a1ee565e0002020202 \
             020202020202020202020202030404040100020505",
        ),
        (refuse, "100a00650cc490e1bb936e672056c4836e"),
        (Frame::Audit, "010c"),
        (Frame::Total(None), "020d00"),
        (Frame::Total(Some(Digest { count: 300, sum: 5 })), "140d01ac0200000000000000000000000000000005"),
        (Frame::Look(vec![Prefix::ALL, nibble, nibble.child(2).unwrap()]), "070e030001f002f2"),
        (
            Frame::Ranges(vec![Range::Hashes(vec![1, 2]), Range::Hashes(Vec::new())]),
            "160f020102000000000000000100000000000000020100",
        ),
        (
            Frame::Ranges(vec![Range::Parts(Box::new(parts))]),
            "\
             94010f0100ac0200000000000000070000000000000000000000000000000000000000000000000000000000 \
             0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000 \
             0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000 \
             000000000000000000000000000000000000",
        ),
        (
            Frame::Want(Want {
                named: vec![("Patient/8f21".parse().unwrap(), ChangeHash([7; 32]))],
                hashes: vec![3],
            }),
            "\
             3810010c50617469656e742f3866323107070707070707070707070707070707070707070707070707070707 \
             07070707010000000000000003",
        ),
        (Frame::Repair(Vec::new()), "021100"),
        (Frame::Repaired(300), "0312ac02"),
        (
            Frame::Orders(vec![order]),
            "\
             53130150010000000000000002000001a1ee565e00000201000874772f68672f6476000874772f74712f6476 \
             000474713a3102000268670002747102020202020202020202020202020202030404040100020505",
        ),
        (Frame::Orders(Vec::new()), "021300"),
        (Frame::Lanes(Lanes::ALL.without_bulk()), "021403"),
        (Frame::ToCome(300), "031aac02"),
        (
            Frame::Below(vec![(OrgId::new("dv").unwrap(), 300), (OrgId::new("mv").unwrap(), 0)]),
            "0b1b02026476ac02026d7600",
        ),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// What follows a frame's length.
fn body(frame: &[u8]) -> Vec<u8> {
    let mut r = Reader(frame);
    let length = r.bounded(FRAME_MAX_BYTES, "the frame").unwrap();
    assert_eq!(r.0.len(), length);
    r.0.to_vec()
}

fn deframed(bytes: &[u8]) -> Result<Option<Frame>, WireError> {
    let mut deframer = Deframer::default();
    deframer.push(bytes);
    deframer.next_frame()
}

/// SplitMix64.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[test]
fn every_frame_has_its_bytes() {
    for (frame, golden) in golden() {
        assert_eq!(hex(&frame.encode()), golden.split_whitespace().collect::<String>(), "{frame:?}");
        assert_eq!(deframed(&unhex(golden)), Ok(Some(frame)));
    }
}

#[test]
fn a_batch_is_a_header_and_what_it_unpacks_to() {
    let batch = batch_of_two();
    let encoded = body(&Frame::Batch(batch.clone()).encode());
    let header = unhex(BATCH_HEADER);
    let (head, packed) = encoded.split_at(header.len());
    assert_eq!(hex(head), hex(&header));
    let mut r = Reader(packed);
    let dictionary = r.u8("the dictionary").unwrap();
    let raw_len = r.bounded(UNPACKED_MAX_BYTES, "the unpacked batch").unwrap();
    let raw =
        compress::unpack(dictionary, r.bytes(FRAME_MAX_BYTES, "the packed batch").unwrap(), raw_len).unwrap();
    r.end().unwrap();
    assert_eq!(hex(&raw), BATCH_UNPACKED.split_whitespace().collect::<String>());
    assert_eq!(Frame::decode(&encoded), Ok(Frame::Batch(batch)));
}

#[test]
fn a_stream_may_be_cut_anywhere() {
    let mut frames: Vec<Frame> = golden().into_iter().map(|(frame, _)| frame).collect();
    frames.push(Frame::Batch(batch_of_two()));
    let stream: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
    for step in [1, 2, 7, 100] {
        let mut deframer = Deframer::default();
        let mut found = Vec::new();
        for piece in stream.chunks(step) {
            deframer.push(piece);
            while let Some(frame) = deframer.next_frame().unwrap() {
                found.push(frame);
            }
        }
        assert_eq!(found, frames);
        assert_eq!(deframer.pending_bytes(), 0);
    }
    for frame in &frames {
        let whole = frame.encode();
        for end in 0..whole.len() {
            assert_eq!(deframed(&whole[..end]), Ok(None), "{frame:?} cut at {end}");
        }
        let body = body(&whole);
        for end in 0..body.len() {
            assert!(Frame::decode(&body[..end]).is_err(), "{frame:?} of {end} bytes");
        }
        assert!(Frame::decode(&[&body[..], &[0]].concat()).is_err(), "{frame:?} and one more byte");
    }
}

#[test]
fn no_bytes_make_it_panic() {
    let mut state = 1;
    for n in 0..200_000u64 {
        let length = random(&mut state) % 80;
        let mut bytes: Vec<u8> = (0..length).map(|_| random(&mut state) as u8).collect();
        if let Some(first) = bytes.first_mut() {
            *first = (n % 20) as u8;
        }
        let _ = Frame::decode(&bytes);
        let _ = deframed(&bytes);
    }
    let mut frames: Vec<Frame> = golden().into_iter().map(|(frame, _)| frame).collect();
    frames.push(Frame::Batch(batch_of_two()));
    for frame in frames {
        let body = body(&frame.encode());
        for _ in 0..20_000 {
            let mut bad = body.clone();
            for _ in 0..=random(&mut state) % 3 {
                let place = random(&mut state) as usize % bad.len();
                bad[place] = random(&mut state) as u8;
            }
            // What decodes has one encoding: its own.
            if let Ok(decoded) = Frame::decode(&bad)
                && !matches!(decoded, Frame::Batch(_) | Frame::Repair(_))
            {
                assert_eq!(hex(&super::golden::body(&decoded.encode())), hex(&bad), "{decoded:?}");
            }
        }
    }
}

#[test]
fn a_damaged_batch_is_never_taken_for_a_good_one() {
    let batch = batch_of_two();
    let body = body(&Frame::Batch(batch.clone()).encode());
    let header = unhex(BATCH_HEADER).len();
    // From the origin on everything is covered by hashes.
    for bit in (header - 16) * 8..body.len() * 8 {
        let mut bad = body.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        if let Ok(Frame::Batch(other)) = Frame::decode(&bad) {
            let entries =
                |batch: &EntryBatch| batch.entries.iter().map(|(_, e)| e.hash()).collect::<Vec<_>>();
            assert_eq!(entries(&other), entries(&batch), "bit {bit}");
        }
    }
}

#[test]
fn a_repair_is_its_digest_and_what_it_unpacks_to() {
    let entries = vec![entry(1), entry(2)];
    let repair = Frame::Repair(entries.clone());
    let encoded = body(&repair.encode());
    let header = unhex("110268 9ae10597553a12186c0c0f76d11213");
    let (head, packed) = encoded.split_at(header.len());
    assert_eq!(hex(head), hex(&header), "the digest is that of a batch");
    let mut r = Reader(packed);
    let dictionary = r.u8("the dictionary").unwrap();
    let raw_len = r.bounded(UNPACKED_MAX_BYTES, "the unpacked entries").unwrap();
    let packed = r.bytes(FRAME_MAX_BYTES, "the packed entries").unwrap();
    let mut raw = Writer::default();
    entries.iter().for_each(|entry| entry.encode(&mut raw));
    assert_eq!(compress::unpack(dictionary, packed, raw_len).unwrap(), raw.0);
    assert_eq!(Frame::decode(&encoded), Ok(repair));
    // From the digest on everything is covered by hashes.
    for bit in 16..encoded.len() * 8 {
        let mut bad = encoded.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        if let Ok(Frame::Repair(other)) = Frame::decode(&bad) {
            assert_eq!(other, entries, "bit {bit}");
        }
    }
    let other = Frame::decode(&[&[frame_type::REPAIR, 1][..], &encoded[2..]].concat());
    assert!(other.is_err(), "fewer than there are: {other:?}");
}

#[test]
fn what_is_asked_in_an_audit_is_bounded() {
    for (kind, most) in [
        (frame_type::LOOK, LOOK_MAX),
        (frame_type::RANGES, LOOK_MAX),
        (frame_type::WANT, WANT_MAX),
        (frame_type::REPAIR, BATCH_MAX_ENTRIES),
    ] {
        let mut w = Writer::default();
        w.u8(kind).varint(most as u64 + 1);
        let decoded = Frame::decode(&w.0);
        assert!(matches!(decoded, Err(WireError::Decode(DecodeError::Limit { .. }))), "{kind}: {decoded:?}");
    }
    for (hashes, right) in [(crate::audit::LIST_MAX, true), (crate::audit::LIST_MAX + 1, false)] {
        let frame = Frame::Ranges(vec![Range::Hashes(vec![1; hashes])]);
        assert_eq!(deframed(&frame.encode()).is_ok(), right);
    }
    for (prefix, right) in [
        (&[0][..], true),
        (&[1, 0xf0], true),
        (&[1, 0xf1], false),
        (&[16, 1, 2, 3, 4, 5, 6, 7, 8], false),
        (&[200, 1, 2, 3], false),
        (&[15, 1, 2, 3, 4, 5, 6, 7, 0x80], true),
    ] {
        let frame = Frame::decode(&[&[frame_type::LOOK, 1], prefix].concat());
        assert_eq!(frame.is_ok(), right, "{prefix:?}: {frame:?}");
    }
}

/// The body of a batch with one entry whose packed part is this.
#[test]
fn what_is_asked_of_content_and_given_is_bounded() {
    let piece = PIECE_BYTES as u64;
    let named = |size: u64| {
        let mut w = Writer::default();
        w.bytes(b"Binary/a1").raw(&[7; 32]).varint(size);
        w.0
    };
    let ask = |size, from, len, tree| {
        let mut w = Writer::default();
        w.u8(frame_type::ASK).raw(&named(size)).varint(from).varint(len).u8(tree);
        Frame::decode(&w.0).is_ok()
    };
    for (size, from, len, tree, right) in [
        (5 * piece, 0, ASK_MAX_BYTES, 0, true),
        (5 * piece, 0, ASK_MAX_BYTES + 1, 0, false),
        (5 * piece, 5 * piece - 1, 1, 1, true),
        (5 * piece, 5 * piece - 1, 2, 1, false),
        (5 * piece, 5 * piece, 1, 0, false),
        (5 * piece, 0, 0, 0, false),
        (5 * piece, 0, 1, 2, false),
        (piece, 0, 1, 0, false),
        (CONTENT_MAX_BYTES, 0, 1, 0, true),
        (CONTENT_MAX_BYTES + 1, 0, 1, 0, false),
    ] {
        assert_eq!(ask(size, from, len, tree), right, "{size} {from} {len} {tree}");
    }
    let bytes = |from: u64, len: usize| {
        let frame = Frame::Bytes { hash: ContentHash([7; 32]), from, bytes: vec![1; len] };
        Frame::decode(&body(&frame.encode())).is_ok()
    };
    for (from, len, right) in [
        (0, CONTENT_FRAME_MAX_BYTES, true),
        (0, CONTENT_FRAME_MAX_BYTES + 1, false),
        (0, 0, false),
        (piece - 1, 1, true),
        (piece - 1, 2, false),
        (CONTENT_MAX_BYTES - 1, 1, true),
        (CONTENT_MAX_BYTES, 1, false),
    ] {
        assert_eq!(bytes(from, len), right, "{from} {len}");
    }
    let mut kept = vec![frame_type::KEPT];
    kept.extend(named(20_000));
    for (at, right) in [(0, true), (1, true), (2, false)] {
        assert_eq!(Frame::decode(&[&kept[..], &[at]].concat()).is_ok(), right, "{at}");
    }
    let mut w = Writer::default();
    w.u8(frame_type::TREE).raw(&[7; 32]).varint(crate::attachment::PIECES_MAX as u64 + 1);
    assert!(matches!(Frame::decode(&w.0), Err(WireError::Decode(DecodeError::Limit { .. }))));
}

fn batch_with(count: u64, dictionary: u8, raw_len: u64, packed: &[u8]) -> Vec<u8> {
    let mut w = Writer::default();
    w.u8(frame_type::BATCH).u8(1).raw(&[1; 16]).varint(0).u8(0).varint(count);
    w.raw(&[3; 16]).raw(&[0; 16]).u8(dictionary).varint(raw_len).bytes(packed);
    w.0
}

#[test]
fn bombs_are_refused_before_they_inflate() {
    // 64 MB of zeros are 6 kB packed.
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 19).unwrap();
    assert!(bomb.len() < 10_000);
    let limit = |what: &str, decoded: Result<Frame, WireError>| {
        let refused = matches!(&decoded, Err(WireError::Decode(DecodeError::Limit { .. })));
        assert!(refused, "{what}: {decoded:?}");
    };
    limit("an honest bomb", Frame::decode(&batch_with(1, 1, 64 << 20, &bomb)));
    limit("too many entries", Frame::decode(&batch_with(BATCH_MAX_ENTRIES as u64 + 1, 1, 10, &[])));
    let dishonest = Frame::decode(&batch_with(1, 1, 1000, &bomb));
    assert!(matches!(dishonest, Err(WireError::Unpack(_))), "{dishonest:?}");
    let other = Frame::decode(&batch_with(1, 200, 1000, &[]));
    assert!(matches!(other, Err(WireError::Unpack(_))), "{other:?}");

    let mut w = Writer::default();
    w.varint(FRAME_MAX_BYTES + 1);
    assert!(matches!(deframed(&w.0), Err(WireError::Decode(DecodeError::Limit { .. }))));
    let mut w = Writer::default();
    w.u8(frame_type::CURSORS).varint(CURSORS_MAX + 1);
    limit("cursors", Frame::decode(&w.0));
    let mut w = Writer::default();
    w.u8(frame_type::REVOCATIONS).varint(u64::MAX);
    limit("revocations", Frame::decode(&w.0));
    let mut w = Writer::default();
    w.u8(frame_type::REFUSE).raw(&[0, 1]).bytes(&[b'a'; TEXT_MAX_BYTES as usize + 1]);
    limit("a text", Frame::decode(&w.0));
    let mut w = Writer::default();
    w.u8(frame_type::HELLO).raw(&[1; 16]).bytes(&[b'a'; SOFTWARE_MAX_BYTES as usize + 1]);
    limit("the software", Frame::decode(&w.0));
}

#[test]
fn a_text_is_clipped_between_letters() {
    let long = Frame::Refuse { code: 1, text: "đ".repeat(TEXT_MAX_BYTES as usize) };
    let Ok(Frame::Refuse { text, .. }) = Frame::decode(&body(&long.encode())) else { panic!("it decodes") };
    assert_eq!(text, "đ".repeat(TEXT_MAX_BYTES as usize / 2));
    let hello = Hello {
        run: Incarnation([1; 16]),
        software: "đ".repeat(64),
        tip: None,
        cursors: Vec::new(),
        revocations: 0,
        allows: Secrecy::None,
    };
    assert!(
        Frame::decode(&body(&Frame::Hello(hello).encode())).is_ok(),
        "the software's name is clipped too"
    );
}

#[test]
fn lanes_at_one_place_share_a_cursor() {
    let one = |lanes: &[Lane]| {
        let cursors: Vec<_> = lanes.iter().map(|lane| (*lane, cursor(4, 5, 6))).collect();
        Frame::Cursors(cursors).encode().len()
    };
    assert_eq!(one(&Lane::ALL), one(&[Lane::Urgent]));
    let twice = [1, 0b011, 0b001].into_iter().collect::<Vec<u8>>();
    let mut w = Writer::default();
    w.u8(frame_type::CURSORS).varint(2);
    for mask in &twice[1..] {
        w.u8(*mask).raw(&[4; 16]).varint(5).u8(0);
    }
    assert!(Frame::decode(&w.0).is_err(), "a lane stands at one place");
}

#[test]
fn lanes_of_cursors_are_given_once_and_in_order() {
    let group = |mask: u8, pos: u64| {
        let mut w = Writer::default();
        put_position(w.u8(mask), at(4, pos));
        w.u8(0);
        w.0
    };
    for (masks, right) in [
        (&[0b001, 0b010, 0b100][..], true),
        (&[0b101, 0b010], true),
        (&[0b111], true),
        (&[0], false),
        (&[0b1000], false),
        (&[0b1001], false),
        (&[0b010, 0b001], false),
        (&[0b011, 0b010], false),
        (&[0b001, 0b110, 0b100], false),
        (&[0b010, 0b010], false),
    ] {
        let mut body = vec![frame_type::CURSORS, masks.len() as u8];
        (1..).zip(masks).for_each(|(pos, mask)| body.extend(group(*mask, pos)));
        let frame = Frame::decode(&body);
        assert_eq!(frame.is_ok(), right, "{masks:?}: {frame:?}");
    }
    let twice = [vec![frame_type::CURSORS, 2], group(0b001, 1), group(0b010, 1)].concat();
    assert_eq!(Frame::decode(&twice), Err(DecodeError::Value("a cursor that is given twice").into()));
}

#[test]
fn positions_of_a_batch_rise_and_have_an_end() {
    for (positions, right) in [
        ([1, 2], true),
        ([POSITION_MAX - 1, POSITION_MAX], true),
        ([0, 1], false),
        ([2, 2], false),
        ([1, POSITION_MAX + 1], false),
    ] {
        let entries = positions.iter().map(|pos| (*pos, entry(1))).collect();
        let batch = Frame::Batch(EntryBatch { upto: None, entries, ..batch_of_two() });
        let decoded = deframed(&batch.encode());
        let wrong = Err(DecodeError::Value("a position").into());
        assert_eq!(decoded, if right { Ok(Some(batch)) } else { wrong }, "{positions:?}");
    }
}

#[test]
fn what_was_read_does_not_stay_in_memory() {
    let frame = Frame::Refuse { code: 1, text: "a".repeat(TEXT_MAX_BYTES as usize) };
    let bytes = frame.encode();
    let mut deframer = Deframer::default();
    // There is always a part of the next one.
    deframer.push(&bytes[..5]);
    for n in 0..1_000 {
        assert_eq!(deframer.pending_bytes(), 5);
        deframer.push(&bytes[5..]);
        deframer.push(&bytes[..5]);
        assert_eq!(deframer.pending_bytes(), bytes.len() + 5);
        assert_eq!(deframer.next_frame(), Ok(Some(frame.clone())));
        assert!(deframer.buffer.len() < 70_000, "{n}");
    }
    assert_eq!(deframer.next_frame(), Ok(None));
}

#[test]
fn limits_are_what_the_protocol_says() {
    assert_eq!((FRAME_MAX_BYTES, UNPACKED_MAX_BYTES, BATCH_MAX_RAW_BYTES), (1_114_112, 2_162_688, 1_048_576));
    assert_eq!((crate::change::CHANGE_MAX_BYTES, crate::identity::PLACE_MAX_BYTES), (1_048_576, 512));
}

#[test]
fn what_is_packed_has_the_size_that_it_says() {
    let raw = [7; 300];
    let (dictionary, packed) = compress::pack(&raw);
    assert_eq!(compress::unpack(dictionary, &packed, 300), Ok(raw.to_vec()));
    for (dictionary, bytes) in [(dictionary, 299), (dictionary, 301), (dictionary + 1, 300), (0, 300)] {
        let unpacked = compress::unpack(dictionary, &packed, bytes);
        assert!(matches!(unpacked, Err(WireError::Unpack(_))), "{dictionary} {bytes}");
    }
}
