//! The fault of each act: which nodes are broken, and how; proof that they are gone, and later that they are back,
//! comes from MinIO's own protocol.

pub mod wipe;
pub mod bitrot;

use std::time::Duration;

use veza_probe::drill::{Asked, Broken, Found};
use veza_probe::fault::{Kind, Unit};
use veza_probe::instance::InstanceName;
use veza_probe::pulse::{Protocol, Pulse};
use veza_probe::way::Way;

use crate::cli::Args;
use crate::cli::course::Act;
use crate::targets::{Node, Targets};

/// How long nodes may be away while everything is read and written that an act asks for.
const AWAY: Duration = Duration::from_secs(60);

/// What preparing takes at the most, for a few objects and for each more: 200 take 10 to 20 s when all is well, and what
/// is not whole is waited for.
const PREPARATION: Duration = Duration::from_secs(120);
const PREPARATION_EACH: Duration = Duration::from_millis(500);

/// The server's unit in an instance.
pub const UNIT: &str = "minio.service";

/// What is done to the nodes of an act.
pub fn kind(args: &Args) -> Kind {
    match args.course.act {
        Act::Lose => args.fault.clone(),
        // Nothing broken is nothing to heal, which the verdict tells.
        Act::Degraded | Act::Proof if !args.fault.breaks() => Kind::None,
        Act::Degraded | Act::Proof => Kind::Stop,
        Act::WipeDrive => Unit::new(UNIT).map_or(Kind::Stop, Kind::Hold),
        Act::Bitrot => Kind::None,
    }
}

/// How long nodes may be away, before what a slow run may add.
pub fn longest(args: &Args) -> Duration {
    args.read_outage_max() + AWAY
}

/// The longest that objects may take to be written, to be read through every node, and to be whole on every drive, before
/// anything is broken.
pub fn preparation(args: &Args) -> Duration {
    let objects = u32::try_from(args.objects).unwrap_or(u32::MAX);
    PREPARATION + PREPARATION_EACH.saturating_mul(objects)
}

/// The longest until redundancy is back after the heal; where objects have to heal, first by themselves.
pub fn redundancy(args: &Args) -> Duration {
    match args.course.act {
        Act::Degraded | Act::WipeDrive => args.self_heal_wait + args.heal_target,
        Act::Lose | Act::Bitrot | Act::Proof => args.heal_target,
    }
}

/// The nodes that are taken away.
pub fn broken(found: &Found<Args>) -> Vec<Broken> {
    let lost = found.targets.lost();
    lost.map(|node| Broken {
        instance: node.instance.clone(),
        asked: asked(node),
    })
    .collect()
}

/// The nodes that stay up: they speak the same protocol over the same network.
pub fn controls(found: &Found<Args>) -> Vec<Asked> {
    found.targets.living().map(asked).collect()
}

/// The cluster's instances.
pub fn members(targets: &Targets) -> Vec<InstanceName> {
    targets
        .nodes
        .iter()
        .map(|node| node.instance.clone())
        .collect()
}

fn asked(node: &Node) -> Asked {
    Asked {
        pulse: Pulse {
            name: node.name.clone(),
            address: node.address,
            protocol: Protocol::Minio,
            from: None,
        },
        way: Way::Here,
    }
}
