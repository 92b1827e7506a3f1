//! What came out: tables for people, and the same numbers for machines.

use std::io::Write;
use std::path::Path;

use serde::Serialize;
use veza_probe::clock::micros;
use veza_probe::outage::detectable;
use veza_probe::prober::{Lateness, Shape};

use super::cost::Cost;
use super::score::{Polled, Probed, Report, Score, Spread};
use super::truth::{KINDS, Kind};

/// The most that probing may cost, in percent of a core.
const COST_MAX_PERCENT: f64 = 2.0;

/// Each end of an outage should be known to within the spacing and this.
const SIDE_SLACK_US: i64 = 2_000;

/// What one prober shape saw in all services.
pub struct Observed {
    /// The shape.
    pub shape: Shape,
    /// Its reports against the truth.
    pub score: Score,
    /// How late its probes were.
    pub lateness: Option<Lateness>,
}

/// What was asked for.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Settings {
    /// Outages in all services together.
    pub outages: u64,
    /// Services side by side.
    pub lanes: u64,
    /// What decided all that is random.
    pub seed: u64,
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct Summary {
    bench: &'static str,
    cores: usize,
    settings: Settings,
    probers: Vec<OfProber>,
    poll_loop: Vec<Overall>,
    cost: Cost,
    /// Every outage with what each observer made of it; a file of its own.
    #[serde(skip)]
    pub each: Each,
}

/// Every outage, by observer.
#[derive(Debug, Serialize)]
pub struct Each {
    probers: Vec<(String, Vec<Probed>)>,
    poll_loop: Vec<Polled>,
}

#[derive(Debug, Serialize)]
struct OfProber {
    shape: String,
    spacing_us: i64,
    limit_us: i64,
    reconnect_every_us: i64,
    detectable_us: i64,
    lateness: Option<Lateness>,
    uncaused_reports: u64,
    repeated_reports: u64,
    overall: Vec<Overall>,
    detectable: Vec<Detectable>,
}

/// How many of some outages an observer noticed, and how far its length was from the truth: the
/// middle of a prober's bounds, a poll loop's only number.
#[derive(Debug, Serialize)]
struct Overall {
    kinds: String,
    count: usize,
    noticed: usize,
    error: Option<Spread>,
}

/// What a prober reported of the outages that it must find.
#[derive(Debug, Serialize)]
struct Detectable {
    kind: Kind,
    count: usize,
    found: usize,
    /// How far bounds missed the outage as the client had it: until it was served again.
    outside_client: Outside,
    /// How far they missed the outage as the service had it: until it would have served.
    outside_service: Outside,
    width: Option<Spread>,
    start_width: Option<Spread>,
    end_width: Option<Spread>,
    undetectable: usize,
    undetectable_noticed: usize,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Outside {
    count: usize,
    max_us: i64,
}

impl Outside {
    fn of(distances_us: impl Iterator<Item = i64>) -> Outside {
        let outside: Vec<i64> = distances_us.filter(|us| *us > 0).collect();
        Outside {
            count: outside.len(),
            max_us: outside.into_iter().max().unwrap_or(0),
        }
    }
}

impl Overall {
    fn of(kinds: &str, errors: impl Iterator<Item = (bool, Option<i64>)>) -> Overall {
        let all: Vec<(bool, Option<i64>)> = errors.collect();
        Overall {
            kinds: kinds.to_owned(),
            count: all.len(),
            noticed: all.iter().filter(|(noticed, _)| *noticed).count(),
            error: Spread::of(all.iter().filter_map(|(_, error_us)| *error_us)),
        }
    }

