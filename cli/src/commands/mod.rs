//! The commands, a file for each noun, and what they share: the node's folder, its daemon, and who writes.

pub mod attachment;
pub mod backup;
pub mod bundle;
pub mod certificates;
pub mod children;
pub mod conflicts;
pub mod daemon;
pub mod demo;
pub mod export;
pub mod grant;
pub mod history;
pub mod import;
pub mod link;
pub mod links;
pub mod membership;
pub mod org;
pub mod outages;
pub mod records;
pub mod scope;
pub mod status;
pub mod sync;
pub mod verify;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use node::admin::{Client, Request};
use serde::de::DeserializeOwned;

use crate::output::{Meter, Outcome, Output, Stop, usage};

/// What every command is given.
pub struct Context {
    /// The node's folder, if one was named.
    pub dir: Option<PathBuf>,
    /// Where the words go.
    pub output: Output,
}

impl Context {
    /// The node's folder.
    pub fn dir(&self) -> Result<&Path, Stop> {
        self.dir.as_deref().ok_or_else(|| {
            usage("no node is named, and there may be several on a machine; add --dir DIR, or set TUYEN_DIR")
        })
    }

    /// A connection to the daemon of the node's folder.
    pub fn client(&self) -> Result<Client, Stop> {
        Ok(Client::connect(self.dir()?)?)
    }

    /// Asks the daemon one thing, showing progress if it takes long.
    pub fn call<T: DeserializeOwned>(&self, request: &Request) -> Result<T, Stop> {
        let mut meter = Meter::new();
        Ok(self.client()?.call(request, |step| meter.show(&step))?)
    }
}

/// Who writes, and why.
#[derive(Args, Clone)]
pub struct Writer {
    /// Who writes; kept in the record's history. Your user name if not given
    #[arg(long, env = "TUYEN_BY", hide_env_values = true, value_name = "NAME")]
    pub by: Option<String>,
}

impl Writer {
    /// The name that goes into the history.
    pub fn name(&self) -> Option<String> {
        let user = || std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).ok();
        self.by.clone().or_else(user).filter(|name| !name.is_empty())
    }
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    Init(membership::Init),
    Invite(children::Invite),
    Enrol(membership::Enrol),
    Admit(certificates::Admit),
    Renew(certificates::Renew),
    Revoke(children::Revoke),
    Replace(children::Replace),
    /// Rearrange the tree: move, split, merge and close organizations
    #[command(
        subcommand,
        before_help = "Example:\n  tuyen --dir root org list\n  \
                       tuyen --dir root org merge ha-giang --into tuyen-quang --address 10.2.0.1:7401 \\\n    \
                       --effective 2027-01-01 --dry-run"
    )]
    Org(org::Command),
    /// Import, read, write and delete records
    #[command(
        subcommand,
        before_help = "Example:\n  tuyen --dir dv records import patients.ndjson\n  \
                       tuyen --dir dv records get Patient/8f21"
    )]
    Records(records::Command),
    /// List the files that are attached to records, and write them to disk
    #[command(
        subcommand,
        before_help = "Example:\n  tuyen --dir dv attachment list DocumentReference/8f21\n  \
                       tuyen --dir dv attachment fetch DocumentReference/8f21 --out x-ray.dcm"
    )]
    Attachment(attachment::Command),
    Status(status::Status),
    Peers(links::Peers),
    Outages(outages::Outages),
    /// What may be used of the line to the parent: metered lines, rates, a monthly cap
    #[command(
        subcommand,
        before_help = "Example:\n  tuyen --dir dv link show\n  \
                       tuyen --dir dv link set --metered yes --bulk-window 22:00-05:00"
    )]
    Link(link::Command),
    /// Sync at once, pause, resume
    #[command(subcommand, before_help = "Example:\n  tuyen --dir dv sync now --wait")]
    Sync(sync::Command),
    /// See and settle where people disagreed
    #[command(
        subcommand,
        before_help = "Example:\n  tuyen --dir hg conflicts list\n  \
                       tuyen --dir hg conflicts resolve Patient/8f21 birthDate --take 2 --why \"asked the patient\""
    )]
    Conflicts(conflicts::Command),
    /// Open a patient's records to another organization for a time
    #[command(
        subcommand,
        before_help = "Example:\n  tuyen --dir dv grant give Patient/8f21 --to quan-ba --for 30d --why \"referred for surgery\"\n  \
                       tuyen --dir dv grant list"
    )]
    Grant(grant::Command),
    /// Why something is or is not at a place
    #[command(subcommand, before_help = "Example:\n  tuyen --dir hg scope explain Patient/8f21")]
    Scope(scope::Command),
    /// Make, check and restore backups of a node
    #[command(
        subcommand,
        before_help = "Example:\n  tuyen backup keygen --out province.key\n  \
                       tuyen --dir dv backup create --to age1... --out dv-2026-11-28.tuyen-backup\n  \
                       tuyen backup verify dv-2026-11-28.tuyen-backup --key province.key"
    )]
    Backup(backup::Command),
    /// Sync with a neighbour by a stick, without a line
    #[command(
        subcommand,
        before_help = "Example:\n  tuyen --dir dv bundle export --for ha-giang --out /media/stick/dv-1.bundle\n  \
                       tuyen --dir hg bundle import /media/stick/dv-1.bundle"
    )]
    Bundle(bundle::Command),
    Verify(verify::Verify),
    Daemon(daemon::Daemon),
    Demo(demo::Demo),
}

impl Command {
    /// Does it.
    pub fn run(self, context: &Context) -> Outcome {
        match self {
            Command::Init(command) => command.run(context),
            Command::Invite(command) => command.run(context),
            Command::Enrol(command) => command.run(context),
            Command::Admit(command) => command.run(context),
            Command::Renew(command) => command.run(context),
            Command::Revoke(command) => command.run(context),
            Command::Replace(command) => command.run(context),
            Command::Org(command) => command.run(context),
            Command::Records(command) => command.run(context),
            Command::Attachment(command) => command.run(context),
            Command::Status(command) => command.run(context),
            Command::Peers(command) => command.run(context),
            Command::Outages(command) => command.run(context),
            Command::Link(command) => command.run(context),
            Command::Sync(command) => command.run(context),
            Command::Conflicts(command) => command.run(context),
            Command::Grant(command) => command.run(context),
            Command::Scope(command) => command.run(context),
            Command::Backup(command) => command.run(context),
            Command::Bundle(command) => command.run(context),
            Command::Verify(command) => command.run(context),
            Command::Daemon(command) => command.run(context),
            Command::Demo(command) => command.run(context),
        }
    }
}
