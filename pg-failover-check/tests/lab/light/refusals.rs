//! What is refused before anything is touched.

use std::process::Command;

use serde_json::Value;
use veza_probe::incus::{StateChange, Status};

use crate::support::{Lab, MINUTE, name};

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_stopped_replica_is_refused_untouched() {
    let lab = Lab::new("replica").await;
    let (primary, other) = lab.roles().await;
    let before = lab.start_of(&primary).await;
    lab.incus
        .set_state(&name(&other), StateChange::ForceStop, MINUTE)
        .await
        .unwrap();
    let ran = lab.run(&[]);
    assert_eq!(
        (ran.code, &ran.report["verdict"]),
        (1, &Value::from("refused"))
    );
    ran.says(&other);
    ran.says("nothing was touched");
    let status = lab.instance(&other).await.status;
    assert_eq!(
        status,
        Status::Stopped,
        "what somebody stopped stays stopped"
    );
    assert_eq!(lab.start_of(&primary).await, before, "untouched");
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_stopped_monitor_is_refused_untouched() {
    let lab = Lab::new("monitor").await;
    let (primary, _) = lab.roles().await;
    let before = lab.start_of(&primary).await;
    let monitor = name("pgaf-monitor");
    lab.incus
        .set_state(&monitor, StateChange::ForceStop, MINUTE)
        .await
        .unwrap();
    let ran = lab.run(&[]);
    assert_eq!(
        (ran.code, &ran.report["verdict"]),
        (1, &Value::from("refused"))
    );
    ran.says("pgaf-monitor");
    assert_eq!(lab.start_of(&primary).await, before, "untouched");
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_target_below_the_best_case_is_refused_with_the_sum() {
    let lab = Lab::new("infeasible").await;
    let (primary, _) = lab.roles().await;
    let before = lab.start_of(&primary).await;
    let ran = lab.run(&["--rto-target", "2"]);
    ran.came_to(1, "refused", "target-infeasible");
    for word in [
        "best case",
        "primary_demote_timeout",
        "target 2.0 s",
        "--allow-infeasible",
    ] {
        ran.says(word);
    }
    let ran = lab.run(&["--rto-target", "2", "--allow-infeasible", "--dry-run"]);
    ran.came_to(0, "planned", "dry-run");
    assert_eq!(lab.start_of(&primary).await, before, "untouched");
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn an_incus_that_is_not_there_or_not_ours_is_a_missing_tool() {
    let lab = Lab::new("incus").await;
    let output = lab
        .command()
        .env("INCUS_SOCKET", "/nowhere/unix.socket")
        .output()
        .unwrap();
    let ran = lab.ran(&output);
    ran.came_to(3, "missing-tool", "incus-not-usable");
    ran.says("/nowhere/unix.socket");
    let ran = lab.run(&["--project", "no-such-project"]);
    ran.came_to(3, "missing-tool", "incus-not-usable");
    ran.says("no-such-project");
    // As a user who may not use Incus; root ignores file modes.
    let binary = std::env::temp_dir().join(format!("pg-failover-nobody-{}", std::process::id()));
    std::fs::copy(env!("CARGO_BIN_EXE_pg-failover-check"), &binary).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"])
        .arg(&binary)
        .env_remove("PGPASSFILE")
        .output();
    std::fs::remove_file(&binary).unwrap();
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(
        text.contains("no permission") && text.contains("incus-admin"),
        "{text}"
    );
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_database_that_refuses_writes_is_refused_untouched() {
    let lab = Lab::new("read-only").await;
    let (primary, _) = lab.roles().await;
    let before = lab.start_of(&primary).await;
    let held = "alter database veza set default_transaction_read_only = on";
    lab.sql(&primary, "postgres", held).await;
    lab.run(&[]).came_to(1, "refused", "client-cannot-write");
    let changed = "alter database veza reset default_transaction_read_only";
    lab.sql(&primary, "postgres", changed).await;
    let revoked = "alter database veza owner to postgres";
    lab.sql(&primary, "postgres", revoked).await;
    lab.run(&[]).came_to(1, "refused", "client-cannot-connect");
    let granted = "grant connect on database veza to veza";
    lab.sql(&primary, "postgres", granted).await;
    lab.run(&[]).came_to(1, "refused", "client-cannot-write");
    assert_eq!(lab.start_of(&primary).await, before, "untouched");
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn wrong_passwords_are_refused_untouched() {
    let lab = Lab::new("passwords").await;
    let (primary, _) = lab.roles().await;
    let before = lab.start_of(&primary).await;
    for (variable, reason_id) in [
        ("PGAF_MONITOR_PASSWORD", "monitor-credentials-refused"),
        ("PGAF_FORMATION_PASSWORD", "client-credentials-refused"),
    ] {
        let output = lab
            .command()
            .env(variable, "wrong-password")
            .output()
            .unwrap();
        let ran = lab.ran(&output);
        ran.came_to(1, "refused", reason_id);
        assert!(!ran.stdout.contains("wrong-password"));
    }
    assert_eq!(lab.start_of(&primary).await, before, "untouched");
}
