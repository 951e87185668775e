//! What stands in a register: one statement, or the presence of an element that has registers of its own.
//!
//! The text is lines. First `order|json` for an item of a repeating element, `json` otherwise; then, each on a line
//! of its own: `_` and the JSON of the primitive extension; `?` and the hash of a change that deleted this
//! element and is still disputed; `!` and the hash of one whose dispute somebody settled. A first line `-`, like
//! automerge's null, is a deletion. Compact JSON holds no line break. Empty lines mean nothing: they only make
//! a text different from the one it replaces, because automerge drops a write that changes nothing, and with it
//! the meeting of an edit and a deletion.

use std::fmt::Write as _;

use serde::de::IgnoredAny;

use crate::id::ChangeHash;

/// The JSON of a presence register.
pub(super) const PRESENT: &str = "{}";
/// The first line of the record's presence register.
const LIVE: &str = "live";
/// The first line of a deletion that has lines to carry.
const DELETED: &str = "-";
/// Deepest JSON in one register and in one resource. With the deepest key it stays below serde_json's limit.
pub(super) const DEPTH_MAX: usize = 72;

/// How the first line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `live`: the record.
    Record,
    /// `json`: an element that does not repeat.
    Single,
    /// `order|json`: one item.
    Item,
}

/// One value of a register, read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Payload<'a> {
    pub deleted: bool,
    /// The place among the items; empty when there is none.
    pub order: &'a str,
    /// Empty when only a primitive extension is there.
    pub json: &'a str,
    pub sibling: Option<&'a str>,
    pub disputed: Vec<ChangeHash>,
    pub settled: Vec<ChangeHash>,
}

impl<'a> Payload<'a> {
    /// Reads a value; `None` when it is nothing that this version understands.
    pub fn read(text: Option<&'a str>, form: Form) -> Option<Self> {
        let Some(text) = text else {
            return Some(Self { deleted: true, ..Self::default() });
        };
        let mut lines = text.split('\n');
        let mut payload = Self::first_line(lines.next()?, form)?;
        for line in lines {
            match line.as_bytes().first() {
                Some(b'_') => payload.sibling = Some(&line[1..]),
                Some(b'?') => payload.disputed.extend(line[1..].parse::<ChangeHash>()),
                Some(b'!') => payload.settled.extend(line[1..].parse::<ChangeHash>()),
                _ => {}
            }
        }
        let said = payload.deleted || !payload.json.is_empty() || payload.sibling.is_some();
        let sound = (payload.json.is_empty() || is_json(payload.json)) && payload.sibling.is_none_or(is_json);
        (said && sound).then_some(payload)
    }

    fn first_line(line: &'a str, form: Form) -> Option<Self> {
        if line == DELETED {
            return Some(Self { deleted: true, ..Self::default() });
        }
        let (order, json) = match form {
            Form::Record => ("", (line == LIVE).then_some(PRESENT)?),
            Form::Single => ("", line),
            Form::Item => line.split_once('|')?,
        };
        Some(Self { order, json, ..Self::default() })
    }

    /// Whether this says that an element with registers of its own is there.
    pub fn is_presence(&self) -> bool {
        !self.deleted && self.json == PRESENT && self.sibling.is_none()
    }

    /// The text of this value; `None` is automerge's null.
    pub fn write(&self, form: Form) -> Option<String> {
        if self.deleted && self.settled.is_empty() {
            return None;
        }
        let mut text = match form {
            _ if self.deleted => DELETED.to_owned(),
            Form::Record => LIVE.to_owned(),
            Form::Single => self.json.to_owned(),
            Form::Item => format!("{}|{}", self.order, self.json),
        };
        if let Some(sibling) = self.sibling {
            let _ = write!(text, "\n_{sibling}");
        }
        for hash in &self.disputed {
            let _ = write!(text, "\n?{hash}");
        }
        for hash in &self.settled {
            let _ = write!(text, "\n!{hash}");
        }
        Some(text)
    }
}

/// `text`, made different from every value that it replaces.
pub(super) fn distinct(text: Option<String>, from: &[Option<&str>]) -> Option<String> {
    let mut text = text;
    while from.contains(&text.as_deref()) {
        text = Some(text.map_or_else(|| DELETED.to_owned(), |t| t + "\n"));
    }
    text
}

