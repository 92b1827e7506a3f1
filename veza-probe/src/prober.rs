//! Open-loop probes: client actions that are due at fixed instants, whatever the service does.
//!
//! ```text
//! due instants ─► dispatcher ─► a free standing connection ─► act, under a deadline ─► sample
//!                     │                     ▲
//!                     └─ none: a failure    └── one connector per host, while some are missing
//! ```
//! This module makes samples; what they mean is said in `outage`.

mod shape;
mod lateness;
mod apart;
mod fed;

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::clock::{At, Clock, micros, within};

use apart::Apart;
pub use fed::{Batch, Batches};
pub use lateness::Lateness;
pub(crate) use lateness::percentile;
pub use shape::{Shape, ShapeError};

/// The longest text that a sample keeps of an error, in characters: a long outage has thousands.
const TEXT_CHARS: usize = 160;

/// One client action as the client saw it; all moments in microseconds of the run's clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Which due instant, counted from 0 without gaps.
    pub number: u64,
    /// When it was due.
    #[serde(rename = "due_us")]
    pub due: At,
    /// When it was dispatched; never later than it was sent, and never earlier than the start of
    /// the sample before.
    #[serde(rename = "start_us")]
    pub start: At,
    /// When its outcome was known.
    #[serde(rename = "end_us")]
    pub end: At,
    /// What became of it.
    pub outcome: Outcome,
}

impl Sample {
    /// Whether the action succeeded.
    pub fn is_success(&self) -> bool {
        self.outcome == Outcome::Success
    }

    /// How much later than due it was dispatched, in microseconds: our fault, not the service's.
    pub fn lateness_us(&self) -> i64 {
        self.start.us_since(self.due)
    }
}

/// What became of a client action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The service did what it was asked, within the deadline.
    Success,
    /// It did not, or the client can't know.
    Failure(Failure),
}

/// Why an action failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The kind, for counting.
    pub kind: FailureKind,
    /// What was said, in one short line, for people.
    pub text: String,
}

/// The kinds of failure that a client can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// No standing connection was free, or none was alive; nothing was sent.
    NoConnection,
    /// No answer within the limit; the connection was dropped.
    Deadline,
    /// The server answered with an error that proves that it did nothing.
    Refused,
    /// The server answered, but not so that what it did is known or safe.
    Doubtful,
    /// The connection broke before an answer.
    Broken,
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FailureKind::NoConnection => "no connection",
            FailureKind::Deadline => "no answer in time",
            FailureKind::Refused => "refused",
            FailureKind::Doubtful => "answered in doubt",
            FailureKind::Broken => "connection broken",
        })
    }
}

/// Why [`Host::act`] failed. The connection is dropped either way: a refused write usually means
/// that it leads to the wrong host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ActError {
    /// The server answered, and the answer proves that it did nothing.
    #[error("{0}")]
    Refused(String),
    /// The server answered, but not so that what it did is known or safe.
    #[error("{0}")]
    Doubtful(String),
    /// The connection broke before an answer.
    #[error("{0}")]
    Broken(String),
}

/// One host that may serve what is probed. Its futures are dropped at their deadlines; dropping one
/// must close the connection and send no cancel request.
pub trait Host: Send + Sync + 'static {
    /// A standing connection.
    type Connection: Send + 'static;

    /// The host's name, for messages.
    fn name(&self) -> &str;

    /// Connects, and makes sure that this host serves what is probed (takes writes, for instance):
    /// otherwise every probe on the connection would fail while another host serves.
    fn connect(&self) -> impl Future<Output = Result<Self::Connection, String>> + Send;

    /// One client action; `number` is that of its sample.
    fn act(
        &self,
        connection: &mut Self::Connection,
        number: u64,
    ) -> impl Future<Output = Result<(), ActError>> + Send;
}

/// How one host's connector fares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connector {
    /// The host's name.
    pub host: String,
    /// When it last made a connection.
    #[serde(rename = "last_connected_us")]
    pub last_connected: Option<At>,
    /// Its last error, older or newer than the last connection.
    pub last_error: Option<ConnectError>,
}

/// A failed attempt to connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectError {
    /// When it failed.
    #[serde(rename = "at_us")]
    pub at: At,
    /// What was said, in one short line.
    pub text: String,
}

