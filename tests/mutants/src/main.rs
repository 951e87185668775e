//! Plants every mutant of sync-core that cargo-mutants knows, all in one copy of the tree, and lets the tests find them;
//! `mutants --help` says how.
//!
//! cargo-mutants itself builds the tree once for each mutant, which takes a night. Here each mutant is behind a switch,
//! so that the tree is built once, and the environment variable `TUYEN_MUTANT` says which one is active. A mutant is
//! caught by the first step of [`STEPS`] that fails or takes too long. A step that does not come by a mutant when none is
//! active cannot find it and is not run. One that no step catches has to be in `survivors.txt`, with the reason.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Output, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use plant::{ALLOWED, Planted, SWITCH, plant};

mod plant;

const HELP: &str = "\
Plants the mutants of sync-core, and requires that each is caught or explained in tests/mutants/survivors.txt.

  mutants                   all of them
  mutants NAME...           those whose names contain one of these: a file, a function
  mutants --again           those that were not caught the last time
  mutants --few 50          so many of them, spread over all
  mutants --quick           without the steps of half a minute and those with real processes
  mutants --list            what there is

Needs cargo-mutants (https://mutants.rs), whose list of mutants it is.
";
/// A mutant that allocates without end must not take the machine along.
const MEMORY_KIBIBYTES: u64 = 6 << 20;
/// A step may take so many times what it takes without a mutant.
const PATIENCE: f64 = 10.0;
/// Below this a step's own time says little on a busy machine.
const SECONDS_MIN: f64 = 1.0;
/// No mutant has this number; with it the planted source notes by which it comes.
const REACHING: u32 = u32::MAX - 1;
/// Rounds in which mutants that do not compile are found and left out.
const ROUNDS: usize = 30;

/// How long a step takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cost {
    Quick,
    Slow,
    Processes,
}

/// A test program with its arguments.
struct Step {
    name: &'static str,
    cost: Cost,
    program: &'static str,
    arguments: &'static [&'static str],
}

const fn step(
    name: &'static str,
    cost: Cost,
    program: &'static str,
    arguments: &'static [&'static str],
) -> Step {
    Step { name, cost, program, arguments }
}

/// Stands for the module that the mutant is in.
const MODULE: &str = "MODULE";

/// What finds mutants, in this order. `sync-core` is that crate's own tests and `tests` those of the library there.
const STEPS: &[Step] = &[
    step(
        "its own tests",
        Cost::Quick,
        "sync-core",
        &[MODULE, "--skip", "::data::", "--skip", "::oracle::", "--skip", "no_bytes"],
    ),
    step(
        "unit tests",
        Cost::Quick,
        "sync-core",
        &["--skip", "::data::", "--skip", "::oracle::", "--skip", "no_bytes"],
    ),
    step("library of tests", Cost::Quick, "tests", &["naive", "sim"]),
    step("fuzz corpus", Cost::Quick, "fuzz", &["what_once_was_found"]),
    step("sim 0..35", Cost::Quick, "sim", &["--seeds", "0..35", "--first"]),
    step("laws of merging", Cost::Quick, "laws", &["merging", "hostile", "any_depth", "long_string"]),
    step("any object", Cost::Slow, "sync-core", &["any_object", "no_bytes"]),
    step("law of resolving", Cost::Slow, "laws", &["a_resolution"]),
    step("any version", Cost::Slow, "sync-core", &["any_version"]),
    step("oracle", Cost::Slow, "sync-core", &["::oracle::"]),
    step("law of differences", Cost::Slow, "laws", &["a_difference"]),
    step("sim 35..300", Cost::Slow, "sim", &["--seeds", "35..300", "--first"]),
    step("concurrent versions", Cost::Slow, "sync-core", &["concurrent_versions"]),
    step("near the fuzz corpus", Cost::Slow, "fuzz", &["and_so_does_what_is_near_it"]),
    step("every resource", Cost::Slow, "sync-core", &["every_resource"]),
    step("round_trip", Cost::Processes, "round_trip", &[]),
    step("trust", Cost::Processes, "trust", &[]),
    step("renewal", Cost::Processes, "renewal", &[]),
    step("conflicts", Cost::Processes, "conflicts", &[]),
    step("bad_input", Cost::Processes, "bad_input", &[]),
    step("audit", Cost::Processes, "audit", &[]),
    step("scope", Cost::Processes, "scope", &[]),
];

