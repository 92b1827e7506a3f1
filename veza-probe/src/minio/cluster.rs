//! What the admin API says of nodes and drives (madmin-go: InfoMessage). Fields that MinIO leaves out where they are
//! zero default to that.

use serde::Deserialize;

/// `InfoMessage`, as it is on the wire.
#[derive(Deserialize)]
pub(super) struct Info {
    #[serde(default)]
    mode: String,
    #[serde(rename = "deploymentID", default)]
    deployment_id: String,
    backend: Backend,
    #[serde(default)]
    servers: Vec<NodeInfo>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Backend {
    #[serde(default)]
    backend_type: String,
    #[serde(default)]
    online_disks: usize,
    #[serde(default)]
    offline_disks: usize,
    #[serde(rename = "standardSCParity", default)]
    standard_sc_parity: usize,
    #[serde(default)]
    total_sets: Vec<usize>,
    #[serde(rename = "totalDrivesPerSet", default)]
    drives_per_set: Vec<usize>,
}

/// A cluster, as one of its nodes sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterInfo {
    /// `online`, or what it is instead.
    pub mode: String,
    /// The cluster's own id.
    pub deployment_id: String,
    /// `Erasure`, or what it is instead.
    pub backend: String,
    /// Parity drives per object of the standard class: 2 of EC:2.
    pub parity: usize,
    /// Drives in each erasure set, by pool.
    pub drives_per_set: Vec<usize>,
    /// Erasure sets, by pool.
    pub sets: Vec<usize>,
    /// Drives that are there, as the answering node counts them.
    pub drives_online: usize,
    /// Drives that are not.
    pub drives_offline: usize,
    /// The nodes.
    pub nodes: Vec<NodeInfo>,
}

impl From<Info> for ClusterInfo {
    fn from(info: Info) -> ClusterInfo {
        let backend = info.backend;
        ClusterInfo {
            mode: info.mode,
            deployment_id: info.deployment_id,
            backend: backend.backend_type,
            parity: backend.standard_sc_parity,
            drives_per_set: backend.drives_per_set,
            sets: backend.total_sets,
            drives_online: backend.online_disks,
            drives_offline: backend.offline_disks,
            nodes: info.servers,
        }
    }
}

impl ClusterInfo {
    /// Every drive with its node.
    pub fn drives(&self) -> impl Iterator<Item = (&NodeInfo, &Drive)> {
        let nodes = self.nodes.iter();
        nodes.flat_map(|node| node.drives.iter().map(move |drive| (node, drive)))
    }

    /// What stands in the way of every node and drive being there and none being healed; empty when nothing does.
    pub fn ailing(&self) -> Vec<String> {
        let mut words = Vec::new();
        for node in &self.nodes {
            if node.state != "online" {
                words.push(format!("{} is {}", node.endpoint, node.state));
            }
        }
        for (node, drive) in self.drives() {
            if node.state == "online" && drive.state != "ok" {
                words.push(format!("drive {} is {}", drive.endpoint, drive.state));
            } else if drive.healing {
                words.push(format!("drive {} is being healed", drive.endpoint));
            }
        }
        words
    }
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct NodeInfo {
    /// `HOST:PORT`, as the cluster calls it.
    #[serde(default)]
    pub endpoint: String,
    /// `online`, `offline` or `initializing`.
    #[serde(default)]
    pub state: String,
    /// Its release, as a time of publication.
    #[serde(default)]
    pub version: String,
    /// Since its server was started, in seconds.
    #[serde(rename = "uptime", default)]
    pub uptime_s: i64,
    /// Its drives, none where it can't be asked.
    #[serde(default)]
    pub drives: Vec<Drive>,
}

/// A drive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Drive {
    /// `http://HOST:PORT/PATH`: what it is called in every answer.
    #[serde(default)]
    pub endpoint: String,
    /// Where it is mounted on its node.
    #[serde(default)]
    pub path: String,
    /// `ok`, `offline`, `unformatted` and others.
    #[serde(default)]
    pub state: String,
    /// The id in its own format.json: another one after it was replaced.
    #[serde(default)]
    pub uuid: String,
    /// Whether it was empty and is being filled.
    #[serde(default)]
    pub healing: bool,
    /// Space for more, in bytes.
    #[serde(rename = "availspace", default)]
    pub available_bytes: u64,
    /// Its size, in bytes.
    #[serde(rename = "totalspace", default)]
    pub total_bytes: u64,
}
