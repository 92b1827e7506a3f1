//! Judges what was seen. Pure: no Incus, no clock, no I/O; every gate is tested at, below and above its limit.

mod healing;

use veza_probe::clock::{At, micros};
use veza_probe::drill::SoFar;
use veza_probe::outage::{self, Interval};
use veza_probe::verdict::{Experiment, Gate, Judgement, Measured, Outcome, Verdict, of_gates};

use crate::baseline::promise::Promise;
use crate::cli::Args;
use crate::observation::cluster::{Look, Record, Seen as Node};
use crate::observation::{Observation, refusals::REFUSAL_LIMIT, refusals::Tried};
use crate::targets::http::Health;
use healing::{Healing, NOTHING_TO_HEAL};

/// The promises of an act.
#[derive(Clone, Copy, Debug)]
pub struct Promises {
    /// The longest that reads may fail, in seconds.
    pub read_outage_s: f64,
    /// The longest until every node reads and writes after the heal, in seconds.
    pub service_s: f64,
    /// The longest until redundancy is back after the heal, in seconds.
    pub redundancy_s: f64,
}

/// What an act saw, as far as it came.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// What it came to as an experiment.
    pub experiment: Experiment,
    /// What the configuration promises meanwhile; none before that is known.
    pub promise: Option<Promise>,
    /// Whether what the configuration promises of writes was tried.
    pub writes_tried: bool,
    /// The longest that reads failed, in seconds: where none did, what could hide between two.
    pub read_outage_s: Option<Measured>,
    /// Whether any read of the client failed.
    pub reads_failed: bool,
    /// Reads that failed after service was back.
    pub failed_reads: Option<u64>,
    /// Why the act was not played to its end.
    pub cut: Option<String>,
    /// Objects whose bytes are not those that were written.
    pub wrong: Vec<String>,
    /// Objects that were said not to be there.
    pub denied: Vec<String>,
    /// Objects that somebody else wrote.
    pub changed: Vec<String>,
    /// Readings of objects that came to nothing while nodes were away; none when it was not tried.
    pub unread: Option<u64>,
    /// Readings that were right although no read is promised.
    pub read_without: u64,
    /// Readings that came to nothing after the return; none when it was not tried.
    pub unread_after: Option<u64>,
    /// The slowest refusal of a write, in seconds.
    pub refusal_s: Option<f64>,
    /// Writes that were taken without quorum.
    pub taken: Option<u64>,
    /// Writes that were refused in other words than that there is no quorum now.
    pub odd_refusals: Option<u64>,
    /// Refused writes of which something is there.
    pub phantoms: Option<u64>,
    /// Answers of health endpoints that were not those that the configuration promises.
    pub odd_health: Option<u64>,
    /// From the heal until every node reads and writes, in seconds.
    pub service_s: Option<Measured>,
    /// From the heal until the cluster is whole, in seconds.
    pub redundancy_s: Option<Measured>,
    /// What was seen of healing.
    pub healing: Healing,
}

/// What an act was promised by its arguments.
pub fn promises(args: &Args) -> Promises {
    Promises {
        read_outage_s: args.read_outage_max().as_secs_f64(),
        service_s: args.service_target.as_secs_f64(),
        redundancy_s: args.heal_target.as_secs_f64(),
    }
}

/// What an act saw, as far as it came.
pub fn seen(args: &Args, so_far: &SoFar<'_, Args>) -> Seen {
    let client = so_far.observation.map(|observation| &observation.client);
    let baseline = &so_far.found.baseline;
    let mut seen = Seen {
        experiment: so_far.experiment(args, client),
        promise: Some(baseline.promise),
        ..Seen::default()
    };
    let (Some(observation), Some(fault)) = (so_far.observation, so_far.fault) else {
        return seen;
    };
    seen.read(args, observation, fault.called);
    seen.wrote(observation);
    seen.healing = Healing::of(args.course.act, &observation.seen.healing);
    if let Some(evidence) = &fault.evidence
        && !args.s3_only
    {
        let until = so_far.healing_began().unwrap_or(At(i64::MAX));
        seen.odd_health = odd_health(&observation.record, baseline.promise, (evidence.at, until));
    }
    if let Some(healed) = so_far.healing_began() {
        let record = &observation.record;
        seen.service_s = measured(record, healed, Look::serves);
        seen.redundancy_s = measured(record, healed, |look| look.whole());
    }
    seen
}

