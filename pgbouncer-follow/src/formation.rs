//! The formation as its monitor tells it, and which node clients are to be sent to. Pure.

/// What the monitor may want of a node that takes writes. All else is a standby, or on its way down or up.
const TAKES_WRITES: [&str; 5] = [
    "single",
    "wait_primary",
    "primary",
    "join_primary",
    "apply_settings",
];

/// A node as the monitor knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// `nodename`.
    pub name: String,
    /// `nodehost`: where clients reach it.
    pub host: String,
    /// `nodeport`.
    pub port: u16,
    /// `reportedstate`: what its keeper last said.
    pub reported: String,
    /// `goalstate`: what the monitor wants.
    pub wanted: String,
}

impl Node {
    /// Whether the monitor wants it to take writes. What it last reported doesn't count: a primary that is
    /// lost goes on being reported as one.
    pub fn is_wanted(&self) -> bool {
        TAKES_WRITES.contains(&self.wanted.as_str())
    }

    /// The node in a few words.
    pub fn told(&self) -> String {
        if self.reported == self.wanted {
            return format!("{} {}", self.name, self.reported);
        }
        format!("{} {} -> {}", self.name, self.reported, self.wanted)
    }
}

/// Why no node is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The monitor knows no node of the formation.
    NoNodes,
    /// It wants none to take writes, as in the middle of a failover.
    Nobody(String),
    /// It wants several to.
    Several(String),
    /// The host of the node it wants can't be put into a configuration file.
    BadHost(String),
}

impl Refusal {
    /// The refusal in a sentence.
    pub fn told(&self) -> String {
        match self {
            Refusal::NoNodes => "the monitor knows no node of this formation and group".to_owned(),
            Refusal::Nobody(nodes) => {
                format!("the monitor wants no node to take writes now ({nodes})")
            }
            Refusal::Several(nodes) => {
                format!("the monitor wants more than one node to take writes ({nodes})")
            }
            Refusal::BadHost(host) => {
                format!("the monitor's node has a host that is no name or address: {host:?}")
            }
        }
    }
}

/// The one node that the monitor wants to take writes.
///
/// # Errors
/// [`Refusal`]: then nothing may be changed.
pub fn choose(nodes: &[Node]) -> Result<&Node, Refusal> {
    let told = || nodes.iter().map(Node::told).collect::<Vec<_>>().join(", ");
    let wanted: Vec<&Node> = nodes.iter().filter(|node| node.is_wanted()).collect();
    match wanted.as_slice() {
        [] if nodes.is_empty() => Err(Refusal::NoNodes),
        [] => Err(Refusal::Nobody(told())),
        [node] if is_host(&node.host) && node.port != 0 => Ok(node),
        [node] => Err(Refusal::BadHost(format!("{}:{}", node.host, node.port))),
        _ => Err(Refusal::Several(told())),
    }
}

/// Names and addresses only: PgBouncer takes a comma for a list of hosts and a slash for a socket.
fn is_host(text: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
    !text.is_empty() && !text.starts_with('-') && text.len() <= 253 && text.chars().all(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, reported: &str, wanted: &str) -> Node {
        Node {
            name: name.to_owned(),
            host: format!("{name}.lxd"),
            port: 5432,
            reported: reported.to_owned(),
            wanted: wanted.to_owned(),
        }
    }

    #[test]
    fn a_whole_formation_has_one() {
        let nodes = [
            node("a", "primary", "primary"),
            node("b", "secondary", "secondary"),
        ];
        assert_eq!(choose(&nodes).unwrap().name, "a");
    }

    /// The states of a failover, as seen in the lab.
    #[test]
    fn in_a_failover_nobody_then_the_new_one() {
        for (old, new, chosen) in [
            (
                ("primary", "draining"),
                ("secondary", "prepare_promotion"),
                None,
            ),
            (
                ("primary", "demote_timeout"),
                ("prepare_promotion", "stop_replication"),
                None,
            ),
            (
                ("primary", "demoted"),
                ("stop_replication", "wait_primary"),
                Some("b"),
            ),
            (
                ("primary", "demoted"),
                ("wait_primary", "wait_primary"),
                Some("b"),
            ),
            (
                ("demoted", "catchingup"),
                ("wait_primary", "wait_primary"),
                Some("b"),
            ),
            (
                ("catchingup", "secondary"),
                ("wait_primary", "primary"),
                Some("b"),
            ),
            (
                ("secondary", "secondary"),
                ("primary", "primary"),
                Some("b"),
            ),
        ] {
            let nodes = [node("a", old.0, old.1), node("b", new.0, new.1)];
            let name = choose(&nodes).ok().map(|node| node.name.as_str());
            assert_eq!(name, chosen, "{nodes:?}");
        }
    }

    #[test]
    fn two_that_claim_it_are_refused_and_both_named() {
        let nodes = [
            node("a", "primary", "primary"),
            node("b", "wait_primary", "wait_primary"),
        ];
        let refusal = choose(&nodes).unwrap_err();
        assert!(matches!(refusal, Refusal::Several(_)));
        let told = refusal.told();
        assert!(
            told.contains("a primary") && told.contains("b wait_primary"),
            "{told}"
        );
    }

    #[test]
    fn nobody_and_nothing_are_refused() {
        assert_eq!(choose(&[]), Err(Refusal::NoNodes));
        let standby = [node("b", "secondary", "secondary")];
        assert!(matches!(choose(&standby), Err(Refusal::Nobody(_))));
    }

    #[test]
    fn a_state_that_is_not_known_takes_no_writes() {
        let nodes = [node("a", "primary", "primaries"), node("b", "x", "")];
        assert!(choose(&nodes).is_err());
    }

    #[test]
    fn hosts_that_would_mean_something_else_to_pgbouncer_are_refused() {
        for host in ["", "a,b", "/tmp", "a b", "a'", "a\nb", "-a", "a=b", "ä"] {
            let mut bad = node("a", "primary", "primary");
            bad.host = host.to_owned();
            assert!(
                matches!(choose(&[bad]), Err(Refusal::BadHost(_))),
                "{host:?}"
            );
        }
        for host in ["a.lxd", "10.0.0.1", "fd00::1", "node_1"] {
            let mut good = node("a", "primary", "primary");
            good.host = host.to_owned();
            assert!(choose(&[good]).is_ok(), "{host:?}");
        }
        let mut portless = node("a", "primary", "primary");
        portless.port = 0;
        assert!(choose(&[portless]).is_err());
    }
}
