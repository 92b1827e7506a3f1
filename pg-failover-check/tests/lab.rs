//! The real binary against the real lab. Run by `cargo xtask test`, which sets the environment and
//! resets the lab before each test.
#![expect(
    clippy::indexing_slicing,
    reason = "a report of another shape fails the test"
)]
#![expect(clippy::print_stdout, reason = "shown when a test fails")]
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]
#![expect(clippy::expect_used, reason = "a test that can't go on has failed")]
#![expect(clippy::panic, reason = "a test that can't go on has failed")]
#![expect(
    clippy::disallowed_methods,
    reason = "the real binary is run and sent signals"
)]

use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use veza_probe::clock;
use veza_probe::incus::{Incus, Instance, StateChange, Status, socket_path};
use veza_probe::instance::InstanceName;

const MINUTE: Duration = Duration::from_secs(60);

/// The lab, as the environment names it, and a folder of this test's own.
struct Lab {
    incus: Incus,
    folder: std::path::PathBuf,
}

/// What a run of the check came to.
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
    report: Value,
}

/// A check under way. A test that fails must not leave it behind: it is asked to stop, and heals.
struct Running(Option<Child>);

impl Running {
    fn signal(&self, which: &str) {
        let id = self.0.as_ref().unwrap().id().to_string();
        assert!(
            Command::new("kill")
                .args([which, &id])
                .status()
                .unwrap()
                .success()
        );
    }

    fn runs(&mut self) -> bool {
        self.0.as_mut().unwrap().try_wait().unwrap().is_none()
    }

    fn ended(mut self) -> Output {
        self.0.take().unwrap().wait_with_output().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = self.0.take() {
            // It may have ended by itself.
            let _ = Command::new("kill")
                .args(["-TERM", &child.id().to_string()])
                .status();
            let output = child.wait_with_output();
            println!("the check that was left behind: {output:?}");
        }
    }
}

fn variable(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run this with `cargo xtask test postgres`"))
}

fn name(text: &str) -> InstanceName {
    InstanceName::new(text).unwrap()
}

impl Lab {
    async fn new(test: &str) -> Lab {
        let project = variable("VEZA_INCUS_PROJECT");
        for needed in ["PGAF_MONITOR_URI", "PGAF_FORMATION_URI", "PGPASSFILE"] {
            variable(needed);
        }
        let socket = socket_path(|name| std::env::var_os(name));
        let (incus, _) = Incus::connect(&socket, &project).await.unwrap();
        let folder =
            std::env::temp_dir().join(format!("pg-failover-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Lab { incus, folder }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pg-failover-check"));
        command
            .arg("--report")
            .arg(&self.folder)
            .stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        let output = self.command().args(args).output().unwrap();
        self.ran(&output)
    }

    fn ran(&self, output: &Output) -> Ran {
        let report = std::fs::read(self.folder.join("report.json")).unwrap_or_default();
        let ran = Ran {
            code: output
                .status
                .code()
                .expect("it ended by itself, not by a signal"),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            report: serde_json::from_slice(&report).unwrap_or_default(),
        };
        println!("{}{}", ran.stderr, ran.stdout);
        ran
    }

    fn start(&self, args: &[&str]) -> Running {
        let mut command = self.command();
        let child = command
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Running(Some(child))
    }

    async fn instance(&self, instance: &str) -> Instance {
        self.incus.instance(&name(instance)).await.unwrap()
    }

    /// Which data node is primary now, and which is not; as the primary itself says.
    async fn roles(&self) -> (String, String) {
        let nodes = ["pgaf-primary", "pgaf-replica"];
        let primary = self
            .sql(nodes[0], "veza", "select not pg_is_in_recovery()")
            .await
            == "t";
        let (primary, other) = if primary {
            (nodes[0], nodes[1])
        } else {
            (nodes[1], nodes[0])
        };
        (primary.to_owned(), other.to_owned())
    }

