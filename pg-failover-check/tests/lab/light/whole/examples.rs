//! The examples of docs/ as somebody would use them: against the lab instead of staging, otherwise as they
//! are written.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lab_test::BRIEFLY;
use veza_probe::incus::{FileKind, StateChange};

use crate::support::{Lab, MINUTE, name};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// A shell as cron or a CI runner gives one: nothing of the lab in its environment. Only the checks watch briefly.
fn shell(lab: &Lab, line: &str) -> Output {
    let programs = Path::new(env!("CARGO_BIN_EXE_pg-failover-check"))
        .parent()
        .unwrap();
    let output = Command::new("sh")
        .args(["-c", line])
        .current_dir(&lab.folder)
        .env_clear()
        .env("PATH", format!("{}:/usr/bin:/bin", programs.display()))
        .env("VEZA_STATE_DIR", lab.state())
        .envs(BRIEFLY)
        .output()
        .unwrap();
    println!("{line}: {output:?}");
    output
}

/// The lab in place of the environment that an example names.
fn against_the_lab(line: &str) -> String {
    let lab = root().join("docs/examples/lab.env");
    let lab = lab.to_str().unwrap();
    line.replace("/etc/veza/staging.env", lab)
        .replace("docs/examples/staging.env", lab)
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn the_crontab_mails_only_when_there_is_something_to_do() {
    let lab = Lab::new("cron").await;
    let crontab = fs::read_to_string(root().join("docs/examples/crontab")).unwrap();
    let line = crontab
        .lines()
        .find(|line| line.contains("pg-failover-check"))
        .unwrap();
    let (_, command) = line.split_once("  root  ").unwrap();
    let command = against_the_lab(command);
    let passed = shell(&lab, &command);
    assert_eq!(passed.status.code(), Some(0));
    assert!(
        passed.stdout.is_empty() && passed.stderr.is_empty(),
        "no mail"
    );
    lab.until_whole().await;
    let (_, standby) = lab.roles().await;
    lab.set(&standby, StateChange::ForceStop).await;
    let refused = shell(&lab, &command);
    assert_eq!(refused.status.code(), Some(1));
    let mail = String::from_utf8(refused.stdout).unwrap();
    assert!(mail.starts_with("REFUSED "), "{mail}");
    lab.set(&standby, StateChange::Start).await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn the_makefile_runs_its_drills_in_a_row_and_stops_at_the_first_that_fails() {
    let lab = Lab::new("make").await;
    let makefile = root().join("docs/examples/Makefile");
    let environment = root().join("docs/examples/lab.env");
    let make = format!(
        "make --file={} drills ENV={}",
        makefile.display(),
        environment.display()
    );
    let both = shell(&lab, &make);
    assert_eq!(both.status.code(), Some(0));
    let runs = |lab: &Lab| {
        let all = fs::read_dir(lab.folder.join("reports")).unwrap();
        all.filter(|run| run.as_ref().unwrap().file_type().unwrap().is_dir())
            .count()
    };
    assert_eq!(runs(&lab), 2);
    lab.until_whole().await;
    let (_, standby) = lab.roles().await;
    lab.set(&standby, StateChange::ForceStop).await;
    assert_ne!(shell(&lab, &make).status.code(), Some(0));
    assert_eq!(runs(&lab), 3, "the second is not begun");
    lab.set(&standby, StateChange::Start).await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn the_ci_job_publishes_what_it_says() {
    let lab = Lab::new("ci").await;
    let job = fs::read_to_string(root().join("docs/examples/ci.yml")).unwrap();
    let lines: Vec<String> = job
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- pg-failover-check"))
        .map(|rest| against_the_lab(&format!("pg-failover-check{rest}")))
        .collect();
    let [drill, after] = lines.try_into().unwrap();
    assert_eq!(shell(&lab, &drill).status.code(), Some(0));
    let after = shell(&lab, &after);
    assert_eq!(after.status.code(), Some(0));
    let junit = job
        .lines()
        .find_map(|line| line.trim().strip_prefix("junit: "))
        .unwrap();
    let junit = fs::read_to_string(lab.folder.join(junit)).unwrap();
    assert!(
        junit.contains("<testcase") && junit.contains("rto"),
        "{junit}"
    );
    let latest = lab.folder.join("drill-reports/latest");
    for name in ["report.json", "report.txt", "report.html", "events.ndjson"] {
        assert!(fs::metadata(latest.join(name)).unwrap().len() > 0, "{name}");
    }
    let events = fs::read_to_string(latest.join("events.ndjson")).unwrap();
    for event in events.lines() {
        let event: serde_json::Value = serde_json::from_str(event).unwrap();
        assert!(
            event["at_us"].is_i64() && event["what"].is_string(),
            "{event}"
        );
    }
    assert!(events.contains("fault: stop"));
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn systemd_takes_the_units() {
    let lab = Lab::new("units").await;
    let monitor = name("pgaf-monitor");
    let write = async |path: String, bytes: Vec<u8>, mode: u32| {
        let file = FileKind::File(bytes);
        let written = lab.incus.write_file(&monitor, &path, file, (0, 0, mode));
        written.await.unwrap();
    };
    // Only the units are tested: a program of that name must be there.
    let program = b"#!/bin/sh\n".to_vec();
    write(
        "/usr/local/bin/pg-failover-check".to_owned(),
        program,
        0o755,
    )
    .await;
    let mut names = Vec::new();
    for file in fs::read_dir(root().join("docs/systemd")).unwrap() {
        let path = file.unwrap().path();
        // A template is verified as one of its instances.
        let unit = path
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .replace('@', "@staging");
        let folder = "/etc/systemd/system";
        write(format!("{folder}/{unit}"), fs::read(&path).unwrap(), 0o644).await;
        names.push(format!("{folder}/{unit}"));
    }
    assert!(names.len() >= 4, "{names:?}");
    let argv: Vec<&str> = ["systemd-analyze", "verify"]
        .into_iter()
        .chain(names.iter().map(String::as_str))
        .collect();
    let verified = lab.incus.exec(&monitor, &argv, MINUTE).await.unwrap();
    assert_eq!(verified.code, 0, "{}{}", verified.stdout, verified.stderr);
    for service in ["veza-drill@staging.service", "veza-recover.service"] {
        let argv = [
            "grep",
            "-q",
            "^KillMode=process$",
            &format!("/etc/systemd/system/{service}"),
        ];
        assert_eq!(
            lab.incus.exec(&monitor, &argv, MINUTE).await.unwrap().code,
            0,
            "{service}"
        );
    }
}