impl Seen {
    /// Takes over what was read.
    fn read(&mut self, args: &Args, observation: &Observation, called: At) {
        let names = |list: &[crate::observation::objects::Reading]| {
            list.iter().map(ToString::to_string).collect()
        };
        self.wrong = names(&observation.written.wrong);
        self.denied = names(&observation.written.denied);
        self.changed = names(&observation.written.changed);
        self.cut.clone_from(&observation.seen.cut);
        let count = |list: &Option<Vec<_>>| list.as_ref().map(|list: &Vec<_>| list.len() as u64);
        self.unread = count(&observation.seen.unread);
        self.unread_after = count(&observation.seen.unread_after);
        let failed = self.unread.unwrap_or(0);
        self.read_without = (observation.seen.read_away as u64).saturating_sub(failed);
        let samples = observation.client.steady();
        let outages = outage::outages(samples);
        self.reads_failed = !outages.is_empty();
        let longest = outage::client_outage(&outages, args.drill.settle);
        let hidden_us = micros(outage::detectable(&observation.client.shape));
        let none = Interval::new(0, Some(hidden_us));
        self.read_outage_s = (!samples.is_empty()).then(|| longest.unwrap_or(none).into());
        // The first stretch of failures after the fault is the outage; what fails after it is told apart.
        let back = outage::first_back(samples, called, args.drill.settle);
        // The last reading of everything is a load of its own.
        let until = observation.seen.read_after_from.unwrap_or(At(i64::MAX));
        self.failed_reads = back.map(|back| {
            let due = |due: At| back <= due && due < until;
            let late = samples.iter().filter(|s| due(s.due) && !s.is_success());
            late.count() as u64
        });
    }

    /// Takes over what came of writes without quorum.
    fn wrote(&mut self, observation: &Observation) {
        let tried = &observation.seen.tried;
        self.writes_tried = !tried.is_empty();
        if tried.is_empty() {
            return;
        }
        let count = |is: fn(&Tried) -> bool| tried.iter().filter(|tried| is(tried)).count() as u64;
        self.taken = Some(count(|tried| tried.refused.is_none()));
        self.odd_refusals = Some(count(|tried| {
            tried.refused.is_some() && !tried.is_refused_rightly()
        }));
        self.refusal_s = tried.iter().map(Tried::took_s).reduce(f64::max);
        let phantoms = observation.seen.phantoms.as_ref();
        self.phantoms = phantoms.map(|found| found.len() as u64);
    }
}

/// How many health endpoints of nodes that stay up said, between two moments, other than what is promised: `cluster` is about
/// writes, `cluster/read` about reads. The last answer of each counts, as a node needs time to notice, and MinIO may take longer for an
/// answer than a look waits (`api cluster_deadline`, 10 s): one that never answered is odd, too. None when nobody looked.
fn odd_health(record: &Record, promise: Promise, (from, until): (At, At)) -> Option<u64> {
    let within = |look: &&Look| look.asked >= from && look.answered <= until;
    let looks: Vec<&Look> = record.looks.iter().filter(within).collect();
    let last = looks.last()?;
    let living = last.nodes.iter().filter(|node| node.lives);
    let ends: [(End, bool); 2] = [
        (|node| &node.cluster, promise.writes),
        (|node| &node.read, promise.reads),
    ];
    let odd = living.flat_map(|node| ends.map(|(end, is)| (&node.name, end, is)));
    let odd = odd.filter(|(name, end, is)| {
        let nodes = looks.iter().rev().flat_map(|look| &look.nodes);
        let mut said = nodes
            .filter(|node| node.name == **name)
            .filter_map(|node| end(node).as_ref().ok());
        said.next()
            .is_none_or(|health| health.code != if *is { 200 } else { 503 })
    });
    Some(odd.count() as u64)
}

/// What a health endpoint came to.
type Said = Result<Health, String>;

/// One of a node's two health endpoints.
type End = fn(&Node) -> &Said;