    async fn sql(&self, instance: &str, database: &str, sql: &str) -> String {
        let psql = "/usr/bin/psql";
        let argv = [
            "runuser", "-u", "postgres", "--", psql, "-X", "-A", "-t", "-d", database, "-c", sql,
        ];
        let output = self
            .incus
            .exec(&name(instance), &argv, MINUTE)
            .await
            .unwrap();
        assert_eq!(output.code, 0, "{sql} in {instance}: {}", output.stderr);
        output.stdout.trim().to_owned()
    }

    /// The init process and the postmaster's start: whatever touches the primary changes one.
    async fn start_of(&self, instance: &str) -> (i64, String) {
        let started = self
            .sql(instance, "veza", "select pg_postmaster_start_time()")
            .await;
        (self.instance(instance).await.init_pid, started)
    }

    async fn until_stopped(&self, instance: &str, check: &mut Running) {
        let stopped = async {
            loop {
                // Incus can't always say while it is stopping an instance.
                let found = self.incus.instance(&name(instance)).await;
                if found.is_ok_and(|i| i.status == Status::Stopped) {
                    return;
                }
                assert!(check.runs(), "it ended before the fault");
                clock::sleep(Duration::from_millis(20)).await;
            }
        };
        clock::within(MINUTE, stopped)
            .await
            .expect("the primary is stopped");
    }

    /// It runs, with a new init process, and its postmaster answers.
    async fn runs_again(&self, instance: &str, before: &(i64, String)) {
        let now = self.instance(instance).await;
        assert_eq!(now.status, Status::Running);
        assert_ne!(
            now.init_pid, before.0,
            "the same start as before: it was never stopped"
        );
        let answers = async {
            let probe = ["/usr/bin/pg_isready", "-q", "-t", "2", "-h", "127.0.0.1"];
            // 0: accepts, 1: answers but rejects, for instance while it is starting up.
            while self
                .incus
                .exec(&name(instance), &probe, MINUTE)
                .await
                .unwrap()
                .code
                > 1
            {
                clock::sleep(Duration::from_millis(100)).await;
            }
        };
        clock::within(MINUTE, answers)
            .await
            .expect("the postmaster answers");
    }

    async fn no_schema_is_left(&self, primary: &str) {
        let sql = "select count(*) from pg_namespace where nspname like 'veza_drill%'";
        assert_eq!(self.sql(primary, "veza", sql).await, "0");
    }
}

impl Ran {
    fn came_to(&self, code: i32, verdict: &str, reason_id: &str) {
        assert_eq!(self.code, code, "{}", self.stdout);
        let first = self.stdout.lines().next().unwrap_or_default();
        let expected = format!("{} {reason_id}; next: ", verdict.to_uppercase());
        assert!(first.starts_with(&expected), "first line: {first}");
        assert_eq!(self.report["verdict"], verdict);
        assert_eq!(self.report["reason_id"], reason_id);
        assert_eq!(self.report["exit_code"], code);
    }

    fn says(&self, word: &str) {
        assert!(
            self.stdout.contains(word),
            "{word} is missing in: {}",
            self.stdout
        );
    }

    fn seconds(&self, gate: &str) -> (f64, f64) {
        let gates = self.report["gates"].as_array().unwrap();
        let gate = gates
            .iter()
            .find(|g| g["id"] == gate)
            .expect("the gate is there");
        let bound = |which: &str| gate["measured"][which].as_f64().unwrap_or(f64::INFINITY);
        (bound("lower"), bound("upper"))
    }
}

mod light {
    use super::*;

    #[tokio::test]
    #[ignore = "needs the lab"]
    async fn a_stopped_primary_is_measured_healed_and_passes() {
        let lab = Lab::new("pass").await;
        let (primary, other) = lab.roles().await;
        let before = lab.start_of(&primary).await;
        let ran = lab.run(&[]);
        ran.came_to(0, "pass", "all-gates-held");
        lab.runs_again(&primary, &before).await;
        let (lower, upper) = ran.seconds("rto");
        assert!(
            0.0 < lower && lower <= upper && upper <= 60.0,
            "{lower} {upper}"
        );
        let phases: Vec<_> = ran.report["phases"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p["name"].clone())
            .collect();
        assert_eq!(
            phases,
            ["detected", "promoted", "writable", "redundant again"]
        );
        assert!(
            ran.report["fault"]["evidence"]["control"]
                .as_str()
                .unwrap()
                .contains(&other)
        );
        assert_eq!(
            lab.roles().await,
            (other.clone(), primary),
            "the other node is primary now"
        );
        lab.no_schema_is_left(&other).await;
        let secrets = std::fs::read_to_string(variable("PGPASSFILE")).unwrap();
        for line in secrets.lines().filter(|line| !line.starts_with('#')) {
            let secret = line.rsplit(':').next().unwrap();
            assert!(!ran.stdout.contains(secret) && !ran.stderr.contains(secret));
            assert!(!ran.report.to_string().contains(secret));
        }
    }

