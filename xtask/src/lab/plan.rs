//! What an instance is, what it should be, and what has to be done about it: pure, so that the
//! decision to delete an instance is tested without one.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::role::{Change, Rendered, Role, short_digest};
use super::topology::{InstanceSpec, LabSpec};

/// The digests of an instance's files, by path. Written once all of them are there.
pub const FILES_KEY: &str = "user.veza.files";
/// The role and its packages that the instance was made with.
pub const ROLE_KEY: &str = "user.veza.role";
/// Set once the `create` steps are done and the units enabled.
pub const MADE_KEY: &str = "user.veza.made";
/// The taking of the healthy snapshot that the instance was part of.
pub const SNAPSHOT_KEY: &str = "user.veza.snapshot";
/// The group that the instance belongs to.
pub const GROUP_KEY: &str = "user.veza.group";
/// A drill's record of a fault.
pub const FAULT_KEY: &str = "user.veza.fault";

/// An instance as Incus tells it.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// Incus' word for its state.
    pub status: String,
    /// Its own config.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub config: BTreeMap<String, String>,
    /// Its own devices.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub devices: Devices,
    /// Its state, with addresses.
    #[serde(default)]
    state: Option<State>,
    /// Its snapshots.
    #[serde(default)]
    snapshots: Option<Vec<Snapshot>>,
}

/// Incus says `null` for maps of an instance that it can't ask right now, as of one whose start failed.
fn null_is_empty<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

#[derive(Clone, Debug, Default, Deserialize)]
struct State {
    network: Option<BTreeMap<String, Nic>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Nic {
    #[serde(default, deserialize_with = "null_is_empty")]
    addresses: Vec<Address>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Address {
    address: String,
}

/// A snapshot of an instance.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Snapshot {
    name: String,
    /// The instance's config at that moment.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub config: BTreeMap<String, String>,
}

impl Found {
    /// Whether Incus could not ask it when it made the list, or its last start failed.
    pub fn is_unknown(&self) -> bool {
        self.status == "Error"
    }

    /// A key of its own config.
    pub fn key(&self, name: &str) -> Option<&str> {
        self.config.get(name).map(String::as_str)
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        matches!(self.status.as_str(), "Running" | "Ready")
    }

    /// Whether it has an address right now.
    pub fn has_address(&self, address: Ipv4Addr) -> bool {
        let address = address.to_string();
        let networks = self.state.iter().filter_map(|s| s.network.as_ref());
        let mut nics = networks.flat_map(BTreeMap::values);
        nics.any(|n| n.addresses.iter().any(|a| a.address == address))
    }

    /// A snapshot by name.
    pub fn snapshot(&self, name: &str) -> Option<&Snapshot> {
        let snapshots = self.snapshots.as_deref().unwrap_or_default();
        // Incus has written snapshots with and without the instance's name in front.
        let is_it = |s: &&Snapshot| s.name.rsplit('/').next() == Some(name);
        snapshots.iter().find(is_it)
    }
}

/// An instance as it should be.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// What the topology says.
    pub spec: &'a InstanceSpec,
    /// The name of its group.
    pub group: &'a str,
    /// Its role.
    pub role: &'a Role,
    /// Its files.
    pub files: Vec<Rendered>,
}

