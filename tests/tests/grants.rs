//! A patient's records are opened to a clinic of another province for a time, and asked for in an emergency, with real
//! processes and the commands that people use.

use std::{path::Path, thread, time::Duration};

use node::admin::Request;
use serde_json::{Value, json};
use sync_core::identity::Role;
use tuyen_tests::{
    cluster::{Country, Node, has_alert, record, transaction, wait_for},
    run::{Ran, tuyen},
};

/// `tuyen` at a node, with JSON.
fn at(node: &Node, arguments: &[&str]) -> Ran {
    tuyen(&node.dir, &[arguments, &["--json"]].concat(), b"")
}

/// The country, with a second province `tuyen-quang` and its clinic `quan-ba`.
struct Provinces {
    country: Country,
    hub: Node,
    clinic: Node,
}

impl Provinces {
    fn new(dir: &Path) -> Self {
        let country = Country::new();
        let hub = country.root.child(&dir.join("tq"), Role::Hub, "tuyen-quang");
        let clinic = hub.child(&dir.join("qb"), Role::Leaf, "quan-ba");
        Self { country, hub, clinic }
    }

    fn all(&self) -> [&Node; 5] {
        let [root, hub, leaf] = self.country.all();
        [root, hub, leaf, &self.hub, &self.clinic]
    }
}

fn about(kind: &str, id: &str, patient: &str) -> String {
    let mut resource = json!({"resourceType": kind, "id": id, "code": {"text": "canary-4e1d"}});
    let element = if kind == "AllergyIntolerance" { "patient" } else { "subject" };
    resource[element] = json!({"reference": format!("Patient/{patient}")});
    resource.to_string()
}

fn patient(id: &str) -> String {
    json!({"resourceType": "Patient", "id": id, "name": [{"text": "canary-4e1d"}]}).to_string()
}

/// Waits until a record is at a node, or is not.
#[track_caller]
fn wait_record(node: &Node, name: &str, here: bool) {
    let get = || node.try_ask::<Value>(&Request::Get { record: record(name) });
    wait_for(&format!("{name} is here: {here}"), &[node], |_| get().is_ok() == here);
}

/// Waits until nothing is on its way between any of them.
fn wait_quiet(nodes: &[&Node]) {
    wait_for("nothing waits", nodes, |all| {
        all.iter().all(|s| s.unfolded == 0 && s.not_at_hub.entries == 0 && s.not_at_root.entries == 0)
    });
}

fn grants(node: &Node, arguments: &[&str]) -> Vec<Value> {
    let listed = at(node, &[&["grant", "list"], arguments].concat()).expect(0).json();
    listed["grants"].as_array().unwrap().clone()
}

#[track_caller]
fn refused(node: &Node, arguments: &[&str], code: i32, words: &str) {
    let ran = at(node, arguments).expect(code).json();
    let text = ran["error"]["text"].as_str().unwrap();
    assert!(text.contains(words), "{arguments:?}: {text}");
}

