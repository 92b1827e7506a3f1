//! PgBouncer's section [databases] as a file: its text, and how it gets onto the disk whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

/// What each server connection runs before a client gets it. An error would only be logged, so the
/// backend ends itself where no write is taken, whatever this file says.
const GUARD: &str = "select pg_catalog.pg_terminate_backend(pg_catalog.pg_backend_pid()) \
                     where pg_catalog.current_setting('transaction_read_only') = 'on'";

/// A database that clients name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// As clients name it.
    pub name: String,
    /// As the formation names it.
    pub dbname: String,
}

impl Database {
    /// Reads `NAME` or `NAME=DBNAME`.
    ///
    /// # Errors
    /// For a name that no configuration file can hold, or that means something else to PgBouncer.
    pub fn parse(text: &str) -> Result<Database, String> {
        let (name, dbname) = text.split_once('=').unwrap_or((text, text));
        for part in [name, dbname] {
            if part.is_empty() || part.len() > 63 || part.chars().any(char::is_control) {
                return Err(format!(
                    "expected NAME or NAME=DBNAME, each of 1 to 63 bytes without control characters, not {text:?}"
                ));
            }
        }
        // Seen with 1.24.1: whatever the manual says of quotes, any other name makes PgBouncer refuse all of
        // its configuration.
        let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if !name.chars().all(plain) {
            return Err(format!(
                "{name:?} can't be a name in PgBouncer's configuration: letters, digits, '_', '.', '-'; \
                 for another name in the formation, NAME=DBNAME"
            ));
        }
        if name == "pgbouncer" {
            return Err(format!("{name:?} is PgBouncer's own console"));
        }
        Ok(Database {
            name: name.to_owned(),
            dbname: dbname.to_owned(),
        })
    }
}

/// The file's text for this primary.
pub fn render(databases: &[Database], host: &str, port: u16) -> String {
    let mut text = String::from(
        "; Written by pgbouncer-follow from what pg_auto_failover's monitor says; changes are written over.\n\
         [databases]\n",
    );
    for database in databases {
        text.push_str(&format!(
            "{} = host={} port={port} dbname={} connect_query={}\n",
            database.name,
            value(host),
            value(&database.dbname),
            value(GUARD)
        ));
    }
    text
}

/// A value on the right, in single quotes.
fn value(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The file as it is; none when it isn't there.
///
/// # Errors
/// As the system says, with the path.
pub fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(named(path, &error)),
    }
}

/// Writes the file under another name, synced, then renamed: PgBouncer, or a start after a crash, sees the
/// old text or the new one. Owner and mode stay those of the file that was there.
///
/// # Errors
/// As the system says, with the path. The old file is still there then.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    let temporary = temporary(path);
    let written = write_as(&temporary, path, text);
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written.map_err(|error| named(path, &error))
}

fn write_as(temporary: &Path, path: &Path, text: &str) -> io::Result<()> {
    // What a process of the same id left behind when it was killed.
    let _ = std::fs::remove_file(temporary);
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o640)
        .open(temporary)?;
    if let Ok(before) = std::fs::metadata(path) {
        let made = file.metadata()?;
        if (made.uid(), made.gid()) != (before.uid(), before.gid()) {
            fchown(&file, Some(before.uid()), Some(before.gid()))?;
        }
        file.set_permissions(std::fs::Permissions::from_mode(before.mode() & 0o777))?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(temporary, path)?;
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}", std::process::id()))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(text: &str) -> Database {
        Database::parse(text).unwrap()
    }

    #[test]
    fn a_plain_database_is_plain() {
        let text = render(&[database("veza")], "a.lxd", 5432);
        let line = text.lines().last().unwrap();
        let start = "veza = host='a.lxd' port=5432 dbname='veza' connect_query='select ";
        assert!(line.starts_with(start), "{line}");
        assert!(
            line.ends_with("(''transaction_read_only'') = ''on'''"),
            "{line}"
        );
        assert_eq!(
            text.lines().filter(|line| *line == "[databases]").count(),
            1
        );
    }

    #[test]
    fn hostile_names_stay_names() {
        let databases = [database("c=it's [pgbouncer]; x = y\\"), database("a.b-c_d")];
        let text = render(&databases, "h", 1);
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(lines.len(), 2);
        let start = "c = host='h' port=1 dbname='it''s [pgbouncer]; x = y\\' connect_query='";
        assert!(lines[0].starts_with(start), "{text}");
        assert!(lines[1].starts_with("a.b-c_d = host='h' port=1 dbname='a.b-c_d' "));
    }

    #[test]
    fn names_that_no_file_can_hold_are_refused() {
        for text in [
            "",
            "=",
            "a=",
            "=a",
            "a\nb",
            "a\0",
            "pgbouncer",
            "*",
            "*=a",
            "a b",
            "a;b",
            "[a]",
            "ü",
        ] {
            assert!(Database::parse(text).is_err(), "{text:?}");
        }
        assert!(Database::parse(&"x".repeat(64)).is_err());
        assert_eq!(database("a=b=c").dbname, "b=c");
    }

    #[test]
    fn a_file_is_replaced_whole_and_keeps_its_mode() {
        let folder = std::env::temp_dir().join(format!("follow-file-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("d.ini");
        assert_eq!(read(&path).unwrap(), None);
        write(&path, "one").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o604)).unwrap();
        let inode = std::fs::metadata(&path).unwrap().ino();
        write(&path, "two").unwrap();
        let after = std::fs::metadata(&path).unwrap();
        assert_eq!((after.mode() & 0o777, after.ino() == inode), (0o604, false));
        assert_eq!(read(&path).unwrap().unwrap(), b"two");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        std::fs::remove_dir_all(&folder).unwrap();
        let error = write(&path, "three").unwrap_err().to_string();
        assert!(error.contains("d.ini"), "{error}");
    }
}
