//! A made-up person's records as FHIR resources, in the order in which a health room writes them.

use serde_json::{Number, Value, json};

use super::{BHYT_SYSTEM, CCCD_SYSTEM, LAST_YEAR, POSITION_EXTENSION, dice::Dice, person::Person, tables::*};

const TERMINOLOGY: &str = "http://terminology.hl7.org/CodeSystem";
const LOINC: &str = "http://loinc.org";
const UCUM: &str = "http://unitsofmeasure.org";
const ICD10: &str = "http://hl7.org/fhir/sid/icd-10";
const ATC: &str = "http://www.whocc.no/atc";

/// All records of a person.
pub(super) fn life(mut person: Person) -> Vec<Value> {
    let mut records = vec![patient(&person)];
    let first_year = LAST_YEAR - person.years + 1;
    let since = format!("{}-03-15", first_year - 1);
    let illnesses = person.illnesses.clone();
    for illness in &illnesses {
        records.push(condition(&mut person, illness, &since));
    }
    if person.dice.chance(18) {
        records.push(allergy(&mut person, &since));
    }
    if person.dice.chance(8) {
        records.push(flag(&mut person, &since));
    }
    for year in first_year..=LAST_YEAR {
        let month = person.dice.between(2, 6);
        let day = person.dice.between(1, 28);
        examination(&mut person, year, &format!("{year}-{month:02}-{day:02}"), &mut records);
        if person.has("I10") || person.has("E11") {
            let (month, day) = (month + person.dice.between(4, 6), person.dice.between(1, 28));
            follow_up(&mut person, year, &format!("{year}-{month:02}-{day:02}"), &mut records);
        }
    }
    records
}

/// The person as a Patient.
pub(super) fn patient(person: &Person) -> Value {
    let (year, month, day) = person.born;
    let street = format!("Số {}, Tổ {}", person.house, person.house % 12 + 1);
    let given: Vec<&str> = person.middle.split(' ').chain([person.given]).collect();
    let identifier_type = |code: &str, text: &str| json!({"coding": [{"system": format!("{TERMINOLOGY}/v2-0203"), "code": code}], "text": text});
    json!({
        "resourceType": "Patient",
        "id": person.id,
        "extension": [{"url": POSITION_EXTENSION, "valueString": person.position}],
        "identifier": [
            {"use": "official", "type": identifier_type("NI", "Căn cước công dân"),
             "system": CCCD_SYSTEM, "value": person.cccd},
            {"use": "usual", "type": identifier_type("SB", "Thẻ bảo hiểm y tế"),
             "system": BHYT_SYSTEM, "value": person.bhyt},
        ],
        "active": true,
        "name": [{"use": "official", "text": person.full_name(), "family": person.family, "given": given}],
        "telecom": [{"system": "phone", "value": person.phone, "use": "mobile", "rank": 1}],
        "gender": if person.female { "female" } else { "male" },
        "birthDate": format!("{year}-{month:02}-{day:02}"),
        "address": [{
            "use": "home",
            "type": "both",
            "text": format!("{street}, {}, {}", person.commune, person.province),
            "line": [street],
            "city": person.commune,
            "state": person.province,
            "country": "VN",
        }],
        "maritalStatus": {
            "coding": [{"system": format!("{TERMINOLOGY}/v3-MaritalStatus"), "code": "M"}],
            "text": "Đã kết hôn",
        },
        "contact": [{
            "relationship": [{
                "coding": [{"system": format!("{TERMINOLOGY}/v2-0131"), "code": "N"}],
                "text": if person.female { "Chồng" } else { "Vợ" },
            }],
            "name": {"text": person.relative.0},
            "telecom": [{"system": "phone", "value": person.relative.1, "use": "mobile"}],
        }],
        "managingOrganization": organization(person),
    })
}