#[test]
fn a_referred_patient_goes_with_everything_comes_back_with_notes_and_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let mut all = Provinces::new(dir.path());
    let leaf = &all.country.leaf;
    let secret = r#"{"resourceType":"Observation","id":"hidden","status":"final","code":{"text":"x"},
        "subject":{"reference":"Patient/mai"},
        "meta":{"security":[{"system":"urn:tuyen:secrecy","code":"mat"}]}}"#;
    leaf.put([
        patient("mai"),
        about("Observation", "before", "mai"),
        about("AllergyIntolerance", "penicillin", "mai"),
        patient("other"),
        about("Observation", "of-other", "other"),
        secret.replace('\n', ""),
    ]);
    let give = [
        "grant",
        "give",
        "Patient/mai",
        "--to",
        "quan-ba",
        "--for",
        "30d",
        "--why",
        "surgery",
        "--by",
        "BS Lan",
    ];
    // The centre knows all names; a clinic does not, and says so.
    let wrong = give.map(|word| if word == "quan-ba" { "quan-bo" } else { word });
    wait_record(&all.country.root, "Patient/mai", true);
    let said = at(&all.country.root, &wrong).expect(2).json();
    let text = said["error"]["text"].as_str().unwrap();
    assert!(text.contains("no organization quan-bo has been heard of"), "{text}");
    assert!(grants(&all.country.root, &[]).is_empty());
    let given = at(leaf, &give).expect(0).json();
    assert_eq!((&given["records"], &given["secret"]), (&json!(4), &json!(1)), "{given}");
    let name = given["grant"].as_str().unwrap();
    let consent = format!("Consent/{name}");
    for name in ["Patient/mai", "Observation/before", "AllergyIntolerance/penicillin", &consent] {
        wait_record(&all.clinic, name, true);
    }
    for name in ["Patient/other", "Observation/of-other", "Observation/hidden"] {
        wait_record(&all.clinic, name, false);
    }
    let explained = at(&all.country.root, &["scope", "explain", "dong-van"]).expect(0).json();
    let down = |org: &str| {
        let all = explained["neighbours"].as_array().unwrap();
        let to = all.iter().find(|to| to["place"].as_str().unwrap().ends_with(org)).unwrap();
        (to["reason"].clone(), to["open"].clone())
    };
    assert_eq!(down("ha-giang"), (json!("home_within"), json!(0)));
    assert_eq!(down("tuyen-quang"), (json!("no_home_within"), json!(4)));
    // What is open does not follow from the text of that, so nobody edits it; to write the same is no edit.
    let whole = at(leaf, &["records", "get", &consent]).expect(0).out;
    let put = |text: &str| tuyen(&leaf.dir, &["records", "put", "--json", "-"], text.as_bytes());
    put(&whole).expect(0);
    let edited = put(&whole.replace("\"active\"", "\"inactive\"")).expect(1).json();
    let deleted = at(leaf, &["records", "delete", &consent, "--why", "x"]).expect(1).json();
    for said in [edited, deleted] {
        let text = said["error"]["text"].as_str().unwrap();
        assert!(text.contains(&format!("end it with `tuyen grant end {name}`")), "{text}");
    }
    // Who, why and for what is in the record of the grant.
    let history = at(&all.clinic, &["records", "history", &consent]).expect(0).json();
    let change = &history["changes"][0];
    assert_eq!((&change["by"], &change["why"]), (&json!("BS Lan"), &json!("surgery")), "{history}");
    let seen = grants(&all.clinic, &[]);
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!((&seen[0]["patient"], &seen[0]["giver"]), (&json!("Patient/mai"), &json!("dong-van")));

    // What is written now goes there, wherever it is written; what is written there comes back.
    leaf.put([about("Observation", "after", "mai")]);
    all.country.hub.put([about("Observation", "of-hub", "mai")]);
    all.clinic.put([about("Observation", "of-quan-ba", "mai")]);
    wait_record(&all.clinic, "Observation/after", true);
    wait_record(&all.clinic, "Observation/of-hub", true);
    wait_record(leaf, "Observation/of-quan-ba", true);
    wait_record(leaf, "Observation/of-hub", true);
    // A record that is only open there is not changed there.
    let changed = at(&all.clinic, &["records", "delete", "Observation/before", "--why", "x"]);
    let text = changed.expect(1).json()["error"]["text"].as_str().unwrap().to_owned();
    assert!(text.contains("belongs to dong-van and is open here to be read"), "{text}");

    // The end: all of it is forgotten there and between, and only the clinic's own notes stay.
    wait_quiet(&all.all());
    all.clinic.kill();
    let ended = at(leaf, &["grant", "end", &name[..8], "--why", "back home"]).expect(0).json();
    assert_eq!(ended["records"], 6, "{ended}");
    all.clinic.start();
    for node in [&all.clinic, &all.hub] {
        for name in ["Patient/mai", "Observation/before", "Observation/after", "Observation/of-hub", &consent]
        {
            wait_record(node, name, false);
        }
        wait_record(node, "Observation/of-quan-ba", true);
    }
    assert!(grants(&all.country.leaf, &[]).is_empty());
    let over = grants(&all.country.leaf, &["--all"]);
    assert_eq!((over.len(), &over[0]["state"]), (1, &json!("ended")), "{over:?}");
    // The operator of the centre sees what was forgotten where.
    let receipts = || at(&all.country.root, &["org", "purged"]).expect(0).json()["receipts"].clone();
    let of = |place: &str| receipts().as_array().unwrap().iter().any(|receipt| receipt["place"] == *place);
    wait_for("receipts of both", &[&all.country.root], |_| {
        of("trung-uong/tuyen-quang/quan-ba") && of("trung-uong/tuyen-quang")
    });
    assert!(
        receipts().as_array().unwrap().iter().all(|receipt| receipt["forgotten"][0]["org"] == "dong-van")
    );
    refused(&all.country.leaf, &["grant", "end", &name[..8], "--why", "again"], 1, "has ended already");
}

