//! Profiles: how secret what goes to a neighbour may be, and comes from it.
//!
//! Each end of a link has its own, and says it in HELLO: what is more secret than either allows stays. Who has decided so is for
//! the host to know. A bundle cannot be answered: whoever is not allowed to take what it holds refuses it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{OrgId, Secrecy};

/// How something gets to a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// Over a link.
    Link = 0,
    /// In a courier bundle.
    Courier = 1,
}

impl Way {
    /// Both.
    pub const ALL: [Way; 2] = [Way::Link, Way::Courier];

    /// The way with this number.
    pub fn from_u8(n: u8) -> Option<Self> {
        Self::ALL.get(usize::from(n)).copied()
    }
}

/// By neighbour and way the highest degree that is allowed. None of what is not named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profiles(BTreeMap<(OrgId, Way), Secrecy>);

impl Profiles {
    /// The highest degree that may go to a neighbour, and come from it.
    pub fn allowed(&self, org: &OrgId, way: Way) -> Secrecy {
        self.0.get(&(org.clone(), way)).copied().unwrap_or_default()
    }

    /// Allows everything up to a degree. What it was before.
    pub fn allow(&mut self, org: OrgId, way: Way, upto: Secrecy) -> Secrecy {
        self.0.insert((org, way), upto).unwrap_or_default()
    }

    /// All that allow something, or have once.
    pub fn iter(&self) -> impl Iterator<Item = (&OrgId, Way, Secrecy)> {
        self.0.iter().map(|((org, way), upto)| (org, *way, *upto))
    }
}
