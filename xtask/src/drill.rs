//! `cargo xtask drill`: brings up what is missing of the lab, runs the checks one after the other,
//! and sums up. The worst verdict decides, as it stands in each check's report, never its exit code.

mod finding;
mod summary;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use veza_probe::clock::{self, Clock, Signal, Stop};
use veza_probe::command::Command;
use veza_probe::story::Story;
use veza_probe::verdict::Verdict;

use crate::cargo::{self, Program};
use crate::lab::{self, Lab};

use finding::Finding;

/// A check that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its folder, package and binary.
    pub name: &'static str,
    /// The lab's groups that it needs.
    pub groups: &'static [&'static str],
    /// Groups that only those of its lab tests need that stand in a module of that name.
    pub also: &'static [&'static str],
}

/// Every check, in the order of the drill. `cargo xtask test` takes from here which groups a
/// package's lab tests need.
pub const CHECKS: [Check; 4] = [
    Check {
        name: "pg-failover-check",
        groups: &["postgres"],
        also: &["pgbouncer"],
    },
    Check {
        name: "pgbouncer-load",
        groups: &["postgres", "pgbouncer"],
        also: &[],
    },
    Check {
        name: "redis-sentinel-check",
        groups: &["redis"],
        also: &[],
    },
    Check {
        name: "minio-resilience",
        groups: &["minio"],
        also: &[],
    },
];

/// What is no check, is never part of a drill, and has lab tests all the same.
pub const DAEMONS: [Check; 3] = [
    Check {
        name: "minio-migrate",
        groups: &["minio", "minio-single"],
        also: &[],
    },
    Check {
        name: "pgbouncer-follow",
        groups: &["pgbouncer", "postgres"],
        also: &[],
    },
    Check {
        name: "reference-backend",
        groups: &["redis"],
        also: &["monitoring"],
    },
];

/// How long the lab may take to be well again by itself between two checks; then it is reset.
const HEALTHY_LIMIT: Duration = Duration::from_secs(120);

/// How often the lab's health is asked for.
const HEALTHY_EVERY: Duration = Duration::from_secs(1);

/// Which checks to run, and what may be done to this host.
#[derive(clap::Args)]
pub struct Args {
    /// The checks to run; all of them when none is named.
    #[arg(value_name = "CHECK", value_parser = PossibleValuesParser::new(CHECKS.map(|check| check.name)))]
    checks: Vec<String>,
    /// Installs nothing: stops with the list of what this host lacks.
    #[arg(long)]
    no_install: bool,
}

/// Runs the drill; the exit code is that of the worst verdict.
///
/// # Errors
/// When the lab does not come up or a check does not build: nothing was broken then.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let clock = Clock::start();
    let stop = Stop::listen()?;
    let chosen = chosen(&args.checks);
    let story = Story::new(false);
    let groups = groups(&chosen);
    let up = lab::ensure_up(&groups, &story, !args.no_install);
    let lab = match unless(&stop, up).await {
        Ok(Ok(lab)) => lab,
        Ok(Err(error)) => return Ok(not_up(&story, &error)),
        Err(signal) => return Ok(stopped(&story, signal)),
    };
    story.end();
    let packages: Vec<&str> = chosen
        .iter()
        .flat_map(|check| ["--bin", check.name])
        .collect();
    let build = ["build", "--workspace"];
    let build: Vec<&str> = build.into_iter().chain(packages).collect();
    let programs = cargo::build(&build, &stop).await;
    if let Some(signal) = stop.requested() {
        return Ok(stopped(&story, signal));
    }
    let drill = Drill {
        folder: cargo::fresh_folder("drill", clock)?,
        programs: programs?,
        lab,
        clock,
        stop,
    };
    let findings = drill.all(&chosen).await;
    let worst = finding::worst(&findings, drill.stop.requested());
    let took_s = drill.clock.at().seconds();
    let text = summary::text(worst, took_s, &findings, &drill.folder);
    summary::tell(&text, &drill.folder)?;
    Ok(ExitCode::from(worst.code()))
}

/// The named checks in the drill's order; all when none is named.
fn chosen(names: &[String]) -> Vec<Check> {
    let named = |check: &Check| names.is_empty() || names.iter().any(|name| name == check.name);
    CHECKS.into_iter().filter(named).collect()
}

/// The lab's groups that some checks need, each once.
fn groups(checks: &[Check]) -> Vec<String> {
    let all = checks.iter().flat_map(|check| check.groups);
    let mut groups: Vec<String> = all.map(|group| (*group).to_owned()).collect();
    groups.sort();
    groups.dedup();
    groups
}

