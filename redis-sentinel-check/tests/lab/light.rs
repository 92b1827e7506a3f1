//! A drill that passes, and what must not become one.

mod untouched;

use std::time::Duration;

use lab_test::{Points, kill_points};
use veza_probe::clock;

use crate::support::{Lab, MINUTE, variable};

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_stopped_master_is_measured_healed_and_passes() {
    let lab = Lab::new("pass").await;
    let (master, others) = lab.roles().await;
    let (before, started) = (lab.as_it_is().await, lab.start_of(&master).await);
    let ran = lab.ran(&lab.as_shipped().output().unwrap());
    ran.came_to(0, "pass", "all-gates-held");
    assert_eq!(lab.as_it_is().await, before);
    let again = lab.start_of(&master).await;
    assert!(
        again.0 != started.0 && again.1 != started.1,
        "it was stopped"
    );
    let (now, _) = lab.roles().await;
    assert!(others.contains(&now), "another one is master: {now}");
    let phases = ran.phases();
    for phase in [
        "suspected",
        "detected",
        "elected",
        "promoted",
        "switched",
        "writable",
    ] {
        assert!(phases.contains(&phase), "{phase}: {phases:?}");
    }
    assert_eq!(phases.last(), Some(&"redundant again"));
    let (lower, upper) = ran.measured("rto");
    assert!(0.0 < lower && lower <= upper, "{lower} {upper}");
    assert!(ran.report["ledger"]["acknowledged"].as_u64() > Some(50));
    let control = ran.report["fault"]["evidence"]["control"].as_str().unwrap();
    assert!(
        others.iter().any(|other| control.contains(other)),
        "{control}"
    );
    lab.no_key_is_left().await;
    for file in ["REDIS_PASSWORD_FILE", "REDIS_SENTINEL_PASSWORD_FILE"] {
        let secret = std::fs::read_to_string(variable(file)).unwrap();
        let secret = secret.trim();
        assert!(!secret.is_empty() && !ran.stdout.contains(secret));
        assert!(!ran.stderr.contains(secret) && !ran.report.to_string().contains(secret));
    }
    assert!(ran.figure("kept-connection") > 0.0);
    lab.converging_disturbs_nobody(&now).await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_held_sentinel_is_noticed_by_no_client_and_nobody_fails_over() {
    let lab = Lab::new("sentinel").await;
    let (master, _) = lab.roles().await;
    let (before, started) = (lab.as_it_is().await, lab.start_of(&master).await);
    let ran = lab.run(&["--target", "sentinel", "--warm-up", "1"]);
    ran.came_to(0, "pass", "all-gates-held");
    for gate in ["no-outage", "no-failover", "lost-writes", "two-primaries"] {
        assert_eq!(ran.measured(gate), (0.0, 0.0), "{gate}");
    }
    let evidence = &ran.report["fault"]["evidence"];
    for side in ["target", "control"] {
        let words = evidence[side].as_str().unwrap();
        assert!(words.starts_with("sentinel redis-"), "{words}");
    }
    assert_eq!(lab.as_it_is().await, before);
    assert_eq!(lab.roles().await.0, master, "nobody failed over");
    assert_eq!(lab.start_of(&master).await, started, "it was not touched");
    lab.no_unit_is_held().await;
    lab.no_key_is_left().await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn without_a_quorum_clients_go_on_and_nobody_is_promoted() {
    let lab = Lab::new("quorum").await;
    let (master, _) = lab.roles().await;
    let (before, started) = (lab.as_it_is().await, lab.start_of(&master).await);
    let short = ["--target", "quorum", "--max-fault", "5"];
    lab.run(&short).came_to(1, "refused", "max-fault-too-short");
    assert_eq!(lab.start_of(&master).await, started, "untouched");
    // Killed while sentinels are held, and while the master is held, too: undone, both times.
    for point in ["evidence: sentinel ", ", too"] {
        let mut check = lab.start(&["--target", "quorum", "--warm-up", "0.5"]);
        check.until_said(point);
        check.kill();
        lab.undone_without_help(&before).await;
        lab.no_unit_is_held().await;
        lab.until_whole().await;
        assert_eq!(lab.roles().await.0, master, "it is master still: {point}");
    }
    let ran = lab.run(&["--target", "quorum", "--warm-up", "1"]);
    ran.came_to(0, "pass", "all-gates-held");
    for gate in ["no-outage", "no-promotion", "no-writes", "lost-writes"] {
        assert_eq!(ran.measured(gate), (0.0, 0.0), "{gate}");
    }
    let later = &ran.report["fault"]["later"][0]["evidence"];
    let silent = later["target"].as_str().unwrap();
    assert!(silent.starts_with(master.as_str()), "{silent}");
    assert!(ran.report["client_outage"]["lower_us"].as_i64() > Some(3_000_000));
    assert_eq!(lab.as_it_is().await, before);
    assert_eq!(lab.roles().await.0, master, "nobody was promoted");
    let again = lab.start_of(&master).await;
    assert_eq!(again.0, started.0, "the instance ran on");
    assert_ne!(again.1, started.1, "its server was held");
    lab.no_unit_is_held().await;
    lab.no_key_is_left().await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn what_is_not_whole_or_not_safe_is_refused_untouched() {
    let lab = Lab::new("refused").await;
    let (master, others) = lab.roles().await;
    let started = lab.start_of(&master).await;
    for variable in ["REDIS_PASSWORD", "REDIS_SENTINEL_PASSWORD"] {
        let mut command = lab.command();
        command.env_remove(format!("{variable}_FILE"));
        let ran = lab.ran(&command.env(variable, "hunter2").output().unwrap());
        let kind = if variable == "REDIS_PASSWORD" {
            "server"
        } else {
            "sentinel"
        };
        ran.came_to(1, "refused", &format!("{kind}-credentials-refused"));
        let all = format!("{}{}{}", ran.stdout, ran.stderr, ran.report);
        assert!(!all.contains("hunter2"));
    }
    let set = "sentinel set veza down-after-milliseconds";
    let down_after = lab.down_after_ms(&master).await;
    for node in [&master, &others[0], &others[1]] {
        lab.redis(node, 26_379, &format!("{set} 30000")).await;
    }
    let ran = lab.run(&[]);
    ran.came_to(1, "refused", "target-infeasible");
    for word in ["best case 30.2 s", "down-after 30.0 s", "target 30.0 s"] {
        ran.says(word);
    }
    for node in [&master, &others[0], &others[1]] {
        lab.redis(node, 26_379, &format!("{set} {down_after}"))
            .await;
    }
    lab.redis(&master, 6379, "config set appendonly no").await;
    lab.run(&[]).came_to(1, "refused", "no-persistence");
    lab.redis(&master, 6379, "config set appendonly yes").await;
    let unlinked = "config set masterauth wrong";
    lab.redis(&others[0], 6379, unlinked).await;
    lab.redis(&master, 6379, "client kill type replica").await;
    lab.run(&[]).came_to(1, "refused", "replica-not-in-sync");
    for node in &others {
        lab.inside(node, "systemctl stop redis-sentinel").await;
    }
    lab.run(&[]).came_to(1, "refused", "sentinel-unreachable");
    assert_eq!(lab.start_of(&master).await, started, "untouched");
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_promotion_that_is_blocked_fails_and_is_healed() {
    let lab = Lab::new("blocked").await;
    let (master, others) = lab.roles().await;
    let before = lab.as_it_is().await;
    for node in &others {
        lab.redis(node, 6379, "config set replica-priority 0").await;
    }
    // The sentinels ask for it every 10 s.
    let known = async {
        for node in [&master, &others[0], &others[1]] {
            let asked = "sentinel replicas veza";
            while barred(&lab.redis(node, 26_379, asked).await) < 2 {
                clock::sleep(Duration::from_millis(200)).await;
            }
        }
    };
    clock::within(MINUTE, known)
        .await
        .expect("the sentinels know");
    let args = ["--rto-target", "8", "--max-fault", "10", "--warm-up", "0.5"];
    let ran = lab.run(&args);
    ran.came_to(2, "fail", "rto-missed");
    ran.says("no replica may be promoted");
    assert_eq!(lab.as_it_is().await, before, "healed");
    assert_eq!(lab.roles().await.0, master, "it is master again");
    // The sentinels would not begin another failover yet.
    lab.run(&args).came_to(1, "refused", "failover-too-recent");
}

/// How many replicas a sentinel knows to have priority 0.
fn barred(replicas: &str) -> usize {
    let lines: Vec<&str> = replicas.lines().collect();
    let is_it = |pair: &&[&str]| pair[0] == "slave-priority" && pair[1] == "0";
    lines.windows(2).filter(is_it).count()
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_master_that_systemd_starts_again_is_timed_as_a_restart() {
    let lab = Lab::new("restart").await;
    let (master, _) = lab.roles().await;
    let (before, started) = (lab.as_it_is().await, lab.start_of(&master).await);
    let ran = lab.run(&["--fault", "kill-restart:redis-server", "--warm-up", "1"]);
    ran.came_to(0, "pass", "all-gates-held");
    ran.says("was killed and restarted by systemd");
    // Where the host is slow, the sentinels may be faster than systemd.
    let switched = ran.phases().contains(&"switched");
    ran.says(match switched {
        true => "failed over all the same",
        false => "without a failover",
    });
    assert_eq!(lab.as_it_is().await, before);
    assert_eq!(lab.roles().await.0 != master, switched);
    let again = lab.start_of(&master).await;
    assert_eq!(again.0, started.0, "the instance ran on");
    assert_ne!(again.1, started.1, "its server is another process");
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_check_that_is_killed_leaves_nothing_broken() {
    let lab = Lab::new("killed").await;
    let command = || {
        let mut command = lab.command();
        command.args(["--warm-up", "0.5", "--settle-failover"]);
        command
    };
    let points = Points::With(&["(stop)", "(start)"]);
    kill_points(&lab, command, points, async || lab.until_whole().await).await;
    lab.until_whole().await;
    lab.no_key_is_left().await;
}
