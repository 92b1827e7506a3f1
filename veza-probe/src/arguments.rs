//! Arguments that every tool has, and those of every check that breaks something: what they mean is
//! said once. Checked for form only.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, Command, ValueEnum};

use crate::instance::InstanceName;
use crate::prober::Shape;
use crate::window::Window;

/// The longest time that any setting may ask for: a day.
const LONGEST_S: f64 = 86_400.0;

/// What every check takes that breaks something, beside whom it breaks and what it promises.
#[derive(Clone, Debug, Args)]
pub struct DrillArgs {
    /// The Incus project that holds the system.
    #[arg(long, env = "VEZA_INCUS_PROJECT", value_name = "NAME", value_parser = project_name)]
    pub project: String,

    /// The Incus that holds the project: an https remote of Incus' own client (`incus remote list`), whose
    /// certificates are used. Without it, the Incus of this host. Nothing is broken over a remote without a
    /// timer on its host; see docs/remote.md.
    #[arg(long, env = "VEZA_INCUS_REMOTE", value_name = "NAME", value_parser = remote_name)]
    pub remote: Option<String>,

    /// How long writes must go on succeeding before service counts as back, in seconds.
    #[arg(long, env = "VEZA_SETTLE_SECONDS", value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    pub settle: Duration,

    /// The longest that anything stays broken, in seconds; then it is healed, whatever the client
    /// sees. Default: 1.5 times the RTO target.
    #[arg(long, env = "VEZA_MAX_FAULT_SECONDS", value_name = "SECONDS", value_parser = seconds)]
    max_fault: Option<Duration>,

    /// How long the client is watched before the fault, in seconds.
    #[arg(long, env = "VEZA_WARM_UP_SECONDS", value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    pub warm_up: Duration,

    /// The distance of two probes, in milliseconds.
    #[arg(long, env = "VEZA_PROBE_SPACING_MS", value_name = "MS", default_value = "20", value_parser = milliseconds)]
    spacing: Duration,

    /// The client's deadline for one probe, in milliseconds.
    #[arg(long, env = "VEZA_PROBE_LIMIT_MS", value_name = "MS", default_value = "1000", value_parser = milliseconds)]
    limit: Duration,

    /// The hours in UTC in which the drill must begin and end, healing and redundancy included.
    #[arg(long, env = "VEZA_WINDOW", value_name = "HH:MM-HH:MM")]
    pub window: Option<Window>,

    /// Outside a lab: the system that may be broken, as `--dry-run` names it. Without it a person on a
    /// terminal is asked.
    #[arg(long, value_name = "SYSTEM")]
    pub confirm: Option<String>,

    /// Outside a lab: breaks without asking, for a schedule that has been agreed on.
    #[arg(long)]
    pub yes: bool,

    /// Does everything up to the fault and prints the plan.
    #[arg(long)]
    pub dry_run: bool,

    /// Breaks nothing: mends what an earlier drill left broken, by its record in the state folder
    /// (VEZA_STATE_DIR) or by the key user.veza.fault of the instances, and says what it found.
    #[arg(long, conflicts_with = "dry_run")]
    pub recover: bool,

    /// With --recover: only what has outlived its time, for a timer that runs beside drills.
    #[arg(long, requires = "recover")]
    pub expired: bool,

    /// With --recover: also what a drill on another host may still be at.
    #[arg(long, requires = "recover")]
    pub take_over: bool,

    /// Where the result goes.
    #[command(flatten)]
    pub output: Output,
}

impl DrillArgs {
    /// The shape of the probes.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn shape(&self) -> Result<Shape, String> {
        let shape = Shape::default()
            .with_spacing(self.spacing)
            .map_err(|e| e.to_string())?;
        shape.with_limit(self.limit).map_err(|e| e.to_string())
    }

    /// The longest that anything stays broken, where the RTO target is this.
    pub fn max_fault(&self, rto_target: Duration) -> Duration {
        self.max_fault.unwrap_or_else(|| rto_target.mul_f64(1.5))
    }

    /// A check's command, as far as its Incus.
    pub fn so_far(&self, check: &str) -> String {
        let remote = self.remote.as_ref().map(|name| format!(" --remote {name}"));
        let remote = remote.unwrap_or_default();
        format!("{check}{remote} --project {}", self.project)
    }
}

/// Where a check's result goes, and in which form.
#[derive(Clone, Debug, Args)]
pub struct Output {
    /// How the result is printed on stdout; the story is on stderr.
    #[arg(
        long,
        env = "VEZA_FORMAT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    pub format: Format,

    /// Keeps the report in every form, in a folder of this run's own in DIR; DIR/latest leads to the
    /// newest.
    #[arg(long, env = "VEZA_REPORT", value_name = "DIR")]
    pub report: Option<PathBuf>,

    /// With --report: how many runs of this check are kept in DIR; older ones are removed.
    #[arg(long, env = "VEZA_KEEP", value_name = "NUMBER", requires = "report")]
    pub keep: Option<usize>,

