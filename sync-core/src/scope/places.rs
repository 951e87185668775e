//! Where organizations stand: by the certificates of their nodes, followed through the orders that have rearranged the tree.
//!
//! An order that moves an organization moves everything below it, by rewriting the front of its path, whether a
//! certificate names the old place or the new one. What always holds: nodes that know the same orders and the same
//! certificates agree, in whatever order they have heard of them. Two roots that do not know of each other may give orders
//! that contradict: a move of what is gone by then, or to where nobody stands by then, does nothing. What stood somewhere once is remembered, because
//! entries from then are still on their way: see [`Places::has_stood_within`].

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    id::{OrgId, OrgPath},
    order::{Order, Step},
};

/// Where every organization that this node has heard of stands in the tree.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// As the first certificate that was seen of each says.
    enrolled: BTreeMap<OrgId, OrgPath>,
    /// By their numbers, and by their bytes where a root that was put back has used a number twice.
    orders: Vec<Order>,
    /// Their moves that have an effect, one after another.
    moves: Vec<Move>,
    /// Those that have none, because of others: whom they move, and where to.
    void: Vec<(OrgId, OrgPath)>,
    stands: BTreeMap<OrgId, OrgPath>,
    /// To whom what belonged to those that are closed belongs.
    heirs: BTreeMap<OrgId, OrgId>,
}

/// A move that has an effect.
#[derive(Debug, Clone)]
struct Move {
    /// How many orders come before its own.
    before: usize,
    from: OrgPath,
    to: OrgPath,
    address: String,
}

/// Why an order cannot be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// Nobody has announced the organization.
    #[error("{0} is not known here: check the name, and that its node has synced at least once")]
    Unknown(OrgId),
    /// It stands elsewhere.
    #[error("{org} stands at {stands}, not at {named}: look where it stands now and try again")]
    Elsewhere {
        /// The organization.
        org: OrgId,
        /// Where it stands.
        stands: OrgPath,
        /// Where the order says that it stands.
        named: OrgPath,
    },
    /// The root.
    #[error("{0} is the root of the tree, which can neither be moved nor closed")]
    Root(OrgId),
    /// Below itself.
    #[error("{org} cannot be moved below itself, to {to}")]
    BelowItself {
        /// The organization.
        org: OrgId,
        /// The place.
        to: OrgPath,
    },
    /// Closed before.
    #[error("{0} is closed")]
    Closed(OrgId),
    /// Others stand below one that is to be closed.
    #[error("{org} cannot be closed while {below} stands below it: move that first, or in the same order")]
    NotEmpty {
        /// The organization.
        org: OrgId,
        /// One that stands below it.
        below: OrgId,
    },
}

impl Places {
    /// Learns where an organization stands by a certificate. False when it is known to stand somewhere else: two
    /// organizations must not share one name.
    pub fn learn(&mut self, place: &OrgPath) -> bool {
        let now = self.now(place);
        self.enrolled.entry(place.org().clone()).or_insert_with(|| place.clone());
        *self.stands.entry(place.org().clone()).or_insert_with(|| now.clone()) == now
    }

    /// Whether learning this place would contradict what is known.
    pub fn clashes(&self, place: &OrgPath) -> Option<&OrgPath> {
        let now = self.now(place);
        self.stands.get(place.org()).filter(|known| **known != now)
    }

    /// Takes in an order. Whether it was news.
    pub fn follow(&mut self, order: &Order) -> bool {
        let name = |order: &Order| (order.number, order.encode());
        let Err(at) = self.orders.binary_search_by_key(&name(order), name) else { return false };
        self.orders.insert(at, order.clone());
        (self.moves, self.void) = effective(&self.orders);
        self.stands = self.enrolled.iter().map(|(org, place)| (org.clone(), self.now(place))).collect();
        let closed = self.orders.iter().flat_map(|order| &order.steps).filter_map(|step| match step {
            Step::Close { org, .. } => Some(org),
            Step::Move { .. } => None,
        });
        self.heirs = closed.map(|org| (org.clone(), self.heir(org, self.orders.len()).clone())).collect();
        true
    }

    /// Where a place of a certificate is now.
    pub fn now(&self, place: &OrgPath) -> OrgPath {
        self.moves(0).fold(place.clone(), |place, (from, to)| place.moved(from, to).unwrap_or(place))
    }

