//! `tuyen invite`, `tuyen revoke` and `tuyen replace`: how a hub or the root lets a child into the tree, puts it out again,
//! and puts another machine in its place.

use clap::Args;
use node::admin::{Invited, Replaced, Request, Revoked};
use serde::Serialize;
use sync_core::{
    id::{NodeId, OrgId, OrgPath},
    identity::{Reason, Role},
};

use super::Context;
use crate::{
    duration,
    output::{Exit, Outcome},
    render,
};

/// Print a one-time token with which a child joins
///
/// The token is printed on standard output, alone; it is shown once and works once. Give it to the child by a
/// way that others do not read.
#[derive(Args)]
#[command(before_help = "Example:\n  tuyen --dir root invite --role hub --org ha-giang --expires 7d")]
pub struct Invite {
    /// What the child will be: hub or leaf
    #[arg(long, value_parser = child_role)]
    role: Role,
    /// The child's organization
    #[arg(long)]
    org: OrgId,
    /// How long the token is good: 7d, 12h, 30min
    #[arg(long, default_value = "7d", value_parser = duration::parse, value_name = "LENGTH")]
    expires: u64,
    /// The address that the child is to dial, if it is not the one that this node listens on
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
}

/// Put a child's node out of the tree
///
/// The child's certificates are refused from now on, here and wherever the news arrives. What it sent before
/// stays. A machine that is to come back enrols again.
#[derive(Args)]
#[command(before_help = "Example:\n  tuyen --dir hg revoke dong-van --reason lost")]
pub struct Revoke {
    /// The child's organization
    org: OrgId,
    /// Why: lost, compromised, replaced, left or mistake
    #[arg(long, value_parser = reason)]
    reason: Reason,
}

/// Put a machine that is lost or will not work again out of the tree, and print a token for the one that takes its place
///
/// The old machine's certificates are refused from now on. The new one enrols with the token, into an empty folder, and is
/// sent everything that has the organization for its home. What the old machine had not sent is lost with it.
#[derive(Args)]
#[command(before_help = "Example:\n  tuyen --dir hg replace dong-van --reason lost")]
pub struct Replace {
    /// The child's organization
    org: OrgId,
    /// The machine that is lost; needed when it took the place of another itself
    #[arg(long)]
    node: Option<String>,
    /// Why: lost, compromised, replaced, left or mistake
    #[arg(long, value_parser = reason)]
    reason: Reason,
    /// How long the token is good: 7d, 12h, 30min
    #[arg(long, default_value = "7d", value_parser = duration::parse, value_name = "LENGTH")]
    expires: u64,
    /// The address that the new machine is to dial, if it is not the one that this node listens on
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
}

fn child_role(name: &str) -> Result<Role, String> {
    match Role::from_name(name) {
        Some(role @ (Role::Hub | Role::Leaf)) => Ok(role),
        _ => Err("a child is a hub or a leaf".into()),
    }
}

fn reason(name: &str) -> Result<Reason, String> {
    serde_json::from_value(name.into())
        .map_err(|_| "the reason is one of lost, compromised, replaced, left and mistake".into())
}

#[derive(Serialize)]
struct InvitedBody<'a> {
    token: &'a str,
    role: Role,
    org: &'a OrgId,
    expires_at: String,
}

#[derive(Serialize)]
struct RevokedBody<'a> {
    org: &'a OrgId,
    reason: Reason,
    nodes: &'a [NodeId],
    tokens: usize,
    elsewhere: Option<&'a OrgPath>,
}

impl Invite {
    /// Does it.
    pub fn run(self, context: &Context) -> Outcome {
        let Self { role, org, expires: expires_seconds, address } = self;
        let request = Request::Invite { role, org: org.clone(), expires_seconds, address };
        let Invited { token, expires_at } = context.call(&request)?;
        if !context.output.json {
            context.output.note(format_args!(
                "a token for {org} ({role}), good once and until {}; there: tuyen --dir DIR enrol TOKEN",
                render::local(expires_at)
            ));
        }
        let body = InvitedBody { token: &token, role, org: &org, expires_at: render::rfc3339(expires_at) };
        context.output.result(format_args!("{token}\n"), &body)?;
        Ok(Exit::Ok)
    }
}

#[derive(Serialize)]
struct ReplacedBody<'a> {
    org: &'a OrgId,
    reason: Reason,
    nodes: &'a [NodeId],
    role: Role,
    token: &'a str,
    expires_at: String,
    tokens: usize,
}

impl Replace {
    /// Does it.
    pub fn run(self, context: &Context) -> Outcome {
        let Self { org, node, reason, expires: expires_seconds, address } = self;
        let request = Request::Replace { org: org.clone(), node, reason, expires_seconds, address };
        let Replaced { nodes, role, invited: Invited { token, expires_at }, tokens } =
            context.call(&request)?;
        if !context.output.json {
            let names: Vec<String> = nodes.iter().map(NodeId::short).collect();
            let listen = if role == Role::Hub { " --listen ADDRESS:PORT" } else { "" };
            context.output.note(format_args!(
                "{org} is out, because {reason}: node {}. The token is for the new machine, good once and until {}; there, \
                 in an empty folder: tuyen --dir DIR enrol TOKEN{listen}{}",
                names.join(", "),
                render::local(expires_at),
                match tokens {
                    0 => "",
                    _ => ". A token that was made for it before is good no more: use this one alone",
                }
            ));
        }
        let expires_at = render::rfc3339(expires_at);
        let body = ReplacedBody { org: &org, reason, nodes: &nodes, role, token: &token, expires_at, tokens };
        context.output.result(format_args!("{token}\n"), &body)?;
        Ok(Exit::Ok)
    }
}

impl Revoke {
    /// Does it.
    pub fn run(self, context: &Context) -> Outcome {
        let Self { org, reason } = self;
        let Revoked { nodes, tokens, elsewhere } =
            context.call(&Request::Revoke { org: org.clone(), reason })?;
        let names: Vec<String> = nodes.iter().map(NodeId::short).collect();
        let mut text = match names.len() {
            0 => format!("{org} has no node here."),
            _ => format!("{org} is out, because {reason}: node {}.", names.join(", ")),
        };
        match tokens {
            0 => {}
            1 => text += " A token for it that nobody had used is good no more.",
            n => text += &format!(" {n} tokens for it that nobody had used are good no more."),
        }
        let body = RevokedBody { org: &org, reason, nodes: &nodes, tokens, elsewhere: elsewhere.as_ref() };
        context.output.result(text + "\n", &body)?;
        let Some(stands) = elsewhere else { return Ok(Exit::Ok) };
        context.output.note(format_args!(
            "{org} stands at {stands} by now, and what it has been given there is as good as before: have it revoked there, or \
             it goes on syncing"
        ));
        Ok(Exit::Attention)
    }
}
