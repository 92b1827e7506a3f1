//! What is there before anything is touched: sentinels that agree, replicas in step, a master that would come
//! back with its data, timers that can meet the promise. Anything else ends the check here.

pub mod sentinels;
pub mod data;
pub mod group;
pub mod feasibility;
pub mod history;
pub mod seats;

use std::time::Duration;

use veza_probe::clock::{self, Clock, within};
use veza_probe::drill::Site;
use veza_probe::fault::Kind;
use veza_probe::feasible::Feasible;
use veza_probe::incus::Status;
use veza_probe::instance::{self, InstanceName};
use veza_probe::report::{Condition, Untouched};
use veza_probe::story::Story;
use veza_probe::verdict::{Judgement, Verdict};
use veza_probe::way::Way;

use crate::cli::{Args, Target};
use crate::targets::connection::{Error, Link, Server};
use crate::targets::{Targets, locate};
use data::State;
use feasibility::Timers;
use group::{Eyes, LIMIT, Place};
use seats::{Course, Seat, Seats};
use sentinels::{Announced, Trouble, View};

/// How long a group that is not whole at first is asked again: a replica acknowledges once a second.
const WHOLE_LIMIT: Duration = Duration::from_secs(3);

/// A server with its place in Incus and on the network.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its name, for people: the instance's.
    pub name: String,
    /// The instance it runs in.
    pub instance: InstanceName,
    /// How it is announced, and where it is reached.
    pub place: Place,
    /// What it said of itself.
    pub state: State,
    /// How long a TCP handshake takes from here, in microseconds.
    pub path_us: Option<i64>,
}

/// What was found.
pub struct Baseline {
    /// All servers, the master first.
    pub members: Vec<Member>,
    /// The sentinels: which of them are held, and which go on.
    pub seats: Seats,
    /// How long units are held, where they are.
    pub course: Course,
    /// What the live timers can promise.
    pub feasible: Feasible,
    /// What has to be equal for two runs to be comparable.
    pub conditions: Vec<Condition>,
    /// What a person should know.
    pub notes: Vec<String>,
}

impl Baseline {
    /// The master.
    pub fn master(&self) -> Option<&Member> {
        self.members.first()
    }

    /// Its replicas: control members of the fault's evidence.
    pub fn replicas(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().skip(1)
    }

    /// The names of the sentinels that are not held.
    pub fn living(&self) -> Vec<&str> {
        let living = self.seats.living.iter();
        living.map(|server| server.name.as_str()).collect()
    }

    /// All servers, and how they are reached.
    pub fn places(&self) -> Vec<Place> {
        self.members.iter().map(|m| m.place.clone()).collect()
    }
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
    let sentinels = (targets.sentinels.as_slice(), &targets.sentinel_login);
    let mut eyes = Eyes::new(sentinels, (&[], &targets.login), &args.master);
    let views = eyes
        .views()
        .await
        .map_err(|(name, e)| unanswered("sentinel", &name, &e))?;
    let named: Vec<_> = views
        .iter()
        .map(|(name, view)| (name.as_str(), view))
        .collect();
    let at = sentinels::agreed(&named).map_err(of_trouble)?.clone();
    let Some(view) = views.first().map(|(_, view)| view.clone()) else {
        return Err(refused("sentinel-unreachable", "no sentinel answers"));
    };
    story.say(&format!(
        "{} sentinels agree: {}:{} is the master",
        views.len(),
        at.0,
        at.1
    ));
    let timers = Timers {
        down_after_s: view.down_after_ms as f64 / 1e3,
        failover_timeout_s: view.failover_timeout_ms as f64 / 1e3,
    };
    let feasible = feasible(args, timers)?;
    let placed = place(args, site, &at, &view).await?;
    let members = whole(clock, args, targets, placed).await?;
    let warnings = feasible.warning().into_iter().chain(timers.second());
    let mut notes: Vec<String> = warnings.collect();
    notes.extend(persistent(targets, &members).await?);
    notes.extend(barred(args, &view)?);
    let (seats, course) = seated(args, site, targets, &members, (&view, &feasible))?;
    let read = last_try_s(args, site, targets, &seats.instances).await;
    let settled = settled(args, read, &view, story).await?;
    notes.extend(settled);
    story.say(&format!(
        "the group is whole: {} servers in step",
        members.len()
    ));
    Ok(Baseline {
        conditions: conditions(targets, &members, &view).await,
        members,
        seats,
        course,
        feasible,
        notes,
    })
}

