//! pgbench's transaction log: a line for each transaction, read as it is written. What is kept of it is
//! bounded: one histogram of all latencies, and a small one for each stretch of the run.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use hdrhistogram::Histogram;

/// The longest latency that is told apart: an hour.
const LONGEST_US: u64 = 3_600_000_000;

/// How many stretches a run has at most.
const STRETCHES: u32 = 300;

/// One stretch of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stretch {
    /// Its middle, in microseconds of Unix time.
    pub at_unix_us: i64,
    /// Transactions per second that were done in it.
    pub tps: f64,
    /// Transactions that failed in it.
    pub failed: u64,
    /// Half took no longer, in milliseconds.
    pub p50_ms: f64,
    /// 99 in 100 took no longer.
    pub p99_ms: f64,
}

/// Latencies of all transactions that were done, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latency {
    /// Half took no longer.
    pub p50_ms: f64,
    /// 90 in 100.
    pub p90_ms: f64,
    /// 99 in 100.
    pub p99_ms: f64,
    /// 999 in 1000.
    pub p999_ms: f64,
    /// The slowest.
    pub max_ms: f64,
}

struct Part {
    done: Histogram<u32>,
    failed: u64,
}

/// What the lines came to so far.
pub struct Log {
    all: Histogram<u64>,
    parts: BTreeMap<i64, Part>,
    width_s: i64,
    strange: u64,
    rests: BTreeMap<String, Vec<u8>>,
}

impl Log {
    /// For a run of so many seconds.
    ///
    /// # Errors
    /// A sentence, when a histogram can't be made: a bug.
    pub fn new(seconds: u32) -> Result<Log, String> {
        let all = Histogram::new_with_bounds(1, LONGEST_US, 3).map_err(|e| e.to_string())?;
        Ok(Log {
            all,
            parts: BTreeMap::new(),
            width_s: i64::from(seconds.div_ceil(STRETCHES).max(1)),
            strange: 0,
            rests: BTreeMap::new(),
        })
    }

    /// Takes a piece of a thread's log.
    pub fn take(&mut self, thread: &str, piece: &[u8]) {
        let mut text = self.rests.remove(thread).unwrap_or_default();
        text.extend_from_slice(piece);
        let whole = text
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        let (lines, rest) = text.split_at(whole);
        for line in lines
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            if self.line(line).is_none() {
                self.strange += 1;
            }
        }
        if !rest.is_empty() {
            self.rests.insert(thread.to_owned(), rest.to_vec());
        }
    }

    /// `client number time script epoch us [lag] [retries]`.
    fn line(&mut self, line: &[u8]) -> Option<()> {
        let text = std::str::from_utf8(line).ok()?;
        let mut fields = text.split(' ');
        let time = fields.nth(2)?;
        let second: i64 = fields.nth(1)?.parse().ok()?;
        let _: u32 = fields.next()?.parse().ok()?;
        let key = second.div_euclid(self.width_s);
        let part = match self.parts.entry(key) {
            Entry::Occupied(part) => part.into_mut(),
            Entry::Vacant(place) => {
                let done = Histogram::new_with_bounds(1, LONGEST_US, 2).ok()?;
                place.insert(Part { done, failed: 0 })
            }
        };
        match time {
            "skipped" => {}
            "failed" | "serialization" | "deadlock" => {
                part.failed += 1;
            }
            time => {
                let took_us: u64 = time.parse().ok()?;
                self.all.saturating_record(took_us.max(1));
                part.done.saturating_record(took_us.max(1));
            }
        }
        Some(())
    }

    /// Transactions that were done.
    pub fn done(&self) -> u64 {
        self.all.len()
    }

    /// Lines that were not understood, those without an end among them.
    pub fn strange(&self) -> u64 {
        self.strange + self.rests.len() as u64
    }

    /// The latencies; none when nothing was done.
    pub fn latency(&self) -> Option<Latency> {
        let ms = |us: u64| us as f64 / 1e3;
        let at = |q: f64| ms(self.all.value_at_quantile(q));
        (!self.all.is_empty()).then(|| Latency {
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: ms(self.all.max()),
        })
    }

    /// The stretches in their order; the first and the last are not whole, and left out where there are
    /// others.
    pub fn stretches(&self) -> Vec<Stretch> {
        let all = self.parts.iter().map(|(key, part)| {
            let ms = |q: f64| part.done.value_at_quantile(q) as f64 / 1e3;
            Stretch {
                at_unix_us: (key * 2 + 1) * self.width_s * 500_000,
                tps: part.done.len() as f64 / self.width_s as f64,
                failed: part.failed,
                p50_ms: ms(0.5),
                p99_ms: ms(0.99),
            }
        });
        let all: Vec<Stretch> = all.collect();
        match all.as_slice() {
            [_, whole @ .., _] if !whole.is_empty() => whole.to_vec(),
            _ => all,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_all_shapes_are_counted_and_cut_ones_are_joined() {
        let mut log = Log::new(30).unwrap();
        log.take("tx.1", b"0 1 4783 0 1795541705 659683\n0 2 41");
        log.take(
            "tx.2",
            b"6 1 serialization 0 1795541705 750224\n5 1 deadlock 0 1795541706 1\n",
        );
        log.take(
            "tx.1",
            b"66 0 1795541706 663866 74\n0 3 skipped 0 1795541706 9\n",
        );
        assert_eq!((log.done(), log.strange()), (2, 0));
        let latency = log.latency().unwrap();
        assert!((latency.max_ms - 4.783).abs() < 0.01 && (latency.p50_ms - 4.166).abs() < 0.01);
        let stretches = log.stretches();
        assert_eq!(stretches.len(), 2);
        assert_eq!((stretches[0].failed, stretches[1].failed), (1, 1));
        assert_eq!(stretches[0].at_unix_us, 1_795_541_705_500_000);
    }

    #[test]
    fn what_is_not_understood_is_counted_and_never_a_latency() {
        let mut log = Log::new(1).unwrap();
        log.take(
            "tx.1",
            b"nonsense\n0 1 abc 0 17 1\n0 1 5 0\n1 2 3 4 5 6\n0 1 5 0 17",
        );
        assert_eq!((log.done(), log.strange()), (1, 4));
        assert_eq!(Log::new(1).unwrap().latency(), None);
    }

    #[test]
    fn a_long_run_has_no_more_stretches_than_a_short_one() {
        let mut log = Log::new(3000).unwrap();
        for second in 0..3000 {
            log.take(
                "tx.1",
                format!("0 1 5 0 {} 6\n", 1_795_541_700 + second).as_bytes(),
            );
        }
        assert!(log.stretches().len() <= 301);
        assert_eq!(log.done(), 3000);
    }
}
