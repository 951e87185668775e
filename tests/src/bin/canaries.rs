//! Plants bugs, one after another, in a copy of the tree, and requires that each is caught; `canaries --help` says how.
//!
//! `tests/canaries/*.patch` are the bugs. The lines before `diff --git` say which promise the patch breaks and who has to
//! find out: `Promise: ...` and `Caught by: sim`, `Caught by: disk`, `Caught by: test NAME FILTER` for a test of this
//! crate, or `Caught by: engine FILTER` for a unit test of the engine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Output},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, bail, ensure};

const HELP: &str = "\
Plants bugs in a copy of the tree and requires that each is caught.

  canaries                  all of them
  canaries NAME...          these: names of files in tests/canaries, without .patch
  canaries --few 5          so many of those that the simulator has to find; other ones each day
  canaries --list           what there is
";
/// Processor time within which a bug has to be found.
const MOST: Duration = Duration::from_secs(600);
/// Seeds of the crash disk.
const DISK_SEEDS: &str = "0..20";
const DAY: Duration = Duration::from_secs(86_400);

fn main() -> Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate lies in the workspace");
    let all = Canary::all(&root.join("tests/canaries"))?;
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let chosen = match arguments.first().map(String::as_str) {
        Some("--help") => {
            print!("{HELP}");
            return Ok(ExitCode::SUCCESS);
        }
        Some("--list") => {
            all.iter().for_each(|one| println!("{}: {} (caught by {:?})", one.name, one.promise, one.by));
            return Ok(ExitCode::SUCCESS);
        }
        Some("--few") => few(all, arguments.get(1).context("--few needs a number")?.parse()?)?,
        None => all,
        Some(_) => {
            let known: Vec<_> = all.iter().map(|one| one.name.clone()).collect();
            if let Some(unknown) = arguments.iter().find(|name| !known.contains(name)) {
                bail!("there is no tests/canaries/{unknown}.patch\n\n{HELP}");
            }
            all.into_iter().filter(|one| arguments.contains(&one.name)).collect()
        }
    };
    let field = Field::new(root)?;
    let mut escaped = Vec::new();
    println!("| planted bug | found by | seed | CPU seconds |\n|---|---|---|---|");
    for canary in chosen {
        match field.try_out(&canary) {
            Ok(Some(Found { promise, seed, seconds })) => {
                println!("| {} | {promise} | {seed} | {seconds:.0} |", canary.promise)
            }
            Ok(None) => {
                println!("| {} | **NOT FOUND** | | |", canary.promise);
                escaped.push(canary.name);
            }
            Err(error) => {
                println!("| {} | **NOT TRIED** | | |", canary.promise);
                eprintln!("{error:#}");
                escaped.push(canary.name);
            }
        }
    }
    if escaped.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("not found, or not tried: {}", escaped.join(", "));
    Ok(ExitCode::FAILURE)
}

/// Other ones each day, all in turn.
fn few(all: Vec<Canary>, number: usize) -> Result<Vec<Canary>> {
    let quick: Vec<_> = all.into_iter().filter(|one| one.by == By::Sim).collect();
    let days = (SystemTime::UNIX_EPOCH.elapsed()?.as_secs() / DAY.as_secs()) as usize;
    let first = days * number % quick.len().max(1);
    Ok(quick.into_iter().cycle().skip(first).take(number).collect())
}

/// Who has to find a bug.
#[derive(Debug, Clone, PartialEq, Eq)]
enum By {
    Sim,
    Disk,
    Test(Vec<String>),
    Engine(String),
}

#[derive(Debug, Clone)]
struct Canary {
    name: String,
    patch: PathBuf,
    promise: String,
    by: By,
}

impl Canary {
    fn all(folder: &Path) -> Result<Vec<Self>> {
        let mut all = Vec::new();
        for file in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let patch = file?.path();
            if patch.extension().is_some_and(|extension| extension == "patch") {
                all.push(Self::read(patch)?);
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    fn read(patch: PathBuf) -> Result<Self> {
        let text = fs::read_to_string(&patch)?;
        let head = text.split("diff --git").next().unwrap_or_default();
        let said = |what: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(what));
            line.map(|text| text.trim().to_owned())
                .with_context(|| format!("{} lacks {what}", patch.display()))
        };
        let by = said("Caught by:")?;
        let by = match by.split_whitespace().collect::<Vec<_>>()[..] {
            ["sim"] => By::Sim,
            ["disk"] => By::Disk,
            ["test", ref test @ ..] if !test.is_empty() => {
                By::Test(test.iter().map(|s| s.to_string()).collect())
            }
            ["engine", filter] => By::Engine(filter.to_owned()),
            _ => bail!(
                "{}: {by:?} is neither sim nor disk nor test NAME FILTER nor engine FILTER",
                patch.display()
            ),
        };
        let name = patch.file_stem().expect("it has an extension").to_string_lossy().into_owned();
        Ok(Self { name, promise: said("Promise:")?, by, patch })
    }
}

struct Found {
    promise: String,
    seed: String,
    seconds: f64,
}

/// A copy of the tree, and where it is built.
struct Field {
    root: PathBuf,
    tree: PathBuf,
}

