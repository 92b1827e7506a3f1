//! The whole group at one moment: every sentinel and every server asked at once, and what is missing.

use std::time::Duration;

use futures_util::future::join_all;

use super::data::{self, State, in_step};
use super::sentinels::{self, Announced, Trouble, View, agreed};
use crate::targets::connection::{Error, Link, Login, Server};

/// How long a connection or a question may take.
pub const LIMIT: Duration = Duration::from_millis(800);

/// A server of the group: how it is announced, and where it is reached.
#[derive(Clone, Debug)]
pub struct Place {
    /// As sentinels and servers announce it.
    pub announced: Announced,
    /// Where it is.
    pub server: Server,
}

/// What everyone said at one moment; an error in words where nothing was said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Every sentinel, under its name.
    pub sentinels: Vec<(String, Result<View, String>)>,
    /// Every server, under its name.
    pub servers: Vec<(String, Announced, Result<State, String>)>,
}

impl Look {
    /// The name of the master, when nothing is missing: all sentinels answer and agree, every server answers,
    /// and all but the master are replicas in step with it.
    ///
    /// # Errors
    /// What is missing first.
    pub fn whole(&self) -> Result<&str, Trouble> {
        let mut views = Vec::new();
        for (name, view) in &self.sentinels {
            let view = view.as_ref().map_err(|words| {
                let words = format!("sentinel {name} does not answer: {words}");
                Trouble::new("sentinel-unreachable", words)
            })?;
            views.push((name.as_str(), view));
        }
        let at = agreed(&views)?;
        let mut states = Vec::new();
        for (name, announced, state) in &self.servers {
            let state = state.as_ref().map_err(|words| {
                let words = format!("server {name} does not answer: {words}");
                Trouble::new("server-unreachable", words)
            })?;
            states.push((name.as_str(), announced, state));
        }
        for (name, view) in &views {
            if view.replicas.len() + 1 != states.len() {
                let words = format!(
                    "sentinel {name} knows {} replicas, and there are {}",
                    view.replicas.len(),
                    states.len().saturating_sub(1)
                );
                return Err(Trouble::new("replica-not-in-sync", words));
            }
        }
        let Some(master) = states.iter().find(|(_, announced, _)| *announced == at) else {
            let words = format!("the master {}:{} is no server of this group", at.0, at.1);
            return Err(Trouble::new("sentinels-disagree", words));
        };
        let others: Vec<_> = states.iter().filter(|s| s.1 != at).copied().collect();
        if others.is_empty() {
            let words = format!("{} has no replica: nothing could take over", master.0);
            return Err(Trouble::new("replica-not-in-sync", words));
        }
        in_step(*master, &others)?;
        Ok(master.0)
    }
}

/// One who is asked, over a connection that is kept as long as it answers.
struct Asked {
    place: Place,
    login: Login,
    link: Option<Link>,
}

impl Asked {
    async fn ask<T>(
        &mut self,
        question: impl AsyncFnOnce(&mut Link) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut link = match self.link.take() {
            Some(link) => link,
            None => Link::open(&self.place.server, &self.login, LIMIT).await?,
        };
        let answer = question(&mut link).await;
        if answer.as_ref().err().is_none_or(Error::is_answer) {
            self.link = Some(link);
        }
        answer
    }
}

/// Asks everyone, again and again.
pub struct Eyes {
    sentinels: Vec<Asked>,
    servers: Vec<Asked>,
    master: String,
}

impl Eyes {
    /// Who is to be asked about the master of that name: sentinels and servers, each with their login.
    pub fn new(
        (sentinels, sentinel_login): (&[Server], &Login),
        (servers, login): (&[Place], &Login),
        master: &str,
    ) -> Eyes {
        let sentinel = |server: &Server| Asked {
            place: Place {
                announced: (server.address.ip().to_string(), server.address.port()),
                server: server.clone(),
            },
            login: sentinel_login.clone(),
            link: None,
        };
        let server = |place: &Place| Asked {
            place: place.clone(),
            login: login.clone(),
            link: None,
        };
        Eyes {
            sentinels: sentinels.iter().map(sentinel).collect(),
            servers: servers.iter().map(server).collect(),
            master: master.to_owned(),
        }
    }

