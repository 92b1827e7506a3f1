//! A session at the monitor: its nodes when asked, and its word when something changed.

use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio_postgres::AsyncMessage;
use veza_probe::clock::within;
use veza_probe::postgres::{Access, Error, Session, Target, connect_first};

use crate::formation::Node;

/// How long the monitor may take for anything. Longer: while it hangs, that much later it is said.
pub const LIMIT: Duration = Duration::from_secs(1);

/// The monitor, listened to.
pub struct Monitor {
    session: Session,
}

impl Monitor {
    /// Logs in and listens.
    ///
    /// # Errors
    /// When no host of the URI answers in time, or refuses the credentials.
    pub async fn open(access: &Access) -> anyhow::Result<Monitor> {
        let mut targets = Vec::new();
        for host in &access.login.conninfo.hosts {
            targets.extend(Target::resolve(host, LIMIT).await?);
        }
        let session = connect_first(&targets, &access.login, &access.tls, LIMIT).await?;
        let listen = session.client.batch_execute("listen state");
        match within(LIMIT, listen).await {
            Ok(done) => done.map_err(|e| Error::query("listen state", &e))?,
            Err(_) => bail!("no answer to `listen state` within {} s", LIMIT.as_secs()),
        }
        Ok(Monitor { session })
    }

    /// All nodes of a group of a formation, now.
    ///
    /// # Errors
    /// When the monitor does not answer in time, or not with nodes.
    pub async fn nodes(&self, formation: &str, group: i32) -> anyhow::Result<Vec<Node>> {
        let sql = "select nodename, nodehost, nodeport, reportedstate::text, goalstate::text \
                   from pgautofailover.node where formationid = $1 and groupid = $2 order by nodeid";
        let asked = within(LIMIT, self.session.client.query(sql, &[&formation, &group])).await;
        let Ok(asked) = asked else {
            bail!(
                "no answer within {} s when asked for the nodes",
                LIMIT.as_secs()
            );
        };
        let rows = asked.map_err(|e| Error::query("reading pgautofailover.node", &e))?;
        let nodes = rows.iter().map(|row| {
            Ok(Node {
                name: row.try_get(0)?,
                host: row.try_get(1)?,
                port: u16::try_from(row.try_get::<_, i32>(2)?).unwrap_or(0),
                reported: row.try_get(3)?,
                wanted: row.try_get(4)?,
            })
        });
        let nodes: Result<_, tokio_postgres::Error> = nodes.collect();
        nodes.context("reading pgautofailover.node")
    }

    /// Waits until the monitor says that a state changed, or its session is over; both are a reason to
    /// ask. May be dropped and called again. Several words that wait already count as one.
    pub async fn news(&mut self) {
        while let Some(message) = self.session.messages.recv().await {
            if matches!(message, AsyncMessage::Notification(_)) {
                break;
            }
        }
        while self.session.messages.try_recv().is_ok() {}
    }
}
