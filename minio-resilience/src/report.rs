//! Puts the report of an act together. Everything in it was measured elsewhere.

mod healing;

use veza_probe::clock::At;
use veza_probe::drill::SoFar;
use veza_probe::outage::{self, Between, Phase};
use veza_probe::report::{Report, Table, probe_runs};

use crate::baseline::promise::Promise;
use crate::cli::Args;
use crate::observation::cluster::{Look, Record, Seen};
use crate::observation::refusals::Tried;
use crate::observation::{ACTION, Observation};

/// How many names a note repeats; the rest is counted.
const NAMED: usize = 5;

/// Adds what is this check's own to the report of an act.
pub fn tell(args: &Args, run: &SoFar<'_, Args>, report: &mut Report) {
    let baseline = &run.found.baseline;
    report
        .conditions
        .extend(baseline.conditions.iter().cloned());
    let settle_s = args.drill.settle.as_secs_f64();
    report.condition("settle time", format!("{settle_s} s"));
    report.feasibility.clone_from(&baseline.sums);
    report.notes.splice(0..0, baseline.notes.iter().cloned());
    if let Some(observation) = run.observation {
        observed(report, args, observation, baseline.promise);
    }
}

fn observed(report: &mut Report, args: &Args, observation: &Observation, promise: Promise) {
    let outages = outage::outages(observation.client.steady());
    report.client_outage = outage::client_outage(&outages, args.drill.settle);
    let healed_at = report.undo.first().map(|step| step.began);
    if let Some(fault) = &report.fault {
        let (zero, healed) = (fault.called, report.undo.first().map(|step| step.began));
        let until = healed.unwrap_or(At(i64::MAX));
        let away: Vec<_> = outages
            .iter()
            .filter(|o| o.first_failed_due < until)
            .cloned()
            .collect();
        let reads = outage::service_phase("reads back", "readers", &away, zero);
        report.phases.extend(reads.filter(|_| promise.reads));
        report
            .phases
            .extend(noticed(&observation.record, zero, until, promise));
        report.phases.extend(
            healed
                .map(|healed| phases(&observation.record, healed))
                .unwrap_or_default(),
        );
        report.phases.sort_by_key(|phase| phase.at.latest);
        report.tables.push(nodes(
            &observation.record,
            "Nodes while the fault lasted",
            healed,
        ));
        report
            .tables
            .push(nodes(&observation.record, "Nodes at the end", None));
    }
    report.tables.extend(writes(&observation.seen.tried));
    let called = report.fault.as_ref().map(|fault| fault.called);
    let zero = healed_at.or(called).unwrap_or(At(0));
    healing::tell(&observation.seen.healing, zero, report);
    report.outages = outages;
    report.events.clone_from(&observation.client.events);
    report.probes = observation.client.probes(ACTION);
    report.probe_runs = probe_runs(&observation.client.samples);
    notes(report, observation);
}

/// What came to nothing, what was read amiss, and what stood in the way.
fn notes(report: &mut Report, observation: &Observation) {
    let seen = &observation.seen;
    let named = |list: &Option<Vec<_>>, when: &str| {
        let list = list
            .as_ref()
            .filter(|list: &&Vec<crate::observation::objects::Reading>| !list.is_empty())?;
        let first: Vec<String> = list.iter().take(NAMED).map(ToString::to_string).collect();
        Some(format!(
            "{} readings came to nothing {when}: {}",
            list.len(),
            first.join("; ")
        ))
    };
    report
        .notes
        .extend(named(&seen.unread, "while nodes were away"));
    report
        .notes
        .extend(named(&seen.unread_after, "after the return"));
    let amiss = observation
        .written
        .wrong
        .iter()
        .chain(&observation.written.denied)
        .chain(&observation.written.changed);
    report
        .notes
        .extend(amiss.take(NAMED).map(ToString::to_string));
    report.notes.extend(seen.troubles.iter().cloned());
    let healed = report.undo.first().map(|step| step.began);
    report
        .notes
        .extend(healed.and_then(|healed| refusing(&observation.record, healed)));
    let (away, after) = (seen.read_away, seen.read_after);
    let told = format!(
        "{} objects; {away} readings while nodes were away, {after} after the return",
        observation.objects.len()
    );
    report.notes.push(told);
}

