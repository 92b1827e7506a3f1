//! A service address through Incus: host name → IPv4, so that the host needs no DNS of the bridge.

use std::net::Ipv4Addr;

use crate::incus::Instance;

/// Where a host name leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The address.
    pub address: Ipv4Addr,
    /// How it was found, for messages: `instance NAME`, `literal`, `system resolver`.
    pub by: String,
}

/// A host name that leads nowhere, or to several places.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The instance of that name has no IPv4 address: it is stopped, or its network is not up.
    #[error("{host} is the instance {instance}, which is {status} and has no IPv4 address")]
    NoAddress {
        /// The host name.
        host: String,
        /// The instance.
        instance: String,
        /// What Incus says of it.
        status: String,
    },
    /// The instance has several, and none was chosen.
    #[error(
        "{host} is the instance {instance}, which has several IPv4 addresses ({addresses}): use one of them instead of the name"
    )]
    Several {
        /// The host name.
        host: String,
        /// The instance.
        instance: String,
        /// Its addresses.
        addresses: String,
    },
    /// Neither an instance nor known to the system's resolver.
    #[error("{host} is no instance of the project, and the system's resolver says: {words}")]
    Unknown {
        /// The host name.
        host: String,
        /// What the resolver said.
        words: String,
    },
}

/// Resolves a host: an IPv4 literal is itself; a name whose first label is an instance's name is
/// that instance (its domain is Incus' own, such as `.lxd`); anything else is asked of the system.
///
/// # Errors
/// [`Error`], each naming the host.
pub async fn resolve(host: &str, instances: &[Instance]) -> Result<Resolved, Error> {
    if let Ok(address) = host.parse() {
        return Ok(Resolved {
            address,
            by: "literal".to_owned(),
        });
    }
    let label = host.split('.').next().unwrap_or(host);
    if let Some(instance) = instances.iter().find(|i| i.name.as_str() == label) {
        return of_instance(host, instance);
    }
    let unknown = |words: String| Error::Unknown {
        host: host.to_owned(),
        words,
    };
    let found = tokio::net::lookup_host((host, 0))
        .await
        .map_err(|e| unknown(e.to_string()))?;
    let mut ipv4 = found.filter_map(|a| match a.ip() {
        std::net::IpAddr::V4(address) => Some(address),
        std::net::IpAddr::V6(_) => None,
    });
    let address = ipv4
        .next()
        .ok_or_else(|| unknown("no IPv4 address".to_owned()))?;
    Ok(Resolved {
        address,
        by: "system resolver".to_owned(),
    })
}

fn of_instance(host: &str, instance: &Instance) -> Result<Resolved, Error> {
    match instance.ipv4().as_slice() {
        [] => Err(Error::NoAddress {
            host: host.to_owned(),
            instance: instance.name.to_string(),
            status: instance.status.to_string(),
        }),
        [address] => Ok(Resolved {
            address: *address,
            by: format!("instance {}", instance.name),
        }),
        several => Err(Error::Several {
            host: host.to_owned(),
            instance: instance.name.to_string(),
            addresses: several
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", "),
        }),
    }
}
