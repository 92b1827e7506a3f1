//! The only module that reads a clock, sleeps, or hears signals.
//!
//! A run has one [`Clock`]: its monotonic origin rules every measurement, and the wall time read at
//! the same moment is only for people and for servers that speak in wall time.
#![expect(
    clippy::disallowed_methods,
    reason = "this is the module that the bans point to"
)]

use std::fmt;
use std::future::Future;
use std::io;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// A moment of a run: microseconds since its [`Clock`] was started; never negative in practice, but
/// differences and moments of servers before the start may be.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct At(pub i64);

impl At {
    /// The moment `later` after this one.
    pub fn plus(self, later: Duration) -> At {
        At(self.0.saturating_add(micros(later)))
    }

    /// Microseconds from `earlier` to this moment; negative when it is the other way round.
    pub fn us_since(self, earlier: At) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Seconds since the start of the run.
    pub fn seconds(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} s", self.seconds())
    }
}

/// A duration in whole microseconds, saturating.
pub fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// The clock of one run: monotonic and wall time read together once.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    wall: jiff::Timestamp,
}

impl Clock {
    /// Starts the run's clock now.
    pub fn start() -> Clock {
        Clock {
            origin: Instant::now(),
            wall: jiff::Timestamp::now(),
        }
    }

    /// Now, on the monotonic clock.
    pub fn at(&self) -> At {
        At(micros(self.origin.elapsed()))
    }

    /// The wall time that belongs to a moment, as if the wall clock had run evenly since the start.
    pub fn wall(&self, at: At) -> jiff::Timestamp {
        self.wall
            .checked_add(jiff::SignedDuration::from_micros(at.0))
            .unwrap_or(self.wall)
    }

    /// The moment that belongs to a wall time, on the same terms as [`Clock::wall`].
    pub fn at_wall_us(&self, unix_us: i64) -> At {
        At(unix_us.saturating_sub(self.wall.as_microsecond()))
    }

    /// Sleeps until a moment; returns at once when it has passed. Tokio's timer has a resolution of
    /// one millisecond, so this wakes up to about 1 ms late.
    pub async fn sleep_until(&self, at: At) {
        let micros = u64::try_from(at.0).unwrap_or(0);
        tokio::time::sleep_until((self.origin + Duration::from_micros(micros)).into()).await;
    }
}

/// Another clock seen from ours: add `us` to one of its times to get ours, give or take `error_us`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offset {
    /// Ours less the other's, in microseconds.
    pub us: i64,
    /// How far that may be off, in microseconds: half of the round trip that measured it.
    pub error_us: i64,
}

impl Offset {
    /// From one round trip: the other clock showed `theirs_us` between `sent` and `back`; `ours_us` is what
    /// ours shows at a moment, in the same units and kind of time.
    pub fn of_trip((sent, back): (At, At), theirs_us: i64, ours_us: impl Fn(At) -> i64) -> Offset {
        let half_us = back.us_since(sent) / 2;
        Offset {
            us: ours_us(At(sent.0 + half_us)).saturating_sub(theirs_us),
            error_us: half_us + 1,
        }
    }

    /// The one that is known more exactly: of the fastest round trip.
    #[must_use]
    pub fn or_closer(self, other: Option<Offset>) -> Offset {
        other
            .filter(|other| other.error_us <= self.error_us)
            .unwrap_or(self)
    }

    /// When something happened by our clock that a server says happened at `unix_us` of its wall clock: not
    /// before the first moment and not after the second.
    pub fn ours(&self, clock: &Clock, unix_us: i64) -> (At, At) {
        let at = clock.at_wall_us(unix_us.saturating_add(self.us));
        (At(at.0 - self.error_us), At(at.0 + self.error_us))
    }
}

/// How fine the kernel counts: USER_HZ of proc_pid_stat(5), the same on all that this runs on.
const TICK_US: i64 = 10_000;

/// User and system time of this process so far, in microseconds; none where the kernel does not tell.
pub fn processor_us() -> Option<i64> {
    Some(ticks(&std::fs::read_to_string("/proc/self/stat").ok()?)? * TICK_US)
}

/// Fields 14 and 15; the program's name in field 2 may hold anything, spaces and brackets too.
fn ticks(stat: &str) -> Option<i64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: i64 = fields.next()?.parse().ok()?;
    let system: i64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Sleeps; drop the future to be interrupted.
