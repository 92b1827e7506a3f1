//! The formation as its monitor knows it, and when it is whole.

use tokio_postgres::Client;
use veza_probe::report::Table;

/// A node as the monitor knows it (`pgautofailover.node` of pg_auto_failover 2.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// `nodeid`: what events name it by.
    pub id: i64,
    /// `nodename`.
    pub name: String,
    /// `nodehost`: where the others and clients reach it.
    pub host: String,
    /// `nodeport`.
    pub port: u16,
    /// `reportedstate`: what its keeper last said.
    pub reported: String,
    /// `goalstate`: what the monitor wants.
    pub assigned: String,
    /// `health`: 1 good, 0 bad, -1 unknown.
    pub health: i32,
    /// `replicationquorum`: whether a commit may wait for it.
    pub quorum: bool,
    /// `candidatepriority`: 0 is never promoted.
    pub priority: i32,
    /// `reportedtli` and `reportedlsn`.
    pub position: String,
}

/// The words that the monitor uses for a node that holds writes safely: synchronous replication is
/// on and a failover is possible (`docs/failover-state-machine.rst`).
const PRIMARY: &str = "primary";
const SECONDARY: &str = "secondary";

/// Reads all nodes of a group, in the order of their ids.
///
/// # Errors
/// As the query.
pub async fn read(
    client: &Client,
    formation: &str,
    group: i32,
) -> Result<Vec<Node>, tokio_postgres::Error> {
    let sql = "select nodeid, nodename, nodehost, nodeport, reportedstate::text, goalstate::text, \
               health, replicationquorum, candidatepriority, reportedtli || '/' || reportedlsn \
               from pgautofailover.node where formationid = $1 and groupid = $2 order by nodeid";
    let rows = client.query(sql, &[&formation, &group]).await?;
    rows.iter().map(node).collect()
}

fn node(row: &tokio_postgres::Row) -> Result<Node, tokio_postgres::Error> {
    Ok(Node {
        id: row.try_get(0)?,
        name: row.try_get(1)?,
        host: row.try_get(2)?,
        port: u16::try_from(row.try_get::<_, i32>(3)?).unwrap_or(0),
        reported: row.try_get(4)?,
        assigned: row.try_get(5)?,
        health: row.try_get(6)?,
        quorum: row.try_get(7)?,
        priority: row.try_get(8)?,
        position: row.try_get(9)?,
    })
}

/// The primary of a formation that is whole: every node healthy and where it should be, exactly one
/// primary, and at least one synchronous secondary that could take over.
///
/// # Errors
/// A sentence that says what is missing.
pub fn whole(nodes: &[Node]) -> Result<&Node, String> {
    if nodes.len() < 2 {
        return Err(format!(
            "the formation has {} node(s), a failover needs two",
            nodes.len()
        ));
    }
    for node in nodes {
        let Node {
            name,
            reported,
            assigned,
            health,
            ..
        } = node;
        if *health != 1 {
            return Err(format!(
                "the monitor calls the health of {name} {}",
                health_word(*health)
            ));
        }
        if reported != assigned {
            return Err(format!(
                "{name} is on its way from {reported} to {assigned}"
            ));
        }
        if reported != PRIMARY && reported != SECONDARY {
            return Err(format!(
                "{name} is {reported}, not {PRIMARY} or {SECONDARY}"
            ));
        }
    }
    let mut primaries = nodes.iter().filter(|n| n.reported == PRIMARY);
    let primary = primaries.next().ok_or("no node is primary")?;
    if let Some(second) = primaries.next() {
        return Err(format!(
            "both {} and {} are primary",
            primary.name, second.name
        ));
    }
    let takes_over = |n: &Node| n.reported == SECONDARY && n.quorum && n.priority > 0;
    if !nodes.iter().any(takes_over) {
        return Err(
            "no synchronous secondary could take over (replication quorum and candidate \
                    priority)"
                .to_owned(),
        );
    }
    Ok(primary)
}

fn health_word(health: i32) -> &'static str {
    match health {
        1 => "good",
        0 => "bad",
        _ => "unknown",
    }
}

/// The nodes as a table, with the instance of each where it is known.
pub fn table(title: &str, nodes: &[Node], instance_of: impl Fn(&Node) -> Option<String>) -> Table {
    let columns = [
        "node",
        "instance",
        "reported",
        "assigned",
        "health",
        "sync",
        "timeline/LSN",
    ];
    let row = |node: &Node| {
        vec![
            node.name.clone(),
            instance_of(node).unwrap_or_else(|| "?".to_owned()),
            node.reported.clone(),
            node.assigned.clone(),
            health_word(node.health).to_owned(),
            if node.quorum { "yes" } else { "no" }.to_owned(),
            node.position.clone(),
        ]
    };
    Table {
        title: title.to_owned(),
        columns: columns.map(str::to_owned).to_vec(),
        rows: nodes.iter().map(row).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: i64, state: &str) -> Node {
        Node {
            id,
            name: format!("node-{id}"),
            host: format!("node-{id}.lxd"),
            port: 5432,
            reported: state.into(),
            assigned: state.into(),
            health: 1,
            quorum: true,
            priority: 50,
            position: "1/0/3000000".into(),
        }
    }

    fn refused(change: impl FnOnce(&mut Vec<Node>)) -> String {
        let mut nodes = vec![node(1, "primary"), node(2, "secondary")];
        change(&mut nodes);
        whole(&nodes).unwrap_err()
    }

    #[test]
    fn a_whole_formation_names_its_primary() {
        let nodes = [
            node(1, "secondary"),
            node(2, "primary"),
            node(3, "secondary"),
        ];
        assert_eq!(whole(&nodes).unwrap().id, 2);
    }

    #[test]
    fn each_thing_that_is_missing_is_named() {
        assert!(refused(|n| n.truncate(1)).contains("two"));
        assert!(refused(Vec::clear).contains("two"));
        assert!(refused(|n| n[1].health = 0).contains("bad"));
        assert!(refused(|n| n[1].health = -1).contains("unknown"));
        assert!(refused(|n| n[1].assigned = "catchingup".into()).contains("on its way"));
        assert!(refused(|n| n[0] = node(1, "wait_primary")).contains("wait_primary"));
        assert!(refused(|n| n[1] = node(2, "maintenance")).contains("maintenance"));
        assert!(refused(|n| n[1] = node(2, "primary")).contains("both"));
        assert!(refused(|n| n[0] = node(1, "secondary")).contains("no node is primary"));
        assert!(refused(|n| n[1].quorum = false).contains("quorum"));
        assert!(refused(|n| n[1].priority = 0).contains("priority"));
    }
}
