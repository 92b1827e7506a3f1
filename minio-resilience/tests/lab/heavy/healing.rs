//! Healing that means something: what a node missed, a drive that was emptied, bytes that were flipped, and what must not
//! be called whole.

use crate::support::Lab;

#[tokio::test]
#[ignore = "needs the lab"]
async fn what_a_node_missed_is_healed_and_proven_without_those_that_were_there() {
    let lab = Lab::new("heal").await;
    let (before, starts) = (lab.as_it_is().await, lab.starts().await);
    let ran = lab.run(&[
        "--step",
        "heal",
        "--objects",
        "60",
        "--nodes",
        "1",
        "--lose",
        "minio-3",
        "--self-heal-wait",
        "10",
    ]);
    ran.came_to(0, "pass", "all-gates-held");
    assert_eq!(lab.as_it_is().await, before);
    for gate in [
        "degraded/unwritten",
        "degraded/not-whole",
        "degraded/replaced",
        "degraded/unread",
        "degraded/wrong-bytes",
        "proof/wrong-bytes",
        "proof/unread",
        "proof/lost-versions",
        "proof/back-versions",
        "proof/old-versions",
    ] {
        assert_eq!(ran.measured(gate), (0.0, 0.0), "{gate}");
    }
    let (lower, upper) = ran.measured("degraded/healed");
    assert!(lower < upper && upper.is_finite(), "{lower} {upper}");
    // Nobody else lacked anything, and it did.
    ran.says("versions lacked something (198.18.0.33/data: ");
    ran.says("overwritten and");
    // In the proof exactly two others were stopped: only healing gave minio-3 what was read.
    let stops = |act: usize| ran.report["acts"][act]["fault"]["plan"]["targets"].clone();
    let names = |act: usize| -> Vec<String> {
        let targets = stops(act).as_array().unwrap().clone();
        let name = |t: &serde_json::Value| t["instance"].as_str().unwrap().to_owned();
        targets.iter().map(name).collect()
    };
    assert_eq!(names(0), ["minio-3"]);
    assert_eq!(names(1).len(), 2);
    assert!(!names(1).contains(&"minio-3".to_owned()));
    let again = lab.starts().await;
    let started = starts
        .iter()
        .zip(&again)
        .filter(|(one, other)| one != other);
    assert_eq!(started.count(), 3);
    lab.no_object_is_left().await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn an_emptied_drive_and_flipped_bytes_are_mended_and_only_in_a_lab() {
    let lab = Lab::new("destroyed").await;
    let (before, starts) = (lab.as_it_is().await, lab.starts().await);
    for step in ["wipe-drive", "bitrot"] {
        let mut command = lab.command();
        command.env_remove("VEZA_LAB_CREDENTIALS");
        let refused = command.args(["--step", step, "--yes"]).output().unwrap();
        lab.ran(&refused).came_to(1, "refused", "not-a-lab");
    }
    assert_eq!(lab.starts().await, starts, "untouched");
    let ran = lab.run(&[
        "--step",
        "wipe-drive,bitrot",
        "--objects",
        "60",
        "--nodes",
        "1",
        "--lose",
        "minio-2",
        "--bitrot",
        "4",
    ]);
    ran.came_to(0, "pass", "all-gates-held");
    assert_eq!(lab.as_it_is().await, before);
    for gate in [
        "wipe-drive/not-whole",
        "wipe-drive/replaced",
        "proof/wrong-bytes",
        "proof/lost-versions",
        "bitrot/missed",
        "bitrot/beside",
        "bitrot/failed-reads",
        "bitrot/unmended",
        "bitrot/not-whole",
    ] {
        assert_eq!(ran.measured(gate), (0.0, 0.0), "{gate}");
    }
    ran.says("4 shards were flipped on one drive; a deep look called ");
    ran.says("the drive that was emptied had");
    lab.no_object_is_left().await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn healing_that_is_blocked_is_not_called_whole() {
    let lab = Lab::new("blocked").await;
    let before = lab.as_it_is().await;
    let mut check = lab.start(&[
        "--step",
        "heal",
        "--objects",
        "20",
        "--nodes",
        "1",
        "--lose",
        "minio-3",
        "--self-heal-wait",
        "1",
        "--heal-target",
        "20",
        "--warm-up",
        "1",
    ]);
    // Read-only from before its server looks at it again.
    check.until_said("healing: ");
    lab.until_inside("minio-3", "mount -o remount,bind,ro /data")
        .await;
    let ran = lab.ran(&check.ended());
    assert_eq!(ran.code, 2, "{:#}", ran.report);
    lab.inside("minio-3", "mount -o remount,bind,rw /data")
        .await;
    assert_eq!(lab.as_it_is().await, before, "healed");
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_drive_that_comes_back_empty_unasked_is_seen() {
    let lab = Lab::new("replaced").await;
    let few = ["--objects", "20", "--warm-up", "1", "--step", "heal"];
    let unit = "/etc/systemd/system/minio.service.d/empty.conf";
    let once = format!(
        "mkdir -p $(dirname {unit}) && printf '[Service]\\nExecStartPre=+/bin/sh -c \"rm {unit}; find /data \
         -mindepth 1 -delete\"\\n' > {unit} && systemctl daemon-reload"
    );
    lab.inside("minio-3", &once).await;
    let lost = ["--nodes", "1", "--lose", "minio-3"];
    let ran = lab.run(&[&few[..], &lost[..]].concat());
    ran.came_to(2, "fail", "replaced-missed");
    let acts = ran.report["acts"].as_array().unwrap().len();
    assert_eq!(acts, 1, "no other node was stopped after that");
    ran.says("came back empty");
    lab.no_object_is_left().await;
}
