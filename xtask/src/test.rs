//! `cargo xtask test`: everything. First the tests against the real lab, each from reset groups, then
//! all that need no lab, so that what stands last on the screen is cargo's own result.

mod lab_test;
mod summary;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::builder::PossibleValuesParser;
use veza_probe::clock::{Clock, Signal, Stop};
use veza_probe::command::Command;
use veza_probe::story::Story;

use crate::cargo::{self, Program};
use crate::drill::{CHECKS, Check, DAEMONS, not_up, unless};
use crate::lab::{self, Lab};

use lab_test::{LabTest, Outcome};

/// The longest that one lab test may take, without its reset.
const TEST_LIMIT: Duration = Duration::from_secs(900);

/// The longest that a test program may take to list its tests.
const LIST_LIMIT: Duration = Duration::from_secs(60);

/// Which groups of the lab to test against, and what may be done to this host.
#[derive(clap::Args)]
pub struct Args {
    /// Tests only what needs these groups of the lab, beside all that needs no lab.
    #[arg(value_name = "GROUP", value_parser = PossibleValuesParser::new(known_groups()))]
    groups: Vec<String>,
    /// Installs nothing: stops with the list of what this host lacks.
    #[arg(long)]
    no_install: bool,
}

/// Everything that has lab tests.
fn tested() -> impl Iterator<Item = Check> {
    CHECKS.into_iter().chain(DAEMONS)
}

/// Every group that something tested needs.
fn known_groups() -> Vec<&'static str> {
    let groups = tested().flat_map(|check| check.groups.iter().chain(check.also));
    let mut groups: Vec<&str> = groups.copied().collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}

/// Runs every test; 0 when all passed.
///
/// # Errors
/// When something does not build, the lab does not come up, or a check has no lab tests.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let clock = Clock::start();
    let stop = Stop::listen()?;
    let checks = chosen(&args.groups);
    let built = cargo::build(&["test", "--workspace", "--all-targets", "--no-run"], &stop).await;
    // That builds examples as tests of themselves; lab tests run them as the programs that they are.
    let examples = cargo::build(&["build", "--workspace", "--examples"], &stop).await;
    if let Some(signal) = stop.requested() {
        return Ok(stopped(signal));
    }
    let tests = listed(&checks, &built?).await?;
    examples?;
    let story = Story::new(false);
    let groups = groups(&tests);
    let up = lab::ensure_up(&groups, &story, !args.no_install);
    let lab = match unless(&stop, up).await {
        Ok(Ok(lab)) => lab,
        Ok(Err(error)) => return Ok(not_up(&story, &error)),
        Err(signal) => return Ok(stopped(signal)),
    };
    let run = Run {
        env: environment(&lab),
        logs: cargo::fresh_folder("lab-tests", clock)?,
        total: tests.len(),
        clock,
        story,
    };
    let outcomes = match unless(&stop, run.all(tests)).await {
        Ok(outcomes) => outcomes,
        Err(signal) => {
            run.story.end();
            return Ok(stopped(signal));
        }
    };
    run.story.end();
    run.story.say(&summary::text(&outcomes));
    let rest = without_lab(&stop).await?;
    if let Some(signal) = stop.requested() {
        return Ok(stopped(signal));
    }
    let failed = summary::failed(&outcomes);
    if !failed.is_empty() {
        run.story.say(&failed);
    }
    Ok(ExitCode::from(u8::from(!rest || !failed.is_empty())))
}

/// The checks that need one of the named groups; all when none is named.
fn chosen(named: &[String]) -> Vec<Check> {
    let needed = |check: &Check| {
        check
            .groups
            .iter()
            .chain(check.also)
            .any(|group| named.iter().any(|n| n == group))
    };
    tested()
        .filter(|check| named.is_empty() || needed(check))
        .collect()
}

/// Every group that some test needs, each once.
fn groups(tests: &[LabTest]) -> Vec<String> {
    let mut groups: Vec<String> = tests.iter().flat_map(|test| test.groups.clone()).collect();
    groups.sort();
    groups.dedup();
    groups
}

fn stopped(signal: Signal) -> ExitCode {
    let story = Story::new(false);
    story.end();
    story.say(&format!(
        "stopped by {signal}; what a test broke in the lab is mended by its next reset: cargo xtask lab reset"
    ));
    ExitCode::from(128 + signal.number())
}

/// What a lab test finds in its environment.
fn environment(lab: &Lab) -> Vec<(String, String)> {
    let mut env = lab.env();
    env.push(("VEZA_LAB_TEST".to_owned(), "1".to_owned()));
    // What failed is said by the test; a backtrace of the test harness hides it.
    env.push(("RUST_BACKTRACE".to_owned(), "0".to_owned()));
    env
}

