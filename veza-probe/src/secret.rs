//! A value that never shows: passwords and keys from the environment or from files.

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A secret text; `Debug` and `Display` show `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text that must not show.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text itself, for the protocol that needs it; never for a message.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Any text is a secret, so that no message about a bad value can repeat it.
impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Secret, Infallible> {
        Ok(Secret::new(text))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Why a secret could not be had. Says names and files, never contents.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Two sources, and no way to know which is meant.
    #[error("both {0} and {0}_FILE are set: unset one of them")]
    Both(String),
    /// The variable holds no text.
    #[error("{0} is not valid UTF-8: set it to plain text or use {0}_FILE")]
    NotText(String),
    /// The file that was named can't be read.
    #[error(
        "{name}_FILE names {path}, which can't be read: {source}; correct the path or its permissions"
    )]
    Unreadable {
        /// The variable without `_FILE`.
        name: String,
        /// The file it names.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Reads the secret `name` from the variable of that name, or from the file that `<name>_FILE`
/// names (one trailing line end is cut). An empty variable counts as not set. `lookup` is
/// `std::env::var_os` but in tests.
///
/// # Errors
/// [`Error`] when both are set, the variable is no text, or the file can't be read as text.
pub fn read(
    name: &str,
    lookup: impl Fn(&str) -> Option<std::ffi::OsString>,
) -> Result<Option<Secret>, Error> {
    let file_name = format!("{name}_FILE");
    let value = lookup(name).filter(|v| !v.is_empty());
    let file = lookup(&file_name).filter(|v| !v.is_empty());
    match (value, file) {
        (Some(_), Some(_)) => Err(Error::Both(name.to_owned())),
        (Some(value), None) => match value.into_string() {
            Ok(text) => Ok(Some(Secret(text))),
            Err(_) => Err(Error::NotText(name.to_owned())),
        },
        (None, Some(path)) => {
            let path = PathBuf::from(path);
            match std::fs::read_to_string(&path) {
                Ok(text) => {
                    let line = text.strip_suffix('\n').unwrap_or(&text);
                    Ok(Some(Secret(
                        line.strip_suffix('\r').unwrap_or(line).to_owned(),
                    )))
                }
                Err(source) => Err(Error::Unreadable {
                    name: name.to_owned(),
                    path,
                    source,
                }),
            }
        }
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env<'a>(
        pairs: &'a [(&'a str, &'a str)],
    ) -> impl Fn(&str) -> Option<std::ffi::OsString> + 'a {
        move |name| {
            pairs
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| v.into())
        }
    }

    #[test]
    fn a_secret_never_shows() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn variable_file_both_or_neither() {
        let path = std::env::temp_dir().join(format!("veza-secret-{}", std::process::id()));
        std::fs::write(&path, "from-file\n").unwrap();
        let file = path.to_str().unwrap();
        assert_eq!(
            read("P", env(&[("P", "v")])).unwrap().unwrap().expose(),
            "v"
        );
        assert_eq!(
            read("P", env(&[("P_FILE", file)]))
                .unwrap()
                .unwrap()
                .expose(),
            "from-file"
        );
        assert!(matches!(
            read("P", env(&[("P", "v"), ("P_FILE", file)])),
            Err(Error::Both(_))
        ));
        assert!(read("P", env(&[("P", "")])).unwrap().is_none());
        std::fs::remove_file(&path).unwrap();
        let gone = read("P", env(&[("P_FILE", file)])).unwrap_err().to_string();
        assert!(gone.contains(file) && gone.contains("P_FILE"), "{gone}");
    }
}
