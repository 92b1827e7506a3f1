//! Who is online, and at which server: a key in Redis that ends by itself unless it is renewed.
//!
//! What a server announces is kept in its memory, too. While Redis is away it still knows its own users, and no
//! others.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ::redis::cmd;
use veza_probe::clock::{At, Clock};

use super::Source;
use super::link::Link;
use super::metrics::Subsystem;

/// When so many users are held in memory, those that are gone are thrown out.
const SWEEP_AT: usize = 1024;

/// Announces and finds users.
pub struct Presence {
    link: Link,
    server: String,
    ttl: Duration,
    clock: Clock,
    memory: Mutex<Users>,
}

impl Presence {
    /// For the users of the server of this name. Each is online until `ttl` (whole milliseconds, at least one)
    /// after it was last announced.
    pub fn new(link: Link, server: &str, ttl: Duration) -> Presence {
        Presence {
            link,
            server: server.to_owned(),
            ttl,
            clock: Clock::start(),
            memory: Mutex::default(),
        }
    }

    /// A user is here, still or again. Says who knows it now.
    pub async fn announce(&self, user: &str) -> Source {
        self.remember(|users, now| users.announce(user, now.plus(self.ttl), now));
        let ttl_ms = u64::try_from(self.ttl.as_millis().max(1)).unwrap_or(u64::MAX);
        let mut command = cmd("SET");
        command.arg(key(user)).arg(&self.server);
        command.arg("PX").arg(ttl_ms);
        let answer = self.link.ask::<()>(Subsystem::Presence, &command).await;
        source(answer.is_ok())
    }

    /// A user has left. Says who knows it now; what only memory knows, Redis learns when the key ends.
    pub async fn leave(&self, user: &str) -> Source {
        self.remember(|users, _| users.until.remove(user));
        let mut command = cmd("DEL");
        command.arg(key(user));
        let answer = self.link.ask::<u64>(Subsystem::Presence, &command).await;
        source(answer.is_ok())
    }

    /// The server at which a user is online, and who says so.
    pub async fn find(&self, user: &str) -> (Option<String>, Source) {
        let mut command = cmd("GET");
        command.arg(key(user));
        let answer = self.link.ask(Subsystem::Presence, &command).await;
        match answer {
            Ok(server) => (server, Source::Redis),
            Err(_) => {
                let here = self.remember(|users, now| users.is_here(user, now));
                (here.then(|| self.server.clone()), Source::Memory)
            }
        }
    }

    fn remember<T>(&self, act: impl FnOnce(&mut Users, At) -> T) -> T {
        let mut users = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        act(&mut users, self.clock.at())
    }
}

fn key(user: &str) -> String {
    format!("veza:presence:{user}")
}

fn source(answered: bool) -> Source {
    match answered {
        true => Source::Redis,
        false => Source::Memory,
    }
}

/// This server's users, and until when each is online.
#[derive(Default)]
struct Users {
    until: HashMap<String, At>,
    sweep_at: usize,
}

impl Users {
    fn announce(&mut self, user: &str, until: At, now: At) {
        if self.until.len() >= self.sweep_at.max(SWEEP_AT) {
            self.until.retain(|_, until| *until > now);
            self.sweep_at = 2 * self.until.len();
        }
        self.until.insert(user.to_owned(), until);
    }

    fn is_here(&self, user: &str, now: At) -> bool {
        self.until.get(user).is_some_and(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{self, Fake};
    use super::super::link::tests::{linked, without_redis};
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn who_is_not_announced_again_is_gone() {
        let mut users = Users::default();
        users.announce("a", At(10), At(0));
        assert!(users.is_here("a", At(9)) && !users.is_here("b", At(9)));
        assert!(!users.is_here("a", At(10)));
        users.announce("a", At(20), At(10));
        assert!(users.is_here("a", At(19)));
        for user in 0..10_000 {
            users.announce(&user.to_string(), At(user + 11), At(user + 10));
        }
        assert!(users.until.len() <= 2 * SWEEP_AT, "{}", users.until.len());
    }

    #[tokio::test]
    async fn without_redis_a_server_knows_its_own_users() {
        let (link, metrics) = without_redis();
        let presence = Presence::new(link, "chat-1", MINUTE);
        assert_eq!(presence.announce("a").await, Source::Memory);
        let here = (Some("chat-1".to_owned()), Source::Memory);
        assert_eq!(presence.find("a").await, here);
        assert_eq!(presence.find("b").await, (None, Source::Memory));
        assert_eq!(presence.leave("a").await, Source::Memory);
        assert_eq!(presence.find("a").await, (None, Source::Memory));
        assert_eq!(metrics.of(Subsystem::Presence), (0, 5));
    }

    /// Nobody there is an answer as well, and memory does not know better.
    #[tokio::test]
    async fn an_empty_answer_of_redis_is_a_hit() {
        let server = Fake::start(fake::master()).await;
        let (link, metrics) = linked(&server).await;
        let presence = Presence::new(link, "chat-1", MINUTE);
        assert_eq!(presence.announce("a").await, Source::Redis);
        assert_eq!(presence.find("a").await, (None, Source::Redis));
        assert_eq!(presence.leave("a").await, Source::Redis);
        assert_eq!(metrics.of(Subsystem::Presence), (3, 0));
    }

    /// An error that bears on the request alone is a miss, and the connection stays.
    #[tokio::test]
    async fn an_error_of_redis_is_a_miss() {
        let server = Fake::start(|words: &[String]| match words.first()?.as_str() {
            "GET" => Some("-WRONGTYPE a list\r\n".to_owned()),
            _ => fake::master()(words),
        })
        .await;
        let (link, metrics) = linked(&server).await;
        let presence = Presence::new(link, "chat-1", MINUTE);
        assert_eq!(presence.announce("a").await, Source::Redis);
        let here = (Some("chat-1".to_owned()), Source::Memory);
        assert_eq!(presence.find("a").await, here);
        assert_eq!(presence.announce("a").await, Source::Redis);
        assert_eq!(metrics.of(Subsystem::Presence), (2, 1));
    }
}
