//! Who is let in, and who is told what: every refusal shows on both sides.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use node::{
    admin::{Failure, FailureKind, Replaced, Request, Revoked},
    ca::{
        Facts, Token, TrustStore, TrustedClock,
        trust::{announce, sign_revocation},
    },
    config::DATABASE,
    keys::IdentityFolder,
    setup,
    transport::{LinkSettings, Transport, refusal_of},
};
use quinn::{Connection, RecvStream, SendStream};
use sync_core::{
    change::{Entry, opaque_chunk},
    engine::refusal,
    feed::{CHAIN_START, extend_chain},
    id::{Incarnation, Lane, NodeId, Secrecy},
    identity::{Announcement, Reason, Revocation, Role, Serial},
    time::Stamp,
    wire::{EntryBatch, Frame, Hello},
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tuyen_tests::{
    cluster::{Country, Node, has_alert, org, record, wait_equal},
    run::tuyen,
};

fn listens(node: &Node) -> SocketAddr {
    node.config().listen.unwrap()
}

/// The folder of a node that has enrolled and was never started.
fn enrolled(parent: &Node, dir: &TempDir, role: Role, name: &str) -> PathBuf {
    let folder = dir.path().join(name);
    let listen = (role == Role::Hub).then(tuyen_tests::cluster::free_address);
    setup::enrol(&folder, &parent.invite(role, name).token, listen).unwrap();
    assert!(folder.join(DATABASE).exists());
    folder
}

fn identity(folder: &Path) -> node::keys::Identity {
    IdentityFolder::of_node(folder).load().unwrap()
}

/// A client that speaks the protocol and does what it likes.
struct Hostile {
    runtime: Runtime,
    _transport: Transport,
    connection: Connection,
    /// None when it was refused before it could say anything.
    control: Option<(SendStream, RecvStream)>,
    run: Incarnation,
}

impl Hostile {
    /// Connects with the identity of one folder, and trusts the tree of another.
    fn connect(own: &Path, trusted: &Path, to: SocketAddr) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let trust = TrustStore::of(&identity(trusted), TrustedClock::new(0)).unwrap();
        let (transport, connection, control) = runtime.block_on(async {
            let any = "127.0.0.1:0".parse().unwrap();
            let settings = LinkSettings::default();
            let own = Arc::new(identity(own));
            let transport = Transport::bind(any, false, own, Arc::new(trust), settings.clone()).unwrap();
            let link = transport.connect(to, None, &settings).await.unwrap();
            let control = link.connection().open_bi().await.ok();
            (transport, link.connection().clone(), control)
        });
        Self { runtime, _transport: transport, connection, control, run: Incarnation([7; 16]) }
    }

    fn say(&mut self, frame: &Frame) {
        self.say_bytes(&frame.encode());
    }

    fn say_bytes(&mut self, bytes: &[u8]) {
        let (send, _) = self.control.as_mut().expect("it was let in");
        // A refusal may come first: that is what the test then looks at.
        let _ = self.runtime.block_on(send.write_all(bytes));
    }

    fn hello(&mut self) {
        let run = self.run;
        self.say(&Frame::Hello(Hello {
            run,
            software: "hostile 1".to_owned(),
            tip: None,
            cursors: Vec::new(),
            revocations: 0,
            allows: Secrecy::None,
        }));
    }

    /// A batch of one entry.
    fn offer(&mut self, segment: Incarnation, origin: Incarnation, home: &str) {
        let chunk = opaque_chunk(origin, 1, &[], Stamp(1), b"anything");
        let entry = Entry::new(record("Basic/hostile"), org(home), Lane::Normal, chunk).unwrap();
        let upto = Some((1, extend_chain(CHAIN_START, entry.hash())));
        let entries = vec![(1, entry)];
        let batch = EntryBatch { lane: Lane::Normal, segment, after: 0, upto, origin, entries };
        let connection = self.connection.clone();
        let sent: Result<(), quinn::WriteError> = self.runtime.block_on(async {
            let Ok(mut stream) = connection.open_uni().await else { return Ok(()) };
            stream.write_all(&[Lane::Normal as u8]).await?;
            stream.write_all(&Frame::Batch(batch).encode()).await?;
            // When nobody refuses it, `told` says so.
            let _ = tokio::time::timeout(TOLD_WITHIN, connection.closed()).await;
            Ok(())
        });
        let _ = sent;
    }

    /// What it is told in the end.
    fn told(self) -> (u16, String) {
        let end = async { tokio::time::timeout(TOLD_WITHIN, self.connection.closed()).await };
        let ended = self.runtime.block_on(end).expect("it is neither refused nor let go");
        refusal_of(&ended).unwrap_or_else(|| panic!("no refusal: {ended}"))
    }
}

