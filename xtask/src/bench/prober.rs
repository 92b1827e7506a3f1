//! `cargo xtask bench prober`: the prober, and the poll loop of a shell script beside it, against
//! services on the loopback interface whose outages are known to the microsecond.
//!
//! ```text
//! seed ─► truth ─► service ◄── client: probers, each on its standing connections
//!                     ▲        client: a poll loop
//!                     └─ notes when it served whom            all ─► score ─► summary
//! ```

mod truth;
mod service;
mod client;
mod score;
mod cost;
mod summary;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use tokio::task::JoinSet;
use veza_probe::clock::{At, Clock, micros};
use veza_probe::outage::{detectable, outages};
use veza_probe::prober::{Lateness, Prober, Sample, Shape};
use veza_probe::story::Story;

use crate::cargo::{fresh_folder, workspace};

use client::{Client, Poll};
use score::Score;
use service::Service;
use summary::{Observed, Summary};
use truth::{GAP, Plan, Truth};

/// No outage is shorter; none is as long as the longest.
const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(10);

/// Probers and services start this long after the plan is made.
const START_AFTER: Duration = Duration::from_secs(1);

/// Between the first probes of two probers, so that they do not all wake at once.
const STAGGER: Duration = Duration::from_micros(1_700);

/// What is measured, and how much of it.
#[derive(clap::Args)]
pub struct Args {
    /// How many outages there are, in all services together.
    #[arg(long, value_name = "COUNT", default_value_t = 320, value_parser = clap::value_parser!(u64).range(4..))]
    outages: u64,
    /// How many services have their outages side by side, each with its own observers.
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=64))]
    lanes: u64,
    /// Decides when outages begin, how long they last, and in which order they come.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A prober in milliseconds: from probe to probe, limit of a probe, from one attempt to connect
    /// to the next. Given several times, all of them watch the same outages.
    #[arg(long = "shape", value_name = "SPACING/LIMIT/RECONNECT", value_parser = shape,
        default_values = ["20/1000/100", "20/100/100", "20/100/20"])]
    shapes: Vec<Shape>,
    /// How long the processor time of the prober is measured.
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
    cost_seconds: u64,
    /// Only probes this service and prints what that cost.
    #[arg(long, value_name = "ADDRESS", hide = true)]
    probe_only: Option<SocketAddr>,
}

/// `20/1000/100`, in milliseconds.
fn shape(text: &str) -> Result<Shape, String> {
    let parts: Result<Vec<u64>, _> = text.split('/').map(str::parse).collect();
    let Ok([spacing, limit, reconnect]) = parts.as_deref() else {
        return Err("three whole numbers of milliseconds are needed, like 20/1000/100".to_owned());
    };
    let shape = Shape::default()
        .with_spacing(Duration::from_millis(*spacing))
        .and_then(|shape| shape.with_limit(Duration::from_millis(*limit)))
        .and_then(|shape| shape.with_reconnect_every(Duration::from_millis(*reconnect)));
    shape.map_err(|error| error.to_string())
}