/// What was imported from a bundle, in which everything is called by its uuid and the patient comes last, is found about the patient.
#[test]
fn a_patient_of_a_bundle_is_opened_with_the_allergies() {
    let dir = tempfile::tempdir().unwrap();
    let all = Provinces::new(dir.path());
    let it = json!({"reference": "urn:uuid:mai"});
    let of = |kind: &str, id: &str, element: &str| json!({"resourceType": kind, "id": id, element: it});
    let bundle = transaction(&[
        of("AllergyIntolerance", "penicillin", "patient"),
        of("MedicationRequest", "warfarin", "subject"),
        json!({"resourceType": "Patient", "id": "mai"}),
        of("AllergyIntolerance", "latex", "patient"),
    ]);
    all.country.leaf.import(&bundle.to_string());
    all.country.leaf.wait_safe();
    let give = ["grant", "give", "Patient/mai", "--to", "quan-ba", "--for", "30d", "--why", "surgery"];
    // The grant itself is the fifth.
    assert_eq!(at(&all.country.leaf, &give).expect(0).json()["records"], 5);
    for name in ["Patient/mai", "AllergyIntolerance/penicillin", "AllergyIntolerance/latex"] {
        wait_record(&all.clinic, name, true);
    }
    wait_record(&all.clinic, "MedicationRequest/warfarin", true);
    assert_eq!(all.clinic.value("AllergyIntolerance/latex")["patient"]["reference"], "Patient/mai");
    // A province imports for a clinic: the patient's home is that of all that is about the patient.
    let clinic = json!({"reference": "Organization/dong-van"});
    let bundle = transaction(&[
        json!({"resourceType": "Observation", "id": "first", "status": "final", "subject": {"reference": "urn:uuid:lan"}}),
        json!({"resourceType": "Patient", "id": "lan", "managingOrganization": clinic}),
    ]);
    let imported = all.country.hub.import(&bundle.to_string());
    assert_eq!(imported["patients_not_here"], json!([]), "{imported}");
    wait_record(&all.country.leaf, "Observation/first", true);
}