    /// One for each kind, and one for all.
    fn by_kind<T>(
        ones: &[T],
        kind: impl Fn(&T) -> Kind,
        look: impl Fn(&T) -> (bool, Option<i64>),
    ) -> Vec<Overall> {
        let each = KINDS.into_iter().map(|wanted| {
            let own = ones.iter().filter(|one| kind(one) == wanted);
            Overall::of(wanted.name(), own.map(&look))
        });
        each.chain([Overall::of("all", ones.iter().map(&look))])
            .collect()
    }
}

impl Detectable {
    fn of(kind: Kind, probed: &[Probed]) -> Detectable {
        let own = || probed.iter().filter(|one| one.kind == kind);
        let must = || own().filter(|one| one.detectable);
        let may = || own().filter(|one| !one.detectable);
        let is_found = |one: &&Probed| one.report.as_ref().is_some_and(|report| report.contains);
        let found = || must().filter(is_found);
        let spread = |of: fn(&Report) -> Option<i64>| {
            Spread::of(found().filter_map(|one| of(one.report.as_ref()?)))
        };
        Detectable {
            kind,
            count: must().count(),
            found: found().count(),
            outside_client: Outside::of(must().filter_map(Probed::outside_client_us)),
            outside_service: Outside::of(must().filter_map(Probed::outside_service_us)),
            width: spread(Report::width_us),
            start_width: spread(|report| report.start_width_us),
            end_width: spread(|report| report.end_width_us),
            undetectable: may().count(),
            undetectable_noticed: may().filter(|one| one.report.is_some()).count(),
        }
    }
}

impl OfProber {
    fn of(observed: &Observed) -> OfProber {
        let (shape, score) = (&observed.shape, &observed.score);
        OfProber {
            shape: name(shape),
            spacing_us: micros(shape.spacing()),
            limit_us: micros(shape.limit()),
            reconnect_every_us: micros(shape.reconnect_every()),
            detectable_us: micros(detectable(shape)),
            lateness: observed.lateness,
            uncaused_reports: score.uncaused,
            repeated_reports: score.repeated,
            overall: Overall::by_kind(
                &score.probed,
                |one| one.kind,
                |one| (one.report.is_some(), one.error_us()),
            ),
            detectable: KINDS
                .into_iter()
                .map(|kind| Detectable::of(kind, &score.probed))
                .collect(),
        }
    }
}

fn name(shape: &Shape) -> String {
    format!(
        "{}/{}/{}",
        shape.spacing().as_millis(),
        shape.limit().as_millis(),
        shape.reconnect_every().as_millis()
    )
}

impl Summary {
    /// Sums up.
    pub fn new(settings: Settings, observed: &[Observed], polled: Vec<Polled>, cost: Cost) -> Self {
        let each = observed
            .iter()
            .map(|observed| (name(&observed.shape), observed.score.probed.clone()));
        Summary {
            bench: "prober",
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            settings,
            probers: observed.iter().map(OfProber::of).collect(),
            poll_loop: Overall::by_kind(
                &polled,
                |one| one.kind,
                |one| (one.measured_us.is_some(), one.error_us()),
            ),
            cost,
            each: Each {
                probers: each.collect(),
                poll_loop: polled,
            },
        }
    }

    /// Whether every detectable outage was found and lies inside its bounds, and nothing was
    /// reported that was not there.
    pub fn promises_kept(&self) -> bool {
        self.probers.iter().all(|prober| {
            let kept = |of: &Detectable| of.found == of.count && of.outside_client.count == 0;
            prober.uncaused_reports == 0 && prober.detectable.iter().all(kept)
        })
    }

    /// Prints it.
    ///
    /// # Errors
    /// When nobody reads.
    pub fn tell(&self, folder: &Path) -> anyhow::Result<()> {
        let text = format!(
            "{}\nEach outage: {}/prober-outages.json\n",
            self.text(),
            folder.display()
        );
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        Ok(stdout.flush()?)
    }

    fn text(&self) -> String {
        let Settings {
            outages,
            lanes,
            seed,
        } = self.settings;
        [
            format!(
                "{outages} outages in {lanes} services, seed {seed}, {} cores",
                self.cores
            ),
            "\nEvery outage, noticed and how far its length was from the truth (ms):\n".to_owned(),
            self.overall(),
            "\nDetectable outages (ms):\n".to_owned(),
            self.detectable(),
            "\nThe observers themselves:\n".to_owned(),
            self.observers(),
        ]
        .join("\n")
    }

    fn overall(&self) -> String {
        let head = ["observer", "kind", "noticed", "error p50", "p99", "max"];
        let mut rows = vec![head.map(str::to_owned)];
        let probers = self.probers.iter();
        let mut observers: Vec<(&str, &[Overall])> = probers
            .map(|prober| (prober.shape.as_str(), prober.overall.as_slice()))
            .collect();
        observers.push(("poll loop, 1 s", &self.poll_loop));
        for (observer, overall) in observers {
            rows.extend(overall.iter().map(|of| {
                let [p50, p99, max] = cells(of.error);
                let noticed = format!("{} of {}", of.noticed, of.count);
                [
                    observer.to_owned(),
                    of.kinds.clone(),
                    noticed,
                    p50,
                    p99,
                    max,
                ]
            }));
        }
        table(&rows)
    }