impl Wanted<'_> {
    /// The role with a digest of its packages, and with its volumes: what can't be changed in place. (A
    /// volume that came to a path in use would hide what is there.)
    pub fn role_stamp(&self) -> String {
        let mut packages = self.role.packages.clone();
        packages.sort();
        let digest = short_digest([packages.join(" ").as_bytes()]);
        let volumes = self.spec.volumes.iter();
        let volumes: String = volumes.map(|(d, path)| format!(" {d}={path}")).collect();
        format!("{} {digest}{volumes}", self.spec.role)
    }

    /// The digests of its files as they are noted in the instance.
    pub fn file_stamp(&self) -> String {
        let digests: BTreeMap<&str, String> = self
            .files
            .iter()
            .map(|f| (f.path.as_str(), f.digest()))
            .collect();
        json!(digests).to_string()
    }

    /// The config keys that follow from the topology.
    pub fn config(&self) -> BTreeMap<String, String> {
        let limits = self.spec.limits.iter();
        let mut config: BTreeMap<String, String> = limits
            .map(|(k, v)| (format!("limits.{k}"), v.clone()))
            .collect();
        config.insert(GROUP_KEY.to_owned(), self.group.to_owned());
        config
    }

    /// Its devices by name: network and volumes. Address and MAC are pinned on the instance's own
    /// device: so a drill can take the device away and give it back without the instance becoming
    /// another one.
    pub fn devices(&self, lab: &LabSpec) -> Devices {
        let device = |pairs: &[(&str, String)]| {
            let pairs = pairs.iter().map(|(k, v)| ((*k).to_owned(), v.clone()));
            pairs.collect::<BTreeMap<String, String>>()
        };
        let nic = device(&[
            ("type", "nic".to_owned()),
            ("name", "eth0".to_owned()),
            ("network", lab.bridge.to_string()),
            ("ipv4.address", self.spec.address.to_string()),
            ("hwaddr", self.spec.hwaddr()),
        ]);
        let mut devices = Devices::from([("eth0".to_owned(), nic)]);
        for (name, path) in &self.spec.volumes {
            let disk = device(&[
                ("type", "disk".to_owned()),
                ("pool", lab.pool.to_string()),
                ("source", self.spec.volume(name)),
                ("path", path.clone()),
            ]);
            devices.insert(name.clone(), disk);
        }
        devices
    }
}

/// Devices of an instance by name, each as Incus has it.
pub type Devices = BTreeMap<String, BTreeMap<String, String>>;

/// What has to be done about an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// It is not there.
    Make,
    /// It is there, but must be made anew, for this reason.
    Remake(String),
    /// It stays; this much of it changes.
    Keep(Changes),
}

/// Changes of an instance that stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Paths to write.
    pub write: Vec<String>,
    /// Paths to remove.
    pub remove: Vec<String>,
    /// What the units have to do about it: reload or restart.
    pub action: Option<Change>,
    /// Config keys to set; an empty value removes one.
    pub config: Map<String, Value>,
    /// Devices to set.
    pub devices: Devices,
}

impl Changes {
    /// Whether files differ.
    pub fn has_files(&self) -> bool {
        !self.write.is_empty() || !self.remove.is_empty()
    }
}

/// Compares what is with what should be.
pub fn plan(found: Option<&Found>, wanted: &Wanted, lab: &LabSpec) -> Plan {
    let Some(found) = found else {
        return Plan::Make;
    };
    let noted = found.key(FILES_KEY);
    let noted: Option<BTreeMap<String, String>> =
        noted.and_then(|text| serde_json::from_str(text).ok());
    let Some(noted) = noted else {
        return Plan::Remake("it was never finished".to_owned());
    };
    if found.key(ROLE_KEY) != Some(&wanted.role_stamp()) {
        let why = "its role, the packages of its role or its volumes changed";
        return Plan::Remake(why.to_owned());
    }
    let mut changes = Changes {
        config: config_changes(found, wanted),
        devices: wanted.devices(lab),
        ..Changes::default()
    };
    let devices = &mut changes.devices;
    devices.retain(|name, device| found.devices.get(name) != Some(device));
    for file in &wanted.files {
        if noted.get(&file.path) == Some(&file.digest()) {
            continue;
        }
        match file.change {
            Change::Seed if noted.contains_key(&file.path) => {}
            // The role did not have it when the instance was made.
            Change::Seed => changes.write.push(file.path.clone()),
            Change::Recreate => return Plan::Remake(format!("{} changed", file.path)),
            Change::Reload | Change::Restart => {
                changes.write.push(file.path.clone());
                changes.action = changes.action.max(Some(file.change));
            }
        }
    }
    let wanted_paths: Vec<&str> = wanted.files.iter().map(|f| f.path.as_str()).collect();
    let gone = noted.keys().filter(|p| !wanted_paths.contains(&p.as_str()));
    changes.remove = gone.cloned().collect();
    if !changes.remove.is_empty() {
        // What a file that is gone meant is not known any more.
        changes.action = Some(Change::Restart);
    }
    Plan::Keep(changes)
}

/// When several instances of a group must be made anew, all of it is: what stays would remember
/// members that are gone, and new members would wait for them.
pub fn remake_whole(group: &mut [Plan]) {
    let remade = group
        .iter()
        .filter(|p| matches!(p, Plan::Remake(_)))
        .count();
    if remade < 2 {
        return;
    }
    for plan in group.iter_mut().filter(|p| matches!(p, Plan::Keep(_))) {
        *plan = Plan::Remake("several others of its group are".to_owned());
    }
}

