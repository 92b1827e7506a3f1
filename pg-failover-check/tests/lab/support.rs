//! The lab as a test finds it, the real binary, and what both are asked.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use veza_probe::clock;
use veza_probe::incus::{Device, Incus, Instance, Status, socket_path};
use veza_probe::instance::InstanceName;

pub const MINUTE: Duration = Duration::from_secs(60);

/// What a fault may outlast a check that was killed.
const PROMISED: Duration = Duration::from_secs(10);

/// The lab, as the environment names it, and a folder of this test's own.
pub struct Lab {
    pub incus: Incus,
    pub folder: PathBuf,
}

/// An instance, without what changes by itself.
#[derive(Debug, PartialEq, Eq)]
pub struct AsFound {
    pub name: String,
    pub status: Status,
    pub config: BTreeMap<String, String>,
    pub devices: BTreeMap<String, Device>,
}

/// What a run of the check came to.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    pub report: Value,
}

/// A check under way. A test that fails must not leave it behind: it is asked to stop, and heals.
pub struct Running(pub Option<Child>);

impl Running {
    pub fn signal(&self, which: &str) {
        let id = self.id().to_string();
        assert!(
            Command::new("kill")
                .args([which, &id])
                .status()
                .unwrap()
                .success()
        );
    }

    pub fn id(&self) -> u32 {
        self.0.as_ref().unwrap().id()
    }

    /// Reads its story up to a line with a word.
    pub fn until_said(&mut self, word: &str) {
        let story = self.0.as_mut().unwrap().stderr.as_mut().unwrap();
        let mut lines = BufReader::new(story).lines();
        assert!(lines.any(|line| line.unwrap().contains(word)), "{word}");
    }

    pub fn runs(&mut self) -> bool {
        self.0.as_mut().unwrap().try_wait().unwrap().is_none()
    }