fn feasible(args: &Args, timers: Timers) -> Result<Feasible, Untouched> {
    let feasible = feasibility::judge(timers, &args.fault, args.rto_target);
    // A restart does not go through the sentinels' timers, nothing goes through none, and where sentinels are
    // held no failover is to come.
    let through = !matches!(args.fault, Kind::KillRestart(_) | Kind::None);
    let judged = !args.allow_infeasible && through && args.target == Target::Master;
    match feasible.refusal("the sentinels") {
        Some(reason) if judged => {
            let next = "change the timers or --rto-target; --allow-infeasible runs all the same";
            let judgement = Judgement::new(Verdict::Refused, "target-infeasible", reason, next);
            let mut untouched = Untouched::from(judgement);
            untouched.feasibility.clone_from(&feasible.sums);
            Err(untouched)
        }
        _ => Ok(feasible),
    }
}

/// Where each server is, the master first: its address, and the instance that has it.
async fn place(
    args: &Args,
    site: &Site,
    master: &Announced,
    view: &View,
) -> Result<Vec<(InstanceName, Place)>, Untouched> {
    let known: Vec<_> = site
        .instances
        .iter()
        .map(|i| (i.name.clone(), i.ipv4()))
        .collect();
    let replicas = view.replicas.iter().map(|peer| &peer.at);
    let mut placed = Vec::new();
    for announced in [master].into_iter().chain(replicas) {
        let (host, port) = announced;
        let address = locate(host, *port, &site.instances).await;
        let address = address.map_err(|e| refused("server-address-unknown", e.to_string()))?;
        let std::net::IpAddr::V4(ip) = address.ip() else {
            let words = format!("{host} has no IPv4 address");
            return Err(refused("server-address-unknown", words));
        };
        let chosen = args.chosen_instance(host);
        let instance = instance::of_node(host, host, ip, &known, chosen)
            .map_err(|e| refused("server-instance-unknown", e.to_string()))?;
        let running = site.instances.iter().find(|i| i.name == instance);
        if running.is_none_or(|i| i.status != Status::Running) {
            let words = format!("{host} runs in {instance}, which is not running");
            return Err(refused("instance-not-running", words));
        }
        let server = Server {
            name: instance.to_string(),
            address,
        };
        let announced = announced.clone();
        placed.push((instance, Place { announced, server }));
    }
    Ok(placed)
}

/// Waits, not for long, until everyone says that the group is whole.
async fn whole(
    clock: &Clock,
    args: &Args,
    targets: &Targets,
    placed: Vec<(InstanceName, Place)>,
) -> Result<Vec<Member>, Untouched> {
    let places: Vec<Place> = placed.iter().map(|(_, place)| place.clone()).collect();
    for place in &places {
        let opened = Link::open(&place.server, &targets.login, LIMIT).await;
        opened.map_err(|error| unanswered("server", &place.server.name, &error))?;
    }
    let sentinels = (targets.sentinels.as_slice(), &targets.sentinel_login);
    let mut eyes = Eyes::new(sentinels, (&places, &targets.login), &args.master);
    let deadline = clock.at().plus(WHOLE_LIMIT);
    let look = loop {
        let look = eyes.look().await;
        match look.whole() {
            Ok(_) => break look,
            Err(trouble) if clock.at() >= deadline => return Err(of_trouble(trouble)),
            Err(_) => clock::sleep(Duration::from_millis(200)).await,
        }
    };
    let states = look
        .servers
        .into_iter()
        .filter_map(|(_, _, state)| state.ok());
    let mut members = Vec::new();
    for ((instance, place), state) in placed.into_iter().zip(states) {
        let handshake = Way::Here.handshake_us(clock, place.server.address);
        members.push(Member {
            name: instance.to_string(),
            instance,
            path_us: within(LIMIT, handshake).await.ok().and_then(Result::ok),
            place,
            state,
        });
    }
    Ok(members)
}

