//! The fault of this check: whichever server is master now is broken, or sentinels are held; proof that it is
//! gone, and later that it is back, comes from Redis' own protocol.

use veza_probe::drill::{Asked, Broken, Later};
use veza_probe::fault::Kind;
use veza_probe::instance::InstanceName;
use veza_probe::pulse::{Protocol, Pulse};
use veza_probe::way::Way;

use crate::baseline::Baseline;
use crate::cli::{Args, Target};
use crate::targets::connection::Server;

/// What is broken at first: the master, or sentinels.
pub fn broken(args: &Args, baseline: &Baseline) -> Vec<Broken> {
    match args.target {
        Target::Master => master(baseline),
        Target::Sentinel | Target::Quorum => {
            let held = baseline.seats.held.iter().map(|seat| Broken {
                instance: seat.instance.clone(),
                asked: asked(&format!("sentinel {}", seat.server.name), &seat.server),
            });
            held.collect()
        }
    }
}

/// What is broken on top of it: without a quorum, the master.
pub fn later(args: &Args, baseline: &Baseline) -> Vec<Later> {
    if args.target != Target::Quorum {
        return Vec::new();
    }
    vec![Later {
        kind: Kind::Hold(args.server_unit.clone()),
        broken: master(baseline),
        controls: replicas(baseline),
    }]
}

fn master(baseline: &Baseline) -> Vec<Broken> {
    let master = baseline.master();
    let broken = master.map(|master| Broken {
        instance: master.instance.clone(),
        asked: asked(&master.name, &master.place.server),
    });
    broken.into_iter().collect()
}

fn asked(name: &str, server: &Server) -> Asked {
    Asked {
        pulse: Pulse {
            name: name.to_owned(),
            address: server.address,
            protocol: Protocol::Redis,
            from: None,
        },
        way: Way::Here,
    }
}

/// Those that speak the same protocol over the same network: the replicas, or the sentinels that are not held.
pub fn controls(args: &Args, baseline: &Baseline) -> Vec<Asked> {
    match args.target {
        Target::Master => replicas(baseline),
        Target::Sentinel | Target::Quorum => {
            let living = baseline.seats.living.iter();
            let asked = |seat: &Server| asked(&format!("sentinel {}", seat.name), seat);
            living.map(asked).collect()
        }
    }
}

fn replicas(baseline: &Baseline) -> Vec<Asked> {
    let replicas = baseline.replicas();
    replicas
        .map(|replica| asked(&replica.name, &replica.place.server))
        .collect()
}

/// The group's instances: servers and sentinels.
pub fn members(baseline: &Baseline) -> Vec<InstanceName> {
    let servers = baseline.members.iter().map(|m| m.instance.clone());
    servers
        .chain(baseline.seats.instances.iter().cloned())
        .collect()
}
