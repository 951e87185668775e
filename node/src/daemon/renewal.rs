//! Certificates are renewed long before they end: a node asks its parent, over the link or by files, the root renews its own.
//!
//! A node looks at each new link to its parent, and once a day, whether the time has come, by its own clock or by its
//! parent's. One that an order has moved asks as soon as its parent has greeted it and shows that it has moved itself. What always holds: the old certificates stay until the new ones are checked and on the disk; a renewal
//! that fails is an alert and stops nothing. Connections that stand keep the certificates that they were opened
//! with, and end with them; the next one shows the new ones. Not here: what is right to issue and to accept
//! (`ca::renew`).

use std::{sync::Arc, time::Duration};

use quinn::Connection;
use sync_core::{id::OrgPath, identity::NodeInfo, store::StoreError};
use tokio::sync::{mpsc, oneshot};

use super::{Message, Numbers, core::Core};
use crate::{
    admin::{Failure, FailureKind, RenewalRequested, Renewed},
    ca::{
        Facts, Issued, Response, TrustedClock,
        certificate::renew_root_node,
        file::{self, Answer, Kind},
        renew,
        trust::When,
    },
    keys::{Identity, IdentityFolder, PublicKey},
    transport::{
        Link, Transport,
        beside::{self, Question},
    },
};

/// How often a node looks whether its certificates are due.
const LOOK_EVERY: Duration = Duration::from_secs(86_400);
/// How often a link looks whether the time of the neighbour's certificate is over.
const EXPIRY_LOOK_EVERY: Duration = Duration::from_secs(60);

/// What renewing takes.
#[derive(Clone)]
pub struct Renewal {
    pub transport: Arc<Transport>,
    pub folder: IdentityFolder,
    pub core: mpsc::Sender<Message>,
    pub numbers: Arc<Numbers>,
}

impl Renewal {
    /// Goes on beside a link to the parent; returns when the link has to end.
    pub async fn with_parent(&self, link: &Link) {
        let asking = async {
            loop {
                self.look(link).await;
                let day = tokio::time::sleep(LOOK_EVERY);
                tokio::pin!(day);
                loop {
                    tokio::select! {
                        () = &mut day => break,
                        () = self.numbers.greeted.notified() => self.look_after_a_move(link).await,
                    }
                }
            }
        };
        tokio::select! { () = asking => {}, () = over(link, self.clock()) => {} }
    }

    async fn look(&self, link: &Link) {
        let identity = self.transport.identity();
        let now = self.time_with(link).await;
        if !renew::due(&identity, now) {
            return;
        }
        if let Err(error) = self.ask(link.connection(), &identity).await {
            self.failed(&identity, error).await;
        }
    }

    /// Whoever has been moved is given certificates that say so; the old ones end.
    async fn look_after_a_move(&self, link: &Link) {
        let identity = self.transport.identity();
        let ca = identity.ca.as_ref().and_then(|ca| ca.chain.first());
        let mut certified = identity.chain.first().into_iter().chain(ca).filter_map(Facts::read);
        let stands = self.numbers.place();
        // A parent that has been moved itself can say where its children stand when it has new certificates.
        let can_tell = stands.parent().as_ref() == Some(&link.peer().place);
        if !can_tell || certified.all(|facts| facts.subject.place == stands) {
            return;
        }
        if let Err(error) = self.ask(link.connection(), &identity).await {
            self.failed(&identity, error).await;
        }
    }

    /// The later of this node's time and its parent's, which counts up to the end of the certificate that the parent
    /// shows. To renew too early does no harm; to move the clock might, so only a clock that is lost is moved.
    async fn time_with(&self, link: &Link) -> i64 {
        let clock = self.clock();
        let word = match beside::ask_time(link.connection()).await {
            Ok(word) => word.min(link.until()),
            Err(error) => {
                tracing::debug!(%error, "the parent's time is not known");
                return clock.now();
            }
        };
        if clock.is_lost() && clock.learn(word) {
            tracing::info!("the clock of this machine is behind; until it is set the parent's time counts");
            if let Err(error) = self.folder.save_last_known_good(word) {
                tracing::warn!(%error, "the time is forgotten when the daemon ends");
            }
        }
        clock.now().max(word)
    }

