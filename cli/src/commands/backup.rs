//! `tuyen backup`: a whole node in one encrypted file, and a node's folder from such a file. What always holds: a file
//! or a folder appears under its name only when it is whole; what is there meanwhile goes away also when the command is
//! interrupted. Not here: the format and the checks; see `node::backup`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use node::{
    admin::{self, BackupKept, Client, Failure, FailureKind, Progress, Request},
    backup::{self, BackupError, Made, Manifest, Partial, PrivateKey, Recipients, Scratch, Stopped},
};
use serde::Serialize;
use sync_core::{
    id::{NodeId, OrgPath},
    identity::Role,
};

use super::Context;
use crate::{
    interrupt,
    output::{Exit, Meter, Outcome, Stop},
    render::{self, ago, local, many, now_millis, rfc3339},
};

/// What to do with backups.
#[derive(Subcommand)]
pub enum Command {
    Keygen(Keygen),
    Create(Create),
    Verify(Verify),
    Restore(Restore),
}

impl Command {
    /// Does it.
    pub fn run(self, context: &Context) -> Outcome {
        match self {
            Command::Keygen(command) => command.run(context),
            Command::Create(command) => command.run(context),
            Command::Verify(command) => command.run(context),
            Command::Restore(command) => command.run(context),
        }
    }
}

/// Make the key pair of backups: the private key goes to a file, the public key is printed
///
/// Keep the private key away from the machines that are backed up; without it no backup made for it can be read,
/// by anybody.
#[derive(Args)]
#[command(before_help = "Example:\n  tuyen backup keygen --out province.key")]
pub struct Keygen {
    /// Where the private key goes; a new file, which only you may read
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Make a backup of a node, encrypted for the holder of a private key
///
/// While the node's daemon runs it makes the backup beside its work. When it does not run the backup is made of the
/// folder, and the daemon cannot be started meanwhile.
#[derive(Args)]
#[command(
    before_help = "Example:\n  tuyen --dir dv backup create --to age1... --out dv-2026-11-28.tuyen-backup"
)]
pub struct Create {
    /// A public key, as `tuyen backup keygen` prints it; may be given several times
    #[arg(long, required = true, value_name = "PUBLIC-KEY")]
    to: Vec<String>,
    /// The file to make; it must not exist
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Check everything in a backup, without restoring it
///
/// Decrypts and reads all of it, compares every hash, and checks every entry of the store in it. That takes as much
/// room beside the FILE as the FILE has, and holds no record in the clear.
#[derive(Args)]
#[command(before_help = "Example:\n  tuyen backup verify dv-2026-11-28.tuyen-backup --key province.key")]
pub struct Verify {
    /// The backup
    file: PathBuf,
    /// The file with the private key; - reads it from standard input
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

/// Make a node's folder from a backup, after checking everything in it
///
/// The folder is named by --dir, and must not exist or be empty.
#[derive(Args)]
#[command(
    before_help = "Example:\n  tuyen backup restore dv-2026-11-28.tuyen-backup --key province.key --dir dv2"
)]
pub struct Restore {
    /// The backup
    file: PathBuf,
    /// The file with the private key; - reads it from standard input
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

#[derive(Serialize)]
struct KeygenBody {
    file: String,
    public_key: String,
}

/// What a backup holds, as JSON.
#[derive(Serialize)]
struct BackupBody<'a> {
    file: String,
    node: NodeId,
    place: &'a OrgPath,
    role: Role,
    software: &'a str,
    made_at: String,
    records: u64,
    deleted: u64,
    entries: u64,
    store_layout: i64,
    bytes: u64,
}

impl<'a> BackupBody<'a> {
    fn new(file: &Path, manifest: &'a Manifest, bytes: u64) -> Self {
        Self {
            file: file.display().to_string(),
            node: manifest.node,
            place: &manifest.place,
            role: manifest.role,
            software: &manifest.software,
            made_at: rfc3339(manifest.made_at),
            records: manifest.records,
            deleted: manifest.deleted,
            entries: manifest.entries,
            store_layout: manifest.store_layout,
            bytes,
        }
    }
}

/// A backup that was made.
struct Created {
    made: Made,
    bytes: u64,
    /// Whether the daemon made it.
    online: bool,
    /// See [`BackupKept::damage_found`] and [`Manifest::damaged`](node::backup::Manifest).
    damage_found: bool,
}

#[derive(Serialize)]
struct CreatedBody<'a> {
    #[serde(flatten)]
    backup: BackupBody<'a>,
    online: bool,
    damage_found: bool,
}

#[derive(Serialize)]
struct RestoredBody<'a> {
    #[serde(flatten)]
    backup: BackupBody<'a>,
    dir: String,
    listen: Option<String>,
    parent: &'a Option<String>,
    paused: bool,
    key_was_at: Option<String>,
}

