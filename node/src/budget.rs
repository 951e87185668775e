//! What a node may use of its line to the parent: when bulk may go, how much of the line at which hour, how much in a
//! month.
//!
//! What always holds: everything here is a function of the settings, a time and a count; by default nothing is limited;
//! whatever the clock says, there is an answer. Local time has a fixed distance from UTC: Vietnam has no summer time. Not
//! here: who counts and who waits (the daemon).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, UtcOffset};

const MINUTE_MILLIS: i64 = 60_000;
const DAY_MINUTES: i64 = 24 * 60;
/// The clock of a lost machine is taken to be within the years that have four digits, with some room for the next month.
const TIMES: (i64, i64) = (-62_130_000_000_000, 253_380_000_000_000);
/// Slowest rate, in kbit/s: with less a batch takes longer than a link may be silent.
const RATE_MIN_KBITS: u32 = 8;
/// A megabyte, as lines are sold.
pub const MB: u64 = 1_000_000;

/// A setting that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BudgetError {
    /// Not a part of a day.
    #[error("'{0}' is no part of a day; write it like 22:00-05:00, with a beginning and an end that differ")]
    Window(String),
    /// Not a rate.
    #[error(
        "'{0}' is no rate; write it like '06:00-18:00 128 kbit/s' or '06:00-18:00 2 Mbit/s', with {RATE_MIN_KBITS} kbit/s \
         at least"
    )]
    Rate(String),
    /// Not an offset.
    #[error("'{0}' is no distance from UTC; write it like +07:00, with 14 hours at most")]
    Offset(String),
    /// Not a cap.
    #[error(
        "'{0}' is no amount for a month, which is a whole number of MB or GB, 1 MB at least; write it like '500 MB' or '2 GB', or 'none'"
    )]
    Cap(String),
}

/// A part of each day; it may cross midnight.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Window {
    from: i64,
    to: i64,
}

impl Window {
    /// The usual night.
    pub const NIGHT: Self = Self { from: 22 * 60, to: 5 * 60 };

    fn has(self, minute: i64) -> bool {
        match self.from < self.to {
            true => (self.from..self.to).contains(&minute),
            false => minute >= self.from || minute < self.to,
        }
    }
}

fn clock_time(text: &str) -> Option<i64> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |digits: &str| {
        let plain = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| digits.parse::<i64>().ok()).flatten()
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let minute = hours * 60 + minutes;
    (minutes < 60 && minute <= DAY_MINUTES).then_some(minute)
}

impl FromStr for Window {
    type Err = BudgetError;

    fn from_str(text: &str) -> Result<Self, BudgetError> {
        let ends = text.split_once('-').and_then(|(from, to)| Some((clock_time(from)?, clock_time(to)?)));
        let differ = |(from, to): &(i64, i64)| from != to && *from < DAY_MINUTES;
        ends.filter(differ)
            .map(|(from, to)| Self { from, to })
            .ok_or_else(|| BudgetError::Window(text.to_owned()))
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)
    }
}

/// How much of the line may be used in a part of each day.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate {
    window: Window,
    kbits: u32,
}

impl FromStr for Rate {
    type Err = BudgetError;

    fn from_str(text: &str) -> Result<Self, BudgetError> {
        let wrong = || BudgetError::Rate(text.to_owned());
        let (window, rate) = text.trim().split_once(' ').ok_or_else(wrong)?;
        let (number, unit) = number_and_unit(rate).ok_or_else(wrong)?;
        let factor = match unit {
            "kbit/s" => 1,
            "Mbit/s" => 1_000,
            _ => return Err(wrong()),
        };
        let kbits = u32::try_from(number).ok().and_then(|number| number.checked_mul(factor));
        let kbits = kbits.filter(|kbits| *kbits >= RATE_MIN_KBITS).ok_or_else(wrong)?;
        Ok(Self { window: window.parse().map_err(|_| wrong())?, kbits })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} kbit/s", self.window, self.kbits)
    }
}

