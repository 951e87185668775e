//! Who holds what: the clinic of a patient, everybody below an issuer, and a machine that takes another's place.

use std::path::Path;

use node::{
    admin::{Explained, Failure, FailureKind, History, Reason as Why, Replaced, Request, Status},
    config::{Config, DATABASE, Policy, Profile},
    fhir::population::Population,
    setup,
};
use serde_json::{Value, json};
use sync_core::{
    id::{OrgId, Secrecy},
    identity::{Reason, Role},
    scope::Way,
};
use tuyen_tests::{
    cluster::{Country, Node, has_alert, org, record, transaction, wait_equal, wait_for},
    proxy::{Line, Proxy},
    run::tuyen,
};

/// A hub with two clinics below the centre.
struct Provinces {
    country: Country,
    other: Node,
}

impl Provinces {
    fn new() -> Self {
        let country = Country::new();
        let other = country.hub.child(&country.dir.path().join("leaf2"), Role::Leaf, "meo-vac");
        Self { country, other }
    }

    /// Waits until everything is at the centre, and whatever of the hub's has to come down has: what it issues last is
    /// everywhere, and it goes by the same lane.
    fn settle(&self, mark: u32) {
        let Country { root, hub, leaf, .. } = &self.country;
        let safe = |all: &[Status]| all.iter().all(|s| s.not_at_root.entries == 0 && s.unfolded == 0);
        wait_for("all at the centre", &[leaf, &self.other, hub], safe);
        let mark = record(&format!("PlanDefinition/o.ha-giang.mark-{mark}"));
        hub.put([json!({"resourceType": "PlanDefinition", "id": mark.id()}).to_string()]);
        for node in [leaf, &self.other, root] {
            node.wait("the mark", |s| s.unfolded == 0 && holds(node, mark.as_str()));
        }
    }
}

fn explain(node: &Node, name: &str) -> Explained {
    node.ask(&Request::ExplainRecord { record: record(name) })
}

fn holds(node: &Node, name: &str) -> bool {
    explain(node, name).entries > 0
}

fn refused(node: &Node, resource: &Value) -> String {
    let resources = vec![serde_json::value::to_raw_value(resource).unwrap()];
    let put = Request::Put { resources, base: None, by: None, why: None };
    let written: node::admin::Written = node.ask(&put);
    assert!(written.written.is_empty(), "it was taken");
    written.rejected[0].problem.clone()
}

/// Two clinics have given one id to two patients: what each has written is shown at both, so both are told, and who stands above.
#[test]
fn one_id_for_two_patients_is_told_wherever_they_are_shown() {
    let provinces = Provinces::new();
    let Provinces { country: Country { root, hub, leaf, .. }, other } = &provinces;
    let patient =
        |id: &str, gender: &str| json!({"resourceType": "Patient", "id": id, "gender": gender}).to_string();
    leaf.put([patient("own", "male"), patient("1", "male")]);
    leaf.wait_safe();
    let told = |node: &Node| {
        let alerts = node.status().alerts;
        alerts
            .into_iter()
            .filter(|alert| alert.code == "two_homes")
            .map(|alert| alert.text)
            .collect::<Vec<_>>()
    };
    assert!([root, hub, leaf].into_iter().all(|node| told(node).is_empty()));
    other.put([patient("1", "female")]);
    for node in [root, hub, leaf, other] {
        node.wait("it is told", |s| has_alert(&s.alerts, "two_homes", "Patient/1 was made at "));
        let said = told(node);
        assert!(said.len() == 1 && said[0].contains("dong-van") && said[0].contains("meo-vac"), "{said:?}");
        assert!(!said[0].contains("male"), "{said:?}");
    }
}

