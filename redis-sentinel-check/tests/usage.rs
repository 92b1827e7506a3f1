//! Garbage in each flag and variable is usage (64) and is named, before anything is asked of anyone.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]
#![expect(
    clippy::disallowed_methods,
    reason = "the real binary is run, with an environment of its own"
)]

use std::process::{Command, Output};

fn run(args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_redis-sentinel-check"));
    // Nothing of the caller's environment, so that a lab's variables can't make a test pass.
    command
        .env_clear()
        .env("VEZA_INCUS_PROJECT", "p")
        .env("REDIS_SENTINEL_ADDRS", "redis-1")
        .env("INCUS_SOCKET", "/nowhere/unix.socket");
    command
        .args(args)
        .envs(env.iter().copied())
        .output()
        .unwrap()
}

/// Asserts usage, and that the message names `word`; returns it.
fn usage(args: &[&str], env: &[(&str, &str)], word: &str) -> String {
    let output = run(args, env);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{args:?} {env:?}: {text}");
    assert!(text.contains(word), "{args:?} {env:?}: {text}");
    assert!(text.starts_with("USAGE bad-arguments; next: "), "{text}");
    text
}

#[test]
fn garbage_in_a_flag() {
    for (flag, value) in [
        ("--rto-target", "soon"),
        ("--redundancy-target", "never"),
        ("--settle", ""),
        ("--max-fault", "x"),
        ("--spacing", "20ms"),
        ("--fault", "explode"),
        ("--instance", "host=1bad"),
        ("--project", "../p"),
        ("--sentinels", "a:b"),
        ("--max-lost-writes", "-1"),
    ] {
        usage(&[&format!("{flag}={value}")], &[], flag);
    }
    usage(&["--nonsense"], &[], "--nonsense");
}

#[test]
fn garbage_in_a_variable() {
    for (variable, value, word) in [
        ("REDIS_SENTINEL_ADDRS", " , ", "REDIS_SENTINEL_ADDRS"),
        ("REDIS_FAULT", "explode", "--fault"),
        ("REDIS_MAX_LOST_WRITES", "few", "--max-lost-writes"),
        ("REDIS_SETTLE_FAILOVER", "perhaps", "--settle-failover"),
        ("REDIS_ALLOW_INFEASIBLE", "perhaps", "--allow-infeasible"),
        ("RTO_TARGET_SECONDS", "sixty", "--rto-target"),
        ("VEZA_INCUS_PROJECT", "a/b", "--project"),
    ] {
        usage(&[], &[(variable, value)], word);
    }
}

#[test]
fn a_password_in_an_address_is_never_echoed() {
    for address in ["u:hunter2@redis-1", "redis://:hunter2@redis-1:26379"] {
        let text = usage(&["--sentinels", address], &[], "--sentinels");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn without_an_incus_it_is_a_missing_tool() {
    let output = run(&[], &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(
        text.starts_with("MISSING-TOOL incus-not-usable; next: "),
        "{text}"
    );
}
