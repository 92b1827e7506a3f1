//! A migration of the test's own bucket: everything that makes an object arrives, whatever happens on the way.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lab_test::{Ran, Running, variable};
use veza_probe::clock;

use crate::support::Lab;
use crate::wire::{Trick, Wire};

/// A bucket with everything: locked, versions, marks of deletion, tags, headers, sizes around every border, odd keys, more keys in a
/// prefix than a page of a listing has.
const EVERYTHING: &str = r#"
mc() { minio-client --quiet "$@" >/dev/null; }
mc mb --with-lock veza/golden
mkdir -p /tmp/golden/many "/tmp/golden/a b+c%" /tmp/golden/über; cd /tmp/golden
for i in $(seq 1100); do echo $i > many/$i; done
: > empty; printf x > one; echo 1 > "a b+c%/é&=?.txt"; echo 2 > "über/naïve's \"file\""
for size in 5242879 5242880 5242881 16777217; do head -c $size /dev/urandom > size-$size; done
mc mirror /tmp/golden veza/golden
head -c 209715200 /dev/urandom | minio-client --quiet pipe veza/golden/large >/dev/null
for i in $(seq 10); do echo $i | minio-client --quiet pipe veza/golden/versions >/dev/null; done
mc rm veza/golden/many/7; mc rm veza/golden/many/8; echo again | minio-client --quiet pipe veza/golden/many/8 >/dev/null; mc rm veza/golden/many/8
mc cp --attr 'Cache-Control=max-age=9;Content-Language=fr;X-Amz-Meta-Artist=Édith' --tags 'a=1&b=x y' one veza/golden/tagged
mc cp one veza/golden/held; mc legalhold set veza/golden/held
mc cp one veza/golden/kept; mc retention set governance 2d veza/golden/kept
mc tag set veza/golden team=music; mc ilm rule add --noncurrent-expire-days 30 veza/golden; mc anonymous set download veza/golden/public
mc quota set veza/golden --size 10GiB
mc retention set --default governance 30d veza/golden
"#;

/// What an independent client sees of a bucket: every version and mark in order, and the bytes of the newest.
const SEEN: &str = r#"
seen() {
  minio-client --json ls --recursive --versions "$1/golden" |
    jq --raw-output --slurp 'group_by(.key)[] | sort_by(.versionOrdinal // 0)[] | [.key, .size, .etag, (.isDeleteMarker // false)] | @tsv'
  rm -rf /tmp/seen; mkdir /tmp/seen
  minio-client --quiet cp --recursive "$1/golden/" /tmp/seen >/dev/null
  (cd /tmp/seen; find . -type f -print0 | sort -z | xargs -0 sha256sum)
  for key in held kept tagged; do
    minio-client --json tag list "$1/golden/$key" | jq --compact-output .tagset
    minio-client --json retention info "$1/golden/$key" | jq --compact-output '[.mode, .until]'
    minio-client --json legalhold info "$1/golden/$key" | jq --compact-output .legalhold
    minio-client --json stat "$1/golden/$key" | jq --compact-output '.metadata | del(."X-Amz-Object-Lock-Retain-Until-Date")'
  done
}
"#;

/// A folder of many small objects on the source, in a bucket with versions on both.
const MANY: &str = r#"
mc() { minio-client --quiet "$@" >/dev/null; }
mc mb veza/many; mc version enable veza/many
mkdir -p /tmp/many; cd /tmp/many; for i in $(seq 300); do head -c $((i * 50)) /dev/urandom > t$i; done
mc mirror /tmp/many veza/many; for i in 1 2 3; do for k in 5 6 7 8; do echo $i | minio-client --quiet pipe veza/many/t$k >/dev/null; done; done
mc rm veza/many/t9
"#;

const MANY_TARGET: &str =
    "again minio-client --quiet mb --ignore-existing veza/many; versioned many";

/// As many versions and marks as [`MANY`] has.
const MANY_VERSIONS: f64 = 312.0;