/// A mutant as cargo-mutants lists it.
#[derive(Debug, Deserialize)]
struct Mutant {
    #[serde(skip)]
    number: u32,
    /// Its name without a line: `sync-core/src/feed.rs: replace < with <= in Lineage::covers #2`, the second of that
    /// text there.
    #[serde(skip)]
    title: String,
    name: String,
    file: PathBuf,
    genre: String,
    replacement: String,
    span: Span,
}

impl Mutant {
    /// What the names of the tests of its module begin with.
    fn module(&self) -> String {
        let name = self.file.iter().nth(2).expect("it lies in sync-core/src").to_string_lossy();
        format!("{}::", name.trim_end_matches(".rs"))
    }
}

#[derive(Debug, Deserialize)]
struct Span {
    start: Place,
}

/// Counted from 1, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct Place {
    line: usize,
    column: usize,
}

/// What became of a mutant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Outcome {
    /// It cannot be chosen when the program runs: a constant, a chain with `let`.
    NotPlanted,
    /// It does not compile, at least not beside what it replaces.
    DoesNotCompile,
    Caught(String),
    TimedOut(String),
    Survived,
}

fn main() -> Result<ExitCode> {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("this crate lies in the workspace");
    let (mut cost, mut again, mut few, mut list, mut names) =
        (Cost::Processes, false, None, false, Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--help" => {
                print!("{HELP}");
                return Ok(ExitCode::SUCCESS);
            }
            "--quick" => cost = Cost::Quick,
            "--slow" => cost = Cost::Slow,
            "--again" => again = true,
            "--list" => list = true,
            "--few" => few = Some(arguments.next().context("--few needs a number")?.parse::<usize>()?),
            name if !name.starts_with('-') => names.push(argument),
            _ => bail!("{argument:?} is not known\n\n{HELP}"),
        }
    }
    let field = Field { root: root.to_owned(), mutants: mutants_of(root)? };
    if list {
        field.mutants.iter().for_each(|mutant| println!("{}", mutant.title));
        return Ok(ExitCode::SUCCESS);
    }
    let explained = explained(&fs::read_to_string(root.join("tests/mutants/survivors.txt"))?)?;
    let last: BTreeMap<String, Outcome> = match fs::read(field.outcomes_of_last_time()) {
        Ok(last) => serde_json::from_slice(&last)?,
        Err(_) => BTreeMap::new(),
    };
    let mut chosen: Vec<_> = field.mutants.iter().collect();
    chosen.retain(|mutant| names.is_empty() || names.iter().any(|name| mutant.name.contains(name)));
    chosen.retain(|mutant| {
        !again || last.get(&mutant.name).is_none_or(|outcome| *outcome == Outcome::Survived)
    });
    if let Some(few) = few {
        let nth = chosen.len().div_ceil(few.max(1)).max(1);
        chosen = chosen.into_iter().step_by(nth).collect();
    }
    let outcomes = field.run(&chosen, cost, last)?;
    let unexplained = report(&chosen, &outcomes, &explained);
    Ok(if unexplained == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn mutants_of(root: &Path) -> Result<Vec<Mutant>> {
    let mut list = Command::new("cargo");
    list.args(["mutants", "--list", "--json", "--package", "tuyen-sync-core"]).current_dir(root);
    let listed = list.output().context("cannot run cargo")?;
    ensure!(listed.status.success(), "cargo mutants: {}", String::from_utf8_lossy(&listed.stderr));
    let mut mutants: Vec<Mutant> = serde_json::from_slice(&listed.stdout)?;
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for (number, mutant) in mutants.iter_mut().enumerate() {
        mutant.number = number as u32;
        let place = format!(":{}:{}", mutant.span.start.line, mutant.span.start.column);
        let title = mutant.name.replacen(&place, "", 1);
        let same = seen.entry(title.clone()).or_default();
        *same += 1;
        mutant.title = if *same == 1 { title } else { format!("{title} #{same}") };
    }
    Ok(mutants)
}

/// The titles of `survivors.txt`. Those that have one reason stand below it; it begins with `#`.
fn explained(text: &str) -> Result<BTreeSet<String>> {
    let (mut titles, mut reason) = (BTreeSet::new(), false);
    for line in text.lines().map(str::trim) {
        match line {
            "" => reason = false,
            line if line.starts_with('#') => reason = true,
            title => {
                ensure!(reason, "survivors.txt gives no reason for {title}");
                ensure!(titles.insert(title.to_owned()), "survivors.txt has two reasons for {title}");
            }
        }
    }
    Ok(titles)
}

/// Prints what became of the mutants; how many survivors nobody has explained.
fn report(chosen: &[&Mutant], outcomes: &BTreeMap<u32, Outcome>, explained: &BTreeSet<String>) -> usize {
    let mut counted: BTreeMap<String, usize> = BTreeMap::new();
    let mut unexplained = 0;
    for mutant in chosen {
        let outcome = &outcomes[&mutant.number];
        let known = explained.contains(&mutant.title);
        let kind = match outcome {
            Outcome::Survived if known => "survived, explained".to_owned(),
            Outcome::Survived => "survived, not explained".to_owned(),
            Outcome::NotPlanted => "not planted".to_owned(),
            Outcome::DoesNotCompile => "does not compile".to_owned(),
            Outcome::Caught(step) => format!("caught by {step}"),
            Outcome::TimedOut(step) => format!("timed out in {step}"),
        };
        *counted.entry(kind).or_default() += 1;
        match outcome {
            Outcome::Survived if !known => {
                unexplained += 1;
                println!("SURVIVED {} ({})", mutant.title, mutant.name);
            }
            Outcome::NotPlanted => println!("not planted: {}", mutant.name),
            Outcome::Caught(step) | Outcome::TimedOut(step) if known => {
                println!("{step} finds what survivors.txt explains: {}", mutant.title);
            }
            _ => {}
        }
    }
    println!("{} mutants", chosen.len());
    counted.iter().for_each(|(kind, number)| println!("{number:5} {kind}"));
    unexplained
}

/// A copy of the tree in which all mutants are planted.
struct Field {
    root: PathBuf,
    mutants: Vec<Mutant>,
}

/// What a step does when no mutant is active.
struct Measured {
    step: &'static Step,
    seconds: f64,
    reached: BTreeSet<u32>,
}

impl Field {
    fn run(
        &self,
        chosen: &[&Mutant],
        cost: Cost,
        mut kept: BTreeMap<String, Outcome>,
    ) -> Result<BTreeMap<u32, Outcome>> {
        let mut outcomes = self.plant(&kept)?;
        kept.extend(
            outcomes.iter().map(|(n, outcome)| (self.mutants[*n as usize].name.clone(), outcome.clone())),
        );
        let programs = self.build(cost)?;
        let mut steps = Vec::new();
        for step in STEPS.iter().filter(|step| step.cost <= cost) {
            steps.push(self.measure(step, &programs)?);
        }
        let waiting: Vec<_> = chosen.iter().filter(|mutant| !outcomes.contains_key(&mutant.number)).collect();
        let (next, done) = (AtomicUsize::new(0), Mutex::new((&mut outcomes, kept)));
        let work = || -> Result<()> {
            while let Some(mutant) = waiting.get(next.fetch_add(1, Ordering::Relaxed)) {
                let outcome = self.try_out(mutant, &steps, &programs)?;
                println!("{:?} {}", outcome, mutant.name);
                let (outcomes, kept) = &mut *done.lock().expect("nobody panics");
                outcomes.insert(mutant.number, outcome.clone());
                kept.insert(mutant.name.clone(), outcome);
                // A run that is ended goes on with `--again`.
                fs::write(self.outcomes_of_last_time(), serde_json::to_string_pretty(kept)?)?;
            }
            Ok(())
        };
        let threads = thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
        })?;
        Ok(outcomes)
    }

    fn try_out(
        &self,
        mutant: &Mutant,
        steps: &[Measured],
        programs: &BTreeMap<String, PathBuf>,
    ) -> Result<Outcome> {
        for Measured { step, seconds, reached } in steps {
            if !reached.contains(&mutant.number) {
                continue;
            }
            let limit = (seconds.max(SECONDS_MIN) * PATIENCE).ceil() as u64;
            let ran = self
                .command(step, programs, limit, &mutant.module())?
                .env("TUYEN_MUTANT", mutant.number.to_string())
                .status()?;
            match ran.code() {
                Some(0) => {}
                // What `timeout` says.
                Some(124 | 137) => return Ok(Outcome::TimedOut(step.name.to_owned())),
                _ => return Ok(Outcome::Caught(step.name.to_owned())),
            }
        }
        Ok(Outcome::Survived)
    }

    fn measure(&self, step: &'static Step, programs: &BTreeMap<String, PathBuf>) -> Result<Measured> {
        let file = self.folder().join("reached");
        fs::write(&file, "")?;
        let mut command = self.command(step, programs, 3_600, "")?;
        command.env("TUYEN_MUTANTS_REACHED", &file).env("TUYEN_MUTANT", REACHING.to_string());
        let ran = command.output()?;
        ensure!(ran.status.success(), "{} fails without a mutant: {}", step.name, said(&ran));
        let reached: BTreeSet<u32> =
            fs::read_to_string(&file)?.lines().map(str::parse).collect::<Result<_, _>>()?;
        let begin = Instant::now();
        let ran = self.command(step, programs, 3_600, "")?.output()?;
        ensure!(ran.status.success(), "{} fails without a mutant: {}", step.name, said(&ran));
        let seconds = begin.elapsed().as_secs_f64();
        println!("{} takes {seconds:.1} s and comes by {} mutants", step.name, reached.len());
        Ok(Measured { step, seconds, reached })
    }

    /// A step within limits of time and memory, always with the same random values.
    fn command(
        &self,
        step: &Step,
        programs: &BTreeMap<String, PathBuf>,
        seconds: u64,
        module: &str,
    ) -> Result<Command> {
        let program =
            programs.get(step.program).with_context(|| format!("{} was not built", step.program))?;
        let limited =
            format!("ulimit -v {MEMORY_KIBIBYTES}; exec timeout --kill-after 5 {seconds} \"$0\" \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &limited]).arg(program);
        command
            .args(step.arguments.iter().map(|argument| if *argument == MODULE { module } else { argument }));
        let folder = if step.program == "sync-core" { "sync-core" } else { "tests" };
        command.current_dir(self.tree().join(folder)).stdout(Stdio::null()).stderr(Stdio::null());
        command.env("PROPTEST_RNG_SEED", "1").env("PROPTEST_MAX_SHRINK_ITERS", "0");
        command.env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "true").env("RUST_BACKTRACE", "0");
        Ok(command)
    }

    /// Copies the tree and plants the mutants in it; gives those that it could not plant.
    fn plant(&self, last: &BTreeMap<String, Outcome>) -> Result<BTreeMap<u32, Outcome>> {
        // What did not compile the last time is not tried again, or everything would be built anew.
        let known =
            self.mutants.iter().filter(|mutant| last.get(&mutant.name) == Some(&Outcome::DoesNotCompile));
        let mut outcomes: BTreeMap<_, _> =
            known.map(|mutant| (mutant.number, Outcome::DoesNotCompile)).collect();
        for _ in 0..ROUNDS {
            let mut planted = BTreeMap::new();
            for (name, content) in self.files()? {
                let content = match String::from_utf8(content) {
                    Ok(text) if name.starts_with("sync-core/src") => {
                        let here =
                            |mutant: &&Mutant| mutant.file == name && !outcomes.contains_key(&mutant.number);
                        let mut file = plant(&text, self.mutants.iter().filter(here))?;
                        if name.ends_with("src/lib.rs") {
                            let items = file.text.find("\npub mod").context("lib.rs has modules")? + 1;
                            file.text.insert_str(items, ALLOWED);
                            file.text.push_str(SWITCH);
                        }
                        let text = file.text.clone().into_bytes();
                        planted.insert(name.clone(), file);
                        text
                    }
                    Ok(text) => text.into_bytes(),
                    Err(bytes) => bytes.into_bytes(),
                };
                let to = self.tree().join(&name);
                if fs::read(&to).ok().as_ref() != Some(&content) {
                    fs::create_dir_all(to.parent().expect("it lies in the tree"))?;
                    fs::write(&to, content)?;
                }
            }
            let there: BTreeSet<_> =
                planted.values().flat_map(|file| &file.places).map(|(_, n)| *n).collect();
            for mutant in self.mutants.iter().filter(|mutant| !there.contains(&mutant.number)) {
                outcomes.entry(mutant.number).or_insert(Outcome::NotPlanted);
            }
            let checked = self.cargo("check").args(["--package", "tuyen-sync-core"]).output()?;
            if checked.status.success() {
                return Ok(outcomes);
            }
            let wrong = self.wrong(&checked, &planted)?;
            println!("{} do not compile", wrong.len());
            outcomes.extend(wrong.into_iter().map(|n| (n, Outcome::DoesNotCompile)));
        }
        bail!("after {ROUNDS} rounds the planted tree still does not compile")
    }

    /// Every file that git knows of or might.
    fn files(&self) -> Result<Vec<(PathBuf, Vec<u8>)>> {
        let mut git = Command::new("git");
        git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(&self.root);
        let listed = git.output().context("cannot run git")?;
        ensure!(listed.status.success(), "git does not list the files of {}", self.root.display());
        let names = String::from_utf8(listed.stdout)?;
        let names = names.split('\0').filter(|name| self.root.join(name).is_file());
        names.map(|name| Ok((name.into(), fs::read(self.root.join(name))?))).collect()
    }

    /// The programs of all steps, by name.
    fn build(&self, cost: Cost) -> Result<BTreeMap<String, PathBuf>> {
        let tests = STEPS.iter().filter(|step| step.cost <= cost).map(|step| step.program);
        let tests: BTreeSet<_> = tests.filter(|name| !["sync-core", "tests", "sim"].contains(name)).collect();
        let tests: Vec<_> = tests.into_iter().flat_map(|name| ["--test", name]).collect();
        let all = ["build --workspace --bins", "build --package tuyen-tests --bin sim"];
        let bins = all[usize::from(cost < Cost::Processes)];
        let mut programs = BTreeMap::new();
        for (what, more) in [
            (bins, &[][..]),
            ("test --no-run --package tuyen-sync-core --lib", &[]),
            ("test --no-run --package tuyen-tests --lib", &tests),
        ] {
            let mut words = what.split(' ');
            let mut cargo = self.cargo(words.next().expect("a command"));
            let built = cargo.args(words).args(more).output()?;
            ensure!(built.status.success(), "the planted tree does not build: {}", said(&built));
            for message in messages(&built)? {
                if let Some(program) = message["executable"].as_str() {
                    let name = message["target"]["name"].as_str().unwrap_or_default();
                    let name = match name {
                        "tuyen_sync_core" | "sync_core" => "sync-core",
                        "tuyen_tests" => "tests",
                        name => name,
                    };
                    programs.insert(name.to_owned(), program.into());
                }
            }
        }
        Ok(programs)
    }

    fn cargo(&self, what: &str) -> Command {
        let mut cargo = Command::new("cargo");
        cargo.args([what, "--release", "--quiet", "--message-format=json"]).current_dir(self.tree());
        cargo.env("CARGO_TARGET_DIR", self.folder().join("build"));
        cargo
    }

    fn folder(&self) -> PathBuf {
        self.root.join("target/mutants")
    }

    fn tree(&self) -> PathBuf {
        self.folder().join("tree")
    }

    fn outcomes_of_last_time(&self) -> PathBuf {
        self.folder().join("outcomes.json")
    }

    /// The mutants that the compiler complains of.
    fn wrong(&self, checked: &Output, planted: &BTreeMap<PathBuf, Planted>) -> Result<BTreeSet<u32>> {
        let mut wrong = BTreeSet::new();
        for message in messages(checked)? {
            let message = &message["message"];
            if message["level"] != "error" {
                continue;
            }
            let is_arm = |n: &u32| self.mutants[*n as usize].genre == "MatchArm";
            let mut spans: Vec<_> = message["spans"].as_array().into_iter().flatten().collect();
            spans.sort_by_key(|span| span["is_primary"] != true);
            let blamed = spans.iter().find_map(|span| {
                let places = &planted.get(Path::new(span["file_name"].as_str()?))?.places;
                let (begin, end) =
                    (span["byte_start"].as_u64()? as usize, span["byte_end"].as_u64()? as usize);
                let within = places.iter().find(|(place, _)| place.start <= begin && end <= place.end);
                // Else it is what stands before, whose type decides that of what follows, or an arm of the match.
                let beside = match message["code"]["code"].as_str() {
                    Some("E0004") => places.iter().find(|(place, n)| place.start >= end && is_arm(n)),
                    _ => places.iter().rfind(|(place, _)| place.start <= begin),
                };
                within.or(beside).map(|(_, n)| *n)
            });
            wrong.extend(blamed);
        }
        ensure!(!wrong.is_empty(), "no mutant is to blame: {}", said(checked));
        Ok(wrong)
    }
}

fn messages(output: &Output) -> Result<Vec<Value>> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().filter(|line| line.starts_with('{')).map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
