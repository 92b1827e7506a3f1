//! The place that pgbench runs in: this host or an instance. What is done there is done the same way in
//! both: a folder, a script, and a lease.
//!
//! pgbench must not outlive this tool, however that ends, and an instance knows nothing of its death. So
//! a guard beside pgbench looks at a file that is touched each second: when that has not been done for
//! [`LEASE_S`] seconds, the guard ends pgbench and removes the folder.

use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FallocateFlags;
use veza_probe::command::Command;
use veza_probe::incus::{FileKind, Incus};
use veza_probe::instance::InstanceName;

/// For how long pgbench may run unattended.
pub const LEASE_S: u32 = 10;

/// How long one small thing may take in an instance while it is under load.
const LIMIT: Duration = Duration::from_secs(30);

/// How much of one file is taken at once.
const CHUNK: u64 = 4 << 20;

/// Where pgbench is.
#[derive(Clone, Debug)]
pub enum Place {
    /// On this host.
    Host {
        /// Its path.
        pgbench: PathBuf,
    },
    /// In an instance.
    Instance {
        /// The instance's Incus.
        incus: Incus,
        /// The instance.
        name: InstanceName,
    },
}

/// What a small script left behind.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code.
    pub code: i64,
    /// Its output.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

/// What is new since the last look.
#[derive(Debug, Default)]
pub struct News {
    /// The exit code, once pgbench has ended.
    pub ended: Option<i32>,
    /// Lines of the transaction log, a piece for each thread.
    pub logs: Vec<(String, Vec<u8>)>,
    /// Of its standard error.
    pub stderr: Vec<u8>,
}

impl News {
    /// Whether there was anything at all.
    pub fn is_empty(&self) -> bool {
        self.logs.is_empty() && self.stderr.is_empty()
    }
}

/// Runs pgbench beside a guard, in the folder $1, with a lease of $2 seconds; the rest is its command.
const RUN: &str = r#"
cd "$1" || exit 1
lease=$2; folder=$1; shift 2
. ./env
"$@" >out 2>err </dev/null & p=$!
echo $p >pid
(
  while [ -e lease ]; do
    touched=$(stat -c %Y lease 2>/dev/null) || exit 0
    if [ $(( $(date +%s) - touched )) -gt $lease ]; then
      [ -e rc ] || kill -KILL $p 2>/dev/null
      cd /
      # The exit code is just being written: a folder that gains a file is not removed at the first try.
      for try in 1 2 3 4 5; do
        rm -rf "$folder" && [ ! -e "$folder" ] && exit 0
        sleep 1
      done
      exit 0
    fi
    sleep 1
  done
) >/dev/null 2>&1 </dev/null &
wait $p
echo $? >rc.new && mv rc.new rc
"#;

/// Tells what is new in the folder $1, and keeps for itself how far it came.
const LOOK: &str = r#"
cd "$1" || exit 9
touch lease
[ -e rc ] && echo "rc $(cat rc)"
for f in tx.* err; do
  [ -e "$f" ] || continue
  from=$(cat "seen.$f" 2>/dev/null || echo 0); to=$(stat -c %s "$f")
  [ $to -gt $(( from + $2 )) ] && to=$(( from + $2 ))
  [ $to -gt $from ] || continue
  echo "data $f $(( to - from ))"
  tail -c +$(( from + 1 )) "$f" | head -c $(( to - from )); echo
  echo $to >"seen.$f"
  case $f in tx.*) fallocate -p -o 0 -l $to "$f" 2>/dev/null;; esac
done
exit 0
"#;

/// Ends what still runs in the folder $1, and removes it.
const END: &str = r#"
cd "$1" 2>/dev/null || exit 0
[ -e rc ] || kill -KILL "$(cat pid)" 2>/dev/null
rm -f lease; cd /; rm -rf "$1"
[ ! -e "$1" ]
"#;

impl Place {
    /// Where it is, in words.
    pub fn told(&self) -> String {
        match self {
            Place::Host { pgbench } => format!("this host, {}", pgbench.display()),
            Place::Instance { name, .. } => format!("instance {name}"),
        }
    }

