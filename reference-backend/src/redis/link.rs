//! The way to the master, wherever it is: a task looks for it, requests only use what it has found.
//!
//! So no request waits for a failover. It waits for an answer of the master that is known, for at most
//! [`REQUEST_LIMIT`]; the first one that waits in vain takes the connection away, and those after it are told at
//! once that there is no master, until the task has found the next one.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{
    Client, Cmd, ConnectionAddr, ConnectionInfo, FromRedisValue, IntoConnectionInfo, RedisError,
    RedisResult, ScriptInvocation, Value, cmd,
};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use veza_probe::clock::{Elapsed, sleep, within};

use super::config::{Config, Place};
use super::connection::{Meaning, connect};
use super::metrics::{CacheMetrics, Subsystem};
use super::sentinel;

/// The longest that a request waits for Redis.
pub const REQUEST_LIMIT: Duration = Duration::from_millis(250);

/// How long it may take to connect to a master and to hear from it that it is one.
const CONNECT_LIMIT: Duration = Duration::from_millis(500);

/// How often it is looked whether the master is still the master.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The least time between two looks, so that an outage is no load.
const PAUSE: Duration = Duration::from_millis(100);

/// Why there is no answer of Redis.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No connection to a master; it is being looked for.
    #[error("no master of Redis is at hand: {0}")]
    NoMaster(String),
    /// It did not answer in time.
    #[error("{at}: {elapsed}")]
    Silent {
        /// Who was asked.
        at: String,
        /// For how long.
        elapsed: Elapsed,
    },
    /// It answered with an error, or the connection broke.
    #[error("{at}: {error}")]
    Redis {
        /// Who was asked.
        at: String,
        /// What came back.
        error: RedisError,
    },
    /// It is not what the sentinels said.
    #[error("{at} says that it is {role:?} and no master")]
    NotMaster {
        /// Who was asked.
        at: String,
        /// Its own word.
        role: String,
    },
}

/// A master, and the connection to it that all requests share.
#[derive(Clone)]
pub struct Master {
    info: ConnectionInfo,
    connection: MultiplexedConnection,
    /// Which connection of the link it is.
    number: u64,
}

impl Master {
    /// Where it is: `198.18.0.21:6379`.
    pub fn address(&self) -> String {
        self.info.addr().to_string()
    }

    /// How to make one more connection to it.
    pub(super) fn info(&self) -> &ConnectionInfo {
        &self.info
    }
}

impl fmt::Debug for Master {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.info.addr(), self.number)
    }
}

struct Shared {
    config: Config,
    metrics: CacheMetrics,
    master: watch::Sender<Option<Master>>,
    look: Notify,
    problem: Mutex<Option<String>>,
}

/// Ends with the last link.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The way to the master. Clones share it.
#[derive(Clone)]
pub struct Link {
    shared: Arc<Shared>,
    _task: Arc<Task>,
}

impl Link {
    /// Begins to look for the master, within tokio; returns at once.
    pub fn start(config: Config, metrics: CacheMetrics) -> Link {
        let shared = Arc::new(Shared {
            config,
            metrics,
            master: watch::Sender::new(None),
            look: Notify::new(),
            problem: Mutex::new(Some("it was not looked for yet".to_owned())),
        });
        let task = Arc::new(Task(tokio::spawn(follow(shared.clone()))));
        Link {
            shared,
            _task: task,
        }
    }

    /// The master that requests go to, now and after each change; none while there is none.
    pub fn master(&self) -> watch::Receiver<Option<Master>> {
        self.shared.master.subscribe()
    }

    /// What was wrong when it was last looked for the master; none when all was well.
    pub fn problem(&self) -> Option<String> {
        let problem = self.shared.problem.lock();
        problem.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks Redis. An answer counts as a hit of the subsystem, everything else as a miss.
    ///
    /// # Errors
    /// [`Failure`], after [`REQUEST_LIMIT`] at the latest.
    pub(super) async fn ask<T: FromRedisValue>(
        &self,
        subsystem: Subsystem,
        command: &Cmd,
    ) -> Result<T, Failure> {
        let send = |mut connection| async move { command.query_async(&mut connection).await };
        self.counted(subsystem, send).await
    }

    /// The same with a script, which Redis runs as one step.
    ///
    /// # Errors
    /// [`Failure`], after [`REQUEST_LIMIT`] at the latest.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        subsystem: Subsystem,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, Failure> {
        let send = |mut connection| async move { script.invoke_async(&mut connection).await };
        self.counted(subsystem, send).await
    }

    async fn counted<T, F: Future<Output = RedisResult<T>>>(
        &self,
        subsystem: Subsystem,
        send: impl FnOnce(MultiplexedConnection) -> F,
    ) -> Result<T, Failure> {
        let answer = self.shared.request(send).await;
        match &answer {
            Ok(_) => self.shared.metrics.hit(subsystem),
            Err(_) => self.shared.metrics.miss(subsystem),
        }
        answer
    }
}

