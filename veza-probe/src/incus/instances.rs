//! Instances: what they are, and changing their state and config keys.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Error, Incus, Request};
use crate::clock;
use crate::instance::InstanceName;

/// What Incus calls a command in an instance among its operations (seen with Incus 6.0).
const EXEC: &str = "Executing command";

/// How often a part of an instance is read and written before someone else's changes win.
const PATCH_TRIES: usize = 20;
/// How long one such write may take.
const PATCH_LIMIT: Duration = Duration::from_secs(30);
/// How long another operation on the instance is waited for between two tries.
const BUSY_PAUSE: Duration = Duration::from_millis(200);

/// An instance as Incus describes it, with its state.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Its name.
    pub name: InstanceName,
    /// What it is doing.
    pub status: Status,
    /// Its init process as the host sees it; 0 when it is not running. A new start has a new one.
    pub init_pid: i64,
    /// Its own config keys (`user.*`, `boot.*`, `limits.*`, …), without those of profiles.
    pub config: BTreeMap<String, String>,
    /// Its config with that of its profiles.
    pub expanded_config: BTreeMap<String, String>,
    /// Its own devices, without those of profiles.
    pub devices: BTreeMap<String, Device>,
    /// Its devices with those of its profiles.
    pub expanded_devices: BTreeMap<String, Device>,
    /// Its network interfaces but loopback, while it runs.
    pub nics: Vec<Nic>,
}

/// A device as Incus describes it: its options by name, `type` among them.
pub type Device = BTreeMap<String, String>;

/// A network interface of a running instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// Its name inside, such as `eth0`.
    pub name: String,
    /// Its IPv4 addresses of global scope.
    pub ipv4: Vec<Ipv4Addr>,
}

/// What an instance is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It runs.
    Running,
    /// It is stopped.
    Stopped,
    /// Its processes are frozen.
    Frozen,
    /// Anything else: starting, stopping, error.
    Other,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Status::Running => "running",
            Status::Stopped => "stopped",
            Status::Frozen => "frozen",
            Status::Other => "in between",
        })
    }
}

impl Status {
    fn parse(text: &str) -> Status {
        match text {
            "Running" | "Ready" => Status::Running,
            "Stopped" => Status::Stopped,
            "Frozen" => Status::Frozen,
            _ => Status::Other,
        }
    }
}

/// A change of an instance's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateChange {
    /// Boots it.
    Start,
    /// Kills all its processes: a power cut.
    ForceStop,
    /// Asks its init to shut down.
    CleanStop,
    /// Stops its processes where they are.
    Freeze,
    /// Lets them go on.
    Unfreeze,
}

#[derive(Deserialize)]
struct Wire {
    name: String,
    status: String,
    #[serde(default, deserialize_with = "null_is_empty")]
    config: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "null_is_empty")]
    expanded_config: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "null_is_empty")]
    devices: BTreeMap<String, Device>,
    #[serde(default, deserialize_with = "null_is_empty")]
    expanded_devices: BTreeMap<String, Device>,
    state: Option<WireState>,
}

/// Seen with Incus 6.0: `null` for the maps of an instance whose start has just failed. One such
/// instance must not make the whole list unreadable.
fn null_is_empty<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

#[derive(Deserialize)]
struct WireState {
    status: String,
    #[serde(default)]
    pid: i64,
    network: Option<BTreeMap<String, WireNic>>,
}

#[derive(Deserialize)]
struct WireNic {
    #[serde(default, deserialize_with = "null_is_empty")]
    addresses: Vec<WireAddress>,
}

#[derive(Deserialize)]
struct WireAddress {
    family: String,
    address: String,
    scope: String,
}

