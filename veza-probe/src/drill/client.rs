//! The client of a drill: watched until it is steady, while it is broken, and until it is served again.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;

use super::STEADY_LIMIT;
use crate::clock::{self, At, Clock, Stop, micros};
use crate::fault::Fault;
use crate::outage;
use crate::prober::{Connector, Lateness, Outcome, Prober, Sample, Shape};
use crate::report::{Event, Probes};
use crate::story::Story;

/// How long a control run is watched in which nothing is broken.
const CONTROL: Duration = Duration::from_secs(10);

/// How long the first failed probe is waited for after the fault: longer than any deadline.
const MUST_FAIL_BY: Duration = Duration::from_secs(15);

/// The client under watch: probes that write, and what was noted meanwhile.
pub struct Client {
    clock: Clock,
    story: Story,
    shape: Shape,
    settle: Duration,
    steady_from: u64,
    prober: Prober,
    events: Vec<Event>,
    /// What its probes are, for people.
    probes: &'static str,
}

/// What the client saw.
#[derive(Clone, Debug)]
pub struct ClientSaw {
    /// The shape of the probes.
    pub shape: Shape,
    /// A sample for every due instant.
    pub samples: Vec<Sample>,
    /// The number of the first sample that counts for outages: those before it are of a client that
    /// had not become steady.
    pub steady_from: u64,
    /// Why the samples end before their time.
    pub lost: Option<String>,
    /// How each host's connector fared.
    pub connectors: Vec<Connector>,
    /// What this tool noted.
    pub events: Vec<Event>,
}

impl Client {
    /// Takes over probes that were started, of this shape; service counts as back after `settle`.
    pub fn new(
        clock: &Clock,
        story: &Story,
        (prober, shape): (Prober, Shape),
        settle: Duration,
    ) -> Client {
        Client {
            clock: *clock,
            story: story.clone(),
            shape,
            settle,
            steady_from: 0,
            prober,
            events: Vec::new(),
            probes: "writes",
        }
    }

    /// Its probes are `reads`, and not writes.
    #[must_use]
    pub fn of(self, probes: &'static str) -> Client {
        Client { probes, ..self }
    }

    /// Watches before the fault, until probes have succeeded for `length`; `first_due` is when the first
    /// probe was due.
    ///
    /// # Errors
    /// What went wrong: the client did not become steady within [`STEADY_LIMIT`] beyond `length`.
    pub async fn warm_up(
        &mut self,
        first_due: At,
        length: Duration,
        stop: &mut Stop,
    ) -> Result<(), String> {
        self.story.doing("watching the client before the fault");
        let deadline = first_due.plus(length + STEADY_LIMIT);
        let mut steady_since = first_due;
        loop {
            tokio::select! {
                () = self.clock.sleep_until(steady_since.plus(length)) => {}
                _ = stop.wait() => break,
            }
            let failed = self.prober.inspect(|samples| {
                let failed = samples.iter().rfind(|s| !s.is_success())?;
                Some((failed.number, failed.end, format!("{:?}", failed.outcome)))
            });
            let Some((number, end, outcome)) = failed.filter(|f| f.0 >= self.steady_from) else {
                break;
            };
            self.steady_from = number + 1;
            steady_since = end;
            if steady_since.plus(length) > deadline {
                let words: Vec<String> = self.connector_errors();
                return Err(format!(
                    "the client was not steady for {} s before anything was broken: {outcome} ({})",
                    length.as_secs_f64(),
                    words.join("; ")
                ));
            }
            self.note("a probe failed before the client was steady: watching it for longer");
        }
        let steady_from = self.steady_from;
        let count = |samples: &[Sample]| samples.iter().filter(|s| s.number >= steady_from).count();
        let due = self.prober.inspect(count);
        if let Some(words) = self.lost() {
            return Err(words);
        }
        if due == 0 && stop.requested().is_none() {
            return Err("no probe was answered before the fault".to_owned());
        }
        let probes = self.probes;
        self.story
            .say(&format!("client {probes}: {due} probes, none failed"));
        Ok(())
    }

    fn connector_errors(&self) -> Vec<String> {
        let connectors = self.prober.connectors().into_iter();
        connectors
            .filter_map(|c| c.last_error.map(|e| format!("{}: {}", c.host, e.text)))
            .collect()
    }

    /// Why nothing more is known of the probes, where another process issues them.
    pub fn lost(&self) -> Option<String> {
        self.prober.lost().then(told_lost)
    }

    /// Notes something that this tool did, for story and time line.
    pub fn note(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.story.say(&what);
        self.events.push(Event {
            at: self.clock.at(),
            what,
            source: "this tool".to_owned(),
        });
    }

    /// Waits until writes succeed again and go on doing so, for at most `limit` after the fault, or until
    /// a signal. A control run is watched for a fixed time.
    pub async fn until_service_back(&mut self, fault: &Fault, limit: Duration, stop: &mut Stop) {
        if !fault.plan.kind.breaks() {
            // A control run promises that no probe fails: not one is left out of its judgement.
            self.steady_from = 0;
            return pause(CONTROL, stop).await;
        }
        let deadline = fault.called.plus(limit);
        let must_fail_by = fault.called.plus(MUST_FAIL_BY);
        let mut news = self.prober.subscribe();
        let mut told = false;
        loop {
            let (failed, back) = self.service(fault.called);
            if self.prober.lost() {
                return;
            }
            if failed && !told {
                self.story.say(&format!("client: {} fail", self.probes));
                told = true;
            }
            if failed && back.is_some() {
                self.story
                    .say(&format!("client: {} succeed again", self.probes));
                return;
            }
            let until = if failed {
                deadline
            } else {
                deadline.min(must_fail_by)
            };
            let waited = self.clock.at().us_since(fault.called) as f64 / 1e6;
            self.story.doing(&format!("{waited:.1} s after the fault"));
            tokio::select! {
                _ = news.changed() => {}
                () = self.clock.sleep_until(until) => return,
                _ = stop.wait() => return,
            }
        }
    }

