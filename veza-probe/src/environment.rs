//! One file per environment: variables for the tools, so that staging and production are a word apart.
//!
//! A name that no tool knows is an error, never silently a default; a variable that is set already with
//! another value is one, too. The file is read before anything else, and the program then starts itself
//! again with the variables in its environment: nothing of it is ever in an argument.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use strsim::levenshtein;

use crate::command::Command;

/// The variable that names the file, beside the flag.
pub const ENV_FILE: &str = "VEZA_ENV_FILE";

/// The flag that names the file.
pub const FLAG: &str = "--env-file";

/// What every tool takes from its environment. Those of one tool are added by it.
const SHARED: [&str; 12] = [
    "INCUS_DIR",
    "INCUS_SOCKET",
    "NO_COLOR",
    "PGPASSFILE",
    "PGSSLMODE",
    "PGSSLROOTCERT",
    "PGUSER",
    "VEZA_INCUS_PROJECT",
    "VEZA_LAB_CREDENTIALS",
    "VEZA_STATE_DIR",
    "XDG_STATE_HOME",
    "INCUS_CONF",
];

/// A file of variables that can't be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// It can't be read.
    #[error("{FLAG} {}: {words}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        words: String,
    },
    /// A line is no variable.
    #[error("{FLAG} {}, line {line}: expected NAME=VALUE", path.display())]
    NoVariable {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
    },
    /// No tool knows the name.
    #[error("{FLAG} {}, line {line}: no tool knows {name}{}", path.display(), .near.as_ref().map(|near| format!("; did you mean {near}?")).unwrap_or_default())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
        /// The name.
        name: String,
        /// The name that it may be meant for.
        near: Option<String>,
    },
    /// It is set already, and otherwise.
    #[error("{FLAG} {}, line {line}: {name} is set in the environment with another value: unset it there, or remove it here", path.display())]
    Twice {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
        /// The name.
        name: String,
    },
    /// The flag has no value.
    #[error("{FLAG} needs the path of a file")]
    NoPath,
    /// The program could not start itself again.
    #[error("{FLAG}: starting this program again with the file's variables: {0}")]
    Start(String),
}

/// Takes `--env-file` (or `VEZA_ENV_FILE`) out of the arguments. When there is one, its variables are
/// checked and the program starts itself again with them: this does not return then. `known` are
/// the tool's own variables; `lookup` is `std::env::var_os` but in tests.
///
/// # Errors
/// [`Error`], with file and line, never with a value.
pub fn enter(
    args: &[OsString],
    known: &[String],
    lookup: impl Fn(&str) -> Option<OsString>,
) -> Result<(), Error> {
    let (rest, path) = split(args)?;
    let path = path.or_else(|| {
        lookup(ENV_FILE)
            .filter(|p| !p.is_empty())
            .map(PathBuf::from)
    });
    let Some(path) = path else {
        return Ok(());
    };
    let text = std::fs::read_to_string(&path).map_err(|error| Error::Unreadable {
        path: path.clone(),
        words: error.to_string(),
    })?;
    let variables = parse(&path, &text, known, lookup)?;
    let command = Command::new("/proc/self/exe").args(rest.iter().skip(1));
    let command = variables
        .into_iter()
        .fold(command, |command, (name, value)| command.env(name, value));
    // Read once: the second start has it all in its environment.
    let error = command.env_remove(ENV_FILE).replace(rest.first());
    Err(Error::Start(error.to_string()))
}

fn split(args: &[OsString]) -> Result<(Vec<OsString>, Option<PathBuf>), Error> {
    let (mut rest, mut path) = (Vec::new(), None);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let text = arg.to_str().unwrap_or_default();
        if text == "--" {
            rest.push(arg.clone());
            rest.extend(args.by_ref().cloned());
        } else if text == FLAG {
            path = Some(PathBuf::from(args.next().ok_or(Error::NoPath)?));
        } else if let Some(value) = text.strip_prefix("--env-file=") {
            path = Some(PathBuf::from(value));
        } else {
            rest.push(arg.clone());
        }
    }
    Ok((rest, path))
}