    /// The program as it is called there.
    pub fn pgbench(&self) -> String {
        match self {
            Place::Host { pgbench } => pgbench.display().to_string(),
            Place::Instance { .. } => "pgbench".to_owned(),
        }
    }

    /// Runs a script of the shell's there, whatever its exit code.
    ///
    /// # Errors
    /// A sentence, when it could not be run.
    pub async fn sh(&self, script: &str, args: &[&str]) -> Result<Ran, String> {
        self.sh_within(script, args, LIMIT).await
    }

    /// As [`Place::sh`], under a limit.
    ///
    /// # Errors
    /// As [`Place::sh`].
    pub async fn sh_within(
        &self,
        script: &str,
        args: &[&str],
        limit: Duration,
    ) -> Result<Ran, String> {
        let mut argv = vec!["sh", "-c", script, "sh"];
        argv.extend_from_slice(args);
        match self {
            Place::Host { .. } => {
                let command = Command::new("sh").args(argv.iter().skip(1));
                let output = command.output(limit).await.map_err(|e| e.to_string())?;
                Ok(Ran {
                    code: output.status.code().unwrap_or(-1).into(),
                    stdout: output.stdout,
                    stderr: output.stderr,
                })
            }
            Place::Instance { incus, name } => {
                let output = incus.exec(name, &argv, limit).await;
                let output = output.map_err(|e| format!("running sh in {name}: {e}"))?;
                Ok(Ran {
                    code: output.code,
                    stdout: output.stdout,
                    stderr: output.stderr,
                })
            }
        }
    }

    /// A folder of this run's own there, for its user alone, with these files.
    ///
    /// # Errors
    /// A sentence, with the path.
    pub async fn folder(&self, run: &str, files: &[(&str, Vec<u8>)]) -> Result<String, String> {
        match self {
            Place::Host { .. } => {
                let folder = std::env::temp_dir().join(format!("pgbouncer-load-{run}"));
                let told = |e: std::io::Error| format!("{}: {e}", folder.display());
                let made = std::fs::DirBuilder::new().mode(0o700).create(&folder);
                made.map_err(told)?;
                for (name, content) in files {
                    write_private(&folder.join(name), content).map_err(told)?;
                }
                Ok(folder.display().to_string())
            }
            Place::Instance { incus, name } => {
                let folder = format!("/var/tmp/pgbouncer-load-{run}");
                let told = |e: veza_probe::incus::Error| e.to_string();
                let mode = (0, 0, 0o700);
                let made = incus
                    .write_file(name, &folder, FileKind::Folder, mode)
                    .await;
                made.map_err(told)?;
                for (file, content) in files {
                    let path = format!("{folder}/{file}");
                    let kind = FileKind::File(content.clone());
                    let written = incus.write_file(name, &path, kind, (0, 0, 0o600)).await;
                    written.map_err(told)?;
                }
                Ok(folder)
            }
        }
    }

    /// Starts pgbench in a folder, under the guard's eyes.
    ///
    /// # Errors
    /// A sentence, when it could not be started.
    pub async fn start(&self, folder: &str, command: &[String]) -> Result<Running, String> {
        let lease = LEASE_S.to_string();
        let rest = command.iter().map(String::as_str);
        let args: Vec<&str> = [folder, lease.as_str()].into_iter().chain(rest).collect();
        let process = match self {
            Place::Host { .. } => {
                let command = Command::new("sh").args(["-c", RUN, "sh"]).args(&args);
                // It is told by its files that it has ended; a limit would only be a second lease.
                let limit = Duration::from_secs(7 * 86_400);
                Some(tokio::spawn(async move {
                    let _ = command.output(limit).await;
                }))
            }
            Place::Instance { .. } => {
                let detached = format!(
                    "setsid sh -c '{}' sh \"$@\" >/dev/null 2>&1 </dev/null &",
                    RUN.replace('\'', "'\\''")
                );
                let ran = self.sh(&detached, &args).await?;
                if ran.code != 0 {
                    return Err(format!(
                        "starting pgbench in {}: {}",
                        self.told(),
                        ran.stderr
                    ));
                }
                None
            }
        };
        Ok(Running {
            place: self.clone(),
            folder: folder.to_owned(),
            process,
            seen: Vec::new(),
        })
    }

