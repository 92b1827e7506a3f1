//! What readers, the cluster and each object say, from before the fault until redundancy is back.

pub mod objects;
pub mod stage;
pub mod readers;
pub mod cluster;
pub mod refusals;
pub mod chores;
pub mod healing;

use std::sync::Arc;
use std::time::Duration;

use veza_probe::clock::{self, At, Clock, Stop};
use veza_probe::drill::{self, Client, ClientSaw, Found, SoFar};
use veza_probe::fault::Fault;
use veza_probe::prober::{Prober, Shape};
use veza_probe::report::Untouched;
use veza_probe::story::Story;

use crate::baseline::denied;
use crate::cli::Args;
use crate::cli::course::{Act, Carried, Object};
use crate::fault::UNIT;
use crate::targets::store::LIMIT;
use crate::targets::{Node, refused};
use cluster::{Follower, Record};
use healing::acts::{self, Played};
use objects::{Read, Reading};
use readers::{IN_FLIGHT, READ_LIMIT, Reader};
use refusals::{REFUSAL_LIMIT, Tried};
use stage::{Log, Stage, Written};

/// Connections are made for this long before the first probe is due.
const CONNECT_FIRST: Duration = Duration::from_millis(300);

/// How many objects are tried to be read where no read is promised: each may wait for its whole limit.
const TRIED_WITHOUT: usize = 8;

/// How often a reading that came to nothing is tried again, as an application would: busy is not lost.
const TRIES: usize = 2;
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// How long a cluster is watched in which no read is promised.
const NOTHING_SERVED: Duration = Duration::from_secs(10);

/// What a probe did, for people.
pub const ACTION: &str = "one object read and hashed, through the nodes that stay up in turn";

/// The observation under way.
pub struct Watch {
    stage: Stage,
    client: Client,
    follower: Follower,
    objects: Vec<Object>,
    seen: Beside,
}

/// What was seen beside probes and looks.
#[derive(Clone, Debug, Default)]
pub struct Beside {
    /// Readings of every object while nodes were away that came to nothing; none when it was not tried.
    pub unread: Option<Vec<Reading>>,
    /// How many objects were read while nodes were away.
    pub read_away: usize,
    /// When the first pass over all objects was through.
    pub read_by: Option<At>,
    /// Writes that were tried without quorum.
    pub tried: Vec<Tried>,
    /// Refused writes of which something was there later; none when that was not looked for.
    pub phantoms: Option<Vec<String>>,
    /// Readings through every node after the return that came to nothing; none when it was not tried.
    pub unread_after: Option<Vec<Reading>>,
    /// How many readings there were after the return.
    pub read_after: usize,
    /// When they began: they are a load of their own.
    pub read_after_from: Option<At>,
    /// What was seen of healing.
    pub healing: Played,
    /// What stood in the way of looking.
    pub troubles: Vec<String>,
    /// Why the act was not played to its end.
    pub cut: Option<String>,
}

/// Everything that was seen.
pub struct Observation {
    /// What readers saw.
    pub client: ClientSaw,
    /// Every look at the cluster.
    pub record: Record,
    /// What was read amiss, and what was noted.
    pub written: Written,
    /// What was seen beside.
    pub seen: Beside,
    /// Every object, as it must be now.
    pub objects: Vec<Object>,
}

/// The next act, with what this one hands on.
pub fn next(args: &Args, so_far: &SoFar<'_, Args>) -> Option<Args> {
    let observation = so_far.observation?;
    if observation.seen.cut.is_some() {
        return None;
    }
    let lost = || so_far.found.targets.lost().map(|node| node.name.clone());
    let absent = match args.course.act {
        Act::Degraded | Act::WipeDrive => lost().collect(),
        Act::Lose | Act::Bitrot | Act::Proof => Vec::new(),
    };
    let healing = &observation.seen.healing;
    // Nothing more is broken while something lacks a shard or a drive is not the one that it was, and where nothing was away
    // there is nothing to prove.
    let was_away = so_far.plan.kind.breaks() || args.course.act == Act::Bitrot;
    let whole = healing
        .record
        .as_ref()
        .is_none_or(|record| record.is_whole() && record.replaced.is_empty());
    if !whole || (!was_away && healing.record.is_some()) {
        return None;
    }
    let before = args.course.carried.clone().unwrap_or_default();
    let carried = Carried {
        objects: observation.objects.clone(),
        absent,
        old: before
            .old
            .into_iter()
            .chain(healing.old.iter().cloned())
            .collect(),
        versions: match healing.versions.is_empty() {
            true => before.versions,
            false => healing.versions.clone(),
        },
    };
    let course = args.course.next(carried)?;
    let mut next = args.clone();
    next.course = course;
    Some(next)
}

