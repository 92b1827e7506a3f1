//! What a client and the monitor see, from before the fault until redundancy is back.

pub mod follower;
pub mod heartbeat;
pub mod rivals;
pub mod phases;

use std::collections::BTreeSet;
use std::time::Duration;

use veza_probe::clock::{self, At, Clock, Stop};
use veza_probe::drill::{self, Client, ClientSaw, Found};
use veza_probe::fault::Fault;
use veza_probe::ledger::{self, Attempt, Ledger};
use veza_probe::outpost::Outpost;
use veza_probe::postgres;
use veza_probe::prober::{Prober, Sample};
use veza_probe::report::Untouched;
use veza_probe::story::Story;
use veza_probe::undo::{Chore, guarded};

use crate::baseline::client::postmaster_started;
use crate::baseline::{Baseline, refused};
use crate::cli::Args;
use crate::targets;
use follower::{Follower, Record};
use heartbeat::{Heartbeat, NodeClient};
use rivals::{Asker, Rivals};

/// Connections are made for this long before the first probe is due.
const CONNECT_FIRST: Duration = Duration::from_millis(500);

/// The observation under way.
pub struct Watch {
    client: Client,
    /// Beside a pooler: the nodes, asked whether they would take a write.
    direct: Option<Prober>,
    follower: Follower,
    heartbeat: Heartbeat,
    rivals: Option<Rivals>,
}

/// Everything that was seen.
pub struct Observation {
    /// What the client saw.
    pub client: ClientSaw,
    /// What a probe did.
    pub action: String,
    /// Where clients go through a pooler: samples of the nodes, asked whether they would take a write.
    pub direct: Vec<Sample>,
    /// What the monitor said.
    pub record: Record,
    /// What each node answered when it was asked to take a write; empty when none was.
    pub rivals: Vec<Asker>,
    /// What became of the writes; none when there were none, or not yet, or they can't be read.
    pub ledger: Option<Ledger>,
    /// How many writes that some node acknowledged when it was asked are not there at the end.
    pub rivals_lost: Option<usize>,
    /// What else a person should know: what could not be read or cleaned up, and whether the old
    /// primary's postmaster is another one now.
    pub leftovers: Vec<String>,
}

/// The schema of a run; none where its probes don't write.
pub fn schema(args: &Args, run: &str) -> Option<String> {
    (!args.read_only).then(|| heartbeat::schema(run))
}

