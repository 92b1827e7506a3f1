//! The client: numbered heartbeat rows in a table of its own, one write a probe.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_postgres::error::{DbError, Severity};
use tokio_postgres::{AsyncMessage, Client, SimpleQueryMessage, Statement};
use veza_probe::clock::{Clock, sleep, within};
use veza_probe::instance::InstanceName;
use veza_probe::postgres::{self, Access, Carried, Error, Session, Target, TlsError, writable};
use veza_probe::prober::{ActError, Host};
use veza_probe::report::Untouched;
use veza_probe::undo::Chore;
use veza_probe::way::Way;

use crate::baseline::{Baseline, refused};

/// How long making and removing the table may take.
const LIMIT: Duration = Duration::from_secs(10);

/// How long the nodes have after an undo to settle which of them is primary, before a schema is said to remain.
const SETTLED: Duration = Duration::from_secs(20);

/// How long after an attempt to drop it they are asked again.
const AGAIN: Duration = Duration::from_millis(500);

/// The name of the chore that drops a run's schema.
const DROP_SCHEMA: &str = "drop-schema";

/// The schema of a run of this check.
pub fn schema(run: &str) -> String {
    let plain = run.to_ascii_lowercase();
    let plain: String = plain.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("veza_drill_{plain}")
}

/// The chore that drops a run's schema, with all that a later process needs to know.
pub fn chore(baseline: &Baseline, observer: Option<&InstanceName>, schema: &str) -> Chore {
    let hosts: Vec<_> = baseline.client_hosts.iter().map(place).collect();
    let about = json!({
        "schema": schema,
        "hosts": hosts,
        "dbname": baseline.client.login.dbname,
        "from": observer,
    });
    Chore {
        name: DROP_SCHEMA.to_owned(),
        about,
    }
}

fn place(at: &Target) -> Place {
    Place {
        name: at.name.clone(),
        address: at.address,
    }
}

/// A host of the client, in a chore.
#[derive(Serialize, Deserialize)]
struct Place {
    name: String,
    address: SocketAddr,
}

/// What a chore is about.
#[derive(Deserialize)]
struct About {
    schema: String,
    hosts: Vec<Place>,
    dbname: String,
    /// The instance to do it from, where the network is not reached otherwise.
    #[serde(default)]
    from: Option<InstanceName>,
}

/// The instance that a chore has to be done from, if one is named.
pub fn observer(chore: &Chore) -> Option<InstanceName> {
    let about: About = serde_json::from_value(chore.about.clone()).ok()?;
    about.from
}

/// Does a chore of an earlier run: `login` makes the client's login for these hosts and this
/// database.
///
/// # Errors
/// What stood in the way.
pub async fn do_chore(
    chore: &Chore,
    way: &Way,
    login: impl Fn(&[(String, u16)], &str) -> Result<Access, String>,
) -> Result<String, String> {
    if chore.name != DROP_SCHEMA {
        return Err(format!("this program knows no chore {:?}", chore.name));
    }
    let about: About = serde_json::from_value(chore.about.clone()).map_err(|e| e.to_string())?;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if !about.schema.starts_with("veza_drill_") || !about.schema.chars().all(plain) {
        return Err(format!("{:?} is not the schema of a drill", about.schema));
    }
    let hosts: Vec<_> = about
        .hosts
        .iter()
        .map(|host| (host.name.clone(), host.address.port()))
        .collect();
    let access = login(&hosts, &about.dbname)?;
    let places: Vec<Target> = about
        .hosts
        .into_iter()
        .map(|host| Target {
            name: host.name,
            address: host.address,
            way: way.clone(),
        })
        .collect();
    dropped(&places, &access, &about.schema).await?;
    Ok(format!("schema {} is not there", about.schema))
}

/// The heartbeat's table and that of the rivals; none when probes only ask whether a write would be
/// taken.
pub struct Heartbeat {
    schema: Option<String>,
}

impl Heartbeat {
    /// Makes the schema with its tables.
    ///
    /// # Errors
    /// Refused, with the server's own words.
    pub async fn make(baseline: &Baseline, schema: Option<&str>) -> Result<Heartbeat, Untouched> {
        let Some(schema) = schema else {
            return Ok(Heartbeat { schema: None });
        };
        // No key on the numbers: a row that is there twice must show.
        let sql = format!(
            "create schema {schema}; create table {schema}.heartbeat \
             (number int8 not null, written timestamptz not null default clock_timestamp()); \
             create table {schema}.rival (node text not null, number int8 not null, \
             written timestamptz not null default clock_timestamp())"
        );
        let done = on_primary(&baseline.client_hosts, &baseline.client, async |client| {
            client.batch_execute(&sql).await
        });
        done.await
            .map_err(|words| refused("client-cannot-write", words))?;
        Ok(Heartbeat {
            schema: Some(schema.to_owned()),
        })
    }

    /// The table's full name.
    pub fn table(&self) -> Option<String> {
        self.schema
            .as_ref()
            .map(|schema| format!("{schema}.heartbeat"))
    }