    /// Ends what still runs in a folder, and removes it.
    ///
    /// # Errors
    /// A sentence that says what may be left.
    pub async fn end(&self, folder: &str) -> Result<(), String> {
        let left = |words: String| {
            format!(
                "{folder} in {} may be left, with pgbench in it: {words}",
                self.told()
            )
        };
        let mut last = String::new();
        // What is just being written may keep a folder from being removed.
        for _ in 0..3 {
            match self.sh(END, &[folder]).await {
                Ok(ran) if ran.code == 0 => return Ok(()),
                Ok(ran) => last = ran.stderr,
                Err(words) => last = words,
            }
        }
        Err(left(last))
    }
}

fn write_private(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    std::io::Write::write_all(&mut file, content)
}

/// pgbench under way. Dropped, it is ended on this host at once, and in an instance by its guard.
#[derive(Debug)]
pub struct Running {
    place: Place,
    folder: String,
    process: Option<tokio::task::JoinHandle<()>>,
    /// How far each file was read, on this host.
    seen: Vec<(String, u64)>,
}

impl Running {
    /// What is new; also renews the lease.
    ///
    /// # Errors
    /// A sentence, when nothing could be read.
    pub async fn look(&mut self) -> Result<News, String> {
        match self.place {
            Place::Host { .. } => self
                .look_here()
                .map_err(|e| format!("{}: {e}", self.folder)),
            Place::Instance { .. } => {
                let chunk = CHUNK.to_string();
                let ran = self.place.sh(LOOK, &[&self.folder, &chunk]).await?;
                match ran.code {
                    0 => Ok(parse_look(ran.stdout.as_bytes())),
                    code => Err(format!(
                        "looking at {}: {code}: {}",
                        self.folder, ran.stderr
                    )),
                }
            }
        }
    }

    /// What pgbench printed.
    ///
    /// # Errors
    /// A sentence, when it can't be read.
    pub async fn printed(&self) -> Result<String, String> {
        let ran = self.place.sh("cat \"$1/out\"", &[&self.folder]).await?;
        Ok(ran.stdout)
    }

    /// Ends it and removes its folder.
    ///
    /// # Errors
    /// A sentence that says what may be left.
    pub async fn end(mut self) -> Result<(), String> {
        if let Some(process) = self.process.take() {
            process.abort();
            let _ = process.await;
        }
        self.place.end(&self.folder).await
    }

    fn look_here(&mut self) -> std::io::Result<News> {
        let folder = PathBuf::from(&self.folder);
        std::fs::write(folder.join("lease"), "")?;
        let mut news = News::default();
        // First, so that what was written until then is read below.
        if let Ok(text) = std::fs::read_to_string(folder.join("rc")) {
            news.ended = text.trim().parse().ok();
        }
        for entry in std::fs::read_dir(&folder)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name == "err" {
                news.stderr = self.new_of(&folder, &name)?;
            } else if name.starts_with("tx.") {
                let piece = self.new_of(&folder, &name)?;
                if !piece.is_empty() {
                    news.logs.push((name, piece));
                }
            }
        }
        Ok(news)
    }

    /// What is new in a file; of a log, what was read is given back to the disk.
    fn new_of(&mut self, folder: &Path, name: &str) -> std::io::Result<Vec<u8>> {
        use std::io::{Read, Seek, SeekFrom};
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.read(true).write(true).open(folder.join(name))?;
        let known = self.seen.iter_mut().find(|(seen, _)| seen == name);
        let from = known.as_ref().map_or(0, |(_, from)| *from);
        file.seek(SeekFrom::Start(from))?;
        let mut piece = Vec::new();
        (&file).take(CHUNK).read_to_end(&mut piece)?;
        let to = from + piece.len() as u64;
        match known {
            Some((_, seen)) => *seen = to,
            None => self.seen.push((name.to_owned(), to)),
        }
        if name != "err" && to > from {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            // A file system that can't do it only needs more room.
            let _ = rustix::fs::fallocate(&file, flags, 0, to);
        }
        Ok(piece)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(process) = &self.process {
            process.abort();
        }
    }
}

