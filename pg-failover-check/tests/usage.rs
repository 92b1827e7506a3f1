//! Garbage in each flag and variable is usage (64) and is named, before anything is asked of anyone.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::process::Output;

use lab_test::Alone;

const CHECK: Alone = Alone {
    program: env!("CARGO_BIN_EXE_pg-failover-check"),
    env: &[
        ("VEZA_INCUS_PROJECT", "p"),
        ("INCUS_SOCKET", "/nowhere/unix.socket"),
    ],
    complains: "USAGE bad-arguments; next: ",
};

#[test]
fn garbage_in_a_flag() {
    for (flag, value) in [
        ("--rto-target", "soon"),
        ("--rto-target", "0"),
        ("--rto-target", "-5"),
        ("--rto-target", "NaN"),
        ("--rto-target", "1e300"),
        ("--redundancy-target", "never"),
        ("--settle", ""),
        ("--max-fault", "x"),
        ("--warm-up", "inf"),
        ("--spacing", "20ms"),
        ("--limit", "0"),
        ("--fault", "explode"),
        ("--group", "one"),
        ("--instance", "node-without-instance"),
        ("--instance", "node=1bad"),
        ("--monitor", "-x"),
        ("--project", "../p"),
        ("--format", "xml"),
        ("--monitor-uri", "http://x"),
        ("--formation-uri", "postgres://h/db?nonsense=1"),
    ] {
        CHECK.usage(&[&format!("{flag}={value}")], &[], flag);
    }
    CHECK.usage(&["--nonsense"], &[], "--nonsense");
    CHECK.usage(&["stray"], &[], "stray");
}

#[test]
fn garbage_in_a_variable() {
    for (variable, value, word) in [
        ("VEZA_INCUS_PROJECT", "a/b", "--project"),
        (
            "PGAF_MONITOR_URI",
            "postgres://h:port/db",
            "PGAF_MONITOR_URI",
        ),
        ("PGAF_MONITOR_URI", "", "PGAF_MONITOR_URI"),
        (
            "PGAF_FORMATION_URI",
            "postgres://h/db?sslmode=maybe",
            "sslmode",
        ),
        ("PGAF_MONITOR", "a b", "--monitor"),
        ("PGAF_GROUP", "x", "--group"),
        ("PGAF_FAULT", "explode", "--fault"),
        ("RTO_TARGET_SECONDS", "sixty", "--rto-target"),
        ("REDUNDANCY_TARGET_SECONDS", "-1", "--redundancy-target"),
        ("VEZA_SETTLE_SECONDS", "x", "--settle"),
        ("VEZA_MAX_FAULT_SECONDS", "x", "--max-fault"),
        ("VEZA_WARM_UP_SECONDS", "x", "--warm-up"),
        ("VEZA_PROBE_SPACING_MS", "0", "--spacing"),
        ("VEZA_PROBE_LIMIT_MS", "1.5", "--limit"),
        ("PGAF_READ_ONLY", "perhaps", "--read-only"),
        ("PGAF_ALLOW_INFEASIBLE", "perhaps", "--allow-infeasible"),
        ("PGAF_SWITCH_BACK", "perhaps", "--switch-back"),
        ("VEZA_FORMAT", "xml", "--format"),
        ("VEZA_QUIET", "perhaps", "--quiet"),
    ] {
        CHECK.usage(&[], &[(variable, value)], word);
    }
}

#[test]
fn no_project_is_usage_and_says_which_variable_names_it() {
    CHECK.usage(&[], &[("VEZA_INCUS_PROJECT", "")], "--project");
}

