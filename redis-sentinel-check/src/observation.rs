//! What a client, the sentinels and the servers see, from before the fault until redundancy is back.

pub mod keys;
pub mod writer;
pub mod sentinels;
pub mod follower;
pub mod reads;
pub mod rivals;
pub mod kept;
pub mod calm;
pub mod phases;

use std::time::Duration;

use veza_probe::clock::{At, Clock, Stop};
use veza_probe::drill::{self, Client, ClientSaw, Found};
use veza_probe::fault::Fault;
use veza_probe::prober::Prober;
use veza_probe::report::Untouched;
use veza_probe::story::Story;
use veza_probe::tenure::Tenure;
use veza_probe::undo::Chore;

use crate::baseline::group::{Eyes, LIMIT};
use crate::baseline::seats::Course;
use crate::baseline::{Baseline, data, refused};
use crate::cli::{Args, Target};
use crate::targets::connection::{Link, Server};
use crate::targets::{Targets, logins};
use follower::{Follower, Record};
use kept::{Keeper, Kept};
use keys::Keys;
use reads::Read;
use rivals::Rivals;
use sentinels::{Heard, Listeners};
use writer::{Ledgers, Log, Route, SentinelClient};

/// Connections are made for this long before the first probe is due.
const CONNECT_FIRST: Duration = Duration::from_millis(500);

/// The observation under way.
pub struct Watch {
    clock: Clock,
    client: Client,
    route: Route,
    keys: Keys,
    log: Log,
    listeners: Listeners,
    follower: Follower,
    rivals: Rivals,
    keeper: Keeper,
    target: Target,
    course: Course,
}

/// Everything that was seen.
pub struct Observation {
    /// What the client saw.
    pub client: ClientSaw,
    /// What the sentinels published.
    pub heard: Heard,
    /// Every look at the group.
    pub record: Record,
    /// What each server answered when it was asked to take a write.
    pub rivals: Vec<Tenure>,
    /// What each server answered when it was asked for what had been acknowledged.
    pub reads: Vec<Read>,
    /// How a client fared that keeps its connection.
    pub kept: Kept,
    /// When all of this was gathered.
    pub ended: At,
    /// What became of the writes; none when that is not known yet, or can't be read.
    pub ledgers: Option<Ledgers>,
    /// What else a person should know: what could not be read or cleaned up, and whether the old master is
    /// another process now.
    pub leftovers: Vec<String>,
}

/// What a probe did, for people.
pub const ACTION: &str =
    "one key set at the master that a sentinel names, then WAIT for the replicas";

/// The chores of the run of this name.
pub fn chores(args: &Args, targets: &Targets, run: &str) -> Vec<Chore> {
    vec![Keys::new(run).chore(&targets.sentinels, &args.master)]
}

/// Does a chore that an earlier run left.
///
/// # Errors
/// What stood in the way.
pub async fn chore(args: &Args, chore: &Chore) -> Result<String, String> {
    let logins = logins(args).map_err(|untouched| untouched.judgement.reason)?;
    keys::do_chore(chore, logins).await
}

/// Starts the probes, the sentinels' listeners and the looks at the group, and watches for the warm-up.
///
/// # Errors
/// Refused when a probe failed before anything was broken; nothing is left behind then.
pub async fn start(
    clock: &Clock,
    (found, run): (&Found<Args>, &str),
    args: &Args,
    story: &Story,
    stop: &mut Stop,
) -> Result<Watch, Untouched> {
    let (targets, baseline) = (&found.targets, &found.baseline);
    let shape = args.drill.shape().map_err(drill::usage::<Args>)?;
    let (keys, log) = (Keys::new(run), Log::default());
    let route = Route {
        master: args.master.clone(),
        sentinel_login: targets.sentinel_login.clone(),
        login: targets.login.clone(),
        places: baseline.places(),
    };
    let client = |sentinel: &Server| SentinelClient {
        sentinel: sentinel.clone(),
        route: route.clone(),
        keys: keys.clone(),
        replicas: replicas(baseline),
        limit: shape.limit(),
        log: log.clone(),
    };
    let hosts: Vec<SentinelClient> = targets.sentinels.iter().map(client).collect();
    let first_due = clock.at().plus(CONNECT_FIRST);
    let prober = Prober::start(*clock, shape, hosts, first_due);
    let (sentinels, login) = (&targets.sentinels, &targets.sentinel_login);
    let eyes = Eyes::new(
        (sentinels, login),
        (&baseline.places(), &targets.login),
        &args.master,
    );
    let mut watch = Watch {
        client: Client::new(clock, story, (prober, shape), args.drill.settle),
        listeners: Listeners::start(*clock, story, sentinels, login),
        follower: Follower::start(*clock, eyes),
        rivals: Rivals::start(*clock, baseline, &targets.login, (&keys, &log)),
        keeper: Keeper::start(*clock, &route, sentinels, &keys),
        target: args.target,
        course: baseline.course,
        clock: *clock,
        route,
        keys,
        log,
    };
    let warm = watch.client.warm_up(first_due, args.drill.warm_up, stop);
    if let Err(words) = warm.await {
        let leftovers = drill::Watch::finish(watch, found).await.leftovers;
        let mut untouched = refused("client-unsteady", words);
        untouched.judgement.reason.push_str(&leftovers.join("; "));
        return Err(untouched);
    }
    Ok(watch)
}

