//! One open file or stream, and the records in it. NDJSON is read line by line; JSON is read whole, up to a
//! limit, and its resources are taken out of the text one at a time.

use std::{
    io::{self, BufRead, BufReader, Cursor, Read},
    sync::Arc,
};

use super::{
    FILE_MAX_BYTES, Format, Item, LINE_MAX_BYTES, Place, Rejected,
    pieces::{Piece, pieces},
    record::{Named, named},
    references::Entries,
};
use crate::fhir::{json, problem::Problem};

const UTF8_MARK: &[u8] = b"\xEF\xBB\xBF";
const UTF16_MARKS: [&[u8]; 2] = [b"\xFF\xFE", b"\xFE\xFF"];

type Stream = Box<dyn BufRead + Send>;

/// One open source.
pub(super) struct Source {
    name: Arc<str>,
    state: State,
}

enum State {
    /// Nothing has been read yet.
    New(Box<dyn Read + Send>, Format),
    Lines(Lines),
    Document(Document),
    Ended,
}

struct Document {
    bytes: Vec<u8>,
    pieces: std::vec::IntoIter<Piece>,
    /// Whether it is one resource alone, which needs no number.
    alone: bool,
}

impl Source {
    pub fn new(name: Arc<str>, reader: Box<dyn Read + Send>, format: Format) -> Self {
        Self { name, state: State::New(reader, format) }
    }

    pub fn next(&mut self) -> Option<Result<Item, Rejected>> {
        if let State::New(..) = &self.state {
            let State::New(reader, format) = std::mem::replace(&mut self.state, State::Ended) else {
                return None;
            };
            match open(reader, format) {
                Ok(state) => self.state = state,
                Err(problem) => return Some(self.settle(Place::Whole, Err(problem))),
            }
        }
        let (place, found) = match &mut self.state {
            State::New(..) | State::Ended => return None,
            State::Lines(lines) => lines.next()?,
            State::Document(document) => document.next()?,
        };
        if let (State::Lines(_), Err(Problem::Unreadable(_))) = (&self.state, &found) {
            self.state = State::Ended;
        }
        Some(self.settle(place, found))
    }

    fn settle(&self, place: Place, found: Result<Named, Problem>) -> Result<Item, Rejected> {
        let source = Arc::clone(&self.name);
        match found {
            Ok(Named { id, resource, id_was_missing, unresolved }) => {
                Ok(Item { id, resource, id_was_missing, unresolved, source, place })
            }
            Err(problem) => Err(Rejected { source_name: source, place, problem }),
        }
    }
}

