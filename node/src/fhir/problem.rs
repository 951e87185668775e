//! Why a piece of JSON cannot become a record. Each problem says what is wrong and what to do about it, and
//! none of them repeats a value from the record: these messages reach terminals and logs, where clinical
//! values must not go. Names of elements and positions in the file are shown, because they are what a person
//! needs to find the spot.

use super::import::{FILE_MAX_BYTES, LINE_MAX_BYTES, RECORD_MAX_BYTES};
use super::json::NESTING_MAX;

/// What is wrong with one record, or with the file that holds it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The file or folder could not be read.
    #[error("it could not be read: {0}")]
    Unreadable(String),
    /// The bytes are not UTF-8.
    #[error("it is not UTF-8 text")]
    NotUtf8,
    /// Nothing but white space.
    #[error("there is nothing in it")]
    Empty,
    /// Not JSON. The position is the one in the file.
    #[error("it is not valid JSON: {what} (line {line}, column {column})")]
    InvalidJson {
        /// What the parser says; never a value.
        what: String,
        /// The line in the file, from 1.
        line: usize,
        /// The byte in the line, from 1.
        column: usize,
    },
    /// JSON as far as it goes. The position is the one in the file.
    #[error(
        "it ends in the middle (line {line}, column {column}): it was cut off, or a bracket or a quote is missing"
    )]
    CutOff {
        /// The line in the file, from 1.
        line: usize,
        /// The byte in the line, from 1.
        column: usize,
    },
    /// One object names an element twice, so that it has two answers to one question.
    #[error("{0} stands twice in one object")]
    DuplicateKey(String),
    /// A string holds half of a surrogate pair, which is no character.
    #[error("a string holds half of a character (a lone \\uD800 to \\uDFFF)")]
    LoneSurrogate,
    /// Objects and arrays inside one another beyond the limit.
    #[error("it is nested deeper than {NESTING_MAX} levels")]
    TooDeep,
    /// A key that the JSON library would take for a sign of its own.
    #[error("it uses a key beginning with \"$serde_json::private::\", which is reserved")]
    ReservedKey,
    /// Valid JSON, but not an object.
    #[error("it is not a JSON object")]
    NotAnObject,
    /// No resourceType, or not one that FHIR allows.
    #[error("its resourceType is missing or is not the name of a FHIR resource type")]
    NoResourceType,
    /// An id that FHIR does not allow.
    #[error("its id is not 1 to 128 of A-Z, a-z, 0-9, '-' and '.'")]
    BadId,
    /// An entry of a bundle without a resource, such as a deletion.
    #[error("this bundle entry holds no resource")]
    NoResource,
    /// A reference to what is no entry of its Bundle, of which entries were lost.
    #[error(
        "it refers to what may be a lost entry of its Bundle, of which a part is cut off or cannot be read"
    )]
    LostEntry,
    /// The record is larger than a record may be.
    #[error("it is larger than {} kB", RECORD_MAX_BYTES / 1000)]
    RecordTooLarge,
    /// Text longer than is read into memory, with all that is attached to it.
    #[error("with what is attached to it, it is longer than {} MB", LINE_MAX_BYTES / 1_000_000)]
    TextTooLong,
    /// A line longer than is read into memory.
    #[error("the line is longer than {} kB", LINE_MAX_BYTES / 1000)]
    LineTooLong,
    /// A JSON file larger than is read into memory.
    #[error("the file is larger than {} MB", FILE_MAX_BYTES / 1_000_000)]
    FileTooLarge,
}

impl Problem {
    /// What the person who sees the problem can do about it.
    pub fn what_to_do(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "check that it exists and that this user may read it, then import again",
            Self::NotUtf8 => "save it as UTF-8 and import it again",
            Self::InvalidJson { .. } => "correct it, or export it anew from where it came",
            Self::Empty => "if it should have held something, bring it again from where it came",
            Self::CutOff { .. } | Self::LostEntry => {
                "bring the whole file again from where it came, and import that"
            }
            Self::DuplicateKey(_) => "ask the source which of the two is right and keep that one",
            Self::LoneSurrogate => "write the character whole, as UTF-8 text, and import it again",
            Self::TooDeep => "check that it is a FHIR resource; none needs to be so deep",
            Self::ReservedKey => "remove the element; it is not part of FHIR",
            Self::NotAnObject => "give one FHIR resource, {\"resourceType\": ...}, in its place",
            Self::NoResourceType => "add the resourceType, such as \"Patient\"",
            Self::BadId => "give it an id that FHIR allows, and change the references to it alike",
            Self::NoResource => "nothing was imported for it; if it is a deletion, delete the record here",
            Self::TextTooLong => {
                "an attachment may have 32 MiB; keep larger files where they are, and give their place as a URL"
            }
            Self::RecordTooLarge => "keep large files apart, as attachments or with a URL",
            Self::LineTooLong => "put one resource on each line, each with its own line end",
            Self::FileTooLarge => "convert it to NDJSON, one resource a line, or split it",
        }
    }
}
