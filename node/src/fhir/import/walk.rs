//! The files of a folder, in the order of their names, folder by folder. It holds the names of the folders
//! that it stands in, and no contents. Links to folders are not followed, so that no circle catches it.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::Format;

/// A walk over a folder, or over a single file.
#[derive(Default)]
pub(super) struct Walk {
    /// The names still to visit, of each folder that the walk stands in, last first.
    folders: Vec<Vec<PathBuf>>,
    /// Whether the next path was named by the user, and is read whatever its name.
    named: bool,
}

type Unreadable = (PathBuf, io::Error);

impl Walk {
    pub fn new(path: &Path) -> Self {
        Self { folders: vec![vec![path.to_owned()]], named: true }
    }

    /// The next file to read; counts what it passes over.
    pub fn next(&mut self, passed_over: &mut u64) -> Option<Result<PathBuf, Unreadable>> {
        loop {
            let Some(path) = self.folders.last_mut()?.pop() else {
                self.folders.pop();
                continue;
            };
            let named = std::mem::take(&mut self.named);
            let is_folder = match path.metadata() {
                Ok(metadata) => metadata.is_dir(),
                Err(error) => return Some(Err((path, error))),
            };
            let wanted = if is_folder { !is_hidden(&path) && !path.is_symlink() } else { is_wanted(&path) };
            if !named && !wanted {
                *passed_over += 1;
            } else if is_folder {
                match sorted(&path) {
                    Ok(names) => self.folders.push(names),
                    Err(error) => return Some(Err((path, error))),
                }
            } else {
                return Some(Ok(path));
            }
        }
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn is_wanted(path: &Path) -> bool {
    !is_hidden(path) && Format::of(path) != Format::Unknown
}

fn sorted(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut names =
        folder.read_dir()?.map(|entry| entry.map(|e| e.path())).collect::<io::Result<Vec<_>>>()?;
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names)
}
