//! Clients behind the pooler: what they saw is judged, and the pooler's own share is told apart.

mod metrics;

use crate::light::whole::writers::METRICS;
use crate::support::{Lab, MINUTE, name, variable};

/// The instance of the pooler.
const POOLER: &str = "pgaf-pgbouncer";

impl Lab {
    /// Runs `systemctl` on a unit beside the pooler.
    async fn pooler_unit(&self, verb: &str, unit: &str) {
        let argv = ["systemctl", verb, unit];
        let done = self.incus.exec(&name(POOLER), &argv, MINUTE).await.unwrap();
        assert_eq!(done.code, 0, "{}", done.stderr);
    }
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn the_pooler_follows_and_its_share_of_the_outage_is_a_phase() {
    variable("DATABASE_URL");
    let lab = Lab::new("via").await;
    let before = lab.as_it_is().await;
    let folder = lab.folder.to_str().unwrap();
    let ran = lab.run(&["--via", "pgbouncer", "--textfile-dir", folder]);
    ran.came_to(0, "pass", "all-gates-held");
    let text = std::fs::read_to_string(lab.folder.join(METRICS)).unwrap();
    assert_eq!(metrics::promtool(&lab, &text).await, (0, String::new()));
    ran.says("through PgBouncer at pgaf-pgbouncer.lxd:6432");
    let phases = ran.report["phases"].as_array().unwrap();
    let at = |name: &str| {
        let phase = phases.iter().find(|p| p["name"] == name);
        let phase = phase.unwrap_or_else(|| panic!("phase {name}"));
        phase["at"]["latest_us"].as_i64().unwrap()
    };
    at("promoted");
    assert!(at("writable") <= at("pooler follows"));
    ran.says("the pooler led clients to the new primary");
    // What clients wrote came through the pooler, and was read at the nodes.
    assert!(ran.report["ledger"]["acknowledged"].as_u64().unwrap() > 100);
    assert_eq!(lab.as_it_is().await, before);
    let (primary, _) = lab.roles().await;
    lab.no_schema_is_left(&primary).await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_pooler_that_follows_nobody_misses_the_promise_though_the_nodes_keep_it() {
    let lab = Lab::new("via-alone").await;
    lab.pooler_unit("stop", "pgbouncer-follow").await;
    let ran = lab.run(&[
        "--via",
        "pgbouncer",
        "--rto-target",
        "15",
        "--max-fault",
        "16",
    ]);
    ran.came_to(2, "fail", "rto-missed");
    ran.says("the pooler was not seen to lead clients to the new primary");
    let phases = ran.report["phases"].as_array().unwrap();
    let there = |name: &str| phases.iter().any(|p| p["name"] == name);
    assert!(there("writable") && !there("pooler follows"));
    lab.pooler_unit("start", "pgbouncer-follow").await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_pooler_that_is_no_way_in_is_refused_before_anything_is_broken() {
    let lab = Lab::new("via-none").await;
    let (primary, _) = lab.roles().await;
    let started = lab.start_of(&primary).await;
    let mut nameless = lab.command();
    nameless
        .args(["--via", "pgbouncer"])
        .env_remove("DATABASE_URL");
    let nameless = nameless.output().unwrap();
    assert_eq!(nameless.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&nameless.stderr).contains("DATABASE_URL"));
    lab.pooler_unit("stop", "pgbouncer").await;
    let down = lab.run(&["--via", "pgbouncer"]);
    down.came_to(3, "missing-tool", "pooler-unreachable");
    lab.pooler_unit("start", "pgbouncer").await;
    let mut wrong = lab.command();
    wrong
        .args(["--via", "pgbouncer"])
        .env("DATABASE_PASSWORD", "hunter2");
    let wrong = lab.ran(&wrong.output().unwrap());
    wrong.came_to(1, "refused", "pooler-refuses");
    assert!(!wrong.stdout.contains("hunter2") && !wrong.stderr.contains("hunter2"));
    assert_eq!(lab.start_of(&primary).await, started, "untouched");
}