    /// Whether whoever stands at the one place of a certificate stands above the other, or is the same: as the certificates
    /// say, or by now.
    pub fn covers(&self, above: &OrgPath, place: &OrgPath) -> bool {
        place.is_within(above) || self.now(place).is_within(&self.now(above))
    }

    /// Whether any order moves a place of a certificate, if only there and back.
    pub fn moves_place(&self, place: &OrgPath) -> bool {
        self.moves(0).any(|(from, _)| place.is_within(from))
    }

    /// Whether any order has moved somebody to this place, or to one above it.
    pub fn was_moved_to(&self, place: &OrgPath) -> bool {
        self.moves.iter().any(|step| place.is_within(&step.to))
    }

    /// Where the node of an organization stands, also of one that is closed; none when nobody has announced it.
    pub fn stands(&self, org: &OrgId) -> Option<&OrgPath> {
        self.stands.get(org)
    }

    /// Where what belongs to the organization stands: its own place, or that of its successor. None when nobody has
    /// announced it.
    pub fn of(&self, org: &OrgId) -> Option<&OrgPath> {
        self.stands.get(self.heirs.get(org).unwrap_or(org))
    }

    /// Where those stand who hold what is open to an organization: its own node, also when it is closed, and its successor's.
    pub fn holders<'a>(&'a self, to: &'a OrgId) -> impl Iterator<Item = &'a OrgPath> {
        let heir = self.heirs.get(to).and_then(|heir| self.stands(heir));
        self.stands(to).into_iter().chain(heir)
    }

    /// Of whom nobody has announced where it stands, so that it is not known where what belongs to `home` stands: the
    /// organization itself, or its successor.
    pub fn unknown_of<'a>(&'a self, home: &'a OrgId) -> Option<&'a OrgId> {
        [home, self.heirs.get(home).unwrap_or(home)].into_iter().find(|org| self.stands(org).is_none())
    }

    /// Every organization that this node has heard of, with where what belongs to it stands.
    pub fn all(&self) -> impl Iterator<Item = (&OrgId, &OrgPath)> {
        self.stands.keys().filter_map(|org| Some((org, self.of(org)?)))
    }

    /// The orders, one after another.
    pub fn orders(&self) -> &[Order] {
        &self.orders
    }

    /// To whom what belonged to an organization belongs, when it is closed.
    pub fn successor(&self, org: &OrgId) -> Option<&OrgId> {
        self.heirs.get(org)
    }

    /// Whether what belonged to one that is closed belongs to this organization.
    pub fn succeeds(&self, org: &OrgId) -> bool {
        self.heirs.values().any(|heir| heir == org)
    }

    /// Whether an order has ever moved this organization, by itself or with what is above it.
    pub fn has_moved(&self, org: &OrgId) -> bool {
        let now = self.stands(org).cloned();
        (0..self.orders.len()).any(|known| self.stood(org, known) != now)
    }

    /// Whether a record with this home is for a child at this place: the home stands there or below it, or issues the record
    /// and stands there or above. Whoever succeeds an issuer issues for itself; what one that is closed has issued goes to its
    /// own place still, and so to those on the way there.
    pub fn reach(&self, home: &OrgId, issued: bool, child: &OrgPath) -> bool {
        self.is_within(home, child)
            || (issued
                && self.stands(home).is_some_and(|place| child.is_within(place) || place.is_within(child)))
    }

    /// Whether what belongs to the organization stands at `subtree` or below it. An organization that nobody has announced
    /// stands nowhere.
    pub fn is_within(&self, org: &OrgId, subtree: &OrgPath) -> bool {
        self.of(org).is_some_and(|place| place.is_within(subtree))
    }

    /// Whether what belongs to `home` stands at `org` or below it, or has before some order: then `org` may have written
    /// for it, and may still have to pass on what it has from then.
    pub fn has_stood_within(&self, home: &OrgId, org: &OrgId) -> bool {
        if self.stands(org).is_some_and(|subtree| self.is_within(home, subtree)) {
            return true;
        }
        // Whoever had not heard of the others followed one that has no effect.
        let contains = |path: &OrgPath, org: &OrgId| (0..path.depth()).any(|at| path.org_at(at) == Some(org));
        let is_below = |moved: &OrgId| self.of(home).is_some_and(|place| contains(place, moved));
        if self.void.iter().any(|(moved, to)| contains(to, org) && is_below(moved)) {
            return true;
        }
        (0..self.orders.len()).any(|known| {
            let home = self.stood(self.heir(home, known), known);
            home.zip(self.stood(org, known)).is_some_and(|(home, subtree)| home.is_within(&subtree))
        })
    }

