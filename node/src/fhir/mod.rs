//! FHIR R4 at the edge of the node: resources come in from files and go out as lines, and a made-up
//! population stands in for real people wherever the software is shown, tested or measured. What always
//! holds: JSON in equals JSON out (numbers keep their digits, keys keep their order, unknown elements stay as they
//! are, and so do references but for those between the entries of a Bundle), and no error of this module shows a clinical value. Not here: merging and
//! the record model (sync-core), storing (`store`), and FHIR's REST interface.

pub mod attachment;
pub mod consent;
pub mod export;
pub mod import;
pub mod json;
pub mod organization;
pub mod population;
pub mod problem;
pub mod types;
