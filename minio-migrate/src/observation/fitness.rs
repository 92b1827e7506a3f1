//! Whether the target is whole: every node and drive there, and no version lacking a shard.

use std::time::Duration;

use veza_probe::minio::{Admin, ObjectHealth};

/// How long a look at every object may take.
const LIMIT: Duration = Duration::from_secs(600);

/// How many objects are named.
const NAMED: usize = 10;

/// What was found of the target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fitness {
    /// Its nodes, and how many of them are online.
    pub nodes: (usize, usize),
    /// Its drives, and how many of them are online.
    pub drives: (usize, usize),
    /// Drives in a set, and how many of them are parity.
    pub set: (usize, usize),
    /// What is not as it should be, in words.
    pub ailing: Vec<String>,
    /// Versions whose drives were looked at.
    pub looked: usize,
    /// Versions that lack a shard; the first ones by name.
    pub lacking: usize,
    /// The first of them.
    pub named: Vec<String>,
    /// Why something of that is not known.
    pub unknown: Option<String>,
}

/// Looks at nodes and drives, and at what they have of every version below these places: bucket, and what keys begin with.
pub async fn look(admin: &Admin, places: &[(String, String)]) -> Fitness {
    let mut fitness = Fitness::default();
    let info = match admin.info().await {
        Ok(info) => info,
        Err(error) => {
            fitness.unknown = Some(error.to_string());
            return fitness;
        }
    };
    let online = info
        .nodes
        .iter()
        .filter(|node| node.state == "online")
        .count();
    fitness.nodes = (info.nodes.len(), online);
    fitness.drives = (info.drives_online + info.drives_offline, info.drives_online);
    let set = info
        .drives_per_set
        .iter()
        .copied()
        .min()
        .unwrap_or_default();
    fitness.set = (set, info.parity);
    fitness.ailing = info.ailing();
    for (bucket, prefix) in places {
        match admin.heal_dry_run(bucket, prefix, false, LIMIT).await {
            Ok(looked) => fitness.count(bucket, &looked),
            Err(error) => {
                fitness.unknown = Some(error.to_string());
                return fitness;
            }
        }
    }
    fitness
}

impl Fitness {
    fn count(&mut self, bucket: &str, looked: &[ObjectHealth]) {
        self.looked += looked.len();
        for health in looked.iter().filter(|health| !health.is_whole(self.set.0)) {
            self.lacking += 1;
            if self.named.len() < NAMED {
                self.named.push(format!("{bucket}/{}", health.object));
            }
        }
    }

    /// Nodes and drives that are not there or not well.
    pub fn amiss(&self) -> usize {
        let gone = (self.nodes.0 - self.nodes.1.min(self.nodes.0))
            + (self.drives.0 - self.drives.1.min(self.drives.0));
        gone.max(self.ailing.len())
    }

    /// What is amiss, in words; nothing when nothing is.
    pub fn words(&self) -> Vec<String> {
        let mut words: Vec<String> = self
            .unknown
            .iter()
            .map(|unknown| format!("the target's state is not known: {unknown}"))
            .collect();
        words.extend(self.ailing.iter().cloned());
        if self.ailing.is_empty() && self.amiss() > 0 {
            let (nodes, drives) = (self.nodes, self.drives);
            words.push(format!(
                "{} of {} nodes and {} of {} drives of the target are there",
                nodes.1, nodes.0, drives.1, drives.0
            ));
        }
        if self.lacking > 0 {
            let named = self.named.join(", ");
            words.push(format!(
                "{} versions of the target lack a shard (mc admin heal): {named}",
                self.lacking
            ));
        }
        words
    }
}