/// Reads what [`LOOK`] told.
fn parse_look(mut text: &[u8]) -> News {
    let mut news = News::default();
    while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
        let (line, rest) = text.split_at(end);
        text = rest.get(1..).unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["rc", code] => news.ended = code.parse().ok(),
            ["data", name, size] => {
                let size = size.parse().unwrap_or(0).min(text.len());
                let (piece, rest) = text.split_at(size);
                text = rest;
                match *name {
                    "err" => news.stderr = piece.to_vec(),
                    _ => news.logs.push(((*name).to_owned(), piece.to_vec())),
                }
            }
            _ => {}
        }
    }
    news
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_read_back() {
        let text = b"rc 2\ndata tx.7 6\n0 1 2\n\ndata tx.7.1 3\na b\ndata err 5\nx\ny\n\n\n";
        let news = parse_look(text);
        assert_eq!(news.ended, Some(2));
        assert_eq!(news.logs[0], ("tx.7".to_owned(), b"0 1 2\n".to_vec()));
        assert_eq!(news.logs[1], ("tx.7.1".to_owned(), b"a b".to_vec()));
        assert_eq!(news.stderr, b"x\ny\n\n");
        assert!(parse_look(b"data tx.1 999\nshort").logs[0].1 == b"short");
    }

    #[tokio::test]
    async fn a_program_runs_in_its_folder_is_looked_at_and_leaves_nothing() {
        let place = Place::Host {
            pgbench: "sh".into(),
        };
        let files: [(&str, Vec<u8>); 2] = [
            ("env", b"export WORD=hello\n".to_vec()),
            ("lease", Vec::new()),
        ];
        let folder = place
            .folder(&format!("test-{}", std::process::id()), &files)
            .await
            .unwrap();
        let script = "echo $WORD; echo oops >&2; printf '0 1 2 0 3 4\\n' >tx.1; exit 3";
        let command: Vec<String> = ["sh", "-c", script].map(str::to_owned).into();
        let mut running = place.start(&folder, &command).await.unwrap();
        let (mut stderr, mut log, mut ended) = (Vec::new(), Vec::new(), None);
        while ended.is_none() {
            let news = running.look().await.unwrap();
            ended = news.ended;
            stderr.extend(news.stderr);
            log.extend(news.logs.into_iter().flat_map(|(_, piece)| piece));
            veza_probe::clock::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!((ended, stderr.as_slice()), (Some(3), &b"oops\n"[..]));
        assert_eq!(log, b"0 1 2 0 3 4\n");
        assert_eq!(running.printed().await.unwrap(), "hello\n");
        running.end().await.unwrap();
        assert!(!Path::new(&folder).exists());
    }

    #[tokio::test]
    async fn what_is_no_longer_attended_ends_and_its_folder_goes() {
        let place = Place::Host {
            pgbench: "sh".into(),
        };
        let files: [(&str, Vec<u8>); 2] = [("env", Vec::new()), ("lease", Vec::new())];
        let run = format!("lease-{}", std::process::id());
        let folder = place.folder(&run, &files).await.unwrap();
        // A lease of an hour ago; started without this tool, as if that had been killed.
        let script = format!("touch -d '1 hour ago' {folder}/lease; {RUN}");
        let ran = Command::new("sh")
            .args(["-c", &script, "sh", &folder, "1", "sleep", "600"])
            .output(Duration::from_secs(60));
        let output = ran.await.unwrap();
        assert!(output.status.code().is_some());
        // The guard, not the shell that was waited for, removes the folder; it may be a moment later.
        let gone = async {
            while Path::new(&folder).exists() {
                veza_probe::clock::sleep(Duration::from_millis(20)).await;
            }
        };
        let gone = veza_probe::clock::within(Duration::from_secs(20), gone).await;
        assert!(gone.is_ok(), "{folder} is there: {}", output.stderr);
    }
}
