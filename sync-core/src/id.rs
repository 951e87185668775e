//! Names of things: incarnations, nodes, organizations, records, hashes and lanes.
//!
//! Every name is a type of its own that cannot hold a wrong value, so that the rest of the crate never
//! checks one twice. Nothing here makes a random name: whoever runs the engine brings the randomness.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// Longest organization identifier, in bytes. It has to fit a DNS label (RFC 1035), because it stands in a
/// certificate.
pub const ORG_ID_MAX_BYTES: usize = 63;
/// Longest logical id, in characters. FHIR R4 says 64 (`[A-Za-z0-9\-\.]{1,64}`), but HL7's own examples hold one
/// of 67, and a record must not be lost for the length of its name.
pub const FHIR_ID_MAX_CHARS: usize = 128;
/// Longest FHIR resource type name that a record identifier may carry, in bytes.
pub const RESOURCE_TYPE_MAX_BYTES: usize = 64;

/// What was wrong with a name that came from outside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a hexadecimal string of the right length.
    #[error("not {0} hexadecimal digits")]
    Hex(usize),
    /// Not an organization identifier.
    #[error("an organization id is 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit")]
    Org,
    /// Not a record identifier.
    #[error(
        "a record is named Type/id, with a FHIR resource type and 1 to 128 of A-Z, a-z, 0-9, '-' and '.'"
    )]
    Record,
}

macro_rules! bytes_name {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// The length in bytes.
            pub const LEN: usize = $len;

            /// The first eight hexadecimal digits, for people.
            pub fn short(&self) -> String {
                self.0[..4].iter().map(|b| format!("{b:02x}")).collect()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.short())
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(s: &str) -> Result<Self, NameError> {
                let wrong = NameError::Hex($len * 2);
                if s.len() != $len * 2 || !s.is_ascii() {
                    return Err(wrong);
                }
                let mut bytes = [0; $len];
                for (i, byte) in bytes.iter_mut().enumerate() {
                    *byte = u8::from_str_radix(&s[i * 2..i * 2 + 2], 16).map_err(|_| wrong.clone())?;
                }
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

bytes_name!(
    /// Sixteen bytes minted at each process start before the first write: the automerge actor of that run, and the name
    /// of its feed segment. Eight are random; the other eight are the first of the node's name, so that nobody can
    /// announce a run by a name that another node uses.
    Incarnation, 16
);
bytes_name!(
    /// A node: the first 16 bytes of the SHA-256 of its public key (SubjectPublicKeyInfo, DER).
    NodeId, 16
);
bytes_name!(
    /// The hash of an automerge change: SHA-256 over its chunk as automerge's storage format defines it.
    ChangeHash, 32
);
bytes_name!(
    /// The hash of an entry: SHA-256 over its header (which names the record) and its change.
    EntryHash, 32
);
bytes_name!(
    /// BLAKE3 of the content of an attachment.
    ContentHash, 32
);
bytes_name!(
    /// The running hash of a feed segment at one position.
    Chain, 16
);

impl Incarnation {
    /// Bytes that are random.
    pub const FRESH_LEN: usize = 8;

    /// A run of this node, with these random bytes.
    pub fn of(node: NodeId, fresh: [u8; Self::FRESH_LEN]) -> Self {
        let mut bytes = node.0;
        bytes.rotate_left(Self::FRESH_LEN);
        bytes[..Self::FRESH_LEN].copy_from_slice(&fresh);
        Self(bytes)
    }

    /// Whether a run of this node can have this name.
    pub fn is_of(self, node: NodeId) -> bool {
        self.author() == &node.0[..Self::LEN - Self::FRESH_LEN]
    }

    /// What all runs of one node have in common.
    pub fn author(&self) -> &[u8] {
        &self.0[Self::FRESH_LEN..]
    }
}

/// An organization: a short name, unique in the tree, such as `ha-giang`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OrgId(Arc<str>);

impl OrgId {
    /// Checks the form of a name.
    pub fn new(name: &str) -> Result<Self, NameError> {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let ok = (1..=ORG_ID_MAX_BYTES).contains(&name.len())
            && name.bytes().all(inner)
            && !name.starts_with('-')
            && !name.ends_with('-');
        if ok { Ok(Self(name.into())) } else { Err(NameError::Org) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OrgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for OrgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for OrgId {
    type Error = NameError;
    fn try_from(s: String) -> Result<Self, NameError> {
        Self::new(&s)
    }
}

impl From<OrgId> for String {
    fn from(org: OrgId) -> String {
        org.0.as_ref().to_owned()
    }
}

impl FromStr for OrgId {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        Self::new(s)
    }
}

/// The organizations from the root down to one node, each the parent of the next. Never empty.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OrgPath(Vec<OrgId>);

impl OrgPath {
    /// The path of a root.
    pub fn root(org: OrgId) -> Self {
        Self(vec![org])
    }

    /// The path of a child of this place.
    pub fn child(&self, org: OrgId) -> Self {
        let mut orgs = self.0.clone();
        orgs.push(org);
        Self(orgs)
    }

    /// The organization at the end of the path.
    pub fn org(&self) -> &OrgId {
        self.0.last().expect("a path is never empty")
    }

    /// The path of the parent; none for a root.
    pub fn parent(&self) -> Option<Self> {
        let above = &self.0[..self.0.len() - 1];
        (!above.is_empty()).then(|| Self(above.to_vec()))
    }

    /// How many organizations the path names; a root has depth 1.
    pub fn depth(&self) -> usize {
        self.0.len()
    }

    /// The organization so many steps below the root.
    pub fn org_at(&self, depth: usize) -> Option<&OrgId> {
        self.0.get(depth)
    }

    /// Whether the organization is on the path.
    pub fn has(&self, org: &OrgId) -> bool {
        self.0.contains(org)
    }

    /// This place when `from`, at which or below which it is, has become `to`; none when it is elsewhere.
    pub fn moved(&self, from: &OrgPath, to: &OrgPath) -> Option<OrgPath> {
        let below = self.0.strip_prefix(&from.0[..])?;
        Some(Self(to.0.iter().chain(below).cloned().collect()))
    }

    /// Whether `self` is `place` or lies below it.
    pub fn is_within(&self, place: &OrgPath) -> bool {
        self.0.starts_with(&place.0)
    }
}

impl fmt::Display for OrgPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, org) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("/")?;
            }
            f.write_str(org.as_str())?;
        }
        Ok(())
    }
}