/// The lab tests of some checks, asked of their own programs. A check without any is a defect.
async fn listed(checks: &[Check], programs: &[Program]) -> anyhow::Result<Vec<LabTest>> {
    let mut tests = Vec::new();
    for check in checks {
        let is_it = |program: &&Program| {
            (
                program.package.as_str(),
                program.kind.as_str(),
                program.target.as_str(),
            ) == (check.name, "test", "lab")
        };
        let program = programs.iter().find(is_it);
        let program = program.with_context(|| format!("{} has no tests/lab", check.name))?;
        let list = Command::new(&program.path).args(["--list", "--ignored", "--format", "terse"]);
        let list = list.folder(&program.folder).run(LIST_LIMIT).await?;
        let before = tests.len();
        for name in list
            .stdout
            .lines()
            .filter_map(|line| line.strip_suffix(": test"))
        {
            tests.push(LabTest::new(check, program, name)?);
        }
        let any = tests.len() > before;
        anyhow::ensure!(
            any,
            "{}/tests/lab holds no test that needs the lab",
            check.name
        );
    }
    Ok(tests)
}

/// Everything that needs no lab, with cargo's own output. The examples in comments come first: most
/// crates have none, and the last line is to be one that counts something.
async fn without_lab(stop: &Stop) -> anyhow::Result<bool> {
    let mut passed = true;
    for which in ["--doc", "--all-targets"] {
        let command = cargo::cargo()?.args(["test", "--workspace", "--no-fail-fast", which]);
        passed &= command.attended(stop.clone()).await?.success();
        if stop.requested().is_some() {
            break;
        }
    }
    Ok(passed)
}

/// The groups that are as a reset left them, after a test: its own, where it left them untouched and they are
/// fresh. All others may need what another test has changed.
fn after(fresh: Vec<String>, was_fresh: bool, outcome: &Outcome) -> Vec<String> {
    let test = &outcome.test;
    match outcome.complaint {
        None if test.leaves_untouched && was_fresh => fresh,
        None if test.leaves_untouched => test.groups.clone(),
        _ => Vec::new(),
    }
}

/// The lab tests that are under way.
struct Run {
    env: Vec<(String, String)>,
    logs: PathBuf,
    total: usize,
    clock: Clock,
    story: Story,
}

impl Run {
    /// One at a time: a drill is measured, and keys of the lab's project that a test sets (`user.veza.halt`) are
    /// for every group. Light ones first, those that change the host last.
    /// After a test that leaves its groups untouched the next one of those groups finds them reset already.
    async fn all(&self, mut tests: Vec<LabTest>) -> Vec<Outcome> {
        tests.sort_by_key(|test| (test.class, !test.leaves_untouched, test.groups.clone()));
        let mut outcomes = Vec::new();
        let mut fresh = Vec::new();
        for test in tests {
            let is_fresh = test.groups.iter().all(|group| fresh.contains(group));
            let outcome = self.one(test, is_fresh).await;
            fresh = after(fresh, is_fresh, &outcome);
            outcomes.push(outcome);
            self.tell(&outcomes);
        }
        outcomes
    }

    fn tell(&self, outcomes: &[Outcome]) {
        if let Some(outcome) = outcomes.last() {
            let line = summary::line(outcome);
            self.story.say(&format!(
                "lab test {}/{}: {line}",
                outcomes.len(),
                self.total
            ));
        }
    }

    /// Resets the test's groups, where they are not fresh from a reset, and runs it.
    async fn one(&self, test: LabTest, is_fresh: bool) -> Outcome {
        let began = self.clock.at();
        let log = self.logs.join(test.log_name());
        let groups = test.groups.join(", ");
        let reset = match is_fresh {
            true => Ok(()),
            false => {
                let name = &test.name;
                self.story.doing(&format!("{name}: resetting {groups}"));
                lab::reset(&test.groups, &self.story).await
            }
        };
        let ready = self.clock.at();
        self.story.doing(&test.name);
        let complaint = match reset {
            Ok(()) if test.leaves_untouched => self.untouched(&test, &log).await.err(),
            Ok(()) => self.program(&test, &log).await.err(),
            Err(error) => Some(format!("its groups could not be reset: {error:#}")),
        };
        let ended = self.clock.at();
        Outcome {
            test,
            complaint,
            log,
            reset_s: ready.us_since(began) as f64 / 1e6,
            took_s: ended.us_since(ready) as f64 / 1e6,
        }
    }

