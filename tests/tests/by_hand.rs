//! What an operator types, from an empty folder to a settled conflict, with the programs as they are installed.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tuyen_tests::cluster::{Node, free_address, program, wait_equal};

const PATIENT: &str = r#"{"resourceType":"Patient","id":"a","birthDate":"1970-01-01","gender":"male"}"#;

/// A terminal in the folder above the nodes' folders.
struct Terminal(PathBuf);

impl Terminal {
    /// Types `tuyen` with these words, and this on its standard input.
    fn pipe(&self, words: &[&str], input: &str) -> Output {
        let mut child = Command::new(program("tuyen"))
            .args(words)
            .env_remove("TUYEN_DIR")
            .env("TUYEN_BY", "bs. Lan")
            .current_dir(&self.0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that reads nothing may have ended already.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    /// Types it, and gives the exit code and what it said on both streams.
    fn code(&self, words: &[&str]) -> (Option<i32>, String) {
        let output = self.pipe(words, "");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    }

    /// Types it, and expects success; gives its standard output.
    fn run(&self, words: &[&str]) -> String {
        let output = self.pipe(words, "");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same with `--json`.
    fn json(&self, words: &[&str]) -> Value {
        let value: Value = serde_json::from_str(&self.run(&[words, &["--json"]].concat())).unwrap();
        assert_eq!(value["schema"], 1, "{words:?}: {value}");
        value
    }
}

fn started(dir: &Path) -> Node {
    let mut node = Node::at(dir);
    node.start();
    node
}

#[test]
fn the_transcript_of_the_manual() {
    let dir = tempfile::tempdir().unwrap();
    let tuyen = Terminal(dir.path().to_owned());
    let (at_root, at_hub) = (free_address().to_string(), free_address().to_string());
    tuyen.run(&["--dir", "root", "init", "--role", "root", "--org", "trung-uong", "--listen", &at_root]);
    let (code, said) = tuyen.code(&["--dir", "root", "status"]);
    assert_eq!(code, Some(3), "no daemon yet: {said}");
    let (code, said) = tuyen.code(&["--dir", "nowhere", "status"]);
    assert_eq!(code, Some(4), "no node: {said}");
    let (code, said) = tuyen.code(&["--dir", "root", "init", "--org", "again", "--listen", &at_root]);
    assert_eq!(code, Some(2), "there is one already: {said}");
    let root = started(&dir.path().join("root"));
    let (code, said) = tuyen.code(&["--dir", "root", "daemon"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("already runs"), "{said}");

    let token =
        tuyen.run(&["--dir", "root", "invite", "--role", "hub", "--org", "ha-giang", "--expires", "7d"]);
    tuyen.run(&["--dir", "hg", "enrol", token.trim(), "--listen", &at_hub]);
    let hub = started(&dir.path().join("hg"));
    let token = tuyen.json(&["--dir", "hg", "invite", "--role", "leaf", "--org", "dong-van"]);
    let token = token["token"].as_str().unwrap();
    tuyen.run(&["--dir", "dv", "enrol", token]);
    let (code, said) = tuyen.code(&["--dir", "thief", "enrol", token]);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("already used"), "{said}");
    let leaf = started(&dir.path().join("dv"));

    let lines =
        format!("{PATIENT}\n{{\"resourceType\":\"Basic\",\"id\":\"b\"}}\n{{\"resourceType\":\"Basic\"\n");
    std::fs::write(dir.path().join("some.ndjson"), &lines).unwrap();
    let (code, said) = tuyen.code(&["--dir", "dv", "records", "import", "some.ndjson"]);
    assert_eq!(code, Some(5), "two taken, one not: {said}");
    assert!(said.contains("some.ndjson") && said.contains('3'), "it names the line: {said}");
    let again = tuyen.pipe(&["--dir", "dv", "records", "import", "-"], PATIENT);
    assert!(again.status.success());
    // Of a new record it is said whether its patient is here; a misspelt reference would be a record of nobody's.
    let about = |id: &str, patient: &str| {
        format!(
            r#"{{"resourceType":"Observation","id":"{id}","status":"final","code":{{}},"subject":{{"reference":"Patient/{patient}"}}}}"#
        )
    };
    let import = ["--dir", "dv", "records", "import", "-"];
    let said = tuyen.pipe(&import, &[about("c", "a"), about("d", "nobody")].join("\n"));
    let said = String::from_utf8([said.stdout, said.stderr].concat()).unwrap();
    assert!(said.contains("Observation/d is about Patient/nobody, not at this node"), "{said}");
    assert!(said.contains("1 about a patient who is not here") && !said.contains("Observation/c"), "{said}");
    std::fs::write(dir.path().join("put.json"), about("e", "nobody")).unwrap();
    let put = ["--dir", "dv", "records", "put", "put.json"];
    assert_eq!(tuyen.json(&put)["patients_not_here"], serde_json::json!(["Patient/nobody"]));
    assert!(!tuyen.code(&put).1.contains("not at this node"), "it is not new any more");
    tuyen.run(&["--dir", "dv", "sync", "now", "--wait"]);
    wait_equal(&[&root, &hub, &leaf], 5);
    let got: Value =
        serde_json::from_str(&tuyen.run(&["--dir", "root", "records", "get", "Patient/a"])).unwrap();
    assert_eq!(got, serde_json::from_str::<Value>(PATIENT).unwrap());
    assert_eq!(tuyen.run(&["--dir", "root", "records", "export"]).lines().count(), 5);
    tuyen.run(&["--dir", "root", "records", "list"]);
    assert!(tuyen.run(&["--dir", "dv", "records", "history", "Patient/a"]).contains("bs. Lan"));

    tuyen.run(&["--dir", "dv", "sync", "pause"]);
    for (dir_name, date) in [("dv", "1970-10-01"), ("hg", "1971-01-01")] {
        std::fs::write(dir.path().join("put.json"), PATIENT.replace("1970-01-01", date)).unwrap();
        tuyen.run(&["--dir", dir_name, "records", "put", "put.json"]);
    }
    let status = tuyen.json(&["--dir", "dv", "status"]);
    assert_eq!(status["not_at_hub"]["entries"], 1, "{status}");
    tuyen.run(&["--dir", "dv", "sync", "resume"]);
    wait_equal(&[&root, &hub, &leaf], 7);
    tuyen.run(&["--dir", "hg", "peers"]);
    let list = tuyen.json(&["--dir", "hg", "conflicts", "list"]);
    let conflicts = list["conflicts"].as_array().unwrap();
    assert_eq!(conflicts.len(), 1, "{list}");
    assert_eq!((&conflicts[0]["record"], &conflicts[0]["path"]), (&"Patient/a".into(), &"birthDate".into()));
    assert_eq!(conflicts[0]["values"].as_array().unwrap().len(), 2);
    assert!(tuyen.run(&["--dir", "hg", "conflicts", "show", "Patient/a"]).contains("1971-01-01"));
    let resolve = ["--dir", "hg", "conflicts", "resolve", "Patient/a", "birthDate", "--take", "2"];
    assert_eq!(tuyen.code(&resolve).0, Some(2), "a reason is needed");
    tuyen.run(&[&resolve[..], &["--why", "asked the patient"]].concat());
    wait_equal(&[&root, &hub, &leaf], 8);
    for dir_name in ["root", "hg", "dv"] {
        let list = tuyen.json(&["--dir", dir_name, "conflicts", "list"]);
        assert_eq!(list["conflicts"].as_array().unwrap().len(), 0, "{list}");
        assert!(tuyen.run(&["--dir", dir_name, "records", "get", "Patient/a"]).contains("1971-01-01"));
    }
    tuyen.run(&["--dir", "dv", "records", "delete", "Patient/a"]);
    wait_equal(&[&root, &hub, &leaf], 9);
    assert_eq!(tuyen.code(&["--dir", "root", "records", "get", "Patient/a"]).0, Some(1));
}