    #[tokio::test]
    #[ignore = "needs the lab"]
    async fn roles_are_switched_back_and_json_is_one_object() {
        let lab = Lab::new("switch-back").await;
        let (primary, other) = lab.roles().await;
        let ran = lab.run(&["--switch-back", "--read-only", "--format", "json"]);
        assert_eq!(ran.code, 0, "{}", ran.stdout);
        let object: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(object, ran.report);
        assert_eq!(object["schema"], "veza-report/1");
        assert_eq!(lab.roles().await, (primary, other), "as they were");
    }

    #[tokio::test]
    #[ignore = "needs the lab"]
    async fn nothing_broken_shows_no_outage_and_a_dry_run_only_plans() {
        let lab = Lab::new("control").await;
        let (primary, _) = lab.roles().await;
        let before = lab.start_of(&primary).await;
        let ran = lab.run(&["--dry-run", "--quiet"]);
        ran.came_to(0, "planned", "dry-run");
        ran.says(&primary);
        assert!(ran.stderr.is_empty(), "quiet: {}", ran.stderr);
        let ran = lab.run(&["--fault", "none"]);
        ran.came_to(0, "pass", "all-gates-held");
        assert_eq!(lab.start_of(&primary).await, before, "untouched");
        lab.no_schema_is_left(&primary).await;
    }

    #[tokio::test]
    #[ignore = "needs the lab"]
    async fn a_stopped_replica_is_refused_untouched() {
        let lab = Lab::new("replica").await;
        let (primary, other) = lab.roles().await;
        let before = lab.start_of(&primary).await;
        lab.incus
            .set_state(&name(&other), StateChange::ForceStop, MINUTE)
            .await
            .unwrap();
        let ran = lab.run(&[]);
        assert_eq!(
            (ran.code, &ran.report["verdict"]),
            (1, &Value::from("refused"))
        );
        ran.says(&other);
        ran.says("nothing was touched");
        assert_eq!(lab.start_of(&primary).await, before, "untouched");
    }

    #[tokio::test]
    #[ignore = "needs the lab"]
    async fn a_stopped_monitor_is_refused_untouched() {
        let lab = Lab::new("monitor").await;
        let (primary, _) = lab.roles().await;
        let before = lab.start_of(&primary).await;
        let monitor = name("pgaf-monitor");
        lab.incus
            .set_state(&monitor, StateChange::ForceStop, MINUTE)
            .await
            .unwrap();
        let ran = lab.run(&[]);
        assert_eq!(
            (ran.code, &ran.report["verdict"]),
            (1, &Value::from("refused"))
        );
        ran.says("pgaf-monitor");
        assert_eq!(lab.start_of(&primary).await, before, "untouched");
    }

    #[tokio::test]
    #[ignore = "needs the lab"]
    async fn a_standby_that_is_held_down_fails_the_drill_and_the_primary_is_back() {
        let lab = Lab::new("held").await;
        let (primary, other) = lab.roles().await;
        let before = lab.start_of(&primary).await;
        let mut check = lab.start(&["--rto-target", "15", "--redundancy-target", "10"]);
        lab.until_stopped(&primary, &mut check).await;
        let hold = "mkdir -p /run/systemd/system/pgautofailover.service.d && \
                    printf '[Service]\\nRestart=no\\n' \
                    >/run/systemd/system/pgautofailover.service.d/hold.conf && \
                    systemctl daemon-reload && \
                    systemctl kill --kill-whom=all --signal=KILL pgautofailover.service";
        let held = lab
            .incus
            .exec(&name(&other), &["sh", "-c", hold], MINUTE)
            .await
            .unwrap();
        assert_eq!(held.code, 0, "{}", held.stderr);
        let ran = lab.ran(&check.ended());
        assert_eq!(
            (ran.code, &ran.report["verdict"]),
            (2, &Value::from("fail"))
        );
        assert!(ran.seconds("rto").0 > 15.0);
        lab.runs_again(&primary, &before).await;
    }

