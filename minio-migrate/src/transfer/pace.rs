//! How much may be under way: bytes held in memory, bytes and objects in a second.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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
