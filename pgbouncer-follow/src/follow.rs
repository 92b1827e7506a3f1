//! The follower: round after round, from what the monitor says now to where the pooler goes.
//!
//! Nothing is remembered that decides anything: each round compares the monitor's word, the node's own, the
//! file, and the pooler's memory, and puts right what differs. So a start after a crash is a round like any.

use std::time::Duration;

use veza_probe::clock::{At, Clock, Stop, sleep};
use veza_probe::story::Story;

use crate::cli::Settings;
use crate::console::Console;
use crate::databases;
use crate::formation::{self, Node};
use crate::metrics::Metrics;
use crate::monitor::Monitor;
use crate::node;
use crate::supervisor::Supervisor;

/// Between two rounds when all is well. The monitor says by itself when something changes; this is for a word that was lost,
/// a file or pooler that somebody else changed, and a node that stopped taking writes.
const CALM: Duration = Duration::from_secs(5);
/// While a failover is under way: the moment when the new node takes writes is told by nobody.
const EAGER: Duration = Duration::from_millis(200);
/// For how long a failover is under way; one that takes longer needs a person, not more questions.
const EAGER_FOR: Duration = Duration::from_secs(60);
/// While something is away that only others can bring back.
const PATIENT: Duration = Duration::from_secs(1);
/// After how long something that lasts is said again.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// What a round came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Round {
    /// The pooler goes to the node that the monitor wants and that takes writes.
    Follows {
        /// The node.
        node: Node,
        /// Whether the pooler went elsewhere before this round.
        moved: bool,
        /// Clients that were dropped at the old node.
        dropped: u64,
    },
    /// No node is to be chosen now, for this reason.
    Waits(String),
    /// The monitor does not answer.
    MonitorAway(String),
    /// The file can't be written.
    Unwritable(String),
    /// The file is right, but the pooler does not answer or does not heed it.
    PoolerAway(String),
    /// The monitor spoke in the middle of it.
    Overtaken,
}

impl Round {
    /// The kind, by which it is known whether there is something new to say.
    fn kind(&self) -> u8 {
        match self {
            Round::Follows { .. } => 0,
            Round::Waits(_) => 1,
            Round::MonitorAway(_) => 2,
            Round::Unwritable(_) => 3,
            Round::PoolerAway(_) => 4,
            Round::Overtaken => 5,
        }
    }
}

/// The follower.
pub struct Follower<'a> {
    settings: &'a Settings,
    clock: Clock,
    story: Story,
    metrics: Metrics,
    supervisor: Supervisor,
    monitor: Option<Monitor>,
    console: Option<Console>,
    /// Where the pooler was last seen to go; for what is said, and for nothing else.
    last: Option<Node>,
    /// The node that the monitor wants, and since when.
    wanted: Option<(String, At)>,
    /// Since when rounds come to what they come to, and when it was last said.
    since: (Option<Round>, At, At),
}

