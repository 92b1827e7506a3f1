//! The lab as a test finds it, and what a cluster of MinIO is asked.

use std::ops::Deref;
use std::time::Duration;

pub use lab_test::{MINUTE, name, variable};
use lab_test::{Ran, Subject};
use veza_probe::clock;

/// What a fault and its objects may outlast a check that was killed: nodes are started one by one, and objects can be
/// removed once three of them are back.
const PROMISED: Duration = Duration::from_secs(90);

/// The instances of the group.
pub const NODES: [&str; 4] = ["minio-1", "minio-2", "minio-3", "minio-4"];

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
        let program = env!("CARGO_BIN_EXE_minio-resilience");
        let needs = ["MINIO_ENDPOINTS", "MINIO_BUCKET", "MINIO_SECRET_KEY_FILE"];
        let subject = Subject::new(program, test, &["minio"], &needs).await;
        Lab(subject.promising(PROMISED))
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
            all.push(self.instance(node).await.init_pid);
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

/// The names of an act's phases, in their order.
pub fn phases(ran: &Ran, act: usize) -> Vec<&str> {
    let phases = ran.report["acts"][act]["phases"].as_array().unwrap();
    phases.iter().map(|p| p["name"].as_str().unwrap()).collect()
}