/// What kept nodes from serving after the heal, as the last look before they did has it.
fn refusing(record: &Record, healed: At) -> Option<String> {
    let tried =
        |look: &&Look| look.asked >= healed && look.nodes.iter().any(|node| node.serves.is_some());
    let last = record
        .looks
        .iter()
        .filter(tried)
        .rfind(|look| look.all_live() && !look.serves())?;
    let words = last.nodes.iter().filter_map(|node| match &node.serves {
        Some(Err(words)) => Some(format!("{}: {words}", node.name)),
        _ => None,
    });
    let words: Vec<String> = words.collect();
    let after_s = last.asked.us_since(healed) as f64 / 1e6;
    (!words.is_empty()).then(|| {
        format!(
            "{after_s:.1} s after the heal this was still in the way of reads and writes: {}",
            words.join("; ")
        )
    })
}

/// When the nodes that stay up said that write quorum is lost.
fn noticed(record: &Record, zero: At, until: At, promise: Promise) -> Option<Phase> {
    if promise.writes {
        return None;
    }
    let says = |look: &Look| {
        look.nodes
            .iter()
            .filter(|node| node.lives)
            .any(|node| !node.has_write_quorum())
    };
    let looks = || {
        record
            .looks
            .iter()
            .filter(move |look| look.asked >= zero && look.answered <= until)
    };
    let first = looks().find(|look| says(look))?;
    let before = looks().take_while(|look| !says(look)).last();
    Some(Phase {
        name: "write quorum lost".to_owned(),
        at: Between {
            earliest: before.map_or(zero, |look| look.asked),
            latest: first.answered,
        },
        source: "/minio/health/cluster of the nodes that stayed up".to_owned(),
    })
}

/// The return, step by step.
fn phases(record: &Record, healed: At) -> Vec<Phase> {
    type Is = fn(&Look) -> bool;
    let steps: [(&str, Is, &str); 5] = [
        (
            "process up",
            Look::all_live,
            "/minio/health/live of every node",
        ),
        (
            "write quorum",
            Look::quorum,
            "/minio/health/cluster of every node",
        ),
        ("drives online", Look::drives_back_for_sure, "the admin API"),
        (
            "serving",
            Look::serves,
            "a read and a write through every node",
        ),
        (
            "whole",
            Look::whole,
            "every health endpoint, and the admin API where it is asked",
        ),
    ];
    let phase = |(name, is_so, source): (&str, Is, &str)| {
        let (not, held) = record.since(healed, is_so);
        Some(Phase {
            name: name.to_owned(),
            at: Between {
                earliest: not.unwrap_or(healed),
                latest: held?,
            },
            source: source.to_owned(),
        })
    };
    steps.into_iter().filter_map(phase).collect()
}

/// Every node as the last look before a moment has it.
fn nodes(record: &Record, title: &str, until: Option<At>) -> Table {
    let until = until.unwrap_or(At(i64::MAX));
    let last = record.looks.iter().rfind(|look| look.answered <= until);
    let health = |health: &Result<crate::targets::http::Health, String>| match health {
        Ok(health) if health.healing > 0 => {
            format!("{}, {} drives heal", health.code, health.healing)
        }
        Ok(health) => health.code.to_string(),
        Err(words) => words.clone(),
    };
    let row = |node: &Seen| {
        let lives = if node.lives { "lives" } else { "silent" };
        let serves = match &node.serves {
            None => "not tried".to_owned(),
            Some(Ok(())) => "yes".to_owned(),
            Some(Err(words)) => words.clone(),
        };
        vec![
            node.name.clone(),
            lives.to_owned(),
            health(&node.cluster),
            health(&node.read),
            serves,
        ]
    };
    Table {
        title: title.to_owned(),
        columns: [
            "node",
            "process",
            "cluster",
            "cluster/read",
            "reads and writes",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows: last
            .map(|look| look.nodes.iter().map(row).collect())
            .unwrap_or_default(),
    }
}

/// What writes came to while there was no quorum for them.
fn writes(tried: &[Tried]) -> Option<Table> {
    let row = |tried: &Tried| {
        let key = tried.key.rsplit('/').next().unwrap_or_default().to_owned();
        let came_to = tried
            .refused
            .as_ref()
            .map_or_else(|| "TAKEN".to_owned(), ToString::to_string);
        vec![
            tried.node.clone(),
            key,
            format!("{:.2}", tried.took_s()),
            came_to,
        ]
    };
    (!tried.is_empty()).then(|| Table {
        title: "Writes without quorum".to_owned(),
        columns: ["node", "object", "after s", "answer"]
            .map(str::to_owned)
            .to_vec(),
        rows: tried.iter().map(row).collect(),
    })
}