    pub fn ended(mut self) -> Output {
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

pub fn variable(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run this with `cargo xtask test postgres`"))
}

pub fn name(text: &str) -> InstanceName {
    InstanceName::new(text).unwrap()
}

impl Lab {
    pub async fn new(test: &str) -> Lab {
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

    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pg-failover-check"));
        command
            .arg("--report")
            .arg(&self.folder)
            .env("VEZA_STATE_DIR", self.state())
            .stdin(Stdio::null());
        command
    }

    /// The state folder of this test's own.
    pub fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// The records of faults that are there.
    pub fn records(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.state().join("faults"));
        let paths = files.into_iter().flatten().map(|file| file.unwrap().path());
        paths
            .filter(|path| path.extension().is_some_and(|e| e == "json"))
            .collect()
    }

    /// Every instance as a drill must leave it: state, own config and devices.
    pub async fn as_it_is(&self) -> Vec<AsFound> {
        let mut all = Vec::new();
        // Incus can't always say while it stops or starts one.
        let listed = async {
            loop {
                match self.incus.instances().await {
                    Ok(list) => return list,
                    Err(_) => clock::sleep(Duration::from_millis(100)).await,
                }
            }
        };
        for instance in clock::within(MINUTE, listed).await.expect("Incus answers") {
            let mut config = instance.config;
            config.retain(|key, _| !key.starts_with("volatile."));
            all.push(AsFound {
                name: instance.name.to_string(),
                status: instance.status,
                config,
                devices: instance.devices,
            });
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// All is as it was found, no key is set and no record is left; within the time that is promised
    /// for a check that was killed.
    pub async fn undone_without_help(&self, before: &[AsFound]) {
        let mut last = (Vec::new(), Vec::new());
        let undone = async {
            loop {
                last = (self.as_it_is().await, self.records());
                if last.0 == before && last.1.is_empty() {
                    return;
                }
                clock::sleep(Duration::from_millis(50)).await;
            }
        };
        if clock::within(PROMISED, undone).await.is_err() {
            let (now, records) = last;
            let text: Vec<_> = records.iter().map(std::fs::read_to_string).collect();
            panic!("not undone: {now:#?}, expected {before:#?}; records {text:?}");
        }
    }

    /// Waits until the monitor calls the formation whole, by health checks that were begun after this was
    /// called: one that began in a fault that is over may still end badly (0.5 s, 0.2 s until its second
    /// try, 0.5 s), and would have the next drill refused.
    pub async fn until_whole(&self) {
        let now = "select clock_timestamp() + interval '1.3 s'";
        let since = self.sql("pgaf-monitor", "pg_auto_failover", now).await;
        let sql = &format!(
            "select count(*) = 2 and bool_and(reportedstate = goalstate and health = 1 and \
                   healthchecktime > '{since}' and \
                   reportedpgisrunning and now() - reporttime < interval '2 s') and \
                   count(*) filter (where reportedstate = 'primary') = 1 and \
                   count(*) filter (where reportedstate = 'secondary') = 1 \
                   from pgautofailover.node"
        );
        let whole = async {
            while self.sql("pgaf-monitor", "pg_auto_failover", sql).await != "t" {
                clock::sleep(Duration::from_millis(100)).await;
            }
        };
        clock::within(2 * MINUTE, whole)
            .await
            .expect("the formation is whole again");
    }

    /// Waits until the fault of a check is in: its story says so.
    pub async fn until_broken(&self, instance: &str, check: &mut Running) {
        let carries = async {
            loop {
                let found = self.incus.instance(&name(instance)).await;
                let found = found.ok().filter(|i| {
                    let down = matches!(i.status, Status::Stopped | Status::Frozen);
                    down && i.config.contains_key("user.veza.fault")
                });
                if found.is_some() {
                    return;
                }
                assert!(check.runs(), "it ended before the fault");
                clock::sleep(Duration::from_millis(20)).await;
            }
        };
        clock::within(MINUTE, carries)
            .await
            .expect("the fault is in");
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        let output = self.command().args(args).output().unwrap();
        self.ran(&output)
    }

    pub fn ran(&self, output: &Output) -> Ran {
        let latest = self.folder.join("latest");
        let report = std::fs::read(latest.join("report.json")).unwrap_or_default();
        let mut stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if stdout.is_empty() {
            // Quiet, and nothing to do about it.
            stdout = std::fs::read_to_string(latest.join("report.txt")).unwrap_or_default();
        }
        let ran = Ran {
            code: output
                .status
                .code()
                .expect("it ended by itself, not by a signal"),
            stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            report: serde_json::from_slice(&report).unwrap_or_default(),
        };
        println!("{}{}", ran.stderr, ran.stdout);
        ran
    }

    pub fn start(&self, args: &[&str]) -> Running {
        let mut command = self.command();
        let child = command
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Running(Some(child))
    }

    pub async fn instance(&self, instance: &str) -> Instance {
        self.incus.instance(&name(instance)).await.unwrap()
    }

    /// Which data node is primary now, and which is not; as the primary itself says.
    pub async fn roles(&self) -> (String, String) {
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

    pub async fn sql(&self, instance: &str, database: &str, sql: &str) -> String {
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
    pub async fn start_of(&self, instance: &str) -> (i64, String) {
        let started = self
            .sql(instance, "veza", "select pg_postmaster_start_time()")
            .await;
        (self.instance(instance).await.init_pid, started)
    }

    pub async fn until_stopped(&self, instance: &str, check: &mut Running) {
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
    pub async fn runs_again(&self, instance: &str, before: &(i64, String)) {
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

    pub async fn no_schema_is_left(&self, primary: &str) {
        let sql = "select count(*) from pg_namespace where nspname like 'veza_drill%'";
        assert_eq!(self.sql(primary, "veza", sql).await, "0");
    }
}

impl Ran {
    pub fn came_to(&self, code: i32, verdict: &str, reason_id: &str) {
        assert_eq!(self.code, code, "{}", self.stdout);
        let first = self.stdout.lines().next().unwrap_or_default();
        let expected = format!("{} {reason_id}; next: ", verdict.to_uppercase());
        assert!(first.starts_with(&expected), "first line: {first}");
        assert_eq!(self.report["verdict"], verdict);
        assert_eq!(self.report["reason_id"], reason_id);
        assert_eq!(self.report["exit_code"], code);
    }

    pub fn says(&self, word: &str) {
        assert!(
            self.stdout.contains(word),
            "{word} is missing in: {}",
            self.stdout
        );
    }

    pub fn seconds(&self, gate: &str) -> (f64, f64) {
        let gates = self.report["gates"].as_array().unwrap();
        let gate = gates
            .iter()
            .find(|g| g["id"] == gate)
            .expect("the gate is there");
        let bound = |which: &str| gate["measured"][which].as_f64().unwrap_or(f64::INFINITY);
        (bound("lower"), bound("upper"))
    }
}
