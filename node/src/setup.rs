//! Making a node: founding a root, or enrolling below a parent with a token.

use std::{fs::File, net::SocketAddr, path::Path};

use sync_core::{
    id::OrgId,
    identity::{NodeInfo, Role},
};

use crate::{
    admin::{self, Failure, FailureKind, Line},
    budget::Change,
    ca::{
        self, Token, TrustStore, TrustedClock,
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
    finish(dir, &identity, Some(listen), None)
}

/// Enrols this machine below the parent that made the token. A folder that holds the node that the token is for gets
/// new certificates for it, and is otherwise left as it is: that is for one whose own have expired.
pub fn enrol(dir: &Path, token: &str, listen: Option<SocketAddr>) -> Result<NodeInfo, Failure> {
    let token: Token =
        token.parse().map_err(|e: ca::TokenError| Failure::new(FailureKind::Usage, e.to_string()))?;
    let known = lock_of_known(dir, &token, listen)?;
    let stands = known.as_ref().map(|_| load(dir)).transpose()?.map(|config| config.place);
    if token.role == Role::Hub && listen.is_none() && known.is_none() {
        let text =
            "this token enrols a hub, which must be reachable for its children; add --listen ADDRESS:PORT";
        return Err(Failure::new(FailureKind::Usage, text));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let folder = IdentityFolder::of_node(dir);
    let identity = runtime
        .block_on(transport::enrol(&token, &folder, &[], stands.as_ref(), clock::wall()))
        .map_err(|error| Failure::new(kind_of(&error), text_of(&error)))?;
    if known.is_some() {
        return info_of(&identity);
    }
    finish(dir, &identity, listen, token.addresses.first().cloned())
}

/// The lock of a folder that already holds the node that the token is for, with nothing that its settings would not
/// show; none for a folder that is free.
fn lock_of_known(dir: &Path, token: &Token, listen: Option<SocketAddr>) -> Result<Option<File>, Failure> {
    let config = match Config::load(dir) {
        Err(ConfigError::NotANode(_)) => return must_be_free(dir).map(|()| None),
        config => config.map_err(failed)?,
    };
    let root = IdentityFolder::of_node(dir).load().map_err(failed)?.root;
    let known = (config.place.org(), config.role, Fingerprint::of(&root));
    if known != (&token.org, token.role, token.root) || listen.is_some() {
        return must_be_free(dir).map(|()| None);
    }
    daemon::lock(dir).map(Some)
}

/// Who an identity is, by its certificates.
pub(crate) fn info_of(identity: &Identity) -> Result<NodeInfo, Failure> {
    let trust = TrustStore::of(identity, TrustedClock::new(clock::wall())).map_err(failed)?;
    Ok(trust.verify_chain(&identity.chain, When::Issued).map_err(failed)?.info)
}

/// Who was refused is told so; a parent that does not answer, a folder or a disk is another matter.
fn kind_of(error: &EnrolLinkError) -> FailureKind {
    match error {
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

fn finish(
    dir: &Path,
    identity: &Identity,
    listen: Option<SocketAddr>,
    parent: Option<String>,
) -> Result<NodeInfo, Failure> {
    let info = info_of(identity)?;
    let config = Config {
        place: info.place.clone(),
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
    };
    let (key_path, database) = (config.key_path(dir), dir.join(DATABASE));
    if !database.exists() {
        let key =
            if key_path.exists() { Key::read(&key_path) } else { new_key(&key_path) }.map_err(failed)?;
        SqliteStore::create(&database, &key).map_err(failed)?;
    }
    config.save(dir).map_err(failed)?;
    Ok(info)
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
