//! Garbage in each flag and variable is usage (64) and is named, before anything is asked of anyone.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]
#![expect(
    clippy::disallowed_methods,
    reason = "the real binary is run, with an environment of its own"
)]

use std::process::{Command, Output};

const URIS: [(&str, &str); 3] = [
    (
        "PGAF_MONITOR_URI",
        "postgres://m@127.0.0.1:1/pg_auto_failover?sslmode=disable",
    ),
    (
        "PGAF_FORMATION_URI",
        "postgres://f@127.0.0.1:1/veza?sslmode=disable",
    ),
    (
        "PGBOUNCER_ADMIN_URI",
        "postgres://a@127.0.0.1:1/pgbouncer?sslmode=disable",
    ),
];

fn run(args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgbouncer-follow"));
    // Nothing of the caller's environment, so that a lab's variables can't make a test pass.
    command.env_clear().envs(URIS).envs(env.iter().copied());
    command.args(args).output().unwrap()
}

fn usage(args: &[&str], env: &[(&str, &str)], word: &str) -> String {
    let output = run(args, env);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{args:?} {env:?}: {text}");
    assert!(text.starts_with("usage: "), "{text}");
    assert!(text.contains(word), "{args:?} {env:?}: {text}");
    text
}

#[test]
fn garbage_is_named() {
    for (flag, value) in [
        ("--monitor-uri", "http://x"),
        ("--formation-uri", "postgres://h/db?nonsense=1"),
        ("--admin-uri", "nonsense"),
        ("--database", "pgbouncer"),
        ("--database", "a,a"),
        ("--database", "="),
        ("--group", "one"),
        ("--metrics", "9128"),
    ] {
        usage(&[&format!("{flag}={value}")], &[], flag);
    }
    usage(&["--nonsense"], &[], "--nonsense");
    usage(&["--dry-run"], &[], "--once");
    usage(&["--env-file", "/nowhere"], &[], "/nowhere");
    usage(&[], &[("PGAF_GROUP", "x")], "x");
    usage(&[], &[("PGAF_MONITOR_URI", "")], "PGAF_MONITOR_URI");
}

#[test]
fn a_password_in_a_flag_is_refused_and_not_repeated() {
    for flag in ["--monitor-uri", "--formation-uri", "--admin-uri"] {
        let uri = "postgres://u:hunter2@h/d";
        let text = usage(&[&format!("{flag}={uri}")], &[], flag);
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn a_monitor_that_is_not_there_is_refused_and_the_file_is_left_alone() {
    let output = run(&["--once", "--file", "/nowhere/databases.ini"], &[]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    for word in [
        "clients stay where /nowhere/databases.ini sends them",
        "the monitor does not answer",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert_eq!(output.stdout, b"");
}

#[test]
fn help_and_version_are_no_errors() {
    for flag in ["--help", "--version"] {
        assert_eq!(run(&[flag], &[]).status.code(), Some(0));
    }
}
