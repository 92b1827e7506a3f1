//! Where Redis is, from the environment: through sentinels, or one instance at a URL.

use std::ffi::OsString;
use std::fmt;

use ::redis::{ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo};
use veza_probe::secret::{self, Secret};

/// Where a sentinel listens unless its address says otherwise.
const SENTINEL_PORT: u16 = 26379;

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// A name or an address; an IPv6 address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Who to log in as. Without a password nothing is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Login {
    /// The ACL user; without one it is Redis' `default`.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
}

impl Login {
    /// As the driver takes it.
    pub(super) fn settings(&self) -> RedisConnectionInfo {
        // The library's name and version would be one more thing that an ACL has to allow.
        let mut settings = RedisConnectionInfo::default().set_skip_set_lib_name();
        if let Some(password) = &self.password {
            settings = settings.set_password(password.expose());
            if let Some(username) = &self.username {
                settings = settings.set_username(username);
            }
        }
        settings
    }
}

/// Where the master is to be found.
#[derive(Clone, Debug)]
pub enum Place {
    /// The sentinels know, at each moment.
    Sentinels {
        /// Each sentinel; at least one.
        addresses: Vec<Address>,
        /// The name under which they watch the master.
        master_name: String,
        /// The login at the sentinels.
        login: Login,
    },
    /// Always at this place.
    Single(Box<ConnectionInfo>),
}

/// All that is needed to reach Redis.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the master is to be found.
    pub place: Place,
    /// The login at the master that the sentinels name; a URL has its own.
    pub login: Login,
}

/// Why the environment says nothing that can be used. Names variables, never their secrets.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no place at all.
    #[error(
        "neither REDIS_SENTINEL_ADDRS nor REDIS_URL is set: set the first to HOST:PORT,… of the sentinels, \
         or the second to redis://HOST:PORT/0"
    )]
    NoPlace,
    /// A sentinel's address is none.
    #[error("REDIS_SENTINEL_ADDRS: {0:?} is no HOST:PORT: correct it")]
    NoAddress(String),
    /// It is not known which master the sentinels are asked for.
    #[error(
        "REDIS_SENTINEL_ADDRS is set, REDIS_SENTINEL_MASTER_NAME is not: set it to the name in \
         `sentinel monitor NAME …`"
    )]
    NoMasterName,
    /// The URL can't be used.
    #[error("REDIS_URL is no redis://[USER:PASSWORD@]HOST[:PORT][/DB]: {0}")]
    Url(String),
    /// Two passwords for one place.
    #[error("REDIS_URL has a password, and REDIS_PASSWORD is set, too: take one of them away")]
    TwoPasswords,
    /// The variable holds no text.
    #[error("{0} is not valid UTF-8: set it to plain text")]
    NotText(String),
    /// A secret can't be had.
    #[error(transparent)]
    Secret(#[from] secret::Error),
}

