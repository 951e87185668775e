//! How numbers, times, values and tables look to people, and times to programs. What always holds: a time
//! that a wrong clock made is shown as it is and breaks nothing; a value is never cut in the middle of a
//! character. Everything here is a function of its arguments: whoever needs the present time brings it.

use std::fmt::Write;

use node::admin::Progress;
use serde_json::{Value, value::RawValue};
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

/// Longest value that is shown to people, in characters; JSON output has the whole.
pub const VALUE_MAX_CHARS: usize = 90;

/// The present time in milliseconds since 1970, by this machine's clock.
pub fn now_millis() -> i64 {
    i64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

fn date(millis: i64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000).ok()
}

/// A time for programs, in RFC 3339 and UTC; the bare milliseconds of a time that has no year of four digits.
pub fn rfc3339(millis: i64) -> String {
    date(millis).and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| millis.to_string())
}

fn vietnam(millis: i64) -> Option<OffsetDateTime> {
    let offset = UtcOffset::from_hms(7, 0, 0).expect("seven hours is an offset");
    date(millis).and_then(|at| at.checked_to_offset(offset))
}

/// A time for people: Vietnam's, which has had one offset and no summer time since 1975.
pub fn local(millis: i64) -> String {
    let Some(at) = vietnam(millis) else { return format!("{millis} ms since 1970") };
    let (year, month, day) = at.to_calendar_date();
    format!("{year:04}-{:02}-{day:02} {:02}:{:02}", u8::from(month), at.hour(), at.minute())
}

/// The same to the second.
pub fn local_to_the_second(millis: i64) -> String {
    match vietnam(millis) {
        Some(at) => format!("{}:{:02}", local(millis), at.second()),
        None => local(millis),
    }
}

/// A length of time: `45 s`, `3 h`, `2 days`.
pub fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// The same with what is left of the unit: `3 h 12 min`.
pub fn exact_age(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{minutes} min {} s", seconds % 60),
        3_600..86_400 => format!("{hours} h {minutes} min"),
        _ => format!("{} {hours} h", many(days, "day", "days")),
    }
}

/// How long ago something was: `3 h ago`; the future comes of a wrong clock, here or there.
pub fn ago(at: i64, now: i64) -> String {
    let seconds = now.saturating_sub(at) / 1_000;
    match u64::try_from(seconds) {
        Ok(0..2) => "just now".into(),
        Ok(seconds) => format!("{} ago", age(seconds)),
        Err(_) if seconds > -5 => "just now".into(),
        Err(_) => format!("{} from now", age(seconds.unsigned_abs())),
    }
}

/// A number with its thousands apart: `1,204`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number of things: `1 record`, `1,204 records`.
pub fn many(number: u64, one: &str, more: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { more })
}

/// An amount of data: `812 B`, `2.4 MB`.
pub fn bytes(number: u64) -> String {
    let units = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if number < 1_000 {
        return format!("{number} B");
    }
    let mut tenths = number / 100;
    let mut unit = 0;
    while tenths >= 10_000 && unit + 1 < units.len() {
        tenths /= 1_000;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, units[unit])
}

/// How far long work has come.
pub fn progress(step: &Progress) -> String {
    let done = count(step.done);
    match step.total {
        Some(total) if total > 0 => {
            let percent = step.done.min(total).saturating_mul(100) / total;
            format!("{}: {done} of {} ({percent} %)", step.what, count(total))
        }
        _ => format!("{}: {done}", step.what),
    }
}

/// How safe an entry is, for people.
pub fn safe(safe: &str) -> &str {
    match safe {
        "damaged" => "damaged here",
        "secret" => "here, secret",
        "marked_later" => "marked secret later; may have left before",
        "local" => "only here",
        "hub" => "at the hub",
        "root" => "at the centre",
        other => other,
    }
}

