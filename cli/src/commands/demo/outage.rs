//! The bad day: while clinics go on writing, a leaf and a hub lose their power in the middle of a transfer.
//! What always holds: a kill counts as "in the middle" only if it is proved that something had arrived and
//! something had not; otherwise more is written and it is tried again, and at last it is told as it was. A
//! writer whose daemon dies writes the same again when it is back, as real software would.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use node::admin::{Failure, FailureKind, Request, Status, Synced};
use serde::Serialize;
use serde_json::Value;
use sync_core::{id::OrgId, identity::Role};

use super::{
    country::{Country, DONG_VAN, HA_GIANG, HOI_AN, QUANG_NAM, Site, failed},
    load::{self, Purpose, Written},
};
use crate::output::Stop;

/// Fewest entries that wait at a leaf when the link comes back.
const BACKLOG_MIN: u64 = 1_500;
/// How often a kill is tried until it comes in the middle; each time with twice as much to transfer.
const ATTEMPTS: u32 = 4;
/// How long a transfer may take to begin, or a daemon to come back.
const BEGIN_WITHIN: Duration = Duration::from_secs(120);
/// Resources that a clinic writes at a time during the transfer.
const FEED_AT_ONCE: usize = 5;
/// Most resources that a clinic writes during the transfer.
const FEED_MAX: usize = 400;
/// How long the parent of a killed leaf may still be busy with what it had received.
const AFTERMATH: Duration = Duration::from_millis(300);

/// How a kill came.
#[derive(Debug, Serialize)]
pub struct Kill {
    /// Who was killed.
    pub org: OrgId,
    /// Its role.
    pub role: Role,
    /// Whose entries were on their way.
    pub home: OrgId,
    /// How many of them had arrived.
    pub arrived: u64,
    /// How many there were.
    pub of: u64,
    /// Whether it is proved that the transfer was under way.
    pub in_the_middle: bool,
}

/// A transfer from a leaf to its hub, one of which is to be killed.
#[derive(Clone, Copy)]
struct Transfer {
    sender: usize,
    receiver: usize,
    victim: usize,
}

/// The transfers: in one the sender is killed, in the other the receiver.
const TRANSFERS: [Transfer; 2] = [
    Transfer { sender: DONG_VAN, receiver: HA_GIANG, victim: DONG_VAN },
    Transfer { sender: HOI_AN, receiver: QUANG_NAM, victim: QUANG_NAM },
];

/// Cuts or mends all links.
pub fn pause(
    country: &mut Country,
    paused: bool,
    at: impl IntoIterator<Item = usize>,
) -> Result<(), Failure> {
    for at in at {
        let request = if paused { Request::SyncPause } else { Request::SyncResume };
        let _: Synced = country.call(at, &request)?;
    }
    Ok(())
}

/// Asks every node to dial its parent at once.
pub fn dial_all(country: &mut Country) -> Result<(), Failure> {
    for at in 1..country.sites.len() {
        let _: Synced = country.call(at, &Request::SyncNow { wait: false, bulk: false })?;
    }
    Ok(())
}

/// Mends the links of the two transfers and kills one side of each in the middle, while the two leaves go on
/// writing. Everybody is back at the end, with all links mended.
pub fn play(
    country: &mut Country,
    seed: u64,
    tell: &dyn Fn(&Kill) -> Result<(), Stop>,
) -> Result<(Vec<Kill>, Written), Stop> {
    let mut written = Written::default();
    let mut backlog = Backlog { seed, made: 0 };
    let mut lacking = [0; TRANSFERS.len()];
    for (transfer, lacking) in TRANSFERS.iter().zip(&mut lacking) {
        *lacking = BACKLOG_MIN.saturating_sub(country.status(transfer.sender)?.not_at_hub.entries);
    }
    written.merge(backlog.begin(country, lacking)?);
    let stop = AtomicBool::new(false);
    let writers = TRANSFERS.map(|Transfer { sender, .. }| {
        let Site { org, dir, .. } = &country.sites[sender];
        let resources = load::more(seed, Purpose::Feed, org).take(FEED_MAX);
        (sender, dir.clone(), resources)
    });
    thread::scope(|scope| {
        let stop = &stop;
        let feeders =
            writers.map(|(at, dir, resources)| scope.spawn(move || feed(&dir, at, resources, stop)));
        let killed = kill_both(country, &mut backlog, &mut written, tell);
        let back = match &killed {
            Ok(_) => pause(country, false, 0..country.sites.len()).and_then(|()| dial_all(country)),
            Err(_) => Ok(()),
        };
        stop.store(true, Ordering::Relaxed);
        for feeder in feeders {
            let fed = feeder.join().unwrap_or_else(|_| Err(failed("a thread that writes records broke off")));
            written.merge(fed?);
        }
        back?;
        killed
    })
    .map(|kills| (kills, written))
}

