//! What a client and the monitor see, from before the fault until redundancy is back.

pub mod follower;
pub mod heartbeat;
pub mod rivals;
pub mod phases;

use std::collections::BTreeSet;
use std::time::Duration;

use veza_probe::clock::{self, At, Clock, Signal, Stop};
use veza_probe::fault::Fault;
use veza_probe::incus::Incus;
use veza_probe::ledger::{self, Attempt, Ledger};
use veza_probe::outage;
use veza_probe::outpost::Outpost;
use veza_probe::postgres;
use veza_probe::prober::{Connector, Prober, Sample, Shape};
use veza_probe::report::{Event, Untouched};
use veza_probe::story::Story;
use veza_probe::undo::Chore;

use crate::baseline::client::postmaster_started;
use crate::baseline::{Baseline, refused};
use crate::cli::{self, Args};
use crate::fault::STEADY_LIMIT;
use crate::targets::{self, Targets};
use follower::{Follower, Record};
use heartbeat::{Heartbeat, NodeClient};
use rivals::{Asker, Rivals};

/// How long a control run is watched in which nothing is broken.
const CONTROL: Duration = Duration::from_secs(10);

/// Connections are made for this long before the first probe is due.
const CONNECT_FIRST: Duration = Duration::from_millis(500);

/// How long the first failed probe is waited for after the fault: longer than any deadline.
const MUST_FAIL_BY: Duration = Duration::from_secs(15);

/// The observation under way.
pub struct Watch {
    clock: Clock,
    story: Story,
    shape: Shape,
    settle: Duration,
    steady_from: u64,
    prober: Prober,
    /// Beside a pooler: the nodes, asked whether they would take a write.
    direct: Option<Prober>,
    follower: Follower,
    heartbeat: Heartbeat,
    rivals: Option<Rivals>,
    events: Vec<Event>,
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// What was waited for is there.
    There,
    /// The limit passed first.
    Limit,
    /// A signal asked to stop.
    Signal(Signal),
}

/// Everything that was seen.
pub struct Observation {
    /// The shape of the probes.
    pub shape: Shape,
    /// What a probe did.
    pub action: String,
    /// A sample for every due instant.
    pub samples: Vec<Sample>,
    /// The number of the first sample that counts for outages: those before it are of a client that
    /// had not become steady.
    pub steady_from: u64,
    /// Where clients go through a pooler: samples of the nodes, asked whether they would take a write.
    pub direct: Vec<Sample>,
    /// Why the samples end before their time.
    pub lost: Option<String>,
    /// How each host's connector fared.
    pub connectors: Vec<Connector>,
    /// What the monitor said.
    pub record: Record,
    /// What each node answered when it was asked to take a write; empty when none was.
    pub rivals: Vec<Asker>,
    /// What became of the writes; none when there were none, or not yet, or they can't be read.
    pub ledger: Option<Ledger>,
    /// How many writes that some node acknowledged when it was asked are not there at the end.
    pub rivals_lost: Option<usize>,
    /// What else happened.
    pub events: Vec<Event>,
    /// What else a person should know: what could not be read or cleaned up, and whether the old
    /// primary's postmaster is another one now.
    pub leftovers: Vec<String>,
}

