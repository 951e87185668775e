//! Disks that are full, files that may not grow, folders that may only be read.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use node::{
    admin::{Client, Failure, FailureKind, Page, Request, Status, Written},
    fhir::population::Population,
};
use sync_core::{id::OrgId, identity::Role};
use tuyen_tests::{
    cluster::{Node, free_address, program},
    run::tuyen,
};

use crate::before::{put_request, stopped};

/// A mount that ends with the test.
struct Mount(PathBuf);

impl Mount {
    fn command(arguments: &[&str], path: &Path) -> bool {
        let ran = Command::new("mount").args(arguments).arg(path).output();
        ran.is_ok_and(|ran| ran.status.success())
    }

    /// A disk of its own of so many kilobytes. None when this user may not mount.
    fn small(path: &Path, kib: u32) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let size = format!("size={kib}k");
        Self::command(&["-t", "tmpfs", "-o", &size, "tmpfs"], path).then(|| Self(path.to_owned()))
    }

    /// A folder that may only be read.
    fn read_only(path: &Path) -> Option<Self> {
        let bound = Self::command(&["--bind", path.to_str()?], path).then(|| Self(path.to_owned()))?;
        Self::command(&["-o", "remount,ro,bind"], path).then_some(bound)
    }

    fn grow(&self, kib: u32) {
        assert!(Self::command(&["-o", &format!("remount,size={kib}k")], &self.0));
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Writes until the node ends; gives every record whose write was acknowledged, and what the last writer was told.
fn write_until_the_end(node: &Node) -> (Vec<String>, Failure) {
    let org = OrgId::new("trung-uong").unwrap();
    let mut acknowledged = Vec::new();
    for resource in Population::records(7, &org, 100_000) {
        let request = put_request(&resource.to_string());
        match node.try_ask::<Written>(&request) {
            Ok(written) => acknowledged.push(written.written[0].record.to_string()),
            Err(failure) => return (acknowledged, failure),
        }
    }
    panic!("the disk was never full");
}

#[track_caller]
fn has_all(node: &Node, acknowledged: &[String]) {
    let mut found = BTreeSet::new();
    let mut after = None;
    loop {
        let page: Page = node.ask(&Request::Export { after, limit: 1000 });
        for resource in &page.resources {
            let resource: serde_json::Value = serde_json::from_str(resource.get()).unwrap();
            let name = |field: &str| resource[field].as_str().unwrap().to_owned();
            found.insert(format!("{}/{}", name("resourceType"), name("id")));
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let lost: Vec<_> = acknowledged.iter().filter(|record| !found.contains(*record)).collect();
    assert!(lost.is_empty(), "{} of {} are lost", lost.len(), acknowledged.len());
}

#[test]
fn a_full_disk_ends_the_daemon_and_loses_nothing() {
    let mut before = stopped();
    let disk = before.dir.path().join("disk");
    let Some(mount) = Mount::small(&disk, 4 << 10) else {
        eprintln!("NOT TESTED: a full disk, because this user may not mount; run the tests as root");
        return;
    };
    let from = std::mem::replace(&mut before.node, Node::at(&disk.join("root")));
    assert!(Command::new("cp").arg("-a").arg(&from.dir).arg(&disk).status().unwrap().success());
    before.node.start();
    let (acknowledged, failure) = write_until_the_end(&before.node);
    assert!(acknowledged.len() > 10, "{}", acknowledged.len());
    assert_eq!(failure.kind, FailureKind::Failed, "{failure}");
    for words in ["the disk does not take", "full", "Nothing that was acknowledged is lost", "make room"] {
        assert!(failure.text.contains(words), "{words:?}: {failure}");
    }
    assert_eq!(before.node.ended(), Some(1), "{}", before.node.log());
    // With the very last bytes gone it says so, or it starts and reads; it never harms what is there.
    let filler = disk.join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 512]).is_ok() {}
    starts_or_says_why(&before.node.dir);
    fs::remove_file(&filler).unwrap();
    mount.grow(64 << 10);
    before.node.start();
    has_all(&before.node, &acknowledged);
    before.is_still_there(&[]);
}

/// Starts the daemon on a full disk: it answers, or says why not.
fn starts_or_says_why(dir: &Path) {
    let mut command = Command::new(program("tuyend"));
    command.arg("--dir").arg(dir).stdin(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    for _ in 0..1_000 {
        std::thread::sleep(Duration::from_millis(10));
        if child.try_wait().unwrap().is_some() {
            let ran = child.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&ran.stderr);
            assert_eq!(ran.status.code(), Some(1), "{said}");
            assert!(said.contains("tuyend: ") && said.contains("disk"), "{said}");
            return;
        }
        if let Ok(mut client) = Client::connect(dir) {
            let status: Status = client.call(&Request::Status, |_| ()).unwrap();
            child.kill().unwrap();
            child.wait().unwrap();
            assert!(status.records > 0);
            return;
        }
    }
    child.kill().unwrap();
    panic!("it neither ends nor answers");
}

#[test]
fn a_file_that_may_not_grow_ends_the_daemon_and_loses_nothing() {
    let mut before = stopped();
    let mut limited = Command::new("sh");
    // Without the trap the system would kill the process, which the store survives as well.
    limited.arg("-c").arg("trap '' 25; ulimit -f 4096; exec \"$0\" \"$@\"").arg(program("tuyend"));
    before.node.start_by(limited);
    let (acknowledged, failure) = write_until_the_end(&before.node);
    assert!(acknowledged.len() > 10, "{}", acknowledged.len());
    assert_eq!(failure.kind, FailureKind::Failed, "{failure}");
    assert!(failure.text.contains("the disk does not take"), "{failure}");
    assert_eq!(before.node.ended(), Some(1), "{}", before.node.log());
    assert!(before.node.log().contains("make room on the disk"), "{}", before.node.log());
    before.node.start();
    has_all(&before.node, &acknowledged);
    before.is_still_there(&[]);
}

#[test]
fn a_folder_that_is_not_writable_is_named() {
    let mut before = stopped();
    let token = {
        before.node.start();
        before.node.invite(Role::Leaf, "dong-van").token
    };
    let folder = before.dir.path().join("read-only");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o555)).unwrap();
    let own = before.dir.path().join("root");
    let mut mounts = Vec::new();
    if fs::write(folder.join("probe"), "").is_ok() {
        fs::remove_file(folder.join("probe")).unwrap();
        let Some(mount) = Mount::read_only(&folder) else {
            eprintln!(
                "NOT TESTED: a folder that is not writable; this user may write everywhere and may not mount"
            );
            return;
        };
        mounts.push(mount);
    }
    let address = free_address().to_string();
    let init = ["init", "--role", "root", "--org", "other", "--listen", &address];
    let words = ["cannot create", "check that the folder exists and belongs to the user"];
    tuyen(&folder, &init, b"").expect(1).says(&words);
    tuyen(&folder, &["enrol", &token], b"").expect(1).says(&words);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    tuyen(&folder.join("deeper"), &init, b"").expect(1).says(&["cannot use", "check the folder, its owner"]);
    // The token has not been used by that.
    tuyen(&before.dir.path().join("leaf"), &["enrol", &token], b"").expect(0);
    before.node.stop();
    if mounts.is_empty() {
        fs::set_permissions(&own, fs::Permissions::from_mode(0o555)).unwrap();
    } else {
        mounts.push(Mount::read_only(&own).unwrap());
    }
    let ran = before.refuses(1, &["cannot ", "check the folder, its owner and the disk"]);
    mounts.clear();
    fs::set_permissions(&own, fs::Permissions::from_mode(0o755)).unwrap();
    before.starts(&[&ran]);
}
