//! The fault of this check: whichever server is master now is broken; proof that it is gone, and later that it
//! is back, comes from Redis' own protocol.

use veza_probe::drill::{Asked, Broken, Found};
use veza_probe::instance::InstanceName;
use veza_probe::pulse::{Protocol, Pulse};
use veza_probe::way::Way;

use crate::baseline::{Baseline, Member};
use crate::cli::Args;

/// The master.
pub fn broken(found: &Found<Args>) -> Vec<Broken> {
    let master = found.baseline.master();
    let broken = master.map(|master| Broken {
        instance: master.instance.clone(),
        asked: asked(master),
    });
    broken.into_iter().collect()
}

fn asked(member: &Member) -> Asked {
    Asked {
        pulse: Pulse {
            name: member.name.clone(),
            address: member.place.server.address,
            protocol: Protocol::Redis,
            from: None,
        },
        way: Way::Here,
    }
}

/// The replicas: they speak the same protocol over the same network.
pub fn controls(baseline: &Baseline) -> Vec<Asked> {
    baseline.replicas().map(asked).collect()
}

/// The group's instances: servers and sentinels.
pub fn members(baseline: &Baseline) -> Vec<InstanceName> {
    let servers = baseline.members.iter().map(|m| m.instance.clone());
    servers
        .chain(baseline.sentinel_instances.iter().cloned())
        .collect()
}