/// The samples that are finished, and how many are not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SoFar {
    /// Finished samples, sorted by due time; numbers of those in flight are missing.
    pub samples: Vec<Sample>,
    /// Probes that were dispatched and have no outcome yet.
    pub in_flight: u64,
}

/// Probes under way. Dropping it ends its tasks and closes its connections.
#[derive(Debug)]
pub struct Prober {
    clock: Clock,
    store: Arc<Store>,
    stop: watch::Sender<Option<At>>,
    /// One task; it owns the probes in flight, so that they end with it.
    dispatcher: JoinSet<()>,
    connectors: JoinSet<()>,
    /// Last: what runs on it is ended first.
    apart: Option<Apart>,
}

impl Prober {
    /// Starts connecting at once, and probing at `first_due`, on threads of its own. Until then a connector that succeeds
    /// goes on without a pause, so that all connections stand before the first probe when
    /// `first_due` is far enough ahead.
    pub fn start<H: Host>(clock: Clock, shape: Shape, hosts: Vec<H>, first_due: At) -> Prober {
        let names = hosts.iter().map(|host| host.name().to_owned());
        let store = Arc::new(Store::new(names));
        let hosts: Vec<Arc<H>> = hosts.into_iter().map(Arc::new).collect();
        let pool = Arc::new(Pool {
            clock,
            shape,
            store: Arc::clone(&store),
            alive: watch::Sender::new(0),
            idle: Mutex::new(VecDeque::new()),
        });
        let apart = Apart::new();
        let entered = apart.enter();
        let mut connectors = JoinSet::new();
        for (index, host) in hosts.into_iter().enumerate() {
            let task = keep_connected(Arc::clone(&pool), host, index, first_due);
            connectors.spawn(watched(Arc::clone(&store), task));
        }
        let (stop, stopped) = watch::channel(None);
        let mut dispatcher = JoinSet::new();
        dispatcher.spawn(watched(
            Arc::clone(&store),
            dispatch(pool, first_due, stopped),
        ));
        drop(entered);
        Prober {
            clock,
            store,
            stop,
            dispatcher,
            connectors,
            apart: Some(apart),
        }
    }

    /// A copy of the finished samples, and the number of those in flight.
    ///
    /// # Panics
    /// With the panic of a task, if one panicked.
    pub fn so_far(&self) -> SoFar {
        self.store.resume_panic();
        let log = self.store.lock();
        let finished = log.samples.len() as u64;
        SoFar {
            samples: log.samples.clone(),
            in_flight: log.issued.saturating_sub(finished),
        }
    }

    /// Looks at the finished samples, sorted by due time, without copying them: for a question that
    /// is asked again at every new sample. Samples wait while `look` runs.
    ///
    /// # Panics
    /// With the panic of a task, if one panicked.
    pub fn inspect<T>(&self, look: impl FnOnce(&[Sample]) -> T) -> T {
        self.store.resume_panic();
        look(&self.store.lock().samples)
    }

    /// The number of finished samples, as news: it changes with every new one (and is marked as
    /// changed when a task panicked, so that whoever waits looks and is told).
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.store.finished.subscribe()
    }

    /// How each host's connector fares, in the order of the hosts.
    pub fn connectors(&self) -> Vec<Connector> {
        self.store.lock().connectors.clone()
    }

    /// Issues no probe that is due after now, waits for those in flight (at most their limit), and
    /// returns all samples, sorted by due time: exactly one for each due instant.
    ///
    /// # Panics
    /// With the panic of a task, if one panicked.
    pub async fn finish(self) -> Vec<Sample> {
        self.finish_or_lose().await.0
    }

    /// The same, and whether the process that issued the probes was lost, up to the last sample: see
    /// [`Prober::lost`].
    ///
    /// # Panics
    /// With the panic of a task, if one panicked.
    pub async fn finish_or_lose(mut self) -> (Vec<Sample>, bool) {
        self.stop.send_replace(Some(self.clock.at()));
        while self.dispatcher.join_next().await.is_some() {}
        drop(self.connectors);
        drop(self.apart);
        self.store.resume_panic();
        let mut log = self.store.lock();
        (std::mem::take(&mut log.samples), log.lost)
    }
}

/// Runs a task so that its panic is kept for the caller.
async fn watched(store: Arc<Store>, task: impl Future<Output = ()>) {
    // Nothing that the task leaves half done is used again: the caller unwinds, too.
    if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
        store.keep_panic(panic);
    }
}

