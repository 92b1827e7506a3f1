//! A check under way.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

/// A check under way. A test that fails must not leave it behind: it is asked to stop, and heals.
pub struct Running {
    child: Option<Child>,
    /// What was read of its story so far.
    story: String,
}

impl Running {
    /// Starts a command; what it says is kept.
    pub fn of(command: &mut Command) -> Running {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Running {
            child: Some(command.spawn().unwrap()),
            story: String::new(),
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Sends it a signal, such as `-TERM`.
    pub fn signal(&self, which: &str) {
        let id = self.id().to_string();
        let sent = Command::new("kill").args([which, &id]).status();
        assert!(sent.unwrap().success(), "{which}");
    }

    /// Reads its story up to a line with a word; fails when it ends without one.
    pub fn until_said(&mut self, word: &str) {
        let story = self.child.as_mut().unwrap().stderr.as_mut().unwrap();
        // What was read ahead would be lost to whoever reads on.
        let mut lines = BufReader::with_capacity(1, story).lines();
        let found = lines.any(|line| {
            let line = line.unwrap();
            self.story.push_str(&line);
            self.story.push('\n');
            line.contains(word)
        });
        assert!(found, "{word} is missing in: {}", self.story);
    }

    /// Whether it has not ended yet.
    pub fn runs(&mut self) -> bool {
        self.child.as_mut().unwrap().try_wait().unwrap().is_none()
    }

    /// Kills it, as nothing can be caught, and waits for its own end, not for that of others who hold its pipes.
    pub fn kill(mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().code(), None, "killed");
    }

    /// Waits for its end, and for all that it said.
    pub fn ended(mut self) -> Output {
        let mut output = self.child.take().unwrap().wait_with_output().unwrap();
        output.stderr.splice(0..0, self.story.bytes());
        output
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            // It may have ended by itself.
            let id = child.id().to_string();
            let _ = Command::new("kill").args(["-TERM", &id]).status();
            let output = child.wait_with_output();
            println!("the check that was left behind: {output:?}");
        }
    }
}