fn stop(error: BackupError) -> Stop {
    Failure::from(error).into()
}

impl Keygen {
    fn run(self, context: &Context) -> Outcome {
        let public_key = backup::keygen(&self.out, now_millis()).map_err(stop)?;
        let file = self.out.display().to_string();
        context.output.note(format_args!(
            "the private key is in {file}. Keep it, and a copy of it, away from the machines that are backed up: \
             without it no backup can be read. Give this public key to `tuyen backup create --to`:"
        ));
        context
            .output
            .result(format_args!("{public_key}\n"), &KeygenBody { file, public_key: public_key.clone() })?;
        Ok(Exit::Ok)
    }
}

impl Create {
    fn run(self, context: &Context) -> Outcome {
        let dir = context.dir()?;
        let to = Recipients::new(&self.to).map_err(stop)?;
        let partial = Partial::begin(&self.out).map_err(stop)?;
        let path = partial.path().to_owned();
        interrupt::before_the_end(move || drop(std::fs::remove_file(path)));
        let created = match Client::connect(dir) {
            Ok(client) => self.online(client, partial)?,
            Err(failure) if failure.kind == FailureKind::Unreachable => {
                context.output.note(format_args!(
                    "no daemon runs on {}; the backup is made of the folder, and none can be started meanwhile",
                    dir.display()
                ));
                self.offline(dir, &to, partial)?
            }
            Err(failure) => return Err(failure.into()),
        };
        if created.damage_found {
            context.output.note(
                "there is damage in the store of this node (see `tuyen status` when it runs, and `tuyen verify`), which the backup may hold as well: \
                 check it (`tuyen backup verify`), keep the older ones and a copy of the node's folder, and look at the disk",
            );
        }
        let Created { made, bytes, online, damage_found } = &created;
        let backup = BackupBody::new(&self.out, made, *bytes);
        let body = CreatedBody { backup, online: *online, damage_found: *damage_found };
        context.output.result(self.in_words(made, *bytes), &body)?;
        Ok(if created.damage_found { Exit::Attention } else { Exit::Ok })
    }

    /// The daemon makes it, and this command keeps it.
    fn online(&self, mut client: Client, mut partial: Partial) -> Result<Created, Stop> {
        let mut meter = Meter::new();
        let request = Request::Backup { to: self.to.clone() };
        let keep = |bytes: &[u8]| {
            std::io::Write::write_all(&mut partial, bytes).map_err(|error| partial.failed(error).into())
        };
        let made: Made = client.receive(&request, |step| meter.show(&step), keep)?;
        let bytes = partial.bytes();
        partial.keep().map_err(stop)?;
        let kept: BackupKept =
            client.call(&Request::BackupKept { made_at: made.made_at }, |_| {}).map_err(noted)?;
        let damage_found = kept.damage_found || made.damaged;
        Ok(Created { made, bytes, online: true, damage_found })
    }

    fn offline(&self, dir: &Path, to: &Recipients, mut partial: Partial) -> Result<Created, Stop> {
        let node = Stopped::open(dir)?;
        let copy = dir.join(backup::STORE_COPY);
        let path = partial.path().to_owned();
        interrupt::before_the_end(move || {
            drop(std::fs::remove_file(path));
            drop(std::fs::remove_dir_all(copy));
        });
        let mut meter = Meter::new();
        let made = node.make(to, &mut partial, &mut shown(&mut meter)).map_err(stop)?;
        let bytes = partial.bytes();
        partial.keep().map_err(stop)?;
        let kept = node.kept(made.made_at).map_err(noted)?;
        let damage_found = kept.damage_found || made.damaged;
        Ok(Created { made, bytes, online: false, damage_found })
    }

    fn in_words(&self, made: &Made, bytes: u64) -> String {
        let file = self.out.display();
        format!(
            "{file}: {}\nCheck it where its private key is: tuyen backup verify {file} --key FILE\n",
            contents(made, bytes)
        )
    }
}

/// A backup is there, though the node could not keep that it is.
fn noted(mut failure: Failure) -> Stop {
    failure.text = format!("the backup is made and whole, but the node could not note it: {}", failure.text);
    failure.into()
}

/// Shows how far the work has come.
fn shown(meter: &mut Meter) -> impl FnMut(Progress) -> Result<(), BackupError> + '_ {
    |step| {
        meter.show(&step);
        Ok(())
    }
}

/// What a backup holds, in a sentence.
fn contents(manifest: &Manifest, bytes: u64) -> String {
    let deleted = match manifest.deleted {
        0 => String::new(),
        n => format!(" and {} deleted", render::count(n)),
    };
    format!(
        "{} ({}), node {}, with {}{deleted}, {}; {}.",
        manifest.place,
        manifest.role,
        manifest.node.short(),
        many(manifest.records, "record", "records"),
        many(manifest.entries, "entry", "entries"),
        render::bytes(bytes)
    )
}

