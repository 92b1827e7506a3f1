//! What can go wrong with a connection or a query, sorted by SQLSTATE and by type, never by text.
//!
//! SQLSTATEs: <https://www.postgresql.org/docs/17/errcodes-appendix.html>.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

use tokio_postgres::error::{DbError, SqlState};

use super::options::{SslMode, Wanted};

/// How far a connection had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The TCP handshake.
    Tcp,
    /// The server's answer to the request for TLS, and what follows where it offers none.
    Negotiation,
    /// The TLS handshake.
    TlsHandshake,
    /// Authentication and the server's first parameters.
    Startup,
    /// A query or the session after startup.
    Query,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Tcp => "in the TCP handshake",
            Step::Negotiation => "after asking for TLS",
            Step::TlsHandshake => "in the TLS handshake",
            Step::Startup => "in the startup of the session",
            Step::Query => "in a query",
        })
    }
}

/// What an error means to whoever decides what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Password, role or pg_hba.conf: SQLSTATE 28P01 or 28000, or no password for a server that asks.
    Credentials,
    /// No TCP connection, or no address.
    Unreachable,
    /// The limit passed.
    Deadline,
    /// TLS: not offered, broken, or the server's certificate was refused.
    Tls,
    /// The server answers that it is starting up or shutting down: SQLSTATE 57P01, 57P02, 57P03.
    NotAccepting,
    /// All connection slots are taken: SQLSTATE 53300.
    Full,
    /// A write was refused because the transaction is read-only: SQLSTATE 25006.
    ReadOnly,
    /// Any other error that the server sent.
    Server,
    /// The connection broke.
    Lost,
    /// What came back was not understood.
    Protocol,
    /// The session is not of the kind that `target_session_attrs` asks for.
    NotWanted,
    /// Several hosts failed, in different ways.
    Several,
}

/// An error message of the server: severity, SQLSTATE, message, detail and hint.
#[derive(Clone, Debug)]
pub struct Said(pub Box<DbError>);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}: {}",
            self.0.severity(),
            self.0.code().code(),
            self.0.message()
        )?;
        if let Some(detail) = self.0.detail() {
            write!(f, "; {detail}")?;
        }
        if let Some(hint) = self.0.hint() {
            write!(f, "; hint: {hint}")?;
        }
        Ok(())
    }
}

/// A connection or query that failed. `tried` says what, where and as whom; no password is in it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No TCP connection.
    #[error("{tried}: not reachable: {source}")]
    Unreachable {
        /// What was tried.
        tried: String,
        /// What the system said.
        source: io::Error,
    },
    /// The limit passed.
    #[error("{tried}: no answer within {:.1} s, {step}", .limit.as_secs_f64())]
    Deadline {
        /// What was tried.
        tried: String,
        /// How far it had come.
        step: Step,
        /// The limit that passed.
        limit: Duration,
    },
    /// The server answered that it has no TLS.
    #[error("{tried}: the server offers no TLS, which sslmode={mode} needs")]
    NoTls {
        /// What was tried.
        tried: String,
        /// The mode.
        mode: SslMode,
    },
    /// TLS failed, or the certificate was refused.
    #[error("{tried}: TLS failed: {reason}")]
    Tls {
        /// What was tried.
        tried: String,
        /// All causes, outermost first.
        reason: String,
    },
    /// The server refused role or password.
    #[error("{tried}: credentials refused: {said} ({password})")]
    Credentials {
        /// What was tried.
        tried: String,
        /// The server's message.
        said: Said,
        /// Where the password came from, in words.
        password: String,
    },
    /// Authentication ended on this side: the server asks for a password that is not known, or for a
    /// method or a channel binding that is not there.
    #[error("{tried}: can't authenticate: {reason} ({password})")]
    Authentication {
        /// What was tried.
        tried: String,
        /// All causes, outermost first.
        reason: String,
        /// Where the password came from, in words.
        password: String,
    },
    /// The server sent any other error.
    #[error("{tried}: {said}")]
    Server {
        /// What was tried.
        tried: String,
        /// The server's message.
        said: Said,
    },
    /// The connection broke.
    #[error("{tried}: connection lost {step}: {reason}")]
    Lost {
        /// What was tried.
        tried: String,
        /// How far it had come.
        step: Step,
        /// All causes, outermost first.
        reason: String,
    },
    /// What came back was not understood.
    #[error("{tried}: unexpected answer: {reason}")]
    Protocol {
        /// What was tried.
        tried: String,
        /// All causes, outermost first.
        reason: String,
    },
    /// The session is not of the wanted kind.
    #[error("{tried}: the session is not {wanted}")]
    NotWanted {
        /// What was tried.
        tried: String,
        /// What `target_session_attrs` asks for.
        wanted: Wanted,
    },
    /// No host gave a session.
    #[error("no host gave a session: {}", join(.0))]
    Several(Vec<Error>),
}

impl Error {
    /// Whether this host has no way to that network at all, whatever there is at the address.
    pub fn is_no_way(&self) -> bool {
        let Error::Unreachable { source, .. } = self else {
            return false;
        };
        source.kind() == io::ErrorKind::NetworkUnreachable
    }