impl<'a> Follower<'a> {
    /// A follower that has done nothing yet.
    pub fn new(
        settings: &'a Settings,
        clock: Clock,
        story: Story,
        metrics: Metrics,
        supervisor: Supervisor,
    ) -> Follower<'a> {
        let now = clock.at();
        Follower {
            settings,
            clock,
            story,
            metrics,
            supervisor,
            monitor: None,
            console: None,
            last: None,
            wanted: None,
            since: (None, now, now),
        }
    }

    /// Follows until it is told to stop.
    pub async fn follow(&mut self, stop: &mut Stop) {
        loop {
            let round = tokio::select! {
                round = self.round() => round,
                _ = stop.wait() => break,
            };
            self.tell(&round);
            let pause = self.pause(&round);
            let news = async {
                match &mut self.monitor {
                    Some(monitor) => monitor.news().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = news => {}
                _ = stop.wait() => break,
            }
        }
        self.supervisor.stopping();
    }

    /// One round.
    pub async fn round(&mut self) -> Round {
        let node = match self.choose().await {
            Ok(node) => node,
            Err(round) => return round,
        };
        let text = databases::render(&self.settings.databases, &node.host, node.port);
        let file = &self.settings.args.file;
        let differs = match databases::read(file) {
            Ok(found) => found.as_deref() != Some(text.as_bytes()),
            Err(error) => return Round::Unwritable(error.to_string()),
        };
        if differs {
            let written = databases::write(file, &text);
            self.metrics
                .update(|values| values.file_written = written.is_ok());
            if let Err(error) = written {
                return Round::Unwritable(error.to_string());
            }
        } else {
            self.metrics.update(|values| values.file_written = true);
        }
        let pointed = self.point(&node, differs).await;
        self.metrics
            .update(|values| values.pooler_up = pointed.is_ok());
        match pointed {
            Ok((moved, dropped)) => Round::Follows {
                node,
                moved,
                dropped,
            },
            Err(error) => {
                self.console = None;
                Round::PoolerAway(format!("{error:#}"))
            }
        }
    }

    /// The node that the monitor wants and that itself says that it takes writes.
    ///
    /// # Errors
    /// What the round comes to without one.
    pub async fn choose(&mut self) -> Result<Node, Round> {
        let args = &self.settings.args;
        let nodes = async {
            if self.monitor.is_none() {
                self.monitor = Some(Monitor::open(&self.settings.monitor).await?);
            }
            match &self.monitor {
                Some(monitor) => monitor.nodes(&args.formation, args.group).await,
                None => Ok(Vec::new()),
            }
        };
        let nodes = match nodes.await {
            Ok(nodes) => nodes,
            Err(error) => {
                self.monitor = None;
                self.metrics.update(|values| values.monitor_up = false);
                return Err(Round::MonitorAway(format!("{error:#}")));
            }
        };
        self.metrics.update(|values| {
            values.monitor_up = true;
            values.wanted = nodes.iter().filter(|node| node.is_wanted()).count();
        });
        let node = formation::choose(&nodes).map_err(|refusal| Round::Waits(refusal.told()))?;
        if self
            .wanted
            .as_ref()
            .is_none_or(|(name, _)| *name != node.name)
        {
            self.wanted = Some((node.name.clone(), self.clock.at()));
        }
        let Some(monitor) = &mut self.monitor else {
            return Err(Round::Overtaken);
        };
        // A node that is lost keeps us waiting; what the monitor says meanwhile is more than its silence.
        let asked = tokio::select! {
            biased;
            asked = node::takes_writes(node, &self.settings.node) => asked,
            () = monitor.news() => return Err(Round::Overtaken),
        };
        let takes_writes = matches!(asked, Ok(true));
        self.metrics
            .update(|values| values.takes_writes = takes_writes);
        match asked {
            Ok(true) => Ok(node.clone()),
            Ok(false) => Err(Round::Waits(format!("{} is read only", node.told()))),
            Err(error) => Err(Round::Waits(format!(
                "{} does not say whether it takes writes: {error}",
                node.told()
            ))),
        }
    }

    /// Sees to it that the pooler goes to this node. Says whether it went elsewhere before, and how many
    /// clients had to be dropped there.
    async fn point(&mut self, node: &Node, file_changed: bool) -> anyhow::Result<(bool, u64)> {
        let databases = &self.settings.databases;
        if self.console.is_none() {
            self.console = Some(Console::open(&self.settings.console).await?);
        }
        let Some(console) = &self.console else {
            anyhow::bail!("no console");
        };
        let moved = !console.points_at(databases, &node.host, node.port).await?;
        if moved || file_changed {
            console.reload().await?;
        }
        if !moved {
            return Ok((false, 0));
        }
        anyhow::ensure!(
            console.points_at(databases, &node.host, node.port).await?,
            "it was reloaded, and still goes elsewhere: does pgbouncer.ini have `%include {}`, and may the pooler read that file?",
            self.settings.args.file.display()
        );
        Ok((true, console.drop_those_left_behind(databases).await?))
    }

    /// Whether the pooler goes to this node, in words; nothing is changed.
    pub async fn goes_to(&mut self, node: &Node) -> String {
        let asked = async {
            let console = Console::open(&self.settings.console).await?;
            console
                .points_at(&self.settings.databases, &node.host, node.port)
                .await
        };
        match asked.await {
            Ok(true) => "goes there".to_owned(),
            Ok(false) => "goes elsewhere".to_owned(),
            Err(error) => format!("does not answer ({error:#})"),
        }
    }

    /// How long until the next round, unless the monitor speaks before.
    fn pause(&self, round: &Round) -> Duration {
        let lasts = self.clock.at().us_since(self.since.1);
        match round {
            Round::Follows { .. } => CALM,
            Round::Overtaken => Duration::ZERO,
            Round::Waits(_) if lasts < veza_probe::clock::micros(EAGER_FOR) => EAGER,
            _ => PATIENT,
        }
    }

    /// Says what is new, to people, to systemd and to Prometheus.
    pub fn tell(&mut self, round: &Round) {
        let now = self.clock.at();
        if *round == Round::Overtaken {
            return;
        }
        if let Round::Follows {
            node,
            moved,
            dropped,
        } = round
        {
            let since = self.wanted.as_ref().map_or(now, |(_, since)| *since);
            let took_s = now.us_since(since) as f64 / 1e6;
            let at_s = self.clock.wall(now).as_second();
            self.metrics.update(|values| {
                values.primary = Some(node.clone());
                if *moved {
                    values.changes += 1;
                    values.dropped += dropped;
                    values.changed_at_s = Some(at_s);
                    values.change_took_s = Some(took_s);
                }
            });
            if *moved {
                self.story.say(&format!(
                    "clients now go to {} ({}:{}), {took_s:.1} s after the monitor wanted it; {dropped} were dropped at the old node",
                    node.name, node.host, node.port
                ));
            }
            self.last = Some(node.clone());
        }
        let told = self.told(round);
        let before = self.since.0.as_ref();
        let is_new = before.map(Round::kind) != Some(round.kind());
        let other = before.is_none_or(|before| self.told(before) != told);
        let quiet_us = now.us_since(self.since.2);
        let again = !matches!(round, Round::Follows { .. })
            && quiet_us > veza_probe::clock::micros(if other { PATIENT } else { SAY_AGAIN });
        let moved = matches!(round, Round::Follows { moved: true, .. });
        if (is_new && !moved) || again {
            self.story.say(&told);
            self.since.2 = now;
        }
        if is_new {
            self.since.1 = now;
        }
        self.since.0 = Some(round.clone());
        let at_s = self.clock.wall(now).as_second();
        self.metrics.update(|values| {
            values.following = matches!(round, Round::Follows { .. });
            values.rounds += 1;
            values.round_at_s = at_s;
        });
        self.supervisor.round(&told);
    }

    /// A round in a sentence.
    pub fn told(&self, round: &Round) -> String {
        let stay = match &self.last {
            Some(node) => format!(
                "clients stay with {} ({}:{})",
                node.name, node.host, node.port
            ),
            None => format!(
                "clients stay where {} sends them",
                self.settings.args.file.display()
            ),
        };
        match round {
            Round::Follows { node, .. } => format!(
                "clients go to {} ({}:{}), which takes writes",
                node.name, node.host, node.port
            ),
            Round::Waits(why) => format!("{stay}: {why}"),
            Round::MonitorAway(why) => format!("{stay}: the monitor does not answer: {why}"),
            Round::Unwritable(why) => format!("{stay}: the file can't be written: {why}"),
            Round::PoolerAway(why) => format!(
                "{} is right, but the pooler has not taken it over: {why}",
                self.settings.args.file.display()
            ),
            Round::Overtaken => "the monitor spoke meanwhile".to_owned(),
        }
    }
}