/// A whole number and what is behind it.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start()))
}

/// How many megabytes a month may have, from `500 MB`, `2 GB` or `none`.
pub fn cap(text: &str) -> Result<Option<u64>, BudgetError> {
    if text.trim() == "none" {
        return Ok(None);
    }
    let wrong = || BudgetError::Cap(text.to_owned());
    let (number, unit) = number_and_unit(text).ok_or_else(wrong)?;
    let factor = match unit {
        "MB" => 1,
        "GB" => 1_000,
        _ => return Err(wrong()),
    };
    let megabytes = number.checked_mul(factor).filter(|mb| (1..=u64::MAX / MB).contains(mb));
    megabytes.map(Some).ok_or_else(wrong)
}

/// The distance of local time from UTC.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Offset {
    minutes: i64,
}

impl Offset {
    /// Vietnam's.
    pub const VIETNAM: Self = Self { minutes: 7 * 60 };

    fn local(self, at: i64) -> i64 {
        at.clamp(TIMES.0, TIMES.1) + self.minutes * MINUTE_MILLIS
    }

    fn minute_of_day(self, at: i64) -> i64 {
        self.local(at).div_euclid(MINUTE_MILLIS).rem_euclid(DAY_MINUTES)
    }

    fn date(self, at: i64) -> OffsetDateTime {
        let nanos = i128::from(self.local(at)) * 1_000_000;
        OffsetDateTime::from_unix_timestamp_nanos(nanos).expect("the time was brought into its limits")
    }

    /// A time for people: `2026-11-29 22:00`.
    pub fn show(self, at: i64) -> String {
        let date = self.date(at);
        let (year, month, day) = date.to_calendar_date();
        format!("{year:04}-{:02}-{day:02} {:02}:{:02}", u8::from(month), date.hour(), date.minute())
    }
}

impl FromStr for Offset {
    type Err = BudgetError;

    fn from_str(text: &str) -> Result<Self, BudgetError> {
        let wrong = || BudgetError::Offset(text.to_owned());
        let (sign, rest) = match text.split_at_checked(1) {
            Some(("+", rest)) => (1, rest),
            Some(("-", rest)) => (-1, rest),
            _ => return Err(wrong()),
        };
        let minutes = clock_time(rest).filter(|minutes| *minutes <= 14 * 60).ok_or_else(wrong)?;
        Ok(Self { minutes: sign * minutes })
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, minutes) = if self.minutes < 0 { ('-', -self.minutes) } else { ('+', self.minutes) };
        write!(f, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    }
}

macro_rules! written_as_text {
    ($($name:ident),*) => {$(
        impl TryFrom<String> for $name {
            type Error = BudgetError;
            fn try_from(text: String) -> Result<Self, BudgetError> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }
    )*};
}
written_as_text!(Window, Rate, Offset);

/// A calendar month in local time, written 2026-11.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Month {
    year: i32,
    month: u8,
}

impl Month {
    /// The first moment that is not in it any more.
    pub fn end(self, offset: Offset) -> i64 {
        let (year, month) = if self.month == 12 { (self.year + 1, 1) } else { (self.year, self.month + 1) };
        let month = time::Month::try_from(month).expect("it is from 1 to 12");
        let first = time::Date::from_calendar_date(year, month, 1).expect("every month has a first day");
        first.midnight().assume_offset(UtcOffset::UTC).unix_timestamp() * 1000
            - offset.minutes * MINUTE_MILLIS
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

/// Why bulk waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The link is metered, and it is not the time of bulk.
    Window,
    /// The month's amount is used up.
    Cap,
}

/// That bulk waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wait {
    /// Until when, in milliseconds since 1970.
    pub until: i64,
    /// Why.
    pub why: Why,
}