    /// What the error means.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Unreachable { .. } => Kind::Unreachable,
            Error::Deadline { .. } => Kind::Deadline,
            Error::NoTls { .. } | Error::Tls { .. } => Kind::Tls,
            Error::Credentials { .. } | Error::Authentication { .. } => Kind::Credentials,
            Error::Server { said, .. } => kind_of(said.0.code()),
            Error::Lost { .. } => Kind::Lost,
            Error::Protocol { .. } => Kind::Protocol,
            Error::NotWanted { .. } => Kind::NotWanted,
            Error::Several(errors) => {
                let mut kinds = errors.iter().map(Error::kind);
                let first = kinds.next().unwrap_or(Kind::Unreachable);
                if kinds.all(|kind| kind == first) {
                    first
                } else {
                    Kind::Several
                }
            }
        }
    }

    /// The server's SQLSTATE, where the error is one that the server sent.
    pub fn sqlstate(&self) -> Option<&SqlState> {
        match self {
            Error::Credentials { said, .. } | Error::Server { said, .. } => Some(said.0.code()),
            _ => None,
        }
    }

    /// Sorts the error of a query. `tried` is shown: no secret may be in it.
    pub fn query(tried: impl Into<String>, source: &tokio_postgres::Error) -> Error {
        sort(tried.into(), Step::Query, source, None)
    }
}

/// What is known besides an error while a connection is made.
#[derive(Clone)]
pub(super) struct Opening {
    pub(super) mode: SslMode,
    pub(super) password: String,
}

/// Sorts an error of tokio-postgres, whose own kinds are private, by what it holds and by how far the
/// connection had come.
pub(super) fn sort(
    tried: String,
    step: Step,
    source: &tokio_postgres::Error,
    opening: Option<Opening>,
) -> Error {
    let reason = chain(source);
    let password = opening
        .as_ref()
        .map(|o| o.password.clone())
        .unwrap_or_default();
    if let Some(error) = source.as_db_error() {
        let said = Said(Box::new(error.clone()));
        return match (kind_of(error.code()), opening) {
            (Kind::Credentials, Some(_)) => Error::Credentials {
                tried,
                said,
                password,
            },
            _ => Error::Server { tried, said },
        };
    }
    if source.is_closed() {
        return Error::Lost {
            tried,
            step,
            reason,
        };
    }
    let Some(cause) = source.source() else {
        return Error::Protocol { tried, reason };
    };
    if let Some(error) = cause.downcast_ref::<io::Error>() {
        let of_tls = error
            .get_ref()
            .is_some_and(|inner| inner.is::<rustls::Error>());
        let not_understood = matches!(
            error.kind(),
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData
        );
        return match (
            of_tls || (not_understood && step == Step::TlsHandshake),
            not_understood,
        ) {
            (true, _) => Error::Tls { tried, reason },
            (false, true) => Error::Protocol { tried, reason },
            (false, false) => Error::Lost {
                tried,
                step,
                reason,
            },
        };
    }
    // What is left has a cause of tokio-postgres' own: during negotiation that no TLS is offered,
    // later that authentication can't go on.
    match (opening, step) {
        (Some(Opening { mode, .. }), Step::Negotiation)
            if !matches!(mode, SslMode::Disable | SslMode::Allow | SslMode::Prefer) =>
        {
            Error::NoTls { tried, mode }
        }
        (Some(_), _) => Error::Authentication {
            tried,
            reason,
            password,
        },
        (None, _) => Error::Protocol { tried, reason },
    }
}

fn kind_of(code: &SqlState) -> Kind {
    if [
        SqlState::INVALID_PASSWORD,
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
    ]
    .contains(code)
    {
        Kind::Credentials
    } else if [
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
    ]
    .contains(code)
    {
        Kind::NotAccepting
    } else if *code == SqlState::TOO_MANY_CONNECTIONS {
        Kind::Full
    } else if *code == SqlState::READ_ONLY_SQL_TRANSACTION {
        Kind::ReadOnly
    } else {
        Kind::Server
    }
}

/// An error and its causes, outermost first; a cause that the text before it repeats is left out.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

fn join(errors: &[Error]) -> String {
    errors
        .iter()
        .map(Error::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlstates_decide() {
        for (code, kind) in [
            ("28P01", Kind::Credentials),
            ("28000", Kind::Credentials),
            ("57P01", Kind::NotAccepting),
            ("57P02", Kind::NotAccepting),
            ("57P03", Kind::NotAccepting),
            ("53300", Kind::Full),
            ("25006", Kind::ReadOnly),
            ("57014", Kind::Server),
            ("3D000", Kind::Server),
        ] {
            assert_eq!(kind_of(&SqlState::from_code(code)), kind, "{code}");
        }
    }

    #[test]
    fn several_failures_have_one_kind_or_none() {
        let lost = || Error::Lost {
            tried: "a".into(),
            step: Step::Query,
            reason: "b".into(),
        };
        let protocol = || Error::Protocol {
            tried: "c".into(),
            reason: "d".into(),
        };
        assert_eq!(Error::Several(vec![lost(), lost()]).kind(), Kind::Lost);
        let mixed = Error::Several(vec![lost(), protocol()]);
        assert_eq!(mixed.kind(), Kind::Several);
        assert_eq!(
            mixed.to_string(),
            "no host gave a session: a: connection lost in a query: b; c: unexpected answer: d"
        );
    }
}
