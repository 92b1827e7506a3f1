//! The kill matrix: every kind of fault, killed before and after every changing request to Incus. And
//! every kind as a whole drill.

use std::process::Stdio;

use crate::proxy::{Moment, Proxy};
use crate::support::{Lab, Running};

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

fn start(lab: &Lab, socket: &std::path::Path, kind: &str) -> Running {
    let mut command = lab.command();
    let command = command.args(SHORT).arg(kind).env("INCUS_SOCKET", socket);
    Running(Some(
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    ))
}

/// Whether a request runs a program that only looks. It is sent as one that changes something, but what is
/// there before and after it is the same, and both are reached at the requests beside it.
fn only_looks(point: &str) -> bool {
    ["(systemctl show ", "(test -e "]
        .iter()
        .any(|program| point.contains(program))
}

async fn matrix(kind: &str) {
    let lab = Lab::new(&format!("matrix-{}", kind.replace(':', "-"))).await;
    let socket = lab.folder.join("incus.sock");
    let proxy = Proxy::start(&socket, lab.incus.place().socket().unwrap());
    let before = lab.as_it_is().await;
    lab.ran(&start(&lab, &socket, kind).ended());
    lab.undone_without_help(&before).await;
    let points = proxy.changing();
    println!("{kind}: {points:#?}");
    // Three keys are set and taken away, and something is done and undone.
    assert!(points.len() >= 8, "{points:?}");
    for (number, point) in points.iter().enumerate() {
        if only_looks(point) {
            continue;
        }
        for moment in [Moment::Before, Moment::After] {
            lab.until_whole().await;
            let before = lab.as_it_is().await;
            proxy.clear();
            let check = start(&lab, &socket, kind);
            proxy.kill_at(number, moment, check.id());
            let output = check.ended();
            println!("{kind}, killed {moment:?} {number}: {point}");
            let story = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(proxy.struck(), "{point} never came: {story}");
            assert_eq!(output.status.code(), None, "killed: {story}");
            lab.undone_without_help(&before).await;
        }
    }
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
        let ran = lab.run(&["--fault", kind, "--warm-up", "1"]);
        ran.came_to(0, "pass", "all-gates-held");
        assert_eq!(lab.as_it_is().await, before, "{kind}");
        assert!(lab.records().is_empty(), "{kind}");
        for gate in ["lost-writes", "phantom-writes", "two-primaries"] {
            assert_eq!(ran.seconds(gate), (0.0, 0.0), "{kind}: {gate}");
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
