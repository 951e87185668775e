//! What happens while the links are cut: people at several nodes edit the same records, each without knowing
//! of the others. What always holds: the people are made up; each edit is a whole resource, written against
//! the version that the editor had read, as real software would do it. Each scene says what must come of it.

use node::{
    admin::{ConflictLine, Failure, Request, Resource, Written as Answer},
    fhir::population::edit,
};
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};
use sync_core::id::RecordId;

use super::{
    country::{Country, DONG_VAN, HA_GIANG, HOI_AN, LEAVES, MEO_VAC, QUANG_NAM, ROOT, TAM_KY, failed},
    load::{self, Purpose, Written},
};

/// How many records are looked through for a person who has all that the scenes need.
const SEARCH_MAX: usize = 5_000;

/// The made-up person of one leaf who appears in the scenes.
struct Person {
    patient: RecordId,
    prescription: RecordId,
    pressure: RecordId,
}

/// The people of the scenes.
pub struct Cast {
    dong_van: Person,
    meo_vac: Person,
    hoi_an: Person,
    tam_ky: Person,
}

/// What must come of a scene.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Both edits are there, and nobody has to look.
    Merged,
    /// A conflict of this kind with so many values.
    Conflict { kind: &'static str, values: usize },
}

/// One scene, played.
pub struct Scene {
    /// What happened, for people.
    pub what: &'static str,
    /// The record.
    pub record: RecordId,
    /// The leaf that it belongs to.
    pub leaf: usize,
    ending: Ending,
    /// For a merge: what must stand in the record, each a JSON pointer and a value.
    traces: Vec<(&'static str, Value)>,
}

/// Who edits, and where.
struct Editor {
    at: usize,
    by: &'static str,
    why: &'static str,
}

const NURSE: &str = "y tá trực";
const DOCTOR: &str = "bác sĩ tỉnh";
const BOARD: &str = "chuyên viên trung ương";

/// Writes the people of the scenes at their leaves.
pub fn prepare(country: &Country, seed: u64) -> Result<(Cast, Written), Failure> {
    let mut written = Written::default();
    let mut person = |leaf: usize| -> Result<Person, Failure> {
        let mut records = load::more(seed, Purpose::Scenes, &country.sites[leaf].org).take(SEARCH_MAX);
        let (mut patient, mut prescription, mut pressure) = (None, None, None);
        while prescription.is_none() || pressure.is_none() {
            let Some(record) = records.next() else {
                return Err(failed(
                    "the made-up population has nobody who takes a medicine; try another --seed",
                ));
            };
            if record["resourceType"] == "Patient" {
                (patient, prescription, pressure) = (Some(record), None, None);
            } else if edit::edit_dose(&record, 0).is_some() {
                prescription = Some(record);
            } else if edit::edit_blood_pressure(&record, 0).is_some() {
                pressure = Some(record);
            }
        }
        let records: Vec<Value> = [patient, prescription, pressure].into_iter().flatten().collect();
        let ids = records.iter().map(|record| load::made_up(record.clone()).map(|item| item.id));
        let ids: Vec<RecordId> = ids.collect::<Result<_, _>>()?;
        let [patient, prescription, pressure] =
            ids.try_into().map_err(|_| failed("a person is incomplete"))?;
        let answer = load::write_at(&country.sites[leaf].dir, leaf, records)?;
        written.merge(answer);
        Ok(Person { patient, prescription, pressure })
    };
    let [dong_van, meo_vac, hoi_an, tam_ky] = LEAVES;
    let cast = Cast {
        dong_van: person(dong_van)?,
        meo_vac: person(meo_vac)?,
        hoi_an: person(hoi_an)?,
        tam_ky: person(tam_ky)?,
    };
    Ok((cast, written))
}

/// Plays all scenes.
pub fn play(country: &mut Country, cast: &Cast) -> Result<Vec<Scene>, Failure> {
    Ok(vec![
        different_elements(country, &cast.dong_van.patient)?,
        same_dose(country, &cast.dong_van.prescription)?,
        same_birth_date(country, &cast.hoi_an.patient)?,
        delete_against_edit(country, &cast.meo_vac.pressure)?,
        items_added(country, &cast.tam_ky.patient)?,
    ])
}

fn different_elements(country: &mut Country, record: &RecordId) -> Result<Scene, Failure> {
    let nurse = Editor { at: DONG_VAN, by: NURSE, why: "số điện thoại mới" };
    let phone = change(country, &nurse, record, |patient| edit::edit_phone(patient, 4_711))?;
    let doctor = Editor { at: HA_GIANG, by: DOCTOR, why: "chuyển nhà" };
    let address = change(country, &doctor, record, |patient| {
        let mut moved = patient.clone();
        *moved.pointer_mut("/address/0/line")? = json!(["Số 7, Tổ 3"]);
        Some(moved)
    })?;
    let trace = |resource: &Value, pointer| (pointer, resource.pointer(pointer).cloned().unwrap_or_default());
    Ok(Scene {
        what: "a telephone number at Đồng Văn, the address of the same person at Hà Giang",
        record: record.clone(),
        leaf: DONG_VAN,
        ending: Ending::Merged,
        traces: vec![trace(&phone, "/telecom/0/value"), trace(&address, "/address/0/line/0")],
    })
}

fn same_dose(country: &mut Country, record: &RecordId) -> Result<Scene, Failure> {
    let editors = [
        Editor { at: DONG_VAN, by: NURSE, why: "huyết áp cao" },
        Editor { at: HA_GIANG, by: DOCTOR, why: "tác dụng phụ" },
        Editor { at: ROOT, by: BOARD, why: "hội chẩn" },
    ];
    for (editor, n) in editors.iter().zip(0..) {
        change(country, editor, record, |request| edit::edit_dose(request, n))?;
    }
    Ok(Scene {
        what: "one dose, three answers: Đồng Văn, Hà Giang and the centre",
        record: record.clone(),
        leaf: DONG_VAN,
        ending: Ending::Conflict { kind: "value", values: editors.len() },
        traces: Vec::new(),
    })
}

fn same_birth_date(country: &mut Country, record: &RecordId) -> Result<Scene, Failure> {
    let editors = [
        (Editor { at: HOI_AN, by: NURSE, why: "theo thẻ bảo hiểm" }, "1961-02-03"),
        (Editor { at: QUANG_NAM, by: DOCTOR, why: "theo căn cước" }, "1961-03-02"),
    ];
    for (editor, date) in &editors {
        change(country, editor, record, |patient| {
            let mut corrected = patient.clone();
            corrected["birthDate"] = json!(date);
            Some(corrected)
        })?;
    }
    Ok(Scene {
        what: "a date of birth, corrected at Hội An and otherwise at Quảng Nam",
        record: record.clone(),
        leaf: HOI_AN,
        ending: Ending::Conflict { kind: "value", values: editors.len() },
        traces: Vec::new(),
    })
}

fn delete_against_edit(country: &mut Country, record: &RecordId) -> Result<Scene, Failure> {
    let nurse = Editor { at: MEO_VAC, by: NURSE, why: "đo lại" };
    change(country, &nurse, record, |pressure| edit::edit_blood_pressure(pressure, 7))?;
    let (by, why) = (Some(DOCTOR.into()), Some("nhập hai lần".into()));
    let request = Request::Delete { record: record.clone(), base: None, by, why };
    let _: Answer = country.call(HA_GIANG, &request)?;
    Ok(Scene {
        what: "a blood pressure, measured again at Mèo Vạc and deleted at Hà Giang",
        record: record.clone(),
        leaf: MEO_VAC,
        ending: Ending::Conflict { kind: "deletion", values: 2 },
        traces: Vec::new(),
    })
}

fn items_added(country: &mut Country, record: &RecordId) -> Result<Scene, Failure> {
    let contacts = [
        (Editor { at: TAM_KY, by: NURSE, why: "người nhà" }, "Con trai", "Người nhà thứ nhất"),
        (Editor { at: QUANG_NAM, by: DOCTOR, why: "người nhà" }, "Con gái", "Người nhà thứ hai"),
    ];
    for (editor, relationship, name) in &contacts {
        change(country, editor, record, |patient| {
            let mut changed = patient.clone();
            let contact = json!({"relationship": [{"text": relationship}], "name": {"text": name}});
            changed.get_mut("contact")?.as_array_mut()?.push(contact);
            Some(changed)
        })?;
    }
    Ok(Scene {
        what: "two relatives of one person, one added at Tam Kỳ, one at Quảng Nam",
        record: record.clone(),
        leaf: TAM_KY,
        ending: Ending::Merged,
        traces: contacts.iter().map(|(_, _, name)| ("/contact/*/name/text", json!(name))).collect(),
    })
}

/// Reads a record at a node, changes it, and writes it back against the version that was read.
fn change(
    country: &mut Country,
    editor: &Editor,
    record: &RecordId,
    edit: impl FnOnce(&Value) -> Option<Value>,
) -> Result<Value, Failure> {
    let (found, resource) = get(country, editor.at, record)?;
    let wrong = |what: &str| failed(format!("{record} {what} at {}", country.sites[editor.at].org));
    let changed = edit(&resource).ok_or_else(|| wrong("has not the form that the scene needs"))?;
    let request = Request::Put {
        resources: vec![raw(&changed)?],
        base: Some(found.version),
        by: Some(editor.by.into()),
        why: Some(editor.why.into()),
    };
    let answer: Answer = country.call(editor.at, &request)?;
    match (answer.rejected.first(), answer.written.is_empty()) {
        (Some(rejected), _) => Err(failed(format!("{record} was refused: {}", rejected.problem))),
        (None, true) => Err(failed(format!("{record} was not changed by an edit"))),
        (None, false) => Ok(changed),
    }
}

fn raw(value: &Value) -> Result<Box<RawValue>, Failure> {
    to_raw_value(value).map_err(|error| failed(format!("a made-up record cannot be sent ({error})")))
}

fn get(country: &mut Country, at: usize, record: &RecordId) -> Result<(Resource, Value), Failure> {
    let found: Resource = country.call(at, &Request::Get { record: record.clone() })?;
    let value = serde_json::from_str(found.resource.get());
    let value =
        value.map_err(|error| failed(format!("{record} came back as something else than JSON ({error})")))?;
    Ok((found, value))
}

impl Scene {
    /// Whether it ended as it must, at every node that holds the record; otherwise what is wrong.
    pub fn check(&self, country: &mut Country, open: &[ConflictLine]) -> Result<Option<String>, Failure> {
        let own: Vec<&ConflictLine> = open.iter().filter(|line| line.record == self.record).collect();
        match (self.ending, own.as_slice()) {
            (Ending::Conflict { kind, values }, [line])
                if line.kind == kind && line.values.len() == values => {}
            (Ending::Conflict { kind, values }, _) => {
                let found: Vec<String> =
                    own.iter().map(|line| format!("{} ({})", line.kind, line.values.len())).collect();
                let found = if found.is_empty() { "nothing".into() } else { found.join(", ") };
                return Ok(Some(format!(
                    "a conflict of kind {kind} with {values} values was due, and {found} was found"
                )));
            }
            (Ending::Merged, []) => {}
            (Ending::Merged, _) => {
                return Ok(Some("it was to merge by itself, and a conflict is open".into()));
            }
        }
        for at in country.holders(self.leaf) {
            let (_, resource) = get(country, at, &self.record)?;
            for (pointer, value) in &self.traces {
                if !holds(&resource, pointer, value) {
                    return Ok(Some(format!(
                        "{pointer} is not as it was written, at {}",
                        country.sites[at].org
                    )));
                }
            }
        }
        Ok(None)
    }

    /// The name of what must come of it.
    pub fn ending(&self) -> &'static str {
        match self.ending {
            Ending::Merged => "merged",
            Ending::Conflict { kind, .. } => kind,
        }
    }
}

/// Whether a value stands at a JSON pointer, in which `*` stands for any item.
fn holds(resource: &Value, pointer: &str, value: &Value) -> bool {
    let Some((before, after)) = pointer.split_once("/*") else {
        return resource.pointer(pointer) == Some(value);
    };
    let items = resource.pointer(before).and_then(Value::as_array);
    items.is_some_and(|items| items.iter().any(|item| holds(item, after, value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_found_in_any_item() {
        let resource = json!({"contact": [{"name": {"text": "A"}}, {"name": {"text": "B"}}], "x": 1});
        assert!(holds(&resource, "/contact/*/name/text", &json!("B")));
        assert!(!holds(&resource, "/contact/*/name/text", &json!("C")));
        assert!(holds(&resource, "/x", &json!(1)) && !holds(&resource, "/y", &json!(1)));
    }
}
