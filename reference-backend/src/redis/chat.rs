//! Messages of chat rooms, from every server to every server by Redis' pub/sub.
//!
//! A message is given to the listeners of its own server at once and by itself, so while Redis is away
//! those of one server still hear each other. Others hear it through Redis, at most once: what is published
//! while a server has no connection does not reach it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::redis::{Client, Msg, RedisResult, cmd};
use futures_util::StreamExt as _;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use veza_probe::clock::{sleep, within};

use super::Source;
use super::link::{Link, Master, REQUEST_LIMIT};
use super::metrics::Subsystem;

/// One channel for each room; a server listens to all of them by one pattern.
const PREFIX: &str = "veza:chat:";

/// How many messages of a room a slow listener may be behind before it loses the oldest.
const BACKLOG: usize = 256;

/// How often the connection that only listens is asked whether it is alive: a lost host ends no connection.
const PING_EVERY: Duration = Duration::from_secs(1);

/// Between two attempts to listen.
const PAUSE: Duration = Duration::from_millis(100);

/// Rooms with listeners at this server.
type Rooms = Mutex<HashMap<String, broadcast::Sender<String>>>;

struct Shared {
    server: String,
    rooms: Rooms,
    listens: AtomicBool,
}

/// Sends and hears messages.
pub struct Chat {
    link: Link,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Chat {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Chat {
    /// Begins to listen, within tokio. The server's name must be its own among all servers, and without `\n`: by it a
    /// server knows its own messages.
    pub fn start(link: Link, server: &str) -> Chat {
        let shared = Arc::new(Shared {
            server: server.to_owned(),
            rooms: Mutex::default(),
            listens: AtomicBool::new(false),
        });
        let task = tokio::spawn(listen(link.clone(), shared.clone()));
        Chat { link, shared, task }
    }

    /// What is said in a room from now on.
    pub fn join(&self, room: &str) -> broadcast::Receiver<String> {
        let mut rooms = lock(&self.shared.rooms);
        // Rooms that everybody has left are forgotten here, where new ones come from.
        rooms.retain(|_, listeners| listeners.receiver_count() > 0);
        let new = || broadcast::Sender::new(BACKLOG);
        rooms.entry(room.to_owned()).or_insert_with(new).subscribe()
    }

    /// Says something in a room. [`Source::Memory`]: only this server's listeners have it.
    pub async fn say(&self, room: &str, text: &str) -> Source {
        self.shared.give(room, text);
        let mut command = cmd("PUBLISH");
        command.arg(format!("{PREFIX}{room}"));
        command.arg(format!("{}\n{text}", self.shared.server));
        let answer = self.link.ask::<u64>(Subsystem::ChatPubsub, &command).await;
        match answer {
            Ok(_) => Source::Redis,
            Err(_) => Source::Memory,
        }
    }

    /// Whether other servers' messages reach this one now.
    pub fn listens(&self) -> bool {
        self.shared.listens.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn give(&self, room: &str, text: &str) {
        if let Some(listeners) = lock(&self.rooms).get(room) {
            // Nobody listens any more: nobody misses it.
            let _ = listeners.send(text.to_owned());
        }
    }

    /// A message that Redis brought; one of our own was given when it was said.
    fn hear(&self, message: &Msg) {
        let room = message.get_channel_name().strip_prefix(PREFIX);
        let payload = std::str::from_utf8(message.get_payload_bytes());
        let parts = payload.ok().and_then(|payload| payload.split_once('\n'));
        if let (Some(room), Some((server, text))) = (room, parts)
            && server != self.server
        {
            self.give(room, text);
        }
    }
}

fn lock(rooms: &Rooms) -> std::sync::MutexGuard<'_, HashMap<String, broadcast::Sender<String>>> {
    rooms.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Listens at the master, wherever it is, for as long as there is a chat.
async fn listen(link: Link, shared: Arc<Shared>) {
    let mut master = link.master();
    loop {
        let current = master.borrow_and_update().clone();
        match current {
            Some(current) => tokio::select! {
                // Whatever ended it, the next attempt tells.
                _ = listen_at(&current, &shared) => sleep(PAUSE).await,
                _ = master.changed() => {}
            },
            None => {
                if master.changed().await.is_err() {
                    return;
                }
            }
        }
        shared.listens.store(false, Ordering::Relaxed);
    }
}

/// Listens at one node until its connection is lost, or it answers a ping no more.
async fn listen_at(master: &Master, shared: &Shared) -> RedisResult<()> {
    let client = Client::open(master.info().clone())?;
    let subscribed = async {
        let mut connection = client.get_async_pubsub().await?;
        connection.psubscribe(format!("{PREFIX}*")).await?;
        RedisResult::Ok(connection)
    };
    let Ok(connection) = within(2 * REQUEST_LIMIT, subscribed).await else {
        return Ok(());
    };
    let (mut sink, mut messages) = connection?.split();
    shared.listens.store(true, Ordering::Relaxed);
    let alive = async {
        loop {
            sleep(PING_EVERY).await;
            match within(2 * REQUEST_LIMIT, sink.ping::<::redis::Value>()).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => return Ok(()),
            }
        }
    };
    let hear = async {
        while let Some(message) = messages.next().await {
            shared.hear(&message);
        }
    };
    tokio::select! {
        ended = alive => ended,
        () = hear => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{self, Fake, bulk};
    use super::super::link::tests::{linked, without_redis};
    use super::*;

    #[tokio::test]
    async fn without_redis_a_server_hears_itself_and_each_is_a_miss() {
        let (link, metrics) = without_redis();
        let chat = Chat::start(link, "chat-1");
        let (mut one, mut other) = (chat.join("one"), chat.join("other"));
        assert_eq!(chat.say("one", "hello").await, Source::Memory);
        assert_eq!(one.recv().await.unwrap(), "hello");
        assert!(other.try_recv().is_err());
        assert_eq!(chat.say("nobody there", "hello").await, Source::Memory);
        assert_eq!(metrics.of(Subsystem::ChatPubsub), (0, 2));
        assert!(!chat.listens());
    }

    /// Redis sends a server its own messages back; and nobody elsewhere who hears it is an answer.
    #[tokio::test]
    async fn others_are_heard_through_redis_and_oneself_only_once() {
        let push = |room: &str, payload: &str| {
            let words = ["pmessage", "veza:chat:*", room, payload];
            format!("*4\r\n{}", words.map(bulk).concat())
        };
        let pushed = [
            push("veza:chat:one", "chat-1\nmine, again"),
            push("veza:chat:one", "no server"),
            push("elsewhere", "chat-2\nelsewhere"),
            push("veza:chat:one", "chat-2\nfrom afar\nin two lines"),
        ];
        let server = Fake::start(move |words: &[String]| match words.first()?.as_str() {
            "PSUBSCRIBE" => {
                let subscribed = format!("*3\r\n{}{}:1\r\n", bulk("psubscribe"), bulk(&words[1]));
                Some(subscribed + &pushed.concat())
            }
            _ => fake::master()(words),
        })
        .await;
        let (link, metrics) = linked(&server).await;
        let chat = Chat::start(link, "chat-1");
        let mut one = chat.join("one");
        assert_eq!(chat.say("one", "mine").await, Source::Redis);
        let mut heard = vec![one.recv().await.unwrap(), one.recv().await.unwrap()];
        heard.sort();
        assert_eq!(heard, ["from afar\nin two lines", "mine"]);
        assert!(one.try_recv().is_err());
        assert_eq!(metrics.of(Subsystem::ChatPubsub), (1, 0));
    }

    #[tokio::test]
    async fn rooms_that_all_have_left_are_forgotten() {
        let (link, _) = without_redis();
        let chat = Chat::start(link, "chat-1");
        for room in 0..100 {
            drop(chat.join(&room.to_string()));
        }
        let _stays = chat.join("stays");
        assert_eq!(lock(&chat.shared.rooms).len(), 1);
    }
}
