//! Whom this is about: arguments turned into logins, addresses, and the place that pgbench runs in.
//! Nothing is asked of PgBouncer or PostgreSQL yet.

pub mod place;

use std::net::{IpAddr, SocketAddr};

use veza_probe::address;
use veza_probe::fault::Kind;
use veza_probe::incus::{self, Incus, Instance, Place as Remote, Server};
use veza_probe::instance::InstanceName;
use veza_probe::postgres::{self, Conninfo, Login, Target, Tls};
use veza_probe::report::Untouched;
use veza_probe::undo;
use veza_probe::verdict::{Judgement, Verdict};
use veza_probe::way::Way;

use crate::cli::{self, Args};
use place::Place;

/// A way to log in somewhere, prepared once.
#[derive(Clone)]
pub struct Access {
    /// Who logs in, with which password.
    pub login: Login,
    /// The encryption.
    pub tls: Tls,
    /// Where: an address for each host.
    pub at: Vec<Target>,
}

/// The Incus around the pooler.
pub struct Surroundings {
    /// Incus itself.
    pub incus: Incus,
    /// What it says of itself.
    pub server: Server,
    /// The instances of the project.
    pub instances: Vec<Instance>,
    /// Whether the project is a lab of this user's.
    pub is_lab: bool,
}

/// Whom this is about.
pub struct Targets {
    /// Through the pooler, as clients go.
    pub pooler: Access,
    /// The pooler's admin console.
    pub console: Access,
    /// Past the pooler.
    pub primary: Option<Access>,
    /// The Incus around it, where one was named.
    pub around: Option<Surroundings>,
    /// The instance that the pooler runs in, where Incus knows it.
    pub pooler_in: Option<InstanceName>,
    /// Where pgbench runs.
    pub place: Place,
}

impl Targets {
    /// Whether all of this is a lab.
    pub fn is_lab(&self) -> bool {
        self.around.as_ref().is_some_and(|around| around.is_lab)
    }

    /// The pooler's instance with its Incus.
    pub fn pooler_instance(&self) -> Option<(&Incus, &InstanceName)> {
        let around = self.around.as_ref()?;
        Some((&around.incus, self.pooler_in.as_ref()?))
    }
}

/// What is loaded, in words: the pooler's host and database.
pub fn system(args: &Args) -> String {
    let Some(conninfo) = &args.pooler else {
        return String::new();
    };
    let host = conninfo.hosts.first();
    let host = host.map(|host| format!("{}:{}", host.name, host.port));
    let dbname = conninfo.dbname.as_deref().unwrap_or("the user's database");
    format!("{dbname} through {}", host.unwrap_or_default())
}

/// Finds Incus, the addresses, the logins, and pgbench.
///
/// # Errors
/// Missing tool when Incus, the project or pgbench is not there; unreachable when an address can't be
/// found; usage when variables make no login.
pub async fn resolve(args: &Args) -> Result<Targets, Untouched> {
    let around = match &args.project {
        Some(project) => Some(surroundings(args, project).await?),
        None => None,
    };
    let instances = around.as_ref().map_or(&[][..], |around| &around.instances);
    let needed = |conninfo: &Option<Conninfo>| {
        let none = || usage("a connection string is missing".to_owned());
        conninfo.clone().ok_or_else(none)
    };
    let pooler = access(needed(&args.pooler)?, "DATABASE", instances).await?;
    let console = access(needed(&args.console)?, "PGBOUNCER_ADMIN", instances).await?;
    let primary = match args.direct {
        true => Some(access(needed(&args.primary)?, "PGAF_FORMATION", instances).await?),
        false => None,
    };
    let address = pooler.at.first().map(|target| target.address.ip());
    let has_it = |instance: &&Instance| {
        let mut all = instance.ipv4().into_iter().map(IpAddr::V4);
        all.any(|ip| Some(ip) == address)
    };
    let pooler_in = instances.iter().find(has_it).map(|i| i.name.clone());
    let place = place(args, around.as_ref(), pooler_in.as_ref()).await?;
    Ok(Targets {
        pooler,
        console,
        primary,
        around,
        pooler_in,
        place,
    })
}

