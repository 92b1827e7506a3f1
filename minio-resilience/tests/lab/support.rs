//! The lab as a test finds it, the real binary, and what both are asked.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use veza_probe::clock;
use veza_probe::incus::{Device, Incus, Status, socket_path};
use veza_probe::instance::InstanceName;

pub const MINUTE: Duration = Duration::from_secs(60);

/// What a fault and its objects may outlast a check that was killed: nodes are started one by one, and objects can be
/// removed once three of them are back.
const PROMISED: Duration = Duration::from_secs(90);

/// The instances of the group.
pub const NODES: [&str; 4] = ["minio-1", "minio-2", "minio-3", "minio-4"];

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
pub struct Running(Option<Child>);

impl Running {
    /// Reads its story up to a line with a word.
    pub fn until_said(&mut self, word: &str) {
        let story = self.0.as_mut().unwrap().stderr.as_mut().unwrap();
        let mut lines = BufReader::new(story).lines();
        assert!(lines.any(|line| line.unwrap().contains(word)), "{word}");
    }

    /// Waits until it has ended, and returns its code.
    pub fn ended(mut self) -> Option<i32> {
        let output = self.0.take().unwrap().wait_with_output().unwrap();
        println!("{}", String::from_utf8_lossy(&output.stderr));
        output.status.code()
    }

    /// Kills it, as nothing can be caught.
    pub fn kill(mut self) {
        let mut child = self.0.take().unwrap();
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().code(), None, "killed");
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
        .unwrap_or_else(|_| panic!("{name} is not set: run this with `cargo xtask test minio`"))
}

pub fn name(text: &str) -> InstanceName {
    InstanceName::new(text).unwrap()
}

impl Lab {
    pub async fn new(test: &str) -> Lab {
        let project = variable("VEZA_INCUS_PROJECT");
        for needed in ["MINIO_ENDPOINTS", "MINIO_BUCKET", "MINIO_SECRET_KEY_FILE"] {
            variable(needed);
        }
        let socket = socket_path(|name| std::env::var_os(name));
        let (incus, _) = Incus::connect(&socket, &project).await.unwrap();
        let folder = std::env::temp_dir().join(format!("minio-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Lab { incus, folder }
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_minio-resilience"));
        command
            .arg("--report")
            .arg(&self.folder)
            .env("VEZA_STATE_DIR", self.folder.join("state"))
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        let output = self.command().args(args).output().unwrap();
        self.ran(&output)
    }

    pub fn ran(&self, output: &Output) -> Ran {
        let latest = self.folder.join("latest");
        let report = std::fs::read(latest.join("report.json")).unwrap_or_default();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let ran = Ran {
            code: output.status.code().expect("it ended by itself"),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
            report: serde_json::from_slice(&report).unwrap_or_default(),
        };
        println!("{}{}", ran.stderr, ran.stdout);
        ran
    }

    pub fn start(&self, args: &[&str]) -> Running {
        let mut command = self.command();
        let command = command.args(args).stdout(Stdio::null());
        Running(Some(command.stderr(Stdio::piped()).spawn().unwrap()))
    }

    /// Every instance of the group as a drill must leave it: state, own config and devices.
    pub async fn as_it_is(&self) -> Vec<AsFound> {
        let mut all = Vec::new();
        for node in NODES {
            // Incus can't always say while it stops or starts one.
            let listed = async {
                loop {
                    match self.incus.instance(&name(node)).await {
                        Ok(found) => return found,
                        Err(_) => clock::sleep(Duration::from_millis(100)).await,
                    }
                }
            };
            let found = clock::within(MINUTE, listed).await.expect("Incus answers");
            let mut config = found.config;
            config.retain(|key, _| !key.starts_with("volatile."));
            all.push(AsFound {
                name: found.name.to_string(),
                status: found.status,
                config,
                devices: found.devices,
            });
        }
        all
    }

    /// All is as it was found, no key is set and no record is left; within the time that is promised for a
    /// check that was killed.
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
            panic!("not undone: {last:#?}, expected {before:#?}");
        }
    }

