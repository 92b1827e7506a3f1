//! Puts the report together. Everything in it was measured elsewhere.

use veza_probe::clock::Clock;
use veza_probe::report::keep::Keep;
use veza_probe::report::{Chart, Condition, Curve, Figure, GateOff, Report, Table, Untouched};
use veza_probe::verdict::{Gate, Judgement, Verdict};

use crate::baseline::Baseline;
use crate::cli::{Args, CHECK};
use crate::observation::Round;
use crate::observation::log::{Latency, Stretch};
use crate::observation::pool::Sample;
use crate::targets::{Targets, system};
use crate::verdict::exit_code;

/// A report that knows its verdict, with the exit code that this check has for it.
pub fn of(clock: &Clock, judgement: &Judgement) -> Report {
    let mut report = Report::new(CHECK, clock, judgement);
    report.exit_code = exit_code(judgement);
    report
}

/// The report of a run that ended before anything was loaded.
pub fn untouched(clock: &Clock, args: &Args, untouched: Untouched) -> Report {
    let mut report = of(clock, &untouched.judgement);
    report.system = system(args);
    report.condition("version", env!("CARGO_PKG_VERSION"));
    report.tables = untouched.tables;
    report.notes.push("nothing was loaded".to_owned());
    report
}

/// What stands in the folder while the run is under way.
pub fn unfinished(clock: &Clock) -> Report {
    let reason = "the run has not ended, or was killed; pgbench ends by itself within seconds then";
    let judgement = Judgement::new(Verdict::Internal, "unfinished", reason, "run it again");
    of(clock, &judgement)
}

/// Where the report goes; a dry run has no metrics.
pub fn keep(args: &Args) -> Keep<'_> {
    let flags = Keep::new(CHECK, &args.output);
    Keep {
        textfile_dir: flags.textfile_dir.filter(|_| !args.dry_run),
        ..flags
    }
}

/// The report of a run.
pub fn assemble(
    clock: &Clock,
    args: &Args,
    judgement: &Judgement,
    (targets, baseline): (&Targets, &Baseline),
    (rounds, gates): (&[Round], Vec<Gate>),
) -> Report {
    let mut report = of(clock, judgement);
    report.system = system(args);
    report.conditions.clone_from(&baseline.conditions);
    if let Some(around) = &targets.around {
        let server = &around.server;
        let value = format!(
            "{} on {}, kernel {}",
            server.version, server.name, server.kernel
        );
        let name = "Incus".to_owned();
        report.conditions.push(Condition { name, value });
    }
    report.notes.clone_from(&baseline.notes);
    let judged = |gate: &Gate| gate.id == "pooler-errors";
    if !rounds.is_empty() && !gates.iter().any(judged) {
        report.gates_off.push(GateOff {
            id: "pooler-errors".to_owned(),
            title: "errors in the pooler's log".to_owned(),
            flag: "no --project whose instances have the pooler's address, or no journal"
                .to_owned(),
        });
    }
    report.gates = gates;
    report.figures = figures(rounds);
    report.charts = charts(clock, rounds);
    report.tables.extend(table(rounds));
    report.notes.extend(complaints(rounds));
    report
}

fn of_way(rounds: &[Round], direct: bool) -> impl Iterator<Item = &Round> {
    rounds.iter().filter(move |round| round.direct == direct)
}

/// One number of each round; none when a round has none.
fn figure(
    id: &str,
    title: &str,
    unit: &str,
    values: impl Iterator<Item = Option<f64>>,
) -> Option<Figure> {
    let rounds: Vec<f64> = values.collect::<Option<_>>()?;
    (!rounds.is_empty()).then(|| Figure {
        id: id.to_owned(),
        title: title.to_owned(),
        unit: unit.to_owned(),
        rounds,
    })
}

fn tps(round: &Round) -> Option<f64> {
    round.summary.as_ref().ok()?.tps
}

fn figures(rounds: &[Round]) -> Vec<Figure> {
    let pooled = || of_way(rounds, false);
    let latency = |id, title, of: fn(Latency) -> f64| {
        figure(id, title, "ms", pooled().map(|r| r.log.latency().map(of)))
    };
    let connection = |round: &Round| round.summary.as_ref().ok()?.connection_ms;
    let mut all = vec![
        figure("tps", "transactions per second", "/s", pooled().map(tps)),
        latency("p50", "half of the transactions took no longer", |l| {
            l.p50_ms
        }),
        latency("p90", "90 in 100", |l| l.p90_ms),
        latency("p99", "99 in 100", |l| l.p99_ms),
        latency("p99.9", "999 in 1000", |l| l.p999_ms),
        latency("max", "the slowest", |l| l.max_ms),
        figure(
            "connect",
            "time until all clients were connected",
            "ms",
            pooled().map(connection),
        ),
        figure(
            "wait",
            "a transaction's wait for a server connection, on average",
            "ms",
            pooled().map(|r| r.pool.wait_ms()),
        ),
        figure(
            "maxwait-seen",
            "the longest wait that was seen",
            "s",
            pooled().map(|r| r.pool.maxwait_s()),
        ),
    ];
    let cpu = |round: &Round| {
        let (before, after) = round.own?;
        Some((after.cpu_us - before.cpu_us) as f64 / 1e4 / round.took_s().max(0.001))
    };
    let memory = |round: &Round| Some(round.own?.1.peak_kib as f64 / 1024.0);
    let title = "processor time of this tool itself, in percent of one core";
    all.push(figure("own-cpu", title, "%", pooled().map(cpu)));
    let title = "the most memory that this tool had";
    all.push(figure("own-memory", title, "MiB", pooled().map(memory)));
    let past = || of_way(rounds, true);
    let ratio = pooled().zip(past()).map(|(one, other)| {
        let (one, other) = (tps(one)?, tps(other)?);
        (other > 0.0).then_some(one / other)
    });
    let p99 = |round: &Round| Some(round.log.latency()?.p99_ms);
    all.push(figure(
        "direct-tps",
        "transactions per second past the pooler",
        "/s",
        past().map(tps),
    ));
    all.push(figure(
        "direct-p99",
        "99 in 100 past the pooler",
        "ms",
        past().map(p99),
    ));
    all.push(figure(
        "pooler-ratio",
        "transactions per second through the pooler for one past it",
        "",
        ratio,
    ));
    all.into_iter().flatten().collect()
}