    /// Asks the sentinels alone; one error is enough, and tells what kind it is.
    ///
    /// # Errors
    /// The name of the first that has no answer, with its error.
    pub async fn views(&mut self) -> Result<Vec<(String, View)>, (String, Error)> {
        let mut views = Vec::new();
        for asked in &mut self.sentinels {
            let name = asked.place.server.name.clone();
            let master = self.master.as_str();
            let view = asked.ask(async |link| sentinels::view(link, master).await);
            match view.await {
                Ok(view) => views.push((name, view)),
                Err(error) => return Err((name, error)),
            }
        }
        Ok(views)
    }

    /// Asks everyone at once.
    pub async fn look(&mut self) -> Look {
        let master = self.master.as_str();
        let views = self.sentinels.iter_mut().map(async |asked| {
            let view = asked.ask(async |link| sentinels::view(link, master).await);
            let view = view.await.map_err(|error| error.to_string());
            (asked.place.server.name.clone(), view)
        });
        let states = self.servers.iter_mut().map(async |asked| {
            let state = asked.ask(async |link| data::state(link).await);
            let state = state.await.map_err(|error| error.to_string());
            let Place { announced, server } = &asked.place;
            (server.name.clone(), announced.clone(), state)
        });
        let (sentinels, servers) = tokio::join!(join_all(views), join_all(states));
        Look { sentinels, servers }
    }
}

#[cfg(test)]
mod tests {
    use super::super::data::Follower;
    use super::super::sentinels::Peer;
    use super::*;

    fn at(last: usize) -> Announced {
        (format!("10.0.0.{last}"), 6379)
    }

    fn peer(last: usize) -> Peer {
        Peer {
            at: at(last),
            ..Peer::default()
        }
    }

    /// Three hosts with a sentinel and a server each; the first is master.
    fn good() -> Look {
        let view = |own: usize| View {
            master: peer(1),
            replicas: vec![peer(2), peer(3)],
            others: (1..=3).filter(|n| *n != own).map(peer).collect(),
            ..View::default()
        };
        let state = |own: usize| State {
            is_master: own == 1,
            follows: (own != 1).then(|| at(1)),
            link_up: own != 1,
            followers: [2, 3]
                .into_iter()
                .filter(|_| own == 1)
                .map(|n| Follower {
                    at: at(n),
                    online: true,
                    lag_s: 0,
                })
                .collect(),
            ..State::default()
        };
        Look {
            sentinels: (1..=3).map(|n| (format!("r{n}"), Ok(view(n)))).collect(),
            servers: (1..=3)
                .map(|n| (format!("r{n}"), at(n), Ok(state(n))))
                .collect(),
        }
    }

    fn judged(change: impl FnOnce(&mut Look)) -> Result<String, &'static str> {
        let mut look = good();
        change(&mut look);
        let whole = look.whole().map(str::to_owned);
        whole.map_err(|trouble| trouble.reason_id)
    }

    #[test]
    fn a_group_is_whole_only_when_everyone_answers_and_agrees() {
        assert_eq!(judged(|_| ()), Ok("r1".to_owned()));
        type Change = fn(&mut Look);
        let cases: [(Change, &str); 5] = [
            (
                |l| l.sentinels[2].1 = Err("x".into()),
                "sentinel-unreachable",
            ),
            (|l| l.servers[1].2 = Err("x".into()), "server-unreachable"),
            (|l| drop(l.servers.pop()), "replica-not-in-sync"),
            (
                |l| l.servers[2].2.as_mut().unwrap().link_up = false,
                "replica-not-in-sync",
            ),
            (|l| l.servers[0].1 = at(9), "sentinels-disagree"),
        ];
        for (change, reason_id) in cases {
            assert_eq!(judged(change), Err(reason_id));
        }
        assert!(Look::default().whole().is_err());
    }
}
