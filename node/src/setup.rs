//! Making a node: founding a root, or enrolling below a parent with a token, over a link or by files.

use std::{net::SocketAddr, path::Path};

use serde::{Deserialize, Serialize};
use sync_core::{
    id::{Lane, NodeId, OrgId, OrgPath},
    identity::{NodeInfo, Role},
    store::{Frontier, Op, Store, StoreError, StoreMut},
};

use crate::{
    admin::{self, Failure, FailureKind, Line},
    budget::Change,
    ca::{
        self, Facts, Token, TrustStore, TrustedClock,
        enrol::{self, EnrolError, Enrolled},
        file::{self, Answer, Kind},
        trust::{Fingerprint, When},
    },
    clock,
    config::{Config, ConfigError, DATABASE},
    daemon,
    keys::{Identity, IdentityFolder},
    store::{Key, SqliteStore},
    transport::{self, EnrolLinkError, LinkError},
};

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Failed, error.to_string())
}

/// Founds a tree: the root CA, its node, an empty store.
pub fn init(dir: &Path, role: Role, org: OrgId, listen: SocketAddr) -> Result<NodeInfo, Failure> {
    if role != Role::Root {
        let text = "only a root is founded; for a hub or a leaf ask its parent for a token (`tuyen invite`) \
                    and use `tuyen enrol TOKEN`";
        return Err(Failure::new(FailureKind::Usage, text));
    }
    must_be_free(dir)?;
    let folder = IdentityFolder::of_node(dir);
    // Keys that are there already are never replaced: a whole tree may hang on them.
    if folder.holds_keys() {
        let text = format!(
            "{} holds the keys of a node, and a new root would destroy them; put its config.json back, or use an empty \
             folder",
            folder.path().display()
        );
        return Err(Failure::new(FailureKind::Usage, text));
    }
    let (identity, _) = ca::found(org, clock::wall()).map_err(failed)?;
    folder.save(&identity).map_err(failed)?;
    let config = first_settings(&identity, Some(listen), None)?;
    open_or_create(dir, &config)?;
    config.save(dir).map_err(failed)?;
    info_of(&identity)
}

/// Enrols this machine below the parent that made the token. A folder that holds the node that the token is for gets
/// new certificates for it, and dials from now on where the token says, where it was answered. That is for one whose own have
/// expired, that an order has moved, of which it may not have heard, or whose parent is another machine.
pub fn enrol(dir: &Path, token: &str, listen: Option<SocketAddr>) -> Result<NodeInfo, Failure> {
    let token = parse(token)?;
    let known = known(dir, &token, listen)?;
    let _lock = known.as_ref().map(|_| daemon::lock(dir)).transpose()?;
    let stands = known.as_ref().map(|known| &known.config.place);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let folder = IdentityFolder::of_node(dir);
    let enrolled = runtime
        .block_on(transport::enrol(&token, &folder, &[], stands, clock::wall()))
        .map_err(|error| Failure::new(kind_of(&error), text_of(&error)))?;
    become_node(dir, &token, listen, &enrolled, known, true)
}

/// What a folder remembers while the answer to its request is awaited.
#[derive(Serialize, Deserialize)]
struct Awaited {
    token: String,
    listen: Option<SocketAddr>,
    /// Where the node of the folder stood.
    #[serde(default)]
    stands: Option<OrgPath>,
    /// Who had issued its certificate; see [`Known`].
    #[serde(default)]
    issuer: Option<NodeId>,
}

/// A request that was made for a stick.
#[derive(Debug)]
pub struct Requested {
    /// The node that asks.
    pub node: NodeId,
    /// What its token says.
    pub token: Token,
    /// What the file of the request holds.
    pub request: String,
}

/// Makes the request with which this machine enrols by file below the parent that made the token, and remembers what
/// is needed to take the answer. The same request is made again with the same token; with another one the answer to
/// the last one counts. A folder that holds a node is treated as [`enrol`] does, and its daemon may run.
pub fn request(dir: &Path, token: &str, listen: Option<SocketAddr>) -> Result<Requested, Failure> {
    let token = parse(token)?;
    let (stands, issuer) = match known(dir, &token, listen)? {
        Some(known) => (Some(known.config.place), known.issuer),
        None => (None, None),
    };
    let folder = IdentityFolder::of_node(dir);
    let json = enrol::ask(&token, &folder, stands.as_ref()).map_err(failed)?;
    let (key, _) = folder.keys_for_enrolment(false).map_err(failed)?;
    let awaited = Awaited { token: token.to_string(), listen, stands, issuer };
    let awaited = serde_json::to_vec(&awaited).expect("this is plain data");
    folder.save_enrolment(&awaited).map_err(failed)?;
    Ok(Requested { node: key.id(), token, request: file::write(Kind::Enrolment, &json) })
}