/// A text without what steers a terminal: control characters, but for line breaks and tabs, and the marks that turn the
/// direction of writing, by which a text can be made to look like another one.
pub fn harmless(text: &str) -> String {
    let steers = |c: char| {
        (c.is_control() && !matches!(c, '\n' | '\t'))
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if steers(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// A text on one line.
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A text on one line and of so many characters at most.
pub fn shorten(text: &str, most: usize) -> String {
    let text = one_line(text);
    if text.chars().count() <= most {
        return text;
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// Rows with their columns aligned, two spaces apart and without trailing blanks.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cells = |column: usize| rows.iter().filter_map(move |row| row.get(column));
    let width = |column| cells(column).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Values that answer the same question, each as short as it can be while showing how it differs from the
/// others: of objects only the members that are not the same in all of them.
pub fn differing(values: &[Option<&RawValue>]) -> Vec<String> {
    let parsed: Option<Vec<Value>> =
        values.iter().flatten().map(|raw| serde_json::from_str(raw.get()).ok()).collect();
    let whole = |raw: &Option<&RawValue>| match raw {
        Some(raw) => shorten(raw.get(), VALUE_MAX_CHARS),
        None => "(deleted)".into(),
    };
    let flat: Vec<Vec<(String, String)>> = match parsed {
        Some(all) if all.len() > 1 && all.iter().all(Value::is_object) => all.iter().map(members).collect(),
        _ => return values.iter().map(whole).collect(),
    };
    let mut described = flat.iter().map(|own| {
        let differs = |member: &&(String, String)| !flat.iter().all(|other| other.contains(member));
        let parts: Vec<String> =
            own.iter().filter(differs).map(|(at, text)| format!("{at}: {text}")).collect();
        if parts.is_empty() {
            "(less than the others)".into()
        } else {
            shorten(&parts.join(", "), VALUE_MAX_CHARS)
        }
    });
    let mut next = |raw: &Option<&RawValue>| match raw {
        Some(_) => described.next().unwrap_or_default(),
        None => "(deleted)".into(),
    };
    values.iter().map(&mut next).collect()
}

/// All values inside a value, each with its path.
fn members(value: &Value) -> Vec<(String, String)> {
    fn walk(at: &str, value: &Value, found: &mut Vec<(String, String)>) {
        match value {
            Value::Object(object) if !object.is_empty() => {
                for (name, inner) in object {
                    let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                    walk(&path, inner, found);
                }
            }
            Value::Array(array) if !array.is_empty() => {
                for (i, inner) in array.iter().enumerate() {
                    let path = if array.len() == 1 { at.to_owned() } else { format!("{at}[{i}]") };
                    walk(&path, inner, found);
                }
            }
            other => found.push((at.to_owned(), other.to_string())),
        }
    }
    let mut found = Vec::new();
    walk("", value, &mut found);
    found
}

/// JSON on many lines, for reading. Only white space is added: every token stays as it is written.
pub fn indented(json: &str) -> String {
    let mut out = String::new();
    let mut depth: usize = 0;
    let mut chars = json.chars().peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        (0..depth).for_each(|_| out.push_str("  "));
    };
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                out.push(c);
                string(&mut chars, &mut out);
            }
            '{' | '[' => {
                out.push(c);
                while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
                if let Some(close) = chars.next_if(|c| matches!(c, '}' | ']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => out.push(c),
        }
    }
    out
}

/// Copies the rest of a string, behind its opening quote.
fn string(chars: &mut impl Iterator<Item = char>, out: &mut String) {
    let mut escaped = false;
    for c in chars {
        out.push(c);
        match c {
            '"' if !escaped => return,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn what_others_wrote_does_not_steer_the_terminal() {
        assert_eq!(
            harmless("a\x1b[2Jb\r\u{9b}c\u{202e}d\n\te"),
            "a\u{fffd}[2Jb\u{fffd}\u{fffd}c\u{fffd}d\n\te"
        );
        assert_eq!(harmless("Nguyễn Thị Đặng"), "Nguyễn Thị Đặng");
        assert_eq!(one_line("a\n  b\tc \n"), "a b c");
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1_204, 1_000_000].map(count), ["0", "999", "1,204", "1,000,000"]);
        assert_eq!(many(1, "record", "records"), "1 record");
        assert_eq!(many(1_204, "record", "records"), "1,204 records");
        let sizes = [812, 1_000, 2_449_000, 999_999_999, 1_000_000_000].map(bytes);
        assert_eq!(sizes, ["812 B", "1.0 kB", "2.4 MB", "999.9 MB", "1.0 GB"]);
        assert_eq!(bytes(u64::MAX), "18.4 EB");
    }

    #[test]
    fn times_read_well() {
        assert_eq!(
            [0, 59, 60, 3_599, 3_600, 172_799, 172_800].map(age),
            ["0 s", "59 s", "1 min", "59 min", "1 h", "47 h", "2 days"]
        );
        assert_eq!(
            [0, 59, 60, 3_599, 3_600, 86_399, 86_400, 180_000].map(exact_age),
            [
                "0 s",
                "59 s",
                "1 min 0 s",
                "59 min 59 s",
                "1 h 0 min",
                "23 h 59 min",
                "1 day 0 h",
                "2 days 2 h"
            ]
        );
        assert_eq!(ago(0, 1_500), "just now");
        assert_eq!(ago(0, 3 * 3_600_000), "3 h ago");
        assert_eq!(ago(120_000, 0), "2 min from now");
        assert_eq!(ago(i64::MIN, i64::MAX), format!("{} ago", age(i64::MAX as u64 / 1_000)));
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(1_763_794_800_250), "2025-11-22T07:00:00.25Z");
        assert_eq!(rfc3339(i64::MAX), i64::MAX.to_string());
        assert_eq!(local(1_763_794_800_250), "2025-11-22 14:00");
        assert_eq!(local_to_the_second(1_763_794_800_250), "2025-11-22 14:00:00");
        assert_eq!(local_to_the_second(i64::MIN), local(i64::MIN));
        assert_eq!(local(i64::MIN), format!("{} ms since 1970", i64::MIN));
    }

    #[test]
    fn progress_reads_well() {
        let step = |done, total| Progress { what: "entries to send".into(), done, total };
        assert_eq!(progress(&step(250, Some(1_000))), "entries to send: 250 of 1,000 (25 %)");
        assert_eq!(progress(&step(1_250, None)), "entries to send: 1,250");
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(shorten("Đặng\n Thị  Nguyệt", 20), "Đặng Thị Nguyệt");
        assert_eq!(shorten("Đặng Thị Nguyệt", 6), "Đặng …");
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["Hà Giang".into(), "1".into()], vec!["x".into(), "22".into(), String::new()]];
        assert_eq!(table(&rows), "Hà Giang  1\nx         22\n");
    }

    #[test]
    fn values_show_what_differs() {
        let (one, two) = (
            raw(r#"{"text":"Uống","doseAndRate":[{"doseQuantity":{"value":0.50,"unit":"viên"}}]}"#),
            raw(r#"{"text":"Uống","doseAndRate":[{"doseQuantity":{"value":1,"unit":"viên"}}]}"#),
        );
        let shown = differing(&[Some(&one), None, Some(&two)]);
        assert_eq!(
            shown,
            ["doseAndRate.doseQuantity.value: 0.50", "(deleted)", "doseAndRate.doseQuantity.value: 1"]
        );
        assert_eq!(
            differing(&[Some(&raw(r#"{"a":1}"#)), Some(&raw(r#"{"a":1,"b":[]}"#))]),
            ["(less than the others)", "b: []"]
        );
        let dates = differing(&[Some(&raw(r#""1961-02-03""#)), Some(&raw(r#""1961-03-02""#))]);
        assert_eq!(dates, [r#""1961-02-03""#, r#""1961-03-02""#]);
    }

    #[test]
    fn indenting_changes_no_token() {
        let text = r#"{"a":[1E-22,80.00,{}],"b":"x\",{[:\\","c":[ ],"d":{"e":null}}"#;
        let shown = indented(text);
        assert!(shown.starts_with("{\n  \"a\": [\n    1E-22,\n    80.00,\n    {}\n  ],\n"), "{shown}");
        assert!(shown.contains(r#""b": "x\",{[:\\","#) && shown.ends_with("\"e\": null\n  }\n}"), "{shown}");
        assert_eq!(indented(&shown), shown);
    }
}