#[test]
fn an_emergency_is_answered_above_and_everybody_can_see_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut all = Provinces::new(dir.path());
    all.country.leaf.put([
        patient("mai"),
        about("AllergyIntolerance", "penicillin", "mai"),
        patient("other"),
    ]);
    all.country.leaf.wait_safe();
    let ask =
        ["grant", "emergency", "Patient/mai", "--why", "unconscious after an accident", "--by", "BS Minh"];
    let asked = at(&all.clinic, &ask).expect(0).json();
    assert_eq!((&asked["is_here"], &asked["is_linked"]), (&json!(true), &json!(true)));
    wait_record(&all.clinic, "AllergyIntolerance/penicillin", true);
    wait_record(&all.clinic, "Patient/other", false);
    // The patient's clinic sees who looked, why and until when; the centre has the question itself.
    let name = asked["grant"].as_str().unwrap();
    wait_record(&all.country.leaf, &format!("Consent/{name}"), true);
    let seen = grants(&all.country.leaf, &[]);
    let line = |name: &str| seen[0][name].clone();
    assert_eq!(
        (seen.len(), line("to"), line("giver"), line("purpose")),
        (1, json!("quan-ba"), json!("trung-uong"), json!("emergency"))
    );
    let history = at(&all.country.leaf, &["records", "history", &format!("Consent/{name}")]).expect(0).json();
    assert_eq!(history["changes"][0]["why"], "unconscious after an accident");
    wait_record(&all.country.root, &format!("AuditEvent/{name}"), true);
    all.country.leaf.wait("it is told", |s| {
        has_alert(&s.alerts, "emergency", "quan-ba has asked for the records of one of your patients")
    });
    // A power cut takes nobody's word away.
    all.country.leaf.kill();
    all.country.leaf.start();
    assert!(all.country.leaf.has_alert("emergency", name), "{:?}", all.country.leaf.status().alerts);
    // The clinic may end what the centre has opened.
    at(&all.country.leaf, &["grant", "end", name, "--why", "was a mistake"]).expect(0);
    wait_record(&all.clinic, "Patient/mai", false);
    wait_record(&all.clinic, "AllergyIntolerance/penicillin", false);
    all.country.leaf.wait("it is told no more", |s| !has_alert(&s.alerts, "emergency", ""));
    // So is who answers for a patient of its own.
    all.country.root.put([patient("lan")]);
    let ask = ["grant", "emergency", "Patient/lan", "--why", "found without papers"];
    let asked = at(&all.clinic, &ask).expect(0).json();
    let told = |is_told| {
        all.country.root.wait("it is told", |s| has_alert(&s.alerts, "emergency", "quan-ba has") == is_told);
    };
    told(true);
    at(&all.country.root, &["grant", "end", asked["grant"].as_str().unwrap(), "--why", "is known"]).expect(0);
    told(false);
    // Nobody is asked for whom nobody knows; that is said, and stays on record.
    let ask = ["grant", "emergency", "Patient/nobody", "--why", "wrong number", "--wait", "1s"];
    assert_eq!(at(&all.clinic, &ask).expect(5).json()["is_here"], false);
}

/// What was opened to whoever stands above the patient's clinic by now stays there after the end, and that is said.
#[test]
fn who_ends_a_grant_hears_who_holds_the_records_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let all = Provinces::new(dir.path());
    let leaf = &all.country.leaf;
    leaf.put([patient("mai")]);
    leaf.wait_safe();
    let give = |to: &str| {
        let given =
            at(leaf, &["grant", "give", "Patient/mai", "--to", to, "--for", "1d", "--why", "x"]).expect(0);
        given.json()["grant"].as_str().unwrap().to_owned()
    };
    let end = |grant: &str| {
        let ended = at(leaf, &["grant", "end", grant, "--why", "x"]).expect(0).json();
        (ended["holds_by_right"].clone(), ended["is_heard_of"].clone())
    };
    let (to_hub, to_clinic, to_nobody) = (give("tuyen-quang"), give("quan-ba"), give("quan-bo"));
    wait_record(&all.hub, "Patient/mai", true);
    let address = all.hub.config().listen.unwrap().to_string();
    let order = ["org", "move", "dong-van", "--to", "tuyen-quang", "--address", &address];
    at(&all.country.root, &[&order[..], &["--effective", "now"]].concat()).expect(0);
    leaf.wait("is moved", |s| s.up.as_ref().is_some_and(|up| up.place == "trung-uong/tuyen-quang"));
    assert_eq!(end(&to_hub), (json!(true), json!(true)));
    assert_eq!(end(&to_clinic).0, json!(false));
    assert_eq!(end(&to_nobody), (json!(false), json!(false)));
    wait_record(&all.clinic, "Patient/mai", false);
    wait_record(&all.hub, "Patient/mai", true);
}

