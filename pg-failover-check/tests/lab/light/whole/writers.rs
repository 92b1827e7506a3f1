//! What a run leaves for others, on a disk that is full.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Lab, Ran, Running};

/// The file of this check in the collector's folder.
pub const METRICS: &str = "veza_pg_failover_check.prom";

/// A drill that breaks and heals, and is soon over.
const SHORT: [&str; 6] = [
    "--read-only",
    "--settle",
    "0.2",
    "--warm-up",
    "0.2",
    "--fault=freeze",
];

/// A small file system of a test's own, unmounted whatever happens.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: PathBuf, size: &str) -> Disk {
        fs::create_dir_all(&path).unwrap();
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "veza-test"])
            .arg(&path)
            .status();
        assert!(status.unwrap().success(), "a tmpfs at {}", path.display());
        Disk(path)
    }

    /// Takes all that is left of it.
    fn fill(&self) {
        let file = fs::File::create(self.0.join("filler")).unwrap();
        let full = std::io::copy(&mut std::io::repeat(b'x'), &mut &file).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A process that a failed test left there must not keep it.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// The check with its reports on another disk than its records.
fn reporting(lab: &Lab, disk: &Disk, args: &[&str]) -> (Lab, Command) {
    let there = lab.with_folder(disk.0.join("reports"));
    let mut command = there.command();
    command.env("VEZA_STATE_DIR", lab.state()).args(args);
    (there, command)
}

/// The report on disk is whole, whichever it is; and nothing lies about that was written in part.
fn whole(there: &Lab, ran: &Ran) {
    assert!(ran.report["verdict"].is_string(), "{}", ran.report);
    let run = there.folder.join("latest");
    for file in fs::read_dir(&run).unwrap() {
        let path = file.unwrap().path();
        assert_ne!(path.extension().unwrap(), "new", "{}", path.display());
    }
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_disk_that_fills_up_in_mid_drill_takes_neither_verdict_nor_exit_code() {
    let lab = Lab::new("filling").await;
    let (primary, _) = lab.roles().await;
    let before = lab.as_it_is().await;
    let disk = Disk::mount(lab.folder.join("disk"), "512k");
    let full = Disk::mount(lab.folder.join("full"), "64k");
    full.fill();
    let events = full.path("events.ndjson");
    fs::create_dir(disk.path("metrics")).unwrap();
    let metrics = disk.path("metrics");
    let (there, mut command) = reporting(&lab, &disk, &SHORT);
    // Quiet: what went wrong beside a drill that passed is said all the same.
    let more = ["--quiet", "--events", &events, "--textfile-dir", &metrics];
    let mut check = Running::of(command.args(more));
    lab.until_broken(&primary, &mut check).await;
    disk.fill();
    let output = check.ended();
    let ran = there.ran(&output);
    assert_eq!(ran.code, 0, "the drill passed");
    assert!(output.stdout.is_empty(), "quiet");
    for words in [
        "the report could not be saved: ",
        "the metrics could not be saved: ",
        &format!("events could not be written to {events}: "),
    ] {
        let told = ran.stderr.lines().filter(|line| line.starts_with(words));
        let told: Vec<_> = told.filter(|line| line.contains("No space left")).collect();
        assert!(!told.is_empty(), "{words}: {}", ran.stderr);
    }
    whole(&there, &ran);
    assert_eq!(
        fs::read_dir(&metrics).unwrap().count(),
        0,
        "no half metrics"
    );
    lab.undone_without_help(&before).await;
    // One that does not pass says why on stdout, and has its own code; one that is full beforehand is
    // told before anything is touched.
    fs::remove_file(disk.path("filler")).unwrap();
    refused_while_it_fills(&lab, &disk).await;
    full_beforehand(&lab, &disk, &metrics).await;
    lab.undone_without_help(&before).await;
}

/// The disk is full from the moment that the folder of the run is there.
async fn refused_while_it_fills(lab: &Lab, disk: &Disk) {
    lab.until_whole().await;
    let (there, mut command) = reporting(lab, disk, &["--fault", "none", "--read-only"]);
    let mut check = Running::of(&mut command);
    check.until_said("client writes: ");
    disk.fill();
    check.signal("-TERM");
    let output = check.ended();
    let ran = there.ran(&output);
    let first = String::from_utf8(output.stdout).unwrap();
    assert!(
        first.starts_with("INTERRUPTED interrupted; next: "),
        "{first}"
    );
    assert_eq!(ran.code, 143);
    assert!(
        ran.stderr.contains("the report could not be saved"),
        "{}",
        ran.stderr
    );
    whole(&there, &ran);
}

async fn full_beforehand(lab: &Lab, disk: &Disk, metrics: &str) {
    let (primary, _) = lab.roles().await;
    let started = lab.start_of(&primary).await;
    let (_, mut command) = reporting(lab, disk, &SHORT);
    let told = |output: std::process::Output, first: &str, path: &Path| {
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(3), "{text}");
        assert!(text.starts_with(first), "{text}");
        assert!(text.contains("No space left"), "{text}");
        assert!(text.contains(path.to_str().unwrap()), "{text}");
    };
    let reports = disk.0.join("reports");
    let first = "MISSING-TOOL report-unwritable; next: ";
    told(command.output().unwrap(), first, &reports);
    let mut command = lab.command();
    let command = command.args(SHORT).args(["--textfile-dir", metrics]);
    let first = "MISSING-TOOL textfile-unwritable; next: ";
    told(command.output().unwrap(), first, Path::new(metrics));
    assert_eq!(lab.start_of(&primary).await, started, "untouched");
}
