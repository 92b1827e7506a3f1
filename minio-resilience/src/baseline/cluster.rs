//! The cluster as its admin API has it: nodes, drives, parity, versions, space. Judging is pure.

use veza_probe::report::{Condition, Untouched};

use super::NEXT;
use super::promise::Layout;
use crate::cli::Args;
use crate::targets::{Targets, refused};
use veza_probe::minio::{ClusterInfo, Drive};

/// What each drive must have room for, beside the working set: the set has copies with parity, and versions of them.
const ROOM_BYTES: u64 = 512 * 1024 * 1024;

/// What a cluster is refused for: a stable word, and a sentence.
type Trouble = (&'static str, String);

/// Asks, and refuses what is not as it must be.
///
/// # Errors
/// Refused, with the reason.
pub async fn measure(args: &Args, targets: &Targets) -> Result<ClusterInfo, Untouched> {
    let asked = targets.admin.info().await;
    let cluster = asked.map_err(|error| {
        let reason_id = match error.is_credentials() {
            true => "credentials-refused",
            false => "admin-unwell",
        };
        let next = match reason_id {
            "credentials-refused" => {
                "let the user do admin:ServerInfo and admin:Heal, or use --s3-only"
            }
            _ => NEXT,
        };
        refused(reason_id, error.to_string(), next)
    })?;
    match trouble(&cluster, args.parity, targets.nodes.len()) {
        None => Ok(cluster),
        Some((reason_id, words)) => Err(refused(reason_id, words, NEXT)),
    }
}

/// What is not as it must be; the first of all.
fn trouble(cluster: &ClusterInfo, parity: usize, endpoints: usize) -> Option<Trouble> {
    if cluster.backend != "Erasure" {
        let words = format!("the cluster's backend is {}, not Erasure", cluster.backend);
        return Some(("not-erasure", words));
    }
    if cluster.nodes.len() != endpoints {
        let names: Vec<&str> = cluster
            .nodes
            .iter()
            .map(|node| node.endpoint.as_str())
            .collect();
        let words = format!(
            "the cluster has {} nodes ({}), and {endpoints} endpoints are named: name each",
            names.len(),
            names.join(", ")
        );
        return Some(("nodes-differ", words));
    }
    if let Some(first) = cluster.ailing().first() {
        let words = format!("the cluster is not whole: {first}");
        return Some(("not-whole", words));
    }
    if cluster.parity != parity {
        let words = format!(
            "the cluster has EC:{}, and EC:{parity} was asked for (--parity)",
            cluster.parity
        );
        return Some(("parity-differs", words));
    }
    let mut versions: Vec<&str> = cluster
        .nodes
        .iter()
        .map(|node| node.version.as_str())
        .collect();
    versions.sort_unstable();
    versions.dedup();
    if versions.len() > 1 {
        let words = format!("nodes have different versions: {}", versions.join(", "));
        return Some(("versions-differ", words));
    }
    let full = |drive: &&Drive| drive.available_bytes < ROOM_BYTES;
    let full = cluster.drives().map(|(_, drive)| drive).find(full)?;
    let (mib, least) = (full.available_bytes / 1024 / 1024, ROOM_BYTES / 1024 / 1024);
    let words = format!(
        "drive {} has {mib} MiB left; the drill needs {least} MiB on each",
        full.endpoint
    );
    Some(("no-space", words))
}

/// The erasure sets, or what the arguments say of them with `--s3-only`.
pub fn layout(args: &Args, targets: &Targets, cluster: &ClusterInfo) -> Layout {
    let nodes = targets.nodes.len();
    let drives = cluster.drives_per_set.first().copied();
    Layout {
        drives: drives.filter(|drives| *drives > 0).unwrap_or(nodes),
        parity: args.parity,
        nodes,
    }
}

/// The version, and the size of sets, as conditions.
pub fn versions(cluster: &ClusterInfo) -> Vec<Condition> {
    let condition = |name: &str, value: String| Condition {
        name: name.to_owned(),
        value,
    };
    let Some(node) = cluster.nodes.first() else {
        return Vec::new();
    };
    let drives: Vec<String> = cluster
        .drives_per_set
        .iter()
        .map(ToString::to_string)
        .collect();
    vec![
        condition("MinIO", node.version.clone()),
        condition("drives in each set", drives.join(", ")),
    ]
}

/// What a person should know.
pub fn told(cluster: &ClusterInfo) -> Option<String> {
    let sets: usize = cluster.sets.iter().sum();
    (sets > 1).then(|| {
        format!("the cluster has {sets} erasure sets; objects of the drill lie in any of them")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use veza_probe::minio::NodeInfo;

    fn cluster() -> ClusterInfo {
        let node = |number: usize| NodeInfo {
            endpoint: format!("minio-{number}:9000"),
            state: "online".to_owned(),
            version: "v1".to_owned(),
            drives: vec![Drive {
                endpoint: format!("http://minio-{number}:9000/data"),
                state: "ok".to_owned(),
                available_bytes: ROOM_BYTES,
                ..Drive::default()
            }],
            ..NodeInfo::default()
        };
        ClusterInfo {
            backend: "Erasure".to_owned(),
            parity: 2,
            nodes: (1..=4).map(node).collect(),
            ..ClusterInfo::default()
        }
    }

    fn with(change: impl FnOnce(&mut ClusterInfo)) -> Option<&'static str> {
        let mut cluster = cluster();
        change(&mut cluster);
        trouble(&cluster, 2, 4).map(|(reason_id, _)| reason_id)
    }

    #[test]
    fn a_cluster_that_is_not_as_it_must_be_is_refused_with_the_reason() {
        assert_eq!(with(|_| {}), None);
        assert_eq!(with(|c| c.backend = "FS".to_owned()), Some("not-erasure"));
        assert_eq!(
            with(|c| {
                c.nodes.pop();
            }),
            Some("nodes-differ")
        );
        assert_eq!(
            with(|c| c.nodes[1].state = "offline".to_owned()),
            Some("not-whole")
        );
        assert_eq!(
            with(|c| c.nodes[1].drives[0].state = "offline".to_owned()),
            Some("not-whole")
        );
        assert_eq!(
            with(|c| c.nodes[1].drives[0].healing = true),
            Some("not-whole")
        );
        assert_eq!(with(|c| c.parity = 1), Some("parity-differs"));
        assert_eq!(
            with(|c| c.nodes[3].version = "v2".to_owned()),
            Some("versions-differ")
        );
        assert_eq!(
            with(|c| c.nodes[3].drives[0].available_bytes = ROOM_BYTES - 1),
            Some("no-space")
        );
    }
}
