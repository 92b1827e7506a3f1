//! What one Redis server says of itself, and whether replicas are in step with their master.

use std::collections::BTreeMap;

use redis::cmd;

use super::sentinels::{Announced, Trouble, fields};
use crate::targets::connection::{Error, Link};

/// How many seconds ago a replica in step last acknowledged what it has; it does once a second.
const LAG_S: u64 = 2;

/// A replica as its master sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follower {
    /// Where it is.
    pub at: Announced,
    /// Whether it gets the stream of writes (`state=online`).
    pub online: bool,
    /// How many seconds ago it last acknowledged.
    pub lag_s: u64,
}

/// What a server says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// `redis_version`
    pub version: String,
    /// `run_id`: another one after every start.
    pub run_id: String,
    /// `uptime_in_seconds`
    pub uptime_s: u64,
    /// Whether it calls itself master.
    pub is_master: bool,
    /// Of a replica: whom it follows.
    pub follows: Option<Announced>,
    /// Of a replica: whether the link to its master is up.
    pub link_up: bool,
    /// Of a replica: whether it is still getting a whole copy.
    pub syncing: bool,
    /// Whether it is still reading its data from disk.
    pub loading: bool,
    /// Of a master: who follows it.
    pub followers: Vec<Follower>,
    /// Whether it keeps an append-only file.
    pub append_only: bool,
}

/// Asks a server.
///
/// # Errors
/// As the question.
pub async fn state(link: &mut Link) -> Result<State, Error> {
    let info: String = link.ask("INFO", &cmd("INFO")).await?;
    Ok(read(&info))
}

/// The settings whose names match a pattern, with their values.
///
/// # Errors
/// As the question; a server whose CONFIG is forbidden says so.
pub async fn settings(link: &mut Link, pattern: &str) -> Result<BTreeMap<String, String>, Error> {
    let question = cmd("CONFIG").arg("GET").arg(pattern).clone();
    link.ask("CONFIG GET", &question).await
}

/// Reads an answer to INFO.
pub fn read(info: &str) -> State {
    let all = fields(info);
    let text = |name: &str| all.get(name).map(String::as_str).unwrap_or_default();
    let number = |name: &str| text(name).parse().unwrap_or_default();
    let is_master = text("role") == "master";
    let master = (text("master_host").to_owned(), text("master_port"));
    let follows = match master.1.parse() {
        Ok(port) if !is_master => Some((master.0, port)),
        _ => None,
    };
    State {
        version: text("redis_version").to_owned(),
        run_id: text("run_id").to_owned(),
        uptime_s: number("uptime_in_seconds"),
        is_master,
        follows,
        link_up: text("master_link_status") == "up",
        syncing: text("master_sync_in_progress") == "1",
        loading: text("loading") == "1",
        followers: (0..number("connected_slaves"))
            .filter_map(|place| follower(text(&format!("slave{place}"))))
            .collect(),
        append_only: text("aof_enabled") == "1",
    }
}

/// `ip=198.18.0.22,port=6379,state=online,offset=12345,lag=0`
fn follower(text: &str) -> Option<Follower> {
    let part = |name: &str| {
        let parts = text.split(',').filter_map(|part| part.split_once('='));
        parts.filter(|(n, _)| *n == name).map(|(_, v)| v).next()
    };
    Some(Follower {
        at: (part("ip")?.to_owned(), part("port")?.parse().ok()?),
        online: part("state") == Some("online"),
        lag_s: part("lag")?.parse().unwrap_or(u64::MAX),
    })
}