    async fn ask(&self, connection: &Connection, identity: &Identity) -> anyhow::Result<()> {
        let ca_key = identity.ca.as_ref().map(|ca| ca.key.public());
        let response = beside::ask_certificates(connection, ca_key).await?;
        let renewed = renew::accept(response, identity, &self.numbers.place(), self.transport.trust())?;
        self.folder.renew(&renewed.chain, renewed.ca_chain.as_deref())?;
        self.use_renewed().await
    }

    /// Tells, now and once a day, that the parent has not been reached for far too long.
    pub async fn remind(self) {
        loop {
            let identity = self.transport.identity();
            let own = identity.chain.first().and_then(Facts::read);
            if own.is_some_and(|own| own.renewal_overdue(self.clock().now())) {
                let why = "its parent has not been reached since that was due; where there is no line, ask by stick with \
                           `tuyen renew --request FILE`";
                self.failed(&identity, anyhow::anyhow!(why)).await;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The request of this node as a file, for a parent to which there is no line.
    pub fn request(&self) -> Result<RenewalRequested, Failure> {
        let (request, parent) = self.by_file()?;
        let until =
            self.transport.identity().chain.first().and_then(Facts::read).map_or(0, |own| own.not_after);
        let request = file::write(Kind::Renewal, &request);
        Ok(RenewalRequested { place: self.numbers.place(), parent, until, request })
    }

    /// Takes the answer to [`Renewal::request`].
    pub async fn take(&self, text: &str) -> Result<Renewed, Failure> {
        let (request, _) = self.by_file()?;
        let response = Answer::read(text.as_bytes(), &request)?;
        let identity = self.transport.identity();
        let renewed = renew::accept(response, &identity, &self.numbers.place(), self.transport.trust())?;
        let kept = self.folder.renew(&renewed.chain, renewed.ca_chain.as_deref());
        kept.map_err(|error| Failure::new(FailureKind::Failed, error.to_string()))?;
        let unused = |error: anyhow::Error| Failure::new(FailureKind::Failed, error.to_string());
        self.use_renewed().await.map_err(unused)?;
        let own = renewed.chain.first().and_then(Facts::read);
        let own =
            own.ok_or_else(|| Failure::new(FailureKind::Failed, "the new certificate cannot be read"))?;
        Ok(Renewed { place: own.subject.place, until: own.not_after })
    }

    /// What is asked by a file now (JSON), and of whom.
    fn by_file(&self) -> Result<(Vec<u8>, OrgPath), Failure> {
        let Some(parent) = self.numbers.place().parent() else {
            let text = "the root renews its own certificates, and asks nobody";
            return Err(Failure::new(FailureKind::Usage, text));
        };
        Ok((renew::Request::new(&self.transport.identity(), &parent).to_json(), parent))
    }

    /// Keeps the certificate of the root's own node in time.
    pub async fn at_root(self) {
        loop {
            let identity = self.transport.identity();
            if renew::due(&identity, self.clock().now())
                && let Err(error) = self.renew_root(&identity).await
            {
                self.failed(&identity, error).await;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn renew_root(&self, identity: &Identity) -> anyhow::Result<()> {
        let (certificate, _) = renew_root_node(identity, self.clock().now())?;
        self.folder.renew(&[certificate], None)?;
        self.use_renewed().await
    }

    /// What is on the disk is used from now on.
    async fn use_renewed(&self) -> anyhow::Result<()> {
        let identity = Arc::new(self.folder.load()?);
        self.transport.renew(identity.clone())?;
        let _ = self.core.send(Message::Renewed(identity)).await;
        Ok(())
    }

    async fn failed(&self, identity: &Identity, error: anyhow::Error) {
        let until = identity.chain.first().and_then(Facts::read).map_or(0, |facts| facts.not_after);
        let _ = self.core.send(Message::NotRenewed { until, why: error.to_string() }).await;
    }

    fn clock(&self) -> &TrustedClock {
        self.transport.trust().clock()
    }
}

/// Returns when the certificate that the neighbour has shown ends. Whether it has a newer one shows at the next
/// handshake; the end of this node's own is the neighbour's to see.
async fn over(link: &Link, clock: &TrustedClock) {
    loop {
        let left = link.until().saturating_sub(clock.now());
        let Some(left) = u64::try_from(left).ok().filter(|left| *left > 0) else { return };
        tokio::time::sleep(Duration::from_millis(left).min(EXPIRY_LOOK_EVERY)).await;
    }
}

/// Goes on beside a link to a child: answers what it asks, one question after another; returns when the link has to
/// end.
pub async fn with_child(link: &Link, clock: &TrustedClock, core: &mpsc::Sender<Message>) {
    let answering = async {
        while let Some(question) = beside::next_question(link.connection()).await {
            match question {
                Question::Time(asked) => asked.time(clock.now()).await,
                Question::Certificates(asked, ca_key) => {
                    let (place, chain) = (link.peer().place.clone(), link.chain());
                    let (answer, answered) = oneshot::channel();
                    // When the daemon stops there is no answer, and the child asks again.
                    let _ = core.send(Message::RenewChild { place, chain, ca_key, answer }).await;
                    if let Ok(response) = answered.await {
                        asked.certificates(&response).await;
                    }
                }
            }
        }
        std::future::pending().await
    };
    tokio::select! { () = answering => {}, () = over(link, clock) => {} }
}

impl Core {
    /// A child has come with this chain: what it was given before it was moved ends when it shows what it was given since.
    pub fn end_certificates_before(&mut self, peer: &NodeInfo, chain: &[Vec<u8>]) -> Result<(), StoreError> {
        let own = chain.first().and_then(|der| Facts::read(&der.as_slice().into()));
        let Some(own) = own else { return Ok(()) };
        for serial in self.book.shown(peer.node, &own.serial, &mut self.store)? {
            tracing::info!(place = %peer.place, "a certificate of before a move has ended");
            self.engine.identity().trust().end(serial);
        }
        Ok(())
    }

    /// Issues the next certificates of a child that has proved to hold these, and writes them into the book.
    pub fn renew_child(
        &mut self,
        place: &OrgPath,
        chain: &[Vec<u8>],
        ca_key: Option<PublicKey>,
    ) -> Result<Response, StoreError> {
        let own = self.engine.identity();
        let now = own.trust().clock().now();
        let chain: Vec<_> = chain.iter().map(|der| der.as_slice().into()).collect();
        let child = own.trust().verify_chain(&chain, When::Now(now)).map_err(renew::RenewRefusal::from);
        let grant = child.and_then(|child| {
            let known = self.book.last_of(child.info.node, child.info.role);
            let grant = renew::renew(&own.files(), &child, ca_key, known, self.engine.places(), now)?;
            Ok((child, grant))
        });
        match grant {
            Ok((child, grant)) => {
                let response = Response::granting(&grant, &own.files());
                tracing::info!(%place, node = %grant.issued.node, "renewed the certificates of a child");
                if child.info.place != grant.issued.place {
                    // Its old one ends when it has come with the new one.
                    let old = Issued {
                        place: child.info.place,
                        serial: child.serial,
                        not_after: child.not_after,
                        ..grant.issued.clone()
                    };
                    self.book.issue(old, &mut self.store)?;
                }
                self.book.issue(grant.issued.clone(), &mut self.store)?;
                self.has_issued(&grant)?;
                Ok(response)
            }
            Err(refusal) => {
                self.alert("renewal", format!("{place} asked for new certificates and got none: {refusal}"));
                Ok(Response::from(&refusal))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ca::{
            TrustStore,
            tests::{NOW, Tree, path},
        },
        daemon::Stand,
        transport::tests::{link, meet, node_at},
    };

    const DAY: i64 = 86_400_000;

    fn stand() -> Stand {
        Stand { place: path("trung-uong/ha-giang/dong-van"), parent: None, before: None }
    }

    /// A leaf whose clock says `leaf_says` meets a hub whose clock says `hub_says`: whether it asks for certificates,
    /// and what time it goes by then.
    async fn asks(leaf_says: i64, hub_says: i64) -> (bool, i64) {
        let tree = Tree::new();
        let dir = tempfile::tempdir().unwrap();
        let folder = IdentityFolder::of_node(dir.path());
        folder.save(&tree.leaf).unwrap();
        let at =
            |identity: &Identity, wall| TrustStore::of(identity, TrustedClock::with_wall(0, wall)).unwrap();
        let (hub_trust, leaf_trust) = (at(&tree.hub, hub_says), at(&tree.leaf, leaf_says));
        let clock = leaf_trust.clock().clone();
        let (hub, leaf) = (node_at(tree.hub, hub_trust), node_at(tree.leaf, leaf_trust));
        let (dialled, arrived) = meet(&leaf, &hub).await;
        let (dialled, arrived) = (dialled.unwrap(), link(arrived));
        let (to_hub, mut hub_core) = mpsc::channel(1);
        let (core, mut told) = mpsc::channel(1);
        let numbers = Arc::new(Numbers::new(false, stand()));
        let renewal = Renewal { transport: leaf, folder: folder.clone(), core, numbers };
        let asked = tokio::select! {
            () = with_child(&arrived, hub.trust().clock(), &to_hub) => panic!("the link is good"),
            () = renewal.look(&dialled) => false,
            asked = hub_core.recv() => matches!(asked, Some(Message::RenewChild { .. })),
        };
        assert!(told.try_recv().is_err());
        assert!([0, clock.last_known_good()].contains(&folder.last_known_good()));
        (asked, clock.now())
    }

    #[tokio::test]
    async fn a_machine_whose_clock_stands_still_is_renewed_by_its_parents() {
        let later = NOW + 400 * DAY;
        assert_eq!(asks(NOW, NOW).await, (false, NOW));
        assert_eq!(asks(later, later).await, (true, later));
        // 1970: the parent's word counts for everything.
        assert_eq!(asks(0, NOW).await, (false, NOW));
        assert_eq!(asks(0, later).await, (true, later));
        // Late but not certainly wrong: it asks, and its clock stays.
        assert_eq!(asks(NOW, later).await, (true, NOW));
        // A parent that is behind moves nothing back.
        assert_eq!(asks(later, 0).await, (true, later));
        assert_eq!(asks(NOW, 0).await, (false, NOW));
    }

    #[tokio::test]
    async fn a_parents_word_counts_up_to_the_end_of_its_certificate() {
        let tree = Tree::new();
        let until = Facts::read(&tree.hub.chain[0]).unwrap().not_after;
        let (trust, hub_trust) = (tree.trust(), tree.trust());
        let (hub, leaf) = (node_at(tree.hub, hub_trust), node_at(tree.leaf, trust));
        let (dialled, arrived) = meet(&leaf, &hub).await;
        let (dialled, arrived) = (dialled.unwrap(), link(arrived));
        let (core, _told) = mpsc::channel(1);
        let (folder, numbers) =
            (IdentityFolder::of_node("/".as_ref()), Arc::new(Numbers::new(false, stand())));
        let renewal = Renewal { transport: leaf, folder, core, numbers };
        let wrong = TrustedClock::with_wall(0, 4_070_908_800_000);
        let answer = async {
            let Some(Question::Time(asked)) = beside::next_question(arrived.connection()).await else {
                panic!("it asks the time")
            };
            asked.time(wrong.now()).await;
            std::future::pending().await
        };
        let time =
            tokio::select! { () = answer => unreachable!(), time = renewal.time_with(&dialled) => time };
        assert_eq!(time, until);
    }
}
