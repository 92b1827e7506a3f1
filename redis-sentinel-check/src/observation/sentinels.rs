//! Listens to every sentinel, each over a connection of its own, and notes what it publishes. A sentinel that
//! goes away is noted and tried again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::task::JoinSet;
use veza_probe::clock::{self, At, Clock, within};
use veza_probe::story::Story;

use crate::targets::connection::{Login, Server, listen};

/// How long connecting, or an answer to a ping, may take.
const LIMIT: Duration = Duration::from_secs(1);

/// How often a sentinel is pinged over the same connection: an event came after the last answered ping, so
/// this is how well its time is known.
const PING_EVERY: Duration = Duration::from_millis(100);

/// How long a sentinel that went away is left alone.
const AGAIN_AFTER: Duration = Duration::from_millis(250);

/// What people are told as it happens; the rest is in the report.
const TOLD: [&str; 7] = [
    "+sdown",
    "+odown",
    "+try-failover",
    "+elected-leader",
    "+promoted-slave",
    "+switch-master",
    "-failover-abort-no-good-slave",
];

/// What a sentinel published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The sentinel.
    pub sentinel: String,
    /// The event's name, its channel.
    pub event: String,
    /// What it is about: `master veza 198.18.0.21 6379`.
    pub about: String,
    /// It was published between these two.
    pub at: (At, At),
}

impl Said {
    /// Whether it is about this master: named in its place, or after the `@` of its replicas and sentinels.
    pub fn is_about(&self, master: &str) -> bool {
        self.about.split_whitespace().any(|word| word == master)
    }

    /// The event in a line.
    pub fn told(&self) -> String {
        format!("{} {}", self.event, self.about)
    }
}

/// What was heard.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// Every event, in the order in which they were received.
    pub said: Vec<Said>,
    /// When a sentinel could not be listened to, which, and why.
    pub troubles: Vec<(At, String)>,
}

/// The listeners under way. Dropping it ends them.
pub struct Listeners {
    heard: Arc<Mutex<Heard>>,
    tasks: JoinSet<()>,
}

impl Listeners {
    /// Starts one for each sentinel.
    pub fn start(clock: Clock, story: &Story, sentinels: &[Server], login: &Login) -> Listeners {
        let heard = Arc::new(Mutex::new(Heard::default()));
        let mut tasks = JoinSet::new();
        for sentinel in sentinels {
            let ear = Ear {
                clock,
                story: story.clone(),
                sentinel: sentinel.clone(),
                login: login.clone(),
                heard: Arc::clone(&heard),
            };
            tasks.spawn(ear.listen_on());
        }
        Listeners { heard, tasks }
    }

    /// What was heard so far.
    pub fn so_far(&self) -> Heard {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.clone()
    }

    /// Listens no more.
    pub async fn finish(mut self) -> Heard {
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
        self.so_far()
    }
}

struct Ear {
    clock: Clock,
    story: Story,
    sentinel: Server,
    login: Login,
    heard: Arc<Mutex<Heard>>,
}

impl Ear {
    async fn listen_on(self) {
        let mut last = String::new();
        loop {
            let trouble = self.listen().await;
            if trouble != last {
                let at = self.clock.at();
                self.with(|heard| heard.troubles.push((at, trouble.clone())));
                last = trouble;
            }
            clock::sleep(AGAIN_AFTER).await;
        }
    }

    /// Listens until something goes wrong; returns what.
    async fn listen(&self) -> String {
        let mut since = self.clock.at();
        let listening = match listen(&self.sentinel, &self.login, LIMIT).await {
            Ok(listening) => listening,
            Err(error) => return error.to_string(),
        };
        let (mut sink, mut events) = listening.split();
        loop {
            let sent = self.clock.at();
            let ping = within(LIMIT, sink.ping::<redis::Value>());
            tokio::pin!(ping);
            let answered = loop {
                tokio::select! {
                    biased;
                    event = events.next() => match event {
                        Some(event) => self.note(since, &event),
                        None => return format!("{} hung up", self.sentinel),
                    },
                    answered = &mut ping => break answered,
                }
            };
            match answered {
                Ok(Ok(_)) => since = sent,
                Ok(Err(error)) => return format!("{}: {error}", self.sentinel),
                Err(elapsed) => return format!("{}: {elapsed}", self.sentinel),
            }
            let next = self.clock.at().plus(PING_EVERY);
            loop {
                tokio::select! {
                    event = events.next() => match event {
                        Some(event) => self.note(since, &event),
                        None => return format!("{} hung up", self.sentinel),
                    },
                    () = self.clock.sleep_until(next) => break,
                }
            }
        }
    }

    fn note(&self, since: At, event: &redis::Msg) {
        let said = Said {
            sentinel: self.sentinel.name.clone(),
            event: event.get_channel_name().to_owned(),
            about: event.get_payload().unwrap_or_default(),
            at: (since, self.clock.at()),
        };
        if TOLD.contains(&said.event.as_str()) {
            self.story
                .say(&format!("sentinel {}: {}", said.sentinel, said.told()));
        }
        self.with(|heard| heard.said.push(said));
    }

    fn with(&self, note: impl FnOnce(&mut Heard)) {
        note(&mut self.heard.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