    /// The full name of the table in which nodes are asked whether they take writes.
    pub fn rivals(&self) -> Option<String> {
        self.schema.as_ref().map(|schema| format!("{schema}.rival"))
    }

    /// What a probe does, for people.
    pub fn action(&self) -> String {
        match &self.schema {
            Some(_) => "one row written and committed".to_owned(),
            None => "read-only: transaction_read_only asked".to_owned(),
        }
    }

    /// The numbers of all rows of one of the tables, as the primary has them now.
    ///
    /// # Errors
    /// What stood in the way.
    pub async fn rows(&self, baseline: &Baseline, table: &str) -> Result<Vec<u64>, String> {
        let sql = format!("select number from {table}");
        let read = on_primary(&baseline.client_hosts, &baseline.client, async |client| {
            client.query(&sql, &[]).await
        });
        let numbers = read.await?.into_iter().map(|row| row.try_get::<_, i64>(0));
        let numbers: Result<Vec<i64>, _> = numbers.collect();
        let numbers = numbers.map_err(|e| e.to_string())?;
        Ok(numbers
            .into_iter()
            .map(|number| u64::try_from(number).unwrap_or(u64::MAX))
            .collect())
    }

    /// Drops the schema; says what remains when that is not possible.
    pub async fn remove(self, baseline: &Baseline) -> Option<String> {
        let schema = self.schema?;
        let done = dropped(&baseline.client_hosts, &baseline.client, &schema);
        let words = done.await.err()?;
        Some(format!(
            "the schema {schema} remains ({words}): remove it with `drop schema {schema} cascade`"
        ))
    }
}

/// Drops a schema so that it stays dropped. A primary that was just healed may take the statement and then lose its role to the node
/// that was promoted meanwhile, where the schema still is: until a node acknowledges it as replicated, all are asked again.
///
/// # Errors
/// What stood in the way the last time.
async fn dropped(hosts: &[Target], access: &Access, schema: &str) -> Result<(), String> {
    // It is made first so that there always is a commit to wait for, also where an earlier attempt took it away.
    let sql = format!(
        "set client_min_messages = 'warning'; set lock_timeout = '5s'; \
         create schema if not exists {schema}; drop schema {schema} cascade"
    );
    let attempt = async || {
        on_primary(hosts, access, async |client| {
            client.batch_execute(&sql).await
        })
        .await
    };
    let clock = Clock::start();
    let end = clock.at().plus(SETTLED);
    loop {
        let done = attempt().await;
        if done.is_ok() || clock.at() >= end {
            return done;
        }
        sleep(AGAIN).await;
    }
}