/// Writes the working set in the first act, reads it back, starts readers and looks, and watches for the warm-up.
///
/// # Errors
/// Refused when something could not be written or read before anything was broken.
pub async fn start(
    clock: &Clock,
    (found, run): (&Found<Args>, &str),
    args: &Args,
    story: &Story,
    stop: &mut Stop,
) -> Result<Watch, Untouched> {
    let stage = Stage {
        clock: *clock,
        story: story.clone(),
        args: args.clone(),
        incus: found.site.incus.clone(),
        nodes: found.targets.nodes.clone(),
        lost: found.targets.lost.clone(),
        prefix: args.prefix(run),
        layout: found.baseline.layout,
        admin: found.targets.admin.clone(),
        before: found.baseline.cluster.clone(),
        log: Log::default(),
    };
    let objects = tokio::select! {
        objects = working_set(&stage) => objects?,
        // Whoever asked for the end is told by the drill; what was written is on record as a chore.
        _ = stop.wait() => Vec::new(),
    };
    // In the proof it must be what healing left.
    let is_proof = args.course.act == Act::Proof;
    if !is_proof && !args.s3_only && stop.requested().is_none() {
        let whole = acts::whole_before(&stage, args.course.act, &objects).await;
        whole.map_err(|words| {
            refused("not-whole", words, "mc admin heal ALIAS, then run it again")
        })?;
    }
    let shape = shape(args, stage.living().len()).map_err(drill::usage::<Args>)?;
    let readable = Arc::new(stage::readable(&objects, &stage.prefix));
    let reader = |node: &Node| Reader::new(node, Arc::clone(&readable), stage.log.clone());
    let hosts: Vec<Reader> = stage.living().into_iter().map(reader).collect();
    let first_due = clock.at().plus(CONNECT_FIRST);
    let prober = Prober::start(*clock, shape, hosts, first_due);
    let mut client = Client::new(clock, story, (prober, shape), args.drill.settle).of("reads");
    let warm = client.warm_up(first_due, args.drill.warm_up, stop).await;
    if let Err(words) = warm {
        return Err(refused(
            "client-unsteady",
            words,
            "look at the cluster's load, then run it again",
        ));
    }
    let follower = Follower::start(&stage);
    let seen = Beside::default();
    Ok(Watch {
        stage,
        client,
        follower,
        objects,
        seen,
    })
}

/// Probes as the arguments have them; the deadline is that of a read.
fn shape(args: &Args, living: usize) -> Result<Shape, String> {
    let shape = args.drill.shape()?;
    let shape = shape
        .with_limit(READ_LIMIT)
        .map_err(|error| error.to_string())?;
    shape
        .with_connections(living.max(1) * IN_FLIGHT)
        .map_err(|error| error.to_string())
}

/// The objects that earlier acts hand on, or new ones; read back through every node.
async fn working_set(stage: &Stage) -> Result<Vec<Object>, Untouched> {
    let through = stage.through_all();
    let objects = match &stage.args.course.carried {
        Some(carried) => carried.objects.clone(),
        None => {
            stage.story.doing("writing the working set");
            let count = stage.args.objects;
            let written = objects::write_all(&through, &stage.prefix, count, LIMIT).await;
            written.map_err(|(node, failure)| {
                let node = stage.nodes.iter().find(|known| known.name == node);
                match node {
                    Some(node) => denied(node, "writing the working set", &failure),
                    None => refused("store-unwell", failure.to_string(), "run it again"),
                }
            })?
        }
    };
    stage
        .story
        .doing("reading the working set through every node");
    let readings = objects::read_all(&through, &objects, LIMIT).await;
    let (count, nodes) = (objects.len(), through.len());
    if let Some(amiss) = readings.iter().find(|reading| reading.read != Read::Right) {
        let words = format!("before anything was broken: {amiss}");
        let reason_id = match amiss.read {
            Read::Changed(_) => "changed-by-others",
            _ => "set-unreadable",
        };
        return Err(refused(
            reason_id,
            words,
            "look at the object, then run it again",
        ));
    }
    stage.story.say(&format!(
        "working set: {count} objects, read right through {nodes} nodes"
    ));
    Ok(objects)
}

impl Watch {
    fn promise(&self) -> crate::baseline::promise::Promise {
        self.stage.layout.without(self.stage.lost.len())
    }