/// What the tasks tell the caller.
#[derive(Debug)]
struct Store {
    log: Mutex<Log>,
    finished: watch::Sender<u64>,
}

#[derive(Debug)]
struct Log {
    /// Sorted by number, and so by due time.
    samples: Vec<Sample>,
    issued: u64,
    connectors: Vec<Connector>,
    panicked: bool,
    /// Whether another process issued the probes, and is gone.
    lost: bool,
    /// The first panic, until it is resumed.
    panic: Option<Box<dyn Any + Send>>,
}

impl Store {
    fn new(hosts: impl Iterator<Item = String>) -> Store {
        let connectors = hosts
            .map(|host| Connector {
                host,
                last_connected: None,
                last_error: None,
            })
            .collect();
        let log = Log {
            samples: Vec::new(),
            issued: 0,
            connectors,
            panicked: false,
            lost: false,
            panic: None,
        };
        Store {
            log: Mutex::new(log),
            finished: watch::Sender::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        // A caller's `look` that panicked has changed nothing.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, sample: Sample) {
        let mut log = self.lock();
        // Almost always the end: only slow probes come in after later ones.
        let place = log
            .samples
            .partition_point(|other| other.number < sample.number);
        log.samples.insert(place, sample);
        let count = log.samples.len() as u64;
        drop(log);
        // The greater of the two: another task may have told a later count already.
        self.finished
            .send_modify(|finished| *finished = count.max(*finished));
    }

    fn note_connector(&self, index: usize, note: impl FnOnce(&mut Connector)) {
        if let Some(connector) = self.lock().connectors.get_mut(index) {
            note(connector);
        }
    }

    fn keep_panic(&self, panic: Box<dyn Any + Send>) {
        let mut log = self.lock();
        log.panicked = true;
        log.panic.get_or_insert(panic);
        drop(log);
        self.finished.send_modify(|_| {});
    }

    fn resume_panic(&self) {
        let mut log = self.lock();
        if log.panicked {
            let panic = log.panic.take();
            drop(log);
            resume_unwind(panic.unwrap_or_else(|| Box::new("a task of the prober panicked")));
        }
    }
}

/// The standing connections to all hosts.
struct Pool<H: Host> {
    clock: Clock,
    shape: Shape,
    store: Arc<Store>,
    /// Idle and in use; connectors wait for it to fall.
    alive: watch::Sender<usize>,
    /// Those not in use. The one that has been idle longest goes first and a returned or new one
    /// last, so each is used once in every round (80 ms by default). Taking the most recently
    /// successful one instead would leave dead ones lying unnoticed, and they would make failures
    /// long after the outage that killed them; in turn they fail while it lasts.
    idle: Mutex<VecDeque<Standing<H>>>,
}

struct Standing<H: Host> {
    host: Arc<H>,
    connection: H::Connection,
}

impl<H: Host> Pool<H> {
    fn idle(&self) -> MutexGuard<'_, VecDeque<Standing<H>>> {
        // Pushes and pops only: there is no state in between that a panic could leave.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a new connection; one too many is dropped (two connectors may succeed at once).
    fn admit(&self, standing: Standing<H>) {
        let wanted = self.shape.connections();
        let has_room = self.alive.send_if_modified(|alive| {
            let has_room = *alive < wanted;
            *alive += usize::from(has_room);
            has_room
        });
        if has_room {
            self.idle().push_back(standing);
        }
    }

    /// Drops a connection, so that a connector makes another.
    fn discard(&self, standing: Standing<H>) {
        drop(standing);
        self.alive
            .send_modify(|alive| *alive = alive.saturating_sub(1));
    }