fn condition(person: &mut Person, illness: &Illness, since: &str) -> Value {
    json!({
        "resourceType": "Condition",
        "id": person.dice.uuid(),
        "clinicalStatus": {"coding": [{"system": format!("{TERMINOLOGY}/condition-clinical"), "code": "active"}]},
        "verificationStatus": {
            "coding": [{"system": format!("{TERMINOLOGY}/condition-ver-status"), "code": "confirmed"}],
        },
        "category": [{
            "coding": [{"system": format!("{TERMINOLOGY}/condition-category"), "code": "problem-list-item"}],
        }],
        "code": {
            "coding": [{"system": ICD10, "code": illness.icd, "display": illness.name}],
            "text": illness.name,
        },
        "subject": subject(person),
        "onsetDateTime": &since[..4],
        "recordedDate": since,
        "recorder": clinician(&mut person.dice),
    })
}

fn allergy(person: &mut Person, since: &str) -> Value {
    let (atc, name, category, reaction) = person.dice.pick(ALLERGIES);
    let severe = *reaction == "Phản vệ";
    let code = match atc {
        Some(atc) => json!({"coding": [{"system": ATC, "code": atc, "display": name}], "text": name}),
        None => json!({"text": name}),
    };
    json!({
        "resourceType": "AllergyIntolerance",
        "id": person.dice.uuid(),
        "clinicalStatus": {
            "coding": [{"system": format!("{TERMINOLOGY}/allergyintolerance-clinical"), "code": "active"}],
        },
        "verificationStatus": {
            "coding": [{"system": format!("{TERMINOLOGY}/allergyintolerance-verification"), "code": "confirmed"}],
        },
        "type": "allergy",
        "category": [category],
        "criticality": if severe { "high" } else { "low" },
        "code": code,
        "patient": subject(person),
        "recordedDate": since,
        "recorder": clinician(&mut person.dice),
        "reaction": [{
            "manifestation": [{"text": reaction}],
            "severity": if severe { "severe" } else { "moderate" },
        }],
    })
}

fn flag(person: &mut Person, since: &str) -> Value {
    let (category, text) = person.dice.pick(FLAGS);
    json!({
        "resourceType": "Flag",
        "id": person.dice.uuid(),
        "status": "active",
        "category": [{"coding": [{"system": format!("{TERMINOLOGY}/flag-category"), "code": category}]}],
        "code": {"text": text},
        "subject": subject(person),
        "period": {"start": since},
        "author": organization(person),
    })
}

/// The yearly examination: the encounter, what was measured, and the year's prescriptions.
fn examination(person: &mut Person, year: i64, date: &str, records: &mut Vec<Value>) {
    let visit = Visit::new(person, date, "Khám sức khỏe định kỳ cán bộ", records);
    let ill = |person: &Person, icd: &str, extra: i64| if person.has(icd) { extra } else { 0 };
    visit.blood_pressure(person, records);
    let pulse = person.dice.around(58, 96);
    visit.measure(person, &PULSE, pulse, 0, records);
    visit.measure(person, &HEIGHT, person.height_mm, 1, records);
    let weight = weight(person, year);
    visit.measure(person, &WEIGHT, weight, 1, records);
    visit.measure(person, &BMI, weight * 1_000_000 / (person.height_mm * person.height_mm), 1, records);
    let diabetes = ill(person, "E11", 1);
    let glucose = person.dice.around(440, 600) + diabetes * person.dice.between(120, 480);
    visit.measure(person, &GLUCOSE, glucose, 2, records);
    let hba1c = person.dice.around(48, 58) + diabetes * person.dice.between(8, 36);
    visit.measure(person, &HBA1C, hba1c, 1, records);
    let lipids = ill(person, "E78", 1);
    for (test, low, high, more) in [
        (&CHOLESTEROL, 400, 530, 140),
        (&TRIGLYCERIDE, 70, 190, 180),
        (&HDL, 95, 170, -15),
        (&LDL, 180, 340, 110),
    ] {
        let value = person.dice.around(low, high) + lipids * more;
        visit.measure(person, test, value, 2, records);
    }
    let creatinine = person.dice.around(55, 108);
    visit.measure(person, &CREATININE, creatinine, 0, records);
    let urate = person.dice.around(210, 410) + ill(person, "M10", 90);
    visit.measure(person, &URATE, urate, 0, records);
    for illness in person.illnesses.clone() {
        let usual = person.house as usize % illness.medicines.len().max(1);
        if let Some(medicine) = illness.medicines.get(usual) {
            records.push(visit.prescription(person, illness, medicine));
        }
    }
}

