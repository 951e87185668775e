//! The write-ahead log, read before SQLite recovers it: whether it ends where a power cut ended it, or is damaged.
//!
//! SQLite reads the log up to the last commit before the first frame whose checksum fails, whatever the reason. Behind
//! that a power cut leaves at most what one transaction had written: a commit is durable before the next one begins,
//! and the store cuts such remains off at its start before it writes on. So if frames of more than one transaction of
//! this log stand there, something that had been durable was damaged. A frame counts only when its checksum follows from
//! the frame before, because a torn header can pair an old commit mark with the salts of today. And a log whose header does
//! not hold was just being begun anew, with everything in it copied; if its pages are not in the database, it was not.
//! What always holds: nothing that a power cut leaves is called damage. Not here: what is done about it (`open`), and
//! damage within the last transaction, which nothing tells from a power cut. The format is described at
//! <https://sqlite.org/fileformat2.html#walformat>.

use std::{
    collections::{BTreeMap, HashSet},
    io::{self, Read},
};

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
/// The last bit says in which byte order words are summed up.
const MAGIC: u32 = 0x377f_0682;
const PAGE_BYTES: std::ops::RangeInclusive<usize> = 512..=65_536;

/// What a log holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Log {
    /// No frame of it can count.
    Empty,
    /// Its header does not hold, so SQLite reads none of its frames: the pages that they are of, each with the sum of
    /// its last content.
    Headless(BTreeMap<u32, Sum>),
    /// Its header holds.
    Whole {
        /// Frames up to the last commit that SQLite reads.
        frames: u64,
        /// Bytes up to there.
        bytes: u64,
        /// What stands behind them.
        tail: Tail,
    },
}

/// What stands behind the last commit of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tail {
    /// Nothing, or frames of an earlier log.
    Nothing,
    /// What one transaction may have left.
    Torn,
    /// More than one transaction has left.
    Damaged,
}

/// SQLite's checksum of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sum([u32; 2]);

impl Sum {
    const START: Sum = Sum([0; 2]);

    fn of(bytes: &[u8]) -> Self {
        Sum([number(&bytes[..4]), number(&bytes[4..8])])
    }

    fn add(self, bytes: &[u8], big_endian: bool) -> Self {
        let word = |bytes: &[u8]| if big_endian { number(bytes) } else { number(bytes).swap_bytes() };
        let Sum([mut one, mut two]) = self;
        for pair in bytes.chunks_exact(8) {
            one = one.wrapping_add(word(&pair[..4])).wrapping_add(two);
            two = two.wrapping_add(word(&pair[4..])).wrapping_add(one);
        }
        Sum([one, two])
    }

    /// The sum of a page's content, as [`Log::Headless`] has it.
    pub fn of_page(content: &[u8]) -> Self {
        Self::START.add(content, false)
    }
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.first_chunk().copied().expect("a word has four bytes"))
}

/// A header that holds.
struct Header {
    big_endian: bool,
    page_bytes: usize,
    salts: [u8; 8],
    sum: Sum,
}

impl Header {
    fn read(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let (magic, page_bytes) = (number(&bytes[..4]), number(&bytes[8..12]) as usize);
        let big_endian = magic == MAGIC | 1;
        let sum = Sum::of(&bytes[24..]);
        let known = magic & !1 == MAGIC && PAGE_BYTES.contains(&page_bytes) && page_bytes.is_power_of_two();
        let holds = known && Sum::START.add(&bytes[..24], big_endian) == sum;
        let salts = bytes[16..24].first_chunk().copied().expect("salts have eight bytes");
        holds.then_some(Self { big_endian, page_bytes, salts, sum })
    }
}

/// A frame: its header, then the page's content.
struct Frame<'a>(&'a [u8]);

impl Frame<'_> {
    fn page(&self) -> u32 {
        number(&self.0[..4])
    }

    fn is_commit(&self) -> bool {
        number(&self.0[4..8]) != 0
    }

    fn salts(&self) -> &[u8] {
        &self.0[8..16]
    }

    fn sum(&self) -> Sum {
        Sum::of(&self.0[16..24])
    }

    fn content(&self) -> &[u8] {
        &self.0[FRAME_HEADER_BYTES..]
    }

    /// What its sum has to be behind a frame with this one.
    fn sum_after(&self, before: Sum, big_endian: bool) -> Sum {
        before.add(&self.0[..8], big_endian).add(self.content(), big_endian)
    }
}

