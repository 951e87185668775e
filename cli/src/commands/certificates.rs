//! `tuyen admit` and `tuyen renew`: certificates by stick, where there is no line. What always holds: a file appears under
//! its name only when it is whole; what a file holds is the daemon's to judge. Not here: `tuyen enrol`, which needs no
//! daemon; see `membership`.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use clap::Args;
use node::{
    admin::{Admitted, Failure, RenewalRequested, Renewed, Request},
    ca::file::FILE_MAX_BYTES,
};
use serde::Serialize;
use sync_core::{
    id::{NodeId, OrgId, OrgPath},
    identity::Role,
};

use super::Context;
use crate::{
    output::{Exit, Outcome, Stop, failed},
    render::{local, rfc3339},
    whole,
};

/// Answer a child's request for certificates that has come by stick
///
/// Takes what `tuyen enrol --request` or `tuyen renew --request` has made, at the node that is the child's parent, with the
/// checks of a link: the token is spent by it. The same request may be answered again.
#[derive(Args)]
#[command(
    before_help = "Example:\n  tuyen --dir hg admit /media/stick/dong-van.request --out /media/stick/dong-van.answer"
)]
pub struct Admit {
    /// The request
    file: PathBuf,
    /// The file to make for the child; it must not exist
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Renew this node's certificates by stick, where no line leads to the parent
///
/// Where there is a line this is done by itself. The daemon runs meanwhile. What has expired is not renewed but enrolled again, in
/// its folder.
#[derive(Args)]
#[command(before_help = "Example:\n  tuyen --dir dv renew --request /media/stick/dong-van.request\n  \
                   tuyen --dir dv renew --answer /media/stick/dong-van.answer")]
#[group(required = true, multiple = false)]
pub struct Renew {
    /// Ask by a file for the parent; it must not exist
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,
    /// Take the parent's answer to the request that was made here
    #[arg(long, value_name = "FILE")]
    answer: Option<PathBuf>,
}

#[derive(Serialize)]
struct AdmittedBody<'a> {
    file: String,
    node: NodeId,
    org: &'a OrgId,
    place: &'a OrgPath,
    role: Role,
    renewed: bool,
    until: String,
}

#[derive(Serialize)]
struct RequestedBody<'a> {
    file: String,
    place: &'a OrgPath,
    parent: &'a OrgPath,
    until: String,
}

#[derive(Serialize)]
struct RenewedBody<'a> {
    place: &'a OrgPath,
    until: String,
}

/// What a file holds; of one that is far too long, its beginning.
pub fn read(file: &Path) -> Result<Vec<u8>, Stop> {
    let mut text = Vec::new();
    let read = File::open(file).and_then(|file| file.take(FILE_MAX_BYTES + 1).read_to_end(&mut text));
    read.map_err(|error| {
        failed(format!("cannot read {}: {error}; check the stick and the name", file.display()))
    })?;
    Ok(text)
}

/// A failure that is about a file.
pub fn in_file(file: &Path, failure: Failure) -> Failure {
    Failure { text: format!("{}: {}", file.display(), failure.text), ..failure }
}

/// What is to be done with the file of a request: at the parent, and then here with this command.
pub fn way(request: &Path, dir: &Path, command: &str) -> String {
    let answer = request.with_extension("answer");
    let name = |path: &Path| path.file_name().unwrap_or_default().display().to_string();
    let (request, answer) = (name(request), name(&answer));
    format!(
        "  tuyen --dir DIR admit {request} --out {answer}\nCarry the answer back; here:\n  tuyen --dir {} {command} --answer {answer}\n",
        dir.display()
    )
}

/// Writes a new file of what `make` gives first. Nothing is made when the file cannot be.
pub fn write<T>(file: &Path, make: impl FnOnce() -> Result<(String, T), Stop>) -> Result<T, Stop> {
    whole::write(file, |out, wrong| {
        let (text, made) = make()?;
        out.write_all(text.as_bytes()).map_err(wrong)?;
        Ok(made)
    })
}

impl Admit {
    /// Does it.
    pub fn run(self, context: &Context) -> Outcome {
        let request = String::from_utf8_lossy(&read(&self.file)?).into_owned();
        let mut admitted = write(&self.out, || {
            let admitted: Result<Admitted, _> = context.client()?.call(&Request::Admit { request }, |_| {});
            let admitted = admitted.map_err(|failure| in_file(&self.file, failure))?;
            Ok((admitted.answer.clone(), admitted))
        })?;
        admitted.answer.clear();
        let file = self.out.display().to_string();
        let Admitted { node, place, role, renewed, until, .. } = &admitted;
        let (what, command) =
            if *renewed { ("new certificates", "renew") } else { ("certificates", "enrol") };
        let text = format!(
            "{file}: the {what} of {place} ({role}), node {}, good until {}. Carry it back; there:\n  \
             tuyen --dir DIR {command} --answer {}\n",
            node.short(),
            local(*until),
            self.out.file_name().unwrap_or_default().display()
        );
        let until = rfc3339(*until);
        let body = AdmittedBody {
            file,
            node: *node,
            org: place.org(),
            place,
            role: *role,
            renewed: *renewed,
            until,
        };
        context.output.result(text, &body)?;
        Ok(Exit::Ok)
    }
}

impl Renew {
    /// Does it.
    pub fn run(self, context: &Context) -> Outcome {
        match (self.request, self.answer) {
            (Some(file), _) => request(context, &file),
            (None, Some(file)) => answer(context, &file),
            (None, None) => unreachable!("the command line has one of them"),
        }
    }
}

fn request(context: &Context, file: &Path) -> Outcome {
    let made = write(file, || {
        let made: RenewalRequested = context.call(&Request::RenewalRequest)?;
        Ok((made.request.clone(), made))
    })?;
    let RenewalRequested { place, parent, until, .. } = &made;
    let way = way(file, context.dir()?, "renew");
    let file = file.display().to_string();
    let text = format!(
        "{file}: the request of {place}, whose certificate ends on {}. Carry it to the node of {parent}; there:\n{way}",
        local(*until)
    );
    context.output.result(text, &RequestedBody { file, place, parent, until: rfc3339(*until) })?;
    Ok(Exit::Ok)
}

fn answer(context: &Context, file: &Path) -> Outcome {
    let answer = String::from_utf8_lossy(&read(file)?).into_owned();
    let renewed: Result<Renewed, _> = context.client()?.call(&Request::RenewalAnswer { answer }, |_| {});
    let Renewed { place, until } = renewed.map_err(|failure| in_file(file, failure))?;
    let text = format!("The certificates of {place} are renewed, and good until {}.\n", local(until));
    context.output.result(text, &RenewedBody { place: &place, until: rfc3339(until) })?;
    Ok(Exit::Ok)
}