/// Two clinics to which a patient is open become one: the closed machine hears of the ends as well, and whoever ends the one grant
/// hears that the other one opens the same.
#[test]
fn what_is_open_to_a_closed_clinic_is_its_successors_and_ends_at_both() {
    let dir = tempfile::tempdir().unwrap();
    let all = Provinces::new(dir.path());
    let second = all.hub.child(&dir.path().join("bm"), Role::Leaf, "bac-me");
    let leaf = &all.country.leaf;
    leaf.put([patient("mai")]);
    leaf.wait_safe();
    let give = |to: &str| {
        let given =
            at(leaf, &["grant", "give", "Patient/mai", "--to", to, "--for", "1d", "--why", "x"]).expect(0);
        given.json()["grant"].as_str().unwrap().to_owned()
    };
    let (to_closed, to_heir) = (give("quan-ba"), give("bac-me"));
    wait_record(&all.clinic, "Patient/mai", true);
    wait_record(&second, "Patient/mai", true);
    at(&all.country.root, &["org", "merge", "quan-ba", "--into", "bac-me", "--effective", "now"]).expect(0);
    let successor = |node: &Node, grant: &str| {
        let all = grants(node, &[]);
        all.iter().find(|one| one["grant"] == grant).map(|one| one["successor"].clone())
    };
    for node in [leaf, &all.clinic] {
        wait_for("the order is heard of", &[node], |_| successor(node, &to_closed) == Some(json!("bac-me")));
    }
    let end = |grant: &str| at(leaf, &["grant", "end", grant, "--why", "x"]).expect(0).json();
    assert_eq!(end(&to_heir)["still_open_by"], json!([to_closed]));
    leaf.put([about("Observation", "late", "mai")]);
    wait_record(&second, "Observation/late", true);
    wait_record(&all.clinic, "Observation/late", false);
    let ended = end(&to_closed);
    assert_eq!((&ended["still_open_by"], &ended["successor"]), (&json!([]), &json!("bac-me")));
    for node in [&all.clinic, &second] {
        wait_record(node, "Patient/mai", false);
    }
}

/// What is told of a record goes with the record.
#[test]
fn who_has_forgotten_a_record_hears_no_more_of_its_two_homes() {
    let dir = tempfile::tempdir().unwrap();
    let all = Provinces::new(dir.path());
    let second = all.country.hub.child(&dir.path().join("mv"), Role::Leaf, "meo-vac");
    all.country.leaf.put([patient("mai")]);
    all.country.leaf.wait_safe();
    let give = ["grant", "give", "Patient/mai", "--to", "quan-ba", "--for", "1d", "--why", "x"];
    let given = at(&all.country.leaf, &give).expect(0).json();
    wait_record(&all.clinic, "Patient/mai", true);
    second.put([patient("mai")]);
    let is_told = |s: &node::admin::Status| has_alert(&s.alerts, "two_homes", "Patient/mai was made at ");
    all.clinic.wait("it is told", is_told);
    wait_quiet(&all.all());
    at(&all.country.leaf, &["grant", "end", given["grant"].as_str().unwrap(), "--why", "x"]).expect(0);
    wait_record(&all.clinic, "Patient/mai", false);
    all.clinic.wait("it is told no more", |s| !is_told(s));
    assert!(is_told(&all.country.leaf.status()));
}

/// Nothing is forgotten before a comparison with the parent, and people hear what waits for one.
/// The mark stays where it was made: above, what had left before is a record like any other.
#[test]
fn what_had_left_before_it_was_marked_is_opened_above_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let all = Provinces::new(dir.path());
    let leaf = &all.country.leaf;
    let older = about("Observation", "hiv", "mai");
    leaf.put([patient("mai"), older.clone()]);
    leaf.wait_safe();
    let mut marked: Value = serde_json::from_str(&older).unwrap();
    marked["code"]["text"] = "canary-new".into();
    marked["meta"] = json!({"security": [{"system": "urn:tuyen:secrecy", "code": "mat"}]});
    leaf.put([marked.to_string()]);
    let explained = tuyen(&leaf.dir, &["scope", "explain", "Observation/hiv"], b"").expect(0);
    assert!(explained.out.contains("a grant that is given above may open it"), "{explained:?}");
    // A grant of the clinic does not bring it, and is in nobody's way in an emergency.
    at(leaf, &["grant", "give", "Patient/mai", "--to", "quan-ba", "--for", "1d", "--why", "x"]).expect(0);
    wait_record(&all.clinic, "Patient/mai", true);
    wait_quiet(&all.all());
    wait_record(&all.clinic, "Observation/hiv", false);
    at(&all.clinic, &["grant", "emergency", "Patient/mai", "--why", "unconscious"]).expect(0);
    wait_record(&all.clinic, "Observation/hiv", true);
    assert_eq!(all.clinic.value("Observation/hiv")["code"]["text"], "canary-4e1d");
}

