//! A second client: it keeps its one connection, has no limit of its own for an answer, and asks the sentinels
//! for the master again only when it meets an error. Many applications do so. It is measured and not judged.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::cmd;
use tokio::task::JoinSet;
use veza_probe::clock::{self, At, Clock};

use super::keys::{Keys, TTL_S};
use super::writer::{CONNECT_LIMIT, Route};
use crate::targets::connection::{Link, Server};

/// The pause after an answered write.
const PAUSE: Duration = Duration::from_millis(20);

/// The pause after an error.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// No answer is waited for longer than a drill can last: for this client, that is for ever.
const FOREVER: Duration = Duration::from_secs(86_400);

/// What became of its writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// When each answered write was answered.
    pub answered: Vec<At>,
    /// When it met an error, and which.
    pub errors: Vec<(At, String)>,
    /// When it was connected to a master.
    pub connected: Vec<At>,
}

/// The longest that it waited from one answered write to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// When the last write before was answered.
    pub from: At,
    /// When the next one was; none when none was.
    pub until: Option<At>,
}

impl Kept {
    /// The longest time without an answered write that ended after `since`, until `end` at most; none when it
    /// never wrote.
    pub fn longest_wait(&self, since: At, end: At) -> Option<Wait> {
        let last = *self.answered.last()?;
        let waits = self.answered.windows(2).filter_map(|pair| match pair {
            [from, until] => Some((*from, *until)),
            _ => None,
        });
        let ended = waits
            .filter(|(_, until)| *until >= since)
            .map(|(from, until)| Wait {
                from,
                until: Some(until),
            });
        let open = Wait {
            from: last,
            until: None,
        };
        let length = |wait: &Wait| wait.until.unwrap_or(end).us_since(wait.from);
        ended.chain([open]).max_by_key(length)
    }

    /// The first error that it met after a moment.
    pub fn first_error(&self, since: At) -> Option<&(At, String)> {
        self.errors.iter().find(|(at, _)| *at >= since)
    }
}

/// The client under way. Dropping it ends it.
pub struct Keeper {
    kept: Arc<Mutex<Kept>>,
    tasks: JoinSet<()>,
}

impl Keeper {
    /// Starts writing.
    pub fn start(clock: Clock, route: &Route, sentinels: &[Server], keys: &Keys) -> Keeper {
        let kept = Arc::new(Mutex::new(Kept::default()));
        let client = Client {
            clock,
            route: route.clone(),
            sentinels: sentinels.to_vec(),
            key: keys.kept(),
            kept: Arc::clone(&kept),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(client.write_on());
        Keeper { kept, tasks }
    }

    /// What became of its writes so far.
    pub fn so_far(&self) -> Kept {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.clone()
    }

    /// Writes no more; the write that is open is given up.
    pub async fn finish(mut self) -> Kept {
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
        self.so_far()
    }
}

struct Client {
    clock: Clock,
    route: Route,
    sentinels: Vec<Server>,
    key: String,
    kept: Arc<Mutex<Kept>>,
}

impl Client {
    async fn write_on(self) {
        loop {
            let error = match self.connect().await {
                Ok(link) => self.write(link).await,
                Err(words) => words,
            };
            let at = self.clock.at();
            self.with(|kept| kept.errors.push((at, error)));
            clock::sleep(AGAIN_AFTER).await;
        }
    }

    /// Connects to the master, by the first sentinel that knows a way.
    async fn connect(&self) -> Result<Link, String> {
        let mut told = Vec::new();
        for sentinel in &self.sentinels {
            match self.route.follow(sentinel, CONNECT_LIMIT, FOREVER).await {
                Ok(link) => return Ok(link),
                Err(words) => told.push(words),
            }
        }
        Err(told.join("; "))
    }

    /// Writes until it meets an error; returns that.
    async fn write(&self, mut link: Link) -> String {
        let at = self.clock.at();
        self.with(|kept| kept.connected.push(at));
        loop {
            let mut set = cmd("SET");
            set.arg(&self.key).arg("!").arg("EX").arg(TTL_S);
            if let Err(error) = link.ask::<()>("SET", &set).await {
                return error.to_string();
            }
            let at = self.clock.at();
            self.with(|kept| kept.answered.push(at));
            clock::sleep(PAUSE).await;
        }
    }

    fn with(&self, note: impl FnOnce(&mut Kept)) {
        note(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(answered: &[i64]) -> Kept {
        Kept {
            answered: answered.iter().map(|at| At(*at)).collect(),
            errors: vec![(At(5), "early".to_owned()), (At(40), "READONLY".to_owned())],
            connected: vec![At(0)],
        }
    }

    fn wait(kept: &Kept, since: i64, end: i64) -> Option<(i64, Option<i64>)> {
        let wait = kept.longest_wait(At(since), At(end))?;
        Some((wait.from.0, wait.until.map(|at| at.0)))
    }

    #[test]
    fn the_longest_wait_is_one_that_ended_after_the_fault_or_has_no_end() {
        let client = kept(&[0, 9, 10, 12, 30, 31]);
        assert_eq!(wait(&client, 11, 32), Some((12, Some(30))));
        // One that was over before the fault is none of it.
        assert_eq!(wait(&client, 31, 32), Some((31, None)));
        // From a write before the fault to the first one after it.
        assert_eq!(wait(&kept(&[0, 9, 20]), 15, 21), Some((9, Some(20))));
        // It was never served again.
        assert_eq!(wait(&client, 11, 100), Some((31, None)));
        assert_eq!(wait(&kept(&[]), 0, 100), None);
    }

    #[test]
    fn an_error_before_the_fault_is_none_of_it() {
        let client = kept(&[]);
        assert_eq!(client.first_error(At(10)).map(|e| e.0), Some(At(40)));
        assert_eq!(client.first_error(At(41)), None);
    }
}
