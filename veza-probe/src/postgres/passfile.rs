//! libpq's password file: lines of `host:port:database:user:password`, of which the first that fits
//! is taken.
//!
//! Source: <https://www.postgresql.org/docs/17/libpq-pgpass.html>. Each of the first four fields is
//! literal or `*`; `:` and `\` in a field are written `\:` and `\\`; a line that starts with `#` is a
//! comment.

use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::secret::Secret;

/// A password file that was read; `Debug` shows the path and the number of lines only.
#[derive(Clone, PartialEq, Eq)]
pub struct Passfile {
    path: PathBuf,
    entries: Vec<Entry>,
}

#[derive(Clone, PartialEq, Eq)]
struct Entry {
    /// Host, port, database, user; `None` is `*`.
    fields: [Option<String>; 4],
    password: Secret,
}

impl fmt::Debug for Passfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Passfile({}, {} entries)",
            self.path.display(),
            self.entries.len()
        )
    }
}

impl Passfile {
    /// Reads a file; a problem is a warning and the file is ignored, as libpq does. A file that is
    /// not there is no warning unless it was `named` by somebody.
    pub(super) fn read(path: &Path, named: bool, warnings: &mut Vec<String>) -> Option<Passfile> {
        let shown = path.display();
        let metadata = match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) => {
                if named || error.kind() != std::io::ErrorKind::NotFound {
                    warnings.push(format!("password file {shown} is ignored: {error}"));
                }
                return None;
            }
        };
        if !metadata.is_file() {
            warnings.push(format!(
                "password file {shown} is ignored: it is not a plain file"
            ));
            return None;
        }
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            warnings.push(format!(
                "password file {shown} is ignored: group or others may use it (mode {mode:04o}); \
                 chmod 0600 {shown}"
            ));
            return None;
        }
        match std::fs::read(path) {
            Ok(bytes) => Some(Passfile::parse(path, &bytes, warnings)),
            Err(error) => {
                warnings.push(format!("password file {shown} is ignored: {error}"));
                None
            }
        }
    }

    /// Reads the lines; one that is not UTF-8 is skipped with a warning, one with too few fields
    /// without, as in libpq.
    fn parse(path: &Path, bytes: &[u8], warnings: &mut Vec<String>) -> Passfile {
        let mut entries = Vec::new();
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            match std::str::from_utf8(line) {
                Ok(line) => entries.extend(Entry::parse(line.strip_suffix('\r').unwrap_or(line))),
                Err(_) => warnings.push(format!(
                    "password file {}: line {} is ignored: it is not UTF-8",
                    path.display(),
                    index + 1
                )),
            }
        }
        Passfile {
            path: path.to_owned(),
            entries,
        }
    }

    /// Where it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The password of the first line that fits; none when that line's password is empty.
    pub fn find(&self, host: &str, port: u16, dbname: &str, user: &str) -> Option<&Secret> {
        let port = port.to_string();
        let wanted = [host, port.as_str(), dbname, user];
        let fits = |entry: &&Entry| {
            let mut both = entry.fields.iter().zip(wanted);
            both.all(|(field, wanted)| field.as_deref().is_none_or(|field| field == wanted))
        };
        let password = &self.entries.iter().find(fits)?.password;
        (!password.expose().is_empty()).then_some(password)
    }
}

impl Entry {
    fn parse(line: &str) -> Option<Entry> {
        if line.starts_with('#') {
            return None;
        }
        let mut rest = line;
        let mut fields = [None, None, None, None];
        for field in &mut fields {
            let (raw, text, after) = take_field(rest);
            *field = (raw != "*").then_some(text);
            rest = after?;
        }
        let (_, password, _) = take_field(rest);
        Some(Entry {
            fields,
            password: Secret::new(password),
        })
    }
}