impl fmt::Debug for OrgPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for OrgPath {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        s.split('/').map(OrgId::new).collect::<Result<_, _>>().map(Self)
    }
}

impl TryFrom<String> for OrgPath {
    type Error = NameError;
    fn try_from(s: String) -> Result<Self, NameError> {
        s.parse()
    }
}

impl From<OrgPath> for String {
    fn from(path: OrgPath) -> String {
        path.to_string()
    }
}

/// A record: a FHIR resource type and its logical id, written `Patient/8f21`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RecordId(Arc<str>);

/// With this the ids begin of what organizations issue; the organization follows, and another dot.
const ISSUED: &str = "o.";

impl RecordId {
    /// Checks and joins the two halves of a name.
    pub fn new(resource_type: &str, id: &str) -> Result<Self, NameError> {
        let type_ok = (1..=RESOURCE_TYPE_MAX_BYTES).contains(&resource_type.len())
            && resource_type.bytes().all(|b| b.is_ascii_alphanumeric())
            && resource_type.as_bytes()[0].is_ascii_uppercase();
        let id_ok = (1..=FHIR_ID_MAX_CHARS).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
        if type_ok && id_ok {
            Ok(Self(format!("{resource_type}/{id}").into()))
        } else {
            Err(NameError::Record)
        }
    }

    /// The whole name, `Type/id`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The record that this organization issues under this name: see [`RecordId::issuer`].
    pub fn issued(issuer: &OrgId, resource_type: &str, id: &str) -> Result<Self, NameError> {
        Self::new(resource_type, &format!("{ISSUED}{issuer}.{id}"))
    }

    /// The organization that issues this record to everybody below it; none for a record of the usual kind. That stands
    /// in the id, `o.trung-uong.2026-17`, and in no other place, so nobody else can come to have a record of this name.
    pub fn issuer(&self) -> Option<OrgId> {
        let (org, name) = self.id().strip_prefix(ISSUED)?.split_once('.')?;
        OrgId::new(org).ok().filter(|_| !name.is_empty())
    }

    /// The FHIR resource type.
    pub fn resource_type(&self) -> &str {
        self.0.split_once('/').expect("a record id has a '/'").0
    }

    /// The FHIR logical id.
    pub fn id(&self) -> &str {
        self.0.split_once('/').expect("a record id has a '/'").1
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RecordId {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        let (resource_type, id) = s.split_once('/').ok_or(NameError::Record)?;
        Self::new(resource_type, id)
    }
}

impl TryFrom<String> for RecordId {
    type Error = NameError;
    fn try_from(s: String) -> Result<Self, NameError> {
        s.parse()
    }
}

impl From<RecordId> for String {
    fn from(id: RecordId) -> String {
        id.0.as_ref().to_owned()
    }
}

/// How urgently an entry travels. A record's lane is fixed when the record is created, so that the entries of
/// one record never overtake one another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// Overtakes everything: what a clinician must not be without.
    Urgent = 0,
    /// The day's records.
    Normal = 1,
    /// What nobody waits for.
    Bulk = 2,
}

impl Lane {
    /// All lanes, most urgent first.
    pub const ALL: [Lane; 3] = [Lane::Urgent, Lane::Normal, Lane::Bulk];

