//! `lab/topology.toml`: which instances there are, in groups, each with its role. Read once, checked
//! once; what comes out of here can't name a thing twice or lie outside the lab's network.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use veza_probe::instance::InstanceName;

/// The environment whose secrets may be placeholders.
pub const LAB_ENVIRONMENT: &str = "lab";

/// The arguments make no sense with this topology: exit code 64.
#[derive(Debug)]
pub struct Usage(String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// All that the file says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// What all groups share.
    pub lab: LabSpec,
    /// The groups in the order in which they are made.
    #[serde(rename = "group")]
    pub groups: Vec<Group>,
}

/// What all groups share.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabSpec {
    /// The Incus project.
    pub project: InstanceName,
    /// The storage pool.
    pub pool: InstanceName,
    /// The size of the pool's loop file, such as `20GiB`.
    pub pool_size: String,
    /// The bridge; a network interface of this name appears on the host.
    pub bridge: InstanceName,
    /// The bridge's network.
    pub subnet: Subnet,
    /// The host's own address on the bridge.
    pub gateway: Ipv4Addr,
    /// The DNS domain of the instances.
    pub domain: String,
    /// What this is: `lab`, or the name of a real environment, where placeholders are refused.
    #[serde(default = "lab_environment")]
    pub environment: String,
}

fn lab_environment() -> String {
    LAB_ENVIRONMENT.to_owned()
}

/// Instances that belong together.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its name on the command line.
    pub name: String,
    /// Groups that must be up for it to be ready; each stands before it.
    #[serde(default)]
    pub needs: Vec<String>,
    /// Variables that a check needs to find this group: templates, without secrets.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Files of mode 0600 beside the credentials: templates, with secrets. A name that several
    /// groups use is one file with the text of all.
    #[serde(default)]
    pub secret_files: BTreeMap<String, String>,
    /// Its instances in the order in which they are made.
    #[serde(rename = "instance")]
    pub instances: Vec<InstanceSpec>,
}

/// One instance.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceSpec {
    /// Its name.
    pub name: InstanceName,
    /// What it holds: a folder of `lab/roles`.
    pub role: String,
    /// Its pinned address.
    pub address: Ipv4Addr,
    /// Incus' `limits.*` keys.
    #[serde(default)]
    pub limits: BTreeMap<String, String>,
    /// Custom volumes of the pool, by the name of their device: the path at which each is. They stay
    /// when the instance is made anew, and go with the lab.
    #[serde(default)]
    pub volumes: BTreeMap<String, String>,
    /// Values over the role's defaults.
    #[serde(default)]
    pub vars: toml::Table,
}

impl InstanceSpec {
    /// The MAC address that belongs to the name: Incus' own prefix, then a digest, so that it is the
    /// same after a reset and on the next host.
    pub fn hwaddr(&self) -> String {
        let digest = Sha256::digest(self.name.as_str().as_bytes());
        let tail: Vec<String> = digest.iter().take(3).map(|b| format!("{b:02x}")).collect();
        format!("10:66:6a:{}", tail.join(":"))
    }

    /// The name of the volume behind a device; the pool has one of each name in the project.
    pub fn volume(&self, device: &str) -> String {
        format!("{}-{device}", self.name)
    }

    fn check_volumes(&self) -> anyhow::Result<()> {
        let mut paths = BTreeSet::new();
        for (device, path) in &self.volumes {
            let name = &self.name;
            // What Incus allows as a device may be no name of a volume, and these two are taken.
            let good = InstanceName::new(self.volume(device)).is_ok();
            let taken = ["root", "eth0"].contains(&device.as_str());
            ensure!(good && !taken, "{name}: volume {device:?}");
            let parts = || path.split('/').skip(1);
            let good = path.starts_with('/') && parts().all(is_plain);
            ensure!(
                good,
                "{name}: volume {device}: {path:?} is no path of its own"
            );
            ensure!(paths.insert(path), "{name}: two volumes at {path}");
        }
        Ok(())
    }
}

