//! The client: asks a sentinel for the master, as applications do, and writes a numbered key a probe. After
//! each write it asks how many replicas have it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::cmd;
use veza_probe::ledger::{Attempt, Fate, Ledger, reconcile};
use veza_probe::prober::{ActError, Host, Sample};

use super::keys::{Keys, TTL_S};
use crate::baseline::group::Place;
use crate::targets::connection::{Error, Link, Login, Server};

/// How long WAIT may wait for replicas, in milliseconds: they answer within one; where one is gone, every
/// write would wait for so long.
const WAIT_MS: u64 = 10;

/// How long a client waits for a connection before it asks for the master again; as an application's connect
/// timeout, it adds to every failover.
pub const CONNECT_LIMIT: Duration = Duration::from_millis(500);

/// How a client finds the master and logs in there.
#[derive(Clone)]
pub struct Route {
    /// The master, as the sentinels name it.
    pub master: String,
    /// How to log in at a sentinel.
    pub sentinel_login: Login,
    /// How to log in at the master.
    pub login: Login,
    /// Servers that sentinels may announce by name.
    pub places: Vec<Place>,
}

impl Route {
    /// Asks a sentinel, connects to the master it names, and makes sure that this one calls itself master.
    ///
    /// # Errors
    /// What stood in the way, in words.
    pub async fn follow(
        &self,
        sentinel: &Server,
        connect: Duration,
        limit: Duration,
    ) -> Result<Link, String> {
        let opened = Link::open(sentinel, &self.sentinel_login, connect).await;
        let mut link = opened.map_err(|e| e.to_string())?;
        let mut question = cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.master);
        let asked =
            link.ask::<Option<(String, u16)>>("SENTINEL GET-MASTER-ADDR-BY-NAME", &question);
        let Some((host, port)) = asked.await.map_err(|e| e.to_string())? else {
            return Err(format!("{sentinel} knows no master {:?}", self.master));
        };
        let server = Server {
            name: host.clone(),
            address: self.located(&host, port)?,
        };
        let opened = Link::open(&server, &self.login, connect).await;
        let mut link = opened.map_err(|e| e.to_string())?;
        let role: Vec<redis::Value> = link
            .ask("ROLE", &cmd("ROLE"))
            .await
            .map_err(|e| e.to_string())?;
        let role: Option<String> = role
            .first()
            .and_then(|role| redis::from_redis_value_ref(role).ok());
        if role.as_deref() != Some("master") {
            return Err(format!("{server} is named as the master, and is {role:?}"));
        }
        link.set_limit(limit);
        Ok(link)
    }

    fn located(&self, host: &str, port: u16) -> Result<SocketAddr, String> {
        let known = |place: &&Place| place.announced.0 == host && place.announced.1 == port;
        if let Some(place) = self.places.iter().find(known) {
            return Ok(place.server.address);
        }
        let ip = host
            .parse()
            .map_err(|_| format!("where {host:?} is, is not known"))?;
        Ok(SocketAddr::new(ip, port))
    }
}

/// How many replicas had each write that the master acknowledged, by its number.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<BTreeMap<u64, u64>>>);

impl Log {
    fn note(&self, number: u64, replicas: u64) {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.insert(number, replicas);
    }

    /// The newest acknowledged write but for so many newer ones.
    pub fn newest_but(&self, behind: usize) -> Option<u64> {
        let log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.keys().rev().nth(behind).copied()
    }

    /// A copy of what was noted.
    pub fn so_far(&self) -> BTreeMap<u64, u64> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// The client that asks one sentinel.
pub struct SentinelClient {
    /// The sentinel.
    pub sentinel: Server,
    /// How the master is found.
    pub route: Route,
    /// Where keys are written.
    pub keys: Keys,
    /// How many replicas there are.
    pub replicas: u64,
    /// How long a write may take.
    pub limit: Duration,
    /// Where acknowledged writes are noted.
    pub log: Log,
}

impl Host for SentinelClient {
    type Connection = Link;

    fn name(&self) -> &str {
        &self.sentinel.name
    }

    async fn connect(&self) -> Result<Link, String> {
        let (sentinel, limit) = (&self.sentinel, self.limit);
        self.route.follow(sentinel, CONNECT_LIMIT, limit).await
    }

