//! `cargo xtask bench load`: what pgbouncer-load costs. The same pgbench with the same options runs by
//! itself and under the check, in turns, through the lab's pooler; what differs is the watching.
//!
//! pgbench by itself differs from run to run by more than watching costs. So it runs before and after each run
//! under the check, which is compared with the middle of both (a slow drift of the host falls out), the two tell
//! how much nothing at all differs, and the median has its interval.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::Serialize;
use serde_json::Value;
use veza_probe::address;
use veza_probe::clock::{Clock, Stop};
use veza_probe::command::Command;
use veza_probe::incus::{Incus, socket_path};
use veza_probe::story::Story;

use super::figure;
use crate::cargo::{self, fresh_folder, workspace};
use crate::lab::{self, Lab};

/// How much longer than its load a run may take.
const GRACE: Duration = Duration::from_secs(180);

/// What is promised: the ratio of transactions, our share of a core in percent, and how much more memory
/// a long run may have, in MiB.
const RATIO_MIN: f64 = 0.99;
const CPU_MAX: f64 = 2.0;
const GROWTH_MAX: f64 = 8.0;

/// What is measured, and how much of it.
#[derive(clap::Args)]
pub struct Args {
    /// How many rounds; each runs both.
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How long each load takes.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// How many clients.
    #[arg(long, value_name = "COUNT", default_value_t = 500, value_parser = clap::value_parser!(u32).range(8..=5000))]
    clients: u32,
    /// How long the one load takes whose memory is compared; 0 leaves it out.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(0..=3600))]
    memory_seconds: u32,
    /// What the clients do. Clients of TPC-B wait for each other's row locks, and its figures scatter;
    /// with single reads the processors are the limit, and whatever the watching takes is missing.
    #[arg(long, value_enum, default_value_t = Workload::Tpcb)]
    workload: Workload,
}

/// What the clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Workload {
    /// pgbench's own.
    Tpcb,
    /// One row by its key, in each transaction.
    Select,
}

/// One row of the tables that the first load makes, of scale 10.
const SELECT: &str = "\\set aid random(1, 1000000)\n\
                      select abalance from pgbench_accounts where aid = :aid;\n";

/// One round.
#[derive(Debug, Serialize)]
struct Round {
    bare_tps: f64,
    checked_tps: f64,
    bare_again_tps: f64,
    /// Of the checked one to the middle of the other two.
    ratio: f64,
    own_cpu_percent: f64,
    own_memory_mib: f64,
}

/// What is written.
#[derive(Debug, Serialize)]
struct Summary {
    workload: Workload,
    clients: u32,
    seconds: u32,
    rounds: Vec<Round>,
    median_ratio: f64,
    /// Where the median lies at 95 %, whatever the distribution; none of fewer than 6 rounds.
    ratio_interval: Option<(f64, f64)>,
    /// How much two runs without the check differ in half of the rounds, as a share.
    median_noise: f64,
    worst_cpu_percent: f64,
    memory_seconds: u32,
    long_memory_mib: Option<f64>,
    kept: bool,
}

/// Measures, prints the table, and writes `bench/load.json`.
///
/// # Errors
/// When it can't be measured or written.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (clock, story) = (Clock::start(), Story::new(false));
    let groups = ["postgres", "pgbouncer"].map(str::to_owned);
    let lab = lab::ensure_up(&groups, &story, true).await?;
    let build = [
        "build",
        "--release",
        "--workspace",
        "--bin",
        "pgbouncer-load",
    ];
    let programs = cargo::build(&build, &Stop::listen()?).await?;
    let program = programs.into_iter().find(|p| p.target == "pgbouncer-load");
    let folder = fresh_folder("bench", clock)?;
    let mut bench = Bench {
        program: program.context("cargo built no pgbouncer-load")?.path,
        uri: pooler(&lab).await?,
        lab,
        folder,
        clients: args.clients,
        script: None,
    };
    // The tables, and a warm cache.
    bench.checked(3).await?;
    if args.workload == Workload::Select {
        let script = bench.folder.join("select.sql");
        std::fs::write(&script, SELECT)?;
        bench.script = Some(script);
    }
    let mut rounds = Vec::new();
    for number in 1..=args.rounds {
        story.say(&format!("round {number} of {}", args.rounds));
        rounds.push(bench.round(args.seconds).await?);
    }
    let long_memory_mib = match args.memory_seconds {
        0 => None,
        seconds => Some(figure(&bench.checked(seconds).await?, "own-memory")?),
    };
    story.end();
    let summary = summarize(&args, rounds, long_memory_mib);
    tell(&summary)?;
    let file = match args.workload {
        Workload::Tpcb => "bench/load.json",
        Workload::Select => "bench/load-select.json",
    };
    let path = workspace()?.join(file);
    let text = serde_json::to_string_pretty(&summary)? + "\n";
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(ExitCode::from(u8::from(!summary.kept)))
}