    /// Whether entries of `home` may still be on their way up through `org`: what belongs to `home` has stood at `org` or below
    /// it, or below another that has stood there since, and has brought what it had from then.
    pub fn has_come_through(&self, home: &OrgId, org: &OrgId) -> bool {
        if self.has_stood_within(home, org) {
            return true;
        }
        let mut through: BTreeSet<OrgId> = BTreeSet::from([home.clone()]);
        for known in 0..=self.orders.len() {
            let mut places: Vec<_> = through.iter().filter_map(|org| self.stood(org, known)).collect();
            places.extend(self.stood(self.heir(home, known), known));
            through.extend(
                places.iter().flat_map(|place| (0..place.depth()).filter_map(|at| place.org_at(at).cloned())),
            );
        }
        through.contains(org)
    }

    /// Whether what belongs to `home` has stood at `org` or below it, and after a later order did not: then `org` has forgotten
    /// it, or will, also if it is there again.
    pub fn has_left(&self, home: &OrgId, org: &OrgId) -> bool {
        self.left_by(home, org).is_some()
    }

    /// The number of the last order by which what belongs to `home` has left `org` and all below it.
    pub fn left_by(&self, home: &OrgId, org: &OrgId) -> Option<u64> {
        let is_within = |known| {
            let places = self.stood(self.heir(home, known), known).zip(self.stood(org, known));
            places.is_some_and(|(home, subtree)| home.is_within(&subtree))
        };
        let mut orders = (0..self.orders.len()).rev();
        orders.find(|before| is_within(*before) && !is_within(before + 1)).map(|at| self.orders[at].number)
    }

    /// Below which of the organizations directly below `org` what belongs to `home` has stood, after the orders up to this
    /// number.
    pub fn branch(&self, org: &OrgId, home: &OrgId, number: u64) -> Option<OrgId> {
        let known = self.orders.partition_point(|order| order.number <= number);
        let (own, home) = (self.stood(org, known)?, self.stood(self.heir(home, known), known)?);
        home.is_within(&own).then(|| home.org_at(own.depth()).cloned()).flatten()
    }

    /// Whether an organization stands elsewhere than after the orders up to this number.
    pub fn has_moved_since(&self, org: &OrgId, number: u64) -> bool {
        let known = self.orders.partition_point(|order| order.number <= number);
        self.stood(org, known).as_ref() != self.stands(org)
    }

    /// Whether `org` stood at an issuer's own place or below it, after the orders up to this number: what that issues was for
    /// it, and for all below it.
    pub fn stood_below(&self, org: &OrgId, issuer: &OrgId, number: u64) -> bool {
        let known = self.orders.partition_point(|order| order.number <= number);
        let places = self.stood(org, known).zip(self.stood(issuer, known));
        places.is_some_and(|(place, issuer)| place.is_within(&issuer))
    }

    /// The organizations that are open directly below this one.
    pub fn below<'a>(&'a self, org: &'a OrgId) -> impl Iterator<Item = &'a OrgId> {
        let place = self.stands(org);
        let is_below = move |at: &OrgPath| place.is_some() && at.parent().as_ref() == place;
        let below = self.stands.iter().filter(move |(_, at)| is_below(at)).map(|(below, _)| below);
        below.filter(|below| self.successor(below).is_none())
    }

    /// Where the parent of an organization listens, by the last order that moved this very organization; none when none
    /// did, or it does not say.
    pub fn address_above(&self, org: &OrgId) -> Option<&str> {
        let last = self.moves.iter().rfind(|step| step.to.org() == org);
        last.map(|step| step.address.as_str()).filter(|address| !address.is_empty())
    }

    /// Where everything would stand after these steps; why they cannot follow on the orders that are known.
    pub fn check(&self, steps: &[Step]) -> Result<Self, OrderError> {
        let mut after = self.clone();
        let number = self.orders.last().map_or(0, |order| order.number) + 1;
        for (nth, step) in steps.iter().enumerate() {
            after.check_step(step)?;
            let (signer, signature) = (crate::id::NodeId([0; 16]), Vec::new());
            let number = number + nth as u64;
            after.follow(&Order {
                number,
                at: 0,
                steps: vec![step.clone()],
                signer,
                signature,
                chain: Vec::new(),
            });
        }
        for step in steps {
            if let Step::Close { org, .. } = step
                && let Some(below) = after.open_below(org)
            {
                return Err(OrderError::NotEmpty { org: org.clone(), below: below.clone() });
            }
        }
        Ok(after)
    }