/// Whether a master that is started again at once would have its data; one that comes back empty makes its
/// replicas empty, too.
async fn persistent(targets: &Targets, members: &[Member]) -> Result<Vec<String>, Untouched> {
    let mut notes = Vec::new();
    for member in members.iter().filter(|member| !member.state.append_only) {
        let name = &member.name;
        let snapshots = async {
            let mut link = Link::open(&member.place.server, &targets.login, LIMIT).await?;
            data::settings(&mut link, "save")
                .await
                .map(|all| all.into_values().next().unwrap_or_default())
        };
        let words = match snapshots.await {
            Ok(save) if !save.is_empty() => {
                notes.push(format!(
                    "{name} keeps snapshots only (save {save}): started again, it lacks what was written since"
                ));
                continue;
            }
            Ok(_) => "it keeps neither an append-only file nor snapshots".to_owned(),
            Err(error) => format!("it keeps no append-only file, and {error}"),
        };
        let words = format!(
            "{name} may come back empty, and its replicas would be emptied with it: {words}"
        );
        return Err(refused("no-persistence", words));
    }
    Ok(notes)
}

/// Which sentinels are held, and for how long.
fn seated(
    args: &Args,
    site: &Site,
    targets: &Targets,
    members: &[Member],
    (view, feasible): (&View, &Feasible),
) -> Result<(Seats, Course), Untouched> {
    let Some(master) = members.first() else {
        return Err(refused("master-down", "no server is the master"));
    };
    let known = seats_of(site, targets);
    let all = (targets.sentinels.as_slice(), known.as_slice());
    let seats = seats::divide(args.target, all, &master.instance, view.quorum);
    let timers = (view.down_after_ms as f64 / 1e3, feasible.worst_s);
    let max_fault = args.drill.max_fault(args.rto_target);
    let course = seats::course(args.target, timers, max_fault);
    Ok((seats.map_err(of_trouble)?, course.map_err(of_trouble)?))
}

/// What bars every replica from promotion: a failover can't succeed then. That is for the drill to show; where
/// it is to show that nobody is promoted, it would show nothing.
///
/// # Errors
/// Refused, where it would show nothing.
fn barred(args: &Args, view: &View) -> Result<Option<String>, Untouched> {
    let barred = view
        .replicas
        .iter()
        .all(|replica| replica.priority == Some(0));
    let words = "no replica may be promoted: all have replica-priority 0";
    match args.target {
        _ if !barred => Ok(None),
        Target::Master => Ok(Some(words.to_owned())),
        Target::Sentinel | Target::Quorum => Err(refused("promotion-barred", words)),
    }
}

/// The sentinels that run in an instance of the project.
fn seats_of(site: &Site, targets: &Targets) -> Vec<Seat> {
    let seat = |server: &Server| {
        let found = site.instances.iter().find(|instance| {
            let mut own = instance.ipv4().into_iter();
            own.any(|ip| server.address.ip() == ip)
        });
        found.map(|instance| Seat {
            instance: instance.name.clone(),
            server: server.clone(),
        })
    };
    targets.sentinels.iter().filter_map(seat).collect()
}

