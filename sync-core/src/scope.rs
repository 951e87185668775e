//! Scope: who may hold what. The one place that decides it.
//!
//! A record's home is the organization to whose compartment it belonged when it was created ([`compartment`]), or the one
//! whose node created it; a record that was created independently at two places has two homes. Everything flows up to the
//! root. Down a link flow the records that have a home in the child's subtree, and those that an organization above the
//! child, or the child itself, issues to everybody below ([`crate::id::RecordId::issuer`]). What is issued is signed by who
//! wrote it, and so may come from anybody; of the rest a child may send only entries of records that have a home in its
//! subtree, or have had before an order, there or below one that has come there since ([`Places::has_come_through`]); and
//! only such as their author may write: the entry names a home at the author's place or below it. The
//! author itself may stand elsewhere, because a child also gives back what its restored parent has lost. A parent is
//! trusted with both.
//!
//! What a node writes of a secret record leaves it only where both ends allow its degree ([`Profiles`]); nothing is allowed
//! unless somebody has decided so. The degree is the record's, at the node that writes: whatever of it has not left when
//! somebody marks it is as secret, and so it is wherever it comes to after the mark; what has left before goes its way.

pub mod compartment;
mod compartment_table;
pub mod grant;
pub mod label;
mod places;
mod profile;

pub use self::{
    places::{OrderError, Places},
    profile::{Profiles, Way},
};

use crate::{
    feed::Lineage,
    id::{OrgPath, Secrecy},
    identity::{NodeInfo, Refusal, Role},
    session::Direction,
    store::{Head, Offered},
};

/// Whether a neighbour stands where a neighbour has to: a child directly below this node's own place, the parent directly
/// above it, and no leaf. A genuine certificate of another place is refused.
pub fn check_neighbour(own: &OrgPath, peer: &NodeInfo, direction: Direction) -> Result<(), Refusal> {
    let (child, parent) = match direction {
        Direction::Down => (&peer.place, own),
        Direction::Up => (own, &peer.place),
    };
    let may_be_above = direction == Direction::Down || peer.role != Role::Leaf;
    if may_be_above && child.parent().as_ref() == Some(parent) {
        return Ok(());
    }
    Err(Refusal::OutsideSubtree { place: child.to_string(), issuer: parent.to_string() })
}

/// The neighbour that a row might be sent to.
pub enum Neighbour<'a> {
    /// The parent.
    Up,
    /// A child, by its place.
    Down(&'a OrgPath),
}

