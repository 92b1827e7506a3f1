//! The project's own commands: `cargo xtask lab | drill | test | bench | tidy`.

mod cargo;
mod lab;
mod drill;
mod test;
mod bench;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// The lab: real servers in Incus containers on this host.
    Lab(lab::Args),
    /// Brings up what is missing, runs the checks one after the other, and sums up.
    Drill(drill::Args),
    /// Every test: those against the real lab, then those that need none.
    Test(test::Args),
    /// How good the project's own tools are, in numbers.
    Bench(bench::Args),
    /// The rules that clippy cannot say.
    Tidy(tidy::Args),
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    let done = match cli.task {
        Task::Lab(args) => lab::run(args).await,
        Task::Drill(args) => drill::run(args).await,
        Task::Test(args) => test::run(args).await,
        Task::Bench(args) => bench::run(args).await,
        Task::Tidy(args) => tidy::run(&args),
    };
    done.unwrap_or_else(|error| {
        // The one line that a task could not put into its own output.
        let story = veza_probe::story::Story::new(false);
        story.say(&format!("error: {error:#}"));
        story.end();
        ExitCode::FAILURE
    })
}
