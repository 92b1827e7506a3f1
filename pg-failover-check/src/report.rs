//! Puts the report together. Everything in it was measured elsewhere.

pub mod keep;

use std::collections::BTreeMap;

use veza_probe::clock::{At, Clock, micros};
use veza_probe::fault::{Fault, Healed, Kind, Plan};
use veza_probe::outage::{self, Between, Phase};
use veza_probe::prober::{Lateness, Outcome};
use veza_probe::report::{Event, GateOff, Probes, Report, Untouched, probe_runs};
use veza_probe::tenure::{self, Fenced};
use veza_probe::undo::{Bug, End, Found, Recovered};
use veza_probe::verdict::{Gate, Judgement, Verdict};

use crate::baseline::formation::{self, Node};
use crate::baseline::{Baseline, Member};
use crate::cli::{Args, CHECK};
use crate::fault::system;
use crate::observation::{Observation, phases};
use crate::targets::Targets;
use crate::verdict::{WRITE_GATES, tenures};

/// What a run has gathered when its report is due.
pub struct Gathered<'a> {
    /// Whom it was about.
    pub targets: &'a Targets,
    /// What was found before.
    pub baseline: &'a Baseline,
    /// What was to be broken.
    pub plan: &'a Plan,
    /// What was broken.
    pub fault: Option<&'a Fault>,
    /// What healing did.
    pub healed: Option<&'a Healed>,
    /// What was seen.
    pub observation: Option<&'a Observation>,
    /// The gates.
    pub gates: Vec<Gate>,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// The report of a run that ended before anything was touched.
pub fn untouched(clock: &Clock, args: &Args, untouched: Untouched) -> Report {
    let mut report = Report::new(CHECK, clock, &untouched.judgement);
    report.system = system(args);
    report.condition("version", env!("CARGO_PKG_VERSION"));
    report.tables = untouched.tables;
    report.feasibility = untouched.feasibility;
    report.notes.push("nothing was touched".to_owned());
    report
}

/// What something that is not there comes to.
pub fn missing(reason_id: &str, reason: String, next: &str) -> Judgement {
    Judgement::new(Verdict::MissingTool, reason_id, reason, next)
}

/// What a dry run came to.
pub fn planned(plan: &Plan) -> Judgement {
    let reason = format!(
        "would break this: {}; for at most {} s, and undo it: {}",
        plan.told(),
        plan.ttl_s,
        plan.undo.told()
    );
    Judgement::new(
        Verdict::Planned,
        "dry-run",
        reason,
        "the same command without --dry-run",
    )
}

/// What a person does when a fault may still be in place, in commands that find this project.
pub fn look_now(args: &Args) -> String {
    let remote = args.remote.as_ref().map(|name| format!(" {name}:"));
    format!(
        "look now: {} --recover, then `incus --project {} list{}`",
        args.so_far(),
        args.project,
        remote.unwrap_or_default()
    )
}

/// What a panic that reached the end of the run came to: the watchdog had to heal.
pub fn of_a_bug(clock: &Clock, args: &Args, bug: &Bug) -> Report {
    let words = &bug.words;
    let judgement = if bug.undone() {
        let reason = format!("a bug of this tool ended the run; the fault was undone: {words}");
        let next = "report it with the story above";
        Judgement::new(Verdict::Internal, "bug", reason, next)
    } else {
        let reason = format!("a bug of this tool ended the run, and the fault may remain: {words}");
        let next = look_now(args);
        Judgement::new(Verdict::NotUndone, "fault-may-remain", reason, next)
    };
    let mut report = Report::new(CHECK, clock, &judgement);
    report.system = system(args);
    report.condition("version", env!("CARGO_PKG_VERSION"));
    let mended = bug.mended.iter();
    report
        .notes
        .extend(mended.map(|mended| format!("{}: {}", mended.by, mended.words)));
    report
}

/// What `--recover` came to.
pub fn recovered(clock: &Clock, args: &Args, recovered: Recovered, note: Option<String>) -> Report {
    let told = |run: &Found| format!("run {} {}", run.run, run.words);
    let again = format!("{}; correct what stands in the way", look_now(args));
    // A timer beside drills has nothing to complain of when one is under way.
    let (verdict, reason_id, next) = if recovered.any(End::NotUndone) {
        (Verdict::NotUndone, "fault-may-remain", again.as_str())
    } else if recovered.any(End::LeftAlone) && !args.expired {
        let next = "wait for the end of what is under way";
        (Verdict::Refused, "drill-under-way", next)
    } else {
        (Verdict::Clean, "nothing-left", "nothing to do")
    };
    let reason = match recovered.runs.as_slice() {
        [] => "no record and no key of a drill was found".to_owned(),
        runs => runs.iter().map(told).collect::<Vec<_>>().join("; "),
    };
    let mut report = Report::new(
        CHECK,
        clock,
        &Judgement::new(verdict, reason_id, reason, next),
    );
    report.system = format!("project {}", args.project);
    report.condition("version", env!("CARGO_PKG_VERSION"));
    report.undo = recovered
        .runs
        .into_iter()
        .flat_map(|run| run.steps)
        .collect();
    report.notes.extend(note);
    report
}