impl Shared {
    async fn request<T, F: Future<Output = RedisResult<T>>>(
        &self,
        send: impl FnOnce(MultiplexedConnection) -> F,
    ) -> Result<T, Failure> {
        let master = self.master.borrow().clone();
        let Some(master) = master else {
            let problem = self.problem.lock();
            let problem = problem.unwrap_or_else(PoisonError::into_inner).clone();
            let problem = problem.unwrap_or_else(|| "the connection was lost just now".to_owned());
            return Err(Failure::NoMaster(problem));
        };
        let answer = asked(&master, REQUEST_LIMIT, send(master.connection.clone())).await;
        if let Err(failure) = &answer {
            self.judge(&master, failure);
        }
        answer
    }

    /// What a failure means for the connection. One silence is enough: whether it is the node, the way to it
    /// or a slow answer, those behind it on the connection would wait as long.
    fn judge(&self, master: &Master, failure: &Failure) {
        let meaning = match failure {
            Failure::Silent { .. } | Failure::NotMaster { .. } => Meaning::Lost,
            Failure::Redis { error, .. } => Meaning::of(error),
            Failure::NoMaster(_) => return,
        };
        if meaning == Meaning::Lost {
            self.master.send_if_modified(|current| {
                let is_it = current.as_ref().is_some_and(|c| c.number == master.number);
                if is_it {
                    *current = None;
                }
                is_it
            });
        }
        if meaning != Meaning::OfTheRequest {
            self.look.notify_one();
        }
    }

    /// Where the master is, by those who know.
    async fn named(&self) -> Result<ConnectionInfo, Failure> {
        match &self.config.place {
            Place::Single(info) => Ok((**info).clone()),
            Place::Sentinels {
                addresses,
                master_name,
                login,
            } => {
                let master = sentinel::master(addresses, master_name, login).await;
                let master = master.map_err(|unknown| Failure::NoMaster(unknown.to_string()))?;
                let at = master.to_string();
                let info = ConnectionAddr::Tcp(master.host, master.port).into_connection_info();
                let info = info.map_err(|error| Failure::Redis { at, error })?;
                Ok(info.set_redis_settings(self.config.login.settings()))
            }
        }
    }

    /// Sees to it that the connection is one to the master.
    async fn look(&self, number: &mut u64) -> Result<(), Failure> {
        let named = self.named().await;
        let current = self.master.borrow().clone();
        if let Some(current) = current {
            // Sentinels that are all away can't take a master from us that answers.
            let same = |info: &ConnectionInfo| info.addr().to_string() == current.address();
            if named.as_ref().map_or(true, same) {
                let checked = self.check(&current, REQUEST_LIMIT).await;
                if let Err(failure) = &checked {
                    self.judge(&current, failure);
                }
                return checked.and(named.map(drop));
            }
        }
        let next = self.open(named?, number).await?;
        self.master.send_replace(Some(next));
        Ok(())
    }

    /// A connection to a node that says itself that it is the master.
    async fn open(&self, info: ConnectionInfo, number: &mut u64) -> Result<Master, Failure> {
        let at = info.addr().to_string();
        let broken = |error| Failure::Redis {
            at: at.clone(),
            error,
        };
        let client = Client::open(info.clone()).map_err(broken)?;
        let connection = within(CONNECT_LIMIT, connect(&client)).await;
        let connection = connection.map_err(|elapsed| Failure::Silent {
            at: at.clone(),
            elapsed,
        })?;
        *number += 1;
        let master = Master {
            info,
            connection: connection.map_err(broken)?,
            number: *number,
        };
        self.check(&master, CONNECT_LIMIT).await?;
        Ok(master)
    }

    /// The node's own word: that it is a master; of a single instance that it answers.
    async fn check(&self, master: &Master, limit: Duration) -> Result<(), Failure> {
        let single = matches!(self.config.place, Place::Single(_));
        let command = cmd(if single { "PING" } else { "ROLE" });
        let mut connection = master.connection.clone();
        let asked = asked(master, limit, command.query_async(&mut connection)).await;
        let answer: Value = match asked {
            // Where the user may not ask, the sentinels' word stands, and a write would tell.
            Err(Failure::Redis { error, .. }) if error.code() == Some("NOPERM") => return Ok(()),
            asked => asked?,
        };
        let role = role(&answer);
        if single || role == "master" {
            return Ok(());
        }
        Err(Failure::NotMaster {
            at: master.address(),
            role,
        })
    }
}

async fn asked<T>(
    master: &Master,
    limit: Duration,
    answer: impl Future<Output = RedisResult<T>>,
) -> Result<T, Failure> {
    let at = || master.address();
    match within(limit, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Failure::Redis { at: at(), error }),
        Err(elapsed) => Err(Failure::Silent { at: at(), elapsed }),
    }
}

/// The first word of an answer to ROLE.
fn role(answer: &Value) -> String {
    let first = match answer {
        Value::Array(parts) => parts.first(),
        _ => None,
    };
    let word = first.and_then(|first| ::redis::from_redis_value_ref(first).ok());
    word.unwrap_or_else(|| "something else".to_owned())
}

/// Looks for the master for as long as there is a link.
async fn follow(shared: Arc<Shared>) {
    let mut number = 0;
    loop {
        let looked = shared.look(&mut number).await;
        let at_hand = shared.master.borrow().is_some();
        let problem = looked.err().map(|failure| failure.to_string());
        *shared
            .problem
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = problem;
        sleep(PAUSE).await;
        if at_hand {
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                () = shared.look.notified() => {}
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
