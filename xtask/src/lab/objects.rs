//! The lab's own objects in Incus: project, storage pool, bridge, profile. Each carries the lab's id,
//! and what does not carry one is not touched.

use std::time::Duration;

use anyhow::{bail, ensure};
use serde_json::{Value, json};
use veza_probe::clock;
use veza_probe::incus::{Error, Incus, Method, Request};

use super::host;
use super::tale::Tale;
use super::topology::LabSpec;

/// The key that holds the lab's id.
pub const LAB_KEY: &str = "user.veza.lab";
/// The key that lets a drill break things in the project.
const DRILL_KEY: &str = "user.veza.drill";
const LIMIT: Duration = Duration::from_secs(120);

/// Reads an object that may not be there.
///
/// # Errors
/// As every request, but for [`Error::NotFound`].
pub async fn find(incus: &Incus, path: &str) -> Result<Option<Value>, Error> {
    match incus.get_value(path).await {
        Ok(value) => Ok(Some(value)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A text in an object's config.
pub fn config<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get("config")?.get(key)?.as_str()
}

/// Makes what is missing, and sets what differs.
///
/// # Errors
/// When an object of the same name is not the lab's, or Incus refuses.
pub async fn ensure(incus: &Incus, lab: &LabSpec, lab_id: &str, tale: &Tale) -> anyhow::Result<()> {
    project(incus, lab, lab_id, tale).await?;
    wait_for_operations(incus, tale).await?;
    pool(incus, lab, lab_id, tale).await?;
    bridge(incus, lab, lab_id, tale).await?;
    profile(incus, lab).await
}

async fn project(incus: &Incus, lab: &LabSpec, lab_id: &str, tale: &Tale) -> anyhow::Result<()> {
    let path = format!("/1.0/projects/{}", lab.project);
    let wanted = json!({
        "features.images": "true",
        "features.profiles": "true",
        "features.storage.volumes": "true",
        "features.storage.buckets": "true",
        "features.networks": "false",
        DRILL_KEY: "allowed",
        LAB_KEY: lab_id,
    });
    let Some(found) = find(incus, &path).await? else {
        tale.say(&format!("making the project {}", lab.project));
        let body = json!({
            "name": lab.project.as_str(),
            "description": "Made by cargo xtask lab",
            "config": wanted,
        });
        let request = Request::new(Method::POST, "/1.0/projects").body(&body);
        incus.change(request, LIMIT).await?;
        return Ok(());
    };
    match config(&found, LAB_KEY) {
        None => bail!(
            "Incus has a project {} that no lab made: name another one in the topology",
            lab.project
        ),
        Some(id) if id != lab_id => bail!(
            "the project {} was made with other credentials than these: if the lab keeps its state \
             elsewhere, name that folder in VEZA_STATE_DIR; else remove the lab by `cargo xtask lab down`",
            lab.project
        ),
        Some(_) => {}
    }
    if config(&found, DRILL_KEY) != Some("allowed") {
        incus.set_project_key(DRILL_KEY, Some("allowed")).await?;
    }
    Ok(())
}

/// A command that was killed leaves its operations in Incus: what they make must not be touched
/// before they are done.
async fn wait_for_operations(incus: &Incus, tale: &Tale) -> anyhow::Result<()> {
    let mut told = false;
    for _ in 0..1200 {
        let all = incus.get_value("/1.0/operations?recursion=1").await?;
        let running = all.get("running").and_then(Value::as_array);
        let busy = running.into_iter().flatten().find(|o| {
            // A command in an instance makes nothing here, and a second one waits in there by itself.
            // Only its description tells it; under another name it would be waited for, too.
            let text = |key: &str| o.get(key).and_then(Value::as_str);
            text("class") == Some("task") && text("description") != Some("Executing command")
        });
        let Some(busy) = busy else {
            return Ok(());
        };
        if !told {
            let what = busy.get("description").and_then(Value::as_str);
            let what = what.unwrap_or("an operation");
            tale.say(&format!("waiting for what Incus still does here: {what}"));
            told = true;
        }
        clock::sleep(Duration::from_millis(250)).await;
    }
    bail!("Incus has been busy in this project for 5 minutes: see `incus operation list`")
}

/// Refuses an object that has the right name but another maker.
fn ensure_ours(object: &Value, what: &str, name: &str) -> anyhow::Result<()> {
    ensure!(
        config(object, LAB_KEY).is_some(),
        "Incus has a {what} {name} that no lab made: name another one in the topology"
    );
    Ok(())
}

async fn pool(incus: &Incus, lab: &LabSpec, lab_id: &str, tale: &Tale) -> anyhow::Result<()> {
    let path = format!("/1.0/storage-pools/{}", lab.pool);
    if let Some(found) = find(incus, &path).await? {
        ensure_ours(&found, "storage pool", lab.pool.as_str())?;
        let status = found
            .get("status")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if status == "Created" {
            return Ok(());
        }
        ensure!(
            status != "Unavailable",
            "Incus says that its storage pool {} is unavailable; its log tells why",
            lab.pool
        );
        tale.say(&format!(
            "removing the storage pool {}, which is {status}",
            lab.pool
        ));
        incus
            .change(Request::new(Method::DELETE, path), LIMIT)
            .await?;
    }
    tale.say(&format!(
        "making the storage pool {} ({}, btrfs)",
        lab.pool, lab.pool_size
    ));
    let body = json!({
        "name": lab.pool.as_str(),
        "driver": "btrfs",
        "description": "Made by cargo xtask lab",
        "config": { "size": lab.pool_size, LAB_KEY: lab_id },
    });
    let request = Request::new(Method::POST, "/1.0/storage-pools").body(&body);
    incus.change(request, LIMIT).await?;
    Ok(())
}

async fn bridge(incus: &Incus, lab: &LabSpec, lab_id: &str, tale: &Tale) -> anyhow::Result<()> {
    let name = lab.bridge.as_str();
    let path = format!("/1.0/networks/{name}");
    let wanted = json!({
        "ipv4.address": format!("{}/{}", lab.gateway, lab.subnet.bits),
        "ipv4.nat": "false",
        // Off, it would cut the instances from each other where bridged packets pass the host's
        // firewall (br_netfilter). The image takes no default route instead.
        "ipv4.routing": "true",
        "ipv6.address": "none",
        "dns.domain": lab.domain,
        // Names outside the lab are unknown at once; no question leaves this host.
        "raw.dnsmasq": "no-resolv",
    });
    // An interface without an address is listed, too, but not as managed.
    let found = find(incus, &path).await?;
    let found = found.filter(|n| n.get("managed") == Some(&json!(true)));
    let status = |n: &Value| n.get("status").and_then(Value::as_str).map(str::to_owned);
    let Some(found) = found else {
        ensure!(
            !host::has_interface(name),
            "this host has a network interface {name} that Incus does not know: name another bridge in the topology"
        );
        return make_bridge(incus, lab, lab_id, wanted, tale).await;
    };
    ensure_ours(&found, "network", name)?;
    if !matches!(status(&found).as_deref(), Some("Created" | "Unavailable")) {
        // The command that made it was killed: Incus has its name, but never set it up.
        tale.say(&format!(
            "the bridge {name} was never finished: removing it"
        ));
        incus
            .change(Request::new(Method::DELETE, path), LIMIT)
            .await?;
        return make_bridge(incus, lab, lab_id, wanted, tale).await;
    }
    let differs = |(key, value): (&String, &Value)| config(&found, key) != value.as_str();
    if wanted.as_object().is_some_and(|w| w.iter().any(differs)) {
        tale.say(&format!("changing the bridge {name}"));
        let body = json!({ "config": wanted });
        let request = Request::new(Method::PATCH, path).body(&body);
        incus.change(request, LIMIT).await?;
    }
    if !host::has_interface(name) {
        tale.say(&format!(
            "the interface {name} is gone: setting the bridge up again"
        ));
        host::revive_bridge(incus, name).await?;
        ensure!(
            host::has_interface(name),
            "Incus does not set its bridge {name} up again; its log tells why"
        );
        unplug_all(incus).await?;
    }
    Ok(())
}

async fn make_bridge(
    incus: &Incus,
    lab: &LabSpec,
    lab_id: &str,
    mut config: Value,
    tale: &Tale,
) -> anyhow::Result<()> {
    tale.say(&format!(
        "making the bridge {} ({})",
        lab.bridge, lab.subnet
    ));
    if let Some(config) = config.as_object_mut() {
        config.insert(LAB_KEY.to_owned(), lab_id.into());
    }
    let body = json!({
        "name": lab.bridge.as_str(),
        "type": "bridge",
        "description": "Made by cargo xtask lab",
        "config": config,
    });
    let request = Request::new(Method::POST, "/1.0/networks").body(&body);
    incus.change(request, LIMIT).await?;
    Ok(())
}

/// Takes the network device out of all running instances. Each still has its address, but on a link
/// to a bridge that is gone; the device is put back with everything else that differs.
async fn unplug_all(incus: &Incus) -> anyhow::Result<()> {
    let instances = incus.get_value("/1.0/instances?recursion=1").await?;
    for instance in instances.as_array().into_iter().flatten() {
        let name = instance.get("name").and_then(Value::as_str);
        let is_running = instance.get("status") == Some(&json!("Running"));
        let Some(name) = name.filter(|_| is_running) else {
            continue;
        };
        let body = json!({ "devices": { "eth0": { "type": "none" } } });
        let path = format!("/1.0/instances/{name}");
        let request = Request::new(Method::PATCH, path).body(&body);
        incus.change(request, LIMIT).await?;
    }
    Ok(())
}

async fn profile(incus: &Incus, lab: &LabSpec) -> anyhow::Result<()> {
    let path = "/1.0/profiles/default";
    let devices = json!({
        "root": { "type": "disk", "path": "/", "pool": lab.pool.as_str() },
        "eth0": { "type": "nic", "name": "eth0", "network": lab.bridge.as_str() },
    });
    let found = incus.get_value(path).await?;
    if found.get("devices") != Some(&devices) {
        let body = json!({ "devices": devices });
        let request = Request::new(Method::PATCH, path).body(&body);
        incus.change(request, LIMIT).await?;
    }
    Ok(())
}

/// Sees to it that the pool has a custom volume of this name in the project.
///
/// # Errors
/// As every change.
pub async fn volume(incus: &Incus, lab: &LabSpec, name: &str) -> anyhow::Result<()> {
    let all = format!("/1.0/storage-pools/{}/volumes/custom", lab.pool);
    if find(incus, &format!("{all}/{name}")).await?.is_none() {
        let body = json!({ "name": name, "description": "Made by cargo xtask lab" });
        let request = Request::new(Method::POST, all).body(&body);
        incus.change(request, LIMIT).await?;
    }
    Ok(())
}

/// Removes the project with all that is in it, then the bridge and the pool.
///
/// # Errors
/// When Incus refuses.
pub async fn remove(incus: &Incus, lab: &LabSpec, tale: &Tale) -> anyhow::Result<()> {
    if let Some(project) = find(incus, &format!("/1.0/projects/{}", lab.project)).await? {
        ensure!(
            config(&project, LAB_KEY).is_some(),
            "the project {} was not made by a lab: left as it is",
            lab.project
        );
        wait_for_operations(incus, tale).await?;
        empty_project(incus, lab, tale).await?;
        let path = format!("/1.0/projects/{}", lab.project);
        incus
            .change(Request::new(Method::DELETE, path), LIMIT)
            .await?;
        tale.say(&format!("removed the project {}", lab.project));
    }
    // The project of these requests is gone; networks and pools belong to the default one.
    let default = Incus::new(incus.place(), "default")?;
    for (what, path) in [
        ("bridge", format!("/1.0/networks/{}", lab.bridge)),
        ("storage pool", format!("/1.0/storage-pools/{}", lab.pool)),
    ] {
        let found = find(&default, &path).await?;
        if found.is_some_and(|o| config(&o, LAB_KEY).is_some()) {
            default
                .change(Request::new(Method::DELETE, &path), LIMIT)
                .await?;
            tale.say(&format!("removed the {what}"));
        }
    }
    Ok(())
}

async fn empty_project(incus: &Incus, lab: &LabSpec, tale: &Tale) -> anyhow::Result<()> {
    let urls: Vec<String> = incus.get("/1.0/instances").await?;
    let names = urls
        .iter()
        .filter_map(|u| u.split('?').next()?.rsplit('/').next());
    let instances: Vec<&str> = names.collect();
    let deleted = instances.iter().map(|name| delete_instance(incus, name));
    futures_util::future::try_join_all(deleted).await?;
    if !instances.is_empty() {
        tale.say(&format!("removed {} instances", instances.len()));
    }
    // Addresses of objects, without the project that a query would add again.
    let volumes = format!("/1.0/storage-pools/{}/volumes/custom", lab.pool);
    for list in ["/1.0/images", volumes.as_str()] {
        let Some(urls) = find(incus, list).await? else {
            continue;
        };
        for path in whole(&urls) {
            incus
                .change(Request::new(Method::DELETE, path), LIMIT)
                .await?;
            tale.say(&format!("removed {path}"));
        }
    }
    Ok(())
}

/// The addresses in a list, without their query, and without snapshots: they are listed beside the volume
/// that they go with.
fn whole(urls: &Value) -> Vec<&str> {
    let urls = urls.as_array().into_iter().flatten();
    let urls = urls.filter_map(|url| url.as_str()?.split('?').next());
    urls.filter(|url| !url.contains("/snapshots/")).collect()
}

/// Deletes an instance in whatever state it is.
///
/// # Errors
/// When Incus refuses.
pub async fn delete_instance(incus: &Incus, name: &str) -> anyhow::Result<()> {
    let path = format!("/1.0/instances/{name}");
    let stop = json!({ "action": "stop", "force": true, "timeout": -1 });
    let state = Request::new(Method::PUT, format!("{path}/state")).body(&stop);
    // It may be stopped already; whether it is shows in what follows.
    let _ = incus.change(state, LIMIT).await;
    incus
        .change(Request::new(Method::DELETE, path), LIMIT)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_goes_with_its_snapshots() {
        let pool = "/1.0/storage-pools/p/volumes/custom";
        let urls = json!([
            format!("{pool}/a-data?project=veza-lab"),
            format!("{pool}/a-data/snapshots/veza-healthy?project=veza-lab"),
            format!("{pool}/b-data"),
        ]);
        assert_eq!(
            whole(&urls),
            [format!("{pool}/a-data"), format!("{pool}/b-data")]
        );
    }
}
