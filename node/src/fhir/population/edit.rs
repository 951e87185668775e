//! What clinicians change, for demonstrations and benchmarks: each function gives a changed copy of a
//! resource, or none if the resource is of another kind. The number chooses the new value: two numbers near one
//! another give two different values, and no number gives the value that is there.

use serde_json::Value;

use super::{
    clinic::decimal,
    person::{PHONE_PREFIX, PHONES, phone},
    tables::{DIASTOLIC, SYSTOLIC, Test},
};

/// The doses that [`edit_dose`] chooses from, in tablets.
const DOSES: [&str; 5] = ["0.5", "1", "1.5", "2", "3"];
/// The blood pressures that [`edit_blood_pressure`] chooses from: the lowest, and how many.
const PRESSURES: [(&Test, u64, u64); 2] = [(&SYSTOLIC, 105, 61), (&DIASTOLIC, 60, 37)];

/// A Patient with another telephone number, in place of the first. Ten million numbers give different ones.
pub fn edit_phone(patient: &Value, n: u64) -> Option<Value> {
    let mut changed = of_type(patient, "Patient")?;
    let telecom = changed.get_mut("telecom")?.as_array_mut()?;
    let value = telecom.iter_mut().find(|t| t["system"] == "phone")?.get_mut("value")?;
    let now = value.as_str()?.strip_prefix(PHONE_PREFIX).and_then(|rest| rest.parse().ok());
    *value = phone(other(n, PHONES, now)).into();
    Some(changed)
}

/// A blood pressure with another systolic and diastolic value. Sixty numbers in a row give different ones.
pub fn edit_blood_pressure(observation: &Value, n: u64) -> Option<Value> {
    let mut changed = of_type(observation, "Observation")?;
    for (test, lowest, many) in PRESSURES {
        let components = changed.get_mut("component")?.as_array_mut()?;
        let component = components.iter_mut().find(|c| c["code"]["coding"][0]["code"] == test.loinc)?;
        let value = component.get_mut("valueQuantity")?.get_mut("value")?;
        let now = value.as_u64().and_then(|now| now.checked_sub(lowest));
        *value = (lowest + other(n, many, now)).into();
    }
    Some(changed)
}

/// A prescription with another dose, in the quantity and in the words. Four numbers in a row give different
/// ones.
pub fn edit_dose(request: &Value, n: u64) -> Option<Value> {
    let mut changed = of_type(request, "MedicationRequest")?;
    let dosage = changed.get_mut("dosageInstruction")?.get_mut(0)?;
    let value = dosage.get_mut("doseAndRate")?.get_mut(0)?.get_mut("doseQuantity")?.get_mut("value")?;
    let now = DOSES.iter().zip(0..).find(|(dose, _)| decimal(dose) == *value).map(|(_, at)| at);
    let dose = DOSES[other(n, DOSES.len() as u64, now) as usize];
    *value = decimal(dose);
    let text = dosage.get("text").and_then(Value::as_str).unwrap_or_default();
    let rest = text.split_once(" viên").map_or("", |(_, rest)| rest).to_owned();
    dosage["text"] = format!("Uống {} viên{rest}", dose.replace('.', ",")).into();
    Some(changed)
}

fn of_type(resource: &Value, resource_type: &str) -> Option<Value> {
    (resource.get("resourceType")? == resource_type).then(|| resource.clone())
}

/// One of so many choices, but never the present one: the choices above it move down by one.
fn other(n: u64, many: u64, now: Option<u64>) -> u64 {
    let choice = n % (many - 1);
    if now.is_some_and(|now| now <= choice) { choice + 1 } else { choice }
}
