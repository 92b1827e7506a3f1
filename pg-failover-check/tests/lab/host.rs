//! What happens to the host: Incus restarts or listens, or everything on it ends at once.

mod observer;
mod remote;
mod cut;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use veza_probe::clock;
use veza_probe::incus::Status;

use crate::support::{Lab, MINUTE};

/// The lab's own commands, which know how Incus is started here.
fn lab_up() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let status = Command::new(cargo)
        .current_dir(manifest.parent().unwrap())
        .args(["xtask", "lab", "up", "--no-install"])
        .stdin(Stdio::null())
        .status();
    assert!(status.unwrap().success(), "cargo xtask lab up");
}

/// The processes whose command line begins with a word.
fn processes(is_it: impl Fn(&str) -> bool) -> Vec<String> {
    let all = std::fs::read_dir("/proc").unwrap();
    let names = all.filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    let numbers = names.filter(|name| name.chars().all(|c| c.is_ascii_digit()));
    let line = |pid: &String| {
        let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\0', " ")
    };
    numbers.filter(|pid| is_it(&line(pid))).collect()
}

fn kill(pids: &[String]) {
    // One may have ended by itself meanwhile.
    let _ = Command::new("kill").arg("-KILL").args(pids).status();
}

fn incusd() -> Vec<String> {
    let daemon = processes(|line| {
        let program = line.split(' ').next().unwrap_or_default();
        program.ends_with("/incusd") && line.contains("--group")
    });
    assert!(!daemon.is_empty(), "incusd runs");
    daemon
}

/// Everything that runs in a container of this host, and what holds the containers.
fn containers() -> Vec<String> {
    let own = std::fs::read_link("/proc/self/ns/pid").unwrap();
    let elsewhere = |pid: &String| {
        std::fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|namespace| namespace != own)
    };
    let mut all: Vec<String> = processes(|_| true).into_iter().filter(elsewhere).collect();
    all.extend(processes(|line| line.starts_with("[lxc monitor]")));
    all
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_fault_outlives_a_restart_of_incus_and_is_undone() {
    let lab = Lab::new("incusd").await;
    let (primary, _) = lab.roles().await;
    let before = lab.as_it_is().await;
    let started = lab.start_of(&primary).await;
    let mut check = lab.start(&["--read-only"]);
    lab.until_broken(&primary, &mut check).await;
    kill(&incusd());
    lab_up();
    let ran = lab.ran(&check.ended());
    // What the client saw is measured all the same; the lab's own command may have started the
    // primary before the check did.
    assert!([0, 2, 5].contains(&ran.code), "{}", ran.code);
    assert_eq!(lab.as_it_is().await, before);
    assert!(lab.records().is_empty());
    lab.runs_again(&primary, &started).await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn after_a_crash_of_the_host_recover_clears_what_the_drill_left() {
    let lab = Lab::new("crash").await;
    let (primary, _) = lab.roles().await;
    let before = lab.as_it_is().await;
    let mut check = lab.start(&["--read-only", "--quiet"]);
    lab.until_broken(&primary, &mut check).await;
    let key = lab.instance(&primary).await.config["user.veza.fault"].clone();
    let key: Value = serde_json::from_str(&key).unwrap();
    let drill = ["watchdog", "owner"].map(|who| key[who]["pid"].to_string());
    kill(&drill);
    kill(&incusd());
    kill(&containers());
    check.ended();
    let pool = "/var/lib/incus/storage-pools/veza-lab";
    let unmounted = async {
        while Command::new("umount")
            .arg(pool)
            .status()
            .is_ok_and(|s| !s.success())
        {
            clock::sleep(Duration::from_millis(200)).await;
        }
    };
    clock::within(MINUTE, unmounted)
        .await
        .expect("the pool is unmounted");
    let without = lab.run(&["--recover"]);
    without.came_to(3, "missing-tool", "incus-not-usable");
    lab_up();
    let record = lab.records();
    assert_eq!(record.len(), 1, "the record survives");
    lab.run(&["--quiet"])
        .came_to(1, "refused", "fault-on-record");
    lab.run(&["--recover"]).came_to(0, "clean", "nothing-left");
    assert_eq!(lab.instance(&primary).await.status, Status::Running);
    lab.undone_without_help(&before).await;
}
