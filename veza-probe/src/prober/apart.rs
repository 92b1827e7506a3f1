//! Threads of the probes' own: what else a check does at the same time (hashing what it reads, asking Incus, telling
//! its story) must not make a probe late, and a probe that is late proves nothing of its due instant.

use tokio::runtime::{Builder, EnterGuard, Runtime};

/// One that dispatches while the other is in an answer.
const THREADS: usize = 2;

/// How the threads are scheduled where the user may ask for it (root may): a host whose processors are all at work
/// would make probes wait for their turn, tens of milliseconds with two processors. `setpriority(2)`; less is sooner.
const NICE: i32 = -10;

/// A runtime for probes alone. Dropping it ends its tasks without waiting for them.
#[derive(Debug)]
pub(super) struct Apart(Option<Runtime>);

impl Apart {
    /// Threads of their own, or the caller's where the system gives none.
    pub(super) fn new() -> Apart {
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("probes")
            .on_thread_start(|| {
                // No process is named: on Linux that is the thread which asks. Without the right to it nothing changes.
                let _ = rustix::process::setpriority_process(None, NICE);
            })
            .enable_all()
            .build();
        Apart(runtime.ok())
    }

    /// While the guard lives, what is spawned runs here.
    pub(super) fn enter(&self) -> Option<EnterGuard<'_>> {
        self.0.as_ref().map(Runtime::enter)
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        // To wait for threads is forbidden in a task, and this is dropped in one.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
