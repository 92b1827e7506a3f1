//! Garbage in each flag and variable is usage (64) and is named, before anything is asked of anyone.

use lab_test::Alone;

const CHECK: Alone = Alone {
    program: env!("CARGO_BIN_EXE_redis-sentinel-check"),
    env: &[
        ("VEZA_INCUS_PROJECT", "p"),
        ("REDIS_SENTINEL_ADDRS", "redis-1"),
        ("INCUS_SOCKET", "/nowhere/unix.socket"),
    ],
    complains: "USAGE bad-arguments; next: ",
};

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
        CHECK.usage(&[&format!("{flag}={value}")], &[], flag);
    }
    CHECK.usage(&["--nonsense"], &[], "--nonsense");
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
        CHECK.usage(&[], &[(variable, value)], word);
    }
}

#[test]
fn a_password_in_an_address_is_never_echoed() {
    for address in ["u:hunter2@redis-1", "redis://:hunter2@redis-1:26379"] {
        let text = CHECK.usage(&["--sentinels", address], &[], "--sentinels");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn without_an_incus_it_is_a_missing_tool() {
    let output = CHECK.run(&[], &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(
        text.starts_with("MISSING-TOOL incus-not-usable; next: "),
        "{text}"
    );
}