/// What a province writes about a clinic's patient is at the clinic too, and at no other.
#[test]
fn what_is_written_about_a_patient_goes_to_the_patients_clinic() {
    let provinces = Provinces::new();
    let Country { root, hub, leaf, .. } = &provinces.country;
    leaf.put([json!({"resourceType": "Patient", "id": "p1"}).to_string()]);
    provinces.settle(1);
    let subject = json!({"reference": "Patient/p1"});
    hub.put([
        json!({"resourceType": "Observation", "id": "about", "status": "final", "subject": subject})
            .to_string(),
        json!({"resourceType": "Observation", "id": "nobody", "status": "final"}).to_string(),
    ]);
    // The centre is two steps above the clinic.
    root.put([json!({"resourceType": "Condition", "id": "far", "subject": subject}).to_string()]);
    leaf.wait("what was written above", |_| holds(leaf, "Observation/about") && holds(leaf, "Condition/far"));
    provinces.settle(2);
    assert!(holds(root, "Observation/about") && holds(hub, "Condition/far"));
    assert!(!holds(&provinces.other, "Observation/about") && !holds(&provinces.other, "Condition/far"));
    assert!(!holds(leaf, "Observation/nobody"), "it is the hub's own");

    let explained = explain(hub, "Observation/about");
    assert_eq!(explained.homes[0].org, org("dong-van"));
    let why: Vec<_> = explained.neighbours.iter().map(|to| (to.place.org().as_str(), to.reason)).collect();
    assert_eq!(
        why,
        [
            ("trung-uong", Why::EverythingGoesUp),
            ("dong-van", Why::HomeWithin),
            ("meo-vac", Why::NoHomeWithin)
        ]
    );
    // The clinic edits it like its own, and the edit arrives.
    leaf.edit("Observation/about", "bs. Lan", |it| it["status"] = json!("amended"));
    provinces.settle(3);
    assert_eq!(root.value("Observation/about")["status"], "amended");
}

/// What is about nobody goes to the organization that manages it, wherever it was written; a patient whom a province registers
/// for a clinic, with what is written about the patient in the same breath, too.
#[test]
fn what_an_organization_manages_goes_to_it() {
    let provinces = Provinces::new();
    let Country { root, hub, leaf, .. } = &provinces.country;
    // Whoever has written something is known to the centre.
    leaf.put([json!({"resourceType": "Patient", "id": "p8"}).to_string()]);
    provinces.settle(0);
    let clinic = json!({"reference": "Organization/dong-van"});
    let by_identifier = json!({"identifier": {"system": "urn:tuyen:organization", "value": "dong-van"}});
    let subject = json!({"reference": "Patient/p9"});
    hub.put([
        json!({"resourceType": "Location", "id": "room", "managingOrganization": clinic}).to_string(),
        json!({"resourceType": "Patient", "id": "p9", "managingOrganization": clinic}).to_string(),
        json!({"resourceType": "Observation", "id": "about", "status": "final", "subject": subject})
            .to_string(),
        // Managed by somebody of another province, and by nobody whom the tree knows: the writer's own.
        json!({"resourceType": "Device", "id": "far", "owner": {"reference": "Organization/bac-quang"}})
            .to_string(),
        json!({"resourceType": "Device", "id": "own"}).to_string(),
    ]);
    root.put([json!({"resourceType": "Device", "id": "scales", "owner": by_identifier}).to_string()]);
    let all = ["Location/room", "Patient/p9", "Observation/about", "Device/scales"];
    leaf.wait("what it manages", |_| all.iter().all(|name| holds(leaf, name)));
    provinces.settle(1);
    assert!(!all.iter().any(|name| holds(&provinces.other, name)));
    for own in ["Device/far", "Device/own"] {
        assert!(!holds(leaf, own) && holds(root, own));
        assert_eq!(explain(hub, own).homes[0].org, org("ha-giang"));
    }
    // It keeps its home when somebody else comes to manage it.
    hub.edit("Location/room", "bs. Lan", |it| {
        it["managingOrganization"] = json!({"reference": "Organization/meo-vac"})
    });
    provinces.settle(2);
    assert!(!holds(&provinces.other, "Location/room"));
    assert_eq!(leaf.value("Location/room")["managingOrganization"]["reference"], "Organization/meo-vac");
}