/// The settings.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Budget {
    /// What the line carries is paid for: bulk waits for its window, and signs of life are fewer.
    pub metered: bool,
    /// When bulk may go on a metered line.
    pub bulk_window: Window,
    /// How much of the line may be used when. Where several hold the lowest does, where none does all of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rates: Vec<Rate>,
    /// How many megabytes a calendar month has, both ways; then bulk waits for the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monthly_cap_mb: Option<u64>,
    /// Local time.
    pub utc_offset: Offset,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            metered: false,
            bulk_window: Window::NIGHT,
            rates: Vec::new(),
            monthly_cap_mb: None,
            utc_offset: Offset::VIETNAM,
        }
    }
}

impl Budget {
    /// Whether nothing is limited.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The month of a time.
    pub fn month(&self, at: i64) -> Month {
        let (year, month, _) = self.utc_offset.date(at).to_calendar_date();
        Month { year, month: u8::from(month) }
    }

    /// The cap in bytes.
    pub fn cap_bytes(&self) -> Option<u64> {
        self.monthly_cap_mb.map(|megabytes| megabytes.saturating_mul(MB))
    }

    /// How much of the cap is used, in percent.
    pub fn used_percent(&self, used: u64) -> Option<u64> {
        let cap = self.cap_bytes().filter(|cap| *cap > 0)?;
        u64::try_from(u128::from(used) * 100 / u128::from(cap)).ok()
    }

    /// Whether bulk waits at this time, when so many bytes have been used in its month.
    pub fn bulk_waits(&self, at: i64, used: u64) -> Option<Wait> {
        let over = self.cap_bytes().is_some_and(|cap| used >= cap);
        let free = if over { self.month(at).end(self.utc_offset) } else { at };
        let until = if self.metered { self.opening(free) } else { free };
        let why = if over { Why::Cap } else { Why::Window };
        (over || until > at).then_some(Wait { until, why })
    }

    /// The first moment from this one on at which the window is open.
    fn opening(&self, at: i64) -> i64 {
        let minute = self.utc_offset.minute_of_day(at);
        if self.bulk_window.has(minute) {
            return at;
        }
        let wait = (self.bulk_window.from - minute).rem_euclid(DAY_MINUTES);
        // A clock that is lost may say any number.
        at.clamp(TIMES.0, TIMES.1).div_euclid(MINUTE_MILLIS) * MINUTE_MILLIS + wait * MINUTE_MILLIS
    }

    /// How many kbit/s may be used at this time; none when all of the line may.
    pub fn rate_kbits(&self, at: i64) -> Option<u32> {
        let minute = self.utc_offset.minute_of_day(at);
        self.rates.iter().filter(|rate| rate.window.has(minute)).map(|rate| rate.kbits).min()
    }
}

/// A change of the settings; what is none stays.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Change {
    /// See [`Budget::metered`].
    pub metered: Option<bool>,
    /// See [`Budget::bulk_window`].
    pub bulk_window: Option<Window>,
    /// In place of all rates.
    pub rates: Option<Vec<Rate>>,
    /// See [`Budget::monthly_cap_mb`]; 0 takes it away.
    pub monthly_cap_mb: Option<u64>,
    /// See [`Budget::utc_offset`].
    pub utc_offset: Option<Offset>,
}

