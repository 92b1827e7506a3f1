//! The tools that copy, each as its users would run it: same source, same node of the target, no login in an argument.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;
use veza_probe::command::Command;

/// How many transfers the peers may have at once that have to be told.
const AT_ONCE: &str = "32";

/// What copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tool {
    /// minio-migrate copy.
    Ours,
    /// minio-migrate: copy, then verify; the target through all of its nodes.
    OursVerified,
    /// mc mirror.
    Mc,
    /// rclone copy.
    Rclone,
    /// s3sync.
    S3sync,
    /// Writes from memory.
    Limit,
}

impl Tool {
    /// For tables.
    pub fn name(self) -> &'static str {
        match self {
            Tool::Ours => "minio-migrate copy",
            Tool::OursVerified => "minio-migrate, with verify",
            Tool::Mc => "mc mirror",
            Tool::Rclone => "rclone copy",
            Tool::S3sync => "s3sync",
            Tool::Limit => "writes from memory",
        }
    }

    /// Whether it is somebody else's.
    pub fn is_peer(self) -> bool {
        matches!(self, Tool::Mc | Tool::Rclone | Tool::S3sync)
    }
}

/// Where the tools are, and both stores.
pub struct Toolbox {
    /// minio-migrate in a release build.
    pub ours: PathBuf,
    /// Its example that writes from memory.
    pub puts: PathBuf,
    /// mc, as the lab has it.
    pub mc: Option<PathBuf>,
    /// rclone, where it is installed.
    pub rclone: Option<PathBuf>,
    /// s3sync, where it is installed.
    pub s3sync: Option<PathBuf>,
    /// What `lab env` says.
    pub env: Vec<(String, String)>,
    /// For journals, configurations and logs.
    pub folder: PathBuf,
}

/// One end of a copy.
struct End {
    url: String,
    access: String,
    secret: String,
}

impl End {
    /// As mc reads an alias from its environment: it decodes nothing.
    fn alias(&self) -> String {
        let host = self.url.trim_start_matches("http://");
        format!("http://{}:{}@{host}", self.access, self.secret)
    }
}

impl Toolbox {
    /// A variable of the lab.
    ///
    /// # Errors
    /// When the lab has none.
    pub fn value(&self, name: &str) -> anyhow::Result<&str> {
        let found = self.env.iter().find(|(known, _)| known == name);
        let found = found.with_context(|| format!("the lab has no {name}"))?;
        Ok(&found.1)
    }

    fn end(&self, side: &str, urls: &str) -> anyhow::Result<End> {
        let file = self.value(&format!("MINIO_{side}_SECRET_KEY_FILE"))?;
        let secret = std::fs::read_to_string(file).with_context(|| format!("reading {file}"))?;
        let url = self.value(urls)?.split(',').next().unwrap_or_default();
        Ok(End {
            url: url.to_owned(),
            access: self.value(&format!("MINIO_{side}_ACCESS_KEY"))?.to_owned(),
            secret: secret.trim().to_owned(),
        })
    }

    /// How a tool copies a bucket; none where it is not there. Ours keeps its journal in a file.
    ///
    /// # Errors
    /// When the lab lacks something.
    pub fn command(
        &self,
        tool: Tool,
        bucket: &str,
        journal: &Path,
    ) -> anyhow::Result<Option<Command>> {
        let source = self.end("SRC", "MINIO_SRC_ENDPOINT")?;
        let target = self.end("DST", "MINIO_DST_ENDPOINTS")?;
        let (from, to) = (format!("src/{bucket}"), format!("dst/{bucket}"));
        Ok(match tool {
            Tool::Ours => {
                Some(self.ours(&["copy", "--target-endpoint", &target.url], bucket, journal))
            }
            Tool::OursVerified => Some(self.ours(&[], bucket, journal)),
            Tool::Mc => self.mc.as_ref().map(|mc| {
                let mc = Command::new(mc).args(["--quiet", "mirror", &from, &to]);
                let mc = mc.env("MC_CONFIG_DIR", self.folder.join("mc"));
                mc.env("MC_HOST_src", source.alias())
                    .env("MC_HOST_dst", target.alias())
            }),
            Tool::Rclone => self.rclone.as_ref().map(|rclone| {
                let (from, to) = (format!("src:{bucket}"), format!("dst:{bucket}"));
                let flags = [
                    "copy",
                    "--config",
                    "/dev/null",
                    "--checksum",
                    "--s3-no-check-bucket",
                ];
                let rclone = Command::new(rclone).args(flags);
                let rclone =
                    rclone.args(["--transfers", AT_ONCE, "--checkers", AT_ONCE, &from, &to]);
                // Its transport can't take one, and nothing is encrypted here.
                let rclone = rclone.env_remove("AWS_CA_BUNDLE");
                remote(remote(rclone, "SRC", &source), "DST", &target)
            }),
            Tool::S3sync => self.s3sync.as_ref().map(|s3sync| {
                let url = format!("s3://{bucket}");
                // Otherwise it makes parts of its own size, and ends with an error since the ETags differ.
                let s3sync = Command::new(s3sync).args([
                    "--worker-size",
                    AT_ONCE,
                    "--auto-chunksize",
                    &url,
                    &url,
                ]);
                side(side(s3sync, "SOURCE", &source), "TARGET", &target)
            }),
            Tool::Limit => None,
        })
    }

