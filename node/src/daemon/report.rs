//! Requests about the node itself: status, peers, pausing.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use serde_json::value::RawValue;
use sync_core::{
    feed::Digest,
    id::{Lane, NodeId, OrgId, OrgPath},
    identity::{NodeInfo, Role},
    scope::Way,
    session::Direction,
    store::{Frontier, HomeDigest, Store, StoreError},
};

use super::{
    SOFTWARE,
    backup::last_backup,
    core::{Core, Outcome, json, refuse},
    wall,
};
use crate::{
    admin::{FailureKind, LinkState, Peers, ProfileLine, Status, Synced, Unsafe},
    config::Profile,
};

impl Core {
    /// The node at a glance.
    pub fn status(&mut self) -> Outcome<Status> {
        self.alerts.pass(wall());
        let counts = self.reader.counts()?;
        let digests = self.store.digests()?;
        let mut total = Digest::default();
        digests.iter().for_each(|(_, digest)| total.merge(*digest));
        let home = |(home, digest): &(OrgId, Digest)| HomeDigest {
            home: home.clone(),
            entries: digest.count,
            sum: format!("{:032x}", digest.sum),
        };
        let links = self.link_states()?;
        let (up, down) =
            links.into_iter().partition::<Vec<_>, _>(|(direction, _)| *direction == Direction::Up);
        let info = self.engine.info();
        Ok(Status {
            node: info.node,
            org: info.place.org().clone(),
            place: self.config.place.clone(),
            role: info.role,
            software: SOFTWARE.to_owned(),
            listen: self.config.listen.map(|address| address.to_string()),
            parent: self.config.parent.clone(),
            records: counts.live,
            deleted: counts.deleted,
            entries: counts.entries,
            conflicts: counts.conflicts,
            waiting: counts.waiting,
            unreadable: counts.unreadable,
            secret: counts.secret,
            damaged: self.left_damaged(),
            unsound: self.verify.is_unsound(),
            profiles: self.profiles()?,
            policies: self.config.policies.clone(),
            unfolded: self.store.tip()?.saturating_sub(self.store.folded()?),
            digest: format!("{:032x}", total.sum),
            homes: digests.iter().map(home).collect(),
            not_at_hub: self.not_at(Frontier::Hub)?,
            not_at_root: self.not_at(Frontier::Root)?,
            in_doubt: self.engine.is_in_doubt(),
            line: self.line_to_parent()?,
            attachments: self.contents()?,
            leaving: self.leaving(),
            ended: self.engine.ended_here(&self.store)?,
            paused: self.numbers.paused(),
            up: up.into_iter().next().map(|(_, state)| state),
            down: down.into_iter().map(|(_, state)| state).collect(),
            sent_bytes: self.numbers.traffic.sent.load(Ordering::Relaxed),
            received_bytes: self.numbers.traffic.received.load(Ordering::Relaxed),
            alerts: self.alerts.lines().cloned().collect(),
            last_backup: last_backup(&self.store)?,
        })
    }

    /// The links, up first.
    pub fn peers(&self) -> Outcome<Peers> {
        Ok(Peers { peers: self.link_states()?.into_iter().map(|(_, state)| state).collect() })
    }

    /// What the profiles allow, with what the neighbours have agreed to.
    fn profiles(&self) -> Result<Vec<ProfileLine>, StoreError> {
        let children = self.children()?;
        let neighbours = || children.keys().cloned().chain(self.config.place.parent());
        let line = |profile: &Profile| ProfileLine {
            agreed: (profile.by == Way::Link).then(|| self.engine.allowed_to(&profile.with)),
            is_heard_of: neighbours().any(|place| *place.org() == profile.with),
            profile: profile.clone(),
        };
        Ok(self.config.profiles.iter().map(line).collect())
    }

    /// What has to go up and is not there.
    pub fn not_at(&self, which: Frontier) -> Result<Unsafe, StoreError> {
        let mut sum = Unsafe::default();
        if self.engine.is_root() {
            return Ok(sum);
        }
        let above = self.nodes_above()?;
        for lane in Lane::ALL {
            let part = self.not_at_in(which, lane, &above)?;
            sum.entries += part.entries;
            sum.oldest_seconds = sum.oldest_seconds.max(part.oldest_seconds);
        }
        Ok(sum)
    }

    /// The same of one lane.
    fn not_at_in(&self, which: Frontier, lane: Lane, above: &[NodeId]) -> Result<Unsafe, StoreError> {
        let after = self.engine.frontier(which, lane);
        let pending = self.reader.pending(lane, after, above, self.engine.allowed_up())?;
        let age = pending.oldest.map(|at| u64::try_from((wall() - at) / 1000).unwrap_or(0));
        Ok(Unsafe { entries: pending.rows, oldest_seconds: age })
    }

