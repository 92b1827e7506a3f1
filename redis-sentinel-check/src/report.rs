//! Puts the report together. Everything in it was measured elsewhere.

use veza_probe::clock::At;
use veza_probe::drill::{Found, SoFar};
use veza_probe::fault::{Fault, Kind};
use veza_probe::ledger::{Ledger, told};
use veza_probe::outage::{self, Phase};
use veza_probe::report::{Event, Figure, Report, Table, probe_runs};
use veza_probe::tenure::{self, Answer, Tenure};

use crate::baseline::data::State;
use crate::baseline::{Baseline, Member};
use crate::cli::{Args, Target};
use crate::observation::phases::{self, About};
use crate::observation::{ACTION, Observation, reads, writer};

/// Adds what is this check's own to the report of a run.
pub fn tell(args: &Args, run: &SoFar<'_, Args>, report: &mut Report) {
    let baseline = &run.found.baseline;
    conditions(report, run.found, args);
    report.feasibility.clone_from(&baseline.feasible.sums);
    report.notes.splice(0..0, baseline.notes.iter().cloned());
    let before = baseline
        .members
        .iter()
        .map(|m| (m.name.as_str(), Ok(&m.state)));
    report.tables.push(table("Servers before", before));
    if let Some(observation) = run.observation {
        observed(report, args, baseline, observation);
        let after = observation.record.last.servers.iter();
        let after = after.map(|(name, _, state)| (name.as_str(), state.as_ref()));
        report.tables.push(table("Servers after", after));
    }
}

fn conditions(report: &mut Report, found: &Found<Args>, args: &Args) {
    let baseline = &found.baseline;
    report.condition(
        "vantage",
        "the host of this tool, directly to sentinels and servers",
    );
    let delay = |member: &Member| {
        let ms = member.path_us.map(|us| format!("{:.2}", us as f64 / 1e3));
        format!(
            "{} {} ms",
            member.name,
            ms.unwrap_or_else(|| "?".to_owned())
        )
    };
    let delays: Vec<_> = baseline.members.iter().map(delay).collect();
    report.condition("TCP handshake", delays.join(", "));
    let sentinels = found.targets.sentinels.iter().map(ToString::to_string);
    report.condition("sentinels", sentinels.collect::<Vec<_>>().join(", "));
    let connect_ms = writer::CONNECT_LIMIT.as_millis();
    report.condition("client's limit of connecting", format!("{connect_ms} ms"));
    let feasible = &baseline.feasible;
    let span = format!("{:.1} to {:.1} s", feasible.best_s, feasible.worst_s);
    report.condition("a failover by the live timers", span);
    report.condition("target", args.target.to_string());
    let settle_s = args.drill.settle.as_secs_f64();
    report.condition("settle time", format!("{settle_s} s"));
    report
        .conditions
        .extend(baseline.conditions.iter().cloned());
}

fn table<'a>(
    title: &str,
    servers: impl Iterator<Item = (&'a str, Result<&'a State, &'a String>)>,
) -> Table {
    let row = |(name, state): (&str, Result<&State, &String>)| match state {
        Err(words) => vec![name.to_owned(), words.clone()],
        Ok(state) => {
            let role = match &state.follows {
                None if state.is_master => "master".to_owned(),
                Some((host, port)) => format!("replica of {host}:{port}"),
                None => "?".to_owned(),
            };
            let link = match (state.is_master, state.link_up) {
                (true, _) => format!("{} replicas", state.followers.len()),
                (false, true) => "up".to_owned(),
                (false, false) => "down".to_owned(),
            };
            let run_id: String = state.run_id.chars().take(8).collect();
            vec![
                name.to_owned(),
                role,
                link,
                format!("{} s", state.uptime_s),
                run_id,
            ]
        }
    };
    Table {
        title: title.to_owned(),
        columns: ["server", "role", "link", "up for", "run_id"]
            .map(str::to_owned)
            .to_vec(),
        rows: servers
            .map(row)
            .map(|mut row| {
                row.resize(5, String::new());
                row
            })
            .collect(),
    }
}