    #[tokio::test]
    #[ignore = "needs the lab"]
    async fn a_monitor_that_is_lost_in_mid_drill_ends_at_the_longest_fault_undone() {
        let lab = Lab::new("lost-monitor").await;
        let (primary, _) = lab.roles().await;
        let before = lab.start_of(&primary).await;
        let mut check = lab.start(&["--rto-target", "14", "--redundancy-target", "5"]);
        lab.until_stopped(&primary, &mut check).await;
        let monitor = name("pgaf-monitor");
        let set = async |change| lab.incus.set_state(&monitor, change, MINUTE).await.unwrap();
        set(StateChange::ForceStop).await;
        let healing = async {
            // A keeper that boots while its monitor is away keeps its Postgres down: it can't know
            // whether another node was promoted.
            while !lab
                .incus
                .instance(&name(&primary))
                .await
                .is_ok_and(|i| i.status == Status::Running)
            {
                assert!(check.runs(), "it ended before it healed");
                clock::sleep(Duration::from_millis(100)).await;
            }
        };
        clock::within(MINUTE, healing)
            .await
            .expect("the longest fault is over");
        set(StateChange::Start).await;
        let ran = lab.ran(&check.ended());
        assert_eq!(
            (ran.code, &ran.report["verdict"]),
            (2, &Value::from("fail"))
        );
        ran.says("the monitor can't be asked");
        lab.runs_again(&primary, &before).await;
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
        let binary =
            std::env::temp_dir().join(format!("pg-failover-nobody-{}", std::process::id()));
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
    async fn a_signal_while_the_primary_is_down_ends_the_run_with_everything_undone() {
        let lab = Lab::new("signal").await;
        for (which, code) in [("-INT", 130), ("-TERM", 143), ("-HUP", 129)] {
            let (primary, _) = lab.roles().await;
            let before = lab.start_of(&primary).await;
            let mut check = lab.start(&[]);
            lab.until_stopped(&primary, &mut check).await;
            check.signal(which);
            let ran = lab.ran(&check.ended());
            ran.came_to(code, "interrupted", "interrupted");
            lab.runs_again(&primary, &before).await;
            // The next one needs a whole formation; a dry run knows one.
            let whole = async {
                while lab.run(&["--dry-run", "--quiet"]).code != 0 {
                    clock::sleep(Duration::from_millis(500)).await;
                }
            };
            clock::within(2 * MINUTE, whole)
                .await
                .expect("the formation is whole again");
        }
    }

    #[tokio::test]
    #[ignore = "needs the lab"]
    async fn a_database_that_refuses_writes_is_refused_untouched() {
        let lab = Lab::new("read-only").await;
        let (primary, _) = lab.roles().await;
        let before = lab.start_of(&primary).await;
        let held = "alter database veza set default_transaction_read_only = on";
        lab.sql(&primary, "postgres", held).await;
        lab.run(&[]).came_to(1, "refused", "client-cannot-write");
        let changed = "alter database veza reset default_transaction_read_only";
        lab.sql(&primary, "postgres", changed).await;
        let revoked = "alter database veza owner to postgres";
        lab.sql(&primary, "postgres", revoked).await;
        lab.run(&[]).came_to(1, "refused", "client-cannot-connect");
        let granted = "grant connect on database veza to veza";
        lab.sql(&primary, "postgres", granted).await;
        lab.run(&[]).came_to(1, "refused", "client-cannot-write");
        assert_eq!(lab.start_of(&primary).await, before, "untouched");
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
}
