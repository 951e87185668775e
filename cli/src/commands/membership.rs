//! `tuyen init` and `tuyen enrol`: how a folder becomes a node. Both work without a daemon. Not here: keys,
//! certificates and the network; see `node::setup`.

use std::{
    io::Read,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::Args;
use serde::Serialize;
use sync_core::{
    id::{NodeId, OrgId, OrgPath},
    identity::{NodeInfo, Role},
};

use super::{Context, certificates};
use crate::output::{Exit, Outcome, Stop, failed};

/// Most bytes of a token that is read from standard input.
const TOKEN_MAX_BYTES: u64 = 64 << 10;

/// Make this folder the root of a new tree
///
/// Hubs and leaves are not made with init: they enrol with a token from their parent (see `tuyen invite`).
#[derive(Args)]
#[command(
    before_help = "Example:\n  tuyen --dir root init --role root --org trung-uong --listen 0.0.0.0:7401"
)]
pub struct Init {
    /// What the node is; only a root is made in this way
    #[arg(long, default_value = "root", value_parser = role, value_name = "ROLE")]
    role: Role,
    /// The organization's short name, such as trung-uong
    #[arg(long)]
    org: OrgId,
    /// Where the node listens for its children (UDP)
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
}

/// Join a tree with a one-time token from the parent
///
/// Without a line to the parent it goes by stick: --request makes a file, `tuyen admit` at the parent makes another of it,
/// and --answer takes that. Neither file is secret.
#[derive(Args)]
#[command(
    before_help = "Example:\n  tuyen --dir dv enrol TOKEN\n  tuyen --dir hg enrol TOKEN --listen 0.0.0.0:7402\n\n  \
                   without a line:\n  tuyen --dir dv enrol TOKEN --request /media/stick/dong-van.request\n  \
                   tuyen --dir dv enrol --answer /media/stick/dong-van.answer"
)]
pub struct Enrol {
    /// The token that `tuyen invite` printed; - reads it from standard input
    #[arg(required_unless_present = "answer", conflicts_with = "answer")]
    token: Option<String>,
    /// Ask by a file for the parent; it must not exist
    #[arg(long, value_name = "FILE", conflicts_with = "answer")]
    request: Option<PathBuf>,
    /// Take the parent's answer to the request that was made here
    #[arg(long, value_name = "FILE", conflicts_with = "listen")]
    answer: Option<PathBuf>,
    /// Where a hub listens for its children (UDP); a leaf needs none
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
}

#[derive(Serialize)]
struct Made<'a> {
    node: NodeId,
    org: &'a OrgId,
    place: &'a OrgPath,
    role: Role,
    dir: String,
}

/// Reads the name of a role.
pub fn role(name: &str) -> Result<Role, String> {
    Role::from_name(name).ok_or_else(|| "a role is root, hub or leaf".into())
}

impl Init {
    /// Does it.
    pub fn run(self, context: &Context) -> Outcome {
        let made = node::setup::init(context.dir()?, self.role, self.org, self.listen)?;
        show(context, &made, "This is now the root")
    }
}

impl Enrol {
    /// Does it.
    pub fn run(self, context: &Context) -> Outcome {
        let dir = context.dir()?;
        if let Some(answer) = &self.answer {
            let text = certificates::read(answer)?;
            let made = node::setup::answer(dir, &text);
            let made = made.map_err(|failure| certificates::in_file(answer, failure))?;
            return show(context, &made, "Enrolled");
        }
        let token = match self.token {
            Some(token) if token != "-" => token,
            _ => read_token()?,
        };
        if let Some(file) = &self.request {
            return request(context, dir, token.trim(), self.listen, file);
        }
        let made = node::setup::enrol(dir, token.trim(), self.listen)?;
        show(context, &made, "Enrolled")
    }
}

#[derive(Serialize)]
struct RequestedBody<'a> {
    file: String,
    node: NodeId,
    org: &'a OrgId,
    role: Role,
    dir: String,
}

fn request(context: &Context, dir: &Path, token: &str, listen: Option<SocketAddr>, file: &Path) -> Outcome {
    let made = certificates::write(file, || {
        let made = node::setup::request(dir, token, listen)?;
        Ok((made.request.clone(), made))
    })?;
    let way = certificates::way(file, dir, "enrol");
    let (file, dir) = (file.display().to_string(), dir.display().to_string());
    let (org, role) = (&made.token.org, made.token.role);
    let text = format!(
        "{file}: the request of {org} ({role}), node {}. Carry it to the node that has made the token; there:\n{way}",
        made.node.short()
    );
    context.output.result(text, &RequestedBody { file, node: made.node, org, role, dir })?;
    Ok(Exit::Ok)
}

fn read_token() -> Result<String, Stop> {
    let mut token = String::new();
    let read = std::io::stdin().lock().take(TOKEN_MAX_BYTES).read_to_string(&mut token);
    read.map_err(|error| {
        failed(format!("cannot read a token from standard input ({error}); give it whole"))
    })?;
    Ok(token)
}

fn show(context: &Context, made: &NodeInfo, what: &str) -> Outcome {
    let dir = context.dir()?.display().to_string();
    let text = format!(
        "{what}: {} ({}), node {}.\nStart it with: tuyend --dir {dir}\n",
        made.place,
        made.role,
        made.node.short()
    );
    let body = Made { node: made.node, org: made.place.org(), place: &made.place, role: made.role, dir };
    context.output.result(text, &body)?;
    Ok(Exit::Ok)
}
