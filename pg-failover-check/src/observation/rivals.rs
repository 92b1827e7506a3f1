//! Asks every node, through the whole drill, whether it takes a write: a node out of recovery proves
//! nothing, only a write that succeeds does. Its rows stand in a table of their own, outside the
//! ledger, and at most one question per node is open.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use veza_probe::clock::{self, At, Clock, within};
use veza_probe::incus::{ExecOutput, Incus};
use veza_probe::instance::InstanceName;
use veza_probe::postgres::{self, Access, Error, Kind, Session, Target};
use veza_probe::tenure::{Answer, Asked, Tenure};

use super::heartbeat::{proves_no_commit, warning};
use crate::baseline::{Baseline, Member};

/// The pause between two questions to a node.
const PAUSE: Duration = Duration::from_millis(200);

/// How long an answer is waited for; the connection is dropped then, and nothing is cancelled: a
/// cancelled wait for synchronous replication would be told as a success.
const LIMIT: Duration = Duration::from_secs(2);

/// The questions under way. Dropping it ends them.
pub struct Rivals {
    log: Arc<Mutex<Vec<Asker>>>,
    /// The node that is asked from inside its instance now, as the network does not reach it.
    inside: watch::Sender<Option<i64>>,
    tasks: JoinSet<()>,
    clock: Clock,
    table: String,
    numbers: Arc<AtomicU64>,
    inner: Option<tokio::task::AbortHandle>,
}

/// What one node answered, with the number of each row.
#[derive(Clone, Debug)]
pub struct Asker {
    /// The node's id at the monitor.
    pub node: i64,
    /// Its answers.
    pub tenure: Tenure,
    /// The rows that it acknowledged.
    pub took: Vec<u64>,
}

impl Rivals {
    /// Starts asking every node over the network.
    pub fn start(clock: Clock, baseline: &Baseline, table: String) -> Rivals {
        let asker = |member: &Member| Asker {
            node: member.node.id,
            tenure: Tenure {
                node: member.node.name.clone(),
                asked: Vec::new(),
            },
            took: Vec::new(),
        };
        let log = baseline.members.iter().map(asker).collect();
        let mut rivals = Rivals {
            log: Arc::new(Mutex::new(log)),
            inside: watch::Sender::new(None),
            tasks: JoinSet::new(),
            clock,
            table,
            numbers: Arc::new(AtomicU64::new(0)),
            inner: None,
        };
        for member in &baseline.members {
            let way = Way::Network {
                at: member.at.clone(),
                access: Box::new(baseline.client.clone()),
                session: None,
            };
            rivals.spawn(member, way);
        }
        rivals
    }

    fn spawn(&mut self, member: &Member, way: Way) -> tokio::task::AbortHandle {
        let questions = Questions {
            clock: self.clock,
            node: member.node.id,
            name: member.node.name.clone(),
            table: self.table.clone(),
            numbers: Arc::clone(&self.numbers),
            log: Arc::clone(&self.log),
            inside: self.inside.subscribe(),
            way,
        };
        self.tasks.spawn(questions.ask_on())
    }

    /// From now on asks a node from inside its own instance, as long as the network is cut.
    pub fn ask_inside(&mut self, incus: &Incus, member: &Member, baseline: &Baseline) {
        let way = Way::Inside {
            incus: incus.clone(),
            instance: member.instance.clone(),
            port: member.node.port,
            dbname: baseline.client.login.dbname.clone(),
        };
        self.inside.send_replace(Some(member.node.id));
        self.inner = Some(self.spawn(member, way));
    }

    /// The network is there again.
    pub fn ask_outside(&mut self) {
        if let Some(inner) = self.inner.take() {
            inner.abort();
        }
        self.inside.send_replace(None);
    }

