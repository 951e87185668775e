//! What somebody should know, as `tuyen status` tells it.
//!
//! What always holds: what is said again stands once, in front, so that a neighbour that comes again and again hides no other
//! alert; an alert goes by itself only when what it is about is mended, or when too many have come since. They are in memory.
//! Not here: what is told, and when it is mended.

use std::collections::VecDeque;

use sync_core::{
    id::{OrgPath, RecordId},
    scope::grant::Grant,
};

use crate::admin::AlertLine;

/// Alerts kept.
const ALERTS_MAX: usize = 50;

/// What an alert is about that goes when it is mended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum About {
    /// The parent, or whoever answered in its place, and this node have refused one another. It goes when the parent lets this
    /// node in.
    Parent,
    /// A child and this node have refused one another. It goes when that comes back with what is good.
    Child(OrgPath),
    /// This node was not renewed. It goes when it is.
    Renewal,
    /// What is used of the month's amount. It goes with the month, or when the cap is raised.
    MonthlyCap,
    /// This node stands elsewhere. It goes when another order gives it another place.
    Moved,
    /// A record was made at two places. It goes when the record is forgotten here.
    TwoHomes(RecordId),
    /// This organization is closed. What is told of it later replaces it.
    Closed,
    /// What was opened after a look-up in an emergency. It goes when that has ended, by somebody's word or by time.
    Emergency(Grant),
}

/// The alerts, newest first.
#[derive(Default)]
pub(super) struct Alerts(VecDeque<(Option<About>, AlertLine)>);

impl Alerts {
    /// Adds one. Whether it says something new.
    pub fn add(&mut self, about: Option<About>, line: AlertLine) -> bool {
        let is_it = |one: &AlertLine| one.code == line.code && one.text == line.text;
        let known = self.0.iter().position(|(_, one)| is_it(one));
        let known = known.and_then(|known| self.0.remove(known));
        self.0.push_front((about, line));
        self.0.truncate(ALERTS_MAX);
        known.is_none()
    }

    /// This is mended.
    pub fn end(&mut self, mended: &About) {
        self.0.retain(|(about, _)| about.as_ref() != Some(mended));
    }

    /// It is this time now: what ends by time may have ended.
    pub fn pass(&mut self, now: i64) {
        self.0.retain(|(about, _)| !matches!(about, Some(About::Emergency(grant)) if grant.until <= now));
    }

    /// All, newest first.
    pub fn lines(&self) -> impl Iterator<Item = &AlertLine> {
        self.0.iter().map(|(_, line)| line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(at: i64, text: &str) -> AlertLine {
        AlertLine { at, code: "refused".to_owned(), text: text.to_owned() }
    }

    fn texts(alerts: &Alerts) -> Vec<&str> {
        alerts.lines().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn what_is_mended_goes_and_nothing_else() {
        let mut alerts = Alerts::default();
        let child = |name: &str| About::Child(name.parse().unwrap());
        for (about, text) in [
            (None, "a stranger refused this node"),
            (Some(child("tw/a")), "a refused this node"),
            (Some(child("tw/b")), "refused tw/b: "),
            (Some(About::Parent), "tw refused this node"),
        ] {
            assert!(alerts.add(about, line(0, text)));
        }
        alerts.end(&About::Renewal);
        alerts.end(&About::Parent);
        alerts.end(&child("tw/b"));
        assert_eq!(texts(&alerts), ["a refused this node", "a stranger refused this node"]);
    }

    #[test]
    fn what_ends_by_time_goes_when_it_has() {
        let mut alerts = Alerts::default();
        let of_an_hour = |until| {
            let to = sync_core::id::OrgId::new("quan-ba").unwrap();
            Some(About::Emergency(Grant { id: sync_core::scope::grant::GrantId([1; 16]), to, until }))
        };
        alerts.add(of_an_hour(1), line(0, "the first"));
        alerts.add(of_an_hour(2), line(0, "the second"));
        alerts.add(None, line(0, "another"));
        alerts.pass(1);
        assert_eq!(texts(&alerts), ["another", "the second"]);
    }

    #[test]
    fn what_is_said_again_stands_once_in_front() {
        let mut alerts = Alerts::default();
        assert!(alerts.add(None, line(1, "x")) && alerts.add(None, line(2, "y")));
        assert!(!alerts.add(None, line(3, "x")));
        assert_eq!((texts(&alerts), alerts.lines().next().unwrap().at), (vec!["x", "y"], 3));
        for n in 0..ALERTS_MAX {
            alerts.add(None, line(4, &n.to_string()));
        }
        assert_eq!(texts(&alerts).len(), ALERTS_MAX);
    }
}
