//! The keys of a run: one prefix, a time to live on each, and how they are read and taken away.

use std::net::SocketAddr;
use std::time::Duration;

use redis::cmd;
use serde::{Deserialize, Serialize};
use serde_json::json;
use veza_probe::undo::Chore;

use super::writer::Route;
use crate::targets::connection::{Error, Link, Login, Server};

/// How long a key lives where nobody takes it away, in seconds: longer than any run, so that what is missing
/// at its end was lost.
pub const TTL_S: u64 = 86_400;

/// How long one question about many keys may take.
const LIMIT: Duration = Duration::from_secs(5);

/// How many keys are asked for at once.
const BATCH: u64 = 500;

/// What all keys of all drills begin with.
const ALL: &str = "veza:drill:";

/// The name of the chore that takes a run's keys away.
const DROP_KEYS: &str = "drop-keys";

/// The keys of one run.
#[derive(Clone, Debug)]
pub struct Keys {
    run: String,
}

impl Keys {
    /// Those of the run of this name.
    pub fn new(run: &str) -> Keys {
        Keys {
            run: run.to_owned(),
        }
    }

    fn prefix(&self) -> String {
        format!("{ALL}{}:", self.run)
    }

    /// The key of a numbered write.
    pub fn write(&self, number: u64) -> String {
        format!("{}w:{number}", self.prefix())
    }

    /// Its value: nobody else writes it.
    pub fn value(&self, number: u64) -> String {
        format!("{}:{number}", self.run)
    }

    /// The key in which a server is asked whether it takes writes.
    pub fn rival(&self, server: &str) -> String {
        format!("{}r:{server}", self.prefix())
    }

    /// The key of the client that keeps its connection.
    pub fn kept(&self) -> String {
        format!("{}k", self.prefix())
    }

    /// The numbers below `end` whose keys are there with their own value, as the master has them now.
    ///
    /// # Errors
    /// What stood in the way.
    pub async fn rows(&self, link: &mut Link, end: u64) -> Result<Vec<u64>, Error> {
        let mut rows = Vec::new();
        let mut first = 0;
        while first < end {
            let numbers: Vec<u64> = (first..end.min(first + BATCH)).collect();
            let mut question = cmd("MGET");
            for number in &numbers {
                question.arg(self.write(*number));
            }
            let values: Vec<Option<String>> = link.ask("MGET", &question).await?;
            let there = numbers.iter().zip(values);
            rows.extend(
                there.filter_map(|(number, value)| {
                    (value? == self.value(*number)).then_some(*number)
                }),
            );
            first += BATCH;
        }
        Ok(rows)
    }

    /// Takes away the numbered keys below `end`, and all others.
    ///
    /// # Errors
    /// What stood in the way.
    pub async fn remove(&self, link: &mut Link, end: u64, servers: &[String]) -> Result<(), Error> {
        let rivals = servers.iter().map(|server| self.rival(server));
        let others = rivals.chain([self.kept()]);
        let all: Vec<String> = (0..end).map(|n| self.write(n)).chain(others).collect();
        for batch in all.chunks(BATCH as usize) {
            unlink(link, batch).await?;
        }
        Ok(())
    }

    /// The chore that takes them away, with all that a later process needs to know.
    pub fn chore(&self, sentinels: &[Server], master: &str) -> Chore {
        let sentinels: Vec<Sentinel> = sentinels.iter().map(Sentinel::from).collect();
        Chore {
            name: DROP_KEYS.to_owned(),
            about: json!({ "prefix": self.prefix(), "sentinels": sentinels, "master": master }),
        }
    }
}

/// A sentinel, in a chore.
#[derive(Serialize, Deserialize)]
struct Sentinel {
    name: String,
    address: SocketAddr,
}

impl From<&Server> for Sentinel {
    fn from(server: &Server) -> Sentinel {
        Sentinel {
            name: server.name.clone(),
            address: server.address,
        }
    }
}

/// What a chore is about.
#[derive(Deserialize)]
struct About {
    prefix: String,
    sentinels: Vec<Sentinel>,
    master: String,
}