    fn check_step(&self, step: &Step) -> Result<(), OrderError> {
        let open = |org: &OrgId| match self.stands(org) {
            None => Err(OrderError::Unknown(org.clone())),
            Some(_) if self.successor(org).is_some() => Err(OrderError::Closed(org.clone())),
            Some(place) => Ok(place.clone()),
        };
        match step {
            Step::Move { from, to, .. } => {
                let (org, stands) = (from.org(), open(from.org())?);
                let (Some(_), Some(above)) = (stands.parent(), to.parent()) else {
                    return Err(OrderError::Root(org.clone()));
                };
                for (named, stands) in [(from, &stands), (&above, &open(above.org())?)] {
                    if named != stands {
                        let (org, stands, named) = (named.org().clone(), stands.clone(), named.clone());
                        return Err(OrderError::Elsewhere { org, stands, named });
                    }
                }
                if above.is_within(from) || to.org() != org {
                    return Err(OrderError::BelowItself { org: org.clone(), to: to.clone() });
                }
            }
            Step::Close { org, successor } => {
                if open(org)?.parent().is_none() {
                    return Err(OrderError::Root(org.clone()));
                }
                open(successor)?;
                if org == successor {
                    return Err(OrderError::Closed(successor.clone()));
                }
            }
        }
        Ok(())
    }

    fn open_below(&self, org: &OrgId) -> Option<&OrgId> {
        let place = self.stands(org)?;
        let below = self.stands.iter().filter(|(other, at)| *other != org && at.is_within(place));
        below.map(|(other, _)| other).find(|other| self.successor(other).is_none())
    }

    fn moves(&self, known: usize) -> impl DoubleEndedIterator<Item = (&OrgPath, &OrgPath)> {
        let first = self.moves.partition_point(|step| step.before < known);
        self.moves[first..].iter().map(|step| (&step.from, &step.to))
    }

    /// Where an organization's node stood after so many orders.
    fn stood(&self, org: &OrgId, known: usize) -> Option<OrgPath> {
        let stands = self.stands(org)?.clone();
        Some(self.moves(known).rev().fold(stands, |place, (from, to)| place.moved(to, from).unwrap_or(place)))
    }

    /// To whom what belonged to an organization belonged after so many orders.
    fn heir<'a>(&'a self, org: &'a OrgId, known: usize) -> &'a OrgId {
        let closes =
            self.orders[..known].iter().flat_map(|order| &order.steps).filter_map(|step| match step {
                Step::Close { org, successor } => Some((org, successor)),
                Step::Move { .. } => None,
            });
        // One after another: whoever is closed later hands on what it was handed.
        closes.fold(org, |heir, (closed, successor)| if heir == closed { successor } else { heir })
    }
}

