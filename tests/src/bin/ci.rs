//! `cargo ci`: everything that has to hold before a change lands, in one command.
//!
//! Format, lints with warnings as errors, all programs, all tests (among them the purity and direction checks,
//! the simulated seeds and the crash disk), some planted bugs that have to be found, the demo on made-up records and,
//! where `../shared/data` exists, on real ones. Every step prints what it is and how long it took; the first that fails
//! ends the run.

use std::{
    path::Path,
    process::{Command, ExitCode},
    time::Instant,
};

/// Records of the demo on made-up data.
const DEMO_RECORDS: &str = "2000";
/// Planted bugs of every run; other ones each day.
const CANARIES: &str = "5";
/// What cargo says to the program that it runs. Build scripts would take it for a change, and build anew.
const FROM_CARGO: [&str; 5] =
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate lies in the workspace");
    let data = root.join("../shared/data");
    let canaries =
        ["run", "--release", "--quiet", "-p", "tuyen-tests", "--bin", "canaries", "--", "--few", CANARIES];
    let mut steps: Vec<(&str, Vec<&str>)> = vec![
        ("format", vec!["fmt", "--all", "--check"]),
        ("programs", vec!["build", "--release", "--workspace", "--bins"]),
        ("lints", vec!["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"]),
        ("tests", vec!["test", "--release", "--workspace"]),
        ("planted bugs", canaries.to_vec()),
        ("demo", vec!["run", "--release", "--quiet", "--", "demo", "--records", DEMO_RECORDS]),
    ];
    let (hl7, synthea) = (data.join("hl7-r4-examples.ndjson"), data.join("synthea"));
    let (hl7, synthea) = (hl7.to_string_lossy().into_owned(), synthea.to_string_lossy().into_owned());
    if data.exists() {
        let on = |data| vec!["run", "--release", "--quiet", "--", "demo", "--data", data];
        steps.push(("demo on HL7's examples", on(&hl7)));
        steps.push(("demo on Synthea's patients", on(&synthea)));
    } else {
        eprintln!("ci: NO REAL DATA at {}: the demo runs on made-up records only", data.display());
    }
    let began = Instant::now();
    tell_of_room(root);
    for (name, arguments) in steps {
        eprintln!("ci: {name}: cargo {}", arguments.join(" "));
        let step = Instant::now();
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        for (name, _) in std::env::vars_os() {
            if FROM_CARGO.iter().any(|start| name.to_string_lossy().starts_with(start)) {
                command.env_remove(name);
            }
        }
        let status = command.args(&arguments).current_dir(root).status();
        match status {
            Ok(status) if status.success() => eprintln!("ci: {name}: ok, {} s", step.elapsed().as_secs()),
            Ok(status) => {
                eprintln!("ci: {name} FAILED ({status}); repeat it with: cargo {}", arguments.join(" "));
                tell_of_room(root);
                return ExitCode::FAILURE;
            }
            Err(error) => {
                eprintln!("ci: cannot run cargo ({error}); install Rust with rustup");
                return ExitCode::FAILURE;
            }
        }
    }
    println!("ci: all steps passed in {} s", began.elapsed().as_secs());
    ExitCode::SUCCESS
}

/// Says how much room there is: a machine that has none fails in many ways, and seldom says why.
fn tell_of_room(root: &Path) {
    let disks = Command::new("df").arg("-h").args([root, &std::env::temp_dir()]).output();
    match disks {
        Ok(disks) => eprint!("ci: room on disks:\n{}", String::from_utf8_lossy(&disks.stdout)),
        Err(error) => eprintln!("ci: the room on disks is not known: df: {error}"),
    }
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let free = memory.lines().find(|line| line.starts_with("MemAvailable"));
    eprintln!("ci: memory: {}", free.unwrap_or("not known"));
}
