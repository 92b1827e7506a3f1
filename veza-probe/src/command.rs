//! The only module that starts processes: one program, under a limit, its whole process group ended
//! when the limit passes or the future is dropped.
#![expect(
    clippy::disallowed_methods,
    reason = "this is the module that the bans point to"
)]

use std::ffi::{OsStr, OsString};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_setfd};
use tokio::io::AsyncReadExt;

use crate::clock::{self, Signal, Stop};

/// One program to run. Built up, then [`Command::run`] or [`Command::output`].
#[derive(Debug)]
pub struct Command {
    program: OsString,
    args: Vec<OsString>,
    envs: Vec<(OsString, Option<OsString>)>,
    folder: Option<PathBuf>,
    log: Option<std::fs::File>,
}

/// What a program left behind.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output; invalid UTF-8 replaced.
    pub stdout: String,
    /// Its standard error; invalid UTF-8 replaced.
    pub stderr: String,
}

/// Why a program gave no good end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be started.
    #[error("{program} could not be started: {source}")]
    Start {
        /// The program.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The limit passed; its process group was killed.
    #[error("{line} was still running after {:.0} s and was killed", limit.as_secs_f64())]
    Limit {
        /// The whole command line.
        line: String,
        /// The limit.
        limit: Duration,
    },
    /// It ended badly.
    #[error("{line} ended with {status}: {}", tail(stderr))]
    Status {
        /// The whole command line.
        line: String,
        /// How it ended.
        status: ExitStatus,
        /// Its standard error.
        stderr: String,
    },
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    match lines.split_at_checked(lines.len().saturating_sub(8)) {
        Some((_, last)) if !last.is_empty() => last.join("\n  "),
        _ => "it said nothing".to_owned(),
    }
}

impl Command {
    /// A program by name or path, without arguments, with an empty standard input.
    pub fn new(program: impl AsRef<OsStr>) -> Command {
        Command {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            envs: Vec::new(),
            folder: None,
            log: None,
        }
    }

    /// Adds one argument. Secrets never go here.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Command {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds several arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Command {
        self.args
            .extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Command {
        self.envs
            .push((name.as_ref().to_owned(), Some(value.as_ref().to_owned())));
        self
    }

    /// Takes a variable out of its environment.
    #[must_use]
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Command {
        self.envs.push((name.as_ref().to_owned(), None));
        self
    }

    /// Runs it in a folder.
    #[must_use]
    pub fn folder(mut self, folder: impl AsRef<Path>) -> Command {
        self.folder = Some(folder.as_ref().to_owned());
        self
    }

    /// Sends both of its outputs to a file instead of collecting them.
    #[must_use]
    pub fn log(mut self, file: std::fs::File) -> Command {
        self.log = Some(file);
        self
    }

    /// The command line, for messages.
    pub fn line(&self) -> String {
        let words = std::iter::once(&self.program).chain(&self.args);
        words
            .map(|w| w.to_string_lossy())
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// Runs it and demands success.
    ///
    /// # Errors
    /// [`Error`], with the last lines of its standard error.
    pub async fn run(self, limit: Duration) -> Result<Output, Error> {
        let line = self.line();
        let output = self.output(limit).await?;
        if output.status.success() {
            return Ok(output);
        }
        Err(Error::Status {
            line,
            status: output.status,
            stderr: output.stderr,
        })
    }

    /// Runs it, whatever its exit status.
    ///
    /// # Errors
    /// [`Error::Start`] and [`Error::Limit`] only.
    pub async fn output(self, limit: Duration) -> Result<Output, Error> {
        let line = self.line();
        let start = |source| Error::Start {
            program: line.clone(),
            source,
        };
        let mut child = self.prepared(true).map_err(start)?.spawn().map_err(start)?;
        // `Group` kills the group when this future is dropped, too.
        let group = Group(child.id());
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let read = async {
            tokio::join!(drain(stdout, &mut out), drain(stderr, &mut err));
            child.wait().await
        };
        let status = match clock::within(limit, read).await {
            Ok(status) => status.map_err(start)?,
            Err(_) => return Err(Error::Limit { line, limit }),
        };
        group.gone();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Output {
            status,
            stdout: text(out),
            stderr: text(err),
        })
    }

