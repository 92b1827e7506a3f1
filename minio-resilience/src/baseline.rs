//! What is there before anything is touched: every node, right clocks, quorums, nothing that heals, and a login that
//! may do what is needed. Anything else ends the check here.

pub mod promise;
pub mod skew;
pub mod lab;
pub mod cluster;

use std::time::Duration;

use veza_probe::clock::{self, Clock, within};
use veza_probe::drill::Site;
use veza_probe::report::{Condition, Untouched};
use veza_probe::story::Story;
use veza_probe::way::Way;

use crate::cli::Args;
use crate::cli::course::Act;
use crate::targets::http::{Health, LIMIT};
use crate::targets::store::Failure;
use crate::targets::{Node, Targets, refused};
use promise::{Layout, Promise};
use skew::{OURS, Skew};
use veza_probe::minio::ClusterInfo;

/// How often a node's clock is read, over more than a second, so that its turn is seen.
const READINGS: usize = 11;
const READ_EVERY: Duration = Duration::from_millis(100);

/// Clocks this far apart are refused, in microseconds.
const MOST_SKEW_US: i64 = 1_000_000;

/// The node's own command of MinIO's client for what the cluster says.
pub const NEXT: &str = "mc admin info ALIAS";

/// What was found.
pub struct Baseline {
    /// The cluster, as its admin API has it; nothing of it with `--s3-only`.
    pub cluster: ClusterInfo,
    /// The erasure sets.
    pub layout: Layout,
    /// What the configuration promises without the nodes of this act.
    pub promise: Promise,
    /// What has to be equal for two runs to be comparable.
    pub conditions: Vec<Condition>,
    /// The sums, for people.
    pub sums: Vec<String>,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// Measures; the cheapest refusals first.
///
/// # Errors
/// Refused, with the reason.
pub async fn measure(
    args: &Args,
    clock: &Clock,
    site: &Site,
    targets: &Targets,
    story: &Story,
) -> Result<Baseline, Untouched> {
    let destroys = match args.course.act {
        Act::WipeDrive => Some("--step wipe-drive"),
        Act::Bitrot => Some("--step bitrot"),
        Act::Lose | Act::Degraded | Act::Proof => None,
    };
    if let Some(what) = destroys {
        let project = (args.drill.project.as_str(), &site.project_config);
        lab::lab_only(what, project, |name| std::env::var_os(name))?;
    }
    let lives = all_live(args, clock, targets).await?;
    permitted(args, targets).await?;
    let skews = skews(clock, targets, &lives).await?;
    let mut notes = Vec::new();
    if args.s3_only {
        notes.push(
            "--s3-only: not checked are drives, parity, quorums, healing, free space and versions; what was \
             refused is not told from what failed"
                .to_owned(),
        );
    }
    let cluster = match args.s3_only {
        true => ClusterInfo::default(),
        false => {
            quorums(clock, targets).await?;
            cluster::measure(args, targets).await?
        }
    };
    let layout = cluster::layout(args, targets, &cluster);
    let lost = targets.lost.len();
    let sums = vec![layout.told(lost)];
    let names: Vec<&str> = targets
        .nodes
        .iter()
        .map(|node| node.name.as_str())
        .collect();
    story.say(&format!(
        "{} answer, {}",
        names.join(", "),
        layout.told(lost)
    ));
    let mut conditions = conditions(args, clock, targets, &skews).await;
    conditions.extend(cluster::versions(&cluster));
    notes.extend(cluster::told(&cluster));
    Ok(Baseline {
        cluster,
        layout,
        promise: layout.without(lost),
        conditions,
        sums,
        notes,
    })
}

/// Every node answers. Another store has no health endpoint: there any answer will do.
async fn all_live(args: &Args, clock: &Clock, targets: &Targets) -> Result<Vec<Health>, Untouched> {
    let mut lives = Vec::new();
    for node in &targets.nodes {
        let unreachable = |words: String| {
            let words = format!("{} ({}): {words}", node.name, node.address);
            refused("node-unreachable", words, NEXT)
        };
        let live = node.http.health(clock, "live").await.map_err(unreachable)?;
        if live.code != 200 && !args.s3_only {
            let words = format!("status {} to /minio/health/live", live.code);
            return Err(unreachable(words));
        }
        lives.push(live);
    }
    Ok(lives)
}

/// The login may list and read below the prefix, through every node; whether it may write is seen when the working
/// set is.
async fn permitted(args: &Args, targets: &Targets) -> Result<(), Untouched> {
    let prefix = args.prefix.as_deref().unwrap_or(crate::cli::PREFIXES);
    for node in &targets.nodes {
        let listed = node.store.versions(prefix, LIMIT * 5).await;
        let listed = listed.map_err(|failure| denied(node, "listing the prefix", &failure))?;
        if args.prefix.is_some() && !listed.is_empty() && args.course.carried.is_none() {
            let words = format!(
                "there are objects below {prefix} in {} already; everything below it would be removed",
                node.store.bucket()
            );
            return Err(refused("prefix-in-use", words, "choose another --prefix"));
        }
    }
    Ok(())
}

/// What a failed request comes to, before anything was broken.
pub fn denied(node: &Node, what: &str, failure: &Failure) -> Untouched {
    let words = format!("{what} through {}: {failure}", node.name);
    let reason_id = match failure {
        failure if failure.is_denied() => "credentials-refused",
        failure if failure.word.as_deref() == Some("NoSuchBucket") => "no-bucket",
        _ => "store-unwell",
    };
    let next = match reason_id {
        "credentials-refused" => "correct MINIO_ACCESS_KEY, MINIO_SECRET_KEY or the user's policy",
        "no-bucket" => "make the bucket, or correct MINIO_BUCKET",
        _ => NEXT,
    };
    refused(reason_id, words, next)
}

/// Every node says that reads and writes have their quorum, and that nothing is healing.
async fn quorums(clock: &Clock, targets: &Targets) -> Result<(), Untouched> {
    for node in &targets.nodes {
        for which in ["cluster", "cluster/read"] {
            let asked = node.http.health(clock, which).await;
            let path = format!("/minio/health/{which} through {}", node.name);
            let health = asked
                .map_err(|words| refused("node-unreachable", format!("{path}: {words}"), NEXT))?;
            if health.code != 200 {
                let status = health
                    .status
                    .map(|status| format!(" ({status})"))
                    .unwrap_or_default();
                let words = format!("{path}: status {}{status}: quorum is lost", health.code);
                return Err(refused("no-quorum", words, NEXT));
            }
            if health.healing > 0 {
                let words = format!("{path}: {} drives are healing", health.healing);
                return Err(refused("healing", words, "wait until nothing heals"));
            }
        }
    }
    Ok(())
}

/// How far each node's clock is from ours; refused when two of all are a second apart.
async fn skews(
    clock: &Clock,
    targets: &Targets,
    lives: &[Health],
) -> Result<Vec<(String, Skew)>, Untouched> {
    let of = |health: &Health| {
        let wall = |at| clock.wall(at).as_microsecond();
        Some(Skew::of(
            health.date_s?,
            (wall(health.asked), wall(health.answered)),
        ))
    };
    let mut skews: Vec<(String, Option<Skew>)> = targets
        .nodes
        .iter()
        .zip(lives)
        .map(|(node, live)| (node.name.clone(), of(live)))
        .collect();
    for _ in 0..READINGS {
        for (node, (_, skew)) in targets.nodes.iter().zip(&mut skews) {
            let read = node.http.health(clock, "live").await.ok();
            let read = read.as_ref().and_then(of);
            *skew = match (*skew, read) {
                (Some(known), Some(read)) => Some(known.and(read)),
                (known, read) => known.or(read),
            };
        }
        clock::sleep(READ_EVERY).await;
    }
    let known: Vec<(String, Skew)> = skews
        .into_iter()
        .filter_map(|(name, skew)| Some((name, skew?)))
        .collect();
    let ours = ("this host".to_owned(), OURS);
    let all: Vec<&(String, Skew)> = std::iter::once(&ours).chain(&known).collect();
    for (number, (one, skew)) in all.iter().enumerate() {
        for (other, second) in all.iter().skip(number + 1) {
            let apart_us = skew.apart_us(*second);
            if apart_us >= MOST_SKEW_US {
                let words = format!(
                    "the clocks of {one} and {other} are {:.1} s apart; signatures and healing depend on them",
                    apart_us as f64 / 1e6
                );
                return Err(refused("clock-skew", words, "timedatectl"));
            }
        }
    }
    Ok(known)
}

async fn conditions(
    args: &Args,
    clock: &Clock,
    targets: &Targets,
    skews: &[(String, Skew)],
) -> Vec<Condition> {
    let mut delays = Vec::new();
    for node in &targets.nodes {
        let handshake = within(LIMIT, Way::Here.handshake_us(clock, node.address)).await;
        let us = handshake.ok().and_then(Result::ok);
        let ms = us.map_or_else(|| "?".to_owned(), |us| format!("{:.2}", us as f64 / 1e3));
        delays.push(format!("{} {ms} ms", node.name));
    }
    let clocks = skews
        .iter()
        .map(|(name, skew)| format!("{name} {}", skew.told()));
    let condition = |name: &str, value: String| Condition {
        name: name.to_owned(),
        value,
    };
    vec![
        condition(
            "vantage",
            "the host of this tool, directly to every node".to_owned(),
        ),
        condition("TCP handshake", delays.join(", ")),
        condition("observer's clock", clocks.collect::<Vec<_>>().join(", ")),
        condition("parity", format!("EC:{}", args.parity)),
        condition("objects", args.objects.to_string()),
    ]
}
