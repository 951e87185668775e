//! How a connection ends with a reason that both sides can show.
//!
//! A refusal closes the connection with the application code [`REFUSED`] plus its own number, and its text as
//! the reason. A client that refuses the server does so within the handshake, where QUIC knows no application
//! codes; there the reason begins with a mark and the number. What always holds: [`refusal_of`] reads both.

use std::time::Duration;

use quinn::{ConnectionError, VarInt};
use sync_core::identity::Refusal;

/// Closed because all is done.
pub const DONE: u32 = 0;
/// So long a node that stops lets a full line empty itself before it says so: a second of a queue, and the way there and back.
pub const LAST_WORD: Duration = Duration::from_secs(2);
/// The first of the codes that stand for refusals: [`Refusal::code`] is added to it. Codes from 1 up to here
/// belong to the session protocol.
pub const REFUSED: u32 = 0x1000;
/// Longest text of a refusal that is shown, in characters.
const TEXT_MAX_CHARS: usize = 600;
/// The mark of a refusal within a handshake.
const MARK: &str = "tuyen-refusal ";

/// Closes a connection with a refusal.
pub fn refuse(connection: &quinn::Connection, refusal: &Refusal) {
    close_with(connection, refusal.code(), &refusal.to_string());
}

pub(super) fn close_with(connection: &quinn::Connection, code: u16, text: &str) {
    connection.close(VarInt::from_u32(REFUSED + u32::from(code)), text.as_bytes());
}

/// The text of a refusal within a handshake.
pub(super) fn marked(refusal: &Refusal) -> String {
    format!("{MARK}{} {refusal}", refusal.code())
}

/// The refusal with which the other side closed, if that is how a connection ended: its number and text.
pub fn refusal_of(error: &ConnectionError) -> Option<(u16, String)> {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            let code = close.error_code.into_inner().checked_sub(u64::from(REFUSED))?;
            Some((u16::try_from(code).ok()?, shown(&String::from_utf8_lossy(&close.reason))))
        }
        ConnectionError::ConnectionClosed(close) => {
            let reason = String::from_utf8_lossy(&close.reason).into_owned();
            let (code, text) = reason.split_once(MARK)?.1.split_once(' ')?;
            Some((code.parse().ok()?, shown(text)))
        }
        _ => None,
    }
}

/// A text from outside, cut to length and without control characters.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(TEXT_MAX_CHARS).collect()
}