fn observed(report: &mut Report, args: &Args, baseline: &Baseline, observation: &Observation) {
    let outages = outage::outages(observation.client.steady());
    report.client_outage = outage::client_outage(&outages, args.drill.settle);
    if let Some(fault) = &report.fault {
        let about = About {
            master: &args.master,
            zero: fault.called,
            healed: report.undo.first().map(|step| step.began),
        };
        let said = &observation.heard.said;
        report.phases = phases::phases(said, &observation.record, &outages, about);
        let switches = phases::switches(said, about);
        if switches.len() > 1 {
            let told = switches.join(", then ");
            let note = format!("one failover followed another: the masters were {told}");
            report.notes.push(note);
        }
        let breaks = fault.plan.kind.breaks();
        report
            .figures
            .extend(kept(observation, about).filter(|_| breaks));
        let writable = report.phases.iter().find(|phase| phase.name == "writable");
        let writable = writable.filter(|_| breaks && !switches.is_empty());
        let stale = writable.and_then(|phase| stale(observation, baseline, (phase, about.zero)));
        report.figures.extend(stale);
        // One that systemd started again, before anybody was promoted, is the master still.
        let restart = matches!(fault.plan.kind, Kind::KillRestart(_));
        let (phase, note) = match args.target {
            Target::Master if !(restart && switches.is_empty()) => {
                fenced(observation, baseline, fault)
            }
            _ => (None, None),
        };
        let name = baseline.master().map(|master| master.name.as_str());
        let mut rivals = observation.rivals.iter();
        let old = rivals.find(|tenure| Some(tenure.node.as_str()) == name);
        let zero = fault.called;
        report.tables.extend(old.map(|old| asked(old, zero)));
        report.notes.extend(note);
        let promoted = report.phases.iter().find(|p| p.name == "promoted");
        // Of a server that went on by itself; one that was held still could take nothing.
        if fault.plan.kind == Kind::Partition {
            let margin = phase.as_ref().zip(promoted);
            let margin = margin.map(|(phase, promoted)| tenure::margin(phase, promoted, "master"));
            report.notes.extend(margin);
        }
        report.phases.extend(phase);
        report.phases.sort_by_key(|phase| phase.at.latest);
    }
    if let Some(ledgers) = &observation.ledgers {
        report.ledger = Some(ledgers.all.clone());
        report
            .notes
            .push(beside("at least one replica (WAIT 1)", &ledgers.one));
        report
            .notes
            .push(beside("the master alone", &ledgers.plain));
    }
    report.overlaps = tenure::overlaps(&observation.rivals);
    report.outages = outages;
    report.events = events(observation);
    report.probes = observation.client.probes(ACTION);
    report.probe_runs = probe_runs(&observation.client.samples);
    report.notes.extend(observation.leftovers.iter().cloned());
    report.notes.extend(observation.client.failed_connections());
}

/// How long a client waited that keeps its connection, in one line.
fn kept(observation: &Observation, about: About) -> Option<Figure> {
    let Observation { kept, ended, .. } = observation;
    let wait = kept.longest_wait(about.zero, *ended)?;
    let after = |at: At| at.us_since(about.zero) as f64 / 1e6;
    let until = match wait.until {
        Some(until) => format!("to {:.2} s after the fault", after(until)),
        None => "on, and was not answered again".to_owned(),
    };
    let met = |(at, words): &(At, String)| format!("met at {:.2} s: {words}", after(*at));
    let met = kept.first_error(about.zero).map(met);
    let met = met.unwrap_or_else(|| "it met no error".to_owned());
    Some(Figure {
        id: "kept-connection".to_owned(),
        title: format!(
            "the longest wait for a write of a client that keeps its connection without a limit of its own, from \
             {:.2} {until}; {met}",
            after(wait.from)
        ),
        unit: "s".to_owned(),
        rounds: vec![wait.until.unwrap_or(*ended).us_since(wait.from) as f64 / 1e6],
    })
}

