//! Strict reading of JSON. serde_json is quiet about things that a medical record must not be vague on: of
//! two equal keys it takes the last and forgets the first, and with `arbitrary_precision` and `raw_value` it
//! takes an object with one of its private keys for a number or for embedded JSON. This module refuses both,
//! and names the limit on nesting. It also spells exponents its own way, `1E5` as `1e+5`; here they keep their
//! spelling. What always holds of a value that it returns: every object's keys were different, every string is
//! whole characters, and every number is written as it was. Use it for all JSON that comes from outside, not
//! only for files.

use std::{borrow::Cow, collections::HashSet, iter::Peekable};

use serde_json::{Number, Value};

use super::problem::Problem;

/// How deeply objects and arrays may lie in one another. The deepest of HL7's R4 examples has 21 levels.
pub const NESTING_MAX: usize = 100;
/// Longest key that a problem shows; a longer one is not an element's name.
const SHOWN_KEY_MAX_BYTES: usize = 64;
const PRIVATE_KEYS: &str = "$serde_json::private::";

/// Reads one JSON value, strictly.
pub fn parse(bytes: &[u8]) -> Result<Value, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|_| Problem::NotUtf8)?;
    // The scan comes first, and syntax errors second: the parser would call too deep a nesting and a lone
    // surrogate by other names. A duplicate counts only in what is JSON at all.
    let mut exponents = Exponents::default();
    let flaw = scan(text, &mut exponents);
    match flaw {
        Some(Problem::DuplicateKey(_)) | None => {}
        Some(other) => return Err(other),
    }
    let mut value = serde_json::from_str(text).map_err(|e| syntax(&e))?;
    exponents.respell(&mut value);
    flaw.map_or(Ok(value), Err)
}

/// The numbers of a text that have an exponent, each with how many numbers stand before it.
#[derive(Default)]
struct Exponents<'a> {
    numbers: usize,
    found: Vec<(usize, &'a str)>,
}

impl<'a> Exponents<'a> {
    fn add(&mut self, number: &'a str) {
        if number.contains(['e', 'E']) {
            self.found.push((self.numbers, number));
        }
        self.numbers += 1;
    }

    /// Writes them into the parsed value, whose numbers stand in the order of the text.
    fn respell(self, value: &mut Value) {
        if !self.found.is_empty() {
            walk(value, &mut 0, &mut self.found.into_iter().peekable());
        }
    }
}

fn walk<'a>(value: &mut Value, at: &mut usize, found: &mut Peekable<impl Iterator<Item = (usize, &'a str)>>) {
    match value {
        Value::Number(number) => {
            if let Some((_, spelling)) = found.next_if(|(ordinal, _)| ordinal == at) {
                *number = Number::from_string_unchecked(spelling.to_owned());
            }
            *at += 1;
        }
        Value::Array(items) => items.iter_mut().for_each(|item| walk(item, at, found)),
        Value::Object(members) => members.values_mut().for_each(|member| walk(member, at, found)),
        _ => {}
    }
}

fn syntax(error: &serde_json::Error) -> Problem {
    if error.is_eof() {
        return Problem::CutOff { line: error.line(), column: error.column() };
    }
    let message = error.to_string();
    let what = message.rsplit_once(" at line ").map_or(message.as_str(), |(what, _)| what).to_owned();
    Problem::InvalidJson { what, line: error.line(), column: error.column() }
}

/// Whether the bytes are one JSON value, without keeping it.
pub fn well_formed(bytes: &[u8]) -> Result<(), Problem> {
    serde_json::from_slice::<serde::de::IgnoredAny>(bytes).map(drop).map_err(|e| syntax(&e))
}

/// An object or an array that the scan is inside of.
enum Open<'a> {
    Object(Keys<'a>),
    Array,
}

