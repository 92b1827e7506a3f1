//! How late probes were dispatched: what an observer must know of itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Sample;
use crate::clock::micros;

/// How late our own probes were dispatched, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lateness {
    /// Half of them were at most this late.
    pub p50_us: i64,
    /// 99 of 100 were at most this late.
    pub p99_us: i64,
    /// None was later.
    pub max_us: i64,
}

impl Lateness {
    /// The lateness of all samples; none when there are none, which says nothing good.
    pub fn of(samples: &[Sample]) -> Option<Lateness> {
        let mut values: Vec<i64> = samples.iter().map(Sample::lateness_us).collect();
        values.sort_unstable();
        Some(Lateness {
            p50_us: percentile(&values, 50)?,
            p99_us: percentile(&values, 99)?,
            max_us: *values.last()?,
        })
    }

    /// Whether the observer was blind: probes came so late that due instants mean nothing.
    pub fn blind(&self, spacing: Duration) -> bool {
        self.p99_us > micros(spacing)
    }
}

/// The smallest value that at least `percent` of 100 values don't exceed (nearest rank, no
/// interpolation); `sorted` is in ascending order.
pub(crate) fn percentile(sorted: &[i64], percent: usize) -> Option<i64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}