/// A visit for a chronic illness between the examinations.
fn follow_up(person: &mut Person, year: i64, date: &str, records: &mut Vec<Value>) {
    let visit = Visit::new(person, date, "Khám, theo dõi bệnh mạn tính", records);
    visit.blood_pressure(person, records);
    let pulse = person.dice.around(58, 96);
    visit.measure(person, &PULSE, pulse, 0, records);
    let weight = weight(person, year);
    visit.measure(person, &WEIGHT, weight, 1, records);
    if person.has("E11") {
        let glucose = person.dice.around(560, 1080);
        visit.measure(person, &GLUCOSE, glucose, 2, records);
    }
}

fn weight(person: &mut Person, year: i64) -> i64 {
    person.weight_hg + 4 * (year - LAST_YEAR + person.years) + person.dice.between(-9, 9)
}

/// One visit: its encounter and its time.
struct Visit {
    encounter: Value,
    date: String,
    performer: Value,
}

impl Visit {
    fn new(person: &mut Person, date: &str, reason: &str, records: &mut Vec<Value>) -> Self {
        let id = person.dice.uuid();
        let performer = clinician(&mut person.dice);
        let encounter = json!({"reference": format!("Encounter/{id}")});
        records.push(json!({
            "resourceType": "Encounter",
            "id": id,
            "status": "finished",
            "class": {"system": format!("{TERMINOLOGY}/v3-ActCode"), "code": "AMB", "display": "ambulatory"},
            "type": [{"text": reason}],
            "subject": subject(person),
            "participant": [{"individual": performer}],
            "period": {"start": format!("{date}T07:30:00+07:00"), "end": format!("{date}T10:15:00+07:00")},
            "reasonCode": [{"text": reason}],
            "serviceProvider": organization(person),
        }));
        Self { encounter, date: date.to_owned(), performer }
    }

    fn observation(&self, person: &mut Person, test: &Test) -> Value {
        let (category, display) = test.category;
        json!({
            "resourceType": "Observation",
            "id": person.dice.uuid(),
            "status": "final",
            "category": [{
                "coding": [{
                    "system": format!("{TERMINOLOGY}/observation-category"),
                    "code": category,
                    "display": display,
                }],
            }],
            "code": code(test),
            "subject": subject(person),
            "encounter": self.encounter,
            "effectiveDateTime": format!("{}T08:{:02}:00+07:00", self.date, person.dice.between(0, 59)),
            "issued": format!("{}T10:{:02}:00.000+07:00", self.date, person.dice.between(16, 59)),
            "performer": [organization(person), self.performer],
        })
    }

    /// Records one measurement: a whole number, and how many of its digits stand behind the point.
    fn measure(
        &self,
        person: &mut Person,
        test: &Test,
        value: i64,
        decimals: usize,
        records: &mut Vec<Value>,
    ) {
        let mut observation = self.observation(person, test);
        let value = fixed(value, decimals);
        observation["valueQuantity"] = quantity(test, &value);
        if let Some(range) = test.range {
            observation["interpretation"] = interpretation(&value, range);
            observation["referenceRange"] = reference_range(test, range);
        }
        records.push(observation);
    }

    fn blood_pressure(&self, person: &mut Person, records: &mut Vec<Value>) {
        let more = if person.has("I10") { 18 } else { 0 };
        let mut observation = self.observation(person, &BLOOD_PRESSURE);
        let parts = [
            (&SYSTOLIC, person.dice.around(100, 136) + more),
            (&DIASTOLIC, person.dice.around(62, 86) + more / 2),
        ];
        let component = parts.map(|(test, value)| {
            let value = value.to_string();
            let mut part = json!({"code": code(test), "valueQuantity": quantity(test, &value)});
            if let Some(range) = test.range {
                part["interpretation"] = interpretation(&value, range);
            }
            part
        });
        observation["component"] = Value::from(component.to_vec());
        records.push(observation);
    }