    fn no_connection(&self) -> Failure {
        let alive = *self.alive.borrow();
        let text = match alive {
            0 => "no connection is alive".to_owned(),
            _ => format!("all {alive} connections that are alive are in use"),
        };
        Failure {
            kind: FailureKind::NoConnection,
            text,
        }
    }
}

/// Connects to one host again and again while connections are missing. One such task per host: a
/// host that hangs holds up nobody but its own connector.
async fn keep_connected<H: Host>(pool: Arc<Pool<H>>, host: Arc<H>, index: usize, first_due: At) {
    let shape = &pool.shape;
    let connections = shape.connections();
    let (connect_limit, reconnect_every) = (shape.connect_limit(), shape.reconnect_every());
    let mut alive = pool.alive.subscribe();
    // The sender lives in the pool: this ends with the task.
    while alive.wait_for(|alive| *alive < connections).await.is_ok() {
        let begun = pool.clock.at();
        let error = match within(connect_limit, host.connect()).await {
            Ok(Ok(connection)) => {
                pool.admit(Standing {
                    host: Arc::clone(&host),
                    connection,
                });
                None
            }
            Ok(Err(text)) => Some(text),
            Err(elapsed) => Some(elapsed.to_string()),
        };
        let at = pool.clock.at();
        let succeeded = error.is_none();
        pool.store.note_connector(index, |connector| match error {
            None => connector.last_connected = Some(at),
            Some(text) => {
                connector.last_error = Some(ConnectError {
                    at,
                    text: short(&text),
                });
            }
        });
        if !(succeeded && at < first_due) {
            pool.clock.sleep_until(begun.plus(reconnect_every)).await;
        }
    }
}

/// Issues a probe at every due instant until told to stop, then waits for those in flight.
async fn dispatch<H: Host>(pool: Arc<Pool<H>>, first_due: At, stop: watch::Receiver<Option<At>>) {
    let mut stop = stop;
    let mut probes = JoinSet::new();
    for number in 0_u64.. {
        let due = due(first_due, pool.shape.spacing(), number);
        tokio::select! {
            biased;
            // What was due before the stop is still issued, however late we are: no gaps.
            _ = stop.wait_for(|at| at.is_some_and(|at| at < due)) => break,
            () = pool.clock.sleep_until(due) => {}
        }
        issue(&pool, &mut probes, number, due);
        while probes.try_join_next().is_some() {}
    }
    while probes.join_next().await.is_some() {}
}

fn due(first_due: At, spacing: Duration, number: u64) -> At {
    let steps = i64::try_from(number).unwrap_or(i64::MAX);
    At(first_due
        .0
        .saturating_add(micros(spacing).saturating_mul(steps)))
}

/// Dispatches one probe. Its start is read here, in the order of due times: if anything too early,
/// which makes intervals wider and never wrong.
fn issue<H: Host>(pool: &Arc<Pool<H>>, probes: &mut JoinSet<()>, number: u64, due: At) {
    let start = pool.clock.at();
    pool.store.lock().issued += 1;
    let standing = pool.idle().pop_front();
    let Some(standing) = standing else {
        let outcome = Outcome::Failure(pool.no_connection());
        pool.store.record(Sample {
            number,
            due,
            start,
            end: start,
            outcome,
        });
        return;
    };
    let probe = probe(Arc::clone(pool), standing, number, due, start);
    probes.spawn(watched(Arc::clone(&pool.store), probe));
}

/// One probe on one connection. At the deadline the action's future is dropped and the connection
/// with it; nothing is cancelled on the server.
async fn probe<H: Host>(
    pool: Arc<Pool<H>>,
    standing: Standing<H>,
    number: u64,
    due: At,
    start: At,
) {
    let mut standing = standing;
    let host = Arc::clone(&standing.host);
    let acted = within(
        pool.shape.limit(),
        host.act(&mut standing.connection, number),
    )
    .await;
    let end = pool.clock.at();
    let (kind, text) = match acted {
        Ok(Ok(())) => {
            // Back first: it is free for the next probe before anybody is told.
            pool.idle().push_back(standing);
            pool.store.record(Sample {
                number,
                due,
                start,
                end,
                outcome: Outcome::Success,
            });
            return;
        }
        Ok(Err(ActError::Refused(text))) => (FailureKind::Refused, text),
        Ok(Err(ActError::Doubtful(text))) => (FailureKind::Doubtful, text),
        Ok(Err(ActError::Broken(text))) => (FailureKind::Broken, text),
        Err(elapsed) => (FailureKind::Deadline, elapsed.to_string()),
    };
    pool.discard(standing);
    let text = short(&format!("{}: {text}", host.name()));
    let outcome = Outcome::Failure(Failure { kind, text });
    pool.store.record(Sample {
        number,
        due,
        start,
        end,
        outcome,
    });
}

/// A text as one line of at most [`TEXT_CHARS`] characters.
fn short(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(TEXT_CHARS) {
        None => line,
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests;
