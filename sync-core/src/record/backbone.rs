//! Which elements are merged part by part: the resource itself, its BackboneElements, and `meta`.
//!
//! Everything else is one of FHIR's data types and one statement. `meta` is a data type too, but its parts
//! (profile, security, tag) are written by different hands, so it is taken apart. A type or an element that the
//! table does not know is one statement: a record written by a newer version loses nothing here.

use super::{backbone_table::TABLE, key};

/// The element that is taken apart in every resource although it is no BackboneElement.
const META: &str = "meta";

/// An element that is taken apart: where its own elements stand in the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    elements: &'static str,
    path: &'static str,
}

impl Place {
    /// The resource itself.
    pub fn resource(resource_type: &str) -> Self {
        let at = TABLE.binary_search_by_key(&resource_type, |(name, _)| name);
        Self { elements: at.map_or("", |i| TABLE[i].1), path: "" }
    }

    /// The element with this key, if it is taken apart.
    pub fn at(resource_type: &str, key: &str) -> Option<Self> {
        let steps = key::parse(key)?;
        steps.iter().try_fold(Self::resource(resource_type), |place, step| place.element(&step.name))
    }

    /// The path in the resource type, without the type; empty for the resource itself.
    pub fn path(&self) -> &'static str {
        self.path
    }

    /// The element `name` in this place, if it is taken apart.
    pub fn element(&self, name: &str) -> Option<Self> {
        if self.path.is_empty() && name == META {
            return Some(Self { elements: "", path: META });
        }
        for entry in self.elements.split(' ') {
            let (path, target) = entry.split_once('=').unwrap_or((entry, entry));
            let rest = path.strip_prefix(self.path);
            let rest = if self.path.is_empty() { rest } else { rest.and_then(|r| r.strip_prefix('.')) };
            if rest.is_some_and(|r| r == name && !r.is_empty()) {
                return Some(Self { elements: self.elements, path: target });
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backbone_elements_are_found() {
        assert!(TABLE.is_sorted());
        let patient = Place::resource("Patient");
        assert!(patient.element("contact").is_some() && patient.element("meta").is_some());
        for atomic in ["name", "", "contact.telecom", "cont", "text"] {
            assert!(patient.element(atomic).is_none(), "{atomic}");
        }
        assert!(patient.element("contact").unwrap().element("telecom").is_none());
        assert!(patient.element("meta").unwrap().element("tag").is_none());
        assert!(Place::resource("Unheard").element("contact").is_none());
        let component = Place::resource("Observation").element("component").unwrap();
        assert!(component.element("referenceRange").is_some());
    }

    #[test]
    fn an_element_that_refers_to_another_behaves_like_it() {
        let mut item = Place::resource("Questionnaire").element("item").unwrap();
        for _ in 0..5 {
            item = item.element("item").unwrap();
            assert!(item.element("enableWhen").is_some());
        }
    }
}
