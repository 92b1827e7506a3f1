//! A connection to a Redis server or to a sentinel. Every question has a limit, and a connection that is
//! dropped is closed, whatever was still asked over it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use redis::aio::{MultiplexedConnection, PubSub};
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, FromRedisValue, RedisConnectionInfo, RedisError,
};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use veza_probe::clock::within;
use veza_probe::secret::Secret;
use veza_probe::way::{Options, Stream, Way};

/// A server and where it is reached.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its name, for people.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.address)
    }
}

/// How to log in; without a password nothing is sent.
#[derive(Clone, Debug, Default)]
pub struct Login {
    /// The ACL user; none for the default one.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This host has no route to the server.
    #[error("connecting to {at}: {words}")]
    NoWay {
        /// The server.
        at: String,
        /// What the system said.
        words: String,
    },
    /// No connection.
    #[error("connecting to {at}: {words}")]
    Unreachable {
        /// The server.
        at: String,
        /// What happened.
        words: String,
    },
    /// The server lets this user not in.
    #[error("logging in at {at}: {words}")]
    Credentials {
        /// The server.
        at: String,
        /// What it said.
        words: String,
    },
    /// The server answered with an error: it did nothing.
    #[error("{tried} at {at}: {words}")]
    Said {
        /// What was asked.
        tried: String,
        /// The server.
        at: String,
        /// Its error, with its code first.
        words: String,
    },
    /// The connection broke, or the answer was none.
    #[error("{tried} at {at}: {words}")]
    Lost {
        /// What was asked.
        tried: String,
        /// The server.
        at: String,
        /// What happened.
        words: String,
    },
}

impl Error {
    /// Whether the server answered, and the answer proves that it did nothing.
    pub fn is_answer(&self) -> bool {
        matches!(self, Error::Said { .. } | Error::Credentials { .. })
    }
}

/// A standing connection.
pub struct Link {
    connection: MultiplexedConnection,
    at: String,
    limit: Duration,
    _driver: Driver,
}

/// The task that reads and writes; it ends with the connection. By itself it would wait for answers that are
/// still out, from a frozen host for ever.
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Link {
    /// Connects and logs in, within `limit`; so long may each question take, too.
    ///
    /// # Errors
    /// [`Error::NoWay`], [`Error::Unreachable`], [`Error::Credentials`].
    pub async fn open(server: &Server, login: &Login, limit: Duration) -> Result<Link, Error> {
        let at = server.to_string();
        let elapsed = |words: String| Error::Unreachable {
            at: at.clone(),
            words,
        };
        let (sender, made) = oneshot::channel();
        let (login, server) = (login.clone(), server.clone());
        // The driver borrows what the connection was made with, so both live in one task.
        let task = tokio::spawn(async move {
            let info = info(&login);
            let made = async {
                let stream = dial(&server).await?;
                let config = AsyncConnectionConfig::new().set_response_timeout(None);
                let made = MultiplexedConnection::new_with_config(&info, stream, config).await;
                made.map_err(|error| not_let_in(&server.to_string(), &error))
            };
            match made.await {
                Ok((connection, driver)) => {
                    if sender.send(Ok(connection)).is_ok() {
                        driver.await;
                    }
                }
                Err(error) => drop(sender.send(Err(error))),
            }
        });
        let driver = Driver(task.abort_handle());
        let made = within(limit, made)
            .await
            .map_err(|e| elapsed(e.to_string()))?;
        let connection = made.map_err(|e| elapsed(e.to_string()))??;
        Ok(Link {
            connection,
            at,
            limit,
            _driver: driver,
        })
    }

    /// How long each question may take from now on.
    pub fn set_limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// Asks; the command's first words name it in errors, never its arguments.
    ///
    /// # Errors
    /// [`Error::Said`], [`Error::Lost`].
    pub async fn ask<T: FromRedisValue>(&mut self, tried: &str, cmd: &Cmd) -> Result<T, Error> {
        let asked = within(self.limit, cmd.query_async(&mut self.connection)).await;
        let lost = |words: String| Error::Lost {
            tried: tried.to_owned(),
            at: self.at.clone(),
            words,
        };
        match asked {
            Err(elapsed) => Err(lost(elapsed.to_string())),
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => match error.code().filter(|_| !error.is_io_error()) {
                Some(code) => Err(Error::Said {
                    tried: tried.to_owned(),
                    at: self.at.clone(),
                    words: said(code, &error),
                }),
                None => Err(lost(error.to_string())),
            },
        }
    }
}

/// A connection that only listens to what a sentinel publishes.
///
/// # Errors
/// [`Error::NoWay`], [`Error::Unreachable`], [`Error::Credentials`]; [`Error::Lost`] when it takes no subscription.
pub async fn listen(server: &Server, login: &Login, limit: Duration) -> Result<PubSub, Error> {
    let at = server.to_string();
    let opened = async {
        let stream = dial(server).await?;
        let made = PubSub::new(&info(login), stream).await;
        let mut listening = made.map_err(|error| not_let_in(&at, &error))?;
        let subscribed = listening.psubscribe("*").await;
        subscribed.map_err(|error| Error::Lost {
            tried: "PSUBSCRIBE".to_owned(),
            at: at.clone(),
            words: error.to_string(),
        })?;
        Ok(listening)
    };
    within(limit, opened)
        .await
        .map_err(|elapsed| Error::Unreachable {
            at: at.clone(),
            words: elapsed.to_string(),
        })?
}

async fn dial(server: &Server) -> Result<Stream, Error> {
    let options = Options {
        nodelay: true,
        ..Options::default()
    };
    let dialled = Way::Here.dial(server.address, &options).await;
    dialled.map_err(|error| {
        let (at, words) = (server.to_string(), error.to_string());
        match error.kind() {
            io::ErrorKind::NetworkUnreachable => Error::NoWay { at, words },
            _ => Error::Unreachable { at, words },
        }
    })
}

fn info(login: &Login) -> RedisConnectionInfo {
    let mut info = RedisConnectionInfo::default();
    if let Some(user) = &login.user {
        info = info.set_username(user);
    }
    if let Some(password) = &login.password {
        info = info.set_password(password.expose());
    }
    info
}

fn not_let_in(at: &str, error: &RedisError) -> Error {
    let at = at.to_owned();
    match error.kind() {
        ErrorKind::Io => Error::Unreachable {
            at,
            words: error.to_string(),
        },
        _ => Error::Credentials {
            at,
            words: error.to_string(),
        },
    }
}

/// A server's error as it wrote it.
fn said(code: &str, error: &RedisError) -> String {
    let detail = error.detail().unwrap_or_default();
    if detail.starts_with(code) {
        return detail.to_owned();
    }
    format!("{code} {detail}").trim().to_owned()
}
