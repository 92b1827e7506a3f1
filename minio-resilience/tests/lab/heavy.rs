//! A drill that passes, and what must not become one. Each writes and reads a few hundred objects.

mod healing;

use std::process::Command;

use lab_test::{Points, kill_points};

use crate::support::{Lab, NODES, name, phases, variable};

/// Fewer objects than a person would take: every size is among them all the same.
const FEW: &[&str] = &["--step", "lose", "--objects", "40"];

fn with(args: &[&'static str]) -> Vec<&'static str> {
    FEW.iter().chain(args).copied().collect()
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn two_nodes_are_lost_everything_is_read_and_writes_are_refused() {
    let lab = Lab::new("pass").await;
    let (before, starts) = (lab.as_it_is().await, lab.starts().await);
    let ran = lab.run(&with(&["--lose", "minio-2,minio-4"]));
    ran.came_to(0, "pass", "all-gates-held");
    assert_eq!(lab.as_it_is().await, before);
    let again = lab.starts().await;
    let stopped: Vec<bool> = starts
        .iter()
        .zip(&again)
        .map(|(one, other)| one != other)
        .collect();
    assert_eq!(
        stopped,
        [false, true, false, true],
        "those two and no others"
    );
    for gate in [
        "read-outage",
        "failed-reads",
        "unread",
        "wrong-bytes",
        "refusal",
        "taken-writes",
        "phantoms",
    ] {
        ran.measured(&format!("lose/{gate}"));
    }
    let (_, refused) = ran.measured("lose/refusal");
    assert!(refused > 0.0, "writes were tried");
    for phase in [
        "write quorum lost",
        "process up",
        "write quorum",
        "drives online",
        "serving",
        "whole",
    ] {
        let seen = phases(&ran, 0);
        assert!(seen.contains(&phase), "{phase}: {seen:?}");
    }
    ran.says("503 SlowDownWrite");
    let promised = ran.report["feasibility"][0].as_str().unwrap();
    assert!(
        promised.contains("read quorum 2, write quorum 3"),
        "{promised}"
    );
    lab.no_object_is_left().await;
    let secret = std::fs::read_to_string(variable("MINIO_SECRET_KEY_FILE")).unwrap();
    let secret = secret.trim();
    assert!(!secret.is_empty() && !ran.stdout.contains(secret));
    assert!(!ran.stderr.contains(secret) && !ran.report.to_string().contains(secret));
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn three_nodes_are_lost_and_nothing_is_served_nor_corrupted() {
    let lab = Lab::new("three").await;
    let before = lab.as_it_is().await;
    let ran = lab.run(&with(&["--nodes", "3", "--warm-up", "1"]));
    ran.came_to(0, "pass", "all-gates-held");
    assert_eq!(ran.measured("lose/served"), (0.0, 0.0));
    assert_eq!(ran.measured("lose/unread-after"), (0.0, 0.0));
    assert_eq!(lab.as_it_is().await, before);
    lab.no_object_is_left().await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn nothing_broken_shows_no_outage_and_a_dry_run_only_plans() {
    let lab = Lab::new("control").await;
    let starts = lab.starts().await;
    let ran = lab.run(&with(&["--dry-run", "--warm-up", "0.5"]));
    ran.came_to(0, "planned", "dry-run");
    let ran = lab.run(&with(&["--fault", "none", "--warm-up", "0.5"]));
    ran.came_to(0, "pass", "all-gates-held");
    assert_eq!(lab.starts().await, starts, "untouched");
    lab.no_object_is_left().await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn what_is_not_whole_or_not_allowed_is_refused_untouched() {
    let lab = Lab::new("refused").await;
    let starts = lab.starts().await;
    lab.run(&with(&["--parity", "EC:1"]))
        .came_to(1, "refused", "parity-differs");
    let as_user = |access: &str, secret: &str| {
        let mut command: Command = lab.command();
        command.env_remove("MINIO_SECRET_KEY_FILE");
        command
            .args(FEW)
            .env("MINIO_ACCESS_KEY", access)
            .env("MINIO_SECRET_KEY", secret);
        let ran = lab.ran(&command.output().unwrap());
        assert!(!format!("{}{}{}", ran.stdout, ran.stderr, ran.report).contains(secret));
        ran
    };
    as_user(&variable("MINIO_ACCESS_KEY"), "hunter2hunter2").came_to(
        1,
        "refused",
        "credentials-refused",
    );
    // One that may see everything, and write nothing.
    lab.mc(
        "minio-1",
        "admin user add veza readonly-check hunter2hunter2",
    )
    .await;
    for policy in ["readonly", "diagnostics"] {
        lab.mc(
            "minio-1",
            &format!("admin policy attach veza {policy} --user readonly-check"),
        )
        .await;
    }
    let ran = as_user("readonly-check", "hunter2hunter2");
    ran.came_to(1, "refused", "credentials-refused");
    lab.mc("minio-1", "admin user remove veza readonly-check")
        .await;
    lab.inside("minio-3", "systemctl stop minio").await;
    lab.run(FEW).came_to(1, "refused", "node-unreachable");
    lab.inside("minio-3", "systemctl start minio").await;
    lab.until_whole().await;
    assert_eq!(lab.starts().await, starts, "untouched");
    lab.no_object_is_left().await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn an_object_that_somebody_else_changes_is_named_and_proves_nothing() {
    let lab = Lab::new("changed").await;
    let args = with(&["--prefix", "veza-drill/changed/", "--warm-up", "6"]);
    let mut check = lab.start(&args);
    check.until_said("working set: ");
    let (key, bucket) = ("veza-drill/changed/read/00001", variable("MINIO_BUCKET"));
    lab.mc(
        "minio-1",
        &format!("cp /etc/hostname veza/{bucket}/{key} >/dev/null"),
    )
    .await;
    let ran = lab.ran(&check.ended());
    ran.came_to(5, "inconclusive", "changed-by-others");
    let reason = ran.report["reason"].as_str().unwrap();
    assert!(reason.contains(key), "{reason}");
    lab.no_object_is_left().await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_check_that_is_killed_leaves_nothing_broken_and_no_object() {
    let lab = Lab::new("killed").await;
    let command = || {
        let mut command = lab.command();
        command.args(["--step", "lose", "--nodes", "1", "--objects", "10"]);
        command
    };
    let points = Points::With(&["(stop)", "(start)"]);
    kill_points(&lab, command, points, async || lab.until_whole().await).await;
    lab.until_whole().await;
    lab.run(&["--recover"]).came_to(0, "clean", "nothing-left");
    lab.no_object_is_left().await;
    for node in NODES {
        let config = lab.incus.instance(&name(node)).await.unwrap().config;
        assert!(!config.contains_key("user.veza.fault"), "{node}");
    }
}