/// The report of a run.
pub fn assemble(clock: &Clock, args: &Args, judgement: &Judgement, run: Gathered<'_>) -> Report {
    let mut report = Report::new(CHECK, clock, judgement);
    report.system = system(args);
    conditions(&mut report, run.targets, run.baseline, args);
    report.feasibility.clone_from(&run.baseline.feasible.sums);
    report.fault = run.fault.cloned();
    report.undo = run
        .healed
        .map(|healed| healed.steps.clone())
        .unwrap_or_default();
    report.gates = run.gates;
    if args.read_only && args.fault.breaks() {
        let off = |(id, title): &(&str, &str)| GateOff {
            id: (*id).to_owned(),
            title: (*title).to_owned(),
            flag: "--read-only".to_owned(),
        };
        report.gates_off = WRITE_GATES.iter().map(off).collect();
    }
    report.notes.clone_from(&run.baseline.notes);
    report.notes.extend(run.plan.notes.iter().cloned());
    report.notes.extend(run.notes);
    let before: Vec<Node> = run
        .baseline
        .members
        .iter()
        .map(|m| m.node.clone())
        .collect();
    let instance = |node: &Node| {
        let member = run.baseline.members.iter().find(|m| m.node.id == node.id);
        member.map(|m| m.instance.to_string())
    };
    report
        .tables
        .push(formation::table("Nodes before", &before, instance));
    let lost = run.observation.and_then(|seen| seen.lost.as_ref());
    if let Some(outpost) = run.targets.outpost.as_ref().filter(|_| lost.is_some()) {
        let (instance, words) = (&outpost.instance, outpost.told());
        report
            .notes
            .push(format!("the observer inside {instance}: {words}"));
    }
    if let Some(observation) = run.observation {
        observed(&mut report, args, run.baseline, observation);
        if let Some(look) = observation.record.looks.last() {
            report
                .tables
                .push(formation::table("Nodes after", &look.nodes, instance));
        }
    }
    report
}

fn conditions(report: &mut Report, targets: &Targets, baseline: &Baseline, args: &Args) {
    report.condition("version", env!("CARGO_PKG_VERSION"));
    let server = &targets.server;
    let incus = format!(
        "{} on {}, kernel {}",
        server.version, server.name, server.kernel
    );
    let way = match targets.incus.place().is_local() {
        true => String::new(),
        false => format!(", over {}", targets.incus.told()),
    };
    report.condition("Incus", incus + &way);
    let delay = |m: &Member| {
        let ms = m
            .path_us
            .map_or_else(|| "?".to_owned(), |us| format!("{:.2}", us as f64 / 1e3));
        format!("{} {ms} ms", m.node.name)
    };
    let delays: Vec<_> = baseline.members.iter().map(delay).collect();
    match &targets.outpost {
        None => report.condition("vantage", "the host of this tool, directly to the nodes"),
        Some(outpost) => {
            let vantage = format!("inside {}, directly to the nodes", outpost.instance);
            report.condition("vantage", vantage);
            let error_ms = outpost.offset.error_us as f64 / 1e3;
            let known = format!("known here to ±{error_ms:.2} ms, measured over Incus");
            report.condition("observer's clock", known);
        }
    }
    report.condition("TCP handshake", delays.join(", "));
    let hosts: Vec<_> = baseline
        .client_hosts
        .iter()
        .map(ToString::to_string)
        .collect();
    report.condition("client's hosts", hosts.join(", "));
    if let Some((access, at)) = &targets.pooler {
        let tls = access.tls.describe();
        report.condition("client's way", format!("through PgBouncer at {at}, {tls}"));
    }
    let feasible = &baseline.feasible;
    let span = format!("{:.1} to {:.1} s", feasible.best_s, feasible.worst_s);
    report.condition("a failover by the live timers", span);
    report.condition("settle time", format!("{} s", args.settle.as_secs_f64()));
    report
        .conditions
        .extend(baseline.conditions.iter().cloned());
}