impl Config {
    /// From the environment; `lookup` is `std::env::var_os` but in tests. Sentinels come first: with
    /// `REDIS_SENTINEL_ADDRS` empty, or only commas and spaces, it is `REDIS_URL`.
    ///
    /// # Errors
    /// [`Error`], which says the variable and what to do about it.
    pub fn from_env(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Config, Error> {
        let text = |name: &str| match lookup(name).filter(|value| !value.is_empty()) {
            None => Ok(None),
            Some(value) => value
                .into_string()
                .map(Some)
                .map_err(|_| Error::NotText(name.to_owned())),
        };
        let login = |prefix: &str| -> Result<Login, Error> {
            Ok(Login {
                username: text(&format!("{prefix}_USERNAME"))?,
                password: secret::read(&format!("{prefix}_PASSWORD"), &lookup)?,
            })
        };
        let addresses = addresses(&text("REDIS_SENTINEL_ADDRS")?.unwrap_or_default())?;
        let data = login("REDIS")?;
        if addresses.is_empty() {
            let url = secret::read("REDIS_URL", &lookup)?.ok_or(Error::NoPlace)?;
            return Ok(Config {
                place: Place::Single(Box::new(single(&url, &data)?)),
                login: data,
            });
        }
        let master_name = text("REDIS_SENTINEL_MASTER_NAME")?.unwrap_or_default();
        let master_name = master_name.trim().to_owned();
        if master_name.is_empty() {
            return Err(Error::NoMasterName);
        }
        let login = login("REDIS_SENTINEL")?;
        Ok(Config {
            place: Place::Sentinels {
                addresses,
                master_name,
                login,
            },
            login: data,
        })
    }
}

/// Addresses separated by commas; spaces around them and empty parts say nothing.
fn addresses(text: &str) -> Result<Vec<Address>, Error> {
    let parts = text.split(',').map(str::trim);
    parts
        .filter(|part| !part.is_empty())
        .map(|part| address(part).ok_or_else(|| Error::NoAddress(part.to_owned())))
        .collect()
}

/// `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`.
fn address(part: &str) -> Option<Address> {
    let (host, port) = match part.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            (
                host,
                rest.strip_prefix(':').or(rest.is_empty().then_some("")),
            )
        }
        None => match part.split_once(':') {
            Some((host, port)) => (host, Some(port).filter(|port| !port.is_empty())),
            None => (part, Some("")),
        },
    };
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    let port = match port? {
        "" => SENTINEL_PORT,
        port => port.parse().ok().filter(|port| *port != 0)?,
    };
    (!host.is_empty() && host.chars().all(good)).then(|| Address {
        host: host.to_owned(),
        port,
    })
}

