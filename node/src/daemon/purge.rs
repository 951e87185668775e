//! Receipts for what this node has forgotten because an order put it elsewhere, or a grant has ended: each is a FHIR AuditEvent of this node, so it
//! goes up like any other record, and whoever stands above sees what was forgotten where, and when. What always holds: nothing
//! of a record stands in it, nor a record's name. Not here: what is forgotten, and when; see `sync_core::engine`.

use serde_json::{Value, json, value::RawValue};
use sync_core::{
    engine::Event,
    id::{NodeId, OrgId, OrgPath, RecordId},
    scope::compartment::ORG_SYSTEM,
    store::{Forgotten, Purge, StoreError},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    core::{Core, Outcome, Problem},
    wall,
};
use crate::{
    admin::{ForgottenLine, Leaving, Purged, Receipt},
    clock,
    fhir::consent,
};

/// The ids of receipts begin so.
const PREFIX: &str = "AuditEvent/purged-";
const NODE: &str = "urn:tuyen:node";
const ORDER: &str = "urn:tuyen:order";
/// Receipts that are shown.
const RECEIPTS_MAX: usize = 1_000;
/// Bytes of resources that are read at once.
const PAGE_BYTES: usize = 4 << 20;

impl Core {
    /// Writes the receipts that are due.
    pub fn write_receipts(&mut self) -> Result<(), StoreError> {
        for purge in std::mem::take(&mut self.forgotten) {
            let receipt = self.receipt(&purge);
            let why = match purge.order {
                0 => "a grant has ended".to_owned(),
                order => format!("order {order} put it elsewhere"),
            };
            match self.put(vec![receipt], None, None, Some(why.clone())) {
                Ok(written) if written.rejected.is_empty() => {}
                Ok(written) => {
                    // It is told again at the next start.
                    let problem =
                        written.rejected.first().map(|one| one.problem.as_str()).unwrap_or_default();
                    tracing::error!(problem, "the receipt for what was forgotten was not written");
                    continue;
                }
                Err(Problem::Store(error)) => return Err(error),
                Err(Problem::Failure(failure)) => {
                    tracing::error!(
                        problem = failure.text,
                        "the receipt for what was forgotten was not written"
                    );
                    continue;
                }
            }
            let (mut records, mut entries) = (0, 0);
            for part in &purge.forgotten {
                (records, entries) = (records + part.records, entries + part.entries);
            }
            tracing::info!(records, entries, %why, "forgot what is for others");
            self.engine.handle(Event::ForgottenTold(purge.forgotten), &self.store, clock::now())?;
            self.let_out()?;
        }
        Ok(())
    }

    fn receipt(&self, purge: &Purge) -> Box<RawValue> {
        let info = self.engine.info();
        let place = self.engine.place().to_string();
        let entity = |part: &Forgotten| {
            json!({
                "what": {"identifier": {"system": ORG_SYSTEM, "value": part.home}},
                "detail": [
                    {"type": "records", "valueString": part.records.to_string()},
                    {"type": "entries", "valueString": part.entries.to_string()},
                ],
            })
        };
        let receipt = json!({
            "resourceType": "AuditEvent",
            "id": format!("{}{}-{}", PREFIX.trim_start_matches("AuditEvent/"), info.node.short(), purge.upto),
            "type": {"system": "http://terminology.hl7.org/CodeSystem/iso-21089-lifecycle", "code": "destroy"},
            "action": "D",
            "recorded": consent::rfc3339(wall()),
            "outcome": "0",
            "agent": [{
                "who": {"identifier": {"system": NODE, "value": info.node.to_string()}},
                "policy": [format!("{ORDER}:{}", purge.order)],
                "requestor": false,
            }],
            "source": {"observer": {"identifier": {"system": ORG_SYSTEM, "value": place}}},
            "entity": purge.forgotten.iter().map(entity).collect::<Vec<_>>(),
        });
        RawValue::from_string(receipt.to_string()).expect("a receipt is JSON")
    }

    /// What is still here of others.
    pub fn leaving(&self) -> Option<Leaving> {
        let purge = self.engine.purge().filter(|purge| purge.done < purge.upto)?;
        Some(Leaving { order: purge.order, done: purge.done, of: purge.upto })
    }

    /// The receipts that this node holds, its own and those of the nodes below it, oldest first.
    pub fn purged(&self) -> Outcome<Purged> {
        let mut receipts = Vec::new();
        let mut after: RecordId = PREFIX.parse().expect("the beginning of their ids is an id");
        loop {
            let (listed, more) = self.reader.page(Some("AuditEvent"), Some(&after), 100, PAGE_BYTES)?;
            let ours = listed.iter().take_while(|one| one.record.as_str().starts_with(PREFIX));
            receipts.extend(ours.filter_map(|one| read(one.resource.as_deref()?)));
            let last = listed.last().map(|one| one.record.clone());
            match last.filter(|last| more && last.as_str().starts_with(PREFIX)) {
                Some(last) if receipts.len() < RECEIPTS_MAX => after = last,
                _ => break,
            }
        }
        receipts.sort_by_key(|receipt: &Receipt| receipt.at);
        Ok(Purged { receipts })
    }
}

/// What a receipt says; none when it is something else under such a name.
fn read(resource: &str) -> Option<Receipt> {
    let resource: Value = serde_json::from_str(resource).ok()?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let at = OffsetDateTime::parse(resource["recorded"].as_str()?, &Rfc3339).ok()?;
    let agent = &resource["agent"][0];
    let line = |entity: &Value| {
        let number = |kind: &str| {
            let detail = entity["detail"].as_array()?.iter().find(|detail| detail["type"] == kind)?;
            detail["valueString"].as_str()?.parse().ok()
        };
        let org = entity["what"]["identifier"]["value"].as_str()?;
        Some(ForgottenLine {
            org: OrgId::new(org).ok()?,
            records: number("records")?,
            entries: number("entries")?,
        })
    };
    Some(Receipt {
        at: i64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()?,
        node: text(&agent["who"]["identifier"]["value"])?.parse::<NodeId>().ok()?,
        place: resource["source"]["observer"]["identifier"]["value"].as_str()?.parse::<OrgPath>().ok()?,
        order: agent["policy"][0].as_str()?.strip_prefix(ORDER)?.strip_prefix(':')?.parse().ok()?,
        forgotten: resource["entity"].as_array()?.iter().map(line).collect::<Option<_>>()?,
    })
}
