//! Puts the report together. Everything in it was measured elsewhere.

use veza_probe::clock::At;
use veza_probe::drill::{Found, SoFar};
use veza_probe::fault::{Fault, Kind};
use veza_probe::outage::{self, Phase};
use veza_probe::report::{Event, GateOff, Report, probe_runs};
use veza_probe::tenure;

use crate::baseline::formation::{self, Node};
use crate::baseline::{Baseline, Member};
use crate::cli::Args;
use crate::observation::{Observation, phases};
use crate::verdict::{WRITE_GATES, tenures};

/// Adds what is this check's own to the report of a run.
pub fn tell(args: &Args, run: &SoFar<'_, Args>, report: &mut Report) {
    let (targets, baseline) = (&run.found.targets, &run.found.baseline);
    conditions(report, run.found, args);
    report.feasibility.clone_from(&baseline.feasible.sums);
    if args.read_only && args.fault.breaks() {
        let off = |(id, title): &(&str, &str)| GateOff {
            id: (*id).to_owned(),
            title: (*title).to_owned(),
            flag: "--read-only".to_owned(),
        };
        report.gates_off = WRITE_GATES.iter().map(off).collect();
    }
    report.notes.splice(0..0, baseline.notes.iter().cloned());
    let before: Vec<Node> = baseline.members.iter().map(|m| m.node.clone()).collect();
    let instance = |node: &Node| {
        let member = baseline.members.iter().find(|m| m.node.id == node.id);
        member.map(|m| m.instance.to_string())
    };
    report
        .tables
        .push(formation::table("Nodes before", &before, instance));
    let lost = run.observation.and_then(|seen| seen.client.lost.as_ref());
    if let Some(outpost) = targets.outpost.as_ref().filter(|_| lost.is_some()) {
        let (instance, words) = (&outpost.instance, outpost.told());
        report
            .notes
            .push(format!("the observer inside {instance}: {words}"));
    }
    if let Some(observation) = run.observation {
        observed(report, args, baseline, observation);
        if let Some(look) = observation.record.looks.last() {
            report
                .tables
                .push(formation::table("Nodes after", &look.nodes, instance));
        }
    }
}

fn conditions(report: &mut Report, found: &Found<Args>, args: &Args) {
    let (targets, baseline) = (&found.targets, &found.baseline);
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
    report.condition(
        "settle time",
        format!("{} s", args.drill.settle.as_secs_f64()),
    );
    report
        .conditions
        .extend(baseline.conditions.iter().cloned());
}

fn observed(report: &mut Report, args: &Args, baseline: &Baseline, observation: &Observation) {
    let outages = outage::outages(observation.client.steady());
    report.client_outage = outage::client_outage(&outages, args.drill.settle);
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
            let margin = phase.as_ref().zip(promoted);
            let margin = margin.map(|(phase, promoted)| tenure::margin(phase, promoted, "primary"));
            report.notes.extend(margin);
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
    report.probes = observation.client.probes(&observation.action);
    report.probe_runs = probe_runs(&observation.client.samples);
    report.notes.extend(observation.leftovers.iter().cloned());
    report.notes.extend(observation.client.failed_connections());
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
    // One that systemd started again, before anybody was promoted, is the primary still.
    let restart = matches!(fault.plan.kind, Kind::KillRestart(_));
    let lives = lives && (!restart || phases::promotes(&observation.record, old.node.id));
    let Some(asker) = asker.filter(|_| lives) else {
        return (None, None);
    };
    tenure::fenced_phase(&asker.tenure, fault.called)
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
        .chain(observation.client.events.iter().cloned())
        .collect();
    events.sort_by_key(|event| event.at);
    events
}
