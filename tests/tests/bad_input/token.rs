//! Tokens that are not whole, and parents that do not answer.

use sync_core::identity::Role;
use tuyen_tests::run::tuyen;

use crate::before::Before;

#[test]
fn a_token_with_one_letter_changed_changes_nothing() {
    let before = Before::new();
    let token = before.node.invite(Role::Leaf, "dong-van").token;
    let folder = before.dir.path().join("leaf");
    let at = token.len() - 20;
    let other = if &token[at..=at] == "q" { "r" } else { "q" };
    let changed = [&token[..at], other, &token[at + 1..]].concat();
    for (wrong, words) in
        [(changed.as_str(), "does not"), ("hello", "token"), (&token[..token.len() / 2], "token")]
    {
        let ran = tuyen(&folder, &["enrol", wrong], b"").expect(2).says(&[words]);
        assert!(!ran.err.contains(&wrong[wrong.len() / 2..]), "the token is a secret: {ran:#?}");
        assert!(!folder.exists(), "nothing was made");
    }
    tuyen(&folder, &["enrol", &token], b"").expect(0);
    let used = tuyen(&before.dir.path().join("other"), &["enrol", &token], b"").expect(4);
    used.says(&["used"]);
    before.is_still_there(&[]);
}

#[test]
fn enrolling_where_nobody_answers_can_be_repeated() {
    let mut before = Before::new();
    let token = before.node.invite(Role::Leaf, "dong-van").token;
    before.node.stop();
    let folder = before.dir.path().join("leaf");
    let closed = tuyen(&folder, &["enrol", &token], b"");
    // Nothing tells a dead address from a slow one before the handshake's time is over.
    let closed = closed.expect(3);
    assert!(closed.err.contains("did not answer") || closed.err.contains("ended"), "{closed:#?}");
    before.node.start();
    tuyen(&folder, &["enrol", &token], b"").expect(0);
    before.is_still_there(&[]);
}

#[test]
fn a_token_never_carries_an_address_that_nobody_can_dial() {
    let mut before = Before::new();
    before.node.stop();
    let port = before.node.config().listen.expect("a root listens").port();
    before.node.configure(|config| config.listen = Some(([0, 0, 0, 0], port).into()));
    before.node.start();
    let arguments = ["invite", "--role", "leaf", "--org", "dong-van"];
    let words = ["listens on 0.0.0.0", "--address HOST:"];
    let refused = tuyen(&before.node.dir, &arguments, b"").expect(2).says(&words);
    let address = format!("127.0.0.1:{port}");
    let token =
        tuyen(&before.node.dir, &[&arguments[..], &["--address", &address]].concat(), b"").expect(0).out;
    tuyen(&before.dir.path().join("leaf"), &["enrol", token.trim()], b"").expect(0);
    before.is_still_there(&[&refused]);
}
