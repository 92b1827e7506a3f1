//! What can't be loaded is told before anything is: in one sentence, with the code that cron lines know.

use std::process::Stdio;

use crate::support::{Lab, POOLER};

const SMALL: [&str; 6] = ["--clients", "4", "--threads", "2", "--seconds", "1"];

#[tokio::test]
#[ignore = "needs the lab"]
async fn no_pgbench_and_one_of_other_words() {
    let lab = Lab::new("pgbench").await;
    let with_path = |path: &str| {
        let mut command = lab.load(&SMALL);
        // Where there is an Incus project, the pooler's own pgbench would be taken.
        command.env("PATH", path).env_remove("VEZA_INCUS_PROJECT");
        let uri = std::env::var("DATABASE_URL").unwrap() + "&hostaddr=198.18.0.14";
        command.env("DATABASE_URL", uri);
        let uri = std::env::var("PGBOUNCER_ADMIN_URI").unwrap() + "&hostaddr=198.18.0.14";
        command.env("PGBOUNCER_ADMIN_URI", uri);
        lab.ran(&command.output().unwrap())
    };
    let empty = lab.folder.join("empty");
    std::fs::create_dir_all(&empty).unwrap();
    with_path(&empty.display().to_string()).came_to(3, "missing-tool", "no-pgbench");
    let rest = "/usr/sbin:/usr/bin:/sbin:/bin";
    let old = lab.false_pgbench("old", "pgbench (PostgreSQL) 13.4", "exit 0");
    with_path(&format!("{old}:{rest}")).came_to(5, "inconclusive", "pgbench-unknown");
    let strange = lab.false_pgbench("strange", "moo", "exit 0");
    with_path(&format!("{strange}:{rest}")).came_to(5, "inconclusive", "pgbench-unknown");
    let mut command = lab.load(&SMALL);
    let nonsense = lab.false_pgbench(
        "new",
        "pgbench (PostgreSQL) 19.0",
        "sleep 2; echo moo; exit 0",
    );
    command.env("PATH", format!("{nonsense}:{rest}"));
    command.args(["--script", &lab.script("one.sql", "select 1;\n")]);
    let ran = lab.ran(&command.output().unwrap());
    ran.came_to(5, "inconclusive", "result-unreadable");
    ran.says("number of clients");
    lab.nothing_is_left().await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_pooler_without_room_or_key_or_life() {
    let lab = Lab::new("room").await;
    let ran = lab.run(&["--clients", "2000"]);
    ran.came_to(1, "refused", "not-enough-places");
    ran.says("2000 clients do not fit: the pooler takes max_client_conn = 1000");

    let mut limited = std::process::Command::new("prlimit");
    let command = lab.load(&["--clients", "300"]);
    limited
        .arg("--nofile=128:128")
        .arg(command.get_program())
        .args(command.get_args());
    limited.env("TMPDIR", lab.temporary()).stdin(Stdio::null());
    let ran = lab.ran(&limited.output().unwrap());
    ran.came_to(1, "refused", "not-enough-descriptors");
    ran.says("300 clients need 316 open files");

    // A minute is too short for any load, whatever the time is.
    let ran = lab.run(&[&SMALL[..], &["--window", "00:00-00:01"]].concat());
    ran.came_to(1, "refused", "outside-window");

    // Others hold twenty of a hundred places.
    lab.console("SET max_client_conn = 100").await;
    let sleep = lab.script("sleep.sql", "select pg_sleep(0.1);\n");
    let others = [
        "--clients",
        "20",
        "--threads",
        "2",
        "--seconds",
        "60",
        "--script",
        &sleep,
    ];
    let mut others = lab.start(&others);
    others.until_said("round 1");
    let refused = async {
        loop {
            let ran = lab.run(&["--clients", "90", "--seconds", "1", "--dry-run"]);
            match ran.code {
                0 => assert_eq!(ran.report["verdict"], "planned"),
                _ => return ran,
            }
        }
    };
    let ran = veza_probe::clock::within(crate::support::MINUTE, refused)
        .await
        .unwrap();
    ran.came_to(1, "refused", "not-enough-places");
    ran.says("90 clients do not fit: the pooler takes max_client_conn = 100");
    others.signal("-INT");
    assert_eq!(others.ended().status.code(), Some(130));

    let mut command = lab.load(&SMALL);
    let wrong = "hunter2-is-wrong";
    command.env("DATABASE_PASSWORD", wrong);
    let ran = lab.ran(&command.output().unwrap());
    ran.came_to(2, "refused", "credentials-refused");
    let text = format!("{}{}{}", ran.stdout, ran.stderr, ran.report);
    assert!(!text.contains(wrong), "{text}");

    let (code, said) = lab.sh(POOLER, "systemctl stop pgbouncer.service").await;
    assert_eq!(code, 0, "{said}");
    lab.run(&SMALL).came_to(2, "refused", "pooler-unreachable");
    lab.nothing_is_left().await;
}