/// Lines of `NAME=VALUE`; the value is all after the first `=`, without one pair of quotes around it.
/// Empty lines and those that begin with `#` say nothing.
fn parse(
    path: &Path,
    text: &str,
    known: &[String],
    lookup: impl Fn(&str) -> Option<OsString>,
) -> Result<BTreeMap<String, String>, Error> {
    let mut variables = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let (line, number) = (line.trim(), index + 1);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let path = path.to_owned();
        let Some((name, value)) = line.split_once('=') else {
            return Err(Error::NoVariable { path, line: number });
        };
        let name = name.trim().strip_prefix("export ").unwrap_or(name.trim());
        if !is_known(name, known) {
            return Err(Error::Unknown {
                path,
                line: number,
                near: near(name, known),
                name: name.to_owned(),
            });
        }
        let value = unquoted(value.trim());
        let set = lookup(name).filter(|set| !set.is_empty());
        if set.is_some_and(|set| set != *value) {
            let (name, line) = (name.to_owned(), number);
            return Err(Error::Twice { path, line, name });
        }
        variables.insert(name.to_owned(), value.to_owned());
    }
    Ok(variables)
}

fn unquoted(value: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(inner) = value
            .strip_prefix(quote)
            .and_then(|v| v.strip_suffix(quote))
        {
            return inner;
        }
    }
    value
}

/// Every secret may also come from a file.
fn is_known(name: &str, known: &[String]) -> bool {
    let has = |name: &str| SHARED.contains(&name) || known.iter().any(|known| known == name);
    has(name) || name.strip_suffix("_FILE").is_some_and(has)
}

/// The known name that differs in the fewest letters, if it is few.
fn near(name: &str, known: &[String]) -> Option<String> {
    let all = SHARED
        .iter()
        .copied()
        .chain(known.iter().map(String::as_str));
    let closest = all.min_by_key(|other| levenshtein(name, other))?;
    (levenshtein(name, closest) <= 3).then(|| closest.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<BTreeMap<String, String>, Error> {
        let known = [
            "PGAF_MONITOR_URI".to_owned(),
            "RTO_TARGET_SECONDS".to_owned(),
        ];
        let set = |name: &str| (name == "RTO_TARGET_SECONDS").then(|| "60".into());
        parse(Path::new("lab.env"), text, &known, set)
    }

    #[test]
    fn variables_comments_and_quotes() {
        let text = "# lab\n\nVEZA_INCUS_PROJECT=veza-lab\n export PGAF_MONITOR_URI = \"postgres://a=b\"\n\
                    RTO_TARGET_SECONDS=60\nPGAF_MONITOR_URI_FILE='/run/uri'\n";
        let variables = parsed(text).unwrap();
        assert_eq!(variables["VEZA_INCUS_PROJECT"], "veza-lab");
        assert_eq!(variables["PGAF_MONITOR_URI"], "postgres://a=b");
        assert_eq!(variables["PGAF_MONITOR_URI_FILE"], "/run/uri");
    }

    #[test]
    fn a_typo_is_an_error_that_knows_what_was_meant_and_no_value_is_told() {
        let error = parsed("VEZA_INCUS_PROJECT=x\nRTO_TARGET_SECOND=secret").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("line 2") && text.contains("did you mean RTO_TARGET_SECONDS?"));
        assert!(!text.contains("secret"), "{text}");
        assert!(
            parsed("SOMETHING_ELSE=1")
                .unwrap_err()
                .to_string()
                .ends_with("SOMETHING_ELSE")
        );
        assert!(matches!(
            parsed("hello"),
            Err(Error::NoVariable { line: 1, .. })
        ));
        let twice = parsed("RTO_TARGET_SECONDS=61").unwrap_err();
        assert!(matches!(twice, Error::Twice { .. }), "{twice}");
    }

    #[test]
    fn the_flag_is_taken_out_of_the_arguments() {
        let split = |args: &[&str]| {
            let args: Vec<OsString> = args.iter().map(OsString::from).collect();
            let (rest, path) = split(&args).unwrap();
            let rest: Vec<_> = rest.into_iter().map(|a| a.into_string().unwrap()).collect();
            (rest.join(" "), path)
        };
        let file = Some(PathBuf::from("f"));
        assert_eq!(
            split(&["p", "--env-file", "f", "-q"]),
            ("p -q".into(), file.clone())
        );
        assert_eq!(split(&["p", "--env-file=f"]), ("p".into(), file));
        assert_eq!(
            split(&["p", "--", "--env-file", "f"]),
            ("p -- --env-file f".into(), None)
        );
        let args = ["p", "--env-file"].map(OsString::from);
        assert_eq!(super::split(&args), Err(Error::NoPath));
    }
}