/// Does a chore of an earlier run, with the logins at sentinels and servers.
///
/// # Errors
/// What stood in the way.
pub async fn do_chore(chore: &Chore, logins: (Login, Login)) -> Result<String, String> {
    if chore.name != DROP_KEYS {
        return Err(format!("this program knows no chore {:?}", chore.name));
    }
    let about: About = serde_json::from_value(chore.about.clone()).map_err(|e| e.to_string())?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == ':';
    let run = about
        .prefix
        .strip_prefix(ALL)
        .and_then(|rest| rest.strip_suffix(':'));
    if run.is_none_or(str::is_empty) || !about.prefix.chars().all(plain) {
        return Err(format!("{:?} is not the prefix of a drill", about.prefix));
    }
    let (sentinel_login, login) = logins;
    let route = Route {
        master: about.master,
        sentinel_login,
        login,
        places: Vec::new(),
    };
    let sentinels = about.sentinels.into_iter().map(|sentinel| Server {
        name: sentinel.name,
        address: sentinel.address,
    });
    let mut link = on_master(&route, &sentinels.collect::<Vec<_>>()).await?;
    let removed = sweep(&mut link, &about.prefix)
        .await
        .map_err(|e| e.to_string())?;
    Ok(format!("{removed} keys {}* were taken away", about.prefix))
}

/// Finds the master by whichever sentinel knows.
///
/// # Errors
/// What each of them said.
pub async fn on_master(route: &Route, sentinels: &[Server]) -> Result<Link, String> {
    let mut told = Vec::new();
    for sentinel in sentinels {
        match route.follow(sentinel, LIMIT, LIMIT).await {
            Ok(link) => return Ok(link),
            Err(words) => told.push(words),
        }
    }
    Err(told.join("; "))
}

/// Takes away every key of a prefix, however many there are.
async fn sweep(link: &mut Link, prefix: &str) -> Result<usize, Error> {
    let (mut cursor, mut removed) = (0_u64, 0);
    loop {
        let mut question = cmd("SCAN");
        question.arg(cursor).arg("MATCH").arg(format!("{prefix}*"));
        question.arg("COUNT").arg(1000);
        let (next, keys): (u64, Vec<String>) = link.ask("SCAN", &question).await?;
        if !keys.is_empty() {
            unlink(link, &keys).await?;
            removed += keys.len();
        }
        if next == 0 {
            return Ok(removed);
        }
        cursor = next;
    }
}

async fn unlink(link: &mut Link, keys: &[String]) -> Result<(), Error> {
    let mut question = cmd("UNLINK");
    question.arg(keys);
    link.ask::<u64>("UNLINK", &question).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_for_their_run() {
        let keys = Keys::new("20261124T134501Z-1a2b");
        assert_eq!(keys.write(7), "veza:drill:20261124T134501Z-1a2b:w:7");
        assert_eq!(
            keys.rival("redis-1"),
            "veza:drill:20261124T134501Z-1a2b:r:redis-1"
        );
        assert_eq!(keys.value(7), "20261124T134501Z-1a2b:7");
    }

    #[tokio::test]
    async fn a_chore_that_is_not_ours_is_not_done() {
        let chore = |name: &str, prefix: &str| Chore {
            name: name.to_owned(),
            about: json!({ "prefix": prefix, "sentinels": [], "master": "m" }),
        };
        for (chore, word) in [
            (chore("wipe", "veza:drill:1:"), "no chore"),
            (chore(DROP_KEYS, ""), "not the prefix"),
            (chore(DROP_KEYS, "veza:drill::"), "not the prefix"),
            (chore(DROP_KEYS, "veza:drill:*:"), "not the prefix"),
            (chore(DROP_KEYS, "session:"), "not the prefix"),
        ] {
            let refused = do_chore(&chore, (Login::default(), Login::default())).await;
            let words = refused.unwrap_err();
            assert!(words.contains(word), "{words}");
        }
    }
}
