//! Garbage in each flag and variable is usage (64) and is named, before anything is asked of anyone.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]
#![expect(
    clippy::disallowed_methods,
    reason = "the real binary is run, with an environment of its own"
)]

use std::process::{Command, Output};

fn run(args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_minio-resilience"));
    // Nothing of the caller's environment, so that a lab's variables can't make a test pass.
    command
        .env_clear()
        .env("VEZA_INCUS_PROJECT", "p")
        .env(
            "MINIO_ENDPOINTS",
            "http://minio-1,http://minio-2,http://minio-3",
        )
        .env("MINIO_BUCKET", "drills")
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
        ("--read-outage-max", "soon"),
        ("--service-target", "0"),
        ("--heal-target", "never"),
        ("--self-heal-wait", "x"),
        ("--objects", "0"),
        ("--nodes", "3"),
        ("--bitrot", "0"),
        ("--parity", "2"),
        ("--fault", "explode"),
        ("--fault", "hold:minio"),
        ("--step", "dance"),
        ("--bucket", "A"),
        ("--prefix", "/"),
        ("--endpoints", "minio-1"),
        ("--instance", "host=1bad"),
        ("--project", "../p"),
        ("--settle", ""),
    ] {
        usage(&[&format!("{flag}={value}")], &[], flag);
    }
    usage(&["--lose=minio-1"], &[], "--lose");
    usage(&["--s3-only"], &[], "--s3-only");
    usage(&["--nonsense"], &[], "--nonsense");
}

#[test]
fn garbage_in_a_variable() {
    for (variable, value, word) in [
        ("MINIO_ENDPOINTS", " , ", "MINIO_ENDPOINTS"),
        ("MINIO_BUCKET", "", "--bucket"),
        ("MINIO_DRILL_PREFIX", "..", "MINIO_DRILL_PREFIX"),
        ("MINIO_FAULT", "explode", "--fault"),
        ("MINIO_STEPS", "lose,dance", "--step"),
        ("MINIO_NODES", "two", "--nodes"),
        ("MINIO_OBJECTS", "many", "--objects"),
        ("MINIO_PARITY", "EC:x", "--parity"),
        ("MINIO_S3_ONLY", "perhaps", "--s3-only"),
        ("MINIO_HEAL_TARGET_SECONDS", "sixty", "--heal-target"),
        ("VEZA_INCUS_PROJECT", "a/b", "--project"),
    ] {
        usage(&[], &[(variable, value)], word);
    }
}

#[test]
fn a_password_in_an_endpoint_is_never_echoed() {
    for endpoints in ["http://u:hunter2@a,http://b", "hunter2"] {
        let text = usage(&["--endpoints", endpoints], &[], "--endpoints");
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

#[test]
fn the_login_may_come_from_a_file_of_variables() {
    let path = std::env::temp_dir().join(format!("minio-resilience-env-{}", std::process::id()));
    std::fs::write(&path, "MINIO_ACCESS_KEY=a\nMINIO_SECRET_KEY_FILE=/run/s\n").unwrap();
    let flag = format!("--env-file={}", path.display());
    let output = run(&[&flag, "--version"], &[]);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}
