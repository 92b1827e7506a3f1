//! What this tool itself costs while it watches: it shares the host with what it measures.

use veza_probe::clock;

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
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        Some(Own {
            cpu_us: clock::processor_us()?,
            peak_kib: peak_kib(&status)?,
        })
    }
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
    fn memory_is_read_and_both_are_had() {
        assert_eq!(peak_kib("VmPeak:\t9 kB\nVmHWM:\t  1234 kB\n"), Some(1234));
        assert!(Own::now().is_some_and(|own| own.peak_kib > 0));
    }
}
