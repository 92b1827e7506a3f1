//! The healthy snapshot of a group, and the way back to it. All instances of a group are stopped
//! cleanly before the first is taken: snapshots of running nodes come from different moments, and a
//! standby that is later than its primary can't follow it. An instance that is alone in its group goes
//! on running: its clients need not notice.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::future::try_join_all;
use serde_json::json;
use veza_probe::incus::{Error, Method, Request, StateChange};

use super::plan::{FILES_KEY, Found, SNAPSHOT_KEY, Wanted};
use super::provision;
use super::site::Site;
use super::topology::{InstanceSpec, LabSpec};

const NAME: &str = "veza-healthy";
const STOP_LIMIT: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_secs(120);

/// Whether a group has a healthy snapshot of what it is now: taken of all its instances in the same
/// stopped moment, with the files that they have.
pub fn is_current(found: &BTreeMap<String, Found>, group: &[Wanted<'_>]) -> bool {
    let mut taken = group.iter().map(|wanted| {
        let instance = found.get(wanted.spec.name.as_str())?;
        let snapshot = instance.snapshot(NAME)?;
        let files = snapshot.config.get(FILES_KEY)?;
        let same = instance.key(FILES_KEY) == Some(files);
        snapshot.config.get(SNAPSHOT_KEY).filter(|_| same)
    });
    let Some(first) = taken.next() else {
        return true;
    };
    first.is_some() && taken.all(|t| t == first)
}

/// Takes the healthy snapshot of a group, whose instances run afterwards.
///
/// # Errors
/// When an instance does not stop cleanly, or Incus refuses.
pub async fn take(site: &Site<'_>, group: &[Wanted<'_>]) -> anyhow::Result<()> {
    let taken = site.tale.unix_seconds().to_string();
    let alone = group.len() == 1;
    for wanted in group.iter().rev().filter(|_| !alone) {
        let name = &wanted.spec.name;
        site.tale
            .doing(&format!("stopping {name} for the snapshot"));
        let stop = site
            .incus
            .set_state(name, StateChange::CleanStop, STOP_LIMIT);
        stop.await
            .with_context(|| format!("stopping {name} cleanly"))?;
    }
    let snapshots = group.iter().map(|wanted| async {
        let name = &wanted.spec.name;
        site.set(name, json!({ SNAPSHOT_KEY: taken })).await?;
        // The instance's own snapshot is what is looked for: it goes first and comes last, so that it
        // never stands beside volumes of another moment.
        let all = owners(site.lab, wanted.spec);
        for owner in &all {
            drop_one(site, owner).await?;
        }
        for owner in all.iter().rev() {
            let body = json!({ "name": NAME });
            let request = Request::new(Method::POST, format!("{owner}/snapshots")).body(&body);
            site.incus.change(request, LIMIT).await?;
        }
        anyhow::Ok(())
    });
    try_join_all(snapshots).await?;
    if alone {
        return Ok(());
    }
    start_all(site, group).await
}