/// The moves of these orders that have an effect, and those that have none. It depends on nothing but the orders, because
/// not every node knows every certificate.
fn effective(orders: &[Order]) -> (Vec<Move>, Vec<(OrgId, OrgPath)>) {
    let (mut moves, mut void, mut left): (_, _, Vec<OrgPath>) = (Vec::new(), Vec::new(), Vec::new());
    let steps = orders.iter().enumerate().flat_map(|(nth, order)| order.steps.iter().map(move |s| (nth, s)));
    for (before, step) in steps {
        let Step::Move { from, to, address } = step else { continue };
        let is_left = |place: &OrgPath| left.iter().any(|gone| place.is_within(gone));
        if is_left(from) || to.parent().is_none_or(|above| is_left(&above) || above.is_within(from)) {
            void.push((from.org().clone(), to.clone()));
            continue;
        }
        left = left
            .into_iter()
            .filter(|gone| gone != to)
            .map(|gone| gone.moved(from, to).unwrap_or(gone))
            .collect();
        // One that names another address and the same place leaves nothing.
        if from != to {
            left.push(from.clone());
        }
        moves.push(Move { before, from: from.clone(), to: to.clone(), address: address.clone() });
    }
    (moves, void)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::tests::{closed, moved, order};

    fn org(name: &str) -> OrgId {
        OrgId::new(name).unwrap()
    }

    fn path(path: &str) -> OrgPath {
        path.parse().unwrap()
    }

    /// Two provinces, the one with a district and two clinics.
    fn country() -> Places {
        let mut places = Places::default();
        for place in ["tw", "tw/hg", "tw/tq", "tw/hg/dd", "tw/hg/dd/dv", "tw/hg/mv"] {
            assert!(places.learn(&path(place)));
        }
        places
    }

    fn stands(places: &Places, name: &str) -> String {
        places.stands(&org(name)).unwrap().to_string()
    }

    #[test]
    fn what_is_below_moves_along_whichever_certificate_it_shows() {
        let mut places = country();
        assert!(places.follow(&order(1, vec![moved("tw/hg/dd", "tw/tq/dd")])));
        assert!(!places.follow(&order(1, vec![moved("tw/hg/dd", "tw/tq/dd")])), "no news");
        assert_eq!(stands(&places, "dv"), "tw/tq/dd/dv");
        assert_eq!(stands(&places, "mv"), "tw/hg/mv");
        for place in ["tw/hg/dd/dv", "tw/tq/dd/dv"] {
            assert_eq!(places.clashes(&path(place)), None, "{place}");
            assert!(places.learn(&path(place)));
            assert_eq!(places.now(&path(place)), path("tw/tq/dd/dv"));
        }
        assert_eq!(places.clashes(&path("tw/hg/dv")), Some(&path("tw/tq/dd/dv")));
        for (above, below, covers) in [
            ("tw/hg", "tw/hg/dd/dv", true),
            ("tw/tq", "tw/hg/dd/dv", true),
            ("tw/tq/dd", "tw/hg/dd/dv", true),
            ("tw/tq", "tw/hg/mv", false),
            ("tw/hg", "tw/tq/dd/dv", false),
        ] {
            assert_eq!(places.covers(&path(above), &path(below)), covers, "{above} {below}");
        }
        assert!(!places.learn(&path("tw/hg/dv")));
        // One that is heard of later, by its new place, has stood at the old one.
        assert!(places.learn(&path("tw/tq/dd/bt")));
        assert!(places.has_stood_within(&org("bt"), &org("hg")));
    }

    #[test]
    fn the_order_in_which_orders_are_heard_does_not_matter() {
        let all = [
            order(1, vec![moved("tw/hg/dd", "tw/tq/dd")]),
            order(2, vec![moved("tw/tq/dd/dv", "tw/tq/dv"), closed("dd", "tq")]),
            order(3, vec![moved("tw/tq/dv", "tw/hg/dv"), closed("tq", "hg")]),
        ];
        for sequence in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let mut places = country();
            sequence.iter().for_each(|nth| assert!(places.follow(&all[*nth])));
            assert_eq!(stands(&places, "dv"), "tw/hg/dv");
            assert_eq!(places.of(&org("dd")), Some(&path("tw/hg")), "its heir is closed, too");
            assert_eq!(stands(&places, "dd"), "tw/tq/dd");
            assert!(places.orders().iter().map(|order| order.number).eq(1..=3));
        }
    }

    #[test]
    fn orders_of_two_roots_that_contradict_give_one_tree() {
        let all = [
            order(1, vec![moved("tw/hg", "tw/tq/hg")]),
            // By a root that has not heard of the first: there is no tw/hg any more, and tq would stand below itself.
            order(1, vec![moved("tw/hg/mv", "tw/tq/mv")]),
            order(2, vec![moved("tw/tq", "tw/hg/tq"), moved("tw/tq/mv", "tw/hg/mv")]),
            // It is there again, and so it may be moved to.
            order(3, vec![moved("tw/tq/hg", "tw/hg"), moved("tw/tq", "tw/hg/tq")]),
        ];
        for sequence in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let mut places = country();
            sequence.iter().for_each(|nth| assert!(places.follow(&all[*nth])));
            for (name, at) in [("hg", "tw/tq/hg"), ("tq", "tw/tq"), ("dv", "tw/tq/hg/dd/dv"), ("tw", "tw")] {
                assert_eq!(stands(&places, name), at, "{sequence:?}");
            }
            places.follow(&all[3]);
            for (name, at) in [("hg", "tw/hg"), ("tq", "tw/hg/tq"), ("dv", "tw/hg/dd/dv")] {
                assert_eq!(stands(&places, name), at, "{sequence:?}");
            }
        }
        // Who has followed one that has no effect may have written for whom it moved.
        let mut places = country();
        places.follow(&all[0]);
        places.learn(&path("tw/cb"));
        places.follow(&order(2, vec![moved("tw/hg/dd", "tw/cb/dd")]));
        assert_eq!(stands(&places, "dv"), "tw/tq/hg/dd/dv");
        for (home, has) in [("dv", true), ("dd", true), ("mv", false), ("tq", false)] {
            assert_eq!(places.has_stood_within(&org(home), &org("cb")), has, "{home}");
        }
        let mut places = country();
        places.follow(&order(1, vec![moved("tw/hg", "tw/hg/dd/hg")]));
        assert_eq!(stands(&places, "dv"), "tw/hg/dd/dv", "nothing stands below itself");
    }

    #[test]
    fn what_is_on_its_way_comes_through_those_above_its_bringers() {
        let mut places = country();
        let [hg, tq, mv] = ["hg", "tq", "mv"].map(org);
        places.follow(&order(1, vec![moved("tw/hg/mv", "tw/mv")]));
        assert!(places.has_come_through(&mv, &hg) && !places.has_come_through(&mv, &tq));
        // What had been there brings what it has of it to its new parent, and that goes on, wherever they are since.
        places.follow(&order(2, vec![moved("tw/hg", "tw/tq/hg")]));
        assert!(places.has_come_through(&mv, &tq) && !places.has_stood_within(&mv, &tq));
        places.follow(&order(3, vec![moved("tw/tq/hg", "tw/hg")]));
        assert!(places.has_come_through(&mv, &tq));
        // Who comes to hg later has never been anywhere where that of tq could have come.
        places.follow(&order(4, vec![moved("tw/mv", "tw/hg/mv")]));
        assert!(!places.has_come_through(&tq, &mv) && !places.has_come_through(&tq, &hg));
    }

    #[test]
    fn what_has_stood_somewhere_is_remembered() {
        let mut places = country();
        let was = |places: &Places, home: &str, at: &str| places.has_stood_within(&org(home), &org(at));
        assert!(was(&places, "dv", "hg") && !was(&places, "dv", "tq"));
        places.follow(&order(1, vec![moved("tw/hg/dd", "tw/tq/dd")]));
        places.follow(&order(2, vec![closed("mv", "dv")]));
        for (home, at, has) in [
            ("dv", "hg", true),
            ("dv", "tq", true),
            ("dv", "dd", true),
            ("dv", "mv", false),
            ("mv", "hg", true),
            ("mv", "tq", true),
            ("mv", "dv", true),
            ("hg", "tq", false),
            ("hg", "tw", true),
            ("xx", "tw", false),
            ("dv", "xx", false),
        ] {
            assert_eq!(was(&places, home, at), has, "{home} {at}");
        }
        assert!(
            places.is_within(&org("mv"), &path("tw/tq/dd/dv"))
                && !places.is_within(&org("mv"), &path("tw/hg"))
        );
        assert_eq!((places.successor(&org("mv")), places.successor(&org("dv"))), (Some(&org("dv")), None));
    }

    #[test]
    fn a_branch_is_told_before_and_after() {
        let mut places = country();
        places.follow(&order(1, vec![moved("tw/hg/dd", "tw/tq/dd")]));
        places.follow(&order(2, vec![moved("tw/tq/dd/dv", "tw/tq/dv"), closed("dd", "tq")]));
        let branch =
            |at: &str, home: &str, number| places.branch(&org(at), &org(home), number).map(String::from);
        for (at, home, branches) in [
            ("tw", "dv", [Some("hg"), Some("tq"), Some("tq")]),
            ("tq", "dv", [None, Some("dd"), Some("dv")]),
            ("hg", "dv", [Some("dd"), None, None]),
            ("tw", "dd", [Some("hg"), Some("tq"), Some("tq")]),
            ("tq", "dd", [None, Some("dd"), None]),
            ("tw", "tw", [None, None, None]),
        ] {
            let found = [0, 1, u64::MAX].map(|number| branch(at, home, number));
            assert_eq!(found, branches.map(|org| org.map(str::to_owned)), "{at} {home}");
        }
    }

    #[test]
    fn the_last_order_tells_where_the_parent_listens() {
        let mut places = country();
        let step = |from: &str, to: &str, address: &str| Step::Move {
            from: path(from),
            to: path(to),
            address: address.to_owned(),
        };
        assert_eq!(places.address_above(&org("dd")), None);
        places.follow(&order(1, vec![step("tw/hg/dd", "tw/tq/dd", "tq.example:7401")]));
        assert_eq!(places.address_above(&org("dd")), Some("tq.example:7401"));
        assert_eq!(places.address_above(&org("dv")), None, "its parent is the same");
        // Another address alone: nobody has left, and who moves later moves from there.
        places.follow(&order(2, vec![step("tw/tq/dd", "tw/tq/dd", "tq2.example:7401")]));
        assert_eq!(places.address_above(&org("dd")), Some("tq2.example:7401"));
        assert!(!places.has_left(&org("dd"), &org("tq")) && stands(&places, "dv") == "tw/tq/dd/dv");
        places.follow(&order(3, vec![step("tw/tq/dd", "tw/hg/dd", "hg.example:7401")]));
        assert_eq!(
            (stands(&places, "dv"), places.has_left(&org("dd"), &org("tq"))),
            ("tw/hg/dd/dv".into(), true)
        );
        let mut places = country();
        places.follow(&order(1, vec![step("tw/hg/dd", "tw/tq/dd", "tq.example:7401")]));
        places.follow(&order(3, vec![step("tw/hg/dd", "tw/tq/dd", "")]));
        places.follow(&order(2, vec![step("tw/tq/dd", "tw/hg/dd", "hg.example:7401")]));
        assert_eq!(places.address_above(&org("dd")), None);
    }

    #[test]
    fn what_cannot_be_is_not_ordered() {
        let places = country();
        let wrong = |steps: &[Step]| places.check(steps).unwrap_err();
        let after = places.check(&[
            moved("tw/hg/dd", "tw/tq/dd"),
            moved("tw/tq/dd/dv", "tw/tq/dv"),
            closed("dd", "tq"),
        ]);
        let after = after.unwrap();
        assert_eq!((stands(&after, "dv"), stands(&places, "dv")), ("tw/tq/dv".into(), "tw/hg/dd/dv".into()));
        let below =
            |places: &Places, org_: &str| places.below(&org(org_)).map(OrgId::to_string).collect::<Vec<_>>();
        assert_eq!((below(&places, "hg"), below(&places, "tq")), (vec!["dd".into(), "mv".into()], vec![]));
        assert_eq!((below(&after, "hg"), below(&after, "tq")), (vec!["mv".into()], vec!["dv".to_string()]));
        assert!(below(&places, "xx").is_empty());
        assert_eq!(wrong(&[moved("tw/hg/xx", "tw/tq/xx")]), OrderError::Unknown(org("xx")));
        assert_eq!(wrong(&[moved("tw/hg/mv", "tw/xx/mv")]), OrderError::Unknown(org("xx")));
        let elsewhere =
            OrderError::Elsewhere { org: org("mv"), stands: path("tw/hg/mv"), named: path("tw/tq/mv") };
        assert_eq!(wrong(&[moved("tw/tq/mv", "tw/hg/mv")]), elsewhere);
        assert!(matches!(wrong(&[moved("tw/hg/mv", "tw/hg/tq/mv")]), OrderError::Elsewhere { .. }));
        assert_eq!(wrong(&[moved("tw", "tw/hg/tw")]), OrderError::Root(org("tw")));
        assert_eq!(wrong(&[moved("tw/hg", "hg")]), OrderError::Root(org("hg")));
        let below = OrderError::BelowItself { org: org("hg"), to: path("tw/hg/dd/hg") };
        assert_eq!(wrong(&[moved("tw/hg", "tw/hg/dd/hg")]), below);
        assert_eq!(wrong(&[closed("tw", "hg")]), OrderError::Root(org("tw")));
        assert_eq!(wrong(&[closed("mv", "mv")]), OrderError::Closed(org("mv")));
        assert_eq!(wrong(&[closed("mv", "dv"), closed("hg", "mv")]), OrderError::Closed(org("mv")));
        assert_eq!(wrong(&[closed("dd", "tq")]), OrderError::NotEmpty { org: org("dd"), below: org("dv") });
        assert!(places.check(&[closed("dv", "mv"), closed("dd", "tq")]).is_ok());
    }
}
