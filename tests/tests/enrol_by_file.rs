//! Nodes to which no line leads: enrolled, renewed and served by sticks alone.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use node::{
    admin::{Invited, Request, Revoked, Status},
    ca::{Ca, Facts, NODE_LIFETIME_MS, Order, Token, token::Secret},
    clock,
    config::{Config, DATABASE},
    keys::{Identity, IdentityFolder},
};
use serde_json::{Value, json};
use sync_core::identity::{Reason, Role};
use tempfile::TempDir;
use tuyen_tests::{
    cluster::{Node, free_address, has_alert, org, program},
    run::{Ran, tuyen},
};

const DAY: i64 = 86_400_000;

fn name(path: &Path) -> &str {
    path.to_str().expect("a test uses good names")
}

/// Expects that a command failed so, and said these words.
#[track_caller]
fn fails(ran: Ran, code: i32, words: &[&str]) {
    let text = ran.expect(code).json()["error"]["text"].as_str().unwrap().to_owned();
    for word in words {
        assert!(text.contains(word), "{word:?} is not said: {text}");
    }
}

/// A centre that runs, and a place for sticks and for machines that it never meets.
struct Apart {
    centre: Node,
    dir: TempDir,
}

impl Apart {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let centre = Node::root(&dir.path().join("centre"), "trung-uong");
        Self { centre, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn token(&self, role: Role, name: &str) -> String {
        token(&self.centre, role, name)
    }

    fn request(&self, dir: &Path, token: &str, more: &[&str]) -> PathBuf {
        let file = fresh(self.dir.path(), "request");
        let words = [&["enrol", token, "--request", name(&file), "--json"], more].concat();
        tuyen(dir, &words, b"").expect(0);
        file
    }

    fn admit(&self, request: &Path) -> PathBuf {
        admit(&self.centre, request)
    }

    /// A clinic that has been enrolled and runs, and the files.
    fn clinic(&self) -> (Node, PathBuf, PathBuf) {
        let dir = self.path("clinic");
        let request = self.request(&dir, &self.token(Role::Leaf, "dong-van"), &[]);
        let answer = self.admit(&request);
        enrol(&dir, &answer).expect(0);
        (started(&dir), request, answer)
    }

    /// A file with other content.
    fn file(&self, content: impl AsRef<[u8]>) -> PathBuf {
        let path = fresh(self.dir.path(), "file");
        fs::write(&path, content).unwrap();
        path
    }
}

/// A token with an address at which nobody listens.
fn token(parent: &Node, role: Role, name: &str) -> String {
    let address = Some(free_address().to_string());
    parent.ask::<Invited>(&Request::Invite { role, org: org(name), expires_seconds: 3600, address }).token
}

/// A name that is free.
fn fresh(dir: &Path, kind: &str) -> PathBuf {
    (0..).map(|n| dir.join(format!("{n}.{kind}"))).find(|path| !path.exists()).unwrap()
}

fn try_admit(parent: &Node, request: &Path, answer: &Path) -> Ran {
    tuyen(&parent.dir, &["admit", name(request), "--out", name(answer), "--json"], b"")
}

fn admit(parent: &Node, request: &Path) -> PathBuf {
    let answer = fresh(request.parent().unwrap(), "answer");
    try_admit(parent, request, &answer).expect(0);
    answer
}

fn enrol(dir: &Path, answer: &Path) -> Ran {
    tuyen(dir, &["enrol", "--answer", name(answer), "--json"], b"")
}

fn renew(dir: &Path, what: &str, file: &Path) -> Ran {
    tuyen(dir, &["renew", what, name(file), "--json"], b"")
}

fn started(dir: &Path) -> Node {
    let mut node = Node::at(dir);
    node.start();
    node
}

fn identity(dir: &Path) -> Identity {
    IdentityFolder::of_node(dir).load().unwrap()
}

fn facts(dir: &Path) -> Facts {
    Facts::read(&identity(dir).chain[0]).unwrap()
}

fn patient(id: &str) -> String {
    json!({"resourceType": "Patient", "id": id, "gender": "female"}).to_string()
}

/// One carries what the other has not; the record arrives.
fn carry(from: &Node, to: &Node, record: &str) {
    from.put([patient(record)]);
    let bundle = fresh(from.dir.parent().unwrap(), "bundle");
    let (own, place) = (from.status().place, to.status().place);
    let words = ["bundle", "export", "--for", place.org().as_str(), "--out", name(&bundle), "--json"];
    tuyen(&from.dir, &words, b"").expect(0);
    let taken = tuyen(&to.dir, &["bundle", "import", name(&bundle), "--json"], b"").expect(0).json();
    assert_eq!(taken["sender"], own.to_string());
}

fn has_never_met(node: &Node) {
    let Status { up, down, .. } = node.status();
    assert!(up.iter().chain(&down).all(|link| link.last_contact.is_none()), "they have met");
}

/// A file and nothing else of one: the same JSON with a change, and its checksum.
fn forged(file: &Path, change: impl FnOnce(&mut Value)) -> String {
    let text = fs::read_to_string(file).unwrap();
    let mut lines = text.lines();
    let (head, json) = (lines.next().unwrap(), lines.next().unwrap());
    let mut json: Value = serde_json::from_str(json).unwrap();
    change(&mut json);
    let kind = match head {
        "tuyen-enrolment 1" => node::ca::file::Kind::Enrolment,
        "tuyen-renewal 1" => node::ca::file::Kind::Renewal,
        "tuyen-answer 1" => node::ca::file::Kind::Answer,
        other => panic!("{other}"),
    };
    node::ca::file::write(kind, json.to_string().as_bytes())
}

#[test]
fn a_hub_and_a_clinic_that_never_see_a_line_are_enrolled_and_served_by_stick() {
    let apart = Apart::new();
    // The hub first: it has a CA.
    let listen = free_address().to_string();
    let hub_dir = apart.path("hub");
    let hub_token = apart.token(Role::Hub, "ha-giang");
    let file = apart.path("hub.request");
    let words = ["enrol", &hub_token, "--request", name(&file), "--json"];
    fails(tuyen(&hub_dir, &words, b""), 2, &["add --listen ADDRESS:PORT"]);
    let request = apart.request(&hub_dir, &hub_token, &["--listen", &listen]);
    let answer = apart.path("hub.answer");
    let admitted = try_admit(&apart.centre, &request, &answer).expect(0).json();
    assert_eq!(
        [&admitted["place"], &admitted["org"], &admitted["role"], &admitted["renewed"]],
        [&json!("trung-uong/ha-giang"), &json!("ha-giang"), &json!("hub"), &json!(false)]
    );
    let made = enrol(&hub_dir, &answer).expect(0).json();
    assert_eq!((&made["place"], &made["node"]), (&admitted["place"], &admitted["node"]));
    assert_eq!(Config::load(&hub_dir).unwrap().listen.unwrap().to_string(), listen);
    let hub = started(&hub_dir);

    // A clinic below it. Its token comes by standard input, which nobody sees.
    let clinic_dir = apart.path("clinic");
    let token = token(&hub, Role::Leaf, "dong-van");
    let request = apart.path("dong-van.request");
    let words = ["enrol", "-", "--request", name(&request)];
    let said = tuyen(&clinic_dir, &words, token.as_bytes()).expect(0).out;
    for word in
        ["dong-van (leaf)", "admit dong-van.request --out dong-van.answer", "--answer dong-van.answer"]
    {
        assert!(said.contains(word), "{said}");
    }
    assert!(!clinic_dir.join("config.json").exists(), "it is no node yet");
    // Whoever finds the request can do nothing with it.
    let text = fs::read_to_string(&request).unwrap();
    assert!(text.len() < 1_000 && text.starts_with("tuyen-enrolment 1\n"), "{text}");
    let parsed: Token = token.parse().unwrap();
    for secret in [&parsed.secret.0[..], &parsed.secret.hash().0[..]] {
        assert!(!text.contains(&data_encoding::BASE64.encode(secret)[..12]), "{text}");
    }
    let pem = fs::read_to_string(clinic_dir.join("identity/node.key")).unwrap();
    assert!(!text.contains(pem.lines().nth(1).unwrap()));
    // It was made twice: it is the same.
    let again = apart.request(&clinic_dir, &token, &[]);
    assert_eq!(fs::read_to_string(&again).unwrap(), text);

    let answer = admit(&hub, &again);
    enrol(&clinic_dir, &answer).expect(0);
    assert!(!clinic_dir.join("identity/enrolment").exists(), "the token is gone");
    let clinic = started(&clinic_dir);

    // Bundles go at once, whoever begins.
    carry(&hub, &clinic, "from-the-hub");
    carry(&clinic, &hub, "from-the-clinic");
    carry(&hub, &apart.centre, "to-the-centre");
    carry(&apart.centre, &hub, "from-the-centre");
    assert_eq!(apart.centre.value("Patient/from-the-clinic")["gender"], "female");
    let last = apart.path("last");
    tuyen(&hub.dir, &["bundle", "export", "--for", "dong-van", "--out", name(&last)], b"").expect(0);
    tuyen(&clinic.dir, &["bundle", "import", name(&last)], b"").expect(0);
    assert_eq!(clinic.status().not_at_hub.entries, 0);
    for node in [&apart.centre, &hub, &clinic] {
        has_never_met(node);
    }
    // The parent has it in its book.
    let revoked: Revoked = hub.ask(&Request::Revoke { org: org("dong-van"), reason: Reason::Lost });
    assert_eq!(revoked.nodes, [clinic.status().node]);
}

#[test]
fn a_request_that_is_not_right_is_refused_and_spends_no_token() {
    let apart = Apart::new();
    let centre = &apart.centre;
    let clinic = apart.path("clinic");
    let token = apart.token(Role::Leaf, "dong-van");
    let good = apart.request(&clinic, &token, &[]);
    let text = fs::read_to_string(&good).unwrap();
    let none = apart.path("none");
    let refused = |content: &str, code, words: &[&str]| {
        let file = apart.file(content);
        let ran = try_admit(centre, &file, &none);
        fails(ran, code, &[words, &[name(&file)]].concat());
        assert!(!none.exists());
    };
    let nothing = "Nothing was";
    refused("", 1, &["no request for certificates", nothing]);
    refused("tuyen-card 1\nAAAA\n", 1, &["no request for certificates", nothing]);
    refused(&"x".repeat(1 << 20), 1, &["no request for certificates", nothing]);
    refused(&text.replacen(" 1\n", " 2\n", 1), 1, &["another format", nothing]);
    refused(&text[..text.len() / 2], 6, &["cut off", nothing]);
    refused(&text[..text.len() - 9], 6, &["cut off", nothing]);
    refused(&text.replacen("dong-van", "meo-vac", 1), 6, &["not as it was written", nothing]);
    refused(&forged(&good, |json| json["org"] = json!("meo-vac")), 4, &["somebody has changed it", nothing]);
    refused(
        &forged(&good, |json| json["more"] = json!(1)),
        4,
        &["cannot be read", "tuyen --version", nothing],
    );
    refused(
        &forged(&good, |json| json["token"] = json!("AAAAAAAAAAAAAAAAAAAAAA==")),
        4,
        &["somebody has changed it"],
    );
    // One that was made before the parent was put back.
    let forgotten = Token { secret: Secret([7; 16]), ..token.parse().unwrap() };
    let unknown = apart.request(&apart.path("unknown"), &forgotten.to_string(), &[]);
    let ran = try_admit(centre, &unknown, &none);
    fails(ran, 4, &["does not know this token", "ask for a new one", nothing]);
    let missing = try_admit(centre, &apart.path("missing"), &none);
    fails(missing, 1, &["cannot read", "check the stick"]);

    // It was made for another parent, in this tree and in another.
    let hub = centre.child(&apart.path("hub"), Role::Hub, "ha-giang");
    let elsewhere = Node::root(&apart.path("elsewhere"), "bo-cong-an");
    for other in [&hub, &elsewhere] {
        fails(try_admit(other, &good, &none), 4, &["carry it to the node that has made the token", nothing]);
    }
    // Where no daemon runs, and where a file of the name is.
    fails(try_admit(&Node::at(&clinic), &good, &none), 4, &["is not a node's folder"]);
    fails(try_admit(centre, &good, &good), 2, &["is there already"]);
    assert!(!none.exists());

    // The token of another organization or role, as on a line: what the token says is what is asked.
    let revoked = apart.path("revoked");
    let first = apart.request(&revoked, &apart.token(Role::Leaf, "meo-vac"), &[]);
    let answer = apart.admit(&first);
    fails(try_admit(centre, &answer, &none), 1, &["this is an answer", "a request is needed", nothing]);
    enrol(&revoked, &answer).expect(0);
    let _: Revoked = centre.ask(&Request::Revoke { org: org("meo-vac"), reason: Reason::Lost });
    let second = apart.request(&revoked, &apart.token(Role::Leaf, "meo-vac"), &[]);
    fails(try_admit(centre, &second, &none), 4, &["the machine was lost", nothing]);

    // Late.
    let address = Some(free_address().to_string());
    let invite = Request::Invite { role: Role::Leaf, org: org("yen-minh"), expires_seconds: 0, address };
    let late = centre.ask::<Invited>(&invite).token;
    let late = apart.request(&apart.path("late"), &late, &[]);
    fails(try_admit(centre, &late, &none), 4, &["was good until", "ask for a new one", nothing]);

    // After all that the token is still good; and then it is used, also after a kill.
    let thief = apart.request(&apart.path("thief"), &token, &[]);
    let mut apart = apart;
    let answer = apart.admit(&good);
    apart.centre.kill();
    apart.centre.start();
    let node = IdentityFolder::of_node(&clinic).keys_for_enrolment(false).unwrap().0.id();
    let none = apart.path("none");
    fails(try_admit(&apart.centre, &thief, &none), 4, &["already used", &node.short(), nothing]);
    // The answer was lost: there is another.
    let other = apart.admit(&good);
    assert_ne!(fs::read(&other).unwrap(), fs::read(&answer).unwrap());
    enrol(&clinic, &other).expect(0);
}

#[test]
fn an_answer_that_is_not_right_is_refused_and_the_right_one_is_still_taken() {
    let apart = Apart::new();
    let clinic = apart.path("clinic");
    fails(enrol(&clinic, &apart.file("")), 2, &["no request was made there", "enrol TOKEN --request"]);
    assert!(!clinic.exists());
    let token = apart.token(Role::Leaf, "dong-van");
    let request = apart.request(&clinic, &token, &[]);
    let good = apart.admit(&request);
    let text = fs::read_to_string(&good).unwrap();
    let refused = |content: &str, code, words: &[&str]| {
        let file = apart.file(content);
        fails(enrol(&clinic, &file), code, &[words, &[name(&file)]].concat());
        assert!(!clinic.join("config.json").exists());
    };
    let nothing = "Nothing was changed";
    refused("", 1, &["no answer to one", nothing]);
    refused(&fs::read_to_string(&request).unwrap(), 1, &["this is a request to enrol", nothing]);
    refused(&text[..text.len() / 2], 6, &["cut off", nothing]);
    refused(&text.replacen("MII", "MIJ", 1), 6, &["not as it was written", nothing]);
    fails(enrol(&clinic, &apart.path("missing")), 1, &["cannot read"]);

    // That of another machine.
    let other_dir = apart.path("other");
    let other_request = apart.request(&other_dir, &apart.token(Role::Leaf, "meo-vac"), &[]);
    let other = apart.admit(&other_request);
    refused(&fs::read_to_string(&other).unwrap(), 4, &["another request", nothing]);
    // The same, passed off as this one's; and one that leads to another root or parent.
    let granted = |file: &Path| {
        let text = fs::read_to_string(file).unwrap();
        let json: Value = serde_json::from_str(text.lines().nth(1).unwrap()).unwrap();
        json["response"]["granted"].clone()
    };
    let passed_off = forged(&good, |json| json["response"]["granted"] = granted(&other));
    refused(&passed_off, 4, &["a certificate for another key"]);
    let mut other_tree = Apart::new();
    let foreign = granted(&other_tree.clinic().2);
    let passed_off = forged(&good, |json| json["response"]["granted"] = foreign.clone());
    refused(&passed_off, 4, &["from the tree with the root", "do not go on"]);
    let passed_off = forged(&good, |json| json["response"]["granted"]["chain"] = foreign["chain"].clone());
    refused(&passed_off, 4, &["do not hold"]);
    let passed_off = forged(&good, |json| json["response"]["granted"]["chain"] = json!([]));
    refused(&passed_off, 4, &["do not hold"]);
    other_tree.centre.kill();

    // Another hub of the tree, which is no friend, has found the request and issues for it.
    let hub = apart.centre.child(&apart.path("hub"), Role::Hub, "ha-giang");
    let (hub, key) = (identity(&hub.dir), facts_of_key(&clinic));
    let order = Order { org: org("dong-van"), role: Role::Leaf, key, ca_key: None };
    let grant = Ca::of(&hub).unwrap().issue(&order, clock::wall()).unwrap();
    let diverted = serde_json::to_value(node::ca::Response::granting(&grant, &hub)).unwrap();
    let diverted = forged(&good, |json| json["response"] = diverted);
    refused(&diverted, 4, &["another parent than the one that the token names"]);

    // The right one, once.
    let made = enrol(&clinic, &good).expect(0).json();
    let before = facts(&clinic);
    fails(enrol(&clinic, &good), 2, &["no answer is awaited here", "dong-van", "taken once"]);
    assert_eq!(facts(&clinic).serial, before.serial);
    assert_eq!(made["place"], "trung-uong/dong-van");
    started(&clinic);
}

fn facts_of_key(dir: &Path) -> node::keys::PublicKey {
    *IdentityFolder::of_node(dir).keys_for_enrolment(false).unwrap().0.public()
}

/// Whatever the command had done when the power went, it goes on there.
#[test]
fn an_enrolment_that_is_killed_anywhere_goes_on() {
    let apart = Apart::new();
    let clinic = apart.path("clinic");
    let request = apart.request(&clinic, &apart.token(Role::Leaf, "dong-van"), &[]);
    let answer = apart.admit(&request);
    let node = facts_of_key(&clinic).id();
    let mut unfinished = 0;
    for n in 0..24 {
        let dir = apart.path(&format!("clinic-{n}"));
        Node::at(&clinic).copy(&dir);
        let mut child = Command::new(program("tuyen"))
            .arg("--dir")
            .arg(&dir)
            .args(["enrol", "--answer", name(&answer)])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_micros(2_500 * n));
        child.kill().unwrap();
        child.wait().unwrap();
        if dir.join("identity/enrolment").exists() {
            unfinished += 1;
            enrol(&dir, &answer).expect(0);
        }
        assert_eq!(identity(&dir).key.id(), node);
        assert!(dir.join(DATABASE).exists() && !dir.join("identity/enrolment").exists());
        assert_eq!(started(&dir).status().node, node);
    }
    assert!(unfinished > 0, "it was never killed in the middle");
    // The same from each of its steps.
    let awaited = fs::read(clinic.join("identity/enrolment")).unwrap();
    enrol(&clinic, &answer).expect(0);
    let done = apart.path("done");
    Node::at(&clinic).copy(&done);
    for (n, gone) in [
        &[][..],
        &["config.json"],
        &["config.json", "records.db"],
        &["config.json", "records.db", "store.key"],
        &["config.json", "records.db", "store.key", "identity/node.crt"],
        &["config.json", "records.db", "store.key", "identity/node.crt", "identity/trust.crt"],
    ]
    .into_iter()
    .enumerate()
    {
        let dir = apart.path(&format!("step-{n}"));
        Node::at(&done).copy(&dir);
        gone.iter().for_each(|file| fs::remove_file(dir.join(file)).unwrap());
        fs::write(dir.join("identity/enrolment"), &awaited).unwrap();
        enrol(&dir, &answer).expect(0);
        assert_eq!(started(&dir).status().node, node);
    }
}