/// A field up to the next bare `:`, as written and without its backslashes; and what comes after the
/// `:`, if there is one.
fn take_field(text: &str) -> (&str, String, Option<&str>) {
    let mut plain = String::new();
    let mut characters = text.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            ':' => return (&text[..index], plain, Some(&text[index + 1..])),
            // A backslash at the very end stands for itself.
            '\\' => plain.push(characters.next().map_or('\\', |(_, escaped)| escaped)),
            _ => plain.push(character),
        }
    }
    (text, plain, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Passfile {
        Passfile::parse(Path::new("p"), text.as_bytes(), &mut Vec::new())
    }

    fn found(file: &Passfile, host: &str, port: u16, db: &str, user: &str) -> Option<String> {
        file.find(host, port, db, user)
            .map(|s| s.expose().to_owned())
    }

    #[test]
    fn the_first_line_that_fits_is_taken() {
        let file = parse("# c\nh:5432:d:u:one\nh:*:d:u:two\r\nshort:line\n*:*:*:*:any\n");
        assert_eq!(found(&file, "h", 5432, "d", "u").unwrap(), "one");
        assert_eq!(found(&file, "h", 5433, "d", "u").unwrap(), "two");
        assert_eq!(found(&file, "x", 1, "d", "u").unwrap(), "any");
        assert_eq!(found(&parse("h:1:d:u:x"), "h", 2, "d", "u"), None);
    }

    #[test]
    fn escapes_and_stars() {
        let file = parse(r"a\:b:*:d\\e:u:p\:w\\x:rest");
        assert_eq!(found(&file, "a:b", 1, r"d\e", "u").unwrap(), r"p:w\x");
        let star = parse(r"\*:*:*:*:x");
        assert_eq!(found(&star, "h", 1, "d", "u"), None);
        assert_eq!(found(&star, "*", 1, "d", "u").unwrap(), "x");
    }

    #[test]
    fn an_empty_password_is_none() {
        assert_eq!(found(&parse("h:1:d:u:\n*:*:*:*:x"), "h", 1, "d", "u"), None);
    }

    #[test]
    fn what_others_may_read_is_ignored_with_a_warning() {
        let path = std::env::temp_dir().join(format!("veza-passfile-{}", std::process::id()));
        std::fs::write(&path, b"*:*:*:*:geheim\n\xff\n").unwrap();
        let set =
            |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let mut warnings = Vec::new();
        for mode in [0o640, 0o604, 0o644] {
            set(mode);
            assert!(
                Passfile::read(&path, true, &mut warnings).is_none(),
                "{mode:o}"
            );
        }
        assert!(
            warnings.len() == 3 && warnings[0].contains("0640"),
            "{warnings:?}"
        );
        set(0o600);
        let file = Passfile::read(&path, true, &mut warnings).unwrap();
        assert!(
            warnings.len() == 4 && warnings[3].contains("line 2"),
            "{warnings:?}"
        );
        assert!(!format!("{file:?} {warnings:?}").contains("geheim"));
        std::fs::remove_file(&path).unwrap();
        assert!(Passfile::read(&path, false, &mut warnings).is_none());
        assert_eq!(warnings.len(), 4);
        assert!(Passfile::read(&path, true, &mut warnings).is_none());
        assert!(Passfile::read(&std::env::temp_dir(), false, &mut warnings).is_none());
        assert_eq!(warnings.len(), 6);
    }

    proptest! {
        #[test]
        fn escaped_fields_come_back(
            fields in prop::array::uniform4("[^\\n\\r\\x00]{1,12}"),
            password in "[^\\n\\r\\x00]{1,20}",
        ) {
            let escape = |s: &str| s.replace('\\', "\\\\").replace(':', "\\:").replace('*', "\\*");
            let [host, _, db, user] = fields.clone().map(|f| escape(&f));
            prop_assume!(!host.starts_with('#'));
            let file = parse(&format!("{host}:7:{db}:{user}:{}", escape(&password)));
            let [host, _, db, user] = &fields;
            prop_assert_eq!(found(&file, host, 7, db, user), Some(password));
        }

        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let file = Passfile::parse(Path::new("p"), &bytes, &mut Vec::new());
            let _ = file.find("h", 1, "d", "u");
        }
    }
}