async fn surroundings(args: &Args, project: &str) -> Result<Surroundings, Untouched> {
    let lookup = |name: &str| std::env::var_os(name);
    let remote = match &args.remote {
        None => Ok(Remote::local(lookup)),
        Some(name) => Remote::remote(name, lookup).map_err(|error| of_incus(&error.into())),
    };
    let connected = Incus::connect(remote?, project).await;
    let (incus, server) = connected.map_err(|error| of_incus(&error))?;
    let instances = incus.instances().await.map_err(|error| of_incus(&error))?;
    let config = incus.project_config().await;
    let config = config.map_err(|error| of_incus(&error))?;
    // A load breaks nothing, so nobody has to allow it; who forbids all drills means it, too.
    let forbidden = undo::permitted(&Kind::None, (project, &config), &[]);
    forbidden.map_err(|refusal| {
        let undo::Refusal {
            reason_id,
            reason,
            next,
        } = refusal;
        Judgement::new(Verdict::Refused, reason_id, reason, next)
    })?;
    Ok(Surroundings {
        incus,
        server,
        instances,
        is_lab: undo::is_lab(&config, lookup),
    })
}

/// A login with its addresses; the password is that of the variable that belongs to it.
async fn access(
    conninfo: Conninfo,
    prefix: &str,
    instances: &[Instance],
) -> Result<Access, Untouched> {
    let made = postgres::Access::new(conninfo, prefix, |name| std::env::var_os(name));
    let made = made.map_err(|words| usage(format!("{prefix}: {words}")))?;
    let postgres::Access { login, tls } = made;
    let mut at = Vec::new();
    for host in &login.conninfo.hosts {
        let ip = match host.hostaddr {
            Some(ip) => ip,
            None => {
                let resolved = address::resolve(&host.name, instances).await;
                let resolved = resolved.map_err(|e| unreachable(e.to_string()))?;
                IpAddr::V4(resolved.address)
            }
        };
        at.push(Target {
            name: host.name.clone(),
            address: SocketAddr::new(ip, host.port),
            way: Way::Here,
        });
    }
    Ok(Access { login, tls, at })
}

/// Where pgbench is: in the instance that was named, on this host, or beside the pooler.
async fn place(
    args: &Args,
    around: Option<&Surroundings>,
    pooler_in: Option<&InstanceName>,
) -> Result<Place, Untouched> {
    let named = around.zip(args.inside.as_ref());
    if named.is_none()
        && let Ok(path) = which::which("pgbench")
    {
        return Ok(Place::Host { pgbench: path });
    }
    let next = "apt-get install postgresql-contrib (Debian: postgresql-NN), or --in INSTANCE";
    let Some((around, instance)) = named.or_else(|| around.zip(pooler_in)) else {
        let reason =
            "pgbench is not on this host (not in PATH), and no instance is known that has it";
        return Err(missing("no-pgbench", reason, next));
    };
    let place = Place::Instance {
        incus: around.incus.clone(),
        name: instance.clone(),
    };
    let found = place.sh("command -v pgbench", &[]).await;
    match found.map_err(|words| missing("no-pgbench", words, "incus list"))? {
        found if found.code == 0 => Ok(place),
        _ => {
            let reason = format!("pgbench is not in the instance {instance} (not in its PATH)");
            Err(missing("no-pgbench", reason, next))
        }
    }
}

fn usage(words: String) -> Untouched {
    cli::usage(words).into()
}

/// What something that is not there comes to.
pub fn missing(reason_id: &str, reason: impl Into<String>, next: &str) -> Untouched {
    Judgement::new(Verdict::MissingTool, reason_id, reason, next).into()
}

/// The stable word for a pooler that can't be reached.
pub const UNREACHABLE: &str = "pooler-unreachable";

/// What a pooler comes to that can't be reached.
pub fn unreachable(reason: String) -> Untouched {
    let next = "docs/runbooks/pgbouncer-load.md";
    Judgement::new(Verdict::Refused, UNREACHABLE, reason, next).into()
}

fn of_incus(error: &incus::Error) -> Untouched {
    if error.is_missing_tool() {
        return missing("incus-not-usable", error.to_string(), "incus info");
    }
    let next = "incus info";
    Judgement::new(Verdict::Refused, "incus-refused", error.to_string(), next).into()
}