/// From a moment until something held for good; none when it was not looked at since.
fn measured(record: &Record, since: At, is_so: impl Fn(&Look) -> bool) -> Option<Measured> {
    let (not, held) = record.since(since, is_so);
    let lower_us = not.map_or(0, |at| at.us_since(since));
    let upper_us = held.map(|at| at.us_since(since));
    let span = Interval::new(lower_us, upper_us);
    (not.is_some() || held.is_some()).then(|| span.into())
}

const RUNBOOK: &str = "see docs/runbooks/minio-resilience.md";

/// The gates of an act.
pub fn gates(seen: &Seen, promises: &Promises) -> Vec<Gate> {
    let healing = seen.healing.gates(promises.redundancy_s);
    if seen.experiment.control_run {
        let untouched = std::iter::once(seen.experiment.no_outage());
        return untouched.chain(healing).collect();
    }
    let promise = seen.promise.unwrap_or(Promise {
        reads: true,
        writes: true,
    });
    let mut gates = reading(seen, promises, promise);
    gates.extend(refusing(seen, promise));
    if seen.odd_health.is_some() {
        let title = "health endpoints that said other than what the configuration promises";
        gates.push(none("health", title, "answers", seen.odd_health));
    }
    let (limit_s, took) = (promises.service_s, seen.service_s);
    let title = "time until every node read and wrote after the heal";
    gates.push(Gate::at_most("service", title, limit_s, "s", took));
    let (limit_s, took) = (promises.redundancy_s, seen.redundancy_s);
    let title = "time until every drive was online and nothing was healing after the heal";
    gates.push(Gate::at_most("redundancy", title, limit_s, "s", took));
    let title = "objects that could not be read through every node after the return";
    gates.push(none("unread-after", title, "readings", seen.unread_after));
    gates.extend(healing);
    gates
}

/// What must not happen once.
fn none(id: &str, title: &str, unit: &str, count: Option<u64>) -> Gate {
    let count = count.map(|count| Measured::exact(count as f64));
    Gate::at_most(id, title, 0.0, unit, count)
}

/// What is promised of reads.
fn reading(seen: &Seen, promises: &Promises, promise: Promise) -> Vec<Gate> {
    let mut gates = Vec::new();
    if promise.reads {
        let (limit_s, outage) = (promises.read_outage_s, seen.read_outage_s);
        let title = "time in which a client of the nodes that stayed up could not read";
        gates.push(Gate::at_most("read-outage", title, limit_s, "s", outage));
        let title = "reads that failed after service was back";
        gates.push(none("failed-reads", title, "reads", seen.failed_reads));
        let title = "objects that could not be read without the lost nodes";
        gates.push(none("unread", title, "readings", seen.unread));
        // An error is tried again; what is said not to be there is taken for deleted.
        let denied = Some(seen.denied.len() as u64).filter(|_| seen.unread.is_some());
        let title = "objects that are there and were said not to be";
        gates.push(none("denied", title, "objects", denied));
    } else {
        let served = seen.unread.map(|_| seen.read_without);
        let title = "objects that were served without read quorum";
        gates.push(none("served", title, "readings", served));
    }
    let wrong = Some(seen.wrong.len() as u64).filter(|_| seen.unread.is_some());
    let title = "objects with other bytes than were written";
    gates.push(none("wrong-bytes", title, "objects", wrong));
    gates
}

/// What is promised of writes without their quorum.
fn refusing(seen: &Seen, promise: Promise) -> Vec<Gate> {
    if promise.writes || (seen.odd_health.is_none() && !seen.writes_tried) {
        return Vec::new();
    }
    let (limit_s, took) = (
        REFUSAL_LIMIT.as_secs_f64(),
        seen.refusal_s.map(Measured::exact),
    );
    let title = "the longest that a write took to be refused";
    let refusal = Gate::at_most("refusal", title, limit_s, "s", took);
    let title = "writes that were taken without quorum";
    let taken = none("taken-writes", title, "writes", seen.taken);
    let title = "writes refused with another error than 503";
    let odd = none("odd-refusals", title, "writes", seen.odd_refusals);
    let title = "refused writes of which something is there";
    let phantoms = none("phantoms", title, "writes", seen.phantoms);
    // Without read quorum nothing is promised, not even an answer: MinIO was seen to give none within 20 s.
    match promise.reads {
        true => vec![refusal, taken, odd, phantoms],
        false => vec![taken, phantoms],
    }
}