/// Whether the text is one JSON value that is not too deep.
fn is_json(text: &str) -> bool {
    let (mut depth, mut deepest, mut quoted, mut escaped) = (0usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest <= DEPTH_MAX && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_written() {
        let hash = ChangeHash([7; 32]);
        let payload = Payload {
            order: "V",
            json: "\"a|b\"",
            sibling: Some("{\"id\":\"x\"}"),
            disputed: vec![hash],
            settled: vec![ChangeHash([8; 32]), hash],
            ..Payload::default()
        };
        let text = payload.write(Form::Item).unwrap();
        assert_eq!(Payload::read(Some(&text), Form::Item), Some(payload));
        assert_eq!(Payload::read(None, Form::Item).map(|p| p.deleted), Some(true));
        assert_eq!(Payload::read(Some("-\n"), Form::Single).map(|p| p.deleted), Some(true));
        for wrong in ["", "{", "{} {}", "V"] {
            assert_eq!(Payload::read(Some(wrong), Form::Item), None, "{wrong:?}");
        }
        let deep = "[".repeat(DEPTH_MAX + 1) + &"]".repeat(DEPTH_MAX + 1);
        assert_eq!(Payload::read(Some(&deep), Form::Single), None);
    }

    #[test]
    fn every_form_is_written_and_read() {
        let hash = "07".repeat(32);
        let settled = vec![ChangeHash([7; 32])];
        let present = Payload { json: PRESENT, ..Payload::default() };
        let beside = Payload { sibling: Some("{}"), ..Payload::default() };
        let gone = Payload { deleted: true, ..Payload::default() };
        for (payload, form, text) in [
            (present.clone(), Form::Record, Some("live".to_owned())),
            (present.clone(), Form::Single, Some("{}".to_owned())),
            (Payload { order: "V", ..present.clone() }, Form::Item, Some("V|{}".to_owned())),
            (beside.clone(), Form::Single, Some("\n_{}".to_owned())),
            (gone.clone(), Form::Item, None),
            (Payload { settled: settled.clone(), ..gone.clone() }, Form::Item, Some(format!("-\n!{hash}"))),
            (Payload { disputed: settled, ..present.clone() }, Form::Record, Some(format!("live\n?{hash}"))),
        ] {
            assert_eq!(payload.write(form), text);
            assert_eq!(Payload::read(text.as_deref(), form), Some(payload));
        }
        assert_eq!(Payload::read(Some("{}"), Form::Record), None);
        assert_eq!(Payload::read(Some("1\n_{"), Form::Single), None);
        for (payload, is_presence) in [
            (present.clone(), true),
            (gone, false),
            (beside, false),
            (Payload { json: "1", ..Payload::default() }, false),
            (Payload { sibling: Some("{}"), ..present.clone() }, false),
            (Payload { deleted: true, ..present }, false),
        ] {
            assert_eq!(payload.is_presence(), is_presence, "{payload:?}");
        }
    }

    #[test]
    fn depth_is_of_brackets_that_are_no_text() {
        let nested = |depth: usize, inner: &str| format!("{}{inner}{}", "[".repeat(depth), "]".repeat(depth));
        for (text, right) in [
            (nested(DEPTH_MAX, "1"), true),
            (nested(DEPTH_MAX + 1, "1"), false),
            (nested(DEPTH_MAX - 1, "{\"a\":1}"), true),
            (nested(DEPTH_MAX, "{\"a\":1}"), false),
            (nested(DEPTH_MAX, "\"[{\""), true),
            (nested(DEPTH_MAX, "\"\\\"[\""), true),
            (nested(DEPTH_MAX, "\"\\\\\",\"[\""), true),
            (nested(DEPTH_MAX, "\"a\",[]"), false),
            (nested(DEPTH_MAX, "\"\\\\\",[]"), false),
            (format!("[\"]]]\",{}]", nested(DEPTH_MAX, "1")), false),
            (nested(1, "[[]],[[]],{\"a\":[]}"), true),
            (format!("[{}1]", "[],{},".repeat(DEPTH_MAX)), true),
            ("[".to_owned(), false),
        ] {
            assert_eq!(is_json(&text), right, "{text}");
        }
    }

    #[test]
    fn a_write_is_never_the_text_that_it_replaces() {
        let text = distinct(None, &[None, Some("-"), Some("-\n")]);
        assert_eq!(text.as_deref(), Some("-\n\n"));
        assert_eq!(distinct(Some("live".into()), &[Some("live")]).as_deref(), Some("live\n"));
    }
}