#[test]
fn a_machine_to_which_no_line_leads_says_what_it_has_still() {
    let dir = tempfile::tempdir().unwrap();
    let mut all = Provinces::new(dir.path());
    all.country.leaf.put([patient("mai"), about("Observation", "before", "mai")]);
    let give = ["grant", "give", "Patient/mai", "--to", "quan-ba", "--for", "20s", "--why", "x"];
    at(&all.country.leaf, &give).expect(0);
    for name in ["Patient/mai", "Observation/before"] {
        wait_record(&all.clinic, name, true);
    }
    wait_quiet(&all.all());
    all.clinic.kill();
    all.clinic.configure(|config| config.paused = true);
    all.clinic.start();
    // With the Consent.
    all.clinic.wait("its time is over", |s| s.ended == 3);
    wait_record(&all.clinic, "Patient/mai", true);
    all.clinic.resume();
    wait_record(&all.clinic, "Patient/mai", false);
    all.clinic.wait("nothing is left of it", |s| s.ended == 0);
}

/// However far it has come: what is open of the patient at the next start opens all that is about the patient.
#[test]
fn a_node_that_dies_while_it_opens_records_goes_on_at_its_next_start() {
    const RECORDS: u64 = 1_200;
    let mut country = Country::new();
    country.leaf.put([patient("mai")]);
    country.leaf.put((0..RECORDS).map(|n| about("Observation", &format!("n{n}"), "mai")));
    country.leaf.wait("all is folded", |s| s.unfolded == 0);
    let mut cut_short = 0;
    for millis in [3, 30, 60, 100] {
        let dir = country.leaf.dir.clone();
        let give = thread::spawn(move || {
            let give =
                ["grant", "give", "Patient/mai", "--to", "quan-ba", "--for", "1d", "--why", "x", "--json"];
            tuyen(&dir, &give, b"").code
        });
        thread::sleep(Duration::from_millis(millis));
        country.leaf.kill();
        cut_short += u64::from(give.join().unwrap() != Some(0));
        country.leaf.start();
        // The Patient is one of them; each Consent is open to all.
        let all = |grants: &[Value]| {
            let count = u64::try_from(grants.len()).unwrap();
            grants.iter().all(|grant| grant["open"] == RECORDS + 1 + count)
        };
        wait_for("all is open that is about the patient", &[&country.leaf], |_| {
            all(&grants(&country.leaf, &[]))
        });
    }
    assert!(cut_short > 0, "none was cut short");
}

#[test]
fn what_cannot_be_opened_is_told_why() {
    let country = Country::new();
    country.leaf.put([patient("mai"), about("Observation", "one", "mai")]);
    country.leaf.wait_safe();
    let give = |patient: &'static str, to: &'static str| {
        ["grant", "give", patient, "--to", to, "--for", "1d", "--why", "x"]
    };
    refused(&country.leaf, &give("Observation/one", "quan-ba"), 2, "is no Patient");
    refused(&country.leaf, &give("Patient/nobody", "quan-ba"), 1, "is not at this node");
    refused(&country.leaf, &give("Patient/mai", "ha-giang"), 2, "holds Patient/mai without a grant");
    refused(&country.leaf, &give("Patient/mai", "dong-van"), 2, "holds Patient/mai without a grant");
    let past = ["grant", "give", "Patient/mai", "--to", "x", "--until", "2020-01-01", "--why", "x"];
    refused(&country.leaf, &past, 2, "ends at a time to come");
    refused(&country.leaf, &["grant", "end", "12", "--why", "x"], 2, "names no grant");
    refused(&country.leaf, &["grant", "end", "1234567", "--why", "x"], 1, "no grant 1234567 is known here");
    refused(
        &country.leaf,
        &["grant", "emergency", "Patient/mai", "--why", "x"],
        1,
        "is at this node already",
    );
    assert!(grants(&country.leaf, &["--all"]).is_empty());
}
