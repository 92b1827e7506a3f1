//! What a connection string says, checked once; the environment is not asked here (see `login`).

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::invalid::{InvalidConninfo, SUPPORTED};
use super::options::{BINDINGS, ChannelBinding, Keepalives, SslMode, WANTED, Wanted, one_of, word};
use super::text;
use crate::secret::Secret;

/// The port of PostgreSQL where none is named.
const PORT: u16 = 5432;

/// All that need not be percent-encoded in a value of a URI.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// One host of a connection string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The name, or the address where only that was given; a certificate is checked against it.
    pub name: String,
    /// The address from `hostaddr`, which spares looking the name up.
    pub hostaddr: Option<IpAddr>,
    /// The port, 5432 unless told otherwise.
    pub port: u16,
}

/// A connection string, as `postgres://…` or as `key=value …`, read as libpq reads it.
///
/// Values are as they were given; an empty value counts as not given. `Display` is
/// [`Conninfo::without_password`], `Debug` shows the password as `***`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conninfo {
    /// At least one.
    pub hosts: Vec<Host>,
    /// The role.
    pub user: Option<String>,
    /// The password, which should not stand on a command line: see [`Conninfo::has_password`].
    pub password: Option<Secret>,
    /// The database; the user's name where none is given.
    pub dbname: Option<String>,
    /// The password file.
    pub passfile: Option<PathBuf>,
    /// How much TLS; `prefer` where nothing says otherwise.
    pub sslmode: Option<SslMode>,
    /// The file with the certificates (PEM) that are trusted.
    pub sslrootcert: Option<PathBuf>,
    /// The limit for one host; `None` is no limit of its own (also 0 and negative numbers).
    pub connect_timeout: Option<Duration>,
    /// What the server shows in `pg_stat_activity`.
    pub application_name: Option<String>,
    /// Command-line options for the server process, such as `-c statement_timeout=1s`.
    pub options: Option<String>,
    /// Which session is wanted; `connect_first` heeds it.
    pub target_session_attrs: Wanted,
    /// TCP keepalive.
    pub keepalives: Keepalives,
    /// How long sent data may stay unacknowledged; `None` leaves the system's value.
    pub tcp_user_timeout: Option<Duration>,
    /// Channel binding of SCRAM.
    pub channel_binding: ChannelBinding,
    /// Whether `connect_first` tries the hosts in random order.
    pub load_balance_hosts: bool,
}

impl FromStr for Conninfo {
    type Err = InvalidConninfo;

    /// Reads a connection string.
    ///
    /// # Errors
    /// [`InvalidConninfo`], which names keys and never repeats values.
    fn from_str(text: &str) -> Result<Conninfo, InvalidConninfo> {
        let mut conninfo = Conninfo::blank();
        let mut lists = Lists::default();
        let mut after_password = false;
        for (key, value) in text::split(text)? {
            match key.as_str() {
                "host" => lists.host = value,
                "hostaddr" => lists.hostaddr = value,
                "port" => lists.port = value,
                _ => conninfo.set(&key, &value, after_password)?,
            }
            after_password = key == "password";
        }
        conninfo.hosts = lists.hosts()?;
        Ok(conninfo)
    }
}

impl Conninfo {
    /// Nothing given.
    fn blank() -> Conninfo {
        Conninfo {
            hosts: Vec::new(),
            user: None,
            password: None,
            dbname: None,
            passfile: None,
            sslmode: None,
            sslrootcert: None,
            connect_timeout: None,
            application_name: None,
            options: None,
            target_session_attrs: Wanted::Any,
            keepalives: Keepalives {
                on: true,
                idle: None,
                interval: None,
                count: None,
            },
            tcp_user_timeout: None,
            channel_binding: ChannelBinding::Prefer,
            load_balance_hosts: false,
        }
    }

