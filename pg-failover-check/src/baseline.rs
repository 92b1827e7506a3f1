//! What is there before anything is touched: a whole formation, a client that can write, timers that
//! can meet the promise. Anything else ends the check here.

pub mod client;
pub mod feasibility;
pub mod formation;
pub mod monitor;

use veza_probe::address;
use veza_probe::clock::Clock;
use veza_probe::drill::Site;
use veza_probe::fault::Kind;
use veza_probe::feasible::Feasible;
use veza_probe::incus::Status;
use veza_probe::instance::{self, InstanceName};
use veza_probe::postgres::{Access, Target};
use veza_probe::report::{Condition, Untouched};
use veza_probe::story::Story;
use veza_probe::verdict::{Judgement, Verdict};

use crate::cli::Args;
use crate::targets::{self, Targets};
use formation::Node;
use monitor::Monitor;

/// A node with its place in Incus and on the network.
#[derive(Clone, Debug)]
pub struct Member {
    /// The node as the monitor knew it.
    pub node: Node,
    /// The instance it runs in.
    pub instance: InstanceName,
    /// Where a client reaches it.
    pub at: Target,
    /// When its postmaster was started, in microseconds of Unix time.
    pub postmaster_started_us: i64,
    /// How long a TCP handshake takes from here, in microseconds.
    pub path_us: Option<i64>,
}

/// What was found.
pub struct Baseline {
    /// The monitor, with an open session.
    pub monitor: Monitor,
    /// The primary.
    primary: Member,
    /// All nodes, the primary among them.
    pub members: Vec<Member>,
    /// How the client logs in.
    pub client: Access,
    /// The hosts that the client tries: those of its URI, else the monitor's nodes.
    pub client_hosts: Vec<Target>,
    /// What the live timers can promise.
    pub feasible: Feasible,
    /// What has to be equal for two runs to be comparable.
    pub conditions: Vec<Condition>,
    /// What a person should know.
    pub notes: Vec<String>,
}

impl Baseline {
    /// The primary.
    pub fn primary(&self) -> &Member {
        &self.primary
    }

    /// The other nodes: control members of the fault's evidence.
    pub fn others(&self) -> impl Iterator<Item = &Member> {
        let primary = self.primary.node.id;
        self.members.iter().filter(move |m| m.node.id != primary)
    }
}

/// Measures; the cheapest refusals first.
///
/// # Errors
/// Refused, with the reason and a table of the nodes; missing tool when an address that the client
/// needs can't be reached from here.
pub async fn measure(
    clock: &Clock,
    (site, targets): (&Site, &Targets),
    args: &Args,
    story: &Story,
) -> Result<Baseline, Untouched> {
    let monitor = Monitor::open(clock, targets, args).await?;
    story.say(&format!(
        "monitor {} answers (pg_auto_failover {})",
        monitor.at, monitor.extension
    ));
    let nodes = monitor
        .nodes()
        .await
        .map_err(|e| refused("monitor-unreadable", e.to_string()))?;
    let whole = formation::whole(&nodes);
    let primary_id = whole.as_ref().map(|node| node.id);
    let primary_id = primary_id.map_err(|missing| {
        let reason = format!("the formation is not whole: {missing}");
        with_nodes(refused("formation-not-whole", reason), &nodes)
    })?;
    let feasible = feasible(&monitor, args).await?;
    let placed = place((site, targets), args, &nodes)
        .await
        .map_err(|u| with_nodes(u, &nodes))?;
    let client = client_access(targets, &monitor, &nodes).await?;
    let members = client::look(clock, &client, placed)
        .await
        .map_err(|u| with_nodes(u, &nodes))?;
    let primary = members.iter().find(|m| m.node.id == primary_id).cloned();
    let Some(primary) = primary else {
        return Err(refused("formation-not-whole", "no node is primary"));
    };
    client::write_once(clock, &client, &primary, args.read_only)
        .await
        .map_err(|u| with_nodes(u, &nodes))?;
    story.say(&format!(
        "formation is whole: primary {}, {} nodes",
        primary.node.name,
        nodes.len()
    ));
    if let Some((access, at)) = &targets.pooler {
        client::through_pooler(access, at).await?;
        story.say(&format!("pooler {at} lets clients through to a primary"));
    }
    let mut conditions = monitor.conditions().await;
    conditions.extend(client::conditions(&client, &primary).await);
    let mut notes: Vec<String> = feasible.warning().into_iter().collect();
    notes.extend(
        client
            .login
            .warnings
            .iter()
            .chain(&targets.monitor.login.warnings)
            .cloned(),
    );
    let client_hosts = client_hosts((site, targets), &client, &members).await?;
    Ok(Baseline {
        monitor,
        primary,
        members,
        client,
        client_hosts,
        feasible,
        conditions,
        notes,
    })
}