/// Reads a log. Pages have `page_bytes` bytes if its header does not say it.
pub(super) fn examine(log: &mut impl Read, page_bytes: usize) -> io::Result<Log> {
    let mut header = [0; HEADER_BYTES];
    if !fill(log, &mut header)? {
        return Ok(Log::Empty);
    }
    let Some(header) = Header::read(&header) else { return headless(log, page_bytes) };
    let mut frame = vec![0; FRAME_HEADER_BYTES + header.page_bytes];
    let mut behind = Behind::new(header.sum);
    // What the next frame's sum follows from; none once SQLite reads no further.
    let mut chain = Some(header.sum);
    let (mut nth, mut frames) = (0, 0);
    while fill(log, &mut frame)? {
        nth += 1;
        let frame = Frame(&frame);
        let valid = frame.page() != 0 && frame.salts() == header.salts;
        chain = chain.filter(|sum| valid && frame.sum_after(*sum, header.big_endian) == frame.sum());
        chain = chain.map(|_| frame.sum());
        if chain.is_some() && frame.is_commit() {
            (frames, behind) = (nth, Behind::new(frame.sum()));
        } else {
            behind.take(&frame, &header);
        }
    }
    let bytes = HEADER_BYTES as u64 + frames * frame.len() as u64;
    Ok(Log::Whole { frames, bytes, tail: behind.end() })
}

/// The pages of a log whose header does not hold. Its frames are those with the salts of the first one.
fn headless(log: &mut impl Read, page_bytes: usize) -> io::Result<Log> {
    let mut frame = vec![0; FRAME_HEADER_BYTES + page_bytes];
    let (mut salts, mut pages) = (None, BTreeMap::new());
    while fill(log, &mut frame)? {
        let frame = Frame(&frame);
        if frame.page() == 0 {
            continue;
        }
        if salts.get_or_insert_with(|| frame.salts().to_vec()) == frame.salts() {
            pages.insert(frame.page(), Sum::of_page(frame.content()));
        }
    }
    Ok(if pages.is_empty() { Log::Empty } else { Log::Headless(pages) })
}

/// Fills the buffer; false when the log ends before.
fn fill(log: &mut impl Read, into: &mut [u8]) -> io::Result<bool> {
    match log.read_exact(into) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| true),
    }
}

/// How many frames in a row have to follow from one another before they count. One or two may be of an earlier log, with
/// headers that are torn right between the salts of today and the checksum of then.
const RUN: u32 = 2;

/// Looks for a second transaction behind the last commit.
struct Behind {
    last: Last,
    /// Whether a frame is of this log.
    any: bool,
    /// Pages of frames without a mark. A transaction writes such a frame of a page only once.
    pages: HashSet<u32>,
    damaged: bool,
}

/// The frame before, about which the next one still has something to say.
struct Last {
    /// The sum that it has, and the one that follows from the frame before it.
    sum: Sum,
    worked_out: Sum,
    ours: bool,
    /// How many frames in a row, up to it, follow from the one before; and up to the one before it.
    run: u32,
    run_before: u32,
    commit: bool,
}

impl Behind {
    /// Behind the commit, or the header, with this sum.
    fn new(sum: Sum) -> Self {
        let last = Last { sum, worked_out: sum, ours: true, run: RUN, run_before: RUN, commit: false };
        Self { last, any: false, pages: HashSet::new(), damaged: false }
    }

    fn take(&mut self, frame: &Frame<'_>, header: &Header) {
        let last = &mut self.last;
        let (sum, worked_out) = (frame.sum(), frame.sum_after(last.sum, header.big_endian));
        let mut follows = worked_out == sum;
        if !follows && last.ours && frame.sum_after(last.worked_out, header.big_endian) == sum {
            // Only the sum of the last one is damaged.
            (follows, last.run) = (true, last.run_before + 1);
        }
        // Salts are not in the sum: damaged ones are those of a frame that follows from others of this log.
        let ours = frame.salts() == header.salts || (follows && last.run >= RUN);
        let run = if ours && follows && last.ours { last.run + 1 } else { 0 };
        self.any |= ours;
        if run >= RUN {
            self.damaged |= last.commit;
            self.damaged |= !frame.is_commit() && !self.pages.insert(frame.page());
        }
        let run_before = last.run;
        *last = Last {
            sum,
            worked_out: if follows { sum } else { worked_out },
            ours,
            run,
            run_before,
            commit: frame.is_commit(),
        };
    }