    /// Writes each event as it happens, as a line of JSON, to FILE; `-` is stdout.
    #[arg(long, env = "VEZA_EVENTS", value_name = "FILE")]
    pub events: Option<PathBuf>,

    /// Writes the result as metrics into this folder of node_exporter's textfile collector. Not of a
    /// run that only plans or mends.
    #[arg(long, env = "VEZA_TEXTFILE_DIR", value_name = "DIR")]
    pub textfile_dir: Option<PathBuf>,

    /// No story, and no result either when there is nothing to do about it (pass, clean).
    #[arg(long, short, env = "VEZA_QUIET")]
    pub quiet: bool,

    /// A file of variables, a line NAME=VALUE each, for everything that is taken from the environment
    /// here; a name that no tool knows is refused.
    #[arg(long, env = "VEZA_ENV_FILE", value_name = "FILE")]
    env_file: Option<PathBuf>,

    /// Prints the screen of a report.json again; nothing is run.
    #[arg(long, value_name = "REPORT")]
    show: Option<PathBuf>,

    /// Prints the gates, phases and figures of two reports side by side; nothing is run.
    #[arg(long, num_args = 2, value_names = ["OLD", "NEW"])]
    compare: Option<Vec<PathBuf>>,
}

/// How the result is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people: one screen.
    Text,
    /// For machines: one object.
    Json,
}

impl Output {
    /// Refuses what can't be had together.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn check(&self) -> Result<(), String> {
        let to_stdout = self.events.as_deref() == Some(Path::new("-"));
        if to_stdout && self.format == Format::Json {
            return Err("--events - and --format json both want stdout: give events a file".into());
        }
        Ok(())
    }

    /// The reports that are to be looked at, one or two, instead of a run.
    pub fn looked_at(&self) -> Option<Vec<PathBuf>> {
        let shown = || self.show.clone().map(|path| vec![path]);
        self.compare.clone().or_else(shown)
    }
}

/// What clap says instead of giving arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Help or version: the text to print.
    Asked(String),
    /// What is wrong, in one line.
    Wrong(String),
}

impl From<&clap::Error> for Said {
    /// Help and version are no errors, everything else is usage; without clap's own hints on more lines.
    fn from(error: &clap::Error) -> Said {
        let text = error.to_string();
        if let ErrorKind::DisplayHelp | ErrorKind::DisplayVersion = error.kind() {
            return Said::Asked(text);
        }
        let text = text.strip_prefix("error: ").unwrap_or(&text);
        let ends = ["\n\nUsage:", "\n\nFor more information"];
        let text = ends
            .iter()
            .fold(text, |text, end| text.split(end).next().unwrap_or(text));
        Said::Wrong(text.split_whitespace().collect::<Vec<_>>().join(" "))
    }
}

/// The variables that a tool takes from its environment, beside those that every tool does: those of its
/// flags, and those of its secrets, which are no flags.
pub fn variables(command: &Command, secrets: &[&str]) -> Vec<String> {
    let of_flags = command.get_arguments().filter_map(clap::Arg::get_env);
    let of_flags = of_flags.filter_map(|name| name.to_str().map(str::to_owned));
    let secrets = secrets.iter().map(|name| (*name).to_owned());
    of_flags.chain(secrets).collect()
}

/// The name of an Incus project.
///
/// # Errors
/// What is expected.
pub fn project_name(text: &str) -> Result<String, String> {
    named(text, !text.is_empty(), "an Incus project", "")
}

/// The name of a remote of Incus' client. Empty is no remote either, and must not come to mean this
/// host's Incus.
///
/// # Errors
/// What is expected.
pub fn remote_name(text: &str) -> Result<String, String> {
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    let of = "a remote of Incus' client";
    named(text, begins, of, "; see `incus remote list`")
}

/// A length of time in seconds, as a flag has it.
///
/// # Errors
/// What is expected.
pub fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= LONGEST_S => {
            Ok(Duration::from_secs_f64(seconds))
        }
        _ => Err(format!(
            "expected seconds, more than 0 and at most {LONGEST_S:.0}"
        )),
    }
}

/// A length of time in milliseconds, as a flag has it.
///
/// # Errors
/// What is expected.
pub fn milliseconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(ms) if (1..=600_000).contains(&ms) => Ok(Duration::from_millis(ms)),
        _ => Err("expected whole milliseconds, 1 to 600000".to_owned()),
    }
}

/// Which instance a node runs in: `NODE=INSTANCE`.
///
/// # Errors
/// What is expected.
pub fn node_instance(text: &str) -> Result<(String, InstanceName), String> {
    let (node, name) = text.split_once('=').ok_or("expected NODE=INSTANCE")?;
    if node.is_empty() {
        return Err("expected NODE=INSTANCE, with a node before the equals sign".to_owned());
    }
    Ok((
        node.to_owned(),
        InstanceName::new(name).map_err(|e| e.to_string())?,
    ))
}

