//! Whole drills, and what ends them early.

use std::time::Duration;

use serde_json::Value;
use veza_probe::clock;
use veza_probe::incus::{StateChange, Status};

use super::writers::METRICS;
use crate::support::{Lab, MINUTE, name, variable};

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_stopped_primary_is_measured_healed_and_passes() {
    let lab = Lab::new("pass").await;
    let (primary, other) = lab.roles().await;
    let before = lab.start_of(&primary).await;
    let mut check = lab.as_shipped();
    let check = check.arg("--textfile-dir").arg(&lab.folder);
    let ran = lab.ran(&check.output().unwrap());
    ran.came_to(0, "pass", "all-gates-held");
    let metrics = std::fs::read_to_string(lab.folder.join(METRICS)).unwrap();
    assert!(metrics.contains("phase=\"promoted\""), "{metrics}");
    lab.runs_again(&primary, &before).await;
    let (lower, upper) = ran.measured("rto");
    assert!(
        0.0 < lower && lower <= upper && upper <= 60.0,
        "{lower} {upper}"
    );
    let phases: Vec<_> = ran.report["phases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["name"].clone())
        .collect();
    let (first, last) = ("detected", "redundant again");
    // By time: a client may write before the new primary has told the monitor of its promotion.
    assert!(
        phases == [first, "promoted", "writable", last]
            || phases == [first, "writable", "promoted", last],
        "{phases:?}"
    );
    assert!(
        ran.report["fault"]["evidence"]["control"]
            .as_str()
            .unwrap()
            .contains(&other)
    );
    assert_eq!(
        lab.roles().await,
        (other.clone(), primary),
        "the other node is primary now"
    );
    lab.no_schema_is_left(&other).await;
    let secrets = std::fs::read_to_string(variable("PGPASSFILE")).unwrap();
    for line in secrets.lines().filter(|line| !line.starts_with('#')) {
        let secret = line.rsplit(':').next().unwrap();
        assert!(!ran.stdout.contains(secret) && !ran.stderr.contains(secret));
        assert!(!ran.report.to_string().contains(secret));
    }
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_restart_by_incus_is_neutralised_roles_are_switched_back_and_json_is_one_object() {
    let lab = Lab::new("switch-back").await;
    let (primary, other) = lab.roles().await;
    let (instance, key) = (name(&primary), "boot.autorestart");
    let set = lab.incus.set_config_key(&instance, key, None, Some("true"));
    set.await.unwrap();
    let before = lab.as_it_is().await;
    let args = ["--switch-back", "--read-only", "--warm-up", "0.5"];
    let ran = lab.run(&[&args[..], &["--format", "json"]].concat());
    assert_eq!(ran.code, 0, "{}", ran.stdout);
    let object: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(object, ran.report);
    assert_eq!(object["schema"], "veza-report/1");
    assert_eq!(object["reason_id"], "all-gates-held");
    ran.says("boot.autorestart of");
    assert_eq!(lab.as_it_is().await, before, "also that key");
    assert_eq!(lab.roles().await, (primary, other), "as they were");
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_probe_that_fails_early_in_a_control_run_does_not_pass() {
    let lab = Lab::new("early").await;
    let (primary, _) = lab.roles().await;
    let before = lab.as_it_is().await;
    let args = [
        "--fault",
        "none",
        "--read-only",
        "--limit",
        "300",
        "--warm-up",
        "0.5",
    ];
    let mut check = lab.start(&args);
    // Written before the first probe is due.
    let begun = clock::within(MINUTE, async {
        while lab.records().is_empty() {
            assert!(check.runs());
            clock::sleep(Duration::from_millis(5)).await;
        }
    });
    begun.await.expect("the journal is open");
    lab.set(&primary, StateChange::Freeze).await;
    check.until_said("a probe failed before the client was steady");
    lab.set(&primary, StateChange::Unfreeze).await;
    // It goes on, and does not forget.
    let ran = lab.ran(&check.ended());
    ran.came_to(2, "fail", "no-outage-missed");
    assert!(
        ran.measured("no-outage").0 > 0.0,
        "{:?}",
        ran.report["gates"]
    );
    lab.undone_without_help(&before).await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_monitor_that_is_lost_in_mid_drill_ends_at_the_longest_fault_undone() {
    let lab = Lab::new("lost-monitor").await;
    let (primary, _) = lab.roles().await;
    let before = lab.start_of(&primary).await;
    let targets = ["--rto-target", "9", "--redundancy-target", "5"];
    let args = [&targets[..], &["--max-fault", "10", "--warm-up", "0.5"]].concat();
    let mut check = lab.start(&args);
    lab.until_stopped(&primary, &mut check).await;
    let monitor = "pgaf-monitor";
    lab.set(monitor, StateChange::ForceStop).await;
    let healing = async {
        // A keeper that boots while its monitor is away keeps its Postgres down: it can't know
        // whether another node was promoted.
        while !lab
            .incus
            .instance(&name(&primary))
            .await
            .is_ok_and(|i| i.status == Status::Running)
        {
            assert!(check.runs(), "it ended before it healed");
            clock::sleep(Duration::from_millis(100)).await;
        }
    };
    clock::within(MINUTE, healing)
        .await
        .expect("the longest fault is over");
    lab.set(monitor, StateChange::Start).await;
    let ran = lab.ran(&check.ended());
    assert_eq!(
        (ran.code, &ran.report["verdict"]),
        (2, &Value::from("fail"))
    );
    ran.says("the monitor can't be asked");
    lab.runs_again(&primary, &before).await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_signal_while_the_primary_is_down_ends_the_run_with_everything_undone() {
    let lab = Lab::new("signal").await;
    // Which signal it was changes nothing about healing: one of the three waits for a boot.
    for (fault, which, code) in [
        ("stop", "-INT", 130),
        ("freeze", "-TERM", 143),
        ("freeze", "-HUP", 129),
    ] {
        lab.until_whole().await;
        let (primary, _) = lab.roles().await;
        let (before, started) = (lab.as_it_is().await, lab.start_of(&primary).await);
        let mut check = lab.start(&["--fault", fault, "--warm-up", "0.5"]);
        lab.until_broken(&primary, &mut check).await;
        check.signal(which);
        let ran = lab.ran(&check.ended());
        ran.came_to(code, "interrupted", "interrupted");
        assert_eq!(lab.as_it_is().await, before, "{which}");
        assert!(lab.records().is_empty(), "{which}");
        if fault == "stop" {
            lab.runs_again(&primary, &started).await;
        }
        // The healed primary may have taken the drop and lost its role right afterwards.
        lab.until_whole().await;
        lab.no_schema_is_left(&lab.roles().await.0).await;
    }
}
