//! `tuyen sync`: sync at once, pause and resume.

use clap::Subcommand;
use node::admin::{Contents, Failure, FailureKind, Peers, Request, Synced};
use serde::Serialize;

use super::{
    Context,
    link::{self, WaitingBody},
    status::{self, UnsafeBody},
};
use crate::{
    output::{Exit, Outcome, Stop},
    render::{age, many},
};

/// When to sync.
#[derive(Subcommand)]
pub enum Command {
    /// Dial the parent at once
    ///
    /// With --wait, the command ends when everything that was written before is durable at the parent, attachments too, or
    /// fails when the parent cannot be reached (exit code 1) or refuses this node (exit code 4). Bulk that waits for its
    /// time is not waited for; then the exit code is 5. With --bulk it does not wait, this once.
    #[command(
        before_help = "Example:\n  tuyen --dir dv sync now --wait\n  tuyen --dir dv sync now --wait --bulk"
    )]
    Now {
        /// Wait until everything written before is durable at the parent
        #[arg(long)]
        wait: bool,
        /// Let bulk through once, whatever it waits for
        #[arg(long)]
        bulk: bool,
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
    secret: u64,
    attachments: Contents,
    bulk: Option<WaitingBody>,
    in_doubt: bool,
}

impl Command {
    /// Does it.
    pub fn run(self, context: &Context) -> Outcome {
        let (request, wait) = match self {
            Command::Now { wait, bulk } => (Request::SyncNow { wait, bulk }, wait),
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
            secret: synced.secret,
            attachments: synced.attachments,
            bulk: synced.bulk.as_ref().map(WaitingBody::new),
            in_doubt: synced.in_doubt,
        };
        let words = match (&request, synced.root) {
            (Request::SyncResume, true) => "Children are let in again.\n".to_owned(),
            _ => text(&synced),
        };
        context.output.result(words, &body)?;
        // Whoever waited for all of it has to hear that it is not.
        let waits = wait && synced.bulk.is_some_and(|waiting| waiting.entries + waiting.attachments > 0);
        Ok(if waits { Exit::Attention } else { Exit::Ok })
    }
}

fn text(synced: &Synced) -> String {
    let entries = synced.not_at_hub.entries;
    let waits = synced
        .not_at_hub
        .oldest_seconds
        .map_or(String::new(), |s| format!("; the oldest has waited {}", age(s)));
    let files = synced.attachments.not_at_hub;
    let sized = link::attachments(files, synced.attachments.not_at_hub_bytes);
    let left = match (entries, files) {
        (_, 0) => many(entries, "entry is", "entries are"),
        (0, 1) => format!("{sized} is"),
        (0, _) => format!("{sized} are"),
        _ => format!("{} and {sized} are", many(entries, "entry", "entries")),
    };
    let secret = match synced.secret {
        0 => String::new(),
        n => format!(
            " but {} only as far as profiles allow",
            many(n, "secret record, which goes", "secret records, which go")
        ),
    };
    let base: String = match (synced.paused, synced.connected, entries + files) {
        (true, _, _) if synced.root => {
            "Syncing is paused: no child is let in. `tuyen sync resume` ends that.\n".into()
        }
        (true, _, 0) => "Syncing is paused. `tuyen sync resume` starts it again.\n".into(),
        (true, _, _) => format!("Syncing is paused. {left} not yet at the parent{waits}.\n"),
        (false, _, _) if synced.root => {
            "This is the root: it has no parent, and its children dial it.\n".into()
        }
        (false, true, 0) => format!("In sync: the parent has everything of this node{secret}.\n"),
        (false, true, _) => format!("Connected. {left} not yet at the parent{waits}.\n"),
        (false, false, 0) => {
            format!("Dialling the parent. It has everything that this node wrote{secret}.\n")
        }
        (false, false, _) => format!("Dialling the parent. {left} not yet there{waits}.\n"),
    };
    let doubt = if synced.in_doubt { status::put_back("parent") + "\n" } else { String::new() };
    let bulk = synced.bulk.as_ref().and_then(link::waits);
    let bulk = bulk.map_or(String::new(), |words| {
        format!("{words}; all else goes on. `tuyen sync now --bulk` lets it through once.\n")
    });
    base + &doubt + &bulk
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
    use node::{
        admin::{Unsafe, Waiting},
        budget::{Offset, Why},
    };

    use super::*;

    #[test]
    fn the_text_says_what_is_left() {
        let mut synced = Synced {
            paused: false,
            connected: true,
            root: false,
            secret: 0,
            not_at_hub: Unsafe::default(),
            not_at_root: Unsafe::default(),
            attachments: Contents::default(),
            bulk: None,
            in_doubt: false,
        };
        assert_eq!(text(&synced), "In sync: the parent has everything of this node.\n");
        let but = "In sync: the parent has everything of this node but 3 secret records, which go only as far as profiles allow.\n";
        assert_eq!(text(&Synced { secret: 3, ..synced }), but);
        let root = text(&Synced { root: true, ..synced });
        assert_eq!(root, "This is the root: it has no parent, and its children dial it.\n");
        synced.not_at_hub = Unsafe { entries: 37, oldest_seconds: Some(10_800) };
        assert_eq!(
            text(&synced),
            "Connected. 37 entries are not yet at the parent; the oldest has waited 3 h.\n"
        );
        let put_back = text(&Synced { in_doubt: true, ..synced });
        let why = "\nThis machine was put back to an older copy: what it has is being compared with what the parent has, and counts as \
                   safe when that is done.\n";
        assert!(
            put_back.starts_with("Connected. 37 entries are not") && put_back.ends_with(why),
            "{put_back}"
        );
        let night = Waiting {
            entries: 35,
            attachments: 0,
            attachment_bytes: 0,
            until: 1_795_964_400_000,
            why: Why::Window,
            utc_offset: Offset::VIETNAM,
        };
        synced.bulk = Some(night);
        let waits = "35 entries of bulk wait until 2026-11-29 22:00, because the line is metered; all else goes on. \
                     `tuyen sync now --bulk` lets it through once.\n";
        assert!(text(&synced).ends_with(waits), "{}", text(&synced));
        synced.bulk = Some(Waiting { entries: 0, ..night });
        assert!(!text(&synced).contains("bulk"), "nothing waits");
        synced.bulk = Some(Waiting { entries: 0, attachments: 1, attachment_bytes: 3_000_000, ..night });
        assert!(text(&synced).contains("\n1 attachment (3.0 MB) waits until 2026-11-29 22:00, because"));
        let file = Contents { not_at_hub: 1, not_at_hub_bytes: 3_000_000, ..Contents::default() };
        let all = Unsafe::default();
        let only = text(&Synced { attachments: file, not_at_hub: all, bulk: None, ..synced });
        assert_eq!(only, "Connected. 1 attachment (3.0 MB) is not yet at the parent.\n");
        synced.attachments = file;
        synced.paused = true;
        assert!(
            text(&synced).starts_with("Syncing is paused. 37 entries and 1 attachment (3.0 MB) are not yet")
        );
    }
}
