//! `cargo xtask bench migrate`: what a copy from the single node to the cluster takes, side by side with other tools that can, in turns, each
//! into a fresh bucket; and how far writes from memory are ahead.

mod measured;
mod tools;
mod table;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Serialize;
use serde_json::Value;
use veza_probe::clock::{self, Clock, Stop};
use veza_probe::command::Command;
use veza_probe::incus::{Incus, socket_path};
use veza_probe::instance::InstanceName;
use veza_probe::story::Story;

use super::figure;
use crate::cargo::{self, Program, fresh_folder, workspace};
use crate::lab::cache;
use crate::lab::{self, Lab};
use measured::{Took, measured, serving};
use table::{Row, Summary};
use tools::{Tool, Toolbox};

/// The longest that one copy, and one script in the lab, may take.
const LIMIT: Duration = Duration::from_secs(1800);

/// How long MinIO is left to itself when it has removed a bucket, before the next copy.
const REST: Duration = Duration::from_secs(3);

/// MinIO moves what is removed to a folder, and empties that every five minutes (`delete_cleanup_interval`): until then drives are as full as
/// before. It is told to do so sooner, from the next time on.
const SOONER: &str = "minio-client admin config set veza api delete_cleanup_interval=2s >/dev/null";
const AS_BEFORE: &str =
    "minio-client admin config set veza api delete_cleanup_interval=5m >/dev/null";

/// Waits until it is empty; btrfs gives the room back with its next commit.
const EMPTIED: &str = "for _ in $(seq 1800); do [[ -n $(ls -A /data/.minio.sys/tmp/.trash 2>/dev/null) ]] || { sync -f /data; exit 0; }; sleep 0.2; done; \
                       echo 'what was removed is still on the drive after 360 s' >&2; exit 1";

/// What is measured, and how much of it.
#[derive(clap::Args)]
pub struct Args {
    /// How many rounds; each runs every tool once, in another order.
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// What is copied.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "small,medium,large,again,many"
    )]
    shapes: Vec<Shape>,
    /// How many of the objects of each shape, in percent: less, to try it.
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100))]
    percent: u32,
}

/// What is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Shape {
    /// 10,000 objects of 10 KiB.
    Small,
    /// 2,000 objects of 1 MiB.
    Medium,
    /// 8 objects of 64 MiB, in parts.
    Large,
    /// 20,000 objects of 1 KiB that are on the target already.
    Again,
    /// 10,000 and 1,000,000 objects of 100 bytes between two stores on loopback that keep nothing: memory.
    Many,
}

impl Shape {
    fn bucket(self) -> String {
        format!("bench-{}", format!("{self:?}").to_lowercase())
    }

    /// How many objects, and of how many bytes.
    fn objects(self, percent: u32) -> (u32, u64) {
        let (count, size) = match self {
            Shape::Small => (10_000, 10 << 10),
            Shape::Medium => (2_000, 1 << 20),
            Shape::Large => (8, 64 << 20),
            Shape::Again => (20_000, 1 << 10),
            Shape::Many => (1_000_000, 100),
        };
        ((count * percent / 100).max(1), size)
    }

    fn tools(self) -> &'static [Tool] {
        match self {
            Shape::Small | Shape::Medium => &[
                Tool::Ours,
                Tool::Mc,
                Tool::Rclone,
                Tool::S3sync,
                Tool::OursVerified,
                Tool::Limit,
            ],
            Shape::Large => &[
                Tool::Ours,
                Tool::Mc,
                Tool::Rclone,
                Tool::S3sync,
                Tool::OursVerified,
            ],
            Shape::Again => &[Tool::Ours, Tool::Mc, Tool::Rclone, Tool::S3sync],
            Shape::Many => &[],
        }
    }
}

/// Measures, prints the tables, and writes `bench/migrate.json`.
///
/// # Errors
/// When it can't be measured or written.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (clock, story) = (Clock::start(), Story::new(false));
    let groups = ["minio", "minio-single"].map(str::to_owned);
    let lab = lab::ensure_up(&groups, &story, true).await?;
    let bench = Bench::new(&lab, clock).await?;
    bench.inside("minio-1", SOONER).await?;
    let summary = bench.shapes(&args, &story).await;
    story.end();
    bench.inside("minio-1", AS_BEFORE).await?;
    let mut summary = summary?;
    summary.judge();
    table::tell(&summary)?;
    let path = workspace()?.join("bench/migrate.json");
    let text = serde_json::to_string_pretty(&summary)? + "\n";
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(ExitCode::from(u8::from(!summary.kept())))
}

struct Bench {
    incus: Incus,
    tools: Toolbox,
    stub: PathBuf,
    folder: PathBuf,
}

