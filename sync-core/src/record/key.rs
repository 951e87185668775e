//! Names of registers: the path of one FHIR element inside its resource, such as `contact[91be].telecom[77d0]`.
//!
//! A step is an element's name, with the item's id in brackets when the element repeats. Any JSON name can be a
//! step: the characters that mean something here are written `%` and two hexadecimal digits, and a lone `%` is
//! the empty name. Keys that begin with `#` are not elements.

use std::fmt::Write as _;

/// The key of the record's own presence register.
pub(super) const STATE: &str = "#state";
/// Deepest path. A deeper element is kept whole in its parent; a deeper key from outside is not read.
pub(super) const STEPS_MAX: usize = 24;

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// The element's name as JSON has it.
    pub name: String,
    /// The item, of a repeating element.
    pub item: Option<String>,
}

fn is_special(c: char) -> bool {
    matches!(c, '%' | '[' | ']' | '.' | '#' | '|') || c.is_control()
}

/// The key of the element `name` inside `parent` (the record's own fields have an empty parent).
pub(super) fn child(parent: &str, name: &str) -> String {
    let mut key = String::with_capacity(parent.len() + 1 + name.len());
    key.push_str(parent);
    if !parent.is_empty() {
        key.push('.');
    }
    if name.is_empty() {
        key.push('%');
    }
    for c in name.chars() {
        if is_special(c) {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                let _ = write!(key, "%{byte:02X}");
            }
        } else {
            key.push(c);
        }
    }
    key
}

/// The key of one item of the repeating element `field`.
pub(super) fn item(field: &str, id: &str) -> String {
    format!("{field}[{id}]")
}

fn unescape(text: &str) -> Option<String> {
    if !text.contains('%') {
        return (!text.is_empty()).then(|| text.to_owned());
    }
    if text == "%" {
        return Some(String::new());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let hex = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// The steps of a key; none for the record itself; `None` for what is not an element's key.
pub(super) fn parse(key: &str) -> Option<Vec<Step>> {
    if key == STATE {
        return Some(Vec::new());
    }
    let mut steps = Vec::with_capacity(2);
    for part in key.split('.') {
        let (name, item) = match part.split_once('[') {
            None => (part, None),
            Some((name, rest)) => {
                let id = rest.strip_suffix(']')?;
                if id.is_empty() || !id.bytes().all(|b| b.is_ascii_alphanumeric()) {
                    return None;
                }
                (name, Some(id.to_owned()))
            }
        };
        if name.contains([']', '#', '|']) || steps.len() == STEPS_MAX {
            return None;
        }
        steps.push(Step { name: unescape(name)?, item });
    }
    Some(steps)
}

/// The FHIR path of a key, as policies name it: the type and the elements' names, without items.
pub(super) fn fhir_path(resource_type: &str, key: &str) -> String {
    let mut path = resource_type.to_owned();
    for step in parse(key).unwrap_or_default() {
        path.push('.');
        path.push_str(&step.name);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_survives() {
        for name in ["status", "", "a.b", "#state", "[x]", "%", "%41", "ngày|tháng", "a\nb", "_x", "😀"] {
            let key = item(&child(&item(&child("", name), "0af3"), name), "77");
            let steps = parse(&key).unwrap();
            let want = |id: &str| Step { name: name.to_owned(), item: Some(id.to_owned()) };
            assert_eq!(steps, [want("0af3"), want("77")], "{key}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for wrong in ["", "a..b", "a[", "a[]", "a[x]y", "a]", "#other", "%4", "%zz", "a[x/y]"] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
        for (steps, right) in [(STEPS_MAX, true), (STEPS_MAX + 1, false)] {
            assert_eq!(parse(&vec!["a"; steps].join(".")).is_some(), right, "{steps}");
        }
        assert_eq!(fhir_path("Patient", "contact[91].name"), "Patient.contact.name");
        assert_eq!(fhir_path("Patient", STATE), "Patient");
    }
}
