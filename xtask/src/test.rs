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
use crate::lab::{self, Lab, Traits};

use lab_test::{LabTest, Leaves, Outcome, Ready};

/// The longest that one lab test may take, without its reset.
const TEST_LIMIT: Duration = Duration::from_secs(900);

/// How often a test is repeated because this host was too busy to measure.
const UNMEASURED_LIMIT: u32 = 2;

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

/// What is known of the lab's groups between two tests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    /// Groups that are as a reset left them.
    fresh: Vec<String>,
    /// Groups that a test has used and left whole.
    whole: Vec<String>,
}

impl Known {
    /// What a test's groups need before it.
    fn ready(&self, test: &LabTest) -> Ready {
        let fresh = |group: &String| self.fresh.contains(group);
        let whole = |group: &String| fresh(group) || self.whole.contains(group);
        if test.groups.iter().all(fresh) {
            Ready::Fresh
        } else if test.leaves == Leaves::Whole && test.groups.iter().all(whole) {
            Ready::Whole
        } else {
            Ready::Reset
        }
    }

    /// After a test. What was left untouched stays what it was; of all other groups nothing is known then, as they may need what this test
    /// has changed.
    fn after(self, outcome: &Outcome) -> Known {
        let groups = outcome.test.groups.clone();
        match (outcome.left, outcome.ready) {
            (Leaves::Untouched, Ready::Fresh) => self,
            (Leaves::Untouched, _) => Known {
                fresh: groups,
                whole: Vec::new(),
            },
            (Leaves::Whole, _) => Known {
                fresh: Vec::new(),
                whole: groups,
            },
            (Leaves::Somehow, _) => Known::default(),
        }
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
    /// After a test that leaves its groups untouched the next one of those groups finds them reset already; those that leave them whole
    /// follow each other.
    /// A test whose drill was too blind to measure has refuted nothing, and is repeated.
    async fn all(&self, mut tests: Vec<LabTest>) -> Vec<Outcome> {
        tests.sort_by_key(|test| (test.class, test.leaves, test.groups.clone()));
        let mut outcomes = Vec::new();
        let mut known = Known::default();
        for test in tests {
            let mut outcome = self.one(test.clone(), &known).await;
            while outcome.unmeasured() && outcome.unmeasured_before < UNMEASURED_LIMIT {
                let before = outcome.unmeasured_before + 1;
                self.story.say(&format!(
                    "{} {}: this host was too busy to measure; once more, after a reset",
                    test.package, test.name
                ));
                outcome = self.one(test.clone(), &Known::default()).await;
                outcome.unmeasured_before = before;
            }
            known = known.after(&outcome);
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

    /// Makes the test's groups ready, and runs it.
    async fn one(&self, test: LabTest, known: &Known) -> Outcome {
        let began = self.clock.at();
        let log = self.logs.join(test.log_name());
        let readied = self.readied(&test, known.ready(&test)).await;
        let ready_at = self.clock.at();
        self.story.doing(&test.name);
        let (ready, came_to) = match readied {
            Ok(ready) => (ready, self.judged(&test, &log).await),
            Err(error) => {
                let words = format!("its groups could not be reset: {error:#}");
                (Ready::Reset, Err(words))
            }
        };
        let ended = self.clock.at();
        Outcome {
            test,
            left: came_to.clone().unwrap_or(Leaves::Somehow),
            complaint: came_to.err(),
            unmeasured_before: 0,
            log,
            ready,
            ready_s: ready_at.us_since(began) as f64 / 1e6,
            took_s: ended.us_since(ready_at) as f64 / 1e6,
        }
    }

    /// Makes the test's groups ready; how that was done at last. Groups that were left whole, and do not come to be so, are reset.
    async fn readied(&self, test: &LabTest, ready: Ready) -> anyhow::Result<Ready> {
        let (name, groups) = (&test.name, test.groups.join(", "));
        match ready {
            Ready::Fresh => return Ok(ready),
            Ready::Whole => {
                self.story
                    .doing(&format!("{name}: until {groups} is whole"));
                if lab::whole(&test.groups).await.is_ok() {
                    return Ok(ready);
                }
            }
            Ready::Reset => {}
        }
        self.story.doing(&format!("{name}: resetting {groups}"));
        lab::reset(&test.groups, &self.story).await?;
        Ok(Ready::Reset)
    }

    /// Runs a test, and looks how it left its groups. One that was to leave the lab untouched fails where Incus sees a difference afterwards:
    /// another start of an instance, another state, key or device.
    async fn judged(&self, test: &LabTest, log: &Path) -> Result<Leaves, String> {
        if test.leaves == Leaves::Somehow {
            self.program(test, log).await?;
            return Ok(Leaves::Somehow);
        }
        let traits = async || {
            let traits = lab::traits(&test.groups).await;
            traits.map_err(|error| format!("the lab can't be asked what it is: {error:#}"))
        };
        let before: BTreeMap<String, Traits> = traits().await?;
        self.program(test, log).await?;
        let now = traits().await?;
        let set_as_before = |(name, was): (&String, &Traits)| {
            let now = now.get(name);
            now.is_some_and(|now| now.settings == was.settings)
        };
        let touched = before
            .iter()
            .find(|(name, was)| now.get(*name) != Some(*was));
        match (test.leaves, touched) {
            (_, None) => Ok(test.leaves),
            (Leaves::Untouched, Some((name, was))) => Err(format!(
                "it was to leave the lab untouched; {name} is {:?} and was {was:?}",
                now.get(name)
            )),
            (_, Some(_)) if before.iter().all(set_as_before) => Ok(Leaves::Whole),
            (_, Some(_)) => Ok(Leaves::Somehow),
        }
    }

    async fn program(&self, test: &LabTest, log: &Path) -> Result<(), String> {
        let file = std::fs::File::create(log).map_err(|e| format!("{}: {e}", log.display()))?;
        let command = Command::new(&test.program)
            .args(["--ignored", "--exact", test.name.as_str(), "--nocapture"])
            .folder(&test.folder)
            .log(file);
        // Some of them start cargo themselves.
        let command = cargo::as_from_a_shell(command);
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

    fn test(leaves: Leaves, groups: &[&str]) -> LabTest {
        LabTest {
            name: "light::a".to_owned(),
            class: lab_test::Class::Light,
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            leaves,
            package: "drop-check".to_owned(),
            folder: PathBuf::new(),
            program: PathBuf::new(),
        }
    }

    fn known(fresh: &[&str], whole: &[&str]) -> Known {
        let owned = |groups: &[&str]| groups.iter().map(|group| (*group).to_owned()).collect();
        Known {
            fresh: owned(fresh),
            whole: owned(whole),
        }
    }

    #[test]
    fn only_what_a_test_left_untouched_or_whole_spares_a_reset() {
        let after = |before: &Known, ready: Ready, left: Leaves| {
            let outcome = Outcome {
                test: test(left, &["one"]),
                left,
                complaint: None,
                unmeasured_before: 0,
                log: PathBuf::new(),
                ready,
                ready_s: 0.0,
                took_s: 0.0,
            };
            before.clone().after(&outcome)
        };
        let both = known(&["one", "two"], &["three"]);
        assert_eq!(after(&both, Ready::Fresh, Leaves::Untouched), both);
        // What was fresh before a reset may need what was reset.
        let other = known(&["two"], &["three"]);
        assert_eq!(
            after(&other, Ready::Reset, Leaves::Untouched),
            known(&["one"], &[])
        );
        for ready in [Ready::Fresh, Ready::Whole, Ready::Reset] {
            assert_eq!(after(&both, ready, Leaves::Whole), known(&[], &["one"]));
            assert_eq!(after(&both, ready, Leaves::Somehow), Known::default());
        }
    }

    #[test]
    fn only_a_test_that_leaves_its_groups_whole_takes_used_ones() {
        let used = known(&["one"], &["two"]);
        for (leaves, groups, ready) in [
            (Leaves::Somehow, &["one"][..], Ready::Fresh),
            (Leaves::Somehow, &["one", "two"], Ready::Reset),
            (Leaves::Untouched, &["two"], Ready::Reset),
            (Leaves::Whole, &["one"], Ready::Fresh),
            (Leaves::Whole, &["two"], Ready::Whole),
            (Leaves::Whole, &["one", "two"], Ready::Whole),
            (Leaves::Whole, &["two", "three"], Ready::Reset),
        ] {
            assert_eq!(
                used.ready(&test(leaves, groups)),
                ready,
                "{leaves:?} {groups:?}"
            );
        }
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
