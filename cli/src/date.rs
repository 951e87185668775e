//! Days and hours as people write them: `2027-01-01`, `2027-01-01 06:00`, `now`. What always holds: they are Vietnam's, which
//! has had one distance from UTC and no summer time since 1975. Not here: lengths of time.

use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

use crate::render;

/// Reads a day or an hour, in milliseconds since 1970; `now` is the present by this machine's clock.
pub fn parse(text: &str) -> Result<i64, String> {
    if text == "now" {
        return Ok(render::now_millis());
    }
    let wrong = || format!("'{text}' is no day; write it like 2027-01-01, '2027-01-01 06:00' or now");
    let (day, hour) = text.split_once([' ', 'T']).unwrap_or((text, "00:00"));
    let day = numbers(day, '-').filter(|_| day.len() == 10).ok_or_else(wrong)?;
    let hour = numbers(hour, ':').filter(|_| hour.len() == 5).ok_or_else(wrong)?;
    at(&day, &hour).map(|at| at.unix_timestamp() * 1000).ok_or_else(wrong)
}

fn numbers(text: &str, between: char) -> Option<Vec<u16>> {
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok());
    text.split(between).map(|part| digits(part).flatten()).collect()
}

fn at(day: &[u16], hour: &[u16]) -> Option<OffsetDateTime> {
    let (&[year, month, day], &[hour, minute]) = (day, hour) else { return None };
    let small = |number: u16| u8::try_from(number).ok();
    let month = Month::try_from(small(month)?).ok()?;
    let date = Date::from_calendar_date(i32::from(year), month, small(day)?).ok()?;
    let time = Time::from_hms(small(hour)?, small(minute)?, 0).ok()?;
    Some(PrimitiveDateTime::new(date, time).assume_offset(UtcOffset::from_hms(7, 0, 0).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_vietnams() {
        for text in ["2027-01-01", "2027-01-01 00:00", "2027-01-01T00:00"] {
            assert_eq!(parse(text).map(render::rfc3339), Ok("2026-12-31T17:00:00Z".to_owned()), "{text}");
        }
        assert_eq!(parse("2028-02-29 23:59").map(render::local), Ok("2028-02-29 23:59".to_owned()));
        assert!((parse("now").unwrap() - render::now_millis()).abs() < 10_000);
        for wrong in [
            "",
            "soon",
            "2027-1-1",
            "2027-02-29",
            "2027-13-01",
            "01/01/2027",
            "2027-01-01 24:00",
            "2027-01-01 6",
            "+027-01-01",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
