//! A program in an environment of its own, for tests that need no lab.

use std::process::{Command, Output};

/// A program, and all that its environment holds: nothing of the caller's, so that a lab's variables can't make a
/// test pass.
pub struct Alone {
    /// `env!("CARGO_BIN_EXE_…")`.
    pub program: &'static str,
    /// What is set in each of its runs.
    pub env: &'static [(&'static str, &'static str)],
    /// How it begins to tell what is wrong with its arguments.
    pub complains: &'static str,
}

impl Alone {
    /// The program with more arguments and variables, to be started.
    pub fn command(&self, args: &[&str], env: &[(&str, &str)]) -> Command {
        let mut command = Command::new(self.program);
        let all = self.env.iter().chain(env).copied();
        command.env_clear().envs(all).args(args);
        command
    }

    /// Runs it to its end.
    pub fn run(&self, args: &[&str], env: &[(&str, &str)]) -> Output {
        self.command(args, env).output().unwrap()
    }

    /// Asserts that this is usage (64), and that the message names `word`; returns the message.
    pub fn usage(&self, args: &[&str], env: &[(&str, &str)], word: &str) -> String {
        let output = self.run(args, env);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{args:?} {env:?}: {text}");
        assert!(text.contains(word), "{args:?} {env:?}: {text}");
        assert!(text.starts_with(self.complains), "{text}");
        text
    }
}