/// An IPv4 network such as `198.18.0.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Subnet {
    base: Ipv4Addr,
    /// How many leading bits are the network's.
    pub bits: u8,
}

impl Subnet {
    /// A network from its parts; bits beyond the prefix must be zero.
    ///
    /// # Errors
    /// When they aren't, or the prefix is longer than an address.
    pub fn new(base: Ipv4Addr, bits: u8) -> anyhow::Result<Subnet> {
        ensure!(bits <= 32, "/{bits} is longer than an IPv4 address");
        let subnet = Subnet { base, bits };
        ensure!(
            u32::from(base) & !subnet.mask() == 0,
            "{base}/{bits} has bits set beyond the prefix"
        );
        Ok(subnet)
    }

    fn mask(self) -> u32 {
        u32::MAX
            .checked_shl(32 - u32::from(self.bits))
            .unwrap_or_default()
    }

    /// Whether an address belongs to it.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & self.mask() == u32::from(self.base)
    }

    /// Whether another network lies within it.
    pub fn holds(self, other: Subnet) -> bool {
        self.bits <= other.bits && self.contains(other.base)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}

impl TryFrom<String> for Subnet {
    type Error = anyhow::Error;
    fn try_from(text: String) -> anyhow::Result<Subnet> {
        let parts = text.split_once('/');
        let (base, bits) = parts.with_context(|| format!("{text:?} is not ADDRESS/BITS"))?;
        let base = base.parse().with_context(|| format!("in {text:?}"))?;
        Subnet::new(base, bits.parse().with_context(|| format!("in {text:?}"))?)
    }
}

