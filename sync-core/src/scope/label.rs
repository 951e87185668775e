//! Labels: how secret a resource says that it is. Vietnam's degrees of state secrecy are codes of a system of our own
//! ([`Secrecy::SYSTEM`]) among the resource's security labels (FHIR R4, `Resource.meta.security`). Labels of other systems,
//! such as HL7's confidentiality classes, say nothing about state secrets and are only kept. Not here: what follows from a
//! degree, which is [`super::wants`]'s.

use serde_json::Value;

use crate::id::Secrecy;

/// A label of our system with a code that it does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "meta.security names a degree of secrecy that does not exist; the codes of {} are mat, toi-mat and tuyet-mat",
    Secrecy::SYSTEM
)]
pub struct UnknownDegree;

/// The highest degree that a resource names. A label that cannot be understood is an error: whoever wrote it meant to mark
/// something.
pub fn secrecy(resource: &Value) -> Result<Secrecy, UnknownDegree> {
    let labels = match &resource["meta"]["security"] {
        Value::Array(labels) => &labels[..],
        one => std::slice::from_ref(one),
    };
    let ours = labels.iter().filter(|label| label["system"] == Secrecy::SYSTEM);
    let degree = |label: &Value| label["code"].as_str().and_then(Secrecy::of_code).ok_or(UnknownDegree);
    ours.map(degree).try_fold(Secrecy::None, |highest, degree| Ok(highest.max(degree?)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
            (json!([ours("Mật")]), Err(UnknownDegree)),
            (json!([ours("mat"), ours("")]), Err(UnknownDegree)),
            (json!([{"system": "urn:tuyen:secrecy"}]), Err(UnknownDegree)),
        ] {
            let resource = json!({"resourceType": "Basic", "meta": {"security": security}});
            assert_eq!(secrecy(&resource), expected, "{security}");
        }
        assert_eq!(secrecy(&json!({"resourceType": "Basic"})), Ok(Secrecy::None));
    }
}
