//! When the country is of one mind: for every home, each node that holds it has the same entries, by digest,
//! and nothing waits to be folded or for entries that have not arrived. What always holds: waiting goes on as
//! long as there is progress, however slow the machine, and ends with names of what is missing when there is
//! none. Not here: how nodes come to agree.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use node::admin::{Failure, Progress, Status};
use sync_core::{id::OrgId, store::HomeDigest};

use super::country::{Country, ROOT};
use crate::output::Meter;

/// How long nothing may change before waiting ends: longer than a daemon takes to give a silent link up, and to
/// dial again after that.
const STALLED_AFTER: Duration = Duration::from_secs(200);
/// How often all nodes are asked.
const POLL: Duration = Duration::from_millis(50);
/// Most disagreements that are told.
const TOLD_MAX: usize = 8;

/// Where the nodes stand.
pub struct Picture {
    /// One for each node, in the order of the tree.
    pub statuses: Vec<Status>,
    /// What keeps the nodes from agreeing; nothing when they agree.
    pub disagreements: Vec<Disagreement>,
}

/// Why one node does not agree.
#[derive(Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// The number of the node.
    pub at: usize,
    /// Why, for people.
    pub why: String,
}

impl Picture {
    /// Asks all nodes.
    pub fn take(country: &mut Country) -> Result<Self, Failure> {
        let statuses = country.statuses()?;
        let holders = |home: &OrgId| country.number(home).map(|at| country.holders(at));
        let disagreements = disagreements(&statuses, holders);
        Ok(Self { statuses, disagreements })
    }

    /// Whether all nodes agree.
    pub fn converged(&self) -> bool {
        self.disagreements.is_empty()
    }

    /// What keeps the nodes from agreeing, in one line.
    pub fn why_not(&self) -> String {
        let told = self.disagreements.iter().take(TOLD_MAX);
        let told: Vec<String> =
            told.map(|one| format!("{}: {}", self.statuses[one.at].org, one.why)).collect();
        told.join("; ")
    }

    /// Whatever changes as long as there is progress.
    fn progress(&self) -> Vec<[u64; 4]> {
        let of =
            |status: &Status| [status.entries, status.unfolded, status.waiting, status.not_at_root.entries];
        self.statuses.iter().map(of).collect()
    }
}

/// What keeps the nodes from agreeing; `holders` says which nodes hold a home.
fn disagreements(statuses: &[Status], holders: impl Fn(&OrgId) -> Option<Vec<usize>>) -> Vec<Disagreement> {
    let mut found = Vec::new();
    let mut add = |at, why: String| found.push(Disagreement { at, why });
    // Only digests of entries count: a home without any is the same as no home.
    let held = |status: &Status| -> BTreeMap<OrgId, HomeDigest> {
        let homes = status.homes.iter().filter(|home| home.entries > 0);
        homes.map(|home| (home.home.clone(), home.clone())).collect()
    };
    let held: Vec<_> = statuses.iter().map(held).collect();
    let mut homes: Vec<&OrgId> = held.iter().flat_map(BTreeMap::keys).collect();
    homes.sort();
    homes.dedup();
    for home in homes {
        let Some(places) = holders(home) else {
            add(ROOT, format!("it holds entries of {home}, which is no node of this country"));
            continue;
        };
        let reference = held[ROOT].get(home);
        for (at, held) in held.iter().enumerate() {
            match (held.get(home), places.contains(&at)) {
                (Some(_), false) => add(at, format!("it holds entries of {home}, and must not")),
                (own, true) if own != reference => {
                    let number = |digest: Option<&HomeDigest>| digest.map_or(0, |digest| digest.entries);
                    let (own, root) = (number(own), number(reference));
                    add(at, format!("{own} entries of {home}, where the centre has {root}"));
                }
                _ => {}
            }
        }
    }
    for (at, status) in statuses.iter().enumerate() {
        for (number, what) in [
            (status.unfolded, "not yet folded"),
            (status.waiting, "waiting for others"),
            (status.unreadable, "unreadable"),
        ] {
            if number > 0 {
                add(at, format!("{number} entries {what}"));
            }
        }
    }
    found
}

