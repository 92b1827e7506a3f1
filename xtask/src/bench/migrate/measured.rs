//! What a program took, as the kernel counts it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;
use tokio::io::AsyncReadExt;
use veza_probe::clock::{self, Clock};
use veza_probe::command::Command;

/// How often it is looked at: its end is seen so much late, its memory so much early.
const EVERY: Duration = Duration::from_millis(2);

/// The kernel's clock ticks in a second (`USER_HZ`, 100 on every Linux), and the bytes of `VmHWM`'s unit in a MiB.
const TICKS: f64 = 100.0;
const KIB_PER_MIB: f64 = 1024.0;

/// One run of a program.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Took {
    /// From its start to its end, in seconds.
    pub wall_s: f64,
    /// Of all its threads, in user and kernel, in seconds; counted in hundredths.
    pub cpu_s: f64,
    /// The most memory that was its own at once (`VmHWM`), in MiB.
    pub peak_mib: f64,
}

/// Runs a program to its end, which must be good; returns what it took and its standard output. Its standard error goes to a file.
///
/// # Errors
/// When it can't be started, ends otherwise, or does not end within the limit.
pub async fn measured(
    command: Command,
    errors: &Path,
    limit: Duration,
) -> anyhow::Result<(Took, String)> {
    let (line, clock) = (command.line(), Clock::start());
    let file = std::fs::File::create(errors)?;
    let mut child = command.log(file).beside(&[])?;
    drop(child.stdin.take());
    let stdout = child.stdout.take();
    let reading = tokio::spawn(async move {
        let mut text = String::new();
        if let Some(mut stdout) = stdout {
            let _ = stdout.read_to_string(&mut text).await;
        }
        text
    });
    let pid = child.id().context("it has no process")?;
    let mut took = Took::default();
    // Not waited for before it is seen as a zombie: until then its counts are there.
    let ended = clock::within(limit, async {
        while !look(pid, &mut took) {
            clock::sleep(EVERY).await;
        }
        took.wall_s = clock.at().seconds();
    });
    if ended.await.is_err() {
        child.kill().await?;
        bail!("{line} was still running after {limit:?}");
    }
    let status = child.wait().await?;
    let said = std::fs::read_to_string(errors).unwrap_or_default();
    if !status.success() {
        let text = reading.await.unwrap_or_default();
        bail!("{line} ended with {status}: {said} {text}");
    }
    Ok((took, reading.await?))
}

/// Looks at a process; whether it has ended.
fn look(pid: u32, took: &mut Took) -> bool {
    let of = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}"));
    if let Ok(Some(peak)) = of("status").map(|text| peak_kib(&text)) {
        took.peak_mib = took.peak_mib.max(peak / KIB_PER_MIB);
    }
    match of("stat").ok().and_then(|text| state(&text)) {
        Some((has_ended, ticks)) => {
            took.cpu_s = ticks / TICKS;
            has_ended
        }
        None => true,
    }
}

fn peak_kib(status: &str) -> Option<f64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// Whether it is a zombie, and its ticks in user and kernel: fields 3, 14 and 15 of proc_pid_stat(5), behind a name that may have spaces.
fn state(stat: &str) -> Option<(bool, f64)> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some((*fields.first()? == "Z", ticks(11)? + ticks(12)?))
}

/// Starts a program that serves until it is ended.
///
/// # Errors
/// When it can't be started.
pub fn serving(command: Command) -> anyhow::Result<tokio::process::Child> {
    let mut child = command.beside(&[])?;
    drop((child.stdin.take(), child.stdout.take()));
    Ok(child)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_read() {
        let stat = "7 (a b) c) Z 1 7 7 0 -1 4228364 0 0 0 0 150 25 9 9 20 0 1 0";
        assert_eq!(state(stat), Some((true, 175.0)));
        assert_eq!(state("7 (x) S 1"), None);
        assert_eq!(
            peak_kib("VmPeak:\t9 kB\nVmHWM:\t    2048 kB\n"),
            Some(2048.0)
        );
        assert_eq!(peak_kib("State:\tZ (zombie)\n"), None);
    }

    #[tokio::test]
    async fn work_is_counted_and_a_bad_end_is_an_error() {
        let errors = std::env::temp_dir().join(format!("xtask-measured-{}", std::process::id()));
        let script = "for i in $(seq 200000); do :; done; echo said";
        let run = |script: &str| Command::new("bash").args(["-c", script]);
        let limit = Duration::from_secs(60);
        let (took, said) = measured(run(script), &errors, limit).await.unwrap();
        assert_eq!(said, "said\n");
        assert!(
            took.cpu_s > 0.01 && took.wall_s >= 0.01 && took.peak_mib > 0.5,
            "{took:?}"
        );
        let error = measured(run("echo no >&2; exit 3"), &errors, limit).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains("exit status: 3: no"), "{error}");
        let error = measured(run("sleep 9"), &errors, Duration::from_millis(50)).await;
        assert!(error.unwrap_err().to_string().contains("still running"));
        std::fs::remove_file(errors).unwrap();
    }
}