#[test]
fn a_password_is_never_echoed() {
    for flag in ["--monitor-uri", "--formation-uri"] {
        let variable = if flag == "--monitor-uri" {
            "PGAF_MONITOR_URI"
        } else {
            "PGAF_FORMATION_URI"
        };
        for uri in [
            "postgres://u:hunter2@h/db",
            "postgres://u:hunter2@h/db?nonsense=1",
        ] {
            let text = CHECK.usage(&[flag, uri], &[], flag);
            assert!(!text.contains("hunter2"), "{text}");
        }
        let text = CHECK.usage(
            &[],
            &[(variable, "postgres://u:hunter2@h/db?nonsense=1")],
            "nonsense",
        );
        assert!(!text.contains("hunter2"), "{text}");
        let help = CHECK.run(&["--help"], &[(variable, "postgres://u:hunter2@h/db")]);
        assert!(!String::from_utf8(help.stdout).unwrap().contains("hunter2"));
    }
}

#[test]
fn no_incus_is_a_missing_tool_and_says_what_to_do() {
    let output = CHECK.run(&[], &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(
        text.starts_with("MISSING-TOOL incus-not-usable; next: "),
        "{text}"
    );
    assert!(
        text.contains("/nowhere/unix.socket") && text.contains("INCUS_SOCKET"),
        "{text}"
    );
}

#[test]
fn help_names_gates_defaults_variables_and_codes() {
    let output = CHECK.run(&["--help"], &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    for word in [
        "rto",
        "redundancy",
        "RTO_TARGET_SECONDS",
        "60",
        "120",
        "Exit codes:",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn a_report_folder_that_cannot_be_written_is_told_first() {
    let output = CHECK.run(&["--report", "/proc/nowhere"], &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(
        text.starts_with("MISSING-TOOL report-unwritable; next: "),
        "{text}"
    );
    assert!(text.contains("/proc/nowhere"), "{text}");
}

fn file(name: &str, text: &str) -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("pg-failover-{name}-{}", std::process::id()));
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_typo_in_an_environment_file_is_usage_and_no_default() {
    let path = file("typo", "VEZA_INCUS_PROJECT=p\nRTO_TARGET_SECOND=5\n");
    let flag = format!("--env-file={}", path.display());
    let text = CHECK.usage(&[&flag], &[], "RTO_TARGET_SECONDS");
    assert!(text.contains("line 2"), "{text}");
    CHECK.usage(&[], &[("VEZA_ENV_FILE", path.to_str().unwrap())], "line 2");
    std::fs::write(&path, "VEZA_INCUS_PROJECT=another\n").unwrap();
    CHECK.usage(&[&flag], &[], "VEZA_INCUS_PROJECT");
    std::fs::write(&path, "RTO_TARGET_SECONDS=soon\n").unwrap();
    CHECK.usage(&[&flag], &[], "--rto-target");
    std::fs::remove_file(&path).unwrap();
    CHECK.usage(&[&flag], &[], "typo");
    CHECK.usage(&["--env-file"], &[], "--env-file");
}

#[test]
fn every_example_of_an_environment_is_understood() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples");
    let reports = std::env::temp_dir().join(format!("pg-failover-env-{}", std::process::id()));
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "env") {
            count += 1;
            // Nothing but where Incus is: the file has the rest.
            let alone = Alone {
                env: &[("INCUS_SOCKET", "/nowhere/unix.socket")],
                ..CHECK
            };
            let args = ["--env-file", path.to_str().unwrap(), "--report"];
            let output = alone.command(&args, &[]).arg(&reports).output().unwrap();
            // All of it was understood, as far as Incus, which is not there.
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(
                text.contains("/nowhere/unix.socket"),
                "{path:?}: {output:?}"
            );
        }
    }
    assert_eq!(count, 3);
    std::fs::remove_dir_all(&reports).unwrap();
}

#[test]
fn events_and_json_do_not_share_stdout() {
    CHECK.usage(&["--events=-", "--format=json"], &[], "--events");
}

#[test]
fn reports_are_shown_compared_or_refused_clearly() {
    CHECK.usage(
        &["--show", "/nowhere/report.json"],
        &[],
        "/nowhere/report.json",
    );
    CHECK.usage(&["--compare", "/nowhere/report.json"], &[], "--compare");
    // A real one: a run that found no Incus.
    let output = CHECK.run(&["--format", "json"], &[]);
    assert_eq!(output.status.code(), Some(3));
    let path = file("shown", std::str::from_utf8(&output.stdout).unwrap());
    let path = path.to_str().unwrap();
    let shown = CHECK.run(&["--show", path], &[]);
    assert_eq!(shown.status.code(), Some(0));
    let text = String::from_utf8(shown.stdout.clone()).unwrap();
    assert!(
        text.starts_with("MISSING-TOOL incus-not-usable; next: "),
        "{text}"
    );
    let compared = CHECK.run(&["--compare", path, path], &[]);
    assert_eq!(compared.status.code(), Some(0));
    let text = String::from_utf8(compared.stdout).unwrap();
    assert!(
        text.contains("verdict") && text.contains("missing-tool"),
        "{text}"
    );
    let whole = std::str::from_utf8(&output.stdout).unwrap();
    // One of another version is refused by its name, whole or not, shown or compared, old or new.
    for other in ["veza-report/0", "veza-report/2"] {
        for text in [
            whole.replace("veza-report/1", other),
            format!("{{\"schema\": \"{other}\"}}"),
        ] {
            let refused = file("other", &text);
            let refused = refused.to_str().unwrap();
            for args in [
                &["--show", refused][..],
                &["--compare", refused, path],
                &["--compare", path, refused],
            ] {
                let told = CHECK.usage(args, &[], other);
                assert!(told.contains(refused), "{told}");
                assert!(told.contains("this program reads veza-report/1"), "{told}");
            }
            std::fs::remove_file(refused).unwrap();
        }
    }
    // A field that a later program added within the version is no hindrance.
    let later = whole.replacen('{', "{\"added_later\": [1],", 1);
    std::fs::write(path, later).unwrap();
    assert_eq!(CHECK.run(&["--show", path], &[]).stdout, shown.stdout);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_textfile_folder_that_cannot_be_written_is_told_first() {
    let told = |output: Output| {
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(3), "{text}");
        text
    };
    // One that is not there, and one that takes no file, not even of root.
    for folder in ["/proc/nowhere", "/proc/self"] {
        let output = CHECK.run(&["--textfile-dir", folder], &[]);
        // The end of the run tries again, and says so without another verdict.
        let story = String::from_utf8(output.stderr.clone()).unwrap();
        assert!(story.contains("the metrics could not be saved"), "{story}");
        let text = told(output);
        let first = "MISSING-TOOL textfile-unwritable; next: ";
        assert!(text.starts_with(first) && text.contains(folder), "{text}");
        let text = told(CHECK.run(&[], &[("VEZA_TEXTFILE_DIR", folder)]));
        assert!(text.starts_with(first), "{text}");
        // Nothing may keep the one that mends from mending.
        let text = told(CHECK.run(&["--recover", "--textfile-dir", folder], &[]));
        assert!(text.contains("incus-not-usable"), "{text}");
    }
}

#[test]
fn a_run_that_touched_nothing_writes_report_and_metrics() {
    let folder = std::env::temp_dir().join(format!("veza-usage-{}", std::process::id()));
    let metrics = folder.join("metrics");
    std::fs::create_dir_all(&metrics).unwrap();
    let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let (report, textfile) = (path(&folder.join("report")), path(&metrics));
    let output = CHECK.run(&["--report", &report, "--textfile-dir", &textfile], &[]);
    let text = std::fs::read_to_string(metrics.join("veza_pg_failover_check.prom"));
    let xml = std::fs::read_to_string(folder.join("report/latest/report.xml"));
    let recovered = CHECK.run(&["--recover", "--textfile-dir", &textfile], &[]);
    let after = std::fs::read_to_string(metrics.join("veza_pg_failover_check.prom"));
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let text = text.unwrap();
    assert!(text.contains("verdict=\"missing-tool\"} 1\n"), "{text}");
    assert!(xml.unwrap().contains("<error "));
    assert_eq!(recovered.status.code(), Some(3));
    assert_eq!(after.unwrap(), text, "--recover is no drill");
}