struct Bench {
    program: PathBuf,
    /// The pooler with its address, without a password.
    uri: String,
    lab: Lab,
    folder: PathBuf,
    clients: u32,
    /// Instead of TPC-B.
    script: Option<PathBuf>,
}

impl Bench {
    /// By itself, under the check, by itself.
    async fn round(&self, seconds: u32) -> anyhow::Result<Round> {
        let bare_tps = self.bare(seconds).await?;
        let report = self.checked(seconds).await?;
        let bare_again_tps = self.bare(seconds).await?;
        let checked_tps = figure(&report, "tps")?;
        Ok(Round {
            bare_tps,
            checked_tps,
            bare_again_tps,
            ratio: 2.0 * checked_tps / (bare_tps + bare_again_tps),
            own_cpu_percent: figure(&report, "own-cpu")?,
            own_memory_mib: figure(&report, "own-memory")?,
        })
    }

    async fn bare(&self, seconds: u32) -> anyhow::Result<f64> {
        let folder = self.folder.join("bare");
        std::fs::create_dir_all(&folder)?;
        let (clients, length) = (self.clients.to_string(), seconds.to_string());
        let command = Command::new("pgbench")
            .args([
                "-n",
                "-P",
                "1",
                "-l",
                "--log-prefix=tx",
                "--failures-detailed",
            ])
            .args(["-c", &clients, "-j", "8", "-T", &length, "-M", "simple"])
            .args(self.scripted("-f"))
            .arg(&self.uri)
            .env("LC_ALL", "C")
            .folder(&folder);
        let output = self.with_lab(command).run(limit(seconds)).await;
        std::fs::remove_dir_all(&folder)?;
        let text = output?.stdout;
        let tps = text.lines().find_map(|line| line.strip_prefix("tps = "));
        let tps = tps.and_then(|rest| rest.split(' ').next());
        tps.and_then(|word| word.parse().ok())
            .with_context(|| format!("pgbench printed no tps: {text}"))
    }

    async fn checked(&self, seconds: u32) -> anyhow::Result<Value> {
        let (clients, length) = (self.clients.to_string(), seconds.to_string());
        let command = Command::new(&self.program).args(["--format", "json", "--clients", &clients]);
        let command = command.args(["--threads", "8", "--seconds", &length]);
        let command = command.args(self.scripted("--script"));
        let output = self.with_lab(command).output(limit(seconds)).await?;
        let report: Value = serde_json::from_str(&output.stdout)
            .with_context(|| format!("pgbouncer-load printed no report: {}", output.stderr))?;
        let verdict = report
            .get("verdict")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if verdict != "pass" {
            bail!("pgbouncer-load came to {verdict}: {}", output.stderr);
        }
        Ok(report)
    }

    fn scripted(&self, flag: &str) -> Vec<OsString> {
        let script = self.script.iter();
        script
            .flat_map(|path| [flag.into(), path.clone().into_os_string()])
            .collect()
    }

    fn with_lab(&self, command: Command) -> Command {
        let env = self.lab.env().into_iter();
        env.fold(command, |command, (name, value)| command.env(name, value))
    }
}

fn limit(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into()) + GRACE
}

/// The pooler's URI with its address, as this host knows no name of the lab.
async fn pooler(lab: &Lab) -> anyhow::Result<String> {
    let env = lab.env();
    let value = |name: &str| {
        let found = env.iter().find(|(known, _)| known == name);
        found
            .map(|(_, value)| value.clone())
            .with_context(|| format!("the lab has no {name}"))
    };
    let uri = value("DATABASE_URL")?;
    let socket = socket_path(|name| std::env::var_os(name));
    let (incus, _) = Incus::connect(&socket, &value("VEZA_INCUS_PROJECT")?).await?;
    let host = uri
        .split('@')
        .nth(1)
        .and_then(|rest| rest.split(':').next());
    let host = host.context("DATABASE_URL names no host")?;
    let resolved = address::resolve(host, &incus.instances().await?).await?;
    ensure!(uri.contains('?'), "DATABASE_URL has no parameters");
    Ok(format!("{uri}&hostaddr={}", resolved.address))
}

