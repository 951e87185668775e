//! `tuyen sync`: sync at once, pause and resume.

use clap::Subcommand;
use node::admin::{Failure, FailureKind, Peers, Request, Synced};
use serde::Serialize;

use super::{Context, status::UnsafeBody};
use crate::{
    output::{Exit, Outcome, Stop},
    render::{age, many},
};

/// When to sync.
#[derive(Subcommand)]
pub enum Command {
    /// Dial the parent at once
    ///
    /// With --wait, the command ends when everything that was written before is durable at the parent, or
    /// fails when the parent cannot be reached (exit code 1) or refuses this node (exit code 4).
    #[command(before_help = "Example:\n  tuyen --dir dv sync now --wait")]
    Now {
        /// Wait until everything written before is durable at the parent
        #[arg(long)]
        wait: bool,
    },
    /// End the link to the parent and refuse children, until resumed; also across restarts
    #[command(before_help = "Example:\n  tuyen --dir dv sync pause")]
    Pause,
    /// Sync again after a pause
    #[command(before_help = "Example:\n  tuyen --dir dv sync resume")]
    Resume,
}

#[derive(Serialize)]
struct SyncedBody<'a> {
    paused: bool,
    connected: bool,
    not_at_hub: UnsafeBody<'a>,
    not_at_root: UnsafeBody<'a>,
}

impl Command {
    /// Does it.
    pub fn run(self, context: &Context) -> Outcome {
        let (request, wait) = match self {
            Command::Now { wait } => (Request::SyncNow { wait }, wait),
            Command::Pause => (Request::SyncPause, false),
            Command::Resume => (Request::SyncResume, false),
        };
        let synced: Synced = context.call(&request)?;
        if wait && !synced.connected {
            return Err(not_reached(context, synced.paused));
        }
        let body = SyncedBody {
            paused: synced.paused,
            connected: synced.connected,
            not_at_hub: UnsafeBody::new(&synced.not_at_hub),
            not_at_root: UnsafeBody::new(&synced.not_at_root),
        };
        context.output.result(text(&synced), &body)?;
        Ok(Exit::Ok)
    }
}

fn text(synced: &Synced) -> String {
    let entries = synced.not_at_hub.entries;
    let waits = synced
        .not_at_hub
        .oldest_seconds
        .map_or(String::new(), |s| format!("; the oldest has waited {}", age(s)));
    let left = many(entries, "entry is", "entries are");
    match (synced.paused, synced.connected, entries) {
        (true, _, 0) => "Syncing is paused. `tuyen sync resume` starts it again.\n".into(),
        (true, _, _) => format!("Syncing is paused. {left} not yet at the parent{waits}.\n"),
        (false, true, 0) => "In sync: the parent has everything of this node.\n".into(),
        (false, true, _) => format!("Connected. {left} not yet at the parent{waits}.\n"),
        (false, false, 0) => "Dialling the parent. It has everything that this node wrote.\n".into(),
        (false, false, _) => format!("Dialling the parent. {left} not yet there{waits}.\n"),
    }
}

/// Why the parent could not be reached, with what to do.
fn not_reached(context: &Context, paused: bool) -> Stop {
    if paused {
        let text = "nothing was sent, because syncing is paused; start it again with `tuyen sync resume`";
        return Failure::new(FailureKind::Failed, text).into();
    }
    let peers = context.call::<Peers>(&Request::Peers).map(|answer| answer.peers).unwrap_or_default();
    let up = peers.first();
    let refused = up.is_some_and(|link| link.state == "refused");
    let why = up.and_then(|link| link.problem.clone()).unwrap_or_else(|| "it does not answer".into());
    let (kind, what) = if refused {
        (FailureKind::Refused, "the parent refuses this node")
    } else {
        (FailureKind::Failed, "the parent cannot be reached")
    };
    let text = format!("{what} ({why}); nothing is lost, and it will be sent when the link is back");
    Failure::new(kind, text).into()
}

#[cfg(test)]
mod tests {
    use node::admin::Unsafe;

    use super::*;

    #[test]
    fn the_text_says_what_is_left() {
        let mut synced = Synced {
            paused: false,
            connected: true,
            not_at_hub: Unsafe::default(),
            not_at_root: Unsafe::default(),
        };
        assert_eq!(text(&synced), "In sync: the parent has everything of this node.\n");
        synced.not_at_hub = Unsafe { entries: 37, oldest_seconds: Some(10_800) };
        assert_eq!(
            text(&synced),
            "Connected. 37 entries are not yet at the parent; the oldest has waited 3 h.\n"
        );
        synced.paused = true;
        assert!(text(&synced).starts_with("Syncing is paused. 37 entries"));
    }
}
