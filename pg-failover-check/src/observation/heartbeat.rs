//! The client: numbered heartbeat rows in a table of its own, one write a probe.

use std::time::Duration;

use tokio_postgres::{AsyncMessage, Statement};
use veza_probe::clock::{Clock, within};
use veza_probe::postgres::{self, Error, Session, Target, writable};
use veza_probe::prober::{ActError, Host};
use veza_probe::report::Untouched;

use crate::baseline::{Baseline, refused};
use crate::targets::Access;

/// How long making and removing the table may take.
const LIMIT: Duration = Duration::from_secs(10);

/// The heartbeat's table; none when probes only ask whether a write would be taken.
pub struct Heartbeat {
    schema: Option<String>,
}

impl Heartbeat {
    /// Makes a schema of this run's own, with the table.
    ///
    /// # Errors
    /// Refused, with the server's own words.
    pub async fn make(
        clock: &Clock,
        baseline: &Baseline,
        read_only: bool,
    ) -> Result<Heartbeat, Untouched> {
        if read_only {
            return Ok(Heartbeat { schema: None });
        }
        let schema = format!("veza_drill_{}", clock.wall(clock.at()).as_microsecond());
        let sql = format!(
            "create schema {schema}; create table {schema}.heartbeat \
             (number int8 primary key, written timestamptz not null default clock_timestamp())"
        );
        let done = on_primary(baseline, &sql).await;
        done.map_err(|words| refused("client-cannot-write", words))?;
        Ok(Heartbeat {
            schema: Some(schema),
        })
    }

    /// The table's full name.
    pub fn table(&self) -> Option<String> {
        self.schema
            .as_ref()
            .map(|schema| format!("{schema}.heartbeat"))
    }

    /// What a probe does, for people.
    pub fn action(&self) -> String {
        match &self.schema {
            Some(_) => "one row written and committed".to_owned(),
            None => "read-only: transaction_read_only asked".to_owned(),
        }
    }

    /// Drops the schema; says what remains when that is not possible.
    pub async fn remove(self, baseline: &Baseline) -> Option<String> {
        let schema = self.schema?;
        let sql = format!("set lock_timeout = '5s'; drop schema {schema} cascade");
        let words = on_primary(baseline, &sql).await.err()?;
        Some(format!(
            "the schema {schema} remains ({words}): remove it with `drop schema {schema} cascade`"
        ))
    }
}

/// Runs statements on whichever node takes writes now.
async fn on_primary(baseline: &Baseline, sql: &str) -> Result<(), String> {
    let access = &baseline.client;
    let mut told = Vec::new();
    for at in &baseline.client_hosts {
        let attempt = async {
            let session = postgres::connect(at, &access.login, &access.tls, LIMIT).await?;
            if !writable(&session.client).await? {
                return Ok(false);
            }
            let done = session.client.batch_execute(sql).await;
            done.map(|()| true)
                .map_err(|e| Error::query(format!("a statement at {at}"), &e))
        };
        match within(LIMIT, attempt).await {
            Ok(Ok(true)) => return Ok(()),
            Ok(Ok(false)) => told.push(format!("{at} takes no writes")),
            Ok(Err(error)) => told.push(error.to_string()),
            Err(elapsed) => told.push(format!("{at}: {elapsed}")),
        }
    }
    Err(told.join("; "))
}

/// The client of one host.
pub struct NodeClient {
    /// Where it is.
    pub at: Target,
    /// How to log in.
    pub access: Access,
    /// The table to write to; none to ask only.
    pub table: Option<String>,
    /// How long a connection may take.
    pub limit: Duration,
}

/// A standing connection that takes writes.
pub struct Standing {
    session: Session,
    write: Statement,
}

impl Host for NodeClient {
    type Connection = Standing;

    fn name(&self) -> &str {
        &self.at.name
    }

    async fn connect(&self) -> Result<Standing, String> {
        let Access { login, tls } = &self.access;
        let session = postgres::connect(&self.at, login, tls, self.limit).await;
        let session = session.map_err(|e| e.to_string())?;
        // As a client with target_session_attrs=read-write: a node that is being promoted is out of
        // recovery seconds before it takes writes.
        if !writable(&session.client).await.map_err(|e| e.to_string())? {
            return Err("takes no writes (transaction_read_only is on)".to_owned());
        }
        let sql = match &self.table {
            Some(table) => format!("insert into {table} (number) values ($1)"),
            None => "select $1::int8 where current_setting('transaction_read_only') = 'off'".into(),
        };
        let write = session
            .client
            .prepare(&sql)
            .await
            .map_err(|e| told(&self.at, &e))?;
        Ok(Standing { session, write })
    }

    async fn act(&self, standing: &mut Standing, number: u64) -> Result<(), ActError> {
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        let Standing { session, write } = standing;
        match session.client.execute(&*write, &[&number]).await {
            Ok(1) => warned(session),
            Ok(_) => Err(ActError::Refused("takes no writes any more".to_owned())),
            Err(error) if error.as_db_error().is_some() => {
                Err(ActError::Refused(told(&self.at, &error)))
            }
            Err(error) => Err(ActError::Broken(told(&self.at, &error))),
        }
    }
}

fn told(at: &Target, error: &tokio_postgres::Error) -> String {
    Error::query(format!("{at}"), error).to_string()
}

/// A commit that came back with a warning is not acknowledged: the wait for synchronous replication
/// may have been given up, and the row may be lost.
fn warned(session: &mut Session) -> Result<(), ActError> {
    while let Ok(message) = session.messages.try_recv() {
        if let AsyncMessage::Notice(notice) = message
            && notice.severity() == "WARNING"
        {
            return Err(ActError::Refused(format!("committed with {notice}")));
        }
    }
    Ok(())
}