fn summarize(args: &Args, rounds: Vec<Round>, long_memory_mib: Option<f64>) -> Summary {
    let sorted = |of: fn(&Round) -> f64| {
        let mut all: Vec<f64> = rounds.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all
    };
    let middle = |all: &[f64]| {
        let at = |rank: usize| all.get(rank).copied().unwrap_or(0.0);
        (at(all.len().saturating_sub(1) / 2) + at(all.len() / 2)) / 2.0
    };
    let ratios = sorted(|round| round.ratio);
    let noise = |round: &Round| (1.0 - round.bare_again_tps / round.bare_tps).abs();
    let (median_ratio, median_noise) = (middle(&ratios), middle(&sorted(noise)));
    let worst = |of: fn(&Round) -> f64| rounds.iter().map(of).fold(0.0, f64::max);
    let worst_cpu_percent = worst(|round| round.own_cpu_percent);
    let short_mib = worst(|round| round.own_memory_mib);
    let flat = long_memory_mib.is_none_or(|long| long <= short_mib + GROWTH_MAX);
    Summary {
        workload: args.workload,
        clients: args.clients,
        seconds: args.seconds,
        median_ratio,
        ratio_interval: interval(&ratios),
        median_noise,
        worst_cpu_percent,
        memory_seconds: args.memory_seconds,
        long_memory_mib,
        kept: median_ratio >= RATIO_MIN && worst_cpu_percent <= CPU_MAX && flat,
        rounds,
    }
}

/// The 95 % interval of a median, from sorted values: those around the middle whose ranks the binomial distribution
/// gives, by its normal approximation.
fn interval(sorted: &[f64]) -> Option<(f64, f64)> {
    let count = sorted.len();
    let below = (count as f64 / 2.0 - 0.98 * (count as f64).sqrt()).floor();
    let rank = (below >= 0.0).then_some(below as usize)?;
    let (lower, upper) = (sorted.get(rank)?, sorted.get(count.checked_sub(rank + 1)?)?);
    (count >= 6).then_some((*lower, *upper))
}

fn tell(summary: &Summary) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{:?}, {} clients, {} s",
        summary.workload, summary.clients, summary.seconds
    )?;
    writeln!(
        out,
        "round  pgbench tps  under the check  pgbench again  ratio  own CPU %  own MiB"
    )?;
    for (index, round) in summary.rounds.iter().enumerate() {
        writeln!(
            out,
            "{:>5}  {:>11.1}  {:>15.1}  {:>13.1}  {:>5.3}  {:>9.2}  {:>7.1}",
            index + 1,
            round.bare_tps,
            round.checked_tps,
            round.bare_again_tps,
            round.ratio,
            round.own_cpu_percent,
            round.own_memory_mib
        )?;
    }
    writeln!(
        out,
        "median ratio {:.3}, promised at least {RATIO_MIN}",
        summary.median_ratio
    )?;
    if let Some((lower, upper)) = summary.ratio_interval {
        writeln!(out, "the median lies in {lower:.3} to {upper:.3} at 95 %")?;
    }
    writeln!(
        out,
        "two runs without the check differ by {:.1} % in half of the rounds",
        100.0 * summary.median_noise
    )?;
    writeln!(
        out,
        "own CPU at most {:.2} %, promised {CPU_MAX}",
        summary.worst_cpu_percent
    )?;
    if let Some(long) = summary.long_memory_mib {
        writeln!(
            out,
            "memory after {} s: {long:.1} MiB",
            summary.memory_seconds
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn round(ratio: f64, cpu: f64) -> Round {
        Round {
            bare_tps: 100.0,
            checked_tps: 100.0 * ratio,
            bare_again_tps: 100.0,
            ratio,
            own_cpu_percent: cpu,
            own_memory_mib: 20.0,
        }
    }

    #[test]
    fn each_promise_can_be_broken() {
        let args = Args {
            rounds: 1,
            seconds: 1,
            clients: 8,
            memory_seconds: 300,
            workload: Workload::Tpcb,
        };
        let kept = |ratio, cpu, long| summarize(&args, vec![round(ratio, cpu)], Some(long)).kept;
        assert!(kept(0.99, 2.0, 28.0));
        assert!(!kept(0.98, 2.0, 28.0) && !kept(0.99, 2.1, 28.0) && !kept(0.99, 2.0, 28.1));
        assert!(
            !summarize(&args, Vec::new(), None).kept,
            "nothing was measured"
        );
    }

    #[test]
    fn a_median_has_its_interval() {
        let values: Vec<f64> = (0..25).map(f64::from).collect();
        // Ranks 8 and 18 of 25, of the binomial distribution itself.
        assert_eq!(interval(&values), Some((7.0, 17.0)));
        assert_eq!(interval(&values[..5]), None);
        assert_eq!(interval(&[]), None);
    }

    #[test]
    fn figures_are_found_by_their_id() {
        let report = json!({"figures": [{"id": "tps", "rounds": [7.5]}]});
        assert_eq!(figure(&report, "tps").unwrap(), 7.5);
        assert!(figure(&report, "p99").is_err());
    }
}
