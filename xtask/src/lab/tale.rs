//! What the lab does, told with the seconds since it began, so that a log says where the time went.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use veza_probe::clock::{self, Clock};
use veza_probe::story::Story;

/// A long step without output of its own is mentioned again after this long, so that a plain log
/// does not look stuck.
const REMINDER: Duration = Duration::from_secs(15);

/// A story with the elapsed seconds in front of each line.
#[derive(Clone, Debug)]
pub struct Tale {
    story: Story,
    clock: Clock,
}

impl Tale {
    /// Begins now.
    pub fn new(story: &Story) -> Tale {
        Tale {
            story: story.clone(),
            clock: Clock::start(),
        }
    }

    /// Seconds since it began.
    pub fn seconds(&self) -> f64 {
        self.clock.at().seconds()
    }

    /// Seconds since the Unix epoch, for certificates.
    pub fn unix_seconds(&self) -> i64 {
        self.clock.wall(self.clock.at()).as_second()
    }

    /// One line that stays.
    pub fn say(&self, line: &str) {
        self.story
            .say(&format!("[{:6.1} s] {line}", self.seconds()));
    }

    /// What is under way right now; seen on a terminal only.
    pub fn doing(&self, line: &str) {
        self.story.doing(line);
    }

    /// Tells of a step only while it lasts, for one that mostly takes no time.
    pub async fn lasting<T>(&self, what: &str, step: impl Future<Output = T>) -> T {
        let began = self.seconds();
        let mut step = pin!(step);
        loop {
            match clock::within(REMINDER, &mut step).await {
                Ok(done) => return done,
                Err(_) => self.say(&format!("{what}: {:.0} s so far", self.seconds() - began)),
            }
        }
    }

    /// Tells of a long step when it begins, while it lasts, and when it is done.
    pub async fn during<T>(
        &self,
        what: &str,
        step: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let began = self.seconds();
        self.say(&format!("{what} …"));
        self.doing(what);
        let done = self.lasting(what, step).await;
        if done.is_ok() {
            self.say(&format!("{what}: {:.1} s", self.seconds() - began));
        }
        done
    }
}