/// Announces a run of the node of a folder.
fn announced(folder: &Path) -> Announcement {
    announce(&identity(folder), run_of(folder), None)
}

/// A hub with a child that will misbehave, and a neighbour province with a leaf.
struct Provinces {
    country: Country,
    child: PathBuf,
    stranger: PathBuf,
    _stranger_hub: Node,
    dir: TempDir,
}

fn provinces() -> Provinces {
    let country = Country::new();
    let dir = tempfile::tempdir().unwrap();
    let stranger_hub = country.root.child(&dir.path().join("hub2"), Role::Hub, "quang-nam");
    let child = enrolled(&country.hub, &dir, Role::Leaf, "meo-vac");
    let stranger = enrolled(&stranger_hub, &dir, Role::Leaf, "tra-my");
    Provinces { country, child, stranger, _stranger_hub: stranger_hub, dir }
}

impl Provinces {
    fn hostile(&self) -> Hostile {
        let mut hostile = Hostile::connect(&self.child, &self.child, listens(&self.country.hub));
        hostile.hello();
        hostile
    }

    /// The child was told, the hub's operator too, and nothing came in.
    fn refused(&self, hostile: Hostile, expected: u16, words: &str) {
        let (code, text) = hostile.told();
        assert_eq!(code, expected, "{text}");
        assert!(text.contains(words), "{text}");
        let hub = &self.country.hub;
        hub.wait("the operator is told", |s| has_alert(&s.alerts, "refused", words));
        assert!(hub.has_alert("refused", "refused trung-uong/ha-giang/meo-vac"), "{:?}", hub.status().alerts);
        assert_eq!(hub.status().entries, 0);
        // Nobody else is disturbed.
        let before = self.country.root.status().entries;
        self.country.leaf.put([format!(r#"{{"resourceType":"Basic","id":"after-{expected}"}}"#)]);
        wait_equal(&self.country.all(), before + 1);
    }
}

/// Longer than any refusal takes.
const TOLD_WITHIN: std::time::Duration = std::time::Duration::from_secs(60);

/// A run of the node of a folder.
fn run_of(folder: &Path) -> Incarnation {
    Incarnation::of(identity(folder).key.id(), [8; Incarnation::FRESH_LEN])
}

/// Announcements are signed, so anybody may bring them; what the run wrote is another matter.
#[test]
fn a_child_that_offers_what_a_run_outside_its_subtree_wrote() {
    for home in ["meo-vac", "tra-my", "ha-giang"] {
        let provinces = provinces();
        let mut hostile = provinces.hostile();
        hostile.say(&Frame::Announce(announced(&provinces.child)));
        hostile.say(&Frame::Announce(announced(&provinces.stranger)));
        hostile.offer(run_of(&provinces.child), run_of(&provinces.stranger), home);
        provinces.refused(hostile, refusal::OUTSIDE_SUBTREE, home);
    }
}

#[test]
fn a_child_that_offers_a_record_whose_home_is_elsewhere() {
    let provinces = provinces();
    let mut hostile = provinces.hostile();
    hostile.say(&Frame::Announce(announced(&provinces.child)));
    let own = run_of(&provinces.child);
    hostile.offer(own, own, "ha-giang");
    provinces.refused(hostile, refusal::OUTSIDE_SUBTREE, "ha-giang");
}

#[test]
fn a_child_that_forges_an_announcement() {
    let provinces = provinces();
    let mut hostile = provinces.hostile();
    // Another run of its own with the signature of the first.
    let incarnation = Incarnation::of(identity(&provinces.child).key.id(), [9; Incarnation::FRESH_LEN]);
    let forged = Announcement { incarnation, ..announced(&provinces.child) };
    hostile.say(&Frame::Announce(forged));
    provinces.refused(hostile, 3, "signature");
}

/// A hub that has come back from an old copy would believe whoever comes first.
#[test]
fn a_child_that_announces_the_run_of_another_as_its_own() {
    let provinces = provinces();
    let mut hostile = provinces.hostile();
    let taken = announce(&identity(&provinces.child), run_of(&provinces.stranger), None);
    hostile.say(&Frame::Announce(taken));
    provinces.refused(hostile, refusal::PROTOCOL, "a name that is another node's");
}

#[test]
fn a_child_that_sends_from_a_feed_that_is_not_its_own() {
    let provinces = provinces();
    let mut hostile = provinces.hostile();
    let neighbour = enrolled(&provinces.country.hub, &provinces.dir, Role::Leaf, "quan-ba");
    hostile.say(&Frame::Announce(announced(&neighbour)));
    hostile.offer(run_of(&neighbour), run_of(&neighbour), "quan-ba");
    provinces.refused(hostile, refusal::PROTOCOL, "a feed that is not its own");
}

#[test]
fn a_child_that_speaks_no_known_language() {
    let provinces = provinces();
    let mut hostile = provinces.hostile();
    hostile.say_bytes(&[0xff; 64]);
    let (code, text) = hostile.told();
    assert_eq!(code, refusal::PROTOCOL, "{text}");
    provinces.country.hub.wait("told", |s| has_alert(&s.alerts, "refused", "malformed frame"));
}

/// A link that hears nothing can be told nothing: it ends, and no dead connection is left behind.
#[test]
fn a_child_that_does_not_listen() {
    let provinces = provinces();
    let mut hostile = provinces.hostile();
    if let Some((_, receive)) = &mut hostile.control {
        receive.stop(quinn::VarInt::from_u32(0)).unwrap();
    }
    hostile.say(&Frame::Announce(announced(&provinces.stranger)));
    let _ = hostile.runtime.block_on(hostile.connection.closed());
    let away = |link: &node::admin::LinkState| !link.place.ends_with("/meo-vac") || link.state == "away";
    let gone = |s: &node::admin::Status| s.down.iter().all(away);
    provinces.country.hub.wait("gone", gone);
}

/// A parent of another tree at the address of ours.
#[test]
fn a_node_of_another_tree() {
    let (mut here, there) = (Country::new(), Country::new());
    // Our leaf comes to their hub.
    here.leaf.stop();
    here.leaf.configure(|config| config.parent = Some(listens(&there.hub).to_string()));
    here.leaf.start();
    let status = here.leaf.wait("refused", |s| s.up.as_ref().is_some_and(|up| up.state == "refused"));
    assert!(status.up.unwrap().problem.unwrap().contains("belongs to another tree"));
    assert!(here.leaf.has_alert("refused", "belongs to another tree"));
    there.hub.wait("told", |s| has_alert(&s.alerts, "refused", "belongs to another tree"));
    here.leaf.put([r#"{"resourceType":"Basic","id":"local"}"#.to_owned()]);
    assert_eq!(there.hub.status().entries, 0);

    // Somebody of theirs comes to our hub, and trusts it.
    let hostile = Hostile::connect(&there.leaf.dir, &here.leaf.dir, listens(&here.hub));
    let (code, text) = hostile.told();
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("belongs to another tree"), "{text}");
    here.hub.wait("told", |s| has_alert(&s.alerts, "refused", "belongs to another tree"));
}

/// A node of our tree at a node that is not its parent.
#[test]
fn a_child_of_another_parent() {
    let mut country = Country::new();
    country.leaf.stop();
    country.leaf.configure(|config| config.parent = Some(listens(&country.root).to_string()));
    country.leaf.start();
    let words = "trung-uong/ha-giang/dong-van";
    country.leaf.wait("refused", |s| has_alert(&s.alerts, "refused", words));
    country.root.wait("told", |s| has_alert(&s.alerts, "refused", words));
}

/// Somebody else answers at the parent's address for a while. When the parent is back, nothing is left to be done.
#[test]
fn a_refusal_is_no_alert_any_more_when_the_parent_lets_the_node_in() {
    let mut country = Country::new();
    let [of_root, of_hub] = [&country.root, &country.hub].map(listens);
    country.hub.stop();
    country.root.stop();
    country.root.configure(|config| config.listen = Some(of_hub));
    country.root.start();
    let dial = |leaf: &Node| {
        let _: node::admin::Synced = leaf.ask(&Request::SyncNow { wait: false, bulk: false });
    };
    dial(&country.leaf);
    country.leaf.wait("refused", |s| has_alert(&s.alerts, "refused", "trung-uong refused this node"));
    country.root.stop();
    country.root.configure(|config| config.listen = Some(of_root));
    country.root.start();
    country.hub.start();
    dial(&country.leaf);
    country.leaf.wait("let in", |s| s.up.as_ref().is_some_and(|up| up.state == "connected"));
    assert!(country.leaf.status().alerts.is_empty(), "{:?}", country.leaf.status().alerts);
}

fn enrol(dir: &TempDir, name: &str, token: &str) -> Failure {
    let folder = dir.path().join(name);
    let failure = setup::enrol(&folder, token, Some(tuyen_tests::cluster::free_address())).unwrap_err();
    assert!(!folder.join(node::config::FILE).exists(), "a refused enrolment leaves no node behind");
    failure
}

#[test]
fn tokens_that_do_not_hold() {
    let country = Country::new();
    let (hub, dir) = (&country.hub, tempfile::tempdir().unwrap());
    let refused = |name: &str, token: &str, words: &str| {
        let failure = enrol(&dir, name, token);
        assert_eq!(failure.kind, FailureKind::Refused, "{failure}");
        assert!(failure.text.contains(words), "{failure}");
        hub.wait("the operator is told", |s| has_alert(&s.alerts, "refused", words));
    };
    let used = hub.invite(Role::Leaf, "meo-vac").token;
    setup::enrol(&dir.path().join("first"), &used, None).unwrap();
    refused("second", &used, "was already used");

    let org_name = org("quan-ba");
    let expired: node::admin::Invited =
        hub.ask(&Request::Invite { role: Role::Leaf, org: org_name, expires_seconds: 0, address: None });
    refused("late", &expired.token, "this token was good until");

    let token: Token = hub.invite(Role::Leaf, "quan-ba").token.parse().unwrap();
    let other_org = Token { org: org("yen-minh"), ..token.clone() };
    refused("other-org", &other_org.to_string(), "made for quan-ba, not for yen-minh");
    let other_role = Token { role: Role::Hub, ..token.clone() };
    refused("other-role", &other_role.to_string(), "invites a leaf, not a hub");
    setup::enrol(&dir.path().join("right"), &token.to_string(), None).unwrap();

    let unknown: Token = country.root.invite(Role::Leaf, "quan-ba").token.parse().unwrap();
    let elsewhere = Token { secret: unknown.secret, ..token };
    refused("unknown", &elsewhere.to_string(), "does not know this token");

    let mut letters: Vec<char> = used.chars().collect();
    let middle = letters.len() / 2;
    letters[middle] = if letters[middle].eq_ignore_ascii_case(&'a') { 'b' } else { 'a' };
    let failure = enrol(&dir, "typo", &letters.iter().collect::<String>());
    assert_eq!(failure.kind, FailureKind::Usage, "{failure}");
    let issued = hub.status().down.len();
    assert_eq!(issued, 3, "only good tokens made children");
}

#[test]
fn a_revoked_node_loses_its_live_session_and_gets_no_other() {
    let mut country = Country::new();
    country.leaf.put([r#"{"resourceType":"Basic","id":"before"}"#.to_owned()]);
    wait_equal(&country.all(), 1);
    country.leaf.wait("connected", |s| s.up.as_ref().is_some_and(|up| up.state == "connected"));
    let revoked: Revoked = country.hub.ask(&Request::Revoke { org: org("dong-van"), reason: Reason::Lost });
    assert_eq!(revoked.nodes, [country.leaf.status().node]);
    let words = "the machine was lost";
    let refused = |leaf: &Node| {
        let status = leaf.wait("refused", |s| s.up.as_ref().is_some_and(|up| up.state == "refused"));
        assert!(status.up.unwrap().problem.unwrap().contains(words));
        assert!(leaf.has_alert("refused", words));
    };
    refused(&country.leaf);
    // It tries again and again; what people see does not change meanwhile.
    for _ in 0..50 {
        let _ = country.leaf.try_ask::<node::admin::Synced>(&Request::SyncNow { wait: false, bulk: false });
        for _ in 0..5 {
            let up = country.leaf.status().up.unwrap();
            assert_eq!(up.state, "refused");
            assert!(up.problem.unwrap().contains(words));
        }
    }
    assert!(country.hub.has_alert("refused", words), "{:?}", country.hub.status().alerts);
    country.hub.wait("away", |s| s.down.iter().all(|link| link.state == "away"));

    // Local work goes on; nothing leaves any more, after a restart either.
    country.leaf.put([r#"{"resourceType":"Basic","id":"after"}"#.to_owned()]);
    country.leaf.kill();
    country.leaf.start();
    refused(&country.leaf);
    assert_eq!(country.leaf.status().entries, 2);
    assert_eq!(country.leaf.status().not_at_hub.entries, 1);
    assert_eq!(country.hub.status().entries, 1);
    // The hub remembers across its own restart.
    country.hub.kill();
    country.hub.start();
    let contact = |node: &Node| has_alert(&node.status().alerts, "refused", words);
    let _ = country.leaf.try_ask::<node::admin::Synced>(&Request::SyncNow { wait: false, bulk: false });
    country.hub.wait("it comes again", |s| has_alert(&s.alerts, "refused", words));
    assert!(contact(&country.hub));
    assert_eq!(country.hub.status().entries, 1);
}

fn basic(id: &str) -> [String; 1] {
    [format!(r#"{{"resourceType":"Basic","id":"{id}"}}"#)]
}

/// A country whose hub alone has what the clinic wrote last, and is switched off; another machine that has taken its place at another
/// address; and a token of the old one.
fn replaced() -> (Country, Node, String) {
    let mut country = Country::new();
    country.leaf.put(basic("before"));
    country.leaf.wait_safe();
    let astray = country.hub.invite(Role::Leaf, "meo-vac").token;
    country.root.kill();
    country.leaf.put(basic("held"));
    country.leaf.wait("the hub has it", |s| s.not_at_hub.entries == 0 && s.not_at_root.entries == 1);
    country.hub.kill();
    country.root.start();
    let replace = Request::Replace {
        org: org("ha-giang"),
        node: None,
        reason: Reason::Lost,
        expires_seconds: 3600,
        address: None,
    };
    let replaced: Replaced = country.root.ask(&replace);
    let fresh = country.dir.path().join("fresh");
    setup::enrol(&fresh, &replaced.invited.token, Some(tuyen_tests::cluster::free_address())).unwrap();
    let mut fresh = Node::at(&fresh);
    fresh.start();
    (country, fresh, astray)
}

fn dial(leaf: &Node) {
    let _ = leaf.try_ask::<node::admin::Synced>(&Request::SyncNow { wait: false, bulk: false });
}

/// A hub's machine was switched off when another took its place, and is switched on again where its clinics dial. What a clinic
/// brought it would reach nobody, so nothing is taken, also from who has not heard of the other.
#[test]
fn a_revoked_hub_that_is_switched_on_again_takes_nothing() {
    let (mut country, fresh, astray) = replaced();
    country.hub.start();
    dial(&country.leaf);
    let words = "ha-giang was itself revoked, and takes nothing any more";
    let refused = |s: &node::admin::Status| {
        s.up.as_ref().is_some_and(|up| up.state == "refused" && up.problem.as_ref().unwrap().contains(words))
    };
    country.leaf.wait("the clinic is told", refused);
    let (told, taken) = (country.hub.status().up.unwrap(), country.hub.status().entries);
    assert!(told.problem.unwrap().contains("was revoked"));
    country.leaf.put(basic("after"));
    for _ in 0..20 {
        dial(&country.leaf);
        let status = country.leaf.status();
        // What it alone has is nowhere as far as the tree goes.
        assert!(refused(&status) && status.not_at_hub.entries == 2, "{status:?}");
    }
    assert_eq!((country.hub.status().entries, taken), (2, 2));
    let enrolled = setup::enrol(&country.dir.path().join("mv"), &astray, None).unwrap_err();
    assert!(enrolled.to_string().contains(words), "{enrolled}");
    let stick = country.dir.path().join("stick");
    let stick = stick.to_str().unwrap();
    tuyen(&country.leaf.dir, &["bundle", "export", "--for", "ha-giang", "--out", stick], b"").expect(0);
    let refused: [&[&str]; 3] = [
        &["bundle", "import", stick],
        &["bundle", "export", "--for", "dong-van", "--out", "none"],
        &["invite", "--role", "leaf", "--org", "yen-minh"],
    ];
    for words in refused {
        tuyen(&country.hub.dir, words, b"").expect(4).says(&["this machine was revoked", "records export"]);
    }
    // What people are told to do.
    country.leaf.stop();
    setup::enrol(&country.leaf.dir, &fresh.invite(Role::Leaf, "dong-van").token, None).unwrap();
    country.leaf.start();
    wait_equal(&[&country.leaf, &fresh, &country.root], 3);
    country.leaf.wait_safe();
}

/// The clinic has not heard that the old machine is out when it enrols at the new one, and then no line stands.
#[test]
fn what_only_a_replaced_hub_has_is_not_called_safe() {
    let (mut country, mut fresh, _) = replaced();
    assert_eq!(country.leaf.status().not_at_hub.entries, 0);
    country.leaf.stop();
    setup::enrol(&country.leaf.dir, &fresh.invite(Role::Leaf, "dong-van").token, None).unwrap();
    fresh.kill();
    country.leaf.start();
    let status = country.leaf.status();
    assert_eq!((status.not_at_hub.entries, status.not_at_root.entries), (1, 1));
    fresh.start();
    wait_equal(&[&country.leaf, &fresh, &country.root], 2);
    country.leaf.wait_safe();
}

/// The root's word comes to the hub over another of the root's links, and ends the link between hub and leaf.
fn revoked_from_afar(words: &str, revoke: impl Fn(&Country) -> Revocation) {
    let country = Country::new();
    country.leaf.put([r#"{"resourceType":"Basic","id":"before"}"#.to_owned()]);
    wait_equal(&country.all(), 1);
    let dir = tempfile::tempdir().unwrap();
    let other = enrolled(&country.root, &dir, Role::Hub, "quang-nam");
    let mut bringer = Hostile::connect(&other, &other, listens(&country.root));
    bringer.hello();
    bringer.say(&Frame::Revocations(vec![revoke(&country)]));
    let told = |s: &node::admin::Status| has_alert(&s.alerts, "refused", words);
    country.hub.wait("the hub's operator is told", told);
    let refused = |s: &node::admin::Status| s.up.as_ref().is_some_and(|up| up.state == "refused");
    let status = country.leaf.wait("the leaf is told", |s| told(s) && refused(s));
    assert!(status.up.unwrap().problem.unwrap().contains(words));
    country.hub.wait("away", |s| s.down.iter().all(|link| link.state == "away"));
    assert_eq!(country.hub.status().up.unwrap().state, "connected", "nobody else is disturbed");
    country.leaf.put([r#"{"resourceType":"Basic","id":"after"}"#.to_owned()]);
    country.hub.put([r#"{"resourceType":"Basic","id":"elsewhere"}"#.to_owned()]);
    wait_equal(&[&country.root, &country.hub], 2);
    assert_eq!(country.hub.status().entries, 2);
}

fn by_the_root(country: &Country, key: NodeId, serial: Option<Serial>, of: &Node) -> Revocation {
    let root = identity(&country.root.dir);
    sign_revocation(&root, key, serial, of.config().place, Reason::Compromised, node::clock::wall())
}

#[test]
fn a_node_revoked_from_afar_loses_its_live_session() {
    revoked_from_afar("ha-giang/dong-van was revoked", |country| {
        by_the_root(country, country.leaf.status().node, None, &country.leaf)
    });
}

#[test]
fn a_certificate_revoked_from_afar_ends_the_session_opened_with_it() {
    revoked_from_afar("ha-giang/dong-van was revoked", |country| {
        let facts = Facts::read(&identity(&country.leaf.dir).chain[0]).unwrap();
        by_the_root(country, facts.key.id(), Some(facts.serial), &country.leaf)
    });
}

#[test]
fn a_ca_revoked_from_afar_ends_the_sessions_of_whom_it_issued() {
    revoked_from_afar("the CA of trung-uong/ha-giang was revoked", |country| {
        let ca = identity(&country.hub.dir).ca.unwrap();
        by_the_root(country, ca.key.id(), None, &country.hub)
    });
}