/// Removes a healthy snapshot, if there is one.
async fn drop_one(site: &Site<'_>, owner: &str) -> anyhow::Result<()> {
    let request = Request::new(Method::DELETE, format!("{owner}/snapshots/{NAME}"));
    match site.incus.change(request, LIMIT).await {
        Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What of an instance has snapshots: itself, then its volumes, which its own leave out.
fn owners(lab: &LabSpec, spec: &InstanceSpec) -> Vec<String> {
    let instance = format!("/1.0/instances/{}", spec.name);
    let all = format!("/1.0/storage-pools/{}/volumes/custom", lab.pool);
    let volumes = spec.volumes.keys();
    let volumes = volumes.map(|device| format!("{all}/{}", spec.volume(device)));
    std::iter::once(instance).chain(volumes).collect()
}

async fn start_all(site: &Site<'_>, group: &[Wanted<'_>]) -> anyhow::Result<()> {
    let starts = group.iter().map(|w| async {
        let started = provision::start(site.incus, &w.spec.name).await;
        started.with_context(|| format!("instance {}", w.spec.name))
    });
    try_join_all(starts).await?;
    Ok(())
}

/// Brings a group back to its healthy snapshot, and starts it.
///
/// # Errors
/// When there is no such snapshot, or Incus refuses.
pub async fn restore(site: &Site<'_>, group: &[Wanted<'_>]) -> anyhow::Result<()> {
    let found = provision::found(site.incus).await?;
    for wanted in group {
        let name = wanted.spec.name.as_str();
        // Of an instance whose last start failed, the list does not say whether it has one.
        let unknown = found.get(name).is_some_and(Found::is_unknown);
        if !unknown && found.get(name).and_then(|f| f.snapshot(NAME)).is_none() {
            bail!("{name} has no healthy snapshot to go back to: run `cargo xtask lab up`");
        }
    }
    let restores = group.iter().map(|wanted| async {
        let name = &wanted.spec.name;
        let status = found.get(name.as_str()).map(|f| f.status.as_str());
        if status != Some("Stopped") {
            force_stop(site, wanted).await?;
        }
        for owner in owners(site.lab, wanted.spec) {
            let body = json!({ "restore": NAME });
            let request = Request::new(Method::PUT, owner.as_str()).body(&body);
            let restored = site.incus.change(request, LIMIT).await;
            restored.with_context(|| format!("restoring {name} ({owner})"))?;
        }
        anyhow::Ok(())
    });
    try_join_all(restores).await?;
    start_all(site, group).await
}

/// Stops an instance as it is; a frozen one that does not stop is unfrozen first.
async fn force_stop(site: &Site<'_>, wanted: &Wanted<'_>) -> anyhow::Result<()> {
    let name = &wanted.spec.name;
    let stop = || {
        site.incus
            .set_state(name, StateChange::ForceStop, STOP_LIMIT)
    };
    if stop().await.is_ok() {
        return Ok(());
    }
    // "Not frozen" and "stopped already" are fine; what matters is the state afterwards.
    let _ = site
        .incus
        .set_state(name, StateChange::Unfreeze, STOP_LIMIT)
        .await;
    if let Err(error) = stop().await {
        let all = provision::found(site.incus).await?;
        if all
            .get(name.as_str())
            .is_some_and(|f| f.status != "Stopped")
        {
            return Err(error).with_context(|| format!("stopping {name}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::role::Role;
    use super::super::topology::tests::small;
    use super::*;

    fn found(files: &str, snapshot_files: &str, taken: &str) -> Found {
        serde_json::from_value(json!({
            "name": "x", "status": "Running", "config": { FILES_KEY: files },
            "snapshots": [{ "name": NAME, "config": { FILES_KEY: snapshot_files, SNAPSHOT_KEY: taken } }],
        }))
        .unwrap()
    }

    #[test]
    fn an_instance_has_snapshots_of_itself_and_of_its_volumes() {
        let topology = small();
        let mut spec = topology.instances().next().unwrap().1.clone();
        assert_eq!(owners(&topology.lab, &spec), ["/1.0/instances/a"]);
        let path = "/var/lib/x".to_owned();
        spec.volumes.insert("data".to_owned(), path);
        assert_eq!(
            owners(&topology.lab, &spec),
            [
                "/1.0/instances/a",
                "/1.0/storage-pools/veza-lab/volumes/custom/a-data"
            ]
        );
    }

    #[test]
    fn a_snapshot_is_current_only_when_whole_and_of_the_same_files() {
        let (topology, role): (_, Role) = (small(), toml::from_str("description = \"\"").unwrap());
        let group: Vec<Wanted> = topology
            .instances()
            .map(|(group, spec)| Wanted {
                spec,
                group,
                role: &role,
                files: Vec::new(),
            })
            .collect();
        let current = |a: Found, b: Found| {
            is_current(
                &BTreeMap::from([("a".to_owned(), a), ("b".to_owned(), b)]),
                &group,
            )
        };
        assert!(current(found("1", "1", "t"), found("2", "2", "t")));
        assert!(!current(found("1", "1", "t"), found("2", "2", "later")));
        assert!(!current(found("1", "1", "t"), found("3", "2", "t")));
        assert!(!current(found("1", "1", "t"), Found::default()));
        assert!(!current(Found::default(), Found::default()));
        assert!(!is_current(&BTreeMap::new(), &group));
    }
}