impl Wire {
    fn into_instance(self) -> Result<Instance, Error> {
        let asked = "reading instances";
        let name = InstanceName::new(self.name).map_err(|e| Error::protocol(asked, &e))?;
        let state = self.state;
        let (status, init_pid) = state
            .as_ref()
            .map_or((self.status.as_str(), 0), |s| (s.status.as_str(), s.pid));
        let status = Status::parse(status);
        let nics = state.and_then(|s| s.network).unwrap_or_default();
        let nics = nics
            .into_iter()
            .filter(|(name, _)| name != "lo")
            .map(nic)
            .collect();
        Ok(Instance {
            name,
            status,
            init_pid,
            config: self.config,
            expanded_config: self.expanded_config,
            devices: self.devices,
            expanded_devices: self.expanded_devices,
            nics,
        })
    }
}

fn nic((name, wire): (String, WireNic)) -> Nic {
    let global = wire
        .addresses
        .iter()
        .filter(|a| a.family == "inet" && a.scope == "global");
    Nic {
        name,
        ipv4: global.filter_map(|a| a.address.parse().ok()).collect(),
    }
}

impl Instance {
    /// All its IPv4 addresses of global scope.
    pub fn ipv4(&self) -> Vec<Ipv4Addr> {
        self.nics
            .iter()
            .flat_map(|n| n.ipv4.iter().copied())
            .collect()
    }
}

impl Incus {
    /// All instances of the project, with state and addresses.
    ///
    /// # Errors
    /// As every request.
    pub async fn instances(&self) -> Result<Vec<Instance>, Error> {
        let request = Request::new(Method::GET, "/1.0/instances").query("recursion", "2");
        let (mut envelope, _) = self.send(&request).await?;
        let list = envelope
            .get_mut("metadata")
            .map(Value::take)
            .unwrap_or_default();
        let list: Vec<Wire> =
            serde_json::from_value(list).map_err(|e| Error::protocol("GET /1.0/instances", &e))?;
        list.into_iter().map(Wire::into_instance).collect()
    }

    /// One instance, with state and addresses.
    ///
    /// # Errors
    /// As every request; [`Error::NotFound`] when it is not there.
    pub async fn instance(&self, name: &InstanceName) -> Result<Instance, Error> {
        let path = format!("/1.0/instances/{name}");
        let request = Request::new(Method::GET, &path).query("recursion", "1");
        let (mut envelope, _) = self.send(&request).await?;
        let value = envelope
            .get_mut("metadata")
            .map(Value::take)
            .unwrap_or_default();
        let wire: Wire = serde_json::from_value(value).map_err(|e| Error::protocol(&path, &e))?;
        wire.into_instance()
    }

    /// Whether something is under way that changes the instance itself: its state, config, devices.
    ///
    /// # Errors
    /// As every request.
    pub async fn is_busy(&self, name: &InstanceName) -> Result<bool, Error> {
        self.is_under_way(name, |description| description != EXEC)
            .await
    }

    /// Whether a command that was asked for without a terminal, as [`Incus::exec`] does, still runs
    /// in the instance. Somebody's shell is none.
    ///
    /// # Errors
    /// As every request.
    pub async fn is_executing(&self, name: &InstanceName) -> Result<bool, Error> {
        self.is_under_way(name, |description| description == EXEC)
            .await
    }

    async fn is_under_way(
        &self,
        name: &InstanceName,
        counts: impl Fn(&str) -> bool,
    ) -> Result<bool, Error> {
        let request = Request::new(Method::GET, "/1.0/operations").query("recursion", "1");
        let (envelope, _) = self.send(&request).await?;
        // An object of lists, a list per status: `{"running": [{"resources": {…}}]}`.
        let lists = envelope.get("metadata").and_then(Value::as_object);
        let mut operations = lists
            .into_iter()
            .flat_map(|l| l.values())
            .filter_map(Value::as_array);
        let path = format!("/1.0/instances/{name}");
        let ours = |operation: &Value| {
            let under_way = operation.get("status_code").and_then(Value::as_u64);
            let text = |key: &str| operation.get(key).and_then(Value::as_str);
            let on = operation
                .pointer("/resources/instances")
                .and_then(Value::as_array);
            let mut on = on.into_iter().flatten().filter_map(Value::as_str);
            under_way.is_some_and(|code| code < 200)
                && text("class") == Some("task")
                && counts(text("description").unwrap_or_default())
                && on.any(|p| p.split('?').next() == Some(path.as_str()))
        };
        Ok(operations.any(|list| list.iter().any(ours)))
    }

