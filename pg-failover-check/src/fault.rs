//! The fault of this check: whichever node is primary now is broken; proof that it is gone, and later
//! that it is back, comes from PostgreSQL's own protocol.

use veza_probe::drill::{Asked, Broken, Found};
use veza_probe::instance::InstanceName;
use veza_probe::pulse::{Protocol, Pulse};

use crate::baseline::{Baseline, Member};
use crate::cli::Args;

/// The primary. Whoever heals asks it from inside the observer's instance, where there is one.
pub fn broken(found: &Found<Args>, observer: Option<&InstanceName>) -> Broken {
    let primary = found.baseline.primary();
    let mut asked = asked(primary);
    asked.pulse.from = observer.cloned();
    Broken {
        instance: primary.instance.clone(),
        asked,
    }
}

fn asked(member: &Member) -> Asked {
    Asked {
        pulse: Pulse {
            name: member.node.name.clone(),
            address: member.at.address,
            protocol: Protocol::Postgres,
            from: None,
        },
        way: member.at.way.clone(),
    }
}

/// The other nodes, then the monitor: it speaks the same protocol over the same network, and still tells
/// our own blindness from the target's silence when no other node is left.
pub fn controls(baseline: &Baseline) -> Vec<Asked> {
    let monitor = Asked {
        pulse: Pulse {
            name: "the monitor".to_owned(),
            address: baseline.monitor.at.address,
            protocol: Protocol::Postgres,
            from: None,
        },
        way: baseline.monitor.at.way.clone(),
    };
    baseline.others().map(asked).chain([monitor]).collect()
}

/// The formation's instances: its nodes, and the monitor where it is one of the project's.
pub fn members(found: &Found<Args>) -> Vec<InstanceName> {
    let nodes = found.baseline.members.iter().map(|m| m.instance.clone());
    let monitor = found.targets.monitor_at.address.ip();
    let mut instances = found.site.instances.iter();
    let monitor = instances.find(|i| i.ipv4().iter().any(|address| *address == monitor));
    nodes.chain(monitor.map(|i| i.name.clone())).collect()
}
