//! The admin socket: one task for each CLI, one request at a time.

use std::path::Path;

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::mpsc,
};

use super::Message;
use crate::admin::{Answer, Failure, FailureKind, LINE_MAX_BYTES, SOCKET};

/// Listens in the node's folder. The folder's lock is held, so a socket that is there already is a leftover.
pub fn bind(dir: &Path) -> Result<UnixListener, Failure> {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.join(SOCKET);
    let failed = |error: std::io::Error| {
        let text = format!(
            "cannot listen on {}: {error}; a path of more than 107 bytes is too long for a socket, and the folder \
             must be writable",
            path.display()
        );
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

/// Serves everybody who connects.
pub async fn serve(listener: UnixListener, core: mpsc::Sender<Message>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(converse(stream, core.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "admin socket");
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
        }
    }
}

async fn converse(stream: UnixStream, core: mpsc::Sender<Message>) {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = Vec::new();
        match (&mut read).take(LINE_MAX_BYTES).read_until(b'\n', &mut line).await {
            Ok(n) if n > 0 && line.ends_with(b"\n") => {}
            _ => return,
        }
        let (answer, mut answers) = mpsc::unbounded_channel();
        match serde_json::from_slice(&line) {
            Ok(request) => {
                if core.send(Message::Request(request, answer)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                let text = format!(
                    "not a request of this version ({error}); compare `tuyen --version` with tuyend's"
                );
                let _ = answer.send(Answer::Failed(Failure::new(FailureKind::Usage, text)));
            }
        }
        let mut ended = false;
        while let Some(part) = answers.recv().await {
            ended |= !matches!(part, Answer::Progress(_));
            let mut bytes = serde_json::to_vec(&part).expect("answers are plain data");
            bytes.push(b'\n');
            if write.write_all(&bytes).await.is_err() {
                return;
            }
        }
        if !ended {
            return;
        }
    }
}