/// Makes the heartbeat's table in `schema` (none: probes don't write), starts the probes and the
/// monitor's follower, and watches for the warm-up.
///
/// # Errors
/// Refused when the table can't be made, or when a probe failed before anything was broken; nothing
/// is left behind then.
pub async fn start(
    clock: &Clock,
    (targets, baseline, schema): (&Targets, &Baseline, Option<&str>),
    args: &Args,
    story: &Story,
    stop: &mut Stop,
) -> Result<Watch, Untouched> {
    let shape = args.shape().map_err(cli::usage)?;
    let heartbeat = Heartbeat::make(baseline, schema).await?;
    let limit = shape.connect_limit();
    let client = |(at, table): (&postgres::Target, Option<String>)| NodeClient {
        at: at.clone(),
        access: baseline.client.clone(),
        table,
        limit,
        pooled: false,
    };
    let nodes = |table: Option<String>| -> Vec<NodeClient> {
        let hosts = baseline.client_hosts.iter();
        hosts.map(|at| client((at, table.clone()))).collect()
    };
    let first_due = clock.at().plus(CONNECT_FIRST);
    let probe = |hosts: Vec<NodeClient>| match &targets.outpost {
        None => Ok(Prober::start(*clock, shape, hosts, first_due)),
        Some(outpost) => {
            let carried = heartbeat::pack(hosts)?;
            Ok::<_, Untouched>(outpost.probe(*clock, carried, shape, first_due))
        }
    };
    let (prober, direct) = match &targets.pooler {
        None => (probe(nodes(heartbeat.table()))?, None),
        Some((access, at)) => {
            let through = NodeClient {
                access: access.clone(),
                pooled: true,
                ..client((at, heartbeat.table()))
            };
            // Only asked, so that every row of the table came through the pooler.
            (probe(vec![through])?, Some(probe(nodes(None))?))
        }
    };
    let follower = Follower::start(*clock, story.clone(), &baseline.monitor);
    let rivals = heartbeat.rivals();
    let rivals = rivals.map(|table| Rivals::start(*clock, baseline, table));
    let mut watch = Watch {
        clock: *clock,
        story: story.clone(),
        shape,
        settle: args.settle,
        steady_from: 0,
        prober,
        direct,
        follower,
        heartbeat,
        rivals,
        events: Vec::new(),
    };
    let warm = watch.warm_up(first_due, args.warm_up, stop).await;
    if let Some(words) = warm {
        let leftovers = watch.finish(baseline).await.leftovers;
        let mut untouched = refused("client-unsteady", words);
        untouched.judgement.reason.push_str(&leftovers.join("; "));
        return Err(untouched);
    }
    Ok(watch)
}

impl Observation {
    /// The samples that count for outages and phases.
    pub fn steady(&self) -> &[Sample] {
        self.steady_of(&self.samples)
    }

    /// Those of the nodes beside a pooler, from the same moment on.
    pub fn steady_direct(&self) -> &[Sample] {
        self.steady_of(&self.direct)
    }

    fn steady_of<'a>(&self, samples: &'a [Sample]) -> &'a [Sample] {
        let from = samples.partition_point(|s| s.number < self.steady_from);
        samples.get(from..).unwrap_or_default()
    }
}

