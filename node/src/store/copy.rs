//! A copy of the whole store while it is in use, for a backup.
//!
//! One read transaction holds one moment of the store from the first page to the last: commits go on beside it and
//! neither wait for it nor change what it sees, so the copy never has to begin again. What always holds: the copy is
//! encrypted with the store's own key, page by page, and nothing of it lies anywhere in the clear; a copy that failed
//! or was left off says nothing against the store; and a page of it that is damaged is told, because it is copied as if it were
//! not. Meanwhile the write-ahead log keeps what is committed, as with an
//! export. Not here: where the copy lies, making it durable, and removing it (`backup`).

use std::{collections::BTreeSet, path::Path};

use rusqlite::{
    Connection,
    backup::{Backup, StepResult},
};

use super::{
    Counts, Fallible, Fault, Key, OpenError, broken,
    listing::{self, Reader},
    open::create_copy,
    schema,
    setting::set_setting,
};

/// Pages that are copied at a time: 2 MB, some ten milliseconds.
const PAGES_AT_ONCE: i32 = 256;

/// What was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// What the copy holds.
    pub counts: Counts,
    /// The version of its layout.
    pub layout: i64,
    /// Whether a page of the store does not read as it was written. The copy has it as zeros.
    pub damaged: bool,
}

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The new file cannot be made.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It was left off on purpose.
    #[error("the copy of the store was left off")]
    Stopped,
    /// A page is not what was written to it.
    #[error(
        "the store could not be copied: a part of it is damaged, which no restart mends ({0}). Keep a copy of the node's folder, check \
         the disk, and restore the newest backup, or have the parent let another machine take its place (`tuyen replace`): neighbours \
         give back what they have"
    )]
    Damaged(String),
    /// A page cannot be read or written.
    #[error(
        "the store could not be copied: {reason}. Nothing was changed; check the disk's space and health"
    )]
    Sqlite {
        /// What SQLite said.
        reason: String,
        /// Whether only what is around the files is in the way.
        of_surroundings: bool,
    },
}

impl Reader {
    /// Copies the store as it is now to a new file with this key, which must be the store's own, and keeps one setting there. `step`
    /// hears how many pages of how many are copied, and says whether to go on.
    pub fn copy_to(
        &self,
        path: &Path,
        key: &Key,
        (name, value): (&str, &[u8]),
        mut step: impl FnMut(u64, u64) -> bool,
    ) -> Result<Copied, CopyError> {
        let mut to = create_copy(path, key)?;
        let run = || -> Fallible<Option<Copied>> {
            let moment = self.conn.unchecked_transaction()?;
            // The first read fixes the moment.
            let (counts, layout) = (listing::counts(&moment)?, schema::version(&moment)?);
            {
                let backup = Backup::new(&moment, &mut to)?;
                loop {
                    let outcome = backup.step(PAGES_AT_ONCE)?;
                    let progress = backup.progress();
                    let pages = |n: i32| u64::try_from(n).unwrap_or(0);
                    let (total, left) = (pages(progress.pagecount), pages(progress.remaining));
                    if !step(total.saturating_sub(left), total) {
                        return Ok(None);
                    }
                    match outcome {
                        StepResult::Done => break,
                        StepResult::More => {}
                        other => {
                            return broken(format!("the copy is held up by another program ({other:?})"));
                        }
                    }
                }
            }
            set_setting(&to, name, value)?;
            to.close().map_err(|(_, error)| Fault::from(error))?;
            Ok(Some(Copied { counts, layout, damaged: is_damaged(&moment)? }))
        };
        let copied = run().map_err(|fault| match fault.is_of_a_damaged_page() {
            true => CopyError::Damaged(fault.to_string()),
            false => {
                CopyError::Sqlite { reason: fault.to_string(), of_surroundings: fault.is_of_surroundings() }
            }
        })?;
        copied.ok_or(CopyError::Stopped)
    }
}

/// Whether the seal of a page of the file does not hold: SQLCipher gives such a page out as zeros, and a copy is sealed anew.
fn is_damaged(conn: &Connection) -> Fallible<bool> {
    let first = broken_seals(conn)?;
    // The file is read as it lies on the disk. A page that was just being written from the log holds the second time.
    Ok(!first.is_empty() && !first.is_disjoint(&broken_seals(conn)?))
}

fn broken_seals(conn: &Connection) -> Fallible<BTreeSet<String>> {
    let mut statement = conn.prepare("PRAGMA cipher_integrity_check")?;
    let pages = statement.query_map([], |row| row.get(0))?;
    Ok(pages.collect::<Result<_, _>>()?)
}