/// Takes the answer to the request of this folder, which is a node then. An attempt that breaks off can be made again.
pub fn answer(dir: &Path, answer: &[u8]) -> Result<NodeInfo, Failure> {
    let folder = IdentityFolder::of_node(dir);
    let Some(awaited) = folder.enrolment().map_err(failed)? else { return Err(nothing_awaited(dir)) };
    let damaged = |_| {
        let text = format!(
            "{} does not hold what it should: make the request again with `tuyen enrol TOKEN --request FILE`",
            folder.path().join("enrolment").display()
        );
        Failure::new(FailureKind::Integrity, text)
    };
    let Awaited { token, listen, stands, issuer } = serde_json::from_slice(&awaited).map_err(damaged)?;
    let token = parse(&token)?;
    let known = known(dir, &token, listen)?;
    let _lock = known.as_ref().map(|_| daemon::lock(dir)).transpose()?;
    let request = enrol::ask(&token, &folder, stands.as_ref()).map_err(failed)?;
    let response = Answer::read(answer, &request)?;
    let stands = known.as_ref().map(|known| &known.config.place);
    let enrolled = enrol::take(&token, &folder, stands, response, clock::wall())?;
    // An attempt that broke off may have left the new certificate.
    become_node(dir, &token, listen, &enrolled, known.map(|known| Known { issuer, ..known }), false)
}

fn nothing_awaited(dir: &Path) -> Failure {
    let text = match Config::load(dir) {
        Ok(config) => format!(
            "no answer is awaited here: this folder holds the node of {}, which is enrolled. An answer is taken once; that \
             to a request to renew is taken with `tuyen renew --answer FILE`",
            config.place
        ),
        Err(_) => format!(
            "no answer is awaited in {}: no request was made there; name the folder of the request, or make one with \
             `tuyen enrol TOKEN --request FILE`",
            dir.display()
        ),
    };
    Failure::new(FailureKind::Usage, text)
}

fn parse(token: &str) -> Result<Token, Failure> {
    token.parse().map_err(|e: ca::TokenError| Failure::new(FailureKind::Usage, e.to_string()))
}

/// A folder that already holds a node.
struct Known {
    config: Config,
    /// The key of its parent's CA; none below the root.
    issuer: Option<NodeId>,
}

/// What a folder holds of the node that the token is for, when nothing is asked that its settings would not show; none
/// for a folder that is free.
fn known(dir: &Path, token: &Token, listen: Option<SocketAddr>) -> Result<Option<Known>, Failure> {
    let config = match Config::load(dir) {
        Err(ConfigError::NotANode(_)) => None,
        config => Some(config.map_err(failed)?),
    };
    if let Some(config) = config {
        let identity = IdentityFolder::of_node(dir).load().map_err(failed)?;
        let known = (config.place.org(), config.role, Fingerprint::of(&identity.root));
        if known == (&token.org, token.role, token.root) && listen.is_none_or(|it| config.listen == Some(it))
        {
            return Ok(Some(Known { issuer: issuer_of(&identity), config }));
        }
        let text = format!(
            "{} already holds a node, the {} {}; this token is for the {} {}, or for another tree, or --listen says another \
             address. Ask for a token for the node that is there, or choose another folder",
            dir.display(),
            config.role,
            config.place,
            token.role,
            token.org
        );
        return Err(Failure::new(FailureKind::Usage, text));
    }
    must_be_free(dir)?;
    if token.role == Role::Hub && listen.is_none() {
        let text =
            "this token enrols a hub, which must be reachable for its children; add --listen ADDRESS:PORT";
        return Err(Failure::new(FailureKind::Usage, text));
    }
    Ok(None)
}

fn issuer_of(identity: &Identity) -> Option<NodeId> {
    let facts = identity.chain.get(1).and_then(|ca| Facts::read(ca));
    facts.map(|facts| facts.key.id())
}

/// The identity is there: the settings and the store follow, if the folder has none, and what is known of the parent. A node that
/// is known keeps the address of its parent, unless the token's has `answered`, or is that of another machine.
fn become_node(
    dir: &Path,
    token: &Token,
    listen: Option<SocketAddr>,
    enrolled: &Enrolled,
    known: Option<Known>,
    answered: bool,
) -> Result<NodeInfo, Failure> {
    let Enrolled { identity, place, parent, parent_chain, .. } = enrolled;
    let address = token.addresses.first().cloned();
    let issuer = issuer_of(identity);
    let (config, changes) = match known {
        // Its place it takes from the orders themselves, when the parent tells them.
        Some(Known { config, issuer: before }) if answered || config.place != *place || before != issuer => {
            (Config { parent: address, parent_before: None, ..config }, true)
        }
        Some(Known { config, .. }) => (config, false),
        None => (first_settings(identity, listen, address)?, true),
    };
    let mut store = open_or_create(dir, &config)?;
    daemon::keep_neighbour(&mut store, parent, parent_chain).map_err(failed)?;
    if changes {
        forget_the_parent(&mut store).map_err(failed)?;
        // Last: a folder with settings is a node.
        config.save(dir).map_err(failed)?;
    }
    IdentityFolder::of_node(dir).forget_enrolment().map_err(failed)?;
    info_of(identity)
}

