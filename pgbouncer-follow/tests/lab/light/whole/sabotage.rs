//! What goes wrong around the follower, and never sends a client to a node that takes no writes.

use veza_probe::incus::StateChange;

use crate::support::{FILE, Lab, MONITOR, POOLER, ask};

#[tokio::test]
#[ignore = "needs the lab"]
async fn while_the_monitor_is_away_clients_go_on_and_it_is_said() {
    let lab = Lab::new().await;
    let (primary, _) = lab.roles().await;
    lab.until_metric("following 1").await;
    let (cursor, file) = (
        lab.cursor().await,
        lab.shell(POOLER, &format!("cat {FILE}")).await,
    );
    lab.set(MONITOR, StateChange::ForceStop).await;
    let stay =
        format!("clients stay with {primary} ({primary}.lxd:5432): the monitor does not answer");
    lab.until_said(&cursor, &stay).await;
    lab.until_metric("monitor_up 0").await;
    lab.until_metric("following 0").await;
    let came_out = lab.come_out().await.unwrap();
    assert_eq!(
        (came_out.at, came_out.takes_writes),
        (lab.address(&primary).await, true)
    );
    assert_eq!(lab.shell(POOLER, &format!("cat {FILE}")).await, file);

    // A start without a monitor knows nothing, and so changes nothing.
    let cursor = lab.cursor().await;
    lab.shell(POOLER, "systemctl restart pgbouncer-follow")
        .await;
    lab.until_said(&cursor, &format!("clients stay where {FILE} sends them"))
        .await;
    assert_eq!(lab.shell(POOLER, &format!("cat {FILE}")).await, file);
    let once = "pgbouncer-follow --env-file /etc/veza/pgbouncer-follow.env --once";
    assert_eq!(lab.try_shell(POOLER, once).await.code, 1);
    lab.set(MONITOR, StateChange::Start).await;
    lab.until_metric("following 1").await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_killed_follower_begins_anew_and_disturbs_nobody() {
    let lab = Lab::new().await;
    lab.until_metric("following 1").await;
    let process = "systemctl show --property MainPID --value pgbouncer-follow";
    let (pooler, before) = (lab.pooler().await, lab.shell(POOLER, process).await);
    let file = lab.shell(POOLER, &format!("cat {FILE}")).await;
    let session = lab.through().await.unwrap();
    ask(&session.client, "begin").await.unwrap();
    // What a crash, a person or a restored backup may have left.
    lab.shell(
        POOLER,
        &format!("kill -KILL {before}; echo nonsense > {FILE}"),
    )
    .await;
    let again = format!("now=$({process}); [[ $now != 0 && $now != {before} ]]");
    lab.until(POOLER, &again).await;
    lab.until_metric("following 1").await;
    assert_eq!(lab.shell(POOLER, &format!("cat {FILE}")).await, file);
    ask(&session.client, "commit")
        .await
        .expect("its transaction goes on");
    assert_eq!(lab.pooler().await, pooler, "the pooler was not restarted");
}

/// systemd ends one that hangs, and starts another.
#[tokio::test]
#[ignore = "needs the lab"]
async fn a_follower_that_hangs_is_replaced() {
    let lab = Lab::new().await;
    lab.until_metric("following 1").await;
    let process = "systemctl show --property MainPID --value pgbouncer-follow";
    let before = lab.shell(POOLER, process).await;
    lab.shell(POOLER, &format!("kill -STOP {before}")).await;
    let again = format!("now=$({process}); [[ $now != 0 && $now != {before} ]]");
    lab.until(POOLER, &again).await;
    lab.until_metric("following 1").await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_file_that_can_not_be_written_is_said_and_no_client_is_misled() {
    let lab = Lab::new().await;
    let (primary, other) = lab.roles().await;
    lab.until_metric("following 1").await;
    let cursor = lab.cursor().await;
    // Nobody but root may write there now; root's modes would not stop root.
    lab.shell(POOLER, "chown root /var/lib/pgbouncer-follow")
        .await;
    lab.ask_monitor("select pgautofailover.perform_failover()")
        .await;
    lab.until_said(&cursor, "the file can't be written").await;
    lab.until_metric("file_written 0").await;
    lab.until_whole().await;
    // The file sends clients to the demoted node, whose guard turns every one away.
    let misled = lab.come_out().await;
    assert!(misled.is_err(), "{primary} is read only: {misled:?}");
    lab.shell(POOLER, "chown postgres /var/lib/pgbouncer-follow")
        .await;
    lab.until_clients_come_out_at(&other).await;
    lab.until_metric("following 1").await;
}

/// The file is stale and nobody mends it. Without the guard the same file does mislead: so this test can
/// fail.
#[tokio::test]
#[ignore = "needs the lab"]
async fn a_stale_file_leads_no_client_to_a_node_that_takes_no_writes() {
    let lab = Lab::new().await;
    let (primary, other) = lab.roles().await;
    lab.until_metric("following 1").await;
    lab.shell(POOLER, "systemctl stop pgbouncer-follow").await;
    let stale = format!("sed -i s/{primary}/{other}/ {FILE} && /usr/local/lib/veza/reload");
    lab.shell(POOLER, &stale).await;
    for _ in 0..3 {
        let misled = lab.come_out().await;
        assert!(misled.is_err(), "{other} is read only: {misled:?}");
    }
    let unguarded = format!("sed -i 's/ connect_query=.*//' {FILE} && /usr/local/lib/veza/reload");
    lab.shell(POOLER, &unguarded).await;
    let address = lab.address(&other).await;
    let misled = async {
        loop {
            if let Ok(came_out) = lab.come_out().await {
                return came_out;
            }
        }
    };
    let misled = veza_probe::clock::within(crate::support::MINUTE, misled)
        .await
        .unwrap();
    assert_eq!((misled.at, misled.takes_writes), (address, false));
    lab.shell(POOLER, "systemctl start pgbouncer-follow").await;
    lab.until_metric("following 1").await;
    lab.until_clients_come_out_at(&primary).await;
}

/// A formation whose monitor wants two nodes to take writes.
#[tokio::test]
#[ignore = "needs the lab"]
async fn of_two_nodes_that_claim_it_none_is_chosen() {
    let lab = Lab::new().await;
    lab.until_metric("following 1").await;
    lab.ask_monitor("insert into pgautofailover.formation (formationid, kind, dbname, opt_secondary) values ('two', 'pgsql', 'veza', true)").await;
    for node in ["pgaf-primary", "pgaf-replica"] {
        lab.ask_monitor(&format!(
            "insert into pgautofailover.node (formationid, groupid, nodename, nodehost, nodeport, sysidentifier, goalstate, reportedstate) \
             values ('two', 0, 'two-{node}', '{node}.lxd', 5433, 1, 'primary', 'primary')"
        ))
        .await;
    }
    let line = "pgbouncer-follow --env-file /etc/veza/pgbouncer-follow.env --once --formation two";
    let before = lab
        .shell(POOLER, &format!("stat --format '%i %Y' {FILE}"))
        .await;
    let refused = lab.try_shell(POOLER, line).await;
    assert_eq!(refused.code, 1);
    for word in [
        "more than one node",
        "two-pgaf-primary primary",
        "two-pgaf-replica primary",
    ] {
        assert!(refused.stderr.contains(word), "{word}: {}", refused.stderr);
    }
    let after = lab
        .shell(POOLER, &format!("stat --format '%i %Y' {FILE}"))
        .await;
    assert_eq!(after, before);
    // With one of them demoted it is the other's turn, and that one does not answer.
    lab.ask_monitor(
        "update pgautofailover.node set goalstate = 'demoted' where nodename = 'two-pgaf-primary'",
    )
    .await;
    let refused = lab.try_shell(POOLER, line).await;
    assert_eq!(refused.code, 1);
    assert!(
        refused
            .stderr
            .contains("two-pgaf-replica primary does not say"),
        "{}",
        refused.stderr
    );
    for table in ["node", "formation"] {
        let all = format!("delete from pgautofailover.{table} where formationid = 'two'");
        lab.ask_monitor(&all).await;
    }
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_pooler_that_comes_back_finds_the_right_file() {
    let lab = Lab::new().await;
    let (_, other) = lab.roles().await;
    lab.until_metric("following 1").await;
    let cursor = lab.cursor().await;
    lab.shell(POOLER, "systemctl stop pgbouncer").await;
    lab.ask_monitor("select pgautofailover.perform_failover()")
        .await;
    lab.until_said(&cursor, "the pooler has not taken it over")
        .await;
    lab.until(POOLER, &format!("grep --quiet {other} {FILE}"))
        .await;
    lab.shell(POOLER, "systemctl start pgbouncer").await;
    lab.until_clients_come_out_at(&other).await;
    lab.until_metric("following 1").await;
}
