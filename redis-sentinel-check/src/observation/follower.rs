//! Looks at the whole group several times a second, until it is whole again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use veza_probe::clock::{self, At, Clock};

use crate::baseline::group::{Eyes, Look};

/// The pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// One look at the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looked {
    /// When everyone was asked.
    pub asked: At,
    /// When all answers were in.
    pub answered: At,
    /// What is missing to a whole group, or who the master is.
    pub whole: Result<String, String>,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Every look.
    pub looks: Vec<Looked>,
    /// The last one in full.
    pub last: Look,
}

impl Record {
    /// The last look after `since` at which something was missing, and the first whole one after it.
    pub fn whole_again(&self, since: At) -> (Option<&Looked>, Option<&Looked>) {
        let after = self.looks.iter().filter(|look| look.asked >= since);
        let last_missing = after.clone().rfind(|look| look.whole.is_err());
        let from = last_missing.map_or(since, |look| look.answered);
        let mut later = after.filter(|look| look.whole.is_ok() && look.asked >= from);
        (last_missing, later.next())
    }
}

/// The follower under way.
pub struct Follower {
    record: Arc<Mutex<Record>>,
    news: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

impl Follower {
    /// Starts looking.
    pub fn start(clock: Clock, mut eyes: Eyes) -> Follower {
        let record = Arc::new(Mutex::new(Record::default()));
        let (sender, news) = watch::channel(0);
        let kept = Arc::clone(&record);
        let task = tokio::spawn(async move {
            loop {
                let asked = clock.at();
                let look = eyes.look().await;
                let whole = look.whole().map(str::to_owned);
                let looked = Looked {
                    asked,
                    answered: clock.at(),
                    whole: whole.map_err(|trouble| trouble.words),
                };
                {
                    let mut record = kept.lock().unwrap_or_else(PoisonError::into_inner);
                    record.looks.push(looked);
                    record.last = look;
                }
                sender.send_modify(|count| *count += 1);
                clock::sleep(LOOK_EVERY).await;
            }
        });
        Follower { record, news, task }
    }

    /// Looks at what was recorded.
    pub fn inspect<T>(&self, look: impl FnOnce(&Record) -> T) -> T {
        look(&self.record.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes with every look.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.news.clone()
    }

    /// Stops looking.
    pub fn finish(self) -> Record {
        self.task.abort();
        self.inspect(Record::clone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(looks: &[(i64, bool)], since: i64) -> (Option<i64>, Option<i64>) {
        let looked = |(at, whole): &(i64, bool)| Looked {
            asked: At(*at),
            answered: At(*at + 1),
            whole: match whole {
                true => Ok("r1".to_owned()),
                false => Err("a replica".to_owned()),
            },
        };
        let record = Record {
            looks: looks.iter().map(looked).collect(),
            ..Record::default()
        };
        let (missing, whole) = record.whole_again(At(since));
        (missing.map(|l| l.asked.0), whole.map(|l| l.asked.0))
    }

    #[test]
    fn whole_again_is_the_first_whole_look_after_the_last_one_that_missed_something() {
        let looks = [(10, true), (20, false), (30, false), (40, true), (50, true)];
        assert_eq!(bounds(&looks, 15), (Some(30), Some(40)));
        assert_eq!(bounds(&looks, 35), (None, Some(40)));
        assert_eq!(
            bounds(&[(20, false), (30, true), (40, false)], 0),
            (Some(40), None)
        );
        assert_eq!(bounds(&[(10, true)], 20), (None, None));
    }
}