fn open(reader: Box<dyn Read + Send>, format: Format) -> Result<State, Problem> {
    let mut stream: Stream = Box::new(BufReader::new(reader));
    let start = stream.fill_buf().map_err(|e| unreadable(&e))?;
    if UTF16_MARKS.iter().any(|mark| start.starts_with(mark)) {
        return Err(Problem::NotUtf8);
    }
    if start.starts_with(UTF8_MARK) {
        stream.consume(UTF8_MARK.len());
    }
    let (stream, format) = match format {
        Format::Unknown => guess(stream)?,
        known => (stream, known),
    };
    if format == Format::Ndjson {
        return Ok(State::Lines(Lines { stream, number: 0, is_empty: true }));
    }
    let mut bytes = Vec::new();
    stream.take(FILE_MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(|e| unreadable(&e))?;
    if bytes.len() > FILE_MAX_BYTES {
        return Err(Problem::FileTooLarge);
    }
    if bytes.trim_ascii().is_empty() {
        return Err(Problem::Empty);
    }
    let pieces = pieces(&bytes);
    let alone = matches!(pieces.as_slice(), [Piece { problem: None, full_url: None, range, .. }]
        if bytes[..range.start].trim_ascii().is_empty());
    Ok(State::Document(Document { bytes, pieces: pieces.into_iter(), alone }))
}

/// Tells the format from the beginning, and gives back the stream with the beginning put before the rest.
fn guess(mut stream: Stream) -> Result<(Stream, Format), Problem> {
    let mut head = Vec::new();
    loop {
        let before = head.len();
        let room = (LINE_MAX_BYTES + 1).saturating_sub(before);
        stream.by_ref().take(room as u64).read_until(b'\n', &mut head).map_err(|e| unreadable(&e))?;
        if head.len() == before || !head[before..].trim_ascii().is_empty() {
            break;
        }
    }
    let first = head.trim_ascii();
    let whole = first.starts_with(b"{") && json::well_formed(first).is_ok();
    let format = if whole && more_follows(&mut stream, &mut head)? { Format::Ndjson } else { Format::Json };
    Ok((Box::new(Cursor::new(head).chain(stream)), format))
}

fn more_follows(stream: &mut Stream, head: &mut Vec<u8>) -> Result<bool, Problem> {
    loop {
        let next = stream.fill_buf().map_err(|e| unreadable(&e))?;
        if next.is_empty() {
            return Ok(false);
        }
        if !next.trim_ascii().is_empty() {
            return Ok(true);
        }
        let blank = next.len();
        head.extend_from_slice(next);
        stream.consume(blank);
    }
}

struct Lines {
    stream: Stream,
    number: u64,
    is_empty: bool,
}

impl Lines {
    fn next(&mut self) -> Option<(Place, Result<Named, Problem>)> {
        loop {
            self.number += 1;
            let place = Place::Line(self.number);
            let found = match read_line(&mut self.stream) {
                Ok(None) if std::mem::take(&mut self.is_empty) => {
                    return Some((Place::Whole, Err(Problem::Empty)));
                }
                Ok(None) => return None,
                Ok(Some(Line::TooLong)) => Err(Problem::LineTooLong),
                Ok(Some(Line::Whole(bytes))) => {
                    let line = bytes.trim_ascii();
                    if line.is_empty() {
                        continue;
                    }
                    named(line, None, &Entries::default())
                        .map_err(|problem| in_line(problem, self.number as usize))
                }
                Err(error) => Err(unreadable(&error)),
            };
            self.is_empty = false;
            return Some((place, found));
        }
    }
}

enum Line {
    Whole(Vec<u8>),
    TooLong,
}

/// Reads up to the next line end; none at the end of the stream. Of a line that is too long it keeps nothing.
fn read_line(stream: &mut Stream) -> io::Result<Option<Line>> {
    let mut line = Vec::new();
    stream.by_ref().take(LINE_MAX_BYTES as u64 + 1).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.len() <= LINE_MAX_BYTES || line.ends_with(b"\n") {
        return Ok(Some(Line::Whole(line)));
    }
    stream.skip_until(b'\n')?;
    Ok(Some(Line::TooLong))
}

impl Document {
    fn next(&mut self) -> Option<(Place, Result<Named, Problem>)> {
        let piece = self.pieces.next()?;
        let is_of_whole = self.alone || piece.number == 0;
        let place = if is_of_whole { Place::Whole } else { Place::Entry(piece.number) };
        let full_url = piece.full_url.map(|range| &self.bytes[range]);
        let text = self.bytes[piece.range.clone()].trim_ascii();
        let found = piece.problem.map_or_else(|| named(text, full_url, &piece.entries), Err);
        Some((place, found.map_err(|problem| below(problem, &self.bytes[..piece.range.start]))))
    }
}

/// Places a problem in the file, in which this stands before the record.
fn below(mut problem: Problem, before: &[u8]) -> Problem {
    if let Problem::InvalidJson { line, column, .. } | Problem::CutOff { line, column } = &mut problem {
        if *line == 1 {
            *column += before.iter().rev().take_while(|b| **b != b'\n').count();
        }
        *line += before.iter().filter(|b| **b == b'\n').count();
    }
    problem
}

/// Places a problem in this line of a file.
fn in_line(mut problem: Problem, number: usize) -> Problem {
    if let Problem::InvalidJson { line, .. } | Problem::CutOff { line, .. } = &mut problem {
        *line = number;
    }
    problem
}

fn unreadable(error: &io::Error) -> Problem {
    Problem::Unreadable(error.to_string())
}