/// The keys of one object. Nearly every object has few, and for few a list is the fastest; for very many it
/// would take an attacker's time squared.
#[derive(Default)]
struct Keys<'a> {
    first: Vec<Cow<'a, str>>,
    more: HashSet<Cow<'a, str>>,
}

impl<'a> Keys<'a> {
    const FIRST_MAX: usize = 16;

    /// Adds a key; gives it back if it is there already.
    fn add(&mut self, key: Cow<'a, str>) -> Option<Cow<'a, str>> {
        if self.first.contains(&key) || self.more.contains(&key) {
            return Some(key);
        }
        if self.first.len() < Self::FIRST_MAX {
            self.first.push(key);
        } else {
            self.more.insert(key);
        }
        None
    }
}

/// Looks for what the parser lets pass. The text need not be JSON; of other text the answer means nothing.
fn scan<'a>(text: &'a str, exponents: &mut Exponents<'a>) -> Option<Problem> {
    let bytes = text.as_bytes();
    let mut open: Vec<Open<'_>> = Vec::new();
    let mut duplicate = None;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'{' | b'[' if open.len() == NESTING_MAX => return Some(Problem::TooDeep),
            b'{' => open.push(Open::Object(Keys::default())),
            b'[' => open.push(Open::Array),
            b'}' | b']' => drop(open.pop()),
            b'"' => {
                let string = string_end(bytes, at)?;
                if string.lone_surrogate {
                    return Some(Problem::LoneSurrogate);
                }
                let inner = &text[at..string.end];
                at = string.end + 1;
                let Some(Open::Object(keys)) = open.last_mut() else { continue };
                if bytes[at..].trim_ascii_start().first() != Some(&b':') {
                    continue;
                }
                let key = unescape(inner, string.escaped);
                if key.starts_with(PRIVATE_KEYS) {
                    return Some(Problem::ReservedKey);
                }
                if let Some(twice) = keys.add(key) {
                    duplicate.get_or_insert_with(|| Problem::DuplicateKey(shown(&twice)));
                }
            }
            b'-' | b'0'..=b'9' => {
                let in_number = |b: &u8| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
                let length = bytes[at..].iter().take_while(|b| in_number(b)).count();
                exponents.add(&text[at - 1..at + length]);
                at += length;
            }
            _ => {}
        }
    }
    duplicate
}

fn unescape(inner: &str, escaped: bool) -> Cow<'_, str> {
    if escaped && let Ok(key) = serde_json::from_str::<String>(&format!("\"{inner}\"")) {
        return Cow::Owned(key);
    }
    Cow::Borrowed(inner)
}

/// A key as it may be shown: an element's name, and nothing that could be somebody's data.
fn shown(key: &str) -> String {
    let is_name = !key.is_empty()
        && key.len() <= SHOWN_KEY_MAX_BYTES
        && key.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_');
    if is_name { format!("\"{key}\"") } else { "a key".to_owned() }
}

struct StringEnd {
    /// Where the closing quote stands.
    end: usize,
    escaped: bool,
    lone_surrogate: bool,
}

/// Walks a string from behind its opening quote; none if it never ends.
fn string_end(bytes: &[u8], mut at: usize) -> Option<StringEnd> {
    let mut string = StringEnd { end: 0, escaped: false, lone_surrogate: false };
    loop {
        match bytes.get(at)? {
            b'"' => return Some(StringEnd { end: at, ..string }),
            b'\\' => {
                string.escaped = true;
                match unit(bytes, at) {
                    Some(0xD800..=0xDBFF) if matches!(unit(bytes, at + 6), Some(0xDC00..=0xDFFF)) => at += 12,
                    Some(0xD800..=0xDFFF) => {
                        string.lone_surrogate = true;
                        at += 6;
                    }
                    _ => at += 2,
                }
            }
            _ => at += 1,
        }
    }
}