async fn feasible(monitor: &Monitor, args: &Args) -> Result<Feasible, Untouched> {
    let timers = monitor
        .timers()
        .await
        .map_err(|e| refused("timers-unreadable", e.to_string()))?;
    let feasible = feasibility::judge(&timers, args.rto_target);
    // A restart does not go through the monitor's timers.
    let judged = !args.allow_infeasible && !matches!(args.fault, Kind::KillRestart(_));
    match feasible.refusal("the monitor") {
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

/// Where each node is: its address through Incus, and the instance that has it.
async fn place(
    (site, targets): (&Site, &Targets),
    args: &Args,
    nodes: &[Node],
) -> Result<Vec<(Node, InstanceName, Target)>, Untouched> {
    let known: Vec<_> = site
        .instances
        .iter()
        .map(|i| (i.name.clone(), i.ipv4()))
        .collect();
    let mut placed = Vec::new();
    for node in nodes {
        let found = address::resolve(&node.host, &site.instances).await;
        let found = found.map_err(|e| refused("node-address-unknown", e.to_string()))?;
        let chosen = args.chosen_instance(&node.name);
        let instance = instance::of_node(&node.name, &node.host, found.address, &known, chosen)
            .map_err(|e| refused("node-instance-unknown", e.to_string()))?;
        let running = site.instances.iter().find(|i| i.name == instance);
        if running.is_none_or(|i| i.status != Status::Running) {
            let reason = format!(
                "node {} runs in {instance}, which is not running",
                node.name
            );
            return Err(refused("instance-not-running", reason));
        }
        if args.observe_from.as_ref() == Some(&instance) {
            let reason = format!(
                "--observe-from {instance}: node {} runs there, and clients don't; a node that is \
                 broken observes nothing",
                node.name
            );
            return Err(refused("observer-in-node", reason));
        }
        let address = std::net::SocketAddr::new(found.address.into(), node.port);
        let at = Target {
            name: node.host.clone(),
            address,
            way: targets.way(),
        };
        placed.push((node.clone(), instance, at));
    }
    Ok(placed)
}

async fn client_access(
    targets: &Targets,
    monitor: &Monitor,
    nodes: &[Node],
) -> Result<Access, Untouched> {
    if let Some(formation) = &targets.formation {
        return Ok(formation.clone());
    }
    let dbname = monitor
        .dbname()
        .await
        .map_err(|e| refused("monitor-unreadable", e.to_string()))?;
    let hosts: Vec<_> = nodes.iter().map(|n| (n.host.clone(), n.port)).collect();
    targets::access_to_nodes(&hosts, &dbname)
}

/// Where the client's hosts are.
async fn client_hosts(
    (site, targets): (&Site, &Targets),
    client: &Access,
    members: &[Member],
) -> Result<Vec<Target>, Untouched> {
    if targets.formation.is_none() {
        return Ok(members.iter().map(|m| m.at.clone()).collect());
    }
    let mut hosts = Vec::new();
    for host in &client.login.conninfo.hosts {
        let (instances, way) = (&site.instances, targets.way());
        let at = targets::locate(&host.name, host.hostaddr, host.port, instances, way);
        hosts.push(
            at.await
                .map_err(|e| refused("client-host-unknown", e.to_string()))?,
        );
    }
    Ok(hosts)
}

/// A refusal that tells a person where to look.
pub fn refused(reason_id: &str, reason: impl Into<String>) -> Untouched {
    let next = "see docs/runbooks/pg-failover-check.md";
    Judgement::new(Verdict::Refused, reason_id, reason, next).into()
}

fn with_nodes(mut untouched: Untouched, nodes: &[Node]) -> Untouched {
    untouched
        .tables
        .push(formation::table("Nodes", nodes, |_| None));
    untouched
}