fn charts(clock: &Clock, rounds: &[Round]) -> Vec<Chart> {
    let stretches = |direct: bool, of: fn(&Stretch) -> f64| {
        let all = of_way(rounds, direct).flat_map(|round| round.log.stretches());
        let points = all.map(|s| [clock.at_wall_us(s.at_unix_us).seconds(), of(&s)]);
        points.collect::<Vec<_>>()
    };
    let samples = |of: fn(&Sample) -> f64| {
        let all = of_way(rounds, false).flat_map(|round| &round.pool.samples);
        all.map(|s| [s.at.seconds(), of(s)]).collect::<Vec<_>>()
    };
    let chart = |title: &str, unit: &str, curves: Vec<(&str, Vec<[f64; 2]>)>| Chart {
        title: title.to_owned(),
        unit: unit.to_owned(),
        curves: curves
            .into_iter()
            .filter(|(_, points)| !points.is_empty())
            .map(|(name, points)| Curve {
                name: name.to_owned(),
                points,
            })
            .collect(),
    };
    let mut all = vec![
        chart(
            "Transactions",
            "/s",
            vec![
                ("through the pooler", stretches(false, |s| s.tps)),
                ("past the pooler", stretches(true, |s| s.tps)),
            ],
        ),
        chart(
            "Latency",
            "ms",
            vec![
                ("median", stretches(false, |s| s.p50_ms)),
                ("p99", stretches(false, |s| s.p99_ms)),
                ("p99 past the pooler", stretches(true, |s| s.p99_ms)),
            ],
        ),
        chart(
            "Clients at the pooler",
            "clients",
            vec![
                ("all", samples(|s| s.clients as f64)),
                ("waiting", samples(|s| s.waiting as f64)),
            ],
        ),
        chart(
            "Server connections",
            "connections",
            vec![
                ("all", samples(|s| s.servers as f64)),
                ("at work", samples(|s| s.sv_active as f64)),
            ],
        ),
    ];
    all.retain(|chart| !chart.curves.is_empty());
    all
}

fn table(rounds: &[Round]) -> Option<Table> {
    if rounds.is_empty() {
        return None;
    }
    let columns = [
        "round",
        "way",
        "exit",
        "processed",
        "failed",
        "tps",
        "p50 ms",
        "p99 ms",
        "max ms",
        "clients seen",
    ];
    let row = |(index, round): (usize, &Round)| {
        let summary = round.summary.as_ref().ok();
        let latency = round.log.latency();
        let whole = |value: Option<u64>| value.map_or_else(|| "?".to_owned(), |n| n.to_string());
        let tenth =
            |value: Option<f64>| value.map_or_else(|| "?".to_owned(), |n| format!("{n:.1}"));
        let way = if round.direct { "past it" } else { "pooler" };
        vec![
            (index + 1).to_string(),
            way.to_owned(),
            round
                .code
                .map_or_else(|| "?".to_owned(), |code| code.to_string()),
            whole(summary.map(|s| s.processed)),
            whole(summary.map(|s| s.failed)),
            tenth(summary.and_then(|s| s.tps)),
            tenth(latency.map(|l| l.p50_ms)),
            tenth(latency.map(|l| l.p99_ms)),
            tenth(latency.map(|l| l.max_ms)),
            match round.direct {
                true => "-".to_owned(),
                false => whole(round.pool.most_clients()),
            },
        ]
    };
    Some(Table {
        title: "Rounds".to_owned(),
        columns: columns.map(str::to_owned).to_vec(),
        rows: rounds.iter().enumerate().map(row).collect(),
    })
}

/// How many complaints of each end are told.
const TOLD: usize = 5;

/// What both ends complained of, and failures by their kind.
fn complaints(rounds: &[Round]) -> Vec<String> {
    let mut all = Vec::new();
    for round in rounds {
        let said = round.errors.first.iter().take(TOLD);
        all.extend(said.map(|line| format!("pgbench: {line}")));
        let pooler = round.complaints.iter().flatten().take(TOLD);
        all.extend(pooler.map(|line| format!("the pooler's log: {line}")));
        let troubles = &round.pool.troubles;
        if let Some(first) = troubles.first() {
            let count = troubles.len();
            all.push(format!(
                "the console did not answer {count} times; first: {first}"
            ));
        }
        if let Ok(summary) = &round.summary {
            if summary.failed > 0 {
                all.push(format!(
                    "{} transactions failed: {} serialization failures, {} deadlocks",
                    summary.failed, summary.serialization, summary.deadlocks
                ));
            }
            if round.log.done() != summary.processed || round.log.strange() > 0 {
                all.push(format!(
                    "pgbench counts {} transactions; its log has {} and {} lines that were not \
                     understood",
                    summary.processed,
                    round.log.done(),
                    round.log.strange()
                ));
            }
        }
    }
    all
}
