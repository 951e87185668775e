//! `tuyen verify`: the store's check of itself, on demand and once a day.
//!
//! A check runs on a thread and a connection of its own, so the core never waits for it; there is one at a time, and
//! whoever asks while it runs gets its answer. What it finds is an alert, which `tuyen status` shows. Not here: what is
//! checked, and how the disk is spared; see `store/check.rs`.

use std::time::{Duration, Instant};

use sync_core::store::StoreError;
use tokio::sync::mpsc;

use super::{
    Message,
    core::{Core, json},
    wall,
};
use crate::{
    admin::{Answer, Failure, FailureKind, FindingLine, Progress, Verified},
    config::DATABASE,
    store::{Checked, Finding, Key, Reader},
};

/// The setting that says when the store was last checked, in milliseconds since 1970.
const CHECKED_AT: &str = "checked-at";
/// How often the store is checked by itself.
const EVERY_MILLIS: i64 = 24 * 3_600_000;
/// Not so soon after a start, when there is most to do.
const AFTER_START: Duration = Duration::from_secs(600);
/// How often whoever waits hears how far the check is.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// The check that is under way, and when the next one is due.
pub(super) struct Verify {
    core: mpsc::Sender<Message>,
    started: Instant,
    running: Option<Instant>,
    waiting: Vec<mpsc::UnboundedSender<Answer>>,
    /// When the last one was done, by this machine's clock.
    checked_at: i64,
}

impl Verify {
    pub fn new(core: mpsc::Sender<Message>, checked_at: Option<Vec<u8>>) -> Self {
        let at = checked_at.and_then(|bytes| bytes.try_into().ok()).map_or(0, i64::from_be_bytes);
        Self { core, started: Instant::now(), running: None, waiting: Vec::new(), checked_at: at }
    }

    /// The name of the setting that [`Verify::new`] is given.
    pub const SETTING: &str = CHECKED_AT;

    fn tell(&self, answer: impl Fn() -> Answer) {
        for waiting in &self.waiting {
            // Nobody is there any more, then.
            let _ = waiting.send(answer());
        }
    }
}

/// Whether the daily check is due. A time that is to come is of a clock that was wrong.
fn is_due(checked_at: i64, now: i64, up: Duration) -> bool {
    up >= AFTER_START && !(0..EVERY_MILLIS).contains(&now.saturating_sub(checked_at))
}

impl Core {
    /// Begins a check, or waits for the one that runs.
    pub fn verify(&mut self, answers: mpsc::UnboundedSender<Answer>) {
        self.verify.waiting.push(answers);
        self.begin_check();
    }

    /// Begins the daily check when it is due.
    pub fn verify_daily(&mut self) {
        if self.verify.running.is_none()
            && is_due(self.verify.checked_at, wall(), self.verify.started.elapsed())
        {
            self.begin_check();
        }
    }

    fn begin_check(&mut self) {
        if self.verify.running.is_some() {
            return;
        }
        let (dir, key, core) = (self.dir.clone(), self.config.key_path(&self.dir), self.verify.core.clone());
        let check = move || {
            let outcome = Key::read(&key).map_err(|error| error.to_string()).and_then(|key| {
                let mut reader =
                    Reader::open(&dir.join(DATABASE), &key).map_err(|error| error.to_string())?;
                let mut told = Instant::now();
                let checked = reader.integrity_check(|done, total| {
                    if told.elapsed() >= PROGRESS_EVERY {
                        told = Instant::now();
                        let _ = core.blocking_send(Message::Checking(done, total));
                    }
                });
                checked.map_err(|error| error.to_string())
            });
            // When the core has ended nobody wants to know.
            let _ = core.blocking_send(Message::Checked(outcome));
        };
        match std::thread::Builder::new().name("check".to_owned()).spawn(check) {
            Ok(_) => self.verify.running = Some(Instant::now()),
            Err(error) => {
                let text = format!("the check could not be started: {error}; try again");
                self.verify.tell(|| Answer::Failed(Failure::new(FailureKind::Failed, text.clone())));
                self.verify.waiting.clear();
            }
        }
    }

    /// The check goes on.
    pub fn checking(&mut self, done: u64, total: u64) {
        let what = "rows checked".to_owned();
        self.verify.tell(|| Answer::Progress(Progress { what: what.clone(), done, total: Some(total) }));
        self.verify.waiting.retain(|waiting| !waiting.is_closed());
    }

    /// The check has ended.
    pub fn checked(&mut self, outcome: Result<Checked, String>) -> Result<(), StoreError> {
        let began = self.verify.running.take().unwrap_or_else(Instant::now);
        self.verify.checked_at = wall();
        self.store.set_setting(CHECKED_AT, &self.verify.checked_at.to_be_bytes())?;
        let checked = match outcome {
            Ok(checked) => checked,
            Err(error) => {
                let text = format!("the check of the store could not be finished: {error}");
                self.alert("damaged", text.clone());
                self.verify.tell(|| Answer::Failed(Failure::new(FailureKind::Integrity, text.clone())));
                self.verify.waiting.clear();
                return Ok(());
            }
        };
        if let Some(text) = in_words(&checked) {
            self.alert("damaged", text);
        }
        let verified = Verified {
            rows: checked.rows,
            findings: checked.findings.iter().map(line).collect(),
            more: checked.more,
            millis: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        };
        self.verify.tell(|| Answer::Done(json(&verified)));
        self.verify.waiting.clear();
        Ok(())
    }
}

fn line(finding: &Finding) -> FindingLine {
    FindingLine {
        row: finding.row.map(|(row, _)| row),
        record: finding.record.clone(),
        problem: finding.what.clone(),
    }
}

/// What an operator is told; nothing when all is well.
fn in_words(checked: &Checked) -> Option<String> {
    let first = checked.findings.first()?;
    let all = checked.findings.len() as u64 + checked.more;
    let more = if all == 1 { String::new() } else { format!(", and {} more", all - 1) };
    Some(format!(
        "the store is not as it was written: {first}{more}. `tuyen verify` names everything; check the disk's health, \
         and put back a copy of the node's folder if it goes on"
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
