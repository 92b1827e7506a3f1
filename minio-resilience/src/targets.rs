//! Whom this is about: arguments turned into nodes, their instances, and clients for each. Nothing is asked of MinIO
//! yet.

pub mod http;
pub mod store;

use std::net::SocketAddr;

use veza_probe::address;
use veza_probe::clock::{At, Clock};
use veza_probe::drill::{Site, usage};
use veza_probe::incus::Status;
use veza_probe::instance::{self, InstanceName};
pub use veza_probe::minio::Login;
use veza_probe::minio::{Admin, Door};
use veza_probe::report::Untouched;
use veza_probe::secret;
use veza_probe::verdict::{Judgement, Verdict};

use crate::cli::course::Act;
use crate::cli::{Args, Endpoint};
use http::Http;
use store::Store;

/// A node with its place in Incus and on the network.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name, for people: the instance's.
    pub name: String,
    /// The instance it runs in.
    pub instance: InstanceName,
    /// How it was named.
    pub endpoint: Endpoint,
    /// Where it is reached.
    pub address: SocketAddr,
    /// Its S3 interface.
    pub store: Store,
    /// The same for readers, who have threads, and so connections, of their own.
    pub reads: Store,
    /// Its own HTTP interface: health, and the base of the admin API.
    pub http: Http,
}

impl Node {
    /// Whether a person calls it so: by the host of its endpoint, or by its instance.
    fn is(&self, name: &str) -> bool {
        self.endpoint.host == name || self.name == name
    }
}

/// Whom this is about.
pub struct Targets {
    /// Every node, in the order of the endpoints.
    pub nodes: Vec<Node>,
    /// MinIO's admin API, through any of them.
    pub admin: Admin,
    /// Which of the nodes are taken away in this act.
    pub lost: Vec<usize>,
}

impl Targets {
    /// The nodes that are taken away in this act.
    pub fn lost(&self) -> impl Iterator<Item = &Node> {
        self.lost.iter().filter_map(|index| self.nodes.get(*index))
    }

    /// The nodes that stay up in this act.
    pub fn living(&self) -> impl Iterator<Item = &Node> {
        let all = self.nodes.iter().enumerate();
        let living = all.filter(|(index, _)| !self.lost.contains(index));
        living.map(|(_, node)| node)
    }
}

/// Finds the nodes' addresses and instances, makes their clients, and chooses who is taken away.
///
/// # Errors
/// Refused when an address or an instance can't be found; usage when variables make no login.
pub async fn resolve(args: &Args, clock: &Clock, site: &Site) -> Result<Targets, Untouched> {
    let login = login()?;
    let known: Vec<_> = site
        .instances
        .iter()
        .map(|i| (i.name.clone(), i.ipv4()))
        .collect();
    let mut nodes = Vec::new();
    for endpoint in args.endpoints() {
        let host = &endpoint.host;
        let unknown = |words: String| refused("node-address-unknown", words, "incus list");
        let found = address::resolve(host, &site.instances).await;
        let ip = found.map_err(|error| unknown(error.to_string()))?.address;
        let chosen = args.chosen_instance(host);
        let instance = instance::of_node(host, host, ip, &known, chosen);
        let instance = instance.map_err(|error| unknown(error.to_string()))?;
        let running = site.instances.iter().find(|i| i.name == instance);
        if running.is_none_or(|i| i.status != Status::Running) {
            let words = format!("{host} runs in {instance}, which is not running");
            return Err(refused("node-not-running", words, "incus list"));
        }
        let address = SocketAddr::new(ip.into(), endpoint.port);
        nodes.push(node(args, endpoint, instance, address, &login)?);
    }
    let mut instances: Vec<_> = nodes.iter().map(|node| &node.instance).collect();
    instances.sort();
    instances.dedup();
    if instances.len() != nodes.len() {
        let words = "two endpoints lead to one instance".to_owned();
        return Err(refused("node-instance-twice", words, "name each node once"));
    }
    if let Some(name) = args
        .lose
        .iter()
        .find(|name| !nodes.iter().any(|node| node.is(name)))
    {
        let known: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        let words = format!(
            "--lose {name}: there is no such node; there are: {}",
            known.join(", ")
        );
        return Err(usage::<Args>(words).into());
    }
    let turn = clock.wall(At(0)).as_second().unsigned_abs();
    let lost = lost(args, &nodes, usize::try_from(turn).unwrap_or_default());
    let door = |node: &Node| Door {
        name: node.name.clone(),
        base: node.http.base().to_owned(),
        client: node.http.client().clone(),
    };
    let admin = Admin::new(
        clock,
        nodes.iter().map(door).collect(),
        &login,
        &args.region,
    );
    Ok(Targets { nodes, admin, lost })
}

