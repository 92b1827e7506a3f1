//! The lab as a test finds it, the real binary, and what both are asked.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use veza_probe::clock;
use veza_probe::incus::{Device, Incus, Status, socket_path};
use veza_probe::instance::InstanceName;

pub const MINUTE: Duration = Duration::from_secs(60);

/// What a fault may outlast a check that was killed.
const PROMISED: Duration = Duration::from_secs(10);

/// The instances of the group.
pub const NODES: [&str; 3] = ["redis-1", "redis-2", "redis-3"];

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

/// A client with one connection to one server, which writes all the time and must not meet an error.
pub struct Standing {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Standing {
    pub fn connect(address: &str) -> Standing {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PROMISED)).unwrap();
        let mut answers = BufReader::new(stream.try_clone().unwrap());
        let mut ask = move |words: &str| {
            (&stream)
                .write_all(format!("{words}\r\n").as_bytes())
                .unwrap();
            let mut answer = String::new();
            answers.read_line(&mut answer).unwrap();
            answer.trim().to_owned()
        };
        let secret = std::fs::read_to_string(variable("REDIS_PASSWORD_FILE")).unwrap();
        let login = format!("AUTH {} {}", variable("REDIS_USERNAME"), secret.trim());
        assert_eq!(ask(&login), "+OK");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut writes = 0;
            while !stopped.load(Ordering::Relaxed) {
                assert_eq!(
                    ask("SET veza:test:standing x EX 60"),
                    "+OK",
                    "after {writes}"
                );
                writes += 1;
                std::thread::sleep(Duration::from_millis(20));
            }
            writes
        });
        Standing { stop, thread }
    }

    /// Ends it; returns how many writes were answered.
    pub fn ended(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no write failed")
    }
}

pub fn variable(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run this with `cargo xtask test redis`"))
}

pub fn name(text: &str) -> InstanceName {
    InstanceName::new(text).unwrap()
}

impl Lab {
    pub async fn new(test: &str) -> Lab {
        let project = variable("VEZA_INCUS_PROJECT");
        for needed in ["REDIS_SENTINEL_ADDRS", "REDIS_PASSWORD_FILE"] {
            variable(needed);
        }
        let socket = socket_path(|name| std::env::var_os(name));
        let (incus, _) = Incus::connect(&socket, &project).await.unwrap();
        let folder = std::env::temp_dir().join(format!("redis-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Lab { incus, folder }
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_redis-sentinel-check"));
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

    /// What a server (6379) or sentinel (26379) in an instance answers its administrator.
    pub async fn redis(&self, instance: &str, port: u16, words: &str) -> String {
        let script = format!(
            "set -a; . /etc/veza/admin.env; redis-cli --user admin -p {port} {words} | tr -d '\\r'"
        );
        self.inside(instance, &script).await
    }

    /// What a sentinel's `down-after-milliseconds` is.
    pub async fn down_after_ms(&self, instance: &str) -> String {
        let all = self.redis(instance, 26_379, "sentinel master veza").await;
        let mut lines = all.lines();
        lines
            .find(|line| *line == "down-after-milliseconds")
            .unwrap();
        lines.next().unwrap().to_owned()
    }

    /// The master's instance by its own word, and the others.
    pub async fn roles(&self) -> (String, Vec<String>) {
        let (mut masters, mut others) = (Vec::new(), Vec::new());
        for node in NODES {
            let role = self.redis(node, 6379, "role").await;
            match role.starts_with("master") {
                true => masters.push(node.to_owned()),
                false => others.push(node.to_owned()),
            }
        }
        assert_eq!(masters.len(), 1, "{masters:?}");
        (masters.remove(0), others)
    }

    /// Its init process and its run: whatever touches a server changes one.
    pub async fn start_of(&self, instance: &str) -> (i64, String) {
        let info = self.redis(instance, 6379, "info server").await;
        let run = info.lines().find(|line| line.starts_with("run_id:"));
        let pid = self.incus.instance(&name(instance)).await.unwrap().init_pid;
        (pid, run.unwrap().to_owned())
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

    /// Neither servers nor sentinels are held, and no drop-in of a drill is left.
    pub async fn no_unit_is_held(&self) {
        for node in NODES {
            let script = "systemctl is-active redis-server redis-sentinel && \
                          ! ls /run/systemd/system/*.d/veza-drill.conf 2>/dev/null";
            self.inside(node, script).await;
        }
    }

    /// `lab up` leaves the master, every process, and a standing connection as they are.
    pub async fn converging_disturbs_nobody(&self, master: &str) {
        let mut before = Vec::new();
        for node in NODES {
            before.push(self.processes(node).await);
        }
        let client = Standing::connect(&self.address(master).await);
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let up = Command::new(cargo)
            .current_dir(manifest.parent().unwrap())
            .args(["xtask", "lab", "up", "--no-install", "redis"])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&up.stderr);
        assert!(up.status.success(), "cargo xtask lab up redis: {words}");
        assert!(client.ended() > 10, "it wrote all the time");
        assert_eq!(self.roles().await.0, master, "the failover was not undone");
        for (node, before) in NODES.iter().zip(before) {
            assert_eq!(self.processes(node).await, before, "{node}: {words}");
            let asked = "sentinel get-master-addr-by-name veza";
            let named = self.redis(node, 26_379, asked).await;
            let address = self.address(master).await;
            assert!(
                address.starts_with(named.lines().next().unwrap()),
                "{named}"
            );
        }
    }

    /// The runs of a node's server and sentinel.
    async fn processes(&self, node: &str) -> String {
        let script = "systemctl show --property=InvocationID --value redis-server redis-sentinel";
        self.inside(node, script).await
    }

    /// Where an instance's server listens.
    async fn address(&self, node: &str) -> String {
        let found = self.incus.instance(&name(node)).await.unwrap();
        format!("{}:6379", found.ipv4()[0])
    }

    /// No key of any drill is left on the master.
    pub async fn no_key_is_left(&self) {
        let (master, _) = self.roles().await;
        let keys = self
            .redis(&master, 6379, "--scan --pattern 'veza:drill:*'")
            .await;
        assert_eq!(keys, "");
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

    /// The names of the phases, in their order.
    pub fn phases(&self) -> Vec<&str> {
        let phases = self.report["phases"].as_array().unwrap();
        phases.iter().map(|p| p["name"].as_str().unwrap()).collect()
    }

    /// The value of a figure.
    pub fn figure(&self, id: &str) -> f64 {
        let figures = self.report["figures"].as_array().unwrap();
        let mut found = figures.iter().filter(|figure| figure["id"] == id);
        let figure = found.next().expect("the figure is there");
        figure["rounds"][0].as_f64().unwrap()
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