/// Makes the heartbeat's table, starts the probes and the monitor's follower, and watches for the
/// warm-up.
///
/// # Errors
/// Refused when the table can't be made, or when a probe failed before anything was broken; nothing
/// is left behind then.
pub async fn start(
    clock: &Clock,
    (found, run): (&Found<Args>, &str),
    args: &Args,
    story: &Story,
    stop: &mut Stop,
) -> Result<Watch, Untouched> {
    let (targets, baseline) = (&found.targets, &found.baseline);
    let shape = args.drill.shape().map_err(drill::usage::<Args>)?;
    let schema = schema(args, run);
    let heartbeat = Heartbeat::make(baseline, schema.as_deref()).await?;
    let limit = shape.connect_limit();
    let client = |(at, table): (&postgres::Target, Option<String>)| NodeClient {
        at: at.clone(),
        access: baseline.client.clone(),
        table,
        limit,
        pooled: false,
    };
    let nodes = |table: Option<String>| -> Vec<NodeClient> {
        let hosts = baseline.client_hosts.iter();
        hosts.map(|at| client((at, table.clone()))).collect()
    };
    let first_due = clock.at().plus(CONNECT_FIRST);
    let probe = |hosts: Vec<NodeClient>| match &targets.outpost {
        None => Ok(Prober::start(*clock, shape, hosts, first_due)),
        Some(outpost) => {
            let carried = heartbeat::pack(hosts)?;
            Ok::<_, Untouched>(outpost.probe(*clock, carried, shape, first_due))
        }
    };
    let (prober, direct) = match &targets.pooler {
        None => (probe(nodes(heartbeat.table()))?, None),
        Some((access, at)) => {
            let through = NodeClient {
                access: access.clone(),
                pooled: true,
                ..client((at, heartbeat.table()))
            };
            // Only asked, so that every row of the table came through the pooler.
            (probe(vec![through])?, Some(probe(nodes(None))?))
        }
    };
    let follower = Follower::start(*clock, story.clone(), &baseline.monitor);
    let rivals = heartbeat.rivals();
    let rivals = rivals.map(|table| Rivals::start(*clock, baseline, table));
    let mut watch = Watch {
        client: Client::new(clock, story, (prober, shape), args.drill.settle),
        direct,
        follower,
        heartbeat,
        rivals,
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

impl Observation {
    /// The samples of the nodes beside a pooler that count for outages and phases.
    pub fn steady_direct(&self) -> &[Sample] {
        self.client.steady_of(&self.direct)
    }
}

impl drill::Watch<Args> for Watch {
    fn note(&mut self, what: String) {
        self.client.note(what);
    }

    fn cut_off(&mut self, found: &Found<Args>) {
        if let Some(rivals) = &mut self.rivals {
            let baseline = &found.baseline;
            rivals.ask_inside(&found.site.incus, baseline.primary(), baseline);
        }
    }

    fn joined(&mut self) {
        if let Some(rivals) = &mut self.rivals {
            rivals.ask_outside();
        }
    }

    fn lost(&self) -> Option<String> {
        self.client.lost()
    }

    async fn until_service_back(&mut self, fault: &Fault, limit: Duration, stop: &mut Stop) {
        self.client.until_service_back(fault, limit, stop).await;
    }

    /// The monitor says when the formation is whole again.
    async fn until_redundant(&mut self, since: At, limit: Duration, stop: &mut Stop) {
        let follower = &self.follower;
        let is_whole = || follower.inspect(|record| record.whole_again(since).1.is_some());
        let (news, told) = (follower.subscribe(), "formation is whole again");
        let whole = self
            .client
            .until_whole((since, limit), news, is_whole, told, stop);
        whole.await;
    }

    fn so_far(&self) -> Observation {
        let direct = self.direct.as_ref().map(|d| d.so_far().samples);
        Observation {
            client: self.client.so_far(),
            action: self.heartbeat.action(),
            direct: direct.unwrap_or_default(),
            record: self.follower.inspect(Record::clone),
            rivals: self.rivals.as_ref().map(Rivals::so_far).unwrap_or_default(),
            ledger: None,
            rivals_lost: None,
            leftovers: Vec::new(),
        }
    }

    async fn finish(self, found: &Found<Args>) -> Observation {
        let baseline = &found.baseline;
        let client = self.client.finish().await;
        let direct = match self.direct {
            Some(direct) => direct.finish().await,
            None => Vec::new(),
        };
        let record = self.follower.finish();
        let rivals = match self.rivals {
            Some(rivals) => rivals.finish().await,
            None => Vec::new(),
        };
        let action = self.heartbeat.action();
        let mut leftovers = Vec::new();
        let ledger = match reconciled(&self.heartbeat, baseline, &client.samples).await {
            Ok(ledger) => ledger,
            Err(words) => {
                leftovers.push(format!("the rows could not be read: {words}"));
                None
            }
        };
        leftovers.extend(restart_told(baseline).await);
        let rivals_lost = rivals_lost(&self.heartbeat, baseline, &rivals).await;
        leftovers.extend(self.heartbeat.remove(baseline).await);
        Observation {
            client,
            action,
            direct,
            record,
            rivals,
            ledger,
            rivals_lost,
            leftovers,
        }
    }
}

/// Compares what the client was told with the rows that are there.
async fn reconciled(
    heartbeat: &Heartbeat,
    baseline: &Baseline,
    samples: &[Sample],
) -> Result<Option<Ledger>, String> {
    let Some(table) = heartbeat.table() else {
        return Ok(None);
    };
    let rows = heartbeat.rows(baseline, &table).await?;
    let attempts: Vec<Attempt> = samples.iter().map(Attempt::from).collect();
    Ok(Some(ledger::reconcile(&attempts, &rows)))
}

/// Whether the old primary's postmaster was started anew; none when it lets no client in yet.
async fn restart_told(baseline: &Baseline) -> Option<String> {
    let (old, access) = (baseline.primary(), &baseline.client);
    let limit = Duration::from_secs(2);
    let session = postgres::connect(&old.at, &access.login, &access.tls, limit).await;
    let started = postmaster_started(&session.ok()?).await.ok()?;
    let name = &old.node.name;
    Some(if started == old.postmaster_started_us {
        format!("{name} has the same postmaster as before")
    } else {
        format!("{name} has a new postmaster")
    })
}

/// How many rows that a node acknowledged when it was asked are not there: they were taken by a node
/// that had lost its role.
async fn rivals_lost(
    heartbeat: &Heartbeat,
    baseline: &Baseline,
    rivals: &[Asker],
) -> Option<usize> {
    let rows = heartbeat.rows(baseline, &heartbeat.rivals()?).await.ok()?;
    let rows: BTreeSet<u64> = rows.into_iter().collect();
    let took = rivals.iter().flat_map(|asker| &asker.took);
    Some(took.filter(|number| !rows.contains(number)).count())
}

/// Does a chore that an earlier run left, as its watchdog or a later run of the same program.
///
/// # Errors
/// What stood in the way.
pub async fn chore(args: &Args, chore: &Chore) -> Result<String, String> {
    // Alive until the chore is done.
    let mut outpost = None;
    if let Some(instance) = heartbeat::observer(chore) {
        let (incus, _) = drill::connect(&args.drill)
            .await
            .map_err(|untouched| untouched.judgement.reason)?;
        let opened = Outpost::open(&incus, &Clock::start(), &instance).await;
        outpost = Some(opened.map_err(|error| error.to_string())?);
    }
    let way = outpost.as_ref().map(Outpost::way).unwrap_or_default();
    heartbeat::do_chore(chore, &way, |hosts, dbname| {
        let access = match &args.formation_conninfo {
            Some(conninfo) => targets::access(conninfo.clone(), "PGAF_FORMATION"),
            None => targets::access_to_nodes(hosts, dbname),
        };
        access.map_err(|untouched| untouched.judgement.reason)
    })
    .await
}

/// Gives the roles back, where that was asked for; what came of it.
pub async fn switched_back(
    clock: &Clock,
    baseline: &Baseline,
    args: &Args,
    story: &Story,
) -> Vec<String> {
    if !args.switch_back {
        return Vec::new();
    }
    story.say("switching back");
    let back = switch_back(clock, baseline, args.redundancy_target);
    match guarded(back).await {
        Ok(Ok(took_s)) => vec![format!("roles were switched back in {took_s:.1} s")],
        Ok(Err(words)) | Err(words) => vec![format!("roles were not switched back: {words}")],
    }
}

/// Makes the old primary primary again, by the monitor's own switchover; returns how long that took,
/// in seconds, until the formation was whole.
///
/// # Errors
/// What the monitor said, or that the formation was not whole in time.
async fn switch_back(clock: &Clock, baseline: &Baseline, limit: Duration) -> Result<f64, String> {
    let old = baseline.primary();
    let began = clock.at();
    baseline
        .monitor
        .promote(&old.node.name)
        .await
        .map_err(|e| e.to_string())?;
    let deadline = began.plus(limit);
    loop {
        let nodes = baseline.monitor.nodes().await.map_err(|e| e.to_string())?;
        let whole = crate::baseline::formation::whole(&nodes).map(|primary| primary.id);
        let missing = match whole {
            Ok(primary) if primary == old.node.id => {
                return Ok(clock.at().us_since(began) as f64 / 1e6);
            }
            Ok(_) => "another node is still primary".to_owned(),
            Err(missing) => missing,
        };
        if clock.at() >= deadline {
            return Err(format!("after {:.0} s: {missing}", limit.as_secs_f64()));
        }
        clock::sleep(Duration::from_millis(250)).await;
    }
}