    /// Runs a test that leaves the lab untouched, which fails where Incus sees a difference afterwards: another
    /// start of an instance, another state, key or device.
    async fn untouched(&self, test: &LabTest, log: &Path) -> Result<(), String> {
        let traits = async || {
            let traits = lab::traits(&test.groups).await;
            traits.map_err(|error| format!("the lab can't be asked what it is: {error:#}"))
        };
        let before: BTreeMap<String, String> = traits().await?;
        self.program(test, log).await?;
        let now = traits().await?;
        let touched = before
            .iter()
            .find(|(name, was)| now.get(*name) != Some(*was));
        match touched {
            None => Ok(()),
            Some((name, was)) => Err(format!(
                "it was to leave the lab untouched; {name} is {:?} and was {was:?}",
                now.get(name)
            )),
        }
    }

    async fn program(&self, test: &LabTest, log: &Path) -> Result<(), String> {
        let file = std::fs::File::create(log).map_err(|e| format!("{}: {e}", log.display()))?;
        let command = Command::new(&test.program)
            .args(["--ignored", "--exact", test.name.as_str(), "--nocapture"])
            .folder(&test.folder)
            .env("CARGO_MANIFEST_DIR", &test.folder)
            .log(file);
        let env = self.env.iter();
        let command = env.fold(command, |command, (name, value)| command.env(name, value));
        let output = command
            .output(TEST_LIMIT)
            .await
            .map_err(|e| e.to_string())?;
        let text = std::fs::read(log).map_err(|e| format!("{}: {e}", log.display()))?;
        lab_test::passed(output.status, &String::from_utf8_lossy(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_choose_checks() {
        assert_eq!(chosen(&[]), tested().collect::<Vec<_>>());
        let names = |group: &str| -> Vec<&str> {
            let chosen = chosen(&[group.to_owned()]);
            chosen.iter().map(|check| check.name).collect()
        };
        let all = ["pg-failover-check", "pgbouncer-load", "pgbouncer-follow"];
        assert_eq!(names("postgres"), all);
        assert_eq!(names("pgbouncer"), all);
        let redis = ["redis-sentinel-check", "reference-backend"];
        assert_eq!(names("redis"), redis);
        assert_eq!(names("monitoring"), ["reference-backend"]);
        assert_eq!(names("minio"), ["minio-resilience", "minio-migrate"]);
        assert_eq!(names("minio-single"), ["minio-migrate"]);
        assert_eq!(names("another"), Vec::<&str>::new());
        let known = [
            "minio",
            "minio-single",
            "monitoring",
            "pgbouncer",
            "postgres",
            "redis",
        ];
        assert_eq!(known_groups(), known);
    }

    #[test]
    fn only_a_test_that_passed_and_leaves_all_untouched_spares_a_reset() {
        let outcome = |leaves_untouched: bool, complaint: Option<&str>| Outcome {
            test: LabTest {
                name: "light::a".to_owned(),
                class: lab_test::Class::Light,
                groups: vec!["one".to_owned()],
                leaves_untouched,
                package: "drop-check".to_owned(),
                folder: PathBuf::new(),
                program: PathBuf::new(),
            },
            complaint: complaint.map(str::to_owned),
            log: PathBuf::new(),
            reset_s: 0.0,
            took_s: 0.0,
        };
        let (none, one) = (Vec::new(), vec!["one".to_owned()]);
        let both = vec!["one".to_owned(), "two".to_owned()];
        assert_eq!(after(both.clone(), true, &outcome(true, None)), both);
        assert_eq!(after(none.clone(), false, &outcome(true, None)), one);
        // What was fresh before a reset may need what was reset.
        let other = vec!["two".to_owned()];
        assert_eq!(after(other, false, &outcome(true, None)), one);
        assert_eq!(after(both.clone(), true, &outcome(false, None)), none);
        assert_eq!(after(both, true, &outcome(true, Some("x"))), none);
    }

    #[tokio::test]
    async fn a_check_without_lab_tests_is_an_error() {
        let error = listed(&CHECKS, &[]).await.unwrap_err().to_string();
        assert_eq!(error, "pg-failover-check has no tests/lab");
        // A program that lists nothing.
        let empty = Program {
            package: CHECKS[0].name.to_owned(),
            folder: std::env::temp_dir(),
            target: "lab".to_owned(),
            kind: "test".to_owned(),
            path: PathBuf::from("true"),
        };
        let error = listed(&CHECKS, &[empty]).await.unwrap_err().to_string();
        assert_eq!(
            error,
            "pg-failover-check/tests/lab holds no test that needs the lab"
        );
    }
}
