//! `cargo xtask bench`: how good the project's own tools are. Prints tables and writes
//! `bench/NAME.json`.

mod prober;
mod load;
mod migrate;

use std::process::ExitCode;

use anyhow::Context;
use clap::Subcommand;
use serde_json::Value;
use veza_probe::clock::Stop;
use veza_probe::story::Story;
use veza_probe::verdict::Verdict;

use crate::cargo::cargo;
use crate::drill::unless;

/// What to measure.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Subcommand)]
enum Subject {
    /// The prober and a poll loop against outages whose start and end are known; loopback only.
    Prober(prober::Args),
    /// pgbouncer-load against pgbench by itself, in turns, through the lab's pooler.
    Load(load::Args),
    /// minio-migrate against mc mirror, rclone and s3sync, in turns, from the lab's single node to its cluster.
    Migrate(migrate::Args),
}

/// Measures; 0 when every promise was kept, 1 when not. Always in a release build: one that was
/// built for debugging builds another and runs that.
///
/// # Errors
/// When the measurement can't be made or written.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let stop = Stop::listen()?;
    if cfg!(debug_assertions) {
        return in_release(stop).await;
    }
    let measured = match args.subject {
        Subject::Prober(args) => unless(&stop, prober::run(args)).await,
        Subject::Load(args) => unless(&stop, load::run(args)).await,
        Subject::Migrate(args) => unless(&stop, migrate::run(args)).await,
    };
    measured.unwrap_or_else(|signal| Ok(ExitCode::from(Verdict::Interrupted(signal).code())))
}

async fn in_release(stop: Stop) -> anyhow::Result<ExitCode> {
    let story = Story::new(false);
    story.say("building for release: a debug build would measure itself");
    story.end();
    let status = cargo()?
        .args(["run", "--quiet", "--release", "--package", "xtask", "--"])
        .args(std::env::args_os().skip(1))
        .attended(stop)
        .await?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// The one value of a figure.
fn figure(report: &Value, id: &str) -> anyhow::Result<f64> {
    let figures = report.get("figures").and_then(Value::as_array);
    let found = figures
        .into_iter()
        .flatten()
        .find(|f| f.get("id").and_then(Value::as_str) == Some(id));
    let value = found.and_then(|f| f.get("rounds")?.get(0)?.as_f64());
    value.with_context(|| format!("the report has no figure {id}"))
}