/// Waits until all nodes agree, or nothing has changed for long.
pub fn wait(country: &mut Country) -> Result<Picture, Failure> {
    let mut meter = Meter::new();
    let mut last = Vec::new();
    let mut changed = Instant::now();
    loop {
        let picture = Picture::take(country)?;
        let progress = picture.progress();
        if progress != last {
            (last, changed) = (progress, Instant::now());
        }
        if picture.converged() || changed.elapsed() > STALLED_AFTER {
            return Ok(picture);
        }
        let done = picture.statuses[ROOT].entries;
        meter.show(&Progress { what: "entries at the centre".into(), done, total: None });
        thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use node::admin::Unsafe;
    use sync_core::{id::NodeId, identity::Role};

    use super::*;

    fn status(org: &str, homes: &[(&str, u64, &str)]) -> Status {
        let home = |(home, entries, sum): &(&str, u64, &str)| HomeDigest {
            home: OrgId::new(home).unwrap(),
            entries: *entries,
            sum: (*sum).to_owned(),
        };
        Status {
            node: NodeId([0; 16]),
            org: OrgId::new(org).unwrap(),
            place: org.parse().unwrap(),
            role: Role::Root,
            software: String::new(),
            listen: None,
            parent: None,
            records: 0,
            deleted: 0,
            entries: 0,
            conflicts: 0,
            waiting: 0,
            unreadable: 0,
            secret: 0,
            damaged: 0,
            unsound: false,
            profiles: Vec::new(),
            policies: Vec::new(),
            unfolded: 0,
            digest: String::new(),
            homes: homes.iter().map(home).collect(),
            not_at_hub: Unsafe::default(),
            not_at_root: Unsafe::default(),
            in_doubt: false,
            attachments: Default::default(),
            line: None,
            leaving: None,
            ended: 0,
            paused: false,
            up: None,
            down: Vec::new(),
            sent_bytes: 0,
            received_bytes: 0,
            alerts: Vec::new(),
            last_backup: None,
        }
    }

    fn whys(statuses: &[Status]) -> Vec<(usize, String)> {
        // Node 0 is the root, 1 its hub, 2 the hub's leaf; node 3 is another leaf.
        let holders = |home: &OrgId| match home.as_str() {
            "root" => Some(vec![0]),
            "hub" => Some(vec![1, 0]),
            "leaf" => Some(vec![2, 1, 0]),
            "other" => Some(vec![3, 1, 0]),
            _ => None,
        };
        disagreements(statuses, holders).into_iter().map(|one| (one.at, one.why)).collect()
    }

    #[test]
    fn equal_digests_agree() {
        let leaf = ("leaf", 3, "aa");
        let all = [
            status("root", &[leaf, ("hub", 1, "bb"), ("other", 0, "")]),
            status("hub", &[("hub", 1, "bb"), leaf]),
            status("leaf", &[leaf]),
            status("other", &[]),
        ];
        assert!(whys(&all).is_empty());
    }

    #[test]
    fn whoever_lacks_or_has_too_much_is_named() {
        let leaf = ("leaf", 3, "aa");
        let mut all = [
            status("root", &[leaf, ("stranger", 1, "cc")]),
            status("hub", &[("leaf", 3, "ab")]),
            status("leaf", &[]),
            status("other", &[leaf]),
        ];
        all[2].unfolded = 2;
        let expected = [
            (1, "3 entries of leaf, where the centre has 3".to_owned()),
            (2, "0 entries of leaf, where the centre has 3".to_owned()),
            (3, "it holds entries of leaf, and must not".to_owned()),
            (0, "it holds entries of stranger, which is no node of this country".to_owned()),
            (2, "2 entries not yet folded".to_owned()),
        ];
        assert_eq!(whys(&all), expected);
    }
}
