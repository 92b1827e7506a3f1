//! What a prober costs: its processor time in a process of its own, against a service in this one.

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use veza_probe::clock::{self, Clock};
use veza_probe::command::Command;
use veza_probe::prober::{Prober, Shape};

use super::client::Client;
use super::service::Service;

/// Connections are made for this long before the first probe is due.
const CONNECT_FIRST: Duration = Duration::from_millis(500);

/// How much longer than its probing the process may take.
const GRACE: Duration = Duration::from_secs(30);

/// What a stretch of probing cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// User and system time of the process.
    pub cpu_us: i64,
    /// How long it was measured.
    pub wall_us: i64,
    /// Probes of that time.
    pub probes: u64,
    /// Probes that failed: none should.
    pub failed: u64,
}

impl Cost {
    /// Its share of one core, in percent.
    pub fn percent(&self) -> f64 {
        100.0 * self.cpu_us as f64 / self.wall_us.max(1) as f64
    }

    /// Probes per second.
    pub fn rate(&self) -> f64 {
        self.probes as f64 * 1e6 / self.wall_us.max(1) as f64
    }
}

/// Measures a prober of the usual shape against a service without outages.
///
/// # Errors
/// When it can't be started, or says something else.
pub async fn measure(stretch: Duration) -> anyhow::Result<Cost> {
    let service = Service::start(Clock::start(), Vec::new(), 1).await?;
    let program = std::env::current_exe().context("finding this program")?;
    let output = Command::new(program)
        .args(["bench", "prober", "--probe-only"])
        .arg(service.address().to_string())
        .args(["--cost-seconds", &stretch.as_secs().to_string()])
        .run(stretch + GRACE)
        .await?;
    serde_json::from_str(&output.stdout).context("reading what the prober's process said")
}

/// Probes in this process, and prints what that cost: the other side of [`measure`].
///
/// # Errors
/// When the kernel does not tell, or nobody reads.
pub async fn probe_only(address: SocketAddr, stretch: Duration) -> anyhow::Result<ExitCode> {
    let clock = Clock::start();
    let first_due = clock.at().plus(CONNECT_FIRST);
    let client = Client { number: 0, address };
    let prober = Prober::start(clock, Shape::default(), vec![client], first_due);
    clock.sleep_until(first_due).await;
    let (before_us, from) = (cpu_us()?, clock.at());
    clock::sleep(stretch).await;
    let (after_us, until) = (cpu_us()?, clock.at());
    let samples = prober.finish().await;
    let cost = Cost {
        cpu_us: after_us - before_us,
        wall_us: until.us_since(from),
        probes: samples.len() as u64,
        failed: samples.iter().filter(|sample| !sample.is_success()).count() as u64,
    };
    writeln!(
        std::io::stdout().lock(),
        "{}",
        serde_json::to_string(&cost)?
    )?;
    Ok(ExitCode::SUCCESS)
}

/// User and system time of this process so far.
fn cpu_us() -> anyhow::Result<i64> {
    clock::processor_us().context("/proc/self/stat has no times")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_times() {
        assert!(cpu_us().is_ok_and(|us| us >= 0));
    }

    #[test]
    fn shares_are_of_one_core() {
        let cost = Cost {
            cpu_us: 300_000,
            wall_us: 20_000_000,
            probes: 1_000,
            failed: 0,
        };
        assert_eq!((cost.percent(), cost.rate()), (1.5, 50.0));
    }
}
