//! The cluster, looked at again and again: who lives, what each node says of quorums, and, after the heal, whether
//! every node reads and writes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use veza_probe::clock::{self, At, Clock};

use super::objects::{Read, compare, write};
use super::stage::Stage;
use crate::cli::course::Object;
use crate::targets::Node;
use crate::targets::http::Health;

/// The pause between two looks.
const EVERY: Duration = Duration::from_millis(300);

/// How long one trial of S3 may take after the heal.
const TRIAL_LIMIT: Duration = Duration::from_secs(5);

/// One node at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The node.
    pub name: String,
    /// Whether it answers.
    pub lives: bool,
    /// What `/minio/health/cluster` came to.
    pub cluster: Result<Health, String>,
    /// What `/minio/health/cluster/read` came to.
    pub read: Result<Health, String>,
    /// Whether it read an object right, and took a write; none when that was not tried.
    pub serves: Option<Result<(), String>>,
}

impl Seen {
    fn says(health: &Result<Health, String>, code: u16) -> bool {
        health.as_ref().is_ok_and(|health| health.code == code)
    }

    /// Whether it says that write quorum is there.
    pub fn has_write_quorum(&self) -> bool {
        Seen::says(&self.cluster, 200)
    }

    /// Whether it says that all is there, and nothing heals.
    pub fn is_well(&self) -> bool {
        let heals = |health: &Result<Health, String>| {
            health.as_ref().is_ok_and(|health| health.healing > 0)
        };
        self.has_write_quorum()
            && Seen::says(&self.read, 200)
            && !heals(&self.cluster)
            && !heals(&self.read)
    }
}

/// All nodes at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// When the look began.
    pub asked: At,
    /// When the last answer was in.
    pub answered: At,
    /// Every node.
    pub nodes: Vec<Seen>,
    /// How many drives the admin API calls online; none when it was not asked, or did not answer.
    pub drives_online: Option<usize>,
    /// How many drives there are.
    pub drives: usize,
    /// Whether the store has no health endpoints: then serving is all that can be asked for.
    pub s3_only: bool,
}

impl Look {
    /// Whether every node answers.
    pub fn all_live(&self) -> bool {
        self.nodes.iter().all(|node| node.lives)
    }

    /// Whether every node says that write quorum is there.
    pub fn quorum(&self) -> bool {
        self.nodes.iter().all(Seen::has_write_quorum)
    }

    /// Whether every drive is online, where anybody says so.
    pub fn drives_back(&self) -> bool {
        self.drives_online
            .is_none_or(|online| online == self.drives)
    }

    /// Whether the admin API said that every drive is online.
    pub fn drives_back_for_sure(&self) -> bool {
        self.drives_online == Some(self.drives)
    }

    /// Whether every node read and wrote.
    pub fn serves(&self) -> bool {
        self.nodes.iter().all(|node| node.serves == Some(Ok(())))
    }

    /// Whether all of it is as it was.
    pub fn whole(&self) -> bool {
        if self.s3_only {
            return self.all_live() && self.serves();
        }
        self.all_live() && self.nodes.iter().all(Seen::is_well) && self.drives_back()
    }
}

/// What was looked for, and when it was seen: not yet at the end of one look, for certain at that of another.
pub type Since = (Option<At>, Option<At>);

/// Every look so far.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// In their order.
    pub looks: Vec<Look>,
}

impl Record {
    /// Since when `is_so` held without a break, of the looks that began after `since`: it did not at the first moment
    /// (none when it did in every look), and did at the second.
    pub fn since(&self, since: At, is_so: impl Fn(&Look) -> bool) -> Since {
        let looks: Vec<&Look> = self
            .looks
            .iter()
            .filter(|look| look.asked >= since)
            .collect();
        let last_not = looks.iter().rposition(|look| !is_so(look));
        let begin = last_not.map_or(0, |at| at + 1);
        let not = last_not.and_then(|at| looks.get(at)).map(|look| look.asked);
        (not, looks.get(begin).map(|look| look.answered))
    }
}

/// Looks under way.
pub struct Follower {
    record: Arc<Mutex<Record>>,
    news: watch::Sender<u64>,
    tries: Arc<Mutex<Option<Object>>>,
    _task: JoinSet<()>,
}

impl Follower {
    /// Starts looking.
    pub fn start(stage: &Stage) -> Follower {
        let record = Arc::new(Mutex::new(Record::default()));
        let news = watch::Sender::new(0);
        let tries = Arc::new(Mutex::new(None));
        let mut task = JoinSet::new();
        let (kept, told, tried) = (Arc::clone(&record), news.clone(), Arc::clone(&tries));
        let stage = stage.clone();
        task.spawn(async move {
            loop {
                let trial = tried.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let look = look(&stage, trial.as_ref()).await;
                kept.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .looks
                    .push(look);
                told.send_modify(|count| *count += 1);
                clock::sleep(EVERY).await;
            }
        });
        Follower {
            record,
            news,
            tries,
            _task: task,
        }
    }

    /// From now on every node is tried, too: it reads this object, and writes one.
    pub fn try_with(&self, object: Object) {
        *self.tries.lock().unwrap_or_else(PoisonError::into_inner) = Some(object);
    }

