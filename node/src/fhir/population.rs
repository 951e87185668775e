//! A made-up population of Vietnamese officials and their records, for demonstrations, tests and benchmarks.
//! What always holds: the same seed, place and number give the same bytes on every machine; each person is
//! made independently of the others; references lead only to the person's own earlier records and to the
//! organization; nothing is taken from a real person. Identity and insurance numbers have the right structure
//! and are drawn by chance, so a real number can turn up, and belongs to nobody here; telephone numbers begin
//! with 054, a code that is not in use. Not here: names of clinicians as resources, laboratory reports, images.
//!
//! About four in five records are Observations: a yearly examination has thirteen or fourteen, a visit for a
//! chronic illness a few. A Patient has about 1.5 kB, an Observation about 1.1 kB.

mod clinic;
mod dice;
pub mod edit;
mod person;
mod tables;

use std::{collections::VecDeque, iter::Take};

use serde_json::Value;
use sync_core::id::OrgId;

use self::{clinic::life, person::Person};

/// The system of the identity number (CCCD), as HL7 Vietnam's core guide names it.
pub const CCCD_SYSTEM: &str = "http://fhir.ehealth.gov.vn/core/sid/national_id";
/// The system of the health insurance number (BHYT), as HL7 Vietnam's core guide names it.
pub const BHYT_SYSTEM: &str = "http://fhir.ehealth.gov.vn/core/sid/insurance_number";
/// The extension that holds a person's position in office, a string.
pub const POSITION_EXTENSION: &str = "https://tuyen.invalid/fhir/StructureDefinition/position";
/// The last year of the made-up records; there is no clock here.
pub const LAST_YEAR: i64 = 2025;

/// The records of one organization's people, person after person, without end: a Patient, then what is always
/// true of that person, then the years in order.
pub struct Population {
    seed: u64,
    org: OrgId,
    next_person: u64,
    ready: VecDeque<Value>,
}

impl Population {
    /// The people whom this organization manages, under this seed.
    pub fn new(seed: u64, org: &OrgId) -> Self {
        Self { seed, org: org.clone(), next_person: 0, ready: VecDeque::new() }
    }

    /// Exactly so many records of the population; the last person's may be cut short.
    pub fn records(seed: u64, org: &OrgId, count: usize) -> Take<Self> {
        Self::new(seed, org).take(count)
    }

    /// Only the Patients, without end.
    pub fn patients(seed: u64, org: &OrgId) -> impl Iterator<Item = Value> + use<> {
        let org = org.clone();
        (0..).map(move |number| clinic::patient(&Person::new(seed, &org, number)))
    }
}

impl Iterator for Population {
    type Item = Value;

    fn next(&mut self) -> Option<Value> {
        while self.ready.is_empty() {
            self.ready.extend(life(Person::new(self.seed, &self.org, self.next_person)));
            self.next_person += 1;
        }
        self.ready.pop_front()
    }
}

#[cfg(test)]
mod tests;