    /// What was answered so far.
    pub fn so_far(&self) -> Vec<Asker> {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Asks no more; the question that is open is given up.
    pub async fn finish(mut self) -> Vec<Asker> {
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
        self.so_far()
    }
}

/// How a node is reached.
enum Way {
    Network {
        at: Target,
        access: Box<Access>,
        session: Option<Session>,
    },
    Inside {
        incus: Incus,
        instance: InstanceName,
        port: u16,
        dbname: String,
    },
}

/// The questions to one node.
struct Questions {
    clock: Clock,
    node: i64,
    name: String,
    table: String,
    numbers: Arc<AtomicU64>,
    log: Arc<Mutex<Vec<Asker>>>,
    inside: watch::Receiver<Option<i64>>,
    way: Way,
}

impl Questions {
    async fn ask_on(mut self) {
        loop {
            let is_inside = matches!(self.way, Way::Inside { .. });
            let wanted = *self.inside.borrow_and_update() == Some(self.node);
            if wanted != is_inside {
                // The other way is the one now; its questions must not overlap with ours.
                if self.inside.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let number = self.numbers.fetch_add(1, Ordering::Relaxed);
            let began = self.clock.at();
            let (answer, words) = self.ask(number).await;
            self.note(number, began, answer, words);
            clock::sleep(PAUSE).await;
        }
    }

    fn note(&self, number: u64, began: At, answer: Answer, words: String) {
        let ended = self.clock.at();
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(asker) = log.iter_mut().find(|asker| asker.node == self.node) else {
            return;
        };
        if answer == Answer::Took {
            asker.took.push(number);
        }
        asker.tenure.asked.push(Asked {
            began,
            ended,
            answer,
            words,
        });
    }

    async fn ask(&mut self, number: u64) -> (Answer, String) {
        let sql = insert(&self.table, &self.name, number);
        match &mut self.way {
            Way::Network {
                at,
                access,
                session,
            } => over_network(at, access, session, &sql).await,
            Way::Inside {
                incus,
                instance,
                port,
                dbname,
            } => {
                let port = port.to_string();
                let argv = [
                    "runuser", "-u", "postgres", "--", "psql", "-X", "-q", "-p", &port, "-d",
                    dbname, "-c", &sql,
                ];
                match incus.exec(instance, &argv, LIMIT).await {
                    Ok(output) => from_inside(&output),
                    Err(error) => (Answer::Unasked, error.to_string()),
                }
            }
        }
    }
}

fn insert(table: &str, node: &str, number: u64) -> String {
    let node = node.replace('\'', "''");
    format!("insert into {table} (node, number) values ('{node}', {number})")
}

/// One write over a session that is kept as long as it answers.
async fn over_network(
    at: &Target,
    access: &Access,
    kept: &mut Option<Session>,
    sql: &str,
) -> (Answer, String) {
    let mut session = match kept.take() {
        Some(session) => session,
        None => match postgres::connect(at, &access.login, &access.tls, LIMIT).await {
            Ok(session) => session,
            Err(error) => return (not_connected(&error), error.to_string()),
        },
    };
    match within(LIMIT, session.client.batch_execute(sql)).await {
        Err(elapsed) => (Answer::Unacknowledged, elapsed.to_string()),
        Ok(Ok(())) => match warning(&mut session) {
            Some(words) => (Answer::Unacknowledged, words),
            None => {
                *kept = Some(session);
                (Answer::Took, "took a write".to_owned())
            }
        },
        Ok(Err(error)) => match error.as_db_error() {
            Some(said) => {
                let refused = proves_no_commit(said);
                let words = said.to_string();
                if refused {
                    *kept = Some(session);
                    (Answer::Refused, words)
                } else {
                    (Answer::Unacknowledged, words)
                }
            }
            None => (Answer::Unacknowledged, error.to_string()),
        },
    }
}

/// What it says of a server that no session could be had with.
fn not_connected(error: &Error) -> Answer {
    match error.kind() {
        // The kernel of a host that is there refuses; of one that is not, nothing comes back.
        Kind::Unreachable if error.to_string().contains("refused") => Answer::Absent,
        Kind::Unreachable | Kind::Deadline => Answer::Unasked,
        Kind::Lost => Answer::Absent,
        _ => Answer::Refused,
    }
}

/// What `psql` came to: 0 done, 1 the server says no, 2 no connection
/// (<https://www.postgresql.org/docs/17/app-psql.html>), 124 or 137 the limit.
fn from_inside(output: &ExecOutput) -> (Answer, String) {
    let words = output
        .stderr
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    let answer = match output.code {
        0 if words.contains("WARNING") => Answer::Unacknowledged,
        0 => Answer::Took,
        1 => Answer::Refused,
        2 => Answer::Absent,
        124 | 137 => Answer::Unacknowledged,
        _ => Answer::Unasked,
    };
    let words = match answer {
        Answer::Took => "took a write from inside".to_owned(),
        Answer::Unacknowledged if words.is_empty() => "no answer from inside in time".to_owned(),
        _ => format!("from inside: {words}"),
    };
    (answer, words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inside(code: i64, stderr: &str) -> Answer {
        let output = ExecOutput {
            code,
            stdout: String::new(),
            stderr: stderr.to_owned(),
        };
        from_inside(&output).0
    }

    #[test]
    fn only_a_write_without_a_warning_was_taken() {
        assert_eq!(inside(0, ""), Answer::Took);
        let cancelled =
            "WARNING:  canceling the wait for synchronous replication due to user request";
        assert_eq!(inside(0, cancelled), Answer::Unacknowledged);
        assert_eq!(
            inside(
                1,
                "ERROR:  cannot execute INSERT in a read-only transaction"
            ),
            Answer::Refused
        );
        assert_eq!(
            inside(2, "connection to server on socket failed"),
            Answer::Absent
        );
        assert_eq!(inside(124, ""), Answer::Unacknowledged);
        assert_eq!(inside(127, "psql: not found"), Answer::Unasked);
    }

    #[test]
    fn a_name_can_not_end_the_statement() {
        let sql = insert("s.rival", "a'; drop table x; --", 7);
        assert!(
            sql.ends_with("values ('a''; drop table x; --', 7)"),
            "{sql}"
        );
    }
}
