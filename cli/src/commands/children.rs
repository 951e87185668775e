//! `tuyen invite` and `tuyen revoke`: how a hub or the root lets a child into the tree and puts it out again.

use clap::Args;
use node::admin::{Invited, Request, Revoked};
use serde::Serialize;
use sync_core::{
    id::{NodeId, OrgId},
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

impl Revoke {
    /// Does it.
    pub fn run(self, context: &Context) -> Outcome {
        let Self { org, reason } = self;
        let Revoked { nodes } = context.call(&Request::Revoke { org: org.clone(), reason })?;
        let names: Vec<String> = nodes.iter().map(NodeId::short).collect();
        let text = match names.len() {
            0 => format!("{org} has no node whose certificate is still good.\n"),
            _ => format!("{org} is out, because {reason}: node {}.\n", names.join(", ")),
        };
        context.output.result(text, &RevokedBody { org: &org, reason, nodes: &nodes })?;
        Ok(Exit::Ok)
    }
}