/// Gives a node that does not run a certificate from its parent that ends then, as if it had been issued a whole life
/// before.
fn let_end(parent: &Node, child: &Path, until: i64) {
    let (above, own) = (identity(&parent.dir), identity(child));
    let place = Config::load(child).unwrap().place;
    let order = Order { org: place.org().clone(), role: Role::Leaf, key: *own.key.public(), ca_key: None };
    let chain = Ca::of(&above).unwrap().issue(&order, until - NODE_LIFETIME_MS).unwrap().chain;
    IdentityFolder::of_node(child).renew(&chain, None).unwrap();
}

#[test]
fn a_clinic_without_a_line_is_renewed_by_stick_and_enrolled_again_when_it_was_too_late() {
    let apart = Apart::new();
    let (mut clinic, _, enrolment) = apart.clinic();
    let node = clinic.status().node;
    carry(&apart.centre, &clinic, "before");
    assert!(clinic.status().alerts.is_empty());
    assert_eq!(clinic.stop(), Some(0));
    let end = clock::wall() + 100 * DAY;
    let_end(&apart.centre, &clinic.dir, end);
    clinic.start();
    // Somebody is told in time.
    clinic.wait("told", |s| has_alert(&s.alerts, "renewal", "tuyen renew --request FILE"));

    let request = apart.path("dong-van.request");
    let made = renew(&clinic.dir, "--request", &request).expect(0).json();
    assert_eq!((&made["place"], &made["parent"]), (&json!("trung-uong/dong-van"), &json!("trung-uong")));
    let pem = fs::read_to_string(clinic.dir.join("identity/node.key")).unwrap();
    let text = fs::read_to_string(&request).unwrap();
    assert!(text.starts_with("tuyen-renewal 1\n") && !text.contains(pem.lines().nth(1).unwrap()));
    fails(renew(&clinic.dir, "--request", &request), 2, &["is there already"]);
    fails(renew(&apart.centre.dir, "--request", &apart.path("none")), 2, &["the root renews its own"]);

    // What is not right issues nothing.
    let none = apart.path("none");
    let centre = &apart.centre;
    let changed = apart.file(forged(&request, |json| json["proof"] = json!("AAAA")));
    fails(try_admit(centre, &changed, &none), 4, &["somebody has changed it", "Nothing was issued"]);
    fails(try_admit(centre, &apart.file(&text[..200]), &none), 6, &["cut off"]);
    let hub = centre.child(&apart.path("hub"), Role::Hub, "ha-giang");
    fails(try_admit(&hub, &request, &none), 4, &["for the node of trung-uong", "carry it there"]);
    assert!(!none.exists());

    let answer = apart.path("dong-van.answer");
    let admitted = try_admit(centre, &request, &answer).expect(0).json();
    assert_eq!((&admitted["renewed"], &admitted["place"]), (&json!(true), &made["place"]));
    // What is not the answer changes nothing.
    let before = facts(&clinic.dir);
    let nothing = "Nothing was changed";
    fails(renew(&clinic.dir, "--answer", &enrolment), 4, &["another request", nothing]);
    fails(renew(&clinic.dir, "--answer", &request), 1, &["this is a request to renew", nothing]);
    fails(renew(&hub.dir, "--answer", &answer), 4, &["another request", nothing]);
    let cut = apart.file(&fs::read_to_string(&answer).unwrap()[..500]);
    fails(renew(&clinic.dir, "--answer", &cut), 6, &["cut off", nothing]);
    assert_eq!(facts(&clinic.dir).serial, before.serial);

    // A clinic that is killed before it takes the answer takes it then.
    clinic.kill();
    clinic.start();
    let renewed = renew(&clinic.dir, "--answer", &answer).expect(0).json();
    assert_eq!(renewed["until"], admitted["until"]);
    let now = facts(&clinic.dir);
    assert!(now.not_after > end + 900 * DAY && now.key == before.key && now.serial != before.serial);
    assert!(clinic.status().alerts.is_empty(), "{:?}", clinic.status().alerts);
    fails(renew(&clinic.dir, "--answer", &answer), 4, &["taken already", nothing]);
    // Bundles show the new certificate at once, and after a restart.
    carry(&clinic, centre, "renewed");
    assert_eq!(clinic.stop(), Some(0));
    clinic.start();
    carry(centre, &clinic, "restarted");

    // Too late: its bundles are refused, and no request to renew helps, but a token does, in the same folder.
    assert_eq!(clinic.stop(), Some(0));
    let_end(centre, &clinic.dir, clock::wall() - DAY);
    clinic.start();
    clinic.put([patient("meanwhile")]);
    let late = fresh(apart.dir.path(), "request");
    renew(&clinic.dir, "--request", &late).expect(0);
    fails(try_admit(centre, &late, &none), 4, &["expired on", "enrol TOKEN"]);
    let token = apart.token(Role::Leaf, "dong-van");
    let again = apart.request(&clinic.dir, &token, &[]);
    let answer = apart.admit(&again);
    fails(enrol(&clinic.dir, &answer), 1, &["a daemon already runs"]);
    assert_eq!(clinic.stop(), Some(0));
    enrol(&clinic.dir, &answer).expect(0);
    clinic.start();
    assert_eq!(clinic.status().node, node);
    carry(&clinic, centre, "at-last");
    assert_eq!(centre.value("Patient/meanwhile")["gender"], "female");
    has_never_met(&clinic);

    // Who was revoked is not renewed.
    let _: Revoked = centre.ask(&Request::Revoke { org: org("dong-van"), reason: Reason::Lost });
    let request = fresh(apart.dir.path(), "request");
    renew(&clinic.dir, "--request", &request).expect(0);
    fails(try_admit(centre, &request, &none), 4, &["the machine was lost"]);
    assert!(!none.exists());
}

