//! Whether the target is whole: every node and drive there, and no version lacking a shard.

use std::time::Duration;

use veza_probe::clock;
use veza_probe::minio::{Admin, ObjectHealth};
use veza_probe::story::Story;

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

/// How often what lacks a shard is healed, and the pause before each further time: a node that just came back is no place to heal to yet.
const HEALS: usize = 8;
const PAUSE: Duration = Duration::from_secs(5);

/// The same, after what lacks a shard was healed: what is written just after a node came back may be on fewer drives than it should,
/// and MinIO mends that when it is asked.
pub async fn healed(admin: &Admin, places: &[(String, String)], story: &Story) -> Fitness {
    let mut fitness = look(admin, places).await;
    for heal in 0..HEALS {
        if fitness.lacking == 0 || fitness.unknown.is_some() || fitness.amiss() > 0 {
            break;
        }
        if heal > 0 {
            clock::sleep(PAUSE).await;
        }
        let lacking = fitness.lacking;
        story.say(&format!(
            "{lacking} versions of the target lack a shard: asking it to heal them"
        ));
        for (bucket, prefix) in places {
            if let Err(error) = admin.heal(bucket, prefix, false, LIMIT).await {
                fitness.unknown = Some(error.to_string());
                return fitness;
            }
        }
        fitness = look(admin, places).await;
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
