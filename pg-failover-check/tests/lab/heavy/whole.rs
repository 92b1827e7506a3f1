//! The kill matrix: every kind of fault, killed before and after every changing request to Incus. And
//! every kind as a whole drill.

use lab_test::{Points, kill_points};

use crate::support::Lab;

const UNIT: &str = "pgautofailover";

/// Ends soon, writes nothing: every changing request is one of the drill's own, the same in each run.
const SHORT: [&str; 9] = [
    "--quiet",
    "--read-only",
    "--warm-up",
    "0.2",
    "--settle",
    "0.2",
    "--max-fault",
    "0.5",
    "--fault",
];

/// Requests that run a program which only looks. They are sent as ones that change something, but what is there
/// before and after is the same, and both are reached at the requests beside them.
const ONLY_LOOK: Points<'_> = Points::Without(&["(systemctl show ", "(test -e "]);

async fn matrix(kind: &str) {
    let lab = Lab::new(&format!("matrix-{}", kind.replace(':', "-"))).await;
    let command = || {
        let mut command = lab.command();
        command.args(SHORT).arg(kind);
        command
    };
    let made = kill_points(&lab, command, ONLY_LOOK, async || lab.until_whole().await).await;
    // Three keys are set and taken away, and something is done and undone.
    assert!(made.len() >= 8, "{made:?}");
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn killed_anywhere_in_a_stop() {
    matrix("stop").await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn killed_anywhere_in_a_freeze() {
    matrix("freeze").await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn killed_anywhere_in_a_partition() {
    matrix("partition").await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn killed_anywhere_in_a_kill() {
    matrix(&format!("kill:{UNIT}")).await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn killed_anywhere_in_a_hold() {
    matrix(&format!("hold:{UNIT}")).await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn killed_anywhere_in_a_kill_restart() {
    matrix(&format!("kill-restart:{UNIT}")).await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn every_kind_is_proven_measured_and_undone_with_no_write_lost() {
    let lab = Lab::new("kinds").await;
    for kind in ["freeze", "partition", "kill", "hold", "kill-restart"] {
        let unit = format!("{kind}:{UNIT}");
        let kind = if kind.contains('k') || kind == "hold" {
            &unit
        } else {
            kind
        };
        let before = lab.as_it_is().await;
        let ran = lab.run(&["--fault", kind, "--warm-up", "1", "--settle", "2"]);
        ran.came_to(0, "pass", "all-gates-held");
        assert_eq!(lab.as_it_is().await, before, "{kind}");
        assert!(lab.records().is_empty(), "{kind}");
        for gate in ["lost-writes", "phantom-writes", "two-primaries"] {
            assert_eq!(ran.measured(gate), (0.0, 0.0), "{kind}: {gate}");
        }
        let evidence = &ran.report["fault"]["evidence"];
        assert!(evidence["control"].is_string(), "{kind}: {evidence}");
        assert!(ran.report["ledger"]["acknowledged"].as_u64() > Some(100));
        let phases = ran.report["phases"].as_array().unwrap();
        let seen = |name: &str| phases.iter().any(|phase| phase["name"] == name);
        // Whether systemd or the monitor is first after a kill-restart is decided anew each time.
        let stays = kind.starts_with("kill-restart") && !seen("promoted");
        assert_ne!(
            seen("fenced"),
            stays,
            "{kind}: the old primary fenced itself"
        );
        lab.until_whole().await;
    }
}
