//! Whom this is about: arguments turned into sentinels and logins. Nothing is asked of
//! Redis yet.

pub mod connection;

use std::net::SocketAddr;

use veza_probe::address;
use veza_probe::drill::{Site, usage};
use veza_probe::incus::Instance;
use veza_probe::report::Untouched;
use veza_probe::secret;
use veza_probe::verdict::{Judgement, Verdict};

use crate::cli::Args;
use connection::{Login, Server};

/// Whom this is about.
pub struct Targets {
    /// Every sentinel.
    pub sentinels: Vec<Server>,
    /// How to log in at the sentinels.
    pub sentinel_login: Login,
    /// How to log in at the servers.
    pub login: Login,
}

/// Finds the sentinels' addresses, and the logins.
///
/// # Errors
/// Refused when an address can't be found; usage when variables make no login.
pub async fn resolve(args: &Args, site: &Site) -> Result<Targets, Untouched> {
    let mut sentinels = Vec::new();
    for (host, port) in args.sentinels() {
        let address = locate(host, *port, &site.instances).await;
        let address = address.map_err(|error| {
            let (id, words) = ("sentinel-address-unknown", error.to_string());
            Judgement::new(Verdict::Refused, id, words, "incus list")
        })?;
        let instance = site.instances.iter().find(|instance| {
            let own = instance.ipv4();
            own.iter().any(|ip| address.ip() == *ip)
        });
        let name = instance.map_or_else(|| host.clone(), |found| found.name.to_string());
        sentinels.push(Server { name, address });
    }
    let (sentinel_login, login) = logins(args)?;
    Ok(Targets {
        sentinels,
        sentinel_login,
        login,
    })
}

/// The logins at sentinels and at servers.
///
/// # Errors
/// Usage when variables contradict each other or a file can't be read.
pub fn logins(args: &Args) -> Result<(Login, Login), Untouched> {
    let login = |user: &Option<String>, name: &str| {
        let password = secret::read(name, |name| std::env::var_os(name));
        let password = password.map_err(|error| usage::<Args>(error.to_string()))?;
        let user = user.clone().filter(|user| !user.is_empty());
        if user.is_some() && password.is_none() {
            let words = format!("{name} or {name}_FILE must be set where a user is named");
            return Err(usage::<Args>(words).into());
        }
        Ok::<_, Untouched>(Login { user, password })
    };
    let sentinels = login(&args.sentinel_user, "REDIS_SENTINEL_PASSWORD")?;
    Ok((sentinels, login(&args.user, "REDIS_PASSWORD")?))
}

/// Where a host is, through Incus.
///
/// # Errors
/// [`address::Error`].
pub async fn locate(
    host: &str,
    port: u16,
    instances: &[Instance],
) -> Result<SocketAddr, address::Error> {
    let found = address::resolve(host, instances).await?;
    Ok(SocketAddr::new(found.address.into(), port))
}