    /// Changes the state of an instance and waits until Incus says it is done.
    ///
    /// # Errors
    /// As every change. "The instance is already running" and the like are errors, too: ask for the
    /// state where that is no trouble.
    pub async fn set_state(
        &self,
        name: &InstanceName,
        change: StateChange,
        limit: Duration,
    ) -> Result<(), Error> {
        let (action, force) = match change {
            StateChange::Start => ("start", false),
            StateChange::ForceStop => ("stop", true),
            StateChange::CleanStop => ("stop", false),
            StateChange::Freeze => ("freeze", false),
            StateChange::Unfreeze => ("unfreeze", false),
        };
        let timeout_s = if force {
            -1
        } else {
            i64::try_from(limit.as_secs()).unwrap_or(-1)
        };
        let body = json!({ "action": action, "force": force, "timeout": timeout_s });
        let path = format!("/1.0/instances/{name}/state");
        self.change(Request::new(Method::PUT, path).body(&body), limit)
            .await?;
        Ok(())
    }

    /// Sets a key of the instance's own config, or removes it with `None`; `expected` is the value
    /// that it must have now.
    ///
    /// # Errors
    /// [`Error::Changed`] when the key has another value than expected; as every change otherwise.
    pub async fn set_config_key(
        &self,
        name: &InstanceName,
        key: &str,
        expected: Option<&str>,
        value: Option<&str>,
    ) -> Result<(), Error> {
        let found = |object: &Value| {
            let found = object.get("config").and_then(|c| c.get(key));
            found
                .and_then(Value::as_str)
                .filter(|v| !v.is_empty())
                .map(str::to_owned)
        };
        // PATCH with an empty value removes a key (Incus' own rule).
        let body = json!({ "config": { key: value.unwrap_or_default() } });
        self.patch(name, &body, |object| {
            let found = found(object);
            if found.as_deref() == expected {
                return Ok(());
            }
            Err(format!("{key} is {found:?}, expected {expected:?}"))
        })
        .await
    }

    /// Replaces one of the instance's own devices as a whole; `expected` is what it must be now.
    ///
    /// # Errors
    /// [`Error::Changed`] when the device is another than expected; as every change otherwise.
    pub async fn set_device(
        &self,
        name: &InstanceName,
        device: &str,
        expected: &Device,
        wanted: &Device,
    ) -> Result<(), Error> {
        let body = json!({ "devices": { device: wanted } });
        self.patch(name, &body, |object| {
            let found = object.get("devices").and_then(|d| d.get(device));
            if found == Some(&json!(expected)) {
                return Ok(());
            }
            Err(format!(
                "device {device} is {found:?}, expected {expected:?}"
            ))
        })
        .await
    }

    /// Changes a part of an instance: read, checked, written with If-Match, and all of it again while
    /// someone else changes the object (its ETag covers volatile keys, which change at every start
    /// and stop) or keeps it busy.
    async fn patch(
        &self,
        name: &InstanceName,
        body: &Value,
        check: impl Fn(&Value) -> Result<(), String>,
    ) -> Result<(), Error> {
        let path = format!("/1.0/instances/{name}");
        let mut last = None;
        for _ in 0..PATCH_TRIES {
            let (object, etag) = self.get_with_etag(&path).await?;
            check(&object).map_err(|words| Error::Changed {
                asked: format!("PATCH {path}"),
                words,
            })?;
            let request = Request::new(Method::PATCH, &path)
                .body(body)
                .if_match(&etag);
            match self.change(request, PATCH_LIMIT).await {
                Ok(_) => return Ok(()),
                Err(error @ Error::Changed { .. }) => last = Some(error),
                Err(error) if error.is_busy() => {
                    last = Some(error);
                    clock::sleep(BUSY_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::Limit {
            asked: format!("PATCH {path}"),
            limit: Duration::ZERO,
        }))
    }
}
