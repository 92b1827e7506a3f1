//! A connection string together with what the environment adds, in libpq's order: what the string
//! says wins, then the variable, then the file.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::conninfo::{self, Conninfo};
use super::invalid::InvalidConninfo;
use super::options::SslMode;
use super::passfile::Passfile;
use crate::secret::{self, Secret};

/// Why a connection string and the environment don't make a login.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// No role is named; the system's user is not taken, or a run would depend on who started it.
    #[error("no user: name one in the connection string or set PGUSER")]
    NoUser,
    /// A variable holds something that the key of the same meaning doesn't take.
    #[error(transparent)]
    Invalid(#[from] InvalidConninfo),
    /// A variable is not text.
    #[error("{0} is not valid UTF-8: set it to plain text")]
    NotText(&'static str),
    /// The password's variable or its file.
    #[error(transparent)]
    Secret(#[from] secret::Error),
}

/// Where passwords come from.
#[derive(Clone, Debug)]
enum Passwords {
    /// One for every host, and the place it was found in.
    Fixed(Secret, &'static str),
    /// One for each host, from a file.
    File(Passfile),
    /// None was found.
    Unknown,
}

/// What a connection needs apart from an address. `Debug` shows no password.
#[derive(Clone, Debug)]
pub struct Login {
    /// As it was typed.
    pub conninfo: Conninfo,
    /// The role.
    pub user: String,
    /// The database.
    pub dbname: String,
    /// How much TLS.
    pub sslmode: SslMode,
    /// The root certificates, where a file was named; or the default file, where it is needed
    /// (verify-ca, verify-full) or exists (require).
    pub sslrootcert: Option<PathBuf>,
    /// What a person should know, such as a password file that was ignored; never secrets.
    pub warnings: Vec<String>,
    passwords: Passwords,
}

impl Login {
    /// Completes a connection string; `lookup` is `std::env::var_os` but in tests. Empty variables
    /// count as not set.
    ///
    /// The password is the string's own, else `PGPASSWORD` (or the file that `PGPASSWORD_FILE`
    /// names), else that of the password file: the key `passfile`, else `PGPASSFILE`, else
    /// `~/.pgpass`, matched for each host by itself.
    ///
    /// # Errors
    /// [`LoginError`] when no user is named, or a variable has no usable value.
    pub fn new(
        conninfo: Conninfo,
        lookup: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Login, LoginError> {
        let lookup = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let text = |name: &'static str| match lookup(name).map(OsString::into_string) {
            Some(Ok(text)) => Ok(Some(text)),
            Some(Err(_)) => Err(LoginError::NotText(name)),
            None => Ok(None),
        };
        let home = lookup("HOME").map(PathBuf::from);
        let user = match &conninfo.user {
            Some(user) => user.clone(),
            None => text("PGUSER")?.ok_or(LoginError::NoUser)?,
        };
        let dbname = conninfo.dbname.clone().unwrap_or_else(|| user.clone());
        let sslmode = match (conninfo.sslmode, text("PGSSLMODE")?) {
            (Some(mode), _) => mode,
            (None, Some(word)) => SslMode::read("PGSSLMODE", &word)?,
            (None, None) => SslMode::Prefer,
        };
        let named_root = match &conninfo.sslrootcert {
            Some(path) => Some(path.clone()),
            None => {
                conninfo::root_file("PGSSLROOTCERT", &text("PGSSLROOTCERT")?.unwrap_or_default())?
            }
        };
        let sslrootcert = named_root.or_else(|| default_root(sslmode, home.as_deref()));
        let mut warnings = Vec::new();
        let passwords = match (&conninfo.password, secret::read("PGPASSWORD", lookup)?) {
            (Some(password), _) => Passwords::Fixed(password.clone(), "the connection string"),
            (None, Some(password)) => Passwords::Fixed(password, "PGPASSWORD"),
            (None, None) => {
                let file = lookup("PGPASSFILE").map(PathBuf::from);
                let named = conninfo.passfile.clone().or(file);
                let default = home.map(|home| home.join(".pgpass"));
                let read = |path: &Path| Passfile::read(path, named.is_some(), &mut warnings);
                named
                    .clone()
                    .or(default)
                    .as_deref()
                    .and_then(read)
                    .map_or(Passwords::Unknown, Passwords::File)
            }
        };
        Ok(Login {
            conninfo,
            user,
            dbname,
            sslmode,
            sslrootcert,
            warnings,
            passwords,
        })
    }

    /// The password for one host, by the name and port under which the connection string (or
    /// whoever else names it) knows it.
    pub fn password(&self, host: &str, port: u16) -> Option<&Secret> {
        match &self.passwords {
            Passwords::Fixed(password, _) => Some(password),
            Passwords::File(file) => file.find(host, port, &self.dbname, &self.user),
            Passwords::Unknown => None,
        }
    }

    /// Where the password for one host comes from, in words, for a message about its refusal.
    pub fn password_source(&self, host: &str, port: u16) -> String {
        match &self.passwords {
            Passwords::Fixed(_, place) => format!("password from {place}"),
            Passwords::File(file) if self.password(host, port).is_some() => {
                format!("password from {}", file.path().display())
            }
            Passwords::File(file) => {
                format!("no password: no line of {} fits", file.path().display())
            }
            Passwords::Unknown => "no password was found".to_owned(),
        }
    }
}

/// `~/.postgresql/root.crt`, as in libpq: always for the modes that need it, and for `require` when
/// it exists.
fn default_root(sslmode: SslMode, home: Option<&Path>) -> Option<PathBuf> {
    let path = home?.join(".postgresql/root.crt");
    match sslmode {
        SslMode::VerifyCa | SslMode::VerifyFull => Some(path),
        SslMode::Require => path.exists().then_some(path),
        SslMode::Disable | SslMode::Allow | SslMode::Prefer => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(text: &str, environment: &[(&str, &str)]) -> Result<Login, LoginError> {
        let find = |name: &str| {
            environment
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| v.into())
        };
        Login::new(text.parse().unwrap(), find)
    }

    fn password(login: &Login, host: &str, port: u16) -> Option<String> {
        login
            .password(host, port)
            .map(|secret| secret.expose().to_owned())
    }

    /// A folder of its own for a test, gone afterwards.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path =
                std::env::temp_dir().join(format!("veza-login-{name}-{}", std::process::id()));
            std::fs::create_dir_all(path.join(".postgresql")).unwrap();
            Folder(path)
        }

        fn write(&self, name: &str, text: &str) -> String {
            use std::os::unix::fs::PermissionsExt as _;
            let path = self.0.join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            path.display().to_string()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_string_then_the_variable_then_the_file() {
        let folder = Folder::new("order");
        let key = folder.write("key", "h1:1:d:u:k1\nh2:*:*:*:k2\n");
        let variable = folder.write("variable", "*:*:*:*:v\n");
        folder.write(".pgpass", "*:*:*:*:home\n");
        let home = ("HOME", folder.0.to_str().unwrap());
        let file = ("PGPASSFILE", variable.as_str());
        let given = ("PGPASSWORD", "env");
        let uri = format!("postgres://u@h1:1,h2:2/d?passfile={key}");

        let all = login("postgres://u:uri@h/d", &[given, file, home]).unwrap();
        assert_eq!(password(&all, "h", 5432).unwrap(), "uri");
        assert_eq!(
            password(&login(&uri, &[given, home]).unwrap(), "h1", 1).unwrap(),
            "env"
        );
        let by_key = login(&uri, &[file, home]).unwrap();
        assert_eq!(password(&by_key, "h1", 1).unwrap(), "k1");
        assert_eq!(password(&by_key, "h2", 2).unwrap(), "k2");
        assert_eq!(password(&by_key, "h3", 2), None);
        assert!(by_key.password_source("h3", 2).contains(&key));
        let by_variable = login("postgres://u@h/d", &[file, home]).unwrap();
        assert_eq!(password(&by_variable, "h", 5432).unwrap(), "v");
        let by_home = login("postgres://u@h/d", &[home]).unwrap();
        assert_eq!(password(&by_home, "h", 5432).unwrap(), "home");
        assert_eq!(
            password(&login("postgres://u@h/d", &[]).unwrap(), "h", 5432),
            None
        );
        let from_file = [("PGPASSWORD_FILE", variable.as_str())];
        let from_file = login("postgres://u@h/d", &from_file).unwrap();
        assert_eq!(password(&from_file, "h", 5432).unwrap(), "*:*:*:*:v");
        assert!(!format!("{all:?} {by_key:?}").contains("uri\""), "{all:?}");
    }

    #[test]
    fn user_and_database() {
        assert!(matches!(
            login("postgres://h/d", &[]),
            Err(LoginError::NoUser)
        ));
        let login = login("postgres://h", &[("PGUSER", "eva")]).unwrap();
        assert_eq!((login.user.as_str(), login.dbname.as_str()), ("eva", "eva"));
    }

    #[test]
    fn sslmode_and_root_certificate() {
        let folder = Folder::new("tls");
        let home = ("HOME", folder.0.to_str().unwrap());
        let root = |text: &str| login(text, &[home]).unwrap().sslrootcert;
        assert_eq!(
            login("postgres://u@h", &[]).unwrap().sslmode,
            SslMode::Prefer
        );
        let variables = [("PGSSLMODE", "verify-ca"), ("PGSSLROOTCERT", "/ca")];
        let given = login("postgres://u@h", &variables).unwrap();
        assert_eq!(
            (given.sslmode, given.sslrootcert),
            (SslMode::VerifyCa, Some("/ca".into()))
        );
        let kept = login("postgres://u@h?sslmode=disable&sslrootcert=/x", &variables).unwrap();
        assert_eq!(
            (kept.sslmode, kept.sslrootcert),
            (SslMode::Disable, Some("/x".into()))
        );
        let bad = login("postgres://u@h", &[("PGSSLMODE", "maybe")])
            .unwrap_err()
            .to_string();
        assert!(bad.contains("PGSSLMODE") && !bad.contains("maybe"), "{bad}");
        assert!(root("postgres://u@h?sslmode=require").is_none());
        let default = folder.0.join(".postgresql/root.crt");
        assert_eq!(
            root("postgres://u@h?sslmode=verify-full"),
            Some(default.clone())
        );
        std::fs::write(&default, "").unwrap();
        assert_eq!(root("postgres://u@h?sslmode=require"), Some(default));
        assert!(root("postgres://u@h?sslmode=prefer").is_none());
    }
}