/// A directive is everywhere below its issuer, is changed there alone, and survives that its issuer forgets it.
#[test]
fn what_an_organization_issues_is_everywhere_below_it() {
    let mut provinces = Provinces::new();
    let directive =
        |title: &str| json!({"resourceType": "PlanDefinition", "id": "o.ha-giang.17", "title": title});
    let name = "PlanDefinition/o.ha-giang.17";
    let copy = provinces.country.dir.path().join("hub-copy");
    provinces.country.hub.stop();
    provinces.country.hub.copy(&copy);
    provinces.country.hub.start();
    provinces.country.hub.put([directive("first").to_string()]);
    let Country { root, hub, leaf, .. } = &provinces.country;
    for node in [leaf, &provinces.other, root] {
        node.wait("the directive", |_| holds(node, name));
    }
    assert_eq!(explain(hub, name).issuer, Some(org("ha-giang")));
    assert!(explain(hub, name).neighbours[1..].iter().all(|to| to.sent && to.reason == Why::IssuedAbove));
    // Nobody below changes it, nor takes a name of somebody else's.
    let problem = refused(leaf, &directive("mine"));
    assert!(problem.contains("is issued by ha-giang"), "{problem}");
    let deleted: Result<node::admin::Written, Failure> =
        leaf.try_ask(&Request::Delete { record: record(name), base: None, by: None, why: None });
    assert_eq!(deleted.unwrap_err().kind, FailureKind::Failed);
    let foreign = json!({"resourceType": "PlanDefinition", "id": "o.trung-uong.1"});
    assert!(refused(leaf, &foreign).contains("is issued by trung-uong"));
    // The centre may: it speaks for everybody below it.
    root.edit(name, "centre", |it| it["title"] = json!("second"));
    for node in [leaf, &provinces.other, hub] {
        node.wait("the correction", |_| holds(node, name) && node.value(name)["title"] == "second");
    }
    // The hub is put back to before it; its clinics give back what it issued.
    let Provinces { country, .. } = &mut provinces;
    country.root.kill();
    country.hub.kill();
    country.hub.restore(&copy);
    country.hub.start();
    // An idle child would notice at its next sign of life only.
    country.leaf.sync();
    country.hub.wait("it comes back from below", |_| holds(&country.hub, name));
    country.hub.wait("folded", |s| s.unfolded == 0);
    assert_eq!(country.hub.value(name)["title"], "second");
    assert!(!has_alert(&country.hub.status().alerts, "refused", ""), "{:?}", country.hub.status().alerts);
}

/// The folder of a fresh machine, enrolled with a token.
fn enrolled(dir: &Path, token: &str) -> Node {
    setup::enrol(dir, token, None).unwrap();
    assert!(dir.join(DATABASE).exists());
    let mut node = Node::at(dir);
    node.start();
    node
}

/// A clinic's machine is lost. One command at the hub puts it out and lets another in, which gets everything back.
#[test]
fn a_machine_that_takes_anothers_place_is_given_everything() {
    let mut country = Country::new();
    let home = OrgId::new("dong-van").unwrap();
    country.leaf.put(Population::records(7, &home, 200).map(|one| one.to_string()));
    country.leaf.wait_safe();
    let lost = country.leaf.status();
    let stolen = country.dir.path().join("stolen");
    country.leaf.kill();
    country.leaf.copy(&stolen);
    std::fs::remove_dir_all(&country.leaf.dir).unwrap();

    let unknown: Result<Replaced, Failure> = country.hub.try_ask(&replace("nobody"));
    assert_eq!(unknown.unwrap_err().kind, FailureKind::Usage);
    let replaced: Replaced = country.hub.ask(&replace("dong-van"));
    assert_eq!((&replaced.nodes[..], replaced.role, replaced.tokens), (&[lost.node][..], Role::Leaf, 0));
    // The token went astray: the same words give another, and that one is good no more.
    let astray = replaced.invited.token;
    let replaced: Replaced = country.hub.ask(&replace("dong-van"));
    assert_eq!((&replaced.nodes[..], replaced.tokens), (&[lost.node][..], 1));
    let found = setup::enrol(&country.dir.path().join("found"), &astray, None).unwrap_err().to_string();
    assert!(found.contains("this token was taken back"), "{found}");
    let fresh = enrolled(&country.dir.path().join("fresh"), &replaced.invited.token);
    let all = wait_equal(&[&fresh, &country.hub, &country.root], lost.entries);
    assert_eq!(all[0].digest, lost.digest);
    assert_ne!(all[0].node, lost.node, "it is another node");
    // The same words once more would put out the new machine: that has to be said.
    let failure = country.hub.try_ask::<Replaced>(&replace("dong-van")).unwrap_err();
    let (new, old) = (all[0].node, lost.node);
    assert_eq!(failure.kind, FailureKind::Usage);
    assert!(failure.text.contains(&format!("--node {}", new.short())), "{failure:?}");
    let failure = country.hub.try_ask::<Replaced>(&replace_node("dong-van", Some(old.short()))).unwrap_err();
    assert!(failure.text.contains("does not stand for dong-van"), "{failure:?}");
    // What it writes is safe as ever.
    fresh.put([json!({"resourceType": "Basic", "id": "after"}).to_string()]);
    fresh.wait_safe();
    // The stolen machine is refused, and told why.
    let mut stolen = Node::at(&stolen);
    stolen.start();
    stolen.wait("it is told", |s| has_alert(&s.alerts, "refused", "revoked"));
    assert_eq!(stolen.status().down.len(), 0);
    // The new one is lost as well.
    let replaced: Replaced = country.hub.ask(&replace_node("dong-van", Some(new.short())));
    assert!(replaced.nodes.contains(&new), "{replaced:?}");
    fresh.wait("it is told", |s| has_alert(&s.alerts, "refused", "revoked"));
}

