//! PgBouncer's console: where its databases point, and what it takes to point them elsewhere at once.
//!
//! The console speaks the simple protocol; columns are taken by name, because their order differs between
//! versions.

use std::time::Duration;

use tokio_postgres::SimpleQueryRow;
use veza_probe::postgres::{Access, Session, Target, connect_first, rows};

use crate::databases::Database;

/// How long the console may take for anything.
const LIMIT: Duration = Duration::from_secs(2);

/// The console, logged in.
pub struct Console {
    session: Session,
}

impl Console {
    /// Logs in.
    ///
    /// # Errors
    /// When the pooler does not answer in time, or refuses the credentials.
    pub async fn open(access: &Access) -> anyhow::Result<Console> {
        let mut targets = Vec::new();
        for host in &access.login.conninfo.hosts {
            targets.extend(Target::resolve(host, LIMIT).await?);
        }
        let session = connect_first(&targets, &access.login, &access.tls, LIMIT).await?;
        Ok(Console { session })
    }

    /// Whether each of these databases points at this node, in the pooler's own memory.
    ///
    /// # Errors
    /// As the console says.
    pub async fn points_at(
        &self,
        databases: &[Database],
        host: &str,
        port: u16,
    ) -> anyhow::Result<bool> {
        let rows = self.ask("show databases").await?;
        let port = port.to_string();
        Ok(databases.iter().all(|database| {
            rows.iter().any(|row| {
                let is =
                    |column: &str, value: &str| row.try_get(column).ok().flatten() == Some(value);
                is("name", &database.name)
                    && is("database", &database.dbname)
                    && is("host", host)
                    && is("port", &port)
            })
        }))
    }

    /// Lets the pooler read its files again. It then closes by itself what is idle at the old node.
    ///
    /// # Errors
    /// As the console says.
    pub async fn reload(&self) -> anyhow::Result<()> {
        self.ask("reload").await.map(drop)
    }

    /// Drops the clients that are in the middle of something at a node that these databases do not point
    /// at any more: the pooler would wait for its end, which a node that is lost may never tell.
    ///
    /// # Errors
    /// As the console says.
    pub async fn drop_those_left_behind(&self, databases: &[Database]) -> anyhow::Result<u64> {
        let text = |row: &SimpleQueryRow, column: &str| {
            let value = row.try_get(column).ok().flatten();
            value.unwrap_or_default().to_owned()
        };
        let servers = self.ask("show servers").await?;
        let is_left = |row: &&SimpleQueryRow| {
            let of = text(row, "database");
            text(row, "close_needed") == "1" && databases.iter().any(|d| d.name == of)
        };
        let left = servers.iter().filter(is_left);
        let mut links: Vec<String> = left.map(|row| text(row, "link")).collect();
        links.retain(|link| !link.is_empty());
        if links.is_empty() {
            return Ok(0);
        }
        let mut dropped = 0;
        for client in self.ask("show clients").await? {
            if links.contains(&text(&client, "ptr")) {
                // It may have gone by itself meanwhile.
                let kill = format!("kill_client {}", text(&client, "id"));
                dropped += u64::from(self.ask(&kill).await.is_ok());
            }
        }
        Ok(dropped)
    }

    async fn ask(&self, command: &str) -> anyhow::Result<Vec<SimpleQueryRow>> {
        Ok(rows(&self.session.client, command, LIMIT).await?)
    }
}
