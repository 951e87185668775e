//! Grants: permissions for an organization to hold a record that is another's, for a time.
//!
//! A grant is a field of an entry's header, signed by the entry's author, who speaks for the record's home. It travels with
//! the record and stands in its history. What always holds: which grants a record has is a function of its entries, in
//! whatever order they have come. One that has ended once has ended for good; one whose time has passed ends at each node by
//! that node's own clock, because a machine that is cut off must forget as well. Not here: which records belong to a
//! patient, and who is asked to give one.

use std::collections::BTreeSet;

use crate::{
    codec::{DecodeError, Reader, Writer},
    feed::Seq,
    id::OrgId,
};

/// Most grants that one entry opens or ends.
pub const GRANTS_MAX: usize = 8;

/// The end of a grant that ends only when somebody says so.
pub const FOREVER: i64 = i64::MAX;

const OPENS: u8 = 1;
const ENDS: u8 = 2;

/// Names a grant; the records of one patient that are opened together share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrantId(pub [u8; 16]);

impl std::fmt::Display for GrantId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::str::FromStr for GrantId {
    type Err = NotAGrant;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u128::from_str_radix(text, 16).ok().filter(|_| digits);
        number.map(|number| Self(number.to_be_bytes())).ok_or(NotAGrant)
    }
}

/// A text that does not name a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the name of a grant is 32 hexadecimal digits, as `tuyen grant list` shows it")]
pub struct NotAGrant;

/// A permission to hold a record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// Its name.
    pub id: GrantId,
    /// Who may hold the record.
    pub to: OrgId,
    /// Until when, in milliseconds since 1970; [`FOREVER`] when nothing but a word ends it.
    pub until: i64,
}

/// What an entry does with a grant of its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// From now on.
    Opens(Grant),
    /// No longer, before its time.
    Ends(Grant),
}

impl Step {
    /// The grant.
    pub fn grant(&self) -> &Grant {
        match self {
            Step::Opens(grant) | Step::Ends(grant) => grant,
        }
    }
}

/// A grant of a record, as a node knows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Granted {
    /// The grant.
    pub grant: Grant,
    /// Set when it has ended: the row of this node's feed that tells those below so; 0 when its time had passed.
    pub over: Option<Seq>,
}

/// To whom these grants open their record.
pub fn opened(all: &[Granted]) -> impl Iterator<Item = &OrgId> {
    all.iter().filter(|one| one.over.is_none()).map(|one| &one.grant.to)
}

/// All who may hold a record with these homes and these grants, each once: the homes first.
pub fn held_for(homes: &[OrgId], grants: &[Granted]) -> Vec<OrgId> {
    let mut all = homes.to_vec();
    for to in opened(grants) {
        if !all.contains(to) {
            all.push(to.clone());
        }
    }
    all
}

/// To whom these grants open a row of their record's, each grant with the first row that could know of it: to whoever has one
/// that is open, and had one by then. Rows that came before were offered when it began.
pub fn opened_at(all: &[(Granted, Seq)], row: Seq) -> impl Iterator<Item = &OrgId> {
    let open: BTreeSet<_> =
        all.iter().filter(|(one, _)| one.over.is_none()).map(|(one, _)| &one.grant.to).collect();
    let had = move |to: &&OrgId| all.iter().any(|(one, since)| one.grant.to == **to && *since <= row);
    open.into_iter().filter(had)
}

/// The field's content: for each step its kind, the grant's name, the organization with its length (varint) and the time
/// (i64, big-endian).
pub fn encode(steps: &[Step]) -> Vec<u8> {
    let mut w = Writer::default();
    for step in steps {
        let Grant { id, to, until } = step.grant();
        let kind = match step {
            Step::Opens(_) => OPENS,
            Step::Ends(_) => ENDS,
        };
        w.u8(kind).raw(&id.0).bytes(to.as_str().as_bytes()).raw(&until.to_be_bytes());
    }
    w.0
}

/// Reads what [`encode`] wrote.
pub fn decode(bytes: &[u8]) -> Result<Vec<Step>, DecodeError> {
    const NO_ORG: DecodeError = DecodeError::Value("the organization of a grant");
    let (mut r, mut steps) = (Reader(bytes), Vec::new());
    while !r.0.is_empty() {
        if steps.len() == GRANTS_MAX {
            return Err(DecodeError::Limit { what: "the grants of an entry", limit: GRANTS_MAX as u64 });
        }
        let kind = r.u8("the kind of a grant's step")?;
        let id = GrantId(r.array("the name of a grant")?);
        let to = OrgId::new(r.str(63, "the organization of a grant")?).map_err(|_| NO_ORG)?;
        let until = i64::from_be_bytes(r.array("the end of a grant")?);
        let grant = Grant { id, to, until };
        steps.push(match kind {
            OPENS => Step::Opens(grant),
            ENDS => Step::Ends(grant),
            _ => return Err(DecodeError::Value("the kind of a grant's step")),
        });
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(n: u8) -> Grant {
        Grant { id: GrantId([n; 16]), to: OrgId::new(&format!("to-{n}")).unwrap(), until: 7 - i64::from(n) }
    }

    #[test]
    fn a_name_is_32_digits() {
        let id = GrantId([0xa5; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "a5", &"g".repeat(32), &"a".repeat(33), &format!("+{}", "a".repeat(31))] {
            assert_eq!(text.parse::<GrantId>(), Err(NotAGrant), "{text}");
        }
    }

    #[test]
    fn whoever_may_hold_a_record_is_named_once() {
        let home = OrgId::new("home").unwrap();
        let open = |n, to: &OrgId| Granted { grant: Grant { to: to.clone(), ..grant(n) }, over: None };
        let over = Granted { grant: grant(3), over: Some(0) };
        let to = grant(1).to;
        let grants = [open(1, &to), open(2, &to), over, open(4, &home)];
        assert_eq!(held_for(std::slice::from_ref(&home), &grants), [home, to]);
    }

    #[test]
    fn what_is_encoded_decodes_and_nothing_else_does() {
        let steps: Vec<_> = (0..GRANTS_MAX as u8)
            .map(|n| if n % 2 == 0 { Step::Opens(grant(n)) } else { Step::Ends(grant(n)) })
            .collect();
        let bytes = encode(&steps);
        assert_eq!(decode(&bytes).unwrap(), steps);
        let one = encode(&steps[..1]);
        let ends = bytes.len() - one.len();
        for end in (1..one.len()).chain(ends + 1..bytes.len()) {
            assert!(decode(&bytes[..end]).is_err(), "{end}");
        }
        assert!(decode(&[&bytes[..], &one].concat()).is_err(), "one too many");
        assert_eq!(decode(&[]).unwrap(), []);
        for (at, byte) in [(0, 0), (0, 3), (18, b'/')] {
            let mut bad = one.clone();
            bad[at] = byte;
            assert!(decode(&bad).is_err(), "{at}");
        }
    }
}
