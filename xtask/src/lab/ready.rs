//! Readiness: each role brings commands that succeed when an instance is fit for use; their last line
//! says what they saw.

use std::time::Duration;

use anyhow::bail;
use futures_util::future::try_join_all;
use veza_probe::clock;
use veza_probe::incus::Incus;

use super::plan::Wanted;
use super::site::Site;

const POLL: Duration = Duration::from_millis(250);
/// One asking; a command that hangs longer is ended and asked again.
const ASK_LIMIT: Duration = Duration::from_secs(10);

/// What an instance's commands said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Whether all of them succeeded.
    pub ready: bool,
    /// The last line of the first that did not, else of the last.
    pub line: String,
}

/// Asks an instance once.
pub async fn ask(incus: &Incus, wanted: &Wanted<'_>) -> Seen {
    let mut seen = Seen {
        ready: true,
        line: String::new(),
    };
    for ready in &wanted.role.readies {
        let argv: Vec<&str> = ready.run.iter().map(String::as_str).collect();
        seen = match incus.exec(&wanted.spec.name, &argv, ASK_LIMIT).await {
            Ok(done) => {
                let text = if done.stdout.trim().is_empty() {
                    &done.stderr
                } else {
                    &done.stdout
                };
                let line = text.trim().lines().next_back().unwrap_or("it said nothing");
                Seen {
                    ready: done.code == 0,
                    line: line.to_owned(),
                }
            }
            Err(error) => Seen {
                ready: false,
                line: error.to_string(),
            },
        };
        if !seen.ready {
            break;
        }
    }
    seen
}

/// Waits until an instance is ready. What it says meanwhile is shown.
///
/// # Errors
/// When the limits of its role have passed.
pub async fn wait(site: &Site<'_>, wanted: &Wanted<'_>) -> anyhow::Result<Seen> {
    let name = &wanted.spec.name;
    let limit_s: u64 = wanted.role.readies.iter().map(|r| r.limit_s).sum();
    let began = site.tale.seconds();
    let mut last = String::new();
    loop {
        let seen = ask(site.incus, wanted).await;
        let waited_s = site.tale.seconds() - began;
        if seen.ready {
            return Ok(seen);
        }
        if waited_s > limit_s as f64 {
            let units: Vec<&str> = wanted.role.units.iter().map(|u| u.name.as_str()).collect();
            bail!(
                "{name} is not ready after {waited_s:.0} s; it last said: {}\n  look at \
                 `incus --project {} exec {name} -- journalctl -n 50 {}`",
                seen.line,
                site.lab.project,
                units
                    .iter()
                    .map(|u| format!("-u {u}"))
                    .collect::<Vec<_>>()
                    .join(" ")
            );
        }
        if seen.line != last {
            site.tale.doing(&format!("{name}: {}", seen.line));
            if waited_s > 5.0 {
                site.tale
                    .say(&format!("{name}: not ready yet: {}", seen.line));
            }
            last = seen.line;
        }
        clock::sleep(POLL).await;
    }
}

/// Waits until all of these are ready, and tells what each saw.
///
/// # Errors
/// As [`wait`].
pub async fn wait_all(site: &Site<'_>, all: &[Wanted<'_>]) -> anyhow::Result<()> {
    let waits = all.iter().map(|wanted| async {
        let seen = wait(site, wanted).await?;
        site.tale
            .say(&format!("{}: {}", wanted.spec.name, seen.line));
        anyhow::Ok(())
    });
    try_join_all(waits).await?;
    Ok(())
}
