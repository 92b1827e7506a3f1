//! (being written)

use std::process::ExitCode;

/// (being written)
#[derive(clap::Args)]
pub struct Args {}

pub async fn run(_args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("drill is not there yet")
}