/// Who is behind, and by how much, stands at both ends of a thin line, until nothing is still to come.
#[test]
fn both_ends_of_a_thin_line_know_how_much_is_still_to_come() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Node::root(&dir.path().join("hub"), "trung-uong");
    let thin = Line { bits_per_second: Some(256_000), ..Line::default() };
    let proxy = Proxy::to(hub.config().listen.unwrap(), thin, 1);
    let mut leaf = hub.child_through(Some(proxy.address), &dir.path().join("leaf"), Role::Leaf, "dong-van");
    leaf.put(Population::records(7, &org("dong-van"), 2_000).map(|one| one.to_string()));
    let child = |status: &Status| status.down[0].clone();
    let behind = hub.wait("the clinic is behind", |s| child(s).to_come.is_some_and(|n| n > 1_000));
    assert!(child(&behind).to_come.is_some_and(|n| n < 2_000));
    // What it had said last is still known when it has gone.
    leaf.stop();
    let gone = hub.wait("it has gone", |s| child(s).state == "away");
    assert!(child(&gone).to_come.is_some_and(|n| n > 0) && child(&gone).behind.is_none());
    proxy.set(Line::default());
    leaf.start();
    leaf.wait_safe();
    let all = hub.status();
    assert_eq!((child(&all).to_come, child(&all).behind), (Some(0), Some(0)));

    // The same from above: a new machine is given everything.
    leaf.kill();
    proxy.set(thin);
    let address = Some(proxy.address.to_string());
    let lost = Request::Replace {
        org: org("dong-van"),
        node: None,
        reason: Reason::Lost,
        expires_seconds: 3600,
        address,
    };
    let replaced: Replaced = hub.ask(&lost);
    let fresh = enrolled(&dir.path().join("fresh"), &replaced.invited.token);
    let to_come = |status: &Status| status.up.as_ref().and_then(|up| up.to_come);
    let waits = fresh.wait("it knows how much is to come", |s| to_come(s).is_some_and(|n| n > 1_000));
    assert!(to_come(&waits).is_some_and(|n| n < 2_000));
    assert!(child(&hub.status()).behind.is_some_and(|n| n > 0));
    let said = tuyen(&fresh.dir, &["status"], b"").expect(0);
    assert!(
        said.out.contains("entries are still to come from trung-uong; the urgent come first"),
        "{said:?}"
    );
    proxy.set(Line::default());
    let all = fresh.wait("everything", |s| s.records == 2_000 && to_come(s) == Some(0));
    assert_eq!(all.entries, 2_000);
    assert_eq!(child(&hub.status()).behind, Some(0));
}

fn replace(name: &str) -> Request {
    replace_node(name, None)
}

fn replace_node(name: &str, node: Option<String>) -> Request {
    Request::Replace { org: org(name), node, reason: Reason::Lost, expires_seconds: 3600, address: None }
}