    /// Everything is read through the nodes that stay up, and hashed.
    async fn read_away(&mut self, limit: Duration) {
        let few = if self.promise().reads {
            usize::MAX
        } else {
            TRIED_WITHOUT
        };
        let objects: Vec<Object> = self.objects.iter().take(few).cloned().collect();
        self.stage
            .story
            .doing("reading every object without the nodes that are away");
        let through = self.stage.through_living();
        let readings = objects::read_all(&through, &objects, limit).await;
        self.seen.read_away = readings.len();
        let mut unread = self.stage.log.take(readings);
        if self.promise().reads {
            unread = self.tried_again(&through, unread, limit).await;
        }
        let told = match unread.first() {
            None => format!(
                "every object was read right through the nodes that stay up ({})",
                self.seen.read_away
            ),
            Some(first) => format!(
                "{} of {} readings came to nothing, the first: {first}",
                unread.len(),
                self.seen.read_away
            ),
        };
        self.client.note(told);
        self.seen.read_by = Some(self.stage.clock.at());
        self.seen.unread = Some(unread);
    }

    /// What came to nothing is tried again, and that is told; returns what still comes to nothing.
    async fn tried_again(
        &mut self,
        through: &[objects::Through],
        mut unread: Vec<Reading>,
        limit: Duration,
    ) -> Vec<Reading> {
        for _ in 0..TRIES {
            let Some(first) = unread.first() else { break };
            let count = unread.len();
            self.client.note(format!(
                "{count} readings came to nothing and are tried again, the first: {first}"
            ));
            clock::sleep(TRY_AGAIN).await;
            let again = objects::read_again(through, &self.objects, &unread, limit).await;
            unread = self.stage.log.take(again);
        }
        unread
    }

    /// Writes are tried that must be refused.
    async fn try_writes(&mut self) {
        self.stage.story.doing("trying writes without quorum");
        // Where nothing is promised, an answer is not, either.
        let limit = if self.promise().reads {
            LIMIT
        } else {
            REFUSAL_LIMIT
        };
        let tried = refusals::try_writes(&self.stage, limit).await;
        let taken = tried.iter().filter(|tried| tried.refused.is_none()).count();
        let slowest = tried.iter().map(Tried::took_s).fold(0.0, f64::max);
        let words = tried.iter().find_map(|tried| tried.refused.as_ref());
        let words = words
            .map(|failure| format!(" ({failure})"))
            .unwrap_or_default();
        let (count, refused) = (tried.len(), tried.len() - taken);
        self.client.note(format!(
            "{refused} of {count} writes were not taken, the slowest after {slowest:.2} s{words}"
        ));
        self.seen.tried = tried;
    }

    /// The act itself, while the fault lasts.
    async fn play(&mut self, fault: &Fault, limit: Duration, stop: &mut Stop) {
        match self.stage.args.course.act {
            Act::Lose | Act::Proof => self.while_lost(fault, limit, stop).await,
            Act::Degraded | Act::WipeDrive => self.while_degraded(fault, limit, stop).await,
            Act::Bitrot => self.while_rotten(fault, limit, stop).await,
        }
    }

    /// What is watched while several nodes are away.
    async fn while_lost(&mut self, fault: &Fault, limit: Duration, stop: &mut Stop) {
        let promise = self.promise();
        if !fault.plan.kind.breaks() || promise.reads {
            self.client.until_service_back(fault, limit, stop).await;
        } else {
            let mut stopped = stop.clone();
            tokio::select! {
                () = clock::sleep(NOTHING_SERVED) => {}
                _ = stopped.wait() => {}
            }
        }
        if stop.requested().is_some() || !fault.plan.kind.breaks() {
            return;
        }
        let mut stopped = stop.clone();
        let rest = async {
            // Where nothing is promised, nothing is waited for, either: but what is served must be right.
            self.read_away(if promise.reads { LIMIT } else { READ_LIMIT })
                .await;
            if self.stage.args.course.act == Act::Proof {
                self.look_at_versions().await;
            }
            if !promise.writes && !self.stage.args.s3_only {
                self.try_writes().await;
            }
        };
        tokio::select! {
            () = rest => {}
            _ = stopped.wait() => {}
        }
    }

    /// What is done while one node is away: everything can be read and written, and is; or its drive is emptied.
    async fn while_degraded(&mut self, fault: &Fault, limit: Duration, stop: &mut Stop) {
        self.client.until_service_back(fault, limit, stop).await;
        if stop.requested().is_some() {
            return;
        }
        let mut stopped = stop.clone();
        let rest = async {
            let (stage, played) = (&self.stage, &mut self.seen.healing);
            match stage.args.course.act {
                Act::WipeDrive => acts::empty_drive(stage, UNIT, &self.objects, played).await,
                _ => self.objects = acts::write_away(stage, &self.objects, played).await,
            }
            self.read_away(LIMIT).await;
            if !fault.plan.kind.breaks() {
                // Nobody comes back, so nobody is waited for.
                acts::heal(
                    &self.stage,
                    fault.called,
                    fault.called.plus(limit),
                    &mut self.seen.healing,
                )
                .await;
            }
        };
        tokio::select! {
            () = rest => {}
            _ = stopped.wait() => {}
        }
    }

