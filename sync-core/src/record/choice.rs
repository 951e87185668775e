//! Choice elements: `value[x]` of FHIR is one element with a name for each data type (`valueString`, `valueBoolean`), of
//! which a resource has one. Each name is a register of its own, so two people who do not hear of one another can
//! fill two of them. What they said is then one question with several answers, as in any other element.
//!
//! Names that stand together are in dispute when two of them, or one and a deletion of another, were written at the same
//! time. Who writes two names into one resource knows of both: that is wrong FHIR, no conflict, and stays as it is.
//! Not here: elements inside FHIR's data types, which are one register with all that is in them.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    backbone::Place,
    choice_table::{TABLE, TYPES},
    key,
    payload::Payload,
    view::{Live, Maker, Registers, Slot, Source, Verdict, says_the_same},
};
use crate::{
    conflict::{Policies, Policy},
    id::{ChangeHash, RecordId},
};

/// A choice element in dispute.
pub(super) struct Choice<'t, 'a> {
    /// The path, such as `component[91be].value[x]`.
    pub key: String,
    base: &'static str,
    /// Its names and their registers, also those that are deleted.
    pub forms: Vec<Form<'t, 'a>>,
    /// The values of all of them, the earliest first; the last one is shown.
    pub answers: Vec<Answer<'t>>,
    /// The latest of the deletions that stand against the values.
    pub deletion: Option<Maker>,
}

/// One name of a choice element.
pub(super) struct Form<'t, 'a> {
    pub name: &'t str,
    pub registers: &'t Registers<'a>,
    pub slot: &'t Slot<'a>,
    verdict: Verdict<'t>,
}

/// One value.
pub(super) struct Answer<'t> {
    /// Which of the forms.
    pub form: usize,
    /// Which of the form's values.
    pub nth: usize,
    pub live: Live<'t>,
    pub maker: Maker,
}

impl<'t, 'a> Choice<'t, 'a> {
    /// Whether the element `name` is in this dispute.
    pub fn has(&self, name: &str) -> bool {
        self.forms.iter().any(|form| form.name == name)
    }

    /// Whether this is a name of the choice, in dispute or not.
    pub fn allows(&self, name: &str) -> bool {
        is_form(self.base, name)
    }

    /// What is shown meanwhile.
    pub fn shown(&self) -> &Answer<'t> {
        &self.answers[self.answers.len() - 1]
    }

    /// A person decides if it is so for any of the forms.
    pub fn policy(&self, id: &RecordId, policies: &Policies) -> Policy {
        let of = |form: &Form<'_, '_>| policies.of(&key::fhir_path(id.resource_type(), &form.slot.key));
        if self.forms.iter().any(|form| of(form) == Policy::Review) { Policy::Review } else { Policy::Latest }
    }

    /// The form of an answer.
    pub fn form(&self, answer: &Answer<'_>) -> &Form<'t, 'a> {
        &self.forms[answer.form]
    }
}

/// Whether an element of this name is a form of the choice `base`.
pub(super) fn is_form(base: &str, name: &str) -> bool {
    name.strip_prefix(base).is_some_and(|rest| TYPES.binary_search(&rest).is_ok())
}

/// The choices of the element that has this key.
fn bases(resource_type: &str, key: &str) -> impl Iterator<Item = &'static str> {
    let place = Place::at(resource_type, key);
    let known = TABLE.binary_search_by_key(&resource_type, |(name, _)| name).ok();
    let paths = known.and_then(|at| Some((TABLE[at].1, place?.path())));
    paths.into_iter().flat_map(|(paths, place)| {
        paths.split(' ').filter_map(move |path| {
            let (around, base) = path.rsplit_once('.').unwrap_or(("", path));
            (around == place).then_some(base)
        })
    })
}

/// Whether two names begin alike and go on with a capital letter each.
fn look_like_forms(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let alike = one.iter().zip(other).take_while(|(a, b)| a == b).count();
    (1..=alike).any(|at| [one, other].iter().all(|name| name.get(at).is_some_and(u8::is_ascii_uppercase)))
}

/// The choices of an element in dispute, by name.
pub(super) fn disputes<'t, 'a>(
    id: &RecordId,
    source: &Source<'_>,
    slot: &'t Slot<'a>,
) -> Vec<Choice<'t, 'a>> {
    let mut found: Vec<Choice<'t, 'a>> = Vec::new();
    let mut looked_at: Vec<&'static str> = Vec::new();
    let mut last = "";
    for name in slot.fields.keys() {
        // Nearly all elements end here.
        if look_like_forms(last, name) {
            for base in bases(id.resource_type(), &slot.key).filter(|base| is_form(base, name)) {
                if !looked_at.contains(&base) {
                    looked_at.push(base);
                    found.extend(dispute(source, slot, base));
                }
            }
        }
        last = name;
    }
    found
}