/// When a stage was watched for so many seconds; no longer than the fault may stay.
fn held_until(since: Option<At>, seconds: f64, (fault, limit): (&Fault, Duration)) -> At {
    let most = fault.called.plus(limit);
    let since = since.unwrap_or(fault.called);
    since.plus(Duration::from_secs_f64(seconds)).min(most)
}

/// How many replicas a write has to reach to be safe.
fn replicas(baseline: &Baseline) -> u64 {
    baseline.replicas().count() as u64
}

impl drill::Watch<Args> for Watch {
    fn note(&mut self, what: String) {
        self.client.note(what);
    }

    fn cut_off(&mut self, found: &Found<Args>) {
        if let Some(master) = found.baseline.master() {
            self.rivals.ask_inside(&found.site.incus, master);
        }
    }

    fn joined(&mut self) {
        self.rivals.ask_outside();
    }

    fn lost(&self) -> Option<String> {
        self.client.lost()
    }

    /// Only sentinels are held: clients go on.
    async fn until_next(&mut self, fault: &Fault, limit: Duration, stop: &mut Stop) {
        let since = fault.evidence.as_ref().map(|evidence| evidence.at);
        let until = held_until(since, self.course.first_s, (fault, limit));
        let doing = "sentinels are held, clients go on";
        self.client.watch_until(until, doing, stop).await;
    }

    /// Where sentinels are held, there is nothing to wait for but the time in which a failover would come.
    async fn until_service_back(&mut self, fault: &Fault, limit: Duration, stop: &mut Stop) {
        let last = fault.later.last().map_or(&fault.evidence, |l| &l.evidence);
        let since = last.as_ref().map(|evidence| evidence.at);
        let until = held_until(since, self.course.last_s, (fault, limit));
        match self.target {
            Target::Master => self.client.until_service_back(fault, limit, stop).await,
            Target::Sentinel => {
                let doing = "a sentinel is held, nothing may happen";
                self.client.watch_until(until, doing, stop).await;
            }
            Target::Quorum => {
                let doing = "the master is held without a quorum, nobody may be promoted";
                self.client.watch_until(until, doing, stop).await;
            }
        }
    }

    /// Everyone who is asked says when the group is whole again.
    async fn until_redundant(&mut self, since: At, limit: Duration, stop: &mut Stop) {
        let follower = &self.follower;
        let is_whole = || follower.inspect(|record| record.whole_again(since).1.is_some());
        let (news, told) = (follower.subscribe(), "the group is whole again");
        let whole = self
            .client
            .until_whole((since, limit), news, is_whole, told, stop);
        whole.await;
    }

    fn so_far(&self) -> Observation {
        let asking = self.rivals.so_far();
        Observation {
            client: self.client.so_far(),
            heard: self.listeners.so_far(),
            record: self.follower.inspect(Record::clone),
            reads: asking.reads,
            rivals: asking.tenures,
            kept: self.keeper.so_far(),
            ended: self.clock.at(),
            ledgers: None,
            leftovers: Vec::new(),
        }
    }

    async fn finish(self, found: &Found<Args>) -> Observation {
        let baseline = &found.baseline;
        let client = self.client.finish().await;
        let log = self.log.so_far();
        let heard = self.listeners.finish().await;
        let record = self.follower.finish();
        let asking = self.rivals.finish().await;
        let (kept, ended) = (self.keeper.finish().await, self.clock.at());
        let mut leftovers = Vec::new();
        let end = client.samples.last().map_or(0, |last| last.number + 1);
        let rows = swept((&self.route, &self.keys), found, end, &mut leftovers).await;
        let ledgers = rows.map(|rows| {
            let replicas = replicas(baseline);
            writer::ledgers(&client.samples, &log, replicas, &rows)
        });
        leftovers.extend(restart_told(found).await);
        Observation {
            client,
            heard,
            record,
            rivals: asking.tenures,
            reads: asking.reads,
            kept,
            ended,
            ledgers,
            leftovers,
        }
    }
}

/// Reads which numbered keys are there, as the master has them, and takes them away.
async fn swept(
    (route, keys): (&Route, &Keys),
    found: &Found<Args>,
    end: u64,
    leftovers: &mut Vec<String>,
) -> Option<Vec<u64>> {
    let mut link = match keys::on_master(route, &found.targets.sentinels).await {
        Ok(link) => link,
        Err(words) => {
            leftovers.push(format!("the keys could not be read: {words}"));
            return None;
        }
    };
    let rows = match keys.rows(&mut link, end).await {
        Ok(rows) => Some(rows),
        Err(error) => {
            leftovers.push(format!("the keys could not be read: {error}"));
            None
        }
    };
    let members = found.baseline.members.iter();
    let servers: Vec<String> = members.map(|m| m.name.clone()).collect();
    if let Err(error) = keys.remove(&mut link, end, &servers).await {
        let left = format!(
            "the keys of this run remain until their time is over, a day from now: {error}"
        );
        leftovers.push(left);
    }
    rows
}

/// Whether the old master was started anew; none when it lets no client in yet.
async fn restart_told(found: &Found<Args>) -> Option<String> {
    let old = found.baseline.master()?;
    let login = &found.targets.login;
    let mut link = Link::open(&old.place.server, login, LIMIT).await.ok()?;
    let now = data::state(&mut link).await.ok()?;
    let name = &old.name;
    Some(if now.run_id == old.state.run_id {
        format!(
            "{name} has the same run_id as before: up for {} s",
            now.uptime_s
        )
    } else {
        format!("{name} has a new run_id: up for {} s", now.uptime_s)
    })
}
