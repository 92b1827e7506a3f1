//! Formations in which somebody has changed something that stays.

use serde_json::Value;

use crate::support::{Lab, MINUTE, name};

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_standby_that_is_held_down_fails_the_drill_and_the_primary_is_back() {
    let lab = Lab::new("held").await;
    let (primary, other) = lab.roles().await;
    let before = lab.start_of(&primary).await;
    // The longest fault ends it: it is just long enough to miss a target that the timers could meet.
    let targets = ["--rto-target", "9", "--redundancy-target", "5"];
    let args = [&targets[..], &["--max-fault", "10", "--warm-up", "0.5"]].concat();
    let mut check = lab.start(&args);
    lab.until_stopped(&primary, &mut check).await;
    let hold = "mkdir -p /run/systemd/system/pgautofailover.service.d && \
                printf '[Service]\\nRestart=no\\n' \
                >/run/systemd/system/pgautofailover.service.d/hold.conf && \
                systemctl daemon-reload && \
                systemctl kill --kill-whom=all --signal=KILL pgautofailover.service";
    let held = lab
        .incus
        .exec(&name(&other), &["sh", "-c", hold], MINUTE)
        .await
        .unwrap();
    assert_eq!(held.code, 0, "{}", held.stderr);
    let ran = lab.ran(&check.ended());
    assert_eq!(
        (ran.code, &ran.report["verdict"]),
        (2, &Value::from("fail"))
    );
    assert!(ran.measured("rto").0 > 9.0);
    lab.runs_again(&primary, &before).await;
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
