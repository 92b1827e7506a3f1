//! Whom this is about: arguments turned into Incus, instances and logins. Nothing is asked of
//! PostgreSQL yet.

use std::net::{IpAddr, SocketAddr};

use veza_probe::address;
use veza_probe::clock::Clock;
use veza_probe::drill::{self, Site};
use veza_probe::incus::Instance;
use veza_probe::outpost::Outpost;
use veza_probe::postgres::{Access, Conninfo, Target};
use veza_probe::report::Untouched;
use veza_probe::verdict::{Judgement, Verdict};
use veza_probe::way::Way;

use crate::cli::Args;

/// Whom this is about.
pub struct Targets {
    /// How to log in at the monitor.
    pub monitor: Access,
    /// Where the monitor is.
    pub monitor_at: Target,
    /// The formation as the client knows it; none when it is to be made from the monitor's nodes.
    pub formation: Option<Access>,
    /// The pooler that clients go through, and where it is.
    pub pooler: Option<(Access, Target)>,
    /// The observer in an instance, where one was asked for: everything is reached through it.
    pub outpost: Option<Outpost>,
}

impl Targets {
    /// How the service is reached.
    pub fn way(&self) -> Way {
        self.outpost.as_ref().map(Outpost::way).unwrap_or_default()
    }
}

/// Finds the monitor's address, and the logins.
///
/// # Errors
/// Missing tool when the observer's instance is not there; refused when the monitor's address can't be
/// found; usage when variables make no login.
pub async fn resolve(clock: &Clock, site: &Site, args: &Args) -> Result<Targets, Untouched> {
    let instances = &site.instances;
    let conninfo = args
        .monitor_conninfo
        .clone()
        .map_or_else(|| default_monitor(args), Ok)?;
    let monitor = access(conninfo, "PGAF_MONITOR")?;
    let formation = match &args.formation_conninfo {
        Some(conninfo) => Some(access(conninfo.clone(), "PGAF_FORMATION")?),
        None => None,
    };
    let Some(host) = monitor.login.conninfo.hosts.first() else {
        return Err(usage("the monitor's URI names no host".to_owned()));
    };
    let outpost = match &args.observe_from {
        Some(name) => Some(site.outpost(clock, name).await?),
        None => None,
    };
    let way = outpost.as_ref().map(Outpost::way).unwrap_or_default();
    let monitor_at = locate(&host.name, host.hostaddr, host.port, instances, way)
        .await
        .map_err(|e| unfound("monitor-address-unknown", &e.to_string()))?;
    let pooler = pooler(args, instances, outpost.as_ref()).await?;
    Ok(Targets {
        monitor,
        monitor_at,
        formation,
        pooler,
        outpost,
    })
}

/// The pooler that clients go through, if they do.
async fn pooler(
    args: &Args,
    instances: &[Instance],
    outpost: Option<&Outpost>,
) -> Result<Option<(Access, Target)>, Untouched> {
    let Some(conninfo) = &args.database_conninfo else {
        return Ok(None);
    };
    let [host] = conninfo.hosts.as_slice() else {
        return Err(usage(
            "DATABASE_URL must name one host, the pooler".to_owned(),
        ));
    };
    let way = outpost.map(Outpost::way).unwrap_or_default();
    let at = locate(&host.name, host.hostaddr, host.port, instances, way).await;
    let at = at.map_err(|e| unfound("pooler-address-unknown", &e.to_string()))?;
    let access = access(conninfo.clone(), "DATABASE")?;
    Ok(Some((access, at)))
}

/// Where a host is: its own `hostaddr`, else through Incus.
///
/// # Errors
/// [`address::Error`].
pub async fn locate(
    host: &str,
    hostaddr: Option<IpAddr>,
    port: u16,
    instances: &[Instance],
    way: Way,
) -> Result<Target, address::Error> {
    let ip = match hostaddr {
        Some(ip) => ip,
        None => IpAddr::V4(address::resolve(host, instances).await?.address),
    };
    Ok(Target {
        name: host.to_owned(),
        address: SocketAddr::new(ip, port),
        way,
    })
}

/// The login of a client that only knows the formation's database, with the user of `PGUSER`.
///
/// # Errors
/// Usage when variables make no login.
pub fn access_to_nodes(hosts: &[(String, u16)], dbname: &str) -> Result<Access, Untouched> {
    let mut text = format!(
        "dbname='{}'",
        dbname.replace('\\', "\\\\").replace('\'', "\\'")
    );
    let names = hosts
        .iter()
        .map(|(name, _)| name.as_str())
        .collect::<Vec<_>>()
        .join(",");
    let ports = hosts
        .iter()
        .map(|(_, port)| port.to_string())
        .collect::<Vec<_>>()
        .join(",");
    text.push_str(&format!(" host='{names}' port='{ports}'"));
    let conninfo: Conninfo = text
        .parse()
        .map_err(|e| usage(format!("the nodes of the monitor: {e}")))?;
    access(conninfo, "PGAF_FORMATION")
}

fn default_monitor(args: &Args) -> Result<Conninfo, Untouched> {
    let text = format!(
        "postgres://autoctl_node@{}:5432/pg_auto_failover",
        args.monitor
    );
    text.parse()
        .map_err(|e| usage(format!("--monitor {}: {e}", args.monitor)))
}

/// The login of a URI, with the password of its own variable.
///
/// # Errors
/// Usage when variables make no login.
pub fn access(conninfo: Conninfo, prefix: &str) -> Result<Access, Untouched> {
    let variable = match prefix {
        "DATABASE" => "DATABASE_URL".to_owned(),
        other => format!("{other}_URI"),
    };
    let access = Access::new(conninfo, prefix, |name| std::env::var_os(name));
    access.map_err(|words| usage(format!("{variable}: {words}")))
}

fn usage(words: String) -> Untouched {
    drill::usage::<Args>(words).into()
}

/// An address that was needed and not found.
pub fn unfound(reason_id: &str, words: &str) -> Untouched {
    Judgement::new(Verdict::Refused, reason_id, words, "incus list").into()
}