impl Watch {
    /// Watches before the fault; says what went wrong, if something did.
    async fn warm_up(
        &mut self,
        first_due: At,
        length: Duration,
        stop: &mut Stop,
    ) -> Option<String> {
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
                return Some(format!(
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
            return Some(words);
        }
        if due == 0 && stop.requested().is_none() {
            return Some("no probe was answered before the fault".to_owned());
        }
        self.story
            .say(&format!("client writes: {due} probes, none failed"));
        None
    }

    /// Why nothing more is known of the probes, where another process issues them.
    pub fn lost(&self) -> Option<String> {
        self.prober.lost().then(told_lost)
    }

    fn connector_errors(&self) -> Vec<String> {
        let connectors = self.prober.connectors().into_iter();
        connectors
            .filter_map(|c| c.last_error.map(|e| format!("{}: {}", c.host, e.text)))
            .collect()
    }

    /// Notes something that this tool did, for the time line.
    pub fn note(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.story.say(&what);
        self.events.push(Event {
            at: self.clock.at(),
            what,
            source: "this tool".to_owned(),
        });
    }

    /// A node that the network does not reach any more is asked from inside its instance.
    pub fn cut_off(&mut self, incus: &Incus, baseline: &Baseline) {
        if let Some(rivals) = &mut self.rivals {
            rivals.ask_inside(incus, baseline.primary(), baseline);
        }
    }

    /// The network reaches every node again.
    pub fn joined(&mut self) {
        if let Some(rivals) = &mut self.rivals {
            rivals.ask_outside();
        }
    }

    /// Waits until clients succeed again and go on doing so, for at most `limit` after the fault. A
    /// control run is watched for a fixed time.
    pub async fn until_service_back(
        &mut self,
        fault: &Fault,
        limit: Duration,
        stop: &mut Stop,
    ) -> Ended {
        if !fault.plan.kind.breaks() {
            // A control run promises that no probe fails: not one is left out of its judgement.
            self.steady_from = 0;
            return self.pause(CONTROL, stop).await;
        }
        let deadline = fault.called.plus(limit);
        let must_fail_by = fault.called.plus(MUST_FAIL_BY);
        let mut news = self.prober.subscribe();
        let mut told = false;
        loop {
            let (failed, back) = self.service(fault.called);
            if self.prober.lost() {
                return Ended::Limit;
            }
            if failed && !told {
                self.story.say("client: writes fail");
                told = true;
            }
            if failed && back.is_some() {
                self.story.say("client: writes succeed again");
                return Ended::There;
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
                () = self.clock.sleep_until(until) => return Ended::Limit,
                signal = stop.wait() => return Ended::Signal(signal),
            }
        }
    }

    /// Whether a probe failed since a moment, and since when service is back.
    fn service(&self, since: At) -> (bool, Option<At>) {
        self.prober.inspect(|samples| {
            let failed = samples.iter().any(|s| s.end >= since && !s.is_success());
            (failed, outage::service_back(samples, since, self.settle))
        })
    }

    async fn pause(&self, length: Duration, stop: &mut Stop) -> Ended {
        tokio::select! {
            () = clock::sleep(length) => Ended::There,
            signal = stop.wait() => Ended::Signal(signal),
        }
    }

    /// Waits until the monitor calls the formation whole again, for at most `limit` after `since`, and
    /// then for the settle time: the return of a node may disturb the client, too.
    pub async fn until_redundant(&mut self, since: At, limit: Duration, stop: &mut Stop) -> Ended {
        // One more look after the limit, so that a missed limit is seen to be missed.
        let deadline = since.plus(limit + Duration::from_secs(2));
        let mut news = self.follower.subscribe();
        loop {
            if self
                .follower
                .inspect(|record| record.whole_again(since).1.is_some())
            {
                self.story.say("formation is whole again");
                return self.pause(self.settle, stop).await;
            }
            let waited = self.clock.at().us_since(since) as f64 / 1e6;
            self.story.doing(&format!(
                "{waited:.1} s after the heal: waiting for redundancy"
            ));
            tokio::select! {
                _ = news.changed() => {}
                () = self.clock.sleep_until(deadline) => return Ended::Limit,
                signal = stop.wait() => return Ended::Signal(signal),
            }
        }
    }

    /// What was seen so far, for a provisional verdict; nothing is stopped.
    pub fn so_far(&self) -> Observation {
        Observation {
            shape: self.shape,
            action: self.heartbeat.action(),
            samples: self.prober.so_far().samples,
            steady_from: self.steady_from,
            direct: self
                .direct
                .as_ref()
                .map(|d| d.so_far().samples)
                .unwrap_or_default(),
            lost: self.lost(),
            connectors: self.prober.connectors(),
            record: self.follower.inspect(Record::clone),
            rivals: self.rivals.as_ref().map(Rivals::so_far).unwrap_or_default(),
            ledger: None,
            rivals_lost: None,
            events: self.events.clone(),
            leftovers: Vec::new(),
        }
    }

    /// Stops probing and following, reads what became of the writes, and takes the heartbeat's table
    /// away.
    pub async fn finish(self, baseline: &Baseline) -> Observation {
        let connectors = self.prober.connectors();
        let (samples, lost) = self.prober.finish_or_lose().await;
        let lost = lost.then(told_lost);
        let direct = match self.direct {
            Some(direct) => direct.finish().await,
            None => Vec::new(),
        };
        let record = self.follower.finish();
        let rivals = match self.rivals {
            Some(rivals) => rivals.finish().await,
            None => Vec::new(),
        };
        let action = self.heartbeat.action();
        let mut leftovers = Vec::new();
        let ledger = match reconciled(&self.heartbeat, baseline, &samples).await {
            Ok(ledger) => ledger,
            Err(words) => {
                leftovers.push(format!("the rows could not be read: {words}"));
                None
            }
        };
        leftovers.extend(restart_told(baseline).await);
        let rivals_lost = rivals_lost(&self.heartbeat, baseline, &rivals).await;
        leftovers.extend(self.heartbeat.remove(baseline).await);
        Observation {
            shape: self.shape,
            action,
            samples,
            steady_from: self.steady_from,
            direct,
            lost,
            connectors,
            record,
            rivals,
            ledger,
            rivals_lost,
            events: self.events,
            leftovers,
        }
    }
}

fn told_lost() -> String {
    "the observer was lost: what the client saw since then is not known".to_owned()
}

/// Compares what the client was told with the rows that are there.
async fn reconciled(
    heartbeat: &Heartbeat,
    baseline: &Baseline,
    samples: &[Sample],
) -> Result<Option<Ledger>, String> {
    let Some(table) = heartbeat.table() else {
        return Ok(None);
    };
    let rows = heartbeat.rows(baseline, &table).await?;
    let attempts: Vec<Attempt> = samples.iter().map(Attempt::from).collect();
    Ok(Some(ledger::reconcile(&attempts, &rows)))
}

/// Whether the old primary's postmaster was started anew; none when it lets no client in yet.
async fn restart_told(baseline: &Baseline) -> Option<String> {
    let (old, access) = (baseline.primary(), &baseline.client);
    let limit = Duration::from_secs(2);
    let session = postgres::connect(&old.at, &access.login, &access.tls, limit).await;
    let started = postmaster_started(&session.ok()?).await.ok()?;
    let name = &old.node.name;
    Some(if started == old.postmaster_started_us {
        format!("{name} has the same postmaster as before")
    } else {
        format!("{name} has a new postmaster")
    })
}

/// How many rows that a node acknowledged when it was asked are not there: they were taken by a node
/// that had lost its role.
async fn rivals_lost(
    heartbeat: &Heartbeat,
    baseline: &Baseline,
    rivals: &[Asker],
) -> Option<usize> {
    let rows = heartbeat.rows(baseline, &heartbeat.rivals()?).await.ok()?;
    let rows: BTreeSet<u64> = rows.into_iter().collect();
    let took = rivals.iter().flat_map(|asker| &asker.took);
    Some(took.filter(|number| !rows.contains(number)).count())
}

/// Does a chore that an earlier run left, as its watchdog or a later run of the same program.
///
/// # Errors
/// What stood in the way.
pub async fn chore(args: &Args, chore: &Chore) -> Result<String, String> {
    // Alive until the chore is done.
    let mut outpost = None;
    if let Some(instance) = heartbeat::observer(chore) {
        let (incus, _) = targets::incus_only(args)
            .await
            .map_err(|untouched| untouched.judgement.reason)?;
        let opened = Outpost::open(&incus, &Clock::start(), &instance).await;
        outpost = Some(opened.map_err(|error| error.to_string())?);
    }
    let way = outpost.as_ref().map(Outpost::way).unwrap_or_default();
    heartbeat::do_chore(chore, &way, |hosts, dbname| {
        let access = match &args.formation_conninfo {
            Some(conninfo) => targets::access(conninfo.clone(), "PGAF_FORMATION"),
            None => targets::access_to_nodes(hosts, dbname),
        };
        access.map_err(|untouched| untouched.judgement.reason)
    })
    .await
}

/// Makes the old primary primary again, by the monitor's own switchover; returns how long that took,
/// in seconds, until the formation was whole.
///
/// # Errors
/// What the monitor said, or that the formation was not whole in time.
pub async fn switch_back(
    clock: &Clock,
    baseline: &Baseline,
    limit: Duration,
) -> Result<f64, String> {
    let old = baseline.primary();
    let began = clock.at();
    baseline
        .monitor
        .promote(&old.node.name)
        .await
        .map_err(|e| e.to_string())?;
    let deadline = began.plus(limit);
    loop {
        let nodes = baseline.monitor.nodes().await.map_err(|e| e.to_string())?;
        let whole = crate::baseline::formation::whole(&nodes).map(|primary| primary.id);
        let missing = match whole {
            Ok(primary) if primary == old.node.id => {
                return Ok(clock.at().us_since(began) as f64 / 1e6);
            }
            Ok(_) => "another node is still primary".to_owned(),
            Err(missing) => missing,
        };
        if clock.at() >= deadline {
            return Err(format!("after {:.0} s: {missing}", limit.as_secs_f64()));
        }
        clock::sleep(Duration::from_millis(250)).await;
    }
}