fn private_key(path: &Path) -> Result<PrivateKey, Stop> {
    let key = match path.as_os_str() == "-" {
        true => PrivateKey::from(std::io::stdin().lock(), Path::new("standard input")),
        false => PrivateKey::read(path),
    };
    key.map_err(stop)
}

/// Takes a folder for work, which goes away also when the command is interrupted.
fn scratch(path: &Path) -> Result<Scratch, Stop> {
    let scratch = Scratch::take(path).map_err(stop)?;
    let path = path.to_owned();
    interrupt::before_the_end(move || drop(std::fs::remove_dir_all(path)));
    Ok(scratch)
}

impl Verify {
    fn run(self, context: &Context) -> Outcome {
        let key = private_key(&self.key)?;
        let scratch = scratch(&backup::check_scratch(&self.file))?;
        let mut meter = Meter::new();
        let checked = backup::verify(&self.file, &key, &scratch, &mut shown(&mut meter)).map_err(stop)?;
        meter.clear();
        let manifest = &checked.manifest;
        let text = format!(
            "{}: {}\nMade {} ({}) by {}.\nAll of it was read and checked: every hash, every page and every entry of the \
             store; keys, certificates and settings are those of this node.\n",
            self.file.display(),
            contents(manifest, checked.bytes),
            local(manifest.made_at),
            ago(manifest.made_at, now_millis()),
            manifest.software,
        );
        context.output.result(text, &BackupBody::new(&self.file, manifest, checked.bytes))?;
        Ok(Exit::Ok)
    }
}

impl Restore {
    fn run(self, context: &Context) -> Outcome {
        let dir = context.dir()?;
        admin::socket_path(dir)?;
        let key = private_key(&self.key)?;
        let scratch = scratch(&backup::restore_scratch(dir).map_err(stop)?)?;
        let mut meter = Meter::new();
        let restored =
            backup::restore(&self.file, &key, scratch, dir, &mut shown(&mut meter)).map_err(stop)?;
        meter.clear();
        let bytes = self.file.metadata().map_or(0, |file| file.len());
        let config = &restored.config;
        let body = RestoredBody {
            backup: BackupBody::new(&self.file, &restored.manifest, bytes),
            dir: dir.display().to_string(),
            listen: config.listen.map(|address| address.to_string()),
            parent: &config.parent,
            paused: config.paused,
            key_was_at: restored.key_was_at.as_ref().map(|path| path.display().to_string()),
        };
        context.output.result(next_steps(dir, &restored), &body)?;
        Ok(Exit::Ok)
    }
}

/// What an operator has to do after a restore, and what will happen then.
fn next_steps(dir: &Path, restored: &backup::Restored) -> String {
    let (manifest, config) = (&restored.manifest, &restored.config);
    let mut text = format!(
        "{} is now {} ({}), node {}, as it was {} ({}).\n\n",
        dir.display(),
        manifest.place,
        manifest.role,
        manifest.node.short(),
        local(manifest.made_at),
        ago(manifest.made_at, now_millis()),
    );
    let mut steps = vec![
        "Make sure that the old machine stays off: two that run are the same node to everybody.".to_owned(),
    ];
    if let Some(path) = &restored.key_was_at {
        steps.push(format!(
            "The key of the database was kept at {}, and is now in {}/store.key: move it again if it is not to lie \
             beside the database, and set store_key in config.json.",
            path.display(),
            dir.display()
        ));
    }
    if let Some(listen) = config.listen {
        steps.push(format!(
            "Its children dial {listen}. If this machine has another address, change listen in {}/config.json, and \
             parent in that of each child.",
            dir.display()
        ));
    }
    steps.push(format!(
        "The settings are those of then: write into {}/config.json what was decided since, such as policies and profiles.",
        dir.display()
    ));
    steps.push(format!(
        "What was marked secret here after {} and went nowhere as such is not marked any more, and goes its way as an \
         ordinary record when this node is connected; a grant whose end came after that and went nowhere is open again. If there \
         may be such, mark and end them again before it syncs: with \"paused\": true in config.json it does not, until \
         tuyen --dir {} sync resume",
        local(manifest.made_at),
        dir.display()
    ));
    steps.push(format!("Start it: tuyend --dir {}", dir.display()));
    if config.paused {
        steps.push(format!(
            "Syncing was paused when the backup was made: tuyen --dir {} sync resume",
            dir.display()
        ));
    }
    for (n, step) in (1..).zip(&steps) {
        text.push_str(&format!("{n}. {step}\n"));
    }
    text.push_str(
        "\nWhat it lacks comes back from its neighbours by itself, and they are told that it was restored. What it had \
         written after the backup and not sent to anybody is lost.\n",
    );
    text
}
