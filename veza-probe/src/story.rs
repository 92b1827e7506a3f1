//! What happens, told while it happens: a live line on a terminal, plain lines elsewhere, nothing
//! when quiet. Always on stderr; the result is the report's and goes to stdout.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::clock::Clock;

/// Tells the story of a run; cheap to clone, safe to share between tasks.
#[derive(Clone, Debug)]
pub struct Story {
    teller: Arc<Mutex<Teller>>,
    events: Arc<Mutex<Vec<Events>>>,
}

/// Where events are written.
struct Events {
    clock: Clock,
    to: Box<dyn Write + Send>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Events")
    }
}

impl Events {
    /// A full disk or a reader that went away is no reason to stop a drill.
    fn write(&mut self, what: &str) {
        let at = self.clock.at();
        let event = json!({ "at_us": at, "at": self.clock.wall(at).to_string(), "what": what });
        let _ = writeln!(self.to, "{event}").and_then(|()| self.to.flush());
    }
}

#[derive(Debug)]
enum Teller {
    Quiet,
    Plain,
    Live(ProgressBar),
}

impl Story {
    /// A story for stderr as it is: a spinner on a terminal, plain lines elsewhere, nothing when
    /// `quiet`.
    pub fn new(quiet: bool) -> Story {
        let teller = if quiet {
            Teller::Quiet
        } else if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} [{elapsed}] {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            Teller::Live(bar)
        } else {
            Teller::Plain
        };
        Story {
            teller: Arc::new(Mutex::new(teller)),
            events: Arc::new(Mutex::new(Vec::new())),
        }
    }

    /// From now on also writes each line as an event, as JSON, a line each and at once, so that a run
    /// that is killed leaves its story.
    pub fn record(&self, clock: Clock, to: Box<dyn Write + Send>) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.push(Events { clock, to });
    }

    /// Something happened: one line that stays.
    pub fn say(&self, line: &str) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.iter_mut().for_each(|events| events.write(line));
        drop(events);
        self.with(|teller| match teller {
            Teller::Quiet => {}
            Teller::Plain => write_line(line),
            Teller::Live(bar) => bar.suspend(|| write_line(line)),
        });
    }

    /// Something is under way: the live line on a terminal. Elsewhere nothing is written, so call
    /// [`Story::say`] for what a log should hold.
    pub fn doing(&self, line: &str) {
        self.with(|teller| {
            if let Teller::Live(bar) = teller {
                bar.set_message(line.to_owned());
            }
        });
    }

    /// Asks a person for a line; none when there is none to ask: no terminal on either side, or quiet.
    /// Dropping it gives the question up.
    pub async fn ask(&self, question: &str) -> Option<String> {
        let mut quiet = false;
        self.with(|teller| quiet = matches!(teller, Teller::Quiet));
        if quiet || !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
            return None;
        }
        self.say(question);
        let mut line = String::new();
        let read = BufReader::new(tokio::io::stdin())
            .read_line(&mut line)
            .await;
        read.ok().filter(|count| *count > 0).map(|_| line)
    }

    /// Ends the live line; what is said afterwards is plain.
    pub fn end(&self) {
        self.with(|teller| {
            if let Teller::Live(bar) = teller {
                bar.finish_and_clear();
                *teller = Teller::Plain;
            }
        });
    }

    fn with(&self, tell: impl FnOnce(&mut Teller)) {
        // A task that panicked while telling must not silence the others.
        let mut teller = self.teller.lock().unwrap_or_else(PoisonError::into_inner);
        tell(&mut teller);
    }
}

/// A closed stderr is no reason to stop a drill.
fn write_line(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