impl Bench {
    async fn new(lab: &Lab, clock: Clock) -> anyhow::Result<Bench> {
        let folder = fresh_folder("bench", clock)?;
        let stop = Stop::listen()?;
        let all = ["build", "--release", "--workspace"];
        let binary = [&all[..], &["--bin", "minio-migrate"]].concat();
        let examples = [&all[..], &["--example", "puts", "--example", "stub"]].concat();
        let mut programs = cargo::build(&binary, &stop).await?;
        programs.extend(cargo::build(&examples, &stop).await?);
        let built = |name: &str| {
            let is_it = |program: &&Program| program.target == name;
            let found = programs
                .iter()
                .find(is_it)
                .map(|program| program.path.clone());
            found.with_context(|| format!("cargo built no {name}"))
        };
        let env = lab.env();
        let project = env.iter().find(|(name, _)| name == "VEZA_INCUS_PROJECT");
        let project = &project.context("the lab has no VEZA_INCUS_PROJECT")?.1;
        let socket = socket_path(|name| std::env::var_os(name));
        let (incus, _) = Incus::connect(&socket, project).await?;
        let mc = folder.join("minio-client");
        let pull = [
            "--project",
            project,
            "file",
            "pull",
            "minio-1/usr/bin/minio-client",
        ];
        Command::new("incus").args(pull).arg(&mc).run(LIMIT).await?;
        let cached = cache(|name| std::env::var_os(name))?.join("bench/s3sync/bin/s3sync");
        let tools = Toolbox {
            ours: built("minio-migrate")?,
            puts: built("puts")?,
            mc: Some(mc),
            rclone: which::which("rclone").ok(),
            s3sync: Some(cached)
                .filter(|path| path.exists())
                .or(which::which("s3sync").ok()),
            env,
            folder: folder.clone(),
        };
        let stub = built("stub")?;
        Ok(Bench {
            incus,
            tools,
            stub,
            folder,
        })
    }

    /// What is not measured, and how it would be.
    fn absent(&self) -> Vec<String> {
        let absent = [
            (&self.tools.rclone, "rclone: apt-get install rclone"),
            (
                &self.tools.s3sync,
                "s3sync: cargo install s3sync --locked --root ~/.cache/veza/bench/s3sync",
            ),
        ];
        let absent = absent.iter().filter(|(tool, _)| tool.is_none());
        absent.map(|(_, how)| (*how).to_owned()).collect()
    }

    async fn shapes(&self, args: &Args, story: &Story) -> anyhow::Result<Summary> {
        let mut summary = Summary::new(args.rounds, args.percent, self.absent());
        for shape in &args.shapes {
            match shape {
                Shape::Many => summary.many = self.many(args.percent, story).await?,
                shape => summary.rows.extend(self.shape(*shape, args, story).await?),
            }
        }
        Ok(summary)
    }

    /// Every tool in each round.
    async fn shape(&self, shape: Shape, args: &Args, story: &Story) -> anyhow::Result<Vec<Row>> {
        let (count, size) = shape.objects(args.percent);
        let bucket = shape.bucket();
        story.say(&format!(
            "{bucket}: {count} objects of {size} B on the source"
        ));
        self.inside("minio-old", &source(&bucket, count, size))
            .await?;
        let journal = self.folder.join(format!("{bucket}.sqlite"));
        if shape == Shape::Again {
            self.fresh(&bucket).await?;
            let fill = self.tools.command(Tool::Ours, &bucket, &journal)?;
            self.take(fill.context("ours is there")?).await?;
        }
        let mut taken = BTreeMap::<Tool, Vec<Took>>::new();
        let mut at_once = 1.0;
        for round in 1..=args.rounds {
            // In another order each time, but the limit, which wants to know how many ours had at once.
            let mut tools = shape.tools().to_vec();
            let movable = tools.iter().filter(|tool| **tool != Tool::Limit).count();
            if let Some(movable) = tools.get_mut(..movable) {
                movable.rotate_left((round as usize - 1) % movable.len().max(1));
            }
            for tool in tools {
                story.doing(&format!(
                    "{bucket}: round {round} of {}: {}",
                    args.rounds,
                    tool.name()
                ));
                if shape != Shape::Again {
                    self.fresh(&bucket).await?;
                }
                let journal = match shape {
                    Shape::Again => journal.clone(),
                    _ => self
                        .folder
                        .join(format!("{bucket}-{round}-{tool:?}.sqlite")),
                };
                let command = match tool {
                    Tool::Limit => Some(self.tools.limit(&bucket, (count, size), at_once as u64)),
                    tool => self.tools.command(tool, &bucket, &journal)?,
                };
                let Some(command) = command else { continue };
                let (took, said) = self.take(command).await?;
                if tool == Tool::Ours && shape != Shape::Again {
                    at_once = figure(&serde_json::from_str::<Value>(&said)?, "at-once")?;
                }
                self.all_there(&bucket, count, tool).await?;
                story.say(&table::line(&bucket, tool, took));
                taken.entry(tool).or_default().push(took);
            }
        }
        let row = |(tool, runs)| Row {
            shape,
            tool,
            count,
            size,
            at_once,
            runs,
        };
        Ok(taken.into_iter().map(row).collect())
    }