    /// The records of faults that are there.
    fn records(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.folder.join("state").join("faults"));
        let paths = files.into_iter().flatten().map(|file| file.unwrap().path());
        paths
            .filter(|path| path.extension().is_some_and(|e| e == "json"))
            .collect()
    }

    /// Runs something in an instance, and returns what it printed.
    pub async fn inside(&self, instance: &str, script: &str) -> String {
        let argv = ["bash", "-c", script];
        let done = self.incus.exec(&name(instance), &argv, MINUTE).await;
        let done = done.unwrap();
        assert_eq!(done.code, 0, "{script} in {instance}: {}", done.stderr);
        done.stdout.trim().to_owned()
    }

    /// Runs something in an instance that may be starting, until it succeeds.
    pub async fn until_inside(&self, instance: &str, script: &str) {
        let argv = ["bash", "-c", script];
        let done = async {
            loop {
                let done = self.incus.exec(&name(instance), &argv, MINUTE).await;
                if done.is_ok_and(|done| done.code == 0) {
                    return;
                }
                clock::sleep(Duration::from_millis(50)).await;
            }
        };
        clock::within(MINUTE, done).await.expect("it succeeds");
    }

    /// The last report.
    pub fn report(&self) -> Value {
        let report = std::fs::read(self.folder.join("latest/report.json")).unwrap();
        serde_json::from_slice(&report).unwrap()
    }

    /// MinIO's own client, as root, in an instance.
    pub async fn mc(&self, instance: &str, words: &str) -> String {
        let script = format!(
            "set -a; . /etc/veza/admin.env; MC_CONFIG_DIR=/run/veza-test; minio-client --quiet {words}"
        );
        self.inside(instance, &script).await
    }

    /// Its init process: whatever stops an instance changes it.
    pub async fn starts(&self) -> Vec<i64> {
        let mut all = Vec::new();
        for node in NODES {
            all.push(self.incus.instance(&name(node)).await.unwrap().init_pid);
        }
        all
    }

    /// Waits until the group is whole by the lab's own word.
    pub async fn until_whole(&self) {
        let whole = async {
            for node in NODES {
                while !self.is_ready(node).await {
                    clock::sleep(Duration::from_millis(200)).await;
                }
            }
        };
        clock::within(2 * MINUTE, whole)
            .await
            .expect("the group is whole again");
    }

    async fn is_ready(&self, node: &str) -> bool {
        let argv = ["/usr/local/lib/veza/ready"];
        let done = self.incus.exec(&name(node), &argv, MINUTE).await;
        done.is_ok_and(|done| done.code == 0)
    }

    /// No object of any drill is left, in no version.
    pub async fn no_object_is_left(&self) {
        let bucket = variable("MINIO_BUCKET");
        let listed = format!("ls --versions --recursive veza/{bucket}/veza-drill/");
        assert_eq!(self.mc("minio-1", &listed).await, "");
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
    }

    pub fn says(&self, word: &str) {
        let text = &self.stdout;
        assert!(text.contains(word), "{word} is missing in: {text}");
    }

    /// The names of an act's phases, in their order.
    pub fn phases(&self, act: usize) -> Vec<&str> {
        let phases = self.report["acts"][act]["phases"].as_array().unwrap();
        phases.iter().map(|p| p["name"].as_str().unwrap()).collect()
    }

    pub fn measured(&self, gate: &str) -> (f64, f64) {
        let gates = self.report["gates"].as_array().unwrap();
        let gate = gates
            .iter()
            .find(|g| g["id"] == gate)
            .expect("the gate is there");
        let bound = |which: &str| gate["measured"][which].as_f64().unwrap_or(f64::INFINITY);
        (bound("lower"), bound("upper"))
    }
}