    fn ours(&self, words: &[&str], bucket: &str, journal: &Path) -> Command {
        let command = Command::new(&self.ours).args(words);
        let command = command.args([
            "--quiet",
            "--format",
            "json",
            "--bucket",
            bucket,
            "--journal",
        ]);
        let env = self.env.iter();
        let command = command
            .arg(journal)
            .env("VEZA_STATE_DIR", self.folder.join("state"));
        env.fold(command, |command, (name, value)| command.env(name, value))
    }

    /// Writes as many objects of the same size, as many at once.
    pub fn limit(&self, bucket: &str, (count, size): (u32, u64), at_once: u64) -> Command {
        let numbers = [u64::from(count), size, at_once].map(|number| number.to_string());
        let command = Command::new(&self.puts).arg(bucket).args(numbers);
        let env = self.env.iter();
        env.fold(command, |command, (name, value)| command.env(name, value))
    }
}

/// A remote of rclone's, in its environment.
fn remote(command: Command, name: &str, end: &End) -> Command {
    let own = |key: &str| format!("RCLONE_CONFIG_{name}_{key}");
    command
        .env(own("TYPE"), "s3")
        .env(own("PROVIDER"), "Minio")
        .env(own("ENDPOINT"), &end.url)
        .env(own("ACCESS_KEY_ID"), &end.access)
        .env(own("SECRET_ACCESS_KEY"), &end.secret)
}

/// One side of s3sync's, in its environment.
fn side(command: Command, name: &str, end: &End) -> Command {
    command
        .env(format!("{name}_ACCESS_KEY"), &end.access)
        .env(format!("{name}_SECRET_ACCESS_KEY"), &end.secret)
        .env(format!("{name}_ENDPOINT_URL"), &end.url)
        .env(format!("{name}_REGION"), "us-east-1")
        .env(format!("{name}_FORCE_PATH_STYLE"), "true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_no_argument() {
        let folder = std::env::temp_dir().join(format!("xtask-tools-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let secret = folder.join("secret");
        std::fs::write(&secret, "hunter2/+\n").unwrap();
        let secret = secret.to_str().unwrap();
        let pairs = [
            ("MINIO_SRC_ENDPOINT", "http://198.18.0.35:9000"),
            (
                "MINIO_DST_ENDPOINTS",
                "http://198.18.0.31:9000,http://198.18.0.32:9000",
            ),
            ("MINIO_SRC_ACCESS_KEY", "a"),
            ("MINIO_DST_ACCESS_KEY", "b"),
            ("MINIO_SRC_SECRET_KEY_FILE", secret),
            ("MINIO_DST_SECRET_KEY_FILE", secret),
        ];
        let tools = Toolbox {
            ours: "ours".into(),
            puts: "puts".into(),
            mc: Some("mc".into()),
            rclone: Some("rclone".into()),
            s3sync: None,
            env: pairs
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
            folder: folder.clone(),
        };
        let journal = Path::new("j.sqlite");
        for tool in [Tool::Ours, Tool::OursVerified, Tool::Mc, Tool::Rclone] {
            let command = tools
                .command(tool, "bench-small", journal)
                .unwrap()
                .unwrap();
            let line = command.line();
            assert!(
                line.contains("bench-small") && !line.contains("hunter2"),
                "{line}"
            );
        }
        assert!(tools.command(Tool::S3sync, "b", journal).unwrap().is_none());
        let end = tools.end("SRC", "MINIO_SRC_ENDPOINT").unwrap();
        assert_eq!(end.alias(), "http://a:hunter2/+@198.18.0.35:9000");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