/// Whether `master`, announced as it is, has all `others` in step.
///
/// # Errors
/// What the first server says that must not be.
pub fn in_step(
    (name, at, master): (&str, &Announced, &State),
    others: &[(&str, &Announced, &State)],
) -> Result<(), Trouble> {
    let behind = |words: String| Err(Trouble::new("replica-not-in-sync", words));
    if !master.is_master {
        let words = format!("the sentinels call {name} the master, and it says that it is none");
        return Err(Trouble::new("master-disagrees", words));
    }
    for (other, announced, state) in others {
        if state.is_master {
            let words = format!("{name} and {other} both call themselves master");
            return Err(Trouble::new("master-disagrees", words));
        }
        if state.follows.as_ref() != Some(at) {
            let whom = state.follows.as_ref();
            let whom = whom.map_or("nobody".to_owned(), |(host, port)| format!("{host}:{port}"));
            return behind(format!("replica {other} follows {whom}, not {name}"));
        }
        if !state.link_up || state.syncing || state.loading {
            return behind(format!(
                "replica {other} has no link to {name}, or is still syncing"
            ));
        }
        let seen = master.followers.iter().find(|f| f.at == **announced);
        match seen {
            Some(seen) if seen.online && seen.lag_s <= LAG_S => {}
            Some(seen) => {
                let words = format!("replica {other} lags behind {name} by {} s", seen.lag_s);
                return behind(words);
            }
            None => return behind(format!("{name} does not know its replica {other}")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASTER: &str = "# Server\r\nredis_version:8.0.2\r\nrun_id:abc\r\nuptime_in_seconds:77\r\n\
        loading:0\r\naof_enabled:1\r\nrole:master\r\nconnected_slaves:2\r\n\
        slave0:ip=10.0.0.2,port=6379,state=online,offset=123,lag=0\r\n\
        slave1:ip=10.0.0.3,port=6379,state=online,offset=120,lag=1\r\n";
    const REPLICA: &str = "run_id:def\r\nrole:slave\r\nmaster_host:10.0.0.1\r\nmaster_port:6379\r\n\
        master_link_status:up\r\nmaster_sync_in_progress:0\r\nloading:0\r\nconnected_slaves:0\r\n";

    fn at(last: u8) -> Announced {
        (format!("10.0.0.{last}"), 6379)
    }

    #[test]
    fn info_is_read_by_name() {
        let master = read(MASTER);
        assert!(master.is_master && master.append_only && master.follows.is_none());
        assert_eq!((master.run_id.as_str(), master.uptime_s), ("abc", 77));
        assert_eq!(master.followers.len(), 2);
        assert_eq!(master.followers[1].lag_s, 1);
        let replica = read(REPLICA);
        assert_eq!(replica.follows, Some(at(1)));
        assert!(replica.link_up && !replica.is_master);
        assert_eq!(read(""), State::default());
    }

    fn judged(change: impl FnOnce(&mut State, &mut State)) -> Result<(), &'static str> {
        let (mut master, mut last) = (read(MASTER), read(REPLICA));
        let first = last.clone();
        change(&mut master, &mut last);
        let (one, two, three) = (at(1), at(2), at(3));
        let others = [("r2", &two, &first), ("r3", &three, &last)];
        in_step(("r1", &one, &master), &others).map_err(|t| t.reason_id)
    }

    #[test]
    fn every_replica_must_be_in_step() {
        assert_eq!(judged(|_, _| ()), Ok(()));
        type Change = fn(&mut State, &mut State);
        let cases: [(Change, &str); 8] = [
            (|m, _| m.is_master = false, "master-disagrees"),
            (|_, r| r.is_master = true, "master-disagrees"),
            (|_, r| r.follows = Some(at(9)), "replica-not-in-sync"),
            (|_, r| r.link_up = false, "replica-not-in-sync"),
            (|_, r| r.syncing = true, "replica-not-in-sync"),
            (|m, _| m.followers.truncate(1), "replica-not-in-sync"),
            (|m, _| m.followers[1].lag_s = 3, "replica-not-in-sync"),
            (|m, _| m.followers[1].online = false, "replica-not-in-sync"),
        ];
        for (change, reason_id) in cases {
            assert_eq!(judged(change), Err(reason_id));
        }
    }
}
