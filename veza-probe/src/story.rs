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
    name: String,
    to: Box<dyn Write + Send>,
    /// The last one was not written, or in part.
    broken: bool,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Events")
    }
}

impl Events {
    /// A full disk or a reader that went away is no reason to stop a drill: the first time, it is told.
    fn write(&mut self, what: &str) -> Option<String> {
        let at = self.clock.at();
        let event = json!({ "at_us": at, "at": self.clock.wall(at).to_string(), "what": what });
        // What was written in part must not take the next event with it.
        let ended = if self.broken { "\n" } else { "" };
        let line = format!("{ended}{event}\n");
        let written = self.to.write_all(line.as_bytes());
        let error = written.and_then(|()| self.to.flush()).err();
        let was_broken = std::mem::replace(&mut self.broken, error.is_some());
        let error = error.filter(|_| !was_broken)?;
        Some(format!(
            "events could not be written to {}: {error}",
            self.name
        ))
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
    /// that is killed leaves its story. `name` says where to.
    pub fn record(&self, clock: Clock, name: &str, to: Box<dyn Write + Send>) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.push(Events {
            clock,
            name: name.to_owned(),
            to,
            broken: false,
        });
    }

    /// Something happened: one line that stays.
    pub fn say(&self, line: &str) {
        self.write(line);
        self.with(|teller| match teller {
            Teller::Quiet => {}
            Teller::Plain => write_line(line),
            Teller::Live(bar) => bar.suspend(|| write_line(line)),
        });
    }

    /// Something is wrong beside the run, and the result does not say it: told even when quiet, so that
    /// cron mails it.
    pub fn warn(&self, line: &str) {
        self.write(line);
        self.warn_only(line);
    }

    fn write(&self, line: &str) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let failed: Vec<_> = events.iter_mut().filter_map(|to| to.write(line)).collect();
        drop(events);
        for words in failed {
            self.warn_only(&words);
        }
    }

    fn warn_only(&self, line: &str) {
        self.with(|teller| match teller {
            Teller::Quiet | Teller::Plain => write_line(line),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes, then none until it is emptied.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let mut disk = self.0.lock().unwrap();
            let taken = bytes.len().min(disk.1);
            if taken == 0 {
                return Err(std::io::ErrorKind::StorageFull.into());
            }
            disk.1 -= taken;
            disk.0.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_is_told_once_and_takes_no_later_event_with_it() {
        let disk = Disk::default();
        let mut events = Events {
            clock: Clock::start(),
            name: "/a/file".to_owned(),
            to: Box::new(disk.clone()),
            broken: false,
        };
        disk.0.lock().unwrap().1 = 10;
        let told = events.write("in part").unwrap();
        assert!(told.starts_with("events could not be written to /a/file: "));
        assert!(events.write("not at all").is_none(), "told already");
        disk.0.lock().unwrap().1 = 10_000;
        assert!(events.write("whole").is_none());
        disk.0.lock().unwrap().1 = 0;
        assert!(events.write("full again").is_some(), "told again");
        let text = String::from_utf8(disk.0.lock().unwrap().0.clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        let event: serde_json::Value = serde_json::from_str(lines[1]).unwrap();
        assert_eq!(event["what"], "whole");
    }
}