    /// Runs it with our own standard outputs and without a limit, for a program that must come to
    /// its end by itself, as it may be healing what it broke: each signal that `stop` hears is
    /// passed on to its process group (a further one as the first, which is what [`Stop`] keeps),
    /// and it is never killed, not even when this future is dropped. With [`Command::log`], its
    /// outputs go there.
    ///
    /// # Errors
    /// [`Error::Start`] only.
    pub async fn attended(self, mut stop: Stop) -> Result<ExitStatus, Error> {
        let line = self.line();
        let start = |source| Error::Start {
            program: line.clone(),
            source,
        };
        let logged = self.log.is_some();
        let mut command = self.prepared(false).map_err(start)?;
        if !logged {
            command.stdout(Stdio::inherit()).stderr(Stdio::inherit());
        }
        let mut child = command.spawn().map_err(start)?;
        let group = child.id();
        let signal = tokio::select! {
            status = child.wait() => return status.map_err(start),
            signal = stop.wait() => signal,
        };
        loop {
            pass_on(signal, group);
            tokio::select! {
                status = child.wait() => return status.map_err(start),
                () = stop.again() => {}
            }
        }
    }

    /// Starts it in a session of its own and lets it outlive us (a daemon, its output to the log
    /// given by [`Command::log`]). Returns its process id.
    ///
    /// # Errors
    /// [`Error::Start`].
    pub fn leave(self) -> Result<u32, Error> {
        let line = self.line();
        let start = |source| Error::Start {
            program: line.clone(),
            source,
        };
        let mut child = self.prepared(false).map_err(start)?;
        Ok(child.spawn().map_err(start)?.id().unwrap_or(0))
    }