    fn prescription(&self, person: &mut Person, illness: &Illness, medicine: &Medicine) -> Value {
        let Medicine { atc, name, tablets, times, when: (when, in_words) } = *medicine;
        json!({
            "resourceType": "MedicationRequest",
            "id": person.dice.uuid(),
            "status": if self.date.starts_with(&LAST_YEAR.to_string()) { "active" } else { "completed" },
            "intent": "order",
            "medicationCodeableConcept": {
                "coding": [{"system": ATC, "code": atc, "display": name}],
                "text": name,
            },
            "subject": subject(person),
            "encounter": self.encounter,
            "authoredOn": format!("{}T10:20:00+07:00", self.date),
            "requester": self.performer,
            "reasonCode": [{"coding": [{"system": ICD10, "code": illness.icd, "display": illness.name}]}],
            "dosageInstruction": [{
                "sequence": 1,
                "text": dosage_text(tablets, times, in_words),
                "timing": {"repeat": {"frequency": times, "period": 1, "periodUnit": "d", "when": [when]}},
                "route": {"text": "Uống"},
                "doseAndRate": [{
                    "doseQuantity": {
                        "value": decimal(tablets), "unit": "viên", "system": UCUM, "code": "{tablet}",
                    },
                }],
            }],
            "dispenseRequest": {
                "expectedSupplyDuration": {"value": 30, "unit": "ngày", "system": UCUM, "code": "d"},
            },
        })
    }
}

fn dosage_text(tablets: &str, times: i64, in_words: &str) -> String {
    format!("Uống {} viên/lần, {times} lần/ngày, {in_words}", tablets.replace('.', ","))
}

fn subject(person: &Person) -> Value {
    json!({"reference": format!("Patient/{}", person.id), "display": person.full_name()})
}

fn organization(person: &Person) -> Value {
    json!({"reference": format!("Organization/{}", person.org)})
}

fn clinician(dice: &mut Dice) -> Value {
    json!({"display": dice.pick(CLINICIANS)})
}

fn code(test: &Test) -> Value {
    json!({
        "coding": [{"system": LOINC, "code": test.loinc, "display": test.name}],
        "text": test.vietnamese,
    })
}

fn quantity(test: &Test, value: &str) -> Value {
    let (unit, ucum) = test.unit;
    json!({"value": decimal(value), "unit": unit, "system": UCUM, "code": ucum})
}

fn reference_range(test: &Test, (low, high): (&str, &str)) -> Value {
    json!([{
        "low": quantity(test, low),
        "high": quantity(test, high),
        "text": format!("{low} - {high} {}", test.unit.0),
    }])
}

/// Whether a value lies below, in or above its range; all three texts have the same number of decimals.
fn interpretation(value: &str, (low, high): (&str, &str)) -> Value {
    let whole = |text: &str| text.replace('.', "").parse::<i64>().unwrap_or_default();
    let (code, display) = match whole(value) {
        v if v < whole(low) => ("L", "Low"),
        v if v > whole(high) => ("H", "High"),
        _ => ("N", "Normal"),
    };
    json!([{
        "coding": [{
            "system": format!("{TERMINOLOGY}/v3-ObservationInterpretation"), "code": code, "display": display,
        }],
    }])
}

/// A whole number with so many of its digits behind the point: 560 and 2 give `5.60`.
fn fixed(value: i64, decimals: usize) -> String {
    let digits = format!("{value:0width$}", width = decimals + 1);
    match digits.split_at(digits.len() - decimals) {
        (whole, "") => whole.to_owned(),
        (whole, fraction) => format!("{whole}.{fraction}"),
    }
}

/// A JSON number that keeps its digits.
pub(super) fn decimal(text: &str) -> Value {
    Value::Number(text.parse::<Number>().expect("a decimal of this module is a JSON number"))
}