    /// The number of looks, as news.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Looks at the record.
    pub fn inspect<T>(&self, look: impl FnOnce(&Record) -> T) -> T {
        look(&self.record.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Asks every node at once.
async fn look(stage: &Stage, trial: Option<&Object>) -> Look {
    let asked = stage.clock.at();
    let mut asking = JoinSet::new();
    for (number, node) in stage.nodes.iter().cloned().enumerate() {
        let (clock, trial, prefix) = (stage.clock, trial.cloned(), stage.prefix.clone());
        asking.spawn(async move { (number, seen(&clock, &node, trial.as_ref(), &prefix).await) });
    }
    let mut nodes = Vec::new();
    while let Some(done) = asking.join_next().await {
        nodes.extend(done);
    }
    nodes.sort_by_key(|(number, _)| *number);
    // Only the return is of interest: meanwhile who stays up would wait for who does not.
    let drives_online = match trial {
        Some(_) if !stage.args.s3_only => drives(stage).await,
        _ => None,
    };
    Look {
        asked,
        answered: stage.clock.at(),
        nodes: nodes.into_iter().map(|(_, seen)| seen).collect(),
        drives_online,
        drives: stage.before.drives().count(),
        s3_only: stage.args.s3_only,
    }
}

/// How many drives are online and not healing, by the word of a node that stayed up.
async fn drives(stage: &Stage) -> Option<usize> {
    let living = stage.living();
    let names: Vec<&str> = living.iter().map(|node| node.name.as_str()).collect();
    let cluster = stage.admin.through(&names).info().await.ok()?;
    let well = cluster
        .drives()
        .filter(|(node, drive)| node.state == "online" && drive.state == "ok" && !drive.healing);
    Some(well.count())
}

async fn seen(clock: &Clock, node: &Node, trial: Option<&Object>, prefix: &str) -> Seen {
    let lives = node.http.health(clock, "live").await.is_ok();
    let silent = || Err("it does not answer".to_owned());
    let (cluster, read) = match lives {
        true => tokio::join!(
            node.http.health(clock, "cluster"),
            node.http.health(clock, "cluster/read"),
        ),
        false => (silent(), silent()),
    };
    let serves = match trial {
        Some(object) if lives => Some(serves(node, object, prefix).await),
        _ => None,
    };
    Seen {
        name: node.name.clone(),
        lives,
        cluster,
        read,
        serves,
    }
}

/// Reads an object through a node, and writes one of its own.
async fn serves(node: &Node, object: &Object, prefix: &str) -> Result<(), String> {
    let read = compare(object, node.store.get(&object.key, TRIAL_LIMIT).await);
    match read {
        Read::Right | Read::Changed(_) => {}
        Read::Wrong(words) | Read::Denied(words) | Read::Failed(words) => return Err(words),
    }
    let key = format!("{prefix}back/{}", node.name);
    let written = write(&node.store, &key, 0, 100, TRIAL_LIMIT).await;
    written.map(|_| ()).map_err(|failure| failure.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(at: i64, live: bool) -> Look {
        let none = || Err("no".to_owned());
        Look {
            asked: At(at),
            answered: At(at + 5),
            nodes: vec![Seen {
                name: "n".to_owned(),
                lives: live,
                cluster: none(),
                read: none(),
                serves: None,
            }],
            drives_online: None,
            drives: 4,
            s3_only: false,
        }
    }

    #[test]
    fn what_came_and_went_again_is_not_there_yet() {
        let looks = [
            (0, true),
            (10, false),
            (20, true),
            (30, false),
            (40, true),
            (50, true),
        ];
        let record = Record {
            looks: looks.map(|(at, live)| look(at, live)).to_vec(),
        };
        let since = |from| record.since(At(from), Look::all_live);
        assert_eq!(since(5), (Some(At(30)), Some(At(45))));
        assert_eq!(since(35), (None, Some(At(45))));
        assert_eq!(since(60), (None, None));
        let mut gone = record.clone();
        gone.looks.push(look(60, false));
        assert_eq!(gone.since(At(5), Look::all_live), (Some(At(60)), None));
    }

    #[test]
    fn a_node_that_heals_is_not_well() {
        let health = |code, healing| {
            Ok(Health {
                code,
                quorum: None,
                healing,
                date_s: None,
                status: None,
                asked: At(0),
                answered: At(0),
            })
        };
        let seen = |code, healing| Seen {
            name: "n".to_owned(),
            lives: true,
            cluster: health(code, healing),
            read: health(200, 0),
            serves: None,
        };
        assert!(seen(200, 0).is_well());
        assert!(!seen(200, 1).is_well() && !seen(503, 0).is_well());
        let look = |drives_online| Look {
            nodes: vec![seen(200, 0)],
            drives_online,
            ..look(0, true)
        };
        let another = Look {
            s3_only: true,
            ..look(None)
        };
        assert!(!another.whole(), "it must have served");
        assert!(look(None).whole() && look(Some(4)).whole() && !look(Some(3)).whole());
    }
}