impl Field {
    fn new(root: &Path) -> Result<Self> {
        let tree = root.join("target/canaries/tree");
        fs::create_dir_all(&tree)?;
        let field = Self { root: root.to_owned(), tree };
        field.restore()?;
        Ok(field)
    }

    /// Makes the copy what the tree is. A file that is the same already is not touched, so that it is not built anew.
    fn restore(&self) -> Result<()> {
        let listed = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(&self.root)
            .output();
        let listed = listed.context("cannot run git; install it")?;
        ensure!(listed.status.success(), "git does not list the files of {}", self.root.display());
        for name in String::from_utf8(listed.stdout)?.split('\0').filter(|name| !name.is_empty()) {
            let (from, to) = (self.root.join(name), self.tree.join(name));
            if !from.is_file() {
                continue;
            }
            let content = fs::read(&from)?;
            if fs::read(&to).ok().as_ref() != Some(&content) {
                fs::create_dir_all(to.parent().expect("it lies in the tree"))?;
                fs::write(&to, content)?;
            }
        }
        Ok(())
    }

    fn try_out(&self, canary: &Canary) -> Result<Option<Found>> {
        let mut git = Command::new("git");
        // The copy lies in a repository of which it is no part.
        git.env("GIT_CEILING_DIRECTORIES", self.tree.parent().expect("it lies in target"));
        let applied = git.arg("apply").arg(&canary.patch).current_dir(&self.tree).output()?;
        let said = || String::from_utf8_lossy(&applied.stderr).into_owned();
        ensure!(applied.status.success(), "{} does not fit the tree any more: {}", canary.name, said());
        let found = match &canary.by {
            By::Sim => {
                let seconds = (MOST / self.cores()).as_secs().to_string();
                let alone = ["--no-default-features"];
                // The worlds that once broke a promise first: some bugs are seen by one world in ten thousand.
                let seeds = ["--seeds", "0..1000000", "--first", "--seconds", &seconds];
                match self.run(canary, "sim", &alone, &["corpus", "--first"]) {
                    Ok(None) => self.run(canary, "sim", &alone, &seeds),
                    found => found,
                }
            }
            By::Disk => self.run(canary, "disk", &[], &["--seeds", DISK_SEEDS]),
            By::Test(test) => {
                // Tests with real processes run the programs that lie beside them.
                self.build_quietly(canary, &["--workspace", "--bins"])?;
                let (name, filter) = test.split_first().expect("a test has a name");
                let target = if name == "lib" { vec!["--lib"] } else { vec!["--test", name] };
                self.test(canary, "tuyen-tests", &target, filter)
            }
            By::Engine(filter) => {
                self.test(canary, "tuyen-sync-core", &["--lib"], std::slice::from_ref(filter))
            }
        };
        self.restore()?;
        found
    }

    fn cores(&self) -> u32 {
        std::thread::available_parallelism().map_or(1, usize::from) as u32
    }

    fn build_quietly(&self, canary: &Canary, what: &[&str]) -> Result<()> {
        let built = self.cargo("build").args(["--release", "--quiet"]).args(what).output()?;
        ensure!(built.status.success(), "{} does not build: {}", canary.name, text(&built));
        Ok(())
    }

    /// Builds one of the programs that run seeds, and runs it.
    fn run(&self, canary: &Canary, name: &str, with: &[&str], seeds: &[&str]) -> Result<Option<Found>> {
        self.build_quietly(canary, &[&["-p", "tuyen-tests", "--bin", name], with].concat())?;
        let begin = Instant::now();
        let ran = Command::new(self.build().join("release").join(name)).args(seeds).output()?;
        let seconds = begin.elapsed().as_secs_f64() * f64::from(self.cores());
        let text = text(&ran);
        let broken = text.lines().find_map(|line| line.strip_prefix("seed ")?.split_once(" BROKEN "));
        Ok(broken.map(|(seed, promise)| {
            let promise = promise.split(':').next().unwrap_or(promise).to_owned();
            Found { promise, seed: seed.to_owned(), seconds }
        }))
    }

    fn test(
        &self,
        canary: &Canary,
        package: &str,
        target: &[&str],
        filter: &[String],
    ) -> Result<Option<Found>> {
        let run = |more: &[String]| {
            let test = ["--release", "--quiet", "-p", package];
            self.cargo("test").args(test).args(target).args(more).output()
        };
        let built = run(&["--no-run".to_owned()])?;
        ensure!(built.status.success(), "{} does not build: {}", canary.name, text(&built));
        let begin = Instant::now();
        let ran = run(filter)?;
        let ran_any = !text(&ran).contains("running 0 tests");
        ensure!(ran_any, "{}: no test is called {filter:?} in {}", canary.name, target.join(" "));
        let found = Found {
            promise: format!("test {}", filter.join(" ")),
            seed: String::new(),
            seconds: begin.elapsed().as_secs_f64(),
        };
        Ok((!ran.status.success()).then_some(found))
    }

    fn build(&self) -> PathBuf {
        self.root.join("target/canaries/build")
    }

    fn cargo(&self, what: &str) -> Command {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.arg(what).current_dir(&self.tree).env("CARGO_TARGET_DIR", self.build());
        // One line is another one: that is built faster so, and runs as fast.
        cargo.env("CARGO_PROFILE_RELEASE_INCREMENTAL", "true").env("CARGO_PROFILE_RELEASE_DEBUG", "0");
        cargo
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
