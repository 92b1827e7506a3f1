//! The lab as a test finds it, and what a group of Redis is asked.

use std::ops::Deref;
use std::time::Duration;

use lab_test::Subject;
pub use lab_test::{MINUTE, name, variable};
use veza_probe::clock;

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

    /// No key of any drill is left on the master.
    pub async fn no_key_is_left(&self) {
        let (master, _) = self.roles().await;
        let keys = self
            .redis(&master, 6379, "--scan --pattern 'veza:drill:*'")
            .await;
        assert_eq!(keys, "");
    }
}