/// The verdict on an act. What proves nothing is never a pass.
pub fn judge(seen: &Seen, gates: &[Gate]) -> Judgement {
    let inconclusive = |reason_id: &str, reason: String| {
        Judgement::new(Verdict::Inconclusive, reason_id, reason, RUNBOOK)
    };
    // What was written when it was cut short is not known, so it can't be told from what is wrong, either.
    if let Some(words) = &seen.cut {
        // What clients saw of the fault was seen all the same.
        let is_missed = |gate: &&Gate| gate.id == "read-outage" && gate.outcome == Outcome::Missed;
        let is_proven = seen.experiment.evidence && seen.experiment.blind.is_none();
        if let Some(gate) = gates.iter().find(is_missed).filter(|_| is_proven) {
            let reason = format!("{}; {words}", gate.told());
            return Judgement::new(Verdict::Fail, "read-outage-missed", reason, RUNBOOK);
        }
        return inconclusive("cut-short", words.clone());
    }
    // Wrong bytes are wrong whatever else happened; nobody needs evidence of a fault for that.
    if let Some(first) = seen.wrong.first() {
        let count = seen.wrong.len();
        let reason =
            format!("{count} objects have other bytes than were written, the first: {first}");
        return Judgement::new(Verdict::Fail, "wrong-bytes-missed", reason, RUNBOOK);
    }
    if let Some(first) = seen.changed.first() {
        let count = seen.changed.len();
        let reason = format!("{count} objects were changed meanwhile, the first: {first}");
        return inconclusive("changed-by-others", reason);
    }
    let experiment = &seen.experiment;
    if let Some(blind) = &experiment.blind {
        return inconclusive("observer-blind", blind.clone());
    }
    // That nothing lacked anything says nothing of healing; what was broken all the same is broken. A node that was away
    // can't have had what was written meanwhile: there it was healed before the first look.
    let was_behind = experiment.evidence && seen.healing.written > 0;
    let (vacuous, nothing) = match seen.healing.says_nothing() {
        Some((NOTHING_TO_HEAL, _)) if was_behind => (None, None),
        Some((NOTHING_TO_HEAL, reason)) => (Some(reason), None),
        other => (None, other),
    };
    if let Some((reason_id, reason)) = nothing {
        return inconclusive(reason_id, reason);
    }
    let judgement = if experiment.control_run {
        match seen.healing.how.as_str() {
            "" => experiment.judge(gates, String::new, RUNBOOK),
            how => of_gates(gates, || how.to_owned(), RUNBOOK),
        }
    } else if !experiment.evidence {
        let (target, trouble) = (&experiment.target, experiment.trouble.as_deref());
        let trouble = trouble.unwrap_or("it went on answering, or nobody else did");
        inconclusive(
            "no-evidence",
            format!("no evidence that {target} was broken: {trouble}"),
        )
    } else {
        of_gates(gates, || held(seen), RUNBOOK)
    };
    match vacuous.filter(|_| judgement.verdict == Verdict::Pass) {
        Some(reason) => inconclusive(NOTHING_TO_HEAL, reason),
        None => judgement,
    }
}

/// What held, in a sentence.
fn held(seen: &Seen) -> String {
    let target = &seen.experiment.target;
    let seconds = |measured: Option<Measured>| {
        measured.map_or_else(|| "not measured".to_owned(), |m| m.told("s"))
    };
    let back = seconds(seen.redundancy_s);
    let promise = seen.promise.unwrap_or(Promise {
        reads: true,
        writes: true,
    });
    let meanwhile = match (promise.reads, promise.writes) {
        (true, true) => "every object was read right".to_owned(),
        (true, false) => {
            let reads = match seen.reads_failed {
                true => format!("reads failed for {}", seconds(seen.read_outage_s)),
                false => "no read failed".to_owned(),
            };
            format!("{reads}, every object was read right, writes were refused")
        }
        (false, _) => "nothing was served, and nothing was corrupted".to_owned(),
    };
    let healing = match seen.healing.how.as_str() {
        "" => String::new(),
        how => format!("; {how}"),
    };
    format!("{target} lost: {meanwhile}{healing}; whole again {back} after the heal")
}

#[cfg(test)]
mod tests;
