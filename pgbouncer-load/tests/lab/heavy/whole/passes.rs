//! Loads that pass, in every place and on every way.

use std::time::Duration;

use veza_probe::clock;

use crate::support::{Lab, MINUTE, POOLER, figure, gate, variable};

/// Passwords of the lab's password file.
fn passwords() -> Vec<String> {
    let text = std::fs::read_to_string(variable("PGPASSFILE")).unwrap();
    let last = text.lines().filter_map(|line| line.rsplit(':').next());
    last.filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// All that the process list shows, and what their environments hold.
fn process_list() -> String {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|p| std::fs::read(p.path().join("cmdline")).ok());
    lines
        .map(|line| String::from_utf8_lossy(&line).into_owned() + "\n")
        .collect()
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_load_passes_here_and_there_and_leaves_nothing() {
    let lab = Lab::new("pass").await;
    let load = ["--clients", "100", "--threads", "4", "--seconds", "4"];
    let mut run = lab.start(&load);
    run.until_said("round 1");
    // Here or in an instance: this host's list has both.
    let listed = async {
        loop {
            let list = process_list();
            if list.contains("--log-prefix=tx") {
                return list;
            }
            clock::sleep(Duration::from_millis(20)).await;
        }
    };
    let list = clock::within(MINUTE, listed).await;
    let list = list.expect("pgbench is in the process list");
    for password in passwords() {
        assert!(!list.contains(&password), "a password in the process list");
    }
    let ran = lab.ran(&run.ended());
    ran.came_to(0, "pass", "all-gates-held");
    assert_eq!(gate(&ran, "clients-seen"), (100.0, "held".to_owned()));
    assert_eq!(gate(&ran, "pooler-errors"), (0.0, "held".to_owned()));
    let (p50, p99, max) = (
        figure(&ran, "p50")[0],
        figure(&ran, "p99")[0],
        figure(&ran, "max")[0],
    );
    assert!(0.0 < p50 && p50 <= p99 && p99 <= max, "{p50} {p99} {max}");
    assert!(ran.report["charts"].as_array().unwrap().len() == 4);
    for password in passwords() {
        assert!(!format!("{}{}", ran.stdout, ran.report).contains(&password));
    }
    lab.nothing_is_left().await;

    // Inside an instance, as fast as was asked for, prepared, with limits of its own.
    let inside = [
        "--in",
        POOLER,
        "--clients",
        "20",
        "--threads",
        "2",
        "--seconds",
        "3",
        "--mode",
        "prepared",
        "--rate",
        "100",
        "--p99-max",
        "60000",
        "--tps-min",
        "50",
        "--maxwait-max",
        "60",
    ];
    let ran = lab.run(&inside);
    ran.came_to(0, "pass", "all-gates-held");
    ran.says(&format!("instance {POOLER}"));
    assert_eq!(gate(&ran, "tps").1, "held");
    lab.nothing_is_left().await;

    let slow = ["--clients", "8", "--seconds", "2", "--tps-min", "1000000"];
    lab.run(&slow).came_to(1, "fail", "tps-missed");
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn past_the_pooler_and_against_an_earlier_run() {
    let lab = Lab::new("direct").await;
    let load = [
        "--clients",
        "16",
        "--threads",
        "2",
        "--seconds",
        "2",
        "--rounds",
        "2",
        "--direct",
    ];
    let ran = lab.run(&load);
    ran.came_to(0, "pass", "all-gates-held");
    assert_eq!(figure(&ran, "pooler-ratio").len(), 2);
    assert_eq!(figure(&ran, "direct-tps").len(), 2);
    let earlier = lab.folder.join("earlier.json");
    let mut report = ran.report;
    std::fs::write(&earlier, report.to_string()).unwrap();
    let against = earlier.display().to_string();
    let compared: Vec<&str> = load.into_iter().chain(["--against", &against]).collect();

    // Ten times as fast as it was.
    for figure in report["figures"].as_array_mut().unwrap() {
        if figure["id"] == "tps" {
            for round in figure["rounds"].as_array_mut().unwrap() {
                *round = (round.as_f64().unwrap() * 10.0).into();
            }
        }
    }
    std::fs::write(&earlier, report.to_string()).unwrap();
    lab.run(&compared)
        .came_to(1, "fail", "tps-regression-missed");

    let other = ["--clients", "17", "--seconds", "2", "--against", &against];
    let ran = lab.run(&other);
    ran.came_to(64, "usage", "bad-arguments");
    ran.says("not comparable");
    let many = lab.run(&["--clients", "900", "--seconds", "1", "--direct"]);
    many.came_to(1, "refused", "not-enough-connections");
}