    /// Becomes it: same process, same standard files, its environment with what was added. Returns only
    /// when that failed. `name` is what it is called in the process list.
    pub fn replace(self, name: Option<&OsString>) -> Error {
        use std::os::unix::process::CommandExt;
        let program = self.line();
        let mut command = std::process::Command::new(&self.program);
        if let Some(name) = name {
            command.arg0(name);
        }
        command.args(&self.args);
        for (name, value) in &self.envs {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let source = command.exec();
        Error::Start { program, source }
    }

    /// Starts it beside us for a talk over its standard input and output, with some of our files open
    /// in it, too (a lock is held until the last of its holders is gone). It stays in our process
    /// group until it leaves it by itself, and is not ended with us.
    ///
    /// # Errors
    /// [`Error::Start`].
    pub fn beside(self, files: &[BorrowedFd<'_>]) -> Result<tokio::process::Child, Error> {
        let line = self.line();
        let start = |source| Error::Start {
            program: line.clone(),
            source,
        };
        let mut command = self.prepared(false).map_err(start)?;
        // A new group would make it the group's leader, which can't open a session of its own.
        command
            .process_group(own_group())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        // Inherited only by what is started in this moment; nothing else is, before a fault.
        let inherit = |flags| {
            let each = files.iter().map(|file| fcntl_setfd(file, flags));
            each.collect::<Result<(), _>>()
        };
        inherit(FdFlags::empty()).map_err(|errno| start(errno.into()))?;
        let child = command.spawn().map_err(start);
        inherit(FdFlags::CLOEXEC).map_err(|errno| start(errno.into()))?;
        child
    }

    fn prepared(self, collect: bool) -> std::io::Result<tokio::process::Command> {
        let mut command = tokio::process::Command::new(&self.program);
        command
            .args(&self.args)
            .stdin(Stdio::null())
            .process_group(0);
        for (name, value) in &self.envs {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        match self.log {
            Some(file) => {
                command.stdout(file.try_clone()?).stderr(file);
            }
            None if collect => {
                command.stdout(Stdio::piped()).stderr(Stdio::piped());
            }
            None => {
                command.stdout(Stdio::null()).stderr(Stdio::null());
            }
        }
        Ok(command)
    }
}

async fn drain(pipe: Option<impl AsyncReadExt + Unpin>, into: &mut Vec<u8>) {
    if let Some(mut pipe) = pipe {
        let _ = pipe.read_to_end(into).await;
    }
}

/// Sends a signal to the process group that a child leads; the child is not reaped yet, so its
/// number is still its own.
fn pass_on(signal: Signal, group: Option<u32>) {
    let number = match signal {
        Signal::Hangup => rustix::process::Signal::HUP,
        Signal::Interrupt => rustix::process::Signal::INT,
        Signal::Terminate => rustix::process::Signal::TERM,
    };
    if let Some(group) = group_id(group) {
        let _ = rustix::process::kill_process_group(group, number);
    }
}

/// The process group that we are in.
fn own_group() -> i32 {
    rustix::process::getpgrp().as_raw_nonzero().get()
}

fn group_id(id: Option<u32>) -> Option<rustix::process::Pid> {
    id.and_then(|id| i32::try_from(id).ok())
        .and_then(rustix::process::Pid::from_raw)
}

/// A process group that must not outlive its command.
struct Group(Option<u32>);

impl Group {
    fn gone(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = group_id(self.0) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn output_status_and_words_come_back() {
        let command = Command::new("sh").args(["-c", "echo out; echo oops >&2; exit 3"]);
        let error = command
            .run(Duration::from_secs(5))
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("exit status: 3") && error.contains("oops"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn at_the_limit_the_whole_group_is_killed() {
        let pid_file = std::env::temp_dir().join(format!("veza-group-{}", std::process::id()));
        let script = format!("sleep 600 & echo $! > {}; wait", pid_file.display());
        let command = Command::new("sh").args(["-c", &script]);
        let error = command.run(Duration::from_millis(500)).await.unwrap_err();
        assert!(matches!(error, Error::Limit { .. }), "{error}");
        let grandchild = std::fs::read_to_string(&pid_file).unwrap();
        std::fs::remove_file(&pid_file).unwrap();
        // A killed process may stay a zombie of whoever adopted it; it must not run.
        let stat = format!("/proc/{}/stat", grandchild.trim());
        for _ in 0..100 {
            match std::fs::read_to_string(&stat) {
                Ok(text) if !text.contains(") Z ") => clock::sleep(Duration::from_millis(20)).await,
                _ => return,
            }
        }
        panic!("the grandchild {grandchild} still runs");
    }

    // One test, as a signal to this process is heard by every `Stop` in it.
    #[tokio::test]
    async fn an_attended_program_is_never_killed_and_hears_our_signals() {
        let folder = std::env::temp_dir().join(format!("veza-attended-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let stop = Stop::listen().unwrap();
        let attended = |script: &str| {
            let command = Command::new("sh").args(["-c", script]).folder(&folder);
            command.attended(stop.clone())
        };
        let there = async |name: &str| {
            let appears = async {
                while !folder.join(name).exists() {
                    clock::sleep(Duration::from_millis(10)).await;
                }
            };
            clock::within(Duration::from_secs(10), appears).await
        };

        let script = "touch started; sleep 0.3; touch survived";
        tokio::select! {
            status = attended(script) => panic!("it ended first: {status:?}"),
            seen = there("started") => seen.unwrap(),
        }
        there("survived").await.unwrap();

        let script = "trap 'touch healed; exit 7' HUP; touch ready; while :; do sleep 0.05; done";
        let signal = async {
            there("ready").await.unwrap();
            // Heard by `stop`, which has been listening since before the program was started.
            let us = rustix::process::getpid();
            rustix::process::kill_process(us, rustix::process::Signal::HUP).unwrap();
        };
        let (status, ()) = tokio::join!(attended(script), signal);
        assert_eq!(status.unwrap().code(), Some(7));
        assert!(folder.join("healed").exists());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
