//! A cutover with a writer who writes until it is frozen.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use lab_test::{Ran, Running, variable};
use veza_probe::clock;

use crate::support::Lab;

/// Objects of the application's own, and a writer with its login until somebody ends it.
const WRITER: &str = r#"
mkdir -p /tmp/songs; cd /tmp/songs; for i in $(seq 60); do head -c $((i * 30)) /dev/urandom > s$i; done
minio-client --quiet mirror /tmp/songs veza/$BUCKET/songs >/dev/null
secret=$(sed -n 's/^veza-app //p' /etc/veza/minio-users)
export MC_HOST_app=http://veza-app:$secret@127.0.0.1:9000
cat > /tmp/writer.sh <<'END'
for n in $(seq 3000); do
  if echo $n | minio-client --quiet pipe app/$BUCKET/live/$((n % 10)) >/dev/null 2>&1; then echo yes >> /tmp/writer.log; else echo no >> /tmp/writer.log; fi
  sleep 0.05
done
END
: > /tmp/writer.log; setsid nohup bash /tmp/writer.sh >/dev/null 2>&1 &
"#;

/// A write of the application's that is let in now and comes to its end 45 s later.
const SLOW: &str = r#"
head -c 4500000 /dev/urandom > /tmp/slow; secret=$(sed -n 's/^veza-app //p' /etc/veza/minio-users)
printf 'user = "veza-app:%s"\n' "$secret" > /tmp/slow.login; chmod 600 /tmp/slow.login
setsid nohup curl --silent --fail --config /tmp/slow.login --aws-sigv4 aws:amz:us-east-1:s3 --header 'x-amz-content-sha256: UNSIGNED-PAYLOAD' \
  --limit-rate 100k --upload-file /tmp/slow http://127.0.0.1:9000/$BUCKET/songs/slow >/tmp/slow.said 2>&1 </dev/null &
sleep 1
"#;

/// Every version and mark of the application's bucket, and the bytes of the newest.
const BOTH: &str = r#"
seen() {
  minio-client --json ls --recursive --versions "$1/$BUCKET" |
    jq --raw-output --slurp 'group_by(.key)[] | sort_by(.versionOrdinal // 0)[] | [.key, .size, .etag, (.isDeleteMarker // false)] | @tsv'
}
seen old > /tmp/old.seen; seen veza > /tmp/new.seen; cmp /tmp/old.seen /tmp/new.seen; wc -l < /tmp/old.seen
"#;

struct Cut(Lab);

impl Cut {
    async fn new(test: &str) -> Cut {
        let lab = Lab::new(test).await;
        let bucket = variable("MINIO_BUCKET");
        lab.mc("minio-old", &format!("export BUCKET={bucket}; {WRITER}"))
            .await;
        lab.mc("minio-1", &format!("versioned {bucket}")).await;
        Cut(lab)
    }

    /// The cutover, with the writer's login in a file, changed as told.
    fn command(&self, secret: Option<&str>, more: &[&str]) -> Command {
        let secrets = self.0.0.folder.join("writers");
        let access = variable("MINIO_SRC_APP_ACCESS_KEY");
        let own = std::fs::read_to_string(variable("MINIO_SRC_APP_SECRET_KEY_FILE")).unwrap();
        std::fs::write(&secrets, format!("{access} {}\n", secret.unwrap_or(&own))).unwrap();
        std::fs::set_permissions(&secrets, std::fs::Permissions::from_mode(0o600)).unwrap();
        let mut command = self.0.0.command();
        command.env("MINIO_WRITER_SECRETS_FILE", secrets);
        command.args([
            "cutover",
            "--bucket",
            &variable("MINIO_BUCKET"),
            "--writer-access-key",
            &access,
        ]);
        command.args(more);
        command
    }

    fn run(&self, secret: Option<&str>, more: &[&str]) -> Ran {
        let ran = self.0.0.ran(&self.command(secret, more).output().unwrap());
        let own = std::fs::read_to_string(variable("MINIO_SRC_APP_SECRET_KEY_FILE")).unwrap();
        let said = format!("{}{}{}", ran.stdout, ran.stderr, ran.report);
        assert!(!said.contains(own.trim()), "a login was told");
        ran
    }

    /// Waits until the writer's last attempts came to this.
    async fn writes(&self, word: &str) {
        let script = format!(
            "for try in $(seq 100); do [[ $(tail -n 3 /tmp/writer.log | sort -u) == {word} ]] && exit; sleep 0.1; done; tail /tmp/writer.log >&2; exit 1"
        );
        self.0.inside("minio-old", &script).await;
    }

    fn freezes(&self) -> usize {
        let files = std::fs::read_dir(self.0.0.state().join("freezes"));
        files.into_iter().flatten().count()
    }
}

impl Cut {
    /// Moving back is a move with both ends exchanged.
    fn rehearsed(&self, bucket: &str) {
        let journals = std::fs::read_dir(self.0.0.state().join("migrations")).unwrap();
        let mut journals = journals.map(|file| file.unwrap().path());
        let back = journals.find(|path| {
            path.extension()
                .is_some_and(|extension| extension == "back")
        });
        let targets = variable("MINIO_DST_ENDPOINTS");
        let mut command = self.0.0.command();
        command.env("MINIO_SRC_ENDPOINT", targets.split(',').next().unwrap());
        command.env("MINIO_DST_ENDPOINTS", variable("MINIO_SRC_ENDPOINT"));
        for key in ["ACCESS_KEY", "SECRET_KEY_FILE"] {
            let (source, target) = (format!("MINIO_SRC_{key}"), format!("MINIO_DST_{key}"));
            command
                .env(&source, variable(&target))
                .env(&target, variable(&source));
        }
        command
            .args(["verify", "--bucket", bucket, "--journal"])
            .arg(back.unwrap());
        let ran = self.0.0.ran(&command.output().unwrap());
        ran.came_to(0, "pass", "all-gates-held");
    }

