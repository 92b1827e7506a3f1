//! The lab as a test finds it, and what a group of Redis is asked.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use lab_test::Subject;
pub use lab_test::{MINUTE, name, variable};
use veza_probe::clock;
use veza_probe::command::Command;

/// The instances of the group.
pub const NODES: [&str; 3] = ["redis-1", "redis-2", "redis-3"];

/// The check, the lab, and a folder of this test's own.
pub struct Lab(Subject);

impl Deref for Lab {
    type Target = Subject;

    fn deref(&self) -> &Subject {
        &self.0
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
        stream.set_read_timeout(Some(MINUTE)).unwrap();
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
                std::thread::park_timeout(Duration::from_millis(20));
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

impl Lab {
    pub async fn new(test: &str) -> Lab {
        let program = env!("CARGO_BIN_EXE_redis-sentinel-check");
        let needs = ["REDIS_SENTINEL_ADDRS", "REDIS_PASSWORD_FILE"];
        Lab(Subject::new(program, test, &["redis"], &needs).await)
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
        let up = Command::new(cargo)
            .folder(Path::new(env!("CARGO_MANIFEST_DIR")))
            .args(["xtask", "lab", "up", "--no-install", "redis"]);
        let up = up.output(5 * MINUTE).await.unwrap();
        let words = up.stderr;
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