/// What a future comes to, or the signal that came first; the future is dropped then.
pub(crate) async fn unless<F: Future>(stop: &Stop, future: F) -> Result<F::Output, Signal> {
    let mut stop = stop.clone();
    tokio::select! {
        done = future => Ok(done),
        signal = stop.wait() => Err(signal),
    }
}

/// Tells why the lab is not up; the code is the lab's own.
pub(crate) fn not_up(story: &Story, error: &anyhow::Error) -> ExitCode {
    story.end();
    story.say(&format!(
        "error: the lab is not up, and nothing was broken: {error:#}"
    ));
    ExitCode::from(lab::exit_code(error))
}

fn stopped(story: &Story, signal: Signal) -> ExitCode {
    story.end();
    story.say(&format!(
        "stopped by {signal} before a check was run; nothing was broken"
    ));
    ExitCode::from(Verdict::Interrupted(signal).code())
}

/// A drill that is under way.
struct Drill {
    folder: PathBuf,
    programs: Vec<Program>,
    lab: Lab,
    clock: Clock,
    stop: Stop,
}

impl Drill {
    /// Runs the checks one after the other, until a signal comes.
    async fn all(&self, checks: &[Check]) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (index, check) in checks.iter().enumerate() {
            let began = self.clock.at();
            if index > 0
                && let Err(error) = self.healthy_again(check).await
            {
                let told = format!("the lab is not well, so it was not run: {error:#}");
                findings.push(Finding::of_drill(check.name, Verdict::Refused, told));
                continue;
            }
            if self.stop.requested().is_some() {
                break;
            }
            let mut finding = self.one(check).await;
            finding.took_s = self.clock.at().us_since(began) as f64 / 1e6;
            findings.push(finding);
        }
        findings
    }

    /// Waits until the lab is well; one that does not get well by itself is reset.
    async fn healthy_again(&self, check: &Check) -> anyhow::Result<()> {
        let story = Story::new(false);
        let groups = groups(&[*check]);
        story.doing("waiting for a healthy lab");
        let well = async {
            while !healthy(&groups).await {
                clock::sleep(HEALTHY_EVERY).await;
            }
        };
        let waited = unless(&self.stop, clock::within(HEALTHY_LIMIT, well)).await;
        let result = match waited {
            Ok(Ok(())) | Err(_) => Ok(()),
            Ok(Err(_)) => {
                let limit_s = HEALTHY_LIMIT.as_secs();
                story.say(&format!(
                    "the lab is still not well after {limit_s} s: it is reset"
                ));
                let reset = unless(&self.stop, lab::reset(&groups, &story)).await;
                reset.unwrap_or(Ok(()))
            }
        };
        story.end();
        result
    }

    /// Runs one check to its own end; its screen and its story go where ours go.
    async fn one(&self, check: &Check) -> Finding {
        let is_it = |program: &&Program| program.kind == "bin" && program.target == check.name;
        let Some(program) = self.programs.iter().find(is_it) else {
            let told = "cargo built no such program";
            return Finding::of_drill(check.name, Verdict::Internal, told);
        };
        let folder = self.folder.join(check.name);
        let story = Story::new(false);
        story.end();
        story.say(&format!("== {} ==", check.name));
        let status = command(program, &folder, &self.lab)
            .attended(self.stop.clone())
            .await;
        match status {
            Ok(status) => Finding::of_check(check.name, status, finding::read(&folder)),
            Err(error) => Finding::of_drill(check.name, Verdict::MissingTool, error.to_string()),
        }
    }
}

/// Whether every instance of these groups is well.
async fn healthy(groups: &[String]) -> bool {
    let health = lab::healthy(groups).await.unwrap_or_default();
    !health.is_empty() && health.iter().all(|instance| instance.healthy)
}

fn command(program: &Program, folder: &Path, lab: &Lab) -> Command {
    let command = Command::new(&program.path).arg("--report").arg(folder);
    let env = lab.env().into_iter();
    env.fold(command, |command, (name, value)| command.env(name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_is_a_crate_with_its_groups() {
        let root = cargo::workspace().unwrap();
        for check in CHECKS {
            assert!(
                root.join(check.name).join("Cargo.toml").exists(),
                "{}",
                check.name
            );
            assert!(!check.groups.is_empty(), "{}", check.name);
        }
    }

    #[test]
    fn none_named_is_all_and_each_group_counts_once() {
        assert_eq!(chosen(&[]), CHECKS);
        assert_eq!(chosen(&["pg-failover-check".to_owned()]).len(), 1);
        let twice = [CHECKS[0], CHECKS[0]];
        assert_eq!(groups(&twice), ["postgres"]);
    }
}
