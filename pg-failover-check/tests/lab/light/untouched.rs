//! What breaks nothing: the next test finds the lab as a reset left it.

use std::process::Command;
use std::time::Duration;

use veza_probe::clock;

use crate::support::{Lab, Running, variable};

#[tokio::test]
#[ignore = "needs the lab"]
async fn nothing_broken_shows_no_outage_and_no_secret() {
    let lab = Lab::new("control").await;
    let (primary, _) = lab.roles().await;
    let before = lab.start_of(&primary).await;
    let ran = lab.run(&["--dry-run", "--quiet"]);
    ran.came_to(0, "planned", "dry-run");
    ran.says(&primary);
    assert!(ran.stderr.is_empty(), "quiet: {}", ran.stderr);
    // With a password of a variable and one of a file.
    let passfile = std::fs::read_to_string(variable("PGPASSFILE")).unwrap();
    let secret = |host: &str| {
        let line = passfile
            .lines()
            .find(|line| line.starts_with(host))
            .unwrap();
        line.rsplit(':').next().unwrap().to_owned()
    };
    let (monitor, client) = (secret("pgaf-monitor"), secret("pgaf-primary"));
    let file = lab.folder.join("monitor-password");
    std::fs::write(&file, &monitor).unwrap();
    let uri = variable("PGAF_FORMATION_URI").replace("veza@", &format!("veza:{client}@"));
    let mut command = lab.command();
    command
        .args(["--fault", "none"])
        .env_remove("PGPASSFILE")
        .env("PGAF_FORMATION_URI", uri)
        .env("PGAF_MONITOR_PASSWORD_FILE", &file);
    let mut check = Running::of(&mut command);
    let holds = |bytes: &[u8]| {
        let has = |secret: &String| bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
        has(&monitor) || has(&client)
    };
    // The process list, of the check and of its watchdog, as long as they run.
    while check.runs() {
        for entry in std::fs::read_dir("/proc").unwrap() {
            let line = entry.unwrap().path().join("cmdline");
            assert!(!holds(&std::fs::read(line).unwrap_or_default()));
        }
        clock::sleep(Duration::from_millis(200)).await;
    }
    let output = check.ended();
    assert!(!holds(&output.stdout) && !holds(&output.stderr));
    lab.ran(&output).came_to(0, "pass", "all-gates-held");
    assert_eq!(lab.start_of(&primary).await, before, "untouched");
    lab.no_schema_is_left(&primary).await;
    std::fs::remove_file(&file).unwrap();
    let mut folders = vec![lab.folder.clone()];
    let mut count = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                count += 1;
                assert!(!holds(&std::fs::read(&path).unwrap()), "{}", path.display());
            }
        }
    }
    assert!(count >= 4, "reports, events, locks: {count}");
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