/// Does something on whichever node takes writes now. A statement that came back with a warning was not done: the wait for
/// synchronous replication may have been given up.
async fn on_primary<T>(
    hosts: &[Target],
    access: &Access,
    act: impl AsyncFn(&Client) -> Result<T, tokio_postgres::Error>,
) -> Result<T, String> {
    let mut told = Vec::new();
    for at in hosts {
        let attempt = async {
            let mut session = postgres::connect(at, &access.login, &access.tls, LIMIT).await?;
            if !writable(&session.client).await? {
                return Ok(None);
            }
            // What was said of the login is none of the statement's.
            while warning(&mut session).is_some() {}
            let done = act(&session.client).await;
            done.map(|done| Some((done, warning(&mut session))))
                .map_err(|e| Error::query(format!("a statement at {at}"), &e))
        };
        match within(LIMIT, attempt).await {
            Ok(Ok(Some((done, None)))) => return Ok(done),
            Ok(Ok(Some((_, Some(words))))) => told.push(format!("{at} committed with {words}")),
            Ok(Ok(None)) => told.push(format!("{at} takes no writes")),
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
    /// Whether a pooler stands between: then nothing is prepared, as the next transaction may be on
    /// another server.
    pub pooled: bool,
}

/// A client on its way to a process in an instance.
#[derive(Serialize, Deserialize)]
struct Packed {
    place: Place,
    access: Carried,
    table: Option<String>,
    limit: Duration,
    pooled: bool,
}

/// Packs clients for a process in an instance; with their names.
///
/// # Errors
/// Refused when a file that they need can't be read.
pub fn pack(clients: Vec<NodeClient>) -> Result<(Value, Vec<String>), Untouched> {
    let names = clients.iter().map(|c| c.at.name.clone()).collect();
    let packed = clients.into_iter().map(|client| {
        let access = Carried::pack(&client.access.login, &client.at)?;
        Ok(Packed {
            place: place(&client.at),
            access,
            table: client.table,
            limit: client.limit,
            pooled: client.pooled,
        })
    });
    let packed: Result<Vec<Packed>, TlsError> = packed.collect();
    let packed = packed.map_err(|e| refused("client-cannot-connect", e.to_string()))?;
    Ok((json!(packed), names))
}

impl NodeClient {
    /// The clients again, in the instance.
    ///
    /// # Errors
    /// A sentence.
    pub fn unpack(packed: Value) -> Result<Vec<NodeClient>, String> {
        let packed: Vec<Packed> = serde_json::from_value(packed).map_err(|e| e.to_string())?;
        let clients = packed.into_iter().map(|packed| {
            let (login, tls) = packed.access.unpack()?;
            Ok(NodeClient {
                at: Target {
                    name: packed.place.name,
                    address: packed.place.address,
                    way: Way::Here,
                },
                access: Access { login, tls },
                table: packed.table,
                limit: packed.limit,
                pooled: packed.pooled,
            })
        });
        clients.collect()
    }
}

/// A standing connection that takes writes.
pub struct Standing {
    session: Session,
    write: Write,
}

/// How a standing connection writes.
enum Write {
    Prepared(Statement),
    /// By the simple protocol, which every pooler passes on in every mode; the number stands between.
    Simple(String, &'static str),
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
        let (before, after) = match &self.table {
            Some(table) => (format!("insert into {table} (number) values ("), ")"),
            None => (
                "select ".to_owned(),
                "::int8 where current_setting('transaction_read_only') = 'off'",
            ),
        };
        let write = match self.pooled {
            true => Write::Simple(before, after),
            false => {
                let prepared = session.client.prepare(&format!("{before}$1{after}")).await;
                Write::Prepared(prepared.map_err(|e| told(&self.at, &e))?)
            }
        };
        Ok(Standing { session, write })
    }

    async fn act(&self, standing: &mut Standing, number: u64) -> Result<(), ActError> {
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        let Standing { session, write } = standing;
        let done = match write {
            Write::Prepared(write) => session.client.execute(&*write, &[&number]).await,
            Write::Simple(before, after) => {
                let sql = format!("{before}{number}{after}");
                session.client.simple_query(&sql).await.map(|m| rows_of(&m))
            }
        };
        match done {
            Ok(1) => warned(session),
            Ok(_) => Err(ActError::Refused("takes no writes any more".to_owned())),
            Err(error) => Err(match error.as_db_error() {
                Some(said) if proves_no_commit(said) => ActError::Refused(told(&self.at, &error)),
                Some(_) => ActError::Doubtful(told(&self.at, &error)),
                None => ActError::Broken(told(&self.at, &error)),
            }),
        }
    }
}

/// How many rows a simple query wrote or gave.
fn rows_of(messages: &[SimpleQueryMessage]) -> u64 {
    let counts = messages.iter().map(|message| match message {
        SimpleQueryMessage::CommandComplete(rows) => *rows,
        _ => 0,
    });
    counts.sum()
}

fn told(at: &Target, error: &tokio_postgres::Error) -> String {
    Error::query(format!("{at}"), error).to_string()
}

/// Whether an error of a single statement that commits by itself proves that nothing was committed.
/// Not when the server ends the session or shuts down (class 57, also in the middle of the wait for
/// synchronous replication, after the local commit), not when it broke (58, XX), not when it says
/// itself that it doesn't know (08, 40003); <https://www.postgresql.org/docs/17/errcodes-appendix.html>.
pub fn proves_no_commit(said: &DbError) -> bool {
    let code = said.code().code();
    let in_doubt = ["57", "58", "XX", "08", "40003"];
    said.parsed_severity() == Some(Severity::Error)
        && !in_doubt.iter().any(|class| code.starts_with(class))
}

/// A commit that came back with a warning is not acknowledged: the wait for synchronous replication
/// may have been given up, and the row may be lost.
fn warned(session: &mut Session) -> Result<(), ActError> {
    warning(session).map_or(Ok(()), |words| {
        Err(ActError::Doubtful(format!("committed with {words}")))
    })
}

/// The warning that came with the last statement, if one did.
pub fn warning(session: &mut Session) -> Option<String> {
    while let Ok(message) = session.messages.try_recv() {
        if let AsyncMessage::Notice(notice) = message
            && notice.severity() == "WARNING"
        {
            return Some(notice.to_string());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_named_for_its_run_and_only_such_a_one_is_dropped() {
        assert_eq!(
            schema("20261124T134501Z-1A2b3c4d"),
            "veza_drill_20261124t134501z1a2b3c4d"
        );
    }

    #[tokio::test]
    async fn a_chore_that_is_not_ours_is_not_done() {
        let login = |_: &[(String, u16)], _: &str| Err("must not be asked".to_owned());
        let chore = |name: &str, schema: &str| Chore {
            name: name.to_owned(),
            about: json!({ "schema": schema, "hosts": [], "dbname": "d" }),
        };
        for (chore, word) in [
            (chore("wipe", "veza_drill_1"), "no chore"),
            (chore(DROP_SCHEMA, "public"), "not the schema"),
            (chore(DROP_SCHEMA, "veza_drill_1; drop"), "not the schema"),
            (chore(DROP_SCHEMA, "veza_drill_1"), "must not be asked"),
        ] {
            let refused = do_chore(&chore, &Way::Here, login).await.unwrap_err();
            assert!(refused.contains(word), "{refused}");
        }
    }
}