    /// Sets one key other than the lists; a later value replaces an earlier one, as in libpq.
    fn set(&mut self, key: &str, value: &str, after_password: bool) -> Result<(), InvalidConninfo> {
        if !SUPPORTED.split(", ").any(|known| known == key) {
            return Err(unknown(key, after_password));
        }
        let text = (!value.is_empty()).then(|| value.to_owned());
        match key {
            "user" => self.user = text,
            "password" => self.password = text.map(Secret::new),
            "dbname" => self.dbname = text,
            "passfile" => self.passfile = text.map(PathBuf::from),
            "application_name" => self.application_name = text,
            "options" => self.options = text,
            "sslrootcert" => self.sslrootcert = root_file("sslrootcert", value)?,
            // Any other key without a value is left at its default.
            _ if value.is_empty() => {}
            "sslmode" => self.sslmode = Some(SslMode::read("sslmode", value)?),
            "connect_timeout" => {
                self.connect_timeout = positive("connect_timeout", value)?.map(seconds);
            }
            "keepalives" => {
                self.keepalives.on = number("keepalives", value)? != 0;
            }
            "keepalives_idle" => {
                self.keepalives.idle = positive("keepalives_idle", value)?.map(seconds);
            }
            "keepalives_interval" => {
                self.keepalives.interval = positive("keepalives_interval", value)?.map(seconds);
            }
            "keepalives_count" => self.keepalives.count = positive("keepalives_count", value)?,
            "tcp_user_timeout" => {
                let milliseconds = positive("tcp_user_timeout", value)?;
                self.tcp_user_timeout = milliseconds.map(|n| Duration::from_millis(n.into()));
            }
            "target_session_attrs" => {
                let expected = "any, read-write, read-only, primary, standby or prefer-standby";
                self.target_session_attrs =
                    one_of("target_session_attrs", value, WANTED, expected)?;
            }
            "channel_binding" => {
                let expected = "disable, prefer or require";
                self.channel_binding = one_of("channel_binding", value, BINDINGS, expected)?;
            }
            "load_balance_hosts" => {
                let words = &[("disable", false), ("random", true)];
                self.load_balance_hosts =
                    one_of("load_balance_hosts", value, words, "disable or random")?;
            }
            "gssencmode" => one_of("gssencmode", value, &[("disable", ())], "disable")?,
            _ => return Err(unknown(key, after_password)),
        }
        Ok(())
    }

    /// Whether the text itself holds a password, so that a command-line flag can be refused.
    pub fn has_password(&self) -> bool {
        self.password.is_some()
    }

    /// The same as a URI without the password; reading it gives an equal value but for the password.
    pub fn without_password(&self) -> String {
        let mut uri = String::from("postgres://");
        if let Some(user) = &self.user {
            let _ = write!(uri, "{}@", encode(user));
        }
        for (index, host) in self.hosts.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let _ = match host.name.contains(':') {
                true => write!(uri, "{comma}[{}]:{}", host.name, host.port),
                false => write!(uri, "{comma}{}:{}", host.name, host.port),
            };
        }
        if let Some(dbname) = &self.dbname {
            let _ = write!(uri, "/{}", encode(dbname));
        }
        let mut separator = '?';
        for (key, value) in self.parameters() {
            let _ = write!(uri, "{separator}{key}={}", encode(&value));
            separator = '&';
        }
        uri
    }

    /// Everything that stands after the `?`, but for the password.
    fn parameters(&self) -> Vec<(&'static str, String)> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|p| p.display().to_string());
        let whole = |d: Option<Duration>| d.map(|d| d.as_secs().to_string());
        let keep = &self.keepalives;
        let hostaddrs = self.hosts.iter().any(|h| h.hostaddr.is_some()).then(|| {
            let text = |h: &Host| h.hostaddr.map(|a| a.to_string()).unwrap_or_default();
            self.hosts.iter().map(text).collect::<Vec<_>>().join(",")
        });
        let wanted = self.target_session_attrs;
        let binding = self.channel_binding;
        let timeout = self.tcp_user_timeout;
        [
            ("hostaddr", hostaddrs),
            ("passfile", path(&self.passfile)),
            ("sslmode", self.sslmode.map(|m| m.to_string())),
            ("sslrootcert", path(&self.sslrootcert)),
            ("connect_timeout", whole(self.connect_timeout)),
            ("application_name", self.application_name.clone()),
            ("options", self.options.clone()),
            (
                "target_session_attrs",
                (wanted != Wanted::Any).then(|| wanted.to_string()),
            ),
            ("keepalives", (!keep.on).then(|| "0".to_owned())),
            ("keepalives_idle", whole(keep.idle)),
            ("keepalives_interval", whole(keep.interval)),
            ("keepalives_count", keep.count.map(|n| n.to_string())),
            (
                "tcp_user_timeout",
                timeout.map(|d| d.as_millis().to_string()),
            ),
            (
                "channel_binding",
                (binding != ChannelBinding::Prefer).then(|| word(BINDINGS, &binding).to_owned()),
            ),
            (
                "load_balance_hosts",
                self.load_balance_hosts.then(|| "random".to_owned()),
            ),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
    }
}

impl fmt::Display for Conninfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.without_password())
    }
}