fn config_changes(found: &Found, wanted: &Wanted) -> Map<String, Value> {
    let config = wanted.config();
    let differs = |(k, v): &(&String, &String)| found.key(k) != Some(v.as_str());
    let mut changes: Map<String, Value> = config
        .iter()
        .filter(differs)
        .map(|(k, v)| (k.clone(), v.as_str().into()))
        .collect();
    let dropped = found.config.keys().filter(|k| k.starts_with("limits."));
    for key in dropped.filter(|k| !config.contains_key(*k)) {
        changes.insert(key.clone(), "".into());
    }
    changes
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::topology::tests::small;
    use super::*;

    fn role() -> Role {
        toml::from_str("description = \"a test\"\npackages = [\"x\"]").unwrap()
    }

    fn file(path: &str, change: Change, text: &str) -> Rendered {
        Rendered {
            path: path.to_owned(),
            owner: "root".to_owned(),
            group: "root".to_owned(),
            mode: 0o644,
            change,
            content: Arc::new(text.as_bytes().to_vec()),
            sum: None,
        }
    }

    fn files(text: &str) -> Vec<Rendered> {
        vec![
            file("/seed", Change::Seed, "s"),
            file("/reload", Change::Reload, "l"),
            file("/restart", Change::Restart, "t"),
            file("/recreate", Change::Recreate, text),
        ]
    }

    /// The plan after a change of what is wanted, and of what is found.
    fn planned(want: impl Fn(&mut Wanted), find: impl Fn(&mut Found)) -> Plan {
        let (topology, role) = (small(), role());
        let mut spec = topology.instances().next().unwrap().1.clone();
        let path = "/var/lib/x".to_owned();
        spec.volumes.insert("data".to_owned(), path);
        let mut wanted = Wanted {
            spec: &spec,
            group: "one",
            role: &role,
            files: files("c"),
        };
        let mut found = Found {
            name: "a".to_owned(),
            config: wanted.config(),
            ..Found::default()
        };
        found
            .config
            .insert(FILES_KEY.to_owned(), wanted.file_stamp());
        found
            .config
            .insert(ROLE_KEY.to_owned(), wanted.role_stamp());
        found.devices = wanted.devices(&topology.lab);
        want(&mut wanted);
        find(&mut found);
        plan(Some(&found), &wanted, &topology.lab)
    }

    fn kept(plan: Plan) -> Changes {
        match plan {
            Plan::Keep(changes) => changes,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_as_it_should_be_is_left_alone() {
        assert_eq!(kept(planned(|_| {}, |_| {})), Changes::default());
    }

    #[test]
    fn a_changed_file_means_what_its_role_says() {
        let changed = |index: usize| {
            planned(
                |w| Arc::make_mut(&mut w.files[index].content).push(b'!'),
                |_| {},
            )
        };
        assert_eq!(kept(changed(0)), Changes::default());
        let reload = kept(changed(1));
        assert_eq!(
            (reload.write, reload.action),
            (vec!["/reload".to_owned()], Some(Change::Reload))
        );
        assert_eq!(kept(changed(2)).action, Some(Change::Restart));
        assert!(matches!(changed(3), Plan::Remake(why) if why.contains("/recreate")));
        let both = kept(planned(
            |w| w.files[1..3].iter_mut().for_each(|f| f.mode = 0o600),
            |_| {},
        ));
        assert_eq!((both.write.len(), both.action), (2, Some(Change::Restart)));
    }

    #[test]
    fn a_file_that_came_is_written_and_one_that_went_is_removed() {
        let came = kept(planned(
            |w| w.files.push(file("/new", Change::Reload, "")),
            |_| {},
        ));
        assert_eq!(came.write, ["/new"]);
        let seed = kept(planned(
            |w| w.files.push(file("/new", Change::Seed, "")),
            |_| {},
        ));
        assert_eq!((seed.write, seed.action), (vec!["/new".to_owned()], None));
        let went = kept(planned(|w| drop(w.files.remove(1)), |_| {}));
        assert_eq!(
            (went.remove, went.action),
            (vec!["/reload".to_owned()], Some(Change::Restart))
        );
    }

    #[test]
    fn what_was_never_finished_or_has_another_role_is_made_anew() {
        let unfinished = planned(|_| {}, |f| drop(f.config.remove(FILES_KEY)));
        assert!(matches!(unfinished, Plan::Remake(_)));
        let garbled = planned(
            |_| {},
            |f| drop(f.config.insert(FILES_KEY.to_owned(), "{".to_owned())),
        );
        assert!(matches!(garbled, Plan::Remake(_)));
        let other = planned(
            |_| {},
            |f| drop(f.config.insert(ROLE_KEY.to_owned(), "q".to_owned())),
        );
        assert!(matches!(other, Plan::Remake(_)));
    }

    #[test]
    fn a_group_is_made_anew_whole_or_one_at_a_time() {
        let keep = || Plan::Keep(Changes::default());
        let remake = || Plan::Remake("x".to_owned());
        let mut one = [keep(), remake(), Plan::Make];
        remake_whole(&mut one);
        assert_eq!(one, [keep(), remake(), Plan::Make]);
        let mut two = [keep(), remake(), remake(), Plan::Make];
        remake_whole(&mut two);
        assert!(matches!(
            two,
            [
                Plan::Remake(_),
                Plan::Remake(_),
                Plan::Remake(_),
                Plan::Make
            ]
        ));
    }

    #[test]
    fn limits_and_devices_are_put_right() {
        let dropped = planned(
            |_| {},
            |f| drop(f.config.insert("limits.cpu".to_owned(), "1".to_owned())),
        );
        assert_eq!(json!(kept(dropped).config), json!({ "limits.cpu": "" }));
        let other = planned(|_| {}, |f| drop(f.config.remove("limits.memory")));
        assert_eq!(
            json!(kept(other).config),
            json!({ "limits.memory": "512MiB" })
        );
        let masked = planned(
            |_| {},
            |f| drop(f.devices.insert("eth0".to_owned(), BTreeMap::new())),
        );
        let masked = kept(masked).devices;
        assert_eq!(masked.keys().collect::<Vec<_>>(), ["eth0"]);
        let taken = kept(planned(|_| {}, |f| drop(f.devices.remove("data"))));
        assert_eq!(
            json!(taken.devices),
            json!({ "data": { "type": "disk", "pool": "veza-lab", "source": "a-data", "path": "/var/lib/x" } })
        );
    }

    #[test]
    fn a_volume_that_came_went_or_moved_means_another_instance() {
        let topology = small();
        let bare = topology.instances().next().unwrap().1;
        let mut moved = bare.clone();
        let path = "/var/lib/y".to_owned();
        moved.volumes.insert("data".to_owned(), path);
        for spec in [bare, &moved] {
            let role = role();
            let plan = planned(
                |_| {},
                |f| {
                    let files = files("c");
                    let other = Wanted {
                        spec,
                        group: "one",
                        role: &role,
                        files,
                    };
                    let stamp = other.role_stamp();
                    f.config.insert(ROLE_KEY.to_owned(), stamp);
                },
            );
            assert!(matches!(plan, Plan::Remake(why) if why.contains("volumes")));
        }
        // An instance without volumes is none of this change's business.
        let role = role();
        let wanted = Wanted {
            spec: bare,
            group: "one",
            role: &role,
            files: Vec::new(),
        };
        assert_eq!(wanted.role_stamp().split(' ').count(), 2);
    }

    #[test]
    fn an_instance_is_read_as_incus_tells_it() {
        let found: Found = serde_json::from_value(json!({
            "name": "a", "status": "Running", "config": {}, "devices": {},
            "state": { "network": { "eth0": { "addresses": [{ "family": "inet", "address": "198.18.0.11" }] } } },
            "snapshots": [{ "name": "veza-healthy", "config": { SNAPSHOT_KEY: "1" } }],
        }))
        .unwrap();
        assert!(found.is_running() && found.has_address(Ipv4Addr::new(198, 18, 0, 11)));
        assert!(!found.has_address(Ipv4Addr::new(198, 18, 0, 1)));
        assert_eq!(
            found.snapshot("veza-healthy").unwrap().config[SNAPSHOT_KEY],
            "1"
        );
        assert!(found.snapshot("other").is_none());
        let odd = json!({ "name": "a", "status": "Error", "config": null, "devices": null, "state": null });
        assert!(serde_json::from_value::<Found>(odd).is_ok());
    }
}
