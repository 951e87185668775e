//! Keeping to what may be used of the line to the parent: the core counts, says which lanes may go and how fast, and warns.
//!
//! What always holds: bytes are counted as the connection counts them, both ways, with the headers below; the count is
//! durable once a minute at most, or after [`WRITE_BYTES`], and when the daemon stops in order, so a power cut takes the
//! last minute of it. Time is the later of the machine's clock and the last that was known to be good. A clock that goes
//! back counts in the month that it says. Not here: when bulk waits (`crate::budget`), and what waiting means (the
//! engine's).

use std::{
    collections::BTreeMap,
    path::Path,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use quinn::Connection;
use sync_core::{
    engine::{Event, LinkId},
    feed::Seq,
    id::{Lane, Lanes},
    session::Direction,
    store::{Frontier, StoreError},
};

use super::{
    alerts::About,
    core::{Core, Outcome, refuse},
    outages::has_room,
};
use crate::{
    admin::{FailureKind, Line, Waiting},
    budget::{Budget, Change, MB, Month, Wait},
    clock,
    store::SqliteStore,
};

/// The setting that holds the counts.
const TRAFFIC: &str = "traffic";
/// How often links and clock are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the count is written, when it has changed.
const WRITE_EVERY: Duration = Duration::from_secs(60);
/// Or when so much has been counted.
const WRITE_BYTES: u64 = 4 << 20;
/// Counts of so many months are kept, the newest.
const MONTHS: usize = 24;
/// Headers of UDP and of IPv4, and of IPv6.
const HEADERS: (u64, u64) = (28, 48);
/// Bulk that is let through once is let through for so long at least: nobody knows what the parent has.
const LET_THROUGH: Duration = Duration::from_secs(300);
/// An alert comes at this part of the cap.
const WARN_PERCENT: u64 = 80;

/// Bytes by month, as they are kept.
type Months = BTreeMap<String, u64>;

/// What is counted, and what was said of it.
pub(super) struct Budgets {
    months: Months,
    /// What each link had brought when it was last looked at.
    counted: BTreeMap<LinkId, u64>,
    unwritten: u64,
    written_at: Instant,
    looked_at: Instant,
    /// Which warning stands.
    warned: Option<(Month, bool)>,
    /// Bulk is let through until this row of its lane is at the parent, and attachments are.
    let_through: Option<(Seq, Instant)>,
}

impl Budgets {
    /// Reads the counts.
    pub fn load(store: &SqliteStore) -> Result<Self, StoreError> {
        let kept = store.setting(TRAFFIC)?;
        Ok(Self {
            // Counts that cannot be read stop nobody from working.
            months: kept.and_then(|kept| serde_json::from_slice(&kept).ok()).unwrap_or_default(),
            counted: BTreeMap::new(),
            unwritten: 0,
            written_at: Instant::now(),
            looked_at: Instant::now(),
            warned: None,
            let_through: None,
        })
    }

    fn used(&self, month: Month) -> u64 {
        self.months.get(&month.to_string()).copied().unwrap_or(0)
    }

    fn add(&mut self, month: Month, bytes: u64) {
        if bytes > 0 {
            let used = self.months.entry(month.to_string()).or_default();
            *used = used.saturating_add(bytes);
            self.unwritten += bytes;
        }
        while self.months.len() > MONTHS {
            self.months.pop_first();
        }
    }

    fn count(&mut self, month: Month, link: LinkId, connection: &Connection) {
        let total = bytes_of(connection);
        let before = self.counted.insert(link, total).unwrap_or(0);
        self.add(month, total.saturating_sub(before));
    }

    fn is_due(&self) -> bool {
        self.unwritten >= WRITE_BYTES || (self.unwritten > 0 && self.written_at.elapsed() >= WRITE_EVERY)
    }

    fn write(&mut self, store: &mut SqliteStore, dir: &Path) -> Result<(), StoreError> {
        self.written_at = Instant::now();
        if self.unwritten == 0 || !has_room(dir) {
            return Ok(());
        }
        self.unwritten = 0;
        store.set_setting(TRAFFIC, &serde_json::to_vec(&self.months).expect("counts are plain data"))
    }

    /// The warning that has to stand now, if it is another than the one that does: none when there is nothing to warn of.
    fn warning(&mut self, budget: &Budget, month: Month) -> Option<Option<String>> {
        let used = self.used(month);
        let percent = budget.used_percent(used).filter(|percent| *percent >= WARN_PERCENT);
        let stands = percent.map(|percent| (month, percent >= 100));
        if std::mem::replace(&mut self.warned, stands) == stands {
            return None;
        }
        Some(stands.zip(budget.monthly_cap_mb).map(|((month, over), cap)| {
            let what = if over {
                format!("the {cap} MB of {month} are used up. Bulk waits until the month is over")
            } else {
                format!("{} of the {cap} MB of {month} are used. When all are, bulk waits until the month is over", used / MB)
            };
            format!(
                "{what}; what is urgent or ordinary goes on. To let bulk go on, raise the cap with `tuyen link set \
                 --monthly-cap`, or let it through once with `tuyen sync now --bulk`"
            )
        }))
    }
}

/// What a connection has carried so far, both ways.
fn bytes_of(connection: &Connection) -> u64 {
    let stats = connection.stats();
    let headers = if connection.remote_address().is_ipv6() { HEADERS.1 } else { HEADERS.0 };
    let packets = stats.udp_tx.datagrams + stats.udp_rx.datagrams;
    stats.udp_tx.bytes + stats.udp_rx.bytes + packets * headers
}

impl Core {
    fn budget_time(&self) -> i64 {
        self.engine.identity().trust().clock().now()
    }

    /// Counts, warns, and lets go or holds up, when it is time to look.
    pub fn mind_budget(&mut self) -> Result<(), StoreError> {
        if self.budgets.looked_at.elapsed() < LOOK_EVERY {
            return Ok(());
        }
        self.keep_to_budget()?;
        if self.budgets.is_due() {
            self.budgets.write(&mut self.store, &self.dir)?;
        }
        Ok(())
    }

    /// Counts, warns, and lets go or holds up.
    pub fn keep_to_budget(&mut self) -> Result<(), StoreError> {
        self.budgets.looked_at = Instant::now();
        let now = self.budget_time();
        let month = self.count_links();
        if let Some(warning) = self.budgets.warning(&self.config.budget, month) {
            self.alerts.end(&About::MonthlyCap);
            if let Some(text) = warning {
                self.alert_about(Some(About::MonthlyCap), "monthly_cap", text);
            }
        }
        let at_parent = self.engine.frontier(Frontier::Hub, Lane::Bulk);
        let is_over = self
            .budgets
            .let_through
            .is_some_and(|(upto, since)| at_parent >= upto && since.elapsed() >= LET_THROUGH);
        // Attachments come last, and somebody may wait for one.
        if is_over && !self.has_fetchers() && self.contents()?.not_at_hub == 0 {
            self.budgets.let_through = None;
        }
        let kbits = self.config.budget.rate_kbits(now);
        self.numbers.pace_up.set(kbits);
        self.numbers.pace_down.set(kbits);
        self.numbers.metered.store(self.config.budget.metered, Ordering::Relaxed);
        self.hurry();
        let (lanes, what) = match self.bulk_waits() {
            Some(_) => (Lanes::ALL.without_bulk(), "bulk waits"),
            None => (Lanes::ALL, "bulk goes on"),
        };
        if lanes != self.engine.lanes_up() {
            tracing::info!("{what}");
            self.engine.handle(Event::Lanes(lanes), &self.store, clock::now())?;
            self.let_out()?;
        }
        Ok(())
    }

    /// Counts what the links to the parent have carried since the last time, in this month.
    fn count_links(&mut self) -> Month {
        let month = self.config.budget.month(self.budget_time());
        for (id, peer) in self.peers.iter().filter(|(_, peer)| peer.direction == Direction::Up) {
            self.budgets.count(month, *id, &peer.connection);
        }
        month
    }

    /// On a metered line a node dials seldom, unless something urgent waits.
    fn hurry(&self) {
        let [last, hub] =
            [Frontier::Last, Frontier::Hub].map(|which| self.engine.frontier(which, Lane::Urgent));
        let waited = self.numbers.urgent_waits.swap(hub < last, Ordering::Relaxed);
        let linked = self.peers.values().any(|peer| peer.direction == Direction::Up);
        if hub < last && !waited && !linked && self.config.budget.metered {
            self.numbers.dial.notify_one();
        }
    }

    fn bulk_waits(&self) -> Option<Wait> {
        if self.budgets.let_through.is_some() || self.engine.is_root() {
            return None;
        }
        let (budget, now) = (&self.config.budget, self.budget_time());
        budget.bulk_waits(now, self.budgets.used(budget.month(now)))
    }

    /// A link to the parent is over: the last of it is counted.
    pub fn count_last(&mut self, link: LinkId, direction: Direction, connection: &Connection) {
        if direction == Direction::Up {
            let month = self.config.budget.month(self.budget_time());
            self.budgets.count(month, link, connection);
            self.budgets.counted.remove(&link);
        }
    }

    /// The daemon stops in order.
    pub fn end_budget(&mut self) -> Result<(), StoreError> {
        self.count_links();
        self.budgets.write(&mut self.store, &self.dir)
    }

    /// Lets bulk through once: what is written so far, and what the parent has.
    pub fn let_bulk_through(&mut self) -> Result<(), StoreError> {
        let upto = self.engine.frontier(Frontier::Last, Lane::Bulk);
        self.budgets.let_through = Some((upto, Instant::now()));
        self.keep_to_budget()
    }

    /// That bulk waits, for people.
    pub fn waiting_bulk(&self) -> Result<Option<Waiting>, StoreError> {
        let Some(Wait { until, why }) = self.bulk_waits() else { return Ok(None) };
        let utc_offset = self.config.budget.utc_offset;
        let (entries, contents) = (self.bulk_not_at_hub()?, self.contents()?);
        let (attachments, attachment_bytes) = (contents.not_at_hub, contents.not_at_hub_bytes);
        Ok(Some(Waiting { entries, attachments, attachment_bytes, until, why, utc_offset }))
    }

    /// What may be used of the line to the parent, and what is; none at the root.
    pub fn line_to_parent(&self) -> Result<Option<Line>, StoreError> {
        let Some(parent) = self.config.place.parent() else { return Ok(None) };
        let (budget, now) = (self.config.budget.clone(), self.budget_time());
        let month = budget.month(now);
        Ok(Some(Line {
            parent,
            rate_kbits: budget.rate_kbits(now),
            month: month.to_string(),
            month_bytes: Some(self.budgets.used(month)),
            bulk: self.waiting_bulk()?,
            budget,
        }))
    }

    /// The same, as an answer.
    pub fn show_line(&self) -> Outcome<Line> {
        self.line_to_parent()?.map_or_else(no_parent, Ok)
    }

    /// Changes what may be used, durably and at once.
    pub fn set_budget(&mut self, change: Change) -> Outcome<Line> {
        if self.engine.is_root() {
            return no_parent();
        }
        let before = self.config.budget.clone();
        change.apply(&mut self.config.budget);
        if let Err(error) = self.config.save(&self.dir) {
            self.config.budget = before;
            return refuse(FailureKind::Failed, error.to_string());
        }
        self.keep_to_budget()?;
        self.show_line()
    }
}

/// Said where there is no line to a parent.
pub const NO_PARENT: &str = "this is the root: it has no parent, and so no line to set anything for. Each hub and clinic sets its own";

fn no_parent<T>() -> Outcome<T> {
    refuse(FailureKind::Usage, NO_PARENT)
}
