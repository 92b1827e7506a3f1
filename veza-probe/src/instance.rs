//! Instance names, and which node of a system is which Incus instance.

use std::fmt;
use std::net::Ipv4Addr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A valid Incus instance name: 1–63 letters, digits and dashes, no digit first, no dash at either
/// end (Incus' own rule, `shared/validate`: a host name label).
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceName(String);

/// Not a name that Incus would take.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{0:?} is not an instance name: 1 to 63 letters, digits and dashes, starting with a letter and not ending with a dash"
)]
pub struct InvalidName(String);

impl InstanceName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`InvalidName`].
    pub fn new(name: impl Into<String>) -> Result<InstanceName, InvalidName> {
        let name = name.into();
        let good = (1..=63).contains(&name.len())
            && name.starts_with(|c: char| c.is_ascii_alphabetic())
            && !name.ends_with('-')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if good {
            Ok(InstanceName(name))
        } else {
            Err(InvalidName(name))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for InstanceName {
    type Error = InvalidName;
    fn try_from(name: String) -> Result<Self, InvalidName> {
        InstanceName::new(name)
    }
}

impl std::str::FromStr for InstanceName {
    type Err = InvalidName;
    fn from_str(name: &str) -> Result<Self, InvalidName> {
        InstanceName::new(name)
    }
}

impl From<InstanceName> for String {
    fn from(name: InstanceName) -> String {
        name.0
    }
}

/// A node could not be tied to exactly one instance.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MappingError {
    /// No instance of the project has the node's address.
    #[error(
        "node {node} has the address {address}, which no running instance of the project has: name its instance with --instance {node}=NAME"
    )]
    None {
        /// The node, as its system names it.
        node: String,
        /// Where the node's host name leads.
        address: Ipv4Addr,
    },
    /// More than one instance has it.
    #[error("node {node} has the address {address}, which several instances have ({}): name the right one with --instance {node}=NAME", .candidates.join(", "))]
    Several {
        /// The node, as its system names it.
        node: String,
        /// Where the node's host name leads.
        address: Ipv4Addr,
        /// The instances that have it.
        candidates: Vec<String>,
    },
    /// An instance has the address, but the node's host name is that of another instance.
    #[error(
        "node {node} has the address {address} of instance {by_address}, but its host name is that of instance {by_name}: name the right one with --instance {node}=NAME"
    )]
    Disagree {
        /// The node, as its system names it.
        node: String,
        /// Where the node's host name leads.
        address: Ipv4Addr,
        /// The instance with that address.
        by_address: String,
        /// The instance with that name.
        by_name: String,
    },
    /// An override names an instance that is not there.
    #[error("--instance {node}={instance}: the project has no instance of that name (it has: {})", .known.join(", "))]
    Unknown {
        /// The node.
        node: String,
        /// The instance asked for.
        instance: String,
        /// The instances there are.
        known: Vec<String>,
    },
}

/// The instance that a node runs in: the only one that has its resolved `address`. `host` is the
/// node's host name as its system knows it, for the cross-check; `chosen` is the override of
/// `--instance`.
///
/// # Errors
/// [`MappingError`] when there is none, more than one, or name and address disagree.
pub fn of_node(
    node: &str,
    host: &str,
    address: Ipv4Addr,
    instances: &[(InstanceName, Vec<Ipv4Addr>)],
    chosen: Option<&InstanceName>,
) -> Result<InstanceName, MappingError> {
    if let Some(chosen) = chosen {
        if instances.iter().any(|(name, _)| name == chosen) {
            return Ok(chosen.clone());
        }
        let known = instances.iter().map(|(name, _)| name.to_string()).collect();
        return Err(MappingError::Unknown {
            node: node.into(),
            instance: chosen.to_string(),
            known,
        });
    }
    let candidates: Vec<&InstanceName> = instances
        .iter()
        .filter(|(_, has)| has.contains(&address))
        .map(|(name, _)| name)
        .collect();
    let label = host.split('.').next().unwrap_or(host);
    let by_name = instances
        .iter()
        .map(|(name, _)| name)
        .find(|name| name.as_str() == label);
    match (candidates.as_slice(), by_name) {
        ([], _) => Err(MappingError::None {
            node: node.into(),
            address,
        }),
        ([only], Some(other)) if *only != other => Err(MappingError::Disagree {
            node: node.into(),
            address,
            by_address: only.to_string(),
            by_name: other.to_string(),
        }),
        ([only], _) => Ok((*only).clone()),
        (several, _) => Err(MappingError::Several {
            node: node.into(),
            address,
            candidates: several.iter().map(ToString::to_string).collect(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> InstanceName {
        InstanceName::new(text).unwrap()
    }

    const A: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 12);
    const B: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 13);

    #[test]
    fn names_that_incus_would_refuse_are_refused() {
        for bad in [
            "",
            "1a",
            "-a",
            "a-",
            "a_b",
            "a.b",
            "a/b",
            "ä",
            &"a".repeat(64),
        ] {
            assert!(InstanceName::new(bad).is_err(), "{bad:?}");
        }
        assert!(InstanceName::new("pgaf-primary").is_ok());
    }

    #[test]
    fn the_only_instance_with_the_address() {
        let all = [(name("pg-a"), vec![A]), (name("pg-b"), vec![B])];
        assert_eq!(of_node("n1", "pg-a.lxd", A, &all, None), Ok(name("pg-a")));
        assert_eq!(
            of_node("n1", "db1.example", A, &all, None),
            Ok(name("pg-a"))
        );
    }

    #[test]
    fn none_two_disagreeing_and_unknown_are_refused() {
        let all = [(name("pg-a"), vec![A]), (name("pg-b"), vec![A, B])];
        let c = Ipv4Addr::new(198, 18, 0, 99);
        assert!(matches!(
            of_node("n", "x", c, &all, None),
            Err(MappingError::None { .. })
        ));
        assert!(matches!(
            of_node("n", "x", A, &all, None),
            Err(MappingError::Several { .. })
        ));
        let wrong = of_node("n", "pg-a.lxd", B, &all, None);
        assert!(matches!(wrong, Err(MappingError::Disagree { .. })));
        assert_eq!(
            of_node("n", "pg-a", B, &all, Some(&name("pg-b"))),
            Ok(name("pg-b"))
        );
        let unknown = of_node("n", "pg-a", A, &all, Some(&name("nope")));
        assert!(matches!(unknown, Err(MappingError::Unknown { .. })));
    }
}