pub async fn sleep(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// The limit of a future had passed before it was done.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {:.1} s", .0.as_secs_f64())]
pub struct Elapsed(pub Duration);

/// Runs a future under a limit; at the limit it is dropped.
///
/// # Errors
/// [`Elapsed`] when the limit passed first.
pub async fn within<F: Future>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    tokio::time::timeout(limit, future)
        .await
        .map_err(|_| Elapsed(limit))
}

/// A signal that asks a run to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Signal {
    /// SIGHUP, 1: the terminal went away.
    Hangup,
    /// SIGINT, 2: Ctrl-C.
    Interrupt,
    /// SIGTERM, 15: a service manager or CI job ends the run.
    Terminate,
}

impl Signal {
    /// The number that the kernel knows it by.
    pub fn number(self) -> u8 {
        match self {
            Signal::Hangup => 1,
            Signal::Interrupt => 2,
            Signal::Terminate => 15,
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Signal::Hangup => "SIGHUP",
            Signal::Interrupt => "SIGINT",
            Signal::Terminate => "SIGTERM",
        })
    }
}

/// While it lives, no signal that a process may choose to survive ends this one: for a watchdog, which
/// must outlive whatever ends its check.
#[derive(Debug)]
pub struct Deaf {
    _heard: Vec<tokio::signal::unix::Signal>,
}

impl Deaf {
    /// Installs handlers that do nothing. (SIGPIPE is ignored by Rust's own start-up.)
    ///
    /// # Errors
    /// When the process can't install signal handlers.
    pub fn to_signals() -> io::Result<Deaf> {
        let kinds = [
            SignalKind::hangup(),
            SignalKind::interrupt(),
            SignalKind::quit(),
            SignalKind::terminate(),
            SignalKind::user_defined1(),
            SignalKind::user_defined2(),
            SignalKind::alarm(),
        ];
        let heard = kinds.into_iter().map(signal).collect::<io::Result<_>>()?;
        Ok(Deaf { _heard: heard })
    }
}

/// Hears SIGHUP, SIGINT and SIGTERM; from then on none of them ends the process by itself.
#[derive(Clone, Debug)]
pub struct Stop {
    /// The first signal, and how many came in all.
    heard: watch::Receiver<(Option<Signal>, u32)>,
}

impl Stop {
    /// Starts listening.
    ///
    /// # Errors
    /// When the process can't install signal handlers.
    pub fn listen() -> io::Result<Stop> {
        let (sender, heard) = watch::channel((None, 0));
        let mut hangup = signal(SignalKind::hangup())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::spawn(async move {
            loop {
                let which = tokio::select! {
                    Some(()) = hangup.recv() => Signal::Hangup,
                    Some(()) = interrupt.recv() => Signal::Interrupt,
                    Some(()) = terminate.recv() => Signal::Terminate,
                    else => return,
                };
                sender.send_modify(|(first, count)| {
                    first.get_or_insert(which);
                    *count += 1;
                });
            }
        });
        Ok(Stop { heard })
    }

    /// The first signal that was heard, if any.
    pub fn requested(&self) -> Option<Signal> {
        self.heard.borrow().0
    }

    /// Waits for the first signal; returns at once when it has come already.
    pub async fn wait(&mut self) -> Signal {
        loop {
            if let Some(signal) = self.requested() {
                return signal;
            }
            if self.heard.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until one more signal comes after those heard so far; for telling an impatient person
    /// how long healing may still take.
    pub async fn again(&mut self) {
        let seen = self.heard.borrow_and_update().1;
        while self.heard.borrow().1 == seen {
            if self.heard.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_system_time_are_added_whatever_the_name() {
        let rest = "S 1 2 2 0 -1 4194304 100 0 0 0 37 5 900 901 20 0 3 0 1000";
        assert_eq!(ticks(&format!("7 (xtask) {rest}")), Some(42));
        assert_eq!(ticks(&format!("7 (a) b (c) {rest}")), Some(42));
        assert_eq!(ticks("7 (xtask) S 1"), None);
        assert_eq!(ticks(""), None);
    }

    #[test]
    fn the_fastest_round_trip_tells_how_another_clock_stands() {
        let trip = |sent, back, theirs| Offset::of_trip((At(sent), At(back)), theirs, |at| at.0);
        let slow = trip(0, 1_000, 5_000);
        assert_eq!((slow.us, slow.error_us), (-4_500, 501));
        let fast = trip(2_000, 2_100, 6_550);
        assert_eq!((fast.us, fast.error_us), (-4_500, 51));
        assert_eq!(fast.or_closer(Some(slow)), fast);
        assert_eq!(slow.or_closer(Some(fast)), fast);
        assert_eq!(slow.or_closer(None), slow);
    }
}