fn named(text: &str, begins: bool, of: &str, hint: &str) -> Result<String, String> {
    let known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if begins && text.chars().all(known) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "expected the name of {of}: letters, digits, '-', '_', '.'{hint}"
    ))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    #[command(name = "a-check")]
    struct Tool {
        #[command(flatten)]
        output: Output,
        #[arg(long, env = "A_NUMBER")]
        number: Option<u8>,
    }

    fn parsed(args: &[&str]) -> Result<Tool, Said> {
        let all = ["a-check"].iter().chain(args);
        Tool::try_parse_from(all).map_err(|error| Said::from(&error))
    }

    #[test]
    fn what_clap_says_is_one_line_without_its_hints() {
        let Err(Said::Wrong(words)) = parsed(&["--number", "many"]) else {
            panic!()
        };
        assert!(
            words.contains("--number") && words.contains("many"),
            "{words}"
        );
        assert!(
            !words.contains('\n') && !words.starts_with("error"),
            "{words}"
        );
        assert!(
            !words.contains("Usage:") && !words.contains("For more"),
            "{words}"
        );
        assert!(matches!(parsed(&["--help"]), Err(Said::Asked(_))));
    }

    #[test]
    fn two_things_do_not_share_stdout() {
        let output = |args: &[&str]| parsed(args).unwrap().output;
        assert!(
            output(&["--events", "-", "--format", "json"])
                .check()
                .is_err()
        );
        assert_eq!(
            output(&["--events", "f", "--format", "json"]).check(),
            Ok(())
        );
        assert_eq!(output(&["--events", "-"]).check(), Ok(()));
    }

    #[test]
    fn one_report_is_shown_or_two_are_compared() {
        let looked = |args: &[&str]| parsed(args).unwrap().output.looked_at();
        assert_eq!(looked(&[]), None);
        assert_eq!(looked(&["--show", "a"]), Some(vec!["a".into()]));
        let two = Some(vec!["a".into(), "b".into()]);
        assert_eq!(looked(&["--compare", "a", "b"]), two);
        assert!(parsed(&["--compare", "a"]).is_err());
    }

    #[test]
    fn every_flag_with_a_variable_and_every_secret_is_known() {
        let command = <Tool as clap::CommandFactory>::command();
        let all = variables(&command, &["PG_PASSWORD"]);
        for name in ["A_NUMBER", "VEZA_REPORT", "PG_PASSWORD"] {
            assert!(all.iter().any(|known| known == name), "{name}: {all:?}");
        }
    }

    #[test]
    fn times_are_positive_and_at_most_a_day_and_nodes_have_names() {
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(seconds("86400"), Ok(Duration::from_secs(86_400)));
        for text in ["0", "-1", "NaN", "inf", "86400.1", "1e300", "", "1 s"] {
            assert!(seconds(text).is_err(), "{text}");
        }
        assert_eq!(milliseconds("20"), Ok(Duration::from_millis(20)));
        for text in ["0", "1.5", "600001", "20ms", ""] {
            assert!(milliseconds(text).is_err(), "{text}");
        }
        let (node, instance) = node_instance("a=b").unwrap();
        assert_eq!((node.as_str(), instance.as_str()), ("a", "b"));
        for text in ["a", "=b", "a=", "a=1b"] {
            assert!(node_instance(text).is_err(), "{text}");
        }
    }

    #[derive(Debug, Parser)]
    struct Drill {
        #[command(flatten)]
        drill: DrillArgs,
    }

    #[test]
    fn a_command_that_is_told_finds_the_same_incus() {
        let drill = |args: &[&str]| {
            let all = ["a-check", "--project", "p"].iter().chain(args);
            Drill::try_parse_from(all).unwrap().drill
        };
        assert_eq!(drill(&[]).so_far("a-check"), "a-check --project p");
        let remote = drill(&["--remote", "lab"]);
        assert_eq!(remote.so_far("a-check"), "a-check --remote lab --project p");
        let ten = Duration::from_secs(10);
        assert_eq!(drill(&[]).max_fault(ten), Duration::from_secs(15));
        let seven = drill(&["--max-fault", "7"]);
        assert_eq!(seven.max_fault(ten), Duration::from_secs(7));
        assert!(drill(&[]).shape().is_ok());
        assert!(Drill::try_parse_from(["c", "--project=p", "--expired"]).is_err());
    }

    #[test]
    fn names_are_of_few_characters_and_an_empty_one_is_none() {
        assert_eq!(project_name("a-b_c.1"), Ok("a-b_c.1".to_owned()));
        assert_eq!(remote_name("lab"), Ok("lab".to_owned()));
        for name in ["", "a/b", "a b", "a:"] {
            assert!(project_name(name).is_err() && remote_name(name).is_err());
        }
        assert!(remote_name(".lab").is_err());
    }
}