impl Lab {
    fn way(&self, word: &[&str], bucket: &str, more: &[&str]) -> Ran {
        self.0.run(&[word, &["--bucket", bucket], more].concat())
    }

    async fn many(test: &str) -> Lab {
        let lab = Lab::new(test).await;
        lab.mc("minio-old", MANY).await;
        lab.mc("minio-1", MANY_TARGET).await;
        lab
    }

    /// Everything of [`MANY`] is there once, by the bytes of both.
    fn is_whole(&self) {
        // Without the journal: both sides are read.
        let mut command = self.0.command();
        command
            .env("VEZA_STATE_DIR", self.0.folder.join("elsewhere"))
            .args(["verify", "--bucket", "many"]);
        let ran = self.0.ran(&command.output().unwrap());
        ran.came_to(0, "pass", "all-gates-held");
        assert_eq!(ran.figure("versions"), MANY_VERSIONS);
    }
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn everything_that_makes_an_object_arrives() {
    let lab = Lab::new("golden").await;
    lab.mc("minio-old", EVERYTHING).await;
    let ran = lab.way(&[], "golden", &["--bucket-config"]);
    ran.came_to(0, "pass", "all-gates-held");
    assert_eq!(ran.figure("etags"), 0.0, "each has the parts that it had");
    let same = format!(
        "{SEEN} seen old > /tmp/old.seen; seen veza > /tmp/new.seen; wc -l < /tmp/old.seen; cmp /tmp/old.seen /tmp/new.seen"
    );
    let lines = lab.mc("minio-1", &same).await;
    assert!(lines.parse::<u32>().unwrap() > 2200, "{lines}");
    // Nothing new: nothing is written.
    let ran = lab.way(&["copy"], "golden", &["--listings=5"]);
    ran.came_to(0, "pass", "copied");
    assert_eq!((ran.figure("versions"), ran.figure("marks")), (0.0, 0.0));
    // In however many ranges a bucket is listed, each key and version is compared once.
    let keys = ["--listings=1", "--listings=7"].map(|listings| {
        let ran = lab.way(&["verify"], "golden", &[listings]);
        ran.came_to(0, "pass", "all-gates-held");
        (ran.figure("keys"), ran.figure("versions"))
    });
    assert_eq!(keys[0], keys[1]);
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_copy_that_is_killed_at_any_moment_goes_on_and_comes_to_the_same() {
    let lab = Lab::many("killed").await;
    let args = ["copy", "--bucket", "many", "--limit-rate", "70"];
    for number in 0..20_u64 {
        let check = lab.0.start(&args);
        // Spread over start, listing, copying and writing down.
        clock::sleep(Duration::from_millis(100 + number * 137 % 1900)).await;
        check.kill();
    }
    lab.way(&["copy"], "many", &[]).came_to(0, "pass", "copied");
    lab.is_whole();
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn whatever_a_network_does_nothing_wrong_passes() {
    let lab = Lab::many("wire").await;
    let (source, target) = (
        variable("MINIO_SRC_ENDPOINT"),
        variable("MINIO_DST_ENDPOINTS"),
    );
    let first = target.split(',').next().unwrap();
    for (trick, every) in [
        (Trick::Cut, 60),
        (Trick::Busy, 5),
        (Trick::Flip, 80),
        (Trick::Delay, 50),
    ] {
        let one = Wire::start(&source, trick, every).await;
        let other = Wire::start(first, trick, every).await;
        let journal = lab.0.folder.join(format!("{trick:?}.sqlite"));
        let ends = [
            "--source-endpoint",
            &one.url,
            "--target-endpoint",
            &other.url,
        ];
        let ends = [&ends[..], &["--journal", journal.to_str().unwrap()]].concat();
        let args: Vec<String> = [&["--bucket", "many"], &ends[..]]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect();
        let subject = lab.0.clone();
        let ran = tokio::task::spawn_blocking(move || {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            subject.run(&args)
        });
        let ran = ran.await.unwrap();
        assert!(one.played() + other.played() > 3, "{trick:?}");
        if ran.code == 0 {
            lab.is_whole();
        }
        lab.mc(
            "minio-1",
            "again minio-client --quiet rb --force --dangerous veza/many",
        )
        .await;
        lab.mc("minio-1", MANY_TARGET).await;
    }
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_bit_that_flips_in_a_part_is_refused_by_the_target() {
    let lab = Lab::new("parts").await;
    lab.mc(
        "minio-old",
        "minio-client --quiet mb veza/many >/dev/null; head -c 100663296 /dev/urandom | put veza/many/large",
    )
    .await;
    lab.mc("minio-1", MANY_TARGET).await;
    let target = variable("MINIO_DST_ENDPOINTS");
    // Of 6,144 pieces at least, in six parts.
    let wire = Wire::start(target.split(',').next().unwrap(), Trick::Flip, 1500).await;
    let url = wire.url.clone();
    let subject = lab.0.clone();
    let ran = tokio::task::spawn_blocking(move || {
        subject.run(&["copy", "--bucket", "many", "--target-endpoint", &url])
    });
    let ran = ran.await.unwrap();
    ran.came_to(5, "inconclusive", "keys-left");
    ran.says("XAmzContentChecksumMismatch");
    assert!(wire.played() > 0);
    let versions = "minio-client --quiet ls --recursive --versions veza/many";
    assert_eq!(lab.mc("minio-1", versions).await, "", "nothing of it");
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn what_changes_meanwhile_is_copied_as_it_is_at_the_end() {
    let lab = Lab::many("changes").await;
    let mut check = lab
        .0
        .start(&["copy", "--bucket", "many", "--limit-rate", "60"]);
    check.until_said("copying many");
    lab.mc("minio-old", "for k in t299 t1 new; do echo new | minio-client --quiet pipe veza/many/$k >/dev/null; done; minio-client --quiet rm veza/many/t298 >/dev/null").await;
    let ran = lab.0.ran(&check.ended());
    ran.came_to(0, "pass", "copied");
    let ran = lab.way(&[], "many", &[]);
    ran.came_to(0, "pass", "all-gates-held");
    assert_eq!(ran.figure("versions"), MANY_VERSIONS + 3.0);
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_node_that_goes_in_mid_copy_costs_nothing() {
    let lab = Lab::many("node").await;
    let mut check = lab
        .0
        .start(&["copy", "--bucket", "many", "--limit-rate", "60"]);
    check.until_said("copying many");
    lab.inside(
        "minio-3",
        "systemctl kill --signal=KILL minio; systemctl stop minio",
    )
    .await;
    let ran = lab.0.ran(&check.ended());
    ran.came_to(0, "pass", "copied");
    let served = "systemctl start minio; for try in $(seq 100); do curl --fail --silent --output /dev/null \
         http://127.0.0.1:9000/minio/health/cluster && exit; sleep 0.2; done; exit 1";
    lab.inside("minio-3", served).await;
    lab.is_whole();
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn what_others_wrote_to_the_target_is_named_and_left_alone() {
    let lab = Lab::many("others").await;
    // As many bytes as t5 has, and others.
    lab.mc("minio-1", "head -c 250 /dev/urandom | put veza/many/t5")
        .await;
    let ran = lab.way(&["copy"], "many", &[]);
    ran.came_to(5, "inconclusive", "conflicts");
    ran.says("t5");
    assert_eq!(ran.figure("troubles"), 1.0);
    let ran = lab.way(&["verify"], "many", &[]);
    assert_eq!(ran.code, 2, "{}", ran.report);
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn four_shards_of_which_one_is_killed_copy_everything_once() {
    let lab = Lab::many("shards").await;
    let folder = lab.0.folder.join("journals");
    let journals = format!("--journals={}", folder.display());
    // The script that is shipped, with the real program.
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../deploy/minio-migrate/shards.sh"
    );
    let shards = || {
        let mut command = Command::new(script);
        command.args([
            "4",
            folder.to_str().unwrap(),
            "--bucket=many",
            "--limit-rate=30",
        ]);
        command.env("MIGRATE", env!("CARGO_BIN_EXE_minio-migrate"));
        command.env("VEZA_STATE_DIR", lab.0.state());
        command
    };
    let running = Running::of(&mut shards());
    let first = folder.join("1.sqlite");
    let pid = until_open(&first).await;
    assert!(
        Command::new("kill")
            .args(["-KILL", &pid])
            .status()
            .unwrap()
            .success()
    );
    let output = running.ended();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stdout).starts_with("PASS complete"),
        "{output:?}"
    );
    lab.is_whole();
    std::fs::copy(folder.join("3.sqlite"), folder.join("copy.sqlite")).unwrap();
    lab.0
        .run(&["status", &journals])
        .came_to(5, "inconclusive", "shard-doubled");
    std::fs::remove_file(folder.join("3.sqlite")).unwrap();
    std::fs::remove_file(folder.join("copy.sqlite")).unwrap();
    lab.0
        .run(&["status", &journals])
        .came_to(5, "inconclusive", "shard-missing");
}

/// Waits until a program has a journal open for a while, and tells which.
async fn until_open(journal: &Path) -> String {
    for _ in 0..100 {
        clock::sleep(Duration::from_millis(100)).await;
        let open = std::fs::read_dir("/proc").unwrap().filter_map(|process| {
            let process = process.ok()?.path();
            let files = std::fs::read_dir(process.join("fd")).ok()?;
            let is_it = files
                .flatten()
                .any(|file| std::fs::read_link(file.path()).is_ok_and(|to| to == journal));
            is_it.then(|| process.file_name().unwrap().to_string_lossy().into_owned())
        });
        let found: Option<String> = { open }.next();
        if let Some(pid) = found {
            clock::sleep(Duration::from_millis(700)).await;
            return pid;
        }
    }
    panic!("nobody opened {}", journal.display());
}

/// A file system that only this shell and its children see, too small for a journal; later it has room.
const TOO_SMALL: &str = r#"
mkdir -p "$1"; mount -t tmpfs -o size="$3" none "$1" || exit 99
"$2" copy --bucket many --journal "$1/journal.sqlite"; echo "ended with $?"; ls -l "$1"
mount -o remount,size=50m "$1"
"$2" copy --bucket many --journal "$1/journal.sqlite"; echo "ended with $?"
"#;

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_journal_on_a_disk_that_fills_up_loses_nothing() {
    let lab = Lab::many("disk").await;
    let folder = lab.0.folder.join("small");
    let mut command = Command::new("unshare");
    command.args([
        "--map-root-user",
        "--mount",
        "bash",
        "-c",
        TOO_SMALL,
        "small",
    ]);
    command.arg(&folder);
    command.args([env!("CARGO_BIN_EXE_minio-migrate"), "200k"]);
    command.env("VEZA_STATE_DIR", lab.0.state());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr).into_owned();
    let (first, second) = said.split_once("ended with 5\n").expect(&complained);
    assert!(
        first.starts_with("INCONCLUSIVE journal-unwritable"),
        "{said}"
    );
    assert!(first.contains("full"), "{said}");
    let copied = |text: &str| {
        let line = text
            .lines()
            .find(|line| line.contains("versions that were copied"));
        let words = line.and_then(|line| line.split_whitespace().nth(1));
        words
            .and_then(|word| word.parse::<f64>().ok())
            .expect(&said)
    };
    let begun = copied(first);
    assert!(begun > 0.0 && begun < MANY_VERSIONS, "{said}");
    assert!(
        second.contains("PASS copied") && second.ends_with("ended with 0\n"),
        "{said}"
    );
    lab.is_whole();
}
