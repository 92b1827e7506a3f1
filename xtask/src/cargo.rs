//! What cargo builds: the programs of this workspace, and where it put them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;
use veza_probe::clock::{At, Clock, Stop};
use veza_probe::command::Command;

/// The longest that cargo may take to list what it has just built.
const LIST_LIMIT: Duration = Duration::from_secs(600);

/// A program that cargo built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The package that it belongs to.
    pub package: String,
    /// The package's folder.
    pub folder: PathBuf,
    /// The name of its target: `lab` for tests/lab.rs.
    pub target: String,
    /// The kind of its target: `bin`, `test`.
    pub kind: String,
    /// Where it stands.
    pub path: PathBuf,
}

/// The root of this workspace.
///
/// # Errors
/// When xtask was built outside of one.
pub fn workspace() -> anyhow::Result<&'static Path> {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().context("xtask stands in no workspace")
}

/// A new folder for what a command leaves behind: `target/drill/20251124T030102Z`.
///
/// # Errors
/// When it can't be created.
pub fn fresh_folder(under: &str, clock: Clock) -> anyhow::Result<PathBuf> {
    let wall = clock.wall(At(0)).to_string();
    let seconds = wall.split(['.', 'Z']).next().unwrap_or_default();
    let name: String = seconds.chars().filter(|c| !"-:".contains(*c)).collect();
    let folder = workspace()?
        .join("target")
        .join(under)
        .join(format!("{name}Z"));
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    Ok(folder)
}

/// Cargo, in the workspace, as a shell would start it.
///
/// # Errors
/// When xtask was built outside of a workspace.
pub fn cargo() -> anyhow::Result<Command> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    Ok(as_from_a_shell(Command::new(program).folder(workspace()?)))
}

/// A command with the environment that a shell would give it: where cargo is started by it, what `cargo run` adds for xtask would make build
/// scripts run anew, and all that needs them be compiled once more.
pub fn as_from_a_shell(command: Command) -> Command {
    let added = |name: &str| {
        name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") || name == "OUT_DIR"
    };
    std::env::vars_os()
        .filter(|(name, _)| name.to_str().is_some_and(added))
        .fold(command, |command, (name, _)| command.env_remove(name))
}

/// Builds with cargo's own progress on the screen, and returns the programs.
///
/// # Errors
/// When it does not build.
pub async fn build(args: &[&str], stop: &Stop) -> anyhow::Result<Vec<Program>> {
    let shown: ExitStatus = cargo()?.args(args).attended(stop.clone()).await?;
    anyhow::ensure!(
        shown.success(),
        "cargo {} ended with {shown}",
        args.join(" ")
    );
    let listed = cargo()?
        .args(args)
        .arg("--message-format=json")
        .run(LIST_LIMIT)
        .await?;
    Ok(programs(&listed.stdout))
}

/// Builds some binaries without a word, and returns the programs, and whether there was nothing to build.
///
/// # Errors
/// When it does not build: with cargo's words.
pub async fn build_quietly(
    binaries: &BTreeSet<&str>,
    limit: Duration,
) -> anyhow::Result<(Vec<Program>, bool)> {
    let wanted = binaries.iter().flat_map(|name| ["--bin", name]);
    let build = cargo()?
        .args(["build", "--message-format=json-render-diagnostics"])
        // With the features of the whole workspace, as everything else: a package by itself has fewer, and
        // its dependencies would be compiled once more.
        .arg("--workspace")
        .args(wanted);
    let done = build.run(limit).await?;
    let fresh = !done.stdout.contains("\"fresh\":false");
    Ok((programs(&done.stdout), fresh))
}

/// A line of cargo's, as far as it speaks of a program.
#[derive(Deserialize)]
struct Message {
    manifest_path: PathBuf,
    target: Target,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// The programs that cargo's JSON lines speak of.
fn programs(lines: &str) -> Vec<Program> {
    let messages = lines
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok());
    messages
        .filter_map(|message| {
            let folder = message.manifest_path.parent()?.to_owned();
            Some(Program {
                // A package has its folder's name; `cargo xtask tidy` says so.
                package: folder.file_name()?.to_str()?.to_owned(),
                folder,
                target: message.target.name,
                kind: message.target.kind.into_iter().next()?,
                path: message.executable?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_left_behind_lies_under_its_moment() {
        let folder = fresh_folder("drill-test", Clock::start()).unwrap();
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let parent = folder.parent().unwrap().to_owned();
        std::fs::remove_dir_all(&parent).unwrap();
        assert_eq!((name.len(), name.ends_with('Z')), (16, true), "{name}");
        assert!(parent.ends_with("target/drill-test"));
    }

    #[test]
    fn only_lines_about_programs_count() {
        let lines = r#"
            {"reason":"compiler-artifact","manifest_path":"/w/veza-probe/Cargo.toml","target":{"kind":["lib"],"name":"veza_probe"},"executable":null}
            {"reason":"compiler-artifact","manifest_path":"/w/drop-check/Cargo.toml","target":{"kind":["test"],"name":"lab"},"executable":"/w/target/debug/deps/lab-1"}
            {"reason":"build-finished","success":true}
            a line of a build script"#;
        let expected = Program {
            package: "drop-check".to_owned(),
            folder: PathBuf::from("/w/drop-check"),
            target: "lab".to_owned(),
            kind: "test".to_owned(),
            path: PathBuf::from("/w/target/debug/deps/lab-1"),
        };
        assert_eq!(programs(lines), [expected]);
    }
}
