//! A way to log in somewhere, prepared once, as a tool's arguments and environment give it.

use std::ffi::OsString;

use super::conninfo::Conninfo;
use super::login::Login;
use super::tls::Tls;
use crate::secret::Secret;

/// A login with its encryption, for any number of connections.
#[derive(Clone, Debug)]
pub struct Access {
    /// Who logs in, with which password.
    pub login: Login,
    /// The encryption.
    pub tls: Tls,
}

impl Access {
    /// A login with the password of the variable that belongs to it, `<prefix>_PASSWORD` or
    /// `<prefix>_PASSWORD_FILE`: `PGPASSWORD` could only be right for one of several logins. `lookup` is
    /// `std::env::var_os` but in tests.
    ///
    /// # Errors
    /// A sentence: no user, a variable without a usable value, no root certificates.
    pub fn new(
        conninfo: Conninfo,
        prefix: &str,
        lookup: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Access, String> {
        let own = |name: &str| match name {
            "PGPASSWORD" => lookup(&format!("{prefix}_PASSWORD")),
            "PGPASSWORD_FILE" => lookup(&format!("{prefix}_PASSWORD_FILE")),
            other => lookup(other),
        };
        let login = Login::new(conninfo, own).map_err(|e| e.to_string())?;
        let tls = Tls::new(&login).map_err(|e| e.to_string())?;
        Ok(Access { login, tls })
    }
}

impl Conninfo {
    /// Reads a URI that was typed as a flag or stood in a variable. It is never echoed: it may hold a
    /// password even where it must not.
    ///
    /// # Errors
    /// A sentence that names where it came from; also for a password that was typed.
    pub fn given(
        uri: &Secret,
        (flag, variable): (&str, &str),
        typed: bool,
    ) -> Result<Conninfo, String> {
        let name = if typed { flag } else { variable };
        let parsed: Conninfo = uri.expose().parse().map_err(|e| format!("{name}: {e}"))?;
        if typed && parsed.has_password() {
            return Err(format!(
                "{flag} holds a password, which every user of this host can read in the process list: \
                 put it into PGPASSFILE, or set {variable} instead"
            ));
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_login_has_a_password_of_its_own() {
        let find = |name: &str| match name {
            "ONE_PASSWORD" => Some("first".into()),
            "PGPASSWORD" => Some("of nobody".into()),
            _ => None,
        };
        let of = |prefix: &str| {
            let conninfo = "host=a user=eva".parse().unwrap();
            let access = Access::new(conninfo, prefix, find).unwrap();
            access.login.password("a", 5432).cloned()
        };
        assert_eq!(of("ONE"), Some(Secret::new("first")));
        assert_eq!(of("TWO"), None);
    }

    #[test]
    fn a_password_may_stand_in_a_variable_and_not_in_a_flag() {
        let uri = Secret::new("postgres://eva:hunter2@a/b");
        let names = ("--uri", "THE_URI");
        assert!(Conninfo::given(&uri, names, false).unwrap().has_password());
        let words = Conninfo::given(&uri, names, true).unwrap_err();
        assert!(
            words.contains("--uri") && words.contains("THE_URI"),
            "{words}"
        );
        assert!(!words.contains("hunter2"), "{words}");
        let wrong = Secret::new("postgres://eva:hunter2@a/b?nonsense=1");
        for typed in [true, false] {
            let words = Conninfo::given(&wrong, names, typed).unwrap_err();
            assert!(!words.contains("hunter2"), "{words}");
        }
    }
}
