//! How much may be under way: bytes held in memory, bytes and objects in a second.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use veza_probe::clock::{At, Clock};

/// The unit that memory is counted in, in bytes.
const UNIT: u64 = 1024;

/// Bytes that may be held at the same time.
#[derive(Clone)]
pub struct Memory {
    free: Arc<Semaphore>,
    all: u32,
}

impl Memory {
    /// A budget of this many bytes.
    pub fn new(bytes: u64) -> Memory {
        let all = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX >> 4).max(1);
        Memory {
            free: Arc::new(Semaphore::new(all as usize)),
            all,
        }
    }

    /// Waits until that many bytes may be held; they may be until the answer is dropped. More than the whole budget is the whole
    /// budget.
    pub async fn take(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let asked = Arc::clone(&self.free).acquire_many_owned(units.clamp(1, self.all));
        // Never closed.
        asked.await.ok()
    }
}

/// How many objects and bytes may be carried in a second.
#[derive(Debug, Default)]
pub struct Rates {
    objects: Option<Rate>,
    bytes: Option<Rate>,
}

/// A number that may pass in a second.
#[derive(Debug)]
struct Rate {
    each_second: f64,
    /// When the next may pass.
    next: Mutex<At>,
}

impl Rates {
    /// Limits; none: no limit.
    pub fn new(objects: Option<u64>, bytes: Option<u64>) -> Rates {
        let rate = |each_second: u64| Rate {
            each_second: each_second.max(1) as f64,
            next: Mutex::new(At(0)),
        };
        Rates {
            objects: objects.map(rate),
            bytes: bytes.map(rate),
        }
    }

    /// Waits until an object may pass.
    pub async fn object(&self, clock: &Clock) {
        if let Some(rate) = &self.objects {
            clock.sleep_until(rate.pass(clock.at(), 1)).await;
        }
    }

    /// Waits until so many bytes may pass.
    pub async fn bytes(&self, clock: &Clock, count: u64) {
        if let Some(rate) = &self.bytes {
            clock.sleep_until(rate.pass(clock.at(), count)).await;
        }
    }
}

impl Rate {
    /// When this many may pass; those that come later pass after them.
    fn pass(&self, now: At, count: u64) -> At {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let at = (*next).max(now);
        *next = at.plus(Duration::from_secs_f64(count as f64 / self.each_second));
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_pass_in_a_second_than_may() {
        let rate = Rates::new(Some(10), None).objects.unwrap();
        let times: Vec<i64> = (0..3).map(|_| rate.pass(At(5), 1).0).collect();
        assert_eq!(times, [5, 100_005, 200_005]);
        // What was not used is not saved up.
        assert_eq!(rate.pass(At(9_000_000), 1), At(9_000_000));
    }

    #[tokio::test]
    async fn what_is_larger_than_the_budget_takes_all_of_it() {
        let memory = Memory::new(10 * UNIT);
        let all = memory.take(u64::MAX).await.unwrap();
        assert_eq!(memory.free.available_permits(), 0);
        drop(all);
        let _some = memory.take(3 * UNIT).await.unwrap();
        assert_eq!(memory.free.available_permits(), 7);
    }
}
