//! Requests about conflicts.

use serde_json::value::{RawValue, to_raw_value};
use sync_core::{
    conflict::{Conflict, Policy},
    id::RecordId,
    record,
    store::Store,
};

use super::{
    core::{Core, Outcome, refuse},
    records::usage,
};
use crate::{
    admin::{Choice, ConflictLine, ConflictValue, Conflicts, FailureKind, Written},
    fhir::json,
};

/// Most records of one page.
const PAGE_MAX: u32 = 1_000;

impl Core {
    /// Open conflicts by record; or all of one record, also those that settled themselves.
    pub fn conflicts(
        &self,
        record: Option<&RecordId>,
        after: Option<&RecordId>,
        limit: u32,
    ) -> Outcome<Conflicts> {
        if let Some(id) = record {
            let all = self.known(id)?.record.conflicts();
            let lines = all.iter().map(|one| self.line(id, one)).collect::<Outcome<_>>()?;
            return Ok(Conflicts { conflicts: lines, next: None });
        }
        let page = self.reader.conflicts(after, limit.min(PAGE_MAX) as usize)?;
        let next = page.last().map(|last| last.record.clone());
        let mut lines = Vec::new();
        for one in page {
            let text = one.conflicts.unwrap_or_default();
            let Ok(all) = serde_json::from_str::<Vec<Conflict>>(&text) else {
                let text = format!(
                    "the list of conflicts of {0} is damaged; `tuyen conflicts show {0}` works it out anew, and the \
                     next change of the record mends it",
                    one.record
                );
                return refuse(FailureKind::Integrity, text);
            };
            for conflict in sync_core::conflict::open(&all) {
                lines.push(self.line(&one.record, conflict)?);
            }
        }
        Ok(Conflicts { conflicts: lines, next })
    }

    fn line(&self, record: &RecordId, conflict: &Conflict) -> Outcome<ConflictLine> {
        let mut values = Vec::new();
        for arm in &conflict.values {
            let author = self.store.announcement(arm.incarnation)?.map(|(_, info)| info);
            values.push(ConflictValue {
                form: arm.form.clone(),
                value: arm.value.as_ref().map(raw),
                node: author.as_ref().map(|info| info.node),
                org: author.map(|info| info.place.org().clone()),
                by: arm.by.clone(),
                at: arm.stamp.0,
            });
        }
        Ok(ConflictLine {
            record: record.clone(),
            path: conflict.path.clone(),
            kind: raw(&conflict.kind).get().trim_matches('"').to_owned(),
            state: if conflict.policy == Policy::Review { "open" } else { "settled" }.to_owned(),
            values,
            shown: conflict.chosen + 1,
        })
    }

    /// Settles a conflict.
    pub fn resolve(
        &mut self,
        id: &RecordId,
        path: &str,
        choice: Choice,
        by: Option<String>,
        why: &str,
    ) -> Outcome<Written> {
        if why.trim().is_empty() {
            return refuse(
                FailureKind::Usage,
                "a resolution needs a reason, which stays in the history; give --why",
            );
        }
        let choice = match choice {
            Choice::Take(number) => record::Choice::Take(number),
            Choice::Value(value) => match json::parse(value.get().as_bytes()) {
                Ok(value) => record::Choice::Value(value),
                Err(problem) => {
                    return refuse(FailureKind::Usage, format!("{problem}; {}", problem.what_to_do()));
                }
            },
        };
        let mut opened = self.known(id)?;
        let why = Some(why.to_owned());
        let change = opened.record.resolve(path, choice, &self.author(&by, &why)).map_err(usage)?;
        self.write_one(opened, Some(change))
    }
}

fn raw(value: &impl serde::Serialize) -> Box<RawValue> {
    to_raw_value(value).expect("a value of a record is JSON")
}