/// The lists that belong together, with commas, before they are joined to hosts.
#[derive(Default)]
struct Lists {
    host: String,
    hostaddr: String,
    port: String,
}

impl Lists {
    fn hosts(&self) -> Result<Vec<Host>, InvalidConninfo> {
        let names = members(&self.host);
        let addresses = members(&self.hostaddr);
        let ports = members(&self.port);
        let hosts = names
            .len()
            .max(if names.is_empty() { addresses.len() } else { 0 });
        if hosts == 0 {
            return Err(InvalidConninfo::NoHost);
        }
        if !addresses.is_empty() && addresses.len() != hosts {
            return Err(InvalidConninfo::Counts {
                key: "hostaddr",
                ports: addresses.len(),
                hosts,
            });
        }
        if ports.len() > 1 && ports.len() != hosts {
            return Err(InvalidConninfo::Counts {
                key: "port",
                ports: ports.len(),
                hosts,
            });
        }
        let mut all = Vec::with_capacity(hosts);
        for index in 0..hosts {
            let one_for_all = if ports.len() == 1 { 0 } else { index };
            let hostaddr = address(addresses.get(index).copied().unwrap_or_default())?;
            let name = match (names.get(index).copied().unwrap_or_default(), hostaddr) {
                ("", Some(address)) => address.to_string(),
                (name, _) => host_name(name)?,
            };
            let port = port(ports.get(one_for_all).copied().unwrap_or_default())?;
            all.push(Host {
                name,
                hostaddr,
                port,
            });
        }
        Ok(all)
    }
}

/// The members of a list with commas; none of an empty one.
fn members(list: &str) -> Vec<&str> {
    if list.is_empty() {
        Vec::new()
    } else {
        list.split(',').collect()
    }
}

/// A host name or address; never a socket's folder, which starts with `/` or `@`.
fn host_name(name: &str) -> Result<String, InvalidConninfo> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let usable = if name.contains(':') {
        name.parse::<Ipv6Addr>().is_ok()
    } else {
        name.chars().all(plain) && name.len() <= 253
    };
    match (name.is_empty() || name.starts_with(['/', '@']), usable) {
        (true, _) => Err(InvalidConninfo::NoHost),
        (false, true) => Ok(name.to_owned()),
        (false, false) => Err(InvalidConninfo::Value {
            key: "host",
            expected: "names of letters, digits, '.', '-', '_', or addresses",
        }),
    }
}

fn address(text: &str) -> Result<Option<IpAddr>, InvalidConninfo> {
    if text.is_empty() {
        return Ok(None);
    }
    let expected = "an IPv4 or IPv6 address for each host";
    let address = text.parse().map_err(|_| InvalidConninfo::Value {
        key: "hostaddr",
        expected,
    })?;
    Ok(Some(address))
}

fn port(text: &str) -> Result<u16, InvalidConninfo> {
    if text.is_empty() {
        return Ok(PORT);
    }
    let expected = "a number from 1 to 65535 for each host";
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|port| *port != 0 && digits)
        .ok_or(InvalidConninfo::Value {
            key: "port",
            expected,
        })
}

/// The root certificate file; libpq's `system` is refused, because this library trusts files only.
pub(super) fn root_file(
    key: &'static str,
    value: &str,
) -> Result<Option<PathBuf>, InvalidConninfo> {
    match value {
        "" => Ok(None),
        "system" => Err(InvalidConninfo::Value {
            key,
            expected: "a file ('system' is not supported; on Debian its certificates are in \
                       /etc/ssl/certs/ca-certificates.crt)",
        }),
        path => Ok(Some(PathBuf::from(path))),
    }
}

fn number(key: &'static str, value: &str) -> Result<i32, InvalidConninfo> {
    value.trim().parse().map_err(|_| InvalidConninfo::Value {
        key,
        expected: "a whole number",
    })
}

/// A number where zero and negative ones mean the default.
fn positive(key: &'static str, value: &str) -> Result<Option<u32>, InvalidConninfo> {
    Ok(u32::try_from(number(key, value)?).ok().filter(|n| *n > 0))
}

fn seconds(number: u32) -> Duration {
    Duration::from_secs(number.into())
}

/// Whether a key may be repeated in an error: libpq's keys are lower-case letters and `_`.
fn is_key(key: &str) -> bool {
    (1..=40).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn unknown(key: &str, after_password: bool) -> InvalidConninfo {
    match is_key(key) && !after_password {
        true => InvalidConninfo::UnknownKey {
            key: key.to_owned(),
        },
        false => InvalidConninfo::NotAKey,
    }
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

#[cfg(test)]
mod tests;