    async fn act(&self, link: &mut Link, number: u64) -> Result<(), ActError> {
        let mut set = cmd("SET");
        set.arg(self.keys.write(number))
            .arg(self.keys.value(number));
        set.arg("EX").arg(TTL_S);
        link.ask::<()>("SET", &set)
            .await
            .map_err(|error| not_written(&error))?;
        self.log.note(number, 0);
        let mut wait = cmd("WAIT");
        wait.arg(self.replicas).arg(WAIT_MS);
        match link.ask("WAIT", &wait).await {
            Ok(replicas) => {
                self.log.note(number, replicas);
                Ok(())
            }
            Err(error) => Err(ActError::Doubtful(format!("written, and then: {error}"))),
        }
    }
}

/// An error of Redis to a single SET proves that nothing was written; anything else leaves it open.
fn not_written(error: &Error) -> ActError {
    let words = error.to_string();
    match error.is_answer() {
        true => ActError::Refused(words),
        false => ActError::Broken(words),
    }
}

/// What became of the writes: all that the master acknowledged, those that at least one replica had, and
/// those that every replica had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledgers {
    /// Whatever the master acknowledged.
    pub plain: Ledger,
    /// Of those, what one replica or more had confirmed.
    pub one: Ledger,
    /// Of those, what every replica had confirmed.
    pub all: Ledger,
}

/// Compares what the client was told with the numbers that are there. A write that fewer replicas confirmed
/// than asked for is unknown.
pub fn ledgers(
    samples: &[Sample],
    log: &BTreeMap<u64, u64>,
    replicas: u64,
    rows: &[u64],
) -> Ledgers {
    let of = |needed: u64| {
        let attempt = |sample: &Sample| {
            let told = Attempt::from(sample);
            let fate = match log.get(&sample.number) {
                Some(confirmed) if *confirmed >= needed => Fate::Acknowledged,
                Some(_) => Fate::Unknown,
                // Nothing was acknowledged, whatever the sample came to.
                None if told.fate == Fate::Failed => Fate::Failed,
                None => Fate::Unknown,
            };
            Attempt { fate, ..told }
        };
        let attempts: Vec<Attempt> = samples.iter().map(attempt).collect();
        reconcile(&attempts, rows)
    };
    Ledgers {
        plain: of(0),
        one: of(1),
        all: of(replicas.max(1)),
    }
}

#[cfg(test)]
mod tests {
    use veza_probe::clock::At;
    use veza_probe::prober::{Failure, FailureKind, Outcome};

    use super::*;

    fn sample(number: u64, failed: Option<FailureKind>) -> Sample {
        let at = At(i64::try_from(number).unwrap());
        let failure = |kind| {
            Outcome::Failure(Failure {
                kind,
                text: String::new(),
            })
        };
        Sample {
            number,
            due: at,
            start: at,
            end: at,
            outcome: failed.map_or(Outcome::Success, failure),
        }
    }

    #[test]
    fn gate_0_holds_for_what_every_replica_had() {
        let samples = [
            sample(0, None),
            sample(1, None),
            sample(2, None),
            // Acknowledged, and the connection broke before WAIT was answered.
            sample(3, Some(FailureKind::Doubtful)),
            sample(4, Some(FailureKind::Refused)),
            sample(5, Some(FailureKind::Deadline)),
        ];
        let log = BTreeMap::from([(0, 2), (1, 1), (2, 0), (3, 0)]);
        let found = ledgers(&samples, &log, 2, &[]);
        let lost = |ledger: &Ledger| (ledger.acknowledged, ledger.lost_count());
        assert_eq!(lost(&found.plain), (4, 4));
        assert_eq!(lost(&found.one), (2, 2));
        assert_eq!(lost(&found.all), (1, 1));
        assert_eq!((found.all.failed, found.all.unknown), (1, 4));
        let found = ledgers(&samples, &log, 2, &[0, 4]);
        assert_eq!(found.all.lost_count(), 0);
        assert_eq!(found.all.phantom_count(), 1);
        assert_eq!(found.plain.lost_count(), 3);
    }

    #[test]
    fn the_newest_writes_are_left_out_by_their_number() {
        let log = Log::default();
        assert_eq!(log.newest_but(0), None);
        for number in [3, 9, 7] {
            log.note(number, 0);
        }
        assert_eq!((log.newest_but(0), log.newest_but(1)), (Some(9), Some(7)));
        assert_eq!(log.newest_but(3), None);
    }

    #[test]
    fn without_replicas_nothing_is_confirmed_by_all() {
        let log = BTreeMap::from([(0, 0)]);
        let found = ledgers(&[sample(0, None)], &log, 0, &[0]);
        assert_eq!(found.all.acknowledged, 0);
        assert_eq!(found.plain.acknowledged, 1);
    }
}
