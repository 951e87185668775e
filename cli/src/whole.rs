//! Files that are written whole. What always holds: a file appears under its name only when all of it is on the disk,
//! nothing of one that failed is left, and none is ever overwritten. Not here: what stands in it.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

use tempfile::NamedTempFile;

use crate::output::{Stop, failed, usage};

/// What an error of writing this file means.
pub type Wrong<'a> = &'a dyn Fn(io::Error) -> Stop;

/// Writes a new file.
pub fn write<T>(to: &Path, body: impl FnOnce(&mut dyn Write, Wrong) -> Result<T, Stop>) -> Result<T, Stop> {
    let there = || usage(format!("{} is there already; name another file", to.display()));
    if to.exists() {
        return Err(there());
    }
    let wrong = |error: io::Error| {
        failed(format!("cannot write {} ({error}); check the folder, its owner and the disk", to.display()))
    };
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Its own error names a file that nobody has heard of.
    let mut file = NamedTempFile::new_in(folder).map_err(|error| wrong(error.kind().into()))?;
    let mut out = BufWriter::new(file.as_file_mut());
    let result = body(&mut out, &wrong)?;
    out.flush().map_err(wrong)?;
    drop(out);
    file.as_file().sync_all().map_err(wrong)?;
    file.persist_noclobber(to).map_err(|error| match error.error.kind() {
        io::ErrorKind::AlreadyExists => there(),
        _ => wrong(error.error),
    })?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(wrong)?;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_whole_or_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("out");
        let line = |out: &mut dyn Write, wrong: Wrong| out.write_all(b"one\n").map_err(wrong);
        let fails = |out: &mut dyn Write, _: Wrong| {
            out.write_all(b"half").unwrap();
            Err::<(), _>(failed("the daemon has gone"))
        };
        assert!(write(&to, fails).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        write(&to, line).unwrap();
        let there = write(&to, fails);
        assert!(matches!(there, Err(Stop::Failed(failure)) if failure.text.contains("is there already")));
        assert_eq!(fs::read(&to).unwrap(), b"one\n");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let nowhere = write(&dir.path().join("no/out"), line);
        assert!(matches!(nowhere, Err(Stop::Failed(failure)) if failure.text.contains("no/out")));
    }
}
