//! Why a connection string is not usable.

/// The keys that are understood, as errors list them.
pub(super) const SUPPORTED: &str = "host, hostaddr, port, dbname, user, password, passfile, sslmode, \
    sslrootcert, connect_timeout, application_name, options, target_session_attrs, keepalives, \
    keepalives_idle, keepalives_interval, keepalives_count, tcp_user_timeout, channel_binding, \
    load_balance_hosts, gssencmode";

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