    /// Watches until a moment, whatever probes come to, or until a signal.
    pub async fn watch_until(&self, until: At, doing: &str, stop: &mut Stop) {
        let left_s = until.us_since(self.clock.at()) as f64 / 1e6;
        self.story.doing(&format!("{doing}, for {left_s:.1} s"));
        tokio::select! {
            () = self.clock.sleep_until(until) => {}
            _ = stop.wait() => {}
        }
    }

    /// Whether a probe failed since a moment, and since when service is back.
    fn service(&self, since: At) -> (bool, Option<At>) {
        self.prober.inspect(|samples| {
            let failed = samples.iter().any(|s| s.end >= since && !s.is_success());
            (failed, outage::service_back(samples, since, self.settle))
        })
    }

    /// Waits until the system `is_whole` (asked at each of `news`), for at most `limit` after `since`, and
    /// then for the settle time: the return of a member may disturb the client, too. `told` is said then.
    pub async fn until_whole(
        &self,
        (since, limit): (At, Duration),
        mut news: watch::Receiver<u64>,
        is_whole: impl Fn() -> bool,
        told: &str,
        stop: &mut Stop,
    ) {
        // One more look after the limit, so that a missed limit is seen to be missed.
        let deadline = since.plus(limit + Duration::from_secs(2));
        loop {
            if is_whole() {
                self.story.say(told);
                return pause(self.settle, stop).await;
            }
            let waited = self.clock.at().us_since(since) as f64 / 1e6;
            self.story.doing(&format!(
                "{waited:.1} s after the heal: waiting for redundancy"
            ));
            tokio::select! {
                _ = news.changed() => {}
                () = self.clock.sleep_until(deadline) => return,
                _ = stop.wait() => return,
            }
        }
    }

    /// What it saw so far; nothing is stopped.
    pub fn so_far(&self) -> ClientSaw {
        ClientSaw {
            shape: self.shape,
            samples: self.prober.so_far().samples,
            steady_from: self.steady_from,
            lost: self.lost(),
            connectors: self.prober.connectors(),
            events: self.events.clone(),
        }
    }

    /// Stops probing.
    pub async fn finish(self) -> ClientSaw {
        let connectors = self.prober.connectors();
        let (samples, lost) = self.prober.finish_or_lose().await;
        ClientSaw {
            shape: self.shape,
            samples,
            steady_from: self.steady_from,
            lost: lost.then(told_lost),
            connectors,
            events: self.events,
        }
    }
}

async fn pause(length: Duration, stop: &mut Stop) {
    tokio::select! {
        () = clock::sleep(length) => {}
        _ = stop.wait() => {}
    }
}

fn told_lost() -> String {
    "the observer was lost: what the client saw since then is not known".to_owned()
}

impl ClientSaw {
    /// The samples that count for outages and phases.
    pub fn steady(&self) -> &[Sample] {
        self.steady_of(&self.samples)
    }

    /// Those of another prober that was started with this one, from the same moment on.
    pub fn steady_of<'a>(&self, samples: &'a [Sample]) -> &'a [Sample] {
        let from = samples.partition_point(|s| s.number < self.steady_from);
        samples.get(from..).unwrap_or_default()
    }

    /// Why the observer can't be believed, if it can't.
    pub fn blind(&self) -> Option<String> {
        let spacing = self.shape.spacing();
        match Lateness::of(self.steady()) {
            _ if self.lost.is_some() => self.lost.clone(),
            None => Some("no probe has an outcome".to_owned()),
            Some(lateness) if lateness.blind(spacing) => Some(format!(
                "1 probe in 100 was sent more than {:.1} ms late by our own fault, with {:.0} ms \
                 between probes: this host is too busy to measure",
                lateness.p99_us as f64 / 1e3,
                spacing.as_secs_f64() * 1e3
            )),
            Some(_) => None,
        }
    }

    /// The probes, counted; `action` is what one did. None when there were none.
    pub fn probes(&self, action: &str) -> Option<Probes> {
        let samples = self.steady();
        let lateness = Lateness::of(samples)?;
        let latency = outage::latency(samples);
        let mut failures = BTreeMap::new();
        for sample in samples {
            if let Outcome::Failure(failure) = &sample.outcome {
                *failures.entry(failure.kind.to_string()).or_insert(0) += 1;
            }
        }
        Some(Probes {
            action: action.to_owned(),
            spacing_us: micros(self.shape.spacing()),
            limit_us: micros(self.shape.limit()),
            due: samples.len(),
            succeeded: samples.iter().filter(|s| s.is_success()).count(),
            lateness_p50_us: lateness.p50_us,
            lateness_p99_us: lateness.p99_us,
            latency_p50_us: latency.map(|l| l.p50_us),
            latency_p99_us: latency.map(|l| l.p99_us),
            latency_max_us: latency.map(|l| l.max_us),
            failures,
        })
    }

    /// The last failed connection to each host, for people.
    pub fn failed_connections(&self) -> impl Iterator<Item = String> {
        self.connectors.iter().filter_map(|connector| {
            let error = connector.last_error.as_ref()?;
            Some(format!(
                "last failed connection to {}: {}",
                connector.host, error.text
            ))
        })
    }
}