/// The address of the same hub is what somebody has set; that of another machine is what its token says.
#[test]
fn a_clinic_whose_hub_is_another_machine_dials_that() {
    let apart = Apart::new();
    let clinic = apart.path("clinic");
    let enrolled = |hub: &Node| {
        let token = token(hub, Role::Leaf, "dong-van");
        let answer = admit(hub, &apart.request(&clinic, &token, &[]));
        enrol(&clinic, &answer).expect(0);
        let said = token.parse::<Token>().unwrap().addresses;
        (said, Config::load(&clinic).unwrap().parent.unwrap())
    };
    let hub = apart.centre.child(&apart.path("hub"), Role::Hub, "ha-giang");
    let (said, first) = enrolled(&hub);
    assert_eq!(said, std::slice::from_ref(&first));
    let (said, dialled) = enrolled(&hub);
    assert!(said[0] != first && dialled == first);
    let _: Revoked = apart.centre.ask(&Request::Revoke { org: org("ha-giang"), reason: Reason::Lost });
    let (said, dialled) = enrolled(&apart.centre.child(&apart.path("fresh"), Role::Hub, "ha-giang"));
    assert_eq!(said, [dialled]);
}

#[test]
fn a_hub_and_its_ca_are_renewed_by_stick() {
    let apart = Apart::new();
    let dir = apart.path("hub");
    let listen = free_address().to_string();
    let request = apart.request(&dir, &apart.token(Role::Hub, "ha-giang"), &["--listen", &listen]);
    enrol(&dir, &apart.admit(&request)).expect(0);
    let hub = started(&dir);
    let ca = |dir: &Path| Facts::read(&identity(dir).ca.unwrap().chain[0]).unwrap();
    let before = (facts(&dir), ca(&dir));
    // Certificates end at whole seconds, and only one that ends later is taken.
    std::thread::sleep(Duration::from_millis(1_100));
    let request = apart.path("hub.request");
    renew(&dir, "--request", &request).expect(0);
    let answer = admit(&apart.centre, &request);
    renew(&dir, "--answer", &answer).expect(0);
    let after = (facts(&dir), ca(&dir));
    assert!(before.0.serial != after.0.serial && before.1.serial != after.1.serial);
    assert_eq!((before.0.key, before.1.key), (after.0.key, after.1.key));
    // What it issues now is issued by the new one.
    let clinic = apart.path("clinic");
    let request = apart.request(&clinic, &token(&hub, Role::Leaf, "dong-van"), &[]);
    enrol(&clinic, &admit(&hub, &request)).expect(0);
    assert_eq!(Facts::read(&identity(&clinic).chain[1]).unwrap().serial, after.1.serial);
    // Another CA than the one in the book is not renewed.
    let renewal = apart.path("again.request");
    renew(&dir, "--request", &renewal).expect(0);
    drop(hub);
    let mut own = identity(&dir);
    own.ca.as_mut().unwrap().key = node::keys::Key::generate().unwrap();
    let json = node::ca::renew::Request::new(&own, &Config::load(&apart.centre.dir).unwrap().place).to_json();
    let other = apart.file(node::ca::file::write(node::ca::file::Kind::Renewal, &json));
    fails(try_admit(&apart.centre, &other, &apart.path("none")), 4, &["another CA key"]);
}