    /// The lane with this number on the wire.
    pub fn from_u8(n: u8) -> Option<Self> {
        Self::ALL.get(usize::from(n)).copied()
    }

    /// The lane of a new record of this FHIR resource type (design, section 7: what a clinician must see first
    /// is urgent, reference material is bulk).
    pub fn of_resource_type(resource_type: &str) -> Self {
        match resource_type {
            "AllergyIntolerance" | "Flag" | "DetectedIssue" | "CommunicationRequest" => Lane::Urgent,
            "AuditEvent"
            | "Provenance"
            | "Binary"
            | "Media"
            | "CodeSystem"
            | "ValueSet"
            | "ConceptMap"
            | "StructureDefinition"
            | "ImplementationGuide"
            | "NamingSystem"
            | "SearchParameter" => Lane::Bulk,
            _ => Lane::Normal,
        }
    }
}

/// The lanes that a link may carry at the moment. What is urgent is always among them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lanes(u8);

impl Lanes {
    /// All of them.
    pub const ALL: Self = Self(0b111);

    /// The lanes of a bit mask; none when urgent is not among them, or a lane that does not exist is.
    pub fn from_bits(bits: u8) -> Option<Self> {
        (bits & 1 == 1 && bits <= Self::ALL.0).then_some(Self(bits))
    }

    /// The bit mask: the bit of a lane has the lane's number.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// The same without bulk.
    pub const fn without_bulk(self) -> Self {
        Self(self.0 & !(1 << Lane::Bulk as u8))
    }

    /// Whether a lane is among them.
    pub fn has(self, lane: Lane) -> bool {
        self.0 & (1 << lane as u8) != 0
    }

    /// Those that are in both.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl Default for Lanes {
    fn default() -> Self {
        Self::ALL
    }
}

/// How secret what a record says is, in rising order: the degrees of Vietnam's Law on the Protection of State Secrets
/// (29/2018/QH14, article 8).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Secrecy {
    /// No state secret.
    #[default]
    None = 0,
    /// Mật.
    Mat = 1,
    /// Tối mật.
    ToiMat = 2,
    /// Tuyệt mật.
    TuyetMat = 3,
}

impl Secrecy {
    /// All degrees, the lowest first.
    pub const ALL: [Secrecy; 4] = [Secrecy::None, Secrecy::Mat, Secrecy::ToiMat, Secrecy::TuyetMat];
    /// The `system` of a degree among a resource's security labels (`meta.security`).
    pub const SYSTEM: &str = "urn:tuyen:secrecy";

    /// The degree with this number; what a later version may add is taken for the highest.
    pub fn from_u8(n: u8) -> Self {
        Self::ALL.get(usize::from(n)).copied().unwrap_or(Secrecy::TuyetMat)
    }

