//! Garbage in each flag and variable is usage (64) and is named, before anything is asked of anyone.

use lab_test::Alone;

const FOLLOWER: Alone = Alone {
    program: env!("CARGO_BIN_EXE_pgbouncer-follow"),
    env: &[
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
    ],
    complains: "usage: ",
};

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
        FOLLOWER.usage(&[&format!("{flag}={value}")], &[], flag);
    }
    FOLLOWER.usage(&["--nonsense"], &[], "--nonsense");
    FOLLOWER.usage(&["--dry-run"], &[], "--once");
    FOLLOWER.usage(&["--env-file", "/nowhere"], &[], "/nowhere");
    FOLLOWER.usage(&[], &[("PGAF_GROUP", "x")], "x");
    FOLLOWER.usage(&[], &[("PGAF_MONITOR_URI", "")], "PGAF_MONITOR_URI");
}

#[test]
fn a_password_in_a_flag_is_refused_and_not_repeated() {
    for flag in ["--monitor-uri", "--formation-uri", "--admin-uri"] {
        let uri = "postgres://u:hunter2@h/d";
        let text = FOLLOWER.usage(&[&format!("{flag}={uri}")], &[], flag);
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn a_monitor_that_is_not_there_is_refused_and_the_file_is_left_alone() {
    let output = FOLLOWER.run(&["--once", "--file", "/nowhere/databases.ini"], &[]);
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
        assert_eq!(FOLLOWER.run(&[flag], &[]).status.code(), Some(0));
    }
}