    /// What is written to the new store comes to the old one, and what others wrote there stays.
    async fn way_back(&self) {
        let bucket = variable("MINIO_BUCKET");
        let at = format!("export BUCKET={bucket}");
        let written = format!(
            "{at}; echo new | put veza/$BUCKET/songs/new; echo over | put veza/$BUCKET/songs/s1; \
             minio-client --quiet rm veza/$BUCKET/songs/s2 >/dev/null"
        );
        self.0.mc("minio-1", &written).await;
        let back = ["reverse", "--bucket", &bucket];
        let ran = self.0.0.run(&back);
        ran.came_to(0, "pass", "in-step");
        assert_eq!((ran.figure("versions"), ran.figure("marks")), (2.0, 1.0));
        self.0.mc("minio-1", &format!("{at}; {BOTH}")).await;
        self.rehearsed(&bucket);
        let slow = [&back[..], &["--max-lag", "0.000001"]].concat();
        self.0.0.run(&slow).came_to(2, "fail", "lag-missed");
        let other =
            format!("{at}; echo 1 | put old/$BUCKET/songs/s3; echo 22 | put veza/$BUCKET/songs/s3");
        self.0.mc("minio-1", &other).await;
        let ran = self.0.0.run(&back);
        ran.came_to(5, "inconclusive", "conflicts");
        ran.says("songs/s3");
    }
}

const ACCEPTED: [&str; 2] = ["--accept-loss", "version-ids,last-modified"];

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_writer_writes_until_it_is_frozen_and_go_loses_nothing_of_it() {
    let cut = Cut::new("go").await;
    let ran = cut.run(None, &[]);
    ran.came_to(2, "fail", "no-go");
    ran.says("version-ids");
    let ran = cut.run(None, &[&ACCEPTED[..], &["--max-freeze", "0.001"]].concat());
    ran.came_to(2, "fail", "freeze-too-long");
    let ran = cut.run(Some("hunter2hunter2"), &ACCEPTED);
    ran.came_to(2, "fail", "no-go");
    ran.says("a refusal proves nothing");
    cut.writes("yes").await;
    assert_eq!(cut.freezes(), 0, "nobody was frozen");
    let bucket = variable("MINIO_BUCKET");
    let slow = format!("export BUCKET={bucket}; {SLOW}");
    cut.0.mc("minio-old", &slow).await;
    let ran = cut.run(None, &[&ACCEPTED[..], &["--max-freeze", "10"]].concat());
    ran.came_to(2, "fail", "no-go");
    ran.says("let in before the freeze: 1 PutObject at");
    cut.writes("yes").await;
    // What is let in meanwhile is told to be done after the freeze began, and is on the target.
    let ran = cut.run(None, &[&ACCEPTED[..], &["--listings", "3"]].concat());
    ran.came_to(0, "pass", "go");
    ran.says("GO: ");
    cut.0
        .mc(
            "minio-1",
            &format!("minio-client stat veza/{bucket}/songs/slow >/dev/null"),
        )
        .await;
    cut.writes("no").await;
    let both = format!("export BUCKET={}; {BOTH}", variable("MINIO_BUCKET"));
    let lines = cut.0.mc("minio-1", &both).await;
    assert!(lines.parse::<u32>().unwrap() > 65, "{lines}");
    // After GO nothing thaws by itself, and nothing is cut over again.
    let ran = cut.0.0.run(&["cutover", "--recover"]);
    ran.came_to(0, "clean", "recovered");
    ran.says("GO was given");
    cut.writes("no").await;
    cut.run(None, &ACCEPTED).came_to(1, "refused", "go-given");
    cut.way_back().await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_cutover_that_is_stopped_or_killed_leaves_nobody_frozen() {
    let cut = Cut::new("thaw").await;
    let started = |more: &[&str]| Running::of(&mut cut.command(None, more));
    let mut check = started(&ACCEPTED);
    check.until_said("frozen: ");
    check.signal("-TERM");
    let ran = cut.0.0.ran(&check.ended());
    assert_eq!(ran.code, 143, "{}", ran.report);
    cut.writes("yes").await;
    assert_eq!(cut.freezes(), 0);
    let mut check = started(&ACCEPTED);
    check.until_said("frozen: ");
    check.kill();
    cut.writes("no").await;
    cut.run(None, &ACCEPTED)
        .came_to(1, "refused", "freeze-left");
    let ran = cut.0.0.run(&["cutover", "--recover"]);
    ran.came_to(0, "clean", "recovered");
    cut.writes("yes").await;
    cut.0
        .0
        .run(&["cutover", "--recover"])
        .came_to(0, "clean", "nothing-left");
    // A node that is not there is no place to move to.
    cut.0.inside("minio-4", "systemctl stop minio").await;
    clock::sleep(Duration::from_secs(1)).await;
    let first = variable("MINIO_DST_ENDPOINTS")
        .split(',')
        .next()
        .unwrap()
        .to_owned();
    let ran = cut.run(
        None,
        &[&ACCEPTED[..], &["--target-endpoint", &first]].concat(),
    );
    assert_eq!(ran.code, 2, "{}", ran.report);
    cut.writes("yes").await;
}