fn allows(node: &mut Node, with: &str, up_to: Secrecy) {
    node.stop();
    let profile = Profile {
        with: org(with),
        by: Way::Link,
        up_to,
        decided_by: "the head of the board".to_owned(),
        why: "an isolated network".to_owned(),
    };
    node.configure(|config| config.profiles.push(profile));
    node.start();
}

/// Each link needs the decision of both its ends, and what is more secret stays.
#[test]
fn what_is_secret_goes_as_far_as_both_ends_allow_it() {
    let Country { mut root, mut hub, mut leaf, dir: _dir } = Country::new();
    let note = |id: &str, code: &str| {
        let label = json!({"security": [{"system": "urn:tuyen:secrecy", "code": code}]});
        json!({"resourceType": "DocumentReference", "id": id, "status": "current", "meta": label}).to_string()
    };
    let [mat, toi_mat, before] = ["mat", "toi-mat", "before"].map(|id| format!("DocumentReference/{id}"));
    leaf.put([note("before", "mat")]);
    allows(&mut leaf, "ha-giang", Secrecy::ToiMat);
    leaf.put([note("mat", "mat"), note("toi-mat", "toi-mat")]);
    leaf.wait("the link", |s| s.up.as_ref().is_some_and(|up| up.state == "connected"));
    let agreed = |node: &Node| node.status().profiles[0].agreed;
    assert!(leaf.status().profiles[0].is_heard_of);
    assert_eq!(agreed(&leaf), Some(Secrecy::None), "one end alone decides nothing");
    assert!(!holds(&hub, &mat));
    allows(&mut hub, "dong-van", Secrecy::Mat);
    hub.wait("what may come", |_| holds(&hub, &mat) && holds(&hub, &before));
    assert_eq!((agreed(&leaf), agreed(&hub)), (Some(Secrecy::Mat), Some(Secrecy::Mat)));
    leaf.wait_safe();
    assert!(!holds(&hub, &toi_mat) && !holds(&root, &mat), "it goes no further than the hub");
    let explained = explain(&hub, &mat);
    assert!(explained.neighbours.iter().any(|to| !to.sent && to.reason == Why::Secret && to.held_back == 1));
    // What is written to a file is said to be secret.
    let file = leaf.dir.join("all.ndjson");
    let exported = tuyen(&leaf.dir, &["records", "export", file.to_str().unwrap(), "--json"], b"").expect(0);
    assert_eq!(exported.json()["secret"], 3);
    assert!(exported.err.contains("3 records are secret"), "{}", exported.err);
    let again = tuyen(&leaf.dir, &["records", "export", file.to_str().unwrap()], b"").expect(2);
    again.says(&["all.ndjson is there already; name another file"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap().matches("urn:tuyen:secrecy").count(), 3);
    // Of all that the clinic has, two changes go no further than the hub, and one does not leave the clinic.
    for (node, held) in [(&hub, [2, 0]), (&leaf, [1, 0])] {
        let all: Explained = node.ask(&Request::ExplainOrg { org: org("dong-van") });
        let kept: Vec<_> = all.neighbours.iter().map(|to| to.held_back).collect();
        assert_eq!(kept, held[..all.neighbours.len()], "{all:?}");
        assert!(all.neighbours[0].sent, "{all:?}");
    }
    allows(&mut hub, "trung-uong", Secrecy::TuyetMat);
    allows(&mut root, "ha-giang", Secrecy::Mat);
    root.wait("the rest of the way", |_| holds(&root, &mat) && holds(&root, &before));
    assert!(!holds(&root, &toi_mat));
    // What no line may carry a stick may, where that is decided.
    let up = |leaf: &Node| explain(leaf, &toi_mat).neighbours[0].clone();
    assert!(!up(&leaf).sent && !up(&leaf).by_bundle);
    leaf.stop();
    leaf.configure(|config| {
        let by_stick = Profile { by: Way::Courier, ..config.profiles[0].clone() };
        config.profiles.push(by_stick);
    });
    leaf.start();
    assert!(!up(&leaf).sent && up(&leaf).by_bundle);
    // A profile that nobody answers for stops the start.
    leaf.stop();
    leaf.configure(|config| config.profiles[0].decided_by = " ".to_owned());
    let error = Config::load(&leaf.dir).unwrap_err().to_string();
    assert!(error.contains("does not name who decided it"), "{error}");
}

fn policy(of: &[&str]) -> Policy {
    Policy {
        of: of.iter().map(|of| (*of).to_owned()).collect(),
        is: Secrecy::Mat,
        decided_by: "the head of the board".to_owned(),
        why: "decision 12".to_owned(),
    }
}

/// A bundle names its patient by `urn:uuid:`, and its entries come in any order: a policy speaks of all that is about the patient.
#[test]
fn what_a_bundle_brings_about_a_patient_is_secret_with_the_patient() {
    let Country { hub, mut leaf, root: _root, dir: _dir } = Country::new();
    let id = "0bfeda65-c8ac-4dd7-a46c-d69e665996d4";
    leaf.stop();
    leaf.configure(|config| config.policies.push(policy(&[&format!("Patient/{id}")])));
    leaf.start();
    let it = json!({"reference": format!("urn:uuid:{id}")});
    let encounter = json!({"reference": "urn:uuid:e1"});
    let bundle = transaction(&[
        json!({"resourceType": "AllergyIntolerance", "id": "a1", "patient": it, "code": {"text": "penicillin"}}),
        json!({"resourceType": "Encounter", "id": "e1", "status": "finished", "subject": it,
            "participant": [{"individual": {"reference": "urn:uuid:d1"}}]}),
        json!({"resourceType": "Practitioner", "id": "d1"}),
        json!({"resourceType": "Observation", "id": "o1", "status": "final", "subject": it, "encounter": encounter}),
        json!({"resourceType": "ExplanationOfBenefit", "id": "b1", "patient": it, "contained": [
            {"resourceType": "Coverage", "id": "coverage", "beneficiary": it}]}),
        json!({"resourceType": "Patient", "id": id}),
        json!({"resourceType": "Observation", "id": "o2", "status": "final"}),
    ]);
    let imported = leaf.import(&bundle.to_string());
    assert_eq!((&imported["written"], &imported["patients_not_here"]), (&json!(7), &json!([])), "{imported}");
    leaf.wait_safe();
    for open in ["Practitioner/d1", "Observation/o2"] {
        hub.wait("what is about nobody", |_| holds(&hub, open));
    }
    let at_hub = hub.wait("all is folded", |s| s.unfolded == 0);
    assert_eq!((leaf.status().secret, at_hub.records), (5, 2));
    assert!(!hub.export().concat().contains(id), "the patient is named at the hub");
    assert_eq!(leaf.value("Encounter/e1")["participant"][0]["individual"]["reference"], "Practitioner/d1");
    assert_eq!(leaf.value("Observation/o1")["encounter"]["reference"], "Encounter/e1");
}

/// A line of NDJSON is a record as it stands, a Bundle too: the policy for the patient in it does not find it, which is said.
#[test]
fn a_bundle_that_is_kept_whole_is_told() {
    let Country { hub, mut leaf, root: _root, dir } = Country::new();
    leaf.stop();
    leaf.configure(|config| config.policies.push(policy(&["Patient/p"])));
    leaf.start();
    let bundle = transaction(&[json!({"resourceType": "Patient", "id": "p"})]).to_string();
    let import = |name: &str, more: &[&str]| {
        let file = dir.path().join(name);
        std::fs::write(&file, &bundle).unwrap();
        tuyen(&leaf.dir, &[&["records", "import", file.to_str().unwrap()], more].concat(), b"").expect(0)
    };
    let said = import("b.ndjson", &[]);
    assert!(said.out.contains("1 record written, 1 given an id, 1 kept whole as a Bundle."), "{said:?}");
    assert!(
        said.err.contains("1 Bundle was kept whole") && said.err.contains("b.ndjson, line 1 (Bundle/"),
        "{said:?}"
    );
    assert!(said.err.contains("save each Bundle as a .json file of its own"), "{said:?}");
    let again = import("b.ndjson", &["--json"]).json();
    let kept = &again["bundles_kept_whole"];
    assert_eq!((kept[0]["line"].as_u64(), &again["unchanged"]), (Some(1), &json!(1)), "{again}");
    let name = kept[0]["record"].as_str().unwrap();
    hub.wait("the Bundle goes up", |_| holds(&hub, name));
    // What was advised does what it says.
    let apart = import("b.json", &["--json"]).json();
    assert_eq!((&apart["bundles_kept_whole"], &apart["written"]), (&json!([]), &json!(1)), "{apart}");
    leaf.wait_safe();
    assert_eq!((leaf.status().secret, holds(&hub, "Patient/p")), (1, false));
}

/// Somebody has to look at what no policy and no grant finds.
#[test]
fn a_reference_to_what_is_no_entry_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let root = Node::root(&dir.path().join("root"), "trung-uong");
    let lost = |id: &str| {
        let subject = json!({"reference": "urn:uuid:canary-4e1d"});
        json!({"resourceType": "Observation", "id": id, "status": "final", "subject": subject, "focus": [subject]})
    };
    let all =
        root.import(&transaction(&[lost("1"), json!({"resourceType": "Patient", "id": "p"})]).to_string());
    assert_eq!(all["references_unresolved"], json!([{"record": "Observation/1", "references": 2}]), "{all}");
    let lines: String = (0..12).map(|n| format!("{}\n", lost(&n.to_string()))).collect();
    let said = tuyen(&root.dir, &["records", "import", "-"], lines.as_bytes()).expect(0);
    assert!(said.out.contains("12 with references to what is no entry of the same Bundle"), "{said:?}");
    assert_eq!(said.err.matches("has 2 references (such as urn:uuid:…) to what is no entry").count(), 10);
    assert!(said.err.contains("and 2 more with references to what is no entry"), "{said:?}");
    let put = |more: &[&str]| {
        tuyen(&root.dir, &[&["records", "put", "-"], more].concat(), lost("13").to_string().as_bytes())
            .expect(0)
    };
    assert_eq!(put(&["--json"]).json()["references_unresolved"], 2);
    let put = put(&[]).says(&["Observation/13 has 2 references"]);
    assert!(!(said.err + &put.err + &said.out).contains("canary"), "no value in a message");
    assert_eq!(root.value("Observation/13")["subject"]["reference"], "urn:uuid:canary-4e1d", "it is kept");
}

