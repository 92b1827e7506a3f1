//! So many requests of one client in a window of time, counted by Redis for all servers together.
//!
//! The window is fixed: it begins with a client's first request. While Redis is away each server counts for
//! itself, so a client that reaches N servers may do N times as much; nobody is turned away for the outage's sake.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use ::redis::Script;
use veza_probe::clock::{At, Clock};

use super::Source;
use super::link::Link;
use super::metrics::Subsystem;

/// Counts, and sets the end of the window with the first count, in one step: a client whose server dies in between
/// would otherwise be turned away for ever. A key without an end, left by whatever, gets one.
static COUNT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local count = redis.call('INCR', KEYS[1])
         local left_ms = redis.call('PTTL', KEYS[1])
         if left_ms < 0 then
           redis.call('PEXPIRE', KEYS[1], ARGV[1])
           left_ms = tonumber(ARGV[1])
         end
         return {count, left_ms}",
    )
});

/// When so many windows are held in memory, those that are over are thrown out.
const SWEEP_AT: usize = 1024;

/// What is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Requests in a window.
    pub requests: u64,
    /// How long a window is; whole milliseconds, at least one.
    pub window: Duration,
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may go on.
    pub allowed: bool,
    /// How many more may, in this window.
    pub remaining: u64,
    /// When the window is over.
    pub resets_in: Duration,
    /// Who counted.
    pub source: Source,
}

/// Counts requests.
pub struct RateLimiter {
    link: Link,
    limit: Limit,
    clock: Clock,
    memory: Mutex<Windows>,
}

impl RateLimiter {
    /// A limiter that counts from here on.
    pub fn new(link: Link, limit: Limit) -> RateLimiter {
        RateLimiter {
            link,
            limit,
            clock: Clock::start(),
            memory: Mutex::default(),
        }
    }

    /// Counts a request of `client`, and says whether it may go on. Always has an answer, within
    /// [`REQUEST_LIMIT`](super::REQUEST_LIMIT).
    pub async fn check(&self, client: &str) -> Decision {
        let window_ms = self.limit.window.as_millis().max(1);
        let mut script = COUNT.prepare_invoke();
        script
            .key(format!("veza:rate:{client}"))
            .arg(u64::try_from(window_ms).unwrap_or(u64::MAX));
        let counted = self.link.run(Subsystem::RateLimiter, &script).await;
        match counted {
            Ok((count, left_ms)) => {
                self.decide(count, Duration::from_millis(left_ms), Source::Redis)
            }
            Err(_) => {
                let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
                let (count, left) = memory.count(client, self.limit.window, self.clock.at());
                self.decide(count, left, Source::Memory)
            }
        }
    }

    fn decide(&self, count: u64, resets_in: Duration, source: Source) -> Decision {
        Decision {
            allowed: count <= self.limit.requests,
            remaining: self.limit.requests.saturating_sub(count),
            resets_in,
            source,
        }
    }
}

/// Windows of clients, each with its end.
#[derive(Default)]
struct Windows {
    of: HashMap<String, (u64, At)>,
    sweep_at: usize,
}

impl Windows {
    /// Counts a request; what its window then holds, and how long that lasts.
    fn count(&mut self, client: &str, window: Duration, now: At) -> (u64, Duration) {
        if self.of.len() >= self.sweep_at.max(SWEEP_AT) {
            self.of.retain(|_, (_, end)| *end > now);
            // Those that stay are not looked at again for each newcomer.
            self.sweep_at = 2 * self.of.len();
        }
        let fresh = (0, now.plus(window));
        let entry = self.of.entry(client.to_owned()).or_insert(fresh);
        if entry.1 <= now {
            *entry = fresh;
        }
        entry.0 += 1;
        let left_us = u64::try_from(entry.1.us_since(now)).unwrap_or_default();
        (entry.0, Duration::from_micros(left_us))
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{self, Fake};
    use super::super::link::tests::{linked, without_redis};
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const TWO: Limit = Limit {
        requests: 2,
        window: SECOND,
    };

    #[test]
    fn a_window_begins_with_the_first_request_and_ends() {
        let mut windows = Windows::default();
        let mut count = |client: &str, ms: i64| windows.count(client, SECOND, At(ms * 1000));
        assert_eq!(count("a", 0), (1, SECOND));
        assert_eq!(count("a", 400), (2, Duration::from_millis(600)));
        assert_eq!(count("b", 500), (1, SECOND));
        assert_eq!(count("a", 999), (3, Duration::from_millis(1)));
        assert_eq!(count("a", 1000), (1, SECOND));
    }

    #[test]
    fn windows_that_are_over_are_not_kept() {
        let mut windows = Windows::default();
        for client in 0..10_000 {
            windows.count(&client.to_string(), SECOND, At(client * 10_000));
        }
        assert!(windows.of.len() <= 2 * SWEEP_AT, "{}", windows.of.len());
        let mut busy = Windows::default();
        for client in 0..10_000 {
            busy.count(&client.to_string(), SECOND, At(0));
        }
        assert_eq!(busy.of.len(), 10_000, "those that go on are kept");
    }

    #[tokio::test]
    async fn without_redis_memory_counts_and_each_is_a_miss() {
        let (link, metrics) = without_redis();
        let limiter = RateLimiter::new(link, TWO);
        let mut allowed = Vec::new();
        for _ in 0..3 {
            let decision = limiter.check("a").await;
            assert_eq!(decision.source, Source::Memory);
            allowed.push((decision.allowed, decision.remaining));
        }
        assert_eq!(allowed, [(true, 1), (true, 0), (false, 0)]);
        assert!(limiter.check("b").await.allowed);
        assert_eq!(metrics.of(Subsystem::RateLimiter), (0, 4));
        assert_eq!(metrics.of(Subsystem::Presence), (0, 0));
    }

    /// Redis' count is what counts, past the limit, too: a refusal is an answer.
    #[tokio::test]
    async fn with_redis_its_count_decides() {
        let server = Fake::start(|words: &[String]| {
            let over = words.iter().any(|word| word == "veza:rate:over");
            match over {
                true => Some("*2\r\n:3\r\n:700\r\n".to_owned()),
                false => fake::master()(words),
            }
        })
        .await;
        let (link, metrics) = linked(&server).await;
        let limiter = RateLimiter::new(link, TWO);
        let expected = Decision {
            allowed: true,
            remaining: 1,
            resets_in: SECOND,
            source: Source::Redis,
        };
        assert_eq!(limiter.check("a").await, expected);
        let expected = Decision {
            allowed: false,
            remaining: 0,
            resets_in: Duration::from_millis(700),
            source: Source::Redis,
        };
        assert_eq!(limiter.check("over").await, expected);
        assert_eq!(metrics.of(Subsystem::RateLimiter), (2, 0));
    }
}
