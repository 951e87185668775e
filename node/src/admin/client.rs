//! The CLI's end of the socket.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
};

use serde::de::DeserializeOwned;

use super::{Answer, Failure, FailureKind, LINE_MAX_BYTES, Progress, Request, socket_path, too_long};

/// A blocking connection to the daemon of a folder.
pub struct Client {
    lines: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the daemon of a folder.
    pub fn connect(dir: &Path) -> Result<Self, Failure> {
        if !dir.join(crate::config::FILE).exists() {
            let text = format!(
                "{} is not a node's folder; make one with `tuyen --dir {0} init` or `enrol`",
                dir.display()
            );
            return Err(Failure::new(FailureKind::Refused, text));
        }
        let stream = UnixStream::connect(socket_path(dir)?).map_err(|error| {
            let text = format!(
                "no daemon answers in {0} ({error}); start it with `tuyend --dir {0}`",
                dir.display()
            );
            Failure::new(FailureKind::Unreachable, text)
        })?;
        Ok(Self { lines: BufReader::new(stream) })
    }

    /// Sends a request and waits for its answer.
    pub fn call<T: DeserializeOwned>(
        &mut self,
        request: &Request,
        progress: impl FnMut(Progress),
    ) -> Result<T, Failure> {
        self.receive(request, progress, |_| Ok(()))
    }

    /// Sends a request and waits for its answer. What comes as bytes goes to `keep`, piece by piece.
    pub fn receive<T: DeserializeOwned>(
        &mut self,
        request: &Request,
        progress: impl FnMut(Progress),
        keep: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<T, Failure> {
        self.write(request)?;
        self.answer(progress, keep)
    }

    /// Sends a request with so many bytes behind it as it says, and waits for its answer.
    pub fn send<T: DeserializeOwned>(
        &mut self,
        request: &Request,
        mut bytes: impl FnMut() -> Result<Option<Vec<u8>>, Failure>,
        progress: impl FnMut(Progress),
    ) -> Result<T, Failure> {
        self.write(request)?;
        while let Some(piece) = bytes()? {
            if self.lines.get_mut().write_all(&piece).is_err() {
                // Whoever takes no more has said why.
                break;
            }
        }
        self.answer(progress, |_| Ok(()))
    }

    fn write(&mut self, request: &Request) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(request).map_err(|error| lost(&error))?;
        line.push(b'\n');
        if line.len() as u64 > LINE_MAX_BYTES {
            return Err(too_long());
        }
        self.lines.get_mut().write_all(&line).map_err(|error| lost(&error))
    }

    fn answer<T: DeserializeOwned>(
        &mut self,
        mut progress: impl FnMut(Progress),
        mut keep: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<T, Failure> {
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).map_err(|error| lost(&error))? == 0 {
                return Err(lost(&"it closed the connection"));
            }
            match serde_json::from_str(&line).map_err(|error| lost(&error))? {
                Answer::Progress(step) => progress(step),
                Answer::Bytes(bytes) => {
                    let mut left = usize::try_from(bytes).unwrap_or(usize::MAX);
                    while left > 0 {
                        let piece = self.lines.fill_buf().map_err(|error| lost(&error))?;
                        if piece.is_empty() {
                            return Err(lost(&"it closed the connection"));
                        }
                        let taken = piece.len().min(left);
                        keep(&piece[..taken])?;
                        self.lines.consume(taken);
                        left -= taken;
                    }
                }
                Answer::Done(value) => {
                    return serde_json::from_str(value.get()).map_err(|error| lost(&error));
                }
                Answer::Failed(failure) => return Err(failure),
            }
        }
    }
}

/// Said when the connection to the daemon ends before its answer.
fn lost(error: &dyn std::fmt::Display) -> Failure {
    let text = format!("the daemon went away ({error}); see its log, and try again");
    Failure::new(FailureKind::Unreachable, text)
}
