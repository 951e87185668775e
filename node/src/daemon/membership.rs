//! Who stands below this node: invitations, revocations, and a machine that takes another's place.
//!
//! What always holds: what can be refused is refused before anything is revoked; a token that nobody has used is good no more
//! once its organization's machine was revoked. Not here: what a token brings (`ca::enrol`), and who is let in (`listen`).

use sync_core::{
    engine::Event,
    id::OrgId,
    identity::{NodeInfo, Reason, Role},
};

use super::{
    core::{Core, Outcome, refuse},
    wall,
};
use crate::{
    admin::{FailureKind, Invited, Replaced, Revoked},
    ca::{Invite, Token, token::Secret, trust},
    clock,
};

/// Fewest digits that name a node: as many as people are shown.
const NODE_DIGITS_MIN: usize = 8;

impl Core {
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
            && (named.len() < NODE_DIGITS_MIN || !stands.to_string().starts_with(named))
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
        let Revoked { nodes, tokens, .. } = self.revoke(&org, reason)?;
        Ok(Replaced { nodes, role, invited: self.give_out(&token)?, tokens })
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
        self.numbers.must_not_be_revoked()?;
        if let Some(heir) = self.engine.places().successor(self.config.place.org()) {
            let text = format!(
                "this organization is closed by an order of the root, and takes nobody in any more; ask {heir} for the token"
            );
            return refuse(FailureKind::Usage, text);
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
        let stands = self.engine.places().stands(org).cloned();
        let elsewhere = stands.filter(|stands| stands.parent().as_ref() != Some(&self.config.place));
        Ok(Revoked { nodes, tokens, elsewhere })
    }
}

fn not_enrolled<T>(org: &OrgId) -> Outcome<T> {
    refuse(
        FailureKind::Usage,
        format!("this node has enrolled no {org}, and no token for it is open; ask the node that did"),
    )
}
