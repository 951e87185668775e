//! A crash disk under the real store: real SQLite and SQLCipher on a disk in memory that loses power and fails.
//!
//! # The disk
//!
//! [`Disk`] keeps of each file what programs see (the page cache) and what is on the medium for certain, and the
//! changes between the two in their order. What it does is no more than what POSIX allows and disks were seen to do:
//!
//! * **A write is volatile until its file is synced.** A power cut treats each sector (512 or 4,096 bytes, by the
//!   disk) that was written since on its own: it holds the last write, or an earlier one, or what was synced. So
//!   sectors are lost and reordered, within a write and among writes.
//! * **A sector may be torn:** the first bytes of a write are there and the rest is not, or the other way round, or the
//!   bytes that it changes hold anything. Bytes beside those that were written keep their value: this is the
//!   "powersafe overwrite" that SQLite's unix VFS counts on, so the drive reports it as that does.
//! * **A file's length is volatile too.** After a cut it is that of any moment since the last sync. What is within it
//!   and was not written is zeros.
//! * **A name is volatile until its directory is synced:** that a file was made, removed or renamed. Of the changes
//!   since, a journalled file system keeps the first few in their order; another one keeps any of them. Syncing a file
//!   does not keep its name. SQLite knows this: it syncs the directory with the first sync of a new journal or log,
//!   and when it removes a rollback journal in the modes that ask for it. [`Drive`] does so when the unix VFS does, for a
//!   disk without it loses what no disk does.
//! * **Power is cut between any two changes.** A cut within a write or a sync needs no case of its own: what it leaves is
//!   among what a cut just before the sync, or after the write, may leave. The index of the log (`-shm`) is memory of
//!   the process and is gone; so are all locks.
//! * **The end of a process loses nothing:** the next one finds the page cache as it was, and what was not synced still
//!   is not. That is how a kill differs from a power cut.
//! * **A failed sync** is told once. Then each of the sectors has reached the medium, or is only in the cache and counts
//!   as written, so that no later sync writes it, or has left the cache as well. Linux did and does all three, by file
//!   system and version. A directory that cannot be synced stops the file system: it takes no change any more, as
//!   ext4 and XFS do when their journal fails.
//! * **Other errors** (EIO, ENOSPC, a write that is done in part) leave all else as it is. They come once or stay until
//!   the disk is mended.
//! * **A bit may flip**, on the way to the program or on the medium for good.
//!
//! # What is tested on it
//!
//! [`run`] lives the life of a store through power cuts and checks it against the store in memory after each.
//! [`rot`] flips the bits of a log. [`errors`] lets the disk fail at every step. [`plain`] shows that cuts find the losses of weaker settings.
//!
//! A seed decides everything. What a trace does not show are the bytes of pages: the cipher draws its own chance for
//! each. They decide nothing, for a torn page is known by its checksum.

mod drive;
pub mod errors;
mod life;
mod medium;
pub mod plain;
mod reference;
pub mod rot;
mod vfs;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use drive::Drive;
pub use life::{Report, SETTING_FAULTS, insert_blank, insert_empty, refuses, refuses_to_create};
pub use medium::{Damage, Disk, Fault, Log, Planned, SettingFault, Step, Temper};

pub use crate::sim::Failure;

/// Lives the life of a seed on a sound disk.
pub fn run(drive: &Drive, seed: u64, log: &Log) -> Result<Report, Failure> {
    run_on(drive, seed, |temper| temper, log)
}

/// Lives the life of a seed on a disk of another temper.
pub fn run_on(
    drive: &Drive,
    seed: u64,
    temper: impl FnOnce(Temper) -> Temper,
    log: &Log,
) -> Result<Report, Failure> {
    let outcome = catch_unwind(AssertUnwindSafe(|| life::run(drive, seed, temper, log)));
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(Failure::new("no panic", text))
    })
}
