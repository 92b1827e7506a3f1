//! What an act has in hand while it runs, and what it writes down.

use std::sync::{Arc, Mutex, PoisonError};

use veza_probe::clock::Clock;
use veza_probe::incus::Incus;
use veza_probe::story::Story;

use super::objects::{Read, Reading, Through};
use crate::baseline::promise::Layout;
use crate::cli::Args;
use crate::cli::course::Object;
use crate::targets::Node;
use veza_probe::minio::{Admin, ClusterInfo};

/// What an act has in hand. Cheap to clone.
#[derive(Clone)]
pub struct Stage {
    /// The run's clock.
    pub clock: Clock,
    /// Where the story is told.
    pub story: Story,
    /// The arguments, with the act.
    pub args: Args,
    /// The Incus that holds the nodes.
    pub incus: Incus,
    /// Every node.
    pub nodes: Vec<Node>,
    /// The indices of those that this act takes away.
    pub lost: Vec<usize>,
    /// What the keys of this run begin with.
    pub prefix: String,
    /// The erasure sets.
    pub layout: Layout,
    /// MinIO's admin API, through any node.
    pub admin: Admin,
    /// The cluster, as it was found.
    pub before: ClusterInfo,
    /// What is written down.
    pub log: Log,
}

impl Stage {
    /// Nodes that stay up.
    pub fn living(&self) -> Vec<&Node> {
        let all = self.nodes.iter().enumerate();
        let living = all.filter(|(index, _)| !self.lost.contains(index));
        living.map(|(_, node)| node).collect()
    }

    /// Nodes that are taken away.
    pub fn taken(&self) -> Vec<&Node> {
        self.lost
            .iter()
            .filter_map(|index| self.nodes.get(*index))
            .collect()
    }

    /// S3 through the nodes that stay up.
    pub fn through_living(&self) -> Vec<Through> {
        through(&self.living())
    }

    /// S3 through every node.
    pub fn through_all(&self) -> Vec<Through> {
        through(&self.nodes.iter().collect::<Vec<_>>())
    }
}

fn through(nodes: &[&Node]) -> Vec<Through> {
    nodes
        .iter()
        .map(|node| (node.name.clone(), node.store.clone()))
        .collect()
}

/// What was read amiss, and what was noted, by everyone who is at it.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<Written>>);

/// What was written down.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// Objects whose bytes are not those that were written, each once, with where and how.
    pub wrong: Vec<Reading>,
    /// Objects that were said not to be there, each once.
    pub denied: Vec<Reading>,
    /// Objects that somebody else wrote.
    pub changed: Vec<Reading>,
    /// How many readings there were, right or not, beside those of the probes.
    pub readings: usize,
}

impl Log {
    /// Takes readings over; returns those that failed.
    pub fn take(&self, readings: Vec<Reading>) -> Vec<Reading> {
        let mut failed = Vec::new();
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        written.readings += readings.len();
        for reading in readings {
            match reading.read {
                Read::Right => {}
                Read::Failed(_) => failed.push(reading),
                Read::Denied(_) => {
                    once(&mut written.denied, reading.clone());
                    failed.push(reading);
                }
                Read::Wrong(_) => once(&mut written.wrong, reading),
                Read::Changed(_) => once(&mut written.changed, reading),
            }
        }
        failed
    }

    /// What stands in it now.
    pub fn so_far(&self) -> Written {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// One entry for each object is enough.
fn once(list: &mut Vec<Reading>, reading: Reading) {
    if !list.iter().any(|known| known.key == reading.key) {
        list.push(reading);
    }
}

/// Objects that readers may have at any time: nothing changes them in a run.
pub fn readable(objects: &[Object], prefix: &str) -> Vec<Object> {
    let folder = format!("{prefix}read/");
    let small =
        |object: &&Object| object.key.starts_with(&folder) && object.size_bytes <= LARGEST_PROBE;
    objects.iter().filter(small).cloned().collect()
}

/// Probes read up to this size: 50 larger ones a second would measure the network.
const LARGEST_PROBE: u64 = 300 * 1024;
