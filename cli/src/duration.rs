//! Lengths of time as people write them: `7d`, `12h`, `30min`, `1w2d`. What always holds: a length is a whole
//! number of seconds, at least one and at most ten years. Not here: points in time.

/// Longest length of time, in seconds: ten years.
pub const MAX_SECONDS: u64 = 10 * 365 * 24 * 60 * 60;

const UNITS: [(&str, u64); 7] =
    [("s", 1), ("min", 60), ("m", 60), ("h", 3_600), ("d", 86_400), ("w", 604_800), ("y", 31_536_000)];

/// Reads a length of time, in seconds.
pub fn parse(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is not a length of time; write it like 7d, 12h or 30min");
    let mut rest = text.trim();
    let mut seconds: u64 = 0;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let (_, length) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        seconds = number.checked_mul(*length).and_then(|n| seconds.checked_add(n)).ok_or_else(wrong)?;
        rest = after.trim_start();
    }
    match seconds {
        0 => Err("it must be at least one second".into()),
        1..=MAX_SECONDS => Ok(seconds),
        _ => Err("it must be at most ten years".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read() {
        for (text, seconds) in [
            ("7d", 604_800),
            ("12h", 43_200),
            ("30min", 1_800),
            ("30m", 1_800),
            ("1w2d", 777_600),
            ("1d 12h", 129_600),
            ("90s", 90),
            ("10y", MAX_SECONDS),
        ] {
            assert_eq!(parse(text), Ok(seconds), "{text}");
        }
        for wrong in ["", "7", "d", "-1d", "7 days", "0d", "11y", "1.5h", "99999999999999999999d", "7đ"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