/// The home has decided that some of what it writes goes no further than its hub: nothing has to be marked for that, and what the
/// policy does not speak of goes on.
#[test]
fn what_a_policy_speaks_of_stays_below_the_root() {
    let Country { mut root, mut hub, mut leaf, dir: _dir } = Country::new();
    leaf.stop();
    leaf.configure(|config| config.policies.push(policy(&["Condition", "Patient/chief"])));
    leaf.start();
    allows(&mut leaf, "ha-giang", Secrecy::Mat);
    allows(&mut hub, "dong-van", Secrecy::Mat);
    let of = |resource_type: &str, id: &str, patient: &str| {
        json!({"resourceType": resource_type, "id": id, "subject": {"reference": format!("Patient/{patient}")}})
            .to_string()
    };
    let patient = |id: &str| json!({"resourceType": "Patient", "id": id}).to_string();
    leaf.put([patient("chief"), patient("other"), of("Observation", "of-chief", "chief")]);
    leaf.put([of("Condition", "of-other", "other"), of("Observation", "of-other", "other")]);
    for kept in ["Patient/chief", "Observation/of-chief", "Condition/of-other"] {
        hub.wait("what its profile allows", |_| holds(&hub, kept));
    }
    leaf.wait_safe();
    for open in ["Patient/other", "Observation/of-other"] {
        root.wait("what no policy speaks of", |_| holds(&root, open));
    }
    let status = leaf.status();
    assert_eq!((status.secret, status.policies.len(), root.status().secret), (3, 1, 0));
    for kept in ["Patient/chief", "Observation/of-chief", "Condition/of-other"] {
        assert!(!holds(&root, kept), "{kept} is at the root");
    }
    // What comes out is what was written: nothing was added.
    let got: node::admin::Resource =
        leaf.ask(&Request::Get { record: "Observation/of-chief".parse().unwrap() });
    assert_eq!(got.resource.get(), of("Observation", "of-chief", "chief"));
    // What is misspelt, or what nobody answers for, stops the start.
    leaf.stop();
    let good = Config::load(&leaf.dir).unwrap();
    for (of, by, problem) in [
        (&["Conditon"][..], "somebody", "is neither a resource type of FHIR R4"),
        (&["Practitioner/1"], "somebody", "is neither a resource type of FHIR R4"),
        (&[], "somebody", "does not say of what it speaks"),
        (&["*"], " ", "does not name who decided it"),
    ] {
        let mut config = good.clone();
        config.policies = vec![Policy { decided_by: by.to_owned(), ..policy(of) }];
        config.save(&leaf.dir).unwrap();
        let error = Config::load(&leaf.dir).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
    // So does a setting that nobody knows: it may be a policy that protects nobody, or a link that cannot live so.
    for (key, value, problem) in [
        ("polcies", json!([policy(&["*"])]), "unknown field `polcies`"),
        ("link", json!({"keep_alive_seconds": 300}), "300 that is not between 1 and 100"),
    ] {
        good.save(&leaf.dir).unwrap();
        let path = leaf.dir.join("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config[key] = value;
        std::fs::write(&path, config.to_string()).unwrap();
        let error = Config::load(&leaf.dir).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
    root.stop();
}

/// What is marked secret stays where it was written, everything else goes on, and people are told.
#[test]
fn what_is_secret_stays_at_the_machine_where_it_was_written() {
    let country = Country::new();
    let Country { root, hub, leaf, .. } = &country;
    let label = |code: &str| json!({"security": [{"system": "urn:tuyen:secrecy", "code": code}]});
    let note = |id: &str, code: Option<&str>| {
        let mut note = json!({"resourceType": "DocumentReference", "id": id, "status": "current"});
        if let Some(code) = code {
            note["meta"] = label(code);
        }
        note.to_string()
    };
    leaf.pause();
    leaf.put([note("open", None), note("secret", Some("mat")), note("marked-later", None)]);
    // Nothing of it has left yet when it is marked.
    leaf.put([note("marked-later", Some("tuyet-mat"))]);
    // The label is taken off again; the degree stays.
    leaf.put([note("secret", None)]);
    leaf.resume();
    leaf.wait_safe();
    let at_leaf = leaf.status();
    assert_eq!((at_leaf.secret, at_leaf.records), (2, 3));
    for node in [hub, root] {
        node.wait("the open one", |_| holds(node, "DocumentReference/open"));
        for secret in ["DocumentReference/secret", "DocumentReference/marked-later"] {
            assert!(!holds(node, secret), "{secret} is at {}", node.status().place);
        }
        assert_eq!(node.status().secret, 0);
    }
    let listed: node::admin::Listing =
        leaf.ask(&Request::List { resource_type: None, unread: false, after: None, limit: 10 });
    let safe = |id: &str| listed.records.iter().find(|one| one.record.id() == id).unwrap().safe.clone();
    assert_eq!(["open", "secret", "marked-later"].map(safe), ["root", "secret", "secret"]);
    let History { changes, .. } =
        leaf.ask(&Request::History { record: record("DocumentReference/marked-later") });
    let safe: Vec<_> = changes.iter().map(|one| one.safe.as_str()).collect();
    assert_eq!(safe, ["marked_later", "secret"], "nobody can tell whether the first had left");
    let explained = explain(leaf, "DocumentReference/marked-later");
    assert_eq!(explained.secrecy, Secrecy::TuyetMat);
    assert!(explained.neighbours.iter().all(|to| !to.sent && to.reason == Why::Secret));
    // Nor is it given in an audit, which finds nothing to do.
    let verified: node::admin::Verified = hub.ask(&Request::Verify { with: Some(org("dong-van")) });
    let audit = verified.audit.expect("it was asked for");
    assert_eq!((audit.here, audit.there), (0, 0));
    assert!(!holds(hub, "DocumentReference/secret"));
    // A degree that does not exist is not taken for none.
    let mut wrong = json!({"resourceType": "Basic", "id": "wrong"});
    wrong["meta"] = label("Mật");
    let problem = refused(leaf, &wrong);
    assert!(problem.contains("mat, toi-mat and tuyet-mat") && !problem.contains("Mật"), "{problem}");
}