    /// Bytes are flipped, found and mended.
    async fn while_rotten(&mut self, fault: &Fault, limit: Duration, stop: &mut Stop) {
        self.client.until_service_back(fault, limit, stop).await;
        if stop.requested().is_some() {
            return;
        }
        let mut stopped = stop.clone();
        let deadline = fault.called.plus(limit);
        let flipped = (self.stage.args.bitrot, self.objects.as_slice());
        tokio::select! {
            () = acts::flip(&self.stage, flipped, deadline, &mut self.seen.healing) => {}
            _ = stopped.wait() => {}
        }
    }

    /// In the proof: every version is there, and none that must not be.
    async fn look_at_versions(&mut self) {
        let Some(carried) = &self.stage.args.course.carried else {
            return;
        };
        match acts::look_at_versions(&self.stage, &carried.versions, &carried.old).await {
            Ok(kept) => {
                self.client.note(kept.told());
                self.seen.healing.kept = Some(kept);
            }
            Err(words) => self.seen.healing.troubles.push(words),
        }
    }

    /// After the return everything is read through every node, and refused writes are looked for.
    async fn read_after(&mut self) {
        self.stage
            .story
            .doing("reading every object through every node");
        self.seen.read_after_from = Some(self.stage.clock.at());
        let through = self.stage.through_all();
        let readings = objects::read_all(&through, &self.objects, LIMIT).await;
        self.seen.read_after = readings.len();
        let unread = self.stage.log.take(readings);
        self.seen.unread_after = Some(self.tried_again(&through, unread, LIMIT).await);
        match refusals::phantoms(&self.stage, &self.seen.tried).await {
            Ok(found) => self.seen.phantoms = Some(found),
            Err(words) => self
                .seen
                .troubles
                .push(format!("refused writes could not be looked for: {words}")),
        }
        let count = self.seen.read_after;
        self.client.note(format!(
            "every object was read through every node again ({count} readings)"
        ));
    }
}

impl drill::Watch<Args> for Watch {
    fn note(&mut self, what: String) {
        self.client.note(what);
    }

    fn joined(&mut self) {
        if let Some(object) = stage::readable(&self.objects, &self.stage.prefix)
            .into_iter()
            .next()
        {
            self.follower.try_with(object);
        }
    }

    fn lost(&self) -> Option<String> {
        self.client.lost()
    }

    async fn until_service_back(&mut self, fault: &Fault, limit: Duration, stop: &mut Stop) {
        let (clock, deadline) = (self.stage.clock, fault.called.plus(limit));
        // The watchdog ends a check that lets nodes be away for longer.
        let cut = tokio::select! {
            () = self.play(fault, limit, stop) => false,
            () = clock.sleep_until(deadline) => true,
        };
        if cut {
            let told = format!(
                "after {:.0} s nodes must come back, whatever was not done yet (--max-fault)",
                limit.as_secs_f64()
            );
            self.client.note(told.clone());
            self.seen.cut = Some(told);
        }
    }

    /// Everyone who is asked says when the cluster is whole again; then everything is read.
    async fn until_redundant(&mut self, since: At, limit: Duration, stop: &mut Stop) {
        if matches!(self.stage.args.course.act, Act::Degraded | Act::WipeDrive) {
            let mut stopped = stop.clone();
            tokio::select! {
                () = acts::heal(&self.stage, since, since.plus(limit), &mut self.seen.healing) => {}
                _ = stopped.wait() => {}
            }
        }
        let follower = &self.follower;
        let is_whole = || {
            follower.inspect(|record| {
                record
                    .since(since, |look| look.whole() && look.serves())
                    .1
                    .is_some()
            })
        };
        let (news, told) = (
            follower.subscribe(),
            "every node reads, writes, and says that all is there",
        );
        let whole = self
            .client
            .until_whole((since, limit), news, is_whole, told, stop);
        whole.await;
        if stop.requested().is_none() {
            let mut stopped = stop.clone();
            tokio::select! {
                () = self.read_after() => {}
                _ = stopped.wait() => {}
            }
        }
    }

    fn so_far(&self) -> Observation {
        Observation {
            client: self.client.so_far(),
            record: self.follower.inspect(Record::clone),
            written: self.stage.log.so_far(),
            seen: self.seen.clone(),
            objects: self.objects.clone(),
        }
    }

    async fn finish(self, _found: &Found<Args>) -> Observation {
        let client = self.client.finish().await;
        Observation {
            client,
            record: self.follower.inspect(Record::clone),
            written: self.stage.log.so_far(),
            seen: self.seen,
            objects: self.objects,
        }
    }
}
