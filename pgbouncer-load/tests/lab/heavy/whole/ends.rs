//! However a run ends, pgbench ends with it, on both ends, and none of its files is left.

use std::time::Duration;

use veza_probe::clock;

use crate::support::{Lab, MINUTE, POOLER, Running, has_pgbench};

async fn under_load(lab: &Lab, inside: bool) -> Running {
    // A host without pgbench has it run beside the pooler by itself.
    let inside = inside || !has_pgbench();
    let mut args = vec!["--clients", "40", "--threads", "2", "--seconds", "120"];
    if inside {
        args.extend(["--in", POOLER]);
    }
    let mut running = lab.start(&args);
    running.until_said("round 1");
    let runs = async {
        loop {
            let there = inside && lab.sh(POOLER, "pgrep -x pgbench").await.0 == 0;
            if there || (!inside && !lab.pgbench_here().is_empty()) {
                return;
            }
            clock::sleep(Duration::from_millis(50)).await;
        }
    };
    clock::within(MINUTE, runs).await.expect("pgbench runs");
    running
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_signal_or_a_kill_ends_pgbench_wherever_it_runs() {
    let lab = Lab::new("ends").await;
    for (inside, signal, code) in [(false, "-INT", 130), (true, "-TERM", 143)] {
        let running = under_load(&lab, inside).await;
        running.signal(signal);
        let ran = lab.ran(&running.ended());
        ran.came_to(code, "interrupted", "signal");
        lab.nothing_is_left().await;
    }
    let running = under_load(&lab, false).await;
    lab.halt("release day").await;
    let ran = lab.ran(&running.ended());
    ran.came_to(5, "inconclusive", "halted");
    ran.says("release day");
    lab.run(&["--clients", "8"]).came_to(1, "refused", "halted");
    lab.halt("").await;
    lab.nothing_is_left().await;
    for inside in [false, true] {
        let running = under_load(&lab, inside).await;
        running.signal("-KILL");
        assert_eq!(running.ended().status.code(), None);
        lab.nothing_is_left().await;
    }
}
