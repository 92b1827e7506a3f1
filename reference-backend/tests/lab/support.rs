//! The lab as a test finds it, and two servers of the application that use its Redis.

use std::time::Duration;

pub use lab_test::{MINUTE, variable};
use lab_test::{incus, name};
use redis::{Client, IntoConnectionInfo, RedisConnectionInfo};
use reference_backend::redis::chat::Chat;
use reference_backend::redis::presence::Presence;
use reference_backend::redis::rate_limiter::{Limit, RateLimiter};
use reference_backend::redis::{CacheMetrics, Config, Link, Source, Subsystem};
use tokio::sync::broadcast::Receiver;
use veza_probe::clock::{self, within};
use veza_probe::incus::{ExecOutput, FileKind, Incus, StateChange};
use veza_probe::secret;

/// No request takes a fraction of this.
const HANGS: Duration = Duration::from_secs(10);

/// The lab's Redis.
pub const REDIS: [&str; 3] = ["redis-1", "redis-2", "redis-3"];

pub struct Lab {
    incus: Incus,
}

impl Lab {
    pub async fn new() -> Lab {
        let incus = incus(&["REDIS_SENTINEL_ADDRS"]).await;
        Lab { incus }
    }

    pub async fn set(&self, instance: &str, change: StateChange) {
        println!("{instance}: {change:?}");
        let instance = name(instance);
        let set = self.incus.set_state(&instance, change, MINUTE);
        set.await.unwrap();
    }

    /// The instance at an address such as `198.18.0.21:6379`.
    pub async fn at(&self, address: &str) -> &'static str {
        for instance in REDIS {
            let found = self.incus.instance(&name(instance)).await.unwrap();
            let own = found.devices.get("eth0").unwrap().get("ipv4.address");
            if address.split(':').next() == own.map(String::as_str) {
                return instance;
            }
        }
        panic!("no instance of Redis is at {address}")
    }

    /// Puts a text file there for everybody to read; its folder is there.
    pub async fn put(&self, instance: &str, path: &str, text: &str) {
        let file = FileKind::File(text.as_bytes().to_vec());
        let name = name(instance);
        let written = self.incus.write_file(&name, path, file, (0, 0, 0o644));
        written.await.unwrap();
    }

    pub async fn try_exec(&self, instance: &str, argv: &[&str]) -> ExecOutput {
        let output = self.incus.exec(&name(instance), argv, MINUTE).await;
        output.unwrap()
    }
}

/// What the three subsystems came to: who answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    pub limiter: Source,
    pub announced: Source,
    pub found: Source,
    pub said: Source,
}

impl Answered {
    pub fn by(source: Source) -> Answered {
        Answered {
            limiter: source,
            announced: source,
            found: source,
            said: source,
        }
    }
}

/// A server of the application, in this process.
pub struct Server {
    pub link: Link,
    pub metrics: CacheMetrics,
    pub limiter: RateLimiter,
    pub presence: Presence,
    pub chat: Chat,
    name: String,
}

impl Server {
    /// Starts one, and waits until Redis is at hand. The name is its own in each test's run.
    pub async fn start(name: &str) -> Server {
        let name = format!("{name}-{}", std::process::id());
        let config = Config::from_env(|name| std::env::var_os(name)).unwrap();
        let metrics = CacheMetrics::default();
        let link = Link::start(config, metrics.clone());
        let limit = Limit {
            requests: 3,
            window: 10 * MINUTE,
        };
        let server = Server {
            limiter: RateLimiter::new(link.clone(), limit),
            presence: Presence::new(link.clone(), &name, MINUTE),
            chat: Chat::start(link.clone(), &name),
            link,
            metrics,
            name,
        };
        server.until_linked().await;
        server
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits until there is a master, and a connection that listens; says where.
    pub async fn until_linked(&self) -> String {
        let mut master = self.link.master();
        let linked = async {
            let found = master.wait_for(Option::is_some).await.unwrap();
            let address = found.as_ref().unwrap().address();
            drop(found);
            while !self.chat.listens() {
                clock::sleep(Duration::from_millis(20)).await;
            }
            address
        };
        let linked = within(MINUTE, linked).await;
        linked.unwrap_or_else(|_| panic!("no master: {:?}", self.link.problem()))
    }

    /// One request of each kind. The user that is looked for is the server's own. None may hang, whatever the state
    /// of Redis: the limit is far beyond that of all four together.
    pub async fn use_all(&self, client: &str) -> Answered {
        let answered = within(HANGS, self.use_each(client)).await;
        answered.unwrap_or_else(|_| panic!("a request hangs: {:?}", self.link.problem()))
    }

    async fn use_each(&self, client: &str) -> Answered {
        let user = format!("{client}-of-{}", self.name);
        let limiter = self.limiter.check(client).await.source;
        let announced = self.presence.announce(&user).await;
        let (at, found) = self.presence.find(&user).await;
        if announced == found {
            assert_eq!(at.as_deref(), Some(self.name()), "{user}");
        }
        Answered {
            limiter,
            announced,
            found,
            said: self.chat.say("room", client).await,
        }
    }

    /// Uses all, until Redis answers all of it.
    pub async fn until_served(&self) {
        let mut last = None;
        let served = async {
            let all = Some(Answered::by(Source::Redis));
            while last != all {
                last = Some(self.use_all("anyone").await);
                clock::sleep(Duration::from_millis(20)).await;
            }
        };
        let served = within(MINUTE, served).await;
        assert!(served.is_ok(), "{last:?}: {:?}", self.link.problem());
    }

    /// Uses all, until Redis answers all of it from another place than `old`.
    pub async fn until_served_elsewhere(&self, old: &str) {
        let elsewhere = async {
            let at_old = || {
                let master = self.link.master().borrow().as_ref().map(|m| m.address());
                master.is_none_or(|at| at == old)
            };
            while at_old() {
                self.use_all("anyone").await;
                clock::sleep(Duration::from_millis(20)).await;
            }
        };
        let elsewhere = within(MINUTE, elsewhere).await;
        assert!(elsewhere.is_ok(), "still {old}: {:?}", self.link.problem());
        self.until_served().await;
    }

    /// Hits and misses of each subsystem.
    pub fn counts(&self) -> [(u64, u64); 3] {
        Subsystem::ALL.map(|subsystem| self.metrics.of(subsystem))
    }
}

/// The next message of a room that is `text`; others before it are passed over.
pub async fn hear(room: &mut Receiver<String>, text: &str) {
    let heard = async { while room.recv().await.unwrap() != text {} };
    let heard = within(MINUTE, heard).await;
    assert!(heard.is_ok(), "{text:?} was not heard");
}

/// What a Redis says that it is; none when it says nothing.
pub async fn role(address: &str) -> Option<String> {
    let secret = secret::read("REDIS_PASSWORD", |name| std::env::var_os(name));
    let login = RedisConnectionInfo::default()
        .set_username(variable("REDIS_USERNAME"))
        .set_password(secret.unwrap().unwrap().expose());
    let info = format!("redis://{address}").into_connection_info().unwrap();
    let client = Client::open(info.set_redis_settings(login)).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.ok()?;
    let role: Vec<redis::Value> = redis::cmd("ROLE").query_async(&mut connection).await.ok()?;
    redis::from_redis_value_ref(role.first()?).ok()
}
