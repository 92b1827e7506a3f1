//! The values that options of a connection string take, with the words that libpq has for them.

use std::fmt;
use std::time::Duration;

use super::invalid::InvalidConninfo;

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

pub(super) const SSLMODES: &[(&str, SslMode)] = &[
    ("disable", SslMode::Disable),
    ("allow", SslMode::Allow),
    ("prefer", SslMode::Prefer),
    ("require", SslMode::Require),
    ("verify-ca", SslMode::VerifyCa),
    ("verify-full", SslMode::VerifyFull),
];

pub(super) const WANTED: &[(&str, Wanted)] = &[
    ("any", Wanted::Any),
    ("read-write", Wanted::ReadWrite),
    ("read-only", Wanted::ReadOnly),
    ("primary", Wanted::Primary),
    ("standby", Wanted::Standby),
    ("prefer-standby", Wanted::PreferStandby),
];

pub(super) const BINDINGS: &[(&str, ChannelBinding)] = &[
    ("disable", ChannelBinding::Disable),
    ("prefer", ChannelBinding::Prefer),
    ("require", ChannelBinding::Require),
];

/// The word that libpq has for a value.
pub(super) fn word<T: PartialEq>(table: &'static [(&'static str, T)], value: &T) -> &'static str {
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

pub(super) fn one_of<T: Copy>(
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