/// How long ago a sentinel last tried a failover that still counts, in seconds; none when none did.
///
/// # Errors
/// Why that can't be told of every sentinel.
async fn last_try_s(
    args: &Args,
    site: &Site,
    targets: &Targets,
    instances: &[InstanceName],
) -> Result<Option<f64>, String> {
    if instances.len() < targets.sentinels.len() {
        return Err("a sentinel runs in no instance of this project".to_owned());
    }
    let mut last: Option<f64> = None;
    for instance in instances {
        let unit = args.sentinel_unit.as_str();
        let read = history::last_try_s(&site.incus, instance, unit).await?;
        last = match (last, read) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
    Ok(last)
}

/// Makes sure that the sentinels would not wait because of an earlier failover; waits for it where asked to.
async fn settled(
    args: &Args,
    read: Result<Option<f64>, String>,
    view: &View,
    story: &Story,
) -> Result<Option<String>, Untouched> {
    let wait_s = 2.0 * view.failover_timeout_ms as f64 / 1e3;
    // A try is begun up to a second later than its time says.
    let left_s = |ago_s: f64| (wait_s - ago_s + 1.0).max(0.0);
    let (mut rest_s, unread) = match read {
        Ok(last) => (last.map_or(0.0, left_s), None),
        Err(words) => (0.0, Some(words)),
    };
    if let Some(words) = &unread {
        rest_s = wait_s;
        if !args.settle_failover {
            let words = format!("whether a failover was tried just now can't be told: {words}");
            let next = format!("the same command with --settle-failover: it waits {wait_s:.0} s");
            let id = "failover-history-unreadable";
            return Err(Judgement::new(Verdict::Refused, id, words, next).into());
        }
    }
    if rest_s <= 0.0 {
        return Ok(None);
    }
    if !args.settle_failover {
        let words = format!(
            "a failover was tried so recently that the sentinels would not begin another one for {rest_s:.0} s \
             (2 × failover-timeout)"
        );
        let next = "wait, or the same command with --settle-failover";
        return Err(Judgement::new(Verdict::Refused, "failover-too-recent", words, next).into());
    }
    story.say(&format!(
        "waiting {rest_s:.0} s until the sentinels would fail over again"
    ));
    clock::sleep(Duration::from_secs_f64(rest_s)).await;
    Ok(unread.map(|words| format!("waited {wait_s:.0} s before the drill: {words}")))
}

async fn conditions(targets: &Targets, members: &[Member], view: &View) -> Vec<Condition> {
    let condition = |name: &str, value: String| Condition {
        name: name.to_owned(),
        value,
    };
    let versions = members
        .iter()
        .map(|m| format!("{} {}", m.name, m.state.version));
    let mut conditions = vec![
        condition("Redis", versions.collect::<Vec<_>>().join(", ")),
        condition("down-after", format!("{} ms", view.down_after_ms)),
        condition(
            "failover-timeout",
            format!("{} ms", view.failover_timeout_ms),
        ),
        condition("parallel-syncs", view.parallel_syncs.to_string()),
        condition("quorum", view.quorum.to_string()),
    ];
    // What keeps a cut-off master from acknowledging; left out where CONFIG is forbidden.
    if let Some(master) = members.first()
        && let Ok(mut link) = Link::open(&master.place.server, &targets.login, LIMIT).await
    {
        let settings = data::settings(&mut link, "min-replicas-*").await;
        let settings = settings.unwrap_or_default().into_iter();
        conditions.extend(settings.map(|(name, value)| Condition { name, value }));
    }
    conditions
}

/// A refusal that tells a person where to look.
pub fn refused(reason_id: &str, reason: impl Into<String>) -> Untouched {
    let next = "see docs/runbooks/redis-sentinel-check.md";
    Judgement::new(Verdict::Refused, reason_id, reason, next).into()
}

fn of_trouble(trouble: Trouble) -> Untouched {
    refused(trouble.reason_id, trouble.words)
}

/// A sentinel or server that gives no answer: what that comes to.
fn unanswered(kind: &str, name: &str, error: &Error) -> Untouched {
    let what = match error {
        Error::NoWay { .. } => {
            let next = "run the check where clients run, or open the way";
            let (id, words) = ("address-unreachable", error.to_string());
            return Judgement::new(Verdict::MissingTool, id, words, next).into();
        }
        Error::Credentials { .. } => "credentials-refused",
        Error::Said { .. } => "refused",
        Error::Unreachable { .. } | Error::Lost { .. } => "unreachable",
    };
    refused(&format!("{kind}-{what}"), format!("{kind} {name}: {error}"))
}
