//! Probes that run in another process, seen here: its samples come in batches, with the moments of this
//! run's clock.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::{Connector, Prober, Sample, Store, watched};
use crate::clock::{At, Clock};

/// What became of probes since the last batch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// Samples that are finished, each sent once.
    pub samples: Vec<Sample>,
    /// How many probes were issued in all.
    pub issued: u64,
    /// How each host's connector fares now.
    pub connectors: Vec<Connector>,
    /// Whether no more will come.
    pub is_last: bool,
}

impl Batch {
    /// The same with every moment `us` microseconds later.
    #[must_use]
    pub fn moved(mut self, us: i64) -> Batch {
        let moved = |at: &mut At| at.0 = at.0.saturating_add(us);
        for sample in &mut self.samples {
            moved(&mut sample.due);
            moved(&mut sample.start);
            moved(&mut sample.end);
        }
        for connector in &mut self.connectors {
            connector.last_connected.iter_mut().for_each(moved);
            connector
                .last_error
                .iter_mut()
                .for_each(|e| moved(&mut e.at));
        }
        self
    }
}

/// Sends the samples of a [`Prober`] in batches.
#[derive(Debug, Default)]
pub struct Batches {
    /// Every number below was sent.
    complete: u64,
    /// Numbers above that were sent.
    sent: std::collections::BTreeSet<u64>,
}

impl Batches {
    /// What is new among `samples`, which are sorted by number.
    pub fn new_of(&mut self, samples: &[Sample]) -> Vec<Sample> {
        let from = samples.partition_point(|sample| sample.number < self.complete);
        let rest = samples.get(from..).unwrap_or_default().iter();
        let new: Vec<Sample> = rest
            .filter(|s| self.sent.insert(s.number))
            .cloned()
            .collect();
        while self.sent.remove(&self.complete) {
            self.complete += 1;
        }
        new
    }
}

impl Prober {
    /// Probes that another process issues. `finish` tells it to issue none that is due after now; the
    /// last batch must follow. When the batches end without a last one, the probes are lost: see
    /// [`Prober::lost`].
    pub fn fed(
        clock: Clock,
        names: impl Iterator<Item = String>,
        mut batches: mpsc::UnboundedReceiver<Batch>,
        finish: impl FnOnce() + Send + 'static,
    ) -> Prober {
        let store = Arc::new(Store::new(names));
        let (stop, mut stopped) = watch::channel(None);
        let kept = Arc::clone(&store);
        let feed = async move {
            let mut finish = Some(finish);
            loop {
                let batch = tokio::select! {
                    batch = batches.recv() => batch,
                    _ = stopped.wait_for(Option::is_some), if finish.is_some() => {
                        if let Some(finish) = finish.take() {
                            finish();
                        }
                        continue;
                    }
                };
                let Some(batch) = batch else {
                    kept.lose();
                    return;
                };
                let is_last = batch.is_last;
                kept.take_in(batch);
                if is_last {
                    return;
                }
            }
        };
        let mut dispatcher = JoinSet::new();
        dispatcher.spawn(watched(Arc::clone(&store), feed));
        Prober {
            clock,
            store,
            stop,
            dispatcher,
            connectors: JoinSet::new(),
            apart: None,
        }
    }

    /// How many probes were issued and have no outcome yet.
    pub(crate) fn in_flight(&self) -> u64 {
        let log = self.store.lock();
        log.issued.saturating_sub(log.samples.len() as u64)
    }

    /// Whether the process that issues the probes was lost: what the service did since then is not
    /// known. Never of probes of this process.
    pub fn lost(&self) -> bool {
        self.store.lock().lost
    }
}

impl Store {
    fn take_in(&self, batch: Batch) {
        {
            let mut log = self.lock();
            log.issued = batch.issued;
            log.connectors = batch.connectors;
        }
        for sample in batch.samples {
            self.record(sample);
        }
    }

    fn lose(&self) {
        self.lock().lost = true;
        // Whoever waits for samples looks, and is told.
        self.finished.send_modify(|_| {});
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::prober::Outcome;

    fn sample(number: u64) -> Sample {
        let due = At(i64::try_from(number).unwrap() * 20_000);
        Sample {
            number,
            due,
            start: due,
            end: due.plus(Duration::from_millis(1)),
            outcome: Outcome::Success,
        }
    }

    #[test]
    fn each_sample_is_sent_once_also_a_late_one() {
        let mut batches = Batches::default();
        let numbers = |samples: &[Sample]| samples.iter().map(|s| s.number).collect::<Vec<_>>();
        let some = [0, 1, 3, 4].map(sample);
        assert_eq!(numbers(&batches.new_of(&some)), [0, 1, 3, 4]);
        let more = [0, 1, 2, 3, 4, 6].map(sample);
        assert_eq!(numbers(&batches.new_of(&more)), [2, 6]);
        assert_eq!(batches.new_of(&more), []);
    }

    #[tokio::test]
    async fn samples_of_another_process_are_as_those_of_this_one() {
        let clock = Clock::start();
        let (sender, batches) = mpsc::unbounded_channel();
        let told = sender.clone();
        let finish = move || {
            let last = Batch {
                samples: vec![sample(1)],
                issued: 2,
                is_last: true,
                ..Batch::default()
            };
            told.send(last).unwrap();
        };
        let prober = Prober::fed(clock, ["a".to_owned()].into_iter(), batches, finish);
        let mut news = prober.subscribe();
        let first = Batch {
            samples: vec![sample(0)],
            issued: 2,
            ..Batch::default()
        };
        sender.send(first.moved(5)).unwrap();
        news.wait_for(|finished| *finished == 1).await.unwrap();
        let so_far = prober.so_far();
        assert_eq!((so_far.samples.len(), so_far.in_flight), (1, 1));
        assert_eq!(so_far.samples[0].due, At(5));
        assert!(!prober.lost());
        assert_eq!(prober.finish().await.len(), 2);
    }

    #[tokio::test]
    async fn batches_that_end_before_the_last_are_a_loss() {
        let (sender, batches) = mpsc::unbounded_channel::<Batch>();
        let prober = Prober::fed(Clock::start(), std::iter::empty(), batches, || {});
        let mut news = prober.subscribe();
        drop(sender);
        news.changed().await.unwrap();
        assert!(prober.lost());
        assert_eq!(prober.finish_or_lose().await, (vec![], true));
    }

    #[tokio::test]
    async fn a_loss_while_the_last_samples_are_waited_for_is_told_too() {
        let (sender, batches) = mpsc::unbounded_channel::<Batch>();
        // It ends instead of sending the last batch.
        let finish = move || drop(sender);
        let prober = Prober::fed(Clock::start(), std::iter::empty(), batches, finish);
        assert!(!prober.lost());
        assert_eq!(prober.finish_or_lose().await, (vec![], true));
    }
}