/// One distinct value of a form, or one deletion of it, and the changes that said so.
struct Said {
    form: usize,
    changes: Vec<ChangeHash>,
    is_deletion: bool,
}

fn dispute<'t, 'a>(source: &Source<'_>, slot: &'t Slot<'a>, base: &'static str) -> Option<Choice<'t, 'a>> {
    let forms: Vec<_> = slot
        .fields
        .range(base.to_owned()..)
        .take_while(|(name, _)| name.starts_with(base))
        .filter(|(name, _)| is_form(base, name))
        .filter_map(|(name, registers)| form(source, name, registers))
        .collect();
    if forms.len() < 2 || forms.iter().all(|form| form.verdict.live.is_empty()) {
        return None;
    }
    let all: Vec<Said> = forms.iter().enumerate().flat_map(|(n, form)| said(source, n, form)).collect();
    let deletions = standing(source, &forms, &all)?;
    let mut answers = Vec::new();
    for (at, form) in forms.iter().enumerate() {
        for (nth, live) in form.verdict.live.iter().enumerate() {
            let maker = live.maker(form.slot, source)?;
            answers.push(Answer { form: at, nth, live: live.clone(), maker });
        }
    }
    // The order of forms decides between two that one change has written.
    answers.sort_by_key(|answer| (answer.maker.rank(), answer.form));
    let deletion = deletions.iter().filter_map(|change| source.maker(change)).max_by_key(Maker::rank);
    Some(Choice { key: format!("{}[x]", key::child(slot.prefix(), base)), base, forms, answers, deletion })
}

/// One name, unless it is there as a list.
fn form<'t, 'a>(source: &Source<'_>, name: &'t str, registers: &'t Registers<'a>) -> Option<Form<'t, 'a>> {
    let slot = registers.single.as_ref()?;
    let is_list = registers.items.values().any(|item| item.judge(source).shown().is_some());
    (!is_list).then(|| Form { name, registers, slot, verdict: slot.judge(source) })
}

/// All that stands in a form's register, and the deletions that its values carry along.
fn said(source: &Source<'_>, form: usize, of: &Form<'_, '_>) -> Vec<Said> {
    let values = of.verdict.live.iter().map(|_| Said { form, changes: Vec::new(), is_deletion: false });
    let mut all: Vec<Said> = values.collect();
    let mut deletions: BTreeSet<_> = of.verdict.deletions.iter().map(|maker| maker.change).collect();
    for value in &of.slot.values {
        let Some(payload) = Payload::read(value.text.as_deref(), of.slot.form) else { continue };
        let Some(change) = value.change.or_else(|| source.writer(of.slot)) else { continue };
        let same = of.verdict.live.iter().position(|live| says_the_same(&live.payload, &payload));
        match same {
            _ if payload.deleted => drop(deletions.insert(change)),
            Some(at) => all[at].changes.push(change),
            None => {}
        }
    }
    let open = deletions.into_iter().filter(|change| !of.verdict.settled.contains(change));
    all.extend(open.map(|change| Said { form, changes: vec![change], is_deletion: true }));
    all
}

/// The deletions that stand against the values of a choice; `None` when nothing is in dispute.
fn standing(source: &Source<'_>, forms: &[Form<'_, '_>], all: &[Said]) -> Option<BTreeSet<ChangeHash>> {
    let values = || all.iter().filter(|said| !said.is_deletion);
    // The rule: one change has written every value, and what is deleted went when a value came.
    let by_one = |change| values().all(|value| value.changes.contains(change));
    let is_of_a_value = |change| values().any(|value| value.changes.contains(change));
    let mut deleted = all.iter().filter(|said| said.is_deletion).flat_map(|said| &said.changes);
    if values().next()?.changes.iter().any(by_one) && deleted.all(is_of_a_value) {
        return None;
    }
    let changes: BTreeSet<_> = all.iter().flat_map(|said| &said.changes).collect();
    let seen: BTreeMap<_, _> = changes.into_iter().map(|change| (change, source.causes(change))).collect();
    let saw = |of: &Said, what: &Said| {
        let pair = |change: &ChangeHash| {
            what.changes.iter().any(|other| change == other || seen[change].contains(other))
        };
        of.changes.iter().any(pair)
    };
    let at_once = |a: &Said, b: &Said| a.form != b.form && !saw(a, b) && !saw(b, a);
    // Who put one form in the place of another has not deleted the element.
    let is_answered = |deletion: &Said| values().any(|value| saw(value, deletion));
    let deletions: Vec<_> = all.iter().filter(|said| said.is_deletion && !is_answered(said)).collect();
    let disputed =
        values().any(|value| values().chain(deletions.iter().copied()).any(|other| at_once(value, other)));
    let stands = |deletion: &&&Said| {
        let of = &forms[deletion.form].verdict;
        !of.live.is_empty() || values().any(|value| at_once(value, deletion))
    };
    disputed.then(|| deletions.iter().filter(stands).flat_map(|deletion| deletion.changes.clone()).collect())
}
