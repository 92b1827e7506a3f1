//! A runner that reaches Incus and nothing else: its network namespace has no way to the bridge, so that
//! everything it measures is measured inside an instance.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use veza_probe::clock;
use veza_probe::incus::{FileKind, StateChange};

use super::kill;
use crate::support::{Lab, MINUTE, Running, name};

/// Where the observer runs: not in a data node, and in a group that every test here has.
const INSTANCE: &str = "pgaf-monitor";

/// The check in a network of its own, which has only a loopback that is down.
fn command(lab: &Lab, args: &[&str]) -> Command {
    let check = lab.command();
    let mut command = Command::new("unshare");
    command
        .arg("--net")
        .arg(check.get_program())
        .args(check.get_args())
        .envs(
            check
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .args(["--fault", "freeze"])
        .args(args)
        .stdin(Stdio::null());
    command
}

fn run(lab: &Lab, args: &[&str]) -> Output {
    command(lab, args).output().unwrap()
}

fn start(lab: &Lab, args: &[&str]) -> Running {
    Running::of(&mut command(lab, args))
}

/// The observer's processes, as this host numbers them.
fn observers() -> Vec<String> {
    super::processes(|line| line.starts_with("/var/tmp/veza-outpost-"))
}

async fn nothing_is_left(lab: &Lab) {
    let gone = async {
        while !observers().is_empty() {
            clock::sleep(Duration::from_millis(50)).await;
        }
    };
    clock::within(MINUTE, gone)
        .await
        .expect("the observer is gone");
    let observer = name(INSTANCE);
    let names = lab.incus.list_folder(&observer, "/var/tmp").await;
    let left: Vec<String> = names.unwrap();
    assert!(!left.iter().any(|name| name.contains("veza")), "{left:?}");
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_runner_that_reaches_only_incus_observes_from_an_instance() {
    let lab = Lab::new("observer").await;
    let (primary, _) = lab.roles().await;
    let before = lab.as_it_is().await;
    let started = lab.start_of(&primary).await;
    let refused = |args: &[&str], code, verdict, reason| {
        lab.ran(&run(&lab, args)).came_to(code, verdict, reason);
    };
    refused(&[], 3, "missing-tool", "address-unreachable");
    let nowhere = ["--observe-from", "nowhere"];
    refused(&nowhere, 3, "missing-tool", "no-observer");
    let in_node = ["--observe-from", &primary];
    refused(&in_node, 1, "refused", "observer-in-node");
    assert_eq!(lab.start_of(&primary).await, started, "untouched");
    // As a run leaves it that is killed before the program has begun.
    for (path, kind) in [
        ("/var/tmp/veza-outpost-1-1", FileKind::Folder),
        (
            "/var/tmp/veza-outpost-1-1/program",
            FileKind::File(Vec::new()),
        ),
    ] {
        let (observer, mode) = (name(INSTANCE), (0, 0, 0o700));
        let written = lab.incus.write_file(&observer, path, kind, mode).await;
        written.unwrap();
    }
    let drill = lab.ran(&run(&lab, &["--observe-from", INSTANCE]));
    drill.came_to(0, "pass", "all-gates-held");
    drill.says("inside pgaf-monitor, directly to the nodes");
    drill.says("asked from pgaf-monitor");
    assert!(drill.report["probes"]["succeeded"].as_u64().unwrap() > 100);
    assert_eq!(lab.as_it_is().await, before);
    nothing_is_left(&lab).await;
    let (primary, _) = lab.roles().await;
    lab.no_schema_is_left(&primary).await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn without_its_observer_a_drill_says_nothing_and_is_undone() {
    let lab = Lab::new("observer-lost").await;
    let (primary, _) = lab.roles().await;
    let before = lab.as_it_is().await;
    let mut check = start(&lab, &["--observe-from", INSTANCE, "--read-only"]);
    lab.until_broken(&primary, &mut check).await;
    let observers = observers();
    assert_eq!(observers.len(), 1);
    kill(&observers);
    let ran = lab.ran(&check.ended());
    ran.came_to(5, "inconclusive", "observer-blind");
    ran.says("the observer was lost");
    assert_eq!(lab.as_it_is().await, before);
    assert!(lab.records().is_empty());
    nothing_is_left(&lab).await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn an_observer_that_falls_silent_is_lost_too_and_holds_up_nothing_for_long() {
    let lab = Lab::new("observer-silent").await;
    let (primary, _) = lab.roles().await;
    let before = lab.as_it_is().await;
    let args = ["--observe-from", INSTANCE, "--read-only"];
    let mut check = start(&lab, &args);
    lab.until_broken(&primary, &mut check).await;
    let set = async |change| {
        let done = lab.incus.set_state(&name(INSTANCE), change, MINUTE).await;
        done.unwrap();
    };
    set(StateChange::Freeze).await;
    check.until_said("the program in the instance is gone");
    // What proves that the primary answers again is asked from there.
    set(StateChange::Unfreeze).await;
    let ran = lab.ran(&check.ended());
    ran.came_to(5, "inconclusive", "observer-blind");
    assert_eq!(lab.as_it_is().await, before);
    assert!(lab.records().is_empty());
    nothing_is_left(&lab).await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn killed_where_it_reaches_only_incus_a_check_leaves_nothing() {
    let lab = Lab::new("observer-killed").await;
    let (primary, _) = lab.roles().await;
    let before = lab.as_it_is().await;
    let mut check = start(&lab, &["--observe-from", INSTANCE]);
    lab.until_broken(&primary, &mut check).await;
    check.signal("-KILL");
    check.ended();
    lab.undone_without_help(&before).await;
    lab.until_whole().await;
    let (primary, _) = lab.roles().await;
    lab.no_schema_is_left(&primary).await;
    nothing_is_left(&lab).await;
}
