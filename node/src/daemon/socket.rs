//! The admin socket: one task for each CLI, one request at a time.

use std::{path::Path, sync::Arc};

use serde::Serialize;
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream, unix::OwnedWriteHalf},
    sync::{RwLock, mpsc},
};

use super::{
    Message,
    admit::Admissions,
    backup::{Backups, Part},
    core::json,
    courier::Couriers,
    renewal::Renewal,
};
use crate::admin::{self, Answer, Failure, FailureKind, LINE_MAX_BYTES, Request};

/// Listens in the node's folder. The folder's lock is held, so a socket that is there already is a leftover.
pub fn bind(dir: &Path) -> Result<UnixListener, Failure> {
    use std::os::unix::fs::PermissionsExt;
    let path = admin::socket_path(dir)?;
    let failed = |error: std::io::Error| {
        let text =
            format!("cannot listen on {}: {error}; check the folder, its owner and the disk", path.display());
        Failure::new(FailureKind::Failed, text)
    };
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(failed)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// What is done beside the core.
#[derive(Clone)]
pub struct Beside {
    pub backups: Arc<Backups>,
    pub couriers: Arc<Couriers>,
    pub admissions: Arc<Admissions>,
    pub renewal: Renewal,
}

/// Serves everybody who connects. `answering` is held for reading while somebody waits for an answer, so that a
/// process which ends can let the last answers out.
pub async fn serve(
    listener: UnixListener,
    core: mpsc::Sender<Message>,
    beside: Beside,
    answering: Arc<RwLock<()>>,
) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(converse(stream, core.clone(), beside.clone(), answering.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "admin socket");
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
        }
    }
}

async fn converse(
    stream: UnixStream,
    core: mpsc::Sender<Message>,
    beside: Beside,
    answering: Arc<RwLock<()>>,
) {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let Some(line) = next_line(&mut read).await else { return };
        let _answering = answering.read().await;
        let (answer, mut answers) = mpsc::unbounded_channel();
        match line.and_then(|line| understand(&line)) {
            Ok(Request::Backup { to }) => {
                // The core has no part in it, so that nobody waits for it.
                match hand_over(&mut write, beside.backups.start(&to)).await {
                    Ok(true) => continue,
                    _ => return,
                }
            }
            Ok(Request::BundleExport { org, since, max_bytes }) => {
                match hand_over(&mut write, beside.couriers.export(org, since, max_bytes)).await {
                    Ok(true) => continue,
                    _ => return,
                }
            }
            Ok(request @ (Request::BundleInspect { bytes } | Request::BundleImport { bytes })) => {
                let takes = matches!(request, Request::BundleImport { .. });
                match take_in(&mut read, bytes, &beside.couriers, takes).await {
                    Some(outcome) => answers = outcome,
                    None => return,
                }
            }
            Ok(Request::Admit { request }) => end(answer, beside.admissions.admit(&request).await),
            Ok(Request::RenewalRequest) => end(answer, beside.renewal.request()),
            Ok(Request::RenewalAnswer { answer: text }) => end(answer, beside.renewal.take(&text).await),
            Ok(request) => {
                if core.send(Message::Request(request, answer)).await.is_err() {
                    return;
                }
            }
            Err(failure) => end::<()>(answer, Err(failure)),
        }
        let mut ended = false;
        while let Some(part) = answers.recv().await {
            ended |= !matches!(part, Answer::Progress(_));
            if write.write_all(&line_of(&part)).await.is_err() {
                return;
            }
        }
        if !ended {
            return;
        }
    }
}

/// Answers with what was done outside the core.
fn end<T: Serialize>(answer: mpsc::UnboundedSender<Answer>, outcome: Result<T, Failure>) {
    // Whoever has gone away does not hear it.
    let _ = answer.send(match outcome {
        Ok(done) => Answer::Done(json(&done)),
        Err(failure) => Answer::Failed(failure),
    });
}

fn line_of(answer: &Answer) -> Vec<u8> {
    let mut line = serde_json::to_vec(answer).expect("answers are plain data");
    line.push(b'\n');
    line
}

/// Sends a backup as it is made; says whether it has come to an end. It is left off when nobody takes it any more.
async fn hand_over(write: &mut OwnedWriteHalf, mut parts: mpsc::Receiver<Part>) -> std::io::Result<bool> {
    let mut ended = false;
    while let Some(part) = parts.recv().await {
        match part {
            Part::Answer(answer) => {
                ended |= !matches!(answer, Answer::Progress(_));
                write.write_all(&line_of(&answer)).await?;
            }
            Part::Bytes(bytes) => {
                write.write_all(&line_of(&Answer::Bytes(bytes.len() as u64))).await?;
                write.write_all(&bytes).await?;
            }
        }
    }
    Ok(ended)
}

/// Reads the bundle behind a request and gives it to be looked at or taken; none when it does not come.
async fn take_in(
    read: &mut (impl AsyncBufRead + Unpin),
    bytes: u64,
    couriers: &Arc<Couriers>,
    takes: bool,
) -> Option<mpsc::UnboundedReceiver<Answer>> {
    let mut incoming = couriers.receive();
    let mut left = bytes;
    while left > 0 {
        let piece = read.fill_buf().await.ok().filter(|piece| !piece.is_empty())?;
        let taken = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if let Ok(file) = &mut incoming
            && let Err(failure) = tokio::task::block_in_place(|| file.keep(&piece[..taken]))
        {
            // The rest is read all the same, or nobody would hear why.
            incoming = Err(failure);
        }
        read.consume(taken);
        left -= taken as u64;
    }
    Some(match incoming {
        Ok(incoming) => couriers.import(incoming, takes),
        Err(failure) => {
            let (answer, answers) = mpsc::unbounded_channel();
            let _ = answer.send(Answer::Failed(failure));
            answers
        }
    })
}

/// The next request's line; none when there is no more. Of one that is too long nothing is kept.
async fn next_line(read: &mut (impl AsyncBufRead + Unpin)) -> Option<Result<Vec<u8>, Failure>> {
    let mut line = Vec::new();
    match (&mut *read).take(LINE_MAX_BYTES).read_until(b'\n', &mut line).await {
        Ok(n) if n > 0 && line.ends_with(b"\n") => Some(Ok(line)),
        Ok(n) if n as u64 == LINE_MAX_BYTES => {
            drop(line);
            skip_line(read).await.then(|| Err(admin::too_long()))
        }
        _ => None,
    }
}

/// Reads to the end of a line and keeps nothing; false when there is no end.
async fn skip_line(read: &mut (impl AsyncBufRead + Unpin)) -> bool {
    loop {
        let Ok(bytes) = read.fill_buf().await else { return false };
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let skipped = end.map_or(bytes.len(), |end| end + 1);
        read.consume(skipped);
        if end.is_some() || skipped == 0 {
            return end.is_some();
        }
    }
}

/// What the line asks. The parser's own words would quote the line, which may hold a record.
fn understand(line: &[u8]) -> Result<Request, Failure> {
    serde_json::from_slice(line).map_err(|error| {
        let text = format!(
            "not a request of this version (at byte {} of {}); compare `tuyen --version` with `tuyend --version`",
            error.column(),
            line.len()
        );
        Failure::new(FailureKind::Usage, text)
    })
}