    fn end(self) -> Tail {
        match (self.damaged, self.any) {
            (true, _) => Tail::Damaged,
            (false, true) => Tail::Torn,
            (false, false) => Tail::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 512;
    const FRAME: usize = FRAME_HEADER_BYTES + PAGE;
    const SALTS: [u8; 8] = *b"salts-2!";
    const EARLIER: [u8; 8] = *b"salts-1!";

    /// A log as SQLite writes it. A transaction is the pages that it writes.
    fn log(salts: [u8; 8], transactions: &[&[u32]]) -> Vec<u8> {
        let mut log = [MAGIC, 3_007_000, PAGE as u32, 1].map(u32::to_be_bytes).concat();
        log.extend(salts);
        let mut sum = Sum::START.add(&log, false);
        log.extend(sum.0.map(u32::to_be_bytes).concat());
        for (n, pages) in transactions.iter().enumerate() {
            for page in *pages {
                let is_last = Some(page) == pages.last();
                let mut frame = [*page, if is_last { 9 } else { 0 }].map(u32::to_be_bytes).concat();
                let content = [salts[6] ^ n as u8 ^ *page as u8; PAGE];
                sum = sum.add(&frame, false).add(&content, false);
                frame.extend(salts);
                frame.extend(sum.0.map(u32::to_be_bytes).concat());
                frame.extend(content);
                log.extend(frame);
            }
        }
        log
    }

    fn tail(log: &[u8]) -> (u64, Tail) {
        match examine(&mut &*log, PAGE).unwrap() {
            Log::Whole { frames, bytes, tail } => {
                assert_eq!(bytes, (HEADER_BYTES + frames as usize * FRAME) as u64);
                (frames, tail)
            }
            other => panic!("{other:?}"),
        }
    }

    fn frame(n: usize) -> std::ops::Range<usize> {
        HEADER_BYTES + n * FRAME..HEADER_BYTES + (n + 1) * FRAME
    }

    #[test]
    fn a_log_is_read_as_sqlite_reads_it() {
        assert_eq!(examine(&mut &[][..], PAGE).unwrap(), Log::Empty);
        assert_eq!(examine(&mut &[7; 31][..], PAGE).unwrap(), Log::Empty);
        assert_eq!(examine(&mut &[0; 5 * FRAME][..], PAGE).unwrap(), Log::Empty);
        assert_eq!(tail(&log(SALTS, &[])), (0, Tail::Nothing));
        let whole = log(SALTS, &[&[1, 2], &[3]]);
        assert_eq!(tail(&whole), (3, Tail::Nothing));
        assert_eq!(tail(&whole[..whole.len() - 1]), (2, Tail::Nothing), "a part of a frame is none");
        assert_eq!(tail(&log(SALTS, &[&[1, 2], &[3, 4]])[..frame(2).end]), (2, Tail::Torn), "no commit");
    }

    #[test]
    fn every_bit_of_what_was_durable_counts() {
        let good = log(SALTS, &[&[1, 5], &[1, 2, 3, 4, 5], &[1, 2, 3, 6]]);
        let last = frame(7).start;
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                if at < HEADER_BYTES {
                    let found = examine(&mut &*bad, PAGE).unwrap();
                    assert!(
                        matches!(&found, Log::Headless(pages) if pages.len() == 6),
                        "{at} {bit}: {found:?}"
                    );
                    continue;
                }
                let wanted = if at < last { Tail::Damaged } else { Tail::Torn };
                let frames = if at < frame(2).start {
                    0
                } else if at < last {
                    2
                } else {
                    7
                };
                assert_eq!(tail(&bad), (frames, wanted), "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn whatever_one_transaction_leaves_is_no_damage() {
        // Over the frames of an earlier log, with commit marks of its own.
        let earlier = log(EARLIER, &[&[1, 2], &[1], &[1, 2, 3], &[1], &[1, 2], &[1, 2, 3]]);
        let durable = log(SALTS, &[&[1]]);
        let all = log(SALTS, &[&[1], &[1, 2, 3, 7]]);
        let under = [&durable[..], &earlier[durable.len()..]].concat();
        // Each header and each page is there or not; headers are also torn at every byte, either way round.
        for there in 0..256_u32 {
            for torn in 0..4 {
                for middle in (0..=FRAME_HEADER_BYTES).step_by(4) {
                    for first in [true, false] {
                        let mut left = under.clone();
                        for n in 0..4 {
                            let (begin, end) = (frame(n + 1).start, frame(n + 1).end);
                            let split = begin + FRAME_HEADER_BYTES;
                            if there & 1 << n != 0 {
                                left[begin..split].copy_from_slice(&all[begin..split]);
                            }
                            if there & 16 << n != 0 {
                                left[split..end].copy_from_slice(&all[split..end]);
                            }
                            if n == torn {
                                let part = if first { begin..begin + middle } else { begin + middle..split };
                                left[begin..split].copy_from_slice(&under[begin..split]);
                                left[part.clone()].copy_from_slice(&all[part]);
                            }
                        }
                        assert_ne!(tail(&left).1, Tail::Damaged, "{there:08b} {torn} {middle} {first}");
                    }
                }
            }
        }
    }

    #[test]
    fn pages_of_a_log_without_a_header_are_told_by_their_last_content() {
        let mut bad = log(SALTS, &[&[1, 2], &[2]]);
        bad.extend(&log(EARLIER, &[&[1], &[1], &[1], &[4, 5]])[bad.len()..]);
        let last = Sum::of_page(&bad[frame(2)][FRAME_HEADER_BYTES..]);
        for at in [0, 9, 15, 20, 31] {
            let mut bad = bad.clone();
            bad[at] ^= 0x10;
            let Log::Headless(pages) = examine(&mut &*bad, PAGE).unwrap() else { panic!("byte {at}") };
            assert_eq!(pages.keys().collect::<Vec<_>>(), [&1, &2]);
            assert_eq!(pages[&2], last);
        }
    }
}