fn kill_both(
    country: &mut Country,
    backlog: &mut Backlog,
    written: &mut Written,
    tell: &dyn Fn(&Kill) -> Result<(), Stop>,
) -> Result<Vec<Kill>, Stop> {
    let mut kills = Vec::new();
    for transfer in TRANSFERS {
        let kill = interrupt(country, transfer, backlog, written)?;
        tell(&kill)?;
        kills.push(kill);
    }
    for transfer in TRANSFERS {
        country.start(transfer.victim)?;
    }
    Ok(kills)
}

/// Kills the victim in the middle of the transfer, and leaves it dead.
fn interrupt(
    country: &mut Country,
    transfer: Transfer,
    backlog: &mut Backlog,
    written: &mut Written,
) -> Result<Kill, Failure> {
    let Transfer { sender, receiver, victim } = transfer;
    let home = country.sites[sender].org.clone();
    let mut more = BACKLOG_MIN;
    for attempt in 1.. {
        let before = entries_of(&home, &country.status(receiver)?);
        let of = entries_of(&home, &country.status(sender)?);
        pause(country, false, [receiver, sender])?;
        let _: Synced = country.call(sender, &Request::SyncNow { wait: false, bulk: false })?;
        let began = Instant::now();
        let mut arrived = before;
        let goal = before + (of - before).div_ceil(4).max(1);
        while arrived < goal {
            if began.elapsed() > BEGIN_WITHIN {
                let org = &country.sites[receiver].org;
                return Err(failed(format!(
                    "{home} and {org} did not begin to sync within {BEGIN_WITHIN:?}"
                )));
            }
            arrived = entries_of(&home, &country.status(receiver)?);
        }
        let sent = country.status(victim)?.sent_bytes;
        country.kill(victim, sent)?;
        let in_the_middle = if victim == sender {
            thread::sleep(AFTERMATH);
            arrived = entries_of(&home, &country.status(receiver)?);
            arrived < of
        } else {
            country.status(sender)?.not_at_hub.entries > 0
        };
        if in_the_middle || attempt == ATTEMPTS {
            let site = &country.sites[victim];
            return Ok(Kill { org: site.org.clone(), role: site.role, home, arrived, of, in_the_middle });
        }
        country.start(victim)?;
        pause(country, true, [sender])?;
        written.merge(backlog.write(country, sender, more)?);
        more *= 2;
    }
    Err(failed("a loop without an end has ended"))
}

fn entries_of(home: &OrgId, status: &Status) -> u64 {
    status.homes.iter().find(|digest| digest.home == *home).map_or(0, |digest| digest.entries)
}

/// Made-up records that make a transfer long enough to be interrupted.
struct Backlog {
    seed: u64,
    made: usize,
}

impl Backlog {
    fn write(&mut self, country: &Country, leaf: usize, number: u64) -> Result<Written, Failure> {
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        let written = self.write_some(country, leaf, number)?;
        self.made += number;
        Ok(written)
    }

    /// The first records at both senders, at the same time.
    fn begin(&mut self, country: &Country, numbers: [u64; TRANSFERS.len()]) -> Result<Written, Failure> {
        let this = &*self;
        let answers = thread::scope(|scope| {
            let writers = [0, 1].map(|i| {
                let (leaf, number) = (TRANSFERS[i].sender, numbers[i] as usize);
                scope.spawn(move || this.write_some(country, leaf, number))
            });
            writers
                .map(|writer| writer.join().unwrap_or_else(|_| Err(failed("a thread that writes broke off"))))
        });
        let mut written = Written::default();
        for answer in answers {
            written.merge(answer?);
        }
        self.made += BACKLOG_MIN as usize;
        Ok(written)
    }

    fn write_some(&self, country: &Country, leaf: usize, number: usize) -> Result<Written, Failure> {
        let Site { org, dir, .. } = &country.sites[leaf];
        let resources = load::more(self.seed, Purpose::Backlog, org).skip(self.made).take(number);
        load::write_at(dir, leaf, resources.collect())
    }
}

/// Writes a little at a time until it is told to stop. When the daemon is away, it tries the same again.
fn feed(
    dir: &Path,
    leaf: usize,
    resources: impl Iterator<Item = Value>,
    stop: &AtomicBool,
) -> Result<Written, Failure> {
    let mut written = Written::default();
    let mut resources = resources.peekable();
    while !stop.load(Ordering::Relaxed) && resources.peek().is_some() {
        let few: Vec<Value> = resources.by_ref().take(FEED_AT_ONCE).collect();
        let began = Instant::now();
        loop {
            match load::write_at(dir, leaf, few.clone()) {
                Ok(more) => break written.merge(more),
                Err(away) if away.kind == FailureKind::Unreachable && began.elapsed() < BEGIN_WITHIN => {
                    if stop.load(Ordering::Relaxed) {
                        return Ok(written);
                    }
                    thread::sleep(Duration::from_millis(20));
                }
                Err(other) => return Err(other),
            }
        }
    }
    Ok(written)
}