    async fn take(&self, command: Command) -> anyhow::Result<(Took, String)> {
        measured(command, &self.folder.join("stderr"), LIMIT).await
    }

    /// An empty bucket on the target.
    async fn fresh(&self, bucket: &str) -> anyhow::Result<()> {
        let script = format!(
            "minio-client rb --force --dangerous veza/{bucket} >/dev/null 2>&1; minio-client mb veza/{bucket} >/dev/null"
        );
        self.inside("minio-1", &script).await?;
        for node in 1..=4 {
            self.inside(&format!("minio-{node}"), EMPTIED).await?;
        }
        clock::sleep(REST).await;
        Ok(())
    }

    async fn all_there(&self, bucket: &str, count: u32, tool: Tool) -> anyhow::Result<()> {
        let script = format!("minio-client ls --recursive veza/{bucket} | wc -l");
        let there = self.inside("minio-1", &script).await?;
        let name = tool.name();
        ensure!(
            there.trim() == count.to_string(),
            "after {name} there are {} objects, not {count}",
            there.trim()
        );
        Ok(())
    }

    /// As MinIO's root in an instance.
    async fn inside(&self, instance: &str, script: &str) -> anyhow::Result<String> {
        let script = format!(
            "set -o pipefail -a; . /etc/veza/admin.env; MC_CONFIG_DIR=/run/veza-bench; {script}"
        );
        let name = InstanceName::new(instance)?;
        let argv = ["bash", "-c", &script];
        let done = self.incus.exec(&name, &argv, LIMIT).await?;
        ensure!(done.code == 0, "{instance}: {script}: {}", done.stderr);
        Ok(done.stdout)
    }

    /// A copy of few, and one of very many.
    async fn many(&self, percent: u32, story: &Story) -> anyhow::Result<Vec<(u32, Took)>> {
        let (most, _) = Shape::Many.objects(percent);
        let mut taken = Vec::new();
        for count in [most / 100, most] {
            story.doing(&format!("{count} objects between stores on loopback"));
            let file = self.folder.join(format!("stub-{count}"));
            let stub = Command::new(&self.stub).arg(count.to_string()).arg(&file);
            let mut stub = serving(stub)?;
            let took = self.between(&file, count).await;
            stub.kill().await?;
            let took = took?;
            story.say(&table::line(&format!("{count} objects"), Tool::Ours, took));
            taken.push((count, took));
        }
        Ok(taken)
    }

    async fn between(&self, file: &Path, count: u32) -> anyhow::Result<Took> {
        let urls = clock::within(Duration::from_secs(10), async {
            loop {
                let text = std::fs::read_to_string(file).unwrap_or_default();
                if let Some((source, target)) = text.split_once(' ') {
                    return (source.to_owned(), target.to_owned());
                }
                clock::sleep(Duration::from_millis(20)).await;
            }
        });
        let (source, target) = urls.await.ok().context("the stub does not serve")?;
        let journal = self.folder.join(format!("many-{count}.sqlite"));
        let command = Command::new(&self.tools.ours)
            .args([
                "copy",
                "--quiet",
                "--format",
                "json",
                "--versions",
                "latest",
                "--journal",
            ])
            .arg(&journal)
            .args(["--source-endpoint", &source, "--target-endpoint", &target])
            .env("VEZA_STATE_DIR", self.folder.join("state"));
        let login = [
            "SRC_ACCESS_KEY",
            "SRC_SECRET_KEY",
            "DST_ACCESS_KEY",
            "DST_SECRET_KEY",
        ];
        let command = login.iter().fold(command, |command, name| {
            command.env(format!("MINIO_{name}"), "nobody-asks")
        });
        let (took, said) = self.take(command).await?;
        let copied = figure(&serde_json::from_str(&said)?, "versions")?;
        ensure!(
            copied == f64::from(count),
            "{copied} of {count} were copied"
        );
        Ok(took)
    }
}

/// Makes a bucket of the source with so many objects of random bytes, where it has not as many.
fn source(bucket: &str, count: u32, size: u64) -> String {
    format!(
        "there=$(minio-client ls --recursive veza/{bucket} 2>/dev/null | wc -l); [[ $there == {count} ]] && exit 0; \
         minio-client rb --force --dangerous veza/{bucket} >/dev/null 2>&1; minio-client mb veza/{bucket} >/dev/null; \
         rm -rf /var/tmp/bench; mkdir /var/tmp/bench; cd /var/tmp/bench; \
         head -c $(({count} * {size})) /dev/urandom | split -b {size} -a 7 -d - o; \
         minio-client --quiet mirror /var/tmp/bench veza/{bucket} >/dev/null; cd /; rm -rf /var/tmp/bench"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_a_shape_has_objects_of_the_same_size() {
        assert_eq!(Shape::Small.objects(100), (10_000, 10_240));
        assert_eq!(Shape::Small.objects(10), (1_000, 10_240));
        assert_eq!(Shape::Large.objects(1), (1, 64 << 20));
        assert_eq!(Shape::Again.bucket(), "bench-again");
    }
}
