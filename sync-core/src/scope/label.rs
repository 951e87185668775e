//! Labels: how secret a resource says that it is. Vietnam's degrees of state secrecy are codes of a system of our own
//! ([`Secrecy::SYSTEM`]) among the resource's security labels (FHIR R4, `Resource.meta.security`). Labels of other systems,
//! such as HL7's confidentiality classes, say nothing about state secrets and are only kept. Not here: what follows from a
//! degree, which is [`super::wants`]'s.

use serde_json::Value;

use crate::id::Secrecy;

/// A label that is meant to be of our system, and is none of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// A code that it does not have.
    #[error(
        "meta.security names a degree of secrecy that does not exist; the codes of {} are mat, toi-mat and tuyet-mat",
        Secrecy::SYSTEM
    )]
    UnknownDegree,
    /// Its name with other letters, or with spaces around it.
    #[error(
        "a label in meta.security is of a system that is nearly {0} and would mark nothing; write {0}",
        Secrecy::SYSTEM
    )]
    NearlyOurs,
    /// In the wrong element.
    #[error(
        "a label of {} stands in meta.tag, where it marks nothing; write it in meta.security",
        Secrecy::SYSTEM
    )]
    InTag,
}

/// The highest degree that a resource names. A label that cannot be understood is an error: whoever wrote it meant to mark
/// something.
pub fn secrecy(resource: &Value) -> Result<Secrecy, LabelError> {
    if labels(&resource["meta"]["tag"]).iter().any(is_meant) {
        return Err(LabelError::InTag);
    }
    let mut highest = Secrecy::None;
    for label in labels(&resource["meta"]["security"]).iter().filter(|label| is_meant(label)) {
        if label["system"] != Secrecy::SYSTEM {
            return Err(LabelError::NearlyOurs);
        }
        let degree = label["code"].as_str().and_then(Secrecy::of_code).ok_or(LabelError::UnknownDegree)?;
        highest = highest.max(degree);
    }
    Ok(highest)
}

/// Writes into a resource that it is of this degree, unless it says so, or more, by itself.
pub fn mark(resource: &mut Value, degree: Secrecy) {
    let Some(code) = degree.code() else { return };
    if secrecy(resource).is_ok_and(|says| says >= degree) {
        return;
    }
    let label = serde_json::json!({"system": Secrecy::SYSTEM, "code": code});
    match &mut resource["meta"]["security"] {
        Value::Array(labels) => labels.push(label),
        none => *none = Value::Array(vec![label]),
    }
}

fn labels(element: &Value) -> &[Value] {
    match element {
        Value::Array(labels) => labels,
        one => std::slice::from_ref(one),
    }
}

fn is_meant(label: &Value) -> bool {
    label["system"].as_str().is_some_and(|system| system.trim().eq_ignore_ascii_case(Secrecy::SYSTEM))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_marked_says_so_once() {
        let mut note = json!({"resourceType": "DocumentReference", "meta": {"security": [{"system": "urn:other", "code": "R"}]}});
        for degree in [Secrecy::None, Secrecy::Mat, Secrecy::Mat, Secrecy::ToiMat, Secrecy::Mat] {
            mark(&mut note, degree);
            assert!(secrecy(&note).unwrap() >= degree);
        }
        assert_eq!(note["meta"]["security"].as_array().unwrap().len(), 3);
        let mut bare = json!({"resourceType": "Basic"});
        mark(&mut bare, Secrecy::TuyetMat);
        assert_eq!(secrecy(&bare), Ok(Secrecy::TuyetMat));
    }

    #[test]
    fn a_resource_is_as_secret_as_its_highest_label() {
        let ours = |code: &str| json!({"system": "urn:tuyen:secrecy", "code": code});
        let hl7 = json!({"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R"});
        for (security, expected) in [
            (json!(null), Ok(Secrecy::None)),
            (json!([]), Ok(Secrecy::None)),
            (json!([hl7]), Ok(Secrecy::None)),
            (json!([ours("mat")]), Ok(Secrecy::Mat)),
            (json!(ours("mat")), Ok(Secrecy::Mat)),
            (json!([ours("mat"), hl7, ours("tuyet-mat"), ours("toi-mat")]), Ok(Secrecy::TuyetMat)),
            (json!([ours("Mật")]), Err(LabelError::UnknownDegree)),
            (json!([ours("mat"), ours("")]), Err(LabelError::UnknownDegree)),
            (json!([{"system": "urn:tuyen:secrecy"}]), Err(LabelError::UnknownDegree)),
        ] {
            let resource = json!({"resourceType": "Basic", "meta": {"security": security}});
            assert_eq!(secrecy(&resource), expected, "{security}");
        }
        assert_eq!(secrecy(&json!({"resourceType": "Basic"})), Ok(Secrecy::None));
    }

    #[test]
    fn a_label_that_would_mark_nothing_is_refused() {
        for system in ["urn:tuyen:secrecy ", "URN:Tuyen:Secrecy", "\turn:tuyen:secrecy"] {
            let resource = json!({"meta": {"security": [{"system": system, "code": "mat"}]}});
            assert_eq!(secrecy(&resource), Err(LabelError::NearlyOurs), "{system}");
        }
        let resource = json!({"meta": {"tag": [{"system": "urn:tuyen:secrecy", "code": "mat"}]}});
        assert_eq!(secrecy(&resource), Err(LabelError::InTag));
        let other = json!({"meta": {"tag": {"system": "urn:other", "code": "mat"}}});
        assert_eq!(secrecy(&other), Ok(Secrecy::None));
    }
}
