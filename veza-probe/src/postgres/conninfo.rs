//! What a connection string says, checked once; the environment is not asked here (see `login`).

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::text;
use crate::secret::Secret;

/// The keys that are understood, as errors list them.
const SUPPORTED: &str = "host, hostaddr, port, dbname, user, password, passfile, sslmode, \
    sslrootcert, connect_timeout, application_name, options, target_session_attrs, keepalives, \
    keepalives_idle, keepalives_interval, keepalives_count, tcp_user_timeout, channel_binding, \
    load_balance_hosts, gssencmode";

/// The port of PostgreSQL where none is named.
const PORT: u16 = 5432;

/// All that need not be percent-encoded in a value of a URI.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Why a connection string is not usable. Keys are named; values never are, because a value may be
/// a password, or a piece of one that was not quoted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConninfo {
    /// Not a URI of PostgreSQL.
    #[error("the connection string has a scheme that is neither postgres:// nor postgresql://")]
    Scheme,
    /// The form is broken.
    #[error("the connection string can't be read: {0}")]
    Form(&'static str),
    /// A second `@`, or one after the hosts.
    #[error(
        "the connection URI holds an '@' where none can be: percent-encode '@' as %40 and '/' as \
         %2F in user, password and everywhere else"
    )]
    StrayAt,
    /// A `%` without two hexadecimal digits, `%00`, or no UTF-8 after decoding.
    #[error(
        "the connection URI holds a '%' that starts no valid percent-encoding; a '%' is written %25"
    )]
    Percent,
    /// A key that is not known, or that libpq knows and this library doesn't.
    #[error("unknown or unsupported key '{key}'; supported: {SUPPORTED}")]
    UnknownKey {
        /// The key; letters, digits and `_` only.
        key: String,
    },
    /// What stands in a key's place is no name, or comes right after a password that was not quoted.
    #[error(
        "the connection string holds something in place of a key that is not repeated here, as it \
         may be part of a password: quote the password (host=… password='…') or percent-encode it \
         (%26 for '&'); supported keys: {SUPPORTED}"
    )]
    NotAKey,
    /// A value is not one of those possible.
    #[error("key '{key}': expected {expected}")]
    Value {
        /// The key.
        key: &'static str,
        /// What it takes.
        expected: &'static str,
    },
    /// Nothing to connect to.
    #[error("no host is named: a TCP host is needed (unix sockets are not used)")]
    NoHost,
    /// The lists of hosts, addresses and ports don't go together.
    #[error("{ports} entries in '{key}' for {hosts} hosts: name one per host")]
    Counts {
        /// `port` or `hostaddr`.
        key: &'static str,
        /// How many entries it has.
        ports: usize,
        /// How many hosts there are.
        hosts: usize,
    },
}

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

/// How much TLS is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    /// No TLS.
    Disable,
    /// Treated as [`SslMode::Prefer`]; libpq would try without TLS first.
    Allow,
    /// TLS where the server offers it, unverified. Unlike libpq there is no second connection when
    /// the handshake fails or the server refuses the encrypted session: one attempt, one connection.
    Prefer,
    /// TLS or nothing; verified as [`SslMode::VerifyCa`] when there is a root certificate file, as
    /// libpq does for the sake of older versions.
    Require,
    /// The server's chain must lead to the root certificate file; its name is not checked.
    VerifyCa,
    /// As [`SslMode::VerifyCa`], and the certificate must hold the host name.
    VerifyFull,
}

/// Which sessions are wanted, where several hosts are named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// Any session.
    #[default]
    Any,
    /// Accepts writes by default: out of recovery and `transaction_read_only` off.
    ReadWrite,
    /// The opposite of [`Wanted::ReadWrite`].
    ReadOnly,
    /// Out of recovery.
    Primary,
    /// In recovery.
    Standby,
    /// In recovery; any where none is.
    PreferStandby,
}

/// Whether SCRAM is bound to the TLS session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// Where both sides can.
    #[default]
    Prefer,
    /// Or the connection fails.
    Require,
}

/// TCP keepalive of a connection; `None` leaves the system's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalives {
    /// Whether probes are sent at all.
    pub on: bool,
    /// Silence before the first probe.
    pub idle: Option<Duration>,
    /// Time between probes.
    pub interval: Option<Duration>,
    /// Unanswered probes before the connection counts as lost.
    pub count: Option<u32>,
}

const SSLMODES: &[(&str, SslMode)] = &[
    ("disable", SslMode::Disable),
    ("allow", SslMode::Allow),
    ("prefer", SslMode::Prefer),
    ("require", SslMode::Require),
    ("verify-ca", SslMode::VerifyCa),
    ("verify-full", SslMode::VerifyFull),
];

const WANTED: &[(&str, Wanted)] = &[
    ("any", Wanted::Any),
    ("read-write", Wanted::ReadWrite),
    ("read-only", Wanted::ReadOnly),
    ("primary", Wanted::Primary),
    ("standby", Wanted::Standby),
    ("prefer-standby", Wanted::PreferStandby),
];

const BINDINGS: &[(&str, ChannelBinding)] = &[
    ("disable", ChannelBinding::Disable),
    ("prefer", ChannelBinding::Prefer),
    ("require", ChannelBinding::Require),
];

/// The word that libpq has for a value.
fn word<T: PartialEq>(table: &'static [(&'static str, T)], value: &T) -> &'static str {
    table
        .iter()
        .find(|(_, v)| v == value)
        .map_or("", |(word, _)| word)
}

impl SslMode {
    /// Reads a value of `sslmode`; `key` names where it stood, for the error.
    pub(super) fn read(key: &'static str, value: &str) -> Result<SslMode, InvalidConninfo> {
        one_of(
            key,
            value,
            SSLMODES,
            "disable, allow, prefer, require, verify-ca or verify-full",
        )
    }
}

impl fmt::Display for SslMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(word(SSLMODES, self))
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(word(WANTED, self))
    }
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

fn one_of<T: Copy>(
    key: &'static str,
    value: &str,
    table: &[(&str, T)],
    expected: &'static str,
) -> Result<T, InvalidConninfo> {
    let found = table.iter().find(|(word, _)| *word == value);
    found
        .map(|(_, v)| *v)
        .ok_or(InvalidConninfo::Value { key, expected })
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