impl Change {
    /// Makes it.
    pub fn apply(self, budget: &mut Budget) {
        let Budget { metered, bulk_window, rates, monthly_cap_mb, utc_offset } = budget;
        *metered = self.metered.unwrap_or(*metered);
        *bulk_window = self.bulk_window.unwrap_or(*bulk_window);
        *utc_offset = self.utc_offset.unwrap_or(*utc_offset);
        if let Some(all) = self.rates {
            *rates = all;
        }
        if let Some(megabytes) = self.monthly_cap_mb {
            *monthly_cap_mb = Some(megabytes).filter(|megabytes| *megabytes > 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-29 00:00 in Vietnam.
    const DAY: i64 = 1_795_885_200_000;
    const HOUR: i64 = 3_600_000;
    const NOVEMBER: Month = Month { year: 2026, month: 11 };

    fn metered(window: &str) -> Budget {
        Budget { metered: true, bulk_window: window.parse().unwrap(), ..Budget::default() }
    }

    #[test]
    fn by_default_nothing_is_limited() {
        let budget = Budget::default();
        for at in [0, DAY, i64::MIN, i64::MAX] {
            assert_eq!((budget.bulk_waits(at, u64::MAX), budget.rate_kbits(at)), (None, None));
        }
        assert_eq!(budget.used_percent(5), None);
        assert_eq!(serde_json::from_str::<Budget>("{}").unwrap(), budget);
    }

    #[test]
    fn settings_are_read_and_written_as_people_write_them() {
        let text = r#"{"metered":true,"bulk_window":"22:00-05:00","rates":["06:00-18:00 128 kbit/s"],"monthly_cap_mb":500,"utc_offset":"-03:30"}"#;
        let budget: Budget = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&budget).unwrap(), text);
        assert_eq!("00:00-24:00 2 Mbit/s".parse::<Rate>().unwrap().to_string(), "00:00-24:00 2000 kbit/s");
        assert_eq!((cap("500 MB"), cap("2GB"), cap("none")), (Ok(Some(500)), Ok(Some(2_000)), Ok(None)));
        for wrong in
            ["", "22-5", "22:00", "22:00-22:00", "25:00-01:00", "24:00-05:00", "2:00-05:00", "10:60-11:00"]
        {
            let error = wrong.parse::<Window>().unwrap_err().to_string();
            assert!(error.contains("22:00-05:00"), "{error}");
        }
        for wrong in [
            "",
            "128 kbit/s",
            "06:00-18:00",
            "06:00-18:00 128",
            "06:00-18:00 7 kbit/s",
            "06:00-18:00 9999999 Mbit/s",
        ] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
        for wrong in ["", "7", "07:00", "+7:00", "+15:00", "+07:61", "đ"] {
            assert!(wrong.parse::<Offset>().is_err(), "{wrong}");
        }
        for wrong in ["", "500", "0 MB", "5 kB", "-1 MB", "99999999999999999999 GB", "99999999999999 GB"] {
            let error = cap(wrong).unwrap_err().to_string();
            assert!(error.contains("a whole number of MB or GB, 1 MB at least"), "{error}");
        }
        let error = serde_json::from_str::<Budget>(r#"{"bulk_window":"night"}"#).unwrap_err().to_string();
        assert!(error.contains("'night' is no part of a day"), "{error}");
    }

    #[test]
    fn a_window_may_cross_midnight() {
        let (night, day) = (metered("22:00-05:00"), metered("12:00-13:30"));
        for (budget, at, until) in [
            (&night, 0, None),
            (&night, 5 * HOUR - 1, None),
            (&night, 5 * HOUR, Some(22 * HOUR)),
            (&night, 22 * HOUR - 1, Some(22 * HOUR)),
            (&night, 22 * HOUR, None),
            (&night, 24 * HOUR - 1, None),
            (&day, 0, Some(12 * HOUR)),
            (&day, 12 * HOUR, None),
            (&day, 13 * HOUR + HOUR / 2, Some(36 * HOUR)),
        ] {
            let waits = until.map(|until| Wait { until: DAY + until, why: Why::Window });
            assert_eq!(budget.bulk_waits(DAY + at, 0), waits, "{} at {at}", budget.bulk_window);
        }
        assert_eq!(metered("00:00-24:00").bulk_waits(DAY + 7 * HOUR, 0), None);
        // The same hours elsewhere.
        let utc = Budget { utc_offset: "+00:00".parse().unwrap(), ..metered("22:00-05:00") };
        let waits = Some(Wait { until: DAY + 29 * HOUR, why: Why::Window });
        assert_eq!((utc.bulk_waits(DAY + 11 * HOUR, 0), utc.bulk_waits(DAY + 12 * HOUR, 0)), (None, waits));
        assert_eq!(utc.utc_offset.show(DAY), "2026-11-28 17:00");
        assert_eq!(night.utc_offset.show(DAY), "2026-11-29 00:00");
    }

    #[test]
    fn a_month_ends_at_local_midnight() {
        let budget = Budget::default();
        let ends = DAY + 48 * HOUR;
        assert_eq!((budget.month(ends - 1), NOVEMBER.end(Offset::VIETNAM)), (NOVEMBER, ends));
        assert_eq!(budget.month(ends).to_string(), "2026-12");
        let new_year = budget.month(ends).end(Offset::VIETNAM);
        assert_eq!(new_year, ends + 31 * 24 * HOUR);
        assert_eq!(budget.month(new_year).to_string(), "2027-01");
        // A leap year.
        let february = Month { year: 2028, month: 2 };
        assert_eq!(
            february.end(Offset::VIETNAM) - Month { year: 2028, month: 1 }.end(Offset::VIETNAM),
            29 * 24 * HOUR
        );
        let utc = Budget { utc_offset: "+00:00".parse().unwrap(), ..Budget::default() };
        assert_eq!(utc.month(ends), NOVEMBER, "seven hours later there");
        for lost in [i64::MIN, -1, 0, i64::MAX] {
            let month = budget.month(lost);
            assert!(month.end(Offset::VIETNAM) > lost.min(TIMES.1), "{month}");
            assert!(
                metered("12:00-13:00").bulk_waits(lost, 0).is_none_or(|wait| wait.until > lost.min(TIMES.1))
            );
        }
    }

    #[test]
    fn what_is_used_up_waits_for_the_next_month_and_then_for_its_window() {
        let cap = |budget: Budget| Budget { monthly_cap_mb: Some(500), ..budget };
        let ends = DAY + 48 * HOUR;
        let plain = cap(Budget::default());
        assert_eq!(plain.bulk_waits(DAY, 500 * MB - 1), None);
        assert_eq!(plain.bulk_waits(DAY, 500 * MB), Some(Wait { until: ends, why: Why::Cap }));
        assert_eq!(plain.bulk_waits(ends, 0), None);
        assert_eq!(
            [399_999_999, 400_000_000, 500_000_000].map(|used| plain.used_percent(used)),
            [79, 80, 100].map(Some)
        );
        // In the window, too.
        let night = cap(metered("22:00-05:00"));
        assert_eq!(night.bulk_waits(DAY, 500 * MB), Some(Wait { until: ends, why: Why::Cap }));
        let noon = cap(metered("12:00-13:00"));
        assert_eq!(noon.bulk_waits(DAY, 500 * MB), Some(Wait { until: ends + 12 * HOUR, why: Why::Cap }));
    }

    #[test]
    fn the_lowest_rate_holds() {
        let rates = ["06:00-18:00 128 kbit/s", "12:00-13:00 64 kbit/s", "22:00-02:00 1 Mbit/s"];
        let rates = rates.iter().map(|rate| rate.parse().unwrap()).collect();
        let budget = Budget { rates, ..Budget::default() };
        for (hour, kbits) in
            [(5, None), (6, Some(128)), (12, Some(64)), (18, None), (1, Some(1_000)), (2, None)]
        {
            assert_eq!(budget.rate_kbits(DAY + hour * HOUR), kbits, "{hour}");
        }
    }

    #[test]
    fn a_change_leaves_what_it_does_not_name() {
        let mut budget = Budget { monthly_cap_mb: Some(5), ..metered("01:00-02:00") };
        let before = budget.clone();
        Change::default().apply(&mut budget);
        assert_eq!(budget, before);
        Change { monthly_cap_mb: Some(0), metered: Some(false), ..Change::default() }.apply(&mut budget);
        assert_eq!(
            (budget.monthly_cap_mb, budget.metered, budget.bulk_window),
            (None, false, before.bulk_window)
        );
    }
}