impl Topology {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// When it can't be read, has unknown keys, or contradicts itself.
    pub fn read(path: &Path) -> anyhow::Result<Topology> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        Topology::parse(&text).with_context(|| format!("in {}", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Topology> {
        let topology: Topology = toml::from_str(text)?;
        topology.check()?;
        Ok(topology)
    }

    fn check(&self) -> anyhow::Result<()> {
        let lab = &self.lab;
        ensure!(
            lab.subnet.contains(lab.gateway),
            "gateway {} is not in {}",
            lab.gateway,
            lab.subnet
        );
        ensure!(
            lab.bridge.as_str().len() <= 15,
            "bridge {}: a network interface has at most 15 letters",
            lab.bridge
        );
        let mut seen = BTreeSet::from([lab.gateway.to_string()]);
        for group in &self.groups {
            ensure!(seen.insert(group.name.clone()), "{} twice", group.name);
            ensure!(
                !group.instances.is_empty(),
                "group {} has no instance",
                group.name
            );
            for need in &group.needs {
                ensure!(
                    seen.contains(need) && *need != group.name,
                    "group {} needs {need}, which is not before it",
                    group.name
                );
            }
            for name in group.env.keys() {
                let good = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
                ensure!(good, "group {}: {name:?} is no variable name", group.name);
            }
            for name in group.secret_files.keys() {
                ensure!(is_plain(name), "group {}: file {name:?}", group.name);
            }
        }
        for (_, spec) in self.instances() {
            let name = spec.name.as_str();
            ensure!(is_plain(&spec.role), "{name}: role {:?}", spec.role);
            ensure!(
                lab.subnet.contains(spec.address),
                "{name}: address {} is not in {}",
                spec.address,
                lab.subnet
            );
            for unique in [name.to_owned(), spec.address.to_string(), spec.hwaddr()] {
                ensure!(seen.insert(unique.clone()), "{name}: {unique} twice");
            }
            spec.check_volumes()?;
        }
        let volumes = |i: &InstanceSpec| i.volumes.keys().map(|d| i.volume(d)).collect::<Vec<_>>();
        let mut seen = BTreeSet::new();
        for volume in self.instances().flat_map(|(_, spec)| volumes(spec)) {
            ensure!(seen.insert(volume.clone()), "volume {volume} twice");
        }
        Ok(())
    }

    /// All instances with the name of their group, in order.
    pub fn instances(&self) -> impl Iterator<Item = (&str, &InstanceSpec)> {
        self.groups
            .iter()
            .flat_map(|g| g.instances.iter().map(|i| (g.name.as_str(), i)))
    }

    /// The name of the group that an instance belongs to.
    pub fn group_of(&self, spec: &InstanceSpec) -> &str {
        let mut all = self.instances();
        let found = all.find(|(_, other)| other.name == spec.name);
        found.map(|(group, _)| group).unwrap_or_default()
    }

    /// The groups of these names, in the topology's order; all of them when none is named.
    ///
    /// # Errors
    /// [`Usage`] when there is no group of a name.
    pub fn selected(&self, names: &[String]) -> anyhow::Result<Vec<&Group>> {
        let known: Vec<&str> = self.groups.iter().map(|g| g.name.as_str()).collect();
        if let Some(unknown) = names.iter().find(|n| !known.contains(&n.as_str())) {
            let known = known.join(", ");
            bail!(Usage(format!(
                "the topology has no group {unknown:?} (it has: {known})"
            )));
        }
        let chosen = |g: &&Group| names.is_empty() || names.contains(&g.name);
        Ok(self.groups.iter().filter(chosen).collect())
    }

    /// These names and those of the groups that they need; none means all, and stays none.
    pub fn with_needs(&self, names: &[String]) -> Vec<String> {
        let mut wanted: BTreeSet<&String> = names.iter().collect();
        // A group stands after those that it needs, so one pass from the end finds all.
        for group in self.groups.iter().rev() {
            if wanted.contains(&group.name) {
                wanted.extend(&group.needs);
            }
        }
        wanted.into_iter().cloned().collect()
    }
}

/// Whether a text is safe as the name of a file or folder.
fn is_plain(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !name.is_empty() && !name.starts_with('.') && name.chars().all(good)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A small topology for tests of what comes after.
    pub const SMALL: &str = r#"
[lab]
project = "veza-lab"
pool = "veza-lab"
pool_size = "20GiB"
bridge = "vezabr0"
subnet = "198.18.0.0/24"
gateway = "198.18.0.1"
domain = "lxd"

[[group]]
name = "one"
env = { URI = "x://{{ lab.domain }}" }
[[group.instance]]
name = "a"
role = "r"
address = "198.18.0.11"
limits = { memory = "512MiB" }
[[group.instance]]
name = "b"
role = "r"
address = "198.18.0.12"
vars = { port = 2 }
"#;

    /// The small topology, parsed.
    pub fn small() -> Topology {
        Topology::parse(SMALL).unwrap()
    }

    fn refused(from: &str, to: &str) -> String {
        assert!(SMALL.contains(from));
        let error = Topology::parse(&SMALL.replace(from, to)).unwrap_err();
        format!("{error:#}")
    }

    #[test]
    fn a_topology_is_read_in_order() {
        let topology = small();
        assert_eq!(topology.lab.environment, "lab");
        let names: Vec<_> = topology
            .instances()
            .map(|(g, i)| format!("{g}/{}", i.name))
            .collect();
        assert_eq!(names, ["one/a", "one/b"]);
    }

    #[test]
    fn what_contradicts_itself_is_refused_by_name() {
        assert!(refused("198.18.0.12", "198.18.0.11").contains("198.18.0.11 twice"));
        assert!(refused("198.18.0.12", "198.19.0.12").contains("not in 198.18.0.0/24"));
        assert!(refused("198.18.0.12", "198.18.0.1").contains("198.18.0.1 twice"));
        assert!(refused("name = \"b\"", "name = \"a\"").contains("a twice"));
        assert!(refused("name = \"b\"", "name = \"b_\"").contains("not an instance name"));
        assert!(refused("role = \"r\"", "role = \"../r\"").contains("role"));
        assert!(refused("vars =", "wars =").contains("wars"));
        assert!(refused("/24", "/33").contains("/33"));
        assert!(refused("198.18.0.0/24", "198.18.0.0/8").contains("beyond the prefix"));
        assert!(refused("vezabr0", "vezabr0-too-long-a-name").contains("15 letters"));
    }

    #[test]
    fn groups_are_selected_by_name_and_an_unknown_one_is_usage() {
        let topology = small();
        assert_eq!(topology.selected(&[]).unwrap().len(), 1);
        let error = topology.selected(&["two".to_owned()]).unwrap_err();
        assert!(error.downcast_ref::<Usage>().is_some());
        assert!(error.to_string().contains("it has: one"));
    }

    #[test]
    fn a_group_brings_those_that_it_needs_and_they_stand_before_it() {
        let more = "[[group]]\nname = \"two\"\nneeds = [\"one\"]\n[[group.instance]]\nname = \"c\"\n\
                    role = \"r\"\naddress = \"198.18.0.13\"\n";
        let topology = Topology::parse(&format!("{SMALL}\n{more}")).unwrap();
        assert_eq!(topology.with_needs(&["two".to_owned()]), ["one", "two"]);
        assert_eq!(topology.with_needs(&["one".to_owned()]), ["one"]);
        assert!(topology.with_needs(&[]).is_empty());
        for wrong in ["three", "two"] {
            let text = more.replace("[\"one\"]", &format!("[\"{wrong}\"]"));
            let error = Topology::parse(&format!("{SMALL}\n{text}")).unwrap_err();
            assert!(error.to_string().contains("not before it"), "{error}");
        }
    }

    #[test]
    fn a_volume_has_a_name_and_a_path_of_its_own() {
        let with = |volumes: &str| {
            let vars = "vars = { port = 2 }";
            let text = SMALL.replace(vars, &format!("{vars}\nvolumes = {{ {volumes} }}"));
            Topology::parse(&text)
        };
        let topology = with("data = \"/var/lib/x\", log = \"/var/log/x\"").unwrap();
        let (_, spec) = topology.instances().nth(1).unwrap();
        assert_eq!(spec.volume("data"), "b-data");
        for wrong in [
            "root = \"/x\"",
            "eth0 = \"/x\"",
            "\"a/b\" = \"/x\"",
            "data = \"/\"",
            "data = \"x\"",
            "data = \"/x/../etc\"",
            "data = \"/x\", log = \"/x\"",
        ] {
            let error = with(wrong).unwrap_err().to_string();
            assert!(error.contains("volume"), "{wrong}: {error}");
        }
        // Instances a and a-b, devices b-c and c: one name for two volumes.
        let text = SMALL
            .replace("name = \"b\"", "name = \"a-b\"")
            .replace("vars = { port = 2 }", "volumes = { c = \"/x\" }")
            .replace("limits =", "volumes = { b-c = \"/x\" }\nlimits =");
        let error = Topology::parse(&text).unwrap_err().to_string();
        assert!(error.contains("a-b-c twice"), "{error}");
    }

    #[test]
    fn the_mac_address_belongs_to_the_name() {
        let topology = small();
        let all: Vec<_> = topology.instances().map(|(_, i)| i.hwaddr()).collect();
        assert_eq!(all, ["10:66:6a:ca:97:81", "10:66:6a:3e:23:e8"]);
    }

    #[test]
    fn networks_within_networks() {
        let net = |text: &str| Subnet::try_from(text.to_owned()).unwrap();
        assert!(net("198.18.0.0/15").holds(net("198.18.0.0/24")));
        assert!(net("198.18.0.0/15").holds(net("198.19.255.0/24")));
        assert!(!net("198.18.0.0/15").holds(net("198.20.0.0/24")));
        assert!(!net("198.18.0.0/24").holds(net("198.18.0.0/15")));
        assert!(net("0.0.0.0/0").holds(net("10.0.0.0/8")));
    }
}
