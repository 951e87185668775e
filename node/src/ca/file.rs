//! Requests for certificates and their answers as files, for a stick.
//!
//! A file is three lines of text: what it is and its version, the request or answer as one line of JSON, and the
//! SHA-256 of the two lines before (each with its line feed) in hexadecimal. What always holds: nothing in a file is
//! secret; a file that is not whole or not as it was written is told from one that is refused; an answer names the
//! request to which it belongs. Not here: what is asked, answered and checked (`enrol`, `renew`): the checksum proves
//! nothing about who wrote a file.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::enrol::{RESPONSE_MAX_BYTES, Response};

/// Largest file, in bytes: the largest answer, and what stands around it.
pub const FILE_MAX_BYTES: u64 = RESPONSE_MAX_BYTES as u64 + 1_024;
/// The version of the format.
const VERSION: &str = "1";
/// Length of the last line, in characters.
const CHECKSUM_CHARS: usize = 64;

/// What a file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A request of [`super::enrol::Request`].
    Enrolment,
    /// A request of [`super::renew::Request`].
    Renewal,
    /// An [`Answer`] to either.
    Answer,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Enrolment, Kind::Renewal, Kind::Answer];

    /// The first word of the file.
    fn magic(self) -> &'static str {
        match self {
            Kind::Enrolment => "tuyen-enrolment",
            Kind::Renewal => "tuyen-renewal",
            Kind::Answer => "tuyen-answer",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Enrolment => "a request to enrol",
            Kind::Renewal => "a request to renew",
            Kind::Answer => "an answer",
        })
    }
}

/// Why a file is not taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FileError {
    /// Something else altogether.
    #[error(
        "this is no request for certificates and no answer to one; look for the right file on the stick. Nothing was \
         changed"
    )]
    Foreign,
    /// The wrong one of the two.
    #[error("this is {found}, and {wanted} is needed here; look for the other file. Nothing was changed")]
    Kind {
        /// What it is.
        found: Kind,
        /// What it should be, for people.
        wanted: &'static str,
    },
    /// A format to come.
    #[error(
        "this file is of another format than {VERSION}; compare `tuyen --version` on both nodes. Nothing was changed"
    )]
    Version,
    /// It ends early.
    #[error(
        "this file is cut off: the copy to the stick was not finished, or the stick is damaged; copy or make it again. \
         Nothing was changed"
    )]
    CutOff,
    /// It is not as it was written.
    #[error(
        "this file is not as it was written: the stick is damaged, or somebody has changed it; copy or make it again. \
         Nothing was changed"
    )]
    Altered,
    /// An answer to something else.
    #[error(
        "this answer belongs to another request than the one that waits here: one of another node or an earlier one, or it \
         has been taken already; look for the answer to the last request. Nothing was changed"
    )]
    OtherRequest,
}

/// The text of a file.
pub fn write(kind: Kind, json: &[u8]) -> String {
    let json = str::from_utf8(json).expect("JSON is UTF-8");
    let body = format!("{} {VERSION}\n{json}\n", kind.magic());
    let checksum = checksum(&body);
    body + &checksum + "\n"
}

/// What a file is, and the JSON in it. Line ends of other systems are taken as well.
pub fn read(text: &[u8]) -> Result<(Kind, &[u8]), FileError> {
    let is_ours = || Kind::ALL.iter().any(|kind| text.starts_with(kind.magic().as_bytes()));
    let text =
        str::from_utf8(text).map_err(|_| if is_ours() { FileError::Altered } else { FileError::Foreign })?;
    let mut lines = text.lines();
    let (magic, version) = lines.next().and_then(|line| line.split_once(' ')).ok_or(FileError::Foreign)?;
    let kind = Kind::ALL.into_iter().find(|kind| kind.magic() == magic).ok_or(FileError::Foreign)?;
    if version != VERSION {
        return Err(FileError::Version);
    }
    let (Some(json), Some(sum)) = (lines.next(), lines.next()) else { return Err(FileError::CutOff) };
    if sum.len() < CHECKSUM_CHARS && lines.next().is_none() {
        return Err(FileError::CutOff);
    }
    if sum != checksum(&format!("{magic} {version}\n{json}\n")) || lines.next().is_some() {
        return Err(FileError::Altered);
    }
    Ok((kind, json.as_bytes()))
}