/// A URL, with the login of the variables where it has none.
fn single(url: &Secret, login: &Login) -> Result<ConnectionInfo, Error> {
    // The driver's words may repeat a part of the URL; its category does not.
    let parsed = url.expose().into_connection_info();
    let info = parsed.map_err(|error| Error::Url(error.category().to_owned()))?;
    let settings = info.redis_settings().clone().set_skip_set_lib_name();
    if settings.password().is_some() {
        return match login.password {
            Some(_) => Err(Error::TwoPasswords),
            None => Ok(info.set_redis_settings(settings)),
        };
    }
    let settings = login.settings().set_db(settings.db());
    Ok(info.set_redis_settings(settings))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn config(pairs: &[(&str, &str)]) -> Result<Config, Error> {
        Config::from_env(|name| {
            let found = pairs.iter().find(|(n, _)| *n == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    fn told(pairs: &[(&str, &str)]) -> String {
        config(pairs).unwrap_err().to_string()
    }

    #[test]
    fn addresses_are_trimmed_and_empty_parts_dropped() {
        let found = addresses(" a:1, ,b ,[::1]:3,,[fe80::1] ,").unwrap();
        let shown: Vec<String> = found.iter().map(Address::to_string).collect();
        assert_eq!(shown, ["a:1", "b:26379", "[::1]:3", "[fe80::1]:26379"]);
        assert!(addresses(" , ,,").unwrap().is_empty());
    }

    #[test]
    fn what_is_no_address_is_named() {
        for bad in [
            "a:", "a:0", "a:65536", ":1", "a:b", "[::1", "[::1]x", "a b:1", "::1", "u@a:1",
        ] {
            let error = addresses(&format!("good:1,{bad}")).unwrap_err().to_string();
            assert!(
                error.contains(bad) && error.contains("REDIS_SENTINEL_ADDRS"),
                "{error}"
            );
        }
    }

    proptest! {
        #[test]
        fn whatever_is_typed_is_parsed_or_refused_and_what_is_shown_is_read_again(text in ".{0,40}") {
            if let Ok(found) = addresses(&text) {
                let shown: Vec<String> = found.iter().map(Address::to_string).collect();
                prop_assert_eq!(addresses(&shown.join(",")).unwrap(), found);
            }
        }
    }

    #[test]
    fn sentinels_come_before_the_url_and_without_any_it_is_the_url() {
        let url = ("REDIS_URL", "redis://:from-url@h:7/2");
        let name = ("REDIS_SENTINEL_MASTER_NAME", "veza");
        let both = config(&[url, name, ("REDIS_SENTINEL_ADDRS", "a:1,b:2")]).unwrap();
        let Place::Sentinels {
            addresses,
            master_name,
            ..
        } = both.place
        else {
            panic!("{both:?}");
        };
        assert_eq!((addresses.len(), master_name.as_str()), (2, "veza"));
        for none in ["", " , "] {
            let single = config(&[url, name, ("REDIS_SENTINEL_ADDRS", none)]).unwrap();
            let Place::Single(info) = single.place else {
                panic!("{single:?}");
            };
            assert_eq!(info.addr().to_string(), "h:7");
            assert_eq!(info.redis_settings().password(), Some("from-url"));
            assert_eq!(info.redis_settings().db(), 2);
        }
    }

    #[test]
    fn each_place_has_its_own_login_and_no_secret_shows() {
        let found = config(&[
            ("REDIS_SENTINEL_ADDRS", "a"),
            ("REDIS_SENTINEL_MASTER_NAME", "veza"),
            ("REDIS_USERNAME", "app"),
            ("REDIS_PASSWORD", "hunter2"),
            ("REDIS_SENTINEL_PASSWORD", "hunter3"),
        ])
        .unwrap();
        assert!(!format!("{found:?}").contains("hunter"), "{found:?}");
        let data = found.login.settings();
        assert_eq!(
            (data.username(), data.password()),
            (Some("app"), Some("hunter2"))
        );
        let Place::Sentinels { login, .. } = found.place else {
            panic!("no sentinels");
        };
        assert_eq!(
            (login.username, login.password),
            (None, Some(Secret::new("hunter3")))
        );
    }

    #[test]
    fn a_url_without_password_takes_that_of_the_variable() {
        let url = ("REDIS_URL", "redis://h/3");
        let found = config(&[url, ("REDIS_USERNAME", "app"), ("REDIS_PASSWORD", "p")]).unwrap();
        let Place::Single(info) = found.place else {
            panic!("{found:?}");
        };
        let settings = info.redis_settings();
        assert_eq!(
            (settings.username(), settings.password()),
            (Some("app"), Some("p"))
        );
        assert_eq!(settings.db(), 3);
    }

    #[test]
    fn what_is_missing_or_contradicts_itself_is_said_without_a_secret() {
        assert!(told(&[]).contains("REDIS_URL"));
        let name = told(&[
            ("REDIS_SENTINEL_ADDRS", "a"),
            ("REDIS_SENTINEL_MASTER_NAME", " "),
        ]);
        assert!(name.contains("REDIS_SENTINEL_MASTER_NAME"), "{name}");
        let url = told(&[("REDIS_URL", "http://u:hunter2@h")]);
        assert!(
            url.contains("REDIS_URL") && !url.contains("hunter2"),
            "{url}"
        );
        let tls = told(&[("REDIS_URL", "rediss://u:hunter2@h")]);
        assert!(
            tls.contains("REDIS_URL") && !tls.contains("hunter2"),
            "{tls}"
        );
        let two = told(&[
            ("REDIS_URL", "redis://:hunter2@h"),
            ("REDIS_PASSWORD", "hunter3"),
        ]);
        assert!(
            two.contains("REDIS_PASSWORD") && !two.contains("hunter"),
            "{two}"
        );
        let both = told(&[
            ("REDIS_URL", "redis://h"),
            ("REDIS_PASSWORD", "hunter2"),
            ("REDIS_PASSWORD_FILE", "/f"),
        ]);
        assert!(
            both.contains("REDIS_PASSWORD_FILE") && !both.contains("hunter2"),
            "{both}"
        );
    }
}
