//! The pooler goes where the formation goes, by itself.

use veza_probe::incus::StateChange;

use crate::support::{FILE, Lab, POOLER, ask};

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_lost_primary_is_followed_without_a_restart() {
    let lab = Lab::new().await;
    let (primary, other) = lab.roles().await;
    lab.until_clients_come_out_at(&primary).await;
    let (before, cursor) = (lab.pooler().await, lab.cursor().await);
    // A follower that found the file of another day when it started has changed it once already.
    let changes = lab.metric("changes_total").await;
    let once_more = format!("changes_total {}", changes + 1);
    lab.set(&primary, StateChange::ForceStop).await;
    lab.until_clients_come_out_at(&other).await;
    lab.until_said(&cursor, &format!("clients now go to {other} "))
        .await;
    lab.until_metric(&once_more).await;
    lab.set(&primary, StateChange::Start).await;
    lab.until_whole().await;
    lab.until_clients_come_out_at(&other).await;
    lab.until_metric(&once_more).await;
    assert_eq!(lab.pooler().await, before, "the pooler was not restarted");
}

/// A node that hangs ends no connection: who is in the middle of a transaction there is told by us.
#[tokio::test]
#[ignore = "needs the lab"]
async fn who_is_in_a_transaction_on_a_frozen_primary_is_let_go() {
    let lab = Lab::new().await;
    let (primary, other) = lab.roles().await;
    lab.until_clients_come_out_at(&primary).await;
    let dropped = lab.metric("clients_dropped_total").await;
    let mut held = lab.through().await.unwrap();
    ask(&held.client, "begin").await.unwrap();
    lab.set(&primary, StateChange::Freeze).await;
    let hangs = held.client.batch_execute("select 1");
    let (hung, ()) = tokio::join!(hangs, lab.until_clients_come_out_at(&other));
    assert!(hung.is_err(), "it was let go");
    let ended = veza_probe::clock::within(crate::support::MINUTE, held.driver.ended()).await;
    assert!(ended.is_ok(), "the connection is over");
    lab.until_metric(&format!("clients_dropped_total {}", dropped + 1))
        .await;
    lab.set(&primary, StateChange::Unfreeze).await;
    lab.until_whole().await;
    lab.until_clients_come_out_at(&other).await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_switchover_that_was_asked_for_is_followed() {
    let lab = Lab::new().await;
    let (primary, other) = lab.roles().await;
    lab.until_clients_come_out_at(&primary).await;
    lab.ask_monitor("select pgautofailover.perform_failover()")
        .await;
    lab.until_clients_come_out_at(&other).await;
    lab.until_whole().await;
}

/// For people: once, and without touching anything.
#[tokio::test]
#[ignore = "needs the lab"]
async fn a_dry_run_says_what_it_would_write_and_changes_nothing() {
    let lab = Lab::new().await;
    let (primary, _) = lab.roles().await;
    lab.until_metric("following 1").await;
    let dry_run = "pgbouncer-follow --env-file /etc/veza/pgbouncer-follow.env --once --dry-run";
    let right = lab.try_shell(POOLER, dry_run).await;
    assert_eq!(right.code, 0);
    assert!(
        right.stderr.contains("is right already"),
        "{}",
        right.stderr
    );
    assert!(
        right.stdout.contains(&format!("host='{primary}.lxd'")),
        "{}",
        right.stdout
    );

    lab.shell(POOLER, "systemctl stop pgbouncer-follow").await;
    lab.shell(POOLER, &format!("echo '[databases]' > {FILE}"))
        .await;
    let as_it_is =
        format!("stat --format '%i %Y %s %U %a' {FILE}; ls -A /var/lib/pgbouncer-follow");
    let before = lab.shell(POOLER, &as_it_is).await;
    let wrong = lab.try_shell(POOLER, dry_run).await;
    assert_eq!((wrong.code, &wrong.stdout), (0, &right.stdout));
    assert!(
        wrong.stderr.contains("would be written"),
        "{}",
        wrong.stderr
    );
    assert!(
        wrong.stderr.contains("nothing was changed"),
        "{}",
        wrong.stderr
    );
    assert_eq!(lab.shell(POOLER, &as_it_is).await, before);

    // And without --dry-run it does it; owner and mode stay, so that the pooler may read it.
    let once = dry_run.replace(" --dry-run", "");
    lab.shell(POOLER, &once).await;
    assert_eq!(
        lab.shell(POOLER, &format!("cat {FILE}")).await,
        right.stdout.trim()
    );
    let owner = lab
        .shell(POOLER, &format!("stat --format '%U %a' {FILE}"))
        .await;
    assert_eq!(owner, "postgres 640");
    lab.shell(POOLER, "systemctl start pgbouncer-follow").await;
    lab.until_metric("following 1").await;
}