/// The UTF-16 unit of an escape `\uXXXX` at this place.
fn unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0u16, |unit, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(unit << 4 | u16::try_from(digit).ok()?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> Problem {
        parse(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn what_goes_in_comes_out() {
        for text in [
            r#"{"a":80.00,"b":1e+5,"c":1e-5,"d":-0,"e":0.1000000000000000000000000001,"f":1e+400}"#,
            r#"{"z":1,"a":[{},[],"",null,true],"_birthDate":{"extension":[]}}"#,
            "{\"name\":\"Đặng Thị Nguyệt \u{1F600}\"}",
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap().to_string(), text);
        }
        let numbers = r#"[1,1E5,{"a":-1.20e03,"b":[2,3E-07],"c":"1E9"},1e400,4]"#;
        assert_eq!(parse(numbers.as_bytes()).unwrap().to_string(), numbers, "exponents keep their spelling");
        assert_eq!(parse(br#""\ud83d\ude00\n""#).unwrap(), Value::from("\u{1F600}\n"));
        assert_eq!(parse(br#"["\\ud800"]"#).unwrap()[0], Value::from("\\ud800"));
    }

    #[test]
    fn two_equal_keys_are_refused_wherever_they_stand() {
        let twice = Problem::DuplicateKey("\"dose\"".into());
        assert_eq!(problem(r#"{"dose":1,"dose":2}"#), twice);
        assert_eq!(problem(r#"{"a":[{"x":1},{"dose":1,"y":{},"dose" : 1}]}"#), twice);
        assert_eq!(problem(r#"{"dose":1,"d\u006fse":2}"#), twice);
        let many: Vec<String> = (0..50).map(|n| format!("\"k{n}\":{n}")).collect();
        assert!(parse(format!("{{{}}}", many.join(",")).as_bytes()).is_ok());
        for n in [0, 16, 49] {
            let text = format!("{{{},{}}}", many.join(","), many[n]);
            assert_eq!(problem(&text), Problem::DuplicateKey("a key".into()));
        }
        assert!(parse(br#"{"a":{"b":1},"b":{"a":"b"},"c":["a","a"]}"#).is_ok());
        assert_eq!(problem(r#"{"1980 Nguyen":1,"1980 Nguyen":2}"#), Problem::DuplicateKey("a key".into()));
    }

    #[test]
    fn private_keys_of_the_library_are_refused() {
        assert_eq!(problem(r#"{"a":{"$serde_json::private::Number":"7"}}"#), Problem::ReservedKey);
        assert_eq!(problem(r#"{"\u0024serde_json::private::RawValue":"[]"}"#), Problem::ReservedKey);
    }

    #[test]
    fn half_characters_and_depth_are_refused() {
        for text in [r#"["\ud83d"]"#, r#"["\ude00"]"#, r#"["\ud83dx"]"#, r#"["\ud83d\ud83d\ude00"]"#] {
            assert_eq!(problem(text), Problem::LoneSurrogate, "{text}");
        }
        let nested = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse(nested(NESTING_MAX).as_bytes()).is_ok());
        assert_eq!(problem(&nested(NESTING_MAX + 1)), Problem::TooDeep);
        assert_eq!(problem(&"[".repeat(1_000_000)), Problem::TooDeep);
        assert!(parse(format!("[\"{}\"]", "[".repeat(500)).as_bytes()).is_ok());
    }

    #[test]
    fn what_is_not_json_is_told_by_its_place() {
        let wrong = problem("{\"a\":1,\n \"a\":}");
        assert!(matches!(wrong, Problem::InvalidJson { line: 2, column: 6, .. }), "{wrong}");
        assert_eq!(parse(b"{\"a\":\"\xff\"}"), Err(Problem::NotUtf8));
        for text in ["", "{", "\"", "\"\\", "\"\\u", "{\"a\"", "{}{}", "nul"] {
            let told = problem(text);
            assert!(matches!(told, Problem::InvalidJson { .. } | Problem::CutOff { .. }), "{text:?}");
        }
    }
}
