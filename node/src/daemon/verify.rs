//! `tuyen verify`: the store's check of itself and the audit with a neighbour, on demand and once a day.
//!
//! A check runs on a thread and a connection of its own, so the core never waits for it; there is one at a time, and
//! whoever asks while it runs gets its answer. What it finds is an alert, which `tuyen status` shows, and the engine is
//! told. What differs from the entries that are here is made anew from them, some records at a time; the next check begins when
//! that is done. Then audits follow, one at a time: with the neighbour that was named, or, of the daily check, with the parent,
//! and with everybody when something is damaged. Not here: what is checked, and how the disk is spared (see
//! `store/check.rs`); what is compared (the engine's).

use std::{
    collections::{BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use sync_core::{
    audit::Harm,
    engine::{Audited, Event, LinkId},
    id::{OrgId, OrgPath, RecordId, Secrecy},
    session::Direction,
    store::{Store, StoreError},
};
use tokio::sync::mpsc;

use super::{
    Message,
    core::{Core, json},
    wall,
};
use crate::{
    admin::{Answer, Audit, Failure, FailureKind, FindingLine, Progress, Verified},
    clock,
    config::DATABASE,
    store::{Checked, Finding, Key, MENDED_MAX, Reader, SqliteStore},
};

/// The code of alerts of damage to the store.
pub(super) const ALERT: &str = "damaged";
/// The setting that says when the store was last checked, in milliseconds since 1970.
const CHECKED_AT: &str = "checked-at";
/// How often the store is checked by itself.
const EVERY_MILLIS: i64 = 24 * 3_600_000;
/// Not so soon after a start, when there is most to do.
const AFTER_START: Duration = Duration::from_secs(600);
/// A row that cannot be read is a reason for a check, but not so soon after the last one.
const AGAIN_AFTER: Duration = Duration::from_secs(600);
/// How often whoever waits hears how far the check is.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// An audit for which somebody was busy is tried again after so long.
const BUSY_AGAIN: Duration = Duration::from_secs(30);
/// Records that are mended in one step: some milliseconds.
const MEND_AT_ONCE: usize = 20;
/// Rows that an alert names.
const NAMED_MAX: usize = 5;

type Answers = mpsc::UnboundedSender<Answer>;

/// The check that is under way, and when the next one is due.
pub(super) struct Verify {
    core: mpsc::Sender<Message>,
    started: Instant,
    running: Option<Instant>,
    waiting: Vec<(Option<OrgId>, Answers)>,
    /// When the last one was done, by this machine's clock, and since the start.
    checked_at: i64,
    checked: Option<Instant>,
    /// A row cannot be read: one is due as soon as it can begin.
    due: bool,
    /// How many rows the last one before the start had left damaged.
    left_damaged: u64,
    /// The last one could not be finished, or has found what no row names and nothing here puts right.
    unsound: bool,
    /// The numbers of the records that are to be mended, and whether an entry is gone that may be of any of them.
    mend: BTreeSet<i64>,
    unknown: bool,
    /// The records of which an entry has come back to its row while the check ran: what it has seen of them was on its way.
    healed: BTreeSet<RecordId>,
    /// The audit that is under way.
    audit: Option<UnderWay>,
    /// With whom an audit is to be made by itself, and not before when.
    todo: VecDeque<OrgPath>,
    not_before: Instant,
}

impl Verify {
    /// The name of the setting that [`Verify::new`] is given.
    pub const SETTING: &str = CHECKED_AT;

    pub fn new(core: mpsc::Sender<Message>, kept: Option<Vec<u8>>) -> Self {
        let (checked_at, left_damaged, unsound) = read(kept);
        Self {
            core,
            started: Instant::now(),
            running: None,
            waiting: Vec::new(),
            checked_at,
            checked: None,
            due: false,
            left_damaged,
            unsound,
            mend: BTreeSet::new(),
            unknown: false,
            healed: BTreeSet::new(),
            audit: None,
            todo: VecDeque::new(),
            not_before: Instant::now(),
        }
    }

    /// An entry of this record has come back to its row.
    pub fn is_healed(&mut self, record: &RecordId) {
        if self.running.is_some() {
            self.healed.insert(record.clone());
        }
    }

    /// Whether the database is damaged otherwise than by rows that are counted.
    pub fn is_unsound(&self) -> bool {
        self.unsound
    }

    fn fail(&mut self, kind: FailureKind, text: &str) {
        for (_, answers) in self.waiting.drain(..) {
            // Nobody is there any more, if it fails.
            let _ = answers.send(Answer::Failed(Failure::new(kind, text)));
        }
    }
}

/// What was kept of the last check: when it was, how many rows it had left damaged, and whether the database is otherwise.
fn read(kept: Option<Vec<u8>>) -> (i64, u64, bool) {
    let kept = kept.unwrap_or_default();
    let number = |nth: usize| kept.get(nth * 8..nth * 8 + 8).and_then(|bytes| bytes.try_into().ok());
    let count = |nth| number(nth).map_or(0, u64::from_be_bytes);
    (number(0).map_or(0, i64::from_be_bytes), count(1), count(2) > 0)
}

/// Whether the last check of a node that is stopped had left something damaged.
pub(super) fn was_left_damaged(store: &SqliteStore) -> Result<bool, StoreError> {
    let (_, rows, unsound) = read(store.setting(CHECKED_AT)?);
    Ok(rows > 0 || unsound)
}

/// An audit.
struct UnderWay {
    link: LinkId,
    began: Instant,
    /// Who waits for it, if it was ordered, and what the check before it has found.
    who: Option<(Answers, Verified)>,
}

/// Whether the daily check is due. A time that is to come is of a clock that was wrong.
fn is_due(checked_at: i64, now: i64, up: Duration) -> bool {
    up >= AFTER_START && !(0..EVERY_MILLIS).contains(&now.saturating_sub(checked_at))
}

impl Core {
    /// Begins a check, or waits for the one that runs; then an audit, if a neighbour is named.
    pub fn verify(&mut self, with: Option<OrgId>, answers: Answers) {
        if let Some(org) = with.as_ref().filter(|org| self.neighbour(org).is_none()) {
            let text = format!(
                "{org} is not connected with this node; `tuyen peers` shows who is. Only the parent and children can be \
                 asked, by their organization"
            );
            let _ = answers.send(Answer::Failed(Failure::new(FailureKind::Failed, text)));
            return;
        }
        self.verify.waiting.push((with, answers));
        self.begin_check();
    }

    fn neighbour(&self, org: &OrgId) -> Option<LinkId> {
        self.peers.iter().rev().find(|(_, peer)| peer.info.place.org() == org).map(|(link, _)| *link)
    }

    /// Begins what is due by itself.
    pub fn verify_daily(&mut self) -> Result<(), StoreError> {
        // Whatever the last one had left may be somewhere by now.
        let left = self.verify.checked.is_none() && (self.verify.left_damaged > 0 || self.verify.unsound);
        if !self.verify.waiting.is_empty()
            || left
            || self.verify.due
            || is_due(self.verify.checked_at, wall(), self.verify.started.elapsed())
        {
            self.begin_check();
        }
        if self.verify.todo.is_empty()
            && self.verify.audit.is_none()
            && let Some(parent) = self.engine.awaits_audit().and_then(|link| self.peers.get(&link))
        {
            self.verify.todo.push_back(parent.info.place.clone());
        }
        if self.verify.audit.is_none()
            && Instant::now() >= self.verify.not_before
            && let Some(place) = self.verify.todo.pop_front()
            && let Some(link) = self.neighbour(place.org())
        {
            return self.begin_audit(link, None);
        }
        Ok(())
    }

    /// Something strange has happened with these neighbours: when it is over, all is compared.
    pub fn audit_soon(&mut self, places: impl IntoIterator<Item = OrgPath>) {
        for place in places {
            if !self.verify.todo.contains(&place) {
                self.verify.todo.push_back(place);
            }
        }
        self.verify.not_before = Instant::now() + BUSY_AGAIN;
    }

    /// A row cannot be read: the store is checked now, unless that was done a moment ago.
    pub fn check_soon(&mut self) {
        if self.verify.checked.is_none_or(|at| at.elapsed() >= AGAIN_AFTER) {
            self.verify.due = true;
            self.begin_check();
        }
    }

    /// How many rows are known to be damaged here and healed by nobody: they may be nowhere else.
    pub fn left_damaged(&self) -> u64 {
        match self.verify.checked {
            Some(_) => self.engine.damaged().count() as u64,
            None => self.verify.left_damaged,
        }
    }

    /// What the last check has left, for the next start.
    fn keep_what_is_damaged(&mut self) -> Result<(), StoreError> {
        let unsound = u64::from(self.verify.unsound);
        let kept =
            [self.verify.checked_at.to_be_bytes(), self.left_damaged().to_be_bytes(), unsound.to_be_bytes()];
        self.store.set_setting(CHECKED_AT, &kept.concat())
    }

    fn begin_check(&mut self) {
        if self.verify.running.is_some() || !self.verify.mend.is_empty() || !self.refold.is_empty() {
            return;
        }
        self.verify.healed.clear();
        self.verify.due = false;
        let core = self.verify.core.clone();
        let reader = self.reader_of_its_own();
        let check = move || {
            let mut told = Instant::now();
            let progress = |done, total| {
                if told.elapsed() >= PROGRESS_EVERY {
                    told = Instant::now();
                    let _ = core.blocking_send(Message::Checking(done, total));
                }
            };
            let checked = reader()
                .and_then(|mut reader| reader.integrity_check(progress).map_err(|error| error.to_string()));
            // When the core has ended nobody wants to know.
            let _ = core.blocking_send(Message::Checked(checked));
        };
        match std::thread::Builder::new().name("check".to_owned()).spawn(check) {
            Ok(_) => self.verify.running = Some(Instant::now()),
            Err(error) => {
                let text = format!("the check could not be started: {error}; try again");
                self.verify.fail(FailureKind::Failed, &text);
            }
        }
    }

    fn reader_of_its_own(&self) -> impl FnOnce() -> Result<Reader, String> + Send + use<> {
        let (database, key) = (self.dir.join(DATABASE), self.config.key_path(&self.dir));
        move || {
            let key = Key::read(&key).map_err(|error| error.to_string())?;
            Reader::open(&database, &key).map_err(|error| error.to_string())
        }
    }

    /// The check goes on.
    pub fn checking(&mut self, done: u64, total: u64) {
        self.verify.waiting.retain(|(_, answers)| {
            let what = "rows checked".to_owned();
            answers.send(Answer::Progress(Progress { what, done, total: Some(total) })).is_ok()
        });
    }

    /// The check has ended.
    pub fn checked(&mut self, outcome: Result<Checked, String>) -> Result<(), StoreError> {
        let began = self.verify.running.take().unwrap_or_else(Instant::now);
        (self.verify.checked_at, self.verify.checked) = (wall(), Some(Instant::now()));
        let mut checked = match outcome {
            Ok(checked) => checked,
            Err(error) => {
                self.verify.unsound = true;
                self.keep_what_is_damaged()?;
                let text = format!("the check of the store could not be finished: {error}");
                self.alert(ALERT, text.clone());
                self.verify.fail(FailureKind::Integrity, &text);
                return Ok(());
            }
        };
        let healed = std::mem::take(&mut self.verify.healed);
        let is_over = |finding: &Finding| {
            finding.row.is_none() && finding.record.as_ref().is_some_and(|it| healed.contains(it))
        };
        checked.findings.retain(|finding| !is_over(finding));
        let is_of_all = |it: &Finding| it.row.is_none() && it.record.is_none() && !it.mended;
        self.verify.unsound = checked.findings.iter().any(is_of_all);
        if let Some(text) = in_words(&checked) {
            self.alert(ALERT, text);
        }
        for finding in checked.findings.iter().filter(|finding| finding.mended) {
            tracing::warn!("{finding}; it is put right from what is here");
        }
        let misfiled = checked.findings.iter().filter(|finding| is_misfiled(finding));
        let misfiled: Vec<_> = misfiled.filter_map(|finding| finding.record.clone()).collect();
        if checked.loose {
            self.store.sweep()?;
        } else if !misfiled.is_empty() {
            self.store.forget_names()?;
        }
        self.engine.handle(Event::Checked(checked.checkup()), &self.store, clock::now())?;
        if !checked.pieces.is_empty() {
            self.engine.handle(Event::Rotten(checked.pieces.clone()), &self.store, clock::now())?;
        }
        self.let_out()?;
        self.keep_what_is_damaged()?;
        self.verify.mend.extend(&checked.records);
        self.verify.unknown = checked.unknown;
        self.verify.mend.extend(self.store.numbers_of(&misfiled)?);
        if checked.records.len() >= MENDED_MAX {
            // There may be more.
            self.verify.checked_at = 0;
        }
        let verified = Verified {
            rows: checked.rows,
            findings: checked.findings.iter().map(line).collect(),
            more: checked.more,
            mended: checked.findings.iter().filter(|finding| finding.mended).count() as u64,
            millis: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            audit: None,
        };
        let waiting = std::mem::take(&mut self.verify.waiting);
        if waiting.is_empty() {
            self.audit_after(&checked);
        }
        for (with, answers) in waiting {
            match with {
                None => super::core::send(&answers, &verified),
                Some(org) => self.audit_for(&org, answers, verified.clone())?,
            }
        }
        Ok(())
    }

    /// Mends some records. False when there are none to be mended.
    pub fn mend(&mut self) -> Result<bool, StoreError> {
        if self.verify.mend.is_empty() {
            return Ok(false);
        }
        let numbers: Vec<_> =
            std::iter::from_fn(|| self.verify.mend.pop_first()).take(MEND_AT_ONCE).collect();
        let records = self.store.mend(&numbers, self.verify.unknown)?;
        for record in records {
            if !self.store.grants(&record)?.is_empty() {
                self.compartments.is_granted(&record);
            }
            self.refold.insert(record);
        }
        self.engine.handle(Event::Mended, &self.store, clock::now())?;
        self.let_out()?;
        Ok(true)
    }

    /// The daily check is followed by an audit with the parent, and with everybody when something is damaged.
    fn audit_after(&mut self, checked: &Checked) {
        let all = !checked.is_sound();
        let peers = self.peers.values().filter(|peer| all || peer.direction == Direction::Up);
        let places: Vec<_> = peers.map(|peer| peer.info.place.clone()).collect();
        self.audit_soon(places);
        self.verify.not_before = Instant::now();
    }

    fn audit_for(&mut self, org: &OrgId, answers: Answers, verified: Verified) -> Result<(), StoreError> {
        let failure = match (self.neighbour(org), &self.verify.audit) {
            (Some(link), None) => return self.begin_audit(link, Some((answers, verified))),
            (Some(_), Some(_)) => busy(org),
            (None, _) => cut(org),
        };
        let _ = answers.send(Answer::Failed(failure));
        Ok(())
    }

    fn begin_audit(&mut self, link: LinkId, who: Option<(Answers, Verified)>) -> Result<(), StoreError> {
        self.verify.audit = Some(UnderWay { link, began: Instant::now(), who });
        self.engine.handle(Event::Audit(link), &self.store, clock::now())?;
        self.let_out().map(drop)
    }

    /// Reads the rows that an audit compares, on a thread and a connection of its own.
    pub fn survey(&mut self, link: LinkId, homes: Vec<OrgId>, allowed: Secrecy) {
        let (core, reader) = (self.verify.core.clone(), self.reader_of_its_own());
        let survey = move || {
            let outcome = reader()
                .and_then(|mut reader| reader.summary(&homes, allowed).map_err(|error| error.to_string()));
            let _ = core.blocking_send(Message::Surveyed(link, outcome));
        };
        if let Err(error) = std::thread::Builder::new().name("survey".to_owned()).spawn(survey) {
            tracing::warn!(%error, "an audit was given up");
            if let Some(peer) = self.peers.get(&link) {
                peer.outbox.close();
            }
        }
    }

    /// An audit that this node has begun is over.
    pub fn audited(&mut self, link: LinkId, audited: Audited) -> Result<(), StoreError> {
        let Some(UnderWay { began, who, .. }) = self.verify.audit.take_if(|audit| audit.link == link) else {
            return Ok(());
        };
        let Some(place) = self.peers.get(&link).map(|peer| peer.info.place.clone()) else { return Ok(()) };
        let Audited::Done { entries, here, there, missed } = audited else {
            match who {
                Some((answers, _)) => {
                    let _ = answers.send(Answer::Failed(busy(place.org())));
                }
                None => self.audit_soon([place]),
            }
            return Ok(());
        };
        self.keep_what_is_damaged()?;
        tracing::info!(with = %place, entries, here, there, missed, "audited");
        if here + there > 0 {
            let text = format!(
                "an audit with {place} has found {here} entries lacking here and {there} there; they are in place \
                 again. Find out why: check the disk's health, and whether somebody has put back a copy"
            );
            self.alert("repaired", text);
        }
        if let Some(text) = self.nobody_has(&place) {
            self.alert(ALERT, text);
        }
        if let Some((answers, mut verified)) = who {
            let left: Vec<_> = self.engine.damaged().map(|damage| damage.row).collect();
            verified
                .findings
                .retain(|finding| !finding.mended && finding.row.is_none_or(|row| left.contains(&row)));
            let millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            verified.audit = Some(Audit { with: place, entries, here, there, missed, millis });
            let _ = answers.send(Answer::Done(json(&verified)));
        }
        Ok(())
    }

    /// The rows that are damaged still, in words.
    fn nobody_has(&self, place: &OrgPath) -> Option<String> {
        let row = |damage: &sync_core::audit::Damage| match &damage.record {
            Some(record) => format!("{} ({record})", damage.row),
            None => damage.row.to_string(),
        };
        let rows: Vec<_> = self.engine.damaged().map(row).collect();
        let more =
            rows.len().checked_sub(NAMED_MAX + 1).map_or(String::new(), |n| format!(" and {} more", n + 1));
        (!rows.is_empty()).then(|| {
            format!(
                "{place} does not have what stood in row {}{more} of this node's feed; ask the other neighbours with \
                 `tuyen verify --with`, or enter again what is missing",
                rows[..rows.len().min(NAMED_MAX)].join(", ")
            )
        })
    }

    /// The link has ended.
    pub fn audit_is_cut(&mut self, link: LinkId, place: &OrgPath) {
        let Some(UnderWay { who, .. }) = self.verify.audit.take_if(|audit| audit.link == link) else {
            return;
        };
        match who {
            Some((answers, _)) => {
                let _ = answers.send(Answer::Failed(cut(place.org())));
            }
            None => self.audit_soon([place.clone()]),
        }
    }
}

fn busy(org: &OrgId) -> Failure {
    let text = format!(
        "the store was checked, and not compared: {org} or this node has something else to do; try again when all is \
         synced"
    );
    Failure::new(FailureKind::Failed, text)
}

fn cut(org: &OrgId) -> Failure {
    let text =
        format!("the link to {org} has ended; whatever was put in place stays; try again when it is back");
    Failure::new(FailureKind::Failed, text)
}

fn line(finding: &Finding) -> FindingLine {
    let Finding { record, what, mended, .. } = finding;
    let problem = if *mended { format!("{what}; it is put right") } else { what.clone() };
    FindingLine { row: finding.row.map(|(row, _)| row), record: record.clone(), problem, mended: *mended }
}

fn is_misfiled(finding: &Finding) -> bool {
    finding.row.is_some_and(|(_, harm)| harm == Harm::Misfiled)
}

/// What an operator is told; nothing when all is well.
fn in_words(checked: &Checked) -> Option<String> {
    let first = checked.findings.first()?;
    let all = checked.findings.len() as u64 + checked.more;
    let more = if all == 1 { String::new() } else { format!(", and {} more", all - 1) };
    let what_follows = match checked.more == 0 && checked.findings.iter().all(|finding| finding.mended) {
        true => "It is put right from the entries that are here; nobody has to be asked",
        false => {
            "`tuyen verify` names everything, and `tuyen verify --with` a neighbour puts back what that has"
        }
    };
    Some(format!(
        "the store is not as it was written: {first}{more}. {what_follows}; check the disk's health"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_due_once_a_day_and_not_at_a_start() {
        let hour = 3_600_000;
        for (checked_at, now, due) in [
            (0, 30 * hour, true),
            (10 * hour, 30 * hour, false),
            (10 * hour, 34 * hour - 1, false),
            (10 * hour, 34 * hour, true),
            // A clock that was wrong.
            (99 * hour, 30 * hour, true),
            (i64::MAX, i64::MIN, true),
        ] {
            assert_eq!(is_due(checked_at, now, AFTER_START), due, "{checked_at} {now}");
            assert!(!is_due(checked_at, now, AFTER_START - Duration::from_secs(1)));
        }
    }
}
