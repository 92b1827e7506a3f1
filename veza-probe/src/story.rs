//! What happens, told while it happens: a live line on a terminal, plain lines elsewhere, nothing
//! when quiet. Always on stderr; the result is the report's and goes to stdout.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::io::{AsyncBufReadExt, BufReader};

/// Tells the story of a run; cheap to clone, safe to share between tasks.
#[derive(Clone, Debug)]
pub struct Story(Arc<Mutex<Teller>>);

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
        Story(Arc::new(Mutex::new(teller)))
    }

    /// Something happened: one line that stays.
    pub fn say(&self, line: &str) {
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
        let mut teller = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        tell(&mut teller);
    }
}

/// A closed stderr is no reason to stop a drill.
fn write_line(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
