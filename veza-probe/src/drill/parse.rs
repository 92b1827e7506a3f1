//! What was typed, as a check's arguments, or as what has to be said instead of running.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;
use clap::parser::ValueSource;

use super::Check;
use crate::arguments::{self, Said};
use crate::verdict::{Judgement, Verdict};

/// What came of the arguments.
#[derive(Debug)]
pub enum Parsed<C> {
    /// Arguments to run with.
    Run(Box<C>),
    /// `--help` or `--version`: the text to print.
    Tell(String),
    /// `--show` or `--compare`: one report, or two.
    Look(Vec<PathBuf>),
    /// Bad arguments or environment values.
    Usage(Judgement),
}

/// Parses arguments and environment.
pub fn parse<C: Check>(args: impl IntoIterator<Item = OsString>) -> Parsed<C> {
    let args: Vec<OsString> = args.into_iter().collect();
    if let Some(looked) = look(&args) {
        return looked;
    }
    let parsed = C::command().try_get_matches_from(args);
    let parsed = parsed.and_then(|matches| Ok((C::from_arg_matches(&matches)?, matches)));
    let (mut check, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return told::<C>(&error),
    };
    let typed = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let complete = check.drill().shape().map(|_| ());
    let complete = complete.and_then(|()| check.drill().output.check());
    match complete.and_then(|()| check.complete(&typed)) {
        Ok(()) => Parsed::Run(Box::new(check)),
        Err(words) => Parsed::Usage(usage::<C>(words)),
    }
}

/// Arguments that only look at reports, for which nothing of a run is needed.
#[derive(Debug, Parser)]
#[command(disable_help_flag = true)]
struct Look {
    #[arg(long, conflicts_with = "compare")]
    show: Option<PathBuf>,
    #[arg(long, num_args = 2)]
    compare: Option<Vec<PathBuf>>,
}

fn look<C: Check>(args: &[OsString]) -> Option<Parsed<C>> {
    let is_it = |arg: &OsString| {
        let text = arg.to_str().unwrap_or_default();
        let name = text.split('=').next().unwrap_or_default();
        name == "--show" || name == "--compare"
    };
    if !args.iter().any(is_it) {
        return None;
    }
    Some(match Look::try_parse_from(args) {
        Ok(Look { show, compare }) => {
            let paths = compare.or_else(|| show.map(|path| vec![path]));
            Parsed::Look(paths.unwrap_or_default())
        }
        Err(error) => told::<C>(&error),
    })
}

/// clap's error as ours.
fn told<C: Check>(error: &clap::Error) -> Parsed<C> {
    match Said::from(error) {
        Said::Asked(text) => Parsed::Tell(text),
        Said::Wrong(words) => Parsed::Usage(usage::<C>(words)),
    }
}

/// The variables that a check takes from its environment, beside those that every tool does.
pub(super) fn variables<C: Check>() -> Vec<String> {
    arguments::variables(&C::command(), C::SECRETS)
}

/// A judgement on bad arguments.
pub fn usage<C: Check>(words: impl Into<String>) -> Judgement {
    let next = format!("{} --help", C::NAME);
    Judgement::new(Verdict::Usage, "bad-arguments", words, next)
}
