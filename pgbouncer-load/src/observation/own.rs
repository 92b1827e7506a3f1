//! What this tool itself costs while it watches: it shares the host with what it measures.

/// How fine the kernel counts: USER_HZ of proc_pid_stat(5), the same on all that this runs on.
const TICK_US: i64 = 10_000;

/// Processor time and memory of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Own {
    /// User and system time so far.
    pub cpu_us: i64,
    /// The most memory that it had at once.
    pub peak_kib: u64,
}

impl Own {
    /// Reads both; none where the kernel does not tell.
    pub fn now() -> Option<Own> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        Some(Own {
            cpu_us: ticks(&stat)? * TICK_US,
            peak_kib: peak_kib(&status)?,
        })
    }
}

/// Fields 14 and 15; the program's name in field 2 may hold anything, spaces and brackets too.
fn ticks(stat: &str) -> Option<i64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: i64 = fields.next()?.parse().ok()?;
    let system: i64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn peak_kib(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_memory_are_read() {
        let rest = "S 1 2 2 0 -1 4194304 100 0 0 0 37 5 900 901 20 0 3 0 1000";
        assert_eq!(ticks(&format!("7 (a) b (c) {rest}")), Some(42));
        assert_eq!(ticks("7 (a) S 1"), None);
        assert_eq!(peak_kib("VmPeak:\t9 kB\nVmHWM:\t  1234 kB\n"), Some(1234));
        assert!(Own::now().is_some_and(|own| own.peak_kib > 0));
    }
}
