//! What happened in a world, a line for each event, and a hash of all lines by which two runs are compared.

use std::fmt;

use sha2::{Digest, Sha256};

/// The record of one run.
pub struct Trace {
    lines: Option<Vec<String>>,
    hasher: Option<Sha256>,
}

impl Trace {
    /// Keeps nothing: for thousands of worlds, of which only the failing ones are run again.
    pub fn off() -> Self {
        Self { lines: None, hasher: None }
    }

    /// Keeps every line.
    pub fn full() -> Self {
        Self { lines: Some(Vec::new()), hasher: Some(Sha256::new()) }
    }

    /// Adds a line, at this virtual time in milliseconds.
    pub fn line(&mut self, now: u64, who: &str, what: fmt::Arguments<'_>) {
        let Some(hasher) = &mut self.hasher else { return };
        let line = format!("{:>9}.{:03} {who:<8} {what}", now / 1000, now % 1000);
        hasher.update(line.as_bytes());
        hasher.update(b"\n");
        if let Some(lines) = &mut self.lines {
            lines.push(line);
        }
    }

    /// All lines; none unless they were kept.
    pub fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }

    /// The hash of all lines, in hexadecimal.
    pub fn hash(&self) -> String {
        let digest = self.hasher.clone().map(|hasher| hasher.finalize().to_vec()).unwrap_or_default();
        digest.iter().take(8).map(|b| format!("{b:02x}")).collect()
    }
}
