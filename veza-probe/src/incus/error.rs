//! What can go wrong with Incus: what was asked, of what, Incus' own words, and what to do next.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::Incus;
use super::place::{NoFolder, Place};
use super::remote::{self, RemoteError};

/// A request to Incus that gave no good answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no socket.
    #[error("no Incus socket at {}: install or start Incus, or name its socket in INCUS_SOCKET", socket.display())]
    NoSocket {
        /// Where it was looked for.
        socket: PathBuf,
    },
    /// The socket is there, but not for us.
    #[error("no permission to use Incus at {}: run as root, or as a member of the group incus-admin", socket.display())]
    Permission {
        /// The socket.
        socket: PathBuf,
    },
    /// A remote of the user's client can't be used.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// There is no client configuration that would know remotes.
    #[error(transparent)]
    NoFolder(#[from] NoFolder),
    /// The socket is there, or the remote is known, but nobody answers.
    #[error("{asked}: {whom} does not answer ({words}): {next}")]
    Unreachable {
        /// Incus, with its place.
        whom: String,
        /// What to look at.
        next: &'static str,
        /// What was asked.
        asked: String,
        /// What the system said.
        words: String,
    },
    /// The project is not there.
    #[error("Incus has no project {project} (it has: {}): name the right one with --project or VEZA_INCUS_PROJECT", .known.join(", "))]
    NoProject {
        /// The project asked for.
        project: String,
        /// The projects there are.
        known: Vec<String>,
    },
    /// The object is not there.
    #[error("{asked}: Incus says: {words}")]
    NotFound {
        /// What was asked.
        asked: String,
        /// Incus' words.
        words: String,
    },
    /// The object changed since it was read (HTTP 412).
    #[error("{asked}: the object was changed by someone else meanwhile; Incus says: {words}")]
    Changed {
        /// What was asked.
        asked: String,
        /// Incus' words.
        words: String,
    },
    /// Incus refused.
    #[error("{asked}: Incus refused ({code}): {words}")]
    Refused {
        /// What was asked.
        asked: String,
        /// Incus' error code, an HTTP status.
        code: u64,
        /// Incus' words.
        words: String,
    },
    /// It began and failed.
    #[error("{asked}: the operation failed; Incus says: {words}")]
    Operation {
        /// What was asked.
        asked: String,
        /// Incus' words.
        words: String,
    },
    /// It was not done in time. It may still be under way in Incus.
    #[error("{asked}: not done within {:.0} s; see `incus operation list`", limit.as_secs_f64())]
    Limit {
        /// What was asked.
        asked: String,
        /// The limit.
        limit: Duration,
    },
    /// The answer is not what the API describes.
    #[error("{asked}: an answer that this tool does not understand: {words}")]
    Protocol {
        /// What was asked.
        asked: String,
        /// What was wrong with it.
        words: String,
    },
}

impl Error {
    pub(super) fn protocol(asked: &str, error: &dyn std::error::Error) -> Error {
        Error::Protocol {
            asked: asked.to_owned(),
            words: chain(error),
        }
    }

    pub(super) fn unreachable(incus: &Incus, asked: &str, error: &reqwest::Error) -> Error {
        let other = |next| Error::Unreachable {
            whom: incus.told(),
            next,
            asked: asked.to_owned(),
            words: chain(error),
        };
        let (name, folder) = match incus.place() {
            Place::Socket(socket) => {
                let kind = find(error).map(std::io::Error::kind);
                let socket = socket.clone();
                return match kind {
                    Some(std::io::ErrorKind::NotFound) => Error::NoSocket { socket },
                    Some(std::io::ErrorKind::PermissionDenied) => Error::Permission { socket },
                    _ => other("is incusd running?"),
                };
            }
            Place::Remote { name, folder } => (name.clone(), folder),
        };
        let (address, path) = (incus.base.clone(), remote::pin(&name, folder));
        match find::<rustls::Error>(error) {
            Some(tls) if *tls == remote::NOT_PINNED => RemoteError::NotPinned {
                name,
                address,
                path,
            }
            .into(),
            Some(tls) if *tls == remote::NOT_PROVEN => {
                RemoteError::NotProven { name, address }.into()
            }
            _ => other(
                "is incusd running there, does its core.https_address listen, and is the way open?",
            ),
        }
    }

    pub(super) fn from_envelope(asked: &str, http: u16, envelope: &Value) -> Error {
        let code = envelope
            .get("error_code")
            .and_then(Value::as_u64)
            .unwrap_or(http.into());
        let words = envelope
            .get("error")
            .and_then(Value::as_str)
            .unwrap_or("no reason")
            .to_owned();
        let asked = asked.to_owned();
        match code {
            404 => Error::NotFound { asked, words },
            412 => Error::Changed { asked, words },
            _ => Error::Refused { asked, code, words },
        }
    }

    /// The same error, told as one of the request that began it.
    pub(super) fn of(self, request: &str) -> Error {
        let renamed = |asked: String| format!("{request}, {asked}");
        match self {
            Error::NotFound { asked, words } => Error::NotFound {
                asked: renamed(asked),
                words,
            },
            Error::Refused { asked, code, words } => Error::Refused {
                asked: renamed(asked),
                code,
                words,
            },
            other => other,
        }
    }

    /// Whether another operation on the same instance stood in the way; it passes.
    pub fn is_busy(&self) -> bool {
        // Incus' own words ("Instance is busy running a \"stop\" operation"): it has no code for it.
        match self {
            Error::Refused { words, .. } | Error::Operation { words, .. } => {
                words.contains("nstance is busy")
            }
            _ => false,
        }
    }

    /// Whether the client side lacks something (exit code 3) rather than the system under test.
    pub fn is_missing_tool(&self) -> bool {
        matches!(
            self,
            Error::NoSocket { .. }
                | Error::Permission { .. }
                | Error::NoProject { .. }
                | Error::Remote(_)
                | Error::NoFolder(_)
                | Error::Unreachable { .. }
        ) || matches!(self, Error::Refused { code: 403, .. })
    }
}

/// The first cause of a type; what an I/O error wraps is a cause of it, which its `source` leaves out.
fn find<'a, T: std::error::Error + 'static>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a T> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        let inner = error.downcast_ref::<std::io::Error>();
        cause = match inner.and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        words = format!("{words}: {error}");
        source = error.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_operation_is_busy() {
        let said = |words: &str| Error::Operation {
            asked: "PATCH /1.0/instances/a".into(),
            words: words.into(),
        };
        assert!(said("Instance is busy running a \"stop\" operation").is_busy());
        assert!(!said("The instance is already stopped").is_busy());
    }
}
