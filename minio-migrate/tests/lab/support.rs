//! Both stores of the lab, as the tests use them.

use lab_test::{MINUTE, Ran, Subject, name, variable};

const PREFIX: &str = "migrated/";

/// For some seconds after a reset nodes refuse writes that the cluster could take, and one that was not reached when a bucket was
/// set keeps what it knew of it: what every node must know is set until each says so. What comes by a pipe can't be sent again: `put`
/// keeps it until it is taken.
const AGAIN: &str = r#"
again() { for try in $(seq 20); do "$@" && return; sleep 1; done; return 1; }
put() { cat >/tmp/put; again minio-client --quiet cp /tmp/put "$1" >/dev/null; }
versioned() {
  for host in 31 32 33 34; do
    export MC_HOST_node=${MC_HOST_veza/127.0.0.1/198.18.0.$host}
    until [[ $(minio-client --json version info "node/$1" | jq --raw-output .versioning.status) == Enabled ]]; do
      ((SECONDS < 60)) || return 1
      minio-client --quiet version enable "veza/$1" >/dev/null || true
      sleep 0.3
    done
  done
}
"#;

/// Both stores of the lab, and the program between them.
pub struct Lab(pub Subject);

impl Lab {
    /// Both groups as they were reset.
    pub async fn new(test: &str) -> Lab {
        let needs = ["MINIO_SRC_ENDPOINT", "MINIO_DST_ENDPOINTS", "MINIO_BUCKET"];
        let program = env!("CARGO_BIN_EXE_minio-migrate");
        Lab(Subject::new(program, test, &["minio", "minio-single"], &needs).await)
    }

    /// Runs a script in an instance, as root.
    pub async fn inside(&self, instance: &str, script: &str) -> String {
        let argv = ["bash", "-c", script];
        let done = self.0.incus.exec(&name(instance), &argv, MINUTE).await;
        let done = done.unwrap();
        // Without the script: a login may be in it.
        assert_eq!(done.code, 0, "in {instance}: {}", done.stderr);
        done.stdout.trim().to_owned()
    }

    /// MinIO's own client, as root, in an instance, with the folder of this test as `$AT` and the source's as `$FROM`.
    pub async fn mc(&self, instance: &str, script: &str) -> String {
        let source = self
            .inside(
                "minio-old",
                "sed -n 's/^MC_HOST_veza=//p' /etc/veza/admin.env",
            )
            .await;
        let endpoint = variable("MINIO_SRC_ENDPOINT");
        let (_, host) = endpoint.split_once("://").unwrap();
        let source = source.replace("127.0.0.1:9000", host);
        let (bucket, folder) = (variable("MINIO_BUCKET"), PREFIX.trim_end_matches('/'));
        let script = format!(
            "set -ea; . /etc/veza/admin.env; MC_CONFIG_DIR=/run/veza-test; MC_HOST_old='{source}'; \
             AT=veza/{bucket}/{folder}; FROM=old/{bucket}/{folder}; {AGAIN} {script}"
        );
        self.inside(instance, &script).await
    }

    /// Compares this test's folder.
    pub fn verify(&self, more: &[&str]) -> Ran {
        let bucket = variable("MINIO_BUCKET");
        let args = ["verify", "--bucket", &bucket, "--prefix", PREFIX];
        self.0.run(&[&args[..], more].concat())
    }
}
