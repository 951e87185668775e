//! Requests about the node itself: status, peers, pausing, invitations, revocations.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use serde_json::value::RawValue;
use sync_core::{
    engine::Event,
    feed::Digest,
    id::{Lane, NodeId, OrgId, OrgPath},
    identity::{NodeInfo, Reason, Role},
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
    admin::{FailureKind, Invited, LinkState, Peers, ProfileLine, Replaced, Revoked, Status, Synced, Unsafe},
    ca::{Invite, Token, token::Secret, trust},
    clock,
    config::Profile,
};

impl Core {
    /// The node at a glance.
    pub fn status(&self) -> Outcome<Status> {
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
            profiles: self.profiles()?,
            policies: self.config.policies.clone(),
            unfolded: self.store.tip()?.saturating_sub(self.store.folded()?),
            digest: format!("{:032x}", total.sum),
            homes: digests.iter().map(home).collect(),
            not_at_hub: self.not_at(Frontier::Hub)?,
            not_at_root: self.not_at(Frontier::Root)?,
            line: self.line_to_parent()?,
            attachments: self.contents()?,
            leaving: self.leaving(),
            paused: self.numbers.paused(),
            up: up.into_iter().next().map(|(_, state)| state),
            down: down.into_iter().map(|(_, state)| state).collect(),
            sent_bytes: self.numbers.traffic.sent.load(Ordering::Relaxed),
            received_bytes: self.numbers.traffic.received.load(Ordering::Relaxed),
            alerts: self.alerts.iter().cloned().collect(),
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
        let behind = match direction {
            Direction::Up => Some(self.not_at(Frontier::Hub)?.entries),
            Direction::Down => link.as_ref().map(|link| link.to_go),
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
            to_come: self.to_come.of(place.org()),
        })
    }

    /// How things stand with the parent.
    pub fn synced(&self) -> Result<Synced, StoreError> {
        let up = |link: sync_core::engine::LinkStatus| link.direction == Direction::Up && link.settled;
        Ok(Synced {
            paused: self.numbers.paused(),
            connected: self.engine.is_root() || self.engine.links().any(up),
            not_at_hub: self.not_at(Frontier::Hub)?,
            not_at_root: self.not_at(Frontier::Root)?,
            attachments: self.contents()?,
            bulk: self.waiting_bulk()?,
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

    /// Makes a token for a new child.
    pub fn invite(
        &mut self,
        role: Role,
        org: OrgId,
        expires_seconds: u64,
        address: Option<String>,
    ) -> Outcome<Invited> {
        let token = self.token(role, org, expires_seconds, address)?;
        self.give_out(&token)
    }

    /// Puts a child's node out of the tree and makes a token for the machine that takes its place.
    pub fn replace(
        &mut self,
        org: OrgId,
        named: Option<&str>,
        reason: Reason,
        expires_seconds: u64,
        address: Option<String>,
    ) -> Outcome<Replaced> {
        let known = || self.book.issued().iter().rev().filter(|one| one.org == org);
        let Some(newest) = known().next() else { return not_enrolled(&org) };
        let (role, stands) = (newest.role, newest.node);
        if let Some(named) = named
            && ![stands.short(), stands.to_string()].iter().any(|name| name == named)
        {
            let text = format!(
                "node {named} does not stand for {org}; the newest machine that does is node {}. Nothing was revoked",
                stands.short()
            );
            return refuse(FailureKind::Usage, text);
        }
        // The same words twice must not put out the machine that the first let in.
        let trust = self.engine.identity().trust();
        let took_place_of = known().find(|one| one.node != stands && trust.may_have(one).is_err());
        if let Some(before) = took_place_of
            && named.is_none()
            && trust.may_have(newest).is_ok()
        {
            let (before, stands) = (before.node.short(), stands.short());
            let text = format!(
                "{org} has a new machine already: node {stands} has taken the place of node {before}, and would be put out \
                 for good. Nothing was revoked. If node {stands} is lost as well, say so with --node {stands}"
            );
            return refuse(FailureKind::Usage, text);
        }
        // What can be refused is, before anything is revoked.
        let token = self.token(role, org.clone(), expires_seconds, address)?;
        let Revoked { nodes, .. } = self.revoke(&org, reason)?;
        Ok(Replaced { nodes, role, invited: self.give_out(&token)? })
    }

    fn give_out(&mut self, token: &Token) -> Outcome<Invited> {
        let (hash, invite) = Invite::of(token);
        self.book.invite(hash, invite, &mut self.store)?;
        Ok(Invited { expires_at: token.expires, token: token.to_string() })
    }

    fn token(&self, role: Role, org: OrgId, expires_seconds: u64, address: Option<String>) -> Outcome<Token> {
        let info = self.engine.info();
        if info.role == Role::Leaf {
            return refuse(FailureKind::Usage, "a leaf has no children; ask its hub for the token");
        }
        if let Some(stands) = self.engine.places().stands(&org)
            && stands.parent().as_ref() != Some(&self.config.place)
        {
            let text = format!(
                "{org} stands at {stands}, and no name is used twice: have it moved here by its root (`tuyen org move`), or \
                 invite the new one under another name"
            );
            return refuse(FailureKind::Usage, text);
        }
        if let Some(heir) = self.engine.places().successor(&org) {
            let text = format!(
                "{org} is closed by an order of the root, and what was its own is {heir}'s; a name that was closed is not \
                 free again, so invite the new one under another"
            );
            return refuse(FailureKind::Usage, text);
        }
        let listen = self.config.listen.filter(|listen| !listen.ip().is_unspecified());
        let Some(address) = address.or_else(|| listen.map(|listen| listen.to_string())) else {
            let text = match self.config.listen {
                Some(listen) => format!(
                    "this node listens on {listen}, which nobody can dial; say which of its addresses the child is to \
                     dial with --address HOST:{}",
                    listen.port()
                ),
                None => "this node listens nowhere; say what the child is to dial with --address HOST:PORT"
                    .to_owned(),
            };
            return refuse(FailureKind::Usage, text);
        };
        let secret = match Secret::generate() {
            Ok(secret) => secret,
            Err(error) => {
                return refuse(FailureKind::Failed, format!("no randomness from the system: {error}"));
            }
        };
        let token = Token::new(Token {
            parent: info.node,
            addresses: vec![address],
            root: self.engine.identity().trust().fingerprint(),
            org,
            role,
            expires: wall().saturating_add(
                i64::try_from(expires_seconds).unwrap_or(i64::MAX / 1000).saturating_mul(1000),
            ),
            secret,
        });
        token.or_else(|error| refuse(FailureKind::Usage, error.to_string()))
    }

    /// Revokes everything issued to a child.
    pub fn revoke(&mut self, org: &OrgId, reason: Reason) -> Outcome<Revoked> {
        let issued: Vec<_> = self.book.issued().iter().filter(|one| one.org == *org).cloned().collect();
        let tokens = self.book.withdraw(org, wall(), &mut self.store)?;
        if issued.is_empty() && tokens == 0 {
            return not_enrolled(org);
        }
        let mut nodes = Vec::new();
        for one in &issued {
            let files = self.engine.identity().files();
            for revocation in trust::revoke(&files, one, reason, wall()) {
                self.engine.handle(Event::Revoke(revocation), &self.store, clock::now())?;
            }
            nodes.push(one.node);
        }
        self.let_out()?;
        for one in &issued {
            let revoked = NodeInfo { node: one.node, place: one.place.clone(), role: one.role };
            self.note_refusal(&revoked);
        }
        nodes.sort();
        nodes.dedup();
        Ok(Revoked { nodes, tokens })
    }
}

fn not_enrolled<T>(org: &OrgId) -> Outcome<T> {
    refuse(
        FailureKind::Usage,
        format!("this node has enrolled no {org}, and no token for it is open; ask the node that did"),
    )
}
