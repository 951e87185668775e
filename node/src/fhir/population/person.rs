//! One made-up person: who they are and how healthy. The numbers are whole (millimetres, hundredths of a
//! mmol/L, …), so that no rounding differs between machines.

use sync_core::id::OrgId;

use super::{LAST_YEAR, dice::Dice, tables::*};

/// How many identity numbers differ in one province, year and sex.
const CCCD_SERIALS: u64 = 1_000_000;
const BHYT_SERIALS: u64 = 10_000_000_000;
/// Shares no factor with the number of serials, so that no two of one organization's first million people
/// have the same serial.
const STRIDE: u64 = 618_033;
const RETIREMENT_AGE: i64 = 62;

pub(super) struct Person {
    pub id: String,
    pub org: OrgId,
    pub female: bool,
    pub family: &'static str,
    pub middle: &'static str,
    pub given: &'static str,
    /// Year, month, day.
    pub born: (i64, i64, i64),
    pub cccd: String,
    pub bhyt: String,
    pub phone: String,
    pub relative: (String, String),
    pub position: String,
    pub province: &'static str,
    pub commune: &'static str,
    pub house: i64,
    pub illnesses: Vec<&'static Illness>,
    pub height_mm: i64,
    /// In the first year of the records; hundreds of grams.
    pub weight_hg: i64,
    pub years: i64,
    /// What the rest of this person's life is thrown with.
    pub dice: Dice,
}

impl Person {
    /// The organization's person of this number.
    pub fn new(seed: u64, org: &OrgId, number: u64) -> Self {
        let mut place = Dice::new(seed, org.as_str(), u64::MAX);
        let (somewhere, offset) = (place.pick(PROVINCES), place.next());
        let home = PROVINCES.iter().find(|province| is_in(org, province)).unwrap_or(somewhere);
        let mut dice = Dice::new(seed, org.as_str(), number);

        let id = dice.uuid();
        let female = dice.chance(45);
        let (family, middle, given) = name(&mut dice, female);
        let born = (dice.around(1940, 2006), dice.between(1, 12), dice.between(1, 28));
        let birth_code = *if dice.chance(75) { dice.pick(home.birth_codes) } else { dice.pick(BIRTH_CODES) };
        let retired = LAST_YEAR - born.0 >= RETIREMENT_AGE;
        let (office, insurance) = dice.weighted(POSITIONS);
        let relative_is_female = !female;
        let relative = name(&mut dice, relative_is_female);
        Self {
            org: org.clone(),
            female,
            family,
            middle,
            given,
            born,
            cccd: cccd(birth_code, female, born.0, serial(number, offset, CCCD_SERIALS)),
            bhyt: format!(
                "{}{}{:010}",
                if retired { dice.weighted(RETIRED_INSURANCE) } else { insurance },
                &birth_code[1..],
                serial(number, offset, BHYT_SERIALS)
            ),
            phone: phone(dice.next()),
            relative: (full_name(relative.0, relative.1, relative.2), phone(dice.next())),
            position: if retired {
                format!("Nguyên {office} (đã nghỉ hưu)")
            } else {
                office.to_owned()
            },
            province: home.name,
            commune: *dice.pick(home.communes),
            house: dice.between(1, 240),
            illnesses: ILLNESSES.iter().filter(|illness| dice.chance(illness.percent)).collect(),
            height_mm: if female { dice.around(1450, 1650) } else { dice.around(1550, 1780) },
            weight_hg: if female { dice.around(430, 660) } else { dice.around(520, 820) },
            years: dice.between(3, 7),
            id,
            dice,
        }
    }

    pub fn full_name(&self) -> String {
        full_name(self.family, self.middle, self.given)
    }

    pub fn has(&self, icd: &str) -> bool {
        self.illnesses.iter().any(|illness| illness.icd == icd)
    }
}

fn is_in(org: &OrgId, province: &Province) -> bool {
    province.slugs.iter().any(|slug| org.as_str().contains(slug))
}

fn name(dice: &mut Dice, female: bool) -> (&'static str, &'static str, &'static str) {
    let family = dice.weighted(FAMILY_NAMES);
    let middle = dice.weighted(if female { FEMALE_MIDDLE_NAMES } else { MALE_MIDDLE_NAMES });
    let given = dice.pick(if female { FEMALE_GIVEN_NAMES } else { MALE_GIVEN_NAMES });
    (family, middle, given)
}

fn full_name(family: &str, middle: &str, given: &str) -> String {
    format!("{family} {middle} {given}")
}

fn serial(number: u64, offset: u64, serials: u64) -> u64 {
    (number % serials * STRIDE + offset % serials) % serials
}

/// An identity number (Decree 137/2015/NĐ-CP): the province of birth registration, a digit for century and
/// sex, the year of birth, and six digits.
fn cccd(birth_code: &str, female: bool, year: i64, serial: u64) -> String {
    let century = (year - 1900) / 100 * 2 + i64::from(female);
    format!("{birth_code}{century}{:02}{serial:06}", year % 100)
}

/// How a telephone number begins that nobody has: 054 is no mobile prefix, and no area code since 2017.
pub(super) const PHONE_PREFIX: &str = "054";
/// How many telephone numbers there are.
pub(super) const PHONES: u64 = 10_000_000;

/// The telephone number of this number.
pub(super) fn phone(n: u64) -> String {
    format!("{PHONE_PREFIX}{:07}", n % PHONES)
}