fn node(
    args: &Args,
    endpoint: &Endpoint,
    instance: InstanceName,
    address: SocketAddr,
    login: &Login,
) -> Result<Node, Untouched> {
    let made = || {
        let certificates = args
            .ca_file
            .as_deref()
            .map(http::certificates)
            .transpose()?;
        let http = Http::new(endpoint, address, certificates.as_deref())?;
        let store = || {
            Store::new(
                (endpoint, address),
                certificates.clone(),
                (login, &args.region),
                &args.bucket,
            )
        };
        Ok::<_, String>((http, store()?, store()?))
    };
    let (http, store, reads) = made().map_err(usage::<Args>)?;
    let (name, endpoint) = (instance.to_string(), endpoint.clone());
    Ok(Node {
        name,
        instance,
        endpoint,
        address,
        store,
        reads,
        http,
    })
}

/// Clients of the nodes by their addresses alone, where no Incus has to be asked: for a chore.
///
/// # Errors
/// A sentence for the user.
pub fn stores(
    args: &Args,
    addresses: &[(String, SocketAddr)],
    bucket: &str,
) -> Result<Vec<Store>, String> {
    let login = login().map_err(|untouched| untouched.judgement.reason)?;
    let certificates = args
        .ca_file
        .as_deref()
        .map(http::certificates)
        .transpose()?;
    let known = addresses.iter().filter_map(|(host, address)| {
        let endpoint = args.endpoints().iter().find(|e| e.host == *host)?;
        Some((endpoint, *address))
    });
    let made = known.map(|at| Store::new(at, certificates.clone(), (&login, &args.region), bucket));
    made.collect()
}

/// The login of the check, from its variables.
///
/// # Errors
/// Usage when a variable is missing, two contradict each other, or a file can't be read.
pub fn login() -> Result<Login, Untouched> {
    let read = |name: &str| {
        let value = secret::read(name, |name| std::env::var_os(name));
        let value = value.map_err(|error| usage::<Args>(error.to_string()))?;
        let value = value.filter(|secret| !secret.expose().is_empty());
        let missing = || usage::<Args>(format!("{name} or {name}_FILE must be set"));
        value.ok_or_else(|| Untouched::from(missing()))
    };
    let (access, secret) = (read("MINIO_ACCESS_KEY")?, read("MINIO_SECRET_KEY")?);
    Ok(Login { access, secret })
}

/// Which nodes are taken away: those that were named, or `turn` says which, others from run to run. In the proof it is
/// only nodes that were there for every write.
fn lost(args: &Args, nodes: &[Node], turn: usize) -> Vec<usize> {
    let course = &args.course;
    let absent: Vec<&str> = course
        .carried
        .iter()
        .flat_map(|carried| carried.absent.iter().map(String::as_str))
        .collect();
    let all: Vec<usize> = (0..nodes.len()).collect();
    let named = |index: &usize| {
        let node = nodes.get(*index);
        node.is_some_and(|node| args.lose.iter().any(|name| node.is(name)))
    };
    let chosen: Vec<usize> = match args.lose.is_empty() {
        true => rotated(&all, turn).into_iter().take(args.nodes).collect(),
        false => all.iter().copied().filter(named).collect(),
    };
    match course.act {
        Act::Lose => chosen,
        Act::Degraded | Act::WipeDrive | Act::Bitrot => chosen.into_iter().take(1).collect(),
        Act::Proof => {
            let present = |index: &usize| {
                let name = nodes.get(*index).map(|node| node.name.as_str());
                name.is_some_and(|name| !absent.contains(&name))
            };
            let present: Vec<usize> = all.into_iter().filter(present).collect();
            rotated(&present, turn)
                .into_iter()
                .take(args.parity)
                .collect()
        }
    }
}

/// The same list, begun elsewhere; every other round skips one, so that not only neighbours fall together.
fn rotated(list: &[usize], turn: usize) -> Vec<usize> {
    let count = list.len().max(1);
    let mut list: Vec<usize> = list.to_vec();
    list.rotate_left(turn % count);
    if (turn / count) % 2 == 1 && list.len() > 2 {
        list.swap(1, 2);
    }
    list
}

/// A refusal with its reason and the next step.
pub fn refused(reason_id: &str, words: impl Into<String>, next: &str) -> Untouched {
    Judgement::new(Verdict::Refused, reason_id, words, next).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_has_its_turn() {
        let all = [0, 1, 2, 3];
        let mut pairs: Vec<Vec<usize>> = (0..8)
            .map(|turn| {
                let mut pair: Vec<_> = rotated(&all, turn).into_iter().take(2).collect();
                pair.sort_unstable();
                pair
            })
            .collect();
        pairs.sort();
        pairs.dedup();
        assert_eq!(pairs.len(), 6);
        assert_eq!(rotated(&[], 3), Vec::<usize>::new());
    }
}