fn observed(report: &mut Report, args: &Args, baseline: &Baseline, observation: &Observation) {
    let outages = outage::outages(observation.steady());
    report.client_outage = phases::client_outage(&outages, args.settle);
    if let Some(fault) = &report.fault {
        let healed = report.undo.first().map(|step| step.began);
        let old = baseline.primary().node.id;
        let direct = args
            .via
            .map(|_| outage::outages(observation.steady_direct()));
        let seen = (outages.as_slice(), direct.as_deref());
        report.phases = phases::phases(&observation.record, old, seen, fault.called, healed);
        if args.via.is_some() {
            report.notes.extend(followed(&report.phases));
        }
        let (phase, note) = fenced(observation, baseline, fault);
        report.notes.extend(note);
        let promoted = report.phases.iter().find(|p| p.name == "promoted");
        // Of a node that went on by itself; one that was held still could take nothing.
        if fault.plan.kind == Kind::Partition {
            report.notes.extend(margin(phase.as_ref(), promoted));
        }
        report.phases.extend(phase);
        report.phases.sort_by_key(|phase| phase.at.latest);
    }
    report.ledger.clone_from(&observation.ledger);
    report.overlaps = tenure::overlaps(&tenures(&observation.rivals));
    if let Some(lost) = observation.rivals_lost.filter(|lost| *lost > 0) {
        report.notes.push(format!(
            "{lost} writes that a node acknowledged when it was asked are not there: it took them \
             without its role"
        ));
    }
    report.outages = outages;
    report.events = events(observation);
    report.probes = probes(observation);
    report.probe_runs = probe_runs(&observation.samples);
    report.notes.extend(observation.leftovers.iter().cloned());
    for connector in &observation.connectors {
        if let Some(error) = &connector.last_error {
            report.notes.push(format!(
                "last failed connection to {}: {}",
                connector.host, error.text
            ));
        }
    }
}

/// How long after a node took writes the pooler led clients to it.
fn followed(phases: &[Phase]) -> Option<String> {
    let of = |name: &str| phases.iter().find(|p| p.name == name).map(|p| p.at);
    let writable = of("writable")?;
    let Some(follows) = of("pooler follows") else {
        return Some("the pooler was not seen to lead clients to the new primary".to_owned());
    };
    let seconds = |later: At, earlier: At| later.us_since(earlier) as f64 / 1e6;
    Some(format!(
        "the pooler led clients to the new primary {:.2} to {:.2} s after it took writes",
        seconds(follows.earliest, writable.latest).max(0.0),
        seconds(follows.latest, writable.earliest).max(0.0)
    ))
}

/// When the old primary had fenced itself: what keeps two primaries apart. Of a node that was stopped
/// nothing can be said.
fn fenced(
    observation: &Observation,
    baseline: &Baseline,
    fault: &Fault,
) -> (Option<Phase>, Option<String>) {
    let old = baseline.primary();
    let asker = observation.rivals.iter().find(|a| a.node == old.node.id);
    // A stopped instance fences nothing: it is gone, and comes back as whatever the monitor says.
    let lives = fault.plan.kind.breaks() && fault.plan.kind != Kind::Stop;
    let Some(asker) = asker.filter(|_| lives) else {
        return (None, None);
    };
    let name = &old.node.name;
    match tenure::fenced(&asker.tenure, fault.called) {
        Fenced::Between { earliest, latest } => {
            let phase = Phase {
                name: "fenced".to_owned(),
                at: Between { earliest, latest },
                source: format!("{name} itself, asked to take a write"),
            };
            (Some(phase), None)
        }
        Fenced::No { last_seen } => {
            let seconds = last_seen.us_since(fault.called) as f64 / 1e6;
            let note = format!(
                "{name} was not seen to fence itself: {seconds:.2} s after the fault it still might \
                 have taken a write"
            );
            (None, Some(note))
        }
        Fenced::Unseen => (None, None),
    }
}

/// How long before the promotion the old primary had fenced itself: the margin that keeps two
/// primaries apart.
fn margin(fenced: Option<&Phase>, promoted: Option<&Phase>) -> Option<String> {
    let (fenced, promoted) = (fenced?, promoted?);
    let margin_s = promoted.at.earliest.us_since(fenced.at.latest) as f64 / 1e6;
    Some(if margin_s >= 0.0 {
        format!("the old primary had fenced itself at least {margin_s:.2} s before the promotion")
    } else {
        format!(
            "the old primary was seen fenced only {:.2} s after the promotion",
            -margin_s
        )
    })
}

/// What the monitor said and what this tool did, in order.
fn events(observation: &Observation) -> Vec<Event> {
    let record = &observation.record;
    let said = record.events.iter().map(|event| Event {
        at: event.at.1,
        what: event.told(),
        source: format!("monitor's event {}", event.id),
    });
    let troubles = record.troubles.iter().map(|(at, what)| Event {
        at: *at,
        what: format!("the monitor can't be asked: {what}"),
        source: "this tool".to_owned(),
    });
    let mut events: Vec<Event> = said
        .chain(troubles)
        .chain(observation.events.iter().cloned())
        .collect();
    events.sort_by_key(|event| event.at);
    events
}

fn probes(observation: &Observation) -> Option<Probes> {
    let samples = observation.steady();
    let lateness = Lateness::of(samples)?;
    let latency = outage::latency(samples);
    let mut failures = BTreeMap::new();
    for sample in samples {
        if let Outcome::Failure(failure) = &sample.outcome {
            *failures.entry(failure.kind.to_string()).or_insert(0) += 1;
        }
    }
    Some(Probes {
        action: observation.action.clone(),
        spacing_us: micros(observation.shape.spacing()),
        limit_us: micros(observation.shape.limit()),
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