/// Measures, prints the tables, and writes `bench/prober.json`; each outage with each observer's
/// bounds goes to a file below `target/bench`.
///
/// # Errors
/// When it can't be measured or written.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let cost_stretch = Duration::from_secs(args.cost_seconds);
    if let Some(address) = args.probe_only {
        return cost::probe_only(address, cost_stretch).await;
    }
    let clock = Clock::start();
    let story = Story::new(false);
    let cost = cost::measure(cost_stretch).await?;
    let plan = Plan {
        count: args.outages,
        lanes: args.lanes,
        seed: args.seed,
        shortest: SHORTEST,
        longest: LONGEST,
    };
    let first_due = clock.at().plus(START_AFTER);
    let lanes = plan.schedule(first_due);
    let last = lanes.iter().flatten().map(|truth| truth.end).max();
    let takes_s = last.map_or(0.0, |end| end.us_since(first_due) as f64 / 1e6);
    story.say(&format!(
        "{} outages in {} services, watched by {} probers and a poll loop each: {takes_s:.0} s",
        args.outages,
        args.lanes,
        args.shapes.len()
    ));
    let seen = watch(clock, &lanes, &args.shapes, first_due).await;
    story.end();
    let summary = summarize(&args, &seen?, cost);
    let folder = fresh_folder("bench", clock)?;
    write(&folder.join("prober-outages.json"), &summary.each)?;
    let bench = workspace()?.join("bench");
    std::fs::create_dir_all(&bench).with_context(|| format!("creating {}", bench.display()))?;
    write(&bench.join("prober.json"), &summary)?;
    summary.tell(&folder)?;
    Ok(match summary.promises_kept() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn write(path: &std::path::Path, value: &impl serde::Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value)? + "\n";
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

/// What one service's observers saw.
struct Seen {
    truths: Vec<Truth>,
    /// For each prober its samples, and when the service served it.
    probers: Vec<(Vec<Sample>, Vec<At>)>,
    polls: Vec<Poll>,
}

async fn watch(
    clock: Clock,
    lanes: &[Vec<Truth>],
    shapes: &[Shape],
    first_due: At,
) -> anyhow::Result<Vec<Seen>> {
    let mut tasks = JoinSet::new();
    let mut first_due = first_due;
    for truths in lanes {
        tasks.spawn(lane(clock, truths.clone(), shapes.to_vec(), first_due));
        first_due = first_due.plus(STAGGER * shapes.len() as u32);
    }
    let mut all = Vec::new();
    while let Some(seen) = tasks.join_next().await {
        all.push(seen??);
    }
    Ok(all)
}

/// One service with its outages, its probers, and its poll loop.
async fn lane(
    clock: Clock,
    truths: Vec<Truth>,
    shapes: Vec<Shape>,
    first_due: At,
) -> anyhow::Result<Seen> {
    let service = Service::start(clock, truths.clone(), shapes.len()).await?;
    let address = service.address();
    let probers: Vec<Prober> = shapes
        .iter()
        .zip(0_u32..)
        .map(|(shape, number)| {
            let client = Client {
                number: number as usize,
                address,
            };
            let due = first_due.plus(STAGGER * number);
            Prober::start(clock, *shape, vec![client], due)
        })
        .collect();
    let until = truths.last().map_or(first_due, |truth| truth.end).plus(GAP);
    let polls = client::poll(clock, address, first_due, until).await;
    clock.sleep_until(until).await;
    let mut seen = Vec::new();
    for (number, prober) in probers.into_iter().enumerate() {
        seen.push((prober.finish().await, service.served(number)));
    }
    Ok(Seen {
        truths,
        probers: seen,
        polls,
    })
}

fn summarize(args: &Args, seen: &[Seen], cost: cost::Cost) -> Summary {
    let observed = args.shapes.iter().enumerate().map(|(number, shape)| {
        let mut samples = Vec::new();
        let mut score = Score::default();
        for lane in seen {
            let Some((own, served)) = lane.probers.get(number) else {
                continue;
            };
            let limit_us = micros(detectable(shape));
            score.add(score::probed(&lane.truths, &outages(own), served, limit_us));
            samples.extend_from_slice(own);
        }
        Observed {
            shape: *shape,
            score,
            lateness: Lateness::of(&samples),
        }
    });
    let observed: Vec<Observed> = observed.collect();
    let polled = seen
        .iter()
        .flat_map(|lane| score::polled(&lane.truths, &lane.polls));
    Summary::new(
        summary::Settings {
            outages: args.outages,
            lanes: args.lanes,
            seed: args.seed,
        },
        &observed,
        polled.collect(),
        cost,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_three_numbers_that_make_sense() {
        let parsed = shape("20/1000/100").unwrap();
        assert_eq!(parsed, Shape::default());
        for wrong in [
            "",
            "20",
            "20/1000",
            "20/1000/100/1",
            "20/1 s/100",
            "0/1000/100",
        ] {
            assert!(shape(wrong).is_err(), "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn a_lane_without_outages_sees_none() {
        let shape = Shape::default();
        let clock = Clock::start();
        let first_due = clock.at().plus(Duration::from_millis(200));
        let seen = lane(clock, Vec::new(), vec![shape], first_due)
            .await
            .unwrap();
        let (samples, served) = &seen.probers[0];
        assert!(!samples.is_empty() && !served.is_empty() && !seen.polls.is_empty());
    }
}