fn checksum(body: &str) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(body))
}

/// The answer of a parent, with the request to which it belongs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The SHA-256 of the request's JSON, in hexadecimal.
    request: String,
    response: Response,
}

impl Answer {
    /// The file of an answer to the request with this JSON.
    pub fn write(request: &[u8], response: Response) -> String {
        let answer = Answer { request: name(request), response };
        write(Kind::Answer, &serde_json::to_vec(&answer).expect("an answer has only strings and numbers"))
    }

    /// Reads the file of an answer to the request with this JSON. Nothing is checked of what the parent says.
    pub fn read(text: &[u8], request: &[u8]) -> Result<Response, FileError> {
        let (kind, json) = read(text)?;
        if kind != Kind::Answer {
            return Err(FileError::Kind { found: kind, wanted: "the answer to it" });
        }
        // Its checksum is right: another program has written it.
        let answer: Answer = serde_json::from_slice(json).map_err(|_| FileError::Version)?;
        if answer.request != name(request) {
            return Err(FileError::OtherRequest);
        }
        Ok(answer.response)
    }
}

fn name(request: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(request))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &[u8] = br#"{"any":"thing"}"#;

    fn refused() -> Response {
        Response::Refused { code: 203, text: "too late".into() }
    }

    #[test]
    fn a_file_is_read_as_it_was_written() {
        for kind in Kind::ALL {
            let text = write(kind, REQUEST);
            assert_eq!(read(text.as_bytes()), Ok((kind, REQUEST)));
            assert_eq!(read(text.replace('\n', "\r\n").as_bytes()), Ok((kind, REQUEST)));
            assert_eq!(read(text.trim_end().as_bytes()), Ok((kind, REQUEST)));
        }
        let answer = Answer::write(REQUEST, refused());
        assert!(matches!(Answer::read(answer.as_bytes(), REQUEST), Ok(Response::Refused { code: 203, .. })));
    }

    #[test]
    fn what_is_not_a_whole_file_is_told() {
        let good = write(Kind::Enrolment, REQUEST);
        let body = "tuyen-enrolment 1\n".len();
        for length in body - 1..good.len() - 1 {
            assert_eq!(read(&good.as_bytes()[..length]), Err(FileError::CutOff), "{length}");
        }
        for at in body..good.len() - 1 {
            let mut altered = good.clone().into_bytes();
            altered[at] = if altered[at] == b'x' { b'y' } else { b'x' };
            let found = read(&altered);
            assert!(matches!(found, Err(FileError::Altered | FileError::CutOff)), "{at}: {found:?}");
        }
        assert_eq!(read(format!("{good}more\n").as_bytes()), Err(FileError::Altered));
        assert_eq!(read(good.replacen(" 1\n", " 2\n", 1).as_bytes()), Err(FileError::Version));
        for foreign in
            [&b""[..], b"tuyen-enrol", b"tuyen-card 1\nAAAA\n", b"tuyen-bundle\x01age", b"\xff\xfe"]
        {
            assert_eq!(read(foreign), Err(FileError::Foreign));
        }
    }

    #[test]
    fn an_answer_belongs_to_one_request() {
        let answer = Answer::write(REQUEST, refused());
        assert_eq!(Answer::read(answer.as_bytes(), b"{}").unwrap_err(), FileError::OtherRequest);
        let request = write(Kind::Renewal, REQUEST);
        let found = Answer::read(request.as_bytes(), REQUEST).unwrap_err();
        assert!(matches!(found, FileError::Kind { found: Kind::Renewal, .. }), "{found}");
        let other = write(Kind::Answer, b"{}");
        assert_eq!(Answer::read(other.as_bytes(), REQUEST).unwrap_err(), FileError::Version);
    }
}