    /// The bulk that is not at the parent.
    pub fn bulk_not_at_hub(&self) -> Result<u64, StoreError> {
        Ok(self.not_at_in(Frontier::Hub, Lane::Bulk, &self.nodes_above()?)?.entries)
    }

    /// Whoever does not stand below this node and never has: what came from there is there, or has gone up from there.
    fn nodes_above(&self) -> Result<Vec<NodeId>, StoreError> {
        let own = self.config.place.org();
        let is_above = |info: &NodeInfo| !self.engine.places().has_stood_within(info.place.org(), own);
        Ok(self.store.nodes()?.into_iter().filter(is_above).map(|info| info.node).collect())
    }

    /// Who stands directly below this node: whom it has enrolled, and whom orders have moved here.
    pub fn children(&self) -> Result<BTreeMap<OrgPath, Role>, StoreError> {
        let places = self.engine.places();
        let enrolled = self.book.issued().iter().map(|one| (&one.place, one.role));
        let announced = self.store.nodes()?;
        let all = announced.iter().map(|info| (&info.place, info.role)).chain(enrolled);
        let all = all.map(|(place, role)| (places.now(place), role));
        Ok(all.filter(|(place, _)| place.parent().as_ref() == Some(&self.config.place)).collect())
    }

    fn link_states(&self) -> Result<Vec<(Direction, LinkState)>, StoreError> {
        let mut states = Vec::new();
        if let Some(parent) = self.config.place.parent() {
            let role = if parent.depth() == 1 { Role::Root } else { Role::Hub };
            states.push((Direction::Up, self.link_state(&parent, role, Direction::Up)?));
        }
        for (place, role) in self.children()? {
            states.push((Direction::Down, self.link_state(&place, role, Direction::Down)?));
        }
        Ok(states)
    }

    fn link_state(&self, place: &OrgPath, role: Role, direction: Direction) -> Result<LinkState, StoreError> {
        // Connected is who has said HELLO: a parent that refuses does so after the handshake.
        let mut links = self.engine.links().filter(|link| link.software.is_some());
        let link = links.find(|link| link.peer.place == *place && link.direction == direction);
        let peer = link.as_ref().and_then(|link| self.peers.get(&link.link));
        let refused = self.no_parent.as_ref().filter(|_| direction == Direction::Up);
        let state = match (peer, refused) {
            (Some(_), _) => "connected",
            _ if self.numbers.paused() => "paused",
            (None, Some((FailureKind::Refused, _))) => "refused",
            (None, _) if direction == Direction::Up => "dialling",
            _ => "away",
        };
        let (behind, behind_seconds) = match direction {
            Direction::Up => {
                let Unsafe { entries, oldest_seconds } = self.not_at(Frontier::Hub)?;
                (Some(entries), oldest_seconds)
            }
            Direction::Down => (link.as_ref().map(|link| link.to_go), None),
        };
        Ok(LinkState {
            place: place.to_string(),
            role,
            node: peer.map(|p| p.info.node),
            state: state.to_owned(),
            problem: refused.filter(|_| peer.is_none()).map(|(_, text)| text.clone()),
            last_contact: self.last_contact.get(place.org()).copied(),
            address: peer.map(|p| p.connection.remote_address().to_string()),
            software: link.as_ref().and_then(|link| link.software.clone()),
            rtt_millis: peer.map(|p| u64::try_from(p.connection.rtt().as_millis()).unwrap_or(u64::MAX)),
            behind,
            behind_seconds,
            to_come: self.to_come.of(place.org()),
        })
    }

    /// How things stand with the parent.
    pub fn synced(&self) -> Result<Synced, StoreError> {
        let up = |link: sync_core::engine::LinkStatus| link.direction == Direction::Up && link.settled;
        Ok(Synced {
            paused: self.numbers.paused(),
            connected: self.engine.is_root() || self.engine.links().any(up),
            root: self.engine.is_root(),
            not_at_hub: self.not_at(Frontier::Hub)?,
            not_at_root: self.not_at(Frontier::Root)?,
            secret: self.reader.counts()?.secret,
            attachments: self.contents()?,
            bulk: self.waiting_bulk()?,
            in_doubt: self.engine.is_in_doubt(),
        })
    }

    /// Pauses or resumes; it survives a restart.
    pub fn pause(&mut self, paused: bool) -> Outcome<Box<RawValue>> {
        let changes = self.config.paused != paused;
        self.config.paused = paused;
        if let Err(error) = self.config.save(&self.dir) {
            return refuse(FailureKind::Failed, error.to_string());
        }
        if changes {
            self.outages.paused(paused);
        }
        self.numbers.paused.send_replace(paused);
        if paused {
            for peer in self.peers.values().filter(|peer| peer.direction == Direction::Down) {
                peer.outbox.close();
            }
        } else {
            self.numbers.dial.notify_one();
        }
        Ok(json(&self.synced()?))
    }
}
