//! Arguments that every tool has: what they mean is said once. Checked for form only.

use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{Args, Command, ValueEnum};

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
/// flags, and the password that belongs to each prefix.
pub fn variables(command: &Command, prefixes: &[&str]) -> Vec<String> {
    let of_flags = command.get_arguments().filter_map(clap::Arg::get_env);
    let of_flags = of_flags.filter_map(|name| name.to_str().map(str::to_owned));
    let passwords = prefixes.iter().map(|prefix| format!("{prefix}_PASSWORD"));
    of_flags.chain(passwords).collect()
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
    fn every_flag_with_a_variable_and_every_password_is_known() {
        let command = <Tool as clap::CommandFactory>::command();
        let all = variables(&command, &["PG"]);
        for name in ["A_NUMBER", "VEZA_REPORT", "PG_PASSWORD"] {
            assert!(all.iter().any(|known| known == name), "{name}: {all:?}");
        }
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