/// Another machine may be the parent now: until it has said what it has, nothing counts as there that is not at the root.
fn forget_the_parent(store: &mut SqliteStore) -> Result<(), StoreError> {
    let mut batch = Vec::new();
    for lane in Lane::ALL {
        let both = (store.frontier(Frontier::Hub, lane)?, store.frontier(Frontier::Root, lane)?);
        batch.push(Op::Reach(Frontier::Hub, lane, both.0.min(both.1)));
    }
    store.commit(&batch)
}

/// Who an identity is, by its certificates.
pub(crate) fn info_of(identity: &Identity) -> Result<NodeInfo, Failure> {
    let trust = TrustStore::of(identity, TrustedClock::new(clock::wall())).map_err(failed)?;
    Ok(trust.verify_chain(&identity.chain, When::Issued).map_err(failed)?.info)
}

/// Who was refused is told so; a parent that does not answer, a folder or a disk is another matter.
fn kind_of(error: &EnrolLinkError) -> FailureKind {
    match error {
        EnrolLinkError::Enrol(EnrolError::Keys(_)) => FailureKind::Failed,
        EnrolLinkError::Link(LinkError::Refused { .. } | LinkError::RefusedByPeer { .. })
        | EnrolLinkError::Enrol(_)
        | EnrolLinkError::Refused(_) => FailureKind::Refused,
        EnrolLinkError::Link(LinkError::Silent { .. } | LinkError::Lost { .. } | LinkError::Dial { .. })
        | EnrolLinkError::BrokeOff(_) => FailureKind::Unreachable,
        _ => FailureKind::Failed,
    }
}

/// A link would be tried again; whoever enrols has to do that.
fn text_of(error: &EnrolLinkError) -> String {
    match error {
        EnrolLinkError::Link(LinkError::Silent { address, after }) => format!(
            "{address} did not answer within {} s; check the line, that the parent runs and that UDP may pass, then \
             enrol again with the same token",
            after.as_secs()
        ),
        other => other.to_string(),
    }
}

/// A folder that already holds settings is a node; one with keys only is an enrolment that broke off.
fn must_be_free(dir: &Path) -> Result<(), Failure> {
    admin::socket_path(dir)?;
    if dir.join(crate::config::FILE).exists() {
        return Err(Failure::new(FailureKind::Usage, ConfigError::Exists(dir.to_owned()).to_string()));
    }
    std::fs::create_dir_all(dir).map_err(|error| failed(ConfigError::Io { path: dir.to_owned(), error }))
}

fn first_settings(
    identity: &Identity,
    listen: Option<SocketAddr>,
    parent: Option<String>,
) -> Result<Config, Failure> {
    let info = info_of(identity)?;
    Ok(Config {
        place: info.place,
        role: info.role,
        listen,
        parent,
        parent_before: None,
        link: Default::default(),
        profiles: Vec::new(),
        policies: Vec::new(),
        budget: Default::default(),
        fetch_attachments_up_to: 0,
        paused: false,
        store_key: None,
    })
}

fn open_or_create(dir: &Path, config: &Config) -> Result<SqliteStore, Failure> {
    let (key_path, database) = (config.key_path(dir), dir.join(DATABASE));
    let key = if key_path.exists() { Key::read(&key_path) } else { new_key(&key_path) }.map_err(failed)?;
    let store = if database.exists() { SqliteStore::open } else { SqliteStore::create };
    store(&database, &key).map_err(failed)
}

/// Changes what a node that is stopped may use of its line to its parent. Nothing is counted meanwhile.
pub fn set_budget(dir: &Path, change: Change) -> Result<Line, Failure> {
    let _lock = daemon::lock(dir)?;
    let mut config = load(dir)?;
    change.apply(&mut config.budget);
    let line = line_of(&config)?;
    config.save(dir).map_err(failed)?;
    Ok(line)
}

/// What a node that is stopped may use of its line to its parent.
pub fn budget(dir: &Path) -> Result<Line, Failure> {
    line_of(&load(dir)?)
}

fn load(dir: &Path) -> Result<Config, Failure> {
    Config::load(dir).map_err(|error| match error {
        ConfigError::NotANode(_) => Failure::new(FailureKind::Refused, error.to_string()),
        _ => failed(error),
    })
}

fn line_of(config: &Config) -> Result<Line, Failure> {
    let (budget, now) = (config.budget.clone(), clock::wall());
    let Some(parent) = config.place.parent() else {
        return Err(Failure::new(FailureKind::Usage, daemon::NO_PARENT));
    };
    Ok(Line {
        parent,
        rate_kbits: budget.rate_kbits(now),
        month: budget.month(now).to_string(),
        month_bytes: None,
        bulk: None,
        budget,
    })
}

fn new_key(path: &Path) -> Result<Key, crate::store::KeyError> {
    let key = Key::generate()?;
    key.create(path)?;
    Ok(key)
}