/// Whether a row of the feed is to be sent to a neighbour with this lineage.
///
/// A row that came from the neighbour is not offered back, unless the neighbour no longer remembers having sent
/// it. A row that only offers an older entry to a new home is never sent up: the parent has had it already. One that offers it
/// to the parent is sent there alone, although it came from there; and what a child has had to forget is offered to it like news.
/// What a grant has opened and opens no longer is offered to nobody but its homes; that it has ended is, also to who is closed by now.
/// Nothing goes that is more
/// secret than what is `allowed`.
pub fn wants(
    neighbour: &Neighbour<'_>,
    head: &Head,
    lineage: &Lineage,
    places: &Places,
    allowed: Secrecy,
) -> bool {
    let is_echo = head.src.is_some_and(|src| lineage.covers(src));
    head.secrecy <= allowed
        && match (neighbour, &head.offered_to) {
            (Neighbour::Up, Some(Offered::Parent)) => true,
            (Neighbour::Up, None) => !is_echo,
            (Neighbour::Down(child), Some(Offered::Home(home))) => {
                let may_hold = head.homes.contains(home) || head.opened.contains(home);
                let has_forgotten = || head.homes.iter().any(|home| places.has_left(home, child.org()));
                may_hold && places.reach(home, head.issued, child) && (!is_echo || has_forgotten())
            }
            (Neighbour::Down(child), Some(Offered::Former(org))) => {
                !is_echo && places.holders(org).any(|place| place.is_within(child))
            }
            (Neighbour::Down(child), None) => {
                let reaches = |home| places.reach(home, head.issued, child);
                !is_echo && head.homes.iter().chain(&head.opened).any(reaches)
            }
            (Neighbour::Up, Some(Offered::Home(_) | Offered::Former(_)))
            | (Neighbour::Down(_), Some(Offered::Parent)) => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        feed::Position,
        id::{Incarnation, NodeId, OrgId},
    };

    #[test]
    fn a_neighbour_stands_one_step_above_or_below() {
        use Direction::{Down, Up};
        for (own, peer, role, direction, may) in [
            ("tw/hg", "tw", Role::Root, Up, true),
            ("tw/hg", "tw/hg/dv", Role::Leaf, Down, true),
            ("tw/hg", "tw/hg/h2", Role::Hub, Down, true),
            ("tw/hg/dv", "tw/hg", Role::Hub, Up, true),
            // A leaf's certificate at the place of a hub.
            ("tw/hg/dv", "tw/hg", Role::Leaf, Up, false),
            ("tw/hg/dv", "tw", Role::Root, Up, false),
            ("tw", "tw/hg/dv", Role::Leaf, Down, false),
            ("tw/hg", "tw/qn/ta", Role::Leaf, Down, false),
            ("tw/hg", "tw/qn", Role::Hub, Up, false),
            ("tw/hg", "tw/hg", Role::Hub, Down, false),
            ("tw/hg", "tw/hg", Role::Hub, Up, false),
            ("tw/hg", "tw", Role::Root, Down, false),
            ("tw/hg", "tw/hg/dv", Role::Leaf, Up, false),
        ] {
            let peer = NodeInfo { node: NodeId([1; 16]), place: peer.parse().unwrap(), role };
            let checked = check_neighbour(&own.parse().unwrap(), &peer, direction);
            assert_eq!(checked.is_ok(), may, "{own} {direction:?} {peer:?}");
        }
    }

    #[test]
    fn rows_go_up_and_to_their_homes_and_never_back() {
        let mut places = Places::default();
        let (hg, dv): (OrgPath, OrgPath) = ("tw/hg".parse().unwrap(), "tw/hg/dv".parse().unwrap());
        let qn: OrgPath = "tw/qn".parse().unwrap();
        for place in [&hg, &dv, &qn] {
            assert!(places.learn(place));
        }
        assert!(!places.learn(&"tw/qn/dv".parse().unwrap()), "one name, one place");
        let src = Position { segment: Incarnation([1; 16]), pos: 5 };
        let homes = vec![dv.org().clone()];
        let mut head = Head {
            seq: 1,
            src: None,
            homes,
            opened: Vec::new(),
            offered_to: None,
            issued: false,
            secrecy: Secrecy::None,
        };
        let up = Neighbour::Up;
        let none = Lineage::default();
        assert!(wants(&up, &head, &none, &places, Secrecy::None));
        assert!(wants(&Neighbour::Down(&hg), &head, &none, &places, Secrecy::None));
        assert!(!wants(&Neighbour::Down(&qn), &head, &none, &places, Secrecy::None));
        head.src = Some(src);
        let mut sender = Lineage::default();
        sender.extend(src);
        assert!(!wants(&Neighbour::Down(&dv), &head, &sender, &places, Secrecy::None), "no echo");
        assert!(
            wants(&Neighbour::Down(&dv), &head, &none, &places, Secrecy::None),
            "a restored sender gets it back"
        );
        head.offered_to = Some(Offered::Home(qn.org().clone()));
        assert!(
            !wants(&Neighbour::Down(&qn), &head, &none, &places, Secrecy::None),
            "it is not theirs, or no longer"
        );
        head.opened = vec![qn.org().clone()];
        assert!(!wants(&up, &head, &none, &places, Secrecy::None));
        assert!(wants(&Neighbour::Down(&qn), &head, &none, &places, Secrecy::None));
        assert!(!wants(&Neighbour::Down(&dv), &head, &none, &places, Secrecy::None));
        // A row of its own goes where the record is open as well; the end of a grant to whose it was, and not up.
        head.offered_to = None;
        for child in [&hg, &dv, &qn] {
            assert!(wants(&Neighbour::Down(child), &head, &none, &places, Secrecy::None), "{child}");
        }
        head.offered_to = Some(Offered::Former(qn.org().clone()));
        head.opened.clear();
        for (neighbour, wanted) in
            [(Neighbour::Down(&qn), true), (Neighbour::Down(&hg), false), (Neighbour::Up, false)]
        {
            assert_eq!(wants(&neighbour, &head, &none, &places, Secrecy::None), wanted);
        }
    }

    #[test]
    fn what_is_issued_goes_down_to_everybody() {
        let [tw, hg, dv, qn] = ["tw", "tw/hg", "tw/hg/dv", "tw/qn"].map(|p| p.parse::<OrgPath>().unwrap());
        let mut places = Places::default();
        [&tw, &hg, &dv, &qn].into_iter().for_each(|place| assert!(places.learn(place)));
        let none = Lineage::default();
        let head = |by: &OrgPath| {
            let homes = vec![by.org().clone()];
            Head {
                seq: 1,
                src: None,
                homes,
                opened: Vec::new(),
                offered_to: None,
                issued: true,
                secrecy: Secrecy::None,
            }
        };
        for (issuer, neighbour, wanted) in [
            (&hg, Neighbour::Down(&dv), true),
            (&tw, Neighbour::Down(&dv), true),
            (&tw, Neighbour::Down(&qn), true),
            (&dv, Neighbour::Down(&dv), true),
            (&qn, Neighbour::Down(&dv), false),
            (&hg, Neighbour::Up, true),
        ] {
            assert_eq!(wants(&neighbour, &head(issuer), &none, &places, Secrecy::None), wanted, "{issuer}");
            for secrecy in Secrecy::ALL {
                for allowed in Secrecy::ALL {
                    let sent = wants(&neighbour, &Head { secrecy, ..head(issuer) }, &none, &places, allowed);
                    assert_eq!(
                        sent,
                        wanted && secrecy <= allowed,
                        "{secrecy:?} where {allowed:?} is allowed"
                    );
                }
            }
        }
        let unheard = Head { homes: vec![OrgId::new("xx").unwrap()], ..head(&tw) };
        assert!(!wants(&Neighbour::Down(&dv), &unheard, &none, &places, Secrecy::None));
    }
}