    fn detectable(&self) -> String {
        let head = [
            "prober",
            "kind",
            "found",
            "outside, client",
            "outside, service",
            "width p50",
            "p99",
            "start within p99",
            "end within p99",
            "undetectable noticed",
        ];
        let mut rows = vec![head.map(str::to_owned)];
        for prober in &self.probers {
            rows.extend(prober.detectable.iter().map(|of| {
                let [p50, p99, _] = cells(of.width);
                let [_, start, _] = cells(of.start_width);
                let [_, end, _] = cells(of.end_width);
                [
                    prober.shape.clone(),
                    of.kind.name().to_owned(),
                    format!("{} of {}", of.found, of.count),
                    outside(&of.outside_client),
                    outside(&of.outside_service),
                    p50,
                    p99,
                    start,
                    end,
                    format!("{} of {}", of.undetectable_noticed, of.undetectable),
                ]
            }));
        }
        table(&rows)
    }

    fn observers(&self) -> String {
        let head = [
            "prober",
            "detectable from",
            "lateness p50",
            "p99",
            "max",
            "reports without a cause",
            "repeated",
            "ends within spacing + 2 ms",
        ];
        let mut rows = vec![head.map(str::to_owned)];
        rows.extend(self.probers.iter().map(|prober| {
            let late = prober.lateness;
            let late = |of: fn(Lateness) -> i64| cell(late.map(of));
            [
                prober.shape.clone(),
                cell(Some(prober.detectable_us)),
                late(|late| late.p50_us),
                late(|late| late.p99_us),
                late(|late| late.max_us),
                prober.uncaused_reports.to_string(),
                prober.repeated_reports.to_string(),
                prober.sharp_kinds(),
            ]
        }));
        let cost = format!(
            "\n\nThe usual prober costs {:.2} % of a core at {:.0} probes/s ({} of {} failed, {:.0} s; goal: at most {COST_MAX_PERCENT} %)",
            self.cost.percent(),
            self.cost.rate(),
            self.cost.failed,
            self.cost.probes,
            self.cost.wall_us as f64 / 1e6,
        );
        table(&rows) + &cost
    }
}

impl OfProber {
    /// The kinds of outage of which both ends are known as sharply as they should be, at p99.
    fn sharp_kinds(&self) -> String {
        let goal_us = self.spacing_us + SIDE_SLACK_US;
        let is_sharp = |side: Option<Spread>| side.is_some_and(|side| side.p99_us <= goal_us);
        let kinds: Vec<&str> = self
            .detectable
            .iter()
            .filter(|of| is_sharp(of.start_width) && is_sharp(of.end_width))
            .map(|of| of.kind.name())
            .collect();
        match kinds.is_empty() {
            true => "none".to_owned(),
            false => kinds.join(", "),
        }
    }
}

fn outside(outside: &Outside) -> String {
    match outside.count {
        0 => "0".to_owned(),
        count => format!("{count}, by up to {}", cell(Some(outside.max_us))),
    }
}

fn cells(spread: Option<Spread>) -> [String; 3] {
    [
        cell(spread.map(|spread| spread.p50_us)),
        cell(spread.map(|spread| spread.p99_us)),
        cell(spread.map(|spread| spread.max_us)),
    ]
}

/// Microseconds, shown as milliseconds.
fn cell(us: Option<i64>) -> String {
    us.map_or_else(|| "-".to_owned(), |us| format!("{:.1}", us as f64 / 1e3))
}

/// A Markdown table; the first row is its head.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let line = |row: &[String; N]| {
        let cells = row.iter().enumerate();
        let padded = cells.map(|(column, cell)| format!(" {cell:<0$} |", width(column)));
        format!("|{}", padded.collect::<String>())
    };
    let rule: String = (0..N)
        .map(|column| format!("{}|", "-".repeat(width(column) + 2)))
        .collect();
    let mut lines: Vec<String> = rows.iter().map(line).collect();
    lines.insert(lines.len().min(1), format!("|{rule}"));
    lines.join("\n")
}

#[cfg(test)]
mod tests;