/// What the old master answered from the past since the new one was writable, in one line.
fn stale(
    observation: &Observation,
    baseline: &Baseline,
    (writable, zero): (&Phase, At),
) -> Option<Figure> {
    let old = &baseline.master()?.name;
    let found = reads::stale(&observation.reads, old, writable.at.latest);
    let after = |at: At| at.us_since(zero) as f64 / 1e6;
    let span = found.span.map(|(from, to)| {
        format!(
            "; from {:.2} to {:.2} s after the fault it lacked what had been acknowledged",
            after(from),
            after(to)
        )
    });
    Some(Figure {
        id: "stale-reads".to_owned(),
        title: format!(
            "of {} that {old} answered after the new master took writes{}",
            found.answered,
            span.unwrap_or_default()
        ),
        unit: "reads".to_owned(),
        rounds: vec![found.stale as f64],
    })
}

/// What the old master answered when it was asked to take a write, in runs of the same answer.
fn asked(tenure: &Tenure, zero: At) -> Table {
    let mut runs: Vec<(At, At, usize, Answer, &str)> = Vec::new();
    for asked in tenure.asked.iter().filter(|asked| asked.ended >= zero) {
        match runs.last_mut() {
            Some(last) if last.3 == asked.answer && last.4 == asked.words => {
                (last.1, last.2) = (asked.ended, last.2 + 1);
            }
            _ => runs.push((asked.began, asked.ended, 1, asked.answer, &asked.words)),
        }
    }
    let seconds = |at: At| format!("{:.2}", at.us_since(zero) as f64 / 1e6);
    let row = |(from, to, count, answer, words): (At, At, usize, Answer, &str)| {
        let answer = match answer {
            Answer::Took => "took it",
            Answer::Refused => "refused",
            Answer::Unacknowledged => "no answer",
            Answer::Absent => "no server",
            Answer::Unasked => "not reached",
        };
        let words = words.to_owned();
        vec![
            seconds(from),
            seconds(to),
            count.to_string(),
            answer.to_owned(),
            words,
        ]
    };
    Table {
        title: format!("{}, asked to take writes", tenure.node),
        columns: ["from s", "to s", "times", "answer", "words"]
            .map(str::to_owned)
            .to_vec(),
        rows: runs.into_iter().map(row).collect(),
    }
}

/// What became of the writes that no gate judges.
fn beside(by: &str, ledger: &Ledger) -> String {
    let lost = match ledger.lost_count() {
        0 => "none lost".to_owned(),
        lost => format!("{lost} lost ({})", told(&ledger.lost)),
    };
    format!(
        "writes acknowledged by {by}, without a gate: {}, {lost}",
        ledger.acknowledged
    )
}

/// When the old master had fenced itself: what keeps two masters apart. Of a server that was stopped nothing
/// can be said.
fn fenced(
    observation: &Observation,
    baseline: &Baseline,
    fault: &Fault,
) -> (Option<Phase>, Option<String>) {
    // A stopped instance fences nothing: it is gone, and comes back as whatever the sentinels say.
    let lives = fault.plan.kind.breaks() && fault.plan.kind != Kind::Stop;
    let name = baseline
        .master()
        .map(|m| m.name.as_str())
        .unwrap_or_default();
    let old = observation.rivals.iter().find(|tenure| tenure.node == name);
    let Some(old) = old.filter(|_| lives) else {
        return (None, None);
    };
    tenure::fenced_phase(old, fault.called)
}

/// What the sentinels published and what this tool did, in order.
fn events(observation: &Observation) -> Vec<Event> {
    let heard = &observation.heard;
    let greeting = |event: &str| event.starts_with("__sentinel__");
    let said = heard.said.iter().filter(|said| !greeting(&said.event));
    let said = said.map(|said| Event {
        at: said.at.1,
        what: said.told(),
        source: format!("sentinel {}", said.sentinel),
    });
    let troubles = heard.troubles.iter().map(|(at, what)| Event {
        at: *at,
        what: format!("a sentinel can't be listened to: {what}"),
        source: "this tool".to_owned(),
    });
    let own = observation.client.events.iter().cloned();
    let mut events: Vec<Event> = said.chain(troubles).chain(own).collect();
    events.sort_by_key(|event| event.at);
    events
}