    /// Its code among a resource's security labels; none for what is no secret.
    pub fn code(self) -> Option<&'static str> {
        match self {
            Secrecy::None => None,
            Secrecy::Mat => Some("mat"),
            Secrecy::ToiMat => Some("toi-mat"),
            Secrecy::TuyetMat => Some("tuyet-mat"),
        }
    }

    /// The degree of a code.
    pub fn of_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|degree| degree.code() == Some(code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn degrees_of_secrecy_are_told_apart_and_what_is_unknown_is_the_highest() {
        assert!(Secrecy::ALL.is_sorted());
        for (number, degree) in (0..).zip(Secrecy::ALL) {
            assert_eq!((Secrecy::from_u8(number), degree as u8), (degree, number));
            assert_eq!(degree.code().and_then(Secrecy::of_code), degree.code().map(|_| degree));
        }
        assert_eq!((Secrecy::from_u8(4), Secrecy::from_u8(255)), (Secrecy::TuyetMat, Secrecy::TuyetMat));
        assert_eq!((Secrecy::of_code("Mật"), Secrecy::of_code("")), (None, None));
    }

    #[test]
    fn names_are_checked() {
        assert!(OrgId::new("ha-giang").is_ok());
        for wrong in ["", "-a", "a-", "Hà", "a b", "A"] {
            assert_eq!(OrgId::new(wrong), Err(NameError::Org), "{wrong:?}");
        }
        assert_eq!("Patient/8f.2-1".parse::<RecordId>().unwrap().id(), "8f.2-1");
        for wrong in ["Patient", "patient/1", "Patient/", "Patient/a_b", "/1", "Patient/a/b"] {
            assert!(wrong.parse::<RecordId>().is_err(), "{wrong:?}");
        }
        for (org, resource_type, id, right) in [
            ("a", "A", "1", true),
            (
                &*"a".repeat(ORG_ID_MAX_BYTES),
                &*"A".repeat(RESOURCE_TYPE_MAX_BYTES),
                &*"1".repeat(FHIR_ID_MAX_CHARS),
                true,
            ),
            (&*"a".repeat(ORG_ID_MAX_BYTES + 1), &*"A".repeat(RESOURCE_TYPE_MAX_BYTES + 1), "1", false),
            ("_", "A", &*"1".repeat(FHIR_ID_MAX_CHARS + 1), false),
            ("a.", "A-", "1", false),
            ("a_a", "1A", "1", false),
        ] {
            assert_eq!(
                (OrgId::new(org).is_ok(), RecordId::new(resource_type, id).is_ok()),
                (right, right),
                "{org}"
            );
        }
        let hash: ChangeHash = "ab".repeat(32).parse().unwrap();
        assert!("ab".repeat(31).parse::<ChangeHash>().is_err());
        assert_eq!((hash.short(), format!("{hash:?}")), ("abababab".to_owned(), "abababab".to_owned()));
        assert_eq!(hash.to_string(), "ab".repeat(32));
        assert!("é0".repeat(16).parse::<ChangeHash>().is_err());
    }

    #[test]
    fn what_is_issued_says_by_whom() {
        let issuer = |name: &str| name.parse::<RecordId>().unwrap().issuer().map(|org| org.to_string());
        for (name, by) in [
            ("PlanDefinition/o.trung-uong.2026-17", Some("trung-uong")),
            ("Patient/o.a.b.c", Some("a")),
            ("ValueSet/o.trung-uong", None),
            ("ValueSet/o.trung-uong.", None),
            ("ValueSet/o.Trung.x", None),
            ("ValueSet/o..x", None),
            ("ValueSet/2.16.840", None),
            ("ValueSet/oa.b.c", None),
        ] {
            assert_eq!(issuer(name), by.map(str::to_owned), "{name}");
        }
        let issued = RecordId::issued(&OrgId::new("ha-giang").unwrap(), "Library", "7").unwrap();
        assert_eq!(issued.as_str(), "Library/o.ha-giang.7");
        let too_long = "x".repeat(FHIR_ID_MAX_CHARS);
        assert!(RecordId::issued(&OrgId::new("ha-giang").unwrap(), "Library", &too_long).is_err());
    }

    #[test]
    fn a_place_lies_within_itself_and_its_ancestors() {
        let hub: OrgPath = "trung-uong/ha-giang".parse().unwrap();
        let leaf = hub.child(OrgId::new("dong-van").unwrap());
        assert!(leaf.is_within(&hub) && hub.is_within(&hub) && !hub.is_within(&leaf));
        assert!(!"trung-uong/ha-giang-2".parse::<OrgPath>().unwrap().is_within(&hub));
        assert_eq!((leaf.depth(), hub.depth()), (3, 2));
        assert_eq!(leaf.parent(), Some(hub));
        let root = OrgPath::root(OrgId::new("trung-uong").unwrap());
        assert_eq!((root.parent(), root.depth(), root.org().as_str()), (None, 1, "trung-uong"));
    }

    #[test]
    fn names_are_shown_as_they_are_read() {
        let (org, place, record) = ("ha-giang", "tw/ha-giang/dong-van", "Patient/8f21");
        let names: (OrgId, OrgPath, RecordId) =
            (org.parse().unwrap(), place.parse().unwrap(), record.parse().unwrap());
        assert_eq!(format!("{} {} {}", names.0, names.1, names.2), format!("{org} {place} {record}"));
        assert_eq!(format!("{:?} {:?} {:?}", names.0, names.1, names.2), format!("{org} {place} {record}"));
        let json = serde_json::to_string(&names).unwrap();
        assert_eq!(json, format!("[\"{org}\",\"{place}\",\"{record}\"]"));
        assert_eq!(serde_json::from_str::<(OrgId, OrgPath, RecordId)>(&json).unwrap(), names);
        assert!(serde_json::from_str::<OrgPath>("\"a//b\"").is_err());
        assert_eq!((names.2.resource_type(), names.2.id()), ("Patient", "8f21"));
        let node = NodeId([0xab; 16]);
        assert_eq!(serde_json::from_str::<NodeId>(&serde_json::to_string(&node).unwrap()).unwrap(), node);
    }

    #[test]
    fn a_lane_follows_from_the_resource_type() {
        for (resource_type, lane) in [
            ("AllergyIntolerance", Lane::Urgent),
            ("CommunicationRequest", Lane::Urgent),
            ("Patient", Lane::Normal),
            ("Provenance", Lane::Bulk),
            ("SearchParameter", Lane::Bulk),
        ] {
            assert_eq!(Lane::of_resource_type(resource_type), lane, "{resource_type}");
        }
        assert_eq!([0, 2, 3].map(Lane::from_u8), [Some(Lane::Urgent), Some(Lane::Bulk), None]);
    }
}
